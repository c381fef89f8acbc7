"""The WebSocket edge: who subscribed to what, and the messages of each stream with the contract's letters.   [W-6]

A stream's message is serialised once, whoever many receive it. Every client has a bounded queue; one that does not
keep up is cut off, so that nobody waits for anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from base64 import b64decode
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from api.candles import INTERVALS, bounds
from api.errors import ApiError, bad_request
from api.market_data import Change, MarketData
from api.rows import KlineRow
from engine.commands import OrderType, SelfTrade, Side
from engine.events import (
    BalanceChanged,
    ExpiryReason,
    KeyRevoked,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderStatus,
    OrderView,
    Outcome,
    Trade,
)
from engine.parameters import PRICE_SCALE, MarketParameters
from engine.state import ApiKey, State
from ledger.amounts import format_decimal
from ledger.blocks import Block

PING_EVERY_S = 60
CLOSE_AFTER_S = 120
"""Without a pong for this long a connection is closed.   [W-6]"""

MAX_MESSAGE_BYTES = 64 * 1024
MAX_STREAMS = 1_024
MAX_REQUESTS_PER_MINUTE = 600
MAX_CLIENTS = 4_096
MAX_QUEUED_MESSAGES = 8_192
MAX_QUEUED_BYTES = 8 * 1024 * 1024

PARSE_ERROR = (4002, "Parse error")
UNAUTHORIZED = (4005, "Invalid signature")
INVALID_STREAM = (4006, "Invalid stream")
INVALID_WINDOW = (4008, "Invalid depth window")
TOO_MANY_STREAMS = (4009, f"Too many streams: at most {MAX_STREAMS} on one connection")
TOO_MANY_REQUESTS = (4029, f"Too many requests: at most {MAX_REQUESTS_PER_MINUTE} a minute on one connection")

DEPTH_SPEEDS = {"200ms": 1, "600ms": 3, "1000ms": 5}
"""Coalesced depth streams and every how many 200 ms ticks each is sent."""
TICK_S = 0.2
TICKS_PER_SECOND = 5

Verify = Callable[[Sequence[str], str, int], Awaitable[ApiKey]]
"""`[key, signature, timestamp, window]`, the client's address, wall-clock ms → whose key it is; raises ApiError.

The signed text is `instruction=subscribe&timestamp=…&window=…`: `api.auth.Authenticator.verify_subscription`.   [W-6]
"""

_encode = msgspec.json.Encoder().encode
_SYMBOL = re.compile(r"[A-Za-z0-9_.\-]{1,40}")
_SIDES = {Side.BID: "Bid", Side.ASK: "Ask"}
_ORDER_TYPES = {OrderType.LIMIT: "LIMIT", OrderType.MARKET: "MARKET"}
_SELF_TRADE = {
    SelfTrade.REJECT_TAKER: "RejectTaker",
    SelfTrade.REJECT_MAKER: "RejectMaker",
    SelfTrade.REJECT_BOTH: "RejectBoth",
}
_STATUS = {
    OrderStatus.NEW: "New",
    OrderStatus.PARTIALLY_FILLED: "PartiallyFilled",
    OrderStatus.FILLED: "Filled",
    OrderStatus.CANCELLED: "Cancelled",
    OrderStatus.EXPIRED: "Expired",
    OrderStatus.TRIGGER_PENDING: "TriggerPending",
    OrderStatus.TRIGGER_FAILED: "TriggerFailed",
}
_ORDER_EVENTS = {
    OrderAccepted: "orderAccepted",
    OrderCancelled: "orderCancelled",
    OrderExpired: "orderExpired",
}
_PUBLIC_STREAMS = ("bookTicker", "trade", "ticker", "markPrice", "openInterest", "liquidation")
_PRIVATE_STREAMS = ("orderUpdate", "positionUpdate", "balanceUpdate", "rfqUpdate")


class Stream(NamedTuple):
    """A stream's name taken apart."""

    name: str
    kind: str
    """`depth`, `kline`, `trade` …; `account` for the private ones."""
    option: str
    """Depth speed, kline interval, or the private stream's own name."""
    symbol: str
    """"" for all."""


