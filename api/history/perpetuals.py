"""Perpetuals as they were: funding rates, a subaccount's positions, payments, settlements and liquidations, looked up.

Between two changes of a position its lots stay the same. So what each funding interval and each settlement tick moved
is computed here from those lots and the interval's or tick's own row: nothing is stored per holder and tick.
[P-21, P-22, S-10, L-10]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from api.history import schema
from api.history.following import History
from api.history.pages import in_markets, read_page
from api.history.positions import position_from
from api.history.records import funding_from, liquidation_from
from api.rows import FundingPaymentRow, FundingRow, LiquidationRow, Page, PositionRow, SettlementRow
from engine.formulas.funding import payment
from engine.formulas.liquidation import shared_loss

_FOREVER = 2**62
"""Later than every command."""

TICK, FUNDING, FEE, LOSS, MOVED = range(5)
"""What a row of the settlement history is; in this order within a command."""


async def read_funding_rates(history: History, market_id: int, page: Page) -> tuple[list[FundingRow], int]:
    """Intervals of a market that ended, newest first; with the number of all."""
    table = schema.funding
    return await read_page(
        history, table, [table.c.market_id == market_id], (table.c.command_seq,), page, funding_from
    )


async def read_positions(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    market_ids: Sequence[int] | None = None,
    is_open: bool | None = None,
) -> tuple[list[PositionRow], int]:
    """A subaccount's positions as their last changes left them, by id; with the number of all that match."""
    table = schema.position
    wanted = [table.c.subaccount_id == subaccount_id, *in_markets(table, market_ids)]
    if is_open is not None:
        wanted.append(table.c.closed_at_us.is_(None) if is_open else table.c.closed_at_us.is_not(None))
    return await read_page(history, table, wanted, (table.c.position_id,), page, _position)


async def read_funding_payments(
    history: History, subaccount_id: int, page: Page, *, market_ids: Sequence[int] | None = None
) -> tuple[list[FundingPaymentRow], int]:
    """Every interval that ended while a position was open, in the order of the log; with the number of all."""
    spans = _spans(subaccount_id, market_ids)
    funding = schema.funding
    during = (
        sa.select(
            funding.c.market_id,
            funding.c.command_seq,
            funding.c.interval_end_us,
            funding.c.rate,
            funding.c.mark,
            spans.c.position_id,
            spans.c.lots,
        )
        .join(spans, _during(funding, spans))
        .where(spans.c.lots != 0)
    )
    keys = (funding.c.command_seq, funding.c.market_id)
    ordered = keys if page.ascending else tuple(key.desc() for key in keys)
    query = during.order_by(*ordered).limit(page.limit).offset(page.offset)
    counting = sa.select(sa.func.count()).select_from(during.subquery())

    def read(connection: sa.Connection) -> tuple[list[FundingPaymentRow], int]:
        rows = [
            FundingPaymentRow(
                row.market_id, row.position_id, row.interval_end_us, row.rate, int(row.mark), row.lots
            )
            for row in connection.execute(query)
        ]
        return rows, int(connection.execute(counting).scalar_one())

    return await history.read(read)


async def read_settlements(
    history: History,
    subaccount_id: int,
    page: Page,
    lot_values: dict[int, tuple[int, int]],
    *,
    kinds: Sequence[int] = (TICK, FUNDING, FEE, LOSS, MOVED),
    sources: Sequence[str] | None = None,
) -> tuple[list[SettlementRow], int]:
    """What moved a subaccount's USDC besides trades of assets, in the order of the log; with the number of all.

    `lot_values`: perpetual → (tick value in atoms, price of a tick), which make a price quote atoms per lot. `sources`
    chooses among what `SettlementMoved` reported.   [S-10 … S-13]
    """
    parts = [_part(kind, subaccount_id, tuple(lot_values), sources) for kind in kinds]
    union = sa.union_all(*parts).subquery()
    keys = (union.c.command_seq, union.c.kind, union.c.place)
    ordered = keys if page.ascending else tuple(key.desc() for key in keys)
    query = sa.select(union).order_by(*ordered).limit(page.limit).offset(page.offset)
    counting = sa.select(sa.func.count()).select_from(union)

    def read(connection: sa.Connection) -> tuple[list[SettlementRow], int]:
        losses = [_Loss(*row) for row in connection.execute(_losses(tuple(lot_values)))]
        rows = [_settlement(row, losses, lot_values) for row in connection.execute(query)]
        return rows, int(connection.execute(counting).scalar_one())

    return await history.read(read)


