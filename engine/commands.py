"""What goes into the state machine: one struct per command, with its canonical bytes.

A command is an array in MessagePack, tag first, fields by position; new fields go to the end with a default. What a
user sent arrives with the user's own signature beside it (`ledger.blocks.SignedRequest`).   [A-5, A-6]
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from engine.parameters import (
    AssetParameters,
    ChainParameters,
    FeeSchedule,
    GenesisParameters,
    MarketParameters,
    PoolParameters,
    TokenParameters,
)


class Side(IntEnum):
    BID = 1
    ASK = 2


class OrderType(IntEnum):
    LIMIT = 1
    MARKET = 2


class TimeInForce(IntEnum):
    GTC = 1
    IOC = 2
    FOK = 3


class SelfTrade(IntEnum):
    """Self-trade prevention, keyed by user.   [S-7]"""

    REJECT_TAKER = 1
    REJECT_MAKER = 2
    REJECT_BOTH = 3


class TriggerBy(IntEnum):
    """Which price a trigger order waits for.   [S-7, S-9]"""

    NONE = 0
    LAST = 1
    MARK = 2
    INDEX = 3


class SlippageKind(IntEnum):
    """What a slippage tolerance counts in, from the best opposite price when the order enters.   [S-7]"""

    NONE = 0
    TICKS = 1
    PERCENT = 2
    """In 1e-9 of the price."""


class Origin(IntEnum):
    """Who made an order; names are the wire's `O`.   [W-6]"""

    USER = 0
    LIQUIDATION = 1
    ADL = 2
    COLLATERAL_CONVERSION = 3
    SETTLEMENT = 4
    BACKSTOP = 5


class LendingSide(IntEnum):
    """Of a manual loan: Lend repays a debt of the asset first, Borrow redeems what is lent first.   [B-4, B-12]"""

    LEND = 1
    BORROW = 2


class ClockMode(IntEnum):
    REAL = 1
    MANUAL = 2


