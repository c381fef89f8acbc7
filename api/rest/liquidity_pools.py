"""Liquidity pools as they stand, and what a swap, liquidity or a leveraged long would bring now.   [X-1 … X-9, W-7]"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from api.contract import Decimal, Int64, NoQuery, Query, Wire
from api.liquidity_pools import PoolText, dec, pool_text
from api.requests import amount_of, asset_of, leverage_of, pool_of, sides_of
from api.rest.route import Call, Route
from engine import pool_positions, pools
from engine.formulas.pools import NO_SWAP, SELL_NATIVE, Units
from engine.parameters import DEC, PoolParameters, PoolState
from engine.pools import Hop
from engine.state import AmmPool
from ledger.amounts import format_decimal, mul_div_down, mul_div_up

PoolStateName = Literal["Open", "NoOpens", "LeaveOnly", "Halted"]

_STATES: dict[PoolState, PoolStateName] = {
    PoolState.OPEN: "Open",
    PoolState.NO_OPENS: "NoOpens",
    PoolState.LEAVE_ONLY: "LeaveOnly",
    PoolState.HALTED: "Halted",
}
_SECOND_DECIMALS, _RATE_DECIMALS = 6, 9


class PoolQuery(Query):
    symbol: str
    """The pool's external asset."""


class SwapQuoteQuery(Query):
    from_symbol: str
    to_symbol: str
    quantity: Decimal


class AddQuoteQuery(Query):
    symbol: str
    native_quantity: Decimal | None = None
    external_quantity: Decimal | None = None


class RemoveQuoteQuery(Query):
    symbol: str
    units: Decimal


class OpenQuoteQuery(Query):
    collateral_symbol: str
    custody_symbol: str
    quantity: Decimal
    leverage: Decimal


class PoolTerms(Wire):
    """What an operator has set; rates, shares and healths as fractions, times in seconds."""

    fee_rate: Decimal
    running_rate: Decimal
    is_margined: bool
    takes_native_collateral: bool
    leverage_max: Decimal
    rate_min: Decimal
    """Of the interest rate per epoch, as the next four.   [X-8]"""
    rate_max: Decimal
    rate_increase: Decimal
    rate_decrease: Decimal
    gain_factor: Decimal
    epoch: Decimal
    open_threshold: Decimal
    removal_threshold: Decimal
    safety_factor: Decimal
    interest_fund_share: Decimal
    close_fund_share: Decimal
    pays_each_epoch: bool
    max_positions: int
    lent_max: Decimal
    """Of a side's depth; 0: no limit.   [X-13]"""
    covers_losses: bool
    price_move_max: Decimal
    """How far the price may be from its mean when a position begins or ends, at most: less where the highest leverage
    bears less. 0: no limit."""
    price_mean: Decimal
    min_native: Decimal
    """What the first provider must bring at least."""
    max_native: Decimal
    """What a side may hold, owe and keep together."""
    max_external: Decimal
    collateral_weight: Decimal
    native_fee_rate: Decimal | UnsetType = UNSET
    """Of swaps that pay the native asset, in a pool that does not lend to positions."""
    external_fee_rate: Decimal | UnsetType = UNSET


class PoolSide(Wire):
    """One asset of a pool. `depth`, which prices are made of, is `balance` + `owed`.   [X-1, X-14]"""

    symbol: str
    balance: Decimal
    owed: Decimal
    """By positions, unpaid interest left out."""
    custody: Decimal
    """Kept for positions."""
    depth: Decimal
    fund: Decimal
    """What the pool's fund has.   [X-12]"""


