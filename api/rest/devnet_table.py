"""The devnet's routes as rows of the table, for the OpenAPI document; `api.devnet` serves them.   [W-8, W-9]"""

from __future__ import annotations

from typing import Any

from api.contract import Wire
from api.devnet import ClockRequest, Devnet, FaucetRequest, KeyRequest, OperatorRequest
from api.rest.operator import OperatorAnswer
from api.rest.route import Route


class DevnetKey(Wire):
    user_id: int
    subaccount_id: int


class DevnetDeposit(Wire):
    symbol: str
    quantity: str
    transaction_hash: str


class DevnetPrices(Wire):
    prices: dict[str, str]


class DevnetClock(Wire):
    now: int
    """Exchange time in ms."""


def _row(path: str, handler: Any, summary: str, body: Any, answer: Any) -> Route:
    return Route(
        method="POST",
        path=f"/dev/v1/{path}",
        handler=handler,
        summary=summary,
        tag="Devnet",
        body=body,
        answer=answer,
        query=None,
    )


ROUTES = [
    _row("keys", Devnet.keys, "Register an API key", KeyRequest, DevnetKey),
    _row("faucet", Devnet.faucet, "Send a deposit on the simulated chain", FaucetRequest, DevnetDeposit),
    _row("prices", Devnet.prices, "Feed index prices in USD", dict[str, str], DevnetPrices),
    _row("clock", Devnet.clock, "Stop, move or restart exchange time", ClockRequest, DevnetClock),
    _row("por", Devnet.por, "Run a proof-of-reserves epoch now", dict[str, Any], dict[str, Any]),
    _row("operator", Devnet.operator, "An operator's command, unsigned", OperatorRequest, OperatorAnswer),
]