async def read_liquidations(
    history: History, subaccount_id: int, page: Page
) -> tuple[list[LiquidationRow], int]:
    """Every step of a subaccount's liquidations, in the order of the log; with the number of all.   [L-10]"""
    table = schema.liquidation
    keys = (table.c.command_seq, table.c.ordinal)
    wanted = [table.c.subaccount_id == subaccount_id]
    return await read_page(history, table, wanted, keys, page, liquidation_from)


async def read_public_liquidations(history: History, page: Page) -> tuple[list[LiquidationRow], int]:
    """Every step of everybody's liquidations that changed hands at a price, in the order of the log.   [L-10]"""
    table = schema.liquidation
    keys = (table.c.command_seq, table.c.ordinal)
    return await read_page(history, table, [table.c.price != "0"], keys, page, liquidation_from)


class _Loss(NamedTuple):
    """A loss that one side of a market shared."""

    command_seq: int
    market_id: int
    is_long_side: bool
    per_lot: str

    def atoms(self, lots: int) -> int:
        """What it took from a position, in atoms below zero.   [L-6]"""
        if (lots > 0) != self.is_long_side or not lots:
            return 0
        return -shared_loss(int(self.per_lot), lots)


def _position(row: Any) -> PositionRow:
    found = position_from(row)
    return PositionRow(
        found.view,
        found.is_long,
        found.closed_at_us,
        found.closed_atoms,
        found.liquidated_lots,
        found.liquidation_fee_atoms,
        found.mark,
    )


def _spans(subaccount_id: int, market_ids: Sequence[int] | None) -> sa.Subquery:
    """From one change of a position to the next: a command after `from_seq` and up to `to_seq` finds these lots."""
    table = schema.position_change
    following = sa.func.lead(table.c.command_seq).over(
        partition_by=table.c.market_id, order_by=(table.c.command_seq, table.c.ordinal)
    )
    return (
        sa.select(
            table.c.market_id,
            table.c.position_id,
            table.c.lots,
            table.c.cost_atoms,
            table.c.settled,
            table.c.command_seq.label("from_seq"),
            sa.func.coalesce(following, sa.literal(_FOREVER, sa.BigInteger())).label("to_seq"),
        )
        .where(table.c.subaccount_id == subaccount_id, *in_markets(table, market_ids))
        .subquery()
    )


def _during(table: sa.Table, spans: sa.Subquery) -> sa.ColumnElement[bool]:
    return (
        (table.c.market_id == spans.c.market_id)
        & (table.c.command_seq > spans.c.from_seq)
        & (table.c.command_seq <= spans.c.to_seq)
    )


def _after(table: sa.Table, spans: sa.Subquery) -> sa.ColumnElement[bool]:
    """A loss is shared when its command has closed what it could: among those whose lots are left.   [L-6]"""
    return (
        (table.c.market_id == spans.c.market_id)
        & (table.c.command_seq >= spans.c.from_seq)
        & (table.c.command_seq < spans.c.to_seq)
    )


_NAMES = (
    "command_seq",
    "kind",
    "place",
    "market_id",
    "position_id",
    "lots",
    "source",
    "atoms",
    "mark",
    "previous_mark",
    "previous_seq",
    "cost_atoms",
    "settled",
    "from_seq",
    "rate",
    "at_us",
)


def _row(**columns: Any) -> sa.Select[Any]:
    """A part of the union: what a kind does not have is 0."""
    texts = ("source", "atoms", "mark", "previous_mark", "cost_atoms", "settled")
    none = {name: sa.literal("0") if name in texts else sa.literal(0, sa.BigInteger()) for name in _NAMES}
    return sa.select(*({**none, **columns}[name].label(name) for name in _NAMES))


