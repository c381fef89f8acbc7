"""The networks of the conformance suite: the simulated chain, and a real anvil node."""

from __future__ import annotations

from collections.abc import Collection

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chains.adapter import BlockRef
from chains.simulated import (
    Behaviour,
    InnerCall,
    Pay,
    Relay,
    SimulatedChain,
    SimulatedNode,
    TransferToken,
    address_of,
)

BEHAVIOURS = {
    "honest": Behaviour.HONEST,
    "returns false": Behaviour.RETURNS_FALSE,
    "lies": Behaviour.LIES,
    "keeps fee": Behaviour.KEEPS_FEE,
    "reverts": Behaviour.REVERTS,
}


class SimulatedNet:
    """The simulated chain; the faucet is the outside wallet."""

    chain_id, family, unit = 1, "simulated", 10**8

    def __init__(self, chain: SimulatedChain | None = None) -> None:
        self.chain = chain or SimulatedChain(seed="test")
        self.network = self.chain.network

    def node(self) -> SimulatedNode:
        return SimulatedNode(self.chain)

    async def deploy(self, name: str, behaviour: str) -> str:
        return self.chain.deploy(name, decimals=18, behaviour=BEHAVIOURS[behaviour])

    async def turn(self, contract: str, behaviour: str) -> None:
        self.chain.turn(contract, BEHAVIOURS[behaviour])

    async def pay(self, recipient: str, amount: int, contract: str = "") -> str:
        return self.chain.faucet(recipient, contract, amount)

    async def relay(self, calls: list[tuple[str, int, bool]], *, fails: bool = False) -> str:
        action = Relay(tuple(InnerCall(*call) for call in calls), reverts=fails)
        return self.chain.send(self.chain._faucet, action)

    async def fail(self, recipient: str, amount: int, contract: str) -> str:
        action = TransferToken(contract, recipient, amount) if contract else Pay(recipient, amount)
        return self.chain.send(self.chain._faucet, action, gas=0)

    async def mine(self, count: int = 1) -> None:
        self.chain.mine(count)

    async def reorg(self, depth: int, *, drop: Collection[str] = (), reinclude: bool = True) -> None:
        self.chain.reorg(depth, drop=drop, reinclude=reinclude)

    async def crowd_out(self) -> None:
        self.chain.set_base_fee(20 * self.chain.base_fee)

    async def balance(self, address: str, contract: str = "", at: BlockRef | None = None) -> int:
        return self.chain.balance(address, contract, at)

    def stranger(self) -> str:
        return address_of(Ed25519PrivateKey.generate())