class Signer(NamedTuple):
    public_key: bytes
    subaccount_id: int


class InvalidStreamError(Exception):
    """No such stream; `error` is the code and message for the client."""

    def __init__(self, error: tuple[int, str]) -> None:
        super().__init__(*error)
        self.error = error


class MarketText(NamedTuple):
    """How a market's numbers are written on the streams: padded to its tick and step.   [W-6]"""

    parameters: MarketParameters
    price_decimals: int
    tick_units: int
    lot_decimals: int
    lot_units: int
    quote_decimals: int
    quote_unit_atoms: int

    @property
    def symbol(self) -> str:
        return self.parameters.symbol

    def price(self, ticks: int) -> str:
        return padded(ticks * self.tick_units, self.price_decimals)

    def quantity(self, lots: int) -> str:
        return padded(lots * self.lot_units, self.lot_decimals)

    def quote(self, atoms: int) -> str:
        """Quote atoms, padded to price and step together; exact, since tick × step is a whole number of atoms."""
        units, rest = divmod(atoms, self.quote_unit_atoms)
        if rest:
            return format_decimal(atoms, self.quote_decimals + len(str(self.quote_unit_atoms)) - 1)
        return padded(units, self.quote_decimals)


class Client:
    """One connection: its streams, and the messages that wait to be sent."""

    __slots__ = ("abort", "address", "arrived", "keys", "queue", "queued_bytes", "socket", "subscriptions")

    def __init__(self, socket: web.WebSocketResponse, address: str, abort: Callable[[], None]) -> None:
        self.socket = socket
        self.address = address
        self.abort = abort
        self.queue: deque[bytes] = deque()
        self.queued_bytes = 0
        self.arrived = asyncio.Event()
        self.subscriptions: dict[str, Stream] = {}
        """Topic → stream."""
        self.keys: dict[str, bytes] = {}
        """Private topic → the API key that signed for it: when it is revoked, so is the subscription."""

    def send(self, message: bytes) -> None:
        """Queue a message; a client whose queue is full is cut off, since its own socket takes nothing any more."""
        if len(self.queue) >= MAX_QUEUED_MESSAGES or self.queued_bytes + len(message) > MAX_QUEUED_BYTES:
            self.queue.clear()
            self.queued_bytes = 0
            self.abort()
            return
        self.queue.append(message)
        self.queued_bytes += len(message)
        self.arrived.set()


class Coalesced:
    """A slower depth stream of one market: what has changed since it was sent last."""

    __slots__ = ("asks", "at_us", "bids", "first_id", "last_id")

    def __init__(self, first_id: int) -> None:
        self.first_id = first_id
        self.last_id = first_id - 1
        self.at_us = 0
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}


class KlineProgress:
    """How far a kline stream has been told: the open candle and how many trades it had."""

    __slots__ = ("start_s", "trades")

    def __init__(self, start_s: int, trades: int) -> None:
        self.start_s = start_s
        self.trades = trades


