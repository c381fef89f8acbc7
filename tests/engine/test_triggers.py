"""Trigger orders, brackets and slippage.   [S-7, S-9]"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine import firing
from engine.commands import (
    Bracket,
    CancelAllOrders,
    ConfigureMarket,
    FireTriggers,
    OrderType,
    SelfTrade,
    SetPrices,
    SlippageKind,
    TimeInForce,
    TriggerBy,
)
from engine.events import (
    OrderAccepted,
    OrderCancelled,
    OrderModified,
    OrderStatus,
    OrderTerms,
    OrderView,
    Outcome,
    TriggerFailed,
    TriggerPlaced,
)
from engine.parameters import PRICE_SCALE, BookState
from engine.state import Order
from engine.triggers import Queue
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
    TAKER,
    Desk,
    ExpiryReason,
    RejectReason,
    Trader,
)
from tests.engine.perps import Pit, cross

LAST, MARK, INDEX = TriggerBy.LAST, TriggerBy.MARK, TriggerBy.INDEX
PENDING, FAILED = OrderStatus.TRIGGER_PENDING, OrderStatus.TRIGGER_FAILED


class Room:
    """A maker whose quotes move the last price of SOL_USDC, and two who trade; prices in cents."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.maker = self.desk.trader("maker")
        self.other = self.desk.trader("other")
        self.alice = self.desk.trader("alice")
        self.trade_at(15_000)

    def trade_at(self, *prices: int) -> None:
        """One lot at each of the prices, each in two commands."""
        for price in prices:
            self.maker.sells(1, at=price)
            self.other.buys(1, at=price)

    def runs(self) -> list[Outcome]:
        """What is due at this moment."""
        outcomes = self.desk.exchange.advance(0)
        if outcomes:
            self.desk.last = outcomes[-1]
        return outcomes

    def fires(self) -> list[Outcome]:
        return [outcome for outcome in self.runs() if outcome.events]

    def view(self, order_id: int) -> OrderView:
        """How the order stood last."""
        found: OrderView | None = None
        for outcome in self.desk.exchange.outcomes:
            for event in outcome.events:
                for view in (getattr(event, name, None) for name in ("order", "taker", "maker")):
                    if view is not None and view.order_id == order_id:
                        found = view
        assert found is not None, f"order {order_id} was never heard of"
        return found


@pytest.fixture
def room() -> Room:
    return Room()


def waits(
    trader: Trader, side: Any, at: int, lots: int = 10, by: TriggerBy = LAST, price: int = 0, **fields: Any
) -> OrderView:
    order = trader.order(side, price, lots, trigger_by=by, trigger_price_ticks=at, **fields)
    view: OrderView = trader.does(order).reply
    return view


def test_a_trigger_order_waits_and_locks_nothing(room: Room) -> None:
    free = room.alice.can_spend("SOL")
    view = waits(room.alice, ASK, 14_000, lots=500)
    assert view.status is PENDING and room.alice.can_spend("SOL") == free
    assert room.desk.reported(TriggerPlaced) and not room.desk.asks()
    assert room.runs() == []


def test_a_stop_fires_when_the_last_price_falls_to_it_and_not_before(room: Room) -> None:
    room.maker.buys(100, at=13_900)
    stop = waits(room.alice, ASK, 14_000)
    room.other.buys(5, at=14_001)
    room.maker.sells(5, at=14_001)
    assert room.runs() == []
    room.other.buys(5, at=14_000)
    room.maker.sells(5, at=14_000)
    assert [type(outcome.events[0]) for outcome in room.fires()] == [OrderAccepted]
    now = room.view(stop.order_id)
    assert now.status is FILLED and now.executed_lots == 10 and now.terms is not None
    assert now.terms.triggered_at_us == room.desk.state.at_us
    assert not room.alice.desk.state.subaccounts[room.alice.subaccount].waiting
    assert room.desk.state.triggers is None and room.desk.is_balanced()


def test_an_order_above_the_price_fires_on_a_rise(room: Room) -> None:
    waits(room.alice, BID, 15_100, price=15_200)
    room.maker.sells(50, at=15_150)
    room.trade_at(15_099)
    assert room.runs() == []
    room.other.buys(1, at=15_150)
    room.runs()
    assert room.desk.fills() == [(15_150, 10)]


