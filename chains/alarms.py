"""Alarms for the operator: what, about which subject, since when and how often. Kept until cleared by hand."""

from __future__ import annotations

import sqlalchemy as sa

from chains.schema import alarms


def raise_alarm(connection: sa.Connection, chain_id: int, kind: str, subject: str, words: str, now_us: int) -> None:
    """Record an alarm; a repeat of the same kind and subject only counts up."""
    key = {"chain_id": chain_id, "kind": kind, "subject": subject}
    change = sa.update(alarms).filter_by(**key).values(words=words, last_at_us=now_us, count=alarms.c.count + 1)
    if connection.execute(change).rowcount == 0:
        connection.execute(
            sa.insert(alarms).values(**key, words=words, first_at_us=now_us, last_at_us=now_us, count=1)
        )


def open_alarms(connection: sa.Connection, chain_id: int | None = None) -> list[sa.Row[tuple[object, ...]]]:
    """Every alarm that nobody has cleared, oldest first."""
    select = sa.select(alarms).order_by(alarms.c.first_at_us, alarms.c.id)
    return list(connection.execute(select if chain_id is None else select.where(alarms.c.chain_id == chain_id)))


def clear_alarm(connection: sa.Connection, alarm_id: int) -> None:
    """The operator has dealt with it."""
    connection.execute(sa.delete(alarms).where(alarms.c.id == alarm_id))
