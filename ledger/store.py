"""The log in SQL: appends one signed block per transaction and reads it back; one writer at a time.   [A-7, A-9]"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import chain
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from ledger import merkle, schema, writing
from ledger.amounts import join_atoms
from ledger.blocks import Block, BlockHeader, Chain, LoggedCommand, SignedRequest
from ledger.database import reading
from ledger.journal import JournalKind, Posting, PostingBatch, SealedTransaction, decode_memo
from ledger.signing import key_text, verify

CHUNK = 2_000
"""Rows read at a time, each in a transaction of its own, so that a long reader never holds back the log's writer."""

LEASE_PATIENCE_SECONDS = 10.0
"""How long to wait for a writer that is going away: PostgreSQL notices a killed client only when it reads from it."""

_ADVISORY_LOCK = 0x5A7C_4E1B
"""PostgreSQL advisory locks are per database, so any constant does."""


class StoreError(Exception):
    """The log could not be continued or read. What was not acknowledged may be lost, nothing half-written.   [A-9]"""


class WriterHeld(StoreError):
    """Another process is the one writer of this log, and alive."""


class Tip(NamedTuple):
    """Where the log ends: what the next block continues."""

    header: BlockHeader
    hash: bytes
    next_command: int
    next_journal: int
    log: merkle.TreeHead
    """The tree over all block hashes, the newest included."""
    next_public_key: bytes
    """Whose signature the next block must carry: another than the header's after a rotation.   [A-4]"""


class Snapshot(NamedTuple):
    """The engine's state after block `height`, as its own encoder wrote it, signed by the exchange.   [A-4, A-9]"""

    height: int
    block_hash: bytes
    state_hash: bytes
    content: bytes
    public_key: bytes
    """The exchange's key that was in force after the block: the one that signs the next block."""
    signature: bytes

    @classmethod
    def signed(
        cls, height: int, block_hash: bytes, content: bytes, public_key: bytes, sign: Callable[[bytes], bytes]
    ) -> Snapshot:
        """The state after this block under the exchange's signature."""
        state_hash = sha256(content).digest()
        signature = sign(snapshot_bytes(height, block_hash, state_hash))
        return cls(height, block_hash, state_hash, content, public_key, signature)


JournalRow = tuple[int, int, int, int, bytes, int, int, int, bytes]
"""A row of `journal`: seq, command_seq, at_us, kind, memo, posting_count, batch_count, block_height, hash."""


class JournalColumns(NamedTuple):
    """Some journal transactions as the database has them."""

    rows: list[JournalRow]
    legs: npt.NDArray[np.int64]
    """Of all their postings journal_seq, account, asset, atoms_high and atoms, one array each, by journal_seq, line."""
    batches: dict[int, list[PostingBatch]]


SNAPSHOT_DOMAIN = b"satchel snapshot v1\n"


def snapshot_bytes(height: int, block_hash: bytes, state_hash: bytes) -> bytes:
    """What the exchange signs of a snapshot: domain tag, u64 height, 32 B block hash, 32 B SHA-256 of the content."""
    return SNAPSHOT_DOMAIN + height.to_bytes(8) + block_hash + state_hash


