"""Deposits, reversals and withdrawals in the engine: nothing twice, nothing below zero, all balanced. [A-2, D-8]"""

from __future__ import annotations

import pytest

from engine.commands import (
    ApproveWithdrawal,
    CreditDeposit,
    FinalizeDeposit,
    OpenSubaccount,
    OrphanDeposit,
    RecordSweep,
    RejectWithdrawal,
    ReleaseWithdrawal,
    RequestWithdrawal,
    RestoreDeposit,
    ReverseDeposit,
    SettleWithdrawal,
    StopWithdrawals,
    Transfer,
)
from engine.events import Outcome
from engine.rejections import RejectReason
from engine.state import balance_key
from ledger.chart import AccountKind, account_id, custody_account, withdrawing
from ledger.journal import residues
from tests.engine.exchange import Exchange

USDC = 10**6


def withdraw(exchange: Exchange, subaccount: int, key: bytes, atoms: int, client_id: str = "") -> Outcome:
    command = RequestWithdrawal(subaccount, 1, exchange.asset("USDC"), atoms, "somewhere", client_id)
    return exchange.attempt(command, exchange.signed(key))


@pytest.mark.parametrize(
    "text", ["a\0b", "\x1b[2J", "a\x7f", "a\x9bb", "a\nb", " a", "a ", "a\u202eb", "a\u200bb", "\ufeffa", "\u0430bc"]
)
def test_a_withdrawal_holds_only_text_that_reads_in_one_way(text: str) -> None:
    """T-7: no control, invisible or foreign character gets from a request into the journal or a database."""
    exchange = Exchange()
    alice, key = exchange.user("alice")
    usdc = exchange.asset("USDC")
    exchange.deposit(alice, "USDC", 50 * USDC)
    held = exchange.state.held(alice, usdc)

    by_id = withdraw(exchange, alice, key, 20 * USDC, client_id=text)
    command = RequestWithdrawal(alice, 1, usdc, 20 * USDC, text)
    by_address = exchange.attempt(command, exchange.signed(key))

    for refused, field in ((by_id, "client_id"), (by_address, "address")):
        assert refused.rejection is not None and refused.rejection.reason == RejectReason.INVALID_PARAMETERS
        assert refused.rejection.facts["field"] == field
    assert exchange.state.held(alice, usdc) == held and not exchange.state.withdrawals


def test_a_deposit_is_credited_once_for_ever() -> None:
    exchange = Exchange()
    alice, _ = exchange.user("alice")
    usdc = exchange.asset("USDC")

    exchange.deposit(alice, "USDC", 5 * USDC, tx_id="t")
    again = exchange.attempt(CreditDeposit(1, "t", 0, alice, alice, usdc, 5 * USDC, 1, "hash", True))

    assert again.rejection is not None and again.rejection.reason == RejectReason.DUPLICATE_DEPOSIT
    assert exchange.state.held(alice, usdc) == 5 * USDC
    assert exchange.state.balances[balance_key(custody_account(1, alice), usdc)] == 5 * USDC


def test_deposits_of_an_asset_on_two_chains_are_one_balance() -> None:
    """What differs is custody: each wallet of each chain is an account of its own. [D-1, A-2]"""
    exchange = Exchange()
    alice, _ = exchange.user("alice")
    eth = exchange.asset("ETH")

    exchange.deposit(alice, "ETH", 5, tx_id="here")
    exchange.do(CreditDeposit(2, "there", 0, alice, alice, eth, 7, 1, "hash", True))

    assert exchange.state.held(alice, eth) == 12
    assert exchange.state.balances[balance_key(custody_account(1, alice), eth)] == 5
    assert exchange.state.balances[balance_key(custody_account(2, alice), eth)] == 7


def test_provisional_funds_neither_leave_nor_move() -> None:
    exchange = Exchange()
    alice, key = exchange.user("alice")
    usdc = exchange.asset("USDC")
    tx = exchange.deposit(alice, "USDC", 50 * USDC, final=False)

    refused = withdraw(exchange, alice, key, 20 * USDC)
    exchange.do(FinalizeDeposit(1, tx, 0))
    accepted = withdraw(exchange, alice, key, 20 * USDC)

    assert refused.rejection is not None and refused.rejection.reason == RejectReason.INSUFFICIENT_FUNDS
    assert accepted.rejection is None
    assert exchange.state.held(alice, usdc) == 30 * USDC


def test_an_orphaned_deposit_freezes_withdrawals_until_it_is_back() -> None:
    exchange = Exchange()
    alice, key = exchange.user("alice")
    exchange.deposit(alice, "USDC", 100 * USDC)
    tx = exchange.deposit(alice, "USDC", 5 * USDC)

    exchange.do(OrphanDeposit(1, tx, 0))
    frozen = withdraw(exchange, alice, key, 20 * USDC)
    exchange.do(RestoreDeposit(1, tx, 0))
    exchange.do(FinalizeDeposit(1, tx, 0))
    thawed = withdraw(exchange, alice, key, 20 * USDC)

    assert frozen.rejection is not None and frozen.rejection.reason == RejectReason.WITHDRAWALS_FROZEN
    assert thawed.rejection is None


