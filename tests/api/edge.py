"""A real node behind aiohttp's test server, and a client that signs as the wire wants it, for the tests of the edge."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.app import build
from api.node import Node
from api.rest.dispatch import Edge
from api.settings import Settings

SOMEWHERE = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin"
"""An address on the simulated chain."""


class Reply:
    """Status, headers and body of an answer."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:300]!r}"


class Trader:
    """One API key: signs and sends."""

    def __init__(self, http: TestClient[Any, Any], seed: int) -> None:
        self.http = http
        self.private = Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big"))
        self.public = self.private.public_key().public_bytes_raw()
        self.key = b64encode(self.public).decode()
        self.user_id = 0
        self.subaccount_id = 0

    def headers(
        self, instruction: str, fields: Any, *, timestamp: int | None = None, window: int | None = 5000
    ) -> dict[str, str]:
        groups = fields if isinstance(fields, list) else [fields]
        at = int(time.time() * 1000) if timestamp is None else timestamp
        parts = []
        for group in groups:
            parts.append(f"instruction={instruction}")
            parts += [f"{name}={text_of(value)}" for name, value in sorted(group.items())]
        text = "&".join(parts) + f"&timestamp={at}&window={window or 5000}"
        headers = {
            "X-API-Key": self.key,
            "X-Signature": b64encode(self.private.sign(text.encode())).decode(),
            "X-Timestamp": str(at),
        }
        if window is not None:
            headers["X-Window"] = str(window)
        return headers

    async def send(self, method: str, path: str, instruction: str, fields: Any = None, **more: Any) -> Reply:
        """GET sends the fields as a query, everything else as JSON."""
        fields = {} if fields is None else fields
        headers = self.headers(instruction, fields, **more)
        if method == "GET":
            return await request(self.http, method, f"{path}?{urlencode(fields)}" if fields else path, headers=headers)
        return await request(self.http, method, path, headers=headers, data=json.dumps(fields))

    async def place(self, symbol: str, side: str, price: str, quantity: str, **more: Any) -> Reply:
        order = {"symbol": symbol, "side": side, "orderType": "Limit", "price": price, "quantity": quantity, **more}
        return await self.send("POST", "/api/v1/order", "orderExecute", order)


class Venue:
    """The node, its HTTP client, and traders by name."""

    def __init__(self, node: Node, edge: Edge, http: TestClient[Any, Any]) -> None:
        self.node = node
        self.edge = edge
        self.http = http
        self._seed = 1

    async def trader(self, **balances: str) -> Trader:
        """A new user with these balances, from the faucet."""
        trader = Trader(self.http, self._seed)
        self._seed += 1
        reply = await request(self.http, "POST", "/dev/v1/keys", data=json.dumps({"publicKey": trader.key}))
        trader.user_id, trader.subaccount_id = reply.json["userId"], reply.json["subaccountId"]
        for symbol, quantity in balances.items():
            gift = {"userId": trader.user_id, "subaccountId": trader.subaccount_id}
            gift |= {"symbol": symbol, "quantity": quantity}
            reply = await request(self.http, "POST", "/dev/v1/faucet", data=json.dumps(gift))
            assert reply.status == 200, reply
        return trader

    async def get(self, path: str, **headers: str) -> Reply:
        return await request(self.http, "GET", path, headers=headers)


@asynccontextmanager
async def venue(data: Path, **settings: Any) -> AsyncIterator[Venue]:
    """A running devnet in `data`, put together as `satchel serve` does it."""
    node = Node(Settings(data=data, devnet=True, **{"workers": 0, **settings}))
    await node.start()
    app, edge = await build(node)
    http = TestClient(TestServer(app))
    await http.start_server()
    try:
        yield Venue(node, edge, http)
    finally:
        await http.close()
        await node.stop()


async def request(http: TestClient[Any, Any], method: str, path: str, **more: Any) -> Reply:
    async with http.request(method, path, **more) as response:
        return Reply(response.status, response.headers, await response.read())


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
