"""Follows the log: published blocks wait in a queue, one thread writes them in batches, readers see what they may.

Each batch is written together with the cursor that says how far it got; so a block is taken in exactly once. Readers
wait until what was published when they asked is written.   [A-7]
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa

from api.history import schema
from api.history.writing import Writer, open_for_writing
from engine.events import Outcome
from ledger.blocks import Block
from ledger.database import open_engine

BATCH_OUTCOMES = 2_000
"""Outcomes of one write, about: on SQLite the log's own writer waits that long."""

BATCH_SECONDS = 0.1
"""A write waits this long for more to come, unless somebody wants to read."""

CAPACITY = 200_000
"""Outcomes that may wait to be written; beyond it the publisher waits."""

READERS = 2

T = TypeVar("T")


class HistoryFailed(Exception):
    """The history could not be written; the log is not touched by it. Restart to continue where it stopped."""


class History:
    """The tables and their one writer. `start` before blocks come, `close` when no more will.

    `url` is the ledger's database; its schema must be up to date.
    """

    def __init__(self, url: str) -> None:
        self._writer_engine = open_for_writing(url)
        self._reader_engine = open_engine(url, read_only=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="history-reader")
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._queue: deque[tuple[int, list[Outcome]]] = deque()
        self._queued_outcomes = 0
        self._stopping = False
        self._failure: str | None = None
        self._waiters: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._wanted = False
        """Somebody waits: write at once."""
        with self._reader_engine.connect() as connection:
            height = connection.execute(sa.select(schema.cursor.c.height)).scalar()
        self._written = -1 if height is None else int(height)
        self._published = self._written

    # ---- what the node calls

    def cursor(self) -> int:
        """Height of the newest block whose events are in the tables; -1 for none."""
        return self._written

    def start(self) -> None:
        """Start the writing thread."""
        assert self._thread is None, "the history is already being written"
        self._thread = threading.Thread(target=self._write_until_closed, name="history-writer", daemon=True)
        self._thread.start()

    def on_block(self, block: Block, outcomes: list[Outcome]) -> None:
        """Take in a durable block, in order; one that the tables contain already is skipped.

        Returns at once, unless CAPACITY outcomes wait: then it waits for the writer, so that memory stays bounded and
        nothing is left out. Raises HistoryFailed when writing failed.
        """
        height = block.header.height
        if height <= self._published:
            return
        with self._changed:
            while self._queued_outcomes >= CAPACITY and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise HistoryFailed(self._failure)
            self._published = height
            self._queue.append((height, outcomes))
            self._queued_outcomes += len(outcomes)
            self._changed.notify_all()

    def lag(self) -> int:
        """Outcomes that wait to be written: for metrics, and to slow down the intake before CAPACITY is reached."""
        return self._queued_outcomes

    def flush(self) -> None:
        """Wait until everything taken in is written: after recovery, before `connect`. Raises HistoryFailed."""
        with self._changed:
            while self._written < self._published and self._failure is None:
                self._wanted = True
                self._changed.notify_all()
                self._changed.wait()
            if self._failure is not None:
                raise HistoryFailed(self._failure)

    def close(self) -> None:
        """Write what was taken in and stop."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._readers.shutdown()
        self._writer_engine.dispose()
        self._reader_engine.dispose()

    # ---- what the lookups need

    def connect(self) -> sa.Connection:
        """To read without waiting for anything: after `flush`, before blocks come."""
        return self._reader_engine.connect()

    async def read(self, read: Callable[[sa.Connection], T]) -> T:
        """Run a query off the event loop, on tables that contain everything published so far."""
        await self._caught_up()

        def run() -> T:
            with self._reader_engine.connect() as connection:
                return read(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    async def _caught_up(self) -> None:
        """Wait until what was published by now is written: a reader sees what was acknowledged."""
        height = self._published
        if self._written >= height:
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._changed:
            if self._failure is not None:
                raise HistoryFailed(self._failure)
            if self._written >= height:
                return
            self._waiters.append((height, loop, done))
            self._wanted = True
            self._changed.notify_all()
        await done

    # ---- the writing thread

    def _write_until_closed(self) -> None:
        try:
            with self._writer_engine.connect() as connection:
                writer = Writer(connection)
                while True:
                    taken = self._take()
                    if not taken:
                        return
                    writer.write(taken)
                    self._report(taken)
        except BaseException as error:
            self._fail(f"the history stopped after block {self._written}: {error}")

    def _take(self) -> list[tuple[int, list[Outcome]]]:
        """Wait for blocks and take some; nothing when closed and all is written."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            deadline = time.monotonic() + BATCH_SECONDS
            while not (self._stopping or self._wanted or self._queued_outcomes >= BATCH_OUTCOMES):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            taken: list[tuple[int, list[Outcome]]] = []
            count = 0
            while self._queue and count < BATCH_OUTCOMES:
                taken.append(self._queue.popleft())
                count += len(taken[-1][1])
            return taken

    def _report(self, taken: list[tuple[int, list[Outcome]]]) -> None:
        """These blocks are written: wake who waited for them."""
        with self._changed:
            self._written = taken[-1][0]
            self._queued_outcomes -= sum(len(outcomes) for _height, outcomes in taken)
            if self._written == self._published:
                self._wanted = False
            waiters, self._waiters = self._waiters, []
            for height, loop, done in waiters:
                if height <= self._written:
                    _call(loop, _resolve, done)
                else:
                    self._waiters.append((height, loop, done))
            self._changed.notify_all()

    def _fail(self, reason: str) -> None:
        with self._changed:
            self._failure = reason
            for _height, loop, done in self._waiters:
                _call(loop, _reject, done, reason)
            self._waiters.clear()
            self._changed.notify_all()


def _call(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    """Run on the loop's own thread; a loop that has ended has nobody left who waits."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _reject(done: asyncio.Future[None], reason: str) -> None:
    if not done.done():
        done.set_exception(HistoryFailed(reason))
