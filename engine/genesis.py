"""Genesis files: TOML to `GenesisParameters`; what is wrong is named by its key and the reason before anything starts.

Numbers that are not counts are decimal strings ("0.95"): a file's float would be rounded before anybody looked.   [A-3]
"""

from __future__ import annotations

import tomllib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from difflib import get_close_matches
from enum import IntEnum
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from engine import markets, pools
from engine.commands import (
    ConfigureAsset,
    ConfigureChain,
    ConfigureFees,
    ConfigureMarket,
    ConfigurePool,
    ConfigureToken,
)
from engine.events import Outcome
from engine.parameters import (
    DAY_MS,
    DEFAULT_CLAMP,
    DEFAULT_FUNDING_CLAMP,
    DEFAULT_HAND_PRICE_STALE_MS,
    DEFAULT_INTEREST_RATE,
    DEFAULT_MARK_BOUND,
    DEFAULT_PREMIUM_DIVISOR,
    MAX_DEC,
    PRICE_SCALE,
    RATE_SCALE,
    USD_SCALE,
    AssetParameters,
    BandParameters,
    BookState,
    ChainParameters,
    FeeSchedule,
    FeeTier,
    GenesisParameters,
    IndexParameters,
    LendingParameters,
    Limits,
    MarketParameters,
    MarketType,
    PerpetualParameters,
    PoolParameters,
    PoolState,
    PriceSource,
    TokenParameters,
    WeightKind,
)
from engine.rejections import Rejection, RejectReason
from engine.state import State
from ledger.amounts import INT64_MAX, AmountError, format_decimal, parse_decimal

PACKAGED = ("devnet", "minimal")
RATE_DECIMALS = 9
DEC_DECIMALS = 18
PRICE_DECIMALS = 12
USD_DECIMALS = 8
BPS_DECIMALS = 5
"""1 bp = 1e-4, so a rate of 1e-9 is 1e-5 bps."""

assert (10**RATE_DECIMALS, 10**PRICE_DECIMALS, 10**USD_DECIMALS) == (RATE_SCALE, PRICE_SCALE, USD_SCALE)

E = TypeVar("E", bound=IntEnum)


class GenesisError(Exception):
    """A genesis file that cannot be used: where, and why."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}" if where else why)
        self.where = where
        self.why = why


def load(path_or_name: str | Path) -> GenesisParameters:
    """Read a packaged genesis by its name ("devnet", "minimal") or a file by its path. Raises GenesisError."""
    name = str(path_or_name)
    if name in PACKAGED:
        return parse(files("engine").joinpath("genesis", f"{name}.toml").read_text("utf-8"))
    try:
        text = Path(path_or_name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        hint = f"; packaged ones are {', '.join(PACKAGED)}"
        raise GenesisError(name, f"cannot be read: {reason}{hint}") from None
    return parse(text)


def parse(text: str) -> GenesisParameters:
    """The parameters that this TOML says, checked by the rules that later changes are checked by."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise GenesisError("", f"not TOML: {error}") from None
    root = Table(document, "")
    assets = _Names("asset")
    chains = _Names("chain")
    asset_tables = root.tables("asset")
    parameters = GenesisParameters(
        exchange=root.text("exchange"),
        devnet=root.flag("devnet"),
        operator_keys=tuple(_key(item, f"operator_keys[{i}]") for i, item in enumerate(root.texts("operator_keys"))),
        assets=tuple(_asset(table, assets) for table in asset_tables),
        chains=tuple(_chain(table, assets, chains) for table in root.tables("chain")),
        tokens=tuple(_token(table, assets, chains) for table in root.tables("token")),
        markets=tuple(_market(table, assets) for table in root.tables("market")),
        fees=_fees(root.table("fees")),
        limits=_limits(root.table("limits")),
        pools=tuple(_pool(table, assets) for table in root.tables("pool")) if root.has("pool") else (),
    )
    root.done()
    _check(parameters)
    return parameters


