"""Trigger orders, brackets, slippage, strategies and requests for quotes over HTTP on a real node.   [S-7, S-9, W-3]"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine import snapshot
from tests.api.edge import Reply, Trader, Venue, request, venue
from tools.audit import audit

SOL = "SOL_USDC"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Venue]:
    async with venue(tmp_path) as running:
        await clock(running, mode="manual")
        yield running


async def clock(running: Venue, **fields: Any) -> None:
    reply = await request(running.http, "POST", "/dev/v1/clock", data=json.dumps(fields))
    assert reply.status == 200, reply


async def traders(running: Venue) -> tuple[Trader, Trader]:
    """Two with money and coins; SOL last traded at 100."""
    alice = await running.trader(USDC="100000", SOL="1000")
    bob = await running.trader(USDC="100000", SOL="1000")
    await trade(alice, bob, "100")
    return alice, bob


async def trade(seller: Trader, buyer: Trader, price: str, quantity: str = "1") -> None:
    assert (await seller.place(SOL, "Ask", price, quantity)).status == 200
    assert (await buyer.place(SOL, "Bid", price, quantity)).json["status"] == "Filled"


async def executes(trader: Trader, **fields: Any) -> Reply:
    return await trader.send("POST", "/api/v1/order", "orderExecute", {"symbol": SOL, **fields})


async def open_orders(trader: Trader) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await trader.send("GET", "/api/v1/orders", "orderQueryAll", {"symbol": SOL})).json
    return rows


async def history(trader: Trader, order_id: str) -> dict[str, Any]:
    path, instruction = "/wapi/v1/history/orders", "orderHistoryQueryAll"
    rows = (await trader.send("GET", path, instruction, {"orderId": order_id})).json
    assert len(rows) == 1
    row: dict[str, Any] = rows[0]
    return row


async def test_a_stop_waits_and_fires(running: Venue) -> None:
    """As ccxt sends it: triggerQuantity and no quantity."""
    alice, bob = await traders(running)
    placed = await executes(
        alice, side="Ask", orderType="Market", triggerPrice="90", triggerQuantity="2", triggerBy="LastPrice", clientId=5
    )
    assert placed.status == 200 and placed.json["status"] == "TriggerPending", placed
    assert placed.json["triggerPrice"] == "90" and placed.json["triggerQuantity"] == "2"
    assert placed.json["triggerBy"] == "LastPrice" and "triggeredAt" not in placed.json
    assert await open_orders(alice) == [placed.json]
    seen = await alice.send("GET", "/api/v1/order", "orderQuery", {"symbol": SOL, "clientId": 5})
    assert seen.json == placed.json
    account = (await alice.send("GET", "/api/v1/account", "accountQuery")).json
    assert account["triggerOrders"] == 1 and account["limitOrders"] == 0

    await bob.place(SOL, "Bid", "89", "10")
    # One trade at 90 is enough.
    third = await running.trader(USDC="1000", SOL="10")
    await bob.place(SOL, "Bid", "90", "1")
    assert (await third.place(SOL, "Ask", "90", "1")).json["status"] == "Filled"
    await clock(running, advanceMs=1)
    row = await history(alice, placed.json["id"])
    assert row["status"] == "Filled" and row["executedQuantity"] == "2" and row["triggerPrice"] == "90"
    assert await open_orders(alice) == []


async def test_a_stop_that_fails_says_why(running: Venue) -> None:
    alice, bob = await traders(running)
    poor = await running.trader(USDC="10")
    placed = await executes(poor, side="Ask", orderType="Limit", price="80", triggerPrice="90", triggerQuantity="5")
    assert placed.json["status"] == "TriggerPending"
    await trade(alice, bob, "90")
    await clock(running, advanceMs=1)
    row = await history(poor, placed.json["id"])
    assert row["status"] == "TriggerFailed" and row["expiryReason"] == "InsufficientFunds"


async def test_cancels_choose_between_resting_and_waiting(running: Venue) -> None:
    alice, _bob = await traders(running)

    async def both() -> None:
        await alice.place(SOL, "Bid", "99", "1")
        await executes(alice, side="Ask", orderType="Market", triggerPrice="90", triggerQuantity="2")

    async def cancels(**fields: Any) -> list[str]:
        reply = await alice.send("DELETE", "/api/v1/orders", "orderCancelAll", {"symbol": SOL, **fields})
        assert reply.status == 200, reply
        return [row["triggerPrice"] if "triggerPrice" in row else row["price"] for row in reply.json]

    await both()
    assert await cancels(orderType="ConditionalOrder") == ["90"]
    assert await cancels(orderType="RestingLimitOrder") == ["99"]
    await both()
    assert sorted(await cancels()) == ["90", "99"]
    placed = await executes(alice, side="Ask", orderType="Market", triggerPrice="90", triggerQuantity="2")
    one = await alice.send("DELETE", "/api/v1/order", "orderCancel", {"symbol": SOL, "orderId": placed.json["id"]})
    assert one.json["status"] == "Cancelled"


async def test_brackets_and_slippage(running: Venue) -> None:
    alice, bob = await traders(running)
    await bob.place(SOL, "Ask", "100", "1")
    await bob.place(SOL, "Ask", "101", "5")
    placed = await executes(
        alice,
        side="Bid",
        orderType="Market",
        quantity="3",
        slippageTolerance="0.5",
        slippageToleranceType="Percent",
        stopLossTriggerPrice="90",
        stopLossTriggerBy="LastPrice",
        takeProfitTriggerPrice="120",
        takeProfitLimitPrice="119",
        takeProfitTriggerBy="LastPrice",
    )
    assert placed.json["status"] == "Expired" and placed.json["executedQuantity"] == "1", placed
    assert placed.json["slippageTolerance"] == "0.5" and placed.json["slippageToleranceType"] == "Percent"
    assert placed.json["takeProfitLimitPrice"] == "119" and placed.json["stopLossTriggerPrice"] == "90"
    row = await history(alice, placed.json["id"])
    assert row["expiryReason"] == "SlippageToleranceExceeded" and row["takeProfitTriggerBy"] == "LastPrice"
    armed = await open_orders(alice)
    assert [(each["triggerPrice"], each["side"], each["orderType"]) for each in armed] == [
        ("90", "Ask", "Market"),
        ("120", "Ask", "Limit"),
    ]
    assert {each["relatedOrderId"] for each in armed} == {placed.json["id"]}


async def test_a_batch_takes_trigger_orders(running: Venue) -> None:
    alice, _bob = await traders(running)
    orders = [
        {"symbol": SOL, "side": "Bid", "orderType": "Limit", "price": "99", "quantity": "1"},
        {"symbol": SOL, "side": "Ask", "orderType": "Market", "triggerPrice": "90", "triggerQuantity": "1"},
        {"symbol": SOL, "side": "Ask", "orderType": "Market", "triggerPrice": "100", "triggerQuantity": "1"},
    ]
    rows = (await alice.send("POST", "/api/v1/orders", "orderExecute", orders)).json
    assert [row["operation"] for row in rows] == ["Ok", "Ok", "Err"]
    assert rows[1]["status"] == "TriggerPending" and rows[2]["code"] == "INVALID_PRICE"


async def test_a_strategy_from_its_creation_to_its_history(running: Venue) -> None:
    alice, bob = await traders(running)
    await bob.place(SOL, "Ask", "100", "100")
    asked = {"symbol": SOL, "side": "Bid", "strategyType": "Scheduled", "quantity": "4", "duration": 4_000}
    created = await alice.send(
        "POST", "/api/v1/strategy", "strategyCreate", asked | {"interval": 1_000, "clientStrategyId": 9}
    )
    assert created.status == 200 and created.json["status"] == "Running", created
    assert created.json["strategyType"] == "Scheduled" and created.json["interval"] == 1_000
    await clock(running, advanceMs=1_500)
    query = {"symbol": SOL, "clientStrategyId": 9}
    seen = (await alice.send("GET", "/api/v1/strategy", "strategyQuery", query)).json
    assert seen["executedQuantity"] == "2" and seen["id"] == created.json["id"]
    assert (await alice.send("GET", "/api/v1/strategies", "strategyQueryAll", {})).json == [seen]
    orders = (
        await alice.send("GET", "/wapi/v1/history/orders", "orderHistoryQueryAll", {"strategyId": seen["id"]})
    ).json
    assert len(orders) == 2 and {row["strategyId"] for row in orders} == {seen["id"]}
    fills = (await alice.send("GET", "/wapi/v1/history/fills", "fillHistoryQueryAll", {"strategyId": seen["id"]})).json
    assert [row["quantity"] for row in fills] == ["1", "1"]
    await clock(running, advanceMs=3_000)
    past = (await alice.send("GET", "/wapi/v1/history/strategies", "strategyHistoryQueryAll", {})).json
    assert [(row["id"], row["status"], row["executedQuantity"]) for row in past] == [(seen["id"], "Completed", "4")]
    gone = await alice.send("GET", "/api/v1/strategy", "strategyQuery", query)
    assert gone.status == 404


async def test_strategies_are_cancelled(running: Venue) -> None:
    alice, _bob = await traders(running)
    asked = {"symbol": SOL, "side": "Bid", "strategyType": "Scheduled", "quantity": "4", "duration": 4_000}
    asked |= {"interval": 1_000, "price": "99"}
    first, second, third = [
        (await alice.send("POST", "/api/v1/strategy", "strategyCreate", asked)).json for _each in range(3)
    ]
    await clock(running, advanceMs=10)
    assert len(await open_orders(alice)) == 3
    fields = {"symbol": SOL, "strategyId": first["id"]}
    one = await alice.send("DELETE", "/api/v1/strategy", "strategyCancel", fields)
    assert one.json["status"] == "Cancelled" and one.json["id"] == first["id"]
    rest = await alice.send("DELETE", "/api/v1/strategies", "strategyCancelAll", {"symbol": SOL})
    assert [row["id"] for row in rest.json] == [second["id"], third["id"]]
    assert await open_orders(alice) == []
    again = await alice.send("DELETE", "/api/v1/strategy", "strategyCancel", fields)
    assert again.status == 404


async def test_a_request_quoted_and_accepted(running: Venue) -> None:
    alice, bob = await traders(running)
    asked = {"symbol": SOL, "side": "Bid", "quantity": "10", "executionMode": "AwaitAccept", "clientId": 3}
    rfq = await alice.send("POST", "/api/v1/rfq", "rfqSubmit", asked)
    assert rfq.status == 200 and rfq.json["status"] == "New" and rfq.json["clientId"] == 3, rfq
    quoted = await bob.send(
        "POST", "/api/v1/rfq/quote", "quoteSubmit", {"rfqId": rfq.json["rfqId"], "bidPrice": "99", "askPrice": "101"}
    )
    assert quoted.status == 200 and quoted.json["askPrice"] == "101", quoted
    for trader in (alice, bob):
        rows = (await trader.send("GET", "/api/v1/rfqs", "rfqQuery", {"symbol": SOL})).json
        assert [row["rfq"]["rfqId"] for row in rows] == [rfq.json["rfqId"]] and rows[0]["quotes"] == [quoted.json]
    fields = {"quoteId": quoted.json["quoteId"], "clientId": 3}
    accepted = await alice.send("POST", "/api/v1/rfq/accept", "quoteAccept", fields)
    assert accepted.status == 200 and accepted.json["status"] == "Filled", accepted

    rows = (await alice.send("GET", "/wapi/v1/history/rfq", "rfqHistoryQueryAll", {"status": "Filled"})).json
    assert [row["rfqId"] for row in rows] == [rfq.json["rfqId"]]
    assert (await alice.send("GET", "/wapi/v1/history/rfq", "rfqHistoryQueryAll", {"status": "New"})).json == []
    rows = (await bob.send("GET", "/wapi/v1/history/quote", "quoteHistoryQueryAll", {"symbol": SOL})).json
    assert [(row["quoteId"], row["status"]) for row in rows] == [(quoted.json["quoteId"], "Filled")]
    rows = (await alice.send("GET", "/wapi/v1/history/rfq/fill", "rfqFillHistoryQueryAll", {})).json
    assert [(row["fillPrice"], row["quantity"], row["side"]) for row in rows] == [("101", "10", "Bid")]
    rows = (await bob.send("GET", "/wapi/v1/history/quote/fill", "quoteFillHistoryQueryAll", {"side": "Ask"})).json
    assert [(row["fillPrice"], row["side"], row["feeSymbol"]) for row in rows] == [("101", "Ask", "USDC")]
    bids = await bob.send("GET", "/wapi/v1/history/quote/fill", "quoteFillHistoryQueryAll", {"side": "Bid"})
    assert bids.json == []


async def test_requests_are_refreshed_cancelled_and_end(running: Venue) -> None:
    alice, bob = await traders(running)
    rfq = (await alice.send("POST", "/api/v1/rfq", "rfqSubmit", {"symbol": SOL, "side": "Ask", "quantity": "1"})).json
    await clock(running, advanceMs=10_000)
    again = (await alice.send("POST", "/api/v1/rfq/refresh", "rfqRefresh", {"rfqId": rfq["rfqId"]})).json
    assert again["expiryTime"] - rfq["expiryTime"] == 10_000
    cancelled = await alice.send("POST", "/api/v1/rfq/cancel", "rfqCancel", {"rfqId": rfq["rfqId"]})
    assert cancelled.json["status"] == "Cancelled"
    unknown = await bob.send(
        "POST", "/api/v1/rfq/quote", "quoteSubmit", {"rfqId": rfq["rfqId"], "bidPrice": "99", "askPrice": "101"}
    )
    assert unknown.status == 404
    asked = {"symbol": SOL, "side": "Ask", "quantity": "1", "executionMode": "Immediate", "price": "100"}
    rfq = (await alice.send("POST", "/api/v1/rfq", "rfqSubmit", asked)).json
    quote = {"rfqId": rfq["rfqId"], "bidPrice": "100", "askPrice": "101"}
    filled = await bob.send("POST", "/api/v1/rfq/quote", "quoteSubmit", quote)
    assert filled.status == 200 and filled.json["status"] == "Filled", filled
    rfq = (await alice.send("POST", "/api/v1/rfq", "rfqSubmit", asked)).json
    await clock(running, advanceMs=61_000)
    rows = (await alice.send("GET", "/wapi/v1/history/rfq", "rfqHistoryQueryAll", {"rfqId": rfq["rfqId"]})).json
    assert [row["status"] for row in rows] == ["Expired"]


async def test_a_node_that_starts_again_has_the_same_state(tmp_path: Path) -> None:
    """A quote's command is derived from its text and the request's market, before and after.   [A-5, A-10]"""
    async with venue(tmp_path) as running:
        await test_a_request_quoted_and_accepted(running)
        digest = snapshot.state_hash(running.node.state)
    async with venue(tmp_path) as running:
        assert snapshot.state_hash(running.node.state) == digest
    assert audit(tmp_path, None, None, None, True) == 0
