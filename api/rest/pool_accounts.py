"""What a subaccount does in liquidity pools and has there: swaps, liquidity, leveraged longs.   [X-1 … X-11, W-7]"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from api.codec import naive_iso
from api.contract import Decimal, NaiveTime, NoQuery, OrderId, Query, Request, UInt64, Wire
from api.errors import not_found, refusal
from api.liquidity_pools import dec, pool_text
from api.requests import amount_of, asset_of, order_id_of, pool_of
from api.rest.route import Answer, Call, Route, page_of, paged
from engine import pool_positions, pools
from engine.events import LiquidityMoved, LongClosed, LongOpened, PoolSwapped
from engine.parameters import DEC
from engine.rejections import Rejection
from engine.state import AmmHolder, AmmPool, AmmPosition
from ledger.amounts import mul_div_down

BasisPoints = Annotated[int, Meta(ge=0, le=10_000)]


class SwapPayload(Request):
    """Through one pool, or two where neither symbol is the native asset's.   [X-1, X-2]"""

    from_symbol: str
    to_symbol: str
    quantity: Decimal
    """What is paid."""
    min_received: Decimal | None | UnsetType = UNSET


class AddLiquidityPayload(Request):
    """Both sides, or one of them.   [X-3]"""

    symbol: str
    """The pool's external asset."""
    native_quantity: Decimal | None | UnsetType = UNSET
    external_quantity: Decimal | None | UnsetType = UNSET
    min_units: Decimal | None | UnsetType = UNSET


class RemoveLiquidityPayload(Request):
    """By units, or by basis points of all that are held: one of the two.   [X-4]"""

    symbol: str
    units: Decimal | None | UnsetType = UNSET
    basis_points: BasisPoints | None | UnsetType = UNSET
    min_native: Decimal | None | UnsetType = UNSET
    min_external: Decimal | None | UnsetType = UNSET


class OpenPositionPayload(Request):
    """One of the two symbols is the native asset's. Leverage from 1 to 18, with up to 18 decimals.   [X-5]"""

    collateral_symbol: str
    custody_symbol: str
    quantity: Decimal
    """Of the collateral."""
    leverage: Decimal
    min_custody: Decimal | None | UnsetType = UNSET


class ClosePositionPayload(Request):
    position_id: OrderId
    min_received: Decimal | None | UnsetType = UNSET
    """Of the collateral's asset."""


class PositionsQuery(Query):
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None


class CloseQuoteQuery(Query):
    position_id: str


class PoolSwapAnswer(Wire):
    from_symbol: str
    to_symbol: str
    quantity: Decimal
    received: Decimal
    fee: Decimal
    """Of the last pool, in the asset received; `GET /satchel/v1/history/pools/swaps` has each pool's."""


class LiquidityAnswer(Wire):
    """Quantities are below zero when they were taken out."""

    symbol: str
    native_quantity: Decimal
    external_quantity: Decimal
    units: Decimal
    units_after: Decimal


class PoolPositionOpened(Wire):
    position_id: str
    symbol: str
    collateral_symbol: str
    custody_symbol: str
    collateral: Decimal
    leverage: Decimal
    owed: Decimal
    custody: Decimal
    fee: Decimal
    """In custody's asset, of the swap into it."""
    health: Decimal
    """Measured on the pool before the open."""
    opened_at: NaiveTime


class PoolPositionClosed(Wire):
    """How a position ended; amounts of the collateral's asset but for custody's.   [X-10 … X-12]"""

    position_id: str
    symbol: str
    collateral_symbol: str
    custody_symbol: str
    custody: Decimal
    """What was swapped back."""
    repaid: Decimal
    """What that brought."""
    fee: Decimal
    owed: Decimal
    unpaid: Decimal
    returned: Decimal
    """To the owner."""
    fund: Decimal
    """To the pool's fund, of what was left: at a forced close.   [X-11]"""
    bad_debt: Decimal
    """What debt and interest lacked."""
    covered: Decimal
    """How much of it the fund paid; providers bear the rest.   [X-12]"""
    forced: bool
    interest_paid: Decimal
    interest_paid_custody: Decimal


