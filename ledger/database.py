"""How a database is opened: one URL, SQLite or PostgreSQL, with the settings that make a commit durable.   [A-14]"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from ledger.resources import migrations_dir

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of every package: the ledger's, the chains' (`chain_…`) and the proof of reserves' (`por_…`)."""


def database_url(data: Path, database: str | None) -> str:
    """The URL to open: the one given, or the SQLite file of the data folder."""
    if database is None:
        return f"sqlite:///{data / 'ledger.db'}"
    if database.startswith(("postgresql://", "postgres://")):
        return "postgresql+psycopg://" + database.split("://", 1)[1]
    return database


def open_engine(url: str, *, read_only: bool = False) -> sa.Engine:
    """An engine on `url`. SQLite: WAL, FULL sync, writers begin IMMEDIATE; PostgreSQL: psycopg 3.

    `synchronous=FULL` is what makes an acknowledged commit survive a power cut.   [A-7, A-9]
    """
    if url.startswith("sqlite"):
        engine = sa.create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})
        event.listen(engine, "connect", _sqlite_read_only if read_only else _sqlite_durable)
        event.listen(engine, "begin", _sqlite_begin_reading if read_only else _sqlite_begin_writing)
        return engine
    options = "-c default_transaction_read_only=on" if read_only else ""
    return sa.create_engine(url, pool_pre_ping=False, connect_args={"options": options} if options else {})


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that only reads. On SQLite it takes no write lock, even on a writing engine."""
    with engine.connect() as connection:
        yield connection.execution_options(satchel_reads=True)


def upgrade(engine: sa.Engine) -> None:
    """Bring the schema to the newest version through the packaged Alembic migrations.   [A-14]"""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_dir()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _sqlite_durable(connection: Any, _record: Any) -> None:
    # The driver must not open transactions by itself: `begin` below says IMMEDIATE, so two writers queue, not fail.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_read_only(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON")


def _sqlite_begin_writing(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("satchel_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _sqlite_begin_reading(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")
