"""How a node comes back: the newest verified snapshot, then the log after it, applied and compared.   [A-9, A-10]"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine import snapshot
from engine.events import Outcome
from engine.replay import replay_block
from engine.state import State
from ledger import merkle
from ledger.blocks import Block, BlockHeader, LoggedCommand, header_hash, log_command, signed_bytes
from ledger.signing import key_text, verify
from ledger.store import Store, StoreError

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
    journal_head, previous = bytes(32), bytes(32)
    if height >= 0:
        found = store.block(height)
        assert found is not None, f"snapshot of block {height}, which is not in the log"
        journal_head, previous = found[0].journal_head, found[1]
    replayed = 0
    for header, digest, signature in store.blocks(height + 1):
        last = header.first_command + header.command_count - 1
        key = state.public_key
        commands = list(store.commands(header.first_command, last))
        outcomes = replay_block(state, header, journal_head, commands)
        # Genesis names the key of its own block; every later block is signed with the key in force before it.
        _require_signed(header, digest, signature, previous, key or state.public_key, commands)
        journal_head, previous = header.journal_head, digest
        replayed += header.command_count
        if header.height > projected_height:
            republish(Block(header, digest, signature, [], []), outcomes, state)
    return Recovered(state, tip.header, replayed)


def _require_signed(
    header: BlockHeader, digest: bytes, signature: bytes, previous: bytes, key: bytes, commands: list[LoggedCommand]
) -> None:
    """The exchange signed these very commands, after this very block: nobody wrote them in beside it.   [A-4, A-5]"""
    anew = [log_command(one.seq, one.at_us, one.outcome, one.kind, one.payload, one.request).hash for one in commands]
    for what, logged, expected in (
        ("previous hash", header.previous_hash, previous),
        ("hash", digest, header_hash(header)),
        ("commands root", header.commands_root, merkle.root(anew)),
        ("public key", header.public_key, key),
    ):
        if logged != expected:
            raise StoreError(f"block {header.height} has {what} {logged.hex()}, expected {expected.hex()}")
    if not verify(key, signature, signed_bytes(header)):
        raise StoreError(f"block {header.height} bears no signature of the exchange's key {key_text(key)}")


def _from_snapshot(store: Store, projected_height: int) -> tuple[State, int]:
    """The newest snapshot that no projection is behind, checked against its block; an empty state without one."""
    kept = store.newest_snapshot(max_height=projected_height)
    if kept is None:
        return State(), -1
    store.require_genuine(kept)
    return snapshot.load(kept.content), kept.height
