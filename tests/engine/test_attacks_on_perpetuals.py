"""What an attacker tried on perpetuals, and what defeats it: money that is not his, an exchange that stops.

threat-model.md T-134 and after.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from msgspec.structs import replace

from engine import snapshot
from engine.accounts import NUMBERS_AHEAD
from engine.clock import due
from engine.commands import (
    BorrowLend,
    CancelAllOrders,
    Command,
    ConfigureMarket,
    FireTriggers,
    LendingSide,
    OrderType,
    PlaceOrder,
    RefreshRfq,
    RegisterKey,
    SelfTrade,
    SetPrices,
    Side,
    SubmitRfq,
    TimeInForce,
    TriggerBy,
    UpdateAccount,
)
from engine.events import Outcome
from engine.parameters import PRICE_SCALE, RATE_SCALE, BookState, MarketParameters
from engine.rejections import RejectReason
from engine.state import State
from engine.transition import apply
from ledger.journal import GENESIS_HASH, JournalKind, decode_memo, encode_memo, seal
from tests.engine.perps import USDC, Member, Pit, cross

SOL = 10**9
"""Atoms of one SOL."""


def test_an_account_with_a_chosen_number_stops_neither_sweep_nor_tick() -> None:
    """T-134: columns over all subaccounts were as long as the next free number."""
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 1_000)
    key, number = sha256(b"far").digest(), 5_000
    pit.exchange.do(RegisterKey(key, 0, number))
    bert.subaccount, bert.key = number, key
    pit.exchange.deposit(number, "USDC", 10**9)
    cross(anna, bert, 100, 15_000)
    pit.price(151)
    pit.exchange.advance(20)
    assert (anna.position, bert.position) != (None, None)
    assert pit.book_market.settled == pit.book_market.mark_lot

    # Also after a restart.
    pit.exchange.state = snapshot.load(snapshot.dump(pit.state))
    pit.price(150)
    pit.exchange.advance(20)
    assert abs(_worth(anna) + _worth(bert) - 2 * 10**9) < 10**7


def test_a_chosen_number_is_not_far_beyond_the_others() -> None:
    """T-134: one number near 2³¹ would take gigabytes of columns."""
    pit = Pit()
    most = pit.state.next_subaccount_id + NUMBERS_AHEAD
    refused = pit.attempt(RegisterKey(bytes(32), 0, most + 1)).rejection
    assert refused is not None and refused.reason is RejectReason.INVALID_PARAMETERS
    assert pit.attempt(RegisterKey(bytes(32), 0, most)).rejection is None


def _worth(member: Member) -> int:
    return member.usdc


def _journal(outcome: Outcome) -> list[Any]:
    return [(entry.kind, entry.memo, entry.postings, entry.batches) for entry in outcome.journal]


def test_interest_on_unsettled_equity_is_the_same_after_a_restart() -> None:
    """T-135: the rate before the last accrual was charged by a node that remembered it, by no other."""
    pit = Pit()
    lender, borrower = pit.member("lender", 10_000), pit.member("borrower", 0, SOL=100 * SOL)
    winner, loser = pit.member("winner", 10_000), pit.member("loser", 0, SOL=100 * SOL)
    lender.does(BorrowLend(lender.subaccount, pit.state.usdc, LendingSide.LEND, 10_000 * USDC))
    borrower.does(BorrowLend(borrower.subaccount, pit.state.usdc, LendingSide.BORROW, 7_000 * USDC))
    loser.does(UpdateAccount(loser.subaccount, auto_borrow_settlements=False))
    pit.exchange.deposit(loser.subaccount, "USDC", 5 * USDC)
    cross(winner, loser, 1_000, 15_000)
    pit.price(155)
    pit.exchange.advance(10)
    assert loser.account.unsettled < 0 < winner.account.unsettled

    # The hour's interest is posted in the very millisecond of the tick.
    until_us, told = pit.exchange.at_us + 3_600 * 1_000_000, 0
    while (tick := due(pit.state, until_us)) is not None:
        seq, at_us = pit.state.sequence + 1, max(pit.exchange.at_us, tick[0])
        restarted = snapshot.load(snapshot.dump(pit.state)) if at_us % 3_600_000_000 == 0 else None
        pit.exchange.at_us = at_us
        outcome = pit.exchange.do(tick[1])
        if restarted is not None:
            again = apply(restarted, seq, at_us, tick[1])
            assert _journal(again) == _journal(outcome)
            told += any(entry.kind == JournalKind.UNSETTLED_INTEREST for entry in outcome.journal)
    assert told


def _closed(market: MarketParameters) -> ConfigureMarket:
    return ConfigureMarket(replace(market, state=BookState.CLOSED))


@pytest.mark.parametrize("by", ["owner", "market", "liquidation"])
def test_orders_end_in_the_same_order_after_a_restart(by: str) -> None:
    """T-136: a trigger order keeps its old id when it rests, after younger ones."""
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 100_000)
    cross(anna, bert, 6_000, 15_000)
    bert.trade(Side.ASK, 1, 15_000)
    anna.trade(Side.BID, 1, 15_000)
    anna.trade(Side.ASK, 10, 15_200, trigger_by=TriggerBy.LAST, trigger_price_ticks=15_010)
    anna.trade(Side.ASK, 10, 15_100)
    bert.trade(Side.ASK, 1, 15_010)
    bert.trade(Side.BID, 1, 15_010, self_trade=SelfTrade.REJECT_MAKER)
    carl = pit.member("carl", 1_000)
    bert.trade(Side.ASK, 1, 15_020)
    carl.trade(Side.BID, 1, 15_020)
    pit.exchange.advance(1)
    assert [order.order_id for order in anna.account.orders.values()] != sorted(anna.account.orders)

    restarted = snapshot.load(snapshot.dump(pit.state))
    if by == "owner":
        command: Command = CancelAllOrders(anna.subaccount, pit.market)
    elif by == "market":
        command = _closed(pit.book_market.parameters)
    else:
        command = SetPrices(((pit.base, 135 * PRICE_SCALE),))
    _both(pit, restarted, command, anna if by == "owner" else None)
    if by == "liquidation":
        assert anna.subaccount in pit.state.liquidations
        for _ in range(3):
            due_us, command = due(pit.state, pit.exchange.at_us + 2_000_000) or (0, command)
            pit.exchange.at_us = max(pit.exchange.at_us, due_us)
            _both(pit, restarted, command, None)
    assert not anna.account.orders


def test_requests_for_quotes_end_in_the_same_order_after_a_restart() -> None:
    """T-136: refreshing one moves it behind the others."""
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 100_000)
    cross(anna, bert, 6_000, 15_000)
    first = anna.does(SubmitRfq(anna.subaccount, pit.market, Side.BID, 10)).reply
    anna.does(SubmitRfq(anna.subaccount, pit.market, Side.BID, 20))
    pit.exchange.at_us += 1
    anna.does(RefreshRfq(anna.subaccount, first.rfq_id))
    restarted = snapshot.load(snapshot.dump(pit.state))
    _both(pit, restarted, SetPrices(((pit.base, 135 * PRICE_SCALE),)), None)
    while anna.account.rfqs:
        due_us, command = due(pit.state, pit.exchange.at_us + 2_000_000) or (0, FireTriggers())
        pit.exchange.at_us = max(pit.exchange.at_us, due_us)
        _both(pit, restarted, command, None)


def _both(pit: Pit, restarted: State, command: Command, signer: Member | None) -> None:
    """The same command on both: the same answer, events and journal."""
    seq, at_us = pit.state.sequence + 1, pit.exchange.at_us
    request = pit.exchange.signed(signer.key) if signer is not None else None
    outcome, again = apply(pit.state, seq, at_us, command, request), apply(restarted, seq, at_us, command, request)
    assert outcome.rejection is None, outcome.rejection
    assert (again.reply, again.events) == (outcome.reply, outcome.events)
    assert _journal(again) == _journal(outcome)


@pytest.mark.parametrize("is_virtual", [False, True])
def test_a_loser_that_locks_all_it_has_in_orders_pays_all_the_same(is_virtual: bool) -> None:
    """T-137: with the loan of S-12 (3) switched off, and all USDC in bids that nobody fills."""
    pit = Pit()
    winner, loser = pit.member("winner", 10_000), pit.member("loser", 10_000)
    loser.does(UpdateAccount(loser.subaccount, auto_borrow_settlements=False, auto_realize_pnl=not is_virtual))
    cross(winner, loser, 1_000, 15_000)
    spot = pit.exchange.market("SOL_USDC")
    for part in (2, 1):
        lots = pit.state.free(loser.subaccount, pit.state.usdc) // (part * 50 * USDC // 100)
        order = PlaceOrder(
            loser.subaccount, spot, Side.BID, OrderType.LIMIT, TimeInForce.GTC, price_ticks=5_000, lots=lots
        )
        loser.does(order)
    assert pit.state.free(loser.subaccount, pit.state.usdc) < USDC
    pit.price(160)
    pit.exchange.advance(70)
    assert loser.account.unsettled == winner.account.unsettled == 0
    assert len(loser.account.orders) == 1, "no more orders end than it takes"
    assert winner.usdc > 10_090 * USDC


def test_a_gap_beyond_64_bits_is_put_on_record() -> None:
    """T-138: a sandbox's prices and faucet make figures in USD (1e-8) that MessagePack's integers do not hold."""
    pit = Pit()
    anna, bert = pit.member("anna", 3 * 10**9), pit.member("bert", 3 * 10**9)
    for member in (anna, bert):
        member.does(UpdateAccount(member.subaccount, leverage_limit=20 * RATE_SCALE))
    lots = 2 * 10**7
    while anna.lots < 5 * 10**8 and bert.trade(Side.ASK, lots, 15_000).rejection is None:
        if anna.trade(Side.BID, lots, 15_000).rejection is not None or not bert.lots:
            break
    before = len(pit.exchange.outcomes)
    pit.price(1_000_000)
    assert bert.sums().equity < -(2**63)
    pit.exchange.advance(30)
    for outcome in pit.exchange.outcomes[before:]:
        for entry in outcome.journal:
            sealed = seal(GENESIS_HASH, 1, outcome.seq, outcome.at_us, entry)
            assert encode_memo(decode_memo(sealed.memo)) == sealed.memo
    assert snapshot.dump(snapshot.load(snapshot.dump(pit.state))) == snapshot.dump(pit.state)
