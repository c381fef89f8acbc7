"""No epoch is published unless the postings in the database sum to what it states.   [A-13]"""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path

import pytest
import sqlalchemy as sa
from aiohttp import ClientSession

from api import epochs
from api.epochs import kind_name
from api.recount import counted_totals, stated_totals
from engine.commands import CloseEpoch
from ledger.chart import CHART
from ledger.database import open_engine
from ledger.invariants import ConservationError
from por import store as por_store
from por.header import Header
from tests.api.edge import Venue, request, venue
from tools.node_process import NodeProcess

TAMPERING = {
    "sqlite": ["DROP TRIGGER posting_refuse_update"],
    "postgresql": ["ALTER TABLE posting DISABLE TRIGGER posting_refuse_change"],
}
FORGERY = "UPDATE posting SET atoms = atoms + 7 WHERE account >= 16 * 1099511627776 AND account < 17 * 1099511627776"
"""Every user's available balance, a little lower: credits are negative."""


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["in place", "forked"])
def image_taken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of taking the image; a fork is taken from this many subaccounts on."""
    monkeypatch.setattr(epochs, "TAKEN_IN_PLACE", 500 if request.param == "in place" else 0)
    return str(request.param)


def tamper(url: str) -> None:
    """What somebody with every right on the database can do."""
    engine = open_engine(url)
    with engine.begin() as connection:
        for statement in TAMPERING[engine.dialect.name]:
            connection.execute(sa.text(statement))
        assert connection.execute(sa.text(FORGERY)).rowcount > 0
    engine.dispose()


async def traded(running: Venue) -> None:
    """Two users, a trade with fees and a resting order."""
    alice, bob = await running.trader(USDC="1000"), await running.trader(SOL="10")
    assert (await bob.place("SOL_USDC", "Ask", "100", "2")).status == 200
    assert (await alice.place("SOL_USDC", "Bid", "100", "1.5")).status == 200
    assert (await alice.place("SOL_USDC", "Bid", "90", "1")).status == 200


async def test_a_clean_log_recounts_to_every_number_of_its_epoch(
    tmp_path: Path, database: str | None, image_taken: str
) -> None:
    """A-13"""
    async with venue(tmp_path, database=database) as running:
        await traded(running)
        assert (await request(running.http, "POST", "/dev/v1/por")).status == 200
        header = running.node.epochs.log.last
        assert isinstance(header, Header) and running.node.failure is None

        counted = counted_totals(running.node.reader, header.block_height, kind_name)
        stated = {key: atoms for key, atoms in stated_totals(header).items() if atoms}

        assert stated == counted
        assert {"available", "custody", "fee_income"} <= {kind for kind, _asset in counted}


async def test_an_altered_posting_stops_the_exchange_before_it_publishes(
    tmp_path: Path, database: str | None, image_taken: str
) -> None:
    """A-13: the message has the kind of account, the asset and both numbers."""
    async with venue(tmp_path, database=database) as running:
        node = running.node
        await traded(running)
        before = len(node.epochs.log)
        tamper(node.settings.url)
        await node.submit(CloseEpoch(0))
        await node.failed.wait()

        assert isinstance(node.failure, ConservationError)
        found = re.findall(
            r"available in (\w+): the epoch states (-\d+) atoms, the postings sum to (-\d+)", str(node.failure)
        )
        assert {asset for asset, *_ in found} == {"USDC", "SOL"}
        assert all(int(stated) < int(counted) for _asset, stated, counted in found)
        assert len(node.epochs.log) == before and len(por_store.load_log(node.reader)) == before
        assert not node.is_ready()


async def test_the_server_says_why_it_stopped(tmp_path: Path) -> None:
    """A-13: as an operator sees it: exit code 2, the difference in words, what to run next."""
    node = NodeProcess(tmp_path / "node")
    url = await node.start()
    try:
        async with ClientSession(url) as http:
            key = b64encode(bytes(31) + b"k").decode()
            opened = await (await http.post("/dev/v1/keys", json={"publicKey": key})).json()
            gift = {"userId": opened["userId"], "subaccountId": opened["subaccountId"]}
            assert (await http.post("/dev/v1/faucet", json=gift | {"symbol": "USDC", "quantity": "5"})).status == 200
            tamper(f"sqlite:///{tmp_path / 'node' / 'ledger.db'}")
            refused = await http.post("/dev/v1/por")
            assert refused.status == 503 and (await refused.json())["code"] == "MAINTENANCE"
        code = await node.wait()
    finally:
        await node.stop()

    words = "\n".join(node.last_words)
    assert code == 2 and "Traceback" not in words
    assert "available in USDC: the epoch states -5000000 atoms, the postings sum to -4999993" in words
    assert "verify-journal" in words


def test_every_kind_of_the_chart_has_a_name_of_its_own() -> None:
    """Two kinds under one name would hide a difference between them."""
    names = [kind_name(kind) for kind in CHART]

    assert len(set(names)) == len(names)
