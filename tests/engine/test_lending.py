"""Money markets: interest with time, the throttle, small pools, dust, outflows.   [B-4, B-7, M-12, D-5, S-3]"""

from __future__ import annotations

from random import Random

import pytest

from engine import lending, limits, margin
from engine.commands import (
    BorrowLend,
    Command,
    ConvertDust,
    FinalizeDeposit,
    LendingSide,
    OpenSubaccount,
    OrphanDeposit,
    RequestWithdrawal,
    ReverseDeposit,
    SetPrices,
    Transfer,
    UpdateAccount,
)
from engine.events import DustConverted, PoolAccrued
from engine.formulas import lending as formulas
from engine.parameters import PRICE_SCALE, RATE_SCALE
from engine.rejections import RejectReason
from ledger.journal import JournalKind
from tests.engine.desk import Desk, Trader

SOL, USDC = 10**9, 10**6
ADDRESS = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin"


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    exchange = desk.exchange
    exchange.do(SetPrices(((exchange.asset("SOL"), 150 * PRICE_SCALE), (exchange.asset("ETH"), 3_000 * PRICE_SCALE))))
    return desk


def lends(trader: Trader, symbol: str, atoms: int) -> None:
    trader.does(BorrowLend(trader.subaccount, trader.desk.exchange.asset(symbol), LendingSide.LEND, atoms))


def borrows(trader: Trader, symbol: str, atoms: int) -> None:
    trader.does(borrowing(trader, symbol, atoms))


def borrowing(trader: Trader, symbol: str, atoms: int) -> BorrowLend:
    return BorrowLend(trader.subaccount, trader.desk.exchange.asset(symbol), LendingSide.BORROW, atoms)


def refused(trader: Trader, command: Command) -> RejectReason:
    before = dict(trader.desk.state.balances)
    rejection = trader.tries(command).rejection
    assert rejection is not None, "it was accepted"
    assert trader.desk.state.balances == before
    return rejection.reason


def owes(trader: Trader, symbol: str) -> int:
    desk = trader.desk
    subaccount = desk.state.subaccounts[trader.subaccount]
    return lending.debt(desk.state, subaccount, desk.exchange.asset(symbol), desk.exchange.at_us)


def claims(trader: Trader, symbol: str) -> int:
    desk = trader.desk
    subaccount = desk.state.subaccounts[trader.subaccount]
    return lending.claim(desk.state, subaccount, desk.exchange.asset(symbol), desk.exchange.at_us)


def test_borrowing_inside_an_hour_is_not_free_and_a_second_earns_a_second(desk: Desk) -> None:
    lender, guest = desk.trader("lender", sol=10**6 * SOL), desk.trader("guest", sol=10**6 * SOL)
    anna = desk.trader("anna", usdc=10**9 * USDC, sol=0)
    lends(lender, "SOL", 100_000 * SOL)
    borrows(anna, "SOL", 50_000 * SOL)
    desk.exchange.advance(10)
    ten = owes(anna, "SOL") - 50_000 * SOL
    # Half is borrowed: 1 % + 9 % × 0.5 / 0.8 = 6.625 % a year, for ten seconds.
    assert ten == pytest.approx(50_000 * SOL * 0.06625 * 10 / 31_536_000, rel=1e-6)

    lends(guest, "SOL", 100_000 * SOL)
    start = claims(guest, "SOL")
    desk.exchange.advance(1)
    second = claims(guest, "SOL") - start
    # A quarter is borrowed now; half of the lenders' interest is the guest's.
    rate = 0.01 + 0.09 * 0.25 / 0.8
    assert second == pytest.approx(50_000 * SOL * rate * 0.85 / 2 / 31_536_000, rel=1e-4)
    assert start == 100_000 * SOL
    told = [each for outcome in desk.exchange.advance(3_600) for each in outcome.events]
    assert [each.asset_id for each in told if isinstance(each, PoolAccrued) and each.lent_atoms] == [
        desk.exchange.asset("SOL")
    ]


