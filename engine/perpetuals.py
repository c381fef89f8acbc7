"""Perpetual positions: whether an order may enter, what a fill does to both sides, what a position remembers of it.

Cash moves at settlement ticks only; a fill moves contracts and their cost between two positions, and fees.
Memo of a PERPETUAL_TRADE transaction: that of a TRADE, then the market's last settled mark in quote atoms per lot (what
cost is counted from), then the movements of the USDC pool that its fees took, if any.   [A-2, C-5, M-9, S-10]
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine import lending, margin, owed, spare, virtual
from engine.commands import Origin, PlaceOrder, Side
from engine.events import ExpiryReason, Outcome, PositionChanged, Trade
from engine.fees import HOUR_US, add_volume, futures_rates
from engine.formulas.fees import fee_atoms, insurance_atoms, volume_usd
from engine.posting import drop_position, position_of, post
from engine.pricing import mark_price
from engine.rejections import Rejection, RejectReason
from engine.spot_margin import Refused
from engine.state import REDUCE_ONLY, Market, Order, Position, State, Subaccount
from ledger.chart import FEE_INCOME, INSURANCE_FUND, available, contracts, cost, position
from ledger.journal import JournalKind, Posting

_BID = Side.BID
OPENED, ADJUSTED, CLOSED = 1, 2, 3
"""What happened to a position, as `PositionChanged.change` says it.   [W-6]"""


class Leg(NamedTuple):
    """One side of a fill of a perpetual."""

    order: Order
    lots: int
    """Signed: above zero bought."""
    cost: int
    """(S − p) × lots, in quote atoms: what the fill gained against the last settled mark."""
    unlocked: int
    """Lots that its resting order no longer counts in M-1."""
    fee: int
    fee_rate: int
    found: owed.Found
    """Where its fee comes from."""

    @property
    def subaccount(self) -> Subaccount:
        return self.order.subaccount

    def changes(self, market: Market, usdc: int) -> dict[int, margin.Change]:
        """What the fill changes of the account, as `margin` judges it."""
        buys = -self.unlocked if self.lots > 0 else 0
        sells = -self.unlocked if self.lots < 0 else 0
        changes = {contracts(market.parameters.market_id): (self.lots, self.cost, buys, sells)}
        if self.fee:
            changes[usdc] = (self.found.borrowed + self.found.redeemed - self.fee, -self.found.redeemed,
                             self.found.borrowed, 0)
        return changes


# --- whether an order may enter -------------------------------------------------------------------------------------


def require_order(state: State, subaccount: Subaccount, market: Market, command: PlaceOrder, lots: int, ticks: int,
                  at_us: int) -> None:
    """M-9 as if `lots` at `ticks` rested: exposure, fee and loss against the mark; reduce-only needs a position to
    reduce. Raises Rejection.   [M-5, M-9, S-7]
    """
    parameters = market.parameters
    market_id = parameters.market_id
    if not market.mark_lot:
        raise Rejection(RejectReason.NO_PRICE, market_id=market_id)
    held = subaccount.positions.get(market_id)
    buys = command.side is _BID
    if command.reduce_only:
        size = held.lots if held is not None else 0
        if (size >= 0) if buys else (size <= 0):
            raise Rejection(RejectReason.REDUCE_ONLY, market_id=market_id, position_lots=size, lots=lots)
        spare.forget(state, subaccount)
        return
    require_limits(market, held, lots if buys else -lots)
    value = lots * ticks * parameters.tick_value_atoms
    fee = fee_atoms(value, state.fees.futures[0].taker_rate)
    usd, _unit, in_usd, *_rest = margin.line(state, state.usdc)
    fee_usd = -(-fee * usd // in_usd)
    loss = margin.loss_at(state, market_id, buys, ticks, lots)
    if spare.can_rest_perpetual(state, subaccount, at_us, market_id, lots, fee_usd, loss):
        return
    charges = fee_usd + loss
    changes = {contracts(market_id): (0, 0, lots, 0) if buys else (0, 0, 0, lots)}
    after = margin.sums(state, subaccount, at_us, changes, is_strict=True)
    spare.forget(state, subaccount)
    all_losses = loss + margin.open_order_loss(state, subaccount)
    if not after.is_unpriced and after.equity - fee_usd - all_losses > after.initial:
        spare.remember(state, subaccount, at_us, after, all_losses, state.usdc)
        return
    signed = lots if buys else -lots
    cost_of_fill = (market.settled - ticks * parameters.tick_value_atoms) * signed
    reducing = {contracts(market_id): (signed, cost_of_fill, 0, 0)}
    margin.require_risk(state, subaccount, at_us, changes, charges, reducing)


def require_limits(market: Market, held: Position | None, signed: int) -> None:
    """The market's caps on one position, and on all of them together.   [S-7]"""
    perpetual = market.parameters.perpetual
    assert perpetual is not None, f"market {market.parameters.market_id} is no perpetual"
    before = held.lots if held is not None else 0
    if abs(before + signed) <= abs(before):
        return
    limit = perpetual.position_limit_lots
    if limit:
        waiting = 0 if held is None else held.buys if signed > 0 else -held.sells
        if abs(before + waiting + signed) > limit:
            raise Rejection(
                RejectReason.POSITION_LIMIT,
                market_id=market.parameters.market_id,
                position_lots=before + waiting + signed,
                limit_lots=limit,
            )
    if market.open_interest >= perpetual.open_interest_limit_lots:
        raise Rejection(
            RejectReason.OPEN_INTEREST_LIMIT,
            market_id=market.parameters.market_id,
            open_lots=market.open_interest,
            limit_lots=perpetual.open_interest_limit_lots,
        )


