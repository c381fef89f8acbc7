"""Requests for quotes: asked, quoted, accepted, and what a price off the mark is held to.   [S-7, M-12]"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from engine.commands import (
    AcceptQuote,
    BorrowLend,
    CancelRfq,
    ConfigureMarket,
    ExpireRfqs,
    LendingSide,
    RefreshRfq,
    SetPrices,
    SubmitQuote,
    SubmitRfq,
)
from engine.events import PositionChanged, QuoteView, RfqChanged, RfqView
from engine.parameters import PRICE_SCALE, BookState
from engine.rfq import LIFETIME_US, OPEN_LIMIT
from ledger.journal import JournalKind
from tests.engine.desk import ASK, BID, CANCELLED, EXPIRED, FILLED, NEW, Desk, RejectReason, Trader


class Parlour:
    """SOL at 150 USD, a requester and two makers; prices in cents."""

    def __init__(self, market: str = "SOL_USDC") -> None:
        self.desk = Desk(market)
        self.alice = self.desk.trader("alice")
        self.bob = self.desk.trader("bob")
        self.carol = self.desk.trader("carol")
        sol = self.desk.exchange.asset("SOL")
        self.desk.exchange.do(SetPrices(((sol, 150 * PRICE_SCALE),)))
        self.desk.exchange.advance(1)

    def asks(self, side: Any = BID, lots: int = 100, who: Trader | None = None, **fields: Any) -> RfqView:
        trader = who or self.alice
        view: RfqView = trader.does(SubmitRfq(trader.subaccount, self.desk.market, side, lots, **fields)).reply
        return view

    def quotes(self, who: Trader, rfq: RfqView, bid: int, ask: int, **fields: Any) -> QuoteView:
        view: QuoteView = who.does(SubmitQuote(who.subaccount, rfq.rfq_id, bid, ask, **fields)).reply
        return view

    def accepts(self, quote: QuoteView, who: Trader | None = None) -> RfqView:
        trader = who or self.alice
        view: RfqView = trader.does(AcceptQuote(trader.subaccount, quote.quote_id)).reply
        return view

    def refused(self, who: Trader, command: Any) -> RejectReason:
        rejection = who.tries(command).rejection
        assert rejection is not None, "the command was accepted"
        return rejection.reason

    def changes(self) -> list[str]:
        return [event.change for event in self.desk.reported(RfqChanged)]


@pytest.fixture
def parlour() -> Parlour:
    return Parlour()


def test_the_best_quote_fills_in_one_journal_transaction(parlour: Parlour) -> None:
    rfq = parlour.asks()
    assert rfq.status is NEW and parlour.changes() == ["rfqAccepted", "rfqActive"]
    worse = parlour.quotes(parlour.bob, rfq, 14_990, 15_020)
    assert parlour.changes() == ["quoteAccepted", "rfqCandidate"]
    best = parlour.quotes(parlour.carol, rfq, 14_980, 15_000)
    assert parlour.changes() == ["quoteAccepted", "rfqCandidate"]
    refused = parlour.refused(parlour.alice, AcceptQuote(parlour.alice.subaccount, worse.quote_id))
    assert refused is RejectReason.RFQ_STATE
    usdc, sol = parlour.alice.has("USDC"), parlour.alice.has("SOL")
    view = parlour.accepts(best)
    assert (view.status, view.fill_price_ticks, view.filled_lots) == (FILLED, 15_000, 100)
    assert [entry.kind for entry in parlour.desk.last.journal] == [JournalKind.RFQ_TRADE]
    assert parlour.changes() == ["quoteCancelled", "rfqFilled"]
    parameters = parlour.desk.state.markets[parlour.desk.market].parameters
    assert usdc - parlour.alice.has("USDC") == 100 * 15_000 * parameters.tick_value_atoms
    filled = parlour.desk.reported(RfqChanged)[-1]
    assert parlour.alice.has("SOL") - sol == 100 * parameters.lot_atoms - filled.fee_atoms
    assert filled.fee_atoms and filled.quoter_fee_atoms
    assert not parlour.desk.state.rfqs and not parlour.desk.state.rfq_due_us
    # It moves no last price, and nobody sees it on the tape.
    market = parlour.desk.state.markets[parlour.desk.market]
    assert market.last_price_ticks == 0 and market.next_trade_id == 1 and not parlour.desk.trades()
    assert parlour.desk.is_balanced()


def test_a_seller_takes_the_highest_bid(parlour: Parlour) -> None:
    rfq = parlour.asks(ASK)
    parlour.quotes(parlour.bob, rfq, 14_990, 15_020)
    best = parlour.quotes(parlour.carol, rfq, 15_000, 15_030)
    assert parlour.accepts(best).fill_price_ticks == 15_000
    assert parlour.desk.is_balanced()


def test_of_equal_quotes_the_first_is_best(parlour: Parlour) -> None:
    rfq = parlour.asks()
    first = parlour.quotes(parlour.bob, rfq, 14_990, 15_000)
    second = parlour.quotes(parlour.carol, rfq, 14_990, 15_000)
    assert parlour.refused(parlour.alice, AcceptQuote(parlour.alice.subaccount, second.quote_id)) is (
        RejectReason.RFQ_STATE
    )
    assert parlour.accepts(first).status is FILLED


def test_by_quote_quantity_the_price_decides_the_lots(parlour: Parlour) -> None:
    rfq = parlour.asks(lots=0, quote_atoms=1_000 * 10**6)
    view = parlour.accepts(parlour.quotes(parlour.bob, rfq, 14_990, 15_001))
    assert view.filled_lots == 1_000 * 10**6 // (15_001 * 100)


def test_an_immediate_request_is_filled_by_the_first_quote_within_its_price(parlour: Parlour) -> None:
    rfq = parlour.asks(immediate=True, price_ticks=15_000)
    assert parlour.quotes(parlour.bob, rfq, 14_990, 15_001).status is NEW
    assert parlour.quotes(parlour.carol, rfq, 14_990, 15_000).status is FILLED
    assert "rfqFilled" in parlour.changes() and not parlour.desk.state.rfqs


def test_an_immediate_request_that_cannot_pay_ends(parlour: Parlour) -> None:
    poor = parlour.desk.trader("poor", usdc=10**6)
    rfq = parlour.asks(who=poor, immediate=True)
    quoted = parlour.quotes(parlour.bob, rfq, 14_990, 15_000)
    assert quoted.status is CANCELLED and not parlour.desk.state.rfqs
    assert parlour.desk.reported(RfqChanged)[-1].rfq.status is EXPIRED


def test_a_maker_that_cannot_stand_for_its_quote(parlour: Parlour) -> None:
    empty = parlour.desk.trader("empty", sol=0)
    rfq = parlour.asks()
    bad = parlour.quotes(empty, rfq, 14_900, 14_990)
    good = parlour.quotes(parlour.bob, rfq, 14_900, 15_000)
    assert parlour.accepts(bad).status is NEW
    assert parlour.changes() == ["quoteCancelled", "rfqCandidate"]
    assert parlour.accepts(good).status is FILLED
    rfq = parlour.asks(immediate=True)
    refused = parlour.refused(empty, SubmitQuote(empty.subaccount, rfq.rfq_id, 14_900, 14_990))
    assert refused is RejectReason.INSUFFICIENT_FUNDS and rfq.rfq_id in parlour.desk.state.rfqs


def test_requests_end_after_their_time_and_refreshing_begins_it_anew(parlour: Parlour) -> None:
    rfq = parlour.asks()
    parlour.quotes(parlour.bob, rfq, 14_990, 15_000)
    parlour.desk.exchange.advance(30)
    again = parlour.alice.does(RefreshRfq(parlour.alice.subaccount, rfq.rfq_id)).reply
    assert again.expires_at_us == parlour.desk.state.at_us + LIFETIME_US
    assert parlour.changes() == ["quoteCancelled", "rfqRefreshed", "rfqActive"]
    parlour.desk.exchange.advance(59)
    assert rfq.rfq_id in parlour.desk.state.rfqs
    parlour.desk.exchange.advance(2)
    assert not parlour.desk.state.rfqs and not parlour.desk.state.rfq_due_us
    assert parlour.desk.attempt(ExpireRfqs()).rejection is not None


def test_cancel_by_id_and_by_client_id(parlour: Parlour) -> None:
    first, second = parlour.asks(), parlour.asks(client_id=7)
    assert parlour.asks(client_id=7) == second
    other = SubmitRfq(parlour.alice.subaccount, parlour.desk.market, BID, 101, client_id=7)
    assert parlour.refused(parlour.alice, other) is RejectReason.DUPLICATE_CLIENT_ID
    number = parlour.alice.subaccount
    assert parlour.alice.does(CancelRfq(number, first.rfq_id)).reply.status is CANCELLED
    assert parlour.alice.does(CancelRfq(number, client_id=7)).reply.status is CANCELLED
    assert parlour.refused(parlour.alice, CancelRfq(number, first.rfq_id)) is RejectReason.UNKNOWN_RFQ
    assert parlour.refused(parlour.alice, CancelRfq(number)) is RejectReason.INVALID_ORDER
    assert parlour.refused(parlour.bob, SubmitQuote(parlour.bob.subaccount, first.rfq_id, 1, 2)) is (
        RejectReason.UNKNOWN_RFQ
    )


def test_a_makers_new_quote_takes_the_place_of_its_last(parlour: Parlour) -> None:
    rfq = parlour.asks()
    old = parlour.quotes(parlour.bob, rfq, 14_990, 15_000)
    new = parlour.quotes(parlour.bob, rfq, 14_990, 15_010)
    refused = parlour.refused(parlour.alice, AcceptQuote(parlour.alice.subaccount, old.quote_id))
    assert refused is RejectReason.UNKNOWN_QUOTE
    assert parlour.accepts(new).fill_price_ticks == 15_010


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lots": 0}, RejectReason.INVALID_QUANTITY),
        ({"lots": 1, "quote_atoms": 1}, RejectReason.INVALID_QUANTITY),
        ({"lots": 10**15}, RejectReason.INVALID_QUANTITY),
        ({"price_ticks": -1}, RejectReason.INVALID_PRICE),
        ({"client_id": 1 << 32}, RejectReason.INVALID_ORDER),
    ],
)
def test_what_cannot_be_asked_is_refused(parlour: Parlour, fields: dict[str, Any], reason: RejectReason) -> None:
    command = structs.replace(SubmitRfq(parlour.alice.subaccount, parlour.desk.market, BID, 100), **fields)
    assert parlour.refused(parlour.alice, command) is reason


def test_nobody_quotes_for_the_own_user_and_prices_are_sane(parlour: Parlour) -> None:
    """The self-trade rule where there is no order to choose between: never."""
    rfq = parlour.asks()
    own = SubmitQuote(parlour.alice.subaccount, rfq.rfq_id, 14_990, 15_000)
    assert parlour.refused(parlour.alice, own) is RejectReason.RFQ_STATE
    for bid, ask in ((0, 15_000), (15_000, 14_999), (-1, 1)):
        command = SubmitQuote(parlour.bob.subaccount, rfq.rfq_id, bid, ask)
        assert parlour.refused(parlour.bob, command) is RejectReason.INVALID_PRICE


def test_the_limit_of_open_requests(parlour: Parlour) -> None:
    for _each in range(OPEN_LIMIT):
        parlour.asks()
    command = SubmitRfq(parlour.alice.subaccount, parlour.desk.market, BID, 1)
    assert parlour.refused(parlour.alice, command) is RejectReason.ORDER_LIMIT


def test_closing_the_market_ends_requests(parlour: Parlour) -> None:
    parlour.asks()
    market = parlour.desk.state.markets[parlour.desk.market]
    parlour.desk.exchange.do(ConfigureMarket(structs.replace(market.parameters, state=BookState.CLOSED)))
    assert not parlour.desk.state.rfqs
    command = SubmitRfq(parlour.alice.subaccount, parlour.desk.market, BID, 1)
    assert parlour.refused(parlour.alice, command) is RejectReason.MARKET_CLOSED


def test_who_gives_value_away_off_the_mark_satisfies_m12(parlour: Parlour) -> None:
    """A borrower whose equity backs a debt cannot hand it to an accomplice by a price."""
    dora = parlour.desk.trader("dora", usdc=20_000 * 10**6, sol=0)
    parlour.desk.exchange.deposit(parlour.carol.subaccount, "SOL", 10**13)
    sol, usdc = parlour.desk.exchange.asset("SOL"), parlour.desk.exchange.asset("USDC")
    parlour.carol.does(BorrowLend(parlour.carol.subaccount, sol, LendingSide.LEND, 5 * 10**12))
    parlour.carol.does(BorrowLend(parlour.carol.subaccount, usdc, LendingSide.LEND, 5 * 10**11))
    # Short 500 SOL (75,000 USD) on 20,000 USDC.
    parlour.desk.exchange.do(SetPrices(((sol, 150 * PRICE_SCALE),)))
    bid = parlour.carol.buys(50_000, at=15_000)
    dora.sells(50_000, at=15_000, auto_borrow=True)
    assert bid.order_id and parlour.desk.state.subaccounts[dora.subaccount].debts
    rfq = parlour.asks(BID, 10_000, dora)
    # 100 SOL bought for 200 USD each gives 5,000 USD away: more than there is beside the margin.
    off = parlour.quotes(parlour.bob, rfq, 14_990, 35_000)
    command = AcceptQuote(dora.subaccount, off.quote_id)
    assert parlour.refused(dora, command) is RejectReason.INSUFFICIENT_MARGIN
    # At the mark the same purchase lowers her exposure, and passes.
    near = parlour.quotes(parlour.bob, rfq, 14_990, 15_000)
    assert parlour.accepts(near, dora).status is FILLED
    assert parlour.desk.is_balanced()


def test_off_the_mark_counts_at_the_worst_of_three_prices(parlour: Parlour) -> None:
    """SOL was at 180 for most of five minutes: a short that M-5 lets be at 150 may give nothing away.   [M-12]"""
    exchange = parlour.desk.exchange
    sol, usdc = exchange.asset("SOL"), exchange.asset("USDC")
    exchange.do(SetPrices(((sol, 180 * PRICE_SCALE),)))
    exchange.advance(200)
    exchange.do(SetPrices(((sol, 150 * PRICE_SCALE),)))
    exchange.advance(1)
    dora = parlour.desk.trader("dora", usdc=20_000 * 10**6, sol=0)
    for asset, atoms in ((sol, 5 * 10**12), (usdc, 5 * 10**11)):
        parlour.carol.does(BorrowLend(parlour.carol.subaccount, asset, LendingSide.LEND, atoms))
    parlour.carol.buys(50_000, at=15_000)
    dora.sells(50_000, at=15_000, auto_borrow=True)
    rfq = parlour.asks(BID, 100, dora)
    off = parlour.quotes(parlour.bob, rfq, 14_990, 15_001)
    rejection = dora.tries(AcceptQuote(dora.subaccount, off.quote_id)).rejection
    assert rejection is not None and rejection.reason is RejectReason.INSUFFICIENT_MARGIN
    assert rejection.facts["at_worst_prices"] == 1
    near = parlour.quotes(parlour.bob, rfq, 14_990, 15_000)
    assert parlour.accepts(near, dora).status is FILLED


def test_a_perpetual_is_filled_by_a_quote() -> None:
    room = Parlour("SOL_USDC_PERP")
    rfq = room.asks(BID, 100)
    view = room.accepts(room.quotes(room.bob, rfq, 14_990, 15_010))
    assert view.status is FILLED and view.filled_lots == 100
    state, market = room.desk.state, room.desk.market
    sizes = [state.subaccounts[each.subaccount].positions[market].lots for each in (room.alice, room.bob)]
    assert sizes == [100, -100] and state.markets[market].open_interest == 100
    assert len(room.desk.reported(PositionChanged)) == 2
    assert [entry.kind for entry in room.desk.last.journal] == [JournalKind.RFQ_TRADE]
    # And closed again.
    rfq = room.asks(ASK, 100)
    room.accepts(room.quotes(room.bob, rfq, 15_000, 15_010))
    assert state.markets[market].open_interest == 0
    room.desk.exchange.advance(10)
    assert room.desk.is_balanced()


def test_on_a_perpetual_off_the_mark_is_held_to_m12() -> None:
    room = Parlour("SOL_USDC_PERP")
    thin = room.desk.trader("thin", usdc=2_000 * 10**6, sol=0)
    rfq = room.asks(BID, 10_000, thin)
    # 100 SOL at 150 needs 1,500 at 10x; at 160 it loses 1,000 of 2,000 at once.
    off = room.quotes(room.bob, rfq, 14_000, 16_000)
    refused = room.refused(thin, AcceptQuote(thin.subaccount, off.quote_id))
    assert refused is RejectReason.INSUFFICIENT_MARGIN
    near = room.quotes(room.bob, rfq, 14_000, 15_000)
    assert room.accepts(near, thin).status is FILLED
