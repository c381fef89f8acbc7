"""Backstop liquidity providers: who is registered, and how they take an account over in slices.   [L-4]

Memo of a BACKSTOP transaction: subaccount, provider, the slice's share of what was left (part and whole, decimal
strings), its gross notional and its part of E in USD (1e-8), USDC paid to the backstop fund, USDC that the insurance
fund added, positions as (market, lots, cost, mark and last settled mark in quote atoms per lot), holdings as (asset,
atoms), unsettled equity, then net equity, maintenance margin and E before and after, then the movements.   [L-10]
"""

from __future__ import annotations

from typing import NamedTuple

from engine import insurance, lending, margin, owed, standings, virtual
from engine.commands import Origin, RegisterBackstop
from engine.events import LendingSource, LiquidationChanged, Outcome, SettingsChanged, SettlementMoved
from engine.formulas.lending import redeem_burn
from engine.formulas.liquidation import minimum_incentive, quote_atoms_up, slice_of
from engine.insurance import posted
from engine.parameters import RATE_SCALE
from engine.perpetuals import record_fill
from engine.rejections import RejectReason, require
from engine.standings import Moment
from engine.state import State, Subaccount, balance_key
from ledger.amounts import INT64_MAX, mul_div_down, mul_div_up
from ledger.chart import (
    BACKSTOP_FUND,
    INSURANCE_FUND,
    AssetId,
    available,
    borrowed,
    contracts,
    cost,
    debt_share,
    lend_share,
    lent,
    position,
    unsettled,
)
from ledger.journal import JournalKind, Posting

_SOURCES = (LendingSource.LIQUIDATION_BACKSTOP, LendingSource.BACKSTOP_PROVIDER)


class Piece(NamedTuple):
    """Part of one position."""

    market_id: int
    lots: int
    cost: int


class Slice(NamedTuple):
    """What one provider takes, and what it pays and gets for it.   [L-4]"""

    part: int
    whole: int
    pieces: tuple[Piece, ...]
    held: tuple[tuple[AssetId, int], ...]
    lent: tuple[tuple[AssetId, int], ...]
    """Atoms, which pass as shares."""
    debts: tuple[tuple[AssetId, int, int], ...]
    """(asset, debt shares, atoms)."""
    claims: int
    """Value of claims in USDC atoms."""
    unsettled: int
    gross: int
    """Gross notional of positions and debts in USD (1e-8), rounded up."""
    equity: int
    """Its part of E in USD (1e-8), rounded down."""
    charge: int
    """What the provider pays to the backstop fund, in USDC atoms."""
    incentive: int
    """What the insurance fund adds, in USDC atoms."""
    is_all_it_can: bool
    """All that is left, or all that its capacity lets it take."""


def register(state: State, command: RegisterBackstop, outcome: Outcome) -> None:
    """A provider says how much notional it takes from now on; what it takes is used up. 0 ends it.   [L-4]"""
    number = command.subaccount_id
    require(
        0 <= command.notional_usd <= INT64_MAX,
        RejectReason.BACKSTOP_LIMIT,
        notional_usd=command.notional_usd,
        maximum=INT64_MAX,
    )
    in_liquidation = number in state.liquidations
    require(not in_liquidation, RejectReason.IN_LIQUIDATION, subaccount_id=number)
    # From here the command succeeds.
    _set_capacity(state, state.subaccounts[number], command.notional_usd)
    outcome.events.append(SettingsChanged(number))


def take_over(state: State, outcome: Outcome, subaccount: Subaccount) -> bool:
    """Hand the account over to providers, by capacity; True: nothing is left of its positions and debts.   [L-4]

    Largest capacity first, then id; each takes its capacity's share of what is left, so that all together take by
    capacity and the last of them the rest. Who may not is passed over, and asked no more. What nobody takes stays.
    """
    asked = dict.fromkeys(_providers(state, subaccount))
    while asked and not is_empty(subaccount):
        for number in list(asked):
            provider = state.subaccounts[number]
            taken = _slice(state, outcome.at_us, subaccount, provider, list(asked))
            if taken is None or not _may_take(state, outcome.at_us, provider, taken):
                del asked[number]
                continue
            _pass(state, outcome, subaccount, provider, taken)
            if taken.is_all_it_can:
                del asked[number]
            if is_empty(subaccount):
                break
    return is_empty(subaccount)


