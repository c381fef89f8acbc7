"""The first rungs of the liquidation ladder: orders cancelled, debts netted, and slices sold or bought on the book.

[L-2, L-3]
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from engine import (
    bands,
    conversions,
    insurance,
    lending,
    margin,
    orders,
    owed,
    rfq,
    standings,
    strategies,
    tick,
    virtual,
)
from engine.book import Book
from engine.commands import CancelAllOrders, Origin, Side
from engine.events import LendingSource, LiquidationChanged, Outcome, SettlementMoved
from engine.fees import HOUR_US, spot_rates
from engine.formulas import liquidation as formulas
from engine.formulas.fees import fee_atoms
from engine.formulas.standing import Standing
from engine.parameters import RATE_SCALE, BookState
from engine.posting import post, record
from engine.pricing import is_cancel_only
from engine.standings import Moment
from engine.state import Liquidation, Market, Order, State, Subaccount
from ledger.amounts import mul_div_down
from ledger.chart import INSURANCE_FUND, AssetId, available, contracts
from ledger.journal import JournalKind, Posting

MOST_FILLS = 100
"""A step takes no more makers than this; the rest of its slice waits a second. Or a book full of orders of one lot
would hold up everybody for as long as a slice has lots."""

_TAKING = (BookState.OPEN, BookState.LIMIT_ONLY)
_SOURCE = LendingSource.LIQUIDATION


class Item(NamedTuple):
    """A position or a debt: what a slice is taken of.   [L-3]"""

    asset_id: AssetId
    """`contracts` of the market, or what is owed."""
    market: Market | None
    """Where it is closed or bought back; None: USDC, which other collateral pays."""
    side: Side
    quantity: int
    """Lots, or atoms."""
    notional: int
    maintenance: int

    @property
    def is_position(self) -> bool:
        return self.market is not None and self.asset_id == contracts(self.market.parameters.market_id)


class Slice(NamedTuple):
    """What a step did."""

    taken: int
    """Lots or atoms of the item that are gone."""
    bound_ticks: int
    fills: tuple[tuple[int, int], ...]
    fee: int


# --- L-2 ------------------------------------------------------------------------------------------------------------


def clear(state: State, outcome: Outcome, subaccount: Subaccount) -> None:
    """Cancel what is open, waits or is scheduled; pay debts with what is held and lent of the same asset.   [L-2]"""
    number = subaccount.subaccount_id
    if subaccount.strategies:
        strategies.terminate(state, outcome, subaccount, "Liquidation")
    if subaccount.rfqs:
        rfq.end_all(state, outcome, subaccount)
    count = len(subaccount.orders) + len(subaccount.waiting)
    if count:
        before = standings.figures(state, subaccount, outcome.at_us)
        orders.cancel_all(state, CancelAllOrders(number), outcome)
        after = standings.figures(state, subaccount, outcome.at_us)
        tell(outcome, number, "cancelled_orders", before, after, quantity=count)
    for asset_id in sorted(subaccount.debts):
        _net(state, outcome, subaccount, asset_id)


def _net(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId) -> None:
    """What is redeemed for it goes back into the pool at once, so neither idle nor the throttle is asked.   [L-2]"""
    number, at_us = subaccount.subaccount_id, outcome.at_us
    free = max(0, state.free(number, asset_id))
    if asset_id == state.usdc:
        # Negative unsettled equity is paid first.   [S-13]
        free = max(0, free - max(0, -subaccount.unsettled))
    owing = lending.debt(state, subaccount, asset_id, at_us)
    missing = owing - free
    into, redeemed = lending.Movements(), 0
    if missing > 0 and asset_id in subaccount.lent:
        redeemed = lending.redemption(state, subaccount, asset_id, at_us, missing)
    atoms = min(owing, free + redeemed)
    if atoms <= 0:
        return
    before = standings.figures(state, subaccount, at_us)
    standings.put(state, outcome, subaccount, JournalKind.NETTED, Moment.BEFORE)
    if redeemed:
        lending.redeem(state, outcome, into, subaccount, asset_id, redeemed, _SOURCE)
    lending.repay(state, outcome, into, subaccount, asset_id, atoms, _SOURCE)
    mark = margin.line(state, asset_id)[0]
    entry = insurance.posted(state, outcome, JournalKind.NETTED, into.postings)
    standings.put(state, outcome, subaccount, JournalKind.NETTED, Moment.AFTER)
    after = standings.figures(state, subaccount, at_us)
    entry.memo = (number, asset_id, atoms, redeemed, mark, *before, *after, tuple(into.memos))
    tell(outcome, number, "netted", before, after, asset_id=asset_id, quantity=-atoms, price=mark, mark=mark)


# --- L-3 ------------------------------------------------------------------------------------------------------------


def take_slice(state: State, outcome: Outcome, subaccount: Subaccount) -> bool:
    """One slice of the first item that the book takes anything of; whether it took anything.   [L-3]

    First the largest maintenance margin per notional, then notional, then id. Stops as soon as the account is cured.
    """
    number, at_us = subaccount.subaccount_id, outcome.at_us
    liquidation = state.liquidations[number]
    filled = False
    for item in items(state, subaccount, at_us):
        before, image_before = standings.figures(state, subaccount, at_us), standings.image(state, subaccount, at_us)
        wanted = _slice_of(state, liquidation, item)
        if item.market is None:
            done = _pay_debt(state, outcome, subaccount, item, wanted)
        elif item.is_position:
            done = _close(state, outcome, subaccount, item, item.market, wanted)
        else:
            done = _buy_back(state, outcome, subaccount, item, item.market, wanted)
            failed = liquidation.failed_buys
            failed[item.asset_id] = 0 if done.taken else failed.get(item.asset_id, 0) + 1
        after = standings.figures(state, subaccount, at_us)
        memo = (number, item.asset_id, done.taken, done.bound_ticks, done.fills, done.fee)
        image_after = standings.image(state, subaccount, at_us)
        record(outcome, JournalKind.LIQUIDATION_STEP, (*memo, *before, image_before, *after, image_after))
        _tell_slice(state, outcome, number, item, done, before, after)
        filled = filled or done.taken > 0
        if filled:
            break
    liquidation.unfilled_ticks = 0 if filled else liquidation.unfilled_ticks + 1
    return filled


def items(state: State, subaccount: Subaccount, at_us: int) -> list[Item]:
    """Positions and debts, in the order in which slices are taken of them.   [L-3]"""
    found = []
    for line in margin.position_lines(state, subaccount, at_us):
        held = line.position
        if held.lots:
            side = Side.ASK if held.lots > 0 else Side.BID
            asset_id = contracts(held.market.parameters.market_id)
            found.append(Item(asset_id, held.market, side, abs(held.lots), line.notional, line.maintenance))
    markets = conversions.spot_markets(state)
    for holding in margin.holdings(state, subaccount, at_us):
        asset_id = holding.asset_id
        if asset_id in subaccount.debts:
            atoms = lending.debt(state, subaccount, asset_id, at_us)
            market = None if asset_id == state.usdc else markets.get(asset_id)
            if market is not None or asset_id == state.usdc:
                found.append(Item(asset_id, market, Side.BID, atoms, holding.liability, holding.maintenance))
    return sorted(found, key=lambda item: (-Fraction(item.maintenance, max(1, item.notional)), -item.notional,
                                           item.asset_id))  # fmt: skip


def is_cured(state: State, subaccount: Subaccount, at_us: int) -> bool:
    """MMR under 95 % (parameter), or no exposure; and equity that is not below zero.   [L-3]"""
    sums = margin.sums(state, subaccount, at_us)
    stop = state.limits.risk.liquidation_stop
    return sums.equity >= 0 and (not sums.is_short or sums.maintenance * RATE_SCALE < sums.equity * stop)


def _slice_of(state: State, liquidation: Liquidation, item: Item) -> int:
    """10 % of what there was when it was first seen, up; all of it when less than 100 USD would be left.   [L-3]"""
    risk = state.limits.risk
    share = liquidation.step_atoms.get(item.asset_id)
    if share is None:
        share = -(-item.quantity * risk.liquidation_step // RATE_SCALE)
        liquidation.step_atoms[item.asset_id] = share
    if item.is_position and item.market is not None:
        share = max(share, item.market.parameters.min_lots)
    rest = item.quantity - share
    is_small = rest * item.notional < risk.liquidation_small_usd * item.quantity
    return item.quantity if rest <= 0 or is_small else share


def _close(
    state: State, outcome: Outcome, subaccount: Subaccount, item: Item, market: Market, lots: int
) -> Slice:
    """Close lots of a position, maker by maker; after each the fee is paid and it is judged again.   [L-3, P-14]"""
    at_us, tick_value = outcome.at_us, market.parameters.tick_value_atoms
    fills: list[tuple[int, int]] = []
    fees = 0
    bound = _bound(state, market, item.side)
    while bound and lots and len(fills) < MOST_FILLS and not is_cured(state, subaccount, at_us):
        maker = _best(market, item.side, bound)
        if maker is None:
            break
        part = min(lots, maker.lots - maker.executed_lots)
        signed = part if item.side is Side.BID else -part
        gained = (market.settled - maker.price_ticks * tick_value) * signed
        if _raises_risk(state, subaccount, at_us, {item.asset_id: (signed, gained, 0, 0)}):
            break
        before = margin.sums(state, subaccount, at_us)
        done = _place(state, outcome, subaccount, market, item.side, part, maker.price_ticks)
        if done.executed_lots:
            fills.append((maker.price_ticks, done.executed_lots))
            lots -= done.executed_lots
            fees += _charge(state, outcome, subaccount, item, done.executed_quote_atoms, before)
        elif _best(market, item.side, bound) is maker:
            break
    return Slice(sum(part for _price, part in fills), bound, tuple(fills), fees)


def _buy_back(
    state: State, outcome: Outcome, subaccount: Subaccount, item: Item, market: Market, atoms: int
) -> Slice:
    """Buy what is owed for USDC, which S-12 finds, and repay it.   [L-3, S-12]"""
    at_us, number, parameters = outcome.at_us, subaccount.subaccount_id, market.parameters
    fills: list[tuple[int, int]] = []
    fees = 0
    bound = _bound(state, market, item.side)
    rate = spot_rates(state, subaccount.user, at_us // HOUR_US).taker_rate
    lots = max(_lots_for(atoms, parameters.lot_atoms, rate), parameters.min_lots)
    while bound and lots and len(fills) < MOST_FILLS and not is_cured(state, subaccount, at_us):
        maker = _best(market, item.side, bound)
        if maker is None:
            break
        price = maker.price_ticks * parameters.tick_value_atoms
        part = min(lots, maker.lots - maker.executed_lots)
        part = min(part, fund(state, outcome, subaccount, part * price) // price)
        bought = part * parameters.lot_atoms - fee_atoms(part * parameters.lot_atoms, rate)
        repaid = min(bought, lending.debt(state, subaccount, item.asset_id, at_us))
        changes = {item.asset_id: (bought - repaid, 0, -repaid, 0), state.usdc: (-part * price, 0, 0, 0)}
        if not part or _raises_risk(state, subaccount, at_us, changes):
            break
        before = margin.sums(state, subaccount, at_us)
        done = _place(state, outcome, subaccount, market, item.side, part, maker.price_ticks)
        if done.executed_lots:
            fills.append((maker.price_ticks, done.executed_lots))
            lots -= done.executed_lots
            _net(state, outcome, subaccount, item.asset_id)
            fees += _charge(state, outcome, subaccount, item, done.executed_quote_atoms, before)
        elif _best(market, item.side, bound) is maker:
            break
    owing = lending.debt(state, subaccount, item.asset_id, at_us)
    assert number in state.liquidations, f"subaccount {number} is not in liquidation"
    return Slice(item.quantity - owing, bound, tuple(fills), fees)


def _pay_debt(state: State, outcome: Outcome, subaccount: Subaccount, item: Item, atoms: int) -> Slice:
    """Pay a debt of USDC from claims and other collateral.   [S-12 (2), (4)]"""
    before = margin.sums(state, subaccount, outcome.at_us)
    fund(state, outcome, subaccount, atoms)
    _net(state, outcome, subaccount, item.asset_id)
    owing = lending.debt(state, subaccount, item.asset_id, outcome.at_us)
    paid = max(0, item.quantity - owing)
    fee = _charge(state, outcome, subaccount, item, paid, before) if paid else 0
    return Slice(paid, 0, (), fee)


def fund(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int) -> int:
    """Have `atoms` of USDC available, by S-12 without a loan; gives how much of it there is.   [S-12, L-3]"""
    number, usdc = subaccount.subaccount_id, state.usdc
    missing = atoms - max(0, state.free(number, usdc))
    if missing > 0:
        found = owed.plan(state, subaccount, outcome.at_us, atoms)._replace(borrowed=0)
        into = lending.Movements()
        owed.take(state, outcome, into, subaccount, found)
        if into.postings:
            lending.post_alone(state, outcome, into)
        missing -= found.redeemed
    if missing > 0 and subaccount.claims:
        missing -= _redeem_claims(state, outcome, subaccount, missing)
    if missing > 0:
        conversions.convert(state, outcome, subaccount, missing)
    if subaccount.unsettled < 0:
        tick.pay_unsettled(state, outcome)
    return min(atoms, max(0, state.free(number, usdc)))


def _redeem_claims(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int) -> int:
    into = lending.Movements()
    taken = virtual.redeem(state, outcome, into, subaccount, atoms)
    if into.postings:
        number = subaccount.subaccount_id
        post(state, outcome, JournalKind.CLAIM_CONVERTED, (number, 0, taken, taken, 0, 0), into.postings)
    return taken


def _bound(state: State, market: Market, side: Side) -> int:
    """The worst price in ticks, 0 where the market takes nothing or nobody stands opposite.   [P-14, S-7]"""
    if market.parameters.state not in _TAKING or is_cancel_only(state, market):
        return 0
    return bands.liquidation_bound(state, market, side) or 0


def _best(market: Market, side: Side, bound: int) -> Order | None:
    """The maker that the next fill meets, None beyond the bound."""
    book: Book = market.book
    opposite = book.asks if side is Side.BID else book.bids
    price = opposite.best_price_ticks()
    if not price or (price > bound if side is Side.BID else price < bound):
        return None
    return opposite.levels[price].first


def _place(
    state: State, outcome: Outcome, subaccount: Subaccount, market: Market, side: Side, lots: int, ticks: int
) -> Order:
    is_perpetual = market.parameters.perpetual is not None
    return orders.place_by_rule(
        state, outcome, subaccount, market, side, lots, ticks, Origin.LIQUIDATION, is_perpetual
    )


def _raises_risk(state: State, subaccount: Subaccount, at_us: int, changes: margin.Changes) -> bool:
    """Whether a fill would raise the MMR: then it is left to the backstop. No step increases risk.   [L-3, M-9]

    Where the haircuts leave no net equity, E is what the maintenance margin is measured by.
    """
    before, after = margin.sums(state, subaccount, at_us), margin.sums(state, subaccount, at_us, changes)
    base = before.equity if before.equity > 0 else margin.realizable(state, subaccount, at_us)
    left = base + after.equity - before.equity
    return left * before.maintenance < base * after.maintenance


def _charge(
    state: State, outcome: Outcome, subaccount: Subaccount, item: Item, quote_atoms: int, before: margin.Sums
) -> int:
    """min(1 %, ½ × the item's MMF) of a fill to the insurance fund, up; what was paid.   [L-3]

    Capped so that E stays ≥ 0 and the MMR is not above what it was before the fill.
    """
    usdc, number = state.usdc, subaccount.subaccount_id
    rate = formulas.fee_rate(item.maintenance, item.notional, state.limits.risk.liquidation_fee)
    fee = _bearable(state, subaccount, outcome.at_us, before, fee_atoms(quote_atoms, rate))
    if fee > 0:
        fee = _bearable(state, subaccount, outcome.at_us, before, fund(state, outcome, subaccount, fee))
    if fee <= 0:
        return 0
    postings: list[Posting] = [(available(number), usdc, fee), (INSURANCE_FUND, usdc, -fee)]
    post(state, outcome, JournalKind.LIQUIDATION_FEE, (number, item.asset_id, quote_atoms, rate, fee), postings)
    outcome.events.append(SettlementMoved(number, "liquidation", -fee))
    return fee


def _bearable(state: State, subaccount: Subaccount, at_us: int, before: margin.Sums, fee: int) -> int:
    """How much of a fee E, and the MMR before the fill, let pass, in USDC atoms.   [L-3]

    Where losses are not covered by USDC, paying a fee is exposure too: MM grows with it, the more the larger it is.
    """
    usd, unit, _in_usd, *_rest = margin.line(state, state.usdc)
    most = margin.realizable(state, subaccount, at_us)
    if before.equity > 0:
        after = margin.sums(state, subaccount, at_us)
        paid = margin.sums(state, subaccount, at_us, {state.usdc: (-fee, 0, 0, 0)})
        grown = paid.maintenance - after.maintenance
        spare = formulas.spare_usd(before.equity, before.maintenance, after.equity, after.maintenance)
        cost = max(1, after.equity - paid.equity)
        part = before.maintenance * cost
        most = min(most, mul_div_down(spare, part, max(1, part + before.equity * grown)))
    return min(fee, formulas.quote_atoms_down(max(0, most), unit, usd))


def _lots_for(atoms: int, lot_atoms: int, fee_rate: int) -> int:
    """The fewest lots that bring `atoms` when their fee, in the same asset, is paid.   [L-3]"""
    lots = -(-atoms * RATE_SCALE // (lot_atoms * (RATE_SCALE - fee_rate)))
    while lots * lot_atoms - fee_atoms(lots * lot_atoms, fee_rate) < atoms:
        lots += 1
    return lots


# --- what is told ---------------------------------------------------------------------------------------------------


def tell(
    outcome: Outcome,
    number: int,
    stage: str,
    before: Standing,
    after: Standing,
    *,
    market_id: int = 0,
    asset_id: AssetId = 0,
    quantity: int = 0,
    price: int = 0,
    mark: int = 0,
    fee: int = 0,
) -> None:
    """One LiquidationChanged.   [L-10]"""
    outcome.events.append(
        LiquidationChanged(
            number,
            stage,
            before.equity,
            before.maintenance,
            before.notional,
            market_id,
            asset_id,
            quantity,
            price,
            mark,
            fee,
            after.equity,
            after.maintenance,
        )
    )


def _tell_slice(
    state: State, outcome: Outcome, number: int, item: Item, done: Slice, before: Standing, after: Standing
) -> None:
    """With the average price of the fills, rounded down.   [L-10]"""
    lots = sum(part for _ticks, part in done.fills)
    price = 0
    if item.market is not None and lots:
        paid = sum(ticks * part for ticks, part in done.fills)
        price = paid * item.market.parameters.tick_price // lots
    if item.is_position and item.market is not None:
        market_id, asset_id, mark = item.market.parameters.market_id, 0, item.market.mark
    else:
        market_id, asset_id, mark = 0, item.asset_id, margin.line(state, item.asset_id)[0]
    signed = done.taken if item.is_position and item.side is Side.BID else -done.taken
    tell(
        outcome,
        number,
        "book",
        before,
        after,
        market_id=market_id,
        asset_id=asset_id,
        quantity=signed,
        price=price,
        mark=mark,
        fee=done.fee,
    )
