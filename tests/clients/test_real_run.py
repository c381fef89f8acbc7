"""A real run on a real EVM node: deposits of another wallet, two ccxt clients, payouts found on chain, all proven."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from nacl.signing import SigningKey

from tests.chains.anvil_net import AnvilNet
from tests.fixtures.servers import AnvilNode
from tools.client import Client
from tools.node_process import NodeProcess

ROOT = Path(__file__).parents[2]
ETH, USDC = 10**18, 10**6
SETTLE_SECONDS = 90


class Traders:
    """The two ccxt clients, each call a process of ccxt's own interpreter."""

    def __init__(self, python: Path, url: str, keys: list[SigningKey], to: str) -> None:
        self._python = python
        self._arguments = {
            "url": url,
            "to": to,
            "keys": [[b64encode(bytes(key.verify_key)).decode(), b64encode(bytes(key)).decode()] for key in keys],
        }

    async def do(self, step: str) -> Any:
        script = Path(__file__).with_name("two_traders.py")
        process = await asyncio.create_subprocess_exec(
            str(self._python),
            str(script),
            step,
            json.dumps(self._arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
        assert process.returncode == 0, f"{step}: {errors.decode()[-2000:]}"
        return json.loads(out)


def satchel(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.node
async def test_two_clients_trade_real_coins_and_everything_can_be_checked(
    anvil_factory: Callable[..., AnvilNode], ccxt_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anvil = anvil_factory("--no-mining")
    net = AnvilNet(anvil.url)
    usdc = await net.deploy("USDC", "honest", 6)
    file = tmp_path / "genesis.toml"
    file.write_text(with_contract((ROOT / "engine" / "genesis" / "devnet.toml").read_text(), usdc))
    monkeypatch.setenv("SATCHEL_EVM_URL", anvil.url)
    node = NodeProcess(tmp_path / "node", genesis=file)
    await node.start()
    try:
        keys = [SigningKey.generate(), SigningKey.generate()]
        stranger = net.stranger()
        traders = Traders(ccxt_python, node.url, keys, stranger)
        async with aiohttp.ClientSession() as session:
            exchange = Client(session, node.url)
            for key in keys:
                await exchange.tell("/dev/v1/keys", {"publicKey": b64encode(bytes(key.verify_key)).decode()})
            wallets = {row["blockchain"]: row["address"] for row in await exchange.ask("/api/v1/wallets")}
            await net.pay(wallets["Ethereum"], 10 * ETH)
            seller, buyer = await traders.do("addresses")
            await net.pay(seller, 1 * ETH)
            await net.pay(buyer, 5_000 * USDC, usdc)
            await until(net, traders, "balances", [{"ETH": 1, "USDC": 0}, {"ETH": 0, "USDC": 5000}])

            assert (await traders.do("trade"))["taken"] == "closed"
            await traders.do("withdraw")
            await until(net, traders, "withdrawals", [["ok"], ["ok"]])

            assert await net.balance(stranger, usdc) == 1_000 * USDC
            assert await net.balance(stranger) == ETH // 4
            await exchange.tell("/dev/v1/por", {})
            for subaccount in (1, 2):
                proof = tmp_path / f"proof{subaccount}.json"
                satchel("por", "prove", str(subaccount), "--data", str(node.data), "--out", str(proof))
                subprocess.run([sys.executable, "-I", str(ROOT / "por" / "verifier.py"), str(proof)], check=True)
            satchel("reconcile", "--data", str(node.data), "--evm", f"2={anvil.url}")
    finally:
        await node.stop()
        await net.close()

    trial = json.loads(satchel("trial-balance", "--json", "--data", str(node.data)))
    assert all(total["debit"] == total["credit"] for total in trial["totals"].values())
    satchel("verify-journal", "--data", str(node.data))
    satchel("audit", "--data", str(node.data))
    assert "identical" in satchel("replay", "--data", str(node.data))


def with_contract(text: str, contract: str) -> str:
    """The devnet's genesis with USDC's contract on the EVM chain, and its deposits and withdrawals on."""
    head, tail = text.split('[[token]]\nasset = "USDC"\nchain = "Ethereum"\ncontract = ""', 1)
    token, rest = tail.split("\n\n", 1)
    token = token.replace("_enabled = false", "_enabled = true")
    return f'{head}[[token]]\nasset = "USDC"\nchain = "Ethereum"\ncontract = "{contract}"{token}\n\n{rest}'


async def until(net: AnvilNet, traders: Traders, step: str, wanted: Any) -> None:
    """Mine until the clients see it."""
    for _ in range(SETTLE_SECONDS // 3):
        await net.mine(16)
        seen = await traders.do(step)
        if seen == wanted:
            return
        await asyncio.sleep(1)
    raise AssertionError(f"{step}: {seen}, not {wanted}")
