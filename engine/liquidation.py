"""Liquidation: who is found in it and when, and the ladder of steps that ends it.   [L-1 … L-11]

Memos. LIQUIDATION_STARTED and LIQUIDATION_ENDED: subaccount, net equity, maintenance margin, exposure notional and E in
USD (1e-8), image. LIQUIDATION_STEP, one for each step of the order-book stage, filled or not: subaccount, item
(`contracts` of a market, or the owed asset), what was taken of it (lots, or atoms), the worst price in ticks, fills as
(price in ticks, lots), fee in USDC atoms, then the four figures and the image before, and the same after. An image is
`engine.formulas.standing.Image`, from which that module computes the four figures again. Of the other rungs' steps
LIQUIDATION_IMAGE has it (`engine.standings`).   [L-10]
"""

from __future__ import annotations

from functools import cmp_to_key

from engine import (
    at_mark,
    backstop,
    bankruptcy,
    book_stage,
    conversions,
    deleveraging,
    insurance,
    lender_adl,
    margin,
    pools,
    standings,
    virtual,
    yields,
)
from engine.columns import Columns
from engine.commands import (
    AccrueInterest,
    ChargeFunding,
    Command,
    ConfigureAsset,
    ConfigureMarket,
    Liquidate,
    SettlePositions,
)
from engine.events import MarksChanged, Outcome
from engine.formulas.margin import auto_close_fraction
from engine.posting import record
from engine.pricing import has_price
from engine.rejections import RejectReason, require
from engine.state import ASSET_BITS, Liquidation, State, Subaccount
from ledger.chart import OWNER_BITS, OWNER_MASK, AccountKind
from ledger.journal import JournalKind

SECOND_US = 1_000_000
_REVALUING = (AccrueInterest, ChargeFunding, SettlePositions, ConfigureAsset, ConfigureMarket, Liquidate)
"""Commands that change what accounts are worth that they do not touch one by one; so does a mark."""
_KINDS = frozenset(
    (
        AccountKind.AVAILABLE,
        AccountKind.LENT,
        AccountKind.BORROWED,
        AccountKind.RECEIVABLE,
        AccountKind.POSITION,
        AccountKind.UNSETTLED,
        AccountKind.CLAIM,
    )
)


# --- the trigger ----------------------------------------------------------------------------------------------------


def find(state: State, command: Command, outcome: Outcome, *, is_order: bool) -> None:
    """Every subaccount that the command could have pushed over is in liquidation from here.   [L-1, M-6]

    An order touches two accounts whose fills were judged by M-9: after one that passed M-5 there is more equity than
    1.25 times the maintenance margin, and one that only reduces leaves the MMR no higher. So orders push nobody over
    and are not looked at; whoever interest has pushed over meanwhile is found at the next mark, tick or hour. A mark,
    interest, funding, a tick, new parameters sweep everybody. Everything else is asked of those that it touched.
    """
    columns: Columns | None = state.columns
    if columns is not None:
        columns.note(outcome, is_order=is_order)
    if is_order:
        return
    if isinstance(command, _REVALUING) or MarksChanged in [type(event) for event in outcome.events]:
        if columns is None:
            columns = state.columns = Columns(state)
        found = columns.in_liquidation(outcome.at_us)
    else:
        found = _touched_in_liquidation(state, outcome)
    for number, sums in found:
        subaccount = state.subaccounts[number]
        if number in state.liquidations or not is_priced(state, subaccount):
            continue
        if has_anything_to_liquidate(state, subaccount, outcome.at_us):
            _start(state, outcome, number, sums, int(isinstance(command, Liquidate)))
            note_due(state)


def is_priced(state: State, subaccount: Subaccount) -> bool:
    """Whether nothing that it has lost its price: if something has, it is not liquidated until a price is back. [P-2]

    An asset that never had a price counts for nothing and holds nothing up.
    """
    if any(held.lots and not held.market.pricing.has_data for held in subaccount.positions.values()):
        return False
    for asset_id in subaccount.asset_ids:
        if asset_id in state.prices and not has_price(state, asset_id):
            has_any = asset_id in subaccount.lent or asset_id in subaccount.debts
            if has_any or state.held(subaccount.subaccount_id, asset_id):
                return False
    return True


