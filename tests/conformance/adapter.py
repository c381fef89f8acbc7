"""Our matching behind tracebook's NDJSON protocol: `python -m tests.conformance.adapter` is the candidate command.

Orders go through `engine.orders` on a bare state whose owners are rich and whose bands are wide, so that the judge sees
the matching rules and nothing else. Its `replace` is cancel and new, as ours is for clients; `reduce` in place exists
nowhere in our contract, so the adapter lowers the resting order itself.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from itertools import count
from typing import Any

from tracebook.conformance.model import (
    BookSnapshot,
    BookState,
    ConformanceConfig,
    EngineMetadata,
    Observation,
    RestingOrder,
    TradeFill,
    canonical_decimal,
)
from tracebook.conformance.model import Outcome as Judged
from tracebook.conformance.protocol import serve_stdio
from tracebook.core.order import OrderSide, SelfTradePolicy
from tracebook.core.order import OrderType as JudgesType
from tracebook.events import MarketEvent

from engine import orders
from engine.book import Book, queue
from engine.commands import CancelOrder, OrderType, PlaceOrder, SelfTrade, Side, TimeInForce
from engine.events import Outcome, Trade
from engine.parameters import (
    RATE_SCALE,
    AssetParameters,
    BandParameters,
    FeeSchedule,
    FeeTier,
    Limits,
    MarketParameters,
    MarketType,
    WeightKind,
)
from engine.parameters import BookState as OurBookState
from engine.posting import reserve
from engine.rejections import Rejection, RejectReason
from engine.state import Market, Order, State, Subaccount, User, balance_key
from ledger.chart import available

LOT_DECIMALS = 8
BASE, QUOTE = 2, 1
NOBODY = 0
"""The judge's owner of orders that belong to nobody: no two of them are of the same user."""
KINDS = {
    JudgesType.LIMIT: (OrderType.LIMIT, TimeInForce.GTC),
    JudgesType.MARKET: (OrderType.MARKET, TimeInForce.IOC),
    JudgesType.IOC: (OrderType.LIMIT, TimeInForce.IOC),
    JudgesType.FOK: (OrderType.LIMIT, TimeInForce.FOK),
}


class Refused(Exception):
    """Why an event has no effect, in the judge's words."""


