"""Index and mark prices: fed by hand or by sources, sampled every second, read by everything that values.

A mark is made where something tells a price (SetPrices, FeedQuotes) and every second (SampleMarks), nowhere else, so
reading one is a look into a dict. A perpetual has a mark of its own, by the same rule from its own book; its price is
in USDC and numerically the index in USD.   [P-1, P-2, P-3]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine import funding
from engine.commands import FeedQuotes, Quote, SampleMarks, SetPrices
from engine.events import MarketsPriced, MarksChanged, Outcome, PricesSet
from engine.fees import USDC
from engine.formulas import prices as formulas
from engine.formulas.funding import premium as premium_of
from engine.formulas.prices import SILENT_SECONDS
from engine.parameters import MAX_PRICE, PRICE_SCALE, BookState, IndexParameters, MarketType
from engine.rejections import Rejection, RejectReason
from engine.state import MARK_SAMPLES, AssetPricing, Market, Premium, State
from ledger.amounts import INT64_MAX, mul_div_down, mul_div_up

SECOND_US = 1_000_000
MEAN_SAMPLES = 60
"""Fewer samples of the last 300 seconds than this make no mean.   [P-13]"""


def mark_price(state: State, asset_id: int) -> int:
    """An asset's mark in PRICE_SCALE USD, 0 when it has none. USDC's is 1 unless an index is fed.   [P-2, P-3]"""
    return state.marks.get(asset_id) or _price_of_usdc(state, asset_id)


def index_price(state: State, asset_id: int) -> int:
    """An asset's index in PRICE_SCALE USD, stale or not, 0 when there was none. USDC's is 1 unless fed.   [P-1, P-3]"""
    return state.prices.get(asset_id) or _price_of_usdc(state, asset_id)


def is_live(state: State, asset_id: int, at_us: int) -> bool:
    """Whether the asset has an index that is not stale; USDC that never had one is worth 1, and live.   [P-1, P-3]"""
    if asset_id in state.prices:
        return at_us <= state.pricing[asset_id].live_until_us
    return _price_of_usdc(state, asset_id) > 0


def has_price(state: State, asset_id: int) -> bool:
    """False while nothing of P-2 has data: then who holds the asset is not liquidated and takes no value out.   [P-2]

    Also False for an asset that never had an index: it has no mark at all.
    """
    if asset_id in state.prices:
        return state.pricing[asset_id].has_data
    return _price_of_usdc(state, asset_id) > 0


def is_cancel_only(state: State, market: Market) -> bool:
    """Whether the book takes cancels only because nothing of P-2 has data for its price.   [P-2]

    Of a spot market: its base asset had a price and has none any more. A perpetual opens with its first mark.
    """
    parameters = market.parameters
    if parameters.perpetual is not None:
        return not market.pricing.has_data
    pricing = state.pricing.get(parameters.base_asset_id)
    if pricing is None or pricing.has_data or parameters.base_asset_id not in state.prices:
        return False
    return state.assets[parameters.quote_asset_id].symbol == USDC


def mean_mark(state: State, asset_id: int) -> int | None:
    """Mean of the marks of the last 300 seconds, rounded down: for longs and collateral; None below 60 samples.

    [M-12, P-12]
    """
    pricing = state.pricing.get(asset_id)
    return mean_of(pricing) if pricing is not None else None


def mean_mark_up(state: State, asset_id: int) -> int | None:
    """Mean of the marks of the last 300 seconds, rounded up: for shorts and debts; None below 60 samples.   [M-12]"""
    pricing = state.pricing.get(asset_id)
    return mean_of_up(pricing) if pricing is not None else None


def mean_of(pricing: AssetPricing) -> int | None:
    """Mean of the last 300 seconds' marks, rounded down; None below 60 samples: of assets and perpetuals.   [M-12]"""
    return mul_div_down(pricing.total, 1, pricing.sampled) if pricing.sampled >= MEAN_SAMPLES else None


def mean_of_up(pricing: AssetPricing) -> int | None:
    """The same rounded up: for shorts and debts.   [M-12]"""
    return mul_div_up(pricing.total, 1, pricing.sampled) if pricing.sampled >= MEAN_SAMPLES else None


