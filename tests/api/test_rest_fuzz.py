"""A property-based API fuzzer against a running node, signed as clients sign: it finds no 5xx.   [W-8]"""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.api.edge import Trader, Venue, request, venue

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = 12
"""Generated requests per operation; what the document says is signed is signed, by a user with money."""

PAIR = {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "100", "leverage": "2"}
POOL_REQUESTS = (
    ("liquidity", "poolLiquidityAdd", {"symbol": "USDC", "nativeQuantity": "90000", "externalQuantity": "90000"}),
    ("positions", "poolPositionOpen", PAIR),
)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_fuzzer_finds_no_server_error(tmp_path: Path) -> None:
    """W-8"""
    async with venue(tmp_path) as running:
        # This measures answers, not limits.
        for bucket in vars(running.edge.limits).values():
            bucket._interval = 0.0
        alice = await running.trader(USDC="1000000", SOL="1000", ROWAN="1000000")
        prices = json.dumps({"USDC": "1", "SOL": "150", "ETH": "3000"})
        assert (await request(running.http, "POST", "/dev/v1/prices", data=prices)).status == 200
        # A position on the book: what is asked about positions has something to say.
        bob = await running.trader(USDC="100000")
        for trader, side in ((bob, "Ask"), (alice, "Bid")):
            assert (await trader.place("SOL_USDC_PERP", side, "150", "10")).status == 200
        for path, instruction, body in POOL_REQUESTS:
            reply = await alice.send("POST", f"/satchel/v1/pools/{path}", instruction, body)
            assert reply.status == 200, reply
        described = (await running.get("/openapi.json")).json
        loop = asyncio.get_running_loop()
        seen: dict[int, int] = {}

        def send(case: Any, instruction: str | None) -> None:
            answered = asyncio.run_coroutine_threadsafe(answer_to(running, alice, case, instruction), loop)
            status, body = answered.result(30)
            seen[status] = seen.get(status, 0) + 1
            assert status < 500, (case.method, case.formatted_path, case.query, case.body, body)
            if status >= 400:
                assert set(json.loads(body)) == {"code", "message"}, (case.formatted_path, body)

        await asyncio.to_thread(fuzz, described, send)
        ready = await running.get("/health/ready")
        failure = running.node.failure

    assert ready.status == 200 and failure is None
    assert seen.get(200, 0) > 50, f"hardly anything got through: {seen}"
    assert seen.get(400, 0) > 50, f"hardly anything was refused: {seen}"


def fuzz(described: dict[str, Any], send: Any) -> None:
    """Generate requests for every operation from the document and send each."""
    schema = schemathesis.openapi.from_dict(described)
    for result in schema.get_all_operations():
        operation = result.ok()
        # A year of exchange time has an epoch for every hour of it: that is not what is tried here.
        if operation.path != "/dev/v1/clock":
            fuzz_operation(operation, send)


def fuzz_operation(operation: Any, send: Any) -> None:
    instruction = operation.definition.raw.get("x-instruction")

    @hypothesis.seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def one(case: Any) -> None:
        send(case, instruction)

    one()


async def answer_to(running: Venue, alice: Trader, case: Any, instruction: str | None) -> tuple[int, bytes]:
    """Send one generated request; what can be signed is signed, so that it reaches the handler."""
    query = {name: value for name, value in (case.query or {}).items() if value is not None}
    body = None if isinstance(case.body, schemathesis.core.NotSet) else case.body
    headers: dict[str, str] = {}
    if instruction is not None:
        fields = query if body is None else body
        if isinstance(fields, dict):
            groups: Any = {name: spelt(value) for name, value in fields.items()}
        elif isinstance(fields, list) and all(isinstance(item, dict) for item in fields):
            groups = [{name: spelt(value) for name, value in item.items()} for item in fields]
        else:
            groups = {}
        headers = alice.headers(instruction, groups)
    data = None if body is None else json.dumps(body)
    params = [(name, spelt(item)) for name, value in query.items() for item in flat(value)]
    reply = await request(
        running.http, case.method, case.formatted_path, params=params, headers=headers, data=data
    )
    return reply.status, reply.body


def spelt(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return (value if isinstance(value, str) else str(value)).encode("utf-8", "replace").decode()


def flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
