"""`satchel pools`: liquidity pools of a running exchange: list, quote, swap, provide, open and close.   [X-1 … X-11]"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tools.client import Client, Refused
from tools.keys import read_private_key
from tools.terminal import FINE, CannotRun, print_json, print_table

_POOL_COLUMNS = ("pool", "state", "price", "balance", "native", "owed", "native", "health", "rate", "longs", "units")
_POSITION_COLUMNS = ("id", "pool", "collateral", "", "custody", "", "leverage", "owed", "health", "ratio", "proceeds")
_LIQUIDITY_COLUMNS = ("pool", "units", "share", "external", "native", "fees", "native", "interest", "native")
_HOP_COLUMNS = ("pool", "paid", "", "received", "", "fee", "price impact")

Ask = Callable[[Client], Awaitable[Any]]


def show(url: str, as_json: bool) -> int:
    """Every pool, as anybody may see it."""
    rows: list[dict[str, Any]] = _run(url, None, lambda client: client.ask("/satchel/v1/pools"))
    if as_json:
        print_json({"pools": rows})
        return FINE
    cells = []
    for row in rows:
        native, external = row["native"], row["external"]
        amounts = (external["balance"], native["balance"], external["owed"], native["owed"])
        figures = (row["health"], row["interestRate"], str(row["positions"]), row["units"])
        cells.append([row["symbol"], row["state"], row["price"], *amounts, *figures])
    print_table(_POOL_COLUMNS, cells, numbers=range(2, len(_POOL_COLUMNS)))
    return FINE


def quote(url: str, paid: str, wanted: str, quantity: str, leverage: str | None, as_json: bool) -> int:
    """What a swap would bring now; with a leverage, what a long of `wanted` against `paid` would be."""
    if leverage is not None:
        query = {"collateralSymbol": paid, "custodySymbol": wanted, "quantity": quantity, "leverage": leverage}
        found = _run(url, None, lambda client: client.ask("/satchel/v1/pools/quote/open", **query))
        return _tell(found, as_json)
    query = {"fromSymbol": paid, "toSymbol": wanted, "quantity": quantity}
    found = _run(url, None, lambda client: client.ask("/satchel/v1/pools/quote/swap", **query))
    if as_json:
        return _tell(found, True)
    names = ("symbol", "paid", "paidSymbol", "received", "receivedSymbol", "fee", "priceImpact")
    print_table(_HOP_COLUMNS, [[hop[name] for name in names] for hop in found["hops"]], numbers=(1, 3, 5, 6))
    return _tell({name: value for name, value in found.items() if name != "hops"}, False)


def act(url: str, key: Path, instruction: str, fields: dict[str, Any], as_json: bool) -> int:
    """One signed request and its answer; fields that are None were not given."""
    given = {name: value for name, value in fields.items() if value is not None}
    return _tell(_run(url, key, lambda client: client.request(instruction, **given)), as_json)


def positions(url: str, key: Path, as_json: bool) -> int:
    """The key's subaccount's leveraged longs, with health and what a close would bring."""
    rows = _run(url, key, lambda client: client.request("poolPositionQueryAll", limit=1_000))
    if as_json:
        print_json({"positions": rows})
        return FINE
    names = (
        "positionId", "symbol", "collateral", "collateralSymbol", "custody", "custodySymbol", "leverage", "owed",
        "health", "liquidationRatio",
    )  # fmt: skip
    cells = [[*[row[name] for name in names], row.get("estimatedProceeds", "refused")] for row in rows]
    print_table(_POSITION_COLUMNS, cells, numbers=(0, 2, 4, 6, 7, 8, 9, 10))
    return FINE


def liquidity(url: str, key: Path, as_json: bool) -> int:
    """What the key's subaccount provides, and what that earned."""
    rows = _run(url, key, lambda client: client.request("poolLiquidityQueryAll"))
    if as_json:
        print_json({"liquidity": rows})
        return FINE
    names = (
        "symbol", "units", "share", "externalQuantity", "nativeQuantity", "externalFees", "nativeFees",
        "externalInterest", "nativeInterest",
    )  # fmt: skip
    print_table(_LIQUIDITY_COLUMNS, [[row[name] for name in names] for row in rows], numbers=range(1, len(names)))
    return FINE


def _tell(found: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print_json(found)
        return FINE
    for name, value in found.items():
        print(f"{name}: {str(value).lower() if isinstance(value, bool) else value}")
    return FINE


def _run(url: str, key: Path | None, ask: Ask) -> Any:
    """Ask a running exchange, with a key or without; CannotRun says what it answered instead."""
    return asyncio.run(_asked(url, key, ask))


async def _asked(url: str, key: Path | None, ask: Ask) -> Any:
    private = None if key is None else read_private_key(key)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            return await ask(Client(session, url.rstrip("/"), private))
    except Refused as problem:
        raise CannotRun(str(problem), _NEXT.get(problem.code, "see `satchel pools list`")) from None
    except (aiohttp.ClientError, TimeoutError) as problem:
        raise CannotRun(f"{url} does not answer: {problem}", "start the exchange, or name it with --url") from None


_NEXT = {
    "UNAUTHORIZED": "the key is not registered at this exchange",
    "RESOURCE_NOT_FOUND": "see `satchel pools positions`",
    "INSUFFICIENT_FUNDS": "deposit more, or take what open orders hold",
    "PRECONDITION_FAILED": "ask for a new quote, `satchel pools quote`, or try again in a minute",
}
"""What to do next, by the exchange's code."""
