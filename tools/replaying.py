"""`satchel replay`: run the whole log again and hold every byte against what is stored.   [A-10]"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from engine import snapshot
from engine.events import EpochClosed, Outcome
from engine.replay import Divergence, replay_command
from engine.state import State
from ledger import merkle, schema
from ledger.blocks import BlockHeader, LoggedCommand, header_hash, signed_bytes
from ledger.journal import GENESIS_HASH, SealedTransaction, seal
from ledger.signing import key_text
from ledger.store import Store, StoreError
from tools.epoch_roots import EpochRoots
from tools.keys import public_key
from tools.node_data import reading
from tools.stored_history import history_words, stored_history
from tools.stored_rows import HashedCommand, Ranges, StoredRows, stored_rows
from tools.terminal import FINDINGS, FINE, CannotRun, print_json, progress, say

SAVE_SECONDS = 30.0
"""How often `--resume` writes down how far it is."""

COVERAGE_WORDS = {
    "blocks": "blocks: header, hash, roots, signature",
    "commands": "commands: payload, hash, outcome",
    "journalTransactions": "journal transactions, byte for byte",
    "postings": "postings",
    "snapshots": "snapshots: state hash",
    "epochs": "epochs: header, texts and leaves rebuilt and compared",
}

Before = Callable[[State, LoggedCommand], None]
"""Called with the state as it stands right before a logged command is applied."""


def replay(
    data: Path,
    database: str | None,
    from_snapshot: int | None,
    resume: Path | None,
    until: int | None,
    key: str | None,
    as_json: bool,
    with_history: bool = True,
) -> int:
    """Replay and report what was covered; the first difference ends it."""
    started = time.monotonic()
    genesis_key = None if key is None else public_key(key)
    collect_seldom()
    with reading(data, database) as engine, stored_history(engine) as history:
        store = Store(engine)
        commands = number_of_commands(store)
        if until is not None:
            _require_block(store, until)
        run = _beginning(store, from_snapshot, resume)
        began = run.height + 1
        history.begin(with_history, began, until)
        difference = ""
        saved = time.monotonic()
        try:
            require_genesis_key(store, genesis_key)
            epochs = EpochRoots.read(engine, data)
            snapshots = _snapshots(engine)
            with progress("replaying", commands) as show:
                for header, outcomes in run.blocks(until):
                    history.take(header.height, outcomes)
                    if header.height in snapshots:
                        _compare_snapshot(run, header, snapshots[header.height])
                    last = outcomes[-1].events[-1] if outcomes[-1].events else None
                    if isinstance(last, EpochClosed):
                        epochs.compare(header, run.block_hash, last, run.state)
                        run.covered["epochs"] += 1
                    show(run.next_command - 1)
                    if resume is not None and time.monotonic() - saved > SAVE_SECONDS:
                        _save(run, resume)
                        saved = time.monotonic()
            run.covered["epochs"] -= epochs.waiting
            epochs.require_all(store, began, run.height, until is None)
            if run.covered["epochs"] and not epochs.with_secret:
                say("no epoch secret under --data: the epochs' sums were rebuilt and compared, their roots were not")
            difference = "; ".join(history.differences(run.height))
        except (Divergence, StoreError) as found:
            difference = str(found)
        if resume is not None and not difference:
            _save(run, resume)
    report = {
        "identical": not difference,
        "difference": difference or None,
        "fromBlock": began,
        "toBlock": run.height,
        "blockHash": run.block_hash.hex(),
        "covered": run.covered,
        "history": history.report(),
    }
    _print(report, time.monotonic() - started, as_json)
    return FINDINGS if difference else FINE


def number_of_commands(store: Store) -> int:
    """How many commands are logged, for the progress bar. Raises CannotRun when there is none to run again."""
    try:
        tip = store.tip()
    except StoreError:
        # The end of the log is not as it should be; where exactly is what the caller is about to find out.
        return 0
    if tip is None:
        raise CannotRun("the log is empty: no block is there yet", "start the exchange once: `satchel serve`")
    return tip.next_command - 1


def _require_block(store: Store, until: int) -> None:
    """`--to` names a block that is there: a shorter replay would read as if it had covered it."""
    try:
        tip = store.tip()
    except StoreError:
        # The end of the log is not as it should be; where exactly is what the replay is about to find out.
        return
    newest = -1 if tip is None else tip.header.height
    if not 0 <= until <= newest:
        raise CannotRun(f"no block {until} to replay to", f"the newest block is {newest}; leave --to out for all")


def require_genesis_key(store: Store, key: bytes | None) -> None:
    """The log begins with the key that the auditor trusts, where one is given. Raises Divergence.   [A-4]

    Every later key is signed for by the one before it, so that the first vouches for all.
    """
    if key is None:
        return
    first = store.block(0)
    if first is None or first[0].public_key != key:
        logged = "no block" if first is None else key_text(first[0].public_key)
        raise Divergence("public key of block", 0, logged, f"the trusted key {key_text(key)}")


def collect_seldom() -> None:
    """A replay makes millions of objects and hardly a cycle among them: look for cycles a hundred times less often."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _print(report: dict[str, Any], seconds: float, as_json: bool) -> None:
    covered = report["covered"]
    rate = covered["commands"] / seconds if seconds > 0 else 0
    say(f"{covered['commands']} commands in {seconds:.1f} s ({rate:,.0f}/s)")
    if as_json:
        print_json(report)
        return
    if report["identical"]:
        print(f"identical: blocks {report['fromBlock']} … {report['toBlock']}, head {report['blockHash']}")
    else:
        print(f"DIFFERENT: {report['difference']}")
    for name, count in covered.items():
        print(f"  {COVERAGE_WORDS[name]}: {count}")
    print(f"  {history_words(report['history'])}")


