"""What streams are called: `depth.200ms.SOL_USDC`, `account.orderUpdate`.   [W-6]"""

from __future__ import annotations

import re
from typing import NamedTuple

from api.candles import INTERVALS

DEPTH_SPEEDS = {"200ms": 1, "600ms": 3, "1000ms": 5}
"""Coalesced depth streams and every how many 200 ms ticks each is sent."""

INVALID_STREAM = (4006, "Invalid stream")
INVALID_WINDOW = (4008, "Invalid depth window")

_SYMBOL = re.compile(r"[A-Za-z0-9_.\-]{1,40}")
_PUBLIC_STREAMS = ("bookTicker", "trade", "ticker", "markPrice", "openInterest", "liquidation", "pool")
_PRIVATE_STREAMS = ("orderUpdate", "positionUpdate", "balanceUpdate", "rfqUpdate", "poolUpdate")


class Stream(NamedTuple):
    """A stream's name taken apart."""

    name: str
    kind: str
    """`depth`, `kline`, `trade` …; `account` for the private ones."""
    option: str
    """Depth speed, kline interval, or the private stream's own name."""
    symbol: str
    """"" for all."""


class InvalidStreamError(Exception):
    """No such stream; `error` is the code and message for the client."""

    def __init__(self, error: tuple[int, str]) -> None:
        super().__init__(*error)
        self.error = error


def parse_stream(name: object) -> Stream:
    """Take a stream's name apart; raises InvalidStreamError. Unknown symbols are not looked at: they stay silent."""
    if not isinstance(name, str):
        raise InvalidStreamError(INVALID_STREAM)
    kind, _, rest = name.partition(".")
    if kind == "account":
        option, _, symbol = rest.partition(".")
        if option in _PRIVATE_STREAMS and (not symbol or (option != "balanceUpdate" and _SYMBOL.fullmatch(symbol))):
            return Stream(name, kind, option, symbol)
    elif kind == "kline":
        option, _, symbol = rest.partition(".")
        if option in INTERVALS and _SYMBOL.fullmatch(symbol):
            return Stream(name, kind, option, symbol)
    elif kind == "depth":
        option, _, symbol = rest.partition(".")
        if symbol and option[:1].isdigit():
            if option not in DEPTH_SPEEDS:
                raise InvalidStreamError(INVALID_WINDOW)
            if _SYMBOL.fullmatch(symbol):
                return Stream(name, kind, option, symbol)
        elif _SYMBOL.fullmatch(rest):
            return Stream(name, kind, "", rest)
    elif kind in _PUBLIC_STREAMS and (_SYMBOL.fullmatch(rest) or (kind == "liquidation" and not rest)):
        return Stream(name, kind, "", rest)
    raise InvalidStreamError(INVALID_STREAM)
