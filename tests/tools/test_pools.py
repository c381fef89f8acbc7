"""`satchel pools` as a person types it, beside a running devnet.   [X-1 … X-10]"""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.api.edge import Venue, request, venue
from tests.fixtures.commands import Ran
from tests.tools.conftest import Satchel


@pytest.fixture
def key_file(tmp_path: Path, satchel: Satchel) -> Path:
    assert satchel("keygen", "--out", tmp_path / "alice.key").code == 0
    return tmp_path / "alice.key"


async def test_a_person_provides_swaps_and_goes_long(tmp_path: Path, satchel: Satchel, key_file: Path) -> None:
    """X-3, X-1, X-5, X-10: each command does what its quote said, in words and as JSON."""
    async with venue(tmp_path / "node") as running:
        await fund(running, key_file, satchel, ROWAN="1100000", USDC="1100000")
        url = str(running.http.make_url("")).rstrip("/")

        async def run(*words: str, key: bool = True) -> Ran:
            options = ["--url", url, *(["--key", str(key_file)] if key else [])]
            return await asyncio.to_thread(satchel, "pools", *words, *options)

        async def ask(*words: str, key: bool = True) -> Any:
            ran = await run(*words, "--json", key=key)
            assert ran.code == 0, ran
            return ran.json()

        added = await ask("add", "USDC", "--native", "1000000", "--external", "1000000", "--min-units", "1000000")
        quote = await ask("quote", "USDC", "ROWAN", "1000", key=False)
        swapped = await ask("swap", "USDC", "ROWAN", "1000", "--min-received", quote["received"])
        long_quote = await ask("quote", "USDC", "ROWAN", "100", "--leverage", "3", key=False)
        opened = await ask("open", "USDC", "ROWAN", "100", "3", "--min-custody", long_quote["custody"])
        (position,) = (await ask("positions"))["positions"]
        shown = await run("positions")
        closed = await ask("close", opened["positionId"])
        (provided,) = (await ask("liquidity"))["liquidity"]
        removed = await ask("remove", "USDC", "--basis-points", "5000", "--min-native", "1")
        listed = await ask("list", key=False)
        table = await run("list", key=False)
        refused = await run("swap", "USDC", "ROWAN", "1000", "--min-received", "1000", "--json")
        again = await run("close", opened["positionId"])
        hops = await run("quote", "USDC", "ROWAN", "1000", key=False)
        mine = await run("liquidity")

    assert added["units"] == "1000000" and swapped["received"] == quote["received"]
    assert opened["custody"] == long_quote["custody"] == position["custody"]
    assert opened["positionId"] in shown.out and position["health"] in shown.out
    assert closed["forced"] is False and Decimal(closed["returned"]) > 98
    assert Decimal(provided["nativeFees"]) > 0 and removed["unitsAfter"] == "500000"
    assert {row["symbol"] for row in listed["pools"]} == {"USDC", "SOL"}
    assert table.code == 0 and "USDC" in table.out and "pool" in table.out.splitlines()[0]
    assert refused.code == 2 and "least 1000" in refused.json()["error"]["message"]
    assert again.code == 2 and "404" in again.err
    assert hops.code == 0 and "price impact" in hops.out and "received: " in hops.out
    assert mine.code == 0 and "500000" in mine.out


async def test_parameters_of_a_pool_are_what_an_operators_command_takes(tmp_path: Path, satchel: Satchel) -> None:
    """X, W-7: what is printed, changed in one number, is the command's argument."""
    async with venue(tmp_path / "node") as running:
        printed = await asyncio.to_thread(satchel, "parameters", "USDC.pool", "--data", tmp_path / "node")
        changed = {"pool": printed.json()["pool"] | {"max_positions": 7}}
        command = {"command": "ConfigurePool", "arguments": changed}
        reply = await request(running.http, "POST", "/dev/v1/operator", data=json.dumps(command))
        pool = (await running.get("/satchel/v1/pools/pool?symbol=USDC")).json
        after = await asyncio.to_thread(satchel, "parameters", "USDC.pool", "--data", tmp_path / "node")

    assert reply.status == 200, reply
    assert pool["parameters"]["maxPositions"] == 7 == after.json()["pool"]["max_positions"]
    assert pool["parameters"]["leverageMax"] == "10" and after.json() == changed


async def test_an_exchange_that_is_not_there_is_said_so(satchel: Satchel) -> None:
    ran = satchel("pools", "list", "--url", "http://127.0.0.1:9", "--json")

    assert ran.code == 2 and "does not answer" in ran.json()["error"]["message"]


async def fund(running: Venue, key_file: Path, satchel: Satchel, **balances: str) -> None:
    """Register the file's key and give its user these balances."""
    signed = await asyncio.to_thread(satchel, "sign", "accountQuery", "--key", key_file, "--json")
    public_key = signed.json()["headers"]["X-API-Key"]
    reply = await request(running.http, "POST", "/dev/v1/keys", data=json.dumps({"publicKey": public_key}))
    for symbol, quantity in balances.items():
        gift = {"userId": reply.json["userId"], "subaccountId": reply.json["subaccountId"]}
        body = json.dumps({**gift, "symbol": symbol, "quantity": quantity})
        assert (await request(running.http, "POST", "/dev/v1/faucet", data=body)).status == 200
