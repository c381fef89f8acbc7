"""The README's five-minute tour, typed as a newcomer types it, beside a running `satchel demo`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.docs.shown import objects

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
TOUR_SECONDS = 300

pytestmark = pytest.mark.timeout(START_SECONDS + TOUR_SECONDS + 60)


@dataclass(frozen=True, slots=True)
class Toured:
    """What is there after the tour: the exchange, the newcomer's folder, and all that the terminal showed."""

    url: str
    data: Path
    here: Path
    shown: str
    words: str

    def run(self, *words: str) -> str:
        """A command in the newcomer's folder: its stdout."""
        names = environment(self.url, self.data)
        return subprocess.run(
            words, cwd=self.here, env=names, check=True, stdout=subprocess.PIPE, text=True, timeout=60
        ).stdout

    def ask(self, instruction: str, *fields: str) -> Any:
        """The answer to a request that the newcomer signs."""
        line = self.run("satchel", "sign", "--url", self.url, "--key", "me.key", instruction, *fields).splitlines()[-1]
        return json.loads(self.run("bash", "-c", line))

    def rows(self, field: str) -> list[dict[str, Any]]:
        """Every JSON object that was shown and has this field, in order."""
        return [row for row in objects(self.shown) if field in row]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(URL, data folder) of `make run`'s command, on a free port, once its book lives."""
    data = tmp_path_factory.mktemp("demo") / "devnet"
    command = [sys.executable, "-m", "tools.cli", "demo", "--data", str(data), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    url = ""
    deadline = time.monotonic() + START_SECONDS
    while not url and time.monotonic() < deadline:
        line = process.stdout.readline()
        if not line:
            break
        lines.append(line)
        found = re.search(r"listening on (http://\S+)", line)
        url = found.group(1) if found else ""
    assert url, "".join(lines)
    drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
    try:
        yield url, data
    finally:
        process.terminate()
        assert process.wait(60) == 0
        drain.terminate()
        drain.wait()


@pytest.fixture(scope="module")
def toured(demo: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Toured:
    """The tour, typed once, up to its last line."""
    url, data = demo
    here = tmp_path_factory.mktemp("here")
    (here / "por").symlink_to(ROOT / "por")
    books = [
        f'until curl -s "{url}/api/v1/depth?symbol={symbol}" | grep -q \'"asks":\\[\\[\'; do sleep 0.5; done'
        for symbol in ("SOL_USDC", "ETH_USDC", "SOL_USDC_PERP")
    ]
    script = "\n".join(["set -euo pipefail", *books, *tour()[1:]])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=here,
        env=environment(url, data),
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Toured(url, data, here, done.stdout, done.stdout + done.stderr)


def environment(url: str, data: Path) -> dict[str, str]:
    """Where the commands are, and what the tour's first lines export."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "URL": url, "DATA": str(data)}


def tour() -> list[str]:
    """The tour's shell blocks, in order; the first names the sandbox of `make run`."""
    text = (ROOT / "README.md").read_text()
    section = text.split("## Five minutes", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


def test_every_command_of_the_tour_works_as_written(toured: Toured) -> None:
    assert '"symbol":"SOL_USDC"' in toured.shown
    assert "identical" in toured.words
    assert '"paymentType":"Borrow"' in toured.shown and '"netQuantity":"-1.5' in toured.shown


def test_the_tour_shows_a_position_its_stop_its_funding_and_its_end(toured: Toured) -> None:
    """S-9, S-10, P-21."""
    (opened,) = toured.rows("breakEvenPrice")
    (stop,) = [row for row in toured.rows("triggerPrice") if row["status"] == "TriggerPending"]
    funding = toured.rows("fundingRate")
    (closed,) = toured.rows("closingPrice")

    assert (opened["symbol"], opened["netQuantity"], opened["imf"]) == ("SOL_USDC_PERP", "100", "0.05")
    assert Decimal(opened["entryPrice"]) * 100 == Decimal(opened["netCost"]) > 0
    assert 0 < Decimal(opened["estLiquidationPrice"]) < Decimal(opened["markPrice"])
    assert (stop["triggerPrice"], stop["triggerQuantity"], stop["reduceOnly"]) == ("120", "100%", True)
    assert [row["symbol"] for row in funding] == ["SOL_USDC_PERP"] * 3
    for row in funding:
        assert Decimal(row["quantity"]) * Decimal(row["fundingRate"]) < 0, f"a long pays a rate above zero: {row}"
    assert {"RealizePnl", "TradingFees"} <= {row["source"] for row in toured.rows("engineSequence")}
    assert (closed["state"], closed["netQuantity"], closed["closedVolume"]) == ("Closed", "0", "100")
    assert '"liquidating":0' in toured.shown


def test_what_a_position_brought_is_told_the_same_by_history_and_postings(toured: Toured) -> None:
    """To the atom: position, settlements and funding of the API; the statement's lines and its sum.   [A-12, S-10]"""
    subaccount = str(toured.ask("subaccountQueryAll")[0]["subaccountId"])
    statement = json.loads(toured.run("satchel", "statement", subaccount, "--data", str(toured.data), "--json"))
    moved: dict[str, Decimal] = {}
    for line in statement["lines"]:
        if (line["account"], line["asset"]) == ("held", "USDC"):
            moved[line["kind"]] = moved.get(line["kind"], Decimal(0)) + Decimal(line["amount"])
    settlements: dict[str, Decimal] = {}
    for row in toured.ask("settlementHistoryQueryAll", "limit=1000"):
        settlements[row["source"]] = settlements.get(row["source"], Decimal(0)) + Decimal(row["quantity"])
    funding = [Decimal(row["quantity"]) for row in toured.ask("fundingHistoryQueryAll", "limit=1000")]
    (position,) = toured.ask("positionHistoryQueryAll")
    (period,) = statement["positions"]

    assert settlements.keys() == {"RealizePnl", "FundingPayment", "TradingFees"}
    assert len(funding) == 72, "one an hour for three days"
    assert (period["bought"], period["sold"], period["closing"], period["cost"]) == ("100", "100", "0", "0")
    settled = settlements["RealizePnl"] + settlements["FundingPayment"]
    assert moved["settlement"] == Decimal(period["settled"]) == settled
    assert moved["perpetual_trade"] == -Decimal(period["fees"]) == settlements["TradingFees"]
    assert Decimal(position["fundingQuantity"]) == Decimal(period["funding"]) == sum(funding)
    assert settlements["FundingPayment"] == sum(funding)
    assert Decimal(position["cumulativePnlRealized"]) == sum(settlements.values())
    assert Decimal(position["cumulativePnlRealized"]) == moved["settlement"] + moved["perpetual_trade"]


def test_what_the_api_says_is_what_the_postings_say(toured: Toured) -> None:
    """After the tour: balances, loans and collateral of the API against the statement of postings.   [A-12, R-2]"""
    clock = f"{toured.url}/dev/v1/clock"
    # At the stroke of an hour all interest is posted, so that both sides speak of the same atoms.
    now = json.loads(toured.run("curl", "-s", clock, "-d", '{"mode": "manual"}'))["now"]
    toured.run("curl", "-s", clock, "-d", json.dumps({"advanceMs": 3_600_000 - now % 3_600_000}))
    subaccount = toured.ask("subaccountQueryAll")[0]["subaccountId"]
    statement = json.loads(toured.run("satchel", "statement", str(subaccount), "--data", str(toured.data), "--json"))
    held = {row["asset"]: Decimal(row["balance"]) for row in statement["closing"] if row["account"] == "held"}
    worth = {row["asset"]: Decimal(row["worth"]) for row in statement["closing"] if row.get("worth")}

    balances = toured.ask("balanceQuery")
    assert {symbol: Decimal(row["available"]) + Decimal(row["locked"]) for symbol, row in balances.items()} == held
    loans = {row["symbol"]: Decimal(row["netQuantity"]) for row in toured.ask("borrowLendPositionQuery")}
    assert loans == {name.partition(".")[0]: value for name, value in worth.items()}
    collateral = {row["symbol"]: row for row in toured.ask("collateralQuery")["collateral"]}
    for symbol, row in collateral.items():
        assert Decimal(row["lendQuantity"]) == worth.get(f"{symbol}.lend", 0)
        assert Decimal(row["totalQuantity"]) == held.get(symbol, 0) + worth.get(f"{symbol}.lend", 0)
