"""The one way a balance changes: posting a balanced journal transaction.   [A-1]"""

from __future__ import annotations

from typing import Any

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
from ledger.journal import JournalTransaction, Posting, residues

_AVAILABLE = int(AccountKind.AVAILABLE)
_CUSTODY = int(AccountKind.CUSTODY)
_POSITION = int(AccountKind.POSITION)
_UNSETTLED = int(AccountKind.UNSETTLED)
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
        elif kind_of_account == _POSITION:
            _move_position(state, account & OWNER_MASK, asset, -atoms)
        elif kind_of_account == _CUSTODY:
            coins_moved(state, account, asset, before, before + atoms)
        elif kind_of_account == _UNSETTLED:
            _move_unsettled(state, account & OWNER_MASK, -atoms)
    entry = JournalTransaction(kind, memo, postings)
    # The sum over all assets is the cheap half of the check; the exact one per asset is made where blocks are built
    # and by the database.
    assert total == 0, f"journal transaction of kind {kind} is out of balance: {residues(entry)}"
    outcome.journal.append(entry)


def _move_position(state: State, number: int, asset: AssetId, atoms: int) -> None:
    """Contracts or cost of a position moved: the account is the position.   [A-2]"""
    market = state.markets[market_of(asset)]
    market_id, subaccount = market.parameters.market_id, state.subaccounts[number]
    held = position_of(subaccount, market)
    if asset == contracts(market_id):
        lots, rest = divmod(atoms, market.parameters.lot_atoms)
        assert not rest, f"subaccount {number}: {atoms} atoms of market {market_id} are no whole lots"
        market.open_interest += max(0, held.lots + lots) - max(0, held.lots)
        held.lots += lots
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


def _move_unsettled(state: State, number: int, atoms: int) -> None:
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
