"""Money markets, loans, margin and limits over HTTP: every figure is the engine's own, and no refusal leaves a trace.

[B-1 … B-13, C-1 … C-4, M-1 … M-13, S-1 … S-6, W-3, W-4, W-10]
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine import lending, limits, margin, recoveries, snapshot
from engine.commands import ConfigureAsset, ConfigureMarket, ReceiveYield
from engine.formulas.lending import RATE_ONE, borrow_rate, lend_rate
from engine.formulas.margin import LINE_ONE, line_fractions, margin_line
from engine.parameters import PRICE_SCALE, BookState, LendingState
from engine.state import Subaccount
from ledger.amounts import format_decimal, parse_decimal
from tests.api.edge import SOMEWHERE, Reply, Trader, Venue, request, venue
from tests.api.test_rest_shapes import CONTRACT, Contract

HOUR_MS = 3_600_000
USDC, ETH, SOL, ROWAN = 1, 4, 5, 6
SOL_USDC = 1


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Venue]:
    """At the beginning of an hour, with prices; the clock stands still."""
    async with venue(tmp_path / "data") as running:
        # What is tried here is not the limits.
        for bucket in vars(running.edge.limits).values():
            bucket._interval = 0.0
        await dev(running, "clock", {"mode": "manual"})
        now_ms = running.node.now_us() // 1_000
        await dev(running, "clock", {"advanceMs": HOUR_MS - now_ms % HOUR_MS})
        await dev(running, "prices", {"USDC": "1", "SOL": "100", "ETH": "2000"})
        yield running


async def dev(running: Venue, name: str, body: Any) -> Reply:
    reply = await request(running.http, "POST", f"/dev/v1/{name}", data=json.dumps(body))
    assert reply.status == 200, reply
    return reply


def validated(method: str, path: str, reply: Reply) -> Any:
    """The answer, held against the contract where it is at hand."""
    assert reply.status == 200, (path, reply)
    if CONTRACT.exists():
        document = json.loads(CONTRACT.read_text())
        Contract(document).require(method, path, reply)
    return reply.json if reply.body else None


async def ask(who: Trader, path: str, instruction: str, **fields: Any) -> Any:
    return validated("GET", path, await who.send("GET", path, instruction, fields))


async def loan(who: Trader, side: str, symbol: str, quantity: str) -> Reply:
    fields = {"symbol": symbol, "side": side, "quantity": quantity}
    return await who.send("POST", "/api/v1/borrowLend", "borrowLendExecute", fields)


async def does_loan(who: Trader, side: str, symbol: str, quantity: str) -> None:
    reply = await loan(who, side, symbol, quantity)
    assert reply.status == 200 and reply.body == b"", reply


async def capital(who: Trader) -> Any:
    return await ask(who, "/api/v1/capital/collateral", "collateralQuery")


async def positions(who: Trader) -> dict[str, Any]:
    rows = await ask(who, "/api/v1/borrowLend/positions", "borrowLendPositionQuery")
    return {row["symbol"]: row for row in rows}


def account(running: Venue, who: Trader) -> Subaccount:
    return running.node.state.subaccounts[who.subaccount_id]


def usd(text: str) -> int:
    return parse_decimal(text, 8)


async def market_of_two(running: Venue) -> tuple[Trader, Trader]:
    """Alice lends 100,000 USDC and 1,000 SOL; Bob has 50 ETH and 1,000 USDC."""
    alice = await running.trader(USDC="300000", SOL="3000")
    bob = await running.trader(ETH="50", USDC="1000")
    await does_loan(alice, "Lend", "USDC", "100000")
    await does_loan(alice, "Lend", "SOL", "1000")
    return alice, bob


async def test_capital_and_positions_are_the_engines_figures_with_interest_up_to_now(running: Venue) -> None:
    """C-1 … C-4, M-4 … M-7, W-3"""
    alice, bob = await market_of_two(running)
    await does_loan(bob, "Borrow", "USDC", "20000.5")
    assert (await bob.place("SOL_USDC", "Ask", "110", "12.5", autoBorrow=True)).status == 200
    assert (await bob.place("SOL_USDC", "Bid", "90", "10")).status == 200
    assert (await alice.place("SOL_USDC", "Bid", "110", "5")).status == 200
    await dev(running, "clock", {"advanceMs": 30 * HOUR_MS + 1234})
    state, at_us = running.node.state, running.node.now_us()

    for who in (alice, bob):
        subaccount = account(running, who)
        sums = margin.sums(state, subaccount, at_us)
        loss = margin.open_order_loss(state, subaccount)
        summary, rows = await capital(who), await positions(who)
        assert usd(summary["netEquity"]) == sums.equity
        assert usd(summary["netEquityLocked"]) == sums.initial + loss
        assert usd(summary["netEquityAvailable"]) == sums.equity - sums.initial - loss
        collateral = sum(usd(row["collateralValue"]) for row in summary["collateral"])
        assert usd(summary["netEquity"]) == collateral - usd(summary["borrowLiability"])
        assert usd(summary["assetsValue"]) == sum(usd(row["balanceNotional"]) for row in summary["collateral"])
        for line in summary["collateral"]:
            assert not any(str(value).startswith("-") for value in line.values()), line
            total = sum(Fraction(line[name]) for name in ("availableQuantity", "openOrderQuantity", "lendQuantity"))
            assert Fraction(line["totalQuantity"]) == total
        for symbol, row in rows.items():
            asset_id = next(number for number, asset in state.assets.items() if asset.symbol == symbol)
            claim, debt = (f(state, subaccount, asset_id, at_us) for f in (lending.claim, lending.debt))
            decimals = state.assets[asset_id].decimals
            assert parse_decimal(row["netQuantity"], decimals) == claim - debt
            assert usd(row["netExposureNotional"]) == next(
                each.notional for each in margin.holdings(state, subaccount, at_us) if each.asset_id == asset_id
            )
            price = limits.liquidation_price(state, subaccount, asset_id, at_us)
            assert parse_decimal(row["estLiquidationPrice"], 12) == price

    summary = await capital(bob)
    rows = await positions(bob)
    # 30 hours of interest on 20,000.5 at a rate that hardly moves: rateBase + U / U* × (rateOptimal − rateBase).
    interest = Fraction(rows["USDC"]["cumulativeInterest"])
    rate = Fraction("0.01") + Fraction("20000.5") / 100_000 / Fraction("0.9") * Fraction("0.07")
    assert abs(interest - Fraction("20000.5") * rate * Fraction(30, 8760)) < Fraction("0.001")
    assert Fraction(rows["USDC"]["netQuantity"]) == -(Fraction("20000.5") + interest)
    # 5 SOL sold short; 7.5 more are promised: exposure, and the only position with a price that would liquidate.
    assert Fraction(rows["SOL"]["netQuantity"]) < -5
    assert Fraction("12.5") <= Fraction(rows["SOL"]["netExposureQuantity"]) < Fraction("12.51")
    assert Fraction(rows["SOL"]["estLiquidationPrice"]) > 1_000
    assert Fraction(summary["marginFraction"]) > 10 and summary["imf"] == "0.1" and summary["mmf"] == "0.03"
    alices = await capital(alice)
    assert "marginFraction" not in alices and (alices["imf"], alices["mmf"]) == ("0.1", "0")
    # What is lent is not in `available`; what orders lock is in `locked`.
    balances = await ask(alice, "/api/v1/capital", "balanceQuery")
    assert balances["SOL"]["available"] == "2004.995" or Fraction(balances["SOL"]["available"]) > 2_000
    locked = await ask(bob, "/api/v1/capital", "balanceQuery")
    assert locked["USDC"]["locked"] == "900"


async def test_lenders_see_what_written_down_debts_brought_them(running: Venue) -> None:
    """L-7, R-7"""
    await market_of_two(running)
    nothing = (await running.get("/satchel/v1/lending/recovery?symbol=USDC")).json
    assert nothing == {"symbol": "USDC", "recoveryRatio": "1", "value": "0", "hole": "0", "writtenDown": []}
    state = running.node.state
    found = recoveries.write_down(state, USDC, running.node.now_us(), 3 * 10**6, PRICE_SCALE, 3 * 10**6)
    recoveries.pay(found, 2 * 10**6)

    told = (await running.get("/satchel/v1/lending/recovery?symbol=USDC")).json

    assert (told["recoveryRatio"], told["value"], told["hole"]) == ("0.666666666666666667", "3", "1")
    assert [(each["quantity"], each["paid"], each["markPrice"]) for each in told["writtenDown"]] == [("3", "2", "1")]


async def test_money_markets_now_and_over_the_whole_curve(running: Venue) -> None:
    """B-1 … B-3, B-7, B-13, W-3, W-10"""
    _alice, bob = await market_of_two(running)
    await does_loan(bob, "Borrow", "USDC", "40000")
    await dev(running, "clock", {"advanceMs": 100 * HOUR_MS + 777})
    state, at_us = running.node.state, running.node.now_us()
    now = lending.totals(state, state.pools[USDC], at_us)
    parameters = lending.lending_parameters(state, USDC)

    rows = {row["symbol"]: row for row in validated(
        "GET", "/api/v1/borrowLend/markets", await running.get("/api/v1/borrowLend/markets")
    )}
    apy = validated("GET", "/api/v1/borrowLend/apy", await running.get("/api/v1/borrowLend/apy?tierId=1"))
    curve = (await running.get("/satchel/v1/lending/curve?symbol=USDC")).json

    row = rows["USDC"]
    assert now.interest > 0, "interest that is not posted yet is in the figures"
    assert parse_decimal(row["lentQuantity"], 6) == now.lent
    assert parse_decimal(row["borrowedQuantity"], 6) == now.borrowed
    charged = lending.borrow_rate(now, parameters)
    assert parse_decimal(row["borrowInterestRate"], 18) == charged
    earned = lend_rate(charged, now.borrowed, now.lent, now.fees, parameters.fee)
    assert parse_decimal(row["lendInterestRate"], 18) == earned
    exact = Fraction(now.borrowed, now.lent + now.fees)
    assert abs(Fraction(row["utilization"]) - exact) <= Fraction(1, 2 * RATE_ONE)
    assert (row["rateBase"], row["rateOptimal"], row["rateMax"]) == ("0.01", "0.08", "0.6")
    assert (row["state"], row["fee"], row["stepSize"]) == ("Open", "0.1", "0.000001")
    assert (row["throttleUtilizationThreshold"], row["throttleUpdateFraction"]) == ("0.92", "0.1")
    assert (row["throttleUtilizationBound"], row["maxUtilization"]) == ("0.928", "1")
    assert row["timestamp"].endswith("Z") and row["assetMarkPrice"] == "1"
    assert "ROWAN" not in rows and rows["BTC"]["assetMarkPrice"] == "0"
    (rates,) = [each for each in apy["borrowLend"] if each["symbol"] == "USDC"]
    assert (rates["borrowRate"], rates["lendRate"]) == (row["borrowInterestRate"], row["lendInterestRate"])
    assert apy["staking"] == []

    assert curve["now"]["utilization"] == row["utilization"]
    assert curve["now"]["borrowInterestRate"] == row["borrowInterestRate"]
    points = curve["points"]
    assert len(points) == 101, "the optimal utilization is one of the hundredths"
    assert [points[0]["borrowInterestRate"], points[90]["borrowInterestRate"]] == ["0.01", "0.08"]
    assert points[100] == {"utilization": "1", "borrowInterestRate": "0.6", "lendInterestRate": "0.54"}
    for point in points:
        used = parse_decimal(point["utilization"], 9)
        numbers = parameters.optimal_utilization, parameters.rate_base, parameters.rate_optimal, parameters.rate_max
        expected = borrow_rate(used, 10**9, 0, *numbers)
        assert parse_decimal(point["borrowInterestRate"], 18) == expected


async def test_collateral_functions_and_their_curves(running: Venue) -> None:
    """C-2"""
    rows = {row["symbol"]: row for row in (await running.get("/api/v1/collateral")).json}
    assert rows["SOL"]["haircutFunction"] == {
        "weight": "0.9", "kind": {"type": "inverseSqrt", "base": "1.1", "positiveCurvePenalty": "0.0005"},
    }
    assert rows["USDC"]["haircutFunction"] == {"weight": "1", "kind": {"type": "identity"}}

    curve = (await running.get("/satchel/v1/collateral/curve?symbol=SOL&quantity=0&quantity=1000000")).json
    assert curve["points"] == [
        {"quantity": "0", "weight": "0.9"},
        # 1.1 / (1 + 0.0005 × √1,000,000) = 1.1 / 1.5, rounded down.
        {"quantity": "1000000", "weight": "0.733333333"},
    ]
    usual = (await running.get("/satchel/v1/collateral/curve?symbol=SOL")).json["points"]
    weights = [Fraction(point["weight"]) for point in usual]
    assert weights == sorted(weights, reverse=True) and usual[0]["quantity"] == "0" and len(usual) == 28
    nothing = (await running.get("/satchel/v1/collateral/curve?symbol=ROWAN&quantity=5")).json["points"]
    assert nothing == [{"quantity": "5", "weight": "0"}]


async def test_the_largest_loan_order_and_withdrawal_pass_and_one_step_more_does_not(running: Venue) -> None:
    """M-11: asked of the route, tried on the exchange."""
    alice, bob = await market_of_two(running)
    await does_loan(bob, "Borrow", "USDC", "5000")

    async def largest(kind: str, name: str, **fields: Any) -> Fraction:
        answer = await ask(bob, f"/api/v1/account/limits/{kind}", f"max{kind.title()}Quantity", **fields)
        for field, value in fields.items():
            assert answer[field] == value, "it says what it was asked"
        return Fraction(answer[f"max{kind.title()}Quantity"])

    most = await largest("order", "maxOrder", symbol="SOL_USDC", side="Ask", price="101", autoBorrow=True)
    step = Fraction("0.01")
    assert most > 1_000
    refused = await bob.place("SOL_USDC", "Ask", "101", decimal(most + step), autoBorrow=True)
    assert refused.json["code"] == "INSUFFICIENT_MARGIN", refused
    placed = await bob.place("SOL_USDC", "Ask", "101", decimal(most), autoBorrow=True)
    assert placed.status == 200
    cancelled = {"symbol": "SOL_USDC", "orderId": placed.json["id"]}
    assert (await bob.send("DELETE", "/api/v1/order", "orderCancel", cancelled)).status == 200

    plain = await largest("order", "maxOrder", symbol="SOL_USDC", side="Bid", price="100")
    assert plain == 60, "6,000 USDC and no flag"
    assert (await bob.place("SOL_USDC", "Bid", "100", decimal(plain + step))).json["code"] == "INSUFFICIENT_FUNDS"
    reducing = await largest("order", "maxOrder", symbol="SOL_USDC", side="Bid", reduceOnly=True)
    assert reducing == 0, "a spot order cannot reduce a position"

    most = await largest("withdrawal", "maxWithdrawal", symbol="USDC", autoBorrow=True)
    alone = await largest("withdrawal", "maxWithdrawal", symbol="USDC")
    assert alone == 6_000 < most
    refused = await withdraw(bob, decimal(most + Fraction("0.000001")), autoBorrow=True)
    assert refused.json["code"] == "INSUFFICIENT_MARGIN", refused
    refused = await withdraw(bob, "6000.000001")
    assert refused.json["code"] == "INSUFFICIENT_FUNDS", refused

    most = await largest("borrow", "maxBorrow", symbol="USDC")
    refused = await loan(bob, "Borrow", "USDC", decimal(most + Fraction("0.000001")))
    assert refused.json["code"] in ("INSUFFICIENT_MARGIN", "INSUFFICIENT_SUPPLY"), refused
    await does_loan(bob, "Borrow", "USDC", decimal(most))
    assert await largest("borrow", "maxBorrow", symbol="USDC") == 0
    assert await largest("borrow", "maxBorrow", symbol="ROWAN") == 0
    assert (await alice.place("SOL_USDC", "Ask", "100", "1")).status == 200


async def withdraw(who: Trader, quantity: str, **more: Any) -> Reply:
    fields = {"symbol": "USDC", "blockchain": "Solana", "address": SOMEWHERE, "quantity": quantity, **more}
    return await who.send("POST", "/wapi/v1/capital/withdrawals", "withdraw", fields)


def decimal(value: Fraction) -> str:
    scaled = value * 10**9
    assert scaled.denominator == 1
    return format_decimal(int(scaled), 9)


async def test_order_flags_borrow_repay_redeem_and_lend(running: Venue) -> None:
    """S-1 … S-4, one order at a time and in a batch."""
    alice, bob = await market_of_two(running)
    assert (await alice.place("SOL_USDC", "Bid", "100", "10")).status == 200
    short = await bob.place("SOL_USDC", "Ask", "100", "10", autoBorrow=True, timeInForce="IOC")
    assert short.json["status"] == "Filled"
    assert (await positions(bob))["SOL"]["netQuantity"] == "-10"

    assert (await alice.place("SOL_USDC", "Ask", "100", "10")).status == 200
    order = {"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": "100", "quantity": "4"}
    orders = [order | {"autoBorrowRepay": True}, order | {"quantity": "7", "autoBorrowRepay": True, "autoLend": True}]
    bought = await bob.send("POST", "/api/v1/orders", "orderExecute", orders)
    assert [row["operation"] for row in bought.json] == ["Ok", "Ok"]
    # Ten repaid ten: the fee was paid in the quote asset. One rests.
    assert "SOL" not in await positions(bob)
    assert (await alice.place("SOL_USDC", "Ask", "100", "1")).status == 200
    assert (await positions(bob))["SOL"]["netQuantity"] == "0.9992", "bought as a maker, less its fee, and lent"

    refused = await bob.place("SOL_USDC", "Ask", "100", "2", autoBorrow=True)
    assert refused.json["code"] == "BORROW_REQUIRES_LEND_REDEEM"
    sold = await bob.place("SOL_USDC", "Ask", "101", "2", autoBorrow=True, autoLendRedeem=True)
    assert sold.status == 200
    assert (await alice.place("SOL_USDC", "Bid", "101", "2")).status == 200
    assert Fraction((await positions(bob))["SOL"]["netQuantity"]) == Fraction("-1.0008")
    refused = await bob.place("SOL_USDC", "Bid", "100", "2", autoLend=True)
    assert refused.json["code"] == "LEND_REQUIRES_BORROW_REPAY"


async def test_settings_auto_lend_and_leverage(running: Venue) -> None:
    """U-4, S-4, M-10, W-10"""
    _alice, bob = await market_of_two(running)
    settings = {"autoLend": True, "autoRepayBorrows": True, "autoBorrowSettlements": False, "autoRealizePnl": False}
    changed = await bob.send("PATCH", "/api/v1/account", "accountUpdate", settings | {"leverageLimit": "7.5"})
    validated("PATCH", "/api/v1/account", changed)

    after = await ask(bob, "/api/v1/account", "accountQuery")
    assert settings.items() <= after.items() and after["leverageLimit"] == "7.5"
    assert after["borrowLimit"] == "100000000" and after["liquidating"] is False
    # Everything idle is lent at once.
    assert {symbol: row["netQuantity"] for symbol, row in (await positions(bob)).items()} == {
        "ETH": "50", "USDC": "1000",
    }
    assert await ask(bob, "/api/v1/capital", "balanceQuery") == {}
    refused = await loan(bob, "Borrow", "USDC", "5")
    assert refused.json["code"] == "PRECONDITION_FAILED"
    back = await bob.send("PATCH", "/api/v1/account", "accountUpdate", {"autoLend": False, "leverageLimit": "10"})
    assert back.status == 200
    await does_loan(bob, "Borrow", "ETH", "50")
    await does_loan(bob, "Borrow", "SOL", "500")
    await does_loan(bob, "Lend", "ETH", "1")
    refused = await withdraw(bob, "0.5", autoBorrow=True)
    assert refused.status == 400


async def test_a_withdrawal_may_borrow_and_a_transfer_too(running: Venue) -> None:
    """S-5, U-2"""
    _alice, bob = await market_of_two(running)
    taken = await withdraw(bob, "1500", autoBorrow=True)
    assert taken.status == 200 and taken.json["quantity"] == "1500"
    assert (await positions(bob))["USDC"]["netQuantity"] == "-500"
    second = Trader(running.http, 999)
    opened = await bob.send("POST", "/satchel/v1/subaccounts", "subaccountOpen", {"publicKey": second.key})
    second.subaccount_id = opened.json["subaccountId"]
    fields = {"toSubaccountId": second.subaccount_id, "symbol": "USDC", "quantity": "250"}
    refused = await bob.send("POST", "/satchel/v1/transfers", "transferExecute", fields)
    assert refused.json["code"] == "INSUFFICIENT_FUNDS"
    moved = await bob.send("POST", "/satchel/v1/transfers", "transferExecute", fields | {"autoBorrow": True})
    assert moved.status == 200
    assert (await positions(bob))["USDC"]["netQuantity"] == "-750"

    # Another subaccount of one's own may be looked at, a stranger's not.
    own = await ask(bob, "/api/v1/capital/collateral", "collateralQuery", subaccountId=second.subaccount_id)
    assert own["netEquity"] == "250" and own == await capital(second)
    strangers = await bob.send("GET", "/api/v1/capital/collateral", "collateralQuery", {"subaccountId": 1})
    assert (strangers.status, strangers.json["code"]) == (400, "FORBIDDEN")


async def test_a_preview_says_what_an_order_does_and_changes_nothing(running: Venue) -> None:
    """M-13"""
    alice, bob = await market_of_two(running)
    assert (await alice.place("SOL_USDC", "Bid", "100", "50")).status == 200
    before = snapshot.state_hash(running.node.state)
    order = {"symbol": "SOL_USDC", "side": "Ask", "orderType": "Limit", "price": "100", "quantity": "50"}
    plain = await bob.send("POST", "/satchel/v1/orders/preview", "orderPreview", order)
    shown = await bob.send("POST", "/satchel/v1/orders/preview", "orderPreview", order | {"autoBorrow": True})
    assert snapshot.state_hash(running.node.state) == before, "not even the sequence"
    assert plain.json["refusal"]["code"] == "INSUFFICIENT_FUNDS" and "refusal" not in shown.json
    now, resting, filled = (shown.json[name] for name in ("before", "resting", "filled"))
    assert now["initialMargin"] == "0" and now["netEquity"] == (await capital(bob))["netEquity"]
    assert (resting["initialMargin"], resting["maintenanceMargin"]) == ("500", "0")
    assert (filled["initialMargin"], filled["maintenanceMargin"]) == ("500", "150")

    assert (await bob.place("SOL_USDC", "Ask", "100", "50", autoBorrow=True)).json["status"] == "Filled"
    after = await capital(bob)
    sums = margin.sums(running.node.state, account(running, bob), running.node.now_us())
    assert usd(filled["initialMargin"]) == sums.initial and usd(filled["maintenanceMargin"]) == sums.maintenance
    assert after["netEquityLocked"] == filled["initialMargin"]
    assert after["netEquity"] == filled["netEquity"], "the fee is in it"
    assert shown.json["estLiquidationPriceFilled"] == (await positions(bob))["SOL"]["estLiquidationPrice"]

    assert (await alice.place("SOL_USDC", "Ask", "100", "55")).status == 200
    back = order | {"side": "Bid", "quantity": "55", "autoBorrowRepay": True}
    shown = await bob.send("POST", "/satchel/v1/orders/preview", "orderPreview", back)
    assert (await bob.send("POST", "/api/v1/order", "orderExecute", back)).json["status"] == "Filled"
    after = await capital(bob)
    assert shown.json["filled"]["netEquity"] == after["netEquity"] and after["borrowLiability"] == "0"
    assert shown.json["filled"]["initialMargin"] == "0"
    refused = await bob.send("POST", "/satchel/v1/orders/preview", "orderPreview", order | {"symbol": "NO_USDC"})
    assert refused.json["message"] == "Invalid market symbol"


async def test_the_liquidation_price_after_a_loan(running: Venue) -> None:
    """M-6: whatever instruction clients sign it with; the contract names none."""
    _alice, bob = await market_of_two(running)
    path = "/api/v1/borrowLend/position/liquidationPrice"
    payload = b64encode(json.dumps({"symbol": "SOL", "side": "Borrow", "quantity": "100"}).encode()).decode()
    answers = [
        await ask(bob, path, instruction, borrow=payload)
        for instruction in ("borrowLendPositionQuery", "borrowLendPositionLiquidationPrice", "")
    ]
    assert answers[0] == answers[1] == answers[2]
    await does_loan(bob, "Borrow", "SOL", "100")
    # 96,000 USD beside a debt of which nine tenths are covered by what was borrowed.
    assert answers[0]["markPrice"] == "100"
    assert Fraction(answers[0]["liquidationPrice"]) == pytest.approx(9600, abs=1e-8), "values round to 1e-8 USD"
    assert (await positions(bob))["SOL"]["estLiquidationPrice"] == answers[0]["liquidationPrice"]
    less = b64encode(json.dumps({"symbol": "SOL", "side": "Lend", "quantity": "40"}).encode()).decode()
    after = (await ask(bob, path, "", borrow=less))["liquidationPrice"]
    assert Fraction(after) == pytest.approx(16000, abs=1e-8)
    await does_loan(bob, "Lend", "SOL", "40")
    assert (await positions(bob))["SOL"]["estLiquidationPrice"] == after
    whole = b64encode(json.dumps({"symbol": "SOL", "side": "Lend", "quantity": "60"}).encode()).decode()
    assert (await ask(bob, path, "", borrow=whole))["liquidationPrice"] == "0"

    for borrow in ("!", "e30=", b64encode(b"[]").decode(), b64encode(b'{"symbol":"SOL"}').decode()):
        refused = await bob.send("GET", path, "borrowLendPositionQuery", {"borrow": borrow})
        assert refused.json["code"] == "INVALID_CLIENT_REQUEST", refused
    wrong = await bob.send("GET", path, "positionQuery", {"borrow": payload})
    assert wrong.json["message"] == "Invalid signature"


async def test_dust_becomes_usdc(running: Venue) -> None:
    """S-3"""
    alice, bob = await market_of_two(running)
    assert (await alice.place("SOL_USDC", "Ask", "100", "0.01")).status == 200
    assert (await bob.place("SOL_USDC", "Bid", "100", "0.01")).json["status"] == "Filled"
    nothing = await bob.send("POST", "/api/v1/account/convertDust", "convertDust", {"symbol": "ETH"})
    assert nothing.json["code"] == "PRECONDITION_FAILED"
    unknown = await bob.send("POST", "/api/v1/account/convertDust", "convertDust", {"symbol": "NO"})
    assert unknown.json["code"] == "INVALID_ASSET"
    done = await bob.send("POST", "/api/v1/account/convertDust", "convertDust", {})
    assert done.status == 200 and done.body == b""
    balances = await ask(bob, "/api/v1/capital", "balanceQuery")
    # 0.00999 SOL after the fee of 0.1 %, at 100: 0.999 USDC for what cost 1.
    assert "SOL" not in balances and balances["USDC"]["available"] == "999.999"


async def test_marks_over_rest_and_the_socket_and_balances_as_loans_move_them(running: Venue) -> None:
    """W-6, P-2"""
    alice, bob = await market_of_two(running)
    rows = validated("GET", "/api/v1/markPrices", await running.get("/api/v1/markPrices"))
    assert {row["symbol"]: (row["markPrice"], row["indexPrice"]) for row in rows} == {
        "SOL_USDC": ("100", "100"), "ETH_USDC": ("2000", "2000"),
        "SOL_USDC_PERP": ("100", "100"), "ETH_USDC_PERP": ("2000", "2000"),
    }
    assert (await running.get("/api/v1/markPrices?symbol=SOL_USDC")).json == [rows[0]]
    perpetuals = (await running.get("/api/v1/markPrices?marketType=PERP")).json
    assert perpetuals == [row for row in rows if row["symbol"].endswith("_PERP")]
    assert all(row["fundingRate"] == "0" and row["nextFundingTimestamp"] for row in perpetuals)
    now = str(time.time_ns() // 1_000_000)
    text = f"instruction=subscribe&timestamp={now}&window=5000"
    signature = [bob.key, b64encode(bob.private.sign(text.encode())).decode(), now, "5000"]
    async with running.http.ws_connect("/") as socket:
        await socket.send_json(
            {"method": "SUBSCRIBE", "params": ["account.balanceUpdate", "markPrice.SOL_USDC"], "signature": signature}
        )
        mark = (await next_of(socket, "markPrice.SOL_USDC"))
        assert (mark["e"], mark["s"], mark["p"], mark["i"]) == ("markPrice", "SOL_USDC", "100", "100")
        assert set(mark) == {"e", "E", "s", "p", "i", "T"} and mark["T"] == running.node.state.at_us
        await does_loan(bob, "Borrow", "USDC", "500")
        borrowed = await next_of(socket, "account.balanceUpdate")
        assert (borrowed["a"], borrowed["A"], borrowed["L"]) == ("USDC", "1500", "0")
        await does_loan(bob, "Lend", "ETH", "20")
        lent = await next_of(socket, "account.balanceUpdate")
        assert (lent["a"], lent["A"], lent["L"]) == ("ETH", "30", "0")
        assert (await bob.place("SOL_USDC", "Ask", "100", "10", autoBorrow=True)).status == 200
        assert (await alice.place("SOL_USDC", "Bid", "100", "10")).status == 200
        sold = await next_of(socket, "account.balanceUpdate", "USDC")
        assert sold["A"] == "2499.2", "1,000 less the maker's fee of 0.08 %"


async def next_of(socket: Any, stream: str, symbol: str | None = None) -> Any:
    while True:
        message = await socket.receive_json(timeout=10)
        if message["stream"] == stream and (symbol is None or message["data"]["a"] == symbol):
            return message["data"]


def test_the_fractions_shown_are_those_that_margin_lines_multiply_by() -> None:
    """M-3: to the last digit, over sizes where each of its three parts is the largest."""
    for notional in (0, 1, 10**8, 123_456_789_012_345, 10**16, 3 * 10**18):
        for functions in ((5 * 10**7, 10**5, 3 * 10**7, 6 * 10**4), (10**7, 10**3, 2 * 10**8, 9 * 10**5)):
            imf, mmf = line_fractions(notional, *functions, 10**8)
            initial, maintenance = margin_line(notional, *functions, 10**8)
            assert initial == -(-notional * imf // LINE_ONE) and maintenance == -(-notional * mmf // LINE_ONE)


# Bad input: the contract's codes, both numbers, and no effect.


async def require_no_effect(running: Venue, reply: Reply, code: str, before: bytes, *words: str) -> None:
    assert reply.status == 400 and reply.json["code"] == code, reply
    for word in words:
        assert word in reply.json["message"], reply
    assert without_sequence(running) == before, reply


def without_sequence(running: Venue) -> bytes:
    """The state's hash, whatever its number of commands, its time and the answers it remembers for repeats."""
    state = running.node.state
    kept = state.sequence, state.at_us, state.wall_ms, state.requests
    state.sequence, state.at_us, state.wall_ms, state.requests = 0, 0, 0, {}
    try:
        return snapshot.state_hash(state)
    finally:
        state.sequence, state.at_us, state.wall_ms, state.requests = kept


