"""kill -9 of a real node under load, again and again: nothing acknowledged is lost, nothing is doubled.   [A-9, A-11]

`python -m tools.crash --rounds 50` does it on SQLite, with `--database URL` on that PostgreSQL, with `--postgres` on
a server of our own. After each kill the log is verified, replayed, and searched for every answer a client ever got.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.commands import PlaceOrder, PlaceOrders, RequestWithdrawal, decode
from engine.events import OrderView, Outcome, WithdrawalView
from engine.state import State
from ledger.blocks import LoggedCommand
from ledger.database import database_url, open_engine
from ledger.store import Store
from ledger.verification import verify
from tools.client import Client
from tools.node_process import NodeProcess
from tools.replaying import Replay
from tools.servers import postgres_server
from tools.terminal import CannotRun, run, say

CLIENTS = 6
LONGEST_ROUND_SECONDS = 2.0
RESEND_WITHIN_SECONDS = 50.0
"""A request is good for a minute; one that got no answer is sent again, the same bytes, while it still is."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.crash", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="of the load and of the moments; printed")
    parser.add_argument("--database", default=None, help="an empty PostgreSQL database; SQLite when left out")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server of our own")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="satchel-crash-")))
        url = options.database
        if options.postgres:
            url = stack.enter_context(postgres_server(durable=True)).create_database("crash")
        return run(lambda: _report(asyncio.run(crash(folder, url, options.rounds, seed, say)), seed))


def _report(counts: Counter[str], seed: int) -> int:
    print(json.dumps({"seed": seed, **dict(sorted(counts.items()))}))
    return 0


