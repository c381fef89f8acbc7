"""The state as bytes: nothing is lost, history does not show; the leaves' columns add up.   [A-6, A-10, R-2, R-6]"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from engine import liabilities, snapshot
from engine.commands import (
    AddLiquidity,
    BorrowLend,
    CancelOrder,
    LendingSide,
    OpenLong,
    RequestWithdrawal,
    SetPrices,
    SwapAssets,
)
from engine.parameters import DEC, PRICE_SCALE
from engine.state import Liquidation, Rfq, ShareTime, State
from ledger.chart import AccountKind, kind_of, owner_of
from tests.engine.desk import ASK, BID, Desk


@pytest.fixture
def desk() -> Desk:
    """A little of everything: resting orders, fills, a provisional deposit, a withdrawal, remembered requests."""
    desk = Desk()
    desk.exchange.do(SetPrices(((desk.exchange.asset("SOL"), 150 * PRICE_SCALE),)))
    anna, bert = desk.trader("anna"), desk.trader("bert")
    usdc = desk.exchange.asset("USDC")
    anna.does(BorrowLend(anna.subaccount, usdc, LendingSide.LEND, 10**11))
    bert.does(BorrowLend(bert.subaccount, usdc, LendingSide.BORROW, 10**9))
    for price in (15_000, 15_010, 15_020):
        anna.sells(5, at=price, client_id=price)
        bert.buys(5, at=price - 40)
    bert.buys(7, at=15_010)
    bert.buys(9, at=14_800, auto_borrow=True)
    anna.places(anna.order(BID, 14_900, 1), anna.order(ASK, 15_100, 0))
    rowan = desk.exchange.asset("ROWAN")
    desk.exchange.deposit(anna.subaccount, "ROWAN", 10**14)
    anna.does(AddLiquidity(anna.subaccount, usdc, 10**14, 10**11))
    bert.does(OpenLong(bert.subaccount, usdc, rowan, 10**8, 3 * DEC))
    bert.does(SwapAssets(bert.subaccount, usdc, rowan, 10**8))
    desk.exchange.deposit(bert.subaccount, "USDC", 10**9, final=False)
    address = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin"
    bert.does(RequestWithdrawal(bert.subaccount, 1, desk.exchange.asset("SOL"), 10**9, address, "mine"))
    return desk


def test_loading_a_snapshot_gives_the_same_bytes(desk: Desk) -> None:
    content = snapshot.dump(desk.state)

    assert snapshot.dump(snapshot.load(content)) == content
    assert snapshot.state_hash(desk.state) == snapshot.digest(content)


def fields_of(row: Any) -> dict[str, Any]:
    """The slots of a loan or a pool, without the cached totals."""
    cached = ("projected", "projected_ms", "open_at")
    return {name: getattr(row, name) for name in names_of(row) if name not in cached}


def names_of(thing: Any) -> tuple[str, ...]:
    """The names of an object's fields; a class of the compiled core says them in a way of its own."""
    kind = type(thing)
    return tuple(getattr(kind, "__mypyc_attrs__", None) or getattr(kind, "__slots__", None) or vars(thing))


def test_a_snapshot_covers_every_field_of_the_state(desk: Desk) -> None:
    """A field that the snapshot forgot comes back empty here."""
    loaded = snapshot.load(snapshot.dump(desk.state))
    indexed = {"markets", "users", "subaccounts", "orders", "balances", "pricing", "pools"}
    indexed |= {"amm_pools", "amm_positions", "marks_version", "valuations", "cash", "cash_moved", "columns"}

    assert set(names_of(loaded)) == set(names_of(State())) == set(names_of(desk.state)) > indexed
    for name in names_of(desk.state):
        if name not in indexed:
            assert getattr(loaded, name) == getattr(desk.state, name), name
    for number, subaccount in desk.state.subaccounts.items():
        for field in names_of(subaccount):
            before, after = getattr(subaccount, field), getattr(loaded.subaccounts[number], field)
            if field == "user":
                before, after = before.user_id, after.user_id
            if field in ("orders", "client_ids"):
                before, after = ([(key, each.view()) for key, each in side.items()] for side in (before, after))
            if field in ("lent", "debts"):
                before, after = ({key: fields_of(loan) for key, loan in side.items()} for side in (before, after))
            if field == "asset_ids":
                # What came to nothing need not be walked again.
                assert after.keys() <= before.keys()
                continue
            assert after == before, field
    assert {key: fields_of(pool) for key, pool in loaded.pools.items()} == {
        key: fields_of(pool) for key, pool in desk.state.pools.items()
    }
    assert _amm_fields(loaded) == _amm_fields(desk.state)
    assert loaded.amm_positions.keys() == desk.state.amm_positions.keys() == {1}
    assert loaded.pricing.keys() == desk.state.pricing.keys()
    for asset_id, pricing in desk.state.pricing.items():
        for field in names_of(pricing):
            assert getattr(loaded.pricing[asset_id], field) == getattr(pricing, field), field
    for market_id, market in desk.state.markets.items():
        for field in names_of(market):
            before, after = getattr(market, field), getattr(loaded.markets[market_id], field)
            if field in ("pricing", "premium"):
                before, after = ({name: getattr(each, name) for name in names_of(each)} for each in (before, after))
            if field not in ("book", "holders", "traded"):
                assert after == before, field
    for user_id, user in desk.state.users.items():
        for field in names_of(user):
            assert getattr(loaded.users[user_id], field) == getattr(user, field), field


