"""Journal transactions: postings, columnar batches, the memo, and canonical encoding v1 with its hash chain.

Encoding v1 is frozen: `docs/encoding.md` describes it, `tests/vectors/encoding_v1.json` fixes it. All integers are
big-endian. A transaction's hash is the RFC 9162 leaf hash of its encoding, which holds the hash of the one before it:
the same 32 bytes are the link of the chain and the leaf of the block's tree.   [A-1, A-4, A-7]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from hashlib import sha256
from struct import Struct
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ledger import merkle
from ledger.chart import OWNER_BITS, AccountId, AssetId

ENCODING_VERSION = 1
GENESIS_HASH = bytes(32)
"""What the first journal transaction and the first block name as the hash before them."""

Posting = tuple[AccountId, AssetId, int]
"""One leg: (account, asset, atoms); atoms > 0 is a debit, < 0 a credit, so a holding of a liability is negative."""


class JournalKind(IntEnum):
    """Why value moved (or what was put on record). Numbers are part of the encoding: never reuse one."""

    GENESIS = 1
    ASSET_LISTED = 2
    KEY_ROTATED = 3
    EPOCH_CLOSED = 4
    USER_OPENED = 5
    SUBACCOUNT_OPENED = 6
    API_KEY_ADDED = 7
    API_KEY_REVOKED = 8
    MARKET_CONFIGURED = 9
    LIQUIDATION_STARTED = 10
    LIQUIDATION_ENDED = 11
    LIQUIDATION_STEP = 12
    LIQUIDATION_IMAGE = 13
    POOL_CONFIGURED = 14
    DEPOSIT = 16
    DEPOSIT_REVERSED = 17
    WITHDRAWAL_REQUESTED = 18
    WITHDRAWAL_SETTLED = 19
    WITHDRAWAL_RELEASED = 20
    SWEEP = 21
    CUSTODY_FUNDED = 22
    TRANSFER = 32
    TRADE = 48
    PERPETUAL_TRADE = 49
    RFQ_TRADE = 50
    LEND = 64
    REDEEM = 65
    BORROW = 66
    REPAY = 67
    INTEREST = 68
    POOL_FEES_COLLECTED = 69
    DUST_CONVERTED = 70
    STAKED = 71
    UNSTAKED = 72
    YIELD_RECEIVED = 73
    YIELD_COLLECTED = 74
    SETTLEMENT = 80
    FUNDING = 81
    UNSETTLED_PAID = 82
    UNSETTLED_INTEREST = 83
    CLAIM_CONVERTED = 84
    BACKSTOP = 96
    ADL = 97
    LOSS_SHARED = 98
    INSURANCE = 99
    COLLATERAL_TAKEN = 100
    DEBT_WRITTEN_DOWN = 101
    HOLE_FILLED = 102
    LENDER_ADL = 103
    WRITE_OFF = 104
    INSURANCE_FUNDED = 105
    NETTED = 106
    LENDERS_PAID = 107
    LIQUIDATION_FEE = 108
    LIQUIDITY_ADDED = 112
    LIQUIDITY_REMOVED = 113
    POOL_SWAP = 114
    LONG_OPENED = 115
    LONG_CLOSED = 116
    LONG_FORCED = 117
    POOL_INTEREST = 118
    POOL_DEBT_COVERED = 119


RECORD_KINDS = frozenset(range(JournalKind.GENESIS, JournalKind.DEPOSIT))
"""Kinds that put a fact on record and carry no posting; every other kind has at least two."""

BATCH_CHUNK = 1024
"""Rows of a batch that are hashed together: a receipt for one row shows its chunk, not the batch."""


Column = Sequence[int] | npt.NDArray[np.int64]


class PostingBatch(msgspec.Struct, frozen=True, gc=False):
    """Postings as columns: row i moves `atoms[i]` of `asset` on account (`account_kind`, `owners[i]`).   [A-2, S-14]

    `owners` ascend strictly, so one account's row is found by bisection; zero rows are left out. Amounts are int64:
    a batch that needs more is split or written as postings.
    """

    account_kind: int
    asset: AssetId
    owners: npt.NDArray[np.int64]
    atoms: npt.NDArray[np.int64]
    total: int
    root: bytes

    @classmethod
    def of(cls, account_kind: int, asset: AssetId, owners: Column, atoms: Column) -> PostingBatch:
        """A batch of these rows, checked and hashed. Raises OverflowError for an amount beyond int64."""
        owner_column = np.asarray(owners, dtype=np.int64)
        atom_column = np.asarray(atoms, dtype=np.int64)
        assert owner_column.shape == atom_column.shape and owner_column.ndim == 1 and len(owner_column) > 0
        assert bool(np.all(np.diff(owner_column) > 0)), "owners of a batch ascend strictly"
        assert 0 <= int(owner_column[0]) and int(owner_column[-1]) < 1 << OWNER_BITS, "owner out of range"
        root = batch_root(owner_column, atom_column)
        return cls(account_kind, asset, owner_column, atom_column, exact_sum(atom_column), root)

    def __eq__(self, other: object) -> bool:
        # The root commits to every row; arrays would compare element by element.
        if not isinstance(other, PostingBatch):
            return NotImplemented
        mine, theirs = (self.account_kind, self.asset, self.root), (other.account_kind, other.asset, other.root)
        return mine == theirs and self.total == other.total and len(self.owners) == len(other.owners)

    def __hash__(self) -> int:
        return hash(self.root)

    def atoms_of(self, owner: int) -> int:
        """This owner's row, 0 when it has none."""
        at = int(np.searchsorted(self.owners, owner))
        return int(self.atoms[at]) if at < len(self.owners) and self.owners[at] == owner else 0

    def postings(self) -> Iterable[Posting]:
        """The rows as postings, for replay and reports."""
        base = self.account_kind << OWNER_BITS
        for owner, atoms in zip(self.owners.tolist(), self.atoms.tolist(), strict=True):
            yield base | owner, self.asset, atoms


