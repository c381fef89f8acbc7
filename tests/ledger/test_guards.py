"""The database itself refuses what the ledger never does: changes, unbalanced rows, stray rows.   [A-8]"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import schema, writing
from ledger.amounts import split_atoms
from ledger.blocks import Block
from ledger.journal import PostingBatch, SealedTransaction
from ledger.store import Store
from tests.ledger.logs import HOT_SOL, SOL, LogBuilder, deposit, example_blocks, opened, stored

Change = Callable[[sa.Connection], Any]


def refused(engine: sa.Engine, change: Change) -> str:
    """Why the database refuses a change, by the commit at the latest."""
    with pytest.raises(sa.exc.DBAPIError) as refusal, engine.begin() as connection:
        change(connection)
    return str(refusal.value.orig)


def write(connection: sa.Connection, block: Block) -> None:
    insert = writing.insert_sqlite if connection.dialect.name == "sqlite" else writing.copy_postgresql
    try:
        insert(connection, block)
    except Exception as error:
        # The fast paths run on the driver's connection: show its refusals as SQLAlchemy does.
        raise sa.exc.DBAPIError("block", None, error) from error


@pytest.mark.parametrize("table", schema.APPEND_ONLY, ids=lambda table: table.name)
def test_a_row_of_the_log_cannot_be_changed_or_removed(database_url: str, table: sa.Table) -> None:
    engine = stored(database_url, example_blocks())
    column = list(table.c)[-1]

    assert "append-only" in refused(engine, lambda c: c.execute(sa.update(table).values({column: column})))
    assert "append-only" in refused(engine, lambda c: c.execute(sa.delete(table)))
    if engine.dialect.name == "postgresql":
        assert "append-only" in refused(engine, lambda c: c.execute(sa.text(f"TRUNCATE {table.name} CASCADE")))


def test_the_tip_moves_with_a_block_only(database_url: str) -> None:
    engine = stored(database_url, example_blocks())
    tip = schema.tip

    for values in ({"height": 2}, {"next_journal": 1}, {"block_hash": bytes(32)}, {"epoch": 0}):
        assert "tip moves with a block only" in refused(
            engine, lambda c, values=values: c.execute(sa.update(tip).values(**values))
        )
    refused(engine, lambda c: c.execute(sa.delete(tip)))


def test_a_replacing_insert_is_a_change_too(sqlite_url: str) -> None:
    engine = stored(sqlite_url, example_blocks())

    for table in schema.APPEND_ONLY:
        statement = f"INSERT OR REPLACE INTO {table.name} SELECT * FROM {table.name} LIMIT 1"
        refused(engine, lambda c, statement=statement: c.exec_driver_sql(statement))


def test_a_posting_cannot_be_added_to_a_sealed_transaction(database_url: str) -> None:
    engine = stored(database_url, example_blocks())

    def add(connection: sa.Connection) -> None:
        connection.execute(
            sa.insert(schema.posting),
            [
                {"journal_seq": 5, "line": line, "account": HOT_SOL, "asset": SOL, "atoms_high": 0, "atoms": atoms}
                for line, atoms in ((2, 1), (3, -1))
            ],
        )

    assert "belongs to a sealed block" in refused(engine, add)


@pytest.mark.parametrize("table", ["command", "journal", "posting", "posting_batch"])
def test_rows_without_a_block_do_not_commit(database_url: str, table: str) -> None:
    blocks = example_blocks()
    engine = stored(database_url, blocks[:5])
    header = blocks[5].header
    log = schema.metadata.tables[table]
    row = example_row(log, header.first_command if table == "command" else header.first_journal, header.height)

    assert "foreign key" in refused(engine, lambda c: c.execute(sa.insert(log), [row])).lower()


def example_row(table: sa.Table, key: int, height: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for column in table.c:
        if isinstance(column.type, sa.LargeBinary):
            values[column.name] = bytes(32)
        elif isinstance(column.type, sa.Text):
            values[column.name] = "clock"
        else:
            values[column.name] = 0
    values |= {next(iter(table.primary_key.columns)).name: key}
    return values | {"block_height": height} if "block_height" in values else values


def changed_entry(block: Block, at: int, **changes: Any) -> Block:
    entry: SealedTransaction = block.journal[at]._replace(**changes)
    return block._replace(journal=[*block.journal[:at], entry, *block.journal[at + 1 :]])


def unbalanced(block: Block) -> Block:
    account, asset, atoms = block.journal[1].postings[0]
    return changed_entry(block, 1, postings=[(account, asset, atoms + 1), *block.journal[1].postings[1:]])


def moved_between_assets(block: Block) -> Block:
    legs = block.journal[1].postings
    return changed_entry(block, 1, postings=[(legs[0][0], 99, legs[0][2]), *legs[1:]])


def unbalanced_by_a_batch(block: Block) -> Block:
    (batch,) = block.journal[0].batches
    wrong = PostingBatch(batch.account_kind, batch.asset, batch.owners, batch.atoms, batch.total + 1, batch.root)
    return changed_entry(block, 0, batches=(wrong,))


def gap_in_journal(block: Block) -> Block:
    return changed_entry(block, 1, seq=block.journal[1].seq + 1)


def foreign_command(block: Block) -> Block:
    return changed_entry(block, 1, command_seq=block.journal[1].command_seq + 9)


def with_header(block: Block, **changes: Any) -> Block:
    return block._replace(header=block.header._replace(**changes))


def more_commands(block: Block) -> Block:
    return with_header(block, command_count=block.header.command_count + 1)


def fewer_journal(block: Block) -> Block:
    return with_header(block, journal_count=block.header.journal_count - 1)


def other_height(block: Block) -> Block:
    return with_header(block, height=block.header.height + 1)


def other_predecessor(block: Block) -> Block:
    return with_header(block, previous_hash=bytes(32))


def late_first_command(block: Block) -> Block:
    return with_header(block, first_command=block.header.first_command + 1)


def late_first_journal(block: Block) -> Block:
    return with_header(block, first_journal=block.header.first_journal + 1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (unbalanced, "out of balance"),
        (moved_between_assets, "out of balance"),
        (unbalanced_by_a_batch, "out of balance"),
        (gap_in_journal, "journal rows do not make"),
        (foreign_command, "journal rows do not make"),
        (more_commands, "command rows do not make"),
        (fewer_journal, "journal rows do not make"),
        (other_height, "does not continue the chain"),
        (other_predecessor, "does not continue the chain"),
        (late_first_command, "does not continue the chain"),
        (late_first_journal, "does not continue the chain"),
    ],
)
def test_a_block_that_is_not_one_is_refused(database_url: str, spoil: Callable[[Block], Block], reason: str) -> None:
    blocks = example_blocks()
    engine = stored(database_url, blocks[:5])

    assert reason in refused(engine, lambda c: write(c, spoil(blocks[5])))
    with engine.begin() as connection:
        write(connection, blocks[5])


@pytest.mark.parametrize("table", ["posting", "posting_batch"])
@pytest.mark.parametrize("height", [4, 5], ids=["block without journal", "block with journal"])
def test_a_stray_row_beside_a_block_is_refused(database_url: str, table: str, height: int) -> None:
    blocks = example_blocks()
    engine = stored(database_url, blocks[:height])
    header = blocks[height].header
    log = schema.metadata.tables[table]
    stray = example_row(log, header.first_journal + header.journal_count, height)

    def insert(connection: sa.Connection) -> None:
        connection.execute(sa.insert(log), [stray])
        write(connection, blocks[height])

    reason = refused(engine, insert)

    assert "journal rows do not make" in reason or "posting rows without a journal transaction" in reason


@pytest.mark.parametrize("lines", [(0, 1, 2), (0,), (1, 2), (-1, 1), ()])
def test_a_journal_row_states_its_postings(database_url: str, lines: tuple[int, ...]) -> None:
    log = LogBuilder()
    log.add("credit_deposit", deposit(1, SOL, 5))
    block = log.commit()
    engine = opened(database_url)
    bare = changed_entry(block, 0, postings=[])

    def insert(connection: sa.Connection) -> None:
        rows = [
            {"journal_seq": 1, "line": line, "account": 1, "asset": 1, "atoms_high": 0, "atoms": 0} for line in lines
        ]
        if rows:
            connection.execute(sa.insert(schema.posting), rows)
        command_row = example_row(schema.command, 1, 0)
        journal_row = example_row(schema.journal, 1, 0) | {"command_seq": 1, "posting_count": 2}
        connection.execute(sa.insert(schema.command), [command_row])
        connection.execute(sa.insert(schema.journal), [journal_row])
        block_row = {**bare.header._asdict(), "hash": bytes(32), "signature": bytes(64)}
        connection.execute(sa.insert(schema.block), [block_row])

    refusal = refused(engine, insert)

    assert "posting count" in refusal or "journal rows do not make" in refusal


amounts = st.one_of(
    st.integers(-(9 * 10**36), 9 * 10**36),
    st.integers(-(10**19), 10**19),
    st.sampled_from([10**18, 10**18 - 1, -(10**18), 10**9, -(10**9), 2**63 - 1, -(2**63), 9 * 10**36]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(legs=st.lists(amounts, min_size=1, max_size=14), off=st.sampled_from([0, 0, 1, -1, 10**9, 10**18, -(10**27)]))
def test_balance_is_exact_beyond_64_bits(balance_engine: sa.Engine, legs: list[int], off: int) -> None:
    """Residues that a careless sum in parts would miss, and carries that it would call a residue."""
    rest = -sum(legs) + off
    half, other = rest // 14, rest - 13 * (rest // 14)
    atoms = [*legs, *[half] * 13, other]

    accepted = is_accepted(balance_engine, atoms)

    assert accepted == (off == 0)


@pytest.fixture
def balance_engine(database_url: str) -> sa.Engine:
    return opened(database_url)


def is_accepted(engine: sa.Engine, atoms: list[int]) -> bool:
    block = one_transaction([(HOT_SOL, SOL, leg) for leg in atoms])
    for leg in atoms:
        split_atoms(leg)
    with engine.connect() as connection, connection.begin() as transaction:
        try:
            write(connection, block)
        except sa.exc.DBAPIError as refusal:
            assert "out of balance" in str(refusal.orig)
            return False
        finally:
            transaction.rollback()
    return True


def one_transaction(postings: list[tuple[int, int, int]]) -> Block:
    log = LogBuilder()
    log.add("credit_deposit", replace_postings(postings))
    return log.commit()


def replace_postings(postings: list[tuple[int, int, int]]) -> Any:
    entry = deposit(1, SOL, 1)
    entry.postings = postings
    return entry


def test_privileges_are_enough_for_the_writer_and_no_more(postgres_url: str) -> None:
    """The least-privilege roles that ship with the migrations."""
    from ledger.resources import migrations_dir

    owner = opened(postgres_url)
    grants = (migrations_dir() / "roles.sql").read_text()
    with owner.begin() as connection:
        connection.exec_driver_sql(grants)
    writer = sa.create_engine(postgres_url, connect_args={"options": "-c role=satchel_writer"})
    reader = sa.create_engine(postgres_url, connect_args={"options": "-c role=satchel_reader"})
    blocks = example_blocks()
    store = Store(writer)
    for block in blocks:
        store.append(block)
    store.close()

    assert Store(reader).whole_block(3) == blocks[3]
    for table in schema.APPEND_ONLY:
        name = table.name
        for statement in (f"DELETE FROM {name}", f"TRUNCATE {name}", f"ALTER TABLE {name} DISABLE TRIGGER ALL"):
            reason = refused(writer, lambda c, statement=statement: c.exec_driver_sql(statement))
            assert "permission denied" in reason or "must be owner" in reason
        assert "permission denied" in refused(
            reader, lambda c, name=name: c.exec_driver_sql(f"INSERT INTO {name} DEFAULT VALUES")
        )
    assert "permission denied" in refused(writer, lambda c: c.exec_driver_sql("UPDATE tip SET open_height = NULL"))
