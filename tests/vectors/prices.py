"""Writes `prices_v1.json`: P-1's index and P-2's mark, worked independently on exact rationals of whole dollars.

Nothing of the engine is imported. `python -m tests.vectors.prices` writes the file again; a test finds out when that
would change it.
"""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import product
from math import ceil, floor
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

PATH = Path(__file__).parent / "prices_v1.json"
UNIT = 10**12
"""Prices in the file are in 1e-12 USD."""
Quoted = tuple[int, int, int, int]
"""Best bid, best ask, last, weight."""
PARTS = 10**9
"""Clamps and bounds are in 1e-9."""


def vectors() -> dict[str, Any]:
    return {
        "about": (
            "Index and mark prices (docs/pricing.md), in 1e-12 USD per whole unit; clamps and bounds in 1e-9. Integers "
            "are decimal strings. `sources` are [best bid, best ask, last, weight]; a lot is `lot` atoms of an asset "
            "with `decimals`, its quote asset has `quote_decimals`; `deviations` are those after each of `mids`."
        ),
        "index": [index_row(sources, clamp) for sources, clamp in INDICES],
        "quantum": [quantum_row(*case) for case in QUANTA],
        "deviation": [deviation_row(*case) for case in DEVIATIONS],
        "mark": [mark_row(*case) for case in MARKS],
    }


def index_row(sources: list[Quoted], clamp: int) -> dict[str, Any]:
    """Median of each source, median over them, each within ± clamp of it, weighted mean to the nearest even."""
    middles = [median(Fraction(price, UNIT) for price in quote) for *quote, _weight in sources]
    weights = [weight for *_, weight in sources]
    centre = Fraction(floor(median(middles) * UNIT), UNIT)
    least = Fraction(ceil(centre * (1 - Fraction(clamp, PARTS)) * UNIT), UNIT)
    most = Fraction(floor(centre * (1 + Fraction(clamp, PARTS)) * UNIT), UNIT)
    clamped = [max(least, min(most, middle)) for middle in middles]
    mean = sum(price * weight for price, weight in zip(clamped, weights, strict=True)) / sum(weights)
    # round() of a Fraction is half to even.
    return {
        "sources": [[str(number) for number in source] for source in sources],
        "clamp": str(clamp),
        "index": str(round(mean * UNIT)),
    }


def quantum_row(lot: int, decimals: int, quote_decimals: int, tick: int) -> dict[str, Any]:
    """The smallest power of ten, from 1e-12 USD up, at which one lot costs a whole number of quote atoms."""
    exponent = 0
    while (Fraction(lot, 10**decimals) * Fraction(10**exponent, UNIT) * 10**quote_decimals).denominator != 1:
        exponent += 1
    return {
        "lot": str(lot),
        "decimals": decimals,
        "quote_decimals": quote_decimals,
        "tick": str(tick),
        "quantum": str(10**exponent),
    }


def deviation_row(index: int, start: int, mids: list[int]) -> dict[str, Any]:
    """e += ⌊(mid − index − e) / 300⌋, in 1e-12 USD."""
    e, after = start, []
    for mid in mids:
        e += floor(Fraction(mid - index - e, 300))
        after.append(str(e))
    return {"index": str(index), "start": str(start), "mids": [str(mid) for mid in mids], "deviations": after}


def mark_row(index: int, deviation: int, bound: int, quantum: int) -> dict[str, Any]:
    """index + e within index ± bound, to the nearest even multiple of the quantum, one at least."""
    part = Fraction(bound, PARTS)
    least, most = ceil(index * (1 - part)), floor(index * (1 + part))
    inside = max(least, min(most, index + deviation))
    mark = max(1, round(Fraction(inside, quantum))) * quantum
    return {
        "index": str(index),
        "deviation": str(deviation),
        "bound": str(bound),
        "quantum": str(quantum),
        "mark": str(mark),
    }


def usd(text: str) -> int:
    price = Fraction(text) * UNIT
    assert price.denominator == 1, text
    return int(price)


def source(bid: str, ask: str, last: str, weight: int = 1) -> Quoted:
    return usd(bid), usd(ask), usd(last), weight


