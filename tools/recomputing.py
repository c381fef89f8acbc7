"""`satchel liquidations`: an account's liquidation step by step, its figures computed again from the log.   [L-10]

The memo of a step on the book says what the account had and at which prices; the parameters come from the configuration
commands before it. What the memo says must be what they give. Further steps (backstop, ADL, insurance …) are shown as
their memos have them.
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
from engine.parameters import PRICE_SCALE, USD_SCALE, AssetParameters, MarketParameters, PerpetualParameters
from ledger import schema
from ledger.amounts import format_decimal
from ledger.chart import contracts, is_of_market, market_of
from ledger.journal import JournalKind, decode_memo
from tools.node_data import reading
from tools.terminal import FINDINGS, FINE, print_json, print_table, say

_KINDS = (JournalKind.LIQUIDATION_STARTED, JournalKind.LIQUIDATION_ENDED, JournalKind.LIQUIDATION_STEP)
_FURTHER = {
    JournalKind.NETTED: ("netted", 0, 5, 4),
    JournalKind.BACKSTOP: ("backstop", 0, 11, 3),
    JournalKind.ADL: ("adl", 1, 10, 3),
    JournalKind.INSURANCE: ("insurance", 0, 6, 3),
    JournalKind.COLLATERAL_TAKEN: ("collateral", 0, 6, 3),
    JournalKind.DEBT_WRITTEN_DOWN: ("written down", 0, 11, 3),
    JournalKind.LENDER_ADL: ("lender adl", 1, 9, 3),
    JournalKind.LOSS_SHARED: ("loss shared", 1, 0, 0),
    JournalKind.WRITE_OFF: ("written off", 0, 0, 0),
}
"""Kind → its name, where in its memo the subaccount and the standing before it are, how many figures that has."""
AS_SAID = "as said"
"""Of a memo without an image: shown, not computed again."""

_CONFIGURING = ("Genesis", "ConfigureAsset", "ConfigureMarket")
_USD_DECIMALS = len(str(USD_SCALE)) - 1
_PRICE_DECIMALS = len(str(PRICE_SCALE)) - 1


def liquidations(data: Path, database: str | None, subaccount: int, as_json: bool) -> int:
    """Each record of the subaccount's liquidations with what its memo gives again; 1 when one differs.   [L-10]"""
    with reading(data, database) as engine, engine.connect() as connection:
        lines = list(_lines(connection, subaccount))
    if as_json:
        print_json({"subaccount": subaccount, "steps": lines})
    else:
        names = ["time", "journal", "stage", "item", "taken", "price", "fee"]
        names += ["moment", "equity", "maintenance", "E", "again"]
        print_table(names, [[str(line[name]) for name in names] for line in lines], numbers=(1, 4, 5, 6, 8, 9, 10))
    differing = [line for line in lines if line["again"] not in ("same", AS_SAID)]
    for line in differing:
        say(f"journal {line['journal']}, {line['moment']} the step: the memo says otherwise than its image: {line}")
    return FINDINGS if differing else FINE


class Parameters:
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


