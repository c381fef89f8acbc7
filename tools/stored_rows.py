"""What the stored rows hash to: read beside the replay, in a process of its own when that pays.

Postings are encoded column by column: thousands become bytes in a few calls of numpy.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import chain, islice
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ledger.amounts import join_atoms
from ledger.blocks import LoggedCommand, SignedRequest, encode_command
from ledger.database import open_engine
from ledger.journal import ENCODED_POSTING, GENESIS_HASH, PostingBatch, batch_root, encode_with_postings, exact_sum
from ledger.store import CHUNK, JournalRow, Store
from tools.node_process import own_environment

WORTH_A_PROCESS = 10_000
"""Rows of each kind that are read here; another process, which starts meanwhile, reads what comes after them."""

DAMAGED = bytes(32)
"""Stands for rows that do not even agree with each other; nothing has this hash."""

_ASSETS = 1 << 32
_LOW = (1 << 64) - 1

HashedCommand = tuple[LoggedCommand, bytes]
"""A command and what the columns of its row hash to."""


class Ranges(msgspec.Struct, frozen=True, array_like=True):
    """Which rows: numbers from … to, both included."""

    first_command: int
    last_command: int
    first_journal: int
    last_journal: int


class StoredRows(NamedTuple):
    """Both in order, each to its last row or to where one is missing."""

    commands: Iterator[HashedCommand]
    journal: Iterator[bytes]
    """The hash of each journal transaction; one whose own hash column says otherwise is DAMAGED."""


class _Message(msgspec.Struct, array_like=True, gc=False):
    """What the other process sends: some of both, and whether more journal is to come."""

    commands: list[Any]
    """As arrays: the compiled core's tuples do not say of what type their fields are."""
    journal: bytes
    is_last_journal: bool


class _Request(msgspec.Struct, array_like=True):
    url: str
    ranges: Ranges


@contextmanager
def stored_rows(store: Store, ranges: Ranges) -> Iterator[StoredRows]:
    """The commands and the journal's hashes, recomputed from the columns of their rows.   [A-10]"""
    commands_here = min(ranges.last_command, ranges.first_command + WORTH_A_PROCESS - 1)
    journal_here = min(ranges.last_journal, ranges.first_journal + WORTH_A_PROCESS - 1)
    if commands_here == ranges.last_command or (os.cpu_count() or 1) < 2:
        hashes = chain.from_iterable(row_hashes(store, ranges.first_journal, ranges.last_journal))
        yield StoredRows(hashed_commands(store, ranges.first_command, ranges.last_command), hashes)
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.stored_rows"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=own_environment(),
    )
    assert process.stdin is not None and process.stdout is not None
    # Not as an argument: a URL may hold a password, and everybody reads everybody's arguments.
    url = store.engine.url.render_as_string(hide_password=False)
    beside = Ranges(commands_here + 1, ranges.last_command, journal_here + 1, ranges.last_journal)
    process.stdin.write(msgspec.msgpack.encode(_Request(url, beside)))
    process.stdin.close()
    received = _Received(process.stdout)
    try:
        commands = hashed_commands(store, ranges.first_command, commands_here)
        journal = _complete(
            chain.from_iterable(row_hashes(store, ranges.first_journal, journal_here)),
            journal_here - ranges.first_journal + 1,
            received.journal(),
        )
        yield StoredRows(chain(commands, received.commands()), journal)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _complete(here: Iterator[bytes], expected: int, beside: Iterator[bytes]) -> Iterator[bytes]:
    """Those read here, then those read beside; nothing after a transaction that is missing."""
    count = 0
    for digest in here:
        yield digest
        count += 1
    if count == expected:
        yield from beside


def main() -> int:
    """The other process: takes what to read on stdin, gives messages on stdout, each after its length."""
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Request)
    ranges = request.ranges
    engine = open_engine(request.url, read_only=True)
    try:
        store = Store(engine)
        commands = hashed_commands(store, ranges.first_command, ranges.last_command)
        journal = row_hashes(store, ranges.first_journal, ranges.last_journal)
        # Buffered, whatever the environment says of stdout: a message is written whole.
        with open(sys.stdout.fileno(), "wb", closefd=False) as out:
            while True:
                # About as many of one as of the other, so that the replay has to keep little until it needs it.
                some, hashes = list(islice(commands, CHUNK)), next(journal, None)
                message = msgspec.msgpack.encode(_Message(some, b"".join(hashes or ()), hashes is None))
                out.write(len(message).to_bytes(8) + message)
                out.flush()
                if hashes is None and not some:
                    return 0
    finally:
        engine.dispose()