# --- a fill -----------------------------------------------------------------------------------------------------------


def reducible(order: Order, lots: int) -> int:
    """How many of `lots` a reduce-only order can still take off its position; all of them for any other.   [S-7]"""
    if not order.flags & REDUCE_ONLY:
        return lots
    held = order.subaccount.positions.get(order.market.parameters.market_id)
    size = held.lots if held is not None else 0
    return min(lots, max(0, -size if order.side is _BID else size))


def judge(
    state: State,
    at_us: int,
    market: Market,
    taker: Order,
    maker: Order,
    lots: int,
    is_resting: bool = True,
    is_sure: bool = False,
) -> tuple[Leg, Leg] | Refused:
    """Both sides of a fill as they would be, or which of them cannot: the maker is asked first.   [S-8, M-9]

    What the exchange itself does (liquidation) is not asked for its margin. `is_resting`: the maker's order rests, so
    that its lots count in M-1 until they fill; those of a quote do not. `is_sure`: the taker fills whole or not at all,
    and was judged for all of it (`whole_refusal`).
    """
    hour = at_us // HOUR_US
    maker_rate = futures_rates(state, maker.subaccount.user, hour).maker_rate
    taker_rate = futures_rates(state, taker.subaccount.user, hour).taker_rate
    if is_by_rule(taker):
        taker_rate = 0
    maker_leg = _leg(state, at_us, market, maker, lots, maker.price_ticks, maker_rate, is_resting)
    reason = _refusal(state, at_us, market, maker_leg, maker.price_ticks, is_resting)
    if reason is not None:
        return Refused(True, reason)
    taker_leg = _leg(state, at_us, market, taker, lots, maker.price_ticks, taker_rate, False)
    if is_sure and not is_by_rule(taker):
        spare.forget(state, taker.subaccount)
        reason = ExpiryReason.INSUFFICIENT_FUNDS if taker_leg.found.missing else None
    elif not is_by_rule(taker):
        reason = _refusal(state, at_us, market, taker_leg, maker.price_ticks, False)
    if reason is None and _opens_too_much(market, taker_leg, maker_leg):
        reason = ExpiryReason.POSITION_LIMIT
    if reason is not None:
        # What the maker spares may have been taken for a fill that is not to be.
        spare.forget(state, maker.subaccount)
        spare.forget(state, taker.subaccount)
        return Refused(False, reason)
    return taker_leg, maker_leg


