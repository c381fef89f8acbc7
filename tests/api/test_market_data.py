"""Public market data follows the real engine's events: books, ids, tickers, trades and candles."""

from __future__ import annotations

import random
from calendar import timegm

import pytest

from api.candles import INTERVALS, Candle, add_up, bounds
from api.market_data import RECENT_TRADES, MarketData
from engine.commands import CancelAllOrders, CancelOrder, OrderType, PlaceOrder, Side, TimeInForce
from engine.orders import depth
from tests.api.exchange import ALICE, BOB, BTC_USDC, SOL_USDC, Exchange, limit

BID, ASK = Side.BID, Side.ASK


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def data(exchange: Exchange) -> MarketData:
    data = MarketData(exchange.now_us)
    data.load_books(exchange.state)
    return data


def test_depth_is_both_sides_best_first(exchange: Exchange, data: MarketData) -> None:
    block, outcomes = exchange.run(
        limit(ALICE, BID, 9_900, 5),
        limit(ALICE, BID, 10_000, 3),
        limit(BOB, ASK, 10_200, 7),
        limit(BOB, ASK, 10_100, 2),
    )

    data.on_block(block, outcomes, exchange.state)

    view = data.depth(SOL_USDC, 100)
    assert view.bids == [(10_000, 3), (9_900, 5)]
    assert view.asks == [(10_100, 2), (10_200, 7)]
    assert data.depth(SOL_USDC, 1).bids == [(10_000, 3)]
    assert data.best(SOL_USDC) == ((10_000, 3), (10_100, 2))


def test_a_level_is_absolute_and_leaves_when_it_is_empty(exchange: Exchange, data: MarketData) -> None:
    data.on_block(*exchange.run(limit(ALICE, BID, 10_000, 3), limit(BOB, BID, 10_000, 4)), exchange.state)
    assert data.depth(SOL_USDC, 5).bids == [(10_000, 7)]

    changes = data.on_block(*exchange.run(CancelAllOrders(ALICE), CancelAllOrders(BOB)), exchange.state)

    assert data.depth(SOL_USDC, 5).bids == []
    assert changes[SOL_USDC].bids == {10_000: 0}


def test_update_ids_have_no_gap_and_name_the_command(exchange: Exchange, data: MarketData) -> None:
    first = data.on_block(*exchange.run(limit(ALICE, BID, 10_000, 3)), exchange.state)[SOL_USDC]
    data.on_block(*exchange.run(limit(ALICE, BID, 500_000, 1, market_id=BTC_USDC)), exchange.state)
    second = data.on_block(*exchange.run(limit(ALICE, BID, 9_999, 3), limit(ALICE, BID, 9_998, 3)), exchange.state)

    assert second[SOL_USDC].first_id == first.last_id + 1
    assert second[SOL_USDC].last_id == exchange.state.sequence == data.depth(SOL_USDC, 5).last_update_id


def test_update_ids_go_on_after_a_restart(exchange: Exchange, data: MarketData) -> None:
    data.on_block(*exchange.run(limit(ALICE, BID, 10_000, 3)), exchange.state)
    before = data.depth(SOL_USDC, 5)

    again = MarketData(exchange.now_us)
    again.load_books(exchange.state)

    assert again.depth(SOL_USDC, 5).bids == before.bids
    assert again.update_id(SOL_USDC) >= before.last_update_id


def test_the_book_equals_the_engines_after_random_flow(exchange: Exchange, data: MarketData) -> None:
    chance = random.Random(7)
    for _ in range(120):
        commands = []
        for _ in range(chance.randint(1, 8)):
            who = chance.choice((ALICE, BOB))
            side = chance.choice((BID, ASK))
            commands.append(limit(who, side, 10_000 + chance.randint(-20, 20), chance.randint(1, 50)))
        if chance.random() < 0.3:
            commands.append(CancelAllOrders(chance.choice((ALICE, BOB))))
        open_orders = list(exchange.state.subaccounts[ALICE].orders)
        if open_orders:
            commands.insert(0, CancelOrder(ALICE, SOL_USDC, order_id=chance.choice(open_orders)))
        changes = data.on_block(*exchange.run(*commands), exchange.state)

        view = data.depth(SOL_USDC, 1_000)
        bids, asks = depth(exchange.state.markets[SOL_USDC], 1_000)
        assert (view.bids, view.asks) == (bids, asks)
        assert all(change.last_id >= change.first_id for change in changes.values())


def test_recent_trades_are_newest_first_and_bounded(exchange: Exchange, data: MarketData) -> None:
    for _ in range(3):
        exchange.wait(1)
        data.on_block(*exchange.run(limit(ALICE, ASK, 10_000, 2), limit(BOB, BID, 10_000, 2)), exchange.state)

    rows = data.recent_trades(SOL_USDC, 2)

    assert [row.trade_id for row in rows] == [3, 2]
    assert rows[0].is_buyer_maker is False
    assert rows[0].quote_atoms == 10_000 * 2 * 100
    assert len(data.recent_trades(SOL_USDC, RECENT_TRADES + 5)) == 3