class Table:
    """A TOML table that knows its path and which keys were read: what is left over is a misspelling."""

    def __init__(self, values: dict[str, Any], path: str) -> None:
        self._values = values
        self._read: set[str] = set()
        self.path = path

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str) -> str:
        value: str = self._typed(key, str, "a string")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        value: bool = self._typed(key, bool, "true or false", default)
        return value

    def count(self, key: str, default: int | None = None) -> int:
        value: int = self._typed(key, int, "a whole number", default)
        return value

    def decimal(self, key: str, decimals: int, default: int | None = None, limit: int = INT64_MAX) -> int:
        """A decimal string as an integer of this scale; `default` is one already."""
        if default is not None and key not in self._values:
            self._read.add(key)
            return default
        value = self._typed(key, str, 'a decimal number in quotes ("0.95")')
        try:
            return parse_decimal(value, decimals, limit=limit)
        except AmountError as error:
            raise GenesisError(self.at(key), str(error)) from None

    def one_of(self, key: str, choices: type[E]) -> E:
        value = self.text(key)
        names = [choice.name.lower() for choice in choices]
        if value not in names:
            raise GenesisError(self.at(key), f"{value!r} is none of {', '.join(names)}{_meant(value, names)}")
        return choices[value.upper()]

    def texts(self, key: str) -> list[str]:
        values: list[Any] = self._typed(key, list, "a list of strings")
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise GenesisError(f"{self.at(key)}[{index}]", f"expected a string, not {value!r}")
        return values

    def table(self, key: str) -> Table:
        return Table(self._typed(key, dict, "a table"), self.at(key))

    def tables(self, key: str) -> list[Table]:
        """The tables of `[[key]]`, at least one; each is named in messages by its symbol, name or place."""
        values: list[Any] = self._typed(key, list, f"tables, each under [[{self.at(key)}]]")
        tables = []
        for index, value in enumerate(values):
            if not isinstance(value, dict):
                raise GenesisError(f"{self.at(key)}[{index}]", f"expected a table, not {value!r}")
            tables.append(Table(value, f"{self.at(key)}[{index}]"))
        if not tables:
            raise GenesisError(self.at(key), "at least one is needed")
        return tables

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self._values:
            if key not in self._read:
                raise GenesisError(self.at(key), f"unknown key{_meant(key, sorted(self._read))}")

    def _typed(self, key: str, kind: type, what: str, default: Any = None) -> Any:
        self._read.add(key)
        if key not in self._values:
            if default is not None:
                return default
            spare = [name for name in self._values if name not in self._read]
            near = get_close_matches(key, spare, n=1)
            raise GenesisError(self.at(key), "missing" + (f"; is {near[0]!r} a misspelling of it?" if near else ""))
        value = self._values[key]
        # TOML knows no bool that is an int; Python does.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise GenesisError(self.at(key), f"expected {what}, not {value!r}")
        return value


class _Names:
    """Symbols of assets or names of chains, so that other tables can refer to them."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.ids: dict[str, int] = {}
        self.decimals: dict[str, int] = {}

    def add(self, name: str, number: int, table: Table, key: str) -> None:
        if name in self.ids:
            raise GenesisError(table.at(key), f"{name} is declared twice")
        if number in self.ids.values():
            raise GenesisError(table.at("id"), f"{number} is another {self.what}'s id")
        self.ids[name] = number

    def refer(self, table: Table, key: str) -> tuple[str, int]:
        name = table.text(key)
        if name not in self.ids:
            names = list(self.ids)
            known = f"{_meant(name, names)}; there are {', '.join(names)}"
            raise GenesisError(table.at(key), f"no {self.what} {name!r}{known}")
        return name, self.ids[name]


def _asset(table: Table, assets: _Names) -> AssetParameters:
    symbol, decimals = table.text("symbol"), table.count("decimals")
    assets.add(symbol, table.count("id"), table, "symbol")
    if not 0 <= decimals <= markets.MAX_DECIMALS:
        raise GenesisError(table.at("decimals"), f"{decimals} is not between 0 and {markets.MAX_DECIMALS}")
    assets.decimals[symbol] = decimals
    kind = table.one_of("weight_kind", WeightKind)
    is_curve = kind == WeightKind.INVERSE_SQRT
    asset = AssetParameters(
        asset_id=table.count("id"),
        symbol=symbol,
        display_name=table.text("name"),
        decimals=decimals,
        step_atoms=table.decimal("step", decimals),
        collateral=table.flag("collateral"),
        weight=table.decimal("weight", RATE_DECIMALS),
        weight_kind=kind,
        weight_base=table.decimal("weight_base", RATE_DECIMALS) if is_curve else 0,
        weight_penalty=table.decimal("weight_penalty", RATE_DECIMALS) if is_curve else 0,
        imf_base=table.decimal("imf_base", RATE_DECIMALS),
        imf_factor=table.decimal("imf_factor", RATE_DECIMALS),
        mmf_base=table.decimal("mmf_base", RATE_DECIMALS),
        mmf_factor=table.decimal("mmf_factor", RATE_DECIMALS),
        lending=_lending(table.table("lending")) if table.has("lending") else None,
        index=_index(table.table("index")) if table.has("index") else None,
    )
    table.done()
    return asset


def _lending(table: Table) -> LendingParameters:
    lending = LendingParameters(
        optimal_utilization=table.decimal("optimal_utilization", RATE_DECIMALS),
        rate_base=table.decimal("rate_base", RATE_DECIMALS),
        rate_optimal=table.decimal("rate_optimal", RATE_DECIMALS),
        rate_max=table.decimal("rate_max", RATE_DECIMALS),
        fee=table.decimal("fee", RATE_DECIMALS),
        throttle_threshold=table.decimal("throttle_threshold", RATE_DECIMALS),
        throttle_fraction=table.decimal("throttle_fraction", RATE_DECIMALS),
        max_utilization=table.decimal("max_utilization", RATE_DECIMALS),
        staked_share=table.decimal("staked_share", RATE_DECIMALS, 0),
        yield_period_ms=table.count("yield_period_days", 7) * DAY_MS,
    )
    table.done()
    return lending


def _index(table: Table) -> IndexParameters:
    """Without this table the asset's index is fed by hand.   [P-1]"""
    index = IndexParameters(
        sources=tuple(_source(source) for source in table.tables("source")),
        minimum_sources=table.count("minimum_sources", 1),
        clamp=table.decimal("clamp", RATE_DECIMALS, DEFAULT_CLAMP),
    )
    table.done()
    return index


