"""What shares of a money market are worth in atoms of their asset, at any moment, from postings alone.   [A-12, B-4]

A pool's atoms and all shares in it are balances like any other, so what a share was worth then is their quotient then,
with the interest that was posted by then. Amounts are signed as posted: a claim is negative, a debt positive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from ledger import schema
from ledger.amounts import join_atoms, mul_div_down, mul_div_up
from ledger.chart import POOL_BORROWED, POOL_LENT, POOL_SHARES, AccountId, AssetId, lend_share, underlying


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
