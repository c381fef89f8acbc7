"""Epochs rebuilt during a replay and held against what was published: the auditor's proof of reserves.   [R-23]"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import sqlalchemy as sa

from engine.events import EpochClosed
from engine.replay import Divergence
from engine.state import State
from ledger.blocks import Block, BlockHeader
from ledger.signing import KeyFileError, read_key_file
from ledger.store import Store
from ledger.verification import Finding
from por import store as por_store
from por.canonical import BuildRefused
from por.epochs import differences, rebuild
from por.header import Header, Missed

PASSPHRASE_VARIABLE = "SATCHEL_PASSPHRASE"
_UNKNOWN_SECRET = bytes(32)
"""Stands in where the exchange's secret is not at hand: salts, and so the root, come out differently; sums do not."""


class EpochRoots:
    """The published rows by block, and what has been compared so far."""

    def __init__(self, rows: list[Header | Missed], code_versions: dict[int, str], secret: bytes | None) -> None:
        self.rows = rows
        self.with_secret = secret is not None
        self.compared = 0
        self.waiting = 0
        """Closed epochs at the end of the log that the node has not published yet."""
        self._code_versions = code_versions
        self._secret = secret if secret is not None else _UNKNOWN_SECRET
        self._place = {row.block_height: at for at, row in enumerate(rows) if isinstance(row, Header)}
        self._seen: set[int] = set()

    @classmethod
    def read(cls, engine: sa.Engine, data: Path) -> EpochRoots:
        """What the database published. Raises Divergence when the published log itself does not hold together."""
        if not sa.inspect(engine).has_table(por_store.por_epoch.name):
            return cls([], {}, None)
        try:
            rows = por_store.load_log(engine).rows
        except (ValueError, BuildRefused) as problem:
            raise Divergence("log of epochs, size", 0, str(problem), "another") from None
        table = por_store.por_epoch
        with engine.connect() as connection:
            versions = connection.execute(sa.select(table.c.epoch, table.c.code_version)).all()
        return cls(rows, {row.epoch: row.code_version for row in versions}, epoch_secret(data))

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
            rebuilt = rebuild(image, previous, self._secret)
        except BuildRefused as problem:
            raise Divergence("epoch", published.epoch, "a published row", str(problem)) from None
        found = differences(published, rebuilt)
        if not self.with_secret:
            found = [line for line in found if not line.startswith("root:")]
        if found:
            raise Divergence("epoch", published.epoch, "a published row", "; ".join(found))
        self._seen.add(published.epoch)
        self.compared += 1

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
        rows = por_store.load_log(engine).rows
    except (ValueError, LookupError, TypeError, BuildRefused) as problem:
        return [Finding("por_epoch", "", "", f"does not hold together: {problem}")]
    store = Store(engine)
    reasons = [(row.epoch, misplaced(store, row)) for row in rows if isinstance(row, Header)]
    return [
        Finding("por_epoch", f"epoch {epoch}", "row_text", f"names another block than the log: it has {reason}")
        for epoch, reason in reasons
        if reason is not None
    ]


def epoch_secret(data: Path) -> bytes | None:
    """The secret that leaf salts come from, where the node keeps it; None for an auditor without it.   [R-3]"""
    file = data / "keys" / "epoch-secret.key"
    if not file.is_file():
        return None
    try:
        return read_key_file(file, os.environ.get(PASSPHRASE_VARIABLE)).seed
    except KeyFileError:
        return None
