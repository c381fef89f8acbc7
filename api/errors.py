"""What the exchange says when it says no: status, contract code and message of every refusal.   [W-4]

Messages that clients compare are kept to the letter; all others name what, which, and both numbers. A refusal of the
engine is 400 with its code, except an order that is not there (404) and a key that is not known (401). What the
contract names and this exchange does not do yet is 400 NOT_IMPLEMENTED: a 5xx would tell clients to try again.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from api.contract import ErrorCode
from engine.parameters import AssetParameters
from engine.rejections import Rejection, RejectReason
from engine.state import State
from ledger.amounts import format_decimal

INVALID_SIGNATURE = "Invalid signature"
EXPIRED = "Request has expired"
INVALID_MARKET = "Invalid market symbol"
SYMBOL_NOT_FOUND = "Symbol not found"
POST_ONLY_TAKES = "Order would immediately match and take"
PRICE_TOO_FAR = "Price is too far from the last active price"
NOT_FOUND = "Not Found"
UNAUTHORIZED = "Unauthorized"
QUANTITY_TOO_LONG = "Quantity decimal too long"
TRIGGER_IN_PART = "Must specify both `triggerPrice` and `triggerQuantity` or neither"
PRICE_TOO_LONG = "Price decimal too long"


class ErrorBody(msgspec.Struct, frozen=True):
    code: ErrorCode
    message: str


class ApiError(Exception):
    """A refusal as the wire says it."""

    def __init__(self, status: int, code: ErrorCode, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> bytes:
        return msgspec.json.encode(ErrorBody(self.code, self.message))


def bad_request(message: str, code: ErrorCode = "INVALID_CLIENT_REQUEST") -> ApiError:
    return ApiError(400, code, message)


def not_found() -> ApiError:
    return ApiError(404, "RESOURCE_NOT_FOUND", NOT_FOUND)


def unauthorized() -> ApiError:
    return ApiError(401, "UNAUTHORIZED", UNAUTHORIZED)


def not_implemented(what: str) -> ApiError:
    return bad_request(f"{what} is not available on this exchange yet", "NOT_IMPLEMENTED")


_CODES: dict[RejectReason, ErrorCode] = {
    RejectReason.UNKNOWN_ASSET: "INVALID_ASSET",
    RejectReason.UNKNOWN_CHAIN: "INVALID_ASSET",
    RejectReason.UNKNOWN_TOKEN: "INVALID_ASSET",
    RejectReason.TOKEN_DISABLED: "INVALID_ASSET",
    RejectReason.INVALID_QUANTITY: "INVALID_QUANTITY",
    RejectReason.WITHDRAWAL_TOO_SMALL: "INVALID_QUANTITY",
    RejectReason.WITHDRAWAL_TOO_LARGE: "INVALID_QUANTITY",
    RejectReason.INVALID_PRICE: "INVALID_PRICE",
    RejectReason.QUOTE_TIME: "INVALID_PRICE",
    RejectReason.PRICE_OUT_OF_BAND: "INVALID_PRICE",
    RejectReason.NO_ACTIVE_PRICE: "INVALID_PRICE",
    RejectReason.POST_ONLY_WOULD_TAKE: "INVALID_ORDER",
    RejectReason.INVALID_ORDER: "INVALID_ORDER",
    RejectReason.DUPLICATE_CLIENT_ID: "INVALID_ORDER",
    RejectReason.MARKET_CLOSED: "TRADING_PAUSED",
    RejectReason.POST_ONLY_MODE: "TRADING_PAUSED",
    RejectReason.LIMIT_ONLY_MODE: "TRADING_PAUSED",
    RejectReason.CANCEL_ONLY_MODE: "TRADING_PAUSED",
    RejectReason.REDUCE_ONLY: "INVALID_ORDER",
    RejectReason.POSITION_LIMIT: "POSITION_LIMIT",
    RejectReason.OPEN_INTEREST_LIMIT: "POSITION_LIMIT",
    RejectReason.IN_LIQUIDATION: "ACCOUNT_LIQUIDATING",
    RejectReason.UNSETTLED_LOSS: "PRECONDITION_FAILED",
    RejectReason.BACKSTOP_LIMIT: "PRECONDITION_FAILED",
    RejectReason.NO_CLAIM_ROOM: "PRECONDITION_FAILED",
    RejectReason.TRIGGER_PRICE: "INVALID_PRICE",
    RejectReason.TRIGGER_LIMIT: "ORDER_LIMIT",
    RejectReason.STRATEGY_LIMIT: "ORDER_LIMIT",
    RejectReason.RFQ_STATE: "PRECONDITION_FAILED",
    RejectReason.NOT_SUPPORTED: "NOT_IMPLEMENTED",
    RejectReason.ORDER_LIMIT: "ORDER_LIMIT",
    RejectReason.INSUFFICIENT_FUNDS: "INSUFFICIENT_FUNDS",
    RejectReason.PROVISIONAL_FUNDS: "INSUFFICIENT_FUNDS",
    RejectReason.INSUFFICIENT_MARGIN: "INSUFFICIENT_MARGIN",
    RejectReason.BORROW_LIMIT: "BORROW_LIMIT",
    RejectReason.LEND_LIMIT: "LEND_LIMIT",
    RejectReason.INSUFFICIENT_SUPPLY: "INSUFFICIENT_SUPPLY",
    RejectReason.BORROW_REQUIRES_LEND_REDEEM: "BORROW_REQUIRES_LEND_REDEEM",
    RejectReason.LEND_REQUIRES_BORROW_REPAY: "LEND_REQUIRES_BORROW_REPAY",
    # A money market that is closed, or only takes repayments, is a paused one; so is what never opened.
    RejectReason.LENDING_CLOSED: "TRADING_PAUSED",
    RejectReason.INVALID_LEVERAGE: "MAX_LEVERAGE_REACHED",
    RejectReason.MAX_LEVERAGE: "MAX_LEVERAGE_REACHED",
    RejectReason.NO_PRICE: "PRECONDITION_FAILED",
    RejectReason.AUTO_LEND_IS_ON: "PRECONDITION_FAILED",
    RejectReason.NOTHING_TO_CONVERT: "PRECONDITION_FAILED",
    RejectReason.STAKED_LIMIT: "PRECONDITION_FAILED",
    RejectReason.WITHDRAWALS_FROZEN: "PRECONDITION_FAILED",
    RejectReason.WITHDRAWALS_STOPPED: "PRECONDITION_FAILED",
    RejectReason.CHAIN_LIQUIDITY: "PRECONDITION_FAILED",
    RejectReason.DUPLICATE_WITHDRAWAL: "PRECONDITION_FAILED",
    RejectReason.DEPOSIT_STATE: "PRECONDITION_FAILED",
    RejectReason.WITHDRAWAL_STATE: "PRECONDITION_FAILED",
    RejectReason.CLOCK_MODE: "PRECONDITION_FAILED",
    RejectReason.NOT_OWNER: "FORBIDDEN",
    RejectReason.UNKNOWN_POOL: "INVALID_MARKET",
    RejectReason.POOL_PAIR: "INVALID_MARKET",
    RejectReason.NATIVE_COLLATERAL: "INVALID_ASSET",
    RejectReason.POOL_CLOSED: "TRADING_PAUSED",
    RejectReason.EMPTY_POOL: "INSUFFICIENT_SUPPLY",
    RejectReason.POOL_DEPTH: "INSUFFICIENT_SUPPLY",
    RejectReason.CUSTODY_DEPTH: "INSUFFICIENT_SUPPLY",
    RejectReason.POOL_LENT_LIMIT: "INSUFFICIENT_SUPPLY",
    RejectReason.POOL_AMOUNT: "INVALID_QUANTITY",
    RejectReason.POOL_UNITS: "INVALID_QUANTITY",
    RejectReason.BORROW_TOO_LOW: "INVALID_QUANTITY",
    RejectReason.POOL_LIMIT: "INVALID_QUANTITY",
    RejectReason.POOL_LEVERAGE: "MAX_LEVERAGE_REACHED",
    RejectReason.POSITION_HEALTH: "INSUFFICIENT_MARGIN",
    RejectReason.POOL_POSITIONS: "POSITION_LIMIT",
    RejectReason.MIN_RECEIVED: "PRECONDITION_FAILED",
    RejectReason.POOL_HEALTH: "PRECONDITION_FAILED",
    RejectReason.POOL_PRICE_MOVED: "PRECONDITION_FAILED",
    RejectReason.POOL_EPOCH: "PRECONDITION_FAILED",
}
"""Code of a refusal; INVALID_CLIENT_REQUEST where none is named."""

_VERBATIM: dict[RejectReason, ApiError] = {
    RejectReason.UNKNOWN_MARKET: bad_request(INVALID_MARKET),
    RejectReason.POST_ONLY_WOULD_TAKE: bad_request(POST_ONLY_TAKES, "INVALID_ORDER"),
    RejectReason.PRICE_OUT_OF_BAND: bad_request(PRICE_TOO_FAR, "INVALID_PRICE"),
    RejectReason.REQUEST_EXPIRED: bad_request(EXPIRED),
    RejectReason.UNKNOWN_ORDER: not_found(),
    RejectReason.UNKNOWN_STRATEGY: not_found(),
    RejectReason.UNKNOWN_RFQ: not_found(),
    RejectReason.UNKNOWN_QUOTE: not_found(),
    RejectReason.UNKNOWN_WITHDRAWAL: not_found(),
    RejectReason.UNKNOWN_POOL_POSITION: not_found(),
    RejectReason.UNKNOWN_KEY: unauthorized(),
    RejectReason.UNSIGNED: unauthorized(),
}

_AMOUNTS = frozenset({"atoms", "needed", "available", "minimum", "maximum", "held"})
"""Facts that count atoms when the refusal also names the asset, as all do whose names end in `_atoms`."""

_FRACTIONS = {
    RejectReason.INSUFFICIENT_SUPPLY: frozenset({"bound", "threshold", "utilization", "utilization_after"}),
    RejectReason.INVALID_LEVERAGE: frozenset({"asked", "maximum"}),
    RejectReason.MAX_LEVERAGE: frozenset({"asked"}),
}
"""Facts in 1e-9."""

_DECS = {
    RejectReason.POOL_HEALTH: frozenset({"health", "above", "least"}),
    RejectReason.POSITION_HEALTH: frozenset({"health", "above"}),
    RejectReason.POOL_LEVERAGE: frozenset({"leverage", "least", "most"}),
    RejectReason.POOL_PRICE_MOVED: frozenset({"most"}),
}
"""Facts in 1e-18; those that may not fit 64 bits come as text."""
_AMM_AMOUNTS = frozenset(
    {"atoms", "maximum", "asked", "balance", "received", "least", "lent", "most", "borrowed", "interest"}
)
"""Facts of a liquidity pool's refusals that count atoms of `asset_id`."""
_AMM_PRICES = frozenset({"price", "price_after", "mean"})
"""External atoms per native atom in 1e-18: told per whole native unit."""
_AMM_REASONS = frozenset(
    reason for reason in RejectReason if RejectReason.UNKNOWN_POOL <= reason <= RejectReason.NATIVE_COLLATERAL
)
_CASES: dict[RejectReason, tuple[tuple[str, str, str], ...]] = {
    RejectReason.INSUFFICIENT_SUPPLY: (
        ("threshold", ", utilization is at the threshold and nothing leaves the pool until it falls", ""),
        ("idle_atoms", ", less is idle than needed", ""),
        ("bound", ", utilization would pass the bound", ""),
    ),
    RejectReason.POOL_PAIR: (
        ("collateral", ", a position is of one pool: of the native asset and the pool's own, one of each", ""),
    ),
    RejectReason.POOL_PRICE_MOVED: (
        ("price_after", ", this itself would move it too far from its mean", "; less of it would not"),
        (
            "mean",
            ", positions open and close only near the mean price of the last moments",
            "; it follows within the pool's priceMean seconds",
        ),
    ),
    RejectReason.INSUFFICIENT_MARGIN: (
        (
            "at_worst_prices",
            " after this loan, withdrawal or transfer",
            "; /api/v1/account/limits/borrow and /withdrawal tell the most that passes",
        ),
        ("net_equity_usd", " after this order", "; /api/v1/account/limits/order tells the most that passes"),
    ),
}
"""Which case of a reason it is: the first whose fact is there, its words, and where to ask what would pass."""

