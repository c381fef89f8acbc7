"""Loans on the command line: statements, trial balances and receipts name shares and say what they are worth."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from engine.commands import BorrowLend, LendingSide, SetPrices
from engine.parameters import PRICE_SCALE
from ledger.signing import Signer
from tests.tools.conftest import Satchel
from tests.tools.sample import ALICE, BOB, MALLORY, Exchange

USDC = 1


async def _move(exchange: Exchange, key: Signer, side: LendingSide, atoms: int) -> None:
    subaccount_id = exchange.subaccounts[key.public_key][1]
    fields = {"symbol": "USDC", "side": side.name.title(), "quantity": str(atoms)}
    command = BorrowLend(subaccount_id, USDC, side, atoms)
    outcome = await exchange.bring(command, exchange.request(key, "borrowLendExecute", fields))
    assert outcome.rejection is None, outcome.rejection


async def _lend(data: Path, on_credit: bool = False) -> None:
    """Alice lends 8,000 USDC, Bob borrows 3,000 against 500 SOL; a minute later Alice redeems 1,000 and a bit."""
    exchange = await Exchange(data).open()
    await exchange.register(ALICE)
    await exchange.register(BOB)
    sol = next(one.asset_id for one in exchange.sequencer.state.assets.values() if one.symbol == "SOL")
    await exchange.bring(SetPrices(((USDC, PRICE_SCALE), (sol, 100 * PRICE_SCALE))))
    await exchange.deposit(ALICE, "USDC", 10_000_000_000, 1)
    await exchange.deposit(BOB, "SOL", 500_000_000_000, 2)
    await _move(exchange, ALICE, LendingSide.LEND, 8_000_000_000)
    await _move(exchange, BOB, LendingSide.BORROW, 3_000_000_000)
    exchange.now_us += 60_000_000
    await _move(exchange, ALICE, LendingSide.BORROW, 1_000_000_001)
    if on_credit:
        await _buy_on_credit(exchange)
    await exchange.close()


async def _buy_on_credit(exchange: Exchange) -> None:
    """Bob buys 50 SOL for 5,000 USDC, of which he has 3,000."""
    await exchange.register(MALLORY)
    await exchange.deposit(MALLORY, "SOL", 50_000_000_000, 3)
    order = {"symbol": "SOL_USDC", "orderType": "Limit", "price": "100", "quantity": "50"}
    sold = await exchange.ask(MALLORY, "orderExecute", side="Ask", **order)
    fields = order | {"side": "Bid", "autoBorrow": "true"}
    command = exchange.derived(BOB, "orderExecute", fields)
    bought = await exchange.bring(command, exchange.request(BOB, "orderExecute", fields))
    assert sold.rejection is None and bought.rejection is None, (sold, bought)


@pytest.fixture(scope="module")
def lent_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a log with loans; read it only."""
    data = tmp_path_factory.mktemp("loans") / "node"
    asyncio.run(_lend(data))
    return data


def test_a_statement_shows_shares_and_what_they_are_worth(lent_log: Path, satchel: Satchel) -> None:
    """A-12, B-4"""
    document = satchel("statement", 1, "--data", lent_log, "--json").json()
    shown = satchel("statement", 1, "--data", lent_log)
    bob = satchel("statement", 2, "--data", lent_log, "--json").json()

    lines = [line for line in document["lines"] if line["account"] == "lent"]
    assert [(line["kind"], line["asset"]) for line in lines] == [("lend", "USDC.lend"), ("redeem", "USDC.lend")]
    assert (lines[0]["amount"], lines[0]["balance"], lines[0]["worth"]) == ("8000", "8000", "8000")
    assert "7000" < lines[1]["worth"] < "7001" and lines[1]["balance"] < lines[1]["worth"]
    closing = {row["account"]: row for row in document["closing"]}
    assert closing["held"] == {"account": "held", "asset": "USDC", "balance": "3000.000001"}
    assert closing["lent"]["worth"] == lines[1]["worth"]
    owed = next(row for row in bob["closing"] if row["account"] == "borrowed")
    assert (owed["asset"], owed["balance"]) == ("USDC.debt", "-3000") and owed["worth"].startswith("-3000.0")
    assert shown.code == 0 and "worth" in shown.out
    assert f"USDC.lend lent (worth {lines[1]['worth']} USDC)" in shown.out


def test_a_statement_shows_what_was_moved_in_the_asset_and_how_far_interest_is_posted(
    tmp_path: Path, satchel: Satchel
) -> None:
    """A-12, B-4: exactly what was lent, redeemed and borrowed, also when a fill did it."""
    data = tmp_path / "node"
    asyncio.run(_lend(data, on_credit=True))
    alice, bob = (satchel("statement", number, "--data", data) for number in (1, 2))
    document = satchel("statement", 1, "--data", data, "--json").json()
    early = satchel("statement", 1, "--data", data, "--as-of", 6, "--json").json()

    assert _moved(alice.out) == [("lend", "8000 USDC"), ("redeem", "-1000.000001 USDC")], alice.out
    assert _moved(bob.out) == [("borrow", "-3000 USDC"), ("trade", "-2000 USDC")], bob.out
    assert not any("moved" in line for line in document["lines"])
    (until,) = document["interestPostedTo"].values()
    assert until.startswith("2023-11-14T22:14:20") and early["interestPostedTo"] == {}
    assert alice.out.splitlines()[-1].startswith(f"interest posted to {until} (USDC)")


def _moved(statement: str) -> list[tuple[str, str]]:
    """Kind and amount in the asset of a statement's lines in shares."""
    lines = [re.split(r"  +", line) for line in statement.splitlines() if re.search(r"USDC\.(lend|debt)  ", line)]
    return [(cells[3], cells[7]) for cells in lines]


def test_the_trial_balance_balances_in_shares_too(lent_log: Path, satchel: Satchel) -> None:
    """A-1"""
    ran = satchel("trial-balance", "--data", lent_log, "--json")
    shown = satchel("trial-balance", "--data", lent_log)
    before = satchel("trial-balance", "--data", lent_log, "--as-of", 5, "--json")

    totals = ran.json()["totals"]
    assert set(totals) == {"USDC", "SOL", "USDC.lend", "USDC.debt"}
    assert all(total["debit"] == total["credit"] for total in totals.values())
    rows = {(row["account"], row["asset"]): row for row in ran.json()["rows"]}
    assert rows["subaccount/2/borrowed", "USDC.debt"]["debit"] == "3000"
    assert rows["subaccount/1/lent", "USDC.lend"]["worth"] == rows["money-market/lent", "USDC"]["credit"]
    assert ran.code == shown.code == before.code == 0
    assert "worth" in shown.out and not any("worth" in row for row in before.json()["rows"])


def test_the_journal_of_loans_verifies_and_its_receipts_name_shares(
    lent_log: Path, satchel: Satchel, tmp_path: Path
) -> None:
    """A-4, A-10"""
    lines = satchel("statement", 1, "--data", lent_log, "--json").json()["lines"]
    lend = next(line["journal"] for line in lines if line["kind"] == "lend")
    file = tmp_path / "receipt.json"
    assert satchel("receipt", lend, "--data", lent_log, "--out", file).code == 0
    alone = satchel("receipt", "--verify", file)
    beside = satchel("receipt", "--verify", file, "--data", lent_log)

    assert alone.code == 0 and f"{8 * 10**18} atoms of asset 1.lend" in alone.out
    assert "  8000 USDC.lend\n" in beside.out
    assert satchel("verify-journal", "--data", lent_log, "--json").code == 0
    assert satchel("replay", "--data", lent_log, "--json").code == 0
