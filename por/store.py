"""Epochs in SQL: rows, checkpoints and statements for ever, the leaves of the newest for serving proofs.   [R-20]

`por_epoch` is append-only (the database refuses update and delete); `por_artifact` holds what proofs are made from and
is emptied behind the newest epochs.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from ledger.database import metadata
from ledger.schema import Int
from por.epochs import Epoch, load_tree
from por.header import Header, Missed, row_from_text
from por.leaves import Leaves, restore_leaves
from por.log import Log, Sign, require_checkpoint

KEEP_LEAVES = 24 * 7
"""How many of the newest epochs keep their leaves: a customer has a week to fetch the proof of an hour."""

por_epoch = sa.Table(
    "por_epoch",
    metadata,
    sa.Column("epoch", Int, primary_key=True, autoincrement=False),
    sa.Column("hour", Int, nullable=True, unique=True),
    sa.Column("row_text", sa.Text, nullable=False),
    sa.Column("row_hash", sa.LargeBinary, nullable=False),
    sa.Column("checkpoint", sa.Text, nullable=False),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("prices", sa.Text, nullable=True),
    sa.Column("parameters", sa.Text, nullable=True),
    sa.Column("code_version", sa.Text, nullable=True),
    sa.Column("reserves", sa.Text, nullable=True),
    sqlite_strict=True,
)

por_artifact = sa.Table(
    "por_artifact",
    metadata,
    sa.Column("epoch", Int, sa.ForeignKey("por_epoch.epoch"), primary_key=True, autoincrement=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sqlite_strict=True,
)


class Checkpoint(NamedTuple):
    """A signed checkpoint and the key it is signed with."""

    text: str
    public_key: bytes


class LeavesGone(LookupError):
    """The epoch is published, but its leaves are no longer kept; the auditor's replay can rebuild them."""


class LeavesBroken(ValueError):
    """The epoch is published, but the leaves that are stored for it are not those that its header commits to."""


def publish(
    database: sa.Engine, log: Log, item: Epoch | Missed, sign: Sign, public_key: bytes, keep_leaves: int = KEEP_LEAVES
) -> str:
    """Append an epoch (or a missed hour) to the log: sign, make durable, then publish. Returns the checkpoint.

    One transaction. If it fails nothing changed, neither in SQL nor in `log`.   [R-20, R-24]
    """
    row = item.header if isinstance(item, Epoch) else item
    checkpoint = log.next_checkpoint(row, sign, public_key)
    values: dict[str, Any] = {
        "epoch": row.epoch,
        "hour": row.hour,
        "row_text": row.text(),
        "row_hash": row.hash(),
        "checkpoint": checkpoint,
        "public_key": public_key,
    }
    if isinstance(item, Epoch):
        values |= {
            "prices": item.prices,
            "parameters": item.parameters,
            "code_version": item.code_version,
            "reserves": item.reserves,
        }

    with database.begin() as connection:
        connection.execute(por_epoch.insert().values(values))
        if isinstance(item, Epoch):
            connection.execute(por_artifact.insert().values(epoch=row.epoch, body=_packed(item.leaves)))
        connection.execute(por_artifact.delete().where(por_artifact.c.epoch <= row.epoch - keep_leaves))

    log.append(row)
    return checkpoint


def load_log(database: sa.Engine) -> Log:
    """The whole log, checked row by row and against its newest checkpoint; ValueError says what is broken."""
    query = sa.select(por_epoch.c.row_text, por_epoch.c.row_hash).order_by(por_epoch.c.epoch)
    with database.connect() as connection:
        stored = connection.execute(query).all()
    log = Log()
    for text, row_hash in stored:
        row = row_from_text(text)
        if row.hash() != row_hash:
            raise ValueError(f"the stored row of epoch {row.epoch} has hash {row.hash().hex()}, not {row_hash.hex()}")
        log.append(row)

    newest = load_checkpoint(database)
    if newest is not None:
        require_checkpoint(log, newest.text, newest.public_key)
    return log


def load_checkpoint(database: sa.Engine, size: int | None = None) -> Checkpoint | None:
    """The checkpoint of a log of `size` rows, or the newest; None if there is none."""
    query = sa.select(por_epoch.c.checkpoint, por_epoch.c.public_key).order_by(por_epoch.c.epoch.desc()).limit(1)
    if size is not None:
        query = query.where(por_epoch.c.epoch == size - 1)
    with database.connect() as connection:
        found = connection.execute(query).first()
    return Checkpoint(found.checkpoint, found.public_key) if found else None


def load_epoch(database: sa.Engine, number: int) -> Epoch:
    """A published epoch with its leaves, checked against its header.

    Raises KeyError where there is no such epoch (a missed hour is none) LeavesGone where only its row is left,
    LeavesBroken where what is stored is not what was published.
    """
    with database.connect() as connection:
        row = connection.execute(sa.select(por_epoch).where(por_epoch.c.epoch == number)).mappings().first()
        body = connection.execute(sa.select(por_artifact.c.body).where(por_artifact.c.epoch == number)).scalar()
    header = row_from_text(row["row_text"]) if row else None
    if row is None or not isinstance(header, Header):
        raise KeyError(f"there is no epoch {number}")
    if body is None:
        raise LeavesGone(f"the leaves of epoch {number} are no longer kept")

    leaves = _unpacked(number, body)
    try:
        tree = load_tree(leaves, header)
    except ValueError as problem:
        raise LeavesBroken(str(problem)) from None
    return Epoch(
        header=header,
        prices=row["prices"],
        parameters=row["parameters"],
        code_version=row["code_version"],
        reserves=row["reserves"],
        leaves=leaves,
        tree=tree,
    )


def load_leaves(database: sa.Engine, number: int) -> Leaves | None:
    """The leaves stored for an epoch, whatever they hash to; None where there are none. Raises LeavesBroken."""
    with database.connect() as connection:
        body = connection.execute(sa.select(por_artifact.c.body).where(por_artifact.c.epoch == number)).scalar()
    return None if body is None else _unpacked(number, body)


def keeps_leaves(database: sa.Engine, number: int) -> bool:
    """True for the newest epochs, whose leaves must be there."""
    with database.connect() as connection:
        newest = connection.execute(sa.select(sa.func.max(por_epoch.c.epoch))).scalar_one()
    return number > int(newest) - KEEP_LEAVES


class _Artifact(msgspec.Struct):
    subaccount_ids: list[int]
    user_ids: list[int]
    details: list[str]
    salts: bytes
    amounts: bytes


def _packed(leaves: Leaves) -> bytes:
    artifact = _Artifact(
        leaves.subaccount_ids, leaves.user_ids, leaves.details, leaves.salts.tobytes(), leaves.amounts.tobytes()
    )
    # Level 1: amounts are mostly zero bytes and salts do not compress, so more effort buys nothing.
    return zlib.compress(msgspec.msgpack.encode(artifact), 1)


def _unpacked(epoch: int, body: bytes) -> Leaves:
    try:
        artifact = msgspec.msgpack.decode(zlib.decompress(body), type=_Artifact)
        return restore_leaves(
            epoch, artifact.subaccount_ids, artifact.user_ids, artifact.details, artifact.salts, artifact.amounts
        )
    except (zlib.error, msgspec.MsgspecError, ValueError, OverflowError) as problem:
        raise LeavesBroken(f"the stored leaves of epoch {epoch} ({len(body)} bytes) are damaged: {problem}") from None
