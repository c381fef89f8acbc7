"""What an append-only log is asked, and its answers, the same for blocks and for epochs.   [A-8b, R-20]"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.contract import Base64, Query, UInt64, Wire

Hash = Annotated[str, Meta(description="32 bytes in hexadecimal")]


class RowsQuery(Query):
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: Annotated[str, Meta(pattern="^(Asc|Desc)$")] | None = None


class TreeQuery(Query):
    size: UInt64 | None = None
    """Number of leaves of the tree that the proof is for; the newest checkpoint's when absent."""


class ConsistencyQuery(Query):
    first: UInt64
    """Size of the older tree."""
    second: UInt64 | None = None
    """Size of the newer tree; the newest checkpoint's when absent."""


class CheckpointAnswer(Wire):
    """The log of blocks as it stands: size, root and signature in a C2SP note.   [A-8b]"""

    size: int
    root: Hash
    note: str
    public_key: Base64


class InclusionAnswer(Wire):
    """RFC 9162: leaf `index` is in the tree of `size` leaves with `root`."""

    index: int
    size: int
    leaf: Hash
    path: list[Hash]
    root: Hash


class ConsistencyAnswer(Wire):
    """RFC 9162: the tree of `first` leaves is a prefix of the tree of `second`."""

    first: int
    second: int
    first_root: Hash
    second_root: Hash
    path: list[Hash]