def _source(table: Table) -> PriceSource:
    source = PriceSource(table.text("name"), table.count("weight", 1), table.count("stale_ms"))
    table.done()
    return source


def _chain(table: Table, assets: _Names, chains: _Names) -> ChainParameters:
    chain = ChainParameters(
        chain_id=table.count("id"), name=table.text("name"), native_asset_id=assets.refer(table, "native")[1]
    )
    chains.add(chain.name, chain.chain_id, table, "name")
    table.done()
    return chain


def _token(table: Table, assets: _Names, chains: _Names) -> TokenParameters:
    symbol, asset_id = assets.refer(table, "asset")
    decimals = assets.decimals[symbol]
    token = TokenParameters(
        asset_id=asset_id,
        chain_id=chains.refer(table, "chain")[1],
        contract=table.text("contract"),
        chain_decimals=table.count("decimals"),
        confirmations=table.count("confirmations"),
        minimum_deposit_atoms=table.decimal("minimum_deposit", decimals),
        minimum_withdrawal_atoms=table.decimal("minimum_withdrawal", decimals),
        maximum_withdrawal_atoms=table.decimal("maximum_withdrawal", decimals),
        withdrawal_fee_atoms=table.decimal("withdrawal_fee", decimals),
        deposit_enabled=table.flag("deposit_enabled", True),
        withdraw_enabled=table.flag("withdraw_enabled", True),
    )
    table.done()
    return token


def _market(table: Table, assets: _Names) -> MarketParameters:
    base_symbol, base = assets.refer(table, "base")
    quote_symbol, quote = assets.refer(table, "quote")
    base_decimals, quote_decimals = assets.decimals[base_symbol], assets.decimals[quote_symbol]
    tick_price = table.decimal("tick", PRICE_DECIMALS)
    lot_atoms = table.decimal("step", base_decimals)
    if lot_atoms <= 0:
        raise GenesisError(table.at("step"), "must be above 0")
    tick_value, rest = divmod(tick_price * lot_atoms * 10**quote_decimals, PRICE_SCALE * 10**base_decimals)
    if rest or tick_value <= 0:
        raise GenesisError(
            table.at("tick"),
            f"one tick × one step is not a whole number of {quote_symbol} atoms ({quote_decimals} decimals)",
        )
    market = MarketParameters(
        market_id=table.count("id"),
        symbol=table.text("symbol"),
        type=table.one_of("type", MarketType),
        base_asset_id=base,
        quote_asset_id=quote,
        tick_price=tick_price,
        lot_atoms=lot_atoms,
        tick_value_atoms=tick_value,
        min_lots=_whole_lots(table, "min_quantity", base_decimals, lot_atoms),
        max_lots=_whole_lots(table, "max_quantity", base_decimals, lot_atoms),
        state=table.one_of("state", BookState),
        bands=_bands(table.table("bands")),
        perpetual=_perpetual(table.table("perpetual"), base_decimals, lot_atoms) if table.has("perpetual") else None,
        mark_bound=table.decimal("mark_bound", RATE_DECIMALS, DEFAULT_MARK_BOUND),
    )
    table.done()
    return market


