"""A small exchange for tests: the real state machine, driven command by command with requests that look signed."""

from __future__ import annotations

from hashlib import sha256

from engine import genesis
from engine.clock import due
from engine.commands import Command, CreditDeposit, Genesis, RegisterKey
from engine.events import Outcome
from engine.state import State
from engine.transition import apply
from ledger.blocks import SignedRequest

START_US = 1_760_000_000_000_000


class Exchange:
    """One exchange in memory. `apply` does not check signatures (the edge and the audit do), so any bytes serve."""

    def __init__(self, name: str = "devnet") -> None:
        self.state = State()
        self.at_us = START_US
        self.outcomes: list[Outcome] = []
        self.requests = 0
        self.do(Genesis(genesis.load(name), bytes(32)))

    def do(self, command: Command, request: SignedRequest | None = None) -> Outcome:
        """Apply a command that must succeed."""
        outcome = self.attempt(command, request)
        assert outcome.rejection is None, outcome.rejection
        return outcome

    def attempt(self, command: Command, request: SignedRequest | None = None) -> Outcome:
        outcome = apply(self.state, self.state.sequence + 1, self.at_us, command, request)
        self.outcomes.append(outcome)
        return outcome

    def advance(self, seconds: int) -> list[Outcome]:
        """Let exchange time pass: every tick due in between runs at its due time, as the sequencer runs it."""
        until_us = self.at_us + seconds * 1_000_000
        outcomes = []
        while (tick := due(self.state, until_us)) is not None:
            due_us, command = tick
            self.at_us = max(self.at_us, due_us)
            outcomes.append(self.do(command))
        self.at_us = until_us
        return outcomes

    def signed(self, key: bytes, *, received_ms: int = 1_000, window_ms: int = 5_000) -> SignedRequest:
        """A request by this API key, different from every other."""
        self.requests += 1
        text = b"request %d" % self.requests
        signature = sha256(text).digest() * 2
        return SignedRequest(key, signature, text, received_ms, window_ms, received_ms)

    def user(self, name: str) -> tuple[int, bytes]:
        """A new user's first subaccount and its API key."""
        key = sha256(name.encode()).digest()
        return self.do(RegisterKey(key)).reply.subaccount_id, key

    def asset(self, symbol: str) -> int:
        return next(each.asset_id for each in self.state.assets.values() if each.symbol == symbol)

    def market(self, symbol: str) -> int:
        return next(
            number for number, each in self.state.markets.items() if each.parameters.symbol == symbol
        )

    def deposit(self, subaccount_id: int, symbol: str, atoms: int, *, tx_id: str = "", final: bool = True) -> str:
        """Credit a deposit on chain 1; gives its transaction id."""
        tx_id = tx_id or f"tx{self.state.next_deposit_id}"
        asset_id = self.asset(symbol)
        self.do(CreditDeposit(1, tx_id, 0, subaccount_id, subaccount_id, asset_id, atoms, 1, "hash", final))
        return tx_id
