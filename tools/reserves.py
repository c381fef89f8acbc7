"""`satchel por run`, `prove` and `verify`: proof of reserves from the command line.   [R-1, R-22]"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec

from ledger.store import Store
from por import store as por_store
from por import verifier
from por.epochs import prove as prove_account
from por.header import Header
from tools.node_data import reading
from tools.terminal import COULD_NOT_RUN, DEFAULT_DATA, FINDINGS, FINE, CannotRun, print_json, say


def run_epoch(data: Path, database: str | None, url: str | None, as_json: bool) -> int:
    """Close an epoch now: on a running devnet through its API, on a stopped node by starting it without its API."""
    header = _on_running(url) if url is not None else asyncio.run(_on_stopped(data, database))
    if as_json:
        print_json(header)
        return FINE
    for name, value in header.items():
        print(f"{name}: {value}")
    return FINE


def prove(
    data: Path,
    database: str | None,
    subaccount: int,
    epoch: int | None,
    known: list[int],
    out: Path | None,
    as_json: bool,
) -> int:
    """Write the proof of one subaccount in one epoch (the newest that was built).   [R-22]

    `known` are sizes of the log that the customer saw before: the proof connects itself with each.   [R-20]
    """
    with reading(data, database) as engine:
        try:
            log = por_store.load_log(engine)
        except ValueError as problem:
            raise CannotRun(f"the log of epochs is broken: {problem}", "run `satchel verify-journal`") from None
        built = [row.epoch for row in log.rows if isinstance(row, Header)]
        if not built:
            raise CannotRun("no epoch was built yet", "`satchel por run` closes one now")
        number = built[-1] if epoch is None else epoch
        try:
            loaded = por_store.load_epoch(engine, number)
        except (KeyError, por_store.LeavesGone) as problem:
            raise CannotRun(str(problem.args[0]), f"epochs with proofs: up to {built[-1]}") from None
        except por_store.LeavesBroken as problem:
            raise CannotRun(str(problem), "`satchel replay` names what differs; or choose another --epoch") from None
        checkpoint = por_store.load_checkpoint(engine)
        assert checkpoint is not None, "a built epoch has a checkpoint"
        try:
            part = log.proof(number, checkpoint.text, checkpoint.public_key, known)
            document = prove_account(loaded, subaccount, part)
        except KeyError as problem:
            raise CannotRun(str(problem.args[0]), "subaccounts opened after the epoch are in the next one") from None
    if out is None:
        print_json(document)
        return FINE
    out.write_text(json.dumps(document) + "\n")
    if as_json:
        print_json({"file": str(out), "epoch": number, "subaccountId": subaccount})
    else:
        say(f"proof of subaccount {subaccount} in epoch {number} written to {out}")
    return FINE


def verify(
    proof: Path,
    subaccount: int | None,
    key: str | None,
    checkpoint: Path | None,
    data: Path,
    database: str | None,
    as_json: bool,
) -> int:
    """What `python por/verifier.py FILE` says; and, where a ledger is named, that the epoch's block is in that one."""
    for file, what, step in (
        (proof, "proof", "write one with `satchel por prove SUBACCOUNT --out FILE`, or ask the API for yours"),
        (checkpoint, "checkpoint", "give a checkpoint of the epochs' log that you kept"),
    ):
        if file is not None and not file.is_file():
            raise CannotRun(f"no {what} at {file}", step)
    arguments = [str(proof)]
    arguments += ["--subaccount", str(subaccount)] if subaccount is not None else []
    arguments += ["--key", key] if key is not None else []
    arguments += ["--checkpoint", str(checkpoint)] if checkpoint is not None else []
    named = database is not None or data != DEFAULT_DATA
    if not as_json:
        code = verifier.main(arguments)
        elsewhere = _misplaced(proof, data, database) if named and code == FINE else None
        if elsewhere is not None:
            print(f"NOT of this ledger: {elsewhere}")
        return FINDINGS if elsewhere is not None else code
    import contextlib
    import io

    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        code = verifier.main(arguments)
    if code == COULD_NOT_RUN:
        words = complained.getvalue().strip().removeprefix("Could not run: ")
        raise CannotRun(words, "give a file of `satchel por prove`, and keys in base64")
    report = said.getvalue().splitlines()
    elsewhere = _misplaced(proof, data, database) if named and code == FINE else None
    if elsewhere is not None:
        report.append(f"NOT of this ledger: {elsewhere}")
    print_json({"verified": code == FINE and elsewhere is None, "report": report})
    return FINE if code == FINE and elsewhere is None else FINDINGS


def _misplaced(proof: Path, data: Path, database: str | None) -> str | None:
    """Why the ledger does not have the block that a verified proof's epoch names.   [R-5]"""
    text = json.loads(proof.read_text()).get("header")
    if text is None:
        return None
    header = json.loads(text)
    with reading(data, database) as engine:
        found = Store(engine).block(header["blockHeight"])
    if found is None:
        return f"epoch {header['epoch']} is of block {header['blockHeight']}, which the log does not have"
    if found[1].hex() == header["blockHash"]:
        return None
    logged = f"the log's block {found[0].height} is {found[1].hex()}"
    return f"epoch {header['epoch']} is of block {header['blockHash']}, {logged}"


def _on_running(url: str) -> dict[str, Any]:
    request = Request(f"{url.rstrip('/')}/dev/v1/por", data=b"", method="POST")
    try:
        with urlopen(request, timeout=120) as answer:
            header: dict[str, Any] = json.load(answer)
            return header
    except HTTPError as problem:
        raise CannotRun(
            f"{url} refused: {problem.code} {problem.read(300).decode(errors='replace')}",
            "only a devnet closes epochs on demand; elsewhere the hour does",
        ) from None
    except (URLError, OSError, ValueError) as problem:
        raise CannotRun(f"{url} does not answer: {problem}", "leave --url out for a stopped node") from None


async def _on_stopped(data: Path, database: str | None) -> dict[str, Any]:
    from api.node import Node, born_as
    from api.settings import PASSPHRASE_VARIABLE, Settings
    from engine.commands import CloseEpoch
    from ledger.store import StoreError, WriterHeld

    with reading(data, database):
        settings = Settings(data=data, database=database, passphrase=os.environ.get(PASSPHRASE_VARIABLE))
    born = born_as(settings.url)
    if born is None:
        raise CannotRun("the log is empty: no block is there yet", "start the exchange once: `satchel serve`")
    node = Node(msgspec.structs.replace(settings, devnet=born.devnet))
    try:
        await node.start()
    except WriterHeld as problem:
        raise CannotRun(str(problem), "the node is running: name it, --url http://127.0.0.1:8080") from None
    except StoreError as problem:
        raise CannotRun(f"the log does not start: {problem}", "run `satchel verify-journal`") from None
    try:
        await node.submit(CloseEpoch(0))
        await node.epochs.settled()
        newest = node.epochs.log.last
        assert newest is not None, "an epoch that was settled is in the log"
        header: dict[str, Any] = json.loads(newest.text())
        return header
    finally:
        await node.stop()

