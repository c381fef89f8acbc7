"""Losses that nobody could pay: borne by one side's positions, or written off what winners wait for.   [L-5, L-6]"""

from __future__ import annotations

import numpy as np

from engine import standings
from engine.events import LossShared, Outcome, SettlementMoved
from engine.formulas.liquidation import loss_per_lot, shared_loss
from engine.posting import post_batch
from engine.standings import Moment
from engine.state import Market, State, Subaccount, balance_key
from ledger.amounts import mul_div_down
from ledger.chart import (
    INSURANCE_UNSETTLED,
    ROUNDING,
    ROUNDING_UNSETTLED,
    AccountKind,
    cost,
    position,
    unsettled,
)
from ledger.journal import JournalKind, Posting

LONGS, SHORTS = 0, 1
"""Places in `Market.loss_index`."""


def share(
    state: State, outcome: Outcome, market: Market, subaccount: Subaccount, is_long_side: bool, atoms: int
) -> int:
    """Charge a loss of `subaccount` to the positions of one side, by lots; gives what was charged, 0 or all of it.

    The side's loss index rises by ⌈D × 1e12 / open interest⌉; each position's cost bears ⌈index × lots⌉ and is paid at
    its next tick, the loser's cost is relieved of D, what was rounded up goes to rounding. Who has no position there
    shares nothing.   [L-6]
    """
    market_id = market.parameters.market_id
    number = subaccount.subaccount_id
    side = [
        (owner, abs(held.lots))
        for owner, held in sorted(market.holders.items())
        if owner != number and held.lots and (held.lots > 0) == is_long_side
    ]
    if atoms <= 0 or not side:
        return 0
    open_lots = sum(lots for _owner, lots in side)
    per_lot = loss_per_lot(atoms, open_lots)
    charges = [shared_loss(per_lot, lots) for _owner, lots in side]
    rounded = sum(charges) - atoms
    asset = cost(market_id)
    postings: list[Posting] = [(position(number), asset, -atoms)]
    if rounded:
        postings.append((ROUNDING, asset, -rounded))
    market.loss_index[LONGS if is_long_side else SHORTS] += per_lot
    owners = np.array([owner for owner, _lots in side], dtype=np.int64)
    columns = [(int(AccountKind.POSITION), asset, owners, charges)]
    memo = (market_id, number, int(is_long_side), atoms, str(per_lot), market.mark_lot, open_lots)
    standings.put(state, outcome, subaccount, JournalKind.LOSS_SHARED, Moment.BEFORE)
    post_batch(state, outcome, JournalKind.LOSS_SHARED, memo, postings, columns)
    outcome.events.append(LossShared(market_id, is_long_side, atoms, per_lot))
    return atoms


def write_off(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int) -> int:
    """Take `atoms` of a negative unsettled equity off the positive ones, pro rata; gives how much that was.   [L-5]

    Rounding's and the insurance fund's count as anybody's; each bears ⌊its part⌋, rounding what that leaves.
    """
    number, usdc = subaccount.subaccount_id, state.usdc
    owners = [(owner, state.subaccounts[owner].unsettled) for owner in sorted(state.unsettled)]
    owners = [(owner, held) for owner, held in owners if held > 0]
    funds = [
        (account, -state.balances.get(balance_key(account, usdc), 0))
        for account in (INSURANCE_UNSETTLED, ROUNDING_UNSETTLED)
    ]
    funds = [(account, held) for account, held in funds if held > 0]
    total = sum(held for _each, held in owners + funds)
    atoms = min(atoms, -subaccount.unsettled, total)
    if atoms <= 0:
        return 0
    cuts = [mul_div_down(atoms, held, total) for _owner, held in owners]
    fund_cuts = [mul_div_down(atoms, held, total) for _account, held in funds]
    rest = atoms - sum(cuts) - sum(fund_cuts)
    postings: list[Posting] = [(unsettled(number), usdc, -atoms)]
    postings += [(account, usdc, cut) for (account, _held), cut in zip(funds, fund_cuts, strict=True) if cut]
    if rest:
        postings.append((ROUNDING_UNSETTLED, usdc, rest))
    column = np.array([owner for owner, _held in owners], dtype=np.int64)
    columns = [(int(AccountKind.UNSETTLED), usdc, column, cuts)]
    memo = (number, atoms, total, rest)
    standings.put(state, outcome, subaccount, JournalKind.WRITE_OFF, Moment.BEFORE)
    post_batch(state, outcome, JournalKind.WRITE_OFF, memo, postings, columns)
    for (owner, _held), cut in zip(owners, cuts, strict=True):
        if cut:
            outcome.events.append(SettlementMoved(owner, "adl", -cut))
    outcome.events.append(SettlementMoved(number, "loss", atoms))
    return atoms
