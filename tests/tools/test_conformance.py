"""`satchel conformance pools`: what matches, differs, is explained; and every shared vector.   [X-15]"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.tools.conftest import Satchel
from tests.vectors import pool_vectors
from tools.conformance.pools import judge, kind_of
from tools.conformance.vectors import Outcome, VectorFile, error_of, number, read

OWN = pool_vectors.FOLDER
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "pools"
Change = Callable[[list[dict[str, Any]]], None]

shared_only = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared vectors are not beside this checkout")


def own(name: str) -> VectorFile:
    found = read(OWN / name)
    assert found is not None
    return found


def outcomes(file: VectorFile, change: Change | None = None) -> list[Outcome]:
    """Of the file's rows, after a change to a copy of them."""
    rows = deepcopy(file.rows)
    if change is not None:
        change(rows)
    return [verdict.outcome for verdict in judge(file._replace(rows=rows))]


# --- our own rows


def test_the_own_vectors_are_what_the_rationals_give() -> None:
    for name, document in pool_vectors.documents().items():
        assert json.loads((OWN / name).read_text()) == document


def test_own_rows_match_or_are_explained_and_other_files_are_ignored(satchel: Satchel) -> None:
    ran = satchel("conformance", "pools", OWN, "--json")

    assert ran.code == 0
    assert ran.json() == {
        "files": [
            {"file": "interest.json", "rows": 2, "matched": 1, "differing": 0, "explained": 1},
            {"file": "longs.json", "rows": 2, "matched": 1, "differing": 0, "explained": 1},
            {"file": "prices.json", "rows": 3, "matched": 3, "differing": 0, "explained": 0},
            {"file": "swaps.json", "rows": 4, "matched": 4, "differing": 0, "explained": 0},
            {"file": "units.json", "rows": 3, "matched": 3, "differing": 0, "explained": 0},
        ]
    }


def test_a_wrong_row_ends_with_1_and_says_which_field_and_both_values(satchel: Satchel, tmp_path: Path) -> None:
    document = json.loads((OWN / "swaps.json").read_text())
    right = int(document["rows"][1]["y"])
    document["rows"][1]["y"] = str(right + 1)
    # Neither the name of a file nor how many rows it has says what it is.
    document["rows"] = document["rows"][:3]
    (tmp_path / "anything.json").write_text(json.dumps(document))
    (tmp_path / "README.md").write_text("# not a vector")
    (tmp_path / "broken.json").write_text("{")
    ran = satchel("conformance", "pools", tmp_path)

    assert ran.code == 1
    assert re.search(r"anything\.json +3 +2 +1 +0", ran.out)
    assert f"anything.json row 1: y: ours {right}, theirs {right + 1}" in ran.err


def test_rows_of_a_function_that_nobody_knows_differ(satchel: Satchel, tmp_path: Path) -> None:
    document = {"source_repo": "r", "commit": "c", "source_file": "f.go", "note": "", "count": 1, "rows": [{"q": "1"}]}
    (tmp_path / "new.json").write_text(json.dumps(document))
    ran = satchel("conformance", "pools", tmp_path)

    assert ran.code == 1
    assert "nothing of ours answers rows of f.go" in ran.err


def test_a_folder_without_vectors_cannot_be_run(satchel: Satchel, tmp_path: Path) -> None:
    shutil.copy(OWN / "no_vectors.json", tmp_path)

    assert satchel("conformance", "pools", tmp_path).code == 2
    assert satchel("conformance", "pools", tmp_path / "nowhere").code == 2


def test_what_a_file_is_about_is_read_from_its_rows_where_nothing_names_it() -> None:
    for name in ("swaps.json", "units.json", "interest.json", "longs.json"):
        file = own(name)
        nameless = file._replace(about={**file.about, "source_file": "", "test": ""})
        assert kind_of(nameless) is kind_of(file) is not None


def test_an_error_must_be_refused_and_a_refusal_must_be_an_error() -> None:
    def forgiven(rows: list[dict[str, Any]]) -> None:
        del rows[2]["error"]

    def invented(rows: list[dict[str, Any]]) -> None:
        rows[0]["error"] = "not today"

    def smaller(rows: list[dict[str, Any]]) -> None:
        rows[2]["errString"] = ""

    assert outcomes(own("units.json"), forgiven)[2] is Outcome.DIFFERING
    assert outcomes(own("units.json"), invented)[0] is Outcome.DIFFERING
    assert outcomes(own("prices.json"), smaller)[2] is Outcome.DIFFERING


def test_a_number_beyond_range_must_be_as_large_as_the_error_says() -> None:
    def other_bits(rows: list[dict[str, Any]]) -> None:
        rows[2]["errString"] = rows[2]["errString"].replace("got 353", "got 354")

    def within(rows: list[dict[str, Any]]) -> None:
        rows[2]["externalAssetBalance"] = "5"

    assert outcomes(own("prices.json"))[2] is Outcome.MATCHED
    assert outcomes(own("prices.json"), other_bits)[2] is Outcome.DIFFERING
    assert outcomes(own("prices.json"), within)[2] is Outcome.DIFFERING