def whole_refusal(
    state: State, at_us: int, market: Market, taker: Order, lots: int, quote_atoms: int
) -> ExpiryReason | None:
    """Why a taker that fills whole or not at all may not fill whole: all its fills judged as one.   [S-7, M-9]

    Each fill rounds its fee up by itself, so an atom for every order there is comes on top. Open interest is asked for
    all lots as if both sides opened, unless the taker only reduces, which raises none.
    """
    parameters, subaccount = market.parameters, taker.subaccount
    if reducible(taker, lots) < lots:
        return ExpiryReason.REDUCE_ONLY_NOT_REDUCED
    signed = lots if taker.side is _BID else -lots
    held = subaccount.positions.get(parameters.market_id)
    before = held.lots if held is not None else 0
    only_reduces = abs(before + signed) < abs(before) and before * (before + signed) >= 0
    perpetual = parameters.perpetual
    assert perpetual is not None, f"market {parameters.market_id} is no perpetual"
    if not only_reduces and market.open_interest + lots > perpetual.open_interest_limit_lots:
        return ExpiryReason.POSITION_LIMIT
    rate = futures_rates(state, subaccount.user, at_us // HOUR_US).taker_rate
    fee = fee_atoms(quote_atoms, rate) + len(state.orders) if rate else 0
    found = owed.plan(state, subaccount, at_us, fee)
    spent = quote_atoms if signed > 0 else -quote_atoms
    leg = Leg(taker, signed, market.settled * signed - spent, 0, fee, rate, found)
    spare.forget(state, subaccount)
    # The mean price, rounded against the taker, says whether all of it is better than the mark.
    unit = lots * parameters.tick_value_atoms
    mean_ticks = -(-quote_atoms // unit) if signed > 0 else quote_atoms // unit
    reason = _refusal(state, at_us, market, leg, mean_ticks, False)
    spare.forget(state, subaccount)
    return reason


def settle(state: State, outcome: Outcome, market: Market, taker: Leg, maker: Leg, lots: int) -> None:
    """One fill in one journal transaction: contracts and cost change hands, both sides pay their fees.   [A-2, F-1]"""
    parameters = market.parameters
    market_id, usdc = parameters.market_id, state.usdc
    price = maker.order.price_ticks
    quote_atoms = price * lots * parameters.tick_value_atoms
    postings, movements = exchange(state, outcome, market, taker, maker, lots)
    release(maker.order, maker.unlocked)

    trade_id = market.next_trade_id
    memo: tuple[Any, ...] = (
        market_id,
        trade_id,
        price,
        lots,
        taker.order.order_id,
        maker.order.order_id,
        taker.subaccount.subaccount_id,
        maker.subaccount.subaccount_id,
        int(taker.order.side),
        usdc,
        taker.fee,
        usdc,
        maker.fee,
        market.settled,
    )
    if movements:
        memo = (*memo, movements)
    post(state, outcome, JournalKind.PERPETUAL_TRADE, memo, postings)

    usd = volume_usd(quote_atoms, mark_price(state, usdc), 10 ** state.assets[usdc].decimals)
    hour = outcome.at_us // HOUR_US
    price_atoms = price * parameters.tick_value_atoms
    for leg in (taker, maker):
        add_volume(leg.subaccount.user, hour, usd)
        leg.order.executed_quote_atoms += quote_atoms
    taker.order.executed_lots += lots
    market.next_trade_id = trade_id + 1
    market.last_price_ticks = price
    outcome.events.append(
        Trade(
            market_id,
            trade_id,
            price,
            lots,
            quote_atoms,
            taker.order.view(),
            maker.order.view(),
            usdc,
            taker.fee,
            usdc,
            maker.fee,
        )
    )
    for leg in (taker, maker):
        terms = leg.order.terms
        origin = terms.origin if terms is not None else Origin.USER
        record_fill(state, outcome, leg.subaccount, market, leg.lots, price_atoms, leg.fee, origin)


def exchange(
    state: State, outcome: Outcome, market: Market, taker: Leg, maker: Leg, lots: int
) -> tuple[list[Posting], tuple[Any, ...]]:
    """Contracts, their cost and both fees as postings; and the memos of the pool's movements.   [A-2, F-1, S-12]"""
    parameters = market.parameters
    market_id, usdc = parameters.market_id, state.usdc
    into = lending.Movements()
    postings = into.postings
    for leg in (taker, maker):
        owed.take(state, outcome, into, leg.subaccount, leg.found)
    atoms = lots * parameters.lot_atoms
    share = state.fees.insurance_share
    for leg in (taker, maker):
        account = position(leg.subaccount.subaccount_id)
        postings.append((account, contracts(market_id), -atoms if leg.lots > 0 else atoms))
    if taker.cost:
        for leg in (taker, maker):
            postings.append((position(leg.subaccount.subaccount_id), cost(market_id), -leg.cost))
    for leg in (taker, maker):
        if leg.fee:
            insured = insurance_atoms(leg.fee, share)
            postings.append((available(leg.subaccount.subaccount_id), usdc, leg.fee))
            postings.append((FEE_INCOME, usdc, insured - leg.fee))
            if insured:
                postings.append((INSURANCE_FUND, usdc, -insured))
    return postings, tuple(into.memos)


def record_fill(
    state: State,
    outcome: Outcome,
    subaccount: Subaccount,
    market: Market,
    lots: int,
    price_atoms: int,
    fee: int,
    origin: Origin,
    passes_claim: bool = False,
) -> None:
    """What a position remembers of a fill of signed `lots` at `price_atoms` a lot, after its postings.   [C-5, W-6]

    The average entry falls in proportion, rounded down, with what is closed; beyond zero a new position begins.
    `passes_claim`: its claim has gone with the lots, so nothing of it is converted.   [L-4, V-4]
    """
    held = position_of(subaccount, market)
    before = held.lots - lots
    closed = min(abs(before), abs(lots)) if before and (before > 0) != (lots > 0) else 0
    opened = abs(lots) - closed
    fee_of_open = fee
    if closed:
        held.entry_atoms -= held.entry_atoms * closed // abs(before)
        held.traded += price_atoms * closed * (1 if before > 0 else -1)
        held.closed_lots += closed
        held.fees += fee
        fee_of_open = 0
        if not passes_claim and market.parameters.market_id in subaccount.claims:
            virtual.close_part(state, outcome, subaccount, market.parameters.market_id, closed, abs(before))
        if closed == abs(before):
            held.lots, now = 0, held.lots
            _report(outcome, held, CLOSED, origin)
            held.lots = now
            _begin_anew(held)
    if opened:
        is_new = not held.position_id
        if is_new:
            held.position_id = lending.new_position_id(state, outcome.at_us)
            held.opened_at_us = outcome.at_us
        held.entry_atoms += price_atoms * opened
        held.traded -= price_atoms * opened * (1 if lots > 0 else -1)
        held.fees += fee_of_open
        _report(outcome, held, OPENED if is_new else ADJUSTED, origin)
    elif held.lots:
        _report(outcome, held, ADJUSTED, origin)
    drop_position(held)


def rest(order: Order, lots: int) -> None:
    """An order rests: its lots count in M-1, those of a reduce-only one do not.   [M-1]"""
    held = position_of(order.subaccount, order.market)
    if order.flags & REDUCE_ONLY:
        held.reducing += 1
    elif order.side is _BID:
        held.buys += lots
    else:
        held.sells += lots


def release(order: Order, lots: int) -> None:
    """`lots` of a resting order were filled, or will not be.   [M-1]"""
    if order.flags & REDUCE_ONLY:
        return
    held = order.subaccount.positions[order.market.parameters.market_id]
    if order.side is _BID:
        held.buys -= lots
    else:
        held.sells -= lots
    assert held.buys >= 0 and held.sells >= 0, f"order {order.order_id}: {lots} lots released, more than rested"


def ended(order: Order) -> None:
    """A resting order is open no longer.   [M-1]"""
    held = order.subaccount.positions.get(order.market.parameters.market_id)
    if held is not None:
        if order.flags & REDUCE_ONLY:
            held.reducing -= 1
        drop_position(held)


def _leg(
    state: State, at_us: int, market: Market, order: Order, lots: int, ticks: int, fee_rate: int, is_resting: bool
) -> Leg:
    parameters = market.parameters
    value = ticks * parameters.tick_value_atoms
    signed = lots if order.side is _BID else -lots
    fee = fee_atoms(value * lots, fee_rate)
    found = owed.plan(state, order.subaccount, at_us, fee)
    unlocked = lots if is_resting and not order.flags & REDUCE_ONLY else 0
    return Leg(order, signed, (market.settled - value) * signed, unlocked, fee, fee_rate, found)


def _refusal(
    state: State, at_us: int, market: Market, leg: Leg, ticks: int, is_maker: bool
) -> ExpiryReason | None:
    """Why one side may not fill: its fee cannot be paid, its position limit, its margin judged as filled.   [M-9]"""
    if leg.found.missing:
        return ExpiryReason.INSUFFICIENT_FUNDS
    subaccount, parameters = leg.subaccount, market.parameters
    is_plain = not leg.found.redeemed and not leg.found.borrowed
    added = 0 if is_maker and not leg.order.flags & REDUCE_ONLY else abs(leg.lots)
    loss_now = margin.loss_at(state, parameters.market_id, leg.lots > 0, ticks, abs(leg.lots))
    if is_plain and spare.can_fill_perpetual(
        state, subaccount, at_us, parameters.market_id, added, loss_now, leg.fee
    ):
        return None
    changes = leg.changes(market, state.usdc)
    filled_loss = 0
    if is_maker:
        left = leg.order.lots - leg.order.executed_lots
        filled_loss = margin.order_loss(state, leg.order, left)
        if filled_loss:
            filled_loss -= margin.order_loss(state, leg.order, left - abs(leg.lots))
    after = margin.sums(state, subaccount, at_us, changes, is_strict=True)
    spare.forget(state, subaccount)
    if not after.is_unpriced:
        loss = margin.open_order_loss(state, subaccount) - filled_loss
        # What a virtual account loses is no exposure: without one, its equity alone says whether others would bear it.
        if (not after.notional and after.equity >= 0) or after.equity - loss > after.initial:
            spare.remember(state, subaccount, at_us, after, loss, state.usdc)
            return None
    is_better = margin.is_better_than_mark(state, parameters.market_id, leg.lots > 0, ticks, leg.fee_rate)
    return margin.fill_refusal(state, subaccount, at_us, changes, is_better)


def _opens_too_much(market: Market, taker: Leg, maker: Leg) -> bool:
    """Whether the fill would raise the open interest beyond the market's limit.   [S-7]"""
    perpetual = market.parameters.perpetual
    assert perpetual is not None, f"market {market.parameters.market_id} is no perpetual"
    if market.open_interest + abs(taker.lots) <= perpetual.open_interest_limit_lots:
        return False
    market_id = market.parameters.market_id
    change = 0
    for leg in (taker, maker):
        held = leg.subaccount.positions.get(market_id)
        lots = held.lots if held is not None else 0
        change += max(0, lots + leg.lots) - max(0, lots)
    return change > 0 and market.open_interest + change > perpetual.open_interest_limit_lots


def is_by_rule(order: Order) -> bool:
    """Whether the exchange itself made the order: liquidation, conversion.   [L-3, S-12]"""
    return order.terms is not None and order.terms.origin is not Origin.USER


def _begin_anew(held: Position) -> None:
    held.position_id = held.opened_at_us = held.entry_atoms = held.traded = held.fees = held.funding = 0
    held.closed_lots = 0


def _report(outcome: Outcome, held: Position, change: int, origin: Origin) -> None:
    outcome.events.append(PositionChanged(held.view(), change, origin, held.market.mark))
