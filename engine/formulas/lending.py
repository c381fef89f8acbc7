"""The money market's arithmetic: utilization, the interest curve, accrual, shares, the throttle.

Annual rates are integers in 1e-18 (`RATE_ONE`), their parameters, fees and utilizations in 1e-9 (`RATE_SCALE`), time
in exchange milliseconds, amounts in atoms.   [B-1 … B-4, B-7]
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from engine.parameters import RATE_SCALE
from ledger.amounts import mul_div_down, mul_div_half_even, mul_div_up

RATE_ONE = 10**18
"""An annual rate of 100 %."""
YEAR_MS = 8760 * 3_600_000
"""A year of interest is 8,760 hours.   [B-2]"""
SHARES_PER_ATOM = 10**9
"""Lend or debt shares that the first atom of a pool mints.   [B-4]"""
FEE_ONE = RATE_SCALE
"""A pool fee of 100 %.   [B-4]"""

CURVE_BITS = 128
"""Binary digits of the first attempt at the exponential; repeated with twice as many until they suffice.   [B-2]"""

_ACCRUAL_ONE = RATE_ONE * YEAR_MS
_FINE = RATE_ONE // RATE_SCALE


def utilization(borrowed: int, lent: int, fees: int) -> tuple[int, int]:
    """U = borrowedTotal / (lentTotal + feeTotal), exact, as (numerator, denominator).   [B-1]

    At most 1; 0 when the pool holds nothing, whatever is borrowed.
    """
    total = lent + fees
    if total <= 0:
        return 0, 1
    return (borrowed, total) if borrowed < total else (1, 1)


def borrow_rate(
    borrowed: int, lent: int, fees: int, optimal: int, rate_base: int, rate_optimal: int, rate_max: int
) -> int:
    """Annual borrow rate in 1e-18 at the pool's exact U, to the nearest, ties to even.   [B-2]

    Up to `optimal` a straight line from `rate_base` to `rate_optimal`; above it
    rate_optimal × (rate_max / rate_optimal)^((U − U*) / (1 − U*)), which is rate_max at U = 1. There is no
    exponential from 0 and none that does not rise: with rate_optimal = 0 or rate_max ≤ rate_optimal the upper part is a
    straight line too.
    """
    total = lent + fees
    if total <= 0:
        borrowed, total = 0, 1
    elif borrowed >= total:
        borrowed, total = 1, 1

    # `above` / (total · RATE_SCALE) is U − U*.
    above = borrowed * RATE_SCALE - optimal * total
    if above <= 0:
        if not optimal:
            return rate_optimal * _FINE
        rise = (rate_optimal - rate_base) * _FINE * RATE_SCALE
        return rate_base * _FINE + mul_div_half_even(rise, borrowed, optimal * total)

    span = (RATE_SCALE - optimal) * total
    if above == span:
        return rate_max * _FINE
    if rate_optimal == 0 or rate_max <= rate_optimal:
        return rate_optimal * _FINE + mul_div_half_even((rate_max - rate_optimal) * _FINE, above, span)
    return _exponential(rate_optimal, rate_max, above, span)


def lend_rate(borrow_rate: int, borrowed: int, lent: int, fees: int, fee: int) -> int:
    """Annual lend rate = borrow rate × U × (1 − fee) in 1e-18, rounded down.   [B-3]"""
    numerator, denominator = utilization(borrowed, lent, fees)
    return mul_div_down(borrow_rate * (FEE_ONE - fee), numerator, denominator * FEE_ONE)


class Accrual(NamedTuple):
    """What an interval adds: borrowedTotal += interest, feeTotal += fee, lentTotal += interest − fee.   [B-4]"""

    interest: int
    fee: int
    carry: int
    """Interest that is not yet an atom, in atoms / (RATE_ONE × YEAR_MS): goes into the next interval."""
    fee_carry: int
    """Fee that is not yet an atom, in atoms / FEE_ONE: goes into the next interval."""


def accrue(borrowed: int, rate: int, elapsed_ms: int, carry: int, fee_share: int, fee_carry: int) -> Accrual:
    """Interest of `elapsed_ms` at one `rate` and the pool's fee of it; both down, the remainders carried.   [B-4]

    Nothing is lost to rounding: as long as borrowedTotal and rate stay, an interval charges what its parts charge.
    """
    interest, carry = divmod(borrowed * rate * elapsed_ms + carry, _ACCRUAL_ONE)
    fee, fee_carry = divmod(interest * fee_share + fee_carry, FEE_ONE)
    return Accrual(interest, fee, carry, fee_carry)


def claim_atoms(shares: int, lent: int, all_shares: int) -> int:
    """What `shares` of a pool's `all_shares` lend shares can redeem, rounded down.   [B-4]"""
    return mul_div_down(shares, lent, all_shares) if shares else 0


def debt_atoms(shares: int, borrowed: int, all_shares: int) -> int:
    """What `shares` of a pool's `all_shares` debt shares owe, rounded up.   [B-4]"""
    return mul_div_up(shares, borrowed, all_shares) if shares else 0


