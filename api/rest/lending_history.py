"""Loans as they were: movements, positions, hourly interest, dust, the money markets hour by hour.   [B-12, B-13, S-3]

Rates are annual fractions. What is a quotient (a utilization, an average rate) is rounded half-even at 1e-18, as the
rule book rounds rates; everything else is exact.   [W-3]
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from msgspec import UNSET

from api import contract
from api.codec import Codec, naive_iso
from api.errors import bad_request
from api.history.lending import read_dust, read_interest, read_loans, read_movements, read_pool_hours
from api.requests import asset_of
from api.rest.route import Answer, Call, Route, page_of, paged
from api.rows import DustRow, InterestRow, LoanRow, MovementRow, PoolRow
from engine import lending
from engine.commands import LendingSide
from engine.events import LendingEvent, LendingSource
from engine.fees import USDC
from engine.formulas.lending import RATE_ONE, YEAR_MS, claim_atoms, debt_atoms, lend_rate, utilization
from engine.state import State
from ledger.amounts import format_decimal, mul_div_half_even

RATE_DECIMALS = 18
HOUR_MS = 3_600_000
SPAN_HOURS = {"1d": 24, "1w": 7 * 24, "1month": 30 * 24, "1year": 365 * 24}
MAX_POSITION_ID = 2**63 - 1

assert RATE_ONE == 10**RATE_DECIMALS


def name_of(member: IntEnum) -> Any:
    """LEND_REDEEM → `LendRedeem`, the contract's spelling."""
    return member.name.title().replace("_", "")


_EVENTS = {name_of(event): event for event in LendingEvent}
_SOURCES = {name_of(source): source for source in LendingSource}
_SIDES = {name_of(side): side for side in LendingSide}


async def lending_history(call: Call) -> Answer:
    query: contract.LendingHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    rows, total = await read_movements(
        call.node.history,
        call.key.subaccount_id,
        page,
        event=None if query.type_ is None else _EVENTS[query.type_],
        sources=None if query.sources is None else [_source(name) for name in query.sources.split(",")],
        position_id=_position_id(query.position_id),
        asset_id=_asset_id(query.symbol, call.state),
    )
    return paged([_movement(call.codec, row) for row in rows], page, total)


async def loan_history(call: Call) -> Answer:
    """Open positions as they stand now, interest included; closed ones as large as they were."""
    query: contract.LoanHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    rows, total = await read_loans(
        call.node.history,
        call.key.subaccount_id,
        page,
        side=None if query.side is None else _SIDES[query.side],
        asset_id=_asset_id(query.symbol, call.state),
        is_open=None if query.state is None else query.state == "Open",
    )
    now_us = call.node.now_us()
    return paged([_loan(call, row, now_us) for row in rows], page, total)


async def interest_history(call: Call) -> Answer:
    """One row per loan and hour that has ended; `quantity` was earned by a lender, or charged to a borrower."""
    query: contract.InterestHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    position_id = _position_id(query.position_id)
    wanted = {asset_of(symbol, call.state) for symbol in (query.asset, query.symbol) if symbol is not None}
    if query.source == "UnrealizedPnl" or len(wanted) > 1:
        return paged([], page, 0)
    rows, total = await read_interest(
        call.node.history,
        call.key.subaccount_id,
        page,
        position_id=position_id,
        asset_id=wanted.pop() if wanted else None,
    )
    return paged([_payment(call.codec, row) for row in rows], page, total)


async def dust_history(call: Call) -> Answer:
    """Dust sold for USDC; a dust debt that was bought back by itself is below zero, and so is what it cost.   [S-3]"""
    query: contract.DustHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    asset_id = _asset_id(query.symbol, call.state)
    rows, total = await read_dust(
        call.node.history, call.key.subaccount_id, page, dust_id=query.id, asset_id=asset_id
    )
    usdc = asset_of(USDC, call.state)
    return paged([_dust(call.codec, row, usdc) for row in rows], page, total)


async def pool_history(call: Call) -> Answer:
    """A money market, or all, at the beginning of each hour of the span, oldest first."""
    query: contract.PoolHistoryQuery = call.query
    state = call.state
    asset_ids = sorted(state.pools) if query.symbol is None else [asset_of(query.symbol, state)]
    since_hour = call.node.now_us() // 1_000 // HOUR_MS - SPAN_HOURS[query.interval] + 1
    rows = await read_pool_hours(call.node.history, asset_ids, since_hour, lambda row: _hour(call.codec, row))
    # Not longer: on a devnet an hour may pass at any moment.
    return Answer(rows, headers={"CACHE-CONTROL": "public, max-age=5"})


def _movement(codec: Codec, row: MovementRow) -> contract.BorrowLendMovement:
    return contract.BorrowLendMovement(
        event_type=name_of(row.event),
        position_id=str(row.position_id),
        quantity=codec.amount(row.asset_id, row.atoms),
        source=name_of(row.source),
        symbol=codec.symbol(row.asset_id),
        timestamp=naive_iso(row.at_us),
        position_quantity=codec.amount(row.asset_id, row.position_atoms),
        spot_margin_order_id=str(row.order_id) if row.order_id else UNSET,
    )


