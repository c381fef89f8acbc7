"""What a benchmark reports, how it is timed, and the table it is printed in."""

from __future__ import annotations

import gc
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

REPEATS = 5


class Row(NamedTuple):
    """One line of the table. `figure` is the median; `target` what issue or peer asks for, as text."""

    what: str
    figure: float
    unit: str
    least: float
    most: float
    beside: str = ""


def timed(
    run: Callable[[], Callable[[], object]], operations: int, repeats: int = REPEATS
) -> tuple[float, float, float]:
    """(median, least, most) operations a second. `run` prepares, untimed, and gives back what is timed."""
    rates = []
    for _ in range(repeats):
        work = run()
        gc.collect()
        start = perf_counter()
        work()
        rates.append(operations / (perf_counter() - start))
    return median(rates), min(rates), max(rates)


def show(title: str, rows: list[Row]) -> None:
    table = Table(title=title)
    for heading in ("what", "median", "range", "beside it"):
        table.add_column(heading, justify="left" if heading in ("what", "beside it") else "right")
    for row in rows:
        spread = f"{number(row.least)} – {number(row.most)}" if row.least != row.most else ""
        table.add_row(row.what, f"{number(row.figure)} {row.unit}", spread, row.beside)
    Console().print(table)


def number(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
