"""The rows that market data and history hand out to the routes and the streams, and which page of them is meant.

Rows carry engine integers (ticks, lots, atoms, µs); `api.codec` alone turns them into the decimal strings of the wire.
"""

from __future__ import annotations

import msgspec

from engine.commands import Origin, Side
from engine.events import (
    LendingEvent,
    LendingSource,
    LiquidationChanged,
    LiquidityMoved,
    LongClosed,
    LongOpened,
    PoolEpochRan,
    PoolSwapped,
    PositionView,
    RfqChanged,
)


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
    origin: Origin = Origin.USER
    """Who made the order.   [W-6]"""


class MovementRow(msgspec.Struct, frozen=True):
    """One movement of a loan, and the loan after it.   [B-12]"""

    asset_id: int
    event: LendingEvent
    source: LendingSource
    atoms: int
    position_atoms: int
    position_id: int
    order_id: int
    at_us: int


class LoanRow(msgspec.Struct, frozen=True):
    """A loan as its last movement left it.   [B-12]

    `flow_atoms` is what was lent less what was redeemed (borrowed less repaid): the rest of it is interest.
    `atom_ms` is Σ atoms × ms up to the last movement, with the atoms as each movement left them; `largest_atoms` of one
    that has ended is the most of these, or what the last movement took off if that was more: interest is in it.
    """

    position_id: int
    asset_id: int
    is_debt: bool
    source: LendingSource
    opened_at_us: int
    is_open: bool
    moved_at_us: int
    largest_atoms: int
    position_atoms: int
    position_shares: int
    flow_atoms: int
    atom_ms: int


class PoolRow(msgspec.Struct, frozen=True):
    """A money market at the beginning of an hour since 1970, interest included; rates annual in 1e-18.   [B-13]"""

    asset_id: int
    hour: int
    lent_atoms: int
    borrowed_atoms: int
    fee_atoms: int
    lend_shares: int
    debt_shares: int
    borrow_rate: int
    fee_rate: int
    """The pool's cut, in 1e-9."""


class InterestRow(msgspec.Struct, frozen=True):
    """What a loan earned or cost in the period that ended at `hour`; `rate` annual in 1e-18.   [B-4]"""

    asset_id: int
    position_id: int
    is_debt: bool
    hour: int
    hours: int
    """Length of the period: 1, unless the exchange stood still."""
    atoms: int
    rate: int


class DustRow(msgspec.Struct, frozen=True):
    """Dust that became USDC; both below zero: a dust debt that was bought back.   [S-3]"""

    dust_id: int
    asset_id: int
    atoms: int
    usdc_atoms: int
    at_us: int


class FundingRow(msgspec.Struct, frozen=True):
    """A funding interval that ended.   [P-20 … P-22]"""

    market_id: int
    interval_end_us: int
    rate: int
    """In 1e-9."""
    mark: int
    """In PRICE_SCALE."""


class FundingPaymentRow(msgspec.Struct, frozen=True):
    """An interval that ended while a position was open, and its lots then.   [P-21]"""

    market_id: int
    position_id: int
    interval_end_us: int
    rate: int
    mark: int
    lots: int


class SettlementRow(msgspec.Struct, frozen=True):
    """What moved a subaccount's USDC and is no trade of assets: a tick, funding, a fee, the system.   [S-10 … S-13]"""

    command_seq: int
    source: str
    """`realize`, `funding`, `fee`, `loss`, or as `SettlementMoved` says it."""
    market_id: int
    """0: of no market."""
    position_id: int
    """0: of no position."""
    atoms: int
    at_us: int


class PositionRow(msgspec.Struct, frozen=True):
    """A position as its last change left it; atoms of quote, mark in PRICE_SCALE.   [C-5]"""

    view: PositionView
    is_long: bool
    """What it was, also when it is closed."""
    closed_at_us: int | None
    closed_atoms: int
    """What the closed lots were closed for."""
    liquidated_lots: int
    liquidation_fee_atoms: int
    mark: int


class LiquidationRow(msgspec.Struct, frozen=True):
    """A step of a liquidation with its place in the log.   [L-10]"""

    step: LiquidationChanged
    command_seq: int
    at_us: int


class RfqFillRow(msgspec.Struct, frozen=True):
    """A request for quotes that a quote filled: both as they were then, and both fees.   [S-7]"""

    filled: RfqChanged
    at_us: int


class SwapRow(msgspec.Struct, frozen=True):
    """A swap in a liquidity pool with its place in the log.   [X-1]"""

    swapped: PoolSwapped
    command_seq: int
    at_us: int


class LiquidityRow(msgspec.Struct, frozen=True):
    """What a provider added or removed, with its place in the log.   [X-3, X-4]"""

    moved: LiquidityMoved
    command_seq: int
    at_us: int


class LongRow(msgspec.Struct, frozen=True):
    """A leveraged long as it was opened, and how it ended if it has.   [X-5, X-10, X-11]"""

    opened: LongOpened
    closed: LongClosed | None
    closed_at_us: int | None


class PoolEpochRow(msgspec.Struct, frozen=True):
    """An epoch of a liquidity pool with its place in the log.   [X-8, X-9]"""

    ran: PoolEpochRan
    command_seq: int
    at_us: int


class Page(msgspec.Struct, frozen=True):
    """Which part of a history; newest first unless `ascending`."""

    limit: int = 100
    offset: int = 0
    ascending: bool = False
