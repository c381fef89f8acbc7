"""From published outcomes to rows: a batch of blocks becomes one transaction that also moves the cursor.   [A-7]"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event as sa_event

from api.candles import HOUR, MINUTE, Candle
from api.history import schema
from api.history.loans import Loan, Movement, moved_loans, running_periods
from api.history.positions import Change, Position, changed_positions
from api.history.prices import PriceCandles
from api.history.records import (
    candle_from,
    candle_row,
    deposit_row,
    dust_row,
    fill_row,
    funding_row,
    liquidation_row,
    liquidity_row,
    long_close_row,
    long_row,
    movement_row,
    order_row,
    pool_epoch_row,
    pool_row,
    quote_row,
    rfq_fill_row,
    rfq_row,
    settlement_row,
    shared_loss_row,
    strategy_row,
    swap_row,
    trade_row,
    withdrawal_row,
)
from engine.events import (
    DepositChanged,
    DepositView,
    DustConverted,
    FundingCharged,
    LendingMoved,
    LiquidationChanged,
    LiquidityMoved,
    LongClosed,
    LongOpened,
    LossShared,
    MarketsPriced,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderModified,
    OrderView,
    Outcome,
    PoolAccrued,
    PoolEpochRan,
    PoolSwapped,
    PositionChanged,
    PositionsSettled,
    QuoteView,
    RfqChanged,
    RfqView,
    SettlementMoved,
    StrategyChanged,
    StrategyView,
    Trade,
    TriggerFailed,
    TriggerPlaced,
    WithdrawalChanged,
    WithdrawalView,
)
from ledger.database import open_engine

_PERPETUAL_EVENTS = (
    PositionChanged, PositionsSettled, FundingCharged, SettlementMoved, LossShared, LiquidationChanged
)
_AMM_EVENTS = (PoolSwapped, LiquidityMoved, LongOpened, LongClosed, PoolEpochRan)
_ORDER_EVENTS = (OrderAccepted, OrderCancelled, OrderExpired, OrderModified, TriggerPlaced, TriggerFailed)


def open_for_writing(url: str) -> sa.Engine:
    """A writer's engine that does not sync each commit: what a power cut takes away, the log fills up again."""
    engine = open_engine(url)
    relaxed = _sqlite_may_lose_the_end if url.startswith("sqlite") else _postgresql_may_lose_the_end
    sa_event.listen(engine, "connect", relaxed)
    return engine


