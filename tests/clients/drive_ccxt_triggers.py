"""ccxt's `backpack` class, unmodified but for its URL, with trigger orders and brackets. Run where ccxt is."""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

from drive_ccxt import client, refusal

SPOT, SWAP = "SOL/USDC", "SOL/USDC:USDC"


def main() -> None:
    world = json.loads(sys.argv[1])
    alice, bob = client(world, "alice"), client(world, "bob")
    alice.load_markets()
    bob.load_markets()
    seen: dict[str, Any] = {}

    # Bob sells at 150: the last price. Alice's stop waits below it, her entry above.
    bob.create_order(SPOT, "limit", "sell", 5, 150)
    alice.create_order(SPOT, "limit", "buy", 5, 150)
    seen["at once"] = refusal(lambda: alice.create_order(SPOT, "market", "sell", 1, None, {"triggerPrice": 150}))
    stop = alice.create_order(SPOT, "limit", "sell", 2, 139, {"triggerPrice": 140, "clientOrderId": 5})
    entry = alice.create_order(SPOT, "market", "buy", 1, None, {"triggerPrice": 160})
    seen["placed"] = [shown(stop), shown(entry)]
    seen["open"] = [shown(row) for row in alice.fetch_open_orders(SPOT)]
    seen["one"] = shown(alice.fetch_open_order(stop["id"], SPOT))
    seen["balance"] = alice.fetch_balance()["SOL"]["used"]
    gone = alice.cancel_order(entry["id"], SPOT)
    seen["cancelled"] = gone["status"]

    bob.create_order(SPOT, "limit", "buy", 5, 140)
    alice.create_order(SPOT, "limit", "sell", 1, 140)
    dev(world, "clock", {"advanceMs": 10})
    seen["fired"] = shown(next(row for row in alice.fetch_orders(SPOT) if row["id"] == stop["id"]))

    # A swap with both brackets; the stop fires, the take-profit is cancelled with it.
    bob.create_order(SWAP, "limit", "sell", 3, 150)
    params = {"stopLoss": {"triggerPrice": 140}, "takeProfit": {"triggerPrice": 170, "price": 169}}
    parent = alice.create_order(SWAP, "limit", "buy", 3, 150, params)
    waiting = alice.fetch_open_orders(SWAP)
    seen["armed"] = [shown(row) for row in waiting]
    seen["related"] = {row["info"]["relatedOrderId"] == parent["id"] for row in waiting} == {True}
    bob.create_order(SWAP, "limit", "buy", 10, 139)
    carl_sells = bob.create_order(SWAP, "limit", "sell", 1, 141)
    bob.cancel_order(carl_sells["id"], SWAP)
    alice.create_order(SWAP, "limit", "sell", 1, 139)
    dev(world, "clock", {"advanceMs": 10})
    seen["flat"] = [alice.fetch_positions([SWAP]) == [], alice.fetch_open_orders(SWAP)]
    alice.create_order(SPOT, "market", "buy", 1, None, {"triggerPrice": 160})
    alice.cancel_all_orders(SPOT)
    seen["all cancelled"] = alice.fetch_open_orders(SPOT)
    print(json.dumps(seen))


def shown(row: dict[str, Any]) -> list[Any]:
    info = row["info"]
    return [row["side"], row["type"], info["status"], info.get("triggerPrice"), info.get("triggerQuantity")]


def dev(world: dict[str, Any], route: str, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    request = urllib.request.Request(f"{world['url']}/dev/v1/{route}", content, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).read()


if __name__ == "__main__":
    main()
