"""The rows that market data and history hand out to the routes and the streams, and which page of them is meant.

Rows carry engine integers (ticks, lots, atoms, µs); `api.codec` alone turns them into the decimal strings of the wire.
"""

from __future__ import annotations

import msgspec

from engine.commands import Side


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
