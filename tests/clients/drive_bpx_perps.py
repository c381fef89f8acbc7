"""bpx-py, unmodified but for its URL, with perpetuals. Run by the interpreter that has bpx-py."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from typing import Any

from bpx.account import Account
from bpx.async_.account import Account as AsyncAccount
from bpx.public import Public

PERP = "SOL_USDC_PERP"


def main() -> None:
    world = json.loads(sys.argv[1])
    Account.BPX_API_URL = AsyncAccount.BPX_API_URL = world["url"] + "/"
    Public.BASE_URL = world["url"] + "/"
    alice, bob = (Account(public_key=world[n]["public"], secret_key=world[n]["secret"]) for n in ("alice", "bob"))
    seen = trades(alice, bob)
    dev(world, "prices", {"SOL": "151"})
    dev(world, "clock", {"advanceMs": 3_600_000})
    seen |= later(alice, bob, Public())
    seen["async"] = asyncio.run(asynchronous(world))
    print(json.dumps(seen))


def trades(alice: Any, bob: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {"none": alice.get_open_positions()}
    order = {"symbol": PERP, "order_type": "Limit", "time_in_force": "GTC", "price": "150"}
    bob.execute_order(**order, side="Ask", quantity="4", post_only=True)
    seen["taken"] = alice.execute_order(**order, side="Bid", quantity="3")["status"]
    (row,) = alice.get_open_positions()
    seen["fields"] = sorted(row)
    seen["position"] = [row["netQuantity"], row["entryPrice"], row["netCost"], row["pnlUnrealized"]]
    most = alice.get_max_order_quantity(PERP, "Ask", price="150")
    seen["most"] = [most["symbol"], most["side"], float(most["maxOrderQuantity"]) > 3]
    capital = alice.get_collateral()
    seen["exposure"] = capital["netExposureFutures"]
    return seen


def later(alice: Any, bob: Any, venue: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    (funding,) = alice.get_funding_payments(symbol=PERP)
    seen["funding"] = [funding["symbol"], float(funding["quantity"]) < 0]
    # bpx-py takes a `source` here and does not send it.
    settled = alice.get_settlements_history(source="TradingFees")
    seen["settlements"] = sorted({row["source"] for row in settled})
    seen["only fees"] = [row["quantity"] for row in settled if row["source"] == "TradingFees"]
    seen["open interest"] = [row["openInterest"] for row in venue.get_open_interest(PERP)]
    seen["rates"] = len(venue.get_funding_interval_rates(PERP))
    bob.cancel_all_orders(PERP)
    bob.execute_order(symbol=PERP, side="Bid", order_type="Limit", time_in_force="GTC", quantity="3", price="151")
    reduced = alice.execute_order(symbol=PERP, side="Ask", order_type="Market", quantity="3", reduce_only=True)
    seen["reduced"] = [reduced["status"], reduced["reduceOnly"], alice.get_open_positions()]
    seen["fills"] = [row["feeSymbol"] for row in alice.get_fill_history(symbol=PERP)]
    return seen


async def asynchronous(world: dict[str, Any]) -> dict[str, Any]:
    bob = AsyncAccount(public_key=world["bob"]["public"], secret_key=world["bob"]["secret"])
    return {
        "positions": len(await bob.get_open_positions()),
        "funding": len(await bob.get_funding_payments(symbol=PERP)),
        "settlements": len(await bob.get_settlements_history(limit=1)),
    }


def dev(world: dict[str, Any], route: str, body: dict[str, Any]) -> None:
    """One of the devnet's own routes, which no client has."""
    request = urllib.request.Request(f"{world['url']}/dev/v1/{route}", json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200, answer


if __name__ == "__main__":
    main()
