"""The settlement tick: every position pays or receives in USDC what it gained or lost since the last.   [S-10 … S-15]

Arrays compute and post what nearly everybody owes or is owed; only who cannot simply pay is looked at one by one: what
is lent is redeemed, a loan is taken, the rest is unsettled equity. Cash is collected first and then paid, in a single
journal transaction; in the same one the liquidity fund moves the claims of those who do not realize.

Memo of a SETTLEMENT: (second, ((market, mark before, mark), …), movements of the USDC pool), marks in quote atoms per
lot. An account's unsettled equity is a credit while others owe it, a debit while it owes.   [S-13, V-4]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine import cash, conversions, lending, orders, owed, virtual
from engine.commands import SettlePositions, Side
from engine.events import LendingSource, Outcome, PositionsSettled, SettlementMoved
from engine.formulas.lending import RATE_ONE, YEAR_MS
from engine.posting import Columns, drop_position, post_batch
from engine.rejections import RejectReason, require
from engine.state import ASSET_BITS, SPENDS_AT_FILL, Market, Position, State, Subaccount
from ledger.amounts import mul_div_down, mul_div_up
from ledger.chart import (
    INSURANCE_FUND,
    INSURANCE_UNSETTLED,
    ROUNDING,
    ROUNDING_UNSETTLED,
    AccountKind,
    available,
    cost,
)
from ledger.journal import JournalKind, Posting, exact_sum

Ints = npt.NDArray[Any]
"""An int64 column, or one of Python's ints (dtype object) where 64 bits would not do: the arithmetic is the same."""

TICK_SECONDS = 10
SECOND_US = 1_000_000
_SAFE = 2**62
_AVAILABLE = int(AccountKind.AVAILABLE)
_UNSETTLED = int(AccountKind.UNSETTLED)
_POSITION = int(AccountKind.POSITION)
_ASSET_MASK = (1 << ASSET_BITS) - 1


def settle_positions(state: State, command: SettlePositions, outcome: Outcome) -> None:
    """A tick: interest on what is unsettled, then collect and pay, then what earlier ticks left, then conversions.

    [S-12 … S-15]
    """
    second = outcome.at_us // SECOND_US
    at_tick = second % TICK_SECONDS == 0 and second > state.settled_second
    require(at_tick, RejectReason.TICK_OUT_OF_ORDER, second=second, last=state.settled_second)
    # From here the command succeeds.
    state.settled_second = second
    if state.unsettled:
        _charge_interest(state, outcome)
    _settle(state, outcome, second)
    if state.unsettled:
        _retry(state, outcome)
        if state.virtual and _lend_gains(state, outcome):
            _retry(state, outcome)
    if state.virtual:
        _settle_excess_claims(state, outcome)
    if state.unsettled or state.unclaimed:
        _convert_collateral(state, outcome)


def is_moving(state: State) -> bool:
    """Whether a tick now would move anything; if not, it may be left out: it would write nothing but its command.

    Nothing moves while every held market's mark is the one last settled, no position or residue has a cost, and nobody
    has unsettled equity: each x of S-10 is 0 then, and so is what is retried and what interest is charged on.   [S-14]
    """
    if state.unsettled:
        return True
    for market in state.markets.values():
        if market.mark_lot and (
            market.traded or (market.holders and market.settled != market.mark_lot) or _residue(state, market)
        ):
            return True
    return False


def is_awaited(state: State) -> bool:
    """Whether ticks come every ten seconds: somebody holds a position or has unsettled equity.   [S-10]"""
    if state.unsettled:
        return True
    return any(market.holders for market in state.markets.values())


def pay_unsettled(state: State, outcome: Outcome) -> None:
    """USDC that came in pays negative unsettled equity before anything else.   [S-13]"""
    usdc, numbers = state.usdc, []
    for key in outcome.touched:
        number = key >> ASSET_BITS
        if key & _ASSET_MASK == usdc and number in state.unsettled and state.subaccounts[number].unsettled < 0:
            numbers.append(number)
    if not numbers:
        return
    till = _Till(state, outcome)
    for number in sorted(numbers):
        till.take_available(state.subaccounts[number], -state.subaccounts[number].unsettled)
    _distribute(state, outcome, till)


# --- the tick's one transaction -------------------------------------------------------------------------------------


