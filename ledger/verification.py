"""Checks a stored log from the outside: every column, link, root and signature.   [A-1, A-4, A-7, A-8]

Trusts nothing it reads: a value of the wrong type, an undecodable memo, a missing column are findings, not exceptions.
The whole check is one read transaction: what a running node adds meanwhile is left for the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa

from ledger import definitions, merkle, schema
from ledger.amounts import ATOMS_SPLIT, INT64_MAX, join_atoms, split_atoms
from ledger.blocks import BlockHeader, SignedRequest, encode_command, header_hash, signed_bytes
from ledger.chart import OWNER_BITS
from ledger.checkpoints import Checkpoint, CheckpointError, read_checkpoint
from ledger.database import reading
from ledger.journal import (
    RECORD_KINDS,
    JournalKind,
    JournalTransaction,
    Posting,
    PostingBatch,
    batch_root,
    decode_memo,
    encode_memo,
    encode_transaction,
    exact_sum,
    residues,
)
from ledger.signing import key_text
from ledger.signing import verify as verify_signature
from ledger.store import snapshot_bytes
from ledger.writing import raw

MOST_FINDINGS = 1_000
MOST_WRITERS = 1 << 32
"""No log was continued by more processes than this, one after the other."""
_FETCH = 5_000


class Finding(NamedTuple):
    """One thing that is not as the exchange signed it."""

    table: str
    row: str
    """Which row, by its key: "seq 7", "journal 7 line 2"; "" for the table as a whole."""
    column: str
    """The column at fault where it is known, else ""."""
    reason: str

    def __str__(self) -> str:
        place = " ".join(part for part in (self.table, self.row, self.column) if part)
        return f"{place}: {self.reason}"


class Report(NamedTuple):
    findings: list[Finding]
    covered: dict[str, Any]
    """What was looked at: rows per table, keys, the checkpoint held against the log."""

    @property
    def is_clean(self) -> bool:
        return not self.findings


class Findings:
    """Collects findings, the first thousand of them."""

    def __init__(self) -> None:
        self.list: list[Finding] = []
        self.left_out = 0

    def add(self, table: str, row: str, column: str, reason: str) -> None:
        if len(self.list) < MOST_FINDINGS:
            self.list.append(Finding(table, row, column, reason))
        else:
            self.left_out += 1


def verify(
    engine: sa.Engine,
    checkpoint: Path | None = None,
    public_key: bytes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check the whole log. `public_key` is the one that the exchange published at its genesis; without it the log is
    only held against itself. `checkpoint` is a kept note (A-8b). `progress` gets (rows done, rows in all).
    """
    findings = Findings()
    covered: dict[str, Any] = {}
    with reading(engine) as connection:
        if engine.dialect.name != "sqlite":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        tables = _Tables(connection, findings)
        try:
            tables.check_shape()
            total = tables.row_count() if progress else 0
            log = _LogCheck(tables, findings, lambda done: progress(done, total) if progress else None)
            covered |= log.run()
            log.continuity.check_trust(public_key, checkpoint, covered)
            tables.check_tip(log.continuity)
            covered["snapshots"] = tables.check_snapshots(log.continuity)
        except _Unreadable as error:
            findings.add(error.table, "", "", f"unreadable from here on: {error}")
        finally:
            tables.close()
    if findings.left_out:
        covered["findings left out"] = findings.left_out
    return Report(findings.list, covered)