class Store:
    """The log on one database. Reading needs nothing; the first `append` takes the writer's lease."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._connection: sa.Connection | None = None
        self._lock_file: IO[bytes] | None = None
        self._epoch = 0
        self._log = merkle.TreeHead()
        self._failure: str | None = None

    # Writing.

    def append(self, block: Block, attachments: Sequence[Callable[[sa.Connection], None]] = ()) -> None:
        """Make one block durable: its rows and the attachments' in one SQL transaction, or nothing.   [A-7]

        Raises StoreError; then this Store takes no further block, because memory is ahead of the log: reload and
        continue with a new one. After a connection lost during the commit, only reading tells whether it happened.
        """
        if self._failure is not None:
            raise StoreError(f"block {block.header.height} refused: {self._failure}")
        try:
            connection = self.acquire()
            with connection.begin():
                self._move_tip(connection, block)
                self._write(connection, block)
                for attachment in attachments:
                    attachment(connection)
        except BaseException as error:
            self._failure = f"block {block.header.height} was not stored: {_first_line(error)}"
            if isinstance(error, Exception):
                raise StoreError(self._failure) from error
            raise
        self._log.append(block.hash)

    def acquire(self) -> sa.Connection:
        """Become the one writer of this database, or raise WriterHeld. Idempotent; `close` gives it up.

        A lock keeps a second writer out while this one lives; the epoch, raised here and checked in each block's own
        transaction, stops a writer that lost the lock without noticing.
        """
        if self._connection is not None:
            return self._connection
        self._lock_file = self._lock_sqlite_file()
        try:
            connection = self.engine.connect()
        except BaseException:
            self._unlock_file()
            raise
        try:
            if self.engine.dialect.name == "sqlite":
                # A checkpoint syncs the database file; let the log grow to 64 MB first, a random index page is
                # then written once for many blocks.
                writing.raw(connection).execute("PRAGMA wal_autocheckpoint=16384")
                writing.raw(connection).execute("PRAGMA cache_size=-131072")
            else:
                _wait_for_advisory_lock(connection)
                _require_durable_commits(connection)
            with connection.begin():
                connection.execute(sa.update(schema.tip).values(epoch=schema.tip.c.epoch + 1))
                self._epoch = connection.execute(sa.select(schema.tip.c.epoch)).scalar_one()
                tip = _read_tip(connection)
        except BaseException:
            connection.invalidate()
            connection.close()
            self._unlock_file()
            raise
        self._log = tip.log if tip is not None else merkle.TreeHead()
        self._connection = connection
        return connection

    def close(self) -> None:
        """Give up the lease. A Store that failed or was closed may still read."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Really close it: the session holds PostgreSQL's advisory lock.
            if not connection.invalidated:
                connection.detach()
            connection.close()
        self._unlock_file()

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep the engine's state after a block; replaces one of the same height.   [A-9]"""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(schema.snapshot).where(schema.snapshot.c.height == snapshot.height))
            connection.execute(sa.insert(schema.snapshot), [snapshot._asdict()])

    # Reading.

    def tip(self) -> Tip | None:
        """The end of the log, None before genesis."""
        with reading(self.engine) as connection:
            return _read_tip(connection)

    def load_chain(self, public_key: bytes, sign: Callable[[bytes], bytes]) -> Chain:
        """The chain ready to continue the log with this key; StoreError when the log expects another key."""
        chain = Chain(public_key, sign)
        tip = self.tip()
        if tip is None:
            return chain
        if tip.next_public_key != public_key:
            raise StoreError(
                f"block {tip.header.height + 1} must be signed by {key_text(tip.next_public_key)}, "
                f"not {key_text(public_key)}"
            )
        chain.height = tip.header.height
        chain.block_hash = tip.hash
        chain.next_command = tip.next_command
        chain.next_journal = tip.next_journal
        chain.journal_head = tip.header.journal_head
        chain.log = tip.log
        return chain

    def commands(self, first: int = 1, last: int | None = None) -> Iterator[LoggedCommand]:
        """Logged commands `first` … `last` (or the newest) in order."""
        for rows in self._chunks(schema.command, first, last):
            yield from map(_command, rows)

    def journal(self, first: int = 1, last: int | None = None) -> Iterator[SealedTransaction]:
        """Journal transactions `first` … `last` (or the newest) in order, with postings and batches."""
        for rows in self._chunks(schema.journal, first, last):
            yield from self._with_postings(rows)

    def journal_columns(self, first: int, last: int) -> Iterator[JournalColumns]:
        """The same rows a chunk at a time and not put together, for whoever has to look at every one of many."""
        for rows in self._chunks(schema.journal, first, last):
            low, high = rows[0][0], rows[-1][0]
            with reading(self.engine) as connection:
                postings = driver_rows(connection, _POSTINGS, low, high)
            numbers = np.fromiter(chain.from_iterable(postings), dtype=np.int64, count=5 * len(postings))
            batches = _batches(self.engine, low, high) if any(row[6] for row in rows) else {}
            yield JournalColumns(rows, numbers.reshape(-1, 5).T, batches)

    def journal_hashes(self, first: int = 1, last: int | None = None) -> Iterator[bytes]:
        """Only their hashes, for a replay that makes the transactions anew."""
        table = schema.journal
        for rows in self._chunks(table, first, last, columns=(table.c.seq, table.c.hash)):
            for row in rows:
                yield row[1]

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[BlockHeader, bytes, bytes]]:
        """(header, hash, signature) of blocks `first` … `last` (or the newest) in order."""
        for rows in self._chunks(schema.block, first, last):
            yield from map(_block, rows)

    def block(self, height: int) -> tuple[BlockHeader, bytes, bytes] | None:
        """(header, hash, signature) of one block."""
        return next(self.blocks(height, height), None)

    def whole_block(self, height: int) -> Block | None:
        """A block with all its commands and journal transactions."""
        found = self.block(height)
        if found is None:
            return None
        header, digest, signature = found
        commands = list(self.commands(header.first_command, header.first_command + header.command_count - 1))
        journal = list(self.journal(header.first_journal, header.first_journal + header.journal_count - 1))
        return Block(header, digest, signature, commands, journal)

    def block_containing_journal(self, seq: int) -> tuple[BlockHeader, bytes, bytes] | None:
        """The block that commits to journal transaction `seq`."""
        table = schema.journal
        with reading(self.engine) as connection:
            height = connection.execute(sa.select(table.c.block_height).where(table.c.seq == seq)).scalar_one_or_none()
        return None if height is None else self.block(height)

    def newest_snapshot(self, max_height: int | None = None) -> Snapshot | None:
        """The newest snapshot, or the newest up to a height. `require_genuine` says whether it may be used.   [A-9]"""
        table = schema.snapshot
        query = sa.select(table).order_by(table.c.height.desc()).limit(1)
        if max_height is not None:
            query = query.where(table.c.height <= max_height)
        with reading(self.engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Snapshot(row[0], *map(bytes, row[1:]))

    def require_genuine(self, snapshot: Snapshot) -> None:
        """The snapshot is of a block of this log, unchanged, and signed with the key in force after that block.

        Raises StoreError: a state that nobody signed for is no state to go on from.   [A-4, A-9]
        """
        height = snapshot.height
        what = f"the snapshot of block {height}"
        found = self.block(height)
        if found is None or found[1] != snapshot.block_hash:
            raise StoreError(f"{what} is of another log: delete it, or run `satchel replay`")
        actual = sha256(snapshot.content).digest()
        if actual != snapshot.state_hash:
            raise StoreError(f"{what} has hash {actual.hex()}, {snapshot.state_hash.hex()} was recorded")
        key = self._key_after(found[0])
        if snapshot.public_key != key:
            raise StoreError(f"{what} is signed by key {key_text(snapshot.public_key)}, {key_text(key)} was in force")
        if not verify(key, snapshot.signature, snapshot_bytes(height, snapshot.block_hash, snapshot.state_hash)):
            raise StoreError(f"{what} is forged: it bears no signature of the exchange's key {key_text(key)}")

    def _key_after(self, header: BlockHeader) -> bytes:
        """Whose signature the block after this one must carry."""
        first, end = header.first_journal, header.first_journal + header.journal_count
        with reading(self.engine) as connection:
            return _next_public_key(connection, header, first, end)

    def block_hashes(self, first: int = 0, last: int | None = None) -> list[bytes]:
        """Hashes of blocks `first` … `last`: the leaves of the block log."""
        table = schema.block
        chunks = self._chunks(table, first, last, columns=(table.c.height, table.c.hash))
        return [row[1] for rows in chunks for row in rows]

    # How.

    def _move_tip(self, connection: sa.Connection, block: Block) -> None:
        assert self._log.root() == block.header.log_root, f"block {block.header.height} is built on another log"
        tip = schema.tip
        moved = connection.execute(
            sa.update(tip)
            .where(tip.c.epoch == self._epoch, tip.c.height == block.header.height - 1)
            .values(log_peaks=b"".join(self._log.dump()[1]))
        )
        if moved.rowcount != 1:
            epoch, height = connection.execute(sa.select(tip.c.epoch, tip.c.height)).one()
            raise StoreError(
                f"another writer continued the log: epoch {epoch} at block {height}, "
                f"this one has epoch {self._epoch} and brings block {block.header.height}"
            )

    def _write(self, connection: sa.Connection, block: Block) -> None:
        if self.engine.dialect.name == "sqlite":
            writing.insert_sqlite(connection, block)
        else:
            writing.copy_postgresql(connection, block)

    def _chunks(
        self, table: sa.Table, first: int, last: int | None, columns: Sequence[sa.ColumnElement[Any]] | None = None
    ) -> Iterator[list[Any]]:
        key = next(iter(table.primary_key.columns))
        query = sa.select(*(columns or table.c)).where(key.between(sa.bindparam("low"), sa.bindparam("high")))
        query = query.order_by(key)
        low = first
        with reading(self.engine) as connection:
            newest = connection.execute(sa.select(sa.func.max(key))).scalar_one()
        end = newest if last is None else min(last, newest) if newest is not None else None
        while end is not None and low <= end:
            high = min(low + CHUNK - 1, end)
            with reading(self.engine) as connection:
                rows = driver_rows(connection, query, low, high)
            # Somebody may have moved rows far away: a chunk can be empty, and the numbers tell whoever compares them.
            if rows:
                yield rows
            low = high + 1

    def _with_postings(self, rows: list[JournalRow]) -> Iterator[SealedTransaction]:
        first, last = rows[0][0], rows[-1][0]
        postings = _postings(self.engine, first, last)
        batches = _batches(self.engine, first, last) if any(row[6] for row in rows) else {}
        for seq, command_seq, at_us, kind, memo, _postings_in_all, _batches_in_all, _height, digest in rows:
            legs = postings.get(seq, [])
            yield SealedTransaction(seq, command_seq, at_us, kind, memo, legs, tuple(batches.get(seq, ())), digest)

    def _lock_sqlite_file(self) -> IO[bytes] | None:
        path = self.engine.url.database
        if self.engine.dialect.name != "sqlite" or not path or path == ":memory:":
            return None
        file = open(f"{path}.lock", "ab")
        deadline = time.monotonic() + LEASE_PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except OSError:
                if time.monotonic() > deadline:
                    file.close()
                    raise WriterHeld(f"another process is writing {path} (it holds {path}.lock)") from None
                time.sleep(0.05)

    def _unlock_file(self) -> None:
        file, self._lock_file = self._lock_file, None
        if file is not None:
            file.close()


def driver_rows(connection: sa.Connection, query: sa.Select[Any], low: int, high: int) -> list[tuple[Any, ...]]:
    """The rows of a query over `low` … `high` as the driver makes them: a third of the time of SQLAlchemy's own rows.

    Numbers are int and bytes are bytes with both drivers, so there is nothing for SQLAlchemy to convert.
    """
    compiled = query.compile(dialect=connection.dialect)
    named = {"low": low, "high": high}
    parameters: Any = named if compiled.positiontup is None else tuple(named[name] for name in compiled.positiontup)
    return list(connection.exec_driver_sql(str(compiled), parameters).cursor.fetchall())


def _wait_for_advisory_lock(connection: sa.Connection) -> None:
    deadline = time.monotonic() + LEASE_PATIENCE_SECONDS
    while True:
        with connection.begin():
            if connection.execute(sa.select(sa.func.pg_try_advisory_lock(_ADVISORY_LOCK))).scalar_one():
                return
        if time.monotonic() > deadline:
            raise WriterHeld("another process is writing this database (it holds the advisory lock)")
        time.sleep(0.05)


def _require_durable_commits(connection: sa.Connection) -> None:
    """A server may be set to acknowledge before the disk has it; this session is not to.   [A-7]"""
    with connection.begin():
        if connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "off":
            connection.exec_driver_sql("SET SESSION synchronous_commit TO on")


def _read_tip(connection: sa.Connection) -> Tip | None:
    at = connection.execute(sa.select(schema.tip)).one()
    if at.height < 0:
        return None
    row = connection.execute(sa.select(schema.block).where(schema.block.c.height == at.height)).one_or_none()
    if row is None:
        raise StoreError(f"the log ends at block {at.height}, which is not there")
    header, digest, _signature = _block(row)
    peaks = bytes(at.log_peaks)
    log = merkle.TreeHead.load(at.height, [peaks[i : i + 32] for i in range(0, len(peaks), 32)])
    if log.root() != header.log_root or digest != at.block_hash:
        raise StoreError(f"the kept tip does not fit block {at.height}: run verify-journal")
    log.append(digest)
    key = _next_public_key(connection, header, header.first_journal, at.next_journal)
    return Tip(header, digest, at.next_command, at.next_journal, log, key)


def _next_public_key(connection: sa.Connection, header: BlockHeader, first: int, end: int) -> bytes:
    """The key that journal transactions `first` … `end` - 1 rotate to, else the block's own."""
    table = schema.journal
    memo = connection.execute(
        sa.select(table.c.memo)
        .where(table.c.seq >= first, table.c.seq < end, table.c.kind == JournalKind.KEY_ROTATED)
        .order_by(table.c.seq.desc())
        .limit(1)
    ).scalar_one_or_none()
    return header.public_key if memo is None else bytes(decode_memo(memo)[0])


def _command(row: Any) -> LoggedCommand:
    (seq, at_us, outcome, kind, payload, api_key, signature, text, timestamp, window, received, _height, digest) = row
    request = None
    if api_key is not None:
        request = SignedRequest(api_key, signature, text, timestamp, window, received)
    return LoggedCommand(seq, at_us, outcome, kind, payload, request, digest)


def _block(row: Any) -> tuple[BlockHeader, bytes, bytes]:
    return BlockHeader(*row[:12]), row[12], row[13]


_LEG = schema.posting.c
_POSTINGS = (
    sa.select(_LEG.journal_seq, _LEG.account, _LEG.asset, _LEG.atoms_high, _LEG.atoms)
    .where(_LEG.journal_seq.between(sa.bindparam("low"), sa.bindparam("high")))
    .order_by(_LEG.journal_seq, _LEG.line)
)


def _postings(engine: sa.Engine, first: int, last: int) -> dict[int, list[Posting]]:
    grouped: dict[int, list[Posting]] = {}
    with reading(engine) as connection:
        for seq, account, asset, high, atoms in driver_rows(connection, _POSTINGS, first, last):
            leg = (account, asset, join_atoms(high, atoms) if high else atoms)
            grouped.setdefault(seq, []).append(leg)
    return grouped


def _batches(engine: sa.Engine, first: int, last: int) -> dict[int, list[PostingBatch]]:
    table = schema.posting_batch
    query = sa.select(table).where(table.c.journal_seq.between(first, last))
    grouped: dict[int, list[PostingBatch]] = {}
    with reading(engine) as connection:
        for row in connection.execute(query.order_by(table.c.journal_seq, table.c.line)):
            grouped.setdefault(row.journal_seq, []).append(batch_of(row))
    return grouped


def batch_of(row: Any) -> PostingBatch:
    """A `posting_batch` row as the batch it stores."""
    owners = np.frombuffer(row.owners, dtype=">i8").astype(np.int64)
    atoms = np.frombuffer(row.atoms, dtype=">i8").astype(np.int64)
    total = join_atoms(row.total_high, row.total)
    return PostingBatch(row.account_kind, row.asset, owners, atoms, total, bytes(row.root))


def _first_line(error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
