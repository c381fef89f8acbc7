"""Writes `funding_v1.json`: P-12's and P-13's bands, P-20's rate, P-21's payment, worked on exact rationals.

Nothing of the engine is imported. `python -m tests.vectors.funding` writes the file again; a test finds out when that
would change it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import ceil, floor
from pathlib import Path
from random import Random
from typing import Any

PATH = Path(__file__).parent / "funding_v1.json"
PARTS = 10**9
"""Rates, premiums, multipliers and tolerances are in 1e-9."""
UNIT = 10**12
"""Prices are in 1e-12 of a whole unit of the quote, or in USD."""
DAY_MS = 86_400_000
Row = dict[str, Any]


def vectors() -> dict[str, list[Row]]:
    return {name: [row(*case) for case in cases] for name, (row, cases) in TABLES.items()}


def premium_row(mark: int, index: int) -> Row:
    """(mark − index) / index, to the nearest even 1e-9."""
    return {"mark": str(mark), "index": str(index), "premium": str(round(Fraction(mark - index, index) * PARTS))}


def rate_row(
    total: int, samples: int, interval_ms: int, interest: int, clamp: int, divisor: int, lower: int, upper: int
) -> Row:
    """clamp((mean + clamp(interest × hours / 24 − mean, ± c)) / divisor, lower, upper), to the nearest even 1e-9."""
    rate = Fraction(0)
    if samples:
        mean = Fraction(total, samples) / PARTS
        hours = Fraction(interval_ms, 3_600_000)
        correction = Fraction(interest, PARTS) * hours / 24 - mean
        part = Fraction(clamp, PARTS)
        rate = (mean + max(-part, min(part, correction))) / divisor
    bounded = max(lower * 10**5, min(upper * 10**5, round(rate * PARTS)))
    return {
        "total": str(total),
        "samples": samples,
        "interval_ms": interval_ms,
        "interest_rate": str(interest),
        "clamp": str(clamp),
        "divisor": divisor,
        "lower_bps": lower,
        "upper_bps": upper,
        "rate": str(bounded),
    }


def payment_row(rate: int, mark_lot: int, lots: int) -> Row:
    """What the position receives, in whole quote atoms: a charge is rounded up, a credit down."""
    owed = Fraction(rate, PARTS) * mark_lot * lots
    received = -ceil(owed) if owed > 0 else floor(-owed)
    index = Fraction(rate, PARTS) * mark_lot * 10**12
    assert index.denominator == 1
    return {
        "rate": str(rate),
        "mark_lot": str(mark_lot),
        "lots": str(lots),
        "received": str(received),
        "index_step": str(index),
    }


def mean_mark_row(marks: tuple[int, int], minimum: int, maximum: int, quote: int, tick: int) -> Row:
    """Mean mark × multiplier, in ticks of the quote asset, rounded into the band."""
    total, samples = marks
    mean = Fraction(total, samples * UNIT) / Fraction(quote, UNIT) / Fraction(tick, UNIT)
    return {
        "total": str(total),
        "samples": samples,
        "minimum": str(minimum),
        "maximum": str(maximum),
        "quote_price": str(quote),
        "tick": str(tick),
        "bounds": [str(ceil(mean * Fraction(minimum, PARTS))), str(floor(mean * Fraction(maximum, PARTS)))],
    }


def premium_band_row(index: int, premiums: tuple[int, int], tolerance: int, quote: int, tick: int) -> Row:
    """index × (1 + mean premium ± tolerance), in ticks of the quote asset, rounded into the band, from 0 on."""
    total, samples = premiums
    mean, part = Fraction(total, samples * PARTS), Fraction(tolerance, PARTS)
    ticks = Fraction(index, quote) * UNIT / tick
    least, most = ceil(ticks * (1 + mean - part)), floor(ticks * (1 + mean + part))
    return {
        "index": str(index),
        "total": str(total),
        "samples": samples,
        "tolerance": str(tolerance),
        "quote_price": str(quote),
        "tick": str(tick),
        "bounds": [str(max(0, least)), str(most)],
    }


def price(text: str) -> int:
    value = Fraction(text) * UNIT
    assert value.denominator == 1, text
    return int(value)


def part(text: str) -> int:
    value = Fraction(text) * PARTS
    assert value.denominator == 1, text
    return int(value)


CHANCE = Random(2_022)
TOP = 2**63 - 1
USUAL = (3_600_000, 300_000, 500_000, 8, -100, 100)
"""An hour, 0.03 % a day, ± 0.05 %, 8, ± 1 %."""
PREMIUMS = [
    (price("150"), price("150")),
    (price("150.15"), price("150")),
    (price("149.85"), price("150")),
    (price("100000.01"), price("99999.99")),
    (3, 2),
    (1, 3),
    (2 * 10**9 + 1, 2 * 10**9),
    (2 * 10**9 + 3, 2 * 10**9),
    (2 * 10**9 - 1, 2 * 10**9),
    (1, TOP),
    (TOP, TOP - 1),
]
RATES = [
    # p = 0: the interest of an hour, 0.00125 %, over 8.
    (0, 3_600, *USUAL),
    # p = 0.1 %: the interest is 0.05 % short of it, so 0.05 % / 8.
    (1_000_000 * 3_600, 3_600, *USUAL),
    (-1_000_000 * 3_600, 3_600, *USUAL),
    # At the edges of the clamp.
    (512_500 * 60, 60, *USUAL),
    (512_501 * 60, 60, *USUAL),
    (-487_500 * 60, 60, *USUAL),
    (-487_501 * 60, 60, *USUAL),
    # Beyond the bounds, and at them.
    (part("0.09") * 3_600, 3_600, *USUAL),
    (-part("0.09") * 3_600, 3_600, *USUAL),
    (part("0.0805") * 7, 7, *USUAL),
    (1, 3_600, 3_600_000, 0, 0, 1, -100, 100),
    (1_800, 3_600, 3_600_000, 0, 0, 1, -100, 100),
    (5_400, 3_600, 3_600_000, 0, 0, 1, -100, 100),
    (-1_800, 3_600, 3_600_000, 0, 0, 1, -100, 100),
    # Eight hours, a minute, a day; nothing sampled; no clamp; a market that only ever charges shorts.
    (0, 28_800, 28_800_000, 300_000, 500_000, 8, -100, 100),
    (0, 60, 60_000, 300_000, 500_000, 8, -100, 100),
    (1, 7, 61_000, 300_000, 500_000, 7, -100, 100),
    (10**12, 86_400, 86_400_000, 300_000, 500_000, 1, -10_000, 10_000),
    (0, 0, *USUAL),
    (TOP, 3_600, *USUAL),
    (-1_000_000 * 3_600, 3_600, 3_600_000, 300_000, 0, 8, -100, 0),
    *(
        (
            CHANCE.randint(-(10**11), 10**11),
            CHANCE.randint(1, 86_400),
            CHANCE.choice((60_000, 3_600_000, 14_400_000, 86_400_000)),
            CHANCE.randint(-(10**6), 10**6),
            CHANCE.choice((0, 1, 500_000, 10**7)),
            CHANCE.randint(1, 24),
            -CHANCE.randint(0, 500),
            CHANCE.randint(0, 500),
        )
        for _ in range(30)
    ),
]
PAYMENTS = [
    *product([62_500, -62_500, 0, 1, -10_000_000], [1_500_000, 1], [1, -1, 667, -667, 10**9, -(10**9)]),
    *(
        (CHANCE.randint(-(10**7), 10**7), CHANCE.randint(1, 10**12), CHANCE.randint(-(10**15), 10**15))
        for _ in range(20)
    ),
]
ONE, CENT = UNIT, UNIT // 100
MEANS = [
    ((price("150") * 300, 300), part("0.5"), part("1.5"), ONE, CENT),
    ((price("150") * 59 + price("151"), 60), part("0.9"), part("1.1"), ONE, CENT),
    ((price("150.0001") * 60, 60), PARTS, PARTS, ONE, CENT),
    ((price("150") * 60, 60), part("0.5"), part("1.5"), ONE // 2, CENT),
    ((price("150") * 61 + 1, 61), part("0.999999999"), part("1.000000001"), ONE, CENT),
    ((price("3000") * 60, 60), part("0.5"), part("1.5"), price("150"), ONE // 1000),
    ((7, 60), 0, 1000 * PARTS, 3, 1),
    ((TOP * 300, 300), part("0.3"), part("1.7"), ONE, 7),
]
PREMIUM_BANDS = [
    # P-13's own examples: p̄ = 3 %, t = 1 %: up to 4 %; p̄ = −3 %: down to −4 %.
    (price("100"), (part("0.03") * 300, 300), part("0.01"), ONE, CENT),
    (price("100"), (-part("0.03") * 300, 300), part("0.01"), ONE, CENT),
    (price("150"), (0, 60), part("0.1"), ONE, CENT),
    (price("150"), (59, 60), part("0.000000001"), ONE, CENT),
    (price("149.99"), (part("0.001") * 60 + 1, 60), 0, ONE, CENT),
    (price("100"), (-part("0.5") * 60, 60), part("0.9"), ONE, CENT),
    (price("100"), (part("0.03") * 60, 60), part("0.01"), ONE * 4 // 5, CENT),
    (price("3000"), (part("0.002") * 77, 77), part("0.05"), price("150"), ONE // 1000),
]
TABLES: dict[str, tuple[Callable[..., Row], list[Any]]] = {
    "premium": (premium_row, PREMIUMS),
    "rate": (rate_row, RATES),
    "payment": (payment_row, PAYMENTS),
    "mean_mark_band": (mean_mark_row, MEANS),
    "premium_band": (premium_band_row, PREMIUM_BANDS),
}
ABOUT = (
    "Funding and the bands of means (docs/pricing.md). Prices are in 1e-12; rates, premiums, multipliers and "
    "tolerances in 1e-9; integers that may be large are decimal strings. `total` ÷ `samples` is a mean; `bounds` are "
    "[lowest, highest] price in ticks; `received` is in quote atoms, `index_step` in 1e-12 of one; `mark_lot` is quote "
    "atoms per lot."
)


def text() -> str:
    """The file: one vector a line."""
    parts = [f' "about": {json.dumps(ABOUT)}']
    for name, rows in vectors().items():
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        parts.append(f' "{name}": [\n{lines}\n ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(text())
