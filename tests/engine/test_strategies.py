"""Scheduled strategies: slices in their time, by the ordinary path.   [S-7]"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from engine.commands import (
    CancelAllStrategies,
    CancelStrategy,
    ConfigureMarket,
    CreateStrategy,
    RunStrategies,
    SlippageKind,
)
from engine.events import OrderAccepted, StrategyChanged, StrategyView
from engine.parameters import BookState
from tests.engine.desk import ASK, BID, BOTH, IOC, MAKER, TAKER, Desk, RejectReason, Trader
from tests.engine.perps import Pit, cross

MINUTE = 60_000


class Hall:
    """A deep book around 150 and a trader with strategies."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.maker = self.desk.trader("maker")
        self.alice = self.desk.trader("alice")
        self.maker.sells(10_000, at=15_000)
        self.maker.buys(10_000, at=14_990)

    def creates(self, trader: Trader | None = None, **fields: Any) -> StrategyView:
        view: StrategyView = (trader or self.alice).does(self.asks(trader, **fields)).reply
        return view

    def asks(self, trader: Trader | None = None, **fields: Any) -> CreateStrategy:
        values = {"side": BID, "lots": 100, "duration_ms": 10 * MINUTE, "interval_ms": MINUTE} | fields
        return CreateStrategy((trader or self.alice).subaccount, self.desk.market, **values)

    def slices(self, seconds: int) -> list[int]:
        """Lots of the orders that strategies send in this time."""
        sent = []
        for outcome in self.desk.exchange.advance(seconds):
            for event in outcome.events:
                if isinstance(event, OrderAccepted) and event.order.terms is not None:
                    assert event.order.terms.strategy_id
                    sent.append(event.order.lots)
        return sent

    def ended(self, strategy_id: int) -> StrategyView:
        events = [event for outcome in self.desk.exchange.outcomes for event in outcome.events]
        views = [event.strategy for event in events if isinstance(event, StrategyChanged)]
        last = [view for view in views if view.strategy_id == strategy_id][-1]
        assert last.status != "Running" and last.strategy_id not in self.desk.state.strategies
        return last


@pytest.fixture
def hall() -> Hall:
    return Hall()


def test_slices_enter_at_the_beginning_of_each_interval(hall: Hall) -> None:
    created = hall.creates()
    assert created.status == "Running" and hall.slices(0) == [10]
    assert hall.desk.state.slice_due_us == created.created_at_us + 60_000_000
    assert hall.slices(59) == [] and hall.slices(1) == [10]
    assert hall.slices(8 * 60) == [10] * 8
    view = hall.ended(created.strategy_id)
    assert view.status == "Completed" and view.executed_lots == 100
    assert view.executed_quote_atoms == 100 * 15_000 * 100 and not hall.desk.state.slice_due_us
    assert hall.desk.is_balanced()


def test_an_uneven_quantity_is_cut_whole(hall: Hall) -> None:
    created = hall.creates(lots=103, duration_ms=10 * MINUTE - 1)
    sizes = hall.slices(600)
    assert len(sizes) == 10 and sum(sizes) == 103 and max(sizes) - min(sizes) <= 1
    assert hall.ended(created.strategy_id).status == "Completed"


def test_what_a_slice_leaves_is_carried_over(hall: Hall) -> None:
    hall.maker.cancels_all()
    hall.maker.sells(4, at=15_000)
    created = hall.creates(lots=40, duration_ms=4 * MINUTE, time_in_force=IOC)
    assert hall.slices(0) == [10]
    hall.maker.sells(1_000, at=15_000)
    assert hall.slices(240) == [12, 12, 12]
    assert hall.ended(created.strategy_id).status == "Completed"


def test_a_resting_slice_is_withdrawn_for_the_next_and_at_the_end(hall: Hall) -> None:
    created = hall.creates(lots=30, duration_ms=3 * MINUTE, price_ticks=14_995, post_only=True)
    assert hall.slices(0) == [10] and hall.desk.bids()[0] == (14_995, 10)
    hall.maker.sells(4, at=14_995)
    assert hall.desk.state.strategies[created.strategy_id].view.executed_lots == 4
    assert hall.slices(60) == [13] and hall.desk.bids()[0] == (14_995, 13)
    assert hall.slices(60) == [26] and hall.desk.bids()[0] == (14_995, 26)
    hall.maker.sells(6, at=14_995)
    assert hall.slices(60) == [] and hall.desk.bids()[0] == (14_990, 10_000)
    view = hall.ended(created.strategy_id)
    assert (view.status, view.reason, view.executed_lots) == ("Terminated", "Expired", 10)
    assert hall.alice.can_spend("USDC") == hall.alice.has("USDC")


