"""Offline receipts: one journal transaction, or one row of a columnar batch, proven by the exchange's key alone.  [A-4]

A receipt is JSON. What counts in it are the bytes: the transaction's canonical encoding, its inclusion path to the
journal root, the block header and the signature. `verify_receipt` needs the standard library and Ed25519.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger import merkle
from ledger.decoding import BatchHead, EncodingError, HeaderFacts, TransactionFacts, decode_header, decode_transaction
from ledger.signing import verify

if TYPE_CHECKING:
    from ledger.journal import PostingBatch
    from ledger.store import Store

FORMAT = "satchel receipt v1"
_BLOCK_DOMAIN = b"satchel block v1\n"
_BATCH_CHUNK = 1024


class ReceiptError(ValueError):
    """A receipt that proves nothing; says which step failed."""


class BatchRow(NamedTuple):
    """One proven row of a columnar batch."""

    account: int
    asset: int
    atoms: int


class Receipt(NamedTuple):
    """What a receipt proves."""

    header: HeaderFacts
    transaction: TransactionFacts
    transaction_hash: bytes
    row: BatchRow | None
    further: tuple[BatchRow, ...] = ()
    """More rows, where the transaction has several of the accounts that were asked for."""


def make_receipt(store: Store, seq: int, *accounts: int) -> dict[str, Any]:
    """The receipt of journal transaction `seq`; with `accounts`, also of their rows in its batches: a tick has one of
    costs for each market.   [S-14]

    Raises ReceiptError when there is no such transaction, or an account without any row.
    """
    from ledger.blocks import encode_header
    from ledger.chart import kind_of, owner_of
    from ledger.journal import encode_transaction

    found = store.block_containing_journal(seq)
    if found is None:
        raise ReceiptError(f"no journal transaction {seq}")
    header, digest, signature = found
    if not header.first_journal <= seq < header.first_journal + header.journal_count:
        raise ReceiptError(f"journal transaction {seq} is not of block {header.height}: run verify-journal")
    leaves = list(store.journal_hashes(header.first_journal, header.first_journal + header.journal_count - 1))
    (entry,) = store.journal(seq, seq)
    previous = bytes(32) if seq == 1 else next(store.journal_hashes(seq - 1, seq - 1), None)
    if previous is None or len(leaves) != header.journal_count:
        raise ReceiptError(f"rows around journal transaction {seq} are missing: run verify-journal")
    encoding = encode_transaction(
        previous,
        seq,
        entry.command_seq,
        entry.at_us,
        entry.kind,
        entry.memo,
        entry.postings,
        entry.batches,
    )
    receipt: dict[str, Any] = {
        "format": FORMAT,
        "header": _text(encode_header(header)),
        "signature": _text(signature),
        "transaction": _text(encoding),
        "index": seq - header.first_journal,
        "path": [_text(node) for node in merkle.inclusion_proof(leaves, seq - header.first_journal)],
        "about": {"block": header.height, "blockHash": digest.hex(), "journal": seq, "hash": entry.hash.hex()},
    }
    rows = []
    for account in accounts:
        found_rows = [
            _row(number, batch, owner_of(account))
            for number, batch in enumerate(entry.batches)
            if batch.account_kind == kind_of(account) and batch.atoms_of(owner_of(account))
        ]
        if not found_rows:
            raise ReceiptError(f"journal transaction {seq} has no batch row of account {account}")
        rows += found_rows
    if rows:
        receipt["row"] = rows[0]
    if len(rows) > 1:
        receipt["furtherRows"] = rows[1:]
    return receipt


def verify_receipt(receipt: dict[str, Any], public_key: bytes) -> Receipt:
    """What the receipt proves, under the exchange's key that signed its block; else ReceiptError.   [A-4]"""
    try:
        if receipt["format"] != FORMAT:
            raise ReceiptError(f"format {receipt['format']!r}, expected {FORMAT!r}")
        encoded_header = _bytes(receipt["header"])
        encoding = _bytes(receipt["transaction"])
        path = [_bytes(node) for node in receipt["path"]]
        index = receipt["index"]
        header = decode_header(encoded_header)
        transaction = decode_transaction(encoding)
        signature = _bytes(receipt["signature"])
        rows = [receipt["row"], *receipt.get("furtherRows", [])] if "row" in receipt else []
    except (KeyError, TypeError, EncodingError, binascii.Error) as error:
        raise ReceiptError(f"not a receipt: {error}") from error
    if header.public_key != public_key:
        raise ReceiptError(f"block {header.height} is signed by {_text(header.public_key)}, not by {_text(public_key)}")
    if not verify(public_key, signature, _BLOCK_DOMAIN + encoded_header):
        raise ReceiptError(f"the signature of block {header.height} is wrong")
    if type(index) is not int or transaction.seq != header.first_journal + index:
        raise ReceiptError(f"journal transaction {transaction.seq} is not number {index} of block {header.height}")
    leaf = merkle.leaf_hash(encoding)
    if not merkle.verify_inclusion(leaf, index, header.journal_count, path, header.journal_root):
        raise ReceiptError(f"journal transaction {transaction.seq} is not in block {header.height}")
    proven = [_verify_row(row, transaction.batches) for row in rows]
    return Receipt(header, transaction, leaf, proven[0] if proven else None, tuple(proven[1:]))



def _row(number: int, batch: PostingBatch, owner: int) -> dict[str, Any]:
    from ledger.journal import batch_chunks

    chunks = list(batch_chunks(batch.owners, batch.atoms))
    index = int(batch.owners.searchsorted(owner)) // _BATCH_CHUNK
    path = merkle.inclusion_proof([merkle.leaf_hash(chunk) for chunk in chunks], index)
    return {
        "batch": number,
        "owner": owner,
        "chunk": _text(chunks[index]),
        "index": index,
        "path": [_text(node) for node in path],
    }


def _verify_row(row: dict[str, Any], batches: list[BatchHead]) -> BatchRow:
    try:
        batch, owner, index = batches[row["batch"]], row["owner"], row["index"]
        chunk = _bytes(row["chunk"])
        path = [_bytes(node) for node in row["path"]]
    except (KeyError, IndexError, TypeError, binascii.Error) as error:
        raise ReceiptError(f"not a batch row: {error}") from error
    size = -(-batch.row_count // _BATCH_CHUNK)
    leaf = sha256(b"\x00" + chunk).digest()
    if type(index) is not int or not merkle.verify_inclusion(leaf, index, size, path, batch.root):
        raise ReceiptError(f"chunk {index} is not in the batch")
    rows = min(_BATCH_CHUNK, batch.row_count - index * _BATCH_CHUNK)
    if len(chunk) != rows * 16:
        raise ReceiptError(f"chunk {index} has {len(chunk)} bytes, expected {rows * 16}")
    values = Struct(f">{rows}Q{rows}q").unpack(chunk)
    for at in range(rows):
        if values[at] == owner:
            return BatchRow(batch.account_kind << 40 | owner, batch.asset, values[rows + at])
    raise ReceiptError(f"owner {owner} has no row in chunk {index}")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
