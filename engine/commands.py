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


class UpdateAccount(_Command):
    """Settings; None leaves one as it is. `leverage_limit` in RATE_SCALE.   [U-4, W-10]"""

    subaccount_id: int
    auto_lend: bool | None = None
    auto_repay_borrows: bool | None = None
    auto_borrow_settlements: bool | None = None
    auto_realize_pnl: bool | None = None
    leverage_limit: int | None = None


class PlaceOrder(_Command):
    """A limit order (`price_ticks`, `lots`) or a market order (`lots`, or `quote_atoms` to spend or get).   [S-7]"""

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
    """Cancels the subaccount's orders, of one market when `market_id` is not 0."""

    subaccount_id: int
    market_id: int = 0


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
)
"""Commands that only a user's own signature can bring in.   [A-5]"""

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Command).decode