_RATE_DECIMALS = 9
_USD_DECIMALS = 8
_DEC_DECIMALS = 18


def refusal(rejection: Rejection, state: State) -> ApiError:
    """How the wire says that the engine refused."""
    return refusal_of(rejection.reason, rejection.facts, state)


def refusal_of(reason: int, facts: Mapping[str, int | str], state: State) -> ApiError:
    known = RejectReason(reason)
    verbatim = _VERBATIM.get(known)
    if verbatim is not None:
        return ApiError(verbatim.status, verbatim.code, verbatim.message)
    return bad_request(_sentence(known, facts, state), _CODES.get(known, "INVALID_CLIENT_REQUEST"))


def _sentence(reason: RejectReason, facts: Mapping[str, int | str], state: State) -> str:
    """`Insufficient funds: symbol USDC, needed 12.5, available 3`; of a reason with cases, also which it is."""
    asset_id = facts.get("asset_id")
    asset = state.assets.get(asset_id) if isinstance(asset_id, int) else None
    if reason in _AMM_REASONS:
        facts = _amm_facts(reason, facts, asset, state)
    parts = [_part(reason, name, value, asset, state) for name, value in facts.items()]
    parts = [part for part in parts if part]
    cases = _CASES.get(reason, ())
    case, hint = next(((words, hint) for fact, words, hint in cases if fact in facts), ("", ""))
    name = reason.name.replace("_", " ").capitalize() + case
    return (f"{name}: {', '.join(parts)}" if parts else name) + hint


