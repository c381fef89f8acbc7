"""Index and mark prices, in 1e-12 USD per whole unit (PRICE_SCALE): medians, the clamp, the average, the bound.

[P-1, P-2]
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.parameters import PRICE_SCALE, RATE_SCALE, MarketParameters
from ledger.amounts import mul_div_down, mul_div_half_even, mul_div_up

DEVIATION_SECONDS = 300
"""The length of the moving average of mid − index, one sample a second.   [P-2]"""
SILENT_SECONDS = 60
"""After so many seconds without a sample the deviation starts again at 0.   [P-2]"""


def index_price(sources: Sequence[tuple[int, int]], clamp: int) -> int:
    """The index of (price, weight) of each live source: their average, each pulled to median ± clamp (1e-9).   [P-1]

    The clamp's bounds round inwards, the average half-even. `sources` is not empty, prices and weights are above 0.
    """
    middle = median([price for price, _weight in sources])
    least = mul_div_up(middle, RATE_SCALE - clamp, RATE_SCALE)
    most = mul_div_down(middle, RATE_SCALE + clamp, RATE_SCALE)
    weighted = sum(min(max(price, least), most) * weight for price, weight in sources)
    return mul_div_half_even(weighted, 1, sum(weight for _price, weight in sources))


def median(prices: Sequence[int]) -> int:
    """The middle one; of an even number the mean of the two in the middle, rounded down.   [P-1, P-2]"""
    ordered = sorted(prices)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) & 1 else (ordered[middle - 1] + ordered[middle]) // 2


def next_deviation(deviation: int, mid: int, index: int) -> int:
    """One second of the moving average of mid − index: e + ⌊(mid − index − e) / 300⌋.   [P-2]"""
    return deviation + (mid - index - deviation) // DEVIATION_SECONDS


def bounded_mark(mark: int, index: int, bound: int) -> int:
    """The mark pulled to index ± bound (1e-9); the bounds round inwards.   [P-2]"""
    least = mul_div_up(index, RATE_SCALE - bound, RATE_SCALE)
    most = mul_div_down(index, RATE_SCALE + bound, RATE_SCALE)
    return min(max(mark, least), most)


def on_grid(mark: int, quantum: int) -> int:
    """The nearest multiple of the market's quantum, ties to even, at least one: 0 would be no mark.   [P-2]"""
    return max(quantum, mul_div_half_even(mark, 1, quantum) * quantum)


def mark_quantum(market: MarketParameters) -> int:
    """The smallest power of ten (PRICE_SCALE) that makes one lot × quantum a whole number of quote atoms.   [P-2]

    A lot at one tick is `tick_value_atoms`, so a lot at q is q × tick value ÷ tick price.
    """
    quantum = 1
    while quantum * market.tick_value_atoms % market.tick_price:
        quantum *= 10
    return quantum


def lot_value(market: MarketParameters, price: int) -> int:
    """A price (PRICE_SCALE) in quote atoms per lot, rounded down; exact for a mark on the market's grid.   [P-2]"""
    return mul_div_down(price, market.tick_value_atoms, market.tick_price)


def book_price(price_ticks: int, tick_price: int, quote_price: int) -> int:
    """A price of a book in USD: ticks × tick × the quote asset's own price, rounded down.   [P-2, P-3]"""
    return mul_div_down(price_ticks * tick_price, quote_price, PRICE_SCALE)


def mid_price(bid_ticks: int, ask_ticks: int, tick_price: int, quote_price: int) -> int:
    """(best bid + best ask) / 2 in USD, rounded down.   [P-2]"""
    return mul_div_down((bid_ticks + ask_ticks) * tick_price, quote_price, 2 * PRICE_SCALE)
