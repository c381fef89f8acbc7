"""Liquidity pools over HTTP: pools, quotes, swaps, liquidity, leveraged longs, histories.   [X-1 … X-13, W-7]"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.api.edge import Reply, Trader, Venue, request, venue

HOUR_MS = 3_600_000
POOLS = "/satchel/v1/pools"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Venue]:
    """A devnet in the first minute of an hour, its clock standing."""
    async with venue(tmp_path) as node:
        await dev(node, "clock", {"mode": "manual"})
        now = (await dev(node, "clock", {"advanceMs": 0}))["now"]
        await dev(node, "clock", {"advanceMs": HOUR_MS - now % HOUR_MS + 60_000})
        await dev(node, "prices", {"USDC": "1", "SOL": "100", "ROWAN": "1"})
        yield node


async def dev(running: Venue, route: str, body: dict[str, Any]) -> Any:
    reply = await request(running.http, "POST", f"/dev/v1/{route}", data=json.dumps(body))
    assert reply.status == 200, reply
    return reply.json


async def ask(trader: Trader, path: str, instruction: str, **query: Any) -> Any:
    reply = await trader.send("GET", path, instruction, query)
    assert reply.status == 200, reply
    return reply.json


async def look(running: Venue, path: str) -> Any:
    reply = await running.get(path)
    assert reply.status == 200, reply
    return reply.json


async def provide(trader: Trader, symbol: str, native: str, external: str, **more: str) -> Reply:
    body = {"symbol": symbol, "nativeQuantity": native, "externalQuantity": external, **more}
    return await trader.send("POST", f"{POOLS}/liquidity", "poolLiquidityAdd", body)


async def swap(trader: Trader, paid: str, wanted: str, quantity: str, **more: str) -> Reply:
    body = {"fromSymbol": paid, "toSymbol": wanted, "quantity": quantity, **more}
    return await trader.send("POST", f"{POOLS}/swap", "poolSwapExecute", body)


async def open_long(trader: Trader, collateral: str, custody: str, quantity: str, leverage: str, **more: str) -> Reply:
    body = {"collateralSymbol": collateral, "custodySymbol": custody, "quantity": quantity, "leverage": leverage}
    return await trader.send("POST", f"{POOLS}/positions", "poolPositionOpen", body | more)


async def close_long(trader: Trader, position_id: str, **more: str) -> Reply:
    body = {"positionId": position_id, **more}
    return await trader.send("DELETE", f"{POOLS}/positions", "poolPositionClose", body)


async def balances(trader: Trader) -> dict[str, Decimal]:
    rows = await ask(trader, "/api/v1/capital", "balanceQuery")
    return {symbol: Decimal(row["available"]) for symbol, row in rows.items()}


@pytest.fixture
async def deep(running: Venue) -> Trader:
    """Whoever provides a million of ROWAN and USDC, and 500,000 ROWAN against 5,000 SOL."""
    provider = await running.trader(ROWAN="2000000", USDC="1000000", SOL="10000")
    assert (await provide(provider, "USDC", "1000000", "1000000")).status == 200
    assert (await provide(provider, "SOL", "500000", "5000")).status == 200
    return provider


async def test_the_first_provider_gets_a_unit_for_each_native_atom(running: Venue) -> None:
    """X-3"""
    empty = await look(running, f"{POOLS}/pool?symbol=USDC")
    alice = await running.trader(ROWAN="1000", USDC="500")

    added = await provide(alice, "USDC", "1000", "500")
    (held,) = await ask(alice, f"{POOLS}/liquidity", "poolLiquidityQueryAll")
    pool = await look(running, f"{POOLS}/pool?symbol=USDC")

    assert (empty["units"], empty["price"], empty["native"]["depth"]) == ("0", "0", "0")
    assert added.json == {
        "symbol": "USDC", "nativeQuantity": "1000", "externalQuantity": "500", "units": "1000", "unitsAfter": "1000"
    }
    assert (pool["units"], pool["price"], pool["inversePrice"], pool["providers"]) == ("1000", "0.5", "2", 1)
    assert (pool["native"]["balance"], pool["external"]["balance"]) == ("1000", "500")
    assert (held["share"], held["nativeQuantity"], held["externalQuantity"]) == ("1", "1000", "500")
    assert await balances(alice) == {}


async def test_a_swap_gives_what_its_quote_said(running: Venue, deep: Trader) -> None:
    """X-1: 1,000 USDC into a million to a million; the fee is 0.3 % of what comes out."""
    bob = await running.trader(USDC="1000")
    quote = await look(running, f"{POOLS}/quote/swap?fromSymbol=USDC&toSymbol=ROWAN&quantity=1000")

    swapped = await swap(bob, "USDC", "ROWAN", "1000", minReceived=quote["received"])
    pool = await look(running, f"{POOLS}/pool?symbol=USDC")

    gross = Decimal(1_000_000) * 1_000 / 1_001_000
    (hop,) = quote["hops"]
    assert swapped.json["received"] == quote["received"] == hop["received"]
    assert abs(Decimal(quote["received"]) - gross * Decimal("0.997")) < Decimal("0.00001")
    assert abs(Decimal(hop["fee"]) - gross * Decimal("0.003")) < Decimal("0.00001")
    assert abs(Decimal(quote["priceImpact"]) - Decimal(1) / 1_001) < Decimal("1e-6")
    assert (await balances(bob))["ROWAN"] == Decimal(quote["received"])
    assert Decimal(pool["native"]["balance"]) == 1_000_000 - Decimal(quote["received"])
    assert pool["external"]["balance"] == "1001000"


async def test_a_swap_from_token_to_token_goes_through_both_pools(running: Venue, deep: Trader) -> None:
    """X-2: each hop has its own pool, fee and impact."""
    bob = await running.trader(USDC="1000")
    quote = await look(running, f"{POOLS}/quote/swap?fromSymbol=USDC&toSymbol=SOL&quantity=1000")

    swapped = await swap(bob, "USDC", "SOL", "1000")
    own = await ask(bob, "/satchel/v1/history/pools/swaps", "poolSwapHistoryQueryAll", sortDirection="Asc")
    public = await look(running, f"{POOLS}/swaps?symbol=SOL")

    first, second = quote["hops"]
    assert [hop["symbol"] for hop in quote["hops"]] == ["USDC", "SOL"]
    assert first["received"] == second["paid"] and first["receivedSymbol"] == second["paidSymbol"] == "ROWAN"
    assert swapped.json["received"] == second["received"] == quote["received"]
    assert [(row["symbol"], row["hop"], row["paid"], row["received"], row["fee"]) for row in own] == [
        (hop["symbol"], place, hop["paid"], hop["received"], hop["fee"])
        for place, hop in enumerate(quote["hops"], 1)
    ]
    assert [row["received"] for row in public] == [second["received"]]
    assert "subaccountId" not in public[0]
    assert (await balances(bob)).keys() == {"SOL"}


async def test_slippage_limits_refuse_and_say_both_numbers(running: Venue, deep: Trader) -> None:
    """X-1, X-3 … X-5, X-10, W-4: one atom too much asked for is refused everywhere; nothing changes."""
    bob = await running.trader(USDC="5000", ROWAN="5000")
    before = await look(running, f"{POOLS}")
    fees = {"USDC": Decimal("0.000001"), "ROWAN": Decimal("0.000000001")}
    quote = await look(running, f"{POOLS}/quote/swap?fromSymbol=USDC&toSymbol=ROWAN&quantity=100")
    more = str(Decimal(quote["received"]) + fees["ROWAN"])
    refused = await swap(bob, "USDC", "ROWAN", "100", minReceived=more)
    assert refused.status == 400 and refused.json["code"] == "PRECONDITION_FAILED"
    assert quote["received"] in refused.json["message"] and more in refused.json["message"], refused

    quote = await look(running, f"{POOLS}/quote/add?symbol=USDC&nativeQuantity=100")
    more = str(Decimal(quote["units"]) + fees["ROWAN"])
    refused = await provide(bob, "USDC", "100", "0", minUnits=more)
    assert refused.status == 400 and quote["units"] in refused.json["message"] and more in refused.json["message"]

    quote = await look(
        running, f"{POOLS}/quote/open?collateralSymbol=USDC&custodySymbol=ROWAN&quantity=100&leverage=3"
    )
    more = str(Decimal(quote["custody"]) + fees["ROWAN"])
    refused = await open_long(bob, "USDC", "ROWAN", "100", "3", minCustody=more)
    assert refused.status == 400 and quote["custody"] in refused.json["message"] and more in refused.json["message"]
    assert await look(running, f"{POOLS}") == before

    body = {"symbol": "USDC", "units": "1000", "minNative": "1000.000000001"}
    refused = await deep.send("DELETE", f"{POOLS}/liquidity", "poolLiquidityRemove", body)
    assert refused.status == 400 and "1000.000000001" in refused.json["message"], refused
    assert await look(running, f"{POOLS}") == before


async def test_an_addition_of_one_side_says_how_much_counts_as_swapped(running: Venue, deep: Trader) -> None:
    """X-3"""
    bob = await running.trader(USDC="10000")
    quote = await look(running, f"{POOLS}/quote/add?symbol=USDC&externalQuantity=10000")
    added = await provide(bob, "USDC", "0", "10000")
    (held,) = await ask(bob, f"{POOLS}/liquidity", "poolLiquidityQueryAll")

    assert added.json["units"] == quote["units"] == held["units"]
    assert quote["swappedSymbol"] == "USDC" and 4_900 < Decimal(quote["swapped"]) < 5_100
    assert held["share"] == quote["share"] and held["externalAdded"] == "10000" and held["nativeAdded"] == "0"


async def test_a_provider_takes_out_by_units_or_basis_points(running: Venue, deep: Trader) -> None:
    """X-4"""
    quote = await look(running, f"{POOLS}/quote/remove?symbol=USDC&units=1000")
    body: dict[str, Any] = {"symbol": "USDC", "units": "1000"}
    some = await deep.send("DELETE", f"{POOLS}/liquidity", "poolLiquidityRemove", body)
    body = {"symbol": "USDC", "basisPoints": 5_000, "minNative": "499500", "minExternal": "499500"}
    half = await deep.send("DELETE", f"{POOLS}/liquidity", "poolLiquidityRemove", body)
    both = await deep.send("DELETE", f"{POOLS}/liquidity", "poolLiquidityRemove", body | {"units": "1"})
    too_many = await deep.send(
        "DELETE", f"{POOLS}/liquidity", "poolLiquidityRemove", {"symbol": "USDC", "units": "999999"}
    )
    own = await ask(deep, "/satchel/v1/history/pools/liquidity", "poolLiquidityHistoryQueryAll", symbol="USDC")
    public = await look(running, f"{POOLS}/moves?symbol=USDC&sortDirection=Asc")

    assert (some.json["nativeQuantity"], some.json["units"]) == ("-1000", "-1000")
    assert (quote["nativeQuantity"], quote["externalQuantity"]) == ("1000", "1000")
    assert (half.json["externalQuantity"], half.json["unitsAfter"]) == ("-499500", "499500")
    assert both.status == 400 and "exactly one" in both.json["message"]
    assert too_many.status == 400 and too_many.json["code"] == "INVALID_QUANTITY"
    assert "999999" in too_many.json["message"] and "499500" in too_many.json["message"], too_many
    assert [row["unitsAfter"] for row in own] == ["499500", "999000", "1000000"]
    assert [row["units"] for row in public] == ["1000000", "-1000", "-499500"] and "unitsAfter" not in public[0]


async def test_providers_earn_the_fees(running: Venue, deep: Trader) -> None:
    """X-1: what a swap leaves in the pool is its providers', by units."""
    bob = await running.trader(USDC="1000")
    swapped = await swap(bob, "USDC", "ROWAN", "1000")
    rows = await ask(deep, f"{POOLS}/liquidity", "poolLiquidityQueryAll")
    of_usdc = next(row for row in rows if row["symbol"] == "USDC")

    assert abs(Decimal(of_usdc["nativeFees"]) - Decimal(swapped.json["fee"])) <= Decimal("0.001")
    assert of_usdc["externalFees"] == "0" and of_usdc["externalQuantity"] == "1001000"


