"""A perpetual's own mark and premium, and the bands that takers and liquidations meet.   [P-2, P-10 … P-14, S-15]"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import bands, pricing, snapshot
from engine.commands import ConfigureAsset, ConfigureMarket, FeedQuotes, Quote, SampleMarks, SetPrices
from engine.events import ExpiryReason, MarksChanged, OrderExpired
from engine.parameters import PRICE_SCALE, RATE_SCALE, BandParameters, BookState, IndexParameters, PriceSource
from engine.state import Market
from tests.engine.desk import ASK, BID, RejectReason
from tests.engine.perps import Member, Pit, cross

SECOND_US = 1_000_000
CENT = PRICE_SCALE // 100
DOLLAR = PRICE_SCALE
NORTH = IndexParameters((PriceSource("north", 1, 10_000),))


@pytest.fixture
def pit() -> Pit:
    return Pit()


def quoting(pit: Pit, bid: int, ask: int, lots: int = 100, name: str = "maker") -> Member:
    """Somebody rests an order on either side, prices in cents."""
    maker = pit.member(name, 10**6)
    for side, price in ((BID, bid), (ASK, ask)):
        if price:
            outcome = maker.trade(side, lots, price)
            assert outcome.rejection is None, outcome.rejection
    return maker


def hears(pit: Pit) -> None:
    """The one source says 150."""
    price = 150 * DOLLAR
    pit.exchange.do(FeedQuotes((Quote(pit.base, "north", price, price, price, pit.exchange.at_us),)))


def configures(pit: Pit, **changed: Any) -> None:
    """Change the market; `perpetual` and `bands` take their own fields."""
    parameters = pit.book_market.parameters
    for name in ("perpetual", "bands"):
        if name in changed:
            changed[name] = replace(getattr(parameters, name), **changed[name])
    pit.exchange.do(ConfigureMarket(replace(parameters, **changed)))


def ended(pit: Pit) -> ExpiryReason | None:
    """Why the last command's order expired."""
    return next((event.order.expiry_reason for event in pit.last.events if isinstance(event, OrderExpired)), None)


# --- the mark   [P-2]


