"""Selling other collateral for USDC that a subaccount owes and finds nowhere else: step 4 of S-12.   [S-12, V-4]"""

from __future__ import annotations

from typing import NamedTuple

from engine import lending, margin, orders, pricing
from engine.commands import Origin, Side
from engine.events import LendingSource, Outcome, SettlementMoved
from engine.fees import HOUR_US, spot_rates
from engine.formulas.bands import sell_impact_bound
from engine.formulas.fees import fee_atoms
from engine.parameters import PRICE_SCALE, RATE_SCALE, BookState, MarketType
from engine.state import Market, State, Subaccount
from ledger.amounts import mul_div_up
from ledger.chart import AssetId

_SELLING = (BookState.OPEN, BookState.LIMIT_ONLY)


def convert(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int) -> int:
    """Sell collateral until `atoms` more USDC are available, as far as it goes; gives what came in.   [S-12 (4)]

    Assets by weight descending, then value, then id; those of weight 0 last. Of each the smallest multiple of a lot
    that covers the rest with its fee at the bound; what is lent is redeemed for it, outside the throttle.
    """
    usdc, number = state.usdc, subaccount.subaccount_id
    before = state.free(number, usdc)
    for asset in _saleable(state, subaccount, outcome.at_us):
        missing = atoms - (state.free(number, usdc) - before)
        if missing <= 0:
            break
        _sell(state, outcome, subaccount, asset, missing)
    found = state.free(number, usdc) - before
    if found > 0:
        outcome.events.append(SettlementMoved(number, "conversion", found))
    return max(0, found)


class _Asset(NamedTuple):
    """Something that could be sold."""

    asset_id: AssetId
    market: Market
    atoms: int
    """What is available and what is lent of it."""


def _saleable(state: State, subaccount: Subaccount, at_us: int) -> list[_Asset]:
    """What it can sell for USDC on a spot market, in the order of S-12 (4)."""
    markets = spot_markets(state)
    found = []
    for holding in margin.holdings(state, subaccount, at_us):
        asset_id = holding.asset_id
        market = markets.get(asset_id)
        if market is None or market.parameters.state not in _SELLING:
            continue
        atoms = max(0, state.free(subaccount.subaccount_id, asset_id)) + holding.lent
        value = atoms * holding.mark // 10 ** state.assets[asset_id].decimals
        if atoms >= market.parameters.lot_atoms:
            found.append((-holding.weight, -value, asset_id, _Asset(asset_id, market, atoms)))
    return [asset for *_order, asset in sorted(found, key=lambda each: each[:3])]


def spot_markets(state: State) -> dict[AssetId, Market]:
    """Asset → the spot market that sells it for USDC, by asset.   [S-12]"""
    markets = {
        market.parameters.base_asset_id: market
        for market in state.markets.values()
        if market.parameters.type is MarketType.SPOT and market.parameters.quote_asset_id == state.usdc
    }
    return {asset_id: markets[asset_id] for asset_id in sorted(markets)}


def _sell(state: State, outcome: Outcome, subaccount: Subaccount, asset: _Asset, missing: int) -> None:
    parameters = asset.market.parameters
    bound = bound_ticks(state, asset.market)
    if not bound:
        return
    rate = spot_rates(state, subaccount.user, outcome.at_us // HOUR_US).taker_rate
    lots = _lots_for(missing, bound * parameters.tick_value_atoms, rate)
    lots = min(lots, asset.atoms // parameters.lot_atoms, parameters.max_lots)
    if lots < parameters.min_lots:
        # The smallest order may bring more than is missing; less than that cannot be sold.
        lots = parameters.min_lots
        if lots * parameters.lot_atoms > asset.atoms:
            return
    lots = min(lots, _make_available(state, outcome, subaccount, asset, lots) // parameters.lot_atoms)
    if lots:
        orders.place_by_rule(
            state, outcome, subaccount, asset.market, Side.ASK, lots, bound, Origin.COLLATERAL_CONVERSION
        )


def bound_ticks(state: State, market: Market) -> int:
    """Not below best bid × minImpactMultiplier nor index × 0.98 (parameter), in ticks, up; 0: no bid.   [S-12 (4)]"""
    parameters = market.parameters
    best = market.book.bids.best_price_ticks()
    if not best:
        return 0
    index = pricing.index_price(state, parameters.base_asset_id)
    usdc = pricing.mark_price(state, state.usdc)
    floor = state.limits.risk.conversion_index_floor
    least = mul_div_up(index * floor, PRICE_SCALE, RATE_SCALE * usdc * parameters.tick_price) if usdc else 0
    bound: int = max(1, sell_impact_bound(best, parameters.bands.impact_min), least)
    return bound


def _lots_for(missing: int, price_atoms: int, fee_rate: int) -> int:
    """The fewest lots that bring `missing` atoms at `price_atoms` a lot when their fee is paid.   [S-12 (4)]"""
    low, high = 0, 2 * mul_div_up(missing, 1, price_atoms) + 1
    while low + 1 < high:
        middle = (low + high) // 2
        if middle * price_atoms - fee_atoms(middle * price_atoms, fee_rate) >= missing:
            high = middle
        else:
            low = middle
    return high


def _make_available(state: State, outcome: Outcome, subaccount: Subaccount, asset: _Asset, lots: int) -> int:
    """Redeem what is lent of it, as far as the pool has it idle; gives what can be sold, at most `lots`.   [B-7]"""
    number, asset_id = subaccount.subaccount_id, asset.asset_id
    wanted = lots * asset.market.parameters.lot_atoms
    free = max(0, state.free(number, asset_id))
    if free < wanted and asset_id in subaccount.lent:
        now = lending.totals(state, state.pools[asset_id], outcome.at_us)
        redeemed = lending.redemption(state, subaccount, asset_id, outcome.at_us, wanted - free)
        redeemed = min(redeemed, max(0, now.idle))
        if redeemed:
            into = lending.Movements()
            lending.redeem(state, outcome, into, subaccount, asset_id, redeemed, LendingSource.RECONCILIATION)
            lending.post_alone(state, outcome, into)
            free += redeemed
    return min(free, wanted)
