"""One asset on two chains over HTTP: in on one, out on the other, a clear no, and what operators see.   [D-1, D-10]"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from pathlib import Path
from typing import Any

from engine.commands import FundCustody
from tests.api.edge import SOMEWHERE, Reply, Trader, Venue, venue
from tests.api.test_rest_operator import OPERATOR_SEED, with_an_operator
from tools import liquidity as liquid
from tools.terminal import FINDINGS

ETHER = 10**9
ETHEREUM_ADDRESS = "0x00000000000000000000000000000000000000aA"


async def withdraw(trader: Trader, blockchain: str, quantity: str, symbol: str = "ETH") -> Reply:
    address = ETHEREUM_ADDRESS if blockchain == "Ethereum" else SOMEWHERE
    body = {"address": address, "blockchain": blockchain, "symbol": symbol, "quantity": quantity}
    return await trader.send("POST", "/wapi/v1/capital/withdrawals", "withdraw", body)


async def liquidity(running: Venue, **query: str) -> dict[tuple[str, str], Any]:
    operator = Trader(running.http, OPERATOR_SEED)
    reply = await operator.send("GET", "/satchel/v1/liquidity", "liquidityQueryAll", query)
    assert reply.status == 200, reply
    return {(row["symbol"], row["blockchain"]): row for row in reply.json}


async def test_a_withdrawal_from_a_dry_chain_is_refused_with_the_chain_that_pays(tmp_path: Path) -> None:
    """Refused when it is asked for, nothing is held; the chain that is named pays.   [D-1]"""
    async with venue(tmp_path / "data", genesis=with_an_operator(tmp_path)) as running:
        alice = await running.trader(ETH="5")
        refused = await withdraw(alice, "Ethereum", "2")
        balance = (await alice.send("GET", "/api/v1/capital", "balanceQuery")).json["ETH"]
        paid = await withdraw(alice, "Solana", "2")
        too_much = await withdraw(alice, "Solana", "4")

    assert (refused.status, refused.json["code"]) == (400, "PRECONDITION_FAILED")
    assert refused.json["message"] == (
        "Chain liquidity: symbol ETH, blockchain Ethereum, needed 2, available 0, others Solana"
    )
    assert balance["available"] == "5"
    assert paid.status == 200
    assert too_much.json["code"] == "INSUFFICIENT_FUNDS"


async def test_an_operator_sees_where_coins_are_and_what_runs_low(tmp_path: Path) -> None:
    """[D-1, D-10]"""
    async with venue(tmp_path / "data", genesis=with_an_operator(tmp_path)) as running:
        alice = await running.trader(ETH="5")
        before = await liquidity(running)
        await running.node.submit(FundCustody(2, "0xseed", 0, 4, ETHER))
        funded = await liquidity(running)
        strict = await liquidity(running, low="0.5")
        assert (await withdraw(alice, "Ethereum", "0.75")).status == 200
        after = await liquidity(running)
        wrong = await Trader(running.http, OPERATOR_SEED).send(
            "GET", "/satchel/v1/liquidity", "liquidityQueryAll", {"low": "2"}
        )
        refused = await alice.send("GET", "/satchel/v1/liquidity", "liquidityQueryAll")

    dry = before["ETH", "Ethereum"]
    assert (dry["payable"], dry["users"], dry["isLow"], dry["rebalanceFrom"]) == ("0", "5", True, ["Solana"])
    full = before["ETH", "Solana"]
    assert (full["unswept"], full["payable"], full["isLow"]) == ("5", "5", False)
    assert not funded["ETH", "Ethereum"]["isLow"] and strict["ETH", "Ethereum"]["isLow"]
    spent = after["ETH", "Ethereum"]
    assert (spent["hotWallet"], spent["underWay"], spent["payable"], spent["isLow"]) == ("1", "0.75", "0.25", True)
    assert not before["USDC", "Ethereum"]["isWithdrawEnabled"] and not before["USDC", "Ethereum"]["isLow"]
    assert wrong.status == 400 and refused.status == 401


async def test_the_command_line_shows_the_same(tmp_path: Path, capsys: Any) -> None:
    async with venue(tmp_path / "data", genesis=with_an_operator(tmp_path)) as running:
        await running.trader(ETH="5")
        key = tmp_path / "operator.key"
        key.write_text(b64encode(Trader(running.http, OPERATOR_SEED).private.private_bytes_raw()).decode())
        code = await asyncio.to_thread(liquid.show, str(running.http.make_url("")), key, "0.1", False)

    printed = capsys.readouterr()
    assert code == FINDINGS
    assert any("ETH" in line and "Ethereum" in line and "LOW" in line for line in printed.out.splitlines())
    assert "ETH runs low on Ethereum: move some from Solana" in printed.err