def set_prices(state: State, command: SetPrices, outcome: Outcome) -> None:
    """Feed index prices by hand: on a devnet each lives until replaced, elsewhere for a limited time.   [P-1, W-9]"""
    for asset_id, price in command.prices:
        if asset_id not in state.assets:
            raise Rejection(RejectReason.UNKNOWN_ASSET, field="asset", asset_id=asset_id)
        if not 0 < price <= MAX_PRICE:
            raise Rejection(RejectReason.INVALID_PRICE, asset_id=asset_id, price=price, maximum=MAX_PRICE)

    # From here the command succeeds.
    at_us = outcome.at_us
    live_until_us = INT64_MAX
    if not state.devnet:
        live_until_us = min(INT64_MAX, at_us + state.limits.hand_price_stale_ms * 1_000)
    for asset_id, price in command.prices:
        _set_index(state, asset_id, price, at_us, live_until_us)
    outcome.events.append(PricesSet(tuple(asset_id for asset_id, _price in command.prices)))
    _remark(state, {asset_id for asset_id, _price in command.prices}, outcome)


def feed_quotes(state: State, command: FeedQuotes, outcome: Outcome) -> None:
    """Keep each source's newest quote and make the index of those that are live; too few leave the old one.   [P-1]"""
    newest: dict[tuple[int, str], int] = {}
    for quote in command.quotes:
        _require_quote(state, quote, outcome.at_us, newest)

    # From here the command succeeds.
    for quote in command.quotes:
        _pricing(state, quote.asset_id).quotes[quote.source] = quote
    fed = []
    for asset_id in sorted({quote.asset_id for quote in command.quotes}):
        parameters = state.assets[asset_id].index
        assert parameters is not None, f"asset {asset_id} has quotes and no sources"
        if _feed_index(state, asset_id, parameters, outcome.at_us):
            fed.append(asset_id)
    if fed:
        outcome.events.append(PricesSet(tuple(fed)))
        _remark(state, fed, outcome)


def sample_marks(state: State, command: SampleMarks, outcome: Outcome) -> None:
    """Seconds have passed: sample mid − index of each priced asset's book, move its mark, keep that too.   [P-2, P-12]

    `samples` seconds at once are what they would be one by one: nothing happened in between.
    """
    samples, first = command.samples, state.sampled_second + 1
    last = first + samples - 1
    if samples < 1 or last > outcome.at_us // SECOND_US:
        raise Rejection(
            RejectReason.TICK_OUT_OF_ORDER,
            sampled_second=state.sampled_second,
            samples=samples,
            second=outcome.at_us // SECOND_US,
        )

    # From here the command succeeds.
    state.sampled_second = last
    books, perpetuals = _usdc_markets(state), _perpetuals(state)
    moved = _Moved([], [])
    for asset_id in _usdc_first(state, state.prices):
        if _sample(state, _asset(state, asset_id, books.get(asset_id)), first, samples):
            moved.assets.append(asset_id)
        for market in perpetuals.get(asset_id, ()):
            if _sample(state, _perpetual(state, market), first, samples):
                moved.markets.append(market.parameters.market_id)
    _report(state, moved, outcome)


def mark_listed(state: State, market: Market, outcome: Outcome) -> None:
    """A perpetual of an asset that has a price already has a mark from its first moment on.   [P-2]"""
    if market.parameters.base_asset_id in state.prices:
        moved = _Moved([], [])
        _remark_perpetuals(state, [market], outcome.at_us, moved)
        _report(state, moved, outcome)


def _price_of_usdc(state: State, asset_id: int) -> int:
    return PRICE_SCALE if state.assets[asset_id].symbol == USDC else 0


def _pricing(state: State, asset_id: int) -> AssetPricing:
    pricing = state.pricing.get(asset_id)
    if pricing is None:
        pricing = state.pricing[asset_id] = AssetPricing()
    return pricing


def _set_index(state: State, asset_id: int, price: int, at_us: int, live_until_us: int) -> None:
    if not state.prices:
        # The seconds before the first price have nothing to sample.
        state.sampled_second = at_us // SECOND_US
    state.prices[asset_id] = price
    state.price_at_us[asset_id] = at_us
    _pricing(state, asset_id).live_until_us = live_until_us


