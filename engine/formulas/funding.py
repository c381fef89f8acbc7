"""Funding of perpetuals: the premium, the rate of an interval, the payment of a position.   [P-20 … P-22]"""

from __future__ import annotations

from engine.parameters import DAY_MS, RATE_SCALE, PerpetualParameters
from ledger.amounts import INT64_MAX, mul_div_down, mul_div_half_even

BP = RATE_SCALE // 10_000
INDEX_SCALE = 10**12
"""The cumulative funding index of one lot is in 1e-12 quote atoms: rate × mark of one lot is whole in it.   [P-21]"""


def premium(mark: int, index: int) -> int:
    """(mark − index) / index in 1e-9, half-even; both prices in one scale, `index` > 0; 64 bits at most.   [P-20]"""
    return min(mul_div_half_even(mark - index, RATE_SCALE, index), INT64_MAX)


def funding_rate(total: int, samples: int, perpetual: PerpetualParameters) -> int:
    """An interval's rate in 1e-9 from the sum of its premium samples; 0 without a sample.   [P-20, P-22]

    With p the mean premium and i the day's interest × the interval ÷ a day: (p + i held within p ± clamp) / divisor,
    exact until it is rounded half-even, once; then held between the market's bounds.
    """
    if not samples:
        return 0
    scale = samples * DAY_MS
    mean, clamp = total * DAY_MS, perpetual.funding_clamp * scale
    interest = perpetual.interest_rate * perpetual.funding_interval_ms * samples
    moved = mean + min(max(interest - mean, -clamp), clamp)
    rate = mul_div_half_even(moved, 1, scale * perpetual.premium_divisor)
    return min(max(rate, perpetual.funding_lower_bps * BP), perpetual.funding_upper_bps * BP)


def payment(rate: int, mark_lot: int, lots: int) -> int:
    """What a position of signed `lots` receives, in quote atoms: −rate × mark × lots, rounded down.   [P-21]

    A charge is so rounded up and a credit down; what that leaves over is the rounding account's.
    """
    return mul_div_down(-rate * mark_lot, lots, RATE_SCALE)


def index_step(rate: int, mark_lot: int) -> int:
    """What the interval adds to the funding index: rate × mark of one lot, exact in 1e-12 quote atoms.   [P-21]"""
    return rate * mark_lot * (INDEX_SCALE // RATE_SCALE)


def next_end_us(at_us: int, interval_ms: int) -> int:
    """The first multiple of the interval (of exchange time) after `at_us`.   [P-20]"""
    interval_us = interval_ms * 1_000
    return (at_us // interval_us + 1) * interval_us
