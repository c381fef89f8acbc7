"""Assets, chains, tokens, markets, fees: what genesis sets and operators change by command.   [S-7, P-1, F-2]

Every function checks everything before it changes anything, and a refusal names the field: a genesis file is checked by
the same rules.
"""

from __future__ import annotations

import re

from engine import funding, liquidity, rfq, strategies, triggers
from engine.book import Book
from engine.commands import (
    ConfigureAsset,
    ConfigureChain,
    ConfigureFees,
    ConfigureMarket,
    ConfigureToken,
    GrantTier,
)
from engine.events import AssetConfigured, MarketConfigured, Outcome
from engine.fees import USDC, set_tiers
from engine.formulas.prices import lot_value
from engine.lending import begin, open_pool
from engine.orders import Touched, promise, report_levels, withdraw
from engine.parameters import (
    MAX_PRICE,
    PRICE_SCALE,
    RATE_SCALE,
    AssetParameters,
    BandParameters,
    BookState,
    FeeTier,
    IndexParameters,
    LendingParameters,
    MarketParameters,
    MarketType,
    PerpetualParameters,
    WeightKind,
)
from engine.posting import record
from engine.pricing import mark_listed
from engine.rejections import Rejection, RejectReason
from engine.state import SPENDS_AT_FILL, Market, State
from engine.yields import period_ms
from ledger.amounts import INT64_MAX
from ledger.chart import SHARE_BITS
from ledger.journal import JournalKind

MAX_DECIMALS = 18
MAX_CHAIN_DECIMALS = 36
MAX_SOURCES = 32
_SYMBOL = re.compile(r"[A-Z0-9][A-Za-z0-9.]{0,15}")
_SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_CHAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .-]{0,31}")


def configure_asset(state: State, command: ConfigureAsset, outcome: Outcome) -> None:
    """List an asset or change its parameters; symbol and decimals stay for ever.   [A-3, C-2, M-3]"""
    asset = command.asset
    known = state.assets.get(asset.asset_id)
    if known is not None:
        _require_unchanged(known.symbol, asset.symbol, "symbol")
        _require_unchanged(known.decimals, asset.decimals, "decimals")
    elif any(other.symbol == asset.symbol for other in state.assets.values()):
        raise _invalid("symbol", f"{asset.symbol} is listed already")
    _require_asset(asset)
    for market in state.markets.values():
        parameters = market.parameters
        if parameters.type == MarketType.SPOT and parameters.base_asset_id == asset.asset_id:
            _require_mark_bound(parameters.mark_bound, asset.mmf_base, "mmf_base")
    if asset.asset_id in state.pools and asset.lending is None:
        raise _invalid("lending", "a money market is closed by its state, it does not go away")
    if asset.lending is not None and asset.asset_id in state.pools and state.pools[asset.asset_id].period >= 0:
        # Share-time is counted per period: the first loan fixes where periods begin.   [Y-3]
        _require_unchanged(period_ms(state, asset.asset_id), asset.lending.yield_period_ms, "lending.yield_period")

    # From here the command succeeds.
    if asset.lending is not None:
        if asset.asset_id in state.pools:
            # What has passed was at the rates that held.
            begin(state, outcome, asset.asset_id)
            state.pools[asset.asset_id].projected_ms = -1
        else:
            open_pool(state, asset.asset_id, asset.lending, outcome.at_us)
    if known is None:
        record(outcome, JournalKind.ASSET_LISTED, (asset.asset_id, asset.symbol, asset.decimals))
    state.assets[asset.asset_id] = asset
    if asset.symbol == USDC:
        state.usdc = asset.asset_id
    state.marks_version += 1
    outcome.events.append(AssetConfigured(asset.asset_id))


def configure_chain(state: State, command: ConfigureChain, outcome: Outcome) -> None:
    """Declare a chain; its name and native coin stay for ever.   [D-1]"""
    chain = command.chain
    known = state.chains.get(chain.chain_id)
    if known is not None:
        _require_unchanged(known.name, chain.name, "name")
        _require_unchanged(known.native_asset_id, chain.native_asset_id, "native")
    elif any(other.name == chain.name for other in state.chains.values()):
        raise _invalid("name", f"{chain.name} is declared already")
    _require_range(chain.chain_id, 1, 255, "id")
    if not _CHAIN_NAME.fullmatch(chain.name):
        raise _invalid("name", f"{chain.name[:40]!r} is not a chain's name")
    _require_asset_known(state, chain.native_asset_id, "native")

    # From here the command succeeds.
    state.chains[chain.chain_id] = chain