class Continuity:
    """What a block must be after the one before it; holds no row, so that SQL and export files are checked alike."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.height = -1
        self.block_hash = bytes(32)
        self.at_us = 0
        self.next_command = 1
        self.next_journal = 1
        self.journal_head = bytes(32)
        self.log = merkle.TreeHead()
        self.peaks_before = b""
        """Of the block log's tree before the newest block, as the writer keeps them."""
        self.key: bytes | None = None
        """The key that must sign the next block; None before genesis and after a gap."""
        self.keys: list[bytes] = []
        self.hashes: list[bytes] = []
        self.changes: list[tuple[int, bytes]] = []
        """(height, key in force after it) where that key changes."""

    def check_block(
        self,
        header: BlockHeader,
        stored_hash: bytes,
        signature: bytes,
        command_hashes: Sequence[bytes],
        journal_hashes: Sequence[bytes],
        rotated_to: bytes | None,
    ) -> None:
        row = f"height {header.height}"
        digest = header_hash(header)
        signed = verify_signature(header.public_key, signature, signed_bytes(header))

        def expect(column: str, actual: object, expected: object) -> None:
            if actual != expected:
                self.findings.add("block", row, column, f"{_show(actual)}, expected {_show(expected)}")

        expect("hash", stored_hash, digest)
        if not signed:
            self.findings.add("block", row, "signature", "is not the exchange's on this header")
        if header.height == self.height + 1:
            expect("previous_hash", header.previous_hash, self.block_hash)
            expect("first_command", header.first_command, self.next_command)
            expect("first_journal", header.first_journal, self.next_journal)
            expect("log_root", header.log_root, self.log.root())
            if self.key is not None:
                expect("public_key", header.public_key, self.key)
            if not journal_hashes:
                expect("journal_head", header.journal_head, self.journal_head)
        else:
            self.findings.add("block", row, "height", f"follows height {self.height}: blocks are missing or doubled")
        if header.at_us < self.at_us:
            self.findings.add("block", row, "at_us", f"{header.at_us} is before the block before it ({self.at_us})")
        if header.command_count < 1:
            self.findings.add("block", row, "command_count", "a block has at least one command")
        expect("command_count", header.command_count, len(command_hashes))
        expect("commands_root", header.commands_root, merkle.root(command_hashes))
        expect("journal_count", header.journal_count, len(journal_hashes))
        expect("journal_root", header.journal_root, merkle.root(journal_hashes))
        if journal_hashes:
            expect("journal_head", header.journal_head, journal_hashes[-1])

        # Continue from what was signed, so that one bad column is one finding and not one per later block.
        truth = digest if signed else stored_hash
        if header.public_key not in self.keys:
            self.keys.append(header.public_key)
        self.height = header.height
        self.block_hash = truth
        self.at_us = header.at_us
        self.next_command = header.first_command + header.command_count
        self.next_journal = header.first_journal + header.journal_count
        self.journal_head = header.journal_head
        self.peaks_before = b"".join(self.log.dump()[1])
        self.log.append(truth)
        self.hashes.append(truth)
        self.key = rotated_to or header.public_key
        if not self.changes or self.changes[-1][1] != self.key:
            self.changes.append((header.height, self.key))

    def key_after(self, height: int) -> bytes:
        """Whose signature the block after `height` must carry."""
        return next(key for since, key in reversed(self.changes) if since <= height)

    def check_trust(self, public_key: bytes | None, checkpoint: Path | None, covered: dict[str, Any]) -> None:
        """Hold the log against what the auditor brought: the exchange's key and a kept checkpoint.   [A-8b]"""
        covered["keys"] = [key_text(key) for key in self.keys]
        known = [*self.keys, *([self.key] if self.key is not None and self.key not in self.keys else [])]
        # Only the first key vouches for the whole log: anybody can end a log of their own with a rotation to ours.
        if public_key is not None and self.keys[:1] != [public_key]:
            first = f"key {key_text(self.keys[0])}" if self.keys else "no key"
            reason = f"the log begins with {first}, not {key_text(public_key)}"
            self.findings.add("block", "height 0", "public_key", reason)
        if checkpoint is None:
            return
        try:
            kept = read_checkpoint(checkpoint, [*known, *([public_key] if public_key is not None else [])])
        except CheckpointError as error:
            self.findings.add("block", "", "", f"the checkpoint does not fit this log: {error}")
            return
        covered["checkpoint"] = kept.size
        self.check_checkpoint(kept)

    def check_checkpoint(self, kept: Checkpoint) -> None:
        if kept.size > len(self.hashes):
            reason = f"the tail is cut: the checkpoint covers {kept.size} blocks, the log has {len(self.hashes)}"
            self.findings.add("block", "", "", reason)
        elif merkle.root(self.hashes[: kept.size]) != kept.root:
            self.findings.add("block", "", "", f"the first {kept.size} blocks are not those of the checkpoint")


def check_command(
    findings: Findings, seq: int, at_us: int, outcome: int, kind: bytes, payload: bytes, request: SignedRequest | None
) -> bytes:
    """The command's hash, recomputed; findings for a kind that is not its payload's.   [A-5]"""
    try:
        tag = msgspec.msgpack.decode(payload)
        if not isinstance(tag, list) or not tag or not isinstance(tag[0], str):
            findings.add("command", f"seq {seq}", "payload", "is not an array that begins with the command's kind")
        elif tag[0].encode() != kind:
            findings.add("command", f"seq {seq}", "kind", f"{kind!r}, the payload says {tag[0]!r}")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        findings.add("command", f"seq {seq}", "payload", f"is no MessagePack: {error}")
    return sha256(b"\x00" + encode_command(seq, at_us, outcome, payload, request)).digest()