def _settle(state: State, outcome: Outcome, second: int) -> None:
    """Compute all, collect, pay.   [S-10, S-12, S-13, V-4]"""
    gains = _compute(state)
    if gains is None:
        return
    usdc, till = state.usdc, _Till(state, outcome)
    losers, winners = gains.ids[gains.atoms < 0], gains.ids[gains.atoms > 0]
    due, owed_to = -gains.atoms[gains.atoms < 0], gains.atoms[gains.atoms > 0]
    till.passing = _lent_by(state, outcome.at_us, winners, owed_to)
    collected = _collect(state, till, losers, due)
    rounding_pays = max(0, -gains.rounding)
    virtual_losses = -sum(gain.atoms for gain in gains.virtual if gain.atoms < 0)
    virtual_gains = [gain for gain in gains.virtual if gain.atoms > 0]
    have = _total(collected) + rounding_pays + virtual_losses
    want = _total(owed_to) + max(0, gains.rounding) + sum(gain.atoms for gain in virtual_gains)
    advance = _advance(state, want - have)

    payable = have + advance
    paid = owed_to if payable == want else _shares_of(owed_to, payable, want)
    credits = [gain._replace(atoms=mul_div_down(gain.atoms, payable, want)) for gain in virtual_gains]
    _lend_payouts(state, till, winners, paid)
    paid, given_up = _move_claims(state, outcome, till, gains.virtual, credits, winners, paid)
    # Payouts were rounded down: of what is given up, less than an atom a winner is not theirs but rounding's.
    paid_rounding = payable - _total(paid) - sum(atoms for _id, _market, atoms in credits) - _sum(given_up)
    for number, atoms in till.lend_shortfall(winners, paid):
        # Less than an atom a winner: what was rounded down cannot be redeemed for the rounding account.
        collected[np.searchsorted(losers, number)] -= atoms
        till.leave(number, -atoms)
        paid_rounding -= atoms

    for gain, credit in zip(virtual_gains, credits, strict=True):
        till.leave(gain.subaccount_id, gain.atoms - credit.atoms)
    for number, atoms in given_up:
        till.leave(number, -atoms)
    postings = till.into.postings
    net = _net_column(gains, collected, paid)
    columns = [*gains.costs, (_AVAILABLE, usdc, gains.ids, net)]
    if payable != want or given_up:
        short = owed_to - paid
        for number, atoms in zip(winners[short != 0].tolist(), short[short != 0].tolist(), strict=True):
            till.leave(number, atoms)
    columns += till.unsettled_columns()
    postings += gains.residues
    _add(postings, ROUNDING, usdc, rounding_pays - paid_rounding)
    _add(postings, ROUNDING_UNSETTLED, usdc, paid_rounding - max(0, gains.rounding))
    _add(postings, INSURANCE_FUND, usdc, advance)
    _add(postings, INSURANCE_UNSETTLED, usdc, -advance)
    if not postings and not any(len(owners) for _kind, _asset, owners, _atoms in columns):
        _note_marks(outcome, gains, 0, 0, 0)
        return
    marks = tuple((market.parameters.market_id, market.settled, market.mark_lot) for market in gains.markets)
    post_batch(state, outcome, JournalKind.SETTLEMENT, (second, marks, tuple(till.into.memos)), postings, columns)
    outcome.settled = gains.ids
    if gains.virtual:
        claimed = np.array([gain.subaccount_id for gain in gains.virtual], dtype=np.int64)
        outcome.settled = np.union1d(gains.ids, claimed)
    for held in gains.closed:
        drop_position(held)
    till.report("realize")
    unpaid = want - payable + _sum(given_up)
    _note_marks(outcome, gains, _total(paid), _total(collected), unpaid)


def _note_marks(outcome: Outcome, gains: _Gains, paid: int, collected: int, unpaid: int) -> None:
    for market in gains.markets:
        market.settled = market.mark_lot
    market_ids = tuple(market.parameters.market_id for market in gains.markets)
    marks = tuple(market.mark_lot for market in gains.markets)
    outcome.events.append(PositionsSettled(market_ids, marks, paid, collected, unpaid))


def _collect(state: State, till: _Till, losers: Ints, due: Ints) -> Ints:
    """What each loser pays in cash, by ascending id: most simply have it available.   [S-12]"""
    is_plain = _free(state, losers) >= due
    for number in state.unsettled:
        # Whoever is owed gives that up first.   [S-12 (0)]
        at = int(np.searchsorted(losers, number))
        if at < len(losers) and losers[at] == number and state.subaccounts[number].unsettled > 0:
            is_plain[at] = False
    collected = due.copy()
    if not is_plain.all():
        for at in np.flatnonzero(~is_plain).tolist():
            collected[at] = till.collect(state.subaccounts[int(losers[at])], int(due[at]))
    return collected


