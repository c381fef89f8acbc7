"""ccxt's `backpack` class, unmodified but for its URL, through a day's work. Run by the interpreter that has ccxt."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import ccxt


def main() -> None:
    world = json.loads(sys.argv[1])
    alice, bob = client(world, "alice"), client(world, "bob")
    seen: dict[str, Any] = {}

    markets = alice.load_markets()
    seen["markets"] = sorted(markets)
    seen["precision"] = markets["SOL/USDC"]["precision"]
    seen["currencies"] = sorted(alice.fetch_currencies())
    seen["status"] = alice.fetch_status()["status"]
    seen["balance"] = alice.fetch_balance()["USDC"]

    placed = alice.create_order("SOL/USDC", "limit", "buy", 2, 100, {"postOnly": True, "clientOrderId": "77"})
    batch = alice.create_orders(
        [
            {"symbol": "SOL/USDC", "type": "limit", "side": "buy", "amount": 1, "price": 99},
            {"symbol": "SOL/USDC", "type": "limit", "side": "buy", "amount": 1, "price": 98},
        ]
    )
    seen["placed"] = [order["status"] for order in [placed, *batch]]
    seen["open"] = [order["price"] for order in alice.fetch_open_orders("SOL/USDC")]
    seen["open of all markets"] = len(alice.fetch_open_orders())
    seen["one"] = alice.fetch_open_order(placed["id"], "SOL/USDC")["clientOrderId"]
    seen["locked"] = alice.fetch_balance()["USDC"]["used"]
    seen["cancelled"] = alice.cancel_order(batch[1]["id"], "SOL/USDC")["status"]
    seen["cancelled twice"] = refusal(lambda: alice.cancel_order(batch[1]["id"], "SOL/USDC"))
    seen["would take"] = refusal(lambda: bob.create_order("SOL/USDC", "limit", "sell", 1, 100, {"postOnly": True}))

    sold = bob.create_order("SOL/USDC", "limit", "sell", 2.5, 99, {"timeInForce": "IOC"})
    seen["sold"] = [sold["status"], sold["filled"], sold["cost"]]
    bought = bob.create_order("SOL/USDC", "limit", "sell", 3, 110)
    market = alice.create_order("SOL/USDC", "market", "buy", 1)
    seen["market"] = [market["status"], market["filled"], market["cost"]]
    seen["far"] = refusal(lambda: alice.create_order("SOL/USDC", "limit", "buy", 1, 10))
    seen["all cancelled"] = [order["id"] for order in bob.cancel_all_orders("SOL/USDC")] == [bought["id"]]

    seen["fills"] = [
        [fill[name] for name in ("side", "price", "amount", "takerOrMaker")]
        + [fill["fee"]["cost"], fill["fee"]["currency"]]
        for fill in alice.fetch_my_trades("SOL/USDC")
    ]
    seen["fills since"] = len(alice.fetch_my_trades("SOL/USDC", since=int(time.time() * 1000) - 600_000, limit=2))
    seen["history"] = sorted(order["status"] for order in alice.fetch_orders("SOL/USDC"))
    seen["order"] = alice.fetch_order(placed["id"], "SOL/USDC")["status"]
    seen["trades"] = [trade["price"] for trade in alice.fetch_trades("SOL/USDC")]
    seen["ticker"] = alice.fetch_ticker("SOL/USDC")["last"]
    seen["tickers"] = list(alice.fetch_tickers())
    book = alice.fetch_order_book("SOL/USDC", 5)
    seen["book"] = [book["bids"], book["asks"]]
    seen["candles"] = sum(candle[5] for candle in alice.fetch_ohlcv("SOL/USDC", "1m", limit=10))
    seen["candles since"] = sum(
        candle[5] for candle in alice.fetch_ohlcv("SOL/USDC", "5m", since=int(time.time() * 1000) - 3_600_000)
    )

    seen["deposits"] = [[row["currency"], row["amount"], row["status"]] for row in alice.fetch_deposits()]
    seen["deposits until"] = len(alice.fetch_deposits("USDC", limit=5, params={"until": int(time.time() * 1000)}))
    address = alice.fetch_deposit_address("USDC", {"network": "SOL"})["address"]
    seen["address"] = bool(address)
    paid = bob.withdraw("USDC", 12.5, address, {"network": "SOL"})
    seen["withdrawal"] = [paid["amount"], paid["currency"], paid["status"]]
    seen["too much"] = refusal(lambda: bob.withdraw("USDC", 10**6, address, {"network": "SOL"}))
    seen["withdrawals"] = [row["id"] for row in bob.fetch_withdrawals()] == [paid["id"]]
    seen["positions"] = alice.fetch_positions()
    print(json.dumps(seen))


def client(world: dict[str, Any], name: str) -> Any:
    url = world["url"]
    return ccxt.backpack(
        {
            "apiKey": world[name]["public"],
            "secret": world[name]["secret"],
            "enableRateLimit": False,
            "urls": {"api": {"public": url, "private": url}},
        }
    )


def refusal(call: Any) -> str:
    """The name of ccxt's exception, which users' programs catch."""
    try:
        call()
    except ccxt.BaseError as error:
        return type(error).__name__
    return "nothing"


if __name__ == "__main__":
    main()
