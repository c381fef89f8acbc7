"""Bad input over HTTP: a clear error in the contract's shape, never a 5xx, never a partial effect."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest
import pytest_asyncio

from api.contract import ErrorCode
from tests.api.edge import SOMEWHERE, Reply, Trader, Venue, request, venue

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODES = set(get_args(ErrorCode))
ORDER = {"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": "100", "quantity": "1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Venue]:
    async with venue(tmp_path_factory.mktemp("bad")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(running: Venue) -> Trader:
    return await running.trader(USDC="100000", SOL="1000")


def require_refusal(reply: Reply, what: Any = None) -> None:
    assert 400 <= reply.status < 500, (what, reply)
    assert set(reply.json) == {"code", "message"}, (what, reply)
    assert reply.json["code"] in CODES and reply.json["message"], (what, reply)
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "path", "instruction", "fields", "names"),
    [
        ("POST", "/api/v1/order", "orderExecute", ORDER | {"side": "Buy"}, "one of Ask, Bid"),
        ("POST", "/api/v1/order", "orderExecute", ORDER | {"timeInForce": "GTD"}, "one of FOK, GTC, IOC"),
        ("POST", "/api/v1/orders", "orderExecute", [ORDER, ORDER | {"side": "Sell"}], "one of Ask, Bid"),
        ("GET", "/wapi/v1/history/orders", "orderHistoryQueryAll", {"sortDirection": "Up"}, "one of Asc, Desc"),
        (
            "POST", "/api/v1/borrowLend", "borrowLendExecute", {"symbol": "SOL", "side": "Redeem", "quantity": "1"},
            "one of Borrow, Lend",
        ),
    ],
)  # fmt: skip
async def test_a_value_that_is_none_of_an_enumeration_is_told_which_there_are(
    alice: Trader, method: str, path: str, instruction: str, fields: Any, names: str
) -> None:
    reply = await alice.send(method, path, instruction, fields)

    require_refusal(reply)
    assert "Invalid enum value" in reply.json["message"] and reply.json["message"].endswith(names), reply


IN_PART = "Must specify both `triggerPrice` and `triggerQuantity` or neither"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"symbol": "SOL_EUR"}, "INVALID_CLIENT_REQUEST", "Invalid market symbol"),
        ({"symbol": ""}, "INVALID_CLIENT_REQUEST", "Invalid market symbol"),
        ({"symbol": "SOL_USDC_PERP"}, "TRADING_PAUSED", None),
        ({"price": "100.001"}, "INVALID_CLIENT_REQUEST", "Price decimal too long"),
        ({"price": "100.0000000000000000000001"}, "INVALID_CLIENT_REQUEST", "Price decimal too long"),
        ({"quantity": "1.001"}, "INVALID_CLIENT_REQUEST", "Quantity decimal too long"),
        ({"quantity": "0.0000000000001"}, "INVALID_CLIENT_REQUEST", "Quantity decimal too long"),
        ({"price": "0"}, "INVALID_PRICE", None),
        ({"price": "-5"}, "INVALID_PRICE", None),
        ({"price": "9" * 40}, "INVALID_PRICE", None),
        ({"price": "1e3"}, "INVALID_PRICE", None),
        ({"price": "NaN"}, "INVALID_PRICE", None),
        ({"price": ""}, "INVALID_PRICE", None),
        ({"price": None}, "INVALID_CLIENT_REQUEST", None),
        ({"quantity": "0"}, "INVALID_QUANTITY", None),
        ({"quantity": "0.00"}, "INVALID_QUANTITY", None),
        ({"quantity": "-1"}, "INVALID_QUANTITY", None),
        ({"quantity": "9" * 19}, "INVALID_QUANTITY", None),
        ({"quantity": "9" * 400}, "INVALID_QUANTITY", None),
        ({"quantity": "one"}, "INVALID_QUANTITY", None),
        ({"quantity": "١"}, "INVALID_QUANTITY", None),
        ({"quantity": "100000"}, "INSUFFICIENT_FUNDS", None),
        ({"side": "Buy"}, "INVALID_CLIENT_REQUEST", None),
        ({"orderType": "LIMIT"}, "INVALID_CLIENT_REQUEST", None),
        ({"timeInForce": "DAY"}, "INVALID_CLIENT_REQUEST", None),
        ({"selfTradePrevention": "Allow"}, "INVALID_CLIENT_REQUEST", None),
        ({"quantity": 1}, "INVALID_CLIENT_REQUEST", None),
        ({"price": 100.5}, "INVALID_CLIENT_REQUEST", None),
        ({"postOnly": "yes"}, "INVALID_CLIENT_REQUEST", None),
        ({"postOnly": 1}, "INVALID_CLIENT_REQUEST", None),
        ({"clientId": -1}, "INVALID_CLIENT_REQUEST", None),
        ({"clientId": 2**32}, "INVALID_CLIENT_REQUEST", None),
        ({"clientId": "99999999999"}, "INVALID_CLIENT_REQUEST", None),
        ({"clientId": [1]}, "INVALID_CLIENT_REQUEST", None),
        ({"quoteQuantity": "5"}, "INVALID_ORDER", None),
        ({"orderType": "Market"}, "INVALID_ORDER", None),
        ({"postOnly": True, "timeInForce": "IOC"}, "INVALID_ORDER", None),
        ({"surprise": "1"}, "INVALID_CLIENT_REQUEST", None),
        ({"Price": "100"}, "INVALID_CLIENT_REQUEST", None),
        ({"triggerPrice": "90"}, "INVALID_CLIENT_REQUEST", IN_PART),
        ({"triggerQuantity": "1"}, "INVALID_CLIENT_REQUEST", IN_PART),
        ({"triggerBy": "LastPrice"}, "INVALID_CLIENT_REQUEST", IN_PART),
        ({"triggerPrice": "90", "triggerQuantity": "2"}, "INVALID_ORDER", None),
        ({"triggerPrice": "90.001", "triggerQuantity": "1"}, "INVALID_CLIENT_REQUEST", "Price decimal too long"),
        ({"triggerPrice": "90", "triggerQuantity": "101%", "quantity": None}, "INVALID_QUANTITY", None),
        ({"triggerPrice": "90", "triggerQuantity": "x%", "quantity": None}, "INVALID_QUANTITY", None),
        ({"triggerPrice": "90", "triggerQuantity": "1", "triggerBy": "Price"}, "INVALID_CLIENT_REQUEST", None),
        ({"stopLossTriggerBy": "LastPrice"}, "INVALID_CLIENT_REQUEST", "Missing field `stopLossTriggerPrice`"),
        ({"takeProfitLimitPrice": "9"}, "INVALID_CLIENT_REQUEST", "Missing field `takeProfitTriggerPrice`"),
        ({"stopLossTriggerPrice": "110", "takeProfitTriggerPrice": "90"}, "INVALID_PRICE", None),
        ({"slippageTolerance": "1"}, "INVALID_CLIENT_REQUEST", None),
        ({"slippageTolerance": "0", "slippageToleranceType": "Percent"}, "INVALID_ORDER", None),
        ({"slippageTolerance": "1.5", "slippageToleranceType": "TickSize"}, "INVALID_CLIENT_REQUEST", None),
        ({"autoBorrow": "yes"}, "INVALID_CLIENT_REQUEST", None),
        ({"autoborrow": True}, "INVALID_CLIENT_REQUEST", None),
        ({"autoLendAll": True}, "INVALID_CLIENT_REQUEST", None),
        ({"price": "10"}, "INVALID_PRICE", "Price is too far from the last active price"),
    ],
)
async def test_a_bad_order_is_refused_and_nothing_happens(
    running: Venue, alice: Trader, change: dict[str, Any], code: str, message: str | None
) -> None:
    """W-4"""
    if change == {"price": "10"}:
        assert (await alice.place("SOL_USDC", "Ask", "100", "1")).status == 200
    before = await alice.send("GET", "/api/v1/capital", "balanceQuery")

    reply = await alice.send("POST", "/api/v1/order", "orderExecute", ORDER | change)
    after = await alice.send("GET", "/api/v1/capital", "balanceQuery")

    require_refusal(reply, change)
    assert reply.status == 400 and reply.json["code"] == code
    if message is not None:
        assert reply.json["message"] == message
    assert after.json == before.json


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b'"order"',
        b"{}",
        b'{"symbol": "SOL_USDC"}',
        b'{"symbol": "SOL_USDC", "symbol": "ETH_USDC", "side": "Bid", "orderType": "Limit"}',
        b'{"symbol": "SOL_USDC", "s\\u0079mbol": "ETH_USDC", "side": "Bid", "orderType": "Limit"}',
        b'{"symbol": "\xff\xfe", "side": "Bid", "orderType": "Limit"}',
        b'{"symbol": "\\ud800", "side": "Bid", "orderType": "Limit"}',
        b'{"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"symbol": "' + b"A" * 300_000 + b'"}',
        b'{"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": NaN}',
        b'{"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "clientId": ' + b"9" * 5000 + b"}",
        b"\x00" * 50,
        b'\xef\xbb\xbf{"symbol": "SOL_USDC"}',
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/order", "/api/v1/orders"])
async def test_broken_bodies_are_refused(running: Venue, alice: Trader, path: str, body: bytes) -> None:
    """W-4"""
    headers = alice.headers("orderExecute", {})

    require_refusal(await request(running.http, "POST", path, headers=headers, data=body), body[:60])


async def test_unsigned_and_wrongly_signed_requests(running: Venue, alice: Trader) -> None:
    """W-1, W-4"""
    good = alice.headers("balanceQuery", {})
    old = alice.headers("balanceQuery", {}, timestamp=int(time.time() * 1000) - 6000)
    early = alice.headers("balanceQuery", {}, timestamp=int(time.time() * 1000) + 60_000)
    other = alice.headers("accountQuery", {})
    stranger = Trader(running.http, 4711).headers("balanceQuery", {})
    wide = alice.headers("balanceQuery", {}, window=60_001)

    async def asked(headers: dict[str, str]) -> tuple[int, str]:
        reply = await running.get("/api/v1/capital", **headers)
        require_refusal(reply)
        return reply.status, reply.json["message"]

    assert await asked({}) == (401, "Unauthorized")
    assert await asked(stranger) == (401, "Unauthorized")
    assert await asked(old) == (400, "Request has expired")
    assert await asked(other) == (400, "Invalid signature")
    assert (await asked(early))[1].startswith("Invalid timestamp")
    assert (await asked(wide))[1].startswith("Invalid X-Window header")
    assert (await asked({name: value for name, value in good.items() if name != "X-Timestamp"}))[0] == 400
    assert (await asked(good | {"X-Signature": "AAAA"})) == (400, "Invalid X-Signature header")
    assert (await running.get("/api/v1/capital", **good)).status == 200


async def test_a_repeated_order_gets_the_first_answer_and_has_one_effect(running: Venue, alice: Trader) -> None:
    """A-11"""
    order = ORDER | {"price": "99"}
    headers, body = alice.headers("orderExecute", order), json.dumps(order)

    first = await request(running.http, "POST", "/api/v1/order", headers=headers, data=body)
    again = await request(running.http, "POST", "/api/v1/order", headers=headers, data=body)
    opened = await alice.send("GET", "/api/v1/orders", "orderQueryAll", {"symbol": "SOL_USDC"})

    assert first.status == again.status == 200
    assert first.body == again.body
    assert [row["id"] for row in opened.json].count(first.json["id"]) == 1
    assert sum(row["price"] == "99" for row in opened.json) == 1


async def test_the_same_client_id_with_other_fields_is_an_error(running: Venue, alice: Trader) -> None:
    """A-11"""
    first = await alice.send("POST", "/api/v1/order", "orderExecute", ORDER | {"clientId": 5, "price": "98"})
    other = await alice.send("POST", "/api/v1/order", "orderExecute", ORDER | {"clientId": 5, "price": "97"})

    assert first.status == 200
    require_refusal(other)
    assert other.json["code"] == "INVALID_ORDER"


async def test_a_batch_with_bad_orders_does_the_good_ones(running: Venue, alice: Trader) -> None:
    """W-3: tagged by operation."""
    batch = [
        ORDER | {"price": "96"},
        ORDER | {"price": "96.001"},
        ORDER | {"symbol": "NO_SUCH"},
        ORDER | {"quantity": "1000000"},
        ORDER | {"price": "95", "orderType": "Limit"},
    ]

    reply = await alice.send("POST", "/api/v1/orders", "orderExecute", batch)
    single = await alice.send("POST", "/api/v1/orders", "orderExecute", [ORDER | {"price": "0.001"}])
    empty = await alice.send("POST", "/api/v1/orders", "orderExecute", [])
    many = await alice.send("POST", "/api/v1/orders", "orderExecute", [ORDER] * 51)

    assert [row["operation"] for row in reply.json] == ["Ok", "Err", "Err", "Err", "Ok"]
    assert [row["code"] for row in reply.json[1:4]] == [
        "INVALID_CLIENT_REQUEST",
        "INVALID_CLIENT_REQUEST",
        "INSUFFICIENT_FUNDS",
    ]
    assert reply.json[0]["orderType"] == "Limit" and reply.json[4]["price"] == "95"
    assert single.json == [
        {"operation": "Err", "code": "INVALID_CLIENT_REQUEST", "message": "Price decimal too long"}
    ]
    require_refusal(empty)
    require_refusal(many)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/nothing", 404),
        ("/wapi/v1/", 404),
        ("/api/v1/depth", 400),
        ("/api/v1/depth?symbol=NO_SUCH", 400),
        ("/api/v1/depth?symbol=SOL_USDC&limit=7", 400),
        ("/api/v1/depth?symbol=SOL_USDC&symbol=ETH_USDC", 400),
        ("/api/v1/depth?symbol=SOL_USDC&depth=5", 400),
        ("/api/v1/depth?symbol=%FF%FE", 400),
        ("/api/v1/depth?symbol=" + "A" * 4000, 400),
        ("/api/v1/depth?" + "&".join(f"a{n}=1" for n in range(200)), 400),
        ("/api/v1/ticker?symbol=", 400),
        ("/api/v1/ticker?symbol=SOL_USDC&interval=2d", 400),
        ("/api/v1/markets?marketType=SPOT,PERP", 400),
        ("/api/v1/markets?marketType=STOCK", 400),
        ("/api/v1/trades?symbol=SOL_USDC&limit=0", 400),
        ("/api/v1/trades?symbol=SOL_USDC&limit=1001", 400),
        ("/api/v1/trades?symbol=SOL_USDC&limit=-5", 400),
        ("/api/v1/trades?symbol=SOL_USDC&limit=ten", 400),
        ("/api/v1/trades?symbol=SOL_USDC&limit=99999999999999999999999", 400),
        ("/api/v1/trades/history?symbol=SOL_USDC&offset=-1", 400),
        ("/api/v1/klines?symbol=SOL_USDC&interval=1m", 400),
        ("/api/v1/klines?symbol=SOL_USDC&interval=2m&startTime=0", 400),
        ("/api/v1/klines?symbol=SOL_USDC&interval=1s&startTime=0", 400),
        ("/api/v1/klines?symbol=SOL_USDC&interval=1s&startTime=-9223372036854775808", 400),
        ("/api/v1/klines?symbol=SOL_USDC&interval=1d&startTime=1&priceType=Mark", 400),
        ("/api/v1/klines?symbol=SOL_USDC&interval=1month&startTime=0&endTime=9223372036854775807", 400),
        ("/api/v1/vaults", 400),
        ("/api/v1/strategies", 401),
        ("/api/v1/markPrices?symbol=NO_USDC", 400),
        ("/api/v1/markPrices?marketType=STOCK", 400),
        ("/api/v1/borrowLend/apy?tierId=none", 400),
        ("/satchel/v1/lending/curve", 400),
        ("/satchel/v1/lending/curve?symbol=ROWAN", 400),
        ("/satchel/v1/lending/recovery", 400),
        ("/satchel/v1/lending/recovery?symbol=ROWAN", 400),
        ("/satchel/v1/collateral/curve?symbol=NO", 400),
        ("/satchel/v1/collateral/curve?symbol=SOL&quantity=-1", 400),
        ("/satchel/v1/collateral/curve?symbol=SOL&quantity=0.0000000001", 400),
        ("/satchel/v1/collateral/curve?symbol=SOL&" + "&".join(["quantity=1"] * 101), 400),
        ("/satchel/v1/blocks/-1", 404),
        ("/satchel/v1/blocks/ten", 404),
        ("/satchel/v1/blocks/99999999999999999999", 404),
        ("/satchel/v1/blocks/0/proof?size=999999", 400),
        ("/satchel/v1/blocks/consistency?first=0", 400),
        ("/satchel/v1/epochs/0", 404),
        ("/satchel/v1/epochs/latest", 404),
        ("/satchel/v1/epochs/log", 404),
        ("/satchel/v1/epochs/log/consistency?first=1", 400),
    ],
)
async def test_bad_paths_and_queries(running: Venue, path: str, status: int) -> None:
    """W-4"""
    reply = await running.get(path)

    require_refusal(reply, path)
    assert reply.status == status


async def test_wrong_methods_and_oversized_bodies(running: Venue, alice: Trader) -> None:
    method = await request(running.http, "PUT", "/api/v1/order", data=b"{}")
    large = await request(
        running.http, "POST", "/api/v1/order", headers=alice.headers("orderExecute", {}), data=b" " * 3_000_000
    )

    require_refusal(method)
    assert method.status == 405
    require_refusal(large)
    assert large.status == 413


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"symbol": "NOPE"}, "INVALID_ASSET"),
        ({"blockchain": "Nowhere"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "0"}, "INVALID_QUANTITY"),
        ({"quantity": "-1"}, "INVALID_QUANTITY"),
        ({"quantity": "0.0000001"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "9" * 30}, "INVALID_QUANTITY"),
        ({"quantity": "99999999"}, "INSUFFICIENT_FUNDS"),
        ({"quantity": "0.5"}, "INVALID_QUANTITY"),
        ({"quantity": "5", "address": "somewhere"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "address": SOMEWHERE + "1"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "address": "0x" + "ab" * 20}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "address": SOMEWHERE + "\0"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "address": " " + SOMEWHERE}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "clientId": "a\0b"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "clientId": "a\x7f"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "clientId": "a\u202eb"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "clientId": "a\u200b"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "clientId": "\x9b2J"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "clientId": " a"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "address": ""}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "address": "x" * 5000}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "address": "x&symbol=SOL"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "autoBorrow": "yes"}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "clientId": "x" * 256}, "INVALID_CLIENT_REQUEST"),
        ({"quantity": "5", "recipientInformation": {"withdrawal_address_id": 1}}, "NOT_IMPLEMENTED"),
    ],
)
async def test_a_bad_withdrawal_is_refused_and_nothing_leaves(
    running: Venue, alice: Trader, change: dict[str, Any], code: str
) -> None:
    """D-8, W-4"""
    body = {"address": SOMEWHERE, "blockchain": "Solana", "symbol": "USDC", "quantity": "5"} | change
    before = await alice.send("GET", "/api/v1/capital", "balanceQuery")

    reply = await alice.send("POST", "/wapi/v1/capital/withdrawals", "withdraw", body)
    after = await alice.send("GET", "/api/v1/capital", "balanceQuery")

    require_refusal(reply, change)
    assert reply.json["code"] == code
    assert after.json == before.json


async def test_an_order_that_is_not_there(running: Venue, alice: Trader) -> None:
    """W-4"""
    for fields in ({"orderId": "999999"}, {"orderId": "abc"}, {"orderId": "9" * 40}, {"clientId": 424242}):
        body = {"symbol": "SOL_USDC", **fields}
        cancelled = await alice.send("DELETE", "/api/v1/order", "orderCancel", body)
        asked = await alice.send("GET", "/api/v1/order", "orderQuery", body)
        assert cancelled.status == asked.status == 404
        assert cancelled.json == asked.json == {"code": "RESOURCE_NOT_FOUND", "message": "Not Found"}

    both = {"symbol": "SOL_USDC", "orderId": "1", "clientId": 1}
    require_refusal(await alice.send("DELETE", "/api/v1/order", "orderCancel", both))
    require_refusal(await alice.send("GET", "/api/v1/order", "orderQuery", {"symbol": "SOL_USDC"}))


async def test_post_only_that_would_take_says_the_clients_words(running: Venue, alice: Trader) -> None:
    """W-4"""
    bob = await running.trader(USDC="1000")
    await alice.place("SOL_USDC", "Ask", "101", "1")

    reply = await bob.place("SOL_USDC", "Bid", "101", "1", postOnly=True)

    assert reply.json == {"code": "INVALID_ORDER", "message": "Order would immediately match and take"}


async def test_a_flood_of_candles_is_slowed_down(running: Venue) -> None:
    """W-5"""
    statuses = []
    for _ in range(31):
        reply = await running.get(f"/api/v1/klines?symbol=SOL_USDC&interval=1m&startTime={int(time.time()) - 60}")
        statuses.append(reply.status)

    assert statuses[-1] == 429 and statuses[0] in (200, 429)
    require_refusal(reply)
    assert reply.json["code"] == "TOO_MANY_REQUESTS"
