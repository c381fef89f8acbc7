"""Columns over all subaccounts: a float64 screen for the few whose margins must be looked at, and their exact sums.

The screen decides nothing by itself. It computes, for every subaccount at once, a number that its net equity is not
below and one that its margin is not above; whoever is safe by these is safe, everybody else is asked of `margin.sums`.
So the answer is that of asking everybody, on every machine whose floats are IEEE 754's.

**Proof.** u = 2⁻⁵³ bounds the relative error of one float64 +, −, ×, ÷, √, of int → float and of int ÷ int. Where
what is added up is ≥ 0, along a chain of k operations errors only add: |δ| ≤ k·u / (1 − k·u). No chain here is longer
than 32 operations and one addition per asset and market, so with 1,000 of them at most |δ| < 2⁻⁴². Each chain has a
factor `_DOWN` = 1 − 2⁻⁴⁰ where a lower bound is wanted and `_UP` = 1 + 2⁻⁴⁰ where an upper one is, which outweighs its
δ. What remains are the differences and the roundings of the exact formulas. With P the price of one atom in USD (1e-8),
q and o the real-valued holding and debt (claims and debts as shares × total ÷ all shares, not rounded):

* holding: a claim is rounded down, so the true one is > q − 1 atom. Its weight w(q) falls as q grows, q × w(q) does
  not; isqrt is never above √, which only raises the true weight; that it is rounded down takes less than 1 (1e-9). The
  screen takes w(q) − 2 at its own, lower q: 1 for the rounding of a true q that is less than twice as large. Values
  are rounded down: value > screen − P − 1.
* debt: rounded up, < o + 1 atom, and so is its value: liability < screen + P + 1.
* position: what it gained, lots × (mark − settled) + cost, has either sign, so its terms are added up as they are and
  their sizes beside them (`gross`, which takes max(mark, |mark − settled|) for a lot): the error of the sum is below
  2⁻⁴¹ of that second sum, of which 2⁻⁴⁰ is taken off. Unsettled equity is one more such term. Claims of the liquidity
  fund are rounded an atom each, and all of them together once to USD: at most 2 atoms a market and 1.
  Its notional is |lots| × mark, rounded up once: less than the screen's + 1, which costs less than 2 × max(base,
  factor × 2²¹) + 2 of maintenance margin while that notional is below 2⁴¹, and beyond is less than `_UP` adds.
* exposure of an asset: whole atoms < (o − q) + 2, so notional < n = max(0, (o − q) × P + 2P + 1). Both were moved by
  2⁻⁴⁰ of themselves before they are subtracted, which is more than the rounding of the difference. Of USDC, o has the
  negative unsettled equity and, in settled mode, what positions lost in sum (M-1), both at their upper bound. Margin =
  ⌈notional × max(base, factor × isqrt)⌉ grows with notional, and isqrt ≤ √: margin < n × max(base, factor × √n) + 1.
* yield of closed periods and what written-down debts still bring are left out: they only add to equity (C-3). A
  subaccount that a reversed deposit left owing (D-5), with a holding below zero or a cost beyond int64, is
  `uncounted`: asked exactly at every sweep.

So Σ value + Σ gained − Σ liability − Σ pads > Σ maintenance means that M-6 does not apply; and who owes nothing and has
no position has no exposure without open orders, and no equity below zero.   [C-1 … C-5, M-1 … M-6]

**What a sweep leaves for the next.** Let every price that a row is made of (an asset's price, what a lend share and a
debt share of it are worth, a market's mark) move by at most δ ≤ 1/3 of itself, and USDC's not at all. With G = value +
liability + gross + pads of a row: equity falls by ≤ δ·G. An exposure's notional n grows by ≤ δ·(o + q)·P, and where it
is above zero afterwards q·P < 2·o·P: ≤ 3·δ·o·P. A position's grows by ≤ δ of itself; what positions lost in sum grows
by ≤ δ·gross, and by the same token less than 4·δ·gross of USDC notional comes of it. Together less than 5·δ·G, and no n
ends above 2·G. n × max(base, factor × √n) rises by at most 1.5 × max(base, factor × √(2·G)) =: s a unit of n. So while
δ·G·(1 + 5·s) < equity − maintenance, both as the screen has them, the row stays safe. The quotient is how far prices
may move before anybody has to look at the row again. A full sweep remembers the prices, the NEAREST rows with the
smallest quotients, and the smallest of the others: as long as prices stay that near, the next sweep looks at the
nearest alone, and at the rows that were touched meanwhile, which join the nearest unless they may move three times as
far (from where prices are when they are looked at to any that are that near is less than 2.3 times as far, below 1/10).

A settlement tick moves only what a row is made of: atoms of cost become atoms of USDC (M-1: no threshold moves). Its
columns are added to the rows; whoever it had to redeem, borrow or convert for is touched.   [L-1, L-11]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine import lending, margin
from engine.events import Outcome, SettingsChanged
from engine.formulas.margin import ROOT_SCALE
from engine.parameters import PRICE_SCALE, RATE_SCALE, USD_SCALE, AssetParameters, MarketParameters, WeightKind
from engine.pricing import mark_price
from engine.state import ASSET_BITS, State, Subaccount
from ledger.chart import (
    OWNER_BITS,
    OWNER_MASK,
    AccountKind,
    AssetId,
    account_id,
    available,
    borrowed,
    claim,
    claim_debt,
    claim_lend,
    contracts,
    cost,
    debt_share,
    is_of_market,
    lend_share,
    lent,
    market_of,
)
from ledger.journal import JournalKind, PostingBatch

Floats = npt.NDArray[np.float64]

BLOCK = 16_384
"""Rows at a time, so that what is computed of them stays in the processor's cache."""
NEAREST = 4_096
"""Rows that every sweep looks at: those whose thresholds are nearest."""
MOST_WATCHED = 4
"""When so many times as many are looked at, a full sweep finds the nearest anew."""

