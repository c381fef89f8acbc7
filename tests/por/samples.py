"""A small exchange to take epochs of: balanced by construction, so that a test can break one thing at a time."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from por import verifier
from por.canonical import TAG_PARAMETERS, TAG_PRICES, TAG_RESERVES, canonical_json, text_hash
from por.epochs import Epoch, build_epoch, prove
from por.header import Row
from por.image import HOUR_US, Account, Image, Price, ReserveLine, TrialLine
from por.log import Log, signed_checkpoint

MASTER = bytes(range(32))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(100, 132)))
PUBLIC = KEY.public_key().public_bytes_raw()
HOUR = 495_000

COLUMNS = [
    "BTC.available",
    "USDC.available",
    "USDC.in_orders",
    "USDC.withdrawing",
    "USDC.provisional",
    "net_equity_plus",
    "net_equity_minus",
]

ROWS = [
    # subaccount, user, BTC, USDC available, in orders, withdrawing, provisional, equity plus, equity minus
    (11, 1, 5, 1_000, 200, 0, 0, 1_700, 0),
    (12, 1, 0, 0, 0, 0, 0, 0, 0),
    (21, 2, 0, 70_000, 0, 500, 100, 70_500, 0),
    (31, 3, 2, 0, 1, 0, 0, 0, 900),
    (41, 4, 1, 9, 0, 0, 0, 109, 0),
]


def accounts_of(rows: list[tuple[int, ...]]) -> list[Account]:
    return [
        Account(subaccount_id=row[0], user_id=row[1], amounts=list(row[2:]), detail='{"status":"open"}') for row in rows
    ]


def image_of(accounts: list[Account], hour: int | None = HOUR, before: int = 0, **changes: Any) -> Image:
    """An image of these accounts (columns as COLUMNS) whose trial balance, custody and count fit them."""

    def total(*columns: str) -> int:
        return sum(account.amounts[COLUMNS.index(name)] for account in accounts for name in columns)

    btc = total("BTC.available")
    usdc, withdrawing = total("USDC.available", "USDC.in_orders", "USDC.provisional"), total("USDC.withdrawing")
    at_us = (HOUR if hour is None else hour) * HOUR_US + 1_500_000
    fields: dict[str, Any] = {
        "exchange": "satchel-test",
        "hour": hour,
        "at_us": at_us,
        "block_height": 77,
        "block_hash": bytes([7]) * 32,
        "journal_root": bytes([8]) * 32,
        "columns": COLUMNS,
        "accounts": accounts,
        "opened": max(0, len(accounts) - before),
        "closed": max(0, before - len(accounts)),
        "prices": [Price("BTC", 100, at_us - 2_000_000), Price("USDC", 1, at_us)],
        "price_max_age_us": 60_000_000,
        "parameters": '{"BTC":{"weight":"900000000"}}',
        "code_version": "0.1.0+abc",
        "trial_balance": [
            TrialLine("subaccount/available", "BTC", ["BTC.available"], -btc),
            TrialLine("subaccount/available", "USDC", ["USDC.available", "USDC.in_orders", "USDC.provisional"], -usdc),
            TrialLine("subaccount/withdrawing", "USDC", ["USDC.withdrawing"], -withdrawing),
        ],
        "system": {"BTC.custody": btc, "USDC.custody": usdc + withdrawing + 3, "USDC.income/trading-fees": -3},
        "reserves": [
            ReserveLine("BTC", "custody", "sim/hot", btc),
            ReserveLine("USDC", "custody", "sim/hot", usdc + 3),
            ReserveLine("USDC", "in_flight_withdrawal", "sim/0xabc", withdrawing),
        ],
        "insurance_atoms": 400,
        "group_bits": 1,
    }
    return Image(**{**fields, **changes})


def sample_image(**changes: Any) -> Image:
    return image_of(accounts_of(ROWS), **changes)


def sample_epoch(previous: Row | None = None, **changes: Any) -> Epoch:
    return build_epoch(sample_image(**changes), previous, MASTER)


def published(epochs: int = 3) -> tuple[Log, list[Epoch]]:
    """A log of some hourly epochs of the sample."""
    log, built = Log(), []
    for number in range(epochs):
        epoch = sample_epoch(log.last, hour=HOUR + number, before=len(ROWS) if number else 0)
        log.append(epoch.header)
        built.append(epoch)
    return log, built


def proof_of(log: Log, epoch: Epoch, subaccount_id: int, known_sizes: tuple[int, ...] = ()) -> dict[str, Any]:
    checkpoint = log.checkpoint(KEY.sign, PUBLIC)
    return prove(epoch, subaccount_id, log.proof(epoch.header.epoch, checkpoint, PUBLIC, known_sizes))


def sample_proof(subaccount_id: int = 21) -> dict[str, Any]:
    log, epochs = published()
    return copy.deepcopy(proof_of(log, epochs[1], subaccount_id))


def changed(image: Image, row: int, **fields: Any) -> Image:
    """The image with one account altered and everything else left as it was."""
    accounts = list(image.accounts)
    accounts[row] = msgspec.structs.replace(accounts[row], **fields)
    return msgspec.structs.replace(image, accounts=accounts)


def republished(epoch: Epoch, **header_fields: Any) -> tuple[Log, Epoch]:
    """What a dishonest exchange can do: sign a log whose header says something else."""
    header = msgspec.structs.replace(epoch.header, **header_fields)
    log = Log([header])
    return log, dataclasses.replace(epoch, header=header)


def signed(proof: dict[str, Any], header: dict[str, Any], **texts: str) -> dict[str, Any]:
    """A proof of row 0 with another header and other texts, hashed and signed as if the exchange had meant them."""
    hashes = {f"{name}Hash": text_hash(TEXT_TAGS[name], text).hex() for name, text in texts.items()}
    text = canonical_json({**header, **hashes})
    root = verifier.sha256(b"\x00" + verifier.row_hash(text))
    checkpoint = signed_checkpoint("satchel-test/proof-of-reserves", 1, root, KEY.sign, PUBLIC)
    return {**proof, **texts, "header": text, "log": {**proof["log"], "checkpoint": checkpoint}}


TEXT_TAGS = {"reserves": TAG_RESERVES, "prices": TAG_PRICES, "parameters": TAG_PARAMETERS}
