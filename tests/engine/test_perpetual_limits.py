"""Largest orders, previews and liquidation prices of accounts with positions: exact to the step.   [M-6, M-11, M-13]"""

from __future__ import annotations

import random

import pytest

from engine import limits, margin
from engine.commands import PlaceOrder, Side, UpdateAccount
from engine.formulas.prices import mark_quantum
from engine.parameters import PRICE_SCALE, RATE_SCALE
from engine.rejections import RejectReason
from ledger.chart import contracts
from tests.engine.desk import ASK, BID, FILLED, LIMIT, MARKET
from tests.engine.perps import Member, Pit


def most(member: Member, side: Side, at: int = 0, **flags: bool) -> int:
    order = PlaceOrder(
        member.subaccount, member.desk.market, side, LIMIT if at else MARKET, price_ticks=at, lots=1, **flags
    )
    return limits.max_order(member.state, order, member.desk.exchange.at_us + 1)


@pytest.mark.parametrize("seed", range(8))
def test_one_lot_more_than_the_largest_order_is_refused(seed: int) -> None:
    """M-11: for accounts with positions on either side, open orders and other collateral, at any price."""
    chance = random.Random(seed)
    pit = Pit()
    anna = pit.member("anna", chance.randrange(500, 5_000), SOL=chance.randrange(10**10))
    ben = pit.member("ben", 10**6)
    for _ in range(4):
        pit.price(chance.randrange(130, 170))
        mark = pit.book_market.mark * 100 // PRICE_SCALE
        side = chance.choice((BID, ASK))
        other = ASK if side is BID else BID
        lots = chance.randrange(1, 400)
        assert ben.trade(other, lots, mark).rejection is None
        anna.trade(side, lots, mark)
        ben.cancels_all()
        anna.trade(chance.choice((BID, ASK)), chance.randrange(1, 200), mark + chance.choice((-300, 300)))
        for asked in (BID, ASK):
            at = mark + chance.randrange(-400, 400)
            found = most(anna, asked, at)
            over = anna.trade(asked, found + 1, at).rejection
            assert over is not None and over.reason is RejectReason.INSUFFICIENT_MARGIN, (seed, asked, at, found)
            if found:
                placed = anna.trade(asked, found, at)
                assert placed.rejection is None, (seed, asked, at, found, placed.rejection)
                if placed.reply.status is not FILLED:
                    anna.cancels_all()


def test_a_market_order_is_measured_at_its_bound() -> None:
    """M-9, M-11"""
    pit = Pit()
    anna, ben = pit.member("anna", 1_000), pit.member("ben", 10**6)
    ben.trade(ASK, 100_000, 15_000)
    found = most(anna, BID)
    # 1,000 USDC at leverage 10: under 66.67 SOL at the bound of the impact band, 165, less the loss to it.
    assert 0 < found < 6_667
    over = anna.trade(BID, found + 1).rejection
    assert over is not None and over.reason is RejectReason.INSUFFICIENT_MARGIN
    assert anna.trade(BID, found).rejection is None


def test_a_preview_is_what_happens_then() -> None:
    """M-13: resting and filled, the sums are those that the engine then has; nothing is sequenced by asking."""
    pit = Pit()
    anna, ben = pit.member("anna", 10_000), pit.member("ben", 10**6)
    for side, other, lots, at in ((BID, ASK, 500, 14_990), (ASK, BID, 1_200, 15_010), (BID, ASK, 300, 15_005)):
        order = PlaceOrder(anna.subaccount, pit.market, side, LIMIT, price_ticks=at, lots=lots)
        sequence, at_us = pit.state.sequence, pit.exchange.at_us
        seen = limits.preview(pit.state, order, at_us)
        assert seen.refusal is None and pit.state.sequence == sequence and seen.before == anna.sums()
        assert anna.trade(side, lots, at).rejection is None
        assert anna.sums() == seen.resting
        anna.cancels_all()
        ben.trade(other, lots, at)
        assert anna.trade(side, lots, at).rejection is None
        assert anna.sums() == seen.filled
        item = contracts(pit.market)
        assert seen.liquidation_price == limits.liquidation_price(pit.state, anna.account, item, pit.exchange.at_us)


