"""History of strategies, requests for quotes, quotes and their fills; which strategy an order belongs to.

Revision 0007, after 0006.   [S-7]
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = ("history_strategy", "history_rfq", "history_quote", "history_rfq_fill")


def upgrade() -> None:
    # No order that is there belongs to a strategy.
    op.add_column("history_order", sa.Column("strategy_id", _number(), nullable=False, server_default="0"))
    op.create_table("history_strategy", _key("strategy_id"), *_ints("subaccount_id", "market_id"), _text("view"))
    op.create_index("ix_history_strategy_subaccount_id", "history_strategy", ["subaccount_id", "strategy_id"])
    op.create_table(
        "history_rfq", _key("rfq_id"), *_ints("subaccount_id", "market_id", "side", "status"), _text("view")
    )
    op.create_index("ix_history_rfq_subaccount_id", "history_rfq", ["subaccount_id", "rfq_id"])
    op.create_table("history_quote", _key("quote_id"), *_ints("subaccount_id", "market_id", "status"), _text("view"))
    op.create_index("ix_history_quote_subaccount_id", "history_quote", ["subaccount_id", "quote_id"])
    op.create_table(
        "history_rfq_fill",
        _key("quote_id"),
        *_ints("subaccount_id", "quoter_id", "market_id", "side", "at_us"),
        _text("filled"),
    )
    op.create_index("ix_history_rfq_fill_subaccount_id", "history_rfq_fill", ["subaccount_id", "quote_id"])
    op.create_index("ix_history_rfq_fill_quoter_id", "history_rfq_fill", ["quoter_id", "quote_id"])


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    op.drop_column("history_order", "strategy_id")


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, _number(), primary_key=True, autoincrement=False)


def _ints(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, _number(), nullable=False) for name in names]


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)
