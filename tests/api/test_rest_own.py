"""Our own routes on a real node: what they hand out is checked with the verifiers that outsiders use."""

from __future__ import annotations

import asyncio
import itertools
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ledger import merkle
from ledger.blocks import BLOCK_DOMAIN
from ledger.checkpoints import parse_checkpoint, verify_block_inclusion, verify_extension
from ledger.receipts import verify_receipt
from ledger.signing import verify
from tests.api.edge import Trader, Venue, request, venue


@pytest.fixture
async def running(tmp_path: Path, database_url: str) -> AsyncIterator[Venue]:
    """On SQLite and on PostgreSQL: these routes read SQL, and must say the same."""
    async with venue(tmp_path / "data", database=database_url) as running:
        yield running


async def test_a_user_opens_a_subaccount_and_moves_money_into_it(running: Venue) -> None:
    """W-7, U-1, U-2"""
    alice = await running.trader(USDC="100")
    second = Trader(running.http, 900)

    opened = await alice.send("POST", "/satchel/v1/subaccounts", "subaccountOpen", {"publicKey": second.key})
    order = {"toSubaccountId": opened.json["subaccountId"], "symbol": "USDC", "quantity": "40.5"}
    moved = await alice.send("POST", "/satchel/v1/transfers", "transferExecute", order)
    there = await second.send("GET", "/api/v1/capital", "balanceQuery")
    listed = await alice.send("GET", "/satchel/v1/subaccounts", "subaccountQueryAll")

    assert opened.status == 200 and opened.json["userId"] == alice.user_id
    assert moved.json == {
        "fromSubaccountId": alice.subaccount_id,
        "toSubaccountId": opened.json["subaccountId"],
        "symbol": "USDC",
        "quantity": "40.5",
    }
    assert there.json == {"USDC": {"available": "40.5", "locked": "0", "staked": "0"}}
    assert [row["subaccountId"] for row in listed.json] == [alice.subaccount_id, opened.json["subaccountId"]]


async def test_an_added_key_signs_and_a_revoked_one_does_not(running: Venue) -> None:
    """A-5"""
    alice = await running.trader()
    other = Trader(running.http, 901)

    before = await other.send("GET", "/api/v1/account", "accountQuery")
    await alice.send("POST", "/satchel/v1/keys", "keyAdd", {"publicKey": other.key})
    with_key = await other.send("GET", "/api/v1/account", "accountQuery")
    keys = await alice.send("GET", "/satchel/v1/keys", "keyQueryAll")
    revoked = await alice.send("DELETE", "/satchel/v1/keys", "keyRevoke", {"publicKey": other.key})
    after = await other.send("GET", "/api/v1/account", "accountQuery")

    assert (before.status, with_key.status, after.status) == (401, 200, 401)
    assert before.json == {"code": "UNAUTHORIZED", "message": "Unauthorized"}
    assert {row["publicKey"] for row in keys.json} == {alice.key, other.key}
    assert revoked.json["publicKey"] == other.key


async def test_nobody_adds_a_key_to_another_users_subaccount(running: Venue) -> None:
    """A-5"""
    alice, mallory = await running.trader(), await running.trader()

    body = {"publicKey": mallory.key, "subaccountId": alice.subaccount_id}
    tried = await mallory.send(
        "POST", "/satchel/v1/keys", "keyAdd", body | {"publicKey": b64encode(bytes(range(32))).decode()}
    )

    assert tried.status == 400
    assert tried.json["code"] == "FORBIDDEN"


async def test_block_headers_verify_and_connect(running: Venue) -> None:
    """A-7"""
    await running.trader(USDC="5")

    blocks = (await running.get("/satchel/v1/blocks?sortDirection=Asc&limit=1000")).json
    latest = (await running.get("/satchel/v1/blocks/latest")).json
    one = (await running.get("/satchel/v1/blocks/1")).json
    none = await running.get("/satchel/v1/blocks/999999")

    assert [block["height"] for block in blocks] == list(range(len(blocks)))
    assert latest["height"] >= len(blocks) - 1
    assert one == blocks[1]
    assert none.status == 404
    for block, following in itertools.pairwise(blocks):
        assert following["previousHash"] == block["hash"]
    for block in blocks:
        header = b64decode(block["header"])
        assert merkle.leaf_hash(header).hex() == block["hash"]
        assert verify(b64decode(block["publicKey"]), b64decode(block["signature"]), BLOCK_DOMAIN + header)


