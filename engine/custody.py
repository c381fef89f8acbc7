"""Deposits, withdrawals and the exchange's own wallets, as the ledger sees them.   [D-4, D-5, D-8, D-10]"""

from __future__ import annotations

from typing import Any

import msgspec

from engine import lending, liquidity, outflows
from engine.commands import (
    ApproveWithdrawal,
    CreditDeposit,
    FinalizeDeposit,
    FundCustody,
    OrphanDeposit,
    RecordSweep,
    RejectWithdrawal,
    ReleaseWithdrawal,
    RequestWithdrawal,
    RestoreDeposit,
    ReverseDeposit,
    SettleWithdrawal,
    StopWithdrawals,
)
from engine.events import (
    DepositChanged,
    DepositView,
    LendingSource,
    Outcome,
    WithdrawalChanged,
    WithdrawalsStopped,
    WithdrawalView,
)
from engine.parameters import TokenParameters
from engine.posting import post
from engine.rejections import Rejection, RejectReason, require
from engine.state import ASSET_BITS, State, Subaccount, balance_key
from ledger.amounts import INT64_MAX
from ledger.chart import (
    HOT_WALLET,
    NETWORK_FEES,
    OPERATOR_EQUITY,
    WITHDRAWAL_FEE_INCOME,
    AccountKind,
    account_id,
    available,
    custody_account,
    withdrawing,
)
from ledger.journal import JournalKind, Posting

MAX_ADDRESS_LENGTH = 128


def credit_deposit(state: State, command: CreditDeposit, outcome: Outcome) -> DepositView:
    """Credit a confirmed deposit, once for ever; what is owed for a reversed one comes first.   [D-4, D-5]"""
    key = (command.chain_id, command.tx_id, command.index)
    require(key not in state.deposits, RejectReason.DUPLICATE_DEPOSIT, tx_id=command.tx_id, index=command.index)
    _require_token(state, command.chain_id, command.asset_id)
    subaccount = state.subaccounts.get(command.subaccount_id)
    if subaccount is None:
        raise Rejection(RejectReason.UNKNOWN_SUBACCOUNT, subaccount_id=command.subaccount_id)
    _require_amount(command.atoms)
    held = state.held(command.subaccount_id, command.asset_id)
    require(held + command.atoms <= INT64_MAX, RejectReason.INVALID_QUANTITY, held=held, atoms=command.atoms)
    # From here the command succeeds.
    owed = state.balances.get(balance_key(_receivable(command.subaccount_id), command.asset_id), 0)
    repaid = min(owed, command.atoms)
    postings: list[Posting] = [
        (custody_account(command.chain_id, command.wallet), command.asset_id, command.atoms),
    ]
    if repaid:
        postings.append((_receivable(command.subaccount_id), command.asset_id, -repaid))
        if repaid == owed:
            del subaccount.receivables[command.asset_id]
            subaccount.judge_by_margin()
    if command.atoms > repaid:
        postings.append((available(command.subaccount_id), command.asset_id, repaid - command.atoms))
    memo = (*key, command.wallet, command.subaccount_id, command.height, command.block_hash, command.final)
    post(state, outcome, JournalKind.DEPOSIT, memo, postings)
    deposit = DepositView(
        deposit_id=state.next_deposit_id,
        chain_id=command.chain_id,
        tx_id=command.tx_id,
        index=command.index,
        wallet=command.wallet,
        subaccount_id=command.subaccount_id,
        asset_id=command.asset_id,
        atoms=command.atoms,
        state="final" if command.final else "provisional",
        created_at_us=outcome.at_us,
    )
    state.next_deposit_id += 1
    if not command.final:
        _add_provisional(state, deposit, 1)
    _set_deposit(state, deposit, outcome)
    return deposit