def _require_quote(state: State, quote: Quote, now_us: int, newest: dict[tuple[int, str], int]) -> None:
    """Of a known source, sane, from the past, no older than the source's last one.   [P-1]"""
    asset_id, source = quote.asset_id, quote.source
    asset = state.assets.get(asset_id)
    if asset is None:
        raise Rejection(RejectReason.UNKNOWN_ASSET, field="asset", asset_id=asset_id)
    sources = asset.index.sources if asset.index is not None else ()
    if not any(known.name == source for known in sources):
        raise Rejection(RejectReason.UNKNOWN_SOURCE, asset_id=asset_id, source=source[:40])
    for price in (quote.best_bid, quote.best_ask, quote.last):
        if not 0 <= price <= MAX_PRICE:
            raise Rejection(RejectReason.INVALID_PRICE, asset_id=asset_id, price=price, maximum=MAX_PRICE)
    key = (asset_id, source)
    pricing = state.pricing.get(asset_id)
    before = pricing.quotes.get(source) if pricing is not None else None
    least = newest.get(key, before.at_us if before is not None else 0)
    if not least <= quote.at_us <= now_us:
        raise Rejection(
            RejectReason.QUOTE_TIME, asset_id=asset_id, source=source, at_us=quote.at_us, least=least, most=now_us
        )
    newest[key] = quote.at_us


def _feed_index(state: State, asset_id: int, parameters: IndexParameters, now_us: int) -> bool:
    """Make the index anew from the live sources; False when they are fewer than the minimum.   [P-1]

    It is live until so many of them are stale that fewer than the minimum are left.
    """
    quotes = state.pricing[asset_id].quotes
    sources, expiries = [], []
    for source in parameters.sources:
        quote = quotes.get(source.name)
        if quote is None or not (quote.best_bid and quote.best_ask and quote.last):
            continue
        expires_us = quote.at_us + source.stale_ms * 1_000
        if expires_us >= now_us:
            middle = formulas.median((quote.best_bid, quote.best_ask, quote.last))
            sources.append((middle, source.weight))
            expiries.append(expires_us)
    if len(sources) < parameters.minimum_sources:
        return False
    expiries.sort(reverse=True)
    price = formulas.index_price(sources, parameters.clamp)
    _set_index(state, asset_id, price, now_us, expiries[parameters.minimum_sources - 1])
    return True


class _Subject(NamedTuple):
    """What is marked: an asset by its X_USDC spot market, if it has one; a perpetual by its own book.   [P-2, P-3]"""

    asset_id: int
    perpetual: Market | None
    pricing: AssetPricing
    book: Market | None
    index_price: int
    live_until_us: int
    quote_price: int
    """What one unit of the book's quote is worth in the mark's own unit, in PRICE_SCALE."""
    bound: int
    quantum: int


class _Moved(NamedTuple):
    """What has another mark now: assets, and perpetuals by their markets."""

    assets: list[int]
    markets: list[int]


def _asset(state: State, asset_id: int, book: Market | None) -> _Subject:
    pricing, index = state.pricing[asset_id], state.prices[asset_id]
    if book is None:
        return _Subject(asset_id, None, pricing, None, index, pricing.live_until_us, PRICE_SCALE, 0, 1)
    parameters = book.parameters
    return _Subject(
        asset_id,
        None,
        pricing,
        book,
        index,
        pricing.live_until_us,
        mark_price(state, parameters.quote_asset_id),
        parameters.mark_bound,
        formulas.mark_quantum(parameters),
    )


def _perpetual(state: State, market: Market) -> _Subject:
    parameters = market.parameters
    base, perpetual = parameters.base_asset_id, parameters.perpetual
    assert perpetual is not None, f"market {parameters.market_id} is no perpetual"
    return _Subject(
        base,
        market,
        market.pricing,
        market,
        state.prices[base],
        state.pricing[base].live_until_us,
        PRICE_SCALE,
        perpetual.mark_bound,
        formulas.mark_quantum(parameters),
    )


def _usdc_first(state: State, asset_ids: Iterable[int]) -> list[int]:
    """By id, but USDC before what is quoted in it.   [P-3]"""
    return sorted(asset_ids, key=lambda asset_id: (state.assets[asset_id].symbol != USDC, asset_id))


