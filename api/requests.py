"""What a signed text asks for: from instruction and fields to the engine's command, and from the text back to fields.

Pure. The edge derives every user command with `command_of` from the very text the user signed, and an auditor who has
only the log derives it again with the same two functions; so what was done can be compared with what was asked.  [A-5]
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import unquote

from api.contract import ErrorCode
from api.errors import (
    INVALID_MARKET,
    PRICE_TOO_LONG,
    QUANTITY_TOO_LONG,
    ApiError,
    bad_request,
    not_found,
    not_implemented,
)
from api.operations import operator_command
from engine.commands import (
    AddKey,
    BorrowLend,
    CancelAllOrders,
    CancelOrder,
    Command,
    ConvertDust,
    LendingSide,
    OpenSubaccount,
    OrderType,
    PlaceOrder,
    PlaceOrders,
    RequestWithdrawal,
    RevokeKey,
    SelfTrade,
    Side,
    TimeInForce,
    Transfer,
    UpdateAccount,
)
from engine.parameters import MarketParameters
from engine.state import State
from ledger.amounts import AmountError, format_decimal, parse_decimal

Fields = dict[str, str]
"""Wire name → value as it stands in the signed text, `null` left out."""

MAX_ORDER_ID = 2**63 - 1


def command_of(
    instruction: str, fields: Fields | list[Fields], subaccount_id: int, user_id: int, state: State
) -> Command:
    """The command that a signed request stands for; ApiError when it stands for none.

    A list is a batch of orders: those among them that stand for no order are left out, and a batch of one is the order.
    """
    if instruction == "orderExecute":
        if isinstance(fields, dict):
            return place_order(fields, subaccount_id, state)
        if len(fields) == 1:
            return place_order(fields[0], subaccount_id, state)
        placed = [order for order in orders_of(fields, subaccount_id, state) if isinstance(order, PlaceOrder)]
        return PlaceOrders(tuple(placed))
    build = _BUILDERS.get(instruction)
    if build is None:
        raise bad_request(f"instruction {instruction!r} changes nothing")
    if isinstance(fields, list):
        if len(fields) != 1:
            raise bad_request(f"{instruction} takes one request, not {len(fields)}")
        fields = fields[0]
    return build(fields, subaccount_id, user_id, state)


def fields_of(text: bytes) -> list[tuple[str, Fields]]:
    """(instruction, fields) of a signed text, raw or percent-encoded; ValueError when it cannot be read.

    `null` values are left out. A field that appears twice makes the text unreadable: it would have two meanings.
    """
    body, found, tail = text.decode().rpartition("&timestamp=")
    timestamp, window_found, window = tail.partition("&window=")
    if not (found and window_found and timestamp.isdecimal() and window.isdecimal()):
        raise ValueError("a signed text ends in &timestamp=…&window=…")
    groups: list[tuple[str, Fields]] = []
    seen: set[str] = set()
    for part in body.split("&"):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part[:40]!r} is not name=value")
        if name == "instruction":
            groups.append((value, {}))
            seen = set()
            continue
        if not groups:
            raise ValueError("a signed text begins with instruction=…")
        if name in seen:
            raise ValueError(f"field {name!r} appears twice")
        seen.add(name)
        value = unquote(value, errors="strict")
        if value != "null":
            groups[-1][1][name] = value
    if len({instruction for instruction, _fields in groups}) > 1:
        raise ValueError("a signed text has one instruction")
    return groups


def orders_of(batch: list[Fields], subaccount_id: int, state: State) -> list[PlaceOrder | ApiError]:
    """Each order of a batch, or why it is none; in the batch's order."""
    results: list[PlaceOrder | ApiError] = []
    for fields in batch:
        try:
            results.append(place_order(fields, subaccount_id, state))
        except ApiError as error:
            results.append(error)
    return results


_SIDES = {"Bid": Side.BID, "Ask": Side.ASK}
_ORDER_TYPES = {"Limit": OrderType.LIMIT, "Market": OrderType.MARKET}
_TIMES_IN_FORCE = {"GTC": TimeInForce.GTC, "IOC": TimeInForce.IOC, "FOK": TimeInForce.FOK}
_SELF_TRADES = {
    "RejectTaker": SelfTrade.REJECT_TAKER,
    "RejectMaker": SelfTrade.REJECT_MAKER,
    "RejectBoth": SelfTrade.REJECT_BOTH,
}
_LENDING_SIDES = {"Borrow": LendingSide.BORROW, "Lend": LendingSide.LEND}
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}