def is_empty(subaccount: Subaccount) -> bool:
    """Neither position nor debt nor negative unsettled equity nor claim is left.   [L-4]"""
    has_lots = any(held.lots for held in subaccount.positions.values())
    return not has_lots and not subaccount.debts and not subaccount.claims and subaccount.unsettled >= 0


def _providers(state: State, subaccount: Subaccount) -> list[int]:
    """Those that could take it: largest capacity first, then id; nobody takes over an account of their own.   [L-4]"""
    found = [
        number
        for number in state.backstops
        if number not in state.liquidations and state.subaccounts[number].user is not subaccount.user
    ]
    return sorted(found, key=lambda number: (-state.subaccounts[number].backstop_usd, number))


def _slice(
    state: State, at_us: int, subaccount: Subaccount, provider: Subaccount, asked: list[int]
) -> Slice | None:
    """The provider's share of what is left, rounded down to lots, atoms and shares; None: not a lot, not a debt.

    Its share is its capacity by that of all who are still asked behind it, itself included, or by what is left.
    """
    gross = _gross(state, subaccount, at_us)
    behind = asked[asked.index(provider.subaccount_id) :]
    part, whole = provider.backstop_usd, max(gross, sum(state.subaccounts[each].backstop_usd for each in behind))
    is_all_it_can = whole == gross or part >= whole
    if part >= whole:
        part = whole = 1
    pieces = _pieces(subaccount, part, whole)
    debts = _debts(state, subaccount, at_us, part, whole)
    if part < whole and not debts and not any(piece.lots for piece in pieces):
        return None
    risk = state.limits.risk
    usd, unit, *_rest = margin.line(state, state.usdc)
    worth = margin.realizable(state, subaccount, at_us) + _receivables_usd(state, subaccount)
    equity = mul_div_down(worth, part, whole)
    notional = gross if part == whole else _notional(state, pieces, debts)
    least = minimum_incentive(notional, risk.backstop_incentive)
    claims = margin.claims_atoms(state, subaccount, at_us) if subaccount.claims else 0
    return Slice(
        part,
        whole,
        pieces,
        _held(state, subaccount, part, whole),
        _lent(state, subaccount, provider, at_us, part, whole),
        debts,
        slice_of(claims, part, whole),
        slice_of(subaccount.unsettled, part, whole),
        notional,
        equity,
        quote_atoms_up(mul_div_up(max(0, equity), risk.backstop_share, RATE_SCALE), unit, usd),
        quote_atoms_up(max(0, least - equity), unit, usd),
        is_all_it_can,
    )


def _may_take(state: State, at_us: int, provider: Subaccount, taken: Slice) -> bool:
    """Whether the fund can add the incentive, the provider can pay, and satisfies M-5 with the slice.   [L-4]"""
    if taken.incentive > insurance.balance(state):
        return False
    usdc = state.usdc
    found = _payment(state, at_us, provider, taken)
    if found.missing:
        return False
    changes: dict[AssetId, margin.Change] = {}
    for piece in taken.pieces:
        changes[contracts(piece.market_id)] = (piece.lots, piece.cost, 0, 0)
    for asset_id, atoms in taken.held:
        margin.add(changes, asset_id, atoms, 0, 0, 0)
    for asset_id, atoms in taken.lent:
        margin.add(changes, asset_id, 0, atoms, 0, 0)
    for asset_id, _shares, atoms in taken.debts:
        margin.add(changes, asset_id, 0, 0, atoms, 0)
    # Claims and unsettled equity are USDC to come: as such they are judged.
    settling = taken.claims + taken.unsettled + taken.incentive - taken.charge
    margin.add(changes, usdc, settling + found.redeemed + found.borrowed, -found.redeemed, found.borrowed, 0)
    after = margin.sums(state, provider, at_us, changes, is_strict=True)
    return not after.is_unpriced and after.equity - margin.open_order_loss(state, provider) > after.initial


def _payment(state: State, at_us: int, provider: Subaccount, taken: Slice) -> owed.Found:
    """Where the provider finds what it pays beyond the USDC that comes with the slice.   [S-12]"""
    comes = sum(atoms for asset_id, atoms in taken.held if asset_id == state.usdc) + taken.incentive
    return owed.plan(state, provider, at_us, max(0, taken.charge - comes))


