"""The devnet's own routes: keys, faucet, prices, clock, epochs on demand, an operator's commands.

Absent (404) without the flag.   [W-9]
"""

from __future__ import annotations

import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from aiohttp import web

from api.contract import Int64
from api.errors import ApiError, bad_request, refusal
from api.node import Node
from api.operations import operator_command, plain_reply
from api.rest.dispatch import read_body
from engine.commands import AdvanceClock, ClockMode, CloseEpoch, Command, RegisterKey, SetClock, SetPrices
from engine.events import EpochClosed, KeyAdded
from engine.parameters import PRICE_SCALE
from ledger.amounts import AmountError, parse_decimal

PRICE_DECIMALS = len(str(PRICE_SCALE)) - 1
MAX_ADVANCE_MS = 400 * 24 * 3_600_000


Id = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""Of a user or a subaccount."""


class KeyRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    public_key: str
    user_id: Id | None = None
    subaccount_id: Id | None = None


class FaucetRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    user_id: Id
    subaccount_id: Id
    symbol: str
    quantity: str


class ClockRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    mode: str | None = None
    advance_ms: Int64 | None = None


class OperatorRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    command: str
    arguments: dict[str, Any]


class Devnet:
    """The six routes of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/dev/v1/keys", _from_here(self.keys)),
            web.post("/dev/v1/faucet", _from_here(self.faucet)),
            web.post("/dev/v1/prices", _from_here(self.prices)),
            web.post("/dev/v1/clock", _from_here(self.clock)),
            web.post("/dev/v1/por", _from_here(self.por)),
            web.post("/dev/v1/operator", _from_here(self.operator)),
        ]

    async def keys(self, request: web.Request) -> web.Response:
        """Register an API key; the user or subaccount is opened when absent. Repeating it changes nothing."""
        body = await _read(request, KeyRequest)
        try:
            public_key = b64decode(body.public_key, validate=True)
        except (Base64Error, ValueError):
            raise bad_request("publicKey is not base64") from None
        if len(public_key) != 32:
            raise bad_request(f"publicKey has {len(public_key)} bytes, an Ed25519 key has 32")
        state = self._node.state
        known = state.api_keys.get(public_key)
        if (
            known is not None
            and body.user_id in (None, known.user_id)
            and body.subaccount_id
            in (
                None,
                known.subaccount_id,
            )
        ):
            return _answer({"userId": known.user_id, "subaccountId": known.subaccount_id})
        user_id, subaccount_id = body.user_id or 0, body.subaccount_id or 0
        subaccount = state.subaccounts.get(subaccount_id)
        if subaccount is not None and not user_id:
            user_id = subaccount.user.user_id
        added: KeyAdded = await self._submit(RegisterKey(public_key, user_id, subaccount_id))
        return _answer({"userId": added.user_id, "subaccountId": added.subaccount_id})

    async def faucet(self, request: web.Request) -> web.Response:
        """A deposit on the simulated chain; answers when it is credited and can be spent."""
        body = await _read(request, FaucetRequest)
        state = self._node.state
        subaccount = state.subaccounts.get(body.subaccount_id)
        if subaccount is None or subaccount.user.user_id != body.user_id:
            raise bad_request(f"user {body.user_id} has no subaccount {body.subaccount_id}")
        asset = next((each for each in state.assets.values() if each.symbol == body.symbol), None)
        if asset is None:
            raise bad_request(f"unknown symbol {body.symbol[:40]}", "INVALID_SYMBOL")
        try:
            atoms = parse_decimal(body.quantity, asset.decimals)
        except AmountError as error:
            raise bad_request(str(error), "INVALID_QUANTITY") from None
        if atoms <= 0:
            raise bad_request(f"quantity {body.quantity} is not above zero", "INVALID_QUANTITY")
        held = state.held(body.subaccount_id, asset.asset_id)
        if held + atoms >= 1 << 63:
            raise bad_request(f"quantity {body.quantity} is more than an account can hold", "INVALID_QUANTITY")
        tx_id = await self._node.desk.faucet(body.subaccount_id, asset.asset_id, atoms)
        return _answer({"symbol": body.symbol, "quantity": body.quantity, "transactionHash": tx_id})

    async def prices(self, request: web.Request) -> web.Response:
        """Feed index prices in USD; a price stays live until it is replaced.   [P-1]"""
        body = await _read(request, dict[str, str])
        symbols = {asset.symbol: asset.asset_id for asset in self._node.state.assets.values()}
        prices: list[tuple[int, int]] = []
        for symbol, text in body.items():
            if symbol not in symbols:
                raise bad_request(f"unknown symbol {symbol[:40]}", "INVALID_SYMBOL")
            try:
                price = parse_decimal(text, PRICE_DECIMALS)
            except AmountError as error:
                raise bad_request(f"price of {symbol}: {error}", "INVALID_PRICE") from None
            if price <= 0:
                raise bad_request(f"price of {symbol}: {text} is not above zero", "INVALID_PRICE")
            prices.append((symbols[symbol], price))
        if prices:
            await self._submit(SetPrices(tuple(sorted(prices))))
        return _answer({"prices": body})

    async def clock(self, request: web.Request) -> web.Response:
        """Stop, move or restart exchange time; answers when every tick due in between has run.   [S-15]"""
        body = await _read(request, ClockRequest)
        if body.mode is None and body.advance_ms is None:
            raise bad_request('one of mode ("manual" or "real") and advanceMs is needed')
        if body.mode not in (None, "manual", "real"):
            raise bad_request(f'mode {str(body.mode)[:40]!r} is neither "manual" nor "real"')
        if body.advance_ms is not None and not 0 <= body.advance_ms <= MAX_ADVANCE_MS:
            raise bad_request(f"advanceMs {body.advance_ms} is not between 0 and {MAX_ADVANCE_MS}")
        if body.mode is not None:
            await self._set_mode(ClockMode.MANUAL if body.mode == "manual" else ClockMode.REAL)
        if body.advance_ms is not None:
            await self._advance(body.advance_ms)
        return _answer({"now": self._node.now_us() // 1_000})

    async def por(self, request: web.Request) -> web.Response:
        """Run a proof-of-reserves epoch now; answers its header.   [R-1]"""
        if request.can_read_body:
            await _read(request, dict[str, Any], empty=True)
        outcome = await self._node.submit(CloseEpoch(0))
        if outcome.rejection is not None:
            raise refusal(outcome.rejection, self._node.state)
        assert isinstance(outcome.reply, EpochClosed)
        header = await self._node.epochs.published(outcome.reply)
        return web.Response(text=header.text(), content_type="application/json")

    async def operator(self, request: web.Request) -> web.Response:
        """An operator's command, unsigned: a devnet's genesis names no operator's key.   [W-7, W-9]"""
        body = await _read(request, OperatorRequest)
        reply = await self._submit(operator_command(body.command, msgspec.json.encode(body.arguments).decode()))
        return _answer({"reply": plain_reply(reply)})

    async def _set_mode(self, mode: ClockMode) -> None:
        offset_us = 0
        if mode == ClockMode.REAL:
            offset_us = max(0, self._node.now_us() - time.time_ns() // 1_000)
        await self._submit(SetClock(mode, offset_us))

    async def _advance(self, advance_ms: int) -> None:
        """In real mode exchange time jumps ahead and runs on from there."""
        was = self._node.state.clock_mode
        if was != ClockMode.MANUAL:
            await self._submit(SetClock(ClockMode.MANUAL))
        await self._submit(AdvanceClock(self._node.now_us() + advance_ms * 1_000))
        if was != ClockMode.MANUAL:
            await self._set_mode(was)
        await self._node.epochs.settled()

    async def _submit(self, command: Command) -> Any:
        outcome = await self._node.submit(command)
        if outcome.rejection is not None:
            raise refusal(outcome.rejection, self._node.state)
        return outcome.reply


def _from_here(handler: Callable[[web.Request], Awaitable[web.Response]]) -> Any:
    """Refuse what a page of another origin made a browser send; programs send no Origin at all.   [T-10]

    The devnet's routes are unsigned, so a page that its developer merely visits could otherwise use them.
    """

    async def guarded(request: web.Request) -> web.Response:
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2].lower() != request.headers.get("Host", "").lower():
            raise ApiError(403, "FORBIDDEN", f"Origin {origin[:80]!a} is not this exchange")
        return await handler(request)

    return guarded


async def _read(request: web.Request, kind: Any, *, empty: bool = False) -> Any:
    """The JSON body as `kind`; what is wrong with it as a 400."""
    raw = await read_body(request)
    if empty and not raw.strip():
        return {}
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"parse request payload error: {error}") from None


def _answer(content: dict[str, Any]) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")
