"""A small recorded log and what it must give: `python -m tests.replay.golden` records it anew, on purpose only.

The commands are kept as encoded bytes, so that a change of an encoding, of a default or of a rule shows here.   [A-10]
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from engine import genesis, snapshot
from engine.clock import due
from engine.commands import (
    AddKey,
    AddLiquidity,
    CancelAllOrders,
    CancelOrder,
    CloseEpoch,
    CloseLong,
    Command,
    CreditDeposit,
    FinalizeDeposit,
    Genesis,
    GrantTier,
    OpenLong,
    OpenSubaccount,
    OrderType,
    OrphanDeposit,
    PlaceOrder,
    PlaceOrders,
    RegisterKey,
    RemoveLiquidity,
    RequestWithdrawal,
    ReverseDeposit,
    SelfTrade,
    SetPrices,
    SettleWithdrawal,
    Side,
    SwapAssets,
    TimeInForce,
    Transfer,
    TriggerBy,
    UpdateAccount,
    decode,
    encode,
)
from engine.events import Outcome
from engine.parameters import DEC
from engine.state import State
from engine.transition import apply
from ledger.blocks import SignedRequest
from ledger.journal import GENESIS_HASH, seal

FOLDER = Path(__file__).parent
COMMANDS = FOLDER / "golden_commands.ndjson"
EXPECTED = FOLDER / "golden_expected.json"
START_US = 1_760_000_000_000_000
USERS = 4


class Line(NamedTuple):
    """One recorded command: when it came, its bytes, the user whose key signed it (0: nobody's)."""

    at_us: int
    payload: bytes
    user: int


class Run:
    """An exchange that is fed recorded lines, and the head of its journal's hash chain."""

    def __init__(self) -> None:
        self.state = State()
        self.head = GENESIS_HASH
        self.journal = 0
        self.outcomes: list[int] = []

    def feed(self, line: Line) -> Outcome:
        seq = self.state.sequence + 1
        outcome = apply(self.state, seq, line.at_us, decode(line.payload), request_of(line, seq))
        self.outcomes.append(int(outcome.rejection.reason) if outcome.rejection else 0)
        for entry in outcome.journal:
            self.journal += 1
            self.head = seal(self.head, self.journal, seq, line.at_us, entry).hash
        return outcome

    def result(self) -> dict[str, Any]:
        return {
            "commands": self.state.sequence,
            "rejected": sum(1 for outcome in self.outcomes if outcome),
            "outcomes": sha256(bytes(str(self.outcomes), "ascii")).hexdigest(),
            "journalTransactions": self.journal,
            "journalHead": self.head.hex(),
            "stateHash": snapshot.state_hash(self.state).hex(),
        }


def key_of(user: int) -> bytes:
    return sha256(b"golden %d" % user).digest()


def request_of(line: Line, seq: int) -> SignedRequest | None:
    if not line.user:
        return None
    at_ms = line.at_us // 1_000
    return SignedRequest(key_of(line.user), seq.to_bytes(64, "big"), b"golden", at_ms, 5_000, at_ms)


def read() -> list[Line]:
    rows = [json.loads(row) for row in COMMANDS.read_text().splitlines()]
    return [Line(row["at"], b64decode(row["payload"]), row["user"]) for row in rows]


def record() -> None:
    """Write the commands and what they give."""
    run, lines, random = Run(), list[Line](), Random(20_151)
    at_us = START_US

    def send(command: Command, user: int = 0) -> Outcome:
        nonlocal at_us
        at_us += random.randint(1, 50_000)
        line = Line(at_us, encode(command), user)
        lines.append(line)
        return run.feed(line)

    send(Genesis(genesis.load("devnet"), sha256(b"golden exchange").digest()))
    send(SetPrices(((5, 150 * 10**12), (4, 3_000 * 10**12), (3, 90_000 * 10**12))))
    for user in range(1, USERS + 1):
        send(RegisterKey(key_of(user)))
        for asset, atoms in ((1, 10**11), (5, 10**12), (4, 10**11)):
            send(CreditDeposit(1, f"in{user}", asset, user, user, asset, atoms, 7, "block", user != 3))
    send(GrantTier(1, 6, -1))
    send(OpenSubaccount(2, key_of(20)), 2)
    send(AddKey(1, key_of(10)), 1)
    for step in range(500):
        user = random.randint(1, USERS)
        send(_something(run, random, user, step), user)
        if step % 60 == 59:
            at_us += 3_600_000_000
            send(CloseEpoch(run.state.last_epoch_hour + 1))
    send(FinalizeDeposit(1, "in3", 1))
    send(OrphanDeposit(1, "in3", 5))
    send(ReverseDeposit(1, "in3", 5))
    send(SettleWithdrawal(1, "out", 5, 5_000))

    def pass_time(seconds: int) -> None:
        nonlocal at_us
        until = at_us + seconds * 1_000_000
        while (tick := due(run.state, until)) is not None:
            at_us = max(at_us, tick[0])
            lines.append(Line(at_us, encode(tick[1]), 0))
            run.feed(lines[-1])
        at_us = until

    # Positions, claims, a trigger, ticks, an hour of funding, then a fall that liquidates.
    send(SetPrices(((5, 150 * 10**12),)))
    send(UpdateAccount(2, auto_realize_pnl=False), 2)
    for user in (1, 2, 3):
        send(UpdateAccount(user, leverage_limit=20 * 10**9), user)
    perpetual = 4
    for step in range(60):
        user, side = random.randint(1, USERS), random.choice(list(Side))
        price, lots = 15_000 + random.randint(-20, 20), random.randint(1, 200) * (400 if step % 9 == 0 else 1)
        send(PlaceOrder(user, perpetual, side, OrderType.LIMIT, price_ticks=price, lots=lots,
                        reduce_only=step % 11 == 0), user)  # fmt: skip
        if step % 20 == 19:
            pass_time(11)
            send(SetPrices(((5, random.choice((148, 149, 151, 152)) * 10**12),)))
    poor = send(RegisterKey(key_of(6))).reply.subaccount_id
    send(CreditDeposit(1, "poor", 0, poor, poor, 1, 10**9, 7, "block", True))
    send(PlaceOrder(4, perpetual, Side.ASK, OrderType.LIMIT, price_ticks=15_400, lots=4_000), 4)
    send(PlaceOrder(poor, perpetual, Side.BID, OrderType.LIMIT, price_ticks=15_400, lots=4_000), poor)
    send(PlaceOrder(1, perpetual, Side.ASK, OrderType.MARKET, TimeInForce.IOC, lots=10, trigger_by=TriggerBy.MARK,
                    trigger_price_ticks=14_000), 1)  # fmt: skip
    pass_time(3_700)
    send(CancelAllOrders(4), 4)
    for dollars in (141, 136, 120, 60):
        send(SetPrices(((5, dollars * 10**12),)))
        pass_time(15)

    # A pool, a long that pays interest, one that is closed by force, a swap through two pools, everybody out.
    usdc, sol, rowan = 1, 5, 6
    send(CreditDeposit(1, "rowan", 0, 1, 1, rowan, 10**16, 7, "block", True))
    send(CreditDeposit(1, "more", 0, 1, 1, usdc, 10**13, 7, "block", True))
    send(CreditDeposit(1, "sol", 0, 1, 1, sol, 10**13, 7, "block", True))
    send(AddLiquidity(1, usdc, 10**15, 10**12), 1)
    send(AddLiquidity(1, sol, 10**15, 10**13), 1)
    bold = send(RegisterKey(key_of(7))).reply.subaccount_id
    send(CreditDeposit(1, "bold", 0, bold, bold, usdc, 3 * 10**9, 7, "block", True))
    pass_time(120)
    send(OpenLong(bold, usdc, rowan, 10**9, 9 * DEC), bold)
    send(OpenLong(bold, usdc, rowan, 10**9, 2 * DEC), bold)
    pass_time(3_600)
    send(SwapAssets(1, rowan, usdc, 10**14), 1)
    send(SwapAssets(1, usdc, sol, 10**9), 1)
    pass_time(3_600)
    send(CloseLong(bold, 2), bold)
    send(RemoveLiquidity(1, usdc, basis_points=10_000), 1)
    send(RemoveLiquidity(1, sol, units=10**14), 1)

    COMMANDS.write_text(
        "".join(
            json.dumps({"at": line.at_us, "user": line.user, "payload": b64encode(line.payload).decode()}) + "\n"
            for line in lines
        )
    )
    EXPECTED.write_text(json.dumps(run.result(), indent=2) + "\n")


def _something(run: Run, random: Random, user: int, step: int) -> Command:
    dice = random.random()
    side, market = random.choice(list(Side)), random.choice((1, 1, 2))
    middle = 15_000 if market == 1 else 300_000
    if dice < 0.6:
        price = middle + random.randint(-30, 30)
        return PlaceOrder(
            user, market, side, OrderType.LIMIT, random.choice((TimeInForce.GTC,) * 5 + tuple(TimeInForce)), price,
            random.randint(1, 300), self_trade=random.choice(list(SelfTrade)),
            client_id=random.choice((None, None, step % 7)),
        )  # fmt: skip
    if dice < 0.7:
        size = random.randint(1, 300)
        quantity = {"lots": size} if random.random() < 0.5 else {"quote_atoms": size * 10**6}
        return PlaceOrder(user, market, side, OrderType.MARKET, self_trade=SelfTrade.REJECT_MAKER, **quantity)
    if dice < 0.85:
        mine = list(run.state.subaccounts[user].orders) or [999]
        return CancelOrder(user, market, random.choice(mine))
    if dice < 0.9:
        batch = tuple(PlaceOrder(user, 1, Side.BID, OrderType.LIMIT, price_ticks=14_900 - n, lots=n) for n in range(3))
        return PlaceOrders(batch)
    if dice < 0.93:
        return CancelAllOrders(user)
    if dice < 0.96:
        return RequestWithdrawal(user, 1, 5, random.randint(1, 2) * 10**9, "A" * 44, f"w{step}")
    if dice < 0.98:
        return Transfer(2, 5, 1, 10**6)
    return UpdateAccount(user, leverage_limit=random.randint(1, 20) * 10**9)


if __name__ == "__main__":
    record()
