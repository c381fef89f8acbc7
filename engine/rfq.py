"""Requests for quotes: a requester asks, makers quote two prices, one quote fills it outside the book.   [S-7]

A fill is one journal transaction at the quoted price; it moves no last price and no mark. Memo of an RFQ_TRADE
transaction: that of a TRADE, with the request's id for the trade's and the taker's order's, the quote's for the
maker's order's; on a perpetual then the market's last settled mark; then the movements of the pools, if any.

Whoever trades worse than the mark takes value out of the account, so that side must also satisfy M-12.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import structs

from engine import clearing, margin, perpetuals, spot_margin
from engine.commands import (
    AcceptQuote,
    CancelRfq,
    ExpireRfqs,
    OrderType,
    Origin,
    RefreshRfq,
    SelfTrade,
    Side,
    SubmitQuote,
    SubmitRfq,
    TimeInForce,
)
from engine.events import (
    ExpiryReason,
    LendingSource,
    OrderStatus,
    Outcome,
    QuoteView,
    RfqChanged,
    RfqView,
    SettlementMoved,
)
from engine.fees import HOUR_US, add_volume
from engine.formulas.fees import volume_usd
from engine.parameters import BookState, MarketParameters
from engine.posting import post
from engine.pricing import is_cancel_only, mark_price
from engine.rejections import Rejection, RejectReason, require
from engine.state import (
    AUTO_BORROW,
    AUTO_BORROW_REPAY,
    AUTO_LEND,
    AUTO_LEND_REDEEM,
    Market,
    Order,
    Rfq,
    State,
    Subaccount,
)
from ledger.amounts import INT64_MAX
from ledger.journal import JournalKind

LIFETIME_US = 60_000_000
"""How long a request waits for quotes; refreshing it begins anew."""
OPEN_LIMIT = 20
"""Open requests of one subaccount."""
QUOTES_LIMIT = 100
"""Quotes of one request, one of each maker."""
_BID = Side.BID
_NEW, _FILLED = OrderStatus.NEW, OrderStatus.FILLED


def submit(state: State, command: SubmitRfq, outcome: Outcome) -> RfqView:
    """Ask for quotes. Nothing is locked; both sides are judged when a quote is accepted.   [S-7]"""
    market = _open_market(state, command.market_id)
    subaccount = state.subaccounts[command.subaccount_id]
    _require_sound(state, subaccount)
    if command.client_id is not None:
        if not 0 <= command.client_id < clearing.CLIENT_ID_LIMIT:
            raise Rejection(RejectReason.INVALID_ORDER, client_id=command.client_id)
        first = _of_client_id(subaccount, command.client_id)
        if first is not None:
            if _asks_the_same(first, command):
                return first.view
            raise Rejection(
                RejectReason.DUPLICATE_CLIENT_ID, client_id=command.client_id, rfq_id=first.view.rfq_id
            )
    _require_quantity(command, market.parameters)
    if len(subaccount.rfqs) >= OPEN_LIMIT:
        raise Rejection(RejectReason.ORDER_LIMIT, open=len(subaccount.rfqs), limit=OPEN_LIMIT)

    # From here the command succeeds.
    rfq_id = state.next_rfq_id
    state.next_rfq_id = rfq_id + 1
    view = RfqView(
        rfq_id,
        command.client_id,
        command.subaccount_id,
        command.market_id,
        command.side,
        command.lots,
        command.quote_atoms,
        command.price_ticks,
        command.immediate,
        outcome.at_us,
        outcome.at_us + LIFETIME_US,
        _NEW,
    )
    rfq = Rfq(view, {}, _flags(command), {})
    state.rfqs[rfq_id] = subaccount.rfqs[rfq_id] = rfq
    note_due(state)
    outcome.events.append(RfqChanged("rfqAccepted", view))
    outcome.events.append(RfqChanged("rfqActive", view))
    return view


def refresh(state: State, command: RefreshRfq, outcome: Outcome) -> RfqView:
    """The request's time begins anew; the quotes so far end.   [S-7]"""
    rfq = _own(state, command.subaccount_id, command.rfq_id, None)

    # From here the command succeeds.
    _cancel_quotes(outcome, rfq, OrderStatus.CANCELLED)
    rfq.view = structs.replace(rfq.view, submitted_at_us=outcome.at_us, expires_at_us=outcome.at_us + LIFETIME_US)
    # The dicts stay in the order of the ends.
    for rfqs in (state.rfqs, state.subaccounts[command.subaccount_id].rfqs):
        del rfqs[rfq.view.rfq_id]
        rfqs[rfq.view.rfq_id] = rfq
    note_due(state)
    outcome.events.append(RfqChanged("rfqRefreshed", rfq.view))
    outcome.events.append(RfqChanged("rfqActive", rfq.view))
    return rfq.view


