"""`satchel demo` (`make run`): a devnet with a living book: prices that wander, clients that make and take markets.

The exchange is a child process of its own; prices and clients are customers of its public API and know nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import socket
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.amounts import format_decimal
from ledger.signing import signer_from_seed, write_key_file
from tools.client import Client, Refused
from tools.node_process import NodeProcess, NotStarted
from tools.terminal import FINE, CannotRun, say

PRICE_SECONDS = 2.0
QUOTE_SECONDS = 2.0
LEVELS = 6

CENTS = {"SOL": 15_000, "ETH": 300_000, "BTC": 10_000_000}
"""Where the prices start, in cents; USDC and USDT stay at one dollar."""

PORTFOLIOS = {
    "maker": {"USDC": "5000000", "SOL": "20000", "ETH": "1000", "BTC": "30"},
    "taker": {"USDC": "500000", "SOL": "2000", "ETH": "100", "BTC": "3"},
    "alice": {"USDC": "10000", "SOL": "50"},
}
LOANS = {"USDC": "1000000", "SOL": "4000", "ETH": "200", "BTC": "5"}
"""What the first maker lends, so that others can borrow."""
POOL = {"symbol": "USDC", "nativeQuantity": "1000000", "externalQuantity": "500000"}
"""What the first maker brings to the liquidity pool of ROWAN and USDC."""
CAST = {"maker-1": "maker", "maker-2": "maker", "taker-1": "taker", "taker-2": "taker", "alice": "alice"}
"""Who takes part; alice is the newcomer's own account: nobody trades for her."""


@dataclass(frozen=True, slots=True)
class Market:
    """How the clients trade one market: prices in units of `tick_cents`, sizes in lots of `10^-lot_decimals`."""

    symbol: str
    base: str
    tick_cents: int
    lot_decimals: int
    lots: int
    """A usual order's size."""


MARKETS = (
    Market("SOL_USDC", "SOL", 1, 2, 400),
    Market("ETH_USDC", "ETH", 1, 3, 200),
    Market("BTC_USDC", "BTC", 10, 4, 60),
    Market("SOL_USDC_PERP", "SOL", 1, 2, 4_000),
    Market("ETH_USDC_PERP", "ETH", 1, 3, 2_000),
    Market("BTC_USDC_PERP", "BTC", 10, 4, 600),
)


def run(data: Path, database: str | None, port: int, seed: int, as_json: bool) -> int:
    """Run until Ctrl-C or SIGTERM; then stop the clients first, the exchange after them."""
    _require_free(port)
    data.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_run(data, database, port, seed, as_json))


async def _run(data: Path, database: str | None, port: int, seed: int, as_json: bool) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)

    async with _exchange(data, database, port, as_json) as (url, ended), aiohttp.ClientSession() as session:
        chance = random.Random(seed)
        prices = dict(CENTS)
        public = Client(session, url)
        work = _until_stopped(stopped, ended, _open_and_trade(public, data, prices, chance, as_json))
        await work
        if ended.done() and not stopped.is_set():
            raise CannotRun(f"the exchange ended with code {ended.result()}", "its own words are above")
        say("stopping …")
    say("stopped; the data stays in " + str(data))
    return FINE


async def _until_stopped(stopped: asyncio.Event, ended: asyncio.Future[int], work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends, the person stops us, or the exchange is gone."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(stopped.wait())
    waits: set[asyncio.Future[Any]] = {task, stop, ended}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done() and not stopped.is_set() and not ended.done():
        task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError, Refused):
        await task


# The exchange.


@asynccontextmanager
async def _exchange(
    data: Path, database: str | None, port: int, as_json: bool
) -> AsyncIterator[tuple[str, asyncio.Future[int]]]:
    """The exchange as a child whose output is ours: its URL, and a future of its exit code."""
    node = NodeProcess(data, database, port, echo=lambda line: _pass_on(line, as_json))
    try:
        url = await node.start()
    except NotStarted as problem:
        raise CannotRun(str(problem).splitlines()[0], "its own words are above") from None
    ended = asyncio.ensure_future(node.wait())
    try:
        yield url, ended
    finally:
        await node.stop()


def _pass_on(line: str, as_json: bool) -> None:
    print(line, file=sys.stderr if as_json else sys.stdout, flush=True)


def _require_free(port: int) -> None:
    """A taken port is said before anything starts."""
    with socket.socket() as probe:
        # As the server itself binds, so that connections of a moment ago do not look like a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as problem:
            raise CannotRun(
                f"port {port} of 127.0.0.1 is taken ({problem.strerror})",
                f"stop what listens there, or choose another: `make run PORT={port + 1}`, or --port 0 for any free one",
            ) from None


# The cast.


