"""Pages of a table of the history, and the filters that several subjects share.   [W-3]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from api.history.following import History
from api.rows import Page

Row = TypeVar("Row")

_LAST_MS = (2**63 - 1) // 1000


async def read_page(
    history: History,
    table: sa.Table,
    wanted: list[sa.ColumnElement[bool]],
    order_by: tuple[sa.Column[Any], ...],
    page: Page,
    from_row: Callable[[Any], Row],
) -> tuple[list[Row], int]:
    """One page of a table's rows that match, in the order of the keys; with the number of all that match."""
    keys = order_by if page.ascending else tuple(key.desc() for key in order_by)
    query = sa.select(table).where(*wanted).order_by(*keys).limit(page.limit).offset(page.offset)
    counting = sa.select(sa.func.count()).select_from(table).where(*wanted)

    def read(connection: sa.Connection) -> tuple[list[Row], int]:
        rows = [from_row(row) for row in connection.execute(query)]
        return rows, int(connection.execute(counting).scalar_one())

    return await history.read(read)


def in_markets(table: sa.Table, market_ids: Sequence[int] | None) -> list[sa.ColumnElement[bool]]:
    return [] if market_ids is None else [table.c.market_id.in_(market_ids)]


def in_time(
    column: sa.Column[int], from_ms: int | None, to_ms: int | None
) -> list[sa.ColumnElement[bool]]:
    """`from_ms` inclusive, `to_ms` exclusive; bounds beyond 64 bits of microseconds match as their sign says."""
    wanted: list[sa.ColumnElement[bool]] = []
    if from_ms is not None:
        wanted.append(column >= min(max(from_ms, 0), _LAST_MS) * 1000)
    if to_ms is not None:
        wanted.append(column < min(max(to_ms, 0), _LAST_MS) * 1000)
    return wanted
