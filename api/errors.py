"""What the exchange says when it says no: status, contract code and message of every refusal.   [W-4]

Messages that clients compare are kept to the letter; all others name what, which, and both numbers. A refusal of the
engine is 400 with its code, except an order that is not there (404) and a key that is not known (401). What the
contract names and this exchange does not do yet is 400 NOT_IMPLEMENTED: a 5xx would tell clients to try again.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from api.contract import ErrorCode
from engine.rejections import Rejection, RejectReason
from engine.state import State
from ledger.amounts import format_decimal

INVALID_SIGNATURE = "Invalid signature"
EXPIRED = "Request has expired"
INVALID_MARKET = "Invalid market symbol"
POST_ONLY_TAKES = "Order would immediately match and take"
PRICE_TOO_FAR = "Price is too far from the last active price"
NOT_FOUND = "Not Found"
UNAUTHORIZED = "Unauthorized"
QUANTITY_TOO_LONG = "Quantity decimal too long"
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
    RejectReason.NOT_SUPPORTED: "NOT_IMPLEMENTED",
    RejectReason.ORDER_LIMIT: "ORDER_LIMIT",
    RejectReason.INSUFFICIENT_FUNDS: "INSUFFICIENT_FUNDS",
    RejectReason.PROVISIONAL_FUNDS: "INSUFFICIENT_FUNDS",
    RejectReason.INVALID_LEVERAGE: "MAX_LEVERAGE_REACHED",
    RejectReason.WITHDRAWALS_FROZEN: "PRECONDITION_FAILED",
    RejectReason.WITHDRAWALS_STOPPED: "PRECONDITION_FAILED",
    RejectReason.CHAIN_LIQUIDITY: "PRECONDITION_FAILED",
    RejectReason.DUPLICATE_WITHDRAWAL: "PRECONDITION_FAILED",
    RejectReason.DEPOSIT_STATE: "PRECONDITION_FAILED",
    RejectReason.WITHDRAWAL_STATE: "PRECONDITION_FAILED",
    RejectReason.CLOCK_MODE: "PRECONDITION_FAILED",
    RejectReason.NOT_OWNER: "FORBIDDEN",
}
"""Code of a refusal; INVALID_CLIENT_REQUEST where none is named."""

_VERBATIM: dict[RejectReason, ApiError] = {
    RejectReason.UNKNOWN_MARKET: bad_request(INVALID_MARKET),
    RejectReason.POST_ONLY_WOULD_TAKE: bad_request(POST_ONLY_TAKES, "INVALID_ORDER"),
    RejectReason.PRICE_OUT_OF_BAND: bad_request(PRICE_TOO_FAR, "INVALID_PRICE"),
    RejectReason.REQUEST_EXPIRED: bad_request(EXPIRED),
    RejectReason.UNKNOWN_ORDER: not_found(),
    RejectReason.UNKNOWN_WITHDRAWAL: not_found(),
    RejectReason.UNKNOWN_KEY: unauthorized(),
    RejectReason.UNSIGNED: unauthorized(),
}

_AMOUNTS = frozenset({"atoms", "needed", "available", "minimum", "maximum", "required_atoms", "free_atoms", "held"})
"""Facts that count atoms when the refusal also names the asset."""


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
    """`Insufficient funds: symbol USDC, needed 12.5, available 3`."""
    asset_id = facts.get("asset_id")
    asset = state.assets.get(asset_id) if isinstance(asset_id, int) else None
    parts: list[str] = []
    for name, value in facts.items():
        if name == "asset_id" and asset is not None:
            parts.append(f"symbol {asset.symbol}")
        elif name == "market_id" and isinstance(value, int) and value in state.markets:
            parts.append(f"market {state.markets[value].parameters.symbol}")
        elif name in _AMOUNTS and asset is not None and isinstance(value, int):
            quantity = "quantity" if name == "atoms" else name.removesuffix("_atoms")
            parts.append(f"{quantity} {format_decimal(value, asset.decimals)}")
        else:
            parts.append(f"{name.replace('_', ' ')} {value}")
    name = reason.name.replace("_", " ").capitalize()
    return f"{name}: {', '.join(parts)}" if parts else name
