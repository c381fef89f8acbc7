"""A market's trades and candles, looked up; and what market data in memory begins with.   [W-3]"""

from __future__ import annotations

import sqlalchemy as sa

from api.candles import HOUR, MINUTE, SECOND, Candle, Series, add_up, base_period, bounds
from api.history import schema
from api.history.following import History
from api.history.prices import price_candle
from api.history.records import candle_from, trade_from
from api.market_data import KEEP, MAX_KLINES, RECENT_TRADES, MarketData
from api.rows import KlineRow, Page, TradeRow
from engine.state import State


async def read_trades(history: History, market_id: int, page: Page) -> tuple[list[TradeRow], int]:
    """A market's trades by trade id; with the number of all."""
    return await history.read(lambda connection: _trades_page(connection, market_id, page, count=True))


async def read_klines(history: History, market_id: int, interval: str, start_s: int, end_s: int) -> list[KlineRow]:
    """Candles that begin in [start_s, end_s), oldest first, however old.   [W-3]"""
    period_s = base_period(interval)

    def read(connection: sa.Connection) -> list[KlineRow]:
        candles = _candles_between(connection, market_id, period_s, start_s, end_s)
        return add_up(candles, interval, start_s, end_s, MAX_KLINES)

    return await history.read(read)


async def read_prices(
    history: History, market_id: int, is_index: bool, interval: str, start_s: int, end_s: int
) -> list[KlineRow]:
    """Candles that begin in [start_s, end_s), oldest first; a price that stood still is a flat one.   [W-3]"""
    period_s = max(MINUTE, base_period(interval))
    table = schema.price
    wanted = (
        table.c.market_id == market_id,
        table.c.is_index == int(is_index),
        table.c.period_s == period_s,
    )
    place = bounds(interval, start_s)
    first_s = place.start_s if place.start_s >= start_s else place.end_s
    inside = (
        sa.select(table).where(*wanted, table.c.start_s >= first_s, table.c.start_s < end_s).order_by(table.c.start_s)
    )
    before = sa.select(table).where(*wanted, table.c.start_s < first_s).order_by(table.c.start_s.desc()).limit(1)

    def read(connection: sa.Connection) -> list[KlineRow]:
        candles = [price_candle(row) for row in connection.execute(inside)]
        last = connection.execute(before).first()
        if last is not None and (not candles or candles[0].start_s > first_s):
            candles.insert(0, Candle(first_s, int(last.close)))
        return _filled(add_up(candles, interval, start_s, end_s, MAX_KLINES))

    return await history.read(read)


def load_market_data(history: History, market_data: MarketData, state: State) -> None:
    """Give the market data its newest trades and candles, as the tables have them."""
    now_s = market_data.now_s()
    with history.connect() as connection:
        for market_id in state.markets:
            trades, _ = _trades_page(connection, market_id, Page(limit=RECENT_TRADES), count=False)
            trades.reverse()
            kept = {
                period_s: _candles_between(connection, market_id, period_s, now_s - KEEP[period_s], now_s + 1)
                for period_s in (MINUTE, HOUR)
            }
            market_data.load_trades(market_id, trades, kept)


def _trades_page(
    connection: sa.Connection, market_id: int, page: Page, *, count: bool
) -> tuple[list[TradeRow], int]:
    table = schema.trade
    key = table.c.trade_id if page.ascending else table.c.trade_id.desc()
    query = sa.select(table).where(table.c.market_id == market_id).order_by(key)
    rows = [trade_from(row) for row in connection.execute(query.limit(page.limit).offset(page.offset))]
    if not count:
        return rows, len(rows)
    # Trades of a market are numbered from 1 without a gap.
    newest = connection.execute(sa.select(sa.func.max(table.c.trade_id)).where(table.c.market_id == market_id))
    return rows, int(newest.scalar() or 0)


def _candles_between(
    connection: sa.Connection, market_id: int, period_s: int, start_s: int, end_s: int
) -> list[Candle]:
    """Base candles that begin in [start_s, end_s), oldest first; those of a second are made from the trades."""
    if period_s == SECOND:
        return _candles_of_trades(connection, market_id, start_s, end_s)
    table = schema.kline
    query = (
        sa.select(table)
        .where(table.c.market_id == market_id, table.c.period_s == period_s)
        .where(table.c.start_s >= start_s, table.c.start_s < end_s)
        .order_by(table.c.start_s)
    )
    return [candle_from(row) for row in connection.execute(query)]


def _candles_of_trades(connection: sa.Connection, market_id: int, start_s: int, end_s: int) -> list[Candle]:
    table = schema.trade
    first = _first_trade_at(connection, market_id, start_s * 1_000_000)
    query = sa.select(table).where(table.c.market_id == market_id, table.c.trade_id >= first)
    series = Series(SECOND, end_s)
    for row in connection.execute(query.where(table.c.at_us < end_s * 1_000_000).order_by(table.c.trade_id)):
        series.add(row.at_us // 1_000_000, row.price_ticks, row.lots, int(row.quote_atoms))
        if len(series.candles) > MAX_KLINES:
            break
    return list(series.candles.values())


def _first_trade_at(connection: sa.Connection, market_id: int, at_us: int) -> int:
    """The first trade at `at_us` or later: times rise with the trade ids, so halving finds it without an index."""
    table = schema.trade
    of_market = table.c.market_id == market_id
    newest = connection.execute(sa.select(sa.func.max(table.c.trade_id)).where(of_market)).scalar() or 0
    low, high = 1, int(newest) + 1
    while low < high:
        middle = (low + high) // 2
        query = sa.select(table.c.at_us).where(of_market, table.c.trade_id == middle)
        if connection.execute(query).scalar_one() < at_us:
            low = middle + 1
        else:
            high = middle
    return low


def _filled(rows: list[KlineRow]) -> list[KlineRow]:
    """Where nothing moved, the price is what it was."""
    filled: list[KlineRow] = []
    for row in rows:
        if row.close_price_ticks is None:
            price = filled[-1].close_price_ticks
            row = KlineRow(row.start_s, row.end_s, price, price, price, price, 0, 0, 0)
        filled.append(row)
    return filled
