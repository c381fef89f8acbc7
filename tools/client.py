"""A small client of the public API, as anybody could write it: signs what it sends, shares no code with the server."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tools.keys import ROUTES, signed_text


class Refused(Exception):
    """The exchange said no: HTTP status, its code and its words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class Client:
    """One API key at one exchange. Without a key it can ask for what is public."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: Ed25519PrivateKey | None = None) -> None:
        self.session = session
        self.url = url
        self.key = key
        self.public_key = b64encode(key.public_key().public_bytes_raw()).decode() if key is not None else ""

    async def ask(self, path: str, **query: Any) -> Any:
        """A public GET."""
        async with self.session.get(self.url + path, params=query) as answer:
            return await _content(answer)

    async def tell(self, path: str, body: Any) -> Any:
        """An unsigned POST: the devnet's own routes.   [W-9]"""
        async with self.session.post(self.url + path, json=body) as answer:
            return await _content(answer)

    async def request(self, instruction: str, path: str = "", method: str = "", **fields: Any) -> Any:
        """A signed request; method and path follow from the instruction unless given.   [W-1]"""
        usual_method, usual_path = ROUTES[instruction] if not path else ("GET", path)
        method, path = method or usual_method, path or usual_path
        headers = self.headers(instruction, fields)
        if method == "GET":
            call = self.session.request(method, self.url + path, params=fields, headers=headers)
        else:
            call = self.session.request(method, self.url + path, json=fields, headers=headers)
        async with call as answer:
            return await _content(answer)

    async def place_batch(self, orders: list[dict[str, Any]]) -> Any:
        """`POST /orders`: each order is accepted or refused on its own."""
        headers = self.headers("orderExecute", orders)
        async with self.session.post(self.url + "/api/v1/orders", json=orders, headers=headers) as answer:
            return await _content(answer)

    def headers(self, instruction: str, content: Any, window: int = 60_000) -> dict[str, str]:
        """The four headers that authenticate a request with this content, made now."""
        assert self.key is not None, "a signed request needs a key"
        at = time.time_ns() // 1_000_000
        signature = self.key.sign(signed_text(instruction, content, at, window).encode())
        return {
            "X-API-Key": self.public_key,
            "X-Signature": b64encode(signature).decode(),
            "X-Timestamp": str(at),
            "X-Window": str(window),
        }


async def _content(answer: aiohttp.ClientResponse) -> Any:
    if answer.status == 204:
        return None
    if answer.content_type == "application/json":
        content = await answer.json()
    else:
        content = await answer.text()
    if answer.status < 400:
        return content
    if isinstance(content, dict):
        raise Refused(answer.status, str(content.get("code", "")), str(content.get("message", "")))
    raise Refused(answer.status, "", str(content)[:200])