def _usdc_markets(state: State) -> dict[int, Market]:
    """Asset → its X_USDC spot market.   [P-3]"""
    markets = {}
    for market in state.markets.values():
        parameters = market.parameters
        if parameters.type == MarketType.SPOT and state.assets[parameters.quote_asset_id].symbol == USDC:
            markets[parameters.base_asset_id] = market
    return markets


def _perpetuals(state: State) -> dict[int, list[Market]]:
    """Asset → the perpetuals whose index it gives.   [P-2]"""
    markets: dict[int, list[Market]] = {}
    for market in state.markets.values():
        if market.parameters.perpetual is not None:
            markets.setdefault(market.parameters.base_asset_id, []).append(market)
    return markets


def _remark(state: State, asset_ids: Iterable[int], outcome: Outcome) -> None:
    """The marks after the index of these assets changed; the deviation waits for the next second.   [P-2]"""
    books, perpetuals = _usdc_markets(state), _perpetuals(state)
    moved = _Moved([], [])
    for asset_id in _usdc_first(state, asset_ids):
        one = _asset(state, asset_id, books.get(asset_id))
        if _set_mark(state, one, _mark(one, outcome.at_us <= one.live_until_us)):
            moved.assets.append(asset_id)
        _remark_perpetuals(state, perpetuals.get(asset_id, ()), outcome.at_us, moved)
    _report(state, moved, outcome, asset_ids)


def _remark_perpetuals(state: State, markets: Iterable[Market], at_us: int, moved: _Moved) -> None:
    for market in markets:
        one = _perpetual(state, market)
        if _set_mark(state, one, _mark(one, at_us <= one.live_until_us)):
            moved.markets.append(market.parameters.market_id)
            if not market.next_funding_us:
                funding.start(state, market, at_us)


def _report(state: State, moved: _Moved, outcome: Outcome, indexed: Iterable[int] = ()) -> None:
    """`indexed`: assets whose index was set, whether their marks moved or not."""
    # The bands follow the index and the means, which move also where no mark does.
    state.valuations.bounds.clear()
    if moved.assets or moved.markets:
        state.marks_version += 1
        outcome.events.append(MarksChanged(tuple(sorted(moved.assets)), tuple(sorted(moved.markets))))
    bases, markets = {*moved.assets, *indexed}, set(moved.markets)
    rows = tuple(
        (number, _mark_of(state, market), index_price(state, market.parameters.base_asset_id))
        for number, market in state.markets.items()
        if (market.parameters.base_asset_id in bases or number in markets) and _mark_of(state, market)
    )
    if rows:
        outcome.events.append(MarketsPriced(rows))


def _mark_of(state: State, market: Market) -> int:
    parameters = market.parameters
    return mark_price(state, parameters.base_asset_id) if parameters.perpetual is None else market.mark


def _set_mark(state: State, one: _Subject, mark: int) -> bool:
    """Whether the mark is another one now; without any data (0) it stays.   [P-2]"""
    one.pricing.has_data = mark > 0
    market = one.perpetual
    if not mark or mark == (market.mark if market is not None else state.marks.get(one.asset_id)):
        return False
    if market is None:
        state.marks[one.asset_id] = mark
    else:
        market.mark, market.mark_lot = mark, formulas.lot_value(market.parameters, mark)
    return True


