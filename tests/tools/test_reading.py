"""The commands that read a log: what they print, on originals, copies and read-only folders, and how they exit."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tools.conftest import Satchel
from tests.tools.sample import EXCHANGE

TRADE = 24
"""The journal's number of the sample's first trade."""


def test_trial_balance_prints_exactly_the_promised_document(kept_log: Path, satchel: Satchel) -> None:
    """A-1, A-12: debits equal credits per asset; decimal strings."""
    ran = satchel("trial-balance", "--data", kept_log, "--json")
    document = ran.json()

    assert ran.code == 0
    assert "not verified" in ran.err and "satchel verify-journal" in ran.err
    assert list(document) == ["asOf", "rows", "totals"]
    assert all(list(row) == ["account", "type", "asset", "debit", "credit"] for row in document["rows"])
    assert document["totals"] == {
        "USDC": {"debit": "10000", "credit": "10000"},
        "SOL": {"debit": "500", "credit": "500"},
    }
    held = {"account": "subaccount/1/withdrawing", "type": "liability", "asset": "USDC", "debit": "0", "credit": "25"}
    assert held in document["rows"]


def test_trial_balance_as_of_an_earlier_block(kept_log: Path, satchel: Satchel) -> None:
    """A-12."""
    document = satchel("trial-balance", "--data", kept_log, "--as-of", 4, "--json").json()

    assert document["asOf"] == 4
    assert document["totals"] == {"USDC": {"debit": "10000", "credit": "10000"}}


def test_statement_runs_from_opening_to_closing(kept_log: Path, satchel: Satchel) -> None:
    """A-12: the lines lead from what was there to what is there."""
    document = satchel("statement", 1, "--data", kept_log, "--from", 9, "--json").json()

    assert document["opening"] == [{"account": "held", "asset": "USDC", "balance": "10000"}]
    assert [line["kind"] for line in document["lines"]] == ["trade"] * 4 + ["withdrawal_requested"] * 2
    assert {"account": "withdrawing", "asset": "USDC", "balance": "25"} in document["closing"]


def test_statement_by_time_leaves_out_what_came_later(kept_log: Path, satchel: Satchel) -> None:
    until = "2023-11-14T22:13:20.010000"
    document = satchel("statement", 1, "--data", kept_log, "--to", until, "--json").json()

    assert [line["kind"] for line in document["lines"]] == ["deposit"]


def test_a_receipt_verifies_offline_and_a_changed_one_does_not(
    kept_log: Path, satchel: Satchel, tmp_path: Path
) -> None:
    """A-4."""
    file = tmp_path / "receipt.json"
    assert satchel("receipt", TRADE, "--data", kept_log, "--out", file).code == 0
    key = b64encode(EXCHANGE.public_key).decode()
    good = satchel("receipt", "--verify", file, "--public-key", key, "--json")
    alone = satchel("receipt", "--verify", file)
    beside = satchel("receipt", "--verify", file, "--data", kept_log)
    text = file.read_text()
    file.write_text(text.replace('"index": 0', '"index": 1'))
    bad = satchel("receipt", "--verify", file, "--public-key", key, "--json")

    assert good.code == 0
    assert good.json()["kind"] == "trade"
    assert {one["atoms"] for one in good.json()["postings"]} >= {"200000000", "-160000"}
    assert "200000000 atoms of asset" in alone.out and "--data" in alone.err
    assert "  200 USDC\n" in beside.out and "  0.16 USDC\n" in beside.out and "atoms" not in beside.out
    assert '"index": 0' in text
    assert bad.code == 1
    assert bad.json()["valid"] is False


def test_verify_journal_finds_a_changed_byte_and_names_the_row(log: Path, satchel: Satchel) -> None:
    """A-8: the triggers are no defence against who owns the file; the hashes are."""
    tampered = sqlite3.connect(log / "ledger.db")
    tampered.execute("DROP TRIGGER posting_refuse_update")
    tampered.execute("UPDATE posting SET atoms = atoms + 1 WHERE journal_seq = 24 AND line = 0")
    tampered.commit()
    tampered.close()
    ran = satchel("verify-journal", "--data", log, "--json")

    assert ran.code == 1
    assert any(one["row"].startswith(("seq 24", "journal 24")) for one in ran.json()["findings"])


def test_verify_journal_finds_a_cut_tail_against_the_kept_checkpoint(
    kept_log: Path, log: Path, satchel: Satchel, tmp_path: Path
) -> None:
    """A-8b: a shorter chain is a valid chain, but not the one that was signed for."""
    tampered = sqlite3.connect(log / "ledger.db")
    for table in ("block", "command", "journal", "posting"):
        tampered.execute(f"DROP TRIGGER {table}_refuse_delete")
    tampered.execute("DROP TRIGGER tip_guard")
    (first_command, first_journal) = tampered.execute(
        "SELECT first_command, first_journal FROM block WHERE height = 12"
    ).fetchone()
    tampered.execute("DELETE FROM block WHERE height = 12")
    tampered.execute("DELETE FROM command WHERE seq >= ?", (first_command,))
    tampered.execute("DELETE FROM journal WHERE seq >= ?", (first_journal,))
    tampered.execute("DELETE FROM posting WHERE journal_seq >= ?", (first_journal,))
    tampered.commit()
    tampered.close()
    (log / "checkpoint.txt").unlink()
    ran = satchel("verify-journal", "--data", log, "--checkpoint", kept_log / "checkpoint.txt", "--json")

    assert ran.code == 1
    assert any("tail is cut" in one["reason"] for one in ran.json()["findings"])


@pytest.mark.parametrize("command", ["replay", "verify-journal", "audit", "trial-balance"])
def test_a_read_only_copy_with_its_tail_in_the_wal_reads_the_same(
    kept_log: Path, satchel: Satchel, tmp_path: Path, command: str
) -> None:
    """W-9: a stopped node's folder can be copied and read elsewhere, on a read-only file system too."""
    copy = _unclean_copy(kept_log, tmp_path)
    expected = satchel(command, "--data", kept_log, "--json").json()
    with _read_only(copy):
        ran = satchel(command, "--data", copy, "--json")

    assert ran.code == 0, ran.err
    document = ran.json()
    if command == "verify-journal":
        for one in (document, expected):
            del one["covered"]["checkpointFile"]
    assert document == expected


