"""Writes `tests/vectors/encoding_v1.json`: inputs, bytes and hashes that fix canonical encoding v1 for ever.

Encoding v1 is frozen: running this again must not change the file (`python -m tests.ledger.vectors`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ledger import merkle
from ledger.blocks import Block, encode_command, encode_header, header_hash, signed_bytes
from ledger.journal import PostingBatch, encode_transaction
from tests.ledger.logs import NEW_KEY, OLD_KEY, example_blocks

PATH = Path(__file__).parents[1] / "vectors" / "encoding_v1.json"


def vectors() -> dict[str, Any]:
    """The example log of the tests, taken apart. Amounts are decimal strings: they pass 53 bits."""
    blocks = example_blocks()
    document: dict[str, Any] = {
        "about": "Canonical encoding v1 of Satchel's ledger, see docs/encoding.md. Bytes are hex.",
        "keys": [{"seed": key.seed.hex(), "public": key.public_key.hex()} for key in (OLD_KEY, NEW_KEY)],
        "merkle": [
            {"leaves": [leaf.hex() for leaf in leaves], "root": merkle.root(leaves).hex()}
            for leaves in ([merkle.leaf_hash(bytes([n])) for n in range(count)] for count in (0, 1, 2, 3, 5, 8))
        ],
        "blocks": [],
    }
    previous = bytes(32)
    for block in blocks:
        described, previous = _block(block, previous)
        document["blocks"].append(described)
    return document


def _block(block: Block, previous: bytes) -> tuple[dict[str, Any], bytes]:
    journal = []
    for entry in block.journal:
        encoding = encode_transaction(
            previous,
            entry.seq,
            entry.command_seq,
            entry.at_us,
            entry.kind,
            entry.memo,
            entry.postings,
            entry.batches,
        )
        journal.append(
            {
                "previousHash": previous.hex(),
                "seq": entry.seq,
                "command": entry.command_seq,
                "atUs": entry.at_us,
                "kind": int(entry.kind),
                "memo": entry.memo.hex(),
                "postings": [[account, asset, str(atoms)] for account, asset, atoms in entry.postings],
                "batches": [_batch(batch) for batch in entry.batches],
                "encoding": encoding.hex(),
                "hash": entry.hash.hex(),
            }
        )
        previous = entry.hash
    commands = [
        {
            "seq": command.seq,
            "atUs": command.at_us,
            "outcome": command.outcome,
            "kind": command.kind,
            "payload": command.payload.hex(),
            "request": command.request
            and {name: _plain(value) for name, value in command.request._asdict().items()},
            "encoding": encode_command(
                command.seq, command.at_us, command.outcome, command.payload, command.request
            ).hex(),
            "hash": command.hash.hex(),
        }
        for command in block.commands
    ]
    header = {name: _plain(value) for name, value in block.header._asdict().items()}
    described = {
        "header": header,
        "encoding": encode_header(block.header).hex(),
        "hash": header_hash(block.header).hex(),
        "signedBytes": signed_bytes(block.header).hex(),
        "signature": block.signature.hex(),
        "commands": commands,
        "journal": journal,
    }
    return described, previous


def _batch(batch: PostingBatch) -> dict[str, Any]:
    """The tests' batch is regular, so its 3,000 rows are given as first owner and atoms, and the two steps."""
    owners, atoms = batch.owners.tolist(), batch.atoms.tolist()
    return {
        "accountKind": int(batch.account_kind),
        "asset": batch.asset,
        "rows": len(owners),
        "firstOwner": owners[0],
        "ownerStep": owners[1] - owners[0],
        "firstAtoms": atoms[0],
        "atomsStep": atoms[1] - atoms[0],
        "total": str(batch.total),
        "root": batch.root.hex(),
    }


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
