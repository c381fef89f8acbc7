"""Finds the migrations, whether Satchel runs from a wheel or from a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def migrations_dir() -> Path:
    """The folder with `env.py` and `versions/`, for Alembic's `script_location`.

    A wheel carries it as `ledger/migrations`. A checkout has it as the top-level `alembic/`, which has no
    `__init__.py` because it would shadow the library of that name; so there it stands beside `ledger/`.
    """
    package = Path(str(files("ledger")))
    wheel, checkout = package / "migrations", package.parent / "alembic"
    for folder in (wheel, checkout):
        if (folder / "env.py").is_file():
            return folder
    raise FileNotFoundError(f"no migrations: neither {wheel} nor {checkout} has env.py")