def configure_token(state: State, command: ConfigureToken, outcome: Outcome) -> None:
    """Set an asset's token on a chain; the contract can be set once, its decimals stay for ever.   [D-1, D-7]"""
    token = command.token
    if token.chain_id not in state.chains:
        raise Rejection(RejectReason.UNKNOWN_CHAIN, field="chain", chain_id=token.chain_id)
    _require_asset_known(state, token.asset_id, "asset")
    chain = state.chains[token.chain_id]
    known = state.tokens.get((token.chain_id, token.asset_id))
    if known is not None:
        _require_unchanged(known.chain_decimals, token.chain_decimals, "decimals")
        if known.contract:
            _require_unchanged(known.contract, token.contract, "contract")
    _require_range(token.chain_decimals, 0, MAX_CHAIN_DECIMALS, "decimals")
    _require_range(token.confirmations, 0, 10_000, "confirmations")
    _require_range(token.minimum_deposit_atoms, 0, INT64_MAX, "minimum_deposit")
    _require_range(token.withdrawal_fee_atoms, 0, INT64_MAX, "withdrawal_fee")
    _require_range(token.minimum_withdrawal_atoms, token.withdrawal_fee_atoms + 1, INT64_MAX, "minimum_withdrawal")
    _require_range(token.maximum_withdrawal_atoms, token.minimum_withdrawal_atoms, INT64_MAX, "maximum_withdrawal")
    is_native = chain.native_asset_id == token.asset_id
    if is_native and token.contract:
        raise _invalid("contract", "the chain's native coin has no contract")
    if not is_native and not token.contract and (token.deposit_enabled or token.withdraw_enabled):
        raise _invalid("contract", "a token without its contract must be disabled")
    for (chain_id, asset_id), other in state.tokens.items():
        if token.contract and chain_id == token.chain_id and asset_id != token.asset_id:
            if other.contract.lower() == token.contract.lower():
                raise _invalid("contract", f"{token.contract} is asset {asset_id}'s contract")

    # From here the command succeeds.
    state.tokens[token.chain_id, token.asset_id] = token
    if known is not None and known.minimum_withdrawal_atoms != token.minimum_withdrawal_atoms:
        liquidity.count(state)


def configure_fees(state: State, command: ConfigureFees, outcome: Outcome) -> None:
    """Replace the fee tables; every user's tier follows at once.   [F-1 … F-4]"""
    fees = command.fees
    _require_tiers(fees.spot, "spot")
    _require_tiers(fees.futures, "futures")
    _require_range(fees.insurance_share, 0, RATE_SCALE, "insurance_share")
    for user in state.users.values():
        _require_range(user.granted_spot_tier, -1, len(fees.spot) - 1, "spot", user=user.user_id)
        _require_range(user.granted_futures_tier, -1, len(fees.futures) - 1, "futures", user=user.user_id)

    # From here the command succeeds.
    promising = [order for order in state.orders.values() if order.flags & SPENDS_AT_FILL]
    for order in promising:
        promise(state, order, order.executed_lots - order.lots)
    state.fees = fees
    for order in promising:
        promise(state, order, order.lots - order.executed_lots)
    for user in state.users.values():
        set_tiers(state, user)


def configure_market(state: State, command: ConfigureMarket, outcome: Outcome) -> None:
    """List a market or change it. Assets, tick and lot stay for ever; closing cancels the resting orders.   [S-7]"""
    parameters = command.market
    market = state.markets.get(parameters.market_id)
    if market is not None:
        known = market.parameters
        _require_unchanged(known.symbol, parameters.symbol, "symbol")
        _require_unchanged(known.type, parameters.type, "type")
        _require_unchanged(known.base_asset_id, parameters.base_asset_id, "base")
        _require_unchanged(known.quote_asset_id, parameters.quote_asset_id, "quote")
        _require_unchanged(known.tick_price, parameters.tick_price, "tick")
        _require_unchanged(known.lot_atoms, parameters.lot_atoms, "step")
        _require_unchanged(known.tick_value_atoms, parameters.tick_value_atoms, "tick")
    elif any(other.parameters.symbol == parameters.symbol for other in state.markets.values()):
        raise _invalid("symbol", f"{parameters.symbol} is listed already")
    _require_market(state, parameters)

    # From here the command succeeds.
    if market is None:
        market = Market(parameters, Book(), outcome.at_us)
        state.markets[parameters.market_id] = market
    before, market.parameters = market.parameters, parameters
    state.marks_version += 1
    state.valuations.bounds.clear()
    record(
        outcome,
        JournalKind.MARKET_CONFIGURED,
        (
            parameters.market_id,
            parameters.symbol,
            parameters.base_asset_id,
            parameters.quote_asset_id,
            parameters.lot_atoms,
            parameters.tick_value_atoms,
            int(parameters.state),
        ),
    )
    outcome.events.append(MarketConfigured(parameters.market_id))
    if parameters.perpetual is not None:
        _mark_perpetual(state, market, before.perpetual, outcome)
    if parameters.state == BookState.CLOSED:
        touched: Touched = {}
        for order_id in sorted(number for number, order in state.orders.items() if order.market is market):
            order = state.orders[order_id]
            withdraw(state, outcome, order)
            touched[market.book.ladder(order.side), order.price_ticks] = parameters.market_id
        report_levels(outcome, touched)
        triggers.withdraw_all(state, outcome, market)
        strategies.terminate_market(state, outcome, market)
        rfq.end_market(state, outcome, market)


