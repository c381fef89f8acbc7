"""A process to be killed: deposits, withdrawals and sweeps for ever on a simulated chain that is kept in a file."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from chains.simulated import SimulatedChain
from tests.chains.nets import SimulatedNet
from tests.chains.world import COIN, World, token

ALICE = 7


def open_world(folder: Path) -> tuple[SimulatedNet, World]:
    net = SimulatedNet(SimulatedChain(folder / "chain.db", seed="victim"))
    return net, World(folder, net, [token(COIN, "COIN", 1, "", 9, 9)])


async def live(folder: Path) -> None:
    net, world = open_world(folder)
    if net.chain.height == 0:
        await net.pay(world.address(0), 10**12)
        await net.pay(world.address(ALICE), 10**12)
        await world.settle_down()
    (folder / "started").touch()
    amount = net.chain.height
    while True:
        amount += 1
        await net.pay(world.address(amount % 5 + 1), 10**8 + amount)
        world.book.request(ALICE, 1, COIN, amount, net.stranger())
        await net.mine()
        if amount % 7 == 0:
            await net.reorg(2, reinclude=amount % 2 == 0)
        await world.watcher.step()
        await world.payouts.step()
        await world.sweeper.step()


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1])))
