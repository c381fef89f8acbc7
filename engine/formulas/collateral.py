"""Collateral weights and values.   [C-1, C-2]"""

from __future__ import annotations

from math import isqrt

from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE

QUANTITY_SCALE = 10**8
"""√q of C-2 is isqrt(q in 1e-8 tokens), in 1e-4."""


def weight_at(atoms: int, unit: int, weight: int, base: int, penalty: int) -> int:
    """inverseSqrt: min(weight, base / (1 + penalty × √q)) in 1e-9, rounded down; `unit`: atoms of one token.   [C-2]"""
    root = isqrt(atoms * QUANTITY_SCALE // unit)
    curve = base * RATE_SCALE * 10**4 // (RATE_SCALE * 10**4 + penalty * root)
    return min(weight, curve)


def value_usd(atoms: int, unit: int, price: int, weight: int = RATE_SCALE) -> int:
    """quantity × mark × weight in USD (1e-8), rounded down: a value.   [C-1, A-3]"""
    return atoms * price * weight * USD_SCALE // (unit * PRICE_SCALE * RATE_SCALE)
