"""One epoch from image to proof: pure functions that publisher, auditor and tests call.   [R-1, R-22, R-23]"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from por.canonical import BuildRefused, canonical_json
from por.header import (
    COUNT_COLUMN,
    NEGATIVE_COLUMN,
    NET_EQUITY_MINUS,
    Header,
    Row,
    build_header,
    next_epoch,
    prices_text,
    reserves_text,
)
from por.image import Account, Image
from por.leaves import Leaves, build_leaves
from por.tree import SumTree, build_tree, group_path, sum_path

PROOF_FORMAT = "satchel-por-proof"
MASTER_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Epoch:
    """A built epoch: the header, the texts whose hashes it holds, and all leaves in order."""

    header: Header
    prices: str
    parameters: str
    code_version: str
    reserves: str
    leaves: Leaves
    tree: SumTree


def build_epoch(image: Image, previous: Row | None, master_secret: bytes) -> Epoch:
    """Build the epoch that follows `previous` from one image of the ledger, or raise BuildRefused.

    Deterministic: the same image, previous row and master secret give the same bytes. It signs nothing; the
    header enters the log, and the log's checkpoint is what is signed.   [R-1, R-20]
    """
    if len(master_secret) < MASTER_SECRET_BYTES:
        raise BuildRefused(f"the master secret has {len(master_secret)} bytes, fewer than {MASTER_SECRET_BYTES}")
    require_columns(image.columns)
    require_texts(image)

    columns, accounts = with_counts(image)
    leaves = build_leaves(next_epoch(previous), columns, accounts, master_secret)
    tree = build_tree(leaves, len(columns), image.group_bits)
    header = build_header(image, previous, columns, tree)
    return Epoch(
        header=header,
        prices=prices_text(image),
        parameters=image.parameters,
        code_version=image.code_version,
        reserves=reserves_text(image, header.epoch),
        leaves=leaves,
        tree=tree,
    )


def prove(epoch: Epoch, subaccount_id: int, log_proof: dict[str, Any]) -> dict[str, Any]:
    """The proof of one subaccount as JSON, with the log part from `Log.proof`. Unknown ids raise KeyError.   [R-22]"""
    leaves, header = epoch.leaves, epoch.header
    try:
        index = leaves.subaccount_ids.index(subaccount_id)
    except ValueError:
        raise KeyError(f"subaccount {subaccount_id} has no leaf in epoch {header.epoch}") from None

    group = index >> header.group_bits
    return {
        "format": PROOF_FORMAT,
        "version": 1,
        "leaf": {
            "userId": leaves.user_ids[index],
            "subaccountId": subaccount_id,
            "index": index,
            "salt": leaves.salts[index].tobytes().hex(),
            "detail": leaves.details[index],
            "amounts": _decimals(leaves.amounts_of(index)),
        },
        "group": {
            "path": [sibling.hex() for sibling in group_path(leaves, header.group_bits, index)],
            "totals": _decimals(epoch.tree.levels[0][group].totals),
        },
        "sums": [{"hash": node.hash.hex(), "totals": _decimals(node.totals)} for node in sum_path(epoch.tree, group)],
        "header": header.text(),
        "prices": epoch.prices,
        "parameters": epoch.parameters,
        "codeVersion": epoch.code_version,
        "reserves": epoch.reserves,
        "log": log_proof,
    }


def rebuild(image: Image, previous: Row | None, master_secret: bytes) -> Header:
    """The auditor's header, from an image taken by replay; it must equal the published one bit for bit.   [R-23]"""
    return build_epoch(image, previous, master_secret).header


def differences(published: Header, rebuilt: Header) -> list[str]:
    """Each field in which two headers differ, with both values; empty when their texts are the same bytes.   [R-23]"""
    ours, theirs = json.loads(rebuilt.text()), json.loads(published.text())
    return [f"{name}: published {theirs[name]}, rebuilt {ours[name]}" for name in theirs if theirs[name] != ours[name]]


def require_columns(columns: list[str]) -> None:
    """Names are distinct, printable and not those of the columns that the builder adds."""
    if len(set(columns)) != len(columns):
        raise BuildRefused(f"a column name appears twice: {columns}")
    for name in columns:
        if not name or not name.isascii() or not name.isprintable() or name in (COUNT_COLUMN, NEGATIVE_COLUMN):
            raise BuildRefused(f"{name!r} cannot be the name of a column")


def require_texts(image: Image) -> None:
    """Every leaf's detail and the parameters are canonical JSON, so that nobody can show one hash with two readings."""
    for account in image.accounts:
        if account.detail != "{}":
            _require_canonical(f"the detail of subaccount {account.subaccount_id}", account.detail)
    _require_canonical("the parameter set", image.parameters)


def with_counts(image: Image) -> tuple[list[str], list[Account]]:
    """Add the counting columns: 1 for every account, and 1 where net equity is below zero.   [R-7]

    Of a pair `X_plus`, `X_minus` at most one may be non-zero: a signed quantity has one sign.   [R-2]
    """
    columns = image.columns
    pairs = [
        (columns.index(name), columns.index(name.removesuffix("_plus") + "_minus"))
        for name in columns
        if name.endswith("_plus") and name.removesuffix("_plus") + "_minus" in columns
    ]
    for account in image.accounts:
        for plus, minus in pairs:
            if account.amounts[plus] and account.amounts[minus]:
                raise BuildRefused(
                    f"subaccount {account.subaccount_id}: {columns[plus]} is {account.amounts[plus]}"
                    f" and {columns[minus]} is {account.amounts[minus]}"
                )

    if NET_EQUITY_MINUS not in columns:
        counted = [msgspec.structs.replace(account, amounts=[*account.amounts, 1]) for account in image.accounts]
        return [*columns, COUNT_COLUMN], counted
    minus = columns.index(NET_EQUITY_MINUS)
    counted = [
        msgspec.structs.replace(account, amounts=[*account.amounts, 1, int(account.amounts[minus] > 0)])
        for account in image.accounts
    ]
    return [*columns, COUNT_COLUMN, NEGATIVE_COLUMN], counted


def load_tree(leaves: Leaves, header: Header) -> SumTree:
    """The tree of stored leaves; it must have the root that the header states."""
    tree = build_tree(leaves, len(header.columns), header.group_bits)
    if tree.root.hash != header.liabilities_root:
        raise ValueError(
            f"stored leaves of epoch {header.epoch} have root {tree.root.hash.hex()},"
            f" the header says {header.liabilities_root.hex()}"
        )
    return tree


def _require_canonical(what: str, text: str) -> None:
    try:
        canonical = canonical_json(json.loads(text))
    except ValueError as error:
        raise BuildRefused(f"{what} is not JSON: {error}") from error
    if canonical != text:
        raise BuildRefused(f"{what} is not canonical JSON: {text[:80]}")


def _decimals(vector: tuple[int, ...]) -> list[str]:
    return [str(amount) for amount in vector]
