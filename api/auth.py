"""Who sent a request: the signed text rebuilt from the request, and its Ed25519 signature checked.   [W-1]

Clients differ in how they write the same request down, so the text is tried in a fixed order: as sent, without unset
fields, booleans lower-cased, percent-encoded. Each try is a full check; tolerance never skips one.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from api.errors import EXPIRED, INVALID_SIGNATURE, bad_request, unauthorized
from api.limits import RateLimits
from api.requests import Fields, fields_of
from api.verification_pool import VerificationPool
from engine.state import ApiKey, State
from ledger.blocks import SignedRequest

DEFAULT_WINDOW_MS = 5_000
MAX_WINDOW_MS = 60_000

Pairs = Sequence[tuple[str, Any]]
"""Wire names and values of one request, sorted by name: text, whole numbers, booleans, None for `null`."""


class Credentials:
    """The four headers of a signed request, read but not yet believed."""

    __slots__ = ("public_key", "signature", "timestamp", "timestamp_ms", "window", "window_ms")

    def __init__(self, key: str, signature: str, timestamp: str, window: str | None) -> None:
        public_key, signed = _bytes_of(key, 32), _bytes_of(signature, 64)
        if public_key is None:
            raise unauthorized()
        if signed is None:
            raise bad_request("Invalid X-Signature header")
        self.public_key = public_key
        self.signature = signed
        self.timestamp = timestamp
        self.timestamp_ms = _number_of(timestamp, "Invalid timestamp")
        # The default must be in the signed text though the header is absent.
        self.window = window or str(DEFAULT_WINDOW_MS)
        self.window_ms = _number_of(self.window, "Invalid X-Window header")
        if self.window_ms > MAX_WINDOW_MS:
            raise bad_request(f"Invalid X-Window header: {self.window_ms} ms is more than {MAX_WINDOW_MS}")

    def require_current(self, now_ms: int) -> None:
        """The wall clock must be inside the window, on either side of the timestamp."""
        if now_ms > self.timestamp_ms + self.window_ms:
            raise bad_request(EXPIRED)
        if self.timestamp_ms > now_ms + self.window_ms:
            raise bad_request(
                f"Invalid timestamp: {self.timestamp_ms} is more than {self.window_ms} ms ahead of {now_ms}"
            )


def credentials_of(headers: Mapping[str, str]) -> Credentials:
    """Read the headers; 401 when the request is not signed at all."""
    key, signature = headers.get("X-API-Key"), headers.get("X-Signature")
    timestamp = headers.get("X-Timestamp")
    if key is None or signature is None:
        raise unauthorized()
    if timestamp is None:
        raise bad_request("Invalid timestamp: the X-Timestamp header is missing")
    return Credentials(key, signature, timestamp, headers.get("X-Window"))


class Authenticator:
    """Checks signed requests against the keys of the state."""

    def __init__(self, state: State, pool: VerificationPool, limits: RateLimits) -> None:
        self._state = state
        self._pool = pool
        self._limits = limits

    async def verify(
        self,
        credentials: Credentials,
        instruction: str,
        groups: Sequence[Pairs],
        address: str,
        now_ms: int,
        other_instructions: Sequence[str] = (),
    ) -> bytes:
        """The exact text whose signature verified, by any of the instructions; ApiError when none does.   [W-1]

        `groups` has one entry per order of a batch, and one for everything else. Wrong signatures are counted
        against `address`.
        """
        credentials.require_current(now_ms)
        self._limits.require_unverified(address)
        key, signature = credentials.public_key, credentials.signature
        try:
            text = plain_text(instruction, groups, credentials.timestamp, credentials.window)
            if await self._pool.verify(key, signature, text):
                return text
            for name in (instruction, *other_instructions):
                for other in texts(name, groups, credentials.timestamp, credentials.window):
                    if other != text and await self._pool.verify(key, signature, other):
                        return other
        except UnicodeEncodeError:
            raise bad_request(INVALID_SIGNATURE) from None
        self._limits.count_unverified(address)
        raise bad_request(INVALID_SIGNATURE)

    def account_of(self, credentials: Credentials) -> ApiKey:
        """Whose key it is; 401 when nobody's."""
        key = self._state.api_keys.get(credentials.public_key)
        if key is None:
            raise unauthorized()
        return key

    async def verify_subscription(self, signature: Sequence[str], address: str, now_ms: int) -> ApiKey:
        """Whose `[key, signature, timestamp, window]` over `instruction=subscribe` it is; ApiError.   [W-6]"""
        if len(signature) != 4 or not all(isinstance(item, str) for item in signature):
            raise bad_request(INVALID_SIGNATURE)
        credentials = Credentials(*signature)
        key = self.account_of(credentials)
        await self.verify(credentials, "subscribe", [()], address, now_ms)
        return key


