"""`apply`: the one function that changes the exchange.   [A-6]"""

from __future__ import annotations

from typing import Any, assert_never

from engine import (
    accounts,
    backstop,
    clock,
    custody,
    firing,
    fund_sales,
    funding,
    insurance,
    lending,
    liquidation,
    loans,
    markets,
    orders,
    pool_epochs,
    pool_positions,
    pools,
    pricing,
    rfq,
    staking,
    strategies,
    tick,
    triggers,
    yields,
)
from engine.commands import (
    USER_COMMANDS,
    AcceptQuote,
    AccrueInterest,
    AddKey,
    AddLiquidity,
    AdvanceClock,
    ApproveWithdrawal,
    BorrowLend,
    CancelAllOrders,
    CancelAllStrategies,
    CancelOrder,
    CancelRfq,
    CancelStrategy,
    ChargeFunding,
    CloseEpoch,
    CloseLong,
    CloseYieldPeriod,
    CollectPoolFees,
    Command,
    ConfigureAsset,
    ConfigureChain,
    ConfigureFees,
    ConfigureMarket,
    ConfigurePool,
    ConfigureToken,
    ConvertDust,
    CreateStrategy,
    CreditDeposit,
    ExpireRfqs,
    FeedQuotes,
    FinalizeDeposit,
    FireTriggers,
    FundCustody,
    FundInsurance,
    Genesis,
    GrantTier,
    Liquidate,
    OpenLong,
    OpenSubaccount,
    OrphanDeposit,
    PlaceOrder,
    PlaceOrders,
    ReceiveYield,
    RecordSweep,
    RefreshRfq,
    RegisterBackstop,
    RegisterKey,
    RejectWithdrawal,
    ReleaseWithdrawal,
    RemoveLiquidity,
    RequestWithdrawal,
    RestoreDeposit,
    ReverseDeposit,
    RevokeKey,
    RotateKey,
    RunPoolEpochs,
    RunStrategies,
    SampleMarks,
    SetClock,
    SetPrices,
    SettlePositions,
    SettleWithdrawal,
    StakeAssets,
    StopWithdrawals,
    SubmitQuote,
    SubmitRfq,
    SwapAssets,
    Transfer,
    UnstakeAssets,
    UpdateAccount,
    UpdateThrottle,
)
from engine.events import BalanceChanged, Outcome
from engine.rejections import Rejection, RejectReason, require
from engine.state import ASSET_BITS, State
from ledger.blocks import SignedRequest
from ledger.chart import OWNER_BITS, AccountKind

OPERATOR_COMMANDS: tuple[type, ...] = (
    ConfigureAsset,
    ConfigureChain,
    ConfigureToken,
    ConfigureMarket,
    ConfigureFees,
    ConfigurePool,
    GrantTier,
    RegisterKey,
    SetPrices,
    FeedQuotes,
    CollectPoolFees,
    StakeAssets,
    UnstakeAssets,
    ReceiveYield,
    FundInsurance,
    RotateKey,
)
"""Commands that an operator's key must sign, except on a devnet.   [W-7, W-9]"""

_USER_COMMANDS = frozenset(USER_COMMANDS)
_OPERATOR_COMMANDS = frozenset(OPERATOR_COMMANDS)
_ORDERS = frozenset((PlaceOrder, PlaceOrders, CancelOrder, CancelAllOrders))
_AVAILABLE_BASE = AccountKind.AVAILABLE << OWNER_BITS
_ASSET_MASK = (1 << ASSET_BITS) - 1


def apply(state: State, seq: int, at_us: int, command: Command, request: SignedRequest | None = None) -> Outcome:
    """Apply one command. Reads nothing but its arguments; a rejected command changes nothing but the sequence.

    `seq` is the next in the total order, `at_us` exchange time in µs, never before the last one.   [A-6]
    """
    assert seq == state.sequence + 1, f"command {seq} does not follow {state.sequence}"
    assert at_us >= state.at_us, f"command {seq}: time {at_us} is before {state.at_us}"
    state.sequence = seq
    outcome = Outcome(seq, at_us)
    asked = request.api_key + request.signature if request is not None else b""
    try:
        if request is not None:
            repeat = _first_answer(state, asked, request)
            if repeat is not None:
                outcome.reply = repeat[1]
                return outcome
        _require_authority(state, command, request)
        if type(command) in _ORDERS:
            outcome.reply = _perform(state, command, outcome)
        else:
            # What `engine.spare` remembers holds through orders only.
            state.valuations.spare.clear()
            outcome.reply = _perform(state, command, outcome)
            state.valuations.spare.clear()
    except Rejection as rejection:
        outcome.rejection = rejection
    if outcome.rejection is not None:
        half_done = bool(outcome.journal or outcome.touched or outcome.events)
        assert not half_done, f"command {seq} was refused half way: {outcome.rejection}"
        return outcome
    # From here the command succeeded.
    state.at_us = at_us
    if state.strategies and type(command) is not RunStrategies:
        strategies.follow(state, outcome)
    if state.triggers is not None:
        triggers.follow(state, outcome, type(command) not in _ORDERS)
    if request is not None:
        _remember(state, asked, request, outcome.reply)
    if outcome.touched:
        if state.has_yields:
            yields.collect_touched(state, outcome)
        if state.unsettled:
            tick.pay_unsettled(state, outcome)
        if state.automatic:
            lending.settle_idle(state, outcome)
        _report_balances(state, outcome)
    liquidation.find(state, command, outcome, is_order=type(command) in _ORDERS)
    return outcome


