"""R-5, R-23: every published epoch is held against the log; a log that was signed anew does not slip out under it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from api.epochs import continued, image_of
from engine import snapshot
from engine.commands import Command, SetPrices
from engine.events import EpochClosed
from ledger.blocks import Block
from ledger.database import open_engine, upgrade
from ledger.signing import key_text, write_key_file
from ledger.store import Snapshot, Store
from por import store as por_store
from por.epochs import build_epoch
from por.log import Log
from tests.tools.conftest import Satchel
from tests.tools.sample import BOB, EXCHANGE, MALLORY, Exchange, trade
from tools.replaying import Replay

SECRET = MALLORY


@pytest.fixture
def published(log: Path) -> Path:
    """The sample log whose epoch was published, as the node does it."""
    publish(log)
    return log


def publish(data: Path) -> None:
    engine = open_engine(f"sqlite:///{data / 'ledger.db'}")
    (data / "keys").mkdir(exist_ok=True)
    write_key_file(data / "keys" / "epoch-secret.key", SECRET, None)
    rows = Log()
    run = Replay(Store(engine))
    for header, outcomes in run.blocks():
        closed = outcomes[-1].events[-1] if outcomes[-1].events else None
        if isinstance(closed, EpochClosed):
            image = continued(image_of(run.state, Block(header, run.block_hash, b"", [], []), closed), rows.last)
            epoch = build_epoch(image, rows.last, SECRET.seed)
            por_store.publish(engine, rows, epoch, EXCHANGE.sign, EXCHANGE.public_key)
    engine.dispose()


def signed_anew(published: Path, edit: Callable[[list[Command]], list[Command]]) -> None:
    """The operator's fraud: other commands, blocks and signatures by the true key; the published epochs stay."""
    engine = open_engine(f"sqlite:///{published / 'ledger.db'}")
    with engine.connect() as connection:
        rows = connection.execute(por_store.por_epoch.select()).mappings().all()
    engine.dispose()
    for file in published.glob("ledger.db*"):
        file.unlink()

    async def again() -> None:
        exchange = await Exchange(published).open()
        bring = exchange.bring

        async def edited(command: Command, request: object = None) -> object:
            outcome = None
            for one in edit([command]):
                outcome = await bring(one, request)  # type: ignore[arg-type]
            return outcome

        exchange.bring = edited  # type: ignore[assignment,method-assign]
        await trade(exchange)
        exchange.bring = bring  # type: ignore[method-assign]
        await exchange.close()

    asyncio.run(again())
    engine = open_engine(f"sqlite:///{published / 'ledger.db'}")
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(por_store.por_epoch.insert(), [dict(row) for row in rows])
    engine.dispose()


def test_a_published_epoch_is_compared(published: Path, satchel: Satchel) -> None:
    replayed = satchel("replay", "--data", published, "--json")

    assert replayed.code == 0, replayed.out
    assert replayed.json()["covered"]["epochs"] == 1
    assert satchel("verify-journal", "--data", published).code == 0


def test_a_log_with_its_blocks_moved_is_found_though_its_epoch_waits(
    published: Path, satchel: Satchel, tmp_path: Path
) -> None:
    """The epoch closes three blocks later than published, so that it looks like one not yet published."""
    proof = tmp_path / "proof.json"
    assert satchel("por", "prove", 1, "--data", published, "--out", proof).code == 0
    before = satchel("por", "verify", proof, "--data", published, "--json")
    signed_anew(published, lambda commands: commands * 4 if isinstance(commands[0], SetPrices) else commands)
    replayed = satchel("replay", "--data", published, "--json")
    verified = satchel("verify-journal", "--data", published, "--json")
    proven = satchel("por", "verify", proof, "--data", published, "--json")

    assert (before.code, before.json()["verified"]) == (0, True)
    assert replayed.code == 1
    assert "published epoch 0: the log has no epoch closed in block 12" in replayed.json()["difference"]
    assert [(one["table"], one["row"]) for one in verified.json()["findings"]] == [("por_epoch", "epoch 0")]
    assert (proven.code, proven.json()["verified"]) == (1, False)
    assert "NOT of this ledger" in proven.json()["report"][-1]


def test_a_published_epoch_beyond_the_end_of_the_log_is_found(published: Path, satchel: Satchel) -> None:
    from engine.commands import CloseEpoch

    signed_anew(published, lambda commands: [one for one in commands if not isinstance(one, CloseEpoch)])
    replayed = satchel("replay", "--data", published, "--json")
    part = satchel("replay", "--data", published, "--to", 5, "--json")

    assert replayed.code == 1
    assert "published epoch 0: the log has no block 12: it ends at block 11" in replayed.json()["difference"]
    assert part.code == 0, part.out


def test_a_log_with_other_amounts_at_the_published_block_is_found(published: Path, satchel: Satchel) -> None:
    def richer(commands: list[Command]) -> list[Command]:
        (one,) = commands
        if not isinstance(one, SetPrices):
            return [one]
        return [SetPrices(tuple((asset, price * 2) for asset, price in one.prices))]

    signed_anew(published, richer)

    assert satchel("replay", "--data", published, "--json").code == 1
    assert satchel("verify-journal", "--data", published, "--json").code == 1


