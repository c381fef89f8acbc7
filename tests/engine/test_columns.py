"""The sweep over all subaccounts finds exactly those that asking each of them would find.   [M-6, C-1 … M-3]"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import columns, margin
from engine.columns import Columns
from engine.commands import (
    BorrowLend,
    CancelOrder,
    Command,
    ConfigureAsset,
    LendingSide,
    OrderType,
    OrphanDeposit,
    PlaceOrder,
    ReverseDeposit,
    SetPrices,
    Side,
    Transfer,
    UpdateAccount,
)
from engine.events import Outcome
from engine.formulas.collateral import flat_atoms, weight_at
from engine.parameters import PRICE_SCALE, RATE_SCALE, AssetParameters, WeightKind
from engine.state import ASSET_BITS, Loan, Market, Position, ShareTime, State, Subaccount, User
from ledger.chart import (
    POOL_BORROWED,
    POOL_LENT,
    POOL_SHARES,
    AccountKind,
    account_id,
    available,
    borrowed,
    claim,
    claim_debt,
    claim_lend,
    cost,
    debt_share,
    lend_share,
    lent,
)
from ledger.journal import JournalKind, JournalTransaction, PostingBatch
from tests.engine.exchange import Exchange

SOL, USDC = 10**9, 10**6


class Positions(NamedTuple):
    """What one account has in perpetuals."""

    held: dict[int, tuple[int, int]]
    claims: dict[int, tuple[int, int]]
    unsettled: int
    settles: bool


class Accounts:
    """Subaccounts written straight into a state: what no sequence of orders would reach in a test's time."""

    def __init__(self, random: Random, assets: int = 10) -> None:
        self.random = random
        self.exchange = Exchange()
        state = self.state = self.exchange.state
        self.at_us = self.exchange.at_us + 1_234_567_000
        sol = state.assets[self.exchange.asset("SOL")]
        for extra in range(assets - 6):
            self.exchange.do(ConfigureAsset(self._asset(replace(sol, asset_id=100 + extra, symbol=f"X{extra}"))))
        self.asset_ids = sorted(state.assets)
        self.markets = sorted(number for number, each in state.markets.items() if each.parameters.perpetual is not None)
        for market_id in self.markets:
            market = state.markets[market_id]
            market.settled = random.choice([0, 1, 10**4, 10**8, 10**12]) * random.randint(1, 3)
            market.mark_lot = market.settled * random.randint(50, 200) // 100
            self._configure(market)
        for asset_id in self.asset_ids:
            price = random.choice([1, 10**6, 10**12, 10**14, 6 * 10**16, 9 * 10**18]) * random.randint(1, 3)
            state.marks[asset_id] = min(price, 2**63 - 1) if random.random() < 0.95 else 0
        state.marks[1] = PRICE_SCALE
        state.marks_version += 1
        self._fill_pools()
        self.user = User(1, 0)

    def _asset(self, asset: AssetParameters) -> AssetParameters:
        random = self.random
        mmf_base, mmf_factor = random.choice([0, 1, 50_000_000]), random.choice([0, 3, 7_000])
        return replace(
            asset,
            decimals=random.choice([0, 2, 6, 8, 9, 18]),
            collateral=True,
            weight=random.choice([0, 1, 900_000_000, RATE_SCALE]),
            weight_kind=random.choice(list(WeightKind)),
            weight_base=random.choice([1, 1_100_000_000, 10 * RATE_SCALE]),
            weight_penalty=random.choice([0, 1, 500_000, RATE_SCALE]),
            mmf_base=mmf_base,
            mmf_factor=mmf_factor,
            imf_base=random.choice([2, 4]) * mmf_base,
            imf_factor=random.choice([2, 3]) * mmf_factor,
        )

    def _configure(self, market: Market) -> None:
        random = self.random
        perpetual = market.parameters.perpetual
        assert perpetual is not None
        base, factor = random.choice([0, 1, 25_000_000, 50_000_000]), random.choice([0, 3, 7_000, 10**6])
        changed = replace(perpetual, mmf_base=base, mmf_factor=factor)
        market.parameters = replace(market.parameters, perpetual=changed)

    def _fill_pools(self) -> None:
        balances, random = self.state.balances, self.random
        for asset_id in self.state.pools:
            lent_atoms = random.choice([10**3, 10**12, 10**17])
            borrowed_atoms = int(lent_atoms * random.random()) + 1
            self.set(POOL_LENT, asset_id, -lent_atoms)
            self.set(POOL_BORROWED, asset_id, borrowed_atoms)
            self.set(POOL_SHARES, lend_share(asset_id), int(lent_atoms * 10**9 / (1 + random.random())))
            self.set(POOL_SHARES, debt_share(asset_id), -int(borrowed_atoms * 10**9 / (1 + random.random())))
        assert balances

    def set(self, account: int, asset_id: int, atoms: int) -> None:
        self.state.balances[account << ASSET_BITS | asset_id] = atoms

    def add(self, like: dict[int, tuple[int, int, int, int, int]], leverage: int) -> Subaccount:
        """An account with (held, lend shares, debt shares, paying, receivable) of each asset."""
        state = self.state
        number = state.next_subaccount_id
        state.next_subaccount_id += 1
        subaccount = state.subaccounts[number] = Subaccount(number, self.user, 0)
        subaccount.leverage_limit = leverage
        for asset_id, (held, lends, debt, paying, receivable) in like.items():
            subaccount.asset_ids[asset_id] = None
            self.set(available(number), asset_id, -held)
            if lends:
                subaccount.lent[asset_id] = Loan(1, 0)
                self.set(lent(number), lend_share(asset_id), -lends)
            if debt:
                subaccount.debts[asset_id] = Loan(2, 0)
                self.set(borrowed(number), debt_share(asset_id), debt)
            if paying:
                subaccount.promised[asset_id] = paying
            if receivable:
                self.set(account_id(AccountKind.RECEIVABLE, number), asset_id, receivable)
        return subaccount

    def some(self) -> dict[int, tuple[int, int, int, int, int]]:
        """Balances of every size, most of them 0."""
        random = self.random

        def size(top: int, chance: float) -> int:
            return random.randrange(10 ** random.randrange(1, top)) if random.random() < chance else 0

        found = {}
        for asset_id in self.asset_ids:
            has_pool = asset_id in self.state.pools
            found[asset_id] = (
                size(18, 0.4) - (random.random() < 0.005) * size(6, 1),
                size(24, 0.2) if has_pool else 0,
                size(24, 0.2) if has_pool else 0,
                size(16, 0.2),
                size(9, 0.01),
            )
        return found

    def add_positions(self, subaccount: Subaccount, like: Positions) -> None:
        """Positions (lots, cost), unsettled equity, claims (lend shares, debt shares)."""
        number = subaccount.subaccount_id
        subaccount.auto_realize_pnl, subaccount.unsettled = like.settles, like.unsettled
        for market_id, (lots, spent) in like.held.items():
            market = self.state.markets[market_id]
            held = subaccount.positions[market_id] = Position(subaccount, market)
            held.lots, held.cost = lots, spent
        for market_id, (lends, owes) in like.claims.items():
            subaccount.claims[market_id] = None
            self.set(claim(number), claim_lend(market_id), -lends)
            self.set(claim(number), claim_debt(market_id), owes)

    def some_positions(self) -> Positions:
        random = self.random

        def size(top: int, chance: float) -> int:
            return random.randrange(10 ** random.randrange(1, top)) if random.random() < chance else 0

        def signed(top: int, chance: float) -> int:
            return size(top, chance) * random.choice([-1, 1])

        held = {each: (signed(9, 0.6), signed(16, 0.5)) for each in self.markets if random.random() < 0.5}
        claims = {each: (size(24, 0.4), size(24, 0.3)) for each in self.markets if random.random() < 0.3}
        return Positions(held, claims, signed(14, 0.2), random.random() < 0.7)

    def on_the_threshold(self) -> list[Subaccount]:
        """One account three times: with the most USDC that leaves it in liquidation, an atom less, an atom more."""
        like, positions = self.some(), self.some_positions()
        subaccount = self.add(like, 10 * RATE_SCALE)
        self.add_positions(subaccount, positions)
        key = available(subaccount.subaccount_id) << ASSET_BITS | 1

        def is_safe(atoms: int) -> bool:
            self.state.balances[key] = -atoms
            return not margin.sums(self.state, subaccount, self.at_us).is_in_liquidation

        low, high = 0, 10**30
        if is_safe(low) or not is_safe(high):
            return []
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if is_safe(middle) else (middle, high)
        self.state.balances[key] = -low
        found = [subaccount]
        for atoms in (max(0, low - 1), high):
            found.append(self.add({**like, 1: (atoms, *like[1][1:])}, 10 * RATE_SCALE))
            self.add_positions(found[-1], positions)
        assert not is_safe(low) and is_safe(high)
        self.state.balances[key] = -low
        return found


