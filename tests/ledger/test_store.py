"""Blocks are durable as a whole or not at all, one writer continues the log, and what is read is what was written."""

from __future__ import annotations

import re
import threading

import pytest
import sqlalchemy as sa

from ledger import schema
from ledger import store as store_module
from ledger.blocks import Block
from ledger.database import metadata, open_engine
from ledger.signing import key_text
from ledger.store import Snapshot, Store, StoreError
from ledger.verification import verify
from tests.ledger.logs import NEW_KEY, OLD_KEY, SOL, LogBuilder, deposit, example_blocks, opened, stored


def test_what_is_read_back_is_what_was_written(database_url: str) -> None:
    blocks = example_blocks()
    engine = stored(database_url, blocks)

    store = Store(engine)

    assert [store.whole_block(block.header.height) for block in blocks] == blocks
    assert list(store.commands()) == [command for block in blocks for command in block.commands]
    assert list(store.journal(3, 6)) == [entry for block in blocks for entry in block.journal][2:6]
    assert list(store.blocks(2)) == [(block.header, block.hash, block.signature) for block in blocks[2:]]
    assert store.block_hashes() == [block.hash for block in blocks]
    assert list(store.journal_hashes(2, 3)) == [blocks[0].journal[1].hash, blocks[0].journal[2].hash]