def _move_claims(
    state: State,
    outcome: Outcome,
    till: _Till,
    moved: list[virtual.Gain],
    credits: list[virtual.Gain],
    winners: Ints,
    paid: Ints,
) -> tuple[Ints, list[virtual.GivenUp]]:
    """Losses and gains of virtual accounts become claims; what idle lacks for them is cut from cash payouts.   [V-4]

    Lent USDC that was redeemed may pass to winners as shares, so it needs no idle.
    """
    if not moved:
        return paid, []
    losses = [gain for gain in moved if gain.atoms < 0]
    in_cash = _total(paid) - sum(till.lent_back.values())
    given_up = virtual.settle(state, outcome, till.into, [*losses, *credits], min(sum(till.redeemed.values()), in_cash))
    cut_from = paid.copy()
    for at, number in enumerate(winners.tolist() if till.lent_back else []):
        cut_from[at] -= till.lent_back.get(number, 0)
    whole = _total(cut_from)
    missing = left = min(_sum(given_up), whole)
    paid = paid.copy()
    for at in np.flatnonzero(cut_from).tolist():
        cut = min(left, mul_div_up(int(cut_from[at]), missing, whole))
        paid[at] -= cut
        left -= cut
    return paid, given_up


def _sum(given_up: list[virtual.GivenUp]) -> int:
    return sum(atoms for _number, atoms in given_up)


def _lent_by(state: State, at_us: int, winners: Ints, owed_to: Ints) -> int:
    """USDC that winners would lend again at once: to them lent USDC passes as shares.   [S-12 (2)]"""
    if not state.automatic or not len(winners):
        return 0
    numbers = np.fromiter(state.automatic, np.int64, len(state.automatic))
    is_lent = np.isin(winners, numbers)
    room = lending.lend_room(state, state.usdc, at_us)
    return min(room, _total(owed_to[is_lent])) if is_lent.any() else 0


def _lend_payouts(state: State, till: _Till, winners: Ints, paid: Ints) -> None:
    """Payouts of those with autoLend or autoRepay repay and are lent in the tick's own transaction.   [S-11, S-15, B-5]

    Who has negative unsettled equity pays that first, after the tick.
    """
    if not state.automatic or not len(winners) or state.usdc not in state.pools:
        return
    numbers = np.fromiter(state.automatic, np.int64, len(state.automatic))
    for at in np.flatnonzero(np.isin(winners, numbers)).tolist():
        subaccount, atoms = state.subaccounts[int(winners[at])], int(paid[at])
        if atoms and subaccount.unsettled >= 0:
            till.lend_back(subaccount, atoms)


def _net_column(gains: _Gains, collected: Ints, paid: Ints) -> Ints:
    """Debits of `gains.ids`: what losers paid, less what winners got."""
    net = np.zeros(len(gains.ids), dtype=gains.atoms.dtype)
    net[gains.atoms < 0] = collected
    net[gains.atoms > 0] = -paid
    return net


def _advance(state: State, missing: int) -> int:
    """What the insurance fund lends a tick that could not collect everything.   [S-13]"""
    if missing <= 0 or not state.limits.risk.settlement_advance:
        return 0
    fund = -state.balances.get(INSURANCE_FUND << ASSET_BITS | state.usdc, 0)
    return max(0, min(missing, fund))


def _shares_of(owed_to: Ints, payable: int, want: int) -> Ints:
    """⌊x × payable / want⌋ of each.   [S-13]"""
    return _column([mul_div_down(atoms, payable, want) for atoms in owed_to.tolist()], owed_to)


# --- what everybody gained or lost ----------------------------------------------------------------------------------


class _Gains(NamedTuple):
    """A tick's x of S-10, before anything is paid."""

    markets: list[Market]
    ids: Ints
    """Subaccounts in settled mode whose x is not 0, ascending."""
    atoms: Ints
    """Their x over all markets."""
    costs: list[Columns]
    residues: list[Posting]
    """Costs of the rounding account.   [P-21]"""
    rounding: int
    """What it gains by them."""
    virtual: list[virtual.Gain]
    closed: list[Position]
    """Positions of no lots whose last cost is settled now."""


class _Held(NamedTuple):
    """Who holds how many lots of a market, ascending by subaccount: a cache of `Market.holders`."""

    ids: Ints
    lots: Ints


