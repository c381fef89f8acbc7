"""The life of an order: clear → match → settle → rest, and how it ends.   [S-1, S-7, A-11]"""

from __future__ import annotations

from msgspec import structs

from engine import clearing
from engine.book import Book, Ladder
from engine.commands import (
    CancelAllOrders,
    CancelOrder,
    OrderType,
    PlaceOrder,
    PlaceOrders,
    Side,
    TimeInForce,
)
from engine.events import (
    BookLevel,
    ExpiryReason,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderRefused,
    OrderStatus,
    OrderView,
    Outcome,
    Trade,
)
from engine.fees import HOUR_US
from engine.formulas.bands import buy_impact_bound, sell_impact_bound
from engine.formulas.spot import locked_atoms
from engine.matching import NO_LIMIT, Preview, Stop, preview, take
from engine.parameters import BookState
from engine.posting import reserve
from engine.rejections import Rejection, RejectReason
from engine.settlement import settle
from engine.state import Market, Order, State, Subaccount
from ledger.amounts import INT64_MAX

_BID = Side.BID
_LIMIT = OrderType.LIMIT
_GTC = TimeInForce.GTC
_FOK = TimeInForce.FOK
_OPEN = BookState.OPEN

Touched = dict[tuple[int, Side, int], None]
"""(market, side, price) of every level that a command changed, in order of the first change."""


def place(state: State, command: PlaceOrder, outcome: Outcome) -> OrderView:
    """Accept one order, match it, rest or end what is left. Raises Rejection before any change.   [S-7]"""
    touched: Touched = {}
    view = _place(state, command, outcome, touched)
    report_levels(state, outcome, touched)
    return view


def place_batch(state: State, command: PlaceOrders, outcome: Outcome) -> list[OrderView | OrderRefused]:
    """Place orders one after the other; each is accepted or refused on its own.   [W-1, W-3]"""
    count = len(command.orders)
    if not 0 < count <= state.limits.orders_per_batch:
        raise Rejection(RejectReason.BATCH_SIZE, orders=count, limit=state.limits.orders_per_batch)
    touched: Touched = {}
    results: list[OrderView | OrderRefused] = []
    for order in command.orders:
        try:
            results.append(_place(state, order, outcome, touched))
        except Rejection as rejection:
            results.append(OrderRefused(rejection.reason, rejection.facts))
    report_levels(state, outcome, touched)
    return results


def cancel(state: State, command: CancelOrder, outcome: Outcome) -> OrderView:
    """Cancel an open order by its id or its client id.   [S-7]"""
    subaccount = state.subaccounts.get(command.subaccount_id)
    if subaccount is None:
        raise Rejection(RejectReason.UNKNOWN_SUBACCOUNT, subaccount_id=command.subaccount_id)
    if (command.order_id is None) == (command.client_id is None):
        raise Rejection(RejectReason.INVALID_ORDER, ids=0 if command.order_id is None else 2)
    if command.order_id is not None:
        order = subaccount.orders.get(command.order_id)
        asked = command.order_id
    else:
        asked = command.client_id or 0
        order = subaccount.client_ids.get(asked)
    if order is None or order.market.parameters.market_id != command.market_id:
        raise Rejection(RejectReason.UNKNOWN_ORDER, order=asked, market_id=command.market_id)

    # From here the command succeeds.
    touched: Touched = {}
    view = withdraw(state, outcome, order, touched)
    report_levels(state, outcome, touched)
    return view


def cancel_all(state: State, command: CancelAllOrders, outcome: Outcome) -> list[OrderView]:
    """Cancel a subaccount's open orders, of one market or of all, oldest first.   [S-7]"""
    subaccount = state.subaccounts.get(command.subaccount_id)
    if subaccount is None:
        raise Rejection(RejectReason.UNKNOWN_SUBACCOUNT, subaccount_id=command.subaccount_id)
    market = state.markets.get(command.market_id)
    if command.market_id and market is None:
        raise Rejection(RejectReason.UNKNOWN_MARKET, market_id=command.market_id)

    # From here the command succeeds.
    orders = [order for order in subaccount.orders.values() if market is None or order.market is market]
    touched: Touched = {}
    views = [withdraw(state, outcome, order, touched) for order in orders]
    report_levels(state, outcome, touched)
    return views


