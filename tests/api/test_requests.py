"""What a signed text asks for is the command that is logged, read from nothing but the text.   [A-5]"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import ApiError
from api.requests import command_of, fields_of, orders_of
from engine import genesis
from engine.commands import (
    AddKey,
    BorrowLend,
    CancelAllOrders,
    CancelOrder,
    ConvertDust,
    Genesis,
    LendingSide,
    OpenSubaccount,
    OrderType,
    PlaceOrder,
    PlaceOrders,
    RegisterBackstop,
    RequestWithdrawal,
    SelfTrade,
    SetPrices,
    Side,
    TimeInForce,
    Transfer,
    UpdateAccount,
    encode,
)
from engine.state import State
from engine.transition import apply
from ledger.amounts import format_decimal
from tests.api.edge import SOMEWHERE, Trader, venue

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture(scope="module")
def state() -> State:
    fresh = State()
    apply(fresh, 1, 1, Genesis(genesis.load("devnet"), bytes(32)))
    return fresh


ORDER = {"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": "141.25", "quantity": "1.5"}


def test_an_order_becomes_ticks_and_lots(state: State) -> None:
    """A-3"""
    market_id = next(key for key, market in state.markets.items() if market.parameters.symbol == "SOL_USDC")

    command = command_of("orderExecute", ORDER | {"clientId": "7", "postOnly": "true"}, 3, 2, state)

    assert command == PlaceOrder(
        3,
        market_id,
        Side.BID,
        OrderType.LIMIT,
        TimeInForce.GTC,
        price_ticks=14125,
        lots=150,
        post_only=True,
        self_trade=SelfTrade.REJECT_TAKER,
        client_id=7,
    )


def test_margin_flags_are_those_of_the_order(state: State) -> None:
    """S-2, S-3: each on its own, spelt as clients spell it."""
    names = {
        "autoLend": "auto_lend",
        "autoLendRedeem": "auto_lend_redeem",
        "autoBorrow": "auto_borrow",
        "autoBorrowRepay": "auto_borrow_repay",
    }
    for wire, field in names.items():
        command = command_of("orderExecute", ORDER | {wire: "True"}, 3, 2, state)
        assert [name for name in names.values() if getattr(command, name)] == [field]
        unset = command_of("orderExecute", ORDER | {wire: "false"}, 3, 2, state)
        assert unset == command_of("orderExecute", ORDER, 3, 2, state)


def test_a_loan_by_hand_and_dust(state: State) -> None:
    """B-8, B-10, S-3"""
    sol = next(key for key, asset in state.assets.items() if asset.symbol == "SOL")
    fields = {"symbol": "SOL", "side": "Lend", "quantity": "1.5"}

    assert command_of("borrowLendExecute", fields, 3, 2, state) == BorrowLend(3, sol, LendingSide.LEND, 1_500_000_000)
    borrowed = command_of("borrowLendExecute", fields | {"side": "Borrow"}, 3, 2, state)
    assert borrowed == BorrowLend(3, sol, LendingSide.BORROW, 1_500_000_000)
    assert command_of("convertDust", {"symbol": "SOL"}, 3, 2, state) == ConvertDust(3, sol)
    assert command_of("convertDust", {}, 3, 2, state) == ConvertDust(3, 0)
    with pytest.raises(ApiError) as refused:
        command_of("borrowLendExecute", fields | {"quantity": "0.0000000001"}, 3, 2, state)
    assert (refused.value.code, refused.value.message) == ("INVALID_QUANTITY", "Quantity decimal too long")


def test_withdrawals_and_transfers_may_borrow(state: State) -> None:
    """S-5"""
    sol = next(key for key, asset in state.assets.items() if asset.symbol == "SOL")
    fields = {"symbol": "SOL", "quantity": "2", "autoBorrow": "true"}
    sent = fields | {"blockchain": "Solana", "address": SOMEWHERE, "autoLendRedeem": "true"}

    withdrawal = command_of("withdraw", sent, 3, 2, state)
    assert isinstance(withdrawal, RequestWithdrawal) and withdrawal.auto_borrow and withdrawal.auto_lend_redeem
    moved = command_of("transferExecute", fields | {"toSubaccountId": "4"}, 3, 2, state)
    assert moved == Transfer(3, 4, sol, 2 * 10**9, True)


def test_a_market_order_by_quote_quantity_spends_atoms(state: State) -> None:
    fields = {"symbol": "SOL_USDC", "side": "Bid", "orderType": "Market", "quoteQuantity": "3.82"}

    command = command_of("orderExecute", fields, 1, 1, state)

    assert isinstance(command, PlaceOrder)
    assert (command.lots, command.quote_atoms, command.order_type) == (0, 3_820_000, OrderType.MARKET)


def test_a_batch_keeps_its_order_and_a_batch_of_one_is_the_order(state: State) -> None:
    """W-1: both have the same text, so both must be the same command."""
    batch = [ORDER, ORDER | {"price": "0.001"}, ORDER | {"price": "140"}]

    many = command_of("orderExecute", batch, 1, 1, state)
    one = command_of("orderExecute", [ORDER], 1, 1, state)
    each = orders_of(batch, 1, state)

    assert isinstance(many, PlaceOrders) and [order.price_ticks for order in many.orders] == [14125, 14000]
    assert one == command_of("orderExecute", ORDER, 1, 1, state)
    assert [isinstance(order, ApiError) for order in each] == [False, True, False]


@pytest.mark.parametrize(
    ("instruction", "fields", "expected"),
    [
        ("orderCancel", {"symbol": "SOL_USDC", "orderId": "28"}, CancelOrder(3, 1, 28)),
        ("orderCancel", {"symbol": "SOL_USDC", "clientId": "5"}, CancelOrder(3, 1, None, 5)),
        ("orderCancelAll", {"symbol": "SOL_USDC"}, CancelAllOrders(3, 1)),
        ("accountUpdate", {}, UpdateAccount(3)),
        ("accountUpdate", {"autoRealizePnl": "false"}, UpdateAccount(3, auto_realize_pnl=False)),
        (
            "accountUpdate",
            {"autoLend": "true", "leverageLimit": "2.5"},
            UpdateAccount(3, auto_lend=True, leverage_limit=2_500_000_000),
        ),
        (
            "withdraw",
            {"address": "A", "blockchain": "Solana", "symbol": "USDC", "quantity": "1.5", "clientId": "x"},
            RequestWithdrawal(3, 1, 1, 1_500_000, "A", "x"),
        ),
        (
            "transferExecute",
            {"toSubaccountId": "9", "symbol": "SOL", "quantity": "0.000000001"},
            Transfer(3, 9, 5, 1),
        ),
        ("keyAdd", {"publicKey": KEY}, AddKey(3, bytes(range(32)))),
        ("keyAdd", {"publicKey": KEY, "subaccountId": "4"}, AddKey(4, bytes(range(32)))),
        ("subaccountOpen", {"publicKey": KEY}, OpenSubaccount(2, bytes(range(32)))),
        ("backstopRegister", {"notional": "2500.5"}, RegisterBackstop(3, 250_050_000_000)),
        (
            "operatorExecute",
            {"command": "SetPrices", "arguments": '{"prices": [[5, 150000000000000]]}'},
            SetPrices(((5, 150_000_000_000_000),)),
        ),
    ],
)
def test_each_instruction_has_its_command(
    state: State, instruction: str, fields: dict[str, str], expected: object
) -> None:
    """[A-5, W-2, W-10]"""
    derived = command_of(instruction, fields, 3, 2, state)

    assert derived == expected
    assert type(derived) is type(expected)


@pytest.mark.parametrize(
    ("instruction", "fields"),
    [
        ("balanceQuery", {}),
        ("orderCancel", {"symbol": "SOL_USDC"}),
        ("orderCancelAll", {"symbol": "SOL_USDC", "orderType": "Everything"}),
        ("strategyCreate", {"symbol": "SOL_USDC", "side": "Bid", "strategyType": "Scheduled", "quantity": "1"}),
        ("strategyCancel", {"symbol": "SOL_USDC"}),
        ("rfqSubmit", {"symbol": "SOL_USDC", "side": "Bid"}),
        ("rfqCancel", {}),
        ("quoteSubmit", {"rfqId": "77", "bidPrice": "1", "askPrice": "2"}),
        ("quoteAccept", {"quoteId": "1", "rfqId": "1", "clientId": "1"}),
        ("accountUpdate", {"autoLend": "maybe"}),
        ("accountUpdate", {"leverageLimit": "x"}),
        ("keyAdd", {"publicKey": "AAAA"}),
        ("keyAdd", {"publicKey": "*" * 44}),
        ("withdraw", {"address": "A", "blockchain": "Solana", "symbol": "USDC"}),
        ("operatorExecute", {"command": "Genesis", "arguments": "{}"}),
        ("operatorExecute", {"command": "SetPrices", "arguments": "{"}),
        ("operatorExecute", {"command": "SetPrices", "arguments": '{"prices": [[1]], "more": 1}'}),
        ("operatorExecute", {"command": "GrantTier", "arguments": '{"user_id": 1}'}),
        ("operatorExecute", {"command": "GrantTier", "arguments": "[" * 5000}),
    ],
)
def test_what_stands_for_no_command_is_refused(state: State, instruction: str, fields: dict[str, str]) -> None:
    with pytest.raises(ApiError) as refused:
        command_of(instruction, fields, 3, 2, state)
    assert 400 <= refused.value.status < 500


@given(ticks=st.integers(1, 10**9), lots=st.integers(1, 10**9))
def test_every_price_and_quantity_on_the_grid_is_exact(state: State, ticks: int, lots: int) -> None:
    """A-3, W-3"""
    price, quantity = format_decimal(ticks, 2), format_decimal(lots, 2)

    command = command_of("orderExecute", ORDER | {"price": price, "quantity": quantity}, 1, 1, state)

    assert isinstance(command, PlaceOrder)
    assert (command.price_ticks, command.lots) == (ticks, lots)


@given(st.binary(max_size=200))
def test_no_text_breaks_the_reader(text: bytes) -> None:
    try:
        fields_of(text)
    except ValueError:
        return


@given(
    st.dictionaries(
        st.sampled_from(["symbol", "side", "orderType", "price", "quantity", "quoteQuantity", "clientId", "postOnly"]),
        st.text(max_size=30),
    )
)
def test_no_fields_break_the_derivation(state: State, fields: dict[str, str]) -> None:
    try:
        command_of("orderExecute", fields, 1, 1, state)
    except ApiError as error:
        assert 400 <= error.status < 500


async def test_every_logged_command_follows_from_its_text_alone(tmp_path: Path) -> None:
    """A-5: as `satchel audit` derives them."""
    async with venue(tmp_path) as running:
        alice = await running.trader(USDC="1000", SOL="10")
        other = Trader(running.http, 777)
        await alice.place("SOL_USDC", "Bid", "100", "1", clientId=9, postOnly=True)
        await alice.send(
            "POST",
            "/api/v1/orders",
            "orderExecute",
            [
                {"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": price, "quantity": "1"}
                for price in ("99", "98.001", "97")
            ],
        )
        market = {"symbol": "SOL_USDC", "side": "Ask", "orderType": "Market", "quantity": "0.5", "reduceOnly": None}
        await alice.send("POST", "/api/v1/order", "orderExecute", market)
        await alice.send("DELETE", "/api/v1/order", "orderCancel", {"symbol": "SOL_USDC", "clientId": 9})
        await alice.send("DELETE", "/api/v1/orders", "orderCancelAll", {"symbol": "SOL_USDC"})
        await alice.send("PATCH", "/api/v1/account", "accountUpdate", {"autoLend": True, "leverageLimit": None})
        opened = await alice.send("POST", "/satchel/v1/subaccounts", "subaccountOpen", {"publicKey": other.key})
        there = {"toSubaccountId": opened.json["subaccountId"], "symbol": "USDC", "quantity": "1.000001"}
        await alice.send("POST", "/satchel/v1/transfers", "transferExecute", there)
        withdrawal = {"address": SOMEWHERE, "blockchain": "Solana", "symbol": "USDC", "quantity": "2"}
        withdrawal["clientId"] = "one"
        await alice.send("POST", "/wapi/v1/capital/withdrawals", "withdraw", withdrawal)

        kinds = []
        for logged in running.node.store.commands():
            if logged.request is None:
                continue
            groups = fields_of(logged.request.text)
            key = running.node.state.api_keys[logged.request.api_key]
            derived = command_of(
                groups[0][0], [fields for _, fields in groups], key.subaccount_id, key.user_id, running.node.state
            )
            assert encode(derived) == logged.payload, logged.kind
            kinds.append(logged.kind)

    assert kinds == [
        "PlaceOrder",
        "PlaceOrders",
        "PlaceOrder",
        "CancelOrder",
        "CancelAllOrders",
        "UpdateAccount",
        "OpenSubaccount",
        "Transfer",
        "RequestWithdrawal",
    ]
