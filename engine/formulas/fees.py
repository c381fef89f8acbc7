"""Fees, the insurance fund's share of them, and the volume that decides the tier.   [F-1 … F-4]"""

from __future__ import annotations

from collections.abc import Sequence

from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE
from ledger.amounts import mul_div_down

VOLUME_HOURS = 720
"""Hourly buckets that make the 30-day volume.   [F-2]"""


def fee_atoms(received_atoms: int, fee_rate: int) -> int:
    """Fee on what a side receives, in the same asset, rounded up: a charge.   [F-1, A-3]"""
    # mul_div_up, written out: it runs twice for every fill.
    return -(-received_atoms * fee_rate // RATE_SCALE)


def insurance_atoms(fee: int, share: int) -> int:
    """The insurance fund's part of a fee, rounded down; the rest is fee income, so nothing is lost.   [F-4]"""
    return mul_div_down(fee, share, RATE_SCALE)


def volume_usd(quote_atoms: int, quote_price: int, quote_unit: int) -> int:
    """A fill's notional in USD (1e-8), rounded down. `quote_unit`: atoms of one whole quote token.   [F-2]"""
    return mul_div_down(quote_atoms * USD_SCALE, quote_price, quote_unit * PRICE_SCALE)


def tier_for(volume: int, thresholds: Sequence[int]) -> int:
    """Index of the highest tier whose 30-day volume (USD 1e-8, ascending from 0) is reached.   [F-2, F-3]"""
    tier = 0
    for index, threshold in enumerate(thresholds):
        if volume >= threshold:
            tier = index
    return tier