def hashed_commands(store: Store, first: int, last: int) -> Iterator[HashedCommand]:
    """Commands `first` … `last` as far as they are there, with what their columns hash to."""
    for logged in store.commands(first, last):
        try:
            encoding = encode_command(logged.seq, logged.at_us, logged.outcome, logged.payload, logged.request)
        except struct.error:
            yield logged, DAMAGED
        else:
            yield logged, sha256(b"\x00" + encoding).digest()


def row_hashes(store: Store, first: int, last: int) -> Iterator[list[bytes]]:
    """The hashes of journal transactions `first` … `last`, some at a time, to the last before one that is missing."""
    previous = GENESIS_HASH if first == 1 else next(store.journal_hashes(first - 1, first - 1), DAMAGED)
    expected = first
    for rows, legs, batches in store.journal_columns(first, last):
        hashes: list[bytes] = []
        encoded, ends, good = _encoded(legs, [row[0] for row in rows])
        begin = 0
        for row, end, sound in zip(rows, ends, good, strict=True):
            if row[0] != expected:
                break
            own = batches.get(row[0], [])
            hashes.append(_row_hash(previous, row, encoded[begin:end], own) if sound else DAMAGED)
            previous, begin = row[8], end
            expected += 1
        yield hashes
        if len(hashes) < len(rows):
            return


def _encoded(legs: npt.NDArray[np.int64], seqs: list[int]) -> tuple[bytes, list[int], list[bool]]:
    """All postings in encoding v1; where those of each transaction end; whether that transaction's can be encoded.

    `legs` has the columns journal_seq, account, asset, atoms_high, atoms, in the order of journal_seq and line.
    """
    seq, account, asset, high, low = legs
    records = np.empty(len(seq), dtype=ENCODED_POSTING)
    records["account"], records["asset"] = account, asset
    records["high"], records["low"] = low >> 63, low
    for at in np.flatnonzero(high).tolist():
        atoms = join_atoms(int(high[at]), int(low[at]))
        records["high"][at], records["low"][at] = atoms >> 64, (atoms & _LOW) - ((atoms & 1 << 63) << 1)
    # A number that the encoding has no room for would be cut to another's bytes.
    unsound = set(seq[(asset < 0) | (asset >= _ASSETS) | (account < 0)].tolist())
    ends = np.searchsorted(seq, np.array(seqs), side="right") * ENCODED_POSTING.itemsize
    return records.tobytes(), ends.tolist(), [number not in unsound for number in seqs]


def _row_hash(previous: bytes, row: JournalRow, legs: bytes, batches: list[PostingBatch]) -> bytes:
    for batch in batches:
        if (batch.total, batch.root) != (exact_sum(batch.atoms), batch_root(batch.owners, batch.atoms)):
            return DAMAGED
    seq, command_seq, at_us, kind, memo = row[:5]
    try:
        encoding = encode_with_postings(previous, seq, command_seq, at_us, kind, memo, legs, batches)
    except struct.error:
        return DAMAGED
    digest = sha256(b"\x00" + encoding).digest()
    return digest if digest == row[8] else DAMAGED


class _Received:
    """What the other process sends, taken apart: each kind waits until it is asked for."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._decode = msgspec.msgpack.Decoder(_Message).decode
        self._commands: deque[list[Any]] = deque()
        self._journal: deque[bytes] = deque()
        self._is_last_journal = False

    def commands(self) -> Iterator[HashedCommand]:
        while True:
            while not self._commands:
                self._receive()
            some = self._commands.popleft()
            if not some:
                return
            for (seq, at_us, outcome, kind, payload, asked, digest), row_hash in some:
                request = None if asked is None else SignedRequest(*asked)
                yield LoggedCommand(seq, at_us, outcome, kind, payload, request, digest), row_hash

    def journal(self) -> Iterator[bytes]:
        while True:
            while not self._journal:
                if self._is_last_journal:
                    return
                self._receive()
            hashes = self._journal.popleft()
            for at in range(0, len(hashes), 32):
                yield hashes[at : at + 32]

    def _receive(self) -> None:
        message = self._decode(self._read(int.from_bytes(self._read(8))))
        if message.commands or message.is_last_journal:
            self._commands.append(message.commands)
        self._journal.append(message.journal)
        self._is_last_journal = message.is_last_journal

    def _read(self, size: int) -> bytes:
        read = self._source.read(size)
        if len(read) < size:
            raise OSError("the process that reads the log ended before its time")
        return read


if __name__ == "__main__":
    sys.exit(main())