def test_a_seller_who_takes_meets_a_buying_maker(exchange: Exchange, data: MarketData) -> None:
    maker, taker = limit(ALICE, BID, 10_000, 2), limit(BOB, ASK, 10_000, 2)
    change = data.on_block(*exchange.run(maker, taker), exchange.state)[SOL_USDC]

    trade = change.trades[0]

    assert trade.row.is_buyer_maker
    assert trade.bid_order_id < trade.ask_order_id


def test_the_ticker_covers_a_day_and_then_forgets(exchange: Exchange, data: MarketData) -> None:
    assert data.ticker(SOL_USDC) is None
    for price in (10_000, 12_000, 9_000, 11_000):
        data.on_block(*exchange.run(limit(ALICE, ASK, price, 2), limit(BOB, BID, price, 2)), exchange.state)
        exchange.wait(3_600)

    row = data.ticker(SOL_USDC)

    assert row is not None
    assert (row.first_price_ticks, row.high_price_ticks, row.low_price_ticks, row.last_price_ticks) == (
        10_000, 12_000, 9_000, 11_000,
    )
    assert (row.lots, row.trades) == (8, 4)
    assert row.quote_atoms == 42_000 * 2 * 100
    assert [ticker.market_id for ticker in data.tickers()] == [SOL_USDC]

    exchange.wait(21 * 3_600 + 60)
    row = data.ticker(SOL_USDC)
    assert row is not None
    assert row.first_price_ticks == 9_000 or row.first_price_ticks == 11_000
    exchange.wait(86_400)
    assert data.ticker(SOL_USDC) is None
    weekly = data.ticker(SOL_USDC, "1w")
    assert weekly is not None
    assert weekly.trades == 4


def test_klines_of_every_interval_add_up(exchange: Exchange, data: MarketData) -> None:
    chance = random.Random(3)
    start_s = exchange.at_us // 1_000_000
    for _ in range(60):
        price, lots = 10_000 + chance.randint(-500, 500), chance.randint(1, 9)
        data.on_block(*exchange.run(limit(ALICE, ASK, price, lots), limit(BOB, BID, price, lots)), exchange.state)
        exchange.wait(chance.choice((0.4, 7, 61)))
    trades = list(reversed(data.recent_trades(SOL_USDC, 1_000)))
    end_s = exchange.at_us // 1_000_000 + 1

    for interval in INTERVALS:
        rows = data.klines(SOL_USDC, interval, bounds(interval, start_s).start_s, end_s)

        assert sum(row.trades for row in rows) == len(trades), interval
        assert sum(row.quote_atoms for row in rows) == sum(trade.quote_atoms for trade in trades)
        for row in rows:
            inside = [t for t in trades if row.start_s * 1_000_000 <= t.at_us < row.end_s * 1_000_000]
            if inside:
                assert row.open_price_ticks == inside[0].price_ticks
                assert row.close_price_ticks == inside[-1].price_ticks
                assert row.high_price_ticks == max(t.price_ticks for t in inside)
                assert row.low_price_ticks == min(t.price_ticks for t in inside)
            else:
                assert row.open_price_ticks is None
                assert row.trades == 0


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    wednesday = timegm((2026, 7, 15, 13, 30, 0))

    assert bounds("1w", wednesday) == (timegm((2026, 7, 13, 0, 0, 0)), timegm((2026, 7, 20, 0, 0, 0)))
    assert bounds("1month", wednesday) == (timegm((2026, 7, 1, 0, 0, 0)), timegm((2026, 8, 1, 0, 0, 0)))
    december = bounds("1month", timegm((2026, 12, 31, 23, 59, 59)))
    assert december == (timegm((2026, 12, 1, 0, 0, 0)), timegm((2027, 1, 1, 0, 0, 0)))


def test_klines_stop_at_the_limit() -> None:
    candles = [Candle(0, 1), Candle(600, 2)]

    rows = add_up(candles, "1m", 0, 1_000_000, 5)

    assert [row.start_s for row in rows] == [0, 60, 120, 180, 240]


def test_a_cross_that_does_not_change_the_best_price_says_so(exchange: Exchange, data: MarketData) -> None:
    data.on_block(*exchange.run(limit(ALICE, BID, 10_000, 3)), exchange.state)

    behind = data.on_block(*exchange.run(limit(ALICE, BID, 9_000, 3)), exchange.state)[SOL_USDC]
    better = data.on_block(*exchange.run(limit(ALICE, BID, 10_001, 3)), exchange.state)[SOL_USDC]

    assert not behind.top_changed
    assert better.top_changed


def test_a_market_order_by_quote_is_reported_filled(exchange: Exchange) -> None:
    _, outcomes = exchange.run(
        limit(ALICE, ASK, 10_000, 10),
        PlaceOrder(BOB, SOL_USDC, BID, OrderType.MARKET, TimeInForce.GTC, quote_atoms=2_500_000),
    )

    trade = next(event for event in outcomes[1].events if type(event).__name__ == "Trade")

    assert trade.lots == 2
    assert trade.taker.status == outcomes[1].reply.status