class Streams:
    """All WebSocket clients of this node. `run` drives the timed streams; `on_block` the others."""

    def __init__(self, state: State, market_data: MarketData, verify: Verify) -> None:
        self._state = state
        self._market_data = market_data
        self._verify = verify
        self._clients: dict[Client, None] = {}
        self._topics: dict[str, dict[Client, None]] = {}
        """Topic → its clients: a public stream's name, or `subaccount:stream`."""
        self._private = 0
        """How many subscriptions to private streams there are; 0 makes a block cheap."""
        self._coalesced: dict[tuple[int, str], Coalesced] = {}
        self._klines: dict[str, KlineProgress] = {}
        self._texts: dict[int, MarketText] = {}
        self._block_at_us = 0
        self._ticks = 0
        self._closing = False

    # ---- connections

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve one WebSocket connection until it ends."""
        if self._closing or len(self._clients) >= MAX_CLIENTS:
            raise web.HTTPServiceUnavailable(text="too many connections")
        socket = web.WebSocketResponse(autoping=False, max_msg_size=MAX_MESSAGE_BYTES, timeout=5)
        await socket.prepare(request)
        transport = request.transport
        client = Client(socket, request.remote or "", transport.abort if transport is not None else lambda: None)
        self._clients[client] = None
        sender = asyncio.create_task(_send_queued(client))
        try:
            await self._read(client)
        finally:
            self._clients.pop(client, None)
            for topic in list(client.subscriptions):
                self._unsubscribe(client, topic)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender
            if not socket.closed:
                await socket.close()
        return socket

    async def close(self) -> None:
        """Say goodbye to everybody: a Close frame at shutdown.   [W-6]"""
        self._closing = True
        clients = list(self._clients)
        await asyncio.gather(
            *(client.socket.close(code=WSCloseCode.GOING_AWAY, message=b"shutting down") for client in clients),
            return_exceptions=True,
        )

    def connections(self) -> int:
        """How many clients are connected, for metrics."""
        return len(self._clients)

    async def _read(self, client: Client) -> None:
        """Requests and pongs of one client; pings it when it has been quiet."""
        heard_at = pinged_at = time.monotonic()
        window_at, requests = heard_at, 0
        while True:
            now = time.monotonic()
            if now - heard_at >= CLOSE_AFTER_S:
                client.abort()
                return
            if now - pinged_at >= PING_EVERY_S:
                pinged_at = now
                await client.socket.ping()
            wait_s = min(pinged_at + PING_EVERY_S, heard_at + CLOSE_AFTER_S) - now
            try:
                message = await client.socket.receive(timeout=max(wait_s, 0.01))
            except TimeoutError:
                continue
            if message.type == WSMsgType.PONG:
                heard_at = time.monotonic()
            elif message.type == WSMsgType.PING:
                await client.socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                now = time.monotonic()
                if now - window_at >= 60:
                    window_at, requests = now, 0
                requests += 1
                if requests > MAX_REQUESTS_PER_MINUTE:
                    client.send(_error(TOO_MANY_REQUESTS))
                    await asyncio.sleep(60 - (now - window_at))
                    continue
                await self._answer(client, message.data)
            else:
                return

    # ---- requests

    async def _answer(self, client: Client, text: str | bytes) -> None:
        """SUBSCRIBE or UNSUBSCRIBE: silence on success, an error otherwise; all its streams or none.   [W-6]"""
        try:
            request = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            client.send(_error(PARSE_ERROR))
            return
        method, names = request.get("method"), request.get("params")
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE") or not isinstance(names, list):
            client.send(_error(PARSE_ERROR))
            return
        if len(names) > MAX_STREAMS:
            client.send(_error(TOO_MANY_STREAMS))
            return
        try:
            streams = [parse_stream(name) for name in names]
        except InvalidStreamError as invalid:
            client.send(_error(invalid.error))
            return
        if method == "UNSUBSCRIBE":
            self._unsubscribe_all(client, streams)
            return
        key = None
        if any(stream.kind == "account" for stream in streams):
            try:
                key = await self._signer(client, request.get("signature"))
            except ApiError as refused:
                client.send(_error((UNAUTHORIZED[0], refused.message)))
                return
        topics = {_topic(stream, key): stream for stream in streams}
        if len(client.subscriptions.keys() | topics.keys()) > MAX_STREAMS:
            client.send(_error(TOO_MANY_STREAMS))
            return
        for topic, stream in topics.items():
            self._subscribe(client, topic, stream)
            if stream.kind == "account" and key is not None:
                client.keys[topic] = key.public_key

    async def _signer(self, client: Client, signature: Any) -> Signer:
        """Whose private streams are meant. Raises ApiError."""
        if not isinstance(signature, list) or len(signature) != 4:
            raise bad_request(UNAUTHORIZED[1])
        parts = [str(part) for part in signature]
        owner = await self._verify(parts, client.address, time.time_ns() // 1_000_000)
        return Signer(b64decode(parts[0]), owner.subaccount_id)

    def _subscribe(self, client: Client, topic: str, stream: Stream) -> None:
        if topic in client.subscriptions:
            return
        client.subscriptions[topic] = stream
        self._topics.setdefault(topic, {})[client] = None
        if stream.kind == "account":
            self._private += 1

    def _unsubscribe_all(self, client: Client, streams: list[Stream]) -> None:
        names = {stream.name for stream in streams}
        for topic, stream in list(client.subscriptions.items()):
            if stream.name in names:
                self._unsubscribe(client, topic)

    def _unsubscribe(self, client: Client, topic: str) -> None:
        stream = client.subscriptions.pop(topic)
        client.keys.pop(topic, None)
        clients = self._topics[topic]
        del clients[client]
        if not clients:
            del self._topics[topic]
            self._klines.pop(topic, None)
        if stream.kind == "account":
            self._private -= 1

    # ---- what a block brings

    def on_block(self, block: Block, outcomes: list[Outcome], changes: dict[int, Change]) -> None:
        """Publish a durable block: `changes` is what `MarketData.on_block` gave for it.   [A-7, W-6]"""
        self._block_at_us = block.header.at_us
        if not self._topics:
            self._coalesced.clear()
            return
        for market_id, change in changes.items():
            self._publish_market(market_id, change)
        if self._private:
            for outcome in outcomes:
                if outcome.events:
                    self._publish_private(outcome)

    def _publish_market(self, market_id: int, change: Change) -> None:
        text = self._text(market_id)
        symbol = text.symbol
        for trade in change.trades:
            clients = self._topics.get(f"trade.{symbol}")
            if clients is None:
                break
            row = trade.row
            self._send(
                clients,
                f"trade.{symbol}",
                {
                    "e": "trade",
                    "E": self._block_at_us,
                    "s": symbol,
                    "p": text.price(row.price_ticks),
                    "q": text.quantity(row.lots),
                    "b": str(trade.bid_order_id),
                    "a": str(trade.ask_order_id),
                    "t": row.trade_id,
                    "T": row.at_us,
                    "m": row.is_buyer_maker,
                },
            )
        if change.last_id >= change.first_id:
            clients = self._topics.get(f"depth.{symbol}")
            if clients is not None:
                self._send(clients, f"depth.{symbol}", self._depth(text, change))
            for speed in DEPTH_SPEEDS:
                self._coalesce(market_id, f"depth.{speed}.{symbol}", speed, change)
        if change.top_changed:
            clients = self._topics.get(f"bookTicker.{symbol}")
            if clients is not None:
                self._send(clients, f"bookTicker.{symbol}", self._book_ticker(market_id, text, change))

    def _coalesce(self, market_id: int, topic: str, speed: str, change: Change) -> None:
        if topic not in self._topics:
            self._coalesced.pop((market_id, speed), None)
            return
        pending = self._coalesced.get((market_id, speed))
        if pending is None:
            pending = self._coalesced[market_id, speed] = Coalesced(change.first_id)
        pending.last_id = change.last_id
        pending.at_us = change.at_us
        pending.bids.update(change.bids)
        pending.asks.update(change.asks)

    def _depth(self, text: MarketText, change: Change | Coalesced) -> dict[str, Any]:
        """Absolute sizes by price, best first on neither side promised; "0" takes a level away.   [W-6]"""
        price, quantity = text.price, text.quantity
        return {
            "e": "depth",
            "E": self._block_at_us,
            "s": text.symbol,
            "a": [(price(ticks), quantity(lots)) for ticks, lots in sorted(change.asks.items())],
            "b": [(price(ticks), quantity(lots)) for ticks, lots in sorted(change.bids.items())],
            "U": change.first_id,
            "u": change.last_id,
            "T": change.at_us,
        }

    def _book_ticker(self, market_id: int, text: MarketText, change: Change) -> dict[str, Any]:
        bid, ask = self._market_data.best(market_id)
        return {
            "e": "bookTicker",
            "E": self._block_at_us,
            "s": text.symbol,
            "a": text.price(ask[0]) if ask is not None else None,
            "A": text.quantity(ask[1]) if ask is not None else None,
            "b": text.price(bid[0]) if bid is not None else None,
            "B": text.quantity(bid[1]) if bid is not None else None,
            "u": change.last_id,
            "T": change.at_us,
        }

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
                self._forget_key(event.public_key)

    def _forget_key(self, public_key: bytes) -> None:
        """A revoked key hears nothing any more."""
        for client in self._clients:
            for topic in [topic for topic, key in client.keys.items() if key == public_key]:
                self._unsubscribe(client, topic)

    def _publish_fill(self, trade: Trade, at_us: int, *, maker: bool) -> None:
        order = trade.maker if maker else trade.taker
        fee_asset_id = trade.maker_fee_asset_id if maker else trade.taker_fee_asset_id
        fee_atoms = trade.maker_fee_atoms if maker else trade.taker_fee_atoms
        asset = self._state.assets[fee_asset_id]
        text = self._text(trade.market_id)
        fill = {
            "t": trade.trade_id,
            "l": text.quantity(trade.lots),
            "L": text.price(trade.price_ticks),
            "m": maker,
            "n": format_decimal(fee_atoms, asset.decimals),
            "N": asset.symbol,
        }
        self._publish_order(order, "orderFill", at_us, fill)

    def _publish_order(self, order: OrderView, event: str, at_us: int, fill: dict[str, Any]) -> None:
        text = self._text(order.market_id)
        everything = f"{order.subaccount_id}:account.orderUpdate"
        of_market = f"{everything}.{text.symbol}"
        if everything not in self._topics and of_market not in self._topics:
            return
        data = order_update(order, event, text, self._block_at_us, at_us) | fill
        for topic in (everything, of_market):
            clients = self._topics.get(topic)
            if clients is not None:
                self._send(clients, topic.partition(":")[2], data)

    def _publish_balance(self, change: BalanceChanged, at_us: int) -> None:
        clients = self._topics.get(f"{change.subaccount_id}:account.balanceUpdate")
        if clients is None:
            return
        asset = self._state.assets[change.asset_id]
        data = {
            "e": "balanceUpdate",
            "E": self._block_at_us,
            "a": asset.symbol,
            "A": format_decimal(change.available_atoms, asset.decimals),
            "L": format_decimal(change.locked_atoms, asset.decimals),
            "S": "0",
            "T": at_us,
        }
        self._send(clients, "account.balanceUpdate", data)

    # ---- what time brings

    async def run(self) -> None:
        """Send the timed streams until cancelled: slower depth, tickers and candles."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + TICK_S, loop.time())
            await asyncio.sleep(due - loop.time())
            self.tick()

    def tick(self) -> None:
        """One step of 200 ms."""
        self._ticks += 1
        if not self._topics:
            return
        for (market_id, speed), pending in list(self._coalesced.items()):
            if self._ticks % DEPTH_SPEEDS[speed] == 0:
                self._send_coalesced(market_id, speed, pending)
        if self._ticks % TICKS_PER_SECOND == 0:
            self._each_second()

    def _send_coalesced(self, market_id: int, speed: str, pending: Coalesced) -> None:
        del self._coalesced[market_id, speed]
        text = self._text(market_id)
        topic = f"depth.{speed}.{text.symbol}"
        clients = self._topics.get(topic)
        if clients is not None:
            self._send(clients, topic, self._depth(text, pending))

    def _each_second(self) -> None:
        for market_id, market in self._state.markets.items():
            symbol = market.parameters.symbol
            clients = self._topics.get(f"ticker.{symbol}")
            if clients is not None:
                self._send_ticker(market_id, clients)
            for interval in INTERVALS:
                topic = f"kline.{interval}.{symbol}"
                clients = self._topics.get(topic)
                if clients is not None:
                    self._send_klines(market_id, interval, topic, clients)

    def _send_ticker(self, market_id: int, clients: dict[Client, None]) -> None:
        row = self._market_data.ticker(market_id)
        if row is None:
            return
        text = self._text(market_id)
        data = {
            "e": "ticker",
            "E": self._block_at_us,
            "s": text.symbol,
            "o": text.price(row.first_price_ticks),
            "c": text.price(row.last_price_ticks),
            "h": text.price(row.high_price_ticks),
            "l": text.price(row.low_price_ticks),
            "v": text.quantity(row.lots),
            "V": text.quote(row.quote_atoms),
            "n": row.trades,
        }
        self._send(clients, f"ticker.{text.symbol}", data)

    def _send_klines(self, market_id: int, interval: str, topic: str, clients: dict[Client, None]) -> None:
        """The open candle when it traded since the last second; every candle that closed, with X true.   [W-6]"""
        now_s = self._market_data.now_s()
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
                self._send(clients, topic, self._kline(market_id, row, closed=closed))
                if not closed:
                    progress.trades = row.trades
        if progress.start_s != open_start_s:
            still_open = rows[-1].trades if rows and rows[-1].start_s == open_start_s else 0
            progress.start_s, progress.trades = open_start_s, still_open

    def _kline(self, market_id: int, row: KlineRow, *, closed: bool) -> dict[str, Any]:
        text = self._text(market_id)
        assert row.open_price_ticks is not None and row.close_price_ticks is not None
        assert row.high_price_ticks is not None and row.low_price_ticks is not None
        return {
            "e": "kline",
            "E": self._block_at_us,
            "s": text.symbol,
            "t": _iso(row.start_s),
            "T": _iso(row.end_s),
            "o": text.price(row.open_price_ticks),
            "c": text.price(row.close_price_ticks),
            "h": text.price(row.high_price_ticks),
            "l": text.price(row.low_price_ticks),
            "v": text.quantity(row.lots),
            "n": row.trades,
            "X": closed,
        }

    # ---- sending

    def _send(self, clients: dict[Client, None], stream: str, data: dict[str, Any]) -> None:
        message = _encode({"stream": stream, "data": data})
        for client in clients:
            client.send(message)

    def _text(self, market_id: int) -> MarketText:
        parameters = self._state.markets[market_id].parameters
        text = self._texts.get(market_id)
        if text is None or text.parameters is not parameters:
            text = self._texts[market_id] = market_text(self._state, parameters)
        return text


