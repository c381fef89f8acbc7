"""History of the money markets: movements of loans, the loans, each market hour by hour; dust.   [B-12, B-13, S-3]

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = ("history_lending", "history_loan", "history_pool", "history_dust")


def upgrade() -> None:
    op.create_table(
        "history_lending",
        _key("command_seq"),
        _key("ordinal"),
        *_ints("subaccount_id", "asset_id", "event", "source"),
        *_texts("atoms", "position_atoms", "position_shares"),
        *_ints("position_id", "order_id", "at_us", "period"),
    )
    for owner in ("subaccount_id", "position_id"):
        op.create_index(f"ix_history_lending_{owner}", "history_lending", [owner, "command_seq", "ordinal"])
    op.create_table(
        "history_loan",
        _key("position_id"),
        *_ints("subaccount_id", "asset_id", "side", "source", "opened_at_us", "first_period"),
        *_ints("closed_at_us", "last_period", nullable=True),
        *_ints("moved_at_us"),
        *_texts("moved_atoms", "position_atoms", "position_shares", "flow_atoms", "atom_ms"),
    )
    op.create_index("ix_history_loan_subaccount_id", "history_loan", ["subaccount_id", "position_id"])
    op.create_table(
        "history_pool",
        _key("asset_id"),
        _key("period"),
        *_ints("hour"),
        *_texts("lent_atoms", "borrowed_atoms", "fee_atoms", "lend_shares", "debt_shares", "borrow_rate"),
        *_ints("fee_rate"),
    )
    op.create_table(
        "history_dust",
        _key("dust_id"),
        *_ints("subaccount_id", "asset_id"),
        *_texts("atoms", "usdc_atoms"),
        *_ints("at_us"),
    )
    op.create_index("ix_history_dust_subaccount_id", "history_dust", ["subaccount_id", "dust_id"])


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, _number(), primary_key=True, autoincrement=False)


def _ints(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, _number(), nullable=nullable) for name in names]


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]
