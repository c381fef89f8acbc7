"""Exact integer arithmetic on money: named roundings and the decimal strings of the wire.

An amount is an integer number of *atoms*, the smallest unit of its asset; the asset declares how many decimals
that is. There is no float and no Decimal anywhere on a path of money.   [A-3]
"""

from __future__ import annotations

INT64_MAX = 2**63 - 1
INT128_MAX = 2**127 - 1

ATOMS_SPLIT = 10**18
"""SQL keeps an amount in two 64-bit columns: `atoms_high` counts these, `atoms` the rest, both with its sign."""


def mul_div_down(a: int, b: int, divisor: int) -> int:
    """⌊a · b / divisor⌋, toward minus infinity: for credits and values.   [A-3]"""
    return a * b // divisor


def mul_div_up(a: int, b: int, divisor: int) -> int:
    """⌈a · b / divisor⌉, toward plus infinity: for requirements, charges and debts.   [A-3]"""
    return -(-a * b // divisor)


def mul_div_half_even(a: int, b: int, divisor: int) -> int:
    """a · b / divisor to the nearest integer, ties to even; `divisor` > 0. For rates and marks, never charges. [A-3]"""
    quotient, remainder = divmod(a * b, divisor)
    twice = 2 * remainder
    if twice > divisor or (twice == divisor and quotient & 1):
        quotient += 1
    return quotient


class AmountError(ValueError):
    """A decimal string that is not a number of this precision or range; says which."""


def parse_decimal(text: str, decimals: int, *, limit: int = INT64_MAX) -> int:
    """The integer `text · 10^decimals`; exact or an AmountError. Accepts `-?digits[.digits]` only.

    No exponent, sign '+', blanks, NaN or digits of other scripts: what the wire contract calls a decimal.   [W-3]
    """
    body = text[1:] if text.startswith("-") else text
    whole, point, fraction = body.partition(".")
    if not (whole.isascii() and whole.isdigit()) or (point and not (fraction.isascii() and fraction.isdigit())):
        raise AmountError(f"not a decimal number: {text[:40]!r}")
    if len(body) > 60:
        raise AmountError(f"number too long: {len(body)} characters, at most 60")
    if len(fraction) > decimals:
        if fraction[decimals:].strip("0"):
            raise AmountError(f"decimal too long: {text} has more than {decimals} decimals")
        fraction = fraction[:decimals]
    scale: int = 10 ** (decimals - len(fraction))
    value = int(whole + fraction) * scale
    if value > limit:
        raise AmountError(f"number too large: {text} exceeds {format_decimal(limit, decimals)}")
    return -value if body is not text else value


def format_decimal(value: int, decimals: int) -> str:
    """`value / 10^decimals` as an exact decimal string without trailing zeros: 1500000, 6 → "1.5".   [W-3]"""
    if decimals == 0:
        return str(value)
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), 10**decimals)
    if fraction == 0:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:0{decimals}d}".rstrip("0")


def split_atoms(atoms: int) -> tuple[int, int]:
    """(`atoms_high`, `atoms`) as SQL stores them: toward zero, so an ordinary amount reads as itself.   [A-3]

    Raises OverflowError for an amount that does not fit: an error before it is a row, never a wrap.
    """
    if -ATOMS_SPLIT < atoms < ATOMS_SPLIT:
        return 0, atoms
    high, low = divmod(abs(atoms), ATOMS_SPLIT)
    if high > INT64_MAX or abs(atoms) > INT128_MAX:
        raise OverflowError(f"amount of {atoms} atoms does not fit its columns (at most {INT128_MAX})")
    return (-high, -low) if atoms < 0 else (high, low)


def join_atoms(atoms_high: int, atoms: int) -> int:
    """The amount that `split_atoms` stored."""
    return atoms_high * ATOMS_SPLIT + atoms
