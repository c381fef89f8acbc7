"""ADL: positions that nobody took are closed against the opposing ones that profit most.   [L-6]

Memo of an ADL transaction: market, subaccount, counterparty, signed lots of the subaccount, price and mark in quote
atoms per lot, the market's last settled mark, 1 where nobody was skipped (a close at mark), E and Σ maintenance frozen
at the start, then net equity, maintenance margin and E before and after, in USD (1e-8).   [L-10]
"""

from __future__ import annotations

from typing import NamedTuple

from engine import at_mark, insurance, lending, losses, margin, orders, standings
from engine.book import Book, Level
from engine.commands import Origin
from engine.events import BookLevel, LendingSource, LiquidationChanged, OrderModified, Outcome
from engine.formulas.liquidation import Candidate, bankruptcy_price, lacking_atoms, quintile, ranked, slice_of
from engine.formulas.prices import mark_quantum
from engine.insurance import posted
from engine.perpetuals import record_fill
from engine.standings import Moment
from engine.state import REDUCE_ONLY, Market, Order, Position, State, Subaccount
from ledger.chart import AssetId, available, contracts, cost, owner_of, position
from ledger.journal import JournalKind, Posting


class Frozen(NamedTuple):
    """What holds for an account from the moment its ADL starts.   [L-6]"""

    equity: int
    """E, in USD (1e-8)."""
    maintenance: dict[AssetId, int]
    """`contracts` of a market, or an owed asset → its maintenance margin."""
    total: int
    """Σ maintenance over positions and debts."""


class Fill(NamedTuple):
    """What one counterparty took."""

    counterparty: Subaccount
    market: Market
    lots: int


def deleverage(state: State, outcome: Outcome, subaccount: Subaccount) -> bool:
    """Close what nobody took, hand over what nobody bought, share what nobody paid; False: M-6 does not hold.   [L-6]

    Afterwards the account has no position; its debts, if any, are L-7's.
    """
    at_us = outcome.at_us
    found = margin.sums(state, subaccount, at_us)
    if not found.is_in_liquidation and margin.realizable(state, subaccount, at_us) > 0:
        return False
    frozen = freeze(state, subaccount, at_us)
    if any(held.lots for held in subaccount.positions.values()):
        standings.put(state, outcome, subaccount, JournalKind.ADL, Moment.FROZEN)
    fills: list[Fill] = []
    lacking: dict[int, int] = {}
    for market_id in sorted(subaccount.positions):
        held = subaccount.positions[market_id]
        if held.lots:
            lacking[market_id] = _close(state, outcome, held, frozen, fills)
    _hand_over(state, outcome, subaccount, fills)
    for market_id, atoms in lacking.items():
        _cover(state, outcome, subaccount, state.markets[market_id], atoms)
    return True


def freeze(state: State, subaccount: Subaccount, at_us: int) -> Frozen:
    """E and the maintenance margin of each position and debt as they stand now; its sides are kept.   [L-5, L-6]"""
    maintenance = {
        contracts(line.position.market.parameters.market_id): line.maintenance
        for line in margin.position_lines(state, subaccount, at_us)
        if line.position.lots
    }
    for holding in margin.holdings(state, subaccount, at_us):
        if holding.owed and holding.maintenance:
            maintenance[holding.asset_id] = holding.maintenance
    liquidation = state.liquidations.get(subaccount.subaccount_id)
    if liquidation is not None:
        for market_id, held in subaccount.positions.items():
            if held.lots:
                liquidation.sides[market_id] = 1 if held.lots > 0 else -1
    return Frozen(margin.realizable(state, subaccount, at_us), maintenance, sum(maintenance.values()))


def ranking(
    state: State, market: Market, is_long_side: bool, at_us: int, known: dict[int, tuple[int, int]] | None = None
) -> list[Candidate]:
    """The positions of one side, the one that is closed first first. Built when it is needed.   [L-6]

    `known`: (notional, E) of accounts that need not be asked again; whoever is asked is added.
    """
    known = {} if known is None else known
    candidates = []
    for number, held in market.holders.items():
        if held.lots and (held.lots > 0) == is_long_side:
            if number not in known:
                account = held.subaccount
                notional = margin.sums(state, account, at_us).notional
                known[number] = notional, margin.realizable(state, account, at_us)
            candidates.append(_candidate(held, *known[number]))
    return ranked(candidates)


