"""Extra yields: what staking and the treasury earn, shared out to an asset's lenders by share-time.   [Y-1 … Y-3]"""

from __future__ import annotations

from engine.commands import CloseYieldPeriod, ReceiveYield, StakeAssets, UnstakeAssets
from engine.events import Outcome
from engine.rejections import Rejection, RejectReason
from engine.state import ASSET_BITS, State, Subaccount
from ledger.chart import AssetId, lend_share, lent


def weigh_shares(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, all_shares: int) -> None:
    """Count the share-time up to now, before a holding changes: `all_shares` is the pool's total before.   [Y-3]"""
    now_ms = outcome.at_us // 1_000
    pool = state.pools[asset_id]
    pool.share_ms += all_shares * (now_ms - pool.share_since_ms)
    pool.share_since_ms = now_ms
    loan = subaccount.lent.get(asset_id)
    if loan is not None:
        number = subaccount.subaccount_id
        shares = -state.balances.get(lent(number) << ASSET_BITS | lend_share(asset_id), 0)
        loan.share_ms += shares * (now_ms - loan.since_ms)
        loan.since_ms = now_ms


def stake(state: State, command: StakeAssets, outcome: Outcome) -> None:
    raise Rejection(RejectReason.NOT_SUPPORTED)


def unstake(state: State, command: UnstakeAssets, outcome: Outcome) -> None:
    raise Rejection(RejectReason.NOT_SUPPORTED)


def receive(state: State, command: ReceiveYield, outcome: Outcome) -> None:
    raise Rejection(RejectReason.NOT_SUPPORTED)


def close_period(state: State, command: CloseYieldPeriod, outcome: Outcome) -> None:
    raise Rejection(RejectReason.NOT_SUPPORTED)
