"""Perpetuals as they were: positions, funding payments, settlements, liquidations; the funds that stand behind them.

[C-5, P-21, S-10 … S-13, L-5, L-7, L-10]
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from api import contract
from api.codec import ANNUAL_DECIMALS, Codec, naive_iso, price_in_usd, rate, usd
from api.contract import Decimal, NaiveTime, Query, SortName, UInt64, Wire
from api.history.perpetuals import (
    FEE,
    FUNDING,
    LOSS,
    MOVED,
    TICK,
    read_funding_payments,
    read_liquidations,
    read_positions,
    read_settlements,
)
from api.positions import price_of
from api.requests import market_of
from api.rest.perpetuals import position_row
from api.rest.route import Answer, Call, Route, page_of, paged
from api.rows import FundingPaymentRow, LiquidationRow, PositionRow, SettlementRow
from engine import lending, margin
from engine.formulas.funding import payment
from engine.parameters import MarketType
from engine.state import ASSET_BITS, State
from ledger.amounts import format_decimal, mul_div_down
from ledger.chart import BACKSTOP_FUND, INSURANCE_FUND, INSURANCE_UNSETTLED

_SOURCES: dict[str, contract.SettlementSourceName] = {
    "realize": "RealizePnl",
    "funding": "FundingPayment",
    "fee": "TradingFees",
    "unsettled": "CulledRealizePnlBookUtilisation",
    "claim": "CulledRealizePnlAuto",
    "conversion": "CulledRealizePnlAccountThreshold",
    "liquidation": "TradingFeesSystem",
    "backstop": "BackstopProviderLiquidation",
    "adl": "BackstopAdlLiquidation",
    "loss": "SystemLiabilityTransfer",
    "recovery": "BackstopLiquidityFundProceeds",
}
"""What moved USDC, as the contract names it."""

_FILTERS: dict[contract.SettlementFilterName, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "BackstopLiquidation": ((MOVED,), ("backstop", "adl")),
    "CulledBorrowInterest": ((MOVED,), ()),
    "CulledRealizePnl": ((MOVED,), ("claim", "conversion")),
    "CulledRealizePnlBookUtilization": ((MOVED,), ("unsettled",)),
    "FundingPayment": ((FUNDING,), ()),
    "RealizePnl": ((TICK,), ()),
    "TradingFees": ((FEE, MOVED), ("fee",)),
    "TradingFeesSystem": ((MOVED,), ("liquidation",)),
}
"""The contract's filter → kinds of rows, and which of those that were reported one by one."""

_EVERYTHING = (TICK, FUNDING, FEE, LOSS, MOVED)


class LiquidationHistoryQuery(Query):
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class LiquidationStep(Wire):
    """A step of a liquidation: why, at which prices, what was taken. USD values before and after it.   [L-10]"""

    stage: str
    """`started`, `cancelled_orders`, `netted`, `book`, `backstop`, `adl`, `insurance`, `loss`, `debt`, `lender_adl`,
    `collateral`, `ended`."""
    timestamp: NaiveTime
    engine_sequence: UInt64
    net_equity: Decimal
    maintenance_margin: Decimal
    net_exposure_notional: Decimal
    net_equity_after: Decimal
    maintenance_margin_after: Decimal
    fee: Decimal
    """In USDC."""
    symbol: str | UnsetType = UNSET
    """The market or the asset that it was about."""
    quantity: Decimal | UnsetType = UNSET
    """As the account's own holding changed."""
    price: Decimal | UnsetType = UNSET
    mark_price: Decimal | UnsetType = UNSET


class PoolHole(Wire):
    """What lenders of an asset still lack, in USDC, and how much of their claims is covered.   [L-7, R-7]"""

    symbol: str
    hole: Decimal
    recovery_ratio: Decimal
    """Value of what is lent, over that value and the hole: 1 when nothing is missing; rounded down at 1e-18."""


class InsuranceState(Wire):
    """The funds behind liquidations, and what they could not cover.   [L-4, L-5, L-7]"""

    insurance_fund: dict[str, Decimal]
    """By asset."""
    insurance_unsettled: Decimal
    """USDC that it waits for, having advanced it (above zero), or owes.   [S-13]"""
    backstop_fund: dict[str, Decimal]
    holes: list[PoolHole]
    liquidating: int
    """Accounts in liquidation now."""


async def position_history(call: Call) -> Answer:
    """Open positions at the mark of now; closed ones as they ended."""
    query: contract.PositionHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    market_ids = _perpetuals(call, query.symbol)
    if query.market_type and "PERP" not in query.market_type:
        return paged([], page, 0)
    rows, total = await read_positions(
        call.node.history,
        call.key.subaccount_id,
        page,
        market_ids=market_ids,
        is_open=None if query.state is None else query.state == "Open",
    )
    return paged([_position(call, row) for row in rows], page, total)


