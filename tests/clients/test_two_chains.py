"""ETH on a simulated chain and on a real EVM node at once: in on one, out on the other, both ways.   [D-1, D-8]"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.api.edge import SOMEWHERE
from tests.chains.anvil_net import AnvilNet
from tests.clients.test_real_run import satchel
from tests.fixtures.servers import AnvilNode
from tools.client import Client, Refused
from tools.node_process import NodeProcess

ETH = 10**18
SETTLE_SECONDS = 90


async def opened(session: aiohttp.ClientSession, url: str) -> tuple[Client, dict[str, int]]:
    client = Client(session, url, Ed25519PrivateKey.generate())
    return client, await client.tell("/dev/v1/keys", {"publicKey": client.public_key})


async def until(net: AnvilNet, holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Mine until it is so."""
    for _ in range(SETTLE_SECONDS // 2):
        if await holds():
            return
        await net.mine(16)
        await asyncio.sleep(1)
    raise AssertionError(f"never: {what}")


@pytest.mark.node
async def test_what_came_in_on_one_chain_goes_out_on_the_other(
    anvil_factory: Callable[..., AnvilNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anvil = anvil_factory("--no-mining")
    net = AnvilNet(anvil.url)
    monkeypatch.setenv("SATCHEL_EVM_URL", anvil.url)
    node = NodeProcess(tmp_path / "node")
    await node.start()
    try:
        async with aiohttp.ClientSession() as session:
            alice, on_solana = await opened(session, node.url)
            bob, _on_ethereum = await opened(session, node.url)
            await alice.tell("/dev/v1/faucet", {**on_solana, "symbol": "ETH", "quantity": "2"})
            stranger = net.stranger()
            out: dict[str, Any] = {"address": stranger, "blockchain": "Ethereum", "symbol": "ETH", "quantity": "0.5"}
            with pytest.raises(Refused, match=r"needed 0\.5, available 0, others Solana"):
                await alice.request("withdraw", **out)
            assert (await alice.request("balanceQuery"))["ETH"]["available"] == "2"

            address = (await bob.request("depositAddressQuery", blockchain="Ethereum"))["address"]
            await net.pay(address, ETH)

            async def is_withdrawable() -> bool:
                try:
                    await alice.request("withdraw", **out)
                except Refused:
                    return False
                return True

            await until(net, is_withdrawable, "bob's deposit on Ethereum pays alice's withdrawal there")
            with pytest.raises(Refused, match=r"available 0\.5, others Solana"):
                await bob.request("withdraw", **{**out, "quantity": "0.6"})
            back = {"address": SOMEWHERE, "blockchain": "Solana", "symbol": "ETH", "quantity": "0.9"}
            await bob.request("withdraw", **back)

            async def are_settled() -> bool:
                rows = [row for each in (alice, bob) for row in await each.request("withdrawalQueryAll")]
                return [row["status"] for row in rows] == ["confirmed", "confirmed"]

            await until(net, are_settled, "both withdrawals are final")
            assert await net.balance(stranger) == ETH // 2
            left = [(await each.request("balanceQuery"))["ETH"]["available"] for each in (alice, bob)]
            assert left == ["1.5", "0.1"]
        satchel("reconcile", "--data", str(node.data), "--evm", f"2={anvil.url}")
    finally:
        await node.stop()
        await net.close()

    satchel("verify-journal", "--data", str(node.data))
    satchel("audit", "--data", str(node.data))
    assert "identical" in satchel("replay", "--data", str(node.data))
