"""Debts that nobody buys back: lenders get their value at the frozen mark, latecomers nothing.   [L-7, L-9]"""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine import bankruptcy, insurance, lending, liquidation, margin, recoveries, snapshot
from engine.commands import (
    BorrowLend,
    CancelAllOrders,
    LendingSide,
    OrderType,
    PlaceOrder,
    Side,
    TimeInForce,
    UpdateAccount,
)
from engine.events import LiquidationChanged
from engine.outcome import Outcome
from engine.parameters import PRICE_SCALE
from engine.posting import post
from engine.state import Liquidation, State, Subaccount
from ledger.chart import POOL_YIELD, available, unsettled
from ledger.invariants import RunningTotals
from ledger.journal import JournalKind, seal
from tests.engine.ladder import Arena, Member, entries, is_whole, parts
from tests.engine.perps import USDC

SOL = 10**9


def lends(member: Member, atoms: int, symbol: str = "SOL") -> None:
    member.does(BorrowLend(member.subaccount, member.desk.exchange.asset(symbol), LendingSide.LEND, atoms))


def redeems(member: Member, atoms: int, symbol: str = "SOL") -> None:
    member.does(BorrowLend(member.subaccount, member.desk.exchange.asset(symbol), LendingSide.BORROW, atoms))


def shorts(member: Member, buyer: Member, sol: int, price: int = 150) -> None:
    """Sell borrowed SOL on the spot market: `member` owes them and has their price."""
    market = member.desk.exchange.market("SOL_USDC")
    lots, ticks = sol * 100, price * 100
    buyer.does(PlaceOrder(buyer.subaccount, market, Side.BID, OrderType.LIMIT, price_ticks=ticks, lots=lots))
    order = PlaceOrder(
        member.subaccount, market, Side.ASK, OrderType.LIMIT, price_ticks=ticks, lots=lots, auto_borrow=True
    )
    member.does(order)


def lent_by(member: Member, symbol: str = "SOL") -> int:
    state = member.state
    return lending.claim(state, member.account, member.desk.exchange.asset(symbol), member.desk.exchange.at_us)


def gives(arena: Arena, source: Member, target: Member, atoms: int) -> None:
    """SOL change hands, as in a trade whose other leg is not looked at."""
    out = Outcome(arena.state.sequence, arena.exchange.at_us)
    legs = [(available(source.subaccount), arena.base, atoms), (available(target.subaccount), arena.base, -atoms)]
    post(arena.state, out, JournalKind.TRANSFER, (), legs)
    arena.exchange.outcomes.append(out)


def write_down(arena: Arena, member: Member) -> Outcome:
    """The step in which the account is bankrupt and nobody takes it."""
    done, outcome = arena.step(bankruptcy.settle_debts, member)
    assert done
    return outcome


