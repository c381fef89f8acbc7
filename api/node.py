"""A node: the log, the engine, the chains, the epochs and the feeds put together, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import inspect, make_url

from api.adl import Quantiles
from api.custody import SequencedExchange
from api.desk import ChainDesk
from api.epochs import Epochs
from api.history.following import History
from api.history.trades import load_market_data
from api.keys import Keyring
from api.market_data import Change, MarketData
from api.recovery import recover
from api.settings import PASSPHRASE_VARIABLE, Settings
from api.snapshots import Snapshots
from engine import genesis
from engine.commands import Command, Genesis, RotateKey, decode
from engine.events import EpochClosed, KeyRotated, Outcome
from engine.parameters import GenesisParameters
from engine.rejections import Rejection, RejectReason
from engine.sequencer import Attach, Overloaded, Sequencer
from engine.state import ASSET_BITS, State
from ledger.blocks import Block, SignedRequest
from ledger.chart import OWNER_BITS, AccountKind
from ledger.checkpoints import CheckpointFile
from ledger.database import open_engine, upgrade
from ledger.invariants import RunningTotals
from ledger.merkle import TreeHead
from ledger.signing import KeyFileError
from ledger.store import Store, StoreError

Listener = Callable[[Block, list[Outcome], dict[int, Change]], None]
"""Told of every durable block and what it changed per market, in order, on the event loop."""

HISTORY_LAG_LIMIT = 100_000


class Node:
    """The running exchange. `start` returns when it is ready; `stop` when everything accepted is durable.

    What halted it, if anything did, is in `failure`: the process must then end and be started again.   [A-13]
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self.listeners: list[Listener] = []
        self.quantiles = Quantiles()

    async def start(self) -> None:
        """Open the log, come back to where it ends, start the chains and the clock."""
        settings = self.settings
        born = born_as(settings.url)
        # A genesis file that is not right is refused before anything is made.
        parameters = genesis.load(settings.genesis) if born is None else None
        begins_as = born or parameters
        assert begins_as is not None
        self.sandbox = begins_as.devnet
        if not self.sandbox and settings.passphrase is None:
            raise KeyFileError(f"{PASSPHRASE_VARIABLE} is not set: outside a sandbox keys are encrypted at rest")
        settings.data.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):
            # Also a folder that was there: no other user of the machine reads what is in it, whatever its own mode.
            settings.data.chmod(0o700)
        self.keyring = Keyring(settings.data, None if self.sandbox else settings.passphrase)
        self.database = open_engine(settings.url)
        upgrade(self.database)
        self.reader = open_engine(settings.url, read_only=True)
        self._writer = Store(self.database)
        self._writer.acquire()
        self.store = Store(self.reader)
        self.history = History(settings.url)
        self.history.start()
        self.market_data = MarketData(self.now_us)
        self.epochs = Epochs(self)
        self.snapshots = Snapshots(self._writer, self.keyring.signing)
        state = self._recover()
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._start_sequencer(state, parameters.exchange if parameters is not None else state.exchange)
        if parameters is not None:
            await self._begin(parameters)
        self.history.flush()
        self.market_data.load_books(self.state)
        load_market_data(self.history, self.market_data, self.state)
        self.exchange = SequencedExchange(self.sequencer)
        depth = sys.getrecursionlimit()
        self.desk = await ChainDesk.open(self)
        # A library of the EVM chain raises it so far that nested JSON from outside would overflow the stack.
        sys.setrecursionlimit(depth)
        await self.epochs.start()
        self._start_timers()

    async def stop(self) -> None:
        """Stop taking commands, make what was accepted durable, leave a snapshot for a quick start."""
        self._timers.shutdown(wait=False)
        await self.desk.stop()
        self.sequencer.stop()
        await asyncio.wait([self._running])
        await self.epochs.stop()
        self.snapshots.close()
        if self.failure is None:
            self.history.flush()
            self.snapshots.save_now(self.sequencer.chain.height, self.sequencer.chain.block_hash, self.state)
        self.history.close()
        self._committer.shutdown()
        self._writer.close()
        self.checkpoints.update(self._durable_log.size, self._durable_log.root(), now=True)
        self.reader.dispose()
        self.database.dispose()

    @property
    def state(self) -> State:
        """The applied state, to read only. It may be ahead of what is durable: see `durable`."""
        return self.sequencer.state

    def claims(self, asset_id: int) -> int:
        """What users hold and lend of an asset, in atoms; kept from block to block, so asking is cheap.   [D-1]"""
        totals = self._totals.totals
        kinds = (AccountKind.AVAILABLE, AccountKind.POOL_LENT)
        return -sum(totals.get((int(kind), asset_id), 0) for kind in kinds)

    async def submit(
        self, command: Command, request: SignedRequest | None = None, *, attach: Attach | None = None
    ) -> Outcome:
        """Sequence a command; resolves when it is durable. Raises Overloaded or Halted.   [A-4]

        Requests are refused while the history is far behind, long before it would make the publisher wait.
        """
        if isinstance(command, RotateKey) and not self.keyring.holds(command.public_key):
            raise Rejection(RejectReason.UNKNOWN_KEY, key=command.public_key.hex())
        if request is not None and self.history.lag() > HISTORY_LAG_LIMIT:
            raise Overloaded(f"{self.history.lag()} outcomes wait to be written to the history")
        return await self.sequencer.submit(command, request, attach)

    async def durable(self) -> None:
        """Wait until what the state showed so far is durable: only then may a reader be told.   [A-7]"""
        await self.sequencer.durable()

    def now_us(self) -> int:
        """Exchange time.   [W-9]"""
        return self.sequencer.now_us()

    def fail(self, error: BaseException) -> None:
        """Stop the exchange: something is not as it must be, and going on would be a guess.   [A-13]"""
        if self.failure is None:
            self.failure = error
            self.failed.set()
            self.sequencer.stop()

    def is_ready(self) -> bool:
        """Recovered, committing, not halted."""
        return self.failure is None and self.sequencer.halted is None

    async def deposit_address(self, subaccount_id: int, chain_id: int) -> str:
        """The subaccount's address on a chain; watched from now on, for ever.   [D-3]"""
        return await self.desk.deposit_address(subaccount_id, chain_id)

    def can_pay(self, chain_id: int, address: str) -> bool:
        """Whether a withdrawal to this address could ever be sent: asked before anything is held for it.   [D-8]"""
        return self.desk.can_pay(chain_id, address)

    def wallets(self) -> list[tuple[str, str]]:
        """The exchange's own hot wallets: (blockchain, address)."""
        return self.desk.wallets()

    def _recover(self) -> State:
        projected = min(self.history.cursor(), self.epochs.covered_height(self.store))
        recovered = recover(self.store, projected, self._republish)
        self._last_at_us = 0 if recovered.header is None else recovered.header.at_us
        return recovered.state

    def _republish(self, block: Block, outcomes: list[Outcome], state: State) -> None:
        """A replayed block that a projection had not seen."""
        if block.header.height > self.history.cursor():
            self.history.on_block(block, outcomes)
        for outcome in outcomes:
            if outcome.events and isinstance(outcome.events[-1], EpochClosed):
                self.epochs.take_image(block, outcome.events[-1], state)
                self.epochs.on_block(block)

    def _start_sequencer(self, state: State, exchange: str) -> None:
        tip = self.store.tip()
        signer = self.keyring.new_exchange_key() if tip is None else self.keyring.exchange_key(tip.next_public_key)
        chain = self.store.load_chain(signer.public_key, signer.sign)
        self.sequencer = Sequencer(
            state,
            chain,
            clock_us=lambda: time.time_ns() // 1_000,
            commit=self._commit,
            publish=self._publish,
            executor=self._committer,
            keyring=self.keyring.signing,
            applied=self._applied,
            last_at_us=self._last_at_us,
        )
        self._totals = RunningTotals(balance_totals(state))
        self._durable_log = TreeHead.load(*chain.log.dump())
        origin = f"{exchange}/blocks"
        self.checkpoints = CheckpointFile(self.settings.data / "checkpoint.txt", origin, signer)
        self._running = asyncio.create_task(self._run_sequencer())

    async def _run_sequencer(self) -> None:
        try:
            await self.sequencer.run()
        except Exception as error:
            self.fail(error)

    async def _begin(self, parameters: GenesisParameters) -> None:
        outcome = await self.submit(Genesis(parameters, self.sequencer.chain.public_key))
        if outcome.rejection is not None:
            raise outcome.rejection

    def _applied(self, block: Block, outcomes: list[Outcome]) -> None:
        """The state stands at the end of this block: what must be taken exactly here is taken here.   [R-1, A-9]"""
        events = outcomes[-1].events
        if events and isinstance(events[-1], EpochClosed):
            self.epochs.take_image(block, events[-1], self.state)
        self.snapshots.consider(block, self.state)

    def _commit(self, block: Block, attachments: list[Attach]) -> None:
        """Make a block durable, unless it breaks conservation: then stop rather than publish.   [A-13]"""
        self._totals.add(block.journal)
        self._totals.require()
        self._writer.append(block, attachments)

    def _publish(self, block: Block, outcomes: list[Outcome]) -> None:
        """Everybody who wants to know, once the block is durable.   [A-7]"""
        state = self.state
        self.history.on_block(block, outcomes)
        changes = self.market_data.on_block(block, outcomes, state)
        for listener in self.listeners:
            listener(block, outcomes, changes)
        self.epochs.on_block(block)
        self.snapshots.on_block(block)
        self._durable_log.append(block.hash)
        last = outcomes[-1].events[-1] if outcomes[-1].events else None
        if isinstance(last, KeyRotated):
            # The old key's last word: the log up to and with the record of its successor.   [A-4, A-8b]
            self.checkpoints.update(self._durable_log.size, self._durable_log.root(), now=True)
            self.checkpoints.signer = self.keyring.exchange_key(last.public_key)
        self._update_checkpoint()

    def _update_checkpoint(self) -> None:
        self.checkpoints.update(self._durable_log.size, self._durable_log.root())

    async def _each_second(self) -> None:
        # A coroutine: the scheduler runs plain functions in a thread, where neither of these may be called.
        self.sequencer.wake()
        self._update_checkpoint()

    def _start_timers(self) -> None:
        """The scheduler is only a clock: what falls due is a command that the sequencer finds itself.   [A-6, S-15]"""
        self._timers = AsyncIOScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1})
        self._timers.add_job(self._each_second, "interval", seconds=1)
        self.desk.schedule(self._timers)
        self._timers.start()


def born_as(url: str) -> GenesisParameters | None:
    """The genesis that this database's log begins with; None when there is no log yet. Creates nothing."""
    if url.startswith("sqlite") and not Path(make_url(url).database or "").exists():
        return None
    engine = open_engine(url, read_only=True)
    try:
        if not inspect(engine).has_table("command"):
            return None
        first = next(Store(engine).commands(1, 1), None)
    finally:
        engine.dispose()
    if first is None:
        return None
    command = decode(first.payload)
    if not isinstance(command, Genesis):
        raise StoreError(f"the log begins with {first.kind}, not with Genesis: run verify-journal")
    return command.parameters


def balance_totals(state: State) -> dict[tuple[int, int], int]:
    """Signed totals per (account kind, asset) of a recovered state: where the running totals start.   [A-13]"""
    totals: dict[tuple[int, int], int] = {}
    for key, atoms in state.balances.items():
        kind, asset_id = key >> ASSET_BITS + OWNER_BITS, key & (1 << ASSET_BITS) - 1
        totals[kind, asset_id] = totals.get((kind, asset_id), 0) + atoms
    return totals