def test_randomized_slices_vary_by_a_tenth_and_add_up(hall: Hall) -> None:
    first = hall.creates(lots=10_000, duration_ms=10 * MINUTE, randomized=True)
    sizes = hall.slices(600)
    assert len(sizes) == 10 and sum(sizes) == 10_000 and len(set(sizes)) > 5
    for place, size in enumerate(sizes[:9]):
        even = (10_000 - sum(sizes[:place])) // (10 - place)
        assert even * 900 // 1_000 <= size <= even * 1_100 // 1_000
    assert hall.ended(first.strategy_id).status == "Completed"
    other = Hall()
    other.creates(lots=10_000, duration_ms=10 * MINUTE, randomized=True)
    assert other.slices(600) == sizes


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"side": ASK, "lots": 10_000, "price_ticks": 14_990}, "InsufficientFunds"),
        ({"price_ticks": 1}, "PriceOutOfBounds"),
    ],
)
def test_a_slice_that_is_refused(hall: Hall, fields: dict[str, Any], reason: str) -> None:
    poor = hall.desk.trader("poor", sol=0)
    created = hall.creates(poor, **fields)
    sent = hall.slices(0)
    if reason == "InsufficientFunds":
        view = hall.ended(created.strategy_id)
        assert sent == [] and (view.status, view.reason) == ("Terminated", reason)
    else:
        # Prices may come back: it goes on until its time is over.
        assert created.strategy_id in hall.desk.state.strategies
        hall.slices(600)
        assert hall.ended(created.strategy_id).reason == reason


def test_slippage_bounds_each_slice(hall: Hall) -> None:
    hall.maker.cancels_all()
    hall.maker.sells(4, at=15_000)
    hall.maker.sells(1_000, at=15_100)
    hall.creates(lots=20, duration_ms=2 * MINUTE, slippage=10, slippage_kind=SlippageKind.TICKS)
    hall.slices(0)
    assert next(iter(hall.desk.state.strategies.values())).view.executed_lots == 4


def test_cancel_by_id_by_client_id_and_all(hall: Hall) -> None:
    first, second = hall.creates(price_ticks=14_991, client_id=7), hall.creates(price_ticks=14_992)
    third = hall.creates(price_ticks=14_992)
    hall.slices(0)
    assert len(hall.desk.bids()) == 3
    market, alice = hall.desk.market, hall.alice
    view = alice.does(CancelStrategy(alice.subaccount, market, client_id=7)).reply
    assert view.strategy_id == first.strategy_id and view.status == "Cancelled" and len(hall.desk.bids()) == 2
    views = alice.does(CancelAllStrategies(alice.subaccount, market)).reply
    assert [each.strategy_id for each in views] == [second.strategy_id, third.strategy_id]
    assert len(hall.desk.bids()) == 1 and not hall.desk.state.slice_due_us
    rejection = alice.tries(CancelStrategy(alice.subaccount, market, strategy_id=first.strategy_id)).rejection
    assert rejection is not None and rejection.reason is RejectReason.UNKNOWN_STRATEGY


