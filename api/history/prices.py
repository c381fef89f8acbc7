"""Candles of marks and indexes on their way into the tables.   [P-1, P-2, W-3]"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.candles import HOUR, MINUTE, Candle
from api.history import schema

_PERIODS = (MINUTE, HOUR)

Key = tuple[int, int, int]
"""(market, 1 for the index or 0 for the mark, period in seconds)."""


class PriceCandles:
    """The newest candle of each price, and those that changed since they were last taken."""

    def __init__(self, connection: sa.Connection) -> None:
        self._newest = _newest(connection)
        self._changed: dict[tuple[int, int, int, int], Candle] = {}

    def add(self, rows: tuple[tuple[int, int, int], ...], at_us: int) -> None:
        """Mark and index of some markets at a moment, as `MarketsPriced` has them; moments never go back."""
        at_s = at_us // 1_000_000
        for market_id, mark, index in rows:
            for is_index, price in ((0, mark), (1, index)):
                for period_s in _PERIODS if price else ():
                    self._add((market_id, is_index, period_s), at_s - at_s % period_s, price)

    def take(self) -> list[tuple[Any, ...]]:
        """Rows of `history_price` that changed."""
        changed, self._changed = self._changed, {}
        return [
            (*key, str(candle.open), str(candle.high), str(candle.low), str(candle.close))
            for key, candle in changed.items()
        ]

    def _add(self, key: Key, start_s: int, price: int) -> None:
        candle = self._newest.get(key)
        if candle is None or candle.start_s != start_s:
            candle = self._newest[key] = Candle(start_s, price)
        candle.add(price, 0, 0)
        self._changed[*key, start_s] = candle


def price_candle(row: Any) -> Candle:
    candle = Candle(row.start_s, int(row.open))
    candle.high, candle.low, candle.close = int(row.high), int(row.low), int(row.close)
    return candle


def _newest(connection: sa.Connection) -> dict[Key, Candle]:
    table = schema.price
    keys = (table.c.market_id, table.c.is_index, table.c.period_s)
    newest = sa.select(*keys, sa.func.max(table.c.start_s).label("start_s")).group_by(*keys).subquery()
    same = sa.and_(*(table.c[name] == newest.c[name] for name in ("market_id", "is_index", "period_s", "start_s")))
    return {
        (row.market_id, row.is_index, row.period_s): price_candle(row)
        for row in connection.execute(sa.select(table).join(newest, same))
    }