def test_what_is_explained_must_be_exactly_the_exception() -> None:
    """Two instead of three is the float; one instead of three is nothing that X-15 names."""

    def another(rows: list[dict[str, Any]]) -> None:
        rows[1]["interest"] = "1"

    file = own("interest.json")
    assert outcomes(file) == [Outcome.MATCHED, Outcome.EXPLAINED]
    assert outcomes(file, another) == [Outcome.MATCHED, Outcome.DIFFERING]


def test_a_lifecycle_says_which_step_is_explained_and_why() -> None:
    file = own("longs.json")
    plain, explained = judge(file)

    assert plain.outcome is Outcome.MATCHED
    assert explained.outcome is Outcome.EXPLAINED
    assert explained.why == "step 2: the rate through a float"


@pytest.mark.parametrize("row", [0, 1])
def test_every_field_of_every_step_is_compared(row: int) -> None:
    """Each number of a step one larger: the sequence differs, also where another of its steps is explained."""
    file = own("longs.json")
    for place, step in enumerate(file.rows[row]["steps"]):
        told = {name: step[name] for name in step if name.endswith("_after") or name in ("id", "repay_amount")}
        for path in _leaves(told):
            wrong = deepcopy(file.rows[row])
            _bump(wrong["steps"][place], path)
            assert judge(file._replace(rows=[wrong]))[0].outcome is Outcome.DIFFERING, (place, path)


def test_a_step_that_ends_otherwise_differs() -> None:
    def opens(rows: list[dict[str, Any]]) -> None:
        rows[0]["steps"][1]["error"] = "unhealthy"

    def fails(rows: list[dict[str, Any]]) -> None:
        del rows[0]["steps"][0]["error"]
        rows[0]["steps"][0]["id"] = 1

    def forced(rows: list[dict[str, Any]]) -> None:
        rows[0]["steps"][2]["force_closed"] = [1]

    file = own("longs.json")
    for change in (opens, fails, forced):
        assert outcomes(file, change)[0] is Outcome.DIFFERING


def test_an_error_is_found_under_any_name_and_an_override_is_none() -> None:
    for name in ("errString", "err", "err2", "error", "expectedError", "expected_error", "panicErr", "expected_panic"):
        assert error_of({name: "no"}) == "no"
    assert error_of({"overrideSigner": "x", "err": None, "errString": ""}) == ""


def test_calls_of_the_source_are_numbers() -> None:
    digits = {"$call": "SetString", "on": "1", "args": ["2500", 10]}

    assert number({"$call": "sdk.NewDecFromBigIntWithPrec", "args": [digits, 3]}) * 2 == 5
    with pytest.raises(ValueError, match="unknown call"):
        number({"$call": "os.Exit", "args": [0]})


# --- the shared vectors


@shared_only
def test_every_shared_row_is_matched_or_explained(satchel: Satchel) -> None:
    ran = satchel("conformance", "pools", SHARED, "--json")
    files = {each["file"]: each for each in ran.json()["files"]}

    assert ran.err == ""
    assert ran.code == 0
    for path in sorted(SHARED.glob("*.json")):
        figures = files[path.name]
        assert figures["rows"] == json.loads(path.read_text())["count"]
        assert figures["matched"] + figures["explained"] == figures["rows"]
    # Ours is exact where theirs is; only what X-15 names is explained.
    for name in ("oracle_swap", "oracle_pool_units", "oracle_withdrawal", "oracle_withdrawal_units", "margin_ec"):
        assert files[f"{name}.json"]["explained"] == 0


OUTPUTS = {
    "oracle_swap": ("y", "fee"),
    "oracle_pool_units": ("lp_units", "new_pool_units"),
    "oracle_withdrawal": ("native", "external", "lp_units_left", "swap_amount"),
    "oracle_withdrawal_units": ("native", "external", "lp_units_left"),
}


@shared_only
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_shared_output_that_is_off_by_one_differs(name: str) -> None:
    file = read(SHARED / f"{name}.json")
    assert file is not None
    for row in Random(7).sample([each for each in file.rows if "error" not in each], 20):
        for field in OUTPUTS[name]:
            wrong = {**row, field: str(int(row[field]) + 1)}
            assert judge(file._replace(rows=[wrong]))[0].outcome is Outcome.DIFFERING, (field, row)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for name, each in value.items() for leaf in _leaves(each, (*path, name))]
    if isinstance(value, list):
        return [leaf for place, each in enumerate(value) for leaf in _leaves(each, (*path, place))]
    return [path]


def _bump(step: dict[str, Any], path: tuple[Any, ...]) -> None:
    """The number at the end of the path a little larger, a word another word."""
    at: Any = step
    for name in path[:-1]:
        at = at[name]
    value = at[path[-1]]
    if isinstance(value, int):
        at[path[-1]] = value + 1
    elif value.isdigit():
        at[path[-1]] = str(int(value) + 1)
    elif re.fullmatch(r"\d+\.\d+", value):
        whole, rest = value.split(".")
        # Beyond what a float power may be off.
        at[path[-1]] = f"{int(whole) + 1}.{rest}"
    else:
        at[path[-1]] = value + "x"
