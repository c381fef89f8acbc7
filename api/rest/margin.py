"""What a subaccount is worth and how far it may go: capital, limits, the preview of an order, collateral weights.

Every figure is the engine's own at the exchange's now: interest runs between commands.   [C-1 … C-4, M-4 … M-13]
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api import contract
from api.codec import Codec, price_in_usd, rate, usd
from api.contract import Decimal, Query, Wire
from api.errors import bad_request, refusal
from api.liquidity_pools import pool_text
from api.positions import usd_of
from api.requests import asset_of, market_of, place_order
from api.rest.route import Call, Route
from engine import limits, margin, pools
from engine.commands import PlaceOrder, Side
from engine.formulas.collateral import value_usd, weight_at
from engine.formulas.margin import (
    account_fractions,
    leverage_fraction,
    margin_fraction,
    notional_usd,
)
from engine.parameters import RATE_SCALE, AssetParameters, WeightKind
from engine.pricing import mark_price
from engine.state import AmmPool, State, Subaccount
from ledger.amounts import AmountError, mul_div_down, mul_div_up, parse_decimal

MOST_QUANTITIES = 100


class CollateralCurveQuery(Query):
    symbol: str
    quantity: list[str] = msgspec.field(default_factory=list)
    """Whole tokens; several may be asked for. Without any: 0, then 1, 2, 5, 10 … 500,000,000."""


class WeightPoint(Wire):
    quantity: Decimal
    weight: Decimal


class CollateralCurve(Wire):
    symbol: str
    haircut_function: contract.CollateralFunction
    points: list[WeightPoint]


class MarginFigures(Wire):
    """An account in USD at one moment; a rate is left out where net equity is not above zero.   [M-5, M-6]"""

    net_equity: Decimal
    net_equity_available: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal
    initial_margin_rate: Decimal | UnsetType = UNSET
    maintenance_margin_rate: Decimal | UnsetType = UNSET


class OrderPreview(Wire):
    """The account now, with the order resting, and with the order filled.   [M-13]"""

    before: MarginFigures
    resting: MarginFigures
    filled: MarginFigures
    est_liquidation_price_before: Decimal
    """Of the market's base asset in USD, of a perpetual its own; 0: no price of it alone would do it."""
    est_liquidation_price_filled: Decimal
    refusal: contract.ApiErrorResponse | UnsetType = UNSET
    """Why the order would be refused now; absent when it would be accepted."""


async def get_capital(call: Call) -> contract.MarginAccountSummary:
    """`marginFraction` is absent without exposure; `unsettledEquity` has the liquidity fund's claims in it.

    [C-3, C-4, M-4, M-7, S-13, V-1]
    """
    subaccount = call.subaccount(call.query.subaccount_id)
    return _summary(call.codec, subaccount, call.node.now_us())


async def get_max_borrow(call: Call) -> contract.MaxBorrowQuantity:
    """The most that POST borrowLend with side Borrow would accept now.   [M-11]"""
    symbol: str = call.query.symbol
    asset_id = asset_of(symbol, call.state)
    atoms = limits.max_borrow(call.state, call.subaccount(), asset_id, call.node.now_us())
    return contract.MaxBorrowQuantity(call.codec.amount(asset_id, atoms), symbol)


async def get_max_order(call: Call) -> contract.MaxOrderQuantity:
    """The largest limit order at `price`, or market order without one, that would be accepted now.   [M-11]"""
    query: contract.MaxOrderQuery = call.query
    market = market_of(query.symbol, call.state)
    numbers = call.codec.market(market.market_id)
    flags = {
        "reduceOnly": query.reduce_only,
        "autoBorrow": query.auto_borrow,
        "autoBorrowRepay": query.auto_borrow_repay,
        "autoLendRedeem": query.auto_lend_redeem,
    }
    fields = {name: "true" for name, is_set in flags.items() if is_set}
    fields |= {"symbol": query.symbol, "side": query.side, "quantity": numbers.quantity(market.min_lots)}
    if query.price is None:
        fields["orderType"] = "Market"
    else:
        fields |= {"orderType": "Limit", "price": query.price}
    command = place_order(fields, call.key.subaccount_id, call.state)
    lots = limits.max_order(call.state, command, call.node.now_us())
    return contract.MaxOrderQuantity(
        max_order_quantity=numbers.quantity(lots),
        side=query.side,
        symbol=query.symbol,
        auto_borrow=_said(query.auto_borrow),
        auto_borrow_repay=_said(query.auto_borrow_repay),
        auto_lend_redeem=_said(query.auto_lend_redeem),
        price=UNSET if query.price is None else query.price,
        reduce_only=_said(query.reduce_only),
    )


