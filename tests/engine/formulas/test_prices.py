"""P-1's index and P-2's mark: the published vectors, worked without the engine, and what must hold of any numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.formulas import prices
from engine.genesis import load
from engine.parameters import PRICE_SCALE, RATE_SCALE, MarketParameters
from tests.vectors.prices import PATH, text

VECTORS: dict[str, Any] = json.loads(PATH.read_text())
ANY_PRICE = st.integers(1, 2**63 - 1)


def test_the_vectors_are_what_their_program_writes() -> None:
    assert PATH.read_text() == text()


@pytest.mark.parametrize("row", VECTORS["index"])
def test_the_index_is_the_vectors(row: dict[str, Any]) -> None:
    sources = [(prices.median([int(one) for one in quote]), int(weight)) for *quote, weight in row["sources"]]

    assert prices.index_price(sources, int(row["clamp"])) == int(row["index"])


@pytest.mark.parametrize("row", VECTORS["deviation"])
def test_the_moving_average_is_the_vectors(row: dict[str, Any]) -> None:
    deviation, after = int(row["start"]), []
    for mid in row["mids"]:
        deviation = prices.next_deviation(deviation, int(mid), int(row["index"]))
        after.append(str(deviation))

    assert after == row["deviations"]


@pytest.mark.parametrize("row", VECTORS["mark"])
def test_the_mark_is_the_vectors(row: dict[str, Any]) -> None:
    index = int(row["index"])
    bounded = prices.bounded_mark(index + int(row["deviation"]), index, int(row["bound"]))

    assert prices.on_grid(bounded, int(row["quantum"])) == int(row["mark"])


@pytest.mark.parametrize("row", VECTORS["quantum"])
def test_the_quantum_is_the_vectors(row: dict[str, Any]) -> None:
    lot, tick = int(row["lot"]), int(row["tick"])
    value, rest = divmod(tick * lot * 10 ** row["quote_decimals"], PRICE_SCALE * 10 ** row["decimals"])
    assert not rest, "no such market can be listed"

    assert prices.mark_quantum(market(tick, lot, value)) == int(row["quantum"])


def test_a_lot_at_any_mark_is_whole_quote_atoms() -> None:
    """What the settlement of positions relies on.   [S-10]"""
    for genesis in ("devnet", "minimal"):
        parameters = load(genesis)
        decimals = {asset.asset_id: asset.decimals for asset in parameters.assets}
        for each in parameters.markets:
            quantum = prices.mark_quantum(each)
            atoms = each.lot_atoms * 10 ** decimals[each.quote_asset_id]
            assert atoms * quantum % (PRICE_SCALE * 10 ** decimals[each.base_asset_id]) == 0
            assert atoms * (quantum // 10) % (PRICE_SCALE * 10 ** decimals[each.base_asset_id]) != 0


@given(
    sources=st.lists(st.tuples(ANY_PRICE, st.integers(1, RATE_SCALE)), min_size=1, max_size=9),
    clamp=st.integers(0, RATE_SCALE - 1),
)
def test_no_source_moves_the_index_beyond_the_clamp(sources: list[tuple[int, int]], clamp: int) -> None:
    index = prices.index_price(sources, clamp)
    middle = prices.median([price for price, _weight in sources])

    assert abs(index - middle) * RATE_SCALE <= middle * clamp
    assert min(price for price, _ in sources) <= index <= max(price for price, _ in sources)


@given(honest=st.lists(ANY_PRICE, min_size=2, max_size=2), lie=ANY_PRICE, clamp=st.integers(0, RATE_SCALE - 1))
def test_one_liar_among_three_equals_cannot_leave_the_honest_range(honest: list[int], lie: int, clamp: int) -> None:
    """The median of three lies between the two honest ones, so what a lie moves is the clamp of that.   [P-1]"""
    index = prices.index_price([(price, 1) for price in (*honest, lie)], clamp)

    assert min(honest) * (RATE_SCALE - clamp) <= index * RATE_SCALE <= max(honest) * (RATE_SCALE + clamp)


@given(index=ANY_PRICE, deviation=st.integers(-(2**63), 2**63 - 1), bound=st.integers(1, RATE_SCALE - 1))
def test_the_mark_stays_within_its_bound(index: int, deviation: int, bound: int) -> None:
    mark = prices.bounded_mark(index + deviation, index, bound)

    assert abs(mark - index) * RATE_SCALE <= index * bound


@given(mark=ANY_PRICE, exponent=st.integers(0, 18))
def test_the_grid_moves_a_mark_by_half_a_quantum_at_most(mark: int, exponent: int) -> None:
    quantum = 10**exponent
    rounded = prices.on_grid(mark, quantum)

    assert rounded > 0 and rounded % quantum == 0
    assert 2 * abs(rounded - mark) <= quantum or rounded == quantum


@given(index=ANY_PRICE, mid=ANY_PRICE, seconds=st.integers(1, 400))
def test_the_moving_average_approaches_and_never_overshoots(index: int, mid: int, seconds: int) -> None:
    deviation, goal = 0, mid - index
    for _ in range(seconds):
        after = prices.next_deviation(deviation, mid, index)
        assert abs(goal - after) <= abs(goal - deviation)
        assert abs(after - deviation) * prices.DEVIATION_SECONDS < abs(goal - deviation) + prices.DEVIATION_SECONDS
        deviation = after


def market(tick: int, lot: int, value: int) -> MarketParameters:
    return replace(load("minimal").markets[0], tick_price=tick, lot_atoms=lot, tick_value_atoms=value)
