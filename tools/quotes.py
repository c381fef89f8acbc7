"""Price sources outside the exchange: tickers of other exchanges through ccxt, and recorded tapes.   [P-1]

A source may lie or die: whatever it says that cannot be is dropped with the reason, and the next round asks again.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ledger.amounts import INT64_MAX, AmountError, format_decimal, parse_decimal

PRICE_DECIMALS = 12
AHEAD_MS = 1_000
"""A source's clock may be this far ahead of ours."""
ANSWER_SECONDS = 5.0


class Told(NamedTuple):
    """What a source said about one asset; prices in 1e-12 USD, time in ms on our clock."""

    asset: str
    source: str
    best_bid: int
    best_ask: int
    last: int
    at_ms: int

    def __str__(self) -> str:
        bid, ask, last = (
            format_decimal(price, PRICE_DECIMALS) for price in (self.best_bid, self.best_ask, self.last)
        )
        return f"{self.asset} {self.source} bid {bid} ask {ask} last {last}"


class Dropped(NamedTuple):
    """What a source said and nobody should believe, or that it said nothing."""

    asset: str
    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.asset} {self.source} dropped: {self.reason}"


Answer = Told | Dropped


class Source(Protocol):
    """Somebody to ask once a round. Never raises for what the outside does."""

    async def ask(self, now_ms: int) -> list[Answer]: ...

    def is_exhausted(self) -> bool: ...

    async def close(self) -> None: ...


class Ticker:
    """Public tickers of another exchange, by ccxt's names: `symbols` maps our asset to its market."""

    def __init__(
        self, name: str, exchange: str, symbols: dict[str, str], max_age_ms: int, options: dict[str, Any]
    ) -> None:
        # Not a requirement: ccxt holds back the versions of libraries that it shares with us.
        library: Any = importlib.import_module("ccxt.async_support")
        if exchange not in library.exchanges:
            raise ValueError(f"ccxt knows no exchange {exchange!r}")
        self.name = name
        self._symbols = symbols
        self._max_age_ms = max_age_ms
        self._exchange = getattr(library, exchange)({"timeout": int(ANSWER_SECONDS * 1_000), **options})
        # Prices as the text that came over the wire: a float would be rounded before anybody looked.
        self._exchange.number = str

    async def ask(self, now_ms: int) -> list[Answer]:
        return list(await asyncio.gather(*(self._one(asset, now_ms) for asset in self._symbols)))

    async def _one(self, asset: str, now_ms: int) -> Answer:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                row = await self._ticker(self._symbols[asset])
        except Exception as problem:
            # Whatever goes wrong out there, in ccxt or in what it was sent, is this source's alone.
            return Dropped(asset, self.name, f"{type(problem).__name__}: {str(problem)[:120]}")
        return judged(asset, self.name, row, now_ms, self._max_age_ms)

    async def _ticker(self, symbol: str) -> Any:
        """Best bid, best ask and last; some exchanges tell the first two with the book only."""
        row = await self._exchange.fetch_ticker(symbol)
        if row.get("bid") is not None and row.get("ask") is not None:
            return row
        book = await self._exchange.fetch_order_book(symbol)
        bids, asks = book["bids"], book["asks"]
        return {**row, "bid": bids[0][0] if bids else None, "ask": asks[0][0] if asks else None}

    def is_exhausted(self) -> bool:
        return False

    async def close(self) -> None:
        await self._exchange.close()


class Tape:
    """A file of quotes, one JSON object a line: asset, bid, ask, last (decimals as text), timestamp (ms).

    Each round gives the lines of the next timestamp. With `keeps_times` they keep it, else they are of now.
    """

    def __init__(self, name: str, path: Path, keeps_times: bool) -> None:
        self.name = name
        self._keeps_times = keeps_times
        self._batches: Iterator[list[Any]] = iter(_batches(path))
        self._next = next(self._batches, None)

    async def ask(self, now_ms: int) -> list[Answer]:
        batch, self._next = self._next or [], next(self._batches, None)
        return [self._judged(row, now_ms) for row in batch]

    def _judged(self, row: Any, now_ms: int) -> Answer:
        if not isinstance(row, dict) or not isinstance(row.get("asset"), str):
            return Dropped("?", self.name, "a line that is no quote")
        if self._keeps_times:
            return judged(row["asset"], self.name, row, now_ms, None)
        return judged(row["asset"], self.name, {**row, "timestamp": None}, now_ms, None)

    def is_exhausted(self) -> bool:
        return self._next is None

    async def close(self) -> None:
        pass


def judged(asset: str, source: str, row: Any, now_ms: int, max_age_ms: int | None) -> Answer:
    """A ticker row as a quote, or why not. A row without a time is of now."""
    try:
        bid, ask, last = (_price(row, name) for name in ("bid", "ask", "last"))
        if bid > ask:
            raise ValueError(f"crossed: bid {row['bid']} above ask {row['ask']}")
        at_ms = row.get("timestamp")
        if at_ms is None:
            at_ms = now_ms
        if not isinstance(at_ms, int) or isinstance(at_ms, bool) or at_ms < 0:
            raise ValueError(f"timestamp {str(at_ms)[:40]} is no time in ms")
        if at_ms > now_ms + AHEAD_MS:
            raise ValueError(f"from the future by {at_ms - now_ms} ms")
        if max_age_ms is not None and now_ms - at_ms > max_age_ms:
            raise ValueError(f"stale: {now_ms - at_ms} ms old, at most {max_age_ms}")
    except (ValueError, AttributeError) as problem:
        return Dropped(asset, source, str(problem))
    return Told(asset, source, bid, ask, last, min(at_ms, now_ms))


def _price(row: dict[str, Any], name: str) -> int:
    """A price as ⌊price × 10¹²⌋; the text that came, or what a float prints as."""
    value = row.get(name)
    if value is None:
        raise ValueError(f"no {name}")
    text = str(value)
    whole, point, fraction = text.partition(".")
    if fraction.isdigit():
        text = f"{whole}{point}{fraction[:PRICE_DECIMALS]}"
    try:
        price = parse_decimal(text, PRICE_DECIMALS, limit=INT64_MAX)
    except AmountError as problem:
        raise ValueError(f"{name}: {problem}") from None
    if price <= 0:
        raise ValueError(f"{name} {text[:40]} is not above zero")
    return price


def _batches(path: Path) -> Iterator[list[Any]]:
    """Lines of one timestamp together; the file is open while it is read."""
    with path.open(encoding="utf-8", errors="replace") as file:
        rows = (_row(line) for line in file if line.strip())
        for _time, batch in groupby(rows, key=lambda row: row.get("timestamp") if isinstance(row, dict) else None):
            yield list(batch)


def _row(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
