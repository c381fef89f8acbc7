"""Perpetuals as they stand: marks, open interest, funding rates; a subaccount's positions.   [P-2, P-22, C-5, W-3]"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from api import contract
from api.codec import LINE_DECIMALS, MARKET_TYPE_NAMES, Codec, naive_iso, price_in_usd, rate, sqrt_function, usd
from api.errors import SYMBOL_NOT_FOUND, bad_request, not_found
from api.history.perpetuals import read_funding_rates
from api.positions import figures
from api.requests import market_of
from api.rest.route import Answer, Call, Route, paged
from api.rows import Page
from engine import funding, limits
from engine.events import PositionView
from engine.parameters import MarketType
from engine.pricing import index_price, mark_price
from engine.state import Market, Position
from ledger.amounts import format_decimal
from ledger.chart import contracts

MOST_RATES = 10_000
"""Funding rates of one answer, as the wire has it."""


async def get_mark_prices(call: Call) -> Answer:
    """Mark and index of each market that has a price, a spot market's of its base asset; a perpetual's rate is what the
    running interval would be charged now.   [P-2, P-22]
    """
    query: contract.MarkPricesQuery = call.query
    markets = _markets(call, query.symbol)
    rows = [
        row
        for market in markets
        if query.market_type in (None, MARKET_TYPE_NAMES[market.parameters.type])
        for row in _mark_rows(call, market)
    ]
    return Answer(rows, headers={"CACHE-CONTROL": "public, max-age=1"})


async def get_open_interest(call: Call) -> list[contract.OpenInterest]:
    """What is long of each perpetual, in base units."""
    query: contract.OpenInterestQuery = call.query
    now_ms = call.node.now_us() // 1_000
    return [
        contract.OpenInterest(
            market.parameters.symbol,
            now_ms,
            call.codec.market(market.parameters.market_id).quantity(market.open_interest),
        )
        for market in _markets(call, query.symbol)
        if market.parameters.type == MarketType.PERP
    ]


async def get_funding_rates(call: Call) -> Answer:
    """The running interval first, with the rate it would be charged at now; then those that ended, newest first.

    [P-22]
    """
    query: contract.FundingRatesQuery = call.query
    market = call.state.markets[market_of(query.symbol, call.state).market_id]
    if market.parameters.perpetual is None:
        raise bad_request(f"{query.symbol} is no perpetual", "INVALID_MARKET")
    page = _rates_page(query)
    rows: list[contract.FundingIntervalRate] = []
    running = 1 if market.next_funding_us else 0
    if running and not page.offset:
        rows.append(_rate_row(query.symbol, market.next_funding_us, funding.running_rate(market)))
    # The running interval is the first row of all.
    skipped = max(0, page.offset - running)
    wanted = Page(page.limit - len(rows), skipped)
    ended, total = await read_funding_rates(call.node.history, market.parameters.market_id, wanted)
    rows += [_rate_row(query.symbol, row.interval_end_us, row.rate) for row in ended]
    return paged(rows, page, total + running)


async def get_positions(call: Call) -> list[contract.FuturePositionWithMargin]:
    """Nothing open is an empty list; a named market without a position is 404.   [W-3]"""
    query: contract.PositionQuery = call.query
    wanted = None if query.symbol is None else market_of(query.symbol, call.state).market_id
    held = [
        position
        for market_id, position in sorted(call.subaccount().positions.items())
        if position.lots and wanted in (None, market_id)
    ]
    if wanted is not None and not held:
        raise not_found()
    if query.market_type not in (None, "PERP"):
        held = []
    return [_position(call, position) for position in held]


def position_row(codec: Codec, view: PositionView, mark: int, user_id: int) -> contract.FuturePositionWithMargin:
    """A position at a mark, without what only the whole account tells: liquidation price and ADL quantile."""
    state = codec.state
    perpetual = state.markets[view.market_id].parameters.perpetual
    assert perpetual is not None, f"market {view.market_id} is no perpetual"
    numbers, found = codec.market(view.market_id), figures(state, view, mark)
    return contract.FuturePositionWithMargin(
        break_even_price=price_in_usd(found.break_even_price),
        entry_price=price_in_usd(found.entry_price),
        est_liquidation_price="0",
        imf=format_decimal(found.imf, LINE_DECIMALS),
        imf_function=sqrt_function(perpetual.imf_base, perpetual.imf_factor),
        mark_price=price_in_usd(mark),
        mmf=format_decimal(found.mmf, LINE_DECIMALS),
        mmf_function=sqrt_function(perpetual.mmf_base, perpetual.mmf_factor),
        net_cost=numbers.quote(found.net_cost),
        net_quantity=numbers.quantity(view.lots),
        net_exposure_quantity=numbers.quantity(found.exposure),
        net_exposure_notional=usd(found.notional),
        pnl_realized=numbers.quote(found.realized),
        pnl_unrealized=numbers.quote(found.unrealized),
        cumulative_funding_payment=numbers.quote(view.funding_atoms),
        symbol=numbers.symbol,
        user_id=user_id,
        position_id=str(view.position_id),
        # Legacy, and always there.   [W-3]
        cumulative_interest="0",
        # The contract has 16 bits for it.
        subaccount_id=view.subaccount_id if view.subaccount_id < 1 << 16 else UNSET,
    )


def _position(call: Call, position: Position) -> contract.FuturePositionWithMargin:
    state, subaccount, market = call.state, position.subaccount, position.market
    row = position_row(call.codec, position.view(), market.mark, subaccount.user.user_id)
    item = contracts(market.parameters.market_id)
    now_us = call.node.now_us()
    row.est_liquidation_price = price_in_usd(limits.liquidation_price(state, subaccount, item, now_us))
    quantile = call.node.quantiles.of(state, market, subaccount.subaccount_id, now_us)
    if quantile is not None:
        row.adl_quantile = quantile
    return row


def _markets(call: Call, symbol: str | None) -> list[Market]:
    """The market of this name, or all. Raises ApiError."""
    markets = list(call.state.markets.values())
    if symbol is None:
        return markets
    named = [market for market in markets if market.parameters.symbol == symbol]
    if not named:
        raise bad_request(SYMBOL_NOT_FOUND)
    return named


def _mark_rows(call: Call, market: Market) -> list[contract.MarkPrice]:
    parameters = market.parameters
    base = parameters.base_asset_id
    if parameters.type == MarketType.SPOT:
        mark = mark_price(call.state, base)
        row = contract.MarkPrice(price_in_usd(mark), parameters.symbol)
    else:
        mark = market.mark
        row = contract.MarkPrice(price_in_usd(mark), parameters.symbol)
        row.funding_rate = rate(funding.running_rate(market))
        row.next_funding_timestamp = market.next_funding_us // 1_000
    row.index_price = price_in_usd(index_price(call.state, base))
    return [row] if mark else []


def _rates_page(query: contract.FundingRatesQuery) -> Page:
    size = 100 if query.limit is None else query.limit
    if not 0 < size <= MOST_RATES:
        raise bad_request(f"limit {size} is not between 1 and {MOST_RATES}")
    return Page(size, query.offset or 0)


def _rate_row(symbol: str, end_us: int, found: int) -> contract.FundingIntervalRate:
    return contract.FundingIntervalRate(symbol, naive_iso(end_us), rate(found))


def _get(path: str, handler: Any, summary: str, answer: Any, **more: Any) -> Route:
    return Route(method="GET", path=path, handler=handler, summary=summary, answer=answer, **more)


ROUTES = [
    _get(
        "/api/v1/markPrices",
        get_mark_prices,
        "Mark and index prices, funding rates of perpetuals",
        list[contract.MarkPrice],
        tag="Markets",
        query=contract.MarkPricesQuery,
    ),
    _get(
        "/api/v1/openInterest",
        get_open_interest,
        "Open interest of perpetuals",
        list[contract.OpenInterest],
        tag="Markets",
        query=contract.OpenInterestQuery,
    ),
    _get(
        "/api/v1/fundingRates",
        get_funding_rates,
        "Funding rates of a perpetual, the running interval first",
        list[contract.FundingIntervalRate],
        tag="Markets",
        query=contract.FundingRatesQuery,
        paged=True,
    ),
    _get(
        "/api/v1/position",
        get_positions,
        "Open positions",
        list[contract.FuturePositionWithMargin],
        tag="Futures",
        instruction="positionQuery",
        query=contract.PositionQuery,
        statuses=(404,),
    ),
]