_DOWN, _UP = 1 - 2.0**-40, 1 + 2.0**-40
_MOST_COLUMNS = 1_000
_FARTHEST = 0.1
_MOST_ATOMS = 1 << 61
_PRICE_IN_USD = PRICE_SCALE // USD_SCALE
_HELD, _LENT, _OWED = range(3)
_RECEIVABLE = account_id(AccountKind.RECEIVABLE)
_REVALUING = (JournalKind.FUNDING, JournalKind.LOSS_SHARED)
_AVAILABLE, _POSITION = int(AccountKind.AVAILABLE), int(AccountKind.POSITION)
_KINDS = frozenset(
    int(kind)
    for kind in (
        AccountKind.AVAILABLE,
        AccountKind.LENT,
        AccountKind.BORROWED,
        AccountKind.RECEIVABLE,
        AccountKind.POSITION,
        AccountKind.UNSETTLED,
        AccountKind.CLAIM,
    )
)
"""Accounts whose owner is a subaccount that they change the worth of."""


class Bounds(NamedTuple):
    """Of each row, in USD (1e-8): no exact figure of `margin.sums` is beyond these.

    Subaccounts of `Columns.uncounted` are not covered. Maintenance ÷ equity bounds the MMR.   [C-3, M-3, M-6]
    """

    equity: Floats
    """At most the net equity."""
    maintenance: Floats
    """At least Σ maintenance margin."""
    owes: npt.NDArray[np.bool_]
    """Whether anything with a price is owed, or a position held."""
    gross: Floats
    """Value + liability + sizes of positions + pads: G of the proof."""


class _Near(NamedTuple):
    """What the last full sweep left: see the module's proof."""

    prices: dict[tuple[int, AssetId], float]
    parameters: list[AssetParameters | MarketParameters]
    farthest: float
    """How far a price may move, as a part of itself."""