class PoolPosition(Wire):
    """A leveraged long now; amounts of the collateral's asset but for custody's.   [X-5 … X-10]"""

    position_id: str
    symbol: str
    collateral_symbol: str
    custody_symbol: str
    collateral: Decimal
    leverage: Decimal
    owed: Decimal
    """Interest left out."""
    unpaid: Decimal
    """Interest due and not paid."""
    custody: Decimal
    health: Decimal
    """What custody would bring over what is owed, now.   [X-6]"""
    measured_health: Decimal
    """The same at the open or the last epoch."""
    safety_factor: Decimal
    liquidation_ratio: Decimal
    """Safety factor over health, rounded up: closed by force at an epoch that finds 1 or more."""
    interest_rate: Decimal
    """Of the pool, per epoch."""
    interest_paid: Decimal
    interest_paid_custody: Decimal
    """The same as it was taken out of custody, in its asset."""
    opened_at: NaiveTime
    estimated_proceeds: Decimal | UnsetType = UNSET
    """What a close would return now, interest of the running epoch paid; left out while it would be refused."""
    estimated_bad_debt: Decimal | UnsetType = UNSET
    estimated_pnl: Decimal | UnsetType = UNSET
    """`estimatedProceeds` less `collateral`."""
    close_refusal: str | UnsetType = UNSET
    """Why a close would be refused now."""


class PoolCloseQuote(Wire):
    """What a close would bring now, in the collateral's asset.   [X-10]"""

    position_id: str
    symbol: str
    collateral_symbol: str
    interest: Decimal
    """Of the running epoch and before, what custody does not pay of it."""
    repaid: Decimal
    """What custody would bring."""
    fee: Decimal
    owed: Decimal
    returned: Decimal
    bad_debt: Decimal


class PoolLiquidity(Wire):
    """What a provider has in a pool.   [X-3, X-4]"""

    symbol: str
    native_symbol: str
    units: Decimal
    share: Decimal
    """Of all units, rounded down at 1e-18."""
    native_quantity: Decimal
    """What the units are of the pool's depths now, rounded down; earnings are in it."""
    external_quantity: Decimal
    native_added: Decimal
    """Brought less taken back."""
    external_added: Decimal
    native_fees: Decimal
    """What the units had a part in of swap fees, since they were brought; so the next three."""
    external_fees: Decimal
    native_interest: Decimal
    external_interest: Decimal
    provides_since: NaiveTime


async def swap_assets(call: Call) -> PoolSwapAnswer:
    swapped: PoolSwapped = (await call.perform("poolSwapExecute")).reply
    body: SwapPayload = call.body
    text = pool_text(call.state, swapped.pool_id)
    gets_native = not swapped.is_native_paid
    paid_id = asset_of(body.from_symbol, call.state)
    return PoolSwapAnswer(
        body.from_symbol,
        body.to_symbol,
        call.codec.amount(paid_id, amount_of(body.quantity, paid_id, call.state, "quantity")),
        text.amount(gets_native, swapped.received_atoms),
        text.amount(gets_native, swapped.fee_atoms),
    )


async def add_liquidity(call: Call) -> LiquidityAnswer:
    return _moved(call, (await call.perform("poolLiquidityAdd")).reply)


async def remove_liquidity(call: Call) -> LiquidityAnswer:
    return _moved(call, (await call.perform("poolLiquidityRemove")).reply)


async def get_pool_liquidity(call: Call) -> list[PoolLiquidity]:
    """The subaccount's part of every pool that it provides, with what that earned so far."""
    own = call.subaccount().subaccount_id
    found = ((pool, pool.holders.get(own)) for _pool_id, pool in sorted(call.state.amm_pools.items()))
    return [_provided(call, pool, holder) for pool, holder in found if holder is not None]


async def open_position(call: Call) -> PoolPositionOpened:
    opened: LongOpened = (await call.perform("poolPositionOpen")).reply
    return opened_row(call, opened)


async def close_position(call: Call) -> PoolPositionClosed:
    """The position as a whole: interest, debt, and what is left is paid out."""
    closed: LongClosed = (await call.perform("poolPositionClose")).reply
    return closed_row(call, closed)


