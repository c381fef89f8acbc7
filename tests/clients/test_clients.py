"""Clients that others wrote, unmodified, each in an environment of its own, only their URL changed.   [W-1, W-3]"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.clients.node import devnet, post, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


async def test_ccxt_does_a_days_work(ccxt_python: Path, tmp_path: Path) -> None:
    """W-1, W-3, W-4"""
    async with devnet(tmp_path) as world:
        seen = await run(ccxt_python, "drive_ccxt.py", world)

    assert {"SOL/USDC", "ETH/USDC", "BTC/USDC", "SOL/USDC:USDC"} <= set(seen["markets"])
    assert (seen["precision"]["amount"], seen["precision"]["price"]) == (0.01, 0.01)
    assert {"USDC", "SOL", "BTC", "ETH"} <= set(seen["currencies"])
    assert seen["status"] == "ok"
    assert seen["balance"] == {"free": 100000.0, "used": 0.0, "total": 100000.0}
    assert seen["placed"] == ["open", "open", "open"]
    assert seen["open"] == [100.0, 99.0, 98.0] and seen["open of all markets"] == 3
    assert seen["one"] == "77"
    assert seen["locked"] == 397.0
    assert seen["cancelled"] == "canceled"
    assert seen["cancelled twice"] == "ExchangeNotAvailable", "ccxt's own mapping of RESOURCE_NOT_FOUND"
    assert seen["would take"] == "InvalidOrder"
    assert seen["sold"] == ["closed", 2.5, 249.5]
    assert seen["market"] == ["closed", 1.0, 110.0]
    assert seen["far"] == "InvalidOrder", "ccxt's own mapping of INVALID_PRICE"
    assert seen["all cancelled"] is True
    assert sorted(seen["fills"]) == [
        ["buy", 99.0, 0.5, "maker", 0.0004, "SOL"],
        ["buy", 100.0, 2.0, "maker", 0.0016, "SOL"],
        ["buy", 110.0, 1.0, "taker", 0.001, "SOL"],
    ]
    assert seen["fills since"] == 2
    assert seen["history"] == ["canceled", "closed", "closed", "open"] and seen["order"] == "closed"
    assert seen["trades"] == [100.0, 99.0, 110.0] and seen["ticker"] == 110.0
    assert seen["tickers"] == ["SOL/USDC"]
    assert seen["book"] == [[[99.0, 0.5]], []]
    assert seen["candles"] == seen["candles since"] == 3.5
    assert seen["deposits"] == [["USDC", 100000.0, "ok"]] and seen["deposits until"] == 1
    assert seen["address"] is True
    assert seen["withdrawal"] == [12.5, "USDC", "pending"] and seen["withdrawals"] is True
    assert seen["too much"] == "InsufficientFunds"
    assert seen["positions"] == []


async def test_ccxt_pro_watches(ccxt_python: Path, tmp_path: Path) -> None:
    """W-6"""
    async with devnet(tmp_path) as world:
        seen = await run(ccxt_python, "drive_ccxt_pro.py", world)

    assert seen["book"] is True
    assert seen["trades"] == ["SOL/USDC", 1.0]
    assert seen["bids and asks"] and seen["ticker"] and seen["candles"]
    assert seen["orders"] == "SOL/USDC"
    assert {"closed", "canceled"} <= set(seen["statuses"])
    assert seen["same book"] == [True, True]


async def test_bpx_py_does_a_days_work(bpx_python: Path, tmp_path: Path) -> None:
    """W-1, W-3: sync and async, a boolean on the query included."""
    async with devnet(tmp_path) as world:
        seen = await run(bpx_python, "drive_bpx.py", world)

    assert {"USDC", "SOL"} <= set(seen["assets"]) and "SOL_USDC_PERP" in seen["markets"]
    assert seen["collateral"] == len(seen["assets"])
    assert seen["status"] == {"status": "Ok", "message": None}
    assert seen["ping"] == "pong" and seen["time"] is True
    assert seen["depth"] == []
    assert seen["balances"] == {"USDC": {"available": "100000", "locked": "0", "staked": "0"}}
    assert seen["account"] == "5"
    assert seen["placed"] == ["New", 5, True] and seen["open"] is True
    assert seen["orders"] == ["60", "59"]
    assert seen["sold"] == ["Market", "Filled", "30"]
    assert seen["cancelled"] == "Cancelled" and seen["cancelled all"] == ["59"]
    assert seen["gone"] == {"code": "RESOURCE_NOT_FOUND", "message": "Not Found"}
    assert seen["fills"] == [["Bid", "60", "0.0004"]]
    assert seen["history"] == ["Cancelled", "Cancelled"]
    assert seen["ticker"] == "60" and seen["trades"] == [1, 1] and seen["candles"] == "0.5"
    assert seen["deposits"] == [["USDC", "100000", "confirmed"]]
    assert seen["withdrawal"] == ["12.5", "pending"] and seen["withdrawals"] is True
    assert seen["positions"] == []
    assert seen["boolean on the query"] == {
        "maxOrderQuantity": "100000000", "side": "Bid", "symbol": "SOL_USDC", "autoBorrow": True,
    }, "with nobody to take from, a market order of any size is accepted, and expires"
    assert seen["async"] == {"placed": "New", "open": 1, "cancelled": "Cancelled", "balances": ["SOL", "USDC"]}


async def fed(world: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as http:
        await post(http, f"{world['url']}/dev/v1/prices", {"USDC": "1", "SOL": "150"})


async def test_bpx_py_lends_borrows_and_sells_short(bpx_python: Path, tmp_path: Path) -> None:
    """B-8, M-11, S-2, S-3, U-4: every method of bpx-py for money markets, margin and settings."""
    async with devnet(tmp_path) as world:
        await fed(world)
        seen = await run(bpx_python, "drive_bpx_margin.py", world)

    assert seen["lent"] == seen["borrowed"] == "", "200 with an empty body"
    assert seen["most borrow"]["symbol"] == "USDC" and 45_000 < float(seen["most borrow"]["maxBorrowQuantity"]) < 47_000
    assert seen["too much"] == "INSUFFICIENT_SUPPLY"
    assert seen["market"] == ["50000", "10000", "Open", "0.6"] and seen["history"] == "list"
    assert seen["position"] == ["USDC", "-10000", "1"]
    assert seen["collateral"] == {"USDC": "11000", "SOL": "500"} and seen["equity"] is True
    assert seen["balances"] == {"available": "11000", "locked": "0", "staked": "0"}
    assert seen["moves"] == [["Borrow", "10000", "Manual"]] and seen["interest"] == []
    assert seen["most order"] == [True, True, False, "150"]
    assert (seen["refused"], seen["short"], seen["back"]) == ("INSUFFICIENT_FUNDS", "Filled", "Filled")
    assert seen["owed"] == ["-10"] and seen["locked"] is True and seen["repaid"] == []
    assert seen["settings"] == [True, True, "3"] and seen["limit"] == "100000000"
    assert seen["all lent"] == {} and seen["most out"] is True
    assert seen["auto lend is on"] == "PRECONDITION_FAILED"
    assert seen["async"]["lent"][0].startswith("105") and seen["async"]["most"] == "SOL" and seen["async"]["equity"]


async def test_ccxt_trades_on_margin(ccxt_python: Path, tmp_path: Path) -> None:
    """S-2, S-3, W-3: order params of a cross margin account, balances, and the raw calls for the rest."""
    async with devnet(tmp_path) as world:
        await fed(world)
        seen = await run(ccxt_python, "drive_ccxt_margin.py", world)

    assert seen["lent"] == "" and seen["balance"] == {"free": 400.0, "used": 0.0, "total": 400.0}
    assert seen["markets"] == 5 and seen["marks"] == {"SOL_USDC": "150", "SOL_USDC_PERP": "150"}
    assert float(seen["most"]) > 1_000
    assert seen["no flag"] == "InsufficientFunds" and seen["short"] == ["closed", 5.0]
    assert seen["position"] == ["SOL", "-5", "5"] and seen["capital"] == [True, True]
    assert seen["proceeds"] == 100_749.25, "5 × 150 less 0.1 %"
    assert seen["liquidation"] == [True, "150"], "signed with an empty instruction: ccxt has none for it"
    assert seen["back"] == ["closed", 6.0] and 0.999 < seen["lent again"] <= 1
    assert seen["settings"] == "" and seen["account"] == ["5", True]


async def test_the_feeds_ccxt_source_reads_an_exchange_and_survives_one_that_is_gone(
    ccxt_python: Path, tmp_path: Path
) -> None:
    """P-1: bid and ask come from the book where the ticker has none, as text; nothing is believed without both."""
    async with devnet(tmp_path) as world:
        seen = await run(ccxt_python, "drive_feed.py", world)

    quiet, unknown, gone = seen["before"]
    assert quiet["asset"] == "SOL" and "reason" in quiet, "nothing was traded yet"
    assert unknown["reason"].startswith("BadSymbol")
    assert gone["source"] == "gone" and "NotAvailable" in gone["reason"]

    told = seen["after"][0]
    assert (told["best_bid"], told["best_ask"], told["last"]) == (149_250 * 10**9, 150_500 * 10**9, 150_500 * 10**9)
    assert seen["now"] - 10_000 < told["at_ms"] <= seen["now"]
    assert [answer.get("reason") for answer in seen["after"][1:]] == [unknown["reason"], gone["reason"]]
