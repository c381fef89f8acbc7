"""Commands made durable through the sequencer, on SQLite and PostgreSQL, and the same log replayed and verified.

`python -m tests.bench.ledger_bench [--scale 0.1]`
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import sqlalchemy as sa

from api.app import tune_interpreter
from engine import genesis
from engine.commands import Command, CreditDeposit, Genesis, OrderType, PlaceOrder, RegisterKey, SetPrices, Side
from engine.parameters import PRICE_SCALE
from engine.sequencer import Sequencer
from engine.state import State
from ledger.blocks import SignedRequest
from ledger.database import open_engine, upgrade
from ledger.signing import signer_from_seed
from ledger.store import Store
from ledger.verification import verify
from tests.bench.rows import Row, show
from tools.replaying import Replay, collect_seldom
from tools.servers import ServerMissing, postgres_server

COMMANDS = 60_000
WAITING = 4_000
"""Commands in flight: a queue that a few thousand connected clients make."""

USERS = 32
USDC, SOL, SOL_USDC = 1, 5, 1
START_US = 1_700_000_000_000_000
TEXT = (
    b"instruction=orderExecute&orderType=Limit&price=100.00&quantity=1&side=Bid&symbol=SOL_USDC&timestamp=1&window=5000"
)

PEERS = (
    "TigerBeetle from its Python client 13,300 four-leg trades/s; pgledger about 1,000–1,900/s; "
    "SQLAlchemy ORM 160–250/s (measured earlier, 2 cores)"
)


def run(scale: float = 1.0, postgresql: str | None = None) -> list[Row]:
    """Durable commands on both databases, then replay and verification of what SQLite holds."""
    commands = int(COMMANDS * scale)
    tune_interpreter()  # As `serve` does.
    rows = []
    with tempfile.TemporaryDirectory(prefix="satchel-bench-") as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'ledger.db'}")
        rate, postings, blocks = durable(engine, commands)
        what = (
            f"durable through the sequencer, {postings:.1f} postings a fill, SQLite {sqlite3.sqlite_version} FULL sync"
        )
        rows.append(Row(what, rate, "commands/s", rate, rate, f"to reach 30,000/s; {blocks:,} blocks. {PEERS}"))
        rows += replayed(engine)
        engine.dispose()
    if postgresql is not None:
        return rows[:1] + [on_postgresql(postgresql, "the PostgreSQL given", commands)] + rows[1:]
    try:
        with postgres_server(durable=True) as server:
            row = on_postgresql(server.create_database("bench"), server.version(), commands)
    except ServerMissing as missing:
        return [*rows, Row(f"durable on PostgreSQL: not measured, {missing}", 0, "", 0, 0, "to reach 20,000/s")]
    return rows[:1] + [row] + rows[1:]


def on_postgresql(url: str, version: str, commands: int) -> Row:
    engine = open_engine(url)
    try:
        rate, postings, blocks = durable(engine, commands)
    finally:
        engine.dispose()
    what = f"durable through the sequencer, {postings} postings a fill, {version}, fsync on"
    return Row(what, rate, "commands/s", rate, rate, f"to reach 20,000/s; {blocks:,} blocks")


def durable(engine: sa.Engine, commands: int) -> tuple[float, float, int]:
    """(commands a second from the first submit to the last durable block, postings a fill, blocks). Every one fills."""
    return asyncio.run(_durable(engine, commands))


async def _durable(engine: sa.Engine, commands: int) -> tuple[float, float, int]:
    upgrade(engine)
    store = Store(engine)
    store.acquire()
    signer = signer_from_seed(bytes(32))
    thread = ThreadPoolExecutor(1)
    ticks = [START_US]

    def clock() -> int:
        ticks[0] += 20
        return ticks[0]

    sequencer = Sequencer(
        State(),
        store.load_chain(signer.public_key, signer.sign),
        clock_us=clock,
        commit=store.append,
        publish=lambda _block, _outcomes: None,
        executor=thread,
    )
    running = asyncio.create_task(sequencer.run())
    for command, request in beginning(signer.public_key, commands):
        outcome = await sequencer.submit(command, request)
        assert outcome.rejection is None, (command, outcome.rejection)
    before = sequencer.chain.height
    takers = [taker(number) for number in range(commands)]

    started = perf_counter()
    waiting: list[asyncio.Future[object]] = []
    for at in range(0, commands, WAITING // 4):
        waiting += [sequencer.submit_nowait(command, request) for command, request in takers[at : at + WAITING // 4]]
        if len(waiting) >= WAITING:
            await asyncio.gather(*waiting[: WAITING // 4])
            del waiting[: WAITING // 4]
    last = await asyncio.gather(*waiting)
    seconds = perf_counter() - started

    assert last[-1].journal, "every measured command fills"  # type: ignore[attr-defined]
    postings = len(last[-1].journal[0].postings)  # type: ignore[attr-defined]
    sequencer.stop()
    await running
    store.close()
    thread.shutdown()
    return commands / seconds, postings, sequencer.chain.height - before


def beginning(public_key: bytes, commands: int) -> list[tuple[Command, SignedRequest | None]]:
    """Users with funds, and resting asks of user 1 that no taker of the run can use up."""
    made: list[tuple[Command, SignedRequest | None]] = [
        (Genesis(genesis.load("devnet"), public_key), None),
        (SetPrices(((SOL, 100 * PRICE_SCALE),)), None),
    ]
    for user in range(1, USERS + 1):
        made.append((RegisterKey(key_of(user)), None))
        for asset in (USDC, SOL):
            made.append((CreditDeposit(1, f"{user}/{asset}", 0, user, user, asset, 10**17, 1, "b", True), None))
    ask = PlaceOrder(1, SOL_USDC, Side.ASK, OrderType.LIMIT, price_ticks=10_000, lots=commands + 1)
    return [*made, (ask, request_of(0, 1))]


def taker(number: int) -> tuple[Command, SignedRequest]:
    """A limit order that takes one lot."""
    user = number % (USERS - 1) + 2
    command = PlaceOrder(user, SOL_USDC, Side.BID, OrderType.LIMIT, price_ticks=10_000, lots=1)
    return command, request_of(number + 1, user)


def key_of(user: int) -> bytes:
    return user.to_bytes(32, "big")


def request_of(number: int, user: int) -> SignedRequest:
    """What the edge hands over; signatures are verified there, so here they need only be different ones."""
    at_ms = START_US // 1_000 + number // 20
    return SignedRequest(key_of(user), sha256(b"%d" % number).digest() * 2, TEXT, at_ms, 5_000, at_ms)


def replayed(engine: sa.Engine) -> list[Row]:
    """Replay from genesis with every comparison, and the check of every byte without the engine."""
    collect_seldom()
    replay = Replay(Store(engine))
    started = perf_counter()
    for _header, _outcomes in replay.blocks():
        pass
    seconds = perf_counter() - started
    commands = replay.covered["commands"]
    rate = commands / seconds
    rows = [
        Row("replay with verification, every posting compared", rate, "commands/s", rate, rate, "to reach 40,000/s")
    ]
    started = perf_counter()
    report = verify(engine)
    seconds = perf_counter() - started
    assert report.is_clean, report.findings[:1]
    rate = commands / seconds
    return [*rows, Row("verify-journal, every column of every row", rate, "commands/s", rate, rate, "")]


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--scale", type=float, default=1.0)
    show("ledger", run(arguments.parse_args().scale))
