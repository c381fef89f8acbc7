"""The order flow that book benchmarks run: 60 % passive adds, 30 % cancels of live orders, 10 % crossing limits."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

ADD = 0
CANCEL = 1
MID = 10_000
SPREAD = 80


class Operation(NamedTuple):
    kind: int
    order: int
    """The order's number, from 0; of a cancel the order that is cancelled."""
    is_bid: bool
    price: int
    lots: int


def flow(operations: int, seed: int = 7) -> list[Operation]:
    """A random flow whose cancels hit live orders; a plain model of what is live keeps it so."""
    random = Random(seed)
    live: list[int] = []
    at: dict[int, int] = {}
    levels: dict[tuple[bool, int], list[list[int]]] = {}
    bids: set[int] = set()
    asks: set[int] = set()
    place: dict[int, tuple[bool, int, list[int]]] = {}
    result: list[Operation] = []

    def forget(order: int) -> None:
        index = at.pop(order)
        last = live.pop()
        if last != order:
            live[index] = last
            at[last] = index

    def empty(is_bid: bool, price: int) -> None:
        del levels[is_bid, price]
        (bids if is_bid else asks).discard(price)

    number = 0
    while len(result) < operations:
        dice = random.random()
        if dice < 0.3 and live:
            order = live[random.randrange(len(live))]
            is_bid, price, entry = place.pop(order)
            result.append(Operation(CANCEL, order, is_bid, price, 0))
            queue = levels[is_bid, price]
            queue.remove(entry)
            if not queue:
                empty(is_bid, price)
            forget(order)
            continue
        is_bid = random.random() < 0.5
        crosses = dice > 0.9 and bool(asks if is_bid else bids)
        lots = random.randint(1, 100) * (3 if crosses else 1)
        if crosses:
            best = min(asks) if is_bid else max(bids)
            price = best + random.randint(0, 3) * (1 if is_bid else -1)
        else:
            # Passive: at or behind the own side, never through the other.
            offset = 1 + int(random.expovariate(1 / 15)) % SPREAD
            price = MID - offset if is_bid else MID + offset
            if is_bid and asks:
                price = min(price, min(asks) - 1)
            if not is_bid and bids:
                price = max(price, max(bids) + 1)
        result.append(Operation(ADD, number, is_bid, price, lots))
        left = lots
        others = asks if is_bid else bids
        while left and others:
            best = min(others) if is_bid else max(others)
            if (best > price) if is_bid else (best < price):
                break
            queue = levels[not is_bid, best]
            while left and queue:
                entry = queue[0]
                part = min(left, entry[1])
                entry[1] -= part
                left -= part
                if not entry[1]:
                    queue.pop(0)
                    place.pop(entry[0])
                    forget(entry[0])
            if not queue:
                empty(not is_bid, best)
        if left:
            entry = [number, left]
            levels.setdefault((is_bid, price), []).append(entry)
            (bids if is_bid else asks).add(price)
            place[number] = (is_bid, price, entry)
            at[number] = len(live)
            live.append(number)
        number += 1
    return result