def quantiles(state: State, market: Market, at_us: int) -> dict[int, int]:
    """Subaccount → 1 … 5, its fifth of its side's ranking: 5 is closed first.   [L-6]"""
    found: dict[int, int] = {}
    known: dict[int, tuple[int, int]] = {}
    for is_long_side in (True, False):
        order = ranking(state, market, is_long_side, at_us, known)
        for place, candidate in enumerate(order):
            found[candidate.subaccount_id] = quintile(place, len(order))
    return found


def _candidate(held: Position, notional: int, equity: int) -> Candidate:
    lots = abs(held.lots)
    worth = lots * held.market.mark_lot
    profit = worth - held.entry_atoms if held.lots > 0 else held.entry_atoms - worth
    return Candidate(held.subaccount.subaccount_id, lots, profit, held.entry_atoms, notional, equity)


def _known(outcome: Outcome) -> dict[int, tuple[int, int]]:
    """What this command's rankings found of accounts, but for those that its journal has touched since.

    Marks and time stand still while a command runs, so that nobody else's figures have changed.
    """
    known = outcome.ranked
    for entry in outcome.journal[outcome.ranked_entries :]:
        for account, _asset, _atoms in entry.postings:
            known.pop(owner_of(account), None)
        for batch in entry.batches:
            for owner in batch.owners.tolist():
                known.pop(owner, None)
    outcome.ranked_entries = len(outcome.journal)
    return known


# --- closing --------------------------------------------------------------------------------------------------------


def _close(state: State, outcome: Outcome, held: Position, frozen: Frozen, fills: list[Fill]) -> int:
    """Close one position at its bankruptcy price, then the rest at mark; gives what is lacking (D), in quote atoms.

    Below zero: what rounding the price left over. What is closed at mark keeps its share of a positive E.   [L-6]
    """
    market, subaccount = held.market, held.subaccount
    parameters, whole = market.parameters, held.lots
    mark = market.mark_lot
    usd, unit, *_rest = margin.line(state, parameters.quote_asset_id)
    shared = (frozen.equity, frozen.maintenance[contracts(parameters.market_id)], frozen.total)
    quantum = margin.lot_value(parameters, mark_quantum(parameters))
    price = bankruptcy_price(mark, quantum, *shared, whole, unit, usd)
    order = ranking(state, market, whole < 0, outcome.at_us, _known(outcome))
    for candidate in order:
        if not held.lots:
            break
        counterparty = state.subaccounts[candidate.subaccount_id]
        lots = _takes(state, counterparty, market, abs(held.lots), price, outcome.at_us)
        if lots:
            _fill(state, outcome, held, counterparty, lots, price, frozen, False)
            fills.append(Fill(counterparty, market, lots))
    at_price = abs(whole - held.lots)
    for candidate in order if held.lots else []:
        counterparty = state.subaccounts[candidate.subaccount_id]
        lots = min(abs(held.lots), abs(_lots(counterparty, market)))
        if lots:
            _fill(state, outcome, held, counterparty, lots, mark, frozen, True)
            fills.append(Fill(counterparty, market, lots))
    assert not held.lots, f"subaccount {subaccount.subaccount_id}: {held.lots} lots that no opposing position closes"
    gained = (price - mark) * at_price * (1 if whole > 0 else -1)
    part = abs(whole) if frozen.equity < 0 else at_price
    return lacking_atoms(*shared, part, abs(whole), unit, usd, gained)


def _takes(state: State, counterparty: Subaccount, market: Market, lots: int, price: int, at_us: int) -> int:
    """How many of `lots` a counterparty can close at this price and keep its maintenance; 0 in liquidation.   [L-6]

    Equity falls evenly and maintenance no faster than evenly, so what passes is a stretch from the first lot on.
    """
    if counterparty.subaccount_id in state.liquidations or _would_fall(state, counterparty, market, 0, price, at_us):
        return 0
    most = min(lots, abs(_lots(counterparty, market)))
    if not _would_fall(state, counterparty, market, most, price, at_us):
        return most
    least = 0
    while most - least > 1:
        middle = (least + most) // 2
        if _would_fall(state, counterparty, market, middle, price, at_us):
            most = middle
        else:
            least = middle
    return least


def _would_fall(state: State, counterparty: Subaccount, market: Market, lots: int, price: int, at_us: int) -> bool:
    """Whether closing `lots` would leave a counterparty under its maintenance.   [L-6, M-6]"""
    signed = -lots if _lots(counterparty, market) > 0 else lots
    change = (signed, (market.settled - price) * signed, 0, 0)
    after = margin.sums(state, counterparty, at_us, {contracts(market.parameters.market_id): change})
    return after.is_in_liquidation or after.is_unpriced