def check_transaction(
    findings: Findings, seq: int, kind: int, memo: bytes, postings: list[Posting], batches: Sequence[PostingBatch]
) -> bytes | None:
    """Findings for what cannot be a transaction, whatever its hash; the new key of a rotation.   [A-1, A-4]"""
    row = f"seq {seq}"
    try:
        facts = decode_memo(memo)
        if not isinstance(facts, list) or encode_memo(facts) != memo:
            findings.add("journal", row, "memo", "is not a canonical MessagePack array")
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        facts = []
        findings.add("journal", row, "memo", f"is no MessagePack: {error}")
    legs = len(postings) + len(batches)
    if kind in RECORD_KINDS and legs:
        findings.add("journal", row, "kind", f"kind {kind} is a record, yet has {legs} postings or batches")
    if kind not in RECORD_KINDS and len(postings) + sum(len(batch.owners) for batch in batches) < 2:
        findings.add("journal", row, "kind", f"kind {kind} moves value, yet has less than two postings")
    for asset, residue in residues(JournalTransaction(kind, (), postings, tuple(batches))).items():
        findings.add("journal", row, "", f"is out of balance by {residue} atoms of asset {asset}")
    if kind != JournalKind.KEY_ROTATED:
        return None
    if len(facts) == 1 and isinstance(facts[0], bytes) and len(facts[0]) == 32:
        return facts[0]
    findings.add("journal", row, "memo", "a rotation's memo is the new 32-byte public key")
    return None


