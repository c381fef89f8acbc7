"""The tables of the history: what customers look up, derived from the log and rebuilt from it at any time.

They hold no truth of their own: `history_cursor` says up to which block they follow the log.   [A-7, A-10]
"""

from __future__ import annotations

import sqlalchemy as sa

from ledger.database import metadata
from ledger.schema import Int


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, Int, primary_key=True, autoincrement=False)


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, Int, nullable=nullable)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _digits(name: str) -> sa.Column[str]:
    """A sum that may pass 64 bits, as decimal digits; nothing is filtered or sorted by it."""
    return sa.Column(name, sa.Text, nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


cursor = sa.Table(
    "history_cursor",
    metadata,
    _key("id"),
    _int("height"),
)
"""One row: the newest block that the other tables contain."""

order = sa.Table(
    "history_order",
    metadata,
    _key("order_id"),
    _int("client_id", nullable=True),
    _int("market_id"),
    _int("subaccount_id"),
    _int("user_id"),
    _int("order_type"),
    _int("side"),
    _int("price_ticks"),
    _int("lots"),
    _digits("quote_atoms"),
    _int("executed_lots"),
    _digits("executed_quote_atoms"),
    _int("status"),
    _int("time_in_force"),
    _flag("post_only"),
    _flag("reduce_only"),
    _int("self_trade"),
    _int("created_at_us"),
    _int("expiry_reason", nullable=True),
    _text("terms"),
    _int("strategy_id"),
    sa.Index("ix_history_order_subaccount_id", "subaccount_id", "order_id"),
)
"""Every order as it last stood; columns as the fields of `OrderView`, its terms as JSON, empty for a plain order."""

fill = sa.Table(
    "history_fill",
    metadata,
    _key("command_seq"),
    _key("ordinal"),
    _int("market_id"),
    _int("trade_id"),
    _int("order_id"),
    _int("client_id", nullable=True),
    _int("subaccount_id"),
    _int("side"),
    _int("price_ticks"),
    _int("lots"),
    _digits("quote_atoms"),
    _int("fee_asset_id"),
    _digits("fee_atoms"),
    _flag("is_maker"),
    _int("at_us"),
    _int("origin"),
    sa.Index("ix_history_fill_subaccount_id", "subaccount_id", "command_seq", "ordinal"),
    sa.Index("ix_history_fill_order_id", "order_id"),
)
"""Both sides of every trade. `ordinal` counts within the command: even the taker's side, odd the maker's; `origin` is
that of the side's order."""

trade = sa.Table(
    "history_trade",
    metadata,
    _key("market_id"),
    _key("trade_id"),
    _int("price_ticks"),
    _int("lots"),
    _digits("quote_atoms"),
    _int("at_us"),
    _flag("is_buyer_maker"),
)

kline = sa.Table(
    "history_kline",
    metadata,
    _key("market_id"),
    _key("period_s"),
    _key("start_s"),
    _int("open_ticks"),
    _int("high_ticks"),
    _int("low_ticks"),
    _int("close_ticks"),
    _digits("lots"),
    _digits("quote_atoms"),
    _int("trades"),
)
"""Candles of a minute and of an hour; the other intervals are sums of them, seconds are made from the trades."""

deposit = sa.Table(
    "history_deposit",
    metadata,
    _key("deposit_id"),
    _int("chain_id"),
    _text("tx_id"),
    _int("tx_index"),
    _int("wallet"),
    _int("subaccount_id"),
    _int("asset_id"),
    _digits("atoms"),
    _text("state"),
    _int("created_at_us"),
    sa.Index("ix_history_deposit_subaccount_id", "subaccount_id", "deposit_id"),
)
"""Every deposit as it last stood; columns as the fields of `DepositView`."""

withdrawal = sa.Table(
    "history_withdrawal",
    metadata,
    _key("withdrawal_id"),
    _int("subaccount_id"),
    _int("chain_id"),
    _int("asset_id"),
    _digits("atoms"),
    _digits("fee_atoms"),
    _text("address"),
    _text("client_id"),
    _text("state"),
    _text("tx_id"),
    _text("reason"),
    _int("created_at_us"),
    sa.Index("ix_history_withdrawal_subaccount_id", "subaccount_id", "withdrawal_id"),
)
"""Every withdrawal as it last stood; columns as the fields of `WithdrawalView`."""

lending = sa.Table(
    "history_lending",
    metadata,
    _key("command_seq"),
    _key("ordinal"),
    _int("subaccount_id"),
    _int("asset_id"),
    _int("event"),
    _int("source"),
    _digits("atoms"),
    _digits("position_atoms"),
    _digits("position_shares"),
    _int("position_id"),
    _int("order_id"),
    _int("at_us"),
    _int("period"),
    sa.Index("ix_history_lending_subaccount_id", "subaccount_id", "command_seq", "ordinal"),
    sa.Index("ix_history_lending_position_id", "position_id", "command_seq", "ordinal"),
)
"""Every movement of a loan, as `LendingMoved` has it; `ordinal` counts within the command. `period` is the period of
interest that it fell in: the one that row `period` of the asset's `history_pool` closes."""

loan = sa.Table(
    "history_loan",
    metadata,
    _key("position_id"),
    _int("subaccount_id"),
    _int("asset_id"),
    _int("side"),
    _int("source"),
    _int("opened_at_us"),
    _int("first_period"),
    _int("closed_at_us", nullable=True),
    _int("last_period", nullable=True),
    _int("moved_at_us"),
    _digits("moved_atoms"),
    _digits("position_atoms"),
    _digits("position_shares"),
    _digits("flow_atoms"),
    _digits("atom_ms"),
    sa.Index("ix_history_loan_subaccount_id", "subaccount_id", "position_id"),
)
"""Every loan as its last movement (at `moved_at_us`, of `moved_atoms`) left it. `flow_atoms`: lent less redeemed, or
borrowed less repaid; `atom_ms`: its atoms after each movement times the ms until the next."""

pool = sa.Table(
    "history_pool",
    metadata,
    _key("asset_id"),
    _key("period"),
    _int("hour"),
    _digits("lent_atoms"),
    _digits("borrowed_atoms"),
    _digits("fee_atoms"),
    _digits("lend_shares"),
    _digits("debt_shares"),
    _digits("borrow_rate"),
    _int("fee_rate"),
)
"""Every money market at the beginning of each hour, as `PoolAccrued` has it; its periods are numbered from 1 without a
gap, and row n closes period n."""

dust = sa.Table(
    "history_dust",
    metadata,
    _key("dust_id"),
    _int("subaccount_id"),
    _int("asset_id"),
    _digits("atoms"),
    _digits("usdc_atoms"),
    _int("at_us"),
    sa.Index("ix_history_dust_subaccount_id", "subaccount_id", "dust_id"),
)
"""Every conversion of dust, as `DustConverted` has it; ids rise with the log."""

position = sa.Table(
    "history_position",
    metadata,
    _key("position_id"),
    _int("subaccount_id"),
    _int("market_id"),
    _flag("is_long"),
    _int("lots"),
    _digits("entry_atoms"),
    _digits("traded_atoms"),
    _digits("cost_atoms"),
    _digits("settled"),
    _digits("fee_atoms"),
    _digits("funding_atoms"),
    _int("opened_at_us"),
    _int("closed_at_us", nullable=True),
    _digits("closed_lots"),
    _digits("closed_atoms"),
    _digits("liquidated_lots"),
    _digits("liquidation_fee_atoms"),
    _digits("mark"),
    sa.Index("ix_history_position_subaccount_id", "subaccount_id", "position_id"),
)
"""Every position of a perpetual as its last change left it, as `PositionChanged` has it. `closed_atoms`: what the
closed lots were closed for; `liquidated_lots`: those that the exchange closed, and what it took as a fee for it."""

position_change = sa.Table(
    "history_position_change",
    metadata,
    _key("command_seq"),
    _key("ordinal"),
    _int("subaccount_id"),
    _int("market_id"),
    _int("position_id"),
    _int("change"),
    _int("origin"),
    _int("lots"),
    _digits("entry_atoms"),
    _digits("cost_atoms"),
    _digits("settled"),
    _digits("mark"),
    _int("at_us"),
    sa.Index("ix_history_position_change_subaccount_id", "subaccount_id", "market_id", "command_seq", "ordinal"),
)
"""Every change of a position and what it left: between two of them the lots stay, and what funding and settlement ticks
moved follows from them."""

funding = sa.Table(
    "history_funding",
    metadata,
    _key("market_id"),
    _key("command_seq"),
    _int("interval_end_us"),
    _int("rate"),
    _digits("mark"),
    _digits("premium"),
    _digits("funding_index"),
)
"""Every funding interval that ended, as `FundingCharged` has it."""

tick = sa.Table(
    "history_tick",
    metadata,
    _key("market_id"),
    _key("command_seq"),
    _int("previous_seq"),
    _digits("previous_mark"),
    _digits("mark"),
    _int("at_us"),
)
"""Every settlement tick of a market, with its mark in quote atoms per lot and the tick before it (0: none)."""

settlement = sa.Table(
    "history_settlement",
    metadata,
    _key("command_seq"),
    _key("ordinal"),
    _int("subaccount_id"),
    _text("source"),
    _digits("atoms"),
    _int("at_us"),
    sa.Index("ix_history_settlement_subaccount_id", "subaccount_id", "command_seq", "ordinal"),
)
"""USDC that was found or paid apart from the tick's own column, as `SettlementMoved` has it."""

shared_loss = sa.Table(
    "history_shared_loss",
    metadata,
    _key("command_seq"),
    _key("ordinal"),
    _int("market_id"),
    _flag("is_long_side"),
    _digits("atoms"),
    _digits("per_lot"),
    _int("at_us"),
)
"""Losses that one side of a market shared, as `LossShared` has them."""

liquidation = sa.Table(
    "history_liquidation",
    metadata,
    _key("command_seq"),
    _key("ordinal"),
    _int("subaccount_id"),
    _text("stage"),
    _digits("equity_usd"),
    _digits("maintenance_usd"),
    _digits("notional_usd"),
    _int("market_id"),
    _int("asset_id"),
    _digits("quantity"),
    _digits("price"),
    _digits("mark"),
    _digits("fee_atoms"),
    _digits("equity_after_usd"),
    _digits("maintenance_after_usd"),
    _int("counterparty_id"),
    _int("at_us"),
    sa.Index("ix_history_liquidation_subaccount_id", "subaccount_id", "command_seq", "ordinal"),
)
"""Every step of every liquidation, as `LiquidationChanged` has it: why, at which prices, what was taken."""

strategy = sa.Table(
    "history_strategy",
    metadata,
    _key("strategy_id"),
    _int("subaccount_id"),
    _int("market_id"),
    _text("view"),
    sa.Index("ix_history_strategy_subaccount_id", "subaccount_id", "strategy_id"),
)
"""Every strategy as it last stood: its `StrategyView` as JSON."""

rfq = sa.Table(
    "history_rfq",
    metadata,
    _key("rfq_id"),
    _int("subaccount_id"),
    _int("market_id"),
    _int("side"),
    _int("status"),
    _text("view"),
    sa.Index("ix_history_rfq_subaccount_id", "subaccount_id", "rfq_id"),
)
"""Every request for quotes as it last stood: its `RfqView` as JSON."""

quote = sa.Table(
    "history_quote",
    metadata,
    _key("quote_id"),
    _int("subaccount_id"),
    _int("market_id"),
    _int("status"),
    _text("view"),
    sa.Index("ix_history_quote_subaccount_id", "subaccount_id", "quote_id"),
)
"""Every quote as it last stood: its `QuoteView` as JSON."""

rfq_fill = sa.Table(
    "history_rfq_fill",
    metadata,
    _key("quote_id"),
    _int("subaccount_id"),
    _int("quoter_id"),
    _int("market_id"),
    _int("side"),
    _int("at_us"),
    _text("filled"),
    sa.Index("ix_history_rfq_fill_subaccount_id", "subaccount_id", "quote_id"),
    sa.Index("ix_history_rfq_fill_quoter_id", "quoter_id", "quote_id"),
)
"""Every request that a quote filled: the `RfqChanged` that said so as JSON."""

QUOTES = (strategy, rfq, quote, rfq_fill)

price = sa.Table(
    "history_price",
    metadata,
    _key("market_id"),
    _key("is_index"),
    _key("period_s"),
    _key("start_s"),
    _digits("open"),
    _digits("high"),
    _digits("low"),
    _digits("close"),
)
"""Candles of a minute and of an hour of a market's mark (`is_index` 0) and index (1), in PRICE_SCALE USD; none where
neither moved."""

PERPETUALS = (position, position_change, funding, tick, settlement, shared_loss, liquidation, price)

swap = sa.Table(
    "history_swap",
    metadata,
    _key("command_seq"),
    _key("ordinal"),
    _int("pool_id"),
    _int("subaccount_id"),
    _flag("is_native_paid"),
    _digits("paid_atoms"),
    _digits("received_atoms"),
    _digits("fee_atoms"),
    _int("hop"),
    _int("at_us"),
    sa.Index("ix_history_swap_pool_id", "pool_id", "command_seq", "ordinal"),
    sa.Index("ix_history_swap_subaccount_id", "subaccount_id", "command_seq", "ordinal"),
)
"""Every swap in a liquidity pool, as `PoolSwapped` has it: of a swap through two pools there are two."""

liquidity = sa.Table(
    "history_liquidity",
    metadata,
    _key("command_seq"),
    _key("ordinal"),
    _int("pool_id"),
    _int("subaccount_id"),
    _digits("native_atoms"),
    _digits("external_atoms"),
    _digits("units"),
    _digits("units_after"),
    _int("at_us"),
    sa.Index("ix_history_liquidity_pool_id", "pool_id", "command_seq", "ordinal"),
    sa.Index("ix_history_liquidity_subaccount_id", "subaccount_id", "command_seq", "ordinal"),
)
"""Everything that providers added to (above zero) or removed from a liquidity pool, as `LiquidityMoved` has it."""

long = sa.Table(
    "history_long",
    metadata,
    _key("position_id"),
    _int("subaccount_id"),
    _int("pool_id"),
    _flag("is_native_collateral"),
    _digits("collateral_atoms"),
    _digits("leverage"),
    _digits("owed_atoms"),
    _digits("custody_atoms"),
    _digits("fee_atoms"),
    _digits("health"),
    _int("opened_at_us"),
    sa.Index("ix_history_long_subaccount_id", "subaccount_id", "position_id"),
)
"""Every leveraged long as it was opened, as `LongOpened` has it; leverage and health in 1e-18."""

long_close = sa.Table(
    "history_long_close",
    metadata,
    _key("position_id"),
    _flag("forced"),
    _digits("owed_atoms"),
    _digits("unpaid_atoms"),
    _digits("custody_atoms"),
    _digits("paid_atoms"),
    _digits("paid_custody_atoms"),
    _digits("health"),
    _digits("repaid_atoms"),
    _digits("fee_atoms"),
    _digits("returned_atoms"),
    _digits("fund_atoms"),
    _digits("bad_debt_atoms"),
    _digits("covered_atoms"),
    _int("closed_at_us"),
)
"""How every leveraged long ended and what it was like just before, as `LongClosed` has it."""

pool_epoch = sa.Table(
    "history_pool_epoch",
    metadata,
    _key("pool_id"),
    _key("command_seq"),
    _int("epoch"),
    _digits("health"),
    _digits("rate"),
    _digits("native_interest"),
    _digits("external_interest"),
    _digits("native_to_fund"),
    _digits("external_to_fund"),
    _int("charged"),
    _int("forced"),
    _int("failed"),
    _int("at_us"),
)
"""Every epoch of every liquidity pool, as `PoolEpochRan` has it; health and rate in 1e-18. Numbers of epochs may come
again when a pool's epoch changes its length: commands do not."""

AMM = (swap, liquidity, long, long_close, pool_epoch)

TABLES = (order, fill, trade, kline, deposit, withdrawal, lending, loan, pool, dust, *PERPETUALS, *QUOTES, *AMM, cursor)