def cancel(state: State, command: CancelRfq, outcome: Outcome) -> RfqView:
    """End a request for its owner.   [S-7]"""
    rfq = _own(state, command.subaccount_id, command.rfq_id, command.client_id)

    # From here the command succeeds.
    return _end(state, outcome, rfq, OrderStatus.CANCELLED)


def quote(state: State, command: SubmitQuote, outcome: Outcome) -> QuoteView:
    """Quote two prices for a request of somebody else; a maker's new quote takes the place of its last.   [S-7]

    An immediate request is filled by the first quote at its price or better: the maker is judged at once then, and a
    requester that cannot pay loses the request.
    """
    rfq = state.rfqs.get(command.rfq_id)
    if rfq is None:
        raise Rejection(RejectReason.UNKNOWN_RFQ, rfq_id=command.rfq_id)
    market = _open_market(state, rfq.view.market_id)
    subaccount = state.subaccounts[command.subaccount_id]
    _require_sound(state, subaccount)
    requester = state.subaccounts[rfq.view.subaccount_id]
    if subaccount.user is requester.user:
        raise Rejection(RejectReason.RFQ_STATE, rfq_id=command.rfq_id, own=1)
    if command.client_id is not None and not 0 <= command.client_id < clearing.CLIENT_ID_LIMIT:
        raise Rejection(RejectReason.INVALID_ORDER, client_id=command.client_id)
    if not 0 < command.bid_ticks <= command.ask_ticks:
        raise Rejection(RejectReason.INVALID_PRICE, bid_ticks=command.bid_ticks, ask_ticks=command.ask_ticks)
    lots = _lots(rfq.view, _price(rfq.view, command.bid_ticks, command.ask_ticks), market.parameters)
    replaced = next((each for each in rfq.quotes.values() if each.subaccount_id == command.subaccount_id), None)
    if replaced is None and len(rfq.quotes) >= QUOTES_LIMIT:
        raise Rejection(RejectReason.ORDER_LIMIT, quotes=len(rfq.quotes), limit=QUOTES_LIMIT)
    quote_id = state.next_quote_id
    view = QuoteView(
        quote_id,
        command.rfq_id,
        command.client_id,
        command.subaccount_id,
        command.bid_ticks,
        command.ask_ticks,
        _NEW,
        outcome.at_us,
    )
    fill = None
    if rfq.view.immediate and _is_acceptable(rfq.view, view):
        fill = _judge(state, outcome.at_us, market, rfq, view, _flags(command), lots)
        if isinstance(fill, Refused) and fill.is_maker:
            raise fill.rejection

    # From here the command succeeds.
    state.next_quote_id = quote_id + 1
    if replaced is not None:
        _cancel_quote(outcome, rfq, replaced, OrderStatus.CANCELLED)
    best = best_quote(rfq)
    rfq.quotes[quote_id] = view
    rfq.quote_flags[quote_id] = _flags(command)
    outcome.events.append(RfqChanged("quoteAccepted", rfq.view, view))
    if fill is None:
        if best_quote(rfq) is not best:
            outcome.events.append(RfqChanged("rfqCandidate", rfq.view, best_quote(rfq)))
        return view
    if isinstance(fill, Refused):
        _end(state, outcome, rfq, OrderStatus.EXPIRED)
        return structs.replace(view, status=OrderStatus.CANCELLED)
    _fill(state, outcome, market, rfq, view, fill)
    return structs.replace(view, status=_FILLED)


