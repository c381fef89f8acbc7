"""What the migrations make a database of, and whether one still is: tables, keys, triggers and their code.   [A-8]

A trigger's name says nothing of what it does: whoever owns the database can put an empty one in its place. So SQLite's
definitions are compared with those of a database just migrated in memory, PostgreSQL's with the migrations' text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

from ledger import schema
from ledger.database import open_engine, upgrade
from ledger.resources import migrations_dir

GUARDED = frozenset(
    [table.name for table in schema.APPEND_ONLY] + ["snapshot", "tip", "por_epoch", "por_artifact"]
)
"""The tables that are evidence; what else is in the database is derived, or the operator's own affair."""

Ask = Callable[[str], list[Any]]
"""Runs a query and gives its rows."""

Difference = tuple[str, str]
"""(name of the object, what is wrong with it)"""


def differences(dialect: str, ask: Ask) -> Iterator[Difference]:
    """Every guarded table, key, index, trigger and function that is missing, different or unknown."""
    return _sqlite_differences(ask) if dialect == "sqlite" else _postgresql_differences(ask)


def _sqlite_differences(ask: Ask) -> Iterator[Difference]:
    expected = _sqlite_expected()
    found = _sqlite_definitions(ask)
    for (kind, name), text in expected.items():
        if (kind, name) not in found:
            yield name, f"the {kind} is missing{': the log is not append-only' if kind == 'trigger' else ''}"
        elif found[kind, name] != text:
            yield name, f"the {kind} is not as it was made: {_first_difference(found[kind, name], text)}"
    for kind, name in found.keys() - expected.keys():
        yield name, f"a {kind} that this version does not know"


def _sqlite_definitions(ask: Ask) -> dict[tuple[str, str], str]:
    """(type, name) → definition of what is guarded; a trigger is, on whatever table it sits."""
    definitions = {}
    for values in ask("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL"):
        kind, name, table, text = (_text(value) for value in values)
        if kind == "trigger" or (kind in ("table", "index") and table.lower() in GUARDED):
            definitions[kind, name] = _squeezed(text)
    return definitions


@cache
def _sqlite_expected() -> dict[tuple[str, str], str]:
    engine = open_engine("sqlite://")
    try:
        upgrade(engine)
        with engine.connect() as connection:
            return _sqlite_definitions(lambda query: list(connection.exec_driver_sql(query)))
    finally:
        engine.dispose()


def _postgresql_differences(ask: Ask) -> Iterator[Difference]:
    functions, triggers = postgresql_expected()
    yield from _function_differences(ask, functions)
    found = {}
    for name, table, text, enabled, internal in ask(_TRIGGERS):
        if enabled not in ("O", "A"):
            yield name, f"the trigger on {table} is switched off: the log is not append-only"
        if not internal:
            found[name] = _normal_trigger(text)
    for name, text in triggers.items():
        if name not in found:
            yield name, "the trigger is missing: the log is not append-only"
        elif found[name] != text:
            yield name, f"the trigger is not as it was made: {_first_difference(found[name], text)}"
    for name in found.keys() - triggers.keys():
        yield name, "a trigger that this version does not know"
    for name, table in ask(_RULES):
        yield name, f"a rule that rewrites queries on {table}"
    for name, protected in ask(_ROW_SECURITY):
        if name in GUARDED and protected:
            yield name, "row security hides rows"
    constraints: dict[str, set[str]] = {}
    for table, text in ask(_CONSTRAINTS):
        constraints.setdefault(table, set()).add(text)
    for name, expected in _KEYS.items():
        for text in sorted(expected - constraints.get(name, set())):
            yield name, f"has lost its {text}"


def _function_differences(ask: Ask, expected: dict[str, str]) -> Iterator[Difference]:
    ((here,),) = ask("SELECT current_schema()")
    found = {name: values for name, *values in ask(_FUNCTIONS)}
    for name, body in expected.items():
        if name not in found:
            yield name, "the function is missing"
            continue
        source, definer, language, settings = found[name]
        if source != body or language != "plpgsql" or not definer:
            yield name, f"the function is not as it was made: {_first_difference(source, body)}"
        path = next((one.partition("=")[2] for one in settings or () if one.startswith("search_path=")), None)
        named = None if path is None else {one.strip().strip('"') for one in path.split(",")}
        if named is None or not named <= {"$user", here}:
            yield name, f"the function looks for its tables in {path or 'any schema'}, not in {here} alone"


@cache
def postgresql_expected() -> tuple[dict[str, str], dict[str, str]]:
    """(function → body, trigger → definition) of the migrations."""
    functions: dict[str, str] = {}
    triggers: dict[str, str] = {}
    for file in sorted((migrations_dir() / "versions").glob("[0-9]*.py")):
        spec = spec_from_file_location(f"satchel_migration_{file.stem}", file)
        assert spec is not None and spec.loader is not None, file
        migration = module_from_spec(spec)
        spec.loader.exec_module(migration)
        for statement in getattr(migration, "postgresql_guards", list)():
            if made := re.search(r"CREATE FUNCTION (\w+)\(\).*?\$\$(.*)\$\$", statement, re.DOTALL):
                functions[made[1]] = made[2]
            elif made := re.search(r"CREATE TRIGGER (\w+)", statement):
                triggers[made[1]] = _normal_trigger(statement)
    return functions, triggers


_HERE = "relnamespace = current_schema()::regnamespace"
_TRIGGERS = (
    "SELECT tgname, relname, pg_get_triggerdef(pg_trigger.oid, true), tgenabled::text, tgisinternal "  # noqa: S608
    f"FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE {_HERE}"
)
_FUNCTIONS = (
    "SELECT proname, prosrc, prosecdef, lanname, proconfig FROM pg_proc JOIN pg_language ON pg_language.oid = prolang "
    "WHERE pronamespace = current_schema()::regnamespace"
)
_RULES = (
    f"SELECT rulename, relname FROM pg_rewrite JOIN pg_class ON pg_class.oid = ev_class WHERE relkind = 'r' AND {_HERE}"  # noqa: S608
)
_ROW_SECURITY = f"SELECT relname, relrowsecurity FROM pg_class WHERE relkind = 'r' AND {_HERE}"  # noqa: S608
_CONSTRAINTS = (
    "SELECT relname, pg_get_constraintdef(pg_constraint.oid, true) FROM pg_constraint "  # noqa: S608
    f"JOIN pg_class ON pg_class.oid = conrelid WHERE convalidated AND {_HERE}"
)
_KEYS = {
    table.name: {f"PRIMARY KEY ({', '.join(column.name for column in table.primary_key.columns)})"}
    for table in (*schema.APPEND_ONLY, schema.snapshot, schema.tip)
}
_KEYS["tip"] |= {
    "CHECK (one = 1)",
    "FOREIGN KEY (open_height) REFERENCES block(height) DEFERRABLE INITIALLY DEFERRED",
}


def _normal_trigger(text: str) -> str:
    """A trigger's definition with its events in the order of the alphabet: PostgreSQL gives them in its own."""
    text = _squeezed(text)
    made = re.match(r"(CREATE TRIGGER \w+ (?:BEFORE|AFTER)) ([A-Z ]+) (ON .*)", text)
    return text if made is None else f"{made[1]} {' OR '.join(sorted(made[2].split(' OR ')))} {made[3]}"


def _first_difference(found: str, expected: str) -> str:
    found, expected = _squeezed(found), _squeezed(expected)
    at = next((at for at, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
    at = max(0, (min(len(found), len(expected)) if at is None else at) - 10)
    return f"{found[at : at + 40]!r}, expected {expected[at : at + 40]!r}"


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).decode(errors="replace")
