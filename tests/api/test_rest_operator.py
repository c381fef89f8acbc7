"""Operator commands over HTTP: signed by an operator's key, in the log, refused from anybody else.   [W-7]"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from api.errors import refusal_of
from engine.rejections import RejectReason
from engine.state import State
from tests.api.edge import SOMEWHERE, Reply, Trader, Venue, venue

DEVNET = Path(__file__).parents[2] / "engine" / "genesis" / "devnet.toml"
OPERATOR_SEED = 5555


def with_an_operator(folder: Path) -> str:
    """The devnet's genesis with one operator key."""
    key = Trader(None, OPERATOR_SEED).key  # type: ignore[arg-type]
    text = DEVNET.read_text().replace("operator_keys = []", f'operator_keys = ["{key}"]')
    path = folder / "genesis.toml"
    path.write_text(text)
    return str(path)


async def order(running: Venue, command: str, **arguments: object) -> Reply:
    operator = Trader(running.http, OPERATOR_SEED)
    body = {"command": command, "arguments": json.dumps(arguments)}
    return await operator.send("POST", "/satchel/v1/operator", "operatorExecute", body)


async def test_an_operator_configures_opens_users_and_stops_withdrawals(tmp_path: Path) -> None:
    """W-7, A-5"""
    async with venue(tmp_path / "data", genesis=with_an_operator(tmp_path)) as running:
        alice = await running.trader(USDC="100")
        new = Trader(running.http, 4321)

        priced = await order(running, "SetPrices", prices=[[5, 150 * 10**12]])
        opened = await order(running, "RegisterKey", public_key=new.key)
        halted = await order(running, "StopWithdrawals", asset_id=1, stopped=True, reason="a drill")
        body = {"address": SOMEWHERE, "blockchain": "Solana", "symbol": "USDC", "quantity": "5"}
        refused = await alice.send("POST", "/wapi/v1/capital/withdrawals", "withdraw", body)
        lifted = await order(running, "StopWithdrawals", asset_id=1, stopped=False, reason="")
        parameters = running.node.state.markets[1].parameters
        market = json.loads(json.dumps(_named(parameters)))
        paused = await order(running, "ConfigureMarket", market=market | {"state": 4})
        late = await alice.place("SOL_USDC", "Bid", "1", "1")
        wrong = await order(running, "ConfigureMarket", market=market | {"tick_price": 7})
        unknown = await order(running, "Genesis")
        account = await new.send("GET", "/api/v1/account", "accountQuery")
        price = running.node.state.prices[5]
        logged = [one.kind for one in running.node.store.commands() if one.request is not None]

    assert priced.status == halted.status == lifted.status == paused.status == 200, (priced, halted, lifted, paused)
    assert price == 150 * 10**12
    assert opened.json["reply"]["public_key"] == new.key and account.status == 200
    assert refused.json["code"] == "PRECONDITION_FAILED" and "a drill" in refused.json["message"]
    assert late.json["code"] == "TRADING_PAUSED"
    assert wrong.status == unknown.status == 400
    assert {"SetPrices", "RegisterKey", "StopWithdrawals", "ConfigureMarket"} <= set(logged)


async def test_a_users_key_does_not_operate_and_an_operators_key_is_no_user(tmp_path: Path) -> None:
    """W-7"""
    async with venue(tmp_path / "data", genesis=with_an_operator(tmp_path)) as running:
        alice = await running.trader()
        body = {"command": "SetPrices", "arguments": '{"prices": [[5, 1]]}'}
        tried = await alice.send("POST", "/satchel/v1/operator", "operatorExecute", body)
        account = await Trader(running.http, OPERATOR_SEED).send("GET", "/api/v1/account", "accountQuery")

    assert tried.status == account.status == 401


async def test_a_chain_that_is_not_served_has_no_deposit_address(tmp_path: Path) -> None:
    """D-3"""
    async with venue(tmp_path) as running:
        alice = await running.trader()
        asked = await alice.send(
            "GET", "/wapi/v1/capital/deposit/address", "depositAddressQuery", {"blockchain": "Ethereum"}
        )

    assert asked.status == 400 and "Ethereum" in asked.json["message"]


@pytest.mark.parametrize("reason", list(RejectReason))
def test_every_refusal_of_the_engine_has_a_code_and_words(reason: RejectReason) -> None:
    """W-4"""
    error = refusal_of(reason, {"asset_id": 99, "needed": 5, "market_id": 7}, State())

    assert error.status in (400, 401, 404)
    assert error.message and json.loads(error.body())["code"] == error.code


def _named(value: object) -> object:
    """A parameter struct as an operator writes it: objects by field name."""
    if hasattr(value, "__struct_fields__"):
        return {name: _named(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return list(value) if isinstance(value, tuple) else value