class Broken(CannotRun):
    """A promise did not hold; the message says which, and the data folder is named for whoever looks."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "the same --seed tries the same again")


async def crash(data: Path, database: str | None, rounds: int, seed: int, tell: Any) -> Counter[str]:
    """Kill a node `rounds` times at random moments under load and check after each; returns what was counted."""
    chance = random.Random(seed)
    tell(f"crash: seed {seed}, {rounds} rounds on {'SQLite' if database is None else 'PostgreSQL'}")
    customers: list[Customer] = []
    log = Log(data, database)
    counts: Counter[str] = Counter()
    for number in range(1, rounds + 1):
        node = NodeProcess(data, database)
        url = await node.start()
        try:
            timeout = aiohttp.ClientTimeout(total=20)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                if not customers:
                    customers = [await Customer.register(session, url, at) for at in range(CLIENTS)]
                else:
                    await log.compare_open_orders(session, url, customers)
                counts["sent again"] += sum(await asyncio.gather(*(one.resend(session, url) for one in customers)))
                seeds = [chance.getrandbits(32) for _ in customers]
                load = [
                    asyncio.create_task(one.trade(session, url, random.Random(each)))
                    for one, each in zip(customers, seeds, strict=True)
                ]
                await asyncio.sleep(chance.uniform(0.05, LONGEST_ROUND_SECONDS))
                await node.kill()
                for task in load:
                    task.cancel()
                await asyncio.gather(*load, return_exceptions=True)
        finally:
            await node.kill()
        log.check(customers)
        answers = sum(len(one.answers) for one in customers)
        tell(f"round {number}: {log.replay.next_command - 1} commands, {answers} answers")
    counts["rounds"] = rounds
    counts["commands"] = log.replay.next_command - 1
    counts["blocks"] = log.replay.height + 1
    counts["acknowledged"] = answers
    counts["without an answer, found in the log"] = log.unanswered_but_there(customers)
    log.close()
    return counts


# The load.


@dataclass(slots=True)
class Customer:
    """A client with a key, who writes down every answer: what was acknowledged must never be lost."""

    key: Ed25519PrivateKey
    user_id: int
    subaccount_id: int
    next_client_id: int
    answers: dict[tuple[str, int], int] = field(default_factory=dict)
    """("order" or "withdrawal", client id) → the id that the exchange gave."""
    unanswered: dict[tuple[str, int], tuple[float, str, dict[str, Any], dict[str, str]]] = field(default_factory=dict)
    """What was sent and not answered: when, where, body, headers."""

    @classmethod
    async def register(cls, session: aiohttp.ClientSession, url: str, at: int) -> Customer:
        key = Ed25519PrivateKey.generate()
        public_key = b64encode(key.public_key().public_bytes_raw()).decode()
        client = Client(session, url)
        opened = await client.tell("/dev/v1/keys", {"publicKey": public_key})
        for symbol, quantity in (("USDC", "1000000"), ("SOL", "10000")):
            await client.tell("/dev/v1/faucet", {**opened, "symbol": symbol, "quantity": quantity})
        # Half of it is lent, so that orders with margin flags redeem and borrow under the kill.
        await client.tell("/dev/v1/prices", {"SOL": "100"})
        lender = Client(session, url, key)
        for symbol, quantity in (("USDC", "500000"), ("SOL", "5000")):
            await lender.request("borrowLendExecute", symbol=symbol, side="Lend", quantity=quantity)
        return cls(key, opened["userId"], opened["subaccountId"], at * 10_000_000 + 1)

    async def trade(self, session: aiohttp.ClientSession, url: str, chance: random.Random) -> None:
        """Place, cross, cancel and withdraw until the exchange is gone."""
        client = Client(session, url, self.key)
        while True:
            what, path, body = self._wish(chance)
            client_id = int(body.get("clientId", 0))
            instruction = "withdraw" if what == "withdrawal" else "orderExecute"
            if what == "cancel":
                with contextlib.suppress(Exception):
                    await client.request("orderCancelAll", symbol="SOL_USDC")
                continue
            headers = client.headers(instruction, body)
            self.unanswered[(what, client_id)] = (time.monotonic(), path, body, headers)
            if not await self._send(session, url, (what, client_id)):
                return

    async def resend(self, session: aiohttp.ClientSession, url: str) -> int:
        """Send what got no answer once more, the same bytes, while they are still good."""
        again = 0
        for what in list(self.unanswered):
            if time.monotonic() - self.unanswered[what][0] < RESEND_WITHIN_SECONDS:
                again += 1
                await self._send(session, url, what)
        return again

    async def _send(self, session: aiohttp.ClientSession, url: str, what: tuple[str, int]) -> bool:
        _at, path, body, headers = self.unanswered[what]
        try:
            async with session.post(url + path, json=body, headers=headers) as answer:
                content = await answer.json()
                if answer.status == 200:
                    self.answers[what] = int(content["id"])
                elif answer.status >= 500:
                    return answer.status == 503
                del self.unanswered[what]
                return True
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError):
            return False

    def _wish(self, chance: random.Random) -> tuple[str, str, dict[str, Any]]:
        client_id = self.next_client_id
        self.next_client_id += 1
        dice = chance.random()
        if dice < 0.08:
            return "cancel", "", {}
        if dice < 0.16:
            body = {
                "blockchain": "Solana",
                "symbol": "USDC",
                "quantity": "5",
                "address": "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin",
                "clientId": str(client_id),
            }
            return "withdrawal", "/wapi/v1/capital/withdrawals", body
        order = {
            "symbol": "SOL_USDC",
            "side": chance.choice(("Bid", "Ask")),
            "orderType": "Limit",
            "price": f"{chance.randint(9_950, 10_050) / 100:.2f}",
            "quantity": f"{chance.randint(1, 40) / 100:.2f}",
            "clientId": client_id,
        }
        if dice > 0.7:
            # Beyond what is held now and then.
            order |= {"quantity": f"{chance.randint(1, 900)}", "autoBorrow": True, "autoLendRedeem": True}
        if dice > 0.85:
            order["autoBorrowRepay"] = True
        return "order", "/api/v1/order", order


# The log, read from outside while no node runs.


class Log:
    """What the database holds, replayed as far as it has grown; every effect of every client id."""

    def __init__(self, data: Path, database: str | None) -> None:
        self.data = data
        self.engine = open_engine(database_url(data, database), read_only=True)
        self.replay = Replay(Store(self.engine))
        self.effects: dict[tuple[int, str, int], list[int]] = {}
        """(subaccount, "order" or "withdrawal", client id) → the ids given, one per effect."""
        self._logged: list[LoggedCommand] = []

    def check(self, customers: list[Customer]) -> None:
        """Verified, replayed, every answer there, nothing twice."""
        report = verify(self.engine, self.data / "checkpoint.txt" if (self.data / "checkpoint.txt").exists() else None)
        if not report.is_clean:
            raise Broken(f"verify-journal: {report.findings[0]}")
        for _header, outcomes in self.replay.blocks(before=lambda _state, logged: self._logged.append(logged)):
            for logged, outcome in zip(self._logged, outcomes, strict=True):
                self._note(logged, outcome)
            self._logged.clear()
        for key, ids in self.effects.items():
            if len(set(ids)) != 1:
                raise Broken(f"{key} took effect {len(ids)} times: {ids}")
        for one in customers:
            for (what, client_id), given in one.answers.items():
                there = self.effects.get((one.subaccount_id, what, client_id), [])
                if there != [given]:
                    raise Broken(f"subaccount {one.subaccount_id} was told {what} {given}, the log has {there}")

    def unanswered_but_there(self, customers: list[Customer]) -> int:
        return sum((one.subaccount_id, *what) in self.effects for one in customers for what in one.unanswered)

    async def compare_open_orders(self, session: aiohttp.ClientSession, url: str, customers: list[Customer]) -> None:
        """The restarted node shows exactly the open orders that replay has."""
        state: State = self.replay.state
        for one in customers:
            rows = await Client(session, url, one.key).request("orderQueryAll", symbol="SOL_USDC")
            shown = {int(row["id"]) for row in rows}
            kept = set(state.subaccounts[one.subaccount_id].orders)
            if shown != kept:
                raise Broken(f"subaccount {one.subaccount_id}: open orders differ by {sorted(shown ^ kept)[:5]}")

    def close(self) -> None:
        self.engine.dispose()

    def _note(self, logged: LoggedCommand, outcome: Outcome) -> None:
        if outcome.rejection is not None or not outcome.events:
            return
        command = decode(logged.payload)
        replies = outcome.reply if isinstance(command, PlaceOrders) else [outcome.reply]
        for reply in replies:
            if isinstance(reply, OrderView) and isinstance(command, PlaceOrder | PlaceOrders) and reply.client_id:
                self._add(reply.subaccount_id, "order", reply.client_id, reply.order_id)
            elif isinstance(reply, WithdrawalView) and isinstance(command, RequestWithdrawal):
                self._add(reply.subaccount_id, "withdrawal", int(reply.client_id), reply.withdrawal_id)

    def _add(self, subaccount_id: int, what: str, client_id: int, given: int) -> None:
        self.effects.setdefault((subaccount_id, what, client_id), []).append(given)


if __name__ == "__main__":
    sys.exit(main())