class Replay:
    """A log being replayed: the state so far, the chain so far, and how much was covered."""

    def __init__(self, store: Store, state: State | None = None) -> None:
        self.store = store
        self.state = state if state is not None else State()
        self.height = -1
        self.block_hash = bytes(32)
        self.journal_head = GENESIS_HASH
        self.log = merkle.TreeHead()
        self.next_command = 1
        self.next_journal = 1
        self.public_key = b""
        """Whose signature the next block must carry; the first block names its own."""
        self.covered = {
            "blocks": 0,
            "commands": 0,
            "journalTransactions": 0,
            "postings": 0,
            "snapshots": 0,
            "epochs": 0,
        }

    def blocks(
        self, until: int | None = None, before: Before | None = None
    ) -> Iterator[tuple[BlockHeader, list[Outcome]]]:
        """Replay block after block, to `until` or where the log ends now; raises Divergence at the first difference."""
        tip = self.store.tip()
        last = -1 if tip is None else tip.header.height
        if until is not None:
            last = min(last, until)
        if self.height >= last:
            return
        end = self.store.block(last)
        if end is None:
            raise Divergence("block", last, "nothing", "a block")
        header = end[0]
        last_command = header.first_command + header.command_count - 1
        last_journal = header.first_journal + header.journal_count - 1
        ranges = Ranges(self.next_command, last_command, self.next_journal, last_journal)
        with stored_rows(self.store, ranges) as stored:
            for header, digest, signature in self.store.blocks(self.height + 1, last):
                outcomes = self._block(header, list(islice(stored.commands, header.command_count)), stored, before)
                self._seal(header, digest, signature)
                yield header, outcomes

    def _block(
        self, header: BlockHeader, commands: list[HashedCommand], stored: StoredRows, before: Before | None
    ) -> list[Outcome]:
        """Apply a block's commands and compare each journal transaction with what its rows hash to."""
        if len(commands) != header.command_count:
            raise Divergence("command count of block", header.height, header.command_count, len(commands))
        outcomes: list[Outcome] = []
        hashes: list[bytes] = []
        postings = 0
        for logged, row_hash in commands:
            if before is not None:
                before(self.state, logged)
            if logged.hash != row_hash:
                _require("hash of command", logged.seq, logged.hash, row_hash)
            outcome = _applied(self.state, logged)
            for entry in outcome.journal:
                sealed = seal(self.journal_head, self.next_journal, logged.seq, logged.at_us, entry)
                if next(stored.journal, None) != sealed.hash:
                    raise _difference(next(self.store.journal(sealed.seq, sealed.seq), None), sealed, logged)
                hashes.append(sealed.hash)
                self.journal_head = sealed.hash
                self.next_journal += 1
                postings += len(sealed.postings)
                for batch in sealed.batches:
                    postings += len(batch.owners)
            outcomes.append(outcome)
        if len(hashes) != header.journal_count:
            raise self._surplus(header)
        command_hashes = [row_hash for _logged, row_hash in commands]
        _require("commands root of block", header.height, header.commands_root, merkle.root(command_hashes))
        _require("journal root of block", header.height, header.journal_root, merkle.root(hashes))
        _require("journal head of block", header.height, header.journal_head, self.journal_head)
        self.covered["commands"] += len(commands)
        self.covered["journalTransactions"] += len(hashes)
        self.covered["postings"] += postings
        return outcomes

    def _surplus(self, header: BlockHeader) -> Divergence:
        """The journal transaction that the block has and its commands do not make."""
        extra = next(self.store.journal(self.next_journal, self.next_journal), None)
        if extra is None:
            made = self.next_journal - header.first_journal
            return Divergence("journal count of block", header.height, header.journal_count, made)
        return Divergence(
            "journal transaction", extra.seq, f"kind {extra.kind} for command {extra.command_seq}", "nothing"
        )

    def _seal(self, header: BlockHeader, digest: bytes, signature: bytes) -> None:
        """The header is the one that these commands make, signed by the key of the time."""
        if header.height != self.height + 1:
            raise Divergence("block", self.height + 1, f"block {header.height}", f"block {self.height + 1}")
        if (header.first_command, header.first_journal) != (
            self.next_command,
            self.next_journal - header.journal_count,
        ):
            raise Divergence(
                "ranges of block",
                header.height,
                (header.first_command, header.first_journal),
                (self.next_command, self.next_journal - header.journal_count),
            )
        _require("previous hash of block", header.height, header.previous_hash, self.block_hash)
        _require("log root of block", header.height, header.log_root, self.log.root())
        _require("hash of block", header.height, digest, header_hash(header))
        if self.public_key:
            _require_key(header.height, header.public_key, self.public_key)
        try:
            Ed25519PublicKey.from_public_bytes(header.public_key).verify(signature, signed_bytes(header))
        except (InvalidSignature, ValueError):
            raise Divergence("signature of block", header.height, signature.hex(), "not by the block's key") from None
        # Genesis names the key that signs block 0; a rotation names the next block's.
        self.public_key = self.state.public_key
        if header.height == 0:
            _require_key(0, header.public_key, self.public_key)
        self.height, self.block_hash = header.height, digest
        self.next_command += header.command_count
        self.log.append(digest)
        self.covered["blocks"] += 1


