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

from msgspec import structs

from api.contract import ErrorCode
from api.errors import (
    INVALID_MARKET,
    PRICE_TOO_LONG,
    QUANTITY_TOO_LONG,
    TRIGGER_IN_PART,
    ApiError,
    bad_request,
    not_found,
)
from api.operations import operator_command
from engine.commands import (
    AcceptQuote,
    AddKey,
    AddLiquidity,
    BorrowLend,
    Bracket,
    CancelAllOrders,
    CancelAllStrategies,
    CancelOrder,
    CancelRfq,
    CancelStrategy,
    CloseLong,
    Command,
    ConvertDust,
    CreateStrategy,
    LendingSide,
    OpenLong,
    OpenSubaccount,
    OrderType,
    PlaceOrder,
    PlaceOrders,
    RefreshRfq,
    RegisterBackstop,
    RemoveLiquidity,
    RequestWithdrawal,
    RevokeKey,
    SelfTrade,
    Side,
    SlippageKind,
    SubmitQuote,
    SubmitRfq,
    SwapAssets,
    TimeInForce,
    Transfer,
    TriggerBy,
    UpdateAccount,
)
from engine.parameters import DEC, MarketParameters, PoolParameters
from engine.state import State
from ledger.amounts import INT64_MAX, AmountError, format_decimal, parse_decimal

Fields = dict[str, str]
"""Wire name → value as it stands in the signed text, `null` left out."""

MAX_ORDER_ID = 2**63 - 1
MAX_LEVERAGE = 18
"""Of a leveraged long: what an integer of the log holds in 1e-18."""
LEVERAGE_DECIMALS = 18


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

_TRIGGERS = {"LastPrice": TriggerBy.LAST, "MarkPrice": TriggerBy.MARK, "IndexPrice": TriggerBy.INDEX}
_SLIPPAGES = {"TickSize": SlippageKind.TICKS, "Percent": SlippageKind.PERCENT}
_CANCEL_TYPES = {name: name for name in ("RestingLimitOrder", "ConditionalOrder")}
_EXECUTION_MODES = {"AwaitAccept": False, "Immediate": True}
_STRATEGY_TYPES = {"Scheduled": True}

_CONDITIONAL = frozenset(
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
        "triggeredBy",
    }
)
"""What only some orders ask for: one look tells that a plain order has none of it."""


