"""A node with perpetuals: its epochs are recounted, proven to traders of both modes, and rebuilt by an auditor; its
statements, balances and receipts show positions, ticks and claims.

[A-12, A-13, R-2, R-6, R-22, R-23, S-14]
"""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from api.epochs import kind_name
from api.recount import counted_totals, stated_totals
from ledger.receipts import verify_receipt
from por.header import Header
from tests.api.edge import Trader, Venue, request, venue
from tests.api.test_epoch_loans import database, image_taken, loan, satchel, tell, verifier

__all__ = ["database", "image_taken"]

PERP = "SOL_USDC_PERP"


async def traded(running: Venue) -> tuple[Trader, Trader, Trader]:
    """Carol lends USDC; Alice buys of Bob, who settles through the liquidity fund; hours, ticks and a second trade."""
    await tell(running, "prices", {"SOL": "100", "ETH": "2000", "BTC": "60000", "USDT": "1"})
    alice, bob = await running.trader(USDC="20000"), await running.trader(USDC="20000")
    carol = await running.trader(USDC="500000")
    await loan(carol, "Lend", "USDC", "300000")
    assert (await bob.send("PATCH", "/api/v1/account", "accountUpdate", {"autoRealizePnl": False})).status == 200
    assert (await bob.place(PERP, "Ask", "100.2", "30")).status == 200
    assert (await alice.place(PERP, "Bid", "100.2", "30")).status == 200
    await tell(running, "prices", {"SOL": "103", "ETH": "2000", "BTC": "60000", "USDT": "1"})
    await tell(running, "clock", {"advanceMs": 2 * 3_600_000 + 31_000})
    assert (await bob.place(PERP, "Bid", "103.1", "7")).status == 200
    assert (await alice.place(PERP, "Ask", "103.1", "7")).status == 200
    return alice, bob, carol


async def ask(trader: Trader, path: str, instruction: str, **query: Any) -> Any:
    reply = await trader.send("GET", path, instruction, query)
    assert reply.status == 200, reply
    return reply.json


async def test_positions_in_an_epoch_are_recounted_proven_and_rebuilt(
    tmp_path: Path, database: str | None, image_taken: str
) -> None:
    data = tmp_path / "data"
    async with venue(data, database=database) as running:
        traders = await traded(running)
        assert (await request(running.http, "POST", "/dev/v1/por")).status == 200
        header = running.node.epochs.log.last
        assert isinstance(header, Header) and running.node.failure is None

        counted = counted_totals(running.node.reader, header.block_height, kind_name)
        assert {key: atoms for key, atoms in stated_totals(header).items() if atoms} == counted
        assert counted["claim", f"{PERP}.claim-debt"] == counted["liquidity_fund", "USDC.debt"] > 0
        assert header.total(f"{PERP}.long") == header.total(f"{PERP}.short") == 23 * 10**9
        line = next(each for each in header.markets if each.market == PERP)
        assert (line.winners, line.losers) == (0, 1) and line.mark > 0

        for who in traders:
            proof = await who.send("GET", f"/satchel/v1/epochs/{header.epoch}/proof", "proofQuery")
            file = tmp_path / f"proof {who.user_id}.json"
            file.write_bytes(proof.body)
            checked = verifier("--user", str(who.user_id), str(file))
            assert f"{PERP}    23 SOL each side" in checked and "longs are shorts" in checked

    told = satchel("replay", "--json", "--data", str(data), *(["--database", database] if database else []))
    covered = json.loads(told)["covered"]
    assert covered["epochs"] == header.epoch + 1 >= 3


async def test_a_traders_statement_balances_and_receipts(tmp_path: Path) -> None:
    async with venue(tmp_path / "data") as running:
        alice, bob, _carol = await traded(running)

        lines = await ask(alice, "/satchel/v1/statement", "statementQuery", limit=1000)
        own = await ask(alice, "/satchel/v1/statement", "statementQuery", limit=1000, symbol=PERP)
        bobs = await ask(bob, "/satchel/v1/statement", "statementQuery", limit=1000, symbol=PERP)
        now = await ask(alice, "/satchel/v1/balances", "balanceAsOfQuery")
        bob_now = await ask(bob, "/satchel/v1/balances", "balanceAsOfQuery")

        assert own == [line for line in lines if line["symbol"].startswith(PERP)]
        held = [(line["kind"], line["quantity"]) for line in own if line["symbol"] == PERP]
        assert held == [("PERPETUAL_TRADE", "30"), ("PERPETUAL_TRADE", "-7")]
        assert now[PERP]["held"] == "23" and bob_now[PERP]["held"] == "-23"
        ticks = [line for line in lines if line["kind"] == "SETTLEMENT" and line["symbol"] == "USDC"]
        assert sum(Decimal(line["quantity"]) for line in ticks) > 80
        (period,) = await ask(alice, "/satchel/v1/statement/positions", "statementQuery")
        assert [period[name] for name in ("opening", "bought", "sold", "closing")] == ["0", "30", "7", "23"]
        assert Decimal(period["settled"]) == sum(Decimal(line["quantity"]) for line in ticks)
        gained = sum(Decimal(period[name]) for name in ("traded", "funding", "shared", "marked"))
        assert gained == Decimal(period["settled"]) + Decimal(period["cost"]) and Decimal(period["funding"])
        height = running.node.sequencer.chain.height
        nothing = await ask(alice, "/satchel/v1/statement/positions", "statementQuery", fromBlock=height + 1)
        assert [nothing[0][name] for name in ("opening", "bought", "sold", "closing")] == ["23", "0", "0", "23"]
        claims = [line for line in bobs if line["symbol"] == f"{PERP}.claim-debt"]
        assert claims and Decimal(claims[-1]["worth"]) < -60
        assert Decimal(bob_now["USDC"]["claims"]) < -60

        receipt = await ask(alice, f"/satchel/v1/receipts/{ticks[0]['journal']}", "receiptQuery")
        proven = verify_receipt(receipt, running.node.sequencer.chain.public_key)
        assert proven.row is not None
        amounts = {(row.account & 0xFFFF, row.atoms) for row in (proven.row, *proven.further)}
        assert (alice.subaccount_id, -round(Decimal(ticks[0]["quantity"]) * 10**6)) in amounts
        assert all(number == alice.subaccount_id for number, _atoms in amounts)

    data = ["--data", str(tmp_path / "data")]
    told = json.loads(satchel("statement", str(bob.subaccount_id), "--json", *data))
    closing = {row["asset"]: row for row in told["closing"]}
    (own_position,) = told["positions"]
    assert (own_position["market"], own_position["sold"], own_position["closing"]) == (PERP, "30", "-23")
    assert closing[PERP] == {"account": "position", "asset": PERP, "balance": "-23"}
    assert Decimal(closing[f"{PERP}.claim-debt"]["worth"]) == Decimal(bob_now["USDC"]["claims"])
    trial = json.loads(satchel("trial-balance", "--json", *data))
    assert trial["totals"][PERP] == {"debit": "23", "credit": "23"}
    assert "USDC)" in satchel("statement", str(bob.subaccount_id), *data)
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt))
    key = base64.b64encode(proven.header.public_key).decode()
    words = satchel("receipt", "--verify", str(file), "--public-key", key, *data)
    assert f"subaccount/{alice.subaccount_id}/available" in words
    mine = satchel("receipt", str(ticks[0]["journal"]), "--subaccount", str(alice.subaccount_id), *data)
    assert json.loads(mine) == receipt
