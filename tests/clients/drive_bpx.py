"""bpx-py, unmodified but for its URL, sync and async. Run by the interpreter that has bpx-py."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from bpx.account import Account
from bpx.async_.account import Account as AsyncAccount
from bpx.public import Public


def main() -> None:
    world = json.loads(sys.argv[1])
    Account.BPX_API_URL = AsyncAccount.BPX_API_URL = world["url"] + "/"
    Public.BASE_URL = world["url"] + "/"
    alice, bob = (Account(public_key=world[n]["public"], secret_key=world[n]["secret"]) for n in ("alice", "bob"))
    seen = public(Public()) | account(alice, bob)
    seen["async"] = asyncio.run(asynchronous(world))
    print(json.dumps(seen))


def public(venue: Public) -> dict[str, Any]:
    return {
        "assets": sorted(row["symbol"] for row in venue.get_assets()),
        "markets": [row["symbol"] for row in venue.get_markets()],
        "collateral": len(venue.get_collateral()),
        "status": venue.get_status(),
        "ping": venue.get_ping(),
        "time": abs(int(venue.get_time()) - time.time() * 1000) < 60_000,
        "empty ticker": venue.get_ticker("SOL_USDC"),
        "depth": venue.get_depth("SOL_USDC")["bids"],
    }


def account(alice: Any, bob: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    seen["balances"] = alice.get_balances()
    seen["updated"] = [alice.update_account(leverage_limit="5"), alice.update_account(auto_lend=False)]
    seen["account"] = alice.get_account()["leverageLimit"]
    order = {"symbol": "SOL_USDC", "side": "Bid", "order_type": "Limit", "time_in_force": "GTC"}
    placed = alice.execute_order(**order, quantity="1.5", price="60", client_id=5, post_only=True)
    seen["placed"] = [placed["status"], placed["clientId"], placed["postOnly"]]
    seen["open"] = alice.get_open_order("SOL_USDC", client_id=5)["id"] == placed["id"]
    alice.execute_order(**order, quantity="1", price="59")
    seen["orders"] = [row["price"] for row in alice.get_open_orders(symbol="SOL_USDC")]
    sold = bob.execute_order(symbol="SOL_USDC", side="Ask", order_type="Market", quantity="0.5")
    seen["sold"] = [sold["orderType"], sold["status"], sold["executedQuoteQuantity"]]
    seen["cancelled"] = alice.cancel_order("SOL_USDC", client_id=5)["status"]
    seen["gone"] = alice.get_open_order("SOL_USDC", client_id=5)
    seen["cancelled all"] = [row["price"] for row in alice.cancel_all_orders("SOL_USDC")]
    seen["fills"] = [[row["side"], row["price"], row["fee"]] for row in alice.get_fill_history(symbol="SOL_USDC")]
    seen["history"] = sorted(row["status"] for row in alice.get_order_history(symbol="SOL_USDC"))
    seen["ticker"] = Public().get_ticker("SOL_USDC")["lastPrice"]
    seen["trades"] = len(Public().get_recent_trades("SOL_USDC")), len(Public().get_history_trades("SOL_USDC"))
    seen["candles"] = Public().get_klines("SOL_USDC", "1h", int(time.time()) - 7200)[-1]["volume"]
    seen["deposits"] = [[row["symbol"], row["quantity"], row["status"]] for row in alice.get_deposits()]
    address = alice.get_deposit_address("Solana")["address"]
    paid = bob.withdrawal(address=address, blockchain="Solana", symbol="USDC", quantity="12.5", client_id=9)
    seen["withdrawal"] = [paid["quantity"], paid["status"]]
    seen["withdrawals"] = [row["id"] for row in bob.get_withdrawals()] == [paid["id"]]
    seen["positions"] = alice.get_open_positions()
    # The request goes out with `autoBorrow=True` and is signed with `true`; a wrong signature would say so.
    seen["boolean on the query"] = alice.get_max_order_quantity("SOL_USDC", "Bid", auto_borrow=True)
    return seen


async def asynchronous(world: dict[str, Any]) -> dict[str, Any]:
    alice = AsyncAccount(public_key=world["alice"]["public"], secret_key=world["alice"]["secret"])
    order = {"symbol": "SOL_USDC", "side": "Bid", "order_type": "Limit", "quantity": "1", "price": "58"}
    placed = await alice.execute_order(**order)
    opened = await alice.get_open_orders(symbol="SOL_USDC")
    cancelled = await alice.cancel_order("SOL_USDC", order_id=placed["id"])
    return {
        "placed": placed["status"],
        "open": len(opened),
        "cancelled": cancelled["status"],
        "balances": sorted(await alice.get_balances()),
    }


if __name__ == "__main__":
    main()
