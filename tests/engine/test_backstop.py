"""Backstop providers: who may take an account over, what a slice is, what it costs.   [L-4]"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import backstop, insurance, margin
from engine.commands import BorrowLend, LendingSide, Origin, RegisterBackstop
from engine.events import LendingMoved, LendingSource, LiquidationChanged, PositionChanged
from engine.rejections import RejectReason
from engine.state import Liquidation
from ledger.chart import BACKSTOP_FUND
from ledger.journal import JournalKind
from tests.engine.ladder import Arena, Member, cross, entries, is_whole, parts
from tests.engine.perps import USDC
from tests.engine.test_deleveraging import virtual_long

USD = 10**8


def register(member: Member, dollars: int) -> None:
    member.does(RegisterBackstop(member.subaccount, dollars * USD))


def ring(price: int = 136) -> tuple[Arena, Member, Member]:
    """A long of 100 SOL at 150 with 1,600 USDC behind it; at 136 its E is a little under 200."""
    pit = Arena()
    long, short = pit.member("long", 1_600), pit.member("short", 100_000)
    cross(long, short, 10_000, 15_000)
    pit.price(price)
    return pit, long, short


def test_a_provider_receives_the_whole_account_and_pays_half_of_what_it_is_worth() -> None:
    """With one provider k is 1: it takes position, gain and holdings, and pays 50 % of E to the backstop fund."""
    pit, long, _short = ring()
    provider = pit.member("provider", 50_000)
    register(provider, 100_000)
    e, before = pit.e(long), pit.e(provider)

    done, outcome = pit.step(backstop.take_over, long)

    assert done and 0 < e < 200 * USD
    assert (long.lots, long.usdc, provider.lots) == (0, 0, 10_000)
    assert long.position is None and pit.e(long) == 0
    paid = -pit.balance(BACKSTOP_FUND, "USDC")
    assert paid == -(-e // 200)
    assert pit.e(provider) == before + e - paid * 100
    (entry,) = entries(outcome, JournalKind.BACKSTOP)
    assert entry.memo[:8] == (long.subaccount, provider.subaccount, "1", "1", 13_600 * USD, e, paid, 0)
    assert [each[:2] for each in entry.memo[8]] == [(pit.market, 10_000)]
    assert [each.origin for each in parts(outcome, PositionChanged)] == [Origin.BACKSTOP] * 2
    assert provider.account.backstop_usd == (100_000 - 13_600) * USD
    told = parts(outcome, LiquidationChanged)
    assert told[0].stage == "backstop" and told[0].counterparty_id == provider.subaccount
    assert told[0].equity_after_usd == told[0].maintenance_after_usd == 0
    assert is_whole(pit)


def test_slices_follow_capacity_and_the_last_takes_the_rest() -> None:
    """Three of 60, 30 and 10 thousand: 6,000, 3,000 and 1,000 lots, in that order; ties go by id."""
    pit, long, _short = ring()
    small, large, middle = (pit.member(name, 50_000) for name in ("small", "large", "middle"))
    for member, dollars in ((small, 10_000), (large, 60_000), (middle, 30_000)):
        register(member, dollars)

    done, outcome = pit.step(backstop.take_over, long)

    assert done
    assert [entry.memo[1] for entry in entries(outcome, JournalKind.BACKSTOP)] == [
        large.subaccount, middle.subaccount, small.subaccount
    ]  # fmt: skip
    assert (large.lots, middle.lots, small.lots) == (6_000, 3_000, 1_000)
    assert long.usdc == long.lots == 0
    assert is_whole(pit)


def test_nobody_takes_more_than_registered() -> None:
    """A capacity of half the notional takes half of everything; the other half stays for ADL.   [L-4, L-6]"""
    pit, long, _short = ring()
    provider = pit.member("provider", 50_000)
    register(provider, 6_800)
    e = pit.e(long)

    done, _outcome = pit.step(backstop.take_over, long)

    assert not done
    assert (long.lots, provider.lots) == (5_000, 5_000)
    assert abs(2 * pit.e(long) - e) <= 200
    assert provider.account.backstop_usd == 0 and provider.subaccount not in pit.state.backstops
    assert is_whole(pit)


def test_a_provider_whose_own_margin_fails_with_the_slice_is_passed_over() -> None:
    pit, long, _short = ring()
    poor, rich = pit.member("poor", 700), pit.member("rich", 50_000)
    register(poor, 90_000)
    register(rich, 20_000)

    done, outcome = pit.step(backstop.take_over, long)

    assert done and (poor.lots, rich.lots) == (0, 10_000)
    assert len(entries(outcome, JournalKind.BACKSTOP)) == 1
    assert is_whole(pit)


def test_the_insurance_fund_adds_what_the_slice_lacks_of_the_minimum_incentive() -> None:
    """E = −400 or so at 130: the fund adds 25 bps of 13,000 on top, the provider ends 32.50 better off.   [L-4, L-5]"""
    pit, long, _short = ring(130)
    pit.insure(1_000)
    funds = pit.insurance
    provider = pit.member("provider", 50_000)
    register(provider, 100_000)
    e, before = pit.e(long), pit.e(provider)

    done, _outcome = pit.step(backstop.take_over, long)

    assert done and e < 0
    assert funds - pit.insurance == 32_500_000 - e // 100
    assert pit.e(provider) == before + 32_500_000 * 100
    assert pit.balance(BACKSTOP_FUND, "USDC") == 0
    assert is_whole(pit)


def test_where_the_fund_cannot_no_provider_is_bound() -> None:
    pit, long, _short = ring(130)
    provider = pit.member("provider", 50_000)
    register(provider, 100_000)

    done, outcome = pit.step(backstop.take_over, long)

    assert not done and not outcome.journal
    assert (long.lots, provider.lots) == (10_000, 0)


def test_nobody_takes_over_an_account_of_their_own_nor_while_in_liquidation() -> None:
    pit, long, _short = ring()
    other, own = pit.member("other", 50_000), pit.member("own", 50_000)
    register(other, 100_000)
    register(own, 100_000)
    pit.state.liquidations[other.subaccount] = Liquidation(0)
    own.account.user = long.account.user

    done, outcome = pit.step(backstop.take_over, long)

    assert not done and not outcome.journal and long.lots == 10_000


def test_lent_holdings_and_debts_pass_as_shares() -> None:
    """No token leaves a pool: what was lent is lent by the provider then, what was owed is owed by it.   [L-4, B-4]"""
    pit = Arena()
    pit.price(3_000, "ETH")
    bank = pit.member("bank", 500_000, SOL=10**13)
    bank.does(BorrowLend(bank.subaccount, pit.exchange.asset("SOL"), LendingSide.LEND, 10**13))
    debtor = pit.member("debtor", 2_000, ETH=10**9)
    debtor.does(BorrowLend(debtor.subaccount, pit.exchange.asset("ETH"), LendingSide.LEND, 10**9))
    sol = pit.exchange.asset("SOL")
    debtor.does(BorrowLend(debtor.subaccount, sol, LendingSide.BORROW, 20 * 10**9))
    provider, second = pit.member("provider", 90_000), pit.member("second", 90_000)
    register(provider, 4_000)
    register(second, 2_000)
    pit.price(245)
    e = pit.e(debtor)

    done, outcome = pit.step(backstop.take_over, debtor)

    assert done and e > 0
    assert not debtor.account.debts and not debtor.account.lent and pit.e(debtor) == 0
    eth = pit.exchange.asset("ETH")
    assert set(provider.account.lent) == set(second.account.lent) == {eth}
    assert set(provider.account.debts) == set(second.account.debts) == {sol}
    moved = parts(outcome, LendingMoved)
    assert {each.source for each in moved if each.subaccount_id == debtor.subaccount} == {
        LendingSource.LIQUIDATION_BACKSTOP
    }
    assert {each.source for each in moved if each.subaccount_id == provider.subaccount} == {
        LendingSource.BACKSTOP_PROVIDER
    }
    assert is_whole(pit)


def test_registration_is_the_users_own_and_bounded() -> None:
    pit, long, short = ring()
    refused = short.tries(RegisterBackstop(short.subaccount, -1)).rejection
    assert refused is not None and refused.reason is RejectReason.BACKSTOP_LIMIT
    foreign = short.tries(RegisterBackstop(long.subaccount, 5)).rejection
    assert foreign is not None and foreign.reason is RejectReason.NOT_OWNER
    register(short, 5)
    assert pit.state.backstops == {short.subaccount: None}
    register(short, 0)
    assert not pit.state.backstops and not short.account.backstop_usd


@settings(max_examples=60, deadline=None)
@given(
    st.integers(100, 149),
    st.lists(st.tuples(st.integers(100, 40_000), st.integers(100, 30_000)), min_size=1, max_size=4),
    st.integers(0, 3_000),
    st.integers(0, 3 * 10**9),
)
def test_slices_conserve_lots_and_value_and_never_bind_who_would_fall(
    price: int, providers: list[tuple[int, int]], funds: int, ether: int
) -> None:
    """Any capacities, any price: what the account loses the providers and the funds have, to the last atom.   [L-4]"""
    pit = Arena()
    pit.price(3_000, "ETH")
    long, short = pit.member("long", 1_600, **({"ETH": ether} if ether else {})), pit.member("short", 100_000)
    cross(long, short, 10_000, 15_000)
    members = []
    for number, (dollars, capacity) in enumerate(providers):
        members.append(pit.member(f"provider{number}", dollars))
        register(members[-1], capacity)
    if funds:
        pit.insure(funds)
    pit.price(price)
    everybody = [long, short, *members]
    before = sum(pit.e(member) for member in everybody)
    fund_before = pit.insurance

    done, _outcome = pit.step(backstop.take_over, long)

    assert is_whole(pit)
    assert sum(member.lots for member in everybody) == 0
    assert long.lots + sum(member.lots for member in members) == 10_000
    moved = (pit.insurance - fund_before - pit.balance(BACKSTOP_FUND, "USDC")) * 100
    # A holding cut in several values a 1e-8 of a dollar less in each piece.
    assert abs(sum(pit.e(member) for member in everybody) + moved - before) <= 20
    for member in members:
        found = margin.sums(pit.state, member.account, pit.exchange.at_us)
        assert not member.lots or found.equity > found.initial
    if done:
        assert long.lots == 0 and not long.account.debts and insurance.own_usdc(pit.state, long.account, 0) == 0


def test_claims_and_unsettled_equity_pass_with_the_slice() -> None:
    """A virtual account: each provider takes its part of the claim, in shares, and the fund stays flat.   [L-4, V-5]"""
    pit, long, _short = virtual_long()
    pit.insure(2_000)
    first, second = pit.member("first", 50_000), pit.member("second", 50_000)
    register(first, 60_000)
    register(second, 40_000)
    claimed = margin.claims_atoms(pit.state, long.account, pit.exchange.at_us)

    done, _outcome = pit.step(backstop.take_over, long)

    assert done and not long.account.claims and (first.lots, second.lots) == (6_000, 4_000)
    passed = [margin.claims_atoms(pit.state, each.account, pit.exchange.at_us) for each in (first, second)]
    assert claimed == -500 * USDC and abs(sum(passed) - claimed) <= 2
    assert is_whole(pit)


def test_a_provider_that_holds_the_other_side_closes_it() -> None:
    pit, long, short = ring()
    register(short, 100_000)

    done, outcome = pit.step(backstop.take_over, long)

    assert done and long.lots == short.lots == 0 and not pit.book_market.open_interest
    assert [event.change for event in parts(outcome, PositionChanged)] == [3, 3]
    assert is_whole(pit)
