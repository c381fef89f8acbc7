"""The route table: every route of the exchange but the streams, the pages and the devnet's.   [W-8]"""

from __future__ import annotations

from api.rest import account, capital, later, orders, own, public
from api.rest.route import Route

ROUTES: list[Route] = [*public.ROUTES, *account.ROUTES, *capital.ROUTES, *orders.ROUTES, *own.ROUTES, *later.ROUTES]
