"""What the routes and the streams need of the node: its protocols, and the rows that market data and history hand out.

Rows carry engine integers (ticks, lots, atoms, µs); `api.codec` alone turns them into the decimal strings of the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from engine.commands import Command, Side
from engine.events import DepositView, OrderView, Outcome, WithdrawalView
from engine.state import State
from ledger.blocks import SignedRequest


class TradeRow(msgspec.Struct, frozen=True):
    """One public trade; `trade_id` is sequential per market."""

    trade_id: int
    price_ticks: int
    lots: int
    quote_atoms: int
    at_us: int
    is_buyer_maker: bool


class TickerRow(msgspec.Struct, frozen=True):
    """A market over the last day or week; only markets that traded in it have one."""

    market_id: int
    first_price_ticks: int
    last_price_ticks: int
    high_price_ticks: int
    low_price_ticks: int
    lots: int
    quote_atoms: int
    trades: int


class KlineRow(msgspec.Struct, frozen=True):
    """One candle [start_s, end_s) in seconds since 1970; prices None when nothing traded in it."""

    start_s: int
    end_s: int
    open_price_ticks: int | None
    high_price_ticks: int | None
    low_price_ticks: int | None
    close_price_ticks: int | None
    lots: int
    quote_atoms: int
    trades: int


class DepthView(msgspec.Struct, frozen=True):
    """Both sides of a book as (price_ticks, lots), each best first; `at_us` is exchange time of the last change."""

    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]
    last_update_id: int
    at_us: int


class FillRow(msgspec.Struct, frozen=True):
    """One side of a trade as its owner sees it; `fee_atoms` of `fee_asset_id` were paid (negative: a rebate)."""

    market_id: int
    trade_id: int
    order_id: int
    client_id: int | None
    subaccount_id: int
    side: Side
    price_ticks: int
    lots: int
    quote_atoms: int
    fee_asset_id: int
    fee_atoms: int
    is_maker: bool
    at_us: int


class Page(msgspec.Struct, frozen=True):
    """Which part of a history; newest first unless `ascending`."""

    limit: int = 100
    offset: int = 0
    ascending: bool = False


class MarketData(Protocol):
    """Public market data in memory, changed by published events only.   [A-7]"""

    def ticker(self, market_id: int, interval: str = "1d") -> TickerRow | None:
        """`interval` is `1d` or `1w`; None when nothing traded in it (the wire says 204)."""

    def tickers(self, interval: str = "1d") -> list[TickerRow]: ...

    def recent_trades(self, market_id: int, limit: int) -> list[TradeRow]:
        """Newest first."""

    def klines(self, market_id: int, interval: str, start_s: int, end_s: int) -> list[KlineRow]:
        """Oldest first; `interval` is one of the contract's KlineInterval."""

    def remembers(self, market_id: int, interval: str, start_s: int) -> bool:
        """Whether candles from `start_s` on are in memory; older ones are in the history."""

    def depth(self, market_id: int, limit: int) -> DepthView: ...


class History(Protocol):
    """What happened, from the durable log: each call gives (rows of the page, number of all rows).

    `market_ids` None means every market; `from_ms` inclusive, `to_ms` exclusive, None unbounded.
    """

    async def orders(
        self,
        subaccount_id: int,
        page: Page,
        *,
        order_id: int | None = None,
        market_ids: Sequence[int] | None = None,
    ) -> tuple[list[OrderView], int]:
        """Every order as it last stood, open ones included."""

    async def fills(
        self,
        subaccount_id: int,
        page: Page,
        *,
        order_id: int | None = None,
        market_ids: Sequence[int] | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> tuple[list[FillRow], int]: ...

    async def trades(self, market_id: int, page: Page) -> tuple[list[TradeRow], int]: ...

    async def klines(self, market_id: int, interval: str, start_s: int, end_s: int) -> list[KlineRow]:
        """Oldest first."""

    async def deposits(
        self, subaccount_id: int, page: Page, *, from_ms: int | None = None, to_ms: int | None = None
    ) -> tuple[list[DepositView], int]: ...

    async def withdrawals(
        self,
        subaccount_id: int,
        page: Page,
        *,
        withdrawal_id: int | None = None,
        client_id: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> tuple[list[WithdrawalView], int]: ...


class Node(Protocol):
    """The running exchange as its edge sees it; `api.node.Node` is the real one."""

    @property
    def state(self) -> State:
        """The applied state, to read only."""

    @property
    def market_data(self) -> MarketData: ...

    @property
    def history(self) -> History: ...

    @property
    def store(self) -> Any:
        """`ledger.store.Store`."""

    @property
    def epochs(self) -> Any:
        """Proof-of-reserves epochs; see `api.epochs`."""

    @property
    def sequencer(self) -> Any:
        """`engine.sequencer.Sequencer`."""

    @property
    def checkpoints(self) -> Any:
        """`ledger.checkpoints.CheckpointFile`."""

    async def submit(
        self, command: Command, request: SignedRequest | None = None, *, attach: Any = None
    ) -> Outcome:
        """Resolves when the command is durable; raises `engine.sequencer.Overloaded` or `Halted`.   [A-4]"""

    async def durable(self) -> None:
        """Wait until everything applied so far is durable: what the state shows may be told only then.   [A-7]"""

    async def deposit_address(self, subaccount_id: int, chain_id: int) -> str:
        """KeyError for a chain that this node does not serve."""

    def can_pay(self, chain_id: int, address: str) -> bool:
        """False for what is no address of that chain, as far as this node can tell."""

    def wallets(self) -> list[tuple[str, str]]:
        """The exchange's own wallets: (blockchain, address)."""

    def is_ready(self) -> bool:
        """Recovered, committing, not halted."""