def place_order(fields: Fields, subaccount_id: int, state: State) -> PlaceOrder:
    """One order of `orderExecute`.   [S-7]"""
    market = _market(fields, state)
    order_type = _choice(fields, "orderType", _ORDER_TYPES)
    is_conditional = not _CONDITIONAL.isdisjoint(fields)
    triggers = is_conditional and "triggerPrice" in fields
    price_ticks = lots = quote_atoms = 0
    if order_type is OrderType.LIMIT:
        if "quoteQuantity" in fields:
            raise bad_request("A limit order has a quantity, not a quoteQuantity", "INVALID_ORDER")
        price_ticks = _price_ticks(_needed(fields, "price"), market)
        if not triggers:
            lots = _lots(_needed(fields, "quantity"), market, state)
    else:
        if "price" in fields:
            raise bad_request("A market order has no price", "INVALID_ORDER")
        if not triggers and ("quantity" in fields) == ("quoteQuantity" in fields):
            raise bad_request("A market order has either quantity or quoteQuantity", "INVALID_ORDER")
        if triggers:
            pass
        elif "quantity" in fields:
            lots = _lots(fields["quantity"], market, state)
        else:
            quote_atoms = _atoms(fields["quoteQuantity"], market.quote_asset_id, state, "quoteQuantity")
    order = PlaceOrder(
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
    return _with_conditions(order, fields, market, state) if is_conditional else order


def _with_conditions(order: PlaceOrder, fields: Fields, market: MarketParameters, state: State) -> PlaceOrder:
    """The trigger, brackets and slippage that an order asks for; what is told in part is refused.   [S-7, S-9]"""
    changed: dict[str, Any] = {
        "stop_loss": _bracket(fields, "stopLoss", market),
        "take_profit": _bracket(fields, "takeProfit", market),
        **_slippage(fields),
    }
    if ("triggerPrice" in fields) != ("triggerQuantity" in fields):
        raise bad_request(TRIGGER_IN_PART)
    if "triggerPrice" in fields:
        changed |= _trigger(fields, market, state)
    elif "triggerBy" in fields or "triggeredBy" in fields:
        raise bad_request(TRIGGER_IN_PART)
    if "triggerBy" in fields and fields.get("triggeredBy", fields["triggerBy"]) != fields["triggerBy"]:
        raise bad_request("triggerBy and triggeredBy differ", "INVALID_ORDER")
    return structs.replace(order, **changed)


def _trigger(fields: Fields, market: MarketParameters, state: State) -> dict[str, Any]:
    """When it triggers and over how much: a quantity, or a percentage of the position as in `80%`.   [S-9]"""
    if "quoteQuantity" in fields:
        raise bad_request("A trigger order has a triggerQuantity, not a quoteQuantity", "INVALID_ORDER")
    # bpx-py says triggeredBy.
    by = "triggerBy" if "triggerBy" in fields else "triggeredBy"
    changed: dict[str, Any] = {
        "trigger_by": _choice(fields, by, _TRIGGERS, TriggerBy.LAST),
        "trigger_price_ticks": _price_ticks(fields["triggerPrice"], market),
    }
    quantity = fields["triggerQuantity"]
    if quantity.endswith("%"):
        changed |= {"trigger_percent": _percent(quantity[:-1], "triggerQuantity", "INVALID_QUANTITY"), "lots": 0}
    else:
        changed["lots"] = _lots(quantity, market, state)
    # bpx-py always sends a quantity too.
    if "quantity" in fields and _lots(fields["quantity"], market, state) != changed["lots"]:
        raise bad_request("quantity of a trigger order is its triggerQuantity or left out", "INVALID_ORDER")
    return changed


def _bracket(fields: Fields, name: str, market: MarketParameters) -> Bracket | None:
    """A take-profit or stop-loss: its trigger price, and a limit price unless it is a market order.   [S-9]"""
    price, by, limit = f"{name}TriggerPrice", f"{name}TriggerBy", f"{name}LimitPrice"
    if price not in fields:
        if by in fields or limit in fields:
            raise bad_request(f"Missing field `{price}`")
        return None
    limit_ticks = _price_ticks(fields[limit], market) if limit in fields else 0
    return Bracket(_choice(fields, by, _TRIGGERS, TriggerBy.LAST), _price_ticks(fields[price], market), limit_ticks)


def _slippage(fields: Fields) -> dict[str, Any]:
    """Tolerance in ticks or in percent of the best opposite price; both fields or neither.   [S-7]"""
    if ("slippageTolerance" in fields) != ("slippageToleranceType" in fields):
        raise bad_request("Must specify both `slippageTolerance` and `slippageToleranceType` or neither")
    if "slippageTolerance" not in fields:
        return {}
    kind = _choice(fields, "slippageToleranceType", _SLIPPAGES)
    text = fields["slippageTolerance"]
    if kind is SlippageKind.PERCENT:
        return {"slippage": _percent(text, "slippageTolerance", "INVALID_ORDER"), "slippage_kind": kind}
    return {"slippage": _integer(text, "slippageTolerance", 2**53), "slippage_kind": kind}


def _percent(text: str, name: str, code: ErrorCode) -> int:
    """A percentage above 0 and up to 100 as a fraction in 1e-9; finer than that is refused, never rounded."""
    try:
        fraction = parse_decimal(text, 7)
    except AmountError as error:
        raise bad_request(f"{name}: {error}", code) from None
    if not 0 < fraction <= 10**9:
        raise bad_request(f"{name} {text[:40]} is not between 0 and 100 percent", code)
    return fraction


def _create_strategy(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> CreateStrategy:
    """A scheduled strategy; duration and interval in ms.   [S-7]"""
    market = _market(fields, state)
    _choice(fields, "strategyType", _STRATEGY_TYPES)
    slippage = _slippage(fields)
    return CreateStrategy(
        subaccount_id,
        market.market_id,
        _choice(fields, "side", _SIDES),
        _lots(_needed(fields, "quantity"), market, state),
        _integer(_needed(fields, "duration"), "duration", 2**53),
        _integer(_needed(fields, "interval"), "interval", 2**53),
        _price_ticks(fields["price"], market) if "price" in fields else 0,
        _maybe(fields, "randomizedIntervalQuantity") or False,
        _maybe(fields, "reduceOnly") or False,
        _choice(fields, "selfTradePrevention", _SELF_TRADES, SelfTrade.REJECT_TAKER),
        _integer(fields["clientStrategyId"], "clientStrategyId", 2**32 - 1) if "clientStrategyId" in fields else None,
        slippage=slippage.get("slippage", 0),
        slippage_kind=slippage.get("slippage_kind", SlippageKind.NONE),
        time_in_force=_choice(fields, "timeInForce", _TIMES_IN_FORCE, TimeInForce.GTC),
        post_only=_maybe(fields, "postOnly") or False,
        **_lending_flags(fields),
    )


def _cancel_strategy(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> CancelStrategy:
    market = _market(fields, state)
    if ("strategyId" in fields) == ("clientStrategyId" in fields):
        raise bad_request("Must specify exactly one of `strategyId` and `clientStrategyId`")
    if "strategyId" in fields:
        return CancelStrategy(subaccount_id, market.market_id, order_id_of(fields["strategyId"]))
    client_id = _integer(fields["clientStrategyId"], "clientStrategyId", 2**32 - 1)
    return CancelStrategy(subaccount_id, market.market_id, None, client_id)


def _cancel_strategies(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> CancelAllStrategies:
    _choice(fields, "strategyType", _STRATEGY_TYPES, True)
    return CancelAllStrategies(subaccount_id, _market(fields, state).market_id)


def _submit_rfq(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> SubmitRfq:
    """A request for quotes over a quantity or a quote quantity.   [S-7]"""
    market = _market(fields, state)
    if ("quantity" in fields) == ("quoteQuantity" in fields):
        raise bad_request("A request for quotes has either quantity or quoteQuantity", "INVALID_QUANTITY")
    quote_atoms = 0
    if "quoteQuantity" in fields:
        quote_atoms = _atoms(fields["quoteQuantity"], market.quote_asset_id, state, "quoteQuantity")
    return SubmitRfq(
        subaccount_id,
        market.market_id,
        _choice(fields, "side", _SIDES),
        _lots(fields["quantity"], market, state) if "quantity" in fields else 0,
        quote_atoms,
        _price_ticks(fields["price"], market) if "price" in fields else 0,
        _choice(fields, "executionMode", _EXECUTION_MODES) if "executionMode" in fields else False,
        _client_id(fields),
        **_lending_flags(fields),
    )


def _refresh_rfq(fields: Fields, subaccount_id: int, _user_id: int, _state: State) -> RefreshRfq:
    return RefreshRfq(subaccount_id, order_id_of(_needed(fields, "rfqId")))


def _cancel_rfq(fields: Fields, subaccount_id: int, _user_id: int, _state: State) -> CancelRfq:
    if ("rfqId" in fields) == ("clientId" in fields):
        raise bad_request("Must specify exactly one of `rfqId` and `clientId`")
    return CancelRfq(subaccount_id, order_id_of(fields["rfqId"]) if "rfqId" in fields else None, _client_id(fields))


def _submit_quote(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> SubmitQuote:
    """Two prices for a request; their tick is that of the request's market.   [S-7]"""
    rfq_id = order_id_of(_needed(fields, "rfqId"))
    asked = state.rfqs.get(rfq_id)
    if asked is None:
        raise not_found()
    market = state.markets[asked.view.market_id].parameters
    return SubmitQuote(
        subaccount_id,
        rfq_id,
        _price_ticks(_needed(fields, "bidPrice"), market),
        _price_ticks(_needed(fields, "askPrice"), market),
        _client_id(fields),
        **_lending_flags(fields),
    )


def _accept_quote(fields: Fields, subaccount_id: int, _user_id: int, _state: State) -> AcceptQuote:
    rfq_id = order_id_of(fields["rfqId"]) if "rfqId" in fields else None
    client_id = _client_id(fields)
    if rfq_id is not None and client_id is not None:
        raise bad_request("Must specify at most one of `rfqId` and `clientId`")
    return AcceptQuote(subaccount_id, order_id_of(_needed(fields, "quoteId")), rfq_id, client_id)


def _lending_flags(fields: Fields) -> dict[str, bool]:
    names = {
        "auto_lend": "autoLend",
        "auto_lend_redeem": "autoLendRedeem",
        "auto_borrow": "autoBorrow",
        "auto_borrow_repay": "autoBorrowRepay",
    }
    return {name: _maybe(fields, field) or False for name, field in names.items()}


def _cancel_order(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> CancelOrder:
    market = _market(fields, state)
    if ("orderId" in fields) == ("clientId" in fields):
        raise bad_request("Must specify exactly one of `orderId` and `clientId`")
    order_id = order_id_of(fields["orderId"]) if "orderId" in fields else None
    return CancelOrder(subaccount_id, market.market_id, order_id, _client_id(fields))


def _cancel_all(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> CancelAllOrders:
    """Resting orders, waiting ones, or, when no type is named, both."""
    market_id = _market(fields, state).market_id
    kind = _choice(fields, "orderType", _CANCEL_TYPES) if "orderType" in fields else None
    return CancelAllOrders(
        subaccount_id, market_id, resting=kind != "ConditionalOrder", waiting=kind != "RestingLimitOrder"
    )


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


def _register_backstop(fields: Fields, subaccount_id: int, _user_id: int, _state: State) -> RegisterBackstop:
    try:
        notional = parse_decimal(_needed(fields, "notional"), 8)
    except AmountError as error:
        raise bad_request(f"notional: {error}") from None
    return RegisterBackstop(subaccount_id, notional)


def _swap_assets(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> SwapAssets:
    """A swap through one liquidity pool or two.   [X-1, X-2]"""
    paid, wanted = asset_of(_needed(fields, "fromSymbol"), state), asset_of(_needed(fields, "toSymbol"), state)
    atoms = _atoms(_needed(fields, "quantity"), paid, state, "quantity")
    return SwapAssets(subaccount_id, paid, wanted, atoms, _least(fields, "minReceived", wanted, state, 1))


def _add_liquidity(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> AddLiquidity:
    """Both sides, or one of them.   [X-3]"""
    pool = pool_of(_needed(fields, "symbol"), state)
    native, external = sides_of(fields.get("nativeQuantity"), fields.get("externalQuantity"), pool, state)
    units = _least(fields, "minUnits", pool.native_asset_id, state)
    return AddLiquidity(subaccount_id, pool.pool_id, native, external, units)


def _remove_liquidity(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> RemoveLiquidity:
    """By units, which have the native asset's decimals, or by basis points of all that are held.   [X-4]"""
    pool = pool_of(_needed(fields, "symbol"), state)
    if ("units" in fields) == ("basisPoints" in fields):
        raise bad_request("Must specify exactly one of `units` and `basisPoints`", "INVALID_QUANTITY")
    return RemoveLiquidity(
        subaccount_id,
        pool.pool_id,
        _atoms(fields["units"], pool.native_asset_id, state, "units") if "units" in fields else 0,
        _integer(fields["basisPoints"], "basisPoints", 10_000) if "basisPoints" in fields else 0,
        _least(fields, "minNative", pool.native_asset_id, state),
        _least(fields, "minExternal", pool.pool_id, state),
    )


def _open_long(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> OpenLong:
    """A leveraged long of one side of a pool against collateral of the other.   [X-5]"""
    collateral = asset_of(_needed(fields, "collateralSymbol"), state)
    custody = asset_of(_needed(fields, "custodySymbol"), state)
    atoms = _atoms(_needed(fields, "quantity"), collateral, state, "quantity")
    leverage = leverage_of(_needed(fields, "leverage"))
    return OpenLong(
        subaccount_id, collateral, custody, atoms, leverage, _least(fields, "minCustody", custody, state)
    )


def _close_long(fields: Fields, subaccount_id: int, _user_id: int, state: State) -> CloseLong:
    """A position as a whole; what comes back is in its collateral's asset.   [X-10]"""
    position_id = order_id_of(_needed(fields, "positionId"))
    position = state.amm_positions.get(position_id)
    if position is None:
        # The engine knows whether this very request closed it before.  
        return CloseLong(subaccount_id, position_id, INT64_MAX if "minReceived" in fields else 0)
    parameters = state.amm_pools[position.pool_id].parameters
    returned = parameters.native_asset_id if position.is_native_collateral else parameters.pool_id
    return CloseLong(subaccount_id, position_id, _least(fields, "minReceived", returned, state))


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
    "backstopRegister": _register_backstop,
    "borrowLendExecute": borrow_lend,
    "convertDust": _convert_dust,
    "keyAdd": _add_key,
    "keyRevoke": _revoke_key,
    "operatorExecute": _operate,
    "orderCancel": _cancel_order,
    "orderCancelAll": _cancel_all,
    "poolLiquidityAdd": _add_liquidity,
    "poolLiquidityRemove": _remove_liquidity,
    "poolPositionClose": _close_long,
    "poolPositionOpen": _open_long,
    "poolSwapExecute": _swap_assets,
    "quoteAccept": _accept_quote,
    "quoteSubmit": _submit_quote,
    "rfqCancel": _cancel_rfq,
    "rfqRefresh": _refresh_rfq,
    "rfqSubmit": _submit_rfq,
    "strategyCancel": _cancel_strategy,
    "strategyCancelAll": _cancel_strategies,
    "strategyCreate": _create_strategy,
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


def pool_of(symbol: str, state: State) -> PoolParameters:
    """The liquidity pool of that external asset.   [X]"""
    pool = state.amm_pools.get(asset_of(symbol, state))
    if pool is None:
        raise bad_request(f"There is no liquidity pool of {symbol[:40]}", "INVALID_MARKET")
    return pool.parameters


def leverage_of(text: str) -> int:
    """A leverage in 1e-18; which one a pool gives is the engine's to say.   [X-5]"""
    try:
        leverage = parse_decimal(text, LEVERAGE_DECIMALS, limit=MAX_LEVERAGE * DEC)
    except AmountError as error:
        raise bad_request(f"leverage: {error}", "MAX_LEVERAGE_REACHED") from None
    if leverage < DEC:
        raise bad_request(f"leverage {text[:40]} is less than 1", "MAX_LEVERAGE_REACHED")
    return leverage


def sides_of(native: str | None, external: str | None, pool: PoolParameters, state: State) -> tuple[int, int]:
    """(native, external) atoms of an addition, of which one may be nothing.   [X-3]"""
    sides = (
        _maybe_nothing(native, "nativeQuantity", pool.native_asset_id, state),
        _maybe_nothing(external, "externalQuantity", pool.pool_id, state),
    )
    if sides == (0, 0):
        raise bad_request("Must specify at least one of `nativeQuantity` and `externalQuantity`", "INVALID_QUANTITY")
    return sides


def amount_of(text: str, asset_id: int, state: State, name: str) -> int:
    """An amount of an asset above zero, in atoms.   [A-3]"""
    return _atoms(text, asset_id, state, name)


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


def _least(fields: Fields, name: str, asset_id: int, state: State, default: int = 0) -> int:
    """A limit on what must come out at least; any amount will do when it is left out."""
    return _maybe_nothing(fields[name], name, asset_id, state) if name in fields else default


def _maybe_nothing(text: str | None, name: str, asset_id: int, state: State) -> int:
    """An amount in atoms; 0 when it is left out or written as nothing."""
    digits = "0" if text is None else text.replace(".", "", 1)
    return _atoms(str(text), asset_id, state, name) if digits.strip("0") or not digits else 0


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
