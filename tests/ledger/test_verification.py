"""Whoever changes the stored log, in any column, order or number of rows, is found out, and where.   [A-8]"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ledger import merkle, schema
from ledger.checkpoints import sign_checkpoint, write_checkpoint
from ledger.database import open_engine
from ledger.signing import Signer, signer_from_seed
from ledger.verification import GUARDS, Finding, verify
from tests.ledger.logs import NEW_KEY, OLD_KEY, example_blocks, opened, stored

ORIGIN = "satchel.example/blocks"
COLUMNS = [
    pytest.param(table, column, id=f"{table.name}.{column.name}") for table in schema.APPEND_ONLY for column in table.c
]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example log in a SQLite file, its guards gone, as an attacker with the file would have it."""
    path = tmp_path_factory.mktemp("log") / "ledger.db"
    stored(f"sqlite:///{path}", example_blocks()).dispose()
    with sqlite3.connect(path) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA journal_mode=DELETE")
    return path


class Tampered:
    """Fresh copies of the honest log to spoil."""

    def __init__(self, honest: Path, folder: Path) -> None:
        self.honest = honest
        self.path = folder / "tampered.db"

    def findings(self, *statements: str, **options: Any) -> list[Finding]:
        """What is found after these statements, beside the missing guards; [] when they changed nothing."""
        shutil.copy(self.honest, self.path)
        connection = sqlite3.connect(self.path, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()
        engine = open_engine(f"sqlite:///{self.path}", read_only=True)
        report = verify(engine, **options)
        engine.dispose()
        return [finding for finding in report.findings if finding.table != "schema"]

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.honest)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@pytest.fixture
def tampered(honest: Path, tmp_path: Path) -> Tampered:
    return Tampered(honest, tmp_path)


def test_an_honest_log_is_clean(database_url: str) -> None:
    stored(database_url, example_blocks()).dispose()
    ticks: list[tuple[int, int]] = []

    report = verify(
        open_engine(database_url, read_only=True), progress=lambda done, total: ticks.append((done, total))
    )

    assert report.findings == []
    assert report.is_clean
    assert report.covered == {
        "blocks": 6,
        "commands": 10,
        "journal transactions": 13,
        "postings": 22,
        "batches": 1,
        "keys": [OLD_KEY.public_key.hex(), NEW_KEY.public_key.hex()],
    }
    assert ticks[-1] == (52, 52)


def test_an_empty_log_is_clean(database_url: str) -> None:
    assert verify(opened(database_url)).findings == []


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_change_of_any_column_is_found_and_named(tampered: Tampered, table: sa.Table, column: sa.Column[Any]) -> None:
    tried = 0
    for where, name in rows_of(tampered, table, column):
        for change in changes_of(column):
            ((same,),) = tampered.ask(f"SELECT {column.name} IS {change} FROM {table.name} WHERE {where}")
            if same:
                continue
            tried += 1

            found = tampered.findings(f"UPDATE OR REPLACE {table.name} SET {column.name} = {change} WHERE {where}")

            assert any(names(finding, table, column, name) for finding in found), (where, change, list(map(str, found)))
    assert tried >= 2


def changes_of(column: sa.Column[Any]) -> list[str]:
    """SQL expressions for another value of the column's type."""
    name = column.name
    if isinstance(column.type, sa.LargeBinary):
        first = f"CAST(x'80' || substr({name}, 2) AS BLOB)"
        return [first, f"CAST({name} || x'00' AS BLOB)", f"substr({name}, 2)", "x''", "zeroblob(32)"]
    if isinstance(column.type, sa.Text):
        return ["kind || 'x'", "''", "CAST(x'ff' AS TEXT)", "'clocks'"]
    return [f"{name} + 1", f"-{name} - 1", "9223372036854775807"]


