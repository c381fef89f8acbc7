"""The WebSocket edge over real connections: what is said, to whom, in which letters, when it is silent.   [W-6]"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from api.auth import Authenticator
from api.limits import RateLimits
from api.market_data import MarketData
from api.streams import publishing, subscribers
from api.verification_pool import VerificationPool
from engine.commands import (
    AcceptQuote,
    AddKey,
    Bracket,
    CancelOrder,
    Command,
    OrderType,
    PlaceOrder,
    RevokeKey,
    SetPrices,
    Side,
    SubmitQuote,
    SubmitRfq,
    TimeInForce,
    TriggerBy,
)
from tests.api.exchange import ALICE, BOB, SOL, SOL_USDC, Exchange, limit, public_key, secret_key

BID, ASK = Side.BID, Side.ASK


class Edge:
    """An exchange, its streams, and a server that clients connect to."""

    def __init__(self, client: TestClient[web.Request, web.Application], exchange: Exchange) -> None:
        self.client = client
        self.exchange = exchange
        self.data = MarketData(exchange.now_us)
        self.data.load_books(exchange.state)
        self.pool = VerificationPool()
        limits = RateLimits()
        verify = Authenticator(exchange.state, self.pool, limits).verify_subscription
        self.streams = publishing.Streams(exchange.state, self.data, verify)

    async def connect(self, *streams: str, signature: list[str] | None = None) -> Connection:
        """A client that is subscribed for sure: an error to a bad request is the answer to the one before."""
        connection = Connection(await self.client.ws_connect("/"))
        if streams:
            await connection.subscribe(*streams, signature=signature)
        return connection

    def run(self, *commands: Command) -> None:
        """One block, published as the node does it."""
        block, outcomes = self.exchange.run(*commands)
        changes = self.data.on_block(block, outcomes, self.exchange.state)
        self.streams.on_block(block, outcomes, changes)

    def second(self) -> None:
        for _ in range(publishing.TICKS_PER_SECOND):
            self.streams.tick()


class Connection:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def subscribe(self, *streams: str, signature: list[str] | None = None) -> None:
        request: dict[str, Any] = {"method": "SUBSCRIBE", "params": list(streams)}
        if signature is not None:
            request["signature"] = signature
        await self.socket.send_json(request)
        await self.round_trip()

    async def round_trip(self) -> None:
        """Requests are answered in order: once the error to this one is here, those before it are done."""
        await self.socket.send_str("?")
        assert (await self.receive())["error"]["code"] == 4002

    async def receive(self) -> dict[str, Any]:
        message = await self.socket.receive(timeout=5)
        assert message.type == aiohttp.WSMsgType.TEXT, message
        decoded: dict[str, Any] = msgspec.json.decode(message.data)
        return decoded

    async def data(self, stream: str) -> dict[str, Any]:
        message = await self.receive()
        assert message["stream"] == stream
        data: dict[str, Any] = message["data"]
        return data

    async def is_silent(self) -> bool:
        """Nothing has come: the next thing is the answer to a question asked now."""
        await self.round_trip()
        return True


def signed(subaccount_id: int, *, timestamp_ms: int | None = None, window: str = "5000") -> list[str]:
    timestamp = str(timestamp_ms or time.time_ns() // 1_000_000)
    text = f"instruction=subscribe&timestamp={timestamp}&window={window}"
    signature = secret_key(subaccount_id).sign(text.encode())
    return [b64encode(public_key(subaccount_id)).decode(), b64encode(signature).decode(), timestamp, window]


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    application = web.Application()
    server = TestServer(application)
    client = TestClient(server)
    edge = Edge(client, Exchange())
    await edge.pool.start()
    application.router.add_get("/", edge.streams.subscribers.connect)
    await client.start_server()
    yield edge
    await edge.streams.subscribers.close()
    await client.close()
    await edge.pool.close()


async def test_depth_has_absolute_padded_sizes_and_consecutive_ids(edge: Edge) -> None:
    client = await edge.connect("depth.SOL_USDC")
    edge.run(limit(ALICE, BID, 10_000, 30), limit(BOB, ASK, 10_050, 5))
    edge.run(limit(BOB, BID, 10_000, 1))

    first = await client.data("depth.SOL_USDC")
    second = await client.data("depth.SOL_USDC")

    assert list(first) == ["e", "E", "s", "a", "b", "U", "u", "T"]
    assert first["e"] == "depth"
    assert first["b"] == [["100.00", "0.30"]]
    assert first["a"] == [["100.50", "0.05"]]
    assert second["b"] == [["100.00", "0.31"]]
    assert second["U"] == first["u"] + 1
    assert second["u"] == edge.data.depth(SOL_USDC, 5).last_update_id
    assert first["T"] == edge.exchange.at_us


async def test_an_emptied_level_has_size_zero(edge: Edge) -> None:
    edge.run(limit(ALICE, BID, 10_000, 30, client_id=7))
    client = await edge.connect("depth.SOL_USDC")

    edge.run(CancelOrder(ALICE, SOL_USDC, client_id=7))

    assert (await client.data("depth.SOL_USDC"))["b"] == [["100.00", "0.00"]]


async def test_slower_depth_joins_blocks_without_a_gap(edge: Edge) -> None:
    client = await edge.connect("depth.600ms.SOL_USDC")
    start = edge.data.update_id(SOL_USDC)
    edge.run(limit(ALICE, BID, 10_000, 30))
    edge.run(limit(ALICE, BID, 10_001, 30))
    edge.run(limit(BOB, ASK, 10_001, 10), limit(ALICE, BID, 9_000, 1))
    assert await client.is_silent()
    for _ in range(3):
        edge.streams.tick()
    first = await client.data("depth.600ms.SOL_USDC")
    edge.run(limit(ALICE, BID, 9_000, 1))
    for _ in range(3):
        edge.streams.tick()
    second = await client.data("depth.600ms.SOL_USDC")

    assert first["U"] == start + 1
    assert first["b"] == [["90.00", "0.01"], ["100.00", "0.30"], ["100.01", "0.20"]]
    assert second["U"] == first["u"] + 1
    assert second["b"] == [["90.00", "0.02"]]


async def test_a_book_kept_from_any_depth_stream_equals_the_snapshot(edge: Edge) -> None:
    names = ["depth.SOL_USDC", "depth.200ms.SOL_USDC", "depth.600ms.SOL_USDC", "depth.1000ms.SOL_USDC"]
    client = await edge.connect(*names)
    for round_number in range(40):
        price = 10_000 + round_number % 7
        edge.run(limit(ALICE, BID, price, 1 + round_number), limit(BOB, ASK, price + 3, 2 + round_number))
        edge.streams.tick()
    for _ in range(5):
        edge.streams.tick()

    books: dict[str, dict[str, dict[str, str]]] = {name: {"a": {}, "b": {}} for name in names}
    ids: dict[str, int] = {}
    await client.socket.send_str("?")
    while "stream" in (message := await client.receive()):
        name, data = message["stream"], message["data"]
        assert ids.get(name, data["U"] - 1) + 1 == data["U"] <= data["u"]
        ids[name] = data["u"]
        for side in "ab":
            for price_text, size in data[side]:
                books[name][side][price_text] = size

    view = edge.data.depth(SOL_USDC, 1_000)
    for name in names:
        for side, levels in (("a", view.asks), ("b", view.bids)):
            kept = {p: s for p, s in books[name][side].items() if float(s)}
            assert kept == {f"{ticks / 100:.2f}": f"{lots / 100:.2f}" for ticks, lots in levels}


async def test_book_ticker_is_null_where_a_side_is_empty(edge: Edge) -> None:
    client = await edge.connect("bookTicker.SOL_USDC")
    edge.run(limit(ALICE, BID, 10_000, 30))
    edge.run(limit(ALICE, BID, 9_000, 30))
    edge.run(limit(BOB, ASK, 10_100, 4))

    first = await client.data("bookTicker.SOL_USDC")
    second = await client.data("bookTicker.SOL_USDC")

    assert list(first) == ["e", "E", "s", "a", "A", "b", "B", "u", "T"]
    assert (first["a"], first["A"], first["b"], first["B"]) == (None, None, "100.00", "0.30")
    assert (second["a"], second["A"], second["b"], second["B"]) == ("101.00", "0.04", "100.00", "0.30")
    assert second["u"] == edge.data.update_id(SOL_USDC)


async def test_trade_names_both_orders_and_who_was_the_maker(edge: Edge) -> None:
    client = await edge.connect("trade.SOL_USDC")
    edge.run(limit(ALICE, ASK, 10_000, 30), limit(BOB, BID, 10_000, 25))
    edge.run(limit(ALICE, BID, 9_900, 1), limit(BOB, ASK, 9_900, 1))

    first = await client.data("trade.SOL_USDC")
    second = await client.data("trade.SOL_USDC")

    assert list(first) == ["e", "E", "s", "p", "q", "b", "a", "t", "T", "m"]
    assert first | {"E": 0, "T": 0} == {
        "e": "trade", "E": 0, "s": "SOL_USDC", "p": "100.00", "q": "0.25", "b": "2", "a": "1", "t": 1, "T": 0,
        "m": False,
    }
    assert (second["t"], second["m"], second["b"], second["a"]) == (2, True, "3", "4")


async def test_ticker_comes_each_second_once_there_is_one(edge: Edge) -> None:
    client = await edge.connect("ticker.SOL_USDC")
    edge.second()
    assert await client.is_silent()
    edge.run(limit(ALICE, ASK, 10_000, 30), limit(BOB, BID, 10_000, 25))
    edge.second()

    ticker = await client.data("ticker.SOL_USDC")

    assert list(ticker) == ["e", "E", "s", "o", "c", "h", "l", "v", "V", "n"]
    assert (ticker["o"], ticker["c"], ticker["v"], ticker["V"], ticker["n"]) == (
        "100.00", "100.00", "0.25", "25.0000", 1,
    )


async def test_kline_tells_the_open_candle_and_then_its_end(edge: Edge) -> None:
    edge.exchange.wait(60 - edge.exchange.at_us // 1_000_000 % 60)
    client = await edge.connect("kline.1m.SOL_USDC")
    edge.second()
    edge.run(limit(ALICE, ASK, 10_000, 30), limit(BOB, BID, 10_000, 25))
    edge.second()
    edge.second()
    edge.exchange.wait(30)
    edge.run(limit(BOB, BID, 10_000, 5))
    edge.second()
    edge.exchange.wait(31)
    edge.second()
    edge.second()

    klines = [await client.data("kline.1m.SOL_USDC") for _ in range(3)]

    assert list(klines[0]) == ["e", "E", "s", "t", "T", "o", "c", "h", "l", "v", "n", "X"]
    assert [(kline["n"], kline["v"], kline["X"]) for kline in klines] == [
        (1, "0.25", False), (2, "0.30", False), (2, "0.30", True),
    ]
    assert len({kline["t"] for kline in klines}) == 1
    assert klines[0]["t"][10] == "T"
    assert klines[0]["t"][-3:] == klines[0]["T"][-3:] == ":00"
    assert await client.is_silent()


async def test_order_updates_reach_their_owner_only(edge: Edge) -> None:
    alice = await edge.connect("account.orderUpdate", signature=signed(ALICE))
    bob = await edge.connect("account.orderUpdate.SOL_USDC", signature=signed(BOB))
    edge.run(limit(ALICE, ASK, 10_000, 30, client_id=77, post_only=True))
    edge.run(limit(BOB, BID, 10_000, 40, time_in_force=TimeInForce.IOC))

    accepted = await alice.data("account.orderUpdate")
    filled = await alice.data("account.orderUpdate")
    taken = [await bob.data("account.orderUpdate.SOL_USDC") for _ in range(3)]

    assert accepted | {"E": 0, "T": 0} == {
        "e": "orderAccepted", "E": 0, "s": "SOL_USDC", "c": 77, "S": "Ask", "o": "LIMIT", "f": "GTC", "q": "0.30",
        "p": "100.00", "y": True, "X": "New", "i": "1", "z": "0.00", "Z": "0.0000", "V": "RejectTaker", "T": 0,
        "O": "USER", "r": False,
    }
    assert (filled["e"], filled["X"], filled["t"], filled["l"], filled["L"], filled["m"]) == (
        "orderFill", "Filled", 1, "0.30", "100.00", True,
    )
    assert (filled["n"], filled["N"], filled["z"], filled["Z"]) == ("0.024", "USDC", "0.30", "30.0000")
    assert [(update["e"], update["X"]) for update in taken] == [
        ("orderAccepted", "New"), ("orderFill", "PartiallyFilled"), ("orderExpired", "Expired"),
    ]
    assert taken[2]["R"] == "IMMEDIATE_OR_CANCEL"
    assert await alice.is_silent()
    assert await bob.is_silent()


async def test_a_market_order_by_quote_shows_its_quote_quantity_and_ends_filled(edge: Edge) -> None:
    edge.run(limit(ALICE, ASK, 10_000, 300))
    bob = await edge.connect("account.orderUpdate", signature=signed(BOB))
    edge.run(PlaceOrder(BOB, SOL_USDC, BID, OrderType.MARKET, quote_atoms=2_500_000))

    accepted = await bob.data("account.orderUpdate")
    filled = await bob.data("account.orderUpdate")

    assert accepted["o"] == "MARKET"
    assert accepted["Q"] == "2.5000"
    assert "p" not in accepted
    assert "q" not in accepted
    assert (filled["X"], filled["z"]) == ("Filled", "0.02")


async def test_a_cancel_is_told(edge: Edge) -> None:
    alice = await edge.connect("account.orderUpdate", signature=signed(ALICE))
    edge.run(limit(ALICE, ASK, 10_000, 30, client_id=77))
    edge.run(CancelOrder(ALICE, SOL_USDC, client_id=77))

    assert (await alice.data("account.orderUpdate"))["e"] == "orderAccepted"
    cancelled = await alice.data("account.orderUpdate")
    assert (cancelled["e"], cancelled["X"]) == ("orderCancelled", "Cancelled")


async def test_balance_updates_are_absolute(edge: Edge) -> None:
    alice = await edge.connect("account.balanceUpdate", signature=signed(ALICE))
    edge.run(limit(ALICE, BID, 10_000, 30))

    balance = await alice.data("account.balanceUpdate")

    assert balance | {"E": 0, "T": 0} == {
        "e": "balanceUpdate", "E": 0, "a": "USDC", "A": "999999970", "L": "30", "S": "0", "T": 0,
    }


async def test_a_revoked_key_hears_nothing_more(edge: Edge) -> None:
    alice = await edge.connect("account.balanceUpdate", "trade.SOL_USDC", signature=signed(ALICE))
    edge.run(AddKey(ALICE, public_key(9)))
    edge.run(RevokeKey(ALICE, public_key(ALICE)))
    edge.run(edge.exchange.deposit(ALICE, 1))

    assert await alice.is_silent()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 4002),
        ("[]", 4002),
        ("[" * 20_000, 4002),
        ('{"method":"SUBSCRIBE"}', 4002),
        ('{"method":"SUBSCRIBE","params":"depth.SOL_USDC"}', 4002),
        ('{"method":"PUBLISH","params":[]}', 4002),
        ('{"method":"SUBSCRIBE","params":["depths.SOL_USDC"]}', 4006),
        ('{"method":"SUBSCRIBE","params":["kline.7m.SOL_USDC"]}', 4006),
        ('{"method":"SUBSCRIBE","params":["depth"]}', 4006),
        ('{"method":"SUBSCRIBE","params":["trade."]}', 4006),
        ('{"method":"SUBSCRIBE","params":["account.everything"]}', 4006),
        ('{"method":"SUBSCRIBE","params":[5]}', 4006),
        ('{"method":"SUBSCRIBE","params":["depth.300ms.SOL_USDC"]}', 4008),
        ('{"method":"SUBSCRIBE","params":["account.orderUpdate"]}', 4005),
        ('{"method":"SUBSCRIBE","params":["account.orderUpdate"],"signature":["a","b","c","d"]}', 4005),
        ('{"method":"SUBSCRIBE","params":["account.orderUpdate"],"signature":[1,2,3]}', 4005),
    ],
)
async def test_a_bad_request_is_answered_with_its_code(edge: Edge, text: str, code: int) -> None:
    client = await edge.connect()

    await client.socket.send_str(text)

    answer = await client.receive()
    assert answer["id"] is None
    assert answer["error"]["code"] == code
    assert isinstance(answer["error"]["message"], str)


async def test_a_stale_or_foreign_signature_is_refused(edge: Edge) -> None:
    client = await edge.connect()
    stale = signed(ALICE, timestamp_ms=time.time_ns() // 1_000_000 - 60_000)
    forged = [*signed(ALICE)[:1], *signed(BOB)[1:]]
    wide = signed(ALICE, window="60001")
    for signature in (stale, forged, wide):
        await client.socket.send_json(
            {"method": "SUBSCRIBE", "params": ["account.balanceUpdate"], "signature": signature}
        )
        assert (await client.receive())["error"]["code"] == 4005
    edge.run(edge.exchange.deposit(ALICE, 1))

    assert await client.is_silent()


async def test_marks_are_told_each_second_and_not_before_they_are_durable(edge: Edge) -> None:
    """A-7, W-6"""
    client = await edge.connect("markPrice.SOL_USDC")
    edge.second()
    assert await client.is_silent(), "there is no price yet"
    block, outcomes = edge.exchange.run(SetPrices(((SOL, 150_250_000_000_000),)))
    edge.second()
    assert await client.is_silent(), "its block is not durable yet"

    edge.streams.on_block(block, outcomes, edge.data.on_block(block, outcomes, edge.exchange.state))
    edge.streams.tick()
    mark = await client.data("markPrice.SOL_USDC")
    assert mark == {
        "e": "markPrice", "E": edge.exchange.at_us, "s": "SOL_USDC", "p": "150.25", "i": "150.25",
        "T": edge.exchange.at_us,
    }
    edge.streams.tick()
    assert await client.is_silent(), "once a second"
    edge.second()
    assert (await client.data("markPrice.SOL_USDC"))["p"] == "150.25"


async def test_unknown_symbols_and_streams_of_later_are_silent(edge: Edge) -> None:
    client = await edge.connect("depth.NOPE_USDC", "markPrice.SOL_USDC_PERP", "liquidation", "openInterest.SOL_USDC")
    edge.run(limit(ALICE, BID, 10_000, 30))
    edge.second()

    assert await client.is_silent()


async def test_unsubscribe_needs_no_signature_and_is_silent(edge: Edge) -> None:
    client = await edge.connect("trade.SOL_USDC", "account.balanceUpdate", signature=signed(ALICE))
    await client.socket.send_json({"method": "UNSUBSCRIBE", "params": ["trade.SOL_USDC", "account.balanceUpdate"]})
    await client.round_trip()
    edge.run(limit(ALICE, ASK, 10_000, 30), limit(BOB, BID, 10_000, 25))

    assert await client.is_silent()
    assert edge.streams.subscribers.topics == {}
    assert edge.streams.subscribers.private == 0


async def test_a_request_is_done_whole_or_not_at_all(edge: Edge) -> None:
    client = await edge.connect()
    await client.socket.send_json({"method": "SUBSCRIBE", "params": ["trade.SOL_USDC", "nonsense.SOL_USDC"]})
    assert (await client.receive())["error"]["code"] == 4006
    edge.run(limit(ALICE, ASK, 10_000, 30), limit(BOB, BID, 10_000, 25))

    assert await client.is_silent()


async def test_streams_on_one_connection_are_limited(edge: Edge) -> None:
    client = await edge.connect(*(f"trade.M{number}" for number in range(subscribers.MAX_STREAMS)))
    await client.socket.send_json({"method": "SUBSCRIBE", "params": ["trade.ONE_MORE"]})

    assert (await client.receive())["error"]["code"] == 4009
    await client.subscribe("trade.M5")


async def test_an_oversized_message_closes_the_connection(edge: Edge) -> None:
    client = await edge.connect()

    await client.socket.send_str("x" * (subscribers.MAX_MESSAGE_BYTES + 1))

    message = await client.socket.receive(timeout=5)
    assert message.type == aiohttp.WSMsgType.CLOSE
    assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_client_that_does_not_read_is_cut_off_and_others_are_not(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers, "MAX_QUEUED_MESSAGES", 50)
    lazy = await edge.connect("depth.SOL_USDC")
    stop_reading(lazy)
    busy = await edge.connect("depth.SOL_USDC")
    wide = [limit(ALICE, BID, 1_000 + number, 1) for number in range(900)]
    edge.run(*wide)
    await busy.data("depth.SOL_USDC")
    for number in range(2_000):
        edge.run(limit(BOB, BID, 9_000, number + 1, client_id=number + 1))
        edge.run(CancelOrder(BOB, SOL_USDC, client_id=number + 1))
        edge.streams._publish_market(SOL_USDC, _wide_change(edge))
        for _ in range(3):
            await busy.data("depth.SOL_USDC")
        if edge.streams.subscribers.connections() == 1:
            break
        await asyncio.sleep(0)

    assert edge.streams.subscribers.connections() == 1
    edge.run(limit(BOB, BID, 9_000, 5))
    assert (await busy.data("depth.SOL_USDC"))["b"] == [["90.00", "0.05"]]
    lazy.socket._response.connection.transport.abort()  # type: ignore[union-attr]


async def test_pings_are_sent_and_a_dead_client_is_dropped(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribers, "PING_EVERY_S", 0.1)
    monkeypatch.setattr(subscribers, "CLOSE_AFTER_S", 0.5)
    alive = await edge.connect("trade.SOL_USDC")
    dead = await edge.client.ws_connect("/", autoping=False)
    listening = asyncio.create_task(alive.receive())

    assert (await dead.receive(timeout=5)).type == aiohttp.WSMsgType.PING
    await asyncio.sleep(1)

    assert edge.streams.subscribers.connections() == 1
    edge.run(limit(ALICE, ASK, 10_000, 30), limit(BOB, BID, 10_000, 25))
    assert (await listening)["stream"] == "trade.SOL_USDC"


async def test_shutdown_says_goodbye(edge: Edge) -> None:
    client = await edge.connect("trade.SOL_USDC")

    closing = asyncio.create_task(edge.streams.subscribers.close())
    message = await client.socket.receive(timeout=5)
    await closing

    assert message.type == aiohttp.WSMsgType.CLOSE
    assert message.data == aiohttp.WSCloseCode.GOING_AWAY


async def test_many_clients_get_the_very_same_bytes(edge: Edge) -> None:
    clients = [await edge.connect("trade.SOL_USDC") for _ in range(20)]
    edge.run(limit(ALICE, ASK, 10_000, 30), limit(BOB, BID, 10_000, 25))

    texts = {(await client.socket.receive(timeout=5)).data for client in clients}

    assert len(texts) == 1


def stop_reading(connection: Connection) -> None:
    """The client's system takes no more bytes once its own buffer is full."""
    transport = connection.socket._response.connection.transport  # type: ignore[union-attr]
    transport.pause_reading()  # type: ignore[union-attr]


