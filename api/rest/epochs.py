"""Proof of reserves: the epoch log and its proofs for anybody, a subaccount's own proof for its owner.   [W-7, R-20]"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import msgspec

from api.codec import naive_iso
from api.contract import NaiveTime, Query, UInt64, Wire
from api.errors import ApiError, bad_request, not_found
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
from por.header import Header, Missed
from por.store import Checkpoint, LeavesGone


class ProofQuery(Query):
    known: list[UInt64] = msgspec.field(default_factory=list)
    """Sizes of the epoch log that the customer has seen before: the proof connects to each.   [R-20]"""


class EpochRow(Wire):
    epoch: int
    hour: int | None
    at: NaiveTime
    block_height: int
    kind: str
    """`epoch`, or `missed` for an hour without one.   [R-24]"""
    hash: Hash


async def get_epochs(call: Call) -> Answer:
    """Rows of the epoch log, newest first: every hour has one.   [R-24]"""
    query: RowsQuery = call.query
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
                kind="missed" if isinstance(row, Missed) else "epoch",
                hash=row.hash().hex(),
            )
            for row in ordered[page.offset : page.offset + page.limit]
        ],
        page,
        len(rows),
    )


async def get_latest_epoch(call: Call) -> Answer:
    last = call.node.epochs.log.last
    if last is None:
        raise not_found()
    return _text(last.text())


async def get_epoch_log(call: Call) -> dict[str, Any]:
    """The whole log in one document that the standalone verifier checks.   [R-20, R-24]"""
    checkpoint = await _epoch_checkpoint(call)
    return call.node.epochs.log.export(checkpoint.text, checkpoint.public_key)


async def get_epoch_checkpoint(call: Call) -> CheckpointAnswer:
    checkpoint = await _epoch_checkpoint(call)
    log = call.node.epochs.log
    size = int(checkpoint.text.split("\n")[1])
    return CheckpointAnswer(
        size, log.root(size).hex(), checkpoint.text, b64encode(checkpoint.public_key).decode()
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


async def get_epoch(call: Call) -> Answer:
    """The row's canonical text, byte for byte what its hash is over.   [R-5]"""
    return _text(_epoch_row(call).text())


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


async def get_epoch_proof(call: Call) -> dict[str, Any]:
    """The signer's inclusion proof, for the standalone verifier.   [R-22]"""
    number = call.number("epoch")
    try:
        return await call.node.epochs.proof(number, call.key.subaccount_id, call.query.known)
    except LeavesGone as error:
        raise ApiError(404, "RESOURCE_NOT_FOUND", str(error)) from None
    except KeyError:
        raise not_found() from None


def _epoch_row(call: Call) -> Header | Missed:
    number = call.number("epoch")
    rows = call.node.epochs.log.rows
    if number >= len(rows):
        raise not_found()
    return rows[number]


async def _epoch_checkpoint(call: Call) -> Checkpoint:
    checkpoint = await asyncio.to_thread(call.node.epochs.checkpoint)
    if checkpoint is None:
        raise not_found()
    return checkpoint


def _text(canonical: str) -> Answer:
    return Answer(canonical.encode(), content_type="application/json")


ROUTES = [
    Route(
        method="GET",
        path="/satchel/v1/epochs",
        handler=get_epochs,
        summary="Rows of the epoch log",
        tag="Proofs",
        query=RowsQuery,
        answer=list[EpochRow],
        paged=True,
    ),
    Route(
        method="GET",
        path="/satchel/v1/epochs/latest",
        handler=get_latest_epoch,
        summary="The newest epoch's header",
        tag="Proofs",
        answer=dict[str, Any],
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/epochs/log",
        handler=get_epoch_log,
        summary="The whole epoch log as the standalone verifier reads it",
        tag="Proofs",
        answer=dict[str, Any],
        time_range=True,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/epochs/log/checkpoint",
        handler=get_epoch_checkpoint,
        summary="The newest signed checkpoint of the epoch log",
        tag="Proofs",
        answer=CheckpointAnswer,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/epochs/log/consistency",
        handler=get_epoch_consistency,
        summary="Consistency proof between two sizes of the epoch log",
        tag="Proofs",
        query=ConsistencyQuery,
        answer=ConsistencyAnswer,
    ),
    Route(
        method="GET",
        path="/satchel/v1/epochs/{epoch}",
        handler=get_epoch,
        summary="An epoch's header, canonical",
        tag="Proofs",
        answer=dict[str, Any],
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/epochs/{epoch}/inclusion",
        handler=get_epoch_inclusion,
        summary="Inclusion proof of an epoch in the epoch log",
        tag="Proofs",
        query=TreeQuery,
        answer=InclusionAnswer,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/satchel/v1/epochs/{epoch}/proof",
        handler=get_epoch_proof,
        summary="Inclusion proof of the signer's subaccount in an epoch",
        tag="Proofs",
        instruction="proofQuery",
        query=ProofQuery,
        answer=dict[str, Any],
        statuses=(404,),
    ),
]
