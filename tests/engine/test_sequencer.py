"""The sequencer: one order, durable before answered, replayed byte for byte, stopped when in doubt. [A-6]"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import genesis, snapshot
from engine.clock import HOUR_US
from engine.commands import AdvanceClock, ClockMode, CloseEpoch, Genesis, RegisterKey, RotateKey, SetClock, SetPrices
from engine.events import EpochClosed, Outcome
from engine.replay import Divergence, replay_block
from engine.sequencer import Halted, Overloaded, Sequencer
from engine.state import State
from ledger.blocks import Block
from ledger.database import open_engine, upgrade
from ledger.signing import Signer, generate
from ledger.store import Store

START_US = 1_760_000_000_000_000


class Running:
    """A sequencer on a real store, with everything it published."""

    def __init__(self, store: Store, signer: Signer, capacity: int = 1_000) -> None:
        self.store = store
        self.signers = {signer.public_key: signer}
        self.now_us = START_US
        self.published: list[tuple[Block, list[Outcome]]] = []
        self.images: list[tuple[int, int, bytes]] = []
        self.state = State()
        self.fail_commits = False
        self.sequencer = Sequencer(
            self.state,
            store.load_chain(signer.public_key, signer.sign),
            clock_us=lambda: self.now_us,
            commit=self._commit,
            publish=lambda block, outcomes: self.published.append((block, outcomes)),
            executor=ThreadPoolExecutor(1),
            keyring=lambda key: self.signers[key].sign,
            applied=self._image,
            capacity=capacity,
        )

    def _commit(self, block: Block, attachments: list[Callable[[Any], None]]) -> None:
        if self.fail_commits:
            raise OSError("no space left on device")
        self.store.append(block, attachments)

    def _image(self, block: Block, outcomes: list[Outcome]) -> None:
        last = outcomes[-1].events[-1] if outcomes[-1].events else None
        if isinstance(last, EpochClosed):
            self.images.append((block.header.height, last.epoch, snapshot.state_hash(self.state)))

    def replay(self) -> State:
        """The state that the log alone gives."""
        state, head = State(), bytes(32)
        for header, _hash, _signature in self.store.blocks():
            last = header.first_journal + header.journal_count - 1
            journal = list(self.store.journal(header.first_journal, last)) if header.journal_count else []
            commands = self.store.commands(header.first_command, header.first_command + header.command_count - 1)
            replay_block(state, header, head, commands, journal)
            head = header.journal_head
        return state


@asynccontextmanager
async def running(path: Path, capacity: int = 1_000) -> AsyncIterator[Running]:
    database = open_engine(f"sqlite:///{path / 'ledger.db'}")
    upgrade(database)
    signer = generate()
    run = Running(Store(database), signer, capacity)
    task = asyncio.create_task(run.sequencer.run())
    await run.sequencer.submit(Genesis(genesis.load("devnet"), signer.public_key))
    try:
        yield run
    finally:
        run.sequencer.stop()
        await asyncio.gather(task, return_exceptions=True)
        run.store.close()
        database.dispose()


async def test_what_was_answered_is_durable_and_replays_to_the_same_state(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        outcomes = await asyncio.gather(
            *(run.sequencer.submit(RegisterKey(bytes([n]) * 32)) for n in range(1, 200))
        )

        assert all(outcome.rejection is None for outcome in outcomes)
        assert [outcome.seq for outcome in outcomes] == list(range(2, 201))
        assert len(run.published) < 200, "commands that wait together become one block"
        assert snapshot.state_hash(run.replay()) == snapshot.state_hash(run.state)


async def test_nothing_is_answered_when_the_commit_fails_and_nothing_more_is_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        run.fail_commits = True

        with pytest.raises(Halted, match="no space left"):
            await run.sequencer.submit(RegisterKey(b"a" * 32))
        with pytest.raises(Halted):
            await run.sequencer.submit(RegisterKey(b"b" * 32))
        assert len(run.published) == 1
        assert b"a" * 32 not in run.replay().api_keys


async def test_a_full_queue_says_so_and_sequences_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, capacity=5) as run:
        waiting = [run.sequencer.submit_nowait(RegisterKey(bytes([n]) * 32)) for n in range(5)]

        with pytest.raises(Overloaded, match="5 commands are waiting"):
            run.sequencer.submit_nowait(RegisterKey(b"x" * 32))
        assert len(await asyncio.gather(*waiting)) == 5
        assert b"x" * 32 not in run.state.api_keys


async def test_what_cannot_be_logged_is_refused_to_its_caller_and_the_exchange_runs_on(tmp_path: Path) -> None:
    """A-13"""
    async with running(tmp_path) as run:
        for command in (RegisterKey(b"a" * 32, 2**64), RegisterKey(b"a" * 32, -(2**63) - 1), RotateKey(object())):  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="cannot be written to the log"):
                run.sequencer.submit_nowait(command)

        after = await run.sequencer.submit(RegisterKey(b"b" * 32))
        assert after.rejection is None and after.seq == 2
        assert run.sequencer.halted is None


async def test_an_advanced_clock_runs_every_hour_in_order_and_each_epoch_ends_its_block(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.sequencer.submit(SetClock(ClockMode.MANUAL))
        start = run.sequencer.now_us()

        await run.sequencer.submit(AdvanceClock(start + 3 * HOUR_US))

        hours = [
            (command.at_us, block.header.height)
            for block, _ in run.published
            for command in block.commands
            if command.kind == "CloseEpoch"
        ]
        first = (start // HOUR_US + 1) * HOUR_US
        assert [at for at, _height in hours] == [first, first + HOUR_US, first + 2 * HOUR_US]
        assert [image[0] for image in run.images] == [height for _at, height in hours]
        assert run.sequencer.now_us() == start + 3 * HOUR_US
        assert snapshot.state_hash(run.replay()) == snapshot.state_hash(run.state)


async def test_the_seconds_of_a_priced_exchange_are_sampled_up_to_each_hour_and_replay(tmp_path: Path) -> None:
    """P-2, S-15: an hour in which nothing happens is one command of samples, and the epoch comes after it."""
    async with running(tmp_path) as run:
        await run.sequencer.submit(SetClock(ClockMode.MANUAL))
        await run.sequencer.submit(SetPrices(((5, 150 * 10**12),)))
        start = run.sequencer.now_us()

        await run.sequencer.submit(AdvanceClock(start + 2 * HOUR_US))

        first = (start // HOUR_US + 1) * HOUR_US
        end = (start + 2 * HOUR_US) // 1_000_000 * 1_000_000
        ticks = [
            (command.kind, command.at_us)
            for block, _ in run.published
            for command in block.commands
            if command.kind in ("SampleMarks", "CloseEpoch")
        ]
        hours = [(kind, at) for at in (first, first + HOUR_US) for kind in ("SampleMarks", "CloseEpoch")]
        assert ticks == [*hours, ("SampleMarks", end)]
        assert run.state.sampled_second * 1_000_000 == end
        assert snapshot.state_hash(run.replay()) == snapshot.state_hash(run.state)


async def test_a_rotated_key_signs_from_the_next_block_on(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        new = generate()
        run.signers[new.public_key] = new

        await run.sequencer.submit(RotateKey(new.public_key))
        await run.sequencer.submit(CloseEpoch(0))

        keys = [header.public_key for header, _hash, _signature in run.store.blocks()]
        assert keys[-2] != new.public_key and keys[-1] == new.public_key


async def test_a_changed_outcome_is_named_by_replay(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.sequencer.submit(RegisterKey(b"a" * 32))
        header, _hash, _signature = next(run.store.blocks(1))
        logged = next(run.store.commands(header.first_command))
        state = State()
        first = next(run.store.blocks())[0]
        replay_block(state, first, bytes(32), run.store.commands(1, 1))

        with pytest.raises(Divergence, match="outcome of command 2: the log has 12, replay gives 0"):
            replay_block(state, header, first.journal_head, [logged._replace(outcome=12)])
