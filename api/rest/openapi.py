"""The OpenAPI 3.1 document, made from the route table and the structs that the routes really use.   [W-8]"""

from __future__ import annotations

import importlib.metadata
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

import msgspec

from api.contract import ApiErrorResponse
from api.rest.route import Route

_REFERENCE = "#/components/schemas/{name}"
_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
_PAGE_HEADERS = (
    "ACCESS-CONTROL-EXPOSE-HEADERS", "CACHE-CONTROL", "X-PAGE-COUNT", "X-CURRENT-PAGE", "X-PAGE-SIZE", "X-TOTAL"
)
_STATUS_TEXTS = {
    204: "No data",
    400: "Refused: the code and the message say why",
    401: "Not signed by a known key",
    404: "Not found",
    413: "The body is too large",
    429: "Too many requests",
    503: "Not taking commands",
}
_SIGNED_HEADERS = (
    ("X-API-Key", True, {"type": "string"}, "Ed25519 public key, base64"),
    ("X-Signature", True, {"type": "string"}, "Ed25519 signature of the text, base64"),
    ("X-Timestamp", True, {"type": "integer", "format": "int64"}, "Milliseconds since 1970"),
    ("X-Window", False, {"type": "integer", "format": "uint64", "default": 5000, "maximum": 60000}, "Milliseconds"),
)


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The whole document."""
    routes = list(routes)
    components = _components(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    used = _reachable(paths, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Satchel",
            "version": importlib.metadata.version("satchel-exchange"),
            "description": (
                "Signed routes name their instruction in x-instruction. The signed text is instruction=NAME, then "
                "&key=value of all body or query fields sorted by key, then &timestamp=…&window=…."
            ),
        },
        "paths": paths,
        "components": {"schemas": {name: components[name] for name in sorted(used)}},
    }


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": _parameters(route, components),
        "responses": _responses(route),
    }
    if route.handler.__doc__:
        operation["description"] = " ".join(route.handler.__doc__.split())
    if route.instruction is not None:
        operation["x-instruction"] = route.instruction
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema_of(route.body)}}}
    return operation


def _parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.query is not None:
        shape = components[route.query.__name__]
        for name, schema in shape["properties"].items():
            rows.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in shape.get("required", ()),
                    "schema": _without_null(schema),
                }
            )
    if route.instruction is not None:
        for name, required, schema, description in _SIGNED_HEADERS:
            rows.append(
                {"name": name, "in": "header", "required": required, "schema": schema, "description": description}
            )
    return rows


def _responses(route: Route) -> dict[str, Any]:
    error = {_JSON: {"schema": schema_of(ApiErrorResponse)}}
    responses: dict[str, Any] = {}
    if route.tag != "Later":
        done: dict[str, Any] = {"description": "Done"}
        if route.answer is str:
            done["content"] = {_TEXT: {"schema": {"type": "string"}}}
        elif route.answer is not None:
            done["content"] = {_JSON: {"schema": schema_of(route.answer)}}
        if route.paged:
            done["headers"] = {name: {"schema": {"type": "string"}} for name in _PAGE_HEADERS}
        responses["200"] = done
    statuses = {400, 429, 503, *route.statuses}
    if route.instruction is not None:
        statuses.add(401)
    if route.body is not None:
        statuses.add(413)
    for status in sorted(statuses):
        responses[str(status)] = {"description": _STATUS_TEXTS[status]}
        if status != 204:
            responses[str(status)]["content"] = error
    return responses


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of an answer or a body: references to structs, arrays, maps and unions of them."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {"$ref": _REFERENCE.format(name=kind.__name__)}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if origin in (typing.Union, types.UnionType):
        return {"oneOf": [schema_of(option) for option in arguments]}
    if kind is Any:
        return {}
    return msgspec.json.schema(kind)


def _components(routes: list[Route]) -> dict[str, Any]:
    shapes: dict[str, type] = {ApiErrorResponse.__name__: ApiErrorResponse}
    for route in routes:
        for kind in (route.answer, route.body, route.query):
            for shape in _structs(kind):
                known = shapes.setdefault(shape.__name__, shape)
                assert known is shape, f"two structs are called {shape.__name__}: {known}, {shape}"
    _schemas, components = msgspec.json.schema_components(shapes.values(), ref_template=_REFERENCE)
    return components


def _structs(kind: Any) -> list[type]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [shape for argument in typing.get_args(kind) for shape in _structs(argument)]


def _reachable(content: Any, components: dict[str, Any]) -> set[str]:
    """Names of the components that `content` refers to, directly or through others."""
    found: set[str] = set()
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            reference = item.get("$ref")
            if isinstance(reference, str):
                name = reference.rpartition("/")[2]
                if name not in found:
                    found.add(name)
                    waiting.append(components[name])
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is there or not; it is never null."""
    schema = {name: value for name, value in schema.items() if not (name == "default" and value in (None, []))}
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return {**{name: value for name, value in schema.items() if name != "anyOf"}, **options[0]}
    return {**schema, "anyOf": options} if options else schema


def _operation_id(route: Route) -> str:
    name = route.handler.__name__
    if route.tag in ("Later", "Devnet") or name == "get_balances":
        words = re.sub(r"[^A-Za-z0-9]+", "_", route.path).strip("_")
        return f"{route.method.lower()}_{words}"
    return name
