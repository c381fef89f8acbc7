"""Extra yields: pro rata to share-time, collected late or early, all accounted for.   [Y-1, Y-2, Y-3, C-3, B-14]"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import clock, lending, margin, snapshot, yields
from engine.commands import (
    BorrowLend,
    CloseYieldPeriod,
    Command,
    ConfigureAsset,
    FundCustody,
    LendingSide,
    OpenSubaccount,
    OrderType,
    PlaceOrder,
    ReceiveYield,
    SetPrices,
    Side,
    StakeAssets,
    Transfer,
    UnstakeAssets,
    UpdateAccount,
)
from engine.events import LendingMoved, Outcome, YieldCollected, YieldShared
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE
from engine.rejections import RejectReason
from engine.state import ASSET_BITS, Pool, Subaccount
from ledger.chart import HOT_WALLET, POOL_YIELD, AccountKind, account_id, custody_account, lend_share, lent
from ledger.journal import JournalKind
from tests.engine.exchange import START_US, Exchange

HOUR_MS = 3_600_000
SOL = 10**9
CHAIN = 1
NAMES = ("anna", "bert", "cora")


class Market:
    """SOL's money market with hourly yield periods, time in ms since a period began, and its lenders by name."""

    def __init__(self, *names: str, start_ms: int = 0) -> None:
        self.exchange = Exchange()
        self.state = self.exchange.state
        self.sol = self.exchange.asset("SOL")
        self.began_us = (START_US // 3_600_000_000 + 1) * 3_600_000_000
        self.exchange.at_us = self.began_us + start_ms * 1_000
        asset = self.state.assets[self.sol]
        assert asset.lending is not None
        hourly = msgspec.structs.replace(asset.lending, yield_period_ms=HOUR_MS)
        self.exchange.do(ConfigureAsset(msgspec.structs.replace(asset, lending=hourly)))
        self.keys: dict[str, tuple[int, bytes]] = {}
        for name in names:
            self.join(name)

    def join(self, name: str, atoms: int = 10**15) -> None:
        self.keys[name] = self.exchange.user(name)
        self.exchange.deposit(self.keys[name][0], "SOL", atoms)

    @property
    def pool(self) -> Pool:
        return self.state.pools[self.sol]

    @property
    def now_ms(self) -> int:
        return (self.exchange.at_us - self.began_us) // 1_000

    def subaccount(self, name: str) -> Subaccount:
        return self.state.subaccounts[self.keys[name][0]]

    def does(self, name: str, command: Command) -> Outcome:
        return self.exchange.do(command, self.exchange.signed(self.keys[name][1]))

    def lends(self, name: str, atoms: int) -> Outcome:
        return self.does(name, BorrowLend(self.keys[name][0], self.sol, LendingSide.LEND, atoms))

    def redeems(self, name: str, atoms: int = 0) -> Outcome:
        """`atoms`, or all of it."""
        atoms = atoms or self.claim(name)
        return self.does(name, BorrowLend(self.keys[name][0], self.sol, LendingSide.BORROW, atoms))

    def touch(self, name: str) -> Outcome:
        return self.does(name, UpdateAccount(self.keys[name][0]))

    def reward(self, atoms: int) -> Outcome:
        return self.exchange.do(ReceiveYield(self.sol, CHAIN, atoms, "reward", "staking"))

    def until(self, ms: int) -> list[Outcome]:
        """Let exchange time run to `ms` after the beginning, with everything that falls due on the way."""
        target_us, ran = self.began_us + ms * 1_000, []
        while (next_due := clock.due(self.state, target_us)) is not None:
            self.exchange.at_us, command = next_due
            ran.append(self.exchange.do(command))
        self.exchange.at_us = target_us
        return ran

    def claim(self, name: str) -> int:
        return lending.claim(self.state, self.subaccount(name), self.sol, self.exchange.at_us)

    def held(self, name: str) -> int:
        return self.state.held(self.keys[name][0], self.sol)

    def shares(self, name: str) -> int:
        return -self.state.balances.get(lent(self.keys[name][0]) << ASSET_BITS | lend_share(self.sol), 0)

    def uncollected(self, name: str) -> int:
        return yields.uncollected(self.state, self.subaccount(name), self.sol)

    def balance(self, account: int) -> int:
        return self.state.balances.get(account << ASSET_BITS | self.sol, 0)

    def collected(self, name: str) -> int:
        number = self.keys[name][0]
        return sum(
            event.atoms
            for outcome in self.exchange.outcomes
            for event in outcome.events
            if isinstance(event, YieldCollected) and event.subaccount_id == number
        )

    def owed(self) -> Fraction:
        """What POOL_YIELD must hold: pending, residue, and every lender's exact part of closed periods."""
        total = Fraction(self.pool.pending_yield) + Fraction(self.pool.residue, yields.RATE_ONE)
        for name in self.keys:
            time = self.subaccount(name).share_times.get(self.sol)
            if time is None:
                continue
            rate = self.pool.period_rates.get(time.period, 0)
            whole = sum(each for period, each in self.pool.period_rates.items() if period > time.period)
            total += Fraction(time.carry, yields.RATE_ONE)
            if rate or whole:
                own = time.share_ms + self.shares(name) * ((time.period + 1) * HOUR_MS - time.since_ms)
                total += Fraction(own * rate + self.shares(name) * HOUR_MS * whole, yields.RATE_ONE)
        return total


def part(reward: int, weight: int, total: int) -> int:
    """Y-3 by hand: ρ rounded down at 1e-27, then whole atoms of it."""
    return weight * (reward * 10**27 // total) // 10**27


# --- share-time -------------------------------------------------------------------------------------------------


def test_a_yield_is_paid_pro_rata_to_share_time() -> None:
    market = Market("anna", "bert")
    market.lends("anna", 3 * SOL)
    market.until(HOUR_MS // 2)
    market.lends("bert", 6 * SOL)
    market.reward(1_000)
    (shared,) = [event for each in market.until(HOUR_MS) for event in each.events if isinstance(event, YieldShared)]

    each, total = 3 * 10**18 * HOUR_MS, 6 * 10**18 * HOUR_MS
    assert shared.atoms == part(1_000, total, total)
    assert market.uncollected("anna") == market.uncollected("bert") == part(1_000, each, total)
    assert market.pool.pending_yield == 0


def test_lending_one_second_before_the_end_earns_one_second() -> None:
    market = Market("anna", "late")
    market.lends("anna", SOL)
    market.reward(3_600_000)
    market.until(HOUR_MS - 1_000)
    market.lends("late", SOL)
    market.until(HOUR_MS)
    market.redeems("late")

    exact = Fraction(3_600_000, 3_601)
    assert 0 <= exact - market.collected("late") < 1
    assert 0 <= exact * 3_600 - market.uncollected("anna") < 1


def test_lending_at_the_instant_of_the_end_earns_nothing() -> None:
    market = Market("anna", "late")
    market.lends("anna", SOL)
    market.reward(1_000)
    market.until(HOUR_MS)
    market.lends("late", 1_000 * SOL)

    assert market.uncollected("late") == 0
    assert market.uncollected("anna") == part(1_000, HOUR_MS * 10**18, HOUR_MS * 10**18)


def test_who_leaves_before_the_end_is_paid_for_the_time_it_lent() -> None:
    market = Market("anna", "bert")
    market.lends("anna", SOL)
    market.lends("bert", SOL)
    market.until(HOUR_MS // 2)
    market.redeems("bert")
    market.reward(3_000)
    market.until(HOUR_MS + 5)

    assert market.uncollected("bert") == part(3_000, HOUR_MS // 2 * 10**18, HOUR_MS * 3 // 2 * 10**18)
    held = market.held("bert")
    market.touch("bert")
    assert market.held("bert") - held == market.collected("bert") > 0
    assert market.uncollected("bert") == 0


def test_who_leaves_in_two_steps_is_paid_for_both_stretches() -> None:
    market = Market("anna", "bert")
    market.lends("anna", SOL)
    market.lends("bert", 2 * SOL)
    for _step in range(2):
        market.until(market.now_ms + HOUR_MS // 4)
        market.redeems("bert", SOL)
    market.reward(7_000)
    market.until(HOUR_MS)

    quarter = HOUR_MS // 4 * 10**18
    assert market.uncollected("bert") == part(7_000, 3 * quarter, 7 * quarter) == 2_999


def test_shares_that_pass_between_subaccounts_keep_each_ones_time() -> None:
    market = Market()
    market.join("anna", 100 * SOL)
    number, _key = market.keys["anna"]
    user_id = market.subaccount("anna").user.user_id
    other = market.does("anna", OpenSubaccount(user_id, bytes(range(32)))).reply.subaccount_id
    market.keys["second"] = (other, bytes(range(32)))
    market.lends("anna", 100 * SOL)
    market.until(HOUR_MS // 4)
    market.does("anna", Transfer(number, other, market.sol, 100 * SOL))
    market.reward(4_000)
    market.until(HOUR_MS)

    assert market.claim("anna") == 0 and market.claim("second") == 100 * SOL
    quarter = HOUR_MS // 4 * 100 * 10**18
    assert market.uncollected("anna") == part(4_000, quarter, 4 * quarter)
    assert market.uncollected("second") == part(4_000, 3 * quarter, 4 * quarter)


# --- periods ------------------------------------------------------------------------------------------------------


def test_a_yield_that_nobody_lent_for_waits_for_the_next_lenders() -> None:
    market = Market("anna")
    market.reward(500)
    assert not [event for each in market.until(3 * HOUR_MS) for event in each.events if isinstance(event, YieldShared)]
    market.until(3 * HOUR_MS + 10)
    market.lends("anna", SOL)
    market.until(4 * HOUR_MS)

    weight = (HOUR_MS - 10) * 10**18
    assert market.uncollected("anna") == part(500, weight, weight)


def test_a_period_without_a_yield_needs_no_tick_and_counts_for_nothing() -> None:
    market = Market("anna", "bert")
    market.lends("anna", SOL)
    ran = market.until(5 * HOUR_MS)
    market.lends("bert", SOL)
    market.reward(100)
    market.until(6 * HOUR_MS)

    assert not [event for each in ran for event in each.events if isinstance(event, YieldShared)]
    assert market.uncollected("anna") == market.uncollected("bert") == part(100, HOUR_MS * 10**18, 2 * HOUR_MS * 10**18)


def test_periods_that_passed_untouched_are_collected_at_once() -> None:
    market = Market("anna")
    market.lends("anna", SOL)
    for hour in range(1, 6):
        market.reward(100)
        market.until(hour * HOUR_MS)
    market.until(5 * HOUR_MS + 1)
    outcome = market.lends("anna", SOL)

    assert market.collected("anna") == 499
    assert 0 < market.pool.residue < yields.RATE_ONE
    entries = [entry for entry in outcome.journal if entry.kind == JournalKind.YIELD_COLLECTED]
    assert len(entries) == 1


def test_collecting_often_gives_the_same_atoms_as_collecting_once() -> None:
    """Ten yields of 10 among three: each tenth is 3 and a third, ten of them are 33."""
    market = Market(*NAMES)
    for name in NAMES:
        market.lends(name, SOL)
    for hour in range(1, 11):
        market.reward(10)
        market.until(hour * HOUR_MS)
        market.touch("anna")
    for name in NAMES:
        market.touch(name)

    assert [market.collected(name) for name in NAMES] == [33, 33, 33]


def test_the_residue_of_a_division_goes_to_the_next_yield() -> None:
    """10^6 SOL for an hour is 3.6 · 10^30 share-ms: ρ has steps of 3,600 atoms."""
    market = Market("anna")
    market.lends("anna", 10**6 * SOL)
    market.reward(3_599)
    market.until(HOUR_MS)
    assert (market.uncollected("anna"), market.pool.residue) == (0, 3_599 * yields.RATE_ONE)
    market.reward(1)
    market.until(2 * HOUR_MS)

    assert (market.uncollected("anna"), market.pool.residue) == (3_600, 0)


def test_a_period_closes_before_interest_and_the_epoch() -> None:
    market = Market("anna")
    market.lends("anna", SOL)
    market.reward(1)
    market.until(HOUR_MS - 1)
    order = []
    while (next_due := clock.due(market.state, market.began_us + HOUR_MS * 1_000)) is not None:
        market.exchange.at_us, command = next_due
        market.exchange.do(command)
        order.append((type(command).__name__, market.now_ms))

    assert [name for name, at_ms in order if at_ms == HOUR_MS] == [
        "CloseYieldPeriod", "AccrueInterest", "UpdateThrottle", "CloseEpoch"
    ]  # fmt: skip


def test_only_the_running_period_closes_and_only_when_it_is_due() -> None:
    market = Market("anna")
    market.lends("anna", SOL)
    market.reward(1)
    period = market.pool.period

    for number in (period, period - 1, period + 1):
        rejection = market.exchange.attempt(CloseYieldPeriod(market.sol, number)).rejection
        assert rejection is not None and rejection.reason == RejectReason.TICK_OUT_OF_ORDER


def test_the_length_of_a_period_stays_from_the_first_loan_on() -> None:
    market = Market("anna")
    asset = market.state.assets[market.sol]
    assert asset.lending is not None
    weekly = ConfigureAsset(
        msgspec.structs.replace(asset, lending=msgspec.structs.replace(asset.lending, yield_period_ms=168 * HOUR_MS))
    )
    market.exchange.do(weekly)
    market.exchange.do(ConfigureAsset(asset))
    market.lends("anna", SOL)
    market.redeems("anna")
    rejection = market.exchange.attempt(weekly).rejection

    assert rejection is not None and rejection.reason == RejectReason.IMMUTABLE_PARAMETER


def test_what_autolend_collects_is_lent_at_once() -> None:
    market = Market("anna", "bert")
    market.lends("bert", SOL)
    market.does("anna", UpdateAccount(market.keys["anna"][0], auto_lend=True))
    market.reward(10**6)
    market.until(HOUR_MS)
    claim = market.claim("anna")
    market.exchange.deposit(market.keys["anna"][0], "SOL", 1)

    assert market.collected("anna") > 900_000
    assert (market.held("anna"), market.claim("anna")) == (0, claim + 1 + market.collected("anna"))


def test_a_fill_that_redeems_collects_first() -> None:
    market = Market("anna", "bert")
    exchange, spot = market.exchange, market.exchange.market("SOL_USDC")
    exchange.do(SetPrices(((market.sol, 150 * PRICE_SCALE), (exchange.asset("USDC"), PRICE_SCALE))))
    exchange.deposit(market.keys["bert"][0], "USDC", 10**12)
    market.lends("anna", market.held("anna"))
    market.reward(10**9)
    market.until(HOUR_MS)
    owed, claim = market.uncollected("anna"), market.claim("anna")
    bid = PlaceOrder(market.keys["bert"][0], spot, Side.BID, OrderType.LIMIT, price_ticks=15_000, lots=10)
    market.does("bert", bid)
    limit = OrderType.LIMIT
    sale = PlaceOrder(market.keys["anna"][0], spot, Side.ASK, limit, price_ticks=15_000, lots=10, auto_lend_redeem=True)
    outcome = market.does("anna", sale)

    assert [entry.kind for entry in outcome.journal] == [JournalKind.YIELD_COLLECTED, JournalKind.TRADE]
    assert owed == market.collected("anna") == market.held("anna") > 0
    assert market.claim("anna") == claim - SOL // 10


def test_genesis_says_how_much_is_staked_and_how_long_periods_are() -> None:
    state = Exchange().state
    lending_of = {asset.symbol: asset.lending for asset in state.assets.values() if asset.lending is not None}
    days = {symbol: parameters.yield_period_ms // 86_400_000 for symbol, parameters in lending_of.items()}
    shares = {symbol: parameters.staked_share for symbol, parameters in lending_of.items() if parameters.staked_share}

    assert (days["SOL"], days["USDC"], days["USDT"]) == (7, 30, 30)
    assert shares == {"SOL": RATE_SCALE // 2}


# --- what it is worth meanwhile -------------------------------------------------------------------------------------


def test_uncollected_yield_counts_at_weight_one() -> None:
    market = Market("anna")
    market.exchange.do(SetPrices(((market.sol, 200 * PRICE_SCALE),)))
    market.lends("anna", 10 * SOL)
    before = margin.sums(market.state, market.subaccount("anna"), market.exchange.at_us)
    market.reward(2 * SOL)
    market.until(HOUR_MS)
    atoms = market.uncollected("anna")
    after = margin.sums(market.state, market.subaccount("anna"), market.exchange.at_us)
    (line,) = margin.holdings(market.state, market.subaccount("anna"), market.exchange.at_us)

    assert atoms in (2 * SOL, 2 * SOL - 1)
    assert after.equity - before.equity == line.uncollected_value == atoms * 200 * USD_SCALE // SOL
    assert line.uncollected == atoms


def test_a_former_lender_keeps_its_equity_through_a_snapshot() -> None:
    market = Market("bert")
    market.join("anna", SOL)
    number = market.keys["anna"][0]
    market.exchange.do(SetPrices(((market.sol, 200 * PRICE_SCALE),)))
    market.lends("bert", SOL)
    market.lends("anna", SOL)
    opened = market.does("anna", OpenSubaccount(market.subaccount("anna").user.user_id, bytes(range(32))))
    market.until(HOUR_MS // 2)
    market.redeems("anna")
    market.does("anna", Transfer(number, opened.reply.subaccount_id, market.sol, SOL))
    market.reward(3 * SOL)
    market.until(HOUR_MS)
    content = snapshot.dump(market.state)
    loaded = snapshot.load(content)

    assert snapshot.dump(loaded) == content
    assert (loaded.has_yields, loaded.yield_due_us) == (market.state.has_yields, market.state.yield_due_us)
    for state in (market.state, loaded):
        anna = state.subaccounts[number]
        atoms = yields.uncollected(state, anna, market.sol)
        assert atoms == part(3 * SOL, HOUR_MS // 2 * 10**18, HOUR_MS * 3 // 2 * 10**18)
        assert margin.sums(state, anna, market.exchange.at_us).equity == atoms * 200 * USD_SCALE // SOL


# --- staking --------------------------------------------------------------------------------------------------------


@pytest.fixture
def staking_market() -> Market:
    """100 SOL lent, half may be staked; 80 SOL in the hot wallet."""
    market = Market("anna")
    market.lends("anna", 100 * SOL)
    market.exchange.do(FundCustody(CHAIN, "seed", HOT_WALLET, market.sol, 80 * SOL))
    return market


def stake(market: Market, atoms: int, chain_id: int = CHAIN) -> RejectReason | None:
    rejection = market.exchange.attempt(StakeAssets(market.sol, chain_id, atoms, "stake")).rejection
    return None if rejection is None else rejection.reason


def unstake(market: Market, atoms: int) -> RejectReason | None:
    rejection = market.exchange.attempt(UnstakeAssets(market.sol, CHAIN, atoms, "unstake")).rejection
    return None if rejection is None else rejection.reason


def test_staking_moves_coins_and_lowers_idle(staking_market: Market) -> None:
    market = staking_market
    idle = lending.totals(market.state, market.pool, market.exchange.at_us).idle
    assert stake(market, 50 * SOL) is None

    assert market.balance(account_id(AccountKind.STAKED, CHAIN)) == 50 * SOL
    assert market.balance(custody_account(CHAIN, HOT_WALLET)) == 30 * SOL
    assert lending.totals(market.state, market.pool, market.exchange.at_us).idle == idle - 50 * SOL
    assert snapshot.load(snapshot.dump(market.state)).pools[market.sol].staked == 50 * SOL
    assert unstake(market, 20 * SOL) is None
    assert lending.totals(market.state, market.pool, market.exchange.at_us).idle == idle - 30 * SOL


def test_no_more_than_the_staked_share_is_staked(staking_market: Market) -> None:
    assert stake(staking_market, 50 * SOL + 1) == RejectReason.STAKED_LIMIT
    assert stake(staking_market, 50 * SOL) is None
    assert stake(staking_market, 1) == RejectReason.STAKED_LIMIT


def test_only_what_the_hot_wallet_holds_and_the_pool_has_idle_is_staked(staking_market: Market) -> None:
    market = staking_market
    asset = market.state.assets[market.sol]
    assert asset.lending is not None
    all_of_it = msgspec.structs.replace(asset.lending, staked_share=RATE_SCALE)
    market.exchange.do(ConfigureAsset(msgspec.structs.replace(asset, lending=all_of_it)))

    assert stake(market, 80 * SOL + 1) == RejectReason.INSUFFICIENT_FUNDS
    assert stake(market, 80 * SOL) is None
    market.exchange.do(FundCustody(CHAIN, "more", HOT_WALLET, market.sol, 80 * SOL))
    assert stake(market, 20 * SOL + 1) == RejectReason.STAKED_LIMIT


def test_what_is_staked_cannot_be_redeemed(staking_market: Market) -> None:
    market = staking_market
    assert stake(market, 50 * SOL) is None
    number, key = market.keys["anna"]
    command = BorrowLend(number, market.sol, LendingSide.BORROW, 60 * SOL)
    rejection = market.exchange.attempt(command, market.exchange.signed(key)).rejection

    assert rejection is not None and rejection.reason == RejectReason.INSUFFICIENT_SUPPLY
    market.redeems("anna", 50 * SOL)


def test_lowering_the_staked_share_to_nothing_does_not_make_staked_coins_idle(staking_market: Market) -> None:
    market = staking_market
    assert stake(market, 50 * SOL) is None
    asset = market.state.assets[market.sol]
    assert asset.lending is not None
    nothing = msgspec.structs.replace(asset.lending, staked_share=0)
    market.exchange.do(ConfigureAsset(msgspec.structs.replace(asset, lending=nothing)))

    assert lending.totals(market.state, market.pool, market.exchange.at_us).staked == 50 * SOL


@pytest.mark.parametrize("atoms", [0, -1, 1 << 63])
def test_bad_quantities_are_refused(staking_market: Market, atoms: int) -> None:
    market = staking_market
    rejection = market.exchange.attempt(ReceiveYield(market.sol, CHAIN, atoms, "tx", "staking")).rejection

    assert stake(market, atoms) == unstake(market, atoms) == RejectReason.INVALID_QUANTITY
    assert rejection is not None and rejection.reason == RejectReason.INVALID_QUANTITY


def test_what_does_not_exist_is_refused(staking_market: Market) -> None:
    market = staking_market
    assert stake(market, SOL, chain_id=77) == RejectReason.UNKNOWN_TOKEN
    assert unstake(market, SOL) == RejectReason.INSUFFICIENT_FUNDS
    rejection = market.exchange.attempt(ReceiveYield(market.sol, CHAIN, 1, "tx", "alchemy")).rejection
    assert rejection is not None and rejection.reason == RejectReason.INVALID_PARAMETERS


# --- any history ----------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """Who lent which shares when, in exact rationals: every yield pro rata to share-ms of its period.   [Y-3, U-2]"""

    weights: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    paid: dict[str, Fraction] = field(default_factory=lambda: dict.fromkeys(NAMES, Fraction(0)))
    pending: int = 0
    slack: Fraction = Fraction(1)
    """How far the engine's atoms may be away: one for rounding, and what ρ, rounded down, moves between periods."""

    def passes(self, market: Market, until_ms: int) -> None:
        """Holdings stay as they are until then."""
        now_ms = market.now_ms
        while now_ms < until_ms:
            end_ms = min(until_ms, (now_ms // HOUR_MS + 1) * HOUR_MS)
            for name in NAMES:
                self.weights[name] += market.shares(name) * (end_ms - now_ms)
            now_ms = end_ms
            if now_ms % HOUR_MS == 0:
                self.ends()

    def ends(self) -> None:
        total = sum(self.weights.values())
        if total and self.pending:
            for name, weight in self.weights.items():
                self.paid[name] += Fraction(self.pending * weight, total)
            self.pending = 0
            self.slack += Fraction(total, yields.RATE_ONE)
        self.weights = dict.fromkeys(NAMES, 0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lend"), st.sampled_from(NAMES), st.integers(1, 10**6)),
        st.tuples(st.just("redeem"), st.sampled_from(NAMES), st.integers(1, 10**6)),
        st.tuples(st.just("leave"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("reward"), st.just(""), st.integers(1, 10**6)),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 2 * HOUR_MS)),
        st.tuples(st.just("wait"), st.just(""), st.just(HOUR_MS)),
        st.tuples(st.just("touch"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("pass"), st.just("anna"), st.integers(1, 10**6)),
        st.tuples(st.just("pass"), st.just("bert"), st.integers(1, 10**6)),
    ),
    min_size=5,
    max_size=40,
)


def live(steps: list[tuple[str, str, int]], *, is_restless: bool, model: Model) -> Market:
    """Play the steps, with bert as anna's second subaccount; restless: everybody is touched after each.

    Ends with everything closed and collected.
    """
    market = Market("anna", "cora")
    opened = market.does("anna", OpenSubaccount(market.subaccount("anna").user.user_id, bytes(range(32))))
    market.keys["bert"] = (opened.reply.subaccount_id, bytes(range(32)))
    market.exchange.deposit(market.keys["bert"][0], "SOL", 10**15)
    step_atoms = market.state.assets[market.sol].step_atoms
    end_ms = 0
    for what, name, number in [*steps, ("wait", "", HOUR_MS), *(("touch", name, 0) for name in NAMES)]:
        if what == "lend" and market.held(name) >= number * step_atoms:
            market.lends(name, number * step_atoms)
        elif what == "pass" and market.claim(name):
            # More than is available, so that lend shares pass.
            atoms = market.held(name) + min(number * step_atoms, market.claim(name))
            source, target = (market.keys[each][0] for each in ((name, "bert") if name == "anna" else (name, "anna")))
            market.does(name, Transfer(source, target, market.sol, atoms))
        elif what == "redeem" and market.claim(name):
            market.redeems(name, min(number * step_atoms, market.claim(name)))
        elif what == "leave" and market.claim(name):
            market.redeems(name)
        elif what == "reward":
            market.reward(number)
            model.pending += number
        elif what == "wait":
            end_ms = market.now_ms + number
            model.passes(market, end_ms)
            market.until(end_ms)
        elif what == "touch":
            market.touch(name)
        for each in NAMES if is_restless else ():
            market.touch(each)
        received = sum(number for what, _name, number in steps if what == "reward")
        assert -market.balance(POOL_YIELD) == market.owed() <= received
    return market


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_pay_outs_are_pro_rata_whoever_is_touched_when(steps: list[tuple[str, str, int]]) -> None:
    model = Model()
    market = live(steps, is_restless=False, model=model)
    restless = live(steps, is_restless=True, model=Model())

    for name in NAMES:
        assert market.uncollected(name) == 0
        assert market.collected(name) == restless.collected(name)
        assert abs(market.collected(name) - model.paid[name]) < model.slack
    assert market.pool.pending_yield == restless.pool.pending_yield == model.pending
    assert (market.pool.residue, market.pool.period_rates) == (restless.pool.residue, restless.pool.period_rates)


@settings(max_examples=50, deadline=None)
@given(STEPS)
def test_a_snapshot_at_the_end_of_any_history_goes_on_alike(steps: list[tuple[str, str, int]]) -> None:
    market = live(steps, is_restless=False, model=Model())
    content = snapshot.dump(market.state)
    loaded = snapshot.load(content)

    assert snapshot.dump(loaded) == content
    assert loaded.yield_due_us == market.state.yield_due_us and loaded.has_yields == market.state.has_yields
    moved = [event for each in market.exchange.outcomes for event in each.events if isinstance(event, LendingMoved)]
    assert bool(moved) == (market.pool.period >= 0)
