"""Public routes: assets, markets, candles, trades, the exchange's own state.   [W-3]"""

from __future__ import annotations

from typing import Any

from api import contract
from api.codec import MARKET_TYPE_NAMES
from api.errors import bad_request, not_found, not_implemented
from api.history.trades import read_klines, read_prices, read_trades
from api.requests import market_of
from api.rest.route import Answer, Call, Route, page_of, paged
from engine.parameters import BookState

INTERVAL_SECONDS = {
    "1s": 1,
    "1m": 60,
    "3m": 180,
    "5m": 300,
    "15m": 900,
    "30m": 1_800,
    "1h": 3_600,
    "2h": 7_200,
    "4h": 14_400,
    "6h": 21_600,
    "8h": 28_800,
    "12h": 43_200,
    "1d": 86_400,
    "3d": 259_200,
    "1w": 604_800,
    "1month": 2_419_200,
}
"""Shortest length of a candle, to bound how many one request asks for."""

MAX_CANDLES = 5_000


async def get_assets(call: Call) -> list[contract.MarketAsset]:
    """Every asset with the chains it can come from and go to; no country is excluded, so `country` filters nothing."""
    return [call.codec.asset_row(asset) for asset in call.state.assets.values()]


async def get_collateral(call: Call) -> list[contract.CollateralSummary]:
    return [call.codec.collateral_row(asset) for asset in call.state.assets.values()]


async def get_markets(call: Call) -> list[contract.Market]:
    types = call.query.market_type or ["SPOT", "PERP"]
    return [
        call.codec.market_row(market)
        for market in call.state.markets.values()
        if MARKET_TYPE_NAMES[market.parameters.type] in types
    ]


async def get_market(call: Call) -> contract.Market:
    market_id = market_of(call.query.symbol, call.state).market_id
    return call.codec.market_row(call.state.markets[market_id])


async def get_ticker(call: Call) -> Any:
    """204 for a market that has not traded.   [W-3]"""
    market_id = market_of(call.query.symbol, call.state).market_id
    row = call.node.market_data.ticker(market_id, call.query.interval)
    return Answer(status=204) if row is None else call.codec.ticker(row)


async def get_tickers(call: Call) -> list[contract.Ticker]:
    return [call.codec.ticker(row) for row in call.node.market_data.tickers(call.query.interval)]


async def get_depth(call: Call) -> contract.Depth:
    """404 for a closed market.   [W-3, W-4]"""
    market = market_of(call.query.symbol, call.state)
    if market.state == BookState.CLOSED:
        raise not_found()
    view = call.node.market_data.depth(market.market_id, int(call.query.limit))
    return call.codec.depth(market.market_id, view)


