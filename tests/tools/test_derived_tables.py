"""What is derived from the log is held against it: history rows and what is stored of epochs.   [A-10, R-23]"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from api.history import schema
from api.history.following import History
from engine.commands import (
    AcceptQuote,
    BorrowLend,
    CloseEpoch,
    Command,
    ConvertDust,
    CreateStrategy,
    LendingSide,
    SetPrices,
    Side,
    SubmitQuote,
    SubmitRfq,
)
from engine.parameters import PRICE_SCALE, MarketParameters
from ledger.amounts import format_decimal
from ledger.database import database_url, open_engine
from ledger.signing import Signer
from ledger.store import Store
from tests.tools.conftest import Satchel
from tests.tools.sample import ALICE, BOB, MALLORY, Exchange, trade
from tests.tools.test_published import publish
from tools.replaying import Replay

USDC, SOL = 1, 5
HISTORY = [table.name for table in schema.TABLES if table is not schema.cursor]
FILLED = [name for name in HISTORY if name != "history_shared_loss"]
"""A loss is shared when nobody can take a position (tests/api/test_history_perpetuals.py writes and compares one)."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with something in every derived table; read it only."""
    data = tmp_path_factory.mktemp("derived") / "node"
    asyncio.run(write(data))
    follow(database_url(data, None))
    publish(data)
    return data


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy to do damage to."""
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    return copy


async def write(data: Path, database: str | None = None) -> None:
    """The sample's trades and epoch; loans over an hour, which closes another; dust converted, a third."""
    exchange = await Exchange(data, database).open()
    await trade(exchange)
    await exchange.register(MALLORY)
    await exchange.deposit(MALLORY, "SOL", 12_345, 3)
    prices = SetPrices(((USDC, PRICE_SCALE), (SOL, 100 * PRICE_SCALE)))
    await exchange.bring(prices)
    await lend(exchange, ALICE, LendingSide.LEND, 5_000_000_000)
    await lend(exchange, BOB, LendingSide.BORROW, 1_000_000_000)
    hour = exchange.sequencer.state.last_interest_hour + 1
    # The hour's interest is charged on its own before the next command.
    exchange.now_us = hour * 3_600_000_000
    await lend(exchange, ALICE, LendingSide.BORROW, 1_000_000_000)
    await exchange.bring(prices)
    await signed(exchange, MALLORY, "convertDust", {}, ConvertDust(exchange.subaccounts[MALLORY.public_key][1]))
    await conditions(exchange)
    await positions(exchange)
    await liquidity_pools(exchange)
    await exchange.bring(CloseEpoch(0))
    await exchange.close()


async def conditions(exchange: Exchange) -> None:
    """A strategy that runs, and a request for quotes that a quote fills.   [S-7]"""
    market = next(iter(exchange.sequencer.state.markets.values())).parameters
    alice, bob = (exchange.subaccounts[key.public_key][1] for key in (ALICE, BOB))
    strategy = CreateStrategy(alice, market.market_id, Side.BID, 1, 1_000, 1_000, client_id=7)
    fields = {"symbol": market.symbol, "side": "Bid", "strategyType": "Scheduled", "clientStrategyId": "7"}
    sizes = {"quantity": step(market, exchange), "duration": "1000", "interval": "1000"}
    await signed(exchange, ALICE, "strategyCreate", fields | sizes, strategy)
    fields = {"symbol": market.symbol, "side": "Bid", "quantity": step(market, exchange)}
    await signed(exchange, ALICE, "rfqSubmit", fields, SubmitRfq(alice, market.market_id, Side.BID, 1))
    price = format_decimal(10_000 * market.tick_price, 12)
    fields = {"rfqId": "1", "bidPrice": price, "askPrice": price}
    await signed(exchange, BOB, "quoteSubmit", fields, SubmitQuote(bob, 1, 10_000, 10_000))
    await signed(exchange, ALICE, "quoteAccept", {"quoteId": "1"}, AcceptQuote(alice, 1))


async def positions(exchange: Exchange) -> None:
    """A long that a gap ruins: a fill, ticks, a liquidation.   [S-10, L-6]"""
    await exchange.deposit(MALLORY, "USDC", 1_000_000_000, 4)
    for key, side in ((BOB, "Ask"), (MALLORY, "Bid")):
        outcome = await exchange.ask(
            key, "orderExecute", symbol="SOL_USDC_PERP", side=side, orderType="Limit", price="100", quantity="80"
        )
        assert outcome.rejection is None, outcome.rejection
    for dollars in (99, 80, 80):
        exchange.now_us += 11_000_000
        await exchange.bring(SetPrices(((USDC, PRICE_SCALE), (SOL, dollars * PRICE_SCALE))))


