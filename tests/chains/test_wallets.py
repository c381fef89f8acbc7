"""Deposit addresses: one per subaccount and chain, the same for ever, watched for ever. [D-3]"""

from __future__ import annotations

from pathlib import Path

from chains.signer import EVM, SIMULATED, Policy, Signer, create_keystore
from chains.wallets import Wallets, evm_derivation, simulated_derivation
from ledger.database import open_engine, upgrade

CHAIN, ETHEREUM = 1, 2


def test_addresses_differ_by_subaccount_and_chain_and_outlive_a_restart(tmp_path: Path) -> None:
    """[D-3]"""
    keystore = tmp_path / "wallets.json"
    create_keystore(keystore, None)
    policies = {CHAIN: Policy(SIMULATED, "net", {}, 1), ETHEREUM: Policy(EVM, "1", {}, 1)}

    def opened() -> Wallets:
        signer = Signer(keystore, passphrase=None, policies=policies, clock_us=lambda: 0)
        derive = {CHAIN: simulated_derivation(signer), ETHEREUM: evm_derivation(signer.public_root(EVM))}
        return Wallets(database, derive)

    database = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    upgrade(database)
    wallets = opened()
    given = {(chain, wallet): wallets.address(chain, wallet) for chain in (CHAIN, ETHEREUM) for wallet in (1, 2, 3)}
    again = opened()

    assert len(set(given.values())) == 6
    assert all(again.watched(chain)[address] == wallet for (chain, wallet), address in given.items())
    assert all(again.address(chain, wallet) == address for (chain, wallet), address in given.items())
    database.dispose()
