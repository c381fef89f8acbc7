"""Who hears what: connections, their requests, and the queues in which messages wait to be sent.   [W-6]

A message is serialised once, whoever many receive it. Every client has a bounded queue; one that does not keep up is
cut off, so that nobody waits for anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from base64 import b64decode
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from api.errors import ApiError, bad_request
from api.streams.names import InvalidStreamError, Stream, parse_stream
from engine.state import ApiKey

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
TOO_MANY_STREAMS = (4009, f"Too many streams: at most {MAX_STREAMS} on one connection")
TOO_MANY_REQUESTS = (4029, f"Too many requests: at most {MAX_REQUESTS_PER_MINUTE} a minute on one connection")

Verify = Callable[[Sequence[str], str, int], Awaitable[ApiKey]]
"""`[key, signature, timestamp, window]`, the client's address, wall-clock ms → whose key it is; raises ApiError.

The signed text is `instruction=subscribe&timestamp=…&window=…`: `api.auth.Authenticator.verify_subscription`.   [W-6]
"""

_encode = msgspec.json.Encoder().encode


class Subscribers:
    """All WebSocket clients of this node, by what they subscribed to. `ended` is told of a topic that nobody hears,
    `begun` of a client that begins to hear one.
    """

    def __init__(self, verify: Verify, ended: Callable[[str], None], begun: Callable[[str, Client], None]) -> None:
        self._verify = verify
        self._ended = ended
        self._begun = begun
        self._clients: dict[Client, None] = {}
        self.topics: dict[str, dict[Client, None]] = {}
        """Topic → its clients: a public stream's name, or `subaccount:stream`."""
        self.private = 0
        """How many subscriptions to private streams there are; 0 makes a block cheap."""
        self._closing = False

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

    def send(self, topic: str, data: dict[str, Any]) -> None:
        """Queue a message for everybody who hears the topic."""
        clients = self.topics.get(topic)
        if clients is None:
            return
        # Whose it is stays out of a private stream's name.
        message = _encode({"stream": topic.rpartition(":")[2], "data": data})
        for client in clients:
            client.send(message)

    def greet(self, client: Client, topic: str, data: dict[str, Any]) -> None:
        """Queue a message for one who began to hear the topic, unless it has stopped since."""
        if topic in client.subscriptions:
            client.send(_encode({"stream": topic.rpartition(":")[2], "data": data}))

    def forget_key(self, public_key: bytes) -> None:
        """A revoked key hears nothing any more."""
        for client in self._clients:
            for topic in [topic for topic, key in client.keys.items() if key == public_key]:
                self._unsubscribe(client, topic)

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
            self._begun(topic, client)

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
        self.topics.setdefault(topic, {})[client] = None
        if stream.kind == "account":
            self.private += 1

    def _unsubscribe_all(self, client: Client, streams: list[Stream]) -> None:
        names = {stream.name for stream in streams}
        for topic, stream in list(client.subscriptions.items()):
            if stream.name in names:
                self._unsubscribe(client, topic)

    def _unsubscribe(self, client: Client, topic: str) -> None:
        stream = client.subscriptions.pop(topic)
        client.keys.pop(topic, None)
        clients = self.topics[topic]
        del clients[client]
        if not clients:
            del self.topics[topic]
            self._ended(topic)
        if stream.kind == "account":
            self.private -= 1


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


class Signer(NamedTuple):
    public_key: bytes
    subaccount_id: int


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