async def liquidity_pools(exchange: Exchange) -> None:
    """A provider, swaps, a long that its owner closes, one that an epoch closes by force.   [X-1 … X-11]"""
    await exchange.deposit(ALICE, "USDC", 2_000_000_000_000, 5)
    await exchange.deposit(ALICE, "ROWAN", 2_000_000_000_000_000, 6)
    pair = {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "1000", "leverage": "5"}
    for instruction, fields in (
        ("poolLiquidityAdd", {"symbol": "USDC", "nativeQuantity": "1000000", "externalQuantity": "1000000"}),
        ("poolPositionOpen", pair),
        ("poolPositionOpen", pair),
        ("poolPositionClose", {"positionId": "1", "minReceived": "900"}),
        ("poolSwapExecute", {"fromSymbol": "ROWAN", "toSymbol": "USDC", "quantity": "100000"}),
        ("poolLiquidityRemove", {"symbol": "USDC", "basisPoints": "100"}),
    ):
        outcome = await exchange.ask(ALICE, instruction, **fields)
        assert outcome.rejection is None, outcome.rejection
    exchange.now_us += 3_600_000_000
    await exchange.bring(SetPrices(((USDC, PRICE_SCALE),)))
    assert not exchange.sequencer.state.amm_positions


def step(market: MarketParameters, exchange: Exchange) -> str:
    """One lot as the wire says it."""
    return format_decimal(market.lot_atoms, exchange.sequencer.state.assets[market.base_asset_id].decimals)


async def lend(exchange: Exchange, key: Signer, side: LendingSide, atoms: int) -> None:
    fields = {"symbol": "USDC", "side": side.name.title(), "quantity": str(atoms)}
    command = BorrowLend(exchange.subaccounts[key.public_key][1], USDC, side, atoms)
    await signed(exchange, key, "borrowLendExecute", fields, command)


async def signed(exchange: Exchange, key: Signer, instruction: str, fields: dict[str, str], command: Command) -> None:
    outcome = await exchange.bring(command, exchange.request(key, instruction, fields))
    assert outcome.rejection is None, outcome.rejection


def follow(url: str, until: int | None = None) -> None:
    """The history as a node writes it, to the end of the log or to a block."""
    engine = open_engine(url)
    store = Store(engine)
    history = History(url)
    history.start()
    for header, outcomes in Replay(store).blocks(until):
        block = store.whole_block(header.height)
        assert block is not None
        history.on_block(block, outcomes)
    history.close()
    engine.dispose()


def alter(data: Path, *statements: str) -> None:
    """What somebody with the database alone can do; the guards are as before afterwards."""
    connection = sqlite3.connect(data / "ledger.db", isolation_level=None)
    guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'por_%'")
    triggers = guards.fetchall()
    for name, _sql in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        assert connection.execute(statement).rowcount > 0, statement
    for _name, sql in triggers:
        connection.execute(sql)
    connection.close()


def test_what_the_node_derived_is_what_replay_makes(whole: Path, satchel: Satchel) -> None:
    connection = sqlite3.connect(whole / "ledger.db")
    counts = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in HISTORY}
    connection.close()
    ran = satchel("replay", "--data", whole, "--json")

    assert all(counts[table] for table in FILLED), counts
    assert (ran.code, ran.json()["difference"]) == (0, None)
    assert ran.json()["covered"]["epochs"] == 4
    history = ran.json()["history"]
    assert history == {"compared": True, "toBlock": ran.json()["toBlock"], "rows": sum(counts.values())}


