"""The settlement tick over a million open positions, from the marks to a signed block on disk; orders meanwhile.

`python -m tests.bench.settlement_bench [--scale 0.1]`
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter

from msgspec.structs import replace

from api.app import tune_interpreter
from engine import genesis
from engine.book import Book
from engine.commands import (
    Command,
    CreditDeposit,
    Genesis,
    OrderType,
    PlaceOrder,
    RegisterKey,
    SetPrices,
    SettlePositions,
    Side,
)
from engine.parameters import PRICE_SCALE
from engine.sequencer import Sequencer
from engine.state import ASSET_BITS, Market, Position, State, Subaccount, User
from engine.transition import apply
from ledger.blocks import SignedRequest
from ledger.chart import OPERATOR_EQUITY, available
from ledger.database import open_engine, upgrade
from ledger.signing import signer_from_seed
from ledger.store import Store
from tests.bench.durable import STEPS, timed_block
from tests.bench.rows import REPEATS, Row, show

POSITIONS = (10_000, 100_000, 1_000_000)
PER_SUBACCOUNT = 4
MARKETS = 20
TRADED = 5_000
"""Positions that fills changed since the last tick."""
USERS = 32
ORDERS_A_SECOND = 400
SECONDS = 20
"""Of live traffic, with two ticks in it."""
USDC, SOL, SOL_USDC = 1, 5, 1
START_US = 1_700_000_000_000_000
TICK_US = 10_000_000


def run(scale: float = 1.0) -> list[Row]:
    """Seconds of a tick at three sizes, then what it does to the latency of orders."""
    tune_interpreter()  # As `serve` does.
    rows: list[Row] = []
    for positions in POSITIONS:
        rows += tick_rows(int(positions * scale))
    return rows + latency_rows(int(POSITIONS[-1] * scale))


# --- a tick, part by part ---------------------------------------------------------------------------------------------


def tick_rows(positions: int) -> list[Row]:
    """One row: compute, journal, sign, commit; the parts beside it."""
    parts: dict[str, list[float]] = {step: [] for step in STEPS}
    totals = []
    with _store() as store:
        state = _population(positions)
        signer = signer_from_seed(bytes(32))
        chain = store.load_chain(signer.public_key, signer.sign)
        random = Random(1)
        # The store holds ticks alone: how the population came to be is not measured.
        seq, at_us = 0, START_US
        state.sequence = 0
        for repeat in range(REPEATS + 1):
            _trade(state, random)
            _move_marks(state, random)
            gc.collect()
            seq, at_us = seq + 1, at_us + TICK_US
            outcome, times = timed_block(state, chain, store, seq, at_us, SettlePositions())
            assert outcome.rejection is None, outcome.rejection
            if repeat:
                # The first tick reads everybody's lots; from then on they are kept.
                totals.append(times[-1] - times[0])
                for part, before, after in zip(parts.values(), times[:-1], times[1:], strict=True):
                    part.append(after - before)
    beside = ", ".join(f"{name} {median(each) * 1000:,.0f} ms" for name, each in parts.items())
    what = f"settlement tick, {positions:,} positions in {MARKETS} markets, to a durable block"
    target = "to reach 1.5 s; " if positions >= POSITIONS[-1] else ""
    return [Row(what, median(totals), "s", min(totals), max(totals), target + beside)]


@contextmanager
def _store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="satchel-bench-") as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'ledger.db'}")
        upgrade(engine)
        store = Store(engine)
        store.acquire()
        try:
            yield store
        finally:
            store.close()
            engine.dispose()


def _population(positions: int) -> State:
    """A devnet with so many positions, four to a subaccount; half of them long, all with USDC enough."""
    state = State()
    _do(state, Genesis(genesis.load("devnet"), bytes(32)))
    _do(state, SetPrices(((SOL, 100 * PRICE_SCALE),)))
    _more_markets(state)
    markets = [market for _id, market in sorted(state.markets.items()) if market.parameters.perpetual is not None]
    user, base = User(1, 0), available(0) << ASSET_BITS | USDC
    subaccounts = max(2 * MARKETS, positions // PER_SUBACCOUNT) // 2 * 2
    for number in range(1, subaccounts + 1):
        account = state.subaccounts[number] = Subaccount(number, user, 0)
        account.margined = True
        account.asset_ids[USDC] = None
        state.balances[number << ASSET_BITS | base] = -(10**12)
        # Two neighbours hold the two sides of the same markets.
        pair = (number - 1) // 2
        for step in range(PER_SUBACCOUNT):
            market = markets[(pair + 5 * step) % MARKETS]
            held = Position(account, market)
            held.lots = (1 if number % 2 else -1) * (1 + (pair * 7 + step * 13) % 997)
            market.holders[number] = account.positions[market.parameters.market_id] = held
    state.balances[OPERATOR_EQUITY << ASSET_BITS | USDC] = subaccounts * 10**12
    state.next_subaccount_id = subaccounts + 1
    return state


def _more_markets(state: State) -> None:
    perpetual = next(each for each in state.markets.values() if each.parameters.perpetual is not None)
    number = max(state.markets) + 1
    while sum(1 for each in state.markets.values() if each.parameters.perpetual is not None) < MARKETS:
        parameters = replace(perpetual.parameters, market_id=number, symbol=f"X{number}_USDC_PERP")
        state.markets[number] = Market(parameters, Book(), 0)
        number += 1


def _trade(state: State, random: Random) -> None:
    """Fills between neighbours: their costs stand until the tick."""
    for market in state.markets.values():
        if market.holders:
            owners = random.sample(sorted(market.holders)[::2], min(len(market.holders) // 2, TRADED // MARKETS // 2))
            for number in owners:
                gained = random.randint(1, 10**6)
                for side, atoms in ((number, gained), (number + 1 if number % 2 else number - 1, -gained)):
                    held = market.holders[side]
                    held.cost += atoms
                    market.traded[side] = held
                    market.moved[side] = None


def _move_marks(state: State, random: Random) -> None:
    for market in state.markets.values():
        if market.parameters.perpetual is not None:
            market.mark_lot = max(1, (market.mark_lot or 10**6) + random.randint(-1_000, 1_000))


def _do(state: State, command: Command) -> None:
    outcome = apply(state, state.sequence + 1, START_US, command)
    assert outcome.rejection is None, (command, outcome.rejection)


# --- orders meanwhile -------------------------------------------------------------------------------------------------


def latency_rows(positions: int) -> list[Row]:
    """p99 from an order's arrival to its durable block, with ticks and without."""
    without = asyncio.run(_latencies(positions, ticks=False))
    during = asyncio.run(_latencies(positions, ticks=True))
    rows = []
    for label, latencies, beside in (
        ("no tick", without, ""),
        ("a tick every ten seconds", during, f"to reach 3 × {_percentile(without, 99):.1f} ms"),
    ):
        middle, high, most = (_percentile(latencies, share) for share in (50, 99, 100))
        what = f"p99 of {ORDERS_A_SECOND} orders/s for {SECONDS} s, {positions:,} positions, {label}"
        rows.append(Row(what, high, "ms", high, high, f"p50 {middle:.1f} ms, worst {most:.0f} ms. {beside}".strip()))
    return rows


