"""A-9, A-13: a full disk, a lost database, a refused commit: the node stops, says why, and restarts clean."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import psycopg
import pytest

from tools.crash import Customer, Log
from tools.node_process import NodeProcess
from tools.servers import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

Fault = Callable[[NodeProcess], Awaitable[None]]

PLANTED = "planted: this block may not pass"


async def stop_by(fault: Fault, repair: Callable[[], None], data: Path, database: str | None = None) -> str:
    """Load a node, strike it, and hold the restarted node to every answer. Returns the last words of the first."""
    timeout = aiohttp.ClientTimeout(total=15)
    node = NodeProcess(data, database)
    url = await node.start()
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            customers = [await Customer.register(session, url, at) for at in range(3)]
            load = [asyncio.create_task(one.trade(session, url, random.Random(7))) for one in customers]
            while not all(len(one.answers) > 5 for one in customers):
                await asyncio.sleep(0.05)
            await fault(node)
            code = await asyncio.wait_for(node.wait(), 60)
            for task in load:
                task.cancel()
            await asyncio.gather(*load, return_exceptions=True)
    finally:
        await node.kill()
    assert code == 2, f"the node ended with {code}: {list(node.last_words)[-5:]}"

    repair()
    log = Log(data, database)
    log.check(customers)
    again = NodeProcess(data, database)
    url = await again.start()
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await log.compare_open_orders(session, url, customers)
            for one in customers:
                await one.resend(session, url)
    finally:
        stopped = await again.stop()
    log.check(customers)
    log.close()
    assert stopped == 0
    return "\n".join(node.last_words)


def test_a_full_disk_stops_it_and_room_starts_it_again(tmp_path: Path) -> None:
    """Real ENOSPC on a small file system where mounting is allowed, EFBIG from the kernel elsewhere."""
    with _small_disk(tmp_path / "disk") as mounted:
        data = tmp_path / "disk" / "node"
        data.mkdir()
        filler = tmp_path / "disk" / "filler"

        async def fill(node: NodeProcess) -> None:
            if not mounted:
                node.limit_file_size((data / "ledger.db-wal").stat().st_size + 50_000)
                return
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 65_536)

        words = asyncio.run(stop_by(fill, lambda: filler.unlink(missing_ok=True), data))

    assert "stopped:" in words
    assert any(reason in words for reason in ("No space left", "full", "I/O error", "too large"))


@pytest.mark.node
def test_a_lost_database_stops_it_and_its_return_starts_it_again(tmp_path: Path, own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database("lost")

    async def strike(_node: NodeProcess) -> None:
        await asyncio.to_thread(own_postgres.stop, "immediate")

    words = asyncio.run(stop_by(strike, own_postgres.start, tmp_path, url))

    assert "stopped:" in words
    assert "connection" in words.lower() or "terminat" in words.lower()


def test_a_commit_that_sqlite_refuses_stops_it(tmp_path: Path) -> None:
    def execute(statement: str) -> None:
        link = sqlite3.connect(tmp_path / "ledger.db", timeout=30)
        link.execute(statement)
        link.commit()
        link.close()

    async def plant(_node: NodeProcess) -> None:
        await asyncio.to_thread(
            execute, f"CREATE TRIGGER planted BEFORE INSERT ON block BEGIN SELECT RAISE(ABORT, '{PLANTED}'); END"
        )

    words = asyncio.run(stop_by(plant, lambda: execute("DROP TRIGGER planted"), tmp_path))

    assert PLANTED in words


@pytest.mark.node
def test_a_commit_that_postgresql_refuses_stops_it(tmp_path: Path, postgres_url: str) -> None:
    def execute(statement: str) -> None:
        with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as link:
            link.execute(statement.encode())

    async def plant(_node: NodeProcess) -> None:
        function = f"BEGIN RAISE EXCEPTION '{PLANTED}'; END"
        await asyncio.to_thread(
            execute, f"CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$ {function} $$"
        )
        await asyncio.to_thread(
            execute, "CREATE TRIGGER planted BEFORE INSERT ON block FOR EACH ROW EXECUTE FUNCTION planted()"
        )

    words = asyncio.run(stop_by(plant, lambda: execute("DROP TRIGGER planted ON block"), tmp_path, postgres_url))

    assert PLANTED in words


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """A file system of 16 MB at `folder` when we may mount; else an ordinary folder (False)."""
    folder.mkdir()
    if os.geteuid() != 0:
        yield False
        return
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)