def _lines(connection: sa.Connection, subaccount: int) -> Iterator[dict[str, Any]]:
    """One line for a beginning or an end, two for a step: before and after it."""
    journal, command = schema.journal.c, schema.command.c
    records = connection.execute(
        sa.select(journal.seq, journal.command_seq, journal.at_us, journal.kind, journal.memo)
        .where(journal.kind.in_([int(kind) for kind in (*_KINDS, *_FURTHER)]))
        .order_by(journal.seq)
    ).all()
    configuring = connection.execute(
        sa.select(command.seq, command.payload)
        .where(command.kind.in_(_CONFIGURING), command.outcome == 0)
        .order_by(command.seq)
    ).all()
    parameters, done = Parameters(), 0
    for seq, command_seq, at_us, kind, content in records:
        while done < len(configuring) and configuring[done][0] <= command_seq:
            parameters.follow(commands.decode(configuring[done][1]))
            done += 1
        memo = decode_memo(content)
        time = datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="seconds")
        line = {"time": time, "journal": seq, "item": "", "taken": "", "price": "", "fee": ""}
        if kind in _FURTHER:
            name, owner, at, count = _FURTHER[kind]
            if memo[owner] == subaccount:
                line |= {"stage": name} | _further(parameters, kind, memo)
                yield from _as_said(line, memo, at, count)
        elif memo[0] != subaccount:
            continue
        elif kind == JournalKind.LIQUIDATION_STEP:
            line |= {"stage": "book", "item": parameters.symbol(memo[1])}
            line |= {"taken": parameters.quantity(memo[1], memo[2]), "price": parameters.prices(memo[1], memo[4])}
            line["fee"] = format_decimal(memo[5], parameters.usdc_decimals)
            yield line | _again(parameters, "before", memo[6:10], memo[10])
            yield line | _again(parameters, "after", memo[11:15], memo[15])
        else:
            line["stage"] = "started" if kind == JournalKind.LIQUIDATION_STARTED else "ended"
            yield line | _again(parameters, "at", memo[1:5], memo[5])


def _further(parameters: Parameters, kind: int, memo: list[Any]) -> dict[str, str]:
    """What a step beside the book took, by docs/journal-memos.md; a backstop's slice is of everything."""
    match kind:
        case JournalKind.BACKSTOP:
            return {"item": "slice"}
        case JournalKind.ADL:
            item, taken = contracts(memo[0]), memo[3]
            price = parameters.price_of_lot(memo[0], memo[4])
            return {"item": parameters.symbol(item), "taken": parameters.quantity(item, taken), "price": price}
        case JournalKind.INSURANCE:
            return {"item": "USDC", "taken": format_decimal(-memo[2], parameters.usdc_decimals)}
        case JournalKind.LOSS_SHARED:
            taken = format_decimal(-memo[3], parameters.usdc_decimals)
            return {"item": parameters.symbol(contracts(memo[0])), "taken": taken}
        case JournalKind.WRITE_OFF:
            return {"item": "USDC", "taken": format_decimal(-memo[1], parameters.usdc_decimals)}
        case JournalKind.COLLATERAL_TAKEN:
            item, taken = memo[3], memo[4]
        case JournalKind.LENDER_ADL:
            item, taken = memo[0], memo[3]
        case _:
            item, taken = memo[1], memo[2]
    return {"item": parameters.symbol(item), "taken": parameters.quantity(item, taken)}


def _as_said(line: dict[str, Any], memo: list[Any], at: int, count: int) -> Iterator[dict[str, Any]]:
    """The standing before and after as the memo has it: `count` figures each, net equity first, E last; 0: none."""
    if not count:
        yield line | {"moment": "at", "equity": "", "maintenance": "", "E": "", "again": AS_SAID}
        return
    for moment, start in (("before", at), ("after", at + count)):
        equity, maintenance, realizable = (int(memo[place]) for place in (start, start + 1, start + count - 1))
        yield line | {
            "moment": moment,
            "equity": format_decimal(equity, _USD_DECIMALS),
            "maintenance": format_decimal(maintenance, _USD_DECIMALS),
            "E": format_decimal(realizable, _USD_DECIMALS),
            "again": AS_SAID,
        }


def _again(parameters: Parameters, moment: str, said: list[int], image: Any) -> dict[str, str]:
    found = standing.standing(standing.decode(image), parameters.assets, parameters.perpetuals)
    figures = Standing(*map(int, said))  # beyond 64 bits they are decimal strings
    return {
        "moment": moment,
        "equity": format_decimal(figures.equity, _USD_DECIMALS),
        "maintenance": format_decimal(figures.maintenance, _USD_DECIMALS),
        "notional": format_decimal(figures.notional, _USD_DECIMALS),
        "E": format_decimal(figures.realizable, _USD_DECIMALS),
        "again": "same" if found == figures else f"equity {found.equity}, maintenance {found.maintenance}",
    }
