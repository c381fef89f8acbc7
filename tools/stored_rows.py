"""What the stored rows of the journal hash to: computed beside the replay, in a process of its own when that pays.

Postings are encoded column by column: thousands become bytes in a few calls of numpy.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import chain
from typing import IO

import numpy as np
import numpy.typing as npt

from ledger.amounts import join_atoms
from ledger.database import open_engine
from ledger.journal import ENCODED_POSTING, GENESIS_HASH, PostingBatch, batch_root, encode_with_postings, exact_sum
from ledger.store import JournalRow, Store
from tools.node_process import own_environment

WORTH_A_PROCESS = 10_000
"""Journal transactions that are read here; another process, which starts meanwhile, reads what comes after them."""

END = b"\xff" * 32
DAMAGED = bytes(32)
"""Stands for a transaction whose rows do not even agree with each other; no transaction has this hash."""

_ASSETS = 1 << 32
_LOW = (1 << 64) - 1


@contextmanager
def stored_hashes(store: Store, first: int, last: int) -> Iterator[Iterator[bytes]]:
    """The hash of each journal transaction `first` … `last`, recomputed from the columns of its rows.   [A-10]

    A transaction that is missing ends it; one whose own hash column says otherwise is DAMAGED.
    """
    here = min(last, first + WORTH_A_PROCESS - 1)
    if here == last or (os.cpu_count() or 1) < 2:
        yield chain.from_iterable(row_hashes(store, first, last))
        return
    command = [sys.executable, "-m", "tools.stored_rows", str(here + 1), str(last)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=own_environment())
    assert process.stdin is not None and process.stdout is not None
    # Not as an argument: a URL may hold a password, and everybody reads everybody's arguments.
    process.stdin.write(store.engine.url.render_as_string(hide_password=False).encode())
    process.stdin.close()
    try:
        begun = chain.from_iterable(row_hashes(store, first, here))
        yield _complete(begun, here - first + 1, _received(process.stdout))
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
    """The other process: takes the URL on stdin, gives hashes on stdout, after the last of them END."""
    first, last = int(sys.argv[1]), int(sys.argv[2])
    engine = open_engine(sys.stdin.read(), read_only=True)
    try:
        for hashes in row_hashes(Store(engine), first, last):
            sys.stdout.buffer.write(b"".join(hashes))
        sys.stdout.buffer.write(END)
        sys.stdout.buffer.flush()
    finally:
        engine.dispose()
    return 0


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


def _received(source: IO[bytes]) -> Iterator[bytes]:
    while True:
        digest = source.read(32)
        if digest == END:
            return
        if len(digest) < 32:
            raise OSError("the process that reads the journal ended before its time")
        yield digest


if __name__ == "__main__":
    sys.exit(main())
