"""Extra yields: what staking and the treasury earn, shared out to an asset's lenders by share-time.   [Y-1 … Y-3]

A pool and each of its lenders count shares × ms of the running period. When a period with a yield ends, its rate per
share and ms is stored once, whoever lent; a lender collects the periods that have closed since at the next change of
what it holds or lends. Nothing here walks over lenders. All products are exact in 1e-27 atoms (`RATE_ONE`): what cannot
be divided stays in the pool's `residue` and in each lender's `carry`, so no atom depends on who was touched when.
"""

from __future__ import annotations

from engine.commands import CloseYieldPeriod, ReceiveYield
from engine.events import Outcome, YieldCollected, YieldShared
from engine.posting import post
from engine.recoveries import shares_of, touch
from engine.rejections import Rejection, RejectReason, require
from engine.state import ASSET_BITS, Pool, ShareTime, State, Subaccount
from ledger.amounts import INT64_MAX
from ledger.chart import HOT_WALLET, POOL_SHARES, POOL_YIELD, AssetId, available, custody_account, lend_share
from ledger.journal import JournalKind

RATE_ONE = 10**27
"""ρ is in atoms / RATE_ONE per share and ms.   [Y-3]"""
SOURCES = ("staking", "treasury")

_ASSET_MASK = (1 << ASSET_BITS) - 1


def weigh_shares(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, all_shares: int) -> None:
    """Count the share-time up to now and collect, before a holding changes; `all_shares`: the pool's before.   [Y-3]"""
    now_ms = outcome.at_us // 1_000
    pool, length = state.pools[asset_id], period_ms(state, asset_id)
    if state.has_recoveries:
        touch(state, outcome, subaccount, asset_id)
    _weigh_pool(pool, length, now_ms, all_shares)
    if pool.pending_yield:
        # Whoever lends now, if only for a moment, makes this a period that shares out.
        _close_at(state, pool, (pool.period + 1) * length)
    time = subaccount.share_times.get(asset_id)
    if time is not None and time.period != pool.period:
        collect(state, outcome, subaccount, asset_id)
        time = subaccount.share_times.get(asset_id)
    if time is None:
        subaccount.share_times[asset_id] = ShareTime(
            pool.period, now_ms, pool.rate_prefix, seen=pool.next_write_down
        )
    elif time.since_ms != now_ms:
        time.share_ms += shares_of(state, subaccount, asset_id) * (now_ms - time.since_ms)
        time.since_ms = now_ms


def collect(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId) -> None:
    """Pay what closed periods owe the subaccount, in whole atoms, and count on in the running one.   [Y-3]"""
    time = subaccount.share_times.get(asset_id)
    if time is None:
        return
    if state.has_recoveries:
        touch(state, outcome, subaccount, asset_id)
    pool, length, now_ms = state.pools[asset_id], period_ms(state, asset_id), outcome.at_us // 1_000
    if time.period == now_ms // length:
        return
    shares = shares_of(state, subaccount, asset_id)
    atoms, time.carry = divmod(time.carry + _earned(pool, time, shares, length), RATE_ONE)
    time.period = now_ms // length
    time.prefix = pool.rate_prefix
    time.share_ms = shares * (now_ms - time.period * length)
    time.since_ms = now_ms
    if not shares and not time.carry and not time.recovering:
        del subaccount.share_times[asset_id]
    if atoms:
        number = subaccount.subaccount_id
        memo = (number, asset_id, atoms)
        postings = [(POOL_YIELD, asset_id, atoms), (available(number), asset_id, -atoms)]
        post(state, outcome, JournalKind.YIELD_COLLECTED, memo, postings)
        outcome.events.append(YieldCollected(number, asset_id, atoms))


def collect_touched(state: State, outcome: Outcome) -> None:
    """Whoever held more or less of an asset after this command has collected its closed periods.   [Y-3]"""
    for key in list(outcome.touched):
        subaccount, asset_id = state.subaccounts[key >> ASSET_BITS], key & _ASSET_MASK
        collect(state, outcome, subaccount, asset_id)


def collect_all(state: State, outcome: Outcome, subaccount: Subaccount) -> None:
    """Collect the closed periods of every asset that the subaccount lends or lent.   [Y-3]"""
    for asset_id in sorted(subaccount.share_times):
        collect(state, outcome, subaccount, asset_id)


def uncollected(state: State, subaccount: Subaccount, asset_id: AssetId) -> int:
    """Atoms of closed periods that the subaccount will be paid at its next touch, rounded down.   [C-3, Y-3]"""
    time = subaccount.share_times.get(asset_id)
    if time is None:
        return 0
    pool = state.pools[asset_id]
    if time.prefix == pool.rate_prefix:
        return 0
    shares = shares_of(state, subaccount, asset_id)
    return (time.carry + _earned(pool, time, shares, period_ms(state, asset_id))) // RATE_ONE