async def get_pool_positions(call: Call) -> Answer:
    """The subaccount's open positions, oldest first, with what a close would bring now."""
    query: PositionsQuery = call.query
    page, own = page_of(query.limit, query.offset), call.subaccount().subaccount_id
    wanted = None if query.symbol is None else pool_of(query.symbol, call.state).pool_id
    held = [
        position
        for position in call.state.amm_positions.values()
        if position.subaccount_id == own and wanted in (None, position.pool_id)
    ]
    shown = held[page.offset : page.offset + page.limit]
    return paged([_position(call, position) for position in shown], page, len(held))


async def quote_close(call: Call) -> PoolCloseQuote:
    """Refused as the close would be."""
    query: CloseQuoteQuery = call.query
    position = call.state.amm_positions.get(order_id_of(query.position_id))
    if position is None or position.subaccount_id != call.key.subaccount_id:
        raise not_found()
    text, is_native = pool_text(call.state, position.pool_id), position.is_native_collateral
    quote = pool_positions.quote_close(call.state, position, call.node.now_us())
    return PoolCloseQuote(
        position_id=str(position.position_id),
        symbol=text.symbol,
        collateral_symbol=text.symbol_of(is_native),
        interest=text.amount(is_native, quote.interest),
        repaid=text.amount(is_native, quote.repaid),
        fee=text.amount(is_native, quote.fee),
        owed=text.amount(is_native, position.owed),
        returned=text.amount(is_native, quote.returned),
        bad_debt=text.amount(is_native, quote.bad_debt),
    )


def opened_row(call: Call, opened: LongOpened) -> PoolPositionOpened:
    """A position as it was opened."""
    long = opened.long
    text, is_native = pool_text(call.state, long.pool_id), long.is_native_collateral
    return PoolPositionOpened(
        position_id=str(long.position_id),
        symbol=text.symbol,
        collateral_symbol=text.symbol_of(is_native),
        custody_symbol=text.symbol_of(not is_native),
        collateral=text.amount(is_native, long.collateral_atoms),
        leverage=dec(long.leverage),
        owed=text.amount(is_native, long.owed_atoms),
        custody=text.amount(not is_native, long.custody_atoms),
        fee=text.amount(not is_native, opened.fee_atoms),
        health=dec(long.health),
        opened_at=naive_iso(long.opened_at_us),
    )


def closed_row(call: Call, closed: LongClosed) -> PoolPositionClosed:
    """How a position ended."""
    long = closed.long
    text, is_native = pool_text(call.state, long.pool_id), long.is_native_collateral
    return PoolPositionClosed(
        position_id=str(long.position_id),
        symbol=text.symbol,
        collateral_symbol=text.symbol_of(is_native),
        custody_symbol=text.symbol_of(not is_native),
        custody=text.amount(not is_native, long.custody_atoms),
        repaid=text.amount(is_native, closed.repaid_atoms),
        fee=text.amount(is_native, closed.fee_atoms),
        owed=text.amount(is_native, long.owed_atoms),
        unpaid=text.amount(is_native, long.unpaid_atoms),
        returned=text.amount(is_native, closed.returned_atoms),
        fund=text.amount(is_native, closed.fund_atoms),
        bad_debt=text.amount(is_native, closed.bad_debt_atoms),
        covered=text.amount(is_native, closed.covered_atoms),
        forced=closed.forced,
        interest_paid=text.amount(is_native, long.paid_atoms),
        interest_paid_custody=text.amount(not is_native, long.paid_custody_atoms),
    )


def _moved(call: Call, moved: LiquidityMoved) -> LiquidityAnswer:
    text = pool_text(call.state, moved.pool_id)
    return LiquidityAnswer(
        text.symbol,
        text.native(moved.native_atoms),
        text.external(moved.external_atoms),
        text.units(moved.units),
        text.units(moved.units_after),
    )