def _pass(state: State, outcome: Outcome, subaccount: Subaccount, provider: Subaccount, taken: Slice) -> None:
    """One slice changes hands in one journal transaction.   [L-4, L-10]"""
    at_us, usdc = outcome.at_us, state.usdc
    number, other = subaccount.subaccount_id, provider.subaccount_id
    before = insurance.standing(state, subaccount, at_us)
    standings.put(state, outcome, subaccount, JournalKind.BACKSTOP, Moment.BEFORE)
    notional = margin.sums(state, subaccount, at_us).notional
    into = lending.Movements()
    owed.take(state, outcome, into, provider, _payment(state, at_us, provider, taken))
    for asset_id, atoms in taken.lent:
        lending.pass_shares(state, outcome, into, subaccount, provider, asset_id, atoms, _SOURCES)
    for asset_id, shares, _atoms in taken.debts:
        lending.pass_debt(state, outcome, into, subaccount, provider, asset_id, shares, _SOURCES)
    if subaccount.claims:
        virtual.pass_part(state, outcome, into, subaccount, provider, taken.part, taken.whole)
    postings: list[Posting] = into.postings
    for piece in taken.pieces:
        atoms = piece.lots * state.markets[piece.market_id].parameters.lot_atoms
        for asset, moved in ((contracts(piece.market_id), atoms), (cost(piece.market_id), piece.cost)):
            if moved:
                postings += [(position(number), asset, moved), (position(other), asset, -moved)]
    for asset_id, atoms in taken.held:
        postings += [(available(number), asset_id, atoms), (available(other), asset_id, -atoms)]
    if taken.unsettled:
        postings += [(unsettled(number), usdc, taken.unsettled), (unsettled(other), usdc, -taken.unsettled)]
    if taken.charge:
        postings += [(available(other), usdc, taken.charge), (BACKSTOP_FUND, usdc, -taken.charge)]
    if taken.incentive:
        postings += [(INSURANCE_FUND, usdc, taken.incentive), (available(other), usdc, -taken.incentive)]
    entry = posted(state, outcome, JournalKind.BACKSTOP, postings)
    _set_capacity(state, provider, max(0, provider.backstop_usd - taken.gross))
    subaccount.judge_by_margin()
    after = insurance.standing(state, subaccount, at_us)
    standings.put(state, outcome, subaccount, JournalKind.BACKSTOP, Moment.AFTER)
    entry.memo = (
        number,
        other,
        str(taken.part),
        str(taken.whole),
        taken.gross,
        taken.equity,
        taken.charge,
        taken.incentive,
        tuple(
            (each.market_id, each.lots, each.cost, market.mark_lot, market.settled)
            for each in taken.pieces
            for market in (state.markets[each.market_id],)
        ),
        taken.held,
        taken.unsettled,
        *before,
        *after,
        tuple(into.memos),
    )
    for piece in taken.pieces:
        market = state.markets[piece.market_id]
        if piece.lots:
            record_fill(state, outcome, subaccount, market, -piece.lots, market.mark_lot, 0, Origin.BACKSTOP, True)
            record_fill(state, outcome, provider, market, piece.lots, market.mark_lot, 0, Origin.BACKSTOP)
    _tell(state, outcome, subaccount, provider, taken, before, after, notional)


def _tell(
    state: State,
    outcome: Outcome,
    subaccount: Subaccount,
    provider: Subaccount,
    taken: Slice,
    before: tuple[int, int, int],
    after: tuple[int, int, int],
    notional: int,
) -> None:
    """One LiquidationChanged for each thing taken, the payment with the first.   [L-10]"""
    things = [
        (piece.market_id, 0, -piece.lots, state.markets[piece.market_id].mark)
        for piece in taken.pieces
        if piece.lots
    ]
    things += [(0, asset_id, atoms, margin.line(state, asset_id)[0]) for asset_id, _shares, atoms in taken.debts]
    things += [(0, asset_id, -atoms, margin.line(state, asset_id)[0]) for asset_id, atoms in taken.held + taken.lent]
    for place, (market_id, asset_id, quantity, mark) in enumerate(things):
        outcome.events.append(
            LiquidationChanged(
                subaccount.subaccount_id,
                "backstop",
                before[0],
                before[1],
                notional,
                market_id,
                asset_id,
                quantity,
                mark,
                mark,
                taken.charge if place == 0 else 0,
                after[0],
                after[1],
                provider.subaccount_id,
            )
        )
    outcome.events.append(
        SettlementMoved(provider.subaccount_id, "backstop", taken.incentive - taken.charge)
    )


