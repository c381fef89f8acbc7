"""What happens to an order, in a trader's words.   [S-1, S-7, A-11]"""

from __future__ import annotations

import msgspec
import pytest

from engine.commands import CancelAllOrders, CancelOrder, ConfigureMarket, PlaceOrder, SelfTrade
from engine.events import BookLevel, OrderAccepted, OrderCancelled, OrderExpired, OrderRefused, Trade
from engine.parameters import BookState
from engine.snapshot import state_hash
from tests.engine.desk import (
    ASK,
    BID,
    BOTH,
    CANCELLED,
    EXPIRED,
    FILLED,
    FOK,
    IOC,
    MAKER,
    MARKET,
    NEW,
    PARTIALLY_FILLED,
    TAKER,
    Desk,
    ExpiryReason,
    RejectReason,
)

USDC_TICK_LOT = 100
"""USDC atoms of one tick × one lot."""
SOL_LOT = 10_000_000
"""SOL atoms of one lot."""


@pytest.fixture
def desk() -> Desk:
    return Desk()


def set_state(desk: Desk, state: BookState) -> None:
    parameters = desk.state.markets[desk.market].parameters
    desk.exchange.do(ConfigureMarket(msgspec.structs.replace(parameters, state=state)))


# --- resting, matching, priority


def test_an_order_that_meets_nobody_rests_and_locks_its_spend(desk: Desk) -> None:
    anna = desk.trader("anna")
    view = anna.buys(10, at=15_000)

    assert view.status is NEW
    assert desk.bids() == [(15_000, 10)]
    assert anna.can_spend("USDC") == anna.has("USDC") - 10 * 15_000 * USDC_TICK_LOT

    anna.sells(3, at=15_100)

    assert anna.can_spend("SOL") == anna.has("SOL") - 3 * SOL_LOT


