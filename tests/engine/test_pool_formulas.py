"""The pools' arithmetic against exact rationals, which share no line with it, and the promises it keeps for any pool.

[X-1, X-3 … X-10]
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from engine.formulas import pools
from engine.formulas.pools import (
    BUY_NATIVE,
    DEC,
    NO_SWAP,
    SELL_NATIVE,
    Swapped,
    dec_mul,
    dec_quo,
    dec_round,
    dec_truncate,
    fund_share,
    input_for,
    interest_due,
    loan_for,
    minimum_interest,
    next_rate,
    pool_health,
    position_health,
    repayment,
    spot_price,
    swap,
    units_for,
    value_at,
    withdrawal_by_basis_points,
    withdrawal_by_units,
)

FEE = 3 * 10**15
EDGES = (0, 1, 2, 3, 10**9, 10**18, 2**63 - 1, 2**63, 2**127 - 1, 2**127)

sizes = st.one_of(st.sampled_from(EDGES), st.integers(0, 50), st.integers(0, 2**127))
depths = st.one_of(st.sampled_from(EDGES[1:]), st.integers(1, 50), st.integers(1, 2**127))
fees = st.one_of(st.sampled_from((0, 1, FEE, DEC // 3, DEC - 1, DEC)), st.integers(0, DEC))
low_fees = st.one_of(st.sampled_from((0, 1, FEE)), st.integers(0, DEC // 2))
running = st.one_of(st.just(0), st.sampled_from((1, DEC // 10, DEC, 20 * DEC)), st.integers(0, 3 * DEC))
decs = st.one_of(st.sampled_from((0, 1, DEC - 1, DEC, DEC + 1, DEC // 2, 3 * DEC // 2)), st.integers(0, 2**90))


def exact_swap(x_depth: int, y_depth: int, x: int, running_rate: int, to_native: bool) -> Fraction:
    """x·Y/(X + x) with the running rate, nothing rounded."""
    factor = 1 + Fraction(running_rate, DEC)
    raw = Fraction(x * y_depth, x_depth + x)
    return raw / factor if to_native else raw * factor


def half_even(value: Fraction) -> int:
    """Python's own rounding of a rational."""
    return round(value)


# --- Dec


@given(decs, decs)
def test_dec_arithmetic_is_rounded_half_even(a: int, b: int) -> None:
    assert dec_mul(a, b) == half_even(Fraction(a * b, DEC))
    assert dec_truncate(a) == Fraction(a, DEC) // 1
    assert dec_round(a) == half_even(Fraction(a, DEC))
    assert value_at(a, b) == half_even(Fraction(a * b, DEC))


