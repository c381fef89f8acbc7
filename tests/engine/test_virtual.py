"""Claims on the liquidity fund: flat in shares whatever happens, closed and switched at par, bounded.   [V-1 … V-5]"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine import lending, margin, recoveries, snapshot, virtual
from engine.commands import BorrowLend, CancelAllOrders, LendingSide, Side, UpdateAccount
from engine.events import LendingSource
from engine.outcome import Outcome
from engine.parameters import PRICE_SCALE
from engine.posting import post
from engine.virtual import Gain
from ledger.chart import (
    LIQUIDITY_FUND,
    AccountKind,
    available,
    claim,
    claim_debt,
    claim_lend,
    contracts,
    debt_share,
    kind_of,
    lend_share,
    unsettled,
)
from ledger.invariants import RunningTotals
from ledger.journal import JournalKind, residues, seal
from tests.engine.perps import USDC, Member, Pit, cross

ASSET_BITS = 24


@pytest.fixture
def pit() -> Pit:
    return Pit()


def lends(member: Member, dollars: int) -> None:
    member.does(BorrowLend(member.subaccount, member.state.usdc, LendingSide.LEND, dollars * USDC))


def borrows(member: Member, dollars: int) -> Outcome:
    return member.tries(BorrowLend(member.subaccount, member.state.usdc, LendingSide.BORROW, dollars * USDC))


def goes_virtual(member: Member, is_virtual: bool = True) -> None:
    member.does(UpdateAccount(member.subaccount, auto_realize_pnl=not is_virtual))


def claim_of(member: Member) -> int:
    return margin.claims_atoms(member.state, member.account, member.desk.exchange.at_us)


def moves(pit: Pit, cash: Member, gains: list[tuple[Member, int]]) -> dict[int, int]:
    """Move claims in a transaction of its own whose other side is `cash`; gives what was given up."""
    outcome = Outcome(pit.state.sequence, pit.exchange.at_us)
    into = lending.Movements()
    given = virtual.settle(
        pit.state, outcome, into, [Gain(member.subaccount, pit.market, atoms) for member, atoms in gains]
    )
    net = sum(atoms for _account, asset, atoms in into.postings if asset == pit.state.usdc)
    postings = [*into.postings, (available(cash.subaccount), pit.state.usdc, -net)]
    post(pit.state, outcome, JournalKind.SETTLEMENT, (), postings)
    pit.exchange.outcomes.append(outcome)
    return dict(given)


def pool_idle(pit: Pit) -> int:
    return lending.totals(pit.state, pit.state.pools[pit.state.usdc], pit.exchange.at_us).idle


def fund_breaks(pit: Pit) -> list[str]:
    """Where the fund does not hold what its users claim, share by share.   [V-5]"""
    balances, usdc = pit.state.balances, pit.state.usdc
    markets = list(pit.state.markets)
    found = []
    for share, claims in ((lend_share(usdc), claim_lend), (debt_share(usdc), claim_debt)):
        fund = balances.get(LIQUIDITY_FUND << ASSET_BITS | share, 0)
        users = 0
        for market_id in markets:
            held = -balances.get(LIQUIDITY_FUND << ASSET_BITS | claims(market_id), 0)
            owners = sum(
                balances.get(claim(number) << ASSET_BITS | claims(market_id), 0) for number in pit.state.subaccounts
            )
            if held != owners:
                found.append(f"market {market_id}: the fund's contra is {held}, owners have {owners}")
            users += owners
        if fund != users:
            found.append(f"share {share}: the fund has {fund}, users {users}")
    if balances.get(LIQUIDITY_FUND << ASSET_BITS | usdc, 0):
        found.append("the fund has cash")
    for number, subaccount in pit.state.subaccounts.items():
        has = {
            market_id
            for market_id in markets
            if balances.get(claim(number) << ASSET_BITS | claim_lend(market_id), 0)
            or balances.get(claim(number) << ASSET_BITS | claim_debt(market_id), 0)
        }
        if has != set(subaccount.claims):
            found.append(f"subaccount {number}: claims in {has}, remembered {set(subaccount.claims)}")
        if (number in pit.state.virtual) != (bool(has) or not subaccount.auto_realize_pnl):
            found.append(f"subaccount {number}: its mode is not remembered")
    for outcome in pit.exchange.outcomes[-1:]:
        found += [str(residues(entry)) for entry in outcome.journal if residues(entry)]
    return found


def test_a_gain_is_lent_and_a_loss_is_owed_and_each_cancels_the_other_first(pit: Pit) -> None:
    bank, anna = pit.member("bank", 1_000_000), pit.member("anna", 1_000)
    lends(bank, 500_000)
    goes_virtual(anna)

    moves(pit, bank, [(anna, 70 * USDC)])
    assert claim_of(anna) == 70 * USDC
    moves(pit, bank, [(anna, -100 * USDC)])
    assert claim_of(anna) == -30 * USDC
    moves(pit, bank, [(anna, 30 * USDC)])

    assert claim_of(anna) == 0 and not anna.account.claims
    assert not fund_breaks(pit) and anna.usdc == 1_000 * USDC


def test_winners_earn_the_lend_rate_and_losers_pay_the_borrow_rate(pit: Pit) -> None:
    bank, anna, boris = pit.member("bank", 1_000_000), pit.member("anna", 90_000), pit.member("boris", 90_000)
    lends(bank, 100_000)
    for each in (anna, boris):
        goes_virtual(each)
    moves(pit, bank, [(anna, 40_000 * USDC), (boris, -40_000 * USDC)])
    now = lending.totals(pit.state, pit.state.pools[pit.state.usdc], pit.exchange.at_us)
    rate = lending.borrow_rate(now, lending.lending_parameters(pit.state, pit.state.usdc))

    pit.exchange.advance(3_600)

    # One borrower pays 140,000 lenders' dollars' interest: 40,000 of them are anna's, less the pool's cut.
    owed = -claim_of(boris) - 40_000 * USDC
    fee = lending.lending_parameters(pit.state, pit.state.usdc).fee / 10**9
    assert owed == pytest.approx(40_000 * USDC * rate / 10**18 / 8760, rel=1e-3)
    assert claim_of(anna) - 40_000 * USDC == pytest.approx(owed * (1 - fee) * 40 / 140, rel=1e-3)
    assert not fund_breaks(pit)


def test_what_idle_lacks_is_given_up_in_the_order_of_ids(pit: Pit) -> None:
    bank = pit.member("bank", 1_000_000)
    anna, boris, clara = (pit.member(name, 10_000) for name in ("anna", "boris", "clara"))
    lends(bank, 1_000)
    for each in (anna, boris, clara):
        goes_virtual(each)

    given = moves(pit, bank, [(anna, -800 * USDC), (boris, -900 * USDC), (clara, 500 * USDC)])

    # 1,700 of losses against 1,000 idle and a gain of 500.
    assert given == {anna.subaccount: 200 * USDC}
    assert (claim_of(anna), claim_of(boris), claim_of(clara)) == (-600 * USDC, -900 * USDC, 500 * USDC)
    assert pool_idle(pit) == 0 and not fund_breaks(pit)


def test_closing_a_part_makes_that_part_of_a_gain_ones_own_as_cash_or_where_idle_lacks_as_shares(pit: Pit) -> None:
    bank, anna, thief = pit.member("bank", 1_000_000), pit.member("anna", 1_000), pit.member("thief", 0, SOL=10**13)
    lends(bank, 1_000)
    goes_virtual(anna)
    cross(anna, bank, 40, 15_000)
    before = anna.usdc
    moves(pit, bank, [(anna, 400 * USDC)])
    assert borrows(thief, 1_250).rejection is None
    assert pool_idle(pit) == 150 * USDC

    cross(bank, anna, 10, 15_000)
    fees = before - anna.usdc + 100 * USDC
    assert 0 < fees < USDC and claim_of(anna) == 300 * USDC
    cross(bank, anna, 30, 15_000)

    # 50 were left to redeem; 250 pass as lend shares of her own.
    lent = lending.claim(pit.state, anna.account, pit.state.usdc, pit.exchange.at_us)
    assert lent in (250 * USDC, 250 * USDC - 1)
    assert not anna.account.claims and pool_idle(pit) == 0 and not fund_breaks(pit)


@pytest.mark.parametrize("idle", [1_000, 30, 0])
def test_who_owes_pays_with_gains_before_a_loan_and_passes_what_idle_lacks_as_lend_shares(pit: Pit, idle: int) -> None:
    """[S-12 (2), S-13]"""
    bank, anna, boris = pit.member("bank", 1_000_000), pit.member("anna", 10), pit.member("boris", 0)
    thief = pit.member("thief", 0, SOL=10**13)
    lends(bank, 5_000)
    goes_virtual(anna)
    moves(pit, bank, [(anna, 400 * USDC)])
    outcome, into, usdc = Outcome(pit.state.sequence, pit.exchange.at_us), lending.Movements(), pit.state.usdc
    lending.borrow(pit.state, outcome, into, thief.account, usdc, (5_400 - idle) * USDC, LendingSource.MANUAL)
    lending.post_alone(pit.state, outcome, into)
    owing = [(unsettled(anna.subaccount), usdc, 110 * USDC), (unsettled(boris.subaccount), usdc, -110 * USDC)]
    post(pit.state, outcome, JournalKind.SETTLEMENT, (), owing)
    pit.exchange.outcomes.append(outcome)

    pit.exchange.advance(10)

    lent = lending.claim(pit.state, boris.account, pit.state.usdc, pit.exchange.at_us)
    cash = min(110, 10 + idle) * USDC
    assert boris.usdc == pytest.approx(cash, abs=100) and lent == pytest.approx(110 * USDC - cash, abs=100)
    assert claim_of(anna) == pytest.approx(300 * USDC, abs=100) and not anna.account.debts
    assert lending.claim(pit.state, anna.account, usdc, pit.exchange.at_us) <= 2 and not fund_breaks(pit)


def test_closing_with_a_loss_pays_from_what_is_there_and_owes_the_rest_itself(pit: Pit) -> None:
    bank, anna = pit.member("bank", 1_000_000), pit.member("anna", 100, SOL=10**12)
    lends(bank, 1_000)
    goes_virtual(anna)
    cross(anna, bank, 40, 15_000)
    lends(anna, 60)
    moves(pit, bank, [(anna, -400 * USDC)])
    at_hand = anna.usdc

    cross(bank, anna, 10, 15_000)
    assert claim_of(anna) == pytest.approx(-300 * USDC, abs=2)
    cross(bank, anna, 30, 15_000)

    owed = lending.debt(pit.state, anna.account, pit.state.usdc, pit.exchange.at_us)
    assert 340 * USDC - at_hand <= owed + 60 * USDC - 60 * USDC <= 341 * USDC - at_hand + 60 * USDC
    assert not anna.account.claims and not fund_breaks(pit)


def test_a_third_of_a_debt_is_rounded_up_and_a_third_of_a_gain_down(pit: Pit) -> None:
    """V-4"""
    bank, anna, boris = pit.member("bank", 1_000_000), pit.member("anna", 1_000), pit.member("boris", 1_000)
    lends(bank, 1_000)
    for each in (anna, boris):
        goes_virtual(each)
    moves(pit, bank, [(anna, 100), (boris, -100)])

    for each in (anna, boris):
        outcome = Outcome(pit.state.sequence, pit.exchange.at_us)
        virtual.close_part(pit.state, outcome, each.account, pit.market, 1, 3)

    assert (anna.usdc, boris.usdc) == (1_000 * USDC + 33, 1_000 * USDC - 34)
    assert (claim_of(anna), claim_of(boris)) == (67, -66)


def test_switching_back_converts_every_claim(pit: Pit) -> None:
    bank, anna = pit.member("bank", 1_000_000), pit.member("anna", 1_000)
    lends(bank, 1_000)
    goes_virtual(anna)
    moves(pit, bank, [(anna, 250 * USDC)])

    goes_virtual(anna, False)

    assert anna.usdc == 1_250 * USDC and not anna.account.claims
    assert anna.subaccount not in pit.state.virtual and not fund_breaks(pit)


def test_negative_claims_over_half_of_the_collateral_are_in_excess(pit: Pit) -> None:
    """A claim is no exposure, and no way to owe without end.   [V-3]"""
    bank, anna = pit.member("bank", 1_000_000), pit.member("anna", 1_000)
    lends(bank, 10_000)
    goes_virtual(anna)
    moves(pit, bank, [(anna, -500 * USDC)])
    assert virtual.excess(pit.state, anna.account, pit.exchange.at_us) == 0
    moves(pit, bank, [(anna, -120 * USDC)])
    excess = virtual.excess(pit.state, anna.account, pit.exchange.at_us)
    assert excess == pytest.approx(120 * USDC, abs=2)

    outcome = Outcome(pit.state.sequence, pit.exchange.at_us)
    paid = virtual.pay_claims(pit.state, outcome, anna.account, excess)

    assert paid == excess and anna.usdc == 1_000 * USDC - excess
    assert claim_of(anna) == -620 * USDC + excess and not fund_breaks(pit)


def test_yields_reach_those_whose_claims_are_lent(pit: Pit) -> None:
    """A winner's share-time is its own: the fund is nobody.   [Y-3, V-2]"""
    bank, anna = pit.member("bank", 1_000_000), pit.member("anna", 1_000)
    lends(bank, 1_000)
    goes_virtual(anna)
    moves(pit, bank, [(anna, 1_000 * USDC)])

    shares = [recoveries.shares_of(pit.state, each.account, pit.state.usdc) for each in (bank, anna)]

    assert shares[0] == shares[1] > 0 and pit.state.usdc in anna.account.share_times


