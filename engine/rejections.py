"""The reasons the engine can say no with: a number for the log, facts for the person who asked.   [A-6]"""

from __future__ import annotations

from enum import IntEnum


class RejectReason(IntEnum):
    """Numbers are written to the log: never reuse one. 0 is 'accepted'."""

    NOT_GENESIS = 1
    UNKNOWN_ASSET = 2
    UNKNOWN_MARKET = 3
    UNKNOWN_CHAIN = 4
    UNKNOWN_TOKEN = 5
    UNKNOWN_USER = 6
    UNKNOWN_SUBACCOUNT = 7
    UNKNOWN_KEY = 8
    UNKNOWN_ORDER = 9
    UNKNOWN_DEPOSIT = 10
    UNKNOWN_WITHDRAWAL = 11
    KEY_TAKEN = 12
    KEY_LIMIT = 13
    SUBACCOUNT_LIMIT = 14
    NOT_OWNER = 15
    UNSIGNED = 16
    REQUEST_EXPIRED = 17
    INVALID_PARAMETERS = 18
    IMMUTABLE_PARAMETER = 19
    UNKNOWN_SOURCE = 20
    INVALID_QUANTITY = 32
    INVALID_PRICE = 33
    PRICE_OUT_OF_BAND = 34
    NO_ACTIVE_PRICE = 35
    POST_ONLY_WOULD_TAKE = 36
    MARKET_CLOSED = 37
    POST_ONLY_MODE = 38
    LIMIT_ONLY_MODE = 39
    CANCEL_ONLY_MODE = 40
    NOT_SUPPORTED = 41
    DUPLICATE_CLIENT_ID = 42
    ORDER_LIMIT = 43
    INSUFFICIENT_FUNDS = 44
    INVALID_ORDER = 45
    BATCH_SIZE = 46
    INVALID_LEVERAGE = 47
    INSUFFICIENT_MARGIN = 48
    BORROW_LIMIT = 49
    LEND_LIMIT = 50
    INSUFFICIENT_SUPPLY = 51
    LENDING_CLOSED = 52
    BORROW_REQUIRES_LEND_REDEEM = 53
    LEND_REQUIRES_BORROW_REPAY = 54
    MAX_LEVERAGE = 55
    NO_PRICE = 56
    AUTO_LEND_IS_ON = 57
    NOTHING_TO_CONVERT = 58
    STAKED_LIMIT = 59
    DUPLICATE_DEPOSIT = 64
    DEPOSIT_STATE = 65
    WITHDRAWAL_STATE = 66
    WITHDRAWALS_FROZEN = 67
    WITHDRAWALS_STOPPED = 68
    WITHDRAWAL_TOO_SMALL = 69
    WITHDRAWAL_TOO_LARGE = 70
    DUPLICATE_WITHDRAWAL = 71
    TOKEN_DISABLED = 72
    PROVISIONAL_FUNDS = 73
    SAME_SUBACCOUNT = 74
    CHAIN_LIQUIDITY = 75
    CLOCK_MODE = 80
    CLOCK_BACKWARDS = 81
    NOT_DEVNET = 82
    EPOCH_OUT_OF_ORDER = 83
    TICK_OUT_OF_ORDER = 84
    QUOTE_TIME = 85
    REDUCE_ONLY = 96
    OPEN_INTEREST_LIMIT = 97
    POSITION_LIMIT = 98
    IN_LIQUIDATION = 99
    UNKNOWN_STRATEGY = 100
    STRATEGY_LIMIT = 101
    UNKNOWN_RFQ = 102
    UNKNOWN_QUOTE = 103
    RFQ_STATE = 104
    TRIGGER_LIMIT = 105
    TRIGGER_PRICE = 106
    UNSETTLED_LOSS = 107
    BACKSTOP_LIMIT = 108
    NO_CLAIM_ROOM = 109
    UNKNOWN_POOL = 128
    UNKNOWN_POOL_POSITION = 129
    POOL_CLOSED = 130
    POOL_PAIR = 131
    EMPTY_POOL = 132
    POOL_DEPTH = 133
    POOL_AMOUNT = 134
    MIN_RECEIVED = 135
    POOL_HEALTH = 136
    POOL_LEVERAGE = 137
    BORROW_TOO_LOW = 138
    CUSTODY_DEPTH = 139
    POSITION_HEALTH = 140
    POOL_POSITIONS = 141
    POOL_LENT_LIMIT = 142
    POOL_PRICE_MOVED = 143
    POOL_UNITS = 144
    POOL_EPOCH = 145
    POOL_LIMIT = 146
    NATIVE_COLLATERAL = 147


class Rejection(Exception):
    """An expected no. `facts` name what, which and both numbers; nothing has changed when it is raised."""

    def __init__(self, reason: RejectReason, **facts: int | str) -> None:
        super().__init__(reason, facts)
        self.reason = reason
        self.facts = facts


def require(condition: bool, reason: RejectReason, **facts: int | str) -> None:
    """Say no unless `condition` holds. On the hot path write the `if … raise` out: facts are built even when unused."""
    if not condition:
        raise Rejection(reason, **facts)
