"""The money market's arithmetic keeps its promises for any pool, not only the published ones.

[B-1, B-2, B-3, B-4, B-7]
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.formulas import lending
from engine.formulas.lending import (
    RATE_ONE,
    SHARES_PER_ATOM,
    YEAR_MS,
    accrue,
    borrow_mint,
    borrow_rate,
    claim_atoms,
    debt_atoms,
    is_at_or_over,
    is_over,
    lend_mint,
    lend_rate,
    redeem_burn,
    repay_burn,
    throttle_bound,
    utilization,
)
from engine.parameters import RATE_SCALE
from ledger.amounts import INT64_MAX

atoms = st.integers(1, INT64_MAX)
fractions = st.integers(0, RATE_SCALE)
Curve = tuple[int, int, int, int]


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """(U*, rate at 0, rate at U*, rate at 1), rising, up to 100 × a year."""
    rates = sorted(draw(st.lists(st.integers(0, 100 * RATE_SCALE), min_size=3, max_size=3)))
    return draw(fractions), rates[0], rates[1], rates[2]


# --- the curve   [B-2]


@given(curves(), atoms)
def test_the_curve_goes_through_its_three_points(curve: Curve, lent: int) -> None:
    optimal, base, middle, top = curve
    pool = lent * RATE_SCALE

    assert borrow_rate(0, pool, 0, *curve) == (base if optimal else middle) * 10**9
    assert borrow_rate(lent * optimal, pool, 0, *curve) == middle * 10**9
    if optimal < RATE_SCALE:
        assert borrow_rate(pool, pool, 0, *curve) == top * 10**9


@given(curves(), atoms, st.lists(atoms, min_size=2, max_size=8))
def test_the_rate_never_falls_when_more_is_borrowed(curve: Curve, lent: int, borrowed: list[int]) -> None:
    rates = [borrow_rate(total, lent, 0, *curve) for total in sorted(borrowed)]

    assert all(lower <= higher for lower, higher in pairwise(rates))


@given(curves(), atoms, st.integers(0, INT64_MAX))
def test_neighbouring_utilizations_do_not_swap_their_rates(curve: Curve, lent: int, above: int) -> None:
    """One atom more, around the bend and anywhere: the exponential is rounded once, so it cannot step back."""
    for borrowed in (lent * curve[0] // RATE_SCALE, above):
        rates = [borrow_rate(borrowed + more, lent, 0, *curve) for more in range(4)]
        assert rates == sorted(rates)


@settings(max_examples=300)
@given(curves(), atoms, atoms)
def test_the_exponential_is_the_nearest_integer_to_the_true_value(curve: Curve, borrowed: int, lent: int) -> None:
    optimal, _, middle, top = curve
    way = (Fraction(borrowed, lent) - Fraction(optimal, RATE_SCALE)) / (1 - Fraction(optimal, RATE_SCALE) or 1)
    if borrowed >= lent or not 0 < way < 1 or not 0 < middle < top:
        return
    digits = Context(prec=90, rounding=ROUND_HALF_EVEN)
    exponent = digits.divide(Decimal(way.numerator), Decimal(way.denominator))
    power = digits.exp(digits.multiply(digits.ln(digits.divide(Decimal(top), Decimal(middle))), exponent))
    true = digits.multiply(Decimal(middle * 10**9), power)

    assert borrow_rate(borrowed, lent, 0, *curve) == int(true.to_integral_value(ROUND_HALF_EVEN, digits))


@given(curves(), atoms, atoms)
def test_the_digits_that_the_method_starts_with_do_not_matter(curve: Curve, borrowed: int, lent: int) -> None:
    usual = borrow_rate(borrowed, lent, 0, *curve)
    with pytest.MonkeyPatch.context() as patch:
        for bits in (32, 40, 64, 100, 512):
            patch.setattr(lending, "CURVE_BITS", bits)
            assert borrow_rate(borrowed, lent, 0, *curve) == usual


@given(st.integers(1, 10**9), st.integers(2, 9), st.integers(1, 4))
def test_a_rate_that_is_whole_comes_out_whole(middle: int, root: int, parts: int) -> None:
    """A ratio of root^parts, at every whole part of the way: the digits end there, and no attempt may hang."""
    curve = (0, 0, middle, middle * root**parts)

    assert [borrow_rate(k, parts, 0, *curve) for k in range(parts + 1)] == [
        middle * root**k * 10**9 for k in range(parts + 1)
    ]


@given(atoms, atoms, st.integers(0, 10**9), fractions, st.integers(0, 10**20))
def test_lenders_earn_no_more_than_borrowers_pay(borrowed: int, lent: int, fees: int, fee: int, rate: int) -> None:
    earned = lend_rate(rate, borrowed, lent, fees, fee)
    numerator, denominator = utilization(borrowed, lent, fees)

    assert 0 <= numerator <= denominator
    assert earned * denominator <= rate * numerator


# --- accrual   [B-4]


@given(
    st.integers(0, INT64_MAX), st.integers(0, 100 * RATE_ONE),
    st.lists(st.integers(0, YEAR_MS), min_size=1, max_size=6),
    st.integers(0, RATE_ONE * YEAR_MS - 1), fractions, st.integers(0, RATE_SCALE - 1),
)
def test_an_interval_charges_what_its_parts_charge(
    borrowed: int, rate: int, parts: list[int], carry: int, share: int, fee_carry: int
) -> None:
    whole = accrue(borrowed, rate, sum(parts), carry, share, fee_carry)

    interest, fee = 0, 0
    for part in parts:
        step = accrue(borrowed, rate, part, carry, share, fee_carry)
        interest, fee = interest + step.interest, fee + step.fee
        carry, fee_carry = step.carry, step.fee_carry

    assert (interest, fee, carry, fee_carry) == whole


@given(st.integers(0, INT64_MAX // 8760), st.integers(0, 100 * RATE_SCALE))
def test_an_hour_charges_a_part_in_8760_of_the_year(eighth: int, rate: int) -> None:
    step = accrue(eighth * 8760, rate * 10**9, 3_600_000, 0, 0, 0)

    assert (step.interest * RATE_SCALE + Fraction(step.carry * RATE_SCALE, RATE_ONE * YEAR_MS)) == eighth * rate


def test_a_fee_of_less_than_an_atom_is_kept_for_the_next_time() -> None:
    fee, carry = 0, 0
    for _ in range(10):
        step = accrue(8760, RATE_ONE, 3_600_000, 0, 100_000_000, carry)
        fee, carry = fee + step.fee, step.fee_carry

    # Ten touches of one atom of interest at 10 %: one atom of fee, where rounding up at each would take all ten.
    assert (fee, carry) == (1, 0)


# --- shares   [B-4]


@st.composite
def totals(draw: st.DrawFn) -> tuple[int, int]:
    """(atoms, shares) of a pool in which a share is worth at most an atom: it starts at a thousand millionth of one."""
    total = draw(atoms)
    return total, draw(st.integers(total, total * SHARES_PER_ATOM * 2))


empty = st.just((0, 0))


@given(atoms, totals() | empty)
def test_who_lends_n_claims_n(lent: int, pool: tuple[int, int]) -> None:
    total, shares = pool
    minted = lend_mint(lent, total, shares)

    assert claim_atoms(minted, total + lent, shares + minted) == lent


@given(atoms, totals() | empty)
def test_who_borrows_n_owes_n(borrowed: int, pool: tuple[int, int]) -> None:
    total, shares = pool
    minted = borrow_mint(borrowed, total, shares)

    if minted:  # a mint of no share is refused
        assert debt_atoms(minted, total + borrowed, shares + minted) == borrowed


@given(totals(), st.data())
def test_claims_never_exceed_and_debts_always_cover_the_pool(pool: tuple[int, int], data: st.DataObject) -> None:
    total, all_shares = pool
    cuts = sorted(data.draw(st.lists(st.integers(0, all_shares), max_size=6)))
    holdings = [higher - lower for lower, higher in pairwise([0, *cuts, all_shares])]

    claims = sum(claim_atoms(shares, total, all_shares) for shares in holdings)
    debts = sum(debt_atoms(shares, total, all_shares) for shares in holdings)

    assert total - len(holdings) < claims <= total
    assert total <= debts < total + len(holdings)


@given(totals(), st.data())
def test_leaving_in_part_takes_nothing_from_those_who_stay(pool: tuple[int, int], data: st.DataObject) -> None:
    total, all_shares = pool
    n = data.draw(st.integers(1, total))

    burnt, repaid = redeem_burn(n, total, all_shares), repay_burn(n, total, all_shares)

    assert burnt * total >= n * all_shares >= repaid * total
    assert repaid <= burnt <= repaid + 1 <= all_shares + 1


kinds = st.sampled_from(["enter", "leave", "leave whole", "interest"])
steps = st.lists(st.tuples(kinds, st.integers(0, 3), st.integers(1, 10**12)), max_size=40)


@given(steps)
def test_lenders_through_any_history_claim_no_more_than_the_pool(history: list[tuple[str, int, int]]) -> None:
    total, held = 0, [0, 0, 0, 0]
    for step, who, n in history:
        claim = claim_atoms(held[who], total, sum(held))
        match step:
            case "enter":
                minted = lend_mint(n, total, sum(held))
                held[who], total = held[who] + minted, total + n
                assert claim_atoms(held[who], total, sum(held)) >= claim + n
            case "leave" if n < claim:
                held[who], total = held[who] - redeem_burn(n, total, sum(held)), total - n
            case "leave whole":
                held[who], total = 0, total - claim
            case "interest" if any(held):
                total += n
        if not any(held):
            total = 0  # the rest is posted to rounding
        assert min(held) >= 0
        assert sum(claim_atoms(shares, total, sum(held)) for shares in held) <= total


@given(steps)
def test_borrowers_through_any_history_owe_no_less_than_the_pool(history: list[tuple[str, int, int]]) -> None:
    total, held = 0, [0, 0, 0, 0]
    for step, who, n in history:
        debt = debt_atoms(held[who], total, sum(held))
        match step:
            case "enter":
                minted = borrow_mint(n, total, sum(held))
                held[who], total = held[who] + minted, total + n
            case "leave" if n < debt and n <= total:
                held[who], total = held[who] - repay_burn(n, total, sum(held)), total - n
            case "leave whole":
                # The last atom of a debt may be one that the pool no longer has: it goes to rounding.
                held[who], total = 0, max(0, total - debt)
            case "interest" if any(held) and total:
                total += n
        if not any(held):
            total = 0
        assert min(held) >= 0
        assert sum(debt_atoms(shares, total, sum(held)) for shares in held) >= total


# --- the throttle   [B-7]


@given(st.integers(0, INT64_MAX), st.integers(0, INT64_MAX), st.integers(0, 10**9), st.integers(1, RATE_SCALE))
def test_over_and_at_or_over_agree_with_the_exact_utilization(borrowed: int, lent: int, fees: int, limit: int) -> None:
    exact = Fraction(borrowed, lent + fees) if lent + fees else Fraction(2 if borrowed else 0)

    assert is_over(borrowed, lent, fees, limit) == (exact > Fraction(limit, RATE_SCALE))
    assert is_at_or_over(borrowed, lent, fees, limit) == (exact >= Fraction(limit, RATE_SCALE))


def test_what_is_borrowed_from_an_empty_pool_is_over_every_fraction() -> None:
    assert is_over(1, 0, 0, RATE_SCALE)
    assert is_at_or_over(1, 0, 0, RATE_SCALE)
    assert not is_over(0, 0, 0, 0)
    assert not is_at_or_over(0, 0, 0, 1)


@given(atoms, atoms, fractions, fractions, fractions)
def test_the_bound_opens_a_part_of_what_is_left_and_never_passes_the_maximum(
    borrowed: int, lent: int, threshold: int, fraction: int, maximum: int
) -> None:
    bound = throttle_bound(borrowed, lent, 0, threshold, fraction, maximum)

    assert bound <= maximum
    assert bound >= min(maximum, threshold)
    if threshold <= maximum and not is_over(borrowed, lent, 0, maximum):
        # A pool between threshold and maximum keeps the room that it has.
        numerator, denominator = utilization(borrowed, lent, 0)
        assert bound >= numerator * RATE_SCALE // denominator


def test_the_default_throttle_opens_by_eight_tenths_of_a_percent() -> None:
    assert throttle_bound(50, 100, 0, 920_000_000, 100_000_000, RATE_SCALE) == 928_000_000
    assert throttle_bound(95, 100, 0, 920_000_000, 100_000_000, RATE_SCALE) == 955_000_000
