"""Loans, their interest, their dust, and the money markets hour by hour, looked up.   [B-12, B-13, S-3]

Interest is posted to no account: it is what a claim or a debt grew by. So each hour's is computed here, from the loan's
shares and the pool at both ends of the hour.   [A-2, B-4]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from msgspec.structs import replace

from api.history import schema
from api.history.following import History
from api.history.loans import flow
from api.history.pages import read_page
from api.history.records import dust_from, loan_from, movement_from, pool_from
from api.rows import DustRow, InterestRow, LoanRow, MovementRow, Page, PoolRow
from engine.commands import LendingSide
from engine.events import LendingEvent, LendingSource
from engine.formulas.lending import claim_atoms, debt_atoms, lend_rate

Row = TypeVar("Row")

_IDS = 500
"""Ids in one query."""

_ZEROS = "0" * 40
"""As long as any number of atoms."""

_RUNNING = 2**62
"""Later than every period."""


class _Span(NamedTuple):
    """The periods of one loan that a page asks for."""

    asset_id: int
    first: int
    last: int
    is_whole: bool
    """The loan began in the first of them."""


async def read_movements(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    event: LendingEvent | None = None,
    sources: Sequence[LendingSource] | None = None,
    position_id: int | None = None,
    asset_id: int | None = None,
) -> tuple[list[MovementRow], int]:
    """A subaccount's lends, redemptions, borrows and repayments, in the order of the log; with the number of all."""
    table = schema.lending
    wanted = [table.c.subaccount_id == subaccount_id]
    if event is not None:
        wanted.append(table.c.event == int(event))
    if sources is not None:
        wanted.append(table.c.source.in_([int(source) for source in sources]))
    if position_id is not None:
        wanted.append(table.c.position_id == position_id)
    if asset_id is not None:
        wanted.append(table.c.asset_id == asset_id)
    return await read_page(history, table, wanted, (table.c.command_seq, table.c.ordinal), page, movement_from)


async def read_loans(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    side: LendingSide | None = None,
    asset_id: int | None = None,
    is_open: bool | None = None,
) -> tuple[list[LoanRow], int]:
    """A subaccount's loans as their last movements left them, by position id; with the number of all that match."""
    table = schema.loan
    wanted = [table.c.subaccount_id == subaccount_id]
    if side is not None:
        wanted.append(table.c.side == int(side))
    if asset_id is not None:
        wanted.append(table.c.asset_id == asset_id)
    if is_open is not None:
        wanted.append(table.c.last_period.is_(None) if is_open else table.c.last_period.is_not(None))
    rows, total = await read_page(history, table, wanted, (table.c.position_id,), page, loan_from)
    ended = [row.position_id for row in rows if not row.is_open]
    largest = await history.read(lambda connection: _largest(connection, ended)) if ended else {}
    return [
        row if row.is_open else replace(row, largest_atoms=max(row.largest_atoms, largest[row.position_id]))
        for row in rows
    ], total


async def read_interest(
    history: History,
    subaccount_id: int,
    page: Page,
    *,
    position_id: int | None = None,
    asset_id: int | None = None,
) -> tuple[list[InterestRow], int]:
    """What each loan of a subaccount earned or cost in each hour that has ended, by hour; with the number of all."""
    loan, pool = schema.loan, schema.pool
    wanted = [loan.c.subaccount_id == subaccount_id]
    if position_id is not None:
        wanted.append(loan.c.position_id == position_id)
    if asset_id is not None:
        wanted.append(loan.c.asset_id == asset_id)
    during = (
        (pool.c.asset_id == loan.c.asset_id)
        & (pool.c.period >= loan.c.first_period)
        & (pool.c.period <= sa.func.coalesce(loan.c.last_period, sa.literal(_RUNNING, sa.BigInteger())))
    )
    keys = (pool.c.hour, loan.c.position_id)
    ordered = keys if page.ascending else tuple(key.desc() for key in keys)
    periods = sa.select(loan.c.position_id, loan.c.asset_id, loan.c.side, loan.c.first_period, pool.c.period)
    periods = periods.join(pool, during).where(*wanted).order_by(*ordered).limit(page.limit).offset(page.offset)
    counting = sa.select(sa.func.count()).select_from(loan.join(pool, during)).where(*wanted)

    def read(connection: sa.Connection) -> tuple[list[InterestRow], int]:
        rows = connection.execute(periods).all()
        return _interest(connection, rows), int(connection.execute(counting).scalar_one())

    return await history.read(read)


async def read_pool_hours(
    history: History, asset_ids: Sequence[int], since_hour: int, shown: Callable[[PoolRow], Row]
) -> list[Row]:
    """The money markets of these assets from `since_hour` on, oldest first, as they are `shown`.   [B-13]

    A year of all markets is many rows: they are made ready off the event loop too.
    """
    table = schema.pool
    query = sa.select(table).where(table.c.asset_id.in_(asset_ids), table.c.hour >= since_hour)
    query = query.order_by(table.c.hour, table.c.asset_id)
    return await history.read(lambda connection: [shown(pool_from(row)) for row in connection.execute(query)])


async def read_dust(
    history: History, subaccount_id: int, page: Page, *, dust_id: int | None = None, asset_id: int | None = None
) -> tuple[list[DustRow], int]:
    """A subaccount's conversions of dust, by id; with the number of all that match."""
    table = schema.dust
    wanted = [table.c.subaccount_id == subaccount_id]
    if dust_id is not None:
        wanted.append(table.c.dust_id == dust_id)
    if asset_id is not None:
        wanted.append(table.c.asset_id == asset_id)
    return await read_page(history, table, wanted, (table.c.dust_id,), page, dust_from)


