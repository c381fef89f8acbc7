"""A receipt verifies with the exchange's public key and nothing else, and no changed receipt does.   [A-4]"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.chart import AccountKind, available
from ledger.receipts import ReceiptError, make_receipt, verify_receipt
from ledger.store import Store
from tests.ledger.logs import NEW_KEY, OLD_KEY, USDC, example_blocks, stored


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(stored(f"sqlite:///{tmp_path_factory.mktemp('log') / 'ledger.db'}", example_blocks()))


def test_every_transaction_has_a_receipt(database_url: str) -> None:
    blocks = example_blocks()
    store = Store(stored(database_url, blocks))

    for block in blocks:
        for entry in block.journal:
            receipt = json.loads(json.dumps(make_receipt(store, entry.seq)))
            proven = verify_receipt(receipt, block.header.public_key)

            assert proven.transaction.postings == entry.postings
            assert proven.transaction_hash == entry.hash
            assert tuple(proven.header) == tuple(block.header)


@pytest.mark.parametrize("owner", [1, 1024, 1025, 2500, 3000])
def test_a_row_of_a_batch_has_a_receipt(store: Store, owner: int) -> None:
    (entry,) = [entry for entry in store.journal() if entry.batches]

    proven = verify_receipt(make_receipt(store, entry.seq, available(owner)), NEW_KEY.public_key)

    assert proven.row == (available(owner), USDC, 10_000 - owner)


def test_what_is_not_there_has_no_receipt(store: Store) -> None:
    with pytest.raises(ReceiptError, match="no journal transaction 99"):
        make_receipt(store, 99)
    with pytest.raises(ReceiptError, match="has no batch row"):
        make_receipt(store, 12, available(3_001))


def test_another_key_proves_nothing(store: Store) -> None:
    with pytest.raises(ReceiptError, match="is signed by"):
        verify_receipt(make_receipt(store, 5), NEW_KEY.public_key)
    assert verify_receipt(make_receipt(store, 5), OLD_KEY.public_key).row is None


def leaves_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in leaves_of(part, (*path, key))]
    if isinstance(value, list):
        return [leaf for at, part in enumerate(value) for leaf in leaves_of(part, (*path, at))]
    return [path]


@given(data=st.data(), seq=st.sampled_from([5, 12]))
def test_no_changed_receipt_verifies(store: Store, data: st.DataObject, seq: int) -> None:
    receipt = make_receipt(store, seq, *([available(2_000)] if seq == 12 else []))
    signer = NEW_KEY if seq == 12 else OLD_KEY
    path = data.draw(st.sampled_from([leaf for leaf in leaves_of(receipt) if leaf[0] != "about"]))
    place: Any = receipt
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    if isinstance(old, int):
        place[path[-1]] = data.draw(st.integers(-3, 5000).filter(lambda value: value != old))
    else:
        content = bytearray(base64.b64decode(old)) if path[-1] != "format" else bytearray(b"satchel receipt v2")
        if path[-1] != "format":
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        place[path[-1]] = base64.b64encode(bytes(content)).decode()

    try:
        proven = verify_receipt(receipt, signer.public_key)
    except ReceiptError:
        return
    # Another owner of the same chunk is another true statement; anything else must have failed.
    assert path == ("row", "owner")
    assert proven.row is not None
    assert proven.row.atoms == 10_000 - (proven.row.account - (AccountKind.AVAILABLE << 40))


@pytest.mark.parametrize("junk", [{}, {"format": "x"}, {"format": "satchel receipt v1", "header": 5}])
def test_junk_is_refused(junk: dict[str, Any]) -> None:
    with pytest.raises(ReceiptError):
        verify_receipt(junk, OLD_KEY.public_key)


def test_verifying_needs_the_standard_library_and_a_signature_check_only() -> None:
    import subprocess
    import sys

    code = (
        "import sys, ledger.receipts; "
        "print([m for m in ('numpy', 'sqlalchemy', 'msgspec', 'alembic') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"
