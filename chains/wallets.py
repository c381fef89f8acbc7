"""Which address belongs to which wallet: deposit addresses per subaccount and chain, derived once, watched for ever.

Wallet 0 of a chain is its hot wallet, wallet n > 0 the deposit address of subaccount n.   [D-3]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import sqlalchemy as sa

from chains.schema import addresses

HOT_WALLET = 0


class Wallets:
    """The addresses of every chain, kept in `chain_addresses`. `derive` gives the address of a wallet per chain."""

    def __init__(self, engine: sa.Engine, derive: Mapping[int, Callable[[int], str]]) -> None:
        self._engine = engine
        self._derive = derive
        self._owners: dict[int, dict[str, int]] = {chain_id: {} for chain_id in derive}
        self._addresses: dict[tuple[int, int], str] = {}
        self._newest = 0
        self._load()
        for chain_id in derive:
            self._require_same_seed(chain_id)

    def address(self, chain_id: int, wallet: int) -> str:
        """The address of a wallet, derived and put under watch when asked for the first time. Blocking."""
        known = self._addresses.get((chain_id, wallet)) or self._load().get((chain_id, wallet))
        if known is not None:
            return known
        address = self._derive[chain_id](wallet)
        with self._engine.begin() as connection:
            if connection.scalar(self._select(chain_id, wallet)) is None:
                connection.execute(sa.insert(addresses).values(chain_id=chain_id, wallet=wallet, address=address))
        return self._load()[chain_id, wallet]

    def _require_same_seed(self, chain_id: int) -> None:
        """Addresses that were given out must be ours to spend from: another keystore is found at once."""
        stored, derived = self.address(chain_id, HOT_WALLET), self._derive[chain_id](HOT_WALLET)
        if stored != derived:
            raise ValueError(f"chain {chain_id}: the hot wallet is {stored}, this keystore's is {derived}")

    def watched(self, chain_id: int) -> dict[str, int]:
        """Address → wallet of every address ever given out on a chain. Blocking."""
        self._load()
        return self._owners[chain_id]

    def _load(self) -> dict[tuple[int, int], str]:
        """Read the addresses that other threads or processes added since the last time."""
        with self._engine.begin() as connection:
            rows = connection.execute(
                sa.select(addresses).where(addresses.c.id > self._newest).order_by(addresses.c.id)
            ).all()
        for row in rows:
            self._owners.setdefault(row.chain_id, {})[row.address] = row.wallet
            self._addresses[row.chain_id, row.wallet] = row.address
            self._newest = max(self._newest, row.id)
        return self._addresses

    @staticmethod
    def _select(chain_id: int, wallet: int) -> sa.Select[tuple[str]]:
        return sa.select(addresses.c.address).where(addresses.c.chain_id == chain_id, addresses.c.wallet == wallet)


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