class Columns:
    """Quantities of all subaccounts, one contiguous column per asset and kind: a cache of the state's balances.

    `note` what each command did, and the next sweep reads again the rows it touched, no others.
    """

    def __init__(self, state: State, nearest: int = NEAREST) -> None:
        self.state = state
        self.uncounted: dict[int, None] = {}
        """Subaccounts that the columns cannot describe; asked exactly at every sweep."""
        self.swept = 0
        """Full sweeps so far."""
        self.looked_at = 0
        """Rows that the last sweep looked at."""
        self.nearest = nearest
        """How many rows every sweep looks at."""
        self._rows = 0
        self._all = _Rows()
        self._has_claims = False
        self._stale: dict[int, None] = dict.fromkeys(state.subaccounts)
        self._near: _Near | None = None
        self._watched: dict[int, int] = {}
        """Rows that have to be looked at although prices stay near → where they are in `_near_rows`."""
        self._near_rows: _Rows | None = None
        """A copy of the watched rows, together: a million rows apart, they would not be in the processor's cache."""
        self._unseen: dict[int, None] = {}
        """Rows read since the last sweep."""

    def note(self, outcome: Outcome, *, is_order: bool = False) -> None:
        """Remember whom a command touched; what a tick, funding or a shared loss moved is added to the columns.

        An order's cancels and fills change no setting.
        """
        stale, kinds = self._stale, _KINDS
        for entry in outcome.journal:
            for account, _asset, _atoms in entry.postings:
                if account >> OWNER_BITS in kinds:
                    stale[account & OWNER_MASK] = None
            for batch in entry.batches:
                if entry.kind in _REVALUING:
                    # It changes what rows are worth that nobody is going to read again.
                    self.start_anew()
                if batch.account_kind not in _KINDS:
                    continue
                if entry.kind in _REVALUING or entry.kind == JournalKind.SETTLEMENT:
                    self._add_batch(batch)
                else:
                    self.forget(batch.owners.tolist())
        if not is_order:
            for event in outcome.events:
                if type(event) is SettingsChanged:
                    stale[event.subaccount_id] = None

    def forget(self, numbers: Iterable[int]) -> None:
        """These subaccounts have changed in some other way."""
        self._stale.update(dict.fromkeys(numbers))

    def start_anew(self) -> None:
        """The next sweep is over all rows."""
        self._near = None

    def in_liquidation(
        self, at_us: int, marks: Mapping[AssetId, int] | None = None
    ) -> list[tuple[int, margin.Sums]]:
        """(subaccount, exact sums) of all that are in liquidation, by id; `marks` stand in for the state's.

        The same as asking `margin.sums` of every subaccount.   [M-6, L-1, L-11]
        """
        state = self.state
        doubtful = self._doubtful(at_us, marks)
        if self.uncounted:
            doubtful = sorted({**dict.fromkeys(doubtful), **self.uncounted})
        found = []
        for number in doubtful:
            exact = margin.sums(state, state.subaccounts[number], at_us, marks=marks)
            if exact.is_in_liquidation:
                found.append((number, exact))
        return found

    def bounds(self, at_us: int, marks: Mapping[AssetId, int] | None = None) -> Bounds:
        """Equity and maintenance of every subaccount, each within the module's band of the exact ones."""
        self.refresh()
        return self._bounds(_Screen(self, at_us, marks), self._all, self._rows)

    def _bounds(self, screen: _Screen, columns: _Rows, rows: int) -> Bounds:
        sums = _Sums(rows)
        scratch = np.empty((5, BLOCK))
        for start in range(0, rows, BLOCK):
            stop = min(start + BLOCK, rows)
            _add_block(screen, columns, slice(start, stop), sums.part(start, stop), scratch[:, : stop - start])
        equity = sums.value
        gross = np.abs(equity)
        gross += sums.owed
        gross += sums.gross
        gross += screen.pad
        equity += sums.gained
        sums.gross *= 2.0**-40
        equity -= sums.gross
        equity -= sums.owed
        equity -= screen.pad * _UP
        maintenance = sums.maintenance
        maintenance += screen.margin_pad
        return Bounds(equity, maintenance, (sums.owed > 0) | (sums.gross > 0), gross)

    def refresh(self) -> None:
        """Read again the rows that were noted."""
        stale, self._stale = list(self._stale), {}
        self._grow(self.state.rows)
        for start in range(0, len(stale), BLOCK):
            self._read(stale[start : start + BLOCK])
        self._unseen.update(dict.fromkeys(stale))

    # --- which rows a sweep looks at --------------------------------------------------------------------------------

    def _doubtful(self, at_us: int, marks: Mapping[AssetId, int] | None) -> list[int]:
        """Rows that the screen cannot call safe."""
        if marks is not None:
            return _unsafe(self.bounds(at_us, marks))
        self.refresh()
        screen = _Screen(self, at_us, None)
        if len(self._watched) + len(self._unseen) > MOST_WATCHED * self.nearest or not self._is_near(screen):
            return self._sweep(screen)
        near = self._near
        assert near is not None
        rows, unseen = self._look_again()
        numbers = list(self._watched)
        self.looked_at = len(numbers) + len(unseen)
        doubtful = [numbers[at] for at in _unsafe(self._bounds(screen, rows, len(numbers)))]
        if unseen:
            others = self._all.take(np.array(unseen, dtype=np.int64))
            bounds = self._bounds(screen, others, len(unseen))
            doubtful += [unseen[at] for at in _unsafe(bounds)]
            joining = np.flatnonzero(self._reach(bounds, screen) < 3 * near.farthest)
            if len(joining):
                rows.append(others.take(joining))
                for at in joining.tolist():
                    self._watched[unseen[at]] = len(self._watched)
        return doubtful

    def _look_again(self) -> tuple[_Rows, list[int]]:
        """(the watched rows as they stand, the others that were read since the last sweep)"""
        unseen = list(self._unseen)
        self._unseen = {}
        rows = self._near_rows
        if rows is None or len(rows.in_use()) != len(self._all.in_use()):
            rows = self._near_rows = self._all.take(np.array(list(self._watched), dtype=np.int64))
        else:
            changed = [number for number in unseen if number in self._watched]
            if changed:
                where = np.array([self._watched[number] for number in changed], dtype=np.int64)
                rows.put(where, self._all, np.array(changed, dtype=np.int64))
        return rows, [number for number in unseen if number not in self._watched]

    def _sweep(self, screen: _Screen) -> list[int]:
        """All rows; remembers which are nearest to their threshold."""
        self.swept += 1
        self.looked_at = self._rows
        self._unseen = {}
        bounds = self._bounds(screen, self._all, self._rows)
        farthest = _FARTHEST
        numbers = list(range(1, self._rows))
        if self._rows > self.nearest + 1:
            reach = self._reach(bounds, screen)
            reach[0] = np.inf
            nearest = np.argpartition(reach, self.nearest)
            farthest = min(farthest, float(reach[nearest[self.nearest]]))
            numbers = nearest[: self.nearest].tolist()
        self._watched = {number: at for at, number in enumerate(numbers)}
        self._near_rows = None
        self._near = _Near(screen.prices, self._parameters(), farthest) if farthest > 0 else None
        return _unsafe(bounds)

    def _reach(self, bounds: Bounds, screen: _Screen) -> Floats:
        """How far all prices may move, as a part of themselves, before a row is no longer surely safe."""
        steep = np.sqrt(2 * bounds.gross)
        steep *= screen.steepest_factor
        np.maximum(steep, screen.steepest_base, out=steep)
        steep *= 7.5
        steep += 1
        steep *= bounds.gross
        steep *= 1 + 2.0**-30
        steep += 1
        reach = bounds.equity - bounds.maintenance
        reach -= 64
        reach -= bounds.gross * 2.0**-38
        reach /= steep
        reach[~bounds.owes] = np.inf
        return reach

    def _is_near(self, screen: _Screen) -> bool:
        """Whether all prices are still so near to those of the last full sweep that the others are safe."""
        near = self._near
        if near is None or near.prices.keys() != screen.prices.keys():
            return False
        if any(mine is not theirs for mine, theirs in zip(near.parameters, self._parameters(), strict=True)):
            return False
        usdc = self.state.usdc
        for name, price in screen.prices.items():
            before = near.prices[name]
            if price == before:
                continue
            if name == (_HELD, usdc) or not before or abs(price / before - 1) * _UP + 2.0**-45 >= near.farthest:
                return False
        return True

    def _parameters(self) -> list[AssetParameters | MarketParameters]:
        state = self.state
        markets = [state.markets[market_id].parameters for market_id in sorted(self._all.lots)]
        return [*(state.assets[asset_id] for asset_id in sorted(self._all.assets)), *markets]

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, numbers: list[int]) -> None:
        rows = self._all
        for columns in rows.assets.values():
            columns.clear(numbers)
        for lots in rows.lots.values():
            lots[numbers] = 0.0
        state, usdc = self.state, self.state.usdc
        lines: dict[AssetId, list[list[float]]] = {}
        markets: dict[int, tuple[list[int], list[int]]] = {}
        costs = []
        for number in numbers:
            subaccount = state.subaccounts[number]
            self.uncounted.pop(number, None)
            self._read_assets(subaccount, number, lines)
            total = 0
            for market_id, held in subaccount.positions.items():
                total += held.cost
                if held.lots:
                    found = markets.get(market_id)
                    if found is None:
                        found = markets[market_id] = [], []
                    found[0].append(number)
                    found[1].append(held.lots)
            if not -_MOST_ATOMS < total < _MOST_ATOMS:
                self.uncounted[number] = None
                total = 0
            costs.append(total)
            self._read_claims(subaccount, number)
        rows.costs[numbers] = costs
        rows.unsettled[numbers] = [state.subaccounts[number].unsettled for number in numbers]
        rows.settles[numbers] = [state.subaccounts[number].auto_realize_pnl for number in numbers]
        for asset_id, found_lines in lines.items():
            if asset_id not in rows.assets:
                rows.assets[asset_id] = _AssetColumns(len(rows.costs), asset_id == usdc)
            rows.assets[asset_id].write(found_lines)
        for market_id, (places, sizes) in markets.items():
            if market_id not in rows.lots:
                rows.lots[market_id] = np.zeros(len(rows.costs))
            rows.lots[market_id][places] = sizes

    def _read_assets(self, subaccount: Subaccount, number: int, lines: dict[AssetId, list[list[float]]]) -> None:
        balances, usdc = self.state.balances, self.state.usdc
        owner = subaccount.subaccount_id
        held_key, owed_key = available(owner) << ASSET_BITS, (_RECEIVABLE | owner) << ASSET_BITS
        for asset_id in subaccount.asset_ids:
            held = -balances.get(held_key | asset_id, 0)
            if held > 0:
                _note(lines, asset_id, _HELD, number, min(held, _MOST_ATOMS) if asset_id == usdc else held * _DOWN)
            if held < 0 or balances.get(owed_key | asset_id, 0):
                self.uncounted[number] = None
        for asset_id in subaccount.lent:
            shares = -balances.get(lent(owner) << ASSET_BITS | lend_share(asset_id), 0)
            _note(lines, asset_id, _LENT, number, shares)
        for asset_id in subaccount.debts:
            shares = balances.get(borrowed(owner) << ASSET_BITS | debt_share(asset_id), 0)
            _note(lines, asset_id, _OWED, number, shares)

    def _read_claims(self, subaccount: Subaccount, number: int) -> None:
        positive = negative = 0
        if subaccount.claims:
            self._has_claims = True
            balances, key = self.state.balances, claim(subaccount.subaccount_id) << ASSET_BITS
            for market_id in subaccount.claims:
                positive -= balances.get(key | claim_lend(market_id), 0)
                negative += balances.get(key | claim_debt(market_id), 0)
        if self._has_claims:
            self._all.claims[number], self._all.negative_claims[number] = positive, negative

    def _add_batch(self, batch: PostingBatch) -> None:
        """Add what a batch of USDC or of costs moved; a row beyond what int64 adds up is read again."""
        kind, asset_id, owners, atoms = batch.account_kind, batch.asset, batch.owners, batch.atoms
        column: npt.NDArray[np.int64] | None = None
        if kind == _AVAILABLE and asset_id == self.state.usdc and asset_id in self._all.assets:
            column = self._all.assets[asset_id].exact
        elif kind == _POSITION and is_of_market(asset_id) and asset_id == cost(market_of(asset_id)):
            column = self._all.costs
        is_small = -_MOST_ATOMS < int(atoms.min()) and int(atoms.max()) < _MOST_ATOMS
        if column is None or int(owners[-1]) >= self._rows or not is_small:
            self.forget(owners.tolist())
            return
        column[owners] -= atoms
        self._near_rows = None
        if kind == _AVAILABLE:
            np.minimum(column, _MOST_ATOMS, out=column)
        else:
            self.forget(owners[np.abs(column[owners]) >= _MOST_ATOMS].tolist())

    def _grow(self, rows: int) -> None:
        self._rows = rows
        if rows > len(self._all.costs):
            self._all.grow(max(rows, 2 * len(self._all.costs)))