# --- a machine of claims among lenders and borrowers ----------------------------------------------------------------


people = st.integers(0, 3)
amounts = st.one_of(st.integers(1, 5_000), st.integers(1, 3_000 * USDC), st.sampled_from((1, 2, 3, USDC, 1_000 * USDC)))
ticks = st.lists(
    st.tuples(people, st.sampled_from((1, -1)), amounts), min_size=1, max_size=4, unique_by=lambda gain: gain[0]
)


class Claims(RuleBasedStateMachine):
    """Four traders in virtual mode or not, a lender and a borrower of USDC who come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.pit = Pit()

    @initialize()
    def begin(self) -> None:
        self.bank = self.pit.member("bank", 10**7, SOL=10**13)
        self.lender = self.pit.member("lender", 10**6, SOL=10**14)
        self.members = [self.pit.member(f"m{n}", 2_000, SOL=10**11) for n in range(4)]
        for each in self.members:
            goes_virtual(each)
        lends(self.lender, 2_000)

    @rule(gains=ticks)
    def tick(self, gains: list[tuple[int, int, int]]) -> None:
        before = {n: claim_of(self.members[n]) for n, _sign, _atoms in gains}
        moved = [(self.members[n], sign * atoms) for n, sign, atoms in gains]
        given = moves(self.pit, self.bank, moved)
        for n, sign, atoms in gains:
            lost = given.get(self.members[n].subaccount, 0)
            assert abs(claim_of(self.members[n]) - before[n] - sign * atoms - lost) <= 2

    @rule(n=people, closed=st.integers(1, 5), held=st.integers(1, 5))
    def close(self, n: int, closed: int, held: int) -> None:
        member = self.members[n]
        closed = min(closed, held)
        worth = self.worth(member)
        outcome = Outcome(self.pit.state.sequence, self.pit.exchange.at_us)
        virtual.close_part(self.pit.state, outcome, member.account, self.pit.market, closed, held)
        self.pit.exchange.outcomes.append(outcome)
        assert abs(self.worth(member) - worth) <= 3
        assert closed < held or self.pit.market not in member.account.claims

    @rule(n=people, on=st.booleans())
    def switch(self, n: int, on: bool) -> None:
        worth = self.worth(self.members[n])
        goes_virtual(self.members[n], on)
        assert abs(self.worth(self.members[n]) - worth) <= 4
        assert on or not self.members[n].account.claims

    @rule(n=people, other=people, part=st.integers(0, 3))
    def hand_on(self, n: int, other: int, part: int) -> None:
        if n != other:
            worth = self.worth(self.members[n]) + self.worth(self.members[other])
            outcome, into = Outcome(self.pit.state.sequence, self.pit.exchange.at_us), lending.Movements()
            virtual.pass_part(
                self.pit.state, outcome, into, self.members[n].account, self.members[other].account, part, 3
            )
            post(self.pit.state, outcome, JournalKind.BACKSTOP, (), into.postings)
            assert abs(self.worth(self.members[n]) + self.worth(self.members[other]) - worth) <= 4

    @rule(side=st.sampled_from(list(LendingSide)), who=st.integers(0, 4), atoms=amounts)
    def loan(self, side: LendingSide, who: int, atoms: int) -> None:
        member = (*self.members, self.lender)[who]
        step = self.pit.state.assets[self.pit.state.usdc].step_atoms
        member.tries(BorrowLend(member.subaccount, self.pit.state.usdc, side, max(step, atoms - atoms % step)))

    @rule(seconds=st.sampled_from((1, 10, 3_600)))
    def wait(self, seconds: int) -> None:
        self.pit.exchange.advance(seconds)

    @invariant()
    def the_fund_is_flat(self) -> None:
        assert not fund_breaks(self.pit)

    @invariant()
    def nothing_is_lent_out_twice(self) -> None:
        assert pool_idle(self.pit) >= 0

    @invariant()
    def holders_are_covered(self) -> None:
        """Σ claims ≤ lentTotal, Σ debts ≥ borrowedTotal, the fund's included.   [B-4]"""
        state, usdc = self.pit.state, self.pit.state.usdc
        now = lending.totals(state, state.pools[usdc], self.pit.exchange.at_us)
        lent = owed = 0
        for member in (*self.members, self.lender, self.bank):
            lent += lending.claim(state, member.account, usdc, self.pit.exchange.at_us)
            owed += lending.debt(state, member.account, usdc, self.pit.exchange.at_us)
            value = claim_of(member)
            lent, owed = lent + max(0, value), owed + max(0, -value)
        assert lent <= now.lent and owed >= now.borrowed

    def worth(self, member: Member) -> int:
        state, usdc, at_us = member.state, member.state.usdc, self.pit.exchange.at_us
        loans = lending.claim(state, member.account, usdc, at_us) - lending.debt(state, member.account, usdc, at_us)
        return member.usdc + loans + claim_of(member)


