"""History: what customers look up, derived from the log and rebuilt from it at any time.   [A-7]

Revision 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = (
    "history_cursor",
    "history_order",
    "history_fill",
    "history_trade",
    "history_kline",
    "history_deposit",
    "history_withdrawal",
)


def upgrade() -> None:
    op.create_table("history_cursor", _key("id"), _int("height"))
    op.create_table(
        "history_order",
        _key("order_id"),
        _int("client_id", nullable=True),
        *_ints("market_id", "subaccount_id", "user_id", "order_type", "side", "price_ticks", "lots"),
        _text("quote_atoms"),
        _int("executed_lots"),
        _text("executed_quote_atoms"),
        *_ints("status", "time_in_force"),
        *_flags("post_only", "reduce_only"),
        *_ints("self_trade", "created_at_us"),
        _int("expiry_reason", nullable=True),
    )
    op.create_index("ix_history_order_subaccount_id", "history_order", ["subaccount_id", "order_id"])
    op.create_table(
        "history_fill",
        _key("command_seq"),
        _key("ordinal"),
        *_ints("market_id", "trade_id", "order_id"),
        _int("client_id", nullable=True),
        *_ints("subaccount_id", "side", "price_ticks", "lots"),
        _text("quote_atoms"),
        _int("fee_asset_id"),
        _text("fee_atoms"),
        *_flags("is_maker"),
        _int("at_us"),
    )
    op.create_index("ix_history_fill_subaccount_id", "history_fill", ["subaccount_id", "command_seq", "ordinal"])
    op.create_index("ix_history_fill_order_id", "history_fill", ["order_id"])
    op.create_table(
        "history_trade",
        _key("market_id"),
        _key("trade_id"),
        *_ints("price_ticks", "lots"),
        _text("quote_atoms"),
        _int("at_us"),
        *_flags("is_buyer_maker"),
    )
    op.create_table(
        "history_kline",
        _key("market_id"),
        _key("period_s"),
        _key("start_s"),
        *_ints("open_ticks", "high_ticks", "low_ticks", "close_ticks"),
        _text("lots"),
        _text("quote_atoms"),
        _int("trades"),
    )
    op.create_table(
        "history_deposit",
        _key("deposit_id"),
        _int("chain_id"),
        _text("tx_id"),
        *_ints("tx_index", "wallet", "subaccount_id", "asset_id"),
        _text("atoms"),
        _text("state"),
        _int("created_at_us"),
    )
    op.create_index("ix_history_deposit_subaccount_id", "history_deposit", ["subaccount_id", "deposit_id"])
    op.create_table(
        "history_withdrawal",
        _key("withdrawal_id"),
        *_ints("subaccount_id", "chain_id", "asset_id"),
        _text("atoms"),
        _text("fee_atoms"),
        _text("address"),
        _text("client_id"),
        _text("state"),
        _text("tx_id"),
        _text("reason"),
        _int("created_at_us"),
    )
    op.create_index("ix_history_withdrawal_subaccount_id", "history_withdrawal", ["subaccount_id", "withdrawal_id"])


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, _number(), primary_key=True, autoincrement=False)


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, _number(), nullable=nullable)


def _ints(*names: str) -> list[sa.Column[int]]:
    return [_int(name) for name in names]


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _flags(*names: str) -> list[sa.Column[bool]]:
    return [sa.Column(name, sa.Boolean, nullable=False) for name in names]
