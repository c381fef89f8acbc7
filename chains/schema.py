"""The tables of the watcher, the payouts and the reconciliation, all named chain_… in the ledger's database.   [D-4]

Base units of a chain are decimal text: 2²⁵⁶ fits no integer column. Ledger atoms are 64-bit integers.
"""

from __future__ import annotations

import sqlalchemy as sa

from ledger.database import metadata

Identifier = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

cursors = sa.Table(
    "chain_cursors",
    metadata,
    sa.Column("chain_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("network", sa.Text, nullable=False),
    sa.Column("genesis_hash", sa.Text, nullable=False),
    sa.Column("height", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("decided_height", sa.BigInteger, nullable=False),
    sa.Column("final_height", sa.BigInteger, nullable=False),
    sa.Column("halted", sa.Text, nullable=False),
)

blocks = sa.Table(
    "chain_blocks",
    metadata,
    sa.Column("chain_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("parent", sa.Text, nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
)

addresses = sa.Table(
    "chain_addresses",
    metadata,
    sa.Column("id", Identifier, primary_key=True, autoincrement=True),
    sa.Column("chain_id", sa.Integer, nullable=False),
    sa.Column("wallet", sa.BigInteger, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.UniqueConstraint("chain_id", "address", name="uq_chain_addresses_address"),
    sa.UniqueConstraint("chain_id", "wallet", name="uq_chain_addresses_wallet"),
)

deposits = sa.Table(
    "chain_deposits",
    metadata,
    sa.Column("id", Identifier, primary_key=True, autoincrement=True),
    sa.Column("chain_id", sa.Integer, nullable=False),
    sa.Column("tx_id", sa.Text, nullable=False),
    sa.Column("idx", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("wallet", sa.BigInteger, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("sender", sa.Text, nullable=False),
    sa.Column("contract", sa.Text, nullable=False),
    sa.Column("asset_id", sa.Integer, nullable=True),
    sa.Column("amount", sa.Text, nullable=False),
    sa.Column("received", sa.Text, nullable=False),
    sa.Column("atoms", sa.BigInteger, nullable=False),
    sa.Column("height", sa.BigInteger, nullable=False),
    sa.Column("block_hash", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("final", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("seen_at_us", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("chain_id", "tx_id", "idx"),
    sa.Index("ix_chain_deposits_state", "chain_id", "state"),
    sa.Index("ix_chain_deposits_wallet", "wallet", "id"),
)

deposit_events = sa.Table(
    "chain_deposit_events",
    metadata,
    sa.Column("id", Identifier, primary_key=True, autoincrement=True),
    sa.Column("deposit_id", Identifier, sa.ForeignKey("chain_deposits.id"), nullable=False, index=True),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("height", sa.BigInteger, nullable=False),
    sa.Column("block_hash", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

dust = sa.Table(
    "chain_dust",
    metadata,
    sa.Column("chain_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("subaccount_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("asset_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("base", sa.Text, nullable=False),
)

rounding = sa.Table(
    "chain_rounding",
    metadata,
    sa.Column("chain_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("wallet", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("asset_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("base", sa.Text, nullable=False),
)

payouts = sa.Table(
    "chain_payouts",
    metadata,
    sa.Column("withdrawal_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("chain_id", sa.Integer, nullable=False),
    sa.Column("subaccount_id", sa.BigInteger, nullable=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("atoms", sa.BigInteger, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("approved_by", sa.Text, nullable=False),
    sa.Column("approved_at_us", sa.BigInteger, nullable=False),
    sa.Column("tx_id", sa.Text, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    sa.Index("ix_chain_payouts_state", "chain_id", "state"),
)

nonces = sa.Table(
    "chain_nonces",
    metadata,
    sa.Column("chain_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("wallet", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("nonce", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("contract", sa.Text, nullable=False),
    sa.Column("recipient", sa.Text, nullable=False),
    sa.Column("recipient_wallet", sa.BigInteger, nullable=True),
    sa.Column("amount", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("tx_id", sa.Text, nullable=False),
    sa.Column("height", sa.BigInteger, nullable=False),
    sa.Column("fee", sa.Text, nullable=False),
    sa.Column("reserved_at_us", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("chain_id", "reference"),
    sa.Index("ix_chain_nonces_state", "chain_id", "state"),
)

attempts = sa.Table(
    "chain_transactions",
    metadata,
    sa.Column("chain_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tx_id", sa.Text, primary_key=True),
    sa.Column("wallet", sa.BigInteger, nullable=False),
    sa.Column("nonce", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("cancels", sa.Boolean, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),
    sa.Column("max_fee", sa.Text, nullable=False),
    sa.Column("priority_fee", sa.Text, nullable=False),
    sa.Column("gas", sa.BigInteger, nullable=False),
    sa.Column("signed_at_us", sa.BigInteger, nullable=False),
    sa.Column("reply", sa.Text, nullable=False),
    sa.UniqueConstraint("chain_id", "wallet", "nonce", "attempt"),
)

alarms = sa.Table(
    "chain_alarms",
    metadata,
    sa.Column("id", Identifier, primary_key=True, autoincrement=True),
    sa.Column("chain_id", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("words", sa.Text, nullable=False),
    sa.Column("first_at_us", sa.BigInteger, nullable=False),
    sa.Column("last_at_us", sa.BigInteger, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("chain_id", "kind", "subject"),
)

reconciliations = sa.Table(
    "chain_reconciliations",
    metadata,
    sa.Column("id", Identifier, primary_key=True, autoincrement=True),
    sa.Column("chain_id", sa.Integer, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
    sa.Column("height", sa.BigInteger, nullable=False),
    sa.Column("block_hash", sa.Text, nullable=False),
    sa.Column("wallet", sa.BigInteger, nullable=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("ledger_base", sa.Text, nullable=False),
    sa.Column("explained_base", sa.Text, nullable=False),
    sa.Column("chain_base", sa.Text, nullable=False),
    sa.Column("difference_base", sa.Text, nullable=False),
    sa.Column("since_us", sa.BigInteger, nullable=True),
    sa.Index("ix_chain_reconciliations_at", "chain_id", "at_us"),
)