def one_by_one(state: State, at_us: int, marks: dict[int, int] | None = None) -> list[tuple[int, margin.Sums]]:
    sums = {number: margin.sums(state, each, at_us, marks=marks) for number, each in state.subaccounts.items()}
    return sorted((number, each) for number, each in sums.items() if each.is_in_liquidation)


def require_bounds(swept: Columns, at_us: int, marks: dict[int, int] | None = None) -> None:
    bounds = swept.bounds(at_us, marks)
    for number, subaccount in swept.state.subaccounts.items():
        if number not in swept.uncounted:
            exact = margin.sums(swept.state, subaccount, at_us, marks=marks)
            assert bounds.equity[number] <= exact.equity
            assert bounds.maintenance[number] >= exact.maintenance
            assert bounds.owes[number] or not exact.is_short


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_random_accounts_are_found_as_one_by_one(seed: int) -> None:
    accounts = Accounts(Random(seed))
    for _ in range(60):
        added = accounts.add(accounts.some(), accounts.random.choice([1, 3, 10, 50]) * RATE_SCALE)
        if accounts.random.random() < 0.7:
            accounts.add_positions(added, accounts.some_positions())
    swept = Columns(accounts.state)
    assert swept.in_liquidation(accounts.at_us) == one_by_one(accounts.state, accounts.at_us)
    require_bounds(swept, accounts.at_us)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_accounts_on_the_threshold_are_told_apart_by_one_atom(seed: int) -> None:
    accounts = Accounts(Random(seed))
    planted = [subaccount for _ in range(12) for subaccount in accounts.on_the_threshold()]
    swept = Columns(accounts.state)
    found = swept.in_liquidation(accounts.at_us)
    assert found == one_by_one(accounts.state, accounts.at_us)
    require_bounds(swept, accounts.at_us)
    if planted:
        assert found and len(found) < len(accounts.state.subaccounts)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_a_sweep_after_small_moves_looks_at_few_and_finds_all(seed: int) -> None:
    """Prices wander, rows are touched, a tick settles; what was not looked at would not have been found.   [L-11]"""
    random = Random(seed)
    accounts = Accounts(random)
    state = accounts.state
    for _ in range(150):
        accounts.add_positions(accounts.add(accounts.some(), 10 * RATE_SCALE), accounts.some_positions())
    for _ in range(4):
        accounts.on_the_threshold()
    swept = Columns(state, nearest=random.choice([3, 20, 60]))
    for _ in range(25):
        step = random.choice([1e-12, 1e-7, 1e-4, 1e-2])
        for asset_id in state.marks:
            if asset_id != 1:
                state.marks[asset_id] = min(2**63 - 1, int(state.marks[asset_id] * (1 + step * random.uniform(-1, 1))))
        for market_id in accounts.markets:
            market = state.markets[market_id]
            market.mark_lot = int(market.mark_lot * (1 + step * random.uniform(-1, 1)))
        state.marks_version += 1
        for number in random.choices(sorted(state.subaccounts), k=3):
            accounts.set(available(number), random.choice([1, 1, *accounts.asset_ids]), -random.randrange(10**15))
            swept.forget([number])
        if random.random() < 0.3:
            settle(state, swept)
        assert swept.in_liquidation(accounts.at_us) == one_by_one(state, accounts.at_us)
    assert swept.swept <= 25


