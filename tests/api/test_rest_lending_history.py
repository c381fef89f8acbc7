"""Loans, interest and hourly pools over HTTP, from a real node whose clock the test turns.   [B-12, B-13, W-3]"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.commands import BorrowLend, Command, ConvertDust, LendingSide
from engine.formulas.lending import RATE_ONE
from ledger.amounts import parse_decimal
from ledger.blocks import SignedRequest
from tests.api.edge import Reply, Trader, Venue, request, venue
from tests.api.test_rest_shapes import CONTRACT, Contract

HOUR_MS = 3_600_000
USDC = 1


@pytest.fixture
async def running(tmp_path: Path, database_url: str) -> AsyncIterator[Venue]:
    """On SQLite and on PostgreSQL, at the beginning of an hour, with prices; the clock stands still."""
    async with venue(tmp_path / "data", database=database_url) as running:
        await dev(running, "clock", {"mode": "manual"})
        now_ms = running.node.now_us() // 1_000
        await dev(running, "clock", {"advanceMs": HOUR_MS - now_ms % HOUR_MS})
        await dev(running, "prices", {"USDC": "1", "SOL": "100"})
        yield running


async def dev(running: Venue, name: str, body: Any) -> Reply:
    reply = await request(running.http, "POST", f"/dev/v1/{name}", data=json.dumps(body))
    assert reply.status == 200, reply
    return reply


async def move(running: Venue, who: Trader, side: LendingSide, atoms: int, asset_id: int = USDC) -> None:
    await ask(running, who, BorrowLend(who.subaccount_id, asset_id, side, atoms))


async def ask(running: Venue, who: Trader, command: Command) -> None:
    """A user's command, past the edge: what is tried here are the answers."""
    now_ms = time.time_ns() // 1_000_000
    text = f"command={command!r}&timestamp={now_ms}".encode()
    signed = SignedRequest(who.public, who.private.sign(text), text, now_ms, 5_000, now_ms)
    outcome = await running.node.submit(command, signed)
    assert outcome.rejection is None, outcome.rejection


def validated(path: str, reply: Reply) -> Any:
    """The answer, held against the contract where it is at hand."""
    assert reply.status == 200, reply
    if CONTRACT.exists():
        Contract(json.loads(CONTRACT.read_text())).require("GET", path, reply)
    return reply.json


async def history(who: Trader, path: str, instruction: str, **fields: Any) -> Any:
    path = f"/wapi/v1/history/{path}"
    reply = await who.send("GET", path, instruction, fields)
    assert reply.headers["CACHE-CONTROL"] == "no-store"
    return validated(path, reply)


async def test_a_closed_loan_is_as_large_as_it_was_not_as_what_was_repaid_last(running: Venue) -> None:
    """B-12: of a loan and of a claim, whose digits are not of one length."""
    alice, bob = await running.trader(USDC="200000"), await running.trader(SOL="5000", USDC="1000")
    await move(running, alice, LendingSide.LEND, 100_000_000_000)
    borrow, lend = LendingSide.BORROW, LendingSide.LEND
    for side, atoms in ((borrow, 9_000_000_000), (borrow, 3_000_000_000), (lend, 11_500_000_000), (lend, 500_000_000)):
        await move(running, bob, side, atoms)
    await move(running, alice, LendingSide.BORROW, 99_000_000_000)
    await move(running, alice, LendingSide.BORROW, 1_000_000_000)
    ended = [
        await history(who, "borrowLend/positions", "borrowPositionHistoryQueryAll", state="Closed")
        for who in (bob, alice)
    ]

    assert [[row["quantity"] for row in rows] for rows in ended] == [["12000"], ["100000"]]


