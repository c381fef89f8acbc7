"""The chain's tables: the migration is the schema, and PostgreSQL behaves as SQLite does.   [A-14]"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from chains import schema
from chains.signer import create_keystore
from chains.wallets import Wallets
from ledger.database import metadata, open_engine, upgrade
from tests.chains.nets import SimulatedNet
from tests.chains.world import COIN, GOLD, World, token

ALICE, BOB = 7, 8


def test_the_migration_makes_the_tables_that_the_code_declares(database_url: str) -> None:
    engine = open_engine(database_url)
    upgrade(engine)

    def ours(_: object, name: str | None, kind: str, *__: object) -> bool:
        return kind != "table" or str(name).startswith("chain_")

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours, "compare_type": True})
        differences = [d for d in compare_metadata(context, metadata) if "posting" not in str(d)]
    engine.dispose()

    assert differences == []
    assert all(table.name.startswith("chain_") for table in vars(schema).values() if isinstance(table, sa.Table))


async def test_a_busy_exchange_reconciles_on_every_database(tmp_path: Path, database_url: str) -> None:
    net = SimulatedNet()
    gold = net.chain.deploy("GOLD", decimals=12)
    tokens = [token(COIN, "COIN", 1, "", 9, 9), token(GOLD, "GOLD", 1, gold, 12, 9, minimum=5)]
    world = World(tmp_path, net, tokens, url=database_url)
    await net.mine(4)
    await world.fund_hot()
    await net.pay(world.address(ALICE), 5 * net.unit)
    await net.pay(world.address(BOB), 10**10 + 1, gold)
    await net.mine(2)
    await world.watcher.step()
    await net.reorg(3, reinclude=False)
    await world.settle_down()
    stranger = net.stranger()
    world.book.request(ALICE, 1, COIN, 10**8, stranger)
    await world.pay_out()
    await world.sweep(10)

    assert await net.balance(stranger) == 10**8
    assert set(world.states()) == {"funded", "swept", "internal"}
    result = await world.reconcile()
    assert result.breaks == []
    world.engine.dispose()


def test_another_keystore_is_found_at_the_start(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    metadata.create_all(engine, tables=[schema.addresses])
    Wallets(engine, {1: lambda wallet: f"ours {wallet}"})

    with pytest.raises(ValueError, match="hot wallet is ours 0, this keystore's is theirs 0"):
        Wallets(engine, {1: lambda wallet: f"theirs {wallet}"})


@pytest.mark.slow
async def test_kill_minus_nine_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """A process deposits, pays and sweeps; it is killed again and again, at whatever it was doing."""
    seed = int(os.environ.get("SATCHEL_SEED", "1"))
    chance = random.Random(seed)
    create_keystore(tmp_path / "keystore.json", None, seed=bytes(range(64)))
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-m", "tests.chains.victim", str(tmp_path)])
        while not (tmp_path / "started").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.2, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        (tmp_path / "started").unlink(missing_ok=True)
    from tests.chains.victim import open_world

    net, world = open_world(tmp_path)
    await world.pay_out(14)
    await world.sweep(10)

    paid = [row for row in world.rows(schema.payouts) if row.state == "paid"]
    assert paid, f"seed {seed}: nothing was paid before the kills"
    assert world.book.pending_withdrawals() == []
    for row in paid:
        assert await net.balance(row.address) == row.atoms, f"seed {seed}: withdrawal {row.withdrawal_id}"
    result = await world.reconcile()
    assert result.breaks == [], f"seed {seed}"
