"""How a node comes back: the newest verified snapshot, then the log after it, applied and compared.   [A-9, A-10]"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine import snapshot
from engine.events import Outcome
from engine.replay import replay_block
from engine.state import State
from ledger.blocks import Block, BlockHeader
from ledger.store import Store

Republish = Callable[[Block, list[Outcome], State], None]
"""Told of replayed blocks that a projection has not seen yet; the block carries no rows, only its header."""


class Recovered(NamedTuple):
    state: State
    header: BlockHeader | None
    """The newest block; None before genesis."""
    replayed: int
    """Commands applied again since the snapshot."""


def recover(store: Store, projected_height: int, republish: Republish) -> Recovered:
    """The state after the newest block.

    Blocks above `projected_height` are told to `republish` as they are replayed, so a projection that was behind when
    the process died catches up. Raises Divergence or StoreError rather than start from a state it cannot prove.
    """
    tip = store.tip()
    if tip is None:
        return Recovered(State(), None, 0)
    state, height = _from_snapshot(store, projected_height)
    journal_head = bytes(32)
    if height >= 0:
        found = store.block(height)
        assert found is not None, f"snapshot of block {height}, which is not in the log"
        journal_head = found[0].journal_head
    replayed = 0
    for header, digest, signature in store.blocks(height + 1):
        last = header.first_command + header.command_count - 1
        outcomes = replay_block(state, header, journal_head, store.commands(header.first_command, last))
        journal_head = header.journal_head
        replayed += header.command_count
        if header.height > projected_height:
            republish(Block(header, digest, signature, [], []), outcomes, state)
    return Recovered(state, tip.header, replayed)


def _from_snapshot(store: Store, projected_height: int) -> tuple[State, int]:
    """The newest snapshot that no projection is behind, checked against its block; an empty state without one."""
    kept = store.newest_snapshot(max_height=projected_height)
    if kept is None:
        return State(), -1
    store.require_genuine(kept)
    return snapshot.load(kept.content), kept.height
