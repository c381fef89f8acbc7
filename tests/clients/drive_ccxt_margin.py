"""ccxt's `backpack` class, unmodified but for its URL, on margin. Run by the interpreter that has ccxt."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from drive_ccxt import client, refusal


def main() -> None:
    world = json.loads(sys.argv[1])
    alice, bob = client(world, "alice"), client(world, "bob")
    alice.load_markets()
    bob.load_markets()
    seen: dict[str, Any] = {}

    # What ccxt has no unified name for it has as raw calls, signed as it signs everything.
    lend = {"symbol": "SOL", "side": "Lend", "quantity": "100"}
    seen["lent"] = bob.privatePostApiV1BorrowLend(lend)
    seen["balance"] = bob.fetch_balance()["SOL"]
    seen["markets"] = len(alice.publicGetApiV1BorrowLendMarkets())
    seen["marks"] = {row["symbol"]: row["markPrice"] for row in alice.publicGetApiV1MarkPrices()}
    most = alice.privateGetApiV1AccountLimitsOrder(
        {"symbol": "SOL_USDC", "side": "Ask", "price": "150", "autoBorrow": "true"}
    )
    seen["most"] = most["maxOrderQuantity"]

    bob.create_order("SOL/USDC", "limit", "buy", 5, 150)
    seen["no flag"] = refusal(lambda: alice.create_order("SOL/USDC", "limit", "sell", 5, 150))
    short = alice.create_order("SOL/USDC", "limit", "sell", 5, 150, {"autoBorrow": True, "autoLendRedeem": True})
    seen["short"] = [short["status"], short["filled"]]
    (position,) = alice.privateGetApiV1BorrowLendPositions()
    seen["position"] = [position["symbol"], position["netQuantity"][:2], position["netExposureQuantity"][:1]]
    capital = alice.privateGetApiV1CapitalCollateral()
    seen["capital"] = [float(capital["netEquityLocked"]) > 0, float(capital["marginFraction"]) > 1]
    seen["proceeds"] = alice.fetch_balance()["USDC"]["free"]

    payload = json.dumps({"symbol": "SOL", "side": "Borrow", "quantity": "50"})
    priced = alice.privateGetApiV1BorrowLendPositionLiquidationPrice(
        {"borrow": base64.b64encode(payload.encode()).decode()}
    )
    seen["liquidation"] = [float(priced["liquidationPrice"]) > 150, priced["markPrice"]]

    bob.create_order("SOL/USDC", "limit", "sell", 6, 150)
    batch = alice.create_orders(
        [
            {
                "symbol": "SOL/USDC",
                "type": "limit",
                "side": "buy",
                "amount": 6,
                "price": 150,
                "params": {"autoBorrowRepay": True, "autoLend": True},
            }
        ]
    )
    seen["back"] = [batch[0]["status"], batch[0]["filled"]]
    (lent,) = alice.privateGetApiV1BorrowLendPositions()
    seen["lent again"] = float(lent["netQuantity"])
    seen["settings"] = alice.privatePatchApiV1Account({"leverageLimit": "5", "autoRepayBorrows": True})
    account = alice.privateGetApiV1Account()
    seen["account"] = [account["leverageLimit"], account["autoRepayBorrows"]]
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
