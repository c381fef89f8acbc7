"""Fills that borrow, redeem, repay or lend: planned for both sides, judged, then settled in one journal transaction.

A side pays from what it holds, then from what it lends, then by borrowing; what it gets repays a debt first and is lent
last, as its order's flags say.   [S-2, S-3, S-8, M-9]
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine import lending, margin, spare
from engine.commands import Side
from engine.events import ExpiryReason, LendingSource, Outcome, Trade
from engine.fees import HOUR_US, add_volume, spot_rates
from engine.formulas.fees import fee_atoms, insurance_atoms, volume_usd
from engine.formulas.spot import locked_atoms, promised_atoms
from engine.posting import merged, post
from engine.pricing import mark_price
from engine.rejections import RejectReason
from engine.state import (
    AUTO_BORROW,
    AUTO_BORROW_REPAY,
    AUTO_LEND,
    AUTO_LEND_REDEEM,
    SPENDS_AT_FILL,
    Market,
    Order,
    State,
    Subaccount,
)
from ledger.chart import FEE_INCOME, INSURANCE_FUND, AssetId, available
from ledger.journal import JournalKind, Posting

_BID = Side.BID
_EXPIRY = {
    RejectReason.LENDING_CLOSED: ExpiryReason.INSUFFICIENT_BORROWABLE_QUANTITY,
    RejectReason.BORROW_LIMIT: ExpiryReason.INSUFFICIENT_BORROWABLE_QUANTITY,
    RejectReason.INSUFFICIENT_SUPPLY: ExpiryReason.INSUFFICIENT_BORROWABLE_QUANTITY,
    RejectReason.NO_PRICE: ExpiryReason.INSUFFICIENT_MARGIN,
}


class Leg(NamedTuple):
    """One side of a fill, in atoms: `pays` = held + redeemed + borrowed; of what it gets some repays, some is lent."""

    order: Order
    pays_asset: AssetId
    pays: int
    redeemed: int
    borrowed: int
    unlocked: int
    """What its resting order no longer locks, or no longer promises."""
    gets_asset: AssetId
    gets: int
    repaid: int
    lent: int
    fee_asset: AssetId
    fee: int
    fee_rate: int

    @property
    def subaccount(self) -> Subaccount:
        return self.order.subaccount

    def changes(self) -> dict[AssetId, margin.Change]:
        """What the fill changes of the account, as `margin` judges it."""
        held = self.redeemed + self.borrowed - self.pays
        return {
            self.pays_asset: (held, -self.redeemed, self.borrowed, -self.unlocked),
            self.gets_asset: (self.gets - self.repaid - self.lent, self.lent, -self.repaid, 0),
        }


class Refused(NamedTuple):
    """Which side cannot fill, and why.   [S-8]"""

    is_maker: bool
    reason: ExpiryReason


def judge(
    state: State, at_us: int, market: Market, taker: Order, maker: Order, lots: int, is_sure: bool = False
) -> tuple[Leg, Leg] | Refused:
    """Both sides of a fill as they would be, or which of them cannot: the maker is asked first.   [S-8]

    `is_sure`: the taker fills whole or not at all, and was judged for all of it (`whole_refusal`).
    """
    hour = at_us // HOUR_US
    price = maker.price_ticks
    quote_atoms = price * lots * market.parameters.tick_value_atoms
    maker_rate = spot_rates(state, maker.subaccount.user, hour).maker_rate
    taker_rate = spot_rates(state, taker.subaccount.user, hour).taker_rate
    maker_leg = _leg(state, at_us, market, maker, lots, quote_atoms, maker_rate, is_resting=True)
    if isinstance(maker_leg, ExpiryReason):
        return Refused(True, maker_leg)
    taker_leg = _leg(state, at_us, market, taker, lots, quote_atoms, taker_rate, is_resting=False)
    if isinstance(taker_leg, ExpiryReason):
        return Refused(False, taker_leg)
    for is_maker, leg, other in ((True, maker_leg, taker_leg), (False, taker_leg, maker_leg)):
        reason = None
        if is_maker or not is_sure:
            reason = _refusal(state, at_us, market, price, lots, leg, other, is_maker)
        if reason is not None:
            # The other side's may have been taken for a fill that is not to be.
            spare.forget(state, taker.subaccount)
            spare.forget(state, maker.subaccount)
            return Refused(is_maker, reason)
    return taker_leg, maker_leg


def judge_quote(
    state: State, at_us: int, market: Market, taker: Order, maker: Order, lots: int
) -> tuple[Leg, Leg] | Refused:
    """As `judge`, where neither side has an order that rests: a request and the quote that it accepts.   [S-7]"""
    hour, price = at_us // HOUR_US, maker.price_ticks
    quote_atoms = price * lots * market.parameters.tick_value_atoms
    maker_rate = spot_rates(state, maker.subaccount.user, hour).maker_rate
    taker_rate = spot_rates(state, taker.subaccount.user, hour).taker_rate
    maker_leg = _leg(state, at_us, market, maker, lots, quote_atoms, maker_rate, is_resting=False)
    if isinstance(maker_leg, ExpiryReason):
        return Refused(True, maker_leg)
    taker_leg = _leg(state, at_us, market, taker, lots, quote_atoms, taker_rate, is_resting=False)
    if isinstance(taker_leg, ExpiryReason):
        return Refused(False, taker_leg)
    for is_maker, leg, other in ((True, maker_leg, taker_leg), (False, taker_leg, maker_leg)):
        reason = _refusal(state, at_us, market, price, lots, leg, other, is_maker=False)
        spare.forget(state, leg.subaccount)
        if reason is not None:
            return Refused(is_maker, reason)
    return taker_leg, maker_leg


def whole_refusal(
    state: State, at_us: int, market: Market, taker: Order, lots: int, quote_atoms: int
) -> ExpiryReason | None:
    """Why a taker that fills whole or not at all may not fill whole: all its fills judged as one.   [S-7, M-9]

    Each of its fills rounds its fee up by itself, so an atom for every order there is comes on top.
    """
    rate = spot_rates(state, taker.subaccount.user, at_us // HOUR_US).taker_rate
    leg = _leg(state, at_us, market, taker, lots, quote_atoms, rate, is_resting=False)
    if isinstance(leg, ExpiryReason):
        return leg
    subaccount, asset_id, rounding = taker.subaccount, leg.pays_asset, len(state.orders)
    spare.forget(state, subaccount)
    borrowed = leg.borrowed + rounding if leg.borrowed else 0
    if borrowed:
        reason = margin.borrow_refusal(state, subaccount, asset_id, at_us, borrowed)
        if reason is not None:
            return _EXPIRY[reason]
    if leg.redeemed or borrowed:
        reason = lending.supply_refusal(state, asset_id, at_us, leg.redeemed, borrowed)
        if reason is not None:
            return _EXPIRY[reason]
    if not subaccount.margined and not borrowed:
        return None
    changes = leg._replace(pays=leg.pays + rounding, borrowed=borrowed).changes() if borrowed else leg.changes()
    after = margin.sums(state, subaccount, at_us, changes, is_strict=True)
    if not after.is_unpriced:
        loss = margin.open_order_loss(state, subaccount)
        if not after.notional or after.equity - loss > after.initial:
            return None
    return margin.fill_refusal(state, subaccount, at_us, changes, False)


def settle(state: State, outcome: Outcome, market: Market, taker: Leg, maker: Leg, lots: int) -> None:
    """One fill in one journal transaction: redeem and borrow, trade, fees, repay and lend.   [S-2, S-3]

    Memo: that of any TRADE, then the movements of the pools.
    """
    parameters = market.parameters
    price = maker.order.price_ticks
    quote_atoms = price * lots * parameters.tick_value_atoms
    postings, movements = exchange(state, outcome, taker, maker, LendingSource.SPOT_MARGIN)
    _unlock(maker)

    trade_id = market.next_trade_id
    memo: tuple[Any, ...] = (
        parameters.market_id,
        trade_id,
        price,
        lots,
        taker.order.order_id,
        maker.order.order_id,
        taker.subaccount.subaccount_id,
        maker.subaccount.subaccount_id,
        int(taker.order.side),
        taker.fee_asset,
        taker.fee,
        maker.fee_asset,
        maker.fee,
    )
    if movements:
        memo = (*memo, movements)
    post(state, outcome, JournalKind.TRADE, memo, postings)

    quote = parameters.quote_asset_id
    usd = volume_usd(quote_atoms, mark_price(state, quote), 10 ** state.assets[quote].decimals)
    hour = outcome.at_us // HOUR_US
    for leg in (taker, maker):
        add_volume(leg.subaccount.user, hour, usd)
        leg.order.executed_quote_atoms += quote_atoms
    taker.order.executed_lots += lots
    market.next_trade_id = trade_id + 1
    market.last_price_ticks = price
    outcome.events.append(
        Trade(
            parameters.market_id,
            trade_id,
            price,
            lots,
            quote_atoms,
            taker.order.view(),
            maker.order.view(),
            taker.fee_asset,
            taker.fee,
            maker.fee_asset,
            maker.fee,
        )
    )


def exchange(
    state: State, outcome: Outcome, taker: Leg, maker: Leg, source: LendingSource
) -> tuple[list[Posting], tuple[Any, ...]]:
    """What both sides draw, pay, get and put away, as postings; and the memos of the pools' movements.   [S-2, S-3]"""
    into = lending.Movements()
    for leg in (taker, maker):
        _draw(state, outcome, into, leg, source)
    postings = into.postings
    for leg in (taker, maker):
        account = available(leg.subaccount.subaccount_id)
        postings += ((account, leg.pays_asset, leg.pays), (account, leg.gets_asset, -leg.gets))
        _add_fee(state, postings, leg)
    for leg in (taker, maker):
        _put(state, outcome, into, leg)
    return merged(postings), tuple(into.memos)