def exact_sum(column: npt.NDArray[np.int64]) -> int:
    """Σ of an int64 column as a Python int: numpy's own sum would wrap silently."""
    return int(np.sum(column >> 32)) * (1 << 32) + int(np.sum(column & 0xFFFFFFFF))


def batch_chunks(owners: npt.NDArray[np.int64], atoms: npt.NDArray[np.int64]) -> Iterable[bytes]:
    """The batch's rows, 1,024 at a time: all owners of the chunk as u64, then all atoms as i64."""
    for start in range(0, len(owners), BATCH_CHUNK):
        stop = start + BATCH_CHUNK
        yield owners[start:stop].astype(">i8").tobytes() + atoms[start:stop].astype(">i8").tobytes()


def batch_root(owners: npt.NDArray[np.int64], atoms: npt.NDArray[np.int64]) -> bytes:
    return merkle.root([merkle.leaf_hash(chunk) for chunk in batch_chunks(owners, atoms)])


class JournalTransaction(msgspec.Struct, gc=False):
    """What the engine posts: the kind, its memo (positional facts, see `docs/encoding.md`), postings, batches."""

    kind: int
    memo: tuple[Any, ...]
    postings: list[Posting]
    batches: tuple[PostingBatch, ...] = ()


class SealedTransaction(NamedTuple):
    """A journal transaction with its place in the chain."""

    seq: int
    command_seq: int
    at_us: int
    kind: int
    memo: bytes
    postings: list[Posting]
    batches: tuple[PostingBatch, ...]
    hash: bytes


_HEAD = Struct(">B32sQQQHI")
_COUNT = Struct(">I")
_POSTING = Struct(">QIqQ")
_BATCH_COUNT = Struct(">H")
_BATCH = Struct(">HIIqQ32s")
_LOW_MASK = 2**64 - 1
_SMALL_POSTING = Struct(">QIqq")
_SMALL = 1 << 61

