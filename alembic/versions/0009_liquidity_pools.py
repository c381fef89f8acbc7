"""History of liquidity pools: swaps, what providers moved, leveraged longs and how they ended, epochs.

Revision 0009, after 0008.   [X-1 … X-11]
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = ("history_swap", "history_liquidity", "history_long", "history_long_close", "history_pool_epoch")


def upgrade() -> None:
    op.create_table(
        "history_swap",
        *_keys("command_seq", "ordinal"),
        *_ints("pool_id", "subaccount_id"),
        _flag("is_native_paid"),
        *_digits("paid_atoms", "received_atoms", "fee_atoms"),
        *_ints("hop", "at_us"),
    )
    op.create_table(
        "history_liquidity",
        *_keys("command_seq", "ordinal"),
        *_ints("pool_id", "subaccount_id"),
        *_digits("native_atoms", "external_atoms", "units", "units_after"),
        *_ints("at_us"),
    )
    for table in ("history_swap", "history_liquidity"):
        for name in ("pool_id", "subaccount_id"):
            op.create_index(f"ix_{table}_{name}", table, [name, "command_seq", "ordinal"])
    op.create_table(
        "history_long",
        *_keys("position_id"),
        *_ints("subaccount_id", "pool_id"),
        _flag("is_native_collateral"),
        *_digits("collateral_atoms", "leverage", "owed_atoms", "custody_atoms", "fee_atoms", "health"),
        *_ints("opened_at_us"),
    )
    op.create_index("ix_history_long_subaccount_id", "history_long", ["subaccount_id", "position_id"])
    op.create_table(
        "history_long_close",
        *_keys("position_id"),
        _flag("forced"),
        *_digits("owed_atoms", "unpaid_atoms", "custody_atoms", "paid_atoms", "paid_custody_atoms", "health"),
        *_digits("repaid_atoms", "fee_atoms", "returned_atoms", "fund_atoms", "bad_debt_atoms", "covered_atoms"),
        *_ints("closed_at_us"),
    )
    op.create_table(
        "history_pool_epoch",
        *_keys("pool_id", "command_seq"),
        *_ints("epoch"),
        *_digits("health", "rate", "native_interest", "external_interest", "native_to_fund", "external_to_fund"),
        *_ints("charged", "forced", "failed", "at_us"),
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _keys(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, _number(), primary_key=True, autoincrement=False) for name in names]


def _ints(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, _number(), nullable=False) for name in names]


def _digits(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)
