"""The chain desk of a node: its chains with their watchers, payouts and sweeps, and the devnet's faucet.   [D-2, D-10]"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from chains.outbox import Outbox
from chains.payouts import Payouts
from chains.signer import Limit, Policy, Signer, create_keystore
from chains.simulated import SimulatedChain, SimulatedNode
from chains.wallets import HOT_WALLET, Wallets, simulated_derivation
from chains.watcher import Watcher

SIMULATED_CHAIN = 1
"""Chain id of the simulated chain in the packaged genesis files."""

HOT_WALLET_GAS = 1_000 * 10**9
"""Base units of native coin that the devnet's faucet gives the hot wallet, so that it can pay network fees."""

log = logging.getLogger("satchel.chains")


class ChainDesk:
    """Everything of one node that talks to chains. Steps run one after another: a fault is an alarm, never an end."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._lock = asyncio.Lock()
        self._simulated: SimulatedChain | None = None
        self._watchers: list[Watcher] = []
        self._payouts: list[Payouts] = []

    @classmethod
    async def open(cls, node: Any) -> ChainDesk:
        """The desk with every chain that can be served here: the simulated one on a devnet."""
        desk = cls(node)
        if node.settings.devnet:
            await desk._open_simulated()
        return desk

    async def stop(self) -> None:
        async with self._lock:
            if self._simulated is not None:
                self._simulated.close()

    def schedule(self, timers: Any) -> None:
        """Mine, watch, pay and sweep about once a second."""
        timers.add_job(self.step, "interval", seconds=1)

    async def step(self) -> None:
        """One round over every chain."""
        async with self._lock:
            if self._simulated is not None:
                await asyncio.to_thread(self._simulated.mine)
            await self._round()

    async def faucet(self, subaccount_id: int, asset_id: int, atoms: int) -> str:
        """Send coins to the subaccount's deposit address and mine until they are credited and final.   [W-9]

        Returns the transaction id. Exchange time does not move.
        """
        chain = self._simulated
        assert chain is not None, "the faucet is a devnet's"
        token = self._node.exchange.token(SIMULATED_CHAIN, asset_id)
        assert token is not None, f"asset {asset_id} is not on the simulated chain"
        address = await self.deposit_address(subaccount_id, SIMULATED_CHAIN)
        async with self._lock:
            tx_id = await asyncio.to_thread(chain.faucet, address, token.contract, atoms * token.base_per_atom)
            await asyncio.to_thread(chain.mine, token.confirmations + chain.finality_lag + 1)
            for watcher in self._watchers:
                step = await watcher.step()
                if step.waiting:
                    log.warning("the watcher waits: %s", step.waiting)
        return tx_id

    async def deposit_address(self, subaccount_id: int, chain_id: int) -> str:
        return await asyncio.to_thread(self._wallets.address, chain_id, subaccount_id)

    def wallets(self) -> list[tuple[str, str]]:
        """(wire name of the chain, hot wallet address)."""
        chains = self._node.state.chains
        return [
            (chains[watcher.chain_id].name, self._wallets.address(watcher.chain_id, HOT_WALLET))
            for watcher in self._watchers
        ]

    async def _round(self) -> None:
        for watcher in self._watchers:
            await watcher.step()
        for payouts in self._payouts:
            await payouts.step()

    async def _open_simulated(self) -> None:
        node = self._node
        chain = SimulatedChain(node.settings.data / "chain.db", clock_us=lambda: time.time_ns() // 1_000)
        self._simulated = chain
        tokens = node.exchange.tokens(SIMULATED_CHAIN)
        for token in tokens:
            if token.contract:
                chain.deploy(token.contract, decimals=token.chain_decimals)
        adapter = SimulatedNode(chain, SIMULATED_CHAIN)
        unlimited = Limit(10**40, 10**40)
        policy = Policy(
            "simulated", chain.network, {token.contract: unlimited for token in tokens} | {"": unlimited}, 10**30
        )
        signer = self._signer({SIMULATED_CHAIN: policy})
        self._wallets = await asyncio.to_thread(Wallets, node.database, {SIMULATED_CHAIN: simulated_derivation(signer)})
        hot = self._wallets.address(SIMULATED_CHAIN, HOT_WALLET)
        if chain.balance(hot) == 0:
            chain.faucet(hot, "", HOT_WALLET_GAS)
            chain.mine(1)
        outbox = Outbox(node.database, [adapter], signer, self._wallets, clock_us=node.now_us)
        self._watchers.append(
            Watcher(
                node.database,
                [adapter],
                node.exchange,
                self._wallets,
                clock_us=node.now_us,
                no_minimum_from=[chain.faucet_address],
            )
        )
        self._payouts.append(
            Payouts(node.database, [adapter], node.exchange, self._wallets, outbox, clock_us=node.now_us)
        )
        await self._round()

    def _signer(self, policies: dict[int, Policy]) -> Signer:
        keystore: Path = self._node.keyring.folder / "wallets.json"
        passphrase = None if self._node.settings.devnet else self._node.settings.passphrase
        if not keystore.exists():
            create_keystore(keystore, passphrase)
        return Signer(
            keystore,
            passphrase=passphrase,
            policies=policies,
            clock_us=lambda: time.time_ns() // 1_000,
            usage=self._node.keyring.folder / "wallets-usage.json",
        )