ENCODED_POSTING = np.dtype([("account", ">u8"), ("asset", ">u4"), ("high", ">i8"), ("low", ">i8")])
"""A posting in encoding v1 as numpy writes many of them: `high` and `low` are the two halves of the i128."""

_encode = msgspec.msgpack.Encoder().encode


def encode_memo(memo: Any) -> bytes:
    """Canonical MessagePack: arrays, shortest ints, strings, bytes, booleans, nil; no maps, no floats.

    An integer beyond MessagePack's 64 bits (a sandbox's prices can make one) is its decimal string.
    """
    try:
        return _encode(memo)
    except OverflowError:
        return _encode(_spelled(memo))


def _spelled(fact: Any) -> Any:
    if isinstance(fact, list | tuple):
        return [_spelled(each) for each in fact]
    return str(fact) if isinstance(fact, int) and not -(2**63) <= fact < 2**64 else fact


decode_memo = msgspec.msgpack.Decoder().decode


def encode_transaction(
    previous_hash: bytes,
    seq: int,
    command_seq: int,
    at_us: int,
    kind: int,
    memo: bytes,
    postings: Sequence[Posting],
    batches: Sequence[PostingBatch] = (),
) -> bytes:
    """Canonical encoding v1 of one journal transaction.   [A-4]

    u8 version, 32 B previous hash, u64 seq, u64 command, u64 time in µs, u16 kind, u32 + memo; u32 count, then per
    posting u64 account, u32 asset, i128 atoms; u16 count, then per batch u16 account kind, u32 asset, u32 rows,
    i128 total, 32 B root of the batch's chunks.
    """
    parts = []
    for account, asset, atoms in postings:
        if -_SMALL <= atoms < _SMALL:
            # Nearly every one: 64 bits and their sign, without a mask that makes a large number of a small one.
            parts.append(_SMALL_POSTING.pack(account, asset, -1 if atoms < 0 else 0, atoms))
        else:
            parts.append(_POSTING.pack(account, asset, atoms >> 64, atoms & _LOW_MASK))
    return encode_with_postings(previous_hash, seq, command_seq, at_us, kind, memo, b"".join(parts), batches)


def encode_with_postings(
    previous_hash: bytes,
    seq: int,
    command_seq: int,
    at_us: int,
    kind: int,
    memo: bytes,
    postings: bytes,
    batches: Sequence[PostingBatch] = (),
) -> bytes:
    """The same where the postings are bytes already, one `ENCODED_POSTING` after the other.   [A-4]"""
    head = _HEAD.pack(ENCODING_VERSION, previous_hash, seq, command_seq, at_us, kind, len(memo))
    parts = [head, memo, _COUNT.pack(len(postings) // _POSTING.size), postings, _BATCH_COUNT.pack(len(batches))]
    for batch in batches:
        total = batch.total
        parts.append(
            _BATCH.pack(batch.account_kind, batch.asset, len(batch.owners), total >> 64, total & _LOW_MASK, batch.root)
        )
    return b"".join(parts)


def seal(previous_hash: bytes, seq: int, command_seq: int, at_us: int, entry: JournalTransaction) -> SealedTransaction:
    """Give a journal transaction its place in the chain."""
    memo = encode_memo(entry.memo)
    legs, batches = entry.postings, entry.batches
    encoding = encode_transaction(previous_hash, seq, command_seq, at_us, entry.kind, memo, legs, batches)
    digest = sha256(b"\x00" + encoding).digest()
    return SealedTransaction(seq, command_seq, at_us, entry.kind, memo, legs, batches, digest)


def residues(entry: JournalTransaction) -> dict[AssetId, int]:
    """What the transaction is out of balance by, per asset; empty when it balances.   [A-1]"""
    sums: dict[AssetId, int] = {}
    for _account, asset, atoms in entry.postings:
        sums[asset] = sums.get(asset, 0) + atoms
    for batch in entry.batches:
        sums[batch.asset] = sums.get(batch.asset, 0) + batch.total
    return {asset: total for asset, total in sums.items() if total}
