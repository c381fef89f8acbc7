"""Price bands: the active price, the limit band, the impact bound. Multipliers are in 1e-9.   [P-10, P-11]"""

from __future__ import annotations

from engine.parameters import PRICE_SCALE, RATE_SCALE
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


def buy_impact_bound(best_ask: int, maximum: int) -> int:
    """The highest price a taker buy may pay: best ask × maximum, rounded down.   [P-11]"""
    return mul_div_down(best_ask, maximum, RATE_SCALE)


def sell_impact_bound(best_bid: int, minimum: int) -> int:
    """The lowest price a taker sell may get: best bid × minimum, rounded up.   [P-11]"""
    return mul_div_up(best_bid, minimum, RATE_SCALE)