def _applied(state: State, logged: LoggedCommand) -> Outcome:
    """Apply the command; a log that the engine cannot even follow differs from the one that it wrote."""
    try:
        command, outcome = replay_command(state, logged)
    except (msgspec.MsgspecError, AssertionError, OverflowError) as problem:
        reason = f"{type(problem).__name__}: {problem}"
        raise Divergence("command", logged.seq, f"a {logged.kind} that cannot be applied", reason) from problem
    if logged.kind != type(command).__name__:
        raise Divergence("kind of command", logged.seq, logged.kind, type(command).__name__)
    return outcome


def _require(what: str, which: int, logged: bytes, replayed: bytes) -> None:
    if logged != replayed:
        raise Divergence(what, which, logged.hex(), replayed.hex())


def _require_key(height: int, logged: bytes, replayed: bytes) -> None:
    if logged != replayed:
        raise Divergence("public key of block", height, key_text(logged), key_text(replayed))


def _difference(stored: SealedTransaction | None, replayed: SealedTransaction, logged: LoggedCommand) -> Divergence:
    """The first thing in which a stored journal transaction differs from the replayed one, in an auditor's words."""
    where = f"of journal transaction {replayed.seq} (command {logged.seq}, {logged.kind})"
    if stored is None:
        return Divergence(
            f"journal transaction for command {logged.seq}:", replayed.seq, "nothing", f"kind {replayed.kind}"
        )
    for line in range(max(len(stored.postings), len(replayed.postings))):
        left = tuple(stored.postings[line]) if line < len(stored.postings) else "nothing"
        right = tuple(replayed.postings[line]) if line < len(replayed.postings) else "nothing"
        if left != right:
            return Divergence(f"(account, asset, atoms) {where}, posting", line, left, right)
    for name in ("seq", "command_seq", "at_us", "kind", "memo", "hash"):
        left, right = getattr(stored, name), getattr(replayed, name)
        if left != right:
            shown = [value.hex() if isinstance(value, bytes) else value for value in (left, right)]
            return Divergence(f"{name} {where}, block of command", logged.seq, *shown)
    return Divergence(f"batches {where}, block of command", logged.seq, _shown(stored), _shown(replayed))