async def funding_history(call: Call) -> Answer:
    """One row for each interval that ended while a position was open; above zero was received."""
    query: contract.FundingHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    subaccount = call.subaccount(query.subaccount_id)
    rows, total = await read_funding_payments(
        call.node.history, subaccount.subaccount_id, page, market_ids=_perpetuals(call, query.symbol)
    )
    owner = subaccount.user.user_id, subaccount.subaccount_id
    return paged([_payment(call.codec, row, *owner) for row in rows], page, total)


async def settlement_history(call: Call) -> Answer:
    """Per position and tick what was settled, into USDC or, with autoRealizePnl off, into its claim; funding, fees, and
    what was found or paid apart from a tick. What a tick could not pay waits as unsettled equity; when it is paid, that
    is a row of its own, not another gain.   [S-10 … S-13, V-1]
    """
    query: contract.SettlementHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    kinds, sources = (_EVERYTHING, None) if query.source is None else _FILTERS[query.source]
    lot_values = {
        market_id: (market.parameters.tick_value_atoms, market.parameters.tick_price)
        for market_id, market in call.state.markets.items()
        if market.parameters.type == MarketType.PERP
    }
    subaccount = call.subaccount()
    rows, total = await read_settlements(
        call.node.history, subaccount.subaccount_id, page, lot_values, kinds=kinds, sources=sources
    )
    owner = subaccount.user.user_id, subaccount.subaccount_id
    return paged([_settlement(call.codec, row, *owner) for row in rows], page, total)


async def liquidation_history(call: Call) -> Answer:
    """Every step of the subaccount's liquidations, newest first.   [L-10]"""
    query: LiquidationHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    rows, total = await read_liquidations(call.node.history, call.key.subaccount_id, page)
    return paged([_step(call.codec, row) for row in rows], page, total)


async def get_insurance(call: Call) -> InsuranceState:
    """The insurance and backstop funds, lenders' holes and recovery ratios.   [L-4, L-5, L-7]"""
    state, codec = call.state, call.codec
    key = INSURANCE_UNSETTLED << ASSET_BITS | state.usdc
    return InsuranceState(
        insurance_fund=_fund(codec, INSURANCE_FUND),
        insurance_unsettled=codec.amount(state.usdc, -state.balances.get(key, 0)) if state.usdc else "0",
        backstop_fund=_fund(codec, BACKSTOP_FUND),
        holes=[_hole(call, asset_id) for asset_id in sorted(state.pools)],
        liquidating=len(state.liquidations),
    )


def _position(call: Call, row: PositionRow) -> contract.PositionHistoryRow:
    """An open position is shown from the state: ticks and funding change it between its own changes."""
    state, view, mark = call.state, row.view, row.mark
    subaccount = state.subaccounts[view.subaccount_id]
    live = subaccount.positions.get(view.market_id)
    if row.closed_at_us is None and live is not None and live.position_id == view.position_id:
        view, mark = live.view(), live.market.mark
    parameters, numbers = state.markets[view.market_id].parameters, call.codec.market(view.market_id)
    now = position_row(call.codec, view, mark, subaccount.user.user_id)
    is_closed = row.closed_at_us is not None
    entry, pnl, unrealized = now.entry_price, now.pnl_realized, now.pnl_unrealized
    if is_closed and view.closed_lots:
        # Its whole entry follows from what it was closed for and what trading gained.
        entered = row.closed_atoms + (-view.traded_atoms if row.is_long else view.traded_atoms)
        entry = price_in_usd(price_of(parameters, entered, view.closed_lots))
        pnl, unrealized = numbers.quote(view.traded_atoms + view.funding_atoms - view.fee_atoms), "0"
    closing: str | UnsetType = UNSET
    if view.closed_lots and row.closed_atoms:
        closing = price_in_usd(price_of(parameters, row.closed_atoms, row.view.closed_lots))
    return contract.PositionHistoryRow(
        id=str(view.position_id),
        symbol=numbers.symbol,
        net_quantity=now.net_quantity,
        net_exposure_quantity="0" if is_closed else now.net_exposure_quantity,
        net_exposure_notional="0" if is_closed else now.net_exposure_notional,
        net_cost=now.net_cost,
        mark_price=now.mark_price,
        entry_price=entry,
        cumulative_pnl_realized=pnl,
        unrealized_pnl=unrealized,
        funding_quantity=now.cumulative_funding_payment,
        interest="0",
        liquidated=numbers.quantity(row.liquidated_lots),
        imf=now.imf,
        fees=numbers.quote(view.fee_atoms),
        state="Closed" if is_closed else "Open",
        closed_volume=numbers.quantity(view.closed_lots),
        liquidation_fees=numbers.quote(row.liquidation_fee_atoms),
        closing_price=closing,
        account_leverage=rate(subaccount.leverage_limit),
        opened_at=naive_iso(view.opened_at_us),
        closed_at=UNSET if row.closed_at_us is None else naive_iso(row.closed_at_us),
    )


