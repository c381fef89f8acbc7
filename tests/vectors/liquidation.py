"""Writes `liquidation_v1.json`: the end of the liquidation ladder, worked on exact rationals of whole units.

Nothing of the engine is imported. `python -m tests.vectors.liquidation` writes the file again; a test finds out when
that would change it.   [M-8, L-4, L-6]
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import product
from math import ceil, floor
from pathlib import Path
from random import Random
from typing import Any

from tests.vectors.formulas import Row, rows, text

PATH = Path(__file__).parent / "liquidation_v1.json"
USD = 10**8
PRICE = 10**12
PARTS = 10**9
LOSS = 10**12


def vectors() -> dict[str, Any]:
    return {
        "about": (
            "Formulas of the liquidation ladder (docs/formulas.md). `in` names the arguments of a function of "
            "engine/formulas/liquidation.py, `out` is its result; integers are decimal strings, an exact fraction is "
            "a/b. USD in 1e-8, prices in quote atoms per lot, positions in signed lots, rates in 1e-9."
        ),
        "functions": {
            "bankruptcy_price": rows(bankruptcy_price, BANKRUPTCIES),
            "lacking_atoms": rows(lacking_atoms, LACKING),
            "score": rows(score, SCORES),
            "slice_of": rows(slice_of, SLICES),
            "minimum_incentive": rows(minimum_incentive, INCENTIVES),
            "quote_atoms_up": rows(quote_atoms_up, CHARGES),
            "loss_per_lot": rows(loss_per_lot, LOSSES),
            "shared_loss": rows(shared_loss, SHARES),
        },
    }


def bankruptcy_price(
    mark: int, quantum: int, equity: int, maintenance: int, maintenance_sum: int, lots: int, quote_unit: int,
    quote_mark: int,
) -> int:
    """p = mark − E × s / q in quote units per lot, to the nearest even multiple of the quantum, at least one."""
    share = Fraction(equity, USD) * Fraction(maintenance, maintenance_sum) / Fraction(quote_mark, PRICE)
    price = Fraction(mark, quote_unit) - share / lots
    # round() of a Fraction is half to even.
    return max(1, round(price * quote_unit / quantum)) * quantum


def lacking_atoms(
    equity: int, maintenance: int, maintenance_sum: int, part: int, whole: int, quote_unit: int, quote_mark: int,
    gained: int,
) -> int:
    share = Fraction(equity, USD) * Fraction(maintenance, maintenance_sum) / Fraction(quote_mark, PRICE)
    return ceil(-share * Fraction(part, whole) * quote_unit) - gained


def score(profit: int, entry: int, notional: int, equity: int) -> Fraction:
    """profit / entry × leverage, or ÷ leverage where there is no profit."""
    ratio, leverage = Fraction(profit, max(1, entry)), Fraction(max(1, notional), max(1, equity))
    return ratio * leverage if ratio > 0 else ratio / leverage


def slice_of(amount: int, part: int, whole: int) -> int:
    share = Fraction(part, whole) * amount
    return floor(share) if share >= 0 else ceil(share)


def minimum_incentive(gross_notional: int, rate: int) -> int:
    return ceil(Fraction(gross_notional, USD) * Fraction(rate, PARTS) * USD)


def quote_atoms_up(usd: int, quote_unit: int, quote_mark: int) -> int:
    return ceil(Fraction(usd, USD) / Fraction(quote_mark, PRICE) * quote_unit)


def loss_per_lot(loss_atoms: int, open_lots: int) -> int:
    return ceil(Fraction(loss_atoms, open_lots) * LOSS)


def shared_loss(per_lot: int, lots: int) -> int:
    return ceil(Fraction(per_lot, LOSS) * abs(lots))


# --- cases


def bankruptcies(count: int) -> Iterable[Row]:
    """The corners, then any."""
    base = {"quote_unit": 10**6, "quote_mark": PRICE}
    for equity, lots in product((-10_000 * USD, -1, 0, 1, 900 * USD), (-1, 1, 40, -40, 10**9)):
        yield {"mark": 500_000, "quantum": 1, "equity": equity, "maintenance": 7, "maintenance_sum": 21, "lots": lots,
               **base}
    # Half way between two multiples of the quantum: 100 atoms a lot less 5 of 10.
    for equity in (-500, 500, -1_500, 1_500):
        yield {"mark": 10_000, "quantum": 10, "equity": equity, "maintenance": 1, "maintenance_sum": 1, "lots": 1,
               **base}
    random = Random(4)
    for _ in range(count):
        whole = random.randrange(1, 10**random.randrange(1, 16))
        yield {
            "mark": random.randrange(1, 10**9) * 10,
            "quantum": random.choice((1, 10)),
            "equity": random.randrange(-(10**14), 10**13),
            "maintenance": random.randrange(0, whole + 1),
            "maintenance_sum": whole,
            "lots": random.choice((-1, 1)) * random.randrange(1, 10**random.randrange(1, 10)),
            "quote_unit": 10**6,
            "quote_mark": random.choice((PRICE, PRICE * 999 // 1000, 1_000_700_000_001)),
        }


def lacking() -> Iterable[Row]:
    random = Random(5)
    for row in bankruptcies(30):
        whole = abs(row["lots"])
        kept = {name: row[name] for name in ("equity", "maintenance", "maintenance_sum", "quote_unit", "quote_mark")}
        gained = random.randrange(-(10**9), 10**9)
        yield {**kept, "part": random.randrange(0, whole + 1), "whole": whole, "gained": gained}


BANKRUPTCIES = list(bankruptcies(40))
LACKING = list(lacking())
SCORES = [
    {"profit": profit, "entry": entry, "notional": notional, "equity": equity}
    for profit, entry, (notional, equity) in product(
        (-5 * 10**8, -1, 0, 1, 3 * 10**9), (0, 1, 10**10), ((0, 5), (10**12, 10**11), (7, -3), (7, 0))
    )
]
SLICES = [
    {"amount": amount, "part": part, "whole": whole}
    for amount, (part, whole) in product((-10**18, -7, 0, 1, 99, 10**30), ((0, 3), (1, 3), (2, 3), (3, 3)))
]
INCENTIVES = [
    {"gross_notional": notional, "rate": rate}
    for notional, rate in product((0, 1, 399, 400, 401, 10**15), (2_500_000, 0, PARTS))
]
CHARGES = [
    {"usd": usd, "quote_unit": 10**6, "quote_mark": mark}
    for usd, mark in product((0, 1, 99, 100, 101, 10**16), (PRICE, PRICE // 2, 1_000_300_000_000))
]
LOSSES = [
    {"loss_atoms": loss, "open_lots": lots} for loss, lots in product((1, 7, 10**15), (1, 3, 10**9, 7 * 10**12))
]
SHARES = [
    {"per_lot": per_lot, "lots": lots}
    for per_lot, lots in product((0, 1, LOSS, LOSS + 1, 333_333_333_334), (0, 1, -3, 10**12))
]

if __name__ == "__main__":
    PATH.write_text(text(vectors()))
