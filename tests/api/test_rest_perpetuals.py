"""Perpetuals over HTTP and the socket: positions, funding, settlement, histories.   [C-5, P-22, S-10, W-3, W-6]"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine import limits, margin
from engine.formulas.prices import mark_quantum
from ledger.chart import contracts
from tests.api.edge import Reply, Trader, Venue, request, venue

PERP = "SOL_USDC_PERP"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Venue]:
    async with venue(tmp_path) as node:
        await dev(node, "clock", {"mode": "manual"})
        now = (await dev(node, "clock", {"advanceMs": 0}))["now"]
        # To the middle of an hour, a second before a settlement tick.
        await dev(node, "clock", {"advanceMs": 3_600_000 - now % 3_600_000 + 1_800_000 - 1_000})
        await dev(node, "prices", {"USDC": "1", "SOL": "100"})
        yield node


async def dev(running: Venue, route: str, body: dict[str, Any]) -> Any:
    reply = await request(running.http, "POST", f"/dev/v1/{route}", data=json.dumps(body))
    assert reply.status == 200, reply
    return reply.json


async def traded(running: Venue, quantity: str = "10", price: str = "100") -> tuple[Trader, Trader]:
    """Alice is long, bob is short; alice took."""
    alice, bob = await running.trader(USDC="10000"), await running.trader(USDC="10000")
    assert (await bob.place(PERP, "Ask", price, quantity)).status == 200
    reply = await alice.place(PERP, "Bid", price, quantity)
    assert reply.json["status"] == "Filled", reply
    return alice, bob


async def ask(trader: Trader, path: str, instruction: str, **query: Any) -> Any:
    reply = await trader.send("GET", path, instruction, query)
    assert reply.status == 200, reply
    return reply.json


async def position(trader: Trader) -> Any:
    (row,) = await ask(trader, "/api/v1/position", "positionQuery")
    return row


async def usdc(trader: Trader) -> Decimal:
    balances = await ask(trader, "/api/v1/capital", "balanceQuery")
    return Decimal(balances["USDC"]["available"])


async def test_a_position_has_every_field_and_gains_become_usdc_at_the_tick(running: Venue) -> None:
    """C-5, S-10, W-3: 10 SOL long at 100, fee 0.05 % of 1,000; the index goes to 101, the tick pays 10."""
    alice, bob = await traded(running)
    row = await position(alice)
    assert row["netQuantity"] == row["netExposureQuantity"] == "10"
    assert (row["entryPrice"], row["markPrice"], row["netCost"]) == ("100", "100", "1000")
    assert (row["pnlUnrealized"], row["pnlRealized"], row["breakEvenPrice"]) == ("0", "-0.5", "100.05")
    assert row["userId"] == alice.user_id and row["subaccountId"] == alice.subaccount_id
    assert row["cumulativeFundingPayment"] == row["cumulativeInterest"] == "0"
    assert (await position(bob))["netCost"] == "-1000"

    await dev(running, "prices", {"SOL": "101"})
    row = await position(alice)
    assert (row["pnlUnrealized"], row["pnlRealized"], row["markPrice"]) == ("10", "-0.5", "101")
    before = await usdc(alice)
    await dev(running, "clock", {"advanceMs": 1_000})
    row = await position(alice)
    assert await usdc(alice) - before == 10
    assert (row["pnlUnrealized"], row["pnlRealized"], row["entryPrice"]) == ("0", "9.5", "100")
    assert (await position(bob))["pnlRealized"] == "-10.2", "maker: 0.02 %"
    assert row["adlQuantile"] == 5, "alone on her side she is first in line"


async def test_a_named_market_without_a_position_is_404(running: Venue) -> None:
    """W-3"""
    alice = await running.trader(USDC="10")
    assert (await ask(alice, "/api/v1/position", "positionQuery")) == []
    reply = await alice.send("GET", "/api/v1/position", "positionQuery", {"symbol": PERP})
    assert (reply.status, reply.json["code"]) == (404, "RESOURCE_NOT_FOUND")
    reply = await alice.send("GET", "/api/v1/position", "positionQuery", {"symbol": "NO_PERP"})
    assert reply.status == 400


async def test_open_interest_marks_and_the_running_interval(running: Venue) -> None:
    """P-22: the running interval comes first; after an hour it has ended, and its payment is in both histories."""
    alice, bob = await traded(running)
    (row,) = (await running.get(f"/api/v1/openInterest?symbol={PERP}")).json
    assert (row["symbol"], row["openInterest"]) == (PERP, "10") and row["timestamp"] > 0
    before = await usdc(alice), await usdc(bob)
    (mark,) = (await running.get(f"/api/v1/markPrices?symbol={PERP}")).json
    reply = await running.get(f"/api/v1/fundingRates?symbol={PERP}")
    assert reply.headers["X-TOTAL"] == "1"
    (running_rate,) = reply.json
    assert running_rate["fundingRate"] == mark["fundingRate"]

    await dev(running, "clock", {"advanceMs": 1_900_000})
    rates = (await running.get(f"/api/v1/fundingRates?symbol={PERP}")).json
    assert len(rates) == 2 and rates[1]["intervalEndTimestamp"] == running_rate["intervalEndTimestamp"]
    assert rates[0]["intervalEndTimestamp"] > rates[1]["intervalEndTimestamp"]
    assert (await running.get(f"/api/v1/fundingRates?symbol={PERP}&limit=1&offset=1")).json == rates[1:]
    # The index is the mark, so the rate is the interest: 0.03 % × 1/24 ÷ 8.
    paid = Decimal(rates[1]["fundingRate"]) * 1_000
    assert paid > 0
    for trader, balance, sign in ((alice, before[0], -1), (bob, before[1], 1)):
        (payment,) = await ask(trader, "/wapi/v1/history/funding", "fundingHistoryQueryAll")
        assert abs(Decimal(payment["quantity"]) - sign * paid) <= Decimal("0.000001")
        assert payment["fundingRate"] == rates[1]["fundingRate"] and payment["symbol"] == PERP
        assert await usdc(trader) - balance == Decimal(payment["quantity"])
        assert (await position(trader))["cumulativeFundingPayment"] == payment["quantity"]
        settled = await ask(trader, "/wapi/v1/history/settlement", "settlementHistoryQueryAll", source="FundingPayment")
        assert [each["quantity"] for each in settled] == [payment["quantity"]]


async def test_settlements_add_up_to_what_the_balance_moved(running: Venue) -> None:
    """S-10: ticks, funding and fees of a position that grows, flips and closes are the whole change of the balance."""
    alice, bob = await traded(running)
    carol = await running.trader(USDC="10000")
    for step, (side, quantity, price) in enumerate(
        [("Bid", "3", "101"), ("Ask", "7.5", "102"), ("Ask", "9", "99"), ("Bid", "3.5", "97.5")]
    ):
        await dev(running, "prices", {"SOL": price})
        other = "Ask" if side == "Bid" else "Bid"
        assert (await carol.place(PERP, other, price, quantity)).status == 200
        reply = await alice.place(PERP, side, price, quantity)
        assert reply.json["status"] == "Filled", (step, reply)
        await dev(running, "clock", {"advanceMs": [3_000, 11_000, 2_000_000, 25_000][step]})
        await dev(running, "prices", {"SOL": str(Decimal(price) + Decimal("0.37"))})
        await dev(running, "clock", {"advanceMs": 10_000})
    assert (await ask(alice, "/api/v1/position", "positionQuery")) == []
    for trader in (alice, bob, carol):
        rows = await ask(trader, "/wapi/v1/history/settlement", "settlementHistoryQueryAll", limit=1000)
        assert sum(Decimal(row["quantity"]) for row in rows) == await usdc(trader) - 10_000
        assert [row["engineSequence"] for row in rows] == sorted((row["engineSequence"] for row in rows), reverse=True)
        pages = [
            await ask(
                trader, "/wapi/v1/history/settlement", "settlementHistoryQueryAll",
                limit=2, offset=offset, sortDirection="Asc",
            )
            for offset in range(0, len(rows), 2)
        ]
        assert [row for page in pages for row in page] == rows[::-1]


async def test_the_history_of_positions_open_and_closed(running: Venue) -> None:
    """C-5: a closed position knows its prices, its gain and what it paid."""
    alice, bob = await traded(running)
    await dev(running, "prices", {"SOL": "102"})
    await dev(running, "clock", {"advanceMs": 10_000})
    assert (await bob.place(PERP, "Bid", "102", "4")).status == 200
    assert (await alice.place(PERP, "Ask", "102", "4")).json["status"] == "Filled"
    (row,) = await ask(alice, "/wapi/v1/history/position", "positionHistoryQueryAll", state="Open")
    live = await position(alice)
    assert (row["netQuantity"], row["closedVolume"], row["closingPrice"], row["entryPrice"]) == ("6", "4", "102", "100")
    assert row["cumulativePnlRealized"] == live["pnlRealized"] and row["id"] == live["positionId"]
    assert "closedAt" not in row

    assert (await bob.place(PERP, "Bid", "103", "6")).status == 200
    assert (await alice.place(PERP, "Ask", "103", "6")).json["status"] == "Filled"
    assert (await ask(alice, "/wapi/v1/history/position", "positionHistoryQueryAll", state="Open")) == []
    (row,) = await ask(alice, "/wapi/v1/history/position", "positionHistoryQueryAll", symbol=PERP)
    assert (row["state"], row["netQuantity"], row["closedVolume"], row["entryPrice"]) == ("Closed", "0", "10", "100")
    assert row["closingPrice"] == "102.6" and row["fees"] == "1.013", "0.05 % of 1,000 + 408 + 618"
    assert row["cumulativePnlRealized"] == "24.987" and row["unrealizedPnl"] == "0" and "closedAt" in row
    await dev(running, "clock", {"advanceMs": 10_000})
    assert await usdc(alice) == Decimal("10024.987")
    (short,) = await ask(bob, "/wapi/v1/history/position", "positionHistoryQueryAll")
    assert (short["entryPrice"], short["closingPrice"], short["state"]) == ("100", "102.6", "Closed")


async def test_capital_shows_unrealized_pnl_and_futures_exposure(running: Venue) -> None:
    """C-3, C-4, M-7"""
    alice, _bob = await traded(running)
    await dev(running, "prices", {"SOL": "101"})
    capital = await ask(alice, "/api/v1/capital/collateral", "collateralQuery")
    assert (capital["pnlUnrealized"], capital["netExposureFutures"], capital["unsettledEquity"]) == ("10", "1010", "0")
    assert capital["netEquity"] == "10009.5"
    assert Decimal(capital["marginFraction"]) == Decimal("9.910396039")
    # Leverage 10: a tenth of what is exposed is locked.
    assert (capital["netEquityLocked"], capital["netEquityAvailable"]) == ("101", "9908.5")


async def test_the_largest_order_is_exact_and_the_preview_agrees(running: Venue) -> None:
    """M-11, M-13: one step more is refused."""
    alice, _bob = await traded(running)
    for side, price in (("Bid", "100"), ("Bid", "101"), ("Ask", "99.5"), ("Ask", "100")):
        found = await ask(
            alice, "/api/v1/account/limits/order", "maxOrderQuantity", symbol=PERP, side=side, price=price
        )
        most = Decimal(found["maxOrderQuantity"])
        assert most > 10
        over = await alice.place(PERP, side, price, str(most + Decimal("0.01")))
        assert (over.status, over.json["code"]) == (400, "INSUFFICIENT_MARGIN")
        preview = await alice.send(
            "POST", "/satchel/v1/orders/preview", "orderPreview",
            {"symbol": PERP, "side": side, "orderType": "Limit", "price": price, "quantity": str(most)},
        )
        assert preview.status == 200 and "refusal" not in preview.json, preview
        assert Decimal(preview.json["resting"]["netEquityAvailable"]) > 0
        placed = await alice.place(PERP, side, price, str(most))
        assert placed.status == 200, placed
        gone = {"symbol": PERP, "orderId": placed.json["id"]}
        assert (await alice.send("DELETE", "/api/v1/order", "orderCancel", gone)).status == 200


async def test_the_estimated_liquidation_price_is_where_it_happens(running: Venue) -> None:
    """M-6, W-3: above it the account is not in liquidation, at it it is; for longs and shorts."""
    alice, bob = await running.trader(USDC="1000"), await running.trader(USDC="1000")
    assert (await bob.place(PERP, "Ask", "100", "60")).status == 200
    assert (await alice.place(PERP, "Bid", "100", "60")).json["status"] == "Filled"
    long, short = Decimal((await position(alice))["estLiquidationPrice"]), (await position(bob))["estLiquidationPrice"]
    assert 83 < long < 90 and 110 < Decimal(short) < 117
    state = running.node.state
    market = next(each for each in state.markets.values() if each.parameters.symbol == PERP)
    item = contracts(market.parameters.market_id)
    quantum = mark_quantum(market.parameters)
    for trader, step in ((alice, quantum), (bob, -quantum)):
        account = state.subaccounts[trader.subaccount_id]
        at = limits.liquidation_price(state, account, item, running.node.now_us())
        for price, expected in ((at, True), (at + step, False)):
            found = margin.sums(
                state, account, running.node.now_us(), marks={**state.marks, item: price}
            )
            assert found.is_in_liquidation is expected


async def test_the_socket_tells_of_positions_and_open_interest(running: Venue) -> None:
    """W-6: what is open at first, without `e`; then each change; balances that a tick moved."""
    alice, bob = await traded(running)
    now = str(time.time_ns() // 1_000_000)
    text = f"instruction=subscribe&timestamp={now}&window=5000"
    signature = [alice.key, b64encode(alice.private.sign(text.encode())).decode(), now, "5000"]
    streams = ["account.positionUpdate", "account.balanceUpdate", f"openInterest.{PERP}", f"markPrice.{PERP}"]
    async with running.http.ws_connect("/") as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": streams, "signature": signature})
        seen: list[Any] = [await socket.receive_json(timeout=5) for _ in range(2)]
        told = {each["stream"]: each["data"] for each in seen}
        opened = told["account.positionUpdate"]
        assert "e" not in opened and (opened["q"], opened["B"], opened["s"]) == ("10.00", "100", PERP)
        assert told[f"openInterest.{PERP}"]["o"] == "10.00"
        assert (await alice.place(PERP, "Ask", "100", "10")).status == 200
        assert (await bob.place(PERP, "Bid", "100", "10")).json["status"] == "Filled"
        closed = await stream_of(socket, "account.positionUpdate")
        assert (closed["e"], closed["q"], closed["i"]) == ("positionClosed", "0.00", opened["i"])
        assert set(closed) == set("e E s b B f M m q Q n i l p P T".split())
        mark = await stream_of(socket, f"markPrice.{PERP}")
        assert mark["n"] % 3_600_000 == 0 and "f" in mark
        assert (await bob.place(PERP, "Ask", "100", "10")).status == 200
        assert (await alice.place(PERP, "Bid", "100", "10")).json["status"] == "Filled"
        assert (await stream_of(socket, "account.positionUpdate"))["e"] == "positionOpened"
        balance = await usdc(alice)
        await dev(running, "prices", {"SOL": "101"})
        await dev(running, "clock", {"advanceMs": 10_000})
        while True:
            moved = await stream_of(socket, "account.balanceUpdate")
            if Decimal(moved["A"]) == balance + 10:
                break


async def stream_of(socket: Any, name: str) -> Any:
    while True:
        message = await socket.receive_json(timeout=10)
        if message["stream"] == name:
            return message["data"]


async def test_the_funds_behind_liquidations_are_public(running: Venue) -> None:
    """L-5, L-7"""
    await traded(running)
    reply: Reply = await running.get("/satchel/v1/insurance")
    found = reply.json
    assert reply.status == 200 and found["liquidating"] == 0
    assert all(hole["hole"] == "0" and hole["recoveryRatio"] == "1" for hole in found["holes"])


async def test_virtual_pnl_stays_in_a_claim_until_it_is_closed(running: Venue) -> None:
    """V-1, V-4, W-10: the gain earns in the pool, counts in net equity, and becomes USDC when the position closes."""
    lender = await running.trader(USDC="100000")
    loan = {"symbol": "USDC", "side": "Lend", "quantity": "50000"}
    assert (await lender.send("POST", "/api/v1/borrowLend", "borrowLendExecute", loan)).status == 200
    alice, bob = await traded(running)
    assert (await alice.send("PATCH", "/api/v1/account", "accountUpdate", {"autoRealizePnl": False})).status == 200
    assert (await ask(alice, "/api/v1/account", "accountQuery"))["autoRealizePnl"] is False
    before = await usdc(alice)
    await dev(running, "prices", {"SOL": "103"})
    await dev(running, "clock", {"advanceMs": 10_000})
    assert await usdc(alice) == before
    capital = await ask(alice, "/api/v1/capital/collateral", "collateralQuery")
    assert Decimal(capital["unsettledEquity"]) == 30 and capital["pnlUnrealized"] == "0"
    assert Decimal(capital["netEquity"]) == before + 30
    row = await position(alice)
    assert (row["pnlRealized"], row["pnlUnrealized"]) == ("29.5", "0")
    (tick,) = await ask(alice, "/wapi/v1/history/settlement", "settlementHistoryQueryAll", source="RealizePnl")
    assert tick["quantity"] == "30" and tick["positionId"] == row["positionId"]

    assert (await bob.place(PERP, "Bid", "103", "10")).status == 200
    assert (await alice.place(PERP, "Ask", "103", "10")).json["status"] == "Filled"
    await dev(running, "clock", {"advanceMs": 10_000})
    assert Decimal("29.48") < await usdc(alice) - before <= Decimal("29.485"), "30 less the fee of 0.515"
    moved = await ask(alice, "/wapi/v1/history/settlement", "settlementHistoryQueryAll", source="CulledRealizePnl")
    assert [row["source"] for row in moved] == ["CulledRealizePnlAuto"]


async def test_a_liquidation_is_visible_in_every_stream_and_history(running: Venue) -> None:
    """L-3, L-10, W-6: why, at which prices, what was taken; fills by their type; whom the exchange closed."""
    alice, bob = await running.trader(USDC="200"), await running.trader(USDC="100000")
    limit = {"leverageLimit": "20"}
    assert (await alice.send("PATCH", "/api/v1/account", "accountUpdate", limit)).status == 200
    assert (await bob.place(PERP, "Ask", "100", "30")).status == 200
    assert (await alice.place(PERP, "Bid", "100", "30")).json["status"] == "Filled"
    assert (await bob.place(PERP, "Bid", "95.5", "40")).status == 200
    price = Decimal((await position(alice))["estLiquidationPrice"])
    now = str(time.time_ns() // 1_000_000)
    text = f"instruction=subscribe&timestamp={now}&window=5000"
    signature = [alice.key, b64encode(alice.private.sign(text.encode())).decode(), now, "5000"]
    streams = ["account.orderUpdate", "liquidation", f"liquidation.{PERP}"]
    async with running.http.ws_connect("/") as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": streams, "signature": signature})
        await dev(running, "prices", {"SOL": str(price.quantize(Decimal("0.01")) - Decimal("0.05"))})
        await dev(running, "clock", {"advanceMs": 15_000})
        update = await stream_of(socket, "account.orderUpdate")
        assert (update["O"], update["S"], update["r"]) == ("LIQUIDATION_AUTOCLOSE", "Ask", True)
        closed = await stream_of(socket, f"liquidation.{PERP}")
        assert (closed["S"], closed["p"], closed["q"]) == ("Ask", "95.50", "3.00"), "a tenth of 30 at a time"
        assert set(closed) == set("e E q p S s T".split())
    steps = await ask(alice, "/satchel/v1/history/liquidations", "liquidationHistoryQueryAll", sortDirection="Asc")
    assert steps[0]["stage"] == "started"
    assert Decimal(steps[0]["maintenanceMargin"]) >= Decimal(steps[0]["netEquity"])
    books = [step for step in steps if step["stage"] == "book"]
    assert books and all((step["symbol"], step["quantity"], step["price"]) == (PERP, "-3", "95.5") for step in books)
    assert steps[-1]["stage"] == "ended", "it has margin again"
    fills = await ask(alice, "/wapi/v1/history/fills", "fillHistoryQueryAll", fillType="BookLiquidation")
    assert len(fills) == len(books) and {row["systemOrderType"] for row in fills} == {"LiquidatePositionOnBook"}
    users = await ask(alice, "/wapi/v1/history/fills", "fillHistoryQueryAll", fillType="User")
    assert len(users) == 1 and "systemOrderType" not in users[0]
    orders = await ask(alice, "/wapi/v1/history/orders", "orderHistoryQueryAll")
    assert {row.get("systemOrderType") for row in orders} == {"LiquidatePositionOnBook", None}
    (row,) = await ask(alice, "/wapi/v1/history/position", "positionHistoryQueryAll")
    assert Decimal(row["liquidated"]) == 3 * len(books) == Decimal(row["closedVolume"])
    fees = sum(Decimal(step["fee"]) for step in books)
    assert Decimal(row["liquidationFees"]) == fees > 0
    fund = (await running.get("/satchel/v1/insurance")).json["insuranceFund"]
    assert Decimal(fund["USDC"]) >= fees
    system = await ask(alice, "/wapi/v1/history/settlement", "settlementHistoryQueryAll", source="TradingFeesSystem")
    assert sum(Decimal(row["quantity"]) for row in system) == -fees
    everything = await ask(alice, "/wapi/v1/history/settlement", "settlementHistoryQueryAll", limit=1000)
    assert sum(Decimal(row["quantity"]) for row in everything) == await usdc(alice) - 200


async def test_candles_of_the_mark_and_the_index(running: Venue) -> None:
    """P-2, W-3: what moved within a minute; a price that stood still is a flat candle; the mark follows its book."""
    start = running.node.now_us() // 1_000_000
    start += -start % 60
    for price, wait in (("101", 70_000), ("105", 10_000), ("99", 10_000), ("102", 200_000)):
        await dev(running, "prices", {"SOL": price})
        await dev(running, "clock", {"advanceMs": wait})
    path = f"/api/v1/klines?symbol={PERP}&startTime={start}&priceType="
    for kind in ("Index", "Mark"):
        rows = (await running.get(f"{path}{kind}&interval=1m")).json
        assert len(rows) == (running.node.now_us() // 1_000_000 - start) // 60 + 1
        assert [rows[0][name] for name in ("open", "high", "low", "close")] == ["101", "101", "101", "101"]
        assert [rows[1][name] for name in ("open", "high", "low", "close")] == ["105", "105", "99", "102"]
        assert {(row["open"], row["close"], row["volume"]) for row in rows[2:]} == {("102", "102", "0")}
        longer = (await running.get(f"{path.replace(str(start), str(start - start % 3600))}{kind}&interval=1h")).json
        assert [(row["open"], row["high"], row["low"], row["close"]) for row in longer] == [("100", "105", "99", "102")]
    later = (await running.get(f"{path}Mark&interval=1m&endTime={start + 60}")).json
    assert len(later) == 1
    spot = (await running.get(f"/api/v1/klines?symbol=SOL_USDC&startTime={start}&priceType=Mark&interval=5m")).json
    assert spot and spot[-1]["close"] == "102"
    assert (await running.get(f"{path}Mark&interval=1s")).json["code"] == "NOT_IMPLEMENTED"
    # Open, high, low, close: at 10 ticks off the index a book of its own moves the mark, not the index.
    maker = await running.trader(USDC="10000")
    for side, price in (("Bid", "102.2"), ("Ask", "102.4")):
        assert (await maker.place(PERP, side, price, "1")).status == 200
    await dev(running, "clock", {"advanceMs": 120_000})
    last = {
        kind: (await running.get(f"{path}{kind}&interval=1m")).json[-1]["close"] for kind in ("Index", "Mark")
    }
    assert last["Index"] == "102" and Decimal("102") < Decimal(last["Mark"]) < Decimal("102.3")