async def test_a_long_is_opened_as_quoted_shown_and_closed(running: Venue, deep: Trader) -> None:
    """X-5, X-6, X-10"""
    bob = await running.trader(USDC="1000")
    quote = await look(
        running, f"{POOLS}/quote/open?collateralSymbol=USDC&custodySymbol=ROWAN&quantity=1000&leverage=5"
    )
    opened = await open_long(bob, "USDC", "ROWAN", "1000", "5", minCustody=quote["custody"])
    assert opened.status == 200, opened
    (shown,) = await ask(bob, f"{POOLS}/positions", "poolPositionQueryAll")
    closing = await ask(bob, f"{POOLS}/quote/close", "poolCloseQuery", positionId=opened.json["positionId"])
    pool = await look(running, f"{POOLS}/pool?symbol=USDC")

    assert (quote["size"], quote["owed"], opened.json["owed"]) == ("5000", "4000", "4000")
    assert opened.json["custody"] == quote["custody"] == shown["custody"] == pool["native"]["custody"]
    assert opened.json["fee"] == quote["fee"] and opened.json["leverage"] == "5"
    assert pool["external"]["owed"] == "4000" and pool["positions"] == 1
    assert shown["health"] == quote["health"] and shown["liquidationRatio"] == quote["liquidationRatio"]
    assert Decimal("1.2") < Decimal(shown["health"]) < Decimal("1.25")
    assert Decimal("0.88") < Decimal(shown["liquidationRatio"]) < Decimal("0.92")
    assert shown["estimatedProceeds"] == closing["returned"]
    assert Decimal(shown["estimatedPnl"]) == Decimal(closing["returned"]) - 1_000

    too_much = str(Decimal(closing["returned"]) + Decimal("0.000001"))
    refused = await close_long(bob, opened.json["positionId"], minReceived=too_much)
    closed = await close_long(bob, opened.json["positionId"], minReceived=closing["returned"])
    gone = await close_long(bob, opened.json["positionId"])
    (row,) = await ask(bob, "/satchel/v1/history/pools/positions", "poolPositionHistoryQueryAll")

    assert refused.status == 400 and too_much in refused.json["message"]
    assert closed.json["returned"] == closing["returned"] and closed.json["forced"] is False
    assert (await balances(bob))["USDC"] == Decimal(closed.json["returned"])
    assert gone.status == 404
    assert row["state"] == "Closed" and row["opened"] == opened.json and row["closed"] == closed.json
    assert await ask(bob, f"{POOLS}/positions", "poolPositionQueryAll") == []


