"""What lenders are paid in USDC for debts that were written down: shared out by lend shares, collected when touched.

Each write-down remembers how many shares its pool had: they, and nobody who comes later, are paid, at once and whenever
its hole is filled. Nothing here walks over lenders. Memo of LENDERS_PAID: subaccount, asset of the pool, USDC atoms.
[L-7, L-9]
"""

from __future__ import annotations

from engine.events import Outcome, SettlementMoved
from engine.posting import post
from engine.state import ASSET_BITS, ShareTime, State, Subaccount, WriteDown
from ledger.amounts import mul_div_down
from ledger.chart import (
    BACKSTOP_FUND,
    INSURANCE_FUND,
    POOL_SHARES,
    POOL_YIELD,
    AssetId,
    available,
    claim,
    claim_lend,
    lend_share,
    lent,
)
from ledger.journal import JournalKind

INDEX_ONE = 10**27
"""A write-down's index is in atoms of USDC / INDEX_ONE per share."""


def touch(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId) -> None:
    """Pay the subaccount what came to its shares since it was last touched; before a holding changes.   [L-7]"""
    time = subaccount.share_times.get(asset_id)
    if time is None:
        return
    atoms = _waiting(state, subaccount, asset_id, time)
    pool = state.pools[asset_id]
    note(state, subaccount, asset_id)
    for number, (shares, _index) in list(time.recovering.items()):
        write_down = pool.write_downs[number]
        if write_down.hole <= 0:
            del time.recovering[number]
        else:
            time.recovering[number] = shares, write_down.index
    if atoms:
        owner, usdc = subaccount.subaccount_id, state.usdc
        postings = [(POOL_YIELD, usdc, atoms), (available(owner), usdc, -atoms)]
        post(state, outcome, JournalKind.LENDERS_PAID, (owner, asset_id, atoms), postings)
        outcome.events.append(SettlementMoved(owner, "recovery", atoms))


def note(state: State, subaccount: Subaccount, asset_id: AssetId) -> None:
    """From now on the write-downs since the last touch are owed to the shares that it held all that time.   [L-7]"""
    time, pool = subaccount.share_times[asset_id], state.pools[asset_id]
    if time.seen == pool.next_write_down:
        return
    shares = shares_of(state, subaccount, asset_id)
    for number in range(time.seen, pool.next_write_down):
        if shares:
            time.recovering[number] = shares, 0
    time.seen = pool.next_write_down


def uncollected(state: State, subaccount: Subaccount) -> int:
    """USDC atoms that it will be paid when next touched, rounded down.   [C-3, L-7]"""
    times = subaccount.share_times
    return sum(_waiting(state, subaccount, asset_id, time) for asset_id, time in times.items())


def write_down(state: State, asset_id: AssetId, at_us: int, atoms: int, mark: int, value: int) -> WriteDown:
    """Put a write-down of `atoms` at `mark`, worth `value` atoms of USDC, on the pool's list.   [L-7]"""
    pool = state.pools[asset_id]
    found = WriteDown(at_us, atoms, mark, value, entitled_shares(state, asset_id))
    pool.write_downs[pool.next_write_down] = found
    pool.next_write_down += 1
    state.has_recoveries = True
    state.has_yields = True
    return found


def pay(found: WriteDown, atoms: int) -> None:
    """`atoms` of USDC are the write-down's lenders': index += ⌊atoms / shares⌋, the rest is carried.   [L-7]"""
    assert found.shares > 0, "nobody lent when the debt was written down"
    found.paid += atoms
    rise, found.residue = divmod(atoms * INDEX_ONE + found.residue, found.shares)
    found.index += rise


def shares_of(state: State, subaccount: Subaccount, asset_id: AssetId) -> int:
    """Its lend shares, and those that the liquidity fund holds for it: they earn the same.   [V-2, Y-3]"""
    number = subaccount.subaccount_id
    shares = -state.balances.get(lent(number) << ASSET_BITS | lend_share(asset_id), 0)
    if subaccount.claims and asset_id == state.usdc:
        key = claim(number) << ASSET_BITS
        shares -= sum(state.balances.get(key | claim_lend(market_id), 0) for market_id in subaccount.claims)
    return shares


def entitled_shares(state: State, asset_id: AssetId) -> int:
    """All lend shares of the pool but the exchange's own: its funds bear what they pay for.   [L-7]"""
    share, balances = lend_share(asset_id), state.balances
    own = sum(-balances.get(fund << ASSET_BITS | share, 0) for fund in (INSURANCE_FUND, BACKSTOP_FUND))
    return balances.get(POOL_SHARES << ASSET_BITS | share, 0) - own


def _waiting(state: State, subaccount: Subaccount, asset_id: AssetId, time: ShareTime) -> int:
    pool = state.pools[asset_id]
    atoms = 0
    for number, (shares, index) in time.recovering.items():
        now = pool.write_downs[number].index
        # The difference of two roundings: what is collected in parts adds up to what is collected at once.
        atoms += mul_div_down(shares, now, INDEX_ONE) - mul_div_down(shares, index, INDEX_ONE)
    if time.seen != pool.next_write_down:
        shares = shares_of(state, subaccount, asset_id)
        for number in range(time.seen, pool.next_write_down):
            atoms += mul_div_down(shares, pool.write_downs[number].index, INDEX_ONE)
    return atoms