def _unsafe(bounds: Bounds) -> list[int]:
    """Rows that may be in liquidation.   [M-6]"""
    found: list[int] = np.flatnonzero(bounds.owes & ~(bounds.equity > bounds.maintenance)).tolist()
    return found


class _Rows:
    """The columns, of all rows or a copy of some."""

    __slots__ = ("assets", "claims", "costs", "lots", "negative_claims", "settles", "unsettled")

    def __init__(self) -> None:
        self.assets: dict[AssetId, _AssetColumns] = {}
        self.lots: dict[int, Floats] = {}
        """Market → signed lots."""
        self.costs: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        """Σ cost over markets, in USDC atoms."""
        self.unsettled: Floats = np.zeros(0)
        self.claims: Floats = np.zeros(0)
        """Σ lend shares that the liquidity fund holds for a row, and Σ debt shares it owes for it."""
        self.negative_claims: Floats = np.zeros(0)
        self.settles: Floats = np.zeros(0)
        """1 in settled mode, else 0.   [S-10, V-1]"""

    def grow(self, capacity: int) -> None:
        for name in _PLAIN:
            setattr(self, name, _longer(getattr(self, name), capacity))
        self.lots = {market_id: _longer(lots, capacity) for market_id, lots in self.lots.items()}
        for columns in self.assets.values():
            columns.grow(capacity)

    def take(self, where: npt.NDArray[np.int64]) -> _Rows:
        """A copy of some rows."""
        found = _Rows()
        for name in _PLAIN:
            setattr(found, name, getattr(self, name)[where])
        found.lots = {market_id: lots[where] for market_id, lots in self.lots.items()}
        found.assets = {asset_id: columns.take(where) for asset_id, columns in self.assets.items()}
        return found

    def put(self, where: npt.NDArray[np.int64], source: _Rows, numbers: npt.NDArray[np.int64]) -> None:
        """Copy rows `numbers` of `source`, which has the same columns."""
        for mine, theirs in zip(self.in_use(), source.in_use(), strict=True):
            mine[where] = theirs[numbers]

    def append(self, other: _Rows) -> None:
        """Rows of another, which has the same columns, follow."""
        for name in _PLAIN:
            setattr(self, name, np.concatenate((getattr(self, name), getattr(other, name))))
        self.lots = {each: np.concatenate((lots, other.lots[each])) for each, lots in self.lots.items()}
        for asset_id, columns in self.assets.items():
            columns.append(other.assets[asset_id])

    def in_use(self) -> list[npt.NDArray[Any]]:
        """Every column that there is, in a fixed order."""
        found: list[npt.NDArray[Any]] = [getattr(self, name) for name in _PLAIN]
        found += [self.lots[market_id] for market_id in sorted(self.lots)]
        for asset_id in sorted(self.assets):
            found += self.assets[asset_id].in_use()
        return found


