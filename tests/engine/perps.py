"""Traders of perpetuals on a small exchange with prices, for tests of positions, settlement and liquidation."""

from __future__ import annotations

from typing import Any

from engine import margin
from engine.commands import PlaceOrder, SetPrices, Side, TimeInForce
from engine.events import Outcome
from engine.parameters import PRICE_SCALE
from engine.state import Market, Position, State, Subaccount
from tests.engine.desk import LIMIT, MARKET, Desk, Trader

USDC = 10**6
"""Atoms of one USDC."""


class Pit(Desk):
    """A desk whose market is SOL_USDC_PERP: a lot is 0.01 SOL, a tick 0.01 USDC, so a lot at 150 is 1.5 USDC."""

    def __init__(self, symbol: str = "SOL_USDC_PERP", price: int = 150, name: str = "devnet") -> None:
        super().__init__(symbol, name)
        self.base = self.book_market.parameters.base_asset_id
        self.price(price)

    @property
    def book_market(self) -> Market:
        return self.exchange.state.markets[self.market]

    def price(self, dollars: float, asset: str = "") -> Outcome:
        """Feed an index price."""
        asset_id = self.exchange.asset(asset) if asset else self.base
        return self.exchange.do(SetPrices(((asset_id, round(dollars * PRICE_SCALE)),)))

    def member(self, name: str, dollars: int, **assets: int) -> Member:
        """A trader with this much USDC and these atoms of other assets."""
        member = Member(self, name)
        if dollars:
            self.exchange.deposit(member.subaccount, "USDC", dollars * USDC)
        for symbol, atoms in assets.items():
            self.exchange.deposit(member.subaccount, symbol, atoms)
        return member


class Member(Trader):
    """A trader with a position."""

    desk: Pit

    @property
    def state(self) -> State:
        return self.desk.exchange.state

    @property
    def account(self) -> Subaccount:
        return self.state.subaccounts[self.subaccount]

    @property
    def position(self) -> Position | None:
        return self.account.positions.get(self.desk.market)

    @property
    def lots(self) -> int:
        return self.position.lots if self.position is not None else 0

    @property
    def usdc(self) -> int:
        """Atoms available."""
        return self.state.held(self.subaccount, self.state.usdc)

    def sums(self) -> margin.Sums:
        return margin.sums(self.state, self.account, self.desk.exchange.at_us)

    def trade(self, side: Side, lots: int, at: int = 0, **fields: Any) -> Outcome:
        """An order at `at` ticks (0: at market), accepted or not."""
        fields.setdefault("time_in_force", TimeInForce.GTC)
        kind = LIMIT if at else MARKET
        command = PlaceOrder(self.subaccount, self.desk.market, side, kind, price_ticks=at, lots=lots, **fields)
        return self.desk.attempt(command, self.desk.exchange.signed(self.key))


def cross(buyer: Member, seller: Member, lots: int, at: int) -> Outcome:
    """The seller rests, the buyer takes: both have their positions."""
    outcome = seller.trade(Side.ASK, lots, at)
    assert outcome.rejection is None, outcome.rejection
    outcome = buyer.trade(Side.BID, lots, at)
    assert outcome.rejection is None, outcome.rejection
    return outcome
