"""Epochs in SQL, on SQLite and on PostgreSQL.   [R-20, A-14]"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from ledger.database import open_engine, upgrade
from por import verifier
from por.canonical import BuildRefused
from por.epochs import build_epoch, prove
from por.header import missed_row
from por.log import Log
from por.store import LeavesBroken, LeavesGone, load_checkpoint, load_epoch, load_log, por_artifact, por_epoch, publish
from tests.por.samples import HOUR, KEY, MASTER, PUBLIC, ROWS, image_of, sample_epoch


@pytest.fixture
def database(database_url: str) -> Iterator[sa.Engine]:
    engine = open_engine(database_url)
    upgrade(engine)
    yield engine
    engine.dispose()


def publish_hours(database: sa.Engine, log: Log, count: int, keep_leaves: int = 100) -> None:
    for _ in range(count):
        epoch = sample_epoch(log.last, hour=HOUR + len(log), before=len(ROWS) if len(log) else 0)
        publish(database, log, epoch, KEY.sign, PUBLIC, keep_leaves)


def test_a_published_epoch_reads_back_and_proves_the_same(database: sa.Engine) -> None:
    log = Log()
    publish_hours(database, log, 2)
    publish(database, log, missed_row(log.rows[-1], HOUR + 2, "no database"), KEY.sign, PUBLIC)

    reloaded = load_log(database)
    newest = load_checkpoint(database)
    assert newest is not None
    epoch = load_epoch(database, 1)
    proof = prove(epoch, 21, reloaded.proof(1, newest.text, newest.public_key))

    assert [row.text() for row in reloaded.rows] == [row.text() for row in log.rows]
    assert newest.text == log.checkpoint(KEY.sign, PUBLIC)
    rebuilt = sample_epoch(log.rows[0], hour=HOUR + 1, before=len(ROWS))
    assert epoch.header == rebuilt.header
    assert epoch.leaves.hashes.tobytes() == rebuilt.leaves.hashes.tobytes()
    verifier.verify(proof, key=("", PUBLIC), user=2, subaccount=21)
    for missing in (2, 3):
        with pytest.raises(KeyError, match=f"there is no epoch {missing}"):
            load_epoch(database, missing)


def test_an_empty_log_and_an_empty_exchange(database: sa.Engine) -> None:
    assert len(load_log(database)) == 0
    assert load_checkpoint(database) is None

    log = Log()
    publish(database, log, build_epoch(image_of([]), None, MASTER), KEY.sign, PUBLIC)

    assert load_epoch(database, 0).header == log.rows[0]


def test_leaves_are_kept_for_the_newest_epochs_and_headers_for_ever(database: sa.Engine) -> None:
    log = Log()
    publish_hours(database, log, 4, keep_leaves=2)

    with database.connect() as connection:
        kept = connection.execute(sa.select(por_artifact.c.epoch).order_by(por_artifact.c.epoch)).scalars().all()
    assert list(kept) == [2, 3]
    assert len(load_log(database)) == 4
    old = load_checkpoint(database, 2)
    assert old is not None
    assert old.text == Log(log.rows[:2]).checkpoint(KEY.sign, PUBLIC)
    with pytest.raises(LeavesGone, match="epoch 1"):
        load_epoch(database, 1)


@pytest.mark.parametrize("damage", ["zeroed", "empty", "of another epoch"])
def test_damaged_leaves_are_named_not_stumbled_over(database: sa.Engine, damage: str) -> None:
    """R-22: artifacts are not append-only, so that old ones can go; what is wrong is said in words."""
    log = Log()
    publish_hours(database, log, 2)
    with database.begin() as connection:
        bodies = dict(connection.execute(sa.select(por_artifact.c.epoch, por_artifact.c.body)).all())
        body = {"zeroed": bytes(len(bodies[1])), "empty": b"", "of another epoch": bodies[0]}[damage]
        connection.execute(por_artifact.update().where(por_artifact.c.epoch == 1).values(body=body))

    with pytest.raises(LeavesBroken, match="leaves of epoch 1"):
        load_epoch(database, 1)
    assert load_epoch(database, 0).header == log.rows[0]


def test_the_database_refuses_to_change_a_published_epoch(database: sa.Engine) -> None:
    """Append-only.   [R-20]"""
    log = Log()
    publish_hours(database, log, 1)

    for change in (por_epoch.update().values(checkpoint="x"), por_epoch.delete()):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), database.begin() as connection:
            connection.execute(change)


def test_a_publication_that_fails_leaves_the_log_as_it_was(database: sa.Engine) -> None:
    """Two publishers: the second one's row is refused by the key, and its memory does not run ahead."""
    log = Log()
    publish_hours(database, log, 1)
    stale = Log(log.rows)
    publish_hours(database, log, 1)

    with pytest.raises(sa.exc.IntegrityError):
        publish_hours(database, stale, 1)

    assert len(stale) == 1
    assert len(load_log(database)) == 2
    with pytest.raises(BuildRefused):
        publish(database, log, sample_epoch(), KEY.sign, PUBLIC)


@pytest.mark.parametrize("column", ["row_text", "row_hash", "checkpoint", "public_key"])
def test_a_stored_row_that_was_altered_is_found(database: sa.Engine, column: str) -> None:
    log = Log()
    publish_hours(database, log, 2)
    values = {
        "row_text": log.rows[0].text().replace('"closed":0', '"closed":1'),
        "row_hash": bytes(32),
        "checkpoint": Log(log.rows[:1]).checkpoint(lambda _: bytes(64), PUBLIC),
        "public_key": bytes(32),
    }
    with database.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(sa.text("DROP TRIGGER por_epoch_refuse_update"))
        else:
            connection.execute(sa.text("ALTER TABLE por_epoch DISABLE TRIGGER ALL"))
        connection.execute(por_epoch.update().values({column: values[column]}).where(por_epoch.c.epoch == 1))

    with pytest.raises(ValueError):
        load_log(database)


def test_altered_leaves_are_found(database: sa.Engine) -> None:
    log = Log()
    publish_hours(database, log, 2)
    with database.begin() as connection:
        other = connection.execute(sa.select(por_artifact.c.body).where(por_artifact.c.epoch == 0)).scalar_one()
        connection.execute(por_artifact.update().values(body=other).where(por_artifact.c.epoch == 1))

    with pytest.raises(ValueError, match="stored leaves of epoch 1 have root"):
        load_epoch(database, 1)
