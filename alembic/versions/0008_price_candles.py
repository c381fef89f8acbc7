"""Candles of marks and indexes.

Revision 0008, after 0007.   [P-1, P-2, W-3]
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    keys = ("market_id", "is_index", "period_s", "start_s")
    op.create_table(
        "history_price",
        *(sa.Column(name, number, primary_key=True, autoincrement=False) for name in keys),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("open", "high", "low", "close")),
    )


def downgrade() -> None:
    op.drop_table("history_price")