async def test_a_repeated_close_gets_the_first_answer(running: Venue, deep: Trader) -> None:
    """A-11: who did not hear the answer asks again, though the position is gone."""
    bob = await running.trader(USDC="1000")
    opened = await open_long(bob, "USDC", "ROWAN", "1000", "2")
    fields = {"positionId": opened.json["positionId"], "minReceived": "900"}
    headers = bob.headers("poolPositionClose", fields)

    first, again = [
        await request(running.http, "DELETE", f"{POOLS}/positions", headers=headers, data=json.dumps(fields))
        for _ in range(2)
    ]

    assert first.status == again.status == 200 and first.json == again.json


async def test_interest_is_paid_each_epoch_and_reaches_providers_and_the_fund(running: Venue, deep: Trader) -> None:
    """X-8, X-9: an hour later custody has paid; 35 % of it is the fund's, the rest the providers'."""
    bob = await running.trader(USDC="5000")
    opened = (await open_long(bob, "USDC", "ROWAN", "5000", "3")).json
    await dev(running, "clock", {"advanceMs": HOUR_MS})
    (shown,) = await ask(bob, f"{POOLS}/positions", "poolPositionQueryAll")
    (epoch,) = await look(running, f"{POOLS}/epochs?symbol=USDC")
    pool = await look(running, f"{POOLS}/pool?symbol=USDC")
    rows = await ask(deep, f"{POOLS}/liquidity", "poolLiquidityQueryAll")

    taken = Decimal(opened["custody"]) - Decimal(shown["custody"])
    assert taken > 0 and Decimal(shown["interestPaidCustody"]) == taken
    assert Decimal(epoch["nativeInterest"]) + Decimal(epoch["nativeToFund"]) == taken
    assert pool["native"]["fund"] == epoch["nativeToFund"]
    assert Decimal(epoch["nativeToFund"]) == (taken * Decimal("0.35")).quantize(Decimal("1e-9"), rounding="ROUND_DOWN")
    assert (epoch["charged"], epoch["forced"], epoch["failed"]) == (1, 0, 0)
    earned = next(Decimal(row["nativeInterest"]) for row in rows if row["symbol"] == "USDC")
    assert 0 <= Decimal(epoch["nativeInterest"]) - earned < Decimal("0.00001")
    assert epoch["interestRate"] == pool["interestRate"] == shown["interestRate"]
    now_ms = running.node.now_us() // 1_000
    assert shown["unpaid"] == "0" and pool["nextEpochAt"] == now_ms - now_ms % HOUR_MS + HOUR_MS


