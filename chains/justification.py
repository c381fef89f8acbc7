"""Whether a stored payment is one the exchange asked for: the database alone is no reason to sign.   [D-8, D-10]

Whoever can write to the database can write a row of `chain_nonces`. So each is held against what cannot be written
there: the engine's own withdrawals, and the addresses that our keys give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from chains.exchange import Token, Withdrawal

HOT_WALLET = 0
MOST_WALLETS = 1 << 31


def objection(
    row: sa.Row[Any],
    token: Token | None,
    withdrawal: Callable[[int], Withdrawal | None],
    address: Callable[[int], str],
    normalize: Callable[[str], str | None],
) -> str:
    """Why a row of `chain_nonces` must not be signed, sent or believed; "" when the exchange stands behind it.

    `token` is what the row's asset is on this chain, `withdrawal` the engine's answer, `address` what a wallet's keys
    give. Base units are compared exactly, nothing is rounded.
    """
    if any(not 0 <= wallet < MOST_WALLETS for wallet in (row.wallet, row.recipient_wallet or 0)):
        return f"no such wallet: {row.wallet} or {row.recipient_wallet}"
    match row.purpose:
        case "withdrawal":
            return _against_withdrawal(row, token, withdrawal, address, normalize)
        case "sweep" if row.wallet != HOT_WALLET and row.recipient_wallet == HOT_WALLET:
            return _against_move(row, token, f"sweep:{row.wallet}:", address)
        case "topup" if row.wallet == HOT_WALLET and row.recipient_wallet and row.contract == "":
            return _against_move(row, token, f"topup:{row.recipient_wallet}:", address)
        case "gap" if (row.reference, row.contract, row.amount) == (f"gap:{row.wallet}:{row.nonce}", "", "0"):
            own = address(row.wallet)
            return "" if row.recipient == own else f"a filled gap pays {row.recipient}, not {own} itself"
        case _:
            return f"nobody asks for {row.purpose!r} from wallet {row.wallet} to wallet {row.recipient_wallet}"


def _against_withdrawal(
    row: sa.Row[Any],
    token: Token | None,
    withdrawal: Callable[[int], Withdrawal | None],
    address: Callable[[int], str],
    normalize: Callable[[str], str | None],
) -> str:
    number = row.reference.removeprefix("withdrawal:")
    if not number.isdecimal() or row.reference != f"withdrawal:{int(number)}" or row.wallet != HOT_WALLET:
        return f"{row.reference} from wallet {row.wallet} names no withdrawal"
    found = withdrawal(int(number))
    if found is None or found.state != "approved" or found.chain_id != row.chain_id:
        return f"the exchange has no approved withdrawal {number} on chain {row.chain_id}"
    if token is None or token.asset_id != found.asset_id or token.contract != row.contract:
        return f"withdrawal {number} is of asset {found.asset_id}, the row pays {row.asset_id} {row.contract}"
    recipient, base = normalize(found.address), found.atoms * token.base_per_atom
    if row.recipient != recipient:
        return f"withdrawal {number} goes to {recipient}, the row pays {row.recipient}"
    if row.amount != str(base):
        return f"withdrawal {number} is of {base} base units, the row pays {row.amount}"
    return "" if row.recipient_wallet is None else f"withdrawal {number} is no move to wallet {row.recipient_wallet}"


def _against_move(row: sa.Row[Any], token: Token | None, name: str, address: Callable[[int], str]) -> str:
    """A move between our own wallets: where it goes is derived, not read."""
    if not row.reference.startswith(name):
        return f"{row.reference} is not named {name}…"
    to = address(row.recipient_wallet)
    if row.recipient != to:
        return f"{row.reference} pays {row.recipient}, wallet {row.recipient_wallet} is {to}"
    if token is None or token.contract != row.contract:
        return f"asset {row.asset_id} is not {row.contract or 'the native coin'}"
    amount = row.amount
    if not amount.isdecimal() or int(amount) == 0 or int(amount) % token.base_per_atom:
        return f"{row.reference} moves {amount} base units, no whole atoms of {token.symbol}"
    return ""
