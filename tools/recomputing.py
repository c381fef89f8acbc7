"""`satchel liquidations`: an account's liquidation step by step, its figures computed again from the log.   [L-10]

The journal says at each step what the account had and at which prices; the parameters come from the configuration
commands before it. What the step's memo says must be what they give: its figures, and what the rules made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from engine import commands
from engine.formulas import standing
from engine.formulas.standing import Standing
from engine.parameters import USD_SCALE
from ledger import schema
from ledger.amounts import format_decimal
from ledger.chart import contracts
from ledger.journal import JournalKind, decode_memo
from tools.ladder_steps import OWNER, STANDING, Again, Ladder, whole
from tools.node_data import reading
from tools.parameters import Parameters
from tools.terminal import FINDINGS, FINE, print_json, print_table, say

_KINDS = (
    JournalKind.LIQUIDATION_STARTED,
    JournalKind.LIQUIDATION_ENDED,
    JournalKind.LIQUIDATION_STEP,
    JournalKind.LIQUIDATION_IMAGE,
)
_NAMES = {
    JournalKind.NETTED: "netted",
    JournalKind.BACKSTOP: "backstop",
    JournalKind.ADL: "adl",
    JournalKind.INSURANCE: "insurance",
    JournalKind.COLLATERAL_TAKEN: "collateral",
    JournalKind.DEBT_WRITTEN_DOWN: "written down",
    JournalKind.LENDER_ADL: "lender adl",
    JournalKind.LOSS_SHARED: "loss shared",
    JournalKind.WRITE_OFF: "written off",
}
"""Steps beside the book, as they are shown."""
SAME = "same"
AS_SAID = "as said"
"""Of a step without an image, from before there were any: shown, not computed again."""

_CONFIGURING = ("Genesis", "ConfigureAsset", "ConfigureMarket")
_USD_DECIMALS = len(str(USD_SCALE)) - 1


def liquidations(data: Path, database: str | None, subaccount: int, as_json: bool) -> int:
    """Each record of the subaccount's liquidations with what its memo gives again; 1 when one differs.   [L-10]"""
    with reading(data, database) as engine, engine.connect() as connection:
        lines = list(_lines(connection, subaccount))
    if as_json:
        print_json({"subaccount": subaccount, "steps": lines})
    else:
        names = ["time", "journal", "stage", "item", "taken", "price", "fee"]
        names += ["moment", "equity", "maintenance", "E", "again"]
        print_table(names, [[str(line[name]) for name in names] for line in lines], numbers=(1, 4, 5, 6, 8, 9, 10))
    differing = [line for line in lines if line["again"] not in (SAME, AS_SAID)]
    for line in differing:
        say(f"journal {line['journal']}, {line['moment']} the step: the memo says otherwise than its image: {line}")
    return FINDINGS if differing else FINE


def _lines(connection: sa.Connection, subaccount: int) -> Iterator[dict[str, Any]]:
    """One line for a beginning or an end, two for a step: before and after it."""
    journal, command = schema.journal.c, schema.command.c
    records = connection.execute(
        sa.select(journal.seq, journal.command_seq, journal.at_us, journal.kind, journal.memo)
        .where(journal.kind.in_([int(kind) for kind in (*_KINDS, *_NAMES)]))
        .order_by(journal.seq)
    ).all()
    configuring = connection.execute(
        sa.select(command.seq, command.payload)
        .where(command.kind.in_(_CONFIGURING), command.outcome == 0)
        .order_by(command.seq)
    ).all()
    parameters, done = Parameters(), 0
    ladder = Ladder(parameters)
    for place, (seq, command_seq, at_us, kind, content) in enumerate(records):
        while done < len(configuring) and configuring[done][0] <= command_seq:
            parameters.follow(commands.decode(configuring[done][1]))
            done += 1
        memo = whole(decode_memo(content))
        time = datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="seconds")
        line = {"time": time, "journal": seq, "item": "", "taken": "", "price": "", "fee": ""}
        if kind == JournalKind.LIQUIDATION_IMAGE:
            ladder.note(memo)
        elif kind in _NAMES:
            if memo[OWNER[kind]] == subaccount:
                line |= {"stage": _NAMES[kind]} | _further(parameters, kind, memo)
                yield from _of_step(line, kind, memo, ladder.again(kind, memo, _following(records, place)))
        elif memo[0] != subaccount:
            continue
        elif kind == JournalKind.LIQUIDATION_STEP:
            line |= {"stage": "book", "item": parameters.symbol(memo[1])}
            line |= {"taken": parameters.quantity(memo[1], memo[2]), "price": parameters.prices(memo[1], memo[4])}
            line["fee"] = format_decimal(memo[5], parameters.usdc_decimals)
            yield line | _again(parameters, "before", memo[6:10], memo[10])
            yield line | _again(parameters, "after", memo[11:15], memo[15])
        else:
            if kind == JournalKind.LIQUIDATION_STARTED:
                ladder.begin(subaccount)
            line["stage"] = "started" if kind == JournalKind.LIQUIDATION_STARTED else "ended"
            yield line | _again(parameters, "at", memo[1:5], memo[5])