def accept(state: State, command: AcceptQuote, outcome: Outcome) -> RfqView:
    """Fill a request by its best quote. One that its maker cannot stand for ends; the request stays open.   [S-7]"""
    rfq = _of_quote(state, command)
    view = rfq.quotes[command.quote_id]
    best = best_quote(rfq)
    if best is not view:
        best_id = best.quote_id if best is not None else 0
        raise Rejection(RejectReason.RFQ_STATE, quote_id=command.quote_id, best_quote_id=best_id)
    market = _open_market(state, rfq.view.market_id)
    _require_sound(state, state.subaccounts[command.subaccount_id])
    lots = _lots(rfq.view, _price(rfq.view, view.bid_ticks, view.ask_ticks), market.parameters)
    fill = _judge(state, outcome.at_us, market, rfq, view, rfq.quote_flags[view.quote_id], lots)
    if isinstance(fill, Refused) and not fill.is_maker:
        raise fill.rejection

    # From here the command succeeds.
    if isinstance(fill, Refused):
        _cancel_quote(outcome, rfq, view, OrderStatus.CANCELLED)
        after = best_quote(rfq)
        if after is not None:
            outcome.events.append(RfqChanged("rfqCandidate", rfq.view, after))
        return rfq.view
    return _fill(state, outcome, market, rfq, view, fill)


def expire(state: State, _command: ExpireRfqs, outcome: Outcome) -> None:
    """Requests whose time has passed end, with their quotes.   [S-7]"""
    over = [rfq for rfq in state.rfqs.values() if rfq.view.expires_at_us <= outcome.at_us]
    require(bool(over), RejectReason.TICK_OUT_OF_ORDER, due_us=state.rfq_due_us, at_us=outcome.at_us)

    # From here the command succeeds.
    for rfq in over:
        _end(state, outcome, rfq, OrderStatus.EXPIRED)


def end_all(state: State, outcome: Outcome, subaccount: Subaccount) -> None:
    """End a subaccount's requests by a rule: a liquidation begins. Its quotes are judged when accepted.   [L-2]"""
    for rfq in list(subaccount.rfqs.values()):
        _end(state, outcome, rfq, OrderStatus.EXPIRED)


def end_market(state: State, outcome: Outcome, market: Market) -> None:
    """A market closes: its requests end.   [S-7]"""
    for rfq in list(state.rfqs.values()):
        if rfq.view.market_id == market.parameters.market_id:
            _end(state, outcome, rfq, OrderStatus.EXPIRED)


def best_quote(rfq: Rfq) -> QuoteView | None:
    """The quote that may be accepted: the best for the requester within its limit, then the first; None for none."""
    quotes = [each for each in rfq.quotes.values() if _is_acceptable(rfq.view, each)]
    if not quotes:
        return None
    if rfq.view.side is _BID:
        return min(quotes, key=lambda each: (each.ask_ticks, each.quote_id))
    return min(quotes, key=lambda each: (-each.bid_ticks, each.quote_id))


class Fill(NamedTuple):
    """An accepted quote that both sides can stand for."""

    lots: int
    taker: Any
    """A leg of `spot_margin` or `perpetuals`, as is the maker's."""
    maker: Any


class Refused(NamedTuple):
    """Which side cannot, and how it is told."""

    is_maker: bool
    rejection: Rejection


_REJECTIONS = {
    ExpiryReason.INSUFFICIENT_FUNDS: RejectReason.INSUFFICIENT_FUNDS,
    ExpiryReason.INSUFFICIENT_BORROWABLE_QUANTITY: RejectReason.INSUFFICIENT_SUPPLY,
    ExpiryReason.BORROW_REQUIRES_LEND_REDEEM: RejectReason.BORROW_REQUIRES_LEND_REDEEM,
    ExpiryReason.POSITION_LIMIT: RejectReason.OPEN_INTEREST_LIMIT,
}


