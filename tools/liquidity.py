"""`satchel liquidity`: what each chain can pay out, and from where to fill up one that runs low.   [D-1, D-10]"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from tools.client import Client, Refused
from tools.keys import read_private_key
from tools.terminal import FINDINGS, FINE, CannotRun, print_json, print_table, say

_COLUMNS = ("asset", "chain", "hot wallet", "unswept", "under way", "payable", "users have", "")


def show(url: str, key: Path, low: str, as_json: bool) -> int:
    """List every asset on every chain, as the running exchange tells an operator; 1 while one runs low."""
    rows = asyncio.run(_rows(url, key, low))
    short = [row for row in rows if row["isLow"]]
    if as_json:
        print_json({"liquidity": rows})
        return FINDINGS if short else FINE
    print_table(_COLUMNS, [_cells(row) for row in rows], numbers=(2, 3, 4, 5, 6))
    for row in short:
        sources = ", ".join(row["rebalanceFrom"])
        step = f"move some from {sources}" if sources else "no other chain has enough to spare"
        say(f"{row['symbol']} runs low on {row['blockchain']}: {step}")
    return FINDINGS if short else FINE


def _cells(row: dict[str, Any]) -> list[str]:
    state = "LOW" if row["isLow"] else "" if row["isWithdrawEnabled"] else "withdrawals off"
    names = ("symbol", "blockchain", "hotWallet", "unswept", "underWay", "payable", "users")
    return [*[str(row[name]) for name in names], state]


async def _rows(url: str, key: Path, low: str) -> list[dict[str, Any]]:
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            client = Client(session, url.rstrip("/"), read_private_key(key))
            rows: list[dict[str, Any]] = await client.request("liquidityQueryAll", low=low)
            return rows
    except Refused as problem:
        raise CannotRun(str(problem), "it takes the key of an operator whom the exchange knows") from None
    except (aiohttp.ClientError, TimeoutError) as problem:
        raise CannotRun(f"{url} does not answer: {problem}", "start the exchange, or name it with --url") from None