def _compute(state: State) -> _Gains | None:
    """x = lots × (S1 − S0) + cost of every position, per subaccount; Σ x = 0 with the residues.   [S-10, S-14]"""
    markets, residues, rounding = [], [], 0
    for market_id in sorted(state.markets):
        market = state.markets[market_id]
        residue = _residue(state, market)
        if not market.mark_lot or not (market.holders or residue):
            continue
        markets.append(market)
        if residue:
            residues.append((ROUNDING, cost(market_id), residue))
            rounding += residue
    if not markets:
        return None
    parts = [(market, _held(market), *_costs(market)) for market in markets]
    size = state.rows
    net = np.zeros(size, dtype=np.int64 if _fits(parts) else object)
    columns: list[Columns] = []
    closed: list[Position] = []
    for market, held, ids, costs in parts:
        step = market.mark_lot - market.settled
        if step:
            lots = held.lots.astype(object) if _is_wide(net) else held.lots
            net[held.ids] += lots * step
        if len(ids):
            net[ids] += costs
            columns.append((_POSITION, cost(market.parameters.market_id), ids, costs))
            closed += [position for position in market.traded.values() if not position.lots]
    total = _total(net)
    assert total + rounding == 0, f"settlement at {state.settled_second} s does not sum to 0: {total}, {rounding}"
    claims = _virtual_gains(state, markets, net) if state.virtual else []
    moved = np.flatnonzero(net)
    return _Gains(markets, moved, net[moved], columns, residues, rounding, claims, closed)


def _virtual_gains(state: State, markets: list[Market], net: Ints) -> list[virtual.Gain]:
    """What moves claims, taken out of `net`: open positions of those that do not realize.   [V-1, V-4]"""
    gains = []
    for number in sorted(state.virtual):
        subaccount = state.subaccounts[number]
        if not virtual.settles_virtually(state, subaccount):
            continue
        for market in markets:
            market_id = market.parameters.market_id
            held = subaccount.positions.get(market_id)
            if held is None or not held.lots:
                continue
            atoms = held.lots * (market.mark_lot - market.settled) + held.cost
            net[number] -= atoms
            if atoms:
                gains.append(virtual.Gain(number, market_id, atoms))
    return gains


def _held(market: Market) -> _Held:
    """The market's lots as columns, brought up to date by what was traded since the last tick.   [S-14]"""
    before, moved, holders = market.columns, market.moved, market.holders
    if before is not None and not moved:
        known: _Held = before
        return known
    if before is None or 4 * len(moved) > len(before.ids):
        ids = np.sort(np.fromiter(holders, np.int64, len(holders)))
        lots = _column([holders[number].lots for number in ids.tolist()])
    else:
        numbers = np.sort(np.fromiter(moved, np.int64, len(moved)))
        now = [holders[number].lots if number in holders else 0 for number in numbers.tolist()]
        ids, lots = _merged(before, numbers, _column(now))
    is_held = lots != 0
    if not is_held.all():
        ids, lots = ids[is_held], lots[is_held]
    market.columns = _Held(ids, lots)
    market.moved = {}
    return _Held(ids, lots)


def _merged(before: _Held, numbers: Ints, now: Ints) -> tuple[Ints, Ints]:
    """The columns with other lots for these holders; who is new is put in its place."""
    ids, lots = before.ids, before.lots
    if now.dtype != lots.dtype:
        now, lots = now.astype(object), lots.astype(object)
    at = np.searchsorted(ids, numbers)
    is_known = np.zeros(len(numbers), dtype=bool)
    inside = at < len(ids)
    is_known[inside] = ids[at[inside]] == numbers[inside]
    lots = lots.copy()
    lots[at[is_known]] = now[is_known]
    is_new = ~is_known
    return np.insert(ids, at[is_new], numbers[is_new]), np.insert(lots, at[is_new], now[is_new])


def _costs(market: Market) -> tuple[Ints, Ints]:
    """Who traded since the last tick, ascending, and the cost of each."""
    traded = market.traded
    ids = np.sort(np.fromiter(traded, np.int64, len(traded)))
    return ids, _column([traded[number].cost for number in ids.tolist()])


def _fits(parts: list[tuple[Market, _Held, Ints, Ints]]) -> bool:
    """Whether no sum of a subaccount over all markets can leave 64 bits.   [A-3]"""
    most = 0
    for market, held, _ids, costs in parts:
        if _is_wide(held.lots) or _is_wide(costs):
            return False
        most += _largest(held.lots) * abs(market.mark_lot - market.settled) + _largest(costs)
    return most < _SAFE


def _largest(column: Ints) -> int:
    return max(int(column.max()), -int(column.min())) if len(column) else 0


def _column(values: list[int], like: Ints | None = None) -> Ints:
    """int64 where everything fits, unless it is to go with a column of Python's ints."""
    if like is None or not _is_wide(like):
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _total(column: Ints) -> int:
    """Σ, exact."""
    return sum(column.tolist()) if _is_wide(column) else exact_sum(column)