def _payment(codec: Codec, row: FundingPaymentRow, user_id: int, subaccount_id: int) -> contract.FundingPayment:
    numbers, parameters = codec.market(row.market_id), codec.state.markets[row.market_id].parameters
    atoms = payment(row.rate, margin.lot_value(parameters, row.mark), row.lots)
    return contract.FundingPayment(
        user_id=user_id,
        symbol=numbers.symbol,
        quantity=numbers.quote(atoms),
        interval_end_timestamp=naive_iso(row.interval_end_us),
        funding_rate=rate(row.rate),
        subaccount_id=subaccount_id if subaccount_id < 1 << 16 else UNSET,
    )


def _settlement(codec: Codec, row: SettlementRow, user_id: int, subaccount_id: int) -> contract.Settlement:
    return contract.Settlement(
        quantity=codec.amount(codec.state.usdc, row.atoms),
        source=_SOURCES.get(row.source, "SystemLiabilityTransfer"),
        timestamp=naive_iso(row.at_us),
        user_id=user_id,
        subaccount_id=subaccount_id if subaccount_id < 1 << 31 else UNSET,
        position_id=str(row.position_id) if row.position_id else UNSET,
        engine_sequence=row.command_seq,
    )


def _step(codec: Codec, row: LiquidationRow) -> LiquidationStep:
    step, state = row.step, codec.state
    symbol: str | UnsetType = UNSET
    quantity: str | UnsetType = UNSET
    if step.market_id:
        numbers = codec.market(step.market_id)
        symbol, quantity = numbers.symbol, numbers.quantity(step.quantity)
    elif step.asset_id:
        symbol, quantity = codec.symbol(step.asset_id), codec.amount(step.asset_id, step.quantity)
    return LiquidationStep(
        stage=step.stage,
        timestamp=naive_iso(row.at_us),
        engine_sequence=row.command_seq,
        net_equity=usd(step.equity_usd),
        maintenance_margin=usd(step.maintenance_usd),
        net_exposure_notional=usd(step.notional_usd),
        net_equity_after=usd(step.equity_after_usd),
        maintenance_margin_after=usd(step.maintenance_after_usd),
        fee=codec.amount(state.usdc, step.fee_atoms),
        symbol=symbol,
        quantity=quantity if step.quantity else UNSET,
        price=price_in_usd(step.price) if step.price else UNSET,
        mark_price=price_in_usd(step.mark) if step.mark else UNSET,
    )


def _fund(codec: Codec, account: int) -> dict[str, str]:
    state = codec.state
    held = {asset_id: -state.balances.get(account << ASSET_BITS | asset_id, 0) for asset_id in state.assets}
    return {codec.symbol(asset_id): codec.amount(asset_id, atoms) for asset_id, atoms in held.items() if atoms}


def _hole(call: Call, asset_id: int) -> PoolHole:
    state = call.state
    hole = state.holes.get(asset_id, 0)
    ratio = 10**ANNUAL_DECIMALS
    if hole:
        lent = lending.totals(state, state.pools[asset_id], call.node.now_us()).lent
        worth = _usdc(state, asset_id, lent)
        ratio = mul_div_down(worth, ratio, worth + hole)
    return PoolHole(
        call.codec.symbol(asset_id), call.codec.amount(state.usdc, hole), format_decimal(ratio, ANNUAL_DECIMALS)
    )


def _usdc(state: State, asset_id: int, atoms: int) -> int:
    """What atoms of an asset are worth at mark in USDC atoms, rounded down."""
    price, unit, *_rest = margin.line(state, asset_id)
    usdc_price, usdc_unit, *_more = margin.line(state, state.usdc)
    return atoms * price * usdc_unit // (unit * usdc_price)


def _perpetuals(call: Call, symbol: str | None) -> list[int] | None:
    """The market that a history is asked for; None for all."""
    return None if symbol is None else [market_of(symbol, call.state).market_id]


ROUTES = [
    Route(
        method="GET",
        path="/wapi/v1/history/position",
        handler=position_history,
        summary="Positions, open and closed, newest first",
        tag="History",
        instruction="positionHistoryQueryAll",
        # ccxt has no instruction for it.
        other_instructions=("",),
        query=contract.PositionHistoryQuery,
        answer=list[contract.PositionHistoryRow],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/funding",
        handler=funding_history,
        summary="Funding payments, newest first",
        tag="History",
        instruction="fundingHistoryQueryAll",
        query=contract.FundingHistoryQuery,
        answer=list[contract.FundingPayment],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/settlement",
        handler=settlement_history,
        summary="Settlements: ticks, funding, fees, newest first",
        tag="History",
        instruction="settlementHistoryQueryAll",
        query=contract.SettlementHistoryQuery,
        answer=list[contract.Settlement],
        paged=True,
    ),
    Route(
        method="GET",
        path="/satchel/v1/history/liquidations",
        handler=liquidation_history,
        summary="Steps of the subaccount's liquidations, newest first",
        tag="Liquidation",
        instruction="liquidationHistoryQueryAll",
        query=LiquidationHistoryQuery,
        answer=list[LiquidationStep],
        paged=True,
    ),
    Route(
        method="GET",
        path="/satchel/v1/insurance",
        handler=get_insurance,
        summary="Insurance and backstop funds, lenders' holes and recovery ratios",
        tag="Liquidation",
        answer=InsuranceState,
    ),
]
