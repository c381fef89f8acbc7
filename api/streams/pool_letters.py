"""What the streams of liquidity pools say; `E` is when the block was durable, in µs, `T` the command's time.   [W-6, X]

In a message about a pool `n` and `x` are its native and its external side.
"""

from __future__ import annotations

from typing import Any

from api.liquidity_pools import PoolText, dec
from engine.events import (
    LiquidityMoved,
    LongClosed,
    LongNotClosed,
    LongOpened,
    LongView,
    PoolEpochRan,
    PoolSwapped,
    PoolView,
)


def pool_message(pool: PoolView, text: PoolText, event: str | None, published_us: int, at_us: int) -> dict[str, Any]:
    """A pool as it stands: balances `n` `x`, debts of positions `N` `X`, custody `c` `C`, fund `f` `F`, units `u`,
    price `p` (external per native), health `h`, rate `r` per epoch, positions `o`; no `e` for who begins to listen.
    """
    depths = pool.native_balance + pool.native_owed, pool.external_balance + pool.external_owed
    data: dict[str, Any] = {} if event is None else {"e": event}
    return data | {
        "E": published_us,
        "s": text.symbol,
        "n": text.native(pool.native_balance),
        "x": text.external(pool.external_balance),
        "N": text.native(pool.native_owed),
        "X": text.external(pool.external_owed),
        "c": text.native(pool.native_custody),
        "C": text.external(pool.external_custody),
        "f": text.native(pool.fund_native),
        "F": text.external(pool.fund_external),
        "u": text.units(pool.units),
        "p": text.price(*depths),
        "h": dec(pool.health),
        "r": dec(pool.rate),
        "o": pool.positions,
        "T": at_us,
    }


def pool_swap_message(swapped: PoolSwapped, text: PoolText, published_us: int, at_us: int) -> dict[str, Any]:
    """A swap: `a` `A` what was paid, `b` `B` received, `n` the fee, which is of what was received."""
    pays_native = swapped.is_native_paid
    return {
        "e": "poolSwap",
        "E": published_us,
        "s": text.symbol,
        "a": text.symbol_of(pays_native),
        "A": text.amount(pays_native, swapped.paid_atoms),
        "b": text.symbol_of(not pays_native),
        "B": text.amount(not pays_native, swapped.received_atoms),
        "n": text.amount(not pays_native, swapped.fee_atoms),
        "T": at_us,
    }


def pool_epoch_message(ran: PoolEpochRan, text: PoolText, published_us: int, at_us: int) -> dict[str, Any]:
    """An epoch: its number `i`, interest to providers `n` `x` and to the fund `f` `F`, positions charged `o`, closed by
    force `l`, not closed or without a health that can be told `k`.
    """
    return {
        "e": "poolEpoch",
        "E": published_us,
        "s": text.symbol,
        "i": ran.epoch,
        "n": text.native(ran.native_interest),
        "x": text.external(ran.external_interest),
        "f": text.native(ran.native_to_fund),
        "F": text.external(ran.external_to_fund),
        "h": dec(ran.health),
        "r": dec(ran.rate),
        "o": ran.charged,
        "l": ran.forced,
        "k": ran.failed,
        "T": at_us,
    }


def liquidity_update(moved: LiquidityMoved, text: PoolText, published_us: int, at_us: int) -> dict[str, Any]:
    """What the subaccount brought (or took out, below zero) and its units `u`, now `U`."""
    return {
        "e": "liquidityAdded" if moved.units > 0 else "liquidityRemoved",
        "E": published_us,
        "s": text.symbol,
        "n": text.native(moved.native_atoms),
        "x": text.external(moved.external_atoms),
        "u": text.units(moved.units),
        "U": text.units(moved.units_after),
        "T": at_us,
    }


def long_opened(opened: LongOpened, text: PoolText, published_us: int, at_us: int) -> dict[str, Any]:
    """A position as it was opened; `n` is the fee of the swap into custody, in its asset."""
    long = opened.long
    data = {"e": "longOpened", "E": published_us} | long_letters(long, text)
    return data | {"n": text.amount(not long.is_native_collateral, opened.fee_atoms), "T": at_us}


def long_closed(closed: LongClosed, text: PoolText, published_us: int, at_us: int) -> dict[str, Any]:
    """The position before its end; `p` what custody brought, `n` the fee of that, `r` to the owner, `f` to the fund,
    `d` bad debt, of which `D` the fund covered.
    """
    long = closed.long
    is_native = long.is_native_collateral
    data = {"e": "longForceClosed" if closed.forced else "longClosed", "E": published_us} | long_letters(long, text)
    return data | {
        "p": text.amount(is_native, closed.repaid_atoms),
        "n": text.amount(is_native, closed.fee_atoms),
        "r": text.amount(is_native, closed.returned_atoms),
        "f": text.amount(is_native, closed.fund_atoms),
        "d": text.amount(is_native, closed.bad_debt_atoms),
        "D": text.amount(is_native, closed.covered_atoms),
        "T": at_us,
    }


def long_not_closed(kept: LongNotClosed, text: PoolText, published_us: int, at_us: int) -> dict[str, Any]:
    """A forced close that could not be made, or a health that could not be told, and why (`R`); it is tried again at
    the next epoch.   [X-11]
    """
    return {
        "e": "longNotClosed",
        "E": published_us,
        "s": text.symbol,
        "i": str(kept.position_id),
        "h": dec(kept.health),
        "R": kept.reason,
        "T": at_us,
    }


def long_letters(long: LongView, text: PoolText) -> dict[str, Any]:
    """Position `i`: collateral's asset `a` and how much `A`, custody's `b` and `B`, leverage `l`, owed `q`, unpaid
    interest `Q`, interest paid `m`, and out of custody `M`, health `h` as last measured.
    """
    is_native = long.is_native_collateral
    return {
        "s": text.symbol,
        "i": str(long.position_id),
        "a": text.symbol_of(is_native),
        "A": text.amount(is_native, long.collateral_atoms),
        "b": text.symbol_of(not is_native),
        "B": text.amount(not is_native, long.custody_atoms),
        "l": dec(long.leverage),
        "q": text.amount(is_native, long.owed_atoms),
        "Q": text.amount(is_native, long.unpaid_atoms),
        "m": text.amount(is_native, long.paid_atoms),
        "M": text.amount(not is_native, long.paid_custody_atoms),
        "h": dec(long.health),
    }