def test_before_the_first_price_a_perpetual_is_closed_and_opens_with_it() -> None:
    pit = Pit.__new__(Pit)
    super(Pit, pit).__init__("SOL_USDC_PERP", "devnet")
    anna = pit.member("anna", 1_000)
    assert anna.trade(BID, 1, 15_000).rejection.reason is RejectReason.CANCEL_ONLY_MODE  # type: ignore[union-attr]
    assert (pit.book_market.mark, pit.book_market.next_funding_us) == (0, 0)

    outcome = pit.exchange.do(SetPrices(((pit.exchange.asset("SOL"), 150 * DOLLAR),)))
    sol = pit.exchange.asset("SOL")
    moved = [event for event in outcome.events if isinstance(event, MarksChanged)]
    assert moved == [MarksChanged((sol,), (pit.market,))]
    assert pit.book_market.mark == 150 * DOLLAR
    assert pit.book_market.next_funding_us == (pit.exchange.at_us // 3_600_000_000 + 1) * 3_600_000_000
    assert anna.trade(BID, 1, 15_000).rejection is None


def test_the_mark_is_the_index_and_what_its_own_book_moves_it_by(pit: Pit) -> None:
    """The spot book of the same asset stays as it is, and with it the asset's mark."""
    quoting(pit, 15_140, 15_160)
    pit.exchange.advance(1)
    market = pit.book_market

    assert market.pricing.deviation == 150 * CENT // 300
    assert market.mark == 150 * DOLLAR + 150 * CENT // 300
    assert pricing.mark_price(pit.state, pit.base) == 150 * DOLLAR
    pit.exchange.advance(3_000)
    assert 15_149 * CENT < market.mark <= 15_150 * CENT


def test_a_lot_at_the_mark_is_whole_quote_atoms(pit: Pit) -> None:
    quoting(pit, 15_003, 15_010)
    for _ in range(50):
        pit.exchange.advance(7)
        market = pit.book_market
        assert market.mark_lot * market.parameters.tick_price == market.mark * market.parameters.tick_value_atoms


def test_a_pushed_book_moves_the_mark_no_further_than_the_perpetuals_bound(pit: Pit) -> None:
    quoting(pit, 17_000, 17_010)
    pit.exchange.advance(3_000)

    assert pit.book_market.mark == 150 * DOLLAR * 10_125 // 10_000
    configures(pit, perpetual={"mark_bound": 1_000_000})
    pit.exchange.advance(1)
    assert pit.book_market.mark == 150 * DOLLAR * 1_001 // 1_000


def test_a_wick_of_one_second_moves_the_mark_by_a_three_hundredth(pit: Pit) -> None:
    maker = quoting(pit, 14_990, 15_010)
    pit.exchange.advance(100)
    before = pit.book_market.mark
    maker.cancels_all()
    quoting(pit, 7_500, 7_510, name="pusher")
    pit.exchange.advance(1)

    assert 0 < before - pit.book_market.mark <= 7_500 * CENT // 300 + CENT


def test_a_post_only_market_is_marked_at_the_index(pit: Pit) -> None:
    quoting(pit, 15_140, 15_160)
    pit.exchange.advance(200)
    assert pit.book_market.mark > 150 * DOLLAR
    configures(pit, state=BookState.POST_ONLY)
    pit.exchange.advance(1)

    assert pit.book_market.mark == 150 * DOLLAR
    assert pit.book_market.premium.last300[pit.state.sampled_second % 300] == 0


def test_a_stale_index_leaves_the_book_and_an_empty_book_leaves_nothing(pit: Pit) -> None:
    """(4) the mid, (3) the median of bid, ask and last; without either the mark stays and the book takes cancels."""
    taker = pit.member("taker", 10_000)
    pit.exchange.do(ConfigureAsset(replace(pit.state.assets[pit.base], index=NORTH)))
    hears(pit)
    maker = quoting(pit, 15_140, 15_160)
    pit.exchange.advance(11)
    market = pit.book_market
    assert (market.mark, market.pricing.has_data) == (15_150 * CENT, True)
    assert market.premium.last300[pit.state.sampled_second % 300] is None, "no index, no premium"
    assert market.premium.samples == 10

    hears(pit)
    assert taker.trade(BID, 1, 15_160).rejection is None
    pit.exchange.advance(11)
    assert market.mark == 15_160 * CENT

    maker.cancels_all()
    pit.exchange.advance(1)
    assert (market.mark, market.pricing.has_data) == (15_160 * CENT, False)
    assert pricing.is_cancel_only(pit.state, market)
    outcome = taker.trade(BID, 1, 15_000)
    assert outcome.rejection is not None and outcome.rejection.reason is RejectReason.CANCEL_ONLY_MODE
    hears(pit)
    assert not pricing.is_cancel_only(pit.state, market)
    assert abs(market.mark - 150 * DOLLAR - market.pricing.deviation) < CENT and market.pricing.deviation > 0


def test_a_perpetual_listed_after_its_assets_price_is_marked_at_once(pit: Pit) -> None:
    eth = pit.exchange.market("ETH_USDC_PERP")
    known = pit.state.markets.pop(eth).parameters
    pit.price(3_000, "ETH")
    pit.exchange.do(ConfigureMarket(replace(known, market_id=77)))

    assert pit.state.markets[77].mark == 3_000 * DOLLAR
    assert pit.state.markets[77].next_funding_us > pit.exchange.at_us
    assert pit.state.funding_due_us == min(m.next_funding_us for m in pit.state.markets.values() if m.next_funding_us)


@settings(max_examples=25, deadline=None)
@given(
    quotes=st.tuples(st.integers(10_000, 15_000), st.integers(15_001, 20_000)),
    moves=st.lists(st.tuples(st.integers(1, 700), st.sampled_from((0, 149, 150, 155))), min_size=1, max_size=4),
    is_dying=st.booleans(),
)
def test_seconds_at_once_are_what_they_are_one_by_one(
    quotes: tuple[int, int], moves: list[tuple[int, int]], is_dying: bool
) -> None:
    """Mark, means, premium and funding: byte for byte.   [S-15, P-20]"""
    pits = [Pit(), Pit()]
    for pit in pits:
        quoting(pit, *quotes)
        if is_dying:
            pit.exchange.do(ConfigureAsset(replace(pit.state.assets[pit.base], index=NORTH)))
            hears(pit)
    for seconds, price in moves:
        at_once, one_by_one = pits
        for pit in pits:
            pit.exchange.at_us += seconds * SECOND_US
        at_once.exchange.do(SampleMarks(seconds))
        for _ in range(seconds):
            one_by_one.exchange.do(SampleMarks(1))
        for pit in pits:
            pit.state.sequence = 0
            if price and not is_dying:
                pit.price(price)
    sequence = max(pit.state.sequence for pit in pits)
    for pit in pits:
        pit.state.sequence = sequence
    dumps = [snapshot.dump(pit.state) for pit in pits]

    assert dumps[0] == dumps[1]
    assert snapshot.dump(snapshot.load(dumps[0])) == dumps[0]


def test_the_premiums_sums_are_what_its_samples_add_up_to(pit: Pit) -> None:
    quoting(pit, 15_040, 15_060)
    for seconds in (1, 59, 240, 301, 17):
        pit.exchange.advance(seconds)
        premium = pit.book_market.premium
        present = [sample for sample in premium.last300 if sample is not None]
        assert (premium.total300, premium.sampled) == (sum(present), len(present))


# --- the bands of the means   [P-12, P-13]


def steady(pit: Pit, seconds: int = 70) -> Market:
    pit.exchange.advance(seconds)
    return pit.book_market


def test_a_taker_fills_within_the_mean_mark_and_the_rest_expires(pit: Pit) -> None:
    configures(pit, bands={"mean_mark_max": 1_010_000_000, "mean_mark_min": 990_000_000})
    maker = quoting(pit, 14_990, 15_150, lots=10)
    assert maker.trade(ASK, 10, 15_157).rejection is None
    assert maker.trade(BID, 10, 14_840).rejection is None
    market = steady(pit)
    total, sampled = market.pricing.total, market.pricing.sampled
    most = total * 101 // (100 * sampled * CENT)
    least = -(-total * 99 // (100 * sampled * CENT))
    assert (least, most) == (14_858, 15_157)

    taker = pit.member("taker", 10**6)
    assert taker.trade(BID, 30, 15_400).rejection is None
    assert (pit.fills(), ended(pit)) == ([(15_150, 10), (15_157, 10)], None), "what nobody is left to fill rests"
    taker.cancels_all()
    taker.trade(ASK, 200)
    assert (pit.fills(), ended(pit)) == ([(14_990, 10)], ExpiryReason.PRICE_OUT_OF_BOUNDS)


def test_the_tighter_of_the_bands_says_why_the_rest_expired(pit: Pit) -> None:
    configures(pit, bands={"mean_mark_max": 1_010_000_000, "impact_max": 1_000_500_000})
    maker = quoting(pit, 14_990, 15_050, lots=10)
    for price in (15_058, 15_200):
        assert maker.trade(ASK, 10, price).rejection is None
    steady(pit)
    taker = pit.member("taker", 10**6)

    taker.trade(BID, 30)
    assert (pit.fills(), ended(pit)) == ([(15_050, 10)], ExpiryReason.PRICE_IMPACT)
    taker.trade(BID, 30)
    assert (pit.fills(), ended(pit)) == ([(15_058, 10)], ExpiryReason.PRICE_OUT_OF_BOUNDS)
    assert taker.trade(BID, 5, 15_300).rejection is None
    assert (pit.fills(), ended(pit)) == ([], ExpiryReason.PRICE_OUT_OF_BOUNDS)
    assert pit.asks() == [(15_200, 10)], "it does not rest across the book either"


@pytest.mark.parametrize("market", ["SOL_USDC_PERP", "SOL_USDC"])
def test_the_rule_books_example_of_the_premium_band(market: str) -> None:
    """P-13: p̄ = 3 %, t = 1 %: a buy fills up to a premium of 4 %; p̄ = −3 %: a sell down to −4 %. On spot too."""
    for sign in (1, -1):
        pit = Pit(market, price=100)
        configures(pit, bands={"premium_tolerance": 10_000_000})
        premium = pit.book_market.premium
        pit.exchange.advance(60)
        premium.last300 = [sign * 30_000_000] * 300
        premium.total300, premium.sampled = sign * 30_000_000 * 300, 300
        pit.state.valuations.bounds.clear()
        maker = pit.member("maker", 10**6, SOL=10**12)
        edge = 10_000 + sign * 400
        for price in (edge - sign, edge, edge + sign):
            assert maker.trade(ASK if sign > 0 else BID, 1, price).rejection is None
        taker = pit.member("taker", 10**6, SOL=10**12)
        taker.trade(BID if sign > 0 else ASK, 3)

        assert pit.fills() == [(edge - sign, 1), (edge, 1)]
        assert ended(pit) is ExpiryReason.PRICE_OUT_OF_BOUNDS


def test_means_of_fewer_than_sixty_samples_bound_nothing(pit: Pit) -> None:
    configures(pit, bands={"mean_mark_max": RATE_SCALE, "premium_tolerance": 0})
    quoting(pit, 14_990, 15_010)
    taker = pit.member("taker", 10**6)
    pit.exchange.advance(59)
    taker.trade(BID, 1)
    assert pit.fills() == [(15_010, 1)]
    pit.exchange.advance(1)
    taker.trade(BID, 1)

    assert (pit.fills(), ended(pit)) == ([], ExpiryReason.PRICE_OUT_OF_BOUNDS)


def test_without_a_live_index_there_is_no_premium_to_hold_to(pit: Pit) -> None:
    configures(pit, bands={"premium_tolerance": 0})
    slow = IndexParameters((PriceSource("north", 1, 70_000),))
    pit.exchange.do(ConfigureAsset(replace(pit.state.assets[pit.base], index=slow)))
    hears(pit)
    quoting(pit, 14_990, 15_030)
    pit.exchange.advance(70)
    market = pit.book_market
    assert bands.means(pit.state, market, market.parameters.bands)[1] < 15_030
    pit.exchange.advance(1)

    assert bands.means(pit.state, market, market.parameters.bands)[1] > 20_000


def test_the_bounds_that_are_kept_are_the_bounds_that_would_be_made(pit: Pit) -> None:
    """Nothing that moves a bound leaves the old one behind: a price, a second, the market's parameters.   [A-6]"""
    quoting(pit, 14_900, 15_020)
    taker = pit.member("taker", 10**6)

    def check() -> None:
        # The first order after the marks moved makes margin's cache anew, and the bounds go with it.
        taker.trade(BID, 1)
        taker.trade(BID, 1)
        market = pit.book_market
        kept = pit.state.valuations.bounds[pit.market]
        assert kept == bands.means(pit.state, market, market.parameters.bands)

    for step in range(30):
        pit.exchange.advance((1, 60, 7)[step % 3])
        check()
        if step % 4 == 0:
            pit.price(150 + step / 100)
            check()
        if step % 10 == 0:
            configures(pit, bands={"premium_tolerance": 20_000_000 + step * 1_000_000})
            check()


# --- the bands of a liquidation   [P-14]


def test_a_liquidation_fills_twice_as_far_unless_the_market_says_how_far(pit: Pit) -> None:
    quoting(pit, 14_990, 15_010)
    parameters = pit.book_market.parameters
    assert bands.of(parameters, is_liquidation=False) is parameters.bands
    assert bands.of(parameters, is_liquidation=True).impact_max == 1_200_000_000
    # 15010 × 1.2 = 18012 by impact; the mean mark and the premium are no bound yet.
    assert bands.liquidation_bound(pit.state, pit.book_market, BID) == 18_012
    assert bands.liquidation_bound(pit.state, pit.book_market, ASK) == 14_990 * 8 // 10

    market = steady(pit)
    total, sampled = market.premium.total300, market.premium.sampled
    most = 150 * DOLLAR * (sampled * RATE_SCALE + total + sampled * 200_000_000) // (sampled * RATE_SCALE * CENT)
    assert bands.liquidation_bound(pit.state, market, BID) == most <= 18_001

    own = BandParameters(0, 9 * RATE_SCALE, 500_000_000, 1_100_000_000, 0, 9 * RATE_SCALE, 400_000_000)
    configures(pit, perpetual={"liquidation_bands": own})
    assert bands.liquidation_bound(pit.state, pit.book_market, BID) == 15_010 * 11 // 10


def test_a_liquidation_has_no_bound_where_nobody_stands_opposite(pit: Pit) -> None:
    quoting(pit, 14_990, 0)

    assert bands.liquidation_bound(pit.state, pit.book_market, BID) is None
    assert bands.liquidation_bound(pit.state, pit.book_market, ASK) is not None


def test_the_limit_band_of_an_empty_perpetual_is_measured_from_its_own_mark(pit: Pit) -> None:
    """P-10."""
    anna = pit.member("anna", 10**6)
    outcome = anna.trade(BID, 1, 30_001)
    assert outcome.rejection is not None and outcome.rejection.reason is RejectReason.PRICE_OUT_OF_BAND
    assert anna.trade(ASK, 1, 30_000).rejection is None


def test_fills_at_a_mean_band_keep_the_books_whole(pit: Pit) -> None:
    configures(pit, bands={"mean_mark_max": 1_001_000_000})
    quoting(pit, 14_990, 15_010)
    taker = pit.member("taker", 10**5)
    steady(pit)
    cross(taker, pit.member("other", 10**5), 5, 15_009)

    assert taker.lots == 5 and pit.is_balanced()
