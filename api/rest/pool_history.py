"""Liquidity pools as they were: swaps, what providers moved, leveraged longs, epochs; a pool's and one's own.

Those of a pool say nothing of whose they were.   [X-1 … X-11, W-7]
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from api.codec import naive_iso
from api.contract import Decimal, NaiveTime, PositionStateName, Query, SortName, UInt64, Wire
from api.history.liquidity_pools import read_liquidity, read_longs, read_pool_epochs, read_swaps
from api.liquidity_pools import dec, pool_text
from api.requests import pool_of
from api.rest.pool_accounts import PoolPositionClosed, PoolPositionOpened, closed_row, opened_row
from api.rest.route import Answer, Call, Route, page_of, paged
from api.rows import LiquidityRow, LongRow, PoolEpochRow, SwapRow


class PoolRecordsQuery(Query):
    symbol: str
    """The pool's external asset."""
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class OwnPoolRecordsQuery(Query):
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class PoolPositionHistoryQuery(Query):
    symbol: str | None = None
    state: PositionStateName | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class PoolSwapRow(Wire):
    """A swap in one pool; of one through two pools each is a row, `hop` 1 and 2.   [X-1, X-2]"""

    symbol: str
    paid_symbol: str
    paid: Decimal
    received_symbol: str
    received: Decimal
    fee: Decimal
    """In the asset received."""
    timestamp: NaiveTime
    engine_sequence: UInt64
    hop: int | UnsetType = UNSET


class PoolLiquidityRow(Wire):
    """What a provider added (above zero) or took out.   [X-3, X-4]"""

    symbol: str
    native_symbol: str
    native_quantity: Decimal
    external_quantity: Decimal
    units: Decimal
    timestamp: NaiveTime
    engine_sequence: UInt64
    units_after: Decimal | UnsetType = UNSET
    """What the provider held then; told to nobody else."""


class PoolPositionRow(Wire):
    """A leveraged long as it was opened, and how it ended if it has.   [X-5, X-10 … X-12]"""

    position_id: str
    symbol: str
    state: PositionStateName
    opened: PoolPositionOpened
    closed: PoolPositionClosed | UnsetType = UNSET
    closed_at: NaiveTime | UnsetType = UNSET


class PoolEpochEntry(Wire):
    """An epoch of a pool; interest is the providers', net of the fund's.   [X-8, X-9, X-11]"""

    symbol: str
    epoch: int
    health: Decimal
    interest_rate: Decimal
    native_interest: Decimal
    external_interest: Decimal
    native_to_fund: Decimal
    external_to_fund: Decimal
    charged: int
    """Positions that were asked for interest; at a pushed price it stays unpaid."""
    forced: int
    """Positions closed by force."""
    failed: int
    """Forced closes that could not be made, and positions whose health could not be told: tried again."""
    timestamp: NaiveTime
    engine_sequence: UInt64


async def pool_swaps(call: Call) -> Answer:
    """Everybody's swaps in a pool, newest first."""
    query: PoolRecordsQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    rows, total = await read_swaps(call.node.history, page, pool_id=pool_of(query.symbol, call.state).pool_id)
    return paged([_swap(call, row) for row in rows], page, total)


async def pool_liquidity(call: Call) -> Answer:
    """What providers of a pool added and took out, newest first."""
    query: PoolRecordsQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    rows, total = await read_liquidity(call.node.history, page, pool_id=pool_of(query.symbol, call.state).pool_id)
    return paged([_liquidity(call, row, is_own=False) for row in rows], page, total)


async def pool_epochs(call: Call) -> Answer:
    """Epochs of a pool, newest first."""
    query: PoolRecordsQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    rows, total = await read_pool_epochs(call.node.history, pool_of(query.symbol, call.state).pool_id, page)
    return paged([_epoch(call, row) for row in rows], page, total)


async def own_swaps(call: Call) -> Answer:
    """The subaccount's swaps, newest first."""
    query: OwnPoolRecordsQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    own = call.key.subaccount_id
    rows, total = await read_swaps(
        call.node.history, page, subaccount_id=own, pool_id=_pool_id(call, query.symbol)
    )
    return paged([_swap(call, row) for row in rows], page, total)


async def own_liquidity(call: Call) -> Answer:
    """What the subaccount added to pools and took out, newest first."""
    query: OwnPoolRecordsQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    own = call.key.subaccount_id
    rows, total = await read_liquidity(
        call.node.history, page, subaccount_id=own, pool_id=_pool_id(call, query.symbol)
    )
    return paged([_liquidity(call, row, is_own=True) for row in rows], page, total)


