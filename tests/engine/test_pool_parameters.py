"""Liquidity pools by command: every range refused with both numbers, assets for ever, changes under open positions.

[X, X-14, W-7]
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from engine import pool_positions, pools, snapshot
from engine.commands import ConfigurePool
from engine.events import PoolConfigured
from engine.parameters import DEC, MAX_DEC, NO_LIMIT_ATOMS, PoolParameters, PoolState
from engine.rejections import RejectReason
from ledger.journal import JournalKind
from tests.engine.amm import HOUR, ROWAN, USDC, Pond

SECOND, DAY = 10**6, 24 * HOUR * 10**6

RANGES: dict[str, tuple[int, int]] = {
    "fee_rate": (0, DEC // 2),
    "native_fee_rate": (-1, DEC // 2),
    "external_fee_rate": (-1, DEC // 2),
    "running_rate": (0, MAX_DEC),
    "leverage_max": (DEC, MAX_DEC),
    "rate_min": (0, DEC // 1_000),
    "rate_max": (DEC // 10**6, DEC),
    "rate_increase": (0, DEC),
    "rate_decrease": (0, DEC),
    "gain_factor": (0, MAX_DEC),
    "epoch_us": (SECOND, DAY),
    "open_threshold": (0, DEC),
    "removal_threshold": (0, DEC),
    "safety_factor": (DEC, MAX_DEC),
    "interest_fund_share": (0, DEC),
    "close_fund_share": (0, DEC),
    "max_positions": (0, 1_000_000),
    "lent_max": (0, DEC),
    "price_move_max": (0, DEC),
    "price_mean_us": (SECOND, DAY),
    "min_native": (1, NO_LIMIT_ATOMS),
    "max_atoms": (ROWAN, NO_LIMIT_ATOMS),
    "collateral_weight": (0, 10**9),
}
"""What each parameter may be; `rate_min` and `rate_max` bound each other, `max_atoms` is `min_native` at least."""


@pytest.mark.parametrize("field", RANGES)
def test_a_parameter_is_taken_up_to_both_ends_and_refused_beyond(field: str) -> None:
    """Refused with the value and what it may be; nothing changes.   [X]"""
    pond = Pond(10, 10)
    before = pond.pool.parameters
    least, most = RANGES[field]
    for value in (least - 1, most + 1, -(2**63), 2**64 - 1):
        if least <= value <= most:
            continue
        rejection = pond.set(**{field: value}).rejection
        assert rejection is not None and rejection.reason is RejectReason.INVALID_PARAMETERS, value
        facts = rejection.facts
        assert facts["field"] in (field, "rate_min", "max_atoms") and "value" in facts
        assert {"least", "most"} <= set(facts)
        if facts["field"] == field != "rate_max":
            assert (facts["value"], facts["least"], facts["most"]) == (value, least, most)
        assert pond.pool.parameters is before
    for value in (least, most):
        outcome = pond.set(**{field: value})
        assert outcome.rejection is None, outcome.rejection
        assert getattr(pond.pool.parameters, field) == value
        assert PoolConfigured(pond.usdc) in outcome.events
        assert [entry.kind for entry in outcome.journal] == [JournalKind.POOL_CONFIGURED]
        assert pond.set(**{field: getattr(before, field)}).rejection is None
    assert pond.is_conserved()


def test_every_parameter_with_a_number_has_its_range() -> None:
    """A new one must be in the table above, and is refused outside it."""
    usual = PoolParameters(1, 2)
    whether = {name for name in usual.__struct_fields__ if isinstance(getattr(usual, name), bool)}
    assert set(usual.__struct_fields__) - whether - {"pool_id", "native_asset_id", "state"} == set(RANGES)


def test_the_two_assets_stay_for_ever() -> None:
    """One native asset for all pools; a pool is its external asset.   [X-2]"""
    pond = Pond()
    sol, eth = pond.exchange.asset("SOL"), pond.exchange.asset("ETH")
    before = {number: pool.parameters for number, pool in pond.state.amm_pools.items()}
    for parameters in (
        replace(pond.pool.parameters, native_asset_id=sol),
        PoolParameters(eth, sol),
        PoolParameters(eth, pond.usdc),
        PoolParameters(pond.rowan, sol),
    ):
        rejection = pond.attempt(ConfigurePool(parameters)).rejection
        assert rejection is not None and rejection.reason is RejectReason.IMMUTABLE_PARAMETER
        assert (rejection.facts["before"], rejection.facts["after"]) == (pond.rowan, parameters.native_asset_id)
    assert {number: pool.parameters for number, pool in pond.state.amm_pools.items()} == before


@pytest.mark.parametrize("asset", [0, -1, 99, 2**24, 2**63, 2**64])
def test_a_pool_of_unknown_assets_is_refused(asset: int) -> None:
    """[X]"""
    pond = Pond()
    usdc, rowan = pond.usdc, pond.rowan
    for parameters in (PoolParameters(asset, rowan), PoolParameters(usdc, asset), PoolParameters(asset, asset)):
        rejection = pond.attempt(ConfigurePool(parameters)).rejection
        assert rejection is not None and rejection.reason is RejectReason.UNKNOWN_ASSET
        assert rejection.facts["asset_id"] == asset


def test_a_pool_of_an_asset_with_itself_is_refused() -> None:
    """[X-5, X-15]"""
    pond = Pond()
    rejection = pond.attempt(ConfigurePool(PoolParameters(pond.rowan, pond.rowan))).rejection
    assert rejection is not None and rejection.reason is RejectReason.POOL_PAIR


def test_a_new_pool_opens_by_command_and_works() -> None:
    """[X]"""
    pond = Pond()
    eth = pond.exchange.asset("ETH")
    assert pond.attempt(ConfigurePool(PoolParameters(eth, pond.rowan))).rejection is None
    pond.exchange.deposit(pond.lp.subaccount, "ETH", 10**12)
    pond.exchange.deposit(pond.lp.subaccount, "ROWAN", 10**15)
    pond.lp.does(replace(pond.lp.addition(10**15, 10**12), pool_id=eth))
    trader = pond.party("trader", usdc=100)
    assert trader.swaps("USDC", "ETH", 100 * USDC).hop == 2
    assert pond.is_conserved()


CHANGES: tuple[dict[str, Any], ...] = (
    {"fee_rate": DEC // 2},
    {"fee_rate": 0, "running_rate": DEC},
    {"leverage_max": DEC},
    {"is_margined": False},
    {"takes_native_collateral": False},
    {"rate_min": DEC // 100, "rate_max": DEC // 100},
    {"pays_each_epoch": False},
    {"epoch_us": 7 * SECOND},
    {"epoch_us": DAY},
    {"safety_factor": MAX_DEC},
    {"interest_fund_share": DEC},
    {"close_fund_share": 0, "safety_factor": MAX_DEC},
    {"max_positions": 0},
    {"lent_max": 1},
    {"max_atoms": ROWAN},
    {"removal_threshold": DEC},
    {"open_threshold": DEC},
    {"price_move_max": 1, "price_mean_us": DAY},
    {"collateral_weight": 10**9},
    {"state": PoolState.NO_OPENS},
    {"state": PoolState.LEAVE_ONLY},
)


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: " ".join(changes))
def test_a_change_under_open_positions_keeps_what_they_are(changes: dict[str, Any]) -> None:
    """X-14 holds through the change, the epochs after it and the way out.   [X-14]"""
    pond = Pond(rate_min=DEC // 10_000, rate_max=DEC // 1_000)
    sally = pond.party("sally", rowan=10_000, usdc=10_000)
    sally.opens("ROWAN", 1_000 * USDC, 5 * DEC)
    sally.opens("USDC", 1_000 * ROWAN, 5 * DEC)
    pond.until_epoch()
    before = pools.view(pond.pool)
    assert pond.set(**changes).rejection is None
    assert pools.view(pond.pool) == before
    events = pond.passes(25 * HOUR if changes.get("epoch_us") == DAY else 3 * HOUR)
    assert events, "no epoch ran"
    pools.require_identities(pond.state, pond.pool)
    pools.require_positions(pond.pool)
    assert snapshot.dump(snapshot.load(snapshot.dump(pond.state))) == snapshot.dump(pond.state)
    pond.set(price_move_max=0)
    for position in list(pond.pool.positions.values()):
        sally.does(sally.close(position.position_id))
    assert not pond.pool.positions and pond.pool.native_owed == pond.pool.external_owed == 0
    pond.lp.removes(basis_points=10_000)
    assert (pond.pool.native_balance, pond.pool.external_balance, pond.pool.units) == (0, 0, 0)
    assert pond.is_conserved()


def test_a_shorter_epoch_begins_at_its_next_multiple_and_a_longer_one_too() -> None:
    """[X-8]"""
    pond = Pond()
    for length in (60 * SECOND, 2 * HOUR * 10**6, DAY, 7 * SECOND, HOUR * 10**6):
        pond.set(epoch_us=length)
        next_us = pond.pool.next_epoch_us
        assert next_us % length == 0 and pond.exchange.at_us < next_us <= pond.exchange.at_us + length
        assert pond.state.amm_epoch_due_us == next_us
    pond.set(state=PoolState.HALTED)
    assert pond.pool.next_epoch_us == pond.state.amm_epoch_due_us == 0


def test_a_longer_epoch_does_not_charge_the_part_before_it_was_longer_twice() -> None:
    """The part of an epoch that a close pays is counted from the last multiple of the length.   [X-10]"""
    pond = Pond(rate_min=DEC // 1_000, rate_max=DEC // 1_000)
    sally = pond.party("sally", usdc=1_000)
    sally.opens("ROWAN", 100 * USDC, 2 * DEC)
    pond.until_epoch()
    pond.passes(600)
    quote = pool_positions.quote_close(pond.state, sally.position, pond.exchange.at_us + 1)
    closed = sally.closes(min_received=quote.returned)
    assert closed.returned_atoms == quote.returned and closed.repaid_atoms == quote.repaid
