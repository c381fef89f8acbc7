"""The history tables held against the log: a replay makes every row again, and each stored one must be it.   [A-10]"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from api.history import schema
from api.history.following import BATCH_OUTCOMES
from api.history.writing import Writer
from engine.events import Outcome

TABLES = [table for table in schema.TABLES if table is not schema.cursor]
_ROWS_AT_ONCE = 5_000
_SHOWN = 80
"""Characters of a value that a difference shows."""

Row = tuple[Any, ...]


@contextmanager
def stored_history(engine: sa.Engine) -> Iterator[StoredHistory]:
    """The stored history as it stands now, to be held against a replay.

    One transaction reads all of it: a running node writes on, and what it writes later is not looked at.
    """
    with engine.connect() as stored, _temporary().connect() as anew:
        if engine.dialect.name == "postgresql":
            stored = stored.execution_options(isolation_level="REPEATABLE READ")
        yield StoredHistory(stored, anew)


class StoredHistory:
    """Stored rows and rows made anew: `begin`, `take` every block from genesis on, then ask for `differences`."""

    def __init__(self, stored: sa.Connection, anew: sa.Connection) -> None:
        self.rows = 0
        self.compared = False
        self.why_not = "the replay ended before"
        """Why nothing was compared, as long as nothing is."""
        self._stored = stored
        self._anew = anew
        self._writer: Writer | None = None
        self._waiting: list[tuple[int, list[Outcome]]] = []
        self._outcomes = 0
        self._cursor = _cursor_rows(stored)
        self.last = _height(self._cursor)
        """The newest block that the stored history contains; -1 for none."""

    def begin(self, wanted: bool, first: int, until: int | None) -> None:
        """A replay of the blocks from `first` to `until`, or to the end of the log, comes; `why_not` if not enough."""
        if not wanted:
            self.why_not = "--no-history"
        elif self._cursor is None:
            self.why_not = "the database has none"
        elif first > 0:
            self.why_not = f"this replay begins at block {first}, not at genesis"
        elif until is not None and self.last > until:
            self.why_not = f"it goes on to block {self.last}, behind the end of this replay"
        else:
            self._writer = Writer(self._anew)

    def take(self, height: int, outcomes: list[Outcome]) -> None:
        """Make the rows of a replayed block, as the node's own writer does; what history has not reached is left."""
        if self._writer is None or height > self.last:
            return
        self._waiting.append((height, outcomes))
        self._outcomes += len(outcomes)
        if self._outcomes >= BATCH_OUTCOMES:
            self._write()

    def differences(self, height: int) -> list[str]:
        """The first difference of each table, with all blocks to `height` replayed; none when all rows are equal."""
        if self._writer is None:
            return []
        self._write()
        self.compared = True
        if self._cursor and self.last < 0:
            return [f"history_cursor: stored {_shown(self._cursor)}, it holds one row: id 1 and the height of a block"]
        if self.last > height:
            return [f"history_cursor (id 1): stored height {self.last}, the log ends at block {height}"]
        found = [self._difference(table) for table in TABLES]
        return [one for one in found if one is not None]

    def _write(self) -> None:
        if self._writer is not None and self._waiting:
            self._writer.write(self._waiting)
            self._waiting, self._outcomes = [], 0

    def _difference(self, table: sa.Table) -> str | None:
        none: list[Row] = []
        for stored, made in zip_longest(_parts(self._stored, table), _parts(self._anew, table), fillvalue=none):
            if stored != made:
                return next(_named(table, *pair) for pair in zip_longest(stored, made) if pair[0] != pair[1])
            self.rows += len(made)
        return None

    def report(self) -> dict[str, Any]:
        """What was compared, for the replay's report."""
        if not self.compared:
            return {"compared": False, "reason": self.why_not}
        return {"compared": True, "toBlock": self.last, "rows": self.rows}


def history_words(report: dict[str, Any]) -> str:
    """The report in a line of words."""
    if not report["compared"]:
        return f"history: not compared, {report['reason']}"
    return f"history: rows made again and compared, to block {report['toBlock']}: {report['rows']}"


def _cursor_rows(stored: sa.Connection) -> list[Row] | None:
    if not sa.inspect(stored).has_table(schema.cursor.name):
        return None
    return [row for part in _parts(stored, schema.cursor) for row in part]


def _height(cursor: list[Row] | None) -> int:
    """The height that the cursor's one row states; -1 where there is none, or no such row."""
    if cursor is None or len(cursor) != 1:
        return -1
    number, height = cursor[0]
    return height if number == 1 and isinstance(height, int) else -1


def _temporary() -> sa.Engine:
    """An empty history in SQLite's own temporary file: a long log's rows do not have to fit into memory."""
    engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(""))
    with engine.begin() as connection:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536"):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        for table in schema.TABLES:
            # Without its indexes: it is read in the order of its key.
            connection.execute(CreateTable(table))
    return engine


def _parts(connection: sa.Connection, table: sa.Table) -> Iterator[list[Row]]:
    """All rows in the order of the key, as the driver gives them, some at a time: whole lists compare fast."""
    # Named without their types: a flag of 2 is read as true by one that has its type.
    columns: list[sa.ColumnElement[Any]] = [sa.literal_column(column.name) for column in table.c]
    query = sa.select(*columns).select_from(table).order_by(*table.primary_key.columns)
    result = connection.execute(query, execution_options={"stream_results": True})
    for part in result.partitions(_ROWS_AT_ONCE):
        yield list(map(tuple, part))


def _named(table: sa.Table, stored: Row | None, made: Row | None) -> str:
    """What differs first: a row too many, a row too few, or a column with both its values."""
    names = [column.name for column in table.c]
    width = len(table.primary_key.columns)
    if made is None or (stored is not None and not _is_key(stored[:width])):
        assert stored is not None
        return f"{table.name} ({_keyed(names, stored, width)}): a row is stored that the log does not make"
    if stored is None or stored[:width] > made[:width]:
        return f"{table.name} ({_keyed(names, made, width)}): no row is stored, the log makes one"
    if stored[:width] < made[:width]:
        return f"{table.name} ({_keyed(names, stored, width)}): a row is stored that the log does not make"
    at = next(at for at, value in enumerate(stored) if value != made[at])
    where = f"{table.name} ({_keyed(names, made, width)})"
    return f"{where}: stored {names[at]} {_shown(stored[at])}, replay gives {_shown(made[at])}"


def _is_key(key: Row) -> bool:
    # SQLite keeps any text where a number should be; it could not even be put in order with one.
    return all(isinstance(value, int) for value in key)


def _keyed(names: list[str], row: Row, width: int) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in zip(names[:width], row, strict=False))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
