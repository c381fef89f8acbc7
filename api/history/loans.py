"""Loans and hourly pools on their way into the tables: which period of interest it is, how each loan stands.

[B-4, B-12, B-13]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from api.history import schema
from engine.commands import LendingSide
from engine.events import LendingEvent, LendingMoved

_IDS = 500
"""Ids in one query."""


class Movement(msgspec.Struct, frozen=True):
    """A loan's movement with its place in the log and the period of interest that it fell in."""

    moved: LendingMoved
    command_seq: int
    ordinal: int
    at_us: int
    period: int


class Loan(msgspec.Struct):
    """A row of `history_loan`; fields as its columns."""

    position_id: int
    subaccount_id: int
    asset_id: int
    side: int
    source: int
    opened_at_us: int
    first_period: int
    closed_at_us: int | None
    last_period: int | None
    moved_at_us: int
    moved_atoms: int
    position_atoms: int
    position_shares: int
    flow_atoms: int
    atom_ms: int

    def row(self) -> tuple[Any, ...]:
        digits = (self.moved_atoms, self.position_atoms, self.position_shares, self.flow_atoms, self.atom_ms)
        fixed = msgspec.structs.astuple(self)[: -len(digits)]
        return (*fixed, *(str(value) for value in digits))


def running_periods(connection: sa.Connection) -> dict[int, int]:
    """Asset → how many of its periods are closed."""
    table = schema.pool
    query = sa.select(table.c.asset_id, sa.func.max(table.c.period)).group_by(table.c.asset_id)
    return {asset_id: int(period) for asset_id, period in connection.execute(query)}


def moved_loans(connection: sa.Connection, movements: Sequence[Movement]) -> list[Loan]:
    """The loans that these movements touch, as they stand after them."""
    loans = _stored(connection, list({each.moved.position_id: None for each in movements}))
    for each in movements:
        moved = each.moved
        loan = loans.get(moved.position_id)
        if loan is None:
            loan = loans[moved.position_id] = _opened(each)
        _move(loan, each)
    return list(loans.values())


def _opened(first: Movement) -> Loan:
    moved = first.moved
    is_debt = moved.event in (LendingEvent.BORROW, LendingEvent.BORROW_REPAY)
    side = LendingSide.BORROW if is_debt else LendingSide.LEND
    return Loan(
        moved.position_id, moved.subaccount_id, moved.asset_id, int(side), int(moved.source), first.at_us, first.period,
        None, None, first.at_us, 0, 0, 0, 0, 0,
    )


def _move(loan: Loan, movement: Movement) -> None:
    moved, at_us = movement.moved, movement.at_us
    loan.atom_ms += loan.position_atoms * (at_us // 1000 - loan.moved_at_us // 1000)
    loan.flow_atoms += flow(moved.event, moved.atoms)
    loan.moved_at_us, loan.moved_atoms = at_us, moved.atoms
    loan.position_atoms, loan.position_shares = moved.position_atoms, int(moved.position_shares)
    if not loan.position_shares:
        loan.closed_at_us, loan.last_period = at_us, movement.period


def flow(event: int, atoms: int) -> int:
    """What a movement adds to its loan."""
    return atoms if event in (LendingEvent.LEND, LendingEvent.BORROW) else -atoms


def _stored(connection: sa.Connection, position_ids: Sequence[int]) -> dict[int, Loan]:
    table = schema.loan
    loans: dict[int, Loan] = {}
    for start in range(0, len(position_ids), _IDS):
        query = sa.select(table).where(table.c.position_id.in_(position_ids[start : start + _IDS]))
        for row in connection.execute(query):
            fixed, digits = row[:-5], row[-5:]
            loans[row.position_id] = Loan(*fixed, *(int(value) for value in digits))
    return loans
