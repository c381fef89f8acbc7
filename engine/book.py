"""Price levels of one market: queues in time order, the best price at hand, cancel in constant time."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from engine.commands import Side
from engine.state import Order

_SMALL_HEAP = 64
"""Below this a heap is not worth compacting."""


class Book:
    """The two ladders of a market."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = Ladder(Side.BID)
        self.asks = Ladder(Side.ASK)

    def ladder(self, side: Side) -> Ladder:
        return self.bids if side == Side.BID else self.asks


class Level:
    """The orders at one price, first come first: a doubly linked queue through the orders themselves."""

    __slots__ = ("first", "last", "lots", "price_ticks")

    def __init__(self, price_ticks: int) -> None:
        self.price_ticks = price_ticks
        self.lots = 0
        """Σ of what its orders have left."""
        self.first: Order | None = None
        self.last: Order | None = None


class Ladder:
    """One side of a book: price → level, and a heap of prices whose top is always live.

    The heap holds keys: the price for asks, its negation for bids, so that best is smallest on either side. A price
    that empties below the top stays in the heap until it surfaces or until stale prices outnumber live ones: then the
    heap is built anew, so adding and cancelling at fresh prices cannot make it grow without bound.
    """

    __slots__ = ("heap", "levels", "side", "sign")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.sign = -1 if side == Side.BID else 1
        self.levels: dict[int, Level] = {}
        self.heap: list[int] = []

    def best_price_ticks(self) -> int:
        """The best price, 0 when nobody is there."""
        return self.heap[0] * self.sign if self.heap else 0

    def rest(self, order: Order) -> Level:
        """Queue an order behind the others at its price."""
        level = self.levels.get(order.price_ticks)
        if level is None:
            level = self._open(order.price_ticks)
            level.first = order
        else:
            last = level.last
            order.previous = last
            last.next = order  # type: ignore[union-attr]
            # One int for the whole queue: memory counts with a million orders.
            order.price_ticks = level.price_ticks
        level.last = order
        level.lots += order.lots - order.executed_lots
        return level

    def remove(self, order: Order) -> Level:
        """Take a resting order out, wherever it stands in its queue."""
        level = self.levels[order.price_ticks]
        level.lots -= order.lots - order.executed_lots
        before, after = order.previous, order.next
        if before is None:
            level.first = after
        else:
            before.next = after
            order.previous = None
        if after is None:
            level.last = before
        else:
            after.previous = before
            order.next = None
        if level.first is None:
            self.close(level)
        return level

    def close(self, level: Level) -> None:
        """Forget an emptied level; the heap's top is live again afterwards."""
        levels, heap, sign = self.levels, self.heap, self.sign
        del levels[level.price_ticks]
        while heap and heap[0] * sign not in levels:
            heappop(heap)

    def _open(self, price_ticks: int) -> Level:
        level = Level(price_ticks)
        levels, heap, sign = self.levels, self.heap, self.sign
        levels[price_ticks] = level
        heappush(heap, price_ticks * sign)
        if len(heap) > _SMALL_HEAP and len(heap) > 2 * len(levels):
            heap[:] = [price * sign for price in levels]
            heapify(heap)
        return level

    def from_best(self) -> Iterator[Level]:
        """Levels, best price first, found as they are asked for: k of them cost O(k log k), however deep the book."""
        heap, levels, sign = self.heap, self.levels, self.sign
        frontier = [(heap[0], 0)] if heap else []
        previous = None
        while frontier:
            key, at = heappop(frontier)
            # A price that emptied and came back stands in the heap twice; one that is gone is stale.
            if key != previous and key * sign in levels:
                previous = key
                yield levels[key * sign]
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(heap):
                    heappush(frontier, (heap[child], child))


def queue(level: Level) -> list[Order]:
    """A level's orders, first in line first."""
    orders = []
    order = level.first
    while order is not None:
        orders.append(order)
        order = order.next
    return orders
