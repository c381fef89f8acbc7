"""Proof of reserves: the log of epochs, append-only, and the leaves of the newest ones.   [R-20]

Revision 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "por_epoch",
        sa.Column("epoch", number, primary_key=True, autoincrement=False),
        sa.Column("hour", number, nullable=True, unique=True),
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
    op.create_table(
        "por_artifact",
        sa.Column("epoch", number, sa.ForeignKey("por_epoch.epoch"), primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    for statement in _guards():
        op.execute(sa.text(statement))


def downgrade() -> None:
    op.drop_table("por_artifact")
    op.drop_table("por_epoch")


def _guards() -> list[str]:
    """A published epoch is never changed or taken back."""
    if op.get_bind().dialect.name == "sqlite":
        return [
            f"""CREATE TRIGGER por_epoch_refuse_{change} BEFORE {change} ON por_epoch
            BEGIN SELECT RAISE(ABORT, 'por_epoch is append-only'); END"""
            for change in ("update", "delete")
        ]
    return postgresql_guards()


def postgresql_guards() -> list[str]:
    """The trigger, whose function came with revision 0001; `verify-journal` compares it with this text."""
    return [
        """CREATE TRIGGER por_epoch_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON por_epoch
        FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()"""
    ]
