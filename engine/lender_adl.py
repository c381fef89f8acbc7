"""Lent collateral that a liquidation needs and a pool without idle cannot redeem: borrowers give it back, for value.

Nobody's total value changes, only what it is made of; no token moves, no order is placed. Memo of LENDER_ADL: asset,
lender, borrower, atoms, mark, what the borrower pays in USDC atoms, of it available, of it lent, the rest in kind as
(asset, atoms, mark, 1 where lent), then net equity, maintenance margin and E before and after of the lender, and of the
borrower, in USD (1e-8), then the movements.   [L-8, L-10]
"""

from __future__ import annotations

from typing import NamedTuple

from engine import at_mark, insurance, lending, margin, standings
from engine.events import LendingSource, LiquidationChanged, Outcome
from engine.standings import Moment
from engine.state import State, Subaccount, balance_key
from ledger.chart import (
    POOL_LENT,
    ROUNDING,
    AssetId,
    available,
    borrowed,
    debt_share,
)
from ledger.journal import JournalKind, Posting

_SOURCES = (LendingSource.ADL_PROVIDER, LendingSource.LIQUIDATION_ADL)
"""Why the borrower gave, and why the lender got."""


class Paid(NamedTuple):
    """One thing that a borrower pays with, at mark."""

    asset_id: AssetId
    atoms: int
    is_lent: bool
    worth: int
    """In USDC atoms: what it counts for."""


def recover(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, atoms: int) -> int:
    """Have `atoms` of a lent asset back, or their value; gives how many of them are lent no longer.   [L-8]

    First what is idle is redeemed. Then borrowers, the largest debt first, give up what they owe and pay for it. What
    is left stays lent: nobody was there. Not for USDC: its shares pass at par to whom it is owed.
    """
    if asset_id == state.usdc or asset_id not in subaccount.lent:
        return 0
    needed = atoms - max(0, state.free(subaccount.subaccount_id, asset_id))
    if needed <= 0:
        return 0
    found = _redeem_idle(state, outcome, subaccount, asset_id, needed)
    mark = margin.line(state, asset_id)[0]
    for number in borrowers(state, asset_id) if mark else ():
        left = min(needed - found, lending.claim(state, subaccount, asset_id, outcome.at_us))
        if left <= 0:
            break
        borrower = state.subaccounts[number]
        if borrower is subaccount or number in state.liquidations:
            continue
        matched, payment = _match(state, outcome.at_us, borrower, asset_id, left)
        if matched:
            _exchange(state, outcome, subaccount, borrower, asset_id, matched, mark, payment)
            found += matched
    return found


def borrowers(state: State, asset_id: AssetId) -> list[int]:
    """Who owes a pool: the largest debt first, then by id. Of one asset debt × mark orders as debt shares do.   [L-8]

    Put in order when it is needed: a standing order would cost at every loan what is asked where no idle is left.
    """
    share, balances = debt_share(asset_id), state.balances
    found = [
        (-balances.get(balance_key(borrowed(number), share), 0), number)
        for number in state.pools[asset_id].borrowers
    ]
    return [number for _shares, number in sorted(found)]


def _redeem_idle(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, needed: int) -> int:
    """The remaining idle first, whatever the throttle says.   [L-8, B-7]"""
    idle = lending.totals(state, state.pools[asset_id], outcome.at_us).idle
    if idle <= 0:
        return 0
    atoms = lending.redemption(state, subaccount, asset_id, outcome.at_us, min(needed, idle))
    if not 0 < atoms <= idle:
        return 0
    into = lending.Movements()
    lending.redeem(state, outcome, into, subaccount, asset_id, atoms, LendingSource.LIQUIDATION)
    lending.post_alone(state, outcome, into)
    return atoms


# --- one borrower ---------------------------------------------------------------------------------------------------