def short_squeeze(insured: int = 0, lenders: int = 1, to: int = 400) -> tuple[Arena, list[Member], Member]:
    """Lenders of 60 SOL, a borrower who sold 40 of them at 150 with 2,000 USDC behind it, and a price of `to`."""
    arena = Arena()
    people = [arena.member(f"lender{n}", 0, SOL=60 * SOL // lenders) for n in range(lenders)]
    for each in people:
        lends(each, 60 * SOL // lenders)
    buyer, short = arena.member("buyer", 100_000), arena.member("short", 2_000)
    shorts(short, buyer, 40)
    if insured:
        arena.insure(insured)
    arena.price(to)
    return arena, people, short


def test_lenders_get_the_value_at_the_mark_and_keep_the_rest_lent() -> None:
    arena, (lender,), short = short_squeeze(insured=20_000)
    mark = arena.state.marks[arena.base]
    owed = lending.debt(arena.state, short.account, arena.base, arena.exchange.at_us + 1)
    own, fund = short.usdc, arena.insurance
    assert arena.e(short) < 0

    outcome = write_down(arena, short)

    value = -(-owed * mark * USDC // (PRICE_SCALE * SOL))
    (entry,) = entries(outcome, JournalKind.DEBT_WRITTEN_DOWN)
    assert entry.memo[:6] == (short.subaccount, arena.base, owed, mark, value, value)
    assert short.usdc == 0 and not short.account.debts and arena.insurance == fund - (value - own)
    waiting = recoveries.uncollected(arena.state, lender.account)
    assert value - 1 <= waiting <= value
    assert 60 * SOL - owed <= lent_by(lender) <= 60 * SOL - owed + owed // 10**6
    assert not arena.state.holes and bankruptcy.recovery(arena.state, arena.base) == (value, value)
    assert [each.stage for each in parts(outcome, LiquidationChanged)][-1] == "debt"
    assert is_whole(arena)


def test_what_is_due_counts_as_equity_and_comes_with_the_next_touch() -> None:
    arena, (lender,), short = short_squeeze(insured=20_000)
    before = margin.sums(arena.state, lender.account, arena.exchange.at_us).equity
    weight = arena.state.assets[arena.base].weight
    write_down(arena, short)
    waiting = recoveries.uncollected(arena.state, lender.account)
    after = margin.sums(arena.state, lender.account, arena.exchange.at_us).equity
    # SOL that counted at their weight are USDC that count whole.
    assert after == pytest.approx(before + waiting * 100 * (10**9 - weight) // 10**9, rel=3e-2)

    redeems(lender, SOL)

    assert lender.usdc == waiting and recoveries.uncollected(arena.state, lender.account) == 0
    assert margin.sums(arena.state, lender.account, arena.exchange.at_us).equity == pytest.approx(after, rel=1e-6)
    assert arena.balance(POOL_YIELD, "USDC") in (0, -1) and is_whole(arena)


def test_a_lender_in_liquidation_pays_with_what_is_due_to_it_before_the_fund_pays() -> None:
    """[C-3, L-5]"""
    arena, (lender,), short = short_squeeze(insured=20_000)
    write_down(arena, short)
    waiting, fund = recoveries.uncollected(arena.state, lender.account), arena.insurance
    arena.state.liquidations[lender.subaccount] = Liquidation(arena.exchange.at_us)
    outcome = Outcome(arena.state.sequence, arena.exchange.at_us)
    owing = [(unsettled(each), arena.state.usdc, atoms) for each, atoms in
             ((lender.subaccount, waiting // 2), (short.subaccount, -(waiting // 2)))]  # fmt: skip
    post(arena.state, outcome, JournalKind.SETTLEMENT, (), owing)
    arena.exchange.outcomes.append(outcome)
    before = lent_by(lender)

    _done, outcome = arena.step(liquidation.step, lender)

    assert recoveries.uncollected(arena.state, lender.account) == 0 and lent_by(lender) == before
    assert lender.usdc + lender.account.unsettled >= waiting // 2 and arena.insurance == fund
    assert lender.subaccount not in arena.state.liquidations and is_whole(arena)


def test_without_funds_the_rest_is_a_hole_that_later_income_fills_for_those_who_lent_then() -> None:
    arena, (one, two), short = short_squeeze(lenders=2)
    own = short.usdc
    write_down(arena, short)
    paid, due = bankruptcy.recovery(arena.state, arena.base)
    fees = sum(each.filled for each in arena.state.pools[arena.base].write_downs.values())
    assert paid == own + fees and arena.state.holes == {arena.base: due - paid}
    redeems(one, lent_by(one))
    assert one.usdc == pytest.approx(own // 2, abs=2)
    # A stranger lends before the hole is filled, and is no heir.
    stranger = arena.member("stranger", 0, SOL=10_000 * SOL)
    lends(stranger, 10_000 * SOL)
    loaded = snapshot.load(snapshot.dump(arena.state))
    assert snapshot.dump(loaded) == snapshot.dump(arena.state)

    arena.insure(4_000)
    _nothing, outcome = arena.step(lambda state, out, _account: bankruptcy.fill_holes(state, out), short)
    assert arena.insurance == 0 and arena.state.holes == {arena.base: due - paid - 4_000 * USDC}
    redeems(stranger, SOL)
    arena.insure(20_000)
    arena.step(lambda state, out, _account: bankruptcy.fill_holes(state, out), short)
    assert not arena.state.holes and entries(outcome, JournalKind.HOLE_FILLED)

    assert stranger.usdc == 0 and recoveries.uncollected(arena.state, stranger.account) == 0
    for each in (one, two):
        everything = each.usdc + recoveries.uncollected(arena.state, each.account)
        assert everything == pytest.approx((due - fees) // 2, abs=3)
    assert is_whole(arena)


def test_the_pools_fees_become_its_lenders_and_make_the_hole_that_much_smaller() -> None:
    arena = Arena()
    lender, buyer = arena.member("lender", 0, SOL=60 * SOL), arena.member("buyer", 10**5)
    short = arena.member("short", 2_000)
    lends(lender, 60 * SOL)
    shorts(short, buyer, 40)
    arena.exchange.advance(86_400)
    arena.price(400)
    pool, at_us = arena.state.pools[arena.base], arena.exchange.at_us + 1
    fees, own = lending.totals(arena.state, pool, at_us).fees, short.usdc
    mark = arena.state.marks[arena.base]

    outcome = write_down(arena, short)

    (entry,) = entries(outcome, JournalKind.HOLE_FILLED)
    worth = fees * mark * USDC // (SOL * PRICE_SCALE)
    value = entries(outcome, JournalKind.DEBT_WRITTEN_DOWN)[0].memo[4]
    assert fees > 0 and entry.memo == (arena.base, 0, "fees", fees, worth, value - own - worth)
    assert arena.state.holes == {arena.base: value - own - worth}
    assert lending.totals(arena.state, pool, arena.exchange.at_us).fees == 0 and is_whole(arena)


def test_a_debt_of_all_that_is_lent_ends_the_shares_and_whoever_lends_next_begins_anew() -> None:
    arena = Arena()
    lender, buyer, short = arena.member("lender", 0, SOL=40 * SOL), arena.member("buyer", 10**5), arena.member("s", 900)
    lends(lender, 40 * SOL)
    pool = arena.state.pools[arena.base]
    shorts(short, buyer, 30)
    # The last ones are borrowed past the bound: a pool at 100 %.
    pool.bound = 10**9
    out, into = Outcome(arena.state.sequence, arena.exchange.at_us), lending.Movements()
    idle = lending.totals(arena.state, pool, arena.exchange.at_us).idle
    lending.borrow(arena.state, out, into, short.account, arena.base, idle, lending.LendingSource.MANUAL)
    lending.post_alone(arena.state, out, into)
    arena.exchange.outcomes.append(out)
    # What it holds of its own debt would pay it; so that it does not, it is given away.
    gives(arena, short, buyer, idle)
    arena.price(500)
    own = short.usdc

    outcome = write_down(arena, short)

    (entry,) = entries(outcome, JournalKind.DEBT_WRITTEN_DOWN)
    assert entry.memo[10] == 1 and not lender.account.lent
    assert recoveries.uncollected(arena.state, lender.account) == pytest.approx(own, abs=1)
    again = arena.member("again", 0, SOL=5 * SOL)
    lends(again, 5 * SOL)
    assert lent_by(again) == 5 * SOL and is_whole(arena)
    arena.insure(50_000)
    arena.step(lambda state, out, _account: bankruptcy.fill_holes(state, out), short)
    value = entry.memo[4]
    assert recoveries.uncollected(arena.state, lender.account) == pytest.approx(value, abs=2)


def test_ten_failed_steps_freeze_the_mark_though_the_account_is_worth_something() -> None:
    arena, _lenders, short = short_squeeze(to=180)
    assert arena.e(short) > 0
    done, _outcome = arena.step(bankruptcy.settle_debts, short)
    assert not done
    arena.state.liquidations[short.subaccount].failed_buys[arena.base] = 10
    done, _outcome = arena.step(_freeze_only, short)
    mark = arena.state.marks[arena.base]
    arena.price(170)

    outcome = write_down(arena, short)

    assert entries(outcome, JournalKind.DEBT_WRITTEN_DOWN)[0].memo[3] == mark
    assert short.usdc > 0 and not arena.state.holes


def test_what_nobody_buys_passes_to_the_fund_and_fills_the_hole_when_it_is_sold() -> None:
    """ETH without a bid, SOL lent out, USDC lent out, and what the tick's losers still owe it.   [L-7]"""
    arena = Arena()
    arena.price(3_000, "ETH")
    eth, usdc = arena.exchange.asset("ETH"), arena.state.usdc
    lender, buyer = arena.member("lender", 0, SOL=60 * SOL), arena.member("buyer", 10**5, SOL=3_000 * SOL)
    short = arena.member("short", 1_000, ETH=SOL, BTC=10**6)
    lends(lender, 60 * SOL)
    lends(short, SOL // 2, "ETH")
    lends(short, 300 * USDC, "USDC")
    for symbol in ("ETH", "USDC"):
        out, into = Outcome(arena.state.sequence, arena.exchange.at_us), lending.Movements()
        asset_id = arena.exchange.asset(symbol)
        idle = lending.totals(arena.state, arena.state.pools[asset_id], arena.exchange.at_us).idle
        lending.borrow(arena.state, out, into, buyer.account, asset_id, idle, lending.LendingSource.MANUAL)
        lending.post_alone(arena.state, out, into)
        arena.exchange.outcomes.append(out)
    shorts(short, buyer, 40)
    out = Outcome(arena.state.sequence, arena.exchange.at_us)
    owed = [(unsettled(buyer.subaccount), usdc, 50 * USDC), (unsettled(short.subaccount), usdc, -50 * USDC)]
    post(arena.state, out, JournalKind.SETTLEMENT, (), owed)
    arena.exchange.outcomes.append(out)
    arena.price(500)
    # The one who owes SOL's neighbour is in liquidation too: nobody gives lent ETH back.
    arena.state.liquidations[buyer.subaccount] = Liquidation(arena.exchange.at_us)
    own = short.usdc
    value = 40 * 500 * USDC

    outcome = write_down(arena, short)

    taken = {(entry.memo[1], entry.memo[3]): entry.memo[4] for entry in entries(outcome, JournalKind.COLLATERAL_TAKEN)}
    assert taken["debt", eth] == SOL // 2 and taken["lent", eth] in (SOL // 2, SOL // 2 - 1)
    assert taken["lent", usdc] in (300 * USDC, 300 * USDC - 1) and taken["unsettled", usdc] == 50 * USDC
    assert not short.account.lent and not short.account.debts and short.account.unsettled == 0
    assert arena.state.holes[arena.base] == pytest.approx(value - own, rel=1e-4)
    assert arena.state.taken[eth] == SOL // 2 and is_whole(arena)

    hole = arena.state.holes[arena.base]
    lends(arena.member("helper", 500), 400 * USDC, "USDC")
    arena.step(lambda state, out, _account: bankruptcy.fill_holes(state, out), short)

    assert hole - arena.state.holes[arena.base] == pytest.approx(300 * USDC, abs=2) and is_whole(arena)


def test_a_fund_without_usdc_takes_no_more_in_kind_than_is_due() -> None:
    """Worth far more than it owes, with nobody to buy anything: ETH pays for all, BTC stays.   [L-7]"""
    arena = Arena()
    arena.price(3_000, "ETH")
    arena.price(100_000, "BTC")
    eth, btc = arena.exchange.asset("ETH"), arena.exchange.asset("BTC")
    lender, buyer = arena.member("lender", 0, SOL=60 * SOL), arena.member("buyer", 10**5)
    lends(lender, 60 * SOL)
    short = arena.member("short", 0, ETH=5 * SOL, BTC=10**7)
    shorts(short, buyer, 40)
    out = Outcome(arena.state.sequence, arena.exchange.at_us)
    spent, usdc = short.usdc, arena.state.usdc
    paid = [(available(short.subaccount), usdc, spent), (available(buyer.subaccount), usdc, -spent)]
    post(arena.state, out, JournalKind.TRANSFER, (), paid)
    arena.exchange.outcomes.append(out)
    arena.step(lambda _state, _out, account: None, short)
    arena.state.liquidations[short.subaccount].failed_buys[arena.base] = 10

    outcome = write_down(arena, short)

    taken = {entry.memo[3]: entry.memo[4] for entry in entries(outcome, JournalKind.COLLATERAL_TAKEN)}
    assert sum(taken.values()) > 0 and len(taken) == 1
    worth = taken.get(eth, 0) * 3_000 // 10**3 + taken.get(btc, 0) * 100_000 // 10**2
    assert worth == pytest.approx(40 * 150 * USDC, rel=1e-2)
    assert arena.state.holes[arena.base] == pytest.approx(40 * 150 * USDC, rel=1e-2) and is_whole(arena)


def _freeze_only(state: State, outcome: Outcome, subaccount: Subaccount) -> None:
    bankruptcy.freeze(state, subaccount, outcome.at_us)


@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    st.lists(st.integers(1, 10**11), min_size=1, max_size=4),
    st.integers(1, 95),
    st.integers(0, 30_000),
    st.integers(0, 3_000),
    st.integers(200, 2_000),
)
def test_nothing_is_unaccounted_for(claims: list[int], share: int, insured: int, own: int, price: int) -> None:
    """Whatever the sizes: what lenders get and lack is the debt's value, and every account adds up.   [L-7, A-13]"""
    arena = Arena()
    step = arena.state.assets[arena.base].step_atoms
    people = []
    for n, atoms in enumerate(claims):
        atoms = max(step, atoms - atoms % step)
        people.append(arena.member(f"l{n}", 0, SOL=atoms))
        lends(people[-1], atoms)
    short = arena.member("short", own or 1)
    out, into = Outcome(arena.state.sequence, arena.exchange.at_us), lending.Movements()
    pool = arena.state.pools[arena.base]
    borrowed = lending.totals(arena.state, pool, arena.exchange.at_us).lent * share // 100
    if not borrowed:
        return
    lending.borrow(arena.state, out, into, short.account, arena.base, borrowed, lending.LendingSource.MANUAL)
    buyer = arena.member("buyer", 1)
    lending.post_alone(arena.state, out, into)
    arena.exchange.outcomes.append(out)
    gives(arena, short, buyer, borrowed)
    if insured:
        arena.insure(insured)
    arena.price(price)
    held = [lent_by(each) for each in people]
    mark = arena.state.marks[arena.base]
    if arena.e(short) > 0:
        return

    outcome = write_down(arena, short)

    (memo,) = [entry.memo for entry in entries(outcome, JournalKind.DEBT_WRITTEN_DOWN)]
    owed, value = memo[2], memo[4]
    usd = -(-owed * mark // (SOL * 10_000))
    assert value == -(-usd * USDC // 10**8) and memo[3] == mark
    paid, due = bankruptcy.recovery(arena.state, arena.base)
    assert due == value and paid + arena.state.holes.get(arena.base, 0) == value
    assert insurance.balance(arena.state) == 0 or not arena.state.holes
    waiting = [recoveries.uncollected(arena.state, each.account) for each in people]
    in_kind = sum(each.filled for each in pool.write_downs.values())
    assert paid - in_kind - len(people) <= sum(waiting) <= paid - in_kind
    for before, each, usdc in zip(held, people, waiting, strict=True):
        # Everybody bears the same part of the hole, to an atom: what is lent still, and what is paid.
        assert abs(usdc * sum(held) - (paid - in_kind) * before) <= 3 * sum(held)
        assert abs(lent_by(each) * sum(held) - before * sum(map(lent_by, people))) <= 3 * sum(held)
    assert is_whole(arena)


# --- ruin: short sellers and lenders on an exchange where prices leap -----------------------------------------------


people = st.integers(0, 3)


class Ruin(RuleBasedStateMachine):
    """Traders who sell what they borrowed, lend what they hold, and are liquidated by the real ladder.   [L-1 … L-9]"""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena()
        self.totals = RunningTotals()
        self.seen = 0

    @initialize(insured=st.sampled_from((0, 2_000)))
    def begin(self, insured: int) -> None:
        arena = self.arena
        arena.price(3_000, "ETH")
        self.lenders = [arena.member(f"l{n}", 20_000, SOL=40 * SOL, ETH=2 * SOL) for n in range(2)]
        self.traders = [arena.member(f"t{n}", 1_500 + n, SOL=n * SOL + SOL, ETH=SOL * n // 4 + SOL) for n in range(4)]
        self.buyer = arena.member("buyer", 10**6, SOL=10 * SOL)
        for each in self.lenders:
            lends(each, 40 * SOL)
            lends(each, 2 * SOL, "ETH")
            lends(each, 9_000 * USDC, "USDC")
        if insured:
            arena.insure(insured)
        self.traders[1].does(UpdateAccount(self.traders[1].subaccount, auto_realize_pnl=False))
        for n in range(4):
            self.short(n, 8 + n)
            self.position(n, n % 2 == 0, 1_000)
            self.lend(n, "ETH", 50)

    @rule(n=people, sol=st.integers(1, 30))
    def short(self, n: int, sol: int) -> None:
        """Sell borrowed SOL to whoever bids at the mark."""
        market = self.arena.exchange.market("SOL_USDC")
        ticks = self.arena.state.marks[self.arena.base] * 100 // PRICE_SCALE
        bid = PlaceOrder(
            self.buyer.subaccount, market, Side.BID, OrderType.LIMIT, price_ticks=ticks, lots=sol * 100
        )
        ask = PlaceOrder(
            self.traders[n].subaccount, market, Side.ASK, OrderType.LIMIT, price_ticks=ticks, lots=sol * 100,
            auto_borrow=True, auto_lend_redeem=True, time_in_force=TimeInForce.IOC,
        )  # fmt: skip
        if self.buyer.tries(bid).rejection is None:
            self.traders[n].tries(ask)
            self.buyer.tries(CancelAllOrders(self.buyer.subaccount))

    @rule(n=people, is_long=st.booleans(), lots=st.integers(10, 3_000))
    def position(self, n: int, is_long: bool, lots: int) -> None:
        ticks = self.arena.book_market.mark // self.arena.book_market.parameters.tick_price
        self.buyer.trade(Side.ASK if is_long else Side.BID, lots, ticks)
        self.traders[n].trade(Side.BID if is_long else Side.ASK, lots, ticks, time_in_force=TimeInForce.IOC)
        self.buyer.tries(CancelAllOrders(self.buyer.subaccount))

    @rule(n=people, symbol=st.sampled_from(("SOL", "ETH", "USDC")), share=st.integers(1, 100))
    def lend(self, n: int, symbol: str, share: int) -> None:
        trader, asset_id = self.traders[n], self.arena.exchange.asset(symbol)
        step = self.arena.state.assets[asset_id].step_atoms
        atoms = self.arena.state.free(trader.subaccount, asset_id) * share // 100 // step * step
        if atoms > 0:
            trader.tries(BorrowLend(trader.subaccount, asset_id, LendingSide.LEND, atoms))

    @rule(n=st.integers(0, 1), symbol=st.sampled_from(("SOL", "ETH", "USDC")), share=st.integers(1, 100))
    def redeem(self, n: int, symbol: str, share: int) -> None:
        lender, asset_id = self.lenders[n], self.arena.exchange.asset(symbol)
        step = self.arena.state.assets[asset_id].step_atoms
        atoms = lent_by(lender, symbol) * share // 100 // step * step
        if atoms > 0:
            lender.tries(BorrowLend(lender.subaccount, asset_id, LendingSide.BORROW, atoms))

    @rule(symbol=st.sampled_from(("SOL", "ETH")))
    def run_dry(self, symbol: str) -> None:
        """The buyer takes what is idle."""
        state, asset_id = self.arena.state, self.arena.exchange.asset(symbol)
        idle = lending.totals(state, state.pools[asset_id], self.arena.exchange.at_us).idle
        if idle > 0 and self.buyer.subaccount not in state.liquidations:
            out, into = Outcome(state.sequence, self.arena.exchange.at_us), lending.Movements()
            lending.borrow(state, out, into, self.buyer.account, asset_id, idle, lending.LendingSource.MANUAL)
            lending.post_alone(state, out, into)
            self.arena.exchange.outcomes.append(out)

    @rule(percent=st.sampled_from((40, 70, 90, 99, 101, 110, 150, 220)), symbol=st.sampled_from(("SOL", "SOL", "ETH")),
          seconds=st.sampled_from((1, 5, 10, 30)))  # fmt: skip
    def leap(self, percent: int, symbol: str, seconds: int) -> None:
        price = self.arena.state.prices[self.arena.exchange.asset(symbol)] * percent // 100 / PRICE_SCALE
        self.arena.price(min(20_000, max(20, round(price, 2))), symbol)
        self.arena.exchange.advance(seconds)

    @invariant()
    def all_is_conserved(self) -> None:
        """What a block checks, and what the lenders lack: value is paid, filled, or a hole.   [A-13, L-7]"""
        outcomes, state = self.arena.exchange.outcomes, self.arena.state
        for outcome in outcomes[self.seen :]:
            self.totals.add(seal(bytes(32), 1, 1, 1, entry) for entry in outcome.journal)
        self.seen = len(outcomes)
        assert not self.totals.violations()
        for asset_id, pool in state.pools.items():
            assert lending.totals(state, pool, self.arena.exchange.at_us).idle >= 0
            lacking = sum(each.hole for each in pool.write_downs.values())
            assert lacking == state.holes.get(asset_id, 0) and all(each.hole >= 0 for each in pool.write_downs.values())
        waiting = sum(recoveries.uncollected(state, each) for each in state.subaccounts.values())
        assert waiting <= -self.arena.balance(POOL_YIELD, "USDC")

    @invariant()
    def a_snapshot_gives_the_same_state(self) -> None:
        content = snapshot.dump(self.arena.state)
        assert snapshot.dump(snapshot.load(content)) == content


TestRuin = Ruin.TestCase
TestRuin.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, phases=(Phase.explicit, Phase.generate)
)