def _amm_fields(state: State) -> dict[int, dict[str, Any]]:
    """Everything that liquidity pools remember, positions and providers field by field."""
    found = {}
    for pool_id, pool in state.amm_pools.items():
        found[pool_id] = fields_of(pool)
        for name in ("positions", "holders"):
            found[pool_id][name] = {key: fields_of(each) for key, each in getattr(pool, name).items()}
    return found


def test_the_loaded_state_goes_on_like_the_original(desk: Desk) -> None:
    other = Desk()
    other.exchange.state = snapshot.load(snapshot.dump(desk.state))
    other.exchange.at_us = desk.exchange.at_us
    request = desk.exchange.signed(next(iter(desk.state.api_keys)))
    order_id = next(order for order in desk.state.subaccounts[1].orders)
    for each in (desk, other):
        each.attempt(CancelOrder(1, each.market, order_id), request)

    assert desk.last.events == other.last.events and desk.last.rejection is None
    assert snapshot.state_hash(desk.state) == snapshot.state_hash(other.state)


def test_how_the_dicts_and_heaps_grew_does_not_show() -> None:
    straight, winding = Desk(), Desk()
    for desk in (straight, winding):
        anna = desk.trader("anna")
        if desk is winding:
            # Levels come and go, balances pass through other keys' order, heaps keep stale prices.
            for price in Random(1).sample(range(14_000, 15_000), 200):
                anna.buys(1, at=price)
            anna.cancels_all()
        else:
            desk.state.next_order_id += 200
        for price in (14_500, 14_600):
            anna.buys(1, at=price)
        desk.state.sequence = desk.state.at_us = 0
        desk.state.requests.clear()
        for order in desk.state.orders.values():
            order.created_at_us = 0

    assert snapshot.dump(straight.state) == snapshot.dump(winding.state)


def test_bytes_that_are_no_snapshot_are_refused(desk: Desk) -> None:
    content = snapshot.dump(desk.state)
    fields = msgspec.msgpack.decode(content)
    for broken in (b"", content[:-1], content + b"x", b"\xc0", msgspec.msgpack.encode([99, *fields[1:]])):
        with pytest.raises(snapshot.SnapshotError):
            snapshot.load(broken)


def test_the_columns_of_an_asset_add_up_to_the_ledger(desk: Desk) -> None:
    state = desk.state
    names = liabilities.columns(state)
    totals = dict.fromkeys(names, 0)
    for _number, _user, amounts, _detail in liabilities.accounts(state):
        assert len(amounts) == len(names) and all(amount >= 0 for amount in amounts)
        for name, amount in zip(names, amounts, strict=True):
            totals[name] += amount

    for asset_id, asset in state.assets.items():
        owed = {AccountKind.AVAILABLE: 0, AccountKind.WITHDRAWING: 0}
        for key, atoms in state.balances.items():
            if key & (1 << 24) - 1 == asset_id and kind_of(key >> 24) in owed:
                owed[AccountKind(kind_of(key >> 24))] -= atoms
        shown = sum(totals[f"{asset.symbol}.{kind}"] for kind in ("available", "in_orders", "provisional"))
        assert shown == owed[AccountKind.AVAILABLE]
        assert totals[f"{asset.symbol}.withdrawing"] == owed[AccountKind.WITHDRAWING]
    assert totals["USDC.provisional"] == 10**9
    assert totals["SOL.withdrawing"] == 10**9
    assert totals["SOL.in_orders"] > 0 and totals["USDC.in_orders"] > 0


def test_every_subaccount_has_its_own_line_with_its_value(desk: Desk) -> None:
    lines = {number: dict(zip(liabilities.columns(desk.state), amounts, strict=True))
             for number, _user, amounts, _detail in liabilities.accounts(desk.state)}

    assert list(lines) == sorted(desk.state.subaccounts)
    for number, line in lines.items():
        usdc, sol = (desk.state.held(number, desk.exchange.asset(symbol)) for symbol in ("USDC", "SOL"))
        # USDC at 1 and weight 1; SOL at 150 and 0.9, whose curve caps only from 222,000 SOL on. USD in 1e-8.
        value = (usdc + line["USDC.lent"]) * 100 + sol * 150 * 9 // 100
        assert line["collateral_value"] == value
        owed = line["USDC.borrowed"] * 100
        assert (line["net_equity_plus"], line["net_equity_minus"]) == (value - owed, 0)


def test_provisional_funds_that_were_traded_away_are_not_shown_twice() -> None:
    desk = Desk()
    anna, bert = desk.trader("anna", usdc=0, sol=0), desk.trader("bert")
    desk.exchange.deposit(anna.subaccount, "USDC", 15_000_000, final=False)
    bert.sells(8, at=15_000)
    anna.buys(8, at=15_000)
    line = dict(zip(liabilities.columns(desk.state), next(liabilities.accounts(desk.state))[2], strict=True))

    assert owner_of(desk.available(anna)) == anna.subaccount
    assert (line["USDC.available"], line["USDC.provisional"]) == (0, 3_000_000)


@pytest.mark.parametrize(("kind", "arguments"), [(ShareTime, (0, 0, 0)), (Liquidation, (0,)), (Rfq, (None,))])
def test_no_two_accounts_share_what_they_begin_with(kind: Any, arguments: tuple[Any, ...]) -> None:
    """A compiled class keeps `= {}` as one dict for all: what one account waits for would be everybody's.   [A-6]"""
    one, other = kind(*arguments), kind(*arguments)
    begun = [name for name in kind.__struct_fields__ if isinstance(getattr(one, name), dict)]

    assert begun
    for name in begun:
        assert getattr(one, name) is not getattr(other, name), name
