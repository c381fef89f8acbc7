"""Blocks and logged commands: canonical encoding v1, Merkle roots, hashes, and what exactly the exchange signs.

A block is the group of commands that became durable together. Its header commits to the commands (accepted and
rejected, with the user's own signature), to the journal transactions, and to every block before it.   [A-5, A-7]
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from struct import Struct
from typing import NamedTuple

from ledger import merkle
from ledger.journal import ENCODING_VERSION, SealedTransaction

BLOCK_DOMAIN = b"satchel block v1\n"
"""Prefix of what is signed, so that a block signature can never be taken for a signature of something else."""


class SignedRequest(NamedTuple):
    """A user's own request as it came over the wire: the proof that the user asked.   [A-5]"""

    api_key: bytes
    signature: bytes
    text: bytes
    """The exact bytes that were signed: `instruction=…&…&timestamp=…&window=…`."""
    timestamp_ms: int
    window_ms: int
    received_ms: int
    """Wall clock at the edge; replay protection runs on it, since exchange time may stand still on a devnet.  [A-11]"""


class LoggedCommand(NamedTuple):
    """One command with its place in the total order and what came of it.   [A-6]"""

    seq: int
    at_us: int
    outcome: int
    """0 accepted, else the number of the engine's rejection reason."""
    kind: str
    payload: bytes
    """Canonical MessagePack of the engine's command struct (array-like, tag first)."""
    request: SignedRequest | None
    hash: bytes


class BlockHeader(NamedTuple):
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
    """Hash of the newest journal transaction so far (this block's last, or the one before when it has none)."""
    log_root: bytes
    """RFC 9162 root over the hashes of all blocks before this one: what consistency proofs are made against."""
    public_key: bytes


class Block(NamedTuple):
    header: BlockHeader
    hash: bytes
    signature: bytes
    commands: list[LoggedCommand]
    journal: list[SealedTransaction]


_COMMAND = Struct(">BQQHI")
_REQUEST = Struct(">B32s64sQQQI")
_HEADER = Struct(">BQ32sQQI32sQI32s32s32s32s")


def encode_command(seq: int, at_us: int, outcome: int, payload: bytes, request: SignedRequest | None) -> bytes:
    """Canonical encoding v1 of a logged command.

    u8 version, u64 seq, u64 time in µs, u16 outcome, u32 + payload; then u8 0, or u8 1, 32 B API key, 64 B signature,
    u64 timestamp ms, u64 window ms, u64 received ms, u32 + signed text.   [A-5]
    """
    head = _COMMAND.pack(ENCODING_VERSION, seq, at_us, outcome, len(payload)) + payload
    if request is None:
        return head + b"\x00"
    key, signature, text, timestamp, window, received = request
    return head + _REQUEST.pack(1, key, signature, timestamp, window, received, len(text)) + text


def log_command(
    seq: int, at_us: int, outcome: int, kind: str, payload: bytes, request: SignedRequest | None
) -> LoggedCommand:
    encoding = encode_command(seq, at_us, outcome, payload, request)
    return LoggedCommand(seq, at_us, outcome, kind, payload, request, sha256(b"\x00" + encoding).digest())


def encode_header(header: BlockHeader) -> bytes:
    """Canonical encoding v1 of a block header: u8 version, then the fields in order, u64 / u32 counts / 32 B hashes."""
    return _HEADER.pack(ENCODING_VERSION, *header)


def header_hash(header: BlockHeader) -> bytes:
    """The block's hash: the RFC 9162 leaf hash of its header, so that blocks are themselves leaves of a log."""
    return merkle.leaf_hash(encode_header(header))


def signed_bytes(header: BlockHeader) -> bytes:
    return BLOCK_DOMAIN + encode_header(header)


class Chain:
    """The tip of the log: what the next block continues. Builds and signs blocks; reads no database."""

    def __init__(self, public_key: bytes, sign: Callable[[bytes], bytes]) -> None:
        self.height = -1
        self.block_hash = bytes(32)
        self.next_command = 1
        self.next_journal = 1
        self.journal_head = bytes(32)
        self.log = merkle.TreeHead()
        self.public_key = public_key
        self.sign = sign

    def build(
        self, at_us: int, commands: list[LoggedCommand], journal: list[SealedTransaction]
    ) -> Block:
        """The next block, signed, over these commands and journal transactions; advances the tip.   [A-7]"""
        assert commands, "a block has at least one command"
        assert commands[0].seq == self.next_command, f"command {commands[0].seq} is not next ({self.next_command})"
        assert not journal or journal[0].seq == self.next_journal
        header = BlockHeader(
            height=self.height + 1,
            previous_hash=self.block_hash,
            at_us=at_us,
            first_command=self.next_command,
            command_count=len(commands),
            commands_root=merkle.root([command.hash for command in commands]),
            first_journal=self.next_journal,
            journal_count=len(journal),
            journal_root=merkle.root([entry.hash for entry in journal]),
            journal_head=journal[-1].hash if journal else self.journal_head,
            log_root=self.log.root(),
            public_key=self.public_key,
        )
        digest = header_hash(header)
        block = Block(header, digest, self.sign(signed_bytes(header)), commands, journal)
        self.advance(header, digest)
        return block

    def advance(self, header: BlockHeader, digest: bytes) -> None:
        """Continue after this block, which is durable or about to be."""
        self.height = header.height
        self.block_hash = digest
        self.next_command += header.command_count
        self.next_journal += header.journal_count
        self.journal_head = header.journal_head
        self.log.append(digest)

    def rotate(self, public_key: bytes, sign: Callable[[bytes], bytes]) -> None:
        """Sign with a new key from the next block on; the change itself is a journal record in this one.   [A-4]"""
        self.public_key = public_key
        self.sign = sign
