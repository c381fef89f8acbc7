"""`satchel liquidations`: a user sees every step and computes it again from the log.   [L-10]"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from api.operations import operator_command
from engine import backstop, deleveraging, genesis, losses
from engine.commands import ConfigureAsset, ConfigureMarket, RegisterBackstop, SetPrices
from engine.parameters import PRICE_SCALE
from ledger.journal import JournalKind
from tests.engine.ladder import Arena, cross
from tests.engine.ladder import recomputed as recomputed_steps
from tests.engine.perps import USDC
from tests.engine.test_bankruptcy import short_squeeze, write_down
from tests.engine.test_lender_adl import recovered, scene
from tests.tools.conftest import Satchel
from tests.tools.sample import ALICE, BOB, MALLORY, Exchange
from tools import recomputing
from tools.ladder_steps import Ladder

USD = 10**8


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
    assert (adl["item"], adl["taken"], adl["fee"], adl["again"]) == ("SOL_USDC_PERP", "-6", "", "same")
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


Scene = Callable[[], Arena]


def closed_out() -> Arena:
    """ADL at the bankruptcy price, then what is unsold in kind and by the fund.   [L-6]"""
    pit = Arena()
    pit.price(3_000, "ETH")
    pit.insure(1_000)
    long, short = pit.member("long", 100, ETH=10**9), pit.member("short", 100_000)
    cross(long, short, 10_000, 15_000)
    pit.price(122)
    pit.step(deleveraging.deleverage, long)
    return pit


def handed_over() -> Arena:
    """Two providers take slices; the fund adds an incentive to each.   [L-4]"""
    pit = Arena()
    pit.insure(5_000)
    long, short = pit.member("long", 1_600), pit.member("short", 100_000)
    cross(long, short, 10_000, 15_000)
    for name, dollars in (("one", 9_000), ("two", 4_000)):
        provider = pit.member(name, 50_000)
        provider.does(RegisterBackstop(provider.subaccount, dollars * USD))
    pit.price(130)
    pit.step(backstop.take_over, long)
    return pit


def written_down() -> Arena:
    """A debt that nobody buys back is paid by the account and the fund.   [L-5, L-7]"""
    arena, _lenders, short = short_squeeze(insured=20_000)
    write_down(arena, short)
    return arena


def given_back() -> Arena:
    """A borrower gives back what a lender in liquidation needs, for cash and ETH.   [L-8]"""
    arena, lender, _borrower = scene(usdc=500, ETH=2 * 10**9)
    recovered(arena, lender, 10 * 10**9)
    return arena


def shared_out() -> Arena:
    """What is lacking is charged to one side's positions.   [L-6]"""
    pit = Arena()
    long, other = pit.member("long", 1_600), pit.member("other", 100_000)
    cross(long, other, 10_000, 15_000)
    outcome = pit.step(lambda _state, outcome, _account: outcome, long)[1]
    losses.share(pit.state, outcome, pit.state.markets[pit.market], long.account, False, 7 * USDC + 1)
    return pit


@pytest.mark.parametrize(
    ("build", "kind", "at", "names"),
    [
        (closed_out, JournalKind.ADL, 4, "price"),
        (closed_out, JournalKind.ADL, 5, "mark"),
        (closed_out, JournalKind.ADL, 8, "frozen E"),
        (closed_out, JournalKind.ADL, 9, "frozen maintenance"),
        (closed_out, JournalKind.ADL, 3, "equity"),
        (closed_out, JournalKind.COLLATERAL_TAKEN, 2, "paid"),
        (closed_out, JournalKind.COLLATERAL_TAKEN, 5, "mark"),
        (closed_out, JournalKind.COLLATERAL_TAKEN, 11, "E"),
        (handed_over, JournalKind.BACKSTOP, 2, "part of E"),
        (handed_over, JournalKind.BACKSTOP, 4, "gross notional"),
        (handed_over, JournalKind.BACKSTOP, 6, "paid to the backstop fund"),
        (handed_over, JournalKind.BACKSTOP, 7, "incentive"),
        (handed_over, JournalKind.BACKSTOP, 13, "E"),
        (written_down, JournalKind.DEBT_WRITTEN_DOWN, 3, "frozen mark"),
        (written_down, JournalKind.DEBT_WRITTEN_DOWN, 4, "value"),
        (written_down, JournalKind.DEBT_WRITTEN_DOWN, 14, "equity"),
        (written_down, JournalKind.INSURANCE, 2, "equity"),
        (written_down, JournalKind.INSURANCE, 7, "maintenance"),
        (given_back, JournalKind.LENDER_ADL, 4, "mark"),
        (given_back, JournalKind.LENDER_ADL, 5, "paid"),
        (given_back, JournalKind.LENDER_ADL, 12, "equity"),
        (given_back, JournalKind.LENDER_ADL, 20, "borrower's E"),
        (shared_out, JournalKind.LOSS_SHARED, 4, "loss per lot"),
    ],
)
def test_a_number_of_any_rung_that_is_not_what_the_journal_gives_is_found(
    build: Scene, kind: JournalKind, at: int, names: str
) -> None:
    """L-4 … L-8: as it was, every step is the same again; with one number changed, that number is named with both."""
    arena = build()
    true = [again for step, again in recomputed_steps(arena) if step == kind]
    assert true and all(each and not each.differences_before + each.differences for each in true)

    def alter(step: int, memo: list[Any]) -> None:
        if step == kind:
            memo[at] += 10**6

    found = [again for step, again in recomputed_steps(arena, alter) if step == kind and again is not None]
    told = [line for again in found for line in again.differences_before + again.differences]
    assert any(line.startswith(f"{names} ") and ", again " in line for line in told), told


def test_a_step_of_an_old_journal_has_no_image_and_is_shown_as_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ladder, "note", lambda _self, _memo: None)
    arena = closed_out()
    assert {again for _kind, again in recomputed_steps(arena)} == {None}


def test_an_image_that_was_changed_is_found_by_the_figures_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with 1 and names the step."""
    alice = asyncio.run(liquidate(tmp_path, 120))
    decode = recomputing.decode_memo

    def altered(content: bytes) -> object:
        memo = decode(content)
        if len(memo) == 4 and memo[:2] == [alice, JournalKind.ADL]:
            memo[3][2][0][2] -= 10**6
        return memo

    monkeypatch.setattr(recomputing, "decode_memo", altered)
    assert recomputing.liquidations(tmp_path, None, alice, True) == 1
    told = capsys.readouterr()
    assert "otherwise than its image" in told.err and "price " in told.out and ", again " in told.out
