"""Positions on their way into the tables: each change, and each position as its last change left it.   [C-5, W-3]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from api.history import schema
from engine.commands import Origin
from engine.events import PositionChanged, PositionView

_IDS = 500
"""Ids in one query."""


class Change(msgspec.Struct):
    """A position's change with its place in the log, and what a liquidation took for it."""

    changed: PositionChanged
    command_seq: int
    ordinal: int
    at_us: int
    liquidation_fee_atoms: int = 0

    def row(self) -> tuple[Any, ...]:
        """A row of `history_position_change`."""
        view = self.changed.position
        return (
            self.command_seq,
            self.ordinal,
            view.subaccount_id,
            view.market_id,
            view.position_id,
            self.changed.change,
            int(self.changed.origin),
            view.lots,
            str(view.entry_atoms),
            str(view.cost_atoms),
            str(view.settled),
            str(self.changed.mark),
            self.at_us,
        )


class Position(msgspec.Struct):
    """A row of `history_position`."""

    view: PositionView
    is_long: bool
    closed_at_us: int | None = None
    closed_atoms: int = 0
    liquidated_lots: int = 0
    liquidation_fee_atoms: int = 0
    mark: int = 0

    def row(self) -> tuple[Any, ...]:
        view = self.view
        entered = (view.entry_atoms, view.traded_atoms, view.cost_atoms, view.settled)
        closed = (view.closed_lots, self.closed_atoms, self.liquidated_lots, self.liquidation_fee_atoms, self.mark)
        return (
            view.position_id,
            view.subaccount_id,
            view.market_id,
            self.is_long,
            view.lots,
            *(str(value) for value in entered),
            str(view.fee_atoms),
            str(view.funding_atoms),
            view.opened_at_us,
            self.closed_at_us,
            *(str(value) for value in closed),
        )


def position_from(row: Any) -> Position:
    view = PositionView(
        row.subaccount_id,
        row.market_id,
        row.position_id,
        row.lots,
        int(row.entry_atoms),
        int(row.traded_atoms),
        int(row.cost_atoms),
        int(row.fee_atoms),
        int(row.funding_atoms),
        row.opened_at_us,
        int(row.closed_lots),
        int(row.settled),
    )
    return Position(
        view,
        bool(row.is_long),
        row.closed_at_us,
        int(row.closed_atoms),
        int(row.liquidated_lots),
        int(row.liquidation_fee_atoms),
        int(row.mark),
    )


def changed_positions(connection: sa.Connection, changes: Sequence[Change]) -> list[Position]:
    """The positions that these changes touch, as they stand after them."""
    known = _stored(connection, list({each.changed.position.position_id: None for each in changes}))
    for each in changes:
        view = each.changed.position
        position = known.get(view.position_id)
        if position is None:
            position = known[view.position_id] = Position(view, view.lots > 0)
        else:
            _change(position, each)
        position.view = view
        position.mark = each.changed.mark
        position.closed_at_us = None if view.lots else each.at_us
        position.liquidation_fee_atoms += each.liquidation_fee_atoms
    return list(known.values())


def _change(position: Position, change: Change) -> None:
    """What was closed: the fill that did it is what the traded sum moved by."""
    before, after = position.view, change.changed.position
    closed = after.closed_lots - before.closed_lots
    if closed:
        position.closed_atoms += abs(after.traded_atoms - before.traded_atoms)
        if change.changed.origin is not Origin.USER:
            position.liquidated_lots += closed


def _stored(connection: sa.Connection, position_ids: Sequence[int]) -> dict[int, Position]:
    table = schema.position
    found: dict[int, Position] = {}
    for start in range(0, len(position_ids), _IDS):
        query = sa.select(table).where(table.c.position_id.in_(position_ids[start : start + _IDS]))
        for row in connection.execute(query):
            found[row.position_id] = position_from(row)
    return found