def _is_wide(column: Ints) -> bool:
    """Whether it holds Python's ints."""
    return bool(column.dtype.kind == "O")


def _residue(state: State, market: Market) -> int:
    """What rounding of funding left on the rounding account as this market's cost; above zero: a gain.   [P-21]"""
    return -state.balances.get(ROUNDING << ASSET_BITS | cost(market.parameters.market_id), 0)


def _free(state: State, losers: Ints) -> Ints:
    """USDC that each can spend now."""
    known = cash.cash(state)
    free: Ints = known.held[losers] - known.reserved[losers]
    unknown = np.flatnonzero(~known.is_known[losers]).tolist()
    if unknown:
        exact = [state.free(int(losers[at]), state.usdc) for at in unknown]
        if max(exact) >= _SAFE:
            free = free.astype(object)
        free[unknown] = exact
    return free


# --- collecting -------------------------------------------------------------------------------------------------------


class _Till:
    """What a transaction collects from who cannot simply pay, and what becomes unsettled equity.   [S-12, S-13]"""

    __slots__ = ("found", "into", "lent_back", "may_borrow", "outcome", "passing", "redeemed", "state", "unsettled")

    def __init__(self, state: State, outcome: Outcome) -> None:
        self.state = state
        self.outcome = outcome
        self.into = lending.Movements()
        self.unsettled: dict[int, int] = {}
        """Subaccount → change of its unsettled equity, above zero: is owed more."""
        self.found: dict[int, int] = {}
        """Subaccount → what it paid, in cash or by what it was owed."""
        self.lent_back: dict[int, int] = {}
        """Subaccount → what of its payout repaid or was lent at once."""
        self.redeemed: dict[int, int] = {}
        """Subaccount → what it redeemed of what it lends."""
        self.passing = 0
        """What winners are going to lend: as much of what is redeemed needs no idle.   [S-12 (2)]"""
        self.may_borrow = owed.borrow_room(state, outcome.at_us) > 0

    def collect(self, subaccount: Subaccount, atoms: int) -> int:
        """Take `atoms` by S-12 (0) to (3); what is missing is negative unsettled equity. Gives what came in as cash."""
        number = subaccount.subaccount_id
        own = min(atoms, max(0, subaccount.unsettled + self.unsettled.get(number, 0)))
        if own:
            self.leave(number, -own)
        paid = self.take_cash(subaccount, atoms - own)
        self.found[number] = self.found.get(number, 0) + own + paid
        if own + paid < atoms:
            self.leave(number, own + paid - atoms)
        return paid

    def take_available(self, subaccount: Subaccount, atoms: int) -> int:
        """At most `atoms` of what is available.   [S-12 (1)]"""
        number = subaccount.subaccount_id
        paid = min(atoms, max(0, self.state.free(number, self.state.usdc)))
        if paid:
            self.found[number] = self.found.get(number, 0) + paid
        return paid

    def take_cash(self, subaccount: Subaccount, atoms: int) -> int:
        """Steps (1) to (3): available, lent, borrowed; redeems what is needed whatever is idle.   [S-12]

        What idle cannot pay of it passes as shares to those that are paid: `lend_shortfall`. Who has positive claims
        borrows after those, which the retry takes.
        """
        state, outcome, usdc = self.state, self.outcome, self.state.usdc
        number = subaccount.subaccount_id
        self.outcome.touched[number << ASSET_BITS | usdc] = None
        paid = min(atoms, max(0, state.free(number, usdc)))
        left = atoms - paid
        if left and usdc in subaccount.lent:
            redeemed = lending.redemption(state, subaccount, usdc, outcome.at_us, left)
            if redeemed > left and redeemed > lending.totals(state, state.pools[usdc], outcome.at_us).idle:
                redeemed = left
            if redeemed:
                lending.redeem(state, outcome, self.into, subaccount, usdc, redeemed, _SETTLES)
                self.redeemed[number] = redeemed
                left -= min(left, redeemed)
        if left and not (subaccount.claims and virtual.positive(state, subaccount, outcome.at_us)):
            left -= self.borrow(subaccount, left)
        return atoms - left

    def borrow(self, subaccount: Subaccount, atoms: int) -> int:
        """At most `atoms` as a loan, by its setting and as the pool lets pass; gives how much.   [S-12 (3), B-7]"""
        state, outcome = self.state, self.outcome
        if not self.may_borrow or not owed.may_borrow(state, subaccount):
            return 0
        passed = min(sum(self.redeemed.values()), self.passing)
        borrowed = min(atoms, owed.borrow_room(state, outcome.at_us, -passed, is_open=True))
        if borrowed:
            lending.borrow(state, outcome, self.into, subaccount, state.usdc, borrowed, _SETTLES)
        return borrowed

    def leave(self, number: int, atoms: int) -> None:
        """Becomes (above zero) or stops being, or is (below) unsettled equity of the subaccount."""
        if atoms:
            self.unsettled[number] = self.unsettled.get(number, 0) + atoms

    def lend_back(self, subaccount: Subaccount, atoms: int) -> None:
        """A payout repays the subaccount's debt and is lent, as its settings say.   [B-5, B-10]"""
        state, outcome, usdc = self.state, self.outcome, self.state.usdc
        number = subaccount.subaccount_id
        repaid = min(atoms, lending.debt(state, subaccount, usdc, outcome.at_us))
        if repaid:
            lending.repay(state, outcome, self.into, subaccount, usdc, repaid, LendingSource.AUTO_BORROW_REPAY)
        lent = 0
        if subaccount.auto_lend:
            lent = min(atoms - repaid, lending.lend_room(state, usdc, outcome.at_us))
            if lent > 0:
                lending.lend(state, outcome, self.into, subaccount, usdc, lent, LendingSource.AUTO_LEND)
        self.lent_back[number] = repaid + lent

    def lend_shortfall(self, receivers: Ints, paid: Ints) -> list[tuple[int, int]]:
        """What the pool has not idle passes as lend shares at par to those that are paid, pro rata, ⌈⌉ each.

        Redeeming and lending in one transaction is passing on: judged by the net, no token leaves the pool. What went
        to no subaccount cannot pass: (subaccount, atoms) of redemptions that are undone for it.   [S-12 (2)]
        """
        state, usdc = self.state, self.state.usdc
        if usdc not in state.pools:
            return []
        missing = -lending.totals(state, state.pools[usdc], self.outcome.at_us).idle
        if missing <= 0:
            return []
        numbers = receivers.tolist()
        in_cash = [atoms - self.lent_back.get(number, 0) for number, atoms in zip(numbers, paid.tolist(), strict=True)]
        whole = sum(in_cash)
        passed = left = min(missing, whole)
        for number, atoms in zip(numbers, in_cash, strict=True):
            part = min(left, mul_div_up(atoms, passed, whole)) if atoms > 0 else 0
            if part:
                subaccount = state.subaccounts[number]
                lending.lend(state, self.outcome, self.into, subaccount, usdc, part, _SETTLES)
                left -= part
        return self._undo(missing - passed) if missing > passed else []

    def _undo(self, atoms: int) -> list[tuple[int, int]]:
        """The last redemptions, as much of them as `atoms`, are lent again."""
        undone = []
        for number, redeemed in reversed(self.redeemed.items()):
            part = min(atoms, redeemed, self.found.get(number, 0))
            if part:
                subaccount = self.state.subaccounts[number]
                lending.lend(self.state, self.outcome, self.into, subaccount, self.state.usdc, part, _SETTLES)
                self.found[number] -= part
                undone.append((number, part))
                atoms -= part
        assert atoms == 0, f"the USDC pool lacks {atoms} atoms that nobody redeemed"
        return undone

    def unsettled_columns(self) -> list[Columns]:
        """Changes of unsettled equity as a column."""
        numbers = sorted(number for number, atoms in self.unsettled.items() if atoms)
        if not numbers:
            return []
        ids = np.array(numbers, dtype=np.int64)
        return [(_UNSETTLED, self.state.usdc, ids, [-self.unsettled[number] for number in numbers])]

    def report(self, source: str) -> None:
        """Tell those that were looked at one by one what they paid."""
        for number, atoms in self.found.items():
            if atoms:
                self.outcome.events.append(SettlementMoved(number, source, -atoms))