def _perform(state: State, command: Command, outcome: Outcome) -> Any:
    """The reply of the command's own function: one line per command."""
    match command:
        case PlaceOrder():
            return orders.place(state, command, outcome)
        case CancelOrder():
            return orders.cancel(state, command, outcome)
        case PlaceOrders():
            return orders.place_batch(state, command, outcome)
        case CancelAllOrders():
            return orders.cancel_all(state, command, outcome)
        case SwapAssets():
            return pools.swap(state, command, outcome)
        case Transfer():
            return accounts.transfer(state, command, outcome)
        case UpdateAccount():
            return accounts.update(state, command, outcome)
        case RegisterKey():
            return accounts.register_key(state, command, outcome)
        case AddKey():
            return accounts.add_key(state, command, outcome)
        case RevokeKey():
            return accounts.revoke_key(state, command, outcome)
        case OpenSubaccount():
            return accounts.open_subaccount(state, command, outcome)
        case CreditDeposit():
            return custody.credit_deposit(state, command, outcome)
        case FinalizeDeposit():
            return custody.finalize_deposit(state, command, outcome)
        case OrphanDeposit():
            return custody.orphan_deposit(state, command, outcome)
        case RestoreDeposit():
            return custody.restore_deposit(state, command, outcome)
        case ReverseDeposit():
            return custody.reverse_deposit(state, command, outcome)
        case RequestWithdrawal():
            return custody.request_withdrawal(state, command, outcome)
        case ApproveWithdrawal():
            return custody.approve_withdrawal(state, command, outcome)
        case RejectWithdrawal():
            return custody.reject_withdrawal(state, command, outcome)
        case SettleWithdrawal():
            return custody.settle_withdrawal(state, command, outcome)
        case ReleaseWithdrawal():
            return custody.release_withdrawal(state, command, outcome)
        case RecordSweep():
            return custody.record_sweep(state, command, outcome)
        case FundCustody():
            return custody.fund_custody(state, command, outcome)
        case StopWithdrawals():
            return custody.stop_withdrawals(state, command, outcome)
        case SetPrices():
            return pricing.set_prices(state, command, outcome)
        case FeedQuotes():
            return pricing.feed_quotes(state, command, outcome)
        case SampleMarks():
            return pricing.sample_marks(state, command, outcome)
        case ConfigureAsset():
            return markets.configure_asset(state, command, outcome)
        case ConfigureChain():
            return markets.configure_chain(state, command, outcome)
        case ConfigureToken():
            return markets.configure_token(state, command, outcome)
        case ConfigureMarket():
            return markets.configure_market(state, command, outcome)
        case ConfigureFees():
            return markets.configure_fees(state, command, outcome)
        case GrantTier():
            return markets.grant_tier(state, command, outcome)
        case SetClock():
            return clock.set_clock(state, command, outcome)
        case AdvanceClock():
            return clock.advance(state, command, outcome)
        case CloseEpoch():
            return clock.close_epoch(state, command, outcome)
        case RotateKey():
            return clock.rotate_key(state, command, outcome)
        case Genesis():
            return clock.begin(state, command, outcome)
        case BorrowLend():
            return loans.borrow_lend(state, command, outcome)
        case ConvertDust():
            return loans.convert_dust(state, command, outcome)
        case AccrueInterest():
            return loans.begin_hour(state, command, outcome)
        case ChargeFunding():
            return funding.charge(state, command, outcome)
        case SettlePositions():
            tick.settle_positions(state, command, outcome)
            if state.taken or state.holes:
                fund_sales.sell(state, outcome)
            return None
        case UpdateThrottle():
            return lending.update_throttle(state, command, outcome)
        case Liquidate():
            return liquidation.liquidate(state, command, outcome)
        case FireTriggers():
            return firing.fire(state, command, outcome)
        case CreateStrategy():
            return strategies.create(state, command, outcome)
        case CancelStrategy():
            return strategies.cancel(state, command, outcome)
        case CancelAllStrategies():
            return strategies.cancel_all(state, command, outcome)
        case RunStrategies():
            return strategies.run(state, command, outcome)
        case SubmitRfq():
            return rfq.submit(state, command, outcome)
        case RefreshRfq():
            return rfq.refresh(state, command, outcome)
        case CancelRfq():
            return rfq.cancel(state, command, outcome)
        case SubmitQuote():
            return rfq.quote(state, command, outcome)
        case AcceptQuote():
            return rfq.accept(state, command, outcome)
        case ExpireRfqs():
            return rfq.expire(state, command, outcome)
        case CollectPoolFees():
            return lending.collect_fees(state, command, outcome)
        case StakeAssets():
            return staking.stake(state, command, outcome)
        case UnstakeAssets():
            return staking.unstake(state, command, outcome)
        case ReceiveYield():
            return yields.receive(state, command, outcome)
        case RegisterBackstop():
            return backstop.register(state, command, outcome)
        case FundInsurance():
            return insurance.fund(state, command, outcome)
        case ConfigurePool():
            return pools.configure(state, command, outcome)
        case AddLiquidity():
            return pools.add(state, command, outcome)
        case RemoveLiquidity():
            return pools.remove(state, command, outcome)
        case OpenLong():
            return pool_positions.open_long(state, command, outcome)
        case CloseLong():
            return pool_positions.close_long(state, command, outcome)
        case RunPoolEpochs():
            return pool_epochs.run(state, command, outcome)
        case CloseYieldPeriod():
            return yields.close_period(state, command, outcome)
        case _:
            assert_never(command)


