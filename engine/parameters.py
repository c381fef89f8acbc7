"""Parameters of assets, chains, markets and fees: plain data that genesis sets and configuration commands change.

Scales: rates, fractions, weights, multipliers and fees are integers in 1e-9 (`RATE_SCALE`), prices in 1e-12 USD per
whole unit (`PRICE_SCALE`), USD values in 1e-8 (`USD_SCALE`), quantities in atoms.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from ledger.amounts import INT64_MAX

RATE_SCALE = 10**9
PRICE_SCALE = 10**12
USD_SCALE = 10**8
MAX_PRICE = INT64_MAX
"""Prices travel in MessagePack, whose integers end at 64 bits: 9.2 million USD per unit."""

DEFAULT_CLAMP = 3_000_000
DEFAULT_MARK_BOUND = 12_500_000
DEFAULT_HAND_PRICE_STALE_MS = 60_000
DEFAULT_PREMIUM_DIVISOR = 8
DEFAULT_INTEREST_RATE = 300_000
DEFAULT_FUNDING_CLAMP = 500_000


class MarketType(IntEnum):
    SPOT = 1
    PERP = 2


class BookState(IntEnum):
    """What a market accepts; Closed cancels resting orders.   [S-7]"""

    OPEN = 1
    POST_ONLY = 2
    LIMIT_ONLY = 3
    CANCEL_ONLY = 4
    CLOSED = 5


class WeightKind(IntEnum):
    IDENTITY = 1
    INVERSE_SQRT = 2


class LendingState(IntEnum):
    """What a money market accepts.   [B-11]"""

    OPEN = 1
    CLOSED = 2
    REPAY_ONLY = 3


DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
NO_LIMIT_ATOMS = (1 << 63) - 1


class LendingParameters(msgspec.Struct, frozen=True, array_like=True):
    """Money market of one asset.   [B-2, B-7, B-8, B-11, Y-1]"""

    optimal_utilization: int
    rate_base: int
    rate_optimal: int
    rate_max: int
    fee: int
    throttle_threshold: int
    throttle_fraction: int
    max_utilization: int
    state: LendingState = LendingState.OPEN
    open_limit_atoms: int = NO_LIMIT_ATOMS
    """openBorrowLendLimit: neither lentTotal nor borrowedTotal grows beyond it.   [B-8]"""
    staked_share: int = 0
    """At most this part of what is lent may be staked.   [Y-3]"""
    yield_period_ms: int = WEEK_MS
    """Length of the periods over which extra yields are shared out.   [Y-1, Y-2]"""


class PriceSource(msgspec.Struct, frozen=True, array_like=True):
    """One source of an asset's index price: its weight in the average and how long a quote of it lives.   [P-1]"""

    name: str
    weight: int
    stale_ms: int


class IndexParameters(msgspec.Struct, frozen=True, array_like=True):
    """How an asset's index price is made of its sources; `clamp` in 1e-9 around the median.   [P-1]"""

    sources: tuple[PriceSource, ...]
    minimum_sources: int = 1
    clamp: int = DEFAULT_CLAMP


class AssetParameters(msgspec.Struct, frozen=True, array_like=True):
    """One asset. `asset_id` and `decimals` never change once listed.   [A-3, C-1, C-2]"""

    asset_id: int
    symbol: str
    display_name: str
    decimals: int
    step_atoms: int
    """Smallest quantity of the asset on its own routes (lending, withdrawal)."""
    collateral: bool
    weight: int
    weight_kind: WeightKind
    weight_base: int
    weight_penalty: int
    imf_base: int
    imf_factor: int
    mmf_base: int
    mmf_factor: int
    lending: LendingParameters | None = None
    index: IndexParameters | None = None
    """None: the price is fed by hand.   [P-1]"""


class ChainParameters(msgspec.Struct, frozen=True, array_like=True):
    """A chain by its small id and its wire name (`blockchain` of the contract).   [D-1]"""

    chain_id: int
    name: str
    native_asset_id: int


class TokenParameters(msgspec.Struct, frozen=True, array_like=True):
    """One asset on one chain.   [D-1, D-6]"""

    asset_id: int
    chain_id: int
    contract: str
    """"" for the chain's native coin."""
    chain_decimals: int
    confirmations: int
    minimum_deposit_atoms: int
    minimum_withdrawal_atoms: int
    maximum_withdrawal_atoms: int
    withdrawal_fee_atoms: int
    deposit_enabled: bool = True
    withdraw_enabled: bool = True