_SETTLES = LendingSource.RECONCILIATION


# --- unsettled equity -------------------------------------------------------------------------------------------------


def _charge_interest(state: State, outcome: Outcome) -> None:
    """Ten seconds of the USDC borrow rate on unsettled equity, charged up, credited down; the residue is rounding's.

    Every tick runs while there is any, so ten seconds are what has passed since it was last charged, or less.   [S-13]
    """
    pool = state.pools.get(state.usdc)
    now = lending.totals(state, pool, outcome.at_us) if pool is not None else None
    if now is None or not now.borrowed:
        return
    # At the utilization of now: `now.rate` is that of before the last accrual, which a restart does not know.
    rate = lending.borrow_rate(now, lending.lending_parameters(state, state.usdc))
    elapsed, scale = rate * TICK_SECONDS * 1_000, RATE_ONE * YEAR_MS
    moved = {}
    for number in sorted(state.unsettled):
        # ⌊⌋ of a signed amount: a credit down, a charge up.
        moved[number] = mul_div_down(state.subaccounts[number].unsettled, elapsed, scale)
    insured = mul_div_down(max(0, _insured(state)), elapsed, scale)
    rest = sum(moved.values()) + insured
    if not rest and not insured and not any(moved.values()):
        return
    usdc = state.usdc
    postings: list[Posting] = []
    _add(postings, INSURANCE_UNSETTLED, usdc, -insured)
    _add(postings, ROUNDING_UNSETTLED, usdc, rest)
    ids = np.array(list(moved), dtype=np.int64)
    columns: list[Columns] = [(_UNSETTLED, usdc, ids, [-atoms for atoms in moved.values()])]
    post_batch(state, outcome, JournalKind.UNSETTLED_INTEREST, (str(rate),), postings, columns)


