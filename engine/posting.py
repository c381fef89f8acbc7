"""The one way a balance changes: posting a balanced journal transaction.   [A-1]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import cash
from engine.events import Outcome
from engine.liquidity import coins_moved
from engine.state import ASSET_BITS, Market, Position, State, Subaccount
from ledger.chart import (
    OWNER_BITS,
    OWNER_MASK,
    AccountId,
    AccountKind,
    AssetId,
    contracts,
    market_of,
    underlying,
)
from ledger.journal import JournalTransaction, Posting, PostingBatch, residues

_AVAILABLE = int(AccountKind.AVAILABLE)
_BORROWED = int(AccountKind.BORROWED)
_CUSTODY = int(AccountKind.CUSTODY)
_POSITION = int(AccountKind.POSITION)
_UNSETTLED = int(AccountKind.UNSETTLED)
_SUBACCOUNT_KINDS = (AccountKind.AVAILABLE, AccountKind.LENT, AccountKind.BORROWED, AccountKind.RECEIVABLE)
_INT64_MAX = 2**63 - 1

Columns = tuple[int, AssetId, npt.NDArray[np.int64], "npt.NDArray[np.int64] | Sequence[int]"]
"""Postings of one kind of account in one asset: (account kind, asset, owners, atoms), debits positive; the owners
ascend strictly. Atoms beyond int64 come as a sequence of ints."""


def post(state: State, outcome: Outcome, kind: int, memo: tuple[Any, ...], postings: list[Posting]) -> None:
    """Post one journal transaction: the balances move, the outcome carries it to the ledger.   [A-1, A-2]"""
    total = _move(state, outcome, postings)
    entry = JournalTransaction(kind, memo, postings)
    # The sum over all assets is the cheap half of the check; the exact one per asset is made where blocks are built
    # and by the database.
    assert total == 0, f"journal transaction of kind {kind} is out of balance: {residues(entry)}"
    outcome.journal.append(entry)


def post_batch(
    state: State,
    outcome: Outcome,
    kind: int,
    memo: tuple[Any, ...],
    postings: list[Posting],
    columns: Sequence[Columns],
) -> None:
    """The same with columns beside the postings: a row costs no object, in the journal as little as here.   [A-2, S-14]

    Rows of 0 are left out; rows beyond int64 become plain postings. Available holdings that columns move are *not*
    noted in `outcome.touched`: a million BalanceChanged would be the whole tick. Who posts them says whom they moved
    in `outcome.settled`, and checks that none is below zero.
    """
    postings = list(postings)
    batches = []
    for account_kind, asset, owners, atoms in columns:
        column = _int64(atoms)
        if column is None:
            owners, column, beyond = _without_overflow(account_kind, asset, owners, list(atoms))
            postings += beyond
        if not column.all():
            moved = column != 0
            owners, column = owners[moved], column[moved]
        if len(owners):
            batches.append(PostingBatch.of(account_kind, asset, owners, column))
    total = _move(state, outcome, postings)
    for batch in batches:
        _move_batch(state, batch)
        total += batch.total
    entry = JournalTransaction(kind, memo, postings, tuple(batches))
    assert total == 0, f"journal transaction of kind {kind} is out of balance: {residues(entry)}"
    outcome.journal.append(entry)


def _move(state: State, outcome: Outcome, postings: list[Posting]) -> int:
    """Move the balances of plain postings; Σ atoms, over all assets."""
    balances = state.balances
    touched = outcome.touched
    usdc, cash_moved = state.usdc, state.cash_moved
    total = 0
    for account, asset, atoms in postings:
        key = account << ASSET_BITS | asset
        before = balances.get(key)
        if before is None:
            before = 0
            _note_asset(state, account, asset)
        balances[key] = before + atoms
        total += atoms
        kind_of_account = account >> OWNER_BITS
        if kind_of_account == _AVAILABLE:
            touched[(account & OWNER_MASK) << ASSET_BITS | asset] = None
            if asset == usdc:
                cash_moved[account & OWNER_MASK] = None
        elif kind_of_account == _POSITION:
            move_position(state, account & OWNER_MASK, asset, -atoms)
        elif kind_of_account == _CUSTODY:
            coins_moved(state, account, asset, before, before + atoms)
        elif kind_of_account == _UNSETTLED:
            move_unsettled(state, account & OWNER_MASK, -atoms)
        elif kind_of_account == _BORROWED:
            borrowers = state.pools[underlying(asset)].borrowers
            if before + atoms:
                borrowers[account & OWNER_MASK] = None
            else:
                borrowers.pop(account & OWNER_MASK, None)
    return total


def _move_batch(state: State, batch: PostingBatch) -> None:
    """Move the balances of one batch, and what is kept beside them, as `_move` does for each posting."""
    kind, asset = batch.account_kind, batch.asset
    assert kind != _CUSTODY, "custody moves by postings: each wallet is looked at"
    balances = state.balances
    notes = kind in _SUBACCOUNT_KINDS
    owner_column, atom_column = batch.owners, batch.atoms
    if kind == _AVAILABLE and asset == state.usdc:
        is_left = cash.move(state, owner_column, atom_column)
        if not is_left.any():
            return
        owner_column, atom_column = owner_column[is_left], atom_column[is_left]
        state.cash_moved.update(dict.fromkeys(owner_column.tolist()))
    base = kind << OWNER_BITS << ASSET_BITS | asset
    owners, atoms = owner_column.tolist(), atom_column.tolist()
    for position, owner in enumerate(owners):
        key = owner << ASSET_BITS | base
        before = balances.get(key)
        if before is None:
            before = 0
            if notes:
                _note_asset(state, kind << OWNER_BITS | owner, asset)
        balances[key] = before + atoms[position]
    if kind == _POSITION:
        market = state.markets[market_of(asset)]
        if asset == contracts(market.parameters.market_id):
            for owner, moved in zip(owners, atoms, strict=True):
                move_position(state, owner, asset, -moved)
        else:
            _move_costs(state, market, owners, atoms)
    elif kind == _UNSETTLED:
        for owner, moved in zip(owners, atoms, strict=True):
            move_unsettled(state, owner, -moved)


def _move_costs(state: State, market: Market, owners: list[int], atoms: list[int]) -> None:
    """`move_position` for a column of costs: nearly every row is of a position that is there and keeps its lots."""
    holders, traded = market.holders, market.traded
    for owner, moved in zip(owners, atoms, strict=True):
        held = holders.get(owner)
        if held is None:
            held = position_of(state.subaccounts[owner], market)
        held.cost -= moved
        if held.cost:
            traded[owner] = held
            holders[owner] = held
        else:
            traded.pop(owner, None)
            if not held.lots:
                holders.pop(owner, None)


def _int64(atoms: npt.NDArray[np.int64] | Sequence[int]) -> npt.NDArray[np.int64] | None:
    """The amounts as an int64 column; None when one does not fit."""
    if isinstance(atoms, np.ndarray) and atoms.dtype.kind != "O":
        return atoms
    try:
        return np.array(atoms, dtype=np.int64)
    except OverflowError:
        return None


def _without_overflow(
    account_kind: int, asset: AssetId, owners: npt.NDArray[np.int64], atoms: list[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[Posting]]:
    """The rows that fit int64 as columns, the others as postings."""
    fits = [-_INT64_MAX <= amount <= _INT64_MAX for amount in atoms]
    beyond = [
        (account_kind << OWNER_BITS | owner, asset, amount)
        for owner, amount, fit in zip(owners.tolist(), atoms, fits, strict=True)
        if not fit
    ]
    column = np.array([amount for amount, fit in zip(atoms, fits, strict=True) if fit], dtype=np.int64)
    return owners[np.array(fits)], column, beyond


def move_position(state: State, number: int, asset: AssetId, atoms: int) -> None:
    """Contracts or cost of a position moved: the account is the position.   [A-2]"""
    market = state.markets[market_of(asset)]
    market_id, subaccount = market.parameters.market_id, state.subaccounts[number]
    held = position_of(subaccount, market)
    if asset == contracts(market_id):
        lots, rest = divmod(atoms, market.parameters.lot_atoms)
        assert not rest, f"subaccount {number}: {atoms} atoms of market {market_id} are no whole lots"
        market.open_interest += max(0, held.lots + lots) - max(0, held.lots)
        held.lots += lots
        market.moved[number] = None
    else:
        held.cost += atoms
    if held.cost:
        market.traded[number] = held
    else:
        market.traded.pop(number, None)
    if held.lots or held.cost:
        market.holders[number] = held
    else:
        market.holders.pop(number, None)


def position_of(subaccount: Subaccount, market: Market) -> Position:
    """The subaccount's position in the market, made if it is not there; `drop_position` is its end."""
    market_id = market.parameters.market_id
    held = subaccount.positions.get(market_id)
    if held is None:
        held = subaccount.positions[market_id] = Position(subaccount, market)
        subaccount.asset_ids[market.parameters.quote_asset_id] = None
        subaccount.margined = True
    return held