TestClaims = Claims.TestCase
TestClaims.settings = settings(
    max_examples=10, stateful_step_count=20, deadline=None, phases=(Phase.explicit, Phase.generate)
)


def _kinds(outcome: Any) -> list[int]:
    return [kind_of(account) for entry in outcome.journal for account, _asset, _atoms in entry.postings]


def test_claims_are_posted_on_the_fund_and_on_their_owner_and_move_no_cash(pit: Pit) -> None:
    bank, anna, boris = pit.member("bank", 1_000_000), pit.member("anna", 1_000), pit.member("boris", 1_000)
    lends(bank, 1_000)
    for each in (anna, boris):
        goes_virtual(each)

    moves(pit, bank, [(anna, 5 * USDC), (boris, -5 * USDC)])

    kinds = _kinds(pit.exchange.outcomes[-1])
    assert AccountKind.CLAIM in kinds and AccountKind.LIQUIDITY_FUND in kinds
    assert (anna.usdc, boris.usdc, bank.usdc) == (1_000 * USDC, 1_000 * USDC, 999_000 * USDC)


# --- a floor where everything happens at once, through real commands and ticks ------------------------------------


class Floor(RuleBasedStateMachine):
    """Traders who realize, or do not, or lend what they have; prices move, the pool runs dry.   [V-1 … V-5]"""

    def __init__(self) -> None:
        super().__init__()
        self.pit = Pit()
        self.totals = RunningTotals()
        self.seen = 0

    @initialize()
    def begin(self) -> None:
        self.lender = self.pit.member("lender", 10**6, SOL=10**13)
        # Those who do not realize have little cash, so that what idle lacks is felt.
        self.members = [
            self.pit.member("m0", 30, SOL=14 * 10**9),
            self.pit.member("m1", 90, SOL=14 * 10**9),
            self.pit.member("m2", 1_500, SOL=10**9),
            self.pit.member("m3", 1_500, SOL=10**9),
        ]
        for each in self.members[:2]:
            goes_virtual(each)
        self.members[3].does(UpdateAccount(self.members[3].subaccount, auto_lend=True))
        lends(self.lender, 1_000)
        cross(self.members[0], self.members[2], 1_500, 15_000)
        cross(self.members[3], self.members[1], 1_500, 15_000)

    @rule(buyer=people, seller=people, lots=st.integers(1, 1_500), offset=st.integers(-5, 5))
    def trade(self, buyer: int, seller: int, lots: int, offset: int) -> None:
        if buyer == seller:
            return
        market = self.pit.book_market
        ticks = market.mark // market.parameters.tick_price + offset
        made = self.members[seller].trade(Side.ASK, lots, ticks)
        if made.rejection is None:
            self.members[buyer].trade(Side.BID, lots, ticks)
            self.members[seller].tries(CancelAllOrders(self.members[seller].subaccount))
            self.members[buyer].tries(CancelAllOrders(self.members[buyer].subaccount))

    @rule(dollars=st.integers(120, 185), seconds=st.sampled_from((1, 10, 10, 30)))
    def move(self, dollars: int, seconds: int) -> None:
        self.pit.price(dollars)
        self.pit.exchange.advance(seconds)

    @rule(n=people, on=st.booleans())
    def switch(self, n: int, on: bool) -> None:
        member = self.members[n]
        member.tries(UpdateAccount(member.subaccount, auto_realize_pnl=not on))

    @rule(side=st.sampled_from(list(LendingSide)), dollars=st.integers(1, 1_200))
    def lend(self, side: LendingSide, dollars: int) -> None:
        self.lender.tries(BorrowLend(self.lender.subaccount, self.pit.state.usdc, side, dollars * USDC))

    @rule()
    def run_dry(self) -> None:
        idle = pool_idle(self.pit)
        if idle > 0:
            state, outcome = self.pit.state, Outcome(self.pit.state.sequence, self.pit.exchange.at_us)
            into, source = lending.Movements(), lending.LendingSource.MANUAL
            lending.borrow(state, outcome, into, self.lender.account, state.usdc, idle, source)
            lending.post_alone(state, outcome, into)
            self.pit.exchange.outcomes.append(outcome)

    @invariant()
    def all_is_conserved(self) -> None:
        """What a block checks: V-5, B-14, Σ contracts = Σ cost = Σ unsettled = 0, nobody below zero.   [A-13]"""
        outcomes = self.pit.exchange.outcomes
        for outcome in outcomes[self.seen :]:
            self.totals.add(seal(bytes(32), 1, 1, 1, entry) for entry in outcome.journal)
        self.seen = len(outcomes)
        assert not self.totals.violations()
        assert not fund_breaks(self.pit) and pool_idle(self.pit) >= 0

    @invariant()
    def a_snapshot_gives_the_same_state(self) -> None:
        content = snapshot.dump(self.pit.state)
        assert snapshot.dump(snapshot.load(content)) == content


