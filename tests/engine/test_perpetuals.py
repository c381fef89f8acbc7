"""Perpetual orders and fills: contracts and cost, margin of both sides, reduce-only, limits.   [A-2, M-1, M-9, S-7]"""

from __future__ import annotations

from msgspec import structs

from engine import margin, snapshot
from engine.commands import ConfigureMarket, Side
from engine.events import ExpiryReason, OrderStatus, PositionChanged
from engine.parameters import RATE_SCALE, USD_SCALE
from engine.rejections import RejectReason
from ledger.chart import FEE_INCOME, contracts, cost, position
from ledger.journal import JournalKind
from tests.engine.perps import USDC, Pit, cross

BID, ASK = Side.BID, Side.ASK


def test_a_fill_moves_contracts_and_cost_and_nothing_else_but_fees() -> None:
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 1_000)
    outcome = cross(anna, bert, 500, 15_000)

    (entry,) = outcome.journal
    assert entry.kind == JournalKind.PERPETUAL_TRADE
    lot_atoms = pit.book_market.parameters.lot_atoms
    moved = {(account, asset): atoms for account, asset, atoms in entry.postings}
    assert moved[position(anna.subaccount), contracts(pit.market)] == -500 * lot_atoms
    assert moved[position(bert.subaccount), contracts(pit.market)] == 500 * lot_atoms
    # Nothing was settled yet, so cost counts from 0: the buyer owes what it bought for.
    assert moved[position(anna.subaccount), cost(pit.market)] == 750 * USDC
    assert moved[position(bert.subaccount), cost(pit.market)] == -750 * USDC
    # 5 bps of 750 from the taker, 2 from the maker.   [F-3]
    assert anna.usdc == 1_000 * USDC - 375_000 and bert.usdc == 1_000 * USDC - 150_000
    assert moved[FEE_INCOME, pit.state.usdc] in (-375_000, -150_000)
    assert pit.book_market.open_interest == 500
    assert pit.is_balanced()


def test_equity_counts_what_a_position_gained_and_margin_its_notional() -> None:
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 1_000)
    cross(anna, bert, 500, 15_000)
    pit.price(160)

    # 5 SOL, 10 dollars up; fees of 0.375.   [C-5]
    sums = anna.sums()
    assert sums.equity == (1_000 + 50) * USD_SCALE - 37_500_000
    assert sums.notional == 800 * USD_SCALE
    assert sums.initial == 80 * USD_SCALE, "1 / leverage limit 10"
    assert sums.maintenance == 20 * USD_SCALE, "2.5 %"
    losing = bert.sums()
    assert losing.equity == (1_000 - 50) * USD_SCALE - 15_000_000
    assert losing.maintenance == 20 * USD_SCALE, "what it holds in USDC covers what it is going to owe"


def test_an_unpaid_loss_beyond_the_usdc_at_hand_is_exposure_in_usdc() -> None:
    pit = Pit()
    anna = pit.member("anna", 10, ETH=10 * 10**9)
    bert = pit.member("bert", 10_000)
    pit.price(4_000, "ETH")
    cross(anna, bert, 500, 15_000)
    pit.price(100)

    sums = anna.sums()
    # 250 lost, 10 less the fee of 0.375 at hand: 240.375 are going to be borrowed.   [M-1]
    owed = 250 * USD_SCALE - (10 * USD_SCALE - 37_500_000)
    assert sums.notional == 500 * USD_SCALE + owed
    assert sums.maintenance == 500 * USD_SCALE * 25 // 1_000 + owed // 100
    # Also for whom an order would reduce: no USDC that the next tick takes buys anything back without a new exposure.
    found = margin.exposures(pit.state, anna.account, pit.exchange.at_us)
    assert found[pit.state.usdc] == owed // 100
    spends = {pit.state.usdc: (-USDC, 0, 0, 0)}
    assert margin.exposures(pit.state, anna.account, pit.exchange.at_us, spends)[pit.state.usdc] == owed // 100 + USDC


