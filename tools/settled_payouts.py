"""Whether the chain bears out what the journal calls done: payouts, reversed deposits, the operator's funding.   [D-11]

A balance that agrees can still be made of two lies. So each fact that names a transaction is looked up by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from chains.adapter import Adapter
from chains.exchange import Token
from ledger.chart import AccountKind
from ledger.journal import JournalKind
from tools.journal_books import JournalBooks


async def unproven(engine: sa.Engine, node: Adapter, tokens: Sequence[Token]) -> list[str]:
    """What the journal says of this chain's transactions and the chain does not, one sentence each."""
    books = JournalBooks(engine)
    by_asset = {token.asset_id: token for token in tokens}
    return [
        *await _payouts(books, node, by_asset),
        *await _reversals(books, node),
        *await _fundings(books, node, by_asset),
    ]


async def _payouts(books: JournalBooks, node: Adapter, tokens: dict[int, Token]) -> list[str]:
    """A settled withdrawal's transaction pays its address its net amount, and no other withdrawal's."""
    findings: list[str] = []
    requested = {memo[0]: (seq, memo) for seq, _, memo in books.entries(JournalKind.WITHDRAWAL_REQUESTED)}
    used: dict[str, int] = {}
    for _, _, (withdrawal_id, tx_id) in books.entries(JournalKind.WITHDRAWAL_SETTLED):
        if withdrawal_id not in requested:
            findings.append(f"withdrawal {withdrawal_id} was settled and never requested")
            continue
        seq, (_, _, chain_id, address, fee, *_) = requested[withdrawal_id]
        if chain_id != node.chain_id:
            continue
        if tx_id in used:
            findings.append(f"withdrawals {used[tx_id]} and {withdrawal_id} are both settled by {tx_id}")
        used[tx_id] = withdrawal_id
        asset_id, atoms = books.taken(seq, AccountKind.WITHDRAWING)
        token = tokens.get(asset_id)
        base = 0 if token is None else (atoms - fee) * token.base_per_atom
        wanted = (None if token is None else token.contract, node.normalize(address), base)
        if wanted not in await _paid(node, tx_id):
            findings.append(f"withdrawal {withdrawal_id}: {tx_id} does not pay {base} base units to {address}")
    return findings


async def _reversals(books: JournalBooks, node: Adapter) -> list[str]:
    """The transfer of a reversed deposit is not on the chain."""
    findings = []
    wallets = {tuple(memo[:3]): memo[3] for _, _, memo in books.entries(JournalKind.DEPOSIT)}
    for _, _, memo in books.entries(JournalKind.DEPOSIT_REVERSED):
        chain_id, tx_id, index = memo[:3]
        if chain_id != node.chain_id:
            continue
        mined = (await node.status(tx_id)).mined
        if mined is not None and any(transfer.index == index for transfer in mined.transfers):
            wallet = wallets.get((chain_id, tx_id, index))
            findings.append(f"deposit {tx_id}:{index} to wallet {wallet} was reversed and is in block"
                            f" {mined.block.height}")
    return findings


async def _fundings(books: JournalBooks, node: Adapter, tokens: dict[int, Token]) -> list[str]:
    """What the operator is said to have paid in came with a transaction of at least one transfer of that coin."""
    findings = []
    for seq, _, (chain_id, tx_id, wallet) in books.entries(JournalKind.CUSTODY_FUNDED):
        if chain_id != node.chain_id:
            continue
        asset_id, atoms = books.taken(seq, AccountKind.CUSTODY)
        token = tokens.get(asset_id)
        if token is None or not any(contract == token.contract for contract, _, _ in await _paid(node, tx_id)):
            findings.append(f"{atoms} atoms of asset {asset_id} were booked to wallet {wallet} for {tx_id}, which the"
                            " chain does not have")
    return findings


async def _paid(node: Adapter, tx_id: str) -> list[tuple[Any, ...]]:
    """(contract, recipient, amount) of every transfer of a mined, successful transaction."""
    mined = (await node.status(tx_id)).mined
    if mined is None or not mined.ok:
        return []
    return [(transfer.contract, transfer.recipient, transfer.amount) for transfer in mined.transfers]
