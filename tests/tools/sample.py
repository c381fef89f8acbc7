"""A small real log for the commands to read: users, deposits, signed orders that trade, a withdrawal, an epoch."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from api.requests import command_of
from engine import genesis
from engine.commands import CloseEpoch, Command, CreditDeposit, Genesis, RegisterKey, SetPrices
from engine.events import Outcome
from engine.parameters import PRICE_SCALE
from engine.sequencer import Sequencer
from engine.state import State
from ledger.blocks import SignedRequest
from ledger.checkpoints import sign_checkpoint, write_checkpoint
from ledger.database import database_url, open_engine, upgrade
from ledger.signing import Signer, signer_from_seed
from ledger.store import Store
from tools.keys import signed_text

START_US = 1_700_000_000_000_000
EXCHANGE = signer_from_seed(b"exchange".ljust(32, b"."))
ALICE = signer_from_seed(b"alice".ljust(32, b"."))
BOB = signer_from_seed(b"bob".ljust(32, b"."))
MALLORY = signer_from_seed(b"mallory".ljust(32, b"."))
OPERATOR = signer_from_seed(b"operator".ljust(32, b"."))


@dataclass
class Exchange:
    """A real engine, sequencer and store on a clock that we turn; every submitted command is its own block."""

    data: Path
    database: str | None = None
    devnet: bool = True
    sequencer: Sequencer = field(init=False)
    engine: sa.Engine = field(init=False)
    now_us: int = START_US
    subaccounts: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    async def open(self) -> Exchange:
        self.data.mkdir(parents=True, exist_ok=True)
        self.engine = open_engine(database_url(self.data, self.database))
        upgrade(self.engine)
        self._store = Store(self.engine)
        self._store.acquire()
        self._thread = ThreadPoolExecutor(1)
        chain = self._store.load_chain(EXCHANGE.public_key, EXCHANGE.sign)
        self.sequencer = Sequencer(
            State(),
            chain,
            clock_us=lambda: self.now_us,
            commit=self._store.append,
            publish=lambda block, outcomes: None,
            executor=self._thread,
        )
        self._running = asyncio.create_task(self.sequencer.run())
        born = genesis.load("devnet")
        if not self.devnet:
            born = msgspec.structs.replace(born, devnet=False, operator_keys=(OPERATOR.public_key,))
        await self.bring(Genesis(born, EXCHANGE.public_key))
        return self

    async def bring(self, command: Command, request: SignedRequest | None = None) -> Outcome:
        self.now_us += 1_000
        outcome = await self.sequencer.submit(command, request)
        return outcome

    async def register(self, key: Signer, user_id: int = 0) -> tuple[int, int]:
        outcome = await self.bring(RegisterKey(key.public_key, user_id))
        assert outcome.rejection is None, outcome.rejection
        added = outcome.reply
        self.subaccounts[key.public_key] = (added.user_id, added.subaccount_id)
        return self.subaccounts[key.public_key]

    async def deposit(self, key: Signer, symbol: str, atoms: int, index: int) -> None:
        state = self.sequencer.state
        asset_id = next(one.asset_id for one in state.assets.values() if one.symbol == symbol)
        chain_id = next(chain for chain, asset in state.tokens if asset == asset_id)
        subaccount_id = self.subaccounts[key.public_key][1]
        outcome = await self.bring(
            CreditDeposit(chain_id, f"tx{index}", 0, subaccount_id, subaccount_id, asset_id, atoms, 1, "b1", True)
        )
        assert outcome.rejection is None, outcome.rejection

    def request(self, key: Signer, instruction: str, fields: Any, window: int = 5_000) -> SignedRequest:
        timestamp = self.now_us // 1_000
        text = signed_text(instruction, fields, timestamp, window).encode()
        return SignedRequest(key.public_key, key.sign(text), text, timestamp, window, timestamp + 3)

    def derived(self, key: Signer, instruction: str, fields: Any) -> Command:
        user_id, subaccount_id = self.subaccounts[key.public_key]
        plain = {name: str(value) for name, value in fields.items()}
        return command_of(instruction, plain, subaccount_id, user_id, self.sequencer.state)

    async def ask(self, key: Signer, instruction: str, **fields: Any) -> Outcome:
        """What a user signs, as the edge would bring it in."""
        return await self.bring(self.derived(key, instruction, fields), self.request(key, instruction, fields))

    async def close(self) -> None:
        self.sequencer.stop()
        await self._running
        chain = self.sequencer.chain
        origin = f"{self.sequencer.state.exchange}/blocks"
        checkpoint = sign_checkpoint(origin, chain.height + 1, chain.log.root(), EXCHANGE)
        write_checkpoint(self.data / "checkpoint.txt", checkpoint)
        self._store.close()
        self._thread.shutdown()
        self.engine.dispose()


async def trade(exchange: Exchange) -> None:
    """Two customers, two deposits, three trades, a cancel, a withdrawal, an epoch on demand."""
    await exchange.register(ALICE)
    await exchange.register(BOB)
    usdc = next(one.asset_id for one in exchange.sequencer.state.assets.values() if one.symbol == "USDC")
    await exchange.bring(SetPrices(((usdc, PRICE_SCALE),)))
    await exchange.deposit(ALICE, "USDC", 10_000_000_000, 1)
    await exchange.deposit(BOB, "SOL", 500_000_000_000, 2)
    for price in ("100", "101", "102"):
        await exchange.ask(
            BOB, "orderExecute", symbol="SOL_USDC", side="Ask", orderType="Limit", price=price, quantity="2"
        )
    bought = await exchange.ask(
        ALICE, "orderExecute", symbol="SOL_USDC", side="Bid", orderType="Limit", price="101", quantity="3.5"
    )
    assert bought.rejection is None, bought.rejection
    await exchange.ask(ALICE, "orderCancelAll", symbol="SOL_USDC")
    chain = next(iter(exchange.sequencer.state.chains.values())).name
    left = await exchange.ask(
        ALICE, "withdraw", symbol="USDC", blockchain=chain, quantity="25", address="somewhere", clientId="w1"
    )
    assert left.rejection is None, left.rejection
    await exchange.bring(CloseEpoch(0))


def write_log(data: Path, database: str | None = None) -> None:
    """The sample log, whole and closed, under `data`."""

    async def run() -> None:
        exchange = await Exchange(data, database).open()
        await trade(exchange)
        await exchange.close()

    asyncio.run(run())
