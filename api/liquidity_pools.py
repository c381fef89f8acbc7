"""A liquidity pool's numbers as the wire says them, for REST, streams and history alike.   [X-1 … X-11, W-7]"""

from __future__ import annotations

from typing import NamedTuple

from engine.formulas.pools import spot_price
from engine.state import State
from ledger.amounts import format_decimal

DEC_DECIMALS = 18


class PoolText(NamedTuple):
    """How one pool's assets are called and its amounts written; units have the native asset's decimals.   [X-3]"""

    symbol: str
    """The external asset's, which is the pool's name."""
    native_symbol: str
    native_decimals: int
    external_decimals: int
    running_rate: int

    def native(self, atoms: int) -> str:
        return format_decimal(atoms, self.native_decimals)

    def external(self, atoms: int) -> str:
        return format_decimal(atoms, self.external_decimals)

    def units(self, units: int) -> str:
        return format_decimal(units, self.native_decimals)

    def amount(self, is_native: bool, atoms: int) -> str:
        return self.native(atoms) if is_native else self.external(atoms)

    def symbol_of(self, is_native: bool) -> str:
        return self.native_symbol if is_native else self.symbol

    def price(self, native_depth: int, external_depth: int) -> str:
        """External per whole native unit, without fee and slippage, rounded down at 1e-18; 0 for an empty side."""
        price = spot_price(
            native_depth, external_depth, self.native_decimals, self.external_decimals, self.running_rate, True
        )
        return dec(price or 0)

    def inverse_price(self, native_depth: int, external_depth: int) -> str:
        """Native per whole external unit, rounded down at 1e-18; 0 for an empty side."""
        price = spot_price(
            external_depth, native_depth, self.external_decimals, self.native_decimals, self.running_rate, False
        )
        return dec(price or 0)

    def scaled_price(self, price: int) -> str:
        """External atoms per native atom in 1e-18, as external per whole native unit; exact."""
        shift = self.native_decimals - self.external_decimals
        return format_decimal(price * 10 ** max(shift, 0), DEC_DECIMALS + max(-shift, 0))


def pool_text(state: State, pool_id: int) -> PoolText:
    parameters = state.amm_pools[pool_id].parameters
    native, external = state.assets[parameters.native_asset_id], state.assets[pool_id]
    return PoolText(external.symbol, native.symbol, native.decimals, external.decimals, parameters.running_rate)


def dec(value: int) -> str:
    """A rate, health, leverage or fraction in 1e-18 as a decimal string."""
    return format_decimal(value, DEC_DECIMALS)
