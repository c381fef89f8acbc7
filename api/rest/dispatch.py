"""From an HTTP request to a handler and back: decode, verify, limit, answer; refusals in the contract's shape."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, get_origin
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from api.auth import Authenticator, Credentials, Pairs, command_fields, credentials_of, signed_request
from api.codec import Codec, encode
from api.errors import ApiError, bad_request, not_found, not_implemented, refusal, unauthorized
from api.limits import RateLimits
from api.openapi import document
from api.ports import Node
from api.rest.metrics import Metrics
from api.rest.route import Answer, Call, Route
from api.verification_pool import VerificationPool
from engine.rejections import Rejection
from engine.sequencer import Halted, Overloaded
from engine.state import ApiKey

MAX_BODY_BYTES = 256 * 1024
"""A batch of fifty orders has 15 kB."""

IGNORED_PARAMETERS = frozenset({"assetClass", "brokerId", "endTime", "source"})
"""What clients add where the contract does not have it. Any other unknown parameter is an error: it may be a typo."""

log = logging.getLogger("satchel.api")


class Edge:
    """Everything the routes share: the node, the codec, who is who, how much who may ask."""

    def __init__(
        self,
        node: Node,
        pool: VerificationPool,
        limits: RateLimits | None = None,
        *,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.node = node
        self.limits = limits or RateLimits()
        self.codec = Codec(node.state)
        self.authenticator = Authenticator(node.state, pool, self.limits)
        self.metrics = Metrics(node)
        self.wall_ms = wall_ms

    def add_routes(self, app: web.Application, routes: Sequence[Route], elsewhere: Sequence[Route] = ()) -> None:
        """Serve the routes, the metrics, and the OpenAPI document of the routes and of those served elsewhere."""
        for route in routes:
            app.router.add_route(route.method, route.path, self.serve(route))
        described = msgspec.json.encode(document([*routes, *elsewhere]))

        async def openapi(_request: web.Request) -> web.Response:
            return web.Response(body=described, content_type="application/json", charset="utf-8")

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(text=self.metrics.text(), content_type="text/plain")

        app.router.add_get("/openapi.json", openapi)
        app.router.add_get("/metrics", metrics)

    def serve(self, route: Route) -> Callable[[web.Request], Any]:
        """The aiohttp handler of a route."""
        decode = _body_decoder(route.body) if route.body is not None else None
        read_query = _query_reader(route.query) if route.query is not None else _unread
        handler = route.handler

        async def respond(request: web.Request) -> web.Response:
            began = time.perf_counter()
            status = 500
            try:
                call = await self._admit(route, request, decode, read_query)
                answer = await handler(call)
                if not route.changes:
                    # What the handler saw of the state is told only when it is durable.  
                    await self.node.durable()
                response = _response(answer)
                status = response.status
                return response
            except ApiError as error:
                status = error.status
                raise
            finally:
                self.metrics.observe(route.method, route.path, status, time.perf_counter() - began)

        return respond

    async def _admit(
        self,
        route: Route,
        request: web.Request,
        decode: Callable[[bytes], tuple[Any, list[Pairs]]] | None,
        read_query: Callable[[Sequence[tuple[str, str]]], Any],
    ) -> Call:
        """Decode, verify and count one request; ApiError when it may not pass."""
        address = request.remote or ""
        limits = self.limits
        now_ms = self.wall_ms()
        call = Call(self.node, self.codec, now_ms)
        credentials: Credentials | None = None
        if route.instruction is None:
            limits.admit_unsigned(address)
        else:
            credentials = credentials_of(request.headers)
            call.key = self._account_of(route, credentials)
        if route.time_range:
            limits.admit_time_range(address)
        call.path = dict(request.match_info)

        raw_query = request.rel_url.raw_query_string
        pairs = _query_pairs(raw_query) if raw_query else []
        call.query = read_query(pairs)
        groups: list[Pairs] = [sorted(pairs, key=_name)]
        if decode is not None:
            call.body, groups = decode(await _read(request))

        if credentials is not None:
            assert route.instruction is not None
            text = await self.authenticator.verify(credentials, route.instruction, groups, address, now_ms)
            if call.key.user_id:
                limits.admit_subaccount(call.key.subaccount_id)
            if route.changes:
                call.fields = command_fields(text, groups)
                call.request = signed_request(credentials, text, now_ms)
        return call

    def _account_of(self, route: Route, credentials: Credentials) -> ApiKey:
        if not route.operator:
            return self.authenticator.account_of(credentials)
        if credentials.public_key not in self.node.state.operator_keys:
            raise unauthorized()
        return ApiKey(0, 0)


def contract_errors(node: Node) -> Any:
    """Middleware: every refusal and failure of a handler, ours or aiohttp's, in the contract's shape.   [W-4]"""

    @web.middleware
    async def answer(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
            return response
        except ApiError as error:
            return error_response(error)
        except Rejection as rejection:
            return error_response(refusal(rejection, node.state))
        except Overloaded as error:
            return error_response(ApiError(429, "TOO_MANY_REQUESTS", f"Too many requests: {error}"))
        except Halted as error:
            return error_response(ApiError(503, "MAINTENANCE", f"The exchange has stopped: {error}"))
        except web.HTTPNotFound:
            return error_response(not_found())
        except web.HTTPMethodNotAllowed as error:
            refused = error_response(
                ApiError(405, "INVALID_CLIENT_REQUEST", f"Method {request.method} is not allowed here")
            )
            refused.headers["Allow"] = error.headers.get("Allow", "")
            return refused
        except web.HTTPRequestEntityTooLarge:
            return error_response(_too_large())
        except (web.HTTPException, asyncio.CancelledError, ConnectionResetError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return error_response(ApiError(500, "SERVER_ERROR", "Internal error; it is in the log"))

    return answer


def error_response(error: ApiError) -> web.Response:
    return web.Response(status=error.status, body=error.body(), content_type="application/json", charset="utf-8")


def _response(answer: Any) -> web.Response:
    if isinstance(answer, Answer):
        body, status, headers, content_type = answer.body, answer.status, answer.headers, answer.content_type
    else:
        body, status, headers, content_type = answer, 200, None, "application/json"
    if body is None:
        return web.Response(status=status, headers=headers)
    if isinstance(body, bytes):
        pass
    elif content_type == "application/json":
        body = encode(body)
    else:
        body = body.encode()
    return web.Response(status=status, body=body, headers=headers, content_type=content_type, charset="utf-8")


async def _read(request: web.Request) -> bytes:
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    body = await request.read()
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    return body


def _too_large() -> ApiError:
    return ApiError(413, "INVALID_CLIENT_REQUEST", f"The body is larger than {MAX_BODY_BYTES} bytes")


def _name(pair: tuple[str, Any]) -> str:
    return pair[0]


# Queries.


def _query_pairs(raw: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(raw, keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise bad_request(f"failed to parse the query: {error}") from None


def _query_reader(shape: type[msgspec.Struct]) -> Callable[[Sequence[tuple[str, str]]], Any]:
    """Reads query pairs into `shape`; repeated names fill a list, an empty value counts as absent."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    lists = {name for name, field in fields.items() if get_origin(field.type) is list}

    def read(pairs: Sequence[tuple[str, str]]) -> Any:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if name not in fields:
                if name in IGNORED_PARAMETERS:
                    continue
                raise bad_request(f"unknown parameter `{name[:40]}`")
            if value in ("", "null"):
                continue
            if name in lists:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise bad_request(f"parameter `{name}` appears twice")
            else:
                values[name] = value
        try:
            return msgspec.convert(values, shape, strict=False)
        except msgspec.ValidationError as error:
            raise bad_request(f"failed to parse the query: {error}") from None

    return read


