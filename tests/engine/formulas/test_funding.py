"""P-12, P-13, P-20 and P-21: the published vectors, worked without the engine, and what must hold of any numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import funding as columns
from engine.formulas import bands, funding
from engine.genesis import load
from engine.parameters import PRICE_SCALE, RATE_SCALE, BandParameters, PerpetualParameters
from tests.vectors.funding import PATH, text

VECTORS: dict[str, Any] = json.loads(PATH.read_text())
ANY_RATE = st.integers(-(10**9), 10**9)


def test_the_vectors_are_what_their_program_writes() -> None:
    assert PATH.read_text() == text()


@pytest.mark.parametrize("row", VECTORS["premium"])
def test_the_premium_is_the_vectors(row: dict[str, Any]) -> None:
    assert funding.premium(int(row["mark"]), int(row["index"])) == int(row["premium"])


@pytest.mark.parametrize("row", VECTORS["rate"])
def test_the_rate_is_the_vectors(row: dict[str, Any]) -> None:
    perpetual = replace(
        usual(),
        funding_interval_ms=row["interval_ms"],
        interest_rate=int(row["interest_rate"]),
        funding_clamp=int(row["clamp"]),
        premium_divisor=row["divisor"],
        funding_lower_bps=row["lower_bps"],
        funding_upper_bps=row["upper_bps"],
    )

    assert funding.funding_rate(int(row["total"]), row["samples"], perpetual) == int(row["rate"])


@pytest.mark.parametrize("row", VECTORS["payment"])
def test_the_payment_is_the_vectors(row: dict[str, Any]) -> None:
    rate, mark_lot, lots = int(row["rate"]), int(row["mark_lot"]), int(row["lots"])

    assert funding.payment(rate, mark_lot, lots) == int(row["received"])
    assert funding.index_step(rate, mark_lot) == int(row["index_step"])
    assert list(columns.payments(rate, mark_lot, np.array([lots]))) == [int(row["received"])]


@pytest.mark.parametrize("row", VECTORS["mean_mark_band"])
def test_the_mean_mark_band_is_the_vectors(row: dict[str, Any]) -> None:
    least, most, quote, tick = (int(row[name]) for name in ("minimum", "maximum", "quote_price", "tick"))
    bounds = bands.mean_mark_bounds(int(row["total"]), row["samples"], least, most, quote, tick)

    assert [str(bound) for bound in bounds] == row["bounds"]


@pytest.mark.parametrize("row", VECTORS["premium_band"])
def test_the_premium_band_is_the_vectors(row: dict[str, Any]) -> None:
    index, total, tolerance, quote, tick = (
        int(row[name]) for name in ("index", "total", "tolerance", "quote_price", "tick")
    )
    bounds = bands.premium_bounds(index, total, row["samples"], tolerance, quote, tick)

    assert [str(bound) for bound in bounds] == row["bounds"]


def test_the_rule_books_example_of_the_premium_band() -> None:
    """P-13: at p̄ = 3 %, t = 1 % a buy fills up to a premium of 4 %; at p̄ = −3 % a sell down to −4 %."""
    index, tick = 100 * PRICE_SCALE, PRICE_SCALE // 100

    assert bands.premium_bounds(index, 30_000_000 * 60, 60, 10_000_000, PRICE_SCALE, tick)[1] == 10_400
    assert bands.premium_bounds(index, -30_000_000 * 60, 60, 10_000_000, PRICE_SCALE, tick)[0] == 9_600


def test_the_rule_books_rate() -> None:
    """P-20: an hour's interest is 0.00125 %; at no premium that over 8, at 0.1 % what the clamp leaves over 8."""
    assert funding.funding_rate(0, 3_600, usual()) == round(12_500 / 8) == 1_562
    assert funding.funding_rate(1_000_000 * 3_600, 3_600, usual()) == (1_000_000 - 500_000) // 8 == 62_500
    assert funding.funding_rate(-1_000_000 * 3_600, 3_600, usual()) == -62_500


def test_twice_as_wide_is_twice_as_far_from_the_price() -> None:
    own = BandParameters(*(round(each * RATE_SCALE) for each in (0.25, 2, 0.9, 1.1, 0.5, 1.5, 0.1)))
    wide = BandParameters(*(round(each * RATE_SCALE) for each in (0, 3, 0.8, 1.2, 0, 2, 0.2)))

    assert bands.twice_as_wide(own) == wide


@given(total=st.integers(-(10**15), 10**15), samples=st.integers(1, 86_400))
def test_the_rate_stays_within_its_bounds_and_its_sign_is_the_premiums(total: int, samples: int) -> None:
    """P-22. Without interest a rate never points against the premium, and is never larger than it."""
    perpetual = replace(usual(), interest_rate=0)
    rate = funding.funding_rate(total, samples, perpetual)

    assert -10_000_000 <= rate <= 10_000_000
    assert rate == 0 or (rate > 0) == (total > 0)
    assert abs(rate) * samples <= abs(total) + samples


@given(rate=ANY_RATE, mark_lot=st.integers(1, 10**15), lots=st.lists(st.integers(-(10**12), 10**12), min_size=1))
def test_what_is_left_over_is_never_owed_by_the_exchange_and_less_than_an_atom_each(
    rate: int, mark_lot: int, lots: list[int]
) -> None:
    """P-21: whoever holds it, Σ payments ≤ 0 of Σ lots = 0, and the residue is below one atom a holder."""
    held = [*lots, -sum(lots)]
    received = [funding.payment(rate, mark_lot, each) for each in held]

    assert 0 <= -sum(received) < len(held)
    for got, each in zip(received, held, strict=True):
        assert 0 <= -rate * mark_lot * each - got * RATE_SCALE < RATE_SCALE


@given(
    rate=ANY_RATE,
    mark_lot=st.integers(1, 2**62),
    lots=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20),
)
def test_the_column_is_the_formula_row_by_row(rate: int, mark_lot: int, lots: list[int]) -> None:
    """Also where a product leaves 64 bits.   [A-3]"""
    received = columns.payments(rate, mark_lot, np.array(lots, dtype=np.int64))

    assert [int(each) for each in received] == [funding.payment(rate, mark_lot, each) for each in lots]


@given(
    index=st.integers(1, 2**63 - 1),
    total=st.integers(-(10**12), 10**12),
    samples=st.integers(60, 300),
    tolerance=st.integers(0, RATE_SCALE),
    tick=st.integers(1, 10**12),
)
def test_the_bounds_are_the_last_ticks_inside_the_premium_band(
    index: int, total: int, samples: int, tolerance: int, tick: int
) -> None:
    """A price's premium is within p̄ ± t exactly up to the bound.   [P-13]"""
    least, most = bands.premium_bounds(index, total, samples, tolerance, PRICE_SCALE, tick)

    def is_above(ticks: int) -> bool:
        return (ticks * tick - index) * RATE_SCALE * samples > index * (total + tolerance * samples)

    def is_below(ticks: int) -> bool:
        return (ticks * tick - index) * RATE_SCALE * samples < index * (total - tolerance * samples)

    assert is_above(most + 1) and not (most >= 0 and is_above(most))
    assert not is_below(least) and (least == 0 or is_below(least - 1))


def usual() -> PerpetualParameters:
    perpetual = next(market.perpetual for market in load("devnet").markets if market.perpetual is not None)
    assert (perpetual.funding_interval_ms, perpetual.premium_divisor) == (3_600_000, 8)
    return perpetual
