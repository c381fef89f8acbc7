"""What the history keeps, as a row of its table and back; both sides in the order of the table's columns."""

from __future__ import annotations

from typing import Any

import msgspec

from api.candles import Candle
from api.history.loans import Movement
from api.rows import (
    DustRow,
    FillRow,
    FundingRow,
    LiquidationRow,
    LiquidityRow,
    LoanRow,
    LongRow,
    MovementRow,
    PoolEpochRow,
    PoolRow,
    SwapRow,
    TradeRow,
)
from engine.commands import LendingSide, OrderType, Origin, SelfTrade, Side, TimeInForce
from engine.events import (
    DepositView,
    DustConverted,
    ExpiryReason,
    FundingCharged,
    LendingEvent,
    LendingSource,
    LiquidationChanged,
    LiquidityMoved,
    LongClosed,
    LongOpened,
    LongView,
    LossShared,
    OrderStatus,
    OrderTerms,
    OrderView,
    PoolAccrued,
    PoolEpochRan,
    PoolSwapped,
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


def swap_row(swapped: PoolSwapped, seq: int, ordinal: int, at_us: int) -> tuple[Any, ...]:
    return (
        seq,
        ordinal,
        swapped.pool_id,
        swapped.subaccount_id,
        swapped.is_native_paid,
        str(swapped.paid_atoms),
        str(swapped.received_atoms),
        str(swapped.fee_atoms),
        swapped.hop,
        at_us,
    )


def swap_from(row: Any) -> SwapRow:
    swapped = PoolSwapped(
        row.subaccount_id,
        row.pool_id,
        bool(row.is_native_paid),
        int(row.paid_atoms),
        int(row.received_atoms),
        int(row.fee_atoms),
        row.hop,
    )
    return SwapRow(swapped, row.command_seq, row.at_us)


def liquidity_row(moved: LiquidityMoved, seq: int, ordinal: int, at_us: int) -> tuple[Any, ...]:
    amounts = (moved.native_atoms, moved.external_atoms, moved.units, moved.units_after)
    return (seq, ordinal, moved.pool_id, moved.subaccount_id, *map(str, amounts), at_us)


def liquidity_from(row: Any) -> LiquidityRow:
    amounts = (row.native_atoms, row.external_atoms, row.units, row.units_after)
    moved = LiquidityMoved(row.subaccount_id, row.pool_id, *map(int, amounts))
    return LiquidityRow(moved, row.command_seq, row.at_us)


def long_row(opened: LongOpened) -> tuple[Any, ...]:
    long = opened.long
    amounts = (long.collateral_atoms, long.leverage, long.owed_atoms, long.custody_atoms, opened.fee_atoms, long.health)
    return (
        long.position_id,
        long.subaccount_id,
        long.pool_id,
        long.is_native_collateral,
        *map(str, amounts),
        long.opened_at_us,
    )


def long_close_row(closed: LongClosed, at_us: int) -> tuple[Any, ...]:
    long = closed.long
    before = (
        long.owed_atoms, long.unpaid_atoms, long.custody_atoms, long.paid_atoms, long.paid_custody_atoms, long.health
    )
    after = (
        closed.repaid_atoms,
        closed.fee_atoms,
        closed.returned_atoms,
        closed.fund_atoms,
        closed.bad_debt_atoms,
        closed.covered_atoms,
    )
    return (long.position_id, closed.forced, *map(str, before), *map(str, after), at_us)


def long_from(row: Any) -> LongRow:
    """A row of `history_long`, with its `history_long_close` under names that begin with `close_`, or None there."""
    opened = LongOpened(
        LongView(
            row.position_id,
            row.subaccount_id,
            row.pool_id,
            bool(row.is_native_collateral),
            int(row.collateral_atoms),
            int(row.leverage),
            int(row.owed_atoms),
            0,
            int(row.custody_atoms),
            0,
            0,
            int(row.health),
            row.opened_at_us,
        ),
        int(row.fee_atoms),
    )
    if row.close_closed_at_us is None:
        return LongRow(opened, None, None)
    long = msgspec.structs.replace(
        opened.long,
        owed_atoms=int(row.close_owed_atoms),
        unpaid_atoms=int(row.close_unpaid_atoms),
        custody_atoms=int(row.close_custody_atoms),
        paid_atoms=int(row.close_paid_atoms),
        paid_custody_atoms=int(row.close_paid_custody_atoms),
        health=int(row.close_health),
    )
    closed = LongClosed(
        long,
        bool(row.close_forced),
        int(row.close_repaid_atoms),
        int(row.close_fee_atoms),
        int(row.close_returned_atoms),
        int(row.close_fund_atoms),
        int(row.close_bad_debt_atoms),
        int(row.close_covered_atoms),
    )
    return LongRow(opened, closed, row.close_closed_at_us)


def pool_epoch_row(ran: PoolEpochRan, seq: int, at_us: int) -> tuple[Any, ...]:
    interest = (ran.native_interest, ran.external_interest, ran.native_to_fund, ran.external_to_fund)
    numbers = map(str, (ran.health, ran.rate, *interest))
    return (ran.pool_id, seq, ran.epoch, *numbers, ran.charged, ran.forced, ran.failed, at_us)


def pool_epoch_from(row: Any) -> PoolEpochRow:
    ran = PoolEpochRan(
        row.pool_id,
        row.epoch,
        int(row.health),
        int(row.rate),
        int(row.native_interest),
        int(row.external_interest),
        int(row.native_to_fund),
        int(row.external_to_fund),
        row.charged,
        row.forced,
        row.failed,
    )
    return PoolEpochRow(ran, row.command_seq, row.at_us)


def _storable(text: str) -> str:
    """Text as every database takes it: PostgreSQL has no NUL. A log that holds one must not stop its history for ever.

    The log keeps what was said; only here a NUL shows as U+FFFD.
    """
    return text.replace("\0", "\ufffd")
