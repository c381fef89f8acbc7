"""What the signed journal says of deposits and withdrawals, for a reconciliation without a running engine.   [D-11]"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from chains.exchange import Withdrawal
from engine.commands import ApproveWithdrawal, decode
from ledger import balances, schema
from ledger.amounts import join_atoms
from ledger.chart import AccountKind, custody_account, kind_of
from ledger.journal import JournalKind, decode_memo


class JournalBooks:
    """Implements `chains.reconciliation.Books` from journal and log. Each answer reads the database as it stands."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def ledger_balance(self, chain_id: int, wallet: int, asset_id: int) -> int:
        """Atoms of the wallet's custody account."""
        return balances.balance(self._engine, custody_account(chain_id, wallet), asset_id)

    def withdrawal(self, withdrawal_id: int) -> Withdrawal | None:
        """A withdrawal that was requested and neither settled nor released; `atoms` is what its recipient gets."""
        for kind in (JournalKind.WITHDRAWAL_SETTLED, JournalKind.WITHDRAWAL_RELEASED):
            if any(memo[0] == withdrawal_id for _, _, memo in self.entries(kind)):
                return None
        for seq, at_us, memo in self.entries(JournalKind.WITHDRAWAL_REQUESTED):
            number, subaccount_id, chain_id, address, fee = memo[:5]
            if number == withdrawal_id:
                asset_id, atoms = self.taken(seq, AccountKind.WITHDRAWING)
                return Withdrawal(
                    number, subaccount_id, chain_id, asset_id, atoms - fee, fee, address, at_us,
                    "approved" if self._is_approved(withdrawal_id) else "requested",
                )  # fmt: skip
        return None

    def is_credited(self, chain_id: int, tx_id: str, index: int) -> bool:
        """Whether an outpoint was credited and not reversed."""
        key = (chain_id, tx_id, index)
        credited = any(tuple(memo[:3]) == key for _, _, memo in self.entries(JournalKind.DEPOSIT))
        return credited and not any(
            tuple(memo[:3]) == key for _, _, memo in self.entries(JournalKind.DEPOSIT_REVERSED)
        )

    def _is_approved(self, withdrawal_id: int) -> bool:
        table = schema.command
        query = sa.select(table.c.payload).where(table.c.kind == "ApproveWithdrawal", table.c.outcome == 0)
        with self._engine.connect() as connection:
            approvals = [decode(payload) for (payload,) in connection.execute(query)]
        return any(isinstance(each, ApproveWithdrawal) and each.withdrawal_id == withdrawal_id for each in approvals)

    def taken(self, seq: int, kind: AccountKind) -> tuple[int, int]:
        """(asset, atoms) that a transaction moved on its one account of this kind: what was held back, what came in."""
        table = schema.posting
        query = sa.select(table).where(table.c.journal_seq == seq)
        with self._engine.connect() as connection:
            legs = [
                (row.asset, abs(join_atoms(row.atoms_high, row.atoms)))
                for row in connection.execute(query)
                if kind_of(row.account) == kind
            ]
        # A journal that was tampered with may have none: nothing was taken then.
        return legs[0] if len(legs) == 1 else (0, 0)

    def entries(self, kind: JournalKind) -> Iterator[tuple[int, int, Any]]:
        """(seq, time, memo) of every journal transaction of a kind, oldest first."""
        table = schema.journal
        query = sa.select(table.c.seq, table.c.at_us, table.c.memo).where(table.c.kind == kind).order_by(table.c.seq)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        for seq, at_us, memo in rows:
            yield seq, at_us, decode_memo(bytes(memo))
