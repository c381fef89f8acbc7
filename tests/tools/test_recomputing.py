"""`satchel liquidations`: a user sees every step and computes it again from the log.   [L-10]"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from api.operations import operator_command
from engine import genesis
from engine.commands import ConfigureAsset, ConfigureMarket, SetPrices
from engine.parameters import PRICE_SCALE
from tests.tools.conftest import Satchel
from tests.tools.sample import ALICE, BOB, MALLORY, Exchange
from tools import recomputing


async def liquidate(data: Path, fallen: float = 136.5) -> int:
    """Alice is long 6 SOL at 150 with 100 USDC; at 136.50 she is taken down on Mallory's bid, deeper she is below zero
    and goes to ADL; gives her subaccount.
    """
    exchange = await Exchange(data).open()
    assets = {each.symbol: each.asset_id for each in exchange.sequencer.state.assets.values()}

    async def price(dollars: float) -> None:
        await exchange.bring(SetPrices(((assets["SOL"], round(dollars * PRICE_SCALE)),)))

    async def order(key: object, side: str, at: str, quantity: str) -> None:
        outcome = await exchange.ask(
            key, "orderExecute", symbol="SOL_USDC_PERP", side=side, orderType="Limit", price=at, quantity=quantity
        )
        assert outcome.rejection is None, outcome.rejection

    for index, (key, atoms) in enumerate(((ALICE, 100), (BOB, 100_000), (MALLORY, 100_000))):
        await exchange.register(key)
        await exchange.deposit(key, "USDC", atoms * 10**6, index)
    await price(150)
    await order(BOB, "Ask", "150", "6")
    await order(ALICE, "Bid", "150", "6")
    await order(MALLORY, "Bid", "136.40", "50")
    await price(fallen)
    for _ in range(4 if fallen > 130 else 12):
        exchange.now_us += 1_000_000
        await price(fallen)
    await exchange.close()
    return exchange.subaccounts[ALICE.public_key][1]


@pytest.fixture(scope="module")
def liquidated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    data = tmp_path_factory.mktemp("liquidated")
    return data, asyncio.run(liquidate(data))


def test_every_figure_of_every_step_is_the_same_again(liquidated: tuple[Path, int], satchel: Satchel) -> None:
    data, alice = liquidated
    ran = satchel("liquidations", alice, "--data", data, "--json")
    steps = ran.json()["steps"]

    assert ran.code == 0
    assert [step["stage"] for step in steps] == ["started", "book", "book", "book", "book", "book", "book", "ended"]
    assert {step["again"] for step in steps} == {"same"}
    first = steps[1]
    assert (first["item"], first["taken"], first["price"], first["fee"]) == ("SOL_USDC_PERP", "0.6", "136.4", "0.8184")
    assert float(first["maintenance"]) > float(first["equity"])
    last = steps[-1]
    assert float(last["maintenance"]) < 0.95 * float(last["equity"])
    assert "SOL_USDC_PERP" in satchel("liquidations", alice, "--data", data).out


def test_steps_beside_the_book_are_shown_with_what_they_took_and_left(tmp_path: Path, satchel: Satchel) -> None:
    """L-5, L-6: closed against Bob where she has nothing left; what rounding leaves below zero is written off."""
    alice = asyncio.run(liquidate(tmp_path, 120))
    ran = satchel("liquidations", alice, "--data", tmp_path, "--json")
    started, adl, written_off, ended = (step for step in ran.json()["steps"] if step["moment"] != "before")

    assert ran.code == 0
    assert [step["stage"] for step in (started, adl, written_off, ended)] == ["started", "adl", "written off", "ended"]
    assert (adl["item"], adl["taken"], adl["fee"], adl["again"]) == ("SOL_USDC_PERP", "-6", "", recomputing.AS_SAID)
    assert abs(Decimal(adl["price"]) - (120 - Decimal(started["E"]) / 6)) < Decimal("0.0001")
    assert (written_off["item"], written_off["taken"]) == ("USDC", adl["E"])
    assert -Decimal("0.001") < Decimal(adl["E"]) < 0
    assert (ended["E"], ended["again"]) == ("0", "same")


def test_an_account_that_never_was_in_liquidation_has_no_line(liquidated: tuple[Path, int], satchel: Satchel) -> None:
    data, alice = liquidated
    assert satchel("liquidations", alice + 1, "--data", data, "--json").json()["steps"] == []


def test_a_figure_that_the_image_does_not_give_is_found(
    liquidated: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, alice = liquidated
    decode = recomputing.decode_memo

    def altered(content: bytes) -> object:
        memo = decode(content)
        if memo[0] == alice and len(memo) > 10:
            memo[6] += 1
        return memo

    monkeypatch.setattr(recomputing, "decode_memo", altered)
    assert recomputing.liquidations(data, None, alice, True) == 1
    assert "otherwise than its image" in capsys.readouterr().err


def test_parameters_are_what_an_operators_command_takes(liquidated: tuple[Path, int], satchel: Satchel) -> None:
    """S-7: to halt a market its state alone is changed; all else is given as it is."""
    data, _alice = liquidated
    ran = satchel("parameters", "SOL_USDC_PERP", "--data", data)
    asset = satchel("parameters", "SOL", "--data", data)
    none = satchel("parameters", "SOLX", "--data", data)
    born = genesis.load("devnet")

    assert operator_command("ConfigureMarket", ran.out) == ConfigureMarket(
        next(each for each in born.markets if each.symbol == "SOL_USDC_PERP")
    )
    assert operator_command("ConfigureAsset", asset.out) == ConfigureAsset(
        next(each for each in born.assets if each.symbol == "SOL")
    )
    assert none.code == 2 and "SOL_USDC_PERP" in none.err
