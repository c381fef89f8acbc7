"""Columns over all subaccounts: a float64 screen for the few whose margins must be looked at, and their exact sums.

The screen decides nothing by itself. It computes, for every subaccount at once, a number that its net equity is not
below and one that its margin is not above; whoever is safe by these is safe, everybody else is asked of `margin.sums`.
So the answer is that of asking everybody, on every machine whose floats are IEEE 754's.

**Proof.** u = 2⁻⁵³ bounds the relative error of one float64 +, −, ×, ÷, √, of int → float and of int ÷ int. What is
added up is ≥ 0, so along a chain of k operations errors only add: |δ| ≤ k·u / (1 − k·u). No chain here is longer than
32 operations and one addition per asset, so with 1,000 assets at most |δ| < 2⁻⁴². Each chain has a factor `_DOWN`
= 1 − 2⁻⁴⁰ where a lower bound is wanted and `_UP` = 1 + 2⁻⁴⁰ where an upper one is, which outweighs its δ. What remains
are the differences and the roundings of the exact formulas. With P the price of one atom in USD (1e-8), q and o the
real-valued holding and debt (claims and debts as shares × total ÷ all shares, not rounded):

* holding: a claim is rounded down, so the true one is > q − 1 atom. Its weight w(q) falls as q grows, q × w(q) does
  not; isqrt is never above √, which only raises the true weight; that it is rounded down takes less than 1 (1e-9). The
  screen takes w(q) − 2 at its own, lower q: 1 for the rounding of a true q that is less than twice as large. Values
  are rounded down: value > screen − P − 1.
* debt: rounded up, < o + 1 atom, and so is its value: liability < screen + P + 1.
* exposure: whole atoms < (o − q) + 2, so notional < n = max(0, (o − q) × P + 2P + 1). Both were moved by 2⁻⁴⁰ of
  themselves before they are subtracted, which is more than the rounding of the difference. Margin = ⌈notional ×
  max(base, factor × isqrt)⌉ grows with notional, and isqrt ≤ √: margin < n × max(base, factor × √n) + 1.
* yield of closed periods is left out: it only adds to equity (C-3). A subaccount that a reversed deposit left owing
  (D-5), or with a holding below zero, is `uncounted`: asked exactly at every sweep.

So Σ value − Σ liability − Σ pads > Σ margin means that M-6 does not apply; and who owes nothing has no exposure without
open orders, and no equity below zero.   [C-1 … C-3, M-1 … M-6]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine import lending, margin
from engine.events import DepositChanged, OrderAccepted, OrderCancelled, OrderExpired, Outcome, SettingsChanged, Trade
from engine.formulas.margin import ROOT_SCALE, leverage_fraction
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE, AssetParameters, WeightKind
from engine.pricing import mark_price
from engine.state import ASSET_BITS, State
from ledger.chart import AccountKind, AssetId, account_id, available, borrowed, debt_share, lend_share, lent

Floats = npt.NDArray[np.float64]

BLOCK = 16_384
"""Rows at a time, so that what is computed of them stays in the processor's cache."""

_DOWN, _UP = 1 - 2.0**-40, 1 + 2.0**-40
_MOST_ASSETS = 1_000
_PRICE_IN_USD = PRICE_SCALE // USD_SCALE
_HELD, _LENT, _OWED, _PAYING = range(4)
_RECEIVABLE = account_id(AccountKind.RECEIVABLE)


class Bounds(NamedTuple):
    """Of each subaccount, by its id, in USD (1e-8): no exact figure of `margin.sums` is below or above these.

    Subaccounts of `Columns.uncounted` are not covered. Maintenance ÷ equity bounds the MMR.   [C-3, M-3, M-6]
    """

    equity: Floats
    """At most the net equity."""
    initial: Floats
    """At least Σ initial margin."""
    maintenance: Floats
    """At least Σ maintenance margin."""
    owes: npt.NDArray[np.bool_]
    """Whether anything with a price is owed."""


