"""Orders over HTTP: place one or a batch, look, cancel.   [W-3, S-7]"""

from __future__ import annotations

from typing import Any

from api import contract
from api.codec import MARKET_TYPE_NAMES
from api.errors import bad_request, not_found
from api.history.orders import read_fills, read_orders
from api.requests import market_of, order_id_of, orders_of
from api.rest.route import Answer, Call, Route, page_of, paged
from engine.commands import Origin, PlaceOrders
from engine.events import OrderStatus, OrderView
from engine.state import Order

_BY_LIQUIDATION = (Origin.LIQUIDATION, Origin.ADL, Origin.BACKSTOP)
_FILL_ORIGINS: dict[contract.FillTypeName, tuple[Origin, ...]] = {
    "User": (Origin.USER,),
    "BookLiquidation": (Origin.LIQUIDATION,),
    "Adl": (Origin.ADL,),
    "Backstop": (Origin.BACKSTOP,),
    "Liquidation": _BY_LIQUIDATION,
    "AllLiquidation": (*_BY_LIQUIDATION, Origin.SETTLEMENT),
    "CollateralConversion": (Origin.COLLATERAL_CONVERSION,),
    "CollateralConversionAndSpotLiquidation": (Origin.COLLATERAL_CONVERSION, Origin.LIQUIDATION),
}
"""The contract's fill types, as who made the order."""

OrderShape = contract.LimitOrder | contract.MarketOrder
BatchShape = list[contract.PlacedLimitOrder | contract.PlacedMarketOrder | contract.RefusedOrder]


async def place_order(call: Call) -> OrderShape:
    """IOC, FOK and self-trade outcomes are 200 with status Expired.   [W-4]"""
    outcome = await call.perform("orderExecute")
    return call.codec.order(outcome.reply)


async def place_orders(call: Call) -> list[Any]:
    """Each order is accepted or refused on its own; the answer has a row for each, in order."""
    if not call.fields:
        raise bad_request("A batch has at least one order", "INVALID_ORDER")
    limit = call.state.limits.orders_per_batch
    if len(call.fields) > limit:
        raise bad_request(f"Batch size: {len(call.fields)} orders, at most {limit}", "ORDER_LIMIT")
    asked = orders_of(call.fields, call.key.subaccount_id, call.state)
    placed = [order for order in asked if not isinstance(order, Exception)]
    if not placed:
        results = []
    elif len(call.fields) == 1:
        outcome = await call.node.submit(placed[0], call.request)
        results = [outcome.reply if outcome.rejection is None else outcome.rejection]
    else:
        results = (await call.submit(PlaceOrders(tuple(placed)))).reply
    answers = iter(results)
    return [call.codec.batch_item(item if isinstance(item, Exception) else next(answers)) for item in asked]


async def get_order(call: Call) -> OrderShape:
    """A resting or waiting order by exactly one of its ids; else 404.   [W-3]"""
    query: contract.OrderQuery = call.query
    market = market_of(query.symbol, call.state)
    if (query.order_id is None) == (query.client_id is None):
        raise bad_request("Must specify exactly one of `orderId` and `clientId`")
    subaccount = call.state.subaccounts[call.key.subaccount_id]
    order: Order | None
    if query.order_id is not None:
        order_id = order_id_of(query.order_id)
        order = subaccount.orders.get(order_id) or subaccount.waiting.get(order_id)
    else:
        assert query.client_id is not None
        order = subaccount.client_ids.get(query.client_id)
    if order is None or order.market.parameters.market_id != market.market_id:
        raise not_found()
    return call.codec.order(_view(order))


async def get_orders(call: Call) -> list[OrderShape]:
    """Open orders and those that wait for their price, oldest first."""
    query: contract.OrdersQuery = call.query
    market_id = market_of(query.symbol, call.state).market_id if query.symbol is not None else None
    subaccount = call.state.subaccounts[call.key.subaccount_id]
    orders = list(subaccount.orders.values())
    if subaccount.waiting:
        orders = sorted((*orders, *subaccount.waiting.values()), key=lambda order: order.order_id)
    return [
        call.codec.order(_view(order))
        for order in orders
        if (market_id is None or order.market.parameters.market_id == market_id)
        and (query.market_type is None or MARKET_TYPE_NAMES[order.market.parameters.type] == query.market_type)
    ]


