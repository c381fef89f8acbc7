"""keygen, sign, export, replay from the middle, epochs and reconciliation as a person runs them."""

from __future__ import annotations

import asyncio
import json
import shlex
import sqlite3
import stat
from base64 import b64decode
from pathlib import Path

import pytest

from api.rest import table
from ledger.signing import verify
from tests.tools.conftest import Satchel
from tools import keys
from tools.node_process import NodeProcess

SEED = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def test_keygen_writes_a_key_that_only_its_owner_reads_and_never_overwrites(satchel: Satchel, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    made = satchel("keygen", "--out", file, "--json")
    again = satchel("keygen", "--out", file)

    assert made.code == 0
    assert len(b64decode(made.json()["publicKey"])) == 32
    assert "privateKey" not in made.json()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert again.code == 2
    assert "never overwritten" in again.err


def test_sign_gives_the_text_and_headers_of_the_rule_book(satchel: Satchel) -> None:
    """W-1: the example that must verify byte for byte."""
    ran = satchel(
        "sign", "orderCancel", "orderId=28", "symbol=BTC_USDT", "--secret", SEED, "--timestamp", 1614550000000, "--json"
    )
    document = ran.json()
    headers = document["headers"]

    assert document["signedText"] == (
        "instruction=orderCancel&orderId=28&symbol=BTC_USDT&timestamp=1614550000000&window=5000"
    )
    assert verify(b64decode(headers["X-API-Key"]), b64decode(headers["X-Signature"]), document["signedText"].encode())
    assert shlex.split(document["curl"])[:4] == ["curl", "-sS", "-X", "DELETE"]


def test_sign_knows_the_exchanges_own_routes_and_names_a_slip(satchel: Satchel) -> None:
    """W-7."""
    own = satchel("sign", "transferExecute", "toSubaccountId=2", "symbol=USDC", "quantity=1", "--secret", SEED)
    slip = satchel("sign", "orderExecut", "symbol=BTC_USDT", "--secret", SEED)

    assert shlex.split(own.out.splitlines()[-1])[-1].endswith("/satchel/v1/transfers")
    assert slip.code == 2
    assert "did you mean orderExecute?" in slip.err


def test_sign_repeats_the_instruction_for_each_order_of_a_batch(satchel: Satchel) -> None:
    """W-1: one timestamp and window at the end, booleans in lower case, null left out."""
    body = json.dumps([{"symbol": "SOL_USDC", "postOnly": True}, {"symbol": "ETH_USDC", "clientId": None}])
    ran = satchel("sign", "orderExecute", "--body", body, "--secret", SEED, "--timestamp", 1, "--json")

    assert ran.json()["signedText"] == (
        "instruction=orderExecute&postOnly=true&symbol=SOL_USDC"
        "&instruction=orderExecute&symbol=ETH_USDC&timestamp=1&window=5000"
    )


def test_sign_without_a_key_says_what_to_do(satchel: Satchel) -> None:
    ran = satchel("sign", "balanceQuery")

    assert ran.code == 2
    assert "satchel keygen" in ran.err


def test_an_export_verifies_without_a_database_and_a_changed_one_does_not(
    kept_log: Path, satchel: Satchel, tmp_path: Path
) -> None:
    file = tmp_path / "log.satchel"
    written = satchel("export", file, "--data", kept_log, "--json")
    good = satchel("export", file, "--verify", "--checkpoint", kept_log / "checkpoint.txt", "--json")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    bad = satchel("export", file, "--verify", "--json")

    assert written.json()["blocks"] == 13
    assert (good.code, good.json()["covered"]["commands"]) == (0, 13)
    assert bad.code == 1
    assert bad.json()["findings"]


def test_an_export_is_never_written_over_another_file(kept_log: Path, satchel: Satchel, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("mine")
    ran = satchel("export", file, "--data", kept_log)

    assert ran.code == 2
    assert file.read_text() == "mine"


def test_replay_names_the_first_differing_posting_with_its_command(log: Path, satchel: Satchel) -> None:
    """A-10."""
    tampered = sqlite3.connect(log / "ledger.db")
    tampered.execute("DROP TRIGGER posting_refuse_update")
    tampered.execute("UPDATE posting SET atoms = atoms + 1 WHERE journal_seq = 25 AND line = 1")
    tampered.commit()
    tampered.close()
    ran = satchel("replay", "--data", log)

    assert ran.code == 1
    assert "journal transaction 25 (command 10, PlaceOrder), posting 1" in ran.out


def test_replay_goes_on_from_its_kept_progress(kept_log: Path, satchel: Satchel, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    first = satchel("replay", "--data", kept_log, "--to", 7, "--resume", progress, "--json").json()
    second = satchel("replay", "--data", kept_log, "--resume", progress, "--json").json()
    whole = satchel("replay", "--data", kept_log, "--json").json()

    assert (first["fromBlock"], first["toBlock"]) == (0, 7)
    assert (second["fromBlock"], second["toBlock"]) == (8, 12)
    assert second["covered"] == whole["covered"]
    assert second["blockHash"] == whole["blockHash"]


def test_progress_of_another_log_is_refused(kept_log: Path, log: Path, satchel: Satchel, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    satchel("replay", "--data", kept_log, "--to", 7, "--resume", progress)
    content = bytearray(progress.read_bytes())
    content[-200] ^= 1
    progress.write_bytes(bytes(content))
    ran = satchel("replay", "--data", log, "--resume", progress)

    assert ran.code == 2
    assert "next:" in ran.err


@pytest.fixture(scope="module")
def stopped_node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a devnet that ran, took deposits, and was stopped."""
    from base64 import b64encode

    import aiohttp

    from tests.tools.sample import ALICE
    from tools.client import Client

    data = tmp_path_factory.mktemp("devnet") / "node"

    async def live() -> None:
        node = NodeProcess(data)
        url = await node.start()
        try:
            async with aiohttp.ClientSession() as session:
                client = Client(session, url)
                opened = await client.tell("/dev/v1/keys", {"publicKey": b64encode(ALICE.public_key).decode()})
                await client.tell("/dev/v1/faucet", {**opened, "symbol": "SOL", "quantity": "12.5"})
                await client.tell("/dev/v1/prices", {"SOL": "150", "USDC": "1"})
        finally:
            assert await node.stop() == 0

    asyncio.run(live())
    return data


@pytest.mark.slow
def test_ledger_and_chain_agree_wallet_by_wallet(stopped_node: Path, satchel: Satchel) -> None:
    """D-11, on a stopped node's data, without changing it."""
    before = (stopped_node / "chain.db").read_bytes()
    ran = satchel("reconcile", "--data", stopped_node, "--json")
    document = ran.json()

    assert ran.code == 0, ran.err
    assert document["breaks"] == []
    assert any(row["asset"] == "SOL" and row["onChain"] != "0" for row in document["rows"])
    assert (stopped_node / "chain.db").read_bytes() == before


@pytest.mark.slow
def test_coins_that_left_the_chain_unseen_are_a_break(stopped_node: Path, satchel: Satchel, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "robbed"
    shutil.copytree(stopped_node, copy)
    chain = sqlite3.connect(copy / "chain.db")
    columns = [row[1] for row in chain.execute("PRAGMA table_info(chain_sim_balances)")]
    assert {"address", "contract", "value"} <= set(columns), columns
    hot = satchel("reconcile", "--data", stopped_node, "--json").json()["rows"]
    row = next(one for one in hot if one["asset"] == "SOL" and one["onChain"] != "0")
    chain.execute("UPDATE chain_sim_balances SET value = '7' WHERE address = ? AND contract = ''", (row["address"],))
    chain.commit()
    chain.close()
    ran = satchel("reconcile", "--data", copy, "--json")

    assert ran.code == 1
    assert [one["address"] for one in ran.json()["breaks"]] == [row["address"]]


@pytest.mark.slow
def test_an_epoch_is_closed_proven_verified_and_rebuilt_by_replay(
    stopped_node: Path, satchel: Satchel, tmp_path: Path
) -> None:
    """R-1, R-22, R-23."""
    proof = tmp_path / "proof.json"
    header = satchel("por", "run", "--data", stopped_node, "--json")
    proven = satchel("por", "prove", 1, "--data", stopped_node, "--out", proof)
    verified = satchel("por", "verify", proof, "--subaccount", 1, "--json")
    document = json.loads(proof.read_text())
    document["leaf"]["amounts"][0] = "1"
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(document))
    refused = satchel("por", "verify", forged, "--json")
    replayed = satchel("replay", "--data", stopped_node, "--json")

    assert header.code == 0, header.err
    assert header.json()["accounts"] == 1
    assert proven.code == 0, proven.err
    assert (verified.code, verified.json()["verified"]) == (0, True)
    assert (refused.code, refused.json()["verified"]) == (1, False)
    assert replayed.json()["identical"] is True
    assert replayed.json()["covered"]["epochs"] >= 1
    assert replayed.json()["covered"]["snapshots"] >= 1


def test_a_long_log_is_read_in_a_process_of_its_own_and_gives_the_same(
    kept_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A-10: reading beside the engine changes how long it takes, not what is found."""
    from ledger.database import open_engine
    from ledger.store import Store
    from tools import stored_rows

    engine = open_engine(f"sqlite:///{kept_log / 'ledger.db'}", read_only=True)
    store = Store(engine)
    ranges = stored_rows.Ranges(1, 13, 1, 25)
    with stored_rows.stored_rows(store, ranges) as here:
        alone = (list(here.commands), list(here.journal))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    received = []
    for rows_here in (0, 4):
        monkeypatch.setattr(stored_rows, "WORTH_A_PROCESS", rows_here)
        with stored_rows.stored_rows(store, ranges) as beside:
            received.append((list(beside.commands), list(beside.journal)))
    engine.dispose()

    commands, journal = alone
    assert (len(commands), len(journal)) == (13, 25)
    assert received == [alone, alone]
    assert stored_rows.DAMAGED not in journal
    assert all(logged.hash == row_hash for logged, row_hash in commands)


MUTATED = {
    "command": ("seq = 10", ("at_us", "outcome", "kind", "payload", "api_key", "signature", "signed_text", "hash")),
    "journal": ("seq = 22", ("seq", "command_seq", "at_us", "kind", "memo", "hash")),
    "posting": ("journal_seq = 22 AND line = 0", ("journal_seq", "line", "account", "asset", "atoms_high", "atoms")),
    "block": ("height = 9", ("height", "at_us", "first_command", "journal_count", "log_root", "hash", "signature")),
}


@pytest.mark.slow
@pytest.mark.parametrize("table", MUTATED)
def test_replay_and_audit_notice_what_was_changed_and_never_stumble(
    kept_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str
) -> None:
    """A-10: whatever the change is, it is a finding (1), not a failure of the program."""
    from tools import audit, replaying, terminal

    where, columns = MUTATED[table]
    for column in columns:
        copy = tmp_path / column
        copy.mkdir()
        (copy / "ledger.db").write_bytes((kept_log / "ledger.db").read_bytes())
        tampered = sqlite3.connect(copy / "ledger.db")
        for (trigger,) in tampered.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            tampered.execute(f"DROP TRIGGER {trigger}")
        kind = tampered.execute(f"SELECT typeof({column}) FROM {table} WHERE {where}").fetchone()[0]
        changed = {
            "blob": f"CAST(substr({column}, 1, length({column}) - 1) || x'77' AS BLOB)",
            "text": f"{column} || 'x'",
            "integer": f"{column} + 1000",
        }[kind]
        tampered.execute(f"UPDATE {table} SET {column} = {changed} WHERE {where}")
        tampered.commit()
        tampered.close()

        replayed = terminal.run(lambda at=copy: replaying.replay(at, None, None, None, None, None, True))  # type: ignore[misc]
        audited = terminal.run(lambda at=copy: audit.audit(at, None, None, None, True))  # type: ignore[misc]

        assert (replayed, audited) == (1, 1), f"{table}.{column}: {capsys.readouterr().out[-500:]}"


@pytest.mark.node
@pytest.mark.slow
def test_the_commands_read_postgresql_as_they_read_sqlite(
    kept_log: Path, satchel: Satchel, tmp_path: Path, postgres_url: str
) -> None:
    """A-14: same log, same answers."""
    from tests.tools.sample import write_log

    write_log(tmp_path / "node", postgres_url)
    for command in ("trial-balance", "replay", "audit", "verify-journal"):
        here = satchel(command, "--data", kept_log, "--json").json()
        there = satchel(command, "--data", tmp_path / "node", "--database", postgres_url, "--json").json()
        for one in (here, there):
            one.get("covered", {}).pop("checkpointFile", None)

        assert there == here, command


def test_every_signed_route_can_be_signed_for() -> None:
    """The table that `satchel sign` carries is the server's.   [W-1, W-2]"""
    served: dict[str, list[tuple[str, str]]] = {}
    for route in table.ROUTES:
        if route.instruction and route.instruction not in keys.NUMBERED:
            served.setdefault(route.instruction, []).append((route.method, route.path))
    assert served.keys() == keys.ROUTES.keys()
    for instruction, where in keys.ROUTES.items():
        assert where in served[instruction], instruction