def _retry(state: State, outcome: Outcome) -> None:
    """Collect again what earlier ticks, or this one, left: by ascending id, for whoever waits.   [S-13]"""
    till = _Till(state, outcome)
    for number in sorted(state.unsettled):
        subaccount = state.subaccounts[number]
        owes = -subaccount.unsettled
        if owes <= 0:
            continue
        paid = 0
        if number in state.virtual:
            # What a virtual loser gave up becomes its claim after all, not a loan, while idle allows.   [V-2, V-4]
            paid = virtual.collect(state, outcome, till.into, subaccount, owes)
            if paid:
                # The fund's debt pays: nothing of it was available to the subaccount.
                till.into.postings.append((available(number), state.usdc, -paid))
        if paid < owes:
            paid += till.take_cash(subaccount, owes - paid)
        if paid < owes and subaccount.claims:
            gains = virtual.positive(state, subaccount, outcome.at_us)
            redeemed = virtual.redeem(state, outcome, till.into, subaccount, min(owes - paid, gains)) if gains else 0
            paid += redeemed
            if gains and redeemed == gains and paid < owes:
                paid += till.borrow(subaccount, owes - paid)
        if paid:
            till.found[number] = paid
    _distribute(state, outcome, till)


def _lend_gains(state: State, outcome: Outcome) -> bool:
    """Positive claims that idle could not redeem for who owes are lent in their own name; whether there were any.

    Then the next retry passes them at par to those that wait.   [S-12 (2)]
    """
    is_any = False
    for number in sorted(state.unsettled):
        subaccount = state.subaccounts[number]
        owes = -subaccount.unsettled
        if owes > 0 and subaccount.claims:
            is_any = virtual.lend_gains(state, outcome, subaccount, owes) > 0 or is_any
    return is_any


def _distribute(state: State, outcome: Outcome, till: _Till) -> None:
    """What was collected pays those that wait, pro rata, rounded down; what is left over is rounding's.   [S-13]"""
    paid = sum(till.found.values())
    usdc = state.usdc
    waiting = {
        number: state.subaccounts[number].unsettled
        for number in sorted(state.unsettled)
        if state.subaccounts[number].unsettled > 0
    }
    insured = max(0, _insured(state))
    whole = sum(waiting.values()) + insured
    owes_nobody = not any(state.subaccounts[number].unsettled < 0 for number in state.unsettled)
    from_rounding = _rounding_pays(state) if owes_nobody and whole else 0
    if not paid and not from_rounding:
        return
    payable = min(paid, whole)
    got = {number: mul_div_down(atoms, payable, whole) for number, atoms in waiting.items()} if whole else {}
    for number in waiting:
        extra = min(from_rounding, waiting[number] - got[number])
        got[number] += extra
        from_rounding -= extra
    to_insurance = mul_div_down(insured, payable, whole) if whole else 0
    left = paid - sum(got.values()) - to_insurance
    for number, atoms in till.found.items():
        till.leave(number, atoms)
    moved = dict.fromkeys(till.found, 0)
    for number, atoms in till.found.items():
        moved[number] += atoms
    for number, atoms in got.items():
        till.leave(number, -atoms)
        moved[number] = moved.get(number, 0) - atoms
        if atoms:
            outcome.touched[number << ASSET_BITS | usdc] = None
            outcome.events.append(SettlementMoved(number, "unsettled", atoms))
    receivers = [number for number, atoms in got.items() if atoms]
    paid_out = _column([got[number] for number in receivers])
    for number, atoms in till.lend_shortfall(np.array(receivers, dtype=np.int64), paid_out):
        till.leave(number, -atoms)
        moved[number] -= atoms
        paid -= atoms
        from_insurance = max(0, atoms - left)
        left -= atoms - from_insurance
        to_insurance -= from_insurance
    postings = till.into.postings
    _add(postings, INSURANCE_FUND, usdc, -to_insurance)
    _add(postings, INSURANCE_UNSETTLED, usdc, to_insurance)
    _add(postings, ROUNDING, usdc, -left)
    _add(postings, ROUNDING_UNSETTLED, usdc, left)
    numbers = sorted(moved)
    ids = np.array(numbers, dtype=np.int64)
    columns: list[Columns] = [(_AVAILABLE, usdc, ids, [moved[number] for number in numbers])]
    columns += till.unsettled_columns()
    memo = (paid, left, tuple(till.into.memos))
    post_batch(state, outcome, JournalKind.UNSETTLED_PAID, memo, postings, columns)
    till.report("unsettled")


