"""API keys and signed requests on the command line: `satchel keygen` and `satchel sign`.   [W-1]"""

from __future__ import annotations

import json
import os
import shlex
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.signing import KeyFileError, generate, is_encrypted, read_key_file, write_key_file
from tools.terminal import FINE, CannotRun, print_json, say

ROUTES = {
    "accountQuery": ("GET", "/api/v1/account"),
    "accountUpdate": ("PATCH", "/api/v1/account"),
    "balanceQuery": ("GET", "/api/v1/capital"),
    "borrowHistoryQueryAll": ("GET", "/wapi/v1/history/borrowLend"),
    "borrowLendExecute": ("POST", "/api/v1/borrowLend"),
    "borrowLendPositionQuery": ("GET", "/api/v1/borrowLend/positions"),
    "borrowPositionHistoryQueryAll": ("GET", "/wapi/v1/history/borrowLend/positions"),
    "collateralQuery": ("GET", "/api/v1/capital/collateral"),
    "convertDust": ("POST", "/api/v1/account/convertDust"),
    "depositAddressQuery": ("GET", "/wapi/v1/capital/deposit/address"),
    "depositQueryAll": ("GET", "/wapi/v1/capital/deposits"),
    "dustHistoryQueryAll": ("GET", "/wapi/v1/history/dust"),
    "fillHistoryQueryAll": ("GET", "/wapi/v1/history/fills"),
    "fundingHistoryQueryAll": ("GET", "/wapi/v1/history/funding"),
    "interestHistoryQueryAll": ("GET", "/wapi/v1/history/interest"),
    "maxBorrowQuantity": ("GET", "/api/v1/account/limits/borrow"),
    "maxOrderQuantity": ("GET", "/api/v1/account/limits/order"),
    "maxWithdrawalQuantity": ("GET", "/api/v1/account/limits/withdrawal"),
    "orderCancel": ("DELETE", "/api/v1/order"),
    "orderCancelAll": ("DELETE", "/api/v1/orders"),
    "orderExecute": ("POST", "/api/v1/order"),
    "orderHistoryQueryAll": ("GET", "/wapi/v1/history/orders"),
    "orderQuery": ("GET", "/api/v1/order"),
    "orderQueryAll": ("GET", "/api/v1/orders"),
    "positionHistoryQueryAll": ("GET", "/wapi/v1/history/position"),
    "positionQuery": ("GET", "/api/v1/position"),
    "quoteAccept": ("POST", "/api/v1/rfq/accept"),
    "quoteFillHistoryQueryAll": ("GET", "/wapi/v1/history/quote/fill"),
    "quoteHistoryQueryAll": ("GET", "/wapi/v1/history/quote"),
    "quoteSubmit": ("POST", "/api/v1/rfq/quote"),
    "rfqCancel": ("POST", "/api/v1/rfq/cancel"),
    "rfqFillHistoryQueryAll": ("GET", "/wapi/v1/history/rfq/fill"),
    "rfqHistoryQueryAll": ("GET", "/wapi/v1/history/rfq"),
    "rfqQuery": ("GET", "/api/v1/rfqs"),
    "rfqRefresh": ("POST", "/api/v1/rfq/refresh"),
    "rfqSubmit": ("POST", "/api/v1/rfq"),
    "settlementHistoryQueryAll": ("GET", "/wapi/v1/history/settlement"),
    "strategyCancel": ("DELETE", "/api/v1/strategy"),
    "strategyCancelAll": ("DELETE", "/api/v1/strategies"),
    "strategyCreate": ("POST", "/api/v1/strategy"),
    "strategyHistoryQueryAll": ("GET", "/wapi/v1/history/strategies"),
    "strategyQuery": ("GET", "/api/v1/strategy"),
    "strategyQueryAll": ("GET", "/api/v1/strategies"),
    "withdraw": ("POST", "/wapi/v1/capital/withdrawals"),
    "withdrawalQueryAll": ("GET", "/wapi/v1/capital/withdrawals"),
    "alarmQueryAll": ("GET", "/satchel/v1/alarms"),
    "backstopQuery": ("GET", "/satchel/v1/backstop"),
    "backstopRegister": ("POST", "/satchel/v1/backstop"),
    "balanceAsOfQuery": ("GET", "/satchel/v1/balances"),
    "keyAdd": ("POST", "/satchel/v1/keys"),
    "keyQueryAll": ("GET", "/satchel/v1/keys"),
    "keyRevoke": ("DELETE", "/satchel/v1/keys"),
    "liquidationHistoryQueryAll": ("GET", "/satchel/v1/history/liquidations"),
    "liquidityQueryAll": ("GET", "/satchel/v1/liquidity"),
    "operatorExecute": ("POST", "/satchel/v1/operator"),
    "orderPreview": ("POST", "/satchel/v1/orders/preview"),
    "poolCloseQuery": ("GET", "/satchel/v1/pools/quote/close"),
    "poolLiquidityAdd": ("POST", "/satchel/v1/pools/liquidity"),
    "poolLiquidityHistoryQueryAll": ("GET", "/satchel/v1/history/pools/liquidity"),
    "poolLiquidityQueryAll": ("GET", "/satchel/v1/pools/liquidity"),
    "poolLiquidityRemove": ("DELETE", "/satchel/v1/pools/liquidity"),
    "poolPositionClose": ("DELETE", "/satchel/v1/pools/positions"),
    "poolPositionHistoryQueryAll": ("GET", "/satchel/v1/history/pools/positions"),
    "poolPositionOpen": ("POST", "/satchel/v1/pools/positions"),
    "poolPositionQueryAll": ("GET", "/satchel/v1/pools/positions"),
    "poolSwapExecute": ("POST", "/satchel/v1/pools/swap"),
    "poolSwapHistoryQueryAll": ("GET", "/satchel/v1/history/pools/swaps"),
    "statementQuery": ("GET", "/satchel/v1/statement"),
    "subaccountOpen": ("POST", "/satchel/v1/subaccounts"),
    "subaccountQueryAll": ("GET", "/satchel/v1/subaccounts"),
    "transferExecute": ("POST", "/satchel/v1/transfers"),
}
"""Where an instruction goes first, for the curl line; a batch of orders goes to /api/v1/orders. Written out, since the
server's own table takes half a second to load."""