async def test_a_forced_close_is_in_the_owners_history_with_the_funds_share(running: Venue, deep: Trader) -> None:
    """X-11, W-6: health falls below 1.10, the next epoch closes it; all that is left goes to the fund."""
    bob, carol = await running.trader(USDC="4000"), await running.trader(ROWAN="100000")
    at = str(int(time.time() * 1000))
    text = f"instruction=subscribe&timestamp={at}&window=60000"
    signature = [bob.key, b64encode(bob.private.sign(text.encode())).decode(), at, "60000"]
    async with running.http.ws_connect("/") as socket:
        streams = ["account.poolUpdate", "account.poolUpdate.SOL", "pool.USDC"]
        await socket.send_json({"method": "SUBSCRIBE", "params": streams, "signature": signature})
        standing = await stream_of(socket, "pool.USDC")
        opened = (await open_long(bob, "USDC", "ROWAN", "4000", "5")).json
        told = await stream_of(socket, "account.poolUpdate")
        changed = await stream_of(socket, "pool.USDC")
        # 100,000 ROWAN sold make one a fifth cheaper; a minute later that is its mean price too.
        assert (await swap(carol, "ROWAN", "USDC", "100000")).status == 200
        swapped = await stream_of(socket, "pool.USDC", "poolSwap")
        (sick,) = await ask(bob, f"{POOLS}/positions", "poolPositionQueryAll")
        refused = await close_long(bob, opened["positionId"])
        await dev(running, "clock", {"advanceMs": HOUR_MS})
        ended = await stream_of(socket, "account.poolUpdate")
        epoch = await stream_of(socket, "pool.USDC", "poolEpoch")

    assert "e" not in standing and (standing["n"], standing["x"], standing["p"], standing["o"]) == (
        "1000000", "1000000", "1", 0
    )
    assert (told["e"], told["s"], told["a"], told["b"], told["B"]) == (
        "longOpened", "USDC", "USDC", "ROWAN", opened["custody"]
    )
    assert (changed["e"], changed["c"], changed["X"], changed["o"]) == ("pool", opened["custody"], "16000", 1)
    assert (swapped["a"], swapped["A"], swapped["b"]) == ("ROWAN", "100000", "USDC")
    assert Decimal(sick["liquidationRatio"]) > 1 and "estimatedProceeds" not in sick
    assert refused.status == 400 and "mean" in refused.json["message"], refused
    assert sick["closeRefusal"] == refused.json["message"]
    assert (ended["e"], ended["i"], ended["r"]) == ("longForceClosed", opened["positionId"], "0")
    assert (epoch["l"], epoch["k"]) == (1, 0)

    (row,) = await ask(
        bob, "/satchel/v1/history/pools/positions", "poolPositionHistoryQueryAll", state="Closed", symbol="USDC"
    )
    closed = row["closed"]
    assert closed["forced"] is True and closed["returned"] == "0" and closed["owed"] == "16000"
    assert closed["fund"] == ended["f"]
    lacking = Decimal(closed["owed"]) + Decimal(closed["unpaid"]) - Decimal(closed["repaid"])
    assert Decimal(closed["badDebt"]) - Decimal(closed["fund"]) == lacking
    assert await ask(bob, "/satchel/v1/history/pools/positions", "poolPositionHistoryQueryAll", state="Open") == []


