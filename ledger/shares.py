"""What shares of a money market are worth in atoms of their asset, at any moment, from postings alone.   [A-12, B-4]

A pool's atoms and all shares in it are balances like any other, so what a share was worth then is their quotient then,
with the interest that was posted by then. Amounts are signed as posted: a claim is negative, a debt positive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from ledger import schema
from ledger.amounts import join_atoms, mul_div_down, mul_div_up
from ledger.chart import POOL_BORROWED, POOL_LENT, POOL_SHARES, AccountId, AssetId, lend_share, owner_of, underlying
from ledger.journal import JournalKind

_OWN_MOVEMENT: dict[int, int] = {
    JournalKind.LEND: 1,
    JournalKind.REDEEM: 2,
    JournalKind.BORROW: 3,
    JournalKind.REPAY: 4,
}
"""Movements by the numbers that memos have for them; kinds whose whole memo is one.   [B-12]"""
_MOVEMENT_LENGTH = 7
"""(subaccount, asset, movement, source, atoms, shares, position)"""
_LEND_SIGNS, _DEBT_SIGNS = {1: -1, 2: 1}, {3: 1, 4: -1}
"""Movement → the sign of its posting on the subaccount's account."""


class Pool(NamedTuple):
    """One side of a money market, both as posted: what it owes its lenders, or is owed."""

    atoms: int
    shares: int


def pool_account(share: AssetId) -> AccountId:
    """Where the atoms are that the shares divide."""
    return POOL_LENT if share == lend_share(underlying(share)) else POOL_BORROWED


def worth(pool: Pool, shares: int) -> int:
    """Atoms for `shares` as posted: a claim (negative) is rounded down in size, a debt (positive) up.   [A-3, B-4]

    0 where the pool has no shares: then nobody has one.
    """
    if not pool.shares:
        return 0
    if shares < 0:
        return -mul_div_down(-shares, abs(pool.atoms), abs(pool.shares))
    return mul_div_up(shares, abs(pool.atoms), abs(pool.shares))


def moved_atoms(kind: int, memo: Sequence[Any], account: AccountId, share: AssetId, shares: int) -> int | None:
    """Atoms that a posting of `shares` moved, both as posted, as the transaction's memo tells; None if it tells none.

    Exact, where a quotient is not: who redeems last leaves a pool without shares to divide.   [B-4, B-12]
    """
    if kind in _OWN_MOVEMENT:
        movements: Sequence[Any] = [(*memo[:2], _OWN_MOVEMENT[kind], *memo[2:])]
    else:
        movements = memo[-1] if memo and isinstance(memo[-1], list | tuple) else []
    owner, asset = owner_of(account), underlying(share)
    signs = _LEND_SIGNS if share == lend_share(asset) else _DEBT_SIGNS
    found: list[tuple[int, int]] = [
        (signs[one[2]] * int(one[5]), signs[one[2]] * one[4])
        for one in movements
        if _is_movement(one) and tuple(one[:2]) == (owner, asset) and one[2] in signs
    ]
    exact = [atoms for moved, atoms in found if moved == shares]
    if exact:
        return exact[0]
    return sum(atoms for _shares, atoms in found) if found else None


def _is_movement(fact: Any) -> bool:
    """A memo may end with a list of something else."""
    return isinstance(fact, list | tuple) and len(fact) == _MOVEMENT_LENGTH


def pools_after(
    connection: sa.Connection, share: AssetId, opening: Pool, after: int, journal_seqs: Sequence[int]
) -> dict[int, Pool]:
    """The pool of `share` after each of these journal transactions; `opening` is the pool after number `after`.

    `journal_seqs` ascend. A pool's own accounts are moved by postings, never by columnar batches.
    """
    table = schema.posting
    atoms, shares = pool_account(share), POOL_SHARES
    query = sa.select(table).where(
        sa.or_(
            (table.c.account == atoms) & (table.c.asset == underlying(share)),
            (table.c.account == shares) & (table.c.asset == share),
        ),
        table.c.journal_seq > after,
        table.c.journal_seq <= journal_seqs[-1],
    )
    found: dict[int, Pool] = {}
    pool, waiting = opening, deque(journal_seqs)
    for row in connection.execution_options(stream_results=True).execute(query.order_by(table.c.journal_seq)):
        while waiting[0] < row.journal_seq:
            found[waiting.popleft()] = pool
        moved = join_atoms(row.atoms_high, row.atoms)
        pool = Pool(pool.atoms + moved, pool.shares) if row.account == atoms else Pool(pool.atoms, pool.shares + moved)
    return found | dict.fromkeys(waiting, pool)