def _rounding_pays(state: State) -> int:
    """What the rounding account owes those that wait once nobody else does, as far as it holds USDC.   [S-13]"""
    owed_by = state.balances.get(ROUNDING_UNSETTLED << ASSET_BITS | state.usdc, 0)
    holds = -state.balances.get(ROUNDING << ASSET_BITS | state.usdc, 0)
    return max(0, min(owed_by, holds))


def _insured(state: State) -> int:
    """What the insurance fund advanced and waits for.   [S-13]"""
    return -state.balances.get(INSURANCE_UNSETTLED << ASSET_BITS | state.usdc, 0)


def _settle_excess_claims(state: State, outcome: Outcome) -> None:
    """Negative claims above their share of the collateral are paid by S-12.   [V-3]"""
    for number in sorted(state.virtual):
        subaccount = state.subaccounts[number]
        excess = virtual.excess(state, subaccount, outcome.at_us)
        if excess:
            virtual.pay_claims(state, outcome, subaccount, excess)


def _convert_collateral(state: State, outcome: Outcome) -> None:
    """Whoever still owes sells other collateral; a virtual loser after some ticks, and then for its claims too.

    After as many ticks orders end that lock what it owes, an encumbrance until then.

    [S-12 (4), V-4]
    """
    patience = state.limits.risk.claim_cure_ticks
    for number in sorted(state.unsettled):
        subaccount = state.subaccounts[number]
        owes = -subaccount.unsettled
        if owes <= 0 or number in state.liquidations:
            continue
        is_virtual = virtual.settles_virtually(state, subaccount)
        waited = state.unclaimed[number] = state.unclaimed.get(number, 0) + 1
        if waited >= patience:
            _unlock(state, outcome, subaccount, owes)
            owes = max(0, -subaccount.unsettled)
        if is_virtual:
            if waited < patience:
                continue
            claims = virtual.owed_claims(state, subaccount, outcome.at_us)
            conversions.convert(state, outcome, subaccount, owes + claims)
            pay_unsettled(state, outcome)
            virtual.pay_claims(state, outcome, subaccount, claims, may_borrow=False)
        elif owes > 0:
            conversions.convert(state, outcome, subaccount, owes)
    for number in list(state.unclaimed):
        if state.subaccounts[number].unsettled >= 0:
            del state.unclaimed[number]


def _unlock(state: State, outcome: Outcome, subaccount: Subaccount, owes: int) -> None:
    """Orders end that lock what it owes: or a rich loser that has locked everything would never pay.

    Bids for USDC first, then what else conversions could sell, each oldest first; as many as it takes.   [S-12, S-13]
    """
    number, usdc, touched = subaccount.subaccount_id, state.usdc, orders.Touched()
    locking = [
        (order.side is not Side.BID or order.market.parameters.quote_asset_id != usdc, order_id, order)
        for order_id, order in subaccount.orders.items()
        if order.market.parameters.perpetual is None and not order.flags & SPENDS_AT_FILL
    ]
    for _place, _id, order in sorted(locking, key=lambda each: each[:2]):
        if state.free(number, usdc) >= owes:
            break
        orders.withdraw(state, outcome, order)
        ladder = order.market.book.ladder(order.side)
        touched[ladder, order.price_ticks] = order.market.parameters.market_id
    if touched:
        orders.report_levels(outcome, touched)
        pay_unsettled(state, outcome)


def _add(postings: list[Posting], account: int, asset: int, atoms: int) -> None:
    if atoms:
        postings.append((account, asset, atoms))