def _match(
    state: State, at_us: int, borrower: Subaccount, asset_id: AssetId, atoms: int
) -> tuple[int, list[Paid]]:
    """How much of `atoms` the borrower can give up and pay for, and with what: never more than its loan.   [L-8]

    Only as far as its MMR stays under 100 % and does not rise; what it pays for a part is part of what it pays for all,
    so halving finds the most.
    """
    most = min(atoms, lending.debt(state, borrower, asset_id, at_us))
    payment = _payment(state, at_us, borrower, asset_id, most)
    if payment and _may_pay(state, at_us, borrower, asset_id, most, payment):
        return most, payment
    least, best = 0, list[Paid]()
    while most - least > 1:
        middle = (least + most) // 2
        payment = _payment(state, at_us, borrower, asset_id, middle)
        if payment and _may_pay(state, at_us, borrower, asset_id, middle, payment):
            least, best = middle, payment
        else:
            most = middle
    return least, best


def _payment(
    state: State, at_us: int, borrower: Subaccount, asset_id: AssetId, atoms: int
) -> list[Paid]:
    """⌈n × mark⌉ by available USDC, lent USDC, then other collateral at mark in the order of S-12 (4); [] if it cannot.

    [L-8]
    """
    usdc, number = state.usdc, borrower.subaccount_id
    left = at_mark.usdc_up(state, asset_id, atoms)
    found: list[Paid] = []
    # What it owes in settlement, or has in a debt of USDC, is not spent on this.
    cash = max(0, state.free(number, usdc) - max(0, -borrower.unsettled))
    for asset, has, is_lent in (
        (usdc, cash, False),
        (usdc, lending.claim(state, borrower, usdc, at_us), True),
        *_collateral(state, at_us, borrower, asset_id),
    ):
        if left <= 0:
            break
        wanted = at_mark.atoms_up(state, asset, left)
        part = min(has, wanted)
        if is_lent and part < has and _leaves_crumbs(state, at_us, borrower, asset, part):
            continue
        if part > 0:
            counted = left if part == wanted else at_mark.usdc_down(state, asset, part)
            found.append(Paid(asset, part, is_lent, counted))
            left -= counted
    return [] if left > 0 else found


def _collateral(
    state: State, at_us: int, borrower: Subaccount, but: AssetId
) -> list[tuple[AssetId, int, bool]]:
    """(asset, atoms, whether lent) of what has a weight and a price and is not owed: by weight, value, id.   [S-12]"""
    lines = [
        line
        for line in margin.holdings(state, borrower, at_us)
        if line.asset_id not in (but, state.usdc) and line.mark and not line.owed
    ]
    lines.sort(key=lambda line: (-line.weight, -line.value, line.asset_id))
    found = []
    for line in lines:
        free = max(0, state.free(borrower.subaccount_id, line.asset_id))
        found += [(line.asset_id, free, False), (line.asset_id, line.lent, True)]
    return found


def _leaves_crumbs(state: State, at_us: int, borrower: Subaccount, asset_id: AssetId, atoms: int) -> bool:
    """Whether passing `atoms` of what it lends would leave fewer shares than anybody may keep.   [B-4]"""
    return lending.redemption(state, borrower, asset_id, at_us, atoms) != atoms


def _may_pay(
    state: State, at_us: int, borrower: Subaccount, asset_id: AssetId, atoms: int, payment: list[Paid]
) -> bool:
    """Its MMR stays under 100 % and does not rise; compared across.   [L-8, M-6]"""
    changes: dict[AssetId, margin.Change] = {}
    margin.add(changes, asset_id, 0, 0, -atoms, 0)
    for paid in payment:
        margin.add(changes, paid.asset_id, 0 if paid.is_lent else -paid.atoms, -paid.atoms if paid.is_lent else 0, 0, 0)
    before, after = margin.sums(state, borrower, at_us), margin.sums(state, borrower, at_us, changes)
    if after.is_in_liquidation or after.is_unpriced:
        return False
    # One unit of the last digit is what rounding each value down can take.
    return after.maintenance * (before.equity + len(payment) + 1) <= before.maintenance * (after.equity + 1) or (
        after.maintenance <= before.maintenance and after.equity + len(payment) + 1 >= before.equity
    )