async def test_bad_loans_say_why_and_leave_no_trace(running: Venue) -> None:
    """The issue's list of bad input."""
    alice, bob = await market_of_two(running)
    poor = await running.trader(USDC="100")
    state = running.node.state

    async def refused(who: Trader, side: str, symbol: str, quantity: Any, code: str, *words: str) -> None:
        before = without_sequence(running)
        reply = await who.send(
            "POST", "/api/v1/borrowLend", "borrowLendExecute", {"symbol": symbol, "side": side, "quantity": quantity}
        )
        await require_no_effect(running, reply, code, before, *words)

    await refused(poor, "Borrow", "SOL", "500", "INSUFFICIENT_MARGIN", "Insufficient margin after this loan",
        "net equity ", "initial margin ", "USD", "/api/v1/account/limits/borrow")  # fmt: skip
    await refused(bob, "Borrow", "USDC", "95000", "INSUFFICIENT_SUPPLY",
        "Insufficient supply, utilization would pass the bound: symbol USDC, needed 95000, utilization after 0.95,"
        " bound 0.928")  # fmt: skip
    await refused(bob, "Lend", "USDC", "1000.000001", "INSUFFICIENT_FUNDS", "required 1000.000001", "free 1000")
    await refused(bob, "Borrow", "BTC", "1", "PRECONDITION_FAILED", "No price")
    await refused(bob, "Borrow", "ROWAN", "1", "TRADING_PAUSED", "ROWAN")
    await refused(bob, "Borrow", "NO", "1", "INVALID_ASSET")
    await refused(bob, "Lend", "USDC", "0.0000001", "INVALID_QUANTITY", "Quantity decimal too long")
    await refused(bob, "Borrow", "SOL", "0.00001", "INVALID_QUANTITY", "quantity 0.00001", "step 0.0001")
    for quantity in ("0", "-5", "1e3", "", "NaN", "9" * 30, "5 "):
        await refused(bob, "Borrow", "USDC", quantity, "INVALID_QUANTITY")
    await refused(bob, "Sell", "USDC", "5", "INVALID_CLIENT_REQUEST")
    await refused(bob, "Lend", "USDC", 5, "INVALID_CLIENT_REQUEST")
    await refused(bob, "Lend", "USDC", None, "INVALID_CLIENT_REQUEST")
    before = without_sequence(running)
    fields = {"symbol": "USDC", "side": "Lend", "quantity": "5", "autoLend": True}
    await require_no_effect(
        running, await bob.send("POST", "/api/v1/borrowLend", "borrowLendExecute", fields), "INVALID_CLIENT_REQUEST",
        before,
    )

    async def configure(**more: Any) -> None:
        asset = state.assets[USDC]
        assert asset.lending is not None
        changed = ConfigureAsset(replace(asset, lending=replace(asset.lending, **more)))
        assert (await running.node.submit(changed)).rejection is None

    await configure(open_limit_atoms=100_500 * 10**6)
    await refused(bob, "Lend", "USDC", "501", "LEND_LIMIT", "quantity 501", "room 500")
    await configure(open_limit_atoms=400 * 10**6)
    await refused(bob, "Borrow", "USDC", "401", "BORROW_LIMIT", "quantity 401", "market limit 400")
    await configure(open_limit_atoms=(1 << 63) - 1)
    limits_before = state.limits
    state.limits = replace(limits_before, borrow_limit_usd=100 * 10**8)
    await refused(bob, "Borrow", "USDC", "101", "BORROW_LIMIT", "owed 0 USD", "limit 100 USD")
    state.limits = limits_before
    await does_loan(bob, "Borrow", "USDC", "50")
    for lending_state in (LendingState.CLOSED, LendingState.REPAY_ONLY):
        await configure(state=lending_state)
        await refused(bob, "Borrow", "USDC", "10", "TRADING_PAUSED", "USDC")
        await refused(bob, "Lend", "USDC", "60", "TRADING_PAUSED", "USDC")
    await does_loan(bob, "Lend", "USDC", "50")
    await configure(state=LendingState.OPEN)

    # Redeeming is borrowing what is lent: no more than what is idle, nor past the bound.
    await does_loan(bob, "Borrow", "USDC", "80000")
    await refused(alice, "Borrow", "USDC", "50000", "INSUFFICIENT_SUPPLY",
        "Insufficient supply, less is idle than needed: symbol USDC, needed 50000, idle 20000")  # fmt: skip
    await refused(alice, "Borrow", "USDC", "14000", "INSUFFICIENT_SUPPLY",
        "would pass the bound", "needed 14000", "utilization after 0.930232559, bound 0.928")  # fmt: skip
    await does_loan(alice, "Borrow", "USDC", "13050")
    # Over the threshold now: nothing more leaves, and the limits know it from the next question on.
    for who in (alice, bob):
        for _ in range(2):
            limit = await ask(who, "/api/v1/account/limits/borrow", "maxBorrowQuantity", symbol="USDC")
            assert limit["maxBorrowQuantity"] == "0"
    await refused(alice, "Borrow", "USDC", "1", "INSUFFICIENT_SUPPLY",
        "utilization is at the threshold", "needed 1, utilization 0.92", "threshold 0.92")  # fmt: skip


