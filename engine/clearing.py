"""Whether an order may enter at all: its shape, the market's state, the bands, the funds it locks. Changes nothing.

[S-1, S-7, P-10]
"""

from __future__ import annotations

from engine.commands import OrderType, PlaceOrder, TimeInForce
from engine.formulas.bands import Fraction, active_price, is_inside_limit_band, mark_in_ticks
from engine.parameters import BookState, MarketParameters, MarketType
from engine.pricing import mark_price
from engine.rejections import Rejection, RejectReason
from engine.state import ASSET_BITS, Market, State, Subaccount
from ledger.amounts import INT64_MAX
from ledger.chart import available

_LIMIT = OrderType.LIMIT
_GTC = TimeInForce.GTC
CLIENT_ID_LIMIT = 1 << 32
_AVAILABLE = available(0)


def require_well_formed(command: PlaceOrder, parameters: MarketParameters) -> None:
    """The fields fit together and the market's tick, lot and bounds; nothing overflows.   [S-7, A-3]"""
    lots, price, quote = command.lots, command.price_ticks, command.quote_atoms
    if command.order_type is _LIMIT:
        if quote:
            raise Rejection(RejectReason.INVALID_ORDER, quote_atoms=quote)
        if price <= 0:
            raise Rejection(RejectReason.INVALID_PRICE, price_ticks=price)
        if command.post_only and command.time_in_force is not _GTC:
            raise Rejection(RejectReason.INVALID_ORDER, time_in_force=command.time_in_force, post_only=1)
        if price * lots * parameters.tick_value_atoms > INT64_MAX:
            raise Rejection(RejectReason.INVALID_QUANTITY, lots=lots, price_ticks=price)
    else:
        if price or command.post_only:
            raise Rejection(RejectReason.INVALID_ORDER, price_ticks=price, post_only=int(command.post_only))
        if quote:
            if lots or not 0 < quote <= INT64_MAX:
                raise Rejection(RejectReason.INVALID_QUANTITY, lots=lots, quote_atoms=quote)
            return
    if not parameters.min_lots <= lots <= parameters.max_lots:
        raise Rejection(
            RejectReason.INVALID_QUANTITY, lots=lots, min_lots=parameters.min_lots, max_lots=parameters.max_lots
        )


def require_market_takes(command: PlaceOrder, parameters: MarketParameters) -> None:
    """The market's state lets such an order in.   [S-7]"""
    if parameters.type != MarketType.SPOT or command.reduce_only:
        raise Rejection(RejectReason.NOT_SUPPORTED, market_id=command.market_id, reduce_only=int(command.reduce_only))
    match parameters.state:
        case BookState.OPEN:
            return
        case BookState.CLOSED:
            raise Rejection(RejectReason.MARKET_CLOSED, market_id=command.market_id)
        case BookState.CANCEL_ONLY:
            raise Rejection(RejectReason.CANCEL_ONLY_MODE, market_id=command.market_id)
        case BookState.LIMIT_ONLY if command.order_type is not _LIMIT:
            raise Rejection(RejectReason.LIMIT_ONLY_MODE, market_id=command.market_id)
        case BookState.POST_ONLY if not command.post_only:
            raise Rejection(RejectReason.POST_ONLY_MODE, market_id=command.market_id)


def require_inside_limit_band(state: State, market: Market, price_ticks: int) -> None:
    """P-10. Without any active price or mark there is no band, and nobody to take from: the order can only rest."""
    book, parameters = market.book, market.parameters
    bids, asks, last = book.bids.heap, book.asks.heap, market.last_price_ticks
    active: Fraction | None
    if bids and asks and last:
        # A book is never crossed, so the median of the three is the last price held between bid and ask.
        bid, ask = -bids[0], asks[0]
        active = (bid if last < bid else ask if last > ask else last), 1
    elif bids and asks:
        active = asks[0] - bids[0], 2
    else:
        active = active_price(book.bids.best_price_ticks(), book.asks.best_price_ticks(), last)
    if active is None:
        base, quote = mark_price(state, parameters.base_asset_id), mark_price(state, parameters.quote_asset_id)
        if not base or not quote:
            return
        active = mark_in_ticks(base, quote, parameters.tick_price)
    bands = parameters.bands
    if not is_inside_limit_band(price_ticks, active, bands.limit_min, bands.limit_max):
        raise Rejection(
            RejectReason.PRICE_OUT_OF_BAND,
            price_ticks=price_ticks,
            active_ticks=active[0] // active[1],
            minimum=bands.limit_min,
            maximum=bands.limit_max,
        )


def require_free(state: State, subaccount: Subaccount, asset_id: int, atoms: int) -> None:
    """The subaccount can spend this much now: held less what other orders lock.   [S-1]"""
    # `state.held`, written out; a holding is a liability, so it is negative.
    balance = state.balances.get((_AVAILABLE | subaccount.subaccount_id) << ASSET_BITS | asset_id, 0)
    free = -balance - subaccount.reserved.get(asset_id, 0)
    if atoms > free:
        raise Rejection(RejectReason.INSUFFICIENT_FUNDS, asset_id=asset_id, required_atoms=atoms, free_atoms=free)
