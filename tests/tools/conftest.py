"""The sample log, made once; and the command as a person runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.tools.sample import write_log

ROOT = Path(__file__).resolve().parents[2]


class Ran(NamedTuple):
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Satchel = Callable[..., Ran]


@pytest.fixture(scope="session")
def kept_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the sample log; read it only."""
    data = tmp_path_factory.mktemp("log") / "node"
    write_log(data)
    return data


@pytest.fixture
def log(kept_log: Path, tmp_path: Path) -> Path:
    """A copy of the sample log to do damage to."""
    copy = tmp_path / "copy"
    shutil.copytree(kept_log, copy)
    return copy


@pytest.fixture(scope="session")
def satchel() -> Satchel:
    """Run `satchel …` in a process of its own, from the project's folder or `cwd`, with nothing in the environment."""

    def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> Ran:
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **environment}
        command = [sys.executable, "-m", "tools.cli", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
