"""A small exchange's log for the tests of the ledger: every kind of row, two keys, a batch, amounts beyond 64 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from ledger.blocks import Block, Chain, LoggedCommand, SignedRequest, log_command
from ledger.chart import FEE_INCOME, AccountKind, available, custody_account
from ledger.database import open_engine, upgrade
from ledger.journal import JournalKind, JournalTransaction, Posting, PostingBatch, SealedTransaction, seal
from ledger.signing import Signer, signer_from_seed
from ledger.store import Store

START_US = 1_750_000_000_000_000
SOL, USDC, HUGE = 1, 2, 3
HUGE_AMOUNT = 3 * 10**36 + 7
HOT_SOL = custody_account(1, 0)

OLD_KEY = signer_from_seed(bytes(range(32)))
NEW_KEY = signer_from_seed(bytes(range(1, 33)))
USER_KEY = signer_from_seed(bytes([7] * 32))


def opened(url: str) -> sa.Engine:
    """A database with the ledger's schema."""
    engine = open_engine(url)
    upgrade(engine)
    return engine


class LogBuilder:
    """Makes blocks in memory; `commit` gives the next block of what was added since the last."""

    def __init__(self, signer: Signer = OLD_KEY, chain: Chain | None = None) -> None:
        self.chain = chain or Chain(signer.public_key, signer.sign)
        self.at_us = START_US
        self.commands: list[LoggedCommand] = []
        self.journal: list[SealedTransaction] = []
        self.rotate_to: Signer | None = None

    def add(
        self, kind: str, *entries: JournalTransaction, request: SignedRequest | None = None, outcome: int = 0
    ) -> None:
        """One command and the journal transactions that came of it."""
        self.at_us += 1_000
        seq = self.chain.next_command + len(self.commands)
        payload = msgspec.msgpack.encode([kind, seq])
        self.commands.append(log_command(seq, self.at_us, outcome, kind, payload, request))
        for entry in entries:
            previous = self.journal[-1].hash if self.journal else self.chain.journal_head
            number = self.chain.next_journal + len(self.journal)
            self.journal.append(seal(previous, number, seq, self.at_us, entry))

    def commit(self) -> Block:
        block = self.chain.build(self.at_us, self.commands, self.journal)
        self.commands, self.journal = [], []
        if self.rotate_to is not None:
            self.chain.rotate(self.rotate_to.public_key, self.rotate_to.sign)
            self.rotate_to = None
        return block


def transaction(
    kind: JournalKind, postings: Sequence[Posting], memo: tuple[Any, ...] = (), batches: tuple[PostingBatch, ...] = ()
) -> JournalTransaction:
    return JournalTransaction(kind, memo, list(postings), batches)


def deposit(subaccount: int, asset: int, atoms: int) -> JournalTransaction:
    return transaction(JournalKind.DEPOSIT, [(HOT_SOL, asset, atoms), (available(subaccount), asset, -atoms)])


def trade(buyer: int, seller: int, base_atoms: int, quote_atoms: int, fee_atoms: int) -> JournalTransaction:
    return transaction(
        JournalKind.TRADE,
        [
            (available(buyer), SOL, -base_atoms),
            (available(seller), SOL, base_atoms),
            (available(buyer), USDC, quote_atoms + fee_atoms),
            (available(seller), USDC, -quote_atoms),
            (FEE_INCOME, USDC, -fee_atoms),
        ],
        ("SOL_USDC", base_atoms, quote_atoms),
    )


def signed_request(text: bytes, at_ms: int = START_US // 1000) -> SignedRequest:
    return SignedRequest(USER_KEY.public_key, USER_KEY.sign(text), text, at_ms, 5_000, at_ms + 3)


def settlement(rows: int, total: int) -> JournalTransaction:
    """A columnar batch over `rows` subaccounts, balanced by one posting."""
    owners = list(range(1, rows + 1))
    atoms = [total // rows - owner for owner in owners]
    batch = PostingBatch.of(AccountKind.AVAILABLE, USDC, owners, atoms)
    return transaction(
        JournalKind.TRANSFER, [(FEE_INCOME, USDC, 5), (HOT_SOL, USDC, -5 - batch.total)], ("tick",), (batch,)
    )


def example_blocks() -> list[Block]:
    """Six blocks; the fourth rotates the key, the last two are signed with the new one."""
    log = LogBuilder()
    listed = [
        transaction(JournalKind.ASSET_LISTED, [], (SOL, "SOL", 9)),
        transaction(JournalKind.ASSET_LISTED, [], (USDC, "USDC", 6)),
        transaction(JournalKind.ASSET_LISTED, [], (HUGE, "HUGE", 18)),
    ]
    log.add("genesis", transaction(JournalKind.GENESIS, [], ("devnet",)), *listed)
    blocks = [log.commit()]
    log.add("credit_deposit", deposit(1, USDC, 5_000_000_000), deposit(3, USDC, 9_000_000_000))
    log.add("credit_deposit", deposit(2, SOL, 70_000_000_000))
    log.add("credit_deposit", deposit(2, HUGE, HUGE_AMOUNT), deposit(3, HUGE, 5 * 10**18))
    blocks.append(log.commit())
    order = signed_request(b"instruction=orderExecute&x=1")
    log.add("place_order", trade(1, 2, 10**9, 150_000_000, 150_000), request=order)
    log.add("place_order", request=signed_request(b"instruction=orderExecute&x=2"), outcome=7)
    blocks.append(log.commit())
    log.add("rotate_key", transaction(JournalKind.KEY_ROTATED, [], (NEW_KEY.public_key,)))
    log.rotate_to = NEW_KEY
    blocks.append(log.commit())
    log.add("clock")
    blocks.append(log.commit())
    log.add("settle", settlement(3_000, 30_000_000))
    order = signed_request(b"instruction=orderExecute&x=3")
    log.add("place_order", trade(3, 2, 2 * 10**9, 301_000_001, 30_101), request=order)
    blocks.append(log.commit())
    return blocks


def stored(url: str, blocks: Sequence[Block]) -> sa.Engine:
    """A database that holds these blocks."""
    engine = opened(url)
    store = Store(engine)
    for block in blocks:
        store.append(block)
    store.close()
    return engine
