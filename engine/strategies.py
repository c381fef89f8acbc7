"""Scheduled strategies (TWAP): an order cut into slices that enter one by one, by the ordinary path.   [S-7]"""

from __future__ import annotations

from hashlib import sha256

from msgspec import structs

from engine import clearing, orders
from engine.commands import (
    CancelAllStrategies,
    CancelStrategy,
    CreateStrategy,
    OrderType,
    PlaceOrder,
    RunStrategies,
)
from engine.events import (
    ExpiryReason,
    OrderStatus,
    OrderTerms,
    OrderView,
    Outcome,
    StrategyChanged,
    StrategyView,
    Trade,
)
from engine.firing import AT_ONCE, expiry_of
from engine.parameters import MarketParameters
from engine.rejections import Rejection, RejectReason, require
from engine.state import Market, State, Strategy, Subaccount
from engine.terms import require_terms

RUNNING, COMPLETED, CANCELLED, TERMINATED = "Running", "Completed", "Cancelled", "Terminated"
SHORTEST_INTERVAL_MS = 1_000
LONGEST_DURATION_MS = 30 * 86_400_000
_SPREAD = 100
"""A randomized slice is between 90 % and 110 % of an equal one, in thousandths."""

_REASONS = {
    ExpiryReason.IMMEDIATE_OR_CANCEL: "InsufficientLiquidity",
    ExpiryReason.INSUFFICIENT_LIQUIDITY: "InsufficientLiquidity",
    ExpiryReason.PRICE_IMPACT: "InsufficientLiquidity",
    ExpiryReason.POST_ONLY_TAKER: "InsufficientLiquidity",
    ExpiryReason.FILL_OR_KILL: "FillOrKill",
    ExpiryReason.PRICE_OUT_OF_BOUNDS: "PriceOutOfBounds",
    ExpiryReason.SLIPPAGE_TOLERANCE_EXCEEDED: "PriceOutOfBounds",
    ExpiryReason.SELF_TRADE_PREVENTION: "SelfTradePrevention",
    ExpiryReason.INSUFFICIENT_FUNDS: "InsufficientFunds",
    ExpiryReason.INSUFFICIENT_MARGIN: "InsufficientMargin",
    ExpiryReason.NEGATIVE_EQUITY: "InsufficientMargin",
    ExpiryReason.POSITION_LIMIT: "InsufficientMargin",
    ExpiryReason.INSUFFICIENT_BORROWABLE_QUANTITY: "InsufficientBorrowableQuantity",
    ExpiryReason.BORROW_REQUIRES_LEND_REDEEM: "InsufficientBorrowableQuantity",
    ExpiryReason.REDUCE_ONLY_NOT_REDUCED: "ReduceOnlyNotReduced",
    ExpiryReason.INVALID_PRICE: "InvalidPrice",
    ExpiryReason.INVALID_QUANTITY: "InvalidQuantity",
    ExpiryReason.LIQUIDATION: "Liquidation",
}
"""Names of the contract's StrategyCrankCancelReason; Unknown for the rest."""
_PASSING = frozenset(("", "Expired", "InsufficientLiquidity", "FillOrKill", "PriceOutOfBounds", "SelfTradePrevention"))
"""What the next slice may find better: the strategy goes on, with what was not filled."""


_ASKED = (
    "market_id",
    "side",
    "lots",
    "duration_ms",
    "interval_ms",
    "price_ticks",
    "randomized",
    "reduce_only",
    "self_trade",
    "slippage",
    "slippage_kind",
    "time_in_force",
    "post_only",
)


