"""Liquidity pools as they were: swaps, what providers moved, leveraged longs, epochs, looked up.   [X-1 … X-11]"""

from __future__ import annotations

import sqlalchemy as sa

from api.history import schema
from api.history.following import History
from api.history.pages import read_page
from api.history.records import liquidity_from, long_from, pool_epoch_from, swap_from
from api.rows import LiquidityRow, LongRow, Page, PoolEpochRow, SwapRow


async def read_swaps(
    history: History, page: Page, *, subaccount_id: int | None = None, pool_id: int | None = None
) -> tuple[list[SwapRow], int]:
    """Swaps of a subaccount, in a pool, or both, in the order of the log; with the number of all that match."""
    table = schema.swap
    keys = (table.c.command_seq, table.c.ordinal)
    return await read_page(history, table, _wanted(table, subaccount_id, pool_id), keys, page, swap_from)


async def read_liquidity(
    history: History, page: Page, *, subaccount_id: int | None = None, pool_id: int | None = None
) -> tuple[list[LiquidityRow], int]:
    """What a subaccount, or everybody in a pool, added and removed; with the number of all that match."""
    table = schema.liquidity
    keys = (table.c.command_seq, table.c.ordinal)
    return await read_page(history, table, _wanted(table, subaccount_id, pool_id), keys, page, liquidity_from)


async def read_longs(
    history: History, subaccount_id: int, page: Page, *, pool_id: int | None = None, is_open: bool | None = None
) -> tuple[list[LongRow], int]:
    """A subaccount's leveraged longs by id, open ones as they were opened; with the number of all that match."""
    table, ends = schema.long, schema.long_close
    wanted = _wanted(table, subaccount_id, pool_id)
    if is_open is not None:
        wanted.append(ends.c.position_id.is_(None) if is_open else ends.c.position_id.is_not(None))
    joined = table.outerjoin(ends, table.c.position_id == ends.c.position_id)
    closing = [column.label(f"close_{column.name}") for column in ends.c]
    key = table.c.position_id if page.ascending else table.c.position_id.desc()
    query = sa.select(table, *closing).select_from(joined).where(*wanted).order_by(key)
    counting = sa.select(sa.func.count()).select_from(joined).where(*wanted)

    def read(connection: sa.Connection) -> tuple[list[LongRow], int]:
        rows = [long_from(row) for row in connection.execute(query.limit(page.limit).offset(page.offset))]
        return rows, int(connection.execute(counting).scalar_one())

    return await history.read(read)


async def read_pool_epochs(history: History, pool_id: int, page: Page) -> tuple[list[PoolEpochRow], int]:
    """Epochs of a pool in the order of the log; with the number of all."""
    table = schema.pool_epoch
    return await read_page(
        history, table, [table.c.pool_id == pool_id], (table.c.command_seq,), page, pool_epoch_from
    )


def _wanted(table: sa.Table, subaccount_id: int | None, pool_id: int | None) -> list[sa.ColumnElement[bool]]:
    pairs = ((table.c.subaccount_id, subaccount_id), (table.c.pool_id, pool_id))
    return [column == value for column, value in pairs if value is not None]
