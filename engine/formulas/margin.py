"""Margin fractions, margins and the losses that orders bring: liabilities and requirements, so they round up.

USD values in 1e-8, prices in 1e-12 USD per whole unit, fractions in 1e-9; `unit` is the atoms of one whole unit.
[M-2 … M-4, M-7 … M-9, C-1]
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE
from ledger.amounts import mul_div_down, mul_div_up

ROOT_SCALE = 10**4
"""√notional is isqrt(notional in 1e-8 USD), in 1e-4.   [M-3]"""

_PRICE_IN_USD = PRICE_SCALE // USD_SCALE
_MAINTENANCE_ONE = RATE_SCALE * ROOT_SCALE
_INITIAL_ONE = 4 * _MAINTENANCE_ONE
LINE_ONE = 10**15
"""A fraction of 1 as `line_fractions` gives it: the fewest decimals in which a quarter of 1e-13 is whole."""


class Line(NamedTuple):
    """The margins of one exposure in USD (1e-8).   [M-3]"""

    initial: int
    maintenance: int


def margin_line(
    notional: int, imf_base: int, imf_factor: int, mmf_base: int, mmf_factor: int, leverage_base: int
) -> tuple[int, int]:
    """(initial, maintenance) margin of one exposure in USD (1e-8), each rounded up once.   [M-2, M-3]

    MMF = max(mmf_base, mmf_factor × √notional); IMF = max(imf_base, leverage_base, imf_factor × √notional, 1.25 × MMF).
    √notional is isqrt in 1e-4; neither factor × √ nor 1.25 × MMF is rounded. A plain tuple in `Line`'s order: it is
    made once per exposure and order.
    """
    root = isqrt(notional)
    base = imf_base if imf_base > leverage_base else leverage_base
    owed = -notional

    # The usual exposure is too small for the square roots to count. mul_div_up is written out, here and below.
    mmf, imf = mmf_factor * root, imf_factor * root
    if mmf <= mmf_base * ROOT_SCALE and imf <= base * ROOT_SCALE and 5 * mmf_base <= 4 * base:
        return -(owed * base // RATE_SCALE), -(owed * mmf_base // RATE_SCALE)

    # In 1e-13, so that factor × √ stays whole; IMF in quarters of that, since 1.25 × MMF is five of them for four.
    mmf = max(mmf, mmf_base * ROOT_SCALE)
    imf = max(4 * imf, 4 * base * ROOT_SCALE, 5 * mmf)
    return -(owed * imf // _INITIAL_ONE), -(owed * mmf // _MAINTENANCE_ONE)


def leverage_fraction(leverage: int) -> int:
    """1 / leverage, both in 1e-9, rounded up: a requirement.   [M-2]"""
    return mul_div_up(RATE_SCALE, RATE_SCALE, leverage)


def notional_usd(atoms: int, price: int, unit: int) -> int:
    """quantity × price in USD (1e-8), rounded up: what is owed or exposed. `atoms` ≥ 0.   [M-1, C-3]"""
    return -(-atoms * price // (unit * _PRICE_IN_USD))


def order_loss_usd(lots: int, lot_atoms: int, unit: int, order_price: int, mark_price: int, is_buy: bool) -> int:
    """remaining × max(0, side × (order price − mark)) in USD (1e-8), rounded up.   [M-9]

    `order_price` is price_ticks × tick_price × the quote's mark: exact, in 1e-24 USD per whole base unit
    (PRICE_SCALE²). `mark_price` is an ordinary price in 1e-12. `unit`: atoms of one whole base unit.
    """
    worse = order_price - mark_price * PRICE_SCALE
    if not is_buy:
        worse = -worse
    if worse <= 0:
        return 0
    return mul_div_up(lots * lot_atoms, worse, unit * _PRICE_IN_USD * PRICE_SCALE)


def auto_close_fraction(mmf_num: int, mmf_den: int, divisor: int = 2, offset: int = 60_000_000) -> tuple[int, int]:
    """ACMF = max(MMF / divisor, MMF − offset) of the account, exact, as (numerator, denominator).   [M-8]

    `mmf_num` / `mmf_den` is Σ maintenance margin / Σ notional with `mmf_den` > 0; `offset` in 1e-9.
    """
    reduced = mmf_num * RATE_SCALE - offset * mmf_den
    if reduced * divisor > mmf_num * RATE_SCALE:
        return reduced, mmf_den * RATE_SCALE
    return mmf_num, mmf_den * divisor


def account_fractions(
    initial_sum: int, maintenance_sum: int, notional_sum: int, leverage_base: int
) -> tuple[int, int]:
    """The account's (IMF, MMF) in 1e-9, rounded up, for display; without exposure (1 / max leverage, 0).   [M-4]"""
    if notional_sum <= 0:
        return leverage_base, 0
    imf = max(leverage_base, mul_div_up(initial_sum, RATE_SCALE, notional_sum))
    return imf, mul_div_up(maintenance_sum, RATE_SCALE, notional_sum)


def margin_fraction(net_equity: int, notional_sum: int) -> int | None:
    """MF = net equity / Σ exposure notional in 1e-9, rounded down, for display; None without exposure.   [M-4, M-7]"""
    if notional_sum <= 0:
        return None
    return mul_div_down(net_equity, RATE_SCALE, notional_sum)


def line_fractions(
    notional: int, imf_base: int, imf_factor: int, mmf_base: int, mmf_factor: int, leverage_base: int
) -> tuple[int, int]:
    """The (IMF, MMF) that `margin_line` multiplies by, exact, in 1e-15 (`LINE_ONE`), for display.   [M-2, M-3]"""
    root = isqrt(notional)
    mmf = max(mmf_factor * root, mmf_base * ROOT_SCALE)
    imf = max(4 * imf_factor * root, 4 * max(imf_base, leverage_base) * ROOT_SCALE, 5 * mmf)
    return imf * (LINE_ONE // _INITIAL_ONE), mmf * (LINE_ONE // _MAINTENANCE_ONE)