def test_a_reduce_only_order_counts_nothing_and_closes_what_is_there() -> None:
    """M-1, M-13"""
    pit = Pit()
    anna, ben = pit.member("anna", 1_000), pit.member("ben", 10**6)
    ben.trade(ASK, 300, 15_000)
    anna.trade(BID, 300, 15_000)
    order = PlaceOrder(anna.subaccount, pit.market, ASK, LIMIT, price_ticks=15_000, lots=900, reduce_only=True)
    seen = limits.preview(pit.state, order, pit.exchange.at_us)
    assert seen.refusal is None and seen.resting == seen.before
    assert (seen.filled.notional, seen.filled.maintenance, seen.liquidation_price) == (0, 0, 0)
    without = PlaceOrder(anna.subaccount, pit.market, BID, LIMIT, price_ticks=15_000, lots=1, reduce_only=True)
    refused = limits.preview(pit.state, without, pit.exchange.at_us).refusal
    assert refused is not None and refused.reason is RejectReason.REDUCE_ONLY


@pytest.mark.parametrize("seed", range(6))
def test_the_liquidation_price_is_the_first_at_which_it_happens(seed: int) -> None:
    """M-6: one step before, the account is safe; at it and beyond it is not; 0 when no price would do it."""
    chance = random.Random(seed)
    pit = Pit()
    anna = pit.member("anna", chance.randrange(500, 3_000), SOL=chance.randrange(10**9))
    ben = pit.member("ben", 10**6)
    side = BID if seed % 2 else ASK
    other = ASK if side is BID else BID
    lots = most(anna, side, 15_000) * chance.randrange(40, 101) // 100
    ben.trade(other, lots, 15_000)
    assert anna.trade(side, lots, 15_000).rejection is None
    item = contracts(pit.market)
    found = limits.liquidation_price(pit.state, anna.account, item, pit.exchange.at_us)
    quantum = mark_quantum(pit.book_market.parameters)
    assert found % quantum == 0
    step = quantum if side is BID else -quantum
    for price, expected in ((found, True), (found - step, True), (found + step, False)):
        sums = margin.sums(pit.state, anna.account, pit.exchange.at_us, marks={**pit.state.marks, item: price})
        assert sums.is_in_liquidation is expected, (seed, price)
    assert (found < pit.book_market.mark) is (side is BID)
    rich = pit.member("rich", 10**6)
    ben.trade(ASK, 10, 15_000)
    rich.trade(BID, 10, 15_000)
    assert limits.liquidation_price(pit.state, rich.account, item, pit.exchange.at_us) == 0


def test_what_may_leave_is_what_positions_leave_over() -> None:
    """M-11, M-12: the largest withdrawal leaves M-5 by an atom; an unrealized gain does not leave before its tick."""
    pit = Pit()
    anna, ben = pit.member("anna", 1_000), pit.member("ben", 10**6)
    anna.does(UpdateAccount(anna.subaccount, leverage_limit=20 * RATE_SCALE))
    ben.trade(ASK, 1_000, 15_000)
    anna.trade(BID, 1_000, 15_000)
    usdc = pit.state.usdc
    found = limits.max_withdrawal(pit.state, anna.account, usdc, pit.exchange.at_us + 1, may_borrow=False)
    # 1,000 less the fee of 0.05 % of 1,500, less a twentieth of 1,500: M-5 is strict.
    assert found == 1_000_000_000 - 750_000 - 75_000_000 - 1
    held = anna.usdc
    pit.price(160)
    assert limits.max_withdrawal(pit.state, anna.account, usdc, pit.exchange.at_us + 1, may_borrow=False) <= held
