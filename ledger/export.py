"""The log as one file that verifies without SQL, and its check.   [A-4, A-7, A-10]

A line of JSON, then frames: one letter, a 32-bit length, the bytes. `C` a command and `J` a journal transaction in
canonical encoding v1; `P` the columns of one of its batches (owners, then atoms, as big-endian 64-bit integers); `B` a
block's header and signature after all that belongs to it; `E` the number of blocks, so that a torn file is noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import IO, Any

import msgspec
import numpy as np

from ledger.blocks import Block, BlockHeader, LoggedCommand, SignedRequest, encode_command, encode_header, header_hash
from ledger.decoding import EncodingError, TransactionFacts, decode_command, decode_header, decode_transaction
from ledger.journal import PostingBatch, SealedTransaction, batch_root, encode_transaction, exact_sum
from ledger.store import Store
from ledger.verification import Continuity, Findings, Report, check_command, check_transaction

FORMAT = "satchel log v1"
_FRAME = Struct(">cI")
_COUNT = Struct(">Q")
_MOST_BYTES = 1 << 30
"""No frame is longer: a damaged length must not ask for the machine's memory."""


class ExportError(ValueError):
    """A file that is not a whole export; says at which byte."""


def export_log(store: Store, path: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """Write the log to a new file, which appears when it is complete. Returns the number of blocks."""
    tip = store.tip()
    last = -1 if tip is None else tip.header.height
    fresh = path.with_name(f"{path.name}.new")
    with open(fresh, "wb") as file:
        file.write(json.dumps({"format": FORMAT, "blocks": last + 1}).encode() + b"\n")
        previous_hash = bytes(32)
        for height in range(last + 1):
            block = store.whole_block(height)
            assert block is not None, f"block {height} is missing"
            previous_hash = _write_block(file, block, previous_hash)
            if progress:
                progress(height + 1, last + 1)
        _frame(file, b"E", _COUNT.pack(last + 1))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    return last + 1


def read_export(path: Path) -> Iterator[Block]:
    """The blocks of an export in order, their hashes computed anew; checks no link. Raises ExportError."""
    with open(path, "rb") as file:
        _read_head(file)
        reader = _BlockReader(file)
        yield from reader.blocks()


def verify_export(
    path: Path,
    checkpoint: Path | None = None,
    public_key: bytes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """What `verification.verify` does, on an export: every hash, link, root, balance and signature."""
    findings = Findings()
    continuity = Continuity(findings)
    covered: dict[str, Any] = dict.fromkeys(("blocks", "commands", "journal transactions", "postings", "batches"), 0)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            _read_head(file)
            reader = _BlockReader(file)
            for block in reader.blocks():
                _check(findings, continuity, block, reader.previous_hashes, covered)
                if progress:
                    progress(file.tell(), size)
    except (OSError, ExportError) as error:
        findings.add("export", "", "", str(error))
    continuity.check_trust(public_key, checkpoint, covered)
    return Report(findings.list, covered)


def _write_block(file: IO[bytes], block: Block, previous_hash: bytes) -> bytes:
    for command in block.commands:
        seq, at_us, outcome, _kind_name, payload, request, _digest = command
        _frame(file, b"C", encode_command(seq, at_us, outcome, payload, request))
    for entry in block.journal:
        facts = (entry.seq, entry.command_seq, entry.at_us, entry.kind, entry.memo, entry.postings, entry.batches)
        _frame(file, b"J", encode_transaction(previous_hash, *facts))
        for batch in entry.batches:
            _frame(file, b"P", batch.owners.astype(">i8").tobytes() + batch.atoms.astype(">i8").tobytes())
        previous_hash = entry.hash
    _frame(file, b"B", encode_header(block.header) + block.signature)
    return previous_hash


def _frame(file: IO[bytes], letter: bytes, data: bytes) -> None:
    file.write(_FRAME.pack(letter, len(data)))
    file.write(data)


def require_export(path: Path) -> None:
    """The file begins as an export does; else ExportError. Whether it holds is for `verify_export` to say."""
    with open(path, "rb") as file:
        _read_head(file)


def _read_head(file: IO[bytes]) -> None:
    try:
        head = json.loads(file.readline(1_000))
        if head["format"] != FORMAT:
            raise ExportError(f"format {head['format']!r}, expected {FORMAT!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"not an export of a log: {error}") from None


def _check(
    findings: Findings, continuity: Continuity, block: Block, previous_hashes: list[bytes], covered: dict[str, Any]
) -> None:
    header = block.header
    for at, command in enumerate(block.commands):
        if command.seq != header.first_command + at:
            findings.add("command", f"seq {command.seq}", "seq", f"{command.seq}, expected {header.first_command + at}")
        facts = (command.seq, command.at_us, command.outcome, command.kind.encode(), command.payload, command.request)
        check_command(findings, *facts)
    rotated_to = None
    expected_previous = continuity.journal_head
    for at, (entry, previous) in enumerate(zip(block.journal, previous_hashes, strict=True)):
        if entry.seq != header.first_journal + at:
            findings.add("journal", f"seq {entry.seq}", "seq", f"{entry.seq}, expected {header.first_journal + at}")
        if not 0 <= entry.command_seq - header.first_command < header.command_count:
            findings.add("journal", f"seq {entry.seq}", "command_seq", f"{entry.command_seq} is not in the same block")
        if previous != expected_previous:
            findings.add("journal", f"seq {entry.seq}", "", "does not continue the transaction before it")
        expected_previous = entry.hash
        rotated_to = (
            check_transaction(findings, entry.seq, entry.kind, entry.memo, entry.postings, entry.batches) or rotated_to
        )
        covered["postings"] += len(entry.postings)
        covered["batches"] += len(entry.batches)
    covered["blocks"] += 1
    covered["commands"] += len(block.commands)
    covered["journal transactions"] += len(block.journal)
    hashes = [command.hash for command in block.commands], [entry.hash for entry in block.journal]
    continuity.check_block(header, block.hash, block.signature, *hashes, rotated_to)


class _BlockReader:
    """Reads frames and puts blocks together; keeps the previous hashes that the last block's transactions named."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.previous_hashes: list[bytes] = []

    def blocks(self) -> Iterator[Block]:
        count = 0
        commands: list[LoggedCommand] = []
        transactions: list[tuple[bytes, TransactionFacts, list[bytes]]] = []
        for letter, data in self._frames():
            try:
                if letter == b"C":
                    commands.append(_command(data))
                elif letter == b"J":
                    transactions.append((data, decode_transaction(data), []))
                elif letter == b"P" and transactions:
                    transactions[-1][2].append(data)
                elif letter == b"B":
                    header = BlockHeader(*decode_header(data[:-64]))
                    self.previous_hashes = [facts.previous_hash for _data, facts, _columns in transactions]
                    journal = [_transaction(*parts) for parts in transactions]
                    yield Block(header, header_hash(header), data[-64:], commands, journal)
                    count, commands, transactions = count + 1, [], []
                elif letter == b"E":
                    if commands or transactions or data != _COUNT.pack(count) or self.file.read(1):
                        raise ExportError(f"the file does not end after its {count} blocks")
                    return
                else:
                    raise ExportError(f"unknown frame {letter!r}")
            except (EncodingError, ExportError) as error:
                raise ExportError(f"before byte {self.file.tell()}: {error}") from None
        raise ExportError(f"the file is torn after {count} blocks")

    def _frames(self) -> Iterator[tuple[bytes, bytes]]:
        while head := self.file.read(_FRAME.size):
            if len(head) < _FRAME.size:
                return
            letter, length = _FRAME.unpack(head)
            data = self.file.read(length) if length <= _MOST_BYTES else b""
            if len(data) != length:
                return
            yield letter, data


def _command(data: bytes) -> LoggedCommand:
    facts = decode_command(data)
    request = None if facts.request is None else SignedRequest(*facts.request)
    digest = sha256(b"\x00" + data).digest()
    return LoggedCommand(facts.seq, facts.at_us, facts.outcome, _kind(facts.payload), facts.payload, request, digest)


def _kind(payload: bytes) -> str:
    try:
        content = msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ""
    return content[0] if isinstance(content, list) and content and isinstance(content[0], str) else ""


def _transaction(data: bytes, facts: TransactionFacts, columns: list[bytes]) -> SealedTransaction:
    if len(columns) != len(facts.batches):
        raise ExportError(f"journal transaction {facts.seq} has {len(facts.batches)} batches, the file {len(columns)}")
    batches = []
    for head, content in zip(facts.batches, columns, strict=True):
        whole = content[: len(content) // 16 * 16]
        values = np.frombuffer(whole, dtype=">i8").astype(np.int64)
        owners, atoms = values[: len(values) // 2], values[len(values) // 2 :]
        rows_agree = len(owners) == head.row_count and len(content) == 16 * head.row_count and head.row_count > 0
        ascending = bool(np.all(owners[1:] > owners[:-1]))
        if not rows_agree or not ascending or batch_root(owners, atoms) != head.root or exact_sum(atoms) != head.total:
            raise ExportError(f"a batch of journal transaction {facts.seq} is not what the transaction commits to")
        batches.append(PostingBatch(head.account_kind, head.asset, owners, atoms, head.total, head.root))
    digest = sha256(b"\x00" + data).digest()
    return SealedTransaction(
        facts.seq, facts.command_seq, facts.at_us, facts.kind, facts.memo, facts.postings, tuple(batches), digest
    )
