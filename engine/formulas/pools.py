"""The pools' arithmetic: swaps, LP units, withdrawals, health, the interest rate, what a position owes.

Amounts are whole atoms of any size. A `Dec` is an integer in 1e-18 (`DEC`): fees, rates, leverage, health, prices. A
depth is a side's balance plus what traders owe it; custody is no part of it.   [X-1 … X-10]
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

from engine.parameters import DEC
from ledger.amounts import mul_div_down, mul_div_half_even, mul_div_up

BASIS_POINTS = 10_000

NO_SWAP = 0
SELL_NATIVE = 1
BUY_NATIVE = 2


class Swapped(NamedTuple):
    """What a swap pays out and the fee that stays in the pool, both atoms of the out asset.   [X-1]"""

    received: int
    fee: int


class Units(NamedTuple):
    """LP units for an addition, all units after it, and the virtual swap that made it symmetric.   [X-3]"""

    minted: int
    total: int
    swap: int
    """NO_SWAP, SELL_NATIVE or BUY_NATIVE."""
    swapped: int
    """Atoms of the surplus asset that were swapped."""


class Withdrawal(NamedTuple):
    """What leaves a pool with an LP's units, and the units left to the LP.   [X-4]"""

    native: int
    external: int
    units_left: int
    swapped: int
    """Atoms that an asymmetric withdrawal swaps afterwards; 0 for a symmetric one."""


class Loan(NamedTuple):
    """A long's size in the collateral asset: what is quoted into custody and what is owed for it.   [X-5]"""

    size: int
    liabilities: int


class Repayment(NamedTuple):
    """How the proceeds of a close are used: the trader's remainder, and what lenders lack.   [X-10]"""

    returned: int
    principal_missing: int
    interest_missing: int


