"""What leaves a subaccount by its owner's wish: taken from what is available, then lent, then borrowed; M-12 judges.

[M-12, S-5, U-2]
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine import lending, margin
from engine.events import LendingSource, Outcome
from engine.loans import require_borrow
from engine.posting import post
from engine.rejections import Rejection, RejectReason
from engine.state import State, Subaccount
from ledger.chart import AssetId, available
from ledger.journal import JournalKind, Posting


class Taken(NamedTuple):
    """Where an outflow comes from, in atoms."""

    available: int
    lent: int
    borrowed: int


def plan(
    state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int, atoms: int, may_borrow: bool, as_shares: bool
) -> Taken:
    """Where `atoms` come from, or a Rejection. What is lent redeems by itself, or passes as shares.   [B-6, S-5]"""
    number = subaccount.subaccount_id
    free = max(0, state.withdrawable(number, asset_id))
    missing = max(0, atoms - free)
    claim = lending.claim(state, subaccount, asset_id, at_us) if missing else 0
    redeemed = min(claim, missing)
    if redeemed and not as_shares:
        redeemed = lending.redemption(state, subaccount, asset_id, at_us, missing)
    taken = Taken(atoms - missing, redeemed, max(0, missing - claim))
    if taken.borrowed:
        if not may_borrow:
            raise Rejection(
                RejectReason.INSUFFICIENT_FUNDS, needed=atoms, available=free + claim, asset_id=asset_id
            )
        require_borrow(state, subaccount, asset_id, at_us, taken.borrowed)
    if taken.lent or taken.borrowed:
        lending.require_supply(state, asset_id, at_us, 0 if as_shares else taken.lent, taken.borrowed)
    # Without a debt, a promise or a provisional deposit there is nothing that M-12 could find.
    if taken.borrowed or subaccount.margined or margin.has_provisional(state, subaccount):
        change = (taken.lent + taken.borrowed - atoms, -taken.lent, taken.borrowed, 0)
        margin.require_outflow(state, subaccount, at_us, {asset_id: change})
    return taken


def redeem_and_borrow(
    state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, taken: Taken
) -> lending.Movements:
    """Make available what the plan takes from the pool; the caller posts it with what it is for.   [S-5]"""
    into = lending.Movements()
    source = LendingSource.WITHDRAWAL
    if taken.lent:
        lending.redeem(state, outcome, into, subaccount, asset_id, taken.lent, source)
    if taken.borrowed:
        lending.borrow(state, outcome, into, subaccount, asset_id, taken.borrowed, source)
    return into


def transfer(
    state: State, outcome: Outcome, source: Subaccount, target: Subaccount, asset_id: AssetId, taken: Taken
) -> None:
    """Post a transfer between a user's own subaccounts; what is lent passes as shares.   [U-2]"""
    into = redeem_and_borrow(state, outcome, source, asset_id, taken._replace(lent=0))
    if taken.lent:
        lending.pass_shares(state, outcome, into, source, target, asset_id, taken.lent)
    moved = taken.available + taken.borrowed
    postings: list[Posting] = []
    if moved:
        postings += [
            (available(source.subaccount_id), asset_id, moved),
            (available(target.subaccount_id), asset_id, -moved),
        ]
    memo: tuple[Any, ...] = (source.subaccount_id, target.subaccount_id)
    if into.memos:
        memo = (*memo, tuple(into.memos))
    post(state, outcome, JournalKind.TRANSFER, memo, into.postings + postings)
