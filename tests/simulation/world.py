"""A whole exchange in one process and one seed: sequencer, real SQL, simulated chain, virtual clock, crashes.

The outside world (chain, clock, customers' notebooks) survives a crash; everything of the exchange that is not in SQL
or in a key file is thrown away and comes back by recovery. What a customer was told must be true ever after.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from api.custody import SequencedExchange, tokens_of
from api.recovery import recover
from api.requests import command_of
from chains.outbox import Outbox
from chains.payouts import Payouts
from chains.reconciliation import reconcile
from chains.signer import SIMULATED, Limit, Policy, create_keystore
from chains.signer import Signer as WalletSigner
from chains.simulated import SimulatedChain, SimulatedNode
from chains.sweeps import Sweeper, SweepRule
from chains.wallets import HOT_WALLET, Wallets, simulated_derivation
from chains.watcher import Watcher
from engine import genesis, snapshot
from engine.commands import Genesis, RegisterKey, SetPrices
from engine.events import LendingMoved, OrderView, Outcome, WithdrawalView
from engine.parameters import PRICE_SCALE
from engine.sequencer import Halted, Sequencer
from engine.state import State
from ledger import balances
from ledger.blocks import Block, SignedRequest
from ledger.database import open_engine, upgrade
from ledger.signing import Signer, signer_from_seed
from ledger.store import Snapshot, Store
from ledger.verification import verify
from tools.keys import signed_text
from tools.replaying import Replay

CHAIN = 1
START_US = 1_700_000_000_000_000
WINDOW_MS = 60_000
CUSTOMERS = 4
MARKETS = {"SOL_USDC": 100, "ETH_USDC": 2_000}
EXCHANGE_KEY = signer_from_seed(b"simulated exchange".ljust(32, b"."))


class Crash(BaseException):
    """The process dies here. Not an Exception: nothing in the program may catch it and go on."""


class Broken(AssertionError):
    """A promise did not hold; the seed in the message brings it back."""


class Inline(Executor):
    """Runs at once, in the caller's thread: what a seed did once it does again."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*arguments, **named))
        except BaseException as error:
            done.set_exception(error)
        return done


@dataclass(slots=True)
class Customer:
    """A key, a subaccount, and a notebook of what was sent and what was answered."""

    key: Signer
    user_id: int
    subaccount_id: int
    next_client_id: int
    told: dict[tuple[str, int], int] = field(default_factory=dict)
    """("order" or "withdrawal", client id) → the id that the exchange gave."""
    open_questions: list[tuple[str, dict[str, str], SignedRequest]] = field(default_factory=list)
    """Requests that nobody answered: the exchange died first."""
    recent: list[tuple[str, dict[str, str], SignedRequest]] = field(default_factory=list)


