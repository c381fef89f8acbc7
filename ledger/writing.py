"""How one block's rows get into SQL fastest: multi-row statements on SQLite, binary COPY on PostgreSQL.   [A-14]"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from struct import Struct
from typing import Any

import sqlalchemy as sa

from ledger.amounts import ATOMS_SPLIT, split_atoms
from ledger.blocks import Block
from ledger.journal import PostingBatch

_SQLITE_PARAMETERS = 32_766
"""SQLITE_MAX_VARIABLE_NUMBER as SQLite is built by default since 3.32."""

_WIDTH = {"command": 13, "journal": 9, "posting": 6, "posting_batch": 10, "block": 14}
_NO_REQUEST = (None,) * 6


def raw(connection: sa.Connection) -> Any:
    """The driver's own connection."""
    return connection.connection.driver_connection


def insert_sqlite(connection: sa.Connection, block: Block) -> None:
    """Write the block's rows in a handful of statements.

    `executemany` steps row by row and takes the interpreter lock back after each, so that every row would wait for the
    engine's thread. One statement with thousands of rows leaves and enters Python once.
    """
    cursor = raw(connection).cursor()
    try:
        _insert(cursor, "command", _command_values(block))
        _insert(cursor, "journal", _journal_values(block))
        _insert(cursor, "posting", _posting_values(block))
        _insert(cursor, "posting_batch", _batch_values(block))
        _insert(cursor, "block", [*block.header, block.hash, block.signature])
    finally:
        cursor.close()


def _insert(cursor: Any, table: str, values: list[Any]) -> None:
    width = _WIDTH[table]
    most = _SQLITE_PARAMETERS // width * width
    for start in range(0, len(values), most):
        part = values[start : start + most] if len(values) > most else values
        rows = len(part) // width
        # Few distinct statements, so that the driver's cache keeps them compiled: fill up with rows that are left out.
        size = min(max(4, 1 << (rows - 1).bit_length()), most // width)
        part.extend([None] * ((size - rows) * width))
        cursor.execute(_insert_statement(table, width, size), part)


@cache
def _insert_statement(table: str, width: int, rows: int) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return f"INSERT INTO {table} SELECT * FROM (VALUES {','.join([row] * rows)}) WHERE column1 IS NOT NULL"  # noqa: S608


def _command_values(block: Block) -> list[Any]:
    height = block.header.height
    values: list[Any] = []
    for seq, at_us, outcome, kind, payload, request, digest in block.commands:
        values += (seq, at_us, outcome, kind, payload, *(request or _NO_REQUEST), height, digest)
    return values


def _journal_values(block: Block) -> list[Any]:
    height = block.header.height
    values: list[Any] = []
    for seq, command_seq, at_us, kind, memo, postings, batches, digest in block.journal:
        values += (seq, command_seq, at_us, int(kind), memo, len(postings), len(batches), height, digest)
    return values


def _posting_values(block: Block) -> list[Any]:
    values: list[Any] = []
    for entry in block.journal:
        seq, line = entry[0], 0
        for account, asset, atoms in entry[5]:
            high = 0
            if not -ATOMS_SPLIT < atoms < ATOMS_SPLIT:
                high, atoms = split_atoms(atoms)
            values += (seq, line, account, asset, high, atoms)
            line += 1
    return values


def _batch_values(block: Block) -> list[Any]:
    values: list[Any] = []
    for seq, line, batch in _batches(block):
        owners, atoms = batch.owners.astype(">i8").tobytes(), batch.atoms.astype(">i8").tobytes()
        values += (seq, line, int(batch.account_kind), batch.asset, len(batch.owners), *split_atoms(batch.total))
        values += (owners, atoms, batch.root)
    return values


def _batches(block: Block) -> Iterator[tuple[int, int, PostingBatch]]:
    for entry in block.journal:
        for line, batch in enumerate(entry.batches):
            yield entry.seq, line, batch


_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TAIL = b"\xff\xff"
_POSTING = Struct(">h" + "iq" * 6).pack
_JOURNAL_HEAD = Struct(">h" + "iq" * 4 + "i").pack
_JOURNAL_TAIL = Struct(">" + "iq" * 3 + "i32s").pack
_COMMAND_HEAD = Struct(">h" + "iq" * 3 + "i").pack
_COMMAND_REQUEST = Struct(">i32si64si").pack
_COMMAND_TIMES = Struct(">" + "iq" * 3).pack
_COMMAND_TAIL = Struct(">iqi32s").pack
_LENGTH = Struct(">i").pack
_NO_REQUEST_COPY = b"\xff\xff\xff\xff" * 6


def copy_postgresql(connection: sa.Connection, block: Block) -> None:
    """Write the block's rows by binary COPY, one per table, packed here: half the time of the driver's row by row."""
    with raw(connection).cursor() as cursor:
        _copy(cursor, "command", _copy_commands(block))
        if block.journal:
            _copy(cursor, "journal", _copy_journal(block))
            _copy(cursor, "posting", _copy_postings(block))
            batches = _batch_values(block)
            width = _WIDTH["posting_batch"]
            for start in range(0, len(batches), width):
                cursor.execute(_POSTING_BATCH_INSERT, batches[start : start + width])
        cursor.execute(_BLOCK_INSERT, [*block.header, block.hash, block.signature])


_POSTING_BATCH_INSERT = "INSERT INTO posting_batch VALUES (" + ",".join(["%b"] * _WIDTH["posting_batch"]) + ")"  # noqa: S608
_BLOCK_INSERT = "INSERT INTO block VALUES (" + ",".join(["%b"] * _WIDTH["block"]) + ")"  # noqa: S608


def _copy(cursor: Any, table: str, parts: list[bytes]) -> None:
    with cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(b"".join((_COPY_HEAD, *parts, _COPY_TAIL)))


def _copy_commands(block: Block) -> list[bytes]:
    height = block.header.height
    parts: list[bytes] = []
    for seq, at_us, outcome, kind, payload, request, digest in block.commands:
        name = kind.encode()
        parts += (
            _COMMAND_HEAD(13, 8, seq, 8, at_us, 8, outcome, len(name)),
            name,
            _LENGTH(len(payload)),
            payload,
        )
        if request is None:
            parts.append(_NO_REQUEST_COPY)
        else:
            key, signature, text, timestamp, window, received = request
            assert len(key) == 32 and len(signature) == 64, f"command {seq}: key or signature of wrong length"
            parts += (
                _COMMAND_REQUEST(32, key, 64, signature, len(text)),
                text,
                _COMMAND_TIMES(8, timestamp, 8, window, 8, received),
            )
        parts.append(_COMMAND_TAIL(8, height, 32, digest))
    return parts


def _copy_journal(block: Block) -> list[bytes]:
    height = block.header.height
    parts: list[bytes] = []
    for seq, command_seq, at_us, kind, memo, postings, batches, digest in block.journal:
        parts += (
            _JOURNAL_HEAD(9, 8, seq, 8, command_seq, 8, at_us, 8, kind, len(memo)),
            memo,
            _JOURNAL_TAIL(8, len(postings), 8, len(batches), 8, height, 32, digest),
        )
    return parts


def _copy_postings(block: Block) -> list[bytes]:
    parts: list[bytes] = []
    append = parts.append
    for entry in block.journal:
        seq, line = entry[0], 0
        for account, asset, atoms in entry[5]:
            high = 0
            if not -ATOMS_SPLIT < atoms < ATOMS_SPLIT:
                high, atoms = split_atoms(atoms)
            append(_POSTING(6, 8, seq, 8, line, 8, account, 8, asset, 8, high, 8, atoms))
            line += 1
    return parts
