"""Columns move exactly what the same rows posted one by one move.   [A-2, S-14]"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import Outcome
from engine.posting import post, post_batch
from engine.state import State, Subaccount, User
from ledger.chart import ROUNDING, AccountKind, account_id, contracts, cost, lend_share
from ledger.journal import JournalKind, residues
from tests.engine.exchange import Exchange

USDC, MARKET = 1, 6
HUGE = 2**70
ASSETS = [
    (AccountKind.AVAILABLE, USDC),
    (AccountKind.LENT, lend_share(USDC)),
    (AccountKind.UNSETTLED, USDC),
    (AccountKind.POSITION, cost(MARKET)),
    (AccountKind.POSITION, contracts(MARKET)),
]
amounts = st.one_of(st.integers(-5, 5), st.integers(-(2**62), 2**62), st.sampled_from([HUGE, -HUGE]))
rows = st.dictionaries(st.integers(1, 12), amounts, min_size=1)
transactions = st.lists(st.tuples(st.sampled_from(range(len(ASSETS))), rows), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(transactions)
def test_columns_move_what_postings_move(drawn: list[tuple[int, dict[int, int]]]) -> None:
    one, other = _state(), _state()
    lot_atoms = one.markets[MARKET].parameters.lot_atoms
    for which, atoms in drawn:
        kind, asset = ASSETS[which]
        unit = lot_atoms if asset == contracts(MARKET) else 1
        column = [(number, atoms[number] * unit) for number in sorted(atoms)]
        rest = (ROUNDING, asset, -sum(amount for _number, amount in column))
        outcome = Outcome(1, 1)
        # Rows of 0 are left out of columns: only a posting of 0 would note the asset as held.
        legs = [(account_id(kind, number), asset, amount) for number, amount in column if amount]
        post(one, outcome, JournalKind.SETTLEMENT, (), [*legs, rest])
        columns: Any = (kind, asset, np.array([number for number, _ in column]), [amount for _, amount in column])
        batched = Outcome(1, 1)
        post_batch(other, batched, JournalKind.SETTLEMENT, (), [rest], [columns])
        (entry,) = batched.journal
        assert residues(entry) == {}
        posted = [(account, asset) for account, asset, _atoms in entry.postings]
        in_columns = {row[0]: row[2] for batch in entry.batches for row in batch.postings()}
        beyond = {account: moved for account, _asset, moved in entry.postings if account != ROUNDING}
        assert (ROUNDING, asset) in posted
        assert {account: moved for account, _, moved in legs} == {**in_columns, **beyond}
        assert all(abs(moved) >= 2**63 for moved in beyond.values())
    assert _facts(one) == _facts(other)


def _state() -> State:
    state = Exchange().state
    assert state.markets[MARKET].parameters.perpetual is not None
    user = User(1, 0)
    for number in range(1, 13):
        state.subaccounts[number] = Subaccount(number, user, 0)
    return state


def _facts(state: State) -> Any:
    market = state.markets[MARKET]
    positions = [(number, held) for number, each in state.subaccounts.items() for held in each.positions.values()]
    return (
        {key: atoms for key, atoms in state.balances.items() if atoms},
        {number: (list(account.asset_ids), account.unsettled) for number, account in state.subaccounts.items()},
        [(number, held.lots, held.cost) for number, held in positions if held.lots or held.cost],
        {number: (held.lots, held.cost) for number, held in sorted(market.holders.items())},
        sorted(market.traded),
        sorted(market.moved),
        market.open_interest,
        sorted(state.unsettled),
    )
