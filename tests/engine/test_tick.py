"""Settlement ticks: everybody's x, collected and then paid; what could not be paid; and nothing is lost on the way.

[S-10 … S-15, S-12, V-4]
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import tick
from ledger.chart import ROUNDING, ROUNDING_UNSETTLED
from tests.engine.crowd import Crowd

SIZE = 8
TRADES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, SIZE), st.integers(1, SIZE), st.integers(1, 50), st.integers(1, 2_000)),
    max_size=12,
)
MARKS = st.tuples(*[st.integers(1, 2_000)] * 3)
FUNDS = st.lists(st.sampled_from([0, 1, 7, 500, 10**5, 10**7]), min_size=SIZE, max_size=SIZE)


class Reference:
    """The rules of S-10, S-12 (0), (1) and S-13 in plain integers, account by account."""

    def __init__(self, crowd: Crowd) -> None:
        self.held = {number: crowd.held(number) for number in crowd.state.subaccounts}
        self.unsettled = {number: each.unsettled for number, each in crowd.state.subaccounts.items()}
        self.rounding = crowd.credit(ROUNDING)
        self.rounding_unsettled = crowd.credit(ROUNDING_UNSETTLED)

    def tick(self, gains: dict[int, int]) -> None:
        collected = 0
        for number, gain in sorted(gains.items()):
            if gain >= 0:
                continue
            given_up = min(-gain, max(0, self.unsettled[number]))
            paid = min(-gain - given_up, self.held[number])
            self.unsettled[number] -= given_up + (-gain - given_up - paid)
            self.held[number] -= paid
            collected += paid
        owed = sum(gain for gain in gains.values() if gain > 0)
        paid_out = 0
        for number, gain in gains.items():
            if gain > 0:
                paid = gain * collected // owed
                self.held[number] += paid
                self.unsettled[number] += gain - paid
                paid_out += paid
        self.rounding += collected - paid_out
        self.rounding_unsettled -= collected - paid_out
        self._retry()

    def _retry(self) -> None:
        waiting = {number: atoms for number, atoms in sorted(self.unsettled.items()) if atoms > 0}
        owes_nobody = not any(atoms < 0 for atoms in self.unsettled.values())
        paid = 0
        for number, atoms in sorted(self.unsettled.items()):
            if atoms < 0:
                part = min(-atoms, self.held[number])
                self.held[number] -= part
                self.unsettled[number] += part
                paid += part
        whole = sum(waiting.values())
        from_rounding = 0
        if owes_nobody and whole:
            from_rounding = max(0, min(-self.rounding_unsettled, self.rounding))
        out = 0
        for number, atoms in waiting.items():
            part = atoms * min(paid, whole) // whole
            extra = min(from_rounding, atoms - part)
            from_rounding -= extra
            self.held[number] += part + extra
            self.unsettled[number] -= part + extra
            out += part + extra
        self.rounding += paid - out
        self.rounding_unsettled -= paid - out


@settings(max_examples=120, deadline=None)
@given(FUNDS, st.lists(st.tuples(TRADES, MARKS), min_size=1, max_size=4), st.sampled_from([1, 1, 10**13]))
def test_a_tick_does_what_the_rules_do_account_by_account(
    funds: list[int], rounds: list[tuple[Any, Any]], scale: int
) -> None:
    """Also where 64 bits would not do: the same rules, in Python's ints.   [S-10, S-12, S-13, S-14]"""
    crowd = Crowd(SIZE)
    for number, atoms in enumerate(funds, 1):
        if atoms:
            crowd.fund(number, atoms * scale)
    for trades, marks in rounds:
        for which, buyer, seller, lots, price in trades:
            if buyer != seller:
                crowd.trade(crowd.markets[which], buyer, seller, lots * scale, price * scale)
        for market, mark in zip(crowd.markets, marks, strict=True):
            market.mark_lot = mark * scale
        gains, reference = crowd.gains(), Reference(crowd)
        assert sum(gains.values()) == 0
        reference.tick(gains)
        crowd.tick()
        assert {number: crowd.held(number) for number in crowd.state.subaccounts} == reference.held
        assert {number: each.unsettled for number, each in crowd.state.subaccounts.items()} == reference.unsettled
        assert crowd.credit(ROUNDING) == reference.rounding
        assert crowd.credit(ROUNDING_UNSETTLED) == reference.rounding_unsettled
        assert not any(crowd.gains().values())
        for market in crowd.markets:
            assert not market.traded
            assert all(held.lots for held in market.holders.values())
            assert tick._held(market).ids.tolist() == sorted(market.holders)
            assert tick._held(market).lots.tolist() == [market.holders[n].lots for n in sorted(market.holders)]


@settings(max_examples=60, deadline=None)
@given(TRADES, MARKS, MARKS)
def test_splitting_a_tick_in_two_gives_the_same_balances(trades: Any, middle: Any, last: Any) -> None:
    """As long as everybody can pay.   [S-10]"""
    once, twice = Crowd(SIZE), Crowd(SIZE)
    for crowd in (once, twice):
        for number in range(1, SIZE + 1):
            crowd.fund(number, 10**9)
        for which, buyer, seller, lots, price in trades:
            if buyer != seller:
                crowd.trade(crowd.markets[which], buyer, seller, lots, price)
    for market, mark in zip(twice.markets, middle, strict=True):
        market.mark_lot = mark
    twice.tick()
    for crowd in (once, twice):
        for market, mark in zip(crowd.markets, last, strict=True):
            market.mark_lot = mark
        crowd.tick()
    assert [once.held(n) for n in range(1, SIZE + 1)] == [twice.held(n) for n in range(1, SIZE + 1)]
    assert not once.state.unsettled and not twice.state.unsettled


LOANS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 500, 10**6])), min_size=SIZE, max_size=SIZE)
"""Of each: does not lend, lends what it holds, lends always; and how much."""


@settings(max_examples=120, deadline=None)
@given(FUNDS, LOANS, st.integers(0, 10**6), st.lists(st.tuples(TRADES, MARKS), min_size=1, max_size=4))
def test_whatever_the_pool_has_nobody_gains_or_loses_but_x(
    funds: list[int], loans: Any, drained: int, rounds: Any
) -> None:
    """Available, lent, borrowed and unsettled together change by x, and by an atom a share's rounding costs. [S-12]"""
    crowd = Crowd(SIZE + 1)
    for number, (mode, lent) in enumerate(loans, 1):
        account = crowd.state.subaccounts[number]
        crowd.fund(number, funds[number - 1] + lent + 1)
        if mode == 2:
            account.auto_lend = True
            crowd.state.automatic[number] = None
        if mode and lent:
            crowd.lends(number, lent)
    idle = crowd.idle()
    if min(drained, idle):
        crowd.borrows(SIZE + 1, min(drained, idle))
    for trades, marks in rounds:
        for which, buyer, seller, lots, price in trades:
            if buyer != seller:
                crowd.trade(crowd.markets[which], buyer, seller, lots, price)
        for market, mark in zip(crowd.markets, marks, strict=True):
            market.mark_lot = mark
        gains = crowd.gains()
        crowd.at_us += 10_000_000
        before = {number: crowd.worth(number) for number in crowd.state.subaccounts}
        crowd.at_us -= 10_000_000
        crowd.tick()
        for number in range(1, SIZE + 1):
            after = crowd.worth(number)
            assert abs(after - before[number] - gains[number]) <= 4, (number, before[number], gains[number], after)