class Writer:
    """Turns outcomes into rows and writes them, on one connection; knows the newest candles and periods of interest."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._postgresql = connection.dialect.name == "postgresql"
        with connection.begin():
            self._newest = _newest_candles(connection)
            self._closed_periods = running_periods(connection)
            self._newest_ticks = _newest_ticks(connection)
            self._prices = PriceCandles(connection)
            if self._postgresql:
                for table in schema.TABLES:
                    connection.exec_driver_sql(
                        f"CREATE TEMP TABLE staging_{table.name} (LIKE {table.name}) ON COMMIT DELETE ROWS"
                    )

    def write(self, taken: list[tuple[int, list[Outcome]]]) -> None:
        """Write the blocks and move the cursor, in one transaction."""
        batch = Batch()
        for _height, outcomes in taken:
            for outcome in outcomes:
                self._collect(batch, outcome)
        with self._connection.begin():
            if batch.movements:
                batch.loans = moved_loans(self._connection, batch.movements)
            if batch.changes:
                batch.positions = changed_positions(self._connection, batch.changes)
            for table, rows in (*batch.rows(), (schema.price, self._prices.take())):
                if rows:
                    self._upsert(table, rows)
            self._upsert(schema.cursor, [(1, taken[-1][0])])

    def _collect(self, batch: Batch, outcome: Outcome) -> None:
        ordinal = 0
        movements = conversions = 0
        places: dict[type, int] = {}
        for event in outcome.events:
            kind = type(event)
            if kind is Trade:
                batch.orders[event.taker.order_id] = event.taker
                batch.orders[event.maker.order_id] = event.maker
                self._collect_trade(batch, event, outcome, ordinal)
                ordinal += 2
            elif kind in _ORDER_EVENTS:
                batch.orders[event.order.order_id] = event.order
            elif kind is DepositChanged:
                batch.deposits[event.deposit.deposit_id] = event.deposit
            elif kind is WithdrawalChanged:
                batch.withdrawals[event.withdrawal.withdrawal_id] = event.withdrawal
            elif kind is LendingMoved:
                period = self._closed_periods.get(event.asset_id, 0) + 1
                batch.movements.append(Movement(event, outcome.seq, movements, outcome.at_us, period))
                movements += 1
            elif kind is PoolAccrued:
                period = self._closed_periods[event.asset_id] = self._closed_periods.get(event.asset_id, 0) + 1
                batch.pools.append(pool_row(event, period))
            elif kind is DustConverted:
                batch.dust.append(dust_row(event, outcome.seq, conversions, outcome.at_us))
                conversions += 1
            elif kind is MarketsPriced:
                self._prices.add(event.rows, outcome.at_us)
            elif kind is StrategyChanged:
                batch.strategies[event.strategy.strategy_id] = event.strategy
            elif kind is RfqChanged:
                _collect_rfq(batch, event, outcome.at_us)
            elif kind in _PERPETUAL_EVENTS:
                place = places[kind] = places.get(kind, -1) + 1
                self._collect_perpetual(batch, event, outcome, place)
            elif kind in _AMM_EVENTS:
                place = places[kind] = places.get(kind, -1) + 1
                _collect_amm(batch, event, outcome, place)

    def _collect_perpetual(self, batch: Batch, event: Any, outcome: Outcome, place: int) -> None:
        """`place` counts the events of this kind within the command."""
        seq, at_us = outcome.seq, outcome.at_us
        kind = type(event)
        if kind is PositionChanged:
            batch.changes.append(Change(event, seq, place, at_us))
        elif kind is PositionsSettled:
            for market_id, mark in zip(event.market_ids, event.marks, strict=True):
                before = self._newest_ticks.get(market_id, (0, 0))
                self._newest_ticks[market_id] = seq, mark
                batch.ticks.append((market_id, seq, before[0], str(before[1]), str(mark), at_us))
        elif kind is FundingCharged:
            batch.fundings.append(funding_row(event, seq))
        elif kind is SettlementMoved:
            batch.settlements.append(settlement_row(event, seq, place, at_us))
        elif kind is LossShared:
            batch.losses.append(shared_loss_row(event, seq, place, at_us))
        else:
            batch.liquidations.append(liquidation_row(event, seq, place, at_us))
            # The fee of a step belongs to the change that the step made.
            for change in reversed(batch.changes if event.fee_atoms and event.market_id else ()):
                view = change.changed.position
                if (view.subaccount_id, view.market_id) == (event.subaccount_id, event.market_id):
                    if change.command_seq == seq:
                        change.liquidation_fee_atoms += event.fee_atoms
                    break

    def _collect_trade(self, batch: Batch, trade: Trade, outcome: Outcome, ordinal: int) -> None:
        seq, at_us = outcome.seq, outcome.at_us
        batch.fills.append(fill_row(trade, trade.taker, seq, ordinal, at_us))
        batch.fills.append(fill_row(trade, trade.maker, seq, ordinal + 1, at_us))
        batch.trades.append(trade_row(trade, at_us))
        market_id = trade.market_id
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


class Batch:
    """What some blocks brought; of a thing that changes, only how it stood last."""

    def __init__(self) -> None:
        self.orders: dict[int, OrderView] = {}
        self.fills: list[tuple[Any, ...]] = []
        self.trades: list[tuple[Any, ...]] = []
        self.candles: dict[tuple[int, int, int], Candle] = {}
        self.deposits: dict[int, DepositView] = {}
        self.withdrawals: dict[int, WithdrawalView] = {}
        self.movements: list[Movement] = []
        self.loans: list[Loan] = []
        self.pools: list[tuple[Any, ...]] = []
        self.dust: list[tuple[Any, ...]] = []
        self.changes: list[Change] = []
        self.positions: list[Position] = []
        self.fundings: list[tuple[Any, ...]] = []
        self.ticks: list[tuple[Any, ...]] = []
        self.settlements: list[tuple[Any, ...]] = []
        self.losses: list[tuple[Any, ...]] = []
        self.liquidations: list[tuple[Any, ...]] = []
        self.strategies: dict[int, StrategyView] = {}
        self.rfqs: dict[int, RfqView] = {}
        self.quotes: dict[int, tuple[QuoteView, int]] = {}
        self.rfq_fills: list[tuple[Any, ...]] = []
        self.swaps: list[tuple[Any, ...]] = []
        self.liquidity: list[tuple[Any, ...]] = []
        self.longs: list[tuple[Any, ...]] = []
        self.long_closes: list[tuple[Any, ...]] = []
        self.pool_epochs: list[tuple[Any, ...]] = []

    def rows(self) -> list[tuple[sa.Table, list[tuple[Any, ...]]]]:
        """By table, in the order of its columns."""
        return [
            (schema.order, [order_row(order) for order in self.orders.values()]),
            (schema.fill, self.fills),
            (schema.trade, self.trades),
            (schema.kline, [candle_row(*key[:2], candle) for key, candle in self.candles.items()]),
            (schema.deposit, [deposit_row(deposit) for deposit in self.deposits.values()]),
            (schema.withdrawal, [withdrawal_row(withdrawal) for withdrawal in self.withdrawals.values()]),
            (schema.lending, [movement_row(movement) for movement in self.movements]),
            (schema.loan, [loan.row() for loan in self.loans]),
            (schema.pool, self.pools),
            (schema.dust, self.dust),
            (schema.position, [position.row() for position in self.positions]),
            (schema.position_change, [change.row() for change in self.changes]),
            (schema.funding, self.fundings),
            (schema.tick, self.ticks),
            (schema.settlement, self.settlements),
            (schema.shared_loss, self.losses),
            (schema.liquidation, self.liquidations),
            (schema.strategy, [strategy_row(strategy) for strategy in self.strategies.values()]),
            (schema.rfq, [rfq_row(rfq) for rfq in self.rfqs.values()]),
            (schema.quote, [quote_row(*quote) for quote in self.quotes.values()]),
            (schema.rfq_fill, self.rfq_fills),
            (schema.swap, self.swaps),
            (schema.liquidity, self.liquidity),
            (schema.long, self.longs),
            (schema.long_close, self.long_closes),
            (schema.pool_epoch, self.pool_epochs),
        ]


def _collect_amm(batch: Batch, event: Any, outcome: Outcome, place: int) -> None:
    """What happened in a liquidity pool; `place` counts the events of this kind within the command.   [X-1 … X-11]"""
    seq, at_us = outcome.seq, outcome.at_us
    kind = type(event)
    if kind is PoolSwapped:
        batch.swaps.append(swap_row(event, seq, place, at_us))
    elif kind is LiquidityMoved:
        batch.liquidity.append(liquidity_row(event, seq, place, at_us))
    elif kind is LongOpened:
        batch.longs.append(long_row(event))
    elif kind is LongClosed:
        batch.long_closes.append(long_close_row(event, at_us))
    else:
        batch.pool_epochs.append(pool_epoch_row(event, seq, at_us))


def _collect_rfq(batch: Batch, changed: RfqChanged, at_us: int) -> None:
    """A request as it stands now, the quote that is meant, and both when one filled the other."""
    rfq, quote = changed.rfq, changed.quote
    batch.rfqs[rfq.rfq_id] = rfq
    if quote is not None:
        batch.quotes[quote.quote_id] = quote, rfq.market_id
    if changed.change == "rfqFilled":
        batch.rfq_fills.append(rfq_fill_row(changed, at_us))


def _sqlite_may_lose_the_end(connection: Any, _record: Any) -> None:
    # No sync per commit: after a power cut the tables and their cursor end earlier together, and the log fills them up.
    connection.execute("PRAGMA synchronous=NORMAL")
    # Half of what the log's own writer waits for: checkpoints happen in this thread, not in a commit that users await.
    connection.execute("PRAGMA wal_autocheckpoint=8192")


def _postgresql_may_lose_the_end(connection: Any, _record: Any) -> None:
    connection.execute("SET synchronous_commit = off")
    connection.commit()


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
    return {(row.market_id, row.period_s): candle_from(row) for row in rows}


def _newest_ticks(connection: sa.Connection) -> dict[int, tuple[int, int]]:
    """Market → the command and the mark of its newest settlement tick."""
    table = schema.tick
    newest = sa.select(table.c.market_id, sa.func.max(table.c.command_seq).label("seq")).group_by(table.c.market_id)
    last = newest.subquery()
    same = (table.c.market_id == last.c.market_id) & (table.c.command_seq == last.c.seq)
    rows = connection.execute(sa.select(table).join(last, same))
    return {row.market_id: (row.command_seq, int(row.mark)) for row in rows}