TestFloor = Floor.TestCase
TestFloor.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, phases=(Phase.explicit, Phase.generate)
)


# --- beside realized gains, through real ticks ----------------------------------------------------------------------


def thresholds(member: Member) -> tuple[int, int, int]:
    """Maintenance, notional, and the equity at every price between 50 and 250 at which it is in liquidation."""
    state, base = member.state, member.desk.book_market
    sums = member.sums()
    dead = 0
    for dollars in range(50, 250):
        marks = {contracts(base.parameters.market_id): dollars * PRICE_SCALE}
        dead = dead * 2 + margin.sums(
            state, member.account, member.desk.exchange.at_us, marks=marks
        ).is_in_liquidation
    return sums.maintenance, sums.notional, dead


def test_virtual_and_realized_accounts_have_the_same_thresholds_and_but_for_interest_the_same_equity(pit: Pit) -> None:
    bank, lender = pit.member("bank", 1_000_000), pit.member("lender", 100_000)
    anna, boris = pit.member("anna", 10_000), pit.member("boris", 10_000)
    lends(lender, 50_000)
    goes_virtual(anna)
    for each in (anna, boris):
        cross(each, bank, 20_000, 15_000)
    begin = thresholds(anna)
    assert begin == thresholds(boris)

    for dollars in (151, 155, 149, 140, 132, 150, 150):
        pit.price(dollars)
        pit.exchange.advance(10)
        assert thresholds(anna) == thresholds(boris)
        # A cent for seconds of interest.
        assert abs(anna.sums().equity - boris.sums().equity) <= 10**6
        assert not fund_breaks(pit)
    claim_at_132 = anna.usdc
    assert anna.account.claims or claim_at_132 != boris.usdc


