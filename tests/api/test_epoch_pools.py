"""A node with a liquidity pool, providers and leveraged longs: its epochs are recounted, proven to each of them and
rebuilt by an auditor; statements, balances, trial balance and receipts show units, custody and debts as the state does.

[A-12, A-13, R-2, R-6, R-12, R-22, R-23, X-3, X-5, X-14]
"""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from api.epochs import kind_name
from api.recount import counted_totals, require_recount, stated_totals
from engine import pools
from engine.state import AmmPool
from ledger.chart import amm_pool, in_custody
from ledger.database import open_engine
from ledger.invariants import ConservationError
from ledger.receipts import verify_receipt
from por.header import Header
from tests.api.edge import Reply, Trader, Venue, request, venue
from tests.api.test_epoch_loans import database, image_taken, satchel, tell, verifier
from tests.api.test_epoch_positions import ask
from tests.api.test_recount import TAMPERING

__all__ = ["database", "image_taken"]

HOUR_MS = 3_600_000


async def does(who: Trader, method: str, path: str, instruction: str, **fields: Any) -> Any:
    reply: Reply = await who.send(method, f"/satchel/v1/pools/{path}", instruction, fields)
    assert reply.status == 200, reply
    return reply.json


async def lived(running: Venue) -> tuple[Trader, Trader, Trader]:
    """Anna and Lee provide USDC's pool, Lee takes some back; Bob is long ROWAN twice, and long USDC once; hours go by,
    Lee swaps the price down until one of Bob's is closed by force."""
    anna = await running.trader(ROWAN="1000000", USDC="2000000")
    lee, bob = await running.trader(ROWAN="900000", USDC="30000"), await running.trader(ROWAN="5000", USDC="5000")
    add = {"symbol": "USDC", "nativeQuantity": "900000", "externalQuantity": "1800000"}
    await does(anna, "POST", "liquidity", "poolLiquidityAdd", **add)
    add |= {"nativeQuantity": "10000", "externalQuantity": "20000.5"}
    await does(lee, "POST", "liquidity", "poolLiquidityAdd", **add)
    await does(lee, "DELETE", "liquidity", "poolLiquidityRemove", symbol="USDC", basisPoints=1234)
    await tell(running, "clock", {"advanceMs": 120_000})
    long = {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "1000"}
    await does(bob, "POST", "positions", "poolPositionOpen", **long, leverage="2.5")
    await does(bob, "POST", "positions", "poolPositionOpen", **long, leverage="9")
    other = {"collateralSymbol": "ROWAN", "custodySymbol": "USDC", "quantity": "500", "leverage": "2"}
    await does(bob, "POST", "positions", "poolPositionOpen", **other)
    await tell(running, "clock", {"advanceMs": 2 * HOUR_MS + 1_234})
    await does(lee, "POST", "swap", "poolSwapExecute", fromSymbol="ROWAN", toSymbol="USDC", quantity="20000")
    await tell(running, "clock", {"advanceMs": 2 * HOUR_MS})
    return anna, lee, bob


def pool_of(running: Venue) -> AmmPool:
    (pool,) = (pool for pool in running.node.state.amm_pools.values() if pool.units)
    return pool


async def test_pools_in_an_epoch_are_recounted_proven_and_rebuilt(
    tmp_path: Path, database: str | None, image_taken: str
) -> None:
    data = tmp_path / "data"
    async with venue(data, database=database) as running:
        traders = await lived(running)
        assert (await request(running.http, "POST", "/dev/v1/por")).status == 200
        header = running.node.epochs.log.last
        assert isinstance(header, Header) and running.node.failure is None

        pool = pool_of(running)
        assert len(pool.positions) == 2 and pool.native_fund > 0, "one of three was closed by force"
        counted = counted_totals(running.node.reader, header.block_height, kind_name)
        assert {key: atoms for key, atoms in stated_totals(header).items() if atoms} == counted
        assert counted["pool-custody", "USDC.native-custody"] == -pool.native_custody < 0
        assert counted["amm_pool of USDC", "ROWAN"] == -pool.native_balance - pool.native_custody
        line = next(each for each in header.amms if each.pool == "USDC")
        assert header.total("USDC.amm_units") == line.units == pool.units
        assert (line.native_owed, line.external_owed) == (pool.native_owed, pool.external_owed) > (0, 0)
        assert json.loads(header.text())["version"] == 3

        for who, words in zip(traders, ("99.03 % of ROWAN:USDC", "0.96 % of ROWAN:USDC", '"longs"'), strict=True):
            proof = await who.send("GET", f"/satchel/v1/epochs/{header.epoch}/proof", "proofQuery")
            file = tmp_path / f"proof {who.user_id}.json"
            file.write_bytes(proof.body)
            checked = verifier("--user", str(who.user_id), str(file))
            assert words in checked.replace("  longs ", '"longs"') and "In every liquidity pool" in checked

    told = satchel("replay", "--json", "--data", str(data), *(["--database", database] if database else []))
    covered = json.loads(told)["covered"]
    assert covered["epochs"] == header.epoch + 1 >= 4


