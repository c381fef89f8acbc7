"""Epochs rebuilt during a replay and held against what was published and is stored: the auditor's proof.   [R-23]"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from engine.commands import RotateKey, decode
from engine.events import EpochClosed
from engine.replay import Divergence
from engine.state import State
from ledger import schema
from ledger.blocks import Block, BlockHeader
from ledger.signing import KeyFileError, key_text, read_key_file
from ledger.store import Store
from ledger.verification import Finding
from por import store as por_store
from por.canonical import TAG_CODE, TAG_PARAMETERS, TAG_PRICES, TAG_RESERVES, BuildRefused, text_hash
from por.epochs import build_epoch, differences, load_tree
from por.header import Header, Missed
from por.leaves import Leaves
from por.log import Log, origin, require_checkpoint, signed_checkpoint

PASSPHRASE_VARIABLE = "SATCHEL_PASSPHRASE"
COMMITTED_TEXTS = (
    ("prices", TAG_PRICES, "prices_hash"),
    ("parameters", TAG_PARAMETERS, "parameters_hash"),
    ("code_version", TAG_CODE, "code_hash"),
    ("reserves", TAG_RESERVES, "reserves_hash"),
)
"""Column, the tag of its hash, and the header's field that holds the hash."""

_UNKNOWN_SECRET = bytes(32)
"""Stands in where the exchange's secret is not at hand: salts, and so the root, come out differently; sums do not."""