def _following(records: Sequence[Any], place: int) -> Iterator[tuple[int, list[Any]]]:
    """What the same command put on record behind it."""
    command_seq = records[place][1]
    for _seq, of_command, _at_us, kind, content in records[place + 1 :]:
        if of_command != command_seq:
            return
        yield kind, whole(decode_memo(content))


def _further(parameters: Parameters, kind: int, memo: list[Any]) -> dict[str, str]:
    """What a step beside the book took, by docs/journal-memos.md; a backstop's slice is of everything."""
    match kind:
        case JournalKind.BACKSTOP:
            return {"item": "slice"}
        case JournalKind.ADL:
            item, taken = contracts(memo[0]), memo[3]
            price = parameters.price_of_lot(memo[0], memo[4])
            return {"item": parameters.symbol(item), "taken": parameters.quantity(item, taken), "price": price}
        case JournalKind.INSURANCE:
            return {"item": "USDC", "taken": format_decimal(-memo[2], parameters.usdc_decimals)}
        case JournalKind.LOSS_SHARED:
            taken = format_decimal(-memo[3], parameters.usdc_decimals)
            return {"item": parameters.symbol(contracts(memo[0])), "taken": taken}
        case JournalKind.WRITE_OFF:
            return {"item": "USDC", "taken": format_decimal(-memo[1], parameters.usdc_decimals)}
        case JournalKind.COLLATERAL_TAKEN:
            item, taken = memo[3], memo[4]
        case JournalKind.LENDER_ADL:
            item, taken = memo[0], memo[3]
        case _:
            item, taken = memo[1], memo[2]
    return {"item": parameters.symbol(item), "taken": parameters.quantity(item, taken)}


def _of_step(line: dict[str, Any], kind: int, memo: list[Any], again: Again | None) -> Iterator[dict[str, Any]]:
    """Before and after a step beside the book: as its memo says, or as its images give where that says nothing."""
    start, count = STANDING.get(JournalKind(kind), (0, 0))
    for moment, at in (("before", start), ("after", start + count)):
        said = [memo[at], memo[at + 1], memo[at + count - 1]] if count else []
        differences = []
        if again is not None:
            found = again.before if moment == "before" else again.after
            differences = again.differences_before if moment == "before" else again.differences
            said = said or [found.equity, found.maintenance, found.realizable]
        figures = [format_decimal(number, _USD_DECIMALS) for number in said] or ["", "", ""]
        yield line | {
            "moment": moment,
            "equity": figures[0],
            "maintenance": figures[1],
            "E": figures[2],
            "again": AS_SAID if again is None else "; ".join(differences) or SAME,
        }


def _again(parameters: Parameters, moment: str, said: list[int], image: Any) -> dict[str, str]:
    found = standing.standing(standing.decode(image), parameters.assets, parameters.perpetuals)
    figures = Standing(*said)
    differences = [
        f"{name} {told}, again {number}"
        for name, told, number in zip(Standing._fields, figures, found, strict=True)
        if told != number
    ]
    return {
        "moment": moment,
        "equity": format_decimal(figures.equity, _USD_DECIMALS),
        "maintenance": format_decimal(figures.maintenance, _USD_DECIMALS),
        "notional": format_decimal(figures.notional, _USD_DECIMALS),
        "E": format_decimal(figures.realizable, _USD_DECIMALS),
        "again": "; ".join(differences) or SAME,
    }
