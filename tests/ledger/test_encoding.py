"""Encoding v1 is what the published vectors say, and differs wherever the facts differ.   [A-4]"""

from __future__ import annotations

import json
from hashlib import sha256
from struct import pack
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import merkle
from ledger.amounts import INT128_MAX, join_atoms, split_atoms
from ledger.blocks import BlockHeader, SignedRequest, encode_command, encode_header, header_hash, signed_bytes
from ledger.decoding import EncodingError, decode_command, decode_header, decode_transaction
from ledger.journal import (
    JournalTransaction,
    PostingBatch,
    encode_memo,
    encode_transaction,
    exact_sum,
    residues,
)
from ledger.signing import signer_from_seed, verify
from tests.ledger.vectors import PATH, vectors

PUBLISHED: dict[str, Any] = json.loads(PATH.read_text())


def test_the_published_vectors_are_reproduced() -> None:
    assert json.loads(json.dumps(vectors())) == PUBLISHED


@pytest.mark.parametrize("block", PUBLISHED["blocks"], ids=lambda block: f"block-{block['header']['height']}")
def test_a_block_is_rebuilt_from_the_vectors_alone(block: dict[str, Any]) -> None:
    for command in block["commands"]:
        assert rebuilt_command(command).hex() == command["encoding"]
        assert sha256(b"\x00" + bytes.fromhex(command["encoding"])).hexdigest() == command["hash"]
    for entry in block["journal"]:
        assert rebuilt_transaction(entry).hex() == entry["encoding"]
        assert sha256(b"\x00" + bytes.fromhex(entry["encoding"])).hexdigest() == entry["hash"]
    header = BlockHeader(*(plain(value) for value in block["header"].values()))

    assert encode_header(header).hex() == block["encoding"]
    assert header_hash(header).hex() == block["hash"]
    assert signed_bytes(header) == b"satchel block v1\n" + bytes.fromhex(block["encoding"])
    assert merkle.root([bytes.fromhex(command["hash"]) for command in block["commands"]]) == header.commands_root
    assert merkle.root([bytes.fromhex(entry["hash"]) for entry in block["journal"]]) == header.journal_root
    assert verify(header.public_key, bytes.fromhex(block["signature"]), signed_bytes(header))
    assert signer_of(header.public_key).sign(signed_bytes(header)).hex() == block["signature"]


def plain(value: Any) -> Any:
    return bytes.fromhex(value) if isinstance(value, str) else value


def signer_of(public_key: bytes) -> Any:
    (seed,) = (key["seed"] for key in PUBLISHED["keys"] if key["public"] == public_key.hex())
    return signer_from_seed(bytes.fromhex(seed))


def rebuilt_command(command: dict[str, Any]) -> bytes:
    """By the letter of docs/encoding.md, not by our encoder."""
    payload = bytes.fromhex(command["payload"])
    data = pack(">BQQHI", 1, command["seq"], command["atUs"], command["outcome"], len(payload)) + payload
    request = command["request"]
    if request is None:
        return data + b"\x00"
    text = bytes.fromhex(request["text"])
    times = pack(">QQQI", request["timestamp_ms"], request["window_ms"], request["received_ms"], len(text))
    return data + b"\x01" + bytes.fromhex(request["api_key"]) + bytes.fromhex(request["signature"]) + times + text


def rebuilt_transaction(entry: dict[str, Any]) -> bytes:
    memo = bytes.fromhex(entry["memo"])
    data = b"\x01" + bytes.fromhex(entry["previousHash"])
    data += pack(">QQQHI", entry["seq"], entry["command"], entry["atUs"], entry["kind"], len(memo)) + memo
    data += pack(">I", len(entry["postings"]))
    for account, asset, atoms in entry["postings"]:
        data += pack(">QI", account, asset) + int(atoms).to_bytes(16, "big", signed=True)
    data += pack(">H", len(entry["batches"]))
    for batch in entry["batches"]:
        data += pack(">HII", batch["accountKind"], batch["asset"], batch["rows"])
        data += int(batch["total"]).to_bytes(16, "big", signed=True) + rebuilt_root(batch)
    return data


def rebuilt_root(batch: dict[str, Any]) -> bytes:
    rows = range(batch["rows"])
    owners = [batch["firstOwner"] + batch["ownerStep"] * row for row in rows]
    atoms = [batch["firstAtoms"] + batch["atomsStep"] * row for row in rows]
    chunks = []
    for start in range(0, len(owners), 1024):
        part = b"".join(pack(">Q", owner) for owner in owners[start : start + 1024])
        part += b"".join(pack(">q", atom) for atom in atoms[start : start + 1024])
        chunks.append(sha256(b"\x00" + part).digest())
    root = merkle.root(chunks)
    assert root.hex() == batch["root"]
    return root


