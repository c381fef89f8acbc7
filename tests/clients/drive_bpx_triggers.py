"""bpx-py, unmodified but for its URL, with trigger orders, brackets and quotes. Run by the interpreter that has it."""

from __future__ import annotations

import json
import sys
from typing import Any

from bpx.account import Account

MARKET = "SOL_USDC"


def main() -> None:
    world = json.loads(sys.argv[1])
    alice, bob = (account(world, name) for name in ("alice", "bob"))
    seen: dict[str, Any] = {}
    bob.execute_order(MARKET, "Ask", "Limit", quantity="5", price="150")
    alice.execute_order(MARKET, "Bid", "Limit", quantity="5", price="150")

    stop = alice.execute_order(
        MARKET, "Ask", "Market", quantity="2", trigger_price="140", trigger_quantity="2.0", triggered_by="LastPrice"
    )
    seen["placed"] = [stop["status"], stop["triggerPrice"], stop["triggerQuantity"], stop["triggerBy"]]
    seen["open"] = [row["id"] for row in alice.get_open_orders(symbol=MARKET)] == [stop["id"]]
    seen["one"] = alice.get_open_order(MARKET, order_id=stop["id"])["status"]
    bob.execute_order(MARKET, "Bid", "Limit", quantity="10", price="140")
    brackets = {"stop_loss_trigger_price": "160", "take_profit_trigger_price": "120"}
    bracketed = alice.execute_order(MARKET, "Ask", "Limit", quantity="1", price="140", **brackets)
    seen["bracketed"] = [bracketed["status"], bracketed["stopLossTriggerPrice"], bracketed["takeProfitTriggerPrice"]]
    history = {row["id"]: row for row in alice.get_order_history(symbol=MARKET)}
    seen["fired"] = [history[stop["id"]]["status"], history[stop["id"]]["executedQuantity"]]
    armed = alice.get_open_orders(symbol=MARKET)
    seen["armed"] = sorted([row["side"], row["triggerPrice"], row["status"]] for row in armed)
    cancelled = alice.cancel_all_orders(MARKET)
    seen["cancelled"] = sorted(row["status"] for row in cancelled)
    seen["account"] = [alice.get_account()["triggerOrders"], alice.get_account()["limitOrders"]]
    unknown = bob.submit_quote("77", "99", "101")
    seen["unknown"] = unknown["code"]
    print(json.dumps(seen))


def account(world: dict[str, Any], name: str) -> Account:
    keys = world[name]
    made = Account(public_key=keys["public"], secret_key=keys["secret"])
    made.BPX_API_URL = world["url"] + "/"
    return made


if __name__ == "__main__":
    main()
