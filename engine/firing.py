"""Trigger orders whose price has come enter the book: by the ordinary path, with every check.   [S-9]"""

from __future__ import annotations

from itertools import islice

from msgspec import structs

from engine import lending, orders, triggers
from engine.commands import FireTriggers, Side
from engine.events import ExpiryReason, OrderStatus, Outcome, TriggerFailed
from engine.parameters import RATE_SCALE
from engine.rejections import Rejection, RejectReason, require
from engine.state import AUTO_BORROW, AUTO_LEND_REDEEM, Order, State
from engine.terms import command_of

AT_ONCE = 500

_REASONS = {
    RejectReason.INSUFFICIENT_FUNDS: ExpiryReason.INSUFFICIENT_FUNDS,
    RejectReason.PROVISIONAL_FUNDS: ExpiryReason.INSUFFICIENT_FUNDS,
    RejectReason.INSUFFICIENT_MARGIN: ExpiryReason.INSUFFICIENT_MARGIN,
    RejectReason.NO_PRICE: ExpiryReason.INSUFFICIENT_MARGIN,
    RejectReason.BORROW_LIMIT: ExpiryReason.INSUFFICIENT_BORROWABLE_QUANTITY,
    RejectReason.INSUFFICIENT_SUPPLY: ExpiryReason.INSUFFICIENT_BORROWABLE_QUANTITY,
    RejectReason.LENDING_CLOSED: ExpiryReason.INSUFFICIENT_BORROWABLE_QUANTITY,
    RejectReason.BORROW_REQUIRES_LEND_REDEEM: ExpiryReason.BORROW_REQUIRES_LEND_REDEEM,
    RejectReason.INVALID_QUANTITY: ExpiryReason.INVALID_QUANTITY,
    RejectReason.INVALID_PRICE: ExpiryReason.INVALID_PRICE,
    RejectReason.PRICE_OUT_OF_BAND: ExpiryReason.PRICE_OUT_OF_BOUNDS,
    RejectReason.NO_ACTIVE_PRICE: ExpiryReason.PRICE_OUT_OF_BOUNDS,
    RejectReason.POST_ONLY_WOULD_TAKE: ExpiryReason.POST_ONLY_TAKER,
    RejectReason.POST_ONLY_MODE: ExpiryReason.POST_ONLY_MODE,
    RejectReason.MARKET_CLOSED: ExpiryReason.ORDER_BOOK_CLOSED,
    RejectReason.REDUCE_ONLY: ExpiryReason.REDUCE_ONLY_NOT_REDUCED,
    RejectReason.POSITION_LIMIT: ExpiryReason.POSITION_LIMIT,
    RejectReason.OPEN_INTEREST_LIMIT: ExpiryReason.POSITION_LIMIT,
    RejectReason.IN_LIQUIDATION: ExpiryReason.LIQUIDATION,
    RejectReason.UNSETTLED_LOSS: ExpiryReason.NEGATIVE_EQUITY,
}
"""What a refusal is as the end of an order; UNKNOWN where the contract has no word for it."""


def fire(state: State, _command: FireTriggers, outcome: Outcome) -> None:
    """Let triggered orders enter, in the order they were triggered; one that is refused fails.   [S-9]

    At most AT_ONCE of them: a block stays small however many wait at one price. The others, and what their own trades
    trigger, enter with the next command, at the same exchange time.
    """
    require(bool(state.triggered), RejectReason.TICK_OUT_OF_ORDER, triggered=0)

    # From here the command succeeds.
    touched: orders.Touched = {}
    for order in list(islice(state.triggered.values(), AT_ONCE)):
        # A bracket that entered has cancelled the other one.
        if triggers.is_waiting(order):
            _enter(state, outcome, order, touched)
    orders.report_levels(outcome, touched)


def expiry_of(reason: RejectReason) -> ExpiryReason:
    """The expiry reason that says the same as a refusal."""
    return _REASONS.get(reason, ExpiryReason.UNKNOWN)


def _enter(state: State, outcome: Outcome, order: Order, touched: orders.Touched) -> None:
    others = triggers.siblings(order)
    triggers.forget(state, order)
    assert order.terms is not None, f"order {order.order_id} waited for nothing"
    order.terms = terms = structs.replace(order.terms, triggered_at_us=outcome.at_us)
    lots = _lots(state, order, outcome.at_us)
    if isinstance(lots, ExpiryReason):
        _fail(outcome, order, lots)
        return
    try:
        orders.enter(
            state, command_of(order, lots), outcome, touched, alone=False, order_id=order.order_id, terms=terms
        )
    except Rejection as rejection:
        _fail(outcome, order, expiry_of(rejection.reason))
        return
    for other in others:
        if triggers.is_waiting(other):
            triggers.withdraw(state, outcome, other)


def _fail(outcome: Outcome, order: Order, reason: ExpiryReason) -> None:
    outcome.events.append(TriggerFailed(order.view(OrderStatus.TRIGGER_FAILED, reason)))


def _lots(state: State, order: Order, at_us: int) -> int | ExpiryReason:
    """Lots of a triggered order: a percentage of what the position is now, rounded down to the lot.   [S-9]

    A bracket takes no more than there is to take: the position, or on a spot market what its parent's fee left. What
    grew beyond one order's maximum is cut to it, rather than not protected at all.
    """
    subaccount, parameters, terms = order.subaccount, order.market.parameters, order.terms
    assert terms is not None, f"order {order.order_id} waited for nothing"
    if terms.trigger_percent:
        held = subaccount.positions.get(parameters.market_id)
        if held is None or not held.lots:
            return ExpiryReason.STOP_WITHOUT_POSITION
        return min(abs(held.lots) * terms.trigger_percent // RATE_SCALE, parameters.max_lots)
    if not terms.related_order_id:
        return order.lots
    lots = min(order.lots, parameters.max_lots)
    if parameters.perpetual is not None:
        held = subaccount.positions.get(parameters.market_id)
        size = held.lots if held is not None else 0
        most = max(0, -size if order.side is Side.BID else size)
        return min(lots, most) if most else ExpiryReason.STOP_WITHOUT_POSITION
    if order.side is Side.ASK and not order.flags & AUTO_BORROW:
        base = parameters.base_asset_id
        free = state.free(subaccount.subaccount_id, base)
        if order.flags & AUTO_LEND_REDEEM or base in subaccount.lent:
            free += lending.claim(state, subaccount, base, at_us)
        lots = min(lots, free // parameters.lot_atoms)
    return lots if lots else ExpiryReason.INSUFFICIENT_FUNDS