def test_chunks_read_as_one_stream(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = example_blocks()
    store = Store(stored(database_url, blocks))

    monkeypatch.setattr(store_module, "CHUNK", 2)

    assert list(store.journal()) == [entry for block in blocks for entry in block.journal]
    assert list(store.commands(2, 4)) == [command for block in blocks for command in block.commands][1:4]
    assert list(store.commands(400)) == []


def test_an_empty_log_has_no_tip(database_url: str) -> None:
    store = Store(opened(database_url))

    assert store.tip() is None
    assert store.load_chain(OLD_KEY.public_key, OLD_KEY.sign).height == -1
    assert list(store.journal()) == []
    assert store.newest_snapshot() is None
    assert store.block_containing_journal(1) is None


def test_a_new_process_continues_where_the_log_ends(database_url: str) -> None:
    blocks = example_blocks()
    engine = stored(database_url, blocks)
    log = LogBuilder(chain=Store(engine).load_chain(NEW_KEY.public_key, NEW_KEY.sign))
    log.at_us = blocks[-1].header.at_us
    log.add("credit_deposit", deposit(1, SOL, 5))

    store = Store(engine)
    store.append(log.commit())
    tip = store.tip()

    assert tip is not None
    assert tip.header.height == len(blocks)
    assert tip.log.size == len(blocks) + 1
    assert tip.header.log_root == blocks_root(blocks)
    store.close()


def blocks_root(blocks: list[Block]) -> bytes:
    from ledger import merkle

    return merkle.root([block.hash for block in blocks])


def test_after_a_rotation_the_old_key_may_not_continue(database_url: str) -> None:
    blocks = example_blocks()
    engine = stored(database_url, blocks[:4])

    with pytest.raises(StoreError, match=re.escape(f"must be signed by {key_text(NEW_KEY.public_key)}")):
        Store(engine).load_chain(OLD_KEY.public_key, OLD_KEY.sign)

    assert Store(engine).load_chain(NEW_KEY.public_key, NEW_KEY.sign).height == 3


def test_blocks_of_any_size_fit_the_statements(database_url: str) -> None:
    log = LogBuilder()
    blocks = []
    for size in (1, 3, 4, 5, 2_600, 1):
        for number in range(size):
            owner = number + 1
            log.add("credit_deposit", deposit(owner, SOL, owner), deposit(owner, SOL, 10**17 * owner))
        blocks.append(log.commit())

    store = Store(stored(database_url, blocks))

    assert [store.whole_block(height) for height in range(len(blocks))] == blocks


def test_attachments_commit_with_the_block_or_not_at_all(database_url: str) -> None:
    blocks = example_blocks()
    engine = opened(database_url)
    store = Store(engine)
    store.append(blocks[0], [lambda connection: save(connection, 0)])

    def fail(connection: sa.Connection) -> None:
        save(connection, 1)
        raise RuntimeError("the disk is full")

    with pytest.raises(StoreError, match="block 1 was not stored: the disk is full"):
        store.append(blocks[1], [fail])

    assert rows(engine, schema.snapshot) == 1
    assert rows(engine, schema.block) == 1
    assert rows(engine, schema.posting) == 0
    with pytest.raises(StoreError, match="block 2 refused: block 1 was not stored"):
        store.append(blocks[2])
    store.close()
    again = Store(engine)
    again.append(blocks[1])
    assert rows(engine, schema.block) == 2
    again.close()


def save(connection: sa.Connection, height: int) -> None:
    values = Snapshot(height, bytes(32), bytes(32), b"", bytes(32), bytes(64))._asdict()
    connection.execute(sa.insert(schema.snapshot), [values])


def rows(engine: sa.Engine, table: sa.Table) -> int:
    with engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def test_a_second_writer_is_kept_out(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LEASE_PATIENCE_SECONDS", 0.2)
    blocks = example_blocks()
    first = Store(opened(database_url))
    first.append(blocks[0])

    with pytest.raises(StoreError, match="another process is writing"):
        Store(open_engine(database_url)).append(blocks[1])

    first.append(blocks[1])
    first.close()
    second = Store(open_engine(database_url))
    second.append(blocks[2])
    second.close()


def test_a_writer_that_lost_its_lock_unawares_is_fenced(database_url: str) -> None:
    blocks = example_blocks()
    engine = opened(database_url)
    stale = Store(engine)
    stale.append(blocks[0])
    with engine.begin() as connection:
        connection.execute(sa.update(schema.tip).values(epoch=schema.tip.c.epoch + 1))

    with pytest.raises(StoreError, match="another writer continued the log: epoch 2 at block 0, this one has epoch 1"):
        stale.append(blocks[1])

    assert rows(engine, schema.block) == 1
    stale.close()


def test_snapshots_are_found_by_height(database_url: str) -> None:
    store = Store(opened(database_url))
    for height in (3, 9, 6):
        store.save_snapshot(Snapshot(height, bytes([height] * 32), bytes(32), b"state" * height, bytes(32), bytes(64)))
    store.save_snapshot(Snapshot(9, bytes([9] * 32), bytes(32), b"again", bytes(32), bytes(64)))

    assert store.newest_snapshot() == Snapshot(9, bytes([9] * 32), bytes(32), b"again", bytes(32), bytes(64))
    assert store.newest_snapshot(8) == Snapshot(6, bytes([6] * 32), bytes(32), b"state" * 6, bytes(32), bytes(64))
    assert store.newest_snapshot(2) is None


def test_readers_go_on_while_a_block_is_written(database_url: str) -> None:
    blocks = example_blocks()
    store = Store(opened(database_url))
    store.append(blocks[0])
    seen: list[int] = []

    def read(_connection: sa.Connection) -> None:
        reader = Store(open_engine(database_url, read_only=True))
        thread = threading.Thread(target=lambda: seen.append(len(list(reader.commands()))))
        thread.start()
        thread.join(10)

    store.append(blocks[1], [read])
    store.close()

    assert seen == [1]


def test_the_schema_of_the_code_is_the_schema_of_the_migrations(database_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    ours = {table.name for table in (*schema.APPEND_ONLY, schema.snapshot, schema.tip)}
    engine = opened(database_url)
    with engine.connect() as connection:
        # The other packages' tables are on the same metadata once they are imported; they have such a test each.
        options = {
            "include_name": lambda name, kind, _parents: kind != "table" or name in ours,
            "include_object": lambda thing, name, kind, _reflected, _other: (
                (name if kind == "table" else thing.table.name) in ours
            ),
        }
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, metadata)

    assert differences == []


def test_the_migration_can_be_taken_back(database_url: str) -> None:
    from alembic import command
    from alembic.config import Config

    from ledger.resources import migrations_dir

    engine = opened(database_url)
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with engine.connect() as connection:
        left = set(sa.inspect(connection).get_table_names())

    assert left <= {"alembic_version"}
    stored(database_url, example_blocks())


def test_a_full_disk_stops_the_writer_and_leaves_the_log_whole(sqlite_url: str) -> None:
    blocks = example_blocks()
    engine = opened(sqlite_url)
    store = Store(engine)
    store.append(blocks[0])
    pages = store.acquire().exec_driver_sql("PRAGMA page_count").scalar_one()
    store.acquire().exec_driver_sql(f"PRAGMA max_page_count={pages}")
    store.acquire().rollback()
    log = LogBuilder(chain=store.load_chain(OLD_KEY.public_key, OLD_KEY.sign))
    for owner in range(2_000):
        log.add("credit_deposit", deposit(owner, SOL, 1))
    large = log.commit()

    with pytest.raises(StoreError, match="block 1 was not stored: database or disk is full"):
        store.append(large)

    store.close()
    again = Store(open_engine(sqlite_url))
    assert again.block_hashes() == [blocks[0].hash]
    again.append(large)
    again.close()
    assert verify(open_engine(sqlite_url)).is_clean


@pytest.mark.node
def test_a_lost_connection_stops_the_writer_and_a_new_one_goes_on(postgres_url: str) -> None:
    blocks = example_blocks()
    engine = opened(postgres_url)
    store = Store(engine)
    store.append(blocks[0])
    with engine.connect() as other:
        other.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )

    with pytest.raises(StoreError, match="block 1 was not stored"):
        store.append(blocks[1])

    store.close()
    again = Store(open_engine(postgres_url))
    for block in blocks[1:]:
        again.append(block)
    again.close()
    assert verify(open_engine(postgres_url)).is_clean


def test_a_connection_lost_between_rows_and_commit_leaves_nothing(postgres_url: str) -> None:
    blocks = example_blocks()
    engine = opened(postgres_url)
    store = Store(engine)
    store.append(blocks[0])

    def cut(connection: sa.Connection) -> None:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with open_engine(postgres_url).connect() as other:
            other.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")

    with pytest.raises(StoreError):
        store.append(blocks[1], [cut])

    store.close()
    assert Store(engine).block_hashes() == [blocks[0].hash]
    assert verify(engine).is_clean


@pytest.mark.node
def test_the_writer_commits_durably_whatever_the_servers_default(postgres_url: str) -> None:
    opened(postgres_url)
    engine = sa.create_engine(postgres_url, connect_args={"options": "-c synchronous_commit=off"})
    store = Store(engine)

    setting = store.acquire().exec_driver_sql("SHOW synchronous_commit").scalar_one()

    assert setting == "on"
    store.close()


def test_sqlite_syncs_each_commit(sqlite_url: str) -> None:
    with opened(sqlite_url).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
