"""Genesis, exchange time, epochs, the exchange's own key: what it does by itself and when.   [A-6, R-1, S-15]"""

from __future__ import annotations

from engine import fund_sales, funding, lending, pools, tick, yields
from engine.commands import (
    AccrueInterest,
    AdvanceClock,
    ClockMode,
    CloseEpoch,
    Command,
    ConfigureAsset,
    ConfigureChain,
    ConfigureFees,
    ConfigureMarket,
    ConfigurePool,
    ConfigureToken,
    ExpireRfqs,
    FireTriggers,
    Genesis,
    Liquidate,
    RotateKey,
    RunPoolEpochs,
    RunStrategies,
    SampleMarks,
    SetClock,
    SettlePositions,
    UpdateThrottle,
)
from engine.events import EpochClosed, KeyRotated, Outcome
from engine.markets import configure_asset, configure_chain, configure_fees, configure_market, configure_token
from engine.posting import record
from engine.rejections import RejectReason, require
from engine.state import State
from ledger.journal import JournalKind

HOUR_US = 3_600_000_000
SECOND_US = 1_000_000
TICK_US = lending.THROTTLE_SECONDS * SECOND_US


def due(state: State, now_us: int) -> tuple[int, Command] | None:
    """The next scheduled command due by `now_us`, with its due time; it runs before any later command.   [S-15]"""
    if state.sequence == 0:
        return None
    if state.triggered:
        # They enter at once; only what is due at the same moment comes before them.
        now_us = min(now_us, state.at_us)
    epoch_us = (state.last_epoch_hour + 1) * HOUR_US
    has_loans = state.next_position_id > 1
    interest_us = (state.last_interest_hour + 1) * HOUR_US if has_loans else epoch_us
    yield_us = state.yield_due_us or epoch_us
    funding_us = state.funding_due_us or epoch_us
    slice_us, rfq_us = state.slice_due_us or epoch_us, state.rfq_due_us or epoch_us
    pools_us = state.amm_epoch_due_us or epoch_us
    liquidation_us = max(state.at_us, state.liquidation_due_us) if state.liquidation_due_us else epoch_us
    horizon = min(now_us, epoch_us, interest_us, yield_us, funding_us, liquidation_us, slice_us, rfq_us, pools_us)
    settles = _settles_now(state)
    horizon = state.at_us if settles else _next_settlement_us(state, horizon)
    # Nothing happens between two other commands, so the seconds up to the next are sampled in one go, and of several
    # throttle ticks the last one decides alone.
    tick_us = horizon - horizon % TICK_US if has_loans else 0
    has_tick = tick_us > state.throttled_second * SECOND_US
    if state.prices:
        second = (tick_us if has_tick else horizon) // SECOND_US
        if second > state.sampled_second:
            return second * SECOND_US, SampleMarks(second - state.sampled_second)
    # A period closes before anything of its last moment can touch a lender: interest buys small debts back.   [Y-3]
    if state.yield_due_us and yield_us <= horizon and not (has_tick and tick_us < yield_us):
        return yield_us, yields.next_due(state)
    if has_loans and interest_us <= horizon and not (has_tick and tick_us < interest_us):
        return interest_us, AccrueInterest(state.last_interest_hour + 1)
    if state.funding_due_us and funding_us <= horizon and not (has_tick and tick_us < funding_us):
        return funding_us, funding.next_due(state)
    if state.amm_epoch_due_us and pools_us <= horizon and not (has_tick and tick_us < pools_us):
        return pools_us, RunPoolEpochs()
    if settles:
        return state.at_us, SettlePositions()
    if has_tick:
        return tick_us, UpdateThrottle()
    if state.triggered:
        return state.at_us, FireTriggers()
    if state.slice_due_us and slice_us <= horizon:
        return slice_us, RunStrategies()
    if state.rfq_due_us and rfq_us <= horizon:
        return rfq_us, ExpireRfqs()
    if state.liquidation_due_us and liquidation_us <= horizon:
        return liquidation_us, Liquidate()
    if epoch_us <= now_us:
        return epoch_us, CloseEpoch(state.last_epoch_hour + 1)
    return None


