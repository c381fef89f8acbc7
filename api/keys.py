"""The node's own keys on disk: the key that signs blocks, older and newer ones after a rotation, the epochs' secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ledger.signing import KeyFileError, Signer, generate, key_id, read_key_file, write_key_file

FOLDER = "keys"


class Keyring:
    """Key files under `DATA/keys`, one per public key, encrypted unless `passphrase` is None.   [A-4, D-10]"""

    def __init__(self, data: Path, passphrase: str | None) -> None:
        self.folder = data / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._passphrase = passphrase

    def new_exchange_key(self) -> Signer:
        """A fresh key for signing blocks, written down before it is used."""
        signer = generate()
        write_key_file(self._path(signer.public_key), signer, self._passphrase)
        return signer

    def exchange_key(self, public_key: bytes) -> Signer:
        """The key pair of this public key; KeyFileError says which file is missing."""
        path = self._path(public_key)
        if not path.exists():
            raise KeyFileError(f"{path} is missing: the log must be continued with the key {key_id(public_key)}")
        return read_key_file(path, self._passphrase)

    def holds(self, public_key: bytes) -> bool:
        """Whether the key's file is here, so that the exchange could sign with it."""
        return self._path(public_key).exists()

    def signing(self, public_key: bytes) -> Callable[[bytes], bytes]:
        return self.exchange_key(public_key).sign

    def epoch_secret(self) -> bytes:
        """The master secret that leaf salts are derived from; made on first use, kept like a key.   [R-3]"""
        path = self.folder / "epoch-secret.key"
        if not path.exists():
            write_key_file(path, generate(), self._passphrase)
        return read_key_file(path, self._passphrase).seed

    def _path(self, public_key: bytes) -> Path:
        return self.folder / f"exchange-{key_id(public_key)}.key"
