"""Faults of nodes never lose or duplicate anything; several nodes must agree before a credit.   [D-12]"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chains import schema
from chains.simulated import Faults, SimulatedNode
from tests.chains.conftest import MakeWorld
from tests.chains.flaky import SPOILED, FaultyProxy, Flaky, Interrupted
from tests.chains.nets import SimulatedNet
from tests.chains.world import COIN, Net, World, token

ALICE = 7


def simulated(tmp_path: Path, *faults: Faults, quorum: int | None = None) -> tuple[SimulatedNet, World]:
    net = SimulatedNet()
    nodes = [SimulatedNode(net.chain, 1, fault) for fault in faults]
    return net, World(tmp_path, net, [token(COIN, "COIN", 1, "", 9, 9)], nodes=nodes, quorum=quorum)


async def test_whichever_answer_is_lost_the_deposit_is_credited_once(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await world.watcher.step()
    lost, sent = 0, 0
    while True:
        lost += 1
        flaky = Flaky(net.node(), lost)
        world.nodes[:] = [flaky]
        world.restart()
        await net.pay(world.address(ALICE), net.unit)
        sent += 1
        await net.mine(6)
        step = await world.watcher.step()
        assert bool(step.waiting) or not flaky.broken or step.credited
        if not flaky.broken:
            break
    await world.watcher.step()

    assert lost > 8, "a step has many calls"
    assert world.user(ALICE, COIN) == sent * 10**8
    assert set(world.states()) == {"withdrawable"}


async def test_a_reorg_in_the_middle_of_a_step_is_seen(net: Net, make_world: MakeWorld) -> None:
    world = await make_world()
    await net.mine(3)
    await world.watcher.step()
    point, expected = 0, 0
    while True:
        point += 1
        kept = await net.pay(world.address(ALICE), net.unit + point * 10**9)
        await net.mine()
        gone = await net.pay(world.address(ALICE), 7 * net.unit)
        await net.mine()
        assert kept != gone
        expected += (net.unit + point * 10**9) // (net.unit // 10**8)
        await world.watcher.step()
        await net.mine()
        meddling = Interrupted(net.node(), point, partial(net.reorg, 3, drop=[gone]))
        world.nodes[:] = [meddling]
        world.restart()
        await world.watcher.step()
        if not meddling.happened:
            await net.reorg(3, drop=[gone])
            break
        world.nodes[:] = [net.node()]
        world.restart()
        await world.watcher.step()
    await world.settle_down(20)

    assert point > 6
    assert world.user(ALICE, COIN) == expected
    assert set(world.states()) <= {"withdrawable", "orphaned", "reversed"}
    assert await net.balance(world.address(ALICE)) == expected * (net.unit // 10**8)


@pytest.mark.parametrize("after_sending", [False, True], ids=["call lost", "reply lost"])
async def test_whichever_answer_is_lost_the_payout_is_made_once(
    net: Net, make_world: MakeWorld, after_sending: bool
) -> None:
    world = await make_world()
    await net.pay(world.address(0), 100 * net.unit)
    await net.pay(world.address(ALICE), 100 * net.unit)
    await world.settle_down()
    lost, strangers = 0, []
    while True:
        lost += 1
        strangers.append(net.stranger())
        world.book.request(ALICE, net.chain_id, COIN, 1_000_000 + lost, strangers[-1])
        flaky = Flaky(net.node(), lost, after_sending=after_sending)
        world.nodes[:] = [flaky]
        world.restart()
        await world.payouts.step()
        await net.mine()
        if not flaky.broken:
            break
    await world.pay_out()

    unit = net.unit // 10**8
    assert lost > 8
    assert world.book.pending_withdrawals() == []
    assert [await net.balance(stranger) for stranger in strangers] == [
        (1_000_001 + n) * unit for n in range(len(strangers))
    ]


@pytest.mark.node
@pytest.mark.parametrize("fault", ["timeout", "html", "http 500", *SPOILED])
async def test_a_spoiled_answer_of_a_real_node_never_passes_a_block(
    fault: str, tmp_path: Path, anvil_factory: Callable[..., Any]
) -> None:
    pytest.importorskip("web3")
    from chains.evm import EvmNode
    from tests.chains.anvil_net import AnvilNet

    net = AnvilNet(anvil_factory("--no-mining", "--order", "fees").url)
    async with FaultyProxy(net.url) as proxy:
        node = EvmNode(proxy.url, timeout_seconds=0.5)
        world = World(tmp_path, net, [token(COIN, "ETH", 2, "", 18, 9)], nodes=[node])
        await net.mine(2)
        await world.watcher.step()
        before = world.rows(schema.cursors)[0].height
        await net.pay(world.address(ALICE), net.unit)
        await net.pay(world.address(ALICE), net.unit)
        await net.mine(6)
        proxy.fault = fault
        step = await world.watcher.step()
        assert step.waiting
        assert world.rows(schema.cursors)[0].height == before

        proxy.fault = ""
        await world.watcher.step()
        assert world.user(ALICE, COIN) == 2 * 10**8
        await node.close()


async def test_a_stale_node_waits_and_unwinds_nothing(tmp_path: Path) -> None:
    faults = Faults()
    net, world = simulated(tmp_path, faults)
    await net.pay(world.address(ALICE), net.unit)
    await net.mine(3)
    await world.watcher.step()
    faults.behind = 2
    step = await world.watcher.step()
    assert "behind" in step.waiting
    assert step.unwound == 0
    assert world.user(ALICE, COIN) == 10**8

    faults.behind = 0
    await world.settle_down()
    assert world.states() == ["withdrawable"]
    assert world.book.frozen == set()


async def test_two_heads_behind_one_address_credit_once(tmp_path: Path) -> None:
    faults = Faults(second_head=True)
    net, world = simulated(tmp_path, faults)
    for _ in range(20):
        await net.pay(world.address(ALICE), 1_000_000)
        await net.mine()
        await world.watcher.step()
    faults.second_head = False
    await world.settle_down()

    assert world.user(ALICE, COIN) == 20_000_000
    assert set(world.states()) == {"withdrawable"}


async def test_a_node_on_another_network_is_not_read(tmp_path: Path) -> None:
    faults = Faults()
    net, world = simulated(tmp_path, faults)
    await world.watcher.step()
    faults.network = "simulated:elsewhere"
    await net.pay(world.address(ALICE), net.unit)
    await net.mine(8)
    step = await world.watcher.step()
    assert "WrongChain" in step.waiting
    assert world.rows(schema.cursors)[0].height == 0
    assert (await world.payouts.step()).waiting

    faults.network = None
    await world.settle_down()
    assert world.user(ALICE, COIN) == 10**8


async def test_a_credit_needs_every_node_that_was_asked_for(tmp_path: Path) -> None:
    behind = Faults(behind=3)
    net, world = simulated(tmp_path, Faults(), behind)
    await net.pay(world.address(ALICE), net.unit)
    await net.mine(3)
    await world.watcher.step()
    assert world.user(ALICE, COIN) == 0, "the second node has not seen it"

    behind.behind = 0
    await world.watcher.step()
    assert world.user(ALICE, COIN) == 10**8


async def test_one_node_alone_cannot_make_a_deposit_final(tmp_path: Path) -> None:
    behind = Faults(behind=3)
    net, world = simulated(tmp_path, Faults(), behind)
    await net.pay(world.address(ALICE), net.unit)
    await net.mine(6)
    await world.watcher.step()
    assert world.states() == ["credited"], "two blocks deep for both, final for one"

    behind.behind = 0
    await world.watcher.step()
    assert world.states() == ["withdrawable"]


async def test_two_of_three_nodes_are_enough_when_two_are_asked_for(tmp_path: Path) -> None:
    dead = Faults(timeouts=10**6)
    net, world = simulated(tmp_path, Faults(), Faults(), dead, quorum=2)
    await net.pay(world.address(ALICE), net.unit)
    await net.mine(3)
    await world.watcher.step()

    assert world.user(ALICE, COIN) == 10**8


async def test_one_node_alone_cannot_orphan_a_credit(tmp_path: Path) -> None:
    """The first node is led onto a fork; the second still has our block, so nothing is unwound."""
    net, world = simulated(tmp_path, Faults(), Faults())
    await net.mine(3)
    await net.pay(world.address(ALICE), net.unit)
    await net.mine(3)
    await world.watcher.step()
    assert world.states() == ["credited"]
    fork = SimulatedNet()
    fork.chain.mine(8)
    world.nodes[0]._chain = fork.chain
    step = await world.watcher.step()

    assert "disagree" in step.waiting
    assert world.states() == ["credited"]
    assert world.book.frozen == set()


async def test_a_reorg_below_what_was_final_halts(tmp_path: Path) -> None:
    net, world = simulated(tmp_path, Faults())
    await net.mine(12)
    await world.watcher.step()
    await world.watcher.step()
    await net.reorg(8)
    step = await world.watcher.step()

    assert "final" in step.waiting
    assert "halted" in world.alarm_kinds()
    assert (await world.watcher.step()).waiting == step.waiting
