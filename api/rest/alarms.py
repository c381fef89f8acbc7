"""The chains' open alarms, for an operator to read: what needs a person's eyes and nobody has cleared.   [D-11, W-7]"""

from __future__ import annotations

import asyncio

from api.codec import naive_iso
from api.contract import NaiveTime, Wire
from api.rest.route import Call, Route
from chains.alarms import open_alarms


class AlarmRow(Wire):
    """An alarm; a repeat of the same kind about the same subject only counts up."""

    id: int
    blockchain: str
    kind: str
    subject: str
    message: str
    first_at: NaiveTime
    last_at: NaiveTime
    count: int


async def get_alarms(call: Call) -> list[AlarmRow]:
    """Every alarm that nobody has cleared, oldest first. `satchel alarms --clear ID` clears one."""
    reader, chains = call.node.store.engine, call.state.chains

    def read() -> list[AlarmRow]:
        with reader.connect() as connection:
            return [
                AlarmRow(
                    id=row.id,
                    blockchain=chains[row.chain_id].name if row.chain_id in chains else str(row.chain_id),
                    kind=row.kind,
                    subject=row.subject,
                    message=row.words,
                    first_at=naive_iso(row.first_at_us),
                    last_at=naive_iso(row.last_at_us),
                    count=row._mapping["count"],
                )
                for row in open_alarms(connection)
            ]

    return await asyncio.to_thread(read)


ROUTES = [
    Route(
        method="GET",
        path="/satchel/v1/alarms",
        handler=get_alarms,
        summary="The chains' open alarms, to an operator's key",
        tag="Operations",
        instruction="alarmQueryAll",
        operator=True,
        answer=list[AlarmRow],
    ),
]
