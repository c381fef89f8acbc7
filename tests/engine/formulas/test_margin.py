"""Margin lines, the loss of an order, the backstop's threshold, and the size that margin allows.

[C-1, C-2, M-2 … M-4, M-7 … M-9, S-6]
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import isqrt

from hypothesis import given
from hypothesis import strategies as st

from engine.formulas.collateral import value_usd, weight_at
from engine.formulas.margin import (
    account_fractions,
    auto_close_fraction,
    leverage_fraction,
    margin_fraction,
    margin_line,
    notional_usd,
    order_loss_usd,
)
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE
from ledger.amounts import INT64_MAX

notionals = st.integers(0, 2**80)
bases = st.integers(0, RATE_SCALE)
factors = st.integers(0, 10**6)
prices = st.integers(1, 10**18)
units = st.sampled_from([10**6, 10**8, 10**9])
quantities = st.integers(0, INT64_MAX)


# --- margin lines   [M-2, M-3]


@given(notionals, bases, factors, bases, factors, bases)
def test_each_margin_is_the_exact_one_rounded_up_once(
    notional: int, imf_base: int, imf_factor: int, mmf_base: int, mmf_factor: int, leverage_base: int
) -> None:
    initial, maintenance = margin_line(notional, imf_base, imf_factor, mmf_base, mmf_factor, leverage_base)

    root = Fraction(isqrt(notional), 10**4)
    mmf = max(Fraction(mmf_base, RATE_SCALE), Fraction(mmf_factor, RATE_SCALE) * root)
    imf = max(
        Fraction(imf_base, RATE_SCALE),
        Fraction(leverage_base, RATE_SCALE),
        Fraction(imf_factor, RATE_SCALE) * root,
        mmf * 5 / 4,
    )
    assert initial - 1 < notional * imf <= initial
    assert maintenance - 1 < notional * mmf <= maintenance


@given(notionals, bases, factors, bases, factors, bases)
def test_nobody_is_born_in_liquidation(
    notional: int, imf_base: int, imf_factor: int, mmf_base: int, mmf_factor: int, leverage_base: int
) -> None:
    initial, maintenance = margin_line(notional, imf_base, imf_factor, mmf_base, mmf_factor, leverage_base)

    # 1.25 × the maintenance margin, but for the atom that rounding it up may add.
    assert 4 * initial > 5 * (maintenance - 1)


@given(st.lists(notionals, min_size=2, max_size=6), bases, factors, bases, factors)
def test_more_exposure_never_needs_less_margin(
    sizes: list[int], imf_base: int, imf_factor: int, mmf_base: int, mmf_factor: int
) -> None:
    lines = [margin_line(size, imf_base, imf_factor, mmf_base, mmf_factor, 0) for size in sorted(sizes)]

    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(lines))


def test_the_default_fractions_at_ten_times_leverage() -> None:
    # 100,000 USD at 10x: 10,000 initial, 5,000 maintenance.
    assert margin_line(100_000 * USD_SCALE, 20_000_000, 0, 50_000_000, 0, leverage_fraction(10 * RATE_SCALE)) == (
        10_000 * USD_SCALE,
        5_000 * USD_SCALE,
    )


@given(st.integers(RATE_SCALE, 1000 * RATE_SCALE))
def test_the_fraction_of_a_leverage_allows_no_more_than_the_leverage(leverage: int) -> None:
    fraction = leverage_fraction(leverage)

    assert (fraction - 1) * leverage < RATE_SCALE * RATE_SCALE <= fraction * leverage


# --- values   [C-1, C-2]


@given(quantities, prices, units)
def test_an_asset_counts_for_less_as_a_value_than_as_a_liability_by_at_most_a_unit(
    quantity: int, price: int, unit: int
) -> None:
    assert 0 <= notional_usd(quantity, price, unit) - value_usd(quantity, unit, price) <= 1


@given(st.lists(quantities, min_size=2, max_size=6), units, bases, st.integers(0, 2 * RATE_SCALE), factors)
def test_a_weight_never_rises_with_size(sizes: list[int], unit: int, weight: int, base: int, penalty: int) -> None:
    weights = [weight_at(size, unit, weight, base, penalty) for size in sorted(sizes)]

    assert weights == sorted(weights, reverse=True)
    assert max(weights) <= weight


# --- orders   [M-9]


@given(quantities, prices, prices, st.booleans(), units)
def test_an_order_loses_only_on_the_worse_side_of_the_mark(
    lots: int, order_price: int, mark: int, is_buy: bool, unit: int
) -> None:
    loss = order_loss_usd(lots, 1, unit, order_price * PRICE_SCALE, mark, is_buy)
    other_side = order_loss_usd(lots, 1, unit, order_price * PRICE_SCALE, mark, not is_buy)

    worse = max(0, (order_price - mark) * (1 if is_buy else -1))
    assert loss == notional_usd(lots, worse, unit)
    assert not (loss and other_side)


def test_the_loss_of_an_order_is_exact_to_the_last_digit_of_the_product_of_two_prices() -> None:
    one_sol, mark = (100, 10**7, 10**9), 150 * PRICE_SCALE

    assert order_loss_usd(*one_sol, mark * PRICE_SCALE, mark, True) == 0
    # 1e-24 USD above the mark is a loss already, and rounds up to 1e-8.
    assert order_loss_usd(*one_sol, mark * PRICE_SCALE + 1, mark, True) == 1
    assert order_loss_usd(*one_sol, 149 * PRICE_SCALE**2, mark, False) == USD_SCALE


# --- accounts   [M-4, M-7, M-8]


@given(st.integers(0, 2**80), st.integers(1, 2**80))
def test_the_backstop_takes_over_at_the_higher_of_its_two_fractions(maintenance: int, notional: int) -> None:
    mmf = Fraction(maintenance, notional)

    assert Fraction(*auto_close_fraction(maintenance, notional)) == max(mmf / 2, mmf - Fraction(6, 100))


def test_the_backstop_changes_its_fraction_at_twice_the_offset() -> None:
    assert Fraction(*auto_close_fraction(5, 100)) == Fraction(25, 1000)
    assert Fraction(*auto_close_fraction(12, 100)) == Fraction(6, 100)
    assert Fraction(*auto_close_fraction(20, 100)) == Fraction(14, 100)


def test_without_exposure_only_the_leverage_speaks() -> None:
    assert account_fractions(0, 0, 0, 100_000_000) == (100_000_000, 0)
    assert margin_fraction(5 * USD_SCALE, 0) is None


def test_displayed_requirements_round_up_and_a_displayed_margin_fraction_down() -> None:
    assert account_fractions(1, 1, 3, 0) == (333_333_334, 333_333_334)
    assert margin_fraction(1, 3) == 333_333_333
    assert margin_fraction(-1, 3) == -333_333_334


# --- the largest spot margin buy   [S-6]


def test_a_hundred_usdc_buy_exactly_eight_hundred() -> None:
    """Initial fraction 0.1, weight 0.9625: E × (1 + f) / (1 + f − w) = 110 / 0.1375."""
    equity, fraction, weight = 100, Fraction(1, 10), Fraction(9625, 10000)
    assert equity * (1 + fraction) / (1 + fraction - weight) == 800

    # In the engine's numbers: 800 USD of the asset at its weight, against the 700 USDC that are missing.
    assert equity_and_margin(800 * USD_SCALE) == (70 * USD_SCALE, 70 * USD_SCALE)


def test_a_cent_below_eight_hundred_leaves_room_and_a_cent_above_does_not() -> None:
    cent = USD_SCALE // 100
    below, above = equity_and_margin(800 * USD_SCALE - cent), equity_and_margin(800 * USD_SCALE + cent)

    assert below[0] > below[1]
    assert above[0] < above[1]


def equity_and_margin(bought_usd: int) -> tuple[int, int]:
    """(net equity, initial margin) of 100 USDC that buy so much (USD 1e-8) of an asset at 1 USD: 8 decimals both."""
    asset = value_usd(bought_usd, 10**8, PRICE_SCALE, 962_500_000)
    debt = notional_usd(bought_usd - 100 * USD_SCALE, PRICE_SCALE, 10**8)
    initial, _ = margin_line(debt, 0, 0, 0, 0, leverage_fraction(10 * RATE_SCALE))
    return asset - debt, initial
