"""Clients that others wrote, unmodified, with trigger orders and brackets.   [S-7, S-9, W-1, W-3]"""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.clients.node import devnet, post, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


async def test_ccxt_places_trigger_orders(ccxt_python: Path, tmp_path: Path) -> None:
    """S-9: ccxt sends triggerQuantity and no quantity, brackets as takeProfit and stopLoss."""
    async with devnet(tmp_path) as world:
        async with aiohttp.ClientSession() as http:
            await post(http, f"{world['url']}/dev/v1/clock", {"mode": "manual"})
            await post(http, f"{world['url']}/dev/v1/prices", {"USDC": "1", "SOL": "150"})
        seen = await run(ccxt_python, "drive_ccxt_triggers.py", world)

    assert seen["at once"] == "InvalidOrder", "ccxt's own mapping of INVALID_PRICE"
    stop, entry = ["sell", "limit", "TriggerPending", "140", "2"], ["buy", "market", "TriggerPending", "160", "1"]
    assert seen["placed"] == seen["open"] == [stop, entry] and seen["one"] == stop
    assert seen["balance"] == 0.0, "a waiting order locks nothing"
    assert seen["cancelled"] == "canceled"
    assert seen["fired"] == ["sell", "limit", "Filled", "140", "2"]
    assert seen["armed"] == [
        ["sell", "market", "TriggerPending", "140", "3"],
        ["sell", "limit", "TriggerPending", "170", "3"],
    ]
    assert seen["related"] is True and seen["flat"] == [True, []]
    assert seen["all cancelled"] == []


async def test_bpx_py_places_trigger_orders(bpx_python: Path, tmp_path: Path) -> None:
    """S-9: bpx-py sends quantity and triggerQuantity."""
    async with devnet(tmp_path) as world:
        seen = await run(bpx_python, "drive_bpx_triggers.py", world)

    assert seen["placed"] == ["TriggerPending", "140", "2", "LastPrice"]
    assert seen["open"] is True and seen["one"] == "TriggerPending"
    assert seen["bracketed"] == ["Filled", "160", "120"]
    assert seen["fired"] == ["Filled", "2"]
    assert seen["armed"] == [["Bid", "120", "TriggerPending"], ["Bid", "160", "TriggerPending"]]
    assert seen["cancelled"] == ["Cancelled", "Cancelled"] and seen["account"] == [0, 0]
    assert seen["unknown"] == "RESOURCE_NOT_FOUND"