def _view(order: Order) -> OrderView:
    return order.view(OrderStatus.TRIGGER_PENDING if order.order_id in order.subaccount.waiting else None)


async def cancel_order(call: Call) -> OrderShape:
    outcome = await call.perform("orderCancel")
    return call.codec.order(outcome.reply)


async def cancel_orders(call: Call) -> list[OrderShape]:
    outcome = await call.perform("orderCancelAll")
    return [call.codec.order(view) for view in outcome.reply]


async def order_history(call: Call) -> Answer:
    query: contract.OrderHistoryQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    market_ids = call.market_ids(query.symbol, query.market_type)
    if market_ids is not None and not market_ids:
        return paged([], page, 0)
    rows, total = await read_orders(
        call.node.history,
        call.key.subaccount_id,
        page,
        order_id=order_id_of(query.order_id) if query.order_id is not None else None,
        market_ids=market_ids,
        strategy_id=order_id_of(query.strategy_id) if query.strategy_id is not None else None,
    )
    return paged([call.codec.history_order(row) for row in rows], page, total)


async def fill_history(call: Call) -> Answer:
    """A subaccount's sides of trades; by default those of every origin.   [W-3]"""
    query: contract.FillsQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    market_ids = call.market_ids(query.symbol, query.market_type)
    if market_ids is not None and not market_ids:
        return paged([], page, 0)
    order_id = order_id_of(query.order_id) if query.order_id is not None else None
    rows, total = await read_fills(
        call.node.history,
        call.key.subaccount_id,
        page,
        order_id=order_id,
        market_ids=market_ids,
        from_ms=query.from_,
        to_ms=query.to,
        strategy_id=order_id_of(query.strategy_id) if query.strategy_id is not None else None,
        origins=_FILL_ORIGINS[query.fill_type] if query.fill_type is not None else None,
    )
    return paged([call.codec.fill(row) for row in rows], page, total)


ROUTES = [
    Route(
        method="POST",
        path="/api/v1/order",
        handler=place_order,
        summary="Place an order",
        tag="Order",
        instruction="orderExecute",
        body=contract.OrderExecutePayload,
        answer=OrderShape,
        changes=True,
    ),
    Route(
        method="POST",
        path="/api/v1/orders",
        handler=place_orders,
        summary="Place a batch of orders",
        tag="Order",
        instruction="orderExecute",
        body=list[contract.OrderExecutePayload],
        answer=BatchShape,
        changes=True,
    ),
    Route(
        method="GET",
        path="/api/v1/order",
        handler=get_order,
        summary="A resting order",
        tag="Order",
        instruction="orderQuery",
        query=contract.OrderQuery,
        answer=OrderShape,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/api/v1/orders",
        handler=get_orders,
        summary="Open orders",
        tag="Order",
        instruction="orderQueryAll",
        query=contract.OrdersQuery,
        answer=list[OrderShape],
    ),
    Route(
        method="DELETE",
        path="/api/v1/order",
        handler=cancel_order,
        summary="Cancel an order",
        tag="Order",
        instruction="orderCancel",
        body=contract.OrderCancelPayload,
        answer=OrderShape,
        changes=True,
        statuses=(404,),
    ),
    Route(
        method="DELETE",
        path="/api/v1/orders",
        handler=cancel_orders,
        summary="Cancel all orders of a market",
        tag="Order",
        instruction="orderCancelAll",
        body=contract.OrderCancelAllPayload,
        answer=list[OrderShape],
        changes=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/orders",
        handler=order_history,
        summary="Orders, newest first",
        tag="History",
        instruction="orderHistoryQueryAll",
        query=contract.OrderHistoryQuery,
        answer=list[contract.Order],
        paged=True,
    ),
    Route(
        method="GET",
        path="/wapi/v1/history/fills",
        handler=fill_history,
        summary="Fills, newest first",
        tag="History",
        instruction="fillHistoryQueryAll",
        query=contract.FillsQuery,
        answer=list[contract.OrderFill],
        paged=True,
    ),
]
