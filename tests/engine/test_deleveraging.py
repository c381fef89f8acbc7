"""ADL: who is closed, at which price, and what happens to a loss that nobody took.   [L-6]"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import deleveraging, insurance, margin
from engine.commands import (
    BorrowLend,
    CancelAllOrders,
    LendingSide,
    OrderType,
    Origin,
    PlaceOrder,
    Side,
    TimeInForce,
    UpdateAccount,
)
from engine.events import LiquidationChanged, LossShared, PositionChanged
from engine.state import Liquidation
from ledger.chart import ROUNDING, AccountKind, contracts, cost
from ledger.journal import JournalKind
from tests.engine.ladder import Arena, Member, cross, entries, is_whole, parts
from tests.engine.perps import USDC


def arena() -> Arena:
    return Arena()


def bankrupt(pit: Arena, dollars: int = 1_600, lots: int = 10_000) -> tuple[Member, Member]:
    """(a long of 100 SOL at 150 with little behind it, the short it bought from)."""
    long, short = pit.member("long", dollars), pit.member("short", 100_000)
    cross(long, short, lots, 15_000)
    return long, short


def test_the_only_counterparty_closes_at_the_bankruptcy_price() -> None:
    """1,600 USDC less 20 × 100: E = −400, so 134 instead of 130, and nothing is left or lacking.   [L-6]"""
    pit = arena()
    long, short = bankrupt(pit)
    pit.price(130)
    fees = 1_600 * USDC - long.usdc
    e = pit.e(long)

    done, outcome = pit.step(deleveraging.deleverage, long)

    assert done
    assert e == -400 * 10**8 - fees * 100
    (fill,) = entries(outcome, JournalKind.ADL)
    price = 130 * 10**4 + -(-(400 * USDC + fees) // 10_000)
    assert fill.memo[:5] == (pit.market, long.subaccount, short.subaccount, -10_000, price)
    assert long.lots == short.lots == 0
    assert insurance.own_usdc(pit.state, long.account, pit.exchange.at_us) == 0
    assert is_whole(pit)
    changes = parts(outcome, PositionChanged)
    assert [(each.position.subaccount_id, each.origin) for each in changes] == [
        (long.subaccount, Origin.ADL), (short.subaccount, Origin.ADL)
    ]  # fmt: skip
    (told,) = (each for each in parts(outcome, LiquidationChanged) if each.stage == "adl")
    assert told.counterparty_id == short.subaccount and told.quantity == -10_000
    assert told.mark == 130 * 10**12 and told.price == price * 10**8


def test_an_account_that_keeps_its_maintenance_is_not_deleveraged() -> None:
    pit = arena()
    long, _short = bankrupt(pit)

    done, outcome = pit.step(deleveraging.deleverage, long)

    assert not done and not outcome.journal and long.lots == 10_000


def squeezed(funds: int) -> tuple[Arena, Member, Member, Member]:
    """(a long whose E is about −2,400 at 110, a short of 120 that can spare less than that, who sold to the first)."""
    pit = arena()
    if funds:
        pit.insure(funds)
    long, short = pit.member("long", 1_600), pit.member("short", 100_000)
    cross(long, short, 10_000, 15_000)
    pit.price(120)
    weak, other = pit.member("weak", 1_300), pit.member("other", 100_000)
    cross(other, weak, 10_000, 12_000)
    # What other bought it sells to the first short, so that weak alone is left to close long.
    cross(short, other, 10_000, 12_000)
    pit.price(110)
    return pit, long, weak, short


def test_a_counterparty_closes_only_as_far_as_it_keeps_its_maintenance() -> None:
    """The rest is closed at mark, which costs it nothing; the insurance fund pays what that lacks.   [L-5, L-6]"""
    pit, long, weak, _short = squeezed(5_000)

    _done, outcome = pit.step(deleveraging.deleverage, long)

    at_price, at_mark = entries(outcome, JournalKind.ADL)
    assert at_price.memo[4] > at_mark.memo[4] == 110 * 10**4
    assert 0 < -at_price.memo[3] < 10_000 and at_price.memo[3] + at_mark.memo[3] == -10_000
    assert weak.lots == long.lots == 0
    assert weak.sums().equity >= 0
    (paid,) = entries(outcome, JournalKind.INSURANCE)
    assert paid.memo[2] == 5_000 * USDC - pit.insurance == -at_mark.memo[3] * (at_price.memo[4] - 110 * 10**4)
    assert insurance.own_usdc(pit.state, long.account, pit.exchange.at_us) == 0
    assert is_whole(pit)


def test_without_positions_on_the_other_side_nobody_shares_the_loss() -> None:
    """Who has no open position shares nothing: what is lacking stays until it is written off.   [L-5, L-6]"""
    pit, long, weak, _short = squeezed(0)

    _done, outcome = pit.step(deleveraging.deleverage, long)

    assert not parts(outcome, LossShared)
    assert insurance.own_usdc(pit.state, long.account, pit.exchange.at_us) < 0
    assert weak.sums().equity >= 0
    assert is_whole(pit)


def test_a_loss_nobody_took_is_shared_by_the_opposite_side() -> None:
    """The loss index of the shorts rises, each bears it by lots; the account is left with nothing.   [L-6]"""
    pit, long, weak, _short = squeezed(0)
    left, right = pit.member("left", 50_000), pit.member("right", 50_000)
    cross(left, right, 500, 11_000)
    before = right.sums().equity
    # Nobody but who is in liquidation is left on that side at the bankruptcy price.
    for member in (weak, right):
        pit.state.liquidations[member.subaccount] = Liquidation(0)

    _done, outcome = pit.step(deleveraging.deleverage, long)

    (shared,) = parts(outcome, LossShared)
    assert not shared.is_long_side
    assert pit.book_market.loss_index == [0, shared.per_lot]
    assert insurance.own_usdc(pit.state, long.account, pit.exchange.at_us) == 0
    assert weak.lots == 0 and right.lots == -500
    assert before - right.sums().equity == shared.atoms * 100
    assert is_whole(pit)


def test_the_ranking_takes_who_profits_most_with_the_most_leverage() -> None:
    """Three shorts: one deep in profit, one deep in profit with leverage, one that lost. The fifths say the same."""
    pit = arena()
    crowd = pit.member("crowd", 900_000)
    early, geared = pit.member("early", 90_000), pit.member("geared", 3_000)
    for member in (early, geared):
        cross(crowd, member, 10_000, 15_000)
    pit.price(120)
    late = pit.member("late", 90_000)
    cross(crowd, late, 10_000, 12_000)
    pit.price(125)

    order = deleveraging.ranking(pit.state, pit.book_market, False, pit.exchange.at_us)

    assert [each.subaccount_id for each in order] == [geared.subaccount, early.subaccount, late.subaccount]
    assert deleveraging.quantiles(pit.state, pit.book_market, pit.exchange.at_us) == {
        geared.subaccount: 5, early.subaccount: 4, late.subaccount: 2, crowd.subaccount: 5
    }  # fmt: skip


def test_collateral_that_nobody_buys_goes_to_the_insurance_fund_at_mark() -> None:
    """It pays as far as it has USDC; the rest of it passes in kind to who closed the position, at mark.   [L-6]"""
    pit = arena()
    pit.price(3_000, "ETH")
    pit.insure(1_000)
    long, short = pit.member("long", 100, ETH=10**18 // 10**9), pit.member("short", 100_000)
    cross(long, short, 10_000, 15_000)
    pit.price(122)
    assert long.sums().is_in_liquidation and pit.e(long) > 0
    eth = pit.exchange.asset("ETH")

    _done, outcome = pit.step(deleveraging.deleverage, long)

    bought, passed = entries(outcome, JournalKind.COLLATERAL_TAKEN)
    assert bought.memo[1] == "collateral" and passed.memo[1] == "adl"
    assert pit.state.taken == {eth: bought.memo[4]}
    assert bought.memo[2] == bought.memo[4] * 3_000 // 1_000 <= 1_010 * USDC
    assert short.has("ETH") == passed.memo[4] > 0
    assert long.has("ETH") < 3
    assert insurance.own_usdc(pit.state, long.account, pit.exchange.at_us) >= 0
    assert is_whole(pit)


def test_reduce_only_orders_of_a_counterparty_shrink() -> None:
    pit = arena()
    long, short = bankrupt(pit)
    kept = short.trade(Side.BID, 10_000, 9_000, reduce_only=True).reply
    other = pit.member("other", 100_000)
    cross(other, short, 2_000, 15_000)
    pit.price(130)

    pit.step(deleveraging.deleverage, long)

    assert short.lots == -2_000
    order = short.account.orders[kept.order_id]
    assert order.lots == 2_000 and pit.bids() == [(9_000, 2_000)]


def test_reduce_only_orders_end_with_the_position() -> None:
    pit = arena()
    long, short = bankrupt(pit)
    short.trade(Side.BID, 10_000, 9_000, reduce_only=True)
    pit.price(130)

    pit.step(deleveraging.deleverage, long)

    assert (not short.account.orders and not pit.bids() and short.position is None) or short.lots == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(120, 400), st.integers(50, 4_000), st.integers(80, 130)), min_size=1, max_size=5),
    st.integers(60, 128),
    st.integers(0, 3_000),
    st.booleans(),
)
def test_adl_takes_no_counterparty_below_zero_and_loses_no_value(
    shorts: list[tuple[int, int, int]], price: int, funds: int, is_mirrored: bool
) -> None:
    """Any crowd, any gap: counterparties keep their maintenance if they had it, fills conserve lots and value, what the
    account lacks in the end is nothing unless nobody is left to share it.   [L-6]
    """
    pit = arena()
    if funds:
        pit.insure(funds)
    long = pit.member("long", 3_000)
    rich = pit.member("rich", 10**6)
    crowd = []
    for number, (dollars, lots, entry) in enumerate(shorts):
        member = pit.member(f"short{number}", dollars * 10)
        crowd.append(member)
        pit.price(entry)
        (cross(member, rich, lots, entry * 100) if is_mirrored else cross(rich, member, lots, entry * 100)) if (
            dollars * 10 > lots * entry * 3 // 1_000
        ) else None
    pit.price(150)
    if is_mirrored:
        cross(rich, long, 15_000, 15_000)
    else:
        cross(long, rich, 15_000, 15_000)
    pit.price(300 - price if is_mirrored else price)
    healthy = [member for member in [*crowd, rich] if not member.sums().is_in_liquidation]
    before = {member.subaccount: member.sums() for member in healthy}
    worth = _worth(pit)

    done, outcome = pit.step(deleveraging.deleverage, long)

    assert is_whole(pit)
    assert _worth(pit) == worth
    if not done:
        return
    assert long.lots == 0
    shared = parts(outcome, LossShared)
    for member in healthy:
        after = member.sums()
        if not shared:
            assert not after.is_in_liquidation, (before[member.subaccount], after)
    lacking = -insurance.own_usdc(pit.state, long.account, pit.exchange.at_us)
    side = [held for held in pit.book_market.holders.values() if held.lots and (held.lots > 0) == is_mirrored]
    assert lacking <= 0 or not side
    at_mark = [fill for fill in entries(outcome, JournalKind.ADL) if fill.memo[7]]
    if not at_mark:
        assert abs(lacking) <= 15_000


def _worth(pit: Arena) -> int:
    """Everything that accounts, funds and rounding have in USDC, unrealized gains at mark included.   [L-9]"""
    state = pit.state
    usdc = sum(
        -atoms
        for key, atoms in state.balances.items()
        if key & (1 << 24) - 1 == state.usdc and key >> 24 >> 40 not in (AccountKind.CUSTODY,)
    )
    gains = sum(
        margin.unrealized_atoms(held) for each in state.subaccounts.values() for held in each.positions.values()
    )
    rounding = -state.balances.get(ROUNDING << 24 | cost(pit.market), 0)
    return usdc + gains + rounding


def virtual_long() -> tuple[Arena, Member, Member]:
    """A long in virtual mode that has lost 8 a SOL into a claim, and is bankrupt after another fall."""
    pit = arena()
    bank = pit.member("bank", 500_000)
    bank.does(BorrowLend(bank.subaccount, pit.state.usdc, LendingSide.LEND, 400_000 * USDC))
    long, short = pit.member("long", 1_600), pit.member("short", 100_000)
    long.does(UpdateAccount(long.subaccount, auto_realize_pnl=False))
    cross(long, short, 10_000, 15_000)
    pit.price(145)
    pit.exchange.advance(10)
    assert margin.claims_atoms(pit.state, long.account, pit.exchange.at_us) == -500 * USDC
    pit.price(130)
    return pit, long, short


def test_the_claim_of_a_closed_position_is_paid_with_it() -> None:
    """Virtual mode: the claim's loss is in E, and so in the price; closing turns it into the account's own.   [V-4]"""
    pit, long, short = virtual_long()
    e = pit.e(long)

    done, outcome = pit.step(deleveraging.deleverage, long)

    assert done and e < 0 and long.lots == short.lots == 0
    (fill,) = entries(outcome, JournalKind.ADL)
    assert fill.memo[4] - fill.memo[5] == -(e // 10_000 // 100)
    assert not long.account.claims
    assert 0 <= insurance.own_usdc(pit.state, long.account, pit.exchange.at_us) <= 20_000
    assert is_whole(pit)


def test_a_debts_share_of_the_loss_is_left_to_its_lenders() -> None:
    """s_i counts debts: what positions do not bear of E < 0 stays with the account for L-7.   [L-6, L-7]"""
    pit = arena()
    sol = pit.exchange.asset("SOL")
    bank = pit.member("bank", 100_000, SOL=10**12)
    bank.does(BorrowLend(bank.subaccount, sol, LendingSide.LEND, 10**12))
    long, short = pit.member("long", 3_000), pit.member("short", 100_000)
    cross(long, short, 10_000, 15_000)
    long.does(BorrowLend(long.subaccount, sol, LendingSide.BORROW, 5 * 10**9))
    sold = pit.exchange.market("SOL_USDC")
    bank.does(PlaceOrder(bank.subaccount, sold, Side.BID, OrderType.LIMIT, price_ticks=15_000, lots=500))
    long.does(PlaceOrder(long.subaccount, sold, Side.ASK, OrderType.MARKET, TimeInForce.IOC, lots=500))
    bank.does(CancelAllOrders(bank.subaccount))
    pit.price(100)
    frozen = deleveraging.freeze(pit.state, long.account, pit.exchange.at_us)
    assert set(frozen.maintenance) == {contracts(pit.market), sol} and frozen.equity < 0

    _done, outcome = pit.step(deleveraging.deleverage, long)

    (fill,) = entries(outcome, JournalKind.ADL)
    borne = frozen.equity * frozen.maintenance[contracts(pit.market)] // frozen.total
    assert abs((fill.memo[4] - fill.memo[5]) * 10_000 * 100 + borne) <= 10_000 * 100
    left = pit.e(long)
    assert abs(left - frozen.equity * frozen.maintenance[sol] // frozen.total) <= 10_000 * 100
    assert is_whole(pit)
