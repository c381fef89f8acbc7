"""The contract's shapes: every request and answer of the wire as a typed struct, field for field.   [W-3]

Decimals are strings. An optional field that has no value is left out of an answer; a request may also send `null`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Decimal = Annotated[str, Meta(extra_json_schema={"format": "decimal"})]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
NaiveTime = Annotated[str, Meta(extra_json_schema={"format": "naive-date-time"})]
Base64 = Annotated[str, Meta(description="bytes in base64")]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, extra_json_schema={"format": "int32"})]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, extra_json_schema={"format": "int64"})]
UInt8 = Annotated[int, Meta(ge=0, le=2**8 - 1, extra_json_schema={"format": "uint8"})]
UInt16 = Annotated[int, Meta(ge=0, le=2**16 - 1, extra_json_schema={"format": "uint16"})]
UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1, extra_json_schema={"format": "uint32"})]
UInt64 = Annotated[int, Meta(ge=0, le=2**63 - 1, extra_json_schema={"format": "uint64"})]

ClientId = UInt32 | Annotated[str, Meta(pattern="^[0-9]{1,10}$")]
"""A number; bpx-py and ccxt also send it as text when they cancel, and sign it all the same."""
OrderId = str | Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Text; older clients send the number."""

SideName = Literal["Bid", "Ask"]
OrderTypeName = Literal["Market", "Limit"]
TimeInForceName = Literal["GTC", "IOC", "FOK"]
SelfTradeName = Literal["RejectTaker", "RejectMaker", "RejectBoth"]
TriggerName = Literal["MarkPrice", "LastPrice", "IndexPrice"]
SlippageName = Literal["TickSize", "Percent"]
CancelTypeName = Literal["RestingLimitOrder", "ConditionalOrder"]
MarketTypeName = Literal["SPOT", "PERP", "IPERP", "DATED", "PREDICTION", "RFQ"]
BookStateName = Literal["Open", "Closed", "CancelOnly", "LimitOnly", "PostOnly"]
StatusName = Literal["Ok", "Maintenance"]
SortName = Literal["Asc", "Desc"]
OrderStatusName = Literal[
    "Cancelled", "Expired", "Filled", "New", "PartiallyFilled", "TriggerPending", "TriggerFailed"
]
IntervalName = Literal[
    "1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1month"
]
TickerIntervalName = Literal["1d", "1w"]
PriceTypeName = Literal["Last", "Index", "Mark"]
DepthLimitName = Literal["5", "10", "20", "50", "100", "500", "1000"]
FillTypeName = Literal[
    "User",
    "BookLiquidation",
    "Adl",
    "Backstop",
    "Liquidation",
    "AllLiquidation",
    "CollateralConversion",
    "CollateralConversionAndSpotLiquidation",
]
SystemOrderName = Literal[
    "CollateralConversion",
    "FutureExpiry",
    "LiquidatePositionOnAdl",
    "LiquidatePositionOnBook",
    "LiquidatePositionOnBackstop",
    "OrderBookClosed",
]

LendingEventName = Literal["Borrow", "BorrowRepay", "Lend", "LendRedeem"]
LendingSideName = Literal["Borrow", "Lend"]
LendingSourceName = Literal[
    "AdlProvider",
    "AutoBorrowRepay",
    "AutoLend",
    "BackstopProvider",
    "DustConversion",
    "Interest",
    "Liquidation",
    "LiquidationAdl",
    "LiquidationBackstop",
    "Manual",
    "Reconciliation",
    "Rfq",
    "SpotMargin",
    "Withdrawal",
]
LoanStateName = Literal["Open", "Closed"]
LendingStateName = Literal["Open", "Closed", "RepayOnly"]
PaymentName = Literal["EntryFee", "Borrow", "Lend", "UnrealizedPositivePnl", "UnrealizedNegativePnl"]
PaymentSourceName = Literal["UnrealizedPnl", "BorrowLend"]
PoolSpanName = Literal["1d", "1w", "1month", "1year"]
PositionStateName = Literal["Open", "Closed"]
SettlementSourceName = Literal[
    "TradingFees",
    "TradingFeesSystem",
    "FundingPayment",
    "CulledBorrowInterest",
    "CulledRealizePnlAuto",
    "CulledRealizePnlBookUtilisation",
    "CulledRealizePnlAccountThreshold",
    "CulledRealizePnlSystemThreshold",
    "RealizePnl",
    "BackstopProviderLiquidation",
    "BackstopAdlLiquidation",
    "BackstopLiquidityFundProceeds",
    "SystemLiabilityTransfer",
]
SettlementFilterName = Literal[
    "BackstopLiquidation",
    "CulledBorrowInterest",
    "CulledRealizePnl",
    "CulledRealizePnlBookUtilization",
    "FundingPayment",
    "RealizePnl",
    "TradingFees",
    "TradingFeesSystem",
]

