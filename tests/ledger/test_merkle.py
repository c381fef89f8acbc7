"""Trees are RFC 9162's: an independent library agrees on roots; our proofs verify, changed ones not.   [A-7]"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import merkle

sizes = st.integers(1, 70)


def leaves_of(size: int) -> list[bytes]:
    return [merkle.leaf_hash(bytes([n])) for n in range(size)]


@pytest.mark.parametrize("size", [*range(18), 31, 32, 33, 100])
def test_roots_are_those_of_pymerkle(size: int) -> None:
    tree: Any = pymerkle.InmemoryTree(algorithm="sha256")
    for n in range(size):
        tree.append_entry(bytes([n]))

    assert merkle.root(leaves_of(size)) == tree.get_root()


def test_the_empty_tree_and_the_known_root_of_the_standard() -> None:
    """The test vectors that certificate transparency logs share."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [merkle.leaf_hash(bytes.fromhex(data)) for data in inputs]

    assert merkle.root([]) == sha256(b"").digest()
    assert merkle.root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(sizes, st.data())
def test_inclusion(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(leaves, index)
    root = merkle.root(leaves)

    assert merkle.verify_inclusion(leaves[index], index, size, path, root)
    assert not merkle.verify_inclusion(leaves[index], index, size, [*path, bytes(32)], root)
    assert not merkle.verify_inclusion(bytes(32), index, size, path, root)
    assert not merkle.verify_inclusion(leaves[index], size, size, path, root)
    if path:
        assert not merkle.verify_inclusion(leaves[index], index, size, path[:-1], root)
        other = data.draw(st.integers(0, size - 1).filter(lambda value: value != index))
        assert not merkle.verify_inclusion(leaves[index], other, size, path, root)


@given(sizes, st.data())
def test_consistency(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    old = data.draw(st.integers(1, size))
    proof = merkle.consistency_proof(leaves, old)
    old_root, root = merkle.root(leaves[:old]), merkle.root(leaves)

    assert merkle.verify_consistency(old, size, old_root, root, proof)
    assert not merkle.verify_consistency(old, size, bytes(32), root, proof)
    assert not merkle.verify_consistency(old, size, old_root, bytes(32), proof)
    assert not merkle.verify_consistency(old, size, old_root, root, [*proof, bytes(32)])
    for at in range(len(proof)):
        assert not merkle.verify_consistency(old, size, old_root, root, [*proof[:at], bytes(32), *proof[at + 1 :]])


@given(st.integers(0, 200))
def test_the_running_head_is_the_root_of_the_whole(size: int) -> None:
    head = merkle.TreeHead()
    for leaf in leaves_of(size % 200):
        head.append(leaf)

    assert head.root() == merkle.root(leaves_of(size % 200))
    assert merkle.TreeHead.load(*head.dump()).root() == head.root()


@pytest.mark.parametrize("index", [-1, 3])
def test_no_proof_of_what_is_not_there(index: int) -> None:
    with pytest.raises(IndexError):
        merkle.inclusion_proof(leaves_of(3), index)
    with pytest.raises(IndexError):
        merkle.consistency_proof(leaves_of(3), index + 1 if index < 0 else 4)
