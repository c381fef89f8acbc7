"""ccxt's `backpack` class, unmodified but for its URL, with perpetuals. Run by the interpreter that has ccxt."""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

from drive_ccxt import client, refusal

SWAP = "SOL/USDC:USDC"


def main() -> None:
    world = json.loads(sys.argv[1])
    alice, bob = client(world, "alice"), client(world, "bob")
    markets = alice.load_markets()
    bob.load_markets()
    seen: dict[str, Any] = {}
    market = markets[SWAP]
    seen["market"] = [market["type"], market["settle"], market["linear"], market["contract"]]
    seen["leverage"] = alice.privatePatchApiV1Account({"leverageLimit": "5"})
    seen["limit"] = alice.privateGetApiV1Account()["leverageLimit"]
    most = alice.privateGetApiV1AccountLimitsOrder({"symbol": "SOL_USDC_PERP", "side": "Bid", "price": "150"})
    seen["most"] = float(most["maxOrderQuantity"])

    offered = bob.create_order(SWAP, "limit", "sell", 4, 150, {"postOnly": True})
    seen["offered"] = [offered["status"], offered["postOnly"]]
    seen["would take"] = refusal(lambda: alice.create_order(SWAP, "limit", "buy", 1, 150, {"postOnly": True}))
    taken = alice.create_order(SWAP, "limit", "buy", 3, 150)
    seen["taken"] = [taken["status"], taken["filled"], taken["cost"]]
    at_market = alice.create_order(SWAP, "market", "buy", 1)
    seen["at market"] = [at_market["status"], at_market["filled"]]
    seen["positions"] = [shown(row) for row in (*alice.fetch_positions(), *bob.fetch_positions([SWAP]))]
    seen["too much"] = refusal(lambda: alice.create_order(SWAP, "limit", "buy", 20_000, 150))

    interest = alice.fetch_open_interest(SWAP)
    seen["open interest"] = [interest["symbol"], interest["openInterestValue"]]
    rate = alice.fetch_funding_rate(SWAP)
    seen["rate"] = [rate["markPrice"], rate["indexPrice"], rate["nextFundingTimestamp"] % 3_600_000]
    seen["rates"] = len(alice.fetch_funding_rate_history(SWAP))

    dev(world, "prices", {"SOL": "151"})
    dev(world, "clock", {"advanceMs": 11_000})
    seen["settled"] = [shown(row) for row in alice.fetch_positions()]
    dev(world, "clock", {"advanceMs": 3_600_000})
    seen["rates later"] = len(alice.fetch_funding_rate_history(SWAP))
    (paid,) = alice.fetch_funding_history(SWAP)
    (got,) = bob.fetch_funding_history(SWAP)
    seen["funding"] = [paid["symbol"], paid["amount"] < 0, got["amount"] > 0]
    moved = alice.privateGetWapiV1HistorySettlement({"source": "RealizePnl"})
    seen["realized"] = sum(float(row["quantity"]) for row in moved)

    bob.create_order(SWAP, "limit", "buy", 10, 151)
    by_mark = {"triggerBy": "MarkPrice", "reduceOnly": True}
    stop = alice.create_order(SWAP, "market", "sell", 1, None, {"triggerPrice": 120, **by_mark})
    seen["stop"] = [stop["triggerPrice"], [order["id"] for order in alice.fetch_open_orders(SWAP)] == [stop["id"]]]
    alice.cancel_order(stop["id"], SWAP)
    profit = alice.create_order(SWAP, "market", "sell", 1, None, {"triggerPrice": 152, **by_mark})
    dev(world, "prices", {"SOL": "152.5"})
    dev(world, "clock", {"advanceMs": 2_000})
    fired = alice.fetch_order(profit["id"], SWAP)
    seen["fired"] = [fired["status"], fired["filled"], alice.fetch_open_orders(SWAP)]
    closed = alice.create_order(SWAP, "market", "sell", 10, None, {"reduceOnly": True})
    seen["reduced"] = [closed["filled"], closed["reduceOnly"]]
    seen["nothing to reduce"] = refusal(
        lambda: alice.create_order(SWAP, "limit", "sell", 1, 151, {"reduceOnly": True})
    )
    seen["closed"] = alice.fetch_positions()
    (was,) = alice.privateGetWapiV1HistoryPosition({"state": "Closed"})
    seen["history"] = [was["symbol"], was["entryPrice"], was["closingPrice"], was["closedVolume"]]
    fills = alice.fetch_my_trades(SWAP)
    seen["fills"] = sorted([fill["side"], fill["amount"], fill["fee"]["currency"]] for fill in fills)
    seen["book"] = [level[:2] for level in alice.fetch_order_book(SWAP)["bids"]]
    seen["ticker"] = alice.fetch_ticker(SWAP)["last"]
    # The exchange's clock runs ahead of the one that ccxt asks until.
    candles = alice.publicGetApiV1Klines({"symbol": "SOL_USDC_PERP", "interval": "1h", "startTime": now(world) - 7_200})
    seen["candles"] = sum(float(candle["volume"]) for candle in candles)
    print(json.dumps(seen))


def shown(row: dict[str, Any]) -> list[Any]:
    names = ("symbol", "side", "contracts", "entryPrice", "markPrice", "unrealizedPnl", "realizedPnl")
    return [row[name] for name in names]


def now(world: dict[str, Any]) -> int:
    """The exchange's time in seconds."""
    return int(dev(world, "clock", {"advanceMs": 0})["now"]) // 1_000


def dev(world: dict[str, Any], route: str, body: dict[str, Any]) -> Any:
    """One of the devnet's own routes, which no client has."""
    request = urllib.request.Request(f"{world['url']}/dev/v1/{route}", json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


if __name__ == "__main__":
    main()
