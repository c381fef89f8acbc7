"""The hashes of the journal's rows, read column by column, are those of the transactions put together.   [A-10]"""

from __future__ import annotations

import sqlite3
from itertools import chain
from pathlib import Path

import pytest

from ledger.store import Store
from tests.ledger.logs import HUGE, HUGE_AMOUNT, example_blocks, opened, stored
from tools.stored_rows import DAMAGED, row_hashes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with batches, a rotation, and amounts beyond 64 bits."""
    stored(f"sqlite:///{tmp_path / 'ledger.db'}", example_blocks()).dispose()
    return tmp_path / "ledger.db"


def test_columns_hash_to_what_was_sealed(path: Path) -> None:
    sealed = [entry for block in example_blocks() for entry in block.journal]
    assert any(batch for entry in sealed for batch in entry.batches)
    assert any(asset == HUGE and abs(atoms) >= HUGE_AMOUNT for entry in sealed for _, asset, atoms in entry.postings)

    assert hashes(path) == [entry.hash for entry in sealed]


def test_a_part_of_the_log_hashes_to_the_same(path: Path) -> None:
    assert hashes(path, first=3) == hashes(path)[2:]


@pytest.mark.parametrize(
    "change",
    [
        "asset = asset + 4294967296",  # 32 bits of it are the same.
        "asset = -asset",
        "account = -account",
        "account = account + 1",
        "atoms = atoms + 1",
        "atoms_high = atoms_high + 1",
        "journal_seq = journal_seq + 100",
    ],
)
def test_a_changed_posting_damages_its_transaction_and_no_other(path: Path, change: str) -> None:
    before = hashes(path)
    seq = alter(path, f"UPDATE posting SET {change} WHERE journal_seq = (SELECT min(journal_seq) FROM posting)")

    assert hashes(path) == [*before[: seq - 1], DAMAGED, *before[seq:]]


@pytest.mark.parametrize("column", ["seq", "command_seq", "at_us", "kind"])
def test_a_number_that_cannot_be_encoded_is_damage(path: Path, column: str) -> None:
    before = hashes(path)
    alter(path, f"UPDATE journal SET {column} = -5 WHERE seq = 3")

    # Without its number the transaction is not there at all.
    assert hashes(path) == (before[:2] if column == "seq" else [*before[:2], DAMAGED, *before[3:]])


def hashes(path: Path, first: int = 1) -> list[bytes]:
    engine = opened(f"sqlite:///{path}")
    try:
        return list(chain.from_iterable(row_hashes(Store(engine), first, 1_000)))
    finally:
        engine.dispose()


def alter(path: Path, statement: str) -> int:
    """Change rows behind the guards' back; the first transaction that has postings."""
    database = sqlite3.connect(path)
    for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {trigger}")
    (seq,) = database.execute("SELECT min(journal_seq) FROM posting").fetchone()
    database.execute(statement)
    database.commit()
    database.close()
    return int(seq)