@dataclass(slots=True)
class Participant:
    """A registered customer with a key of their own."""

    name: str
    client: Client
    user_id: int
    subaccount_id: int


async def _open_and_trade(
    public: Client, data: Path, prices: dict[str, int], chance: random.Random, as_json: bool
) -> None:
    await _feed(public, prices)
    cast = await _cast(public, data)
    await _lend(cast["maker-1"])
    await _provide(public, cast["maker-1"])
    _welcome(public.url, data, cast["alice"], as_json)
    tasks = [_wander(public, prices, chance)]
    for name, person in cast.items():
        if name.startswith("maker"):
            tasks += [_make_market(person, market, prices, chance) for market in MARKETS]
        elif name.startswith("taker"):
            tasks.append(_take(public, person, chance))
    await asyncio.gather(*tasks)


async def _lend(person: Participant) -> None:
    """Something to borrow in every money market, once."""
    if await person.client.request("borrowLendPositionQuery"):
        return
    for asset, quantity in LOANS.items():
        await person.client.request("borrowLendExecute", symbol=asset, side="Lend", quantity=quantity)


async def _provide(public: Client, person: Participant) -> None:
    """A liquidity pool to swap in and to be lent by, once."""
    if await person.client.request("poolLiquidityQueryAll"):
        return
    await _faucet(public, person, "ROWAN", POOL["nativeQuantity"])
    await person.client.request("poolLiquidityAdd", **POOL)


async def _cast(public: Client, data: Path) -> dict[str, Participant]:
    """Everybody with their kept key, registered and funded the first time."""
    file = data / "demo-users.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    cast = {}
    for name, role in CAST.items():
        cast[name] = await _kept_participant(public, name, kept.get(name)) or await _new_participant(public, name, role)
        kept[name] = _record(cast[name])
        _write_private(file, kept)
    _write_key(data / "alice.json", cast["alice"])
    return cast


async def _kept_participant(public: Client, name: str, record: dict[str, Any] | None) -> Participant | None:
    """Who took part before, if this exchange knows the key."""
    if record is None:
        return None
    key = Ed25519PrivateKey.from_private_bytes(b64decode(record["privateKey"]))
    person = Participant(name, Client(public.session, public.url, key), record["userId"], record["subaccountId"])
    try:
        await person.client.request("accountQuery")
    except Refused as refusal:
        if refusal.status not in (400, 401, 403, 404):
            raise
        return None
    return person


async def _new_participant(public: Client, name: str, role: str) -> Participant:
    client = Client(public.session, public.url, Ed25519PrivateKey.generate())
    opened = await public.tell("/dev/v1/keys", {"publicKey": client.public_key})
    person = Participant(name, client, opened["userId"], opened["subaccountId"])
    for symbol, quantity in PORTFOLIOS[role].items():
        await _faucet(public, person, symbol, quantity)
    return person


async def _faucet(public: Client, person: Participant, symbol: str, quantity: str) -> None:
    await public.tell(
        "/dev/v1/faucet",
        {"userId": person.user_id, "subaccountId": person.subaccount_id, "symbol": symbol, "quantity": quantity},
    )


def _record(person: Participant) -> dict[str, Any]:
    assert person.client.key is not None
    return {
        "publicKey": person.client.public_key,
        "privateKey": b64encode(person.client.key.private_bytes_raw()).decode(),
        "userId": person.user_id,
        "subaccountId": person.subaccount_id,
    }


def _write_key(file: Path, person: Participant) -> None:
    """Her key as a file for `satchel sign --key`; a new exchange in the same folder has a new alice."""
    assert person.client.key is not None
    file.unlink(missing_ok=True)
    write_key_file(file, signer_from_seed(person.client.key.private_bytes_raw()), None)


def _write_private(file: Path, document: Any) -> None:
    new = file.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(json.dumps(document, indent=2) + "\n")
    new.replace(file)


# Prices and trading.


