"""`python -m tests.simulation --seed N`: the seeded simulation at full length (`make simulate SEED=N`)."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.simulation.world import simulate
from tools.servers import postgres_server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=None, help="a random one when left out; printed")
    parser.add_argument("--steps", type=int, default=2_000, help="steps of each run")
    parser.add_argument("--runs", type=int, default=5, help="runs, each with the next seed")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server of our own, not on SQLite")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    if not options.postgres:
        return _runs(seed, options.runs, options.steps, lambda _seed: None)
    with postgres_server() as server:
        return _runs(seed, options.runs, options.steps, lambda each: server.create_database(f"simulation_{each}"))


def _runs(first: int, runs: int, steps: int, database: object) -> int:
    for seed in range(first, first + runs):
        print(f"seed {seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="satchel-simulation-") as folder:
            counts = asyncio.run(simulate(Path(folder), seed, steps, database(seed)))  # type: ignore[operator]
        print("  " + ", ".join(f"{what} {count}" for what, count in sorted(counts.items())), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