async def get_max_withdrawal(call: Call) -> contract.MaxWithdrawalQuantity:
    """The most that could be withdrawn now, minimum, maximum and liquidity of the chain aside.   [M-11, M-12, S-5]"""
    query: contract.MaxWithdrawalQuery = call.query
    state, subaccount = call.state, call.subaccount()
    asset_id = asset_of(query.symbol, state)
    may_borrow = query.auto_borrow is True
    if may_borrow and not query.auto_lend_redeem and asset_id in subaccount.lent:
        # Such a withdrawal is refused whatever its size: what is lent is redeemed before anything is borrowed.
        atoms = 0
    else:
        atoms = limits.max_withdrawal(state, subaccount, asset_id, call.node.now_us(), may_borrow)
    atoms -= atoms % state.assets[asset_id].step_atoms
    return contract.MaxWithdrawalQuantity(
        max_withdrawal_quantity=call.codec.amount(asset_id, atoms),
        symbol=query.symbol,
        auto_borrow=_said(query.auto_borrow),
        auto_lend_redeem=_said(query.auto_lend_redeem),
    )


async def get_preview(call: Call) -> OrderPreview:
    """What an order would do to the account; nothing is sequenced.   [M-13]"""
    state, subaccount, at_us = call.state, call.subaccount(), call.node.now_us()
    command = place_order(call.fields[0], subaccount.subaccount_id, state)
    found = limits.preview(state, command, at_us)
    open_loss = margin.open_order_loss(state, subaccount)
    priced = limits.priced_by(state.markets[command.market_id])
    answer = OrderPreview(
        before=_figures(found.before, open_loss),
        resting=_figures(found.resting, open_loss + _own_loss(state, command)),
        filled=_figures(found.filled, open_loss),
        est_liquidation_price_before=price_in_usd(limits.liquidation_price(state, subaccount, priced, at_us)),
        est_liquidation_price_filled=price_in_usd(found.liquidation_price),
    )
    if found.refusal is not None:
        error = refusal(found.refusal, state)
        answer.refusal = contract.ApiErrorResponse(error.code, error.message)
    return answer


async def get_collateral_curve(call: Call) -> CollateralCurve:
    """How much of its value an asset counts for, by quantity.   [C-2]"""
    query: CollateralCurveQuery = call.query
    asset = call.state.assets[asset_of(query.symbol, call.state)]
    if len(query.quantity) > MOST_QUANTITIES:
        raise bad_request(f"{len(query.quantity)} quantities, at most {MOST_QUANTITIES}", "INVALID_RANGE")
    unit = 10**asset.decimals
    usual = [0, *(digit * 10**power * unit for power in range(9) for digit in (1, 2, 5))]
    quantities = [_quantity(text, asset) for text in query.quantity] or usual
    return CollateralCurve(
        symbol=asset.symbol,
        haircut_function=call.codec.collateral_row(asset).haircut_function,
        points=[
            WeightPoint(call.codec.amount(asset.asset_id, atoms), rate(_weight(asset, atoms))) for atoms in quantities
        ],
    )


