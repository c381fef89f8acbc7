"""Liquidity pools: an epoch over thousands of positions to a durable block; swaps a second through `apply`.

`python -m tests.bench.pool_bench [--scale 0.1]`
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from random import Random
from statistics import median
from time import process_time

from msgspec.structs import replace

from engine.commands import (
    AddLiquidity,
    Command,
    ConfigureAsset,
    ConfigurePool,
    CreditDeposit,
    OpenLong,
    RegisterKey,
    RunPoolEpochs,
    SwapAssets,
)
from engine.formulas import pools as formulas
from engine.parameters import DEC, PoolParameters
from engine.state import ASSET_BITS, State
from engine.transition import apply
from ledger.blocks import SignedRequest
from ledger.chart import OPERATOR_EQUITY, available
from ledger.signing import signer_from_seed
from tests.bench.durable import STEPS, timed_block
from tests.bench.engine_bench import START_US, _request, key_of, opened
from tests.bench.rows import REPEATS, Row, show, timed
from tests.bench.settlement_bench import _store

POSITIONS = (1_000, 10_000, 100_000)
POOLS = 20
PER_SUBACCOUNT = 4
SWAPS = 50_000
SWAPPERS = 32
USDC, SOL, ROWAN = 1, 5, 6
EPOCH_US = 3_600_000_000
DEPTH = 10**17


def run(scale: float = 1.0) -> list[Row]:
    """Seconds of an epoch at three sizes; swaps a second; what the formula alone does."""
    rows = [epoch_row(int(positions * scale)) for positions in POSITIONS]
    return rows + swap_rows(int(SWAPS * scale))


# --- epochs -----------------------------------------------------------------------------------------------------------


def epoch_row(positions: int) -> Row:
    """Rate, health and interest of every position, the journal, the signature, the commit."""
    parts: dict[str, list[float]] = {step: [] for step in STEPS}
    totals, processor = [], []
    with _store() as store:
        state = _population(positions)
        signer = signer_from_seed(bytes(32))
        chain = store.load_chain(signer.public_key, signer.sign)
        # The store holds epochs alone: how the population came to be is not measured.
        seq, state.sequence = 0, 0
        for repeat in range(REPEATS + 1):
            at_us = state.amm_epoch_due_us
            gc.collect()
            seq += 1
            began = process_time()
            outcome, times = timed_block(state, chain, store, seq, at_us, RunPoolEpochs())
            used = process_time() - began
            assert outcome.rejection is None and len(outcome.journal) == POOLS, outcome.rejection
            if repeat:
                totals.append(times[-1] - times[0])
                processor.append(used)
                for part, before, after in zip(parts.values(), times[:-1], times[1:], strict=True):
                    part.append(after - before)
    beside = ", ".join(f"{name} {median(each) * 1000:,.0f} ms" for name, each in parts.items())
    what = f"an epoch of {positions:,} positions in {POOLS} pools, to a durable block"
    target = "to reach 1 s; " if positions == POSITIONS[1] else ""
    return Row(
        what, median(totals), "s", min(totals), max(totals), f"{target}{median(processor):.2f} s of CPU: {beside}"
    )


def _population(positions: int) -> State:
    """A devnet with twenty pools and so many positions through `apply`, four to a subaccount, half of either side."""
    state = opened(2)
    seq = state.sequence
    random = Random(1)

    def do(command: Command, user: int = 0) -> None:
        nonlocal seq
        seq += 1
        at_ms = START_US // 1_000 + seq
        request = SignedRequest(key_of(user), seq.to_bytes(64, "big"), b"", at_ms, 5_000, at_ms) if user else None
        outcome = apply(state, seq, START_US + seq, command, request)
        assert outcome.rejection is None, (command, outcome.rejection)

    pool_ids = _more_pools(state, do)
    subaccounts = max(2, positions // PER_SUBACCOUNT)
    for user in range(3, subaccounts + 1):
        do(RegisterKey(key_of(user)))
    for user in range(1, subaccounts + 1):
        _give(state, user, ROWAN, 10**13)
        for step in range(PER_SUBACCOUNT):
            pool_id = pool_ids[(user + 5 * step) % POOLS]
            is_native = (user + step) % 2 == 0
            if not is_native:
                _give(state, user, pool_id, 10**13)
            pays, gets = (ROWAN, pool_id) if is_native else (pool_id, ROWAN)
            do(OpenLong(user, pays, gets, random.randint(10**10, 10**11), 3 * DEC), user)
    assert len(state.amm_positions) == subaccounts * PER_SUBACCOUNT
    return state


def _more_pools(state: State, do: Callable[..., None]) -> list[int]:
    """Twenty pools that the same provider fills: of the assets there are, and of copies of one."""
    pool_ids = [asset_id for asset_id in sorted(state.assets) if asset_id != ROWAN]
    usual = state.assets[SOL]
    number = max(state.assets) + 1
    while len(pool_ids) < POOLS:
        do(ConfigureAsset(replace(usual, asset_id=number, symbol=f"X{number}")))
        pool_ids.append(number)
        number += 1
    for pool_id in pool_ids:
        do(ConfigurePool(PoolParameters(pool_id, ROWAN, max_positions=1_000_000, epoch_us=EPOCH_US)))
        for asset_id in (pool_id, ROWAN):
            _give(state, 1, asset_id, DEPTH)
        do(AddLiquidity(1, pool_id, DEPTH, DEPTH), 1)
    return pool_ids


def _give(state: State, user: int, asset_id: int, atoms: int) -> None:
    """The benchmark's own assets have no chain to be deposited from."""
    for account, moved in ((available(user), -atoms), (OPERATOR_EQUITY, atoms)):
        key = account << ASSET_BITS | asset_id
        state.balances[key] = state.balances.get(key, 0) + moved
    state.subaccounts[user].asset_ids[asset_id] = None


