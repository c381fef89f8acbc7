"""The published vectors: builder and verifier, written apart, both give these bytes.   [R-3]

`por_v1.json` is format version 1 from the secrets up, `por_v2.json` and `por_v3.json` logs that go on with headers of
version 2 and 3.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from por import canonical, verifier
from por.epochs import Epoch, build_epoch, prove
from por.header import missed_row
from por.image import Image
from por.leaves import identity, leaf_salt, user_secret
from por.log import Log, key_id, origin, verifier_key
from por.tree import Node, group_node, pad_group_hash, pad_leaf_hash, sum_node

FILES = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FILES / "por_v1.json").read_text())
WITH_MARKETS: dict[str, Any] = json.loads((FILES / "por_v2.json").read_text())
WITH_LIQUIDITY: dict[str, Any] = json.loads((FILES / "por_v3.json").read_text())
ALL = pytest.mark.parametrize(
    "vectors", [VECTORS, WITH_MARKETS, WITH_LIQUIDITY], ids=["version 1", "version 2", "version 3"]
)


def vector(texts: list[str]) -> tuple[int, ...]:
    return tuple(int(text) for text in texts)


def test_secrets_salt_and_identity() -> None:
    given = VECTORS["secrets"]
    user, subaccount, epoch = given["userId"], given["subaccountId"], given["epoch"]

    secret = user_secret(bytes.fromhex(given["master"]), user)
    salt = leaf_salt(secret, epoch, subaccount)

    assert secret.hex() == given["userSecret"]
    assert salt.hex() == given["salt"]
    assert identity(user, subaccount, salt).hex() == given["identity"]
    ids = verifier.u64(user) + verifier.u64(subaccount)
    again = hmac.new(bytes.fromhex(given["master"]), verifier.tag(0x11) + verifier.u64(user), "sha256").digest()
    message = verifier.tag(0x12) + verifier.u64(epoch) + verifier.u64(subaccount)
    assert hmac.new(again, message, "sha256").digest() == salt
    assert verifier.sha256(verifier.tag(0x10) + ids + salt).hex() == given["identity"]


def test_leaf() -> None:
    given, secrets = VECTORS["leaf"], VECTORS["secrets"]
    amounts = vector(given["amounts"])
    detail_hash = bytes.fromhex(given["detailHash"])
    hidden = bytes.fromhex(secrets["salt"]) + bytes.fromhex(secrets["identity"]) + detail_hash
    builders = canonical.position_bytes(canonical.TAG_LEAF, given["epoch"], 0, given["index"])
    verifiers = verifier.place(0x00, given["epoch"], 0, given["index"])

    assert canonical.text_hash(canonical.TAG_DETAIL, given["detail"]) == detail_hash
    assert (builders + hidden + canonical.vector_bytes(amounts)).hex() == given["preimage"]
    assert (verifiers + hidden + verifier.packed(list(amounts))).hex() == given["preimage"]
    assert hashlib.sha256(bytes.fromhex(given["preimage"])).hexdigest() == given["hash"]


def test_nodes() -> None:
    inner, group, parent = VECTORS["inner"], VECTORS["group"], VECTORS["sum"]

    made_group = group_node(
        group["epoch"], group["groupBits"], group["index"], bytes.fromhex(group["innerRoot"]), vector(group["totals"])
    )
    left, right = (
        Node(bytes.fromhex(parent[side]["hash"]), vector(parent[side]["totals"])) for side in ("left", "right")
    )
    made_sum = sum_node(parent["epoch"], parent["level"], parent["index"], left, right)

    assert made_group.hash.hex() == group["hash"]
    assert (made_sum.hash.hex(), made_sum.totals) == (parent["hash"], vector(parent["totals"]))
    assert pad_leaf_hash(VECTORS["padLeaf"]["epoch"], VECTORS["padLeaf"]["index"]).hex() == VECTORS["padLeaf"]["hash"]
    pad = VECTORS["padGroup"]
    assert pad_group_hash(pad["epoch"], pad["groupBits"], pad["index"]).hex() == pad["hash"]
    place = verifier.place(0x01, inner["epoch"], inner["level"], inner["index"])
    assert (place + bytes.fromhex(inner["left"]) + bytes.fromhex(inner["right"])).hex() == inner["preimage"]
    place = verifier.place(0x03, parent["epoch"], parent["level"], parent["index"])
    sides = [node.hash + verifier.packed(list(node.totals)) for node in (left, right)]
    assert (place + sides[0] + sides[1]).hex() == parent["preimage"]


@pytest.mark.parametrize("name", ["leaf", "padLeaf", "inner", "group", "padGroup", "sum"])
def test_every_hash_is_sha256_of_its_preimage(name: str) -> None:
    assert verifier.sha256(bytes.fromhex(VECTORS[name]["preimage"])).hex() == VECTORS[name]["hash"]


@pytest.mark.parametrize("given", VECTORS["texts"], ids=lambda given: str(given["what"]))
def test_texts(given: dict[str, str]) -> None:
    tag = bytes.fromhex(given["tag"])

    assert tag == verifier.tag(tag[0])
    assert canonical.text_hash(tag, given["text"]).hex() == given["hash"]
    assert verifier.sha256(tag + given["text"].encode()).hex() == given["hash"]


@ALL
def test_the_builder_gives_the_published_rows_checkpoint_and_proofs(vectors: dict[str, Any]) -> None:
    """From the images, the master secret and the key, every published byte follows.   [R-23]"""
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vectors["key"]["seed"]))
    public = key.public_key().public_bytes_raw()
    master = bytes.fromhex(vectors["secrets"]["master"])
    images = [msgspec.convert(image, Image) for image in vectors["images"]]
    log = Log()
    epochs: list[Epoch] = []

    for number, row in enumerate(vectors["rows"]):
        if json.loads(row["text"])["kind"] == "missed":
            assert log.last is not None
            log.append(missed_row(log.last, json.loads(row["text"])["hour"], json.loads(row["text"])["reason"]))
        else:
            epochs.append(build_epoch(images[len(epochs)], log.last, master))
            log.append(epochs[-1].header)
        assert log.rows[number].text() == row["text"]
        assert log.rows[number].hash().hex() == row["hash"]
        assert log.root().hex() == vectors["logRoots"][number]

    checkpoint = log.checkpoint(key.sign, public)
    assert checkpoint == vectors["checkpoint"]
    assert [epoch.leaves.subaccount_ids for epoch in epochs] == vectors["leafOrder"]
    assert log.export(checkpoint, public) == vectors["log"]
    for epoch, proof, known in zip(epochs, vectors["proofs"], ([], [1], [1, 2, 3]), strict=True):
        log_proof = log.proof(epoch.header.epoch, checkpoint, public, known)
        assert prove(epoch, proof["leaf"]["subaccountId"], log_proof) == proof


@ALL
def test_the_verifier_accepts_the_published_proofs_and_log(vectors: dict[str, Any]) -> None:
    key = verifier.decode_key(vectors["key"]["verifierKey"], 0x01)

    for proof in [*vectors["proofs"], vectors["log"]]:
        report, _ = verifier.verify(proof, key=key)
        assert report[0].startswith("VERIFIED")
    assert [verifier.row_hash(row["text"]).hex() for row in vectors["rows"]] == [row["hash"] for row in vectors["rows"]]


@pytest.mark.parametrize(
    "vectors, versions", [(WITH_MARKETS, [1, 2, 1, 2]), (WITH_LIQUIDITY, [2, 3, 1, 3])], ids=["version 2", "version 3"]
)
def test_the_later_files_have_headers_of_two_versions(vectors: dict[str, Any], versions: list[int]) -> None:
    """R-5: an old epoch verifies in a log that goes on."""
    rows = [json.loads(row["text"]) for row in vectors["rows"]]

    assert [row["kind"] for row in rows] == ["epoch", "epoch", "missed", "epoch"]
    assert [row["version"] for row in rows] == versions


def test_key_name_and_id() -> None:
    given = VECTORS["key"]
    public = bytes.fromhex(given["public"])

    assert origin("vectors.example") == given["name"]
    assert key_id(given["name"], 1, public).hex() == given["keyId"] == verifier.key_id(given["name"], 1, public).hex()
    assert verifier_key(given["name"], public) == given["verifierKey"]
