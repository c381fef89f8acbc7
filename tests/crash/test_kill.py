"""A-9, A-11: kill -9 under load loses nothing acknowledged and repeats nothing. SATCHEL_CRASHES=50 is `make crash`."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from tools.crash import crash

ROUNDS = int(os.environ.get("SATCHEL_CRASHES", "3"))
SEED = int(os.environ.get("SATCHEL_CRASH_SEED", str(time.time_ns() % 1_000_000)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_9_under_load_on_sqlite(tmp_path: Path) -> None:
    counts = asyncio.run(crash(tmp_path, None, ROUNDS, SEED, print))

    assert counts["rounds"] == ROUNDS
    assert counts["acknowledged"] > ROUNDS


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(3600)
def test_kill_9_under_load_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    counts = asyncio.run(crash(tmp_path, postgres_url, ROUNDS, SEED, print))

    assert counts["rounds"] == ROUNDS
    assert counts["acknowledged"] > ROUNDS
