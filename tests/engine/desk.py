"""Traders on a small exchange, in the words of a trader: what the behaviour tests of orders are written in."""

from __future__ import annotations

from typing import Any

from engine import orders
from engine.commands import (
    CancelAllOrders,
    CancelOrder,
    Command,
    OrderType,
    PlaceOrder,
    PlaceOrders,
    SelfTrade,
    Side,
    TimeInForce,
)
from engine.events import ExpiryReason, OrderStatus, OrderView, Outcome, Trade
from engine.rejections import RejectReason
from engine.state import State
from ledger.blocks import SignedRequest
from ledger.chart import available
from ledger.journal import residues
from tests.engine.exchange import Exchange

BID, ASK = Side.BID, Side.ASK
LIMIT, MARKET = OrderType.LIMIT, OrderType.MARKET
GTC, IOC, FOK = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK
NEW, PARTIALLY_FILLED, FILLED = OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED
CANCELLED, EXPIRED = OrderStatus.CANCELLED, OrderStatus.EXPIRED
TAKER, MAKER, BOTH = SelfTrade.REJECT_TAKER, SelfTrade.REJECT_MAKER, SelfTrade.REJECT_BOTH

__all__ = [
    "ASK", "BID", "BOTH", "CANCELLED", "EXPIRED", "FILLED", "FOK", "GTC", "IOC", "LIMIT", "MAKER", "MARKET", "NEW",
    "PARTIALLY_FILLED", "TAKER", "Desk", "ExpiryReason", "RejectReason", "Trader",
]  # fmt: skip


class Trader:
    """A user's subaccount with its key."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk = desk
        self.subaccount, self.key = desk.exchange.user(name)

    def does(self, command: Command) -> Outcome:
        """Send a signed command, which must be accepted."""
        outcome = self.tries(command)
        assert outcome.rejection is None, outcome.rejection
        return outcome

    def tries(self, command: Command) -> Outcome:
        return self.desk.attempt(command, self.desk.exchange.signed(self.key))

    def order(self, side: Side, price: int = 0, lots: int = 0, **fields: Any) -> PlaceOrder:
        fields.setdefault("order_type", LIMIT if price else MARKET)
        return PlaceOrder(self.subaccount, self.desk.market, side, price_ticks=price, lots=lots, **fields)

    def buys(self, lots: int = 0, at: int = 0, **fields: Any) -> OrderView:
        view: OrderView = self.does(self.order(BID, at, lots, **fields)).reply
        return view

    def sells(self, lots: int = 0, at: int = 0, **fields: Any) -> OrderView:
        view: OrderView = self.does(self.order(ASK, at, lots, **fields)).reply
        return view

    def is_refused(self, side: Side, at: int = 0, lots: int = 0, **fields: Any) -> RejectReason:
        """Why the order is refused; fails when it is accepted."""
        rejection = self.tries(self.order(side, at, lots, **fields)).rejection
        assert rejection is not None, "the order was accepted"
        return rejection.reason

    def places(self, *batch: PlaceOrder) -> list[Any]:
        replies: list[Any] = self.does(PlaceOrders(batch)).reply
        return replies

    def cancels(self, order_id: int | None = None, client_id: int | None = None) -> OrderView:
        view: OrderView = self.does(CancelOrder(self.subaccount, self.desk.market, order_id, client_id)).reply
        return view

    def cancels_all(self) -> list[OrderView]:
        views: list[OrderView] = self.does(CancelAllOrders(self.subaccount)).reply
        return views

    def has(self, symbol: str) -> int:
        """Atoms held, what orders lock included."""
        return self.desk.state.held(self.subaccount, self.desk.exchange.asset(symbol))

    def can_spend(self, symbol: str) -> int:
        return self.desk.state.free(self.subaccount, self.desk.exchange.asset(symbol))


class Desk:
    """An exchange with one market to trade in: SOL_USDC of the devnet (tick 0.01, lot 0.01, tick value 100 atoms)."""

    def __init__(self, market: str = "SOL_USDC", genesis: str = "devnet") -> None:
        self.exchange = Exchange(genesis)
        self.market = self.exchange.market(market)
        self.last: Outcome = self.exchange.outcomes[-1]

    @property
    def state(self) -> State:
        return self.exchange.state

    def attempt(self, command: Command, request: SignedRequest | None = None) -> Outcome:
        self.exchange.at_us += 1
        self.last = self.exchange.attempt(command, request)
        return self.last

    def trader(self, name: str, *, usdc: int = 10**12, sol: int = 10**13) -> Trader:
        trader = Trader(self, name)
        for symbol, atoms in (("USDC", usdc), ("SOL", sol)):
            if atoms:
                self.exchange.deposit(trader.subaccount, symbol, atoms)
        return trader

    def bids(self) -> list[tuple[int, int]]:
        return orders.depth(self.state.markets[self.market], 1_000)[0]

    def asks(self) -> list[tuple[int, int]]:
        return orders.depth(self.state.markets[self.market], 1_000)[1]

    def trades(self) -> list[Trade]:
        """Trades of the last command."""
        return [event for event in self.last.events if isinstance(event, Trade)]

    def fills(self) -> list[tuple[int, int]]:
        """(price, lots) of the last command's trades."""
        return [(trade.price_ticks, trade.lots) for trade in self.trades()]

    def reported(self, kind: type) -> list[Any]:
        return [event for event in self.last.events if isinstance(event, kind)]

    def balance(self, account: int, symbol: str) -> int:
        """Debits positive."""
        return self.state.balances.get(account << 24 | self.exchange.asset(symbol), 0)

    def is_balanced(self) -> bool:
        """Every journal transaction so far balances per asset, and the balances are what they add up to.   [A-1]"""
        sums: dict[int, int] = {}
        for outcome in self.exchange.outcomes:
            for entry in outcome.journal:
                if residues(entry):
                    return False
                rows = (row for batch in entry.batches for row in batch.postings())
                for account, asset, atoms in (*entry.postings, *rows):
                    key = account << 24 | asset
                    sums[key] = sums.get(key, 0) + atoms
        return {key: atoms for key, atoms in sums.items() if atoms} == {
            key: atoms for key, atoms in self.state.balances.items() if atoms
        }

    def available(self, trader: Trader) -> int:
        return available(trader.subaccount)