@given(decs, decs.filter(bool))
def test_a_dec_quotient_is_cut_at_36_digits_and_then_rounded(a: int, b: int) -> None:
    assert dec_quo(a, b) == half_even(Fraction(Fraction(a, b) * DEC * DEC // 1, DEC))


def test_dec_ties_go_to_the_even_digit() -> None:
    assert dec_mul(1, DEC // 2) == 0
    assert dec_mul(3, DEC // 2) == 2
    assert dec_round(5 * DEC // 2) == 2
    assert dec_round(7 * DEC // 2) == 4
    assert dec_quo(DEC, 3 * DEC) == 333_333_333_333_333_333
    assert dec_quo(2 * DEC, 3 * DEC) == 666_666_666_666_666_667


# --- swaps  


@given(sizes, sizes, sizes, fees, running, st.booleans())
@settings(max_examples=400)
def test_a_swap_is_the_exact_amount_less_the_fee_rounded_down(
    x_depth: int, y_depth: int, x: int, fee_rate: int, running_rate: int, to_native: bool
) -> None:
    got = swap(x_depth, y_depth, x, fee_rate, running_rate, to_native)

    if not x_depth or not y_depth or not x:
        assert got == Swapped(0, 0)
        return
    exact = exact_swap(x_depth, y_depth, x, running_rate, to_native)
    fee = exact * Fraction(fee_rate, DEC) // 1
    assert got == Swapped(exact // 1 - fee, fee)
    assert abs(got.received - exact * (1 - Fraction(fee_rate, DEC))) < 1
    assert got.received >= 0


def test_worked_swaps() -> None:
    # 50,000 of 10,000,000 against 8,770,000: 43,631.84 before the fee.
    assert swap(10_000_000, 8_770_000, 50_000, FEE) == Swapped(43_501, 130)
    # The running rate doubles what native buys and halves what buys native.
    assert swap(1_000, 1_000, 1_000, 0) == Swapped(500, 0)
    assert swap(1_000, 1_000, 1_000, 0, DEC, False) == Swapped(1_000, 0)
    assert swap(1_000, 1_000, 1_000, 0, DEC, True) == Swapped(250, 0)
    # Dust pays no fee: 0.003 × 332.99… is less than an atom; one atom more does, and buys nothing.
    assert swap(10**12, 10**12, 333, FEE) == Swapped(332, 0)
    assert swap(10**12, 10**12, 334, FEE) == Swapped(332, 1)


@given(depths, depths, sizes, fees)
def test_the_product_of_depths_never_falls(x_depth: int, y_depth: int, x: int, fee_rate: int) -> None:
    received = swap(x_depth, y_depth, x, fee_rate).received

    assert (x_depth + x) * (y_depth - received) >= x_depth * y_depth
    assert received < y_depth


@given(depths, depths, sizes, sizes)
def test_splitting_a_swap_without_fee_never_receives_more(x_depth: int, y_depth: int, x: int, more: int) -> None:
    whole = swap(x_depth, y_depth, x + more, 0).received
    first = swap(x_depth, y_depth, x, 0).received
    second = swap(x_depth + x, y_depth - first, more, 0).received

    # The atom that the first rounds away stays in the pool, and the second may find it there.
    assert first + second <= whole + 1


@given(depths, depths, sizes, sizes, low_fees)
def test_splitting_gains_at_most_the_second_part_of_the_first_fee(
    x_depth: int, y_depth: int, x: int, more: int, fee_rate: int
) -> None:
    whole = swap(x_depth, y_depth, x + more, fee_rate).received
    first, fee = swap(x_depth, y_depth, x, fee_rate)
    second = swap(x_depth + x, y_depth - first, more, fee_rate).received

    back = Fraction(fee * more, x_depth + x + more)
    assert first + second <= whole + back + 3


@given(depths, depths, sizes, low_fees, running, st.booleans())
def test_there_and_back_never_gains(
    x_depth: int, y_depth: int, x: int, fee_rate: int, running_rate: int, to_native: bool
) -> None:
    there = swap(x_depth, y_depth, x, fee_rate, running_rate, to_native).received
    assume(there < y_depth)
    back = swap(y_depth - there, x_depth + x, there, fee_rate, running_rate, not to_native).received

    if not running_rate:
        assert back <= x


# --- the input for an output


@given(depths, depths, st.integers(1, 2**127), low_fees, running, st.booleans())
@example(1_000, 1_000, 333, FEE, 0, False)
@settings(max_examples=400)
def test_the_input_found_is_enough(
    x_depth: int, y_depth: int, wanted: int, fee_rate: int, running_rate: int, to_native: bool
) -> None:
    found = input_for(x_depth, y_depth, wanted, fee_rate, running_rate, to_native)

    if found is None:
        limit = exact_swap(1, y_depth, 10**80, running_rate, to_native)
        assert wanted > limit * (1 - Fraction(fee_rate, DEC)) - 1
        return
    assert swap(x_depth, y_depth, found, fee_rate, running_rate, to_native).received >= wanted


@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, DEC), st.sampled_from((0, DEC // 3))
)
@settings(max_examples=300)
def test_no_smaller_input_is_enough(x_depth: int, y_depth: int, wanted: int, fee_rate: int, running_rate: int) -> None:
    found = input_for(x_depth, y_depth, wanted, fee_rate, running_rate, True)
    tried = (x for x in range(1, 4_000) if swap(x_depth, y_depth, x, fee_rate, running_rate, True).received >= wanted)

    assert next(tried, None) == (found if found is None or found < 4_000 else None)


def test_an_input_for_nothing_and_from_an_empty_side() -> None:
    assert input_for(5, 5, 0, FEE) == 0
    assert input_for(0, 5, 1, FEE) is None
    assert input_for(5, 0, 1, FEE) is None
    assert input_for(5, 5, 1, DEC) is None
    assert input_for(5, 5, 5, 0) is None


# --- LP units  


@given(depths, depths, depths, sizes, sizes, low_fees, running)
@settings(max_examples=500)
def test_units_are_those_of_the_symmetric_rest_after_the_virtual_swap(
    units: int, native: int, external: int, r: int, a: int, fee_rate: int, running_rate: int
) -> None:
    got = units_for(units, native, external, r, a, fee_rate, fee_rate, running_rate)

    assert got is not None
    assert got.total == units + got.minted
    fee, factor = 1 - Fraction(fee_rate, DEC), 1 + Fraction(running_rate, DEC)
    if r * external == a * native:
        assert got.swap == NO_SWAP
        assert got.minted == Fraction(r * units, native) // 1
    elif r * external > a * native:
        assert got.swap == SELL_NATIVE
        assert_in_ratio(native, external, r, a, got.swapped, fee * factor)
        assert got.minted == Fraction((r - got.swapped) * units, native + got.swapped) // 1
    else:
        assert got.swap == BUY_NATIVE
        assert_in_ratio(external, native, a, r, got.swapped, fee / factor)
        assert got.minted == Fraction((a - got.swapped) * units, external + got.swapped) // 1


def assert_in_ratio(depth: int, other: int, added: int, also: int, swapped: int, keeps: Fraction) -> None:
    """After the swap what is left of the surplus and what there is of the other are the same part of their depths.

    Judged without any root, within an atom: too little swapped leaves a surplus, too much a lack.
    """

    def surplus(s: int) -> Fraction:
        out = Fraction(s * other, depth + s) * keeps
        return (added - s) * (other - out) - (also + out) * (depth + s)

    assert 0 <= swapped <= added
    assert swapped == 0 or surplus(swapped - 1) >= 0
    assert surplus(swapped + 2) <= 0


def test_worked_additions() -> None:
    assert units_for(1_000, 500, 2_000, 50, 200, FEE, FEE) == (100, 1_100, NO_SWAP, 0)
    assert units_for(1_000, 500, 2_000, 0, 0, FEE, FEE) == (0, 1_000, NO_SWAP, 0)
    assert units_for(0, 0, 0, 100, 90, FEE, FEE) == (100, 100, NO_SWAP, 0)
    assert units_for(7, 0, 123, 178, 156, FEE, FEE) == (178, 178, NO_SWAP, 0)
    assert units_for(7, 0, 123, 178, 0, FEE, FEE) is None
    assert units_for(7, 123, 0, 0, 178, FEE, FEE) is None
    # Without fee, √(1 + r/R) − 1 of the units: R = 100, r = 300 doubles them.
    assert units_for(1_000, 100, 100, 300, 0, 0, 0) == (1_000, 2_000, SELL_NATIVE, 100)
    assert units_for(1_000, 100, 100, 0, 300, 0, 0) == (1_000, 2_000, BUY_NATIVE, 100)


@given(depths, depths, depths, sizes, sizes, low_fees)
@example(1, 1, 1, 0, 1, 0)
def test_units_outgrow_the_product_of_depths_by_the_swaps_last_atom_at_most(
    units: int, native: int, external: int, r: int, a: int, fee_rate: int
) -> None:
    got = units_for(units, native, external, r, a, fee_rate, fee_rate)
    assert got is not None

    # (P'/P)² ≤ R'A'/(RA): nobody's unit is worth less √(R·A) afterwards. What rounding the virtual swap down costs the
    # others is under an atom or two of the surplus asset, which is all of a depth of one: pools have a smallest size.
    growth = Fraction(got.total, units) * last_atom(got.swap, native, external, got.swapped)
    assert growth**2 * native * external <= (native + r) * (external + a)


def last_atom(direction: int, native: int, external: int, swapped: int) -> Fraction:
    """By how much units would be fewer with two atoms more swapped."""
    depth = (native if direction == SELL_NATIVE else external) + swapped
    return Fraction(1) if direction == NO_SWAP else Fraction(depth, depth + 2)


# --- withdrawals  


@given(depths, depths, depths, st.integers(1, 10_000), st.data())
def test_a_withdrawal_by_basis_points_is_its_share_of_both_depths(
    lp: int, native: int, external: int, basis_points: int, data: st.DataObject
) -> None:
    units = data.draw(st.integers(lp, 2**127))
    got = withdrawal_by_basis_points(units, native, external, lp, basis_points)

    assert got is not None
    share = Fraction(lp * basis_points, units * 10_000)
    for paid, depth in ((got.native, native), (got.external, external)):
        # The quotient of the units carries half of 1e-18, which counts for most when the share is nearly all.
        assert -1 - depth * share * Fraction(2, DEC) <= paid - depth * share <= depth * share * Fraction(2, DEC)
        assert 0 <= paid <= depth
    assert 0 <= got.units_left <= lp
    assert abs(got.units_left - lp * Fraction(10_000 - basis_points, 10_000)) <= 1 + lp * Fraction(2, DEC)
    assert got.swapped == 0


@given(depths, depths, depths, st.data())
def test_a_withdrawal_by_units_is_the_nearest_atom(lp: int, native: int, external: int, data: st.DataObject) -> None:
    units, out = data.draw(st.integers(lp, 2**127)), data.draw(st.integers(1, lp))
    got = withdrawal_by_units(units, native, external, lp, out)

    assert got is not None
    assert got.units_left == lp - out
    for paid, depth in ((got.native, native), (got.external, external)):
        exact = Fraction(depth * out, units)
        assert abs(paid - exact) <= Fraction(1, 2) + exact * Fraction(2, DEC)
        assert 0 <= paid <= depth


def test_worked_withdrawals() -> None:
    assert withdrawal_by_units(1_000, 500, 2_000, 100, 100) == (50, 200, 0, 0)
    assert withdrawal_by_units(2, 3, 5, 1, 1) == (2, 2, 0, 0)
    assert withdrawal_by_basis_points(1_000, 500, 2_000, 100, 10_000) == (50, 200, 0, 0)
    # A third of a basis point's quotient is not exact: 10000/3 is 3333.33…, and 30 units come as 30.000…3.
    assert withdrawal_by_basis_points(1_000, 1_000, 2_000, 1_000, 3) == (0, 0, 999, 0)
    assert withdrawal_by_basis_points(998, 998, 998, 998, 1_000, 10_000) == (99, 99, 898, 99)
    assert withdrawal_by_basis_points(998, 998, 1_996, 998, 1_000, -5_000) == (99, 199, 898, 99)


def test_withdrawals_that_divide_by_nothing_are_none() -> None:
    assert withdrawal_by_basis_points(0, 5, 5, 5, 100) is None
    assert withdrawal_by_basis_points(5, 5, 5, 0, 100) is None
    assert withdrawal_by_basis_points(5, 5, 5, 5, 0) is None
    assert withdrawal_by_basis_points(5, 5, 5, 5, 10_001) is None
    assert withdrawal_by_basis_points(1, 5, 5, 10**40, 10_000) is None
    assert withdrawal_by_units(0, 5, 5, 5, 1) is None
    assert withdrawal_by_units(5, 5, 5, 5, 0) is None
    assert withdrawal_by_units(5, 5, 5, 5, 6) is None


@given(depths, depths, depths, sizes, sizes, low_fees)
@settings(max_examples=300)
def test_adding_then_removing_gains_no_value(
    units: int, native: int, external: int, r: int, a: int, fee_rate: int
) -> None:
    got = units_for(units, native, external, r, a, fee_rate, fee_rate)
    assert got is not None
    assume(got.minted)
    back = withdrawal_by_basis_points(got.total, native + r, external + a, got.minted, 10_000)
    assert back is not None

    # √(R·A) of what stays is what it was, but for the virtual swap's last atom and the 18th digit of a Dec quotient.
    left = native + r - back.native + 1 + Fraction(2 * (native + r), DEC)
    other = external + a - back.external + 1 + Fraction(2 * (external + a), DEC)
    assert left * other >= native * external * last_atom(got.swap, native, external, got.swapped) ** 2


# --- longs: their size, health, interest   [X-5 … X-10]


@given(sizes, st.integers(DEC, 10 * DEC))
def test_a_loan_is_rounded_down_twice(collateral: int, leverage: int) -> None:
    exact = Fraction(leverage, DEC)

    assert loan_for(collateral, leverage) == (collateral * exact // 1, collateral * (exact - 1) // 1)


@given(sizes, sizes, sizes)
def test_position_health_is_the_quote_over_all_that_is_owed(quote: int, liabilities: int, unpaid: int) -> None:
    health = position_health(quote, liabilities, unpaid)

    if not liabilities:
        assert health == 0
        return
    assert abs(Fraction(health, DEC) - Fraction(quote, liabilities + unpaid)) <= Fraction(1, DEC)


@given(sizes, sizes, sizes, sizes)
def test_pool_health_is_the_product_of_both_sides(n: int, e: int, n_owed: int, e_owed: int) -> None:
    health = pool_health(n, e, n_owed, e_owed)

    if not n + n_owed or not e + e_owed:
        assert health == 0
        return
    exact = Fraction(n, n + n_owed) * Fraction(e, e + e_owed)
    assert abs(Fraction(health, DEC) - exact) <= Fraction(2, DEC)
    assert 0 <= health <= DEC
    assert (health == DEC) >= (not n_owed and not e_owed)


@given(decs, depths, depths, sizes, sizes, decs, decs, decs, decs, decs)
def test_the_rate_moves_by_one_step_at_most_and_stays_in_its_bounds(
    gain: int, n: int, e: int, n_owed: int, e_owed: int, previous: int, up: int, down: int, one: int, other: int
) -> None:
    low, high = min(one, other), max(one, other)
    rate = next_rate(gain, n, e, n_owed, e_owed, previous, up, down, low, high)

    assert rate is not None
    assert low <= rate <= high
    exact = Fraction(gain, DEC) * Fraction(n + n_owed, n) * Fraction(e + e_owed, e) * DEC
    slack = 2 + (gain + exact) * Fraction(4, DEC) + Fraction(n + n_owed, n)
    stepped = min(max(exact, previous - down), previous + up)
    assert abs(rate - min(max(stepped, low), high)) <= slack


def test_worked_rates() -> None:
    # Nothing lent: the target is the gain factor itself.
    assert next_rate(DEC // 10, 10, 10, 0, 0, DEC // 20, DEC, DEC, 0, DEC) == DEC // 10
    # Half of each side lent: H is a quarter, the target four times the gain; then a step, then the bounds.
    assert next_rate(DEC // 10, 5, 5, 5, 5, 0, DEC, DEC, 0, DEC) == 4 * DEC // 10
    assert next_rate(DEC // 10, 5, 5, 5, 5, 0, DEC // 5, DEC, 0, DEC) == DEC // 5
    assert next_rate(DEC // 10, 5, 5, 5, 5, DEC, DEC, DEC // 4, 0, DEC) == 3 * DEC // 4
    assert next_rate(DEC // 10, 5, 5, 5, 5, 0, DEC, DEC, 0, DEC // 3) == DEC // 3
    assert next_rate(DEC // 10, 0, 5, 5, 5, 0, DEC, DEC, 0, DEC) is None
    assert next_rate(DEC // 10, 5, 0, 5, 5, 0, DEC, DEC, 0, DEC) is None


@given(decs, sizes, sizes, st.integers(0, 999), st.integers(1_000, 2_000))
def test_interest_is_exact_and_counts_unpaid_once(
    rate: int, liabilities: int, unpaid: int, position: int, length: int
) -> None:
    part = Fraction(position, length) if position else Fraction(1)
    exact = Fraction(rate, DEC) * (liabilities + unpaid) * part // 1 + unpaid

    assert interest_due(rate, liabilities, unpaid, position, length) == (1 if not exact and rate else exact)


def test_worked_interest() -> None:
    assert interest_due(DEC // 10, 1_000, 1_000) == 1_200
    assert interest_due(DEC // 10, 1_000, 1_000, 3, 10) == 1_060
    assert interest_due(1, 1, 0) == 1
    assert interest_due(0, 10**30, 0) == 0
    # Three tenths are three tenths: 3, where a float gives 2.
    assert interest_due(3 * DEC // 10, 10, 0) == 3
    assert minimum_interest(10**10, 200_000_000) == 2
    assert minimum_interest(10**10, 10_000_000) == 0
    assert fund_share(101, 35 * DEC // 100) == 35


@pytest.mark.parametrize(
    ("proceeds", "wanted"),
    [(19_000, (9_500, 0, 0)), (9_500, (0, 0, 0)), (9_499, (0, 0, 1)), (9_000, (0, 0, 500)), (8_999, (0, 1, 500))],
)
def test_principal_is_repaid_before_interest(proceeds: int, wanted: tuple[int, int, int]) -> None:
    assert repayment(proceeds, 9_000, 500) == wanted


@given(sizes, sizes, sizes)
def test_a_repayment_loses_no_atom(proceeds: int, liabilities: int, unpaid: int) -> None:
    got = repayment(proceeds, liabilities, unpaid)

    assert proceeds + got.principal_missing + got.interest_missing == liabilities + unpaid + got.returned
    assert not got.returned or not got.principal_missing + got.interest_missing


# --- prices


@given(sizes, sizes, st.integers(0, 30), st.integers(0, 30), running, st.booleans())
def test_a_spot_price_is_rounded_down(
    depth: int, other: int, decimals: int, other_decimals: int, running_rate: int, is_native: bool
) -> None:
    price = spot_price(depth, other, decimals, other_decimals, running_rate, is_native)

    if not depth:
        assert price is None
        return
    factor = 1 + Fraction(running_rate, DEC)
    exact = Fraction(other, depth) * Fraction(10) ** (decimals - other_decimals)
    exact = exact * factor if is_native else exact / factor
    assert price == exact * DEC // 1


def test_a_worked_price() -> None:
    assert spot_price(12_345_678, 67_890_123, 18, 18) == 5_499_100_413_926_233_941
    assert spot_price(12_345_678, 67_890_123, 16, 18, DEC) == 109_982_008_278_524_678
    assert value_at(100, 232 * DEC // 100) == 232


def test_the_first_example_of_leverage_comes_out() -> None:
    """1,000 at 10×, 500 of 10,000 units paid in interest, price 1 → 2, no fee: 19,000 − 9,000 − 1,000.   [X-10]"""
    loan = loan_for(1_000, 10 * DEC)
    custody = loan.size - 500
    got = repayment(2 * custody, loan.liabilities, 0)

    assert got.returned - 1_000 == 9_000
    assert pools.position_health(2 * custody, loan.liabilities, 0) > 11 * DEC // 10