async def test_coins_moved_from_one_pool_to_another_are_found_by_the_recount(tmp_path: Path) -> None:
    """A-13: the header adds the native asset up over all pools; the postings are counted pool by pool."""
    async with venue(tmp_path / "data") as running:
        await lived(running)
        assert (await request(running.http, "POST", "/dev/v1/por")).status == 200
        node, header = running.node, running.node.epochs.log.last
        assert isinstance(header, Header)
        require_recount(node.reader, header, kind_name)
        of_usdc, of_sol = (amm_pool(pool_id) for pool_id in sorted(node.state.amm_pools))
        engine = open_engine(node.settings.url)
        with engine.begin() as connection:
            for statement in TAMPERING[engine.dialect.name]:
                connection.execute(sa.text(statement))
            moved = f"UPDATE posting SET account = {of_sol} WHERE account = {of_usdc} AND atoms < 0"
            assert connection.execute(sa.text(moved)).rowcount > 0
        engine.dispose()

        with pytest.raises(ConservationError, match=r"amm_pool of SOL in ROWAN: the epoch states 0 atoms"):
            require_recount(node.reader, header, kind_name)


async def test_statements_balances_and_receipts_are_the_states_to_the_atom(tmp_path: Path) -> None:
    async with venue(tmp_path / "data") as running:
        anna, lee, bob = await lived(running)
        state, pool = running.node.state, pool_of(running)
        native, external = 10 ** state.assets[pool.parameters.native_asset_id].decimals, 10**6

        lines = await ask(bob, "/satchel/v1/statement", "statementQuery", limit=1000)
        of_pool = [line for line in lines if line["account"].split("/")[-1] in ("pool-custody", "pool-debt")]
        named = await ask(bob, "/satchel/v1/statement", "statementQuery", limit=1000, symbol="USDC")
        assert [line for line in named if line["symbol"] != "USDC"] == of_pool
        assert {line["symbol"] for line in of_pool} == {
            "USDC.native-custody", "USDC.custody", "USDC.native-owed", "USDC.owed"
        }  # fmt: skip
        assert {line["kind"] for line in of_pool} == {"LONG_OPENED", "POOL_INTEREST", "LONG_FORCED"}
        closing = {(line["account"], line["symbol"]): Decimal(line["balance"]) for line in of_pool}
        mine = [each for each in pool.positions.values() if each.subaccount_id == bob.subaccount_id]
        (long,), (short,) = ([each for each in mine if each.is_native_collateral is side] for side in (False, True))
        kept, owed = f"subaccount/{bob.subaccount_id}/pool-custody", f"subaccount/{bob.subaccount_id}/pool-debt"
        assert closing == {
            (kept, "USDC.native-custody"): Decimal(long.custody) / native,
            (kept, "USDC.custody"): Decimal(short.custody) / external,
            (owed, "USDC.owed"): -Decimal(long.owed) / external,
            (owed, "USDC.native-owed"): -Decimal(short.owed) / native,
        }

        now = await ask(bob, "/satchel/v1/balances", "balanceAsOfQuery")
        assert Decimal(now["ROWAN"]["poolCustody"]) * native == long.custody == pool.native_custody
        assert Decimal(now["ROWAN"]["poolOwed"]) * native == short.owed
        assert Decimal(now["USDC"]["poolCustody"]) * external == short.custody
        assert Decimal(now["USDC"]["poolOwed"]) * external == long.owed
        assert all("pool" not in name for row in (await before_pools(bob)).values() for name in row)
        units = {}
        for who in (anna, lee):
            row = (await ask(who, "/satchel/v1/balances", "balanceAsOfQuery"))["USDC.pool-units"]
            units[who.subaccount_id] = Decimal(row["held"]) * native
            worth = Decimal(row["nativeWorth"]) * native, Decimal(row["externalWorth"]) * external
            assert worth == pools.share(pool, pool.holders[who.subaccount_id].units)
        assert units == {number: holder.units for number, holder in pool.holders.items()}
        (provided,) = await ask(lee, "/satchel/v1/pools/liquidity", "poolLiquidityQueryAll")
        lees = await ask(lee, "/satchel/v1/statement", "statementQuery", limit=1000)
        own = [line for line in lees if line["symbol"] == "USDC.pool-units"]
        assert [line["kind"] for line in own] == ["LIQUIDITY_ADDED", "LIQUIDITY_REMOVED"]
        assert own[-1]["balance"] == provided["units"] and Decimal(own[-1]["quantity"]) < 0

        interest = next(line for line in of_pool if line["kind"] == "POOL_INTEREST")
        receipt = await ask(bob, f"/satchel/v1/receipts/{interest['journal']}", "receiptQuery")
        key = running.node.sequencer.chain.public_key
        proven = verify_receipt(receipt, key)
        assert proven.row is not None and proven.row.account == in_custody(bob.subaccount_id)

    data = ["--data", str(tmp_path / "data")]
    told = json.loads(satchel("statement", str(bob.subaccount_id), "--json", *data))
    rows = {(row["account"], row["asset"]): Decimal(row["balance"]) for row in told["closing"]}
    assert {key: amount for key, amount in rows.items() if key[0] != "held"} == {
        (account.rsplit("/", 1)[-1], symbol): amount for (account, symbol), amount in closing.items()
    }
    assert "USDC.native-custody pool-custody" in satchel("statement", str(bob.subaccount_id), *data)
    lees = json.loads(satchel("statement", str(lee.subaccount_id), "--json", *data))
    part = next(row["partOfPool"] for row in lees["closing"] if row["asset"] == "USDC.pool-units")
    assert part == {"ROWAN": provided["nativeQuantity"], "USDC": provided["externalQuantity"]}
    assert f"(of the pool {part['ROWAN']} ROWAN and " in satchel("statement", str(lee.subaccount_id), *data)
    trial = json.loads(satchel("trial-balance", "--json", *data))
    sides = {(row["account"], row["asset"]): Decimal(row["credit"]) for row in trial["rows"]}
    pool_id = pool.parameters.pool_id
    assert sides[f"pool/{pool_id}", "ROWAN"] * native == pool.native_balance + pool.native_custody
    assert sides[f"pool/{pool_id}", "USDC"] * external == pool.external_balance + pool.external_custody
    assert sides[f"equity/pool/{pool_id}/fund", "ROWAN"] * native == pool.native_fund
    assert sides[f"equity/pool/{pool_id}/book", "USDC.owed"] * external == pool.external_owed
    assert trial["totals"]["USDC.pool-units"]["debit"] == trial["totals"]["USDC.pool-units"]["credit"] != "0"
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt))
    check = ("receipt", "--verify", str(file), "--public-key", base64.b64encode(key).decode())
    assert "USDC.native-custody" in satchel(*check, *data)
    assert f"atoms of asset pool/{pool_id}.native-custody" in satchel(*check)
    assert "clean" in satchel("reconcile", *data)


async def before_pools(who: Trader) -> dict[str, dict[str, str]]:
    """What it held right after its deposits."""
    lines = await ask(who, "/satchel/v1/statement", "statementQuery", limit=1000)
    height = max(line["block"] for line in lines if line["kind"] == "DEPOSIT")
    found: dict[str, dict[str, str]] = await ask(who, "/satchel/v1/balances", "balanceAsOfQuery", block=height)
    return found