def finalize_deposit(state: State, command: FinalizeDeposit, outcome: Outcome) -> DepositView:
    """The deposit's block is final: its funds can leave.   [D-5]"""
    deposit = _deposit(state, command, "provisional")
    # From here the command succeeds.
    _add_provisional(state, deposit, -1)
    # What may be lent or repaid by itself now is looked at as if it had come in.
    outcome.touched[deposit.subaccount_id << ASSET_BITS | deposit.asset_id] = None
    return _set_deposit(state, msgspec.structs.replace(deposit, state="final"), outcome)


def orphan_deposit(state: State, command: OrphanDeposit, outcome: Outcome) -> DepositView:
    """The deposit's block left the chain: the subaccount's withdrawals freeze until it is back or reversed.   [D-5]"""
    deposit = _deposit(state, command, "provisional", "final")
    # From here the command succeeds.
    if deposit.state == "final":
        _add_provisional(state, deposit, 1)
    state.subaccounts[deposit.subaccount_id].frozen_withdrawals += 1
    return _set_deposit(state, msgspec.structs.replace(deposit, state="orphaned"), outcome)


def restore_deposit(state: State, command: RestoreDeposit, outcome: Outcome) -> DepositView:
    """The transaction is on the chain again, not final yet.   [D-5]"""
    deposit = _deposit(state, command, "orphaned")
    # From here the command succeeds.
    state.subaccounts[deposit.subaccount_id].frozen_withdrawals -= 1
    return _set_deposit(state, msgspec.structs.replace(deposit, state="provisional"), outcome)


def reverse_deposit(state: State, command: ReverseDeposit, outcome: Outcome) -> DepositView:
    """Take back an orphaned deposit: from the subaccount, then the user's others, the rest is owed.   [D-5, U-3]

    What is lent is redeemed for it as far as the pool has it. Nothing goes below zero: what is spent or locked becomes
    a receivable that later deposits pay first, and that counts like a debt.
    """
    deposit = _deposit(state, command, "orphaned")
    # From here the command succeeds.
    subaccount = state.subaccounts[deposit.subaccount_id]
    postings: list[Posting] = [
        (custody_account(deposit.chain_id, deposit.wallet), deposit.asset_id, -deposit.atoms),
    ]
    missing = deposit.atoms
    others = [number for number in subaccount.user.subaccount_ids if number != deposit.subaccount_id]
    moved = lending.Movements()
    for number in [deposit.subaccount_id, *others]:
        free = max(0, state.free(number, deposit.asset_id))
        free += _redeem_for(state, outcome, moved, state.subaccounts[number], deposit.asset_id, missing - free)
        taken = min(missing, free)
        if taken:
            postings.append((available(number), deposit.asset_id, taken))
            missing -= taken
    if missing:
        postings.append((_receivable(deposit.subaccount_id), deposit.asset_id, missing))
        subaccount.receivables[deposit.asset_id] = None
        subaccount.judge_by_margin()
    memo: tuple[Any, ...] = (command.chain_id, command.tx_id, command.index, deposit.deposit_id)
    if moved.memos:
        memo = (*memo, tuple(moved.memos))
    post(state, outcome, JournalKind.DEPOSIT_REVERSED, memo, moved.postings + postings)
    _add_provisional(state, deposit, -1)
    subaccount.frozen_withdrawals -= 1
    return _set_deposit(state, msgspec.structs.replace(deposit, state="reversed"), outcome)