def _summary(codec: Codec, subaccount: Subaccount, at_us: int) -> contract.MarginAccountSummary:
    state = codec.state
    sums = margin.sums(state, subaccount, at_us)
    lines = margin.holdings(state, subaccount, at_us)
    positions = margin.position_lines(state, subaccount, at_us)
    # What open orders would bring counts for the initial margin only.   [M-1]
    held = sum(usd_of(state, abs(line.position.lots) * line.position.market.mark_lot) for line in positions)
    bare = held + _bare_notional(state, subaccount, lines, at_us)
    imf, _mmf = account_fractions(
        sums.initial, 0, sums.notional, leverage_fraction(subaccount.leverage_limit)
    )
    mmf = account_fractions(0, sums.maintenance, bare, 0)[1]
    fraction = margin_fraction(sums.equity, bare)
    locked = sums.initial + margin.open_order_loss(state, subaccount)
    liabilities = sum(line.liability for line in lines)
    unrealized = sum(line.unrealized for line in positions)
    settling = subaccount.unsettled + margin.claims_atoms(state, subaccount, at_us)
    provided = _provided_pools(state, subaccount)
    assets = sum(_market_value(state, line) + line.uncollected_value for line in lines)
    return contract.MarginAccountSummary(
        assets_value=usd(assets + sum(_units_value(state, pool, subaccount) for pool in provided)),
        borrow_liability=usd(liabilities),
        collateral=[
            *(_row(codec, subaccount, line) for line in lines if line.held or line.lent),
            *(_pool_row(codec, subaccount, pool, at_us) for pool in provided),
        ],
        imf=rate(imf),
        unsettled_equity=usd(_worth_of_usdc(state, settling)),
        liabilities_value=usd(liabilities),
        mmf=rate(mmf),
        net_equity=usd(sums.equity),
        net_equity_available=usd(sums.equity - locked),
        net_equity_locked=usd(locked),
        net_exposure_futures=usd(sum(line.notional for line in positions)),
        pnl_unrealized=usd(_worth_of_usdc(state, unrealized)),
        margin_fraction=UNSET if fraction is None else rate(fraction),
    )


def _worth_of_usdc(state: State, atoms: int) -> int:
    """USDC atoms at mark in USD (1e-8), rounded down: gains, unsettled equity, claims.   [C-3]"""
    if not atoms:
        return 0
    price, _unit, in_usd, *_rest = margin.line(state, state.usdc)
    return atoms * price // in_usd


def _row(codec: Codec, subaccount: Subaccount, line: margin.Holding) -> contract.Collateral:
    asset_id = line.asset_id
    locked = subaccount.reserved.get(asset_id, 0)
    return contract.Collateral(
        symbol=codec.symbol(asset_id),
        asset_mark_price=price_in_usd(line.mark),
        total_quantity=codec.amount(asset_id, line.held + line.lent),
        balance_notional=usd(_market_value(codec.state, line)),
        collateral_weight=rate(line.weight),
        collateral_value=usd(line.value),
        open_order_quantity=codec.amount(asset_id, locked),
        lend_quantity=codec.amount(asset_id, line.lent),
        available_quantity=codec.amount(asset_id, line.held - locked),
    )


def _provided_pools(state: State, subaccount: Subaccount) -> list[AmmPool]:
    """The liquidity pools whose units count as collateral and of which it has some; in liquidation none does.  [C-3]"""
    number = subaccount.subaccount_id
    if not state.has_pool_collateral or number in state.liquidations:
        return []
    return [
        pool
        for _pool_id, pool in sorted(state.amm_pools.items())
        if pool.parameters.collateral_weight and number in pool.holders
    ]


def _pool_row(codec: Codec, subaccount: Subaccount, pool: AmmPool, at_us: int) -> contract.Collateral:
    """Units as a line of their own: at their part of the depths, and what the engine counts of that.   [C-3]"""
    number, parameters = subaccount.subaccount_id, pool.parameters
    text, units = pool_text(codec.state, parameters.pool_id), pool.holders[number].units
    worth = _units_value(codec.state, pool, subaccount)
    counted = margin.pool_collateral_usd(codec.state, number, at_us, only=parameters.pool_id)
    price = mul_div_down(worth, 10 ** (text.native_decimals + 4), units)
    return contract.Collateral(
        symbol=f"{text.symbol}.pool-units",
        asset_mark_price=price_in_usd(price),
        total_quantity=text.units(units),
        balance_notional=usd(worth),
        collateral_weight=rate(parameters.collateral_weight),
        collateral_value=usd(counted),
        open_order_quantity="0",
        lend_quantity="0",
        available_quantity=text.units(units),
    )


def _units_value(state: State, pool: AmmPool, subaccount: Subaccount) -> int:
    """Its units' part of both depths × mark in USD (1e-8), each rounded down.   [X-4, A-3]"""
    native_id, external_id = pool.parameters.native_asset_id, pool.parameters.pool_id
    shares = pools.share(pool, pool.holders[subaccount.subaccount_id].units)
    return sum(
        value_usd(atoms, 10 ** state.assets[asset_id].decimals, mark_price(state, asset_id))
        for asset_id, atoms in zip((native_id, external_id), shares, strict=True)
    )


def _market_value(state: State, line: margin.Holding) -> int:
    """Quantity × mark in USD (1e-8), rounded down as all values are.   [A-3]"""
    return value_usd(line.held + line.lent, 10 ** state.assets[line.asset_id].decimals, line.mark)


