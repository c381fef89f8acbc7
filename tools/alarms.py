"""`satchel alarms`: what the chains' loops want a person to look at, and the word that somebody has.   [D-11]"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from chains.alarms import clear_alarm, open_alarms
from chains.schema import alarms
from ledger.database import database_url, open_engine
from tools.node_data import reading
from tools.reports import utc
from tools.terminal import FINDINGS, FINE, CannotRun, print_json, print_table, say

_COLUMNS = ("id", "chain", "kind", "subject", "count", "first", "last", "message")


def show(data: Path, database: str | None, clear: list[int], as_json: bool) -> int:
    """List every open alarm; 1 while there is one. `clear` are ids that an operator has dealt with."""
    with reading(data, database) as engine:
        rows = _rows(engine)
    unknown = sorted(set(clear) - {row["id"] for row in rows})
    if unknown:
        open_ids = ", ".join(str(row["id"]) for row in rows) or "none"
        raise CannotRun(f"no open alarm {unknown[0]}", f"open are: {open_ids}")
    if clear:
        _clear(database_url(data, database), clear)
        rows = [row for row in rows if row["id"] not in clear]
    if as_json:
        print_json({"alarms": rows, "cleared": clear})
    elif rows:
        print_table(_COLUMNS, [[str(row[name]) for name in _COLUMNS] for row in rows], numbers=(0, 4))
    else:
        print("no open alarm")
    if rows and not as_json:
        say("`satchel alarms --clear ID` once an alarm was dealt with; one that still holds is raised again")
    return FINDINGS if rows else FINE


def _rows(engine: sa.Engine) -> list[dict[str, Any]]:
    if not sa.inspect(engine).has_table(alarms.name):
        return []
    with engine.connect() as connection:
        return [
            {
                "id": row.id,
                "chain": row.chain_id,
                "kind": row.kind,
                "subject": row.subject,
                "count": row._mapping["count"],
                "first": utc(row.first_at_us),
                "last": utc(row.last_at_us),
                "message": row.words,
            }
            for row in open_alarms(connection)
        ]


def _clear(url: str, ids: list[int]) -> None:
    """Alarms are working notes beside the log, so that a running node does not mind."""
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            for alarm_id in ids:
                clear_alarm(connection, alarm_id)
    finally:
        engine.dispose()