async def test_a_loan_from_its_first_hour_to_its_end(running: Venue) -> None:
    """B-4, B-12, B-13: what every route says of the same loans agrees to the atom."""
    alice, bob = await running.trader(USDC="200000"), await running.trader(SOL="5000", USDC="1000")
    await move(running, alice, LendingSide.LEND, 100_000_000_000)
    await move(running, bob, LendingSide.BORROW, 50_000_000_000)
    await dev(running, "clock", {"advanceMs": 2 * HOUR_MS})
    positions = await history(bob, "borrowLend/positions", "borrowPositionHistoryQueryAll", state="Open")
    lent = await history(alice, "borrowLend/positions", "borrowPositionHistoryQueryAll")
    charged = await history(bob, "interest", "interestHistoryQueryAll", symbol="USDC")
    earned = await history(alice, "interest", "interestHistoryQueryAll", source="BorrowLend")
    none = await history(alice, "interest", "interestHistoryQueryAll", source="UnrealizedPnl")
    await move(running, bob, LendingSide.LEND, parse_decimal(positions[0]["quantity"], 6))
    await dev(running, "clock", {"advanceMs": HOUR_MS})
    closed = await history(bob, "borrowLend/positions", "borrowPositionHistoryQueryAll", state="Closed", side="Borrow")
    moved = await history(bob, "borrowLend", "borrowHistoryQueryAll", sortDirection="Asc")
    repaid = await history(bob, "borrowLend", "borrowHistoryQueryAll", type="BorrowRepay", sources="Manual,AutoLend")
    after = await history(bob, "interest", "interestHistoryQueryAll")
    path = "/api/v1/borrowLend/markets/history"
    answered = await running.get(f"{path}?interval=1d&symbol=USDC")

    hours = validated(path, answered)
    cost = [parse_decimal(row["quantity"], 6) for row in charged]
    assert len(charged) == len(earned) == 2 and none == []
    assert {row["paymentType"] for row in charged} == {"Borrow"} and {row["interval"] for row in charged} == {HOUR_MS}
    assert {row["paymentType"] for row in earned} == {"Lend"} and {row["marketSymbol"] for row in earned} == {"USDC"}
    rate = parse_decimal(charged[0]["interestRate"], 18)
    assert charged[0]["interestRate"] == hours[0]["borrowInterestRate"], "an hour's rate is that of its beginning"
    first = 50_000_000_000 * parse_decimal(hours[0]["borrowInterestRate"], 18) // RATE_ONE // 8760
    assert 0 < rate < RATE_ONE and abs(cost[1] - first) <= 1
    assert positions[0]["cumulativeInterest"] == closed[0]["cumulativeInterest"]
    assert parse_decimal(positions[0]["cumulativeInterest"], 6) == sum(cost)
    assert parse_decimal(positions[0]["quantity"], 6) == 50_000_000_000 + sum(cost)
    assert closed[0]["quantity"] == positions[0]["quantity"] == repaid[0]["quantity"]
    assert abs(parse_decimal(closed[0]["avgInterestRate"], 18) - rate) < rate // 1_000
    assert (closed[0]["side"], closed[0]["source"], closed[0]["symbol"]) == ("Borrow", "Manual", "USDC")
    assert [row["eventType"] for row in moved] == ["Borrow", "BorrowRepay"]
    assert moved[1]["positionQuantity"] == "0" and moved[0]["positionQuantity"] == "50000"
    assert {row["positionId"] for row in (*moved, *closed, *charged)} == {closed[0]["positionId"]}
    assert lent[0]["quantity"] == hours[1]["lentQuantity"]
    assert sum(parse_decimal(row["quantity"], 6) for row in earned) == parse_decimal(lent[0]["cumulativeInterest"], 6)
    assert sum(parse_decimal(row["quantity"], 6) for row in after) == sum(cost)
    assert [row["utilization"] for row in hours][-1] == "0" and hours[-1]["borrowedQuantity"] == "0"
    assert all(row["timestamp"].endswith("Z") for row in hours)
    assert answered.headers["CACHE-CONTROL"].startswith("public")


