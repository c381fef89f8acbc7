"""`satchel parameters`: what an asset, market or pool is set to now, by the log, as an operator's command takes it."""

from __future__ import annotations

from base64 import b64encode
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from engine import commands
from engine.parameters import (
    PRICE_SCALE,
    AssetParameters,
    MarketParameters,
    PerpetualParameters,
    PoolParameters,
    RiskParameters,
)
from ledger import schema
from ledger.amounts import format_decimal
from ledger.chart import is_of_market, market_of
from tools.node_data import reading
from tools.terminal import FINE, CannotRun, print_json

_PRICE_DECIMALS = len(str(PRICE_SCALE)) - 1


def parameters(data: Path, database: str | None, symbol: str) -> int:
    """One document: the argument of ConfigureMarket, ConfigureAsset or ConfigurePool with which nothing would change.

    A liquidity pool is called by its external asset: `USDC.pool`.
    """
    command, columns = schema.command.c, schema.command
    kinds = ("Genesis", "ConfigureAsset", "ConfigureMarket", "ConfigurePool")
    now = Parameters()
    with reading(data, database) as engine, engine.connect() as connection:
        query = columns.select().where(command.kind.in_(kinds), command.outcome == 0).order_by(command.seq)
        for row in connection.execute(query):
            now.follow(commands.decode(row.payload))
    named: dict[str, dict[str, Any]] = {each.symbol: {"asset": each} for each in now.assets.values()}
    named |= {each.symbol: {"market": each} for each in now.markets.values()}
    named |= {f"{now.assets[number].symbol}.pool": {"pool": each} for number, each in now.pools.items()}
    if symbol not in named:
        raise CannotRun(f"no asset and no market is called {symbol}", f"one of {', '.join(sorted(named))}")
    print_json({name: _plain(value) for name, value in named[symbol].items()})
    return FINE


class Parameters:
    """Of every asset, market and liquidity pool, and the risk rules, as configuration commands so far have set them."""

    def __init__(self) -> None:
        self.assets: dict[int, AssetParameters] = {}
        self.markets: dict[int, MarketParameters] = {}
        self.pools: dict[int, PoolParameters] = {}
        self.risk = RiskParameters()

    def follow(self, command: Any) -> None:
        match command:
            case commands.Genesis():
                self.assets |= {each.asset_id: each for each in command.parameters.assets}
                self.markets |= {each.market_id: each for each in command.parameters.markets}
                self.pools |= {each.pool_id: each for each in command.parameters.pools}
                self.risk = command.parameters.limits.risk
            case commands.ConfigureAsset():
                self.assets[command.asset.asset_id] = command.asset
            case commands.ConfigureMarket():
                self.markets[command.market.market_id] = command.market
            case commands.ConfigurePool():
                self.pools[command.pool.pool_id] = command.pool

    @property
    def usdc(self) -> int:
        return next(number for number, asset in self.assets.items() if asset.symbol == "USDC")

    @property
    def usdc_decimals(self) -> int:
        return self.assets[self.usdc].decimals

    @property
    def perpetuals(self) -> dict[int, PerpetualParameters]:
        return {number: each.perpetual for number, each in self.markets.items() if each.perpetual is not None}

    def symbol(self, item: int) -> str:
        return self.markets[market_of(item)].symbol if is_of_market(item) else self.assets[item].symbol

    def quantity(self, item: int, number: int) -> str:
        """Lots of a position, or atoms of an asset, in whole units."""
        if not is_of_market(item):
            return format_decimal(number, self.assets[item].decimals)
        market = self.markets[market_of(item)]
        return format_decimal(number * market.lot_atoms, self.assets[market.base_asset_id].decimals)

    def prices(self, item: int, fills: list[list[int]]) -> str:
        """The prices of fills (ticks, lots): a position's in its own market, a debt's where USDC buys its asset."""
        where = [
            market for number, market in self.markets.items()
            if (number == market_of(item) if is_of_market(item) else market.perpetual is None
                and (market.base_asset_id, market.quote_asset_id) == (item, self.usdc))
        ]  # fmt: skip
        ticks = dict.fromkeys(price for price, _lots in fills)
        return ", ".join(format_decimal(price * where[0].tick_price, _PRICE_DECIMALS) for price in ticks)

    def price_of_lot(self, market_id: int, quote_atoms: int) -> str:
        """Quote atoms per lot as a price; markets' grids make it whole at PRICE_SCALE, or it is rounded down."""
        market = self.markets[market_id]
        base, quote = self.assets[market.base_asset_id], self.assets[market.quote_asset_id]
        scaled = quote_atoms * PRICE_SCALE * 10**base.decimals // (market.lot_atoms * 10**quote.decimals)
        return format_decimal(scaled, _PRICE_DECIMALS)


def _plain(value: Any) -> Any:
    """Structs as objects by field name, enumerations as their numbers, bytes in base64."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    return b64encode(value).decode() if isinstance(value, bytes) else value
