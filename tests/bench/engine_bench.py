"""`apply` with settlement, postings and hashing; memory of a million resting orders; the leaves' columns.

`python -m tests.bench.engine_bench [--scale 0.1]`
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from engine import genesis, liabilities
from engine.commands import (
    CancelOrder,
    Command,
    CreditDeposit,
    Genesis,
    OrderType,
    PlaceOrder,
    RegisterKey,
    SetPrices,
    Side,
    encode,
)
from engine.parameters import PRICE_SCALE
from engine.state import State
from engine.transition import apply
from ledger import compiled
from ledger.blocks import SignedRequest, log_command
from ledger.journal import GENESIS_HASH, seal
from tests.bench.flow import CANCEL, Operation, flow
from tests.bench.rows import REPEATS, Row, show, timed

ORDERS = 50_000
USERS = 32
RESTING = 1_000_000
SUBACCOUNTS = 100_000
USDC, SOL = 1, 5
SOL_USDC = 1
START_US = 1_700_000_000_000_000


def run(scale: float = 1.0) -> list[Row]:
    """Commands a second through `apply`, the memory of a million resting orders, the time of the leaves' columns."""
    operations = flow(int(ORDERS * scale))
    commands = as_commands(operations)
    rows = [
        _row("apply: checks, settlement, fees, postings", commands, hashing=False),
        _row("the same with every command and journal transaction encoded and hashed", commands, hashing=True),
    ]
    return rows + [resting_memory(int(RESTING * scale)), liability_columns(int(SUBACCOUNTS * scale))]


def _row(what: str, commands: list[tuple[Command, int]], hashing: bool) -> Row:
    middle, least, most = timed(lambda: ready(commands, hashing), len(commands))
    return Row(what, middle, "commands/s", least, most, "to reach 0.15 M orders/s")


def as_commands(operations: list[Operation]) -> list[tuple[Command, int]]:
    """The flow as commands of users; (command, user). Order ids follow from the order of acceptance."""
    commands: list[tuple[Command, int]] = []
    for kind, number, is_bid, price, lots in operations:
        user = number % USERS + 1
        if kind == CANCEL:
            commands.append((CancelOrder(user, SOL_USDC, order_id=number + 1), user))
            continue
        side = Side.BID if is_bid else Side.ASK
        commands.append((PlaceOrder(user, SOL_USDC, side, OrderType.LIMIT, price_ticks=price, lots=lots), user))
    return commands


def opened(users: int, atoms: int = 10**17) -> State:
    """A devnet with this many users, each with one subaccount that holds plenty of USDC and SOL."""
    state = State()
    run_one(state, Genesis(genesis.load("devnet"), bytes(32)))
    run_one(state, SetPrices(((SOL, 100 * PRICE_SCALE),)))
    for user in range(1, users + 1):
        run_one(state, RegisterKey(key_of(user)))
        for asset in (USDC, SOL):
            run_one(state, CreditDeposit(1, f"{user}/{asset}", 0, user, user, asset, atoms, 1, "b", True))
    return state


def run_one(state: State, command: Command, request: SignedRequest | None = None) -> None:
    outcome = apply(state, state.sequence + 1, START_US + state.sequence, command, request)
    assert outcome.rejection is None, (command, outcome.rejection)


def key_of(user: int) -> bytes:
    return user.to_bytes(32, "big")


def ready(commands: list[tuple[Command, int]], hashing: bool) -> Callable[[], None]:
    """A fresh exchange and the signed requests, made beforehand; what is returned applies them all."""
    state = opened(USERS)
    # Different users throughout, or self-trade prevention would thin out the fills: makers and takers alternate.
    prepared = [
        (command, encode(command), _request(number, user)) for number, (command, user) in enumerate(commands)
    ]

    def work() -> None:
        head = GENESIS_HASH
        journal = 1
        seq = state.sequence
        at_us = START_US + seq
        for command, payload, request in prepared:
            seq += 1
            at_us += 20
            outcome = apply(state, seq, at_us, command, request)
            if hashing:
                rejection = outcome.rejection
                log_command(seq, at_us, int(rejection.reason) if rejection else 0, "PlaceOrder", payload, request)
                for entry in outcome.journal:
                    sealed = seal(head, journal, seq, at_us, entry)
                    head = sealed.hash
                    journal += 1

    return work


def _request(number: int, user: int) -> SignedRequest:
    at_ms = START_US // 1000
    text = b"instruction=orderExecute&orderType=Limit&price=100.00&quantity=1&side=Bid&symbol=SOL_USDC"
    return SignedRequest(key_of(user), number.to_bytes(64, "big"), text, at_ms, 5000, at_ms + number // 20)


def resting_memory(orders: int) -> Row:
    """Resident memory of a process whose state has this many resting orders, at 20,000 prices of 1,000 users."""
    script = f"from tests.bench.engine_bench import rest; rest({orders})"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    megabytes = int(done.stdout.split()[-1]) / 1024
    return Row(f"resident memory, {orders:,} resting orders", megabytes, "MB", megabytes, megabytes, "at most 400 MB")


def rest(orders: int) -> None:
    """Place the orders through `apply`, then print the resident set in kB (Linux)."""
    users = max(2, orders // 1_000)
    state = opened(users)
    seq = state.sequence
    for number in range(orders):
        user = number % users + 1
        is_bid = number & 1
        step = 1 + number * 7919 % 10_000
        # Made anew for every order, as a decoder would: no integer is shared with the next one.
        command = PlaceOrder(
            user,
            SOL_USDC,
            Side.BID if is_bid else Side.ASK,
            OrderType.LIMIT,
            price_ticks=10_000 - step // 2 if is_bid else 10_000 + step,
            lots=1_000 + number % 977,
        )
        seq += 1
        outcome = apply(state, seq, START_US + seq * 20, command, _request_for(number, user))
        assert outcome.rejection is None, outcome.rejection
    assert len(state.orders) == orders
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmRSS")))


def _request_for(number: int, user: int) -> SignedRequest:
    # Later requests push the earlier ones out of the replay window, as in a running exchange.
    at_ms = START_US // 1000 + number // 5
    return SignedRequest(key_of(user), number.to_bytes(64, "big"), b"", at_ms, 5_000, at_ms)


def liability_columns(subaccounts: int) -> Row:
    """Seconds to compute every leaf column of this many subaccounts."""
    state = opened(subaccounts)
    start = perf_counter()
    count = sum(1 for _line in liabilities.accounts(state))
    seconds = perf_counter() - start
    what = f"leaf columns of {count:,} subaccounts × {len(liabilities.columns(state))}"
    return Row(what, seconds, "s", seconds, seconds, "epoch over 100,000 subaccounts × 10 columns in 3 s")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--scale", type=float, default=1.0)
    show(f"engine, median of {REPEATS}, core: {compiled.build()}", run(arguments.parse_args().scale))