def lend_mint(atoms: int, lent: int, all_shares: int) -> int:
    """Lend shares for `atoms`, totals as before it; rounded up, so that the claim is exactly `atoms`.   [B-4]"""
    if not lent or not all_shares:
        return atoms * SHARES_PER_ATOM
    return mul_div_up(atoms, all_shares, lent)


def borrow_mint(atoms: int, borrowed: int, all_shares: int) -> int:
    """Debt shares for `atoms`, totals as before it; rounded down, so that the debt is exactly `atoms`.   [B-4]"""
    if not borrowed or not all_shares:
        return atoms * SHARES_PER_ATOM
    return mul_div_down(atoms, all_shares, borrowed)


def redeem_burn(atoms: int, lent: int, all_shares: int) -> int:
    """Lend shares that a redemption of `atoms` burns, rounded up; the whole claim burns the whole holding.   [B-4]"""
    return mul_div_up(atoms, all_shares, lent)


def repay_burn(atoms: int, borrowed: int, all_shares: int) -> int:
    """Debt shares that a repayment of `atoms` burns, rounded down; the whole debt burns the whole holding.   [B-4]"""
    return mul_div_down(atoms, all_shares, borrowed)


def is_at_or_over(borrowed: int, lent: int, fees: int, fraction: int) -> bool:
    """U ≥ fraction (1e-9); U is not capped, and anything borrowed from an empty pool is over.   [B-7]"""
    total = lent + fees
    if total <= 0:
        return borrowed > 0 or fraction <= 0
    return borrowed * RATE_SCALE >= fraction * total


def is_over(borrowed: int, lent: int, fees: int, fraction: int) -> bool:
    """U > fraction (1e-9); U is not capped, and anything borrowed from an empty pool is over.   [B-7]"""
    total = lent + fees
    if total <= 0:
        return borrowed > 0
    return borrowed * RATE_SCALE > fraction * total


def throttle_bound(borrowed: int, lent: int, fees: int, threshold: int, fraction: int, maximum: int) -> int:
    """min(maximum, h + ⌊fraction × (maximum − h)⌋), h = max(threshold, U), U rounded down; all in 1e-9.   [B-7]"""
    numerator, denominator = utilization(borrowed, lent, fees)
    high = max(threshold, mul_div_down(numerator, RATE_SCALE, denominator))
    return min(maximum, high + mul_div_down(fraction, maximum - high, RATE_SCALE))


def _exponential(rate_optimal: int, rate_max: int, above: int, span: int) -> int:
    """rate_optimal × (rate_max / rate_optimal)^(above / span), rates in, 1e-18 out, to the nearest.   [B-2]

    The value to the power `span` is a whole number, so the value is whole or irrational and never a tie: the nearest
    integer is well defined, and enough digits always find it. The bound on the error is 2^20 units of the last digit,
    far above what the steps below can add up to.
    """
    bits = CURVE_BITS
    while True:
        power = _exp(_ln_ratio(rate_max, rate_optimal, bits) * above // span, bits)
        value = rate_optimal * _FINE * power
        error = (value >> (bits - 20)) + 1
        half = 1 << (bits - 1)
        nearest = (value + error + half) >> bits
        if nearest == (value - error + half) >> bits:
            return nearest
        bits *= 2


def _exp(exponent: int, bits: int) -> int:
    """e^exponent for exponent ≥ 0, both in 2^-bits: powers of two taken out, a series, eight squarings."""
    doublings, rest = divmod(exponent, _ln_two(bits))
    rest >>= 8
    one = 1 << bits
    result, term, n = one + rest, rest, 2
    while term := (term * rest >> bits) // n:
        result += term
        n += 1
    for _ in range(8):
        result = result * result >> bits
    return result << doublings


@lru_cache(maxsize=1024)
def _ln_ratio(numerator: int, denominator: int, bits: int) -> int:
    """ln(numerator / denominator) for a ratio above 1, in 2^-bits; 32 more digits on the way keep it to one unit."""
    fine = bits + 32
    doublings = max(0, numerator.bit_length() - denominator.bit_length() - 1)
    denominator <<= doublings
    return doublings * _ln_two(fine) + _ln_near_one(numerator, denominator, fine) >> 32


@lru_cache(maxsize=64)
def _ln_two(bits: int) -> int:
    """ln 2 in 2^-bits; 32 more digits on the way keep it to one unit."""
    return _ln_near_one(2, 1, bits + 32) >> 32


def _ln_near_one(numerator: int, denominator: int, bits: int) -> int:
    """ln(numerator / denominator) = 2 · (z + z³/3 + z⁵/5 + …), z = their difference / their sum, in 2^-bits."""
    power = ((numerator - denominator) << bits) // (numerator + denominator)
    square = power * power >> bits
    total, n = 0, 1
    while power:
        total += power // n
        power = power * square >> bits
        n += 2
    return 2 * total
