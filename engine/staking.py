"""Staking: a part of what is lent earns at the operator's validator, so bounded that redemptions are served.   [Y-1]"""

from __future__ import annotations

from engine import lending
from engine.commands import StakeAssets, UnstakeAssets
from engine.events import Outcome
from engine.parameters import RATE_SCALE
from engine.posting import post
from engine.rejections import Rejection, RejectReason, require
from engine.state import ASSET_BITS, State
from ledger.amounts import INT64_MAX, mul_div_down
from ledger.chart import HOT_WALLET, AccountKind, account_id, custody_account
from ledger.journal import JournalKind


def stake(state: State, command: StakeAssets, outcome: Outcome) -> None:
    """Coins left the hot wallet for the validator: at most ⌊staked_share × lentTotal⌋ in all, and only what is idle.

    [B-14, Y-1, Y-3]
    """
    _require_stakeable(state, command)
    asset_id, atoms = command.asset_id, command.atoms
    pool = state.pools[asset_id]
    now = lending.totals(state, pool, outcome.at_us)
    bound = mul_div_down(now.lent, lending.lending_parameters(state, asset_id).staked_share, RATE_SCALE)
    staked, idle = pool.staked + atoms, now.idle
    held = state.balances.get(custody_account(command.chain_id, HOT_WALLET) << ASSET_BITS | asset_id, 0)
    require(staked <= bound, RejectReason.STAKED_LIMIT, asset_id=asset_id, staked_atoms=staked, bound_atoms=bound)
    if atoms > idle:
        raise Rejection(RejectReason.INSUFFICIENT_SUPPLY, asset_id=asset_id, needed_atoms=atoms, idle_atoms=idle)
    if atoms > held:
        raise Rejection(RejectReason.INSUFFICIENT_FUNDS, asset_id=asset_id, required_atoms=atoms, hot_wallet_atoms=held)
    # From here the command succeeds.
    _move(state, command, outcome, atoms, JournalKind.STAKED)


def unstake(state: State, command: UnstakeAssets, outcome: Outcome) -> None:
    """Staked coins of this chain are back in its hot wallet.   [Y-1]"""
    _require_stakeable(state, command)
    staked_key = account_id(AccountKind.STAKED, command.chain_id) << ASSET_BITS | command.asset_id
    staked, atoms = state.balances.get(staked_key, 0), command.atoms
    if atoms > staked:
        facts = {"asset_id": command.asset_id, "asked_atoms": atoms, "staked_atoms": staked}
        raise Rejection(RejectReason.INSUFFICIENT_FUNDS, **facts)
    # From here the command succeeds.
    _move(state, command, outcome, -atoms, JournalKind.UNSTAKED)


def _require_stakeable(state: State, command: StakeAssets | UnstakeAssets) -> None:
    asset_id, atoms = command.asset_id, command.atoms
    require(asset_id in state.assets, RejectReason.UNKNOWN_ASSET, asset_id=asset_id)
    if (command.chain_id, asset_id) not in state.tokens:
        raise Rejection(RejectReason.UNKNOWN_TOKEN, chain_id=command.chain_id, asset_id=asset_id)
    require(asset_id in state.pools, RejectReason.LENDING_CLOSED, asset_id=asset_id)
    require(0 < atoms <= INT64_MAX, RejectReason.INVALID_QUANTITY, atoms=atoms, maximum=INT64_MAX)


def _move(state: State, command: StakeAssets | UnstakeAssets, outcome: Outcome, atoms: int, kind: JournalKind) -> None:
    """From the chain's hot wallet to its stake account, or back when negative; the pool's idle follows.   [B-14]"""
    chain_id, asset_id = command.chain_id, command.asset_id
    pool = state.pools[asset_id]
    pool.staked += atoms
    pool.projected_ms = -1
    postings = [
        (account_id(AccountKind.STAKED, chain_id), asset_id, atoms),
        (custody_account(chain_id, HOT_WALLET), asset_id, -atoms),
    ]
    post(state, outcome, kind, (asset_id, chain_id, command.tx_id, command.atoms), postings)