async def test_a_restarted_node_tells_the_same_of_pools(tmp_path: Path, database_url: str) -> None:
    """A-9, A-10, X-3, X-10, X-11: on SQLite and PostgreSQL; paging, both directions, and one position still open."""
    paths = {
        "/satchel/v1/history/pools/swaps": "poolSwapHistoryQueryAll",
        "/satchel/v1/history/pools/liquidity": "poolLiquidityHistoryQueryAll",
        "/satchel/v1/history/pools/positions": "poolPositionHistoryQueryAll",
        f"{POOLS}/positions": "poolPositionQueryAll",
        f"{POOLS}/liquidity": "poolLiquidityQueryAll",
    }
    public = (POOLS, *(f"{POOLS}/{name}?symbol=USDC" for name in ("pool", "swaps", "moves", "epochs")))

    async def told(running: Venue, bob: Trader) -> list[Any]:
        own = [await ask(bob, path, instruction) for path, instruction in paths.items()]
        return own + [await look(running, path) for path in public]

    async with venue(tmp_path / "data", database=database_url) as running:
        await dev(running, "clock", {"mode": "manual"})
        bob = await running.trader(ROWAN="2000000", USDC="2000000")
        assert (await provide(bob, "USDC", "1000000", "1000000")).status == 200
        for pair in (("USDC", "ROWAN"), ("ROWAN", "USDC"), ("USDC", "ROWAN")):
            assert (await open_long(bob, *pair, "1000", "2")).status == 200
            assert (await swap(bob, *pair, "100")).status == 200
        await dev(running, "clock", {"advanceMs": HOUR_MS})
        for position_id in ("1", "2"):
            assert (await close_long(bob, position_id)).status == 200
        before = await told(running, bob)
        at = "/satchel/v1/history/pools/positions", "poolPositionHistoryQueryAll"
        pages = [await ask(bob, *at, limit=2, offset=offset, sortDirection="Asc") for offset in (0, 2)]
        still_open = await ask(bob, *at, state="Open", symbol="USDC")
        headers = (await bob.send("GET", *at, {"limit": 2})).headers
    async with venue(tmp_path / "data", database=database_url) as running:
        bob.http = running.http
        after = await told(running, bob)

    assert after == before
    swaps, moves, longs, held, provided = before[:5]
    assert (len(swaps), len(moves), len(longs), len(held), len(provided)) == (3, 1, 3, 1, 1)
    assert [row["positionId"] for row in longs] == ["3", "2", "1"]
    assert [row["state"] for row in longs] == ["Open", "Closed", "Closed"]
    assert [row for page in pages for row in page] == longs[::-1]
    assert [row["positionId"] for row in still_open] == ["3"] == [held[0]["positionId"]]
    assert headers["X-TOTAL"] == "3" and headers["X-PAGE-COUNT"] == "2"


