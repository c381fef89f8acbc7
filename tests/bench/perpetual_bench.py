"""`apply` of perpetual orders: every order and both sides of every fill judged by margin, fees, postings.

`python -m tests.bench.perpetual_bench [--scale 0.1]`
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from engine.commands import CancelOrder, Command, OrderType, PlaceOrder, Side
from engine.state import State
from engine.transition import apply
from tests.bench.engine_bench import START_US, USERS, _request, opened
from tests.bench.flow import CANCEL, Operation, flow
from tests.bench.rows import Row, show, timed

ORDERS = 50_000
SOL_USDC_PERP = 4


def run(scale: float = 1.0) -> list[Row]:
    """Perpetual orders a second through `apply`."""
    commands = as_commands(flow(int(ORDERS * scale)))
    middle, least, most = timed(lambda: ready(commands), len(commands))
    what = "apply: perpetual orders, margin of both sides, fees, postings"
    return [Row(what, middle, "commands/s", least, most, "to reach 0.1 M orders/s")]


def as_commands(operations: list[Operation]) -> list[tuple[Command, int]]:
    """The flow as commands of users, on the perpetual."""
    commands: list[tuple[Command, int]] = []
    for kind, number, is_bid, price, lots in operations:
        user = number % USERS + 1
        if kind == CANCEL:
            commands.append((CancelOrder(user, SOL_USDC_PERP, order_id=number + 1), user))
            continue
        side = Side.BID if is_bid else Side.ASK
        commands.append((PlaceOrder(user, SOL_USDC_PERP, side, OrderType.LIMIT, price_ticks=price, lots=lots), user))
    return commands


def ready(commands: list[tuple[Command, int]]) -> Callable[[], None]:
    """A fresh exchange and signed requests; what is returned applies them all."""
    state = opened(USERS)
    prepared = [(command, _request(number, user)) for number, (command, user) in enumerate(commands)]
    return lambda: work(state, prepared)


def work(state: State, prepared: list[tuple[Command, object]]) -> None:
    seq = state.sequence
    at_us = START_US + seq
    for command, request in prepared:
        seq += 1
        at_us += 20
        apply(state, seq, at_us, command, request)  # type: ignore[arg-type]  # requests of this module


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--scale", type=float, default=1.0)
    show("perpetuals", run(arguments.parse_args().scale))