def request_withdrawal(state: State, command: RequestWithdrawal, outcome: Outcome) -> WithdrawalView:
    """Hold the amount for a payout; the recipient gets it less the token's fee.   [D-8]

    A repeat of the client's own key with the same fields gets the first withdrawal and has no second effect.  [A-11]
    """
    first = state.withdrawal_keys.get((command.subaccount_id, command.client_id)) if command.client_id else None
    if first is not None:
        return _repeated(state.withdrawals[first], command)
    token = _require_token(state, command.chain_id, command.asset_id)
    require(token.withdraw_enabled, RejectReason.TOKEN_DISABLED, asset_id=command.asset_id, chain_id=command.chain_id)
    stopped = state.stopped_withdrawals.get(command.asset_id)
    require(stopped is None, RejectReason.WITHDRAWALS_STOPPED, asset_id=command.asset_id, why=str(stopped))
    require(
        0 < len(command.address) <= MAX_ADDRESS_LENGTH,
        RejectReason.INVALID_PARAMETERS,
        address_length=len(command.address),
        maximum=MAX_ADDRESS_LENGTH,
    )
    _require_plain("address", command.address)
    _require_plain("client_id", command.client_id)
    subaccount = state.subaccounts[command.subaccount_id]
    frozen = subaccount.frozen_withdrawals
    require(frozen == 0, RejectReason.WITHDRAWALS_FROZEN, orphaned_deposits=frozen)
    _require_amount(command.atoms)
    smallest = liquidity.smallest_withdrawal(token)
    require(
        command.atoms >= smallest,
        RejectReason.WITHDRAWAL_TOO_SMALL,
        atoms=command.atoms,
        minimum=smallest,
        asset_id=command.asset_id,
    )
    require(
        command.atoms <= token.maximum_withdrawal_atoms,
        RejectReason.WITHDRAWAL_TOO_LARGE,
        atoms=command.atoms,
        maximum=token.maximum_withdrawal_atoms,
        asset_id=command.asset_id,
    )
    if command.auto_borrow and not command.auto_lend_redeem and command.asset_id in subaccount.lent:
        raise Rejection(RejectReason.BORROW_REQUIRES_LEND_REDEEM, asset_id=command.asset_id)
    taken = outflows.plan(
        state, subaccount, command.asset_id, outcome.at_us, command.atoms, command.auto_borrow, as_shares=False
    )
    _require_liquidity(state, command)
    # From here the command succeeds.
    withdrawal = WithdrawalView(
        withdrawal_id=state.next_withdrawal_id,
        subaccount_id=command.subaccount_id,
        chain_id=command.chain_id,
        asset_id=command.asset_id,
        atoms=command.atoms,
        fee_atoms=token.withdrawal_fee_atoms,
        address=command.address,
        client_id=command.client_id,
        state="requested",
        tx_id="",
        reason="",
        created_at_us=outcome.at_us,
    )
    state.next_withdrawal_id += 1
    if command.client_id:
        state.withdrawal_keys[command.subaccount_id, command.client_id] = withdrawal.withdrawal_id
    memo: tuple[Any, ...] = (
        withdrawal.withdrawal_id,
        command.subaccount_id,
        command.chain_id,
        command.address,
        withdrawal.fee_atoms,
    )
    moved = outflows.redeem_and_borrow(state, outcome, subaccount, command.asset_id, taken)
    if moved.memos:
        memo = (*memo, tuple(moved.memos))
    post(
        state,
        outcome,
        JournalKind.WITHDRAWAL_REQUESTED,
        memo,
        [
            *moved.postings,
            (available(command.subaccount_id), command.asset_id, command.atoms),
            (withdrawing(command.subaccount_id), command.asset_id, -command.atoms),
        ],
    )
    return _set_withdrawal(state, withdrawal, outcome)


def approve_withdrawal(state: State, command: ApproveWithdrawal, outcome: Outcome) -> WithdrawalView:
    """Screened and within the limits, or approved by hand: it may be paid.   [D-8]"""
    withdrawal = _withdrawal(state, command.withdrawal_id, "requested")
    # From here the command succeeds.
    return _set_withdrawal(state, msgspec.structs.replace(withdrawal, state="approved"), outcome)