class BandParameters(msgspec.Struct, frozen=True, array_like=True):
    """Price bands, multipliers in 1e-9.   [P-10 … P-14]"""

    limit_min: int
    limit_max: int
    impact_min: int
    impact_max: int
    mean_mark_min: int
    mean_mark_max: int
    premium_tolerance: int


class PerpetualParameters(msgspec.Struct, frozen=True, array_like=True):
    """What only a perpetual has; declared from the start, opened when perpetuals exist.   [M-2, M-3, P-20, P-22]"""

    max_leverage: int
    imf_base: int
    imf_factor: int
    mmf_base: int
    mmf_factor: int
    funding_interval_ms: int
    funding_upper_bps: int
    funding_lower_bps: int
    open_interest_limit_lots: int
    mark_bound: int
    position_limit_lots: int = 0
    """Most that one subaccount may hold, open orders included; 0: no limit.   [S-7]"""
    premium_divisor: int = DEFAULT_PREMIUM_DIVISOR
    interest_rate: int = DEFAULT_INTEREST_RATE
    """0.03 % a day, in 1e-9.   [P-20]"""
    funding_clamp: int = DEFAULT_FUNDING_CLAMP
    """The interest counts within ± this of the mean premium, in 1e-9.   [P-20]"""
    liquidation_bands: BandParameters | None = None
    """None: twice as wide as the market's own.   [P-14]"""


class MarketParameters(msgspec.Struct, frozen=True, array_like=True):
    """One market. Ids, assets, tick and lot never change once listed: orders are ticks × lots.   [S-7]"""

    market_id: int
    symbol: str
    type: MarketType
    base_asset_id: int
    quote_asset_id: int
    tick_price: int
    """Quote units per whole base unit and tick, in PRICE_SCALE."""
    lot_atoms: int
    """Base atoms of one lot."""
    tick_value_atoms: int
    """Quote atoms of one tick × one lot: a whole number, so notional = ticks · lots · tick_value needs no division."""
    min_lots: int
    max_lots: int
    state: BookState
    bands: BandParameters
    perpetual: PerpetualParameters | None = None
    mark_bound: int = DEFAULT_MARK_BOUND
    """The mark stays within index ± this, in 1e-9.   [P-2]"""


class FeeTier(msgspec.Struct, frozen=True, array_like=True):
    """Fees from `volume` (30 days, USD in 1e-8) on; rates in 1e-9 of the notional or the quantity.   [F-1 … F-3]"""

    name: str
    volume: int
    maker_rate: int
    taker_rate: int


class FeeSchedule(msgspec.Struct, frozen=True, array_like=True):
    spot: tuple[FeeTier, ...]
    futures: tuple[FeeTier, ...]
    insurance_share: int
    """Share of each fee that goes to the insurance fund, in 1e-9.   [F-4]"""


class RiskParameters(msgspec.Struct, frozen=True, array_like=True):
    """What settlement and liquidation reckon with; fractions in 1e-9.   [M-8, S-12, S-13, V-3, V-4, L-3 … L-7]"""

    acmf_divisor: int = 2
    acmf_offset: int = 60_000_000
    settlement_advance: bool = False
    """Whether the insurance fund may advance what a tick could not collect.   [S-13]"""
    negative_claim_cap: int = 500_000_000
    """Negative claims above this share of the collateral value are settled in USDC.   [V-3]"""
    claim_cure_ticks: int = 6
    conversion_index_floor: int = 980_000_000
    """Collateral is not sold for settlement below index × this.   [S-12]"""
    liquidation_step: int = 100_000_000
    liquidation_small_usd: int = 100 * USD_SCALE
    liquidation_stop: int = 950_000_000
    """The order-book stage stops at an MMR below this.   [L-3]"""
    liquidation_fee: int = 10_000_000
    liquidation_failed_ticks: int = 3
    bankruptcy_failed_steps: int = 10
    backstop_share: int = 500_000_000
    """What a backstop provider pays of the equity it receives.   [L-4]"""
    backstop_incentive: int = 2_500_000
    """The least that a slice must be worth to it, of the slice's gross notional.   [L-4]"""


