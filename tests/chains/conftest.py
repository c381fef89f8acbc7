"""The two networks, and an exchange on each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chains.nets import SimulatedNet
from tests.chains.world import COIN, GOLD, Net, World, token


@pytest.fixture(params=["simulated", pytest.param("anvil", marks=pytest.mark.node)])
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Net]:
    """Every conformance test runs on the simulated chain and on a real EVM node."""
    if request.param == "simulated":
        yield SimulatedNet()
        return
    pytest.importorskip("web3")
    from tests.chains.anvil_net import AnvilNet

    factory = request.getfixturevalue("anvil_factory")
    node = AnvilNet(factory("--no-mining", "--order", "fees").url)
    yield node
    await node.close()


MakeWorld = Callable[..., Any]


@pytest.fixture
def make_world(net: Net, tmp_path: Path) -> MakeWorld:
    """An exchange that lists the native coin and one token, GOLD, of a given behaviour."""

    async def make(behaviour: str = "honest", *, minimum: int = 0, **options: Any) -> World:
        gold = await net.deploy("GOLD", behaviour)
        decimals = 9 if net.family == "simulated" else 18
        tokens = [
            token(COIN, "COIN", net.chain_id, "", decimals, 9, minimum=minimum),
            token(GOLD, "GOLD", net.chain_id, gold, 18, 9, minimum=minimum),
        ]
        return World(tmp_path, net, tokens, **options)

    return make