_LATER = frozenset(
    {
        "slippageTolerance",
        "slippageToleranceType",
        "stopLossLimitPrice",
        "stopLossTriggerBy",
        "stopLossTriggerPrice",
        "takeProfitLimitPrice",
        "takeProfitTriggerBy",
        "takeProfitTriggerPrice",
        "triggerBy",
        "triggerPrice",
        "triggerQuantity",
    }
)
"""What an order may ask for that this exchange cannot do yet. Ignoring it would do other than what was signed."""


def place_order(fields: Fields, subaccount_id: int, state: State) -> PlaceOrder:
    """One order of `orderExecute`.   [S-7]"""
    market = _market(fields, state)
    if not _LATER.isdisjoint(fields):
        _refuse_later(fields)
    order_type = _choice(fields, "orderType", _ORDER_TYPES)
    price_ticks = lots = quote_atoms = 0
    if order_type is OrderType.LIMIT:
        if "quoteQuantity" in fields:
            raise bad_request("A limit order has a quantity, not a quoteQuantity", "INVALID_ORDER")
        price_ticks = _price_ticks(_needed(fields, "price"), market)
        lots = _lots(_needed(fields, "quantity"), market, state)
    else:
        if "price" in fields:
            raise bad_request("A market order has no price", "INVALID_ORDER")
        if ("quantity" in fields) == ("quoteQuantity" in fields):
            raise bad_request("A market order has either quantity or quoteQuantity", "INVALID_ORDER")
        if "quantity" in fields:
            lots = _lots(fields["quantity"], market, state)
        else:
            quote_atoms = _atoms(fields["quoteQuantity"], market.quote_asset_id, state, "quoteQuantity")
    return PlaceOrder(
        subaccount_id,
        market.market_id,
        _choice(fields, "side", _SIDES),
        order_type,
        _choice(fields, "timeInForce", _TIMES_IN_FORCE, TimeInForce.GTC),
        price_ticks,
        lots,
        quote_atoms,
        "postOnly" in fields and _boolean(fields, "postOnly"),
        "reduceOnly" in fields and _boolean(fields, "reduceOnly"),
        _choice(fields, "selfTradePrevention", _SELF_TRADES, SelfTrade.REJECT_TAKER),
        _client_id(fields),
        "autoLend" in fields and _boolean(fields, "autoLend"),
        "autoLendRedeem" in fields and _boolean(fields, "autoLendRedeem"),
        "autoBorrow" in fields and _boolean(fields, "autoBorrow"),
        "autoBorrowRepay" in fields and _boolean(fields, "autoBorrowRepay"),
    )


def _refuse_later(fields: Fields) -> None:
    for name in sorted(_LATER.intersection(fields)):
        raise not_implemented(f"{name} of an order")


