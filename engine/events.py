"""What comes out of the state machine: facts for market data, private streams and history, and replies.

Events are published only when the block that holds their command is durable.   [A-4, A-7]
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from engine.commands import (
    Bracket,
    OrderType,
    Origin,
    SelfTrade,
    Side,
    SlippageKind,
    TimeInForce,
    TriggerBy,
)
from engine.outcome import Outcome as Outcome


class OrderStatus(IntEnum):
    NEW = 1
    PARTIALLY_FILLED = 2
    FILLED = 3
    CANCELLED = 4
    EXPIRED = 5
    TRIGGER_PENDING = 6
    TRIGGER_FAILED = 7


class ExpiryReason(IntEnum):
    """Why an order ended without the user's asking; names are the contract's OrderExpiryReason.   [W-3]"""

    IMMEDIATE_OR_CANCEL = 1
    FILL_OR_KILL = 2
    POST_ONLY_TAKER = 3
    SELF_TRADE_PREVENTION = 4
    PRICE_IMPACT = 5
    INSUFFICIENT_LIQUIDITY = 6
    INSUFFICIENT_FUNDS = 7
    PRICE_OUT_OF_BOUNDS = 8
    INVALID_QUANTITY = 9
    ORDER_BOOK_CLOSED = 10
    INSUFFICIENT_MARGIN = 11
    INSUFFICIENT_BORROWABLE_QUANTITY = 12
    BORROW_REQUIRES_LEND_REDEEM = 13
    NEGATIVE_EQUITY = 14
    REDUCE_ONLY_NOT_REDUCED = 15
    STOP_WITHOUT_POSITION = 16
    POSITION_LIMIT = 17
    SLIPPAGE_TOLERANCE_EXCEEDED = 18
    LIQUIDATION = 19
    POST_ONLY_MODE = 20
    INVALID_PRICE = 21
    MAX_STOP_ORDERS_PER_POSITION = 22
    UNKNOWN = 23


class LendingEvent(IntEnum):
    """What happened to a loan; names are the contract's BorrowLendEventType.   [B-12]"""

    LEND = 1
    LEND_REDEEM = 2
    BORROW = 3
    BORROW_REPAY = 4


class LendingSource(IntEnum):
    """Why; names are the contract's BorrowLendSource.   [B-12]"""

    MANUAL = 1
    AUTO_LEND = 2
    AUTO_BORROW_REPAY = 3
    SPOT_MARGIN = 4
    WITHDRAWAL = 5
    INTEREST = 6
    LIQUIDATION = 7
    LIQUIDATION_BACKSTOP = 8
    LIQUIDATION_ADL = 9
    ADL_PROVIDER = 10
    BACKSTOP_PROVIDER = 11
    RECONCILIATION = 12
    RFQ = 13
    DUST_CONVERSION = 14