def test_a_taker_trades_at_the_makers_price_and_gets_back_what_it_did_not_need(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(10, at=15_000)
    view = bert.buys(10, at=15_100)

    assert desk.fills() == [(15_000, 10)]
    assert view.status is FILLED
    assert view.executed_quote_atoms == 10 * 15_000 * USDC_TICK_LOT
    assert bert.can_spend("USDC") == bert.has("USDC") == 10**12 - 10 * 15_000 * USDC_TICK_LOT


def test_better_prices_trade_first_then_older_orders(desk: Desk) -> None:
    anna, bert, carl, dora = (desk.trader(name) for name in ("anna", "bert", "carl", "dora"))
    anna.sells(5, at=15_001)
    bert.sells(5, at=15_000)
    carl.sells(5, at=15_000)
    dora.buys(12, at=15_001)

    makers = [(trade.maker.subaccount_id, trade.lots) for trade in desk.trades()]
    assert makers == [(bert.subaccount, 5), (carl.subaccount, 5), (anna.subaccount, 2)]


def test_a_partly_filled_maker_keeps_its_place_in_the_queue(desk: Desk) -> None:
    anna, bert, carl = (desk.trader(name) for name in ("anna", "bert", "carl"))
    anna.buys(10, at=15_000)
    bert.buys(10, at=15_000)
    carl.sells(4, at=15_000)
    carl.sells(4, at=15_000)

    assert [trade.maker.subaccount_id for trade in desk.trades()] == [anna.subaccount]


def test_what_is_left_of_a_taker_rests_at_its_limit(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(4, at=15_000)
    view = bert.buys(10, at=15_010)

    assert view.status is PARTIALLY_FILLED
    assert desk.bids() == [(15_010, 6)]
    assert desk.asks() == []
    locked = bert.has("USDC") - bert.can_spend("USDC")
    assert locked == 6 * 15_010 * USDC_TICK_LOT


def test_nobody_fills_worse_than_the_limit(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(4, at=15_000)
    anna.sells(4, at=15_011)
    bert.buys(10, at=15_010)

    assert desk.fills() == [(15_000, 4)]


def test_spending_more_than_one_has_is_refused_with_both_numbers(desk: Desk) -> None:
    poor = desk.trader("poor", usdc=1_500_000 - 1, sol=SOL_LOT - 1)
    rejection = poor.tries(poor.order(BID, 15_000, 1)).rejection

    assert rejection is not None
    assert rejection.reason is RejectReason.INSUFFICIENT_FUNDS
    assert (rejection.facts["required_atoms"], rejection.facts["free_atoms"]) == (1_500_000, 1_499_999)
    assert poor.is_refused(ASK, 15_000, 1) is RejectReason.INSUFFICIENT_FUNDS


def test_one_atom_more_is_enough(desk: Desk) -> None:
    exact = desk.trader("exact", usdc=1_500_000, sol=SOL_LOT)

    assert exact.buys(1, at=15_000).status is NEW
    assert exact.can_spend("USDC") == 0
    assert exact.is_refused(BID, 1, 1) is RejectReason.PRICE_OUT_OF_BAND
    assert exact.is_refused(BID, 14_999, 1) is RejectReason.INSUFFICIENT_FUNDS


def test_locked_funds_can_be_spent_once_only(desk: Desk) -> None:
    anna = desk.trader("anna", usdc=3_000_000)
    anna.buys(2, at=15_000)

    assert anna.is_refused(BID, 15_000, 1) is RejectReason.INSUFFICIENT_FUNDS

    anna.cancels_all()

    assert anna.buys(2, at=15_000).status is NEW


# --- time in force, post-only, market


def test_immediate_or_cancel_takes_what_is_there_and_expires(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(4, at=15_000)
    view = bert.buys(10, at=15_000, time_in_force=IOC)

    assert (view.status, view.executed_lots) == (EXPIRED, 4)
    assert view.expiry_reason is ExpiryReason.IMMEDIATE_OR_CANCEL
    assert desk.bids() == []
    assert bert.can_spend("USDC") == bert.has("USDC")


def test_immediate_or_cancel_that_is_filled_is_filled(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(10, at=15_000)

    assert bert.buys(10, at=15_000, time_in_force=IOC).status is FILLED


def test_fill_or_kill_trades_all_or_nothing(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(4, at=15_000)
    anna.sells(4, at=15_001)
    killed = bert.buys(9, at=15_001, time_in_force=FOK)

    assert (killed.status, killed.executed_lots) == (EXPIRED, 0)
    assert killed.expiry_reason is ExpiryReason.FILL_OR_KILL
    assert desk.asks() == [(15_000, 4), (15_001, 4)]

    assert bert.buys(8, at=15_001, time_in_force=FOK).status is FILLED


def test_fill_or_kill_against_an_empty_book_is_killed(desk: Desk) -> None:
    view = desk.trader("anna").buys(1, at=15_000, time_in_force=FOK)

    assert (view.status, view.expiry_reason) == (EXPIRED, ExpiryReason.FILL_OR_KILL)


def test_fill_or_kill_does_not_count_own_orders(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(5, at=15_000)
    bert.sells(5, at=15_000)

    for mode in (TAKER, MAKER, BOTH):
        view = bert.buys(10, at=15_000, time_in_force=FOK, self_trade=mode)
        assert (view.status, view.executed_lots) == (EXPIRED, 0), mode
    assert desk.asks() == [(15_000, 10)]

    # With REJECT_MAKER own orders are skipped: what others offer is enough.
    anna.sells(5, at=15_001)
    view = bert.buys(10, at=15_001, time_in_force=FOK, self_trade=MAKER)

    assert view.status is FILLED
    assert desk.asks() == []


def test_fill_or_kill_stops_counting_at_an_own_order_in_the_way(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    bert.sells(1, at=15_000)
    anna.sells(10, at=15_001)

    assert bert.buys(5, at=15_001, time_in_force=FOK, self_trade=TAKER).status is EXPIRED


def test_a_post_only_order_that_would_take_is_refused(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(1, at=15_000)

    assert bert.is_refused(BID, 15_000, 1, post_only=True) is RejectReason.POST_ONLY_WOULD_TAKE
    assert bert.buys(1, at=14_999, post_only=True).status is NEW
    assert desk.asks() == [(15_000, 1)]


def test_a_market_order_by_quantity_sweeps_levels(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(4, at=15_000)
    anna.sells(4, at=15_100)
    view = bert.buys(6)

    assert view.status is FILLED
    assert desk.fills() == [(15_000, 4), (15_100, 2)]


def test_a_market_order_without_enough_liquidity_expires_partly_filled(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.buys(4, at=15_000)
    view = bert.sells(6)

    assert (view.status, view.executed_lots) == (EXPIRED, 4)
    assert view.expiry_reason is ExpiryReason.INSUFFICIENT_LIQUIDITY


def test_a_market_order_into_an_empty_book_expires(desk: Desk) -> None:
    view = desk.trader("anna").buys(1)

    assert (view.status, view.expiry_reason) == (EXPIRED, ExpiryReason.INSUFFICIENT_LIQUIDITY)


def test_a_market_buy_for_a_quote_quantity_never_spends_more(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(4, at=15_000)
    anna.sells(4, at=15_100)
    # 4 lots at 150.00 cost 6.00; 3.10 is left, one lot at 151.00 costs 1.51.
    view = bert.buys(quote_atoms=9_100_000)

    assert view.status is FILLED
    assert desk.fills() == [(15_000, 4), (15_100, 2)]
    assert view.executed_quote_atoms == 6_000_000 + 3_020_000
    assert bert.has("USDC") == 10**12 - 9_020_000


def test_a_market_sale_for_a_quote_quantity_receives_at_most_that(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.buys(10, at=15_000)
    view = bert.sells(quote_atoms=4_600_000)

    assert view.status is FILLED
    assert (view.executed_lots, view.executed_quote_atoms) == (3, 4_500_000)


def test_a_quote_quantity_that_buys_no_lot_expires(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(4, at=15_000)
    view = bert.buys(quote_atoms=1_499_999)

    assert (view.status, view.expiry_reason) == (EXPIRED, ExpiryReason.INVALID_QUANTITY)
    assert desk.asks() == [(15_000, 4)]


def test_a_market_order_needs_what_it_is_going_to_spend(desk: Desk) -> None:
    anna = desk.trader("anna")
    poor = desk.trader("poor", usdc=7_510_000 - 1, sol=0)
    anna.sells(4, at=15_000)
    anna.sells(4, at=15_100)

    # 4 lots at 150.00 and one at 151.00.
    assert poor.is_refused(BID, lots=5) is RejectReason.INSUFFICIENT_FUNDS
    assert poor.is_refused(BID, quote_atoms=7_510_000) is RejectReason.INSUFFICIENT_FUNDS
    assert poor.buys(4).status is FILLED


def test_a_market_buy_for_a_quote_quantity_needs_all_of_it_even_when_little_is_offered(desk: Desk) -> None:
    anna = desk.trader("anna")
    poor = desk.trader("poor", usdc=2_000_000, sol=0)
    anna.sells(1, at=15_000)

    assert poor.is_refused(BID, quote_atoms=2_000_001) is RejectReason.INSUFFICIENT_FUNDS
    assert poor.buys(quote_atoms=2_000_000).executed_lots == 1


def test_a_market_sale_needs_the_base_it_sells(desk: Desk) -> None:
    anna = desk.trader("anna")
    poor = desk.trader("poor", sol=3 * SOL_LOT - 1)
    anna.buys(10, at=15_000)

    assert poor.is_refused(ASK, lots=3) is RejectReason.INSUFFICIENT_FUNDS
    assert poor.is_refused(ASK, quote_atoms=4_500_000) is RejectReason.INSUFFICIENT_FUNDS
    assert poor.sells(2).status is FILLED


# --- self-trade prevention


def test_reject_taker_stops_at_the_first_own_order(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(2, at=15_000)
    bert.sells(2, at=15_001)
    anna.sells(2, at=15_002)
    view = bert.buys(6, at=15_002, self_trade=TAKER)

    assert (view.status, view.executed_lots) == (EXPIRED, 2)
    assert view.expiry_reason is ExpiryReason.SELF_TRADE_PREVENTION
    assert desk.asks() == [(15_001, 2), (15_002, 2)]


def test_reject_maker_cancels_own_orders_and_goes_on(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(2, at=15_000)
    bert.sells(2, at=15_001)
    anna.sells(2, at=15_002)
    view = bert.buys(6, at=15_002, self_trade=MAKER)

    assert (view.status, view.executed_lots) == (PARTIALLY_FILLED, 4)
    assert desk.asks() == []
    assert desk.bids() == [(15_002, 2)]
    gone = desk.reported(OrderExpired)
    assert [(event.order.subaccount_id, event.order.expiry_reason) for event in gone] == [
        (bert.subaccount, ExpiryReason.SELF_TRADE_PREVENTION)
    ]
    assert bert.can_spend("SOL") == bert.has("SOL")


def test_reject_both_cancels_the_maker_and_stops_the_taker(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(2, at=15_000)
    bert.sells(2, at=15_001)
    anna.sells(2, at=15_002)
    view = bert.buys(6, at=15_002, self_trade=BOTH)

    assert (view.status, view.executed_lots) == (EXPIRED, 2)
    assert desk.asks() == [(15_002, 2)]
    assert bert.can_spend("SOL") == bert.has("SOL")


@pytest.mark.parametrize("mode", list(SelfTrade))
def test_an_own_order_that_is_never_reached_survives(desk: Desk, mode: SelfTrade) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(2, at=15_000)
    bert.sells(2, at=15_000)
    view = bert.buys(2, at=15_000, self_trade=mode)

    assert view.status is FILLED
    assert desk.asks() == [(15_000, 2)]


def test_self_trade_is_keyed_by_user_not_by_subaccount(desk: Desk) -> None:
    from engine.commands import OpenSubaccount

    bert = desk.trader("bert")
    user = desk.state.subaccounts[bert.subaccount].user
    second = bert.does(OpenSubaccount(user.user_id, bytes(31) + b"2")).reply.subaccount_id
    desk.exchange.deposit(second, "USDC", 10**9)
    bert.sells(2, at=15_000)
    request = desk.exchange.signed(bytes(31) + b"2")
    order = PlaceOrder(second, desk.market, BID, bert.order(BID, 15_000, 2).order_type, price_ticks=15_000, lots=2)
    view = desk.attempt(order, request).reply

    assert view.expiry_reason is ExpiryReason.SELF_TRADE_PREVENTION


# --- client ids  


def test_a_repeated_client_id_with_the_same_order_has_no_second_effect(desk: Desk) -> None:
    anna = desk.trader("anna")
    first = anna.buys(10, at=15_000, client_id=7)
    before = desk.bids()
    again = anna.buys(10, at=15_000, client_id=7)

    assert again == first
    assert desk.bids() == before
    assert desk.last.events == [] and desk.last.journal == []


def test_a_repeated_client_id_with_another_order_is_an_error(desk: Desk) -> None:
    anna = desk.trader("anna")
    anna.buys(10, at=15_000, client_id=7)

    assert anna.is_refused(BID, 15_000, 11, client_id=7) is RejectReason.DUPLICATE_CLIENT_ID
    assert anna.is_refused(BID, 15_001, 10, client_id=7) is RejectReason.DUPLICATE_CLIENT_ID
    assert anna.is_refused(BID, 15_000, 10, client_id=7, post_only=True) is RejectReason.DUPLICATE_CLIENT_ID


def test_a_client_id_is_free_again_when_its_order_ends(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    first = anna.buys(10, at=15_000, client_id=7)
    bert.sells(10, at=15_000)
    second = anna.buys(10, at=15_000, client_id=7)
    anna.cancels(client_id=7)
    third = anna.buys(9, at=15_000, client_id=7)

    assert len({first.order_id, second.order_id, third.order_id}) == 3


def test_client_ids_of_different_subaccounts_do_not_meet(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    first = anna.buys(1, at=15_000, client_id=0)
    second = bert.buys(2, at=14_000, client_id=0)

    assert first.order_id != second.order_id


# --- cancelling


def test_cancelling_gives_back_what_was_locked(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    order = anna.buys(10, at=15_000)
    bert.sells(4, at=15_000)
    view = anna.cancels(order.order_id)

    assert (view.status, view.executed_lots) == (CANCELLED, 4)
    assert desk.bids() == []
    assert anna.can_spend("USDC") == anna.has("USDC")


def test_an_order_can_be_cancelled_once(desk: Desk) -> None:
    anna = desk.trader("anna")
    order = anna.buys(10, at=15_000)
    anna.cancels(order.order_id)
    rejection = anna.tries(CancelOrder(anna.subaccount, desk.market, order.order_id)).rejection

    assert rejection is not None and rejection.reason is RejectReason.UNKNOWN_ORDER


def test_nobody_cancels_anothers_order(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    order = anna.buys(10, at=15_000)
    as_bert = bert.tries(CancelOrder(bert.subaccount, desk.market, order.order_id)).rejection
    as_anna = bert.tries(CancelOrder(anna.subaccount, desk.market, order.order_id)).rejection

    assert as_bert is not None and as_bert.reason is RejectReason.UNKNOWN_ORDER
    assert as_anna is not None and as_anna.reason is RejectReason.NOT_OWNER
    assert desk.bids() == [(15_000, 10)]


def test_an_order_is_cancelled_in_its_own_market_by_exactly_one_id(desk: Desk) -> None:
    anna = desk.trader("anna")
    order = anna.buys(10, at=15_000, client_id=3)
    other = desk.exchange.market("ETH_USDC")
    attempts = [
        CancelOrder(anna.subaccount, other, order.order_id),
        CancelOrder(anna.subaccount, desk.market),
        CancelOrder(anna.subaccount, desk.market, order.order_id, 3),
    ]
    reasons = [rejection.reason for each in attempts if (rejection := anna.tries(each).rejection)]

    assert reasons == [RejectReason.UNKNOWN_ORDER, RejectReason.INVALID_ORDER, RejectReason.INVALID_ORDER]


def test_cancel_all_ends_every_order_of_the_subaccount_and_no_other(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    for price in (14_000, 14_500, 15_000):
        anna.buys(1, at=price)
    bert.buys(1, at=14_500)
    views = anna.cancels_all()

    assert [view.status for view in views] == [CANCELLED] * 3
    assert desk.bids() == [(14_500, 1)]
    assert len(desk.reported(OrderCancelled)) == 3


def test_cancel_all_of_one_market_leaves_the_others(desk: Desk) -> None:
    anna = desk.trader("anna")
    anna.buys(1, at=15_000)
    eth = desk.exchange.market("ETH_USDC")
    anna.does(PlaceOrder(anna.subaccount, eth, BID, anna.order(BID, 1, 1).order_type, price_ticks=300_000, lots=1))
    views = anna.does(CancelAllOrders(anna.subaccount, eth)).reply

    assert [view.market_id for view in views] == [eth]
    assert desk.bids() == [(15_000, 1)]


# --- batches


def test_each_order_of_a_batch_stands_for_itself(desk: Desk) -> None:
    anna = desk.trader("anna")
    good, bad, also = anna.places(
        anna.order(BID, 15_000, 1), anna.order(BID, 15_000, 0), anna.order(ASK, 15_100, 2)
    )

    assert good.status is NEW and also.status is NEW
    assert isinstance(bad, OrderRefused)
    assert bad.reason == RejectReason.INVALID_QUANTITY
    assert (desk.bids(), desk.asks()) == ([(15_000, 1)], [(15_100, 2)])


def test_a_batch_has_a_size_and_at_least_one_order(desk: Desk) -> None:
    from engine.commands import PlaceOrders

    anna = desk.trader("anna")
    for count in (0, desk.state.limits.orders_per_batch + 1):
        rejection = anna.tries(PlaceOrders((anna.order(BID, 15_000, 1),) * count)).rejection
        assert rejection is not None and rejection.reason is RejectReason.BATCH_SIZE


def test_a_level_is_reported_once_however_often_the_command_touched_it(desk: Desk) -> None:
    anna = desk.trader("anna")
    anna.places(*[anna.order(BID, 15_000, 1), anna.order(BID, 15_000, 2), anna.order(BID, 14_999, 4)])

    levels = [(event.side, event.price_ticks, event.lots) for event in desk.reported(BookLevel)]
    assert levels == [(BID, 15_000, 3), (BID, 14_999, 4)]


# --- what is reported


def test_acceptance_comes_before_trades_and_the_end_after_them(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(1, at=15_000)
    anna.sells(1, at=15_001)
    bert.buys(5, at=15_001, time_in_force=IOC)
    kinds = [type(event) for event in desk.last.events]

    assert kinds[:4] == [OrderAccepted, Trade, Trade, OrderExpired]
    assert [event.order.status for event in desk.reported(OrderAccepted)] == [NEW]
    levels = [(event.price_ticks, event.lots) for event in desk.reported(BookLevel)]
    assert levels == [(15_000, 0), (15_001, 0)]


def test_a_trade_shows_both_orders_as_they_stand_after_it(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(5, at=15_000)
    anna.sells(5, at=15_001)
    bert.buys(7, at=15_001)
    first, second = desk.trades()

    assert (first.taker.executed_lots, first.maker.status) == (5, FILLED)
    assert (second.taker.executed_lots, second.taker.status) == (7, FILLED)
    assert (second.maker.executed_lots, second.maker.status) == (2, PARTIALLY_FILLED)
    assert second.trade_id == first.trade_id + 1


# --- bad orders


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"at": 15_000, "lots": 0}, RejectReason.INVALID_QUANTITY),
        ({"at": 15_000, "lots": -1}, RejectReason.INVALID_QUANTITY),
        ({"at": 15_000, "lots": 10**18}, RejectReason.INVALID_QUANTITY),
        ({"at": -15_000, "lots": 1}, RejectReason.INVALID_PRICE),
        ({"at": 15_000, "lots": 1, "quote_atoms": 5}, RejectReason.INVALID_ORDER),
        ({"at": 15_000, "lots": 1, "post_only": True, "time_in_force": IOC}, RejectReason.INVALID_ORDER),
        ({"at": 15_000, "lots": 1, "post_only": True, "time_in_force": FOK}, RejectReason.INVALID_ORDER),
        ({"at": 15_000, "lots": 1, "reduce_only": True}, RejectReason.NOT_SUPPORTED),
        ({"at": 15_000, "lots": 1, "client_id": 2**32}, RejectReason.INVALID_ORDER),
        ({"lots": 1, "quote_atoms": 5}, RejectReason.INVALID_QUANTITY),
        ({"lots": 0, "quote_atoms": 0}, RejectReason.INVALID_QUANTITY),
        ({"quote_atoms": 2**63}, RejectReason.INVALID_QUANTITY),
        ({"quote_atoms": -1}, RejectReason.INVALID_QUANTITY),
        ({"lots": 1, "post_only": True}, RejectReason.INVALID_ORDER),
        ({"at": 15_000, "lots": 1, "order_type": MARKET}, RejectReason.INVALID_ORDER),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(desk: Desk, fields: dict, reason: RejectReason) -> None:
    anna = desk.trader("anna")
    before = state_hash_without_sequence(desk)

    assert anna.is_refused(BID, **fields) is reason
    assert state_hash_without_sequence(desk) == before


def state_hash_without_sequence(desk: Desk) -> bytes:
    sequence, desk.state.sequence = desk.state.sequence, 0
    digest = state_hash(desk.state)
    desk.state.sequence = sequence
    return digest


def test_unknown_markets_and_subaccounts_are_named(desk: Desk) -> None:
    anna = desk.trader("anna")
    order = anna.order(BID, 15_000, 1)
    rejection = anna.tries(msgspec.structs.replace(order, market_id=99)).rejection

    assert rejection is not None and rejection.reason is RejectReason.UNKNOWN_MARKET
    assert rejection.facts == {"market_id": 99}


def test_open_orders_are_limited(desk: Desk) -> None:
    desk = Desk(genesis="minimal")
    anna = desk.trader("anna", usdc=10_000, sol=0)
    limit = desk.state.limits.open_orders_per_subaccount
    for _ in range(limit):
        anna.buys(1, at=5)

    assert anna.is_refused(BID, 5, 1) is RejectReason.ORDER_LIMIT
    assert anna.buys(1, at=5, time_in_force=IOC).status is EXPIRED


# --- book states   [S-7]


@pytest.mark.parametrize(
    ("state", "fields", "reason"),
    [
        (BookState.POST_ONLY, {"at": 15_000, "lots": 1}, RejectReason.POST_ONLY_MODE),
        (BookState.POST_ONLY, {"lots": 1}, RejectReason.POST_ONLY_MODE),
        (BookState.POST_ONLY, {"at": 15_000, "lots": 1, "post_only": True}, None),
        (BookState.LIMIT_ONLY, {"lots": 1}, RejectReason.LIMIT_ONLY_MODE),
        (BookState.LIMIT_ONLY, {"at": 15_000, "lots": 1}, None),
        (BookState.CANCEL_ONLY, {"at": 15_000, "lots": 1}, RejectReason.CANCEL_ONLY_MODE),
        (BookState.CLOSED, {"at": 15_000, "lots": 1}, RejectReason.MARKET_CLOSED),
    ],
)
def test_a_book_takes_what_its_state_says(
    desk: Desk, state: BookState, fields: dict, reason: RejectReason | None
) -> None:
    anna = desk.trader("anna")
    set_state(desk, state)
    if reason is None:
        assert anna.buys(fields.pop("lots"), **fields).status is NEW
    else:
        assert anna.is_refused(BID, **fields) is reason


def test_closing_a_market_cancels_its_orders_and_frees_what_they_lock(desk: Desk) -> None:
    anna = desk.trader("anna")
    anna.buys(1, at=15_000)
    anna.sells(1, at=15_100)
    set_state(desk, BookState.CLOSED)

    assert (desk.bids(), desk.asks()) == ([], [])
    assert anna.can_spend("USDC") == anna.has("USDC")
    assert desk.state.orders == {}


def test_orders_can_be_cancelled_in_a_cancel_only_book(desk: Desk) -> None:
    anna = desk.trader("anna")
    order = anna.buys(1, at=15_000)
    set_state(desk, BookState.CANCEL_ONLY)

    assert anna.cancels(order.order_id).status is CANCELLED