def _mark_perpetual(state: State, market: Market, before: PerpetualParameters | None, outcome: Outcome) -> None:
    """A perpetual is marked as soon as it is listed; another funding interval counts from now on.   [P-2, P-20]"""
    perpetual = market.parameters.perpetual
    assert perpetual is not None and before is not None, f"market {market.parameters.market_id} is no perpetual"
    if not market.mark:
        mark_listed(state, market, outcome)
    elif perpetual.funding_interval_ms != before.funding_interval_ms:
        funding.start(state, market, outcome.at_us)


def grant_tier(state: State, command: GrantTier, outcome: Outcome) -> None:
    """Grant a user fee tiers by index, -1 takes a grant back; it counts at once.   [F-2]"""
    user = state.users.get(command.user_id)
    if user is None:
        raise Rejection(RejectReason.UNKNOWN_USER, user_id=command.user_id)
    _require_range(command.spot_tier, -1, len(state.fees.spot) - 1, "spot_tier")
    _require_range(command.futures_tier, -1, len(state.fees.futures) - 1, "futures_tier")

    # From here the command succeeds.
    user.granted_spot_tier = command.spot_tier
    user.granted_futures_tier = command.futures_tier
    set_tiers(state, user)


def _require_asset(asset: AssetParameters) -> None:
    _require_range(asset.asset_id, 1, (1 << SHARE_BITS) - 1, "id")
    if not _SYMBOL.fullmatch(asset.symbol):
        raise _invalid("symbol", f"{asset.symbol[:40]!r} is not an asset's symbol")
    _require_range(asset.decimals, 0, MAX_DECIMALS, "decimals")
    _require_range(asset.step_atoms, 1, INT64_MAX, "step")
    _require_range(asset.weight, 0, RATE_SCALE, "weight")
    if not asset.collateral and asset.weight:
        raise _invalid("weight", "an asset that is no collateral has weight 0")
    if asset.weight_kind == WeightKind.INVERSE_SQRT:
        _require_range(asset.weight_base, 1, 10 * RATE_SCALE, "weight_base")
        _require_range(asset.weight_penalty, 0, RATE_SCALE, "weight_penalty")
    _require_margin_fractions(asset.imf_base, asset.imf_factor, asset.mmf_base, asset.mmf_factor)
    if asset.lending is not None:
        _require_lending(asset.lending)
    if asset.index is not None:
        _require_index(asset.index)


def _require_margin_fractions(imf_base: int, imf_factor: int, mmf_base: int, mmf_factor: int) -> None:
    """Nobody may be born in liquidation: initial ≥ 1.25 × maintenance.   [M-3]"""
    for name, fraction in (("imf_base", imf_base), ("mmf_base", mmf_base)):
        _require_range(fraction, 0, RATE_SCALE, name)
    for name, factor in (("imf_factor", imf_factor), ("mmf_factor", mmf_factor)):
        _require_range(factor, 0, RATE_SCALE, name)
    if 4 * imf_base < 5 * mmf_base:
        raise _invalid("imf_base", "must be at least 1.25 × mmf_base")
    if 4 * imf_factor < 5 * mmf_factor:
        raise _invalid("imf_factor", "must be at least 1.25 × mmf_factor")