async def _wander(public: Client, prices: dict[str, int], chance: random.Random) -> None:
    """The price process: a random walk, told to the exchange as index prices."""
    while True:
        await asyncio.sleep(PRICE_SECONDS)
        for asset, cents in prices.items():
            # A step of up to 0.1 %, leaning a little back to where it started.
            step = chance.randint(-1000, 1000) + (1 if cents < CENTS[asset] else -1) * 20
            prices[asset] = max(100, cents + cents * step // 1_000_000)
        with _shrugging("prices"):
            await _feed(public, prices)


async def _feed(public: Client, prices: dict[str, int]) -> None:
    dollars = {asset: format_decimal(cents, 2) for asset, cents in prices.items()}
    await public.tell("/dev/v1/prices", {"USDC": "1", "USDT": "1", **dollars})


async def _make_market(person: Participant, market: Market, prices: dict[str, int], chance: random.Random) -> None:
    """Quote both sides around the price, and quote anew when time has passed."""
    while True:
        with _shrugging(person.name):
            await person.client.request("orderCancelAll", symbol=market.symbol)
            await person.client.place_batch(_quotes(market, prices[market.base], chance))
        await asyncio.sleep(QUOTE_SECONDS * (0.75 + chance.random() / 2))


def _quotes(market: Market, cents: int, chance: random.Random) -> list[dict[str, Any]]:
    """A ladder of post-only limit orders, 2 to 20 basis points from the price."""
    orders = []
    for level in range(LEVELS):
        away = max(1, cents * (2 + 3 * level + chance.randint(0, 2)) // 10_000 // market.tick_cents)
        middle = cents // market.tick_cents
        for side, ticks in (("Bid", middle - away), ("Ask", middle + away)):
            lots = market.lots * chance.randint(40, 160) // 100 * (level + 1)
            orders.append(
                {
                    "symbol": market.symbol,
                    "side": side,
                    "orderType": "Limit",
                    "price": format_decimal(ticks * market.tick_cents, 2),
                    "quantity": format_decimal(lots, market.lot_decimals),
                    "postOnly": True,
                }
            )
    return orders


async def _take(public: Client, person: Participant, chance: random.Random) -> None:
    """Trade a little at random, sell what one has too much of, and fetch more from the faucet when broke."""
    while True:
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        market = chance.choice(MARKETS)
        order = {
            "symbol": market.symbol,
            "side": chance.choice(("Bid", "Ask")),
            "orderType": "Market",
            "quantity": format_decimal(market.lots * chance.randint(5, 90) // 100, market.lot_decimals),
        }
        with _shrugging(person.name):
            try:
                await person.client.request("orderExecute", **order)
            except Refused as refusal:
                if refusal.code != "INSUFFICIENT_FUNDS":
                    raise
                symbol = "USDC" if order["side"] == "Bid" else market.base
                await _faucet(public, person, symbol, PORTFOLIOS["taker"][symbol])


@contextlib.contextmanager
def _shrugging(name: str) -> Iterator[None]:
    """A customer survives a refusal and a lost connection, and says what it was."""
    try:
        yield
    except (Refused, aiohttp.ClientError, TimeoutError) as problem:
        say(f"{name}: {type(problem).__name__} {problem}")


# What a newcomer reads.


def _welcome(url: str, data: Path, alice: Participant, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"url": url, "data": str(data), "subaccountId": alice.subaccount_id}), flush=True)
        return
    print("\n" + "\n".join(_pages(url)) + "\n\ntry, in another terminal:\n", flush=True)
    for command in commands_to_try(url, data, alice.subaccount_id):
        print("  " + command)
    print("\nCtrl-C stops; `make reset` starts over.", flush=True)


def _pages(url: str) -> list[str]:
    return [
        f"status page   {url}/",
        f"API reference {url}/docs",
        f"OpenAPI       {url}/openapi.json",
        f"WebSocket     {url.replace('http', 'ws', 1)}/",
        f"metrics       {url}/metrics",
    ]


def commands_to_try(url: str, data: Path, subaccount_id: int) -> list[str]:
    """Lines that can be pasted into a shell started where we were."""
    satchel = _own_name()
    folder = shlex.quote(str(data))
    key = shlex.quote(str(data / "alice.json"))
    proof = shlex.quote(str(data / "proof.json"))
    return [
        f"curl -s '{url}/api/v1/depth?symbol=SOL_USDC'",
        f"{satchel} sign orderExecute symbol=SOL_USDC side=Bid orderType=Market quoteQuantity=100 "
        f"--key {key} --url {url} | tail -n 1 | sh",
        f"{satchel} statement {subaccount_id} --data {folder}",
        f"{satchel} trial-balance --data {folder}",
        f"{satchel} verify-journal --data {folder}",
        f"{satchel} replay --data {folder}",
        f"{satchel} audit --data {folder}",
        f"curl -s -X POST {url}/dev/v1/por",
        f"{satchel} por prove {subaccount_id} --data {folder} --out {proof}",
        f"{satchel} por verify {proof}",
    ]


def _own_name() -> str:
    """How this very program is called from the folder it was started in."""
    if shutil.which("satchel") and Path(str(shutil.which("satchel"))).resolve() == Path(sys.argv[0]).resolve():
        return "satchel"
    program = Path(sys.argv[0])
    if program.name == "satchel" and program.exists():
        here = Path.cwd()
        shown = program.resolve().relative_to(here) if program.resolve().is_relative_to(here) else program
        return shlex.quote(str(shown))
    return f"{shlex.quote(sys.executable)} -m tools.cli"
