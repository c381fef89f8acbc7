"""What is sent when: what a block brings at once, what time brings in its rhythm.   [A-7, W-6]"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from api.candles import INTERVALS, bounds
from api.liquidity_pools import PoolText, pool_text
from api.market_data import Change, MarketData
from api.positions import figures
from api.streams.letters import (
    MarketText,
    MarkLine,
    balance_update,
    book_ticker_message,
    depth_message,
    fill_letters,
    kline_message,
    liquidation_message,
    mark_price_message,
    market_text,
    open_interest_message,
    order_update,
    position_update,
    rfq_update,
    ticker_message,
    trade_message,
)
from api.streams.names import DEPTH_SPEEDS
from api.streams.pool_letters import (
    liquidity_update,
    long_closed,
    long_letters,
    long_not_closed,
    long_opened,
    pool_epoch_message,
    pool_message,
    pool_swap_message,
)
from api.streams.subscribers import Client, Subscribers, Verify
from engine import funding, pools
from engine.commands import Origin, Side
from engine.events import (
    BalanceChanged,
    KeyRevoked,
    LiquidationChanged,
    LiquidityMoved,
    LongClosed,
    LongNotClosed,
    LongOpened,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderModified,
    OrderView,
    Outcome,
    PoolChanged,
    PoolEpochRan,
    PoolSwapped,
    PositionChanged,
    PositionView,
    RfqChanged,
    Trade,
    TriggerFailed,
    TriggerPlaced,
)
from engine.parameters import MarketType
from engine.perpetuals import ADJUSTED, CLOSED, OPENED
from engine.pricing import index_price, mark_price
from engine.state import ASSET_BITS, Market, State
from ledger.blocks import Block

TICK_S = 0.2
TICKS_PER_SECOND = 5

_ORDER_EVENTS = {
    OrderAccepted: "orderAccepted",
    OrderCancelled: "orderCancelled",
    OrderExpired: "orderExpired",
    OrderModified: "orderModified",
    TriggerPlaced: "triggerPlaced",
    TriggerFailed: "triggerFailed",
}
_POSITION_EVENTS = {OPENED: "positionOpened", ADJUSTED: "positionAdjusted", CLOSED: "positionClosed"}
_POOL_EVENTS = (PoolChanged, PoolSwapped, PoolEpochRan)
_POOL_UPDATES: dict[type, Callable[[Any, PoolText, int, int], dict[str, Any]]] = {
    LiquidityMoved: liquidity_update,
    LongOpened: long_opened,
    LongClosed: long_closed,
    LongNotClosed: long_not_closed,
}
_TICKS_PER_MINUTE = 60 * TICKS_PER_SECOND


class Streams:
    """The streams of this node. `run` drives the timed ones; `on_block` the others."""

    def __init__(self, state: State, market_data: MarketData, verify: Verify) -> None:
        self.subscribers = Subscribers(verify, self._forget_topic, self._begin_topic)
        self._state = state
        self._market_data = market_data
        self._coalesced: dict[tuple[int, str], Coalesced] = {}
        self._klines: dict[str, KlineProgress] = {}
        self._texts: dict[int, MarketText] = {}
        self._block_at_us = 0
        self._durable_seq = state.sequence
        self._marks = Marks(state, [])
        self._greetings: list[tuple[int, str, Client, list[dict[str, Any]]]] = []
        """What new subscribers are told, with the command that must be durable before."""
        self._ticks = 0

    # ---- what a block brings

    def on_block(self, block: Block, outcomes: list[Outcome], changes: dict[int, Change]) -> None:
        """Publish a durable block: `changes` is what `MarketData.on_block` gave for it.   [A-7, W-6]"""
        self._block_at_us = block.header.at_us
        self._durable_seq = outcomes[-1].seq
        if not self.subscribers.topics:
            self._coalesced.clear()
            self._greetings.clear()
            return
        self._greet()
        for market_id, change in changes.items():
            self._publish_market(market_id, change)
        for outcome in outcomes:
            if outcome.events:
                if self.subscribers.private:
                    self._publish_private(outcome)
                self._publish_liquidations(outcome)
                if self._state.amm_pools:
                    self._publish_pools(outcome)
            if outcome.settled is not None and self.subscribers.private:
                self._publish_settled(outcome)

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
            elif kind is PositionChanged:
                self._publish_position(event, outcome.at_us)
            elif kind is RfqChanged:
                self._publish_rfq(event, outcome.at_us)
            elif kind in _POOL_UPDATES:
                self._publish_pool_update(event, outcome.at_us)
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

    def _publish_rfq(self, changed: RfqChanged, at_us: int) -> None:
        """A request's own news go to the requester, a quote's to its maker, a fill to both; what is open to everybody
        who listens: who else should quote?   [S-7, W-6]
        """
        asker = changed.rfq.subaccount_id
        quoter = changed.quote.subaccount_id if changed.quote is not None else asker
        if changed.change == "rfqActive":
            listening = (topic.partition(":") for topic in list(self.subscribers.topics))
            to = {
                int(owner)
                for owner, colon, stream in listening
                if colon and stream.startswith("account.rfqUpdate") and int(owner) != asker
            }
        elif changed.change == "rfqFilled":
            to = {asker, quoter}
        else:
            to = {quoter if changed.change.startswith("quote") else asker}
        text = self._text(changed.rfq.market_id)
        for subaccount_id in sorted(to):
            everything = f"{subaccount_id}:account.rfqUpdate"
            data = rfq_update(changed, text, self._block_at_us, at_us, subaccount_id)
            for topic in (everything, f"{everything}.{text.symbol}"):
                if topic in self.subscribers.topics:
                    self.subscribers.send(topic, data)

    def _publish_position(self, changed: PositionChanged, at_us: int) -> None:
        everything = f"{changed.position.subaccount_id}:account.positionUpdate"
        of_market = f"{everything}.{self._text(changed.position.market_id).symbol}"
        topics = self.subscribers.topics
        if everything not in topics and of_market not in topics:
            return
        event = _POSITION_EVENTS[changed.change]
        data = self._position_data(changed.position, changed.mark, event, at_us)
        self.subscribers.send(everything, data)
        self.subscribers.send(of_market, data)

    def _position_data(self, view: PositionView, mark: int, event: str | None, at_us: int) -> dict[str, Any]:
        found, text = figures(self._state, view, mark), self._text(view.market_id)
        return position_update(view, found, mark, event, text, self._block_at_us, at_us)

    def _publish_liquidations(self, outcome: Outcome) -> None:
        """Fills of orders that the exchange placed to liquidate, and what passed beside the book.   [L-3 … L-6]"""
        topics = self.subscribers.topics
        for event in outcome.events:
            kind = type(event)
            if kind is Trade:
                terms = event.taker.terms
                if terms is None or terms.origin is not Origin.LIQUIDATION:
                    continue
                lots, ticks, side = event.lots, event.price_ticks, event.taker.side
            elif kind is LiquidationChanged and event.market_id and event.stage in ("backstop", "adl"):
                tick = self._state.markets[event.market_id].parameters.tick_price
                lots, ticks = abs(event.quantity), event.price // tick
                side = Side.BID if event.quantity > 0 else Side.ASK
            else:
                continue
            text = self._text(event.market_id)
            for topic in ("liquidation", f"liquidation.{text.symbol}"):
                if topic in topics:
                    message = liquidation_message(lots, ticks, side, text, self._block_at_us, outcome.at_us)
                    self.subscribers.send(topic, message)

    def _publish_pools(self, outcome: Outcome) -> None:
        """Every change, swap and epoch of liquidity pools that somebody listens to.   [X-1 … X-11]"""
        topics, published_us, at_us = self.subscribers.topics, self._block_at_us, outcome.at_us
        for event in outcome.events:
            kind = type(event)
            if kind not in _POOL_EVENTS:
                continue
            pool_id = event.pool.pool_id if kind is PoolChanged else event.pool_id
            topic = f"pool.{self._state.assets[pool_id].symbol}"
            if topic not in topics:
                continue
            text = pool_text(self._state, pool_id)
            if kind is PoolChanged:
                message = pool_message(event.pool, text, "pool", published_us, at_us)
            elif kind is PoolSwapped:
                message = pool_swap_message(event, text, published_us, at_us)
            else:
                message = pool_epoch_message(event, text, published_us, at_us)
            self.subscribers.send(topic, message)

    def _publish_pool_update(self, event: Any, at_us: int) -> None:
        """To its owner: liquidity, and positions that were opened, closed, closed by force, or not.   [X-3 … X-11]"""
        whose = event.long if type(event) in (LongOpened, LongClosed) else event
        text = pool_text(self._state, whose.pool_id)
        everything = f"{whose.subaccount_id}:account.poolUpdate"
        data: dict[str, Any] | None = None
        for topic in (everything, f"{everything}.{text.symbol}"):
            if topic in self.subscribers.topics:
                data = data or _POOL_UPDATES[type(event)](event, text, self._block_at_us, at_us)
                self.subscribers.send(topic, data)

    def _publish_settled(self, outcome: Outcome) -> None:
        """Whom a settlement tick moved has no BalanceChanged: only those who listen are looked at.   [S-14]

        The balance is that of now, which may be ahead of this block by what follows it; its own update comes then too.
        """
        state = self._state
        ends = ":account.balanceUpdate"
        for topic in [topic for topic in self.subscribers.topics if topic.endswith(ends)]:
            number = int(topic.removesuffix(ends))
            key = number << ASSET_BITS | state.usdc
            if _contains(outcome.settled, number) and key not in outcome.touched:
                locked = state.subaccounts[number].reserved.get(state.usdc, 0)
                free = state.held(number, state.usdc) - locked
                self._publish_balance(BalanceChanged(number, state.usdc, free, locked), outcome.at_us)

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
        if self._ticks % _TICKS_PER_MINUTE == 0:
            self._send_open_interest()
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
        markets = self._state.markets.values()
        heard = [market for market in markets if f"markPrice.{market.parameters.symbol}" in topics]
        self._marks = Marks(self._state, heard)

    def _send_open_interest(self) -> None:
        for market_id, market in self._state.markets.items():
            topic = f"openInterest.{market.parameters.symbol}"
            if market.parameters.perpetual is not None and topic in self.subscribers.topics:
                message = open_interest_message(market.open_interest, self._text(market_id), self._block_at_us)
                self.subscribers.send(topic, message)

    def _send_marks(self) -> None:
        """What this second's marks were, once the commands that made them are durable.   [A-7]"""
        marks = self._marks
        if marks.rows and marks.seq <= self._durable_seq:
            for row in marks.rows:
                message = mark_price_message(row, marks.at_us, self._block_at_us)
                self.subscribers.send(f"markPrice.{row.symbol}", message)
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

    def _begin_topic(self, topic: str, client: Client) -> None:
        """A new subscriber is told how things stand, once that is durable.   [A-7, W-6]"""
        found = self._standing(topic)
        if found:
            self._greetings.append((self._state.sequence, topic, client, found))
            self._greet()

    def _greet(self) -> None:
        waiting, self._greetings = self._greetings, []
        for greeting in waiting:
            seq, topic, client, messages = greeting
            if seq > self._durable_seq:
                self._greetings.append(greeting)
                continue
            for message in messages:
                self.subscribers.greet(client, topic, message)

    def _standing(self, topic: str) -> list[dict[str, Any]]:
        """The open interest of a market, a liquidity pool, or the positions that are open: without `e`."""
        owner, _, name = topic.rpartition(":")
        kind, _, symbol = name.partition(".")
        if kind == "openInterest":
            return [
                open_interest_message(market.open_interest, self._text(market_id), self._block_at_us)
                for market_id, market in self._state.markets.items()
                if market.parameters.symbol == symbol and market.parameters.perpetual is not None
            ]
        if kind == "pool":
            return [
                pool_message(
                    pools.view(pool), pool_text(self._state, pool_id), None, self._block_at_us,
                    self._state.at_us,
                )
                for pool_id, pool in self._state.amm_pools.items()
                if self._state.assets[pool_id].symbol == symbol
            ]
        option, _, symbol = symbol.partition(".")
        if option == "poolUpdate":
            return self._standing_longs(int(owner), symbol)
        if option != "positionUpdate":
            return []
        held = self._state.subaccounts[int(owner)].positions
        return [
            self._position_data(held[market_id].view(), held[market_id].market.mark, None, self._block_at_us)
            for market_id in sorted(held)
            if held[market_id].lots and symbol in ("", self._text(market_id).symbol)
        ]

    def _standing_longs(self, subaccount_id: int, symbol: str) -> list[dict[str, Any]]:
        """A subaccount's open positions in liquidity pools, as last measured."""
        return [
            {"E": self._block_at_us} | long_letters(position.view(), text) | {"T": position.opened_at_us}
            for position in self._state.amm_positions.values()
            if position.subaccount_id == subaccount_id
            and symbol in ("", (text := pool_text(self._state, position.pool_id)).symbol)
        ]

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
    """Mark and index prices of some markets as they stood at a command; of a spot market its base asset's."""

    __slots__ = ("at_us", "rows", "seq")

    def __init__(self, state: State, markets: list[Market]) -> None:
        self.seq = state.sequence
        self.at_us = state.at_us
        self.rows = [row for row in (mark_line(state, market) for market in markets) if row.mark]


def mark_line(state: State, market: Market) -> MarkLine:
    """Mark and index of a market, and a perpetual's funding.   [P-2, P-22]"""
    parameters = market.parameters
    base = parameters.base_asset_id
    index = index_price(state, base)
    if parameters.type == MarketType.SPOT:
        return MarkLine(parameters.symbol, mark_price(state, base), index)
    return MarkLine(parameters.symbol, market.mark, index, funding.running_rate(market), market.next_funding_us)


class KlineProgress:
    """How far a kline stream has been told: the open candle and how many trades it had."""

    __slots__ = ("start_s", "trades")

    def __init__(self, start_s: int, trades: int) -> None:
        self.start_s = start_s
        self.trades = trades


def _contains(ids: Any, number: int) -> bool:
    """Whether an ascending column of ids has this one."""
    at = int(ids.searchsorted(number))
    return at < len(ids) and int(ids[at]) == number
