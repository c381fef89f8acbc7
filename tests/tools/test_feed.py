"""`satchel feed` against a real exchange: what it sends, what it drops, what it says.   [P-1]"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from engine import pricing
from tests.api.edge import Trader, Venue, venue
from tools.feed import read_feed
from tools.quotes import Dropped, Tape, Told, judged
from tools.terminal import CannotRun

ROOT = Path(__file__).parents[2]
DEVNET = ROOT / "engine" / "genesis" / "devnet.toml"
SOL = 5
USD = 10**12
NOW_MS = 1_760_000_000_000
GOOD = {"bid": "149.9", "ask": "150.1", "last": "150"}

SOURCES = """
[asset.index]
minimum_sources = 2

[[asset.index.source]]
name = "north"
stale_ms = 5000

[[asset.index.source]]
name = "south"
stale_ms = 5000
"""


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"bid": "NaN"}, "bid: not a decimal number: 'NaN'"),
        ({"ask": float("inf")}, "ask: not a decimal number: 'inf'"),
        ({"last": float("nan")}, "last: not a decimal number: 'nan'"),
        ({"last": "1e400"}, "last: not a decimal number: '1e400'"),
        ({"last": "٣"}, "last: not a decimal number: '٣'"),
        ({"bid": "-149.9"}, "bid -149.9 is not above zero"),
        ({"bid": "0"}, "bid 0 is not above zero"),
        ({"last": "0.0000000000001"}, "last 0.000000000000 is not above zero"),
        ({"ask": None}, "no ask"),
        ({"ask": "99999999999"}, "ask: number too large: 99999999999 exceeds 9223372.036854775807"),
        ({"ask": {}}, "ask: not a decimal number: '{}'"),
        ({"bid": "150.2"}, "crossed: bid 150.2 above ask 150.1"),
        ({"timestamp": NOW_MS - 10_001}, "stale: 10001 ms old, at most 10000"),
        ({"timestamp": NOW_MS + 1_001}, "from the future by 1001 ms"),
        ({"timestamp": "yesterday"}, "timestamp yesterday is no time in ms"),
        ({"timestamp": True}, "timestamp True is no time in ms"),
        ({"timestamp": -1}, "timestamp -1 is no time in ms"),
    ],
)
def test_what_cannot_be_is_dropped_with_the_reason(change: dict[str, Any], reason: str) -> None:
    assert judged("SOL", "north", GOOD | change, NOW_MS, 10_000) == Dropped("SOL", "north", reason)


@pytest.mark.parametrize("row", [None, [], "150", 7])
def test_what_is_no_ticker_at_all_is_dropped(row: Any) -> None:
    assert isinstance(judged("SOL", "north", row, NOW_MS, 10_000), Dropped)


def test_a_good_ticker_is_told_in_whole_units_and_never_from_the_future() -> None:
    told = Told("SOL", "north", 1499 * USD // 10, 1501 * USD // 10, 150 * USD, NOW_MS)

    assert judged("SOL", "north", GOOD, NOW_MS, 10_000) == told
    assert judged("SOL", "north", GOOD | {"last": 150.0, "timestamp": NOW_MS + 900}, NOW_MS, 10_000) == told
    # Beyond 12 decimals nothing is an atom of anything: cut.
    assert judged("SOL", "north", GOOD | {"last": "150.0000000000009"}, NOW_MS, 10_000) == told


async def test_a_tape_gives_a_timestamp_a_round_and_survives_broken_lines(tmp_path: Path) -> None:
    path = tmp_path / "tape.ndjson"
    rows = [{"asset": "SOL", "timestamp": 5, **GOOD}, {"asset": "ETH", "timestamp": 5, **GOOD}]
    later = {"asset": "SOL", "timestamp": 6, **GOOD}
    path.write_text("\n".join([*map(json.dumps, rows), "{", "[1]", "", json.dumps(later)]) + "\n")

    own, now = Tape("tape", path, True), Tape("tape", path, False)
    rounds = [(await own.ask(NOW_MS), await now.ask(NOW_MS)) for _ in range(3)]

    assert [[each.asset for each in row] for row, _ in rounds] == [["SOL", "ETH"], ["?", "?"], ["SOL"]]
    assert rounds[0][0][0] == judged("SOL", "tape", {**GOOD, "timestamp": 5}, NOW_MS, None)
    assert rounds[0][1][0] == judged("SOL", "tape", GOOD, NOW_MS, None)
    assert own.is_exhausted() and now.is_exhausted()
    assert await own.ask(NOW_MS) == []


async def test_two_tapes_feed_a_running_exchange_and_the_liar_is_named(tmp_path: Path) -> None:
    """P-1: the engine's index of what the feed sent; a source that lies stands out in the feed's own words."""
    operator = Trader(None, 5_555)  # type: ignore[arg-type]
    tape(tmp_path / "north.ndjson", {"last": "150"}, {"last": "151", "bid": "150.9", "ask": "151.1"}, {})
    tape(tmp_path / "south.ndjson", {"last": "150"}, {"bid": "NaN"}, {})
    config = feed_file(tmp_path, "north", "south")
    async with venue(tmp_path / "data", genesis=with_sources(tmp_path, operator.key)) as running:
        code, out, err = await feed(running, key_file(tmp_path, operator), config, "--json")
        at_us = running.node.now_us()
        index, live = pricing.index_price(running.node.state, SOL), pricing.is_live(running.node.state, SOL, at_us)
        logged = [one.kind for one in running.node.store.commands()].count("FeedQuotes")
        quotes = dict(running.node.state.pricing[SOL].quotes)

    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert logged == 3 and live
    assert index == 150 * USD
    assert quotes["south"].at_us <= at_us and quotes["north"].last == 150 * USD
    assert [line["sent"] for line in lines if "last" in line] == [True] * 5
    assert [line["reason"] for line in lines if "reason" in line] == ["bid: not a decimal number: 'NaN'"]


async def test_a_quote_that_the_exchange_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    operator = Trader(None, 5_555)  # type: ignore[arg-type]
    for name in ("north", "south", "east"):
        tape(tmp_path / f"{name}.ndjson", {})
    config = feed_file(tmp_path, "north", "south", "east")
    async with venue(tmp_path / "data", genesis=with_sources(tmp_path, operator.key)) as running:
        code, out, _err = await feed(running, key_file(tmp_path, operator), config)
        quotes = running.node.state.pricing[SOL].quotes

    assert code == 0 and sorted(quotes) == ["north", "south"]
    refused = [line for line in out.splitlines() if "refused" in line]
    assert len(refused) == 1 and "SOL east" in refused[0] and "nknown source" in refused[0]


async def test_a_users_key_feeds_nothing(tmp_path: Path) -> None:
    operator, stranger = Trader(None, 5_555), Trader(None, 6_666)  # type: ignore[arg-type]
    tape(tmp_path / "north.ndjson", {})
    async with venue(tmp_path / "data", genesis=with_sources(tmp_path, operator.key)) as running:
        ended = await feed(running, key_file(tmp_path, stranger), feed_file(tmp_path, "north"))
        code, _out, err = ended
        fed = dict(running.node.state.pricing)

    assert code == 2 and "is no operator's key" in err and "operator_keys" in err
    assert not fed


async def test_an_exchange_that_is_gone_is_tried_again(tmp_path: Path) -> None:
    tape(tmp_path / "north.ndjson", {}, {})
    key = key_file(tmp_path, Trader(None, 5_555))  # type: ignore[arg-type]
    code, _out, err = await satchel_feed("http://127.0.0.1:9", key, feed_file(tmp_path, "north"))

    assert code == 0 and err.count("does not answer") == 2


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "assets is missing"),
        ("[assets]\nSOL = 5", "source is missing"),
        ("[assets]\nSOL = '5'\n[[source]]\nname = 'n'\nkind = 'recorded'", "assets.SOL is '5', not int"),
        ("[assets]\nSOL = 5\n[[source]]\nname = 'n'\nkind = 'oracle'", "n.kind is 'oracle', none of ccxt, recorded"),
        ("[assets]\nSOL = 5\n[[source]]\nname = 'n'\nkind = 'recorded'\nfile = 'none'", "none"),
        ("[assets", "feed.toml"),
    ],
)
def test_a_feed_file_that_cannot_be_used_says_which_key(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "feed.toml"
    path.write_text(text)

    with pytest.raises(CannotRun) as problem:
        read_feed(path)
    assert why in problem.value.what


def tape(path: Path, *changes: dict[str, str]) -> None:
    rows = ({"asset": "SOL", "timestamp": at, **GOOD, **change} for at, change in enumerate(changes))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def feed_file(folder: Path, *names: str) -> Path:
    path = folder / "feed.toml"
    sources = (f'[[source]]\nname = "{name}"\nkind = "recorded"\nfile = "{name}.ndjson"\n' for name in names)
    path.write_text("every_ms = 50\n[assets]\nSOL = 5\n" + "".join(sources))
    return path


def with_sources(folder: Path, operator_key: str) -> str:
    """The devnet's genesis with an operator, and two sources for SOL's index."""
    text = DEVNET.read_text().replace("operator_keys = []", f'operator_keys = ["{operator_key}"]')
    begin = text.index("[asset.lending]", text.index('symbol = "SOL"'))
    path = folder / "genesis.toml"
    path.write_text(text[:begin] + SOURCES.lstrip() + "\n" + text[begin:])
    return str(path)


def key_file(folder: Path, trader: Trader) -> Path:
    path = folder / "operator.key"
    path.write_text(b64encode(trader.private.private_bytes_raw()).decode())
    return path


async def feed(running: Venue, key: Path, config: Path, *options: str) -> tuple[int, str, str]:
    return await satchel_feed(str(running.http.make_url("")).rstrip("/"), key, config, *options)


async def satchel_feed(url: str, key: Path, config: Path, *options: str) -> tuple[int, str, str]:
    """The command as a person runs it; gives its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.cli", "feed", "--url", url, "--key", str(key), "--config", str(config), *options,
        cwd=ROOT, env={"PATH": os.environ["PATH"]}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()
