"""Run under ccxt's own interpreter: two unmodified ccxt clients deposit, trade ETH for USDC, and withdraw.

Usage: two_traders.py STEP JSON. Prints one JSON document.
"""

import json
import sys

import ccxt


def main() -> None:
    step, arguments = sys.argv[1], json.loads(sys.argv[2])
    seller, buyer = (client(arguments["url"], *pair) for pair in arguments["keys"])
    print(json.dumps(STEPS[step](seller, buyer, arguments)))


def client(url: str, public_key: str, private_key: str) -> ccxt.backpack:
    urls = {"api": {"public": url, "private": url}}
    return ccxt.backpack({"apiKey": public_key, "secret": private_key, "urls": urls})


def addresses(seller: ccxt.backpack, buyer: ccxt.backpack, _arguments: dict) -> list:
    return [each.fetch_deposit_address("ETH", {"network": "ETH"})["address"] for each in (seller, buyer)]


def balances(seller: ccxt.backpack, buyer: ccxt.backpack, _arguments: dict) -> list:
    return [{code: each.fetch_balance()["total"].get(code, 0) for code in ("ETH", "USDC")} for each in (seller, buyer)]


def trade(seller: ccxt.backpack, buyer: ccxt.backpack, _arguments: dict) -> dict:
    offer = seller.create_order("ETH/USDC", "limit", "sell", 0.5, 3000)
    taken = buyer.create_order("ETH/USDC", "limit", "buy", 0.5, 3000)
    return {"offer": offer["id"], "taken": taken["status"], "filled": taken["filled"]}


def withdraw(seller: ccxt.backpack, buyer: ccxt.backpack, arguments: dict) -> list:
    sent = [
        seller.withdraw("USDC", 1000, arguments["to"], params={"network": "ETH"}),
        buyer.withdraw("ETH", 0.25, arguments["to"], params={"network": "ETH"}),
    ]
    return [each["id"] for each in sent]


def withdrawals(seller: ccxt.backpack, buyer: ccxt.backpack, _arguments: dict) -> list:
    return [[row["status"] for row in each.fetch_withdrawals()] for each in (seller, buyer)]


STEPS = {
    "addresses": addresses,
    "balances": balances,
    "trade": trade,
    "withdraw": withdraw,
    "withdrawals": withdrawals,
}

if __name__ == "__main__":
    main()
