"""Checkpoints are signed notes that anybody can keep: parsed strictly, written whole, consistent.   [A-8b]"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import merkle
from ledger.checkpoints import (
    CheckpointError,
    CheckpointFile,
    parse_checkpoint,
    read_checkpoint,
    sign_checkpoint,
    verify_block_inclusion,
    verify_extension,
)
from tests.ledger.logs import NEW_KEY, OLD_KEY

ORIGIN = "satchel.example/blocks"
KEYS = [OLD_KEY.public_key, NEW_KEY.public_key]
LEAVES = [sha256(bytes([n])).digest() for n in range(40)]


def test_a_note_looks_as_the_standard_says() -> None:
    checkpoint = sign_checkpoint(ORIGIN, 7, bytes(32), OLD_KEY)

    lines = checkpoint.note.split("\n")
    assert lines[:4] == [ORIGIN, "7", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ""]
    assert lines[4].startswith(f"— {ORIGIN} ")
    assert lines[5:] == [""]
    assert parse_checkpoint(checkpoint.note, KEYS) == checkpoint


def test_signatures_of_witnesses_are_left_alone() -> None:
    checkpoint = sign_checkpoint(ORIGIN, 7, bytes(32), OLD_KEY)
    witnessed = checkpoint.note + "— witness.example AAAAAAAA\n"

    assert parse_checkpoint(witnessed, KEYS)[:3] == checkpoint[:3]


@given(st.integers(0, 250), st.integers(1, 255))
def test_no_changed_note_parses_as_something_else(at: int, change: int) -> None:
    checkpoint = sign_checkpoint(ORIGIN, 7, bytes(range(32)), OLD_KEY)
    note = bytearray(checkpoint.note.encode())
    note[at % len(note)] ^= change

    try:
        parsed = parse_checkpoint(note.decode("utf-8", "replace"), KEYS)
    except CheckpointError:
        return
    assert parsed[:3] == checkpoint[:3]


@pytest.mark.parametrize("note", ["", "\n\n", "a\nb\nc\n\n", f"{ORIGIN}\n07\n{'A' * 43}=\n\n— {ORIGIN} AAAA\n"])
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(CheckpointError):
        parse_checkpoint(note, KEYS)


def test_an_origin_without_blanks() -> None:
    with pytest.raises(CheckpointError, match="blanks"):
        sign_checkpoint("my exchange", 1, bytes(32), OLD_KEY)


@pytest.mark.parametrize(("old", "new"), [(1, 1), (1, 2), (3, 8), (7, 40), (32, 33), (0, 5)])
def test_a_longer_log_extends_a_shorter_one(old: int, new: int) -> None:
    before = sign_checkpoint(ORIGIN, old, merkle.root(LEAVES[:old]), OLD_KEY)
    after = sign_checkpoint(ORIGIN, new, merkle.root(LEAVES[:new]), NEW_KEY)
    proof = merkle.consistency_proof(LEAVES[:new], old) if old else []

    assert verify_extension(before, after, proof)
    if old:
        rewritten = sign_checkpoint(ORIGIN, old, sha256(b"other").digest(), OLD_KEY)
        assert not verify_extension(rewritten, after, proof)


def test_a_block_is_in_the_checkpoint() -> None:
    checkpoint = sign_checkpoint(ORIGIN, 40, merkle.root(LEAVES), OLD_KEY)
    path = merkle.inclusion_proof(LEAVES, 17)

    assert verify_block_inclusion(checkpoint, LEAVES[17], 17, path)
    assert not verify_block_inclusion(checkpoint, LEAVES[18], 17, path)


def test_the_file_is_replaced_as_a_whole_and_not_too_often(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    log = merkle.TreeHead()
    file = CheckpointFile(path, ORIGIN, OLD_KEY, seconds=60)

    for leaf in LEAVES:
        log.append(leaf)
        file.update(log.size, log.root())
    assert read_checkpoint(path, KEYS).size == 1
    file.update(log.size, log.root(), now=True)

    assert read_checkpoint(path, KEYS)[:3] == (ORIGIN, 40, merkle.root(LEAVES))
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        read_checkpoint(tmp_path / "nowhere", KEYS)
