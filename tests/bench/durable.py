"""One command to a durable block, and how long each step of the way took."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from engine.commands import Command, encode
from engine.outcome import Outcome
from engine.state import State
from engine.transition import apply
from ledger.blocks import log_command
from ledger.journal import SealedTransaction, seal

STEPS = ("compute and post", "hash", "sign", "commit")


def timed_block(
    state: State, chain: Any, store: Any, seq: int, at_us: int, command: Command
) -> tuple[Outcome, list[float]]:
    """What the command came to, and the five moments around `STEPS`."""
    times = [perf_counter()]
    outcome = apply(state, seq, at_us, command)
    times.append(perf_counter())
    sealed: list[SealedTransaction] = []
    head = chain.journal_head
    for entry in outcome.journal:
        sealed.append(seal(head, chain.next_journal + len(sealed), seq, at_us, entry))
        head = sealed[-1].hash
    times.append(perf_counter())
    logged = log_command(seq, at_us, 0, type(command).__name__, encode(command), None)
    block = chain.build(at_us, [logged], sealed)
    times.append(perf_counter())
    store.append(block)
    times.append(perf_counter())
    return outcome, times
