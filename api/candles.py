"""Candles: which intervals exist, where each begins and ends, and how small candles add up to large ones.

Everything is engine integers (ticks, lots, atoms) and whole seconds since 1970, UTC.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterable
from time import gmtime
from typing import NamedTuple

from api.rows import KlineRow

SECOND, MINUTE, HOUR, DAY = 1, 60, 3_600, 86_400
WEEK = 7 * DAY
MONDAY = 4 * DAY
"""1970 began on a Thursday: weeks are counted from the first Monday."""

FIXED_INTERVALS = {
    "1s": SECOND,
    "1m": MINUTE,
    "3m": 3 * MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "30m": 30 * MINUTE,
    "1h": HOUR,
    "2h": 2 * HOUR,
    "4h": 4 * HOUR,
    "6h": 6 * HOUR,
    "8h": 8 * HOUR,
    "12h": 12 * HOUR,
    "1d": DAY,
    "3d": 3 * DAY,
    "1w": WEEK,
}
MONTH = "1month"
INTERVALS = (*FIXED_INTERVALS, MONTH)
"""The contract's KlineInterval.   [W-3]"""

BASE_PERIODS = (SECOND, MINUTE, HOUR)
"""The candles that are kept; every other interval is a sum of one of them."""


class Candle:
    """What traded in one base period: open, high, low and close in ticks; volume in lots and quote atoms."""

    __slots__ = ("close", "high", "lots", "low", "open", "quote_atoms", "start_s", "trades")

    def __init__(self, start_s: int, price_ticks: int) -> None:
        self.start_s = start_s
        self.open = self.high = self.low = self.close = price_ticks
        self.lots = 0
        self.quote_atoms = 0
        self.trades = 0

    def add(self, price_ticks: int, lots: int, quote_atoms: int) -> None:
        """One more trade, the newest."""
        if price_ticks > self.high:
            self.high = price_ticks
        elif price_ticks < self.low:
            self.low = price_ticks
        self.close = price_ticks
        self.lots += lots
        self.quote_atoms += quote_atoms
        self.trades += 1


class Series:
    """The candles of one base period, oldest first; forgets what is older than `keep_s`."""

    __slots__ = ("candles", "complete_from_s", "keep_s", "period_s")

    def __init__(self, period_s: int, keep_s: int) -> None:
        self.period_s = period_s
        self.keep_s = keep_s
        self.candles: dict[int, Candle] = {}
        self.complete_from_s = 0
        """From here on nothing is missing but what was forgotten."""

    def add(self, at_s: int, price_ticks: int, lots: int, quote_atoms: int) -> Candle:
        """Count a trade; times never go back, so the dict stays in order."""
        start_s = at_s - at_s % self.period_s
        candle = self.candles.get(start_s)
        if candle is None:
            self._forget(start_s - self.keep_s)
            candle = self.candles[start_s] = Candle(start_s, price_ticks)
        candle.add(price_ticks, lots, quote_atoms)
        return candle

    def since(self, start_s: int) -> list[Candle]:
        """Those that begin at `start_s` or later, oldest first; walks back from the newest."""
        found = []
        for candle in reversed(self.candles.values()):
            if candle.start_s < start_s:
                break
            found.append(candle)
        found.reverse()
        return found

    def _forget(self, before_s: int) -> None:
        while self.candles:
            oldest = next(iter(self.candles))
            if oldest >= before_s:
                return
            del self.candles[oldest]


class Bounds(NamedTuple):
    start_s: int
    end_s: int


def bounds(interval: str, at_s: int) -> Bounds:
    """The candle of `interval` that `at_s` lies in: [start, end). Weeks begin on Monday, months on the first."""
    if interval == MONTH:
        year, month = gmtime(at_s)[:2]
        start_s = timegm((year, month, 1, 0, 0, 0))
        end_s = timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))
        return Bounds(start_s, end_s)
    period_s = FIXED_INTERVALS[interval]
    offset_s = MONDAY if interval == "1w" else 0
    start_s = at_s - (at_s - offset_s) % period_s
    return Bounds(start_s, start_s + period_s)


def base_period(interval: str) -> int:
    """The base period that `interval` is added up from."""
    period_s = FIXED_INTERVALS.get(interval, DAY)
    return max(base for base in BASE_PERIODS if base <= period_s)


def add_up(candles: Iterable[Candle], interval: str, start_s: int, end_s: int, at_most: int) -> list[KlineRow]:
    """Candles of `interval` that begin in [start_s, end_s), oldest first, from base candles in order.

    Between trades an interval without one is a row without prices; before the first there is no row. Gives the first
    `at_most`.   [W-3]
    """
    rows: list[KlineRow] = []
    place = bounds(interval, start_s)
    if place.start_s < start_s:
        place = bounds(interval, place.end_s)
    queue = iter(candles)
    candle = next(queue, None)
    while candle is not None and candle.start_s < place.start_s:
        candle = next(queue, None)
    if candle is None:
        return []
    place = bounds(interval, candle.start_s)
    while place.start_s < end_s and len(rows) < at_most:
        inside = []
        while candle is not None and candle.start_s < place.end_s:
            inside.append(candle)
            candle = next(queue, None)
        rows.append(row_of(place, inside))
        place = bounds(interval, place.end_s)
    return rows


def row_of(place: Bounds, inside: list[Candle]) -> KlineRow:
    """One row from the base candles that lie in it, oldest first."""
    if not inside:
        return KlineRow(place.start_s, place.end_s, None, None, None, None, 0, 0, 0)
    return KlineRow(
        place.start_s,
        place.end_s,
        inside[0].open,
        max(candle.high for candle in inside),
        min(candle.low for candle in inside),
        inside[-1].close,
        sum(candle.lots for candle in inside),
        sum(candle.quote_atoms for candle in inside),
        sum(candle.trades for candle in inside),
    )