class Adapter:
    """One engine for one trace."""

    def __init__(self, config: ConformanceConfig) -> None:
        if config.matching_algorithm != "fifo":
            raise ValueError("Satchel matches by price and time; pro rata does not apply")
        self.metadata = EngineMetadata("satchel", "0.1.0", "Python")
        self.config = config
        self.state = State()
        self.state.fees = FeeSchedule((FeeTier("free", 0, 0, 0),), (FeeTier("free", 0, 0, 0),), 0)
        self.state.limits = Limits(open_orders_per_subaccount=10**9)
        for asset, decimals in ((QUOTE, 0), (BASE, 0)):
            self.state.assets[asset] = AssetParameters(
                asset, f"A{asset}", "", decimals, 1, False, 0, WeightKind.IDENTITY, 0, 0, 0, 0, 0, 0
            )
        self.symbols: dict[str, int] = {}
        self.owners: dict[int, int] = {}
        self.owner_of: dict[int, int] = {}
        self.source: dict[int, int] = {}
        self.live: dict[tuple[str, int], Order] = {}
        self.numbers = count(1)
        policy = config.self_trade_policy
        self.is_keyed = policy is not SelfTradePolicy.NONE
        cancels_resting = policy is SelfTradePolicy.CANCEL_RESTING
        self.self_trade = SelfTrade.REJECT_MAKER if cancels_resting else SelfTrade.REJECT_TAKER

    def apply(self, event: MarketEvent, index: int) -> Observation:
        outcome = Outcome(index, index)
        try:
            self.perform(event, outcome)
            judged = Judged("applied")
        except Refused as refused:
            judged = Judged("rejected", str(refused), str(refused))
        # Filled and withdrawn orders are gone from the engine's own table.
        self.live = {key: order for key, order in self.live.items() if order.order_id in self.state.orders}
        state = self.snapshot()
        return Observation(index, judged, tuple(self.fills(outcome)), state.digest(), state.order_count)

    def perform(self, event: MarketEvent, outcome: Outcome) -> None:
        known = event.symbol in self.symbols
        if event.op == "clear":
            self.open_market(event.symbol)
            for (symbol, _number), order in list(self.live.items()):
                if symbol == event.symbol:
                    self.cancel(order, outcome)
            return
        order = self.live.get((event.symbol, event.order_id or 0))
        if event.op != "new" and (not known or order is None):
            raise Refused("ORDER_NOT_ACTIVE")
        match event.op:
            case "new":
                self.new(event, outcome)
            case "cancel":
                assert order is not None
                self.cancel(order, outcome)
            case "reduce":
                assert order is not None
                self.reduce(order, lots_of(event.quantity), outcome)
            case "replace":
                assert order is not None
                self.replace(event, order, outcome)

    def new(self, event: MarketEvent, outcome: Outcome) -> None:
        market_id = self.open_market(event.symbol)
        if (event.symbol, event.order_id) in self.live:
            raise Refused("DUPLICATE_ORDER_ID")
        assert event.side is not None
        side = Side.BID if event.side == OrderSide.BUY else Side.ASK
        kind, force = KINDS[JudgesType(event.order_type)]
        price = self.ticks(event.price) if kind is OrderType.LIMIT else 0
        self.place(market_id, event, side, kind, force, price, lots_of(event.quantity), event.owner, outcome)

    def place(
        self, market_id: int, event: MarketEvent, side: Side, kind: OrderType, force: TimeInForce, price: int,
        lots: int, owner: int, outcome: Outcome,
    ) -> None:  # fmt: skip
        order_id = self.state.next_order_id
        assert event.order_id is not None
        self.source[order_id] = event.order_id
        self.owner_of[order_id] = owner
        command = PlaceOrder(
            self.subaccount(owner), market_id, side, kind, force, price, lots, self_trade=self.self_trade
        )
        try:
            orders.place(self.state, command, outcome)
        except Rejection as rejection:
            assert rejection.reason in (RejectReason.INVALID_PRICE, RejectReason.INVALID_QUANTITY), rejection
            raise Refused("INVALID_ORDER") from None
        if order_id in self.state.orders:
            self.live[event.symbol, event.order_id] = self.state.orders[order_id]

    def replace(self, event: MarketEvent, order: Order, outcome: Outcome) -> None:
        left = order.lots - order.executed_lots
        price = order.price_ticks if event.price is None else self.ticks(event.price)
        lots = left if event.quantity is None else lots_of(event.quantity)
        if price <= 0 or lots <= 0:
            raise Refused("INVALID_REPLACEMENT")
        self.cancel(order, outcome)
        del self.live[event.symbol, event.order_id or 0]
        market_id = order.market.parameters.market_id
        owner = self.owner_of[order.order_id]
        self.place(market_id, event, order.side, OrderType.LIMIT, TimeInForce.GTC, price, lots, owner, outcome)

    def reduce(self, order: Order, lots: int, outcome: Outcome) -> None:
        left = order.lots - order.executed_lots
        if lots > left:
            raise Refused("INVALID_ORDER")
        if lots == left:
            self.cancel(order, outcome)
            return
        ladder = order.market.book.ladder(order.side)
        ladder.levels[order.price_ticks].lots -= lots
        order.lots -= lots
        is_bid = order.side is Side.BID
        unlocked = lots * order.price_ticks if is_bid else lots
        reserve(self.state, outcome, order.subaccount.subaccount_id, QUOTE if is_bid else BASE, -unlocked)

    def cancel(self, order: Order, outcome: Outcome) -> None:
        owner, market = order.subaccount.subaccount_id, order.market.parameters.market_id
        orders.cancel(self.state, CancelOrder(owner, market, order.order_id), outcome)

    def ticks(self, price: float | None) -> int:
        return round((price or 0) / self.config.tick_size)

    def open_market(self, symbol: str) -> int:
        """The symbol's market, opened at its first mention; one tick × one lot is one quote atom."""
        if symbol not in self.symbols:
            number = self.symbols[symbol] = len(self.symbols) + 1
            wide = BandParameters(0, 10**6 * RATE_SCALE, 0, 10**6 * RATE_SCALE, 0, RATE_SCALE, 0)
            parameters = MarketParameters(
                number, symbol, MarketType.SPOT, BASE, QUOTE, 1, 1, 1, 1, 2**62, OurBookState.OPEN, wide
            )
            self.state.markets[number] = Market(parameters, Book(), 0)
        return self.symbols[symbol]

    def subaccount(self, owner: int) -> int:
        """The owner's subaccount; without self-trade prevention, or without owner, every order is somebody else's."""
        keyed = self.is_keyed and owner != NOBODY
        if keyed and owner in self.owners:
            return self.owners[owner]
        number = next(self.numbers)
        self.state.users[number] = User(number, 0)
        self.state.subaccounts[number] = Subaccount(number, self.state.users[number], 0)
        for asset in (BASE, QUOTE):
            self.state.balances[balance_key(available(number), asset)] = -(2**100)
        if keyed:
            self.owners[owner] = number
        return number

    def fills(self, outcome: Outcome) -> list[TradeFill]:
        trades = []
        for trade in outcome.events:
            if not isinstance(trade, Trade):
                continue
            taker, maker = self.source[trade.taker.order_id], self.source[trade.maker.order_id]
            buyer, seller = (taker, maker) if trade.taker.side is Side.BID else (maker, taker)
            symbol = trade_symbol(self.symbols, trade.market_id)
            trades.append(TradeFill(symbol, buyer, seller, self.price(trade.price_ticks), quantity(trade.lots)))
        return trades

    def price(self, ticks: int) -> str:
        return canonical_decimal(Decimal(ticks) * Decimal(str(self.config.tick_size)))

    def snapshot(self) -> BookState:
        books = []
        for symbol in sorted(self.symbols):
            book = self.state.markets[self.symbols[symbol]].book
            sides: list[Any] = [
                tuple(
                    RestingOrder(
                        self.source[order.order_id],
                        self.price(order.price_ticks),
                        quantity(order.lots - order.executed_lots),
                        self.owner_of[order.order_id],
                    )
                    for level in ladder.from_best()
                    for order in queue(level)
                )
                for ladder in (book.bids, book.asks)
            ]
            books.append(BookSnapshot(symbol, *sides))
        return BookState(tuple(books))

    def close(self) -> None:
        """Nothing to close."""


def lots_of(amount: float | None) -> int:
    lots = Decimal(str(amount or 0)).scaleb(LOT_DECIMALS)
    assert lots == int(lots), f"{amount} has more than {LOT_DECIMALS} decimals"
    return int(lots)


def quantity(lots: int) -> str:
    return canonical_decimal(Decimal(lots).scaleb(-LOT_DECIMALS))


def trade_symbol(symbols: dict[str, int], market_id: int) -> str:
    return next(symbol for symbol, number in symbols.items() if number == market_id)


if __name__ == "__main__":
    sys.exit(serve_stdio(Adapter))