def _wide_change(edge: Edge) -> Any:
    """A depth message of some 100 kB, so that the socket's buffers fill soon."""
    from api.market_data import Change

    identity = edge.data.update_id(SOL_USDC)
    change = Change(SOL_USDC, identity)
    change.last_id = identity
    change.bids = {1_000 + number: number for number in range(4_000)}
    return change


async def test_order_updates_tell_triggers_and_brackets(edge: Edge) -> None:
    """W-6: triggerPlaced, orderModified and triggerFailed, and the letters P B Y a b d g j I."""
    connection = await edge.connect("account.orderUpdate", signature=signed(ALICE))
    edge.run(limit(BOB, Side.ASK, 10_000, 5), limit(ALICE, Side.BID, 10_000, 1))
    for _each in range(2):
        await connection.data("account.orderUpdate")

    stop = PlaceOrder(
        ALICE, SOL_USDC, Side.ASK, OrderType.MARKET, lots=20, trigger_by=TriggerBy.LAST, trigger_price_ticks=9_000
    )
    edge.run(stop)
    placed = await connection.data("account.orderUpdate")
    assert (placed["e"], placed["X"], placed["P"], placed["B"], placed["Y"]) == (
        "triggerPlaced", "TriggerPending", "90.00", "LastPrice", "0.20",
    )  # fmt: skip

    brackets = {"stop_loss": Bracket(TriggerBy.LAST, 8_000), "take_profit": Bracket(TriggerBy.MARK, 12_000, 11_900)}
    edge.run(limit(ALICE, Side.BID, 10_000, 2, **brackets))
    accepted = await connection.data("account.orderUpdate")
    letters = [accepted[letter] for letter in ("a", "d", "j", "b", "g")]
    assert accepted["e"] == "orderAccepted" and "k" not in accepted
    assert letters == ["120.00", "MarkPrice", "119.00", "80.00", "LastPrice"]
    filled = await connection.data("account.orderUpdate")
    armed = [await connection.data("account.orderUpdate") for _each in range(2)]
    assert filled["e"] == "orderFill"
    assert [(each["e"], each["I"], each["q"]) for each in armed] == [("triggerPlaced", accepted["i"], "0.02")] * 2


