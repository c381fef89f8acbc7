"""The operator's one route: every command of `api.operations`, signed by an operator's key.   [W-7]"""

from __future__ import annotations

from typing import Any

from api.contract import Request, Wire
from api.operations import plain_reply
from api.rest.route import Call, Route


class OperatorPayload(Request):
    command: str
    arguments: str
    """A JSON object with the command's fields, by the engine's names and in its integer scales."""


class OperatorAnswer(Wire):
    reply: Any


async def operate(call: Call) -> OperatorAnswer:
    """A configuration, a price, a new user, an approval, a halt: signed by an operator's key, and in the log."""
    return OperatorAnswer(plain_reply((await call.perform("operatorExecute")).reply))


ROUTES = [
    Route(
        method="POST",
        path="/satchel/v1/operator",
        handler=operate,
        summary="An operator's command",
        tag="Operations",
        instruction="operatorExecute",
        operator=True,
        body=OperatorPayload,
        answer=OperatorAnswer,
        changes=True,
    ),
]
