"""What the stored rows of the journal hash to: computed beside the replay, in a process of its own when that pays.

The engine and the reading of rows cost about the same, so on two cores a long replay takes half the time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import IO

from ledger.database import open_engine
from ledger.journal import GENESIS_HASH, SealedTransaction, batch_root, encode_transaction, exact_sum
from ledger.store import Store
from tools.node_process import own_environment

WORTH_A_PROCESS = 20_000
"""Journal transactions from which another process is worth its start."""

END = b"\xff" * 32
DAMAGED = bytes(32)
"""Stands for a transaction whose rows do not even agree with each other; no transaction has this hash."""


@contextmanager
def stored_hashes(store: Store, first: int, last: int) -> Iterator[Iterator[bytes]]:
    """The hash of each journal transaction `first` … `last`, recomputed from the columns of its rows.   [A-10]

    A transaction that is missing ends it; one whose own hash column says otherwise is DAMAGED.
    """
    if last - first < WORTH_A_PROCESS or (os.cpu_count() or 1) < 2:
        yield _row_hashes(store, first, last)
        return
    command = [sys.executable, "-m", "tools.stored_rows", str(first), str(last)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=own_environment())
    assert process.stdin is not None and process.stdout is not None
    # Not as an argument: a URL may hold a password, and everybody reads everybody's arguments.
    process.stdin.write(store.engine.url.render_as_string(hide_password=False).encode())
    process.stdin.close()
    try:
        yield _received(process.stdout)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def main() -> int:
    """The other process: takes the URL on stdin, gives hashes on stdout, after the last of them END."""
    first, last = int(sys.argv[1]), int(sys.argv[2])
    engine = open_engine(sys.stdin.read(), read_only=True)
    try:
        for digest in _row_hashes(Store(engine), first, last):
            sys.stdout.buffer.write(digest)
        sys.stdout.buffer.write(END)
        sys.stdout.buffer.flush()
    finally:
        engine.dispose()
    return 0


def _row_hashes(store: Store, first: int, last: int) -> Iterator[bytes]:
    previous = GENESIS_HASH if first == 1 else next(store.journal_hashes(first - 1, first - 1), DAMAGED)
    for number, entry in enumerate(store.journal(first, last), first):
        if entry.seq != number:
            return
        yield _row_hash(previous, entry)
        previous = entry.hash


def _row_hash(previous: bytes, entry: SealedTransaction) -> bytes:
    for batch in entry.batches:
        if (batch.total, batch.root) != (exact_sum(batch.atoms), batch_root(batch.owners, batch.atoms)):
            return DAMAGED
    encoding = encode_transaction(
        previous, entry.seq, entry.command_seq, entry.at_us, entry.kind, entry.memo, entry.postings, entry.batches
    )
    digest = sha256(b"\x00" + encoding).digest()
    return digest if digest == entry.hash else DAMAGED


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
