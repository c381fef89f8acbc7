"""The fast book against the naive one, on random flows and on a recorded day; and what keeps it fast.   [S-7]"""

from __future__ import annotations

import csv
import lzma
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from engine import genesis
from engine.book import Book, Ladder, queue
from engine.commands import OrderType, SelfTrade, Side, TimeInForce
from engine.matching import NO_LIMIT, Stop, preview, take
from engine.state import Market, Order, Subaccount, User
from tests.engine.naive_book import NaiveBook, NaiveOrder, Result

MODES = {"taker": SelfTrade.REJECT_TAKER, "maker": SelfTrade.REJECT_MAKER, "both": SelfTrade.REJECT_BOTH}
STOPS = {Stop.NOT: "not", Stop.PRICE: "price", Stop.EMPTY: "empty", Stop.SELF_TRADE: "self"}
RECORDED = Path(__file__).parents[2].parent / "shared/data/bitstamp_l3/bitstamp_btcusd_20150501_orders.csv.xz"


class FastBook:
    """The book under test with the naive book's interface."""

    def __init__(self) -> None:
        self.book = Book()
        self.market = Market(genesis.load("devnet").markets[0], self.book, 0)
        self.orders: dict[int, Order] = {}
        self.owners: dict[int, Subaccount] = {}

    def owner(self, number: int) -> Subaccount:
        if number not in self.owners:
            self.owners[number] = Subaccount(number, User(number, 0), 0)
        return self.owners[number]

    def place(self, order: NaiveOrder, mode: str = "taker") -> Result:
        side = Side.BID if order.is_bid else Side.ASK
        resting = Order(
            order.number, None, self.market, self.owner(order.owner), OrderType.LIMIT, side, TimeInForce.GTC,
            order.price, order.lots, 0, False, False, MODES[mode], 0,
        )  # fmt: skip
        result = self.take(order.owner, order.is_bid, order.price, order.lots, mode)
        resting.executed_lots = sum(lots for _maker, _price, lots in result.fills)
        if resting.executed_lots < order.lots and result.stop != "self":
            self.book.ladder(side).rest(resting)
            self.orders[order.number] = resting
        return result

    def take(
        self, owner: int, is_bid: bool, bound: int | None, lots: int, mode: str = "taker", quote: int | None = None
    ) -> Result:
        opposite = self.book.asks if is_bid else self.book.bids
        bound_key = NO_LIMIT if bound is None else bound * opposite.sign
        user = self.owner(owner).user
        ahead = preview(opposite, user, MODES[mode], bound_key, lots, quote)
        fills, stop, withdrawn = take(opposite, user, MODES[mode], bound_key, lots, quote)
        # What was foreseen is what happened.
        assert ahead == (sum(part for _m, part in fills), sum(m.price_ticks * part for m, part in fills), stop)
        for maker, _part in fills:
            if maker.executed_lots == maker.lots:
                del self.orders[maker.order_id]
        for maker in withdrawn:
            del self.orders[maker.order_id]
        return Result(
            [(maker.order_id, maker.price_ticks, part) for maker, part in fills],
            [maker.order_id for maker in withdrawn],
            STOPS[stop],
        )

    def cancel(self, number: int) -> bool:
        order = self.orders.pop(number, None)
        if order is not None:
            self.book.ladder(order.side).remove(order)
        return order is not None

    def depth(self, is_bid: bool) -> list[tuple[int, int]]:
        return [(level.price_ticks, level.lots) for level in self.ladder(is_bid).from_best()]

    def queue(self, is_bid: bool, price: int) -> list[tuple[int, int]]:
        orders = queue(self.ladder(is_bid).levels[price])
        return [(order.order_id, order.lots - order.executed_lots) for order in orders]

    def ladder(self, is_bid: bool) -> Ladder:
        return self.book.bids if is_bid else self.book.asks


def assert_sound(fast: FastBook) -> None:
    """Never crossed; a level's total is its orders'; links run both ways; the heap's top is live."""
    bids, asks = fast.book.bids, fast.book.asks
    assert not bids.heap or not asks.heap or -bids.heap[0] < asks.heap[0], "the book is crossed"
    for ladder in (bids, asks):
        assert not ladder.heap or ladder.heap[0] * ladder.sign in ladder.levels
        assert (not ladder.heap) == (not ladder.levels)
        for price, level in ladder.levels.items():
            orders = queue(level)
            assert orders and level.first is orders[0] and level.last is orders[-1]
            assert level.lots == sum(order.lots - order.executed_lots for order in orders) > 0
            assert all(order.price_ticks == price for order in orders)
            assert [order.previous for order in orders] == [None, *orders[:-1]]


