"""The tree over the leaves: hash-only groups below, above a sum tree that commits to both children.   [R-3, R-4]"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from por.canonical import (
    COLUMN_BYTES,
    COLUMN_LIMIT,
    HASH_BYTES,
    TAG_GROUP,
    TAG_INNER,
    TAG_PAD_GROUP,
    TAG_PAD_LEAF,
    TAG_SUM,
    BuildRefused,
    position_bytes,
    vector_bytes,
)
from por.leaves import PREFIX_BYTES, Bytes2D, Leaves, hash_rows, write_positions

Vector = tuple[int, ...]


class Node(NamedTuple):
    """A node of the sum tree: its hash and the sum of the columns below it."""

    hash: bytes
    totals: Vector


@dataclass(frozen=True, slots=True)
class SumTree:
    """`levels[0]` are the groups, padded to a power of two; the last level is the root alone."""

    epoch: int
    group_bits: int
    levels: list[list[Node]]

    @property
    def root(self) -> Node:
        return self.levels[-1][0]


def build_tree(leaves: Leaves, columns: int, group_bits: int) -> SumTree:
    """Hash groups of 2^group_bits leaves without sums, then add up group by group to the root."""
    roots = group_roots(leaves, group_bits)
    totals = group_totals(leaves, columns, group_bits, len(roots))
    groups = [
        group_node(leaves.epoch, group_bits, index, roots[index].tobytes(), totals[index])
        for index in range(len(roots))
    ]
    return sum_tree(leaves.epoch, group_bits, columns, groups)


def sum_tree(epoch: int, group_bits: int, columns: int, groups: list[Node]) -> SumTree:
    """Pad the groups to a power of two with explicit pad groups and add up to the root."""
    width = 1 << (len(groups) - 1).bit_length()
    zeros = (0,) * columns
    pads = [Node(pad_group_hash(epoch, group_bits, index), zeros) for index in range(len(groups), width)]

    levels = [groups + pads]
    while len(levels[-1]) > 1:
        below = levels[-1]
        level = group_bits + len(levels)
        levels.append([sum_node(epoch, level, at // 2, below[at], below[at + 1]) for at in range(0, len(below), 2)])
    return SumTree(epoch=epoch, group_bits=group_bits, levels=levels)


def group_node(epoch: int, group_bits: int, index: int, inner_root: bytes, totals: Vector) -> Node:
    """The first node with a sum: the hash-only root of a group and its columns."""
    preimage = position_bytes(TAG_GROUP, epoch, group_bits, index) + inner_root + vector_bytes(totals)
    return Node(hashlib.sha256(preimage).digest(), totals)


def sum_node(epoch: int, level: int, index: int, left: Node, right: Node) -> Node:
    """A parent commits to both hashes and both column vectors: to commit to the sum alone would let it be shrunk."""
    totals = add_vectors(left.totals, right.totals)
    preimage = (
        position_bytes(TAG_SUM, epoch, level, index)
        + left.hash
        + vector_bytes(left.totals)
        + right.hash
        + vector_bytes(right.totals)
    )
    return Node(hashlib.sha256(preimage).digest(), totals)


def add_vectors(left: Vector, right: Vector) -> Vector:
    """Column by column; a sum that does not fit 128 bits is refused, never wrapped."""
    totals = tuple(a + b for a, b in zip(left, right, strict=True))
    for column, total in enumerate(totals):
        if total >= COLUMN_LIMIT:
            raise BuildRefused(f"column {column} overflows: {left[column]} + {right[column]} needs more than 128 bits")
    return totals


def pad_leaf_hash(epoch: int, index: int) -> bytes:
    """The leaf of nobody; its domain tag keeps it from ever being an account's."""
    return hashlib.sha256(position_bytes(TAG_PAD_LEAF, epoch, 0, index)).digest()


def pad_group_hash(epoch: int, group_bits: int, index: int) -> bytes:
    """A group of nobody."""
    return hashlib.sha256(position_bytes(TAG_PAD_GROUP, epoch, group_bits, index)).digest()


def group_roots(leaves: Leaves, group_bits: int) -> Bytes2D:
    """The hash-only root of each group, all groups level by level at once."""
    row = padded_leaf_hashes(leaves, group_bits)
    for level in range(1, group_bits + 1):
        row = inner_level(leaves.epoch, level, row)
    return row


def padded_leaf_hashes(leaves: Leaves, group_bits: int) -> Bytes2D:
    """Leaf hashes filled up with pad leaves to whole groups; there is at least one group."""
    count = len(leaves)
    groups = max(1, -(-count // (1 << group_bits)))
    pads = [pad_leaf_hash(leaves.epoch, index) for index in range(count, groups << group_bits)]
    pad_rows = np.frombuffer(b"".join(pads), dtype=np.uint8).reshape(-1, HASH_BYTES)
    return np.concatenate([leaves.hashes, pad_rows])


def inner_level(epoch: int, level: int, below: Bytes2D, first: int = 0) -> Bytes2D:
    """Parents of a row of hashes inside groups; `first` is the index of the first parent at its level."""
    preimages = np.empty((len(below) // 2, PREFIX_BYTES + 2 * HASH_BYTES), dtype=np.uint8)
    write_positions(preimages, TAG_INNER, epoch, level, first)
    preimages[:, PREFIX_BYTES:] = np.ascontiguousarray(below).reshape(-1, 2 * HASH_BYTES)
    return hash_rows(preimages)


def group_totals(leaves: Leaves, columns: int, group_bits: int, groups: int) -> list[Vector]:
    """The exact column sums of each group: 32-bit limbs are added in 64-bit words, then joined as Python integers."""
    if not len(leaves) or not columns:
        return [(0,) * columns] * groups
    limbs = (
        np.ascontiguousarray(leaves.amounts)
        .view(">u4")
        .reshape(len(leaves), columns, COLUMN_BYTES // 4)
        .astype(np.uint64)
    )
    starts = np.arange(0, len(leaves), 1 << group_bits)
    sums: npt.NDArray[np.uint64] = np.add.reduceat(limbs, starts, axis=0)
    return [tuple((a << 96) + (b << 64) + (c << 32) + d for a, b, c, d in group) for group in sums.tolist()]


def group_path(leaves: Leaves, group_bits: int, index: int) -> list[bytes]:
    """The siblings of one leaf inside its group, bottom up."""
    size = 1 << group_bits
    first = index & -size
    pads = [pad_leaf_hash(leaves.epoch, at) for at in range(max(first, len(leaves)), first + size)]
    row = np.concatenate(
        [leaves.hashes[first : first + size], np.frombuffer(b"".join(pads), dtype=np.uint8).reshape(-1, HASH_BYTES)]
    )

    path = []
    at = index - first
    for level in range(1, group_bits + 1):
        path.append(row[at ^ 1].tobytes())
        row = inner_level(leaves.epoch, level, row, first >> level)
        at >>= 1
    return path


def sum_path(tree: SumTree, group: int) -> list[Node]:
    """The siblings of one group up to the root, with their columns."""
    path = []
    for level in tree.levels[:-1]:
        path.append(level[group ^ 1])
        group >>= 1
    return path
