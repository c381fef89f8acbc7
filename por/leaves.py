"""Accounts become leaves: salts, identity commitments, order, and the bytes that are hashed.   [R-2, R-3]"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from por.canonical import (
    COLUMN_BYTES,
    HASH_BYTES,
    JSON_INTEGER_LIMIT,
    LEAF_LIMIT,
    TAG_DETAIL,
    TAG_IDENTITY,
    TAG_LEAF,
    TAG_SALT,
    TAG_USER_SECRET,
    BuildRefused,
    position_bytes,
    text_hash,
)
from por.image import Account

Bytes2D = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

PREFIX_BYTES = 16 + 8 + 1 + 8
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Leaves:
    """All leaves of one epoch in tree order: rows of the same index belong together.

    `amounts` holds each column as 16 big-endian bytes, `hashes` the 32-byte leaf hashes, one row per account.
    """

    epoch: int
    subaccount_ids: list[int]
    user_ids: list[int]
    details: list[str]
    salts: Bytes2D
    amounts: Bytes2D
    hashes: Bytes2D

    def __len__(self) -> int:
        return len(self.subaccount_ids)

    def amounts_of(self, index: int) -> tuple[int, ...]:
        """The columns of one leaf as integers."""
        row = self.amounts[index].tobytes()
        return tuple(int.from_bytes(row[at : at + COLUMN_BYTES], "big") for at in range(0, len(row), COLUMN_BYTES))


def build_leaves(epoch: int, accounts: list[Account], words: Words, master_secret: bytes) -> Leaves:
    """Encode every account and put it in this epoch's order, or refuse, naming the first account that is wrong.

    The order is that of the identity commitments: a new permutation each epoch for whoever lacks the master
    secret, and strictly increasing, so that an auditor sees at once that nobody is there twice. `words` is
    what `amount_words` made of the accounts, with whatever columns were added to it.   [R-3]
    """
    require_distinct(accounts)

    secrets: dict[int, bytes] = {}
    details: dict[str, bytes] = {}
    salts, identities, detail_hashes = [], [], []
    for account in accounts:
        secret = secrets.get(account.user_id)
        if secret is None:
            secret = secrets[account.user_id] = user_secret(master_secret, account.user_id)
        detail_hash = details.get(account.detail)
        if detail_hash is None:
            detail_hash = details[account.detail] = text_hash(TAG_DETAIL, account.detail)
        salt = leaf_salt(secret, epoch, account.subaccount_id)
        salts.append(salt)
        identities.append(identity(account.user_id, account.subaccount_id, salt))
        detail_hashes.append(detail_hash)

    identity_rows = _rows(identities)
    order = _order(identity_rows)
    in_order = [accounts[i] for i in order.tolist()]
    salt_rows = _rows(salts)[order]
    amount_rows = _big_endian(words)[order]
    return Leaves(
        epoch=epoch,
        subaccount_ids=[account.subaccount_id for account in in_order],
        user_ids=[account.user_id for account in in_order],
        details=[account.detail for account in in_order],
        salts=salt_rows,
        amounts=amount_rows,
        hashes=_leaf_hashes(epoch, salt_rows, identity_rows[order], _rows(detail_hashes)[order], amount_rows),
    )


def restore_leaves(
    epoch: int, subaccount_ids: list[int], user_ids: list[int], details: list[str], salts: bytes, amounts: bytes
) -> Leaves:
    """Leaves in tree order from what was stored of them; the hashes are computed again."""
    salt_rows = np.frombuffer(salts, dtype=np.uint8).reshape(-1, HASH_BYTES)
    row_bytes = len(amounts) // max(1, len(salt_rows))
    amount_rows = np.frombuffer(amounts, dtype=np.uint8).reshape(len(salt_rows), row_bytes)
    identities = [
        identity(user_id, subaccount_id, salt.tobytes())
        for user_id, subaccount_id, salt in zip(user_ids, subaccount_ids, salt_rows, strict=True)
    ]
    detail_hashes = [text_hash(TAG_DETAIL, detail) for detail in details]
    return Leaves(
        epoch=epoch,
        subaccount_ids=subaccount_ids,
        user_ids=user_ids,
        details=details,
        salts=salt_rows,
        amounts=amount_rows,
        hashes=_leaf_hashes(epoch, salt_rows, _rows(identities), _rows(detail_hashes), amount_rows),
    )


def user_secret(master_secret: bytes, user_id: int) -> bytes:
    """The secret of one user, from which all their salts follow: HMAC-SHA256(master, user id).   [R-3]"""
    return hmac.digest(master_secret, TAG_USER_SECRET + user_id.to_bytes(8, "big"), "sha256")


def leaf_salt(secret: bytes, epoch: int, subaccount_id: int) -> bytes:
    """The salt of one leaf in one epoch: HMAC-SHA256(user secret, epoch, subaccount id).   [R-3]"""
    return hmac.digest(secret, TAG_SALT + epoch.to_bytes(8, "big") + subaccount_id.to_bytes(8, "big"), "sha256")


def identity(user_id: int, subaccount_id: int, salt: bytes) -> bytes:
    """Who a leaf belongs to, hidden by its salt. The holder opens it, so one leaf cannot serve two users.   [R-2]"""
    ids = user_id.to_bytes(8, "big") + subaccount_id.to_bytes(8, "big")
    return hashlib.sha256(TAG_IDENTITY + ids + salt).digest()


def require_distinct(accounts: list[Account]) -> None:
    """One leaf per subaccount, with identifiers that JSON can carry."""
    seen: set[int] = set()
    for account in accounts:
        for name, number in (("subaccount", account.subaccount_id), ("user", account.user_id)):
            if not 0 <= number < JSON_INTEGER_LIMIT:
                raise BuildRefused(f"{name} id {number} is outside 0 … {JSON_INTEGER_LIMIT - 1}")
        if account.subaccount_id in seen:
            raise BuildRefused(f"subaccount {account.subaccount_id} appears twice")
        seen.add(account.subaccount_id)


def amount_words(columns: list[str], accounts: list[Account]) -> Words:
    """The amounts as (account, column, [high, low]) 64-bit words; refuses what is negative or at least 2^87."""
    width = len(columns)
    for account in accounts:
        if len(account.amounts) != width:
            raise BuildRefused(
                f"subaccount {account.subaccount_id}: {len(account.amounts)} amounts for {width} columns"
            )

    words = np.zeros((len(accounts), width, 2), dtype=np.uint64)
    if not accounts or not width:
        return words

    table = np.array([account.amounts for account in accounts])
    # Anything but a machine integer (numpy turns large ones into floats) takes the slow exact path.
    if table.dtype.kind == "i" and int(table.min()) >= 0:
        words[:, :, 1] = table.astype(np.uint64)
        return words

    for row, account in enumerate(accounts):
        for column, amount in enumerate(account.amounts):
            require_column(account, columns[column], amount)
            words[row, column, 0] = amount >> 64
            words[row, column, 1] = amount & _WORD
    return words


def require_column(account: Account, column: str, amount: int) -> None:
    """An amount is an integer, not negative, and below the cap of a leaf."""
    if type(amount) is not int:
        raise BuildRefused(f"subaccount {account.subaccount_id}: column {column} is {amount!r}, not an integer")
    if amount < 0:
        raise BuildRefused(f"subaccount {account.subaccount_id}: column {column} is negative: {amount}")
    if amount >= LEAF_LIMIT:
        raise BuildRefused(
            f"subaccount {account.subaccount_id}: column {column} overflows: {amount}, the limit is {LEAF_LIMIT}"
        )


def _leaf_hashes(epoch: int, salts: Bytes2D, identities: Bytes2D, details: Bytes2D, amounts: Bytes2D) -> Bytes2D:
    count = len(salts)
    preimages = np.empty((count, PREFIX_BYTES + 3 * HASH_BYTES + amounts.shape[1]), dtype=np.uint8)
    write_positions(preimages, TAG_LEAF, epoch, 0)
    at = PREFIX_BYTES
    for part in (salts, identities, details, amounts):
        preimages[:, at : at + part.shape[1]] = part
        at += part.shape[1]
    return hash_rows(preimages)


def write_positions(preimages: Bytes2D, tag: bytes, epoch: int, level: int, first: int = 0) -> None:
    """Open each row with its position; row i gets index first + i."""
    preimages[:, :PREFIX_BYTES] = np.frombuffer(position_bytes(tag, epoch, level, 0), dtype=np.uint8)
    indices = np.arange(first, first + len(preimages), dtype=">u8").view(np.uint8).reshape(-1, 8)
    preimages[:, PREFIX_BYTES - 8 : PREFIX_BYTES] = indices


def hash_rows(preimages: Bytes2D) -> Bytes2D:
    """SHA-256 of each row. One contiguous buffer and memoryview slices: the call itself is what costs."""
    sha = hashlib.sha256
    width = preimages.shape[1]
    view = memoryview(preimages.tobytes())
    return _rows([sha(view[at : at + width]).digest() for at in range(0, len(view), width)])


def _rows(digests: list[bytes]) -> Bytes2D:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, HASH_BYTES)


def _order(identities: Bytes2D) -> npt.NDArray[np.intp]:
    """The row numbers in increasing order of the 32-byte commitments."""
    words = np.ascontiguousarray(identities).view(">u8").reshape(-1, 4)
    return np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0]))


def _big_endian(words: Words) -> Bytes2D:
    return words.astype(">u8").view(np.uint8).reshape(len(words), words.shape[1] * COLUMN_BYTES)
