"""Clients that others wrote, unmodified, with perpetuals: positions, funding, reduce-only.   [W-1, W-3, W-6]"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.clients.node import devnet, post, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


async def begun(world: dict[str, Any]) -> None:
    """Prices, and exchange time a quarter past an hour: one funding interval ends within the next."""
    async with aiohttp.ClientSession() as http:
        await post(http, f"{world['url']}/dev/v1/clock", {"mode": "manual"})
        now = (await post(http, f"{world['url']}/dev/v1/clock", {"advanceMs": 0}))["now"]
        await post(http, f"{world['url']}/dev/v1/clock", {"advanceMs": 3_600_000 - now % 3_600_000 + 900_000})
        await post(http, f"{world['url']}/dev/v1/prices", {"USDC": "1", "SOL": "150"})


async def test_ccxt_trades_perpetuals(ccxt_python: Path, tmp_path: Path) -> None:
    """C-5, P-22, S-10, W-3"""
    async with devnet(tmp_path) as world:
        await begun(world)
        seen = await run(ccxt_python, "drive_ccxt_perps.py", world)

    assert seen["market"] == ["swap", "USDC", True, True]
    assert (seen["leverage"], seen["limit"]) == ("", "5")
    assert 3_200 < seen["most"] < 3_334, "100,000 USDC at leverage 5, less the fee"
    assert seen["offered"] == ["open", True] and seen["would take"] == "InvalidOrder"
    assert seen["taken"] == ["closed", 3.0, 450.0] and seen["at market"] == ["closed", 1.0]
    assert seen["positions"] == [
        ["SOL/USDC:USDC", "long", "4", "150", "150", "0", "-0.3"],
        ["SOL/USDC:USDC", "short", "4", "150", "150", "0", "-0.12"],
    ]
    assert seen["too much"] == "InsufficientFunds"
    assert seen["open interest"] == ["SOL/USDC:USDC", 4.0] and seen["rate"] == [150.0, 150.0, 0]
    assert (seen["rates"], seen["rates later"]) == (1, 2)
    assert seen["settled"] == [["SOL/USDC:USDC", "long", "4", "150", "151", "0", "3.7"]]
    assert seen["funding"] == ["SOL/USDC:USDC", True, True] and seen["realized"] == 4.0
    assert seen["stop"] == [120.0, True] and seen["fired"] == ["closed", 1.0, []]
    assert seen["reduced"] == [3.0, True] and seen["nothing to reduce"] != "nothing"
    assert seen["closed"] == [] and seen["history"] == ["SOL_USDC_PERP", "150", "151", "4"]
    assert seen["fills"] == [["buy", 1.0, "USDC"], ["buy", 3.0, "USDC"], ["sell", 1.0, "USDC"], ["sell", 3.0, "USDC"]]
    assert seen["book"] == [[151.0, 6.0]] and seen["ticker"] == 151.0 and seen["candles"] == 8.0


async def test_ccxt_pro_watches_positions(ccxt_python: Path, tmp_path: Path) -> None:
    """W-6"""
    async with devnet(tmp_path) as world:
        await begun(world)
        seen = await run(ccxt_python, "drive_ccxt_pro_perps.py", world)

    assert seen["opened"] == ["SOL/USDC:USDC", "long", "2.00", "positionOpened"]
    assert seen["adjusted"] == ["SOL/USDC:USDC", "long", "3.00", "positionAdjusted"]
    assert seen["order"] == "SOL/USDC:USDC"
    assert seen["closed"][3] == "positionClosed"


async def test_bpx_py_trades_perpetuals(bpx_python: Path, tmp_path: Path) -> None:
    """C-5, P-22, S-10, W-3"""
    async with devnet(tmp_path) as world:
        await begun(world)
        seen = await run(bpx_python, "drive_bpx_perps.py", world)

    assert seen["none"] == [] and seen["taken"] == "Filled"
    assert seen["position"] == ["3", "150", "450", "0"] and seen["exposure"] == "450"
    assert {"cumulativeInterest", "estLiquidationPrice", "breakEvenPrice", "imfFunction"} <= set(seen["fields"])
    assert seen["most"] == ["SOL_USDC_PERP", "Ask", True]
    assert seen["funding"] == ["SOL_USDC_PERP", True]
    assert seen["settlements"] == ["FundingPayment", "RealizePnl", "TradingFees"]
    assert seen["only fees"] == ["-0.225"] and seen["open interest"] == ["3"] and seen["rates"] == 2
    assert seen["reduced"] == ["Filled", True, []] and seen["fills"] == ["USDC", "USDC"]
    assert seen["async"] == {"positions": 0, "funding": 1, "settlements": 1}