def _unread(_pairs: Sequence[tuple[str, str]]) -> None:
    """For a route that takes whatever comes."""


# Bodies.


def _body_decoder(shape: Any) -> Callable[[bytes], tuple[Any, list[Pairs]]]:
    """Decodes a body into `shape` and the fields that its signature covers, one group per object."""
    decode = msgspec.json.Decoder(shape).decode
    many = get_origin(shape) is list
    plain = msgspec.to_builtins

    def read(body: bytes) -> tuple[Any, list[Pairs]]:
        try:
            decoded = decode(body or b"{}")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise bad_request(f"parse request payload error: {error}") from None
        objects: list[dict[str, Any]] = plain(decoded) if many else [plain(decoded)]
        quotes = 0
        for content in objects:
            quotes += 2 * len(content)
            for name, value in content.items():
                if type(value) is str:
                    quotes += 2
                elif type(value) is dict:
                    raise not_implemented(f"`{name}`")
        # Without escapes every quote of a body delimits a name or a text, so counting them tells whether each name was
        # there once; only what does not count up is read again.
        if body.count(b'"') != quotes or b"\\" in body:
            _require_no_duplicates(body)
        return decoded, [sorted(content.items()) for content in objects]

    return read


def _require_no_duplicates(body: bytes) -> None:
    """A name that appears twice in an object has two meanings; the decoder would take the last one."""
    try:
        json.loads(body or b"{}", object_pairs_hook=_pairs_once)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"parse request payload error: {error}") from None


def _pairs_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _value in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice[:40]!r} appears twice")
    return content
