"""Sequences of opens, closes, swaps and epochs through the real engine, every step's whole state compared.   [X-15]

A step that differs is explained when the model of the original gives the vector's state with its quirks, and ours
without them, both from the state before the step. The sequence then goes on from the vector's state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tools.conformance import engine_run
from tools.conformance.engine_run import Run
from tools.conformance.image import (
    FUND,
    MODULE,
    NATIVE,
    Image,
    Side,
    Terms,
    differences,
    read_after,
    read_pool,
    read_terms,
)
from tools.conformance.margin_model import NONE, THEIRS, Model, Quirks, Refused
from tools.conformance.vectors import MATCHED, Row, Unreadable, Verdict, atoms, dec, differing, error_of, explained

_WORDS = {
    Quirks(True, False, False): "the rate through a float",
    Quirks(False, True, False): "unpaid interest counted twice",
    Quirks(False, False, True): "the rate's surcharge after the clamp",
    Quirks(True, True, False): "the rate through a float, unpaid interest counted twice",
    Quirks(True, False, True): "the rate through a float, its surcharge after the clamp",
    Quirks(False, True, True): "unpaid interest counted twice, the rate's surcharge after the clamp",
    THEIRS: "the rate through a float, its surcharge after the clamp, unpaid interest counted twice",
}
"""Which quirks it takes to get the vector's state, the fewest first."""


class Result(NamedTuple):
    """What a step gave beside the state; nothing where it was refused."""

    refused: str
    number: Any = None
    """The position that an open made, what a swap paid, what a close swapped back, which ones an epoch closed."""


def sequence(row: Row) -> Verdict:
    """One sequence of the oracle, step by step."""
    terms, before = read_terms(row), _start(row)
    run, surcharge_from, next_position, reasons = Run(before, terms), 0, 1, []
    for place, step in enumerate(row["steps"]):
        after, told = read_after(step, tuple(row["users_start"])), _told(step)
        ours = _engine_step(run, step)
        model = Model(before, terms, THEIRS, surcharge_from)
        if step["op"] == "open" and not told.refused:
            next_position = int(step["id"]) + 1
        unequal = _unequal(ours, run.image(), told, after)
        if unequal:
            reason = _explanation(before, terms, surcharge_from, step, (ours, run.image()), (told, after))
            if not reason:
                return differing(f"step {place} ({step['op']}): {'; '.join(unequal[:3])}")
            reasons.append(f"step {place}: {reason}")
            run.place(after, next_position)
        _model_step(model, step, after)
        surcharge_from, before = model.surcharge_from, after
    if error_of(row) or not row["steps"]:
        return differing(f"theirs refuses: {error_of(row)}" if error_of(row) else "a sequence without steps")
    return explained("; ".join(reasons)) if reasons else MATCHED


def _start(row: Row) -> Image:
    """Before the first step: everybody whom a step names has the same, the pool's account what the pool has."""
    pool = read_pool(row["pool"])
    each = Side(atoms(row["users_start"], NATIVE), atoms(row["users_start"], _external(row["users_start"])))
    users = {name for step in row["steps"] for name in step["bank_after"]} - {FUND, MODULE}
    native = pool["native_asset_balance"] + pool["native_custody"]
    external = pool["external_asset_balance"] + pool["external_custody"]
    coins = dict.fromkeys(sorted(users), each) | {FUND: Side(0, 0), MODULE: Side(native, external)}
    return Image(pool, [], coins)


def _external(held: Row) -> str:
    return next(name for name in held if name != NATIVE)


def _told(step: Row) -> Result:
    """What the vector says of the step, its state left out."""
    if error := error_of(step):
        return Result(error)
    match step["op"]:
        case "swap":
            return Result("", atoms(step, "received"))
        case "close":
            return Result("", atoms(step, "repay_amount"))
        case "open":
            return Result("", int(step["id"]))
        case "begin_block":
            return Result("", [int(number) for number in step.get("force_closed") or []])
        case other:
            raise Unreadable(f"unknown step {other!r}")


def _engine_step(run: Run, step: Row) -> Result:
    height = int(step["height"])
    match step["op"]:
        case "begin_block":
            return Result("", run.begin_block(height))
        case "open":
            native = step["collateral_asset"] == NATIVE
            assets = (run.native, run.external) if native else (run.external, run.native)
            outcome = run.open(height, step["user"], *assets, atoms(step, "collateral_amount"), dec(step, "leverage"))
            return Result(engine_run.refusal(outcome), engine_run.opened(outcome))
        case "close":
            outcome = run.close(height, step["user"], int(step["id"]))
            number = engine_run.proceeds(outcome)
        case "swap":
            outcome = run.swap(height, step["from"] == NATIVE, atoms(step, "amount"))
            number = engine_run.received(outcome)
        case other:
            raise Unreadable(f"unknown step {other!r}")
    return Result(engine_run.refusal(outcome), number)


def _model_step(model: Model, step: Row, after: Image) -> Result:
    """The same by the model, which is left as it was where the step is refused."""
    height, before = int(step["height"]), model.image
    try:
        match step["op"]:
            case "begin_block":
                return Result("", model.begin_block(height, after.pool["interest_rate"]))
            case "open":
                native, number = step["collateral_asset"] == NATIVE, int(step.get("id") or 0)
                model.open(step["user"], native, atoms(step, "collateral_amount"), dec(step, "leverage"), number)
                return Result("", number)
            case "close":
                return Result("", model.close(int(step["id"]), height))
            case _:
                return Result("", model.swap(step["from"] == NATIVE, atoms(step, "amount")))
    except Refused as refused:
        model.image = before
        return Result(str(refused))


def _unequal(ours: Result, our_image: Image, theirs: Result, their_image: Image) -> list[str]:
    """Wherein a step differs; a refusal is compared as such, its words are not."""
    unequal = []
    if bool(ours.refused) != bool(theirs.refused):
        unequal.append(f"refused: ours {ours.refused or 'no'}, theirs {theirs.refused or 'no'}")
    elif not ours.refused and ours.number != theirs.number:
        unequal.append(f"gave: ours {ours.number}, theirs {theirs.number}")
    return unequal + list(differences(our_image, their_image))


_Left = tuple[Result, Image]
"""What a step gave, and what it left."""


def _explanation(before: Image, terms: Terms, surcharge_from: int, step: Row, ours: _Left, theirs: _Left) -> str:
    """The fewest quirks that give the vector's state, if none of them gives ours; empty: there is no such proof."""

    def gives(quirks: Quirks, wanted: _Left) -> bool:
        model = Model(before, terms, quirks, surcharge_from)
        result = _model_step(model, step, theirs[1])
        return not _unequal(result, model.image, *wanted)

    if not gives(NONE, ours):
        return ""
    return next((words for quirks, words in _WORDS.items() if gives(quirks, theirs)), "")
