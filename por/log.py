"""The public log: an append-only RFC 9162 tree of header hashes, with signed C2SP checkpoints.   [R-20, R-24]"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pymerkle import InmemoryTree

from ledger import merkle
from por.canonical import ZERO_HASH, BuildRefused
from por.header import Header, Missed, Row

Sign = Callable[[bytes], bytes]

LOG_FORMAT = "satchel-por-log"
_ED25519 = 0x01
_COSIGNATURE = 0x04


class Log:
    """Rows in order; row n is epoch n and leaf n of the tree. Appending checks that the row follows the last one."""

    def __init__(self, rows: Iterable[Header | Missed] = ()) -> None:
        self.rows: list[Header | Missed] = []
        self._tree = InmemoryTree(algorithm="sha256")
        self._leaf_hashes: list[bytes] = []
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def last(self) -> Header | Missed | None:
        return self.rows[-1] if self.rows else None

    def append(self, row: Header | Missed) -> None:
        """Add the next row, or refuse one that does not follow the last."""
        self.require_next(row)
        self.rows.append(row)
        self._tree.append_entry(row.hash())
        self._leaf_hashes.append(merkle.leaf_hash(row.hash()))

    def require_next(self, row: Row) -> None:
        """The row has the next number and names the hash of the last one."""
        expected = self.rows[-1].hash() if self.rows else ZERO_HASH
        if row.epoch != len(self.rows) or row.previous != expected:
            raise BuildRefused(
                f"row {row.epoch} after {row.previous.hex()} cannot be row {len(self.rows)} after {expected.hex()}"
            )

    def root(self, size: int | None = None) -> bytes:
        """The RFC 9162 tree hash over the first `size` rows (all by default)."""
        return bytes(self._tree.get_root(len(self.rows) if size is None else size))

    def inclusion_path(self, index: int, size: int | None = None) -> list[bytes]:
        """RFC 9162 §2.1.3.1: the audit path of row `index` (from 0) in the tree of the first `size` rows."""
        size = len(self.rows) if size is None else size
        # pymerkle counts from 1 and opens the path with the leaf hash itself, which the RFC leaves out.
        return list(self._tree.prove_inclusion(index + 1, size).path[1:])

    def consistency_path(self, old: int, new: int | None = None) -> list[bytes]:
        """RFC 9162 §2.1.4.1: proof that the tree of `old` rows is a prefix of the tree of `new` rows."""
        # pymerkle's own consistency proofs split a perfect old tree further than the RFC does, so they do not export.
        return merkle.consistency_proof(self._leaf_hashes[: len(self.rows) if new is None else new], old)

    def checkpoint(self, sign: Sign, public_key: bytes) -> str:
        """A signed C2SP checkpoint of the log as it is now."""
        assert self.rows, "an empty log has nothing to sign"
        return signed_checkpoint(origin(self.rows[0].exchange), len(self.rows), self.root(), sign, public_key)

    def next_checkpoint(self, row: Row, sign: Sign, public_key: bytes) -> str:
        """The checkpoint of the log with `row` appended, before it is: what is published must be durable first."""
        self.require_next(row)
        root = merkle.root([*self._leaf_hashes, merkle.leaf_hash(row.hash())])
        return signed_checkpoint(origin(row.exchange), len(self.rows) + 1, root, sign, public_key)

    def proof(self, index: int, checkpoint: str, public_key: bytes, known_sizes: Iterable[int] = ()) -> dict[str, Any]:
        """The log's part of a proof: row `index` is in the tree of the checkpoint, which extends (or is extended by)
        the trees of `known_sizes` that the customer has seen before."""
        size = checkpoint_size(checkpoint)
        known = sorted({known for known in known_sizes if 0 < known <= len(self.rows) and known != size})
        return {
            "index": index,
            "size": size,
            "path": [step.hex() for step in self.inclusion_path(index, size)],
            "checkpoint": checkpoint,
            "publicKey": base64.b64encode(public_key).decode(),
            "consistency": [self._connection(size, other) for other in known],
        }

    def _connection(self, size: int, other: int) -> dict[str, Any]:
        old, new = min(size, other), max(size, other)
        return {
            "from": old,
            "to": new,
            "root": self.root(other).hex(),
            "path": [step.hex() for step in self.consistency_path(old, new)],
        }

    def export(self, checkpoint: str, public_key: bytes) -> dict[str, Any]:
        """The whole log as one JSON document that the standalone verifier checks.   [R-24]"""
        return {
            "format": LOG_FORMAT,
            "version": 1,
            "rows": [row.text() for row in self.rows[: checkpoint_size(checkpoint)]],
            "checkpoint": checkpoint,
            "publicKey": base64.b64encode(public_key).decode(),
        }


def origin(exchange: str) -> str:
    """The log's name, first line of its checkpoints and name of its key."""
    name = f"{exchange}/proof-of-reserves"
    if any(character.isspace() or character == "+" or not character.isprintable() for character in name):
        raise BuildRefused(f"{name!r} cannot name a log: no spaces, no plus sign")
    return name


