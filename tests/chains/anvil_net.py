"""A real anvil node as a network of the conformance suite; its unlocked accounts are the outside world."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Collection
from typing import Any

from eth_abi import encode
from eth_account import Account
from eth_utils import function_signature_to_4byte_selector, to_checksum_address

from chains.contracts import contract
from chains.evm import EvmNode

BEHAVIOURS = {"honest": 0, "returns false": 1, "lies": 2, "keeps fee": 3, "reverts": 4}


class AnvilNet:
    """One anvil node started with `--no-mining`: blocks come when the test says so."""

    chain_id, family, unit, network = 2, "evm", 10**17, "31337"

    def __init__(self, url: str) -> None:
        self.url = url
        self._nodes: list[EvmNode] = []
        self._outside, self._poor = (to_checksum_address(account) for account in self.rpc("eth_accounts")[:2])
        self._relay: str | None = None

    def rpc(self, method: str, *params: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def node(self) -> EvmNode:
        self._nodes.append(EvmNode(self.url))
        return self._nodes[-1]

    async def close(self) -> None:
        for node in self._nodes:
            await node.close()

    async def deploy(self, name: str, behaviour: str, decimals: int = 18) -> str:
        arguments = encode(["string", "uint8", "uint256", "uint256"], [name, decimals, 10**30, BEHAVIOURS[behaviour]])
        return self._create(contract("Token")["bytecode"] + arguments.hex())

    async def turn(self, contract: str, behaviour: str) -> None:
        selector = function_signature_to_4byte_selector("turn(uint256)")
        data = "0x" + (selector + encode(["uint256"], [BEHAVIOURS[behaviour]])).hex()
        self._send(self._poor, contract, 0, data, 100_000)
        self.rpc("anvil_mine", "0x1")

    async def pay(self, recipient: str, amount: int, contract: str = "") -> str:
        if contract == "":
            return self._send(self._outside, recipient, amount, "0x", 21_000)
        return self._send(self._outside, contract, 0, self._transfer(recipient, amount), 200_000)

    async def relay(self, calls: list[tuple[str, int, bool]], *, fails: bool = False) -> str:
        if self._relay is None:
            self._relay = self._create(contract("Relay")["bytecode"])
        signature = "pay(address[],uint256[],bool[],bool)"
        recipients, amounts, reverts = (list(column) for column in zip(*calls, strict=True))
        arguments = encode(["address[]", "uint256[]", "bool[]", "bool"], [recipients, amounts, reverts, fails])
        data = "0x" + (function_signature_to_4byte_selector(signature) + arguments).hex()
        return self._send(self._outside, self._relay, sum(amounts), data, 1_000_000)

    async def fail(self, recipient: str, amount: int, contract: str) -> str:
        if contract == "":
            return await self.relay([(recipient, amount, False)], fails=True)
        return self._send(self._poor, contract, 0, self._transfer(recipient, amount), 200_000)

    async def mine(self, count: int = 1) -> None:
        self.rpc("anvil_mine", hex(count))

    async def reorg(self, depth: int, *, drop: Collection[str] = (), reinclude: bool = True) -> None:
        tip = int(self.rpc("eth_blockNumber"), 16)
        orphaned = [
            self.rpc("eth_getRawTransactionByHash", tx_id)
            for height in range(tip - depth + 1, tip + 1)
            for tx_id in self.rpc("eth_getBlockByNumber", hex(height), False)["transactions"]
            if tx_id not in drop
        ]
        self.rpc("anvil_reorg", depth, [[raw, 0] for raw in orphaned] if reinclude else [])
        await self.mine(1)
        if not reinclude:
            # geth puts orphaned transactions back into the pool, anvil does not.
            for raw in orphaned:
                self.rpc("eth_sendRawTransaction", raw)

    async def crowd_out(self) -> None:
        self.rpc("anvil_setNextBlockBaseFeePerGas", hex(100 * 10**9))

    async def balance(self, address: str, contract: str = "") -> int:
        node = EvmNode(self.url)
        try:
            return await node.balance(address, contract, await node.tip())
        finally:
            await node.close()

    def stranger(self) -> str:
        return str(Account.create().address)

    def _transfer(self, recipient: str, amount: int) -> str:
        selector = function_signature_to_4byte_selector("transfer(address,uint256)")
        return "0x" + (selector + encode(["address", "uint256"], [recipient, amount])).hex()

    def _create(self, data: str) -> str:
        tx_id = self._send(self._outside, None, 0, data if data.startswith("0x") else "0x" + data, 3_000_000)
        self.rpc("anvil_mine", "0x1")
        return str(to_checksum_address(self.rpc("eth_getTransactionReceipt", tx_id)["contractAddress"]))

    def _send(self, sender: str, target: str | None, value: int, data: str, gas: int) -> str:
        call = {"from": sender, "value": hex(value), "data": data, "gas": hex(gas), "maxFeePerGas": hex(50 * 10**9),
                "maxPriorityFeePerGas": hex(10**9)} | ({} if target is None else {"to": target})  # fmt: skip
        return str(self.rpc("eth_sendTransaction", call))
