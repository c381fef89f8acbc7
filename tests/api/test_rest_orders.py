"""Orders over HTTP on a real node: place, look, cancel, batches, history, and the answers clients rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.edge import Venue, venue


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Venue]:
    async with venue(tmp_path) as running:
        yield running


async def test_an_order_is_placed_seen_and_cancelled(running: Venue) -> None:
    """W-1, W-3"""
    alice = await running.trader(USDC="1000")

    placed = await alice.place("SOL_USDC", "Bid", "141.25", "1.5", clientId=7)
    seen = await alice.send("GET", "/api/v1/order", "orderQuery", {"symbol": "SOL_USDC", "orderId": placed.json["id"]})
    listed = await alice.send("GET", "/api/v1/orders", "orderQueryAll", {"symbol": "SOL_USDC"})
    cancelled = await alice.send("DELETE", "/api/v1/order", "orderCancel", {"symbol": "SOL_USDC", "clientId": 7})
    gone = await alice.send("GET", "/api/v1/order", "orderQuery", {"symbol": "SOL_USDC", "clientId": 7})

    assert placed.status == 200
    assert placed.json | {"id": "1", "createdAt": 0} == {
        "orderType": "Limit",
        "id": "1",
        "createdAt": 0,
        "executedQuantity": "0",
        "executedQuoteQuantity": "0",
        "postOnly": False,
        "price": "141.25",
        "quantity": "1.5",
        "selfTradePrevention": "RejectTaker",
        "status": "New",
        "side": "Bid",
        "symbol": "SOL_USDC",
        "timeInForce": "GTC",
        "clientId": 7,
        "reduceOnly": False,
    }
    assert seen.json == placed.json and listed.json == [placed.json]
    assert cancelled.json == placed.json | {"status": "Cancelled"}
    assert gone.status == 404
    assert gone.json == {"code": "RESOURCE_NOT_FOUND", "message": "Not Found"}


async def test_balances_show_what_orders_lock(running: Venue) -> None:
    alice = await running.trader(USDC="1000")

    await alice.place("SOL_USDC", "Bid", "100", "2")
    capital = await alice.send("GET", "/api/v1/capital", "balanceQuery")

    assert capital.json == {"USDC": {"available": "800", "locked": "200", "staked": "0"}}
