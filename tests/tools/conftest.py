"""The sample log, made once; and the command as a person runs it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fixtures.commands import Commands, Ran
from tests.tools.sample import write_log

ROOT = Path(__file__).resolve().parents[2]


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
def satchel() -> Iterator[Satchel]:
    """Run `satchel …` in a process of its own, from the project's folder or `cwd`, with nothing in the environment."""
    with ExitStack() as stack:
        commands = Commands()
        stack.callback(commands.stop)

        def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> Ran:
            return commands.run([str(argument) for argument in arguments], cwd, environment)

        yield run
