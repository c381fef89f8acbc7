"""Margins: the sweeps over a million subaccounts, one exact summary, hourly accrual, orders that borrow and plain ones.

`python -m tests.bench.margin_bench [--scale 0.1]`
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from random import Random
from statistics import median
from time import perf_counter

from msgspec.structs import replace

from engine import margin
from engine.columns import Columns
from engine.commands import (
    AccrueInterest,
    BorrowLend,
    CancelOrder,
    Command,
    ConfigureAsset,
    ConfigureMarket,
    LendingSide,
    OrderType,
    PlaceOrder,
    SetPrices,
    Side,
)
from engine.formulas.lending import SHARES_PER_ATOM
from engine.parameters import PRICE_SCALE
from engine.state import ASSET_BITS, Loan, Position, State, Subaccount, User
from engine.transition import apply
from ledger.blocks import SignedRequest
from ledger.chart import (
    POOL_BORROWED,
    POOL_LENT,
    POOL_SHARES,
    AssetId,
    available,
    borrowed,
    debt_share,
    lend_share,
    lent,
)
from tests.bench.engine_bench import SOL, SOL_USDC, START_US, USDC, USERS, key_of, opened, run_one
from tests.bench.flow import CANCEL, Operation, flow
from tests.bench.rows import REPEATS, Row, show

SUBACCOUNTS = 1_000_000
MARKETS = 20
DIFFERENT = 20_000
"""So many are made; the rest are repetitions of them, or building them would take longer than everything else."""
ASSETS = 10
LENDERS = 1_000_000
ORDERS = 20_000
SUMMARIES = 20_000
_LENT_ATOMS, _BORROWED_ATOMS = 10**18, 6 * 10**17


def run(scale: float = 1.0) -> list[Row]:
    """The figures of margins and money markets."""
    rows = sweep(int(SUBACCOUNTS * scale))
    rows += liquidation_sweep(int(SUBACCOUNTS * scale))
    rows.append(exact_summary(int(SUMMARIES * scale)))
    rows += accrual(int(LENDERS * scale))
    return rows + orders(int(ORDERS * scale))


# --- the sweep ------------------------------------------------------------------------------------------------------


def sweep(subaccounts: int) -> list[Row]:
    """Seconds to find who is in liquidation, then milliseconds to read touched rows again."""
    state = _many_assets()
    at_us = state.at_us + 1_000_000
    made = min(DIFFERENT, subaccounts)
    _fill(state, made, at_us)
    expected = [
        number
        for number, each in state.subaccounts.items()
        if margin.sums(state, each, at_us).is_in_liquidation
    ]
    for number in range(made + 1, subaccounts + 1):
        state.subaccounts[number] = state.subaccounts[(number - 1) % made + 1]
    state.next_subaccount_id = subaccounts + 1
    columns = Columns(state)
    started = perf_counter()
    columns.refresh()
    filling = perf_counter() - started
    found = columns.in_liquidation(at_us)
    assert [number for number, _sums in found if number <= made] == expected
    bounds = columns.bounds(at_us)
    asked = int((bounds.owes & ~(bounds.equity > bounds.maintenance)).sum())

    def swept() -> None:
        # All of it: what the last sweep left is not used.
        columns.start_anew()
        columns.in_liquidation(at_us)

    seconds = _times(swept)
    what = (
        f"margin summary of {subaccounts:,} subaccounts × {ASSETS} assets: {asked:,} asked exactly, "
        f"{len(found):,} in liquidation"
    )
    rows = [Row(what, *_spread(seconds, 1, "s"), beside="at most 0.25 s")]

    touched = range(1, min(10_000, subaccounts) + 1)

    def reread() -> None:
        columns.forget(touched)
        columns.refresh()

    what = f"reading {len(touched):,} touched rows of them again"
    beside = f"all {subaccounts:,} at the start: {filling:.1f} s"
    return [*rows, Row(what, *_spread(_times(reread), 1_000, "ms"), beside=beside)]


def liquidation_sweep(subaccounts: int) -> list[Row]:
    """Seconds from new marks to the list of who is to be liquidated: everybody swept, and the nearest looked at."""
    state = _many_markets()
    at_us = state.at_us + 1_000_000
    made = min(DIFFERENT, subaccounts)
    _fill_positions(state, made, at_us)
    for number in range(made + 1, subaccounts + 1):
        state.subaccounts[number] = state.subaccounts[(number - 1) % made + 1]
    state.next_subaccount_id = subaccounts + 1
    columns = Columns(state)
    started = perf_counter()
    columns.refresh()
    filling = perf_counter() - started
    markets = [market for market in state.markets.values() if market.parameters.perpetual is not None]
    marks = [market.mark_lot for market in markets]

    def move(part: float, is_down: bool) -> None:
        """All marks move, every other one the other way."""
        for at, (market, mark) in enumerate(zip(markets, marks, strict=True)):
            market.mark_lot = mark + round(mark * part) * (-1 if (at % 2 == 0) == is_down else 1)
        state.marks_version += 1

    found: list[tuple[int, margin.Sums]] = []

    def swept() -> None:
        nonlocal found
        move(1e-5, is_down=len(seconds) % 2 == 0)
        columns.start_anew()
        found = columns.in_liquidation(at_us)
        seconds.append(0.0)

    seconds: list[float] = []
    times = _times(swept)
    exact = {number: margin.sums(state, state.subaccounts[number], at_us) for number in range(1, made + 1)}
    over = [number for number, sums in exact.items() if sums.is_in_liquidation]
    assert [number for number, _sums in found if number <= made] == over and columns.swept == len(times)
    what = f"new marks of {len(markets)} perpetuals to who of {subaccounts:,} is to be liquidated: {len(found):,}"
    rows = [Row(f"{what}, all swept", *_spread(times, 1, "s"), beside=f"at most 0.3 s; filling: {filling:.1f} s")]

    # From here nobody is over or on the threshold: what is to be liquidated has been.
    for number in range(1, made + 1):
        if number % 1_000 in (1, 2, 3):
            state.balances[available(number) << ASSET_BITS | USDC] = -(10**15)
    move(0.0, is_down=False)
    columns.forget(range(1, subaccounts + 1))
    columns.in_liquidation(at_us)
    full = columns.swept

    def quiet() -> None:
        move(1e-6 * (1 + len(seconds) % 7), is_down=len(seconds) % 2 == 0)
        seconds.append(0.0)
        assert not columns.in_liquidation(at_us)

    times = _times(quiet)
    assert columns.swept == full, "a price moved too far for the nearest to be enough"
    what = f"the same when no threshold is crossed: the nearest {columns.nearest:,} looked at"
    return [*rows, Row(what, *_spread(times, 1_000, "ms"), beside="at most 5 ms")]


def _many_markets() -> State:
    """A devnet with twenty perpetuals that have a mark."""
    state = opened(1)
    perpetuals = [market for market in state.markets.values() if market.parameters.perpetual is not None]
    like = perpetuals[0].parameters
    sol = state.assets[SOL]
    for extra in range(MARKETS - len(perpetuals)):
        run_one(state, ConfigureAsset(replace(sol, asset_id=200 + extra, symbol=f"X{extra}")))
        listed = replace(like, market_id=100 + extra, symbol=f"X{extra}_USDC_PERP", base_asset_id=200 + extra)
        run_one(state, ConfigureMarket(listed))
    run_one(state, SetPrices(tuple((asset_id, 100 * PRICE_SCALE) for asset_id in (SOL,))))
    for at, market in enumerate(state.markets.values()):
        if market.parameters.perpetual is not None:
            market.settled = market.mark_lot = 10**6 * (1 + 7 * at)
    state.marks_version += 1
    return state


def _fill_positions(state: State, subaccounts: int, at_us: int, seed: int = 5) -> None:
    """Everybody holds SOL and USDC and a position in six of the twenty; leverage from 1 to nearly all there is."""
    random = Random(seed)
    user = state.users[1]
    state.subaccounts.clear()
    markets = [market for market in state.markets.values() if market.parameters.perpetual is not None]
    for number in range(1, subaccounts + 1):
        subaccount = state.subaccounts[number] = Subaccount(number, user, 0)
        for asset_id in (USDC, SOL):
            subaccount.asset_ids[asset_id] = None
        state.balances[available(number) << ASSET_BITS | SOL] = -random.randrange(10**8, 10**10)
        for market in random.sample(markets, 6):
            held = subaccount.positions[market.parameters.market_id] = Position(subaccount, market)
            held.lots = random.choice([-1, 1]) * random.randrange(1, 3_000)
            held.cost = random.randrange(-(10**6), 10**6)
        subaccount.margined = True
        sums = margin.sums(state, subaccount, at_us)
        # One of 1,000 is over, two on the threshold, the others have 1.1 to 40 times their maintenance margin.
        kind = number % 1_000
        times = 0.9 if kind == 1 else 1.0 if kind in (2, 3) else random.uniform(1.1, 40)
        wanted = int(sums.maintenance * times) - sums.equity
        state.balances[available(number) << ASSET_BITS | USDC] = -max(0, wanted // 100)


def _many_assets() -> State:
    """A devnet with ten assets that are all lent and borrowed."""
    state = opened(1)
    sol = state.assets[SOL]
    for extra in range(ASSETS - 5):
        run_one(state, ConfigureAsset(replace(sol, asset_id=100 + extra, symbol=f"X{extra}")))
    prices = {asset_id: PRICE_SCALE * (1 + 37 * at) for at, asset_id in enumerate(_assets(state)) if asset_id != USDC}
    run_one(state, SetPrices(tuple(prices.items())))
    for asset_id in _assets(state):
        _fill_pool(state, asset_id)
    return state


def _assets(state: State) -> list[AssetId]:
    """USDC and the first others that have a money market."""
    return sorted(state.pools)[:ASSETS]


def _fill_pool(state: State, asset_id: AssetId) -> None:
    balances = state.balances
    balances[POOL_LENT << ASSET_BITS | asset_id] = -_LENT_ATOMS
    balances[POOL_BORROWED << ASSET_BITS | asset_id] = _BORROWED_ATOMS
    balances[POOL_SHARES << ASSET_BITS | lend_share(asset_id)] = _LENT_ATOMS * SHARES_PER_ATOM * 9 // 10
    balances[POOL_SHARES << ASSET_BITS | debt_share(asset_id)] = -_BORROWED_ATOMS * SHARES_PER_ATOM * 8 // 10


def _fill(state: State, subaccounts: int, at_us: int, seed: int = 3) -> None:
    """Everybody holds seven assets, lends one more, owes the other two and has orders open; one of 500 is on the
    threshold of liquidation to the atom, one of 1,000 over it."""
    random = Random(seed)
    user = state.users[1]
    state.subaccounts.clear()
    for number in range(1, subaccounts + 1):
        subaccount = _account(state, random, number, user)
        sums = margin.sums(state, subaccount, at_us)
        # What USDC, worth 100 an atom, has to make up for, so that equity is just the maintenance margin.
        least = max(0, sums.maintenance - sums.equity) // 100
        kind = number % 1_000
        if kind == 1:
            held = least // 2
        elif kind in (2, 3):
            held = least + kind - 2
        else:
            held = least + 1 + int(sums.maintenance * random.uniform(0.1, 20)) // 100
        state.balances[available(number) << ASSET_BITS | USDC] = -held


def _account(state: State, random: Random, number: int, user: User) -> Subaccount:
    subaccount = state.subaccounts[number] = Subaccount(number, user, 0)
    balances = state.balances
    others = [asset_id for asset_id in _assets(state) if asset_id != USDC]
    random.shuffle(others)
    for asset_id in [USDC, *others]:
        subaccount.asset_ids[asset_id] = None
    for asset_id in others[:7]:
        balances[available(number) << ASSET_BITS | asset_id] = -random.randrange(10**8, 10**11)
    subaccount.lent[others[6]] = Loan(number, 0)
    balances[lent(number) << ASSET_BITS | lend_share(others[6])] = -random.randrange(10**18, 10**20)
    for asset_id in others[7:]:
        subaccount.debts[asset_id] = Loan(number, 0)
        balances[borrowed(number) << ASSET_BITS | debt_share(asset_id)] = random.randrange(10**21, 10**23)
    subaccount.promised[others[0]] = random.randrange(1, 10**10)
    subaccount.promised[others[8]] = random.randrange(1, 10**10)
    subaccount.margined = True
    return subaccount


# --- one exact summary ----------------------------------------------------------------------------------------------


def exact_summary(summaries: int) -> Row:
    """Microseconds of `margin.sums` with the loss of ten open orders, as `apply` asks for them, each at a new time."""
    state = _many_assets()
    _fill(state, 10, state.at_us)
    state.subaccounts.clear()
    subaccount = _account(state, Random(1), 1, state.users[1])
    subaccount.user.subaccount_ids[:] = [1]
    state.balances[available(1) << ASSET_BITS | USDC] = -(10**15)
    for number in range(10):
        place = PlaceOrder(
            1, SOL_USDC, Side.BID, OrderType.LIMIT, price_ticks=3_800 - number, lots=5, auto_borrow=True,
            auto_lend_redeem=True,
        )  # fmt: skip
        run_one(state, place, _request(number, 1))
    assert len(subaccount.orders) == 10 and len(subaccount.asset_ids) == ASSETS

    def work() -> None:
        at_us = state.at_us
        for _ in range(summaries):
            at_us += 20
            margin.sums(state, subaccount, at_us)
            margin.open_order_loss(state, subaccount)

    what = f"exact summary of one subaccount, {ASSETS} assets, 10 open orders, 50 a millisecond"
    return Row(what, *_spread(_times(work), 1e6 / summaries, "µs"), beside="at most 30 µs inside apply")


# --- accrual --------------------------------------------------------------------------------------------------------


def accrual(lenders: int) -> list[Row]:
    """Microseconds of one hourly accrual, of every pool, with ten lenders and with many."""
    rows = []
    for count in (10, lenders):
        state = _many_assets()
        # A lender is its shares and the loan's entry; the pools' totals are the same with ten and with a million.
        state.subaccounts.clear()
        user = state.users[1]
        for number in range(1, count + 1):
            subaccount = state.subaccounts[number] = Subaccount(number, user, 0)
            subaccount.lent[USDC] = Loan(number, 0)
            subaccount.asset_ids[USDC] = None
            state.balances[lent(number) << ASSET_BITS | lend_share(USDC)] = -(10**15)
        hour = state.at_us // 3_600_000_000
        state.last_interest_hour = hour
        hours = 200
        gc.collect()
        gc.freeze()

        def work(state: State = state, hours: int = hours) -> None:
            for _ in range(hours):
                hour = state.last_interest_hour + 1
                outcome = apply(state, state.sequence + 1, hour * 3_600_000_000, AccrueInterest(hour))
                assert outcome.rejection is None

        times = _times(work)
        gc.unfreeze()
        beside = "" if count == 10 else "the same as with 10"
        what = f"hourly accrual of {len(state.pools)} money markets with {count:,} lenders"
        rows.append(Row(what, *_spread(times, 1e6 / hours, "µs"), beside=beside))
    return rows


# --- orders ---------------------------------------------------------------------------------------------------------


def orders(count: int) -> list[Row]:
    """Commands a second through `apply`: plain accounts, accounts with a debt, and orders that borrow and repay."""
    operations = flow(count)
    rates = {}
    runs: dict[str, tuple[bool, bool]] = {
        "spot orders, no margin": (False, False),
        "the same of accounts that owe both assets": (True, False),
        "the same, every order with autoBorrow, autoLendRedeem, autoBorrowRepay": (True, True),
    }
    for _ in range(REPEATS):
        # Interleaved, so that a noisy moment hits all.
        for what, (has_debts, borrows) in runs.items():
            work = _ready(operations, has_debts, borrows)
            gc.collect()
            started = perf_counter()
            work()
            rates.setdefault(what, []).append(len(operations) / (perf_counter() - started))
    plain = median(rates["spot orders, no margin"])
    return [
        Row(
            what,
            median(each),
            "commands/s",
            min(each),
            max(each),
            "" if not runs[what][0] else f"at least 60 % of the rate without; {median(each) / plain:.0%}",
        )
        for what, each in rates.items()
    ]


def _ready(operations: list[Operation], has_debts: bool, borrows: bool) -> Callable[[], None]:
    state = _traders(has_debts)
    first = state.next_order_id
    prepared = []
    for number, operation in enumerate(operations):
        user = operation.order % USERS + 1
        prepared.append((_command(operation, user, first, borrows), _request(1_000 + number, user)))

    def work() -> None:
        seq, at_us = state.sequence, state.at_us
        for command, request in prepared:
            seq += 1
            at_us += 20
            apply(state, seq, at_us, command, request)

    return work


def _traders(has_debts: bool) -> State:
    """Users with much USDC and SOL, one lender more; each owes some of both where it is asked for."""
    state = opened(USERS + 1)
    lender = USERS + 1
    for asset_id, atoms in ((USDC, 10**16), (SOL, 10**16)):
        run_one(state, BorrowLend(lender, asset_id, LendingSide.LEND, atoms), _request(10 * lender + asset_id, lender))
    if has_debts:
        for user in range(1, USERS + 1):
            for asset_id in (USDC, SOL):
                command = BorrowLend(user, asset_id, LendingSide.BORROW, 10**10)
                run_one(state, command, _request(10 * user + asset_id, user))
    return state


def _command(operation: Operation, user: int, first: int, borrows: bool) -> Command:
    if operation.kind == CANCEL:
        return CancelOrder(user, SOL_USDC, order_id=operation.order + first)
    return PlaceOrder(
        user,
        SOL_USDC,
        Side.BID if operation.is_bid else Side.ASK,
        OrderType.LIMIT,
        price_ticks=operation.price,
        lots=operation.lots,
        auto_borrow=borrows,
        auto_lend_redeem=borrows,
        auto_borrow_repay=borrows,
    )


def _request(number: int, user: int) -> SignedRequest:
    at_ms = START_US // 1000
    text = b"instruction=orderExecute&orderType=Limit&price=100.00&quantity=1&side=Bid&symbol=SOL_USDC"
    return SignedRequest(key_of(user), number.to_bytes(64, "big"), text, at_ms, 5000, at_ms + number // 20)


def _times(work: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(REPEATS):
        started = perf_counter()
        work()
        times.append(perf_counter() - started)
    return times


def _spread(times: list[float], scale: float, unit: str) -> tuple[float, str, float, float]:
    return median(times) * scale, unit, min(times) * scale, max(times) * scale


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--scale", type=float, default=1.0)
    show("margin", run(arguments.parse_args().scale))