def spend(state: State, order: Order, lots: int) -> tuple[AssetId, int]:
    """(asset, atoms) that `lots` of a resting order lock, or promise when it spends at its fills.   [S-1, M-1]"""
    parameters = order.market.parameters
    is_bid = order.side is _BID
    asset = parameters.quote_asset_id if is_bid else parameters.base_asset_id
    numbers = (is_bid, order.price_ticks, lots, parameters.tick_value_atoms, parameters.lot_atoms)
    if order.flags & SPENDS_AT_FILL:
        return asset, promised_atoms(*numbers, promise_rate(state))
    return asset, locked_atoms(*numbers)


def promise_rate(state: State) -> int:
    """The fee rate that promises reckon with: the highest there is, so that a change of tier moves none.   [M-1]"""
    return state.fees.spot[0].taker_rate


def _leg(
    state: State,
    at_us: int,
    market: Market,
    order: Order,
    lots: int,
    quote_atoms: int,
    fee_rate: int,
    is_resting: bool,
) -> Leg | ExpiryReason:
    parameters = market.parameters
    base, quote = parameters.base_asset_id, parameters.quote_asset_id
    base_atoms = lots * parameters.lot_atoms
    subaccount, flags = order.subaccount, order.flags
    buys = order.side is _BID
    pays_asset, gets_asset = (quote, base) if buys else (base, quote)
    owed = lending.debt(state, subaccount, gets_asset, at_us) if flags & AUTO_BORROW_REPAY else 0

    unlocked = 0
    locked = 0
    if is_resting:
        left = order.lots - order.executed_lots
        unlocked = spend(state, order, left)[1] - spend(state, order, left - lots)[1]
        locked = 0 if flags & SPENDS_AT_FILL else unlocked
    free = state.free(subaccount.subaccount_id, pays_asset) + locked
    claim = lending.claim(state, subaccount, pays_asset, at_us) if pays_asset in subaccount.lent else 0

    # What repays a debt pays its fee in quote, so that buying 1 repays 1; a seller's fee is in quote anyway.   [S-3]
    fee_in_quote = fee_atoms(quote_atoms, fee_rate)
    pays, gets = (quote_atoms, base_atoms) if buys else (base_atoms, quote_atoms - fee_in_quote)
    fee_asset, fee = quote, fee_in_quote
    if buys:
        room = free + claim if flags & AUTO_LEND_REDEEM else free
        if not is_resting and order.price_ticks and not flags & SPENDS_AT_FILL:
            # What is left of a taker may rest, and is going to lock its spend.   [S-1]
            room -= spend(state, order, order.lots - order.executed_lots - lots)[1]
        if owed and (flags & AUTO_BORROW or quote_atoms + fee_in_quote <= room):
            pays += fee_in_quote
        else:
            fee_asset, fee = base, fee_atoms(base_atoms, fee_rate)
            gets -= fee

    missing = max(0, pays - free)
    redeemed = borrowed = 0
    if missing:
        if flags & AUTO_LEND_REDEEM and claim:
            redeemed = lending.redemption(state, subaccount, pays_asset, at_us, missing)
        borrowed = max(0, missing - redeemed)
        if borrowed and not flags & AUTO_BORROW:
            return ExpiryReason.INSUFFICIENT_FUNDS
        if borrowed and claim > redeemed:
            return ExpiryReason.BORROW_REQUIRES_LEND_REDEEM
    repaid = min(owed, gets)
    lent = min(gets - repaid, lending.lend_room(state, gets_asset, at_us)) if flags & AUTO_LEND else 0
    return Leg(
        order, pays_asset, pays, redeemed, borrowed, unlocked, gets_asset, gets, repaid, lent, fee_asset, fee, fee_rate
    )


