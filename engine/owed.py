"""USDC that a subaccount owes (a fee, a loss, funding): where it is found, in which order.   [S-12]

What is available first, then what is lent, then a loan. The tick and liquidation go on from there: claims, shares that
pass at par, conversions.
"""

from __future__ import annotations

from typing import NamedTuple

from engine import lending
from engine.events import LendingSource, Outcome
from engine.formulas.lending import is_at_or_over
from engine.parameters import RATE_SCALE, LendingState
from engine.state import State, Subaccount
from ledger.amounts import mul_div_down

_SETTLES = LendingSource.RECONCILIATION


class Found(NamedTuple):
    """Where USDC that is owed comes from, in atoms: what is missing is found nowhere."""

    available: int
    redeemed: int
    borrowed: int
    missing: int


def plan(state: State, subaccount: Subaccount, at_us: int, atoms: int) -> Found:
    """Steps (1) to (3) for `atoms`.   [S-12]

    Redemptions pass while anything is idle, whatever the throttle says; a loan ignores margin and limits, but neither
    the throttle nor idle, and is taken only with autoBorrowSettlements.   [B-7]
    """
    usdc = state.usdc
    free = max(0, state.free(subaccount.subaccount_id, usdc))
    if free >= atoms:
        return Found(atoms, 0, 0, 0)
    missing = atoms - free
    pool = state.pools.get(usdc)
    if pool is None:
        return Found(free, 0, 0, missing)
    idle = max(0, lending.totals(state, pool, at_us).idle)
    redeemed = 0
    if usdc in subaccount.lent:
        redeemed = lending.redemption(state, subaccount, usdc, at_us, missing)
        if redeemed > idle:
            redeemed = idle if idle < missing else 0
            redeemed = min(redeemed, lending.redemption(state, subaccount, usdc, at_us, redeemed)) if redeemed else 0
    missing = max(0, missing - redeemed)
    borrowed = 0
    # A loan stands beside no claim on the same pool.   [B-9]
    is_redeemed = redeemed > 0 and redeemed == lending.claim(state, subaccount, usdc, at_us)
    if missing and (usdc not in subaccount.lent or is_redeemed) and may_borrow(state, subaccount):
        borrowed = min(missing, borrow_room(state, at_us, redeemed))
    return Found(free, redeemed, borrowed, missing - borrowed)


def may_borrow(state: State, subaccount: Subaccount) -> bool:
    """Whether step (3) is open to it: by its setting, and never in liquidation, where step (4) comes instead.   [S-12]

    A loan to who cannot repay it would make the market's loss one of USDC's lenders.   [L-9]
    """
    return subaccount.auto_borrow_settlements and subaccount.subaccount_id not in state.liquidations


def take(state: State, outcome: Outcome, into: lending.Movements, subaccount: Subaccount, found: Found) -> None:
    """Make the planned USDC available: redeem and borrow; the caller posts it with what it pays.   [S-12, B-12]"""
    if found.redeemed:
        lending.redeem(state, outcome, into, subaccount, state.usdc, found.redeemed, _SETTLES)
    if found.borrowed:
        lending.borrow(state, outcome, into, subaccount, state.usdc, found.borrowed, _SETTLES)


def borrow_room(state: State, at_us: int, redeemed: int = 0, is_open: bool = False) -> int:
    """The most USDC that a settlement may borrow now, after `redeemed`: by idle and the throttle alone.   [S-12, B-7]

    Below zero, `redeemed` is what comes back into the pool. `is_open`: the command found the pool below its threshold.
    """
    pool = state.pools.get(state.usdc)
    if pool is None:
        return 0
    parameters = lending.lending_parameters(state, state.usdc)
    now = lending.totals(state, pool, at_us)
    if parameters.state is not LendingState.OPEN:
        return 0
    if not is_open and is_at_or_over(now.borrowed, now.lent, now.fees, parameters.throttle_threshold):
        return 0
    if now.debt_shares < now.borrowed * lending.LEAST_SHARES_PER_ATOM:
        return 0
    lent = now.lent - redeemed
    most = now.idle - redeemed
    if most <= 0:
        return 0
    # The largest n with (borrowed + n) ÷ (lent + fees) at most the bound.   [B-7]
    return max(0, min(most, mul_div_down(pool.bound, lent + now.fees, RATE_SCALE) - now.borrowed))
