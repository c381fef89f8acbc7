"""bpx-py, unmodified but for its URL, through a margin account's day. Run by the interpreter that has bpx-py."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from bpx.account import Account
from bpx.async_.account import Account as AsyncAccount
from bpx.public import Public


def main() -> None:
    world = json.loads(sys.argv[1])
    Account.BPX_API_URL = AsyncAccount.BPX_API_URL = world["url"] + "/"
    Public.BASE_URL = world["url"] + "/"
    alice, bob = (Account(public_key=world[n]["public"], secret_key=world[n]["secret"]) for n in ("alice", "bob"))
    seen = lend_and_borrow(alice, bob) | short_and_repay(alice, bob) | settings(alice)
    seen["async"] = asyncio.run(asynchronous(world))
    print(json.dumps(seen))


def lend_and_borrow(alice: Any, bob: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    seen["lent"] = alice.execute_borrow_lend("50000", "Lend", "USDC")
    seen["most borrow"] = bob.get_max_borrow_quantity("USDC")
    seen["borrowed"] = bob.execute_borrow_lend("10000", "Borrow", "USDC")
    seen["too much"] = bob.execute_borrow_lend("45000", "Borrow", "USDC")["code"]
    (row,) = [row for row in Public().get_borrow_lend_markets() if row["symbol"] == "USDC"]
    seen["market"] = [row["lentQuantity"][:5], row["borrowedQuantity"][:5], row["state"], row["rateMax"]]
    seen["history"] = type(Public().get_borrow_lend_market_history("1d", "USDC")).__name__
    (position,) = bob.get_borrow_lend_positions()
    seen["position"] = [position["symbol"], position["netQuantity"][:6], position["markPrice"]]
    collateral = bob.get_collateral()
    seen["collateral"] = {row["symbol"]: row["totalQuantity"] for row in collateral["collateral"]}
    seen["equity"] = float(collateral["netEquity"]) == float(collateral["netEquityAvailable"])
    seen["balances"] = bob.get_balances()["USDC"]
    seen["moves"] = [[row["eventType"], row["quantity"], row["source"]] for row in bob.get_borrow_history()]
    seen["interest"] = bob.get_interest_history()
    return seen


def short_and_repay(alice: Any, bob: Any) -> dict[str, Any]:
    """Alice sells SOL that she borrows of Bob, and buys it back."""
    seen: dict[str, Any] = {}
    bob.execute_borrow_lend("100", "Lend", "SOL")
    # Out with `autoBorrow=True`, signed with `true`.
    most = alice.get_max_order_quantity("SOL_USDC", "Ask", price="150", auto_borrow=True, auto_lend_redeem=False)
    flags = [most["autoBorrow"], most["autoLendRedeem"], most["price"]]
    seen["most order"] = [float(most["maxOrderQuantity"]) > 100, *flags]
    order = {"symbol": "SOL_USDC", "order_type": "Limit", "quantity": "10", "price": "150"}
    bob.execute_order(side="Bid", **order)
    seen["refused"] = alice.execute_order(side="Ask", **order)["code"]
    seen["short"] = alice.execute_order(side="Ask", auto_borrow=True, **order)["status"]
    seen["owed"] = [row["netQuantity"][:3] for row in alice.get_borrow_lend_positions() if row["symbol"] == "SOL"]
    seen["locked"] = float(alice.get_collateral()["netEquityLocked"]) > 100
    bob.execute_order(side="Ask", **(order | {"quantity": "10.01"}))
    bought = alice.execute_order(side="Bid", auto_borrow_repay=True, **(order | {"quantity": "10.01"}))
    seen["back"] = bought["status"]
    seen["repaid"] = [row for row in alice.get_borrow_lend_positions() if row["symbol"] == "SOL"]
    return seen


def settings(alice: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    alice.update_account(auto_lend=True, auto_repay_borrows=True, leverage_limit="3")
    account = alice.get_account()
    seen["settings"] = [account["autoLend"], account["autoRepayBorrows"], account["leverageLimit"]]
    seen["limit"] = account["borrowLimit"]
    seen["all lent"] = alice.get_balances()
    most = alice.get_max_withdrawal_quantity("USDC", auto_borrow=True, auto_lend_redeem=True)
    seen["most out"] = float(most["maxWithdrawalQuantity"]) > 80_000
    seen["auto lend is on"] = alice.execute_borrow_lend("1", "Borrow", "USDC")["code"]
    return seen


async def asynchronous(world: dict[str, Any]) -> dict[str, Any]:
    bob = AsyncAccount(public_key=world["bob"]["public"], secret_key=world["bob"]["secret"])
    await bob.execute_borrow_lend("5", "Lend", "SOL")
    lent = [row["netQuantity"] for row in await bob.get_borrow_lend_positions() if row["symbol"] == "SOL"]
    most = await bob.get_max_borrow_quantity("SOL")
    return {"lent": lent, "most": most["symbol"], "equity": float((await bob.get_collateral())["netEquity"]) > 0}


if __name__ == "__main__":
    main()
