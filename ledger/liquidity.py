"""What a liquidity pool has, and what units of it are worth, after any block, from postings alone.   [A-12, X-3, X-14]

A side's depth is its coins less what is kept of them for positions, and what positions owe: all of it accounts of the
pool, like any other.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from ledger import schema
from ledger.amounts import mul_div_down
from ledger.balances import account_balances
from ledger.chart import (
    AssetId,
    amm_book,
    amm_pool,
    external_custody,
    external_owed,
    native_custody,
    native_owed,
    pool_units,
)
from ledger.database import reading
from ledger.journal import JournalKind, decode_memo


class Depths(NamedTuple):
    """A pool's two sides in atoms, what positions owe included, and all units.   [X-1, X-4]"""

    native_asset: AssetId
    native: int
    external: int
    units: int

    def part(self, units: int) -> tuple[int, int]:
        """(native, external) atoms that these units are of the depths, each rounded down; a withdrawal may round
        otherwise.   [X-4]
        """
        if not self.units:
            return 0, 0
        return mul_div_down(self.native, units, self.units), mul_div_down(self.external, units, self.units)


def depths(engine: sa.Engine, pool_id: int, as_of: int | None = None) -> Depths:
    """The pool after block `as_of` (None: now). LookupError when there never was such a pool.   [A-12]"""
    native_asset = _native_of(engine, pool_id)
    coins = account_balances(engine, amm_pool(pool_id), as_of)
    book = account_balances(engine, amm_book(pool_id), as_of)
    # Coins and debts are credits here, custody and units debits.
    native = -coins.get(native_asset, 0) - book.get(native_custody(pool_id), 0) - book.get(native_owed(pool_id), 0)
    external = -coins.get(pool_id, 0) - book.get(external_custody(pool_id), 0) - book.get(external_owed(pool_id), 0)
    return Depths(native_asset, native, external, book.get(pool_units(pool_id), 0))


def _native_of(engine: sa.Engine, pool_id: int) -> AssetId:
    """The pool's two assets stay for ever: any record of it says them."""
    table = schema.journal
    query = sa.select(table.c.memo).where(table.c.kind == JournalKind.POOL_CONFIGURED)
    with reading(engine) as connection:
        for (memo,) in connection.execute(query):
            pool, native = decode_memo(bytes(memo))[:2]
            if pool == pool_id:
                return int(native)
    raise LookupError(f"no liquidity pool {pool_id} in this log")
