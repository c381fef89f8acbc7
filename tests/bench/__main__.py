"""All figures in one table beside the peers' (`make bench`): the machine, each row, and JSON when asked for."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence

from ledger import compiled
from tests.bench import (
    book_bench,
    engine_bench,
    epoch_bench,
    http_bench,
    ledger_bench,
    margin_bench,
    perpetual_bench,
    pool_bench,
    settlement_bench,
)
from tests.bench.rows import Row, show

MEASUREMENTS: dict[str, Callable[[float, str | None], list[Row]]] = {
    "book": lambda scale, _url: book_bench.run(scale),
    "engine": lambda scale, _url: engine_bench.run(scale),
    "ledger": lambda scale, url: ledger_bench.run(scale, url),
    "http": lambda scale, _url: http_bench.run(scale),
    "epoch": lambda scale, _url: epoch_bench.run(scale),
    "margin": lambda scale, _url: margin_bench.run(scale),
    "perpetuals": lambda scale, _url: perpetual_bench.run(scale),
    "pools": lambda scale, _url: pool_bench.run(scale),
    "settlement": lambda scale, _url: settlement_bench.run(scale),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, one after another so that nothing disturbs, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=sorted(MEASUREMENTS), default=[])
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the size that the figures are for")
    parser.add_argument("--database", help="this PostgreSQL instead of a server of our own; an empty database")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    for name, measure in MEASUREMENTS.items():
        if not options.only or name in options.only:
            print(f"measuring: {name} …", file=sys.stderr, flush=True)
            rows += measure(options.scale, options.database)
    if options.json:
        print(
            json.dumps(
                {"machine": machine(), "scale": options.scale, "rows": [row._asdict() for row in rows]}, indent=2
            )
        )
    else:
        # Wide enough to read in a log as well; a terminal knows its own width.
        if not sys.stdout.isatty():
            os.environ.setdefault("COLUMNS", "150")
        show(machine(), rows)
    return 0


def machine() -> str:
    """What the figures were measured on."""
    load = os.getloadavg()[0]
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, "
        f"{platform.machine()}, load before the run {load:.1f}, core: {compiled.build()}"
    )


if __name__ == "__main__":
    sys.exit(main())
