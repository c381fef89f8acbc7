"""The history follows the log, on SQLite and PostgreSQL: each block once, whenever it stops, and readable at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from api.candles import INTERVALS, bounds
from api.history import following as history_following
from api.history import schema
from api.history.custody import read_deposits, read_withdrawals
from api.history.following import History, HistoryFailed
from api.history.orders import read_fills, read_orders
from api.history.trades import load_market_data, read_klines, read_trades
from api.market_data import MarketData
from api.rows import Page
from engine.commands import (
    CancelAllOrders,
    CancelOrder,
    OrderType,
    PlaceOrder,
    RequestWithdrawal,
    Side,
    TimeInForce,
)
from engine.events import ExpiryReason, OrderStatus
from ledger.database import metadata, open_engine, upgrade
from tests.api.exchange import ALICE, BOB, BTC_USDC, SOL, SOL_USDC, USDC, Exchange, limit

BID, ASK = Side.BID, Side.ASK


@pytest.fixture
def url(database_url: str) -> str:
    """A database with the newest schema."""
    engine = open_engine(database_url)
    upgrade(engine)
    engine.dispose()
    return database_url


@asynccontextmanager
async def following(url: str, exchange: Exchange) -> AsyncIterator[History]:
    """A history that has taken in what the exchange did so far."""
    kept = History(url)
    kept.start()
    publish(kept, exchange)
    try:
        yield kept
    finally:
        await asyncio.to_thread(kept.close)


def publish(kept: History, exchange: Exchange) -> None:
    """All blocks again, as recovery does it: those that the tables have are skipped."""
    for block, outcomes in exchange.blocks:
        kept.on_block(block, outcomes)


def trade(exchange: Exchange, times: int, *, seed: int = 1, market_id: int = SOL_USDC) -> None:
    """`times` blocks with a resting order and one that takes some of it."""
    chance = random.Random(seed)
    for _ in range(times):
        price, lots = 10_000 + chance.randint(-50, 50), chance.randint(1, 20)
        maker, taker = chance.choice(((ALICE, BOB), (BOB, ALICE)))
        exchange.run(
            limit(maker, ASK, price, lots, market_id=market_id),
            limit(taker, BID, price, chance.randint(1, lots), market_id=market_id, time_in_force=TimeInForce.IOC),
            CancelAllOrders(maker),
        )
        exchange.wait(chance.choice((0.2, 5, 61, 3_700)))


async def test_orders_are_kept_as_they_last_stood(url: str) -> None:
    exchange = Exchange()
    exchange.run(limit(ALICE, ASK, 10_000, 30, client_id=4_294_967_295, post_only=True))
    exchange.run(limit(BOB, BID, 10_000, 10))
    exchange.run(limit(BOB, BID, 10_000, 50, time_in_force=TimeInForce.IOC))
    exchange.run(limit(ALICE, BID, 9_000, 1), limit(ALICE, BID, 9_001, 1))
    exchange.run(CancelOrder(ALICE, SOL_USDC, order_id=4))
    async with following(url, exchange) as kept:
        orders, total = await read_orders(kept, ALICE, Page())
        bobs, _ = await read_orders(kept, BOB, Page(ascending=True))

    assert total == 3
    assert [order.order_id for order in orders] == [5, 4, 1]
    assert [order.status for order in orders] == [OrderStatus.NEW, OrderStatus.CANCELLED, OrderStatus.FILLED]
    assert (orders[2].client_id, orders[2].executed_quote_atoms, orders[2].post_only) == (
        4_294_967_295, 30 * 10_000 * 100, True,
    )
    assert orders[0] == exchange.state.orders[5].view()
    assert bobs[1].expiry_reason == ExpiryReason.IMMEDIATE_OR_CANCEL
    assert bobs[1].executed_lots == 20


async def test_a_market_order_by_quote_ends_filled(url: str) -> None:
    exchange = Exchange()
    exchange.run(limit(ALICE, ASK, 10_000, 300))
    _, outcomes = exchange.run(PlaceOrder(BOB, SOL_USDC, BID, OrderType.MARKET, quote_atoms=2_500_000))
    async with following(url, exchange) as kept:
        orders, _ = await read_orders(kept, BOB, Page())

    assert orders == [outcomes[0].reply]


async def test_both_sides_of_a_trade_are_fills(url: str) -> None:
    exchange = Exchange()
    exchange.run(limit(ALICE, ASK, 10_000, 30, client_id=9), limit(BOB, BID, 10_100, 10))
    async with following(url, exchange) as kept:
        (maker,), _ = await read_fills(kept, ALICE, Page())
        (taker,), _ = await read_fills(kept, BOB, Page())

    assert (maker.is_maker, maker.side, maker.client_id, maker.order_id) == (True, ASK, 9, 1)
    assert (maker.fee_asset_id, maker.fee_atoms) == (USDC, 10 * 10_000 * 100 * 8 // 10_000)
    assert (taker.is_maker, taker.side, taker.client_id, taker.order_id) == (False, BID, None, 2)
    assert (taker.fee_asset_id, taker.fee_atoms) == (SOL, 10 * 10**7 // 1_000)
    assert taker.price_ticks == maker.price_ticks == 10_000
    assert taker.at_us == exchange.at_us


async def test_filters_pages_and_totals_agree(url: str) -> None:
    exchange = Exchange()
    trade(exchange, 30)
    middle_ms = exchange.at_us // 1_000
    trade(exchange, 20, market_id=BTC_USDC)
    async with following(url, exchange) as kept:
        everything, total = await read_fills(kept, ALICE, Page(limit=1_000))
        pages = [(await read_fills(kept, ALICE, Page(limit=7, offset=offset)))[0] for offset in range(0, 56, 7)]
        ascending, _ = await read_fills(kept, ALICE, Page(limit=1_000, ascending=True))
        in_sol, sol_total = await read_fills(kept, ALICE, Page(limit=1_000), market_ids=[SOL_USDC])
        late, late_total = await read_fills(kept, ALICE, Page(limit=1_000), from_ms=middle_ms)
        early, early_total = await read_fills(kept, ALICE, Page(limit=1_000), to_ms=middle_ms)
        of_order, _ = await read_fills(kept, ALICE, Page(), order_id=everything[3].order_id)
        foreign, foreign_total = await read_fills(kept, ALICE, Page(), order_id=_order_of(exchange, BOB))
        nowhere = await read_fills(kept, ALICE, Page(), market_ids=[])
        orders_in_sol, _ = await read_orders(kept, ALICE, Page(limit=1_000), market_ids=[SOL_USDC])

    assert total == len(everything) == 50
    assert [fill for page in pages for fill in page] == everything
    assert ascending == everything[::-1]
    assert (len(in_sol), len(late), len(early)) == (sol_total, late_total, early_total) == (30, 20, 30)
    assert all(fill.at_us >= middle_ms * 1_000 for fill in late)
    assert of_order == [everything[3]]
    assert (foreign, foreign_total) == ([], 0)
    assert nowhere == ([], 0)
    assert {order.market_id for order in orders_in_sol} == {SOL_USDC}


def _order_of(exchange: Exchange, subaccount_id: int) -> int:
    for _block, outcomes in exchange.blocks:
        for outcome in outcomes:
            for event in outcome.events:
                order = getattr(event, "order", None)
                if order is not None and order.subaccount_id == subaccount_id:
                    return int(order.order_id)
    raise AssertionError(f"subaccount {subaccount_id} has no order")


async def test_times_beyond_all_bounds_are_answered(url: str) -> None:
    exchange = Exchange()
    trade(exchange, 1)
    async with following(url, exchange) as kept:
        assert (await read_fills(kept, ALICE, Page(), from_ms=2**63))[1] == 0
        assert (await read_fills(kept, ALICE, Page(), from_ms=-(2**70), to_ms=2**70))[1] == 1
        assert (await read_deposits(kept, ALICE, Page(), to_ms=-1))[1] == 0


async def test_trades_count_by_number(url: str) -> None:
    exchange = Exchange()
    trade(exchange, 12)
    async with following(url, exchange) as kept:
        rows, total = await read_trades(kept, SOL_USDC, Page(limit=3, offset=2))
        nothing = await read_trades(kept, BTC_USDC, Page())

    assert total == 12
    assert [row.trade_id for row in rows] == [10, 9, 8]
    assert nothing == ([], 0)


async def test_candles_equal_those_in_memory(url: str) -> None:
    exchange = Exchange()
    start_s = exchange.at_us // 1_000_000
    trade(exchange, 80)
    data = MarketData(exchange.now_us)
    for block, outcomes in exchange.blocks:
        data.on_block(block, outcomes, exchange.state)
    end_s = exchange.at_us // 1_000_000 + 1
    async with following(url, exchange) as kept:
        for interval in INTERVALS:
            first_s = bounds(interval, start_s).start_s
            if interval == "1s":
                first_s = end_s - 3_000

            rows = await read_klines(kept, SOL_USDC, interval, first_s, end_s)

            assert rows == data.klines(SOL_USDC, interval, first_s, end_s), interval
            assert rows or interval == "1s"


async def test_seconds_come_from_the_trades_however_old(url: str) -> None:
    exchange = Exchange()
    start_s = exchange.at_us // 1_000_000
    trade(exchange, 40)
    async with following(url, exchange) as kept:
        rows = await read_klines(kept, SOL_USDC, "1s", start_s, start_s + 5_000)
        trades, _ = await read_trades(kept, SOL_USDC, Page(limit=1_000))

    inside = [row for row in trades if row.at_us < (start_s + 5_000) * 1_000_000]
    assert inside
    assert sum(row.trades for row in rows) == len(inside)


async def test_deposits_and_withdrawals_are_kept_as_they_last_stood(url: str) -> None:
    exchange = Exchange()
    exchange.run(
        RequestWithdrawal(ALICE, 1, USDC, 5_000_000, "somewhere", "mine"),
        RequestWithdrawal(ALICE, 1, USDC, 6_000_000, "elsewhere"),
    )
    async with following(url, exchange) as kept:
        deposits, deposit_count = await read_deposits(kept, ALICE, Page())
        withdrawals, withdrawal_count = await read_withdrawals(kept, ALICE, Page())
        mine, _ = await read_withdrawals(kept, ALICE, Page(), client_id="mine")
        second, _ = await read_withdrawals(kept, ALICE, Page(), withdrawal_id=withdrawals[0].withdrawal_id)
        bobs = await read_withdrawals(kept, BOB, Page(), withdrawal_id=withdrawals[0].withdrawal_id)

    expected = [view for view in exchange.state.deposits.values() if view.subaccount_id == ALICE]
    assert deposit_count == 3
    assert deposits == expected[::-1]
    assert withdrawal_count == 2
    assert withdrawals == [exchange.state.withdrawals[2], exchange.state.withdrawals[1]]
    assert [view.client_id for view in mine] == ["mine"]
    assert second == [withdrawals[0]]
    assert bobs == ([], 0)


async def test_a_reader_sees_what_was_published_when_it_asked(url: str) -> None:
    exchange = Exchange()
    async with following(url, exchange) as kept:
        for number in range(1, 40):
            block, outcomes = exchange.run(limit(ALICE, BID, 9_000 + number, 1))
            kept.on_block(block, outcomes)

            orders, total = await read_orders(kept, ALICE, Page(limit=1))

            assert total == number
            assert orders == [outcomes[0].reply]


async def test_a_restart_at_any_point_gives_the_same_tables(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_following, "BATCH_OUTCOMES", 4)
    exchange = Exchange()
    trade(exchange, 40)
    exchange.run(RequestWithdrawal(ALICE, 1, USDC, 5_000_000, "somewhere"))
    chance = random.Random(5)
    while True:
        kept = History(url)
        kept.start()
        left = [pair for pair in exchange.blocks if pair[0].header.height > kept.cursor()]
        for block, outcomes in left[: chance.randint(1, 12)]:
            kept.on_block(block, outcomes)
        if left:
            # What recovery may tell again: it is skipped.
            block, outcomes = exchange.blocks[left[0][0].header.height]
            kept.on_block(block, outcomes)
        kept.close()
        if not left:
            break
    restarted = _dump(url)
    _clear(url)
    async with following(url, exchange):
        pass

    assert restarted == _dump(url)
    assert len(restarted["history_trade"]) == 40
    assert len(restarted["history_fill"]) == 80


def _dump(url: str) -> dict[str, list[tuple[object, ...]]]:
    engine = open_engine(url, read_only=True)
    with engine.connect() as connection:
        dump = {
            table.name: [tuple(row) for row in connection.execute(_in_order(table))]
            for table in schema.TABLES
        }
    engine.dispose()
    return dump


def _in_order(table: sa.Table) -> sa.Select[tuple[object, ...]]:
    return sa.select(table).order_by(*table.primary_key.columns)


def _clear(url: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        for table in schema.TABLES:
            connection.execute(sa.delete(table))
    engine.dispose()


async def test_market_data_starts_from_the_history(url: str) -> None:
    exchange = Exchange()
    trade(exchange, 60)
    running = MarketData(exchange.now_us)
    for block, outcomes in exchange.blocks:
        running.on_block(block, outcomes, exchange.state)

    async with following(url, exchange) as kept:
        await asyncio.to_thread(kept.flush)
        restarted = MarketData(exchange.now_us)
        restarted.load_books(exchange.state)
        load_market_data(kept, restarted, exchange.state)

    assert restarted.recent_trades(SOL_USDC, 1_000) == running.recent_trades(SOL_USDC, 1_000)
    assert restarted.tickers() == running.tickers()
    assert restarted.tickers("1w") == running.tickers("1w")
    since_s = exchange.at_us // 1_000_000 - 86_400
    for interval in INTERVALS[1:]:
        span = (SOL_USDC, interval, since_s, exchange.at_us // 1_000_000)
        assert restarted.klines(*span) == running.klines(*span)
    trade(exchange, 1, seed=9)
    restarted.on_block(*exchange.blocks[-1], exchange.state)
    running.on_block(*exchange.blocks[-1], exchange.state)
    assert restarted.ticker(SOL_USDC) == running.ticker(SOL_USDC)


async def test_a_publisher_waits_when_too_much_is_queued(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_following, "CAPACITY", 10)
    exchange = Exchange()
    trade(exchange, 100)
    async with following(url, exchange) as kept:
        assert kept.lag() < 10 + 4
        _, total = await read_trades(kept, SOL_USDC, Page())
        assert kept.lag() == 0

    assert total == 100


async def test_when_writing_fails_publisher_and_readers_are_told(url: str) -> None:
    exchange = Exchange()
    async with following(url, exchange) as kept:
        await read_orders(kept, ALICE, Page())
        engine = open_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE history_fill"))
        engine.dispose()
        trade(exchange, 1)
        publish(kept, exchange)

        with pytest.raises(HistoryFailed, match="history_fill"):
            await read_fills(kept, ALICE, Page())
        trade(exchange, 1)
        with pytest.raises(HistoryFailed, match="stopped after block"):
            publish(kept, exchange)


def test_the_migration_makes_the_tables_that_the_code_knows(url: str) -> None:
    engine = open_engine(url, read_only=True)
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        for table in schema.TABLES:
            columns = {column["name"]: column for column in inspector.get_columns(table.name)}
            assert list(columns) == [column.name for column in table.c], table.name
            assert {name: column["nullable"] for name, column in columns.items()} == {
                column.name: column.nullable for column in table.c
            }
            keys = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert keys == [column.name for column in table.primary_key.columns]
            indexes = {index["name"] for index in inspector.get_indexes(table.name)}
            assert indexes == {index.name for index in table.indexes}
    engine.dispose()
    assert {name for name in metadata.tables if name.startswith("history_")} == {
        table.name for table in schema.TABLES
    }
