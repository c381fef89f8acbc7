"""Perpetuals in the history: rows that add up to what the ledger says, on both databases.   [C-5, P-21, S-10, L-10]"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from msgspec import structs

from api.history import schema
from api.history.following import History
from api.history.perpetuals import (
    FEE,
    FUNDING,
    LOSS,
    read_funding_payments,
    read_funding_rates,
    read_liquidations,
    read_positions,
    read_settlements,
)
from api.history.records import fill_from, order_from
from api.rows import Page
from engine import clock
from engine.commands import CancelAllOrders, Origin, SetPrices, Side
from engine.events import LiquidationChanged, LossShared, SettlementMoved
from engine.formulas.funding import payment
from engine.margin import lot_value
from engine.parameters import (
    PRICE_SCALE,
    RATE_SCALE,
    BookState,
    GenesisParameters,
    MarketParameters,
    MarketType,
    PerpetualParameters,
)
from ledger.database import open_engine, upgrade
from ledger.resources import migrations_dir
from tests.api.exchange import ALICE, BOB, SOL, USDC, Exchange, genesis, limit
from tools.stored_history import stored_history

PERP = 3
EVERYTHING = Page(limit=1_000, ascending=True)


@pytest.fixture
def url(database_url: str) -> str:
    """A database with the newest schema."""
    engine = open_engine(database_url)
    upgrade(engine)
    engine.dispose()
    return database_url


class Pit:
    """An exchange with one perpetual, whose ticks run when they are due."""

    def __init__(self) -> None:
        self.exchange = Exchange(born())
        self.exchange.at_us += 3_600_000_000 - self.exchange.at_us % 3_600_000_000
        self.price(100)

    def price(self, dollars: float) -> None:
        prices = ((USDC, PRICE_SCALE), (SOL, round(dollars * 100) * PRICE_SCALE // 100))
        self.exchange.run(SetPrices(prices))

    def trade(self, buyer: int, seller: int, ticks: int, lots: int) -> None:
        self.exchange.run(limit(seller, Side.ASK, ticks, lots, market_id=PERP))
        self.exchange.run(limit(buyer, Side.BID, ticks, lots, market_id=PERP))

    def wait(self, seconds: int) -> None:
        until = self.exchange.at_us + seconds * 1_000_000
        while (found := clock.due(self.exchange.state, until)) is not None:
            self.exchange.at_us = max(self.exchange.at_us, found[0])
            self.exchange.run(found[1])
        self.exchange.at_us = until

    def say(self, *events: Any) -> None:
        _block, outcomes = self.exchange.run(CancelAllOrders(ALICE))
        outcomes[-1].events.extend(events)

    def held(self, subaccount_id: int) -> int:
        return self.exchange.state.held(subaccount_id, USDC)

    @property
    def lot_values(self) -> dict[int, tuple[int, int]]:
        parameters = self.exchange.state.markets[PERP].parameters
        return {PERP: (parameters.tick_value_atoms, parameters.tick_price)}


def born() -> GenesisParameters:
    plain = genesis()
    spot = plain.markets[0]
    perpetual = PerpetualParameters(
        50 * RATE_SCALE, RATE_SCALE // 50, 0, RATE_SCALE // 100, 0, 3_600_000, 100, -100, 10**9, RATE_SCALE // 200
    )
    market = MarketParameters(
        PERP, "SOL_USDC_PERP", MarketType.PERP, SOL, USDC, PRICE_SCALE // 100, 10**7, 100, 1, 10**9, BookState.OPEN,
        spot.bands, perpetual,
    )
    return structs.replace(plain, markets=(*plain.markets, market))


@asynccontextmanager
async def following(url: str, pit: Pit) -> AsyncIterator[History]:
    kept = History(url)
    kept.start()
    for block, outcomes in pit.exchange.blocks:
        kept.on_block(block, outcomes)
    try:
        yield kept
    finally:
        await asyncio.to_thread(kept.close)


@pytest.mark.parametrize("seed", range(3))
async def test_settlements_are_what_the_ledger_moved_whatever_happened(url: str, seed: int) -> None:
    """S-10, P-21: random fills, prices and waits; per account Σ of the rows is the change of its USDC."""
    chance = random.Random(seed)
    pit = Pit()
    begun = {who: pit.held(who) for who in (ALICE, BOB)}
    for _ in range(25):
        price = chance.randrange(9_000, 11_000)
        pit.price(price / 100)
        buyer, seller = chance.sample((ALICE, BOB), 2)
        pit.trade(buyer, seller, price, chance.randrange(1, 500))
        pit.wait(chance.choice((0, 1, 7, 10, 35, 3_600)))
    pit.wait(10)
    async with following(url, pit) as kept:
        for who in (ALICE, BOB):
            rows, total = await read_settlements(kept, who, EVERYTHING, pit.lot_values)
            assert total == len(rows) and {row.source for row in rows} == {"realize", "funding", "fee"}
            assert sum(row.atoms for row in rows) == pit.held(who) - begun[who]
            newest, same = await read_settlements(kept, who, Page(limit=7, offset=3), pit.lot_values)
            assert (newest, same) == (rows[::-1][3:10], total)
            fees, _ = await read_settlements(kept, who, EVERYTHING, pit.lot_values, kinds=(FEE,))
            assert fees == [row for row in rows if row.source == "fee"]
            funding, _ = await read_settlements(kept, who, EVERYTHING, pit.lot_values, kinds=(FUNDING,))
            payments, count = await read_funding_payments(kept, who, EVERYTHING)
            parameters = pit.exchange.state.markets[PERP].parameters
            paid = [payment(row.rate, lot_value(parameters, row.mark), row.lots) for row in payments]
            assert paid == [row.atoms for row in funding] and count == len(paid) > 0


async def test_positions_end_and_begin_anew(url: str) -> None:
    """C-5, W-6: a flip ends one position and opens another; what was closed knows at what price."""
    pit = Pit()
    pit.trade(ALICE, BOB, 10_000, 100)
    pit.trade(BOB, ALICE, 10_200, 150)
    pit.wait(30)
    async with following(url, pit) as kept:
        closed, count = await read_positions(kept, ALICE, Page(), is_open=False)
        opened, _ = await read_positions(kept, ALICE, Page(), is_open=True)
        everything, total = await read_positions(kept, ALICE, EVERYTHING, market_ids=[PERP])
        none, _ = await read_positions(kept, ALICE, Page(), market_ids=[1])
    assert (count, total, none) == (1, 2, []) and everything == [*closed, *opened]
    (was,) = closed
    (stands,) = opened
    live = pit.exchange.state.subaccounts[ALICE].positions[PERP]
    assert was.is_long and not stands.is_long and stands.view.lots == live.lots == -50
    assert (was.view.closed_lots, was.closed_atoms, was.view.traded_atoms) == (100, 102_000_000, 2_000_000)
    assert was.closed_at_us == stands.view.opened_at_us and stands.view.position_id == live.position_id
    assert was.liquidated_lots == was.liquidation_fee_atoms == 0


async def test_rates_and_liquidations_page_newest_first(url: str) -> None:
    """P-22, L-10"""
    pit = Pit()
    pit.trade(ALICE, BOB, 10_000, 100)
    pit.wait(2 * 3_600 + 1)
    steps = [
        LiquidationChanged(ALICE, "started", -5, 7, 10**20),
        LiquidationChanged(ALICE, "book", 5, 7, 9, PERP, 0, -10, 99 * PRICE_SCALE, 100 * PRICE_SCALE, 12, 6, 5, BOB),
    ]
    pit.say(*steps)
    pit.say(LiquidationChanged(BOB, "ended", 1, 0, 0), SettlementMoved(BOB, "unsettled", 17))
    async with following(url, pit) as kept:
        rates, total = await read_funding_rates(kept, PERP, Page())
        found, count = await read_liquidations(kept, ALICE, Page())
        moved, _ = await read_settlements(kept, BOB, Page(limit=1), pit.lot_values)
    assert total == 2 and rates[0].interval_end_us - rates[1].interval_end_us == 3_600_000_000
    assert count == 2 and [row.step for row in found] == steps[::-1]
    assert (moved[0].source, moved[0].atoms) == ("unsettled", 17)


async def test_a_shared_loss_is_charged_to_the_lots_of_its_side(url: str) -> None:
    """L-6: rounded up against whoever pays it; whose position was closed by then pays nothing."""
    pit = Pit()
    pit.trade(ALICE, BOB, 10_000, 100)
    pit.say(LossShared(PERP, True, 1_000, 7 * 10**12 + 1))
    pit.trade(BOB, ALICE, 10_000, 100)
    pit.say(LossShared(PERP, True, 1_000, 7 * 10**12))
    async with following(url, pit) as kept:
        alices, _ = await read_settlements(kept, ALICE, Page(), pit.lot_values, kinds=(LOSS,))
        bobs, _ = await read_settlements(kept, BOB, Page(), pit.lot_values, kinds=(LOSS,))
    assert [(row.source, row.atoms) for row in alices] == [("loss", -701)] and bobs == []


async def test_the_stored_rows_are_those_that_a_replay_makes(url: str) -> None:
    """A-10: and a row that was changed is found."""
    pit = Pit()
    pit.trade(ALICE, BOB, 10_000, 100)
    pit.wait(3_700)
    pit.price(104)
    pit.trade(BOB, ALICE, 10_400, 30)
    pit.wait(10)
    async with following(url, pit):
        pass
    engine = open_engine(url)
    assert differences(engine, pit) == []
    changes = ("position.funding_atoms", "position_change.lots", "tick.mark", "funding.rate")
    for place, change in enumerate(changes):
        table, column = f"history_{change}".split(".")
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = '77'")
        found = differences(engine, pit)
        assert len(found) == place + 1 and any(table in words for words in found)
    engine.dispose()


def differences(engine: Any, pit: Pit) -> list[str]:
    with stored_history(engine) as stored:
        stored.begin(True, 0, None)
        for block, outcomes in pit.exchange.blocks:
            stored.take(block.header.height, outcomes)
        return stored.differences(pit.exchange.blocks[-1][0].header.height)


def test_a_database_from_before_perpetuals_is_brought_up(database_url: str) -> None:
    """A-14: its orders are plain and its fills a user's, and their columns stand where a new database has them."""
    engine = open_engine(database_url)
    moved_to(engine, "0005", command.upgrade)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO history_order VALUES "
            "(1, NULL, 1, 1, 1, 1, 1, 5, 5, '0', 0, '0', 1, 1, false, false, 1, 7, NULL)"
        )
        connection.exec_driver_sql(
            "INSERT INTO history_fill VALUES (9, 0, 1, 1, 1, NULL, 1, 1, 5, 5, '25', 1, '0', false, 7)"
        )
    upgrade(engine)
    with engine.connect() as connection:
        order = order_from(connection.execute(sa.select(schema.order)).one())
        fill = fill_from(connection.execute(sa.select(schema.fill)).one())
    assert (order.order_id, order.terms, fill.trade_id, fill.origin) == (1, None, 1, Origin.USER)
    inspector = sa.inspect(engine)
    for table in schema.TABLES:
        assert [column["name"] for column in inspector.get_columns(table.name)] == [column.name for column in table.c]
    moved_to(engine, "0005", command.downgrade)
    assert not sa.inspect(engine).has_table("history_position")
    engine.dispose()


def moved_to(engine: sa.Engine, revision: str, move: Any) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        move(config, revision)
