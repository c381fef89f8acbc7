"""`satchel feed`: asks price sources outside and sends what they say as an operator's FeedQuotes.   [P-1]

The exchange makes the index itself: this is a customer of its API that holds an operator's key and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from tools.client import Client, Refused
from tools.keys import read_private_key
from tools.quotes import Dropped, Source, Tape, Ticker, Told
from tools.terminal import FINE, CannotRun, say

KINDS = ("ccxt", "recorded")


class Feed(NamedTuple):
    """A feed file: which asset has which id at the exchange, who is asked, how often."""

    asset_ids: dict[str, int]
    sources: list[Source]
    every_ms: int


def run(url: str, key: Path, config: Path, rounds: int | None, as_json: bool) -> int:
    """Feed until Ctrl-C, until every tape has ended, or for `rounds` rounds."""
    return asyncio.run(_run(url, key, config, rounds, as_json))


async def _run(url: str, key: Path, config: Path, rounds: int | None, as_json: bool) -> int:
    feed = read_feed(config)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            client = Client(session, url.rstrip("/"), read_private_key(key))
            done = 0
            while not stopped.is_set() and (rounds is None or done < rounds):
                if all(source.is_exhausted() for source in feed.sources):
                    break
                await _round(client, feed, as_json)
                done += 1
                await _sleep(stopped, feed.every_ms)
    finally:
        for source in feed.sources:
            await source.close()
    return FINE


async def _sleep(stopped: asyncio.Event, every_ms: int) -> None:
    try:
        async with asyncio.timeout(every_ms / 1_000):
            await stopped.wait()
    except TimeoutError:
        pass


async def _round(client: Client, feed: Feed, as_json: bool) -> None:
    """Ask everybody, send what can be believed in one command; a command that is refused is sent quote by quote."""
    now_ms = time.time_ns() // 1_000_000
    answers = [each for one in await asyncio.gather(*(source.ask(now_ms) for source in feed.sources)) for each in one]
    told: list[Told] = []
    for answer in answers:
        if isinstance(answer, Told) and answer.asset not in feed.asset_ids:
            answer = Dropped(answer.asset, answer.source, "the feed file gives it no asset id")
        if isinstance(answer, Told):
            told.append(answer)
        else:
            _show(answer, "", as_json)
    if not told:
        return
    try:
        reason = await _send(client, feed, told)
        if reason and len(told) > 1:
            for each in told:
                _show(each, await _send(client, feed, [each]), as_json)
        else:
            for each in told:
                _show(each, reason, as_json)
    except (aiohttp.ClientError, TimeoutError, OSError) as problem:
        say(f"{client.url} does not answer: {type(problem).__name__} {problem}; trying again")


async def _send(client: Client, feed: Feed, told: list[Told]) -> str:
    """The reason of a refusal, "" when the exchange took the quotes."""
    # A sandbox's clock is not the world's: a quote is as old there as it is here.
    exchange_ms, wall_ms = int(await client.ask("/api/v1/time")), time.time_ns() // 1_000_000
    quotes = [
        {
            "asset_id": feed.asset_ids[each.asset],
            "source": each.source,
            "best_bid": each.best_bid,
            "best_ask": each.best_ask,
            "last": each.last,
            "at_us": max(0, exchange_ms - max(0, wall_ms - each.at_ms)) * 1_000,
        }
        for each in told
    ]
    try:
        await client.request("operatorExecute", command="FeedQuotes", arguments=json.dumps({"quotes": quotes}))
    except Refused as refused:
        if refused.status in (401, 403):
            raise CannotRun(
                f"{client.public_key} is no operator's key there ({refused})",
                "list the key in the genesis file's operator_keys",
            ) from None
        return str(refused)
    return ""


def _show(answer: Told | Dropped, refusal: str, as_json: bool) -> None:
    """A line for each quote that was sent or refused, and for each that was dropped."""
    if as_json:
        print(json.dumps({**answer._asdict(), "sent": isinstance(answer, Told) and not refusal, "refusal": refusal}))
    else:
        print(f"{answer} refused: {refusal}" if refusal else str(answer), flush=True)


def read_feed(path: Path) -> Feed:
    """A feed file (TOML; see docs/pricing.md). Raises CannotRun with the key that is wrong."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
        asset_ids = {str(name): _is(int, number, f"assets.{name}") for name, number in document["assets"].items()}
        every_ms = _is(int, document.get("every_ms", 1_000), "every_ms")
        tables = document["source"]
        sources = [_source(table, path.parent) for table in tables]
    except KeyError as missing:
        raise _unusable(path, f"{missing.args[0]} is missing") from None
    except ModuleNotFoundError as problem:
        raise CannotRun(f"the library {problem.name} is not installed", "pip install ccxt") from None
    except (OSError, ValueError, AttributeError, TypeError) as problem:
        raise _unusable(path, str(problem)) from None
    if not sources or every_ms < 1:
        raise _unusable(path, "at least one [[source]], and every_ms above 0")
    return Feed(asset_ids, sources, every_ms)


def _source(table: dict[str, Any], folder: Path) -> Source:
    name = _is(str, table["name"], "name")
    match table["kind"]:
        case "ccxt":
            exchange = _is(str, table["exchange"], f"{name}.exchange")
            symbols = {asset: _is(str, market, f"{name}.symbols.{asset}") for asset, market in table["symbols"].items()}
            max_age_ms = _is(int, table.get("max_age_ms", 10_000), f"{name}.max_age_ms")
            return Ticker(name, exchange, symbols, max_age_ms, table.get("options", {}))
        case "recorded":
            times = table.get("times", "now")
            if times not in ("now", "own"):
                raise ValueError(f"{name}.times is {times!r}, not now or own")
            return Tape(name, folder / _is(str, table["file"], f"{name}.file"), times == "own")
        case kind:
            raise ValueError(f"{name}.kind is {kind!r}, none of {', '.join(KINDS)}")


def _is(kind: type, value: Any, key: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{key} is {value!r}, not {kind.__name__}")
    return value


def _unusable(path: Path, why: str) -> CannotRun:
    return CannotRun(f"{path}: {why}", "docs/pricing.md shows a feed file")
