"""`satchel bench`: runs the benchmarks of the checkout this program stands in."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tools.terminal import CannotRun


def bench(only: list[str], quick: bool, database: str | None, as_json: bool) -> int:
    """Print the table of figures; a wheel carries no benchmarks, for they need the tests' tools and peers."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "tests" / "bench" / "__main__.py").is_file():
        raise CannotRun("the benchmarks are part of the source, not of the package", "in a checkout: make bench")
    sys.path.insert(0, str(root))
    table = importlib.import_module("tests.bench.__main__")
    arguments = [word for name in only for word in ("--only", name)]
    arguments += ["--scale", "0.1"] if quick else []
    arguments += ["--database", database] if database is not None else []
    arguments += ["--json"] if as_json else []
    try:
        code: int = table.main(arguments)
    except SystemExit as stop:
        code = 0 if stop.code in (None, 0) else 2
    return code
