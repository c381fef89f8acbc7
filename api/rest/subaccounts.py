"""A user's subaccounts, their API keys, and transfers between them.   [W-7, U-2]"""

from __future__ import annotations

from base64 import b64encode

from msgspec import UNSET, UnsetType

from api.codec import naive_iso
from api.contract import Base64, Decimal, NaiveTime, Request, UInt64, Wire
from api.rest.route import Call, Route
from engine.events import KeyAdded, KeyRevoked, TransferMade


class OpenSubaccountPayload(Request):
    public_key: Base64
    """First API key of the new subaccount."""


class KeyPayload(Request):
    public_key: Base64
    subaccount_id: UInt64 | None | UnsetType = UNSET
    """Which of the user's subaccounts; the signer's when absent."""


class TransferPayload(Request):
    """From the signer's subaccount to another of the same user.   [U-2]"""

    to_subaccount_id: UInt64
    symbol: str
    quantity: Decimal
    auto_borrow: bool | None | UnsetType = UNSET
    """Borrow what is missing.   [S-5]"""


class SubaccountRow(Wire):
    subaccount_id: int
    opened_at: NaiveTime
    open_orders: int
    keys: int


class KeyRow(Wire):
    public_key: Base64
    subaccount_id: int


class KeyAnswer(Wire):
    user_id: int
    subaccount_id: int
    public_key: Base64


class TransferAnswer(Wire):
    from_subaccount_id: int
    to_subaccount_id: int
    symbol: str
    quantity: Decimal


async def get_subaccounts(call: Call) -> list[SubaccountRow]:
    user = call.state.users[call.key.user_id]
    return [
        SubaccountRow(
            subaccount_id=subaccount_id,
            opened_at=naive_iso(call.state.subaccounts[subaccount_id].opened_at_us),
            open_orders=len(call.state.subaccounts[subaccount_id].orders),
            keys=sum(owner == subaccount_id for owner in user.keys.values()),
        )
        for subaccount_id in user.subaccount_ids
    ]


async def open_subaccount(call: Call) -> KeyAnswer:
    return _key_answer((await call.perform("subaccountOpen")).reply)


async def get_keys(call: Call) -> list[KeyRow]:
    keys = call.state.users[call.key.user_id].keys
    return [KeyRow(b64encode(key).decode(), subaccount_id) for key, subaccount_id in keys.items()]


async def add_key(call: Call) -> KeyAnswer:
    return _key_answer((await call.perform("keyAdd")).reply)


async def revoke_key(call: Call) -> KeyAnswer:
    return _key_answer((await call.perform("keyRevoke")).reply)


async def transfer(call: Call) -> TransferAnswer:
    made: TransferMade = (await call.perform("transferExecute")).reply
    return TransferAnswer(
        made.from_subaccount_id,
        made.to_subaccount_id,
        call.codec.symbol(made.asset_id),
        call.codec.amount(made.asset_id, made.atoms),
    )


def _key_answer(reply: KeyAdded | KeyRevoked) -> KeyAnswer:
    return KeyAnswer(reply.user_id, reply.subaccount_id, b64encode(reply.public_key).decode())


ROUTES = [
    Route(
        method="GET",
        path="/satchel/v1/subaccounts",
        handler=get_subaccounts,
        summary="The user's subaccounts",
        tag="Accounts",
        instruction="subaccountQueryAll",
        answer=list[SubaccountRow],
    ),
    Route(
        method="POST",
        path="/satchel/v1/subaccounts",
        handler=open_subaccount,
        summary="Open a further subaccount with its first API key",
        tag="Accounts",
        instruction="subaccountOpen",
        body=OpenSubaccountPayload,
        answer=KeyAnswer,
        changes=True,
    ),
    Route(
        method="GET",
        path="/satchel/v1/keys",
        handler=get_keys,
        summary="The user's API keys",
        tag="Accounts",
        instruction="keyQueryAll",
        answer=list[KeyRow],
    ),
    Route(
        method="POST",
        path="/satchel/v1/keys",
        handler=add_key,
        summary="Add an API key to one of the user's subaccounts",
        tag="Accounts",
        instruction="keyAdd",
        body=KeyPayload,
        answer=KeyAnswer,
        changes=True,
    ),
    Route(
        method="DELETE",
        path="/satchel/v1/keys",
        handler=revoke_key,
        summary="Revoke an API key",
        tag="Accounts",
        instruction="keyRevoke",
        body=KeyPayload,
        answer=KeyAnswer,
        changes=True,
    ),
    Route(
        method="POST",
        path="/satchel/v1/transfers",
        handler=transfer,
        summary="Transfer to another subaccount of the same user",
        tag="Accounts",
        instruction="transferExecute",
        body=TransferPayload,
        answer=TransferAnswer,
        changes=True,
    ),
]
