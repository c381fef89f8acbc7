"""A subaccount's orders and fills, looked up.   [W-3]"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from api.history import schema
from api.history.following import History
from api.history.pages import in_markets, in_time, read_page
from api.history.records import fill_from, order_from
from api.rows import FillRow, Page
from engine.commands import Origin
from engine.events import OrderView


async def read_orders(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    order_id: int | None = None,
    market_ids: Sequence[int] | None = None,
    strategy_id: int | None = None,
) -> tuple[list[OrderView], int]:
    """Orders as they last stood, open ones included, by order id; with the number of all that match."""
    table = schema.order
    wanted = [table.c.subaccount_id == subaccount_id, *in_markets(table, market_ids)]
    if order_id is not None:
        wanted.append(table.c.order_id == order_id)
    if strategy_id is not None:
        wanted.append(table.c.strategy_id == strategy_id)
    return await read_page(history, table, wanted, (table.c.order_id,), page, order_from)


async def read_fills(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    order_id: int | None = None,
    market_ids: Sequence[int] | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    strategy_id: int | None = None,
    origins: Sequence[Origin] | None = None,
) -> tuple[list[FillRow], int]:
    """The subaccount's sides of trades, in the order of the log; with the number of all that match."""
    table = schema.fill
    wanted = [table.c.subaccount_id == subaccount_id, *in_markets(table, market_ids)]
    wanted += in_time(table.c.at_us, from_ms, to_ms)
    if order_id is not None:
        wanted.append(table.c.order_id == order_id)
    if strategy_id is not None:
        of_strategy = sa.select(schema.order.c.order_id).where(schema.order.c.strategy_id == strategy_id)
        wanted.append(table.c.order_id.in_(of_strategy))
    if origins is not None:
        wanted.append(table.c.origin.in_([int(origin) for origin in origins]))
    return await read_page(history, table, wanted, (table.c.command_seq, table.c.ordinal), page, fill_from)
