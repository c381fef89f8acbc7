"""How a command finds a node's data and opens it for reading, running or stopped, original or copied.   [W-9]"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from ledger.database import database_url, open_engine
from tools.terminal import CannotRun


@contextmanager
def reading(data: Path, database: str | None) -> Iterator[sa.Engine]:
    """A read-only engine on the node's database, disposed of afterwards; nothing in the folder is created or changed.

    Raises CannotRun when there is no ledger there.
    """
    url = database_url(data, database)
    if not url.startswith("sqlite"):
        engine = open_engine(url, read_only=True)
        try:
            _require_ledger(engine, _without_password(url))
            yield engine
        finally:
            engine.dispose()
        return
    path = Path(sa.engine.make_url(url).database or "")
    if not path.is_file():
        raise CannotRun(
            f"no ledger at {path}",
            "give --data DIR, the folder that `satchel serve` wrote, or --database URL",
        )
    with readable_sqlite(path) as uri:
        # Quoted once more: SQLAlchemy takes one layer off, SQLite the other.
        engine = open_engine(f"sqlite:///{uri.replace('%', '%25')}&uri=true", read_only=True)
        try:
            _require_ledger(engine, str(path))
            yield engine
        finally:
            engine.dispose()


@contextmanager
def readable_sqlite(path: Path) -> Iterator[str]:
    """The SQLite URI that opens this file for reading without changing it or its neighbours.

    SQLite keeps what was committed last in FILE-wal, which belongs to the data: a node that was killed leaves it. To
    read one it needs FILE-shm, which it makes; on a read-only file system it cannot. There a file without a tail is
    opened as immutable, and one with a tail is copied to a temporary folder first.
    """
    if os.access(path.parent, os.W_OK):
        yield _uri(path, "mode=ro")
        return
    tail = path.with_name(path.name + "-wal")
    if not tail.exists() or tail.stat().st_size == 0:
        yield _uri(path, "mode=ro&immutable=1")
        return
    with tempfile.TemporaryDirectory(prefix="satchel-read-") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(tail, copy.with_name(tail.name))
        yield _uri(copy, "mode=ro")


def _uri(path: Path, options: str) -> str:
    return f"file:{quote(str(path.resolve()))}?{options}"


def _require_ledger(engine: sa.Engine, name: str) -> None:
    try:
        tables = sa.inspect(engine).get_table_names()
    except sa.exc.SQLAlchemyError as problem:
        reason = str(problem.__cause__ or problem).splitlines()[0]
        raise CannotRun(
            f"cannot open {name}: {reason}", "check the path or the URL, and that the server is up"
        ) from None
    if "journal" not in tables or "command" not in tables:
        raise CannotRun(f"{name} holds no ledger", "name the database of a Satchel node: --data DIR or --database URL")


def _without_password(url: str) -> str:
    return sa.engine.make_url(url).render_as_string(hide_password=True)