@pytest.mark.parametrize(
    ("table", "change", "named"),
    [
        ("history_order", "status = status + 1", "status"),
        ("history_order", "post_only = 2", "post_only 2"),
        ("history_fill", "quote_atoms = '1'", "quote_atoms '1'"),
        ("history_trade", "price_ticks = price_ticks + 1", "price_ticks"),
        ("history_kline", "high_ticks = high_ticks + 1", "high_ticks"),
        ("history_deposit", "atoms = '1000000000000'", "atoms '1000000000000'"),
        ("history_withdrawal", "address = 'mine'", "address 'mine'"),
        ("history_lending", "atoms = '7'", "atoms '7'"),
        ("history_loan", "flow_atoms = '-99999999'", "flow_atoms '-99999999'"),
        ("history_loan", "closed_at_us = NULL, last_period = 5", "last_period 5"),
        ("history_pool", "borrow_rate = '1'", "borrow_rate '1'"),
        ("history_dust", "usdc_atoms = '9'", "usdc_atoms '9'"),
        ("history_strategy", "market_id = 99", "market_id 99"),
        ("history_rfq", "status = 1", "status 1"),
        ("history_quote", "view = '[]'", "view '[]'"),
        ("history_rfq_fill", "side = 2", "side 2"),
        ("history_swap", "fee_atoms = '0'", "fee_atoms '0'"),
        ("history_liquidity", "units_after = '1'", "units_after '1'"),
        ("history_long", "leverage = '1'", "leverage '1'"),
        ("history_long_close", "forced = 2", "forced 2"),
        ("history_pool_epoch", "charged = 99", "charged 99"),
    ],
)
def test_a_changed_history_row_is_named(data: Path, satchel: Satchel, table: str, change: str, named: str) -> None:
    """Table, key, column and both values."""
    alter(data, f"UPDATE {table} SET {change} WHERE rowid = (SELECT max(rowid) FROM {table})")
    ran = satchel("replay", "--data", data, "--json")

    assert ran.code == 1
    difference = ran.json()["difference"]
    assert difference.startswith(f"{table} (") and named in difference and "replay gives" in difference, difference
    assert not ran.json()["identical"]


@pytest.mark.parametrize("table", FILLED)
def test_a_history_row_too_few_or_too_many_is_named(data: Path, satchel: Satchel, table: str) -> None:
    key = schema.metadata.tables[table].primary_key.columns.keys()[0]
    newest = f"WHERE rowid = (SELECT max(rowid) FROM {table})"
    alter(data, f"UPDATE {table} SET {key} = 9223372036854775807 {newest}")
    moved = satchel("replay", "--data", data, "--json")
    alter(data, f"DELETE FROM {table} WHERE {key} = 9223372036854775807")
    gone = satchel("replay", "--data", data, "--json")

    assert (moved.code, gone.code) == (1, 1)
    assert "no row is stored, the log makes one" in gone.json()["difference"]
    assert moved.json()["difference"].startswith(f"{table} ("), moved.out


def test_a_row_in_two_tables_is_named_in_both(data: Path, satchel: Satchel) -> None:
    alter(data, "UPDATE history_fill SET lots = lots + 1", "UPDATE history_pool SET hour = hour + 1")
    difference = satchel("replay", "--data", data, "--json").json()["difference"]

    assert "history_fill (" in difference and "history_pool (" in difference


@pytest.mark.parametrize("height", ["9999", "-7", "'x'", "3"])
def test_a_cursor_that_was_moved_is_found(data: Path, satchel: Satchel, height: str) -> None:
    alter(data, f"UPDATE history_cursor SET height = {height}")
    ran = satchel("replay", "--data", data, "--json")

    assert ran.code == 1
    assert "history_" in ran.json()["difference"]


def test_a_history_that_lags_is_compared_as_far_as_it_goes(tmp_path: Path, satchel: Satchel) -> None:
    """A-9: a kill may leave the history behind the log; its rows are those of an earlier block."""
    asyncio.run(write(tmp_path))
    follow(database_url(tmp_path, None), until=9)
    lagging = satchel("replay", "--data", tmp_path, "--json")
    alter(tmp_path, "UPDATE history_order SET lots = lots + 1")
    altered = satchel("replay", "--data", tmp_path, "--json")

    assert (lagging.code, lagging.json()["history"]["toBlock"]) == (0, 9), lagging.out
    assert lagging.json()["history"]["rows"] > 0
    assert altered.code == 1


def test_it_is_said_when_the_history_was_not_compared(whole: Path, satchel: Satchel, tmp_path: Path) -> None:
    left_out = satchel("replay", "--data", whole, "--no-history", "--json")
    part = satchel("replay", "--data", whole, "--to", 5)
    progress = tmp_path / "progress"
    assert satchel("replay", "--data", whole, "--resume", progress).code == 0
    resumed = satchel("replay", "--data", whole, "--resume", progress, "--json")

    assert left_out.json()["history"] == {"compared": False, "reason": "--no-history"}
    assert (left_out.code, part.code, resumed.code) == (0, 0, 0)
    assert "history: not compared, it goes on to block" in part.out
    assert "not at genesis" in resumed.json()["history"]["reason"]