def has_anything_to_liquidate(state: State, subaccount: Subaccount, at_us: int) -> bool:
    """Whether it has a position or a debt, or lacks USDC. If not, gains that the next tick settles pay what it owes,
    and only until then what it owes asks for margin by M-1.
    """
    return _has_exposure(subaccount) or insurance.own_usdc(state, subaccount, at_us) < 0


def note_due(state: State) -> None:
    """Keep when the next step is due.   [L-3, S-15]"""
    seconds = [each.next_second for each in state.liquidations.values()]
    state.liquidation_due_us = min(seconds) * SECOND_US if seconds else 0


def _touched_in_liquidation(state: State, outcome: Outcome) -> list[tuple[int, margin.Sums]]:
    touched = {key >> ASSET_BITS: None for key in outcome.touched}
    for entry in outcome.journal:
        for account, _asset, _atoms in entry.postings:
            if account >> OWNER_BITS in _KINDS:
                touched[account & OWNER_MASK] = None
    found = []
    for number in sorted(touched):
        subaccount = state.subaccounts[number]
        if subaccount.margined:
            sums = margin.sums(state, subaccount, outcome.at_us)
            if sums.is_in_liquidation:
                found.append((number, sums))
    return found


def _start(state: State, outcome: Outcome, number: int, sums: margin.Sums, wait: int) -> None:
    """An account that a liquidation's fills pushed over waits for the next second.   [S-15]"""
    second = outcome.at_us // SECOND_US + wait
    state.liquidations[number] = Liquidation(outcome.at_us, second)
    _tell(state, outcome, state.subaccounts[number], JournalKind.LIQUIDATION_STARTED, "started")
    assert sums.is_in_liquidation


# --- the ladder -----------------------------------------------------------------------------------------------------


def liquidate(state: State, command: Liquidate, outcome: Outcome) -> None:
    """A second of liquidation: each account in it takes one step, the worst first.   [L-3, S-15]"""
    second = outcome.at_us // SECOND_US
    numbers = [number for number, each in state.liquidations.items() if each.next_second <= second]
    require(bool(numbers), RejectReason.TICK_OUT_OF_ORDER, second=second, liquidations=len(state.liquidations))
    # From here the command succeeds.
    for number in _worst_first(state, numbers, outcome.at_us):
        state.liquidations[number].next_second = second + 1
        step(state, outcome, state.subaccounts[number])
    note_due(state)


def step(state: State, outcome: Outcome, subaccount: Subaccount) -> None:
    """One step down the ladder: each rung is tried when those above it were not enough."""
    if not is_priced(state, subaccount):
        return
    # What lenders still have to collect is theirs to pay with, before anybody else pays for them.   [C-3]
    yields.collect_all(state, outcome, subaccount)
    if state.has_pool_collateral:
        pools.give_back_collateral(state, subaccount, outcome)
    book_stage.clear(state, outcome, subaccount)  # L-2
    if _is_over(state, outcome, subaccount):
        return
    is_tried = _is_for_the_book(state, outcome, subaccount)
    if is_tried:
        book_stage.take_slice(state, outcome, subaccount)  # L-3
        if _is_over(state, outcome, subaccount) or _is_for_the_book(state, outcome, subaccount):
            return
    if not backstop.take_over(state, outcome, subaccount):  # L-4
        _without_backstop(state, outcome, subaccount, is_tried)
    if not _is_over(state, outcome, subaccount):
        _back_to_the_book(state, outcome, subaccount)


def _back_to_the_book(state: State, outcome: Outcome, subaccount: Subaccount) -> None:
    """An account that holds its maintenance margin again, and is not cured yet, is the book's: from the first try.

    Or, with nobody to take it over, it would stay between the two for ever: no longer for ADL, no more for the book.
    [L-3, L-6]
    """
    if not margin.sums(state, subaccount, outcome.at_us).is_in_liquidation:
        state.liquidations[subaccount.subaccount_id].unfilled_ticks = 0


def _without_backstop(state: State, outcome: Outcome, subaccount: Subaccount, is_tried: bool) -> None:
    """What no provider took: collateral is sold, positions close against opposing ones, lenders are paid in value.

    `is_tried`: a slice was tried on the book in this step.   [L-5 … L-8]
    """
    _sell_collateral(state, outcome, subaccount)
    if any(held.lots for held in subaccount.positions.values()):
        deleveraging.deleverage(state, outcome, subaccount)  # L-6
    if subaccount.claims:
        virtual.convert_all(state, outcome, subaccount)
        book_stage.clear(state, outcome, subaccount)
    if subaccount.debts and not is_tried:
        book_stage.take_slice(state, outcome, subaccount)
    if subaccount.debts:
        bankruptcy.settle_debts(state, outcome, subaccount)  # L-7


