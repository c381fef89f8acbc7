"""Signed orders over HTTP, durable: a real node in a process of its own, requests signed beforehand.

`python -m tests.bench.http_bench [--scale 0.1]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from base64 import b64encode
from collections import deque
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import aiohttp

from ledger.signing import Signer, generate
from tests.bench.rows import Row, show
from tools.client import Client
from tools.keys import signed_text
from tools.node_process import NodeProcess

ORDERS = 20_000
CUSTOMERS = 40
"""Enough that nobody meets the limit of 2,000 requests a minute, or of 1,000 open orders."""

CONNECTIONS = 64
WINDOW_MS = 60_000


def run(scale: float = 1.0) -> list[Row]:
    """Orders a second, latencies and the node's CPU, all processes of the node together."""
    with tempfile.TemporaryDirectory(prefix="satchel-bench-") as folder:
        return asyncio.run(_run(Path(folder), int(ORDERS * scale)))


async def _run(data: Path, orders: int) -> list[Row]:
    node = NodeProcess(data)
    url = await node.start()
    try:
        customers = [generate() for _ in range(CUSTOMERS)]
        async with aiohttp.ClientSession() as session:
            for customer in customers:
                await _register(Client(session, url), customer)
        warm = [_request(customers[at % CUSTOMERS], at, url) for at in range(500)]
        await _send(url, warm)
        requests = [_request(customers[at % CUSTOMERS], 500 + at, url) for at in range(orders)]
        before = _cpu_seconds(node.pid)
        started = perf_counter()
        latencies = await _send(url, requests)
        seconds = perf_counter() - started
        cpu = _cpu_seconds(node.pid) - before
    finally:
        await node.stop()
    latencies.sort()
    p50, p99 = (latencies[len(latencies) * part // 100] * 1_000 for part in (50, 99))
    rate = orders / seconds
    return [
        Row(
            f"signed orders over HTTP, durable, {CONNECTIONS} connections, SQLite",
            rate,
            "orders/s",
            rate,
            rate,
            f"to reach 5,000/s; p50 {p50:.1f} ms, p99 {p99:.1f} ms, {cpu / orders * 1e6:,.0f} µs CPU a request, "
            "of which Ed25519 verification is 60–110 µs",
        )
    ]


async def _register(client: Client, customer: Signer) -> None:
    opened = await client.tell("/dev/v1/keys", {"publicKey": b64encode(customer.public_key).decode()})
    await client.tell("/dev/v1/faucet", {**opened, "symbol": "USDC", "quantity": "1000000"})


def _request(customer: Signer, number: int, url: str) -> bytes:
    """One whole HTTP request: a bid that rests at one of a thousand prices."""
    order = {
        "clientId": number + 1,
        "orderType": "Limit",
        "price": f"{50 + number % 1000 / 100:.2f}",
        "quantity": "0.1",
        "side": "Bid",
        "symbol": "SOL_USDC",
    }
    at = time.time_ns() // 1_000_000
    signature = customer.sign(signed_text("orderExecute", order, at, WINDOW_MS).encode())
    body = json.dumps(order, separators=(",", ":")).encode()
    head = (
        f"POST /api/v1/order HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
        f"X-API-Key: {b64encode(customer.public_key).decode()}\r\nX-Signature: {b64encode(signature).decode()}\r\n"
        f"X-Timestamp: {at}\r\nX-Window: {WINDOW_MS}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _send(url: str, requests: list[bytes]) -> list[float]:
    """Send them over a fixed number of connections, one at a time on each; seconds until each answer."""
    queue = deque(requests)
    latencies: list[float] = []
    place = urlsplit(url)
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(CONNECTIONS):
        _transport, connection = await loop.create_connection(
            lambda: _Connection(queue, latencies), place.hostname, place.port
        )
        connections.append(connection)
    await asyncio.gather(*(connection.done for connection in connections))
    return latencies


class _Connection(asyncio.Protocol):
    """One customer's connection: sends, waits for the whole answer, sends the next. The leanest client there is."""

    def __init__(self, queue: deque[bytes], latencies: list[float]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue = queue
        self._latencies = latencies
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        if len(body) < length:
            return
        self._latencies.append(perf_counter() - self._sent_at)
        if not head.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(AssertionError(f"refused: {(head + body)[:400]!r}"))
            self._transport.close()
            return
        self._received = b""
        self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(AssertionError("the node closed the connection"))

    def _next(self) -> None:
        if not self._queue:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent_at = perf_counter()
        self._transport.write(self._queue.popleft())


def _cpu_seconds(session: int) -> float:
    """CPU that the processes of a session have used, its workers included (Linux)."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--scale", type=float, default=1.0)
    show("HTTP", run(arguments.parse_args().scale))
