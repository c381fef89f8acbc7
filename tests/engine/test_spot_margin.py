"""Spot margin: orders that borrow, redeem, repay and lend as they fill.

[S-1, S-2, S-3, S-4, S-6, S-8, M-9, B-5, B-6, B-7, B-8]
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine import lending, margin
from engine.commands import (
    BorrowLend,
    CancelOrder,
    ConfigureAsset,
    ConfigureFees,
    LendingSide,
    SetPrices,
    UpdateAccount,
)
from engine.events import LendingEvent, LendingMoved, LendingSource, OrderExpired
from engine.parameters import PRICE_SCALE, USD_SCALE, FeeSchedule, WeightKind
from engine.rejections import RejectReason
from ledger.journal import JournalKind
from tests.engine.desk import BID, EXPIRED, FILLED, FOK, IOC, NEW, Desk, ExpiryReason, Trader

SOL, USDC = 10**9, 10**6


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    exchange = desk.exchange
    exchange.do(SetPrices(((exchange.asset("SOL"), 150 * PRICE_SCALE), (exchange.asset("ETH"), 3_000 * PRICE_SCALE))))
    return desk


@pytest.fixture
def lender(desk: Desk) -> Trader:
    """Lends 100,000 USDC and 1,000 SOL, and keeps as much to trade with."""
    lender = desk.trader("lender", usdc=200_000 * USDC, sol=2_000 * SOL)
    lends(lender, "USDC", 100_000 * USDC)
    lends(lender, "SOL", 1_000 * SOL)
    return lender


def lends(trader: Trader, symbol: str, atoms: int) -> None:
    trader.does(BorrowLend(trader.subaccount, trader.desk.exchange.asset(symbol), LendingSide.LEND, atoms))


def owes(trader: Trader, symbol: str) -> int:
    desk = trader.desk
    subaccount = desk.state.subaccounts[trader.subaccount]
    return lending.debt(desk.state, subaccount, desk.exchange.asset(symbol), desk.exchange.at_us)


def lends_now(trader: Trader, symbol: str) -> int:
    desk = trader.desk
    subaccount = desk.state.subaccounts[trader.subaccount]
    return lending.claim(desk.state, subaccount, desk.exchange.asset(symbol), desk.exchange.at_us)


def moves(desk: Desk) -> list[tuple[LendingEvent, LendingSource, int]]:
    return [(each.event, each.source, each.atoms) for each in desk.reported(LendingMoved)]


def test_buying_beyond_cash_borrows_the_rest_in_the_fills_own_transaction(desk: Desk, lender: Trader) -> None:
    anna = desk.trader("anna", usdc=1_000 * USDC, sol=0)
    lender.sells(10_000, at=15_000)
    # 20 SOL cost 3,000: 1,000 are there, 2,000 are borrowed.
    view = anna.buys(2_000, at=15_000, auto_borrow=True, auto_lend_redeem=True)

    assert view.status is FILLED
    assert owes(anna, "USDC") == 2_000 * USDC
    assert anna.has("USDC") == 0 and anna.has("SOL") == 20 * SOL * 999 // 1000
    assert moves(desk) == [(LendingEvent.BORROW, LendingSource.SPOT_MARGIN, 2_000 * USDC)]
    assert [entry.kind for entry in desk.last.journal] == [JournalKind.TRADE]
    assert desk.is_balanced()


def test_selling_short_borrows_the_base_and_buying_back_repays_it_whole(desk: Desk, lender: Trader) -> None:
    anna = desk.trader("anna", usdc=10_000 * USDC, sol=0)
    lender.buys(1_000, at=15_000)
    anna.sells(1_000, at=15_000, auto_borrow=True)
    assert owes(anna, "SOL") == 10 * SOL

    lender.sells(1_000, at=15_000)
    anna.buys(1_000, at=15_000, auto_borrow_repay=True)
    # The fee of a buy that repays is paid in quote, so 10 SOL repay 10 SOL.   [S-3]
    (trade,) = desk.trades()
    assert trade.taker_fee_asset_id == desk.exchange.asset("USDC")
    assert owes(anna, "SOL") == 0 and anna.has("SOL") == 0
    assert not desk.state.subaccounts[anna.subaccount].margined
    assert desk.is_balanced()


def test_the_worked_example_of_the_largest_buy(desk: Desk) -> None:
    """100 USDC, f = 0.1, w = 0.9625: just under 800 USDC of SOL before fees.   [S-6]"""
    exchange = desk.exchange
    sol = exchange.state.assets[exchange.asset("SOL")]
    exchange.do(ConfigureAsset(replace(sol, weight=962_500_000, weight_kind=WeightKind.IDENTITY)))
    fees = exchange.state.fees
    free = tuple(replace(tier, maker_rate=0, taker_rate=0) for tier in fees.spot)
    exchange.do(ConfigureFees(FeeSchedule(free, fees.futures, 0)))
    exchange.do(SetPrices(((exchange.asset("SOL"), PRICE_SCALE),)))
    lender = desk.trader("lender", usdc=100_000 * USDC)
    lends(lender, "USDC", 100_000 * USDC)
    anna = desk.trader("anna", usdc=100 * USDC, sol=0)

    # A bid may rest with less equity than its fill asks for: it is the fill that is judged as filled.
    lender.sells(80_000, at=100)
    assert anna.buys(80_000, at=100, auto_borrow=True, time_in_force=FOK).status is EXPIRED
    assert anna.buys(79_999, at=100, auto_borrow=True, time_in_force=IOC).status is FILLED


def test_a_plain_order_never_borrows_but_redeems_what_is_lent(desk: Desk, lender: Trader) -> None:
    anna = desk.trader("anna", usdc=1_000 * USDC, sol=0)
    lends(anna, "USDC", 1_000 * USDC)
    assert anna.is_refused(BID, 15_000, 1_000) is RejectReason.INSUFFICIENT_FUNDS

    view = anna.buys(400, at=15_000)
    assert view.status is NEW
    assert lends_now(anna, "USDC") == 400 * USDC and anna.has("USDC") == 600 * USDC and anna.can_spend("USDC") == 0
    anna.cancels(view.order_id)
    assert anna.can_spend("USDC") == 600 * USDC


def test_auto_lend_lends_what_is_free_again(desk: Desk, lender: Trader) -> None:
    anna = desk.trader("anna", usdc=1_000 * USDC, sol=0)
    anna.does(UpdateAccount(anna.subaccount, auto_lend=True))
    assert anna.has("USDC") == 0 and lends_now(anna, "USDC") == 1_000 * USDC

    view = anna.buys(400, at=15_000)
    assert lends_now(anna, "USDC") == 400 * USDC
    anna.does(CancelOrder(anna.subaccount, desk.market, view.order_id))
    assert lends_now(anna, "USDC") == 1_000 * USDC and anna.has("USDC") == 0
    manual = BorrowLend(anna.subaccount, desk.exchange.asset("USDC"), LendingSide.BORROW, USDC)
    rejection = anna.tries(manual).rejection
    assert rejection is not None and rejection.reason is RejectReason.AUTO_LEND_IS_ON


def test_an_order_beyond_equity_is_refused_and_changes_nothing(desk: Desk, lender: Trader) -> None:
    anna = desk.trader("anna", usdc=100 * USDC, sol=0)
    lender.sells(10_000, at=15_000)
    before = dict(desk.state.balances)
    assert anna.is_refused(BID, 15_000, 1_000, auto_borrow=True) is RejectReason.INSUFFICIENT_MARGIN
    assert desk.state.balances == before


def test_a_maker_that_can_no_longer_borrow_expires_and_matching_goes_on(desk: Desk, lender: Trader) -> None:
    anna = desk.trader("anna", usdc=500 * USDC, sol=0)
    ben = desk.trader("ben")
    first = anna.buys(1_000, at=15_000, auto_borrow=True)
    lender.buys(500, at=14_990)
    # The pool lets nobody borrow any more.
    desk.state.pools[desk.exchange.asset("USDC")].bound = 0
    ben.sells(500, at=14_990)

    expired = [event.order for event in desk.reported(OrderExpired)]
    assert [(order.order_id, order.expiry_reason) for order in expired] == [
        (first.order_id, ExpiryReason.INSUFFICIENT_BORROWABLE_QUANTITY)
    ]
    assert desk.fills() == [(14_990, 500)]
    assert not desk.state.subaccounts[anna.subaccount].promised


def test_a_fill_or_kill_counts_on_no_maker_that_might_fail(desk: Desk, lender: Trader) -> None:
    anna = desk.trader("anna", usdc=500 * USDC, sol=0)
    ben = desk.trader("ben")
    anna.buys(1_000, at=15_000, auto_borrow=True)
    lender.buys(500, at=14_990)
    desk.state.pools[desk.exchange.asset("USDC")].bound = 0

    assert ben.sells(600, at=14_990, time_in_force=FOK).status is EXPIRED
    assert desk.fills() == []
    assert ben.sells(500, at=14_990, time_in_force=FOK).status is FILLED


def test_interest_accrues_with_time_and_is_owed(desk: Desk, lender: Trader) -> None:
    anna = desk.trader("anna", usdc=100_000 * USDC, sol=0)
    borrow = BorrowLend(anna.subaccount, desk.exchange.asset("SOL"), LendingSide.BORROW, 100 * SOL)
    anna.does(borrow)
    assert owes(anna, "SOL") == 100 * SOL
    desk.exchange.advance(86_400)
    # U = 10 %: 1 % + (10 % − 1 %) × 0.1 / 0.8 = 2.125 % a year.
    assert owes(anna, "SOL") == pytest.approx(100 * SOL * (1 + 0.02125 / 365), rel=1e-6)
    assert lends_now(lender, "SOL") > 1_000 * SOL
    assert desk.is_balanced()


def test_what_counts_of_an_account(desk: Desk, lender: Trader) -> None:
    anna = desk.trader("anna", usdc=10_000 * USDC, sol=10 * SOL)
    borrow = BorrowLend(anna.subaccount, desk.exchange.asset("ETH"), LendingSide.BORROW, SOL)
    rejection = anna.tries(borrow).rejection
    assert rejection is not None and rejection.reason is RejectReason.INSUFFICIENT_SUPPLY
    subaccount = desk.state.subaccounts[anna.subaccount]
    found = margin.sums(desk.state, subaccount, desk.exchange.at_us)
    # 10,000 USDC and 10 SOL × 150 × 0.9.
    assert found.equity == 11_350 * USD_SCALE and not found.is_exposed
