"""From an HTTP request to a handler and back: decode, verify, limit, answer; refusals in the contract's shape."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from api.auth import Authenticator, Credentials, Pairs, command_fields, credentials_of, signed_request
from api.codec import Codec, encode
from api.errors import ApiError, bad_request, not_found, not_implemented, refusal, unauthorized
from api.limits import RateLimits
from api.node import Node
from api.rest.metrics import Metrics
from api.rest.openapi import document
from api.rest.route import Answer, Call, Route
from api.verification_pool import VerificationPool
from engine.rejections import Rejection
from engine.sequencer import Halted, Overloaded
from engine.state import ApiKey

MAX_BODY_BYTES = 256 * 1024
"""A batch of fifty orders has 15 kB."""

IGNORED_PARAMETERS = frozenset({"assetClass", "brokerId", "endTime", "source"})
"""What clients add where the contract does not have it. Any other unknown parameter is an error: it may be a typo."""

READ_SECONDS = 15.0
"""A body that takes longer is given up: who sends a byte now and then holds a connection for nothing."""

JSON_TEXTS = frozenset({"arguments"})
"""Texts that hold JSON, with line breaks perhaps: whoever decodes them checks the texts inside."""

OWN_PATHS = ("/api/", "/wapi/", "/satchel/", "/dev/")
"""Paths whose handlers count who asks by themselves; everything else is counted before it is looked for."""

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
        decode = _body_decoder(route.body, self._most_orders) if route.body is not None else None
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
        """Decode, verify and count one request; ApiError when it may not pass.

        Whatever is cheap to refuse is refused first: who has used up the limits costs a look at two numbers. Every
        request that is not verified in the end counts against its address, whatever was wrong with it.   [W-5, T-8]
        """
        address = request.remote or ""
        limits = self.limits
        call = Call(self.node, self.codec, self.wall_ms())
        if route.instruction is None:
            limits.admit_unsigned(address)
            if route.time_range:
                limits.admit_time_range(address)
            await self._fill(call, request, decode, read_query)
            return call
        limits.require_unrefused(address)
        try:
            credentials = credentials_of(request.headers)
            credentials.require_current(call.wall_ms)
            call.key = self._account_of(route, credentials)
            if call.key.user_id:
                limits.require_subaccount(call.key.subaccount_id)
            limits.require_unverified(address)
            if route.time_range:
                limits.admit_time_range(address)
            groups = await self._fill(call, request, decode, read_query)
            text = await self.authenticator.verify(
                credentials, route.instruction, groups, address, call.wall_ms, route.other_instructions
            )
        except (ApiError, web.HTTPException):
            limits.count_refused(address)
            raise
        if call.key.user_id:
            limits.admit_subaccount(call.key.subaccount_id)
        if route.body is not None:
            call.fields = command_fields(text, groups)
        if route.changes:
            call.request = signed_request(credentials, text, call.wall_ms)
        return call

    async def _fill(
        self,
        call: Call,
        request: web.Request,
        decode: Callable[[bytes], tuple[Any, list[Pairs]]] | None,
        read_query: Callable[[Sequence[tuple[str, str]]], Any],
    ) -> list[Pairs]:
        """Decode path, query and body into the call; the fields that a signature covers."""
        call.path = dict(request.match_info)

        raw_query = request.rel_url.raw_query_string
        pairs = _query_pairs(raw_query) if raw_query else []
        call.query = read_query(pairs)
        groups: list[Pairs] = [sorted(pairs, key=_name)]
        if decode is not None:
            call.body, groups = decode(await read_body(request))
        return groups

    def _most_orders(self) -> int:
        return self.node.state.limits.orders_per_batch

    def _account_of(self, route: Route, credentials: Credentials) -> ApiKey:
        if not route.operator:
            return self.authenticator.account_of(credentials)
        if credentials.public_key not in self.node.state.operator_keys:
            raise unauthorized()
        return ApiKey(0, 0)


def contract_errors(node: Node, limits: RateLimits) -> Any:
    """Middleware: every refusal and failure of a handler, ours or aiohttp's, in the contract's shape.   [W-4]

    What no route of the table answers (pages, metrics, the document, paths that are not there) is counted here.  [W-5]
    """

    @web.middleware
    async def answer(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if request.match_info.http_exception is not None:
                limits.admit_stray(request.remote or "")
            elif not request.path.startswith(OWN_PATHS):
                limits.admit_unsigned(request.remote or "")
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


async def read_body(request: web.Request) -> bytes:
    """The whole body; ApiError when it is too large, too slow, or not what its headers say.   [T-7]"""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        if request.content.is_eof():
            # As usual: it came with its head.
            body = await request.read()
        else:
            async with asyncio.timeout(READ_SECONDS):
                body = await request.read()
    except TimeoutError:
        raise ApiError(408, "TIMEOUT", f"The body did not arrive within {READ_SECONDS:g} seconds") from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise bad_request(f"The body is not what its headers say: {type(error).__name__}") from None
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
        pairs = parse_qsl(raw, keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise bad_request(f"failed to parse the query: {error}") from None
    for name, value in pairs:
        _require_printable(name, value)
    return pairs


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
            raise bad_request(f"failed to parse the query: {_with_choice(error, shape)}") from None

    return read


def _unread(_pairs: Sequence[tuple[str, str]]) -> None:
    """For a route that takes whatever comes."""


# Bodies.


def _body_decoder(shape: Any, most: Callable[[], int]) -> Callable[[bytes], tuple[Any, list[Pairs]]]:
    """Decodes a body into `shape` and the fields that its signature covers, one group per object, `most()` at most."""
    decode = msgspec.json.Decoder(shape).decode
    many = get_origin(shape) is list
    plain = msgspec.to_builtins

    def read(body: bytes) -> tuple[Any, list[Pairs]]:
        try:
            decoded = decode(body or b"{}")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise bad_request(f"parse request payload error: {_with_choice(error, shape)}") from None
        if many and len(decoded) > most():
            raise bad_request(f"Batch size: {len(decoded)} orders, at most {most()}", "ORDER_LIMIT")
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
        has_escapes = b"\\" in body
        if body.count(b'"') != quotes or has_escapes:
            _require_no_duplicates(body)
        # JSON itself has no bare control characters: only an escape, a DEL or what is not ASCII cannot be printed.
        if has_escapes or not body.isascii() or b"\x7f" in body:
            for content in objects:
                for name, value in content.items():
                    if type(value) is str and name not in JSON_TEXTS:
                        _require_printable(name, value)
        return decoded, [sorted(content.items()) for content in objects]

    return read


def _with_choice(error: Exception, shape: Any) -> str:
    """What the decoder says of `shape`; where a value is none of those that there are, these too."""
    words = str(error)
    struct = get_args(shape)[0] if get_origin(shape) is list else shape
    if not words.startswith("Invalid enum value") or not isinstance(struct, type):
        return words
    name = words.rpartition(".")[2].rstrip("`").partition("[")[0]
    for field in msgspec.structs.fields(struct):
        if field.encode_name == name:
            return f"{words}: one of {', '.join(_choice(msgspec.inspect.type_info(field.type)))}"
    return words


def _choice(kind: msgspec.inspect.Type) -> list[str]:
    if isinstance(kind, msgspec.inspect.LiteralType):
        return [str(value) for value in kind.values]
    if isinstance(kind, msgspec.inspect.ListType):
        return _choice(kind.item_type)
    parts = kind.types if isinstance(kind, msgspec.inspect.UnionType) else ()
    return [value for part in parts for value in _choice(part)]


def _require_printable(name: str, value: str) -> None:
    """No control, invisible or unpaired character comes in: databases and people stumble over them.   [T-7]"""
    if not value.isprintable():
        raise bad_request(f"{name[:40]!a} has characters that cannot be printed: {value[:40]!a}")


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