def _require_lending(lending: LendingParameters) -> None:
    """A curve that rises: 0 < U* < 1, rateBase ≤ rateOptimal ≤ rateMax.   [B-2]"""
    _require_range(lending.optimal_utilization, 1, RATE_SCALE - 1, "lending.optimal_utilization")
    _require_range(lending.rate_base, 0, 100 * RATE_SCALE, "lending.rate_base")
    _require_range(lending.rate_optimal, lending.rate_base, 100 * RATE_SCALE, "lending.rate_optimal")
    _require_range(lending.rate_max, lending.rate_optimal, 100 * RATE_SCALE, "lending.rate_max")
    _require_range(lending.fee, 0, RATE_SCALE - 1, "lending.fee")
    _require_range(lending.throttle_threshold, 0, RATE_SCALE, "lending.throttle_threshold")
    _require_range(lending.throttle_fraction, 0, RATE_SCALE, "lending.throttle_fraction")
    _require_range(lending.max_utilization, 1, RATE_SCALE, "lending.max_utilization")
    _require_range(lending.open_limit_atoms, 0, INT64_MAX, "lending.open_limit")
    _require_range(lending.staked_share, 0, RATE_SCALE, "lending.staked_share")
    _require_range(lending.yield_period_ms, 3_600_000, 366 * 86_400_000, "lending.yield_period")


def _require_index(index: IndexParameters) -> None:
    """Sources by different names, no more needed than there are.   [P-1]"""
    if not 1 <= len(index.sources) <= MAX_SOURCES:
        raise _invalid("index.source", f"there are {len(index.sources)} sources, 1 to {MAX_SOURCES} can be")
    names = [source.name for source in index.sources]
    for number, source in enumerate(index.sources):
        if not _SOURCE_NAME.fullmatch(source.name):
            raise _invalid(f"index.source.{number}.name", f"{source.name[:40]!r} is not a source's name")
        if names.index(source.name) != number:
            raise _invalid(f"index.source.{number}.name", f"{source.name} is declared twice")
        _require_range(source.weight, 1, RATE_SCALE, f"index.source.{number}.weight")
        _require_range(source.stale_ms, 1, 86_400_000, f"index.source.{number}.stale_ms")
    _require_range(index.minimum_sources, 1, len(index.sources), "index.minimum_sources")
    _require_range(index.clamp, 0, RATE_SCALE - 1, "index.clamp")


def _require_mark_bound(mark_bound: int, mmf_base: int, field: str) -> None:
    """At most half of the base maintenance fraction, unless that is above 10 %.   [P-2]"""
    most = mmf_base // 2 if 0 < mmf_base <= RATE_SCALE // 10 else RATE_SCALE - 1
    _require_range(mark_bound, 1, most, field)