class Limits(msgspec.Struct, frozen=True, array_like=True):
    """Bounds that protect the state from growing without end."""

    subaccounts_per_user: int = 10
    keys_per_user: int = 50
    open_orders_per_subaccount: int = 1_000
    orders_per_batch: int = 50
    borrow_limit_usd: int = 10**8 * USD_SCALE
    """What one subaccount may owe in all money markets together.   [B-8]"""
    hand_price_stale_ms: int = DEFAULT_HAND_PRICE_STALE_MS
    """How long an index price fed by hand lives, except on a devnet, where it lives until replaced.   [P-1]"""
    trigger_orders_per_subaccount: int = 100
    strategies_per_subaccount: int = 20
    risk: RiskParameters = RiskParameters()


DEC = 10**18
"""A liquidity pool's rates, healths and leverages are integers in 1e-18, rounded half to even.   [X-1, X-8]"""
MAX_DEC = (1 << 64) - 1
"""The largest that a command's integer carries: 18.4."""


class PoolState(IntEnum):
    """What a liquidity pool accepts."""

    OPEN = 1
    NO_OPENS = 2
    """Swaps, liquidity and closes, but no new position."""
    LEAVE_ONLY = 3
    """Removals and closes: the way to its end."""
    HALTED = 4
    """Nothing, and no epoch either."""


class PoolParameters(msgspec.Struct, frozen=True, array_like=True):
    """One liquidity pool: the native asset against one external asset. Rates, shares, healths in 1e-18 (`DEC`).  [X]"""

    pool_id: int
    """The external asset."""
    native_asset_id: int
    state: PoolState = PoolState.OPEN
    fee_rate: int = 3 * DEC // 1_000
    """Of what comes out of a swap; it stays in the pool.   [X-1]"""
    native_fee_rate: int = -1
    """For swaps that pay in the native asset, −1: as `fee_rate`. Not looked at while the pool lends to positions."""
    external_fee_rate: int = -1
    running_rate: int = 0
    """The multiplier r of X-1."""
    is_margined: bool = True
    """Whether positions can be opened at all."""
    takes_native_collateral: bool = True
    """Whether positions may be long the external asset.   [X-5]"""
    leverage_max: int = 10 * DEC
    rate_min: int = DEC // 1_000_000
    rate_max: int = DEC // 1_000
    """Of the interest rate per epoch.   [X-8]"""
    rate_increase: int = DEC // 100_000
    rate_decrease: int = DEC // 100_000
    gain_factor: int = DEC // 100_000
    epoch_us: int = 3_600_000_000
    open_threshold: int = DEC // 2
    """Opens need a pool health above it.   [X-5]"""
    removal_threshold: int = DEC // 10
    """Removals may not take the pool's health below it.   [X-4]"""
    safety_factor: int = 11 * DEC // 10
    """A position at or below it is closed by force.   [X-11]"""
    interest_fund_share: int = 35 * DEC // 100
    close_fund_share: int = DEC
    pays_each_epoch: bool = True
    """Whether interest is taken out of custody each epoch; if not it stays unpaid and grows.   [X-9]"""
    max_positions: int = 10_000
    lent_max: int = DEC // 2
    """Liabilities of a side at most this share of its depth; 0: no limit.   [X-13]"""
    covers_losses: bool = True
    """Whether the fund pays for bad debts before the providers do.   [X-12]"""
    price_move_max: int = 5 * DEC // 100
    """How far the price may be from its mean of `price_mean_us` when a position opens or closes, at most: high leverage
    bears less (`pools.is_steady`). 0: no limit."""
    price_mean_us: int = 60_000_000
    min_native: int = 1
    """The native atoms that the first provider must bring at least."""
    max_atoms: int = NO_LIMIT_ATOMS
    """What a side of the pool may hold, owe and keep together: beyond it commands could not carry amounts."""
    collateral_weight: int = 0
    """What a unit's value counts for as collateral, in 1e-9; 0: not at all.   [C-3]"""


class GenesisParameters(msgspec.Struct, frozen=True, array_like=True):
    """Everything a fresh exchange starts with; read from a genesis file by `engine.genesis`."""

    exchange: str
    devnet: bool
    operator_keys: tuple[bytes, ...]
    assets: tuple[AssetParameters, ...]
    chains: tuple[ChainParameters, ...]
    tokens: tuple[TokenParameters, ...]
    markets: tuple[MarketParameters, ...]
    fees: FeeSchedule
    limits: Limits
    pools: tuple[PoolParameters, ...] = ()
