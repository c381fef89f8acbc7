"""A node with loans: its epochs are recounted, proven to lender and borrower, and rebuilt by an auditor.

[A-13, R-2, R-6, R-22, R-23]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api import epochs
from api.epochs import kind_name
from api.recount import counted_totals, stated_totals
from por.header import Header
from tests.api.edge import Trader, Venue, request, venue

ROOT = Path(__file__).parents[2]
HOUR_MS = 3_600_000


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["in place", "forked"])
def image_taken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of taking the image; a fork is taken from this many subaccounts on."""
    monkeypatch.setattr(epochs, "TAKEN_IN_PLACE", 500 if request.param == "in place" else 0)
    return str(request.param)


async def tell(running: Venue, path: str, body: Any) -> None:
    reply = await request(running.http, "POST", f"/dev/v1/{path}", data=json.dumps(body))
    assert reply.status == 200, reply


async def loan(who: Trader, side: str, symbol: str, quantity: str) -> None:
    fields = {"symbol": symbol, "side": side, "quantity": quantity}
    reply = await who.send("POST", "/api/v1/borrowLend", "borrowLendExecute", fields)
    assert reply.status == 200, reply


async def short_sale(running: Venue) -> tuple[Trader, Trader]:
    """Alice lends SOL and USDC; Bob borrows SOL and sells it to her; days pass."""
    await tell(running, "prices", {"SOL": "100", "ETH": "2000", "BTC": "60000", "USDT": "1"})
    alice, bob = await running.trader(USDC="300000", SOL="3000"), await running.trader(USDC="50000")
    await loan(alice, "Lend", "USDC", "100000.000001")
    await loan(alice, "Lend", "SOL", "1000.0001")
    await loan(bob, "Borrow", "SOL", "100.0003")
    assert (await alice.place("SOL_USDC", "Bid", "100", "90")).status == 200
    assert (await bob.place("SOL_USDC", "Ask", "100", "90")).status == 200
    await tell(running, "clock", {"advanceMs": 50 * HOUR_MS + 1_234_567})
    return alice, bob


async def test_loans_in_an_epoch_are_recounted_proven_and_rebuilt(
    tmp_path: Path, database: str | None, image_taken: str
) -> None:
    """Closed in the middle of an hour, so that its interest is posted by the epoch itself."""
    data = tmp_path / "data"
    async with venue(data, database=database) as running:
        alice, bob = await short_sale(running)
        assert (await request(running.http, "POST", "/dev/v1/por")).status == 200
        header = running.node.epochs.log.last
        assert isinstance(header, Header) and running.node.failure is None

        counted = counted_totals(running.node.reader, header.block_height, kind_name)
        assert {key: atoms for key, atoms in stated_totals(header).items() if atoms} == counted
        assert counted["lent", "SOL.lend"] == -counted["pool_shares", "SOL.lend"] < 0

        sol = next(pool for pool in header.pools if pool.asset == "SOL")
        assert (sol.lenders, sol.borrowers) == (1, 1)
        assert header.total("SOL.borrowed") == sol.borrowed > 100_000_300_000
        assert header.total("SOL.lent") == sol.lent > 1_000_000_100_000
        for who in (alice, bob):
            proof = await who.send("GET", f"/satchel/v1/epochs/{header.epoch}/proof", "proofQuery")
            file = tmp_path / f"proof {who.user_id}.json"
            file.write_bytes(proof.body)
            checked = verifier("--user", str(who.user_id), str(file))
            assert "SOL      lent 1000." in checked and "lent on to borrowers" in checked
        positions = await bob.send("GET", "/api/v1/borrowLend/positions", "borrowLendPositionQuery")
        assert positions.json[0]["symbol"] == "SOL"

    told = satchel("replay", "--json", "--data", str(data), *(["--database", database] if database else []))
    covered = json.loads(told)["covered"]
    # The hours in between, and the one on demand.
    assert covered["epochs"] == header.epoch + 1 >= 51


def verifier(*arguments: str) -> str:
    """What the standalone verifier says, in a process that sees nothing of the project."""
    command = [sys.executable, "-I", str(ROOT / "por" / "verifier.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def satchel(*arguments: str) -> str:
    command = [sys.executable, "-m", "tools.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
