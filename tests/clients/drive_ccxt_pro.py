"""ccxt.pro watching the book, trades, ticker, candles, its own orders and balance, while another client trades."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import ccxt.pro


async def main() -> None:
    world = json.loads(sys.argv[1])
    alice, bob = client(world, "alice"), client(world, "bob")
    try:
        await alice.load_markets()
        await bob.load_markets()
        print(json.dumps(await watch(alice, bob)))
    finally:
        await alice.close()
        await bob.close()


async def watch(alice: Any, bob: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    # On a quiet market ccxt fetches the book only after several deltas; the option asks for it at once.
    alice.options["watchOrderBook"] = {**alice.options.get("watchOrderBook", {}), "snapshotDelay": 0}
    watching = {
        "book": alice.watch_order_book("SOL/USDC"),
        "trades": alice.watch_trades("SOL/USDC"),
        "bids and asks": alice.watch_bids_asks(["SOL/USDC"]),
        "ticker": alice.watch_ticker("SOL/USDC"),
        "candles": alice.watch_ohlcv("SOL/USDC", "1m"),
        "orders": alice.watch_orders("SOL/USDC"),
    }
    tasks = {name: asyncio.ensure_future(call) for name, call in watching.items()}
    await asyncio.sleep(1.5)
    stop = asyncio.Event()
    trading = asyncio.ensure_future(trade(alice, bob, stop))
    for name, task in tasks.items():
        seen[name] = describe(name, await asyncio.wait_for(task, 30))
    orders: dict[str, str] = {}
    while "closed" not in orders.values() or "canceled" not in orders.values():
        for order in await asyncio.wait_for(alice.watch_orders("SOL/USDC"), 30):
            orders[order["id"]] = order["status"]
    seen["statuses"] = sorted(set(orders.values()))
    stop.set()
    await trading

    # Once nothing changes, the book that was watched is the book that is asked for.
    await alice.create_order("SOL/USDC", "limit", "buy", 3, 77)
    for _ in range(100):
        watched = alice.orderbooks["SOL/USDC"]
        if any(price == 77 for price, *_ in watched["bids"]):
            break
        await asyncio.sleep(0.1)
    fetched = await alice.fetch_order_book("SOL/USDC")
    seen["same book"] = [[list(level[:2]) for level in watched[side]] == fetched[side] for side in ("bids", "asks")]
    return seen


async def trade(alice: Any, bob: Any, stop: asyncio.Event) -> None:
    """Rest, trade and cancel until told to stop."""
    for number in range(100):
        if stop.is_set():
            break
        resting = await alice.create_order("SOL/USDC", "limit", "buy", 1, 80 + number % 3)
        await bob.create_order("SOL/USDC", "limit", "sell", 2, 95 + number % 3)
        await bob.create_order("SOL/USDC", "limit", "sell", 1, 80 + number % 3)
        again = await alice.create_order("SOL/USDC", "limit", "buy", 1, 79)
        await alice.cancel_order(again["id"], "SOL/USDC")
        assert resting["id"]
        await asyncio.sleep(0.1)
    await alice.cancel_all_orders("SOL/USDC")
    await bob.cancel_all_orders("SOL/USDC")


def describe(name: str, update: Any) -> Any:
    if name == "book":
        return bool(update["bids"] or update["asks"])
    if name == "trades":
        return [update[-1]["symbol"], update[-1]["amount"]]
    if name == "bids and asks":
        return "SOL/USDC" in update
    if name == "ticker":
        return update["last"] is not None
    if name == "candles":
        return update[-1][5] > 0
    return update[0]["symbol"]


def client(world: dict[str, Any], name: str) -> Any:
    url, ws = world["url"], world["ws"]
    return ccxt.pro.backpack(
        {
            "apiKey": world[name]["public"],
            "secret": world[name]["secret"],
            "enableRateLimit": False,
            "urls": {"api": {"public": url, "private": url, "ws": {"public": ws, "private": ws}}},
        }
    )


if __name__ == "__main__":
    asyncio.run(main())