# --- swaps ------------------------------------------------------------------------------------------------------------


def swap_rows(swaps: int) -> list[Row]:
    """One hop and two, to and fro, so that the price stays where it is; then the formula alone."""
    rows = []
    for what, first, last in (("one pool", USDC, ROWAN), ("two pools", USDC, SOL)):
        spent: list[float] = []
        middle, least, most = timed(lambda: _ready(swaps, first, last, spent), swaps)  # noqa: B023
        beside = f"to reach 50,000; {median(spent) / swaps * 1e6:.1f} µs of CPU each"
        rows.append(Row(f"apply: swaps through {what}, signed", middle, "swaps/s", least, most, beside))
    middle, least, most = timed(lambda: lambda: _formula(swaps), swaps)
    return [*rows, Row("the formula of a swap alone", middle, "swaps/s", least, most)]


def _ready(swaps: int, first: int, last: int, spent: list[float]) -> Callable[[], None]:
    state = opened(SWAPPERS)
    seq = state.sequence
    at_us = START_US + seq
    for user in range(1, SWAPPERS + 1):
        seq += 1
        apply(state, seq, at_us, CreditDeposit(1, f"{user}/r", 0, user, user, ROWAN, 2 * DEPTH, 1, "b", True))
    for pool_id in (USDC, SOL):
        seq += 1
        outcome = apply(state, seq, at_us, AddLiquidity(1, pool_id, DEPTH // 2, DEPTH // 2), _request(seq, 1))
        assert outcome.rejection is None, outcome.rejection
    prepared = []
    random = Random(2)
    for number in range(swaps):
        user = number % SWAPPERS + 1
        pays, gets = (first, last) if number % 2 else (last, first)
        # Numbered apart from the requests above: a repeat would be answered, not done.
        request = _request(1_000 + number, user)
        prepared.append((SwapAssets(user, pays, gets, random.randint(10**6, 10**11)), request))

    def work() -> None:
        sequence, now_us = seq, at_us
        began = process_time()
        for command, request in prepared:
            sequence += 1
            now_us += 20
            outcome = apply(state, sequence, now_us, command, request)
            assert outcome.rejection is None, outcome.rejection
        spent.append(process_time() - began)

    return work


def _formula(swaps: int) -> None:
    native = external = DEPTH
    for number in range(swaps):
        received, _fee = formulas.swap(native, external, 10**9 + number, 3 * 10**15)
        native, external = external - received, native + 10**9 + number


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--scale", type=float, default=1.0)
    show(f"pools, median of {REPEATS}", run(arguments.parse_args().scale))