def _sell_collateral(state: State, outcome: Outcome, subaccount: Subaccount) -> None:
    """Sell for what it owes in USDC; what is lent and a pool cannot redeem, its borrowers give back.   [S-12, L-8]"""
    lacking = -insurance.own_usdc(state, subaccount, outcome.at_us)
    if lacking <= 0:
        return
    conversions.convert(state, outcome, subaccount, lacking)
    for asset_id in sorted(subaccount.lent):
        lacking = -insurance.own_usdc(state, subaccount, outcome.at_us)
        if lacking > 0:
            atoms = at_mark.atoms_up(state, asset_id, lacking)
            if atoms and lender_adl.recover(state, outcome, subaccount, asset_id, atoms):
                conversions.convert(state, outcome, subaccount, lacking)
    book_stage.clear(state, outcome, subaccount)


def _is_for_the_book(state: State, outcome: Outcome, subaccount: Subaccount) -> bool:
    """Whether L-3 goes on: E > 0, MF > ACMF, and the last three steps were not all in vain.   [L-3, M-8]"""
    risk = state.limits.risk
    if state.liquidations[subaccount.subaccount_id].unfilled_ticks >= risk.liquidation_failed_ticks:
        return False
    if not _has_exposure(subaccount) or margin.realizable(state, subaccount, outcome.at_us) <= 0:
        return False
    sums = margin.sums(state, subaccount, outcome.at_us)
    if not sums.notional:
        return True
    least, whole = auto_close_fraction(sums.maintenance, sums.notional, risk.acmf_divisor, risk.acmf_offset)
    return sums.equity * whole > least * sums.notional


def _is_over(state: State, outcome: Outcome, subaccount: Subaccount) -> bool:
    """Ends the liquidation of an account that stands well again, or that has nothing and owes nothing.   [L-3, L-5]"""
    if _has_exposure(subaccount):
        if not book_stage.is_cured(state, subaccount, outcome.at_us):
            return False
    elif not _has_paid(state, outcome, subaccount):
        return False
    _tell(state, outcome, subaccount, JournalKind.LIQUIDATION_ENDED, "ended")
    del state.liquidations[subaccount.subaccount_id]
    return True


def _has_paid(state: State, outcome: Outcome, subaccount: Subaccount) -> bool:
    """Whether an account without position and debt owes nothing any more: by its collateral, then by others.   [L-5]"""
    _sell_collateral(state, outcome, subaccount)
    if subaccount.claims:
        virtual.convert_all(state, outcome, subaccount)
        book_stage.clear(state, outcome, subaccount)
        if subaccount.debts:
            return False
    if insurance.own_usdc(state, subaccount, outcome.at_us) < 0:
        # What nobody bought is taken at mark.
        deleveraging.deleverage(state, outcome, subaccount)
    return insurance.finish(state, outcome, subaccount)


def _has_exposure(subaccount: Subaccount) -> bool:
    return bool(subaccount.debts) or any(held.lots for held in subaccount.positions.values())


def _worst_first(state: State, numbers: list[int], at_us: int) -> list[int]:
    """MMR descending, net equity ≤ 0 first, ties by id; compared by cross products.   [S-15]"""
    sums = {number: margin.sums(state, state.subaccounts[number], at_us) for number in numbers}

    def compare(one: int, other: int) -> int:
        mine, theirs = sums[one], sums[other]
        if mine.equity <= 0 or theirs.equity <= 0:
            return (mine.equity > 0) - (theirs.equity > 0) or one - other
        difference = theirs.maintenance * mine.equity - mine.maintenance * theirs.equity
        return difference or one - other

    return sorted(numbers, key=cmp_to_key(compare))


def _tell(state: State, outcome: Outcome, subaccount: Subaccount, kind: JournalKind, stage: str) -> None:
    """Beginning and end are put on record with what the figures are made of.   [L-10]"""
    number, at_us = subaccount.subaccount_id, outcome.at_us
    now = standings.figures(state, subaccount, at_us)
    record(outcome, kind, (number, *now, standings.image(state, subaccount, at_us)))
    book_stage.tell(outcome, number, stage, now, now)