async def get_klines(call: Call) -> list[contract.Kline]:
    """Candles that begin in [startTime, endTime), seconds; without endTime up to now. Those of marks and indexes have
    no volume; they are kept by the minute, so there are none of a second.   [W-3]
    """
    query: contract.KlinesQuery = call.query
    market_id = market_of(query.symbol, call.state).market_id
    start = query.start_time
    end = call.state.at_us // 1_000_000 + 1 if query.end_time is None else query.end_time
    candles = (end - start) // INTERVAL_SECONDS[query.interval]
    if start < 0 or candles > MAX_CANDLES:
        asked = f"{start} to {end} is {candles} candles of {query.interval}"
        raise bad_request(f"{asked}, at most {MAX_CANDLES}", "INVALID_RANGE")
    if query.price_type not in (None, "Last"):
        if query.interval == "1s":
            raise not_implemented("interval 1s of marks and indexes")
        end = min(end, call.node.now_us() // 1_000_000 + 1)
        is_index = query.price_type == "Index"
        rows = await read_prices(call.node.history, market_id, is_index, query.interval, start, end)
        return [call.codec.price_kline(row) for row in rows]
    source = call.node.market_data
    if source.remembers(market_id, query.interval, start):
        rows = source.klines(market_id, query.interval, start, end)
    else:
        rows = await read_klines(call.node.history, market_id, query.interval, start, end)
    return [call.codec.kline(market_id, row) for row in rows]


async def get_trades(call: Call) -> list[contract.Trade]:
    """Newest first."""
    market_id = market_of(call.query.symbol, call.state).market_id
    page = page_of(call.query.limit, 0)
    return [call.codec.trade(market_id, row) for row in call.node.market_data.recent_trades(market_id, page.limit)]


async def get_trades_history(call: Call) -> Answer:
    market_id = market_of(call.query.symbol, call.state).market_id
    page = page_of(call.query.limit, call.query.offset)
    rows, total = await read_trades(call.node.history, market_id, page)
    return paged([call.codec.trade(market_id, row) for row in rows], page, total)


async def get_status(call: Call) -> contract.StatusAndMessage:
    if call.node.is_ready():
        return contract.StatusAndMessage("Ok")
    return contract.StatusAndMessage("Maintenance", "The exchange is not taking orders")


async def ping(_call: Call) -> Answer:
    return Answer("pong", content_type="text/plain")


async def get_time(call: Call) -> Answer:
    """The wall clock in ms, which request windows are checked against.   [W-1]"""
    return Answer(str(call.wall_ms), content_type="text/plain")


async def get_wallets(call: Call) -> list[contract.WalletResponse]:
    return [contract.WalletResponse(blockchain, address) for blockchain, address in call.node.wallets()]


async def get_securities(_call: Call) -> list[contract.Security]:
    """None are listed."""
    return []


def _get(path: str, handler: Any, summary: str, tag: str, answer: Any, **more: Any) -> Route:
    return Route(method="GET", path=path, handler=handler, summary=summary, tag=tag, answer=answer, **more)


ROUTES = [
    _get(
        "/api/v1/assets",
        get_assets,
        "Assets and their tokens",
        "Assets",
        list[contract.MarketAsset],
        query=contract.AssetsQuery,
    ),
    _get(
        "/api/v1/collateral",
        get_collateral,
        "Collateral functions of the assets",
        "Assets",
        list[contract.CollateralSummary],
    ),
    _get(
        "/api/v1/markets",
        get_markets,
        "Markets",
        "Markets",
        list[contract.Market],
        query=contract.MarketsQuery,
    ),
    _get("/api/v1/market", get_market, "One market", "Markets", contract.Market, query=contract.SymbolQuery),
    _get(
        "/api/v1/ticker",
        get_ticker,
        "A market over the last day or week",
        "Markets",
        contract.Ticker,
        query=contract.TickerQuery,
        statuses=(204,),
    ),
    _get(
        "/api/v1/tickers",
        get_tickers,
        "Every market that traded",
        "Markets",
        list[contract.Ticker],
        query=contract.TickersQuery,
    ),
    _get(
        "/api/v1/depth",
        get_depth,
        "The book: bids ascending, asks ascending",
        "Markets",
        contract.Depth,
        query=contract.DepthQuery,
        statuses=(404,),
    ),
    _get(
        "/api/v1/klines",
        get_klines,
        "Candles",
        "Markets",
        list[contract.Kline],
        query=contract.KlinesQuery,
        time_range=True,
    ),
    _get(
        "/api/v1/trades",
        get_trades,
        "Latest trades, newest first",
        "Trades",
        list[contract.Trade],
        query=contract.TradesQuery,
    ),
    _get(
        "/api/v1/trades/history",
        get_trades_history,
        "All trades, newest first",
        "Trades",
        list[contract.Trade],
        query=contract.TradesHistoryQuery,
        paged=True,
    ),
    _get("/api/v1/status", get_status, "Whether the exchange takes orders", "System", contract.StatusAndMessage),
    _get("/api/v1/ping", ping, "pong", "System", str),
    _get("/api/v1/time", get_time, "Wall clock in ms", "System", str),
    _get(
        "/api/v1/wallets", get_wallets, "The exchange's own wallets", "Assets", list[contract.WalletResponse]
    ),
    _get("/api/v1/securities", get_securities, "Securities: none", "Assets", list[contract.Security]),
]