def rows_of(tampered: Tampered, table: sa.Table, column: sa.Column[Any]) -> Iterator[tuple[str, str]]:
    """(WHERE, name in findings) of a row in the middle and of the last that has a value."""
    keys = [key.name for key in table.primary_key.columns]
    rows = tampered.ask(
        f"SELECT {', '.join(keys)} FROM {table.name} WHERE {column.name} IS NOT NULL ORDER BY {', '.join(keys)}"
    )
    for row in dict.fromkeys([rows[len(rows) // 2], rows[-1]]):
        where = " AND ".join(f"{key} = {value}" for key, value in zip(keys, row, strict=True))
        if len(keys) == 2:
            yield where, f"journal {row[0]} line {row[1]}"
        else:
            yield where, f"{keys[0]} {row[0]}"


def names(finding: Finding, table: sa.Table, column: sa.Column[Any], row: str) -> bool:
    """Whether a finding says where: the row; for a posting also its transaction; for a moved key at least the table."""
    if column.primary_key:
        return finding.table in (table.name, "journal", "block")
    if table.name in ("posting", "posting_batch") and finding.table == "journal":
        return finding.row == f"seq {row.split()[1]}"
    return finding.table == table.name and finding.row == row


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_value_of_another_type_is_a_finding(tampered: Tampered, table: sa.Table, column: sa.Column[Any]) -> None:
    """An attacker with the file may lift STRICT and NOT NULL."""
    loosen = (
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_master SET sql = "
        "replace(replace(replace(sql, 'ROWID,', 'ROWID'), 'STRICT', ''), 'NOT NULL', '') WHERE type = 'table'",
        "PRAGMA writable_schema=RESET",
    )
    values = ["NULL", "CAST(x'ff' AS TEXT)", "1.5", "x'ff'"]
    where, name = list(rows_of(tampered, table, column))[-1]
    for value in values:
        change = f"UPDATE {table.name} SET {column.name} = {value} WHERE {where}"
        try:
            found = tampered.findings(*loosen, change)
        except sqlite3.IntegrityError:
            assert column.primary_key, "only a key's type cannot be lifted"
            continue

        assert found, (table.name, column.name, value)
        if not column.primary_key:
            assert any(names(finding, table, column, name) for finding in found), (value, list(map(str, found)))


@pytest.mark.parametrize("table", schema.APPEND_ONLY, ids=lambda table: table.name)
def test_a_missing_row_is_found(tampered: Tampered, table: sa.Table) -> None:
    for where, _name in rows_of(tampered, table, next(iter(table.c))):
        found = tampered.findings(f"DELETE FROM {table.name} WHERE {where}")

        assert {finding.table for finding in found} & {table.name, "journal", "block"}, list(map(str, found))


@pytest.mark.parametrize("table", schema.APPEND_ONLY, ids=lambda table: table.name)
@pytest.mark.parametrize("key", [0, 1_000])
def test_an_inserted_row_is_found(tampered: Tampered, table: sa.Table, key: int) -> None:
    """A copy of a row under another key, before, and after the log."""
    first, *others = [column.name for column in table.c]
    if key == 0 and table.name == "block":
        key = -5
    columns = ", ".join([str(key), *others])
    copied = f"INSERT INTO {table.name} SELECT {columns} FROM {table.name} ORDER BY {first} DESC LIMIT 1"

    found = tampered.findings(copied)

    assert any(finding.table == table.name and str(key) in finding.row for finding in found), list(map(str, found))


@pytest.mark.parametrize("table", [schema.command, schema.journal, schema.posting, schema.block], ids=lambda t: t.name)
def test_exchanged_rows_are_found(tampered: Tampered, table: sa.Table) -> None:
    key = "line" if table.name == "posting" else next(iter(table.c)).name
    within = "journal_seq = 5 AND " if table.name == "posting" else ""
    low, high = (0, 1) if table.name == "posting" else (2, 3)

    found = tampered.findings(
        f"UPDATE {table.name} SET {key} = 9999 WHERE {within}{key} = {low}",
        f"UPDATE {table.name} SET {key} = {low} WHERE {within}{key} = {high}",
        f"UPDATE {table.name} SET {key} = {high} WHERE {within}{key} = 9999",
    )

    assert any(finding.table in (table.name, "journal") for finding in found), list(map(str, found))


def test_postings_that_still_balance_are_found_by_their_hash(tampered: Tampered) -> None:
    found = tampered.findings("UPDATE posting SET atoms = atoms * 2 WHERE journal_seq = 6")

    assert [(finding.table, finding.row) for finding in found] == [("journal", "seq 6")]


def test_unknown_tables_views_and_columns_are_found(tampered: Tampered) -> None:
    found = tampered.findings(
        "CREATE TABLE journal_extra (x INTEGER)",
        "CREATE VIEW posting_all AS SELECT * FROM posting",
        "ALTER TABLE command ADD COLUMN note TEXT",
        "ALTER TABLE block DROP COLUMN signature",
    )

    places = {(finding.table, finding.column) for finding in found}
    assert {("journal_extra", ""), ("posting_all", ""), ("command", "note"), ("block", "signature")} <= places


def test_a_missing_table_is_found(tampered: Tampered) -> None:
    for table in schema.APPEND_ONLY:
        found = tampered.findings(f"DROP TABLE {table.name}")

        assert any(finding.table == table.name and "missing" in finding.reason for finding in found)


@pytest.mark.parametrize("column", ["height", "block_hash", "next_command", "next_journal", "log_peaks"])
def test_a_tip_that_is_not_the_logs_is_found(tampered: Tampered, column: str) -> None:
    change = "zeroblob(32)" if column in ("block_hash", "log_peaks") else f"{column} - 1"

    (finding,) = tampered.findings(f"UPDATE tip SET {column} = {change}")

    assert finding.table == "tip"


def test_a_snapshot_of_another_log_is_found(tampered: Tampered) -> None:
    fits = "INSERT INTO snapshot SELECT height, hash, x'00', x'00' FROM block WHERE height = 2"
    foreign = "INSERT INTO snapshot VALUES (3, zeroblob(32), x'00', x'00'), (99, zeroblob(32), x'00', x'00')"

    found = tampered.findings(fits, foreign)

    assert [(finding.table, finding.row) for finding in found] == [("snapshot", "height 3"), ("snapshot", "height 99")]


def test_missing_guards_are_found(honest: Path) -> None:
    report = verify(open_engine(f"sqlite:///{honest}", read_only=True))

    assert {finding.row for finding in report.findings} == GUARDS["sqlite"]


def test_damaged_pages_are_findings(tampered: Tampered, tmp_path: Path) -> None:
    content = bytearray(tampered.honest.read_bytes())
    for at in range(8_192, len(content), 997):
        content[at] ^= 0xFF
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(content)

    report = verify(open_engine(f"sqlite:///{damaged}", read_only=True))

    assert report.findings


def peaks(size: int) -> str:
    head = merkle.TreeHead()
    for block in example_blocks()[:size]:
        head.append(block.hash)
    return b"".join(head.dump()[1]).hex()


CUT = (
    "DELETE FROM block WHERE height >= 4",
    "DELETE FROM command WHERE block_height >= 4",
    "DELETE FROM posting WHERE journal_seq IN (SELECT seq FROM journal WHERE block_height >= 4)",
    "DELETE FROM posting_batch WHERE journal_seq IN (SELECT seq FROM journal WHERE block_height >= 4)",
    "DELETE FROM journal WHERE block_height >= 4",
    "UPDATE tip SET height = 3, block_hash = (SELECT hash FROM block WHERE height = 3), "
    "next_command = 1 + (SELECT max(seq) FROM command), next_journal = 1 + (SELECT max(seq) FROM journal), "
    f"log_peaks = x'{peaks(3)}'",
)
"""A careful attacker: a shorter chain is a valid chain."""


def kept_checkpoint(path: Path, size: int, signer: Signer) -> Path:
    hashes = [block.hash for block in example_blocks()[:size]]
    write_checkpoint(path, sign_checkpoint(ORIGIN, size, merkle.root(hashes), signer))
    return path


def test_a_cut_tail_is_found_against_a_kept_checkpoint(tampered: Tampered, tmp_path: Path) -> None:
    assert tampered.findings(*CUT) == []
    checkpoint = kept_checkpoint(tmp_path / "kept", 6, NEW_KEY)

    found = tampered.findings(*CUT, checkpoint=checkpoint)

    assert [finding.reason for finding in found] == ["the tail is cut: the checkpoint covers 6 blocks, the log has 4"]
    assert tampered.findings(checkpoint=checkpoint) == []
    assert tampered.findings(*CUT, checkpoint=kept_checkpoint(tmp_path / "older", 3, OLD_KEY)) == []


def test_another_history_is_found_against_a_kept_checkpoint(tampered: Tampered, tmp_path: Path) -> None:
    checkpoint = tmp_path / "kept"
    write_checkpoint(checkpoint, sign_checkpoint(ORIGIN, 5, bytes(32), OLD_KEY))

    (finding,) = tampered.findings(checkpoint=checkpoint)

    assert "the first 5 blocks are not those of the checkpoint" in finding.reason


def test_a_checkpoint_of_somebody_else_is_a_finding(tampered: Tampered, tmp_path: Path) -> None:
    checkpoint = kept_checkpoint(tmp_path / "kept", 6, signer_from_seed(bytes(32)))

    (finding,) = tampered.findings(checkpoint=checkpoint)

    assert "bears no signature of the exchange's keys" in finding.reason


def test_the_published_key_is_the_first_or_the_newest(tampered: Tampered) -> None:
    assert tampered.findings(public_key=OLD_KEY.public_key) == []
    assert tampered.findings(public_key=NEW_KEY.public_key) == []

    (finding,) = tampered.findings(public_key=bytes(32))

    assert "neither the first nor the newest key" in finding.reason


def test_a_log_signed_anew_by_another_key_is_found(tmp_path: Path) -> None:
    """A whole forged log is consistent in itself; only the published key tells."""
    from tests.ledger.logs import SOL, LogBuilder, deposit

    forger = LogBuilder(signer_from_seed(bytes([9] * 32)))
    forger.add("credit_deposit", deposit(1, SOL, 10**9))
    engine = stored(f"sqlite:///{tmp_path / 'forged.db'}", [forger.commit()])

    assert verify(engine).is_clean
    assert not verify(engine, public_key=OLD_KEY.public_key).is_clean


def test_a_key_that_was_not_announced_is_found(tmp_path: Path) -> None:
    """Block 1 is signed by a key that no rotation record names."""
    from tests.ledger.logs import LogBuilder

    log = LogBuilder()
    log.add("clock")
    blocks = [log.commit()]
    log.chain.rotate(NEW_KEY.public_key, NEW_KEY.sign)
    log.add("clock")
    blocks.append(log.commit())

    (finding,) = verify(stored(f"sqlite:///{tmp_path / 'ledger.db'}", blocks)).findings

    assert (finding.table, finding.row, finding.column) == ("block", "height 1", "public_key")


@pytest.mark.node
def test_changes_are_found_on_postgresql_too(postgres_url: str) -> None:
    engine = stored(postgres_url, example_blocks())
    with engine.begin() as connection:
        for table in (*schema.APPEND_ONLY, schema.tip):
            connection.exec_driver_sql(f"ALTER TABLE {table.name} DISABLE TRIGGER ALL")

    assert {finding.row for finding in verify(engine).findings} == GUARDS["postgresql"]
    for table in schema.APPEND_ONLY:
        for column in table.c:
            present = "" if not column.nullable else f"WHERE {column.name} IS NOT NULL"
            keys = [key.name for key in table.primary_key.columns]
            change = {
                sa.BigInteger: f"{column.name} + 1000",
                sa.LargeBinary: f"set_byte({column.name}, 0, 255 - get_byte({column.name}, 0))",
                sa.Text: f"{column.name} || 'x'",
            }[type(column.type)]
            with engine.connect() as connection:
                (row,) = connection.exec_driver_sql(
                    f"SELECT {', '.join(keys)} FROM {table.name} {present} ORDER BY {keys[0]} DESC LIMIT 1"
                )
                where = " AND ".join(f"{key} = {value}" for key, value in zip(keys, row, strict=True))
                back = sa.select(column).where(sa.text(where))
                old = connection.execute(back).scalar_one()
                update = f"UPDATE {table.name} SET {column.name} = {change} WHERE {where}"
                connection.exec_driver_sql(update)
                connection.commit()

            found = [finding for finding in verify(engine).findings if finding.table != "schema"]

            assert any(finding.table in (table.name, "journal") for finding in found), (table.name, column.name)
            with engine.begin() as connection:
                moved = where
                if column.primary_key:
                    moved = where.replace(f"{column.name} = {old}", f"{column.name} = {old + 1000}")
                connection.execute(sa.update(table).where(sa.text(moved)).values({column: old}))
    assert {finding.table for finding in verify(engine).findings} == {"schema"}
