"""Hostile requests over HTTP: what would cost much, stop something or come from elsewhere is refused early."""

from __future__ import annotations

import json
import os
import stat
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa

from api.history import schema
from api.history.following import History
from engine.events import Outcome, WithdrawalChanged, WithdrawalView
from ledger.database import open_engine, upgrade
from tests.api.edge import SOMEWHERE, Reply, Trader, Venue, request, venue
from tests.api.exchange import Exchange
from tests.api.test_rest_bad_input import ORDER, require_refusal
from tests.api.test_rest_operator import order as operate
from tests.api.test_rest_operator import with_an_operator
from tools.servers import postgres_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNPRINTABLE = ["%00", "a%00b", "%1B%5B2J", "%7F", "%C2%9B", "%E2%80%AE", "%E2%80%8B", "%0A"]

UNKNOWN_KEY = {"X-API-Key": "A" * 43 + "=", "X-Signature": "A" * 86 + "==", "X-Timestamp": "1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Venue]:
    async with venue(tmp_path_factory.mktemp("hostile")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(running: Venue) -> Trader:
    return await running.trader(USDC="100000", SOL="1000")


async def dev(running: Venue, path: str, content: Any, **headers: str) -> Reply:
    return await request(running.http, "POST", f"/dev/v1/{path}", headers=headers, data=json.dumps(content))


@pytest.mark.parametrize("text", UNPRINTABLE)
async def test_a_query_that_cannot_be_printed_is_refused(running: Venue, alice: Trader, text: str) -> None:
    """T-7: no 500, whatever the database would say to a NUL."""
    headers = alice.headers("withdrawalQueryAll", {})

    signed = await running.get(f"/wapi/v1/capital/withdrawals?clientId={text}", **headers)
    public = await running.get(f"/api/v1/depth?symbol={text}")

    for reply in (signed, public):
        require_refusal(reply, text)
        assert reply.status == 400 and "cannot be printed" in reply.json["message"]


@pytest.mark.parametrize("text", ["\0", "a\0b", "\x1b[2J", "\x7f", "\x9b", "\u202e", "\u200b", "\n"])
async def test_a_body_that_cannot_be_printed_is_refused(running: Venue, alice: Trader, text: str) -> None:
    """T-7: escaped and bare."""
    for spell in (True, False):
        body = json.dumps(ORDER | {"symbol": text}, ensure_ascii=spell)
        headers = alice.headers("orderExecute", ORDER | {"symbol": text})
        reply = await request(running.http, "POST", "/api/v1/order", headers=headers, data=body.encode())
        require_refusal(reply, text)
        assert "cannot be printed" in reply.json["message"]


@pytest.mark.parametrize("number", [2**31, 2**63 - 1, 2**63, 2**64, 2**64 + 1, 10**400, -1, -(2**63) - 1])
async def test_numbers_beyond_every_id_halt_nothing(running: Venue, number: int) -> None:
    """T-6, A-13"""
    key = b64encode(bytes(31) + b"k").decode()

    require_refusal(await dev(running, "keys", {"publicKey": key, "userId": number}))
    require_refusal(await dev(running, "keys", {"publicKey": key, "subaccountId": number}))
    gift = {"userId": number, "subaccountId": number, "symbol": "SOL", "quantity": "1"}
    require_refusal(await dev(running, "faucet", gift))
    require_refusal(await dev(running, "clock", {"advanceMs": number if abs(number) >= 2**62 else -1}))
    assert (await running.get("/health/ready")).status == 200


async def test_an_operators_numbers_and_texts_are_bounded(tmp_path: Path) -> None:
    """T-6, T-7: an operator's key may be in the wrong hands, or its program wrong."""
    async with venue(tmp_path / "data", genesis=with_an_operator(tmp_path)) as running:
        for price in (2**63, 2**64, -(2**64)):
            require_refusal(await operate(running, "SetPrices", prices=[[5, price]]))
        require_refusal(await operate(running, "GrantTier", user_id=2**64, spot_tier=0, futures_tier=0))
        for reason in ("a\0b", "\x1b[2J", "\u202e"):
            require_refusal(await operate(running, "StopWithdrawals", asset_id=1, stopped=True, reason=reason))
        assert (await operate(running, "SetPrices", prices=[[5, 10**12]])).status == 200
        assert (await running.get("/health/ready")).status == 200


@pytest.mark.parametrize("number", ["0", "-1", "00", "x", "999999999999999999", "9" * 19, "9" * 400, "%00", "1%2F2"])
async def test_a_receipt_that_is_not_there(running: Venue, alice: Trader, number: str) -> None:
    """W-4: numbers start at 1."""
    reply = await running.get(f"/satchel/v1/receipts/{number}", **alice.headers("receiptQuery", {}))

    require_refusal(reply, number)
    assert reply.status == 404


@pytest.mark.parametrize("path", ["/dev/v1/keys", "/api/v1/order", "/wapi/v1/capital/withdrawals"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_what_its_headers_say(
    running: Venue, alice: Trader, path: str, encoding: str
) -> None:
    """W-4: 400, not 500."""
    instruction = "withdraw" if "wapi" in path else "orderExecute"
    headers = alice.headers(instruction, {}) | {"Content-Encoding": encoding}

    reply = await request(running.http, "POST", path, headers=headers, data=b"this is not compressed")

    require_refusal(reply)
    assert reply.status == 400


async def test_a_page_of_another_origin_cannot_use_the_devnets_routes(running: Venue) -> None:
    """T-10: whatever the content type, before anything is done; programs send no Origin."""
    here = str(running.http.make_url("/")).rstrip("/")
    before = running.node.state.sequence
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://[", "", "evil"):
        for path in ("keys", "faucet", "prices", "clock", "por"):
            reply = await dev(running, path, {}, Origin=origin)
            assert (reply.status, reply.json["code"]) == (403, "FORBIDDEN"), (origin, reply)
    assert running.node.state.sequence == before

    own = await dev(running, "prices", {"BTC": "100000"}, Origin=here)
    plain = await dev(running, "prices", {"BTC": "100000"}, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert own.status == plain.status == 200


async def test_an_expired_request_is_refused_before_its_body_is_read(running: Venue, alice: Trader) -> None:
    """T-8: else a quarter of a megabyte is decoded for who has only to write down an old timestamp."""
    old = alice.headers("orderExecute", [], timestamp=1)

    reply = await request(running.http, "POST", "/api/v1/orders", headers=old, data=b"[" * 200_000)

    assert reply.status == 400 and reply.json["message"] == "Request has expired"


async def test_a_batch_that_is_too_long_is_not_even_verified(running: Venue, alice: Trader) -> None:
    """T-8: its text would be rebuilt and checked up to eight times."""
    wrong = alice.headers("orderExecute", [])

    reply = await request(running.http, "POST", "/api/v1/orders", headers=wrong, data=json.dumps([ORDER] * 1000))

    assert reply.json == {"code": "ORDER_LIMIT", "message": "Batch size: 1000 orders, at most 50"}


@pytest.mark.parametrize(
    ("kind", "path", "headers"),
    [
        ("unsigned", "/metrics", {}),
        ("unsigned", "/openapi.json", {}),
        ("unsigned", "/", {}),
        ("unsigned", "/api/v1/time", {}),
        ("refused", "/nothing/here", {}),
        ("refused", "/api/v1/nothing", {}),
        ("refused", "/api/v1/capital", {}),
        ("refused", "/api/v1/capital", UNKNOWN_KEY),
    ],
)
async def test_everything_that_is_not_rightly_signed_counts_against_its_address(
    running: Venue, kind: str, path: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """W-5, T-8: also what is not there and who is not known."""
    bucket = getattr(running.edge.limits, kind)
    # The bucket's clock stands still: on a slow machine a token would come back before the last request.
    monkeypatch.setattr(bucket, "_clock", lambda: 1_000.0)
    bucket._full_at.clear()
    first = await running.get(path, **headers)
    taken = len(bucket)
    while bucket.take("127.0.0.1"):
        pass
    late = await running.get(path, **headers)
    bucket._full_at.clear()

    assert first.status != 429 and taken == 1
    assert late.status == 429 and late.json["code"] == "TOO_MANY_REQUESTS"


async def test_who_is_over_the_limit_costs_no_verification(running: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-8: and nobody else can use up a subaccount's limit."""
    bob = await running.trader(USDC="10")
    limits = running.edge.limits
    monkeypatch.setattr(limits.per_subaccount, "_clock", lambda: 1_000.0)
    headers = bob.headers("balanceQuery", {}) | {"X-Signature": "A" * 86 + "=="}
    for _ in range(50):
        await running.get("/api/v1/capital", **headers)
    assert not limits.per_subaccount._full_at.get(bob.subaccount_id)
    while limits.per_subaccount.take(bob.subaccount_id):
        pass
    wrong = limits.unverified._full_at["127.0.0.1"]

    reply = await running.get("/api/v1/capital", **headers)
    limits.unverified._full_at.clear()

    assert reply.status == 429
    assert wrong >= limits.unverified._full_at.get("127.0.0.1", 0.0), "a signature was checked"


async def test_the_data_folder_is_its_owners_only(tmp_path: Path) -> None:
    """T-97: also one that others could read before."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    async with venue(folder):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_log_that_holds_a_nul_does_not_stop_its_history(tmp_path: Path, kind: str) -> None:
    """T-7, A-13: what an older engine let in is still in the log and comes back at every restart."""
    if kind == "sqlite":
        await _write_history(f"sqlite:///{tmp_path / 'ledger.db'}")
    else:
        with postgres_server() as server:
            await _write_history(server.create_database("history"))


async def _write_history(url: str) -> None:
    database = open_engine(url)
    upgrade(database)
    exchange = Exchange()
    block, outcomes = exchange.blocks[-1]
    asked = WithdrawalView(1, 1, 1, 1, 5, 1, "a\0b", "c\0", "requested", "", "\0", exchange.at_us)
    outcome = Outcome(outcomes[-1].seq, exchange.at_us)
    outcome.events.append(WithdrawalChanged(asked))
    history = History(url)
    history.start()
    history.on_block(block, [outcome])
    history.flush()
    history.close()
    with database.connect() as connection:
        row = connection.execute(sa.select(schema.withdrawal)).one()
    database.dispose()
    assert (row.address, row.client_id, row.reason) == ("a\ufffdb", "c\ufffd", "\ufffd")


async def test_a_withdrawal_goes_to_an_address_of_its_chain_only(running: Venue, alice: Trader) -> None:
    """T-76: refused before anything is held; a good one is taken."""
    body = {"address": SOMEWHERE[:-1] + "0", "blockchain": "Solana", "symbol": "USDC", "quantity": "5"}
    before = (await alice.send("GET", "/api/v1/capital", "balanceQuery")).json

    refused = await alice.send("POST", "/wapi/v1/capital/withdrawals", "withdraw", body)
    after = (await alice.send("GET", "/api/v1/capital", "balanceQuery")).json
    taken = await alice.send("POST", "/wapi/v1/capital/withdrawals", "withdraw", body | {"address": SOMEWHERE})

    assert refused.status == 400 and "is not an address on Solana" in refused.json["message"]
    assert after == before
    assert taken.status == 200, taken