def parse_stream(name: object) -> Stream:
    """Take a stream's name apart; raises InvalidStreamError. Unknown symbols are not looked at: they stay silent."""
    if not isinstance(name, str):
        raise InvalidStreamError(INVALID_STREAM)
    kind, _, rest = name.partition(".")
    if kind == "account":
        option, _, symbol = rest.partition(".")
        if option in _PRIVATE_STREAMS and (not symbol or (option != "balanceUpdate" and _SYMBOL.fullmatch(symbol))):
            return Stream(name, kind, option, symbol)
    elif kind == "kline":
        option, _, symbol = rest.partition(".")
        if option in INTERVALS and _SYMBOL.fullmatch(symbol):
            return Stream(name, kind, option, symbol)
    elif kind == "depth":
        option, _, symbol = rest.partition(".")
        if symbol and option[:1].isdigit():
            if option not in DEPTH_SPEEDS:
                raise InvalidStreamError(INVALID_WINDOW)
            if _SYMBOL.fullmatch(symbol):
                return Stream(name, kind, option, symbol)
        elif _SYMBOL.fullmatch(rest):
            return Stream(name, kind, "", rest)
    elif kind in _PUBLIC_STREAMS and (_SYMBOL.fullmatch(rest) or (kind == "liquidation" and not rest)):
        return Stream(name, kind, "", rest)
    raise InvalidStreamError(INVALID_STREAM)


