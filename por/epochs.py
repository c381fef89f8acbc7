"""One epoch from image to proof: pure functions that publisher, auditor and tests call.   [R-1, R-22, R-23]"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
from por.image import Image
from por.leaves import Leaves, Words, amount_words, build_leaves
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

    words = amount_words(image.columns, image.accounts)
    columns, words = with_counts(image, words)
    leaves = build_leaves(next_epoch(previous), image.accounts, words, master_secret)
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
    _require_canonical("the parameter set", image.parameters)
    for detail, subaccount_id in {account.detail: account.subaccount_id for account in image.accounts}.items():
        _require_canonical(f"the detail of subaccount {subaccount_id}", detail)


def with_counts(image: Image, words: Words) -> tuple[list[str], Words]:
    """Add the counting columns: 1 for every account, and 1 where net equity is below zero.   [R-7]

    Of a pair `X_plus`, `X_minus` at most one may be non-zero: a signed quantity has one sign.   [R-2]
    """
    columns = image.columns
    non_zero: npt.NDArray[np.bool_] = np.asarray(words.any(axis=2))
    for plus, name in enumerate(columns):
        opposite = name.removesuffix("_plus") + "_minus"
        if name.endswith("_plus") and opposite in columns:
            both = non_zero[:, plus] & non_zero[:, columns.index(opposite)]
            if both.any():
                account = image.accounts[int(both.argmax())]
                raise BuildRefused(f"subaccount {account.subaccount_id}: both {name} and {opposite} are non-zero")

    counts = np.ones((len(words), 1), dtype=np.uint64)
    names = [*columns, COUNT_COLUMN]
    if NET_EQUITY_MINUS in columns:
        below_zero = non_zero[:, columns.index(NET_EQUITY_MINUS), np.newaxis].astype(np.uint64)
        counts = np.concatenate([counts, below_zero], axis=1)
        names.append(NEGATIVE_COLUMN)
    return names, np.concatenate([words, np.stack([np.zeros_like(counts), counts], axis=2)], axis=1)


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
        canonical = canonical_json(_DECODER.decode(text))
    except ValueError as error:
        raise BuildRefused(f"{what} is not JSON without fractions: {error}") from error
    if canonical != text or not text.startswith("{"):
        raise BuildRefused(f"{what} is not an object in canonical JSON: {text[:80]}")


def _no_fractions(spelled: str) -> Any:
    raise ValueError(f"{spelled} is not a whole number")


_DECODER = json.JSONDecoder(parse_float=_no_fractions)


def _decimals(vector: tuple[int, ...]) -> list[str]:
    return [str(amount) for amount in vector]
