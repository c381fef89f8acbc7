"""What units of liquidity pools count for as collateral, where a pool's parameters let them; by default nowhere.

A pool's coins can be moved from one side to the other by whoever pays for it, so units are not valued at what they
would give now. At prices from outside the pool they are worth at least twice the geometric mean of its two sides, which
no swap lowers: each side counts for that mean, at its own asset's weight.   [C-3, X-5b]
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

from engine.parameters import RATE_SCALE
from engine.state import State
from ledger.chart import AssetId

PriceOf = Callable[[AssetId], int]
"""The price (PRICE_SCALE) that an asset counts at, 0 for none."""


def note(state: State) -> None:
    """Whether any pool's units count: follows from the parameters."""
    state.has_pool_collateral = any(pool.parameters.collateral_weight for pool in state.amm_pools.values())


def worth(
    state: State, subaccount_id: int, price_of: PriceOf, in_usd: Callable[[AssetId], int], only: int = 0
) -> int:
    """What its units count for, in USD (1e-8), each pool's rounded down; of one pool with `only`.   [C-3]

    Only coins count, not what positions owe: that comes back, or not. `in_usd` divides atoms × price into USD (1e-8).
    """
    total = 0
    for pool in state.amm_pools.values():
        parameters = pool.parameters
        holder = pool.holders.get(subaccount_id) if parameters.collateral_weight else None
        if holder is None or only not in (0, parameters.pool_id):
            continue
        native_id, external_id = parameters.native_asset_id, parameters.pool_id
        native = pool.native_balance * price_of(native_id) // in_usd(native_id)
        external = pool.external_balance * price_of(external_id) // in_usd(external_id)
        weights = state.assets[native_id].weight + state.assets[external_id].weight
        weighted = isqrt(native * external) * holder.units * weights * parameters.collateral_weight
        total += weighted // (pool.units * RATE_SCALE * RATE_SCALE)
    return total
