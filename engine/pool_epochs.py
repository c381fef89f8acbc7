"""The epoch of a liquidity pool: rate, health, interest out of custody, forced closes.   [X-6 … X-9, X-11, X-14]"""

from __future__ import annotations

import numpy as np

from engine import pool_positions, pools
from engine.commands import RunPoolEpochs
from engine.events import LongNotClosed, Outcome, PoolEpochRan
from engine.formulas import pools as formulas
from engine.posting import Columns, post_batch
from engine.rejections import Rejection, RejectReason, require
from engine.state import AmmPool, AmmPosition, State
from ledger.chart import AccountKind, AssetId, amm_book, amm_fund, amm_pool
from ledger.journal import JournalKind, Posting


def run(state: State, command: RunPoolEpochs, outcome: Outcome) -> None:
    """An epoch ends: every pool whose epoch ends now, by its id.   [X-8, S-15]"""
    due_us = state.amm_epoch_due_us
    require(0 < due_us <= outcome.at_us, RejectReason.POOL_EPOCH, due_us=due_us, at_us=outcome.at_us)

    # From here the command succeeds.
    for pool_id in sorted(state.amm_pools):
        pool = state.amm_pools[pool_id]
        if pool.next_epoch_us == due_us:
            run_pool(state, pool, outcome)
            pool.next_epoch_us = 0
            pools.schedule(state, pool, due_us)


def run_pool(state: State, pool: AmmPool, outcome: Outcome) -> None:
    """Rate and health, then position by position: health, interest, and the close of one that was not healthy.

    A position sees the pool as those before it left it, so their order (owner, then id) is part of the result. What
    triggers a close is the health before this epoch's payment; one that fails changes nothing. At a price that was
    pushed interest stays unpaid: a provider who made custody cheap for a moment would take many times what is due.
    [X-9, X-11]
    """
    pools.note_price(pool, outcome.at_us)
    _move_rate(pool)
    pool.health = formulas.pool_health(
        pool.native_balance, pool.external_balance, pool.native_owed, pool.external_owed
    )
    interest = _Interest(pool)
    charged, forced, failed = len(pool.positions), 0, 0
    safety_factor = pool.parameters.safety_factor
    is_steady = pools.is_steady(pool, pools.spot(pool), pool.mean_price)
    for position in sorted(pool.positions.values(), key=_order):
        try:
            measured = position.health = pool_positions.require_health(pool, position)
        except Rejection as rejection:
            # No price, no interest, no close: it is asked again at the next epoch.  
            charged, failed = charged - 1, failed + 1
            outcome.events.append(_not_closed(position, rejection.reason))
            continue
        plan = pool_positions.plan_interest if is_steady else pool_positions.defer_interest
        charge = plan(pool, position, 0, 1)
        pool_positions.take_interest(pool, position, charge)
        if charge.taken:
            interest.add(position, charge)
        if measured > safety_factor:
            continue
        try:
            close = pool_positions.plan_forced(pool, position, outcome.at_us)
        except Rejection as rejection:
            failed += 1
            outcome.events.append(_not_closed(position, rejection.reason))
            continue
        # What was paid before is posted before: the ledger never shows a close of what is not there any more.
        interest.post(state, outcome)
        pool_positions.finish_close(state, pool, position, close, outcome, is_forced=True)
        forced += 1
        is_steady = pools.is_steady(pool, pools.spot(pool), pool.mean_price)
    interest.post(state, outcome)
    pools.require_positions(pool)
    at_us, length = outcome.at_us, pool.parameters.epoch_us
    native, external, native_fund, external_fund = interest.totals
    outcome.events.append(
        PoolEpochRan(
            pool.parameters.pool_id, at_us // length, pool.health, pool.rate, native, external, native_fund,
            external_fund, charged, forced, failed,
        )
    )  # fmt: skip
    pools.changed(state, pool, outcome)


class _Interest:
    """Payments of one epoch that are taken and not posted yet: a column per asset of custody.   [X-9]"""

    def __init__(self, pool: AmmPool) -> None:
        self.pool = pool
        self.totals = [0, 0, 0, 0]
        """Native and external to the providers, native and external to the fund, over the whole epoch."""
        self._taken: dict[AssetId, dict[int, int]] = {}
        """Asset of custody → owner → atoms."""
        self._to_fund = [0, 0]
        """Of the native asset, of the external one."""

    def add(self, position: AmmPosition, charge: pool_positions.Charge) -> None:
        side = 1 if position.is_native_collateral else 0
        self.totals[side] += charge.taken - charge.to_fund
        self.totals[2 + side] += charge.to_fund
        self._to_fund[side] += charge.to_fund
        owners = self._taken.setdefault(pool_positions.custody_asset(position), {})
        owners[position.subaccount_id] = owners.get(position.subaccount_id, 0) + charge.taken

    def post(self, state: State, outcome: Outcome) -> None:
        """One transaction for all that was taken since the last."""
        if not self._taken:
            return
        parameters = self.pool.parameters
        pool_id = parameters.pool_id
        postings: list[Posting] = []
        columns: list[Columns] = []
        for asset_id in sorted(self._taken):
            # Positions are charged in the order of their owners, so these ascend.
            owners = self._taken[asset_id]
            atoms = list(owners.values())
            columns.append((AccountKind.AMM_CUSTODY, asset_id, np.array(list(owners), dtype=np.int64), atoms))
            postings.append((amm_book(pool_id), asset_id, -sum(atoms)))
        for asset_id, to_fund in zip((parameters.native_asset_id, pool_id), self._to_fund, strict=True):
            if to_fund:
                postings += [(amm_pool(pool_id), asset_id, to_fund), (amm_fund(pool_id), asset_id, -to_fund)]
        memo = (pool_id, outcome.at_us // parameters.epoch_us, self.pool.rate, self.pool.health)
        post_batch(state, outcome, JournalKind.POOL_INTEREST, memo, postings, columns)
        self._taken, self._to_fund = {}, [0, 0]


def _move_rate(pool: AmmPool) -> None:
    """The rate moves toward its target; one side lent out whole has none, and asks for the most.   [X-8]"""
    parameters = pool.parameters
    rate = formulas.next_rate(
        parameters.gain_factor, pool.native_balance, pool.external_balance, pool.native_owed, pool.external_owed,
        pool.rate, parameters.rate_increase, parameters.rate_decrease, parameters.rate_min, parameters.rate_max,
    )  # fmt: skip
    if rate is None:
        rate = min(max(pool.rate + parameters.rate_increase, parameters.rate_min), parameters.rate_max)
    pool.rate = rate


def _order(position: AmmPosition) -> tuple[int, int]:
    return position.subaccount_id, position.position_id


def _not_closed(position: AmmPosition, reason: RejectReason) -> LongNotClosed:
    shown = position.view()
    return LongNotClosed(shown.position_id, shown.subaccount_id, shown.pool_id, shown.health, reason.name)