def _require_market(state: State, market: MarketParameters) -> None:
    _require_range(market.market_id, 1, (1 << 16) - 1, "id")
    _require_asset_known(state, market.base_asset_id, "base")
    _require_asset_known(state, market.quote_asset_id, "quote")
    if market.base_asset_id == market.quote_asset_id:
        raise _invalid("quote", "is the base asset")
    base, quote = state.assets[market.base_asset_id], state.assets[market.quote_asset_id]
    is_perpetual = market.type == MarketType.PERP
    symbol = f"{base.symbol}_{quote.symbol}" + ("_PERP" if is_perpetual else "")
    if market.symbol != symbol:
        raise _invalid("symbol", f"{market.symbol[:40]!r} should be {symbol}")
    if is_perpetual != (market.perpetual is not None):
        raise _invalid("perpetual", "is what a perpetual has and no other market")

    _require_range(market.tick_price, 1, MAX_PRICE, "tick")
    _require_range(market.lot_atoms, 1, INT64_MAX, "step")
    value = market.tick_price * market.lot_atoms * 10**quote.decimals
    if market.tick_value_atoms < 1 or market.tick_value_atoms * PRICE_SCALE * 10**base.decimals != value:
        raise _invalid("tick", "one tick × one step is not a whole number of quote atoms")
    _require_range(market.min_lots, 1, INT64_MAX, "min_quantity")
    _require_range(market.max_lots, market.min_lots, INT64_MAX // market.lot_atoms, "max_quantity")

    # An asset that is no collateral has no maintenance fraction: nobody is liquidated by its mark.
    _require_mark_bound(market.mark_bound, base.mmf_base, "mark_bound")
    _require_bands(market.bands)
    if market.perpetual is not None:
        _require_perpetual(market.perpetual, market)
        if market.quote_asset_id != state.usdc:
            raise _invalid("quote", "perpetuals settle in USDC")


def _require_bands(bands: BandParameters) -> None:
    _require_range(bands.limit_min, 0, RATE_SCALE, "bands.limit_min")
    _require_range(bands.limit_max, RATE_SCALE, 1000 * RATE_SCALE, "bands.limit_max")
    _require_range(bands.impact_min, 0, RATE_SCALE, "bands.impact_min")
    _require_range(bands.impact_max, RATE_SCALE, 1000 * RATE_SCALE, "bands.impact_max")
    _require_range(bands.mean_mark_min, 0, RATE_SCALE, "bands.mean_mark_min")
    _require_range(bands.mean_mark_max, RATE_SCALE, 1000 * RATE_SCALE, "bands.mean_mark_max")
    _require_range(bands.premium_tolerance, 0, RATE_SCALE, "bands.premium_tolerance")


def _require_perpetual(perpetual: PerpetualParameters, market: MarketParameters) -> None:
    _require_range(perpetual.max_leverage, RATE_SCALE, 1000 * RATE_SCALE, "perpetual.max_leverage")
    try:
        _require_margin_fractions(
            perpetual.imf_base, perpetual.imf_factor, perpetual.mmf_base, perpetual.mmf_factor
        )
    except Rejection as rejection:
        facts = {**rejection.facts, "field": f"perpetual.{rejection.facts['field']}"}
        raise Rejection(rejection.reason, **facts) from None
    _require_range(perpetual.funding_interval_ms, 60_000, 86_400_000, "perpetual.funding_interval_ms")
    _require_range(perpetual.funding_upper_bps, 0, 10_000, "perpetual.funding_upper_bps")
    _require_range(perpetual.funding_lower_bps, -10_000, 0, "perpetual.funding_lower_bps")
    _require_range(perpetual.open_interest_limit_lots, 0, INT64_MAX, "perpetual.open_interest_limit")
    _require_mark_bound(perpetual.mark_bound, perpetual.mmf_base, "perpetual.mark_bound")
    _require_range(perpetual.position_limit_lots, 0, INT64_MAX, "perpetual.position_limit")
    _require_range(perpetual.premium_divisor, 1, 1_000_000, "perpetual.premium_divisor")
    _require_range(perpetual.interest_rate, -RATE_SCALE, RATE_SCALE, "perpetual.interest_rate")
    _require_range(perpetual.funding_clamp, 0, RATE_SCALE, "perpetual.funding_clamp")
    if perpetual.liquidation_bands is not None:
        _require_wider(perpetual.liquidation_bands, market.bands)
    # A lot at the highest price that can be said must fit where amounts are kept.
    _require_range(lot_value(market, MAX_PRICE), 1, INT64_MAX, "step")


def _require_wider(wide: BandParameters, own: BandParameters) -> None:
    """A liquidation's bands are nowhere tighter than the market's own.   [P-14]"""
    at = "perpetual.liquidation_bands"
    _require_range(wide.limit_min, 0, own.limit_min, f"{at}.limit_min")
    _require_range(wide.limit_max, own.limit_max, 2000 * RATE_SCALE, f"{at}.limit_max")
    _require_range(wide.impact_min, 0, own.impact_min, f"{at}.impact_min")
    _require_range(wide.impact_max, own.impact_max, 2000 * RATE_SCALE, f"{at}.impact_max")
    _require_range(wide.mean_mark_min, 0, own.mean_mark_min, f"{at}.mean_mark_min")
    _require_range(wide.mean_mark_max, own.mean_mark_max, 2000 * RATE_SCALE, f"{at}.mean_mark_max")
    _require_range(wide.premium_tolerance, own.premium_tolerance, 2 * RATE_SCALE, f"{at}.premium_tolerance")


def _require_tiers(tiers: tuple[FeeTier, ...], table: str) -> None:
    """Tier 0 is from 0 on, volumes ascend, nobody pays more than all; rates do not rise with volume.   [F-1, F-3]"""
    if not tiers or tiers[0].volume != 0:
        raise _invalid(f"{table}.0.volume", "the first tier starts at 0")
    for index, tier in enumerate(tiers):
        _require_range(tier.maker_rate, 0, RATE_SCALE - 1, f"{table}.{index}.maker_bps")
        _require_range(tier.taker_rate, 0, RATE_SCALE - 1, f"{table}.{index}.taker_bps")
        if index and tier.volume <= tiers[index - 1].volume:
            raise _invalid(f"{table}.{index}.volume", "must be above the tier before")


def _require_asset_known(state: State, asset_id: int, field: str) -> None:
    if asset_id not in state.assets:
        raise Rejection(RejectReason.UNKNOWN_ASSET, field=field, asset_id=asset_id)


def _require_range(value: int, least: int, most: int, field: str, **facts: int) -> None:
    if not least <= value <= most:
        raise Rejection(RejectReason.INVALID_PARAMETERS, field=field, value=value, least=least, most=most, **facts)


def _require_unchanged(before: int | str, after: int | str, field: str) -> None:
    if before != after:
        raise Rejection(RejectReason.IMMUTABLE_PARAMETER, field=field, before=before, after=after)


def _invalid(field: str, why: str) -> Rejection:
    return Rejection(RejectReason.INVALID_PARAMETERS, field=field, why=why)