async def stream_of(socket: Any, name: str, event: str | None = None) -> dict[str, Any]:
    """The next message of a stream, of this event if one is named."""
    while True:
        message = await socket.receive_json(timeout=5)
        if message.get("stream") == name and event in (None, message["data"].get("e")):
            data: dict[str, Any] = message["data"]
            return data


REFUSED = [
    # path, instruction, body, code, words of the message
    ("swap", "poolSwapExecute", {"fromSymbol": "USDC", "toSymbol": "USDC", "quantity": "1"}, "INVALID_MARKET",
     ["from USDC", "to USDC"]),
    ("swap", "poolSwapExecute", {"fromSymbol": "USDC", "toSymbol": "ETH", "quantity": "1"}, "INVALID_MARKET", ["ETH"]),
    ("swap", "poolSwapExecute", {"fromSymbol": "XYZ", "toSymbol": "USDC", "quantity": "1"}, "INVALID_ASSET", ["XYZ"]),
    ("swap", "poolSwapExecute", {"fromSymbol": "USDC", "toSymbol": "ROWAN", "quantity": "0"}, "INVALID_QUANTITY",
     ["0"]),
    ("swap", "poolSwapExecute", {"fromSymbol": "USDC", "toSymbol": "ROWAN", "quantity": "99999999999999999999"},
     "INVALID_QUANTITY", ["too large"]),
    ("swap", "poolSwapExecute", {"fromSymbol": "USDC", "toSymbol": "ROWAN", "quantity": "0.0000001"},
     "INVALID_CLIENT_REQUEST", ["too long"]),
    ("swap", "poolSwapExecute", {"fromSymbol": "USDC", "toSymbol": "ROWAN", "quantity": "2000"}, "INSUFFICIENT_FUNDS",
     ["USDC", "needed 2000", "available 1000"]),
    ("liquidity", "poolLiquidityAdd", {"symbol": "USDC"}, "INVALID_QUANTITY", ["at least one"]),
    ("liquidity", "poolLiquidityAdd", {"symbol": "ETH", "nativeQuantity": "1"}, "INVALID_MARKET", ["ETH"]),
    ("liquidity", "poolLiquidityAdd", {"symbol": "USDC", "nativeQuantity": "-1"}, "INVALID_QUANTITY", ["-1"]),
    ("positions", "poolPositionOpen",
     {"collateralSymbol": "USDC", "custodySymbol": "USDC", "quantity": "1", "leverage": "2"}, "INVALID_MARKET",
     ["collateral USDC", "custody USDC"]),
    ("positions", "poolPositionOpen",
     {"collateralSymbol": "USDC", "custodySymbol": "SOL", "quantity": "1", "leverage": "2"}, "INVALID_MARKET",
     ["collateral USDC", "custody SOL"]),
    ("positions", "poolPositionOpen",
     {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "100", "leverage": "10.5"},
     "MAX_LEVERAGE_REACHED", ["pool USDC", "leverage 10.5", "most 10"]),
    ("positions", "poolPositionOpen",
     {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "100", "leverage": "18.1"},
     "MAX_LEVERAGE_REACHED", ["18.1", "exceeds 18"]),
    ("positions", "poolPositionOpen",
     {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "100", "leverage": "0.5"},
     "MAX_LEVERAGE_REACHED", ["0.5"]),
    ("positions", "poolPositionOpen",
     {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "0.000002", "leverage": "1.5"},
     "INVALID_QUANTITY", ["borrowed 0.000001", "interest 0"]),
    ("positions", "poolPositionOpen",
     {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "500000", "leverage": "9"},
     "INSUFFICIENT_SUPPLY", ["symbol USDC", "asked 4500000", "balance 1000000"]),
    ("positions", "poolPositionOpen",
     {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "100000", "leverage": "8"},
     "INSUFFICIENT_SUPPLY", ["symbol USDC", "lent 700000", "most 500000"]),
    ("positions", "poolPositionOpen",
     {"collateralSymbol": "USDC", "custodySymbol": "ROWAN", "quantity": "100000", "leverage": "2"},
     "PRECONDITION_FAILED", ["mean 1", "most 0.05"]),
]  # fmt: skip


