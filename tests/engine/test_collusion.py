"""Two who play into each other's hands: whatever they trade, nobody's equity goes below zero by it, and the insurance
fund pays nothing.   [M-5, M-9, M-12, P-10 … P-13, L-5]

threat-model.md T-120 … T-125.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import margin
from engine.commands import FundCustody, FundInsurance, RequestWithdrawal, Side, UpdateAccount
from engine.events import LiquidationChanged, LossShared
from engine.parameters import RATE_SCALE
from engine.rejections import RejectReason
from ledger.chart import INSURANCE_FUND
from tests.engine.perps import Member, Pit, cross

BID, ASK = Side.BID, Side.ASK
MARK = 15_000


FUND = 10_000 * 10**6


def pit_with_a_fund() -> Pit:
    """A pit whose insurance fund has something to lose."""
    pit = Pit()
    pit.exchange.do(FundCustody(1, "own", 0, pit.state.usdc, FUND))
    pit.exchange.do(FundInsurance(FUND))
    return pit


def nobody_else_paid(pit: Pit) -> bool:
    """The fund has at least what it had, and no loss was shared, written off or closed at a bankruptcy price.

    What the book, or the account's own collateral, pays is its own.
    """
    told = [event for outcome in pit.exchange.outcomes for event in outcome.events]
    stages = {event.stage for event in told if isinstance(event, LiquidationChanged)}
    assert not stages & {"adl", "insurance", "loss", "backstop", "collateral", "debt"}, stages
    assert not any(isinstance(event, LossShared) for event in told)
    return -pit.balance(INSURANCE_FUND, "USDC") >= FUND


def worth(member: Member) -> int:
    """E: what is left of the account when all is sold at mark, in USD (1e-8)."""
    return margin.realizable(member.state, member.account, member.desk.exchange.at_us)


def full(pit: Pit, name: str, dollars: int, side: Side, other: Member) -> Member:
    """A member with the largest position that is accepted at 20 x."""
    member = pit.member(name, dollars)
    member.does(UpdateAccount(member.subaccount, leverage_limit=20 * RATE_SCALE))
    for lots in (dollars * 13, dollars * 12, dollars * 6, dollars * 3, dollars, dollars // 4, dollars // 16):
        other.trade(ASK if side is BID else BID, lots, MARK)
        member.trade(side, lots, MARK)
        other.cancels_all()
    assert abs(member.lots) > dollars * 11
    return member


def rich(pit: Pit) -> Member:
    return pit.member("rich", 10_000_000)


@pytest.mark.parametrize("edge", [3_750, 13_501, 14_400, 15_900, 16_499, 22_499, 29_999])
@pytest.mark.parametrize("side", [BID, ASK])
def test_a_full_account_gives_nothing_away_at_the_edge_of_any_band(edge: int, side: Side) -> None:
    pit = pit_with_a_fund()
    friend = rich(pit)
    poor = full(pit, "poor", 1_000, BID, friend)
    friend.trade(ASK if side is BID else BID, 5_000, edge)
    poor.trade(side, 5_000, edge)
    poor.trade(side, 5_000, edge, reduce_only=True)
    pit.exchange.advance(20)
    assert worth(poor) >= 0
    assert nobody_else_paid(pit)


@pytest.mark.parametrize("fall", [0.99, 0.97, 0.95, 0.93])
def test_orders_that_the_mark_left_behind_are_judged_again_when_they_fill(fall: float) -> None:
    pit = Pit()
    friend = rich(pit)
    poor = pit.member("poor", 1_000)
    poor.does(UpdateAccount(poor.subaccount, leverage_limit=20 * RATE_SCALE))
    outcome = poor.trade(BID, 12_000, MARK)
    assert outcome.rejection is None
    pit.price(150 * fall)
    friend.trade(ASK, 12_000, MARK)
    assert worth(poor) >= 0
    if poor.lots:
        sums = poor.sums()
        assert sums.equity > sums.initial


@pytest.mark.parametrize("fall", [0.965, 0.96, 0.955])
@pytest.mark.parametrize("price", [13_500, 14_000, 14_300, 14_900])
def test_reduce_only_orders_near_liquidation_hand_no_equity_to_a_friend(fall: float, price: int) -> None:
    pit = Pit()
    friend = rich(pit)
    poor = full(pit, "poor", 1_000, BID, friend)
    pit.exchange.advance(10)
    pit.price(150 * fall)
    before, steps = poor.sums(), 0
    # The friend bids far below the mark, and nobody else bids.
    friend.trade(BID, 20_000, price)
    while poor.lots and steps < 5:
        poor.trade(ASK, poor.lots, price, reduce_only=True)
        steps += 1
    after = poor.sums()
    assert worth(poor) >= 0
    if after.equity < before.equity:
        # What was given away brought the account no nearer to liquidation.   [M-9]
        assert after.equity * before.maintenance >= before.equity * after.maintenance


def test_a_mark_that_is_pushed_on_a_thin_book_is_not_cashed() -> None:
    pit = Pit()
    friend, poor = rich(pit), pit.member("poor", 1_000)
    cross(poor, friend, 6_000, MARK)
    pit.exchange.advance(400)
    pit.price(150)
    # Quotes far above the index for a minute pull the average up.
    friend.trade(BID, 1, 16_400)
    friend.trade(ASK, 1, 16_500)
    pit.exchange.advance(120)
    assert pit.book_market.mark > 150 * 10**12
    sums, at_index = poor.sums(), worth(poor)
    most = 0
    for dollars in range(0, 1_200, 20):
        atoms = (dollars + 20) * 10**6
        command = RequestWithdrawal(poor.subaccount, 1, pit.state.usdc, atoms, "A" * 44, "", True, True)
        outcome = poor.tries(command)
        if outcome.rejection is not None:
            assert outcome.rejection.reason is RejectReason.INSUFFICIENT_MARGIN
            break
        most += dollars + 20
    friend.cancels_all()
    pit.exchange.advance(400)
    assert worth(poor) >= 0
    now = poor.sums()
    assert now.equity >= now.maintenance, (sums, at_index, most, now)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from((0, 1, 2)), st.sampled_from((BID, ASK)), st.sampled_from((13_510, 14_500, 14_990, 15_000,
            15_010, 15_500, 16_490)), st.sampled_from((100, 1_000, 12_000)), st.booleans(), st.sampled_from((0, 1, 11)),
            st.sampled_from((150.0, 150.0, 149.0, 151.0)),
        ), min_size=3, max_size=25,
    )
)  # fmt: skip
def test_no_play_among_friends_takes_from_the_insurance_fund(
    moves: list[tuple[int, Side, int, int, bool, int, float]]
) -> None:
    """Prices end where they began: what one of them lost, another has; the fund has what it had, or more."""
    pit = pit_with_a_fund()
    friends = [pit.member(name, dollars) for name, dollars in (("anna", 1_000), ("bert", 500), ("carl", 50_000))]
    for friend in friends:
        friend.does(UpdateAccount(friend.subaccount, leverage_limit=20 * RATE_SCALE))
    for who, side, price, lots, reduces, seconds, index in moves:
        friends[who].trade(side, lots, price, reduce_only=reduces)
        if seconds:
            pit.exchange.advance(seconds)
        if pit.state.prices[pit.base] != index * 10**12:
            pit.price(index)
    pit.price(150)
    pit.exchange.advance(30)
    assert nobody_else_paid(pit)
    for friend in friends:
        assert worth(friend) >= 0, friend.sums()


@pytest.mark.parametrize("is_realizing", [True, False])
def test_closing_everything_far_below_the_mark_leaves_nobody_below_zero(is_realizing: bool) -> None:
    """What a virtual account loses is no exposure: with its last lot gone, only its equity tells."""
    pit = Pit()
    friend = rich(pit)
    poor = pit.member("poor", 100)
    poor.does(UpdateAccount(poor.subaccount, auto_realize_pnl=is_realizing))
    cross(poor, friend, 600, MARK)
    pit.price(140.5)
    friend.trade(BID, 600, 13_000)

    poor.trade(ASK, 600, 13_000)

    assert poor.lots == 600
    assert poor.sums().equity >= 0
