"""What the history keeps, as a row of its table and back; both sides in the order of the table's columns."""

from __future__ import annotations

from typing import Any

import msgspec

from api.candles import Candle
from api.history.loans import Movement
from api.rows import DustRow, FillRow, FundingRow, LiquidationRow, LoanRow, MovementRow, PoolRow, TradeRow
from engine.commands import LendingSide, OrderType, Origin, SelfTrade, Side, TimeInForce
from engine.events import (
    DepositView,
    DustConverted,
    ExpiryReason,
    FundingCharged,
    LendingEvent,
    LendingSource,
    LiquidationChanged,
    LossShared,
    OrderStatus,
    OrderTerms,
    OrderView,
    PoolAccrued,
    QuoteView,
    RfqChanged,
    RfqView,
    SettlementMoved,
    StrategyView,
    Trade,
    WithdrawalView,
)

DUST_BITS = 20
"""A conversion's id is its command's number, and behind it in so many bits which of the command's it is."""


def order_row(order: OrderView) -> tuple[Any, ...]:
    return (
        order.order_id,
        order.client_id,
        order.market_id,
        order.subaccount_id,
        order.user_id,
        int(order.order_type),
        int(order.side),
        order.price_ticks,
        order.lots,
        str(order.quote_atoms),
        order.executed_lots,
        str(order.executed_quote_atoms),
        int(order.status),
        int(order.time_in_force),
        order.post_only,
        order.reduce_only,
        int(order.self_trade),
        order.created_at_us,
        None if order.expiry_reason is None else int(order.expiry_reason),
        "" if order.terms is None else msgspec.json.encode(order.terms).decode(),
        0 if order.terms is None else order.terms.strategy_id,
    )


def order_from(row: Any) -> OrderView:
    return OrderView(
        row.order_id,
        row.client_id,
        row.market_id,
        row.subaccount_id,
        row.user_id,
        OrderType(row.order_type),
        Side(row.side),
        row.price_ticks,
        row.lots,
        int(row.quote_atoms),
        row.executed_lots,
        int(row.executed_quote_atoms),
        OrderStatus(row.status),
        TimeInForce(row.time_in_force),
        bool(row.post_only),
        bool(row.reduce_only),
        SelfTrade(row.self_trade),
        row.created_at_us,
        None if row.expiry_reason is None else ExpiryReason(row.expiry_reason),
        msgspec.json.decode(row.terms, type=OrderTerms) if row.terms else None,
    )


def origin_of(order: OrderView) -> Origin:
    """Who made the order.   [W-6]"""
    return Origin.USER if order.terms is None else order.terms.origin


def fill_row(trade: Trade, order: OrderView, seq: int, ordinal: int, at_us: int) -> tuple[Any, ...]:
    is_maker = order is trade.maker
    return (
        seq,
        ordinal,
        trade.market_id,
        trade.trade_id,
        order.order_id,
        order.client_id,
        order.subaccount_id,
        int(order.side),
        trade.price_ticks,
        trade.lots,
        str(trade.quote_atoms),
        trade.maker_fee_asset_id if is_maker else trade.taker_fee_asset_id,
        str(trade.maker_fee_atoms if is_maker else trade.taker_fee_atoms),
        is_maker,
        at_us,
        int(origin_of(order)),
    )


def fill_from(row: Any) -> FillRow:
    return FillRow(
        row.market_id,
        row.trade_id,
        row.order_id,
        row.client_id,
        row.subaccount_id,
        Side(row.side),
        row.price_ticks,
        row.lots,
        int(row.quote_atoms),
        row.fee_asset_id,
        int(row.fee_atoms),
        bool(row.is_maker),
        row.at_us,
        Origin(row.origin),
    )


def trade_row(trade: Trade, at_us: int) -> tuple[Any, ...]:
    return (
        trade.market_id,
        trade.trade_id,
        trade.price_ticks,
        trade.lots,
        str(trade.quote_atoms),
        at_us,
        trade.taker.side == Side.ASK,
    )