def _fill(
    state: State,
    outcome: Outcome,
    held: Position,
    counterparty: Subaccount,
    lots: int,
    price: int,
    frozen: Frozen,
    is_at_mark: bool,
) -> None:
    """One closing against one counterparty: contracts and cost change hands.   [A-2, L-6, L-10]"""
    market, subaccount = held.market, held.subaccount
    parameters, at_us = market.parameters, outcome.at_us
    market_id, number, other = parameters.market_id, subaccount.subaccount_id, counterparty.subaccount_id
    signed = -lots if held.lots > 0 else lots
    gained = (market.settled - price) * signed
    postings: list[Posting] = [
        (position(number), contracts(market_id), -signed * parameters.lot_atoms),
        (position(other), contracts(market_id), signed * parameters.lot_atoms),
    ]
    if gained:
        postings += [(position(number), cost(market_id), -gained), (position(other), cost(market_id), gained)]
    before = insurance.standing(state, subaccount, at_us)
    notional = margin.sums(state, subaccount, at_us).notional
    if subaccount.claims:
        # The fill before has turned part of them into cash.   [V-4]
        standings.put(state, outcome, subaccount, JournalKind.ADL, Moment.BEFORE)
    entry = posted(state, outcome, JournalKind.ADL, postings)
    after = insurance.standing(state, subaccount, at_us)
    entry.memo = (
        market_id,
        number,
        other,
        signed,
        price,
        market.mark_lot,
        market.settled,
        int(is_at_mark),
        frozen.equity,
        frozen.total,
        *before,
        *after,
    )
    record_fill(state, outcome, subaccount, market, signed, price, 0, Origin.ADL)
    record_fill(state, outcome, counterparty, market, -signed, price, 0, Origin.ADL)
    outcome.events.append(
        LiquidationChanged(
            number,
            "adl",
            before[0],
            before[1],
            notional,
            market_id=market_id,
            quantity=signed,
            price=price * parameters.tick_price // parameters.tick_value_atoms,
            mark=market.mark,
            equity_after_usd=after[0],
            maintenance_after_usd=after[1],
            counterparty_id=other,
        )
    )
    _shrink_reducing(state, outcome, counterparty, market)


def _lots(subaccount: Subaccount, market: Market) -> int:
    held = subaccount.positions.get(market.parameters.market_id)
    return held.lots if held is not None else 0


def _shrink_reducing(state: State, outcome: Outcome, subaccount: Subaccount, market: Market) -> None:
    """Reduce-only orders of a counterparty shrink to what is left of its position; without one they end.   [L-6]"""
    held = subaccount.positions.get(market.parameters.market_id)
    if held is None or not held.reducing:
        return
    size = abs(held.lots)
    reducing = [
        order
        for _number, order in sorted(subaccount.orders.items())
        if order.market is market and order.flags & REDUCE_ONLY
    ]
    market_id = market.parameters.market_id
    for order in reducing:
        excess = order.lots - order.executed_lots - size
        if excess <= 0:
            continue
        if size:
            level = _shrink(state, outcome, order, excess)
        else:
            _view, level = orders.withdraw(state, outcome, order)
        outcome.events.append(BookLevel(market_id, order.side, order.price_ticks, level.lots))


def _shrink(state: State, outcome: Outcome, order: Order, lots: int) -> Level:
    """A resting order is over fewer lots now and keeps its place; a reduce-only one locks and counts nothing."""
    book: Book = order.market.book
    level = book.ladder(order.side).levels[order.price_ticks]
    order.lots -= lots
    level.lots -= lots
    margin.note_open(state, order)
    outcome.events.append(OrderModified(order.view()))
    return level


# --- collateral and losses ------------------------------------------------------------------------------------------


def _hand_over(state: State, outcome: Outcome, subaccount: Subaccount, fills: list[Fill]) -> None:
    """Collateral that nobody bought pays what the account owes in USDC: by the insurance fund at mark as far as it has
    USDC, else in kind to those that closed its positions, at mark.   [L-6]
    """
    at_us = outcome.at_us
    for asset_id in _by_order_of_sale(state, subaccount, at_us):
        owes = -insurance.own_usdc(state, subaccount, at_us)
        if owes <= 0:
            return
        _redeem(state, outcome, subaccount, asset_id, owes)
        atoms = min(at_mark.atoms_up(state, asset_id, owes), state.free(subaccount.subaccount_id, asset_id))
        bought = min(atoms, at_mark.atoms_down(state, asset_id, insurance.balance(state)))
        if bought > 0:
            paid = at_mark.usdc_down(state, asset_id, bought)
            insurance.move(state, outcome, subaccount, "collateral", paid, asset_id, bought)
        if atoms > bought:
            _pass_in_kind(state, outcome, subaccount, asset_id, atoms - bought, fills)