class EpochRoots:
    """The published rows by block, and what has been compared so far."""

    def __init__(
        self, engine: sa.Engine, rows: list[Header | Missed], code_versions: dict[int, str], secret: bytes | None
    ) -> None:
        self.rows = rows
        self.with_secret = secret is not None
        self.compared = 0
        self.waiting = 0
        """Closed epochs at the end of the log that the node has not published yet."""
        self._code_versions = code_versions
        self._secret = secret if secret is not None else _UNKNOWN_SECRET
        self._place = {row.block_height: at for at, row in enumerate(rows) if isinstance(row, Header)}
        self._seen: set[int] = set()
        self._engine = engine

    @classmethod
    def read(cls, engine: sa.Engine, data: Path) -> EpochRoots:
        """What the database published. Raises Divergence when the published log itself does not hold together."""
        if not sa.inspect(engine).has_table(por_store.por_epoch.name):
            return cls(engine, [], {}, None)
        try:
            log = por_store.load_log(engine)
        except (ValueError, LookupError, TypeError, BuildRefused) as problem:
            raise Divergence("log of epochs, size", 0, str(problem), "another") from None
        for one in row_problems(engine, log):
            raise Divergence("published epoch", one.epoch, f"{one.column}: {one.stored}", one.expected)
        table = por_store.por_epoch
        with engine.connect() as connection:
            versions = connection.execute(sa.select(table.c.epoch, table.c.code_version)).all()
        return cls(engine, log.rows, {row.epoch: row.code_version for row in versions}, epoch_secret(data))

    def compare(self, header: BlockHeader, digest: bytes, closed: EpochClosed, state: State) -> None:
        """The epoch that this block closes, rebuilt from the state as it stands: the published header, bit for bit."""
        from api.epochs import continued, image_of

        at = self._place.get(header.height)
        if at is None:
            if any(row.block_height > header.height for row in self.rows):
                raise Divergence("epoch closed in block", header.height, "no row", "one")
            self.waiting += 1
            return
        published = self.rows[at]
        assert isinstance(published, Header)
        previous = self.rows[at - 1] if at > 0 else None
        image = continued(image_of(state, Block(header, digest, b"", [], []), closed), previous)
        # Another release may have published it; which one is part of the header, not of the arithmetic.
        image = msgspec.structs.replace(image, code_version=self._code_versions[published.epoch])
        try:
            rebuilt = build_epoch(image, previous, self._secret)
        except BuildRefused as problem:
            raise Divergence("epoch", published.epoch, "a published row", str(problem)) from None
        found = differences(published, rebuilt.header)
        if not self.with_secret:
            found = [line for line in found if not line.startswith("liabilitiesRoot:")]
        if found:
            raise Divergence("epoch", published.epoch, "a published row", "; ".join(found))
        self._compare_leaves(published, rebuilt.leaves)
        self._seen.add(published.epoch)
        self.compared += 1

    def _compare_leaves(self, published: Header, rebuilt: Leaves) -> None:
        """The stored leaves, from which proofs are made, are the rebuilt ones; without the secret, in any order."""
        stored = self._stored_leaves(published)
        if stored is None:
            return
        number = published.epoch
        made = _by_subaccount(rebuilt, self.with_secret)
        for subaccount_id, leaf in _by_subaccount(stored, self.with_secret).items():
            other = made.pop(subaccount_id, None)
            if leaf != other:
                logged = f"of subaccount {subaccount_id} {leaf}"
                raise Divergence("stored leaves of epoch", number, logged, "none" if other is None else other)
        if made:
            raise Divergence("stored leaves of epoch", number, "none", f"one of subaccount {min(made)}")
        if self.with_secret and stored.subaccount_ids != rebuilt.subaccount_ids:
            raise Divergence("order of the stored leaves of epoch", number, "another", "that of their identities")
        self._require_root(published, stored)

    def _stored_leaves(self, published: Header) -> Leaves | None:
        """The leaves as stored; None where no longer kept. Raises Divergence when damaged or gone too early."""
        try:
            stored = por_store.load_leaves(self._engine, published.epoch)
        except por_store.LeavesBroken as problem:
            raise Divergence("stored leaves of epoch", published.epoch, str(problem), published.accounts) from None
        if stored is None and por_store.keeps_leaves(self._engine, published.epoch):
            kept = f"{published.accounts}: the newest {por_store.KEEP_LEAVES} epochs keep theirs"
            raise Divergence("stored leaves of epoch", published.epoch, "none", kept)
        return stored

    def _require_root(self, published: Header, stored: Leaves) -> None:
        try:
            load_tree(stored, published)
        except ValueError as problem:
            raise Divergence("stored leaves of epoch", published.epoch, str(problem), "the header's root") from None

    def require_all(self, store: Store, first: int, last: int, is_whole: bool) -> None:
        """Every published epoch was compared, now that blocks `first` … `last` are replayed. Raises Divergence.

        A log with its blocks in other places closes its epochs elsewhere: comparing those that close is not enough.
        Of an epoch before `first` only the block is looked at; one after `last` is no matter unless the log is whole.
        """
        for row in self.rows:
            if not isinstance(row, Header) or row.epoch in self._seen:
                continue
            if row.block_height > last:
                if is_whole:
                    logged = f"no block {row.block_height}: it ends at block {last}"
                    raise Divergence("published epoch", row.epoch, logged, f"block {row.block_height}")
            elif row.block_height >= first:
                raise Divergence(
                    "published epoch", row.epoch, f"no epoch closed in block {row.block_height}", "one published there"
                )
            elif (reason := misplaced(store, row)) is not None:
                raise Divergence("published epoch", row.epoch, reason, row.block_hash.hex())
            elif (stored := self._stored_leaves(row)) is not None:
                # The state of its block is not at hand: the header alone says what the leaves must be.
                self._require_root(row, stored)


def misplaced(store: Store, row: Header) -> str | None:
    """Why the block that a published epoch names is not the log's; None when it is.   [R-5]"""
    found = store.block(row.block_height)
    if found is None:
        return f"no block {row.block_height}"
    return None if found[1] == row.block_hash else f"block {row.block_height} with hash {found[1].hex()}"


def published_findings(engine: sa.Engine) -> list[Finding]:
    """What of the published epochs does not fit the log, without replaying it."""
    if not sa.inspect(engine).has_table(por_store.por_epoch.name):
        return []
    try:
        log = por_store.load_log(engine)
    except (ValueError, LookupError, TypeError, BuildRefused) as problem:
        return [Finding("por_epoch", "", "", f"does not hold together: {problem}")]
    store = Store(engine)
    reasons = [(row.epoch, misplaced(store, row)) for row in log.rows if isinstance(row, Header)]
    findings = [
        Finding("por_epoch", f"epoch {epoch}", "row_text", f"names another block than the log: it has {reason}")
        for epoch, reason in reasons
        if reason is not None
    ]
    for one in row_problems(engine, log):
        findings.append(Finding("por_epoch", f"epoch {one.epoch}", one.column, f"{one.stored}, not {one.expected}"))
    return findings


class RowProblem(NamedTuple):
    """A stored column beside the published row that does not fit it."""

    epoch: int
    column: str
    stored: str
    expected: str