def market_text(state: State, parameters: MarketParameters) -> MarketText:
    """How this market's numbers are written."""
    base = state.assets[parameters.base_asset_id]
    quote = state.assets[parameters.quote_asset_id]
    tick_units, price_decimals = _shortest(parameters.tick_price, len(str(PRICE_SCALE)) - 1)
    lot_units, lot_decimals = _shortest(parameters.lot_atoms, base.decimals)
    quote_decimals = min(price_decimals + lot_decimals, quote.decimals)
    quote_unit_atoms = 10 ** (quote.decimals - quote_decimals)
    return MarketText(
        parameters, price_decimals, tick_units, lot_decimals, lot_units, quote_decimals, quote_unit_atoms
    )


def order_update(order: OrderView, event: str, text: MarketText, published_us: int, at_us: int) -> dict[str, Any]:
    """The letters of account.orderUpdate that every event has; letters without a value are left out.   [W-6]"""
    data: dict[str, Any] = {"e": event, "E": published_us, "s": text.symbol}
    if order.client_id is not None:
        data["c"] = order.client_id
    data["S"] = _SIDES[order.side]
    data["o"] = _ORDER_TYPES[order.order_type]
    data["f"] = order.time_in_force.name
    if order.lots:
        data["q"] = text.quantity(order.lots)
    if order.quote_atoms:
        data["Q"] = text.quote(order.quote_atoms)
    if order.order_type == OrderType.LIMIT:
        data["p"] = text.price(order.price_ticks)
        data["y"] = order.post_only
    data["X"] = _STATUS[order.status]
    if order.expiry_reason is not None:
        data["R"] = ExpiryReason(order.expiry_reason).name
    data["i"] = str(order.order_id)
    data["z"] = text.quantity(order.executed_lots)
    data["Z"] = text.quote(order.executed_quote_atoms)
    data["V"] = _SELF_TRADE[order.self_trade]
    data["T"] = at_us
    data["O"] = "USER"
    data["r"] = order.reduce_only
    return data


