"""A subaccount's strategies as they last stood: looked up.   [S-7, W-3]"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from api.history import schema
from api.history.following import History
from api.history.pages import in_markets, read_page
from api.rows import Page
from engine.events import StrategyView

_decode = msgspec.json.Decoder(StrategyView).decode


async def read_strategies(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    strategy_id: int | None = None,
    market_ids: Sequence[int] | None = None,
) -> tuple[list[StrategyView], int]:
    """Strategies by id, those that run included; with the number of all that match."""
    table = schema.strategy
    wanted = [table.c.subaccount_id == subaccount_id, *in_markets(table, market_ids)]
    if strategy_id is not None:
        wanted.append(table.c.strategy_id == strategy_id)
    return await read_page(history, table, wanted, (table.c.strategy_id,), page, lambda row: _decode(row.view))
