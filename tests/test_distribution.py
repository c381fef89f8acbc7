"""What `pip install .` brings is complete: migrations, genesis files and pages are inside the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FIND = """
import api.resources, ledger.resources
print(ledger.resources.migrations_dir(), api.resources.web_dir(), sep="\\n")
"""

MIGRATE = """
import sqlalchemy
from ledger.database import open_engine, upgrade
engine = open_engine("sqlite:///new.db")
upgrade(engine)
print(*sqlalchemy.inspect(engine).get_table_names())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy so that no build folder is left in the tree."""
    copy = tmp_path_factory.mktemp("source")
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    # The backend is called directly: the environment has it pinned, and may have no pip (uv makes it so).
    build = f"import setuptools.build_meta as b; print(b.build_wheel({str(out)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    return next(out.glob("satchel_exchange-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_everything_that_the_program_reads(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"ledger/migrations/{name}" for name in files_under("alembic")}
    expected |= {f"api/web/{name}" for name in files_under("web")}
    expected |= {f"engine/genesis/{name}" for name in files_under("engine/genesis")}
    for package in ("ledger", "chains", "engine", "por", "api"):
        expected |= {f"{package}/{name}" for name in files_under(package) if name.endswith(".py")}

    assert expected - inside == set()
    assert {"ledger/migrations/env.py", "engine/genesis/devnet.toml"} <= inside


@pytest.mark.slow
def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert tops - {"ledger", "chains", "engine", "por", "api", "tools"} == {
        name for name in tops if name.startswith("satchel_exchange-")
    }


@pytest.mark.slow
def test_an_installed_copy_finds_its_migrations_and_pages(wheel: Path, tmp_path: Path) -> None:
    found = run_installed(wheel, tmp_path, FIND).split()

    assert found == [str(tmp_path / "ledger" / "migrations"), str(tmp_path / "api" / "web")]


@pytest.mark.slow
def test_an_installed_copy_makes_its_tables(wheel: Path, tmp_path: Path) -> None:
    tables = run_installed(wheel, tmp_path, MIGRATE).split()

    assert {"command", "journal", "posting", "block"} <= set(tables)


def test_a_checkout_finds_its_migrations_and_pages() -> None:
    found = subprocess.run(
        [sys.executable, "-c", FIND], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()

    assert found == [str(ROOT / "alembic"), str(ROOT / "web")]


def test_the_command_is_called_satchel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["scripts"] == {"satchel": "tools.cli:main"}


def run_installed(wheel: Path, folder: Path, script: str) -> str:
    """Run a script against the unpacked wheel, away from the checkout."""
    zipfile.ZipFile(wheel).extractall(folder)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def files_under(folder: str) -> set[str]:
    """The files of a folder that belong in a distribution, relative to it."""
    base = ROOT / folder
    return {
        str(path.relative_to(base)) for path in base.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
