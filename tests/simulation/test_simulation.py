"""A sample of the seeded simulation; `make simulate SEED=…` runs it at length.   [A-9, A-10, A-11, D-4, D-5, D-8]"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.simulation.world import simulate

STEPS = 150


@pytest.mark.slow
def test_a_simulated_exchange_keeps_its_promises_through_crashes_and_reorganisations(tmp_path: Path) -> None:
    counts = asyncio.run(simulate(tmp_path, 1, STEPS))

    assert counts["crashes"] > 0
    assert counts["reorganisations"] > 0
    assert counts["orders"] > 10


@pytest.mark.slow
def test_so_does_one_with_a_seed_that_nobody_has_tried(tmp_path: Path) -> None:
    seed = fresh_seed()
    counts = asyncio.run(simulate(tmp_path, seed, STEPS))

    assert counts["orders"] > 10, f"seed {seed}"


@pytest.mark.slow
@pytest.mark.node
def test_the_same_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    counts = asyncio.run(simulate(tmp_path, fresh_seed(), 100, postgres_url))

    assert counts["orders"] > 10


def test_a_seed_does_again_what_it_did(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()

    assert asyncio.run(simulate(first, 7, 60)) == asyncio.run(simulate(second, 7, 60))


def fresh_seed() -> int:
    """Printed, and in the message of whatever breaks: `make simulate SEED=…` brings it back."""
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    return seed