class _LogCheck:
    """One pass over blocks, commands, journal, postings and batches, each in the order of its key."""

    def __init__(self, tables: _Tables, findings: Findings, report: Callable[[int], None]) -> None:
        self.findings = findings
        self.report = report
        self.continuity = Continuity(findings)
        self.blocks = tables.rows("block")
        self.commands = _Rows(tables.rows("command"))
        self.journal = _Rows(tables.rows("journal"))
        self.postings = _Rows(tables.rows("posting"))
        self.batches = _Rows(tables.rows("posting_batch"))
        self.counts = dict.fromkeys(("blocks", "commands", "journal transactions", "postings", "batches"), 0)
        self.command_at_us = 0
        self.command_seq = 0
        self.journal_seq = 0
        self.journal_command = 0
        self.journal_hash = bytes(32)
        self.rotated_to: bytes | None = None

    def run(self) -> dict[str, int]:
        for row in self.blocks:
            self.counts["blocks"] += 1
            header = self._header(row)
            if header is None:
                continue
            self._strays(header)
            self.rotated_to = None
            commands = self._take_commands(header)
            journal = self._take_journal(header)
            self.continuity.check_block(header, row["hash"], row["signature"], commands, journal, self.rotated_to)
            self.report(sum(self.counts.values()))
        self._strays(None)
        return self.counts

    def _header(self, row: dict[str, Any]) -> BlockHeader | None:
        key = f"height {_show(row['height'])}"
        good = _typed(self.findings, "block", key, row)
        if not good:
            return None
        for column in ("previous_hash", "commands_root", "journal_root", "journal_head", "log_root", "public_key"):
            good &= _sized(self.findings, "block", key, column, row[column], 32)
        good &= _sized(self.findings, "block", key, "hash", row["hash"], 32)
        good &= _sized(self.findings, "block", key, "signature", row["signature"], 64)
        for column, bits in (("command_count", 32), ("journal_count", 32)):
            if not 0 <= row[column] < 1 << bits:
                self.findings.add("block", key, column, f"{row[column]} is out of range")
                good = False
        for column in ("height", "at_us", "first_command", "first_journal"):
            if row[column] < 0:
                self.findings.add("block", key, column, f"{row[column]} is out of range")
                good = False
        return BlockHeader(*(row[column] for column in BlockHeader._fields)) if good else None

    def _strays(self, header: BlockHeader | None) -> None:
        """Rows before this block's (or after the last block's) that no block commits to."""
        what = "belongs to no block" if header is None else "belongs to a block that is missing or unreadable"
        for stream, table, first in (
            (self.commands, "command", header and header.first_command),
            (self.journal, "journal", header and header.first_journal),
        ):
            while (row := stream.head) is not None and (first is None or _below(row["seq"], first)):
                self.findings.add(table, f"seq {_show(row['seq'])}", "", what)
                (self._command if table == "command" else self._transaction)(None)
        if header is None:
            self._orphan_legs(None)

    def _take_commands(self, header: BlockHeader) -> list[bytes]:
        end = header.first_command + header.command_count
        hashes = []
        while (row := self.commands.head) is not None and _below(row["seq"], end):
            hashes.append(self._command(header))
        return hashes

    def _take_journal(self, header: BlockHeader) -> list[bytes]:
        end = header.first_journal + header.journal_count
        hashes = []
        while (row := self.journal.head) is not None and _below(row["seq"], end):
            hashes.append(self._transaction(header))
        return hashes

    def _command(self, header: BlockHeader | None) -> bytes:
        row = self.commands.head
        assert row is not None
        self.commands.advance()
        self.counts["commands"] += 1
        key = f"seq {_show(row['seq'])}"
        if not _typed(self.findings, "command", key, row):
            return _bytes_or_zero(row["hash"])
        self._expect("command", key, "seq", row["seq"], self.command_seq + 1)
        self.command_seq = row["seq"]
        if header is not None:
            self._expect("command", key, "block_height", row["block_height"], header.height)
        if row["at_us"] < self.command_at_us:
            self.findings.add("command", key, "at_us", f"{row['at_us']} is before the command before it")
        self.command_at_us = row["at_us"]
        request = self._request(key, row)
        try:
            digest = check_command(
                self.findings, row["seq"], row["at_us"], row["outcome"], row["kind"], row["payload"], request
            )
        except Exception as error:
            self.findings.add("command", key, "", f"has no encoding: {error}")
            return bytes(row["hash"])
        if digest != row["hash"]:
            self.findings.add("command", key, "", "its hash is not that of its columns")
        return bytes(row["hash"])

    def _request(self, key: str, row: dict[str, Any]) -> SignedRequest | None:
        columns = ("api_key", "signature", "signed_text", "timestamp_ms", "window_ms", "received_ms")
        values = [row[column] for column in columns]
        missing = [column for column, value in zip(columns, values, strict=True) if value is None]
        if len(missing) == len(columns):
            return None
        for column in missing:
            self.findings.add("command", key, column, "is missing, the rest of the request is not")
        if missing:
            return None
        sized = _sized(self.findings, "command", key, "api_key", row["api_key"], 32)
        sized &= _sized(self.findings, "command", key, "signature", row["signature"], 64)
        return SignedRequest(*values) if sized else None

    def _transaction(self, header: BlockHeader | None) -> bytes:
        row = self.journal.head
        assert row is not None
        self.journal.advance()
        self.counts["journal transactions"] += 1
        seq, key = row["seq"], f"seq {_show(row['seq'])}"
        if not _typed(self.findings, "journal", key, row):
            return _bytes_or_zero(row["hash"])
        self._expect("journal", key, "seq", seq, self.journal_seq + 1)
        self.journal_seq = seq
        if header is not None:
            self._expect("journal", key, "block_height", row["block_height"], header.height)
            last = header.first_command + header.command_count
            if not header.first_command <= row["command_seq"] < last:
                self.findings.add("journal", key, "command_seq", f"{row['command_seq']} is not in the same block")
        if row["command_seq"] < self.journal_command:
            self.findings.add("journal", key, "command_seq", f"{row['command_seq']} is before the one before it")
        self.journal_command = row["command_seq"]
        postings = self._postings(seq)
        batches = self._batches(seq)
        self._expect("journal", key, "posting_count", row["posting_count"], len(postings))
        self._expect("journal", key, "batch_count", row["batch_count"], len(batches))
        rotated_to = check_transaction(self.findings, seq, row["kind"], row["memo"], postings, batches)
        self.rotated_to = rotated_to or self.rotated_to
        try:
            encoding = encode_transaction(
                self.journal_hash,
                seq,
                row["command_seq"],
                row["at_us"],
                row["kind"],
                row["memo"],
                postings,
                batches,
            )
            if sha256(b"\x00" + encoding).digest() != row["hash"]:
                self.findings.add("journal", key, "", "its hash is not that of its columns, postings and predecessor")
        except Exception as error:
            self.findings.add("journal", key, "", f"has no encoding: {error}")
        self.journal_hash = _bytes_or_zero(row["hash"])
        return self.journal_hash

    def _postings(self, seq: int) -> list[Posting]:
        self._orphan_legs(seq)
        legs: list[Posting] = []
        stream = self.postings
        while (row := stream.head) is not None and row["journal_seq"] == seq:
            stream.advance()
            atoms = row["atoms"]
            # Nearly every row is like this; whatever is not is looked at column by column.
            if (
                tuple(map(type, row.values())) == _PLAIN_POSTING
                and row["line"] == len(legs)
                and row["atoms_high"] == 0
                and -ATOMS_SPLIT < atoms < ATOMS_SPLIT
            ):
                legs.append((row["account"], row["asset"], atoms))
                continue
            key = f"journal {seq} line {_show(row['line'])}"
            if not _typed(self.findings, "posting", key, row):
                continue
            self._expect("posting", key, "line", row["line"], len(legs))
            legs.append((row["account"], row["asset"], self._amount("posting", key, row, "atoms_high", "atoms")))
        self.counts["postings"] += len(legs)
        return legs

    def _batches(self, seq: int) -> list[PostingBatch]:
        found: list[PostingBatch] = []
        while (row := self.batches.head) is not None and row["journal_seq"] == seq:
            self.batches.advance()
            self.counts["batches"] += 1
            key = f"journal {seq} line {_show(row['line'])}"
            if not _typed(self.findings, "posting_batch", key, row):
                continue
            self._expect("posting_batch", key, "line", row["line"], len(found))
            if not _sized(self.findings, "posting_batch", key, "root", row["root"], 32):
                continue
            sizes = {len(row["owners"]), len(row["atoms"])}
            if sizes != {row["row_count"] * 8} or not row["row_count"]:
                self.findings.add("posting_batch", key, "row_count", f"{row['row_count']}, the columns differ")
                continue
            owners = np.frombuffer(row["owners"], dtype=">i8").astype(np.int64)
            atoms = np.frombuffer(row["atoms"], dtype=">i8").astype(np.int64)
            if owners[0] < 0 or int(owners[-1]) >= 1 << OWNER_BITS or not bool(np.all(owners[1:] > owners[:-1])):
                self.findings.add("posting_batch", key, "owners", "do not ascend strictly within their range")
            total = self._amount("posting_batch", key, row, "total_high", "total")
            self._expect("posting_batch", key, "total", total, exact_sum(atoms))
            self._expect("posting_batch", key, "root", row["root"], batch_root(owners, atoms))
            found.append(PostingBatch(row["account_kind"], row["asset"], owners, atoms, total, row["root"]))
        return found

    def _orphan_legs(self, seq: int | None) -> None:
        for stream, table in ((self.postings, "posting"), (self.batches, "posting_batch")):
            while (row := stream.head) is not None and (seq is None or _below(row["journal_seq"], seq)):
                stream.advance()
                self.counts["postings" if table == "posting" else "batches"] += 1
                key = f"journal {_show(row['journal_seq'])} line {_show(row['line'])}"
                self.findings.add(table, key, "", "belongs to no journal transaction")

    def _amount(self, table: str, key: str, row: dict[str, Any], high: str, low: str) -> int:
        atoms = join_atoms(row[high], row[low])
        try:
            stored_so = split_atoms(atoms) == (row[high], row[low])
        except OverflowError:
            stored_so = False
        if not stored_so:
            self.findings.add(table, key, high, f"{row[high]} and {low} {row[low]} are not how {atoms} is stored")
        return atoms

    def _expect(self, table: str, key: str, column: str, actual: object, expected: object) -> None:
        if actual != expected:
            self.findings.add(table, key, column, f"{_show(actual)}, expected {_show(expected)}")