def test_one_that_would_fire_at_once_and_one_without_a_price_are_refused(room: Room) -> None:
    order = room.alice.order(ASK, 0, 10, trigger_by=LAST, trigger_price_ticks=15_000)
    assert room.alice.tries(order).rejection.reason is RejectReason.TRIGGER_PRICE  # type: ignore[union-attr]
    order = room.alice.order(ASK, 0, 10, trigger_by=MARK, trigger_price_ticks=15_000)
    assert room.alice.tries(order).rejection.reason is RejectReason.NO_PRICE  # type: ignore[union-attr]
    assert room.alice.is_refused(ASK, lots=10, trigger_by=LAST) is RejectReason.TRIGGER_PRICE
    assert room.alice.is_refused(ASK, lots=0, trigger_by=LAST, trigger_price_ticks=9) is RejectReason.INVALID_QUANTITY


def test_mark_and_index_fire_by_pricing_commands(room: Room) -> None:
    sol = room.desk.exchange.asset("SOL")
    room.desk.exchange.do(SetPrices(((sol, 150 * PRICE_SCALE),)))
    room.maker.buys(100, at=14_500)
    room.maker.sells(100, at=15_500)
    falls = waits(room.alice, ASK, 14_900, by=INDEX)
    rises = waits(room.alice, BID, 15_100, by=MARK)
    assert room.desk.state.subaccounts[room.alice.subaccount].waiting.keys() == {falls.order_id, rises.order_id}
    room.desk.exchange.do(SetPrices(((sol, 14_900 * PRICE_SCALE // 100),)))
    room.runs()
    assert room.view(falls.order_id).status is FILLED and room.view(rises.order_id).status is PENDING
    room.desk.exchange.do(SetPrices(((sol, 15_100 * PRICE_SCALE // 100),)))
    room.runs()
    assert room.view(rises.order_id).status is FILLED
    assert room.desk.state.triggers is None


def test_several_fire_nearest_the_old_price_first_then_by_sequence(room: Room) -> None:
    far = waits(room.alice, ASK, 14_000, lots=1)
    near = waits(room.alice, ASK, 14_900, lots=1)
    second = waits(room.alice, ASK, 14_900, lots=1)
    above = waits(room.alice, ASK, 15_050, lots=1)
    room.maker.buys(10, at=15_060)
    room.other.sells(10, at=15_060)
    room.desk.exchange.advance(0)
    # Back at 15,000, and then both ways within one batch.
    room.trade_at(15_000)
    above = waits(room.alice, ASK, 15_050, lots=1)
    room.maker.sells(1, at=15_060)
    room.maker.buys(1, at=14_000)
    room.other.places(room.other.order(BID, 15_060, 1), room.other.order(ASK, 14_000, 1))
    assert list(room.desk.state.triggered) == [above.order_id, near.order_id, second.order_id, far.order_id]


def test_many_at_one_price_enter_in_several_commands_at_one_time(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firing, "AT_ONCE", 4)
    room.maker.buys(100, at=13_900)
    stops = [waits(room.alice, ASK, 14_000, lots=1) for _each in range(10)]
    room.trade_at(14_000)
    outcomes = room.fires()
    assert [sum(isinstance(event, OrderAccepted) for event in outcome.events) for outcome in outcomes] == [4, 4, 2]
    assert len({outcome.at_us for outcome in outcomes}) == 1
    assert all(room.view(stop.order_id).status is FILLED for stop in stops)


def test_what_fails_when_it_triggers_says_why(room: Room) -> None:
    poor = room.desk.trader("poor", sol=0)
    stop = waits(poor, ASK, 14_000)
    room.maker.buys(100, at=13_900)
    room.trade_at(14_000)
    room.runs()
    failed = room.desk.reported(TriggerFailed)
    assert [event.order.order_id for event in failed] == [stop.order_id]
    assert failed[0].order.status is FAILED and failed[0].order.expiry_reason is ExpiryReason.INSUFFICIENT_FUNDS


def test_a_chain_of_triggers_runs_to_its_end_at_one_moment(room: Room) -> None:
    """Each stop's own trade triggers the next: each fires with its own command, at the same exchange time."""
    for step in range(1, 6):
        room.maker.buys(10, at=15_000 - 100 * step - 50)
        waits(room.alice, ASK, 15_000 - 100 * step, lots=10)
    at_us = room.desk.exchange.at_us
    room.maker.buys(1, at=14_899)
    room.other.sells(1, at=14_899)
    outcomes = room.desk.exchange.advance(0)
    # The first best bid is 14,850: then 14,750 is reached only by the next stop, at 14,800.
    assert [len(outcome.events) > 0 for outcome in outcomes]
    assert {outcome.at_us for outcome in outcomes} == {room.desk.state.at_us} and room.desk.state.at_us >= at_us
    assert not room.desk.state.triggered


def test_cancel_by_id_by_client_id_and_all(room: Room) -> None:
    first = waits(room.alice, ASK, 14_000)
    waits(room.alice, ASK, 14_000, client_id=7)
    third = waits(room.alice, BID, 16_000)
    resting = room.alice.buys(1, at=14_990)
    assert room.alice.cancels(order_id=first.order_id).status is CANCELLED
    assert room.alice.cancels(client_id=7).status is CANCELLED
    views = room.alice.does(CancelAllOrders(room.alice.subaccount, room.desk.market, resting=False)).reply
    assert [view.order_id for view in views] == [third.order_id]
    waits(room.alice, BID, 16_000)
    views = room.alice.does(CancelAllOrders(room.alice.subaccount, room.desk.market, waiting=False)).reply
    assert [view.order_id for view in views] == [resting.order_id]
    assert len(room.alice.cancels_all()) == 1 and room.desk.state.triggers is None


def test_client_ids_are_unique_among_open_and_waiting_orders(room: Room) -> None:
    """A-11: the same again is a repeat, something else under the same id an error."""
    first = waits(room.alice, ASK, 14_000, client_id=7)
    again = waits(room.alice, ASK, 14_000, client_id=7)
    assert again == first
    assert room.alice.is_refused(ASK, 15_500, 1, client_id=7) is RejectReason.DUPLICATE_CLIENT_ID
    order = room.alice.order(ASK, 0, 10, trigger_by=LAST, trigger_price_ticks=14_001, client_id=7)
    rejection = room.alice.tries(order).rejection
    assert rejection is not None and rejection.reason is RejectReason.DUPLICATE_CLIENT_ID
    room.alice.cancels(client_id=7)
    assert room.alice.sells(1, at=15_500, client_id=7).client_id == 7


def test_the_limit_of_waiting_orders(room: Room) -> None:
    for number in range(room.desk.state.limits.trigger_orders_per_subaccount):
        waits(room.alice, ASK, 14_000 - number)
    order = room.alice.order(ASK, 0, 10, trigger_by=LAST, trigger_price_ticks=13_000)
    rejection = room.alice.tries(order).rejection
    assert rejection is not None and rejection.reason is RejectReason.TRIGGER_LIMIT


def test_closing_a_market_cancels_what_waits_there(room: Room) -> None:
    stop = waits(room.alice, ASK, 14_000)
    market = room.desk.state.markets[room.desk.market]
    room.desk.exchange.do(ConfigureMarket(structs.replace(market.parameters, state=BookState.CLOSED)))
    assert room.view(stop.order_id).status is CANCELLED and room.desk.state.triggers is None


# Brackets.


def brackets(loss: int, profit: int, **limits: int) -> dict[str, Bracket]:
    return {
        "stop_loss": Bracket(LAST, loss, limits.get("loss_limit", 0)),
        "take_profit": Bracket(LAST, profit, limits.get("profit_limit", 0)),
    }


def waiting(room: Room, trader: Trader) -> list[tuple[int, int]]:
    """(trigger price, lots) of what waits for a trader."""
    orders = room.desk.state.subaccounts[trader.subaccount].waiting.values()
    return [(order.terms.trigger_price_ticks, order.lots) for order in orders if order.terms is not None]


def test_brackets_arm_at_the_first_fill_and_grow_with_further_ones(room: Room) -> None:
    parent = room.alice.buys(100, at=14_900, **brackets(14_000, 16_000))
    assert waiting(room, room.alice) == []
    room.other.sells(30, at=14_900)
    assert waiting(room, room.alice) == [(14_000, 30), (16_000, 30)]
    related = [each.order.terms.related_order_id for each in room.desk.reported(TriggerPlaced)]
    assert related == [parent.order_id] * 2
    room.other.sells(30, at=14_900)
    assert waiting(room, room.alice) == [(14_000, 60), (16_000, 60)]
    assert len(room.desk.reported(OrderModified)) == 2
    room.alice.cancels(order_id=parent.order_id)
    assert waiting(room, room.alice) == [(14_000, 60), (16_000, 60)]


def test_one_bracket_cancels_the_other(room: Room) -> None:
    room.maker.sells(100, at=15_000)
    room.alice.buys(100, at=15_000, **brackets(14_000, 16_000))
    assert waiting(room, room.alice) == [(14_000, 100), (16_000, 100)]
    room.maker.buys(200, at=13_990)
    room.trade_at(14_000)
    room.runs()
    assert waiting(room, room.alice) == [] and len(room.desk.reported(OrderCancelled)) == 1
    # The buyer's fee came off what was bought: the stop sells what there is.
    assert sum(lots for _price, lots in room.desk.fills()) == 100


def test_a_bracket_sells_no_more_than_the_fee_left(room: Room) -> None:
    carol = room.desk.trader("carol", sol=0)
    room.maker.sells(1_000, at=15_000)
    carol.buys(1_000, at=15_000, **brackets(14_000, 16_000))
    room.maker.buys(2_000, at=13_990)
    room.trade_at(14_000)
    room.runs()
    assert 0 < sum(lots for _price, lots in room.desk.fills()) < 1_000
    assert carol.has("SOL") < room.desk.state.markets[room.desk.market].parameters.lot_atoms


def test_brackets_the_wrong_way_round_are_refused(room: Room) -> None:
    assert room.alice.is_refused(BID, 14_900, 10, **brackets(16_000, 14_000)) is RejectReason.TRIGGER_PRICE
    assert room.alice.is_refused(ASK, 15_100, 10, **brackets(14_000, 16_000)) is RejectReason.TRIGGER_PRICE


def test_a_bracket_whose_price_is_passed_already_fires_at_once(room: Room) -> None:
    room.maker.sells(10, at=15_000)
    room.maker.buys(100, at=14_990)
    room.alice.buys(10, at=15_000, **brackets(15_500, 16_000))
    assert len(room.desk.state.triggered) == 1
    room.runs()
    assert room.desk.fills() == [(14_990, 10)] and waiting(room, room.alice) == []


# Slippage.


def ladder(room: Room) -> None:
    for price in (15_000, 15_010, 15_020, 15_030):
        room.maker.sells(10, at=price)


def test_slippage_in_ticks_stops_a_taker(room: Room) -> None:
    ladder(room)
    view = room.alice.buys(40, slippage=15, slippage_kind=SlippageKind.TICKS)
    assert room.desk.fills() == [(15_000, 10), (15_010, 10)]
    assert view.status is EXPIRED and view.expiry_reason is ExpiryReason.SLIPPAGE_TOLERANCE_EXCEEDED


def test_slippage_in_percent_and_of_a_limit_order(room: Room) -> None:
    ladder(room)
    # 0.1 % of 15,000 is 15 ticks.
    view = room.alice.buys(40, at=15_100, slippage=1_000_000, slippage_kind=SlippageKind.PERCENT)
    assert view.executed_lots == 20 and view.expiry_reason is ExpiryReason.SLIPPAGE_TOLERANCE_EXCEEDED
    killed = room.alice.buys(40, at=15_100, slippage=1, slippage_kind=SlippageKind.TICKS, time_in_force=FOK)
    assert killed.expiry_reason is ExpiryReason.FILL_OR_KILL and not killed.executed_lots
    # Its limit is nearer than its tolerance: the limit ends it.
    nearer = room.alice.buys(40, at=15_020, slippage=500, slippage_kind=SlippageKind.TICKS, time_in_force=IOC)
    assert nearer.expiry_reason is ExpiryReason.IMMEDIATE_OR_CANCEL


def test_slippage_is_whole_or_refused(room: Room) -> None:
    assert room.alice.is_refused(BID, 15_000, 1, slippage=5) is RejectReason.INVALID_ORDER
    assert room.alice.is_refused(BID, 15_000, 1, slippage_kind=SlippageKind.TICKS) is RejectReason.INVALID_ORDER
    refused = room.alice.is_refused(BID, 15_000, 1, slippage=10**9 + 1, slippage_kind=SlippageKind.PERCENT)
    assert refused is RejectReason.INVALID_ORDER


@pytest.mark.parametrize(
    ("mode", "own_is_there", "expiry"),
    [(TAKER, True, True), (MAKER, False, False), (BOTH, False, True)],
)
def test_self_trade_modes_of_a_triggered_order(room: Room, mode: Any, own_is_there: bool, expiry: bool) -> None:
    room.alice.buys(5, at=13_990)
    room.maker.buys(50, at=13_980)
    stop = waits(room.alice, ASK, 14_000, self_trade=mode)
    room.trade_at(14_000)
    room.runs()
    view = room.view(stop.order_id)
    assert (view.status is EXPIRED) is expiry and bool(view.executed_lots) is not expiry
    own = room.desk.state.subaccounts[room.alice.subaccount].orders
    assert bool(own) is own_is_there


def test_fire_triggers_without_any_is_refused(room: Room) -> None:
    assert room.desk.attempt(FireTriggers()).rejection is not None


# The heaps against a scan.

STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 400)),
    st.tuples(st.just("remove"), st.integers(0, 300)),
    st.tuples(st.just("price"), st.integers(1, 400)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=300))
def test_heaps_find_what_a_scan_finds(steps: list[tuple[str, int]]) -> None:
    """A rising and a falling queue against a list that is looked through: the same orders in the same order."""
    rising, falling = Queue(1), Queue(-1)
    live: dict[int, tuple[int, bool, Any]] = {}
    now, number = 200, 0
    for what, value in steps:
        if what == "add" and value != now:
            number += 1
            order = _waiting_order(number, value)
            live[number] = (value, value < now, order)
            (falling if value < now else rising).add(order, value)
        elif what == "remove" and live:
            victim = sorted(live)[value % len(live)]
            _price, falls, _order = live.pop(victim)
            (falling if falls else rising).remove(victim)
        elif what == "price":
            found = [order.order_id for order in rising.crossed(value) + falling.crossed(value)]
            hit = [
                (abs(price - now), each)
                for each, (price, falls, _order) in live.items()
                if (price >= value if falls else price <= value)
            ]
            assert found == [each for _distance, each in sorted(hit)]
            for each in found:
                del live[each]
            now = value
        for queue in (rising, falling):
            assert len(queue.heap) <= max(64, 2 * len(queue.orders) + 1)


def _waiting_order(number: int, price: int) -> Any:
    terms = OrderTerms(trigger_by=LAST, trigger_price_ticks=price)
    nothing: Any = None
    return Order(
        number, None, nothing, nothing, OrderType.MARKET, BID, TimeInForce.GTC, 0, 1, 0, 0, SelfTrade.REJECT_TAKER, 0,
        terms=terms,
    )  # fmt: skip


# Perpetuals.


class Floor:
    """Anna long 400 lots at 150, Bert short; Carl makes the prices."""

    def __init__(self) -> None:
        self.pit = Pit()
        self.anna, self.bert, self.carl = (self.pit.member(name, 10_000) for name in ("anna", "bert", "carl"))
        cross(self.anna, self.bert, 400, 15_000)

    def waits(self, side: Any, at: int, lots: int = 0, by: TriggerBy = MARK, **fields: Any) -> OrderView:
        outcome = self.anna.trade(side, lots, 0, trigger_by=by, trigger_price_ticks=at, **fields)
        assert outcome.rejection is None, outcome.rejection
        view: OrderView = outcome.reply
        return view

    def marks(self, dollars: float) -> list[Outcome]:
        self.pit.price(dollars)
        return self.pit.exchange.advance(0)

    def end(self, order_id: int) -> OrderView:
        room = Room.__new__(Room)
        room.desk = self.pit
        return room.view(order_id)


def test_a_percent_of_the_position_at_the_moment_it_triggers() -> None:
    """S-9: of |position| at trigger, reduce-only, floored to the lot."""
    floor = Floor()
    stop = floor.waits(ASK, 14_000, trigger_percent=333_333_333)
    assert stop.lots == 0 and stop.reduce_only
    floor.carl.trade(BID, 50, 15_000)
    floor.anna.trade(ASK, 50, 15_000)
    floor.carl.trade(BID, 1_000, 13_950)
    floor.marks(139)
    ended = floor.end(stop.order_id)
    # A third of 350 lots, rounded down.
    assert (ended.status, ended.lots, floor.anna.lots) == (FILLED, 116, 234)


def test_a_percent_without_a_position_and_on_the_wrong_side_fails() -> None:
    floor = Floor()
    wrong = floor.waits(BID, 14_000, trigger_percent=10**9)
    stop = floor.waits(ASK, 13_900, trigger_percent=10**9)
    floor.carl.trade(BID, 1_000, 13_800)
    floor.carl.trade(ASK, 1_000, 14_100)
    floor.marks(139.95)
    assert floor.end(wrong.order_id).expiry_reason is ExpiryReason.REDUCE_ONLY_NOT_REDUCED
    floor.carl.trade(BID, 400, 13_950)
    floor.anna.trade(ASK, 400, 13_950)
    assert floor.anna.lots == 0
    floor.marks(138)
    assert floor.end(stop.order_id).expiry_reason is ExpiryReason.STOP_WITHOUT_POSITION


@pytest.mark.parametrize("percent", [-1, 10**9 + 1])
def test_a_percent_is_between_nothing_and_all(percent: int) -> None:
    floor = Floor()
    outcome = floor.anna.trade(ASK, 0, 0, trigger_by=MARK, trigger_price_ticks=14_000, trigger_percent=percent)
    assert outcome.rejection is not None and outcome.rejection.reason is RejectReason.INVALID_QUANTITY


def test_waiting_orders_are_in_no_margin() -> None:
    floor = Floor()
    before = floor.anna.sums()
    floor.waits(BID, 16_000, lots=50_000)
    assert floor.anna.sums() == before and floor.anna.position is not None and floor.anna.position.buys == 0
    floor.carl.trade(ASK, 1_000, 16_000)
    floor.marks(160)
    failed = [event for outcome in floor.pit.exchange.outcomes for event in outcome.events]
    assert [event.order.expiry_reason for event in failed if isinstance(event, TriggerFailed)] == [
        ExpiryReason.INSUFFICIENT_MARGIN
    ]


def test_brackets_of_a_perpetual_only_reduce() -> None:
    """What is left of the position when they trigger is all that they take."""
    floor = Floor()
    brackets_of = {"stop_loss": Bracket(MARK, 14_000), "take_profit": Bracket(MARK, 16_000, 15_990)}
    floor.carl.trade(ASK, 100, 15_000)
    floor.anna.trade(BID, 100, 15_000, **brackets_of)
    waiting = list(floor.anna.account.waiting.values())
    assert [order.lots for order in waiting] == [100, 100] and all(order.flags & 2 for order in waiting)
    floor.bert.trade(BID, 450, 14_990)
    floor.anna.trade(ASK, 450, 14_990)
    assert floor.anna.lots == 50
    floor.carl.trade(BID, 1_000, 13_900)
    floor.marks(139)
    assert floor.anna.lots == 0 and not floor.anna.account.waiting


def test_an_index_trigger_of_a_perpetual() -> None:
    floor = Floor()
    stop = floor.waits(ASK, 14_000, lots=10, by=INDEX)
    floor.carl.trade(BID, 1_000, 13_990)
    floor.pit.price(140.01)
    floor.pit.exchange.advance(0)
    assert floor.end(stop.order_id).status is PENDING
    floor.marks(140)
    assert floor.end(stop.order_id).executed_lots == 10