def _by_order_of_sale(state: State, subaccount: Subaccount, at_us: int) -> list[AssetId]:
    """What it has beside USDC that has a price: weight descending, then value, then id.   [S-12]"""
    found = insurance.sellable(state, subaccount, at_us)
    worth = {asset_id: at_mark.usdc_down(state, asset_id, atoms) for asset_id, atoms in found.items()}
    return sorted(found, key=lambda asset_id: (-state.assets[asset_id].weight, -worth[asset_id], asset_id))


def _redeem(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, owes: int) -> None:
    """Redeem what is lent of it and needed, as far as idle goes; the throttle does not apply.   [L-2]"""
    missing = at_mark.atoms_up(state, asset_id, owes) - state.free(subaccount.subaccount_id, asset_id)
    if missing <= 0 or asset_id not in subaccount.lent:
        return
    atoms = lending.redemption(state, subaccount, asset_id, outcome.at_us, missing)
    idle = lending.totals(state, state.pools[asset_id], outcome.at_us).idle
    if atoms > idle:
        atoms = lending.redemption(state, subaccount, asset_id, outcome.at_us, idle) if idle > 0 else 0
    if 0 < atoms <= idle:
        into = lending.Movements()
        lending.redeem(state, outcome, into, subaccount, asset_id, atoms, LendingSource.LIQUIDATION)
        lending.post_alone(state, outcome, into)


def _pass_in_kind(
    state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, atoms: int, fills: list[Fill]
) -> None:
    """Collateral passes at mark to those that closed the positions, by lots: it pays part of what they gained.   [L-6]

    A counterparty that its haircut would leave under its maintenance is passed over.
    """
    number, at_us = subaccount.subaccount_id, outcome.at_us
    whole = sum(fill.lots * fill.market.mark_lot for fill in fills)
    left = atoms
    if fills:
        standings.put(state, outcome, subaccount, JournalKind.COLLATERAL_TAKEN, Moment.BEFORE)
    for place, fill in enumerate(fills):
        other = fill.counterparty.subaccount_id
        market_id = fill.market.parameters.market_id
        part = slice_of(atoms, fill.lots * fill.market.mark_lot, whole) if place < len(fills) - 1 else left
        value = at_mark.usdc_down(state, asset_id, part)
        changes = {asset_id: (part, 0, 0, 0), contracts(market_id): (0, -value, 0, 0)}
        if not value or margin.sums(state, fill.counterparty, at_us, changes).is_in_liquidation:
            continue
        left -= part
        postings: list[Posting] = [
            (available(number), asset_id, part),
            (available(other), asset_id, -part),
            (position(number), cost(market_id), -value),
            (position(other), cost(market_id), value),
        ]
        before = insurance.standing(state, subaccount, at_us)
        notional = margin.sums(state, subaccount, at_us).notional
        mark = margin.line(state, asset_id)[0]
        entry = posted(state, outcome, JournalKind.COLLATERAL_TAKEN, postings)
        after = insurance.standing(state, subaccount, at_us)
        entry.memo = (number, "adl", value, asset_id, part, mark, *before, *after, other, market_id)
        outcome.events.append(
            LiquidationChanged(
                number,
                "collateral",
                before[0],
                before[1],
                notional,
                market_id=market_id,
                asset_id=asset_id,
                quantity=-part,
                price=mark,
                mark=mark,
                equity_after_usd=after[0],
                maintenance_after_usd=after[1],
                counterparty_id=other,
            )
        )


def _cover(state: State, outcome: Outcome, subaccount: Subaccount, market: Market, lacking: int) -> None:
    """A loss still left is paid by the insurance fund as far as it can, then by the opposite side; what rounding left
    over goes to the fund.   [L-5, L-6]
    """
    if lacking < 0:
        insurance.receive(state, outcome, subaccount, -lacking, "residue")
        return
    lacking -= insurance.pay(state, outcome, subaccount, lacking, "adl")
    liquidation = state.liquidations.get(subaccount.subaccount_id)
    if lacking > 0 and liquidation is not None:
        is_long_side = liquidation.sides[market.parameters.market_id] < 0
        losses.share(state, outcome, market, subaccount, is_long_side, lacking)