def _bare_notional(state: State, subaccount: Subaccount, lines: list[margin.Holding], at_us: int) -> int:
    """Exposures of assets without open orders in USD (1e-8), rounded up; a loss to settle is owed USDC.   [M-1]"""
    owed = {line.asset_id: line.owed - line.held - line.lent for line in lines}
    if subaccount.positions or subaccount.unsettled:
        shortfall = margin.perpetual_sums(state, subaccount, at_us, margin.NO_CHANGES, False, False, None)[1]
        owed[state.usdc] = owed.get(state.usdc, 0) + shortfall
    return sum(
        notional_usd(atoms, mark_price(state, asset_id), 10 ** state.assets[asset_id].decimals)
        for asset_id, atoms in owed.items()
        if atoms > 0
    )


def _figures(sums: margin.Sums, loss: int) -> MarginFigures:
    figures = MarginFigures(
        net_equity=usd(sums.equity),
        net_equity_available=usd(sums.equity - sums.initial - loss),
        initial_margin=usd(sums.initial),
        maintenance_margin=usd(sums.maintenance),
    )
    if sums.equity > 0:
        figures.initial_margin_rate = rate(mul_div_up(sums.initial, RATE_SCALE, sums.equity))
        figures.maintenance_margin_rate = rate(mul_div_up(sums.maintenance, RATE_SCALE, sums.equity))
    return figures


def _own_loss(state: State, command: PlaceOrder) -> int:
    """What the order would lose against the mark while it rests; a market order never rests.   [M-9]"""
    if not command.price_ticks:
        return 0
    return margin.loss_at(state, command.market_id, command.side is Side.BID, command.price_ticks, command.lots)


def _weight(asset: AssetParameters, atoms: int) -> int:
    if asset.weight and asset.weight_kind is WeightKind.INVERSE_SQRT:
        return weight_at(atoms, 10**asset.decimals, asset.weight, asset.weight_base, asset.weight_penalty)
    return asset.weight


def _quantity(text: str, asset: AssetParameters) -> int:
    try:
        atoms = parse_decimal(text, asset.decimals)
    except AmountError as error:
        raise bad_request(f"quantity: {error}", "INVALID_QUANTITY") from None
    if atoms < 0:
        raise bad_request(f"quantity {text[:40]} is below zero", "INVALID_QUANTITY")
    return atoms


def _said(flag: bool | None) -> Any:
    return UNSET if flag is None else flag


ROUTES = [
    Route(
        method="GET",
        path="/api/v1/capital/collateral",
        handler=get_capital,
        summary="Equity, margin and collateral of a subaccount",
        tag="Capital",
        instruction="collateralQuery",
        query=contract.SubaccountQuery,
        answer=contract.MarginAccountSummary,
    ),
    Route(
        method="GET",
        path="/api/v1/account/limits/borrow",
        handler=get_max_borrow,
        summary="The largest loan",
        tag="Account",
        instruction="maxBorrowQuantity",
        query=contract.SymbolQuery,
        answer=contract.MaxBorrowQuantity,
    ),
    Route(
        method="GET",
        path="/api/v1/account/limits/order",
        handler=get_max_order,
        summary="The largest order",
        tag="Account",
        instruction="maxOrderQuantity",
        query=contract.MaxOrderQuery,
        answer=contract.MaxOrderQuantity,
    ),
    Route(
        method="GET",
        path="/api/v1/account/limits/withdrawal",
        handler=get_max_withdrawal,
        summary="The largest withdrawal",
        tag="Account",
        instruction="maxWithdrawalQuantity",
        query=contract.MaxWithdrawalQuery,
        answer=contract.MaxWithdrawalQuantity,
    ),
    Route(
        method="POST",
        path="/satchel/v1/orders/preview",
        handler=get_preview,
        summary="What an order would do, before it is placed",
        tag="Margin",
        instruction="orderPreview",
        body=contract.OrderExecutePayload,
        query=None,
        answer=OrderPreview,
    ),
    Route(
        method="GET",
        path="/satchel/v1/collateral/curve",
        handler=get_collateral_curve,
        summary="Collateral weight of an asset by quantity",
        tag="Margin",
        query=CollateralCurveQuery,
        answer=CollateralCurve,
    ),
]
