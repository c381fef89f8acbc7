"""Reconciliation of an exchange on two chains: a verdict for each, what was not asked, what is staked.   [D-11, Y-1]"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from engine.commands import CreditDeposit
from tests.api.edge import Reply, Trader, Venue, request, venue
from tests.tools.conftest import Satchel

ETH, SOL = 4, 5
SOLANA, ETHEREUM = 1, 2


async def _operate(running: Venue, command: str, **arguments: object) -> Reply:
    body = json.dumps({"command": command, "arguments": arguments})
    return await request(running.http, "POST", "/dev/v1/operator", data=body)


async def _lend(running: Venue) -> Trader:
    trader = await running.trader(SOL="100")
    fields = {"symbol": "SOL", "side": "Lend", "quantity": "100"}
    lent = await trader.send("POST", "/api/v1/borrowLend", "borrowLendExecute", fields)
    assert lent.status == 200, lent
    return trader


async def _live(data: Path, staked: bool, on_ethereum: bool) -> None:
    async with venue(data) as running:
        trader = await _lend(running)
        if staked:
            stake = await _operate(
                running, "StakeAssets", asset_id=SOL, chain_id=SOLANA, atoms=5 * 10**9, tx_id="stake-1"
            )
            assert stake.status == 200, stake
        if on_ethereum:
            number = trader.subaccount_id
            credit = CreditDeposit(ETHEREUM, "0x01", 0, number, number, ETH, 3 * 10**9, 1, "0x02", True)
            assert (await running.node.submit(credit)).rejection is None


@pytest.mark.parametrize("on_ethereum", [False, True])
def test_a_chain_that_was_not_asked_is_no_part_of_clean(tmp_path: Path, satchel: Satchel, on_ethereum: bool) -> None:
    """D-11: coins on a chain that nobody asked are not accounted for, whatever the database says is followed."""
    asyncio.run(_live(tmp_path / "node", False, on_ethereum))
    shown = satchel("reconcile", "--data", tmp_path / "node")
    document = satchel("reconcile", "--data", tmp_path / "node", "--json").json()

    assert shown.code == int(on_ethereum), (shown.out, shown.err)
    assert document["clean"] is not on_ethereum and document["breaks"] == []
    verdicts = {one["chain"]: one["verdict"] for one in document["chains"]}
    if on_ethereum:
        assert verdicts == {"Solana": "clean", "Ethereum": "not asked"}
        assert document["notAsked"] == ["Ethereum"] and document["chains"][1]["inLedger"] == {"ETH": "3"}
        assert re.fullmatch(r"Solana clean at block \d+, Ethereum not asked", shown.out.splitlines()[-1])
        assert "(3 ETH)" in shown.err and "--evm Ethereum=http" in shown.err
    else:
        assert verdicts["Solana"] == "clean" and "--evm" not in shown.err


def test_what_is_staked_has_a_row_and_is_named_where_the_hot_wallet_differs(tmp_path: Path, satchel: Satchel) -> None:
    """D-11, Y-1: no coin moved on the simulated chain, so the hot wallet has what the ledger calls staked."""
    asyncio.run(_live(tmp_path / "node", True, False))
    shown = satchel("reconcile", "--data", tmp_path / "node")
    document = satchel("reconcile", "--data", tmp_path / "node", "--json").json()

    assert shown.code == 1
    assert document["chains"][0]["staked"] == {"SOL": "5"} and document["chains"][0]["verdict"] == "broken"
    (row,) = document["breaks"]
    assert (row["wallet"], row["asset"], row["difference"]) == ("hot", "SOL", "5")
    assert row["notes"] == ["5 SOL are booked as staked"]
    assert re.search(r"^Solana +staked +SOL +5$", shown.out, re.MULTILINE)
    assert "Solana hot SOL: 5 SOL are booked as staked" in shown.out
    assert "Solana 1 break(s), 0 unproven at block" in shown.out.splitlines()[-1]


async def test_a_devnet_takes_operators_commands_unsigned_and_says_why_not(tmp_path: Path) -> None:
    """W-9, Y-1"""
    async with venue(tmp_path / "data") as running:
        await _lend(running)
        stake = {"asset_id": SOL, "chain_id": SOLANA, "atoms": 5 * 10**9, "tx_id": "stake-1"}
        staked = await _operate(running, "StakeAssets", **stake)
        received = await _operate(
            running, "ReceiveYield", asset_id=SOL, chain_id=SOLANA, atoms=10**6, tx_id="reward-1", source="staking"
        )
        beyond = await _operate(running, "StakeAssets", **(stake | {"atoms": 50 * 10**9}))
        other = await _operate(running, "Genesis")
        headers = {"Origin": "http://elsewhere"}
        page = await request(running.http, "POST", "/dev/v1/operator", headers=headers, data="{}")
        in_pool = running.node.state.pools[SOL].staked

    assert (staked.status, received.status, in_pool) == (200, 200, 5 * 10**9), (staked, received)
    assert beyond.status == 400 and "staked 55, bound 50" in beyond.json["message"], beyond
    assert other.status == 400 and "'Genesis' is none of" in other.json["message"]
    assert page.status == 403
