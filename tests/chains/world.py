"""An exchange on a chain, ready to be driven by a test: node, wallets, signer, watcher, payouts, a small book."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from chains import schema
from chains.adapter import Adapter
from chains.decisions import Depth
from chains.exchange import Token
from chains.outbox import Outbox, Pace
from chains.payouts import Limits, Payouts
from chains.reconciliation import Reconciliation, reconcile
from chains.signer import Limit, Policy, Signer, create_keystore
from chains.sweeps import Sweeper, SweepRule
from chains.wallets import Wallets, evm_derivation, simulated_derivation
from chains.watcher import Watcher
from ledger.database import metadata, open_engine
from tests.chains.book import Book

COIN, GOLD = 1, 2


class Clock:
    """Time for tests, in microseconds."""

    def __init__(self) -> None:
        self.now_us = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now_us


def token(asset_id: int, symbol: str, chain_id: int, contract: str, chain_decimals: int, ledger_decimals: int,
          *, minimum: int = 0, confirmations: int = 2) -> Token:  # fmt: skip
    return Token(asset_id, symbol, chain_id, contract, chain_decimals, ledger_decimals, confirmations, minimum, 0, 0,
                 10**18)  # fmt: skip


class Net(Protocol):
    """A network a test can push around: the simulated chain and anvil behind the same few verbs."""

    chain_id: int
    family: str
    network: str
    unit: int
    """A round sum of native coin in base units: a tenth of a coin."""

    def node(self) -> Adapter: ...

    async def deploy(self, name: str, behaviour: str) -> str:
        """A token contract whose supply belongs to the outside wallet."""
        ...

    async def turn(self, contract: str, behaviour: str) -> None:
        """Change how a token behaves, as an upgradable contract may."""
        ...

    async def pay(self, recipient: str, amount: int, contract: str = "") -> str:
        """A payment by the outside wallet, into the mempool."""
        ...

    async def relay(self, calls: list[tuple[str, int, bool]], *, fails: bool = False) -> str:
        """A contract pays others in inner calls: (recipient, amount, reverts)."""
        ...

    async def fail(self, recipient: str, amount: int, contract: str) -> str:
        """A transfer to us whose receipt says it failed."""
        ...

    async def mine(self, count: int = 1) -> None: ...

    async def reorg(self, depth: int, *, drop: Collection[str] = (), reinclude: bool = True) -> None: ...

    async def crowd_out(self) -> None:
        """Raise the base fee above every waiting bid: what is pooled stays unmined or falls out."""
        ...

    async def balance(self, address: str, contract: str = "") -> int: ...

    def stranger(self) -> str:
        """A fresh address that is not ours."""
        ...


class World:
    """One exchange's database on one network. `restart` forgets everything that is not in SQL or on chain."""

    def __init__(
        self, folder: Path, net: Net, tokens: list[Token], *, nodes: Sequence[Adapter] | None = None,
        limits: Limits | None = None, pace: Pace | None = None, depth: Depth | None = None,
        quorum: int | None = None, url: str | None = None, most: int = 10**30,
    ) -> None:  # fmt: skip
        self.folder, self.net, self.tokens = folder, net, tokens
        self.clock = Clock()
        self.nodes = list(nodes) if nodes is not None else [net.node()]
        self.limits, self.pace, self.depth, self.quorum, self.most = limits, pace, depth, quorum, most
        self.engine = open_engine(url or f"sqlite:///{folder / 'ledger.db'}")
        metadata.create_all(self.engine, tables=[t for t in metadata.sorted_tables if t.name.startswith("chain_")])
        if not (folder / "keystore.json").exists():
            create_keystore(folder / "keystore.json", None, seed=bytes(range(64)))
        self.restart()

    def restart(self) -> None:
        chain_id = self.net.chain_id
        limit = Limit(self.most, self.most)
        policy = Policy(
            self.net.family, self.net.network, {t.contract: limit for t in self.tokens} | {"": limit}, 10**18
        )
        self.signer = Signer(
            self.folder / "keystore.json", passphrase=None, policies={chain_id: policy}, clock_us=self.clock,
            usage=self.folder / "signed.jsonl",
        )  # fmt: skip
        self.book = Book(self.engine, self.tokens)
        derive = (
            simulated_derivation(self.signer)
            if self.net.family == "simulated"
            else evm_derivation(self.signer.public_root("evm"))
        )
        self.wallets = Wallets(self.engine, {chain_id: derive})
        self.watcher = Watcher(
            self.engine, self.nodes, self.book, self.wallets, clock_us=self.clock, quorum=self.quorum,
            depth=self.depth,
        )  # fmt: skip
        self.outbox = Outbox(
            self.engine, self.nodes, self.book, self.signer, self.wallets, clock_us=self.clock, quorum=self.quorum,
            pace=self.pace,
        )  # fmt: skip
        self.payouts = Payouts(
            self.engine, self.nodes, self.book, self.wallets, self.outbox, clock_us=self.clock, limits=self.limits
        )
        self.sweeper = Sweeper(
            self.engine, self.nodes, self.book, self.wallets, self.outbox, clock_us=self.clock,
            rules={t.asset_id: SweepRule(10**6, 10**8) for t in self.tokens},
        )  # fmt: skip

    def address(self, wallet: int) -> str:
        return self.wallets.address(self.net.chain_id, wallet)

    def user(self, subaccount_id: int, asset_id: int) -> int:
        return self.book.balance(f"user {subaccount_id}", asset_id)

    def rows(self, table: sa.Table) -> list[sa.Row]:
        with self.engine.begin() as connection:
            return list(connection.execute(sa.select(table)))

    def states(self) -> list[str]:
        return [row.state for row in sorted(self.rows(schema.deposits), key=lambda row: row.id)]

    def alarm_kinds(self) -> set[str]:
        return {row.kind for row in self.rows(schema.alarms)}

    async def fund_hot(self, coins: int = 20) -> None:
        """The operator's gas money: sent to the hot wallet and booked."""
        await self.net.pay(self.address(0), coins * self.net.unit)
        await self.settle_down()

    async def settle_down(self, blocks: int = 8) -> None:
        """Mine until everything that is under way on chain is final, and let everybody look."""
        await self.watcher.step()
        await self.net.mine(blocks)
        for _ in range(2):
            await self.watcher.step()

    async def reconcile(self, **options: Any) -> Reconciliation:
        return await reconcile(
            self.engine, self.nodes[0], self.tokens, self.book, now_us=self.clock(), tries=1, **options
        )

    async def sweep(self, blocks: int = 18) -> None:
        """Let the sweeper run until what can be swept is swept."""
        for _ in range(blocks):
            await self.sweeper.step()
            await self.net.mine()
            await self.watcher.step()
        await self.sweeper.step()

    async def pay_out(self, blocks: int = 10) -> None:
        """Let the payouts run until what can be final is final."""
        for _ in range(blocks):
            await self.payouts.step()
            await self.net.mine()
            await self.watcher.step()
        await self.payouts.step()
