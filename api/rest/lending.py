"""Money markets and loans as they stand now, and lending and borrowing by hand.   [B-1 … B-13]

Every figure has its interest up to the exchange's now. Rates are annual fractions; what is a quotient is rounded
half-even at 1e-18, as the rule book rounds rates.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

import msgspec

from api import contract
from api.codec import LINE_DECIMALS, annual_rate, naive_iso, price_in_usd, rate, sqrt_function, usd
from api.contract import Decimal, Wire
from api.errors import bad_request
from api.requests import asset_of, borrow_lend
from api.rest.route import Call, Route
from engine import bankruptcy, lending, limits, margin
from engine.commands import LendingSide
from engine.formulas import lending as formulas
from engine.formulas.margin import LINE_ONE, leverage_fraction, line_fractions, notional_usd
from engine.parameters import RATE_SCALE, LendingParameters, LendingState
from engine.pricing import mark_price
from engine.state import Loan, Pool, Subaccount
from engine.yields import RATE_ONE as YIELD_ONE
from ledger.amounts import format_decimal, mul_div_half_even

CURVE_STEPS = 100

assert LINE_ONE == 10**LINE_DECIMALS

_STATES: dict[LendingState, Any] = {
    LendingState.OPEN: "Open",
    LendingState.CLOSED: "Closed",
    LendingState.REPAY_ONLY: "RepayOnly",
}
_read_payload = msgspec.json.Decoder(contract.BorrowLendExecutePayload).decode


class RatePoint(Wire):
    utilization: Decimal
    borrow_interest_rate: Decimal
    lend_interest_rate: Decimal


class RateCurve(Wire):
    """What a money market would charge and pay at each utilization; `now` is where it stands.   [B-2, B-3, B-13]"""

    symbol: str
    now: RatePoint
    points: list[RatePoint]
    """Every hundredth, and the optimal utilization."""


class WrittenDown(Wire):
    """One debt that nobody could buy back, and what its pool's lenders were paid for it; values in USDC.   [L-7]"""

    timestamp: str
    quantity: Decimal
    mark_price: Decimal
    """Frozen."""
    value: Decimal
    paid: Decimal
    filled: Decimal
    """By the pool's fees, in its own asset."""
    hole: Decimal


class Recovery(Wire):
    """What lenders of a money market are due for debts that were written down, and what they lack.   [L-7, R-7]"""

    symbol: str
    recovery_ratio: Decimal
    """1 when nothing is lacking, or nothing was ever written down."""
    value: Decimal
    hole: Decimal
    written_down: list[WrittenDown]


async def get_lending_markets(call: Call) -> list[contract.BorrowLendMarket]:
    at_us = call.node.now_us()
    return [_market(call, pool, at_us) for pool in call.state.pools.values()]


async def get_lending_positions(call: Call) -> list[contract.BorrowLendPositionWithMargin]:
    """One row for each loan and each debt, by asset.   [W-3]"""
    subaccount, at_us = call.subaccount(), call.node.now_us()
    lines = {line.asset_id: line for line in margin.holdings(call.state, subaccount, at_us)}
    rows = []
    for asset_id in sorted({**subaccount.lent, **subaccount.debts}):
        line = lines.get(asset_id)
        if line is None:
            continue
        if asset_id in subaccount.lent:
            rows.append(_position(call, subaccount, line, subaccount.lent[asset_id], line.lent, 1, at_us))
        if asset_id in subaccount.debts:
            owed = lending.debt(call.state, subaccount, asset_id, at_us)
            rows.append(_position(call, subaccount, line, subaccount.debts[asset_id], owed, -1, at_us))
    return rows


async def get_liquidation_price(call: Call) -> contract.PositionEstimatedLiquidationPrice:
    """The mark of the asset at which the account would be liquidated once this loan is made; 0: none.   [M-6, M-13]"""
    query: contract.LiquidationPriceQuery = call.query
    subaccount, state, at_us = call.subaccount(query.subaccount_id), call.state, call.node.now_us()
    payload = _payload_of(query.borrow)
    fields = {"symbol": payload.symbol, "side": payload.side, "quantity": payload.quantity}
    asked = borrow_lend(fields, subaccount.subaccount_id, call.key.user_id, state)
    asset_id, atoms = asked.asset_id, asked.atoms
    if asked.side is LendingSide.BORROW:
        redeemed = min(atoms, lending.claim(state, subaccount, asset_id, at_us))
        change = (atoms, -redeemed, atoms - redeemed, 0)
    else:
        repaid = min(atoms, lending.debt(state, subaccount, asset_id, at_us))
        change = (-atoms, atoms - repaid, -repaid, 0)
    price = limits.liquidation_price(state, subaccount, asset_id, at_us, {asset_id: change})
    return contract.PositionEstimatedLiquidationPrice(price_in_usd(price), price_in_usd(mark_price(state, asset_id)))


