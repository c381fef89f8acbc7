"""docs/pools.md as somebody types it: both worked examples of the seed, end to end, on a sandbox of their own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.docs.shown import objects
from tools.node_process import NodeProcess

ROOT = Path(__file__).parents[2]
TOUR_SECONDS = 240
SWAP_FEE = Decimal("0.003")
SLIPPAGE = Decimal("0.0003")
"""10,000 in a pool of 100 million move its price by 2 in 10,000."""

pytestmark = pytest.mark.timeout(TOUR_SECONDS + 120)

Row = dict[str, Any]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Every JSON object that the tour showed, in order."""
    here = tmp_path_factory.mktemp("pools")
    return asyncio.run(_tour(here))


async def _tour(here: Path) -> list[Row]:
    node = NodeProcess(here / "data")
    url = await node.start()
    try:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "URL": url, "DATA": str(here / "data")}
        script = "\n".join(["set -euo pipefail", *blocks()[1:]])
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", script], cwd=here, env=environment, capture_output=True, text=True,
            timeout=TOUR_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return list(objects(done.stdout))
    finally:
        await node.stop()


def blocks() -> list[str]:
    """The page's shell blocks, in order; the first names the sandbox."""
    return re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "pools.md").read_text(), re.DOTALL)


def with_field(rows: list[Row], field: str) -> Iterator[Row]:
    return (row for row in rows if field in row)


@pytest.mark.parametrize(("number", "collateral", "custody"), [(0, "USDC", "ROWAN"), (1, "ROWAN", "USDC")])
def test_both_examples_of_the_seed_end_within_fees_of_its_numbers(
    shown: list[Row], number: int, collateral: str, custody: str
) -> None:
    """1,000 at 10x, 9,000 borrowed, about 500 of 10,000 in interest, the price doubles: about 9,000 gained.   [S3]"""
    quoted = list(with_field(shown, "minimumInterest"))[number]
    begun = list(with_field(shown, "openedAt"))[number]
    closed = list(with_field(shown, "repaid"))[number]

    assert (begun["collateralSymbol"], begun["custodySymbol"]) == (collateral, custody)
    assert (begun["collateral"], begun["leverage"], begun["owed"]) == ("1000", "10", "9000")
    assert begun["custody"] == quoted["custody"] and quoted["size"] == "10000"
    # 10,000 at about 1, less the fee. The whale leaves the price within half a percent of 1 for the second.
    price = Decimal(begun["custody"]) / 10_000 / (1 - SWAP_FEE)
    assert abs(price - 1) < (SLIPPAGE if number == 0 else Decimal("0.005"))
    # An hour at a rate of 1/18 of 9,000, and a minute of the next.
    interest = Decimal(closed["interestPaid"])
    assert Decimal(500) <= interest <= Decimal(500) * (1 + Decimal(2) / 60)
    # What is left in custody comes back at about 2, less the fee, and 9,000 are owed.
    left = Decimal(begun["custody"]) - Decimal(closed["interestPaidCustody"])
    assert Decimal(closed["custody"]) == left
    doubled = Decimal(closed["repaid"]) / left / (1 - SWAP_FEE)
    assert abs(doubled - 2) < Decimal("0.02")
    assert Decimal(closed["returned"]) == Decimal(closed["repaid"]) - 9_000
    gain = Decimal(closed["returned"]) - 1_000
    # The seed says 9,000 before fees: three swaps at 0.3 %, a minute's interest, and a price that is not quite 2.
    assert abs(gain - 9_000) < 3 * SWAP_FEE * 19_000 + 20 + Decimal("0.02") * 9_500
    assert (closed["forced"], closed["badDebt"], closed["fund"]) == (False, "0", "0")


def test_the_interest_is_the_providers_and_the_funds(shown: list[Row]) -> None:
    """35 % of each payment is the fund's; the rest and every fee is in the units of the one provider.   [X-9]"""
    ((provided,),) = (row["liquidity"] for row in with_field(shown, "liquidity"))
    first, second = with_field(shown, "repaid")
    ((pool, _sol),) = (row["pools"] for row in with_field(shown, "pools"))

    for native, paid in (("native", first["interestPaidCustody"]), ("external", second["interestPaidCustody"])):
        fund, earned = Decimal(pool[native]["fund"]), Decimal(provided[f"{native}Interest"])
        assert abs(fund - Decimal(paid) * Decimal("0.35")) < Decimal("0.0001")
        assert abs(fund + earned - Decimal(paid)) < Decimal("0.0001")