def create(state: State, command: CreateStrategy, outcome: Outcome) -> StrategyView:
    """Begin a strategy; its first slice is due at once. Nothing is locked: slices are judged one by one. [S-7]"""
    market = state.markets.get(command.market_id)
    if market is None:
        raise Rejection(RejectReason.UNKNOWN_MARKET, market_id=command.market_id)
    subaccount = state.subaccounts[command.subaccount_id]
    running = _of_client_id(subaccount, command.client_id)
    if running is not None:
        if _asks_the_same(running, command):
            return running.view
        _refuse_client_id(command.client_id, running.view.strategy_id)
    if clearing.first_of_client_id(subaccount, command.client_id) is not None:
        _refuse_client_id(command.client_id, 0)
    slices = _slices(command)
    _require_sane(command, market.parameters, slices)
    limit = state.limits.strategies_per_subaccount
    if len(subaccount.strategies) >= limit:
        raise Rejection(RejectReason.STRATEGY_LIMIT, running=len(subaccount.strategies), limit=limit)

    # From here the command succeeds.
    strategy_id = state.next_strategy_id
    state.next_strategy_id = strategy_id + 1
    view = StrategyView(
        strategy_id,
        command.client_id,
        command.subaccount_id,
        command.market_id,
        command.side,
        command.lots,
        0,
        0,
        command.price_ticks,
        command.duration_ms,
        command.interval_ms,
        command.randomized,
        command.reduce_only,
        command.self_trade,
        command.slippage,
        command.slippage_kind,
        RUNNING,
        "",
        outcome.at_us,
        command.time_in_force,
        command.post_only,
    )
    strategy = Strategy(
        view,
        outcome.at_us,
        slices,
        command.auto_lend,
        command.auto_lend_redeem,
        command.auto_borrow,
        command.auto_borrow_repay,
    )
    state.strategies[strategy_id] = subaccount.strategies[strategy_id] = strategy
    note_due(state)
    outcome.events.append(StrategyChanged(view))
    return view


def cancel(state: State, command: CancelStrategy, outcome: Outcome) -> StrategyView:
    """End a strategy for its owner; a slice that still rests is cancelled with it.   [S-7]"""
    subaccount = state.subaccounts[command.subaccount_id]
    if (command.strategy_id is None) == (command.client_id is None):
        raise Rejection(RejectReason.INVALID_ORDER, ids=0 if command.strategy_id is None else 2)
    if command.strategy_id is not None:
        strategy = subaccount.strategies.get(command.strategy_id)
    else:
        strategy = _of_client_id(subaccount, command.client_id)
    if strategy is None or strategy.view.market_id != command.market_id:
        asked = command.strategy_id if command.strategy_id is not None else command.client_id or 0
        raise Rejection(RejectReason.UNKNOWN_STRATEGY, strategy=asked, market_id=command.market_id)

    # From here the command succeeds.
    return _end_all(state, outcome, [strategy], CANCELLED, "")[0]


def cancel_all(state: State, command: CancelAllStrategies, outcome: Outcome) -> list[StrategyView]:
    """End all of a subaccount's strategies, of one market when it is named, oldest first.   [S-7]"""
    subaccount, market_id = state.subaccounts[command.subaccount_id], command.market_id
    if market_id and market_id not in state.markets:
        raise Rejection(RejectReason.UNKNOWN_MARKET, market_id=market_id)

    # From here the command succeeds.
    running = subaccount.strategies.values()
    ending = [strategy for strategy in running if not market_id or strategy.view.market_id == market_id]
    return _end_all(state, outcome, ending, CANCELLED, "")


def terminate(state: State, outcome: Outcome, subaccount: Subaccount, reason: str) -> None:
    """End all of a subaccount's strategies by a rule: a liquidation begins (`Liquidation`).   [L-2]"""
    _end_all(state, outcome, list(subaccount.strategies.values()), TERMINATED, reason)


def terminate_market(state: State, outcome: Outcome, market: Market) -> None:
    """A market closes: its strategies end.   [S-7]"""
    market_id = market.parameters.market_id
    ending = [strategy for strategy in state.strategies.values() if strategy.view.market_id == market_id]
    _end_all(state, outcome, ending, TERMINATED, "Unknown")


def run(state: State, _command: RunStrategies, outcome: Outcome) -> None:
    """Strategies whose time has come send their next slice, by due time, then by id; at most AT_ONCE, the others with
    the next command, at the same exchange time.   [S-7]
    """
    due = [strategy for strategy in state.strategies.values() if strategy.next_us <= outcome.at_us]
    require(bool(due), RejectReason.TICK_OUT_OF_ORDER, due_us=state.slice_due_us, at_us=outcome.at_us)

    # From here the command succeeds.
    due.sort(key=lambda strategy: (strategy.next_us, strategy.view.strategy_id))
    del due[AT_ONCE:]
    touched: orders.Touched = {}
    counted = 0
    for strategy in due:
        _withdraw_slice(state, outcome, strategy, touched)
        # Slices of others may have met this one's before.
        counted = _count_fills(state, outcome, counted)
        if strategy.slices_left and strategy.view.strategy_id in state.strategies:
            _send_slice(state, outcome, strategy, touched)
    _count_fills(state, outcome, counted)
    for strategy in due:
        if strategy.view.strategy_id in state.strategies and _is_over(state, strategy):
            _end(state, outcome, strategy, TERMINATED, strategy.stopped_by or "Expired")
    orders.report_levels(outcome, touched)
    note_due(state)


