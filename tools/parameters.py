"""`satchel parameters`: what an asset or a market is set to now, by the log, as an operator's command takes it."""

from __future__ import annotations

from base64 import b64encode
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from engine import commands
from ledger import schema
from tools.node_data import reading
from tools.recomputing import Parameters
from tools.terminal import FINE, CannotRun, print_json


def parameters(data: Path, database: str | None, symbol: str) -> int:
    """One document: the argument of ConfigureMarket or ConfigureAsset with which nothing would change."""
    command, columns = schema.command.c, schema.command
    kinds = ("Genesis", "ConfigureAsset", "ConfigureMarket")
    now = Parameters()
    with reading(data, database) as engine, engine.connect() as connection:
        query = columns.select().where(command.kind.in_(kinds), command.outcome == 0).order_by(command.seq)
        for row in connection.execute(query):
            now.follow(commands.decode(row.payload))
    named: dict[str, dict[str, Any]] = {each.symbol: {"asset": each} for each in now.assets.values()}
    named |= {each.symbol: {"market": each} for each in now.markets.values()}
    if symbol not in named:
        raise CannotRun(f"no asset and no market is called {symbol}", f"one of {', '.join(sorted(named))}")
    print_json({name: _plain(value) for name, value in named[symbol].items()})
    return FINE


def _plain(value: Any) -> Any:
    """Structs as objects by field name, enumerations as their numbers, bytes in base64."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    return b64encode(value).decode() if isinstance(value, bytes) else value
