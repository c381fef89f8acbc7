"""The single writer: stamps commands, applies them, groups them into signed blocks, answers when they are durable.

It is handed `clock`, `commit` and `publish`, so it knows no SQL and no web. While one block commits in a thread (the
driver and the disk release the interpreter lock) the next is applied.   [A-6, A-7]
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from engine import clock as exchange_clock
from engine.commands import AdvanceClock, ClockMode, Command, encode
from engine.events import EpochClosed, KeyRotated, Outcome
from engine.state import State
from engine.transition import apply
from ledger.blocks import Block, Chain, LoggedCommand, SignedRequest, log_command
from ledger.journal import SealedTransaction, residues, seal

Attach = Callable[[Any], None]
"""Run on the SQL connection inside the block's own transaction, when the command is accepted.   [D-4]"""

GROUP_LIMIT = 1_000
"""Commands of one block at most: about 10 ms of applying, so that nobody waits long behind a burst."""


class Overloaded(Exception):
    """The queue is full; nothing was sequenced, try again later."""


class Halted(Exception):
    """The sequencer has stopped and says why; nothing more is accepted until a restart."""


class Pending:
    """A submitted command and who waits for it."""

    __slots__ = ("attach", "command", "done", "payload", "request")

    def __init__(
        self,
        command: Command,
        payload: bytes,
        request: SignedRequest | None,
        attach: Attach | None,
        done: asyncio.Future[Outcome],
    ) -> None:
        self.command = command
        self.payload = payload
        self.request = request
        self.attach = attach
        self.done = done


class Group:
    """What becomes one block: built by `apply_group`, made durable by `commit`."""

    __slots__ = ("attachments", "block", "outcomes", "waiting")

    def __init__(
        self,
        block: Block,
        outcomes: list[Outcome],
        attachments: list[Attach],
        waiting: list[tuple[asyncio.Future[Outcome], Outcome]],
    ) -> None:
        self.block = block
        self.outcomes = outcomes
        self.attachments = attachments
        self.waiting = waiting