async def test_refusals_name_what_which_and_both_numbers(running: Venue, deep: Trader) -> None:
    """X-5, X-13, W-4"""
    bob = await running.trader(USDC="1000")
    before = await look(running, POOLS)
    for path, instruction, body, code, words in REFUSED:
        refused = await bob.send("POST", f"{POOLS}/{path}", instruction, body)
        assert refused.status == 400 and refused.json["code"] == code, (body, refused)
        assert all(word in refused.json["message"] for word in words), (body, refused)
    assert await look(running, POOLS) == before


async def test_quotes_of_an_empty_pool_and_of_none_are_refused(running: Venue) -> None:
    """X-1, W-4"""
    empty = await running.get(f"{POOLS}/quote/swap?fromSymbol=USDC&toSymbol=ROWAN&quantity=1")
    none = await running.get(f"{POOLS}/pool?symbol=ETH")
    bob = await running.trader(ROWAN="100", USDC="100")
    small = await provide(bob, "USDC", "0.5", "1")

    assert empty.status == 400 and empty.json["code"] == "INSUFFICIENT_SUPPLY" and "USDC" in empty.json["message"]
    assert none.status == 400 and none.json["code"] == "INVALID_MARKET" and "ETH" in none.json["message"]
    assert small.status == 400 and "native 0.5" in small.json["message"] and "least 1" in small.json["message"], small


async def test_nobody_closes_or_looks_at_another_s_position(running: Venue, deep: Trader) -> None:
    """X-10, W-7"""
    bob, mallory = await running.trader(USDC="1000"), await running.trader(USDC="1000")
    opened = (await open_long(bob, "USDC", "ROWAN", "1000", "2")).json
    limits: tuple[dict[str, str], ...] = ({}, {"minReceived": "1"})
    for limit in limits:
        assert (await close_long(mallory, opened["positionId"], **limit)).status == 404
    looked = await mallory.send(
        "GET", f"{POOLS}/quote/close", "poolCloseQuery", {"positionId": opened["positionId"]}
    )
    assert looked.status == 404
    for path, instruction in (
        (f"{POOLS}/positions", "poolPositionQueryAll"),
        (f"{POOLS}/liquidity", "poolLiquidityQueryAll"),
        ("/satchel/v1/history/pools/positions", "poolPositionHistoryQueryAll"),
        ("/satchel/v1/history/pools/liquidity", "poolLiquidityHistoryQueryAll"),
        ("/satchel/v1/history/pools/swaps", "poolSwapHistoryQueryAll"),
    ):
        assert await ask(mallory, path, instruction) == []
    assert len(await ask(bob, f"{POOLS}/positions", "poolPositionQueryAll")) == 1


