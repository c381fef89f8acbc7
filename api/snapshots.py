"""Snapshots of the state on the way, so that a restart replays minutes and not years.   [A-9]"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from api.forked import Forked
from engine import snapshot
from engine.state import State
from ledger.blocks import Block
from ledger.store import Snapshot, Store

COMMANDS_BETWEEN = 500_000
"""Commands that a restart replays at most, about: some twenty seconds."""


class Snapshots:
    """Takes a snapshot every so many commands, in a child process, and keeps it once its block is durable.

    It is signed with the key in force after its block, which `signing` finds: who can write to the database alone
    cannot make a state that the node starts from.   [A-4]
    """

    def __init__(self, store: Store, signing: Callable[[bytes], Callable[[bytes], bytes]]) -> None:
        self._store = store
        self._signing = signing
        self._taken_at = -1
        self._pending: dict[int, tuple[bytes, bytes, Forked]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")

    def consider(self, block: Block, state: State) -> None:
        """Called while the state stands at the end of this block."""
        if self._taken_at < 0:
            self._taken_at = state.sequence
        if state.sequence - self._taken_at < COMMANDS_BETWEEN:
            return
        self._taken_at = state.sequence
        child = Forked(lambda _receive: snapshot.dump(state))
        self._pending[block.header.height] = block.hash, state.public_key, child

    def on_block(self, block: Block) -> None:
        """The block is durable: its snapshot may be kept."""
        taken = self._pending.pop(block.header.height, None)
        if taken is not None:
            self._thread.submit(self._keep, block.header.height, *taken)

    def save_now(self, height: int, block_hash: bytes, state: State) -> None:
        """At shutdown: keep the state as it is, so that the next start replays nothing."""
        if height >= 0:
            self._save(height, block_hash, state.public_key, snapshot.dump(state))

    def close(self) -> None:
        self._thread.shutdown()

    def _keep(self, height: int, block_hash: bytes, public_key: bytes, child: Forked) -> None:
        self._save(height, block_hash, public_key, child.finish())

    def _save(self, height: int, block_hash: bytes, public_key: bytes, content: bytes) -> None:
        sign = self._signing(public_key)
        self._store.save_snapshot(Snapshot.signed(height, block_hash, content, public_key, sign))
