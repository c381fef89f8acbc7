"""Price bands of a market: what a limit order may be priced at and how far a taker, or a liquidation, may fill.

[P-10 … P-14]
"""

from __future__ import annotations

from engine.book import Ladder
from engine.commands import Side
from engine.formulas import bands as formulas
from engine.matching import NO_LIMIT
from engine.parameters import PRICE_SCALE, BandParameters, MarketParameters
from engine.pricing import MEAN_SAMPLES, mark_price
from engine.state import MARK_SAMPLES, AssetPricing, Market, State

_BID = Side.BID


def of(parameters: MarketParameters, is_liquidation: bool) -> BandParameters:
    """The market's bands, or those of a liquidation: its own where it has any, else twice as wide.   [P-14]"""
    if not is_liquidation:
        return parameters.bands
    perpetual = parameters.perpetual
    own = perpetual.liquidation_bands if perpetual is not None else None
    return own if own is not None else formulas.twice_as_wide(parameters.bands)


def taker_key(state: State, market: Market, opposite: Ladder) -> int:
    """The key of the opposite ladder beyond which no taker fills, by its best price and the means.   [P-11 … P-13]

    Somebody stands there.
    """
    parameters, best_key = market.parameters, opposite.heap[0]
    # A bound of nothing is (0, NO_LIMIT), so what is kept is never false.
    least, most = state.valuations.bounds.get(parameters.market_id) or _bounds(state, market)
    if opposite.side is _BID:
        bound = formulas.sell_impact_bound(-best_key, parameters.bands.impact_min)
        return -bound if bound > least else -least
    bound = formulas.buy_impact_bound(best_key, parameters.bands.impact_max)
    return bound if bound < most else most


def is_beyond_the_means(state: State, market: Market, opposite: Ladder) -> bool:
    """Whether the opposite ladder's best price is one that P-12 or P-13 keeps takers from."""
    least, most = _bounds(state, market)
    best = opposite.best_price_ticks()
    return best < least if opposite.side is _BID else best > most


def liquidation_bound(state: State, market: Market, side: Side) -> int | None:
    """The worst price in ticks at which a liquidation may buy (BID) or sell; None where nobody stands opposite.

    All four bands hold, at their liquidation multipliers, from the best opposite price now. What they leave goes to
    the backstop.   [P-14, L-3, L-4]
    """
    buys = side is _BID
    best = market.book.ladder(Side.ASK if buys else Side.BID).best_price_ticks()
    bands, active = of(market.parameters, is_liquidation=True), active_price(state, market)
    if not best or active is None:
        return None
    least, most = means(state, market, bands)
    lowest, highest = formulas.limit_bounds(active, bands.limit_min, bands.limit_max)
    if buys:
        return min(most, highest, formulas.buy_impact_bound(best, bands.impact_max))
    return max(least, lowest, formulas.sell_impact_bound(best, bands.impact_min))


def active_price(state: State, market: Market) -> formulas.Fraction | None:
    """P-10's active price in ticks: of the book and the last trade, else the mark; None without either.   [P-10]"""
    book, parameters = market.book, market.parameters
    bids, asks, last = book.bids.heap, book.asks.heap, market.last_price_ticks
    if bids and asks:
        bid, ask = -bids[0], asks[0]
        if not last:
            return bid + ask, 2
        # A book is never crossed, so the median of the three is the last price held between bid and ask.
        return (bid if last < bid else ask if last > ask else last), 1
    active = formulas.active_price(book.bids.best_price_ticks(), book.asks.best_price_ticks(), last)
    if active is not None:
        return active
    if parameters.perpetual is not None:
        return (market.mark_lot, parameters.tick_value_atoms) if market.mark_lot else None
    base, quote = mark_price(state, parameters.base_asset_id), mark_price(state, parameters.quote_asset_id)
    return formulas.mark_in_ticks(base, quote, parameters.tick_price) if base and quote else None


def means(state: State, market: Market, bands: BandParameters) -> tuple[int, int]:
    """(lowest a taker may sell at, highest it may buy at) in ticks, by mean mark and mean premium.   [P-12, P-13]

    A perpetual has a mark and a premium of its own. A spot market's mean mark is its base asset's, and its premium that
    of the base asset's mark over its index, as its X_USDC market keeps it; its price counts at the quote's mark. A mean
    of fewer than 60 samples bounds nothing, nor does the premium after a second without a live index.
    """
    parameters = market.parameters
    base = parameters.base_asset_id
    pricing: AssetPricing | None = market.pricing
    keeper: Market | None = market
    quote_price = PRICE_SCALE
    if parameters.perpetual is None:
        pricing, quote_price = state.pricing.get(base), mark_price(state, parameters.quote_asset_id)
        if parameters.quote_asset_id != state.usdc:
            keeper = _usdc_market(state, base)
    least, most = 0, NO_LIMIT
    if not quote_price:
        return least, most
    if pricing is not None and pricing.sampled >= MEAN_SAMPLES:
        least, most = formulas.mean_mark_bounds(
            pricing.total,
            pricing.sampled,
            bands.mean_mark_min,
            bands.mean_mark_max,
            quote_price,
            parameters.tick_price,
        )
    premium = keeper.premium if keeper is not None else None
    if premium is not None and premium.sampled >= MEAN_SAMPLES:
        if premium.last300[state.sampled_second % MARK_SAMPLES] is not None:
            low, high = formulas.premium_bounds(
                state.prices[base],
                premium.total300,
                premium.sampled,
                bands.premium_tolerance,
                quote_price,
                parameters.tick_price,
            )
            least, most = max(least, low), min(most, high)
    return least, min(most, NO_LIMIT)


def _bounds(state: State, market: Market) -> tuple[int, int]:
    """`means` of the market's own bands, kept until a price comes, a second passes or the market changes."""
    known, parameters = state.valuations.bounds, market.parameters
    found = known.get(parameters.market_id)
    if found is None:
        found = known[parameters.market_id] = means(state, market, parameters.bands)
    return found


def _usdc_market(state: State, asset_id: int) -> Market | None:
    for market in state.markets.values():
        parameters = market.parameters
        if parameters.base_asset_id == asset_id and parameters.quote_asset_id == state.usdc:
            if parameters.perpetual is None:
                return market
    return None
