"""The byte forms everything else hashes: domain tags, big-endian integers, canonical JSON.   [R-3]"""

from __future__ import annotations

import hashlib
import json
from typing import Any

VERSION = 1
# A header of an exchange that has perpetual markets says more, and says that it does.
MARKETS_VERSION = 2
# And one that has liquidity pools says all that, and more.
AMM_VERSION = 3
HASH_BYTES = 32
ZERO_HASH = bytes(HASH_BYTES)
COLUMN_BYTES = 16
COLUMN_LIMIT = 1 << (8 * COLUMN_BYTES)
# A leaf's amount stays below 2^87, so that 2^40 leaves can be added without leaving 127 bits.
LEAF_LIMIT = 1 << 87
# Identifiers and counters are JSON numbers; above this a browser would round them.
JSON_INTEGER_LIMIT = 1 << 53


def _tag(kind: int) -> bytes:
    return bytes([kind]) + b"satchel/por/v1\n"


TAG_LEAF = _tag(0x00)
TAG_INNER = _tag(0x01)
TAG_GROUP = _tag(0x02)
TAG_SUM = _tag(0x03)
TAG_PAD_LEAF = _tag(0x04)
TAG_PAD_GROUP = _tag(0x05)
TAG_IDENTITY = _tag(0x10)
TAG_USER_SECRET = _tag(0x11)
TAG_SALT = _tag(0x12)
TAG_DETAIL = _tag(0x20)
TAG_HEADER = _tag(0x21)
TAG_RESERVES = _tag(0x22)
TAG_PRICES = _tag(0x23)
TAG_PARAMETERS = _tag(0x24)
TAG_CODE = _tag(0x25)


class BuildRefused(ValueError):
    """The builder fails closed: the message names what, which account or column, and the numbers."""


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: keys sorted, no spaces, ASCII only. Floats have no place in it."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def text_hash(tag: bytes, text: str) -> bytes:
    """SHA-256 of a domain tag followed by a text in UTF-8."""
    return hashlib.sha256(tag + text.encode("utf-8")).digest()


def vector_bytes(vector: tuple[int, ...]) -> bytes:
    """Columns as 16-byte big-endian unsigned integers; an amount that does not fit raises OverflowError."""
    return b"".join([amount.to_bytes(COLUMN_BYTES, "big") for amount in vector])


def position_bytes(tag: bytes, epoch: int, level: int, index: int) -> bytes:
    """Where a hash sits: domain tag, epoch, level, index. It opens the preimage of every leaf and node."""
    return tag + epoch.to_bytes(8, "big") + bytes([level]) + index.to_bytes(8, "big")
