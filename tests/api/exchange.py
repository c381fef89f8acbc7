"""A real engine for the tests of the edge: commands in, durable-looking signed blocks and their outcomes out."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.commands import (
    Command,
    CreditDeposit,
    Genesis,
    OrderType,
    PlaceOrder,
    RegisterKey,
    Side,
    encode,
)
from engine.events import Outcome
from engine.parameters import (
    PRICE_SCALE,
    RATE_SCALE,
    AssetParameters,
    BandParameters,
    BookState,
    ChainParameters,
    FeeSchedule,
    FeeTier,
    GenesisParameters,
    Limits,
    MarketParameters,
    MarketType,
    TokenParameters,
    WeightKind,
)
from engine.state import State
from engine.transition import apply
from ledger.blocks import Block, Chain, SignedRequest, log_command
from ledger.journal import seal

USDC, SOL, BTC = 1, 2, 3
SOL_USDC, BTC_USDC = 1, 2
ALICE, BOB = 1, 2
"""Subaccounts, each of its own user."""

START_US = 1_780_000_000_000_000


class Exchange:
    """State, chain of blocks and clock of one exchange; `run` is one block."""

    def __init__(self, born: GenesisParameters | None = None) -> None:
        self.state = State()
        self.chain = Chain(bytes(32), lambda _message: bytes(64))
        self.at_us = START_US
        self.blocks: list[tuple[Block, list[Outcome]]] = []
        self._requests = 0
        self.run(Genesis(born or genesis(), bytes(32)))
        self.run(RegisterKey(public_key(ALICE)), RegisterKey(public_key(BOB)))
        self.run(*(self.deposit(who, asset) for who in (ALICE, BOB) for asset in (USDC, SOL, BTC)))

    def run(self, *commands: Command) -> tuple[Block, list[Outcome]]:
        """Apply the commands as one block; every one must be accepted."""
        outcomes, logged, journal = [], [], []
        head, next_journal = self.chain.journal_head, self.chain.next_journal
        for command in commands:
            request = self._signed(command)
            seq = self.state.sequence + 1
            outcome = apply(self.state, seq, self.at_us, command, request)
            assert outcome.rejection is None, f"{command} was refused: {outcome.rejection}"
            outcomes.append(outcome)
            name = type(command).__name__
            logged.append(log_command(seq, self.at_us, 0, name, encode(command), request))
            for entry in outcome.journal:
                sealed = seal(head, next_journal, seq, self.at_us, entry)
                head, next_journal = sealed.hash, next_journal + 1
                journal.append(sealed)
        block = self.chain.build(self.at_us, logged, journal)
        self.blocks.append((block, outcomes))
        return block, outcomes

    def wait(self, seconds: float) -> None:
        self.at_us += int(seconds * 1_000_000)

    def now_us(self) -> int:
        return self.at_us

    def deposit(self, subaccount_id: int, asset_id: int, atoms: int = 10**15) -> CreditDeposit:
        self._requests += 1
        tx_id = f"0x{self._requests:064x}"
        return CreditDeposit(1, tx_id, 0, subaccount_id, subaccount_id, asset_id, atoms, 1, "0x00", True)

    def _signed(self, command: Command) -> SignedRequest | None:
        subaccount_id = _actor(command)
        if not subaccount_id:
            return None
        self._requests += 1
        now_ms = self.at_us // 1000
        return SignedRequest(
            public_key(subaccount_id), self._requests.to_bytes(64, "big"), b"", now_ms, 5_000, now_ms
        )


def limit(subaccount_id: int, side: Side, price_ticks: int, lots: int, **more: Any) -> PlaceOrder:
    """A limit order on SOL_USDC unless `market_id` says otherwise."""
    market_id = more.pop("market_id", SOL_USDC)
    return PlaceOrder(
        subaccount_id, market_id, side, OrderType.LIMIT, price_ticks=price_ticks, lots=lots, **more
    )


def genesis() -> GenesisParameters:
    """Two assets and a dollar, SOL_USDC (tick 0.01, step 0.01) and BTC_USDC (tick 0.1, step 0.0001)."""
    bands = BandParameters(
        RATE_SCALE // 100, 100 * RATE_SCALE, RATE_SCALE // 10, 10 * RATE_SCALE, RATE_SCALE // 2, 2 * RATE_SCALE, 10**8
    )
    return GenesisParameters(
        exchange="test",
        devnet=True,
        operator_keys=(),
        assets=(_asset(USDC, "USDC", 6), _asset(SOL, "SOL", 9), _asset(BTC, "BTC", 8)),
        chains=(ChainParameters(1, "Solana", SOL),),
        tokens=(_token(USDC, "usdc"), _token(SOL, ""), _token(BTC, "btc")),
        markets=(
            MarketParameters(
                SOL_USDC, "SOL_USDC", MarketType.SPOT, SOL, USDC, PRICE_SCALE // 100, 10**7, 100, 1, 10**10,
                BookState.OPEN, bands,
            ),
            MarketParameters(
                BTC_USDC, "BTC_USDC", MarketType.SPOT, BTC, USDC, PRICE_SCALE // 10, 10**4, 10, 1, 10**10,
                BookState.OPEN, bands,
            ),
        ),
        fees=FeeSchedule((FeeTier("T1", 0, 800_000, 1_000_000),), (FeeTier("T1", 0, 200_000, 500_000),), 0),
        limits=Limits(),
    )


def _asset(asset_id: int, symbol: str, decimals: int) -> AssetParameters:
    return AssetParameters(
        asset_id, symbol, symbol, decimals, 1, True, RATE_SCALE, WeightKind.IDENTITY, 0, 0, 0, 0, 0, 0
    )


def _token(asset_id: int, contract: str) -> TokenParameters:
    return TokenParameters(asset_id, 1, contract, 9, 1, 0, 2_000, 10**18, 1_000)


def secret_key(subaccount_id: int) -> Ed25519PrivateKey:
    """The API key of a subaccount, whole."""
    return Ed25519PrivateKey.from_private_bytes(subaccount_id.to_bytes(32, "big"))


def public_key(subaccount_id: int) -> bytes:
    return secret_key(subaccount_id).public_key().public_bytes_raw()


def _actor(command: Command) -> int:
    if isinstance(command, RegisterKey | CreditDeposit):
        return 0
    orders = getattr(command, "orders", None)
    if orders:
        return orders[0].subaccount_id
    return getattr(command, "subaccount_id", 0)