async def test_an_operator_opens_a_pool_and_halts_it(running: Venue, deep: Trader) -> None:
    """X, W-7: parameters by command, in the engine's scales; 10 in 1e-18 is beyond 63 bits."""
    assets = {asset.symbol: asset.asset_id for asset in running.node.state.assets.values()}
    pool: dict[str, Any] = {"pool_id": assets["ETH"], "native_asset_id": assets["ROWAN"]}
    pool |= {"fee_rate": 10**15, "leverage_max": 12 * 10**18, "native_fee_rate": -1, "min_native": 1}
    command = {"command": "ConfigurePool", "arguments": {"pool": pool}}
    await dev(running, "operator", command)
    opened = await look(running, f"{POOLS}/pool?symbol=ETH")
    bob = await running.trader(ROWAN="1000", ETH="10")
    assert (await provide(bob, "ETH", "1000", "1")).status == 200
    unhealthy = await open_long(bob, "ETH", "ROWAN", "0.001", "12")
    await dev(running, "operator", {"command": "ConfigurePool", "arguments": {"pool": pool | {"state": 4}}})
    refused = await swap(bob, "ETH", "ROWAN", "1")
    wild = {"command": "ConfigurePool", "arguments": {"pool": pool | {"fee_rate": 10**18}}}
    reply = await request(running.http, "POST", "/dev/v1/operator", data=json.dumps(wild))
    huge = {"command": "ConfigurePool", "arguments": {"pool": pool | {"fee_rate": 2**64}}}
    beyond = await request(running.http, "POST", "/dev/v1/operator", data=json.dumps(huge))

    assert (opened["parameters"]["feeRate"], opened["parameters"]["leverageMax"]) == ("0.001", "12")
    assert unhealthy.status == 400 and unhealthy.json["code"] == "INSUFFICIENT_MARGIN"
    assert "pool ETH, health 1.0" in unhealthy.json["message"] and "above 1.1" in unhealthy.json["message"], unhealthy
    assert refused.status == 400 and refused.json["code"] == "TRADING_PAUSED" and "ETH" in refused.json["message"]
    assert (await look(running, f"{POOLS}/pool?symbol=ETH"))["state"] == "Halted"
    assert reply.status == 400 and "fee_rate" in reply.json["message"]
    assert beyond.status == 400 and "64 bits" in beyond.json["message"]


async def test_units_that_count_as_collateral_are_a_line_of_their_own(running: Venue) -> None:
    """C-3, X-5b: half of what 10,000 ROWAN and 10,000 USDC are worth, where a parameter says so; by default nothing."""
    bob = await running.trader(ROWAN="10000", USDC="12000")
    assert (await provide(bob, "USDC", "10000", "10000")).status == 200
    without = await ask(bob, "/api/v1/capital/collateral", "collateralQuery")
    assets = {asset.symbol: asset.asset_id for asset in running.node.state.assets.values()}
    pool = {"pool_id": assets["USDC"], "native_asset_id": assets["ROWAN"], "collateral_weight": 500_000_000}
    await dev(running, "operator", {"command": "ConfigurePool", "arguments": {"pool": pool}})
    counted = await ask(bob, "/api/v1/capital/collateral", "collateralQuery")

    assert [row["symbol"] for row in without["collateral"]] == ["USDC"] and without["netEquity"] == "2000"
    usdc, units = counted["collateral"]
    assert (units["symbol"], units["totalQuantity"], units["assetMarkPrice"]) == ("USDC.pool-units", "10000", "2")
    assert (units["balanceNotional"], units["collateralWeight"]) == ("20000", "0.5")
    assert counted["assetsValue"] == "22000"
    worth = Decimal(usdc["collateralValue"]) + Decimal(units["collateralValue"])
    assert Decimal(counted["netEquity"]) == worth and 2_000 < worth <= 12_000