class _Fact(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of events and replies: plain, immutable, encodable (a reply is kept in the state for repeats, A-11)."""


class OrderTerms(_Fact):
    """What only some orders have: who made it, what it waits or waited for, what belongs to it.   [S-7, S-9, W-6]"""

    origin: Origin = Origin.USER
    trigger_by: TriggerBy = TriggerBy.NONE
    trigger_price_ticks: int = 0
    trigger_percent: int = 0
    triggered_at_us: int = 0
    stop_loss: Bracket | None = None
    take_profit: Bracket | None = None
    related_order_id: int = 0
    """The parent of a bracket's order."""
    strategy_id: int = 0
    slippage: int = 0
    slippage_kind: SlippageKind = SlippageKind.NONE
    trigger_falls: bool = False
    """It fires when its price falls to `trigger_price_ticks`, not when it rises to it."""


class OrderView(_Fact):
    """An order as it stood right after the command that reports it."""

    order_id: int
    client_id: int | None
    market_id: int
    subaccount_id: int
    user_id: int
    order_type: OrderType
    side: Side
    price_ticks: int
    lots: int
    quote_atoms: int
    executed_lots: int
    executed_quote_atoms: int
    status: OrderStatus
    time_in_force: TimeInForce
    post_only: bool
    reduce_only: bool
    self_trade: SelfTrade
    created_at_us: int
    expiry_reason: ExpiryReason | None = None
    terms: OrderTerms | None = None


class OrderRefused(_Fact):
    """One order of a batch that was refused; `facts` as in Rejection."""

    reason: int
    facts: dict[str, int | str]


class OrderAccepted(_Fact):
    order: OrderView


class OrderCancelled(_Fact):
    """By its owner, or with its market."""

    order: OrderView


class OrderExpired(_Fact):
    """Ended by a rule: `order.expiry_reason` says which."""

    order: OrderView


class Trade(_Fact):
    """One fill at the maker's price; both orders as they stand after it."""

    market_id: int
    trade_id: int
    """Sequential per market, from 1."""
    price_ticks: int
    lots: int
    quote_atoms: int
    taker: OrderView
    maker: OrderView
    taker_fee_asset_id: int
    taker_fee_atoms: int
    maker_fee_asset_id: int
    maker_fee_atoms: int


class TriggerPlaced(_Fact):
    """A trigger order waits.   [S-9]"""

    order: OrderView


class OrderModified(_Fact):
    """A waiting order is over more now: its parent filled further.   [S-9]"""

    order: OrderView


class TriggerFailed(_Fact):
    """A trigger order triggered and was refused: `order.expiry_reason` says why.   [S-9]"""

    order: OrderView


class PositionView(_Fact):
    """A perpetual position as it stands after the command.   [C-5, S-10]"""

    subaccount_id: int
    market_id: int
    position_id: int
    lots: int
    """Signed: below zero is short."""
    entry_atoms: int
    """What it was entered for, in quote atoms ≥ 0: ÷ |lots| it is the average entry, for display."""
    traded_atoms: int
    """Σ −price × signed quantity of its fills since it opened, in quote atoms: never reset."""
    cost_atoms: int
    """The cost account: what it gained against the last settled mark, apart from the mark's own move.   [A-2]"""
    fee_atoms: int
    funding_atoms: int
    """Funding since it opened; above zero: received."""
    opened_at_us: int
    closed_lots: int
    """Closed since it opened."""
    settled: int = 0
    """The market's last settled mark in quote atoms per lot: what `cost_atoms` is counted from."""
    buys: int = 0
    """Lots that open bids (and `sells`: asks) count for in M-1."""
    sells: int = 0


class PositionChanged(_Fact):
    """Opened, adjusted or closed by `origin`; `position.lots` 0: closed.   [W-6]"""

    position: PositionView
    change: int
    """1 opened, 2 adjusted, 3 closed."""
    origin: Origin
    mark: int
    """The mark in PRICE_SCALE, 0 without any."""


class PositionsSettled(_Fact):
    """A settlement tick: which markets at which marks, and what moved; whom is in the journal.   [S-10]"""

    market_ids: tuple[int, ...]
    marks: tuple[int, ...]
    """Quote atoms per lot."""
    paid_atoms: int
    collected_atoms: int
    unsettled_atoms: int
    """What winners wait for."""


class FundingCharged(_Fact):
    """A funding interval ended.   [P-20 … P-22]"""

    market_id: int
    rate: int
    """In 1e-9."""
    interval_end_us: int
    mark: int
    premium: int
    """The interval's mean premium, 1e-9."""
    index: str
    """Cumulative funding of one lot, long, in 1e-12 quote atoms, as a decimal string: it need not fit 64 bits."""


class SettlementMoved(_Fact):
    """USDC that a subaccount owed and how it was found, or got later than its tick.   [S-12, S-13]"""

    subaccount_id: int
    source: str
    """`realize`, `funding`, `fee`, `unsettled`, `claim`, `conversion`, `liquidation`, `backstop`, `adl`, `loss`."""
    atoms: int
    """Above zero: received."""


class ClaimMoved(_Fact):
    """A liquidity-fund claim changed by `atoms`; `position_atoms` after it, below zero: owed.   [V-1, V-2]"""

    subaccount_id: int
    market_id: int
    atoms: int
    position_atoms: int


class LiquidationChanged(_Fact):
    """A liquidation began, took a step, or ended: why, with the numbers before and after.   [L-1, L-10]"""

    subaccount_id: int
    stage: str
    """`started`, `cancelled_orders`, `netted`, `book`, `backstop`, `adl`, `insurance`, `loss`, `debt`, `lender_adl`,
    `collateral`, `ended`."""
    equity_usd: int
    maintenance_usd: int
    notional_usd: int
    market_id: int = 0
    asset_id: int = 0
    quantity: int = 0
    """Lots of a position, atoms of an asset; signed as the account's own holding changed."""
    price: int = 0
    """In PRICE_SCALE."""
    mark: int = 0
    fee_atoms: int = 0
    equity_after_usd: int = 0
    maintenance_after_usd: int = 0
    counterparty_id: int = 0


class LossShared(_Fact):
    """What nobody could pay was charged to one side of a market.   [L-6]"""

    market_id: int
    is_long_side: bool
    atoms: int
    per_lot: int
    """In 1e-12 quote atoms."""


class StrategyView(_Fact):
    strategy_id: int
    client_id: int | None
    subaccount_id: int
    market_id: int
    side: Side
    lots: int
    executed_lots: int
    executed_quote_atoms: int
    price_ticks: int
    duration_ms: int
    interval_ms: int
    randomized: bool
    reduce_only: bool
    self_trade: SelfTrade
    slippage: int
    slippage_kind: SlippageKind
    status: str
    """`Running`, `Completed`, `Cancelled`, `Terminated`."""
    reason: str
    """Why it was terminated, as the contract's StrategyCrankCancelReason; "" for none."""
    created_at_us: int
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False


class StrategyChanged(_Fact):
    strategy: StrategyView


class RfqView(_Fact):
    rfq_id: int
    client_id: int | None
    subaccount_id: int
    market_id: int
    side: Side
    lots: int
    quote_atoms: int
    price_ticks: int
    immediate: bool
    submitted_at_us: int
    expires_at_us: int
    status: OrderStatus
    fill_price_ticks: int = 0
    filled_lots: int = 0


class QuoteView(_Fact):
    quote_id: int
    rfq_id: int
    client_id: int | None
    subaccount_id: int
    bid_ticks: int
    ask_ticks: int
    status: OrderStatus
    created_at_us: int


class RfqChanged(_Fact):
    """`change` as in the wire's account.rfqUpdate; `quote` where one is meant.   [W-6]"""

    change: str
    rfq: RfqView
    quote: QuoteView | None = None
    quote_atoms: int = 0
    """What was paid for it, when it was filled; then also both fees."""
    fee_asset_id: int = 0
    fee_atoms: int = 0
    """The requester's."""
    quoter_fee_asset_id: int = 0
    quoter_fee_atoms: int = 0


class BookLevel(_Fact):
    """A price level's total after the command; 0 lots: the level is gone. At most once per level and command."""

    market_id: int
    side: Side
    price_ticks: int
    lots: int


class BalanceChanged(_Fact):
    """A subaccount's holding of an asset after the command: `available` can be spent, `locked` backs open orders."""

    subaccount_id: int
    asset_id: int
    available_atoms: int
    locked_atoms: int


class DepositView(_Fact):
    deposit_id: int
    chain_id: int
    tx_id: str
    index: int
    wallet: int
    subaccount_id: int
    asset_id: int
    atoms: int
    state: str
    """`provisional`, `final`, `orphaned` or `reversed`."""
    created_at_us: int


class DepositChanged(_Fact):
    deposit: DepositView


class WithdrawalView(_Fact):
    withdrawal_id: int
    subaccount_id: int
    chain_id: int
    asset_id: int
    atoms: int
    """What left the available balance, fee included."""
    fee_atoms: int
    address: str
    client_id: str
    state: str
    """`requested`, `approved`, `settled`, `released` or `rejected`."""
    tx_id: str
    reason: str
    created_at_us: int


class WithdrawalChanged(_Fact):
    withdrawal: WithdrawalView


class UserOpened(_Fact):
    user_id: int


class SubaccountOpened(_Fact):
    user_id: int
    subaccount_id: int


class KeyAdded(_Fact):
    user_id: int
    subaccount_id: int
    public_key: bytes


class KeyRevoked(_Fact):
    user_id: int
    subaccount_id: int
    public_key: bytes


class TransferMade(_Fact):
    from_subaccount_id: int
    to_subaccount_id: int
    asset_id: int
    atoms: int


class LendingMoved(_Fact):
    """A subaccount lent, redeemed, borrowed or repaid `atoms`; `position_atoms`: its claim or debt after it.  [B-12]"""

    subaccount_id: int
    asset_id: int
    event: LendingEvent
    source: LendingSource
    atoms: int
    position_atoms: int
    position_id: int
    """The loan's own number: a new one each time a claim or a debt begins at nothing."""
    order_id: int = 0
    """The spot margin order it belongs to."""
    position_shares: str = ""
    """Its lend or debt shares after it, as a decimal string: what its interest is computed from on query."""


class PoolAccrued(_Fact):
    """A money market at the beginning of an hour, interest included.   [B-4, B-13]"""

    asset_id: int
    hour: int
    lent_atoms: int
    borrowed_atoms: int
    fee_atoms: int
    lend_shares: str
    debt_shares: str
    """Shares as decimal strings: they need not fit 64 bits."""
    borrow_rate: str
    """Annual, in 1e-18."""
    fee_rate: int = 0
    """The pool's cut of the interest, 1e-9: the lend rate follows.   [B-3]"""


class ThrottleMoved(_Fact):
    asset_id: int
    bound: int


class MarksChanged(_Fact):
    """The marks of these assets, and of these perpetual markets, changed.   [P-2]"""

    asset_ids: tuple[int, ...]
    market_ids: tuple[int, ...] = ()


class MarketsPriced(_Fact):
    """Mark and index of these markets as they stand now, in PRICE_SCALE USD: one of them has moved.   [P-1, P-2]"""

    rows: tuple[tuple[int, int, int], ...]
    """(market, mark, index); a spot market's are its base asset's."""


class DustConverted(_Fact):
    """Dust of `asset_id` became `usdc_atoms` (negative: a dust debt was bought back).   [S-3]"""

    subaccount_id: int
    asset_id: int
    atoms: int
    usdc_atoms: int


class YieldShared(_Fact):
    """A yield period closed: `atoms` belong to its lenders.   [Y-1 … Y-3]"""

    asset_id: int
    period: int
    atoms: int


class YieldCollected(_Fact):
    """A lender's share of closed periods was paid to it.   [Y-3]"""

    subaccount_id: int
    asset_id: int
    atoms: int


class SettingsChanged(_Fact):
    subaccount_id: int


class AssetConfigured(_Fact):
    asset_id: int


class MarketConfigured(_Fact):
    market_id: int


class PricesSet(_Fact):
    asset_ids: tuple[int, ...]


class EpochClosed(_Fact):
    """The epoch builder takes its image at this command's block.   [R-1]"""

    epoch: int
    hour: int


class WithdrawalsStopped(_Fact):
    asset_id: int
    stopped: bool
    reason: str


class KeyRotated(_Fact):
    public_key: bytes


class PoolView(_Fact):
    """A liquidity pool right after the command that reports it; amounts in atoms, rates in 1e-18.   [X-1 … X-9]"""

    pool_id: int
    native_balance: int
    external_balance: int
    native_custody: int
    external_custody: int
    native_owed: int
    external_owed: int
    units: int
    health: int
    rate: int
    positions: int
    fund_native: int
    fund_external: int


class PoolChanged(_Fact):
    """What a pool has or asks for changed.   [X-1]"""

    pool: PoolView


class PoolConfigured(_Fact):
    pool_id: int


class LiquidityMoved(_Fact):
    """A provider added (above zero) or removed liquidity; `units_after` is what it holds now.   [X-3, X-4]"""

    subaccount_id: int
    pool_id: int
    native_atoms: int
    external_atoms: int
    units: int
    units_after: int


class PoolSwapped(_Fact):
    """One swap; of two hops each is one, the native asset between them in nobody's hands.   [X-1, X-2]"""

    subaccount_id: int
    pool_id: int
    is_native_paid: bool
    paid_atoms: int
    received_atoms: int
    fee_atoms: int
    """In the asset received; it stays in the pool."""
    hop: int = 0
    """1 and 2 of a swap through two pools; 0: the only one."""


class LongView(_Fact):
    """A leveraged long as it stands; amounts in atoms, of the collateral's asset but for custody's.   [X-5, X-6]"""

    position_id: int
    subaccount_id: int
    pool_id: int
    is_native_collateral: bool
    collateral_atoms: int
    leverage: int
    """In 1e-18."""
    owed_atoms: int
    unpaid_atoms: int
    """Interest that is due and not paid."""
    custody_atoms: int
    paid_atoms: int
    """Interest paid since it opened."""
    paid_custody_atoms: int
    """The same as taken out of custody."""
    health: int
    """At its opening or its last epoch, in 1e-18; what is above 18.4 is shown as that."""
    opened_at_us: int


class LongOpened(_Fact):
    long: LongView
    fee_atoms: int
    """What the swap into custody paid, in custody's asset."""


class LongClosed(_Fact):
    """A position ended: by its owner, or `forced` at an epoch.   [X-10, X-11, X-12]"""

    long: LongView
    """As it was before the close, the interest of the running epoch included."""
    forced: bool
    repaid_atoms: int
    """What custody was swapped back to."""
    fee_atoms: int
    returned_atoms: int
    """To the owner."""
    fund_atoms: int
    """To the fund, of what was left."""
    bad_debt_atoms: int
    """What debt and interest lacked."""
    covered_atoms: int
    """How much of it the fund paid; the rest is the providers' loss."""


class LongNotClosed(_Fact):
    """A forced close that failed, or a health that could not be told: nothing changed, it is tried again at the next
    epoch.   [X-11]
    """

    position_id: int
    subaccount_id: int
    pool_id: int
    health: int
    reason: str


class PoolEpochRan(_Fact):
    """One epoch of a pool.   [X-8, X-9]"""

    pool_id: int
    epoch: int
    """Its number: exchange time over the epoch's length."""
    health: int
    rate: int
    native_interest: int
    """Net of the fund's share: the providers'."""
    external_interest: int
    native_to_fund: int
    external_to_fund: int
    charged: int
    """How many positions were asked for interest, paid or not."""
    forced: int
    failed: int
    """Forced closes that failed, and positions whose health could not be told."""
