"""The life of an order: clear → match → settle → rest, and how it ends.   [S-1, S-7, A-11]"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import structs

from engine import bands, clearing, lending, margin, perpetuals, spare, spot_margin, triggers
from engine.book import Book, Ladder, Level
from engine.commands import (
    CancelAllOrders,
    CancelOrder,
    OrderType,
    Origin,
    PlaceOrder,
    PlaceOrders,
    SelfTrade,
    Side,
    TimeInForce,
)
from engine.events import (
    BookLevel,
    ExpiryReason,
    LendingSource,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderRefused,
    OrderStatus,
    OrderTerms,
    OrderView,
    Outcome,
    Trade,
)
from engine.fill_or_kill import look_ahead
from engine.matching import NO_LIMIT, Preview, Stop, best_maker, fill_best, preview, take
from engine.parameters import BookState
from engine.posting import reserve
from engine.pricing import is_cancel_only
from engine.rejections import Rejection, RejectReason
from engine.settlement import settle
from engine.state import ASSET_BITS, PLAIN_FLAGS, REDUCE_ONLY, SPENDS_AT_FILL, Market, Order, State, Subaccount
from engine.terms import asks_the_same, flags_of, has_brackets, require_terms, slippage_ticks, terms_of
from ledger.amounts import INT64_MAX

_BID = Side.BID
_LIMIT = OrderType.LIMIT
_GTC = TimeInForce.GTC
_FOK = TimeInForce.FOK
_CANCELLED = OrderStatus.CANCELLED
_OPEN = BookState.OPEN

Touched = dict[tuple[Ladder, int], int]
"""(ladder, price) of every level that a command changed → its market, in order of the first change."""


def place(state: State, command: PlaceOrder, outcome: Outcome) -> OrderView:
    """Accept one order, match it, rest or end what is left. Raises Rejection before any change.   [S-7]"""
    if command.trigger_by:
        return triggers.wait(state, command, outcome)
    touched: Touched = {}
    view = enter(state, command, outcome, touched, alone=True)
    if touched:
        report_levels(outcome, touched)
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
            if order.trigger_by:
                results.append(triggers.wait(state, order, outcome))
            else:
                results.append(enter(state, order, outcome, touched, alone=False))
        except Rejection as rejection:
            results.append(OrderRefused(rejection.reason, rejection.facts))
    report_levels(outcome, touched)
    return results


def cancel(state: State, command: CancelOrder, outcome: Outcome) -> OrderView:
    """Cancel an open order by its id or its client id.   [S-7]"""
    subaccount = state.subaccounts.get(command.subaccount_id)
    if subaccount is None:
        raise Rejection(RejectReason.UNKNOWN_SUBACCOUNT, subaccount_id=command.subaccount_id)
    if (command.order_id is None) == (command.client_id is None):
        raise Rejection(RejectReason.INVALID_ORDER, ids=0 if command.order_id is None else 2)
    if command.order_id is not None:
        order = subaccount.orders.get(command.order_id) or subaccount.waiting.get(command.order_id)
        asked = command.order_id
    else:
        asked = command.client_id or 0
        order = subaccount.client_ids.get(asked)
    if order is None or order.market.parameters.market_id != command.market_id:
        raise Rejection(RejectReason.UNKNOWN_ORDER, order=asked, market_id=command.market_id)

    # From here the command succeeds.
    if triggers.is_waiting(order):
        return triggers.withdraw(state, outcome, order)
    view, level = withdraw(state, outcome, order)
    outcome.events.append(BookLevel(command.market_id, order.side, order.price_ticks, level.lots))
    return view


def cancel_all(state: State, command: CancelAllOrders, outcome: Outcome) -> list[OrderView]:
    """Cancel a subaccount's open orders, those that wait, or both, of one market or of all, oldest first.   [S-7]"""
    subaccount = state.subaccounts.get(command.subaccount_id)
    if subaccount is None:
        raise Rejection(RejectReason.UNKNOWN_SUBACCOUNT, subaccount_id=command.subaccount_id)
    market = state.markets.get(command.market_id)
    if command.market_id and market is None:
        raise Rejection(RejectReason.UNKNOWN_MARKET, market_id=command.market_id)

    # From here the command succeeds.
    orders = list(subaccount.orders.values()) if command.resting else []
    if command.waiting:
        orders += subaccount.waiting.values()
    # What was triggered rests behind younger ones until a restart, so the place in the dict says nothing.
    orders.sort(key=lambda order: order.order_id)
    touched: Touched = {}
    views: list[OrderView] = []
    for order in orders:
        if market is not None and order.market is not market:
            continue
        if triggers.is_waiting(order):
            views.append(triggers.withdraw(state, outcome, order))
            continue
        view, _level = withdraw(state, outcome, order)
        touched[_ladder(order), order.price_ticks] = order.market.parameters.market_id
        views.append(view)
    report_levels(outcome, touched)
    return views


