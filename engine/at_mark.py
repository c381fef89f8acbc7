"""What an asset is worth in USDC at the marks, in atoms of either; names say which way it rounds.   [L-6 … L-8]"""

from __future__ import annotations

from engine import margin
from engine.state import State
from ledger.amounts import mul_div_down, mul_div_up
from ledger.chart import AssetId


def usdc_down(state: State, asset_id: AssetId, atoms: int) -> int:
    """Atoms of an asset at its mark, in USDC atoms, rounded down: a value.   [L-6, L-7]"""
    one, other = _rates(state, asset_id)
    return mul_div_down(atoms, one, other)


def usdc_up(state: State, asset_id: AssetId, atoms: int) -> int:
    """Atoms of an asset at its mark, in USDC atoms, rounded up: a price to be paid.   [L-8]"""
    one, other = _rates(state, asset_id)
    return mul_div_up(atoms, one, other)


def atoms_down(state: State, asset_id: AssetId, usdc_atoms: int) -> int:
    """The most atoms of an asset that this much USDC buys at mark; 0 without one.   [L-6]"""
    one, other = _rates(state, asset_id)
    return mul_div_down(usdc_atoms, other, one) if one else 0


def atoms_up(state: State, asset_id: AssetId, usdc_atoms: int) -> int:
    """The fewest atoms of an asset that are worth this much USDC at mark; 0 without one.   [L-6 … L-8]"""
    one, other = _rates(state, asset_id)
    return mul_div_up(usdc_atoms, other, one) if one else 0


def _rates(state: State, asset_id: AssetId) -> tuple[int, int]:
    """(numerator, denominator) of USDC atoms for an atom of the asset."""
    mark, unit, *_rest = margin.line(state, asset_id)
    usdc_mark, usdc_unit, *_usdc = margin.line(state, state.usdc)
    return mark * usdc_unit, unit * usdc_mark
