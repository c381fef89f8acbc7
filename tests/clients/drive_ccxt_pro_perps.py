"""ccxt.pro watching its own positions and orders of a perpetual while another client trades."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from drive_ccxt_pro import client

SWAP = "SOL/USDC:USDC"


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
    await bob.create_order(SWAP, "limit", "sell", 5, 150)
    positions = asyncio.ensure_future(alice.watch_positions())
    await asyncio.sleep(1.5)
    await alice.create_order(SWAP, "limit", "buy", 2, 150)
    seen["opened"] = shown(await asyncio.wait_for(positions, 30))
    # ccxt leaves out what comes without `e`, so what was open when it began to watch, it hears of at the next change.
    positions = asyncio.ensure_future(alice.watch_positions([SWAP]))
    orders = asyncio.ensure_future(alice.watch_orders(SWAP))
    await asyncio.sleep(1.5)
    await alice.create_order(SWAP, "limit", "buy", 1, 150)
    seen["adjusted"] = shown(await asyncio.wait_for(positions, 30))
    seen["order"] = (await asyncio.wait_for(orders, 30))[0]["symbol"]
    positions = asyncio.ensure_future(alice.watch_positions([SWAP]))
    await asyncio.sleep(0.5)
    await bob.cancel_all_orders(SWAP)
    await bob.create_order(SWAP, "limit", "buy", 3, 150)
    await alice.create_order(SWAP, "market", "sell", 3, None, {"reduceOnly": True})
    seen["closed"] = shown(await asyncio.wait_for(positions, 30))
    return seen


def shown(positions: list[Any]) -> list[Any]:
    last = positions[-1]
    return [last["symbol"], last["side"], last["contracts"], last["info"].get("e")]


if __name__ == "__main__":
    asyncio.run(main())
