"""Keys survive the disk, encrypted or guarded by their mode, and signatures hold for the bytes they were made for."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.signing import (
    KeyFileError,
    generate,
    is_encrypted,
    read_key_file,
    signer_from_seed,
    verify,
    write_key_file,
)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_signatures_are_those_of_another_library(seed: bytes, message: bytes) -> None:
    other = Ed25519PrivateKey.from_private_bytes(seed)
    signer = signer_from_seed(seed)

    assert signer.public_key == other.public_key().public_bytes_raw()
    assert signer.sign(message) == other.sign(message)
    assert verify(signer.public_key, signer.sign(message), message)
    assert signer.seed == seed


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100))
def test_what_is_no_signature_is_just_false(key: bytes, signature: bytes, message: bytes) -> None:
    assert not verify(key, signature, message)
    assert not verify(key.ljust(32, b"\1")[:32], signature.ljust(64, b"\1")[:64], message)


def test_a_signature_is_for_its_message_and_key() -> None:
    signer, other = generate(), generate()
    signature = signer.sign(b"a message")

    assert not verify(signer.public_key, signature, b"another message")
    assert not verify(other.public_key, signature, b"a message")


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_key_file_keeps_the_key(tmp_path: Path, passphrase: str | None) -> None:
    signer = generate()
    path = tmp_path / "key.json"
    write_key_file(path, signer, passphrase)

    assert read_key_file(path, passphrase) == signer
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_encrypted(path) == (passphrase is not None)
    with pytest.raises(KeyFileError, match="exists"):
        write_key_file(path, generate(), passphrase)
    if passphrase is not None:
        assert base64.b64encode(signer.seed).decode() not in path.read_text()
        with pytest.raises(KeyFileError, match="wrong passphrase"):
            read_key_file(path, "wrong")
        with pytest.raises(KeyFileError, match="no passphrase was given"):
            read_key_file(path)


def test_an_encrypted_file_cannot_pass_for_another_keys(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write_key_file(path, generate(), "correct horse")
    content = json.loads(path.read_text())
    content["publicKey"] = base64.b64encode(generate().public_key).decode()
    path.write_text(json.dumps(content))

    with pytest.raises(KeyFileError, match="or the file was changed"):
        read_key_file(path, "correct horse")


def test_a_plain_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write_key_file(path, generate(), None)
    os.chmod(path, 0o644)

    with pytest.raises(KeyFileError, match="others may read"):
        read_key_file(path)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": "x"}', '{"format": "satchel key v1", "publicKey": "é"}']
)
def test_what_is_no_key_file_is_said_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)

    with pytest.raises(KeyFileError, match=r"key\.json"):
        read_key_file(path)


def test_a_signer_does_not_print_its_secret() -> None:
    signer = generate()

    assert repr(signer.seed)[2:12] not in repr(signer)