def test_a_quiet_sweep_looks_at_the_nearest_only() -> None:
    accounts = Accounts(Random(3), assets=6)
    state, market = accounts.state, accounts.state.markets[accounts.markets[0]]
    market.settled = market.mark_lot = 10**8
    for number in range(1, 101):
        subaccount = accounts.add({1: (10**7 * number, 0, 0, 0, 0)}, 10 * RATE_SCALE)
        accounts.add_positions(subaccount, Positions({accounts.markets[0]: (1, 0)}, {}, 0, True))
    swept = Columns(state, nearest=10)
    rows: list[int] = []
    for fall in (0, 10**5, 10**8 // 2):
        market.mark_lot -= fall
        state.marks_version += 1
        swept.in_liquidation(accounts.at_us)
        rows.append(swept.looked_at)
    assert swept.in_liquidation(accounts.at_us) == one_by_one(state, accounts.at_us) != []
    assert rows == [101, 10, 101] and swept.swept == 2


def test_the_screen_leaves_few_to_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a millionth away from its threshold is decided by the columns, or the sweep would not pay."""
    accounts = Accounts(Random(1), assets=6)
    state, usdc, sol = accounts.state, 1, accounts.exchange.asset("SOL")
    state.marks[sol] = 150 * PRICE_SCALE
    asked = []
    exact = margin.sums

    def noted(state: State, subaccount: Subaccount, *given: Any, **named: Any) -> margin.Sums:
        asked.append(subaccount)
        return exact(state, subaccount, *given, **named)

    monkeypatch.setattr(margin, "sums", noted)
    debts = {sol: (0, 0, 10**21, 0, 0)}
    poor = accounts.add({usdc: (0, 0, 0, 0, 0), **debts}, 10 * RATE_SCALE)
    sums = exact(state, poor, accounts.at_us)
    needed = (sums.maintenance - sums.equity) // 100
    for held in (needed + needed // 10**6 + 2, needed * 2, needed * 100):
        accounts.add({usdc: (held, 0, 0, 0, 0), **debts}, 10 * RATE_SCALE)
    accounts.add({usdc: (0, 0, 0, 0, 0)}, 10 * RATE_SCALE)
    accounts.add({usdc: (5, 0, 0, 0, 0)}, 10 * RATE_SCALE)
    assert [number for number, _sums in Columns(state).in_liquidation(accounts.at_us)] == [poor.subaccount_id]
    assert asked == [poor]


def test_other_marks_stand_in_for_the_states(monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = Accounts(Random(5))
    for _ in range(300):
        accounts.add(accounts.some(), 10 * RATE_SCALE)
    swept = Columns(accounts.state)
    before = swept.in_liquidation(accounts.at_us)
    halved = {asset_id: mark // 2 for asset_id, mark in accounts.state.marks.items()}
    found = swept.in_liquidation(accounts.at_us, halved)
    assert found == one_by_one(accounts.state, accounts.at_us, halved) != before


def test_yield_of_closed_periods_counts_in_the_exact_answer() -> None:
    accounts = Accounts(Random(2), assets=6)
    state, sol = accounts.state, accounts.exchange.asset("SOL")
    state.marks[sol] = 150 * PRICE_SCALE
    subaccount = accounts.add({1: (0, 0, 0, 0, 0), sol: (0, 0, 10**21, 0, 0)}, 10 * RATE_SCALE)
    swept = Columns(state)
    assert [number for number, _sums in swept.in_liquidation(accounts.at_us)] == [subaccount.subaccount_id]
    # 10^30 atoms-carry: more uncollected USDC than the debt is worth.
    state.has_yields = True
    state.pools[1].rate_prefix = 1
    subaccount.share_times[1] = ShareTime(0, 0, 0, 0, 10**27 * 10**15)
    assert swept.in_liquidation(accounts.at_us) == one_by_one(state, accounts.at_us) == []


def settle(state: State, swept: Columns) -> None:
    """What a settlement tick does to accounts in settled mode that have the USDC: gains become USDC."""
    costs: dict[int, dict[int, int]] = {}
    usdc: dict[int, int] = {}
    for number, subaccount in state.subaccounts.items():
        gains = [margin.unrealized_atoms(held) for held in subaccount.positions.values()]
        gained = sum(gains)
        # What int64 does not hold is not a batch's.
        if not subaccount.auto_realize_pnl or max(map(abs, [*gains, gained])) >= 2**60:
            continue
        if state.held(number, 1) + gained < 0:
            continue
        usdc[number] = -gained
        for market_id, held in subaccount.positions.items():
            costs.setdefault(market_id, {})[number] = margin.unrealized_atoms(held)
    for number, atoms in usdc.items():
        key = available(number) << ASSET_BITS | 1
        state.balances[key] = state.balances.get(key, 0) + atoms
    batches = [PostingBatch.of(AccountKind.AVAILABLE, 1, sorted(usdc), [usdc[each] for each in sorted(usdc)])]
    for market_id, moved in costs.items():
        for number, atoms in moved.items():
            state.subaccounts[number].positions[market_id].cost -= atoms
        owners = sorted(moved)
        batches.append(PostingBatch.of(AccountKind.POSITION, cost(market_id), owners, [moved[each] for each in owners]))
    outcome = Outcome(1, 0)
    outcome.journal.append(JournalTransaction(JournalKind.SETTLEMENT, (), [], tuple(batches)))
    swept.note(outcome)


# --- the columns follow the commands ------------------------------------------------------------------------------


def test_rows_follow_every_command_that_touches_them() -> None:
    """Random trading with loans, settings, transfers and a reversed deposit; the columns are noted as it goes."""
    for seed in range(6):
        exchange = Exchange()
        run = _Run(exchange, Random(seed))
        swept = Columns(exchange.state)
        swept.refresh()
        done = len(exchange.outcomes)
        for _ in range(40):
            run.step()
            for outcome in exchange.outcomes[done:]:
                swept.note(outcome)
            done = len(exchange.outcomes)
            fresh = Columns(exchange.state)
            swept.refresh()
            fresh.refresh()
            assert content(swept) == content(fresh)
            assert sorted(swept.uncounted) == sorted(fresh.uncounted)
            require_bounds(swept, exchange.at_us)
            assert swept.in_liquidation(exchange.at_us) == one_by_one(exchange.state, exchange.at_us)
        assert run.accepted > 15


def test_a_quiet_row_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange()
    for name in ("anna", "ben", "carl"):
        exchange.deposit(exchange.user(name)[0], "USDC", 10 * USDC)
    swept = Columns(exchange.state)
    swept.refresh()
    before = len(exchange.outcomes)
    exchange.deposit(2, "USDC", USDC)
    for outcome in exchange.outcomes[before:]:
        swept.note(outcome)
    read = []
    monkeypatch.setattr(columns, "available", lambda number: read.append(number) or available(number))
    swept.refresh()
    swept.refresh()
    assert read == [2]


@given(st.integers(0, 18), st.integers(1, 10**9), st.integers(1, 10**10), st.integers(0, 10**9))
def test_the_weight_is_flat_up_to_exactly_there(decimals: int, weight: int, base: int, penalty: int) -> None:
    unit = 10**decimals
    most = flat_atoms(unit, weight, base, penalty)
    if most >= 0:
        assert weight_at(most, unit, weight, base, penalty) == weight
    if most < 10**36:
        assert weight_at(most + 1, unit, weight, base, penalty) < weight


def content(swept: Columns) -> dict[tuple[str, int, int], float]:
    """(asset or market, what, row) → what stands there, what is 0 left out."""
    found: dict[tuple[str, int, int], Any] = {}
    rows = swept._all
    for asset_id, columns_of in rows.assets.items():
        found |= {("asset", asset_id, kind): column for kind, column in enumerate(columns_of.kinds)}
        found["exact", asset_id, 0] = columns_of.exact
    found |= {("lots", market_id, 0): column for market_id, column in rows.lots.items()}
    found |= {("costs", 0, 0): rows.costs, ("unsettled", 0, 0): rows.unsettled, ("settles", 0, 0): rows.settles}
    found |= {("claims", 0, 0): rows.claims, ("owed claims", 0, 0): rows.negative_claims}
    return {
        (f"{name} {number} {kind}", int(row), 0): float(column[row])
        for (name, number, kind), column in found.items()
        if column is not None
        for row in column.nonzero()[0]
    }


class _Run:
    """Five traders who lend, borrow and trade SOL against USDC."""

    def __init__(self, exchange: Exchange, random: Random) -> None:
        self.exchange, self.random = exchange, random
        self.usdc, self.sol = exchange.asset("USDC"), exchange.asset("SOL")
        self.market = exchange.market("SOL_USDC")
        exchange.do(SetPrices(((self.sol, 100 * PRICE_SCALE),)))
        self.traders = []
        for number in range(5):
            trader = exchange.user(f"trader {number}")
            self.traders.append(trader)
            exchange.deposit(trader[0], "USDC", 10_000 * USDC)
            if number < 3:
                exchange.deposit(trader[0], "SOL", 100 * SOL, tx_id=f"deposit {number}", final=number > 0)
        for number in (0, 1):
            for asset_id, atoms in ((self.usdc, 5_000 * USDC), (self.sol, 50 * SOL)):
                self.send(number, BorrowLend(self.traders[number][0], asset_id, LendingSide.LEND, atoms))
        self.accepted = 0

    def step(self) -> None:
        random, exchange = self.random, self.exchange
        dice = random.random()
        if dice < 0.1:
            exchange.do(SetPrices(((self.sol, random.randint(70, 140) * PRICE_SCALE),)))
        elif dice < 0.15:
            exchange.advance(random.choice([1, 60, 4_000]))
        elif dice < 0.18:
            for reversal in (OrphanDeposit, ReverseDeposit):
                exchange.attempt(reversal(1, "deposit 0", 0))
        else:
            number = random.randrange(5)
            self.send(number, self.command(self.traders[number][0]))

    def command(self, subaccount: int) -> Command:
        random = self.random
        dice = random.random()
        if dice < 0.3:
            asset_id = random.choice([self.usdc, self.sol])
            unit = USDC if asset_id == self.usdc else SOL // 100
            side = random.choice(list(LendingSide))
            return BorrowLend(subaccount, asset_id, side, random.randint(1, 3_000) * unit)
        if dice < 0.4:
            leverage = random.choice([1, 2, 5, 10]) * RATE_SCALE
            return UpdateAccount(subaccount, auto_lend=random.random() < 0.3, leverage_limit=leverage)
        if dice < 0.5:
            target = self.exchange.state.users[1].subaccount_ids[0]
            return Transfer(subaccount, target, self.usdc, random.randint(1, 100) * USDC)
        orders = self.exchange.state.subaccounts[subaccount].orders
        if dice < 0.6 and orders:
            return CancelOrder(subaccount, self.market, order_id=random.choice(list(orders)))
        side = random.choice([Side.BID, Side.ASK])
        return self.order(subaccount, side, random.randint(9_500, 10_500), borrows=random.random() < 0.6)

    def order(self, subaccount: int, side: Side, price_ticks: int, *, borrows: bool) -> PlaceOrder:
        random = self.random
        return PlaceOrder(
            subaccount,
            self.market,
            side,
            OrderType.LIMIT,
            price_ticks=price_ticks,
            lots=random.randint(1, 4_000),
            auto_borrow=borrows,
            auto_lend_redeem=borrows,
            auto_borrow_repay=random.random() < 0.5,
        )

    def send(self, number: int, command: Command) -> None:
        exchange = self.exchange
        exchange.at_us += 1_000
        outcome = exchange.attempt(command, exchange.signed(self.traders[number][1]))
        self.accepted = getattr(self, "accepted", 0) + (outcome.rejection is None)
