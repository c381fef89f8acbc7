"""The tables of the chains: cursor, blocks, deposits, payouts, nonces, reconciliation.   [D-4, D-8, D-11]"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "chain_addresses",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("chain_id", sa.Integer(), nullable=False),
        sa.Column("wallet", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_chain_addresses"),
        sa.UniqueConstraint("chain_id", "address", name="uq_chain_addresses_address"),
        sa.UniqueConstraint("chain_id", "wallet", name="uq_chain_addresses_wallet"),
    )
    op.create_table(
        "chain_alarms",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("chain_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("first_at_us", sa.BigInteger(), nullable=False),
        sa.Column("last_at_us", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_chain_alarms"),
        sa.UniqueConstraint("chain_id", "kind", "subject", name="uq_chain_alarms_chain_id"),
    )
    op.create_table(
        "chain_blocks",
        sa.Column("chain_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("height", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "height", name="pk_chain_blocks"),
    )
    op.create_table(
        "chain_cursors",
        sa.Column("chain_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("genesis_hash", sa.Text(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("decided_height", sa.BigInteger(), nullable=False),
        sa.Column("final_height", sa.BigInteger(), nullable=False),
        sa.Column("halted", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", name="pk_chain_cursors"),
    )
    op.create_table(
        "chain_deposits",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("chain_id", sa.Integer(), nullable=False),
        sa.Column("tx_id", sa.Text(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("wallet", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=True),
        sa.Column("amount", sa.Text(), nullable=False),
        sa.Column("received", sa.Text(), nullable=False),
        sa.Column("atoms", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("seen_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_chain_deposits"),
        sa.UniqueConstraint("chain_id", "tx_id", "idx", name="uq_chain_deposits_chain_id"),
    )
    op.create_index("ix_chain_deposits_state", "chain_deposits", ["chain_id", "state"], unique=False)
    op.create_index("ix_chain_deposits_wallet", "chain_deposits", ["wallet", "id"], unique=False)
    op.create_table(
        "chain_dust",
        sa.Column("chain_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("subaccount_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("asset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "subaccount_id", "asset_id", name="pk_chain_dust"),
    )
    op.create_table(
        "chain_nonces",
        sa.Column("chain_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("wallet", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("nonce", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("recipient_wallet", sa.BigInteger(), nullable=True),
        sa.Column("amount", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("tx_id", sa.Text(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("fee", sa.Text(), nullable=False),
        sa.Column("reserved_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "wallet", "nonce", name="pk_chain_nonces"),
        sa.UniqueConstraint("chain_id", "reference", name="uq_chain_nonces_chain_id"),
    )
    op.create_index("ix_chain_nonces_state", "chain_nonces", ["chain_id", "state"], unique=False)
    op.create_table(
        "chain_payouts",
        sa.Column("withdrawal_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chain_id", sa.Integer(), nullable=False),
        sa.Column("subaccount_id", sa.BigInteger(), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("atoms", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("approved_at_us", sa.BigInteger(), nullable=False),
        sa.Column("tx_id", sa.Text(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("withdrawal_id", name="pk_chain_payouts"),
    )
    op.create_index("ix_chain_payouts_state", "chain_payouts", ["chain_id", "state"], unique=False)
    op.create_table(
        "chain_reconciliations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("chain_id", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("wallet", sa.BigInteger(), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("ledger_base", sa.Text(), nullable=False),
        sa.Column("explained_base", sa.Text(), nullable=False),
        sa.Column("chain_base", sa.Text(), nullable=False),
        sa.Column("difference_base", sa.Text(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_chain_reconciliations"),
    )
    op.create_index("ix_chain_reconciliations_at", "chain_reconciliations", ["chain_id", "at_us"], unique=False)
    op.create_table(
        "chain_rounding",
        sa.Column("chain_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("wallet", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("asset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "wallet", "asset_id", name="pk_chain_rounding"),
    )
    op.create_table(
        "chain_transactions",
        sa.Column("chain_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tx_id", sa.Text(), nullable=False),
        sa.Column("wallet", sa.BigInteger(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("cancels", sa.Boolean(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("max_fee", sa.Text(), nullable=False),
        sa.Column("priority_fee", sa.Text(), nullable=False),
        sa.Column("gas", sa.BigInteger(), nullable=False),
        sa.Column("signed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "tx_id", name="pk_chain_transactions"),
        sa.UniqueConstraint("chain_id", "wallet", "nonce", "attempt", name="uq_chain_transactions_chain_id"),
    )
    op.create_table(
        "chain_deposit_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("deposit_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["deposit_id"], ["chain_deposits.id"], name="fk_chain_deposit_events_deposit_id"),
        sa.PrimaryKeyConstraint("id", name="pk_chain_deposit_events"),
    )
    op.create_index("ix_chain_deposit_events_deposit_id", "chain_deposit_events", ["deposit_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_chain_deposit_events_deposit_id", table_name="chain_deposit_events")
    op.drop_table("chain_deposit_events")
    op.drop_table("chain_transactions")
    op.drop_table("chain_rounding")
    op.drop_index("ix_chain_reconciliations_at", table_name="chain_reconciliations")
    op.drop_table("chain_reconciliations")
    op.drop_index("ix_chain_payouts_state", table_name="chain_payouts")
    op.drop_table("chain_payouts")
    op.drop_index("ix_chain_nonces_state", table_name="chain_nonces")
    op.drop_table("chain_nonces")
    op.drop_table("chain_dust")
    op.drop_index("ix_chain_deposits_wallet", table_name="chain_deposits")
    op.drop_index("ix_chain_deposits_state", table_name="chain_deposits")
    op.drop_table("chain_deposits")
    op.drop_table("chain_cursors")
    op.drop_table("chain_blocks")
    op.drop_table("chain_alarms")
    op.drop_table("chain_addresses")
