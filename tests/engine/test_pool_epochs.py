"""Epochs of a liquidity pool: interest out of custody, forced closes, the fund, bad debt.   [X-8, X-9, X-11, X-12]

What must come out is worked out beside the engine, from X-1 in fractions and the sums of the rules.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import pytest

from engine import pool_positions, pools
from engine.commands import RunPoolEpochs
from engine.events import LongClosed, LongNotClosed, PoolEpochRan
from engine.parameters import DEC, PoolState
from engine.rejections import RejectReason
from engine.state import AmmPosition
from ledger.chart import amm_fund, amm_pool, in_custody, native_custody, owed_to_pools
from ledger.journal import JournalKind, JournalTransaction
from tests.engine.amm import HOUR, ROWAN, USDC, Party, Pond, swapped

LOW = DEC // 10**6
"""A rate that hardly matters."""


def still(**parameters: Any) -> Pond:
    """A pool whose rate stands still, low unless given, and whose fund gets nothing of the interest unless given."""
    rate = parameters.pop("rate", LOW)
    return Pond(**{"rate_min": rate, "rate_max": rate, "interest_fund_share": 0} | parameters)


class Ending(NamedTuple):
    """How the epoch's forced close of the pool's only position must come out, in atoms."""

    taken: int
    """Interest out of custody."""
    repaid: int
    remainder: int
    bad_debt: int
    own_depth: int
    """Of the collateral's side, afterwards."""
    other_depth: int


def ending(pond: Pond, position: AmmPosition) -> Ending:
    """By X-9, X-10 and X-11, without the engine's arithmetic."""
    native, external = pools.depths(pond.pool)
    own, other = (native, external) if position.is_native_collateral else (external, native)
    parameters = pond.pool.parameters
    assert len(pond.pool.positions) == 1 and parameters.rate_min == parameters.rate_max
    owed, unpaid = position.owed, position.unpaid
    due = parameters.rate_max * (owed + unpaid) // DEC + unpaid
    taken = swapped(own, other, max(1, due))[0]
    assert taken <= position.custody
    to_fund = taken * parameters.interest_fund_share // DEC
    custody = position.custody - taken
    other += taken - to_fund
    repaid = swapped(other + custody, own, custody)[0]
    left, missing = max(0, repaid - owed), max(0, owed - repaid)
    return Ending(taken, repaid, left, missing, own - owed - left, other + custody)


def fill_fund(pond: Pond, usdc: int = 0, rowan: int = 0) -> None:
    """Forced closes of others leave about so many whole coins in the fund."""
    safety_factor = pond.pool.parameters.safety_factor
    share = pond.pool.parameters.close_fund_share
    pond.set(close_fund_share=DEC)
    if usdc:
        pond.party("gives usdc", usdc=usdc).opens("ROWAN", usdc * USDC, 2 * DEC)
    if rowan:
        pond.party("gives rowan", rowan=rowan).opens("USDC", rowan * ROWAN, 2 * DEC)
    pond.set(safety_factor=4 * DEC)
    pond.until_epoch()
    assert not pond.pool.positions
    pond.set(safety_factor=safety_factor, close_fund_share=share)
    pond.passes(120)


def entries_of(pond: Pond, kind: JournalKind) -> list[JournalTransaction]:
    """Journal transactions of this kind since the exchange began."""
    return [entry for outcome in pond.exchange.outcomes for entry in outcome.journal if entry.kind == kind]


def long_rowan(pond: Pond, leverage: int = 10 * DEC) -> tuple[Party, AmmPosition]:
    sally = pond.party("sally", usdc=1_000)
    sally.opens("ROWAN", 1_000 * USDC, leverage)
    return sally, sally.position


def falls(pond: Pond, price: Fraction) -> None:
    """ROWAN falls, or rises, in time for the next epoch; its mean follows."""
    pond.moves_to(price, pond.party(f"whale {price} {len(pond.exchange.outcomes)}", rowan=2_000_000, usdc=2_000_000))