def _shown(entry: SealedTransaction) -> list[str]:
    return [f"{one.total} atoms of asset {one.asset} in {len(one.owners)} rows" for one in entry.batches]


# Snapshots: what they hold must be what replay gives; and a replay may start from one, or from its own progress.


class Progress(msgspec.Struct, frozen=True):
    """How far a replay came: everything `Replay` needs to go on."""

    height: int
    block_hash: bytes
    state_hash: bytes
    content: bytes
    covered: dict[str, int]


def _beginning(store: Store, from_snapshot: int | None, resume: Path | None) -> Replay:
    if resume is not None and resume.exists():
        return _resumed(store, resume)
    if from_snapshot is not None:
        kept = store.newest_snapshot(max_height=from_snapshot)
        if kept is None:
            raise CannotRun(
                f"there is no snapshot up to block {from_snapshot}", "leave --from-snapshot out: replay from genesis"
            )
        try:
            store.require_genuine(kept)
        except StoreError as problem:
            raise CannotRun(str(problem), "replay from genesis: leave --from-snapshot out") from None
        return _at(
            store, kept.height, kept.block_hash, kept.state_hash, kept.content, f"the snapshot of block {kept.height}"
        )
    return Replay(store)


def _resumed(store: Store, resume: Path) -> Replay:
    try:
        kept = msgspec.msgpack.decode(resume.read_bytes(), type=Progress)
    except msgspec.DecodeError as problem:
        raise CannotRun(f"{resume} holds no replay's progress: {problem}", "delete it to start from genesis") from None
    run = _at(store, kept.height, kept.block_hash, kept.state_hash, kept.content, str(resume))
    run.covered.update(kept.covered)
    return run


def _at(store: Store, height: int, block_hash: bytes, state_hash: bytes, content: bytes, what: str) -> Replay:
    """A replay that stands right after block `height` of this very log."""
    found = store.block(height)
    if found is None or found[1] != block_hash:
        raise CannotRun(f"{what} is of another log: block {height} differs", "replay from genesis: leave it out")
    if snapshot.digest(content) != state_hash:
        raise CannotRun(f"{what} was changed: its hash is not the recorded one", "replay from genesis: leave it out")
    header = found[0]
    run = Replay(store, snapshot.load(content))
    run.height, run.block_hash, run.journal_head = height, block_hash, header.journal_head
    run.next_command = header.first_command + header.command_count
    run.next_journal = header.first_journal + header.journal_count
    run.public_key = run.state.public_key
    for digest in store.block_hashes(0, height):
        run.log.append(digest)
    return run


def _save(run: Replay, resume: Path) -> None:
    content = snapshot.dump(run.state)
    kept = Progress(run.height, run.block_hash, snapshot.digest(content), content, run.covered)
    new = resume.with_name(resume.name + ".new")
    new.write_bytes(msgspec.msgpack.encode(kept))
    new.replace(resume)


def _snapshots(engine: sa.Engine) -> dict[int, tuple[bytes, bytes]]:
    """Height → (block hash, state hash) of every snapshot that is kept."""
    table = schema.snapshot
    with engine.connect() as connection:
        rows = connection.execute(sa.select(table.c.height, table.c.block_hash, table.c.state_hash, table.c.content))
        kept = {}
        for row in rows:
            if snapshot.digest(row.content) != row.state_hash:
                raise Divergence(
                    "content of the snapshot of block", row.height, snapshot.digest(row.content).hex(), "another"
                )
            kept[row.height] = (bytes(row.block_hash), bytes(row.state_hash))
        return kept


def _compare_snapshot(run: Replay, header: BlockHeader, kept: tuple[bytes, bytes]) -> None:
    block_hash, state_hash = kept
    _require("block hash of the snapshot of block", header.height, block_hash, run.block_hash)
    _require(
        "state hash of the snapshot of block", header.height, state_hash, snapshot.digest(snapshot.dump(run.state))
    )
    run.covered["snapshots"] += 1
