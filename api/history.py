"""The history: orders, fills, trades, candles, deposits and withdrawals in tables that follow the log.   [A-7, W-3]

One thread writes what published blocks brought, in batches, each together with the cursor that says how far it got; so
a block is taken in exactly once. Readers wait until what was published when they asked is written.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event as sa_event

from api import history_schema as schema
from api.candles import HOUR, MINUTE, SECOND, Candle, Series, add_up, base_period
from api.market_data import KEEP, MAX_KLINES, RECENT_TRADES, MarketData
from api.ports import FillRow, KlineRow, Page, TradeRow
from engine.commands import OrderType, SelfTrade, Side, TimeInForce
from engine.events import (
    DepositChanged,
    DepositView,
    ExpiryReason,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderStatus,
    OrderView,
    Outcome,
    Trade,
    WithdrawalChanged,
    WithdrawalView,
)
from engine.state import State
from ledger.blocks import Block
from ledger.database import open_engine

BATCH_OUTCOMES = 2_000
"""Outcomes of one write, about: on SQLite the log's own writer waits that long."""

BATCH_SECONDS = 0.1
"""A write waits this long for more to come, unless somebody wants to read."""

CAPACITY = 200_000
"""Outcomes that may wait to be written; beyond it the publisher waits."""

READERS = 2

Row = TypeVar("Row")


class HistoryFailed(Exception):
    """The history could not be written; the log is not touched by it. Restart to continue where it stopped."""


