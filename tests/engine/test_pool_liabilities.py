"""Leaves of providers and of who is long in liquidity pools: gross columns that are the pools' own, verified by each
holder's own proof after any life of swaps, additions, removals, opens, closes and epochs.

[R-2, R-5, R-6, R-12, X-3, X-5, X-11, X-14]
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from api.epochs import continued, image_of
from api.node import balance_totals
from engine import liabilities, margin, snapshot
from engine.commands import AddLiquidity, CloseEpoch, RemoveLiquidity, SetPrices
from engine.events import EpochClosed
from engine.parameters import DEC, PRICE_SCALE
from engine.state import State
from ledger.amounts import mul_div_down
from ledger.chart import amm_fund, amm_pool
from ledger.invariants import RunningTotals
from por import verifier
from por.canonical import BuildRefused
from por.epochs import Epoch, build_epoch
from por.log import Log
from tests.engine.amm import ROWAN, SOL, USDC, Party, Pond
from tests.engine.test_liabilities import block_at
from tests.por.samples import MASTER, proof_of


def leaf(state: State, who: Party) -> dict[str, Any]:
    """The columns of one leaf by name, and its detail."""
    names = liabilities.columns(state)
    for number, _user, amounts, detail in liabilities.accounts(state):
        if number == who.subaccount:
            return {**dict(zip(names, amounts, strict=True)), "detail": json.loads(detail)}
    raise KeyError(who.subaccount)


def epoch_of(pond: Pond) -> Epoch:
    """Close an epoch and build it, as the node does."""
    pond.exchange.at_us += 1
    event = pond.exchange.do(CloseEpoch(0)).events[-1]
    assert isinstance(event, EpochClosed)
    return build_epoch(continued(image_of(pond.state, block_at(pond.state.at_us), event), None), None, MASTER)


def lived(seed: int) -> tuple[Pond, list[Party]]:
    """Two pools, two providers, four traders on both sides at any leverage, a price that is pushed, hours, closes."""
    random = Random(seed)
    pond = Pond(1_000_000, 2_000_000, rate_min=DEC // 1_000, rate_max=DEC // 50, rate_increase=DEC // 100)
    sol = pond.exchange.asset("SOL")
    other = pond.party("other lp", rowan=500_000, usdc=500_000, sol=9_000)
    other.adds(random.randrange(1, 100_000) * ROWAN, random.randrange(1, 100_000) * USDC + 7)
    other.does(AddLiquidity(other.subaccount, sol, 200_000 * ROWAN, 4_000 * SOL))
    traders = [pond.party(f"trader {number}", rowan=20_000, usdc=20_000, sol=900) for number in range(4)]
    whale = pond.party("whale", rowan=300_000, usdc=300_000)
    pond.passes(200)
    for _step in range(30):
        who = random.choice(traders)
        match random.randrange(6):
            case 0:
                who.tries(who.swap("ROWAN", "USDC", random.randrange(1, 500 * ROWAN)))
            case 1:
                who.tries(who.swap("SOL", "USDC", random.randrange(1, 9 * SOL)))
            case 2 | 3:
                gets, pays = random.choice((("ROWAN", "USDC"), ("USDC", "ROWAN"), ("ROWAN", "SOL"), ("SOL", "ROWAN")))
                atoms = random.randrange(1, 900) * {"USDC": USDC, "ROWAN": ROWAN, "SOL": SOL // 50}[pays]
                who.tries(who.long(gets, atoms, random.randrange(DEC, 8 * DEC), pays))
            case 4:
                mine = [one for one in pond.state.amm_positions.values() if one.subaccount_id == who.subaccount]
                if mine:
                    who.tries(who.close(random.choice(mine).position_id))
            case 5:
                other.tries(RemoveLiquidity(other.subaccount, random.choice((sol, pond.usdc)), basis_points=700))
        if random.random() < 0.15:
            side = random.choice((("ROWAN", "USDC", 40_000 * ROWAN), ("USDC", "ROWAN", 60_000 * USDC)))
            whale.tries(whale.swap(*side))
        pond.passes(random.choice((1, 200, 3_600)))
    pond.passes(3_600)
    traders[0].opens("ROWAN", 70 * USDC, 3 * DEC)
    return pond, [pond.lp, other, whale, *traders]


def test_a_leaf_shows_units_custody_and_debts_gross() -> None:
    """[R-2, X-3, X-5] And line by line what the columns add up."""
    pond = Pond(1_000_000, 1_000_000)
    lucy, mary = pond.party("lucy", rowan=10_000), pond.party("mary", usdc=10_000)
    one = mary.opens("ROWAN", 1_000 * USDC, 3 * DEC)
    two = mary.opens("ROWAN", 500 * USDC, 2 * DEC)
    three = lucy.opens("USDC", 100 * ROWAN, 2 * DEC)
    pond.until_epoch()
    provider, long, short = leaf(pond.state, pond.lp), leaf(pond.state, mary), leaf(pond.state, lucy)

    assert provider["USDC.amm_units"] == pond.lp.units == pond.pool.units and provider["USDC.amm_external_owed"] == 0
    assert provider["detail"]["liquidity"]["USDC"]["nativeAdded"] == str(1_000_000 * ROWAN)
    assert int(provider["detail"]["liquidity"]["USDC"]["nativeInterest"]) > 0
    assert long["USDC.amm_external_owed"] == 2_500 * USDC and short["USDC.amm_native_owed"] == 100 * ROWAN
    assert 0 < long["USDC.amm_native_custody"] < one.custody_atoms + two.custody_atoms
    assert 0 < short["USDC.amm_external_custody"] < three.custody_atoms
    longs = long["detail"]["longs"]
    assert set(longs) == {str(one.position_id), str(two.position_id)}
    assert sum(int(each["custody"]) for each in longs.values()) == long["USDC.amm_native_custody"]
    assert (longs[str(one.position_id)]["collateralAsset"], longs[str(one.position_id)]["pool"]) == ("USDC", "USDC")
    assert all(leaf(pond.state, who)["net_equity_minus"] == 0 for who in (lucy, mary))


@pytest.mark.parametrize("seed", range(8))
def test_an_epoch_of_any_life_balances_and_everybody_verifies_it(seed: int) -> None:
    """Units, custody, debts, coins and funds to the atom; proofs of providers, longs and bystanders.   [R-6, X-14]"""
    pond, parties = lived(seed)
    state = pond.state
    epoch = epoch_of(pond)
    header = epoch.header

    assert pond.is_conserved() and RunningTotals(balance_totals(state)).violations() == []
    by_name = {line.pool: line for line in header.amms}
    assert list(by_name) == ["SOL", "USDC"] and json.loads(header.text())["version"] == 3
    for pool in state.amm_pools.values():
        name = state.assets[pool.parameters.pool_id].symbol
        line, coins = by_name[name], amm_pool(pool.parameters.pool_id)
        assert header.total(f"{name}.amm_units") == line.units == pool.units
        assert header.total(f"{name}.amm_native_custody") == sum(
            each.custody for each in pool.positions.values() if not each.is_native_collateral
        )
        assert header.total(f"{name}.amm_native_owed") == sum(
            each.owed for each in pool.positions.values() if each.is_native_collateral
        )
        assert line.native_balance + line.native_custody == -pond.balance(coins, "ROWAN")
        assert line.external_balance + line.external_custody == -pond.balance(coins, name)
        assert line.native_fund == -pond.balance(amm_fund(pool.parameters.pool_id), "ROWAN")
    assert state.amm_positions and by_name["USDC"].native_fund + by_name["USDC"].external_fund > 0
    log = Log([header])
    for who in parties:
        report, _ = verifier.verify(proof_of(log, epoch, who.subaccount))
        assert any("In every liquidity pool" in line for line in report)


def test_coins_of_pools_are_owed_and_what_positions_owe_is_no_loan() -> None:
    """[R-12] All ROWAN there is was deposited: what is owed of it is covered exactly, but for the funds' part."""
    pond, _parties = lived(3)
    reserves = {line["asset"]: line for line in json.loads(epoch_of(pond).reserves)["assets"]}

    state, rowan = pond.state, pond.rowan
    held = sum(state.held(number, rowan) for number in state.subaccounts)
    in_pools = -sum(pond.balance(amm_pool(pool_id), "ROWAN") for pool_id in state.amm_pools)
    in_funds = -sum(pond.balance(amm_fund(pool_id), "ROWAN") for pool_id in state.amm_pools)
    assert reserves["ROWAN"]["liabilities"] == str(held + in_pools)
    assert int(reserves["ROWAN"]["reserves"]) == held + in_pools + in_funds and reserves["ROWAN"]["loans"] == "0"