def reject_withdrawal(state: State, command: RejectWithdrawal, outcome: Outcome) -> WithdrawalView:
    """Refused before anything was sent: the hold goes back.   [D-8]"""
    withdrawal = _withdrawal(state, command.withdrawal_id, "requested", "approved")
    # From here the command succeeds.
    memo = (withdrawal.withdrawal_id, "", command.reason)
    post(state, outcome, JournalKind.WITHDRAWAL_RELEASED, memo, _release(withdrawal))
    rejected = msgspec.structs.replace(withdrawal, state="rejected", reason=command.reason)
    return _set_withdrawal(state, rejected, outcome)


def settle_withdrawal(state: State, command: SettleWithdrawal, outcome: Outcome) -> WithdrawalView:
    """Paid and final: the hold leaves custody; our fee is income, the network's an expense.   [D-8]"""
    withdrawal = _withdrawal(state, command.withdrawal_id, "approved")
    _require_fee(state, command.network_fee_asset_id, command.network_fee_atoms)
    # From here the command succeeds.
    hot = custody_account(withdrawal.chain_id, HOT_WALLET)
    paid = withdrawal.atoms - withdrawal.fee_atoms
    postings: list[Posting] = [
        (withdrawing(withdrawal.subaccount_id), withdrawal.asset_id, withdrawal.atoms),
        (hot, withdrawal.asset_id, -paid),
    ]
    if withdrawal.fee_atoms:
        postings.append((WITHDRAWAL_FEE_INCOME, withdrawal.asset_id, -withdrawal.fee_atoms))
    postings += _network_fee(hot, command.network_fee_asset_id, command.network_fee_atoms)
    memo = (withdrawal.withdrawal_id, command.tx_id)
    post(state, outcome, JournalKind.WITHDRAWAL_SETTLED, memo, postings)
    return _set_withdrawal(state, msgspec.structs.replace(withdrawal, state="settled", tx_id=command.tx_id), outcome)


def release_withdrawal(state: State, command: ReleaseWithdrawal, outcome: Outcome) -> WithdrawalView:
    """Failed on chain, finally: the hold goes back, the network's fee is the exchange's loss.   [D-8]"""
    withdrawal = _withdrawal(state, command.withdrawal_id, "approved")
    _require_fee(state, command.network_fee_asset_id, command.network_fee_atoms)
    # From here the command succeeds.
    hot = custody_account(withdrawal.chain_id, HOT_WALLET)
    postings = _release(withdrawal) + _network_fee(hot, command.network_fee_asset_id, command.network_fee_atoms)
    memo = (withdrawal.withdrawal_id, command.tx_id, command.reason)
    post(state, outcome, JournalKind.WITHDRAWAL_RELEASED, memo, postings)
    released = msgspec.structs.replace(withdrawal, state="released", tx_id=command.tx_id, reason=command.reason)
    return _set_withdrawal(state, released, outcome)


def record_sweep(state: State, command: RecordSweep, outcome: Outcome) -> None:
    """Coins moved between our own wallets: custody to custody, the network's fee an expense.   [D-10]"""
    require(command.chain_id in state.chains, RejectReason.UNKNOWN_CHAIN, chain_id=command.chain_id)
    require(command.asset_id in state.assets, RejectReason.UNKNOWN_ASSET, asset_id=command.asset_id)
    require(command.atoms >= 0, RejectReason.INVALID_QUANTITY, atoms=command.atoms)
    _require_fee(state, command.network_fee_asset_id, command.network_fee_atoms)
    require(command.atoms + command.network_fee_atoms > 0, RejectReason.INVALID_QUANTITY, atoms=command.atoms)
    # From here the command succeeds.
    postings: list[Posting] = []
    if command.atoms:
        postings += [
            (custody_account(command.chain_id, command.from_wallet), command.asset_id, -command.atoms),
            (custody_account(command.chain_id, command.to_wallet), command.asset_id, command.atoms),
        ]
    payer = custody_account(command.chain_id, command.fee_wallet)
    postings += _network_fee(payer, command.network_fee_asset_id, command.network_fee_atoms)
    memo = (command.chain_id, command.tx_id, command.from_wallet, command.to_wallet)
    post(state, outcome, JournalKind.SWEEP, memo, postings)


