"""The devnet's faucet: a deposit on the simulated chain, mined and watched until its coins are spendable.   [W-9]"""

from __future__ import annotations

from chains.deposits import State
from chains.simulated import SimulatedChain
from chains.watcher import Watcher

TRIES = 20


async def drip(chain: SimulatedChain, watcher: Watcher, recipient: str, contract: str, amount: int) -> str:
    """Send `amount` base units from the faucet, mine what finality needs, return the transaction id when booked.

    Name the faucet's address in the watcher's `no_minimum_from`: its deposits have no minimum.
    """
    tx_id = chain.faucet(recipient, contract, amount)
    for _ in range(TRIES):
        chain.mine(1 + chain.finality_lag)
        step = await watcher.step()
        if await watcher.states_of(tx_id) & {State.WITHDRAWABLE, State.DUST, State.SWEPT, State.FUNDED}:
            return tx_id
    raise RuntimeError(f"{tx_id} of {amount} to {recipient} was not booked; the watcher says: {step.waiting or 'fine'}")
