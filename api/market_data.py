"""Public market data in memory: books, tickers, candles and recent trades, moved by published events only.   [A-7, W-3]

A market's update id is the sequence number of the command that changed its book last. So it never goes back, not even
over a restart, and names the change in the log; an update covers [previous id + 1, its id].   [W-6]
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable

from api.candles import DAY, HOUR, INTERVALS, MINUTE, SECOND, WEEK, Candle, Series, add_up, base_period
from api.rows import DepthView, KlineRow, TickerRow, TradeRow
from engine.commands import Side
from engine.events import BookLevel, Outcome, Trade
from engine.state import Market, State
from ledger.blocks import Block

RECENT_TRADES = 1_000
"""Trades kept in memory per market; older ones are in the history."""

KEEP = {SECOND: HOUR, MINUTE: 8 * DAY, HOUR: 400 * DAY}
"""For how long base candles stay in memory, in seconds, by period; older ones are in the history."""

MAX_KLINES = 10_000
"""Rows of one answer, at most."""

_TICKER_WINDOWS = {"1d": (MINUTE, DAY), "1w": (HOUR, WEEK)}
"""Ticker interval → the base candles it is added up from and its length; its window moves in steps of one of them."""


class SideBook:
    """One side of a book as the public sees it: price → lots, and the prices in order, best last."""

    __slots__ = ("keys", "levels", "sign")

    def __init__(self, side: Side) -> None:
        self.sign = 1 if side == Side.BID else -1
        self.levels: dict[int, int] = {}
        self.keys: list[int] = []

    def set(self, price_ticks: int, lots: int) -> None:
        """`lots` is the level's total; 0 takes it away."""
        levels, keys = self.levels, self.keys
        if lots:
            if price_ticks not in levels:
                insort(keys, price_ticks * self.sign)
            levels[price_ticks] = lots
        elif levels.pop(price_ticks, None) is not None:
            del keys[bisect_left(keys, price_ticks * self.sign)]

    def best(self) -> tuple[int, int] | None:
        """(price_ticks, lots) of the best level; None when the side is empty."""
        if not self.keys:
            return None
        price_ticks = self.keys[-1] * self.sign
        return price_ticks, self.levels[price_ticks]

    def top(self, limit: int) -> list[tuple[int, int]]:
        """(price_ticks, lots) of the best `limit` levels, best first."""
        sign, levels = self.sign, self.levels
        return [(key * sign, levels[key * sign]) for key in self.keys[: -limit - 1 : -1]]


class PublicTrade:
    """A trade as the streams need it: the row that everybody sees and whose orders met."""

    __slots__ = ("ask_order_id", "bid_order_id", "row")

    def __init__(self, trade: Trade, at_us: int) -> None:
        maker_bids = trade.taker.side == Side.ASK
        bid, ask = (trade.maker, trade.taker) if maker_bids else (trade.taker, trade.maker)
        self.bid_order_id = bid.order_id
        self.ask_order_id = ask.order_id
        self.row = TradeRow(trade.trade_id, trade.price_ticks, trade.lots, trade.quote_atoms, at_us, maker_bids)


class Change:
    """What one block did to one market: absolute levels by price, trades in order, the ids and times of the changes."""

    __slots__ = ("asks", "at_us", "bids", "first_id", "last_id", "market_id", "top_changed", "trades")

    def __init__(self, market_id: int, first_id: int) -> None:
        self.market_id = market_id
        self.first_id = first_id
        """Previous update id + 1."""
        self.last_id = first_id - 1
        self.at_us = 0
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.trades: list[PublicTrade] = []
        self.top_changed = False


