"""Signed checkpoints of the block log, kept outside the database: what a cut tail is found against.   [A-8b]

A checkpoint is a C2SP signed note (tlog-checkpoint): origin, number of blocks, root of the tree over their hashes.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ledger import merkle
from ledger.signing import Signer, verify

_ED25519 = b"\x01"
_ORIGIN = re.compile(r"[^\s+]+\Z")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is not signed by the key it should be."""


class Checkpoint(NamedTuple):
    """The exchange's word for the first `size` blocks."""

    origin: str
    size: int
    root: bytes
    note: str
    """The whole signed note, as it is kept and published."""


def sign_checkpoint(origin: str, size: int, root: bytes, signer: Signer) -> Checkpoint:
    """A checkpoint signed by the key in force; `origin` is `<exchange>/blocks`, and the name of its key.   [A-8b]"""
    if not _ORIGIN.match(origin):
        raise CheckpointError(f"origin {origin!r} must have no blanks and no '+'")
    body = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    signature = _key_hash(origin, signer.public_key) + signer.sign(body.encode())
    return Checkpoint(origin, size, root, f"{body}\n— {origin} {base64.b64encode(signature).decode()}\n")


def parse_checkpoint(note: str, public_keys: Sequence[bytes]) -> Checkpoint:
    """The checkpoint in a note, signed by one of these keys; else CheckpointError. Others' signatures are ignored."""
    origin, size, root = checkpoint_facts(note)
    body, _, signatures = note.partition("\n\n")
    text = (body + "\n").encode()
    for line in signatures.splitlines():
        name, _, encoded = line.removeprefix("— ").partition(" ")
        signature = _decode(encoded)
        if name != origin or signature is None or len(signature) != 68:
            continue
        for key in public_keys:
            if signature[:4] == _key_hash(origin, key) and verify(key, signature[4:], text):
                return Checkpoint(origin, size, root, note)
    raise CheckpointError(f"checkpoint of {origin} at {size} blocks bears no signature of the exchange's keys")


def checkpoint_facts(note: str) -> tuple[str, int, bytes]:
    """What a note says, whoever signed it: origin, number of blocks, root. CheckpointError for anything else."""
    body, separator, signatures = note.partition("\n\n")
    lines = body.split("\n")
    if not separator or len(lines) < 3 or not signatures.endswith("\n"):
        raise CheckpointError("not a signed note: three lines, an empty one, signatures")
    origin, size_text, root_text = lines[:3]
    root = _decode(root_text)
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", size_text) or root is None or len(root) != 32:
        raise CheckpointError(f"not a checkpoint: size {size_text[:40]!r}, root {root_text[:60]!r}")
    return origin, int(size_text), root


def read_checkpoint(path: Path, public_keys: Sequence[bytes]) -> Checkpoint:
    """`parse_checkpoint` of a file."""
    try:
        note = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return parse_checkpoint(note, public_keys)


def verify_block_inclusion(checkpoint: Checkpoint, block_hash: bytes, height: int, path: Sequence[bytes]) -> bool:
    """Whether the checkpoint covers this block; `path`: `merkle.inclusion_proof` over the first `size` block hashes."""
    return merkle.verify_inclusion(block_hash, height, checkpoint.size, path, checkpoint.root)


def verify_extension(old: Checkpoint, new: Checkpoint, proof: Sequence[bytes]) -> bool:
    """Whether the new checkpoint's log begins with the old one's: nothing was rewritten in between."""
    if old.origin != new.origin:
        return False
    if old.size == 0:
        return not proof and old.root == merkle.EMPTY_ROOT
    return merkle.verify_consistency(old.size, new.size, old.root, new.root, proof)


class CheckpointFile:
    """Writes the newest checkpoint to a file, atomically and at most every `seconds`.   [A-8b]"""

    def __init__(self, path: Path, origin: str, signer: Signer, seconds: float = 1.0) -> None:
        self.path = path
        self.origin = origin
        self.signer = signer
        self.seconds = seconds
        self.newest: Checkpoint | None = None
        self._written_at = -1e9

    def update(self, size: int, root: bytes, *, now: bool = False) -> None:
        """Called after each durable block; writes when it is time, or `now` (at shutdown, before a rotation)."""
        if not now and time.monotonic() - self._written_at < self.seconds:
            return
        if self.newest is not None and self.newest.size == size:
            return
        checkpoint = sign_checkpoint(self.origin, size, root, self.signer)
        write_checkpoint(self.path, checkpoint)
        self.newest = checkpoint
        self._written_at = time.monotonic()


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file as a whole: a reader, or a crash, sees the old note or the new one."""
    fresh = path.with_name(f"{path.name}.new")
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(checkpoint.note)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _key_hash(name: str, public_key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