class _Command(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all commands: the tag is the class name."""


class Genesis(_Command):
    """The first command; lists assets, chains, markets, fees. `public_key` signs block 0."""

    parameters: GenesisParameters
    public_key: bytes


class ConfigureAsset(_Command):
    asset: AssetParameters


class ConfigureChain(_Command):
    chain: ChainParameters


class ConfigureToken(_Command):
    token: TokenParameters


class ConfigureMarket(_Command):
    market: MarketParameters


class ConfigureFees(_Command):
    fees: FeeSchedule


class RotateKey(_Command):
    """The exchange signs with `public_key` from the next block on.   [A-4]"""

    public_key: bytes


class GrantTier(_Command):
    """Operator's grant of a fee tier by index; -1 takes it back.   [F-2]"""

    user_id: int
    spot_tier: int
    futures_tier: int


class SetPrices(_Command):
    """Index prices: (asset id, price in PRICE_SCALE). On a devnet they stay live until replaced.   [P-1, W-9]"""

    prices: tuple[tuple[int, int], ...]


class Quote(msgspec.Struct, frozen=True, array_like=True):
    """What one source said about one asset; prices in PRICE_SCALE, 0 where the source had none.   [P-1]"""

    asset_id: int
    source: str
    best_bid: int
    best_ask: int
    last: int
    at_us: int
    """When the source said so."""


class FeedQuotes(_Command):
    """Quotes of outside sources, from which the engine makes the index price.   [P-1]"""

    quotes: tuple[Quote, ...]


class SampleMarks(_Command):
    """A second of exchange time has passed (or `samples` of them, when nothing else happened in between).   [P-2]"""

    samples: int


class AccrueInterest(_Command):
    """The hour `hour` (since 1970) begins: every money market charges and pays its interest.   [B-4]"""

    hour: int


class UpdateThrottle(_Command):
    """A 10-second tick: the bound of each money market's utilization moves.   [B-7]"""


class SetClock(_Command):
    """Devnet: how exchange time runs; in manual mode it stands still but for AdvanceClock.   [W-9]

    In real mode exchange time is the wall clock plus `offset_us`, so that it never runs back after an advance.
    """

    mode: ClockMode
    offset_us: int = 0


class AdvanceClock(_Command):
    """Devnet, manual mode: exchange time becomes `at_us` once every tick due before has run.   [W-9, S-15]"""

    at_us: int


class CloseEpoch(_Command):
    """The block of this command is the one the epoch is taken at. `hour`: hours since 1970, 0 on demand.   [R-1]"""

    hour: int


class RegisterKey(_Command):
    """Register an API key: opens the user or the subaccount when 0 is given or absent.   [W-7, W-9]

    Signed by the operator, except on a devnet; a key for an existing user outside a devnet is AddKey.
    """

    public_key: bytes
    user_id: int = 0
    subaccount_id: int = 0


class AddKey(_Command):
    """A user adds a key for one of their subaccounts; signed by one of the user's keys.   [A-5]"""

    subaccount_id: int
    public_key: bytes


class RevokeKey(_Command):
    subaccount_id: int
    public_key: bytes


class OpenSubaccount(_Command):
    """Opens a subaccount for the signer's user (at most ten) with `public_key` as its API key.   [U-1]"""

    user_id: int
    public_key: bytes


class Transfer(_Command):
    """Between a user's own subaccounts, instant and free.   [U-2]"""

    from_subaccount_id: int
    to_subaccount_id: int
    asset_id: int
    atoms: int
    auto_borrow: bool = False
    """Borrow what is missing.   [S-5]"""


class BorrowLend(_Command):
    """Lend (after repaying what is owed) or borrow (after redeeming what is lent) by hand.   [B-4, B-8, B-10]"""

    subaccount_id: int
    asset_id: int
    side: LendingSide
    atoms: int


class ConvertDust(_Command):
    """Sell holdings under one lot to the dust account for USDC; `asset_id` 0: all of them.   [S-3]"""

    subaccount_id: int
    asset_id: int = 0


class CollectPoolFees(_Command):
    """The operator takes a money market's fees as income; only from idle and under the throttle.   [B-14]"""

    asset_id: int
    atoms: int


class StakeAssets(_Command):
    """Coins of the hot wallet were staked with the validator, in `tx_id`.   [Y-1]"""

    asset_id: int
    chain_id: int
    atoms: int
    tx_id: str


class UnstakeAssets(_Command):
    """Staked coins are back in the hot wallet, by `tx_id`.   [Y-1]"""

    asset_id: int
    chain_id: int
    atoms: int
    tx_id: str


class ReceiveYield(_Command):
    """A reward or return for the running period's lenders arrived in the hot wallet.   [Y-1, Y-2]"""

    asset_id: int
    chain_id: int
    atoms: int
    tx_id: str
    source: str
    """`staking` or `treasury`."""


class CloseYieldPeriod(_Command):
    """A yield period of an asset's money market has ended: what came in is shared out.   [Y-3]"""

    asset_id: int
    period: int


class UpdateAccount(_Command):
    """Settings; None leaves one as it is. `leverage_limit` in RATE_SCALE.   [U-4, W-10]"""

    subaccount_id: int
    auto_lend: bool | None = None
    auto_repay_borrows: bool | None = None
    auto_borrow_settlements: bool | None = None
    auto_realize_pnl: bool | None = None
    leverage_limit: int | None = None


class Bracket(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A take-profit or stop-loss that arms when its parent first fills; a market order without a limit price.  [S-9]"""

    trigger_by: TriggerBy
    trigger_price_ticks: int
    limit_price_ticks: int = 0


class PlaceOrder(_Command):
    """A limit order (`price_ticks`, `lots`) or a market order (`lots`, or `quote_atoms` to spend or get).   [S-7]

    With `trigger_by` it waits, locks nothing and is judged when it triggers; its quantity is then `lots`, or
    `trigger_percent` (1e-9) of the position.   [S-9]
    """

    subaccount_id: int
    market_id: int
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce = TimeInForce.GTC
    price_ticks: int = 0
    lots: int = 0
    quote_atoms: int = 0
    post_only: bool = False
    reduce_only: bool = False
    self_trade: SelfTrade = SelfTrade.REJECT_TAKER
    client_id: int | None = None
    auto_lend: bool = False
    auto_lend_redeem: bool = False
    auto_borrow: bool = False
    auto_borrow_repay: bool = False
    trigger_by: TriggerBy = TriggerBy.NONE
    trigger_price_ticks: int = 0
    trigger_percent: int = 0
    stop_loss: Bracket | None = None
    take_profit: Bracket | None = None
    slippage: int = 0
    slippage_kind: SlippageKind = SlippageKind.NONE


class PlaceOrders(_Command):
    """A batch under one signature; each order is accepted or refused on its own."""

    orders: tuple[PlaceOrder, ...]


class CancelOrder(_Command):
    """By exactly one of `order_id` and `client_id`."""

    subaccount_id: int
    market_id: int
    order_id: int | None = None
    client_id: int | None = None


class CancelAllOrders(_Command):
    """Cancels the subaccount's orders, of one market when `market_id` is not 0; resting ones, waiting ones or both."""

    subaccount_id: int
    market_id: int = 0
    resting: bool = True
    waiting: bool = True


class SettlePositions(_Command):
    """A 10-second tick: every position pays or receives what it gained or lost since the last.   [S-10 … S-14]"""


class ChargeFunding(_Command):
    """A funding interval of these markets has ended.   [P-20, P-21]"""

    market_ids: tuple[int, ...]


class FireTriggers(_Command):
    """A price has crossed what trigger orders wait for: they enter the book.   [S-9]"""


class Liquidate(_Command):
    """A second of liquidation: every account in it takes one step, the worst first.   [L-3, S-15]"""


class RegisterBackstop(_Command):
    """A backstop liquidity provider registers how much notional (USD, 1e-8) it takes; 0 ends it.   [L-4]"""

    subaccount_id: int
    notional_usd: int


class FundInsurance(_Command):
    """The operator moves own USDC (brought by FundCustody) into the insurance fund.   [L-5]"""

    atoms: int


class CreateStrategy(_Command):
    """A scheduled strategy (TWAP): `lots` in equal market or limit orders every `interval_ms` over `duration_ms`.

    [S-7]
    """

    subaccount_id: int
    market_id: int
    side: Side
    lots: int
    duration_ms: int
    interval_ms: int
    price_ticks: int = 0
    """Limit of each slice; 0: market orders."""
    randomized: bool = False
    """Slices vary by up to a tenth, from the strategy's own number: no randomness enters the engine."""
    reduce_only: bool = False
    self_trade: SelfTrade = SelfTrade.REJECT_TAKER
    client_id: int | None = None
    auto_lend: bool = False
    auto_lend_redeem: bool = False
    auto_borrow: bool = False
    auto_borrow_repay: bool = False
    slippage: int = 0
    slippage_kind: SlippageKind = SlippageKind.NONE
    time_in_force: TimeInForce = TimeInForce.GTC
    """Of a slice with a limit: what of a GTC one still rests when the next is due is withdrawn and carried over."""
    post_only: bool = False


class CancelStrategy(_Command):
    """By exactly one of `strategy_id` and `client_id`."""

    subaccount_id: int
    market_id: int
    strategy_id: int | None = None
    client_id: int | None = None


class CancelAllStrategies(_Command):
    subaccount_id: int
    market_id: int = 0


class RunStrategies(_Command):
    """The next slices of scheduled strategies are due.   [S-7]"""


class SubmitRfq(_Command):
    """A request for quotes over `lots`, or `quote_atoms`; `immediate`: the first acceptable quote fills it.   [S-7]"""

    subaccount_id: int
    market_id: int
    side: Side
    lots: int = 0
    quote_atoms: int = 0
    price_ticks: int = 0
    """Worst acceptable price; 0: any."""
    immediate: bool = False
    client_id: int | None = None
    auto_lend: bool = False
    auto_lend_redeem: bool = False
    auto_borrow: bool = False
    auto_borrow_repay: bool = False


class RefreshRfq(_Command):
    """Begins the request's time anew."""

    subaccount_id: int
    rfq_id: int


class CancelRfq(_Command):
    subaccount_id: int
    rfq_id: int | None = None
    client_id: int | None = None


class SubmitQuote(_Command):
    """A maker's two prices for a request."""

    subaccount_id: int
    rfq_id: int
    bid_ticks: int
    ask_ticks: int
    client_id: int | None = None
    auto_lend: bool = False
    auto_lend_redeem: bool = False
    auto_borrow: bool = False
    auto_borrow_repay: bool = False


class AcceptQuote(_Command):
    subaccount_id: int
    quote_id: int
    rfq_id: int | None = None
    client_id: int | None = None


class ExpireRfqs(_Command):
    """Requests whose time has passed end.   [S-7]"""


class ConfigurePool(_Command):
    """A liquidity pool comes to be, or its parameters change.   [X-1]"""

    pool: PoolParameters


class AddLiquidity(_Command):
    """Bring both sides, or more of one than of the other, for units of the pool.   [X-3]"""

    subaccount_id: int
    pool_id: int
    native_atoms: int
    external_atoms: int
    min_units: int = 0


class RemoveLiquidity(_Command):
    """Give units back for both sides: `units`, or `basis_points` of all that are held.   [X-4]"""

    subaccount_id: int
    pool_id: int
    units: int = 0
    basis_points: int = 0
    min_native_atoms: int = 0
    min_external_atoms: int = 0


class SwapAssets(_Command):
    """Pay `atoms` of one asset for another out of a pool, or out of two through the native asset.   [X-1, X-2]"""

    subaccount_id: int
    from_asset_id: int
    to_asset_id: int
    atoms: int
    min_received: int = 1


class OpenLong(_Command):
    """A leveraged long of one side of a pool, lent by it, against collateral of the other.   [X-5]"""

    subaccount_id: int
    collateral_asset_id: int
    custody_asset_id: int
    atoms: int
    leverage: int
    """In 1e-18."""
    min_custody: int = 0


class CloseLong(_Command):
    """Close a position: what is left after the debt is the owner's.   [X-10]"""

    subaccount_id: int
    position_id: int
    min_received: int = 0


class RunPoolEpochs(_Command):
    """An epoch of some liquidity pools ends now: health, rate, interest, forced closes.   [X-8, X-9, X-11]"""


class CreditDeposit(_Command):
    """A deposit that the watcher confirmed; (chain, tx, index) is unique for ever.   [D-4, A-11]

    `final` False: provisional, not withdrawable or transferable until FinalizeDeposit.   [D-5]
    """

    chain_id: int
    tx_id: str
    index: int
    wallet: int
    subaccount_id: int
    asset_id: int
    atoms: int
    height: int
    block_hash: str
    final: bool


class FinalizeDeposit(_Command):
    chain_id: int
    tx_id: str
    index: int


class OrphanDeposit(_Command):
    """The block of a credited deposit left the chain: freezes the subaccount's withdrawals.   [D-5]"""

    chain_id: int
    tx_id: str
    index: int


class RestoreDeposit(_Command):
    """An orphaned deposit is on the chain again.   [D-5]"""

    chain_id: int
    tx_id: str
    index: int


class ReverseDeposit(_Command):
    """An orphaned deposit is gone for good: a reversing transaction; what is missing becomes a receivable.   [D-5]"""

    chain_id: int
    tx_id: str
    index: int


class RequestWithdrawal(_Command):
    """`atoms` leave the available balance now (a hold in the ledger); `fee` of them is the exchange's.   [D-8]"""

    subaccount_id: int
    chain_id: int
    asset_id: int
    atoms: int
    address: str
    client_id: str = ""
    auto_borrow: bool = False
    auto_lend_redeem: bool = False


class ApproveWithdrawal(_Command):
    withdrawal_id: int


class RejectWithdrawal(_Command):
    """Screening or an operator refuses: the hold is released."""

    withdrawal_id: int
    reason: str


class SettleWithdrawal(_Command):
    """The payout is final on chain: the hold leaves custody, the network fee is booked.   [D-8]"""

    withdrawal_id: int
    tx_id: str
    network_fee_asset_id: int
    network_fee_atoms: int


class ReleaseWithdrawal(_Command):
    """The payout failed on chain, finally: hold released, network fee booked.   [D-8]"""

    withdrawal_id: int
    tx_id: str
    reason: str
    network_fee_asset_id: int
    network_fee_atoms: int


class RecordSweep(_Command):
    """Coins moved between the exchange's own wallets, final on chain.   [D-10]"""

    chain_id: int
    tx_id: str
    from_wallet: int
    to_wallet: int
    asset_id: int
    atoms: int
    fee_wallet: int
    network_fee_asset_id: int
    network_fee_atoms: int


class FundCustody(_Command):
    """The operator's own coins arrived in a wallet (gas money, seed liquidity).   [D-10]"""

    chain_id: int
    tx_id: str
    wallet: int
    asset_id: int
    atoms: int


class StopWithdrawals(_Command):
    """Reconciliation found a break over the threshold; lifted with `stopped` False.   [D-11]"""

    asset_id: int
    stopped: bool
    reason: str


Command = (
    Genesis
    | ConfigureAsset
    | ConfigureChain
    | ConfigureToken
    | ConfigureMarket
    | ConfigureFees
    | RotateKey
    | GrantTier
    | SetPrices
    | SetClock
    | AdvanceClock
    | CloseEpoch
    | RegisterKey
    | AddKey
    | RevokeKey
    | OpenSubaccount
    | Transfer
    | UpdateAccount
    | PlaceOrder
    | PlaceOrders
    | CancelOrder
    | CancelAllOrders
    | CreditDeposit
    | FinalizeDeposit
    | OrphanDeposit
    | RestoreDeposit
    | ReverseDeposit
    | RequestWithdrawal
    | ApproveWithdrawal
    | RejectWithdrawal
    | SettleWithdrawal
    | ReleaseWithdrawal
    | RecordSweep
    | FundCustody
    | StopWithdrawals
    | FeedQuotes
    | SampleMarks
    | AccrueInterest
    | UpdateThrottle
    | BorrowLend
    | ConvertDust
    | CollectPoolFees
    | StakeAssets
    | UnstakeAssets
    | ReceiveYield
    | CloseYieldPeriod
    | SettlePositions
    | ChargeFunding
    | FireTriggers
    | Liquidate
    | RegisterBackstop
    | FundInsurance
    | CreateStrategy
    | CancelStrategy
    | CancelAllStrategies
    | RunStrategies
    | SubmitRfq
    | RefreshRfq
    | CancelRfq
    | SubmitQuote
    | AcceptQuote
    | ExpireRfqs
    | ConfigurePool
    | AddLiquidity
    | RemoveLiquidity
    | SwapAssets
    | OpenLong
    | CloseLong
    | RunPoolEpochs
)

USER_COMMANDS: tuple[type, ...] = (
    AddKey,
    RevokeKey,
    OpenSubaccount,
    Transfer,
    UpdateAccount,
    PlaceOrder,
    PlaceOrders,
    CancelOrder,
    CancelAllOrders,
    RequestWithdrawal,
    BorrowLend,
    ConvertDust,
    RegisterBackstop,
    CreateStrategy,
    CancelStrategy,
    CancelAllStrategies,
    SubmitRfq,
    RefreshRfq,
    CancelRfq,
    SubmitQuote,
    AcceptQuote,
    AddLiquidity,
    RemoveLiquidity,
    SwapAssets,
    OpenLong,
    CloseLong,
)
"""Commands that only a user's own signature can bring in.   [A-5]"""

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Command).decode
