"""Scheduled strategies over HTTP: create, look, cancel, history.   [S-7, W-2]"""

from __future__ import annotations

from api import contract
from api.codec import MARKET_TYPE_NAMES
from api.errors import bad_request, not_found
from api.history.strategies import read_strategies
from api.requests import market_of, order_id_of
from api.rest.route import Answer, Call, Route, page_of, paged
from engine.state import Strategy


async def create_strategy(call: Call) -> contract.ScheduledStrategy:
    """The strategy as it begins: its first slice enters right after."""
    outcome = await call.perform("strategyCreate")
    return call.codec.strategy(outcome.reply)


async def get_strategy(call: Call) -> contract.ScheduledStrategy:
    """A running strategy by exactly one of its ids; else 404."""
    query: contract.StrategyQuery = call.query
    market = market_of(query.symbol, call.state)
    if (query.strategy_id is None) == (query.client_strategy_id is None):
        raise bad_request("Must specify exactly one of `strategyId` and `clientStrategyId`")
    running = call.state.subaccounts[call.key.subaccount_id].strategies
    found: Strategy | None
    if query.strategy_id is not None:
        found = running.get(order_id_of(query.strategy_id))
    else:
        wanted = query.client_strategy_id
        found = next((each for each in running.values() if each.view.client_id == wanted), None)
    if found is None or found.view.market_id != market.market_id:
        raise not_found()
    return call.codec.strategy(found.view)


async def get_strategies(call: Call) -> list[contract.ScheduledStrategy]:
    """Running strategies, oldest first."""
    query: contract.StrategiesQuery = call.query
    market_id = market_of(query.symbol, call.state).market_id if query.symbol is not None else None
    return [
        call.codec.strategy(strategy.view)
        for strategy in call.state.subaccounts[call.key.subaccount_id].strategies.values()
        if (market_id is None or strategy.view.market_id == market_id)
        and query.market_type in (None, MARKET_TYPE_NAMES[call.state.markets[strategy.view.market_id].parameters.type])
    ]


async def cancel_strategy(call: Call) -> contract.ScheduledStrategy:
    outcome = await call.perform("strategyCancel")
    return call.codec.strategy(outcome.reply)


async def cancel_strategies(call: Call) -> list[contract.ScheduledStrategy]:
    outcome = await call.perform("strategyCancelAll")
    return [call.codec.strategy(view) for view in outcome.reply]


async def strategy_history(call: Call) -> Answer:
    query: contract.StrategyHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    market_ids = call.market_ids(query.symbol, query.market_type)
    if market_ids is not None and not market_ids:
        return paged([], page, 0)
    strategy_id = order_id_of(query.strategy_id) if query.strategy_id is not None else None
    rows, total = await read_strategies(
        call.node.history, call.key.subaccount_id, page, strategy_id=strategy_id, market_ids=market_ids
    )
    return paged([call.codec.history_strategy(row) for row in rows], page, total)


ROUTES = [
    Route(
        method="POST",
        path="/api/v1/strategy",
        handler=create_strategy,
        summary="Begin a scheduled strategy",
        tag="Strategy",
        instruction="strategyCreate",
        body=contract.StrategyCreatePayload,
        answer=contract.ScheduledStrategy,
        changes=True,
    ),
    Route(
        method="GET",
        path="/api/v1/strategy",
        handler=get_strategy,
        summary="A running strategy",
        tag="Strategy",
        instruction="strategyQuery",
        query=contract.StrategyQuery,
        answer=contract.ScheduledStrategy,
        statuses=(404,),
    ),
    Route(
        method="DELETE",
        path="/api/v1/strategy",
        handler=cancel_strategy,
        summary="Cancel a strategy",
        tag="Strategy",
        instruction="strategyCancel",
        body=contract.StrategyCancelPayload,
        answer=contract.ScheduledStrategy,
        changes=True,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/api/v1/strategies",
        handler=get_strategies,
        summary="Running strategies",
        tag="Strategy",
        instruction="strategyQueryAll",
        query=contract.StrategiesQuery,
        answer=list[contract.ScheduledStrategy],
    ),
    Route(
        method="DELETE",
        path="/api/v1/strategies",
        handler=cancel_strategies,
        summary="Cancel all strategies of a market",
        tag="Strategy",
        instruction="strategyCancelAll",
        body=contract.StrategyCancelAllPayload,
        answer=list[contract.ScheduledStrategy],
        changes=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/strategies",
        handler=strategy_history,
        summary="Strategies, newest first",
        tag="History",
        instruction="strategyHistoryQueryAll",
        query=contract.StrategyHistoryQuery,
        answer=list[contract.Strategy],
        paged=True,
    ),
]