def test_the_history_in_postgresql_is_compared(postgres_url: str, tmp_path: Path, satchel: Satchel) -> None:
    asyncio.run(write(tmp_path, postgres_url))
    follow(postgres_url)
    clean = satchel("replay", "--data", tmp_path, "--database", postgres_url, "--json")
    engine = open_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE history_loan SET flow_atoms = '-99999999'"))
        connection.execute(sa.text("UPDATE history_order SET post_only = NOT post_only"))
    engine.dispose()
    altered = satchel("replay", "--data", tmp_path, "--database", postgres_url, "--json")

    assert (clean.code, clean.json()["history"]["compared"]) == (0, True), clean.out
    assert altered.code == 1
    assert "flow_atoms '-99999999'" in altered.json()["difference"]
    assert "stored post_only True, replay gives 0" in altered.json()["difference"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("hour", "472222"),
        ("row_hash", "zeroblob(32)"),
        ("row_text", "replace(row_text, '\"closed\":0', '\"closed\":1')"),
        ("checkpoint", "(SELECT checkpoint FROM por_epoch WHERE epoch = 1)"),
        ("checkpoint", "replace(checkpoint, '— ', '— x')"),
        ("checkpoint", "checkpoint || '— someone else'"),
        ("public_key", "zeroblob(32)"),
        ("prices", "'[]'"),
        ("parameters", "'{}'"),
        ("code_version", "'9.9'"),
        ("reserves", "replace(reserves, '\"custody\":\"', '\"custody\":\"9')"),
        ("reserves", "NULL"),
    ],
)
def test_a_changed_column_of_an_epoch_is_named(data: Path, satchel: Satchel, column: str, value: str) -> None:
    """R-12, R-20: both the auditor's replay and the quick check of the log say so."""
    alter(data, f"UPDATE por_epoch SET {column} = {value} WHERE epoch = 0")
    replayed = satchel("replay", "--data", data, "--json")
    verified = satchel("verify-journal", "--data", data, "--json")

    assert (replayed.code, verified.code) == (1, 1), replayed.out
    difference = replayed.json()["difference"]
    assert "epoch 0" in difference, difference
    if not column.startswith("row_"):
        assert f"published epoch 0: the log has {column}" in difference
        assert [(one["row"], one["column"]) for one in verified.json()["findings"]] == [("epoch 0", column)]


def test_an_auditor_without_the_epochs_secret_compares_all_but_roots(data: Path, satchel: Satchel) -> None:
    """R-3, R-23"""
    (data / "keys" / "epoch-secret.key").unlink()
    ran = satchel("replay", "--data", data, "--json")

    assert (ran.code, ran.json()["covered"]["epochs"]) == (0, 4), ran.out
    assert "their roots were not" in ran.err


@pytest.mark.parametrize("with_secret", [True, False])
@pytest.mark.parametrize("change", ["a byte", "another epoch's", "gone", "amounts", "a name", "an order"])
def test_leaves_that_were_changed_are_found(data: Path, satchel: Satchel, change: str, with_secret: bool) -> None:
    """R-22, R-23: proofs are made of them; the epoch is named, and `por prove` names the command that finds it."""
    connection = sqlite3.connect(data / "ledger.db")
    bodies = dict(connection.execute("SELECT epoch, body FROM por_artifact"))
    body = changed(bodies, change)
    if body is None:
        connection.execute("DELETE FROM por_artifact WHERE epoch = 1")
    else:
        connection.execute("UPDATE por_artifact SET body = ? WHERE epoch = 1", (body,))
    connection.commit()
    connection.close()
    if not with_secret:
        (data / "keys" / "epoch-secret.key").unlink()
    replayed = satchel("replay", "--data", data, "--json")
    proven = satchel("por", "prove", 1, "--epoch", 1, "--data", data)

    assert replayed.code == 1, replayed.out
    assert "leaves of epoch 1:" in replayed.json()["difference"]
    assert proven.code == 2
    assert change == "gone" or "satchel replay" in proven.err


def changed(bodies: dict[int, bytes], change: str) -> bytes | None:
    """The stored leaves of epoch 1 after somebody was at them."""
    import zlib

    import msgspec

    body = bodies[1]
    if change == "gone":
        return None
    if change == "another epoch's":
        return bodies[0]
    if change == "a byte":
        return body[:40] + bytes([body[40] ^ 1]) + body[41:]
    artifact = msgspec.msgpack.decode(zlib.decompress(body))
    if change == "amounts":
        artifact["amounts"] = artifact["amounts"][:-1] + bytes([artifact["amounts"][-1] ^ 1])
    elif change == "a name":
        artifact["user_ids"][0] += 1
    else:
        for name in ("subaccount_ids", "user_ids", "details"):
            artifact[name].reverse()
        for name, width in (("salts", 32), ("amounts", len(artifact["amounts"]) // len(artifact["user_ids"]))):
            content = artifact[name]
            artifact[name] = b"".join(content[at : at + width] for at in range(len(content) - width, -1, -width))
    return zlib.compress(msgspec.msgpack.encode(artifact), 1)