async def test_bad_orders_settings_and_withdrawals_leave_no_trace(running: Venue) -> None:
    """The issue's list of bad input."""
    alice, bob = await market_of_two(running)
    await does_loan(bob, "Borrow", "USDC", "60000")
    assert (await alice.place("SOL_USDC", "Ask", "100", "400")).status == 200
    assert (await bob.place("SOL_USDC", "Ask", "101", "100", autoBorrow=True)).status == 200

    async def refused(reply: Any, code: str, *words: str) -> None:
        before = without_sequence(running)
        await require_no_effect(running, await reply, code, before, *words)

    await refused(
        bob.place("SOL_USDC", "Ask", "101", "100000", autoBorrow=True), "INSUFFICIENT_MARGIN",
        "Insufficient margin after this order: ", "net equity", "USD", "/api/v1/account/limits/order tells",
    )  # fmt: skip
    await refused(bob.place("SOL_USDC", "Ask", "101", "1"), "INSUFFICIENT_FUNDS", "required 1", "free 0")
    await refused(bob.place("SOL_USDC", "Ask", "101", "1", autoBorrow="true"), "INVALID_CLIENT_REQUEST")
    await refused(bob.place("SOL_USDC", "Ask", "101", "1", auto_borrow=True), "INVALID_CLIENT_REQUEST")
    # 6 % of 10,000 USD would be too much at a leverage of 1 when the account is worth less.
    patch = ("PATCH", "/api/v1/account", "accountUpdate")
    for limit in ("0.5", "0", "-1", "1001", "5x", "1.0000000001"):
        await refused(bob.send(*patch, {"leverageLimit": limit}), "MAX_LEVERAGE_REACHED")
    await refused(bob.send(*patch, {"autoLend": "yes"}), "INVALID_CLIENT_REQUEST")
    await refused(bob.send(*patch, {"autoborrow": True}), "INVALID_CLIENT_REQUEST")
    await refused(withdraw(bob, "100000", autoBorrow="1"), "INVALID_CLIENT_REQUEST")
    await refused(withdraw(bob, "99999"), "INSUFFICIENT_FUNDS", "needed 99999", "available 61000")
    await refused(withdraw(bob, "200000", autoBorrow=True), "INSUFFICIENT_SUPPLY", "idle 40000")
    # What is lent is redeemed before anything of it is borrowed, or nothing is.
    await does_loan(bob, "Lend", "USDC", "60500")
    await refused(withdraw(bob, "600", autoBorrow=True), "BORROW_REQUIRES_LEND_REDEEM", "USDC")
    query = {"symbol": "USDC", "autoBorrow": True}
    path, instruction = "/api/v1/account/limits/withdrawal", "maxWithdrawalQuantity"
    assert (await ask(bob, path, instruction, **query))["maxWithdrawalQuantity"] == "0"
    assert (await ask(bob, path, instruction, symbol="USDC"))["maxWithdrawalQuantity"] == "1000"
    most = await ask(bob, path, instruction, **query, autoLendRedeem=True)
    assert Fraction(most["maxWithdrawalQuantity"]) > 10_000
    redeeming = await withdraw(bob, "600", autoBorrow=True, autoLendRedeem=True)
    assert redeeming.status == 200 and (await positions(bob))["USDC"]["netQuantity"] == "400"