_PLAIN = ("claims", "costs", "negative_claims", "settles", "unsettled")


class _AssetColumns:
    """One asset: atoms held, lend shares, debt shares. None: nobody has any.

    Of the settlement asset `exact` is what is held, in whole atoms up to `_MOST_ATOMS`, so that ticks can add to it;
    else what is held is rounded down.
    """

    __slots__ = ("capacity", "exact", "kinds")

    def __init__(self, capacity: int, is_exact: bool) -> None:
        self.capacity = capacity
        self.exact: npt.NDArray[np.int64] | None = np.zeros(capacity, np.int64) if is_exact else None
        self.kinds: list[Floats | None] = [None, None, None]

    def clear(self, numbers: list[int]) -> None:
        if self.exact is not None:
            self.exact[numbers] = 0
        for column in self.kinds:
            if column is not None:
                column[numbers] = 0.0

    def write(self, lines: list[list[float]]) -> None:
        """Of each kind its rows and then what stands there."""
        for kind in (_HELD, _LENT, _OWED):
            rows, values = lines[2 * kind : 2 * kind + 2]
            if not rows:
                continue
            where = np.array(rows, dtype=np.int64)
            if kind == _HELD and self.exact is not None:
                self.exact[where] = values
                continue
            column = self.kinds[kind]
            if column is None:
                column = self.kinds[kind] = np.zeros(self.capacity)
            column[where] = np.array(values, dtype=np.float64)

    def grow(self, capacity: int) -> None:
        self.capacity = capacity
        if self.exact is not None:
            self.exact = _longer(self.exact, capacity)
        self.kinds = [None if column is None else _longer(column, capacity) for column in self.kinds]

    def take(self, where: npt.NDArray[np.int64]) -> _AssetColumns:
        found = _AssetColumns(0, False)
        found.capacity = len(where)
        found.exact = None if self.exact is None else self.exact[where]
        found.kinds = [None if column is None else column[where] for column in self.kinds]
        return found

    def append(self, other: _AssetColumns) -> None:
        if self.exact is not None and other.exact is not None:
            self.exact = np.concatenate((self.exact, other.exact))
        self.kinds = [
            None if mine is None or theirs is None else np.concatenate((mine, theirs))
            for mine, theirs in zip(self.kinds, other.kinds, strict=True)
        ]

    def in_use(self) -> list[npt.NDArray[Any]]:
        return [column for column in (self.exact, *self.kinds) if column is not None]


