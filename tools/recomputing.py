"""`satchel liquidations`: an account's liquidation step by step, its figures computed again from the log.   [L-10]

The memo of a step says what the account had and at which prices; the parameters come from the configuration commands
before it. What the memo says must be what they give.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from engine import commands
from engine.formulas import standing
from engine.formulas.standing import Standing
from engine.parameters import USD_SCALE, AssetParameters, MarketParameters, PerpetualParameters
from ledger import schema
from ledger.amounts import format_decimal
from ledger.chart import is_of_market, market_of
from ledger.journal import JournalKind, decode_memo
from tools.node_data import reading
from tools.terminal import FINDINGS, FINE, print_json, print_table, say

_KINDS = (JournalKind.LIQUIDATION_STARTED, JournalKind.LIQUIDATION_ENDED, JournalKind.LIQUIDATION_STEP)
_CONFIGURING = ("Genesis", "ConfigureAsset", "ConfigureMarket")
_USD_DECIMALS = len(str(USD_SCALE)) - 1


def liquidations(data: Path, database: str | None, subaccount: int, as_json: bool) -> int:
    """Each record of the subaccount's liquidations with what its memo gives again; 1 when one differs.   [L-10]"""
    with reading(data, database) as engine, engine.connect() as connection:
        lines = list(_lines(connection, subaccount))
    if as_json:
        print_json({"subaccount": subaccount, "steps": lines})
    else:
        names = ["time", "journal", "stage", "item", "taken", "fee", "moment", "equity", "maintenance", "E", "again"]
        print_table(names, [[str(line[name]) for name in names] for line in lines], numbers=(1, 4, 5, 7, 8, 9))
    differing = [line for line in lines if line["again"] != "same"]
    for line in differing:
        say(f"journal {line['journal']}, {line['moment']} the step: the memo says otherwise than its image: {line}")
    return FINDINGS if differing else FINE


class _Parameters:
    """Of every asset and market, as the configuration commands so far have set them."""

    def __init__(self) -> None:
        self.assets: dict[int, AssetParameters] = {}
        self.markets: dict[int, MarketParameters] = {}

    def follow(self, command: Any) -> None:
        match command:
            case commands.Genesis():
                self.assets |= {each.asset_id: each for each in command.parameters.assets}
                self.markets |= {each.market_id: each for each in command.parameters.markets}
            case commands.ConfigureAsset():
                self.assets[command.asset.asset_id] = command.asset
            case commands.ConfigureMarket():
                self.markets[command.market.market_id] = command.market

    @property
    def perpetuals(self) -> dict[int, PerpetualParameters]:
        return {number: each.perpetual for number, each in self.markets.items() if each.perpetual is not None}

    def symbol(self, item: int) -> str:
        return self.markets[market_of(item)].symbol if is_of_market(item) else self.assets[item].symbol


def _lines(connection: sa.Connection, subaccount: int) -> Iterator[dict[str, Any]]:
    """One line for a beginning or an end, two for a step: before and after it."""
    journal, command = schema.journal.c, schema.command.c
    records = connection.execute(
        sa.select(journal.seq, journal.command_seq, journal.at_us, journal.kind, journal.memo)
        .where(journal.kind.in_([int(kind) for kind in _KINDS]))
        .order_by(journal.seq)
    ).all()
    configuring = connection.execute(
        sa.select(command.seq, command.payload)
        .where(command.kind.in_(_CONFIGURING), command.outcome == 0)
        .order_by(command.seq)
    ).all()
    parameters, done = _Parameters(), 0
    for seq, command_seq, at_us, kind, content in records:
        while done < len(configuring) and configuring[done][0] <= command_seq:
            parameters.follow(commands.decode(configuring[done][1]))
            done += 1
        memo = decode_memo(content)
        if memo[0] != subaccount:
            continue
        time = datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="seconds")
        line = {"time": time, "journal": seq, "item": "", "taken": "", "fee": ""}
        if kind == JournalKind.LIQUIDATION_STEP:
            line |= {"stage": "book", "item": parameters.symbol(memo[1]), "taken": memo[2], "fee": memo[5]}
            yield line | _again(parameters, "before", memo[6:10], memo[10])
            yield line | _again(parameters, "after", memo[11:15], memo[15])
        else:
            line["stage"] = "started" if kind == JournalKind.LIQUIDATION_STARTED else "ended"
            yield line | _again(parameters, "at", memo[1:5], memo[5])


def _again(parameters: _Parameters, moment: str, said: list[int], image: Any) -> dict[str, str]:
    found = standing.standing(standing.decode(image), parameters.assets, parameters.perpetuals)
    figures = Standing(*said)
    return {
        "moment": moment,
        "equity": format_decimal(figures.equity, _USD_DECIMALS),
        "maintenance": format_decimal(figures.maintenance, _USD_DECIMALS),
        "notional": format_decimal(figures.notional, _USD_DECIMALS),
        "E": format_decimal(figures.realizable, _USD_DECIMALS),
        "again": "same" if found == figures else f"equity {found.equity}, maintenance {found.maintenance}",
    }