class Columns:
    """Quantities of all subaccounts, one contiguous column per asset and kind: a cache of the state's balances.

    `note` what each command did, and the next sweep reads again the rows it touched, no others.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.uncounted: dict[int, None] = {}
        """Subaccounts that the columns cannot describe; asked exactly at every sweep."""
        self._rows = 0
        self._assets: dict[AssetId, _AssetColumns] = {}
        self._leverage: Floats = np.zeros(0)
        self._stale: dict[int, None] = dict.fromkeys(state.subaccounts)
        self._fees = state.fees

    def note(self, outcome: Outcome) -> None:
        """Remember whom a command touched: balances, loans, orders, settings. No column is read or written."""
        stale = self._stale
        for key in outcome.touched:
            stale[key >> ASSET_BITS] = None
        for event in outcome.events:
            match event:
                case OrderAccepted() | OrderCancelled() | OrderExpired():
                    stale[event.order.subaccount_id] = None
                case Trade():
                    stale[event.taker.subaccount_id] = stale[event.maker.subaccount_id] = None
                case DepositChanged():
                    stale[event.deposit.subaccount_id] = None
                case SettingsChanged():
                    stale[event.subaccount_id] = None

    def forget(self, numbers: Iterable[int]) -> None:
        """These subaccounts have changed in some other way."""
        self._stale.update(dict.fromkeys(numbers))

    def in_liquidation(
        self, at_us: int, marks: Mapping[AssetId, int] | None = None
    ) -> list[tuple[int, margin.Sums]]:
        """(subaccount, exact sums) of all that are in liquidation, by id; `marks` stand in for the state's.

        The same as asking `margin.sums` of every subaccount.   [M-6]
        """
        state = self.state
        bounds = self.bounds(at_us, marks)
        doubtful = np.flatnonzero(bounds.owes & ~(bounds.equity > bounds.maintenance)).tolist()
        if self.uncounted:
            doubtful = sorted({**dict.fromkeys(doubtful), **self.uncounted})
        found = []
        for number in doubtful:
            exact = margin.sums(state, state.subaccounts[number], at_us, marks=marks)
            if exact.is_in_liquidation:
                found.append((number, exact))
        return found

    def bounds(self, at_us: int, marks: Mapping[AssetId, int] | None = None) -> Bounds:
        """Equity and margins of every subaccount, each within the module's band of the exact ones."""
        self.refresh()
        weighed = [
            (columns, _factors(self.state, asset_id, columns, at_us, marks)) for asset_id, columns in self._in_use()
        ]
        rows = self._rows
        equity, initial, maintenance, owed = (np.zeros(rows) for _ in range(4))
        scratch = np.empty((4, BLOCK))
        for start in range(0, rows, BLOCK):
            stop = min(start + BLOCK, rows)
            block = slice(start, stop)
            sums = equity[block], initial[block], maintenance[block], owed[block]
            for columns, factors in weighed:
                _add_asset(columns, factors, self._leverage[block], block, sums, scratch[:, : stop - start])
        owes = owed > 0
        equity -= owed
        equity -= sum(factors.pad for _columns, factors in weighed) * _UP
        for margins in (initial, maintenance):
            margins += len(weighed) + 1
        return Bounds(equity, initial, maintenance, owes)

    def refresh(self) -> None:
        """Read again the rows that were noted."""
        if self._fees is not self.state.fees:
            # What open orders promise includes their fees.
            self._fees = self.state.fees
            self.forget(number for number, each in self.state.subaccounts.items() if each.promised)
        stale, self._stale = list(self._stale), {}
        self._grow(self.state.next_subaccount_id)
        for start in range(0, len(stale), BLOCK):
            self._read(stale[start : start + BLOCK])

    def _read(self, numbers: list[int]) -> None:
        for columns in self._assets.values():
            columns.clear(numbers)
        state, balances = self.state, self.state.balances
        lines: dict[AssetId, list[list[float]]] = {}
        leverage = []
        for number in numbers:
            subaccount = state.subaccounts[number]
            owner = subaccount.subaccount_id
            held_key, owed_key = available(owner) << ASSET_BITS, (_RECEIVABLE | owner) << ASSET_BITS
            leverage.append(leverage_fraction(subaccount.leverage_limit) / RATE_SCALE * _UP)
            self.uncounted.pop(number, None)
            for asset_id in subaccount.asset_ids:
                held = -balances.get(held_key | asset_id, 0)
                if held > 0:
                    _note(lines, asset_id, _HELD, number, held * _DOWN)
                if held < 0 or balances.get(owed_key | asset_id, 0):
                    self.uncounted[number] = None
            for asset_id in subaccount.lent:
                shares = -balances.get(lent(owner) << ASSET_BITS | lend_share(asset_id), 0)
                _note(lines, asset_id, _LENT, number, shares)
            for asset_id in subaccount.debts:
                shares = balances.get(borrowed(owner) << ASSET_BITS | debt_share(asset_id), 0)
                _note(lines, asset_id, _OWED, number, shares)
            reserved, promised = subaccount.reserved, subaccount.promised
            for asset_id in {**reserved, **promised}:
                paying = reserved.get(asset_id, 0) + promised.get(asset_id, 0)
                _note(lines, asset_id, _PAYING, number, paying * _UP)
        self._leverage[numbers] = leverage
        for asset_id, found in lines.items():
            if asset_id not in self._assets:
                self._assets[asset_id] = _AssetColumns(len(self._leverage))
            self._assets[asset_id].write(found)

    def _in_use(self) -> list[tuple[AssetId, _AssetColumns]]:
        assert len(self._assets) <= _MOST_ASSETS, f"{len(self._assets)} assets: the band is proven for {_MOST_ASSETS}"
        return sorted(self._assets.items())

    def _grow(self, rows: int) -> None:
        self._rows = rows
        if rows > len(self._leverage):
            capacity = max(rows, 2 * len(self._leverage))
            self._leverage = _longer(self._leverage, capacity)
            for columns in self._assets.values():
                columns.grow(capacity)