def withdraw(state: State, outcome: Outcome, order: Order) -> tuple[OrderView, Level]:
    """Take an order out of its book because its owner asked or its market closes: what it locks is free again.

    The level is given back for the caller to report, once for all orders of a command.
    """
    level = _ladder(order).remove(order)
    view = order.view(_CANCELLED)
    _release(state, outcome, order)
    outcome.events.append(OrderCancelled(view))
    return view, level


def place_by_rule(
    state: State,
    outcome: Outcome,
    subaccount: Subaccount,
    market: Market,
    side: Side,
    lots: int,
    bound_ticks: int,
    origin: Origin,
    is_reduce_only: bool = False,
) -> Order:
    """An immediate-or-cancel order of the exchange itself: liquidation, conversion. Gives it as it ended.   [L-3, S-12]

    The account is not asked for its margin, it pays no taker fee on a perpetual, and `bound_ticks` stands for the bands
    of a user's order; makers are judged as ever. On a spot market it spends what is available, and borrows nothing.
    """
    order_id = state.next_order_id
    state.next_order_id = order_id + 1
    order = Order(
        order_id,
        None,
        market,
        subaccount,
        _LIMIT,
        side,
        TimeInForce.IOC,
        bound_ticks,
        lots,
        0,
        REDUCE_ONLY if is_reduce_only else 0,
        SelfTrade.REJECT_MAKER,
        outcome.at_us,
        terms=OrderTerms(origin),
    )
    outcome.events.append(OrderAccepted(order.view()))
    book: Book = market.book
    opposite = book.asks if side is _BID else book.bids
    limit_key = bound_ticks * opposite.sign
    touched: Touched = {}
    if opposite.heap and opposite.heap[0] <= limit_key:
        _take(state, outcome, order, opposite, Wish(limit_key, None, False), limit_key, touched)
        report_levels(outcome, touched)
    else:
        _expire(outcome, order, ExpiryReason.IMMEDIATE_OR_CANCEL)
    return order