def withdraw(state: State, outcome: Outcome, order: Order, touched: Touched) -> OrderView:
    """Take an order out of its book because its owner asked or its market closes: what it locks is free again."""
    _ladder(order).remove(order)
    view = order.view(OrderStatus.CANCELLED)
    release(state, outcome, order, touched)
    outcome.events.append(OrderCancelled(view))
    return view


def depth(market: Market, limit: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(bids, asks) as (price in ticks, lots), best first, at most `limit` a side."""
    book: Book = market.book
    return _top(book.bids, limit), _top(book.asks, limit)


def _place(state: State, command: PlaceOrder, outcome: Outcome, touched: Touched) -> OrderView:
    market = state.markets.get(command.market_id)
    if market is None:
        raise Rejection(RejectReason.UNKNOWN_MARKET, market_id=command.market_id)
    subaccount = state.subaccounts.get(command.subaccount_id)
    if subaccount is None:
        raise Rejection(RejectReason.UNKNOWN_SUBACCOUNT, subaccount_id=command.subaccount_id)
    client_id = command.client_id
    if client_id is not None:
        first = subaccount.client_ids.get(client_id)
        if first is not None:
            if _asks_the_same(first, command):
                return first.view()
            raise Rejection(RejectReason.DUPLICATE_CLIENT_ID, client_id=client_id, order_id=first.order_id)
        if not 0 <= client_id < clearing.CLIENT_ID_LIMIT:
            raise Rejection(RejectReason.INVALID_ORDER, client_id=client_id)

    parameters = market.parameters
    if parameters.state is not _OPEN or command.reduce_only:
        clearing.require_market_takes(command, parameters)
    clearing.require_well_formed(command, parameters)
    book: Book = market.book
    side = command.side
    ladder, opposite = (book.bids, book.asks) if side == _BID else (book.asks, book.bids)
    price = command.price_ticks
    if command.order_type == _LIMIT:
        clearing.require_inside_limit_band(state, market, price)
        limit_key = price * opposite.sign
        crosses = bool(opposite.heap) and opposite.heap[0] <= limit_key
        if crosses and command.post_only:
            raise Rejection(
                RejectReason.POST_ONLY_WOULD_TAKE, price_ticks=price, best_ticks=opposite.best_price_ticks()
            )
        if len(subaccount.orders) >= state.limits.open_orders_per_subaccount and command.time_in_force == _GTC:
            raise Rejection(
                RejectReason.ORDER_LIMIT, open=len(subaccount.orders), limit=state.limits.open_orders_per_subaccount
            )
        asset, spend_atoms = clearing.spend_of_limit(command, parameters)
        clearing.require_free(state, subaccount, asset, spend_atoms)
    else:
        limit_key = NO_LIMIT
        crosses = bool(opposite.heap)

    bound_key = _bound(market, opposite, limit_key) if crosses else limit_key
    lots = command.lots
    quote_ticks: int | None = None
    if command.quote_atoms:
        # Whole ticks × lots only: what is left of the quote quantity could never be paid.
        quote_ticks = command.quote_atoms // parameters.tick_value_atoms
    ahead: Preview | None = None
    if command.order_type != _LIMIT or command.time_in_force == _FOK:
        ahead = preview(opposite, subaccount.user, command.self_trade, bound_key, lots, quote_ticks)
        if command.order_type != _LIMIT:
            _require_market_spend(state, subaccount, market, command, ahead)

    # From here the command succeeds.
    order_id = state.next_order_id
    state.next_order_id = order_id + 1
    order = Order(
        order_id,
        client_id,
        market,
        subaccount,
        command.order_type,
        side,
        command.time_in_force,
        price,
        lots,
        command.quote_atoms,
        command.post_only,
        command.reduce_only,
        command.self_trade,
        outcome.at_us,
    )
    view = order.view()
    outcome.events.append(OrderAccepted(view))
    if command.time_in_force == _FOK and ahead is not None and not _is_filled_by(ahead):
        return _expire(outcome, order, ExpiryReason.FILL_OR_KILL)
    if crosses:
        stop = _match(state, outcome, order, opposite, bound_key, quote_ticks, touched)
        if stop != Stop.NOT:
            reason = _why_ended(order, stop, opposite, limit_key)
            if reason is not None:
                return _expire(outcome, order, reason)
        elif quote_ticks is not None:
            if not order.executed_lots:
                return _expire(outcome, order, ExpiryReason.INVALID_QUANTITY)
            return _filled_by_quote(outcome, order)
        else:
            return order.view()
        view = order.view()
    elif command.order_type != _LIMIT:
        return _expire(outcome, order, ExpiryReason.INSUFFICIENT_LIQUIDITY)
    elif command.time_in_force != _GTC:
        return _expire(outcome, order, ExpiryReason.IMMEDIATE_OR_CANCEL)

    level = ladder.rest(order)
    touched[parameters.market_id, side, level.price_ticks] = None
    state.orders[order_id] = order
    subaccount.orders[order_id] = order
    if client_id is not None:
        subaccount.client_ids[client_id] = order
    reserve(state, outcome, subaccount.subaccount_id, asset, _locked(order))
    return view


def _match(
    state: State,
    outcome: Outcome,
    taker: Order,
    opposite: Ladder,
    bound_key: int,
    quote_ticks: int | None,
    touched: Touched,
) -> Stop:
    """Take what the bound allows and settle every fill; makers that self-trade prevention withdrew expire."""
    fills, stop, withdrawn = take(
        opposite, taker.subaccount.user, taker.self_trade, bound_key, taker.lots, quote_ticks
    )
    market = taker.market
    market_id, side = market.parameters.market_id, opposite.side
    hour = outcome.at_us // HOUR_US
    for maker, lots in fills:
        settle(state, outcome, market, taker, maker, lots, hour)
        touched[market_id, side, maker.price_ticks] = None
        if maker.executed_lots == maker.lots:
            _forget(state, maker)
    for maker in withdrawn:
        view = maker.view(OrderStatus.EXPIRED, ExpiryReason.SELF_TRADE_PREVENTION)
        release(state, outcome, maker, touched)
        outcome.events.append(OrderExpired(view))
    return stop


def _bound(market: Market, opposite: Ladder, limit_key: int) -> int:
    """The key beyond which a taker does not fill: its limit or the impact band at entry.   [P-11]"""
    bands = market.parameters.bands
    best = opposite.best_price_ticks()
    if opposite.side == _BID:
        return min(limit_key, -sell_impact_bound(best, bands.impact_min))
    return min(limit_key, buy_impact_bound(best, bands.impact_max))


def _why_ended(order: Order, stop: Stop, opposite: Ladder, limit_key: int) -> ExpiryReason | None:
    """Why a taker that did not get everything ends here; None when the rest may rest.   [P-11, S-7]"""
    if stop == Stop.SELF_TRADE:
        return ExpiryReason.SELF_TRADE_PREVENTION
    if stop == Stop.PRICE and opposite.heap[0] <= limit_key:
        return ExpiryReason.PRICE_IMPACT
    if order.order_type != _LIMIT:
        return ExpiryReason.INSUFFICIENT_LIQUIDITY
    return None if order.time_in_force == _GTC else ExpiryReason.IMMEDIATE_OR_CANCEL


def _require_market_spend(
    state: State, subaccount: Subaccount, market: Market, command: PlaceOrder, ahead: Preview
) -> None:
    """A market order needs what it is going to spend; one by quote quantity to buy needs all of that.   [S-1]"""
    parameters = market.parameters
    if command.side == _BID:
        atoms = command.quote_atoms or ahead.quote_ticks * parameters.tick_value_atoms
        clearing.require_free(state, subaccount, parameters.quote_asset_id, atoms)
    else:
        proceeds = ahead.quote_ticks * parameters.tick_value_atoms
        if proceeds > INT64_MAX:
            raise Rejection(RejectReason.INVALID_QUANTITY, lots=command.lots, quote_atoms=proceeds)
        lots = command.lots or ahead.lots
        clearing.require_free(state, subaccount, parameters.base_asset_id, lots * parameters.lot_atoms)


def _is_filled_by(ahead: Preview) -> bool:
    return ahead.stop == Stop.NOT and ahead.lots > 0


def _filled_by_quote(outcome: Outcome, order: Order) -> OrderView:
    """What is left of the quote quantity buys no further lot: the last trade is told as the one that filled it."""
    view = order.view(OrderStatus.FILLED)
    for place in range(len(outcome.events) - 1, -1, -1):
        event = outcome.events[place]
        if isinstance(event, Trade):
            outcome.events[place] = structs.replace(event, taker=view)
            break
    return view


def _expire(outcome: Outcome, order: Order, reason: ExpiryReason) -> OrderView:
    view = order.view(OrderStatus.EXPIRED, reason)
    outcome.events.append(OrderExpired(view))
    return view


def _asks_the_same(order: Order, command: PlaceOrder) -> bool:
    """Whether a repeated client id comes with the same order: then it is a repeat, not an error.   [A-11]"""
    return (
        order.market.parameters.market_id == command.market_id
        and order.side == command.side
        and order.order_type == command.order_type
        and order.time_in_force == command.time_in_force
        and order.price_ticks == command.price_ticks
        and order.lots == command.lots
        and order.quote_atoms == command.quote_atoms
        and order.post_only == command.post_only
        and order.reduce_only == command.reduce_only
        and order.self_trade == command.self_trade
    )


def release(state: State, outcome: Outcome, order: Order, touched: Touched) -> None:
    """An order has left its book unfilled: what it locks is free again, its ids are forgotten.   [S-1]"""
    parameters = order.market.parameters
    asset = parameters.quote_asset_id if order.side == _BID else parameters.base_asset_id
    reserve(state, outcome, order.subaccount.subaccount_id, asset, -_locked(order))
    touched[parameters.market_id, order.side, order.price_ticks] = None
    _forget(state, order)


def _forget(state: State, order: Order) -> None:
    subaccount = order.subaccount
    del state.orders[order.order_id]
    del subaccount.orders[order.order_id]
    if order.client_id is not None:
        del subaccount.client_ids[order.client_id]


def _locked(order: Order) -> int:
    parameters = order.market.parameters
    return locked_atoms(
        order.side == _BID,
        order.price_ticks,
        order.lots - order.executed_lots,
        parameters.tick_value_atoms,
        parameters.lot_atoms,
    )


def _ladder(order: Order) -> Ladder:
    book: Book = order.market.book
    return book.bids if order.side == _BID else book.asks


def report_levels(state: State, outcome: Outcome, touched: Touched) -> None:
    """One BookLevel for each level that the command changed, with what stands there now."""
    events = outcome.events
    for market_id, side, price in touched:
        ladder = state.markets[market_id].book.ladder(side)
        events.append(BookLevel(market_id, side, price, ladder.lots_at(price)))


def _top(ladder: Ladder, limit: int) -> list[tuple[int, int]]:
    top: list[tuple[int, int]] = []
    for level in ladder.from_best():
        if len(top) >= limit:
            break
        top.append((level.price_ticks, level.lots))
    return top