def _judge(
    state: State, at_us: int, market: Market, rfq: Rfq, quoted: QuoteView, quote_flags: int, lots: int
) -> Fill | Refused:
    """Both sides as they would be: limits, funds and margin, and of who trades off the mark M-12.   [M-9, M-12]"""
    view, parameters = rfq.view, market.parameters
    price = _price(view, quoted.bid_ticks, quoted.ask_ticks)
    requester, maker_of = state.subaccounts[view.subaccount_id], state.subaccounts[quoted.subaccount_id]
    other_side = Side.ASK if view.side is _BID else _BID
    taker = _order(view.rfq_id, market, requester, view.side, price, lots, rfq.flags, at_us)
    maker = _order(quoted.quote_id, market, maker_of, other_side, price, lots, quote_flags, at_us)
    for is_maker, order in ((True, maker), (False, taker)):
        try:
            _require_side(state, market, order)
        except Rejection as rejection:
            return Refused(is_maker, rejection)
    legs: Any
    if parameters.perpetual is not None:
        legs = perpetuals.judge(state, at_us, market, taker, maker, lots, is_resting=False)
    else:
        legs = spot_margin.judge_quote(state, at_us, market, taker, maker, lots)
    if isinstance(legs, spot_margin.Refused):
        owner = maker_of if legs.is_maker else requester
        reason = _REJECTIONS.get(legs.reason, RejectReason.INSUFFICIENT_MARGIN)
        return Refused(legs.is_maker, Rejection(reason, subaccount_id=owner.subaccount_id, lots=lots))
    for is_maker, leg in ((True, legs[1]), (False, legs[0])):
        try:
            _require_on_the_mark(state, at_us, market, leg, price)
        except Rejection as rejection:
            return Refused(is_maker, rejection)
    return Fill(lots, legs[0], legs[1])


def _require_side(state: State, market: Market, order: Order) -> None:
    """Not in liquidation; on a perpetual there is a mark, and the position's limits hold.   [S-7]"""
    subaccount = order.subaccount
    _require_sound(state, subaccount)
    if market.parameters.perpetual is None:
        return
    market_id = market.parameters.market_id
    if not market.mark_lot:
        raise Rejection(RejectReason.NO_PRICE, market_id=market_id)
    signed = order.lots if order.side is _BID else -order.lots
    perpetuals.require_limits(market, subaccount.positions.get(market_id), signed)


def _require_on_the_mark(state: State, at_us: int, market: Market, leg: Any, price: int) -> None:
    """M-12 for a side that trades worse than the mark: it gives value away, as a withdrawal does."""
    order, subaccount = leg.order, leg.subaccount
    if margin.is_better_than_mark(state, market.parameters.market_id, order.side is _BID, price, 0):
        return
    if subaccount.frozen_withdrawals:
        raise Rejection(RejectReason.WITHDRAWALS_FROZEN, subaccount_id=subaccount.subaccount_id)
    is_perpetual = market.parameters.perpetual is not None
    if is_perpetual or leg.borrowed or subaccount.margined or margin.has_provisional(state, subaccount):
        changes = leg.changes(market, state.usdc) if is_perpetual else leg.changes()
        margin.require_outflow(state, subaccount, at_us, changes)


