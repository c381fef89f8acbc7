"""What each chain can pay out of each asset: an asset is one balance, but its coins are on chains.   [D-1]

Counted as coins move, deposits change and withdrawals open and close, so that a request costs the same however many
wallets there are. All of it follows from balances, deposits and withdrawals: `count` makes it again.
"""

from __future__ import annotations

from engine.events import DepositView, WithdrawalView
from engine.parameters import TokenParameters
from engine.state import ASSET_BITS, Liquidity, State
from ledger.chart import (
    CUSTODY_WALLET_BITS,
    HOT_WALLET,
    OWNER_BITS,
    OWNER_MASK,
    AccountId,
    AccountKind,
    AssetId,
)

_WALLET_MASK = (1 << CUSTODY_WALLET_BITS) - 1
_ASSET_MASK = (1 << ASSET_BITS) - 1
_NONE = Liquidity()


def liquidity(state: State, chain_id: int, asset_id: AssetId) -> Liquidity:
    """What is known of the asset's coins on the chain."""
    return state.liquidity.get((chain_id, asset_id), _NONE)


def other_chains(state: State, chain_id: int, asset_id: AssetId, atoms: int) -> list[int]:
    """Chains that could pay a withdrawal of `atoms` that this one cannot, by id.   [D-1]"""
    return sorted(
        token.chain_id
        for token in state.tokens.values()
        if token.asset_id == asset_id
        and token.chain_id != chain_id
        and token.withdraw_enabled
        and smallest_withdrawal(token) <= atoms <= token.maximum_withdrawal_atoms
        and liquidity(state, token.chain_id, asset_id).payable >= atoms
    )


def smallest_withdrawal(token: TokenParameters) -> int:
    """The least that may be withdrawn, in atoms: something must be left after the fee.   [D-1]"""
    return max(token.minimum_withdrawal_atoms, token.withdrawal_fee_atoms + 1)


def coins_moved(state: State, account: AccountId, asset_id: AssetId, before: int, after: int) -> None:
    """A custody account's balance changed. Coins at a deposit address count from what is worth sweeping.   [D-10]"""
    chain_id, wallet = (account & OWNER_MASK) >> CUSTODY_WALLET_BITS, account & _WALLET_MASK
    line = _line(state, chain_id, asset_id)
    if wallet == HOT_WALLET:
        line.hot += after - before
    else:
        token = state.tokens.get((chain_id, asset_id))
        least = token.minimum_withdrawal_atoms if token is not None else 0
        line.unswept += (after if after >= least else 0) - (before if before >= least else 0)


def provisional_changed(state: State, deposit: DepositView, sign: int) -> None:
    """A deposit that is not final came (+1), or became final or went (−1).   [D-5]"""
    _line(state, deposit.chain_id, deposit.asset_id).provisional += sign * deposit.atoms


def withdrawal_changed(state: State, before: WithdrawalView | None, after: WithdrawalView | None) -> None:
    """A withdrawal opened (no `before`) or closed (no `after`).   [D-8]"""
    for withdrawal, sign in ((before, -1), (after, 1)):
        if withdrawal is not None:
            _line(state, withdrawal.chain_id, withdrawal.asset_id).paying += sign * withdrawal.atoms


def count(state: State) -> None:
    """Everything again, from balances, deposits and open withdrawals.   [A-10]"""
    state.liquidity.clear()
    for key, atoms in state.balances.items():
        account = key >> ASSET_BITS
        if account >> OWNER_BITS == AccountKind.CUSTODY:
            coins_moved(state, account, key & _ASSET_MASK, 0, atoms)
    for deposit in state.deposits.values():
        if deposit.state in ("provisional", "orphaned"):
            provisional_changed(state, deposit, 1)
    for withdrawal in state.open_withdrawals.values():
        withdrawal_changed(state, None, withdrawal)


def _line(state: State, chain_id: int, asset_id: AssetId) -> Liquidity:
    line = state.liquidity.get((chain_id, asset_id))
    if line is None:
        line = state.liquidity[chain_id, asset_id] = Liquidity()
    return line
