"""The exchange as the chains see it: each of their facts becomes an engine command and waits until it is durable."""

from __future__ import annotations

from typing import Any

from chains.exchange import Attach, Refused, Token, Withdrawal
from engine.commands import (
    ApproveWithdrawal,
    Command,
    CreditDeposit,
    FinalizeDeposit,
    FundCustody,
    OrphanDeposit,
    RecordSweep,
    RejectWithdrawal,
    ReleaseWithdrawal,
    RestoreDeposit,
    ReverseDeposit,
    SettleWithdrawal,
    StopWithdrawals,
)
from engine.events import WithdrawalView
from engine.parameters import TokenParameters
from engine.rejections import RejectReason
from engine.sequencer import Sequencer
from engine.state import State, balance_key
from ledger.chart import custody_account


class SequencedExchange:
    """Implements `chains.exchange.Exchange` on the running sequencer.   [D-4]"""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer

    @property
    def _state(self) -> State:
        return self._sequencer.state

    async def _submit(self, command: Command, attach: Attach) -> Any:
        """The command's reply, durable; `Refused` when the engine says no."""
        outcome = await self._sequencer.submit(command, attach=attach)
        if outcome.rejection is not None:
            raise Refused(str(outcome.rejection))
        return outcome.reply

    async def credit_deposit(
        self,
        *,
        chain_id: int,
        tx_id: str,
        index: int,
        wallet: int,
        subaccount_id: int,
        asset_id: int,
        atoms: int,
        height: int,
        block_hash: str,
        final: bool,
        attach: Attach,
    ) -> bool:
        """False when this outpoint was credited before.   [A-11, D-4]"""
        command = CreditDeposit(
            chain_id, tx_id, index, wallet, subaccount_id, asset_id, atoms, height, block_hash, final
        )
        outcome = await self._sequencer.submit(command, attach=attach)
        if outcome.rejection is None:
            return True
        if outcome.rejection.reason == RejectReason.DUPLICATE_DEPOSIT:
            return False
        raise Refused(str(outcome.rejection))

    async def finalize_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        await self._submit(FinalizeDeposit(chain_id, tx_id, index), attach)

    async def orphan_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        await self._submit(OrphanDeposit(chain_id, tx_id, index), attach)

    async def restore_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        await self._submit(RestoreDeposit(chain_id, tx_id, index), attach)

    async def reverse_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        await self._submit(ReverseDeposit(chain_id, tx_id, index), attach)

    def pending_withdrawals(self) -> list[Withdrawal]:
        """Neither paid nor rejected, oldest first; atoms are what the recipient gets.   [D-8]"""
        return [withdrawal_of(view) for view in self._state.open_withdrawals.values()]

    def withdrawal(self, withdrawal_id: int) -> Withdrawal | None:
        view = self._state.open_withdrawals.get(withdrawal_id)
        return None if view is None else withdrawal_of(view)

    async def approve_withdrawal(self, *, withdrawal_id: int, attach: Attach) -> None:
        await self._submit(ApproveWithdrawal(withdrawal_id), attach)

    async def reject_withdrawal(self, *, withdrawal_id: int, reason: str, attach: Attach) -> None:
        await self._submit(RejectWithdrawal(withdrawal_id, reason), attach)

    async def settle_withdrawal(
        self, *, withdrawal_id: int, tx_id: str, network_fee_asset_id: int, network_fee_atoms: int, attach: Attach
    ) -> None:
        await self._submit(SettleWithdrawal(withdrawal_id, tx_id, network_fee_asset_id, network_fee_atoms), attach)

    async def release_withdrawal(
        self,
        *,
        withdrawal_id: int,
        tx_id: str,
        reason: str,
        network_fee_asset_id: int,
        network_fee_atoms: int,
        attach: Attach,
    ) -> None:
        command = ReleaseWithdrawal(withdrawal_id, tx_id, reason, network_fee_asset_id, network_fee_atoms)
        await self._submit(command, attach)

    async def record_sweep(
        self,
        *,
        chain_id: int,
        from_wallet: int,
        to_wallet: int,
        asset_id: int,
        atoms: int,
        network_fee_asset_id: int,
        network_fee_atoms: int,
        fee_wallet: int,
        tx_id: str,
        attach: Attach,
    ) -> None:
        command = RecordSweep(
            chain_id,
            tx_id,
            from_wallet,
            to_wallet,
            asset_id,
            atoms,
            fee_wallet,
            network_fee_asset_id,
            network_fee_atoms,
        )
        await self._submit(command, attach)

    async def fund_custody(
        self, *, chain_id: int, wallet: int, asset_id: int, atoms: int, tx_id: str, attach: Attach
    ) -> None:
        await self._submit(FundCustody(chain_id, tx_id, wallet, asset_id, atoms), attach)

    def token(self, chain_id: int, asset_id: int) -> Token | None:
        parameters = self._state.tokens.get((chain_id, asset_id))
        return None if parameters is None else token_of(self._state, parameters)

    def tokens(self, chain_id: int) -> list[Token]:
        return tokens_of(self._state, chain_id)

    def ledger_balance(self, chain_id: int, wallet: int, asset_id: int) -> int:
        """Atoms of the wallet's custody account.   [D-11]"""
        return self._state.balances.get(balance_key(custody_account(chain_id, wallet), asset_id), 0)

    def is_credited(self, chain_id: int, tx_id: str, index: int) -> bool:
        deposit = self._state.deposits.get((chain_id, tx_id, index))
        return deposit is not None and deposit.state != "reversed"

    def asset_withdrawals_stopped(self, asset_id: int) -> bool:
        return asset_id in self._state.stopped_withdrawals

    async def stop_withdrawals(self, asset_id: int, reason: str) -> None:
        await self._submit(StopWithdrawals(asset_id, True, reason), _nothing)


def tokens_of(state: State, chain_id: int) -> list[Token]:
    """The chain's tokens that have a contract; without one only the native coin is real.   [D-7]"""
    native = state.chains[chain_id].native_asset_id
    return [
        token_of(state, each)
        for each in state.tokens.values()
        if each.chain_id == chain_id and (each.contract or each.asset_id == native)
    ]


def token_of(state: State, parameters: TokenParameters) -> Token:
    asset = state.assets[parameters.asset_id]
    return Token(
        asset_id=parameters.asset_id,
        symbol=asset.symbol,
        chain_id=parameters.chain_id,
        contract=parameters.contract,
        chain_decimals=parameters.chain_decimals,
        ledger_decimals=asset.decimals,
        confirmations=parameters.confirmations,
        minimum_deposit_atoms=parameters.minimum_deposit_atoms,
        minimum_withdrawal_atoms=parameters.minimum_withdrawal_atoms,
        withdrawal_fee_atoms=parameters.withdrawal_fee_atoms,
        maximum_withdrawal_atoms=parameters.maximum_withdrawal_atoms,
    )


def withdrawal_of(view: WithdrawalView) -> Withdrawal:
    """The chains' view of an open withdrawal: its net payout in atoms.   [D-8]"""
    return Withdrawal(
        id=view.withdrawal_id,
        subaccount_id=view.subaccount_id,
        chain_id=view.chain_id,
        asset_id=view.asset_id,
        atoms=view.atoms - view.fee_atoms,
        fee_atoms=view.fee_atoms,
        address=view.address,
        requested_at_us=view.created_at_us,
        state="approved" if view.state == "approved" else "requested",
    )


def _nothing(_connection: Any) -> None:
    """No rows go with the command."""