async def test_the_ledger_says_the_same_of_loans_as_of_a_block(running: Venue) -> None:
    """A-12, W-7: statements and balances value shares as the postings of the day do."""
    alice, bob = await running.trader(USDC="200000"), await running.trader(SOL="5000")
    await move(running, alice, LendingSide.LEND, 100_000_000_000)
    await move(running, bob, LendingSide.BORROW, 50_000_000_000)
    block = (await running.get("/satchel/v1/blocks/latest")).json["height"]
    await dev(running, "clock", {"advanceMs": HOUR_MS})
    path = "/satchel/v1/balances"
    then = (await alice.send("GET", path, "balanceAsOfQuery", {"block": block})).json["USDC"]
    now = (await alice.send("GET", path, "balanceAsOfQuery")).json["USDC"]
    owed = (await bob.send("GET", path, "balanceAsOfQuery")).json
    rows = (await bob.send("GET", "/satchel/v1/statement", "statementQuery", {"symbol": "USDC"})).json
    (lent,) = await history(alice, "borrowLend/positions", "borrowPositionHistoryQueryAll")
    (debt,) = await history(bob, "borrowLend/positions", "borrowPositionHistoryQueryAll")

    assert then == {"held": "100000", "withdrawing": "0", "lent": "100000", "borrowed": "0"}
    assert now["lent"] == lent["quantity"] and parse_decimal(now["lent"], 6) > 100_000_000_000
    assert owed["USDC"] == {"held": "50000", "withdrawing": "0", "lent": "0", "borrowed": debt["quantity"]}
    (shares,) = (row for row in rows if row["symbol"] == "USDC.debt")
    assert (shares["account"], shares["balance"], shares["worth"]) == ("subaccount/2/borrowed", "-50000", "-50000")
    assert [row["kind"] for row in rows] == ["BORROW", "BORROW"] and "worth" not in rows[0]


async def test_dust_that_was_converted(running: Venue) -> None:
    """S-3"""
    alice = await running.trader(SOL="0.0051", USDC="3")
    await ask(running, alice, ConvertDust(alice.subaccount_id))
    (row,) = await history(alice, "dust", "dustHistoryQueryAll", symbol="SOL")
    same = await history(alice, "dust", "dustHistoryQueryAll", id=row["id"])
    other = await history(alice, "dust", "dustHistoryQueryAll", id=row["id"] + 1)
    capital = (await alice.send("GET", "/api/v1/capital", "balanceQuery")).json

    assert (row["symbol"], row["quantity"], row["usdcReceived"]) == ("SOL", "0.0051", "0.51")
    assert same == [row] and other == []
    assert set(capital) == {"USDC"} and capital["USDC"]["available"] == "3.51"


async def test_strange_questions_are_refused_and_empty_ones_answered(running: Venue) -> None:
    """W-4"""
    alice = await running.trader()
    path, name = "/wapi/v1/history/borrowLend", "borrowHistoryQueryAll"

    empty = await alice.send("GET", path, name)
    assert (empty.json, empty.headers["X-TOTAL"], empty.headers["X-PAGE-COUNT"]) == ([], "0", "0")
    assert (await alice.send("GET", path, name, {"positionId": str(2**63 - 1)})).json == []
    for fields, code in (
        ({"sources": "Manual,Nobody"}, "INVALID_SOURCE"),
        ({"positionId": "first"}, "INVALID_POSITION_ID"),
        ({"positionId": "9" * 30}, "INVALID_POSITION_ID"),
        ({"symbol": "NONE"}, "INVALID_ASSET"),
        ({"type": "Steal"}, "INVALID_CLIENT_REQUEST"),
        ({"limit": "1001"}, "INVALID_CLIENT_REQUEST"),
    ):
        reply = await alice.send("GET", path, name, fields)
        assert (reply.status, reply.json["code"]) == (400, code), fields
    span = await running.get("/api/v1/borrowLend/markets/history?interval=2d")
    assert span.status == 400
    assert (await running.get("/api/v1/borrowLend/markets/history?interval=1year")).json == []
