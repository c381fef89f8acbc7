"""The one way a balance changes: posting a balanced journal transaction.   [A-1]"""

from __future__ import annotations

from typing import Any

from engine.events import Outcome
from engine.liquidity import coins_moved
from engine.state import ASSET_BITS, State
from ledger.chart import OWNER_BITS, OWNER_MASK, AccountId, AccountKind, AssetId, underlying
from ledger.journal import JournalTransaction, Posting, residues

_AVAILABLE = int(AccountKind.AVAILABLE)
_CUSTODY = int(AccountKind.CUSTODY)
_SUBACCOUNT_KINDS = (AccountKind.AVAILABLE, AccountKind.LENT, AccountKind.BORROWED, AccountKind.RECEIVABLE)


def post(state: State, outcome: Outcome, kind: int, memo: tuple[Any, ...], postings: list[Posting]) -> None:
    """Post one journal transaction: the balances move, the outcome carries it to the ledger.   [A-1, A-2]"""
    balances = state.balances
    touched = outcome.touched
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
        elif kind_of_account == _CUSTODY:
            coins_moved(state, account, asset, before, before + atoms)
    entry = JournalTransaction(kind, memo, postings)
    # The sum over all assets is the cheap half of the check; the exact one per asset is made where blocks are built
    # and by the database.
    assert total == 0, f"journal transaction of kind {kind} is out of balance: {residues(entry)}"
    outcome.journal.append(entry)


def _note_asset(state: State, account: AccountId, asset: AssetId) -> None:
    """A subaccount's first holding, claim or debt of an asset: from now on its margin summary looks at it.   [C-1]"""
    if account >> OWNER_BITS in _SUBACCOUNT_KINDS:
        state.subaccounts[account & OWNER_MASK].asset_ids[underlying(asset)] = None


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
