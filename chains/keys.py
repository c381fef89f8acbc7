"""Key derivation from one master seed: Ed25519 by SLIP-0010, EVM by BIP-44. Only the signer may import this.   [D-3]"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HARDENED = 1 << 31


def ed25519_key(seed: bytes, wallet: int) -> Ed25519PrivateKey:
    """m/44'/501'/wallet'/0': every step hardened, because Ed25519 has no public derivation."""
    digest = hmac.digest(b"ed25519 seed", seed, "sha512")
    for step in (44, 501, wallet, 0):
        data = b"\0" + digest[:32] + (HARDENED + step).to_bytes(4, "big")
        digest = hmac.digest(digest[32:], data, hashlib.sha512)
    return Ed25519PrivateKey.from_private_bytes(digest[:32])


def evm_key(seed: bytes, wallet: int) -> bytes:
    """m/44'/60'/0'/0/wallet: the secp256k1 private key of a wallet."""
    return bytes(_evm_chain(seed).AddressIndex(wallet).PrivateKey().Raw().ToBytes())


def evm_public_root(seed: bytes) -> str:
    """The extended public key m/44'/60'/0'/0, from which addresses are derived without any private key."""
    return str(_evm_chain(seed).PublicKey().ToExtended())


def _evm_chain(seed: bytes) -> Any:
    from bip_utils import Bip44, Bip44Changes, Bip44Coins

    return Bip44.FromSeed(seed, Bip44Coins.ETHEREUM).Purpose().Coin().Account(0).Change(Bip44Changes.CHAIN_EXT)
