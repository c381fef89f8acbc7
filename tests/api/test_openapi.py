"""The generated OpenAPI document: whole, valid, and field for field the contract.   [W-3, W-8]"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api.codec import expiry_name
from api.rest.openapi import document
from api.rest.table import ROUTES
from engine.events import ExpiryReason
from tests.api.edge import venue

CONTRACT = Path(__file__).parents[2].parent / "shared" / "spec" / "wire-openapi.json"
OURS = ("/satchel/", "/health/")

ADDED_FIELDS = {
    ("UpdateAccountSettingsRequest", "autoRealizePnl"),
    ("BorrowLendMarket", "rateBase"),
    ("BorrowLendMarket", "rateOptimal"),
    ("BorrowLendMarket", "rateMax"),
    ("FuturePositionWithMargin", "adlQuantile"),
    ("OrderExecutePayload", "triggeredBy"),
}
"""What W-10 adds to the contract, and what bpx-py calls `triggerBy`."""

OPEN_LISTS = {
    "Blockchain",
    "CustodyAsset",
    "DepositSource",
    "DepositStatus",
    "EqualsMoneyWithdrawalState",
    "FiatAsset",
    "OrderExpiryReason",
    "WithdrawalStatus",
}
"""Enumerations that we describe as text: our assets and chains are state, and `void` is a withdrawal status too."""


def test_every_route_is_described_once() -> None:
    described = document(ROUTES)
    operations = [(method.upper(), path) for path, item in described["paths"].items() for method in item]
    names = [operation["operationId"] for item in described["paths"].values() for operation in item.values()]

    assert sorted(operations) == sorted((route.method, route.path) for route in ROUTES)
    assert len(set(names)) == len(names)


def test_signed_routes_say_their_instruction_and_headers() -> None:
    """W-1"""
    described = document(ROUTES)
    for route in ROUTES:
        operation = described["paths"][route.path][route.method.lower()]
        headers = {row["name"] for row in operation["parameters"] if row["in"] == "header"}
        signed = {"X-API-Key", "X-Signature", "X-Timestamp", "X-Window"}

        assert operation.get("x-instruction") == route.instruction
        assert headers == (signed if route.instruction is not None else set())


async def test_the_node_serves_the_document_and_every_route_in_it(tmp_path: Path) -> None:
    """W-8: what answers 404 NOT FOUND for its path is no route."""
    async with venue(tmp_path) as running:
        served = (await running.get("/openapi.json")).json
        router = running.http.app.router  # type: ignore[union-attr]
        served_routes = {
            (route.method, route.resource.canonical)
            for route in router.routes()
            if route.resource is not None and route.method not in ("HEAD", "*")
        }
        metrics = await running.get("/metrics")

    described = {(method.upper(), path) for path, item in served["paths"].items() for method in item}
    assert described <= served_routes
    prefixes = ("/api/", "/wapi/", "/satchel/", "/dev/")
    contract_like = {(method, path) for method, path in served_routes if path.startswith(prefixes)}
    assert contract_like <= described
    assert b"satchel_durable_height" in metrics.body and b"satchel_insurance_fund_atoms 0.0" in metrics.body


@pytest.fixture(scope="module")
def contract() -> dict[str, Any]:
    if not CONTRACT.exists():
        pytest.skip(f"no contract to compare with: {CONTRACT} is absent")
    loaded: dict[str, Any] = json.loads(CONTRACT.read_text())
    return loaded


def test_reasons_of_expiry_are_the_contracts(contract: dict[str, Any]) -> None:
    """W-3: all but one, which the contract has among the system's order types."""
    names = {expiry_name(reason) for reason in ExpiryReason}

    assert names - set(contract["components"]["schemas"]["OrderExpiryReason"]["enum"]) == {"OrderBookClosed"}


def test_every_operation_of_the_contract_is_served(contract: dict[str, Any]) -> None:
    """W-3"""
    theirs = {(method.upper(), path) for path, item in contract["paths"].items() for method in item}
    ours = {(route.method, route.path) for route in ROUTES if not route.path.startswith(OURS)}

    assert ours == theirs


def test_query_parameters_are_the_contracts(contract: dict[str, Any]) -> None:
    """W-3: names, whether needed, types, formats, enumerations."""
    described = document(ROUTES)
    differences = []
    for route in implemented():
        theirs = parameters(contract, contract["paths"][route.path][route.method.lower()])
        ours = parameters(described, described["paths"][route.path][route.method.lower()])
        if theirs != ours:
            differences.append((route.method, route.path, theirs, ours))

    assert differences == []


def test_structs_are_the_contracts_field_by_field(contract: dict[str, Any]) -> None:
    """W-3: every field of every request and answer, its type and format, and which are needed."""
    described = document(ROUTES)
    differences: list[str] = []
    compared = 0
    for route in implemented():
        theirs = contract["paths"][route.path][route.method.lower()]
        ours = described["paths"][route.path][route.method.lower()]
        for where in ("requestBody", "responses"):
            left = media(theirs.get(where, {}) if where == "requestBody" else theirs[where]["200"])
            right = media(ours.get(where, {}) if where == "requestBody" else ours[where]["200"])
            name = f"{route.method} {route.path} {where}"
            if (left is None) != (right is None):
                differences.append(f"{name}: {left} against {right}")
            elif left is not None:
                differences += compare(name, flat(contract, left), flat(described, right))
                compared += 1

    assert differences == []
    assert compared >= 25


