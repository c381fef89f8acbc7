"""Accounts valued and judged, against exact rationals worked here.

[C-1, C-2, C-3, C-4, M-1, M-3, M-5, M-9, M-10, M-11, M-12, M-13, B-8, B-10, B-11, U-3]
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, isqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import lending, limits, margin
from engine.commands import (
    BorrowLend,
    ConfigureAsset,
    LendingSide,
    OpenSubaccount,
    PlaceOrder,
    SetPrices,
    UpdateAccount,
)
from engine.events import SettingsChanged
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE, LendingState, WeightKind
from engine.rejections import RejectReason
from engine.state import Subaccount
from tests.engine.desk import ASK, BID, LIMIT, NEW, Desk, Trader

SOL, USDC, ETH = 10**9, 10**6, 10**9


def a_desk() -> Desk:
    desk = Desk()
    exchange = desk.exchange
    exchange.do(SetPrices(((exchange.asset("SOL"), 150 * PRICE_SCALE), (exchange.asset("ETH"), 3_000 * PRICE_SCALE))))
    lender = desk.trader("lender", usdc=10**7 * USDC, sol=10**6 * SOL)
    exchange.deposit(lender.subaccount, "ETH", 10**5 * ETH)
    for symbol, atoms in (("USDC", 10**6 * USDC), ("SOL", 10**5 * SOL), ("ETH", 10**4 * ETH)):
        lender.does(BorrowLend(lender.subaccount, exchange.asset(symbol), LendingSide.LEND, atoms))
    return desk


@pytest.fixture
def desk() -> Desk:
    return a_desk()


def account(trader: Trader) -> Subaccount:
    return trader.desk.state.subaccounts[trader.subaccount]


def summed(trader: Trader) -> margin.Sums:
    return margin.sums(trader.desk.state, account(trader), trader.desk.exchange.at_us)


def loan(trader: Trader, symbol: str, side: LendingSide, atoms: int) -> BorrowLend:
    return BorrowLend(trader.subaccount, trader.desk.exchange.asset(symbol), side, atoms)


def borrows(trader: Trader, symbol: str, atoms: int) -> None:
    trader.does(loan(trader, symbol, LendingSide.BORROW, atoms))


def refused(trader: Trader, command: object) -> RejectReason:
    rejection = trader.tries(command).rejection  # type: ignore[arg-type]
    assert rejection is not None, "it was accepted"
    return rejection.reason


def worked(desk: Desk, subaccount: Subaccount) -> tuple[int, int, int, int]:
    """(equity, initial, maintenance, notional) as the rules say, in Fractions; nothing of the engine's arithmetic."""
    state = desk.state
    equity = initial = maintenance = notional = 0
    for asset_id, asset in state.assets.items():
        price = Fraction(state.marks.get(asset_id, PRICE_SCALE if asset.symbol == "USDC" else 0), PRICE_SCALE)
        unit = 10**asset.decimals
        held = state.held(subaccount.subaccount_id, asset_id)
        lent = lending.claim(state, subaccount, asset_id, desk.exchange.at_us)
        owed = lending.debt(state, subaccount, asset_id, desk.exchange.at_us)
        paying = 0
        for order in subaccount.orders.values():
            parameters = order.market.parameters
            lots = order.lots - order.executed_lots
            quote = lots * order.price_ticks * parameters.tick_value_atoms
            if order.side is BID and parameters.quote_asset_id == asset_id:
                fee = ceil(Fraction(quote * state.fees.spot[0].taker_rate, RATE_SCALE)) if order.flags & 24 else 0
                paying += quote + fee
            if order.side is ASK and parameters.base_asset_id == asset_id:
                paying += lots * parameters.lot_atoms
        quantity = held + lent
        weight = Fraction(asset.weight, RATE_SCALE)
        if asset.weight_kind is WeightKind.INVERSE_SQRT:
            root = Fraction(isqrt(quantity * 10**8 // unit), 10**4)
            curve = Fraction(asset.weight_base, RATE_SCALE) / (1 + Fraction(asset.weight_penalty, RATE_SCALE) * root)
            weight = min(weight, Fraction(floor(curve * RATE_SCALE), RATE_SCALE))
        equity += floor(Fraction(quantity, unit) * price * weight * USD_SCALE)
        equity -= ceil(Fraction(owed, unit) * price * USD_SCALE)
        for exposed, is_initial in ((paying + owed - quantity, True), (owed - quantity, False)):
            if exposed <= 0:
                continue
            usd = ceil(Fraction(exposed, unit) * price * USD_SCALE)
            root = Fraction(isqrt(usd), 10**4)
            mmf = max(Fraction(asset.mmf_base, RATE_SCALE), Fraction(asset.mmf_factor, RATE_SCALE) * root)
            leverage = Fraction(ceil(Fraction(RATE_SCALE**2, subaccount.leverage_limit)), RATE_SCALE)
            factor = Fraction(asset.imf_factor, RATE_SCALE)
            imf = max(Fraction(asset.imf_base, RATE_SCALE), leverage, factor * root, mmf * 5 / 4)
            if is_initial:
                notional += usd
                initial += ceil(usd * imf)
            else:
                maintenance += ceil(usd * mmf)
    return equity, initial, maintenance, notional


@settings(max_examples=60, deadline=None)
@given(
    usdc=st.integers(1, 10**6 * USDC),
    sol=st.integers(0, 5_000 * SOL),
    debts=st.lists(st.tuples(st.sampled_from(("USDC", "SOL", "ETH")), st.integers(1, 10**5)), max_size=3),
    lent=st.integers(0, 100),
    orders=st.lists(
        st.tuples(st.sampled_from((BID, ASK)), st.integers(14_000, 16_000), st.integers(1, 9_999), st.booleans()),
        max_size=4,
    ),
    seconds=st.sampled_from((0, 1, 3_600, 10**6)),
    price=st.integers(120, 170),
)
def test_sums_are_what_exact_rationals_give(
    usdc: int,
    sol: int,
    debts: list[tuple[str, int]],
    lent: int,
    orders: list[tuple[object, int, int, bool]],
    seconds: int,
    price: int,
) -> None:
    desk = a_desk()
    anna = desk.trader("anna", usdc=usdc, sol=sol)
    if lent and sol:
        anna.tries(loan(anna, "SOL", LendingSide.LEND, sol * lent // 100 // 10**5 * 10**5))
    for symbol, size in debts:
        asset = desk.state.assets[desk.exchange.asset(symbol)]
        anna.tries(loan(anna, symbol, LendingSide.BORROW, size * asset.step_atoms * 100))
    for side, at, lots, borrowing in orders:
        anna.tries(anna.order(side, at, lots, auto_borrow=borrowing, auto_lend_redeem=borrowing))  # type: ignore[arg-type]
    desk.exchange.advance(seconds)
    desk.exchange.do(SetPrices(((desk.exchange.asset("SOL"), price * PRICE_SCALE),)))
    found = summed(anna)
    assert (found.equity, found.initial, found.maintenance, found.notional) == worked(desk, account(anna))

    # The same account line by line.
    lines = margin.holdings(desk.state, account(anna), desk.exchange.at_us)
    assert sum(line.value - line.liability for line in lines) == found.equity
    assert sum(line.initial for line in lines) == found.initial
    assert sum(line.maintenance for line in lines) == found.maintenance


def test_a_lower_leverage_limit_counts_at_once_or_is_refused(desk: Desk) -> None:
    anna = desk.trader("anna", usdc=1_000 * USDC, sol=0)
    borrows(anna, "SOL", 10 * SOL)
    # 1,500 owed, 1,000 + 1,350 − 1,500 = 850 left; at 10x 150 of margin, but it holds what it owes: no exposure.
    assert summed(anna).notional == 0
    seller = desk.trader("seller", sol=10**4 * SOL)
    seller.buys(1_000, at=15_000)
    anna.sells(900, at=15_000)
    before = summed(anna)
    assert before.notional > 0
    anna.does(UpdateAccount(anna.subaccount, leverage_limit=5 * RATE_SCALE))
    assert summed(anna).initial == pytest.approx(before.initial * 2, abs=2)
    state = dict(desk.state.balances)
    assert refused(anna, UpdateAccount(anna.subaccount, leverage_limit=RATE_SCALE)) is RejectReason.MAX_LEVERAGE
    assert account(anna).leverage_limit == 5 * RATE_SCALE and desk.state.balances == state
    assert not desk.reported(SettingsChanged)


def test_what_is_owed_counts_once_and_what_is_lent_counts_whole(desk: Desk) -> None:
    anna = desk.trader("anna", usdc=10_000 * USDC, sol=100 * SOL)
    before = summed(anna).equity
    anna.does(loan(anna, "SOL", LendingSide.LEND, 60 * SOL))
    assert summed(anna).equity == before
    # Borrowing USDC that one holds already is no exposure; what is held beside a debt of the same asset cancels out.
    borrows(anna, "USDC", 1_000 * USDC)
    now = summed(anna)
    assert (now.equity, now.initial, now.notional, now.is_exposed) == (before, 0, 0, False)


def test_what_leaves_needs_equity_at_the_worst_of_mark_index_and_mean(desk: Desk) -> None:
    """After a fall the 5-minute mean still stands high: a debt counts at it, collateral at the low mark.   [M-12]"""
    desk.exchange.advance(300)
    anna = desk.trader("anna", usdc=0, sol=100 * SOL)
    usdc, sol = desk.exchange.asset("USDC"), desk.exchange.asset("SOL")

    def most(trader: Trader, asset_id: int) -> int:
        return limits.max_withdrawal(desk.state, account(trader), asset_id, desk.exchange.at_us + 1, may_borrow=True)

    # 100 × 150 × 0.9 = 13,500 = debt × (1 + 0.1): 12,272.72 less an atom, since M-5 is strict.
    high = most(anna, usdc)
    assert high == 13_500 * 10 * USDC // 11 - (13_500 * 10 * USDC % 11 == 0)
    desk.exchange.do(SetPrices(((sol, 120 * PRICE_SCALE),)))
    assert most(anna, usdc) == pytest.approx(high * 120 / 150, rel=1e-6)
    desk.exchange.do(SetPrices(((sol, 180 * PRICE_SCALE),)))
    # The price has risen, but the mean has not: the collateral counts at 150 as before.
    assert most(anna, usdc) == high

    ben = desk.trader("ben", usdc=10_000 * USDC, sol=0)
    desk.exchange.do(SetPrices(((sol, 150 * PRICE_SCALE),)))
    even = most(ben, sol)
    desk.exchange.do(SetPrices(((sol, 100 * PRICE_SCALE),)))
    # The debt counts at the mean of 150, not at the mark of 100.
    assert most(ben, sol) == even


def test_a_preview_says_what_the_order_would_do_and_does_nothing(desk: Desk) -> None:
    anna = desk.trader("anna", usdc=1_000 * USDC, sol=0)
    sequence = desk.state.sequence
    order = anna.order(BID, 15_000, 2_000, order_type=LIMIT, auto_borrow=True)
    seen = limits.preview(desk.state, order, desk.exchange.at_us)
    assert seen.refusal is None and desk.state.sequence == sequence
    # 3,000 USDC for 20 SOL less 0.1 %: 2,000 owed, 19.98 × 150 × 0.9 of value.
    assert seen.before.equity == 1_000 * USD_SCALE and seen.filled.equity == 69_730_000_000
    assert seen.filled.initial == 200 * USD_SCALE and seen.filled.maintenance == 20 * USD_SCALE
    # 19.98 × p × 0.9 − 2,000 = 20 at 112.3346.
    assert seen.liquidation_price == pytest.approx(112.33456 * PRICE_SCALE, rel=1e-6)
    too_much = limits.preview(
        desk.state, anna.order(BID, 15_000, 9_000, order_type=LIMIT, auto_borrow=True), desk.exchange.at_us
    )
    assert too_much.refusal is not None and too_much.refusal.reason is RejectReason.INSUFFICIENT_MARGIN


@pytest.mark.parametrize("state", [LendingState.CLOSED, LendingState.REPAY_ONLY])
def test_a_market_that_is_not_open_lends_nothing_out(desk: Desk, state: LendingState) -> None:
    anna = desk.trader("anna", usdc=10_000 * USDC, sol=100 * SOL)
    borrows(anna, "SOL", 10 * SOL)
    sol = desk.state.assets[desk.exchange.asset("SOL")]
    assert sol.lending is not None
    desk.exchange.do(ConfigureAsset(replace(sol, lending=replace(sol.lending, state=state))))
    assert refused(anna, loan(anna, "SOL", LendingSide.BORROW, SOL)) is RejectReason.LENDING_CLOSED
    assert refused(anna, loan(anna, "SOL", LendingSide.LEND, 11 * SOL)) is RejectReason.LENDING_CLOSED
    repaying = anna.tries(loan(anna, "SOL", LendingSide.LEND, 10 * SOL))
    assert (repaying.rejection is None) == (state is LendingState.REPAY_ONLY)


def test_caps_and_limits_of_loans(desk: Desk) -> None:
    anna = desk.trader("anna", usdc=10**7 * USDC, sol=0)
    sol = desk.state.assets[desk.exchange.asset("SOL")]
    assert sol.lending is not None
    capped = replace(sol, lending=replace(sol.lending, open_limit_atoms=100 * SOL))
    desk.exchange.do(ConfigureAsset(capped))
    assert refused(anna, loan(anna, "SOL", LendingSide.BORROW, 101 * SOL)) is RejectReason.BORROW_LIMIT
    borrows(anna, "SOL", 100 * SOL)
    ben = desk.trader("ben", sol=200 * SOL)
    assert refused(ben, loan(ben, "SOL", LendingSide.LEND, SOL)) is RejectReason.LEND_LIMIT
    assert refused(ben, loan(ben, "SOL", LendingSide.LEND, SOL + 1)) is RejectReason.INVALID_QUANTITY
    desk.state.limits = replace(desk.state.limits, borrow_limit_usd=20_000 * USD_SCALE)
    assert refused(anna, loan(anna, "USDC", LendingSide.BORROW, 6_000 * USDC)) is RejectReason.BORROW_LIMIT
    borrows(anna, "ETH", ETH)


def test_one_subaccount_at_the_brink_changes_nothing_of_the_users_others(desk: Desk) -> None:
    """Risk is isolated: what one owes is not in the other's sums.   [U-3]"""
    anna = desk.trader("anna", usdc=1_000 * USDC, sol=0)
    second = anna.does(OpenSubaccount(account(anna).user.user_id, b"2" * 32)).reply.subaccount_id
    desk.exchange.deposit(second, "USDC", 500 * USDC)
    borrows(anna, "SOL", 10 * SOL)
    desk.exchange.do(SetPrices(((desk.exchange.asset("SOL"), 900 * PRICE_SCALE),)))
    other = margin.sums(desk.state, desk.state.subaccounts[second], desk.exchange.at_us)
    assert (other.equity, other.notional, other.is_exposed) == (500 * USD_SCALE, 0, False)
    assert limits.max_withdrawal(
        desk.state, desk.state.subaccounts[second], desk.exchange.asset("USDC"), desk.exchange.at_us, False
    ) == 500 * USDC  # fmt: skip


def test_settings_that_repay_take_what_comes_in(desk: Desk) -> None:
    """autoRepayBorrows: a deposit repays the debt of its asset, the rest stays available.   [B-10]"""
    anna = desk.trader("anna", usdc=10_000 * USDC, sol=0)
    borrows(anna, "SOL", 10 * SOL)
    anna.does(UpdateAccount(anna.subaccount, auto_repay_borrows=True))
    assert anna.has("SOL") == 0, "what was borrowed and lay idle repaid at once"
    borrowing = PlaceOrder(anna.subaccount, desk.market, ASK, LIMIT, price_ticks=15_000, lots=500, auto_borrow=True)
    desk.trader("ben").buys(500, at=15_000)
    anna.does(borrowing)
    desk.exchange.deposit(anna.subaccount, "SOL", 7 * SOL)
    assert lending.debt(desk.state, account(anna), desk.exchange.asset("SOL"), desk.exchange.at_us) == 0
    assert anna.has("SOL") == 2 * SOL


def test_an_order_that_only_reduces_is_exempt_and_fills_only_to_the_better(desk: Desk) -> None:
    """Under water, buying back at or under the mark is let in; above it, only as far as it brings no nearer.   [M-9]"""
    anna = desk.trader("anna", usdc=1_000 * USDC, sol=0)
    ben = desk.trader("ben")
    ben.buys(4_000, at=15_000)
    anna.sells(4_000, at=15_000, auto_borrow=True)
    desk.exchange.do(SetPrices(((desk.exchange.asset("SOL"), 165 * PRICE_SCALE),)))
    assert summed(anna).equity <= summed(anna).initial, "the account should have no margin left"
    assert anna.is_refused(ASK, 16_500, 100, auto_borrow=True) is RejectReason.INSUFFICIENT_MARGIN
    ben.sells(100, at=16_400)
    better = anna.buys(100, at=16_400, auto_borrow_repay=True)
    assert better.executed_lots == 100
    ben.sells(100, at=18_000)
    worse = anna.buys(100, at=18_000, auto_borrow_repay=True)
    assert worse.executed_lots == 0 and worse.status is not NEW
