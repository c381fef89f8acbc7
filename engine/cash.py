"""What every subaccount holds and has locked of USDC, as arrays: what lets a settlement tick touch no object a holder.

A cache of the balances and reservations, which stay the truth. Whoever moves either says so in `State.cash_moved`:
`posting` for both, the end of each command for what orders lock as they enter and fill. Not part of the snapshot.
[S-14]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.state import ASSET_BITS, State
from ledger.chart import available

_LARGEST = 2**61
_AVAILABLE_BASE = available(0) << ASSET_BITS
_ASSET_MASK = (1 << ASSET_BITS) - 1


class Cash:
    """Columns by subaccount id."""

    __slots__ = ("held", "is_known", "keys", "reserved")

    def __init__(self, size: int) -> None:
        self.held = np.zeros(size, dtype=np.int64)
        self.reserved = np.zeros(size, dtype=np.int64)
        self.is_known = np.zeros(size, dtype=bool)
        """Whether it has a balance of USDC at all, and both fit 64 bits with room to spare."""
        self.keys: npt.NDArray[Any] = np.empty(size, dtype=object)
        """The balance's key, a Python int, where it is known."""


def cash(state: State) -> Cash:
    """The columns, up to date: only who moved since the last time is read.   [S-14]"""
    known: Cash | None = state.cash
    size = state.rows
    if known is None:
        known = state.cash = Cash(size)
        state.cash_moved = dict.fromkeys(state.subaccounts)
        _read_all_keys(state, known)
    elif len(known.held) < size:
        known = state.cash = _grown(known, size)
    moved = state.cash_moved
    if moved:
        _read(state, known, list(moved))
        state.cash_moved = {}
    return known


def move(state: State, owners: npt.NDArray[np.int64], atoms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Debit these holdings of USDC where the columns know them; says where they did not, for the caller to do.

    What they are debited may not touch what is locked.   [A-13]
    """
    known: Cash | None = state.cash
    if known is None or int(owners[-1]) >= len(known.held):
        return np.ones(len(owners), dtype=bool)
    is_left = ~known.is_known[owners]
    if state.cash_moved:
        is_moved = np.zeros(len(known.held), dtype=bool)
        numbers = np.fromiter(state.cash_moved, np.int64, len(state.cash_moved))
        is_moved[numbers[numbers < len(is_moved)]] = True
        is_left |= is_moved[owners]
    is_left |= (atoms > _LARGEST) | (atoms < -_LARGEST)
    who, debits = (owners, atoms) if not is_left.any() else (owners[~is_left], atoms[~is_left])
    held = known.held[who] - debits
    short = np.flatnonzero(held < known.reserved[who])
    assert not len(short), f"subaccount {who[short[0]]} would hold {held[short[0]]} USDC atoms, less than is locked"
    known.held[who] = held
    state.balances.update(zip(known.keys[who].tolist(), (-held).tolist(), strict=True))
    if len(held) and (int(held.max()) > _LARGEST):
        known.is_known[who[held > _LARGEST]] = False
    return is_left


def _read(state: State, known: Cash, numbers: list[int]) -> None:
    """Balances and reservations of these as they are."""
    balances, subaccounts, usdc = state.balances, state.subaccounts, state.usdc
    base = _AVAILABLE_BASE | usdc
    held, reserved = [], []
    keys: list[int | None] = []
    for number in numbers:
        key = number << ASSET_BITS | base
        balance = balances.get(key)
        locked = subaccounts[number].reserved.get(usdc, 0)
        if balance is None or -balance > _LARGEST or locked > _LARGEST or balance > 0:
            held.append(0)
            reserved.append(0)
            keys.append(None)
        else:
            held.append(-balance)
            reserved.append(locked)
            # The dict's own object, if it was found: then the dict compares no digits.
            keys.append(known.keys[number] or key)
    at = np.array(numbers, dtype=np.int64)
    column = np.empty(len(keys), dtype=object)
    column[:] = keys
    known.held[at], known.reserved[at], known.keys[at] = held, reserved, column
    known.is_known[at] = [key is not None for key in keys]


def _read_all_keys(state: State, known: Cash) -> None:
    first, usdc = _AVAILABLE_BASE, state.usdc
    last = first + (len(known.keys) << ASSET_BITS)
    for key in state.balances:
        if first < key < last and key & _ASSET_MASK == usdc:
            known.keys[key - first >> ASSET_BITS] = key


def _grown(known: Cash, size: int) -> Cash:
    grown = Cash(size)
    count = len(known.held)
    grown.held[:count], grown.reserved[:count] = known.held, known.reserved
    grown.is_known[:count], grown.keys[:count] = known.is_known, known.keys
    return grown