def drop_position(position: Position) -> None:
    """Forget a position that is nothing any more: no lots, no cost, no open order."""
    if position.lots or position.cost or position.buys or position.sells or position.reducing:
        return
    subaccount = position.subaccount
    if subaccount.positions.pop(position.market.parameters.market_id, None) is not None:
        subaccount.judge_by_margin()


def move_unsettled(state: State, number: int, atoms: int) -> None:
    subaccount = state.subaccounts[number]
    subaccount.unsettled += atoms
    if subaccount.unsettled:
        state.unsettled[number] = None
        subaccount.margined = True
    else:
        state.unsettled.pop(number, None)
        subaccount.judge_by_margin()


def _note_asset(state: State, account: AccountId, asset: AssetId) -> None:
    """A subaccount's first holding, claim or debt of an asset: from now on its margin summary looks at it.   [C-1]"""
    if account >> OWNER_BITS in _SUBACCOUNT_KINDS:
        state.subaccounts[account & OWNER_MASK].asset_ids[underlying(asset)] = None


def merged(postings: list[Posting]) -> list[Posting]:
    """One posting per account and asset, in the order of their first; what cancels out is left out."""
    sums: dict[tuple[AccountId, AssetId], int] = {}
    for account, asset, atoms in postings:
        sums[account, asset] = sums.get((account, asset), 0) + atoms
    return [(account, asset, atoms) for (account, asset), atoms in sums.items() if atoms]


def record(outcome: Outcome, kind: int, memo: tuple[Any, ...]) -> None:
    """Put a fact on record: a journal transaction without postings.   [A-4]"""
    outcome.journal.append(JournalTransaction(kind, memo, []))


def reserve(state: State, outcome: Outcome, subaccount_id: int, asset_id: int, atoms: int) -> None:
    """Lock (or with `atoms` < 0 release) part of what a subaccount holds; no value moves.   [S-1]"""
    reserved = state.subaccounts[subaccount_id].reserved
    left = reserved.get(asset_id, 0) + atoms
    assert left >= 0, f"subaccount {subaccount_id}: reserved {left} of asset {asset_id}"
    if left:
        reserved[asset_id] = left
    else:
        reserved.pop(asset_id, None)
    outcome.touched[subaccount_id << ASSET_BITS | asset_id] = None
    if asset_id == state.usdc:
        state.cash_moved[subaccount_id] = None