def padded(units: int, decimals: int) -> str:
    """`units / 10^decimals` with exactly that many decimals: 866480, 1 → "86648.0".   [W-6]"""
    if not decimals:
        return str(units)
    if units < 0:
        return "-" + padded(-units, decimals)
    whole, fraction = divmod(units, 10**decimals)
    return f"{whole}.{fraction:0{decimals}d}"


async def _send_queued(client: Client) -> None:
    """Send what is queued, in order, until cancelled or the connection breaks."""
    queue, socket = client.queue, client.socket
    with contextlib.suppress(ConnectionError, RuntimeError):
        while True:
            await client.arrived.wait()
            client.arrived.clear()
            while queue:
                message = queue.popleft()
                client.queued_bytes -= len(message)
                await socket.send_frame(message, WSMsgType.TEXT)


def _topic(stream: Stream, signer: Signer | None) -> str:
    if stream.kind != "account":
        return stream.name
    assert signer is not None, f"{stream.name} was asked for without a signature"
    return f"{signer.subaccount_id}:{stream.name}"


def _error(error: tuple[int, str]) -> bytes:
    return _encode({"id": None, "error": {"code": error[0], "message": error[1]}})


def _shortest(value: int, decimals: int) -> tuple[int, int]:
    """`value / 10^decimals` in as few decimals as it needs: 10^10, 12 → (1, 2)."""
    while decimals and value % 10 == 0:
        value //= 10
        decimals -= 1
    return value, decimals


def _iso(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