def some_source() -> Quoted:
    bid, ask, last = (CHANCE.randint(10**15 - 10**13, 10**15 + 10**13) for _ in range(3))
    return bid, ask, last, CHANCE.randint(1, 9)


CHANCE = Random(2_015)
TOP = 2**63 - 1
INDICES: list[tuple[list[Quoted], int]] = [
    ([source("149.99", "150.01", "150")], 3_000_000),
    ([source("149.99", "150.01", "151")], 3_000_000),
    ([source("149.99", "150.01", "3")], 3_000_000),
    ([source("150", "150", "150"), source("151", "151", "151")], 3_000_000),
    ([source("150", "150", "150", 3), source("150.1", "150.1", "150.1", 1)], 3_000_000),
    ([source("100", "100", "100"), source("100.2", "100.2", "100.2"), source("1000", "1000", "1000")], 3_000_000),
    ([source("100", "100", "100"), source("100.2", "100.2", "100.2"), source("1", "1", "1", 98)], 3_000_000),
    ([(1, 1, 1, 1), (2, 2, 2, 1)], 3_000_000),
    ([(1, 1, 1, 1), (2, 2, 2, 1)], 999_999_999),
    ([(2, 2, 2, 1), (3, 3, 3, 1)], 999_999_999),
    ([(3, 3, 3, 1), (4, 4, 4, 1), (4, 4, 4, 2), (5, 5, 5, 7)], 0),
    ([(TOP, TOP, TOP, 10**9), (TOP - 1, TOP - 1, TOP - 1, 10**9)], 3_000_000),
    *(
        ([some_source() for _ in range(number)], CHANCE.choice((0, 1_000_000, 3_000_000, 30_000_000)))
        for number in (2, 3, 4, 5, 6, 7, 8) * 3
    ),
]
QUANTA = [
    # SOL, ETH, BTC of the devnet, the minimal genesis, then corners: no decimals, many, lots that are no power of ten.
    (10**7, 9, 6, usd("0.01")),
    (10**6, 9, 6, usd("0.01")),
    (10**4, 8, 6, usd("0.1")),
    (100, 3, 2, usd("0.1")),
    (1, 0, 6, usd("0.000001")),
    (1, 0, 0, usd("1")),
    (10**18, 18, 6, usd("0.000001")),
    (1, 18, 18, usd("1")),
    (5, 0, 0, usd("1")),
    (25, 2, 0, usd("4")),
    (8, 0, 6, usd("0.000001")),
    (10**9, 0, 18, usd("0.000000001")),
]
DEVIATIONS = [
    (usd("150"), 0, [usd("153")] * 5),
    (usd("150"), 0, [usd("147")] * 5),
    (usd("150"), 0, [usd("150")] * 2),
    (usd("150"), 299, [usd("150")] * 3),
    (usd("150"), -1, [usd("150")] * 3),
    (100, 0, [399, 400, 401, 99, 1]),
    (usd("100000"), usd("-12.5"), [usd("100010.05"), usd("99990"), usd("100000"), usd("100100.000000000001")]),
    (1, 0, [TOP] * 3),
    (TOP, 0, [1] * 3),
]
MARKS = [
    *((usd("150"), usd(e), 12_500_000, 10**8) for e in ("0", "0.00005", "0.00015", "1", "-1", "9", "-9")),
    *product([usd("99999.99"), 3], [0, 1, -1, usd("1250"), usd("-1250")], [12_500_000, 1, 500_000_000], [1, 10**10]),
    (usd("0.000004"), 0, 12_500_000, 10**7),
    (usd("0.000005"), 0, 12_500_000, 10**7),
    (usd("0.000015"), 0, 12_500_000, 10**7),
    (usd("0.000025"), 0, 12_500_000, 10**7),
]


def text() -> str:
    """The file: one vector a line."""
    content = vectors()
    parts = [f' "about": {json.dumps(content["about"])}']
    for name in ("index", "quantum", "deviation", "mark"):
        lines = ",\n".join(f"  {json.dumps(row)}" for row in content[name])
        parts.append(f' "{name}": [\n{lines}\n ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(text())