def _exchange(
    state: State,
    outcome: Outcome,
    lender: Subaccount,
    borrower: Subaccount,
    asset_id: AssetId,
    atoms: int,
    mark: int,
    payment: list[Paid],
) -> None:
    """One match in one journal transaction: claim and debt end, the borrower pays the lender for it.   [L-8, L-10]"""
    at_us, usdc = outcome.at_us, state.usdc
    giver, taker = borrower.subaccount_id, lender.subaccount_id
    before = [insurance.standing(state, each, at_us) for each in (lender, borrower)]
    for each in (lender, borrower):
        standings.put(state, outcome, each, JournalKind.LENDER_ADL, Moment.BEFORE)
    notional = margin.sums(state, lender, at_us).notional
    into = lending.Movements()
    _end_loans(state, outcome, into, lender, borrower, asset_id, atoms)
    postings: list[Posting] = into.postings
    for paid in payment:
        if paid.is_lent:
            lending.pass_shares(state, outcome, into, borrower, lender, paid.asset_id, paid.atoms, _SOURCES)
        else:
            postings += [
                (available(giver), paid.asset_id, paid.atoms),
                (available(taker), paid.asset_id, -paid.atoms),
            ]
    entry = insurance.posted(state, outcome, JournalKind.LENDER_ADL, postings)
    borrower.judge_by_margin()
    after = [insurance.standing(state, each, at_us) for each in (lender, borrower)]
    for each in (lender, borrower):
        standings.put(state, outcome, each, JournalKind.LENDER_ADL, Moment.AFTER)
    in_usdc = {paid.is_lent: paid.atoms for paid in payment if paid.asset_id == usdc}
    entry.memo = (
        asset_id,
        taker,
        giver,
        atoms,
        mark,
        sum(paid.worth for paid in payment),
        in_usdc.get(False, 0),
        in_usdc.get(True, 0),
        tuple(
            (paid.asset_id, paid.atoms, margin.line(state, paid.asset_id)[0], int(paid.is_lent))
            for paid in payment
            if paid.asset_id != usdc
        ),
        *before[0],
        *after[0],
        *before[1],
        *after[1],
        tuple(into.memos),
    )
    outcome.events.append(
        LiquidationChanged(
            taker,
            "lender_adl",
            before[0][0],
            before[0][1],
            notional,
            asset_id=asset_id,
            quantity=-atoms,
            price=mark,
            mark=mark,
            equity_after_usd=after[0][0],
            maintenance_after_usd=after[0][1],
            counterparty_id=giver,
        )
    )


def _end_loans(
    state: State,
    outcome: Outcome,
    into: lending.Movements,
    lender: Subaccount,
    borrower: Subaccount,
    asset_id: AssetId,
    atoms: int,
) -> None:
    """The lender redeems and the borrower repays `atoms` that nobody holds: lentTotal, borrowedTotal −n.   [L-8, B-4]

    The one's redemption is what the other repays with, so neither needs idle. An atom that rounding a debt up leaves
    over stays with the lenders: there is none idle for it.
    """
    passing = lending.Movements()
    lending.redeem(state, outcome, passing, lender, asset_id, atoms, LendingSource.LIQUIDATION_ADL)
    lending.repay(state, outcome, passing, borrower, asset_id, atoms, LendingSource.ADL_PROVIDER)
    now = lending.begin(state, outcome, asset_id)
    given, got = available(lender.subaccount_id), available(borrower.subaccount_id)
    for account, asset, moved in passing.postings:
        if asset == asset_id and account in (given, got):
            continue
        if account == ROUNDING and now.lend_shares:
            now.lent -= moved
            account = POOL_LENT
        into.postings.append((account, asset, moved))
    into.memos += passing.memos
