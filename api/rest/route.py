"""What a route is, and what its handler is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from api.codec import MARKET_TYPE_NAMES, Codec
from api.contract import NoQuery
from api.errors import bad_request, not_found, refusal
from api.node import Node
from api.requests import Fields, command_of
from api.rows import Page
from engine.commands import Command
from engine.events import Outcome
from engine.state import ApiKey, State, Subaccount
from ledger.blocks import SignedRequest

PAGE_DEFAULT = 100
PAGE_LIMIT = 1_000


class Call:
    """One admitted request: decoded, and when the route is signed, verified."""

    __slots__ = ("body", "codec", "fields", "key", "node", "path", "query", "request", "state", "wall_ms")

    def __init__(self, node: Node, codec: Codec, wall_ms: int) -> None:
        self.node = node
        self.state: State = node.state
        self.codec = codec
        self.wall_ms = wall_ms
        self.path: dict[str, str] = {}
        self.query: Any = None
        self.body: Any = None
        self.key = ApiKey(0, 0)
        """Whose request it is; user 0 for an operator's and an unsigned one."""
        self.request: SignedRequest | None = None
        self.fields: list[Fields] = []
        """What the signed text says, of a request with a body: one entry per order.   [A-5]"""

    def subaccount(self, subaccount_id: int | None = None) -> Subaccount:
        """The signer's subaccount, or another of the same user."""
        if subaccount_id is None:
            return self.state.subaccounts[self.key.subaccount_id]
        if subaccount_id not in self.state.users[self.key.user_id].subaccount_ids:
            raise bad_request(f"Subaccount {subaccount_id} is none of this user's", "FORBIDDEN")
        return self.state.subaccounts[subaccount_id]

    def market_ids(self, symbol: str | None, types: Sequence[str]) -> list[int] | None:
        """The markets that a history is asked for; None for all."""
        if symbol is None and not types:
            return None
        return [
            market_id
            for market_id, market in self.state.markets.items()
            if (symbol is None or market.parameters.symbol == symbol)
            and (not types or MARKET_TYPE_NAMES[market.parameters.type] in types)
        ]

    def number(self, name: str) -> int:
        """The number at `{name}` of the path; what is none was never there."""
        text = self.path[name]
        if not (text.isascii() and text.isdecimal()) or len(text) > 18:
            raise not_found()
        return int(text)

    async def perform(self, instruction: str) -> Outcome:
        """Derive the command from the signed text, make it durable; ApiError when it is refused.   [A-4, A-5]"""
        command = command_of(instruction, self.fields, self.key.subaccount_id, self.key.user_id, self.state)
        return await self.submit(command)

    async def submit(self, command: Command) -> Outcome:
        outcome = await self.node.submit(command, self.request)
        if outcome.rejection is not None:
            raise refusal(outcome.rejection, self.state)
        return outcome


class Answer:
    """An answer that is more than a body with status 200."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: Any = None,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        self.body = body
        self.status = status
        self.headers = headers
        self.content_type = content_type


Handler = Callable[[Call], Awaitable[Any]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the route table, from which the server, the OpenAPI document and its tests are made."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    answer: Any = None
    """Type of the 200 answer; None for an empty body, str for plain text."""
    instruction: str | None = None
    """Signed with this instruction; None: public."""
    other_instructions: tuple[str, ...] = ()
    """What clients sign it with instead, where the contract names none; only for what changes nothing."""
    query: Any = NoQuery
    body: Any = None
    changes: bool = False
    """The request becomes a command, so its fields must be read from the signed text.   [A-5]"""
    operator: bool = False
    """Signed by an operator's key instead of a user's."""
    time_range: bool = False
    paged: bool = False
    statuses: tuple[int, ...] = ()
    """Statuses besides 200 and 400 that mean something here."""


def page_of(limit: int | None, offset: int | None, direction: str | None = None) -> Page:
    """The page asked for; newest first by default.   [W-3]"""
    size = PAGE_DEFAULT if limit is None else limit
    if not 0 < size <= PAGE_LIMIT:
        raise bad_request(f"limit {size} is not between 1 and {PAGE_LIMIT}")
    return Page(size, offset or 0, direction == "Asc")


def paged(rows: list[Any], page: Page, total: int) -> Answer:
    """The rows with the headers that say where in the history they are.   [W-3]"""
    names = ("X-PAGE-COUNT", "X-CURRENT-PAGE", "X-PAGE-SIZE", "X-TOTAL")
    values = (-(-total // page.limit), page.offset // page.limit + 1, page.limit, total)
    headers = {name: str(value) for name, value in zip(names, values, strict=True)}
    headers["ACCESS-CONTROL-EXPOSE-HEADERS"] = ", ".join(names)
    headers["CACHE-CONTROL"] = "no-store"
    return Answer(rows, headers=headers)