def test_an_order_needs_more_than_its_initial_margin_its_fee_and_its_loss() -> None:
    pit = Pit()
    anna = pit.member("anna", 100)
    # 100 dollars carry a notional of 1,000 at 10 x; the fee of 5 bps comes off.
    assert anna.trade(BID, 666, 15_000).rejection is not None
    most = next(lots for lots in range(666, 0, -1) if anna.trade(BID, lots, 15_000).rejection is None)
    notional = most * 15_000 * 100
    assert 100 * USDC - -(-notional * 5 // 10_000) > notional // 10
    more = notional + 15_000 * 100
    assert 100 * USDC - -(-more * 5 // 10_000) <= more // 10


def test_both_sides_of_open_orders_count_once() -> None:
    pit = Pit()
    anna = pit.member("anna", 1_000)
    anna.trade(BID, 100, 14_900)
    anna.trade(ASK, 60, 15_100)
    assert margin.exposures(pit.state, anna.account, pit.exchange.at_us)[contracts(pit.market)] == 100
    anna.trade(ASK, 60, 15_100)
    assert margin.exposures(pit.state, anna.account, pit.exchange.at_us)[contracts(pit.market)] == 120
    anna.cancels_all()
    assert anna.position is None and not anna.account.margined


def test_reduce_only_reduces_and_never_turns_a_position_around() -> None:
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 1_000)
    rejection = anna.trade(ASK, 5, 15_000, reduce_only=True).rejection
    assert rejection is not None and rejection.reason is RejectReason.REDUCE_ONLY
    cross(anna, bert, 100, 15_000)

    bert.trade(BID, 200, 14_990)
    view = anna.trade(ASK, 150, 14_990, reduce_only=True).reply
    assert anna.lots == 0 and bert.lots == 0
    assert view.executed_lots == 100 and view.status is OrderStatus.EXPIRED
    assert view.expiry_reason is ExpiryReason.REDUCE_ONLY_NOT_REDUCED
    assert pit.book_market.open_interest == 0


def test_a_resting_reduce_only_order_that_nothing_is_left_for_makes_way() -> None:
    pit = Pit()
    anna, bert, carl = pit.member("anna", 1_000), pit.member("bert", 1_000), pit.member("carl", 1_000)
    cross(anna, bert, 100, 15_000)
    anna.trade(ASK, 100, 15_010, reduce_only=True)
    carl.trade(BID, 100, 15_000)
    anna.trade(ASK, 100, 15_000)
    assert anna.lots == 0
    outcome = bert.trade(BID, 10, 15_010)
    assert outcome.rejection is None and not pit.fills()
    assert anna.position is None


def test_a_position_remembers_entry_fees_and_what_it_closed() -> None:
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 1_000)
    cross(anna, bert, 100, 15_000)
    cross(anna, bert, 100, 15_100)
    assert anna.position is not None
    assert anna.position.entry_atoms == 301 * USDC
    cross(bert, anna, 50, 15_200)
    assert anna.position.entry_atoms == 301 * USDC * 3 // 4 and anna.position.closed_lots == 50
    first = anna.position.position_id
    cross(bert, anna, 250, 15_200)
    assert anna.lots == -100 and anna.position.position_id != first
    assert anna.position.entry_atoms == 152 * USDC and anna.position.traded == 152 * USDC
    changes = [event.change for event in pit.last.events if isinstance(event, PositionChanged)]
    assert changes.count(3) == 2 and changes.count(1) == 2, "both turned around: closed, and opened anew"


def test_a_maker_that_lost_its_margin_expires_and_matching_goes_on() -> None:
    pit = Pit()
    poor, rich, taker = pit.member("poor", 100), pit.member("rich", 10_000), pit.member("taker", 10_000)
    poor.trade(ASK, 600, 15_000)
    rich.trade(ASK, 600, 15_010)
    pit.exchange.do(ConfigureMarket(structs.replace(pit.book_market.parameters, perpetual=structs.replace(
        pit.book_market.parameters.perpetual, imf_base=RATE_SCALE // 2, mmf_base=RATE_SCALE // 10,
        mark_bound=10_000_000))))
    pit.state.marks_version += 1
    taker.trade(BID, 600, 15_010)
    assert poor.lots == 0 and rich.lots == -600
    assert not poor.account.orders


def test_limits_on_one_position_and_on_all_of_them() -> None:
    pit = Pit()
    parameters = pit.book_market.parameters
    perpetual = structs.replace(parameters.perpetual, position_limit_lots=100, open_interest_limit_lots=150)
    pit.exchange.do(ConfigureMarket(structs.replace(parameters, perpetual=perpetual)))
    anna, bert, carl, dora = (pit.member(name, 10_000) for name in ("anna", "bert", "carl", "dora"))
    rejection = anna.trade(BID, 101, 15_000).rejection
    assert rejection is not None and rejection.reason is RejectReason.POSITION_LIMIT
    cross(anna, bert, 100, 15_000)
    carl.trade(ASK, 100, 15_000)
    view = dora.trade(BID, 100, 15_000).reply
    assert view.expiry_reason is ExpiryReason.POSITION_LIMIT and pit.book_market.open_interest == 100
    cross(bert, anna, 50, 14_990)
    assert pit.book_market.open_interest == 50, "what only reduces passes"


def test_a_taker_without_usdc_for_its_fee_is_refused() -> None:
    pit = Pit()
    anna, bert = pit.member("anna", 0, SOL=100 * 10**9), pit.member("bert", 10_000)
    bert.trade(ASK, 100, 15_000)
    view = anna.trade(BID, 100, 15_000).reply
    assert view.expiry_reason is ExpiryReason.INSUFFICIENT_FUNDS and anna.lots == 0, "nobody lends USDC"


def test_the_state_loads_as_it_was() -> None:
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 1_000)
    cross(anna, bert, 100, 15_000)
    anna.trade(ASK, 30, 15_100, reduce_only=True)
    bert.trade(ASK, 30, 15_200)
    content = snapshot.dump(pit.state)
    loaded = snapshot.load(content)
    assert snapshot.dump(loaded) == content
    twin = loaded.subaccounts[bert.subaccount]
    assert margin.sums(loaded, twin, pit.exchange.at_us) == bert.sums()
    assert twin.positions[pit.market].sells == 30
    assert loaded.subaccounts[anna.subaccount].positions[pit.market].reducing == 1