u64 = st.integers(0, 2**63 - 1)
hashes = st.binary(min_size=32, max_size=32)
atoms = st.integers(-INT128_MAX, INT128_MAX)
legs = st.lists(st.tuples(st.integers(0, 2**56 - 1), st.integers(0, 2**32 - 1), atoms), max_size=6)
facts = st.tuples(hashes, u64, u64, u64, st.integers(0, 65535), st.binary(max_size=50), legs)
requests = st.none() | st.builds(
    SignedRequest, hashes, st.binary(min_size=64, max_size=64), st.binary(max_size=50), u64, u64, u64
)
commands = st.tuples(u64, u64, st.integers(0, 65535), st.binary(max_size=80), requests)
headers = st.builds(
    BlockHeader,
    u64,
    hashes,
    u64,
    u64,
    st.integers(0, 2**32 - 1),
    hashes,
    u64,
    st.integers(0, 2**32 - 1),
    hashes,
    hashes,
    hashes,
    hashes,
)


@given(facts)
def test_a_transaction_is_read_back_as_it_was_written(fields: tuple[Any, ...]) -> None:
    assert tuple(decode_transaction(encode_transaction(*fields))) == (*fields, [])


@given(facts, facts)
def test_different_transactions_have_different_bytes(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (encode_transaction(*one) == encode_transaction(*other)) == (one == other)


@given(commands)
def test_a_command_is_read_back_as_it_was_written(fields: tuple[Any, ...]) -> None:
    read = decode_command(encode_command(*fields))

    assert tuple(read[:4]) == fields[:4]
    assert read.request == fields[4]


@given(headers)
def test_a_header_is_read_back_as_it_was_written(header: BlockHeader) -> None:
    assert tuple(decode_header(encode_header(header))) == tuple(header)


@given(st.sampled_from(["command", "transaction", "header"]), st.data())
def test_no_shortened_or_lengthened_encoding_decodes(what: str, data: st.DataObject) -> None:
    encode, decode, fields = {
        "command": (encode_command, decode_command, commands),
        "transaction": (encode_transaction, decode_transaction, facts),
        "header": (lambda *header: encode_header(BlockHeader(*header)), decode_header, headers),
    }[what]
    encoding = encode(*data.draw(fields))  # type: ignore[operator]

    for wrong in (encoding[: data.draw(st.integers(0, len(encoding) - 1))], encoding + b"\x00", b"\x02" + encoding[1:]):
        with pytest.raises(EncodingError):
            decode(wrong)  # type: ignore[operator]


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_canonical(junk: bytes) -> None:
    try:
        read = decode_transaction(junk)
    except EncodingError:
        return
    assert encode_transaction(*read[:7]) == junk or read.batches


@given(st.integers(-9 * 10**36, 9 * 10**36))
def test_split_amounts_are_joined_again(amount: int) -> None:
    high, low = split_atoms(amount)

    assert join_atoms(high, low) == amount
    assert abs(low) < 10**18
    assert high * low >= 0


@pytest.mark.parametrize("amount", [10**37, -(10**37), INT128_MAX + 1])
def test_an_amount_that_does_not_fit_is_an_error(amount: int) -> None:
    with pytest.raises(OverflowError, match="does not fit"):
        split_atoms(amount)


@given(st.dictionaries(st.integers(0, 2**40 - 1), st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50))
def test_a_batch_sums_exactly_and_finds_its_rows(rows: dict[int, int]) -> None:
    owners = sorted(rows)
    batch = PostingBatch.of(16, 2, owners, [rows[owner] for owner in owners])

    assert batch.total == sum(rows.values()) == exact_sum(batch.atoms)
    assert all(batch.atoms_of(owner) == rows[owner] for owner in owners)
    assert batch.atoms_of(2**40 - 1) == rows.get(2**40 - 1, 0)
    assert sum(leg[2] for leg in batch.postings()) == batch.total


@given(st.dictionaries(st.integers(0, 5_000), st.integers(-9, 9), min_size=2, max_size=30), st.data())
def test_any_changed_row_changes_the_batch_root(rows: dict[int, int], data: st.DataObject) -> None:
    owners = sorted(rows)
    amounts = [rows[owner] for owner in owners]
    at = data.draw(st.integers(0, len(owners) - 1))
    changed = [*amounts[:at], amounts[at] + 1, *amounts[at + 1 :]]

    assert PostingBatch.of(16, 2, owners, amounts).root != PostingBatch.of(16, 2, owners, changed).root


@given(legs)
def test_residues_are_what_is_missing_per_asset(postings: list[tuple[int, int, int]]) -> None:
    left = residues(JournalTransaction(32, (), postings))

    for asset in {posting[1] for posting in postings}:
        assert left.get(asset, 0) == sum(posting[2] for posting in postings if posting[1] == asset)
    assert all(left.values())


def test_memos_are_canonical_messagepack() -> None:
    memo = ("SOL_USDC", 1, -5, b"\x01", True, None)

    assert msgspec.msgpack.decode(encode_memo(memo)) == list(memo)
    assert encode_memo(memo).hex() == "96a8534f4c5f5553444301fbc40101c3c0"
