"""The log: RFC 9162 proofs in plain form, C2SP checkpoints, and Ed25519 as others compute it.   [R-20]"""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pymerkle import InmemoryTree

from ledger import merkle
from por import verifier
from por.canonical import BuildRefused
from por.header import missed_row
from por.log import Log, checkpoint_size, cosign, origin, require_checkpoint, verifier_key
from tests.por.samples import HOUR, KEY, PUBLIC, published, sample_epoch

NAME = "satchel-test/proof-of-reserves"


def log_of(size: int) -> Log:
    log = Log([sample_epoch().header])
    while len(log) < size:
        log.append(missed_row(log.rows[-1], HOUR + len(log), "away"))
    return log


def test_roots_and_proofs_are_those_of_rfc_9162_at_every_size() -> None:
    log = log_of(40)
    hashes = [merkle.leaf_hash(row.hash()) for row in log.rows]

    for size in range(1, 41):
        root = log.root(size)
        assert root == merkle.root(hashes[:size]) == verifier.tree_root(hashes[:size])
        for index in range(size):
            path = log.inclusion_path(index, size)
            assert merkle.verify_inclusion(hashes[index], index, size, path, root)
            assert verifier.included(hashes[index], index, size, path, root)
        for old in range(1, size):
            path = log.consistency_path(old, size)
            assert merkle.verify_consistency(old, size, log.root(old), root, path)
            assert verifier.consistency_roots(old, size, path, log.root(old)) == (log.root(old), root)


def test_the_published_rfc_6962_test_tree_has_its_known_roots() -> None:
    """The eight leaves that Certificate Transparency implementations share."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    hashes = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in leaves]

    assert verifier.tree_root(hashes[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert verifier.tree_root(hashes).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    tree = InmemoryTree(algorithm="sha256")
    tree.append_entries([bytes.fromhex(leaf) for leaf in leaves])
    assert tree.get_root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_a_row_that_does_not_follow_is_not_appended() -> None:
    """Append-only.   [R-20]"""
    log, _ = published(2)
    before = log.root()

    for row in (log.rows[0], log.rows[1], sample_epoch(None, code_version="other").header):
        with pytest.raises(BuildRefused, match="cannot be row 2"):
            log.append(row)

    assert (len(log), log.root()) == (2, before)


def test_a_checkpoint_is_a_c2sp_signed_note() -> None:
    log, _ = published(3)
    text = log.checkpoint(KEY.sign, PUBLIC)

    name, size, root, blank, signature, end = text.split("\n")
    dash, signer, blob = signature.split(" ")
    decoded = base64.b64decode(blob)
    identifier = hashlib.sha256(NAME.encode() + b"\n\x01" + PUBLIC).digest()[:4]

    assert (name, size, blank, end) == (NAME, "3", "", "")
    assert base64.b64decode(root) == log.root()
    assert (dash, signer) == ("\u2014", NAME)
    assert decoded[:4] == identifier
    KEY.public_key().verify(decoded[4:], f"{NAME}\n3\n{root}\n".encode())
    assert verifier_key(NAME, PUBLIC).startswith(f"{NAME}+{identifier.hex()}+")
    assert checkpoint_size(text) == 3


def test_the_next_checkpoint_is_that_of_the_log_once_appended() -> None:
    log, _ = published(2)
    row = missed_row(log.rows[-1], HOUR + 2, "away")

    ahead = log.next_checkpoint(row, KEY.sign, PUBLIC)
    log.append(row)

    assert ahead == log.checkpoint(KEY.sign, PUBLIC)


def test_a_checkpoint_of_another_history_or_key_is_refused() -> None:
    log, _ = published(3)
    checkpoint = log.checkpoint(KEY.sign, PUBLIC)
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))

    require_checkpoint(log, checkpoint, PUBLIC)
    require_checkpoint(
        log, cosign(checkpoint, "w.example/1", other.sign, other.public_key().public_bytes_raw(), 5), PUBLIC
    )
    with pytest.raises(ValueError, match="the log of 2 rows does not"):
        require_checkpoint(Log(log.rows[:2]), checkpoint, PUBLIC)
    with pytest.raises(ValueError, match="no signature of"):
        require_checkpoint(log, checkpoint, other.public_key().public_bytes_raw())
    with pytest.raises(ValueError, match="is wrong"):
        require_checkpoint(log, log.checkpoint(other.sign, PUBLIC), PUBLIC)


def test_the_spec_example_checkpoint_is_read() -> None:
    """The example of C2SP tlog-cosignature: a log's signature and a witness's."""
    text = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/"
        "Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "\u2014 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5"
        "nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    checkpoint = verifier.read_checkpoint(text)

    assert (checkpoint["origin"], checkpoint["size"]) == ("example.com/behind-the-sofa", 20852163)
    assert [(name, len(blob)) for name, blob in checkpoint["signatures"]] == [
        ("example.com/behind-the-sofa", 68),
        ("witness.example.com/w1", 76),
    ]


@pytest.mark.parametrize("exchange", ["with space", "plus+", "new\nline", "no\u00a0break"])
def test_an_exchange_whose_name_cannot_name_a_log_is_refused(exchange: str) -> None:
    with pytest.raises(BuildRefused, match="cannot name a log"):
        origin(exchange)


# RFC 8032 §7.1, tests 1 to 3: secret, public, message, signature.
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]


@pytest.mark.parametrize("key, message, signature", RFC_8032)
def test_the_verifiers_own_ed25519_agrees_with_rfc_8032(key: str, message: str, signature: str) -> None:
    k, m, s = bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature)

    assert verifier.ed25519_verify(k, m, s)
    assert not verifier.ed25519_verify(k, m + b"x", s)
    assert not verifier.ed25519_verify(k, m, s[:32] + bytes(32))
    # Adding the group order to S gives a second encoding of the same signature, which must not pass.
    larger = (int.from_bytes(s[32:], "little") + verifier.Q).to_bytes(32, "little")
    assert not verifier.ed25519_verify(k, m, s[:32] + larger)


def test_the_verifiers_own_ed25519_agrees_with_openssl_on_damaged_signatures() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = key.public_key().public_bytes_raw()
    signature = key.sign(b"message")

    for position in range(0, 64, 3):
        damaged = bytearray(signature)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(InvalidSignature):
            Ed25519PublicKey.from_public_bytes(public).verify(bytes(damaged), b"message")
        assert not verifier.ed25519_verify(public, b"message", bytes(damaged))
    assert verifier.ed25519_verify(public, b"message", signature)
    assert not verifier.ed25519_verify((2**255 - 1).to_bytes(32, "little"), b"message", signature)
