"""The block log, for anybody: headers, the newest checkpoint, and proofs that it only ever grew.   [W-7, A-8b]"""

from __future__ import annotations

import asyncio
from base64 import b64encode

from api.codec import naive_iso
from api.contract import Base64, NaiveTime, Wire
from api.errors import bad_request, not_found
from api.rest.proofs import (
    CheckpointAnswer,
    ConsistencyAnswer,
    ConsistencyQuery,
    Hash,
    InclusionAnswer,
    RowsQuery,
    TreeQuery,
)
from api.rest.route import Answer, Call, Route, page_of, paged
from ledger import merkle
from ledger.blocks import BlockHeader, encode_header
from ledger.store import Store


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


async def get_blocks(call: Call) -> Answer:
    """Newest first unless `sortDirection=Asc`."""
    query: RowsQuery = call.query
    page = page_of(query.limit, query.offset, query.sort_direction)
    store = call.node.store

    def read() -> tuple[list[BlockRow], int]:
        total = _tip_height(store) + 1
        if page.ascending:
            first, last = page.offset, min(page.offset + page.limit, total) - 1
        else:
            last = total - 1 - page.offset
            first = max(0, last - page.limit + 1)
        rows = [_block_row(*found) for found in store.blocks(first, last)] if first <= last else []
        return (rows if page.ascending else rows[::-1]), total

    rows, total = await asyncio.to_thread(read)
    return paged(rows, page, total)


async def get_latest_block(call: Call) -> BlockRow:
    store = call.node.store
    found = await asyncio.to_thread(lambda: store.block(_tip_height(store)))
    assert found is not None, "the newest block is in the log"
    return _block_row(*found)


async def get_block_consistency(call: Call) -> ConsistencyAnswer:
    """That the log of an older checkpoint is a prefix of a newer one: nothing was rewritten.   [A-8b]"""
    query: ConsistencyQuery = call.query
    hashes = await _block_hashes(call, query.second)
    if not 0 < query.first <= len(hashes):
        raise bad_request(f"first {query.first} is not between 1 and {len(hashes)}", "INVALID_RANGE")
    path = await asyncio.to_thread(merkle.consistency_proof, hashes, query.first)
    first_root = await asyncio.to_thread(merkle.root, hashes[: query.first])
    second_root = await asyncio.to_thread(merkle.root, hashes)
    return ConsistencyAnswer(
        query.first, len(hashes), first_root.hex(), second_root.hex(), [step.hex() for step in path]
    )


async def get_block(call: Call) -> BlockRow:
    height = call.number("height")
    found = await asyncio.to_thread(call.node.store.block, height)
    if found is None:
        raise not_found()
    return _block_row(*found)


async def get_block_proof(call: Call) -> InclusionAnswer:
    """That a block is in the log of a checkpoint.   [A-8b]"""
    height = call.number("height")
    hashes = await _block_hashes(call, call.query.size)
    if height >= len(hashes):
        raise not_found()
    path = await asyncio.to_thread(merkle.inclusion_proof, hashes, height)
    root = await asyncio.to_thread(merkle.root, hashes)
    return InclusionAnswer(height, len(hashes), hashes[height].hex(), [step.hex() for step in path], root.hex())


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


def _tip_height(store: Store) -> int:
    tip = store.tip()
    assert tip is not None, "a node that serves has at least the genesis block"
    return tip.header.height


async def _block_hashes(call: Call, size: int | None) -> list[bytes]:
    """The first `size` leaves of the block log, as many as the newest checkpoint has when None."""
    checkpoint = call.node.checkpoints.newest
    if checkpoint is None:
        raise not_found()
    if size is None:
        size = checkpoint.size
    if not 0 < size <= checkpoint.size:
        raise bad_request(f"size {size} is not between 1 and {checkpoint.size}", "INVALID_RANGE")
    return await asyncio.to_thread(call.node.store.block_hashes, 0, size - 1)


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


ROUTES = [
    Route(
        method="GET",
        path="/satchel/v1/blocks",
        handler=get_blocks,
        summary="Headers of the journal's blocks",
        tag="Ledger",
        query=RowsQuery,
        answer=list[BlockRow],
        paged=True,
    ),
    Route(
        method="GET",
        path="/satchel/v1/blocks/latest",
        handler=get_latest_block,
        summary="The newest durable block",
        tag="Ledger",
        answer=BlockRow,
    ),
    Route(
        method="GET",
        path="/satchel/v1/blocks/consistency",
        handler=get_block_consistency,
        summary="Consistency proof between two sizes of the block log",
        tag="Ledger",
        query=ConsistencyQuery,
        answer=ConsistencyAnswer,
        time_range=True,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/blocks/{height}",
        handler=get_block,
        summary="One block's header",
        tag="Ledger",
        answer=BlockRow,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/blocks/{height}/proof",
        handler=get_block_proof,
        summary="Inclusion proof of a block in the block log",
        tag="Ledger",
        query=TreeQuery,
        answer=InclusionAnswer,
        time_range=True,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/checkpoint",
        handler=get_checkpoint,
        summary="The newest signed checkpoint of the block log",
        tag="Ledger",
        answer=CheckpointAnswer,
        statuses=(404,),
    ),
]