@pytest.mark.parametrize("idle", [0, 100])
def test_the_fund_is_flat_when_the_pool_is_lent_out(pit: Pit, idle: int) -> None:
    """Losers' claims need cash that is not there: winners wait, losers owe, and it is made up later.   [V-4, V-5]"""
    bank, lender = pit.member("bank", 1_000_000), pit.member("lender", 100_000)
    thief, anna = pit.member("thief", 0, SOL=10**13), pit.member("anna", 10, SOL=10**12)
    lends(lender, 10_000)
    assert borrows(thief, 9_100).rejection is None
    goes_virtual(anna)
    cross(anna, bank, 1_000, 15_000)
    pool = pit.state.pools[pit.state.usdc]
    now = lending.begin(pit.state, Outcome(pit.state.sequence, pit.exchange.at_us), pit.state.usdc)
    while now.idle > idle * USDC:
        pit.exchange.advance(10)
        pool.bound = 10**9
        more = now.idle - idle * USDC
        into, outcome = lending.Movements(), Outcome(pit.state.sequence, pit.exchange.at_us)
        lending.borrow(
            pit.state, outcome, into, thief.account, pit.state.usdc, more, lending.LendingSource.MANUAL
        )
        lending.post_alone(pit.state, outcome, into)
        pit.exchange.outcomes.append(outcome)
        now = lending.totals(pit.state, pool, pit.exchange.at_us)

    cash, mark = anna.usdc, pit.book_market.settled
    pit.price(100)
    pit.exchange.advance(10)
    # The fall of 50 dollars times 10, what cash she had aside.
    lost = -(claim_of(anna) + anna.account.unsettled) + cash - anna.usdc
    assert lost == 1_000 * (mark - pit.book_market.settled)
    assert lost > 400 * USDC and anna.account.unsettled < -(lost - idle * USDC - 10 * USDC)
    assert bank.account.unsettled == -anna.account.unsettled and pool_idle(pit) >= 0
    assert not fund_breaks(pit) and pit.is_balanced()

    lends(lender, 50_000)
    pit.exchange.advance(20)
    assert anna.account.unsettled == 0 and bank.account.unsettled == 0
    assert claim_of(anna) == pytest.approx(-lost, abs=11 * USDC) and not fund_breaks(pit)
