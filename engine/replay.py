"""Replay: the log's commands applied again must give every journal transaction and outcome byte for byte.   [A-10]"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.commands import Command, decode, encode
from engine.events import Outcome
from engine.state import State
from engine.transition import apply
from ledger import merkle
from ledger.blocks import BlockHeader, LoggedCommand
from ledger.journal import SealedTransaction, seal


class Divergence(Exception):
    """The first difference between the log and its replay: what, which, and both sides."""

    def __init__(self, what: str, which: int, logged: object, replayed: object) -> None:
        super().__init__(f"{what} {which}: the log has {logged}, replay gives {replayed}")
        self.what = what
        self.which = which
        self.logged = logged
        self.replayed = replayed


def replay_command(state: State, logged: LoggedCommand) -> tuple[Command, Outcome]:
    """Apply one logged command; its outcome must be the logged one."""
    command = decode(logged.payload)
    if encode(command) != logged.payload:
        raise Divergence("payload of command", logged.seq, logged.payload.hex(), encode(command).hex())
    if logged.seq != state.sequence + 1:
        raise Divergence("command", state.sequence + 1, f"number {logged.seq}", f"number {state.sequence + 1}")
    if logged.at_us < state.at_us:
        raise Divergence("time of command", logged.seq, logged.at_us, f"at least {state.at_us}")
    outcome = apply(state, logged.seq, logged.at_us, command, logged.request)
    code = 0 if outcome.rejection is None else int(outcome.rejection.reason)
    if code != logged.outcome:
        raise Divergence("outcome of command", logged.seq, logged.outcome, code)
    return command, outcome


def replay_block(
    state: State,
    header: BlockHeader,
    journal_head: bytes,
    commands: Iterable[LoggedCommand],
    journal: Sequence[SealedTransaction] | None = None,
) -> list[Outcome]:
    """Apply a block's commands on `state`, which stands right before it, and compare with what the log holds.

    `journal_head` is the hash of the journal transaction before the block. With `journal` (the block's transactions as
    stored) the first differing posting is named; without, the block's journal root decides.   [A-10]
    """
    outcomes: list[Outcome] = []
    hashes: list[bytes] = []
    head, next_journal = journal_head, header.first_journal
    for logged in commands:
        _command, outcome = replay_command(state, logged)
        for entry in outcome.journal:
            sealed = seal(head, next_journal, logged.seq, logged.at_us, entry)
            if journal is not None:
                at = next_journal - header.first_journal
                _compare(journal[at] if at < len(journal) else None, sealed)
            head = sealed.hash
            hashes.append(head)
            next_journal += 1
        outcomes.append(outcome)
    if len(hashes) != header.journal_count:
        raise Divergence("journal count of block", header.height, header.journal_count, len(hashes))
    if merkle.root(hashes) != header.journal_root:
        raise Divergence("journal root of block", header.height, header.journal_root.hex(), merkle.root(hashes).hex())
    return outcomes


def _compare(stored: SealedTransaction | None, replayed: SealedTransaction) -> None:
    if stored is None:
        raise Divergence("journal transaction", replayed.seq, "nothing", f"kind {replayed.kind}")
    if stored.hash == replayed.hash:
        return
    if stored.kind != replayed.kind:
        raise Divergence("kind of journal transaction", replayed.seq, stored.kind, replayed.kind)
    if stored.memo != replayed.memo:
        raise Divergence("memo of journal transaction", replayed.seq, stored.memo.hex(), replayed.memo.hex())
    for line, (left, right) in enumerate(zip(stored.postings, replayed.postings, strict=False)):
        if tuple(left) != tuple(right):
            raise Divergence(f"posting {line} of journal transaction", replayed.seq, left, right)
    if len(stored.postings) != len(replayed.postings):
        raise Divergence(
            "posting count of journal transaction", replayed.seq, len(stored.postings), len(replayed.postings)
        )
    raise Divergence("hash of journal transaction", replayed.seq, stored.hash.hex(), replayed.hash.hex())
