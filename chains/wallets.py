"""Which address belongs to which wallet: deposit addresses per subaccount and chain, derived once, watched for ever.

Wallet 0 of a chain is its hot wallet, wallet n > 0 the deposit address of subaccount n.   [D-3]
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol

import sqlalchemy as sa

from chains.adapter import ChainError
from chains.schema import addresses

HOT_WALLET = 0


class WrongAddress(ChainError):
    """The database has another address for a wallet than its keys give: nothing is done with it.   [D-3]"""


class Wallets:
    """The addresses of every chain, kept in `chain_addresses`. `derive` gives the address of a wallet per chain.

    The table says which addresses were given out, never what they are: each is derived again before it is used.
    """

    def __init__(self, engine: sa.Engine, derive: Mapping[int, Callable[[int], str]]) -> None:
        self._engine = engine
        self._derive = derive
        self._lock = threading.Lock()
        self._owners: dict[int, dict[str, int]] = {chain_id: {} for chain_id in derive}
        self._addresses: dict[tuple[int, int], str] = {}
        self._derived: dict[tuple[int, int], str] = {}
        with engine.begin() as connection:
            for row in connection.execute(sa.select(addresses)):
                self._watch(row.chain_id, row.wallet, row.address)
        for chain_id in derive:
            self._require_same_seed(chain_id)

    def address(self, chain_id: int, wallet: int) -> str:
        """The address of a wallet, derived and put under watch when asked for the first time. Blocking.   [D-3]"""
        address = self.derived(chain_id, wallet)
        known = self._addresses.get((chain_id, wallet))
        if known is not None:
            if known != address:
                raise WrongAddress(f"chain {chain_id} wallet {wallet}: stored {known}, its keys give {address}")
            return known
        with self._lock:
            if (chain_id, wallet) not in self._addresses:
                row = {"chain_id": chain_id, "wallet": wallet, "address": address}
                with self._engine.begin() as connection:
                    connection.execute(sa.insert(addresses).values(row))
                # Nobody hears of an address before it is durable and watched.
                self._watch(chain_id, wallet, address)
        return self._addresses[chain_id, wallet]

    def derived(self, chain_id: int, wallet: int) -> str:
        """What a wallet's keys give, whatever the database says; worked out once per process.   [D-3]"""
        if (chain_id, wallet) not in self._derived:
            self._derived[chain_id, wallet] = self._derive[chain_id](wallet)
        return self._derived[chain_id, wallet]

    def watched(self, chain_id: int) -> Mapping[str, int]:
        """Address → wallet of every address ever given out on a chain."""
        return self._owners[chain_id]

    def _watch(self, chain_id: int, wallet: int, address: str) -> None:
        self._owners.setdefault(chain_id, {})[address] = wallet
        self._addresses[chain_id, wallet] = address

    def _require_same_seed(self, chain_id: int) -> None:
        """Addresses that were given out must be ours to spend from: another keystore is found at once."""
        derived = self.derived(chain_id, HOT_WALLET)
        stored = self._addresses.get((chain_id, HOT_WALLET)) or self.address(chain_id, HOT_WALLET)
        if stored != derived:
            raise ValueError(f"chain {chain_id}: the hot wallet is {stored}, this keystore's is {derived}")


class Derivation(Protocol):
    """The public half of the signer: what a wallet's address is."""

    def address(self, family: str, wallet: int) -> str: ...

    def public_root(self, family: str) -> str: ...


def simulated_derivation(signer: Derivation) -> Callable[[int], str]:
    """Addresses of the simulated chain. Ed25519 has no public derivation, so the signer is asked for each."""
    return lambda wallet: signer.address("simulated", wallet)


def evm_derivation(public_root: str) -> Callable[[int], str]:
    """Checksummed EVM addresses from an extended public key alone: no private key takes part."""
    from bip_utils import Bip32Secp256k1, EthAddrEncoder

    root = Bip32Secp256k1.FromExtendedKey(public_root)
    return lambda wallet: str(EthAddrEncoder.EncodeKey(root.ChildKey(wallet).PublicKey().KeyObject()))