def _cancel_order(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> CancelOrder:
    market = _market(fields, state)
    if ("orderId" in fields) == ("clientId" in fields):
        raise bad_request("Must specify exactly one of `orderId` and `clientId`")
    order_id = order_id_of(fields["orderId"]) if "orderId" in fields else None
    return CancelOrder(subaccount_id, market.market_id, order_id, _client_id(fields))


def _cancel_all(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> CancelAllOrders:
    kind = fields.get("orderType", "RestingLimitOrder")
    if kind != "RestingLimitOrder":
        raise not_implemented(f"orderType {kind} of a cancel")
    return CancelAllOrders(subaccount_id, _market(fields, state).market_id)


def _update_account(fields: Fields, subaccount_id: int, _user_id: int, _state: State) -> UpdateAccount:
    leverage = None
    if "leverageLimit" in fields:
        try:
            leverage = parse_decimal(fields["leverageLimit"], 9)
        except AmountError as error:
            raise bad_request(f"leverageLimit: {error}", "MAX_LEVERAGE_REACHED") from None
    return UpdateAccount(
        subaccount_id,
        auto_lend=_maybe(fields, "autoLend"),
        auto_repay_borrows=_maybe(fields, "autoRepayBorrows"),
        auto_borrow_settlements=_maybe(fields, "autoBorrowSettlements"),
        auto_realize_pnl=_maybe(fields, "autoRealizePnl"),
        leverage_limit=leverage,
    )


def _withdraw(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> RequestWithdrawal:
    asset_id = asset_of(_needed(fields, "symbol"), state)
    chain_id = chain_of(_needed(fields, "blockchain"), state)
    atoms = _atoms(_needed(fields, "quantity"), asset_id, state, "quantity", step=True)
    return RequestWithdrawal(
        subaccount_id,
        chain_id,
        asset_id,
        atoms,
        _needed(fields, "address"),
        fields.get("clientId", ""),
        auto_borrow=_maybe(fields, "autoBorrow") or False,
        auto_lend_redeem=_maybe(fields, "autoLendRedeem") or False,
    )


def _transfer(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> Transfer:
    asset_id = asset_of(_needed(fields, "symbol"), state)
    target = _integer(_needed(fields, "toSubaccountId"), "toSubaccountId", 2**31 - 1)
    atoms = _atoms(_needed(fields, "quantity"), asset_id, state, "quantity")
    return Transfer(subaccount_id, target, asset_id, atoms, _maybe(fields, "autoBorrow") or False)


def borrow_lend(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> BorrowLend:
    """A loan by hand. What is more precise than the asset is an invalid quantity here; its step the engine judges.

    [B-8, B-10]
    """
    asset_id = asset_of(_needed(fields, "symbol"), state)
    side = _choice(fields, "side", _LENDING_SIDES)
    text = _needed(fields, "quantity")
    try:
        atoms = _atoms(text, asset_id, state, "quantity")
    except ApiError as error:
        raise bad_request(error.message, "INVALID_QUANTITY") from None
    return BorrowLend(subaccount_id, asset_id, side, atoms)


def _convert_dust(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> ConvertDust:
    return ConvertDust(subaccount_id, asset_of(fields["symbol"], state) if "symbol" in fields else 0)


def _open_subaccount(fields: Fields, _subaccount_id: int, user_id: int, _state: State) -> OpenSubaccount:
    return OpenSubaccount(user_id, public_key_of(_needed(fields, "publicKey")))


def _add_key(fields: Fields, subaccount_id: int, _user_id: int, _state: State) -> AddKey:
    return AddKey(_own_subaccount(fields, subaccount_id), public_key_of(_needed(fields, "publicKey")))


def _revoke_key(fields: Fields, subaccount_id: int, _user_id: int, _state: State) -> RevokeKey:
    return RevokeKey(_own_subaccount(fields, subaccount_id), public_key_of(_needed(fields, "publicKey")))


def _operate(fields: Fields, _subaccount_id: int, _user_id: int, _state: State) -> Command:
    return operator_command(_needed(fields, "command"), _needed(fields, "arguments"))


_BUILDERS: dict[str, Callable[[Fields, int, int, State], Command]] = {
    "accountUpdate": _update_account,
    "borrowLendExecute": borrow_lend,
    "convertDust": _convert_dust,
    "keyAdd": _add_key,
    "keyRevoke": _revoke_key,
    "operatorExecute": _operate,
    "orderCancel": _cancel_order,
    "orderCancelAll": _cancel_all,
    "subaccountOpen": _open_subaccount,
    "transferExecute": _transfer,
    "withdraw": _withdraw,
}
"""Instruction → command; `orderExecute` apart, since it comes in batches.   [W-2]"""


def market_of(symbol: str, state: State) -> MarketParameters:
    """The market of that symbol.   [W-4]"""
    for market in state.markets.values():
        if market.parameters.symbol == symbol:
            return market.parameters
    raise bad_request(INVALID_MARKET)


def asset_of(symbol: str, state: State) -> int:
    for asset_id, asset in state.assets.items():
        if asset.symbol == symbol:
            return asset_id
    raise bad_request(f"Unknown asset {symbol[:40]!r}", "INVALID_ASSET")


def chain_of(name: str, state: State) -> int:
    for chain_id, chain in state.chains.items():
        if chain.name == name:
            return chain_id
    raise bad_request(f"Unknown blockchain {name[:40]!r}")


def order_id_of(text: str) -> int:
    """An order's id; what is none of ours cannot be found.   [W-4]"""
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) > MAX_ORDER_ID:
        raise not_found()
    return int(text)


def public_key_of(text: str) -> bytes:
    """A 32-byte Ed25519 key from base64, standard alphabet, padded."""
    try:
        key = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise bad_request("publicKey is not base64") from None
    if len(key) != 32:
        raise bad_request(f"publicKey has {len(key)} bytes, not 32")
    return key


def _market(fields: Fields, state: State) -> MarketParameters:
    return market_of(_needed(fields, "symbol"), state)


def _needed(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise bad_request(f"Missing field `{name}`")
    return value


def _choice(fields: Fields, name: str, choices: dict[str, Any], default: Any = None) -> Any:
    value = fields.get(name)
    if value is None:
        if default is None:
            raise bad_request(f"Missing field `{name}`")
        return default
    chosen = choices.get(value)
    if chosen is None:
        raise bad_request(f"{name} {value[:40]!r} is none of {', '.join(choices)}")
    return chosen


def _boolean(fields: Fields, name: str) -> bool:
    value = _BOOLEANS.get(fields[name])
    if value is None:
        raise bad_request(f"{name} {fields[name][:40]!r} is neither true nor false")
    return value


def _maybe(fields: Fields, name: str) -> bool | None:
    return _boolean(fields, name) if name in fields else None


def _client_id(fields: Fields) -> int | None:
    return _integer(fields["clientId"], "clientId", 2**32 - 1) if "clientId" in fields else None


def _integer(text: str, name: str, maximum: int) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 20:
        raise bad_request(f"{name} {text[:40]!r} is not a whole number")
    value = int(text)
    if value > maximum:
        raise bad_request(f"{name} {value} is more than {maximum}")
    return value


def _own_subaccount(fields: Fields, subaccount_id: int) -> int:
    if "subaccountId" not in fields:
        return subaccount_id
    return _integer(fields["subaccountId"], "subaccountId", 2**31 - 1)


def _price_ticks(text: str, market: MarketParameters) -> int:
    """The price in ticks; a price between ticks is refused, never rounded.   [W-4, A-3]"""
    try:
        price = parse_decimal(text, 12, limit=2**100)
    except AmountError as error:
        _refuse_decimal(text, 12, "price", "INVALID_PRICE", PRICE_TOO_LONG, error)
    if price <= 0:
        raise bad_request(f"price {text[:40]} is not above zero", "INVALID_PRICE")
    ticks, rest = divmod(price, market.tick_price)
    if rest:
        raise bad_request(PRICE_TOO_LONG)
    if ticks >= 2**53:
        raise bad_request(f"price {text[:40]} is out of range", "INVALID_PRICE")
    return ticks


def _lots(text: str, market: MarketParameters, state: State) -> int:
    """The quantity in lots; what is no whole number of lots is refused.   [W-4, A-3]"""
    atoms = _atoms(text, market.base_asset_id, state, "quantity")
    lots, rest = divmod(atoms, market.lot_atoms)
    if rest:
        raise bad_request(QUANTITY_TOO_LONG)
    return lots


def _atoms(text: str, asset_id: int, state: State, name: str, *, step: bool = False) -> int:
    """An amount above zero in atoms; with `step` a multiple of the asset's step."""
    asset = state.assets[asset_id]
    try:
        atoms = parse_decimal(text, asset.decimals)
    except AmountError as error:
        _refuse_decimal(text, asset.decimals, name, "INVALID_QUANTITY", QUANTITY_TOO_LONG, error)
    if atoms <= 0:
        raise bad_request(f"{name} {text[:40]} is not above zero", "INVALID_QUANTITY")
    if step and atoms % asset.step_atoms:
        smallest = format_decimal(asset.step_atoms, asset.decimals)
        raise bad_request(f"{name} {text[:40]} is not a multiple of {smallest} {asset.symbol}", "INVALID_QUANTITY")
    return atoms


def _refuse_decimal(
    text: str, decimals: int, name: str, code: ErrorCode, too_long: str, error: AmountError
) -> NoReturn:
    """Too precise is the client's request that is invalid, too large or no number the value.   [W-4]"""
    try:
        parse_decimal(text, 60, limit=10**120)
    except AmountError:
        raise bad_request(f"{name}: {error}", code) from None
    if len(text.partition(".")[2].rstrip("0")) > decimals:
        raise bad_request(too_long) from None
    raise bad_request(f"{name}: {error}", code) from None
