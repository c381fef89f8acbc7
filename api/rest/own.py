"""Our own routes: subaccounts, keys, transfers; blocks, receipts, statements; epochs and proofs; operations.   [W-7]

Block headers, epochs and their logs are public: they are what anybody checks the exchange with. What a journal
transaction says is for those it touches.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.codec import naive_iso
from api.contract import Decimal, NaiveTime, Query, Request, UInt64, Wire
from api.errors import ApiError, bad_request, not_found
from api.requests import asset_of
from api.rest.route import Answer, Call, Route, page_of, paged
from engine.events import KeyAdded, KeyRevoked, TransferMade
from ledger import merkle
from ledger.amounts import format_decimal
from ledger.balances import NoSuchBlock, statement, subaccount_balances
from ledger.blocks import BlockHeader, encode_header
from ledger.chart import AccountKind, account_id, account_name, kind_of, owner_of
from ledger.journal import JournalKind, SealedTransaction
from ledger.receipts import make_receipt
from por.store import LeavesGone

PREFIX = "/satchel/v1"

Hash = Annotated[str, Meta(description="32 bytes in hexadecimal")]
Base64 = Annotated[str, Meta(description="bytes in base64")]

_OWNED_KINDS = (AccountKind.AVAILABLE, AccountKind.WITHDRAWING, AccountKind.RECEIVABLE)


# Requests.


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


class OperatorPayload(Request):
    command: str
    arguments: str
    """A JSON object with the command's fields, by the engine's names and in its integer scales."""


class BlocksQuery(Query):
    limit: UInt64 | None = None
    offset: UInt64 | None = None
    sort_direction: Annotated[str, Meta(pattern="^(Asc|Desc)$")] | None = None


class TreeQuery(Query):
    size: UInt64 | None = None
    """Number of leaves of the tree that the proof is for; the newest checkpoint's when absent."""


class ConsistencyQuery(Query):
    first: UInt64
    """Size of the older tree."""
    second: UInt64 | None = None
    """Size of the newer tree; the newest checkpoint's when absent."""


class StatementQuery(Query):
    from_block: UInt64 = 0
    to_block: UInt64 | None = None
    symbol: str | None = None
    limit: UInt64 | None = None
    offset: UInt64 | None = None


class AsOfQuery(Query):
    block: UInt64 | None = None
    """Height; now when absent."""


class ProofQuery(Query):
    known: list[UInt64] = msgspec.field(default_factory=list)
    """Sizes of the epoch log that the customer has seen before: the proof connects to each.   [R-20]"""


# Answers.


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


class BlockRow(Wire):
    """A block's header. `header` are the very bytes that, after `satchel block v1\\n`, are signed.   [A-7]"""

    height: int
    hash: Hash
    previous_hash: Hash
    at: NaiveTime
    first_command: int
    command_count: int
    commands_root: Hash
    first_journal: int
    journal_count: int
    journal_root: Hash
    journal_head: Hash
    log_root: Hash
    public_key: Base64
    header: Base64
    signature: Base64


class CheckpointAnswer(Wire):
    """The log of blocks as it stands: size, root and signature in a C2SP note.   [A-8b]"""

    size: int
    root: Hash
    note: str
    public_key: Base64


class InclusionAnswer(Wire):
    """RFC 9162: leaf `index` is in the tree of `size` leaves with `root`."""

    index: int
    size: int
    leaf: Hash
    path: list[Hash]
    root: Hash


class ConsistencyAnswer(Wire):
    """RFC 9162: the tree of `first` leaves is a prefix of the tree of `second`."""

    first: int
    second: int
    first_root: Hash
    second_root: Hash
    path: list[Hash]


class StatementRow(Wire):
    """One posting on the subaccount; `quantity` above zero was credited, `balance` is the account's after it."""

    journal: int
    block: int
    command: int
    at: NaiveTime
    kind: str
    account: str
    symbol: str
    quantity: Decimal
    balance: Decimal


class AsOfBalance(Wire):
    available: Decimal
    """What open orders lock included."""
    withdrawing: Decimal


class EpochRow(Wire):
    epoch: int
    hour: int | None
    at: NaiveTime
    block_height: int
    kind: str
    """`epoch`, or `missed` for an hour without one.   [R-24]"""
    hash: Hash


class OperatorAnswer(Wire):
    reply: Any


# Accounts.


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


# The ledger.