def _sample(state: State, one: _Subject, first: int, samples: int) -> bool:
    """Sample seconds `first` …: those while the index lives, then those after. Whether the mark moved."""
    live = min(max(one.live_until_us // SECOND_US - first + 1, 0), samples)
    moved = _sample_live(state, one, first, live) if live else False
    if live < samples:
        # Nothing of what the mark is made of changes any more: all these seconds have the same.
        _pass_silently(one.pricing, samples - live)
        mark = _mark(one, False)
        _record(one.pricing, first + live, mark, samples - live)
        _record_premium(one, first + live, None, samples - live)
        moved = _set_mark(state, one, mark) or moved
    return moved


def _sample_live(state: State, one: _Subject, first: int, samples: int) -> bool:
    """Seconds with a live index, one by one until the moving average stands still; only the last 300 are kept.

    A perpetual's premium counts in every second, since its funding is a mean over the whole interval.   [P-2, P-20]
    """
    pricing = one.pricing
    mid, mark = _mid(one), 0
    for second in range(first, first + samples):
        before = pricing.deviation
        if mid:
            pricing.deviation = formulas.next_deviation(before, mid, one.index_price)
            pricing.silent_seconds = 0
        else:
            _pass_silently(pricing, 1)
        left = first + samples - 1 - second
        is_still = pricing.deviation == before and (mid > 0 or pricing.silent_seconds == SILENT_SECONDS)
        if is_still or left < MARK_SAMPLES or one.perpetual is not None:
            mark, seconds = _mark(one, True), left + 1 if is_still else 1
            _record(pricing, second, mark, seconds)
            _record_premium(one, second, premium_of(mark, one.index_price), seconds)
        if is_still:
            break
    return _set_mark(state, one, mark)


def _pass_silently(pricing: AssetPricing, seconds: int) -> None:
    """Seconds without a sample; after 60 the deviation starts again at 0.   [P-2]"""
    pricing.silent_seconds = min(pricing.silent_seconds + seconds, SILENT_SECONDS)
    if pricing.silent_seconds == SILENT_SECONDS:
        pricing.deviation = 0


def _record(pricing: AssetPricing, second: int, mark: int, seconds: int) -> None:
    """The mark of `seconds` seconds from `second` on; 0 for none: those of 300 seconds before are overwritten."""
    marks = pricing.marks
    if not marks:
        marks.extend([0] * MARK_SAMPLES)
    begin = second + max(0, seconds - MARK_SAMPLES)
    for each in range(begin, second + seconds):
        slot = each % MARK_SAMPLES
        old = marks[slot]
        marks[slot] = mark
        pricing.total += mark - old
        pricing.sampled += (mark > 0) - (old > 0)


def _record_premium(one: _Subject, second: int, sample: int | None, seconds: int) -> None:
    """The premium of `seconds` seconds from `second` on; None without a live index.   [P-13, P-20]

    A spot market keeps its base asset's, for its band; what has no book has no premium either.
    """
    if one.book is None:
        return
    premium: Premium = one.book.premium
    if sample is not None and one.perpetual is not None:
        premium.total += sample * seconds
        premium.samples += seconds
    kept = premium.last300
    if not kept:
        kept.extend([None] * MARK_SAMPLES)
    begin = second + max(0, seconds - MARK_SAMPLES)
    for each in range(begin, second + seconds):
        slot = each % MARK_SAMPLES
        old = kept[slot]
        kept[slot] = sample
        premium.total300 += (sample or 0) - (old or 0)
        premium.sampled += (sample is not None) - (old is not None)


def _mid(one: _Subject) -> int:
    """Best bid + best ask, halved; 0 while a side is missing or the book has not opened.   [P-2]"""
    market = one.book
    if market is None or market.parameters.state == BookState.POST_ONLY:
        return 0
    bid, ask = market.book.bids.best_price_ticks(), market.book.asks.best_price_ticks()
    if not bid or not ask:
        return 0
    return min(formulas.mid_price(bid, ask, market.parameters.tick_price, one.quote_price), MAX_PRICE)


def _mark(one: _Subject, live: bool) -> int:
    """The first of P-2's prices that has its data, bounded and on the market's grid; 0 when none has.   [P-2]"""
    market = one.book
    if not live:
        mark = _book_mark(market, one.quote_price) if market is not None else 0
    else:
        mark = one.index_price
        if market is not None and market.parameters.state != BookState.POST_ONLY:
            mark = formulas.bounded_mark(mark + one.pricing.deviation, mark, one.bound)
    if not mark or market is None:
        return mark
    return formulas.on_grid(min(mark, MAX_PRICE // one.quantum * one.quantum), one.quantum)


def _book_mark(market: Market, quote_price: int) -> int:
    """Without an index: median of {best bid, best ask, last trade}, else the mid; 0 without both sides.   [P-2]"""
    parameters, book = market.parameters, market.book
    bid, ask, last = book.bids.best_price_ticks(), book.asks.best_price_ticks(), market.last_price_ticks
    if not bid or not ask:
        return 0
    if last:
        return formulas.book_price(formulas.median((bid, ask, last)), parameters.tick_price, quote_price)
    return formulas.mid_price(bid, ask, parameters.tick_price, quote_price)