class MarketBoard:
    """Everything public about one market."""

    __slots__ = ("asks", "at_us", "bids", "market_id", "series", "ticker_cache", "trade_count", "trades", "update_id")

    def __init__(self, market_id: int, update_id: int, at_us: int) -> None:
        self.market_id = market_id
        self.update_id = update_id
        self.at_us = at_us
        self.bids = SideBook(Side.BID)
        self.asks = SideBook(Side.ASK)
        self.trades: deque[TradeRow] = deque(maxlen=RECENT_TRADES)
        self.trade_count = 0
        self.series = {period_s: Series(period_s, keep_s) for period_s, keep_s in KEEP.items()}
        self.ticker_cache: dict[str, tuple[int, int, TickerRow | None]] = {}

    def best(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """The best bid and the best ask, each (price_ticks, lots) or None."""
        return self.bids.best(), self.asks.best()

    def add_trade(self, row: TradeRow) -> None:
        self.trades.append(row)
        self.trade_count += 1
        at_s = row.at_us // 1_000_000
        for series in self.series.values():
            series.add(at_s, row.price_ticks, row.lots, row.quote_atoms)


class MarketData:
    """The boards of all markets. `now_us` gives exchange time, which the 24-hour windows end at."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._boards: dict[int, MarketBoard] = {}

    def on_block(self, block: Block, outcomes: list[Outcome], state: State) -> dict[int, Change]:
        """Take in a durable block; gives what changed, by market, for the streams. Cost: what changed.   [A-7]"""
        changes: dict[int, Change] = {}
        before = {}
        for outcome in outcomes:
            for event in outcome.events:
                kind = type(event)
                if kind is not BookLevel and kind is not Trade:
                    continue
                market_id = event.market_id
                board = self._boards.get(market_id)
                if board is None:
                    board = self._boards[market_id] = MarketBoard(market_id, 0, outcome.at_us)
                change = changes.get(market_id)
                if change is None:
                    change = changes[market_id] = Change(market_id, board.update_id + 1)
                    before[market_id] = board.best()
                change.at_us = outcome.at_us
                if kind is BookLevel:
                    _set_level(board, change, event, outcome.seq)
                else:
                    trade = PublicTrade(event, outcome.at_us)
                    change.trades.append(trade)
                    board.add_trade(trade.row)
        for market_id, change in changes.items():
            change.top_changed = self._boards[market_id].best() != before[market_id]
        return changes

    def load_books(self, state: State) -> None:
        """Start from the books of a recovered state; nothing later than it has been published yet."""
        for market_id, market in state.markets.items():
            board = self._boards.setdefault(market_id, MarketBoard(market_id, state.sequence, state.at_us))
            _load_book(board, market)

    def load_trades(self, market_id: int, trades: list[TradeRow], candles: dict[int, list[Candle]]) -> None:
        """Take in the newest trades and, by period, the base candles that the history kept; each oldest first.

        Candles of a second are made from the trades.
        """
        board = self._boards.setdefault(market_id, MarketBoard(market_id, 0, 0))
        board.trades.extend(trades)
        for period_s, kept in candles.items():
            board.series[period_s].candles = {candle.start_s: candle for candle in kept}
        seconds = board.series[SECOND]
        for row in trades:
            seconds.add(row.at_us // 1_000_000, row.price_ticks, row.lots, row.quote_atoms)
        if len(trades) == RECENT_TRADES:
            # Trades before the oldest one here may be of the same second.
            seconds.complete_from_s = trades[0].at_us // 1_000_000 + 1

    def now_s(self) -> int:
        """Exchange time in whole seconds."""
        return self._now_us() // 1_000_000

    def update_id(self, market_id: int) -> int:
        """The sequence number of the command that changed the market's book last."""
        board = self._boards.get(market_id)
        return board.update_id if board is not None else 0

    def best(self, market_id: int) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """The best bid and the best ask, each (price_ticks, lots) or None."""
        board = self._boards.get(market_id)
        return board.best() if board is not None else (None, None)

    def depth(self, market_id: int, limit: int) -> DepthView:
        """The best `limit` levels of both sides, each best first."""
        board = self._boards.get(market_id)
        if board is None:
            return DepthView([], [], 0, 0)
        return DepthView(board.bids.top(limit), board.asks.top(limit), board.update_id, board.at_us)

    def recent_trades(self, market_id: int, limit: int) -> list[TradeRow]:
        """Newest first; at most what is kept in memory."""
        board = self._boards.get(market_id)
        if board is None:
            return []
        newest_first = reversed(board.trades)
        return [row for row, _ in zip(newest_first, range(limit), strict=False)]

    def ticker(self, market_id: int, interval: str = "1d") -> TickerRow | None:
        """The last day (`1d`, in steps of a minute) or week (`1w`, of an hour); None when nothing traded in it."""
        board = self._boards.get(market_id)
        if board is None:
            return None
        period_s, length_s = _TICKER_WINDOWS[interval]
        since_s = self.now_s() - length_s
        since_s += -since_s % period_s
        cached = board.ticker_cache.get(interval)
        if cached is not None and cached[:2] == (since_s, board.trade_count):
            return cached[2]
        row = _ticker_row(market_id, board.series[period_s].since(since_s))
        board.ticker_cache[interval] = (since_s, board.trade_count, row)
        return row

    def tickers(self, interval: str = "1d") -> list[TickerRow]:
        """The tickers of all markets that traded in the interval."""
        rows = (self.ticker(market_id, interval) for market_id in self._boards)
        return [row for row in rows if row is not None]

    def klines(self, market_id: int, interval: str, start_s: int, end_s: int) -> list[KlineRow]:
        """Candles that begin in [start_s, end_s), oldest first, from what memory keeps (`remembers`).   [W-3]"""
        assert interval in INTERVALS, f"no such interval: {interval}"
        board = self._boards.get(market_id)
        candles = board.series[base_period(interval)].since(start_s) if board is not None else []
        end_s = min(end_s, self.now_s() + 1)
        return add_up(candles, interval, start_s, end_s, MAX_KLINES)

    def remembers(self, market_id: int, interval: str, start_s: int) -> bool:
        """Whether the candles from `start_s` on are all in memory; older ones come from the history."""
        period_s = base_period(interval)
        board = self._boards.get(market_id)
        complete_from_s = board.series[period_s].complete_from_s if board is not None else 0
        return start_s >= max(complete_from_s, self.now_s() - KEEP[period_s] + period_s)


def _set_level(board: MarketBoard, change: Change, level: BookLevel, seq: int) -> None:
    if level.side == Side.BID:
        change.bids[level.price_ticks] = level.lots
        board.bids.set(level.price_ticks, level.lots)
    else:
        change.asks[level.price_ticks] = level.lots
        board.asks.set(level.price_ticks, level.lots)
    board.update_id = change.last_id = seq
    board.at_us = change.at_us


def _load_book(board: MarketBoard, market: Market) -> None:
    for side, ladder in ((board.bids, market.book.bids), (board.asks, market.book.asks)):
        side.levels = {level.price_ticks: level.lots for level in ladder.levels.values()}
        side.keys = sorted(price_ticks * side.sign for price_ticks in side.levels)


def _ticker_row(market_id: int, candles: list[Candle]) -> TickerRow | None:
    if not candles:
        return None
    return TickerRow(
        market_id,
        candles[0].open,
        candles[-1].close,
        max(candle.high for candle in candles),
        min(candle.low for candle in candles),
        sum(candle.lots for candle in candles),
        sum(candle.quote_atoms for candle in candles),
        sum(candle.trades for candle in candles),
    )
