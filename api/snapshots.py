"""Snapshots of the state on the way, so that a restart replays minutes and not years.   [A-9]"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from api.forked import Forked
from engine import snapshot
from engine.state import State
from ledger.blocks import Block
from ledger.store import Snapshot, Store

COMMANDS_BETWEEN = 500_000
"""Commands that a restart replays at most, about: some twenty seconds."""


class Snapshots:
    """Takes a snapshot every so many commands, in a child process, and keeps it once its block is durable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._taken_at = -1
        self._pending: dict[int, tuple[bytes, Forked]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")

    def consider(self, block: Block, state: State) -> None:
        """Called while the state stands at the end of this block."""
        if self._taken_at < 0:
            self._taken_at = state.sequence
        if state.sequence - self._taken_at < COMMANDS_BETWEEN:
            return
        self._taken_at = state.sequence
        self._pending[block.header.height] = block.hash, Forked(lambda _receive: snapshot.dump(state))

    def on_block(self, block: Block) -> None:
        """The block is durable: its snapshot may be kept."""
        taken = self._pending.pop(block.header.height, None)
        if taken is not None:
            self._thread.submit(self._keep, block.header.height, *taken)

    def save_now(self, height: int, block_hash: bytes, state: State) -> None:
        """At shutdown: keep the state as it is, so that the next start replays nothing."""
        if height >= 0:
            content = snapshot.dump(state)
            self._store.save_snapshot(Snapshot(height, block_hash, snapshot.digest(content), content))

    def close(self) -> None:
        self._thread.shutdown()

    def _keep(self, height: int, block_hash: bytes, child: Forked) -> None:
        content = child.finish()
        self._store.save_snapshot(Snapshot(height, block_hash, snapshot.digest(content), content))