@pytest.mark.parametrize("share", [DEC, 35 * DEC // 100, 0], ids=["all", "35 %", "none"])
def test_a_forced_close_gives_the_fund_its_share_of_the_remainder(share: int) -> None:
    """The whole of it by default: "100 % of the 10 % threshold"; the rest is the trader's.   [X-11, S3]"""
    pond = still(close_fund_share=share)
    sally, position = long_rowan(pond, 8 * DEC)
    falls(pond, Fraction(96, 100))
    assert pool_positions.health(pond.pool, position) < 11 * DEC // 10
    expected = ending(pond, position)
    closed, ran = pond.until_epoch()

    to_fund = expected.remainder * share // DEC
    assert expected.remainder > 0 and expected.bad_debt == 0
    assert isinstance(closed, LongClosed) and closed.forced
    assert (closed.repaid_atoms, closed.bad_debt_atoms, closed.covered_atoms) == (expected.repaid, 0, 0)
    assert (closed.fund_atoms, closed.returned_atoms) == (to_fund, expected.remainder - to_fund)
    assert (ran.charged, ran.forced, ran.failed, ran.native_interest) == (1, 1, 0, expected.taken)
    assert sally.has("USDC") == expected.remainder - to_fund
    assert pond.balance(amm_fund(pond.usdc), "USDC") == -to_fund == -pond.pool.external_fund
    assert pools.depths(pond.pool) == (expected.other_depth, expected.own_depth)
    assert pond.is_conserved()


def test_a_forced_close_of_a_long_of_usdc_gives_the_fund_rowan() -> None:
    """The same mirrored: the remainder is in the asset that was owed.   [X-11]"""
    pond = still(close_fund_share=35 * DEC // 100)
    sally = pond.party("sally", rowan=1_000)
    sally.opens("USDC", 1_000 * ROWAN, 8 * DEC)
    falls(pond, Fraction(104, 100))
    expected = ending(pond, sally.position)
    closed, ran = pond.until_epoch()

    to_fund = expected.remainder * 35 // 100
    assert expected.remainder > 0 and (closed.fund_atoms, ran.external_interest) == (to_fund, expected.taken)
    assert sally.has("ROWAN") == expected.remainder - to_fund
    assert (pond.pool.native_fund, pond.pool.external_fund) == (to_fund, 0)
    assert pools.depths(pond.pool) == (expected.own_depth, expected.other_depth)
    assert pond.is_conserved()


def test_the_trigger_is_the_health_before_the_epochs_payment() -> None:
    """Interest that makes a position unhealthy closes it an epoch later, not at once.   [X-11]"""
    pond = still(rate=DEC // 50)
    sally, position = long_rowan(pond, 9 * DEC)
    before = pool_positions.health(pond.pool, position)
    first = pond.until_epoch()
    after = pool_positions.health(pond.pool, position)
    assert before > 11 * DEC // 10 >= after > DEC
    assert [type(event) for event in first] == [PoolEpochRan] and position.health == before
    assert position.paid > 0

    second = pond.until_epoch()
    assert [type(event) for event in second] == [LongClosed, PoolEpochRan]
    assert second[0].long.health == after and not pond.pool.positions and sally.has("USDC") == 0
    assert pond.is_conserved()


def test_a_health_of_exactly_the_safety_factor_is_closed_and_one_above_is_not() -> None:
    """≤, not <.   [X-11]"""
    for above in (0, 1):
        pond = still()
        _sally, position = long_rowan(pond, 5 * DEC)
        pond.until_epoch(seconds_before=1)
        pond.set(safety_factor=pool_positions.health(pond.pool, position) - above)
        # Shown rounded up, so that 1 is where it is closed; an atom of health is less than it can show.
        assert pool_positions.liquidation_ratio(pond.pool, position) == DEC
        closed = pond.until_epoch()
        assert [type(event) for event in closed] == ([PoolEpochRan] if above else [LongClosed, PoolEpochRan])


def test_a_forced_close_at_a_pushed_price_changes_nothing_and_is_tried_again() -> None:
    """All or nothing: reported by name, position, debts and fund as before, closed an epoch later.   [X-11]"""
    pond = still()
    sally, position = long_rowan(pond, 8 * DEC)
    pond.until_epoch(seconds_before=1)
    whale = pond.party("whale", rowan=200_000)
    whale.swaps("ROWAN", "USDC", 200_000 * ROWAN)
    before, custody, owed = pools.view(pond.pool), position.custody, position.owed
    not_closed, ran = pond.until_epoch()

    assert isinstance(not_closed, LongNotClosed) and isinstance(ran, PoolEpochRan)
    assert (not_closed.position_id, not_closed.subaccount_id) == (position.position_id, sally.subaccount)
    assert not_closed.reason == "POOL_PRICE_MOVED" and not_closed.health == position.health < 11 * DEC // 10
    assert (ran.charged, ran.forced, ran.failed) == (1, 0, 1)
    after = pools.view(pond.pool)
    paid = position.paid_custody
    assert (position.custody, position.owed, sally.has("USDC")) == (custody - paid, owed, 0)
    assert (after.external_owed, after.positions) == (before.external_owed, 1)
    assert after.native_balance + after.native_custody == before.native_balance + before.native_custody
    assert after.native_balance - before.native_balance == paid
    assert (after.external_balance, pond.pool.external_fund) == (before.external_balance, 0)
    assert not entries_of(pond, JournalKind.LONG_FORCED)

    # The price stays where it was pushed to: by the next epoch it is the price.
    closed, ran = pond.until_epoch()
    assert isinstance(closed, LongClosed) and closed.forced and (ran.forced, ran.failed) == (1, 0)
    assert closed.bad_debt_atoms > 0 and not pond.state.amm_positions
    assert pond.is_conserved()


def test_a_forced_close_that_brings_nothing_is_tried_again_every_epoch() -> None:
    """Custody that interest ate up to the last atom quotes to 0: nothing changes, and it is said each time.   [X-11]"""
    pond = still(rate=DEC, safety_factor=DEC)
    sally, position = long_rowan(pond, 5 * DEC)
    events = pond.passes(4 * HOUR)
    assert position.custody == 0 and position.unpaid > 0 and position.owed == 4_000 * USDC
    failures = [event for event in events if isinstance(event, LongNotClosed)]
    runs = [event for event in events if isinstance(event, PoolEpochRan)]
    assert {event.reason for event in failures} == {"POOL_AMOUNT"} and len(failures) >= 2
    assert [run.failed for run in runs] == [0, 1, 1, 1] and not any(run.forced for run in runs)

    before, balances = pools.view(pond.pool), dict(pond.state.balances)
    again, _ran = pond.until_epoch()
    after = pools.view(pond.pool)
    assert again.reason == "POOL_AMOUNT" and pond.state.balances == balances
    assert (after.native_balance, after.external_balance) == (before.native_balance, before.external_balance)
    assert (after.external_owed, after.native_custody, after.positions) == (4_000 * USDC, 0, 1)
    assert sally.refusal(sally.close()).reason is RejectReason.POOL_AMOUNT
    assert pond.is_conserved()


def test_interest_that_custody_cannot_pay_stays_unpaid_and_counts_once() -> None:
    """due = ⌊rate·(debt + unpaid)⌋ + unpaid; what custody was worth is taken off it.   [X-9]

    Without custody nothing can be measured any more: such a position is left as it is, and reported.   [X-15]
    """
    pond = still(rate=DEC, safety_factor=DEC)
    _sally, position = long_rowan(pond, 5 * DEC)
    owed = position.owed
    pond.until_epoch()
    assert (position.unpaid, position.paid) == (0, owed)
    worth = swapped(*pools.depths(pond.pool), position.custody)[0]
    pond.until_epoch()
    # As much as the debt is due; custody is worth less than that.
    assert 0 < worth < owed
    assert (position.unpaid, position.paid, position.custody) == (owed - worth, owed + worth, 0)
    events = pond.until_epoch()
    assert (position.unpaid, position.paid) == (owed - worth, owed + worth)
    assert [event.reason for event in events if isinstance(event, LongNotClosed)] == ["POOL_AMOUNT"]


def test_interest_that_is_not_collected_each_epoch_lowers_health_until_the_close() -> None:
    """Unpaid interest bears interest, and is repaid after the principal.   [X-9, X-10]"""
    pond = still(rate=DEC // 100, pays_each_epoch=False)
    sally, position = long_rowan(pond, 5 * DEC)
    owed, custody = position.owed, position.custody
    pond.passes(2 * HOUR)
    once = owed // 100
    assert position.unpaid == (owed + once) // 100 + once and position.custody == custody
    proceeds = swapped(*pools.depths(pond.pool), custody)[0]
    assert position.health > pool_positions.health(pond.pool, position)
    assert abs(pool_positions.health(pond.pool, position) - proceeds * DEC // (owed + position.unpaid)) <= 1

    elapsed = (pond.exchange.at_us + 1) % (HOUR * 10**6)
    unpaid = position.unpaid
    unpaid += (owed + unpaid) * (DEC // 100) * elapsed // (DEC * HOUR * 10**6)
    native, external = pools.depths(pond.pool)
    repaid = swapped(native + custody, external, custody)[0]
    assert sally.closes().returned_atoms == repaid - owed - unpaid == sally.has("USDC")
    assert pond.is_conserved()


def test_the_fund_gets_its_share_of_interest_in_the_asset_of_custody() -> None:
    """trunc(share × payment) to the fund, the rest to the providers.   [X-9]"""
    pond = still(rate=DEC // 1_000, interest_fund_share=35 * DEC // 100)
    sally = pond.party("sally", usdc=1_000, rowan=1_000)
    sally.opens("ROWAN", 1_000 * USDC, 5 * DEC)
    sally.opens("USDC", 1_000 * ROWAN, 5 * DEC)
    first, second = pond.pool.positions.values()
    native, external = pools.depths(pond.pool)
    taken = swapped(external, native, 4 * USDC)[0]
    to_fund = taken * 35 // 100
    other = swapped(native + taken - to_fund, external, 4 * ROWAN)[0]
    (ran,) = pond.until_epoch()
    assert (first.paid_custody, second.paid_custody) == (taken, other)
    assert (ran.native_interest, ran.native_to_fund) == (taken - to_fund, to_fund)
    assert (ran.external_interest, ran.external_to_fund) == (other - other * 35 // 100, other * 35 // 100)
    assert (pond.pool.native_fund, pond.pool.external_fund) == (to_fund, other * 35 // 100)
    # One transaction for both, a column per asset of custody.
    (entry,) = entries_of(pond, JournalKind.POOL_INTEREST)
    assert len(entry.batches) == 2 and pond.is_conserved()


def test_an_epoch_costs_an_atom_at_least() -> None:
    """While the rate is not zero; the atom is of the asset owed.   [X-9]"""
    pond = still()
    sally = pond.party("sally", usdc=10)
    sally.opens("ROWAN", USDC, 2 * DEC)
    pond.set(rate_min=1, rate_max=1)
    native, external = pools.depths(pond.pool)
    pond.until_epoch()
    assert (sally.position.paid, sally.position.paid_custody) == (1, swapped(external, native, 1)[0])
    assert sally.position.paid_custody > 900


def test_the_rate_moves_a_step_toward_its_target_and_stays_in_its_bounds() -> None:
    """target = gain / H; one step up at most per epoch, then the bounds.   [X-8]"""
    step = DEC // 1_000
    pond = Pond(
        gain_factor=DEC // 100, rate_increase=step, rate_decrease=step // 2, rate_min=LOW, rate_max=3 * step // 2
    )
    assert pond.pool.rate == 0
    rates = []
    for _hour in range(3):
        pond.until_epoch()
        rates.append(pond.pool.rate)
    assert rates == [step, 3 * step // 2, 3 * step // 2]
    pond.set(gain_factor=0)
    for expected in (step, step // 2, LOW, LOW):
        pond.until_epoch()
        assert pond.pool.rate == expected


class Gap(NamedTuple):
    """What the fund has before, roughly, in whole coins, and what it does."""

    usdc: int = 0
    rowan: int = 0
    covers: bool = True


GAPS = {
    "empty": Gap(),
    "full": Gap(usdc=6_000),
    "partly": Gap(usdc=500),
    "the other asset": Gap(rowan=9_000),
    "both, enough": Gap(usdc=700, rowan=9_000),
    "both, not enough": Gap(usdc=300, rowan=600),
    "the other asset, not enough": Gap(rowan=600),
    "switched off": Gap(usdc=6_000, rowan=6_000, covers=False),
}


@pytest.mark.parametrize("gap", GAPS.values(), ids=GAPS.keys())
def test_a_gap_is_borne_by_the_fund_then_by_providers_to_the_unit(gap: Gap) -> None:
    """The asset owed first, then the other one swapped; what is left is the providers' loss.   [X-12, S3]"""
    pond = still(covers_losses=gap.covers)
    fill_fund(pond, gap.usdc, gap.rowan)
    sally, position = long_rowan(pond)
    falls(pond, Fraction(6, 10))
    expected = ending(pond, position)
    before = pools.view(pond.pool)
    closed, ran = pond.until_epoch()
    after = pools.view(pond.pool)

    assert isinstance(closed, LongClosed) and (ran.forced, closed.bad_debt_atoms) == (1, expected.bad_debt)
    assert expected.bad_debt > 2_000 * USDC and closed.returned_atoms == closed.fund_atoms == sally.has("USDC") == 0
    direct = min(before.fund_external, expected.bad_debt) if gap.covers else 0
    assert before.fund_external - after.fund_external == direct
    given = before.fund_native - after.fund_native
    bought = min(expected.bad_debt - direct, swapped(expected.other_depth, expected.own_depth, given)[0])
    assert closed.covered_atoms == direct + bought
    if gap.covers and direct < expected.bad_debt:
        if closed.covered_atoms == expected.bad_debt:
            # No atom more than it takes.
            assert swapped(expected.other_depth, expected.own_depth, given - 1)[0] < bought
        else:
            assert after.fund_native == 0
    elif not gap.covers or direct == expected.bad_debt:
        assert given == 0
    # The providers: what they had, custody instead of the debt, and what the fund gave; not an atom more or less.
    assert after.external_owed == after.native_custody == after.positions == 0
    assert after.external_balance == before.external_balance + direct == expected.own_depth + direct
    assert after.native_balance == before.native_balance + before.native_custody + given == expected.other_depth + given
    assert len(entries_of(pond, JournalKind.POOL_DEBT_COVERED)) == bool(closed.covered_atoms)
    whole = {"full", "the other asset", "both, enough"}
    name = next(key for key, each in GAPS.items() if each is gap)
    assert (closed.covered_atoms == expected.bad_debt) == (name in whole)
    assert pond.is_conserved()


def test_a_gap_of_a_long_of_usdc_is_covered_mirrored() -> None:
    """Owed is ROWAN: the fund's ROWAN first, then its USDC.   [X-12]"""
    pond = still()
    fill_fund(pond, usdc=9_000, rowan=500)
    sally = pond.party("sally", rowan=1_000)
    sally.opens("USDC", 1_000 * ROWAN, 10 * DEC)
    falls(pond, Fraction(3, 2))
    expected = ending(pond, sally.position)
    before = pools.view(pond.pool)
    closed, _ran = pond.until_epoch()
    after = pools.view(pond.pool)

    direct = before.fund_native
    assert 0 < direct < expected.bad_debt == closed.bad_debt_atoms == closed.covered_atoms
    assert after.fund_native == 0
    given = before.fund_external - after.fund_external
    missing = expected.bad_debt - direct
    assert swapped(expected.other_depth, expected.own_depth, given)[0] >= missing
    assert swapped(expected.other_depth, expected.own_depth, given - 1)[0] < missing
    assert (after.native_balance, after.external_balance) == (
        expected.own_depth + direct, expected.other_depth + given,
    )  # fmt: skip
    assert pond.is_conserved()


def test_providers_lose_what_the_fund_cannot_pay_each_by_its_units() -> None:
    """And no LP more than its share: units are as many as before.   [X-12, X-4]"""
    pond = still()
    other = pond.party("other", rowan=250_000, usdc=250_000)
    other.adds(250_000 * ROWAN, 250_000 * USDC)
    units = (pond.lp.units, other.units)
    _sally, position = long_rowan(pond)
    falls(pond, Fraction(6, 10))
    expected = ending(pond, position)
    closed, _ran = pond.until_epoch()
    assert closed.covered_atoms == 0 and (pond.lp.units, other.units) == units
    shares = [pools.share(pond.pool, each) for each in units]
    for side, depth in ((0, expected.other_depth), (1, expected.own_depth)):
        assert shares[0][side] == depth * 4 // 5
        assert shares[1][side] == depth // 5


def test_positions_are_charged_in_the_order_of_owner_and_id() -> None:
    """The pool that a position sees is the one that those before it left.   [X-9]"""
    pond = still(rate=DEC // 100)
    anna, bert = pond.party("anna", usdc=2_000), pond.party("bert", usdc=2_000)
    bert.opens("ROWAN", 1_000 * USDC, 4 * DEC)
    anna.opens("ROWAN", 1_000 * USDC, 4 * DEC)
    bert.opens("ROWAN", 500 * USDC, 4 * DEC)
    native, external = pools.depths(pond.pool)
    order = sorted(pond.pool.positions.values(), key=lambda each: (each.subaccount_id, each.position_id))
    assert [each.subaccount_id for each in order] == [anna.subaccount, bert.subaccount, bert.subaccount]
    pond.until_epoch()
    for position in order:
        taken = swapped(external, native, position.owed // 100)[0]
        assert position.paid_custody == taken
        native += taken
    assert pond.is_conserved()


def test_an_epoch_in_which_some_are_closed_and_some_are_not_adds_up() -> None:
    """Interest taken before a forced close is posted before it; another owner's second position goes on.   [X-14]"""
    pond = still(rate=DEC // 10_000, interest_fund_share=35 * DEC // 100)
    anna, bert = pond.party("anna", usdc=3_000, rowan=3_000), pond.party("bert", usdc=3_000)
    anna.opens("ROWAN", 1_000 * USDC, 9 * DEC)
    anna.opens("USDC", 1_000 * ROWAN, 3 * DEC)
    anna.opens("ROWAN", 1_000 * USDC, 3 * DEC)
    bert.opens("ROWAN", 1_000 * USDC, 9 * DEC)
    falls(pond, Fraction(94, 100))
    events = pond.until_epoch()
    closed = [event for event in events if isinstance(event, LongClosed)]
    assert [event.long.subaccount_id for event in closed] == [anna.subaccount, bert.subaccount]
    assert (events[-1].charged, events[-1].forced, len(pond.pool.positions)) == (4, 2, 2)
    custody = native_custody(pond.usdc)
    held = pond.state.balances[in_custody(anna.subaccount) << 24 | custody]
    assert -held == sum(each.custody for each in pond.pool.positions.values() if not each.is_native_collateral)
    assert pond.state.balances[in_custody(bert.subaccount) << 24 | custody] == 0
    assert all(
        not atoms
        for key, atoms in pond.state.balances.items()
        if key >> 24 == owed_to_pools(bert.subaccount)
    )
    pool = pond.pool
    assert -pond.balance(amm_pool(pond.usdc), "ROWAN") == pool.native_balance + pool.native_custody
    assert pond.is_conserved()


def test_epochs_run_at_full_hours_and_not_before() -> None:
    """Whole multiples of their length; nobody brings one in early, or twice.   [X-8, S-15]"""
    pond = still()
    refused = pond.attempt(RunPoolEpochs()).rejection
    assert refused is not None and refused.reason is RejectReason.POOL_EPOCH
    assert refused.facts["due_us"] == pond.pool.next_epoch_us and pond.pool.next_epoch_us % (HOUR * 10**6) == 0
    events = pond.passes(3 * HOUR)
    numbers = [event.epoch for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    pond.attempt(RunPoolEpochs())
    assert pond.last.rejection is not None


def test_a_pool_that_no_longer_lends_goes_on_with_the_positions_it_has() -> None:
    """Switching lending off forgives no interest and keeps no unhealthy position.   [X-9, X-11]"""
    pond = still(rate=DEC // 1_000)
    sally, position = long_rowan(pond, 8 * DEC)
    pond.set(is_margined=False)
    assert sally.refusal(sally.long("ROWAN", USDC)).reason is RejectReason.POOL_CLOSED
    pond.until_epoch()
    assert position.paid == 7 * USDC
    falls(pond, Fraction(96, 100))
    closed, ran = pond.until_epoch()
    assert isinstance(closed, LongClosed) and closed.forced and ran.forced == 1
    # Then there is nothing left to do.
    assert pond.passes(2 * HOUR) == [] and pond.pool.next_epoch_us == 0


def test_a_halted_pool_has_no_epoch_and_goes_on_afterwards() -> None:
    """Halted: nothing moves; what was not charged is not charged later.   [X-8]"""
    pond = still(rate=DEC // 1_000)
    sally, position = long_rowan(pond, 8 * DEC)
    pond.set(state=PoolState.HALTED)
    assert pond.passes(3 * HOUR) == [] and position.paid == 0
    assert sally.refusal(sally.close()).reason is RejectReason.POOL_CLOSED
    pond.set(state=PoolState.OPEN)
    pond.until_epoch()
    assert position.paid == 7 * USDC
    sally.closes()
