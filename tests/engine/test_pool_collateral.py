"""Units of liquidity pools that count as collateral, in liquidation: given back, in one order for every node.

[A-6, A-10, C-3, L-2]
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from engine import margin, pools, snapshot
from engine.commands import BorrowLend, ConfigurePool, LendingSide, SetPrices
from engine.parameters import DEC, PRICE_SCALE, RATE_SCALE, PoolParameters
from ledger.chart import available
from ledger.journal import JournalKind
from tests.engine.amm import ROWAN, SOL, USDC, Party, Pond
from tests.engine.exchange import Exchange


def test_units_are_given_back_in_the_same_order_before_and_after_a_snapshot() -> None:
    """Whichever pool came first: a node that began from a snapshot writes the same journal.   [A-6, A-10]"""
    pond, _mallory = with_units_in_three_pools()
    assert list(pond.state.amm_pools) != sorted(pond.state.amm_pools)
    twin = Exchange()
    twin.state, twin.at_us = snapshot.load(snapshot.dump(pond.state)), pond.exchange.at_us

    removed, again = removals(pond.exchange), removals(twin)
    assert [memo[1] for memo, _postings in removed] == sorted(pond.state.amm_pools)
    assert again == removed
    assert snapshot.dump(twin.state) == snapshot.dump(pond.state)


def test_all_units_that_counted_come_back_as_their_share_of_both_sides() -> None:
    """To the atom, and from then on nothing of them counts any more.   [C-3, L-2, X-4]"""
    pond, mallory = with_units_in_three_pools()
    number = mallory.subaccount
    assert margin.pool_collateral_usd(pond.state, number, pond.exchange.at_us) > 0
    shares = {pool_id: pools.share(pool, pool.holders[number].units) for pool_id, pool in pond.state.amm_pools.items()}

    came = {}
    for memo, postings in removals(pond.exchange):
        own = {asset_id: -atoms for account, asset_id, atoms in postings if account == available(number)}
        came[memo[1]] = own.get(pond.rowan, 0), own.get(memo[1], 0)
    assert came == shares and all(native and external for native, external in shares.values())
    assert not any(number in pool.holders for pool in pond.state.amm_pools.values())
    assert margin.pool_collateral_usd(pond.state, number, pond.exchange.at_us) == 0
    assert pond.is_conserved()


def test_positions_of_all_pools_are_oldest_first_after_a_snapshot() -> None:
    """[A-10, X-5]"""
    pond, _mallory = with_units_in_three_pools()
    sally = pond.party("sally", usdc=10_000, sol=100)
    for pays, atoms in (("SOL", SOL), ("USDC", 100 * USDC), ("SOL", SOL)):
        sally.opens("ROWAN", atoms, 2 * DEC, pays=pays)
    assert list(snapshot.load(snapshot.dump(pond.state)).amm_positions) == [1, 2, 3] == list(pond.state.amm_positions)


def with_units_in_three_pools() -> tuple[Pond, Party]:
    """Mallory has 1,000 USDC and units that count for a hundredth, and owes 5 SOL at 100 USD; ETH's pool came last."""
    pond = Pond()
    exchange = pond.exchange
    sol, eth = exchange.asset("SOL"), exchange.asset("ETH")
    prices = ((sol, 100 * PRICE_SCALE), (eth, 100 * PRICE_SCALE), (pond.usdc, PRICE_SCALE), (pond.rowan, PRICE_SCALE))
    exchange.do(SetPrices(prices))
    assert pond.attempt(ConfigurePool(PoolParameters(eth, pond.rowan))).rejection is None
    filler = pond.party("filler", rowan=1_000_000, sol=6_000)
    whole_eth = 10 ** pond.state.assets[eth].decimals
    exchange.deposit(filler.subaccount, "ETH", 5_000 * whole_eth)
    for pool_id, external in ((sol, 5_000 * SOL), (eth, 5_000 * whole_eth)):
        filler.does(replace(filler.addition(500_000 * ROWAN, external), pool_id=pool_id))
    filler.does(BorrowLend(filler.subaccount, sol, LendingSide.LEND, 1_000 * SOL))
    pond.passes(120)
    for pool_id in pond.state.amm_pools:
        pond.set(pool_id, collateral_weight=RATE_SCALE // 100)
    mallory = pond.party("mallory", rowan=900, usdc=1_000)
    mallory.does(BorrowLend(mallory.subaccount, sol, LendingSide.BORROW, 5 * SOL))
    mallory.swaps("SOL", "ROWAN", 5 * SOL)
    for pool_id in pond.state.amm_pools:
        mallory.does(replace(mallory.addition(300 * ROWAN, 0), pool_id=pool_id))
    return pond, mallory


def removals(exchange: Exchange) -> list[tuple[Any, Any]]:
    """(memo, postings) of what is given back once SOL stands at 250 and three seconds have passed."""
    exchange.do(SetPrices(((exchange.asset("SOL"), 250 * PRICE_SCALE),)))
    return [
        (entry.memo, entry.postings)
        for outcome in exchange.advance(3)
        for entry in outcome.journal
        if entry.kind == JournalKind.LIQUIDITY_REMOVED
    ]