@pytest.mark.parametrize("command", ["replay", "verify-journal", "audit"])
def test_the_genesis_key_must_be_the_trusted_one(kept_log: Path, satchel: Satchel, command: str) -> None:
    """A log that somebody else made and signed is whole in itself; the key that was published tells."""
    good = satchel(command, "--data", kept_log, "--public-key", b64encode(EXCHANGE.public_key).decode())
    bad = satchel(command, "--data", kept_log, "--public-key", b64encode(BOB.public_key).decode(), "--json")
    nonsense = satchel(command, "--data", kept_log, "--public-key", "c2hvcnQ=")

    assert good.code == 0, good.out
    assert bad.code == 1
    assert key_text(EXCHANGE.public_key) in bad.out
    assert key_text(BOB.public_key) in bad.out
    assert nonsense.code == 2


def test_a_forged_snapshot_is_found_by_every_command_and_refused_at_the_start(log: Path, satchel: Satchel) -> None:
    """The attacker, with the database and no key, moves 500 SOL to a friend in the snapshot alone, hash and all."""
    from api.recovery import recover
    from engine.state import balance_key
    from ledger.chart import available
    from ledger.store import StoreError

    engine = open_engine(f"sqlite:///{log / 'ledger.db'}")
    store = Store(engine)
    run = Replay(store)
    for _ in run.blocks():
        pass
    genuine = Snapshot.signed(
        run.height, run.block_hash, snapshot.dump(run.state), EXCHANGE.public_key, EXCHANGE.sign
    )
    store.save_snapshot(genuine)
    assert recover(store, run.height, lambda *_: None).replayed == 0
    assert satchel("verify-journal", "--data", log).code == 0
    assert satchel("replay", "--data", log).code == 0
    sol = next(asset for asset, listed in run.state.assets.items() if listed.symbol == "SOL")
    run.state.balances[balance_key(available(2), sol)] += 5 * 10**9
    run.state.balances[balance_key(available(1), sol)] -= 5 * 10**9
    content = snapshot.dump(run.state)
    store.save_snapshot(genuine._replace(content=content, state_hash=sha256(content).digest()))

    with pytest.raises(StoreError, match="is forged"):
        recover(store, run.height, lambda *_: None)
    engine.dispose()
    verified = satchel("verify-journal", "--data", log, "--json")
    assert verified.code == 1
    assert [(one["row"], one["column"]) for one in verified.json()["findings"]] == [("height 12", "signature")]
    assert satchel("replay", "--data", log).code == 1
    assert satchel("replay", "--data", log, "--from-snapshot", 99).code == 2


def test_a_receipt_of_no_number_is_said_so(kept_log: Path, satchel: Satchel) -> None:
    for seq in (0, 10**6):
        ran = satchel("receipt", seq, "--data", kept_log)

        assert (ran.code, "Traceback" in ran.err) == (2, False), ran.err
    ran = satchel("receipt", "--data", kept_log, "--", -1)
    assert (ran.code, "Traceback" in ran.err) == (2, False), ran.err


def test_receipts_of_rows_moved_below_zero_do_not_stumble(log: Path, satchel: Satchel) -> None:
    import sqlite3

    tampered = sqlite3.connect(log / "ledger.db")
    tampered.execute("DROP TRIGGER journal_refuse_update")
    tampered.execute("UPDATE journal SET seq = -3 WHERE seq = 22")
    tampered.execute("UPDATE journal SET seq = 0 WHERE seq = 21")
    tampered.commit()
    tampered.close()
    for seq in (0, -3, 22):
        ran = satchel("receipt", "--data", log, "--", seq)

        assert ran.code in (1, 2), ran.out
        assert "Traceback" not in ran.err, ran.err
    assert satchel("verify-journal", "--data", log, "--json").code == 1


def test_a_changed_command_stops_the_start(log: Path) -> None:
    """A-5, A-9: a price posts nothing, so only the block's own commands root and signature show that it was another."""
    import sqlite3

    from api.recovery import recover
    from engine.commands import decode, encode
    from ledger.blocks import log_command
    from ledger.store import StoreError

    engine = open_engine(f"sqlite:///{log / 'ledger.db'}")
    store = Store(engine)
    assert recover(store, -1, lambda *_: None).replayed == 13
    logged = next(one for one in store.commands() if one.kind == "SetPrices")
    prices = decode(logged.payload)
    assert isinstance(prices, SetPrices)
    payload = encode(SetPrices(tuple((asset, price * 2) for asset, price in prices.prices)))
    anew = log_command(logged.seq, logged.at_us, logged.outcome, logged.kind, payload, None)
    tampered = sqlite3.connect(log / "ledger.db")
    tampered.execute("DROP TRIGGER command_refuse_update")
    tampered.execute("UPDATE command SET payload = ?, hash = ? WHERE seq = ?", (payload, anew.hash, logged.seq))
    tampered.commit()
    tampered.close()

    with pytest.raises(StoreError, match="has commands root"):
        recover(store, -1, lambda *_: None)
    engine.dispose()