async def get_blocks(call: Call) -> Answer:
    """Newest first unless `sortDirection=Asc`."""
    query: BlocksQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    store = call.node.store

    def read() -> tuple[list[BlockRow], int]:
        tip = store.tip()
        total = tip.header.height + 1
        if page.ascending:
            first, last = page.offset, min(page.offset + page.limit, total) - 1
        else:
            last = total - 1 - page.offset
            first = max(0, last - page.limit + 1)
        rows = [_block_row(*found) for found in store.blocks(first, last)] if first <= last else []
        return (rows if page.ascending else rows[::-1]), total

    rows, total = await asyncio.to_thread(read)
    return paged(rows, page, total)


async def get_block(call: Call) -> BlockRow:
    height = _number(call, "height")
    found = await asyncio.to_thread(call.node.store.block, height)
    if found is None:
        raise not_found()
    return _block_row(*found)


async def get_latest_block(call: Call) -> BlockRow:
    store = call.node.store
    found = await asyncio.to_thread(lambda: store.block(store.tip().header.height))
    return _block_row(*found)


async def get_block_proof(call: Call) -> InclusionAnswer:
    """That a block is in the log of a checkpoint.   [A-8b]"""
    height = _number(call, "height")
    hashes = await _block_hashes(call, call.query.size)
    if height >= len(hashes):
        raise not_found()
    path = await asyncio.to_thread(merkle.inclusion_proof, hashes, height)
    return InclusionAnswer(
        height, len(hashes), hashes[height].hex(), [step.hex() for step in path], merkle.root(hashes).hex()
    )


async def get_block_consistency(call: Call) -> ConsistencyAnswer:
    """That the log of an older checkpoint is a prefix of a newer one: nothing was rewritten.   [A-8b]"""
    query: ConsistencyQuery = call.query
    hashes = await _block_hashes(call, query.second)
    if not 0 < query.first <= len(hashes):
        raise bad_request(f"first {query.first} is not between 1 and {len(hashes)}", "INVALID_RANGE")
    path = await asyncio.to_thread(merkle.consistency_proof, hashes, query.first)
    return ConsistencyAnswer(
        query.first,
        len(hashes),
        merkle.root(hashes[: query.first]).hex(),
        merkle.root(hashes).hex(),
        [step.hex() for step in path],
    )


async def get_checkpoint(call: Call) -> CheckpointAnswer:
    checkpoint = call.node.checkpoints.newest
    if checkpoint is None:
        raise not_found()
    return CheckpointAnswer(
        checkpoint.size,
        checkpoint.root.hex(),
        checkpoint.note,
        b64encode(call.node.checkpoints.signer.public_key).decode(),
    )


async def get_receipt(call: Call) -> dict[str, Any]:
    """A journal transaction with what proves it, offline, to whoever has the exchange's key; for those it touches.

    It shows the whole transaction: of a trade also the other side's subaccount number and amounts.   [A-4]
    """
    seq = _number(call, "journal")
    if seq == 0:
        # Journal transactions are numbered from 1.
        raise not_found()
    store = call.node.store
    user = call.state.users[call.key.user_id]
    own = {account_id(kind, number) for kind in _OWNED_KINDS for number in user.subaccount_ids}

    def read() -> dict[str, Any] | None:
        entry = next(iter(store.journal(seq, seq)), None)
        if entry is None:
            return None
        touched = [account for account, _asset, _atoms in entry.postings if account in own]
        rows = _batch_accounts(entry, own)
        if not touched and not rows:
            command = next(iter(store.commands(entry.command_seq, entry.command_seq)))
            if command.request is None or command.request.api_key not in user.keys:
                return None
        return make_receipt(store, seq, rows[0] if rows else None)

    receipt = await asyncio.to_thread(read)
    if receipt is None:
        raise not_found()
    return receipt


async def get_statement(call: Call) -> Answer:
    """Every posting on the signer's subaccount in a range of blocks, oldest first, with running balances.   [A-12]"""
    query: StatementQuery = call.query
    page = page_of(query.limit, query.offset)
    state, reader = call.state, call.node.store.engine
    accounts = [account_id(kind, call.key.subaccount_id) for kind in _OWNED_KINDS]
    asset_id = None if query.symbol is None else asset_of(query.symbol, state)

    def read() -> list[StatementRow]:
        return [
            StatementRow(
                journal=line.journal_seq,
                block=line.block_height,
                command=line.command_seq,
                at=naive_iso(line.at_us),
                kind=JournalKind(line.kind).name,
                account=account_name(line.account),
                symbol=state.assets[line.asset].symbol,
                # What the exchange owes is a credit in its books, and the customer's own.
                quantity=format_decimal(-line.atoms, state.assets[line.asset].decimals),
                balance=format_decimal(-line.balance, state.assets[line.asset].decimals),
            )
            for line in statement(reader, accounts, query.from_block, query.to_block)
            if asset_id is None or line.asset == asset_id
        ]

    rows = await _as_of(read)
    return paged(rows[page.offset : page.offset + page.limit], page, len(rows))