async def get_apy(call: Call) -> contract.ApyRates:
    """Every tier has the same rates. A staking rate is that of the last period that shared out a yield.   [Y-1, Y-2]"""
    state, at_us = call.state, call.node.now_us()
    borrow_lend_rates, staking = [], []
    for pool in state.pools.values():
        symbol, parameters = call.codec.symbol(pool.asset_id), lending.lending_parameters(state, pool.asset_id)
        now = lending.totals(state, pool, at_us)
        borrowing = lending.borrow_rate(now, parameters)
        lent_rate = formulas.lend_rate(borrowing, now.borrowed, now.lent, now.fees, parameters.fee)
        borrow_lend_rates.append(
            contract.BorrowLendApyRate(symbol, annual_rate(borrowing), annual_rate(lent_rate))
        )
        if pool.staked or pool.period_rates:
            staking.append(_staking(symbol, pool, now))
    return contract.ApyRates(borrow_lend_rates, staking)


async def execute_borrow_lend(call: Call) -> None:
    """Lend, after repaying what is owed of the asset; or borrow, after redeeming what is lent.   [B-8, B-10]"""
    await call.perform("borrowLendExecute")


async def get_recovery(call: Call) -> Recovery:
    """The lenders' recovery ratio, and every debt that was written down.   [L-7]"""
    state, symbol = call.state, call.query.symbol
    asset_id = asset_of(symbol, state)
    pool = state.pools.get(asset_id)
    if pool is None:
        raise bad_request(f"{symbol} has no money market", "INVALID_ASSET")
    found, due = bankruptcy.recovery(state, asset_id)
    decimals, places = state.assets[asset_id].decimals, state.assets[state.usdc].decimals
    return Recovery(
        symbol=symbol,
        recovery_ratio=annual_rate(mul_div_half_even(formulas.RATE_ONE, found, due) if due else formulas.RATE_ONE),
        value=format_decimal(due, places),
        hole=format_decimal(due - found, places),
        written_down=[
            WrittenDown(
                timestamp=naive_iso(each.at_us),
                quantity=format_decimal(each.atoms, decimals),
                mark_price=price_in_usd(each.mark),
                value=format_decimal(each.value, places),
                paid=format_decimal(each.paid, places),
                filled=format_decimal(each.filled, places),
                hole=format_decimal(each.hole, places),
            )
            for _number, each in sorted(pool.write_downs.items())
        ],
    )


async def get_rate_curve(call: Call) -> RateCurve:
    """The expected rates over the whole curve.   [B-13]"""
    state, symbol = call.state, call.query.symbol
    asset_id = asset_of(symbol, state)
    pool = state.pools.get(asset_id)
    if pool is None:
        raise bad_request(f"{symbol} has no money market", "INVALID_ASSET")
    parameters = lending.lending_parameters(state, asset_id)
    now = lending.totals(state, pool, call.node.now_us())
    step = RATE_SCALE // CURVE_STEPS
    steps = sorted({parameters.optimal_utilization, *range(0, RATE_SCALE + 1, step)})
    return RateCurve(
        symbol=symbol,
        now=_point(parameters, now.borrowed, now.lent, now.fees),
        points=[_point(parameters, used, RATE_SCALE, 0) for used in steps],
    )


def _market(call: Call, pool: Pool, at_us: int) -> contract.BorrowLendMarket:
    state, codec, asset_id = call.state, call.codec, pool.asset_id
    parameters = lending.lending_parameters(state, asset_id)
    now = lending.totals(state, pool, at_us)
    point = _point(parameters, now.borrowed, now.lent, now.fees)
    return contract.BorrowLendMarket(
        state=_STATES[parameters.state],
        asset_mark_price=price_in_usd(mark_price(state, asset_id)),
        borrow_interest_rate=point.borrow_interest_rate,
        borrowed_quantity=codec.amount(asset_id, now.borrowed),
        fee=rate(parameters.fee),
        lend_interest_rate=point.lend_interest_rate,
        lent_quantity=codec.amount(asset_id, now.lent),
        max_utilization=rate(parameters.max_utilization),
        open_borrow_lend_limit=codec.amount(asset_id, parameters.open_limit_atoms),
        optimal_utilization=rate(parameters.optimal_utilization),
        symbol=codec.symbol(asset_id),
        timestamp=naive_iso(at_us) + "Z",
        throttle_utilization_threshold=rate(parameters.throttle_threshold),
        throttle_utilization_bound=rate(pool.bound),
        throttle_update_fraction=rate(parameters.throttle_fraction),
        utilization=point.utilization,
        step_size=codec.amount(asset_id, state.assets[asset_id].step_atoms),
        rate_base=rate(parameters.rate_base),
        rate_optimal=rate(parameters.rate_optimal),
        rate_max=rate(parameters.rate_max),
    )


def _point(parameters: LendingParameters, borrowed: int, lent: int, fees: int) -> RatePoint:
    borrowing = formulas.borrow_rate(
        borrowed,
        lent,
        fees,
        parameters.optimal_utilization,
        parameters.rate_base,
        parameters.rate_optimal,
        parameters.rate_max,
    )
    used = mul_div_half_even(formulas.RATE_ONE, *formulas.utilization(borrowed, lent, fees))
    lent_rate = formulas.lend_rate(borrowing, borrowed, lent, fees, parameters.fee)
    return RatePoint(annual_rate(used), annual_rate(borrowing), annual_rate(lent_rate))


