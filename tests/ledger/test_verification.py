"""Whoever changes the stored log, in any column, order or number of rows, is found out, and where.   [A-8]"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ledger import definitions, merkle, schema
from ledger.checkpoints import sign_checkpoint, write_checkpoint
from ledger.database import open_engine
from ledger.signing import Signer, key_text, signer_from_seed
from ledger.store import Snapshot, Store, StoreError
from ledger.verification import Finding, verify
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
        "snapshots": 0,
        "keys": [key_text(OLD_KEY.public_key), key_text(NEW_KEY.public_key)],
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
    values = ["NULL", "CAST(x'ff' AS TEXT)", "1.5", "x'ff'"]
    where, name = list(rows_of(tampered, table, column))[-1]
    for value in values:
        change = f"UPDATE {table.name} SET {column.name} = {value} WHERE {where}"
        try:
            found = tampered.findings(*LOOSEN, change)
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


LOOSEN = (
    "PRAGMA writable_schema=ON",
    "UPDATE sqlite_master SET sql = replace(replace(replace(replace(sql, "
    "'ROWID,', 'ROWID'), 'STRICT', ''), 'NOT NULL', ''), 'CHECK (one = 1)', 'CHECK (1)') WHERE type = 'table'",
    "PRAGMA writable_schema=RESET",
)
"""An attacker with the file may lift STRICT, NOT NULL and the check of the tip."""


@pytest.mark.parametrize("column", [column for column in schema.tip.c if column.name != "one"], ids=lambda c: c.name)
def test_a_tip_that_is_not_the_logs_is_found(tampered: Tampered, column: sa.Column[Any]) -> None:
    values = [f"{column.name} - 1", "-1", "-9223372036854775808", "NULL", "CAST(x'ff' AS TEXT)", "1.5", "x'ff'"]
    if column.name == "epoch":
        # How often the log was opened for writing is told nowhere else.
        values = ["0", *values[1:], "9223372036854775807"]
    for value in values:
        if value == "NULL" and column.name == "open_height":
            continue
        if value.endswith("- 1") and column.name in ("open_height", "block_hash", "log_peaks"):
            continue

        found = tampered.findings(*LOOSEN, f"UPDATE tip SET {column.name} = {value}")

        assert [(finding.table, finding.column) for finding in found] == [("tip", column.name)], value


def test_a_second_or_a_missing_tip_is_found(tampered: Tampered) -> None:
    columns = ", ".join(column.name for column in schema.tip.c if column.name != "one")

    missing = tampered.findings("DELETE FROM tip")
    second = tampered.findings(*LOOSEN, f"INSERT INTO tip SELECT 2, {columns} FROM tip")

    assert [str(finding) for finding in missing] == ["tip: has 0 rows, expected 1"]
    assert [finding.table for finding in second] == ["tip", "tip"]


def snapshots(tampered: Tampered, *kept: Snapshot) -> list[Finding]:
    return tampered.findings(*map(insertion, kept))


def insertion(one: Snapshot) -> str:
    blobs = ", ".join(f"x'{value.hex()}'" for value in one[1:])
    return f"INSERT INTO snapshot VALUES ({one.height}, {blobs})"


def snapshot_of(height: int, signer: Signer) -> Snapshot:
    digest = example_blocks()[height].hash
    return Snapshot.signed(height, digest, b"the state", signer.public_key, signer.sign)


def test_a_snapshot_that_the_exchange_signed_is_clean(tampered: Tampered) -> None:
    """Block 3 rotates the key: its own key signed it, the new one is in force after it."""
    kept = [snapshot_of(2, OLD_KEY), snapshot_of(3, NEW_KEY), snapshot_of(5, NEW_KEY)]

    assert snapshots(tampered, *kept) == []


def test_a_forged_snapshot_is_found_and_named(tampered: Tampered) -> None:
    """The attacker changes the state, its hash, the signature, the key: whatever the database alone lets them."""
    genuine = snapshot_of(2, OLD_KEY)
    richer = snapshot_of(2, OLD_KEY)._replace(content=b"a better state")
    attacker = signer_from_seed(bytes([66] * 32))
    forgeries = {
        "content": richer,
        "signature": richer._replace(state_hash=sha256(richer.content).digest()),
        "public_key": Snapshot.signed(2, genuine.block_hash, richer.content, attacker.public_key, attacker.sign),
        "block_hash": genuine._replace(height=1),
    }
    for column, forged in forgeries.items():
        found = snapshots(tampered, forged)

        assert (found[0].table, found[0].row) == ("snapshot", f"height {forged.height}"), column
        assert column in {finding.column for finding in found}
    assert snapshots(tampered, genuine._replace(signature=bytes(64)))[0].reason.startswith("is forged")
    assert snapshots(tampered, snapshot_of(3, OLD_KEY))[0].column == "public_key"


@pytest.mark.parametrize("column", schema.snapshot.c, ids=lambda column: column.name)
def test_any_change_of_a_snapshot_is_found(tampered: Tampered, column: sa.Column[Any]) -> None:
    changes = changes_of(column) if column.name != "height" else ["height + 1", "-1", "9223372036854775807"]
    for change in [*changes, "NULL", "CAST(x'ff' AS TEXT)", "1.5"]:
        if column.name == "height" and change in ("NULL", "CAST(x'ff' AS TEXT)", "1.5"):
            continue
        update = f"UPDATE snapshot SET {column.name} = {change}"

        found = tampered.findings(*LOOSEN, insertion(snapshot_of(2, OLD_KEY)), update)

        assert {finding.table for finding in found} == {"snapshot"}, change


def test_the_store_refuses_a_forged_snapshot(sqlite_url: str) -> None:
    """A-9: nobody starts from a state that the exchange did not sign."""
    store = Store(stored(sqlite_url, example_blocks()))
    genuine = snapshot_of(3, NEW_KEY)
    store.require_genuine(genuine)
    attacker = signer_from_seed(bytes([66] * 32))
    theirs = Snapshot.signed(3, genuine.block_hash, b"richer", attacker.public_key, attacker.sign)

    for forged, why in (
        (genuine._replace(content=b"richer"), "was recorded"),
        (genuine._replace(content=b"richer", state_hash=sha256(b"richer").digest()), "is forged"),
        (theirs, "was in force"),
        (theirs._replace(public_key=NEW_KEY.public_key), "is forged"),
        (genuine._replace(height=4), "of another log"),
        (snapshot_of(3, OLD_KEY), "was in force"),
    ):
        with pytest.raises(StoreError, match=why):
            store.require_genuine(forged)


def test_an_amount_that_no_column_holds_is_a_finding(tampered: Tampered) -> None:
    """-2^63 times 10^18 is less than 2^127, yet has no way to be stored."""
    for change in ("UPDATE posting SET atoms_high", "UPDATE posting_batch SET total_high"):
        found = tampered.findings(f"{change} = -9223372036854775807 - 1 WHERE line = 0")

        assert any("are not how" in finding.reason for finding in found)


def guard_findings(tampered: Tampered, guards: list[tuple[str, str]], *statements: str) -> list[str]:
    """What is said of the schema once the guards are back and these statements have run."""
    shutil.copy(tampered.honest, tampered.path)
    connection = sqlite3.connect(tampered.path, isolation_level=None)
    for _name, text in guards:
        connection.execute(text)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    engine = open_engine(f"sqlite:///{tampered.path}", read_only=True)
    report = verify(engine)
    engine.dispose()
    assert {finding.table for finding in report.findings} <= {"schema"}
    return [finding.row for finding in report.findings]


@pytest.fixture
def guards(tmp_path: Path) -> list[tuple[str, str]]:
    engine = opened(f"sqlite:///{tmp_path / 'fresh.db'}")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
    engine.dispose()
    return [(row[0], row[1]) for row in rows]


def test_missing_guards_are_found(tampered: Tampered, guards: list[tuple[str, str]]) -> None:
    names = {name for name, _ in guards}

    assert len(names) == 20
    assert set(guard_findings(tampered, [])) == names
    assert guard_findings(tampered, guards) == []


def test_guards_that_guard_nothing_are_found(tampered: Tampered, guards: list[tuple[str, str]]) -> None:
    """The attacker leaves every trigger's name in its place, with nothing behind it."""
    empty = []
    for name, text in guards:
        table = re.search(r"(?i:insert|update|delete) ON (\w+)", text)
        assert table is not None, text
        empty.append((name, f"CREATE TRIGGER {name} BEFORE UPDATE ON {table[1]} WHEN 0 BEGIN SELECT 1; END"))

    assert set(guard_findings(tampered, empty)) == {name for name, _ in guards}