def test_fractions_of_an_atom_are_carried_from_touch_to_touch(desk: Desk) -> None:
    """A pool touched every second, where a second's interest is less than an atom, charges what an hour charges."""
    lender, guest = desk.trader("lender", sol=10**3 * SOL), desk.trader("guest", sol=10**3 * SOL)
    anna = desk.trader("anna", usdc=10**6 * USDC, sol=0)
    lends(lender, "SOL", 10 * SOL)
    borrows(anna, "SOL", SOL)
    for _second in range(200):
        desk.exchange.advance(1)
        lends(guest, "SOL", SOL // 10**4)
    # 2.125 % a year of one SOL: 0.67 atoms a second.
    assert owes(anna, "SOL") - SOL == pytest.approx(SOL * 0.02125 * 200 / 31_536_000, abs=2)


def test_a_pool_untouched_for_an_hour_charges_a_year_divided_by_8760(desk: Desk) -> None:
    lender, anna = desk.trader("lender", sol=10**6 * SOL), desk.trader("anna", usdc=10**9 * USDC, sol=0)
    at_us = desk.exchange.at_us
    desk.exchange.advance((3_600_000_000 - at_us % 3_600_000_000) // 1_000_000 + 1)
    desk.exchange.at_us -= desk.exchange.at_us % 3_600_000_000 - 3_600_000_000
    desk.exchange.advance(0)
    lends(lender, "SOL", 100_000 * SOL)
    borrows(anna, "SOL", 40_000 * SOL)
    asset = desk.exchange.asset("SOL")
    pool = desk.state.pools[asset]
    before = lending.totals(desk.state, pool, desk.exchange.at_us)
    rate = lending.borrow_rate(before, lending.lending_parameters(desk.state, asset))
    borrowed, carry = before.borrowed, pool.carry
    after = lending.totals(desk.state, pool, desk.exchange.at_us + 3_600_000_000)
    interest, _carry = divmod(borrowed * rate * 3_600_000 + carry, formulas.RATE_ONE * formulas.YEAR_MS)
    assert after.borrowed - borrowed == interest == borrowed * rate // (8_760 * 10**18)


def test_accrual_does_not_depend_on_how_often_accounts_are_touched(desk: Desk) -> None:
    """Two equal lenders and two equal borrowers: one of each keeps acting elsewhere."""
    quiet, busy = desk.trader("quiet", sol=10**5 * SOL), desk.trader("busy", sol=10**5 * SOL)
    anna, ben = (desk.trader(name, usdc=10**8 * USDC, sol=0) for name in ("anna", "ben"))
    for each in (quiet, busy):
        lends(each, "SOL", 10_000 * SOL)
    for each in (anna, ben):
        borrows(each, "SOL", 3_000 * SOL)
    for _hour in range(30):
        desk.exchange.advance(1_800)
        for each in (busy, ben):
            each.does(UpdateAccount(each.subaccount, leverage_limit=9 * RATE_SCALE))
            order = each.sells(1, at=29_000) if each is busy else each.buys(1, at=10_000)
            each.cancels(order.order_id)
    # Equal to the atom in shares; an atom apart only where one of them came first into a pool that had no interest yet.
    assert abs(claims(quiet, "SOL") - claims(busy, "SOL")) <= 1
    assert abs(owes(anna, "SOL") - owes(ben, "SOL")) <= 1


def test_the_throttle_refuses_at_the_threshold_and_beyond_the_bound(desk: Desk) -> None:
    lender = desk.trader("lender", sol=2_000 * SOL)
    anna = desk.trader("anna", usdc=10**7 * USDC, sol=0)
    lends(lender, "SOL", 1_000 * SOL)
    pool = desk.state.pools[desk.exchange.asset("SOL")]
    # Threshold 0.92, a tenth of the way to 1: 0.928.
    assert pool.bound == 928_000_000
    assert refused(anna, borrowing(anna, "SOL", 928 * SOL + 10**5)) is RejectReason.INSUFFICIENT_SUPPLY
    borrows(anna, "SOL", 925 * SOL)
    # From here U is at 0.925, over the threshold: nothing more may be taken, whatever the bound says.
    assert refused(anna, borrowing(anna, "SOL", SOL // 10)) is RejectReason.INSUFFICIENT_SUPPLY
    assert refused(lender, borrowing(lender, "SOL", SOL)) is RejectReason.INSUFFICIENT_SUPPLY
    desk.exchange.advance(10)
    assert pool.bound > 928_000_000


def test_a_pushed_mark_cannot_be_cashed(desk: Desk) -> None:
    """A book traded up for minutes lifts the mark, not what may be borrowed against it and taken away.   [M-12]"""
    lender = desk.trader("lender", usdc=10**7 * USDC)
    thief, friend = desk.trader("thief", usdc=100_000 * USDC), desk.trader("friend")
    lends(lender, "USDC", 10**6 * USDC)
    desk.exchange.advance(300)
    usdc = desk.exchange.asset("USDC")
    subaccount = desk.state.subaccounts[thief.subaccount]
    before = limits.max_borrow(desk.state, subaccount, usdc, desk.exchange.at_us + 1)
    equity = margin.sums(desk.state, subaccount, desk.exchange.at_us).equity
    thief.buys(100, at=16_500)
    friend.sells(100, at=16_600)
    for _second in range(240):
        desk.exchange.advance(1)
    pushed = margin.sums(desk.state, subaccount, desk.exchange.at_us).equity
    assert pushed > equity * 1_003 // 1_000, "the mark did not move: the test would show nothing"
    after = limits.max_borrow(desk.state, subaccount, usdc, desk.exchange.at_us + 1)
    assert after <= before


def test_what_a_reversed_deposit_left_unpaid_keeps_value_inside(desk: Desk) -> None:
    """Provisional money that was traded away and then taken back by its chain does not leave as something else."""
    seller = desk.trader("seller", usdc=0, sol=1_000 * SOL)
    thief = desk.trader("thief", usdc=0, sol=0)
    tx = desk.exchange.deposit(thief.subaccount, "USDC", 1_500 * USDC, final=False)
    seller.sells(1_000, at=15_000)
    thief.buys(1_000, at=15_000)
    withdrawal = RequestWithdrawal(thief.subaccount, 1, desk.exchange.asset("SOL"), 9 * SOL, ADDRESS)
    assert refused(thief, withdrawal) is RejectReason.INSUFFICIENT_MARGIN
    desk.exchange.do(OrphanDeposit(1, tx, 0))
    desk.exchange.do(ReverseDeposit(1, tx, 0))
    assert desk.state.subaccounts[thief.subaccount].margined
    assert refused(thief, withdrawal) is RejectReason.INSUFFICIENT_MARGIN

    # Paid back, it is an ordinary account again.
    desk.exchange.deposit(thief.subaccount, "USDC", 1_500 * USDC)
    assert not desk.state.subaccounts[thief.subaccount].margined
    thief.does(withdrawal)


def test_provisional_funds_are_not_lent_until_they_are_final(desk: Desk) -> None:
    anna = desk.trader("anna", usdc=0, sol=0)
    anna.does(UpdateAccount(anna.subaccount, auto_lend=True))
    tx = desk.exchange.deposit(anna.subaccount, "USDC", 500 * USDC, final=False)
    assert claims(anna, "USDC") == 0 and anna.has("USDC") == 500 * USDC
    desk.exchange.do(FinalizeDeposit(1, tx, 0))
    assert claims(anna, "USDC") == 500 * USDC and anna.has("USDC") == 0


def test_lent_assets_pass_to_another_subaccount_as_shares(desk: Desk) -> None:
    anna, ben = desk.trader("anna", usdc=0, sol=1_000 * SOL), desk.trader("ben", usdc=10**7 * USDC, sol=0)
    lends(anna, "SOL", 1_000 * SOL)
    borrows(ben, "SOL", 925 * SOL)
    second = anna.does(OpenSubaccount(desk.state.subaccounts[anna.subaccount].user.user_id, b"2" * 32)).reply
    # Over the throttle's threshold nothing is redeemed, but shares pass.
    withdrawal = RequestWithdrawal(anna.subaccount, 1, desk.exchange.asset("SOL"), SOL, ADDRESS)
    assert refused(anna, withdrawal) is RejectReason.INSUFFICIENT_SUPPLY
    anna.does(Transfer(anna.subaccount, second.subaccount_id, desk.exchange.asset("SOL"), 400 * SOL))
    other = desk.state.subaccounts[second.subaccount_id]
    assert claims(anna, "SOL") == 600 * SOL
    assert lending.claim(desk.state, other, desk.exchange.asset("SOL"), desk.exchange.at_us) == 400 * SOL
    assert desk.is_balanced()


def test_a_debt_under_one_lot_is_bought_back_at_the_next_hour(desk: Desk) -> None:
    lender = desk.trader("lender", sol=10_000 * SOL)
    anna = desk.trader("anna", usdc=10_000 * USDC, sol=0)
    lends(lender, "SOL", 1_000 * SOL)
    borrows(anna, "SOL", SOL)
    repay = SOL - 2 * 10**5
    desk.exchange.deposit(anna.subaccount, "SOL", SOL)
    anna.does(BorrowLend(anna.subaccount, desk.exchange.asset("SOL"), LendingSide.LEND, repay // 10**5 * 10**5))
    assert 0 < owes(anna, "SOL") < 10**7
    cash = anna.has("USDC")
    outcomes = desk.exchange.advance(3_600)
    converted = [each for outcome in outcomes for each in outcome.events if isinstance(each, DustConverted)]
    assert [each.subaccount_id for each in converted] == [anna.subaccount]
    assert owes(anna, "SOL") == 0 and cash - anna.has("USDC") == -converted[0].usdc_atoms == 30_000
    assert desk.is_balanced()


def test_holdings_under_one_lot_become_usdc(desk: Desk) -> None:
    anna = desk.trader("anna", usdc=0, sol=9_000_000)
    anna.does(ConvertDust(anna.subaccount))
    assert anna.has("SOL") == 0 and anna.has("USDC") == 9_000_000 * 150 * USDC // SOL
    assert refused(anna, ConvertDust(anna.subaccount)) is RejectReason.NOTHING_TO_CONVERT
    assert [entry.kind for entry in desk.exchange.outcomes[-2].journal] == [JournalKind.DUST_CONVERTED]


@pytest.mark.parametrize("seed", range(8))
def test_coming_and_going_does_not_grind_shares_into_value(desk: Desk, seed: int) -> None:
    """A lender alone with two accounts tries to make one share worth many atoms: a victim loses no more than dust."""
    random = Random(seed)
    first, second = desk.trader("first", sol=10**4 * SOL), desk.trader("second", sol=10**4 * SOL)
    anna = desk.trader("anna", usdc=10**8 * USDC, sol=0)
    asset = desk.exchange.asset("SOL")
    step = desk.state.assets[asset].step_atoms
    for _lap in range(120):
        each = random.choice((first, second))
        claim = claims(each, "SOL")
        if not claim:
            lends(each, "SOL", step * random.choice((1, 2, 1_000, 10**6)))
        elif random.random() < 0.5:
            each.tries(borrowing(each, "SOL", claim))
        else:
            each.tries(borrowing(each, "SOL", max(step, (claim - random.choice((1, step))) // step * step)))
        if owes(anna, "SOL"):
            anna.tries(BorrowLend(anna.subaccount, asset, LendingSide.LEND, owes(anna, "SOL")))
        else:
            anna.tries(borrowing(anna, "SOL", step))
        desk.exchange.advance(random.choice((1, 60, 86_400)))
    victim = desk.trader("victim", sol=10**4 * SOL)
    lends(victim, "SOL", 1_000 * SOL)
    for _lap in range(50):
        for each in (first, second):
            each.tries(BorrowLend(each.subaccount, asset, LendingSide.LEND, step))
    assert claims(victim, "SOL") >= 1_000 * SOL - 50
    pool = lending.totals(desk.state, desk.state.pools[asset], desk.exchange.at_us)
    assert pool.lend_shares < 1 << 100 and pool.debt_shares < 1 << 100
    assert desk.is_balanced()
