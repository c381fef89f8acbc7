"""Our rows of one chain: each use of them is one SQL transaction, off the event loop; alarms are rows too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from chains.alarms import raise_alarm

T = TypeVar("T")


class Rows:
    """The database as the outbox, the payouts, the sweeper and the watcher of one chain use it."""

    def __init__(self, engine: sa.Engine, chain_id: int, clock_us: Callable[[], int]) -> None:
        self._engine = engine
        self._chain_id = chain_id
        self._clock_us = clock_us

    async def use(self, work: Callable[[sa.Connection], T]) -> T:
        """Read or write in one transaction: all of it or nothing."""
        return await asyncio.to_thread(self._in_transaction, work)

    async def alarm(self, kind: str, subject: str, words: str) -> None:
        """Tell the operator, in a transaction of its own."""
        await self.use(lambda c: raise_alarm(c, self._chain_id, kind, subject, words, self._clock_us()))

    def _in_transaction(self, work: Callable[[sa.Connection], T]) -> T:
        with self._engine.begin() as connection:
            return work(connection)