def _provided(call: Call, pool: AmmPool, holder: AmmHolder) -> PoolLiquidity:
    text = pool_text(call.state, pool.parameters.pool_id)
    native, external = pools.share(pool, holder.units)
    native_fees, external_fees, native_interest, external_interest = pools.earned(pool, holder)
    return PoolLiquidity(
        symbol=text.symbol,
        native_symbol=text.native_symbol,
        units=text.units(holder.units),
        share=dec(mul_div_down(holder.units, DEC, pool.units)),
        native_quantity=text.native(native),
        external_quantity=text.external(external),
        native_added=text.native(holder.native_added),
        external_added=text.external(holder.external_added),
        native_fees=text.native(native_fees),
        external_fees=text.external(external_fees),
        native_interest=text.native(native_interest),
        external_interest=text.external(external_interest),
        provides_since=naive_iso(holder.since_us),
    )


def _position(call: Call, position: AmmPosition) -> PoolPosition:
    pool, is_native = call.state.amm_pools[position.pool_id], position.is_native_collateral
    text = pool_text(call.state, position.pool_id)
    row = PoolPosition(
        position_id=str(position.position_id),
        symbol=text.symbol,
        collateral_symbol=text.symbol_of(is_native),
        custody_symbol=text.symbol_of(not is_native),
        collateral=text.amount(is_native, position.collateral),
        leverage=dec(position.leverage),
        owed=text.amount(is_native, position.owed),
        unpaid=text.amount(is_native, position.unpaid),
        custody=text.amount(not is_native, position.custody),
        health=dec(pool_positions.health(pool, position)),
        measured_health=dec(position.health),
        safety_factor=dec(pool.parameters.safety_factor),
        liquidation_ratio=dec(pool_positions.liquidation_ratio(pool, position)),
        interest_rate=dec(pool.rate),
        interest_paid=text.amount(is_native, position.paid),
        interest_paid_custody=text.amount(not is_native, position.paid_custody),
        opened_at=naive_iso(position.opened_at_us),
    )
    try:
        quote = pool_positions.quote_close(call.state, position, call.node.now_us())
    except Rejection as refused:
        row.close_refusal = refusal(refused, call.state).message
        return row
    row.estimated_proceeds = text.amount(is_native, quote.returned)
    row.estimated_bad_debt = text.amount(is_native, quote.bad_debt)
    row.estimated_pnl = text.amount(is_native, quote.returned - position.collateral)
    return row


def _route(method: str, name: str, handler: Any, summary: str, instruction: str, answer: Any, **more: Any) -> Route:
    return Route(
        method=method,
        path=f"/satchel/v1/pools/{name}",
        handler=handler,
        summary=summary,
        tag="Pools",
        instruction=instruction,
        answer=answer,
        changes=method != "GET",
        **({"query": NoQuery} | more),
    )


ROUTES = [
    _route("POST", "swap", swap_assets, "Swap", "poolSwapExecute", PoolSwapAnswer, body=SwapPayload),
    _route(
        "GET", "liquidity", get_pool_liquidity, "The subaccount's part of pools", "poolLiquidityQueryAll",
        list[PoolLiquidity],
    ),
    _route(
        "POST", "liquidity", add_liquidity, "Add liquidity", "poolLiquidityAdd", LiquidityAnswer,
        body=AddLiquidityPayload,
    ),
    _route(
        "DELETE", "liquidity", remove_liquidity, "Remove liquidity", "poolLiquidityRemove", LiquidityAnswer,
        body=RemoveLiquidityPayload,
    ),
    _route(
        "GET", "positions", get_pool_positions, "The subaccount's leveraged longs", "poolPositionQueryAll",
        list[PoolPosition], query=PositionsQuery, paged=True,
    ),
    _route(
        "POST", "positions", open_position, "Open a leveraged long", "poolPositionOpen", PoolPositionOpened,
        body=OpenPositionPayload,
    ),
    _route(
        "DELETE", "positions", close_position, "Close a leveraged long", "poolPositionClose", PoolPositionClosed,
        body=ClosePositionPayload, statuses=(404,),
    ),
    _route(
        "GET", "quote/close", quote_close, "What closing a leveraged long would bring now", "poolCloseQuery",
        PoolCloseQuote, query=CloseQuoteQuery, statuses=(404,),
    ),
]
