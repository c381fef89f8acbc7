"""Killing a coroutine at a chosen await point, as a process dies: nothing after it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class KilledAt:
    """Awaits a coroutine up to its `point`-th suspension and drops it there. True when it ended before that."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], point: int) -> None:
        self._coroutine, self._point = coroutine, point

    def __await__(self) -> Generator[Any, Any, bool]:
        steps = self._coroutine.__await__()
        for _ in range(self._point):
            try:
                future = next(steps)
            except StopIteration:
                return True
            yield future
        steps.close()
        return False


def one_thread() -> None:
    """Give the running loop a single worker thread, so that `quiet` can wait for what a killed coroutine began."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))


async def quiet() -> None:
    """Wait until the worker thread has finished what the dead process handed to it: a commit under way commits."""
    await asyncio.to_thread(lambda: None)