def _settles_now(state: State) -> bool:
    """Whether this very instant is a settlement tick that has not been, with something to move.   [S-10]

    One that would move nothing is left out (`tick.is_moving` says why nothing is lost).
    """
    second = state.sampled_second
    is_tick = second % tick.TICK_SECONDS == 0 and second > state.settled_second and state.at_us == second * SECOND_US
    return is_tick and (tick.is_moving(state) or fund_sales.has_buyer(state))


def _next_settlement_us(state: State, horizon: int) -> int:
    """The next tick before `horizon`, else that: marks move by themselves, so each tick needs its own.   [S-10, P-2]"""
    second = state.sampled_second
    next_us = (second - second % tick.TICK_SECONDS + tick.TICK_SECONDS) * SECOND_US
    return next_us if next_us < horizon and (tick.is_awaited(state) or state.taken) else horizon


def begin(state: State, command: Genesis, outcome: Outcome) -> None:
    """Birth of the exchange: everything the genesis file says, through the same functions as later changes."""
    require(outcome.seq == 1, RejectReason.NOT_GENESIS, sequence=outcome.seq)
    parameters = command.parameters
    state.exchange = parameters.exchange
    state.devnet = parameters.devnet
    state.public_key = command.public_key
    state.operator_keys = parameters.operator_keys
    state.limits = parameters.limits
    state.last_epoch_hour = outcome.at_us // HOUR_US
    record(outcome, JournalKind.GENESIS, (parameters.exchange, command.public_key, parameters.devnet))
    for asset in parameters.assets:
        configure_asset(state, ConfigureAsset(asset), outcome)
    for chain in parameters.chains:
        configure_chain(state, ConfigureChain(chain), outcome)
    for token in parameters.tokens:
        configure_token(state, ConfigureToken(token), outcome)
    configure_fees(state, ConfigureFees(parameters.fees), outcome)
    for market in parameters.markets:
        configure_market(state, ConfigureMarket(market), outcome)
    for pool in parameters.pools:
        pools.configure(state, ConfigurePool(pool), outcome)


def set_clock(state: State, command: SetClock, outcome: Outcome) -> None:
    """How exchange time runs from now on.   [W-9]"""
    require(state.devnet, RejectReason.NOT_DEVNET, command="SetClock")
    state.clock_mode = command.mode
    state.clock_offset_us = command.offset_us


def advance(state: State, command: AdvanceClock, outcome: Outcome) -> None:
    """Exchange time is `command.at_us` now; the sequencer ran every tick due before.   [W-9]"""
    require(state.devnet, RejectReason.NOT_DEVNET, command="AdvanceClock")
    require(state.clock_mode == ClockMode.MANUAL, RejectReason.CLOCK_MODE, mode=state.clock_mode.name)
    require(outcome.at_us == command.at_us, RejectReason.CLOCK_BACKWARDS, now_us=outcome.at_us, asked_us=command.at_us)


def close_epoch(state: State, command: CloseEpoch, outcome: Outcome) -> EpochClosed:
    """The epoch's image is taken at this command's block; `hour` 0 is an epoch on demand.   [R-1, R-24]

    Interest is posted first, so that leaves show claims and debts as the ledger has them.   [R-2, B-4]
    """
    if command.hour:
        expected = state.last_epoch_hour + 1
        require(command.hour == expected, RejectReason.EPOCH_OUT_OF_ORDER, hour=command.hour, expected=expected)
        state.last_epoch_hour = command.hour
    for asset_id in sorted(state.pools):
        lending.begin(state, outcome, asset_id)
    epoch = state.next_epoch
    state.next_epoch = epoch + 1
    record(outcome, JournalKind.EPOCH_CLOSED, (epoch, command.hour))
    closed = EpochClosed(epoch, command.hour)
    outcome.events.append(closed)
    return closed


def rotate_key(state: State, command: RotateKey, outcome: Outcome) -> None:
    """The new key is put on record in a block that the old key signs.   [A-4]"""
    require(len(command.public_key) == 32, RejectReason.INVALID_PARAMETERS, key_bytes=len(command.public_key))
    state.public_key = command.public_key
    record(outcome, JournalKind.KEY_ROTATED, (command.public_key,))
    outcome.events.append(KeyRotated(command.public_key))