def _part(reason: RejectReason, name: str, value: int | str, asset: AssetParameters | None, state: State) -> str:
    words = name.replace("_", " ")
    if isinstance(value, int):
        if name == "asset_id" and asset is not None:
            return f"symbol {asset.symbol}"
        if name == "market_id" and value in state.markets:
            return f"market {state.markets[value].parameters.symbol}"
        if name.endswith("_usd"):
            return f"{words.removesuffix(' usd')} {format_decimal(value, _USD_DECIMALS)} USD"
        if name in _FRACTIONS.get(reason, ()):
            return f"{words} {format_decimal(value, _RATE_DECIMALS)}"
        if asset is not None and (name in _AMOUNTS or name.endswith("_atoms")):
            words = "quantity" if name == "atoms" else words.removesuffix(" atoms")
            return f"{words} {format_decimal(value, asset.decimals)}"
        if name == "at_worst_prices":
            return words if value else ""
    return f"{words} {value}"


def _amm_facts(
    reason: RejectReason, facts: Mapping[str, int | str], asset: AssetParameters | None, state: State
) -> dict[str, int | str]:
    """A liquidity pool's facts as people read them: symbols, and amounts in the decimals of what they count."""
    pool = state.amm_pools.get(pool_id) if isinstance(pool_id := facts.get("pool_id"), int) else None
    natives = [each.parameters.native_asset_id for each in ([pool] if pool is not None else state.amm_pools.values())]
    native = state.assets[natives[0]] if natives else None
    external = state.assets[pool.parameters.pool_id] if pool is not None else None
    told: dict[str, int | str] = {}
    for name, value in facts.items():
        number = int(value) if isinstance(value, int) or value.isdecimal() else None
        counted = asset if name in _AMM_AMOUNTS else {"native": native, "external": external}.get(name)
        if name in ("units", "held") or (
            name in ("least", "maximum") and not facts.keys().isdisjoint(("units", "native"))
        ):
            # Units have the native asset's decimals.
            counted = native
        if number is None:
            # A pool's state, as the wire has it: `NoOpens`.
            told[name] = str(value).title().replace("_", "") if name == "state" else value
        elif name == "pool_id" and number in state.assets:
            told["pool"] = state.assets[number].symbol
        elif name.endswith("_asset_id") and number in state.assets:
            told[name.removesuffix("_asset_id")] = state.assets[number].symbol
        elif name in _DECS.get(reason, ()):
            told[name] = format_decimal(number, _DEC_DECIMALS)
        elif name in _AMM_PRICES and native is not None and external is not None:
            shift = native.decimals - external.decimals
            told[name] = format_decimal(number * 10 ** max(shift, 0), _DEC_DECIMALS + max(-shift, 0))
        elif counted is not None and name != "asset_id":
            told["quantity" if name == "atoms" else name] = format_decimal(number, counted.decimals)
        else:
            told[name] = value
    return told