class Simulation:
    """One run. Everything random comes from the seed."""

    def __init__(self, folder: Path, seed: int, url: str | None = None) -> None:
        self.folder = folder
        self.seed = seed
        self.random = Random(seed)
        self.url = url or f"sqlite:///{folder / 'ledger.db'}"
        self.now_us = START_US
        self.counts: Counter[str] = Counter()
        self.customers: list[Customer] = []
        self.chain = SimulatedChain(seed=f"simulation {seed}", clock_us=lambda: self.now_us)
        self.dying = ""
        """Where the next commit dies: before, within, after, or at publishing; "" lives on."""
        self._outside: list[str] = []

    async def run(self, steps: int) -> Counter[str]:
        """Take this many random steps, with crashes among them; then let everything settle and hold it to account."""
        await self._start()
        await self._open_accounts()
        for _ in range(steps):
            await self._step()
        await self._settle()
        self._check_log()
        await self._stop()
        self.chain.close()
        return self.counts

    # One step.

    async def _step(self) -> None:
        self.now_us += self.random.choice((1_000, 50_000, 2_000_000, 90_000_000))
        if self.random.random() < 0.03:
            self.dying = self.random.choice(("before", "within", "after", "publishing"))
        action = self.random.choices(
            (self._trade, self._withdraw, self._cancel, self._repeat, self._pay_in, self._reorganise, self._chain_round,
             self._prices, self._keep_snapshot, self._loan, self._settings),
            (40, 6, 6, 8, 8, 2, 22, 4, 2, 10, 2),
        )[0]  # fmt: skip
        try:
            await action()
        except Exception:
            # While it dies, whoever is in the middle of something fails in a way of their own.
            if self.sequencer.halted is None:
                raise
        if self.sequencer.halted is not None:
            await self._come_back()

    async def _trade(self) -> None:
        customer, market = self.random.choice(self.customers), self.random.choice(sorted(MARKETS))
        price = MARKETS[market] * self.random.randint(98, 102)
        fields = {
            "symbol": market,
            "side": self.random.choice(("Bid", "Ask")),
            "orderType": "Limit",
            "price": f"{price / 100:.2f}",
            "quantity": f"{self.random.randint(1, 300) / 100:.2f}",
            "timeInForce": self.random.choice(("GTC", "GTC", "GTC", "IOC", "FOK")),
            "clientId": str(self._client_id(customer)),
        }
        if fields["timeInForce"] == "GTC" and self.random.random() < 0.2:
            fields["postOnly"] = "true"
        if self.random.random() < 0.4:
            flags = ("autoBorrow", "autoLendRedeem", "autoBorrowRepay", "autoLend")
            fields |= {name: "true" for name in flags if self.random.random() < 0.6}
        await self._ask(customer, "orderExecute", fields)

    async def _loan(self) -> None:
        fields = {
            "symbol": self.random.choice(("USDC", "SOL")),
            "side": self.random.choice(("Lend", "Lend", "Borrow")),
            "quantity": str(self.random.randint(1, 40)),
        }
        await self._ask(self.random.choice(self.customers), "borrowLendExecute", fields)

    async def _settings(self) -> None:
        fields = {"autoLend": self.random.choice(("true", "false")), "autoRepayBorrows": "false"}
        await self._ask(self.random.choice(self.customers), "accountUpdate", fields)

    async def _withdraw(self) -> None:
        customer = self.random.choice(self.customers)
        fields = {
            "blockchain": "Solana",
            "symbol": self.random.choice(("USDC", "SOL")),
            "quantity": str(self.random.randint(1, 20)),
            "address": self.chain.faucet_address,
            "clientId": str(self._client_id(customer)),
        }
        if self.random.random() < 0.3:
            fields |= {"autoBorrow": "true", "autoLendRedeem": "true"}
        await self._ask(customer, "withdraw", fields)

    async def _cancel(self) -> None:
        await self._ask(self.random.choice(self.customers), "orderCancelAll", {"symbol": "SOL_USDC"})

    async def _repeat(self) -> None:
        """The same bytes once more: from an impatient client, or twice at once from a broken proxy."""
        customer = self.random.choice(self.customers)
        if not customer.recent:
            return
        again = self.random.choice(customer.recent[-5:])
        await asyncio.gather(self._send(customer, *again), self._send(customer, *again), return_exceptions=True)
        self.counts["repeats"] += 2

    async def _pay_in(self) -> None:
        customer = self.random.choice(self.customers)
        token = self.random.choice([one for one in self.tokens if one.symbol in ("SOL", "USDC", "ETH")])
        address = await asyncio.to_thread(self.wallets.address, CHAIN, customer.subaccount_id)
        amount = self.random.randint(1, 50) * 10**token.chain_decimals
        self._outside.append(self.chain.faucet(address, token.contract, amount))
        self.counts["deposits sent"] += 1

    async def _reorganise(self) -> None:
        depth = self.random.randint(1, self.chain.finality_lag)
        if self.chain.height <= depth:
            return
        drop = [tx_id for tx_id in self._outside[-3:] if self.random.random() < 0.3]
        self.chain.reorg(depth, drop=drop, reinclude=self.random.random() < 0.7)
        self.counts["reorganisations"] += 1

    async def _chain_round(self) -> None:
        self.chain.mine(self.random.randint(1, 3))
        for step in (self.watcher.step, self.payouts.step, self.sweeper.step):
            await self._unless_dead(step())

    async def _prices(self) -> None:
        sol = next(one.asset_id for one in self.state.assets.values() if one.symbol == "SOL")
        await self.sequencer.submit(SetPrices(((sol, self.random.randint(90, 110) * PRICE_SCALE),)))

    async def _keep_snapshot(self) -> None:
        """A snapshot of what is durable; recovery starts from the newest."""
        await self.sequencer.durable()
        content, chain = snapshot.dump(self.state), self.sequencer.chain
        self.store.save_snapshot(
            Snapshot.signed(chain.height, chain.block_hash, content, chain.public_key, chain.sign)
        )
        self.counts["snapshots"] += 1

    # Customers.

    async def _ask(self, customer: Customer, instruction: str, fields: dict[str, str]) -> None:
        at_ms = self.now_us // 1_000
        text = signed_text(instruction, fields, at_ms, WINDOW_MS).encode()
        request = SignedRequest(customer.key.public_key, customer.key.sign(text), text, at_ms, WINDOW_MS, at_ms)
        customer.recent = [*customer.recent[-9:], (instruction, fields, request)]
        await self._send(customer, instruction, fields, request)

    async def _send(self, customer: Customer, instruction: str, fields: dict[str, str], request: SignedRequest) -> None:
        now_ms = self.now_us // 1_000
        if now_ms > request.timestamp_ms + request.window_ms:
            return
        command = command_of(instruction, fields, customer.subaccount_id, customer.user_id, self.state)
        question = (instruction, fields, request)
        if question not in customer.open_questions:
            customer.open_questions.append(question)
        outcome = await self.sequencer.submit(command, request._replace(received_ms=now_ms))
        self._note(customer, instruction, fields, outcome)
        if question in customer.open_questions:
            customer.open_questions.remove(question)

    def _note(self, customer: Customer, instruction: str, fields: dict[str, str], outcome: Outcome) -> None:
        """What the customer is told, they write down; told twice, it must be the same."""
        self.counts["answers"] += 1
        if outcome.rejection is None:
            moved = [event for event in outcome.events if isinstance(event, LendingMoved)]
            self.counts["loans moved"] += len(moved)
        if outcome.rejection is not None or instruction not in ("orderExecute", "withdraw"):
            return
        reply = outcome.reply
        assert isinstance(reply, OrderView | WithdrawalView), reply
        what, number = (
            ("order", reply.order_id) if isinstance(reply, OrderView) else ("withdrawal", reply.withdrawal_id)
        )
        before = customer.told.setdefault((what, int(fields["clientId"])), number)
        self._require(before == number, f"{what} {fields['clientId']} was {before}, is {number} when asked again")

    def _client_id(self, customer: Customer) -> int:
        customer.next_client_id += 1
        return customer.next_client_id

    # Life and death of the exchange.

    async def _start(self) -> None:
        """Everything a process makes of what is durable."""
        self.engine = open_engine(self.url)
        upgrade(self.engine)
        self.store = Store(self.engine)
        self.store.acquire()
        recovered = recover(self.store, 1 << 62, lambda _block, _outcomes, _state: None)
        self.sequencer = Sequencer(
            recovered.state,
            self.store.load_chain(EXCHANGE_KEY.public_key, EXCHANGE_KEY.sign),
            clock_us=lambda: self.now_us,
            commit=self._commit,
            publish=self._publish,
            executor=Inline(),
            last_at_us=0 if recovered.header is None else recovered.header.at_us,
        )
        self._running = asyncio.create_task(self._live())
        if recovered.header is None:
            await self.sequencer.submit(Genesis(genesis.load("devnet"), EXCHANGE_KEY.public_key))
        self._open_desk()

    async def _live(self) -> None:
        with contextlib.suppress(Crash):
            await self.sequencer.run()

    @property
    def state(self) -> State:
        return self.sequencer.state

    def _commit(self, block: Block, attachments: list[Callable[[Any], None]]) -> None:
        dying = self.dying
        if dying == "before":
            raise Crash("before the commit")
        if dying == "within":

            def die(_connection: Any) -> None:
                raise Crash("within the commit")

            attachments = [*attachments, die]
        self.store.append(block, attachments)
        if dying == "after":
            raise Crash("after the commit, before anybody heard of it")

    def _publish(self, _block: Block, _outcomes: list[Outcome]) -> None:
        if self.dying == "publishing":
            raise Crash("at publishing")

    async def _come_back(self) -> None:
        """The process is gone; another one starts, and the customers ask again what they got no answer to."""
        self.counts[f"crashes {self.dying}"] += 1
        self.dying = ""
        await asyncio.wait([self._running])
        before = snapshot.dump(self.state)
        await self._stop()
        await self._start()
        self.counts["recovered to another state"] += snapshot.dump(self.state) != before
        self._check_log()
        for customer in self.customers:
            for question in list(customer.open_questions):
                self.counts["asked again"] += 1
                await self._send(customer, *question)

    async def _stop(self) -> None:
        self.sequencer.stop()
        await asyncio.wait([self._running])
        self.store.close()
        self.engine.dispose()

    def _open_desk(self) -> None:
        """Watcher, payouts and sweeper anew; the keys are files, the rest is in SQL."""
        self.exchange = SequencedExchange(self.sequencer)
        self.tokens = tokens_of(self.state, CHAIN)
        for token in self.tokens:
            if token.contract:
                self.chain.deploy(token.contract, decimals=token.chain_decimals)
        keystore = self.folder / "keystore.json"
        if not keystore.exists():
            create_keystore(keystore, None, seed=bytes(range(64)))
        limit = Limit(10**30, 10**30)
        policy = Policy(
            SIMULATED, self.chain.network, {one.contract: limit for one in self.tokens} | {"": limit}, 10**18
        )

        def clock() -> int:
            return self.now_us

        signer = WalletSigner(
            keystore, passphrase=None, policies={CHAIN: policy}, clock_us=clock, usage=self.folder / "signed.jsonl"
        )
        self.wallets = Wallets(self.engine, {CHAIN: simulated_derivation(signer)})
        self.node = SimulatedNode(self.chain, CHAIN)
        nodes = [self.node]
        self.watcher = Watcher(self.engine, nodes, self.exchange, self.wallets, clock_us=clock)
        self.outbox = Outbox(self.engine, nodes, self.exchange, signer, self.wallets, clock_us=clock)
        self.payouts = Payouts(self.engine, nodes, self.exchange, self.wallets, self.outbox, clock_us=clock)
        rules = {one.asset_id: SweepRule(10**6, 10**8) for one in self.tokens}
        self.sweeper = Sweeper(
            self.engine, nodes, self.exchange, self.wallets, self.outbox, clock_us=clock, rules=rules
        )

    async def _unless_dead(self, step: Awaitable[Any]) -> Any:
        """The result of a step of the desk; the exchange may die under it, any other failure is ours."""
        try:
            return await step
        except Halted:
            return None

    # Beginning and end.

    async def _open_accounts(self) -> None:
        self.chain.faucet(self.wallets.address(CHAIN, HOT_WALLET), "", 10**12)
        for number in range(CUSTOMERS):
            key = signer_from_seed(b"customer %d" % number + bytes(22))
            added = (await self.sequencer.submit(RegisterKey(key.public_key))).reply
            customer = Customer(key, added.user_id, added.subaccount_id, number * 1_000_000)
            self.customers.append(customer)
            address = self.wallets.address(CHAIN, customer.subaccount_id)
            for token in self.tokens:
                if token.symbol in ("SOL", "USDC", "ETH"):
                    self.chain.faucet(address, token.contract, 1_000 * 10**token.chain_decimals)
        self.chain.mine(12)
        await self.watcher.step()
        usdc = next(one.asset_id for one in self.state.assets.values() if one.symbol == "USDC")
        self._require(self.state.held(self.customers[0].subaccount_id, usdc) > 0, "the first deposits are missing")

    async def _settle(self) -> None:
        """No more surprises: whatever is under way becomes final; then ledger and chain must agree."""
        self.dying = ""
        if self.sequencer.halted is not None:
            await self._come_back()
        for _ in range(40):
            self.now_us += 5_000_000
            self.chain.mine(2)
            for step in (self.watcher.step, self.payouts.step, self.sweeper.step):
                await step()
            if not await self.outbox.unfinished() and not self.exchange.pending_withdrawals():
                break
        self.chain.mine(self.chain.finality_lag + 4)
        await self.watcher.step()
        result = await reconcile(
            self.engine, self.node, self.tokens, self.exchange, now_us=self.now_us, record=False
        )
        self._require(not result.breaks, f"ledger and chain differ: {result.breaks[:2]}")
        self._require(not self.exchange.pending_withdrawals(), "a withdrawal never ended")
        trial = balances.trial_balance(self.engine)
        self._require(trial.is_balanced(), f"the trial balance is off: {trial.totals}")
        self.counts["withdrawals"] = sum(what == "withdrawal" for one in self.customers for what, _ in one.told)
        self.counts["orders"] = sum(what == "order" for one in self.customers for what, _ in one.told)
        self.counts["commands"] = self.state.sequence
        self.counts["crashes"] = sum(count for what, count in self.counts.items() if what.startswith("crashes "))

    # Promises.

    def _check_log(self) -> None:
        """The log is whole, replays to the state that recovery gave, and holds every answer exactly once."""
        report = verify(self.engine)
        self._require(report.is_clean, f"verify-journal: {report.findings[:1]}")
        replay = Replay(Store(self.engine))
        effects: Counter[tuple[int, str, int, int]] = Counter()
        for _header, outcomes in replay.blocks():
            for outcome in outcomes:
                reply = outcome.reply
                if outcome.rejection is not None or not outcome.events:
                    continue
                if isinstance(reply, OrderView):
                    effects[reply.subaccount_id, "order", reply.client_id or 0, reply.order_id] += 1
                elif isinstance(reply, WithdrawalView) and reply.state == "requested":
                    effects[reply.subaccount_id, "withdrawal", int(reply.client_id), reply.withdrawal_id] += 1
        self._require(
            snapshot.dump(replay.state) == snapshot.dump(self.state), "replay and recovery give different states"
        )
        doubled = [key for key, count in Counter(key[:3] for key in effects).items() if count > 1]
        self._require(not doubled, f"took effect twice: {doubled[:3]}")
        for customer in self.customers:
            for (what, client_id), number in customer.told.items():
                there = effects[customer.subaccount_id, what, client_id, number]
                self._require(there == 1, f"{what} {client_id} was acknowledged as {number}: {there} in the log")
        self.counts["checks"] += 1

    def _require(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise Broken(f"seed {self.seed}, at {self.counts['answers']} answers: {otherwise}")


async def simulate(folder: Path, seed: int, steps: int, url: str | None = None) -> Counter[str]:
    return await Simulation(folder, seed, url).run(steps)