def test_a_reversal_takes_from_the_subaccount_then_the_users_others_and_the_rest_is_owed() -> None:
    exchange = Exchange()
    alice, key = exchange.user("alice")
    usdc = exchange.asset("USDC")
    second = exchange.do(OpenSubaccount(1, b"k" * 32), exchange.signed(key)).reply.subaccount_id
    tx = exchange.deposit(alice, "USDC", 100 * USDC)
    exchange.do(Transfer(alice, second, usdc, 30 * USDC), exchange.signed(key))
    withdraw(exchange, alice, key, 60 * USDC)

    exchange.do(OrphanDeposit(1, tx, 0))
    exchange.do(ReverseDeposit(1, tx, 0))

    owed = balance_key(account_id(AccountKind.RECEIVABLE, alice), usdc)
    assert exchange.state.held(alice, usdc) == 0
    assert exchange.state.held(second, usdc) == 0
    assert exchange.state.balances[owed] == 60 * USDC

    exchange.deposit(alice, "USDC", 80 * USDC)

    assert exchange.state.balances[owed] == 0
    assert exchange.state.held(alice, usdc) == 20 * USDC


def test_a_withdrawal_is_held_approved_and_settled_with_both_fees_booked() -> None:
    exchange = Exchange("minimal")
    alice, key = exchange.user("alice")
    state = exchange.state
    token = next(each for each in state.tokens.values() if each.chain_id == 1 and each.withdraw_enabled)
    asset_id, symbol = token.asset_id, state.assets[token.asset_id].symbol
    atoms = token.minimum_withdrawal_atoms + token.withdrawal_fee_atoms + 5
    exchange.deposit(alice, symbol, atoms)
    exchange.do(RecordSweep(1, "s", alice, 0, asset_id, atoms, 0, 0, 0))

    requested = exchange.do(
        RequestWithdrawal(alice, 1, asset_id, atoms, "somewhere"), exchange.signed(key)
    ).reply
    held = state.balances[balance_key(withdrawing(alice), asset_id)]
    exchange.do(ApproveWithdrawal(requested.withdrawal_id))
    settled = exchange.do(SettleWithdrawal(requested.withdrawal_id, "tx", 0, 0)).reply

    assert held == -atoms
    assert settled.state == "settled"
    assert state.balances[balance_key(withdrawing(alice), asset_id)] == 0
    assert state.balances[balance_key(custody_account(1, 0), asset_id)] == token.withdrawal_fee_atoms
    assert not state.open_withdrawals


def test_a_refused_or_failed_withdrawal_gives_the_hold_back() -> None:
    exchange = Exchange()
    alice, key = exchange.user("alice")
    usdc = exchange.asset("USDC")
    exchange.deposit(alice, "USDC", 100 * USDC)

    first = withdraw(exchange, alice, key, 40 * USDC).reply
    exchange.do(RejectWithdrawal(first.withdrawal_id, "screening"))
    second = withdraw(exchange, alice, key, 40 * USDC).reply
    exchange.do(ApproveWithdrawal(second.withdrawal_id))
    exchange.do(ReleaseWithdrawal(second.withdrawal_id, "tx", "reverted", 0, 0))
    late = exchange.attempt(SettleWithdrawal(second.withdrawal_id, "tx", 0, 0))

    assert exchange.state.held(alice, usdc) == 100 * USDC
    assert late.rejection is not None and late.rejection.reason == RejectReason.WITHDRAWAL_STATE


def test_a_withdrawal_key_pays_once() -> None:
    exchange = Exchange()
    alice, key = exchange.user("alice")
    usdc = exchange.asset("USDC")
    exchange.deposit(alice, "USDC", 100 * USDC)

    first = withdraw(exchange, alice, key, 40 * USDC, "mine")
    again = withdraw(exchange, alice, key, 40 * USDC, "mine")
    other = withdraw(exchange, alice, key, 41 * USDC, "mine")

    assert again.reply == first.reply and not again.journal
    assert other.rejection is not None and other.rejection.reason == RejectReason.DUPLICATE_WITHDRAWAL
    assert exchange.state.held(alice, usdc) == 60 * USDC


def test_withdrawals_of_an_asset_stop_and_start_again() -> None:
    exchange = Exchange()
    alice, key = exchange.user("alice")
    exchange.deposit(alice, "USDC", 100 * USDC)

    exchange.do(StopWithdrawals(exchange.asset("USDC"), True, "a break of 5"))
    stopped = withdraw(exchange, alice, key, 40 * USDC)
    exchange.do(StopWithdrawals(exchange.asset("USDC"), False, ""))
    resumed = withdraw(exchange, alice, key, 40 * USDC)

    assert stopped.rejection is not None and stopped.rejection.reason == RejectReason.WITHDRAWALS_STOPPED
    assert resumed.rejection is None


def test_every_journal_transaction_of_these_lives_balances() -> None:
    exchange = Exchange()
    alice, key = exchange.user("alice")
    exchange.deposit(alice, "USDC", 100 * USDC)
    withdraw(exchange, alice, key, 40 * USDC)

    entries = [entry for outcome in exchange.outcomes for entry in outcome.journal]

    assert entries and all(not residues(entry) for entry in entries)
    assert sum(exchange.state.balances.values()) == 0