def test_a_states_snapshot_gives_the_same_leaves() -> None:
    """[A-9, R-23]"""
    pond, _parties = lived(1)
    again = snapshot.load(snapshot.dump(pond.state))

    assert list(liabilities.accounts(again)) == list(liabilities.accounts(pond.state))


def test_units_that_count_as_collateral_are_in_the_values_and_by_default_in_none() -> None:
    """[C-3, X-5b]"""
    pond = Pond(1_000_000, 1_000_000)
    before = leaf(pond.state, pond.lp)
    assert before["collateral_value"] == before["net_equity_plus"] == 0 < pond.lp.units
    pond.exchange.do(SetPrices(((pond.rowan, PRICE_SCALE),)))

    assert pond.set(collateral_weight=5 * 10**8).rejection is None
    after = leaf(pond.state, pond.lp)

    counted = margin.pool_collateral_usd(pond.state, pond.lp.subaccount, pond.state.at_us)
    account = pond.state.subaccounts[pond.lp.subaccount]
    assert after["collateral_value"] == after["net_equity_plus"] == counted > 0
    assert margin.sums(pond.state, account, pond.state.at_us).equity == counted


def test_no_epoch_is_built_of_a_pool_that_is_not_what_the_ledger_says() -> None:
    """[R-6, X-14]"""
    pond, _parties = lived(2)
    pond.pool.native_balance += 1

    with pytest.raises(BuildRefused, match=r"ROWAN.amm_pool: the liquidity pools have -\d+, the ledger -\d+"):
        epoch_of(pond)


def test_the_share_that_the_verifier_prints_is_that_of_the_depths() -> None:
    """[X-4] Balance and what positions owe, by units."""
    pond, parties = lived(5)
    epoch = epoch_of(pond)
    line = next(each for each in epoch.header.amms if each.pool == "USDC")
    report, _ = verifier.verify(proof_of(Log([epoch.header]), epoch, parties[0].subaccount))

    native = mul_div_down(line.native_balance + line.native_owed, parties[0].units, line.units)
    words = next(each for each in report if each.startswith("  Your units are") and "ROWAN:USDC" in each)
    assert f"{native // ROWAN}." in words