def trade_from(row: Any) -> TradeRow:
    return TradeRow(
        row.trade_id, row.price_ticks, row.lots, int(row.quote_atoms), row.at_us, bool(row.is_buyer_maker)
    )


def candle_row(market_id: int, period_s: int, candle: Candle) -> tuple[Any, ...]:
    return (
        market_id,
        period_s,
        candle.start_s,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        str(candle.lots),
        str(candle.quote_atoms),
        candle.trades,
    )


def candle_from(row: Any) -> Candle:
    candle = Candle(row.start_s, row.open_ticks)
    candle.high, candle.low, candle.close = row.high_ticks, row.low_ticks, row.close_ticks
    candle.lots, candle.quote_atoms, candle.trades = int(row.lots), int(row.quote_atoms), row.trades
    return candle


def deposit_row(deposit: DepositView) -> tuple[Any, ...]:
    return (
        deposit.deposit_id,
        deposit.chain_id,
        _storable(deposit.tx_id),
        deposit.index,
        deposit.wallet,
        deposit.subaccount_id,
        deposit.asset_id,
        str(deposit.atoms),
        deposit.state,
        deposit.created_at_us,
    )


def deposit_from(row: Any) -> DepositView:
    return DepositView(
        row.deposit_id,
        row.chain_id,
        row.tx_id,
        row.tx_index,
        row.wallet,
        row.subaccount_id,
        row.asset_id,
        int(row.atoms),
        row.state,
        row.created_at_us,
    )


def withdrawal_row(withdrawal: WithdrawalView) -> tuple[Any, ...]:
    return (
        withdrawal.withdrawal_id,
        withdrawal.subaccount_id,
        withdrawal.chain_id,
        withdrawal.asset_id,
        str(withdrawal.atoms),
        str(withdrawal.fee_atoms),
        _storable(withdrawal.address),
        _storable(withdrawal.client_id),
        withdrawal.state,
        _storable(withdrawal.tx_id),
        _storable(withdrawal.reason),
        withdrawal.created_at_us,
    )


def withdrawal_from(row: Any) -> WithdrawalView:
    return WithdrawalView(
        row.withdrawal_id,
        row.subaccount_id,
        row.chain_id,
        row.asset_id,
        int(row.atoms),
        int(row.fee_atoms),
        row.address,
        row.client_id,
        row.state,
        row.tx_id,
        row.reason,
        row.created_at_us,
    )


def movement_row(movement: Movement) -> tuple[Any, ...]:
    moved = movement.moved
    return (
        movement.command_seq,
        movement.ordinal,
        moved.subaccount_id,
        moved.asset_id,
        int(moved.event),
        int(moved.source),
        str(moved.atoms),
        str(moved.position_atoms),
        moved.position_shares,
        moved.position_id,
        moved.order_id,
        movement.at_us,
        movement.period,
    )


def movement_from(row: Any) -> MovementRow:
    return MovementRow(
        row.asset_id,
        LendingEvent(row.event),
        LendingSource(row.source),
        int(row.atoms),
        int(row.position_atoms),
        row.position_id,
        row.order_id,
        row.at_us,
    )


def loan_from(row: Any) -> LoanRow:
    return LoanRow(
        row.position_id,
        row.asset_id,
        row.side == LendingSide.BORROW,
        LendingSource(row.source),
        row.opened_at_us,
        row.last_period is None,
        row.moved_at_us,
        max(int(row.moved_atoms), int(row.position_atoms)),
        int(row.position_atoms),
        int(row.position_shares),
        int(row.flow_atoms),
        int(row.atom_ms),
    )


def pool_row(accrued: PoolAccrued, period: int) -> tuple[Any, ...]:
    return (
        accrued.asset_id,
        period,
        accrued.hour,
        str(accrued.lent_atoms),
        str(accrued.borrowed_atoms),
        str(accrued.fee_atoms),
        accrued.lend_shares,
        accrued.debt_shares,
        str(accrued.borrow_rate),
        accrued.fee_rate,
    )


