"""Index and mark prices of a running exchange: fed, sampled, pushed, stale, gone.   [P-1, P-2, P-3, M-12, S-15]"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import clock, pricing, snapshot
from engine.commands import (
    ChargeFunding,
    CloseEpoch,
    ConfigureAsset,
    ConfigureMarket,
    FeedQuotes,
    Quote,
    SampleMarks,
    SetPrices,
)
from engine.events import MarksChanged, PricesSet
from engine.parameters import MAX_PRICE, PRICE_SCALE, BookState, IndexParameters, PriceSource
from engine.state import Market
from tests.engine.desk import ASK, BID, Desk, RejectReason, Trader

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
CENT = PRICE_SCALE // 100


class PricedDesk(Desk):
    """A desk whose clock runs everything that falls due, as the sequencer does."""

    def __init__(self) -> None:
        super().__init__()
        self.sol = self.exchange.asset("SOL")
        self.usdc = self.exchange.asset("USDC")

    @property
    def book(self) -> Market:
        return self.state.markets[self.market]

    def waits(self, seconds: int) -> int:
        """Let exchange time pass; gives how many commands fell due."""
        until_us, ran = self.exchange.at_us + seconds * SECOND_US, 0
        while (scheduled := clock.due(self.state, until_us)) is not None:
            self.exchange.at_us = max(scheduled[0], self.exchange.at_us)
            self.last = self.exchange.do(scheduled[1])
            ran += 1
        self.exchange.at_us = until_us
        return ran

    def feeds(self, price: int, symbol: str = "SOL") -> None:
        self.attempt(SetPrices(((self.exchange.asset(symbol), price),)))
        assert self.last.rejection is None, self.last.rejection

    def hears(self, *quotes: tuple[str, int]) -> RejectReason | None:
        """Each source says one price for bid, ask and last; gives why it is refused."""
        at_us = self.exchange.at_us + 1
        told = tuple(Quote(self.sol, name, price, price, price, at_us) for name, price in quotes)
        rejection = self.attempt(FeedQuotes(told)).rejection
        return rejection.reason if rejection is not None else None

    def listens_to(self, *sources: PriceSource, minimum: int = 1) -> None:
        asset = self.state.assets[self.sol]
        self.attempt(ConfigureAsset(replace(asset, index=IndexParameters(sources, minimum))))
        assert self.last.rejection is None, self.last.rejection

    def mark(self) -> int:
        return pricing.mark_price(self.state, self.sol)

    def deviation(self) -> int:
        return self.state.pricing[self.sol].deviation

    def is_live(self) -> bool:
        return pricing.is_live(self.state, self.sol, self.exchange.at_us)


@pytest.fixture
def desk() -> PricedDesk:
    return PricedDesk()


def quoting(desk: PricedDesk, bid: int, ask: int, name: str = "maker") -> Trader:
    """Somebody rests an order on either side, prices in cents."""
    trader = desk.trader(name)
    trader.buys(10, at=bid)
    trader.sells(10, at=ask)
    return trader


SOURCES = tuple(PriceSource(name, 1, 10_000) for name in ("north", "south", "west"))


# --- fed by hand   [P-1, P-3, W-9]


def test_without_a_price_there_is_no_mark_and_spot_trades(desk: PricedDesk) -> None:
    maker = quoting(desk, 14_990, 15_010)
    desk.waits(3_000)
    assert desk.state.sampled_second == 0

    assert (desk.mark(), pricing.index_price(desk.state, desk.sol), desk.is_live()) == (0, 0, False)
    assert not pricing.has_price(desk.state, desk.sol)
    assert not pricing.is_cancel_only(desk.state, desk.book)
    assert maker.buys(1, at=14_000).order_id


def test_usdc_is_one_dollar_unless_an_index_is_fed(desk: PricedDesk) -> None:
    state = desk.state
    assert pricing.mark_price(state, desk.usdc) == pricing.index_price(state, desk.usdc) == PRICE_SCALE
    assert pricing.is_live(state, desk.usdc, desk.exchange.at_us) and pricing.has_price(state, desk.usdc)

    desk.feeds(98 * CENT, "USDC")

    assert pricing.mark_price(state, desk.usdc) == pricing.index_price(state, desk.usdc) == 98 * CENT


def test_a_price_fed_by_hand_is_the_mark_and_lives_for_ever_on_a_devnet(desk: PricedDesk) -> None:
    version = desk.state.marks_version
    desk.feeds(150 * PRICE_SCALE)

    assert desk.mark() == pricing.index_price(desk.state, desk.sol) == 150 * PRICE_SCALE
    assert desk.reported(PricesSet) == [PricesSet((desk.sol,))]
    assert desk.reported(MarksChanged) == [MarksChanged((desk.sol,), (desk.exchange.market("SOL_USDC_PERP"),))]
    assert desk.state.marks_version == version + 1

    desk.feeds(150 * PRICE_SCALE)
    assert not desk.reported(MarksChanged) and desk.state.marks_version == version + 1

    desk.waits(10 * 24 * 3_600)
    assert desk.is_live() and desk.mark() == 150 * PRICE_SCALE


def test_outside_a_devnet_a_price_fed_by_hand_goes_stale(desk: PricedDesk) -> None:
    desk.state.devnet = False
    desk.state.operator_keys = (bytes(32),)
    request = desk.exchange.signed(bytes(32))
    assert desk.attempt(SetPrices(((desk.sol, PRICE_SCALE),)), request).rejection is None

    limit_us = desk.state.limits.hand_price_stale_ms * 1_000
    assert pricing.is_live(desk.state, desk.sol, desk.exchange.at_us + limit_us)
    assert not pricing.is_live(desk.state, desk.sol, desk.exchange.at_us + limit_us + 1)


def test_the_mark_is_rounded_half_even_to_the_quantum(desk: PricedDesk) -> None:
    """SOL: a lot is 0.01 and USDC has 6 decimals, so marks are multiples of 0.0001."""
    for fed, mark in ((150_00005, 150_0000), (150_00015, 150_0002), (150_000051, 150_0001)):
        digits = len(str(fed)) - 3
        desk.feeds(fed * PRICE_SCALE // 10**digits)
        assert desk.mark() == mark * PRICE_SCALE // 10_000


# --- sampled   [P-2]


def test_the_mark_follows_the_books_mid_by_a_three_hundredth_a_second(desk: PricedDesk) -> None:
    quoting(desk, 15_090, 15_110)
    desk.feeds(150 * PRICE_SCALE)

    expected = 0
    for _ in range(30):
        desk.waits(1)
        expected += (PRICE_SCALE - expected) // 300
        assert desk.deviation() == expected
    # 0.0953 of the dollar between, on a grid of 0.0001.
    assert desk.mark() == 150 * PRICE_SCALE + round(expected / 10**8) * 10**8
    assert pricing.index_price(desk.state, desk.sol) == 150 * PRICE_SCALE


def test_somebody_who_pushes_the_book_for_five_seconds_moves_the_mark_by_five_samples(desk: PricedDesk) -> None:
    """The band lets the pusher bid up to twice the price; the mark moves by less than 1.7 % of the way, and back."""
    quoting(desk, 14_999, 15_001)
    desk.feeds(150 * PRICE_SCALE)
    desk.waits(60)
    assert desk.mark() == 150 * PRICE_SCALE
    pusher = desk.trader("pusher")
    pusher.buys(10, at=15_001)
    pusher.buys(1, at=16_000)
    pusher.sells(1, at=16_002)

    desk.waits(5)

    pushed = 160 * PRICE_SCALE + CENT - 150 * PRICE_SCALE
    assert 0 < desk.mark() - 150 * PRICE_SCALE < pushed * 5 // 300
    pusher.cancels_all()
    quoting(desk, 14_999, 15_001, "other")
    desk.waits(1_000)
    assert abs(desk.mark() - 150 * PRICE_SCALE) <= CENT


def test_a_book_far_from_the_index_moves_the_mark_to_its_bound_and_no_further(desk: PricedDesk) -> None:
    quoting(desk, 17_990, 18_010)
    desk.feeds(150 * PRICE_SCALE)
    desk.waits(2_000)

    assert desk.mark() == 150 * PRICE_SCALE * 10_125 // 10_000


def test_a_missing_side_gives_no_sample_and_after_sixty_seconds_the_mark_is_the_index(desk: PricedDesk) -> None:
    maker = quoting(desk, 15_090, 15_110)
    desk.feeds(150 * PRICE_SCALE)
    desk.waits(120)
    deviation = desk.deviation()
    assert deviation > PRICE_SCALE // 4
    for order in list(desk.state.subaccounts[maker.subaccount].orders.values()):
        if order.side is ASK:
            maker.cancels(order.order_id)

    desk.waits(59)
    assert desk.deviation() == deviation and desk.mark() > 150 * PRICE_SCALE
    desk.waits(1)
    assert desk.deviation() == 0 and desk.mark() == 150 * PRICE_SCALE

    maker.sells(10, at=15_110)
    desk.waits(1)
    assert desk.deviation() == PRICE_SCALE // 300


def test_in_a_post_only_market_the_mark_is_the_index_until_the_book_opens(desk: PricedDesk) -> None:
    parameters = desk.book.parameters
    desk.attempt(ConfigureMarket(replace(parameters, state=BookState.POST_ONLY)))
    maker = desk.trader("maker")
    maker.buys(10, at=15_090, post_only=True)
    maker.sells(10, at=15_110, post_only=True)
    desk.feeds(150 * PRICE_SCALE)
    desk.waits(100)
    assert desk.mark() == 150 * PRICE_SCALE

    desk.attempt(ConfigureMarket(replace(parameters, state=BookState.OPEN)))
    desk.waits(100)
    assert desk.mark() > 150 * PRICE_SCALE


def test_the_books_mid_is_worth_what_its_usdc_is_worth(desk: PricedDesk) -> None:
    """SOL at 150 USDC with USDC at 0.90 is 135 USD: at that index there is no deviation.   [P-3]"""
    quoting(desk, 14_999, 15_001)
    desk.attempt(SetPrices(((desk.sol, 135 * PRICE_SCALE), (desk.usdc, 90 * CENT))))
    desk.waits(50)

    assert (desk.deviation(), desk.mark()) == (0, 135 * PRICE_SCALE)


# --- several seconds at once   [S-15]


def test_seconds_in_which_nothing_happens_are_one_command_up_to_the_hour(desk: PricedDesk) -> None:
    desk.feeds(150 * PRICE_SCALE)
    assert desk.waits(0) == 0
    hours = (desk.exchange.at_us + 10_000 * SECOND_US) // HOUR_US - desk.exchange.at_us // HOUR_US

    # A command of samples before each hour, the perpetual's funding, the epoch, and the samples after the last.
    assert desk.waits(10_000) == 3 * hours + 1
    commands = [outcome.events for outcome in desk.exchange.outcomes[-2 * hours - 1 :]]
    assert len(commands) == 2 * hours + 1
    assert desk.state.sampled_second == desk.exchange.at_us // SECOND_US


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), seconds=st.integers(1, 900), sided=st.booleans(), live=st.integers(0, 900))
def test_samples_at_once_are_samples_one_by_one(seed: int, seconds: int, sided: bool, live: int) -> None:
    """The same state, byte for byte, however the seconds are cut: also over an index that dies on the way."""
    random = Random(seed)
    desks = PricedDesk(), PricedDesk()
    bid = random.randint(14_000, 15_000)
    dropped = random.random() < 0.5
    for desk in desks:
        desk.listens_to(PriceSource("north", 1, live * 1_000 + 1))
        maker = quoting(desk, bid, bid + 40)
        desk.trader("taker").sells(1, at=bid)
        assert desk.hears(("north", 148 * PRICE_SCALE)) is None
        desk.waits(7)
        if not sided:
            maker.cancels_all()
        elif dropped:
            # One side only, with a deviation to forget.
            maker.cancels(next(iter(desk.state.subaccounts[maker.subaccount].orders)))
    first = desks[0].state.sampled_second
    cuts = sorted(random.sample(range(1, seconds + 1), min(seconds, 20)) + [seconds])
    for desk, steps in zip(desks, (cuts, range(1, seconds + 1)), strict=True):
        done = 0
        for step in steps:
            if step > done:
                desk.exchange.at_us = (first + step) * SECOND_US
                desk.exchange.do(SampleMarks(step - done))
                done = step
        desk.state.sequence = 0

    assert snapshot.dump(desks[0].state) == snapshot.dump(desks[1].state)
    loaded = snapshot.load(snapshot.dump(desks[0].state)).pricing[desks[0].sol]
    live_one = desks[0].state.pricing[desks[0].sol]
    assert (loaded.total, loaded.sampled) == (live_one.total, live_one.sampled)


def test_samples_of_seconds_that_have_not_come_are_refused(desk: PricedDesk) -> None:
    desk.feeds(150 * PRICE_SCALE)
    desk.waits(10)
    for samples in (1, 0, -5):
        rejection = desk.attempt(SampleMarks(samples)).rejection
        assert rejection is not None and rejection.reason is RejectReason.TICK_OUT_OF_ORDER


def test_a_day_of_samples_moves_the_mark_as_a_day_of_seconds_does_and_costs_little(desk: PricedDesk) -> None:
    quoting(desk, 14_000, 14_010)
    desk.feeds(150 * PRICE_SCALE)
    desk.exchange.at_us += 86_400 * SECOND_US
    desk.exchange.do(SampleMarks(86_400))

    goal = 14_005 * CENT - 150 * PRICE_SCALE
    assert desk.deviation() == goal
    assert pricing.mean_mark(desk.state, desk.sol) == desk.mark() == 150 * PRICE_SCALE * 9_875 // 10_000


# --- the mean mark   [M-12, P-12]


def test_the_mean_is_of_the_last_three_hundred_seconds_and_needs_sixty(desk: PricedDesk) -> None:
    desk.feeds(100 * PRICE_SCALE)
    desk.waits(59)
    assert pricing.mean_mark(desk.state, desk.sol) is None is pricing.mean_mark_up(desk.state, desk.sol)
    desk.waits(1)
    assert pricing.mean_mark(desk.state, desk.sol) == 100 * PRICE_SCALE

    desk.feeds(101 * PRICE_SCALE)
    desk.waits(7)
    total = (60 * 100 + 7 * 101) * PRICE_SCALE
    assert pricing.mean_mark(desk.state, desk.sol) == total // 67
    assert pricing.mean_mark_up(desk.state, desk.sol) == -(-total // 67) == total // 67 + 1

    desk.waits(293)
    assert pricing.mean_mark(desk.state, desk.sol) == 101 * PRICE_SCALE


# --- fed by sources   [P-1]


def test_the_index_is_made_of_the_sources_that_are_live(desk: PricedDesk) -> None:
    desk.listens_to(*SOURCES, minimum=2)
    assert desk.hears(("north", 150 * PRICE_SCALE)) is None
    assert not desk.is_live() and not desk.reported(PricesSet), "one source of two needed"

    assert desk.hears(("south", 150 * PRICE_SCALE), ("west", 300 * PRICE_SCALE)) is None
    clamped = 150 * PRICE_SCALE * 1_003 // 1_000
    assert pricing.index_price(desk.state, desk.sol) == (300 * PRICE_SCALE + clamped) // 3
    assert desk.reported(PricesSet) == [PricesSet((desk.sol,))]

    desk.waits(10)
    assert desk.hears(("south", 151 * PRICE_SCALE), ("west", 151 * PRICE_SCALE)) is None
    assert pricing.index_price(desk.state, desk.sol) == 151 * PRICE_SCALE, "north is stale and drops out"


def test_the_index_lives_until_fewer_sources_than_the_minimum_do(desk: PricedDesk) -> None:
    short, long = PriceSource("short", 1, 3_000), PriceSource("long", 1, 60_000)
    for minimum, seconds in ((1, 60), (2, 3)):
        desk.listens_to(short, long, minimum=minimum)
        assert desk.hears(("short", 150 * PRICE_SCALE), ("long", 150 * PRICE_SCALE)) is None
        at_us = desk.exchange.at_us + seconds * SECOND_US
        assert pricing.is_live(desk.state, desk.sol, at_us) and not pricing.is_live(desk.state, desk.sol, at_us + 1)


def test_a_source_without_all_its_data_drops_out(desk: PricedDesk) -> None:
    desk.listens_to(*SOURCES)
    at_us, price = desk.exchange.at_us, 150 * PRICE_SCALE
    for quote in ((0, price, price), (price, 0, price), (price, price, 0)):
        assert desk.attempt(FeedQuotes((Quote(desk.sol, "north", *quote, at_us),))).rejection is None
        assert not desk.is_live()


def test_what_a_source_says_is_refused_when_it_cannot_be(desk: PricedDesk) -> None:
    desk.listens_to(*SOURCES)
    at_us, price = desk.exchange.at_us, 150 * PRICE_SCALE
    assert desk.hears(("north", price)) is None
    before = snapshot.state_hash(desk.state)
    good = Quote(desk.sol, "south", price, price, price, at_us)
    for quote, reason in (
        (replace(good, asset_id=99), RejectReason.UNKNOWN_ASSET),
        (replace(good, source="east"), RejectReason.UNKNOWN_SOURCE),
        (replace(good, asset_id=desk.usdc), RejectReason.UNKNOWN_SOURCE),
        (replace(good, best_bid=-1), RejectReason.INVALID_PRICE),
        (replace(good, best_ask=MAX_PRICE + 1), RejectReason.INVALID_PRICE),
        (replace(good, last=-price), RejectReason.INVALID_PRICE),
        (replace(good, at_us=at_us + SECOND_US), RejectReason.QUOTE_TIME),
        (replace(good, source="north", at_us=at_us - 1), RejectReason.QUOTE_TIME),
        (replace(good, at_us=at_us - 2), RejectReason.QUOTE_TIME),
    ):
        # The good one before it is refused with it: a command is done whole or not at all.
        rejection = desk.attempt(FeedQuotes((good, quote))).rejection
        assert rejection is not None and rejection.reason is reason, quote
        desk.state.sequence -= 1
        assert snapshot.state_hash(desk.state) == before
        desk.exchange.outcomes.pop()


def test_quotes_are_an_operators_except_on_a_devnet(desk: PricedDesk) -> None:
    desk.listens_to(*SOURCES)
    desk.state.devnet = False
    assert desk.hears(("north", PRICE_SCALE)) is RejectReason.UNSIGNED
    quotes = FeedQuotes((Quote(desk.sol, "north", 1, 1, 1, desk.exchange.at_us),))
    refused = desk.attempt(quotes, desk.exchange.signed(b"u" * 32)).rejection
    assert refused is not None and refused.reason is RejectReason.UNKNOWN_KEY

    desk.state.operator_keys = (b"o" * 32,)
    assert desk.attempt(quotes, desk.exchange.signed(b"o" * 32)).rejection is None


# --- a price that goes   [P-2 (3), (4)]


def test_when_the_index_is_stale_the_mark_is_the_books_and_risk_is_closed(desk: PricedDesk) -> None:
    desk.listens_to(*SOURCES)
    quoting(desk, 15_190, 15_210)
    assert desk.hears(("north", 150 * PRICE_SCALE)) is None
    desk.waits(10)
    assert desk.is_live() and desk.mark() < 151 * PRICE_SCALE

    desk.waits(1)
    assert not desk.is_live() and pricing.has_price(desk.state, desk.sol)
    assert desk.mark() == 152 * PRICE_SCALE, "nothing was traded: the mid"
    desk.trader("taker").buys(1, at=15_210)
    desk.waits(1)
    assert desk.mark() == 15_210 * CENT, "the median of bid, ask and last"
    assert not pricing.is_cancel_only(desk.state, desk.book)


def test_without_any_data_the_mark_stays_and_the_book_takes_cancels_only_until_a_price_is_back(
    desk: PricedDesk,
) -> None:
    desk.listens_to(*SOURCES)
    anna = desk.trader("anna")
    order = anna.buys(10, at=14_000)
    assert desk.hears(("north", 150 * PRICE_SCALE)) is None
    desk.waits(70)
    mean = pricing.mean_mark(desk.state, desk.sol)

    assert desk.mark() == 150 * PRICE_SCALE and not pricing.has_price(desk.state, desk.sol)
    assert pricing.is_cancel_only(desk.state, desk.book)
    assert mean is None, "only ten of the seconds had a mark"
    assert anna.is_refused(BID, 14_000, 1) is RejectReason.CANCEL_ONLY_MODE
    assert desk.book.parameters.state is BookState.OPEN
    assert anna.cancels(order.order_id).order_id == order.order_id

    assert desk.hears(("north", 151 * PRICE_SCALE)) is None
    assert pricing.has_price(desk.state, desk.sol) and not pricing.is_cancel_only(desk.state, desk.book)
    assert desk.mark() == 151 * PRICE_SCALE
    assert anna.buys(10, at=14_000).order_id


def test_a_huge_price_and_a_huge_book_stay_within_what_can_be_written(desk: PricedDesk) -> None:
    quoting(desk, 10**8, 10**8 + 1)
    for price in (MAX_PRICE, 1, MAX_PRICE):
        desk.feeds(price)
        assert 0 < desk.mark() <= MAX_PRICE
        desk.waits(400)
        assert snapshot.dump(snapshot.load(snapshot.dump(desk.state))) == snapshot.dump(desk.state)


def test_an_epoch_waits_for_the_samples_of_its_hour(desk: PricedDesk) -> None:
    desk.feeds(150 * PRICE_SCALE)
    next_hour_us = (desk.exchange.at_us // HOUR_US + 1) * HOUR_US
    scheduled = clock.due(desk.state, next_hour_us + 5 * SECOND_US)
    assert scheduled is not None and scheduled[0] == next_hour_us and isinstance(scheduled[1], SampleMarks)
    desk.exchange.at_us = next_hour_us
    desk.exchange.do(scheduled[1])

    funded = clock.due(desk.state, next_hour_us + 5 * SECOND_US)
    assert funded == (next_hour_us, ChargeFunding((desk.exchange.market("SOL_USDC_PERP"),)))
    desk.exchange.do(funded[1])
    scheduled = clock.due(desk.state, next_hour_us + 5 * SECOND_US)
    assert scheduled is not None and scheduled == (next_hour_us, CloseEpoch(desk.state.last_epoch_hour + 1))