def _pool(table: Table, assets: _Names) -> PoolParameters:
    """A liquidity pool; what a file leaves out is as `PoolParameters` has it."""
    _external_symbol, external = assets.refer(table, "external")
    native_symbol, native = assets.refer(table, "native")
    usual = PoolParameters(external, native)

    def dec(key: str) -> int:
        return table.decimal(key, DEC_DECIMALS, getattr(usual, key), limit=MAX_DEC)

    pool = PoolParameters(
        pool_id=external,
        native_asset_id=native,
        state=table.one_of("state", PoolState),
        fee_rate=dec("fee_rate"),
        native_fee_rate=dec("native_fee_rate"),
        external_fee_rate=dec("external_fee_rate"),
        running_rate=dec("running_rate"),
        is_margined=table.flag("margined", usual.is_margined),
        takes_native_collateral=table.flag("native_collateral", usual.takes_native_collateral),
        leverage_max=dec("leverage_max"),
        rate_min=dec("rate_min"),
        rate_max=dec("rate_max"),
        rate_increase=dec("rate_increase"),
        rate_decrease=dec("rate_decrease"),
        gain_factor=dec("gain_factor"),
        epoch_us=table.count("epoch_seconds", usual.epoch_us // 1_000_000) * 1_000_000,
        open_threshold=dec("open_threshold"),
        removal_threshold=dec("removal_threshold"),
        safety_factor=dec("safety_factor"),
        interest_fund_share=dec("interest_fund_share"),
        close_fund_share=dec("close_fund_share"),
        pays_each_epoch=table.flag("pays_each_epoch", usual.pays_each_epoch),
        max_positions=table.count("max_positions", usual.max_positions),
        lent_max=dec("lent_max"),
        covers_losses=table.flag("covers_losses", usual.covers_losses),
        price_move_max=dec("price_move_max"),
        price_mean_us=table.count("price_mean_seconds", usual.price_mean_us // 1_000_000) * 1_000_000,
        min_native=table.decimal("min_native", assets.decimals[native_symbol], usual.min_native),
        collateral_weight=table.decimal("collateral_weight", RATE_DECIMALS, usual.collateral_weight),
    )
    table.done()
    return pool


def _bands(table: Table) -> BandParameters:
    bands = BandParameters(
        limit_min=table.decimal("limit_min", RATE_DECIMALS),
        limit_max=table.decimal("limit_max", RATE_DECIMALS),
        impact_min=table.decimal("impact_min", RATE_DECIMALS),
        impact_max=table.decimal("impact_max", RATE_DECIMALS),
        mean_mark_min=table.decimal("mean_mark_min", RATE_DECIMALS),
        mean_mark_max=table.decimal("mean_mark_max", RATE_DECIMALS),
        premium_tolerance=table.decimal("premium_tolerance", RATE_DECIMALS),
    )
    table.done()
    return bands


def _perpetual(table: Table, base_decimals: int, lot_atoms: int) -> PerpetualParameters:
    perpetual = PerpetualParameters(
        max_leverage=table.decimal("max_leverage", RATE_DECIMALS),
        imf_base=table.decimal("imf_base", RATE_DECIMALS),
        imf_factor=table.decimal("imf_factor", RATE_DECIMALS),
        mmf_base=table.decimal("mmf_base", RATE_DECIMALS),
        mmf_factor=table.decimal("mmf_factor", RATE_DECIMALS),
        funding_interval_ms=table.count("funding_interval_ms"),
        funding_upper_bps=table.count("funding_upper_bps"),
        funding_lower_bps=table.count("funding_lower_bps"),
        open_interest_limit_lots=_whole_lots(table, "open_interest_limit", base_decimals, lot_atoms),
        mark_bound=table.decimal("mark_bound", RATE_DECIMALS),
        position_limit_lots=_whole_lots(table, "position_limit", base_decimals, lot_atoms, 0),
        premium_divisor=table.count("premium_divisor", DEFAULT_PREMIUM_DIVISOR),
        interest_rate=table.decimal("interest_rate", RATE_DECIMALS, DEFAULT_INTEREST_RATE),
        funding_clamp=table.decimal("funding_clamp", RATE_DECIMALS, DEFAULT_FUNDING_CLAMP),
        liquidation_bands=_bands(table.table("liquidation_bands")) if table.has("liquidation_bands") else None,
    )
    table.done()
    return perpetual


def _fees(table: Table) -> FeeSchedule:
    fees = FeeSchedule(
        spot=tuple(_tier(tier) for tier in table.tables("spot")),
        futures=tuple(_tier(tier) for tier in table.tables("futures")),
        insurance_share=table.decimal("insurance_share", RATE_DECIMALS),
    )
    table.done()
    return fees


def _tier(table: Table) -> FeeTier:
    tier = FeeTier(
        name=table.text("name"),
        volume=table.decimal("volume", USD_DECIMALS),
        maker_rate=table.decimal("maker_bps", BPS_DECIMALS),
        taker_rate=table.decimal("taker_bps", BPS_DECIMALS),
    )
    table.done()
    return tier


def _limits(table: Table) -> Limits:
    limits = Limits(
        subaccounts_per_user=table.count("subaccounts_per_user"),
        keys_per_user=table.count("keys_per_user"),
        open_orders_per_subaccount=table.count("open_orders_per_subaccount"),
        orders_per_batch=table.count("orders_per_batch"),
        hand_price_stale_ms=table.count("hand_price_stale_ms", DEFAULT_HAND_PRICE_STALE_MS),
    )
    counts = ("subaccounts_per_user", "keys_per_user", "open_orders_per_subaccount", "orders_per_batch")
    for key in (*counts, "hand_price_stale_ms"):
        if getattr(limits, key) < 1:
            raise GenesisError(table.at(key), f"{getattr(limits, key)} is below 1")
    if limits.subaccounts_per_user > 10:
        raise GenesisError(table.at("subaccounts_per_user"), f"{limits.subaccounts_per_user} is above 10 (U-1)")
    table.done()
    return limits


def _whole_lots(table: Table, key: str, base_decimals: int, lot_atoms: int, default: int | None = None) -> int:
    atoms = table.decimal(key, base_decimals, default)
    lots, rest = divmod(atoms, lot_atoms)
    if rest:
        step = format_decimal(lot_atoms, base_decimals)
        raise GenesisError(table.at(key), f"{format_decimal(atoms, base_decimals)} is not a multiple of step {step}")
    return lots


def _key(text: str, where: str) -> bytes:
    try:
        key = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise GenesisError(where, "not base64") from None
    if len(key) != 32:
        raise GenesisError(where, f"an Ed25519 key has 32 bytes, not {len(key)}")
    return key


def _check(parameters: GenesisParameters) -> None:
    """Run the configuration commands on an empty state: what an operator could not set, a file cannot either."""
    state, outcome = State(), Outcome(1, 0)
    state.devnet = parameters.devnet
    for index, asset in enumerate(parameters.assets):
        _try(f"asset[{index}]", partial(markets.configure_asset, state, ConfigureAsset(asset), outcome))
    for index, chain in enumerate(parameters.chains):
        _try(f"chain[{index}]", partial(markets.configure_chain, state, ConfigureChain(chain), outcome))
    for index, token in enumerate(parameters.tokens):
        if (token.chain_id, token.asset_id) in state.tokens:
            raise GenesisError(f"token[{index}]", "this asset has a token on this chain already")
        _try(f"token[{index}]", partial(markets.configure_token, state, ConfigureToken(token), outcome))
    _try("fees", partial(markets.configure_fees, state, ConfigureFees(parameters.fees), outcome))
    for index, market in enumerate(parameters.markets):
        if market.market_id in state.markets:
            raise GenesisError(f"market[{index}].id", f"{market.market_id} is another market's id")
        _try(f"market[{index}]", partial(markets.configure_market, state, ConfigureMarket(market), outcome))
    for index, pool in enumerate(parameters.pools):
        if pool.pool_id in state.amm_pools:
            raise GenesisError(f"pool[{index}].external", "this asset has a pool already")
        _try(f"pool[{index}]", partial(pools.configure, state, ConfigurePool(pool), outcome))


def _try(where: str, configure: Callable[[], None]) -> None:
    try:
        configure()
    except Rejection as rejection:
        facts = rejection.facts
        field = _file_key(str(facts.get("field", "")))
        at = f"{where}.{field}" if field else where
        raise GenesisError(at, _sentence(rejection)) from None


def _file_key(field: str) -> str:
    """`spot.2.volume`, as the rules name it, is `spot[2].volume` in the file."""
    parts: list[str] = []
    for part in field.split("."):
        if part.isdigit() and parts:
            parts[-1] += f"[{part}]"
        else:
            parts.append(part)
    return ".".join(parts)


def _sentence(rejection: Rejection) -> str:
    facts = rejection.facts
    if "why" in facts:
        return str(facts["why"])
    if rejection.reason == RejectReason.INVALID_PARAMETERS:
        return f"{facts['value']} (in its smallest unit) is not between {facts['least']} and {facts['most']}"
    return f"{rejection.reason.name.lower().replace('_', ' ')} {facts}"


def _meant(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
