"""How far from the best opposite price a taker lets itself slip.   [S-7]"""

from __future__ import annotations

from engine.parameters import RATE_SCALE
from ledger.amounts import mul_div_down, mul_div_up


def bound_by_ticks(best_ticks: int, is_buy: bool, ticks: int) -> int:
    """The worst price in ticks; exact.   [S-7]"""
    return best_ticks + ticks if is_buy else best_ticks - ticks


def bound_by_fraction(best_ticks: int, is_buy: bool, fraction: int) -> int:
    """The worst price in ticks at `fraction` (1e-9) from the best: a buy's rounded down, a sell's up.   [S-7]"""
    if is_buy:
        return mul_div_down(best_ticks, RATE_SCALE + fraction, RATE_SCALE)
    return mul_div_up(best_ticks, RATE_SCALE - fraction, RATE_SCALE)