def _position(
    call: Call, subaccount: Subaccount, line: margin.Holding, loan: Loan, atoms: int, sign: int, at_us: int
) -> contract.BorrowLendPositionWithMargin:
    """`sign`: 1 for what is lent, −1 for what is owed. Maintenance leaves open orders out.   [M-1, M-3]"""
    state, codec, asset_id = call.state, call.codec, line.asset_id
    asset = state.assets[asset_id]
    functions = (
        asset.imf_base, asset.imf_factor, asset.mmf_base, asset.mmf_factor, leverage_fraction(subaccount.leverage_limit)
    )
    bare = notional_usd(max(0, line.owed - line.held - line.lent), line.mark, 10**asset.decimals)
    imf = line_fractions(line.notional, *functions)[0]
    mmf = line_fractions(bare, *functions)[1]
    return contract.BorrowLendPositionWithMargin(
        cumulative_interest=codec.amount(asset_id, atoms - loan.flow_atoms),
        id=str(loan.position_id),
        imf=format_decimal(imf, LINE_DECIMALS),
        imf_function=sqrt_function(asset.imf_base, asset.imf_factor),
        net_quantity=codec.amount(asset_id, sign * atoms),
        mark_price=price_in_usd(line.mark),
        mmf=format_decimal(mmf, LINE_DECIMALS),
        mmf_function=sqrt_function(asset.mmf_base, asset.mmf_factor),
        net_exposure_quantity=codec.amount(asset_id, line.exposure),
        net_exposure_notional=usd(line.notional),
        symbol=asset.symbol,
        est_liquidation_price=price_in_usd(limits.liquidation_price(state, subaccount, asset_id, at_us)),
    )


def _staking(symbol: str, pool: Pool, now: lending.Totals) -> contract.StakingApyRate:
    """ρ of the last period with a yield, for a year, per atom that is lent now.   [Y-3]"""
    dilution = mul_div_half_even(formulas.RATE_ONE, pool.staked, now.lent) if now.lent else 0
    newest = pool.period_rates[max(pool.period_rates)] if pool.period_rates else 0
    yearly = newest * formulas.YEAR_MS * now.lend_shares * formulas.RATE_ONE
    staking = mul_div_half_even(yearly, 1, now.lent * YIELD_ONE) if now.lent else 0
    return contract.StakingApyRate(symbol, annual_rate(dilution), annual_rate(staking))


def _payload_of(text: str) -> contract.BorrowLendExecutePayload:
    """The payload from base64, standard or URL alphabet, padded or not: it travels in a query."""
    plain = text.replace("-", "+").replace("_", "/").replace(" ", "+").rstrip("=")
    try:
        decoded = b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        return _read_payload(decoded)
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise bad_request(f"failed to parse parameter `borrow`: {error}") from None


ROUTES = [
    Route(
        method="GET",
        path="/api/v1/borrowLend/markets",
        handler=get_lending_markets,
        summary="Money markets now",
        tag="Borrow and lend",
        answer=list[contract.BorrowLendMarket],
    ),
    Route(
        method="GET",
        path="/api/v1/borrowLend/positions",
        handler=get_lending_positions,
        summary="What the subaccount lends and owes",
        tag="Borrow and lend",
        instruction="borrowLendPositionQuery",
        answer=list[contract.BorrowLendPositionWithMargin],
    ),
    Route(
        method="GET",
        path="/api/v1/borrowLend/position/liquidationPrice",
        handler=get_liquidation_price,
        summary="Estimated liquidation price after a loan",
        tag="Borrow and lend",
        instruction="borrowLendPositionQuery",
        # The contract names no instruction here, and clients sign what they think it is, or none.
        other_instructions=("borrowLendPositionLiquidationPrice", ""),
        query=contract.LiquidationPriceQuery,
        answer=contract.PositionEstimatedLiquidationPrice,
    ),
    Route(
        method="GET",
        path="/api/v1/borrowLend/apy",
        handler=get_apy,
        summary="Rates of borrowing, lending and staking",
        tag="Borrow and lend",
        query=contract.ApyQuery,
        answer=contract.ApyRates,
    ),
    Route(
        method="POST",
        path="/api/v1/borrowLend",
        handler=execute_borrow_lend,
        summary="Lend or borrow by hand",
        tag="Borrow and lend",
        instruction="borrowLendExecute",
        body=contract.BorrowLendExecutePayload,
        changes=True,
    ),
    Route(
        method="GET",
        path="/satchel/v1/lending/recovery",
        handler=get_recovery,
        summary="Debts of a money market that were written down, and what its lenders were paid",
        tag="Borrow and lend",
        query=contract.SymbolQuery,
        answer=Recovery,
    ),
    Route(
        method="GET",
        path="/satchel/v1/lending/curve",
        handler=get_rate_curve,
        summary="Rates of a money market over the whole curve",
        tag="Borrow and lend",
        query=contract.SymbolQuery,
        answer=RateCurve,
    ),
]