def _note(lines: dict[AssetId, list[list[float]]], asset_id: AssetId, kind: int, row: int, value: float) -> None:
    found = lines.get(asset_id)
    if found is None:
        found = lines[asset_id] = [[], [], [], [], [], []]
    found[2 * kind].append(row)
    found[2 * kind + 1].append(value)


class _Sums:
    """What a sweep adds up for each row, in USD (1e-8)."""

    __slots__ = ("gained", "gross", "maintenance", "owed", "value")

    def __init__(self, rows: int) -> None:
        self.value = np.zeros(rows)
        self.gained = np.zeros(rows)
        """Of positions and unsettled equity: either sign."""
        self.gross = np.zeros(rows)
        """The sizes of what `gained` and positions consist of."""
        self.owed = np.zeros(rows)
        self.maintenance = np.zeros(rows)

    def part(self, start: int, stop: int) -> _Sums:
        """Views of some rows."""
        found = _Sums(0)
        for name in _SUMMED:
            setattr(found, name, getattr(self, name)[start:stop])
        return found


_SUMMED = ("gained", "gross", "maintenance", "owed", "value")


class _Screen:
    """What the columns are multiplied with at one moment, each factor moved to its safe side."""

    __slots__ = (
        "assets",
        "atoms_of_usd",
        "claim",
        "margin_pad",
        "markets",
        "negative_claim",
        "pad",
        "prices",
        "steepest_base",
        "steepest_factor",
        "usd",
        "usdc",
    )

    def __init__(self, columns: Columns, at_us: int, marks: Mapping[AssetId, int] | None) -> None:
        state = columns.state
        rows = columns._all
        self.usdc = state.usdc
        in_use = sorted(rows.assets.items())
        assert len(in_use) + len(rows.lots) <= _MOST_COLUMNS, f"the band is proven for {_MOST_COLUMNS} columns"
        self.assets = [(each, found, _factors(state, each, found, at_us, marks)) for each, found in in_use]
        self.prices: dict[tuple[int, AssetId], float] = {}
        """Every price that a row is made of."""
        self.markets: list[tuple[int, _MarketFactors]] = []
        self.pad, self.margin_pad = 2.0, 2.0
        self.steepest_base = self.steepest_factor = 0.0
        self.usd = self.atoms_of_usd = self.claim = self.negative_claim = 0.0
        for asset_id, _columns, factors in self.assets:
            self.prices[_HELD, asset_id] = _price(state, asset_id, marks)
            self.prices[_LENT, asset_id], self.prices[_OWED, asset_id] = factors.claim, factors.debt
            self._add(factors.pad, 1.0, factors.maintenance_base, factors.maintenance_factor)
        if rows.lots or columns._has_claims or rows.costs.any() or rows.unsettled.any():
            self._add_settling(columns, at_us, marks)

    def _add_settling(self, columns: Columns, at_us: int, marks: Mapping[AssetId, int] | None) -> None:
        state, usdc = columns.state, columns.state.usdc
        price, unit = _price(state, usdc, marks), 10 ** state.assets[usdc].decimals
        self.prices[_HELD, usdc] = price
        self.usd = price / (unit * _PRICE_IN_USD)
        self.atoms_of_usd = unit * _PRICE_IN_USD / price * _UP
        for market_id in sorted(columns._all.lots):
            factors, mark_lot = _market_factors(state, market_id, self.usd, marks)
            self.markets.append((market_id, factors))
            self.prices[contracts(market_id), market_id] = mark_lot
            least = max(factors.maintenance_base, factors.maintenance_factor * 2.0**21)
            pads = 4 * self.usd * _UP, 2 * least + 2
            self._add(*pads, factors.maintenance_base, factors.maintenance_factor)
        if columns._has_claims:
            pool = lending.totals(state, state.pools[usdc], at_us)
            self.claim = pool.lent / pool.lend_shares * self.usd * _DOWN if pool.lend_shares else 0.0
            self.negative_claim = pool.borrowed / pool.debt_shares * self.usd * _UP if pool.debt_shares else 0.0
            self.prices[contracts(0), _LENT], self.prices[contracts(0), _OWED] = self.claim, self.negative_claim
            self.pad += 4 * self.usd * len(state.markets)

    def _add(self, pad: float, margin_pad: float, base: float, factor: float) -> None:
        self.pad += pad
        self.margin_pad += margin_pad
        self.steepest_base = max(self.steepest_base, base)
        self.steepest_factor = max(self.steepest_factor, factor)


