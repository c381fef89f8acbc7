"""Book only: 200,000 operations, trades returned, beside PyPI `liquibook` in the same table.

`python -m tests.bench.book_bench [--scale 0.1]`
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from engine import genesis
from engine.book import Book
from engine.commands import OrderType, SelfTrade, Side, TimeInForce
from engine.matching import take
from engine.state import Market, Order, Subaccount, User
from ledger import compiled
from tests.bench.flow import CANCEL, Operation, flow
from tests.bench.rows import REPEATS, Row, show, timed

OPERATIONS = 200_000
USERS = 16


def run(scale: float = 1.0) -> list[Row]:
    """Operations a second of our book and, where it is installed, of liquibook with a Python fill listener."""
    operations = flow(int(OPERATIONS * scale))
    ours, volume = _fills(ours_on(operations))
    rows = [
        Row(
            f"book only, {len(operations):,} operations, {ours:,} trades returned",
            *_spread(timed(lambda: ours_on(operations), len(operations))),
            beside="to reach 0.9 M op/s; matching-engine 0.1.1: 0.31 M (measured once before, Python ≥ 3.12)",
        )
    ]
    try:
        import liquibook  # noqa: F401
    except ImportError:
        return rows
    theirs, their_volume = _fills(liquibook_on(operations))
    same = "same trades" if (theirs, their_volume) == (ours, volume) else f"{theirs:,} trades, {their_volume} lots"
    rows.append(
        Row(
            f"liquibook 2.0.1 (C++), same flow, {same}",
            *_spread(timed(lambda: liquibook_on(operations), len(operations))),
            beside="trades returned by its listener",
        )
    )
    return rows


def ours_on(operations: list[Operation]) -> Callable[[], tuple[int, int]]:
    """A run of the flow through `engine.book` and `engine.matching`, ready to be timed."""
    owners = [Subaccount(number, User(number, 0), 0) for number in range(2 * USERS)]
    book = Book()
    bids, asks = book.bids, book.asks
    market = Market(genesis.load("devnet").markets[0], book, 0)
    limit, gtc, reject = OrderType.LIMIT, TimeInForce.GTC, SelfTrade.REJECT_TAKER
    bid, ask = Side.BID, Side.ASK

    def work() -> tuple[int, int]:
        orders: list[Order] = []
        fills = volume = 0
        for kind, number, is_bid, price, lots in operations:
            if kind == CANCEL:
                (bids if is_bid else asks).remove(orders[number])
                continue
            # Bids and asks of different users: every maker is compared with the taker, none is the same.
            owner = owners[number % USERS * 2 + is_bid]
            order = Order(
                number, None, market, owner, limit, bid if is_bid else ask, gtc, price, lots, 0, False, False, reject, 0
            )
            orders.append(order)
            own, opposite = (bids, asks) if is_bid else (asks, bids)
            heap = opposite.heap
            bound = price * opposite.sign
            if heap and heap[0] <= bound:
                trades, _stop, _withdrawn = take(opposite, owner.user, reject, bound, lots)
                for _maker, part in trades:
                    fills += 1
                    volume += part
                    order.executed_lots += part
                if order.executed_lots == lots:
                    continue
            own.rest(order)
        return fills, volume

    return work


def liquibook_on(operations: list[Operation]) -> Callable[[], tuple[int, int]]:
    """The same through liquibook, with a listener that receives every fill in Python."""
    import liquibook

    trades: list[int] = []

    class Listener(liquibook.OrderListener):  # type: ignore[misc]
        def on_accept(self, order: Any) -> None:
            pass

        def on_reject(self, order: Any, reason: Any) -> None:
            pass

        def on_fill(self, order: Any, matched: Any, lots: int, cost: int) -> None:
            trades.append(lots)

        def on_cancel(self, order: Any) -> None:
            pass

        def on_cancel_reject(self, order: Any, reason: Any) -> None:
            pass

        def on_replace(self, order: Any, size_delta: Any, new_price: Any) -> None:
            pass

        def on_replace_reject(self, order: Any, reason: Any) -> None:
            pass

    book = liquibook.liquibook_book_OrderBook("bench")
    listener = Listener()
    book.set_order_listener(listener)

    def work() -> tuple[int, int]:
        orders: list[Any] = []
        for kind, number, is_bid, price, lots in operations:
            if kind == CANCEL:
                book.cancel(orders[number])
                continue
            order = liquibook.SimpleOrder(is_bid, price, lots)
            orders.append(order)
            book.add(order, 0)
        assert listener is not None
        return len(trades), sum(trades)

    return work


def _fills(work: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    return work()


def _spread(figures: tuple[float, float, float]) -> tuple[float, str, float, float]:
    middle, least, most = figures
    return middle, "op/s", least, most


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--scale", type=float, default=1.0)
    show(f"book only, median of {REPEATS}, core: {compiled.build()}", run(arguments.parse_args().scale))