def test_a_read_only_folder_without_a_wal_is_read_as_it_is(log: Path, satchel: Satchel) -> None:
    with _read_only(log):
        ran = satchel("trial-balance", "--data", log)

    assert ran.code == 0, ran.err


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Nobody can write to the folder: root neither, for it is mounted read-only where that is allowed."""
    mounted = os.geteuid() == 0
    if mounted:
        bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, text=True)
        if bound.returncode != 0:
            pytest.skip(f"root writes everywhere, and mounting is not allowed here: {bound.stderr.strip()}")
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)
        else:
            folder.chmod(0o755)


def _unclean_copy(data: Path, tmp_path: Path) -> Path:
    """A folder as a killed node leaves it: the newest rows are only in the -wal file."""
    copy = tmp_path / "unclean"
    copy.mkdir()
    source = sqlite3.connect(data / "ledger.db")
    live = sqlite3.connect(tmp_path / "ledger.db")
    source.backup(live)
    source.close()
    live.execute("PRAGMA journal_mode=WAL")
    live.execute("PRAGMA wal_autocheckpoint=0")
    live.execute("CREATE TABLE chain_marker (x INTEGER)")
    live.commit()
    for name in ("ledger.db", "ledger.db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    (copy / "checkpoint.txt").write_bytes((data / "checkpoint.txt").read_bytes())
    assert (copy / "ledger.db-wal").stat().st_size > 0
    live.close()
    return copy


def test_nothing_there_is_exit_2_with_what_to_do_next(satchel: Satchel, tmp_path: Path) -> None:
    for command in ("replay", "verify-journal", "audit", "trial-balance", "reconcile"):
        ran = satchel(command, "--data", tmp_path / "nowhere")

        assert ran.code == 2, command
        assert "next:" in ran.err
        assert ran.out == ""
    assert not (tmp_path / "nowhere").exists()


def test_a_block_that_is_not_there_is_exit_2(kept_log: Path, satchel: Satchel) -> None:
    ran = satchel("trial-balance", "--data", kept_log, "--as-of", 99)

    assert ran.code == 2
    assert "newest block is 12" in ran.err


def test_help_is_quick_and_lists_every_command(satchel: Satchel) -> None:
    ran = satchel("--help", NO_COLOR="1")

    assert ran.code == 0
    for command in (
        "serve keygen sign replay verify-journal audit receipt statement reconcile alarms export por trial-balance"
        " bench demo"
    ).split():
        assert f" {command} " in ran.out
    assert "\x1b[" not in ran.out
