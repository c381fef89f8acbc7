"""What a living node answers is what the contract says, validated with its own schemas.   [W-3]"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.api.edge import Reply, Venue, venue

jsonschema_rs = pytest.importorskip("jsonschema_rs")

CONTRACT = Path(__file__).parents[2].parent / "shared" / "spec" / "wire-openapi.json"

OURS_BESIDE: dict[str, set[str]] = {"CustodyAsset": {"ROWAN"}, "WithdrawalStatus": {"void"}}
"""Values that we answer and the contract's enumerations do not have: a devnet asset, a withdrawal that came back."""


class Contract:
    """The contract's schemas, ready to validate answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        for name, values in OURS_BESIDE.items():
            document["components"]["schemas"][name]["enum"] += sorted(values)
        self._document = document

    def require(self, method: str, path: str, reply: Reply, status: int = 200) -> Any:
        """The answer has this status, and its body is what the contract says for it."""
        assert reply.status == status, (path, reply)
        answer = self._document["paths"][path][method.lower()]["responses"][str(status)]
        content = answer.get("content")
        if content is None:
            assert reply.body == b"", (path, reply)
            return None
        ((media, described),) = content.items()
        assert reply.headers["Content-Type"] == media, (path, reply.headers)
        if media.startswith("text/"):
            return reply.body.decode()
        schema = {**described["schema"], "components": self._document["components"]}
        for error in jsonschema_rs.iter_errors(schema, reply.json):
            pytest.fail(f"{method} {path}: {error}")
        return reply.json


@pytest.fixture
def contract() -> Contract:
    if not CONTRACT.exists():
        pytest.skip(f"no contract to hold answers against: {CONTRACT} is absent")
    return Contract(json.loads(CONTRACT.read_text()))


async def test_public_answers(tmp_path: Path, contract: Contract) -> None:
    """W-3"""
    async with venue(tmp_path) as running:
        empty = await running.get("/api/v1/ticker?symbol=SOL_USDC")
        await some_trading(running)

        for path in ("/api/v1/assets", "/api/v1/collateral", "/api/v1/securities", "/api/v1/wallets"):
            contract.require("GET", path, await running.get(path))
        status = contract.require("GET", "/api/v1/tickers", await running.get("/api/v1/tickers"))
        pong = contract.require("GET", "/api/v1/ping", await running.get("/api/v1/ping"))
        clock = contract.require("GET", "/api/v1/time", await running.get("/api/v1/time"))
        markets = contract.require("GET", "/api/v1/markets", await running.get("/api/v1/markets"))
        spot = (await running.get("/api/v1/markets?marketType=SPOT")).json
        both = (await running.get("/api/v1/markets?marketType=PERP&marketType=SPOT")).json
        one = contract.require("GET", "/api/v1/market", await running.get("/api/v1/market?symbol=SOL_USDC_PERP"))
        ticker = contract.require("GET", "/api/v1/ticker", await running.get("/api/v1/ticker?symbol=SOL_USDC"))
        depth = contract.require("GET", "/api/v1/depth", await running.get("/api/v1/depth?symbol=SOL_USDC"))
        short = (await running.get("/api/v1/depth?symbol=SOL_USDC&limit=5")).json
        trades = contract.require("GET", "/api/v1/trades", await running.get("/api/v1/trades?symbol=SOL_USDC"))
        history = await running.get("/api/v1/trades/history?symbol=SOL_USDC&limit=1&offset=1")
        contract.require("GET", "/api/v1/trades/history", history)
        start = int(time.time()) - 600
        klines = contract.require(
            "GET", "/api/v1/klines", await running.get(f"/api/v1/klines?symbol=SOL_USDC&interval=1m&startTime={start}")
        )
        health = await running.get("/api/v1/status")

    assert (empty.status, empty.body) == (204, b"")
    assert pong == "pong" and abs(int(clock) - time.time() * 1000) < 60_000
    assert health.json == {"status": "Ok", "message": None}
    assert {market["marketType"] for market in spot} == {"SPOT"}
    assert both == markets and {market["marketType"] for market in markets} == {"SPOT", "PERP"}
    assert one["orderBookState"] == "Open" and one["fundingInterval"] == 3_600_000
    assert one["imfFunction"]["type"] == "sqrt" and one["filters"]["price"]["meanPremiumBand"]["tolerancePct"]
    assert [row["symbol"] for row in status] == ["SOL_USDC"]
    assert ticker["firstPrice"] == "100" and ticker["lastPrice"] == "101.5" and ticker["priceChangePercent"] == "0.015"
    assert (ticker["volume"], ticker["quoteVolume"], ticker["trades"]) == ("1.5", "150.75", "2")
    assert depth["bids"] == [["90", "1"], ["91", "2"]], "ascending, the best bid last"
    assert depth["asks"] == [["101.5", "0.5"], ["102", "3"]], "ascending, the best ask first"
    assert isinstance(depth["lastUpdateId"], str) and depth["timestamp"] > 10**15
    assert short["bids"] == depth["bids"]
    assert [trade["price"] for trade in trades] == ["101.5", "100"], "newest first"
    assert not trades[0]["isBuyerMaker"] and trades[0]["timestamp"] < 10**14
    assert history.headers["X-TOTAL"] == "2" and history.headers["X-CURRENT-PAGE"] == "2"
    assert history.headers["X-PAGE-COUNT"] == "2" and history.headers["X-PAGE-SIZE"] == "1"
    assert klines[-1]["trades"] == "2" or sum(int(kline["trades"]) for kline in klines) == 2


async def test_private_answers(tmp_path: Path, contract: Contract) -> None:
    """W-3"""
    async with venue(tmp_path) as running:
        alice, _bob = await some_trading(running)

        async def get(path: str, instruction: str, fields: dict[str, Any] | None = None) -> Any:
            return contract.require("GET", path, await alice.send("GET", path, instruction, fields))

        account = await get("/api/v1/account", "accountQuery")
        changed = await alice.send("PATCH", "/api/v1/account", "accountUpdate", {"leverageLimit": "5"})
        contract.require("PATCH", "/api/v1/account", changed)
        nothing = await alice.send("PATCH", "/api/v1/account", "accountUpdate", {})
        contract.require("PATCH", "/api/v1/account", nothing)
        after = await get("/api/v1/account", "accountQuery")
        capital = await get("/api/v1/capital", "balanceQuery")
        address = await get("/wapi/v1/capital/deposit/address", "depositAddressQuery", {"blockchain": "Solana"})
        deposits = await get("/wapi/v1/capital/deposits", "depositQueryAll", {"excludePlatform": True})
        orders = await get("/api/v1/orders", "orderQueryAll")
        perps = await get("/api/v1/orders", "orderQueryAll", {"marketType": "PERP"})
        one = await get("/api/v1/order", "orderQuery", {"symbol": "SOL_USDC", "orderId": orders[0]["id"]})
        order_history = await get("/wapi/v1/history/orders", "orderHistoryQueryAll", {"sortDirection": "Asc"})
        fills = await alice.send("GET", "/wapi/v1/history/fills", "fillHistoryQueryAll", {"limit": 1})
        contract.require("GET", "/wapi/v1/history/fills", fills)
        liquidations = await get("/wapi/v1/history/fills", "fillHistoryQueryAll", {"fillType": "Liquidation"})
        body = {"address": address["address"], "blockchain": "Solana", "symbol": "USDC", "quantity": "7.5"}
        withdrawn = await alice.send("POST", "/wapi/v1/capital/withdrawals", "withdraw", body | {"clientId": "w1"})
        contract.require("POST", "/wapi/v1/capital/withdrawals", withdrawn)
        again = await alice.send("POST", "/wapi/v1/capital/withdrawals", "withdraw", body | {"clientId": "w1"})
        other = await alice.send(
            "POST", "/wapi/v1/capital/withdrawals", "withdraw", body | {"clientId": "w1", "quantity": "8"}
        )
        withdrawals = await get("/wapi/v1/capital/withdrawals", "withdrawalQueryAll", {"clientId": "w1"})
        positions = await get("/api/v1/position", "positionQuery")
        named = await alice.send("GET", "/api/v1/position", "positionQuery", {"symbol": "SOL_USDC_PERP"})
        contract.require("GET", "/api/v1/position", named, 404)

    assert (account["spotMakerFee"], account["spotTakerFee"], account["limitOrders"]) == ("8", "10", 2)
    assert (account["leverageLimit"], after["leverageLimit"]) == ("10", "5")
    assert capital == {
        "USDC": {"available": "577.25", "locked": "272", "staked": "0"},
        "SOL": {"available": "1.4985", "locked": "0", "staked": "0"},
    }
    assert deposits[0]["toAddress"] == address["address"] and deposits[0]["status"] == "confirmed"
    assert [order["price"] for order in orders] == ["90", "91"] and one == orders[0] and perps == []
    assert [order["status"] for order in order_history] == ["New", "New", "Filled", "Filled"]
    assert order_history[0]["createdAt"].count("T") == 1, "naive ISO in history, integer ms for engine orders"
    assert fills.headers["X-TOTAL"] == "2" and fills.json[0]["feeSymbol"] == "SOL"
    assert fills.headers["ACCESS-CONTROL-EXPOSE-HEADERS"] == "X-PAGE-COUNT, X-CURRENT-PAGE, X-PAGE-SIZE, X-TOTAL"
    assert liquidations == []
    assert again.json == withdrawn.json, "a withdrawal key is once for ever"
    assert other.status == 400 and other.json["code"] == "PRECONDITION_FAILED"
    assert [row["id"] for row in withdrawals] == [withdrawn.json["id"]]
    assert positions == []


async def test_order_answers(tmp_path: Path, contract: Contract) -> None:
    """W-3, W-4: IOC, FOK and self-trade outcomes are 200 with status Expired."""
    async with venue(tmp_path) as running:
        alice, bob = await some_trading(running)

        async def place(**change: Any) -> Any:
            order = {"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": "95", "quantity": "1"} | change
            order = {name: value for name, value in order.items() if value is not None}
            reply = await alice.send("POST", "/api/v1/order", "orderExecute", order)
            return contract.require("POST", "/api/v1/order", reply)

        resting = await place(clientId=1)
        ioc = await place(timeInForce="IOC")
        fok = await place(timeInForce="FOK", price="102", quantity="4")
        market = await place(orderType="Market", price=None, quantity="0.25")
        by_quote = await place(orderType="Market", price=None, quantity=None, quoteQuantity="20.3")
        await bob.place("SOL_USDC", "Bid", "99", "1")
        own = await bob.place("SOL_USDC", "Ask", "99", "1")
        contract.require("POST", "/api/v1/order", own)
        batch = await alice.send(
            "POST",
            "/api/v1/orders",
            "orderExecute",
            [
                {"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": "94", "quantity": "1"},
                {"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": "94", "quantity": "9999"},
            ],
        )
        contract.require("POST", "/api/v1/orders", batch)
        cancelled = await alice.send("DELETE", "/api/v1/order", "orderCancel", {"symbol": "SOL_USDC", "clientId": "1"})
        contract.require("DELETE", "/api/v1/order", cancelled)
        rest = await alice.send("DELETE", "/api/v1/orders", "orderCancelAll", {"symbol": "SOL_USDC"})
        contract.require("DELETE", "/api/v1/orders", rest)
        left = await alice.send("GET", "/api/v1/orders", "orderQueryAll", {"symbol": "SOL_USDC"})

    assert resting["status"] == "New" and resting["createdAt"] < 10**14
    assert (ioc["status"], fok["status"], own.json["status"]) == ("Expired", "Expired", "Expired")
    assert (market["orderType"], market["status"], market["executedQuoteQuantity"]) == ("Market", "Filled", "25.375")
    assert (by_quote["quoteQuantity"], by_quote["executedQuantity"]) == ("20.3", "0.2")
    assert [row["operation"] for row in batch.json] == ["Ok", "Err"]
    assert cancelled.json["status"] == "Cancelled" and cancelled.json["clientId"] == 1
    assert [row["price"] for row in rest.json] == ["90", "91", "94"]
    assert left.json == []


async def some_trading(running: Venue) -> tuple[Any, Any]:
    """Two trades, bids at 90 and 91, asks at 101.50 and 102."""
    alice, bob = await running.trader(USDC="1000"), await running.trader(SOL="100", USDC="500")
    assert (await alice.place("SOL_USDC", "Bid", "90", "1")).status == 200
    assert (await alice.place("SOL_USDC", "Bid", "91", "2")).status == 200
    for price, quantity in (("100", "1"), ("101.5", "1"), ("102", "3")):
        assert (await bob.place("SOL_USDC", "Ask", price, quantity)).status == 200
    for price, quantity in (("100", "1"), ("101.5", "0.5")):
        reply = await alice.place("SOL_USDC", "Bid", price, quantity)
        assert reply.json["status"] == "Filled", reply
    return alice, bob