def _refusal(
    state: State, at_us: int, market: Market, price: int, lots: int, leg: Leg, other: Leg, is_maker: bool
) -> ExpiryReason | None:
    order, subaccount = leg.order, leg.order.subaccount
    if leg.borrowed:
        reason = margin.borrow_refusal(state, subaccount, leg.pays_asset, at_us, leg.borrowed)
        if reason is not None:
            return _EXPIRY[reason]
    if leg.redeemed or leg.borrowed:
        # The other side gets what this one pays: what it lends or repays of it counts in the net effect.
        reason = lending.supply_refusal(
            state, leg.pays_asset, at_us, leg.redeemed, leg.borrowed, other.lent, other.repaid
        )
        if reason is not None:
            return _EXPIRY[reason]
    if not subaccount.margined and not leg.borrowed:
        spare.forget(state, subaccount)
        return None
    if spare.can_fill(state, subaccount, at_us, leg.pays_asset, leg.pays, leg.gets_asset, leg.gets):
        return None
    filled_loss = 0
    if is_maker:
        left = order.lots - order.executed_lots
        filled_loss = margin.order_loss(state, order, left)
        if filled_loss:
            filled_loss -= margin.order_loss(state, order, left - lots)
    changes = leg.changes()
    after = margin.sums(state, subaccount, at_us, changes, is_strict=True)
    spare.forget(state, subaccount)
    if not after.is_exposed or not after.is_unpriced:
        loss = margin.open_order_loss(state, subaccount) - filled_loss
        if not after.notional or after.equity - loss > after.initial:
            spare.remember(state, subaccount, at_us, after, loss, leg.pays_asset)
            return None
    is_better = margin.is_better_than_mark(
        state, market.parameters.market_id, order.side is _BID, price, leg.fee_rate
    )
    return margin.fill_refusal(state, subaccount, at_us, changes, is_better)


