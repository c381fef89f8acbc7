"""Orders that wait for a price: how they are found when it comes, and the brackets that fills arm.

A waiting order locks nothing and counts in no margin. One heap per market, price and direction: a price that nobody
waits for costs a comparison, one that k orders wait for costs O(k log n). What is found goes to `State.triggered`;
`firing` lets it enter.   [S-9]
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

from msgspec import structs

from engine import clearing
from engine.commands import Bracket, OrderType, PlaceOrder, Side, TimeInForce, TriggerBy
from engine.events import (
    ExpiryReason,
    OrderCancelled,
    OrderExpired,
    OrderModified,
    OrderStatus,
    OrderTerms,
    OrderView,
    Outcome,
    Trade,
    TriggerFailed,
    TriggerPlaced,
)
from engine.parameters import PRICE_SCALE, RATE_SCALE, BookState, MarketType
from engine.pricing import index_price, mark_price
from engine.rejections import Rejection, RejectReason
from engine.state import POST_ONLY, REDUCE_ONLY, Market, Order, State
from engine.terms import asks_the_same, flags_of, has_brackets, require_terms, terms_of
from ledger.amounts import INT64_MAX

_LAST = TriggerBy.LAST
_PENDING = OrderStatus.TRIGGER_PENDING
_SMALL_HEAP = 64
"""Below this a heap is not worth compacting."""


class Queue:
    """Trigger orders of one market, price and direction: the nearest price on top.

    The heap holds (key, order id), the key being the trigger price for those that wait for a rise, its negation for a
    fall. What is withdrawn stays in the heap until it surfaces or until stale entries outnumber live ones.
    """

    __slots__ = ("heap", "orders", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.heap: list[tuple[int, int]] = []
        self.orders: dict[int, Order] = {}

    def add(self, order: Order, ticks: int) -> None:
        self.orders[order.order_id] = order
        heappush(self.heap, (ticks * self.sign, order.order_id))

    def remove(self, order_id: int) -> None:
        """Forget an order, if it is here."""
        orders, heap = self.orders, self.heap
        if orders.pop(order_id, None) is None:
            return
        if len(heap) > _SMALL_HEAP and len(heap) > 2 * len(orders):
            heap[:] = [(_terms(order).trigger_price_ticks * self.sign, number) for number, order in orders.items()]
            heapify(heap)

    def crossed(self, ticks: int) -> list[Order]:
        """Take out what a price of `ticks` triggers, the nearest first, then by order id."""
        heap, orders, found = self.heap, self.orders, []
        key = ticks * self.sign
        while heap and heap[0][0] <= key:
            order = orders.pop(heappop(heap)[1], None)
            if order is not None:
                found.append(order)
        return found


class Watch:
    """Who waits for one price of one market."""

    __slots__ = ("before", "falling", "rising")

    def __init__(self, before: int) -> None:
        self.rising = Queue(1)
        self.falling = Queue(-1)
        self.before = before
        """The last price in ticks at the end of the command before: what `nearest` is measured from."""

    def queue(self, falls: bool) -> Queue:
        return self.falling if falls else self.rising

    def is_idle(self) -> bool:
        return not self.rising.orders and not self.falling.orders


class Triggers:
    """All that waits, and the open orders whose fills arm brackets. There is none while nobody waits."""

    __slots__ = ("fed", "last", "parents")

    def __init__(self) -> None:
        self.last: dict[int, Watch] = {}
        """Market → who waits for its last price: trades move it."""
        self.fed: dict[tuple[int, TriggerBy], Watch] = {}
        """(market, MARK or INDEX) → who waits for it: only pricing commands move it."""
        self.parents: dict[int, Order] = {}
        """Open orders with a stop-loss or take-profit."""


class TickPrice(NamedTuple):
    """A price between two ticks, or on one: what has risen to `floor` has not fallen below `ceiling`."""

    floor: int
    ceiling: int


def wait(state: State, command: PlaceOrder, outcome: Outcome) -> OrderView:
    """Accept a trigger order: it waits. Nothing is judged that can change until its price comes.   [S-9]

    It fires when the price comes from where it is now: one that would fire at once is refused.
    """
    market = state.markets.get(command.market_id)
    if market is None:
        raise Rejection(RejectReason.UNKNOWN_MARKET, market_id=command.market_id)
    subaccount = state.subaccounts.get(command.subaccount_id)
    if subaccount is None:
        raise Rejection(RejectReason.UNKNOWN_SUBACCOUNT, subaccount_id=command.subaccount_id)
    first = clearing.first_of_client_id(subaccount, command.client_id)
    if first is not None:
        if asks_the_same(first, command):
            return first.view(_PENDING if first.order_id in subaccount.waiting else None)
        raise Rejection(RejectReason.DUPLICATE_CLIENT_ID, client_id=command.client_id or 0, order_id=first.order_id)
    _require_waiting(command, market)
    limit = state.limits.trigger_orders_per_subaccount
    if len(subaccount.waiting) >= limit:
        raise Rejection(RejectReason.TRIGGER_LIMIT, waiting=len(subaccount.waiting), limit=limit)
    falls = _direction(state, command, market)
    terms = terms_of(command)
    assert terms is not None, "a trigger order without terms"

    # From here the command succeeds.
    order = Order(
        _next_order_id(state),
        command.client_id,
        market,
        subaccount,
        command.order_type,
        command.side,
        command.time_in_force,
        command.price_ticks,
        command.lots,
        command.quote_atoms,
        flags_of(command),
        command.self_trade,
        outcome.at_us,
        terms=structs.replace(terms, trigger_falls=falls),
    )
    if command.client_id is not None:
        subaccount.client_ids[command.client_id] = order
    return _begin(state, outcome, order)


def withdraw(state: State, outcome: Outcome, order: Order) -> OrderView:
    """Cancel a waiting order, for its owner or with its market.   [S-7]"""
    forget(state, order)
    view = order.view(OrderStatus.CANCELLED)
    outcome.events.append(OrderCancelled(view))
    return view


def withdraw_all(state: State, outcome: Outcome, market: Market) -> None:
    """A market closes: what waits there is cancelled, by subaccount and order id.   [S-7]"""
    for number in sorted(state.subaccounts):
        for order in list(state.subaccounts[number].waiting.values()):
            if order.market is market:
                withdraw(state, outcome, order)


def forget(state: State, order: Order) -> None:
    """An order waits no longer: its ids are free again."""
    number, subaccount, terms = order.order_id, order.subaccount, _terms(order)
    del subaccount.waiting[number]
    if order.client_id is not None:
        del subaccount.client_ids[order.client_id]
    if state.triggered.pop(number, None) is None:
        _watch(state, order.market, terms.trigger_by).queue(terms.trigger_falls).remove(number)
    _tidy(state, order.market, terms.trigger_by)


def watch_parent(state: State, order: Order) -> None:
    """An order with brackets was accepted: its fills arm them.   [S-9]"""
    _triggers(state).parents[order.order_id] = order


def follow(state: State, outcome: Outcome, is_priced: bool) -> None:
    """At the end of a command: what its prices cross is triggered, what its fills arm waits.   [S-9]

    `is_priced`: marks and indices may have moved. `State.triggers` is there.
    """
    triggers: Triggers = state.triggers
    ranges: dict[int, list[int]] = {}
    filled: dict[int, tuple[Order, int]] = {}
    parents = triggers.parents
    for event in outcome.events:
        kind = type(event)
        if kind is Trade:
            price = event.price_ticks
            span = ranges.get(event.market_id)
            if span is None:
                ranges[event.market_id] = [price, price]
            elif price < span[0]:
                span[0] = price
            elif price > span[1]:
                span[1] = price
            if parents:
                _note_fill(parents, filled, event.taker, event.lots)
                _note_fill(parents, filled, event.maker, event.lots)
        elif (kind is OrderCancelled or kind is OrderExpired) and event.order.order_id in parents:
            del parents[event.order.order_id]
    for market_id in sorted(ranges):
        watch = triggers.last.get(market_id)
        if watch is not None:
            market = state.markets[market_id]
            low, high = ranges[market_id]
            _cross_last(state, watch, low, high, market.last_price_ticks)
            _tidy(state, market, _LAST)
    if is_priced:
        for market_id, trigger_by in sorted(triggers.fed):
            market = state.markets[market_id]
            _cross_fed(state, triggers.fed[market_id, trigger_by], market, trigger_by)
            _tidy(state, market, trigger_by)
    for parent, lots in filled.values():
        _arm(state, outcome, parent, lots)
    if not triggers.last and not triggers.fed and not parents and state.triggers is triggers:
        state.triggers = None


def price_in_ticks(state: State, market: Market, trigger_by: TriggerBy) -> TickPrice | None:
    """The price that is waited for, as the ticks around it; None without any.   [S-9]"""
    parameters = market.parameters
    if trigger_by is _LAST:
        last = market.last_price_ticks
        return TickPrice(last, last) if last else None
    if trigger_by is TriggerBy.MARK and parameters.perpetual is not None:
        price, tick = market.mark, parameters.tick_price
    else:
        price_of = mark_price if trigger_by is TriggerBy.MARK else index_price
        price = price_of(state, parameters.base_asset_id) * PRICE_SCALE
        tick = parameters.tick_price * price_of(state, parameters.quote_asset_id)
    if not price or not tick:
        return None
    return TickPrice(price // tick, -(-price // tick))


def rebuild(state: State) -> None:
    """The heaps anew from `Subaccount.waiting`, after a snapshot was read; `State.triggered` is there already."""
    state.triggers = None
    for order in state.orders.values():
        if has_brackets(order.terms):
            watch_parent(state, order)
    for subaccount in state.subaccounts.values():
        for number, order in subaccount.waiting.items():
            if number not in state.triggered:
                terms = _terms(order)
                queue = _watch(state, order.market, terms.trigger_by).queue(terms.trigger_falls)
                queue.add(order, terms.trigger_price_ticks)


def is_waiting(order: Order) -> bool:
    return order.order_id in order.subaccount.waiting


def siblings(order: Order) -> list[Order]:
    """The other waiting orders of the same parent: one cancels the other.   [S-9]"""
    parent = _terms(order).related_order_id
    if not parent:
        return []
    return [each for each in order.subaccount.waiting.values() if _terms(each).related_order_id == parent]


def _require_waiting(command: PlaceOrder, market: Market) -> None:
    """The fields fit together; what depends on the moment (funds, margin, bands) is asked when it triggers."""
    parameters = market.parameters
    if parameters.state is BookState.CLOSED:
        raise Rejection(RejectReason.MARKET_CLOSED, market_id=command.market_id)
    if parameters.type == MarketType.SPOT and (command.reduce_only or command.trigger_percent):
        raise Rejection(
            RejectReason.NOT_SUPPORTED, market_id=command.market_id, reduce_only=int(command.reduce_only)
        )
    percent = command.trigger_percent
    if percent:
        if not 0 < percent <= RATE_SCALE or command.lots or command.quote_atoms:
            raise Rejection(RejectReason.INVALID_QUANTITY, trigger_percent=percent, maximum=RATE_SCALE)
        clearing.require_well_formed(structs.replace(command, lots=parameters.min_lots), parameters)
    else:
        clearing.require_well_formed(command, parameters)
    require_terms(command, parameters)
    ticks = command.trigger_price_ticks
    if not 0 < ticks * parameters.tick_value_atoms <= INT64_MAX:
        raise Rejection(RejectReason.TRIGGER_PRICE, trigger_price_ticks=ticks)


def _direction(state: State, command: PlaceOrder, market: Market) -> bool:
    """Whether it waits for a fall; a price that is there already, or none at all, gives no direction.   [S-9]"""
    now = price_in_ticks(state, market, command.trigger_by)
    if now is None:
        raise Rejection(
            RejectReason.NO_PRICE, market_id=command.market_id, trigger_by=command.trigger_by.name.lower()
        )
    ticks = command.trigger_price_ticks
    if now.floor == ticks == now.ceiling:
        raise Rejection(RejectReason.TRIGGER_PRICE, trigger_price_ticks=ticks, price_ticks=now.floor)
    return ticks <= now.floor


def _begin(state: State, outcome: Outcome, order: Order) -> OrderView:
    """Let an order wait, or, when its price is there already (an armed bracket's can be), trigger at once."""
    terms = _terms(order)
    order.subaccount.waiting[order.order_id] = order
    view = order.view(_PENDING)
    outcome.events.append(TriggerPlaced(view))
    ticks, now = terms.trigger_price_ticks, price_in_ticks(state, order.market, terms.trigger_by)
    if now is not None and (ticks >= now.ceiling if terms.trigger_falls else ticks <= now.floor):
        state.triggered[order.order_id] = order
    else:
        _watch(state, order.market, terms.trigger_by).queue(terms.trigger_falls).add(order, ticks)
    return view


def _cross_last(state: State, watch: Watch, low: int, high: int, now: int) -> None:
    """Trades between `low` and `high`: both directions may be crossed by one command's trades."""
    found = watch.rising.crossed(high) + watch.falling.crossed(low)
    if found:
        before = watch.before
        found.sort(key=lambda order: (abs(_terms(order).trigger_price_ticks - before), order.order_id))
        for order in found:
            state.triggered[order.order_id] = order
    watch.before = now


def _cross_fed(state: State, watch: Watch, market: Market, trigger_by: TriggerBy) -> None:
    now = price_in_ticks(state, market, trigger_by)
    if now is not None:
        for order in watch.rising.crossed(now.floor) + watch.falling.crossed(now.ceiling):
            state.triggered[order.order_id] = order


def _note_fill(parents: dict[int, Order], filled: dict[int, tuple[Order, int]], view: OrderView, lots: int) -> None:
    parent = parents.get(view.order_id)
    if parent is not None:
        before = filled.get(view.order_id)
        filled[view.order_id] = parent, lots + (before[1] if before is not None else 0)
        if view.status is OrderStatus.FILLED:
            del parents[view.order_id]


def _arm(state: State, outcome: Outcome, parent: Order, lots: int) -> None:
    """A parent filled by `lots`: what is armed grows by them, or both brackets begin to wait.   [S-9]"""
    subaccount, terms = parent.subaccount, _terms(parent)
    armed = [
        order for order in subaccount.waiting.values() if _terms(order).related_order_id == parent.order_id
    ]
    for order in armed:
        order.lots += lots
        outcome.events.append(OrderModified(order.view(_PENDING)))
    if armed:
        return
    sells = parent.side is Side.BID
    for bracket, falls in ((terms.stop_loss, sells), (terms.take_profit, not sells)):
        if bracket is not None:
            _begin_bracket(state, outcome, parent, bracket, falls, lots)


def _begin_bracket(
    state: State, outcome: Outcome, parent: Order, bracket: Bracket, falls: bool, lots: int
) -> None:
    """A stop-loss or take-profit: the parent's opposite, reduce-only on a perpetual.   [S-9]"""
    subaccount, market = parent.subaccount, parent.market
    flags = parent.flags & ~(POST_ONLY | REDUCE_ONLY)
    if market.parameters.perpetual is not None:
        flags |= REDUCE_ONLY
    order = Order(
        _next_order_id(state),
        None,
        market,
        subaccount,
        OrderType.LIMIT if bracket.limit_price_ticks else OrderType.MARKET,
        Side.ASK if parent.side is Side.BID else Side.BID,
        TimeInForce.GTC,
        bracket.limit_price_ticks,
        lots,
        0,
        flags,
        parent.self_trade,
        outcome.at_us,
        terms=OrderTerms(
            trigger_by=bracket.trigger_by,
            trigger_price_ticks=bracket.trigger_price_ticks,
            related_order_id=parent.order_id,
            trigger_falls=falls,
        ),
    )
    if len(subaccount.waiting) < state.limits.trigger_orders_per_subaccount:
        _begin(state, outcome, order)
    else:
        view = order.view(OrderStatus.TRIGGER_FAILED, ExpiryReason.MAX_STOP_ORDERS_PER_POSITION)
        outcome.events.append(TriggerFailed(view))


def _next_order_id(state: State) -> int:
    order_id = state.next_order_id
    state.next_order_id = order_id + 1
    return order_id


def _terms(order: Order) -> OrderTerms:
    terms = order.terms
    assert terms is not None, f"order {order.order_id} has no terms"
    return terms


def _triggers(state: State) -> Triggers:
    if state.triggers is None:
        state.triggers = Triggers()
    triggers: Triggers = state.triggers
    return triggers


def _watch(state: State, market: Market, trigger_by: TriggerBy) -> Watch:
    """Who waits for this price; an empty one when nobody did."""
    triggers, market_id = _triggers(state), market.parameters.market_id
    if trigger_by is _LAST:
        watch = triggers.last.get(market_id)
        if watch is None:
            watch = triggers.last[market_id] = Watch(market.last_price_ticks)
        return watch
    watch = triggers.fed.get((market_id, trigger_by))
    if watch is None:
        watch = triggers.fed[market_id, trigger_by] = Watch(0)
    return watch


def _tidy(state: State, market: Market, trigger_by: TriggerBy) -> None:
    """Nobody waits for this price any more: it is looked at no longer."""
    triggers: Triggers | None = state.triggers
    if triggers is None:
        return
    market_id = market.parameters.market_id
    if trigger_by is _LAST:
        if market_id in triggers.last and triggers.last[market_id].is_idle():
            del triggers.last[market_id]
    elif (market_id, trigger_by) in triggers.fed and triggers.fed[market_id, trigger_by].is_idle():
        del triggers.fed[market_id, trigger_by]
    if not triggers.last and not triggers.fed and not triggers.parents:
        state.triggers = None
