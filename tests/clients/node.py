"""A devnet as `satchel serve` runs it, two users with money on it, and a client script run by its own interpreter."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tools.node_process import NodeProcess

SCRIPT_SECONDS = 120


@asynccontextmanager
async def devnet(data: Path) -> AsyncIterator[dict[str, Any]]:
    """What a client needs: the URLs and two users' keys; alice has USDC, bob has SOL."""
    node = NodeProcess(data)
    url = await node.start()
    try:
        async with aiohttp.ClientSession() as http:
            alice = await user(http, url, USDC="100000")
            bob = await user(http, url, SOL="500", USDC="1000")
        yield {"url": url, "ws": url.replace("http", "ws", 1), "alice": alice, "bob": bob}
    finally:
        code = await node.stop()
    assert code == 0, "\n".join(node.last_words)


async def user(http: aiohttp.ClientSession, url: str, **balances: str) -> dict[str, str]:
    """A new user: public key and seed in base64, as the clients take them."""
    private = Ed25519PrivateKey.generate()
    public = b64encode(private.public_key().public_bytes_raw()).decode()
    opened = await post(http, f"{url}/dev/v1/keys", {"publicKey": public})
    for symbol, quantity in balances.items():
        await post(http, f"{url}/dev/v1/faucet", {**opened, "symbol": symbol, "quantity": quantity})
    return {"public": public, "secret": b64encode(private.private_bytes_raw()).decode()}


async def post(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Any:
    async with http.post(url, json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return answer


async def run(python: Path, script: str, world: dict[str, Any]) -> dict[str, Any]:
    """Run a client's script in the client's own environment; what it prints last is what it saw."""
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(Path(__file__).with_name(script)),
        json.dumps(world),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), SCRIPT_SECONDS)
    assert process.returncode == 0, f"{script}: {out.decode()[-1000:]}\n{errors.decode()[-3000:]}"
    seen: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return seen
