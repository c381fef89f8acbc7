"""Price bands, fees, tiers and what a fill does to the ledger.   [P-10, P-11, F-1 … F-4, A-1, A-3]"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.commands import ConfigureFees, ConfigureMarket, GrantTier, SetPrices
from engine.formulas import bands, collateral, fees
from engine.parameters import PRICE_SCALE, RATE_SCALE, FeeSchedule, FeeTier
from ledger.chart import FEE_INCOME, INSURANCE_FUND
from ledger.journal import JournalKind, decode_memo, encode_memo
from tests.engine.desk import ASK, BID, EXPIRED, IOC, NEW, Desk, ExpiryReason, RejectReason

HOUR_US = 3_600_000_000


@pytest.fixture
def desk() -> Desk:
    return Desk()


# --- limit band   [P-10]


def test_the_limit_band_is_measured_from_the_median_of_bid_ask_and_last(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(10, at=10_000)
    bert.buys(1, at=10_000)
    bert.buys(1, at=6_000)
    # Best bid 6000, best ask 10000, last 10000: active is 10000; the band is 0.25 … 2.

    assert bert.is_refused(BID, 20_001, 1) is RejectReason.PRICE_OUT_OF_BAND
    assert bert.is_refused(BID, 2_499, 1) is RejectReason.PRICE_OUT_OF_BAND
    assert anna.sells(1, at=20_000).status is NEW
    assert bert.buys(1, at=2_500).status is NEW


def test_with_two_prices_the_active_price_lies_between_them(desk: Desk) -> None:
    anna = desk.trader("anna")
    anna.buys(1, at=10_000)
    anna.sells(1, at=10_001)

    # Active is 10000.5, its double 20001.
    assert anna.sells(1, at=20_001).status is NEW
    assert anna.is_refused(ASK, 20_002, 1) is RejectReason.PRICE_OUT_OF_BAND


def test_without_book_or_trades_the_mark_is_the_active_price(desk: Desk) -> None:
    anna = desk.trader("anna")
    desk.exchange.do(SetPrices(((desk.exchange.asset("SOL"), 150 * PRICE_SCALE),)))

    assert anna.is_refused(BID, 30_001, 1) is RejectReason.PRICE_OUT_OF_BAND
    assert anna.buys(1, at=30_000).status is NEW


def test_the_mark_is_in_quote_not_in_usd(desk: Desk) -> None:
    anna = desk.trader("anna")
    prices = ((desk.exchange.asset("SOL"), 150 * PRICE_SCALE), (desk.exchange.asset("USDC"), PRICE_SCALE // 2))
    desk.exchange.do(SetPrices(prices))

    assert anna.is_refused(BID, 60_001, 1) is RejectReason.PRICE_OUT_OF_BAND
    assert anna.buys(1, at=60_000).status is NEW


def test_without_any_price_a_limit_order_can_only_rest(desk: Desk) -> None:
    anna = desk.trader("anna", usdc=10**15)

    assert anna.buys(1, at=10**6).status is NEW
    assert desk.trades() == []


# --- impact band   [P-11]


def test_a_taker_buy_fills_up_to_the_impact_bound_and_the_rest_expires(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    for price in (10_000, 11_000, 11_001):
        anna.sells(1, at=price)
    view = bert.buys(3)

    assert desk.fills() == [(10_000, 1), (11_000, 1)]
    assert (view.status, view.expiry_reason) == (EXPIRED, ExpiryReason.PRICE_IMPACT)


def test_a_taker_sale_fills_down_to_the_impact_bound(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    for price in (10_000, 9_000, 8_999):
        anna.buys(1, at=price)
    view = bert.sells(3)

    assert desk.fills() == [(10_000, 1), (9_000, 1)]
    assert view.expiry_reason is ExpiryReason.PRICE_IMPACT


def test_a_limit_order_through_the_impact_bound_does_not_rest_across_the_book(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    for price in (10_000, 11_001):
        anna.sells(1, at=price)
    view = bert.buys(3, at=12_000)

    assert (view.status, view.executed_lots, view.expiry_reason) == (EXPIRED, 1, ExpiryReason.PRICE_IMPACT)
    assert (desk.bids(), desk.asks()) == ([], [(11_001, 1)])
    assert bert.can_spend("USDC") == bert.has("USDC")


def test_a_limit_order_beyond_the_bound_rests_when_nobody_is_left_to_take(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(1, at=10_000)
    bert.buys(3, at=12_000)

    assert desk.bids() == [(12_000, 2)]


@given(st.integers(1, 10**9), st.integers(0, RATE_SCALE), st.integers(RATE_SCALE, 3 * RATE_SCALE))
def test_the_impact_bound_is_the_last_price_inside_the_band(best: int, least: int, most: int) -> None:
    highest, lowest = bands.buy_impact_bound(best, most), bands.sell_impact_bound(best, least)

    assert highest * RATE_SCALE <= best * most < (highest + 1) * RATE_SCALE
    assert (lowest - 1) * RATE_SCALE < best * least <= lowest * RATE_SCALE


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_the_active_price_is_the_median_of_those_present(bid: int, ask: int, last: int) -> None:
    from statistics import median

    present = [price for price in (bid, ask, last) if price]
    active = bands.active_price(bid, ask, last)

    assert (Fraction(*active) if active else None) == (Fraction(median(present)) if present else None)


# --- fees   [F-1, F-4]


def test_each_side_pays_its_fee_in_what_it_receives(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(10, at=15_000)
    bert.buys(10, at=15_000)
    (trade,) = desk.trades()

    # 0.1 SOL at 8/10 bps: the taker pays 0.0001 SOL, the maker 8 bps of 15 USDC.
    assert (trade.taker_fee_asset_id, trade.taker_fee_atoms) == (desk.exchange.asset("SOL"), 100_000)
    assert (trade.maker_fee_asset_id, trade.maker_fee_atoms) == (desk.exchange.asset("USDC"), 12_000)
    assert bert.has("SOL") == 10**13 + 10**8 - 100_000
    assert anna.has("USDC") == 10**12 + 15_000_000 - 12_000
    assert desk.balance(FEE_INCOME, "SOL") == -100_000
    assert desk.balance(FEE_INCOME, "USDC") == -12_000
    assert desk.is_balanced()


def test_a_seller_who_takes_pays_in_quote_and_its_maker_in_base(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.buys(10, at=15_000)
    bert.sells(10, at=15_000)
    (trade,) = desk.trades()

    assert (trade.taker_fee_asset_id, trade.taker_fee_atoms) == (desk.exchange.asset("USDC"), 15_000)
    assert (trade.maker_fee_asset_id, trade.maker_fee_atoms) == (desk.exchange.asset("SOL"), 80_000)


def test_a_fee_is_rounded_up_to_an_atom(desk: Desk) -> None:
    desk = Desk(genesis="minimal")
    anna, bert = desk.trader("anna", usdc=0, sol=10_000), desk.trader("bert", usdc=10_000, sol=0)
    anna.sells(1, at=5)
    bert.buys(1, at=5)
    (trade,) = desk.trades()

    # 50 cents at 1 % is half a cent: one; 100 thousandths of a SOL at 2 % are two.
    assert (trade.maker_fee_atoms, trade.taker_fee_atoms) == (1, 2)


def test_a_share_of_each_fee_goes_to_the_insurance_fund(desk: Desk) -> None:
    desk.exchange.do(ConfigureFees(msgspec.structs.replace(desk.state.fees, insurance_share=RATE_SCALE // 3)))
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(10, at=15_000)
    bert.buys(10, at=15_000)

    # A third of 100000 and of 12000, rounded down; the rest is fee income.
    assert (desk.balance(INSURANCE_FUND, "SOL"), desk.balance(FEE_INCOME, "SOL")) == (-33_333, -66_667)
    # The share is 0.333333333: of 12000 that is 3999.999996.
    assert (desk.balance(INSURANCE_FUND, "USDC"), desk.balance(FEE_INCOME, "USDC")) == (-3_999, -8_001)
    assert desk.is_balanced()


def test_a_fee_that_takes_all_that_is_received_leaves_no_empty_leg() -> None:
    """Rounding up makes one atom of one atom."""
    desk = Desk("ROWAN_USDC", genesis="minimal")
    anna, bert = desk.trader("anna", usdc=0, sol=0), desk.trader("bert", usdc=10_000, sol=0)
    desk.exchange.deposit(anna.subaccount, "ROWAN", 10)
    anna.sells(1, at=1)
    bert.buys(1, at=1)
    (trade,) = desk.trades()

    assert (trade.maker_fee_atoms, trade.taker_fee_atoms) == (1, 1)
    assert all(atoms for _account, _asset, atoms in desk.last.journal[-1].postings) and desk.is_balanced()


def test_without_fees_a_fill_has_four_postings(desk: Desk) -> None:
    free = (FeeTier("free", 0, 0, 0),)
    desk.exchange.do(ConfigureFees(FeeSchedule(free, free, 0)))
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(10, at=15_000)
    bert.buys(10, at=15_000)
    (entry,) = desk.last.journal

    assert entry.kind == JournalKind.TRADE
    assert len(entry.postings) == 4


def test_each_fill_is_one_journal_transaction_whose_memo_tells_the_trade(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    first, second = anna.sells(4, at=15_000), anna.sells(4, at=15_001)
    taker = bert.buys(8, at=15_001)

    memos = [decode_memo(encode_memo(entry.memo)) for entry in desk.last.journal]
    sol, usdc = desk.exchange.asset("SOL"), desk.exchange.asset("USDC")
    assert memos == [
        [desk.market, 1, 15_000, 4, taker.order_id, first.order_id, bert.subaccount, anna.subaccount, 1, sol, 40_000,
         usdc, 4_800],
        [desk.market, 2, 15_001, 4, taker.order_id, second.order_id, bert.subaccount, anna.subaccount, 1, sol, 40_000,
         usdc, 4_801],
    ]  # fmt: skip


@given(st.integers(0, 10**18), st.integers(0, RATE_SCALE - 1), st.integers(0, RATE_SCALE))
def test_fee_and_share_are_exact(received: int, rate: int, share: int) -> None:
    fee = fees.fee_atoms(received, rate)
    insured = fees.insurance_atoms(fee, share)

    assert 0 <= Fraction(fee) - Fraction(received * rate, RATE_SCALE) < 1
    assert 0 <= Fraction(fee * share, RATE_SCALE) - insured < 1
    assert fee <= received and 0 <= insured <= fee


# --- tiers   [F-2, F-3]


def test_the_tier_changes_at_the_first_trade_of_an_hour(desk: Desk) -> None:
    anna, bert = desk.trader("anna", usdc=10**13), desk.trader("bert", usdc=10**13)
    user = desk.state.subaccounts[bert.subaccount].user
    # 8,000 SOL at 15.00 are 120,000 USD: above the 0.1 M of tier 1.
    anna.sells(800_000, at=1_500)
    bert.buys(800_000, at=1_500)
    anna.sells(10, at=1_500)
    bert.buys(10, at=1_500)

    assert user.spot_tier == 0
    assert desk.trades()[0].taker_fee_atoms == 100_000

    desk.exchange.at_us += HOUR_US
    anna.sells(10, at=1_500)
    bert.buys(10, at=1_500)

    assert user.spot_tier == 1
    assert desk.trades()[0].taker_fee_atoms == 90_000


def test_volume_older_than_thirty_days_is_forgotten(desk: Desk) -> None:
    anna, bert = desk.trader("anna", usdc=10**13), desk.trader("bert", usdc=10**13)
    user = desk.state.subaccounts[bert.subaccount].user
    anna.sells(800_000, at=1_500)
    bert.buys(800_000, at=1_500)
    for hours, tier in ((720, 1), (1, 0)):
        desk.exchange.at_us += hours * HOUR_US
        anna.sells(10, at=1_500)
        bert.buys(10, at=1_500)

        assert user.spot_tier == tier, hours
    assert user.volume_total == sum(user.volume_buckets.values())


def test_volume_is_in_usd_at_the_quotes_mark(desk: Desk) -> None:
    desk.exchange.do(SetPrices(((desk.exchange.asset("USDC"), PRICE_SCALE // 2),)))
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(10, at=15_000)
    bert.buys(10, at=15_000)

    assert desk.state.subaccounts[anna.subaccount].user.volume_total == 15 * 10**8 // 2


def test_the_operators_grant_counts_when_it_is_better(desk: Desk) -> None:
    anna, bert = desk.trader("anna"), desk.trader("bert")
    user = desk.state.subaccounts[bert.subaccount].user
    desk.exchange.do(GrantTier(user.user_id, 10, 10))
    anna.sells(10_000, at=15_000)
    bert.buys(10_000, at=15_000)

    assert desk.trades()[0].taker_fee_atoms == 10_000 * 10_000_000 * 25 // 100_000

    desk.exchange.do(GrantTier(user.user_id, -1, -1))

    assert user.spot_tier == 0
    rejection = desk.attempt(GrantTier(user.user_id, 11, 0)).rejection
    assert rejection is not None and rejection.reason is RejectReason.INVALID_PARAMETERS


def test_the_default_spot_tiers_are_those_of_the_rule_book(desk: Desk) -> None:
    spot = [(tier.volume // 10**8, tier.maker_rate, tier.taker_rate) for tier in desk.state.fees.spot]

    assert spot[0] == (0, 800_000, 1_000_000)
    assert spot[1] == (100_000, 700_000, 900_000)
    assert spot[-1] == (300_000_000, 0, 250_000)
    assert all(a[1] >= b[1] and a[2] >= b[2] for a, b in pairwise(spot))


# --- the rest of the formulas


@given(st.integers(0, 10**15), st.integers(1, 10**18), st.integers(0, RATE_SCALE))
def test_collateral_value_is_rounded_down(atoms: int, price: int, weight: int) -> None:
    value = collateral.value_usd(atoms, 10**9, price, weight)
    exact = Fraction(atoms, 10**9) * Fraction(price, PRICE_SCALE) * Fraction(weight, RATE_SCALE) * 10**8

    assert 0 <= exact - value < 1


def test_the_weight_falls_with_size_as_the_curve_says() -> None:
    # 10,000 SOL: √q = 100, 1.1 / (1 + 0.0005 × 100) = 1.047…, so the cap holds; 1 M SOL: 1.1 / 1.5 = 0.7333…
    def weight(tokens: int) -> int:
        return collateral.weight_at(tokens * 10**9, 10**9, 900_000_000, 1_100_000_000, 500_000)

    assert weight(10_000) == 900_000_000
    assert weight(1_000_000) == 733_333_333


def test_notional_beyond_64_bits_is_refused_not_wrapped(desk: Desk) -> None:
    anna = desk.trader("anna", usdc=2**62)
    parameters = desk.state.markets[desk.market].parameters
    lots = parameters.max_lots
    price = 2**63 // (lots * parameters.tick_value_atoms) + 1

    assert anna.is_refused(BID, price, lots) is RejectReason.INVALID_QUANTITY
    assert anna.is_refused(BID, price - 1, lots, time_in_force=IOC) is RejectReason.INSUFFICIENT_FUNDS


def test_bands_are_parameters_of_the_market(desk: Desk) -> None:
    parameters = desk.state.markets[desk.market].parameters
    narrow = msgspec.structs.replace(parameters.bands, limit_max=1_010_000_000, impact_max=1_000_000_000)
    desk.exchange.do(ConfigureMarket(msgspec.structs.replace(parameters, bands=narrow)))
    anna, bert = desk.trader("anna"), desk.trader("bert")
    anna.sells(1, at=10_000)
    anna.sells(1, at=10_001)

    assert anna.is_refused(ASK, 10_101, 1) is RejectReason.PRICE_OUT_OF_BAND
    assert bert.buys(2).executed_lots == 1