async def test_a_leverage_that_would_break_the_margin_is_refused(running: Venue) -> None:
    """M-10"""
    alice, bob = await market_of_two(running)
    assert (await alice.place("SOL_USDC", "Bid", "100", "900")).status == 200
    assert (await bob.place("SOL_USDC", "Ask", "100", "900", autoBorrow=True)).json["status"] == "Filled"
    # 90,000 USD owed, 96,000 USD of net equity.
    before = without_sequence(running)
    assert (await bob.send("PATCH", "/api/v1/account", "accountUpdate", {"leverageLimit": "1"})).status == 200
    assert without_sequence(running) != before
    assert (await bob.send("PATCH", "/api/v1/account", "accountUpdate", {"leverageLimit": "10"})).status == 200
    await dev(running, "prices", {"SOL": "103", "ETH": "1950"})
    before = without_sequence(running)
    reply = await bob.send("PATCH", "/api/v1/account", "accountUpdate", {"leverageLimit": "1"})
    await require_no_effect(running, reply, "MAX_LEVERAGE_REACHED", before, "asked 1", "net equity", "initial margin")


async def test_a_yield_counts_before_it_is_collected_and_shows_in_the_apy(running: Venue) -> None:
    """C-3, Y-1, Y-3"""
    alice, _bob = await market_of_two(running)
    week_ms = 7 * 24 * HOUR_MS
    now_ms = running.node.now_us() // 1_000
    await dev(running, "clock", {"advanceMs": week_ms - now_ms % week_ms})
    earned = ReceiveYield(SOL, 1, 2 * 10**9, "reward", "staking")
    assert (await running.node.submit(earned)).rejection is None
    await dev(running, "clock", {"advanceMs": week_ms + 1000})

    apy = (await running.get("/api/v1/borrowLend/apy")).json
    # 2 of 1,000 SOL in a week, less what ρ is rounded by.
    assert [row["symbol"] for row in apy["staking"]] == ["SOL"] and apy["staking"][0]["dilutionFactor"] == "0"
    exact = Fraction(2, 1000) * Fraction(8760, 7 * 24)
    assert 0 <= exact - Fraction(apy["staking"][0]["stakingRate"]) < Fraction(1, 10**7)

    summary = await capital(alice)
    subaccount = account(running, alice)
    waiting = sum(line.uncollected_value for line in margin.holdings(running.node.state, subaccount, 0))
    assert 199 * 10**8 < waiting <= 200 * 10**8
    assert usd(summary["assetsValue"]) - sum(usd(row["balanceNotional"]) for row in summary["collateral"]) == waiting
    assert usd(summary["netEquity"]) - sum(usd(row["collateralValue"]) for row in summary["collateral"]) == waiting


async def test_markets_without_a_price_take_no_new_risk(running: Venue) -> None:
    """P-1, B-8"""
    _alice, bob = await market_of_two(running)
    market = running.node.state.markets[SOL_USDC].parameters
    closed = ConfigureMarket(replace(market, state=BookState.CLOSED))
    assert (await running.node.submit(closed)).rejection is None
    refused = await bob.place("SOL_USDC", "Ask", "100", "1", autoBorrow=True)
    assert refused.json["code"] == "TRADING_PAUSED"
    query = {"symbol": "SOL_USDC", "side": "Ask", "price": "100", "autoBorrow": True}
    answer = await ask(bob, "/api/v1/account/limits/order", "maxOrderQuantity", **query)
    assert answer["maxOrderQuantity"] == "0"
