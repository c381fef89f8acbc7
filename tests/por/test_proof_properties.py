"""For any accounts: every proof verifies, and a proof with any one byte changed does not.   [R-3, R-22]"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from por import verifier
from por.canonical import LEAF_LIMIT, canonical_json
from por.epochs import build_epoch
from por.log import Log
from tests.por.samples import MASTER, accounts_of, image_of, proof_of, published, sample_proof, signed

Place = tuple[Any, Any]
"""Where a value stands in a JSON document: its container, and its key or index there."""

amounts = st.one_of(st.integers(0, 3), st.integers(0, 2**63), st.integers(0, LEAF_LIMIT - 1))
balances = st.tuples(st.integers(1, 9), amounts, amounts, amounts, amounts, amounts, amounts, st.booleans())


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(balances, min_size=1, max_size=40), group_bits=st.integers(0, 4), data=st.data())
def test_any_accounts_every_proof_verifies_and_any_byte_flip_fails(
    rows: list[tuple[Any, ...]], group_bits: int, data: st.DataObject
) -> None:
    accounts = accounts_of(
        [
            (number, user, *parts, 0 if below_zero else equity, equity if below_zero else 0)
            for number, (user, *parts, equity, below_zero) in enumerate(rows)
        ]
    )
    epoch = build_epoch(image_of(accounts, group_bits=group_bits), None, MASTER)
    log = Log([epoch.header])

    for account in accounts[:8]:
        verifier.verify(proof_of(log, epoch, account.subaccount_id), user=account.user_id)

    proof = proof_of(log, epoch, data.draw(st.sampled_from(accounts)).subaccount_id)
    for _ in range(5):
        damaged = copy.deepcopy(proof)
        container, key = data.draw(st.sampled_from(list(places(damaged))))
        encoded = encode(container[key])
        if encoded:
            at, bit = data.draw(st.integers(0, len(encoded) - 1)), data.draw(st.integers(0, 7))
            require_refused(damaged, (container, key), flipped(encoded, at, bit))


@pytest.mark.slow
def test_every_single_byte_of_a_proof_counts() -> None:
    """One flip in each byte of each field of one proof, without sampling."""
    proof = sample_proof(31)
    for place in places(proof):
        encoded = encode(place[0][place[1]])
        for at in range(len(encoded)):
            require_refused(proof, place, flipped(encoded, at, at % 7))


def require_refused(proof: dict[str, Any], place: Place, encoded: bytes) -> None:
    """Put the changed bytes in, see the proof refused, and put the old value back."""
    container, key = place
    old = container[key]
    try:
        container[key] = encoded.decode() if isinstance(old, str) else json.loads(encoded)
    except ValueError:
        return  # not UTF-8 or not JSON any more: the program cannot even read it
    try:
        if container[key] != old or type(container[key]) is not type(old):
            with pytest.raises(verifier.NotVerified):
                verifier.verify(proof)
    finally:
        container[key] = old


def places(value: Any) -> Iterator[Place]:
    """Every text and number of a JSON document."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        if isinstance(value[key], dict | list):
            yield from places(value[key])
        else:
            yield value, key


def encode(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def flipped(encoded: bytes, at: int, bit: int) -> bytes:
    damaged = bytearray(encoded)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


@pytest.mark.slow
def test_whatever_stands_in_a_field_the_verifier_answers_and_never_crashes() -> None:
    """Also where a dishonest exchange hashes and signs it: nothing but an answer in words."""
    _, epochs = published(1)
    honest = proof_of(Log([epochs[0].header]), epochs[0], 31)
    header, reserves, prices = (json.loads(honest[name]) for name in ("header", "reserves", "prices"))

    for value in ODD_VALUES:
        for document, put in (
            (honest, lambda changed: changed),
            (header, lambda changed: signed(honest, changed)),
            (reserves, lambda changed: signed(honest, header, reserves=canonical_json(changed))),
            (prices, lambda changed: signed(honest, header, prices=canonical_json(changed))),
        ):
            for container, key in every_place(document):
                old = container[key]
                container[key] = value
                if old != value:
                    require_an_answer(put(document))
                container[key] = old


ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    2**70,
    "",
    "x",
    "-1",
    "9" * 60,
    [],
    {},
    [[]],
    [{}],
    {"a": []},
    [["BTC"]],
    [None],
]


def require_an_answer(proof: dict[str, Any]) -> None:
    try:
        report, _ = verifier.verify(proof)
    except verifier.NotVerified as refused:
        assert str(refused)
    else:
        assert report[0].startswith("VERIFIED")


def every_place(value: Any) -> Iterator[Place]:
    """Every value of a JSON document, containers included."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from every_place(value[key])