async def get_balances(call: Call) -> dict[str, AsOfBalance]:
    """What the signer's subaccount held after any past block.   [A-12]"""
    state, reader = call.state, call.node.store.engine
    held = await _as_of(lambda: subaccount_balances(reader, call.key.subaccount_id, call.query.block))
    rows: dict[str, AsOfBalance] = {}
    for asset_id, asset in state.assets.items():
        available = held.get((AccountKind.AVAILABLE, asset_id), 0)
        withdrawing = held.get((AccountKind.WITHDRAWING, asset_id), 0)
        if available or withdrawing:
            rows[asset.symbol] = AsOfBalance(
                format_decimal(available, asset.decimals), format_decimal(withdrawing, asset.decimals)
            )
    return rows


async def _as_of(read: Any) -> Any:
    try:
        return await asyncio.to_thread(read)
    except NoSuchBlock as error:
        raise ApiError(404, "RESOURCE_NOT_FOUND", str(error)) from None


async def _block_hashes(call: Call, size: int | None) -> list[bytes]:
    """The first `size` leaves of the block log, as many as the newest checkpoint has when None."""
    checkpoint = call.node.checkpoints.newest
    if checkpoint is None:
        raise not_found()
    if size is None:
        size = checkpoint.size
    if not 0 < size <= checkpoint.size:
        raise bad_request(f"size {size} is not between 1 and {checkpoint.size}", "INVALID_RANGE")
    hashes: list[bytes] = await asyncio.to_thread(call.node.store.block_hashes, 0, size - 1)
    return hashes


def _batch_accounts(entry: SealedTransaction, own: set[int]) -> list[int]:
    """Those of the accounts that have a row in one of the transaction's columnar batches."""
    return [
        account
        for account in sorted(own)
        for batch in entry.batches
        if batch.account_kind == kind_of(account) and batch.atoms_of(owner_of(account))
    ]


def _block_row(header: BlockHeader, digest: bytes, signature: bytes) -> BlockRow:
    return BlockRow(
        height=header.height,
        hash=digest.hex(),
        previous_hash=header.previous_hash.hex(),
        at=naive_iso(header.at_us),
        first_command=header.first_command,
        command_count=header.command_count,
        commands_root=header.commands_root.hex(),
        first_journal=header.first_journal,
        journal_count=header.journal_count,
        journal_root=header.journal_root.hex(),
        journal_head=header.journal_head.hex(),
        log_root=header.log_root.hex(),
        public_key=b64encode(header.public_key).decode(),
        header=b64encode(encode_header(header)).decode(),
        signature=b64encode(signature).decode(),
    )


# Proof of reserves.


async def get_epochs(call: Call) -> Answer:
    """Rows of the epoch log, newest first: every hour has one.   [R-24]"""
    query: BlocksQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    rows = call.node.epochs.log.rows
    ordered = rows if page.ascending else rows[::-1]
    return paged(
        [
            EpochRow(
                epoch=row.epoch,
                hour=row.hour,
                at=naive_iso(row.at_us),
                block_height=row.block_height,
                kind="missed" if hasattr(row, "reason") else "epoch",
                hash=row.hash().hex(),
            )
            for row in ordered[page.offset : page.offset + page.limit]
        ],
        page,
        len(rows),
    )


async def get_epoch(call: Call) -> Answer:
    """The row's canonical text, byte for byte what its hash is over.   [R-5]"""
    return _text(_epoch_row(call).text())


async def get_latest_epoch(call: Call) -> Answer:
    last = call.node.epochs.log.last
    if last is None:
        raise not_found()
    return _text(last.text())


async def get_epoch_proof(call: Call) -> dict[str, Any]:
    """The signer's inclusion proof, for the standalone verifier.   [R-22]"""
    number = _number(call, "epoch")
    try:
        proof: dict[str, Any] = await call.node.epochs.proof(number, call.key.subaccount_id, call.query.known)
    except LeavesGone as error:
        raise ApiError(404, "RESOURCE_NOT_FOUND", str(error)) from None
    except KeyError:
        raise not_found() from None
    return proof