ErrorCode = Literal[
    "ACCOUNT_DEACTIVATED",
    "ACCOUNT_LIQUIDATING",
    "BORROW_LIMIT",
    "BORROW_REQUIRES_LEND_REDEEM",
    "FORBIDDEN",
    "INSUFFICIENT_FUNDS",
    "INSUFFICIENT_MARGIN",
    "INSUFFICIENT_SUPPLY",
    "INVALID_ASSET",
    "INVALID_CLIENT_REQUEST",
    "INVALID_MARKET",
    "INVALID_ORDER",
    "INVALID_PRICE",
    "INVALID_POSITION_ID",
    "INVALID_QUANTITY",
    "INVALID_RANGE",
    "INVALID_SIGNATURE",
    "INVALID_SOURCE",
    "INVALID_SYMBOL",
    "INVALID_TWO_FACTOR_CODE",
    "LEND_LIMIT",
    "LEND_REQUIRES_BORROW_REPAY",
    "MAINTENANCE",
    "MAX_LEVERAGE_REACHED",
    "NOT_IMPLEMENTED",
    "ORDER_LIMIT",
    "POSITION_LIMIT",
    "PRECONDITION_FAILED",
    "RESOURCE_NOT_FOUND",
    "SERVER_ERROR",
    "TIMEOUT",
    "TOO_EARLY",
    "TOO_MANY_REQUESTS",
    "TRADING_PAUSED",
    "UNAUTHORIZED",
]