def fund_custody(state: State, command: FundCustody, outcome: Outcome) -> None:
    """The operator's own coins came in: gas money, seed liquidity.   [D-10]"""
    _require_token(state, command.chain_id, command.asset_id)
    _require_amount(command.atoms)
    # From here the command succeeds.
    post(
        state,
        outcome,
        JournalKind.CUSTODY_FUNDED,
        (command.chain_id, command.tx_id, command.wallet),
        [
            (custody_account(command.chain_id, command.wallet), command.asset_id, command.atoms),
            (OPERATOR_EQUITY, command.asset_id, -command.atoms),
        ],
    )


def stop_withdrawals(state: State, command: StopWithdrawals, outcome: Outcome) -> None:
    """New withdrawals of the asset are refused until the break is explained.   [D-11]"""
    require(command.asset_id in state.assets, RejectReason.UNKNOWN_ASSET, asset_id=command.asset_id)
    # From here the command succeeds.
    if command.stopped:
        state.stopped_withdrawals[command.asset_id] = command.reason
    else:
        state.stopped_withdrawals.pop(command.asset_id, None)
    outcome.events.append(WithdrawalsStopped(command.asset_id, command.stopped, command.reason))


def _redeem_for(
    state: State, outcome: Outcome, into: lending.Movements, subaccount: Subaccount, asset_id: int, missing: int
) -> int:
    """Redeem what is missing, as far as lent and idle; gives what became free.   [D-5]"""
    if missing <= 0 or asset_id not in subaccount.lent:
        return 0
    idle = lending.totals(state, state.pools[asset_id], outcome.at_us).idle
    atoms = lending.redemption(state, subaccount, asset_id, outcome.at_us, min(missing, idle))
    if not 0 < atoms <= idle:
        return 0
    lending.redeem(state, outcome, into, subaccount, asset_id, atoms, LendingSource.RECONCILIATION)
    return atoms


def _receivable(subaccount_id: int) -> int:
    return account_id(AccountKind.RECEIVABLE, subaccount_id)


def _require_token(state: State, chain_id: int, asset_id: int) -> TokenParameters:
    require(asset_id in state.assets, RejectReason.UNKNOWN_ASSET, asset_id=asset_id)
    require(chain_id in state.chains, RejectReason.UNKNOWN_CHAIN, chain_id=chain_id)
    token = state.tokens.get((chain_id, asset_id))
    if token is None:
        raise Rejection(RejectReason.UNKNOWN_TOKEN, chain_id=chain_id, asset_id=asset_id)
    return token


def _require_liquidity(state: State, command: RequestWithdrawal) -> None:
    """The chain has the coins, or they are on their way to its hot wallet; if not, say which chains do.   [D-1]"""
    payable = liquidity.liquidity(state, command.chain_id, command.asset_id).payable
    if command.atoms <= payable:
        return
    others = liquidity.other_chains(state, command.chain_id, command.asset_id, command.atoms)
    raise Rejection(
        RejectReason.CHAIN_LIQUIDITY,
        asset_id=command.asset_id,
        blockchain=state.chains[command.chain_id].name,
        needed=command.atoms,
        available=max(0, payable),
        others=", ".join(state.chains[chain_id].name for chain_id in others) or "none",
    )


def _require_plain(field: str, text: str) -> None:
    """Printable ASCII without blanks at its ends: what chains, databases and people read in one way only.

    Not all of Unicode's printable characters: which these are depends on the version of Python that asks.   [A-6]
    """
    is_plain = text.isascii() and text.isprintable() and text == text.strip()
    require(is_plain, RejectReason.INVALID_PARAMETERS, field=field, allowed="printable ASCII")