def depth(market: Market, limit: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(bids, asks) as (price in ticks, lots), best first, at most `limit` a side."""
    book: Book = market.book
    return _top(book.bids, limit), _top(book.asks, limit)


def enter(
    state: State,
    command: PlaceOrder,
    outcome: Outcome,
    touched: Touched,
    alone: bool,
    order_id: int = 0,
    terms: OrderTerms | None = None,
) -> OrderView:
    """Clear, match, settle and rest one order. Raises Rejection before any change.   [S-7]

    `alone`: no other order of the command touches a level, so one that only rests can report its own at once. A
    triggered order brings its id, it and a strategy's slice their terms.
    """
    market = state.markets.get(command.market_id)
    if market is None:
        raise Rejection(RejectReason.UNKNOWN_MARKET, market_id=command.market_id)
    subaccount = state.subaccounts.get(command.subaccount_id)
    if subaccount is None:
        raise Rejection(RejectReason.UNKNOWN_SUBACCOUNT, subaccount_id=command.subaccount_id)
    client_id = command.client_id
    if client_id is not None:
        first = clearing.first_of_client_id(subaccount, client_id)
        if first is not None:
            if asks_the_same(first, command):
                return first.view()
            raise Rejection(RejectReason.DUPLICATE_CLIENT_ID, client_id=client_id, order_id=first.order_id)
    if terms is None:
        terms = terms_of(command)

    parameters = market.parameters
    if parameters.state is not _OPEN or command.reduce_only:
        clearing.require_market_takes(command, parameters)
    if is_cancel_only(state, market):
        raise Rejection(RejectReason.CANCEL_ONLY_MODE, market_id=command.market_id)
    clearing.require_well_formed(command, parameters)
    if terms is not None:
        require_terms(command, parameters)
    book: Book = market.book
    side = command.side
    ladder, opposite = (book.bids, book.asks) if side is _BID else (book.asks, book.bids)
    heap = opposite.heap
    price, lots = command.price_ticks, command.lots
    lock_asset = lock_atoms = redeemed = 0
    is_perpetual = parameters.perpetual is not None
    if command.order_type is _LIMIT:
        limit_key = price * opposite.sign
        crosses = bool(heap) and heap[0] <= limit_key
        _require_limit(state, subaccount, market, command, opposite if crosses else None)
        if is_perpetual:
            perpetuals.require_order(state, subaccount, market, command, lots, price, outcome.at_us)
        else:
            if side is _BID:
                lock_asset, lock_atoms = parameters.quote_asset_id, lots * price * parameters.tick_value_atoms
            else:
                lock_asset, lock_atoms = parameters.base_asset_id, lots * parameters.lot_atoms
            spend = clearing.Spend(lock_asset, lock_atoms, price, lots)
            redeemed = clearing.require_spend(state, subaccount, market, command, spend, outcome.at_us)
    else:
        limit_key = NO_LIMIT
        crosses = bool(heap)
    if command.auto_lend and not is_perpetual:
        clearing.require_flags(subaccount, command, parameters)
    taking = None
    if crosses:
        taking = prepare(state, subaccount, market, command, opposite, limit_key, outcome.at_us)
        redeemed = redeemed or taking.redeemed

    # From here the command succeeds.
    if not order_id:
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
        flags_of(command),
        command.self_trade,
        outcome.at_us,
        terms=terms,
    )
    if terms is not None and has_brackets(terms):
        triggers.watch_parent(state, order)
    view = order.view()
    outcome.events.append(OrderAccepted(view))
    if redeemed:
        asset_id = parameters.quote_asset_id if side is _BID else parameters.base_asset_id
        into = lending.Movements()
        lending.redeem(state, outcome, into, subaccount, asset_id, redeemed, LendingSource.SPOT_MARGIN, order_id)
        lending.post_alone(state, outcome, into)
    if taking is not None:
        ended = _take(state, outcome, order, opposite, taking, limit_key, touched)
        if ended is not None:
            return ended
        spare.forget(state, subaccount)
        if is_perpetual:
            if not _may_rest_there(state, subaccount, market, command, order, outcome.at_us):
                return _expire(outcome, order, ExpiryReason.INSUFFICIENT_MARGIN)
        elif subaccount.margined or order.flags & SPENDS_AT_FILL:
            left = lots - order.executed_lots
            spend = clearing.Spend(lock_asset, spot_margin.spend(state, order, left)[1], price, left)
            if not clearing.may_rest(state, subaccount, market, command, spend, outcome.at_us):
                return _expire(outcome, order, ExpiryReason.INSUFFICIENT_MARGIN)
        view = order.view()
    elif command.time_in_force is not _GTC or command.order_type is not _LIMIT:
        return _expire(outcome, order, _why_ended(state, order, Stop.EMPTY, opposite, limit_key))

    # The rest rests, and what it can still spend is locked.   [S-1]
    level = ladder.rest(order)
    if alone and taking is None:
        outcome.events.append(BookLevel(parameters.market_id, side, price, level.lots))
    else:
        touched[ladder, price] = parameters.market_id
    if taking is not None and not is_perpetual:
        lock_atoms = spot_margin.spend(state, order, lots - order.executed_lots)[1]
    _count_resting(state, outcome, order, is_perpetual, lock_asset, lock_atoms)
    return view


def _require_limit(
    state: State, subaccount: Subaccount, market: Market, command: PlaceOrder, taken: Ladder | None
) -> None:
    """A limit order's price is in its band, `post_only` takes nothing, and there is room for one more.   [P-10, S-7]

    `taken`: the orders that it would meet.
    """
    clearing.require_inside_limit_band(state, market, command.price_ticks)
    if taken is not None and command.post_only:
        raise Rejection(
            RejectReason.POST_ONLY_WOULD_TAKE,
            price_ticks=command.price_ticks,
            best_ticks=taken.best_price_ticks(),
        )
    limit = state.limits.open_orders_per_subaccount
    if len(subaccount.orders) >= limit and command.time_in_force is _GTC:
        raise Rejection(RejectReason.ORDER_LIMIT, open=len(subaccount.orders), limit=limit)


def _count_resting(
    state: State, outcome: Outcome, order: Order, is_perpetual: bool, lock_asset: int, lock_atoms: int
) -> None:
    """An order rests: it can be found, and what it can still spend is exposure, promised or locked.   [M-1, S-1]"""
    subaccount = order.subaccount
    state.orders[order.order_id] = order
    subaccount.orders[order.order_id] = order
    margin.note_open(state, order)
    if order.client_id is not None:
        subaccount.client_ids[order.client_id] = order
    left = order.lots - order.executed_lots
    if is_perpetual:
        perpetuals.rest(order, left)
    elif order.flags & SPENDS_AT_FILL:
        promise(state, order, left)
    else:
        reserved = subaccount.reserved
        reserved[lock_asset] = reserved.get(lock_asset, 0) + lock_atoms
        outcome.touched[subaccount.subaccount_id << ASSET_BITS | lock_asset] = None


class Wish(NamedTuple):
    """What a taker may take: everything that was decided before it was accepted."""

    bound_key: int
    quote_ticks: int | None
    """A market order's quote quantity in ticks × lots; what is left over could never be paid."""
    is_killed: bool
    """Fill-or-kill, and the book does not fill it."""
    redeemed: int = 0
    """Lent atoms that a market order needs.   [S-1]"""
    sure: Preview | None = None
    """What surely fills of a fill-or-kill order.   [S-7]"""
    is_slipping: bool = False
    """Its own slippage tolerance bounds it before anything else does.   [S-7]"""


def prepare(
    state: State,
    subaccount: Subaccount,
    market: Market,
    command: PlaceOrder,
    opposite: Ladder,
    limit_key: int,
    at_us: int,
) -> Wish:
    """Bound a taker by its limit and the bands; look ahead where that decides whether it may enter.   [P-11 … P-13]

    A market order must be able to pay what it is going to spend; one that buys for a quote quantity all of that. Who
    fills or kills counts on no maker that might be refused at its fill.   [S-1, S-8]
    """
    bound_key = min(limit_key, bands.taker_key(state, market, opposite))
    is_slipping = False
    if command.slippage:
        slippage_key = slippage_ticks(command, opposite.best_price_ticks()) * opposite.sign
        is_slipping = slippage_key < bound_key
        bound_key = min(bound_key, slippage_key)
    is_limit, is_fok = command.order_type is _LIMIT, command.time_in_force is _FOK
    if is_limit and not is_fok:
        return Wish(bound_key, None, False, is_slipping=is_slipping)
    parameters = market.parameters
    quote_ticks = command.quote_atoms // parameters.tick_value_atoms if command.quote_atoms else None
    if is_fok and parameters.perpetual is not None:
        ahead = look_ahead(
            state, at_us, market, subaccount, command.self_trade, opposite, bound_key, command.lots, quote_ticks
        )
    else:
        ahead = preview(opposite, subaccount.user, command.self_trade, bound_key, command.lots, quote_ticks, is_fok)
    redeemed = 0
    if parameters.perpetual is not None:
        if not is_limit:
            bound, lots = bound_key * opposite.sign, command.lots or ahead.lots
            perpetuals.require_order(state, subaccount, market, command, lots, bound, at_us)
    elif not is_limit:
        proceeds = ahead.quote_ticks * parameters.tick_value_atoms
        if proceeds > INT64_MAX:
            raise Rejection(RejectReason.INVALID_QUANTITY, lots=command.lots, quote_atoms=proceeds)
        bound = bound_key * opposite.sign
        if command.side is _BID:
            atoms, lots = command.quote_atoms or proceeds, ahead.lots
            spend = clearing.Spend(parameters.quote_asset_id, atoms, bound, lots)
        else:
            lots = command.lots or ahead.lots
            spend = clearing.Spend(parameters.base_asset_id, lots * parameters.lot_atoms, bound, lots)
        redeemed = clearing.require_spend(state, subaccount, market, command, spend, at_us)
    is_killed = is_fok and not (ahead.stop is Stop.NOT and ahead.lots)
    return Wish(bound_key, quote_ticks, is_killed, redeemed, ahead if is_fok else None, is_slipping)


def _take(
    state: State, outcome: Outcome, taker: Order, opposite: Ladder, wish: Wish, limit_key: int, touched: Touched
) -> OrderView | None:
    """Match and settle; the taker's last view when it has ended, None when the rest may rest.   [S-7]

    Makers that self-trade prevention took out expire; a maker that is filled is forgotten.
    """
    if wish.is_killed:
        return _expire(outcome, taker, ExpiryReason.FILL_OR_KILL)
    stop, refused = _match(state, outcome, taker, opposite, wish, touched)
    if refused is not None:
        return _expire(outcome, taker, refused)
    if stop is not Stop.NOT:
        if stop is not Stop.SELF_TRADE and taker.order_type is _LIMIT and taker.time_in_force is _GTC:
            # What crosses beyond a band may not rest: it would cross the book.
            if stop is Stop.EMPTY or opposite.heap[0] > limit_key:
                return None
        if stop is Stop.PRICE and wish.is_slipping and taker.time_in_force is not _FOK:
            return _expire(outcome, taker, ExpiryReason.SLIPPAGE_TOLERANCE_EXCEEDED)
        return _expire(outcome, taker, _why_ended(state, taker, stop, opposite, limit_key))
    if not taker.executed_lots:
        # By quote quantity, and it does not pay for a single lot.
        return _expire(outcome, taker, ExpiryReason.INVALID_QUANTITY)
    return taker.view() if wish.quote_ticks is None else _filled_by_quote(outcome, taker)


def _match(
    state: State, outcome: Outcome, taker: Order, opposite: Ladder, wish: Wish, touched: Touched
) -> tuple[Stop, ExpiryReason | None]:
    """Fill the taker as far as it goes; plain fills in one stretch, judged ones one by one.   [S-7, S-8]

    A maker that fails its judgement expires and matching goes on; a taker that fails stops, the reason is given.
    """
    subaccount, market = taker.subaccount, taker.market
    market_id, tick_value = market.parameters.market_id, market.parameters.tick_value_atoms
    is_perpetual = market.parameters.perpetual is not None
    is_judged = is_perpetual or taker.flags > PLAIN_FLAGS or subaccount.margined
    is_sure = is_judged and wish.sure is not None
    is_sure = is_sure or perpetuals.is_by_rule(taker)
    if wish.sure is not None and is_judged:
        whole = wish.sure.quote_ticks * tick_value
        whole_refusal = perpetuals.whole_refusal if is_perpetual else spot_margin.whole_refusal
        refused = whole_refusal(state, outcome.at_us, market, taker, wish.sure.lots, whole)
        if refused is not None:
            return Stop.JUDGE, refused
    while True:
        lots = taker.lots - taker.executed_lots
        quote_ticks = wish.quote_ticks
        if quote_ticks is not None:
            quote_ticks -= taker.executed_quote_atoms // tick_value
        fills, stop, withdrawn = take(
            opposite, subaccount.user, taker.self_trade, wish.bound_key, lots, quote_ticks, is_judged
        )
        if fills:
            settle(state, outcome, market, taker, fills)
            for maker, part in fills:
                touched[opposite, maker.price_ticks] = market_id
                if maker.executed_lots == maker.lots:
                    _forget(state, maker)
                else:
                    margin.note_open(state, maker)
                lots -= part
                if quote_ticks is not None:
                    quote_ticks -= part * maker.price_ticks
        for maker in withdrawn:
            _expire_maker(state, outcome, maker, ExpiryReason.SELF_TRADE_PREVENTION, opposite, touched)
        if stop is not Stop.JUDGE:
            return stop, None

        maker = best_maker(opposite)
        if quote_ticks is not None:
            lots = quote_ticks // maker.price_ticks
        lots = min(lots, maker.lots - maker.executed_lots)
        verdict: Any  # a pair of legs of one kind, or who refused
        if is_perpetual:
            lots, verdict = _judge_perpetual(state, outcome.at_us, market, taker, maker, lots, is_sure)
        else:
            verdict = spot_margin.judge(state, outcome.at_us, market, taker, maker, lots, is_sure)
        if isinstance(verdict, spot_margin.Refused):
            if not verdict.is_maker:
                return stop, verdict.reason
            opposite.remove(maker)
            _expire_maker(state, outcome, maker, verdict.reason, opposite, touched)
            # What the taker counted on is gone: from here it has to show that it can pay.
            is_judged = True
            continue
        fill_best(opposite, maker, lots)
        if is_perpetual:
            perpetuals.settle(state, outcome, market, verdict[0], verdict[1], lots)
        else:
            spot_margin.settle(state, outcome, market, verdict[0], verdict[1], lots)
        touched[opposite, maker.price_ticks] = market_id
        if maker.executed_lots == maker.lots:
            _forget(state, maker)
        else:
            margin.note_open(state, maker)
        if wish.quote_ticks is None and taker.executed_lots == taker.lots:
            return Stop.NOT, None


def _judge_perpetual(
    state: State, at_us: int, market: Market, taker: Order, maker: Order, lots: int, is_sure: bool
) -> tuple[int, tuple[perpetuals.Leg, perpetuals.Leg] | spot_margin.Refused]:
    """(lots, verdict): reduce-only orders fill no more than they reduce.   [S-7]"""
    lots = perpetuals.reducible(maker, lots)
    if not lots:
        return 0, spot_margin.Refused(True, ExpiryReason.REDUCE_ONLY_NOT_REDUCED)
    lots = perpetuals.reducible(taker, lots)
    if not lots:
        return 0, spot_margin.Refused(False, ExpiryReason.REDUCE_ONLY_NOT_REDUCED)
    return lots, perpetuals.judge(state, at_us, market, taker, maker, lots, is_sure=is_sure)


def _may_rest_there(
    state: State, subaccount: Subaccount, market: Market, command: PlaceOrder, order: Order, at_us: int
) -> bool:
    """Whether what a taker of a perpetual left may rest after its fills.   [M-5, M-9]"""
    left = order.lots - order.executed_lots
    try:
        perpetuals.require_order(state, subaccount, market, command, left, order.price_ticks, at_us)
    except Rejection:
        return False
    return True


def _expire_maker(
    state: State, outcome: Outcome, maker: Order, reason: ExpiryReason, ladder: Ladder, touched: Touched
) -> None:
    """A maker that is out of its book already ends, without its owner's asking."""
    view = maker.view(OrderStatus.EXPIRED, reason)
    _release(state, outcome, maker)
    touched[ladder, maker.price_ticks] = maker.market.parameters.market_id
    outcome.events.append(OrderExpired(view))


def _why_ended(state: State, order: Order, stop: Stop, opposite: Ladder, limit_key: int) -> ExpiryReason:
    """Why what is left of a taker ends instead of resting.   [P-11 … P-13, S-7]"""
    if stop is Stop.SELF_TRADE:
        return ExpiryReason.SELF_TRADE_PREVENTION
    if order.time_in_force is _FOK:
        return ExpiryReason.FILL_OR_KILL
    if stop is Stop.PRICE and opposite.heap[0] <= limit_key:
        if bands.is_beyond_the_means(state, order.market, opposite):
            return ExpiryReason.PRICE_OUT_OF_BOUNDS
        return ExpiryReason.PRICE_IMPACT
    if order.order_type is not _LIMIT:
        return ExpiryReason.INSUFFICIENT_LIQUIDITY
    return ExpiryReason.IMMEDIATE_OR_CANCEL


def _filled_by_quote(outcome: Outcome, taker: Order) -> OrderView:
    """What is left of the quote quantity buys no further lot, so the order is filled: its last trade says so."""
    view = taker.view(OrderStatus.FILLED)
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


def promise(state: State, order: Order, lots: int) -> None:
    """Count what `lots` of an order that locks nothing would pay away, or with `lots` < 0 count it off.   [M-1]"""
    subaccount = order.subaccount
    asset_id, atoms = spot_margin.spend(state, order, abs(lots))
    promised = subaccount.promised
    left = promised.get(asset_id, 0) + (atoms if lots > 0 else -atoms)
    assert left >= 0, f"subaccount {subaccount.subaccount_id}: promised {left} of asset {asset_id}"
    if left:
        promised[asset_id] = left
        subaccount.asset_ids[asset_id] = None
    else:
        promised.pop(asset_id, None)
    subaccount.judge_by_margin()


def _release(state: State, outcome: Outcome, order: Order) -> None:
    """An order has left its book unfilled: what it locks is free again, its ids are forgotten.   [S-1]"""
    left = order.lots - order.executed_lots
    if order.market.parameters.perpetual is not None:
        perpetuals.release(order, left)
    elif order.flags & SPENDS_AT_FILL:
        promise(state, order, -left)
    else:
        asset_id, atoms = spot_margin.spend(state, order, left)
        reserve(state, outcome, order.subaccount.subaccount_id, asset_id, -atoms)
    _forget(state, order)


def _forget(state: State, order: Order) -> None:
    subaccount = order.subaccount
    del state.orders[order.order_id]
    del subaccount.orders[order.order_id]
    margin.note_ended(state, order)
    if order.market.parameters.perpetual is not None:
        perpetuals.ended(order)
    if order.client_id is not None:
        del subaccount.client_ids[order.client_id]


def _ladder(order: Order) -> Ladder:
    book: Book = order.market.book
    return book.bids if order.side is _BID else book.asks


def report_levels(outcome: Outcome, touched: Touched) -> None:
    """One BookLevel for each level that the command changed, with what stands there now."""
    events = outcome.events
    for (ladder, price), market_id in touched.items():
        level = ladder.levels.get(price)
        events.append(BookLevel(market_id, ladder.side, price, 0 if level is None else level.lots))


def _top(ladder: Ladder, limit: int) -> list[tuple[int, int]]:
    top: list[tuple[int, int]] = []
    for level in ladder.from_best():
        if len(top) >= limit:
            break
        top.append((level.price_ticks, level.lots))
    return top
