"""`satchel export`: the log as one file that verifies without SQL, and its check.   [A-4, A-7]"""

from __future__ import annotations

from pathlib import Path

from ledger.export import ExportError, export_log, require_export, verify_export
from ledger.store import Store
from tools.node_data import reading
from tools.terminal import FINDINGS, FINE, CannotRun, print_json, progress, say
from tools.verifying import require_checkpoint_file


def export(data: Path, database: str | None, file: Path, verify: bool, checkpoint: Path | None, as_json: bool) -> int:
    """Write the whole log to `file`, or with `verify` check such a file; 1 when it is not as it was signed."""
    if verify:
        return _verify(file, checkpoint, as_json)
    if file.exists():
        raise CannotRun(f"{file} exists and is not overwritten", "name a new file, or check this one with --verify")
    with reading(data, database) as engine, progress("exporting", 1) as show:
        blocks = export_log(Store(engine), file, progress=show)
    document = {"file": str(file), "blocks": blocks, "bytes": file.stat().st_size}
    if as_json:
        print_json(document)
    else:
        print(f"{blocks} blocks, {document['bytes']} bytes: {file}")
        say(f"`satchel export {file} --verify` checks it anywhere, without a database")
    return FINE


def _verify(file: Path, checkpoint: Path | None, as_json: bool) -> int:
    if not file.is_file():
        raise CannotRun(f"no export at {file}", "write one with `satchel export FILE --data DIR`")
    try:
        require_export(file)
    except ExportError as problem:
        raise CannotRun(f"{file}: {problem}", "write one with `satchel export FILE --data DIR`") from None
    if checkpoint is not None:
        require_checkpoint_file(checkpoint)
    with progress("verifying", 1) as show:
        report = verify_export(file, checkpoint, progress=show)
    findings = [dict(finding._asdict()) for finding in report.findings]
    if as_json:
        print_json({"clean": report.is_clean, "findings": findings, "covered": report.covered})
    else:
        for finding in report.findings:
            print(finding)
        print("clean" if report.is_clean else f"{len(findings)} finding(s)")
        for name, value in report.covered.items():
            print(f"  {name}: {value}")
    return FINE if report.is_clean else FINDINGS
