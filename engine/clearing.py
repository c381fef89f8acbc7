"""Whether an order may enter at all: its shape, the market's state, the bands, the funds it locks. Changes nothing.

[S-1, S-7, P-10]
"""

from __future__ import annotations

from typing import NamedTuple

from engine import lending, margin, spare
from engine.bands import active_price
from engine.commands import OrderType, PlaceOrder, Side, TimeInForce
from engine.formulas.bands import is_inside_limit_band
from engine.formulas.fees import fee_atoms
from engine.parameters import BookState, MarketParameters, MarketType
from engine.rejections import Rejection, RejectReason
from engine.spot_margin import promise_rate
from engine.state import ASSET_BITS, Market, Order, State, Subaccount
from ledger.amounts import INT64_MAX
from ledger.chart import available

_LIMIT = OrderType.LIMIT
_GTC = TimeInForce.GTC
CLIENT_ID_LIMIT = 1 << 32
_AVAILABLE = available(0)


def first_of_client_id(subaccount: Subaccount, client_id: int | None) -> Order | None:
    """The open or waiting order that has this client id; none: it is free, also of strategies.   [A-11]"""
    if client_id is None:
        return None
    if not 0 <= client_id < CLIENT_ID_LIMIT:
        raise Rejection(RejectReason.INVALID_ORDER, client_id=client_id)
    for strategy in subaccount.strategies.values():
        if strategy.view.client_id == client_id:
            raise Rejection(
                RejectReason.DUPLICATE_CLIENT_ID, client_id=client_id, strategy_id=strategy.view.strategy_id
            )
    return subaccount.client_ids.get(client_id)


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
    if parameters.type == MarketType.SPOT and command.reduce_only:
        # A spot order cannot reduce a position.
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
    active = active_price(state, market)
    if active is None:
        return
    bands = market.parameters.bands
    if not is_inside_limit_band(price_ticks, active, bands.limit_min, bands.limit_max):
        raise Rejection(
            RejectReason.PRICE_OUT_OF_BAND,
            price_ticks=price_ticks,
            active_ticks=active[0] // active[1],
            minimum=bands.limit_min,
            maximum=bands.limit_max,
        )


def require_free(state: State, subaccount: Subaccount, asset_id: int, atoms: int, at_us: int) -> int:
    """The subaccount can spend this much now: held less what other orders lock, then what it lends, which is redeemed
    when the order enters.   [S-1]

    Gives the atoms to redeem, nearly always 0.
    """
    # `state.held`, written out; a holding is a liability, so it is negative.
    balance = state.balances.get((_AVAILABLE | subaccount.subaccount_id) << ASSET_BITS | asset_id, 0)
    free = -balance - subaccount.reserved.get(asset_id, 0)
    if atoms <= free:
        return 0
    claim = lending.claim(state, subaccount, asset_id, at_us) if asset_id in subaccount.lent else 0
    if atoms > free + claim:
        raise Rejection(
            RejectReason.INSUFFICIENT_FUNDS, asset_id=asset_id, required_atoms=atoms, free_atoms=free + claim
        )
    redeemed = lending.redemption(state, subaccount, asset_id, at_us, atoms - free)
    lending.require_supply(state, asset_id, at_us, redeemed, 0)
    return redeemed


class Spend(NamedTuple):
    """What an order would pay away at most, and how many lots at which price that is."""

    asset_id: int
    atoms: int
    """Without fee."""
    price_ticks: int
    lots: int


def require_spend(
    state: State, subaccount: Subaccount, market: Market, command: PlaceOrder, spend: Spend, at_us: int
) -> int:
    """An order that locks must find its spend, one that spends at its fills the margin for it; gives what to redeem.

    In a subaccount without any exposure a lock is enough.   [S-1, S-2, M-9]
    """
    if not command.auto_borrow and not command.auto_lend_redeem:
        redeemed = require_free(state, subaccount, spend.asset_id, spend.atoms, at_us)
        if subaccount.margined:
            change = (redeemed, -redeemed, 0, spend.atoms)
            _require_risk(state, subaccount, market, command, spend, change, at_us)
        else:
            spare.forget(state, subaccount)
        return redeemed

    asset_id = spend.asset_id
    if command.auto_borrow and not command.auto_lend_redeem and asset_id in subaccount.lent:
        raise Rejection(RejectReason.BORROW_REQUIRES_LEND_REDEEM, asset_id=asset_id)
    if not command.auto_borrow:
        free = state.free(subaccount.subaccount_id, asset_id) + lending.claim(state, subaccount, asset_id, at_us)
        if spend.atoms > free:
            raise Rejection(
                RejectReason.INSUFFICIENT_FUNDS, asset_id=asset_id, required_atoms=spend.atoms, free_atoms=free
            )
    fee = fee_atoms(spend.atoms, promise_rate(state)) if command.side is Side.BID else 0
    _require_risk(state, subaccount, market, command, spend, (0, 0, 0, spend.atoms + fee), at_us)
    return 0


def may_rest(
    state: State, subaccount: Subaccount, market: Market, command: PlaceOrder, spend: Spend, at_us: int
) -> bool:
    """Whether what a taker left has its margin after its fills; `spend`: what it locks or promises.   [M-5, M-9]"""
    try:
        _require_risk(state, subaccount, market, command, spend, (0, 0, 0, spend.atoms), at_us)
    except Rejection:
        return False
    return True


def require_flags(subaccount: Subaccount, command: PlaceOrder, parameters: MarketParameters) -> None:
    """What is lent must not stand beside a debt of the same asset.   [B-9, S-3]"""
    if command.auto_lend and not command.auto_borrow_repay:
        asset_id = parameters.base_asset_id if command.side is Side.BID else parameters.quote_asset_id
        if asset_id in subaccount.debts:
            raise Rejection(RejectReason.LEND_REQUIRES_BORROW_REPAY, asset_id=asset_id)


def _require_risk(
    state: State,
    subaccount: Subaccount,
    market: Market,
    command: PlaceOrder,
    spend: Spend,
    change: margin.Change,
    at_us: int,
) -> None:
    """M-9 as if the order rested: its fee and its loss against the mark are taken off."""
    parameters = market.parameters
    buys = command.side is Side.BID
    quote = parameters.quote_asset_id
    quote_atoms = spend.lots * spend.price_ticks * parameters.tick_value_atoms
    fee = fee_atoms(quote_atoms, promise_rate(state))
    price, _unit, in_usd, *_rest = margin.line(state, quote)
    fee_usd = -(-fee * price // in_usd)
    loss = margin.loss_at(state, parameters.market_id, buys, spend.price_ticks, spend.lots)
    if spare.can_rest(state, subaccount, at_us, spend.asset_id, change[3], fee_usd, loss):
        return
    changes = {spend.asset_id: change}
    after = margin.sums(state, subaccount, at_us, changes, is_strict=True)
    spare.forget(state, subaccount)
    if not after.is_unpriced:
        all_losses = loss + margin.open_order_loss(state, subaccount)
        if not after.notional or after.equity - fee_usd - all_losses > after.initial:
            spare.remember(state, subaccount, at_us, after, all_losses, spend.asset_id)
            return
    got = (parameters.base_asset_id, spend.lots * parameters.lot_atoms) if buys else (quote, max(0, quote_atoms - fee))
    filled = {spend.asset_id: (-spend.atoms, 0, 0, 0), got[0]: (got[1], 0, 0, 0)}
    margin.require_risk(state, subaccount, at_us, changes, fee_usd + loss, filled)
