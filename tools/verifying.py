"""`satchel verify-journal`: every stored byte of the log against hashes, signatures and a kept checkpoint.   [A-8b]"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ledger.checkpoints import checkpoint_facts
from ledger.store import StoreError
from ledger.verification import Finding, Report, verify
from tools.epoch_roots import published_findings
from tools.keys import public_key
from tools.node_data import reading
from tools.terminal import DEFAULT_DATA, FINDINGS, FINE, CannotRun, print_json, progress, say

KEPT_CHECKPOINT = "checkpoint.txt"
"""What a node keeps beside its database; used when no other checkpoint is given."""


def verify_journal(
    data: Path, database: str | None, checkpoint: Path | None, key: str | None, as_json: bool
) -> int:
    """Check the whole log and name each thing that is not as it was signed; 1 when there is one."""
    if checkpoint is not None:
        require_checkpoint_file(checkpoint)
    genesis_key = None if key is None else public_key(key)
    kept = checkpoint if checkpoint is not None else _own_checkpoint(data, database)
    # The note is taken first: a running node writes newer ones while the log is being read.
    with _note_as_it_is(kept) as note, reading(data, database) as engine:
        report = _verified(engine, note, genesis_key)
        report.findings.extend(_published(engine))
    findings = [dict(finding._asdict()) for finding in report.findings]
    covered = {**report.covered, "checkpointFile": None if kept is None else str(kept)}
    if as_json:
        print_json({"clean": report.is_clean, "findings": findings, "covered": covered})
        return FINE if report.is_clean else FINDINGS
    for finding in report.findings:
        print(finding)
    print("clean" if report.is_clean else f"{len(findings)} finding(s)")
    for name, value in covered.items():
        print(f"  {name}: {_shown(value)}")
    if kept is None:
        say("no checkpoint given: a log whose tail was cut would look whole; keep one and give it with --checkpoint")
    return FINE if report.is_clean else FINDINGS


def require_checkpoint_file(file: Path) -> None:
    """The file is a checkpoint of a block log; CannotRun for any other. Whether it fits the log is a finding."""
    step = "give the file you kept; the node writes DATA/checkpoint.txt"
    if not file.is_file():
        raise CannotRun(f"no checkpoint at {file}", step)
    try:
        checkpoint_facts(file.read_bytes().decode())
    except ValueError as problem:
        raise CannotRun(f"{file} is no checkpoint: {problem}", step) from None


def _published(engine: sa.Engine) -> list[Finding]:
    """What of the published epochs is not of this log; a database that cannot even be read was named before."""
    try:
        return published_findings(engine)
    except (sa.exc.DatabaseError, StoreError):
        return []


def _verified(engine: sa.Engine, checkpoint: Path | None, genesis_key: bytes | None) -> Report:
    with progress("verifying", 1) as show:
        try:
            return verify(engine, checkpoint, genesis_key, progress=show)
        except sa.exc.OperationalError:
            raise
        except sa.exc.DatabaseError as problem:
            # The database cannot even read it back: the bytes on disk are not what the database wrote.
            reason = str(getattr(problem, "orig", None) or problem).splitlines()[0]
            return Report([Finding("database", "", "", f"cannot be read: {reason}")], {})


@contextmanager
def _note_as_it_is(checkpoint: Path | None) -> Iterator[Path | None]:
    if checkpoint is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="satchel-note-") as folder:
        copy = Path(folder) / checkpoint.name
        copy.write_bytes(checkpoint.read_bytes())
        yield copy


def _own_checkpoint(data: Path, database: str | None) -> Path | None:
    """The node's own note; not one that lies here by chance when only a database was named."""
    if database is not None and data == DEFAULT_DATA:
        return None
    file = data / KEPT_CHECKPOINT
    return file if file.is_file() else None


def _shown(value: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in value.items()) if isinstance(value, dict) else str(value)
