"""Ed25519: the exchange's keys on disk, its signature on blocks, and the check of anybody's signature.   [A-4, A-5]"""

from __future__ import annotations

import base64
import json
import os
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl import pwhash
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

KEY_FILE_FORMAT = "satchel key v1"
_MEMORY_LIMIT = 1 << 30
"""A key file that asks for more memory than this is not one of ours."""


class KeyFileError(Exception):
    """A key file that cannot be used; says which file and why."""


@dataclass(frozen=True)
class Signer:
    """One Ed25519 key pair: 32-byte public key, 64-byte signatures."""

    public_key: bytes
    _secret: bytes = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        return crypto_sign(message, self._secret)[:64]

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes the pair is made of."""
        return self._secret[:32]


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is this key's on `message`; False, never an exception, for what is no key or signature."""
    if len(signature) != 64 or len(public_key) != 32:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def key_text(public_key: bytes) -> str:
    """A public key as people read it and as options and the wire take it: base64."""
    return base64.b64encode(public_key).decode()


def generate() -> Signer:
    return signer_from_seed(token_bytes(32))


def signer_from_seed(seed: bytes) -> Signer:
    public_key, secret = crypto_sign_seed_keypair(seed)
    return Signer(public_key, secret)


def key_id(public_key: bytes) -> str:
    """A short name for a key: the first eight bytes of its SHA-256, in hex."""
    return sha256(public_key).hexdigest()[:16]


def write_key_file(path: Path, signer: Signer, passphrase: str | None) -> None:
    """Keep a key in a new file of mode 0600, encrypted unless `passphrase` is None (which is for a devnet).

    argon2id turns the passphrase into an AES-256-GCM key; the public key is authenticated with the seed, so that a
    file cannot be passed off as another key's. An existing file is never overwritten.
    """
    content: dict[str, Any] = {
        "format": KEY_FILE_FORMAT,
        "keyId": key_id(signer.public_key),
        "publicKey": _text(signer.public_key),
    }
    if passphrase is None:
        content["seed"] = _text(signer.seed)
    else:
        salt, nonce = token_bytes(pwhash.argon2id.SALTBYTES), token_bytes(12)
        operations, memory = pwhash.argon2id.OPSLIMIT_MODERATE, pwhash.argon2id.MEMLIMIT_MODERATE
        secret = pwhash.argon2id.kdf(32, passphrase.encode(), salt, opslimit=operations, memlimit=memory)
        sealed = AESGCM(secret).encrypt(nonce, signer.seed, _associated(signer.public_key))
        content |= {
            "kdf": "argon2id",
            "operations": operations,
            "memory": memory,
            "salt": _text(salt),
            "nonce": _text(nonce),
            "sealedSeed": _text(sealed),
        }
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path} exists: a key is never overwritten") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_key_file(path: Path, passphrase: str | None = None) -> Signer:
    """The key in a file; KeyFileError when the passphrase is missing or wrong, or the file is not as it was written."""
    try:
        content = json.loads(path.read_text("ascii"))
        if content["format"] != KEY_FILE_FORMAT:
            raise KeyFileError(f"{path}: format {content['format']!r}, expected {KEY_FILE_FORMAT!r}")
        public_key = _bytes(content["publicKey"])
        seed = _plain_seed(path, content) if "seed" in content else _unseal(path, content, public_key, passphrase)
        signer = signer_from_seed(seed)
    except KeyFileError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeyFileError(f"{path}: not a readable key file ({type(error).__name__}: {error})") from error
    if signer.public_key != public_key or content.get("keyId") != key_id(public_key):
        raise KeyFileError(f"{path}: says key {content.get('keyId')}, holds key {key_id(signer.public_key)}")
    return signer


def is_encrypted(path: Path) -> bool:
    """Whether a key file asks for a passphrase."""
    return "sealedSeed" in json.loads(path.read_text("ascii"))


def _plain_seed(path: Path, content: dict[str, Any]) -> bytes:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise KeyFileError(f"{path}: an unencrypted key that others may read (mode {mode:o}, expected 600)")
    return _bytes(content["seed"])


def _unseal(path: Path, content: dict[str, Any], public_key: bytes, passphrase: str | None) -> bytes:
    if passphrase is None:
        raise KeyFileError(f"{path}: encrypted, and no passphrase was given")
    reasonable = 0 < content["memory"] <= _MEMORY_LIMIT and 0 < content["operations"] < 100
    if content["kdf"] != "argon2id" or not reasonable:
        raise KeyFileError(f"{path}: unknown or unreasonable key derivation")
    secret = pwhash.argon2id.kdf(
        32,
        passphrase.encode(),
        _bytes(content["salt"]),
        opslimit=content["operations"],
        memlimit=content["memory"],
    )
    try:
        return AESGCM(secret).decrypt(_bytes(content["nonce"]), _bytes(content["sealedSeed"]), _associated(public_key))
    except InvalidTag:
        raise KeyFileError(f"{path}: wrong passphrase, or the file was changed") from None


def _associated(public_key: bytes) -> bytes:
    return f"{KEY_FILE_FORMAT}\n{key_id(public_key)}\n".encode() + public_key


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
