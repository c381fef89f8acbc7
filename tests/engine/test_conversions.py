"""Collateral sold for USDC that nothing else pays: in which order, how much, down to which price.   [S-12 (4)]"""

from __future__ import annotations

from typing import Any

import pytest

from engine.commands import Origin, Side, UpdateAccount
from engine.events import OrderAccepted, SettlementMoved, Trade
from tests.engine.perps import USDC, Member, Pit, cross

SOL = 10**9
ETH = 10**9


class Hall(Pit):
    """A pit with a spot book for SOL, and one for ETH, where a bidder stands."""

    def __init__(self) -> None:
        super().__init__()
        self.price(3_000, "ETH")
        self.perpetual = self.market
        self.bidder = self.member("bidder", 10_000_000)
        self.spot = {name: self.exchange.market(f"{name}_USDC") for name in ("SOL", "ETH")}

    def bids_for(self, name: str, ticks: int, lots: int) -> None:
        self.market = self.spot[name]
        self.bidder.buys(lots, ticks)
        self.market = self.perpetual

    def conversions(self, outcomes: list[Any]) -> list[tuple[int, int, int]]:
        """(market, price in ticks, lots) of what the exchange sold."""
        return [
            (event.market_id, event.price_ticks, event.lots)
            for outcome in outcomes
            for event in outcome.events
            if isinstance(event, Trade)
            and event.taker.terms is not None
            and event.taker.terms.origin is Origin.COLLATERAL_CONVERSION
        ]


def short_of_usdc(hall: Hall, **assets: int) -> Member:
    """Long 10 SOL at 150 with 1 USDC and collateral; it borrows nothing for settlements."""
    debtor = hall.member("debtor", 1, **assets)
    other = hall.member("other", 10_000)
    debtor.does(UpdateAccount(debtor.subaccount, auto_borrow_settlements=False))
    cross(debtor, other, 1_000, 15_000)
    hall.exchange.advance(10)
    return debtor


@pytest.fixture
def hall() -> Hall:
    return Hall()


def test_the_fewest_lots_that_cover_the_loss_with_their_fee_are_sold(hall: Hall) -> None:
    debtor = short_of_usdc(hall, SOL=40 * SOL)
    hall.bids_for("SOL", 14_850, 100_000)
    before = debtor.usdc
    hall.price(148)
    outcomes = hall.exchange.advance(10)
    ((market, price, lots),) = hall.conversions(outcomes)
    assert (market, price) == (hall.spot["SOL"], 14_850)
    owed = 20 * USDC - before
    lot = 14_850 * 100
    assert lots * lot > owed and (lots - 3) * lot < owed, (lots, owed)
    assert debtor.account.unsettled == 0
    assert not hall.exchange.state.unsettled
    told = [e for o in outcomes for e in o.events if isinstance(e, SettlementMoved) and e.source == "conversion"]
    assert [(each.subaccount_id, each.atoms >= owed) for each in told] == [(debtor.subaccount, True)]


def test_lent_collateral_is_redeemed_for_it(hall: Hall) -> None:
    debtor = short_of_usdc(hall, SOL=40 * SOL)
    debtor.does(UpdateAccount(debtor.subaccount, auto_lend=True))
    hall.bids_for("SOL", 14_850, 100_000)
    hall.price(148)
    outcomes = hall.exchange.advance(10)
    assert hall.conversions(outcomes) and debtor.account.unsettled == 0


def test_nothing_is_sold_below_the_index_floor(hall: Hall) -> None:
    """Best bid 144, index 148: 0.98 × 148 = 145.04 is more than anybody bids.   [S-12 (4)]"""
    debtor = short_of_usdc(hall, SOL=40 * SOL)
    hall.bids_for("SOL", 14_400, 100_000)
    hall.price(148)
    outcomes = hall.exchange.advance(10)
    assert hall.conversions(outcomes) == []
    assert debtor.account.unsettled < 0
    orders = [
        e.order for o in outcomes for e in o.events
        if isinstance(e, OrderAccepted) and e.order.subaccount_id == debtor.subaccount
    ]
    assert {(each.side, each.price_ticks) for each in orders} == {(Side.ASK, 14_504)}
    # Retried at each tick: when somebody bids enough, it is paid.
    hall.bids_for("SOL", 14_800, 100_000)
    hall.exchange.advance(10)
    assert debtor.account.unsettled == 0


def test_the_asset_of_the_greater_weight_and_value_goes_first(hall: Hall) -> None:
    debtor = short_of_usdc(hall, SOL=2 * SOL, ETH=ETH)
    weights = {name: hall.exchange.state.assets[hall.exchange.asset(name)].weight for name in ("SOL", "ETH")}
    for name, ticks in (("SOL", 14_850), ("ETH", 299_000)):
        hall.bids_for(name, ticks, 10_000)
    hall.price(148)
    sold = hall.conversions(hall.exchange.advance(10))
    first = max(("SOL", "ETH"), key=lambda name: (weights[name], {"SOL": 296, "ETH": 3_000}[name]))
    assert sold[0][0] == hall.spot[first]
    assert debtor.account.unsettled == 0


def test_what_one_asset_does_not_cover_the_next_does(hall: Hall) -> None:
    debtor = short_of_usdc(hall, SOL=SOL, ETH=ETH)
    hall.bids_for("ETH", 299_000, 1)
    hall.bids_for("SOL", 14_850, 10_000)
    hall.price(148)
    sold = hall.conversions(hall.exchange.advance(10))
    assert {market for market, _price, _lots in sold} == set(hall.spot.values())
    assert debtor.account.unsettled == 0


def test_who_borrows_for_settlements_sells_nothing_while_the_pool_lends(hall: Hall) -> None:
    lender = hall.member("lender", 1_000_000)
    lender.does(UpdateAccount(lender.subaccount, auto_lend=True))
    debtor = short_of_usdc(hall, SOL=40 * SOL)
    debtor.does(UpdateAccount(debtor.subaccount, auto_borrow_settlements=True))
    hall.bids_for("SOL", 14_850, 100_000)
    hall.price(148)
    assert hall.conversions(hall.exchange.advance(10)) == []
    assert hall.exchange.state.usdc in debtor.account.debts and debtor.account.unsettled == 0