async def test_rfq_updates_reach_whom_they_concern(edge: Edge) -> None:
    """W-6: the requester hears its own, makers what is open and what becomes of their quotes; a client id its owner."""
    alice = await edge.connect("account.rfqUpdate", signature=signed(ALICE))
    bob = await edge.connect("account.rfqUpdate.SOL_USDC", signature=signed(BOB))
    edge.run(SubmitRfq(ALICE, SOL_USDC, Side.BID, 100, price_ticks=10_100, client_id=4))
    accepted = await alice.data("account.rfqUpdate")
    active = await bob.data("account.rfqUpdate.SOL_USDC")
    assert (accepted["e"], accepted["C"], accepted["p"], accepted["q"]) == ("rfqAccepted", 4, "101.00", "1.00")
    assert active["e"] == "rfqActive" and "C" not in active and active["R"] == accepted["R"]
    assert active["W"] - active["w"] == 60_000 and active["o"] == "AwaitAccept"

    edge.run(SubmitQuote(BOB, accepted["R"], 9_900, 10_050))
    assert (await bob.data("account.rfqUpdate.SOL_USDC"))["e"] == "quoteAccepted"
    candidate = await alice.data("account.rfqUpdate")
    assert (candidate["e"], candidate["p"]) == ("rfqCandidate", "100.50")
    edge.run(AcceptQuote(ALICE, candidate["u"]))
    both = [await alice.data("account.rfqUpdate"), await bob.data("account.rfqUpdate.SOL_USDC")]
    assert [(each["e"], each["X"], each["p"]) for each in both] == [("rfqFilled", "Filled", "100.50")] * 2
    assert await alice.is_silent() and await bob.is_silent()
