"""A book so plain that it is obviously right, and slow: one list per side, searched anew for every fill.

What the fast book (`engine.book`, `engine.matching`) is compared with. Knows nothing of it.   [S-7]
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NaiveOrder:
    number: int
    owner: int
    is_bid: bool
    price: int
    lots: int


@dataclass
class Result:
    """What a taker got: (maker, price, lots) in order, makers that self-trade prevention withdrew, why it stopped."""

    fills: list[tuple[int, int, int]] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    stop: str = "not"


class NaiveBook:
    """Orders in the order of arrival; priority is looked up, never maintained."""

    def __init__(self) -> None:
        self.orders: list[NaiveOrder] = []

    def others(self, is_bid: bool) -> list[NaiveOrder]:
        """What a taker of this side meets, best price first, first come first."""
        side = [order for order in self.orders if order.is_bid != is_bid]
        # sorted() is stable: among equals the order of arrival stays.
        return sorted(side, key=lambda order: order.price if is_bid else -order.price)

    def place(self, order: NaiveOrder, mode: str = "taker") -> Result:
        """Match a limit order and rest what is left, unless self-trade prevention stopped it."""
        result = self.take(order.owner, order.is_bid, order.price, order.lots, mode)
        left = order.lots - sum(lots for _maker, _price, lots in result.fills)
        if left and result.stop != "self":
            self.orders.append(NaiveOrder(order.number, order.owner, order.is_bid, order.price, left))
        return result

    def take(
        self, owner: int, is_bid: bool, bound: int | None, lots: int, mode: str = "taker", quote: int | None = None
    ) -> Result:
        """Fill up to `lots`, or as many as `quote` (Σ price × lots) pays, at prices up to `bound`."""
        result = Result()
        while True:
            if quote is None and not lots:
                return result
            others = self.others(is_bid)
            if not others:
                result.stop = "empty"
                return result
            maker = others[0]
            if quote is not None:
                lots = quote // maker.price
                if not lots:
                    return result
            if bound is not None and (maker.price > bound if is_bid else maker.price < bound):
                result.stop = "price"
                return result
            if maker.owner == owner:
                if mode in ("maker", "both"):
                    self.cancel(maker.number)
                    result.withdrawn.append(maker.number)
                if mode == "maker":
                    continue
                result.stop = "self"
                return result
            part = min(lots, maker.lots)
            result.fills.append((maker.number, maker.price, part))
            maker.lots -= part
            lots -= part
            if not maker.lots:
                self.cancel(maker.number)
            if quote is not None:
                quote -= part * maker.price
                if quote < maker.price:
                    return result

    def cancel(self, number: int) -> bool:
        before = len(self.orders)
        self.orders = [order for order in self.orders if order.number != number]
        return len(self.orders) < before

    def depth(self, is_bid: bool) -> list[tuple[int, int]]:
        """(price, lots), best first."""
        levels: dict[int, int] = {}
        for order in self.orders:
            if order.is_bid == is_bid:
                levels[order.price] = levels.get(order.price, 0) + order.lots
        return sorted(levels.items(), reverse=is_bid)

    def queue(self, is_bid: bool, price: int) -> list[tuple[int, int]]:
        """(number, lots) of the orders at a price, first in line first."""
        return [(each.number, each.lots) for each in self.orders if (each.is_bid, each.price) == (is_bid, price)]
