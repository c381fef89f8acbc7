"""Operators read the chains' alarms, over the API and on the command line, and say when one was dealt with.   [D-11]"""

from __future__ import annotations

from pathlib import Path

from chains.alarms import raise_alarm
from ledger.database import open_engine
from tests.api.edge import Trader, venue
from tests.api.test_rest_operator import OPERATOR_SEED, with_an_operator
from tests.tools.conftest import Satchel

HOUR_US = 3_600_000_000
WORDS = "coins of block 7 left the hot wallet and no order of ours says so"


def alarmed(data: Path) -> None:
    """Two alarms, one of them raised twice, as the chains' loops do it."""
    engine = open_engine(f"sqlite:///{data / 'ledger.db'}")
    with engine.begin() as connection:
        raise_alarm(connection, 1, "unexplained spend", "0xabc", WORDS, HOUR_US)
        raise_alarm(connection, 1, "unexplained spend", "0xabc", WORDS, 2 * HOUR_US)
        raise_alarm(connection, 1, "low balance", "hot", "12 left of 100", 3 * HOUR_US)
    engine.dispose()


def test_alarms_are_listed_until_they_are_cleared(log: Path, satchel: Satchel) -> None:
    quiet = satchel("alarms", "--data", log)
    alarmed(log)
    plain = satchel("alarms", "--data", log)
    listed = satchel("alarms", "--data", log, "--json")
    wrong = satchel("alarms", "--data", log, "--clear", 99)
    cleared = satchel("alarms", "--data", log, "--clear", listed.json()["alarms"][0]["id"], "--json")

    assert (quiet.code, plain.code, listed.code) == (0, 1, 1)
    assert WORDS in plain.out and "12 left of 100" in plain.out
    first = listed.json()["alarms"][0]
    assert (first["kind"], first["count"]) == ("unexplained spend", 2)
    assert (first["first"], first["last"]) == ("1970-01-01T01:00:00.000000Z", "1970-01-01T02:00:00.000000Z")
    assert wrong.code == 2 and "no open alarm 99" in wrong.err
    assert [one["kind"] for one in cleared.json()["alarms"]] == ["low balance"]
    assert satchel("alarms", "--data", log, "--json").json()["alarms"] == cleared.json()["alarms"]


async def test_the_api_tells_alarms_to_an_operators_key_alone(tmp_path: Path) -> None:
    """W-7"""
    async with venue(tmp_path / "data", genesis=with_an_operator(tmp_path)) as running:
        alice, operator = await running.trader(), Trader(running.http, OPERATOR_SEED)
        none = await operator.send("GET", "/satchel/v1/alarms", "alarmQueryAll")
        alarmed(tmp_path / "data")
        told = await operator.send("GET", "/satchel/v1/alarms", "alarmQueryAll")
        refused = await alice.send("GET", "/satchel/v1/alarms", "alarmQueryAll")
        unsigned = await running.get("/satchel/v1/alarms")

    assert none.json == []
    assert [(row["blockchain"], row["kind"], row["count"]) for row in told.json] == [
        ("Solana", "unexplained spend", 2),
        ("Solana", "low balance", 1),
    ]
    assert told.json[0]["message"] == WORDS and told.json[0]["lastAt"].startswith("1970-01-01T02:00:00")
    assert refused.status == 401 and unsigned.status in (400, 401)
