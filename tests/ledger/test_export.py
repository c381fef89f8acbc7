"""The exported log is the log: it reads back whole, verifies without SQL, and no changed byte passes.   [A-4, A-10]"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ledger import merkle
from ledger.checkpoints import sign_checkpoint, write_checkpoint
from ledger.export import ExportError, export_log, read_export, verify_export
from ledger.store import Store
from tests.ledger.logs import NEW_KEY, OLD_KEY, LogBuilder, deposit, example_blocks, opened, stored


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_log(Store(stored(f"sqlite:///{folder / 'ledger.db'}", example_blocks())), folder / "log.satchel")
    return folder / "log.satchel"


def test_an_export_reads_back_as_the_log(database_url: str, tmp_path: Path) -> None:
    blocks = example_blocks()
    path = tmp_path / "log.satchel"

    assert export_log(Store(stored(database_url, blocks)), path) == 6

    assert list(read_export(path)) == blocks
    report = verify_export(path, public_key=OLD_KEY.public_key)
    assert report.findings == []
    assert report.covered["journal transactions"] == 13
    assert report.covered["postings"] == 22


def test_an_empty_log_exports_too(sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "log.satchel"
    export_log(Store(opened(sqlite_url)), path)

    assert list(read_export(path)) == []
    assert verify_export(path).is_clean


def test_no_changed_byte_passes(exported: Path, tmp_path: Path) -> None:
    content = exported.read_bytes()
    start = content.index(b"\n") + 1
    chance = random.Random(1)
    wrong = tmp_path / "wrong"
    for at in sorted(chance.sample(range(start, len(content)), 300)):
        changed = bytearray(content)
        changed[at] ^= 1 << chance.randrange(8)
        wrong.write_bytes(changed)

        assert verify_export(wrong).findings, f"byte {at} of {len(content)}"


def test_a_torn_or_lengthened_file_is_noticed(exported: Path, tmp_path: Path) -> None:
    content = exported.read_bytes()
    wrong = tmp_path / "wrong"
    for changed in (content[:-1], content[:-13], content[:-200], content + b"x", content[:20], b""):
        wrong.write_bytes(changed)

        assert verify_export(wrong).findings
        with pytest.raises(ExportError):
            list(read_export(wrong))


def test_a_shorter_export_is_found_against_a_checkpoint(tmp_path: Path) -> None:
    blocks = example_blocks()
    path, kept = tmp_path / "log.satchel", tmp_path / "checkpoint"
    export_log(Store(stored(f"sqlite:///{tmp_path / 'ledger.db'}", blocks[:4])), path)
    write_checkpoint(kept, sign_checkpoint("x/blocks", 6, merkle.root([b.hash for b in blocks]), NEW_KEY))

    assert verify_export(path).is_clean
    assert "the tail is cut" in str(verify_export(path, kept).findings[-1])


def test_an_unbalanced_transaction_is_found_though_signed(tmp_path: Path) -> None:
    """The exchange itself could sign nonsense: SQL would refuse it, a file does not."""
    from ledger.export import _frame, _write_block

    log = LogBuilder()
    entry = deposit(1, 1, 5)
    entry.postings[0] = (entry.postings[0][0], 1, 6)
    log.add("credit_deposit", entry)
    path = tmp_path / "log.satchel"
    with open(path, "wb") as file:
        file.write(b'{"format": "satchel log v1"}\n')
        _write_block(file, log.commit(), bytes(32))
        _frame(file, b"E", (1).to_bytes(8, "big"))

    (finding,) = verify_export(path, public_key=OLD_KEY.public_key).findings

    assert str(finding) == "journal seq 1: is out of balance by 1 atoms of asset 1"
