"""Attacks on money markets, margin and yields that were tried against the engine, and what stops each.   [T-100 …]"""

from __future__ import annotations

import msgspec
import pytest

from engine import lending, margin
from engine.commands import (
    BorrowLend,
    ConfigureAsset,
    ConvertDust,
    LendingSide,
    OpenSubaccount,
    OrphanDeposit,
    ReceiveYield,
    RequestWithdrawal,
    ReverseDeposit,
    SetPrices,
    Transfer,
    UpdateAccount,
)
from engine.parameters import PRICE_SCALE, RATE_SCALE, WeightKind
from engine.rejections import RejectReason
from ledger.chart import POOL_YIELD
from tests.engine.desk import EXPIRED, FOK, IOC, Desk, Trader

SOL, USDC = 10**9, 10**6
ADDRESS = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin"


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    exchange = desk.exchange
    exchange.do(SetPrices(((exchange.asset("SOL"), 150 * PRICE_SCALE), (exchange.asset("ETH"), 3_000 * PRICE_SCALE))))
    return desk


@pytest.fixture
def lender(desk: Desk) -> Trader:
    """Lends 1,000,000 USDC and 10,000 SOL, and keeps as much to trade with."""
    lender = desk.trader("lender", usdc=2_000_000 * USDC, sol=20_000 * SOL)
    lends(lender, "USDC", 1_000_000 * USDC)
    lends(lender, "SOL", 10_000 * SOL)
    return lender


def lends(trader: Trader, symbol: str, atoms: int) -> None:
    trader.does(BorrowLend(trader.subaccount, trader.desk.exchange.asset(symbol), LendingSide.LEND, atoms))


def borrows(trader: Trader, symbol: str, atoms: int) -> None:
    trader.does(BorrowLend(trader.subaccount, trader.desk.exchange.asset(symbol), LendingSide.BORROW, atoms))


def sums(trader: Trader) -> margin.Sums:
    desk = trader.desk
    return margin.sums(desk.state, desk.state.subaccounts[trader.subaccount], desk.exchange.at_us)


def test_a_resting_bid_does_not_pass_for_one_that_reduces(desk: Desk, lender: Trader) -> None:
    """Its own promise is no exposure that its fill lowers: or 1,000 USDC would buy 40,000 of SOL.   [M-9, T-100]"""
    anna, ben = desk.trader("anna", usdc=1_000 * USDC, sol=0), desk.trader("ben", usdc=0, sol=1_000 * SOL)
    anna.does(UpdateAccount(anna.subaccount, leverage_limit=50 * RATE_SCALE))
    bid = anna.buys(27_000, at=14_970, auto_borrow=True)
    ben.sells(27_000, at=14_970, time_in_force=IOC)
    assert sums(anna).equity > sums(anna).initial
    assert bid.order_id not in desk.state.orders


