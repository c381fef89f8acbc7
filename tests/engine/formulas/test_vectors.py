"""Every published vector of the formulas, worked without the engine, comes out of the engine.

[B-1 … B-4, B-7, C-1, C-2, M-1 … M-4, M-7 … M-9]
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from engine.formulas import collateral, lending, margin
from tests.vectors import formulas

FOLDER = Path(formulas.__file__).parent
MODULES = {"lending_v1.json": (lending,), "margin_v1.json": (margin, collateral)}
TABLES = [
    (file, name, rows)
    for file in MODULES
    for name, rows in json.loads((FOLDER / file).read_text())["functions"].items()
]


@pytest.mark.parametrize("file, name, rows", TABLES, ids=[f"{file}:{name}" for file, name, _ in TABLES])
def test_the_engine_gives_every_published_result(file: str, name: str, rows: list[dict[str, Any]]) -> None:
    function = next(getattr(module, name) for module in MODULES[file] if hasattr(module, name))

    assert rows
    for row in rows:
        arguments = {key: value if isinstance(value, bool) else int(value) for key, value in row["in"].items()}
        assert comparable(function(**arguments), row["out"]) == read(row["out"]), f"{name}: {row}"


@pytest.mark.parametrize("file", MODULES)
def test_the_vectors_are_what_their_program_writes(file: str) -> None:
    assert (FOLDER / file).read_text() == formulas.text(formulas.FILES[file]())


def read(out: Any) -> Any:
    match out:
        case bool() | None:
            return out
        case list():
            return [int(item) for item in out]
        case _:
            return Fraction(out)


def comparable(result: Any, out: Any) -> Any:
    """A pair is an exact fraction where the vector says a/b, else a list of results."""
    if isinstance(result, tuple):
        return list(result) if isinstance(out, list) else Fraction(*result)
    return result