class _AssetColumns:
    """One asset: atoms held, lend shares, debt shares, atoms that open orders would pay. None: nobody has any."""

    __slots__ = ("capacity", "kinds")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kinds: list[Floats | None] = [None, None, None, None]

    def clear(self, numbers: list[int]) -> None:
        for column in self.kinds:
            if column is not None:
                column[numbers] = 0.0

    def write(self, lines: list[list[float]]) -> None:
        """Of each kind its rows and then what stands there."""
        for kind in (_HELD, _LENT, _OWED, _PAYING):
            rows, values = lines[2 * kind : 2 * kind + 2]
            if rows:
                column = self.kinds[kind]
                if column is None:
                    column = self.kinds[kind] = np.zeros(self.capacity)
                column[np.array(rows, dtype=np.int64)] = np.array(values, dtype=np.float64)

    def grow(self, capacity: int) -> None:
        self.capacity = capacity
        self.kinds = [None if column is None else _longer(column, capacity) for column in self.kinds]


def _note(lines: dict[AssetId, list[list[float]]], asset_id: AssetId, kind: int, row: int, value: float) -> None:
    found = lines.get(asset_id)
    if found is None:
        found = lines[asset_id] = [[], [], [], [], [], [], [], []]
    found[2 * kind].append(row)
    found[2 * kind + 1].append(value)


class _Factors(NamedTuple):
    """What one asset's quantities are multiplied with at one moment, each moved to its safe side."""

    claim: float
    """Atoms of a lend share, down."""
    debt: float
    """Atoms of a debt share, up."""
    value: float
    """USD (1e-8) of an atom at weight 1e-9, down."""
    liability: float
    """USD (1e-8) of an atom, up."""
    extra: float
    """What roundings may add to a notional: two atoms and 1."""
    pad: float
    """What roundings may take from value, and add to liability."""
    weight: float
    curve_base: float
    """Numerator of C-2's curve, 1e-9; 0 when the weight does not fall."""
    curve_root: float
    """Its penalty × √ of one atom."""
    initial_base: float
    initial_factor: float
    maintenance_base: float
    maintenance_factor: float
    flat_below: float
    """Atoms up to which the curve is not below the weight."""


def _factors(
    state: State, asset_id: AssetId, columns: _AssetColumns, at_us: int, marks: Mapping[AssetId, int] | None
) -> _Factors:
    asset = state.assets[asset_id]
    price = (marks if marks is not None else state.marks).get(asset_id, 0) or mark_price(state, asset_id)
    unit = 10**asset.decimals
    claim = debt = 0.0
    if columns.kinds[_LENT] is not None or columns.kinds[_OWED] is not None:
        pool = lending.totals(state, state.pools[asset_id], at_us)
        claim = pool.lent / pool.lend_shares * _DOWN if pool.lend_shares else 0.0
        debt = pool.borrowed / pool.debt_shares * _UP if pool.debt_shares else 0.0
    atom = price / (unit * _PRICE_IN_USD)
    weight, curve_base, curve_root, flat_below = _curve(asset, unit)
    return _Factors(
        claim,
        debt,
        price / (unit * _PRICE_IN_USD * RATE_SCALE) * _DOWN,
        atom * _UP,
        (2 * atom + 1) * _UP,
        2 * (atom + 1) * _UP,
        weight,
        curve_base,
        curve_root,
        max(4 * asset.imf_base, 5 * asset.mmf_base) / (4 * RATE_SCALE) * _UP,
        max(4 * asset.imf_factor, 5 * asset.mmf_factor) / (4 * RATE_SCALE * ROOT_SCALE) * _UP,
        asset.mmf_base / RATE_SCALE * _UP,
        asset.mmf_factor / (RATE_SCALE * ROOT_SCALE) * _UP,
        flat_below,
    )


