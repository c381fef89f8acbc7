"""Run under ccxt's own interpreter: the feed's ccxt source asks a running exchange, a gone one, and a wrong market.

Usage: drive_feed.py JSON. Prints one JSON document: what each asked said, before and after somebody quotes.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import ccxt

from tools.quotes import Ticker


def main() -> None:
    world = json.loads(sys.argv[1])
    alice, bob = (client(world["url"], world[name]) for name in ("alice", "bob"))
    before = asyncio.run(asked(world["url"]))
    bob.create_order("SOL/USDC", "limit", "sell", 2, 150.5)
    alice.create_order("SOL/USDC", "limit", "buy", 1, 150.5)
    alice.create_order("SOL/USDC", "limit", "buy", 1, 149.25)
    print(json.dumps({"before": before, "after": asyncio.run(asked(world["url"])), "now": now_ms()}))


def client(url: str, keys: dict[str, str]) -> ccxt.backpack:
    return ccxt.backpack({"apiKey": keys["public"], "secret": keys["secret"], "urls": urls(url)})


def urls(url: str) -> dict:
    return {"api": {"public": url, "private": url}}


async def asked(url: str) -> list:
    sources = [
        Ticker("here", "backpack", {"SOL": "SOL/USDC", "ROWAN": "ROWAN/USDC"}, 10_000, {"urls": urls(url)}),
        Ticker("gone", "backpack", {"SOL": "SOL/USDC"}, 10_000, {"urls": urls("http://127.0.0.1:9")}),
    ]
    try:
        return [answer._asdict() for source in sources for answer in await source.ask(now_ms())]
    finally:
        for source in sources:
            await source.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