class Wire(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """Base of answers: what is UNSET is left out."""


class Request(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Base of requests: an unknown field is an error, so that a misspelt one is not silently ignored."""


# Requests with a body.


class OrderExecutePayload(Request):
    symbol: str
    side: SideName
    order_type: OrderTypeName
    auto_borrow: bool | None | UnsetType = UNSET
    auto_borrow_repay: bool | None | UnsetType = UNSET
    auto_lend: bool | None | UnsetType = UNSET
    auto_lend_redeem: bool | None | UnsetType = UNSET
    broker_id: UInt16 | None | UnsetType = UNSET
    client_id: ClientId | None | UnsetType = UNSET
    post_only: bool | None | UnsetType = UNSET
    price: Decimal | None | UnsetType = UNSET
    quantity: Decimal | None | UnsetType = UNSET
    quote_quantity: Decimal | None | UnsetType = UNSET
    reduce_only: bool | None | UnsetType = UNSET
    self_trade_prevention: SelfTradeName | None | UnsetType = UNSET
    slippage_tolerance: Decimal | None | UnsetType = UNSET
    slippage_tolerance_type: SlippageName | None | UnsetType = UNSET
    stop_loss_limit_price: Decimal | None | UnsetType = UNSET
    stop_loss_trigger_by: TriggerName | None | UnsetType = UNSET
    stop_loss_trigger_price: str | None | UnsetType = UNSET
    take_profit_limit_price: Decimal | None | UnsetType = UNSET
    take_profit_trigger_by: TriggerName | None | UnsetType = UNSET
    take_profit_trigger_price: str | None | UnsetType = UNSET
    time_in_force: TimeInForceName | None | UnsetType = UNSET
    trigger_by: TriggerName | None | UnsetType = UNSET
    trigger_price: str | None | UnsetType = UNSET
    trigger_quantity: str | None | UnsetType = UNSET
    triggered_by: TriggerName | None | UnsetType = UNSET
    """What bpx-py calls triggerBy."""


class OrderCancelPayload(Request):
    symbol: str
    client_id: ClientId | None | UnsetType = UNSET
    order_id: OrderId | None | UnsetType = UNSET


class OrderCancelAllPayload(Request):
    symbol: str
    order_type: CancelTypeName | None | UnsetType = UNSET


class UpdateAccountSettingsRequest(Request):
    """`autoRealizePnl` is ours.   [W-10]"""

    auto_borrow_settlements: bool | None | UnsetType = UNSET
    auto_lend: bool | None | UnsetType = UNSET
    auto_realize_pnl: bool | None | UnsetType = UNSET
    auto_repay_borrows: bool | None | UnsetType = UNSET
    leverage_limit: Decimal | None | UnsetType = UNSET


class WithdrawalRecipientInformation(msgspec.Struct, forbid_unknown_fields=True):
    withdrawal_address_id: Int32
    withdrawal_purpose: str | None | UnsetType = UNSET
    sanctions_representation: bool | None | UnsetType = UNSET


class AccountWithdrawalPayload(Request):
    address: str
    blockchain: str
    quantity: Decimal
    symbol: str
    auto_borrow: bool | None | UnsetType = UNSET
    auto_lend_redeem: bool | None | UnsetType = UNSET
    client_id: Annotated[str, Meta(max_length=255)] | UInt32 | None | UnsetType = UNSET
    recipient_information: WithdrawalRecipientInformation | None | UnsetType = UNSET
    two_factor_token: str | None | UnsetType = UNSET


class BorrowLendExecutePayload(Request):
    quantity: Decimal
    side: LendingSideName
    symbol: str


class AccountConvertDustPayload(Request):
    symbol: str | None | UnsetType = UNSET
    """Every asset when absent."""


StrategyTypeName = Literal["Scheduled"]
StrategyStatusName = Literal["Running", "Completed", "Cancelled", "Terminated"]
StrategyReasonName = Literal[
    "Expired",
    "FillOrKill",
    "InsufficientBorrowableQuantity",
    "InsufficientFunds",
    "InsufficientLiquidity",
    "InvalidPrice",
    "InvalidQuantity",
    "InsufficientMargin",
    "Liquidation",
    "PriceOutOfBounds",
    "ReduceOnlyNotReduced",
    "SelfTradePrevention",
    "Unknown",
    "UserPermissions",
]
ExecutionModeName = Literal["AwaitAccept", "Immediate"]
RfqFillTypeName = Literal["User", "CollateralConversion"]


class StrategyCreatePayload(Request):
    """Duration and interval are in ms; a slice enters at the beginning of each interval."""

    strategy_type: StrategyTypeName
    side: SideName
    symbol: str
    auto_borrow: bool | None | UnsetType = UNSET
    auto_borrow_repay: bool | None | UnsetType = UNSET
    auto_lend: bool | None | UnsetType = UNSET
    auto_lend_redeem: bool | None | UnsetType = UNSET
    broker_id: UInt16 | None | UnsetType = UNSET
    client_strategy_id: ClientId | None | UnsetType = UNSET
    duration: UInt64 | None | UnsetType = UNSET
    interval: UInt64 | None | UnsetType = UNSET
    post_only: bool | None | UnsetType = UNSET
    price: Decimal | None | UnsetType = UNSET
    quantity: Decimal | None | UnsetType = UNSET
    randomized_interval_quantity: bool | None | UnsetType = UNSET
    reduce_only: bool | None | UnsetType = UNSET
    self_trade_prevention: SelfTradeName | None | UnsetType = UNSET
    slippage_tolerance: Decimal | None | UnsetType = UNSET
    slippage_tolerance_type: SlippageName | None | UnsetType = UNSET
    time_in_force: TimeInForceName | None | UnsetType = UNSET


class StrategyCancelPayload(Request):
    symbol: str
    client_strategy_id: ClientId | None | UnsetType = UNSET
    strategy_id: OrderId | None | UnsetType = UNSET


class StrategyCancelAllPayload(Request):
    symbol: str
    strategy_type: StrategyTypeName | None | UnsetType = UNSET


class RequestForQuotePayload(Request):
    symbol: str
    side: SideName
    auto_borrow: bool | None | UnsetType = UNSET
    auto_borrow_repay: bool | None | UnsetType = UNSET
    auto_lend: bool | None | UnsetType = UNSET
    auto_lend_redeem: bool | None | UnsetType = UNSET
    client_id: ClientId | None | UnsetType = UNSET
    execution_mode: ExecutionModeName | None | UnsetType = UNSET
    price: Decimal | None | UnsetType = UNSET
    quantity: Decimal | None | UnsetType = UNSET
    quote_quantity: Decimal | None | UnsetType = UNSET


class RequestForQuoteRefreshPayload(Request):
    rfq_id: OrderId


class RequestForQuoteCancelPayload(Request):
    client_id: ClientId | None | UnsetType = UNSET
    rfq_id: OrderId | None | UnsetType = UNSET


class QuotePayload(Request):
    rfq_id: OrderId
    bid_price: Decimal
    ask_price: Decimal
    auto_borrow: bool | None | UnsetType = UNSET
    auto_borrow_repay: bool | None | UnsetType = UNSET
    auto_lend: bool | None | UnsetType = UNSET
    auto_lend_redeem: bool | None | UnsetType = UNSET
    client_id: ClientId | None | UnsetType = UNSET


class QuoteAcceptPayload(Request):
    quote_id: OrderId
    client_id: ClientId | None | UnsetType = UNSET
    rfq_id: OrderId | None | UnsetType = UNSET


# Requests with a query. `Query` fields come as text: numbers and booleans are read from it.


class Query(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Base of query parameters."""


class NoQuery(Query):
    """No parameters."""


class AssetsQuery(Query):
    country: str | None = None


class SymbolQuery(Query):
    symbol: str


class MarketsQuery(Query):
    market_type: list[MarketTypeName] = []


class DepthQuery(Query):
    symbol: str
    limit: DepthLimitName = "1000"


class TradesQuery(Query):
    symbol: str
    limit: UInt16 | None = None


class TradesHistoryQuery(Query):
    symbol: str
    limit: UInt64 | None = None
    offset: UInt64 | None = None


class KlinesQuery(Query):
    symbol: str
    interval: IntervalName
    start_time: Int64
    end_time: Int64 | None = None
    price_type: PriceTypeName | None = None


class TickerQuery(Query):
    symbol: str
    interval: TickerIntervalName = "1d"


class TickersQuery(Query):
    interval: TickerIntervalName = "1d"


class OrderQuery(Query):
    symbol: str
    client_id: UInt32 | None = None
    order_id: str | None = None


class OrdersQuery(Query):
    market_type: MarketTypeName | None = None
    symbol: str | None = None


class PositionQuery(Query):
    market_type: MarketTypeName | None = None
    symbol: str | None = None


class SubaccountQuery(Query):
    subaccount_id: UInt16 | None = None
    """Another of the signer's own subaccounts."""


class LiquidationPriceQuery(Query):
    borrow: str
    """A BorrowLendExecutePayload as JSON in base64."""
    subaccount_id: UInt16 | None = None


class ApyQuery(Query):
    tier_id: Int32 | None = None


class MaxOrderQuery(Query):
    symbol: str
    side: SideName
    price: Decimal | None = None
    reduce_only: bool | None = None
    auto_borrow: bool | None = None
    auto_borrow_repay: bool | None = None
    auto_lend_redeem: bool | None = None


class MaxWithdrawalQuery(Query):
    symbol: str
    auto_borrow: bool | None = None
    auto_lend_redeem: bool | None = None


class MarkPricesQuery(Query):
    symbol: str | None = None
    market_type: MarketTypeName | None = None


class OpenInterestQuery(Query):
    symbol: str | None = None


class FundingRatesQuery(Query):
    symbol: str
    limit: UInt64 | None = None
    offset: UInt64 | None = None


class FundingHistoryQuery(Query):
    subaccount_id: UInt16 | None = None
    """Another of the signer's own subaccounts."""
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class SettlementHistoryQuery(Query):
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    source: SettlementFilterName | None = None
    sort_direction: SortName | None = None


class PositionHistoryQuery(Query):
    symbol: str | None = None
    state: PositionStateName | None = None
    market_type: list[MarketTypeName] = []
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class DepositAddressQuery(Query):
    blockchain: str


class DepositsQuery(Query):
    from_: Int64 | None = msgspec.field(name="from", default=None)
    to: Int64 | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    exclude_platform: bool | None = None


class WithdrawalsQuery(Query):
    id: Int32 | None = None
    client_id: str | None = None
    from_: Int64 | None = msgspec.field(name="from", default=None)
    to: Int64 | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None


class FillsQuery(Query):
    order_id: str | None = None
    strategy_id: str | None = None
    from_: Int64 | None = msgspec.field(name="from", default=None)
    to: Int64 | None = None
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    fill_type: FillTypeName | None = None
    market_type: list[MarketTypeName] = []
    sort_direction: SortName | None = None


class LendingHistoryQuery(Query):
    type_: LendingEventName | None = msgspec.field(name="type", default=None)
    sources: str | None = None
    """Names, separated by commas."""
    position_id: str | None = None
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class LoanHistoryQuery(Query):
    symbol: str | None = None
    side: LendingSideName | None = None
    state: LoanStateName | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class InterestHistoryQuery(Query):
    asset: str | None = None
    symbol: str | None = None
    position_id: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    source: PaymentSourceName | None = None
    sort_direction: SortName | None = None


class DustHistoryQuery(Query):
    id: Int64 | None = None
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class PoolHistoryQuery(Query):
    interval: PoolSpanName
    symbol: str | None = None


class OrderHistoryQuery(Query):
    order_id: str | None = None
    strategy_id: str | None = None
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    market_type: list[MarketTypeName] = []
    sort_direction: SortName | None = None


class StrategyQuery(Query):
    symbol: str
    client_strategy_id: UInt32 | None = None
    strategy_id: str | None = None


class StrategiesQuery(Query):
    market_type: MarketTypeName | None = None
    strategy_type: StrategyTypeName | None = None
    symbol: str | None = None


class StrategyHistoryQuery(Query):
    strategy_id: str | None = None
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    market_type: list[MarketTypeName] = []
    sort_direction: SortName | None = None


class RfqsQuery(Query):
    symbol: str | None = None
    rfq_id: UInt64 | None = None
    deferred_settlement: bool | None = None
    subaccount_id: UInt16 | None = None


class RfqHistoryQuery(Query):
    rfq_id: str | None = None
    symbol: str | None = None
    status: OrderStatusName | None = None
    side: SideName | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None
    deferred_settlement: bool | None = None


class QuoteHistoryQuery(Query):
    quote_id: str | None = None
    symbol: str | None = None
    status: OrderStatusName | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None
    deferred_settlement: bool | None = None


class RfqFillHistoryQuery(Query):
    quote_id: str | None = None
    symbol: str | None = None
    side: SideName | None = None
    fill_type: RfqFillTypeName | None = None
    deferred_settlement: bool | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


class QuoteFillHistoryQuery(Query):
    quote_id: str | None = None
    symbol: str | None = None
    side: SideName | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: SortName | None = None


# Answers.


class AccountSummary(Wire):
    auto_borrow_settlements: bool
    auto_lend: bool
    auto_realize_pnl: bool
    auto_repay_borrows: bool
    borrow_limit: Decimal
    futures_maker_fee: Decimal
    futures_taker_fee: Decimal
    leverage_limit: Decimal
    limit_orders: UInt64
    liquidating: bool
    position_limit: Decimal
    spot_maker_fee: Decimal
    spot_taker_fee: Decimal
    trigger_orders: UInt64


class Balance(Wire):
    available: Decimal
    locked: Decimal
    staked: Decimal


class Collateral(Wire):
    """One asset: what counts for it. Never negative: debts are only in `borrowLiability`.   [W-3]"""

    symbol: str
    asset_mark_price: Decimal
    total_quantity: Decimal
    balance_notional: Decimal
    collateral_weight: Decimal
    collateral_value: Decimal
    open_order_quantity: Decimal
    lend_quantity: Decimal
    available_quantity: Decimal


class MarginAccountSummary(Wire):
    """A subaccount in USD.   [C-1 … C-4, M-4 … M-7]"""

    assets_value: Decimal
    """At mark, without weights."""
    borrow_liability: Decimal
    collateral: list[Collateral]
    imf: Decimal
    unsettled_equity: Decimal
    liabilities_value: Decimal
    mmf: Decimal
    net_equity: Decimal
    net_equity_available: Decimal
    net_equity_locked: Decimal
    net_exposure_futures: Decimal
    pnl_unrealized: Decimal
    margin_fraction: Decimal | UnsetType = UNSET


class MaxBorrowQuantity(Wire):
    max_borrow_quantity: Decimal
    symbol: str


class MaxOrderQuantity(Wire):
    max_order_quantity: Decimal
    side: str
    symbol: str
    auto_borrow: bool | UnsetType = UNSET
    auto_borrow_repay: bool | UnsetType = UNSET
    auto_lend_redeem: bool | UnsetType = UNSET
    price: Decimal | UnsetType = UNSET
    reduce_only: bool | UnsetType = UNSET


class MaxWithdrawalQuantity(Wire):
    max_withdrawal_quantity: Decimal
    symbol: str
    auto_borrow: bool | UnsetType = UNSET
    auto_lend_redeem: bool | UnsetType = UNSET


class Token(Wire):
    display_name: str
    blockchain: str
    deposit_enabled: bool
    minimum_deposit: Decimal
    withdraw_enabled: bool
    minimum_withdrawal: Decimal
    withdrawal_fee: Decimal
    contract_address: str | UnsetType = UNSET
    maximum_withdrawal: Decimal | UnsetType = UNSET
    native_decimals: UInt8 | UnsetType = UNSET


class MarketAsset(Wire):
    symbol: str
    display_name: str
    tokens: list[Token]
    coingecko_id: str | UnsetType = UNSET


class SqrtFunction(Wire, tag_field="type", tag="sqrt"):
    base: Decimal
    factor: Decimal


class IdentityFunction(Wire, tag_field="type", tag="identity"):
    pass


class InverseSqrtFunction(Wire, tag_field="type", tag="inverseSqrt"):
    base: Decimal
    positive_curve_penalty: Decimal


class CollateralFunction(Wire):
    weight: Decimal
    kind: IdentityFunction | InverseSqrtFunction


class CollateralSummary(Wire):
    symbol: str
    imf_function: SqrtFunction
    mmf_function: SqrtFunction
    haircut_function: CollateralFunction


class PriceBandMarkPrice(Wire):
    max_multiplier: Decimal
    min_multiplier: Decimal


class PriceBandMeanPremium(Wire):
    tolerance_pct: Decimal


class PriceFilter(Wire):
    min_price: Decimal
    tick_size: Decimal
    max_price: Decimal | UnsetType = UNSET
    max_multiplier: Decimal | UnsetType = UNSET
    min_multiplier: Decimal | UnsetType = UNSET
    max_impact_multiplier: Decimal | UnsetType = UNSET
    min_impact_multiplier: Decimal | UnsetType = UNSET
    mean_mark_price_band: PriceBandMarkPrice | UnsetType = UNSET
    mean_premium_band: PriceBandMeanPremium | UnsetType = UNSET
    borrow_entry_fee_max_multiplier: Decimal | UnsetType = UNSET
    borrow_entry_fee_min_multiplier: Decimal | UnsetType = UNSET
    max_price_update_multiplier: Decimal | UnsetType = UNSET
    min_price_update_multiplier: Decimal | UnsetType = UNSET


class QuantityFilter(Wire):
    min_quantity: Decimal
    step_size: Decimal
    max_quantity: Decimal | UnsetType = UNSET


class OrderBookFilters(Wire):
    price: PriceFilter
    quantity: QuantityFilter


class Market(Wire):
    symbol: str
    base_symbol: str
    quote_symbol: str
    market_type: MarketTypeName
    filters: OrderBookFilters
    order_book_state: BookStateName
    created_at: NaiveTime
    visible: bool
    imf_function: SqrtFunction | UnsetType = UNSET
    mmf_function: SqrtFunction | UnsetType = UNSET
    funding_interval: UInt64 | UnsetType = UNSET
    funding_rate_upper_bound: Decimal | UnsetType = UNSET
    funding_rate_lower_bound: Decimal | UnsetType = UNSET
    open_interest_limit: Decimal | UnsetType = UNSET
    position_limit_weight: Decimal | UnsetType = UNSET


class Depth(Wire):
    asks: list[tuple[Decimal, Decimal]]
    bids: list[tuple[Decimal, Decimal]]
    last_update_id: str
    timestamp: Int64


class Trade(Wire):
    price: Decimal
    quantity: Decimal
    quote_quantity: Decimal
    timestamp: Int64
    is_buyer_maker: bool
    id: Int64 | UnsetType = UNSET


class Kline(Wire):
    start: str
    end: str
    volume: str
    quote_volume: str
    trades: str
    open: str | UnsetType = UNSET
    high: str | UnsetType = UNSET
    low: str | UnsetType = UNSET
    close: str | UnsetType = UNSET


class Ticker(Wire):
    symbol: str
    first_price: Decimal
    last_price: Decimal
    price_change: Decimal
    price_change_percent: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: str


class SecuritySession(Wire):
    name: str
    min_quantity: Decimal
    step_size: Decimal
    max_quantity: Decimal | UnsetType = UNSET


class Security(Wire):
    asset: str
    name: str
    sessions: list[SecuritySession]
    cusip: str | UnsetType = UNSET


class StatusAndMessage(msgspec.Struct):
    """The wire says `"message": null` when there is nothing to say."""

    status: StatusName
    message: str | None = None


class WalletResponse(Wire):
    blockchain: str
    address: str


class LimitOrder(Wire, tag_field="orderType", tag="Limit"):
    id: str
    created_at: Int64
    executed_quantity: Decimal
    executed_quote_quantity: Decimal
    post_only: bool
    price: Decimal
    quantity: Decimal
    self_trade_prevention: SelfTradeName
    status: OrderStatusName
    side: SideName
    symbol: str
    time_in_force: TimeInForceName
    client_id: UInt32 | UnsetType = UNSET
    reduce_only: bool | UnsetType = UNSET
    related_order_id: str | UnsetType = UNSET
    stop_loss_limit_price: Decimal | UnsetType = UNSET
    stop_loss_trigger_by: TriggerName | UnsetType = UNSET
    stop_loss_trigger_price: str | UnsetType = UNSET
    strategy_id: str | UnsetType = UNSET
    take_profit_limit_price: Decimal | UnsetType = UNSET
    take_profit_trigger_by: TriggerName | UnsetType = UNSET
    take_profit_trigger_price: str | UnsetType = UNSET
    trigger_by: TriggerName | UnsetType = UNSET
    trigger_price: str | UnsetType = UNSET
    trigger_quantity: str | UnsetType = UNSET
    triggered_at: Int64 | UnsetType = UNSET


class MarketOrder(Wire, tag_field="orderType", tag="Market"):
    id: str
    created_at: Int64
    executed_quantity: Decimal
    executed_quote_quantity: Decimal
    time_in_force: TimeInForceName
    self_trade_prevention: SelfTradeName
    side: SideName
    status: OrderStatusName
    symbol: str
    client_id: UInt32 | UnsetType = UNSET
    quantity: Decimal | UnsetType = UNSET
    quote_quantity: Decimal | UnsetType = UNSET
    reduce_only: bool | UnsetType = UNSET
    related_order_id: str | UnsetType = UNSET
    slippage_tolerance: Decimal | UnsetType = UNSET
    slippage_tolerance_type: SlippageName | UnsetType = UNSET
    stop_loss_limit_price: Decimal | UnsetType = UNSET
    stop_loss_trigger_by: TriggerName | UnsetType = UNSET
    stop_loss_trigger_price: str | UnsetType = UNSET
    strategy_id: str | UnsetType = UNSET
    take_profit_limit_price: Decimal | UnsetType = UNSET
    take_profit_trigger_by: TriggerName | UnsetType = UNSET
    take_profit_trigger_price: str | UnsetType = UNSET
    trigger_by: TriggerName | UnsetType = UNSET
    trigger_price: str | UnsetType = UNSET
    trigger_quantity: str | UnsetType = UNSET
    triggered_at: Int64 | UnsetType = UNSET


class Order(Wire):
    """An order of the history; `createdAt` is naive ISO here."""

    id: str
    created_at: NaiveTime
    order_type: OrderTypeName
    self_trade_prevention: SelfTradeName
    status: OrderStatusName
    side: SideName
    symbol: str
    time_in_force: TimeInForceName
    client_id: UInt32 | UnsetType = UNSET
    executed_quantity: Decimal | UnsetType = UNSET
    executed_quote_quantity: Decimal | UnsetType = UNSET
    expiry_reason: str | UnsetType = UNSET
    post_only: bool | UnsetType = UNSET
    price: Decimal | UnsetType = UNSET
    quantity: Decimal | UnsetType = UNSET
    quote_quantity: Decimal | UnsetType = UNSET
    slippage_tolerance: Decimal | UnsetType = UNSET
    slippage_tolerance_type: SlippageName | UnsetType = UNSET
    stop_loss_limit_price: Decimal | UnsetType = UNSET
    stop_loss_trigger_by: TriggerName | UnsetType = UNSET
    stop_loss_trigger_price: str | UnsetType = UNSET
    strategy_id: str | UnsetType = UNSET
    system_order_type: SystemOrderName | UnsetType = UNSET
    take_profit_limit_price: Decimal | UnsetType = UNSET
    take_profit_trigger_by: TriggerName | UnsetType = UNSET
    take_profit_trigger_price: str | UnsetType = UNSET
    trigger_by: TriggerName | UnsetType = UNSET
    trigger_price: str | UnsetType = UNSET
    trigger_quantity: str | UnsetType = UNSET


class ScheduledStrategy(Wire, tag_field="strategyType", tag="Scheduled"):
    id: str
    created_at: Int64
    executed_quantity: Decimal
    executed_quote_quantity: Decimal
    quantity: Decimal
    self_trade_prevention: SelfTradeName
    status: StrategyStatusName
    side: SideName
    symbol: str
    time_in_force: TimeInForceName
    duration: UInt64
    interval: UInt64
    client_strategy_id: UInt32 | UnsetType = UNSET
    randomized_interval_quantity: bool | UnsetType = UNSET
    reduce_only: bool | UnsetType = UNSET
    slippage_tolerance: Decimal | UnsetType = UNSET
    slippage_tolerance_type: SlippageName | UnsetType = UNSET


class Strategy(Wire):
    """A strategy of the history; `createdAt` is naive ISO here."""

    id: str
    created_at: NaiveTime
    strategy_type: StrategyTypeName
    self_trade_prevention: SelfTradeName
    status: StrategyStatusName
    side: SideName
    symbol: str
    time_in_force: TimeInForceName
    duration: UInt64
    interval: UInt64
    randomized_interval_quantity: bool
    cancel_reason: StrategyReasonName | UnsetType = UNSET
    client_strategy_id: UInt32 | UnsetType = UNSET
    executed_quantity: Decimal | UnsetType = UNSET
    executed_quote_quantity: Decimal | UnsetType = UNSET
    quantity: Decimal | UnsetType = UNSET
    slippage_tolerance: Decimal | UnsetType = UNSET
    slippage_tolerance_type: SlippageName | UnsetType = UNSET


class RequestForQuote(Wire):
    rfq_id: str
    symbol: str
    side: SideName
    submission_time: Int64
    expiry_time: Int64
    status: OrderStatusName
    execution_mode: ExecutionModeName
    created_at: Int64
    client_id: UInt32 | UnsetType = UNSET
    price: Decimal | UnsetType = UNSET
    quantity: Decimal | UnsetType = UNSET
    quote_quantity: Decimal | UnsetType = UNSET
    system_order_type: SystemOrderName | UnsetType = UNSET


class Quote(Wire):
    rfq_id: str
    quote_id: str
    bid_price: Decimal
    ask_price: Decimal
    status: OrderStatusName
    created_at: Int64
    client_id: UInt32 | UnsetType = UNSET


class RfqWithQuotes(Wire):
    rfq: RequestForQuote
    quotes: list[Quote]


class RequestForQuoteHistorical(Wire):
    rfq_id: str
    symbol: str
    side: SideName
    submission_time: NaiveTime
    expiry_time: NaiveTime
    status: OrderStatusName
    execution_mode: ExecutionModeName
    created_at: NaiveTime
    client_id: UInt32 | UnsetType = UNSET
    deferred_settlement_quote_id: str | UnsetType = UNSET
    price: Decimal | UnsetType = UNSET
    quantity: Decimal | UnsetType = UNSET
    quote_quantity: Decimal | UnsetType = UNSET


class QuoteHistorical(Wire):
    rfq_id: str
    quote_id: str
    bid_price: Decimal
    ask_price: Decimal
    status: OrderStatusName
    created_at: NaiveTime
    deferred_settlement: bool
    client_id: UInt32 | UnsetType = UNSET


class RequestForQuoteFillHistorical(Wire):
    rfq_id: str
    quote_id: str
    symbol: str
    side: SideName
    fill_price: Decimal
    created_at: NaiveTime
    filled_at: NaiveTime
    client_id: UInt32 | UnsetType = UNSET
    quantity: Decimal | UnsetType = UNSET
    quote_quantity: Decimal | UnsetType = UNSET
    system_order_type: SystemOrderName | UnsetType = UNSET


class QuoteFillHistorical(Wire):
    quote_id: str
    rfq_id: str
    symbol: str
    side: SideName
    quantity: Decimal
    fill_price: Decimal
    fee: Decimal
    fee_symbol: str
    created_at: NaiveTime
    filled_at: NaiveTime
    client_id: UInt32 | UnsetType = UNSET


class OrderFill(Wire):
    fee: Decimal
    fee_symbol: str
    is_maker: bool
    order_id: str
    price: Decimal
    quantity: Decimal
    side: SideName
    symbol: str
    timestamp: NaiveTime
    client_id: str | UnsetType = UNSET
    system_order_type: SystemOrderName | UnsetType = UNSET
    trade_id: Int64 | UnsetType = UNSET


class Deposit(Wire):
    id: Int32
    source: str
    status: str
    symbol: str
    quantity: Decimal
    created_at: NaiveTime
    fiat_amount: float | UnsetType = UNSET
    fiat_currency: str | UnsetType = UNSET
    from_address: str | UnsetType = UNSET
    institution_bic: str | UnsetType = UNSET
    platform_memo: str | UnsetType = UNSET
    to_address: str | UnsetType = UNSET
    transaction_hash: str | UnsetType = UNSET


class DepositAddress(Wire):
    address: str


class Withdrawal(Wire):
    id: Int32
    blockchain: str
    quantity: Decimal
    fee: Decimal
    symbol: str
    status: str
    to_address: str
    created_at: NaiveTime
    is_internal: bool
    account_identifier: str | UnsetType = UNSET
    bank_identifier: str | UnsetType = UNSET
    bank_name: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    fiat_fee: Decimal | UnsetType = UNSET
    fiat_state: str | UnsetType = UNSET
    fiat_symbol: str | UnsetType = UNSET
    identifier: str | UnsetType = UNSET
    provider_id: str | UnsetType = UNSET
    subaccount_id: UInt16 | UnsetType = UNSET
    transaction_hash: str | UnsetType = UNSET
    trigger_at: NaiveTime | UnsetType = UNSET


class BorrowLendMarket(Wire):
    """A money market now, interest included; rates are annual fractions.   [B-1 … B-3, B-7, W-3]"""

    state: LendingStateName
    asset_mark_price: Decimal
    borrow_interest_rate: Decimal
    borrowed_quantity: Decimal
    fee: Decimal
    lend_interest_rate: Decimal
    lent_quantity: Decimal
    max_utilization: Decimal
    open_borrow_lend_limit: Decimal
    optimal_utilization: Decimal
    symbol: str
    timestamp: Time
    throttle_utilization_threshold: Decimal
    throttle_utilization_bound: Decimal
    throttle_update_fraction: Decimal
    utilization: Decimal
    step_size: Decimal
    rate_base: Decimal | UnsetType = UNSET
    """This and the next two are ours: the curve.   [W-10]"""
    rate_optimal: Decimal | UnsetType = UNSET
    rate_max: Decimal | UnsetType = UNSET


class BorrowLendPositionWithMargin(Wire):
    """What is lent (above zero) or owed (below) of one asset, interest included.   [W-3]"""

    cumulative_interest: Decimal
    id: str
    imf: Decimal
    imf_function: SqrtFunction
    net_quantity: Decimal
    mark_price: Decimal
    mmf: Decimal
    mmf_function: SqrtFunction
    net_exposure_quantity: Decimal
    net_exposure_notional: Decimal
    symbol: str
    est_liquidation_price: Decimal
    """0: no price of this asset alone would do it."""


class PositionEstimatedLiquidationPrice(Wire):
    liquidation_price: Decimal
    mark_price: Decimal


class BorrowLendApyRate(Wire):
    symbol: str
    borrow_rate: Decimal
    lend_rate: Decimal


class StakingApyRate(Wire):
    symbol: str
    dilution_factor: Decimal
    """The share of what is lent that is staked."""
    staking_rate: Decimal


class ApyRates(Wire):
    borrow_lend: list[BorrowLendApyRate]
    staking: list[StakingApyRate]


class MarkPrice(Wire):
    mark_price: Decimal
    symbol: str
    funding_rate: Decimal | UnsetType = UNSET
    index_price: Decimal | UnsetType = UNSET
    next_funding_timestamp: Int64 | UnsetType = UNSET


class OpenInterest(Wire):
    symbol: str
    timestamp: Int64
    """In ms."""
    open_interest: Decimal | UnsetType = UNSET
    """Base quantity that is long, which is as much as is short."""


class FundingIntervalRate(Wire):
    symbol: str
    interval_end_timestamp: NaiveTime
    funding_rate: Decimal


class FuturePositionWithMargin(Wire):
    """A position now. Lifetime PnL is `pnlRealized` + `pnlUnrealized`; the latter is what no tick has settled yet.

    [C-5, S-10, W-3]
    """

    break_even_price: Decimal
    entry_price: Decimal
    est_liquidation_price: Decimal
    """0: no price of this market alone would do it."""
    imf: Decimal
    imf_function: SqrtFunction
    mark_price: Decimal
    mmf: Decimal
    mmf_function: SqrtFunction
    net_cost: Decimal
    """Net quantity × entry price, below zero when short."""
    net_quantity: Decimal
    net_exposure_quantity: Decimal
    net_exposure_notional: Decimal
    pnl_realized: Decimal
    pnl_unrealized: Decimal
    cumulative_funding_payment: Decimal
    """Above zero: received."""
    symbol: str
    user_id: Int32
    position_id: str
    cumulative_interest: Decimal
    subaccount_id: UInt16 | UnsetType = UNSET
    adl_quantile: UInt8 | UnsetType = UNSET
    """Ours: 1 (last in line) to 5 (first) when positions are closed by rule.   [L-6, W-10]"""


class FundingPayment(Wire):
    """What a position received (above zero) or paid when an interval ended.   [P-21]"""

    user_id: Int32
    symbol: str
    quantity: Decimal
    interval_end_timestamp: NaiveTime
    funding_rate: Decimal
    subaccount_id: UInt16 | UnsetType = UNSET


class Settlement(Wire):
    """USDC that a position, a fee or the system moved.   [S-10 … S-13]"""

    quantity: Decimal
    source: SettlementSourceName
    timestamp: NaiveTime
    user_id: Int32
    subaccount_id: Int32 | UnsetType = UNSET
    position_id: str | UnsetType = UNSET
    engine_sequence: UInt64 | UnsetType = UNSET
    """The command that moved it."""


class PositionHistoryRow(Wire):
    """A position as it stands, or as it was when it closed.   [C-5]"""

    id: str
    symbol: str
    net_quantity: Decimal
    net_exposure_quantity: Decimal
    net_exposure_notional: Decimal
    net_cost: Decimal
    mark_price: Decimal
    entry_price: Decimal
    cumulative_pnl_realized: Decimal
    unrealized_pnl: Decimal
    funding_quantity: Decimal
    interest: Decimal
    liquidated: Decimal
    """Base quantity that the exchange closed: liquidation, backstop, ADL."""
    imf: Decimal
    fees: Decimal
    state: PositionStateName
    closed_volume: Decimal
    liquidation_fees: Decimal
    closing_price: Decimal | UnsetType = UNSET
    """The average price that it was closed at."""
    account_leverage: Decimal | UnsetType = UNSET
    opened_at: NaiveTime | UnsetType = UNSET
    closed_at: NaiveTime | UnsetType = UNSET


class BorrowLendMovement(Wire):
    event_type: LendingEventName
    position_id: str
    quantity: Decimal
    source: LendingSourceName
    symbol: str
    timestamp: NaiveTime
    position_quantity: Decimal | UnsetType = UNSET
    spot_margin_order_id: str | UnsetType = UNSET


class BorrowLendPositionRow(Wire):
    position_id: str
    quantity: Decimal
    """Open: with interest up to now; closed: what its last movement took off it."""
    symbol: str
    source: LendingSourceName
    cumulative_interest: Decimal
    avg_interest_rate: Decimal
    side: LendingSideName
    created_at: NaiveTime


class InterestPayment(Wire):
    payment_type: PaymentName
    interest_rate: Decimal
    interval: UInt64
    """In ms."""
    market_symbol: str
    position_id: str
    quantity: Decimal
    symbol: str
    timestamp: NaiveTime


class DustConversion(Wire):
    id: UInt64
    quantity: Decimal
    symbol: str
    usdc_received: Decimal
    timestamp: NaiveTime


class BorrowLendHistory(Wire):
    borrow_interest_rate: Decimal
    borrowed_quantity: Decimal
    lend_interest_rate: Decimal
    lent_quantity: Decimal
    timestamp: Time
    utilization: Decimal


class PlacedLimitOrder(LimitOrder, kw_only=True, tag_field="orderType", tag="Limit"):
    operation: Literal["Ok"]


class PlacedMarketOrder(MarketOrder, kw_only=True, tag_field="orderType", tag="Market"):
    operation: Literal["Ok"]


class RefusedOrder(Wire, tag_field="operation", tag="Err"):
    code: ErrorCode
    message: str


class ApiErrorResponse(Wire):
    code: ErrorCode
    message: str
