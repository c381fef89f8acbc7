"""Gaps on thick and on empty books: every stage has its case, lenders stay whole, a wick hurts nobody.   [L-1 … L-9]"""

from __future__ import annotations

import pytest

from engine import margin
from tests.simulation.gaps import BOOKS, play


@pytest.mark.parametrize("book", BOOKS)
@pytest.mark.parametrize("shock", ["-5 %", "-30 %", "-60 %"])
def test_a_gap_ends_with_lenders_whole_and_nobody_below_zero(shock: str, book: str) -> None:
    outcome, run, gap = play(shock, book)
    assert outcome.liquidated and outcome.steps["ended"] == outcome.steps["started"] == outcome.liquidated
    assert not outcome.holes and not run.state.liquidations
    for number in (*gap.traders, *gap.makers, *gap.providers, *gap.lenders):
        assert margin.sums(run.state, run.state.subaccounts[number], run.at_us).equity >= 0
    # A few percent are a matter for the book where there is one; without one, and beyond, for what comes after it.
    is_for_the_book = shock == "-5 %" and book == "thick"
    assert ("adl" not in outcome.steps) == is_for_the_book
    assert not is_for_the_book or outcome.steps["book"] > 10


@pytest.mark.parametrize("book", BOOKS)
def test_a_wick_of_one_second_liquidates_nobody(book: str) -> None:
    """The book alone falls by 30 % for a second; the mark moves by a three-hundredth of that.   [P-2]"""
    outcome, run, gap = play("wick of 1 s", book)
    assert not outcome.liquidated
    market = run.state.markets[gap.perp]
    assert abs(market.mark * 1_000 // run.state.prices[gap.btc] - 1_000) <= 2
