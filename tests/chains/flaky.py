"""Bad roads to good nodes: an adapter whose n-th answer is lost, a proxy that corrupts a real node's answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientSession, web

from chains.adapter import Unavailable


class Flaky:
    """A real adapter behind a road on which the `fail_at`-th call is lost; afterwards everything gets through."""

    def __init__(self, adapter: Any, fail_at: int, *, after_sending: bool = False) -> None:
        self._adapter, self._left, self._after = adapter, fail_at, after_sending
        self.chain_id = adapter.chain_id
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._adapter, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def call(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self.broken = True
                if self._after:
                    await method(*arguments)
                raise Unavailable(f"{name} was lost")
            return await method(*arguments)

        return call


class Interrupted:
    """A real adapter before whose n-th call something else happens, such as a reorg."""

    def __init__(self, adapter: Any, at: int, happens: Callable[[], Awaitable[object]]) -> None:
        self._adapter, self._left, self._happens = adapter, at, happens
        self.chain_id = adapter.chain_id
        self.happened = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._adapter, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def call(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self.happened = True
                await self._happens()
            return await method(*arguments)

        return call


class FaultyProxy:
    """Forwards JSON-RPC to a node; `fault` spoils answers of its kind until it is set back to ""."""

    def __init__(self, url: str) -> None:
        self._target = url
        self.fault = ""
        self.url = ""

    async def __aenter__(self) -> FaultyProxy:
        self._session = ClientSession()
        app = web.Application()
        app.router.add_post("/", self._forward)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.json()
        async with self._session.post(self._target, json=body) as response:
            answer = await response.json()
        spoil = SPOILED.get(self.fault)
        if self.fault == "timeout":
            await asyncio.sleep(2)
        if self.fault == "html":
            return web.Response(text="<html>busy</html>", content_type="text/html")
        if self.fault == "http 500":
            return web.Response(status=500, text="oops")
        return web.json_response(answer if spoil is None else spoil(body["method"], answer))


def _error(_: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": answer["id"], "error": {"code": -32005, "message": "limit exceeded"}}


def _no_receipts(method: str, answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"result": None} if method == "eth_getBlockReceipts" else answer


def _half_receipts(method: str, answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"result": answer["result"][:-1]} if method == "eth_getBlockReceipts" else answer


def _no_result(method: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": answer["id"]} if method == "eth_getBlockReceipts" else answer


def _other_chain(method: str, answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"result": "0x1"} if method == "eth_chainId" else answer


def _other_block(method: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Another node behind the same address: the contents of a block with another hash."""
    if method != "eth_getBlockReceipts":
        return answer
    return json.loads(json.dumps(answer).replace('"blockHash": "0x', '"blockHash": "0xff'))  # type: ignore[no-any-return]


SPOILED: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "error in a 200": _error,
    "no receipts": _no_receipts,
    "half the receipts": _half_receipts,
    "neither result nor error": _no_result,
    "wrong chain id": _other_chain,
    "receipts of another block": _other_block,
}
