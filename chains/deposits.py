"""The states of a deposit, and the only functions that change one.   [D-5]"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from chains.adapter import Transfer
from chains.schema import deposit_events, deposits


class State(StrEnum):
    """seen → confirming → screening → credited → withdrawable → swept, and the side states.   [D-5]

    An orphaned row returns to `seen` when its transaction is included again; `credited orphaned` is the alarm
    state: credited, but its block is gone. `reversed` is where that ends when the transaction does not come back.
    `funding` is the operator's own coin on its way to the hot wallet, `funded` when the ledger has it.
    """

    SEEN = "seen"
    CONFIRMING = "confirming"
    SCREENING = "screening"
    CREDITED = "credited"
    WITHDRAWABLE = "withdrawable"
    SWEPT = "swept"
    ORPHANED = "orphaned"
    CREDITED_ORPHANED = "credited orphaned"
    REVERSED = "reversed"
    HELD = "held"
    DUST = "dust"
    UNATTRIBUTED = "unattributed"
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"
    REJECTED = "rejected"
    FUNDING = "funding"
    FUNDED = "funded"


UNDECIDED = (State.SEEN, State.CONFIRMING, State.SCREENING, State.FUNDING)
"""On chain, not in the ledger yet."""

PARKED = (State.HELD, State.UNATTRIBUTED)
"""On chain, and not in the ledger until an operator decides."""

BOOKED = (State.CREDITED, State.WITHDRAWABLE, State.SWEPT, State.FUNDED, State.DUST)
"""In the ledger, or in the dust."""

UNTOLD = "its block is gone, the exchange does not know yet"
INCLUDED_AGAIN = "included again"
RELEASED = "released by "
"""Reasons that decide what happens next; every other reason is for people only."""


def move(connection: sa.Connection, row: sa.Row[Any], state: State, now_us: int, reason: str = "",
         **values: Any) -> None:  # fmt: skip
    """Put a deposit row into a state, with a line in its history."""
    updated = {"state": state, "reason": reason, **values}
    connection.execute(sa.update(deposits).where(deposits.c.id == row.id).values(**updated))
    record(
        connection, row.id, state, values.get("height", row.height), values.get("block_hash", row.block_hash),
        now_us, reason,
    )  # fmt: skip


def record(
    connection: sa.Connection, deposit_id: int, state: State, height: int, block_hash: str, now_us: int, reason: str
) -> None:
    """Append a line to a deposit's history."""
    connection.execute(
        sa.insert(deposit_events).values(
            deposit_id=deposit_id, at_us=now_us, state=state, height=height, block_hash=block_hash, reason=reason
        )
    )


def is_same(row: sa.Row[Any], transfer: Transfer) -> bool:
    """Whether a deposit row says of a transfer what the chain says, in every field.   [D-7]"""
    return (row.tx_id, row.idx, row.kind, row.sender, row.address, row.contract, row.amount, row.received) == (
        transfer.tx_id, transfer.index, transfer.kind, transfer.sender, transfer.recipient, transfer.contract,
        str(transfer.amount), str(transfer.received),
    )  # fmt: skip