def signed_request(credentials: Credentials, text: bytes, now_ms: int) -> SignedRequest:
    """What the log keeps of it.   [A-5]"""
    return SignedRequest(
        credentials.public_key,
        credentials.signature,
        text,
        credentials.timestamp_ms,
        credentials.window_ms,
        now_ms,
    )


def command_fields(text: bytes, groups: Sequence[Pairs]) -> list[Fields]:
    """The fields that the signed text states, one dict per order.   [A-5]

    They must be the fields of the request: a value with `&`, or with `%` and two digits, could be read in two ways,
    and a request that says more than one thing is not done.
    """
    stated: list[Fields] = []
    is_plain = b"%" not in text
    separators = len(groups) + 1
    for pairs in groups:
        fields: Fields = {}
        for name, value in pairs:
            spelt = value if type(value) is str else _plain(value)
            if spelt in _RESPELT:
                is_plain = False
            if spelt != "null":
                fields[name] = spelt
        separators += len(pairs)
        stated.append(fields)
    if is_plain and text.count(b"&") == separators:
        # One & before each field, each further order, the timestamp and the window: no value holds one.
        return stated
    try:
        read = [fields for _instruction, fields in fields_of(text)]
    except ValueError as error:
        raise bad_request(f"A value of this request cannot be signed unambiguously: {error}") from None
    if read != stated:
        raise bad_request("A value of this request cannot be signed unambiguously")
    return read


def plain_text(instruction: str, groups: Sequence[Pairs], timestamp: str, window: str) -> bytes:
    """The text as most clients sign it: every value as it was sent. UnicodeEncodeError for what is no text.   [W-1]"""
    head = f"instruction={instruction}"
    parts: list[str] = []
    for pairs in groups:
        parts.append(head)
        for name, value in pairs:
            parts.append(f"{name}={value if type(value) is str else _plain(value)}")
    return f"{'&'.join(parts)}&timestamp={timestamp}&window={window}".encode()


def texts(instruction: str, groups: Sequence[Pairs], timestamp: str, window: str) -> Iterator[bytes]:
    """Every text a client may have signed for this request, most usual first, none twice."""
    tried: set[bytes] = set()
    for keep_unset in (True, False):
        for spell in (_plain, _lower_booleans, _encoded_by_python, _encoded_by_javascript):
            spelt = [
                [(name, spell(value)) for name, value in pairs if keep_unset or not _is_unset(value)]
                for pairs in groups
            ]
            text = plain_text(instruction, spelt, timestamp, window)
            if text not in tried:
                tried.add(text)
                yield text


_RESPELT = frozenset({"", "null", "True", "False"})
"""Values that a client may have left out of its text or spelt otherwise."""


def _is_unset(value: Any) -> bool:
    return value is None or value == ""


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _lower_booleans(value: Any) -> str:
    """bpx-py and the SDK send `True` on the query and sign `true`."""
    text = _plain(value)
    return text.lower() if text in ("True", "False") else text


def _encoded_by_python(value: Any) -> str:
    """ccxt signs what `urlencode` made of the query."""
    return quote(_lower_booleans(value))


def _encoded_by_javascript(value: Any) -> str:
    """As `encodeURIComponent` does it."""
    return quote(_lower_booleans(value), safe="!'()*")


def _bytes_of(text: str, length: int) -> bytes | None:
    """The `length` bytes that base64 `text` stands for, None when it does not."""
    try:
        content = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return None
    return content if len(content) == length else None


def _number_of(text: str, complaint: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 16:
        raise bad_request(f"{complaint}: {text[:40]!r} is not a number of milliseconds")
    return int(text)
