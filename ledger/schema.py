"""The ledger's tables as SQLAlchemy sees them; the migrations create them, with their triggers.   [A-8, A-14]

`command`, `journal`, `posting`, `posting_batch` and `block` are append-only. `tip` has one row: where the log ends and
which writer may continue it. Numbers are 64-bit, bytes are bytes, an amount is two columns (`amounts.split_atoms`).
"""

from __future__ import annotations

import sqlalchemy as sa

from ledger.database import metadata

Int = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""64 bits on both: SQLite's INTEGER is, and its STRICT tables know no BIGINT."""


def _key(name: str) -> sa.Column[int]:
    # autoincrement=False: the sequencer numbers rows; a database sequence would leave gaps and be a hot spot.  
    return sa.Column(name, Int, primary_key=True, autoincrement=False)


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, Int, nullable=nullable)


def _bytes(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=nullable)


command = sa.Table(
    "command",
    metadata,
    _key("seq"),
    _int("at_us"),
    _int("outcome"),
    sa.Column("kind", sa.Text, nullable=False),
    _bytes("payload"),
    _bytes("api_key", nullable=True),
    _bytes("signature", nullable=True),
    _bytes("signed_text", nullable=True),
    _int("timestamp_ms", nullable=True),
    _int("window_ms", nullable=True),
    _int("received_ms", nullable=True),
    _int("block_height"),
    _bytes("hash"),
    sqlite_strict=True,
)

journal = sa.Table(
    "journal",
    metadata,
    _key("seq"),
    _int("command_seq"),
    _int("at_us"),
    _int("kind"),
    _bytes("memo"),
    _int("posting_count"),
    _int("batch_count"),
    _int("block_height"),
    _bytes("hash"),
    sqlite_strict=True,
)

posting = sa.Table(
    "posting",
    metadata,
    _key("journal_seq"),
    _key("line"),
    _int("account"),
    _int("asset"),
    _int("atoms_high"),
    _int("atoms"),
    sa.Index("ix_posting_account", "account", "asset", "journal_seq"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

posting_batch = sa.Table(
    "posting_batch",
    metadata,
    _key("journal_seq"),
    _key("line"),
    _int("account_kind"),
    _int("asset"),
    _int("row_count"),
    _int("total_high"),
    _int("total"),
    _bytes("owners"),
    _bytes("atoms"),
    _bytes("root"),
    sqlite_strict=True,
)
"""`owners` and `atoms` are the batch's columns as big-endian 64-bit integers, in row order."""

block = sa.Table(
    "block",
    metadata,
    _key("height"),
    _bytes("previous_hash"),
    _int("at_us"),
    _int("first_command"),
    _int("command_count"),
    _bytes("commands_root"),
    _int("first_journal"),
    _int("journal_count"),
    _bytes("journal_root"),
    _bytes("journal_head"),
    _bytes("log_root"),
    _bytes("public_key"),
    _bytes("hash"),
    _bytes("signature"),
    sqlite_strict=True,
)

snapshot = sa.Table(
    "snapshot",
    metadata,
    _key("height"),
    _bytes("block_hash"),
    _bytes("state_hash"),
    _bytes("content"),
    _bytes("public_key"),
    _bytes("signature"),
    sqlite_strict=True,
)

tip = sa.Table(
    "tip",
    metadata,
    _key("one"),
    _int("epoch"),
    _int("height"),
    _bytes("block_hash"),
    _int("next_command"),
    _int("next_journal"),
    _int("open_command"),
    _int("open_journal"),
    sa.Column(
        "open_height", Int, sa.ForeignKey("block.height", deferrable=True, initially="DEFERRED"), nullable=True
    ),
    _bytes("log_peaks"),
    sa.CheckConstraint("one = 1", name="one"),
    sqlite_strict=True,
)
"""`epoch` fences writers. The first row of a new block sets the `open_…` columns, the block's own row closes them; a
commit in between fails, for `open_height` names a block that is not there. `log_peaks` is the block log's tree before
the newest block, so that its root can be held against that block's `log_root`."""

APPEND_ONLY = (command, journal, posting, posting_batch, block)