def test_a_touch_in_the_moment_a_period_ends_does_not_make_it_a_whole_one(desk: Desk, lender: Trader) -> None:
    """A small debt bought back at the same hour touches the lender before the period closes.   [Y-3, S-3, T-101]"""
    exchange = desk.exchange
    usdc = exchange.asset("USDC")
    lending_parameters = desk.state.assets[usdc].lending
    assert lending_parameters is not None
    length = lending_parameters.yield_period_ms * 1_000
    end_us = (exchange.at_us // length + 1) * length
    exchange.do(ReceiveYield(usdc, 1, 10 * USDC, "reward 1", "treasury"))
    exchange.advance((end_us - exchange.at_us) // 1_000_000 + 1)

    end_us += length
    exchange.do(ReceiveYield(usdc, 1, 1_000 * USDC, "reward 2", "treasury"))
    anna = desk.trader("anna", usdc=1_000_010 * USDC, sol=0)
    borrows(anna, "SOL", 2_000_000)
    exchange.advance((end_us - exchange.at_us) // 1_000_000 - 2)
    lends(anna, "SOL", 1_000_000)
    lends(anna, "USDC", 1_000_000 * USDC)
    exchange.advance(length // 2_000_000)
    before = anna.has("USDC")
    anna.does(UpdateAccount(anna.subaccount))
    exchange.advance(length // 1_000_000)
    anna.does(UpdateAccount(anna.subaccount))
    lender.does(UpdateAccount(lender.subaccount))
    # Two seconds of thirty days beside as large a lender.
    assert anna.has("USDC") - before < USDC // 100
    assert desk.balance(POOL_YIELD, "USDC") <= 0


def test_what_a_provisional_deposit_was_sold_for_does_not_leave(desk: Desk, lender: Trader) -> None:
    """The weight of what is gone covers nothing: its reversal would be owed in full.   [D-5, M-12, T-102]"""
    exchange = desk.exchange
    anna = desk.trader("anna", usdc=0, sol=0)
    exchange.deposit(anna.subaccount, "SOL", 100 * SOL, tx_id="soon gone", final=False)
    lender.buys(10_000, at=15_000)
    anna.sells(10_000, at=15_000, time_in_force=IOC)
    asked = RequestWithdrawal(anna.subaccount, 1, exchange.asset("USDC"), 1_000 * USDC, ADDRESS)
    rejection = anna.tries(asked).rejection
    assert rejection is not None and rejection.reason is RejectReason.INSUFFICIENT_MARGIN


def test_dust_of_an_asset_without_a_price_is_not_paid_for_at_the_last_one(desk: Desk, lender: Trader) -> None:
    """[S-3, P-2, T-103]"""
    exchange = desk.exchange
    anna = desk.trader("anna", usdc=0, sol=9_000_000)
    desk.state.pricing[exchange.asset("SOL")].live_until_us = exchange.at_us
    exchange.advance(3_600)
    rejection = anna.tries(ConvertDust(anna.subaccount)).rejection
    assert rejection is not None and rejection.reason is RejectReason.NOTHING_TO_CONVERT


def test_a_reversal_redeems_what_is_idle(desk: Desk) -> None:
    """[D-5]"""
    exchange = desk.exchange
    anna = desk.trader("anna", usdc=0, sol=0)
    ben = desk.trader("ben", usdc=10**6 * USDC, sol=0)
    tx = exchange.deposit(anna.subaccount, "SOL", 100 * SOL)
    lends(anna, "SOL", 100 * SOL)
    borrows(ben, "SOL", 50 * SOL)
    exchange.do(OrphanDeposit(1, tx, 0))
    exchange.do(ReverseDeposit(1, tx, 0))
    sol = exchange.asset("SOL")
    owed = margin.owed_atoms(desk.state, desk.state.subaccounts[anna.subaccount], sol, exchange.at_us)
    assert owed == 50 * SOL
    assert lending.totals(desk.state, desk.state.pools[sol], exchange.at_us).idle == 0


def test_an_empty_pool_cannot_be_ground_until_it_takes_no_loans(desk: Desk) -> None:
    """Who leaves leaves up to an atom behind; that must not make one share worth many.   [B-4, B-8, T-106]"""
    usdc = desk.exchange.asset("USDC")
    anna, ben = desk.trader("anna", usdc=10**9, sol=0), desk.trader("ben", usdc=1_000, sol=0)
    carl = desk.trader("carl", usdc=10**9, sol=10**6 * SOL)
    subaccounts = desk.state.subaccounts
    lends(ben, "USDC", 1)
    pool = desk.state.pools[usdc]
    for _round in range(2_500):
        lends(anna, "USDC", 10**6)
        borrows(carl, "USDC", 9 * 10**5)
        desk.exchange.at_us += 900_000_000
        lends(carl, "USDC", lending.debt(desk.state, subaccounts[carl.subaccount], usdc, desk.exchange.at_us))
        borrows(anna, "USDC", lending.claim(desk.state, subaccounts[anna.subaccount], usdc, desk.exchange.at_us))
        claim = lending.claim(desk.state, subaccounts[ben.subaccount], usdc, desk.exchange.at_us)
        if claim >= 900 and pool_shares_per_atom(desk) > 10**4:
            borrows(ben, "USDC", claim - 1)
    assert lending.lend_room(desk.state, usdc, desk.exchange.at_us) > 0, (pool_shares_per_atom(desk), pool.asset_id)


def pool_shares_per_atom(desk: Desk) -> int:
    now = lending.totals(desk.state, desk.state.pools[desk.exchange.asset("USDC")], desk.exchange.at_us)
    return now.lend_shares // now.lent


def test_the_loss_of_open_orders_is_kept_and_not_added_up_each_time(desk: Desk, lender: Trader) -> None:
    """A thousand losing orders cost each of their fills no sum over all, and the kept sum is the sum.   [M-9, T-107]"""
    anna, ben = desk.trader("anna", usdc=3_000 * USDC, sol=0), desk.trader("ben", usdc=0)
    orders = [anna.buys(10, at=15_100 + number, auto_borrow=True) for number in range(100)]
    state, subaccount = desk.state, desk.state.subaccounts[anna.subaccount]

    def counted_again() -> int:
        state.valuations.losing.pop(anna.subaccount, None)
        return margin.open_order_loss(state, subaccount)

    kept = margin.open_order_loss(state, subaccount)
    assert kept == counted_again() > 0
    ben.sells(25, at=15_000, time_in_force=IOC)
    anna.cancels(orders[7].order_id)
    kept = margin.open_order_loss(state, subaccount)
    assert kept == counted_again() > 0
    ben.sells(1, at=15_000, time_in_force=IOC)
    exchange = desk.exchange
    exchange.do(SetPrices(((exchange.asset("SOL"), 151 * PRICE_SCALE),)))
    anna.buys(10, at=15_105, auto_borrow=True)
    kept = margin.open_order_loss(state, subaccount)
    assert kept == counted_again() > 0


def test_a_fee_on_top_does_not_come_out_of_what_the_rest_locks(desk: Desk, lender: Trader) -> None:
    """A bid that locks all of its cash and repays takes a part at its limit and rests.   [S-1, S-3, T-108]"""
    anna = desk.trader("anna", usdc=3_000 * USDC, sol=0)
    borrows(anna, "SOL", 2 * SOL)
    lender.sells(100, at=15_000)
    view = anna.buys(2_000, at=15_000, auto_borrow_repay=True)
    assert view.executed_lots == 100
    assert anna.can_spend("USDC") >= 0
    assert desk.is_balanced()


def test_what_rests_after_a_fill_still_has_its_margin(desk: Desk, lender: Trader) -> None:
    """Its fills cost equity: what is left needs the margin anew, or it ends.   [M-5, M-9, T-109]"""
    anna = desk.trader("anna", usdc=1_000 * USDC, sol=0)
    lender.sells(2_600, at=15_000)
    anna.buys(6_000, at=15_000, auto_borrow=True)
    assert sums(anna).equity > sums(anna).initial


def test_who_has_nothing_borrows_nothing(desk: Desk, lender: Trader) -> None:
    """Or an empty account takes up a whole pool and no lender can redeem.   [M-5, B-8, T-110]"""
    zed = desk.trader("zed", usdc=0, sol=0)
    asked = BorrowLend(zed.subaccount, desk.exchange.asset("USDC"), LendingSide.BORROW, 900_000 * USDC)
    rejection = zed.tries(asked).rejection
    assert rejection is not None and rejection.reason is RejectReason.INSUFFICIENT_MARGIN


def test_paying_a_crumb_back_does_not_excuse_buying_what_counts_for_nothing(desk: Desk, lender: Trader) -> None:
    """A debt of a hundred-thousandth is repaid with 60 SOL that weigh nothing: exempt, it left 7,690 unpaid.

    [M-9, T-116]
    """
    exchange, state = desk.exchange, desk.state
    exchange.deposit(lender.subaccount, "ETH", 10 * SOL)
    lends(lender, "ETH", 10 * SOL)
    junk = msgspec.structs.replace(state.assets[exchange.asset("SOL")], weight=0, weight_kind=WeightKind.IDENTITY)
    exchange.do(ConfigureAsset(junk))
    anna, ben = desk.trader("anna", usdc=10_000 * USDC, sol=0), desk.trader("ben", usdc=0, sol=100 * SOL)
    user_id = state.subaccounts[anna.subaccount].user.user_id
    other: int = anna.does(OpenSubaccount(user_id, bytes(32))).reply.subaccount_id
    for symbol, atoms in (("ETH", 2_900_000_000), ("SOL", 100_000)):
        anna.does(Transfer(anna.subaccount, other, exchange.asset(symbol), atoms, auto_borrow=True))
    anna.buys(6_000, at=14_980)
    ben.sells(6_000, at=14_980, time_in_force=IOC)
    assert sums(anna).equity > 0


def test_fill_or_kill_is_not_half_filled_by_its_own_margin(desk: Desk, lender: Trader) -> None:
    """[S-7, M-9]"""
    anna = desk.trader("anna", usdc=1_000 * USDC, sol=0)
    lender.sells(2_000, at=15_000)
    lender.sells(2_000, at=15_001)
    view = anna.buys(4_000, at=15_001, auto_borrow=True, time_in_force=FOK)
    assert view.executed_lots in (0, 4_000)
    assert view.status is EXPIRED
    # Half of it would pass: then all of it fills.
    assert anna.buys(1_500, at=15_001, auto_borrow=True, time_in_force=FOK).executed_lots == 1_500


def test_one_dollar_does_not_take_up_a_pool(desk: Desk, lender: Trader) -> None:
    """A loan that is only held asks for its margin all the same.   [B-8, M-12]"""
    anna = desk.trader("anna", usdc=0, sol=SOL)
    usdc = desk.exchange.asset("USDC")
    # One SOL counts 135 USD: at 10x no more than 1,350 USDC, in one loan or in many.
    many = BorrowLend(anna.subaccount, usdc, LendingSide.BORROW, 1_350 * USDC)
    rejection = anna.tries(many).rejection
    assert rejection is not None and rejection.reason is RejectReason.INSUFFICIENT_MARGIN
    some = BorrowLend(anna.subaccount, usdc, LendingSide.BORROW, 450 * USDC)
    accepted = [anna.tries(some).rejection is None for _ in range(4)]
    assert accepted == [True, True, False, False]