class History:
    """The tables and their one writer. `start` before blocks come, `close` when no more will.

    `url` is the ledger's database; its schema must be up to date.
    """

    def __init__(self, url: str) -> None:
        self._writer_engine = open_engine(url)
        relaxed = _sqlite_may_lose_the_end if url.startswith("sqlite") else _postgresql_may_lose_the_end
        sa_event.listen(self._writer_engine, "connect", relaxed)
        self._reader_engine = open_engine(url, read_only=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="history-reader")
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._queue: deque[tuple[int, list[Outcome]]] = deque()
        self._queued_outcomes = 0
        self._stopping = False
        self._failure: str | None = None
        self._waiters: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._wanted = False
        """Somebody waits: write at once."""
        with self._reader_engine.connect() as connection:
            height = connection.execute(sa.select(schema.cursor.c.height)).scalar()
        self._written = -1 if height is None else int(height)
        self._published = self._written

    # ---- what the node calls

    def cursor(self) -> int:
        """Height of the newest block whose events are in the tables; -1 for none."""
        return self._written

    def start(self) -> None:
        """Start the writing thread."""
        assert self._thread is None, "the history is already being written"
        self._thread = threading.Thread(target=self._write_until_closed, name="history-writer", daemon=True)
        self._thread.start()

    def on_block(self, block: Block, outcomes: list[Outcome], state: State) -> None:
        """Take in a durable block, in order; one that the tables contain already is skipped.

        Returns at once, unless CAPACITY outcomes wait: then it waits for the writer, so that memory stays bounded and
        nothing is left out. Raises HistoryFailed when writing failed.
        """
        height = block.header.height
        if height <= self._published:
            return
        with self._changed:
            while self._queued_outcomes >= CAPACITY and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise HistoryFailed(self._failure)
            self._published = height
            self._queue.append((height, outcomes))
            self._queued_outcomes += len(outcomes)
            self._changed.notify_all()

    def lag(self) -> int:
        """Outcomes that wait to be written: for metrics, and to slow down the intake before CAPACITY is reached."""
        return self._queued_outcomes

    def flush(self) -> None:
        """Wait until everything taken in is written: after recovery, before `load`. Raises HistoryFailed."""
        with self._changed:
            while self._written < self._published and self._failure is None:
                self._wanted = True
                self._changed.notify_all()
                self._changed.wait()
            if self._failure is not None:
                raise HistoryFailed(self._failure)

    def load(self, market_data: MarketData, state: State) -> None:
        """Give the market data its newest trades and candles, as the tables have them."""
        now_s = market_data.now_s()
        with self._reader_engine.connect() as connection:
            for market_id in state.markets:
                trades, _ = _read_trades(connection, market_id, Page(limit=RECENT_TRADES), count=False)
                trades.reverse()
                kept = {
                    period_s: _read_candles(connection, market_id, period_s, now_s - KEEP[period_s], now_s + 1)
                    for period_s in (MINUTE, HOUR)
                }
                market_data.load_trades(market_id, trades, kept)

    def close(self) -> None:
        """Write what was taken in and stop."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._readers.shutdown()
        self._writer_engine.dispose()
        self._reader_engine.dispose()

    # ---- what the routes ask

    async def orders(
        self,
        subaccount_id: int,
        page: Page,
        *,
        order_id: int | None = None,
        market_ids: Sequence[int] | None = None,
    ) -> tuple[list[OrderView], int]:
        """Orders as they last stood, open ones included, by order id; with the number of all that match."""
        table = schema.order
        wanted = [table.c.subaccount_id == subaccount_id, *_in_markets(table, market_ids)]
        if order_id is not None:
            wanted.append(table.c.order_id == order_id)
        return await self._page(table, wanted, (table.c.order_id,), page, _order_of)

    async def fills(
        self,
        subaccount_id: int,
        page: Page,
        *,
        order_id: int | None = None,
        market_ids: Sequence[int] | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> tuple[list[FillRow], int]:
        """The subaccount's sides of trades, in the order of the log; with the number of all that match."""
        table = schema.fill
        wanted = [table.c.subaccount_id == subaccount_id, *_in_markets(table, market_ids)]
        wanted += _in_time(table.c.at_us, from_ms, to_ms)
        if order_id is not None:
            wanted.append(table.c.order_id == order_id)
        return await self._page(table, wanted, (table.c.command_seq, table.c.ordinal), page, _fill_of)

    async def trades(self, market_id: int, page: Page) -> tuple[list[TradeRow], int]:
        """A market's trades by trade id; with the number of all."""
        return await self._read(lambda connection: _read_trades(connection, market_id, page, count=True))

    async def klines(self, market_id: int, interval: str, start_s: int, end_s: int) -> list[KlineRow]:
        """Candles that begin in [start_s, end_s), oldest first, however old.   [W-3]"""
        period_s = base_period(interval)

        def read(connection: sa.Connection) -> list[KlineRow]:
            candles = _read_candles(connection, market_id, period_s, start_s, end_s)
            return add_up(candles, interval, start_s, end_s, MAX_KLINES)

        return await self._read(read)

    async def deposits(
        self, subaccount_id: int, page: Page, *, from_ms: int | None = None, to_ms: int | None = None
    ) -> tuple[list[DepositView], int]:
        """Deposits as they last stood, by id; with the number of all that match."""
        table = schema.deposit
        wanted = [table.c.subaccount_id == subaccount_id, *_in_time(table.c.created_at_us, from_ms, to_ms)]
        return await self._page(table, wanted, (table.c.deposit_id,), page, _deposit_of)

    async def withdrawals(
        self,
        subaccount_id: int,
        page: Page,
        *,
        withdrawal_id: int | None = None,
        client_id: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> tuple[list[WithdrawalView], int]:
        """Withdrawals as they last stood, by id; with the number of all that match."""
        table = schema.withdrawal
        wanted = [table.c.subaccount_id == subaccount_id, *_in_time(table.c.created_at_us, from_ms, to_ms)]
        if withdrawal_id is not None:
            wanted.append(table.c.withdrawal_id == withdrawal_id)
        if client_id is not None:
            wanted.append(table.c.client_id == client_id)
        return await self._page(table, wanted, (table.c.withdrawal_id,), page, _withdrawal_of)

    async def _page(
        self,
        table: sa.Table,
        wanted: list[sa.ColumnElement[bool]],
        order_by: tuple[sa.Column[Any], ...],
        page: Page,
        of_row: Callable[[Any], Row],
    ) -> tuple[list[Row], int]:
        keys = order_by if page.ascending else tuple(key.desc() for key in order_by)
        query = sa.select(table).where(*wanted).order_by(*keys).limit(page.limit).offset(page.offset)
        counting = sa.select(sa.func.count()).select_from(table).where(*wanted)

        def read(connection: sa.Connection) -> tuple[list[Row], int]:
            rows = [of_row(row) for row in connection.execute(query)]
            return rows, int(connection.execute(counting).scalar_one())

        return await self._read(read)

    async def _read(self, read: Callable[[sa.Connection], Row]) -> Row:
        """Run a query off the event loop, on tables that contain everything published so far."""
        await self._caught_up()

        def run() -> Row:
            with self._reader_engine.connect() as connection:
                return read(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    async def _caught_up(self) -> None:
        """Wait until what was published by now is written: a reader sees what was acknowledged."""
        height = self._published
        if self._written >= height:
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._changed:
            if self._failure is not None:
                raise HistoryFailed(self._failure)
            if self._written >= height:
                return
            self._waiters.append((height, loop, done))
            self._wanted = True
            self._changed.notify_all()
        await done

    # ---- the writing thread

    def _write_until_closed(self) -> None:
        try:
            with self._writer_engine.connect() as connection:
                writer = _Writer(connection)
                while True:
                    taken = self._take()
                    if not taken:
                        return
                    writer.write(taken)
                    self._report(taken)
        except BaseException as error:
            self._fail(f"the history stopped after block {self._written}: {error}")

    def _take(self) -> list[tuple[int, list[Outcome]]]:
        """Wait for blocks and take some; nothing when closed and all is written."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            deadline = time.monotonic() + BATCH_SECONDS
            while not (self._stopping or self._wanted or self._queued_outcomes >= BATCH_OUTCOMES):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            taken: list[tuple[int, list[Outcome]]] = []
            count = 0
            while self._queue and count < BATCH_OUTCOMES:
                taken.append(self._queue.popleft())
                count += len(taken[-1][1])
            return taken

    def _report(self, taken: list[tuple[int, list[Outcome]]]) -> None:
        """These blocks are written: wake who waited for them."""
        with self._changed:
            self._written = taken[-1][0]
            self._queued_outcomes -= sum(len(outcomes) for _height, outcomes in taken)
            if self._written == self._published:
                self._wanted = False
            waiters, self._waiters = self._waiters, []
            for height, loop, done in waiters:
                if height <= self._written:
                    _call(loop, _resolve, done)
                else:
                    self._waiters.append((height, loop, done))
            self._changed.notify_all()

    def _fail(self, reason: str) -> None:
        with self._changed:
            self._failure = reason
            for _height, loop, done in self._waiters:
                _call(loop, _reject, done, reason)
            self._waiters.clear()
            self._changed.notify_all()


class _Writer:
    """Turns outcomes into rows and writes them, on one connection; knows the newest candles."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._postgresql = connection.dialect.name == "postgresql"
        with connection.begin():
            self._newest = _newest_candles(connection)
            if self._postgresql:
                for table in schema.TABLES:
                    connection.exec_driver_sql(
                        f"CREATE TEMP TABLE staging_{table.name} (LIKE {table.name}) ON COMMIT DELETE ROWS"
                    )

    def write(self, taken: list[tuple[int, list[Outcome]]]) -> None:
        """Write the blocks and move the cursor, in one transaction."""
        batch = _Batch()
        for _height, outcomes in taken:
            for outcome in outcomes:
                self._collect(batch, outcome)
        with self._connection.begin():
            for table, rows in batch.rows():
                if rows:
                    self._upsert(table, rows)
            self._upsert(schema.cursor, [(1, taken[-1][0])])

    def _collect(self, batch: _Batch, outcome: Outcome) -> None:
        ordinal = 0
        for event in outcome.events:
            kind = type(event)
            if kind is Trade:
                batch.orders[event.taker.order_id] = event.taker
                batch.orders[event.maker.order_id] = event.maker
                self._collect_trade(batch, event, outcome, ordinal)
                ordinal += 2
            elif kind is OrderAccepted or kind is OrderCancelled or kind is OrderExpired:
                batch.orders[event.order.order_id] = event.order
            elif kind is DepositChanged:
                batch.deposits[event.deposit.deposit_id] = event.deposit
            elif kind is WithdrawalChanged:
                batch.withdrawals[event.withdrawal.withdrawal_id] = event.withdrawal

    def _collect_trade(self, batch: _Batch, trade: Trade, outcome: Outcome, ordinal: int) -> None:
        seq, at_us = outcome.seq, outcome.at_us
        batch.fills.append(_fill_row(trade, trade.taker, seq, ordinal, at_us))
        batch.fills.append(_fill_row(trade, trade.maker, seq, ordinal + 1, at_us))
        market_id = trade.market_id
        quote = str(trade.quote_atoms)
        is_buyer_maker = trade.taker.side == Side.ASK
        batch.trades.append(
            (market_id, trade.trade_id, trade.price_ticks, trade.lots, quote, at_us, is_buyer_maker)
        )
        at_s = at_us // 1_000_000
        for period_s in (MINUTE, HOUR):
            start_s = at_s - at_s % period_s
            candle = self._newest.get((market_id, period_s))
            if candle is None or candle.start_s != start_s:
                candle = self._newest[market_id, period_s] = Candle(start_s, trade.price_ticks)
            candle.add(trade.price_ticks, trade.lots, trade.quote_atoms)
            batch.candles[market_id, period_s, start_s] = candle

    def _upsert(self, table: sa.Table, rows: list[tuple[Any, ...]]) -> None:
        if self._postgresql:
            self._upsert_postgresql(table, rows)
        else:
            marks = ", ".join("?" * len(table.c))
            self._connection.exec_driver_sql(_insert(table, f"VALUES ({marks})"), rows)

    def _upsert_postgresql(self, table: sa.Table, rows: list[tuple[Any, ...]]) -> None:
        """By COPY into a table of this connection: a tenth of the time of row-by-row statements."""
        staging = f"staging_{table.name}"
        driver = self._connection.connection.driver_connection
        assert driver is not None
        with driver.cursor() as cursor:
            with cursor.copy(f"COPY {staging} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            cursor.execute(_insert(table, f"TABLE {staging}"))


class _Batch:
    """What some blocks brought; of a thing that changes, only how it stood last."""

    def __init__(self) -> None:
        self.orders: dict[int, OrderView] = {}
        self.fills: list[tuple[Any, ...]] = []
        self.trades: list[tuple[Any, ...]] = []
        self.candles: dict[tuple[int, int, int], Candle] = {}
        self.deposits: dict[int, DepositView] = {}
        self.withdrawals: dict[int, WithdrawalView] = {}

    def rows(self) -> list[tuple[sa.Table, list[tuple[Any, ...]]]]:
        """By table, in the order of its columns."""
        return [
            (schema.order, [_order_row(order) for order in self.orders.values()]),
            (schema.fill, self.fills),
            (schema.trade, self.trades),
            (schema.kline, [_candle_row(*key[:2], candle) for key, candle in self.candles.items()]),
            (schema.deposit, [_deposit_row(deposit) for deposit in self.deposits.values()]),
            (schema.withdrawal, [_withdrawal_row(withdrawal) for withdrawal in self.withdrawals.values()]),
        ]


def _insert(table: sa.Table, source: str) -> str:
    """INSERT … from `source`, all columns in order; a row that exists takes the new values."""
    keys = [column.name for column in table.primary_key.columns]
    others = [column.name for column in table.c if column.name not in keys]
    names = ", ".join(column.name for column in table.c)
    values = ", ".join(f"{name} = excluded.{name}" for name in others)
    return (
        f"INSERT INTO {table.name} ({names}) {source} "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {values}"
    )


def _order_row(order: OrderView) -> tuple[Any, ...]:
    return (
        order.order_id,
        order.client_id,
        order.market_id,
        order.subaccount_id,
        order.user_id,
        int(order.order_type),
        int(order.side),
        order.price_ticks,
        order.lots,
        str(order.quote_atoms),
        order.executed_lots,
        str(order.executed_quote_atoms),
        int(order.status),
        int(order.time_in_force),
        order.post_only,
        order.reduce_only,
        int(order.self_trade),
        order.created_at_us,
        None if order.expiry_reason is None else int(order.expiry_reason),
    )


def _order_of(row: Any) -> OrderView:
    return OrderView(
        row.order_id,
        row.client_id,
        row.market_id,
        row.subaccount_id,
        row.user_id,
        OrderType(row.order_type),
        Side(row.side),
        row.price_ticks,
        row.lots,
        int(row.quote_atoms),
        row.executed_lots,
        int(row.executed_quote_atoms),
        OrderStatus(row.status),
        TimeInForce(row.time_in_force),
        bool(row.post_only),
        bool(row.reduce_only),
        SelfTrade(row.self_trade),
        row.created_at_us,
        None if row.expiry_reason is None else ExpiryReason(row.expiry_reason),
    )


def _fill_row(trade: Trade, order: OrderView, seq: int, ordinal: int, at_us: int) -> tuple[Any, ...]:
    is_maker = order is trade.maker
    return (
        seq,
        ordinal,
        trade.market_id,
        trade.trade_id,
        order.order_id,
        order.client_id,
        order.subaccount_id,
        int(order.side),
        trade.price_ticks,
        trade.lots,
        str(trade.quote_atoms),
        trade.maker_fee_asset_id if is_maker else trade.taker_fee_asset_id,
        str(trade.maker_fee_atoms if is_maker else trade.taker_fee_atoms),
        is_maker,
        at_us,
    )


def _fill_of(row: Any) -> FillRow:
    return FillRow(
        row.market_id,
        row.trade_id,
        row.order_id,
        row.client_id,
        row.subaccount_id,
        Side(row.side),
        row.price_ticks,
        row.lots,
        int(row.quote_atoms),
        row.fee_asset_id,
        int(row.fee_atoms),
        bool(row.is_maker),
        row.at_us,
    )


def _candle_row(market_id: int, period_s: int, candle: Candle) -> tuple[Any, ...]:
    return (
        market_id,
        period_s,
        candle.start_s,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        str(candle.lots),
        str(candle.quote_atoms),
        candle.trades,
    )


def _candle_of(row: Any) -> Candle:
    candle = Candle(row.start_s, row.open_ticks)
    candle.high, candle.low, candle.close = row.high_ticks, row.low_ticks, row.close_ticks
    candle.lots, candle.quote_atoms, candle.trades = int(row.lots), int(row.quote_atoms), row.trades
    return candle


def _storable(text: str) -> str:
    """Text as every database takes it: PostgreSQL has no NUL. A log that holds one must not stop its history for ever.

    The log keeps what was said; only here a NUL shows as U+FFFD.
    """
    return text.replace("\0", "\ufffd")


def _deposit_row(deposit: DepositView) -> tuple[Any, ...]:
    return (
        deposit.deposit_id,
        deposit.chain_id,
        _storable(deposit.tx_id),
        deposit.index,
        deposit.wallet,
        deposit.subaccount_id,
        deposit.asset_id,
        str(deposit.atoms),
        deposit.state,
        deposit.created_at_us,
    )


def _deposit_of(row: Any) -> DepositView:
    return DepositView(
        row.deposit_id,
        row.chain_id,
        row.tx_id,
        row.tx_index,
        row.wallet,
        row.subaccount_id,
        row.asset_id,
        int(row.atoms),
        row.state,
        row.created_at_us,
    )


def _withdrawal_row(withdrawal: WithdrawalView) -> tuple[Any, ...]:
    return (
        withdrawal.withdrawal_id,
        withdrawal.subaccount_id,
        withdrawal.chain_id,
        withdrawal.asset_id,
        str(withdrawal.atoms),
        str(withdrawal.fee_atoms),
        _storable(withdrawal.address),
        _storable(withdrawal.client_id),
        withdrawal.state,
        _storable(withdrawal.tx_id),
        _storable(withdrawal.reason),
        withdrawal.created_at_us,
    )


def _withdrawal_of(row: Any) -> WithdrawalView:
    return WithdrawalView(
        row.withdrawal_id,
        row.subaccount_id,
        row.chain_id,
        row.asset_id,
        int(row.atoms),
        int(row.fee_atoms),
        row.address,
        row.client_id,
        row.state,
        row.tx_id,
        row.reason,
        row.created_at_us,
    )


def _trade_of(row: Any) -> TradeRow:
    return TradeRow(
        row.trade_id, row.price_ticks, row.lots, int(row.quote_atoms), row.at_us, bool(row.is_buyer_maker)
    )


def _read_trades(
    connection: sa.Connection, market_id: int, page: Page, *, count: bool
) -> tuple[list[TradeRow], int]:
    table = schema.trade
    key = table.c.trade_id if page.ascending else table.c.trade_id.desc()
    query = sa.select(table).where(table.c.market_id == market_id).order_by(key)
    rows = [_trade_of(row) for row in connection.execute(query.limit(page.limit).offset(page.offset))]
    if not count:
        return rows, len(rows)
    # Trades of a market are numbered from 1 without a gap.
    newest = connection.execute(sa.select(sa.func.max(table.c.trade_id)).where(table.c.market_id == market_id))
    return rows, int(newest.scalar() or 0)


def _read_candles(
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
    return [_candle_of(row) for row in connection.execute(query)]


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


def _newest_candles(connection: sa.Connection) -> dict[tuple[int, int], Candle]:
    table = schema.kline
    newest = (
        sa.select(table.c.market_id, table.c.period_s, sa.func.max(table.c.start_s).label("start_s"))
        .group_by(table.c.market_id, table.c.period_s)
        .subquery()
    )
    same = (
        (table.c.market_id == newest.c.market_id)
        & (table.c.period_s == newest.c.period_s)
        & (table.c.start_s == newest.c.start_s)
    )
    rows = connection.execute(sa.select(table).join(newest, same))
    return {(row.market_id, row.period_s): _candle_of(row) for row in rows}


def _in_markets(table: sa.Table, market_ids: Sequence[int] | None) -> list[sa.ColumnElement[bool]]:
    return [] if market_ids is None else [table.c.market_id.in_(market_ids)]


def _in_time(
    column: sa.Column[int], from_ms: int | None, to_ms: int | None
) -> list[sa.ColumnElement[bool]]:
    """`from_ms` inclusive, `to_ms` exclusive; bounds beyond 64 bits of microseconds match as their sign says."""
    wanted: list[sa.ColumnElement[bool]] = []
    if from_ms is not None:
        wanted.append(column >= min(max(from_ms, 0), _LAST_MS) * 1000)
    if to_ms is not None:
        wanted.append(column < min(max(to_ms, 0), _LAST_MS) * 1000)
    return wanted


_LAST_MS = (2**63 - 1) // 1000


def _sqlite_may_lose_the_end(connection: Any, _record: Any) -> None:
    # No sync per commit: after a power cut the tables and their cursor end earlier together, and the log fills them up.
    connection.execute("PRAGMA synchronous=NORMAL")
    # Half of what the log's own writer waits for: checkpoints happen in this thread, not in a commit that users await.
    connection.execute("PRAGMA wal_autocheckpoint=8192")


def _postgresql_may_lose_the_end(connection: Any, _record: Any) -> None:
    connection.execute("SET synchronous_commit = off")
    connection.commit()


def _call(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    """Run on the loop's own thread; a loop that has ended has nobody left who waits."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _reject(done: asyncio.Future[None], reason: str) -> None:
    if not done.done():
        done.set_exception(HistoryFailed(reason))
