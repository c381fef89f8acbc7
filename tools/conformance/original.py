"""What the original does and Satchel does not: reproduced, to prove that a difference is that and nothing else. [X-15]

Nothing here is used outside of the conformance runner.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

from engine.formulas.pools import dec_mul, value_at
from engine.parameters import DEC
from tools.conformance.vectors import shown

DEC_BITS = 315
"""What its `Dec` holds, 18 decimals included; more panics."""
UINT_MAX = 2**256 - 1
"""What its amounts hold; more, or less than 0, panics."""
SURCHARGE_TOLERANCE = DEC // 10**12
"""How exactly a float power is known on another platform."""


def float_rate(rate: int) -> Fraction:
    """A rate after it went through a float64: 0.3 becomes 0.29999…"""
    return Fraction(float(shown(rate)))


def interest_due(
    rate: Fraction, liabilities: int, unpaid: int, position_in_epoch: int = 0, epoch_length: int = 1
) -> int:
    """X-9's due in rationals: of `float_rate` the original's, of the rate itself the exact one."""
    due = rate * (liabilities + unpaid)
    if position_in_epoch > 0:
        due = due * position_in_epoch / epoch_length
    whole = int(due) + unpaid
    return 1 if not whole and rate else whole


def minimum_interest(rate_min: Fraction, liabilities: int) -> int:
    """The lowest charge of an epoch in rationals."""
    return int(rate_min * liabilities)


def surcharges(rate_max: int, rate: int, blocks: int) -> list[int]:
    """rate_max·(1 − e^(−rate·blocks)) as the original may have got it, a Dec; the likeliest first.

    The power is a float, printed and read again: more than 18 decimals, or an exponent, cannot be read and count as
    0. How many decimals a float prints hangs on its last bit, and that on the platform: so its neighbours are here too.
    """
    power = math.pow(math.e, -float(Fraction(rate * blocks, DEC)))
    near = [power]
    below = above = power
    for _ in range(2):
        below, above = math.nextafter(below, 0.0), math.nextafter(above, 2.0)
        near += [below, above]
    return [dec_mul(rate_max, DEC - _reread(each)) for each in near]


def is_surcharge(extra: int, rate_max: int, rate: int, blocks: int) -> bool:
    """Whether `extra` is the surcharge, as far as a float can be known."""
    return any(abs(extra - each) <= SURCHARGE_TOLERANCE for each in surcharges(rate_max, rate, blocks))


def surcharge_begins(before: int, health: int, threshold: int, height: int) -> int:
    """The block since which the pool's health is at or below the removal threshold; 0: it is not."""
    if health > threshold:
        return 0
    return before or height


def _reread(power: float) -> int:
    text = repr(power)
    whole, _, fraction = text.partition(".")
    if "e" in text or len(fraction) > 18:
        return 0
    return int(whole) * DEC + int(fraction.ljust(18, "0"))


class Protection(NamedTuple):
    """Its limit on what may be sold of the native asset, in the atoms of some asset; ours has none."""

    left: int
    most: int

    def sold(self, atoms: int, fee: int, price: int) -> Protection | None:
        """After a sale at `price` (a Dec): less what was sold without its fee; None when it is more than is left."""
        if value_at(atoms, price) > self.left:
            return None
        return self._replace(left=self.left - value_at(atoms - fee, price))

    def bought(self, atoms: int, price: int) -> Protection:
        """After somebody bought native atoms."""
        return self._replace(left=min(self.left + value_at(atoms, price), self.most))