class LiquidityPool(Wire):
    """A pool now. Units have the native asset's decimals.   [X]"""

    symbol: str
    native_symbol: str
    state: PoolStateName
    native: PoolSide
    external: PoolSide
    units: Decimal
    price: Decimal
    """External per whole native unit, without fee and slippage; 0 while a side is empty."""
    inverse_price: Decimal
    """Native per whole external unit."""
    mean_price: Decimal
    """As `price`, over about `parameters.priceMean` seconds: positions begin and end only near it."""
    health: Decimal
    """As last measured, at an open or an epoch.   [X-7]"""
    interest_rate: Decimal
    """Per epoch.   [X-8]"""
    positions: int
    providers: int
    parameters: PoolTerms
    next_epoch_at: Int64 | UnsetType = UNSET
    """In ms; left out while no epoch is due."""


class SwapHop(Wire):
    """A swap through one pool; `priceImpact` is how much worse than its price before, fee left out.   [X-1]"""

    symbol: str
    paid_symbol: str
    paid: Decimal
    received_symbol: str
    received: Decimal
    fee: Decimal
    """In the asset received; it stays in the pool."""
    price_impact: Decimal


class SwapQuote(Wire):
    """What a swap would bring now.   [X-1, X-2]"""

    from_symbol: str
    to_symbol: str
    quantity: Decimal
    received: Decimal
    price: Decimal
    """Received per whole unit paid, rounded down at 1e-18."""
    price_impact: Decimal
    """Of all hops together, rounded up."""
    hops: list[SwapHop]


class AddQuote(Wire):
    """Units that this liquidity would bring now, and which part of all units they would be.   [X-3]"""

    symbol: str
    native_quantity: Decimal
    external_quantity: Decimal
    units: Decimal
    share: Decimal
    """Rounded down at 1e-18."""
    swapped_symbol: str | UnsetType = UNSET
    """The asset of which too much is brought: so much of it counts as swapped first."""
    swapped: Decimal | UnsetType = UNSET


class RemoveQuote(Wire):
    """What these units would bring now.   [X-4]"""

    symbol: str
    units: Decimal
    native_quantity: Decimal
    external_quantity: Decimal


class OpenQuote(Wire):
    """What a leveraged long would be now.   [X-5 … X-7]"""

    symbol: str
    collateral_symbol: str
    custody_symbol: str
    quantity: Decimal
    leverage: Decimal
    size: Decimal
    """Collateral and loan, which are swapped into custody."""
    owed: Decimal
    custody: Decimal
    fee: Decimal
    """In custody's asset, of that swap."""
    price_impact: Decimal
    health: Decimal
    """Of the position on the pool after the open; closed by force at the safety factor."""
    safety_factor: Decimal
    liquidation_ratio: Decimal
    """Safety factor over health, rounded up: closed by force at 1."""
    pool_health: Decimal
    """After the open."""
    minimum_interest: Decimal
    """What an epoch costs at least, in the collateral's asset."""
    interest: Decimal
    """What an epoch costs at the pool's rate of now, in the collateral's asset, rounded up."""


async def get_pools(call: Call) -> list[LiquidityPool]:
    """All pools, in the order of their external assets."""
    return [_pool(call, call.state.amm_pools[pool_id]) for pool_id in sorted(call.state.amm_pools)]


async def get_pool(call: Call) -> LiquidityPool:
    query: PoolQuery = call.query
    return _pool(call, call.state.amm_pools[pool_of(query.symbol, call.state).pool_id])