async def get_epoch_log(call: Call) -> dict[str, Any]:
    """The whole log in one document that the standalone verifier checks.   [R-20, R-24]"""
    checkpoint = _epoch_checkpoint(call)
    log: dict[str, Any] = call.node.epochs.log.export(checkpoint.text, checkpoint.public_key)
    return log


async def get_epoch_checkpoint(call: Call) -> CheckpointAnswer:
    checkpoint = _epoch_checkpoint(call)
    log = call.node.epochs.log
    size = int(checkpoint.text.split("\n")[1])
    return CheckpointAnswer(
        size, log.root(size).hex(), checkpoint.text, b64encode(checkpoint.public_key).decode()
    )


async def get_epoch_inclusion(call: Call) -> InclusionAnswer:
    row = _epoch_row(call)
    log = call.node.epochs.log
    size = len(log) if call.query.size is None else call.query.size
    if not row.epoch < size <= len(log):
        raise bad_request(f"size {size} is not between {row.epoch + 1} and {len(log)}", "INVALID_RANGE")
    return InclusionAnswer(
        row.epoch,
        size,
        merkle.leaf_hash(row.hash()).hex(),
        [step.hex() for step in log.inclusion_path(row.epoch, size)],
        log.root(size).hex(),
    )


async def get_epoch_consistency(call: Call) -> ConsistencyAnswer:
    query: ConsistencyQuery = call.query
    log = call.node.epochs.log
    second = len(log) if query.second is None else query.second
    if not 0 < query.first <= second <= len(log):
        raise bad_request(f"first {query.first}, second {second}: not within 1 and {len(log)}", "INVALID_RANGE")
    return ConsistencyAnswer(
        query.first,
        second,
        log.root(query.first).hex(),
        log.root(second).hex(),
        [step.hex() for step in log.consistency_path(query.first, second)],
    )


def _epoch_row(call: Call) -> Any:
    number = _number(call, "epoch")
    rows = call.node.epochs.log.rows
    if number >= len(rows):
        raise not_found()
    return rows[number]


def _epoch_checkpoint(call: Call) -> Any:
    checkpoint = call.node.epochs.checkpoint()
    if checkpoint is None:
        raise not_found()
    return checkpoint


# Operations and health.


async def operate(call: Call) -> OperatorAnswer:
    """A configuration, a price, a new user, an approval, a halt: signed by an operator's key, and in the log."""
    reply = (await call.perform("operatorExecute")).reply
    fields = msgspec.structs.asdict(reply) if isinstance(reply, msgspec.Struct) else reply
    return OperatorAnswer(msgspec.to_builtins(fields))


async def get_live(_call: Call) -> dict[str, str]:
    return {"status": "alive"}


async def get_ready(call: Call) -> Answer:
    """503 while the exchange is not taking commands."""
    if call.node.is_ready():
        return Answer({"status": "ready"})
    return Answer({"status": "stopped"}, status=503)


def _number(call: Call, name: str) -> int:
    text = call.path[name]
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise not_found()
    return int(text)


def _text(canonical: str) -> Answer:
    return Answer(canonical.encode(), content_type="application/json")


def _own(method: str, path: str, handler: Any, summary: str, tag: str, answer: Any, **more: Any) -> Route:
    return Route(
        method=method, path=PREFIX + path, handler=handler, summary=summary, tag=tag, answer=answer, **more
    )