def row_problems(engine: sa.Engine, log: Log) -> Iterator[RowProblem]:
    """Every column that is stored beside a published row and is not what that row, the log and its key say.   [R-20]

    Statement, prices, parameters and release are committed to by hashes in the header; the checkpoint is signed.
    """
    keys = _exchange_keys(engine)
    table = por_store.por_epoch
    with engine.connect() as connection:
        stored = connection.execute(sa.select(table).order_by(table.c.epoch)).mappings().all()
        leaves = connection.execute(sa.select(por_store.por_artifact.c.epoch)).scalars().all()
    rows = dict(enumerate(log.rows))
    for number in leaves:
        if not isinstance(rows.get(number, None), Header) and number < len(rows):
            yield RowProblem(number, "por_artifact", "leaves", "an hour without an epoch")
    for place, columns in enumerate(stored[: len(log.rows)]):
        row = rows[place]
        expected = {"epoch": row.epoch, "hour": row.hour}
        for column, value in expected.items():
            if columns[column] != value:
                yield RowProblem(row.epoch, column, str(columns[column]), str(value))
        yield from _text_problems(row, columns)
        if bytes(columns["public_key"]) not in keys:
            yield RowProblem(row.epoch, "public_key", key_text(bytes(columns["public_key"])), "a key of the exchange")
        elif (problem := _checkpoint_problem(log, row, columns)) is not None:
            yield RowProblem(row.epoch, "checkpoint", problem, "the signed root of the log to here")


def _text_problems(row: Header | Missed, columns: sa.RowMapping) -> Iterator[RowProblem]:
    for column, tag, name in COMMITTED_TEXTS:
        text = columns[column]
        if isinstance(row, Missed):
            if text is not None:
                yield RowProblem(row.epoch, column, repr(text)[:80], "nothing: the hour has no epoch")
            continue
        digest, committed = text_hash(tag, text or "").hex(), getattr(row, name).hex()
        if digest != committed:
            yield RowProblem(row.epoch, column, f"a text with hash {digest}", f"{committed}, as the header says")


def _checkpoint_problem(log: Log, row: Header | Missed, columns: sa.RowMapping) -> str | None:
    """What is wrong with a row's own checkpoint: the log signed as it was with this row the last."""
    text, key = columns["checkpoint"], bytes(columns["public_key"])
    size = row.epoch + 1
    try:
        require_checkpoint(log, text, key)
        signature = base64.b64decode(text.rpartition(" ")[2])[4:]
    except (ValueError, IndexError) as problem:
        return str(problem)
    if text != signed_checkpoint(origin(row.exchange), size, log.root(size), lambda _: signature, key):
        return f"another text than that of {size} rows"
    return None


def _exchange_keys(engine: sa.Engine) -> set[bytes]:
    """Every key that the exchange ever signed with: that of genesis, and those that it rotated to.   [A-4]"""
    first = Store(engine).block(0)
    keys = set() if first is None else {first[0].public_key}
    table = schema.command
    with engine.connect() as connection:
        payloads = connection.execute(sa.select(table.c.payload).where(table.c.kind == RotateKey.__name__)).scalars()
        for payload in payloads:
            # A payload that cannot be read is found where the log itself is checked.
            with contextlib.suppress(msgspec.MsgspecError):
                command = decode(bytes(payload))
                if isinstance(command, RotateKey):
                    keys.add(command.public_key)
    return keys


def _by_subaccount(leaves: Leaves, with_salt: bool) -> dict[int, tuple[Any, ...]]:
    """What each subaccount's leaf says: user, detail, amounts and, where it can be known, the salt."""
    return {
        subaccount_id: (
            leaves.user_ids[at],
            leaves.details[at],
            leaves.amounts_of(at),
            leaves.salts[at].tobytes().hex() if with_salt else "",
        )
        for at, subaccount_id in enumerate(leaves.subaccount_ids)
    }


def epoch_secret(data: Path) -> bytes | None:
    """The secret that leaf salts come from, where the node keeps it; None for an auditor without it.   [R-3]"""
    file = data / "keys" / "epoch-secret.key"
    if not file.is_file():
        return None
    try:
        return read_key_file(file, os.environ.get(PASSPHRASE_VARIABLE)).seed
    except KeyFileError:
        return None