def swap(
    in_depth: int, out_depth: int, amount_in: int, fee_rate: int, running_rate: int = 0, output_is_native: bool = False
) -> Swapped:
    """⌊adj⌋ − ⌊adj · fee_rate⌋ and that fee, both rounded down from the exact adj; 0 and 0 for an empty side.   [X-1]

    adj = x·Y/(X + x), divided by 1 + running_rate when the output is native, else multiplied by it. The trader gets
    within one atom of the exact amount, and dust pays no fee. 0 ≤ fee_rate ≤ 1.
    """
    if not in_depth or not out_depth or not amount_in:
        return Swapped(0, 0)
    if not running_rate:
        numerator, denominator = amount_in * out_depth, in_depth + amount_in
    elif output_is_native:
        numerator = amount_in * out_depth * DEC
        denominator = (in_depth + amount_in) * (DEC + running_rate)
    else:
        numerator = amount_in * out_depth * (DEC + running_rate)
        denominator = (in_depth + amount_in) * DEC
    fee = numerator * fee_rate // (denominator * DEC)
    return Swapped(numerator // denominator - fee, fee)


def input_for(
    in_depth: int, out_depth: int, wanted: int, fee_rate: int, running_rate: int = 0, output_is_native: bool = False
) -> int | None:
    """The smallest input whose swap pays `wanted` or more; None when no input does.   [X-1]

    Solved, not searched: k whole atoms before the fee pay ⌈k·(1 − fee_rate)⌉ at best, and the smallest input with
    adj ≥ k is rounded up. What a swap pays may fall by one atom while the input grows (the fee steps before the amount
    does), so an input that misses is answered by the next k.
    """
    if wanted <= 0:
        return 0
    if not in_depth or not out_depth or fee_rate >= DEC:
        return None
    up, down = DEC + running_rate, DEC
    if output_is_native:
        up, down = down, up
    before_fee = (wanted - 1) * DEC // (DEC - fee_rate) + 1
    while True:
        left = out_depth * up - before_fee * down
        if left <= 0:
            return None
        amount_in = mul_div_up(before_fee * down, in_depth, left)
        if swap(in_depth, out_depth, amount_in, fee_rate, running_rate, output_is_native).received >= wanted:
            return amount_in
        before_fee = amount_in * out_depth * up // ((in_depth + amount_in) * down) + 1


def units_for(
    pool_units: int,
    native_depth: int,
    external_depth: int,
    native_added: int,
    external_added: int,
    sell_native_fee: int,
    buy_native_fee: int,
    running_rate: int = 0,
) -> Units | None:
    """LP units for an addition, rounded down; None when an empty side is given only one asset.   [X-3]

    In the pool's ratio: ⌊r·P/R⌋. Else s of the surplus asset is swapped virtually (at `sell_native_fee` when that is
    native, at `buy_native_fee` when it is external) and the units are ⌊(surplus − s)·P/(its depth + s)⌋. Into a pool
    with an empty side the native amount *is* the units, and all units: whatever there was is worth nothing.
    """
    if not native_depth or not external_depth:
        if not native_added or not external_added:
            return None
        return Units(native_added, native_added, NO_SWAP, 0)

    if not native_added and not external_added:
        return Units(0, pool_units, NO_SWAP, 0)

    native_side, external_side = native_added * external_depth, external_added * native_depth
    if native_side == external_side:
        minted = mul_div_down(native_added, pool_units, native_depth)
        return Units(minted, pool_units + minted, NO_SWAP, 0)

    if native_side > external_side:
        numerator, denominator = native_to_sell(
            native_depth, external_depth, native_added, external_added, sell_native_fee, running_rate
        )
        swapped = numerator // denominator
        minted = mul_div_down(native_added - swapped, pool_units, native_depth + swapped)
        return Units(minted, pool_units + minted, SELL_NATIVE, swapped)

    numerator, denominator = external_to_sell(
        native_depth, external_depth, native_added, external_added, buy_native_fee, running_rate
    )
    swapped = numerator // denominator
    minted = mul_div_down(external_added - swapped, pool_units, external_depth + swapped)
    return Units(minted, pool_units + minted, BUY_NATIVE, swapped)


def external_to_sell(
    native_depth: int,
    external_depth: int,
    native_added: int,
    external_added: int,
    fee_rate: int,
    running_rate: int,
    one: int = DEC,
) -> tuple[int, int]:
    """How much of an external surplus to swap so that the rest is in ratio, as (numerator, denominator) ≥ 0.   [X-3]

    The root of a quadratic; its radicand and the square root of that are rounded down, nothing else is. With f and p
    the two rates (in 1/`one`), R and A the depths (not 0), r and a what is added:
    |√(R(a + A)·(4(1−f)(1+p)rA + (2+p−f)²AR + (f+p)²aR)) + (f+p)aR − (2+p−f)AR − 2(1+p)rA| / (2(1+p)(r+R)).
    """
    native_side, external_side = native_added * external_depth, external_added * native_depth
    product = native_depth * external_depth
    both, apart, grown = fee_rate + running_rate, 2 * one + running_rate - fee_rate, one + running_rate
    bracket = 4 * (one - fee_rate) * grown * native_side + apart * apart * product + both * both * external_side
    root = isqrt(mul_div_down(native_depth * (external_added + external_depth), bracket, one * one))
    rest = both * external_side - apart * product - 2 * grown * native_side
    return abs(root * one + rest), 2 * grown * (native_added + native_depth)


def native_to_sell(
    native_depth: int,
    external_depth: int,
    native_added: int,
    external_added: int,
    fee_rate: int,
    running_rate: int,
    one: int = DEC,
) -> tuple[int, int]:
    """How much of a native surplus to swap so that the rest is in ratio, as (numerator, denominator) ≥ 0.   [X-3]

    Rounded like `external_to_sell`, in its letters: with w = (r + R)·A·(p − f − fp) + 2(a + A)·R it is
    |√(w² + 4(a + A)·R·(rA − aR)) − w| / (2(a + A)).
    """
    square = one * one
    whole = external_added + external_depth
    rates = running_rate * one - fee_rate * one - fee_rate * running_rate
    w = (native_added + native_depth) * external_depth * rates + 2 * whole * native_depth * square
    surplus = native_added * external_depth - external_added * native_depth
    root = isqrt(w * w // (square * square) + 4 * whole * native_depth * surplus)
    return abs(root * square - w), 2 * whole * square


def withdrawal_by_basis_points(
    pool_units: int,
    native_depth: int,
    external_depth: int,
    lp_units: int,
    basis_points: int,
    asymmetry: int = 0,
) -> Withdrawal | None:
    """`basis_points` of an LP's units, of depths that include liabilities; None for none or more than all.   [X-4]

    Dec quotients, nested so: claim = lp / (10000 / w), native = native_depth / (units / claim), each half-even in 1e-18
    and cut to whole atoms at the end; so is what is left. `asymmetry` in basis points of the claim, which only
    conformance uses: more than 0 names native to swap afterwards, less than 0 external.
    """
    if not 0 < basis_points <= BASIS_POINTS or abs(asymmetry) > BASIS_POINTS or not pool_units or not lp_units:
        return None
    claim = dec_quo(lp_units * DEC, dec_quo(BASIS_POINTS * DEC, basis_points * DEC))
    if not claim or claim > lp_units * DEC:
        return None
    native, external = _part(native_depth, pool_units, claim), _part(external_depth, pool_units, claim)
    if native is None or external is None:
        return None
    swapped = 0
    if asymmetry:
        to_swap = dec_quo(claim, dec_quo(BASIS_POINTS * DEC, abs(asymmetry) * DEC))
        part = _part(native_depth if asymmetry > 0 else external_depth, pool_units, to_swap) if to_swap else 0
        if part is None:
            return None
        swapped = dec_truncate(part)
    return Withdrawal(dec_truncate(native), dec_truncate(external), dec_truncate(lp_units * DEC - claim), swapped)


def withdrawal_by_units(
    pool_units: int, native_depth: int, external_depth: int, lp_units: int, units: int
) -> Withdrawal | None:
    """`units` of an LP's, of depths that include liabilities; None when there is nothing to divide.   [X-4]

    native = native_depth / (pool_units / units) in Dec quotients, to the nearest atom, ties to even.
    """
    if units <= 0 or not pool_units or units > lp_units:
        return None
    native, external = _part(native_depth, pool_units, units * DEC), _part(external_depth, pool_units, units * DEC)
    if native is None or external is None:
        return None
    return Withdrawal(dec_round(native), dec_round(external), lp_units - units, 0)


def loan_for(collateral: int, leverage: int) -> Loan:
    """⌊c·l⌋ to quote into custody and ⌊c·(l − 1)⌋ owed, both rounded down; leverage a Dec of 1 at least.   [X-5]"""
    return Loan(mul_div_down(collateral, leverage, DEC), mul_div_down(collateral, leverage - DEC, DEC))


def minimum_interest(rate_min: int, liabilities: int) -> int:
    """What an epoch at the lowest rate charges, rounded down: with 0, or a quote of 0, there is too little to lend."""
    return mul_div_down(rate_min, liabilities, DEC)


def position_health(custody_quote: int, liabilities: int, unpaid: int) -> int:
    """quote(custody → collateral asset) / (liabilities + unpaid interest), a Dec, half-even; 0 if none owed.   [X-6]"""
    if not liabilities:
        return 0
    return dec_quo(custody_quote * DEC, (liabilities + unpaid) * DEC)


def pool_health(native_balance: int, external_balance: int, native_liabilities: int, external_liabilities: int) -> int:
    """[E/(E + E_liab)]·[N/(N + N_liab)], a Dec, half-even at each of the three steps; 0 if a side is 0/0.   [X-7]"""
    external, native = external_balance + external_liabilities, native_balance + native_liabilities
    if not external or not native:
        return 0
    return dec_mul(dec_quo(external_balance * DEC, external * DEC), dec_quo(native_balance * DEC, native * DEC))


def next_rate(
    gain_factor: int,
    native_balance: int,
    external_balance: int,
    native_liabilities: int,
    external_liabilities: int,
    previous: int,
    step_up: int,
    step_down: int,
    rate_min: int,
    rate_max: int,
) -> int | None:
    """The next epoch's rate, a Dec: toward gain/H by one step at most, then held in its bounds.   [X-8]

    Target, half-even at every step: gain·(E + E_liab)/E·(N + N_liab)/N. None when a balance is 0: a pool that has lent
    one side out whole has no target, and its rate is the engine's matter.
    """
    if not native_balance or not external_balance:
        return None
    external = dec_quo((external_balance + external_liabilities) * DEC, external_balance * DEC)
    native = dec_quo((native_balance + native_liabilities) * DEC, native_balance * DEC)
    target = dec_mul(dec_mul(gain_factor, external), native)
    rate = min(max(target, previous - step_down), previous + step_up)
    # The lower bound is asked first: it decides for bounds that cross.
    return rate_min if rate < rate_min else min(rate, rate_max)


def interest_due(rate: int, liabilities: int, unpaid: int, position_in_epoch: int = 0, epoch_length: int = 1) -> int:
    """⌊rate·(liabilities + unpaid)⌋ + unpaid: all that is owed beside the principal, unpaid counted once.   [X-9]

    At least 1 when the rate is not zero; rounded down, exactly. `position_in_epoch` of `epoch_length` charges that part
    of an epoch (a close between two); 0 is a whole epoch.
    """
    part, whole = (position_in_epoch, epoch_length) if position_in_epoch else (1, 1)
    due = mul_div_down(rate * part, liabilities + unpaid, DEC * whole) + unpaid
    return 1 if not due and rate else due


def repayment(proceeds: int, liabilities: int, unpaid: int) -> Repayment:
    """Principal first, then unpaid interest; the rest is the trader's, exact.   [X-10]"""
    if proceeds < liabilities:
        return Repayment(0, liabilities - proceeds, unpaid)
    if proceeds < liabilities + unpaid:
        return Repayment(0, 0, liabilities + unpaid - proceeds)
    return Repayment(proceeds - liabilities - unpaid, 0, 0)


def fund_share(atoms: int, share: int) -> int:
    """The fund's part of an interest payment or of what a forced close leaves, rounded down.   [X-9, X-11]"""
    return mul_div_down(atoms, share, DEC)


def spot_price(
    depth: int, other_depth: int, decimals: int, other_decimals: int, running_rate: int = 0, is_native: bool = True
) -> int | None:
    """Price of one whole token in the other, a Dec rounded down; None for an empty side.   [X-1]

    (other/depth)·10^(decimals − other_decimals), times 1 + running_rate when the token priced is native, else divided
    by it. Depths include liabilities; no fee and no slippage is in it.
    """
    if not depth:
        return None
    numerator, denominator = other_depth * DEC, depth
    if is_native:
        numerator, denominator = numerator * (DEC + running_rate), denominator * DEC
    else:
        numerator, denominator = numerator * DEC, denominator * (DEC + running_rate)
    if decimals >= other_decimals:
        numerator *= _ten_to(decimals - other_decimals)
    else:
        denominator *= _ten_to(other_decimals - decimals)
    return numerator // denominator


def value_at(atoms: int, price: int) -> int:
    """price·amount to the nearest atom, ties to even: for showing, never for charging."""
    return mul_div_half_even(atoms, price, DEC)


def dec_mul(a: int, b: int) -> int:
    """a·b / 1e18, half-even; a, b ≥ 0."""
    return mul_div_half_even(a, b, DEC)


def dec_quo(a: int, b: int) -> int:
    """a / b as a Dec: ⌊a·1e36 / b⌋, then that / 1e18 half-even (twice rounded, as X-15's vectors are); b > 0."""
    return mul_div_half_even(a * DEC * DEC // b, 1, DEC)


def dec_truncate(a: int) -> int:
    """Whole part of a Dec ≥ 0, rounded down."""
    return a // DEC


def dec_round(a: int) -> int:
    """A Dec to the nearest integer, ties to even."""
    return mul_div_half_even(a, 1, DEC)


def _part(depth: int, pool_units: int, claim: int) -> int | None:
    """depth / (units / claim), a Dec; None when the claim is so much more than all units that the quotient is 0."""
    ratio = dec_quo(pool_units * DEC, claim)
    return dec_quo(depth * DEC, ratio) if ratio else None


def _ten_to(exponent: int) -> int:
    power: int = 10**exponent
    return power
