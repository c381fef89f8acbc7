"""The compiled core gives what the sources give, byte for byte, and is used only while made from them.   [A-6]"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ledger import compiled
from tools.setup.compile_core import LEVEL, missing_tools

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("ledger", "engine", "tools", "tests", "alembic", "pyproject.toml")
SECONDS_TO_COMPILE = 600

BLOCKS = """
import json
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from engine.commands import decode
from ledger import compiled
from ledger.blocks import Chain, log_command
from ledger.journal import seal
from tests.replay.golden import Run, read, request_of

key = Ed25519PrivateKey.from_private_bytes(bytes(32))
chain, run, hashes = Chain(key.public_key().public_bytes_raw(), key.sign), Run(), []
commands, journal = [], []
for line in read():
    head, seq, number = run.head, run.state.sequence + 1, run.journal
    outcome = run.feed(line)
    code = int(outcome.rejection.reason) if outcome.rejection else 0
    commands.append(log_command(seq, line.at_us, code, "", line.payload, request_of(line, seq)))
    for entry in outcome.journal:
        number += 1
        journal.append(seal(head, number, seq, line.at_us, entry))
        head = journal[-1].hash
    if len(commands) == 7:
        block = chain.build(line.at_us, commands, journal)
        hashes.append(block.hash.hex() + block.signature.hex())
        commands, journal = [], []
print(json.dumps({"build": compiled.build(), "blocks": hashes, "result": run.result()}))
"""

WHERE = "import engine.book; from ledger import compiled; print(compiled.build(), engine.book.__file__)"

# What judges the compiled modules most closely; the whole suite would run on them just as well.
JUDGES = (
    "tests/replay", "tests/ledger/test_encoding.py", "tests/ledger/test_merkle.py", "tests/ledger/test_amounts.py",
    "tests/engine/test_book.py", "tests/engine/test_orders.py", "tests/engine/test_snapshot.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with its core compiled."""
    lacking = missing_tools()
    if lacking and not os.environ.get("SATCHEL_REQUIRE_TOOLS"):
        pytest.skip(lacking)
    copy = tmp_path_factory.mktemp("compiled")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    done = python(copy, "tools/setup/compile_core.py")
    assert done.returncode == 0, done.stderr
    return copy


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_TO_COMPILE)
def test_both_builds_give_the_same_blocks(checkout: Path) -> None:
    native, pure = (json.loads(run(checkout, BLOCKS, as_python)) for as_python in ("", "1"))

    assert (native.pop("build"), pure.pop("build")) == ("compiled", f"Python ({compiled.SWITCH} is set)")
    assert len(pure["blocks"]) > 50
    assert native == pure


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_TO_COMPILE)
def test_the_compiled_core_passes_the_tests_of_the_core(checkout: Path) -> None:
    done = python(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", *JUDGES)

    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_TO_COMPILE)
@pytest.mark.parametrize("path", ["engine/book.py", "engine/events.py", "ledger/journal.py", "ledger/new.py"])
def test_a_changed_source_is_what_runs(checkout: Path, path: str) -> None:
    source = checkout / path
    before = source.read_text() if source.exists() else None
    assert run(checkout, WHERE).startswith("compiled ")
    source.write_text((before or "") + "\n# another byte\n")
    try:
        told = run(checkout, WHERE)
    finally:
        source.unlink() if before is None else source.write_text(before)

    assert told.startswith(f"Python ({path} changed after it was compiled; make compile)")
    assert told.endswith(str(checkout / "engine" / "book.py"))
    assert run(checkout, WHERE).startswith("compiled ")


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_TO_COMPILE)
def test_a_build_for_another_interpreter_is_not_used(checkout: Path) -> None:
    manifest = checkout / compiled.FOLDER / "manifest.json"
    before = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(before), "suffix": ".cpython-399.so"}))
    try:
        told = run(checkout, WHERE)
    finally:
        manifest.write_text(before)

    assert told.startswith("Python (compiled for .cpython-399.so, not for ")


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_TO_COMPILE)
def test_the_one_command_to_go_back_goes_back(checkout: Path) -> None:
    kept = checkout / "kept"
    shutil.copytree(checkout / compiled.FOLDER, kept)
    try:
        assert python(checkout, "tools/setup/compile_core.py", "--remove").returncode == 0
        told = run(checkout, WHERE)
    finally:
        kept.rename(checkout / compiled.FOLDER)

    assert told.startswith("Python (not compiled; make compile)")


def run(checkout: Path, script: str, as_python: str = "") -> str:
    """What a script prints, as the copy's own program."""
    done = python(checkout, "-c", script, as_python=as_python)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def python(checkout: Path, *arguments: str, as_python: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), compiled.SWITCH: as_python, LEVEL: "0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
