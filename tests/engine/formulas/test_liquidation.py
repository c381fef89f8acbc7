"""The end of the ladder in numbers: the published vectors, worked without the engine, and what must hold of any.

[L-4, L-5, L-6, M-8]
"""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.formulas import liquidation as formulas
from engine.formulas.liquidation import Candidate
from tests.vectors.formulas import text
from tests.vectors.liquidation import PATH, score, vectors

TABLES = json.loads(PATH.read_text())["functions"]
COUNT = st.integers(1, 10**9)
MONEY = st.integers(-(10**15), 10**15)


def test_the_vectors_are_what_their_program_writes() -> None:
    assert PATH.read_text() == text(vectors())


@pytest.mark.parametrize("name", TABLES)
def test_the_engine_gives_every_published_result(name: str) -> None:
    assert TABLES[name]
    for row in TABLES[name]:
        result: Any = getattr(formulas, name)(**{key: int(value) for key, value in row["in"].items()})

        assert (Fraction(*result) if isinstance(result, tuple) else result) == Fraction(row["out"]), f"{name}: {row}"


@given(st.lists(st.builds(Candidate, COUNT, st.integers(1, 5), st.integers(-9, 9), st.integers(1, 9),
                          st.integers(0, 9), st.integers(-2, 9)), max_size=12))
def test_the_ranking_is_that_of_exact_fractions(candidates: list[Candidate]) -> None:
    """Score descending, then size, then id: cross products and fractions say the same.   [L-6]"""
    by_fractions = sorted(
        candidates,
        key=lambda one: (-score(one.profit, one.entry, one.notional, one.equity), -one.lots, one.subaccount_id),
    )

    assert formulas.ranked(candidates) == by_fractions


def test_profit_counts_more_with_leverage_and_loss_less() -> None:
    """Who gained with borrowed strength is closed first; of those who lost the ones with little leverage last."""
    def standing(number: int, profit: int, notional: int) -> Candidate:
        return Candidate(number, 10, profit, 1_000, notional, 100)

    order = formulas.ranked([standing(1, -50, 100), standing(2, -50, 2_000), standing(3, 50, 100),
                             standing(4, 50, 2_000), standing(5, 0, 500)])

    assert [one.subaccount_id for one in order] == [4, 3, 5, 2, 1]


@given(MONEY, st.lists(st.tuples(COUNT, COUNT, st.booleans()), min_size=1, max_size=4))
@example(-3, [(1, 1, True)])
def test_closing_all_at_their_bankruptcy_prices_leaves_only_the_rounding(
    equity: int, positions: list[tuple[int, int, bool]]
) -> None:
    """Σ q × (mark − p) = E up to half a quantum a lot, unless a price was held up at the least.   [L-6]"""
    mark, quote_unit, quote_mark = 10**16, 10**6, 10**12
    total = sum(maintenance for _lots, maintenance, _long in positions)
    used = 0
    bound = 0
    for lots, maintenance, is_long in positions:
        signed = lots if is_long else -lots
        price = formulas.bankruptcy_price(mark, 1, equity, maintenance, total, signed, quote_unit, quote_mark)
        if price == 1:
            return
        used += signed * (mark - price)
        bound += lots

    assert abs(2 * (used - Fraction(equity, 100))) <= bound


@given(st.integers(1, 10**15), st.lists(st.integers(1, 10**6), min_size=1, max_size=8))
def test_a_shared_loss_is_never_undercollected(loss: int, sizes: list[int]) -> None:
    """What the side pays covers D, and exceeds it by less than an atom for each and one for the division.   [L-6]"""
    per_lot = formulas.loss_per_lot(loss, sum(sizes))
    paid = sum(formulas.shared_loss(per_lot, size) for size in sizes)

    assert loss <= paid <= loss + len(sizes) + 1


@given(MONEY, st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_slices_never_exceed_the_whole(amount: int, weights: list[int]) -> None:
    """What the last provider takes, the rest, has the sign of the whole or is nothing.   [L-4]"""
    whole = max(1, sum(weights))
    rest = amount - sum(formulas.slice_of(amount, weight, whole) for weight in weights)

    assert abs(rest) <= abs(amount) and rest * amount >= 0


def test_the_first_fifth_of_a_ranking_is_the_fifth_quintile() -> None:
    assert [formulas.quintile(place, 10) for place in range(10)] == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert formulas.quintile(0, 1) == 5
