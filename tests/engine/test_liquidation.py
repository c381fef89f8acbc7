"""Who is found in liquidation, when, and what the steps of the order-book stage do.

[L-1, L-2, L-3, L-10, L-11, M-6, M-7, M-8, P-14]
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine import book_stage, liquidation, margin, snapshot
from engine.commands import (
    BorrowLend,
    ConfigureMarket,
    CreditDeposit,
    LendingSide,
    OpenSubaccount,
    OrphanDeposit,
    PlaceOrder,
    ReverseDeposit,
    Side,
)
from engine.events import ExpiryReason, LiquidationChanged, OrderExpired, Outcome, Trade
from engine.formulas import standing
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE, BookState
from engine.rejections import RejectReason
from engine.state import State
from engine.transition import apply
from ledger.chart import contracts
from ledger.journal import JournalKind, JournalTransaction, decode_memo, encode_memo
from tests.engine.desk import LIMIT
from tests.engine.ladder import Arena, Member, entries, is_whole, parts
from tests.engine.perps import USDC, cross

BID, ASK = Side.BID, Side.ASK
SOL = 10**9


def stages(outcomes: list[Outcome]) -> list[LiquidationChanged]:
    return [event for outcome in outcomes for event in parts(outcome, LiquidationChanged)]


def steps(outcomes: list[Outcome]) -> list[JournalTransaction]:
    return [entry for outcome in outcomes for entry in entries(outcome, JournalKind.LIQUIDATION_STEP)]


def nobody_is_missed(state: State, at_us: int) -> bool:
    """Everybody whom `margin.sums` finds in liquidation, and who has anything to liquidate, is known to be."""
    exact = [
        number
        for number, each in state.subaccounts.items()
        if margin.sums(state, each, at_us).is_in_liquidation
        and liquidation.has_anything_to_liquidate(state, each, at_us)
    ]
    return all(number in state.liquidations for number in exact)


class Case:
    """anna is long 600 lots at 150 with 100 USDC; below 136.7 or so she is over. A maker bids beneath."""

    def __init__(self, dollars: int = 100, bids: int = 5_000, at: int = 13_640, **assets: int) -> None:
        self.arena = Arena()
        self.anna = self.arena.member("anna", dollars, **assets)
        self.bert = self.arena.member("bert", 100_000)
        self.maker = self.arena.member("maker", 1_000_000)
        cross(self.anna, self.bert, 600, 15_000)
        if bids:
            assert self.maker.trade(BID, bids, at).rejection is None

    @property
    def state(self) -> State:
        return self.arena.exchange.state

    @property
    def is_in(self) -> bool:
        return self.anna.subaccount in self.state.liquidations

    def falls(self, dollars: float = 136.5) -> Outcome:
        return self.arena.price(dollars)

    def passes(self, seconds: int) -> list[Outcome]:
        return self.arena.exchange.advance(seconds)


# --- the trigger ----------------------------------------------------------------------------------------------------


def test_a_mark_that_reaches_the_threshold_starts_it_in_the_same_command() -> None:
    case = Case()
    # 100 − 0.45 fee − 6 × (150 − p) = 2.5 % of 6 × p at p = 136.829…
    outcome = case.falls(136.83)
    assert not case.is_in and not parts(outcome, LiquidationChanged)
    outcome = case.falls(136.82)
    assert case.is_in
    (record,) = entries(outcome, JournalKind.LIQUIDATION_STARTED)
    assert record.memo[0] == case.anna.subaccount and not record.postings
    (started,) = parts(outcome, LiquidationChanged)
    sums = case.anna.sums()
    assert (started.stage, started.equity_usd, started.maintenance_usd) == ("started", sums.equity, sums.maintenance)
    assert sums.maintenance >= sums.equity
    # Once is enough.
    assert not entries(case.falls(136.81), JournalKind.LIQUIDATION_STARTED)


def test_the_first_step_is_due_at_once_and_then_one_a_second() -> None:
    case = Case(bids=0)
    case.falls()
    taken = [outcome for outcome in case.passes(0) if steps([outcome])]
    assert [outcome.at_us for outcome in taken] == [case.arena.exchange.at_us]
    taken = [outcome for outcome in case.passes(1) if steps([outcome])]
    assert len(taken) == 1 and taken[0].at_us % 10**6 == 0


def test_funding_pushes_over() -> None:
    """The book stands over the index for an hour, so longs pay: the account is found in the charge's own command."""
    case = Case(bids=0)
    case.falls(137)
    case.maker.trade(BID, 10, 13_800)
    case.maker.trade(ASK, 10, 13_820)
    second = case.arena.exchange.at_us // 10**6
    case.passes(3_600 - second % 3_600 - 1)
    # The maintenance margin is set so that 0.20 USD are to spare: funding takes 0.32.
    sums, parameters = case.anna.sums(), case.arena.book_market.parameters
    assert parameters.perpetual is not None
    strict = structs.replace(
        parameters.perpetual, mmf_base=(sums.equity - USD_SCALE // 5) * RATE_SCALE // sums.notional
    )
    case.arena.exchange.do(ConfigureMarket(structs.replace(parameters, perpetual=strict)))
    assert not case.is_in
    outcomes = case.passes(1)
    (charged,) = [each for each in outcomes if entries(each, JournalKind.FUNDING)]
    assert case.is_in and entries(charged, JournalKind.LIQUIDATION_STARTED)


def test_interest_pushes_over_and_is_found_within_the_hour() -> None:
    arena = Arena()
    lender = arena.member("lender", 0, SOL=1_000 * SOL)
    usdc = arena.exchange.asset("USDC")
    anna = arena.member("anna", 1_000)
    arena.attempt(
        BorrowLend(lender.subaccount, arena.base, LendingSide.LEND, 1_000 * SOL), arena.exchange.signed(lender.key)
    )
    borrow = BorrowLend(anna.subaccount, arena.base, LendingSide.BORROW, 5 * SOL)
    assert arena.attempt(borrow, arena.exchange.signed(anna.key)).rejection is None
    seller = arena.exchange.market("SOL_USDC")
    buyer = arena.member("buyer", 100_000)
    for trader, side in ((buyer, BID), (anna, ASK)):
        order = PlaceOrder(trader.subaccount, seller, side, LIMIT, price_ticks=15_000, lots=500)
        assert arena.attempt(order, arena.exchange.signed(trader.key)).rejection is None
    # 1,750 USDC less the fee against 5 SOL: just above the threshold, and then the years pass.
    low, high = 150 * 100, 400 * 100
    while high - low > 1:
        middle = (low + high) // 2
        marks = {arena.base: middle * PRICE_SCALE // 100, usdc: PRICE_SCALE}
        over = margin.sums(arena.state, anna.account, arena.exchange.at_us, marks=marks).is_in_liquidation
        low, high = (low, middle) if over else (middle, high)
    arena.price(low / 100)
    assert anna.subaccount not in arena.state.liquidations
    for _ in range(400):
        outcomes = arena.exchange.advance(3_600)
        started = [each for each in outcomes if entries(each, JournalKind.LIQUIDATION_STARTED)]
        if started:
            break
    else:
        pytest.fail("interest never pushed the account over")
    assert entries(started[0], JournalKind.INTEREST)


def test_a_reversed_deposit_pushes_over() -> None:
    arena = Arena()
    anna, bert = Member(arena, "anna"), arena.member("bert", 100_000)
    usdc = arena.exchange.asset("USDC")
    arena.exchange.do(CreditDeposit(1, "kept", 0, anna.subaccount, anna.subaccount, usdc, 60 * USDC, 1, "h", True))
    arena.exchange.do(CreditDeposit(1, "gone", 0, anna.subaccount, anna.subaccount, usdc, 60 * USDC, 1, "h", False))
    cross(anna, bert, 700, 15_000)
    arena.price(142)
    assert not arena.state.liquidations
    arena.exchange.do(OrphanDeposit(1, "gone", 0))
    outcome = arena.exchange.do(ReverseDeposit(1, "gone", 0))
    assert anna.subaccount in arena.state.liquidations and entries(outcome, JournalKind.LIQUIDATION_STARTED)


def test_an_account_is_not_liquidated_while_a_price_of_its_is_gone() -> None:
    """P-2: until a price is back it waits; then it is found."""
    case = Case(bids=0)
    market = case.arena.book_market
    market.pricing.has_data = False
    case.falls()
    market.pricing.has_data = False
    if case.is_in:
        assert not steps(case.passes(0)), "no step is taken while the price is gone"
    case.falls(136.0)
    assert case.is_in


def test_a_wick_of_one_second_on_the_book_liquidates_nobody() -> None:
    """The mark moves a three-hundredth of the way; at it the margin holds.   [P-2]"""
    case = Case(bids=0)
    case.falls(140)
    case.maker.trade(BID, 1, 13_995)
    case.maker.trade(ASK, 1, 14_005)
    case.passes(30)
    before = case.arena.book_market.mark
    case.maker.cancels_all()
    # For a second somebody bids and asks sixty percent lower.
    case.maker.trade(BID, 1, 5_600)
    case.maker.trade(ASK, 1, 5_610)
    case.passes(1)
    assert case.arena.book_market.mark < before
    case.maker.cancels_all()
    case.maker.trade(BID, 1, 13_995)
    case.maker.trade(ASK, 1, 14_005)
    outcomes = case.passes(30)
    assert not case.is_in and not stages(outcomes) and case.anna.lots == 600


def test_new_parameters_push_over() -> None:
    case = Case(bids=0)
    case.falls(137)
    parameters = case.arena.book_market.parameters
    assert parameters.perpetual is not None and not case.is_in
    strict = structs.replace(parameters.perpetual, mmf_base=40_000_000)
    outcome = case.arena.exchange.do(ConfigureMarket(structs.replace(parameters, perpetual=strict)))
    assert case.is_in and entries(outcome, JournalKind.LIQUIDATION_STARTED)


# --- steps on the book ----------------------------------------------------------------------------------------------


def test_a_tenth_a_second_until_the_mmr_is_below_95_percent() -> None:
    case = Case()
    case.falls()
    outcomes = case.passes(5)
    told = stages(outcomes)
    assert [event.stage for event in told] == ["book", "book", "book", "ended"]
    assert all(event.quantity == -60 and event.mark == 136_500_000_000_000 for event in told[:3])
    assert case.anna.lots == 420 and not case.state.liquidations
    sums = case.anna.sums()
    assert sums.maintenance * RATE_SCALE < sums.equity * 950_000_000
    before = told[2]
    assert before.maintenance_usd * RATE_SCALE >= before.equity_usd * 950_000_000, "one step less was not enough"
    fills = [event for outcome in outcomes for event in parts(outcome, Trade)]
    assert len(fills) == 3 and {fill.taker.terms.origin.name for fill in fills if fill.taker.terms} == {"LIQUIDATION"}
    assert is_whole(case.arena)


def test_the_fee_is_half_the_mmf_and_goes_to_the_insurance_fund() -> None:
    case = Case()
    before = case.arena.insurance
    case.falls()
    (first, *_rest) = stages(case.passes(0))
    # 60 lots at 136.40 are 81.84 USDC; ½ of 2.5 % would be 1.25 %, 1 % is less.
    assert first.fee_atoms == 818_400 == case.arena.insurance - before
    assert is_whole(case.arena)


def test_the_fee_never_takes_equity_below_zero_nor_raises_the_mmr() -> None:
    case = Case(at=13_590)
    case.falls(136.1)
    for event in stages(case.passes(4)):
        if event.stage == "book" and event.quantity:
            assert event.maintenance_after_usd * event.equity_usd <= event.maintenance_usd * event.equity_after_usd
    assert is_whole(case.arena)


def test_what_would_raise_the_mmr_is_not_done() -> None:
    """A bid 4 % under the mark is inside P-14's bands, but selling there would cost more than it frees."""
    case = Case(at=13_104)
    case.falls()
    (step,) = stages(case.passes(0))
    assert step.stage == "book" and step.quantity == 0
    assert case.anna.lots == 600 and case.is_in


def test_all_of_it_goes_when_less_than_a_hundred_dollars_would_be_left() -> None:
    arena = Arena()
    anna, bert, maker = arena.member("anna", 20), arena.member("bert", 100_000), arena.member("maker", 100_000)
    cross(anna, bert, 80, 15_000)
    maker.trade(BID, 500, 13_000)
    arena.price(128.2)
    maker.trade(BID, 500, 12_810)
    assert anna.subaccount in arena.state.liquidations
    told = stages(arena.exchange.advance(0))
    # 80 lots are 103 USD: after a tenth 92 would be left.
    assert told[0].quantity == -80 and anna.lots == 0
    assert [event.stage for event in told] == ["book", "ended"]
    assert is_whole(arena)


def test_orders_are_cancelled_first_and_new_risk_is_refused() -> None:
    case = Case()
    case.anna.trade(BID, 5, 13_000)
    assert case.anna.account.orders
    case.falls()
    told = stages(case.passes(0))
    assert [event.stage for event in told][:2] == ["cancelled_orders", "book"]
    assert not case.anna.account.orders
    rejection = case.anna.trade(BID, 5, 13_000).rejection
    assert rejection is not None and rejection.reason is RejectReason.INSUFFICIENT_MARGIN
    assert case.anna.trade(ASK, 5, 13_700, reduce_only=True).rejection is None


def test_a_book_of_single_lots_does_not_hold_up_everybody() -> None:
    """T-132: a step takes a hundred makers at most."""
    arena = Arena()
    anna, bert, maker = arena.member("anna", 1_000), arena.member("bert", 100_000), arena.member("maker", 1_000_000)
    cross(anna, bert, 6_000, 15_000)
    for _ in range(150):
        assert maker.trade(BID, 1, 13_640).rejection is None
    arena.price(136.5)
    (first, *_rest) = stages(arena.exchange.advance(0))
    assert first.quantity == -100 == -book_stage.MOST_FILLS
    assert is_whole(arena)


def test_a_short_is_bought_back() -> None:
    arena = Arena()
    anna, bert, maker = arena.member("anna", 100), arena.member("bert", 100_000), arena.member("maker", 1_000_000)
    cross(bert, anna, 600, 15_000)
    arena.price(162.8)
    maker.trade(ASK, 5_000, 16_290)
    assert anna.subaccount in arena.state.liquidations
    told = stages(arena.exchange.advance(6))
    assert told[0].quantity == 60 and told[-1].stage == "ended"
    assert -600 < anna.lots < 0 and is_whole(arena)


def test_own_orders_of_the_same_user_are_not_traded_with() -> None:
    case = Case(bids=0)
    other = Member.__new__(Member)
    other.desk = case.arena
    opened = case.arena.exchange.do(
        OpenSubaccount(case.anna.account.user.user_id, b"o" * 32), case.arena.exchange.signed(case.anna.key)
    )
    other.subaccount, other.key = opened.reply.subaccount_id, b"o" * 32
    case.arena.exchange.deposit(other.subaccount, "USDC", 10_000 * USDC)
    assert other.trade(BID, 100, 13_660).rejection is None
    case.maker.trade(BID, 100, 13_640)
    case.falls()
    outcomes = case.passes(0)
    fills = [event for outcome in outcomes for event in parts(outcome, Trade)]
    assert [fill.maker.subaccount_id for fill in fills] == [case.maker.subaccount]
    expired = [event.order for outcome in outcomes for event in parts(outcome, OrderExpired)]
    assert ExpiryReason.SELF_TRADE_PREVENTION in {order.expiry_reason for order in expired}


def test_three_seconds_without_a_fill_end_on_the_other_side() -> None:
    """An empty book: no provider, so the opposing position closes it at the bankruptcy price.   [L-4, L-6]"""
    case = Case(bids=0)
    case.falls()
    told = stages(case.passes(15))
    assert [event.stage for event in told][:3] == ["book", "book", "book"]
    assert "adl" in [event.stage for event in told]
    assert case.anna.lots == 0 and case.bert.lots == 0
    case.passes(15)
    assert not case.state.liquidations
    assert is_whole(case.arena)


def test_between_cured_and_in_liquidation_the_book_is_asked_again_when_somebody_bids() -> None:
    """Three steps in vain, and a mark that came back a little: nothing for ADL, and the book was never asked again."""
    case = Case(bids=0)
    case.falls()
    case.passes(0)
    case.arena.price(136.94)
    case.passes(8)
    sums = case.anna.sums()
    assert case.is_in and sums.equity * 95 < sums.maintenance * 100 < sums.equity * 100 and case.anna.lots == 600
    assert case.maker.trade(BID, 5_000, 13_680).rejection is None
    case.passes(5)
    assert not case.is_in and 0 < case.anna.lots < 600


def test_a_gap_through_all_of_the_equity_skips_the_book() -> None:
    """E ≤ 0: the bid is there and is not asked.   [L-4]"""
    case = Case()
    case.falls(60)
    told = stages(case.passes(20))
    assert "book" not in [event.stage for event in told]
    assert case.anna.lots == 0 and not case.state.liquidations
    assert is_whole(case.arena)
    assert case.anna.usdc == 0


def test_at_the_auto_close_fraction_the_book_is_skipped() -> None:
    """MF is 9.55 of 810, under half of the account's 2.5 %, and E is above zero: the next rung's.   [M-8, L-3]"""
    case = Case(at=13_490)
    case.falls(135.1)
    sums = case.anna.sums()
    assert sums.equity > 0 and 2 * sums.equity > sums.maintenance, "still the book's"
    case = Case(at=13_490)
    case.falls(135)
    sums = case.anna.sums()
    assert 0 < 2 * sums.equity <= sums.maintenance
    assert stages(case.passes(0))[0].stage == "adl"


def test_a_market_that_takes_no_orders_is_not_asked() -> None:
    case = Case()
    parameters = structs.replace(case.arena.book_market.parameters, state=BookState.CANCEL_ONLY)
    case.arena.exchange.do(ConfigureMarket(parameters))
    case.falls()
    (told,) = stages(case.passes(0))
    assert told.quantity == 0 and case.anna.lots == 600
    case.arena.exchange.do(ConfigureMarket(structs.replace(parameters, state=BookState.LIMIT_ONLY)))
    assert any(event.quantity == -60 for event in stages(case.passes(1)))


# --- debts ----------------------------------------------------------------------------------------------------------


class Short:
    """anna owes 10 SOL, sold at 150; she has 1,700 USDC or so."""

    def __init__(self) -> None:
        self.arena = arena = Arena()
        self.spot = arena.exchange.market("SOL_USDC")
        self.lender = arena.member("lender", 1_000_000, SOL=1_000 * SOL)
        self.anna = arena.member("anna", 300)
        self.does(self.lender, BorrowLend(self.lender.subaccount, arena.base, LendingSide.LEND, 500 * SOL))
        self.order(self.lender, BID, 1_000, 15_000)
        self.order(self.anna, ASK, 1_000, 15_000, auto_borrow=True, auto_lend_redeem=True)
        assert self.owed > 0

    def does(self, member: Member, command: Any) -> None:
        outcome = self.arena.attempt(command, self.arena.exchange.signed(member.key))
        assert outcome.rejection is None, outcome.rejection

    def order(self, member: Member, side: Side, lots: int, at: int, **fields: Any) -> None:
        self.does(member, PlaceOrder(member.subaccount, self.spot, side, LIMIT, price_ticks=at, lots=lots, **fields))

    @property
    def owed(self) -> int:
        return margin.owed_atoms(self.arena.state, self.anna.account, self.arena.base, self.arena.exchange.at_us)


def test_what_is_owed_is_bought_back_a_tenth_at_a_time() -> None:
    short = Short()
    owed = short.owed
    short.arena.price(176)
    assert short.anna.subaccount in short.arena.state.liquidations
    short.order(short.lender, ASK, 5_000, 17_610)
    told = stages(short.arena.exchange.advance(0))
    book = [event for event in told if event.stage == "book"]
    assert len(book) == 1 and book[0].asset_id == short.arena.base
    assert -owed // 10 - SOL // 50 <= book[0].quantity <= -owed // 10
    assert short.owed < owed
    told = stages(short.arena.exchange.advance(20))
    assert told[-1].stage == "ended" and not short.arena.state.liquidations
    assert is_whole(short.arena)


def test_what_is_held_of_an_owed_asset_pays_it_first() -> None:
    """L-2: no order is needed for that, and the pool needs no idle."""
    short = Short()
    owed = short.owed
    short.arena.exchange.deposit(short.anna.subaccount, "SOL", 2 * SOL)
    short.arena.price(215)
    told = stages(short.arena.exchange.advance(0))
    assert (told[0].stage, told[0].asset_id, told[0].quantity) == ("netted", short.arena.base, -2 * SOL)
    assert short.owed in range(owed - 2 * SOL, owed - 2 * SOL + 10**6)
    (entry,) = [
        entry for outcome in short.arena.exchange.outcomes for entry in entries(outcome, JournalKind.NETTED)
    ]
    assert entry.memo[:4] == (short.anna.subaccount, short.arena.base, 2 * SOL, 0)
    assert is_whole(short.arena)


def test_usdc_that_is_owed_is_paid_by_selling_collateral() -> None:
    arena = Arena()
    spot = arena.exchange.market("SOL_USDC")
    lender = arena.member("lender", 1_000_000)
    anna = arena.member("anna", 1_000)
    seller = arena.member("seller", 0, SOL=1_000 * SOL)

    def order(member: Member, side: Side, lots: int, at: int, **fields: Any) -> None:
        command = PlaceOrder(member.subaccount, spot, side, LIMIT, price_ticks=at, lots=lots, **fields)
        outcome = arena.attempt(command, arena.exchange.signed(member.key))
        assert outcome.rejection is None, outcome.rejection

    usdc = arena.exchange.asset("USDC")
    lend = BorrowLend(lender.subaccount, usdc, LendingSide.LEND, 500_000 * USDC)
    assert arena.attempt(lend, arena.exchange.signed(lender.key)).rejection is None
    order(seller, ASK, 2_000, 15_000)
    order(anna, BID, 2_000, 15_000, auto_borrow=True, auto_lend_redeem=True)
    owed = margin.owed_atoms(arena.state, anna.account, usdc, arena.exchange.at_us)
    price = 150
    while anna.subaccount not in arena.state.liquidations and price > 50:
        price -= 1
        arena.price(price)
    assert anna.subaccount in arena.state.liquidations
    order(lender, BID, 100_000, price * 100)
    told = stages(arena.exchange.advance(30))
    assert any(event.stage == "book" and event.asset_id == usdc and event.quantity < 0 for event in told)
    assert margin.owed_atoms(arena.state, anna.account, usdc, arena.exchange.at_us) < owed
    assert told[-1].stage == "ended" and is_whole(arena)


# --- what is on record ----------------------------------------------------------------------------------------------


def test_every_step_can_be_computed_again_from_the_journal_alone() -> None:
    """From the memo and the parameters: the four figures before and after, and what the fills did.   [L-10]"""
    case = Case(at=12_900, SOL=SOL // 10, ETH=10**7)
    case.arena.price(3_000, "ETH")
    case.maker.trade(BID, 20, 12_905)
    case.falls(129.2)
    case.passes(1)
    case.falls(129)
    case.passes(25)
    assets = dict(case.state.assets)
    markets = {
        number: each.parameters.perpetual
        for number, each in case.state.markets.items()
        if each.parameters.perpetual is not None
    }
    checked = 0
    for entry in steps(case.arena.exchange.outcomes):
        memo = decode_memo(encode_memo(entry.memo))
        before, after = standing.decode(memo[10]), standing.decode(memo[15])
        assert list(standing.standing(before, assets, markets)) == memo[6:10]
        assert list(standing.standing(after, assets, markets)) == memo[11:15]
        checked += 1
    for kind in (JournalKind.LIQUIDATION_STARTED, JournalKind.LIQUIDATION_ENDED):
        for outcome in case.arena.exchange.outcomes:
            for entry in entries(outcome, kind):
                memo = decode_memo(encode_memo(entry.memo))
                assert list(standing.standing(standing.decode(memo[5]), assets, markets)) == memo[1:5]
                checked += 1
    assert checked >= 3


def test_the_fills_of_a_step_explain_the_position_after_it() -> None:
    case = Case()
    case.maker.trade(BID, 20, 13_645)
    case.falls()
    market = case.arena.book_market
    for entry in steps(case.passes(5)):
        number, item, taken, _bound, fills, _fee = entry.memo[:6]
        before, after = entry.memo[10], entry.memo[15]
        assert number == case.anna.subaccount and item == contracts(case.arena.market)
        assert taken == sum(lots for _price, lots in fills)
        assert after.positions[0].lots == before.positions[0].lots - taken
        gained = sum((price * market.parameters.tick_value_atoms - before.positions[0].settled) * lots
                     for price, lots in fills)  # fmt: skip
        assert after.positions[0].cost == before.positions[0].cost + gained


# --- in general -----------------------------------------------------------------------------------------------------


class _Crowd:
    """Traders with leverage on one perpetual, a maker, and prices that jump."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.arena = Arena()
        self.arena.insure(1_000)
        self.maker = self.arena.member("maker", 10_000_000, SOL=10_000 * SOL)
        self.traders = [
            self.arena.member(f"trader {each}", self.random.randint(50, 500), SOL=self.random.choice([1, SOL]))
            for each in range(6)
        ]
        self.dollars = 150.0

    def step(self) -> None:
        random, arena = self.random, self.arena
        dice = random.random()
        if dice < 0.3:
            self.dollars = max(20.0, self.dollars * random.choice([0.93, 0.97, 0.99, 0.999, 1.001, 1.01, 1.03, 1.07]))
            arena.price(round(self.dollars, 2))
        if dice < 0.6:
            self.maker.cancels_all()
            for side, sign in ((BID, -1), (ASK, 1)):
                if random.random() < 0.8:
                    away = sign * random.choice([1, 5, 20, 60, 200])
                    self.maker.trade(side, random.randint(1, 3_000), round(self.dollars * 100) + away)
        elif dice < 0.8:
            trader = random.choice(self.traders)
            side = random.choice([BID, ASK])
            lots = int(max(0, trader.sums().equity) // USD_SCALE * random.uniform(3, 9.5) / self.dollars * 100)
            away = 30 if side is BID else -30
            trader.trade(side, max(1, lots - abs(trader.lots)), round(self.dollars * 100) + away)
        else:
            arena.exchange.advance(random.choice([0, 1, 1, 3, 10]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_nobody_is_missed_and_no_step_increases_risk(seed: int) -> None:
    crowd = _Crowd(seed)
    arena = crowd.arena
    for _ in range(80):
        seen = len(arena.exchange.outcomes)
        crowd.step()
        for outcome in arena.exchange.outcomes[seen:]:
            for event in parts(outcome, LiquidationChanged):
                if event.stage == "book" and event.quantity and event.equity_usd > 0:
                    assert (
                        event.maintenance_after_usd * event.equity_usd
                        <= event.maintenance_usd * event.equity_after_usd
                    )
        # After orders too: none can push anybody over.
        assert nobody_is_missed(arena.exchange.state, arena.exchange.at_us)
    assert is_whole(arena)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_cached_changes_nothing(seed: int) -> None:
    """The same commands give the same journal when the columns are made anew at every command.   [A-6]"""
    crowd = _Crowd(seed)
    exchange = crowd.arena.exchange
    commands: list[Any] = []
    attempt = exchange.attempt

    def kept(command: Any, request: Any = None) -> Outcome:
        commands.append((exchange.at_us, command, request))
        return attempt(command, request)

    first = snapshot.dump(exchange.state)
    exchange.attempt = kept  # type: ignore[method-assign]
    for _ in range(40):
        crowd.step()
    again = snapshot.load(first)
    journal = [entry for outcome in exchange.outcomes[-len(commands) :] for entry in outcome.journal]
    repeated = []
    for at_us, command, request in commands:
        again.columns = None
        repeated += apply(again, again.sequence + 1, at_us, command, request).journal
    assert [(each.kind, each.memo, each.postings) for each in repeated] == [
        (each.kind, each.memo, each.postings) for each in journal
    ]
    assert snapshot.dump(again) == snapshot.dump(exchange.state)
