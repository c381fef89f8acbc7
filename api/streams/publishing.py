"""What is sent when: what a block brings at once, what time brings in its rhythm.   [A-7, W-6]"""

from __future__ import annotations

import asyncio
from typing import Any

from api.candles import INTERVALS, bounds
from api.market_data import Change, MarketData
from api.streams.letters import (
    MarketText,
    balance_update,
    book_ticker_message,
    depth_message,
    fill_letters,
    kline_message,
    mark_price_message,
    market_text,
    order_update,
    ticker_message,
    trade_message,
)
from api.streams.names import DEPTH_SPEEDS
from api.streams.subscribers import Subscribers, Verify
from engine.events import (
    BalanceChanged,
    KeyRevoked,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderView,
    Outcome,
    Trade,
)
from engine.parameters import MarketParameters, MarketType
from engine.pricing import index_price, mark_price
from engine.state import State
from ledger.blocks import Block

TICK_S = 0.2
TICKS_PER_SECOND = 5

_ORDER_EVENTS = {
    OrderAccepted: "orderAccepted",
    OrderCancelled: "orderCancelled",
    OrderExpired: "orderExpired",
}


class Streams:
    """The streams of this node. `run` drives the timed ones; `on_block` the others."""

    def __init__(self, state: State, market_data: MarketData, verify: Verify) -> None:
        self.subscribers = Subscribers(verify, self._forget_topic)
        self._state = state
        self._market_data = market_data
        self._coalesced: dict[tuple[int, str], Coalesced] = {}
        self._klines: dict[str, KlineProgress] = {}
        self._texts: dict[int, MarketText] = {}
        self._block_at_us = 0
        self._durable_seq = state.sequence
        self._marks = Marks(state, [])
        self._ticks = 0

    # ---- what a block brings

    def on_block(self, block: Block, outcomes: list[Outcome], changes: dict[int, Change]) -> None:
        """Publish a durable block: `changes` is what `MarketData.on_block` gave for it.   [A-7, W-6]"""
        self._block_at_us = block.header.at_us
        self._durable_seq = outcomes[-1].seq
        if not self.subscribers.topics:
            self._coalesced.clear()
            return
        for market_id, change in changes.items():
            self._publish_market(market_id, change)
        if self.subscribers.private:
            for outcome in outcomes:
                if outcome.events:
                    self._publish_private(outcome)

    def _publish_market(self, market_id: int, change: Change) -> None:
        topics = self.subscribers.topics
        text, published_us = self._text(market_id), self._block_at_us
        topic = f"trade.{text.symbol}"
        if topic in topics:
            for trade in change.trades:
                self.subscribers.send(topic, trade_message(trade, text, published_us))
        if change.last_id >= change.first_id:
            topic = f"depth.{text.symbol}"
            if topic in topics:
                self.subscribers.send(topic, depth_message(change, text, published_us))
            for speed in DEPTH_SPEEDS:
                self._coalesce(market_id, f"depth.{speed}.{text.symbol}", speed, change)
        topic = f"bookTicker.{text.symbol}"
        if change.top_changed and topic in topics:
            bid, ask = self._market_data.best(market_id)
            self.subscribers.send(topic, book_ticker_message(bid, ask, change, text, published_us))

    def _coalesce(self, market_id: int, topic: str, speed: str, change: Change) -> None:
        if topic not in self.subscribers.topics:
            self._coalesced.pop((market_id, speed), None)
            return
        pending = self._coalesced.get((market_id, speed))
        if pending is None:
            pending = self._coalesced[market_id, speed] = Coalesced(change.first_id)
        pending.last_id = change.last_id
        pending.at_us = change.at_us
        pending.bids.update(change.bids)
        pending.asks.update(change.asks)

    def _publish_private(self, outcome: Outcome) -> None:
        for event in outcome.events:
            kind = type(event)
            if kind is Trade:
                self._publish_fill(event, outcome.at_us, maker=False)
                self._publish_fill(event, outcome.at_us, maker=True)
            elif kind is BalanceChanged:
                self._publish_balance(event, outcome.at_us)
            elif kind in _ORDER_EVENTS:
                self._publish_order(event.order, _ORDER_EVENTS[kind], outcome.at_us, {})
            elif kind is KeyRevoked:
                self.subscribers.forget_key(event.public_key)

    def _publish_fill(self, trade: Trade, at_us: int, *, maker: bool) -> None:
        order = trade.maker if maker else trade.taker
        fee_asset = self._state.assets[trade.maker_fee_asset_id if maker else trade.taker_fee_asset_id]
        fill = fill_letters(trade, self._text(trade.market_id), fee_asset, maker=maker)
        self._publish_order(order, "orderFill", at_us, fill)

    def _publish_order(self, order: OrderView, event: str, at_us: int, fill: dict[str, Any]) -> None:
        text = self._text(order.market_id)
        everything = f"{order.subaccount_id}:account.orderUpdate"
        of_market = f"{everything}.{text.symbol}"
        topics = self.subscribers.topics
        if everything not in topics and of_market not in topics:
            return
        data = order_update(order, event, text, self._block_at_us, at_us) | fill
        self.subscribers.send(everything, data)
        self.subscribers.send(of_market, data)

    def _publish_balance(self, change: BalanceChanged, at_us: int) -> None:
        topic = f"{change.subaccount_id}:account.balanceUpdate"
        if topic in self.subscribers.topics:
            asset = self._state.assets[change.asset_id]
            self.subscribers.send(topic, balance_update(change, asset, self._block_at_us, at_us))

    # ---- what time brings

    async def run(self) -> None:
        """Send the timed streams until cancelled: slower depth, tickers, candles and marks."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + TICK_S, loop.time())
            await asyncio.sleep(due - loop.time())
            self.tick()

    def tick(self) -> None:
        """One step of 200 ms."""
        self._ticks += 1
        if not self.subscribers.topics:
            return
        for (market_id, speed), pending in list(self._coalesced.items()):
            if self._ticks % DEPTH_SPEEDS[speed] == 0:
                self._send_coalesced(market_id, speed, pending)
        if self._ticks % TICKS_PER_SECOND == 0:
            self._each_second()
        self._send_marks()

    def _send_coalesced(self, market_id: int, speed: str, pending: Coalesced) -> None:
        del self._coalesced[market_id, speed]
        text = self._text(market_id)
        topic = f"depth.{speed}.{text.symbol}"
        if topic in self.subscribers.topics:
            self.subscribers.send(topic, depth_message(pending, text, self._block_at_us))

    def _each_second(self) -> None:
        topics = self.subscribers.topics
        for market_id, market in self._state.markets.items():
            symbol = market.parameters.symbol
            if f"ticker.{symbol}" in topics:
                self._send_ticker(market_id, f"ticker.{symbol}")
            for interval in INTERVALS:
                topic = f"kline.{interval}.{symbol}"
                if topic in topics:
                    self._send_klines(market_id, interval, topic)
        parameters = (market.parameters for market in self._state.markets.values())
        self._marks = Marks(self._state, [market for market in parameters if self._hears_mark(market)])

    def _hears_mark(self, market: MarketParameters) -> bool:
        """Of a perpetual there is no mark yet.   [P-2]"""
        return f"markPrice.{market.symbol}" in self.subscribers.topics and market.type == MarketType.SPOT

    def _send_marks(self) -> None:
        """What this second's marks were, once the commands that made them are durable.   [A-7]"""
        marks = self._marks
        if marks.rows and marks.seq <= self._durable_seq:
            for symbol, mark, index in marks.rows:
                message = mark_price_message(symbol, mark, index, marks.at_us, self._block_at_us)
                self.subscribers.send(f"markPrice.{symbol}", message)
            marks.rows = []

    def _send_ticker(self, market_id: int, topic: str) -> None:
        row = self._market_data.ticker(market_id)
        if row is not None:
            self.subscribers.send(topic, ticker_message(row, self._text(market_id), self._block_at_us))

    def _send_klines(self, market_id: int, interval: str, topic: str) -> None:
        """The open candle when it traded since the last second; every candle that closed, with X true.   [W-6]"""
        now_s, text = self._market_data.now_s(), self._text(market_id)
        progress = self._klines.get(topic)
        open_start_s = bounds(interval, now_s).start_s
        if progress is None:
            progress = self._klines[topic] = KlineProgress(open_start_s, 0)
        rows = self._market_data.klines(market_id, interval, progress.start_s, now_s + 1)
        for row in rows:
            if not row.trades:
                continue
            closed = row.end_s <= now_s
            told = progress.trades if row.start_s == progress.start_s else 0
            if closed or row.trades != told:
                self.subscribers.send(topic, kline_message(row, text, self._block_at_us, closed=closed))
                if not closed:
                    progress.trades = row.trades
        if progress.start_s != open_start_s:
            still_open = rows[-1].trades if rows and rows[-1].start_s == open_start_s else 0
            progress.start_s, progress.trades = open_start_s, still_open

    def _forget_topic(self, topic: str) -> None:
        """Nobody hears it any more: who subscribes next begins with the open candle."""
        self._klines.pop(topic, None)

    def _text(self, market_id: int) -> MarketText:
        parameters = self._state.markets[market_id].parameters
        text = self._texts.get(market_id)
        if text is None or text.parameters is not parameters:
            text = self._texts[market_id] = market_text(self._state, parameters)
        return text


class Coalesced:
    """A slower depth stream of one market: what has changed since it was sent last."""

    __slots__ = ("asks", "at_us", "bids", "first_id", "last_id")

    def __init__(self, first_id: int) -> None:
        self.first_id = first_id
        self.last_id = first_id - 1
        self.at_us = 0
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}


class Marks:
    """Mark and index prices of some markets' base assets as they stood at a command."""

    __slots__ = ("at_us", "rows", "seq")

    def __init__(self, state: State, markets: list[MarketParameters]) -> None:
        self.seq = state.sequence
        self.at_us = state.at_us
        self.rows = [
            (market.symbol, mark_price(state, market.base_asset_id), index_price(state, market.base_asset_id))
            for market in markets
            if mark_price(state, market.base_asset_id)
        ]


class KlineProgress:
    """How far a kline stream has been told: the open candle and how many trades it had."""

    __slots__ = ("start_s", "trades")

    def __init__(self, start_s: int, trades: int) -> None:
        self.start_s = start_s
        self.trades = trades
