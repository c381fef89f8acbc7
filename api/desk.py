"""The chain desk of a node: its chains with watchers, payouts and sweeps; the devnet's faucet.   [D-2, D-10, D-11]"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from chains.adapter import Adapter, ChainError
from chains.exchange import Token
from chains.faucet import drip
from chains.outbox import Outbox
from chains.payouts import Limits, Payouts
from chains.reconciliation import Reconciliation, reconcile, stop_on_breaks
from chains.signer import EVM, SIMULATED, Limit, Policy, Signer, create_keystore
from chains.simulated import SimulatedChain, SimulatedNode
from chains.sweeps import Sweeper, SweepRule
from chains.wallets import HOT_WALLET, Wallets, evm_derivation, simulated_derivation
from chains.watcher import Watcher

if TYPE_CHECKING:
    from api.node import Node

SIMULATED_CHAIN = 1
EVM_CHAIN = 2
"""Chain ids of the packaged genesis files."""

HOT_WALLET_GAS = 1_000 * 10**9
"""Base units of native coin that the devnet's faucet gives the hot wallet, so that it can pay network fees."""

IDLE_BLOCK_STEPS = 5
BUSY_BLOCKS = 2
"""The simulated chain mines one block every five steps; two a step while something of ours is on its way."""

MOST_FEE_BASE = 10**17
MOST_SWEEP_FEE_ATOMS = 10**7
RECONCILE_SECONDS = 60

log = logging.getLogger("satchel.chains")


class Line:
    """One chain that is served here."""

    def __init__(self, adapter: Adapter, watcher: Watcher, payouts: Payouts, sweeper: Sweeper, outbox: Outbox) -> None:
        self.adapter = adapter
        self.watcher = watcher
        self.payouts = payouts
        self.sweeper = sweeper
        self.outbox = outbox


