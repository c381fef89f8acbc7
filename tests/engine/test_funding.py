"""Funding of a running exchange: when it is charged, who pays whom, that it comes out at nothing.   [P-20 … P-22]"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from engine import clock, funding, snapshot
from engine.commands import BorrowLend, ChargeFunding, Command, ConfigureMarket, LendingSide, SampleMarks
from engine.events import FundingCharged, Outcome
from engine.parameters import PRICE_SCALE, RATE_SCALE, BookState
from engine.state import ASSET_BITS, Market
from ledger.chart import ROUNDING, AccountKind, account_id, cost
from ledger.journal import JournalKind, JournalTransaction
from tests.engine.desk import ASK, BID, RejectReason
from tests.engine.perps import Member, Pit, cross

HOUR_US = 3_600_000_000


@pytest.fixture
def pit() -> Pit:
    """It begins when an hour does: the interval before, of nobody's, is charged already."""
    pit = Pit()
    pit.exchange.at_us = (pit.exchange.at_us // HOUR_US + 1) * HOUR_US
    while (due := clock.due(pit.state, pit.exchange.at_us)) is not None:
        pit.exchange.do(due[1])
    return pit


def passes(pit: Pit, seconds: int) -> list[FundingCharged]:
    """Let time pass; gives the intervals that ended."""
    outcomes = pit.exchange.advance(seconds)
    return [event for outcome in outcomes for event in outcome.events if isinstance(event, FundingCharged)]


def charged(outcomes: list[Outcome]) -> list[JournalTransaction]:
    return [entry for outcome in outcomes for entry in outcome.journal if entry.kind == JournalKind.FUNDING]


def configures(pit: Pit, state: BookState | None = None, **perpetual: Any) -> None:
    parameters = pit.book_market.parameters
    assert parameters.perpetual is not None
    changed = replace(parameters, perpetual=replace(parameters.perpetual, **perpetual))
    pit.exchange.do(ConfigureMarket(changed if state is None else replace(changed, state=state)))


def quoting(pit: Pit, bid: int, ask: int) -> Member:
    maker = pit.member("maker", 10**6)
    assert maker.trade(BID, 1_000, bid).rejection is None
    assert maker.trade(ASK, 1_000, ask).rejection is None
    return maker


def funding_of(market: Market) -> dict[int, int]:
    return {number: held.funding for number, held in market.holders.items()}


def in_costs(pit: Pit) -> dict[int, int]:
    """Who holds how much of the market's cost asset, debits positive."""
    asset = cost(pit.market)
    mask = (1 << ASSET_BITS) - 1
    return {key >> ASSET_BITS: atoms for key, atoms in pit.state.balances.items() if key & mask == asset and atoms}


# --- what is charged   [P-20, P-21]


def test_an_hour_without_a_premium_costs_the_longs_an_eighth_of_the_interest(pit: Pit) -> None:
    """Worked by hand: 0.03 % / 24 / 8 = 0.00015625 %, as a rate 1562; 1000 lots at 1.5 USDC: 2343 atoms."""
    anna, bert = pit.member("anna", 10_000), pit.member("bert", 10_000)
    cross(anna, bert, 1_000, 15_000)
    before = pit.book_market.funding_index
    (event,) = passes(pit, 3_600)

    assert (event.market_id, event.rate, event.premium) == (pit.market, 1_562, 0)
    assert (event.mark, event.interval_end_us % HOUR_US) == (150 * PRICE_SCALE, 0)
    assert event.index == str(before + 1_562 * 1_500_000 * 1_000) == str(pit.book_market.funding_index)
    assert funding_of(pit.book_market) == {anna.subaccount: -2_343, bert.subaccount: 2_343}


def test_a_premium_of_a_tenth_of_a_percent_costs_what_the_clamp_leaves_of_it(pit: Pit) -> None:
    """P-20: 0.1 % + clamp(0.00125 % − 0.1 %, ± 0.05 %) = 0.05 %, over 8: a rate of 62500."""
    anna, bert = pit.member("anna", 10_000), pit.member("bert", 10_000)
    cross(anna, bert, 1_000, 15_000)
    market = pit.book_market
    market.pricing.deviation = 15 * PRICE_SCALE // 100
    quoting(pit, 15_010, 15_020)
    (event,) = passes(pit, 3_600)

    assert (event.rate, event.premium) == (62_500, 1_000_000)
    # 62500e-9 × 1.5015 USDC × 1000 lots = 93843.75 atoms: the charge is rounded up, the credit down.
    assert event.mark == 15_015 * PRICE_SCALE // 100
    assert funding_of(market)[anna.subaccount] == -93_844
    assert funding_of(market)[bert.subaccount] == 93_843
    assert charged(pit.exchange.outcomes)[-1].postings == [(ROUNDING, cost(pit.market), -1)]


@pytest.mark.parametrize(("mid", "sign"), [(15_100, 1), (14_900, -1)])
def test_whose_price_is_above_the_index_pays(pit: Pit, mid: int, sign: int) -> None:
    anna, bert = pit.member("anna", 10_000), pit.member("bert", 10_000)
    cross(anna, bert, 100, 15_000)
    quoting(pit, mid - 5, mid + 5)
    (event,) = passes(pit, 3_600)

    assert event.rate * sign > 0 and event.premium * sign > 0
    assert funding_of(pit.book_market)[anna.subaccount] * sign < 0 < funding_of(pit.book_market)[bert.subaccount] * sign


def test_the_rate_stays_within_the_markets_bounds(pit: Pit) -> None:
    configures(pit, funding_upper_bps=1, premium_divisor=1)
    quoting(pit, 15_295, 15_305)
    cross(pit.member("anna", 10_000), pit.member("bert", 10_000), 1, 15_200)
    (event,) = passes(pit, 3_600)

    assert event.rate == 100_000 < event.premium


def test_an_interval_in_which_nothing_could_be_sampled_charges_nothing(pit: Pit) -> None:
    cross(pit.member("anna", 10_000), pit.member("bert", 10_000), 100, 15_000)
    premium = pit.book_market.premium
    pit.exchange.advance(3_599)
    premium.total = premium.samples = 0
    pit.state.pricing[pit.base].live_until_us = 0
    outcomes = pit.exchange.advance(1)

    assert [event.rate for outcome in outcomes for event in outcome.events if isinstance(event, FundingCharged)] == [0]
    assert not charged(outcomes) and funding.mean_premium(pit.book_market) is None


def test_what_is_foretold_is_what_is_charged_if_nothing_changes(pit: Pit) -> None:
    quoting(pit, 15_040, 15_060)
    pit.exchange.advance(3_599)
    market = pit.book_market
    assert market.premium.samples == 3_599
    pit.exchange.at_us += 1_000_000
    pit.exchange.do(SampleMarks(1))
    foretold, premium = funding.running_rate(market), funding.mean_premium(market)
    (event,) = passes(pit, 0)

    assert (event.rate, event.premium) == (foretold, premium) and foretold > 1_562
    assert (market.funding_rate, market.premium.total, market.premium.samples) == (foretold, 0, 0)


# --- when   [P-20, S-15]


def test_intervals_end_at_multiples_of_their_length_each_market_its_own(pit: Pit) -> None:
    pit.price(3_000, "ETH")
    eth = pit.exchange.market("ETH_USDC_PERP")
    configures(pit, funding_interval_ms=1_200_000)
    events = passes(pit, 7_200)

    assert [(event.market_id, event.interval_end_us % HOUR_US // 60_000_000) for event in events] == [
        (pit.market, 20), (pit.market, 40), (pit.market, 0), (eth, 0),
    ] * 2  # fmt: skip


def test_funding_comes_after_the_samples_and_the_interest_of_its_moment(pit: Pit) -> None:
    anna, bert = pit.member("anna", 10_000), pit.member("bert", 10_000)
    anna.does(BorrowLend(anna.subaccount, pit.state.usdc, LendingSide.LEND, 10**9))
    cross(anna, bert, 100, 15_000)
    at_us = pit.book_market.next_funding_us
    ran: list[Command] = []
    while (due := clock.due(pit.state, at_us)) is not None:
        if due[0] == at_us:
            ran.append(due[1])
        pit.exchange.at_us = due[0]
        pit.exchange.do(due[1])
    names = [type(command).__name__ for command in ran]

    assert names.index("SampleMarks") < names.index("AccrueInterest") < names.index("ChargeFunding")
    assert names.index("ChargeFunding") < names.index("SettlePositions") < names.index("UpdateThrottle")
    assert names.index("UpdateThrottle") < names.index("CloseEpoch")
    assert anna.position is not None and anna.position.cost == 0 > anna.position.funding, "the same moment's tick"


def test_hours_that_were_missed_are_charged_one_by_one_each_at_its_time(pit: Pit) -> None:
    cross(pit.member("anna", 10_000), pit.member("bert", 10_000), 100, 15_000)
    events = passes(pit, 3 * 3_600 + 5)

    assert [event.interval_end_us // HOUR_US - events[0].interval_end_us // HOUR_US for event in events] == [0, 1, 2]


def test_funding_that_is_not_due_is_refused(pit: Pit) -> None:
    for command in (ChargeFunding((pit.market,)), ChargeFunding(())):
        rejection = pit.attempt(command).rejection
        assert rejection is not None and rejection.reason is RejectReason.TICK_OUT_OF_ORDER
    pit.exchange.at_us = pit.state.funding_due_us
    for markets in ((), (1,), (pit.market, pit.market)):
        rejection = pit.attempt(ChargeFunding(markets)).rejection
        assert rejection is not None and rejection.reason is RejectReason.TICK_OUT_OF_ORDER
    assert pit.attempt(ChargeFunding((pit.market,))).rejection is None
    rejection = pit.attempt(ChargeFunding((pit.market,))).rejection
    assert rejection is not None and rejection.reason is RejectReason.TICK_OUT_OF_ORDER


# --- nothing is made and nothing is lost   [P-21, A-13]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_paid_is_received_to_the_atom(seed: int) -> None:
    chance = Random(seed)
    pit = Pit()
    people = [pit.member(f"trader {number}", 10**6) for number in range(12)]
    for _ in range(40):
        buyer, seller = chance.sample(people, 2)
        cross(buyer, seller, chance.randint(1, 900), chance.randint(14_900, 15_100))
        pit.exchange.advance(chance.choice((1, 30, 1_000)))
        pit.price(150 + chance.randint(-30, 30) / 100)
        for each in people:
            each.cancels_all()
    outcomes = pit.exchange.advance(2 * 3_600)
    market = pit.book_market

    assert sum(held.lots for held in market.holders.values()) == 0
    assert sum(in_costs(pit).values()) == 0
    entries = charged(outcomes)
    assert entries and all(sum(batch.total for batch in entry.batches) > 0 for entry in entries)
    for entry in entries:
        (batch,) = entry.batches
        assert batch.account_kind == AccountKind.POSITION and batch.asset == cost(pit.market)
        assert batch.total < len(batch.owners), "less than an atom each"
        assert batch.total + sum(atoms for _account, _asset, atoms in entry.postings) == 0
    for number, held in market.holders.items():
        assert -in_costs(pit).get(account_id(AccountKind.POSITION, number), 0) == held.cost
    assert snapshot.dump(snapshot.load(snapshot.dump(pit.state))) == snapshot.dump(pit.state)


def test_a_position_of_nothing_pays_nothing_and_stays_out_of_the_journal(pit: Pit) -> None:
    anna, bert, carl = (pit.member(name, 10_000) for name in ("anna", "bert", "carl"))
    cross(anna, bert, 100, 15_000)
    cross(bert, carl, 100, 14_900)
    assert bert.lots == 0
    (event,) = passes(pit, 3_600)

    assert event.rate > 0
    (entry,) = charged(pit.exchange.outcomes)
    assert [int(owner) for owner in entry.batches[0].owners] == [anna.subaccount, carl.subaccount]


def test_the_index_is_what_each_lot_has_paid_since(pit: Pit) -> None:
    """P-21: payment = the index's growth × lots, each time rounded against the holder."""
    anna, bert = pit.member("anna", 10_000), pit.member("bert", 10_000)
    cross(anna, bert, 777, 15_000)
    quoting(pit, 15_020, 15_030)
    before = pit.book_market.funding_index
    paid = len(passes(pit, 5 * 3_600))
    grown = pit.book_market.funding_index - before
    received = funding_of(pit.book_market)

    assert paid == 5 and grown > 0
    assert 0 <= -received[anna.subaccount] * 10**12 - grown * 777 < paid * 10**12
    assert 0 <= grown * 777 - received[bert.subaccount] * 10**12 < paid * 10**12


def test_a_column_of_many_holders_is_charged_as_each_alone(pit: Pit) -> None:
    chance = Random(7)
    people = [pit.member(f"trader {number}", 10**5) for number in range(60)]
    chance.shuffle(people)
    for buyer, seller in zip(people[::2], people[1::2], strict=True):
        cross(buyer, seller, chance.randint(1, 500), 15_000)
    lots = {held.subaccount.subaccount_id: held.lots for held in pit.book_market.holders.values()}
    (event,) = passes(pit, 3_600)

    expected = {number: -event.rate * 1_500_000 * each // RATE_SCALE for number, each in lots.items()}
    assert funding_of(pit.book_market) == expected
    (batch,) = charged(pit.exchange.outcomes)[-1].batches
    assert {number: -batch.atoms_of(number) for number in expected} == expected
