"""Writes `lending_v1.json` and `margin_v1.json`: the money market's and margin's formulas, worked independently.

Nothing of the engine is imported. Every formula is written here as the rule book says it, on exact rationals of whole
units (a rate of 5 % is 1/20), and rounded once at the end; the exponential and the square roots are decimals of 60
digits. `python -m tests.vectors.formulas` writes the files again; a test finds out when that would change them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
DIGITS = Context(prec=60, rounding=ROUND_HALF_EVEN)
YEAR_MS = 365 * 24 * 60 * 60 * 1000
TOP = 2**63 - 1
"""The largest balance: int64."""

Row = dict[str, Any]


def lending() -> dict[str, Any]:
    """B-1 … B-4 and B-7."""
    return {
        "about": (
            "Formulas of the money market (docs/formulas.md). `in` names the arguments of a function of "
            "engine/formulas/lending.py, `out` is its result; integers are decimal strings, an exact fraction is a/b. "
            "Amounts in atoms, annual rates in 1e-18, their parameters, fees and utilizations in 1e-9, time in ms."
        ),
        "functions": {
            "utilization": rows(utilization, UTILIZATIONS),
            "borrow_rate": rows(borrow_rate, curve_points()),
            "lend_rate": rows(lend_rate, LEND_RATES),
            "accrue": rows(accrue, ACCRUALS),
            "claim_atoms": rows(claim_atoms, HOLDINGS_LENT),
            "debt_atoms": rows(debt_atoms, HOLDINGS_OWED),
            "lend_mint": rows(lend_mint, MINTS_LENT),
            "borrow_mint": rows(borrow_mint, MINTS_OWED),
            "redeem_burn": rows(redeem_burn, BURNS_LENT),
            "repay_burn": rows(repay_burn, BURNS_OWED),
            "is_at_or_over": rows(is_at_or_over, FRACTIONS_OF_POOLS),
            "is_over": rows(is_over, FRACTIONS_OF_POOLS),
            "throttle_bound": rows(throttle_bound, THROTTLES),
        },
    }


def margin() -> dict[str, Any]:
    """M-2 … M-4, M-7 … M-9, C-1, C-2."""
    return {
        "about": (
            "Formulas of margin and collateral (docs/formulas.md). `in` names the arguments of a function of "
            "engine/formulas/margin.py or collateral.py, `out` is its result; integers are decimal strings, an exact "
            "fraction is a/b. USD in 1e-8, prices in 1e-12 USD per whole unit, fractions and weights in 1e-9."
        ),
        "functions": {
            "leverage_fraction": rows(leverage_fraction, LEVERAGES),
            "notional_usd": rows(notional_usd, NOTIONALS),
            "margin_line": rows(margin_line, LINES),
            "order_loss_usd": rows(order_loss_usd, ORDERS),
            "auto_close_fraction": rows(auto_close_fraction, ACCOUNT_MMF),
            "account_fractions": rows(account_fractions, ACCOUNTS),
            "margin_fraction": rows(margin_fraction, EQUITIES),
            "weight_at": rows(weight_at, WEIGHTS),
            "value_usd": rows(value_usd, VALUES),
        },
    }


# --- units: integers of the engine into exact quantities of the world


def part(value: int) -> Fraction:
    """A fraction, weight, fee or rate parameter, given in 1e-9."""
    return Fraction(value, 10**9)


def usd(value: int) -> Fraction:
    return Fraction(value, 10**8)


def price_of(value: int) -> Fraction:
    return Fraction(value, 10**12)


def root(value: Fraction) -> Fraction:
    """√value cut to 1e-4, of a value that is whole in 1e-8: as decimals, cut to a whole number of 1e-4."""
    whole = value * 10**8
    assert whole.denominator == 1
    return Fraction(floor(Fraction(DIGITS.sqrt(Decimal(whole.numerator)))), 10**4)


# --- B: the money market


def used(borrowed: int, lent: int, fees: int) -> Fraction:
    return min(Fraction(1), Fraction(borrowed, lent + fees)) if lent + fees else Fraction(0)


def utilization(borrowed: int, lent: int, fees: int) -> Fraction:
    return used(borrowed, lent, fees)


def borrow_rate(
    borrowed: int, lent: int, fees: int, optimal: int, rate_base: int, rate_optimal: int, rate_max: int
) -> int:
    u, bend = used(borrowed, lent, fees), part(optimal)
    base, middle, top = part(rate_base), part(rate_optimal), part(rate_max)
    if u <= bend:
        rate = base + (middle - base) * u / bend if bend else middle
        return round(rate * 10**18)

    way = (u - bend) / (1 - bend)
    if not middle or middle >= top:
        return round((middle + (top - middle) * way) * 10**18)
    if way == 1:
        return int(top * 10**18)
    exponent = DIGITS.multiply(DIGITS.ln(decimal(top / middle)), decimal(way))
    scaled = DIGITS.multiply(decimal(middle * 10**18), DIGITS.exp(exponent))
    whole = int(scaled.to_integral_value(ROUND_HALF_EVEN, DIGITS))
    # Sixty digits decide: the value is nowhere near the middle between two integers.
    assert abs(abs(scaled - whole) - Decimal("0.5")) > Decimal("1e-25"), f"{scaled} is too near a tie"
    return whole


def decimal(value: Fraction) -> Decimal:
    return DIGITS.divide(Decimal(value.numerator), Decimal(value.denominator))


def lend_rate(borrow_rate: int, borrowed: int, lent: int, fees: int, fee: int) -> int:
    rate = Fraction(borrow_rate, 10**18)
    return floor(rate * used(borrowed, lent, fees) * (1 - part(fee)) * 10**18)


def accrue(borrowed: int, rate: int, elapsed_ms: int, carry: int, fee_share: int, fee_carry: int) -> list[int]:
    carried, fee_carried = Fraction(carry, 10**18 * YEAR_MS), Fraction(fee_carry, 10**9)
    exact = borrowed * Fraction(rate, 10**18) * Fraction(elapsed_ms, YEAR_MS) + carried
    interest = floor(exact)
    exact_fee = interest * part(fee_share) + fee_carried
    fee = floor(exact_fee)
    rests = (exact - interest) * 10**18 * YEAR_MS, (exact_fee - fee) * 10**9
    assert all(rest.denominator == 1 for rest in rests)
    return [interest, fee, int(rests[0]), int(rests[1])]


def claim_atoms(shares: int, lent: int, all_shares: int) -> int:
    return floor(Fraction(shares, all_shares) * lent) if all_shares else 0


def debt_atoms(shares: int, borrowed: int, all_shares: int) -> int:
    return ceil(Fraction(shares, all_shares) * borrowed) if all_shares else 0


def lend_mint(atoms: int, lent: int, all_shares: int) -> int:
    return ceil(atoms * Fraction(all_shares, lent)) if lent and all_shares else atoms * 10**9


def borrow_mint(atoms: int, borrowed: int, all_shares: int) -> int:
    return floor(atoms * Fraction(all_shares, borrowed)) if borrowed and all_shares else atoms * 10**9


def redeem_burn(atoms: int, lent: int, all_shares: int) -> int:
    return ceil(atoms * Fraction(all_shares, lent))


def repay_burn(atoms: int, borrowed: int, all_shares: int) -> int:
    return floor(atoms * Fraction(all_shares, borrowed))


def is_at_or_over(borrowed: int, lent: int, fees: int, fraction: int) -> bool:
    if not lent + fees:
        return borrowed > 0 or fraction == 0
    return Fraction(borrowed, lent + fees) >= part(fraction)


def is_over(borrowed: int, lent: int, fees: int, fraction: int) -> bool:
    if not lent + fees:
        return borrowed > 0
    return Fraction(borrowed, lent + fees) > part(fraction)


def throttle_bound(borrowed: int, lent: int, fees: int, threshold: int, fraction: int, maximum: int) -> int:
    high = max(part(threshold), Fraction(floor(used(borrowed, lent, fees) * 10**9), 10**9))
    step = Fraction(floor(part(fraction) * (part(maximum) - high) * 10**9), 10**9)
    return int(min(part(maximum), high + step) * 10**9)


# --- M and C: margin and collateral


def leverage_fraction(leverage: int) -> int:
    return ceil(1 / part(leverage) * 10**9)


def notional_usd(atoms: int, price: int, unit: int) -> int:
    return ceil(Fraction(atoms, unit) * price_of(price) * 10**8)


def margin_line(
    notional: int, imf_base: int, imf_factor: int, mmf_base: int, mmf_factor: int, leverage_base: int
) -> list[int]:
    value = usd(notional)
    mmf = max(part(mmf_base), part(mmf_factor) * root(value))
    imf = max(part(imf_base), part(leverage_base), part(imf_factor) * root(value), Fraction(5, 4) * mmf)
    return [ceil(value * imf * 10**8), ceil(value * mmf * 10**8)]


def order_loss_usd(lots: int, lot_atoms: int, unit: int, order_price: int, mark_price: int, is_buy: bool) -> int:
    side = 1 if is_buy else -1
    worse = max(Fraction(0), side * (Fraction(order_price, 10**24) - price_of(mark_price)))
    return ceil(Fraction(lots * lot_atoms, unit) * worse * 10**8)


def auto_close_fraction(mmf_num: int, mmf_den: int, divisor: int = 2, offset: int = 60_000_000) -> Fraction:
    mmf = Fraction(mmf_num, mmf_den)
    return max(mmf / divisor, mmf - part(offset))


def account_fractions(
    initial_sum: int, maintenance_sum: int, notional_sum: int, leverage_base: int
) -> list[int]:
    if not notional_sum:
        return [leverage_base, 0]
    imf = max(part(leverage_base), Fraction(initial_sum, notional_sum))
    return [ceil(imf * 10**9), ceil(Fraction(maintenance_sum, notional_sum) * 10**9)]


def margin_fraction(net_equity: int, notional_sum: int) -> int | None:
    return floor(Fraction(net_equity, notional_sum) * 10**9) if notional_sum else None


def weight_at(atoms: int, unit: int, weight: int, base: int, penalty: int) -> int:
    tokens = Fraction(floor(Fraction(atoms, unit) * 10**8), 10**8)
    return floor(min(part(weight), part(base) / (1 + part(penalty) * root(tokens))) * 10**9)


def value_usd(atoms: int, unit: int, price: int, weight: int) -> int:
    return floor(Fraction(atoms, unit) * price_of(price) * part(weight) * 10**8)


# --- the cases


def cases(names: str, *values: tuple[int | bool, ...]) -> list[Row]:
    keys = names.split()
    assert all(len(row) == len(keys) for row in values), names
    return [dict(zip(keys, row, strict=True)) for row in values]


POOLS = (
    (0, 0, 0), (0, 10**6, 0), (1, 3, 0), (2, 3, 0), (2, 2, 1), (3, 3, 0), (5, 3, 1),
    (799_999_999, 10**9, 0), (800_000_000, 10**9, 0), (800_000_001, 10**9, 0), (8 * 10**8, 10**9 - 7, 7),
    (919_999_999, 10**9, 0), (920_000_000, 10**9, 0), (920_000_001, 10**9, 0), (999_999_999, 10**9, 0),
    (10**9, 10**9, 0), (TOP // 2, TOP, TOP // 3), (TOP - 1, TOP, 0), (TOP, TOP, 0), (TOP, TOP, 1),
)
UTILIZATIONS = cases("borrowed lent fees", *POOLS, (7, 0, 0), (7, 0, 8))

USDC = (800_000_000, 0, 50_000_000, 1_000_000_000)
"""U* 80 %: 0, 5 %, 100 %."""
CURVES = (
    USDC,
    (850_000_000, 10_000_000, 60_000_000, 1_500_000_000),
    (500_000_000, 5_000_000, 5_000_001, 100_000_000_000),  # up to 100 × a year
    (1, 1, 1, 100_000_000_000),
    (999_999_999, 0, 1, 2),
    (800_000_000, 0, 250_000_000, 1_000_000_000),  # a ratio of 4: half the way is exactly twice the rate
    (800_000_000, 0, 0, 1_000_000_000),  # no exponential from 0
    (800_000_000, 30_000_000, 70_000_000, 70_000_000),  # flat above
    (0, 0, 40_000_000, 900_000_000),  # exponential from the start
    (1_000_000_000, 0, 400_000_000, 900_000_000),  # linear to the end
)
CURVE_POOLS = (
    (0, 0, 0), (0, 10**9, 0), (1, 10**9, 0), (1, 3, 0), (400_000_000, 10**9, 0), (500_000_001, 10**9, 0),
    (799_999_999, 10**9, 0), (800_000_000, 10**9, 0), (800_000_001, 10**9, 0), (6, 7, 0), (900_000_000, 10**9, 0),
    (9, 9, 1), (950_000_000, 10**9, 10**7), (999_999_999, 10**9, 0), (10**9, 10**9, 0), (10**9 + 1, 10**9, 0),
    (TOP - 1, TOP, 0), (TOP // 10 * 9, TOP - 12345, 999), (TOP, TOP, 0),
)


def curve_points() -> list[Row]:
    names = "borrowed lent fees optimal rate_base rate_optimal rate_max"
    return cases(names, *((*pool, *curve) for curve in CURVES for pool in CURVE_POOLS))


LEND_RATES = cases(
    "borrow_rate borrowed lent fees fee",
    *((rate, *pool, fee) for pool in ((0, 0, 0), (1, 3, 0), (2, 2, 1), (3, 3, 0), (TOP - 1, TOP, 5))
      for rate in (0, 1, 50 * 10**15 + 1, 100 * 10**18) for fee in (0, 100_000_000, 333_333_333, 10**9)),
)

YEAR_ONE = 10**18 * YEAR_MS
ACCRUALS = cases(
    "borrowed rate elapsed_ms carry fee_share fee_carry",
    (0, 10**17, 3_600_000, 0, 10**8, 0),
    (8_760_000_000, 10**18, 3_600_000, 0, 10**8, 0),  # an hour at 100 %: exactly a millionth of the year
    (8760, 10**18, 3_600_000, 0, 10**8, 900_000_000),  # one atom, and the fee's carry fills up
    (8760, 10**18, 3_599_999, 0, 10**8, 0),  # a millisecond short of an atom
    (8760, 10**18, 1, 3_599_999 * 8760 * 10**18, 10**8, 0),  # and its carry brings it
    (1, 1, 1, YEAR_ONE - 1, 10**8, 0),  # the last unit of the carry
    (1, 1, 1, YEAR_ONE - 2, 10**8, 0),
    (TOP, 100 * 10**18, YEAR_MS, YEAR_ONE - 1, 999_999_999, 999_999_999),  # 100 × for a year
    (TOP, 52_345_678_901_234_567, 10_000, 123_456_789, 150_000_000, 5),
    (10**15, 51_234_567_890_123_456, 1, 0, 150_000_000, 0),
    (10**15, 51_234_567_890_123_456, 0, 77, 150_000_000, 88),  # no time, no change
    (10**12, 0, 3_600_000, 77, 10**8, 88),  # no rate, no change
)

SHARES = 2**93 - 1
HOLDINGS_LENT = cases(
    "shares lent all_shares", (0, 0, 0), (0, 5, 10**9), (10**9, 1, 10**9), (10**9 - 1, 1, 10**9), (1, 10**9, 10**18),
    (333_333_333, 10, 10**9), (666_666_667, 10, 10**9), (SHARES, TOP, SHARES), (SHARES - 1, TOP, SHARES),
    (SHARES // 3, TOP, SHARES), (1, TOP, SHARES), (2**92, 2**62 + 1, SHARES),
)
HOLDINGS_OWED = cases(
    "shares borrowed all_shares", (0, 0, 0), (0, 5, 10**9), (1, 0, 10**9), (10**9, 1, 10**9), (10**9 - 1, 1, 10**9),
    (1, 10**9, 10**18), (333_333_333, 10, 10**9), (1, TOP, SHARES), (SHARES, TOP, SHARES), (SHARES // 3, TOP, SHARES),
    (2**92, 2**62 + 1, SHARES),
)
MINTS = (
    (1, 0, 0), (TOP, 0, 0), (5, 0, 7), (1, 3, 3 * 10**9), (1, 3, 3 * 10**9 - 1), (1, 7, 5 * 10**9),
    (2, 3, 2 * 10**9 + 1), (10**6, 10**12 + 1, 10**21), (1, TOP, SHARES), (TOP, TOP, SHARES),
    (TOP // 3, TOP - 2, SHARES),
)
MINTS_LENT = cases("atoms lent all_shares", *MINTS)
MINTS_OWED = cases("atoms borrowed all_shares", *MINTS)
BURNS_LENT = cases("atoms lent all_shares", *MINTS[3:])
BURNS_OWED = cases("atoms borrowed all_shares", *MINTS[3:])

FRACTIONS_OF_POOLS = cases(
    "borrowed lent fees fraction",
    *((*pool, fraction) for pool in (*POOLS, (1, 0, 0)) for fraction in (0, 920_000_000, 10**9)),
    (1, 3, 0, 333_333_333), (1, 3, 0, 333_333_334), (TOP - 1, TOP, 0, 999_999_999),
)
THROTTLES = cases(
    "borrowed lent fees threshold fraction maximum",
    *((*pool, 920_000_000, 100_000_000, 10**9) for pool in POOLS),
    *((*pool, 920_000_000, 333_333_333, 950_000_000) for pool in POOLS),
    (0, 0, 0, 920_000_001, 10**9, 10**9), (0, 0, 0, 920_000_001, 0, 10**9), (1, 1, 0, 920_000_000, 10**8, 950_000_000),
)

LEVERAGES = cases("leverage", *((n * 10**9,) for n in (1, 2, 3, 5, 7, 10, 20, 50)), (2_500_000_000,), (1_000_000_001,))

NOTIONALS = cases(
    "atoms price unit", (0, 10**12, 10**6), (1, 10**12, 10**6), (1, 1, 10**9), (10**9, 150 * 10**12 + 1, 10**9),
    (10**9, 10**4, 10**9), (10**9, 10**4 + 1, 10**9), (123_456_789, 65_432 * 10**12, 10**8), (TOP, 10**17, 10**6),
)

PERPETUAL = (50_000_000, 20_000, 25_000_000, 12_000)
ASSET = (100_000_000, 30_000, 50_000_000, 24_000)
LINES = cases(
    "notional imf_base imf_factor mmf_base mmf_factor leverage_base",
    *((notional, *curve, leverage)
      for curve in (PERPETUAL, ASSET) for leverage in (20_000_000, 100_000_000, 10**9)
      for notional in (0, 1, 2, 99, 10**8, 10**12 + 1, 433_402_777_777_777, 625_000_000_000_000,
                       625_000_000_000_001, 9_999_999_999_999_999, 3 * 10**17 + 7, TOP)),
    (10**10, 62_500_000, 0, 50_000_000, 0, 0),  # base IMF exactly 1.25 × base MMF
    (10**10, 62_499_999, 0, 50_000_000, 0, 0),  # below: 1.25 × MMF counts
    (10**10 + 1, 0, 0, 50_000_001, 0, 0),  # 1.25 × MMF is not whole in 1e-9
    (10**16, 0, 12, 0, 10, 0),
    (10**16 + 1, 0, 13, 0, 10, 0),
)

SOL = (10**7, 10**9)
ORDERS = cases(
    "lots lot_atoms unit order_price mark_price is_buy",
    *((lots, *SOL, price, 150 * 10**12, is_buy) for lots in (1, 7, 10**9) for is_buy in (True, False)
      for price in (150 * 10**24, 150 * 10**24 + 1, 150 * 10**24 - 1, 151 * 10**24, 14_999 * 10**22)),
    (3, *SOL, 149_990_000_000_000 * 999_812_345_678, 150 * 10**12, False),
    (0, *SOL, 151 * 10**24, 150 * 10**12, True),
)

ACCOUNT_MMF = cases(
    "mmf_num mmf_den divisor offset",
    *((num, den, 2, 60_000_000) for num, den in (
        (0, 1), (1, 20), (119_999_999, 10**9), (120_000_000, 10**9), (120_000_001, 10**9), (1, 2), (1, 3), (TOP, TOP),
        (TOP // 9, TOP))),
    (1, 10, 3, 60_000_000), (1, 10, 1, 0), (1, 10, 2, 0),
)
ACCOUNTS = cases(
    "initial_sum maintenance_sum notional_sum leverage_base",
    (0, 0, 0, 100_000_000), (10, 5, 100, 100_000_000), (1, 1, 3, 100_000_000), (1, 1, 30, 20_000_000),
    (TOP, TOP // 2, TOP, 10**9), (7, 5, 10**12, 20_000_000), (0, 0, 5, 20_000_000),
)
EQUITIES = cases("net_equity notional_sum", (5, 0), (0, 0), (1, 3), (-1, 3), (0, 7), (TOP, 1), (-TOP, TOP - 1), (3, 3))

WEIGHTS = cases(
    "atoms unit weight base penalty",
    *((atoms, unit, 900_000_000, 1_100_000_000, penalty)
      for unit in (10**6, 10**9, 10**8) for penalty in (0, 1, 300_000, 10**9)
      for atoms in (0, 1, 10**9, 123_456_789_012_345, TOP)),
    (10**9 * 10**6, 10**9, 962_500_000, 10**9, 50_000),
)
VALUES = cases(
    "atoms unit price weight", (0, 10**9, 10**14, 10**9), (1, 10**9, 150 * 10**12, 10**9), (1, 10**9, 1, 10**9),
    (10**9, 10**9, 150 * 10**12, 900_000_000), (10**9, 10**9, 10**4, 999_999_999), (10**9, 10**9, 10**4, 10**9),
    (100 * 10**6, 10**6, 10**12, 962_500_000), (TOP, 10**6, 10**17, 999_999_999),
    (123_456_789, 10**8, 65_432 * 10**12, 0),
)


# --- the files


def rows(function: Callable[..., Any], arguments: Iterable[Row]) -> list[Row]:
    return [{"in": {name: written(value) for name, value in row.items()}, "out": written(function(**row))}
            for row in arguments]


def written(value: Any) -> Any:
    """Integers as decimal strings, for they pass 53 bits; an exact fraction as a/b."""
    match value:
        case bool() | None:
            return value
        case int():
            return str(value)
        case Fraction():
            return f"{value.numerator}/{value.denominator}"
        case list():
            return [written(item) for item in value]
    raise TypeError(f"no vector holds a {type(value).__name__}: {value!r}")


def text(document: dict[str, Any]) -> str:
    """One line per row, so that a difference names its case."""
    functions = []
    for name, table in document["functions"].items():
        lines = ",\n".join(f"   {json.dumps(row)}" for row in table)
        functions.append(f"  {json.dumps(name)}: [\n{lines}\n  ]")
    return f'{{\n "about": {json.dumps(document["about"])},\n "functions": {{\n' + ",\n".join(functions) + "\n }\n}\n"


FILES = {"lending_v1.json": lending, "margin_v1.json": margin}

if __name__ == "__main__":
    for file_name, document in FILES.items():
        (FOLDER / file_name).write_text(text(document()))