async def _latencies(positions: int, ticks: bool) -> list[float]:
    """Milliseconds of each order. Prices move every second; without ticks the settled second lies far ahead."""
    with _store() as store:
        state = _population(positions)
        users = [_member(state, number) for number in range(USERS)]
        _do(state, SetPrices(((SOL, 100 * PRICE_SCALE),)))
        if not ticks:
            state.settled_second = 2**40
        state.sequence, state.at_us = 0, START_US
        signer = signer_from_seed(bytes(32))
        began = perf_counter()
        thread = ThreadPoolExecutor(1)
        sequencer = Sequencer(
            state,
            store.load_chain(signer.public_key, signer.sign),
            clock_us=lambda: START_US + int((perf_counter() - began) * 1e6),
            commit=store.append,
            publish=lambda _block, _outcomes: None,
            executor=thread,
        )
        running = asyncio.create_task(sequencer.run())
        gc.collect()
        gc.freeze()
        # The caches of the first tick are warm before anybody is measured.
        await _traffic(sequencer, users, 11)
        latencies = await _traffic(sequencer, users, SECONDS)
        sequencer.stop()
        await running
        thread.shutdown()
        gc.unfreeze()
    return latencies


async def _traffic(sequencer: Sequencer, users: list[tuple[int, bytes]], seconds: int) -> list[float]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    waiting = []
    started, random = loop.time(), Random(3)
    for number in range(seconds * ORDERS_A_SECOND):
        due = started + number / ORDERS_A_SECOND
        if number % ORDERS_A_SECOND == 0:
            price = 100 * PRICE_SCALE + random.randint(-(10**5), 10**5) * (PRICE_SCALE // 10**7)
            waiting.append(sequencer.submit_nowait(SetPrices(((SOL, price),))))
        await asyncio.sleep(max(0, due - loop.time()))
        subaccount, key = users[number % USERS]
        side = Side.BID if number % 2 else Side.ASK
        command = PlaceOrder(subaccount, SOL_USDC, side, OrderType.LIMIT, price_ticks=10_000, lots=1)
        at_ms = START_US // 1000 + number
        request = SignedRequest(key, (seconds << 40 | number).to_bytes(64, "big"), b"order", at_ms, 60_000, at_ms)
        done = sequencer.submit_nowait(command, request)
        done.add_done_callback(partial(_note, latencies, due, loop))
        waiting.append(done)
    for outcome in await asyncio.gather(*waiting):
        assert outcome.rejection is None, outcome.rejection
    return latencies


def _note(latencies: list[float], due: float, loop: asyncio.AbstractEventLoop, _done: object) -> None:
    """From when it was to arrive: what waits because the loop is busy counts."""
    latencies.append((loop.time() - due) * 1_000)


def _member(state: State, number: int) -> tuple[int, bytes]:
    """A user with an API key and plenty of USDC and SOL."""
    key = (number + 1).to_bytes(32, "big")
    _do(state, RegisterKey(key))
    subaccount = state.api_keys[key].subaccount_id
    for asset in (USDC, SOL):
        _do(state, CreditDeposit(1, f"{number}/{asset}", 0, subaccount, subaccount, asset, 10**15, 1, "b", True))
    return subaccount, key


def _percentile(values: list[float], share: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--scale", type=float, default=1.0)
    show("settlement", run(arguments.parse_args().scale))
