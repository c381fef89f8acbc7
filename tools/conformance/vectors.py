"""Vector files of the shared format, the numbers in their rows, and the verdict on a row.   [X-15]

A file is a JSON object {source_repo, commit, source_file, test?, note, count, rows[]}. Amounts are decimal strings, a
`Dec` is a string with up to 18 decimals, rationals are "num/den"; what the source wrote as a call stayed one ("$call").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from engine.parameters import DEC
from ledger.amounts import INT128_MAX

Row = dict[str, Any]


_ERROR_KEY = re.compile(r"^err|_err|Err|error|panic", re.ASCII)
"""errString, err, error, expectedError, expected_error, panicErr, expected_panic; but no override…"""


class VectorFile(NamedTuple):
    """One file; `about` is everything but its rows."""

    name: str
    about: dict[str, Any]
    rows: list[Row]


class Outcome(Enum):
    MATCHED = "matched"
    DIFFERING = "differing"
    EXPLAINED = "explained"


class Verdict(NamedTuple):
    """What came of one row: everything that was compared agreed, or not, or differed as X-15 says it does."""

    outcome: Outcome
    why: str = ""
    """Which difference: the field, ours and theirs; or which exception of X-15."""


MATCHED = Verdict(Outcome.MATCHED)
Kind = Callable[[Sequence[Row]], Iterator[Verdict]]
"""All rows of a file, in order, to a verdict each: rows may go on from one another."""


class Unreadable(ValueError):
    """A row lacks what its function needs, or has a number that is none."""


def read(path: Path) -> VectorFile | None:
    """The file, or None when it is not of the shared format."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        return None
    if not all(isinstance(document.get(key), str) for key in ("source_repo", "commit", "source_file")):
        return None
    if not all(isinstance(row, dict) for row in document["rows"]):
        return None
    about = {key: value for key, value in document.items() if key != "rows"}
    return VectorFile(path.name, about, document["rows"])


def one_by_one(check: Callable[[Row], Verdict]) -> Kind:
    """A kind whose rows stand alone. A row that cannot be read differs: nothing of it was matched."""

    def kind(rows: Sequence[Row]) -> Iterator[Verdict]:
        for row in rows:
            yield judged(lambda row=row: check(row))  # type: ignore[misc]

    return kind


def judged(check: Callable[[], Verdict]) -> Verdict:
    try:
        return check()
    except (Unreadable, KeyError, TypeError, ValueError, AttributeError) as problem:
        return differing(f"the row cannot be read: {type(problem).__name__} {problem}")


def compared(*fields: tuple[str, Any, Any]) -> Verdict:
    """(field, ours, theirs) each: matched when all agree, else which do not and both values."""
    if not fields:
        return differing("the row says nothing that could be compared")
    unequal = [f"{field}: ours {ours}, theirs {theirs}" for field, ours, theirs in fields if ours != theirs]
    return differing("; ".join(unequal)) if unequal else MATCHED


def differing(why: str) -> Verdict:
    return Verdict(Outcome.DIFFERING, why)


def explained(why: str) -> Verdict:
    return Verdict(Outcome.EXPLAINED, why)


def error_of(row: Row) -> str:
    """The error that the row says its function ends with, under whichever name; empty for none."""
    for key, value in row.items():
        if _ERROR_KEY.search(key) and value not in (None, "", False):
            return str(value)
    return ""


def pick(row: Row, *names: str) -> Any:
    """The first of these fields that the row has; the source's own tests and its oracle spell them differently."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise Unreadable(f"no {' or '.join(names)}")


def atoms(row: Row, *names: str) -> int:
    """An amount: a whole number, of any size."""
    value = number(pick(row, *names))
    if value.denominator != 1:
        raise Unreadable(f"{names[0]} is no whole number: {value}")
    return value.numerator


def dec(row: Row, *names: str) -> int:
    """A number of at most 18 decimals, in 1e-18."""
    value = number(pick(row, *names)) * DEC
    if value.denominator != 1:
        raise Unreadable(f"{names[0]} has more than 18 decimals: {value}")
    return value.numerator


def number(value: Any) -> Fraction:
    """A number as rows have it: an integer, a decimal string, "num/den", or a call that makes one."""
    if isinstance(value, dict):
        return _called(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Unreadable(f"not an exact number: {value!r}")
    return Fraction(value)


def shown(value: int) -> str:
    """A Dec as the source writes it."""
    whole, rest = divmod(abs(value), DEC)
    return f"{'-' if value < 0 else ''}{whole}.{rest:018d}"


def is_beyond_ledger(value: int) -> bool:
    """No amount of Satchel's can be this large: the ledger refuses it.   [A-3]"""
    return abs(value) > INT128_MAX


def _called(call: dict[str, Any]) -> Fraction:
    """The constructors of the source's number types that its tests use where a literal would not do."""
    name, arguments = str(call.get("$call", "")).rpartition(".")[2], call.get("args", [])
    match name:
        case "SetString":
            return Fraction(int(arguments[0], arguments[1] if len(arguments) > 1 else 10))
        case "NewDecFromBigIntWithPrec" | "NewDecWithPrec" | "NewDecFromIntWithPrec":
            return number(arguments[0]) * Fraction(1, 10 ** int(arguments[1]))
        case "NewUint" | "NewInt" | "NewDec" | "NewUintFromString" | "NewDecFromBigInt" | "NewUintFromBigInt":
            return number(arguments[0])
        case "MustNewDecFromStr" | "NewDecFromStr" | "NewDecFromInt" | "ParseUint" | "NewIntFromString":
            return number(arguments[0])
        case "ZeroUint" | "ZeroDec" | "ZeroInt":
            return Fraction(0)
        case "OneUint" | "OneDec" | "OneInt":
            return Fraction(1)
        case _:
            raise Unreadable(f"unknown call {call.get('$call')!r}")