ROUTES = [
    _own(
        "GET",
        "/subaccounts",
        get_subaccounts,
        "The user's subaccounts",
        "Accounts",
        list[SubaccountRow],
        instruction="subaccountQueryAll",
    ),
    _own(
        "POST",
        "/subaccounts",
        open_subaccount,
        "Open a further subaccount with its first API key",
        "Accounts",
        KeyAnswer,
        instruction="subaccountOpen",
        body=OpenSubaccountPayload,
        changes=True,
    ),
    _own("GET", "/keys", get_keys, "The user's API keys", "Accounts", list[KeyRow], instruction="keyQueryAll"),
    _own(
        "POST",
        "/keys",
        add_key,
        "Add an API key to one of the user's subaccounts",
        "Accounts",
        KeyAnswer,
        instruction="keyAdd",
        body=KeyPayload,
        changes=True,
    ),
    _own(
        "DELETE",
        "/keys",
        revoke_key,
        "Revoke an API key",
        "Accounts",
        KeyAnswer,
        instruction="keyRevoke",
        body=KeyPayload,
        changes=True,
    ),
    _own(
        "POST",
        "/transfers",
        transfer,
        "Transfer to another subaccount of the same user",
        "Accounts",
        TransferAnswer,
        instruction="transferExecute",
        body=TransferPayload,
        changes=True,
    ),
    _own(
        "GET",
        "/blocks",
        get_blocks,
        "Headers of the journal's blocks",
        "Ledger",
        list[BlockRow],
        query=BlocksQuery,
        paged=True,
    ),
    _own("GET", "/blocks/latest", get_latest_block, "The newest durable block", "Ledger", BlockRow),
    _own(
        "GET",
        "/blocks/consistency",
        get_block_consistency,
        "Consistency proof between two sizes of the block log",
        "Ledger",
        ConsistencyAnswer,
        query=ConsistencyQuery,
        time_range=True,
        statuses=(404,),
    ),
    _own("GET", "/blocks/{height}", get_block, "One block's header", "Ledger", BlockRow, statuses=(404,)),
    _own(
        "GET",
        "/blocks/{height}/proof",
        get_block_proof,
        "Inclusion proof of a block in the block log",
        "Ledger",
        InclusionAnswer,
        query=TreeQuery,
        time_range=True,
        statuses=(404,),
    ),
    _own(
        "GET",
        "/checkpoint",
        get_checkpoint,
        "The newest signed checkpoint of the block log",
        "Ledger",
        CheckpointAnswer,
        statuses=(404,),
    ),
    _own(
        "GET",
        "/receipts/{journal}",
        get_receipt,
        "Offline receipt of a journal transaction that touches the signer's user",
        "Ledger",
        dict[str, Any],
        instruction="receiptQuery",
        statuses=(404,),
    ),
    _own(
        "GET",
        "/statement",
        get_statement,
        "Postings of the signer's subaccount with running balances",
        "Ledger",
        list[StatementRow],
        instruction="statementQuery",
        query=StatementQuery,
        paged=True,
        statuses=(404,),
    ),
    _own(
        "GET",
        "/balances",
        get_balances,
        "Balances of the signer's subaccount as of any block",
        "Ledger",
        dict[str, AsOfBalance],
        instruction="balanceAsOfQuery",
        query=AsOfQuery,
        statuses=(404,),
    ),
    _own(
        "GET", "/epochs", get_epochs, "Rows of the epoch log", "Proofs", list[EpochRow], query=BlocksQuery, paged=True
    ),
    _own(
        "GET",
        "/epochs/latest",
        get_latest_epoch,
        "The newest epoch's header",
        "Proofs",
        dict[str, Any],
        statuses=(404,),
    ),
    _own(
        "GET",
        "/epochs/log",
        get_epoch_log,
        "The whole epoch log as the standalone verifier reads it",
        "Proofs",
        dict[str, Any],
        time_range=True,
        statuses=(404,),
    ),
    _own(
        "GET",
        "/epochs/log/checkpoint",
        get_epoch_checkpoint,
        "The newest signed checkpoint of the epoch log",
        "Proofs",
        CheckpointAnswer,
        statuses=(404,),
    ),
    _own(
        "GET",
        "/epochs/log/consistency",
        get_epoch_consistency,
        "Consistency proof between two sizes of the epoch log",
        "Proofs",
        ConsistencyAnswer,
        query=ConsistencyQuery,
    ),
    _own(
        "GET",
        "/epochs/{epoch}",
        get_epoch,
        "An epoch's header, canonical",
        "Proofs",
        dict[str, Any],
        statuses=(404,),
    ),
    _own(
        "GET",
        "/epochs/{epoch}/inclusion",
        get_epoch_inclusion,
        "Inclusion proof of an epoch in the epoch log",
        "Proofs",
        InclusionAnswer,
        query=TreeQuery,
        statuses=(404,),
    ),
    _own(
        "GET",
        "/epochs/{epoch}/proof",
        get_epoch_proof,
        "Inclusion proof of the signer's subaccount in an epoch",
        "Proofs",
        dict[str, Any],
        instruction="proofQuery",
        query=ProofQuery,
        statuses=(404,),
    ),
    _own(
        "POST",
        "/operator",
        operate,
        "An operator's command",
        "Operations",
        OperatorAnswer,
        instruction="operatorExecute",
        body=OperatorPayload,
        changes=True,
        operator=True,
    ),
    Route(
        method="GET",
        path="/health/live",
        handler=get_live,
        summary="The process answers",
        tag="Operations",
        answer=dict[str, str],
    ),
    Route(
        method="GET",
        path="/health/ready",
        handler=get_ready,
        summary="The exchange takes commands",
        tag="Operations",
        answer=dict[str, str],
        statuses=(503,),
    ),
]