async def own_positions(call: Call) -> Answer:
    """The subaccount's leveraged longs, newest first: how each was opened and ended, forced closes included."""
    query: PoolPositionHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    is_open = None if query.state is None else query.state == "Open"
    rows, total = await read_longs(
        call.node.history, call.key.subaccount_id, page, pool_id=_pool_id(call, query.symbol), is_open=is_open
    )
    return paged([_position(call, row) for row in rows], page, total)


def _pool_id(call: Call, symbol: str | None) -> int | None:
    return None if symbol is None else pool_of(symbol, call.state).pool_id


def _swap(call: Call, row: SwapRow) -> PoolSwapRow:
    swapped = row.swapped
    text, pays_native = pool_text(call.state, swapped.pool_id), swapped.is_native_paid
    return PoolSwapRow(
        symbol=text.symbol,
        paid_symbol=text.symbol_of(pays_native),
        paid=text.amount(pays_native, swapped.paid_atoms),
        received_symbol=text.symbol_of(not pays_native),
        received=text.amount(not pays_native, swapped.received_atoms),
        fee=text.amount(not pays_native, swapped.fee_atoms),
        timestamp=naive_iso(row.at_us),
        engine_sequence=row.command_seq,
        hop=swapped.hop or UNSET,
    )


def _liquidity(call: Call, row: LiquidityRow, *, is_own: bool) -> PoolLiquidityRow:
    moved = row.moved
    text = pool_text(call.state, moved.pool_id)
    return PoolLiquidityRow(
        symbol=text.symbol,
        native_symbol=text.native_symbol,
        native_quantity=text.native(moved.native_atoms),
        external_quantity=text.external(moved.external_atoms),
        units=text.units(moved.units),
        timestamp=naive_iso(row.at_us),
        engine_sequence=row.command_seq,
        units_after=text.units(moved.units_after) if is_own else UNSET,
    )


def _position(call: Call, row: LongRow) -> PoolPositionRow:
    opened = opened_row(call, row.opened)
    entry = PoolPositionRow(
        position_id=opened.position_id,
        symbol=opened.symbol,
        state="Open" if row.closed is None else "Closed",
        opened=opened,
    )
    if row.closed is not None and row.closed_at_us is not None:
        entry.closed, entry.closed_at = closed_row(call, row.closed), naive_iso(row.closed_at_us)
    return entry


def _epoch(call: Call, row: PoolEpochRow) -> PoolEpochEntry:
    ran = row.ran
    text = pool_text(call.state, ran.pool_id)
    return PoolEpochEntry(
        symbol=text.symbol,
        epoch=ran.epoch,
        health=dec(ran.health),
        interest_rate=dec(ran.rate),
        native_interest=text.native(ran.native_interest),
        external_interest=text.external(ran.external_interest),
        native_to_fund=text.native(ran.native_to_fund),
        external_to_fund=text.external(ran.external_to_fund),
        charged=ran.charged,
        forced=ran.forced,
        failed=ran.failed,
        timestamp=naive_iso(row.at_us),
        engine_sequence=row.command_seq,
    )


def _route(path: str, handler: Any, summary: str, answer: Any, query: Any, instruction: str | None = None) -> Route:
    return Route(
        method="GET",
        path=f"/satchel/v1/{path}",
        handler=handler,
        summary=summary,
        tag="Pools",
        instruction=instruction,
        answer=answer,
        query=query,
        paged=True,
    )


ROUTES = [
    _route("pools/swaps", pool_swaps, "Swaps in a pool, newest first", list[PoolSwapRow], PoolRecordsQuery),
    _route(
        "pools/moves", pool_liquidity, "Liquidity added to a pool and taken out, newest first",
        list[PoolLiquidityRow], PoolRecordsQuery,
    ),
    _route("pools/epochs", pool_epochs, "Epochs of a pool, newest first", list[PoolEpochEntry], PoolRecordsQuery),
    _route(
        "history/pools/swaps", own_swaps, "The subaccount's swaps, newest first", list[PoolSwapRow],
        OwnPoolRecordsQuery, "poolSwapHistoryQueryAll",
    ),
    _route(
        "history/pools/liquidity", own_liquidity, "Liquidity the subaccount added and took out, newest first",
        list[PoolLiquidityRow], OwnPoolRecordsQuery, "poolLiquidityHistoryQueryAll",
    ),
    _route(
        "history/pools/positions", own_positions, "The subaccount's leveraged longs, newest first",
        list[PoolPositionRow], PoolPositionHistoryQuery, "poolPositionHistoryQueryAll",
    ),
]