NUMBERED = frozenset({"proofQuery", "receiptQuery"})
"""Signed the same way; their path names an epoch or a journal transaction, so there is no curl line."""

INTEGER_FIELDS = frozenset(
    {"subaccountId", "toSubaccountId", "clientId", "clientStrategyId", "duration", "interval", "limit", "offset"}
    | {"from", "to", "basisPoints"}
)


def keygen(out: Path | None, as_json: bool) -> int:
    """Make a key pair. With `out` the private key goes to that new file alone, readable by its owner alone."""
    signer = generate()
    document = {"publicKey": b64encode(signer.public_key).decode()}
    if out is not None:
        try:
            write_key_file(out, signer, None)
        except KeyFileError as problem:
            raise CannotRun(str(problem), "choose another --out") from None
        document["file"] = str(out)
    else:
        document["privateKey"] = b64encode(signer.seed).decode()
    if as_json:
        print_json(document)
    else:
        for name, value in document.items():
            print(f"{name}: {value}")
    return FINE


def exchange_key(data: Path, as_json: bool) -> int:
    """A new key that the exchange can rotate to, kept like its others: encrypted when they are.   [A-4]"""
    from api.keys import FOLDER, Keyring
    from api.settings import PASSPHRASE_VARIABLE

    files = list((data / FOLDER).glob("exchange-*.key"))
    if not files:
        raise CannotRun(f"no exchange has its keys under {data}", "name the node's folder with --data")
    passphrase = os.environ.get(PASSPHRASE_VARIABLE) if any(map(is_encrypted, files)) else None
    if passphrase is None and any(map(is_encrypted, files)):
        raise CannotRun("the exchange's keys are encrypted", f"give the passphrase in {PASSPHRASE_VARIABLE}")
    signer = Keyring(data, passphrase).new_exchange_key()
    document = {"publicKey": b64encode(signer.public_key).decode()}
    if as_json:
        print_json(document)
    else:
        print(f"publicKey: {document['publicKey']}")
    say("next: the operator command RotateKey with this public_key; see docs/operations.md")
    return FINE


def sign(
    instruction: str,
    fields: list[str],
    body: str | None,
    key: Path | None,
    secret: str | None,
    text: str | None,
    timestamp: int | None,
    window: int,
    url: str,
    as_json: bool,
) -> int:
    """Sign one request and print the text, the headers and, where the route is known, a curl line.   [W-1]"""
    private = _private_key(key, secret)
    at = timestamp if timestamp is not None else time.time_ns() // 1_000_000
    content = _content(fields, body)
    signed = text if text is not None else signed_text(instruction, content, at, window)
    headers = {
        "X-API-Key": b64encode(private.public_key().public_bytes_raw()).decode(),
        "X-Signature": b64encode(private.sign(signed.encode())).decode(),
        "X-Timestamp": str(at),
        "X-Window": str(window),
    }
    if text is None and instruction not in ROUTES and instruction not in NUMBERED:
        meant = get_close_matches(instruction, [*ROUTES, *NUMBERED], 1)
        hint = f"did you mean {meant[0]}?" if meant else f"one of {', '.join(sorted([*ROUTES, *NUMBERED]))}"
        raise CannotRun(f"no instruction is called {instruction}", hint)
    line = "" if text is not None else curl_line(instruction, content, headers, url)
    if as_json:
        print_json({"signedText": signed, "headers": headers, "curl": line or None})
        return FINE
    print(signed)
    for name, value in headers.items():
        print(f"{name}: {value}")
    if line:
        print(line)
    return FINE