def receive(state: State, command: ReceiveYield, outcome: Outcome) -> None:
    """A reward is in the hot wallet: for the running period's lenders, or the next one's that has any.   [Y-1, Y-2]"""
    asset_id = command.asset_id
    require(asset_id in state.assets, RejectReason.UNKNOWN_ASSET, asset_id=asset_id)
    if (command.chain_id, asset_id) not in state.tokens:
        raise Rejection(RejectReason.UNKNOWN_TOKEN, chain_id=command.chain_id, asset_id=asset_id)
    require(asset_id in state.pools, RejectReason.LENDING_CLOSED, asset_id=asset_id)
    in_range = 0 < command.atoms <= INT64_MAX
    require(in_range, RejectReason.INVALID_QUANTITY, atoms=command.atoms, maximum=INT64_MAX)
    if command.source not in SOURCES:
        why = f"{command.source[:40]!r} is none of {', '.join(SOURCES)}"
        raise Rejection(RejectReason.INVALID_PARAMETERS, field="source", why=why)
    # From here the command succeeds.
    pool, length = state.pools[asset_id], period_ms(state, asset_id)
    all_shares = _all_shares(state, asset_id)
    if pool.period >= 0:
        _weigh_pool(pool, length, outcome.at_us // 1_000, all_shares)
    pool.pending_yield += command.atoms
    if all_shares or pool.share_ms:
        _close_at(state, pool, (pool.period + 1) * length)
    memo = (asset_id, command.chain_id, command.tx_id, command.source, command.atoms)
    wallet = custody_account(command.chain_id, HOT_WALLET)
    postings = [(wallet, asset_id, command.atoms), (POOL_YIELD, asset_id, -command.atoms)]
    post(state, outcome, JournalKind.YIELD_RECEIVED, memo, postings)


def close_period(state: State, command: CloseYieldPeriod, outcome: Outcome) -> None:
    """A period with a yield has ended: ρ = ⌊R × 10^27 / total share-ms⌋ for its lenders, the residue waits.   [Y-3]

    R is what came in and what earlier divisions left. If nobody lent, all of it waits for the next that lend.
    """
    pool = state.pools.get(command.asset_id)
    if pool is None:
        raise Rejection(RejectReason.LENDING_CLOSED, asset_id=command.asset_id)
    is_due = command.period == pool.period and 0 < pool.closes_ms <= outcome.at_us // 1_000
    if not is_due:
        facts = {"period": command.period, "running": pool.period, "closes_ms": pool.closes_ms}
        raise Rejection(RejectReason.TICK_OUT_OF_ORDER, asset_id=command.asset_id, **facts)
    # From here the command succeeds.
    length, end_ms = period_ms(state, command.asset_id), pool.closes_ms
    weight = pool.share_ms + _all_shares(state, command.asset_id) * (end_ms - pool.share_since_ms)
    pool.period, pool.share_ms, pool.share_since_ms = command.period + 1, 0, end_ms
    _close_at(state, pool, 0)
    if not weight:
        return
    rate, pool.residue = divmod(pool.pending_yield * RATE_ONE + pool.residue, weight)
    pool.pending_yield = 0
    if rate:
        pool.period_rates[command.period] = rate
        pool.rate_prefix += rate * length
        state.has_yields = True
    outcome.events.append(YieldShared(command.asset_id, command.period, rate * weight // RATE_ONE))


def next_due(state: State) -> CloseYieldPeriod:
    """The period that closes at `state.yield_due_us`; of several the one of the lowest asset id.   [S-15]"""
    due_ms = state.yield_due_us // 1_000
    asset_id = min(asset_id for asset_id, pool in state.pools.items() if pool.closes_ms == due_ms)
    return CloseYieldPeriod(asset_id, state.pools[asset_id].period)


def next_close_us(state: State) -> int:
    """When the next period closes, 0 when none is due.   [Y-3]"""
    return min((pool.closes_ms for pool in state.pools.values() if pool.closes_ms), default=0) * 1_000


def period_ms(state: State, asset_id: AssetId) -> int:
    """The length of the asset's yield periods; it stays from the first loan on.   [Y-1, Y-2]"""
    parameters = state.assets[asset_id].lending
    assert parameters is not None, f"asset {asset_id} has a pool and no parameters for it"
    return parameters.yield_period_ms


def _earned(pool: Pool, time: ShareTime, shares: int, length: int) -> int:
    """What closed periods owe, in 1e-27 atoms: the one it was last touched in, then whole ones. O(1).   [Y-3]"""
    if time.prefix == pool.rate_prefix:
        return 0
    rate = pool.period_rates.get(time.period, 0)
    own = time.share_ms + shares * ((time.period + 1) * length - time.since_ms)
    return own * rate + shares * (pool.rate_prefix - time.prefix - rate * length)


def _weigh_pool(pool: Pool, length: int, now_ms: int, all_shares: int) -> None:
    """Count the pool's share-time up to now; of periods that ended without a yield nothing is kept.   [Y-3]"""
    period = now_ms // length
    if period != pool.period:
        assert not pool.closes_ms, f"asset {pool.asset_id}: yield period {pool.period} was not closed before {now_ms}"
        pool.period, pool.share_ms, pool.share_since_ms = period, 0, period * length
    pool.share_ms += all_shares * (now_ms - pool.share_since_ms)
    pool.share_since_ms = now_ms


def _close_at(state: State, pool: Pool, closes_ms: int) -> None:
    if pool.closes_ms != closes_ms:
        pool.closes_ms = closes_ms
        state.yield_due_us = next_close_us(state)


def _all_shares(state: State, asset_id: AssetId) -> int:
    return state.balances.get(POOL_SHARES << ASSET_BITS | lend_share(asset_id), 0)
