"""What commands say when they cannot run: exit code 2, what to do next, one JSON document where one was asked for."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from base64 import b64encode
from pathlib import Path

import pytest

from tests.tools.conftest import Satchel
from tests.tools.sample import ALICE, BOB

FAILING: dict[str, list[str]] = {
    "CANNOT_RUN": ["trial-balance", "--data", "nowhere"],
    "USAGE": ["statement", "first"],
    "FILE": ["receipt", "--verify", "nowhere.json"],
    "DATABASE": ["trial-balance", "--database", "sqlite:///broken.db"],
}


@pytest.mark.parametrize("code", FAILING)
def test_under_json_a_failure_is_one_document_on_stdout(satchel: Satchel, tmp_path: Path, code: str) -> None:
    with sqlite3.connect(tmp_path / "broken.db") as empty:
        empty.execute("CREATE TABLE journal (x)")
        empty.execute("CREATE TABLE command (x)")
    ran = satchel(*FAILING[code], "--json", cwd=tmp_path)
    plain = satchel(*FAILING[code], cwd=tmp_path)

    assert (ran.code, ran.err, plain.code, plain.out) == (2, "", 2, "")
    assert ran.json()["error"]["code"] == code
    assert ran.json()["error"]["message"] and ran.json()["error"]["next"]


def test_an_exchange_of_ones_own_is_never_begun_by_leaving_something_out(satchel: Satchel, tmp_path: Path) -> None:
    ran = satchel("serve", "--data", tmp_path / "node", "--port", 0)

    assert ran.code == 2
    assert "--devnet" in ran.err and "--genesis FILE" in ran.err
    assert not (tmp_path / "node").exists()


def test_a_second_node_on_the_same_folder_is_told_what_holds_it(log: Path, satchel: Satchel) -> None:
    with open(log / "ledger.db.lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ran = satchel("serve", "--devnet", "--data", log, "--port", 0)
        closed = satchel("por", "run", "--data", log)

    assert (ran.code, closed.code) == (2, 2)
    assert "an exchange already runs on this log" in ran.err and "another --data DIR" in ran.err
    assert "--url" in closed.err


def test_a_file_of_another_kind_is_exit_2_and_a_damaged_one_is_a_finding(
    kept_log: Path, satchel: Satchel, tmp_path: Path
) -> None:
    other, damaged, export = tmp_path / "notes.txt", tmp_path / "checkpoint.txt", tmp_path / "log.satchel"
    other.write_text("milk, bread\n")
    note = (kept_log / "checkpoint.txt").read_text()
    damaged.write_text(note.replace("\n13\n", "\n12\n"))
    assert satchel("export", export, "--data", kept_log).code == 0

    for command in (["verify-journal", "--data", kept_log], ["export", export, "--verify"]):
        refused = satchel(*command, "--checkpoint", other)
        missing = satchel(*command, "--checkpoint", tmp_path / "none")
        found = satchel(*command, "--checkpoint", damaged)

        assert (refused.code, missing.code, found.code) == (2, 2, 1), command
        assert "is no checkpoint" in refused.err and "next:" in refused.err
    refused = satchel("export", other, "--verify")
    assert refused.code == 2 and "not an export of a log" in refused.err


def test_replay_beyond_the_end_is_not_called_identical(kept_log: Path, satchel: Satchel) -> None:
    ran = satchel("replay", "--data", kept_log, "--to", 99)

    assert ran.code == 2 and ran.out == ""
    assert "no block 99" in ran.err and "the newest block is 12" in ran.err


def test_with_out_json_names_the_file(kept_log: Path, satchel: Satchel, tmp_path: Path) -> None:
    receipt = satchel("receipt", 22, "--data", kept_log, "--out", tmp_path / "receipt.json", "--json")

    assert receipt.json()["file"] == str(tmp_path / "receipt.json")
    assert receipt.json()["journal"] == 22
    assert satchel("receipt", "--verify", tmp_path / "receipt.json").code == 0


def test_verify_of_a_proof_that_is_not_there_says_how_to_get_one(satchel: Satchel, tmp_path: Path) -> None:
    ran = satchel("por", "verify", tmp_path / "proof.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    unread = satchel("por", "verify", broken, "--json")

    assert ran.code == 2 and "no proof at" in ran.err and "satchel por prove" in ran.err
    assert unread.code == 2 and unread.json()["error"]["code"] == "CANNOT_RUN"


def test_help_keeps_what_stands_in_brackets(satchel: Satchel) -> None:
    assert "{userId: [base64 keys]}" in satchel("audit", "--help").out


def test_keys_of_some_users_audit_those_users(kept_log: Path, satchel: Satchel, tmp_path: Path) -> None:
    """A-5: one note for a user without given keys, and every finding about one whose keys do not fit."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"1": [b64encode(ALICE.public_key).decode()]}))
    partly = satchel("audit", "--data", kept_log, "--keys", keys, "--json")
    keys.write_text(json.dumps({"1": [b64encode(BOB.public_key).decode()]}))
    wrong = satchel("audit", "--data", kept_log, "--keys", keys, "--json")

    assert partly.code == 0 and partly.json()["findings"] == []
    assert [(one["userId"], one["command"]) for one in partly.json()["notes"]] == [(2, 0)]
    assert "no keys were given, 3 signed command(s)" in partly.json()["notes"][0]["reason"]
    assert wrong.code == 1
    assert {one["userId"] for one in wrong.json()["findings"]} == {1}
    assert b64encode(ALICE.public_key).decode() in wrong.json()["findings"][0]["reason"]