async def quote_swap(call: Call) -> SwapQuote:
    """Refused as the swap would be, but for what its payer has. Token to token goes through the native asset."""
    query: SwapQuoteQuery = call.query
    state, codec = call.state, call.codec
    from_id, to_id = asset_of(query.from_symbol, state), asset_of(query.to_symbol, state)
    atoms = amount_of(query.quantity, from_id, state, "quantity")
    quote = pools.quote_swap(state, from_id, to_id, atoms)
    kept = DEC
    for hop in quote.hops:
        kept = mul_div_down(kept, DEC - hop.impact, DEC)
    scale = 10 ** (state.assets[from_id].decimals + 18)
    return SwapQuote(
        from_symbol=query.from_symbol,
        to_symbol=query.to_symbol,
        quantity=codec.amount(from_id, atoms),
        received=codec.amount(to_id, quote.received),
        price=dec(quote.received * scale // (atoms * 10 ** state.assets[to_id].decimals)),
        price_impact=dec(DEC - kept),
        hops=[_hop(pool_text(state, hop.pool_id), hop) for hop in quote.hops],
    )


async def quote_add(call: Call) -> AddQuote:
    """Of what is not in the pool's ratio a part counts as swapped first, with the fee of that."""
    query: AddQuoteQuery = call.query
    parameters = pool_of(query.symbol, call.state)
    native, external = sides_of(query.native_quantity, query.external_quantity, parameters, call.state)
    units = pools.quote_add(call.state, parameters.pool_id, native, external)
    text = pool_text(call.state, parameters.pool_id)
    row = AddQuote(
        symbol=text.symbol,
        native_quantity=text.native(native),
        external_quantity=text.external(external),
        units=text.units(units.minted),
        share=dec(mul_div_down(units.minted, DEC, units.total)),
    )
    return _with_swap(row, units, text)


async def quote_remove(call: Call) -> RemoveQuote:
    query: RemoveQuoteQuery = call.query
    parameters = pool_of(query.symbol, call.state)
    text = pool_text(call.state, parameters.pool_id)
    units = amount_of(query.units, parameters.native_asset_id, call.state, "units")
    taken = pools.quote_removal(call.state, parameters.pool_id, units)
    return RemoveQuote(text.symbol, text.units(units), text.native(taken.native), text.external(taken.external))


async def quote_open(call: Call) -> OpenQuote:
    """Refused as the open would be, but for what its owner has."""
    query: OpenQuoteQuery = call.query
    state = call.state
    collateral, custody = asset_of(query.collateral_symbol, state), asset_of(query.custody_symbol, state)
    atoms, leverage = amount_of(query.quantity, collateral, state, "quantity"), leverage_of(query.leverage)
    quote = pool_positions.quote_open(state, collateral, custody, atoms, leverage, call.node.now_us())
    pool = state.amm_pools[custody] if custody in state.amm_pools else state.amm_pools[collateral]
    amount = call.codec.amount
    return OpenQuote(
        symbol=call.codec.symbol(pool.parameters.pool_id),
        collateral_symbol=query.collateral_symbol,
        custody_symbol=query.custody_symbol,
        quantity=amount(collateral, atoms),
        leverage=dec(leverage),
        size=amount(collateral, quote.size),
        owed=amount(collateral, quote.owed),
        custody=amount(custody, quote.custody),
        fee=amount(custody, quote.fee),
        price_impact=dec(quote.impact),
        health=dec(quote.health),
        safety_factor=dec(pool.parameters.safety_factor),
        liquidation_ratio=dec(mul_div_up(pool.parameters.safety_factor, DEC, quote.health)),
        pool_health=dec(quote.pool_health),
        minimum_interest=amount(collateral, quote.minimum_interest),
        interest=amount(collateral, mul_div_up(pool.rate, quote.owed, DEC)),
    )


def _pool(call: Call, pool: AmmPool) -> LiquidityPool:
    parameters, now_us = pool.parameters, call.node.now_us()
    text = pool_text(call.state, parameters.pool_id)
    depths = pools.depths(pool)
    native = (pool.native_balance, pool.native_owed, pool.native_custody, depths[0], pool.native_fund)
    external = (pool.external_balance, pool.external_owed, pool.external_custody, depths[1], pool.external_fund)
    return LiquidityPool(
        symbol=text.symbol,
        native_symbol=text.native_symbol,
        state=_STATES[parameters.state],
        native=PoolSide(text.native_symbol, *map(text.native, native)),
        external=PoolSide(text.symbol, *map(text.external, external)),
        units=text.units(pool.units),
        price=text.price(*depths),
        inverse_price=text.inverse_price(*depths),
        mean_price=text.scaled_price(pools.mean_price(pool, now_us)),
        health=dec(pool.health),
        interest_rate=dec(pool.rate),
        positions=len(pool.positions),
        providers=len(pool.holders),
        parameters=_terms(parameters, text),
        next_epoch_at=pool.next_epoch_us // 1_000 if pool.next_epoch_us else UNSET,
    )


def _terms(parameters: PoolParameters, text: PoolText) -> PoolTerms:
    own_native, own_external = parameters.native_fee_rate, parameters.external_fee_rate
    return PoolTerms(
        fee_rate=dec(parameters.fee_rate),
        native_fee_rate=dec(own_native) if own_native >= 0 else UNSET,
        external_fee_rate=dec(own_external) if own_external >= 0 else UNSET,
        running_rate=dec(parameters.running_rate),
        is_margined=parameters.is_margined,
        takes_native_collateral=parameters.takes_native_collateral,
        leverage_max=dec(parameters.leverage_max),
        rate_min=dec(parameters.rate_min),
        rate_max=dec(parameters.rate_max),
        rate_increase=dec(parameters.rate_increase),
        rate_decrease=dec(parameters.rate_decrease),
        gain_factor=dec(parameters.gain_factor),
        epoch=format_decimal(parameters.epoch_us, _SECOND_DECIMALS),
        open_threshold=dec(parameters.open_threshold),
        removal_threshold=dec(parameters.removal_threshold),
        safety_factor=dec(parameters.safety_factor),
        interest_fund_share=dec(parameters.interest_fund_share),
        close_fund_share=dec(parameters.close_fund_share),
        pays_each_epoch=parameters.pays_each_epoch,
        max_positions=parameters.max_positions,
        lent_max=dec(parameters.lent_max),
        covers_losses=parameters.covers_losses,
        price_move_max=dec(parameters.price_move_max),
        price_mean=format_decimal(parameters.price_mean_us, _SECOND_DECIMALS),
        min_native=text.native(parameters.min_native),
        max_native=text.native(parameters.max_atoms),
        max_external=text.external(parameters.max_atoms),
        collateral_weight=format_decimal(parameters.collateral_weight, _RATE_DECIMALS),
    )


def _hop(text: PoolText, hop: Hop) -> SwapHop:
    pays_native = hop.is_native_paid
    return SwapHop(
        symbol=text.symbol,
        paid_symbol=text.symbol_of(pays_native),
        paid=text.amount(pays_native, hop.paid),
        received_symbol=text.symbol_of(not pays_native),
        received=text.amount(not pays_native, hop.received),
        fee=text.amount(not pays_native, hop.fee),
        price_impact=dec(hop.impact),
    )


def _with_swap(row: AddQuote, units: Units, text: PoolText) -> AddQuote:
    if units.swap != NO_SWAP:
        is_native = units.swap == SELL_NATIVE
        row.swapped_symbol, row.swapped = text.symbol_of(is_native), text.amount(is_native, units.swapped)
    return row


def _get(name: str, handler: Any, summary: str, answer: Any, query: Any = NoQuery) -> Route:
    path = f"/satchel/v1/pools{name}"
    return Route(method="GET", path=path, handler=handler, summary=summary, tag="Pools", answer=answer, query=query)


ROUTES = [
    _get("", get_pools, "Liquidity pools", list[LiquidityPool]),
    _get("/pool", get_pool, "A liquidity pool", LiquidityPool, PoolQuery),
    _get("/quote/swap", quote_swap, "What a swap would bring now", SwapQuote, SwapQuoteQuery),
    _get("/quote/add", quote_add, "What adding liquidity would bring now", AddQuote, AddQuoteQuery),
    _get("/quote/remove", quote_remove, "What removing liquidity would bring now", RemoveQuote, RemoveQuoteQuery),
    _get("/quote/open", quote_open, "What a leveraged long would be now", OpenQuote, OpenQuoteQuery),
]