def test_client_ids_are_unique_among_orders_and_strategies(hall: Hall) -> None:
    """A-11."""
    created = hall.creates(client_id=7)
    assert hall.creates(client_id=7) == created and len(hall.desk.state.strategies) == 1
    rejection = hall.alice.tries(hall.asks(client_id=7, lots=101)).rejection
    assert rejection is not None and rejection.reason is RejectReason.DUPLICATE_CLIENT_ID
    assert hall.alice.is_refused(BID, 14_000, 1, client_id=7) is RejectReason.DUPLICATE_CLIENT_ID
    hall.alice.buys(1, at=14_000, client_id=8)
    rejection = hall.alice.tries(hall.asks(client_id=8)).rejection
    assert rejection is not None and rejection.reason is RejectReason.DUPLICATE_CLIENT_ID


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lots": 9}, RejectReason.INVALID_QUANTITY),
        ({"interval_ms": 999}, RejectReason.INVALID_ORDER),
        ({"duration_ms": MINUTE - 1}, RejectReason.INVALID_ORDER),
        ({"duration_ms": 31 * 86_400_000}, RejectReason.INVALID_ORDER),
        ({"post_only": True}, RejectReason.INVALID_ORDER),
        ({"price_ticks": -1}, RejectReason.INVALID_PRICE),
        ({"reduce_only": True}, RejectReason.NOT_SUPPORTED),
        ({"slippage": 5}, RejectReason.INVALID_ORDER),
    ],
)
def test_what_cannot_be_a_strategy_is_refused(hall: Hall, fields: dict[str, Any], reason: RejectReason) -> None:
    rejection = hall.alice.tries(hall.asks(**fields)).rejection
    assert rejection is not None and rejection.reason is reason


def test_the_limit_of_strategies(hall: Hall) -> None:
    for _each in range(hall.desk.state.limits.strategies_per_subaccount):
        hall.creates()
    rejection = hall.alice.tries(hall.asks()).rejection
    assert rejection is not None and rejection.reason is RejectReason.STRATEGY_LIMIT


def test_closing_the_market_ends_its_strategies(hall: Hall) -> None:
    created = hall.creates()
    market = hall.desk.state.markets[hall.desk.market]
    hall.desk.exchange.do(ConfigureMarket(structs.replace(market.parameters, state=BookState.CLOSED)))
    view = hall.ended(created.strategy_id)
    assert (view.status, view.reason) == ("Terminated", "Unknown")


def test_run_strategies_before_its_time_is_refused(hall: Hall) -> None:
    assert hall.desk.attempt(RunStrategies()).rejection is not None


@pytest.mark.parametrize(("mode", "executed"), [(TAKER, 0), (MAKER, 10), (BOTH, 0)])
def test_self_trade_modes_of_slices(hall: Hall, mode: Any, executed: int) -> None:
    hall.alice.sells(5, at=14_999)
    hall.creates(self_trade=mode)
    hall.slices(0)
    assert next(iter(hall.desk.state.strategies.values())).view.executed_lots == executed
    assert bool(hall.desk.state.subaccounts[hall.alice.subaccount].orders) is (mode is TAKER)


def test_two_strategies_may_meet_each_other(hall: Hall) -> None:
    """One's resting slice is filled by the other's taking one within the same command; both count it once."""
    bob = hall.desk.trader("bob")
    seller = hall.creates(bob, side=ASK, price_ticks=14_995)
    hall.slices(0)
    buyer = hall.creates(lots=50)
    hall.slices(0)
    state = hall.desk.state
    assert [state.strategies[each.strategy_id].view.executed_lots for each in (seller, buyer)] == [5, 5]
    # A minute on both are due: the seller's next slice rests before the buyer's comes.
    hall.slices(60)
    assert [state.strategies[each.strategy_id].view.executed_lots for each in (seller, buyer)] == [10, 10]
    hall.slices(600)
    assert hall.ended(buyer.strategy_id).executed_lots == 50
    assert hall.desk.is_balanced()


def test_a_reduce_only_strategy_takes_a_position_down_and_no_further() -> None:
    pit = Pit()
    anna, bert, carl = (pit.member(name, 10_000) for name in ("anna", "bert", "carl"))
    cross(anna, bert, 30, 15_000)
    carl.trade(BID, 1_000, 14_990)
    command = CreateStrategy(anna.subaccount, pit.market, ASK, 100, 10 * MINUTE, MINUTE, reduce_only=True)
    created = anna.does(command).reply
    pit.exchange.advance(120)
    assert anna.lots == 0
    pit.exchange.advance(60)
    events = [event for outcome in pit.exchange.outcomes for event in outcome.events]
    last = [event.strategy for event in events if isinstance(event, StrategyChanged)][-1]
    assert (last.strategy_id, last.status, last.reason) == (created.strategy_id, "Terminated", "ReduceOnlyNotReduced")
    assert last.executed_lots == 30 and pit.is_balanced()