def _require_amount(atoms: int) -> None:
    require(0 < atoms <= INT64_MAX, RejectReason.INVALID_QUANTITY, atoms=atoms, maximum=INT64_MAX)


def _require_fee(state: State, asset_id: int, atoms: int) -> None:
    require(atoms >= 0, RejectReason.INVALID_QUANTITY, atoms=atoms)
    require(atoms == 0 or asset_id in state.assets, RejectReason.UNKNOWN_ASSET, asset_id=asset_id)


def _network_fee(payer: int, asset_id: int, atoms: int) -> list[Posting]:
    return [(NETWORK_FEES, asset_id, atoms), (payer, asset_id, -atoms)] if atoms else []


def _release(withdrawal: WithdrawalView) -> list[Posting]:
    return [
        (withdrawing(withdrawal.subaccount_id), withdrawal.asset_id, withdrawal.atoms),
        (available(withdrawal.subaccount_id), withdrawal.asset_id, -withdrawal.atoms),
    ]


def _repeated(first: WithdrawalView, command: RequestWithdrawal) -> WithdrawalView:
    same = (first.chain_id, first.asset_id, first.atoms, first.address) == (
        command.chain_id,
        command.asset_id,
        command.atoms,
        command.address,
    )
    require(same, RejectReason.DUPLICATE_WITHDRAWAL, client_id=command.client_id, withdrawal_id=first.withdrawal_id)
    return first


def _deposit(
    state: State, command: FinalizeDeposit | OrphanDeposit | RestoreDeposit | ReverseDeposit, *allowed: str
) -> DepositView:
    deposit = state.deposits.get((command.chain_id, command.tx_id, command.index))
    if deposit is None:
        raise Rejection(RejectReason.UNKNOWN_DEPOSIT, tx_id=command.tx_id, index=command.index)
    require(deposit.state in allowed, RejectReason.DEPOSIT_STATE, deposit_id=deposit.deposit_id, state=deposit.state)
    return deposit


def _withdrawal(state: State, withdrawal_id: int, *allowed: str) -> WithdrawalView:
    withdrawal = state.withdrawals.get(withdrawal_id)
    if withdrawal is None:
        raise Rejection(RejectReason.UNKNOWN_WITHDRAWAL, withdrawal_id=withdrawal_id)
    require(
        withdrawal.state in allowed,
        RejectReason.WITHDRAWAL_STATE,
        withdrawal_id=withdrawal_id,
        state=withdrawal.state,
    )
    return withdrawal


def _add_provisional(state: State, deposit: DepositView, sign: int) -> None:
    provisional = state.subaccounts[deposit.subaccount_id].provisional
    left = provisional.get(deposit.asset_id, 0) + sign * deposit.atoms
    assert left >= 0, f"subaccount {deposit.subaccount_id}: provisional {left} of asset {deposit.asset_id}"
    if left:
        provisional[deposit.asset_id] = left
    else:
        provisional.pop(deposit.asset_id, None)
    liquidity.provisional_changed(state, deposit, sign)


def _set_deposit(state: State, deposit: DepositView, outcome: Outcome) -> DepositView:
    state.deposits[deposit.chain_id, deposit.tx_id, deposit.index] = deposit
    outcome.events.append(DepositChanged(deposit))
    return deposit


def _set_withdrawal(state: State, withdrawal: WithdrawalView, outcome: Outcome) -> WithdrawalView:
    state.withdrawals[withdrawal.withdrawal_id] = withdrawal
    before = state.open_withdrawals.get(withdrawal.withdrawal_id)
    if withdrawal.state in ("requested", "approved"):
        state.open_withdrawals[withdrawal.withdrawal_id] = withdrawal
    else:
        state.open_withdrawals.pop(withdrawal.withdrawal_id, None)
    liquidity.withdrawal_changed(state, before, state.open_withdrawals.get(withdrawal.withdrawal_id))
    outcome.events.append(WithdrawalChanged(withdrawal))
    return withdrawal