def signed_text(instruction: str, content: dict[str, Any] | list[dict[str, Any]], timestamp: int, window: int) -> str:
    """The text that a client signs: fields sorted by name; a batch repeats the instruction for each order.   [W-1]"""
    parts = []
    for fields in content if isinstance(content, list) else [content]:
        parts.append(f"instruction={instruction}")
        parts += [f"{name}={_plain(fields[name])}" for name in sorted(fields) if fields[name] is not None]
    return "&".join([*parts, f"timestamp={timestamp}", f"window={window}"])


def curl_line(
    instruction: str, content: dict[str, Any] | list[dict[str, Any]], headers: dict[str, str], url: str
) -> str:
    """The request as one line for a shell, or "" for an instruction whose route is not known."""
    if instruction not in ROUTES:
        return ""
    method, path = ROUTES[instruction]
    words = ["curl", "-sS"] + (["-X", method] if method != "GET" else [])
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    if method == "GET":
        query = urlencode({name: _plain(value) for name, value in content.items()}) if isinstance(content, dict) else ""
        words.append(f"{url}{path}" + (f"?{query}" if query else ""))
    else:
        target = "/api/v1/orders" if isinstance(content, list) and instruction == "orderExecute" else path
        body = json.dumps(content, separators=(",", ":"))
        words += ["-H", "Content-Type: application/json", "-d", body, f"{url}{target}"]
    return shlex.join(words)


def read_private_key(file: Path) -> Ed25519PrivateKey:
    """The key of a `satchel keygen --out` file, or of a file that holds the base64 alone."""
    text = file.read_text().strip()
    if not text.startswith("{"):
        return _decoded(text, str(file))
    try:
        return Ed25519PrivateKey.from_private_bytes(read_key_file(file).seed)
    except KeyFileError as problem:
        raise CannotRun(str(problem), "use a file that `satchel keygen --out` wrote") from None


def _private_key(key: Path | None, secret: str | None) -> Ed25519PrivateKey:
    if (key is None) == (secret is None):
        raise CannotRun(
            "a signature needs one key", "give --key FILE (of `satchel keygen --out FILE`) or --secret BASE64"
        )
    return read_private_key(key) if key is not None else _decoded(str(secret), "--secret")


def _decoded(text: str, source: str) -> Ed25519PrivateKey:
    try:
        raw = b64decode(text, validate=True)
    except Base64Error:
        raw = b""
    if len(raw) not in (32, 64):
        raise CannotRun(
            f"{source} is not the base64 of a 32-byte Ed25519 private key", "make one with `satchel keygen`"
        )
    # Some clients keep the public half behind the private one.
    return Ed25519PrivateKey.from_private_bytes(raw[:32])


def _content(fields: list[str], body: str | None) -> dict[str, Any] | list[dict[str, Any]]:
    if body is not None:
        if fields:
            raise CannotRun("both fields and --body are given", "give one of them")
        try:
            parsed = json.loads(body)
        except ValueError as problem:
            raise CannotRun(
                f"--body is not JSON: {problem}", "quote it for the shell: --body '{\"symbol\": …}'"
            ) from None
        if isinstance(parsed, dict) or (isinstance(parsed, list) and all(isinstance(one, dict) for one in parsed)):
            return parsed
        raise CannotRun("--body is neither an object nor a list of objects", "see `satchel sign --help`")
    content: dict[str, Any] = {}
    for field in fields:
        name, sign_of_equality, value = field.partition("=")
        if not sign_of_equality or not name:
            raise CannotRun(f"not name=value: {field!r}", "write fields as symbol=SOL_USDC quantity=1")
        content[name] = _typed(name, value)
    return content


def _typed(name: str, value: str) -> Any:
    """A field's value as the JSON body carries it: booleans and counts as such, everything else a string."""
    if value in ("true", "false"):
        return value == "true"
    return int(value) if name in INTEGER_FIELDS and value.lstrip("-").isdigit() else value


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def public_key(text: str) -> bytes:
    """The exchange's key as an option gives it, base64 of 32 bytes; else CannotRun."""
    try:
        key = b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise CannotRun("--public-key is not the base64 of 32 bytes", "genesis and every block name the exchange's key")
    return key