def test_other_tables_indexes_and_triggers_are_found(tampered: Tampered, guards: list[tuple[str, str]]) -> None:
    evil = "CREATE TRIGGER evil AFTER INSERT ON command BEGIN SELECT 1; END"
    index = "CREATE UNIQUE INDEX one_kind ON command (kind, seq)"

    assert guard_findings(tampered, guards, evil) == ["evil"]
    assert guard_findings(tampered, guards, index) == ["one_kind"]
    assert guard_findings(tampered, guards, "DROP INDEX ix_posting_account") == ["ix_posting_account"]
    assert set(guard_findings(tampered, guards, *LOOSEN)) == definitions.GUARDED


@pytest.mark.node
def test_guards_that_guard_nothing_are_found_on_postgresql(postgres_url: str) -> None:
    engine = stored(postgres_url, example_blocks())
    functions, triggers = definitions.postgresql_expected()
    assert len(functions) == 7
    assert len(triggers) == 14
    empty = "LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$BEGIN RETURN NULL; END$$"
    attacks = {
        "CREATE OR REPLACE FUNCTION ledger_refuse_change() RETURNS trigger " + empty: "ledger_refuse_change",
        "ALTER FUNCTION ledger_check_block() SET search_path TO evil": "ledger_check_block",
        "ALTER FUNCTION ledger_check_block() RESET search_path": "ledger_check_block",
        "ALTER FUNCTION ledger_check_block() SECURITY INVOKER": "ledger_check_block",
        "DROP TRIGGER tip_guard ON tip": "tip_guard",
        "DROP TRIGGER tip_guard ON tip; CREATE TRIGGER tip_guard BEFORE UPDATE ON tip FOR EACH ROW WHEN (false) "
        "EXECUTE FUNCTION ledger_guard_tip()": "tip_guard",
        "CREATE TRIGGER evil AFTER INSERT ON command FOR EACH STATEMENT EXECUTE FUNCTION ledger_seal_block()": "evil",
        "ALTER TABLE command DISABLE TRIGGER command_open": "command_open",
        "CREATE RULE hide AS ON DELETE TO snapshot DO INSTEAD NOTHING": "hide",
        "ALTER TABLE command ENABLE ROW LEVEL SECURITY": "command",
        "ALTER TABLE journal DROP CONSTRAINT pk_journal": "journal",
    }
    assert verify(engine).findings == []
    for attack, name in attacks.items():
        with engine.connect() as connection, connection.begin() as change:
            connection.exec_driver_sql(attack)

            def ask(query: str, connection: sa.Connection = connection) -> list[Any]:
                return list(connection.exec_driver_sql(query))

            found = [one for one, _reason in definitions.differences("postgresql", ask)]
            change.rollback()

        assert found == [name], attack
    assert verify(engine).findings == []


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


def test_the_published_key_is_the_genesis_key(tampered: Tampered) -> None:
    """The newest would not do: whoever forges a log can end it with a rotation to the exchange's own key."""
    assert tampered.findings(public_key=OLD_KEY.public_key) == []

    for key in (NEW_KEY.public_key, bytes(32)):
        (finding,) = tampered.findings(public_key=key)

        assert f"the log begins with key {key_text(OLD_KEY.public_key)}, not {key_text(key)}" in finding.reason


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

    guards = definitions.postgresql_expected()[1].keys()
    found = {finding.row for finding in verify(engine).findings}
    assert {name for name in found if not name.startswith("RI_")} == guards - {"por_epoch_refuse_change"}
    assert any(name.startswith("RI_") for name in found), "the tip's foreign key is switched off too"
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