def _first_answer(state: State, asked: bytes, request: SignedRequest) -> tuple[int, Any] | None:
    """The remembered answer of a repeated request; says no to one whose window has passed.   [A-11]"""
    expires_ms = request.timestamp_ms + request.window_ms
    if request.received_ms > expires_ms or state.wall_ms > expires_ms:
        wall_ms = max(state.wall_ms, request.received_ms)
        raise Rejection(RejectReason.REQUEST_EXPIRED, expired_ms=expires_ms, now_ms=wall_ms)
    return state.requests.get(asked)


def _remember(state: State, asked: bytes, request: SignedRequest, reply: Any) -> None:
    """Keep the first answer until the request's window has passed.   [A-11]"""
    state.requests[asked] = (request.timestamp_ms + request.window_ms, reply)
    wall_ms, received_ms = state.wall_ms, request.received_ms
    if received_ms > wall_ms:
        state.wall_ms = received_ms
        # Once a second: the front of a dict that loses its oldest entries is slow to find.
        if received_ms // 1_000 != wall_ms // 1_000:
            _forget_expired(state)


def _forget_expired(state: State) -> None:
    """Expired ones leave from the front; one behind a longer window waits for it, at most a minute."""
    expired = []
    for asked, (until_ms, _reply) in state.requests.items():
        if until_ms >= state.wall_ms:
            break
        expired.append(asked)
    for asked in expired:
        del state.requests[asked]


def _require_authority(state: State, command: Command, request: SignedRequest | None) -> None:
    """Who may bring in what: users their own, operators configuration, everything else is a rule's.   [A-5, W-7]"""
    kind = type(command)
    if kind in _USER_COMMANDS:
        if request is None:
            raise Rejection(RejectReason.UNSIGNED, command=kind.__name__)
        key = state.api_keys.get(request.api_key)
        if key is None:
            raise Rejection(RejectReason.UNKNOWN_KEY, key=request.api_key.hex())
        accounts.require_owner(state, command, key)
    elif request is not None:
        require(request.api_key in state.operator_keys, RejectReason.UNKNOWN_KEY, key=request.api_key.hex())
    elif kind in _OPERATOR_COMMANDS:
        require(state.devnet, RejectReason.UNSIGNED, command=kind.__name__)


def _report_balances(state: State, outcome: Outcome) -> None:
    """BalanceChanged for each touched holding, and A-13's promise: nothing below zero, nothing reserved twice."""
    balances, subaccounts, events = state.balances, state.subaccounts, outcome.events
    usdc, cash_moved = state.usdc, state.cash_moved
    for key in outcome.touched:
        subaccount_id, asset_id = key >> ASSET_BITS, key & _ASSET_MASK
        if asset_id == usdc:
            # What is locked of it may have changed.
            cash_moved[subaccount_id] = None
        held = -balances.get((_AVAILABLE_BASE | subaccount_id) << ASSET_BITS | asset_id, 0)
        reserved = subaccounts[subaccount_id].reserved.get(asset_id, 0)
        assert 0 <= reserved <= held, (
            f"command {outcome.seq}: subaccount {subaccount_id} holds {held} of asset {asset_id}, reserved {reserved}"
        )
        events.append(BalanceChanged(subaccount_id, asset_id, held - reserved, reserved))