def pool_from(row: Any) -> PoolRow:
    return PoolRow(
        row.asset_id,
        row.hour,
        int(row.lent_atoms),
        int(row.borrowed_atoms),
        int(row.fee_atoms),
        int(row.lend_shares),
        int(row.debt_shares),
        int(row.borrow_rate),
        row.fee_rate,
    )


def dust_row(converted: DustConverted, command_seq: int, ordinal: int, at_us: int) -> tuple[Any, ...]:
    return (
        command_seq << DUST_BITS | ordinal,
        converted.subaccount_id,
        converted.asset_id,
        str(converted.atoms),
        str(converted.usdc_atoms),
        at_us,
    )


def dust_from(row: Any) -> DustRow:
    return DustRow(row.dust_id, row.asset_id, int(row.atoms), int(row.usdc_atoms), row.at_us)


def funding_row(charged: FundingCharged, seq: int) -> tuple[Any, ...]:
    return (
        charged.market_id,
        seq,
        charged.interval_end_us,
        charged.rate,
        str(charged.mark),
        str(charged.premium),
        str(charged.index),
    )


def funding_from(row: Any) -> FundingRow:
    return FundingRow(row.market_id, row.interval_end_us, row.rate, int(row.mark))


def settlement_row(moved: SettlementMoved, seq: int, ordinal: int, at_us: int) -> tuple[Any, ...]:
    return (seq, ordinal, moved.subaccount_id, moved.source, str(moved.atoms), at_us)


def shared_loss_row(shared: LossShared, seq: int, ordinal: int, at_us: int) -> tuple[Any, ...]:
    return (seq, ordinal, shared.market_id, shared.is_long_side, str(shared.atoms), str(shared.per_lot), at_us)


def liquidation_row(step: LiquidationChanged, seq: int, ordinal: int, at_us: int) -> tuple[Any, ...]:
    return (
        seq,
        ordinal,
        step.subaccount_id,
        step.stage,
        str(step.equity_usd),
        str(step.maintenance_usd),
        str(step.notional_usd),
        step.market_id,
        step.asset_id,
        str(step.quantity),
        str(step.price),
        str(step.mark),
        str(step.fee_atoms),
        str(step.equity_after_usd),
        str(step.maintenance_after_usd),
        step.counterparty_id,
        at_us,
    )


def liquidation_from(row: Any) -> LiquidationRow:
    step = LiquidationChanged(
        row.subaccount_id,
        row.stage,
        int(row.equity_usd),
        int(row.maintenance_usd),
        int(row.notional_usd),
        row.market_id,
        row.asset_id,
        int(row.quantity),
        int(row.price),
        int(row.mark),
        int(row.fee_atoms),
        int(row.equity_after_usd),
        int(row.maintenance_after_usd),
        row.counterparty_id,
    )
    return LiquidationRow(step, row.command_seq, row.at_us)


def strategy_row(view: StrategyView) -> tuple[Any, ...]:
    return (view.strategy_id, view.subaccount_id, view.market_id, msgspec.json.encode(view).decode())


def rfq_row(view: RfqView) -> tuple[Any, ...]:
    numbers = (view.rfq_id, view.subaccount_id, view.market_id, int(view.side), int(view.status))
    return (*numbers, msgspec.json.encode(view).decode())


def quote_row(view: QuoteView, market_id: int) -> tuple[Any, ...]:
    return (view.quote_id, view.subaccount_id, market_id, int(view.status), msgspec.json.encode(view).decode())


def rfq_fill_row(filled: RfqChanged, at_us: int) -> tuple[Any, ...]:
    rfq, quote = filled.rfq, filled.quote
    assert quote is not None, f"request {rfq.rfq_id} was filled by nobody"
    numbers = (quote.quote_id, rfq.subaccount_id, quote.subaccount_id, rfq.market_id, int(rfq.side), at_us)
    return (*numbers, msgspec.json.encode(filled).decode())


def _storable(text: str) -> str:
    """Text as every database takes it: PostgreSQL has no NUL. A log that holds one must not stop its history for ever.

    The log keeps what was said; only here a NUL shows as U+FFFD.
    """
    return text.replace("\0", "\ufffd")
