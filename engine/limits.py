"""Questions about what would be accepted now: the largest order, loan and withdrawal, and what an order would do.

Each answer comes from the very check that the command meets, so one step more would be refused. Nothing changes.
[M-11, M-13]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine import clearing, lending, loans, margin, orders, outflows, owed, perpetuals
from engine.commands import OrderType, PlaceOrder, Side
from engine.formulas.fees import fee_atoms
from engine.formulas.prices import mark_quantum
from engine.matching import NO_LIMIT
from engine.parameters import BookState, LendingState
from engine.pricing import is_cancel_only, mark_price
from engine.rejections import Rejection, RejectReason
from engine.state import Market, State, Subaccount
from ledger.amounts import INT64_MAX
from ledger.chart import AssetId, contracts, is_of_market, market_of

HIGHEST_FACTOR = 1_000
"""An estimated liquidation price is looked for up to this many times the mark."""


class Preview(NamedTuple):
    """What an order would do: the account now, with the order resting, and with the order filled.   [M-13]"""

    refusal: Rejection | None
    before: margin.Sums
    resting: margin.Sums
    filled: margin.Sums
    liquidation_price: int
    """Estimated, of the base asset (a perpetual's: its own) once filled, in PRICE_SCALE; 0: no price alone does it."""


def max_borrow(state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int) -> int:
    """The most that BorrowLend would lend out now, in atoms, a multiple of the asset's step.   [M-11, B-8]"""
    if asset_id not in state.pools or subaccount.auto_lend:
        return 0
    if lending.lending_parameters(state, asset_id).state is LendingState.CLOSED:
        return 0
    _forget_answers(state)
    step = state.assets[asset_id].step_atoms

    def is_accepted(steps: int) -> bool:
        return _passes(lambda: loans.require_borrowing(state, subaccount, asset_id, at_us, steps * step))

    # Whatever is redeemed or borrowed comes out of what is idle.   [B-14]
    return step * _largest(is_accepted, _idle(state, asset_id, at_us) // step)


def max_withdrawal(state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int, may_borrow: bool) -> int:
    """The most that could leave now, in atoms; what chains can pay is another question.   [M-11, M-12, S-5]"""
    if asset_id not in state.assets or subaccount.frozen_withdrawals or asset_id in state.stopped_withdrawals:
        return 0
    _forget_answers(state)

    def is_accepted(atoms: int) -> bool:
        return _passes(lambda: outflows.plan(state, subaccount, asset_id, at_us, atoms, may_borrow, False))

    free = state.withdrawable(subaccount.subaccount_id, asset_id)
    return _largest(is_accepted, min(INT64_MAX, free + _idle(state, asset_id, at_us)))


def max_order(state: State, command: PlaceOrder, at_us: int) -> int:
    """The most lots that this order could be placed with now; its own lots are not looked at.   [M-11, S-6]"""
    market, subaccount = state.markets[command.market_id], state.subaccounts[command.subaccount_id]
    parameters = market.parameters
    _forget_answers(state)

    def is_accepted(lots: int) -> bool:
        return _passes(lambda: _require_order(state, market, subaccount, _with_lots(command, lots), at_us))

    # Below the smallest order nothing is accepted, above it less is accepted the more it is.
    if not is_accepted(parameters.min_lots):
        return 0
    return parameters.min_lots + _largest(
        lambda more: is_accepted(parameters.min_lots + more), parameters.max_lots - parameters.min_lots
    )


def preview(state: State, command: PlaceOrder, at_us: int) -> Preview:
    """What an order would do to the account, without sequencing anything; filled as a taker, fee included.   [M-13]"""
    market, subaccount = state.markets[command.market_id], state.subaccounts[command.subaccount_id]
    _forget_answers(state)
    refusal = None
    try:
        _require_order(state, market, subaccount, command, at_us)
    except Rejection as rejection:
        refusal = rejection
    tick_value = market.parameters.tick_value_atoms
    price = command.price_ticks or _expected_price(market, command.side)
    quote_atoms = command.quote_atoms or command.lots * price * tick_value
    lots = command.lots or (quote_atoms // (price * tick_value) if price else 0)
    as_order = _as_position if market.parameters.perpetual is not None else _as_trade
    resting, filled = as_order(state, market, subaccount, command, lots, quote_atoms, at_us)
    return Preview(
        refusal,
        margin.sums(state, subaccount, at_us),
        margin.sums(state, subaccount, at_us, resting),
        margin.sums(state, subaccount, at_us, filled),
        liquidation_price(state, subaccount, priced_by(market), at_us, filled),
    )


def priced_by(market: Market) -> AssetId:
    """Whose price liquidates what this market trades: the perpetual's own, or the base asset's.   [M-6]"""
    parameters = market.parameters
    return parameters.base_asset_id if parameters.perpetual is None else contracts(parameters.market_id)


def liquidation_price(
    state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int, changes: margin.Changes = margin.NO_CHANGES
) -> int:
    """The mark of this asset, or of this perpetual (by its contracts), alone at which the account would be liquidated,
    in PRICE_SCALE; 0 for none. A perpetual's is on the grid of its marks.   [M-6, P-2]
    """
    is_perpetual = is_of_market(asset_id)
    if is_perpetual:
        market = state.markets[market_of(asset_id)]
        unit, mark = mark_quantum(market.parameters), market.mark
    else:
        unit, mark = 1, mark_price(state, asset_id)
    if not mark:
        return 0
    now = mark // unit

    def is_liquidated(units: int) -> bool:
        marks = {**state.marks, asset_id: units * unit}
        found = margin.sums(state, subaccount, at_us, changes, marks=marks)
        return found.equity < 0 or (found.maintenance > 0 and found.maintenance >= found.equity)

    if is_liquidated(now):
        return mark
    lots = _lots_after(subaccount, asset_id, changes) if is_perpetual else 0
    found = 0
    if lots <= 0 and is_liquidated(now * HIGHEST_FACTOR):
        # Owed or short: what is still safe above the mark ends one below the answer. A long one is not asked for it:
        # its maintenance grows faster than its worth at some height, but not from here.
        found = now + 1 + _largest(lambda more: not is_liquidated(now + more), now * (HIGHEST_FACTOR - 1))
    elif lots >= 0 and is_liquidated(1):
        found = now - 1 - _largest(lambda less: not is_liquidated(now - less), now - 1)
    return found * unit


def _lots_after(subaccount: Subaccount, asset_id: AssetId, changes: margin.Changes) -> int:
    held = subaccount.positions.get(market_of(asset_id))
    change = changes.get(asset_id)
    return (0 if held is None else held.lots) + (0 if change is None else change[0])


def _as_trade(
    state: State, market: Market, subaccount: Subaccount, command: PlaceOrder, lots: int, quote_atoms: int, at_us: int
) -> tuple[margin.Changes, margin.Changes]:
    """A spot order resting, and filled."""
    parameters = market.parameters
    buys = command.side is Side.BID
    base, quote = parameters.base_asset_id, parameters.quote_asset_id
    pays, gets = (quote, base) if buys else (base, quote)
    paid, got = (quote_atoms, lots * parameters.lot_atoms) if buys else (lots * parameters.lot_atoms, quote_atoms)
    rate = state.fees.spot[subaccount.user.spot_tier].taker_rate
    owing = lending.debt(state, subaccount, gets, at_us) if command.auto_borrow_repay else 0
    # As fills do it: what repays a debt pays its fee in quote.   [S-3]
    fee_on_top = fee_atoms(quote_atoms, rate) if buys and owing else 0
    got -= 0 if fee_on_top else fee_atoms(got, rate)
    filled = _filled(state, subaccount, at_us, pays, paid + fee_on_top, gets, got, min(owing, got))
    return {pays: (0, 0, 0, paid)}, filled


def _as_position(
    state: State, market: Market, subaccount: Subaccount, command: PlaceOrder, lots: int, quote_atoms: int, at_us: int
) -> tuple[margin.Changes, margin.Changes]:
    """An order for a perpetual resting, and filled: a reduce-only one counts nothing and closes what is there.

    [M-1, C-5, S-7]
    """
    market_id, parameters = market.parameters.market_id, market.parameters
    buys = command.side is Side.BID
    resting: margin.Changes = {contracts(market_id): (0, 0, lots, 0) if buys else (0, 0, 0, lots)}
    if command.reduce_only:
        resting = margin.NO_CHANGES
        held = subaccount.positions.get(market_id)
        size = 0 if held is None else held.lots
        closed = min(lots, max(0, -size if buys else size))
        quote_atoms = quote_atoms * closed // lots if lots else 0
        lots = closed
    signed = lots if buys else -lots
    gained = market.settled * signed - (quote_atoms if buys else -quote_atoms)
    fee = fee_atoms(quote_atoms, state.fees.futures[subaccount.user.futures_tier].taker_rate)
    found = owed.plan(state, subaccount, at_us, fee)
    filled: dict[AssetId, margin.Change] = {contracts(market_id): (signed, gained, 0, 0)}
    margin.add(filled, parameters.quote_asset_id, found.borrowed + found.redeemed - fee, -found.redeemed,
               found.borrowed, 0)
    return resting, filled


def _idle(state: State, asset_id: AssetId, at_us: int) -> int:
    pool = state.pools.get(asset_id)
    return 0 if pool is None else max(0, lending.totals(state, pool, at_us).idle)


def _forget_answers(state: State) -> None:
    """A pool's utilization is tested once a command, and the next command is not the last one.   [B-7]"""
    for pool in state.pools.values():
        pool.open_at = 0


def _largest(is_accepted: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that is accepted, 0 for none; more is never accepted when less is not.

    Halving: the closer `most`, the fewer questions. They are asked between commands, so everybody waits for them.
    """
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        if is_accepted(middle):
            low = middle
        else:
            high = middle
    return low


def _passes(check: Callable[[], object]) -> bool:
    try:
        check()
    except Rejection:
        return False
    return True


def _require_order(state: State, market: Market, subaccount: Subaccount, command: PlaceOrder, at_us: int) -> None:
    """The checks that an order meets on its way in, in the same order.   [M-9, S-7]"""
    parameters = market.parameters
    if parameters.state is not BookState.OPEN or command.reduce_only:
        clearing.require_market_takes(command, parameters)
    if is_cancel_only(state, market):
        raise Rejection(RejectReason.CANCEL_ONLY_MODE, market_id=command.market_id)
    clearing.require_well_formed(command, parameters)
    if parameters.perpetual is None:
        clearing.require_flags(subaccount, command, parameters)
    opposite = market.book.asks if command.side is Side.BID else market.book.bids
    if command.order_type is OrderType.LIMIT:
        clearing.require_inside_limit_band(state, market, command.price_ticks)
        if parameters.perpetual is not None:
            perpetuals.require_order(state, subaccount, market, command, command.lots, command.price_ticks, at_us)
            return
        if command.side is Side.BID:
            atoms = command.lots * command.price_ticks * parameters.tick_value_atoms
            spend = clearing.Spend(parameters.quote_asset_id, atoms, command.price_ticks, command.lots)
        else:
            atoms = command.lots * parameters.lot_atoms
            spend = clearing.Spend(parameters.base_asset_id, atoms, command.price_ticks, command.lots)
        clearing.require_spend(state, subaccount, market, command, spend, at_us)
    elif opposite.heap:
        orders.prepare(state, subaccount, market, command, opposite, NO_LIMIT, at_us)


def _with_lots(command: PlaceOrder, lots: int) -> PlaceOrder:
    return PlaceOrder(
        command.subaccount_id,
        command.market_id,
        command.side,
        command.order_type,
        command.time_in_force,
        command.price_ticks,
        lots,
        reduce_only=command.reduce_only,
        auto_lend=command.auto_lend,
        auto_lend_redeem=command.auto_lend_redeem,
        auto_borrow=command.auto_borrow,
        auto_borrow_repay=command.auto_borrow_repay,
    )


def _expected_price(market: Market, side: Side) -> int:
    ladder = market.book.asks if side is Side.BID else market.book.bids
    best: int = ladder.best_price_ticks()
    return best or market.last_price_ticks


def _filled(
    state: State, subaccount: Subaccount, at_us: int, pays: AssetId, paid: int, gets: AssetId, got: int, repaid: int
) -> dict[AssetId, margin.Change]:
    """The account after the trade: paid from what is free, then lent, then borrowed; `repaid` of what comes in."""
    free = max(0, state.free(subaccount.subaccount_id, pays))
    claim = lending.claim(state, subaccount, pays, at_us)
    from_free = min(free, paid)
    redeemed = min(claim, paid - from_free)
    borrowed = paid - from_free - redeemed
    changes: dict[AssetId, margin.Change] = {}
    margin.add(changes, pays, -from_free, -redeemed, borrowed, 0)
    margin.add(changes, gets, got - repaid, 0, -repaid, 0)
    return changes