def _fill(state: State, outcome: Outcome, market: Market, rfq: Rfq, quoted: QuoteView, fill: Fill) -> RfqView:
    """Post the fill, count its volume, end the request.   [A-1, F-2]"""
    parameters, view = market.parameters, rfq.view
    price, lots = fill.maker.order.price_ticks, fill.lots
    quote_atoms = price * lots * parameters.tick_value_atoms
    taker, maker, usdc = fill.taker, fill.maker, state.usdc
    is_perpetual = parameters.perpetual is not None
    fee_asset, quoter_fee_asset = (usdc, usdc) if is_perpetual else (taker.fee_asset, maker.fee_asset)
    if is_perpetual:
        postings, movements = perpetuals.exchange(state, outcome, market, taker, maker, lots)
    else:
        postings, movements = spot_margin.exchange(state, outcome, taker, maker, LendingSource.RFQ)
    memo: tuple[Any, ...] = (
        parameters.market_id,
        view.rfq_id,
        price,
        lots,
        view.rfq_id,
        quoted.quote_id,
        view.subaccount_id,
        quoted.subaccount_id,
        int(view.side),
        fee_asset,
        taker.fee,
        quoter_fee_asset,
        maker.fee,
    )
    if is_perpetual:
        memo = (*memo, market.settled)
    if movements:
        memo = (*memo, movements)
    post(state, outcome, JournalKind.RFQ_TRADE, memo, postings)

    quote_asset = parameters.quote_asset_id
    usd = volume_usd(quote_atoms, mark_price(state, quote_asset), 10 ** state.assets[quote_asset].decimals)
    for leg in (taker, maker):
        add_volume(leg.subaccount.user, outcome.at_us // HOUR_US, usd)
    if is_perpetual:
        for leg in (taker, maker):
            lot_price = price * parameters.tick_value_atoms
            perpetuals.record_fill(
                state, outcome, leg.subaccount, market, leg.lots, lot_price, leg.fee, Origin.USER
            )
            if leg.fee:
                outcome.events.append(SettlementMoved(leg.subaccount.subaccount_id, "fee", -leg.fee))
    rfq.view = view = structs.replace(view, fill_price_ticks=price, filled_lots=lots, status=_FILLED)
    filled = structs.replace(quoted, status=_FILLED)
    del rfq.quotes[quoted.quote_id]
    _cancel_quotes(outcome, rfq, OrderStatus.CANCELLED)
    _forget(state, rfq)
    outcome.events.append(
        RfqChanged(
            "rfqFilled", view, filled, quote_atoms, fee_asset, taker.fee, quoter_fee_asset, maker.fee
        )
    )
    return view


def _end(state: State, outcome: Outcome, rfq: Rfq, status: OrderStatus) -> RfqView:
    _cancel_quotes(outcome, rfq, status)
    rfq.view = view = structs.replace(rfq.view, status=status)
    _forget(state, rfq)
    outcome.events.append(RfqChanged("rfqCancelled", view))
    return view


def _forget(state: State, rfq: Rfq) -> None:
    view = rfq.view
    del state.rfqs[view.rfq_id]
    del state.subaccounts[view.subaccount_id].rfqs[view.rfq_id]
    note_due(state)


def _cancel_quotes(outcome: Outcome, rfq: Rfq, status: OrderStatus) -> None:
    for quoted in list(rfq.quotes.values()):
        _cancel_quote(outcome, rfq, quoted, status)


def _cancel_quote(outcome: Outcome, rfq: Rfq, quoted: QuoteView, status: OrderStatus) -> None:
    del rfq.quotes[quoted.quote_id]
    del rfq.quote_flags[quoted.quote_id]
    outcome.events.append(RfqChanged("quoteCancelled", rfq.view, structs.replace(quoted, status=status)))


def note_due(state: State) -> None:
    """When the first of the open requests ends."""
    state.rfq_due_us = next(iter(state.rfqs.values())).view.expires_at_us if state.rfqs else 0


def _open_market(state: State, market_id: int) -> Market:
    market = state.markets.get(market_id)
    if market is None:
        raise Rejection(RejectReason.UNKNOWN_MARKET, market_id=market_id)
    match market.parameters.state:
        case BookState.OPEN:
            pass
        case BookState.CLOSED:
            raise Rejection(RejectReason.MARKET_CLOSED, market_id=market_id)
        case BookState.LIMIT_ONLY:
            raise Rejection(RejectReason.LIMIT_ONLY_MODE, market_id=market_id)
        case BookState.POST_ONLY:
            raise Rejection(RejectReason.POST_ONLY_MODE, market_id=market_id)
        case BookState.CANCEL_ONLY:
            raise Rejection(RejectReason.CANCEL_ONLY_MODE, market_id=market_id)
    if is_cancel_only(state, market):
        raise Rejection(RejectReason.CANCEL_ONLY_MODE, market_id=market_id)
    return market


def _require_sound(state: State, subaccount: Subaccount) -> None:
    if subaccount.subaccount_id in state.liquidations:
        raise Rejection(RejectReason.IN_LIQUIDATION, subaccount_id=subaccount.subaccount_id)


def _require_quantity(command: SubmitRfq, parameters: MarketParameters) -> None:
    """Lots or a quote quantity that the market takes; a limit only with what it limits.   [A-3]"""
    lots, quote_atoms, price = command.lots, command.quote_atoms, command.price_ticks
    if bool(lots) == bool(quote_atoms) or not 0 <= quote_atoms <= INT64_MAX:
        raise Rejection(RejectReason.INVALID_QUANTITY, lots=lots, quote_atoms=quote_atoms)
    if lots and not parameters.min_lots <= lots <= parameters.max_lots:
        raise Rejection(
            RejectReason.INVALID_QUANTITY, lots=lots, min_lots=parameters.min_lots, max_lots=parameters.max_lots
        )
    if price < 0 or price * (lots or 1) * parameters.tick_value_atoms > INT64_MAX:
        raise Rejection(RejectReason.INVALID_PRICE, price_ticks=price)


def _lots(view: RfqView, price: int, parameters: MarketParameters) -> int:
    """The request's lots; by quote quantity what that pays at this price, rounded down to the lot."""
    lots = view.lots or view.quote_atoms // (price * parameters.tick_value_atoms)
    if not parameters.min_lots <= lots <= parameters.max_lots:
        raise Rejection(
            RejectReason.INVALID_QUANTITY, lots=lots, min_lots=parameters.min_lots, max_lots=parameters.max_lots
        )
    if price * lots * parameters.tick_value_atoms > INT64_MAX:
        raise Rejection(RejectReason.INVALID_PRICE, price_ticks=price, lots=lots)
    return lots


def _price(view: RfqView, bid_ticks: int, ask_ticks: int) -> int:
    """Who buys pays the maker's ask, who sells gets its bid."""
    return ask_ticks if view.side is _BID else bid_ticks


def _is_acceptable(view: RfqView, quoted: QuoteView) -> bool:
    """Within the request's limit, if it has one."""
    price = _price(view, quoted.bid_ticks, quoted.ask_ticks)
    if not view.price_ticks:
        return True
    return price <= view.price_ticks if view.side is _BID else price >= view.price_ticks


def _order(
    number: int, market: Market, subaccount: Subaccount, side: Side, price: int, lots: int, flags: int, at_us: int
) -> Order:
    """One side as an order that fills whole and never rests, which is how fills are judged."""
    return Order(
        number, None, market, subaccount, OrderType.LIMIT, side, TimeInForce.FOK, price, lots, 0, flags,
        SelfTrade.REJECT_TAKER, at_us,
    )  # fmt: skip


def _own(state: State, subaccount_id: int, rfq_id: int | None, client_id: int | None) -> Rfq:
    """The subaccount's open request by exactly one of its ids."""
    subaccount = state.subaccounts[subaccount_id]
    if (rfq_id is None) == (client_id is None):
        raise Rejection(RejectReason.INVALID_ORDER, ids=0 if rfq_id is None else 2)
    rfq = subaccount.rfqs.get(rfq_id) if rfq_id is not None else _of_client_id(subaccount, client_id or 0)
    if rfq is None:
        raise Rejection(RejectReason.UNKNOWN_RFQ, rfq_id=rfq_id if rfq_id is not None else client_id or 0)
    return rfq


def _of_quote(state: State, command: AcceptQuote) -> Rfq:
    """The subaccount's open request that this is a quote for."""
    if command.rfq_id is not None or command.client_id is not None:
        rfq = _own(state, command.subaccount_id, command.rfq_id, command.client_id)
        if command.quote_id in rfq.quotes:
            return rfq
    else:
        for rfq in state.subaccounts[command.subaccount_id].rfqs.values():
            if command.quote_id in rfq.quotes:
                return rfq
    raise Rejection(RejectReason.UNKNOWN_QUOTE, quote_id=command.quote_id)


def _of_client_id(subaccount: Subaccount, client_id: int) -> Rfq | None:
    return next((rfq for rfq in subaccount.rfqs.values() if rfq.view.client_id == client_id), None)


def _asks_the_same(rfq: Rfq, command: SubmitRfq) -> bool:
    """Whether a repeated client id comes with the same request: then it is a repeat, not an error.   [A-11]"""
    view = rfq.view
    return (
        view.market_id == command.market_id
        and view.side == command.side
        and view.lots == command.lots
        and view.quote_atoms == command.quote_atoms
        and view.price_ticks == command.price_ticks
        and view.immediate == command.immediate
        and rfq.flags == _flags(command)
    )


def _flags(command: SubmitRfq | SubmitQuote) -> int:
    return (
        command.auto_lend * AUTO_LEND
        | command.auto_lend_redeem * AUTO_LEND_REDEEM
        | command.auto_borrow * AUTO_BORROW
        | command.auto_borrow_repay * AUTO_BORROW_REPAY
    )
