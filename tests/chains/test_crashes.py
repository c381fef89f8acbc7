"""Killed at every await point: each deposit is credited once, each withdrawal paid once, everything reconciles.

[D-4, D-8]
"""

from __future__ import annotations

from pathlib import Path

from chains import schema
from tests.chains.conftest import MakeWorld
from tests.chains.killing import KilledAt, one_thread, quiet
from tests.chains.nets import SimulatedNet
from tests.chains.world import COIN, GOLD, Net, World, token

ALICE = 7


def stride(net: Net) -> int:
    """Every await point of the simulated chain; every third of a real node, whose calls have more of the same kind."""
    return 1 if net.family == "simulated" else 3


def make(tmp_path: Path) -> tuple[SimulatedNet, World]:
    net = SimulatedNet()
    gold = net.chain.deploy("GOLD", decimals=12)
    tokens = [token(COIN, "COIN", 1, "", 9, 9), token(GOLD, "GOLD", 1, gold, 12, 9)]
    return net, World(tmp_path, net, tokens)


async def test_a_deposit_is_credited_once_wherever_the_watcher_dies(net: Net, make_world: MakeWorld) -> None:
    one_thread()
    world = await make_world()
    gold = world.tokens[1].contract
    await world.watcher.step()
    sent, point, finished = 0, 0, False
    while not finished:
        point += stride(net)
        await net.pay(world.address(ALICE), 10**9 + point, gold)
        sent += 10**9 + point
        await net.mine(6)
        finished = await KilledAt(world.watcher.step(), point)
        await quiet()
        world.restart()
    await world.watcher.step()

    assert point > 15, "a step has many await points"
    dust = int(world.rows(schema.dust)[0].base)
    assert world.user(ALICE, GOLD) * 10**9 + dust == sent
    assert set(world.states()) == {"withdrawable"}
    assert (await world.reconcile()).breaks == []


async def test_credits_survive_death_during_reorgs(tmp_path: Path) -> None:
    one_thread()
    net, world = make(tmp_path)
    await net.mine(5)
    await world.watcher.step()
    for point in range(1, 60):
        await net.pay(world.address(ALICE), 1_000_000)
        await net.mine(2)
        await world.watcher.step()
        await net.reorg(2, reinclude=point % 2 == 0)
        await KilledAt(world.watcher.step(), point % 30)
        await quiet()
        world.restart()
        await net.mine(1)
        await world.watcher.step()
    await world.settle_down()

    assert world.user(ALICE, COIN) == await net.balance(world.address(ALICE)) == 59 * 1_000_000
    assert set(world.states()) == {"withdrawable"}
    assert (await world.reconcile()).breaks == []


async def test_a_withdrawal_is_paid_once_wherever_the_payouts_die(net: Net, make_world: MakeWorld) -> None:
    one_thread()
    world = await make_world()
    await net.pay(world.address(0), 100 * net.unit)
    await net.pay(world.address(ALICE), 100 * net.unit)
    await world.settle_down()
    strangers = []
    point, finished = 0, False
    while not finished:
        point += stride(net)
        strangers.append(net.stranger())
        world.book.request(ALICE, net.chain_id, COIN, 1_000 + point, strangers[-1])
        await net.mine()
        finished = await KilledAt(world.payouts.step(), point)
        await quiet()
        world.restart()
        await world.watcher.step()
    await world.pay_out()

    assert point > 30, "a step has many await points"
    assert world.book.pending_withdrawals() == []
    unit = net.unit // 10**8
    assert [await net.balance(stranger) for stranger in strangers] == [
        (1_000 + n) * unit for n in range(stride(net), point + 1, stride(net))
    ]
    assert (await world.reconcile()).breaks == []


async def test_sweeps_happen_once_wherever_the_sweeper_dies(tmp_path: Path) -> None:
    one_thread()
    net, world = make(tmp_path)
    await net.pay(world.address(0), 100 * net.unit)
    wallets = range(1, 13)
    for wallet in wallets:
        await net.pay(world.address(wallet), 10**12 + wallet, "GOLD")
    await world.settle_down()
    for point in range(1, 200, 3):
        await KilledAt(world.sweeper.step(), point)
        await quiet()
        world.restart()
        await net.mine()
        await world.watcher.step()
    await world.sweep(8)

    assert world.book.ledger_balance(1, 0, GOLD) == 12 * 10**9
    assert await net.balance(world.address(0), "GOLD") == 12 * 10**12
    assert set(world.states()) <= {"swept", "funded", "internal"}
    sweeps = [row for row in world.rows(schema.nonces) if row.purpose == "sweep"]
    assert len(sweeps) == 12
    assert (await world.reconcile()).breaks == []