def _draw(state: State, outcome: Outcome, into: lending.Movements, leg: Leg, source: LendingSource) -> None:
    order_id = leg.order.order_id
    if leg.redeemed:
        lending.redeem(state, outcome, into, leg.subaccount, leg.pays_asset, leg.redeemed, source, order_id)
    if leg.borrowed:
        lending.borrow(state, outcome, into, leg.subaccount, leg.pays_asset, leg.borrowed, source, order_id)


def _put(state: State, outcome: Outcome, into: lending.Movements, leg: Leg) -> None:
    order_id = leg.order.order_id
    if leg.repaid:
        source = LendingSource.AUTO_BORROW_REPAY
        lending.repay(state, outcome, into, leg.subaccount, leg.gets_asset, leg.repaid, source, order_id)
    if leg.lent:
        source = LendingSource.AUTO_LEND
        lending.lend(state, outcome, into, leg.subaccount, leg.gets_asset, leg.lent, source, order_id)


def _unlock(maker: Leg) -> None:
    subaccount = maker.subaccount
    book = subaccount.promised if maker.order.flags & SPENDS_AT_FILL else subaccount.reserved
    left = book[maker.pays_asset] - maker.unlocked
    assert left >= 0, f"order {maker.order.order_id}: {maker.unlocked} of asset {maker.pays_asset} unlocked"
    if left:
        book[maker.pays_asset] = left
    else:
        del book[maker.pays_asset]
        subaccount.judge_by_margin()


def _add_fee(state: State, postings: list[Posting], leg: Leg) -> None:
    if not leg.fee:
        return
    insured = insurance_atoms(leg.fee, state.fees.insurance_share)
    postings.append((FEE_INCOME, leg.fee_asset, insured - leg.fee))
    postings.append((INSURANCE_FUND, leg.fee_asset, -insured))
