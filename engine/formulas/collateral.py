"""Collateral weights and values.   [C-1, C-2]"""

from __future__ import annotations

from math import isqrt

from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE
from ledger.amounts import INT128_MAX

QUANTITY_SCALE = 10**8
"""√q of C-2 is isqrt(q in 1e-8 tokens), in 1e-4."""


def weight_at(atoms: int, unit: int, weight: int, base: int, penalty: int) -> int:
    """inverseSqrt: min(weight, base / (1 + penalty × √q)) in 1e-9, rounded down; `unit`: atoms of one token.   [C-2]"""
    root = isqrt(atoms * QUANTITY_SCALE // unit)
    curve = base * RATE_SCALE * 10**4 // (RATE_SCALE * 10**4 + penalty * root)
    return min(weight, curve)


def flat_atoms(unit: int, weight: int, base: int, penalty: int) -> int:
    """The most atoms at which inverseSqrt still gives `weight` itself, -1 when no quantity does.   [C-2]

    ⌊base × 10^13 / (10^13 + penalty × √q)⌋ ≥ weight, solved for √q = isqrt(…) and that for the atoms.
    """
    if base < weight:
        return -1
    if not penalty or not weight:
        return INT128_MAX
    root = (base - weight) * RATE_SCALE * 10**4 // (weight * penalty)
    return ((root + 1) ** 2 * unit - 1) // QUANTITY_SCALE


def value_usd(atoms: int, unit: int, price: int, weight: int = RATE_SCALE) -> int:
    """quantity × mark × weight in USD (1e-8), rounded down: a value.   [C-1, A-3]"""
    return atoms * price * weight * USD_SCALE // (unit * PRICE_SCALE * RATE_SCALE)
