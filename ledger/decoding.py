"""Reads canonical encoding v1 back; standard library only, so that a receipt or an export needs no more.   [A-4]

Strict: what decodes here encodes to the same bytes again, and nothing may follow.
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import Any, NamedTuple

VERSION = 1


class EncodingError(ValueError):
    """Bytes that are not canonical encoding v1; says what is wrong with them."""


class BatchHead(NamedTuple):
    """What a transaction's encoding holds of a columnar batch."""

    account_kind: int
    asset: int
    row_count: int
    total: int
    root: bytes


class TransactionFacts(NamedTuple):
    """One journal transaction, read from its encoding."""

    previous_hash: bytes
    seq: int
    command_seq: int
    at_us: int
    kind: int
    memo: bytes
    postings: list[tuple[int, int, int]]
    batches: list[BatchHead]


class CommandFacts(NamedTuple):
    """One logged command, read from its encoding."""

    seq: int
    at_us: int
    outcome: int
    payload: bytes
    request: tuple[bytes, bytes, bytes, int, int, int] | None
    """(api key, signature, signed text, timestamp ms, window ms, received ms)"""


class HeaderFacts(NamedTuple):
    """One block header; the fields of `blocks.BlockHeader`."""

    height: int
    previous_hash: bytes
    at_us: int
    first_command: int
    command_count: int
    commands_root: bytes
    first_journal: int
    journal_count: int
    journal_root: bytes
    journal_head: bytes
    log_root: bytes
    public_key: bytes


_TRANSACTION = Struct(">B32sQQQHI")
_POSTING = Struct(">QIqQ")
_BATCH = Struct(">HIIqQ32s")
_COMMAND = Struct(">BQQHI")
_REQUEST = Struct(">32s64sQQQI")
_HEADER = Struct(">BQ32sQQI32sQI32s32s32s32s")
_U32 = Struct(">I")
_U16 = Struct(">H")


def decode_transaction(data: bytes) -> TransactionFacts:
    """Raises EncodingError."""
    reader = _Reader(data, "journal transaction")
    version, previous_hash, seq, command_seq, at_us, kind, memo_length = reader.unpack(_TRANSACTION)
    reader.require_version(version)
    memo = reader.take(memo_length)
    postings = []
    for _ in range(reader.count(_U32, _POSTING)):
        account, asset, high, low = reader.unpack(_POSTING)
        postings.append((account, asset, high << 64 | low))
    batches = []
    for _ in range(reader.count(_U16, _BATCH)):
        account_kind, asset, rows, high, low, root = reader.unpack(_BATCH)
        batches.append(BatchHead(account_kind, asset, rows, high << 64 | low, root))
    reader.require_end()
    return TransactionFacts(previous_hash, seq, command_seq, at_us, kind, memo, postings, batches)


def decode_command(data: bytes) -> CommandFacts:
    """Raises EncodingError."""
    reader = _Reader(data, "command")
    version, seq, at_us, outcome, length = reader.unpack(_COMMAND)
    reader.require_version(version)
    payload = reader.take(length)
    signed = reader.take(1)
    request = None
    if signed == b"\x01":
        api_key, signature, timestamp, window, received, length = reader.unpack(_REQUEST)
        request = (api_key, signature, reader.take(length), timestamp, window, received)
    elif signed != b"\x00":
        raise EncodingError(f"command {seq}: request marker {signed.hex()}, expected 00 or 01")
    reader.require_end()
    return CommandFacts(seq, at_us, outcome, payload, request)


def decode_header(data: bytes) -> HeaderFacts:
    """Raises EncodingError."""
    reader = _Reader(data, "block header")
    version, *fields = reader.unpack(_HEADER)
    reader.require_version(version)
    reader.require_end()
    return HeaderFacts(*fields)


class _Reader:
    """A position in bytes that are read to the end exactly."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.at = 0

    def unpack(self, layout: Struct) -> tuple[Any, ...]:
        try:
            fields = layout.unpack_from(self.data, self.at)
        except struct.error:
            raise EncodingError(f"{self.what} ends early: {len(self.data)} bytes") from None
        self.at += layout.size
        return fields

    def take(self, length: int) -> bytes:
        part = self.data[self.at : self.at + length]
        if len(part) != length:
            raise EncodingError(f"{self.what} ends early: {len(self.data)} bytes")
        self.at += length
        return part

    def count(self, layout: Struct, item: Struct) -> int:
        (count,) = self.unpack(layout)
        if count * item.size > len(self.data) - self.at:
            raise EncodingError(f"{self.what} says {count} items, has room for less")
        return int(count)

    def require_version(self, version: int) -> None:
        if version != VERSION:
            raise EncodingError(f"{self.what} of version {version}, expected {VERSION}")

    def require_end(self) -> None:
        if self.at != len(self.data):
            raise EncodingError(f"{len(self.data) - self.at} bytes follow the {self.what}")
