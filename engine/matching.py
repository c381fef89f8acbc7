"""Price-time priority: what a taker meets in a book. Knows orders, prices and whose they are; nothing of balances.

`take` changes the book and reports the fills; `preview` walks the same way without touching anything, for fill-or-kill
and for the cost of a market order. Both decide self-trades on encounter, keyed by user.   [S-7]
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from engine.book import Ladder
from engine.commands import SelfTrade
from engine.state import PLAIN_FLAGS, Order, User

_REJECT_MAKER = SelfTrade.REJECT_MAKER
_REJECT_BOTH = SelfTrade.REJECT_BOTH

NO_LIMIT = 1 << 62
"""A bound that no price reaches: market orders without a band, tests."""


class Stop(IntEnum):
    """Why a taker stopped before it had all it wanted."""

    NOT = 0
    """It has all it wanted, or, by quote quantity, what is left buys no further lot."""
    PRICE = 1
    """The next price is beyond its bound."""
    EMPTY = 2
    """Nobody is left on the other side."""
    SELF_TRADE = 3
    """It met an order of its own user and may not go on."""
    JUDGE = 4
    """The next fill borrows, redeems, repays or may break a margin: it is judged before it is made.   [S-8]"""


# Looking a member up on its enum costs more than a comparison with it.
_NOT, _PRICE, _EMPTY, _SELF_TRADE, _JUDGE = Stop.NOT, Stop.PRICE, Stop.EMPTY, Stop.SELF_TRADE, Stop.JUDGE

Fills = list[tuple[Order, int]]
"""(maker, lots) in the order of matching; the maker's `executed_lots` is already what it is afterwards."""


class Preview(NamedTuple):
    lots: int
    quote_ticks: int
    """Σ lots × price in ticks: times the market's tick value it is quote atoms."""
    stop: Stop


def take(
    ladder: Ladder,
    user: User,
    self_trade: SelfTrade,
    bound_key: int,
    lots: int,
    quote_ticks: int | None = None,
    is_judged: bool = False,
) -> tuple[Fills, Stop, list[Order]]:
    """Match up to `lots` against the ladder, best price first, first come first, to `bound_key` and no further.   [S-7]

    With `quote_ticks` the wish is an amount of quote (in price ticks × lots): at each level as many whole lots as the
    rest of it pays, rounded down; it has all it wanted when the rest pays no lot at the price reached. Filled makers
    leave the book; a partly filled one keeps its place. Stops before a maker with margin, or (`is_judged`) before any,
    with JUDGE: the first order of the best level is the one to look at. Gives the fills, why it stopped, and the makers
    that self-trade prevention took out of the book.
    """
    fills: Fills = []
    withdrawn: list[Order] = []
    heap, levels, sign = ladder.heap, ladder.levels, ladder.sign

    while True:
        if not heap:
            return fills, _EMPTY, withdrawn
        key = heap[0]
        level = levels[key * sign]
        if quote_ticks is not None:
            lots = quote_ticks // level.price_ticks
            if not lots:
                return fills, _NOT, withdrawn
        if key > bound_key:
            return fills, _PRICE, withdrawn

        wanted = lots
        maker = level.first
        while maker is not None:
            if maker.subaccount.user is user:
                if self_trade == _REJECT_MAKER or self_trade == _REJECT_BOTH:
                    after = maker.next
                    withdrawn.append(maker)
                    ladder.remove(maker)
                    if self_trade == _REJECT_MAKER:
                        maker = after
                        continue
                return fills, _SELF_TRADE, withdrawn
            if is_judged or maker.flags > PLAIN_FLAGS or maker.subaccount.margined:
                return fills, _JUDGE, withdrawn

            remaining = maker.lots - maker.executed_lots
            if remaining > lots:
                maker.executed_lots += lots
                level.lots -= lots
                fills.append((maker, lots))
                lots = 0
                break

            # The maker is filled: the head of the queue moves on.
            maker.executed_lots += remaining
            level.lots -= remaining
            lots -= remaining
            fills.append((maker, remaining))
            after = maker.next
            level.first = after
            if after is None:
                level.last = None
                ladder.close(level)
                break
            after.previous = None
            maker.next = None
            maker = after
            if not lots:
                break

        if not lots:
            return fills, _NOT, withdrawn
        if quote_ticks is not None:
            quote_ticks -= (wanted - lots) * level.price_ticks


def best_maker(ladder: Ladder) -> Order:
    """The order that a taker meets first; the ladder is not empty."""
    maker = ladder.levels[ladder.heap[0] * ladder.sign].first
    assert maker is not None, "a level without orders"
    return maker


def fill_best(ladder: Ladder, maker: Order, lots: int) -> None:
    """Fill the best maker by `lots`, at most what is left of it.   [S-8]"""
    level = ladder.levels[maker.price_ticks]
    maker.executed_lots += lots
    level.lots -= lots
    if maker.executed_lots < maker.lots:
        return
    after = maker.next
    level.first = after
    maker.next = None
    if after is None:
        level.last = None
        ladder.close(level)
    else:
        after.previous = None


def preview(
    ladder: Ladder,
    user: User,
    self_trade: SelfTrade,
    bound_key: int,
    lots: int,
    quote_ticks: int | None = None,
    only_sure: bool = False,
) -> Preview:
    """What `take` would fill, without touching anything; `only_sure`: by makers that need no judgement.   [S-7, S-8]"""
    filled = spent = 0
    for level in ladder.from_best():
        if quote_ticks is not None:
            lots = filled + (quote_ticks - spent) // level.price_ticks
            if lots == filled:
                return Preview(filled, spent, _NOT)
        if level.price_ticks * ladder.sign > bound_key:
            return Preview(filled, spent, _PRICE)
        maker = level.first
        while maker is not None and filled < lots:
            if maker.subaccount.user is not user:
                if only_sure and (maker.flags > PLAIN_FLAGS or maker.subaccount.margined):
                    maker = maker.next
                    continue
                part = min(maker.lots - maker.executed_lots, lots - filled)
                filled += part
                spent += part * level.price_ticks
            elif self_trade != _REJECT_MAKER:
                return Preview(filled, spent, _SELF_TRADE)
            maker = maker.next
        if filled == lots:
            return Preview(filled, spent, _NOT)
    return Preview(filled, spent, _EMPTY)