class ChainDesk:
    """Everything of one node that talks to chains. Steps run one after another: a fault is an alarm, never an end."""

    addresses: Wallets

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = asyncio.Lock()
        self._simulated: SimulatedChain | None = None
        self._lines: dict[int, Line] = {}
        self._steps = 0
        self._stopped = False

    @classmethod
    async def open(cls, node: Node) -> ChainDesk:
        """The desk with every chain that can be served: the simulated one on a devnet, the EVM one if it has a URL."""
        desk = cls(node)
        adapters: dict[int, Adapter] = {}
        policies: dict[int, Policy] = {}
        if node.sandbox:
            desk._simulated = SimulatedChain(node.settings.data / "chain.db", clock_us=lambda: time.time_ns() // 1_000)
            adapters[SIMULATED_CHAIN] = SimulatedNode(desk._simulated, SIMULATED_CHAIN)
            policies[SIMULATED_CHAIN] = desk._policy(SIMULATED, desk._simulated.network, SIMULATED_CHAIN)
        if node.settings.evm_url is not None:
            from chains.evm import EvmNode

            adapters[EVM_CHAIN] = EvmNode(node.settings.evm_url, EVM_CHAIN)
            network = (await adapters[EVM_CHAIN].identity()).network
            policies[EVM_CHAIN] = desk._policy(EVM, network, EVM_CHAIN)
        signer = desk._signer(policies)
        derive: dict[int, Callable[[int], str]] = {}
        if SIMULATED_CHAIN in adapters:
            derive[SIMULATED_CHAIN] = simulated_derivation(signer)
        if EVM_CHAIN in adapters:
            derive[EVM_CHAIN] = evm_derivation(signer.public_root(EVM))
        desk.addresses = await asyncio.to_thread(Wallets, node.database, derive)
        for chain_id, adapter in adapters.items():
            desk._lines[chain_id] = desk._line(chain_id, adapter, signer)
        if desk._simulated is not None:
            await asyncio.to_thread(desk._stock_simulated, desk._simulated)
        for line in desk._lines.values():
            await line.watcher.step()
        return desk

    async def stop(self) -> None:
        """Wait for the step that runs, then close the chains."""
        async with self._lock:
            self._stopped = True
            if self._simulated is not None:
                self._simulated.close()
            for line in self._lines.values():
                close = getattr(line.adapter, "close", None)
                if close is not None and line.watcher.chain_id != SIMULATED_CHAIN:
                    await close()
            self._lines.clear()

    def schedule(self, timers: Any) -> None:
        """Mine, watch, pay and sweep about once a second; reconcile once a minute."""
        timers.add_job(self.step, "interval", seconds=1)
        timers.add_job(self.reconcile_and_stop, "interval", seconds=RECONCILE_SECONDS)

    async def step(self) -> None:
        """One round over every chain; nothing once the desk is stopped. A lost database stops the node."""
        try:
            async with self._lock:
                if not self._stopped:
                    await self._round()
        except DBAPIError as error:
            self._node.fail(error)
        except asyncio.CancelledError:
            # The scheduler gives up its jobs at shutdown; `stop` waits for whoever holds the lock.
            return

    async def _round(self) -> None:
        await self._mine()
        for line in self._lines.values():
            step = await line.watcher.step()
            if step.waiting:
                log.warning("watcher of chain %s waits: %s", line.watcher.chain_id, step.waiting)
            await line.payouts.step()
            await line.sweeper.step()

    async def faucet(self, subaccount_id: int, asset_id: int, atoms: int) -> str:
        """Send coins to the subaccount's deposit address and mine until they are credited and final.   [W-9]

        Returns the transaction id. Exchange time does not move.
        """
        chain = self._simulated
        assert chain is not None, "the faucet is a devnet's"
        token: Token | None = self._node.exchange.token(SIMULATED_CHAIN, asset_id)
        assert token is not None, f"asset {asset_id} is not on the simulated chain"
        address = await self.deposit_address(subaccount_id, SIMULATED_CHAIN)
        async with self._lock:
            watcher = self._lines[SIMULATED_CHAIN].watcher
            return await drip(chain, watcher, address, token.contract, atoms * token.base_per_atom)

    async def deposit_address(self, subaccount_id: int, chain_id: int) -> str:
        """The subaccount's address on a chain, watched from now on. KeyError when the chain is not served.   [D-3]"""
        if chain_id not in self._lines:
            raise KeyError(chain_id)
        return await asyncio.to_thread(self.addresses.address, chain_id, subaccount_id)

    def can_pay(self, chain_id: int, address: str) -> bool:
        """Whether this is an address of the chain; a chain that is not served here cannot say no.   [D-8]"""
        line = self._lines.get(chain_id)
        return line is None or line.adapter.normalize(address) is not None

    def wallets(self) -> list[tuple[str, str]]:
        """(wire name of the chain, hot wallet address)."""
        chains = self._node.state.chains
        return [(chains[chain_id].name, self.addresses.address(chain_id, HOT_WALLET)) for chain_id in self._lines]

    async def reconcile(self) -> list[Reconciliation]:
        """Ledger against chain, for every custody address and asset of every chain served.   [D-11]"""
        results = []
        async with self._lock:
            for chain_id, line in self._lines.items():
                tokens = self._node.exchange.tokens(chain_id)
                results.append(
                    await reconcile(
                        self._node.database,
                        line.adapter,
                        tokens,
                        self._node.exchange,
                        now_us=self._node.now_us(),
                        derived=partial(self.addresses.derived, chain_id),
                    )
                )
        return results

    async def reconcile_and_stop(self) -> None:
        """Reconcile on schedule; a break over the threshold stops withdrawals of that asset.   [D-11]"""
        try:
            for result in await self.reconcile():
                await stop_on_breaks(self._node.exchange, result, {})
        except ChainError as error:
            log.warning("reconciliation waits: %s", error)

    async def _mine(self) -> None:
        if self._simulated is None:
            return
        self._steps += 1
        busy = await self._lines[SIMULATED_CHAIN].outbox.unfinished()
        if busy:
            await asyncio.to_thread(self._simulated.mine, BUSY_BLOCKS)
        elif self._steps % IDLE_BLOCK_STEPS == 0:
            await asyncio.to_thread(self._simulated.mine)

    def _line(self, chain_id: int, adapter: Adapter, signer: Signer) -> Line:
        node = self._node
        outbox = Outbox(node.database, [adapter], node.exchange, signer, self.addresses, clock_us=node.now_us)
        faucet = [self._simulated.faucet_address] if chain_id == SIMULATED_CHAIN and self._simulated else []
        watcher = Watcher(
            node.database,
            [adapter],
            node.exchange,
            self.addresses,
            clock_us=node.now_us,
            no_minimum_from=faucet,
        )
        tokens = node.exchange.tokens(chain_id)
        largest = {token.asset_id: token.maximum_withdrawal_atoms for token in tokens}
        limits = Limits(
            per_transaction=largest,
            per_day_subaccount={asset_id: 10 * atoms for asset_id, atoms in largest.items()},
            per_day_asset={asset_id: 100 * atoms for asset_id, atoms in largest.items()},
        )
        payouts = Payouts(
            node.database, [adapter], node.exchange, self.addresses, outbox, clock_us=node.now_us, limits=limits
        )
        rules = {
            token.asset_id: SweepRule(max(1, token.minimum_withdrawal_atoms), MOST_SWEEP_FEE_ATOMS)
            for token in tokens
        }
        sweeper = Sweeper(
            node.database, [adapter], node.exchange, self.addresses, outbox, clock_us=node.now_us, rules=rules
        )
        return Line(adapter, watcher, payouts, sweeper, outbox)

    def _stock_simulated(self, chain: SimulatedChain) -> None:
        """Deploy the genesis' tokens and give the hot wallet gas money: the operator's own coins."""
        for token in self._node.exchange.tokens(SIMULATED_CHAIN):
            if token.contract:
                chain.deploy(token.contract, decimals=token.chain_decimals)
        hot = self.addresses.address(SIMULATED_CHAIN, HOT_WALLET)
        if chain.balance(hot) == 0:
            chain.faucet(hot, "", HOT_WALLET_GAS)
            chain.mine(chain.finality_lag + 2)

    def _policy(self, family: str, network: str, chain_id: int) -> Policy:
        """What the signer may pay: each coin up to its largest withdrawal, a hundred times a day.   [D-10]"""
        limits = {}
        for token in self._node.exchange.tokens(chain_id):
            largest = token.maximum_withdrawal_atoms * token.base_per_atom
            limits[token.contract] = Limit(largest, 100 * largest)
        limits.setdefault("", Limit(HOT_WALLET_GAS, 100 * HOT_WALLET_GAS))
        return Policy(family, network, limits, MOST_FEE_BASE)

    def _signer(self, policies: dict[int, Policy]) -> Signer:
        keystore: Path = self._node.keyring.folder / "wallets.json"
        passphrase = None if self._node.sandbox else self._node.settings.passphrase
        if not keystore.exists():
            create_keystore(keystore, passphrase)
        return Signer(
            keystore,
            passphrase=passphrase,
            policies=policies,
            clock_us=lambda: time.time_ns() // 1_000,
            usage=self._node.keyring.folder / "wallets-usage.json",
        )
