"""Price bands: the active price, the limit band, the impact bound, the bounds by mean mark and mean premium.

Multipliers and premiums are in 1e-9; a bound that a taker may not pass is rounded inwards, to a whole tick.
[P-10 … P-14]
"""

from __future__ import annotations

from engine.parameters import PRICE_SCALE, RATE_SCALE, BandParameters
from ledger.amounts import mul_div_down, mul_div_up

Fraction = tuple[int, int]
"""(numerator, denominator) of a price in ticks: a median of two is a half, a mark lies between ticks."""


def active_price(best_bid: int, best_ask: int, last: int) -> Fraction | None:
    """Median of those present (not 0) of best bid, best ask and last, in ticks; None when nothing is there.   [P-10]"""
    present = sorted(price for price in (best_bid, best_ask, last) if price)
    match len(present):
        case 0:
            return None
        case 2:
            return present[0] + present[1], 2
        case count:
            return present[count // 2], 1


def mark_in_ticks(base_price: int, quote_price: int, tick_price: int) -> Fraction:
    """Base price ÷ quote price ÷ tick, exact.   [P-10]"""
    return base_price * PRICE_SCALE, quote_price * tick_price


def is_inside_limit_band(price_ticks: int, active: Fraction, minimum: int, maximum: int) -> bool:
    """active × minimum ≤ price ≤ active × maximum; multiplied across, never divided.   [P-10]"""
    numerator, denominator = active
    price = price_ticks * denominator * RATE_SCALE
    return numerator * minimum <= price <= numerator * maximum


def limit_bounds(active: Fraction, minimum: int, maximum: int) -> tuple[int, int]:
    """(lowest, highest) whole tick inside the limit band.   [P-10]"""
    numerator, denominator = active
    divisor = denominator * RATE_SCALE
    return mul_div_up(numerator, minimum, divisor), mul_div_down(numerator, maximum, divisor)


def buy_impact_bound(best_ask: int, maximum: int) -> int:
    """The highest price a taker buy may pay: best ask × maximum, rounded down.   [P-11]"""
    return mul_div_down(best_ask, maximum, RATE_SCALE)


def sell_impact_bound(best_bid: int, minimum: int) -> int:
    """The lowest price a taker sell may get: best bid × minimum, rounded up.   [P-11]"""
    return mul_div_up(best_bid, minimum, RATE_SCALE)


def mean_mark_bounds(
    total: int, samples: int, minimum: int, maximum: int, quote_price: int, tick_price: int
) -> tuple[int, int]:
    """(lowest, highest) price in ticks within mean mark × [minimum, maximum], rounded inwards.   [P-12]

    The mean is `total` ÷ `samples`, exact, in PRICE_SCALE USD; `quote_price` makes ticks of it.
    """
    divisor = samples * RATE_SCALE * quote_price * tick_price
    scaled = total * PRICE_SCALE
    return mul_div_up(scaled, minimum, divisor), mul_div_down(scaled, maximum, divisor)


def premium_bounds(
    index: int, total: int, samples: int, tolerance: int, quote_price: int, tick_price: int
) -> tuple[int, int]:
    """(lowest, highest) price in ticks whose premium over the index is within the mean ± tolerance, inwards.   [P-13]

    The mean premium is `total` ÷ `samples` in 1e-9, exact: index × (1 + p̄ ± t).
    """
    divisor = samples * RATE_SCALE * quote_price * tick_price
    scaled = index * PRICE_SCALE
    centre, width = samples * RATE_SCALE + total, samples * tolerance
    return max(0, mul_div_up(scaled, centre - width, divisor)), mul_div_down(scaled, centre + width, divisor)


def twice_as_wide(bands: BandParameters) -> BandParameters:
    """Each multiplier twice as far from 1, 0 at least, and twice the premium tolerance: for liquidations.   [P-14]"""
    return BandParameters(
        limit_min=max(0, 2 * bands.limit_min - RATE_SCALE),
        limit_max=2 * bands.limit_max - RATE_SCALE,
        impact_min=max(0, 2 * bands.impact_min - RATE_SCALE),
        impact_max=2 * bands.impact_max - RATE_SCALE,
        mean_mark_min=max(0, 2 * bands.mean_mark_min - RATE_SCALE),
        mean_mark_max=2 * bands.mean_mark_max - RATE_SCALE,
        premium_tolerance=2 * bands.premium_tolerance,
    )