def implemented() -> list[Any]:
    """The contract's routes that do something; positions are all empty, so their rows cannot be compared."""
    return [
        route
        for route in ROUTES
        if route.tag != "Later" and not route.path.startswith(OURS)
    ]


def media(item: dict[str, Any]) -> dict[str, Any] | None:
    for content in item.get("content", {}).values():
        schema: dict[str, Any] = content["schema"]
        return schema
    return None


def parameters(whole: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    return {
        row["name"]: (bool(row.get("required")), flat(whole, row["schema"]))
        for row in operation.get("parameters", [])
        if row["in"] == "query"
    }


def flat(whole: dict[str, Any], schema: Any, depth: int = 0) -> Any:
    """A schema with references followed, as plain comparable data."""
    assert depth < 30, "a schema that contains itself"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in OPEN_LISTS:
            return "string"
        return flat(whole, whole["components"]["schemas"][name], depth + 1)
    options = [option for key in ("allOf", "anyOf", "oneOf") for option in schema.get(key, ()) if option]
    options = [option for option in options if option not in ({"type": "null"}, {"default": None})]
    if options:
        found = [flat(whole, option, depth + 1) for option in options]
        if "allOf" in schema:
            return merged(found)
        flattened = []
        for option in found:
            flattened += option["any"] if isinstance(option, dict) and "any" in option else [option]
        if len(flattened) == 1:
            return flattened[0]
        if all(isinstance(option, str) for option in flattened):
            # A number that may come as text, or a text that may come as a number: the contract's own type is first.
            return flattened[0]
        return {"any": sorted(flattened, key=repr)}
    if "enum" in schema:
        return sorted(schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items") or {}
        if not items and "prefixItems" in schema:
            items = schema["prefixItems"][0]
        return ["array", flat(whole, items, depth + 1)]
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return {"map": flat(whole, schema["additionalProperties"], depth + 1)}
    if kind == "object" or "properties" in schema:
        return {
            "fields": {name: flat(whole, field, depth + 1) for name, field in schema.get("properties", {}).items()},
            "needed": sorted(schema.get("required", ())),
        }
    return ":".join(filter(None, (str(kind), schema.get("format"))))


def merged(parts: list[Any]) -> Any:
    """`allOf`: a tag joined to a struct, or to a union of structs."""
    structs = [part for part in parts if isinstance(part, dict) and "fields" in part]
    unions = [part for part in parts if isinstance(part, dict) and "any" in part]
    if not structs and not unions:
        assert len(parts) == 1, parts
        return parts[0]
    joined: dict[str, Any] = {"fields": {}, "needed": []}
    for part in structs:
        joined["fields"] |= part["fields"]
        joined["needed"] = sorted({*joined["needed"], *part["needed"]})
    if unions:
        return {"any": sorted((merged([joined, option]) for option in unions[0]["any"]), key=repr)}
    return joined


def compare(where: str, theirs: Any, ours: Any) -> list[str]:
    """Each difference with both sides; empty when they agree."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if "fields" in theirs and "fields" in ours:
            return compare_structs(where, theirs, ours)
        if "map" in theirs and "map" in ours:
            return compare(f"{where}{{}}", theirs["map"], ours["map"])
        if "any" in theirs and "any" in ours and len(theirs["any"]) == len(ours["any"]):
            return [
                line
                for number, (left, right) in enumerate(zip(by_tag(theirs["any"]), by_tag(ours["any"]), strict=True))
                for line in compare(f"{where}|{number}", left, right)
            ]
    if isinstance(theirs, list) and isinstance(ours, list) and theirs[:1] == ours[:1] == ["array"]:
        return compare(f"{where}[]", theirs[1], ours[1])
    same = theirs == ours or (theirs, ours) == ("number:double", "number")
    return [] if same else [f"{where}: {theirs} against {ours}"]


def compare_structs(where: str, theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    lines = []
    for name in sorted({*theirs["fields"], *ours["fields"]}):
        if name not in theirs["fields"]:
            if not any(name == added for _struct, added in ADDED_FIELDS):
                lines.append(f"{where}.{name}: not in the contract")
        elif name not in ours["fields"]:
            lines.append(f"{where}.{name}: missing")
        else:
            lines += compare(f"{where}.{name}", theirs["fields"][name], ours["fields"][name])
    if theirs["needed"] != ours["needed"]:
        lines.append(f"{where}: needs {theirs['needed']} against {ours['needed']}")
    return lines


def by_tag(options: list[Any]) -> list[Any]:
    """Union members ordered by their tags, the enumerations of one value."""
    return sorted(
        options,
        key=lambda option: repr(
            sorted((name, kind) for name, kind in option["fields"].items() if isinstance(kind, list) and len(kind) == 1)
        ),
    )