def assert_same(fast: FastBook, naive: NaiveBook) -> None:
    for is_bid in (True, False):
        depth = naive.depth(is_bid)
        assert fast.depth(is_bid) == depth
        for price, _lots in depth:
            assert fast.queue(is_bid, price) == naive.queue(is_bid, price)


@pytest.mark.parametrize("seed", range(12))
def test_on_random_flows_both_books_do_the_same(seed: int) -> None:
    random = Random(seed)
    fast, naive = FastBook(), NaiveBook()
    # Few owners and prices make self-trades, shared levels and sweeps common.
    owners, prices = random.choice((2, 3, 8)), random.choice((4, 12, 60))
    number = 0
    for _ in range(700):
        mode = random.choice(tuple(MODES))
        owner, is_bid = random.randrange(owners), random.random() < 0.5
        price = 100 + random.randrange(prices)
        dice = random.random()
        if dice < 0.65:
            number += 1
            order = NaiveOrder(number, owner, is_bid, price, random.randint(1, 20))
            assert fast.place(order, mode) == naive.place(order, mode)
        elif dice < 0.85 and number:
            target = random.randint(1, number)
            assert fast.cancel(target) == naive.cancel(target)
        else:
            bound = random.choice((None, price))
            quote = random.choice((None, random.randint(1, 5_000)))
            lots = 0 if quote is not None else random.randint(1, 60)
            taken = fast.take(owner, is_bid, bound, lots, mode, quote)
            assert taken == naive.take(owner, is_bid, bound, lots, mode, quote)
        assert_sound(fast)
        assert_same(fast, naive)


@pytest.mark.slow
def test_on_a_recorded_day_both_books_do_the_same_and_never_cross() -> None:
    if not RECORDED.exists():
        pytest.skip("recorded order flow (../shared/data/bitstamp_l3) is not here")
    fast, naive = FastBook(), NaiveBook()
    fills = changes = deletes = 0
    for row, (action, order) in enumerate(recorded()):
        if action in ("changed", "deleted"):
            was_live = fast.cancel(order.number)
            assert was_live == naive.cancel(order.number)
            if action == "deleted" or not was_live:
                deletes += was_live
                continue
            # A changed order comes back with its new size at the end of its queue.
            changes += 1
        result = fast.place(order)
        assert result == naive.place(order)
        fills += len(result.fills)
        if row % 500 == 0:
            assert_sound(fast)
            assert_same(fast, naive)

    assert_sound(fast)
    assert_same(fast, naive)
    assert fills > 100 and changes > 100 and deletes > 10_000


def recorded() -> Iterator[tuple[str, NaiveOrder]]:
    """(created | changed | deleted, order with price in cents and volume in 1e-8 BTC), in the order of the recording.

    Owners differ: the recording knows none, so nobody meets an own order.
    """
    with lzma.open(RECORDED, "rt") as lines:
        for row in csv.DictReader(lines):
            price, lots = round(float(row["price"]) * 100), round(float(row["volume"]) * 1e8)
            number = int(row["id"])
            if row["action"] == "deleted" or lots > 0:
                yield row["action"], NaiveOrder(number, number, row["direction"] == "bid", price, lots)


def test_adding_and_cancelling_at_fresh_prices_does_not_grow_the_heap() -> None:
    fast = FastBook()
    fast.place(NaiveOrder(0, 0, True, 1_000_000, 1))
    for number in range(1, 20_000):
        fast.place(NaiveOrder(number, 0, True, number, 1))
        fast.cancel(number)

    assert len(fast.book.bids.heap) <= 200
    assert fast.depth(True) == [(1_000_000, 1)]


def test_a_price_that_emptied_and_came_back_is_one_level() -> None:
    fast = FastBook()
    fast.place(NaiveOrder(1, 0, True, 100, 1))
    for number in range(2, 10):
        fast.place(NaiveOrder(number, 0, True, 50, 1))
        fast.cancel(number)
    fast.place(NaiveOrder(10, 0, True, 50, 7))

    assert fast.depth(True) == [(100, 1), (50, 7)]


def test_the_best_levels_of_a_deep_book_are_found_without_sorting_it() -> None:
    fast = FastBook()
    random = Random(3)
    prices = random.sample(range(1, 100_000), 5_000)
    for number, price in enumerate(prices):
        fast.place(NaiveOrder(number, 0, False, price, 1))
    levels = fast.book.asks.from_best()

    assert [next(levels).price_ticks for _ in range(50)] == sorted(prices)[:50]
