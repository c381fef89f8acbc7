"""The route table: every route of the exchange but the streams, the pages and the devnet's.   [W-8]"""

from __future__ import annotations

from api.rest import (
    account,
    alarms,
    backstop,
    blocks,
    capital,
    epochs,
    health,
    later,
    lending,
    lending_history,
    liquidity,
    margin,
    operator,
    orders,
    perpetual_history,
    perpetuals,
    public,
    rfqs,
    statements,
    strategies,
    subaccounts,
)
from api.rest.route import Route

ROUTES: list[Route] = [
    *public.ROUTES,
    *account.ROUTES,
    *capital.ROUTES,
    *orders.ROUTES,
    *strategies.ROUTES,
    *rfqs.ROUTES,
    *margin.ROUTES,
    *perpetuals.ROUTES,
    *perpetual_history.ROUTES,
    *lending.ROUTES,
    *lending_history.ROUTES,
    *subaccounts.ROUTES,
    *backstop.ROUTES,
    *blocks.ROUTES,
    *statements.ROUTES,
    *epochs.ROUTES,
    *operator.ROUTES,
    *alarms.ROUTES,
    *liquidity.ROUTES,
    *health.ROUTES,
    *later.ROUTES,
]