def _interest(connection: sa.Connection, periods: Sequence[Any]) -> list[InterestRow]:
    """Interest of these (loan, period) pairs: claim at the end − claim at the start − net flow.   [B-4]"""
    pools = _pools(connection, periods)
    shares, flows = _movements(connection, periods)
    rows = []
    for row in periods:
        key = row.position_id, row.period
        is_debt = row.side == LendingSide.BORROW
        end = pools[row.asset_id, row.period]
        start = pools.get((row.asset_id, row.period - 1))
        atoms = _value(shares[key], end, is_debt=is_debt) - flows.get(key, 0)
        begins = row.first_period == row.period
        if start is not None and not begins:
            atoms -= _value(shares[row.position_id, row.period - 1], start, is_debt=is_debt)
        hours = 1 if start is None else end.hour - start.hour
        # What held when the period began; a loan that began in it changed that itself.
        rate = _rate(end if start is None or begins else start, is_debt=is_debt)
        rows.append(InterestRow(row.asset_id, row.position_id, is_debt, end.hour, hours, atoms, rate))
    return rows


def _value(shares: int, pool: PoolRow, *, is_debt: bool) -> int:
    if is_debt:
        return debt_atoms(shares, pool.borrowed_atoms, pool.debt_shares)
    return claim_atoms(shares, pool.lent_atoms, pool.lend_shares)


def _rate(pool: PoolRow, *, is_debt: bool) -> int:
    if is_debt:
        return pool.borrow_rate
    return lend_rate(pool.borrow_rate, pool.borrowed_atoms, pool.lent_atoms, pool.fee_atoms, pool.fee_rate)


def _pools(connection: sa.Connection, periods: Sequence[Any]) -> dict[tuple[int, int], PoolRow]:
    """(asset, period) → the pool at the period's end, for these periods and the ones before them."""
    table = schema.pool
    numbers: dict[int, dict[int, None]] = defaultdict(dict)
    for row in periods:
        numbers[row.asset_id] |= {row.period - 1: None, row.period: None}
    found: dict[tuple[int, int], PoolRow] = {}
    for asset_id, wanted in numbers.items():
        for some in _some(wanted):
            query = sa.select(table).where(table.c.asset_id == asset_id, table.c.period.in_(some))
            found |= {(asset_id, row.period): pool_from(row) for row in connection.execute(query)}
    return found


def _movements(
    connection: sa.Connection, periods: Sequence[Any]
) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """(position, period) → shares at the period's end, also for the period before; and → net flow in the period."""
    spans: dict[int, _Span] = {}
    for row in periods:
        span = spans.get(row.position_id)
        first = row.period if span is None else min(span.first, row.period)
        last = row.period if span is None else max(span.last, row.period)
        spans[row.position_id] = _Span(row.asset_id, first, last, first == row.first_period)
    moved = _moved_between(connection, spans)

    shares: dict[tuple[int, int], int] = {}
    flows: dict[tuple[int, int], int] = {}
    for position_id, span in spans.items():
        held = 0 if span.is_whole else _shares_before(connection, position_id, span.first)
        shares[position_id, span.first - 1] = held
        for period in range(span.first, span.last + 1):
            for row in moved.get((position_id, period), ()):
                held = int(row.position_shares)
                flows[position_id, period] = flows.get((position_id, period), 0) + flow(row.event, int(row.atoms))
            shares[position_id, period] = held
    return shares, flows


def _moved_between(connection: sa.Connection, spans: dict[int, _Span]) -> dict[tuple[int, int], list[Any]]:
    """(position, period) → its movements, oldest first, of the periods that the spans cover."""
    table = schema.lending
    columns = (table.c.position_id, table.c.period, table.c.event, table.c.atoms, table.c.position_shares)
    by_asset: dict[int, list[int]] = defaultdict(list)
    for position_id, span in spans.items():
        by_asset[span.asset_id].append(position_id)
    moved: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for position_ids in by_asset.values():
        for some in _some(position_ids):
            first, last = min(spans[one].first for one in some), max(spans[one].last for one in some)
            query = sa.select(*columns).where(table.c.position_id.in_(some), table.c.period.between(first, last))
            for row in connection.execute(query.order_by(table.c.command_seq, table.c.ordinal)):
                moved[row.position_id, row.period].append(row)
    return moved


def _shares_before(connection: sa.Connection, position_id: int, period: int) -> int:
    table = schema.lending
    query = sa.select(table.c.position_shares).where(table.c.position_id == position_id, table.c.period < period)
    query = query.order_by(table.c.command_seq.desc(), table.c.ordinal.desc()).limit(1)
    return int(connection.execute(query).scalar_one())


def _largest(connection: sa.Connection, position_ids: Sequence[int]) -> dict[int, int]:
    """Position → the most atoms that a movement left it with."""
    table = schema.lending
    # Numbers as digits are ordered as numbers once they are equally long.
    digits = sa.func.substr(_ZEROS + table.c.position_atoms, sa.func.length(table.c.position_atoms) + 1)
    found: dict[int, int] = {}
    for some in _some(position_ids):
        query = sa.select(table.c.position_id, sa.func.max(digits)).where(table.c.position_id.in_(some))
        found |= {row[0]: int(row[1]) for row in connection.execute(query.group_by(table.c.position_id))}
    return found


def _some(numbers: Iterable[int]) -> Iterable[list[int]]:
    """The numbers, as many at a time as one query takes."""
    wanted = list(numbers)
    return (wanted[start : start + _IDS] for start in range(0, len(wanted), _IDS))