class _MarketFactors(NamedTuple):
    """What one perpetual's lots are multiplied with, in USD (1e-8) a lot."""

    notional: float
    """Its mark, up."""
    gain: float
    """Mark − settled, as near as floats are."""
    size: float
    """The larger of both, up."""
    maintenance_base: float
    maintenance_factor: float


def _market_factors(
    state: State, market_id: int, usd: float, marks: Mapping[AssetId, int] | None
) -> tuple[_MarketFactors, int]:
    """(factors, mark in quote atoms per lot)"""
    market = state.markets[market_id]
    perpetual = market.parameters.perpetual
    assert perpetual is not None, f"market {market_id} is no perpetual"
    mark = market.mark_lot
    if marks is not None and contracts(market_id) in marks:
        mark = margin.lot_value(market.parameters, marks[contracts(market_id)])
    gain = mark - market.settled
    factors = _MarketFactors(
        mark * usd * _UP,
        gain * usd,
        max(mark, abs(gain)) * usd * _UP,
        perpetual.mmf_base / RATE_SCALE * _UP,
        perpetual.mmf_factor / (RATE_SCALE * ROOT_SCALE) * _UP,
    )
    return factors, mark


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
    maintenance_base: float
    maintenance_factor: float
    flat_below: float
    """Atoms up to which the curve is not below the weight."""


def _factors(
    state: State, asset_id: AssetId, columns: _AssetColumns, at_us: int, marks: Mapping[AssetId, int] | None
) -> _Factors:
    asset, price = state.assets[asset_id], _price(state, asset_id, marks)
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
        asset.mmf_base / RATE_SCALE * _UP,
        asset.mmf_factor / (RATE_SCALE * ROOT_SCALE) * _UP,
        flat_below,
    )


