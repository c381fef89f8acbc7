"""Who bears what at the end of the liquidation ladder: bankruptcy prices, slices, the ADL ranking, shared losses.

USD values in 1e-8, prices in quote atoms per lot, positions in signed lots, fractions in 1e-9; `quote_unit` is the
atoms of one whole unit of the quote asset and `quote_mark` its mark in 1e-12 USD.   [L-4, L-5, L-6]
"""

from __future__ import annotations

from functools import cmp_to_key
from typing import NamedTuple

from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE
from ledger.amounts import mul_div_down, mul_div_half_even, mul_div_up

LOSS_ONE = 10**12
"""Shared losses of one lot are in 1e-12 quote atoms.   [L-6]"""

_PRICE_IN_USD = PRICE_SCALE // USD_SCALE


class Candidate(NamedTuple):
    """An opposing position as the ADL ranking sees it.   [L-6]"""

    subaccount_id: int
    lots: int
    """Its size, without sign."""
    profit: int
    """q × (mark − average entry), in quote atoms."""
    entry: int
    """|q| × average entry, in quote atoms."""
    notional: int
    """Σ exposure of the account, in USD (1e-8)."""
    equity: int
    """What the account is worth, in USD (1e-8)."""


def ranked(candidates: list[Candidate]) -> list[Candidate]:
    """The order in which opposing positions are closed: score descending, then the larger, then by id.   [L-6]"""
    return sorted(candidates, key=cmp_to_key(_compare))


def score(profit: int, entry: int, notional: int, equity: int) -> tuple[int, int]:
    """(numerator, denominator > 0) of profit / entry, × leverage when that is above zero, else ÷ leverage.   [L-6]

    Leverage is notional / equity; who has no equity counts as having the smallest there is. Exact.
    """
    entry, notional, equity = max(entry, 1), max(notional, 1), max(equity, 1)
    if profit > 0:
        return profit * notional, entry * equity
    return profit * equity, entry * notional


def _compare(one: Candidate, other: Candidate) -> int:
    """Below zero when `one` comes first. Cross products: nothing is divided.   [L-6]"""
    above, below = score(one.profit, one.entry, one.notional, one.equity)
    other_above, other_below = score(other.profit, other.entry, other.notional, other.equity)
    difference = other_above * below - above * other_below
    return difference or other.lots - one.lots or one.subaccount_id - other.subaccount_id


def bankruptcy_price(
    mark: int,
    quantum: int,
    equity: int,
    maintenance: int,
    maintenance_sum: int,
    lots: int,
    quote_unit: int,
    quote_mark: int,
) -> int:
    """p = mark − E × s / q, s = maintenance / Σ maintenance: at it the position uses up its share of E.   [L-6]

    Half-even to a multiple of `quantum` (the mark's, in quote atoms per lot), at least one of them. `lots` is not 0.
    """
    above, below = _share_of(equity, maintenance, maintenance_sum, quote_unit, quote_mark)
    below *= lots
    if below < 0:
        above, below = -above, -below
    return max(1, mul_div_half_even(mark * below - above, 1, below * quantum)) * quantum


def lacking_atoms(
    equity: int,
    maintenance: int,
    maintenance_sum: int,
    part: int,
    whole: int,
    quote_unit: int,
    quote_mark: int,
    gained: int,
) -> int:
    """−E × s × part / whole in quote atoms, rounded up, less what closing gained over the mark.   [L-6]

    Above zero: a loss that nobody took yet (D); below: what rounding the price left over.
    """
    above, below = _share_of(equity, maintenance, maintenance_sum, quote_unit, quote_mark)
    return mul_div_up(-above, part, below * whole) - gained


def slice_of(amount: int, part: int, whole: int) -> int:
    """amount × part / whole toward zero: no slice has more lots, atoms or debt than its share. `whole` > 0.   [L-4]"""
    return -mul_div_down(-amount, part, whole) if amount < 0 else mul_div_down(amount, part, whole)


def minimum_incentive(gross_notional: int, rate: int) -> int:
    """The least that a slice must be worth to who takes it, in USD (1e-8), rounded up: a requirement.   [L-4]"""
    return mul_div_up(gross_notional, rate, RATE_SCALE)


def quote_atoms_up(usd: int, quote_unit: int, quote_mark: int) -> int:
    """USD (1e-8) in quote atoms, rounded up: a charge.   [L-4, L-6]"""
    return mul_div_up(usd * _PRICE_IN_USD, quote_unit, quote_mark)


def quote_atoms_down(usd: int, quote_unit: int, quote_mark: int) -> int:
    """USD (1e-8) in quote atoms, rounded down: the most that a charge may be.   [L-3]"""
    return mul_div_down(usd * _PRICE_IN_USD, quote_unit, quote_mark)


def fee_rate(maintenance: int, notional: int, most: int) -> int:
    """min(`most`, ½ × the item's MMF) in 1e-9, rounded down; `notional` > 0.   [L-3]"""
    return min(most, mul_div_down(maintenance, RATE_SCALE, 2 * notional)) if notional > 0 else 0


def spare_usd(equity: int, maintenance: int, equity_after: int, maintenance_after: int) -> int:
    """How much equity may still be taken before MMR is above what it was, in USD (1e-8), rounded down; ≥ 0.   [L-3]"""
    if maintenance <= 0:
        return max(0, equity_after)
    return max(0, equity_after - mul_div_up(equity, maintenance_after, maintenance))


def loss_per_lot(loss_atoms: int, open_lots: int) -> int:
    """⌈D × 1e12 / open interest⌉: by how much the side's loss index rises, in 1e-12 quote atoms a lot.   [L-6]"""
    return mul_div_up(loss_atoms, LOSS_ONE, open_lots)


def shared_loss(per_lot: int, lots: int) -> int:
    """What a position of |`lots`| bears of it, in quote atoms, rounded up: a charge.   [L-6]"""
    return mul_div_up(per_lot, abs(lots), LOSS_ONE)


def quintile(place: int, count: int) -> int:
    """1 … 5 for place 0 … count − 1 of a ranking: 5 is closed first.   [L-6]"""
    return 5 - 5 * place // count


def _share_of(
    equity: int, maintenance: int, maintenance_sum: int, quote_unit: int, quote_mark: int
) -> tuple[int, int]:
    """E × s in quote atoms, exact, as (numerator, denominator > 0).   [L-6]"""
    assert maintenance_sum > 0, f"no maintenance to share {equity} by"
    return equity * _PRICE_IN_USD * quote_unit * maintenance, quote_mark * maintenance_sum