async def test_checkpoints_cover_blocks_and_extend_each_other(running: Venue) -> None:
    """A-8b"""
    await running.trader(USDC="5")
    old = (await running.get("/satchel/v1/checkpoint")).json
    await running.trader(USDC="5")
    await asyncio.sleep(1.1)
    await running.trader()
    new = (await running.get("/satchel/v1/checkpoint")).json

    proof = (await running.get(f"/satchel/v1/blocks/0/proof?size={new['size']}")).json
    link = (await running.get(f"/satchel/v1/blocks/consistency?first={old['size']}&second={new['size']}")).json
    keys = [b64decode(new["publicKey"])]
    older, newer = parse_checkpoint(old["note"], keys), parse_checkpoint(new["note"], keys)

    assert newer.size > older.size
    assert verify_block_inclusion(newer, bytes.fromhex(proof["leaf"]), 0, _path(proof))
    assert verify_extension(older, newer, _path(link))
    assert proof["root"] == new["root"]


async def test_a_receipt_verifies_offline_and_only_its_user_gets_it(running: Venue) -> None:
    """A-4"""
    alice, bob = await running.trader(USDC="5"), await running.trader()
    statement = await alice.send("GET", "/satchel/v1/statement", "statementQuery", {"symbol": "USDC"})
    journal = statement.json[0]["journal"]

    receipt = await alice.send("GET", f"/satchel/v1/receipts/{journal}", "receiptQuery")
    others = await bob.send("GET", f"/satchel/v1/receipts/{journal}", "receiptQuery")
    block = (await running.get("/satchel/v1/blocks/latest")).json
    proven = verify_receipt(receipt.json, b64decode(block["publicKey"]))

    assert proven.transaction.seq == journal
    assert others.status == 404


async def test_statement_and_balances_as_of_a_past_block(running: Venue) -> None:
    """A-12"""
    alice = await running.trader(USDC="5")
    height = (await running.get("/satchel/v1/blocks/latest")).json["height"]
    bob = await running.trader(SOL="3")
    await bob.place("SOL_USDC", "Ask", "2", "1")
    bought = await alice.place("SOL_USDC", "Bid", "2", "1", timeInForce="IOC")

    then = await alice.send("GET", "/satchel/v1/balances", "balanceAsOfQuery", {"block": height})
    now = await alice.send("GET", "/satchel/v1/balances", "balanceAsOfQuery")
    nowhere = await alice.send("GET", "/satchel/v1/balances", "balanceAsOfQuery", {"block": 10**9})
    rows = (await alice.send("GET", "/satchel/v1/statement", "statementQuery")).json

    assert bought.json["status"] == "Filled", bought
    loans = {"lent": "0", "borrowed": "0"}
    assert then.json == {"USDC": {"held": "5", "withdrawing": "0", **loans}}
    assert now.json == {
        "USDC": {"held": "3", "withdrawing": "0", **loans},
        "SOL": {"held": "0.999", "withdrawing": "0", **loans},
    }
    assert nowhere.status == 404
    last = {row["symbol"]: row["balance"] for row in rows}
    assert last == {"USDC": "3", "SOL": "0.999"}


async def test_an_epoch_and_its_proof_come_out(running: Venue) -> None:
    """R-20, R-22; the proof itself is checked by the standalone verifier's own tests and by the tour."""
    alice = await running.trader(USDC="5")
    header = await request(running.http, "POST", "/dev/v1/por")
    await request(running.http, "POST", "/dev/v1/por")

    latest = (await running.get("/satchel/v1/epochs/latest")).json
    first = await running.get("/satchel/v1/epochs/0")
    rows = (await running.get("/satchel/v1/epochs")).json
    inclusion = (await running.get("/satchel/v1/epochs/0/inclusion")).json
    link = (await running.get("/satchel/v1/epochs/log/consistency?first=1")).json
    checkpoint = (await running.get("/satchel/v1/epochs/log/checkpoint")).json
    proof = await alice.send("GET", "/satchel/v1/epochs/0/proof", "proofQuery", {"known": 1})

    assert first.body == header.body
    assert [row["epoch"] for row in rows] == [1, 0] and latest["epoch"] == 1
    assert merkle.verify_inclusion(
        bytes.fromhex(inclusion["leaf"]), 0, 2, _path(inclusion), bytes.fromhex(checkpoint["root"])
    )
    assert merkle.verify_consistency(
        1, 2, bytes.fromhex(link["firstRoot"]), bytes.fromhex(checkpoint["root"]), _path(link)
    )
    assert proof.json["leaf"]["subaccountId"] == alice.subaccount_id
    assert json.loads(proof.json["header"])["epoch"] == 0


async def test_only_an_operators_key_operates(running: Venue) -> None:
    """W-7"""
    alice = await running.trader()

    tried = await alice.send(
        "POST", "/satchel/v1/operator", "operatorExecute", {"command": "SetPrices", "arguments": '{"prices": []}'}
    )

    assert tried.status == 401


async def test_the_node_says_that_it_is_ready(running: Venue) -> None:
    assert (await running.get("/health/live")).json == {"status": "alive"}
    assert (await running.get("/health/ready")).status == 200


def _path(proof: dict[str, list[str]]) -> list[bytes]:
    return [bytes.fromhex(step) for step in proof["path"]]
