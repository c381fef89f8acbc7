"""Genesis, exchange time, epochs, the exchange's own key: what it does by itself and when.   [A-6, R-1, S-15]"""

from __future__ import annotations

from engine.commands import (
    AdvanceClock,
    ClockMode,
    CloseEpoch,
    Command,
    ConfigureAsset,
    ConfigureChain,
    ConfigureFees,
    ConfigureMarket,
    ConfigureToken,
    Genesis,
    RotateKey,
    SampleMarks,
    SetClock,
)
from engine.events import EpochClosed, KeyRotated, Outcome
from engine.markets import configure_asset, configure_chain, configure_fees, configure_market, configure_token
from engine.posting import record
from engine.rejections import RejectReason, require
from engine.state import State
from ledger.journal import JournalKind

HOUR_US = 3_600_000_000
SECOND_US = 1_000_000


def due(state: State, now_us: int) -> tuple[int, Command] | None:
    """The next scheduled command due by `now_us`, with its due time; it runs before any later command.   [S-15]"""
    if state.sequence == 0:
        return None
    hour = state.last_epoch_hour + 1
    epoch_us = hour * HOUR_US
    # The earliest of everything but samples; of what falls due at once, S-15's order decides.
    other_us = epoch_us
    if state.prices:
        # Nothing happens between two other commands, so the seconds up to the next are sampled in one go.
        second = (now_us if now_us < other_us else other_us) // SECOND_US
        if second > state.sampled_second:
            return second * SECOND_US, SampleMarks(second - state.sampled_second)
    if other_us > now_us:
        return None
    return epoch_us, CloseEpoch(hour)


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
    """The epoch's image is taken at this command's block; `hour` 0 is an epoch on demand.   [R-1, R-24]"""
    if command.hour:
        expected = state.last_epoch_hour + 1
        require(command.hour == expected, RejectReason.EPOCH_OUT_OF_ORDER, hour=command.hour, expected=expected)
        state.last_epoch_hour = command.hour
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
