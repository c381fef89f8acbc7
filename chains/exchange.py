"""What the chains need from the exchange: a Protocol the api layer implements by submitting engine commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import sqlalchemy as sa

Attach = Callable[[sa.Connection], None]
"""Runs inside the SQL transaction of the block that holds the command, and only if it is accepted.   [D-4]"""


class Refused(Exception):
    """The exchange said no to a fact of a chain: an operator has to look; the other facts go on."""


class Exchange(Protocol):
    """The exchange as the chains see it. A call returns when its block is durable, or raises `Refused`.   [D-4, A-7]

    None of these methods is called with a database transaction open, and each may open its own. A failing `attach`
    fails the whole block's transaction, so an attach only does what cannot fail.

    A wallet is a custody wallet of one chain: 0 is the hot wallet, n > 0 the deposit address of subaccount n.
    """

    async def credit_deposit(
        self, *, chain_id: int, tx_id: str, index: int, wallet: int, subaccount_id: int, asset_id: int, atoms: int,
        height: int, block_hash: str, final: bool, attach: Attach,
    ) -> bool:
        """Credit a deposit; False when this outpoint was credited before, which is for ever.   [A-11, D-4]"""
        ...

    async def finalize_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        """The credit is final: no longer provisional.   [D-5]"""
        ...

    async def orphan_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        """The credited deposit's block is gone: freeze the subaccount's withdrawals, raise an alarm.   [D-5]"""
        ...

    async def restore_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        """The orphaned deposit is included again: undo the freeze.   [D-5]"""
        ...

    async def reverse_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        """The orphaned deposit did not come back: post the reversing journal transaction.   [D-5]"""
        ...

    def pending_withdrawals(self) -> list[Withdrawal]:
        """Every withdrawal that is neither paid nor rejected: the source of truth of what may be paid.   [D-8]"""
        ...

    def withdrawal(self, withdrawal_id: int) -> Withdrawal | None:
        """A withdrawal that is neither paid nor rejected, or None: what a stored payment is held against.   [D-8]"""
        ...

    async def approve_withdrawal(self, *, withdrawal_id: int, attach: Attach) -> None: ...

    async def reject_withdrawal(self, *, withdrawal_id: int, reason: str, attach: Attach) -> None:
        """Refuse a withdrawal and release its hold.   [D-8]"""
        ...

    async def settle_withdrawal(
        self, *, withdrawal_id: int, tx_id: str, network_fee_asset_id: int, network_fee_atoms: int, attach: Attach,
    ) -> None:
        """The payout is final on chain: the hold leaves custody, the network fee is booked.   [D-8]"""
        ...

    async def release_withdrawal(
        self, *, withdrawal_id: int, tx_id: str, reason: str, network_fee_asset_id: int, network_fee_atoms: int,
        attach: Attach,
    ) -> None:
        """The payout failed on chain, finally: the hold is released, the network fee is booked.   [D-8]"""
        ...

    async def record_sweep(
        self, *, chain_id: int, from_wallet: int, to_wallet: int, asset_id: int, atoms: int,
        network_fee_asset_id: int, network_fee_atoms: int, fee_wallet: int, tx_id: str, attach: Attach,
    ) -> None:
        """Coins moved between the exchange's own wallets; `atoms` is 0 when only the fee was spent.   [D-10]"""
        ...

    async def fund_custody(
        self, *, chain_id: int, wallet: int, asset_id: int, atoms: int, tx_id: str, attach: Attach,
    ) -> None:
        """The operator's own coins arrived at the hot wallet.   [D-10]"""
        ...

    def token(self, chain_id: int, asset_id: int) -> Token | None: ...

    def tokens(self, chain_id: int) -> list[Token]: ...

    def ledger_balance(self, chain_id: int, wallet: int, asset_id: int) -> int:
        """Atoms in the ledger's custody account of a wallet."""
        ...

    def is_credited(self, chain_id: int, tx_id: str, index: int) -> bool:
        """Whether an outpoint was credited and not reversed.   [D-5]"""
        ...

    def asset_withdrawals_stopped(self, asset_id: int) -> bool: ...

    async def stop_withdrawals(self, asset_id: int, reason: str) -> None:
        """Stop every withdrawal of an asset until an operator says otherwise.   [D-11]"""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """An asset on a chain. `contract` is "" for the native coin; amounts are ledger atoms.   [D-1]"""

    asset_id: int
    symbol: str
    chain_id: int
    contract: str
    chain_decimals: int
    ledger_decimals: int
    confirmations: int
    minimum_deposit_atoms: int
    minimum_withdrawal_atoms: int
    withdrawal_fee_atoms: int
    maximum_withdrawal_atoms: int

    @property
    def base_per_atom(self) -> int:
        """Base units of the chain in one ledger atom. The ledger never keeps more decimals than the chain."""
        assert self.chain_decimals >= self.ledger_decimals, f"{self.symbol} on chain {self.chain_id}: decimals"
        return int(10 ** (self.chain_decimals - self.ledger_decimals))


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A withdrawal as the engine holds it: `atoms` is the net payout, `fee_atoms` stays with the exchange."""

    id: int
    subaccount_id: int
    chain_id: int
    asset_id: int
    atoms: int
    fee_atoms: int
    address: str
    requested_at_us: int
    state: Literal["requested", "approved"]
