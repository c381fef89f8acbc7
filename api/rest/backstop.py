"""Backstop liquidity providers: register how much of liquidated accounts a subaccount takes over.   [L-4, W-7]"""

from __future__ import annotations

from api.codec import usd
from api.contract import Decimal, Request, Wire
from api.rest.route import Call, Route


class BackstopPayload(Request):
    """Replaces what was registered before."""

    notional: Decimal
    """Gross notional in USD that the signer's subaccount still takes; 0 ends it."""


class BackstopRow(Wire):
    subaccount_id: int
    notional: Decimal
    """What is left of it: what was taken over is used up."""


async def get_backstop(call: Call) -> BackstopRow:
    return _row(call)


async def register_backstop(call: Call) -> BackstopRow:
    await call.perform("backstopRegister")
    return _row(call)


def _row(call: Call) -> BackstopRow:
    subaccount = call.subaccount()
    return BackstopRow(subaccount.subaccount_id, usd(subaccount.backstop_usd))


ROUTES = [
    Route(
        method="GET",
        path="/satchel/v1/backstop",
        handler=get_backstop,
        summary="How much notional the subaccount still takes over",
        tag="Accounts",
        instruction="backstopQuery",
        answer=BackstopRow,
    ),
    Route(
        method="POST",
        path="/satchel/v1/backstop",
        handler=register_backstop,
        summary="Register as a backstop liquidity provider",
        tag="Accounts",
        instruction="backstopRegister",
        body=BackstopPayload,
        answer=BackstopRow,
        changes=True,
    ),
]