class _Unreadable(Exception):
    """The database itself would not go on."""

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(reason)
        self.table = table


class _SqliteText(bytes):
    """A TEXT value of SQLite as its bytes, decodable or not: told from a BLOB by its class."""


_LOG_TABLES = {table.name: table for table in schema.APPEND_ONLY}
_READ_TABLES = {**_LOG_TABLES, "snapshot": schema.snapshot, "tip": schema.tip}
_LOG_NAMES = ("command", "journal", "posting", "block")


class _Tables:
    """Raw rows of the log's tables, with types as the database has them."""

    def __init__(self, connection: sa.Connection, findings: Findings) -> None:
        self.connection = connection
        self.findings = findings
        self.is_sqlite = connection.dialect.name == "sqlite"
        self.columns: dict[str, list[str]] = {}
        # Begin the one transaction that everything is read in.
        connection.execute(sa.text("SELECT 1"))
        self.raw: Any = raw(connection)
        if self.is_sqlite:
            self.raw.text_factory = _SqliteText

    def close(self) -> None:
        if self.is_sqlite:
            self.raw.text_factory = str

    def check_shape(self) -> None:
        """Tables, columns, keys and triggers: those we know, as they were made, and no others."""
        for name in self._names():
            if name.lower().startswith(_LOG_NAMES) and name not in _LOG_TABLES:
                self.findings.add(name, "", "", "a table or view that this version does not know")
        for name, table in _READ_TABLES.items():
            known = [column.name for column in table.c]
            present = self._column_names(name)
            self.columns[name] = [column for column in known if column in present]
            if not present:
                self.findings.add(name, "", "", "the table is missing")
                continue
            for column in known:
                if column not in present:
                    self.findings.add(name, "", column, "the column is missing")
            for column in present:
                if column not in known:
                    self.findings.add(name, "", column, "a column that this version does not know")
        for name, reason in definitions.differences(self.connection.dialect.name, self._all):
            self.findings.add("schema", name, "", reason)
        if self.is_sqlite:
            for (line,) in self._all("PRAGMA integrity_check(20)"):
                if line != b"ok":
                    self.findings.add("schema", "", "", f"integrity_check: {line.decode(errors='replace')}")

    def row_count(self) -> int:
        return sum(int(self._all(f"SELECT count(*) FROM {name}")[0][0]) for name in self._readable())  # noqa: S608

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """All rows in key order; a missing column reads as None."""
        table = _READ_TABLES[name]
        columns = self.columns[name]
        if not columns:
            return
        keys = [column.name for column in table.primary_key.columns if column.name in columns]
        absent = {column.name: None for column in table.c if column.name not in columns}
        select = f"SELECT {', '.join(columns)} FROM {name} ORDER BY {', '.join(keys) or '1'}"  # noqa: S608
        for values in self._stream(name, select):
            row: dict[str, Any] = dict(zip(columns, values))  # noqa: B905 - as many as were selected
            yield row | absent if absent else row

    def check_tip(self, log: Continuity) -> None:
        """The writer's own note agrees with the log: the one row of `tip`, column by column."""
        expected = {
            "one": 1,
            "height": log.height,
            "block_hash": log.block_hash,
            "next_command": log.next_command,
            "next_journal": log.next_journal,
            "open_command": INT64_MAX,
            "open_journal": INT64_MAX,
            "open_height": None,
            "log_peaks": log.peaks_before,
        }
        rows = list(self.rows("tip"))
        if len(rows) != 1:
            self.findings.add("tip", "", "", f"has {len(rows)} rows, expected 1")
        for row in rows:
            for column, value in expected.items():
                if type(row[column]) is not type(value) or row[column] != value:
                    reason = f"{_show(row[column])}, expected {_show(value)}: the log ends at block {log.height}"
                    self.findings.add("tip", "", column, reason)
            # How often a writer came is told nowhere else, but each of them raises it by one.
            epoch, least = row["epoch"], 1 if log.height >= 0 else 0
            if type(epoch) is not int or not least <= epoch <= MOST_WRITERS:
                self.findings.add("tip", "", "epoch", f"{_show(epoch)} is no number of writers")

    def check_snapshots(self, log: Continuity) -> int:
        """Each snapshot is of a block of this log, unchanged, signed by the exchange; how many there are.   [A-9]"""
        count = 0
        for row in self.rows("snapshot"):
            count += 1
            height, key = row["height"], f"height {_show(row['height'])}"
            if not _typed(self.findings, "snapshot", key, row):
                continue
            if not 0 <= height < len(log.hashes) or log.hashes[height] != row["block_hash"]:
                self.findings.add("snapshot", key, "block_hash", "is not of this log")
                continue
            if sha256(row["content"]).digest() != row["state_hash"]:
                self.findings.add("snapshot", key, "content", "has not the recorded state_hash")
            expected = log.key_after(height)
            if row["public_key"] != expected:
                reason = f"{_show(row['public_key'])}, expected {_show(expected)}"
                self.findings.add("snapshot", key, "public_key", reason)
            if not verify_signature(
                expected, row["signature"], snapshot_bytes(height, row["block_hash"], row["state_hash"])
            ):
                self.findings.add("snapshot", key, "signature", "is forged: not the exchange's on this state")
        return count

    def _readable(self) -> list[str]:
        return [name for name in _LOG_TABLES if self.columns.get(name)]

    def _stream(self, name: str, statement: str) -> Iterator[Sequence[Any]]:
        cursor = self.raw.cursor() if self.is_sqlite else self.raw.cursor(f"verify_{name}")
        try:
            cursor.execute(statement)
            # A snapshot may be large, so they come one at a time.
            while rows := cursor.fetchmany(1 if name == "snapshot" else _FETCH):
                yield from rows
        except Exception as error:
            raise _Unreadable(name, str(error)) from error
        finally:
            cursor.close()

    def _all(self, statement: str) -> list[Any]:
        cursor = self.raw.cursor()
        try:
            cursor.execute(statement)
            return list(cursor.fetchall())
        except Exception as error:
            raise _Unreadable("schema", str(error)) from error
        finally:
            cursor.close()

    def _names(self) -> list[str]:
        if self.is_sqlite:
            rows = self._all("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            return [bytes(row[0]).decode(errors="replace") for row in rows]
        rows = self._all(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') "
            "AND relnamespace = current_schema()::regnamespace"
        )
        return [row[0] for row in rows]

    def _column_names(self, table: str) -> list[str]:
        if self.is_sqlite:
            rows = self._all(f"PRAGMA table_xinfo({table})")
            return [bytes(row[1]).decode(errors="replace") for row in rows]
        rows = self._all(
            "SELECT attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE attnum > 0 "  # noqa: S608
            f"AND NOT attisdropped AND relname = '{table}' AND relnamespace = current_schema()::regnamespace"
        )
        return [row[0] for row in rows]


class _Rows:
    """Rows in order, of which the next may be looked at before it is taken."""

    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self._rows = rows
        self.head = next(rows, None)

    def advance(self) -> None:
        self.head = next(self._rows, None)


_TYPES: dict[str, dict[str, tuple[type, bool]]] = {
    name: {
        column.name: (
            {sa.BigInteger: int, sa.LargeBinary: bytes, sa.Text: str}[type(column.type)],
            bool(column.nullable),
        )
        for column in table.c
    }
    for name, table in _READ_TABLES.items()
}


_PLAIN_POSTING = (int,) * len(_TYPES["posting"])
_SEEN_GOOD: set[tuple[Any, ...]] = set()
"""Combinations of types that were found right, by table: a row of one of them needs no second look."""


def _typed(findings: Findings, table: str, key: str, row: dict[str, Any]) -> bool:
    """Whether every value is of its column's type; `kind` becomes its bytes."""
    types = (table, *map(type, row.values()))
    if types in _SEEN_GOOD:
        return True
    good = True
    for column, (expected, nullable) in _TYPES[table].items():
        value = row[column]
        if type(value) is expected:
            if isinstance(value, str):
                row[column] = value.encode("utf-8", "surrogateescape")
        elif expected is str and type(value) is _SqliteText:
            row[column] = bytes(value)
        elif value is None and nullable:
            continue
        else:
            found = "missing" if value is None else f"of type {type(value).__name__.strip('_')}"
            findings.add(table, key, column, f"is {found}, expected {expected.__name__}")
            good = False
    if good and str not in types:
        _SEEN_GOOD.add(types)
    return good


def _sized(findings: Findings, table: str, key: str, column: str, value: bytes, size: int) -> bool:
    if len(value) == size:
        return True
    findings.add(table, key, column, f"has {len(value)} bytes, expected {size}")
    return False


def _below(value: object, bound: int) -> bool:
    """Whether a key sorts before `bound`: what is no integer counts as before, so that it is looked at and named."""
    return not isinstance(value, int) or value < bound


def _bytes_or_zero(value: object) -> bytes:
    return value if type(value) is bytes and len(value) == 32 else bytes(32)


def _show(value: object) -> str:
    if isinstance(value, bytes):
        return value[:40].hex()
    return str(value)[:60]