def signed_checkpoint(name: str, size: int, root: bytes, sign: Sign, public_key: bytes) -> str:
    """The C2SP tlog-checkpoint text: origin, size, base64 root, blank line, Ed25519 signature line."""
    body = f"{name}\n{size}\n{base64.b64encode(root).decode()}\n"
    return f"{body}\n{signature_line(name, _ED25519, public_key, sign(body.encode()))}"


def cosign(checkpoint: str, witness: str, sign: Sign, public_key: bytes, at_seconds: int) -> str:
    """Add an Ed25519 witness cosignature (C2SP tlog-cosignature) to a checkpoint."""
    body = checkpoint.rpartition("\n\n")[0] + "\n"
    signature = sign(f"cosignature/v1\ntime {at_seconds}\n{body}".encode())
    return checkpoint + signature_line(witness, _COSIGNATURE, public_key, at_seconds.to_bytes(8, "big") + signature)


def signature_line(name: str, kind: int, public_key: bytes, signature: bytes) -> str:
    """— name base64(key id ‖ signature), as C2SP signed-note has it."""
    return f"— {name} {base64.b64encode(key_id(name, kind, public_key) + signature).decode()}\n"


def key_id(name: str, kind: int, public_key: bytes) -> bytes:
    """The first four bytes of SHA-256(name ‖ newline ‖ signature type ‖ public key)."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:4]


def verifier_key(name: str, public_key: bytes) -> str:
    """The key as one text that witnesses and customers can pin: name+id+base64(type ‖ key)."""
    encoded = base64.b64encode(bytes([_ED25519]) + public_key).decode()
    return f"{name}+{key_id(name, _ED25519, public_key).hex()}+{encoded}"


def checkpoint_size(checkpoint: str) -> int:
    """The number of rows a checkpoint covers."""
    return int(checkpoint.split("\n")[1])


def checkpoint_root(checkpoint: str) -> bytes:
    """The tree hash a checkpoint states."""
    return base64.b64decode(checkpoint.split("\n")[2], validate=True)


def require_checkpoint(log: Log, checkpoint: str, public_key: bytes) -> None:
    """The checkpoint is signed by the key and states this log's root at its size; ValueError says what is wrong."""
    body, _, signatures = checkpoint.rpartition("\n\n")
    name = body.split("\n")[0]
    prefix = f"— {name} "
    expected_id = key_id(name, _ED25519, public_key)
    for line in signatures.splitlines():
        blob = base64.b64decode(line.removeprefix(prefix), validate=True) if line.startswith(prefix) else b""
        if blob[:4] == expected_id:
            try:
                Ed25519PublicKey.from_public_bytes(public_key).verify(blob[4:], f"{body}\n".encode())
            except InvalidSignature:
                raise ValueError(f"the signature of {name} on its checkpoint is wrong") from None
            break
    else:
        raise ValueError(f"no signature of {name} with key id {expected_id.hex()}")

    size, root = checkpoint_size(checkpoint), checkpoint_root(checkpoint)
    if size > len(log) or log.root(size) != root:
        raise ValueError(f"the checkpoint of {size} rows has root {root.hex()}, the log of {len(log)} rows does not")
