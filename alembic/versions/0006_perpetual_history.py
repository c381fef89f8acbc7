"""History of perpetuals: positions and their changes, funding, settlement ticks, liquidations; who made an order.

Revision 0006, after 0005.   [C-5, P-22, S-10, L-10]
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = (
    "history_position",
    "history_position_change",
    "history_funding",
    "history_tick",
    "history_settlement",
    "history_shared_loss",
    "history_liquidation",
)


def upgrade() -> None:
    # Rows that are there are of users' plain orders.
    op.add_column("history_order", sa.Column("terms", sa.Text, nullable=False, server_default=""))
    op.add_column("history_fill", sa.Column("origin", _number(), nullable=False, server_default="0"))
    op.create_table(
        "history_position",
        _key("position_id"),
        *_ints("subaccount_id", "market_id"),
        sa.Column("is_long", sa.Boolean, nullable=False),
        *_ints("lots"),
        *_texts("entry_atoms", "traded_atoms", "cost_atoms", "settled", "fee_atoms", "funding_atoms"),
        *_ints("opened_at_us"),
        *_ints("closed_at_us", nullable=True),
        *_texts("closed_lots", "closed_atoms", "liquidated_lots", "liquidation_fee_atoms", "mark"),
    )
    op.create_index("ix_history_position_subaccount_id", "history_position", ["subaccount_id", "position_id"])
    op.create_table(
        "history_position_change",
        _key("command_seq"),
        _key("ordinal"),
        *_ints("subaccount_id", "market_id", "position_id", "change", "origin", "lots"),
        *_texts("entry_atoms", "cost_atoms", "settled", "mark"),
        *_ints("at_us"),
    )
    op.create_index(
        "ix_history_position_change_subaccount_id",
        "history_position_change",
        ["subaccount_id", "market_id", "command_seq", "ordinal"],
    )
    op.create_table(
        "history_funding",
        _key("market_id"),
        _key("command_seq"),
        *_ints("interval_end_us", "rate"),
        *_texts("mark", "premium", "funding_index"),
    )
    op.create_table(
        "history_tick",
        _key("market_id"),
        _key("command_seq"),
        *_ints("previous_seq"),
        *_texts("previous_mark", "mark"),
        *_ints("at_us"),
    )
    op.create_table(
        "history_settlement",
        _key("command_seq"),
        _key("ordinal"),
        *_ints("subaccount_id"),
        *_texts("source", "atoms"),
        *_ints("at_us"),
    )
    op.create_index(
        "ix_history_settlement_subaccount_id", "history_settlement", ["subaccount_id", "command_seq", "ordinal"]
    )
    op.create_table(
        "history_shared_loss",
        _key("command_seq"),
        _key("ordinal"),
        *_ints("market_id"),
        sa.Column("is_long_side", sa.Boolean, nullable=False),
        *_texts("atoms", "per_lot"),
        *_ints("at_us"),
    )
    op.create_table(
        "history_liquidation",
        _key("command_seq"),
        _key("ordinal"),
        *_ints("subaccount_id"),
        *_texts("stage", "equity_usd", "maintenance_usd", "notional_usd"),
        *_ints("market_id", "asset_id"),
        *_texts("quantity", "price", "mark", "fee_atoms", "equity_after_usd", "maintenance_after_usd"),
        *_ints("counterparty_id", "at_us"),
    )
    op.create_index(
        "ix_history_liquidation_subaccount_id", "history_liquidation", ["subaccount_id", "command_seq", "ordinal"]
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    op.drop_column("history_fill", "origin")
    op.drop_column("history_order", "terms")


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, _number(), primary_key=True, autoincrement=False)


def _ints(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, _number(), nullable=nullable) for name in names]


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]
