"""What an order asks for beyond price and size, as flags and terms: from its command, and from an order back to one.

[S-7, S-9, A-11]
"""

from __future__ import annotations

from msgspec import structs

from engine.commands import Bracket, PlaceOrder, Side, SlippageKind, TriggerBy
from engine.events import OrderTerms
from engine.formulas.slippage import bound_by_fraction, bound_by_ticks
from engine.parameters import RATE_SCALE, MarketParameters
from engine.rejections import Rejection, RejectReason
from engine.state import (
    AUTO_BORROW,
    AUTO_BORROW_REPAY,
    AUTO_LEND,
    AUTO_LEND_REDEEM,
    POST_ONLY,
    REDUCE_ONLY,
    Order,
)
from ledger.amounts import INT64_MAX


def flags_of(command: PlaceOrder) -> int:
    """The command's booleans in one int, POST_ONLY … AUTO_BORROW_REPAY. Who asks for a part of the position reduces it.

    [S-9]
    """
    return (
        command.post_only
        | (command.reduce_only or command.trigger_percent > 0) << 1
        | command.auto_lend << 2
        | command.auto_lend_redeem << 3
        | command.auto_borrow << 4
        | command.auto_borrow_repay << 5
    )


def terms_of(command: PlaceOrder) -> OrderTerms | None:
    """What only some orders have; None for a plain one, which nearly all are."""
    if (
        not command.slippage
        and not command.slippage_kind
        and command.stop_loss is None
        and command.take_profit is None
        and not command.trigger_by
    ):
        return None
    return OrderTerms(
        trigger_by=command.trigger_by,
        trigger_price_ticks=command.trigger_price_ticks,
        trigger_percent=command.trigger_percent,
        stop_loss=command.stop_loss,
        take_profit=command.take_profit,
        slippage=command.slippage,
        slippage_kind=command.slippage_kind,
    )


def require_terms(command: PlaceOrder, parameters: MarketParameters) -> None:
    """Slippage and brackets are whole and sane; nothing is compared with a price yet.   [S-7, S-9]"""
    _require_slippage(command)
    for bracket in (command.stop_loss, command.take_profit):
        if bracket is not None:
            _require_bracket(bracket, parameters)
    loss, profit = command.stop_loss, command.take_profit
    if loss is None or profit is None or loss.trigger_by is not profit.trigger_by:
        return
    low, high = (loss, profit) if command.side is Side.BID else (profit, loss)
    if low.trigger_price_ticks >= high.trigger_price_ticks:
        raise Rejection(
            RejectReason.TRIGGER_PRICE,
            stop_loss_ticks=loss.trigger_price_ticks,
            take_profit_ticks=profit.trigger_price_ticks,
        )


def asks_the_same(order: Order, command: PlaceOrder) -> bool:
    """Whether a repeated client id comes with the same order: then it is a repeat, not an error.   [A-11]"""
    return (
        order.market.parameters.market_id == command.market_id
        and order.side == command.side
        and order.order_type == command.order_type
        and order.time_in_force == command.time_in_force
        and order.price_ticks == command.price_ticks
        and order.lots == command.lots
        and order.quote_atoms == command.quote_atoms
        and order.flags == flags_of(command)
        and order.self_trade == command.self_trade
        and _asked(order.terms) == terms_of(command)
    )


def command_of(order: Order, lots: int) -> PlaceOrder:
    """The order that a trigger order becomes when its price has come, over `lots`.   [S-9]"""
    flags, terms = order.flags, order.terms
    assert terms is not None, f"order {order.order_id} waits for nothing"
    return PlaceOrder(
        order.subaccount.subaccount_id,
        order.market.parameters.market_id,
        order.side,
        order.order_type,
        order.time_in_force,
        order.price_ticks,
        lots,
        order.quote_atoms,
        bool(flags & POST_ONLY),
        bool(flags & REDUCE_ONLY),
        order.self_trade,
        order.client_id,
        bool(flags & AUTO_LEND),
        bool(flags & AUTO_LEND_REDEEM),
        bool(flags & AUTO_BORROW),
        bool(flags & AUTO_BORROW_REPAY),
        stop_loss=terms.stop_loss,
        take_profit=terms.take_profit,
        slippage=terms.slippage,
        slippage_kind=terms.slippage_kind,
    )


def slippage_ticks(command: PlaceOrder, best_ticks: int) -> int:
    """The worst price that its slippage tolerance lets a taker fill at, from the best opposite price.   [S-7]"""
    bound = bound_by_ticks if command.slippage_kind is SlippageKind.TICKS else bound_by_fraction
    return max(1, bound(best_ticks, command.side is Side.BID, command.slippage))


def has_brackets(terms: OrderTerms | None) -> bool:
    return terms is not None and (terms.stop_loss is not None or terms.take_profit is not None)


def _asked(terms: OrderTerms | None) -> OrderTerms | None:
    """The terms as they were asked for: without what the exchange has put there since."""
    return None if terms is None else structs.replace(terms, triggered_at_us=0, trigger_falls=False)


def _require_slippage(command: PlaceOrder) -> None:
    slippage, kind = command.slippage, command.slippage_kind
    most = {SlippageKind.NONE: 0, SlippageKind.TICKS: INT64_MAX, SlippageKind.PERCENT: RATE_SCALE}[kind]
    if not 0 <= slippage <= most or bool(kind) != bool(slippage):
        raise Rejection(RejectReason.INVALID_ORDER, slippage=slippage, slippage_kind=int(kind), maximum=most)


def _require_bracket(bracket: Bracket, parameters: MarketParameters) -> None:
    if not bracket.trigger_by:
        raise Rejection(RejectReason.INVALID_ORDER, trigger_by=int(TriggerBy.NONE))
    for ticks in (bracket.trigger_price_ticks, bracket.limit_price_ticks or 1):
        if not 0 < ticks * parameters.max_lots * parameters.tick_value_atoms <= INT64_MAX:
            raise Rejection(RejectReason.TRIGGER_PRICE, price_ticks=ticks)
