"""What the journal calls paid, reversed or funded is looked up on the chain, transaction by transaction.   [D-11]"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chains.exchange import Token
from chains.simulated import SimulatedChain, SimulatedNode, address_of
from ledger import schema
from ledger.chart import custody_account, withdrawing
from ledger.database import open_engine
from ledger.journal import JournalKind, encode_memo
from tools.settled_payouts import unproven

COIN = Token(1, "COIN", 1, "", 9, 9, 2, 0, 0, 0, 10**18)


_ACCOUNTS = {
    JournalKind.CUSTODY_FUNDED: custody_account(1, 0),
    JournalKind.WITHDRAWAL_REQUESTED: withdrawing(7),
}


class Journal:
    """A journal as a forger would leave it: kinds, memos and one leg each, nothing else is read."""

    def __init__(self, folder: Path) -> None:
        self.engine = open_engine(f"sqlite:///{folder / 'ledger.db'}")
        schema.metadata.create_all(self.engine, tables=[schema.journal, schema.posting, schema.command])
        self._seq = 0

    def add(self, kind: JournalKind, memo: tuple[Any, ...], atoms: int = 0) -> None:
        self._seq += 1
        with self.engine.begin() as connection:
            connection.execute(sa.insert(schema.journal).values(
                seq=self._seq, command_seq=self._seq, at_us=1, kind=kind, memo=encode_memo(memo), posting_count=1,
                batch_count=0, block_height=0, hash=bytes(32)))  # fmt: skip
            connection.execute(sa.insert(schema.posting).values(
                journal_seq=self._seq, line=0, account=_ACCOUNTS.get(kind, 1), asset=1, atoms_high=0, atoms=atoms))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ("", ""),
        ("address", "does not pay"),
        ("amount", "does not pay"),
        ("no transaction", "does not pay"),
        ("one transaction for two", "are both settled"),
        ("reversed", "was reversed and is in block"),
        ("funded", "which the chain does not have"),
    ],
)
async def test_a_fact_that_the_chain_does_not_bear_out_is_found(tmp_path: Path, lie: str, words: str) -> None:
    chain, journal = SimulatedChain(seed="test"), Journal(tmp_path)
    address = address_of(Ed25519PrivateKey.generate())
    tx_id = chain.faucet(address, "", 90)
    chain.mine(2)
    said = address_of(Ed25519PrivateKey.generate()) if lie == "address" else address
    atoms = 101 if lie == "amount" else 100
    journal.add(JournalKind.CUSTODY_FUNDED, (1, "nothing" if lie == "funded" else tx_id, 0), 90)
    journal.add(JournalKind.WITHDRAWAL_REQUESTED, (1, 7, 1, said, 10), atoms)
    journal.add(JournalKind.WITHDRAWAL_SETTLED, (1, "nothing" if lie == "no transaction" else tx_id))
    if lie == "one transaction for two":
        journal.add(JournalKind.WITHDRAWAL_REQUESTED, (2, 7, 1, address, 10), 100)
        journal.add(JournalKind.WITHDRAWAL_SETTLED, (2, tx_id))
    journal.add(JournalKind.DEPOSIT, (1, tx_id, 0, 7, 7, 1, "hash", True), 90)
    journal.add(JournalKind.DEPOSIT_REVERSED, (1, tx_id if lie == "reversed" else "gone", 0, 1), 90)

    found = await unproven(journal.engine, SimulatedNode(chain), [COIN])
    assert len(found) == (1 if lie else 0)
    assert words in " ".join(found)