def _part(kind: int, subaccount_id: int, market_ids: Sequence[int], sources: Sequence[str] | None) -> sa.Select[Any]:
    numbered = sa.literal(kind, sa.BigInteger())
    if kind == FEE:
        fill = schema.fill
        return _row(
            command_seq=fill.c.command_seq, kind=numbered, place=fill.c.ordinal, market_id=fill.c.market_id,
            atoms=fill.c.fee_atoms, at_us=fill.c.at_us,
        ).where(fill.c.subaccount_id == subaccount_id, fill.c.market_id.in_(market_ids), fill.c.fee_atoms != "0")
    if kind == MOVED:
        moved = schema.settlement
        # Of whom a tick looked at one by one it reports what they paid: the tick's own rows say it of everybody.
        wanted = [moved.c.subaccount_id == subaccount_id, moved.c.source != "realize"]
        if sources is not None:
            wanted.append(moved.c.source.in_(sources))
        return _row(
            command_seq=moved.c.command_seq, kind=numbered, place=moved.c.ordinal, source=moved.c.source,
            atoms=moved.c.atoms, at_us=moved.c.at_us,
        ).where(*wanted)
    spans = _spans(subaccount_id, None)
    held = {"market_id": spans.c.market_id, "position_id": spans.c.position_id, "lots": spans.c.lots}
    if kind == FUNDING:
        funding = schema.funding
        return (
            _row(
                command_seq=funding.c.command_seq, kind=numbered, place=funding.c.market_id, mark=funding.c.mark,
                rate=funding.c.rate, at_us=funding.c.interval_end_us, **held,
            )
            .join_from(funding, spans, _during(funding, spans))
            .where(spans.c.lots != 0, funding.c.rate != 0)
        )
    if kind == LOSS:
        loss = schema.shared_loss
        return (
            _row(
                command_seq=loss.c.command_seq, kind=numbered, place=loss.c.ordinal, atoms=loss.c.per_lot,
                at_us=loss.c.at_us, **held,
            )
            .join_from(loss, spans, _after(loss, spans))
            .where((spans.c.lots > 0) == loss.c.is_long_side, spans.c.lots != 0)
        )
    tick = schema.tick
    is_first = spans.c.from_seq > tick.c.previous_seq
    moves = (spans.c.lots != 0) & ((tick.c.mark != tick.c.previous_mark) | is_first)
    return (
        _row(
            command_seq=tick.c.command_seq, kind=numbered, place=tick.c.market_id, mark=tick.c.mark,
            previous_mark=tick.c.previous_mark, previous_seq=tick.c.previous_seq, cost_atoms=spans.c.cost_atoms,
            settled=spans.c.settled, from_seq=spans.c.from_seq, at_us=tick.c.at_us, **held,
        )
        .join_from(tick, spans, _during(tick, spans))
        .where(moves | (is_first & (spans.c.cost_atoms != "0")))
    )


def _losses(market_ids: Sequence[int]) -> sa.Select[Any]:
    """All losses that were ever shared: few if any."""
    table = schema.shared_loss
    return sa.select(table.c.command_seq, table.c.market_id, table.c.is_long_side, table.c.per_lot).where(
        table.c.market_id.in_(market_ids)
    )


def _settlement(row: Any, losses: list[_Loss], lot_values: dict[int, tuple[int, int]]) -> SettlementRow:
    place = (row.market_id, row.position_id)
    if row.kind == FEE:
        return SettlementRow(row.command_seq, "fee", *place, -int(row.atoms), row.at_us)
    if row.kind == MOVED:
        return SettlementRow(row.command_seq, row.source, *place, int(row.atoms), row.at_us)
    if row.kind == LOSS:
        loss = _Loss(row.command_seq, row.market_id, row.lots > 0, row.atoms)
        return SettlementRow(row.command_seq, "loss", *place, loss.atoms(row.lots), row.at_us)
    if row.kind == FUNDING:
        tick_value, tick_price = lot_values[row.market_id]
        mark_lot = int(row.mark) * tick_value // tick_price
        paid = payment(row.rate, mark_lot, row.lots)
        return SettlementRow(row.command_seq, "funding", *place, paid, row.at_us)
    return SettlementRow(row.command_seq, "realize", *place, _gained(row, losses), row.at_us)


def _gained(row: Any, losses: list[_Loss]) -> int:
    """What a tick settled of a position: its lots since the last tick, or since its last change and what that left.

    A loss that was shared between the two has its own row.   [S-10]
    """
    is_first = row.from_seq > row.previous_seq
    if not is_first:
        return int(row.lots) * (int(row.mark) - int(row.previous_mark))
    gained = int(row.lots) * (int(row.mark) - int(row.settled)) + int(row.cost_atoms)
    for loss in losses:
        if loss.market_id == row.market_id and row.previous_seq < loss.command_seq < row.from_seq:
            gained -= loss.atoms(row.lots)
    return gained
