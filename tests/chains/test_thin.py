"""The walking skeleton of the chains: a deposit is credited, a withdrawal is paid."""

from __future__ import annotations

from pathlib import Path

from tests.chains.nets import SimulatedNet
from tests.chains.world import COIN, World, token


async def test_a_deposit_is_credited_and_a_withdrawal_paid(tmp_path: Path) -> None:
    net = SimulatedNet()
    world = World(tmp_path, net, [token(COIN, "SOL", 1, "", 9, 9)])
    await world.fund_hot()
    await net.pay(world.address(7), 500_000_000)
    await world.settle_down()
    assert world.user(7, COIN) == 500_000_000

    stranger = net.stranger()
    withdrawal = world.book.request(7, 1, COIN, 200_000_000, stranger)
    await world.pay_out()

    assert await net.balance(stranger) == 200_000_000
    assert world.book.withdrawal_state(withdrawal) == "paid"
    assert world.user(7, COIN) == 300_000_000
