"""Connections: how many, for how long, and that refusing the rest leaves the others alone."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, web

from api import connections
from api.connections import Connections, most_connections
from api.rest import dispatch


class Door:
    """A server with a guard, and who is connected to it."""

    def __init__(self, guard: Connections, port: int) -> None:
        self.guard = guard
        self.port = port

    async def knock(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return reader, writer

    async def get(self) -> int:
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/") as reply:
            await reply.read()
            return reply.status


@asynccontextmanager
async def door(most: int, *, idle_seconds: float = 30.0) -> AsyncIterator[Door]:
    async def root(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            try:
                await dispatch.read_body(request)
            except dispatch.ApiError as error:
                return dispatch.error_response(error)
        if "Upgrade" in request.headers:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for _message in socket:
                pass
            return socket
        return web.Response(text="here")

    app = web.Application()
    app.router.add_route("*", "/", root)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=idle_seconds, lingering_time=0.5)
    await runner.setup()
    assert runner.server is not None
    guard = Connections(most)
    guard.guard(runner.server)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Door(guard, runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_too_many_are_told_so_and_the_others_are_served() -> None:
    """T-8"""
    async with door(most=20) as place:
        held = [await place.knock() for _ in range(10)]
        await until(lambda: place.guard.count == 10)

        reader, writer = await place.knock(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 503 ") and b"TOO_MANY_REQUESTS" in answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert place.guard.refused == 1

        for _reader, one in held[:3]:
            one.close()
        await until(lambda: place.guard.count == 7)
        assert await place.get() == 200
        for _reader, one in held:
            one.close()
        await until(lambda: place.guard.count == 0)
        assert not place.guard._of_address


async def test_websockets_count_as_long_as_they_live() -> None:
    """T-8"""
    async with door(most=4) as place, ClientSession() as session:
        first = await session.ws_connect(f"http://127.0.0.1:{place.port}/")
        second = await session.ws_connect(f"http://127.0.0.1:{place.port}/")
        assert place.guard.count == 2
        reader, _writer = await place.knock()
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 503 ")
        await first.close()
        await second.close()
        await until(lambda: place.guard.count == 0)
        assert await place.get() == 200


@pytest.mark.parametrize("sent", [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\nA: "])
async def test_half_a_head_is_not_waited_for(sent: bytes) -> None:
    """T-7: also when a byte comes now and then."""
    async with door(most=10, idle_seconds=0.5) as place:
        reader, writer = await place.knock(sent)

        async def drip() -> None:
            while sent and not writer.is_closing():
                writer.write(b"a")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        # A byte that arrives while the door is being shut makes the end a reset.
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        dripping.cancel()
        await until(lambda: place.guard.count == 0)


async def test_half_a_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-7: 408, then the connection is closed."""
    monkeypatch.setattr(dispatch, "READ_SECONDS", 0.3)
    async with door(most=10) as place:
        reader, _writer = await place.knock(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
        assert answer.startswith(b"HTTP/1.1 408 ") and b'"TIMEOUT"' in answer


@pytest.mark.parametrize(
    ("peer", "counted_as"),
    [
        (("127.0.0.1", 5), "local"),
        (("::1", 5, 0, 0), "local"),
        (("::ffff:127.0.0.1", 5, 0, 0), "local"),
        (("::ffff:10.1.2.3", 5, 0, 0), "10.1.2.3"),
        (("10.1.2.3", 5), "10.1.2.3"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "20010db800010002"),
        (("2001:db8:1:2:ffff::1", 5, 0, 0), "20010db800010002"),
        (("fe80::1%eth0", 5, 0, 2), "fe80000000000000"),
        (None, "local"),
        ("", "local"),
    ],
)
def test_whom_a_connection_is_counted_for(peer: Any, counted_as: str) -> None:
    """T-8: who owns an IPv6 network has its every address."""
    assert connections._address(peer) == counted_as


def test_one_address_never_gets_all() -> None:
    guard = Connections(1_000, per_address=256)
    guard._of_address["10.1.2.3"] = 255
    assert guard._has_room("10.1.2.3")
    guard._of_address["10.1.2.3"] = 256
    assert not guard._has_room("10.1.2.3") and guard._has_room("10.1.2.4")
    guard._of_address["local"] = 499
    assert guard._has_room("local")
    guard._of_address["local"] = 500
    assert not guard._has_room("local")


def test_descriptors_are_left_for_the_rest() -> None:
    most = most_connections()
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 0 < most <= connections.MOST
    assert soft == resource.RLIM_INFINITY or most < soft