def _curve(asset: AssetParameters, unit: int) -> tuple[float, float, float, float]:
    """(weight, numerator, penalty × √ of an atom, atoms below which it is flat) of C-2, weights in 1e-9."""
    weight = float(asset.weight)
    if asset.weight_kind is not WeightKind.INVERSE_SQRT or not asset.weight:
        return weight, 0.0, 0.0, 0.0
    # penalty (1e-9) × √tokens, as 1e-9 × 1e-4 × √(atoms × 1e8 ÷ unit).
    root = asset.weight_penalty / RATE_SCALE * (1 / unit) ** 0.5 * _UP
    flat = (asset.weight_base / asset.weight - 1) * (1 - 2.0**-20)
    flat_below = (flat / root) ** 2 if root and flat > 0 else 0.0
    return weight, asset.weight_base * _DOWN, root, flat_below


def _add_asset(
    columns: _AssetColumns,
    factors: _Factors,
    leverage: Floats,
    block: slice,
    sums: tuple[Floats, Floats, Floats, Floats],
    scratch: Floats,
) -> None:
    """Add one asset's value, margins and liability to a block of rows."""
    value, initial, maintenance, owed = sums
    net, quantity, notional, other = scratch
    held, claims, debts, paying = (None if column is None else column[block] for column in columns.kinds)

    # What is held and lent, and its value.
    if claims is not None:
        np.multiply(claims, factors.claim, out=quantity)
        if held is not None:
            quantity += held
    elif held is not None:
        quantity = held
    else:
        quantity[:] = 0.0
    if factors.weight:
        _add_value(factors, quantity, value, notional, other)

    # What is owed, and what is owed beyond what is held: the exposure without open orders, then with them.
    if debts is not None:
        np.multiply(debts, factors.debt, out=net)
        np.multiply(net, factors.liability, out=other)
        owed += other
        net -= quantity
        _notional(factors, net, notional)
        maintenance += _margin(notional, factors.maintenance_base, factors.maintenance_factor, None, other)
        if paying is not None:
            net += paying
            _notional(factors, net, notional)
    elif paying is not None:
        np.subtract(paying, quantity, out=net)
        _notional(factors, net, notional)
    else:
        return
    initial += _margin(notional, factors.initial_base, factors.initial_factor, leverage, other)


def _add_value(factors: _Factors, quantity: Floats, value: Floats, weight: Floats, other: Floats) -> None:
    """At most quantity × mark × weight; the weight falls with size where some quantity is large enough.   [C-1, C-2]"""
    if not factors.curve_base or quantity.max() <= factors.flat_below:
        np.multiply(quantity, factors.value * factors.weight, out=other)
        value += other
        return
    np.sqrt(quantity, out=weight)
    weight *= factors.curve_root
    weight += 1.0
    np.divide(factors.curve_base, weight, out=weight)
    np.minimum(weight, factors.weight, out=weight)
    weight -= 2.0
    np.multiply(quantity, factors.value, out=other)
    other *= weight
    value += other


def _notional(factors: _Factors, net: Floats, notional: Floats) -> None:
    """At least the notional of exposures of `net` atoms; those below zero are none.   [M-1]"""
    np.multiply(net, factors.liability, out=notional)
    notional += factors.extra
    np.maximum(notional, 0.0, out=notional)


def _margin(notional: Floats, base: float, factor: float, leverage: Floats | None, out: Floats) -> Floats:
    """At least the margin of each notional: max(base, factor × √notional, 1 / leverage) of it.   [M-2, M-3]"""
    if factor and factor * float(notional.max()) ** 0.5 * _UP > base:
        np.sqrt(notional, out=out)
        out *= factor
        np.maximum(out, base, out=out)
        if leverage is not None:
            np.maximum(out, leverage, out=out)
        out *= notional
    elif leverage is not None:
        np.maximum(leverage, base, out=out)
        out *= notional
    else:
        np.multiply(notional, base, out=out)
    return out


def _longer(column: Floats, capacity: int) -> Floats:
    longer = np.zeros(capacity)
    longer[: len(column)] = column
    return longer