class Sequencer:
    """Owns the state while the exchange runs.

    `clock_us()` is the wall clock in µs; `commit(block, attachments)` makes a block durable or raises (run on
    `executor`); `publish(block, outcomes)` tells the world, on the event loop, in block order; `keyring(public_key)`
    gives the signing function of a rotated key; `applied(block, outcomes)` is called while the state stands exactly at
    the end of the block, before anything else is applied and before it is durable.
    """

    def __init__(
        self,
        state: State,
        chain: Chain,
        *,
        clock_us: Callable[[], int],
        commit: Callable[[Block, list[Attach]], None],
        publish: Callable[[Block, list[Outcome]], None],
        executor: Executor,
        keyring: Callable[[bytes], Callable[[bytes], bytes]] | None = None,
        applied: Callable[[Block, list[Outcome]], None] | None = None,
        last_at_us: int = 0,
        capacity: int = 20_000,
    ) -> None:
        self.state = state
        self.chain = chain
        self.durable_height = chain.height
        """Height of the newest block that is durable; what was computed from the state may be ahead of it."""
        self.halted: BaseException | None = None
        self._clock_us = clock_us
        self._commit = commit
        self._publish = publish
        self._executor = executor
        self._keyring = keyring
        self._applied = applied
        self._last_at_us = max(last_at_us, state.at_us)
        self._capacity = capacity
        self._queue: deque[Pending] = deque()
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(2)
        """One block committing, one applied and waiting: more would only lengthen the queue of the unacknowledged."""
        self._commits: asyncio.Queue[Group | None] = asyncio.Queue()
        self._durable_waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._stopping = False

    def now_us(self) -> int:
        """Exchange time: what the next command will be stamped with, at least.   [W-9]"""
        if self.state.clock_mode == ClockMode.MANUAL:
            return self._last_at_us
        return max(self._last_at_us, self._clock_us() + self.state.clock_offset_us)

    def submit_nowait(
        self, command: Command, request: SignedRequest | None = None, attach: Attach | None = None
    ) -> asyncio.Future[Outcome]:
        """Queue a command; the future resolves when its block is durable. Raises Overloaded or Halted.

        ValueError for a command that has no canonical bytes, such as one with an integer beyond 64 bits: what cannot
        be logged must be refused to its caller here, since after it is applied it would stop the exchange.   [A-13]
        """
        if self.halted is not None or self._stopping:
            raise Halted(str(self.halted or "the exchange is stopping"))
        if len(self._queue) >= self._capacity:
            raise Overloaded(f"{len(self._queue)} commands are waiting, at most {self._capacity}")
        try:
            payload = encode(command)
        except (OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{type(command).__name__} cannot be written to the log: {error}") from None
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queue.append(Pending(command, payload, request, attach, done))
        self._arrived.set()
        return done

    async def submit(
        self, command: Command, request: SignedRequest | None = None, attach: Attach | None = None
    ) -> Outcome:
        """Queue a command and wait until its block is durable. The caller's cancellation does not undo it."""
        return await asyncio.shield(self.submit_nowait(command, request, attach))

    async def durable(self) -> None:
        """Wait until everything applied so far is durable: what a reader saw may be told only then.   [A-7]"""
        height = self.chain.height
        if height <= self.durable_height:
            return
        if self.halted is not None:
            raise Halted(str(self.halted))
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._durable_waiters.append((height, waiter))
        await waiter

    def wake(self) -> None:
        """Look whether something is due; called by a timer, since an idle exchange gets no commands.   [S-15]"""
        self._arrived.set()

    async def run(self) -> None:
        """Apply and commit until `stop`; returns when everything accepted is durable. Raises what halted it."""
        committer = asyncio.create_task(self._commit_groups())
        try:
            while True:
                await self._arrived.wait()
                await self._slots.acquire()
                if self.halted is not None:
                    break
                self._arrived.clear()
                group = self._apply_group()
                if group is None:
                    self._slots.release()
                    if self._stopping and not self._queue:
                        break
                else:
                    self._commits.put_nowait(group)
                if self._queue or self._stopping:
                    self._arrived.set()
                # Let requests that arrived meanwhile in: larger groups, fewer commits.
                await asyncio.sleep(0)
        except BaseException as error:
            self._halt(error)
            raise
        finally:
            self._commits.put_nowait(None)
            await committer
        if self.halted is not None:
            raise self.halted

    def stop(self) -> None:
        """Accept nothing more; `run` returns once what was accepted is durable."""
        self._stopping = True
        self._arrived.set()

    def _apply_group(self) -> Group | None:
        """Apply what waits, at most GROUP_LIMIT, and what fell due before it; None when there is nothing."""
        state, chain, queue = self.state, self.chain, self._queue
        commands: list[LoggedCommand] = []
        journal: list[SealedTransaction] = []
        outcomes: list[Outcome] = []
        attachments: list[Attach] = []
        waiting: list[tuple[asyncio.Future[Outcome], Outcome]] = []
        head = chain.journal_head
        next_journal = chain.next_journal
        last: object = None
        # An epoch's image is the state at the end of its block, and a new key signs from the next block: both end one.
        while not isinstance(last, KeyRotated | EpochClosed) and len(commands) < GROUP_LIMIT:
            pending = queue[0] if queue else None
            at_us = self._stamp(pending.command if pending is not None else None)
            scheduled = exchange_clock.due(state, at_us)
            if scheduled is not None:
                at_us, command = scheduled
                at_us = max(at_us, self._last_at_us)
                pending, request, payload = None, None, encode(command)
            elif pending is not None:
                queue.popleft()
                command, request, payload = pending.command, pending.request, pending.payload
            else:
                break
            seq = state.sequence + 1
            outcome = apply(state, seq, at_us, command, request)
            self._last_at_us = at_us
            rejection = outcome.rejection
            code = 0 if rejection is None else int(rejection.reason)
            commands.append(log_command(seq, at_us, code, type(command).__name__, payload, request))
            for entry in outcome.journal:
                assert not residues(entry), f"command {seq}: {residues(entry)} out of balance"
                sealed = seal(head, next_journal, seq, at_us, entry)
                head = sealed.hash
                next_journal += 1
                journal.append(sealed)
            outcomes.append(outcome)
            if pending is not None:
                waiting.append((pending.done, outcome))
                if pending.attach is not None and rejection is None:
                    attachments.append(pending.attach)
            last = outcome.events[-1] if outcome.events else None
        if not commands:
            return None
        block = chain.build(self._last_at_us, commands, journal)
        if isinstance(last, KeyRotated):
            assert self._keyring is not None, "a key was rotated but there is no keyring to find its secret in"
            chain.rotate(last.public_key, self._keyring(last.public_key))
        if self._applied is not None:
            self._applied(block, outcomes)
        return Group(block, outcomes, attachments, waiting)

    def _stamp(self, command: Command | None) -> int:
        if self.state.clock_mode == ClockMode.MANUAL:
            if isinstance(command, AdvanceClock):
                return max(self._last_at_us, command.at_us)
            return self._last_at_us
        return max(self._last_at_us, self._clock_us() + self.state.clock_offset_us)

    async def _commit_groups(self) -> None:
        """Make groups durable in order, publish, answer. A failed commit halts: unknown state is not guessed."""
        loop = asyncio.get_running_loop()
        while True:
            group = await self._commits.get()
            if group is None:
                return
            if self.halted is None:
                try:
                    await loop.run_in_executor(self._executor, self._commit, group.block, group.attachments)
                    self.durable_height = group.block.header.height
                    self._publish(group.block, group.outcomes)
                except BaseException as error:
                    self._halt(error)
            if self.halted is not None:
                for done, _outcome in group.waiting:
                    _fail(done, Halted(f"not known to be durable: {self.halted}"))
            else:
                for done, outcome in group.waiting:
                    if not done.done():
                        done.set_result(outcome)
                waiters = self._durable_waiters
                while waiters and waiters[0][0] <= self.durable_height:
                    waiter = waiters.popleft()[1]
                    if not waiter.done():
                        waiter.set_result(None)
            self._slots.release()
            self._arrived.set()

    def _halt(self, error: BaseException) -> None:
        """Stop for good and tell everybody who waits; the process ends and a restart reads the log.   [A-13]"""
        if self.halted is None:
            self.halted = error
        while self._queue:
            _fail(self._queue.popleft().done, Halted(str(error)))
        while self._durable_waiters:
            _fail(self._durable_waiters.popleft()[1], Halted(str(error)))
        self._arrived.set()


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