def follow(state: State, outcome: Outcome) -> None:
    """At the end of any other command: what resting slices filled.   [S-7]"""
    _count_fills(state, outcome, 0)


def note_due(state: State) -> None:
    """When the next slice is due."""
    state.slice_due_us = min((strategy.next_us for strategy in state.strategies.values()), default=0)


def _slices(command: CreateStrategy) -> int:
    """One at the beginning of each interval of the duration."""
    interval, duration = command.interval_ms, command.duration_ms
    if interval < SHORTEST_INTERVAL_MS or not interval <= duration <= LONGEST_DURATION_MS:
        raise Rejection(
            RejectReason.INVALID_ORDER,
            interval_ms=interval,
            duration_ms=duration,
            shortest_interval_ms=SHORTEST_INTERVAL_MS,
            longest_duration_ms=LONGEST_DURATION_MS,
        )
    return -(-duration // interval)


def _require_sane(command: CreateStrategy, parameters: MarketParameters, slices: int) -> None:
    """Every slice is an order that the market takes; an even cut of them is not below its smallest.   [S-7]"""
    if not slices * parameters.min_lots <= command.lots <= slices * parameters.max_lots:
        raise Rejection(
            RejectReason.INVALID_QUANTITY,
            lots=command.lots,
            slices=slices,
            min_lots=slices * parameters.min_lots,
            max_lots=slices * parameters.max_lots,
        )
    first = _slice_command(command.subaccount_id, command, max(parameters.min_lots, command.lots // slices))
    clearing.require_market_takes(first, parameters)
    clearing.require_well_formed(first, parameters)
    require_terms(first, parameters)


def _slice_command(subaccount_id: int, asked: CreateStrategy | StrategyView, lots: int) -> PlaceOrder:
    """A slice as an order; borrow and lend flags are the caller's to add."""
    return PlaceOrder(
        subaccount_id,
        asked.market_id,
        asked.side,
        OrderType.LIMIT if asked.price_ticks else OrderType.MARKET,
        asked.time_in_force,
        asked.price_ticks,
        lots,
        post_only=asked.post_only,
        reduce_only=asked.reduce_only,
        self_trade=asked.self_trade,
        slippage=asked.slippage,
        slippage_kind=asked.slippage_kind,
    )


def _send_slice(state: State, outcome: Outcome, strategy: Strategy, touched: orders.Touched) -> None:
    """The next slice enters as any order would; what refuses it for good ends the strategy."""
    view = strategy.view
    lots = _slice_lots(strategy, state.markets[view.market_id].parameters)
    command = structs.replace(
        _slice_command(view.subaccount_id, view, lots),
        auto_lend=strategy.auto_lend,
        auto_lend_redeem=strategy.auto_lend_redeem,
        auto_borrow=strategy.auto_borrow,
        auto_borrow_repay=strategy.auto_borrow_repay,
    )
    terms = OrderTerms(strategy_id=view.strategy_id, slippage=view.slippage, slippage_kind=view.slippage_kind)
    strategy.slices_left -= 1
    end_us = view.created_at_us + view.duration_ms * 1_000
    strategy.next_us = min(strategy.next_us + view.interval_ms * 1_000, end_us)
    strategy.order_id, strategy.stopped_by = 0, ""
    try:
        order = orders.enter(state, command, outcome, touched, alone=False, terms=terms)
    except Rejection as rejection:
        strategy.stopped_by = _reason(expiry_of(rejection.reason))
        return
    strategy.order_id = order.order_id
    if order.status is OrderStatus.EXPIRED and order.expiry_reason is not None:
        strategy.stopped_by = _reason(order.expiry_reason)


def _slice_lots(strategy: Strategy, parameters: MarketParameters) -> int:
    """An even part of what is left over the slices left, rounded down to the lot; the last takes all the rest.

    A randomized one is up to a tenth more or less, by a hash of the strategy's and the slice's numbers.
    """
    view, left = strategy.view, strategy.slices_left
    rest = view.lots - view.executed_lots
    if left == 1:
        return min(rest, parameters.max_lots)
    lots = rest // left
    if view.randomized:
        seed = sha256(b"%d/%d" % (view.strategy_id, left)).digest()
        lots = lots * (1_000 - _SPREAD + int.from_bytes(seed[:8], "big") % (2 * _SPREAD + 1)) // 1_000
    most = min(parameters.max_lots, rest - (left - 1) * parameters.min_lots)
    return min(rest, max(parameters.min_lots, min(lots, most)))


def _withdraw_slice(state: State, outcome: Outcome, strategy: Strategy, touched: orders.Touched) -> None:
    """What of the last slice still rests is carried over to the next."""
    order = state.orders.get(strategy.order_id)
    if order is not None:
        orders.withdraw(state, outcome, order)
        ladder = order.market.book.ladder(order.side)
        touched[ladder, order.price_ticks] = order.market.parameters.market_id
        strategy.stopped_by = "Expired"


def _count_fills(state: State, outcome: Outcome, since: int) -> int:
    """Count what trades filled of strategies, from this event on, and end those that are complete; where to go on."""
    filled: dict[int, list[int]] = {}
    for event in outcome.events[since:]:
        if type(event) is Trade:
            _note_fill(filled, event.taker, event)
            _note_fill(filled, event.maker, event)
    for strategy_id, (lots, quote_atoms) in filled.items():
        strategy = state.strategies.get(strategy_id)
        if strategy is None:
            continue
        view = strategy.view
        strategy.view = structs.replace(
            view,
            executed_lots=view.executed_lots + lots,
            executed_quote_atoms=view.executed_quote_atoms + quote_atoms,
        )
        if strategy.view.executed_lots == view.lots:
            _end(state, outcome, strategy, COMPLETED, "")
        else:
            outcome.events.append(StrategyChanged(strategy.view))
    return len(outcome.events)


def _note_fill(filled: dict[int, list[int]], order: OrderView, trade: Trade) -> None:
    if order.terms is not None and order.terms.strategy_id:
        sums = filled.setdefault(order.terms.strategy_id, [0, 0])
        sums[0] += trade.lots
        sums[1] += trade.quote_atoms


def _is_over(state: State, strategy: Strategy) -> bool:
    """Its slice was refused for good, or it has no slice left and none rests."""
    if strategy.stopped_by not in _PASSING:
        return True
    return not strategy.slices_left and strategy.order_id not in state.orders


def _end_all(
    state: State, outcome: Outcome, ending: list[Strategy], status: str, reason: str
) -> list[StrategyView]:
    """End strategies and withdraw what of their slices rests; each level is reported once."""
    touched: orders.Touched = {}
    for strategy in ending:
        _withdraw_slice(state, outcome, strategy, touched)
    orders.report_levels(outcome, touched)
    return [_end(state, outcome, strategy, status, reason) for strategy in ending]


def _end(state: State, outcome: Outcome, strategy: Strategy, status: str, reason: str) -> StrategyView:
    """Forget a strategy of which nothing rests."""
    strategy.view = view = structs.replace(strategy.view, status=status, reason=reason)
    del state.strategies[view.strategy_id]
    del state.subaccounts[view.subaccount_id].strategies[view.strategy_id]
    note_due(state)
    outcome.events.append(StrategyChanged(view))
    return view


def _of_client_id(subaccount: Subaccount, client_id: int | None) -> Strategy | None:
    if client_id is None:
        return None
    running = subaccount.strategies.values()
    return next((strategy for strategy in running if strategy.view.client_id == client_id), None)


def _asks_the_same(strategy: Strategy, command: CreateStrategy) -> bool:
    """Whether a repeated client id comes with the same strategy: then it is a repeat, not an error.   [A-11]"""
    view = strategy.view
    flags = ("auto_lend", "auto_lend_redeem", "auto_borrow", "auto_borrow_repay")
    return all(getattr(view, name) == getattr(command, name) for name in _ASKED) and all(
        getattr(strategy, name) == getattr(command, name) for name in flags
    )


def _refuse_client_id(client_id: int | None, strategy_id: int) -> None:
    raise Rejection(RejectReason.DUPLICATE_CLIENT_ID, client_id=client_id or 0, strategy_id=strategy_id)


def _reason(reason: ExpiryReason) -> str:
    return _REASONS.get(reason, "Unknown")