def _price(state: State, asset_id: AssetId, marks: Mapping[AssetId, int] | None) -> int:
    return (marks if marks is not None else state.marks).get(asset_id, 0) or mark_price(state, asset_id)


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


def _add_block(screen: _Screen, columns: _Rows, block: slice, sums: _Sums, scratch: Floats) -> None:
    """Everything that some rows hold, owe and have gained."""
    shortfall = None
    if columns.lots or screen.usd:
        shortfall = scratch[4]
        for market_id, factors in screen.markets:
            _add_market(columns.lots[market_id][block], factors, sums, scratch)
        _add_settling(screen, columns, block, sums, shortfall, scratch)
    for asset_id, _columns, asset_factors in screen.assets:
        lacking = shortfall if asset_id == screen.usdc else None
        _add_asset(columns.assets[asset_id], asset_factors, block, sums, scratch, lacking)


def _add_settling(
    screen: _Screen, columns: _Rows, block: slice, sums: _Sums, shortfall: Floats, scratch: Floats
) -> None:
    """Costs, unsettled equity and claims; into `shortfall` the USDC atoms that they owe.   [C-3, M-1, V-3]"""
    net, quantity = scratch[0], scratch[1]
    np.multiply(columns.costs[block], screen.usd, out=net)
    sums.gained += net
    np.abs(net, out=net)
    sums.gross += net
    np.multiply(sums.gross, 2.0**-40, out=shortfall)
    shortfall -= sums.gained
    np.maximum(shortfall, 0.0, out=shortfall)
    shortfall *= columns.settles[block]
    np.multiply(columns.unsettled[block], screen.usd, out=net)
    sums.gained += net
    np.abs(net, out=quantity)
    sums.gross += quantity
    np.minimum(net, 0.0, out=net)
    shortfall -= net
    shortfall *= screen.atoms_of_usd
    for shares, worth, into in (
        (columns.claims, screen.claim, sums.value),
        (columns.negative_claims, screen.negative_claim, sums.owed),
    ):
        if worth:
            np.multiply(shares[block], worth, out=net)
            into += net


def _add_market(lots: Floats, factors: _MarketFactors, sums: _Sums, scratch: Floats) -> None:
    """Add one market's gains, sizes and maintenance margins to a block of rows."""
    size, notional, other = scratch[0], scratch[1], scratch[2]
    if factors.gain:
        np.multiply(lots, factors.gain, out=other)
        sums.gained += other
    np.abs(lots, out=size)
    np.multiply(size, factors.notional, out=notional)
    if factors.size == factors.notional:
        sums.gross += notional
    else:
        size *= factors.size
        sums.gross += size
    sums.maintenance += _margin(notional, factors.maintenance_base, factors.maintenance_factor, other)


def _add_asset(
    columns: _AssetColumns,
    factors: _Factors,
    block: slice,
    sums: _Sums,
    scratch: Floats,
    shortfall: Floats | None,
) -> None:
    """Add one asset's value, maintenance margin and liability to a block of rows.

    `shortfall`: atoms that positions owe of it.
    """
    net, quantity, notional, other = scratch[:4]
    held, claims, debts = (None if column is None else column[block] for column in columns.kinds)
    if columns.exact is not None:
        held = np.multiply(columns.exact[block], _DOWN, out=notional)

    # What is held and lent, and its value.
    if claims is not None:
        np.multiply(claims, factors.claim, out=quantity)
        if held is not None:
            quantity += held
    elif held is not None:
        quantity[:] = held
    else:
        quantity[:] = 0.0
    if factors.weight:
        _add_value(factors, quantity, sums.value, notional, other)

    # What is owed, and what is owed beyond what is held: the exposure without open orders.
    if debts is not None:
        np.multiply(debts, factors.debt, out=net)
        np.multiply(net, factors.liability, out=other)
        sums.owed += other
        net -= quantity
        if shortfall is not None:
            net += shortfall
    elif shortfall is not None:
        np.subtract(shortfall, quantity, out=net)
    else:
        return
    _notional(factors, net, notional)
    sums.maintenance += _margin(notional, factors.maintenance_base, factors.maintenance_factor, other)


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


def _margin(notional: Floats, base: float, factor: float, out: Floats) -> Floats:
    """At least the maintenance margin of each notional: max(base, factor × √notional) of it.   [M-3]"""
    if factor and factor * float(notional.max()) ** 0.5 * _UP > base:
        np.sqrt(notional, out=out)
        out *= factor
        np.maximum(out, base, out=out)
        out *= notional
    else:
        np.multiply(notional, base, out=out)
    return out


def _longer(column: npt.NDArray[Any], capacity: int) -> npt.NDArray[Any]:
    longer = np.zeros(capacity, column.dtype)
    longer[: len(column)] = column
    return longer