def _loan(call: Call, row: LoanRow, now_us: int) -> contract.BorrowLendPositionRow:
    codec, worth = call.codec, _worth(call.state, row, now_us)
    interest = worth - row.flow_atoms
    atom_ms = row.atom_ms
    if row.is_open:
        atom_ms += row.position_atoms * (now_us // 1_000 - row.moved_at_us // 1_000)
    return contract.BorrowLendPositionRow(
        position_id=str(row.position_id),
        quantity=codec.amount(row.asset_id, worth if row.is_open else row.largest_atoms),
        symbol=codec.symbol(row.asset_id),
        source=name_of(row.source),
        cumulative_interest=codec.amount(row.asset_id, interest),
        avg_interest_rate=_rate(mul_div_half_even(interest, RATE_ONE * YEAR_MS, atom_ms) if atom_ms else 0),
        side="Borrow" if row.is_debt else "Lend",
        created_at=naive_iso(row.opened_at_us),
    )


def _worth(state: State, row: LoanRow, now_us: int) -> int:
    """The claim or debt now, in atoms; nothing when the loan has ended.   [B-4]"""
    if not row.is_open:
        return 0
    pool = lending.totals(state, state.pools[row.asset_id], now_us)
    if row.position_shares > (pool.debt_shares if row.is_debt else pool.lend_shares):
        # The state is ahead of what is durable: the loan is about to end.
        return row.position_atoms
    if row.is_debt:
        return debt_atoms(row.position_shares, pool.borrowed, pool.debt_shares)
    return claim_atoms(row.position_shares, pool.lent, pool.lend_shares)


def _payment(codec: Codec, row: InterestRow) -> contract.InterestPayment:
    symbol = codec.symbol(row.asset_id)
    return contract.InterestPayment(
        payment_type="Borrow" if row.is_debt else "Lend",
        interest_rate=_rate(row.rate),
        interval=row.hours * HOUR_MS,
        market_symbol=symbol,
        position_id=str(row.position_id),
        quantity=codec.amount(row.asset_id, row.atoms),
        symbol=symbol,
        timestamp=naive_iso(row.hour * HOUR_MS * 1_000),
    )


def _dust(codec: Codec, row: DustRow, usdc: int) -> contract.DustConversion:
    return contract.DustConversion(
        id=row.dust_id,
        quantity=codec.amount(row.asset_id, row.atoms),
        symbol=codec.symbol(row.asset_id),
        usdc_received=codec.amount(usdc, row.usdc_atoms),
        timestamp=naive_iso(row.at_us),
    )


def _hour(codec: Codec, row: PoolRow) -> contract.BorrowLendHistory:
    totals = row.borrowed_atoms, row.lent_atoms, row.fee_atoms
    return contract.BorrowLendHistory(
        borrow_interest_rate=_rate(row.borrow_rate),
        borrowed_quantity=codec.amount(row.asset_id, row.borrowed_atoms),
        lend_interest_rate=_rate(lend_rate(row.borrow_rate, *totals, row.fee_rate)),
        lent_quantity=codec.amount(row.asset_id, row.lent_atoms),
        timestamp=naive_iso(row.hour * HOUR_MS * 1_000) + "Z",
        utilization=_rate(mul_div_half_even(RATE_ONE, *utilization(*totals))),
    )


def _rate(value: int) -> str:
    return format_decimal(value, RATE_DECIMALS)


def _source(name: str) -> LendingSource:
    source = _SOURCES.get(name.strip())
    if source is None:
        raise bad_request(f"unknown source {name[:40]!r}", "INVALID_SOURCE")
    return source


def _position_id(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) > MAX_POSITION_ID:
        raise bad_request(f"no position has the id {text[:40]!r}", "INVALID_POSITION_ID")
    return int(text)


def _asset_id(symbol: str | None, state: State) -> int | None:
    return None if symbol is None else asset_of(symbol, state)


ROUTES = [
    Route(
        method="GET",
        path="/wapi/v1/history/borrowLend",
        handler=lending_history,
        summary="Lends, redemptions, borrows and repayments, newest first",
        tag="History",
        instruction="borrowHistoryQueryAll",
        query=contract.LendingHistoryQuery,
        answer=list[contract.BorrowLendMovement],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/borrowLend/positions",
        handler=loan_history,
        summary="Loans, open and closed, newest first",
        tag="History",
        instruction="borrowPositionHistoryQueryAll",
        query=contract.LoanHistoryQuery,
        answer=list[contract.BorrowLendPositionRow],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/interest",
        handler=interest_history,
        summary="Interest of each loan and hour, newest first",
        tag="History",
        instruction="interestHistoryQueryAll",
        query=contract.InterestHistoryQuery,
        answer=list[contract.InterestPayment],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/dust",
        handler=dust_history,
        summary="Conversions of dust, newest first",
        tag="History",
        instruction="dustHistoryQueryAll",
        query=contract.DustHistoryQuery,
        answer=list[contract.DustConversion],
        paged=True,
    ),
    Route(
        method="GET",
        path="/api/v1/borrowLend/markets/history",
        handler=pool_history,
        summary="Money markets hour by hour",
        tag="Borrow and lend",
        query=contract.PoolHistoryQuery,
        answer=list[contract.BorrowLendHistory],
        time_range=True,
    ),
]