def _pieces(subaccount: Subaccount, part: int, whole: int) -> tuple[Piece, ...]:
    """The share of each position: lots rounded down, and the cost at which it gained at mark its share of the gain."""
    found = []
    for market_id in sorted(subaccount.positions):
        held = subaccount.positions[market_id]
        market = held.market
        lots = slice_of(held.lots, part, whole)
        gain = slice_of(margin.unrealized_atoms(held), part, whole)
        moved = gain - lots * (market.mark_lot - market.settled)
        # Of less than a lot not its gain either: equity and risk go together.
        if lots or (moved and not held.lots):
            found.append(Piece(market_id, lots, moved))
    return tuple(found)


def _debts(
    state: State, subaccount: Subaccount, at_us: int, part: int, whole: int
) -> tuple[tuple[AssetId, int, int], ...]:
    found = []
    for asset_id in sorted(subaccount.debts):
        key = balance_key(borrowed(subaccount.subaccount_id), debt_share(asset_id))
        shares = slice_of(state.balances.get(key, 0), part, whole)
        if shares:
            owing = lending.debt(state, subaccount, asset_id, at_us)
            found.append((asset_id, shares, mul_div_up(owing, part, whole)))
    return tuple(found)


def _held(state: State, subaccount: Subaccount, part: int, whole: int) -> tuple[tuple[AssetId, int], ...]:
    slices = (
        (asset_id, slice_of(state.free(subaccount.subaccount_id, asset_id), part, whole))
        for asset_id in sorted(subaccount.asset_ids)
    )
    return tuple((asset_id, atoms) for asset_id, atoms in slices if atoms > 0)


def _lent(
    state: State, subaccount: Subaccount, provider: Subaccount, at_us: int, part: int, whole: int
) -> tuple[tuple[AssetId, int], ...]:
    """The share of what is lent, in atoms; nobody is left with, or given, fewer shares than a pool lets anyone keep."""
    found = []
    for asset_id in sorted(subaccount.lent):
        atoms = slice_of(lending.claim(state, subaccount, asset_id, at_us), part, whole)
        if not atoms:
            continue
        now = lending.totals(state, state.pools[asset_id], at_us)
        has = -state.balances.get(balance_key(lent(provider.subaccount_id), lend_share(asset_id)), 0)
        if part == whole or has + redeem_burn(atoms, now.lent, now.lend_shares) >= lending.LEAST_SHARES:
            found.append((asset_id, atoms))
    return tuple(found)


def _gross(state: State, subaccount: Subaccount, at_us: int) -> int:
    """Gross notional of all positions and debts, in USD (1e-8), rounded up.   [L-4]"""
    pieces = tuple(Piece(market_id, held.lots, 0) for market_id, held in subaccount.positions.items())
    debts = tuple((asset_id, 0, lending.debt(state, subaccount, asset_id, at_us)) for asset_id in subaccount.debts)
    return _notional(state, pieces, debts)


def _notional(
    state: State, pieces: tuple[Piece, ...], debts: tuple[tuple[AssetId, int, int], ...]
) -> int:
    usd, _unit, in_usd, *_rest = margin.line(state, state.usdc)
    total = 0
    for piece in pieces:
        total -= -abs(piece.lots) * state.markets[piece.market_id].mark_lot * usd // in_usd
    for asset_id, _shares, atoms in debts:
        price, _asset_unit, in_price, *_asset = margin.line(state, asset_id)
        total -= -atoms * price // in_price
    return total


def _receivables_usd(state: State, subaccount: Subaccount) -> int:
    """What reversed deposits left owed to the exchange, which is part of E and passes to nobody.   [D-5]"""
    total = 0
    for asset_id in subaccount.receivables:
        price, _unit, in_usd, *_rest = margin.line(state, asset_id)
        total -= -_receivable(state, subaccount, asset_id) * price // in_usd
    return total


def _receivable(state: State, subaccount: Subaccount, asset_id: AssetId) -> int:
    return margin.owed_atoms(state, subaccount, asset_id, state.at_us) - lending.debt(
        state, subaccount, asset_id, state.at_us
    )


def _set_capacity(state: State, provider: Subaccount, notional_usd: int) -> None:
    provider.backstop_usd = notional_usd
    if notional_usd:
        state.backstops[provider.subaccount_id] = None
    else:
        state.backstops.pop(provider.subaccount_id, None)
