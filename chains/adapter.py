"""What Satchel asks of a blockchain: one interface for every chain family, every read pinned to a block.   [D-2]"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol


class Adapter(Protocol):
    """One node of one chain. Amounts are base units of the chain; `contract` is "" for the native coin.

    Every method either answers completely or raises: `Unavailable` when asking again may help, `Moved` when the
    pinned block is no longer on the node's chain. An adapter never holds a key.   [D-2, D-12]
    """

    chain_id: int

    async def identity(self) -> Identity:
        """Which network the node is on."""
        ...

    async def tip(self) -> BlockRef:
        """The newest block the node knows."""
        ...

    async def final(self) -> BlockRef:
        """The newest block that the chain itself calls final."""
        ...

    async def block(self, height: int) -> BlockRef | None:
        """The canonical block at a height, or None above the tip."""
        ...

    async def transfers(
        self, block: BlockRef, watched: Collection[str], contracts: Collection[str]
    ) -> list[Transfer]:
        """Every successful transfer in this block to a watched address. `contracts` are the listed tokens.   [D-7]"""
        ...

    async def balance(self, address: str, contract: str, at: BlockRef) -> int:
        """Base units held by an address in the state after block `at`."""
        ...

    async def mined_nonces(self, address: str, at: BlockRef) -> int:
        """How many transactions of this address are included up to block `at`: the next free nonce on chain."""
        ...

    def normalize(self, address: str) -> str | None:
        """The one spelling of a valid address, or None when it is not an address of this chain."""
        ...

    async def quote(self, payment: Payment) -> Fee:
        """A fee at which this payment is likely to be mined soon."""
        ...

    def build(self, payment: Payment, nonce: int, fee: Fee) -> bytes:
        """The unsigned transaction for a payment. The signer parses these bytes again by itself.   [D-10]"""
        ...

    async def broadcast(self, raw: bytes) -> Reply:
        """Hand a signed transaction to the node. Repeating it is harmless."""
        ...

    async def status(self, tx_id: str) -> TxStatus:
        """Where a transaction stands on the node's present chain."""
        ...


class ChainError(Exception):
    """Something about a chain that stops this step, not the process."""


class Unavailable(ChainError):
    """The node did not answer, or answered with an error: nothing is known, ask again.   [D-12]"""


class Moved(ChainError):
    """The block that a read was pinned to is not on the node's chain."""


class WrongChain(ChainError):
    """The node is on another network than the one this database follows.   [D-12]"""


@dataclass(frozen=True, slots=True)
class Identity:
    """A network: its own id and the hash of its first block."""

    network: str
    genesis_hash: str


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block by height, hash and parent. `time_us` is the chain's own time."""

    height: int
    hash: str
    parent: str
    time_us: int


class Kind(StrEnum):
    """How value arrived: paid by the transaction itself, by a token's Transfer log, or by an inner call."""

    NATIVE = "native"
    TOKEN = "token"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer that a canonical, successful transaction claims, and what the balance says of it.

    `amount` is the claim; `received` is how much of it the recipient's balance confirms, never more.   [D-7]
    `index` is stable when the transaction is included again elsewhere: 0 for the transaction's own value,
    1 + the position of the log in the transaction, `INTERNAL_INDEX` + the position of the inner call.
    """

    tx_id: str
    index: int
    kind: Kind
    contract: str
    sender: str
    recipient: str
    amount: int
    received: int


INTERNAL_INDEX = 1_000_000


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment to be built: `amount` base units of `contract` from `source` to `recipient`."""

    source: str
    recipient: str
    contract: str
    amount: int


@dataclass(frozen=True, slots=True)
class Fee:
    """Fee bid: at most `max_fee` base units of native coin per gas, of which `priority_fee` goes to the miner."""

    max_fee: int
    priority_fee: int
    gas: int

    @property
    def most(self) -> int:
        """The most this transaction can cost in fees, in native base units."""
        return self.max_fee * self.gas

    def bumped(self, quote: Fee) -> Fee:
        """A bid that every node accepts as a replacement: ≥ 12.5 % more on both fees, rounded up.   [D-8]"""
        return Fee(
            max_fee=max(quote.max_fee, _eighth_more(self.max_fee)),
            priority_fee=max(quote.priority_fee, _eighth_more(self.priority_fee)),
            gas=max(quote.gas, self.gas),
        )


def _eighth_more(fee: int) -> int:
    return fee + max(1, -(-fee // 8))


class Verdict(StrEnum):
    """What a node said to a broadcast; everything that can mean "I have it" is told apart from a refusal.   [D-8]"""

    ACCEPTED = "accepted"
    KNOWN = "known"
    NONCE_USED = "nonce used"
    UNDERPRICED = "underpriced"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Reply:
    """A verdict with the node's own words."""

    verdict: Verdict
    words: str = ""


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A mined transaction: its block, whether it succeeded, what it cost, and every transfer it made."""

    block: BlockRef
    ok: bool
    fee: int
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class TxStatus:
    """Unknown (neither), pooled, or mined. Unknown is never proof that a transaction is dead.   [D-8]"""

    pooled: bool = False
    mined: Inclusion | None = None


async def confirmed(
    found: Collection[Transfer],
    contracts: Collection[str],
    growth: Callable[[str, str], Awaitable[int]],
) -> list[Transfer]:
    """Give each transfer of a listed coin what the recipient's balance confirms, in order, never more than it claims.

    `growth(address, contract)` is how much an address's balance grew in the block, before what it sent itself.   [D-7]
    """
    left: dict[tuple[str, str], int] = {}
    result = []
    for transfer in found:
        key = (transfer.recipient, transfer.contract)
        if transfer.contract and transfer.contract not in contracts:
            result.append(transfer)
            continue
        if key not in left:
            left[key] = max(0, await growth(*key))
        received = min(transfer.amount, left[key])
        left[key] -= received
        result.append(replace(transfer, received=received))
    return result


async def agreed_tip(adapters: Sequence[Adapter], quorum: int) -> BlockRef:
    """The newest height that `quorum` nodes have reached: no single node can make a deposit look deep.   [D-12]"""
    return await _agreed([adapter.tip for adapter in adapters], quorum)


async def agreed_final(adapters: Sequence[Adapter], quorum: int) -> BlockRef:
    """The newest height that `quorum` nodes call final.   [D-6, D-12]"""
    return await _agreed([adapter.final for adapter in adapters], quorum)


async def count_canonical(adapters: Sequence[Adapter], height: int, block_hash: str) -> int:
    """How many nodes have this very block; one that does not answer does not count.   [D-5, D-12]"""
    count = 0
    for adapter in adapters:
        try:
            block = await adapter.block(height)
        except ChainError:
            continue
        count += block is not None and block.hash == block_hash
    return count


async def _agreed(questions: Sequence[Callable[[], Awaitable[BlockRef]]], quorum: int) -> BlockRef:
    answers: list[BlockRef] = []
    faults: list[str] = []
    for question in questions:
        try:
            answers.append(await question())
        except ChainError as fault:
            faults.append(str(fault))
    if len(answers) < quorum:
        raise Unavailable(f"{len(answers)} of {len(questions)} nodes answer, {quorum} must: {'; '.join(faults)}")
    return sorted(answers, key=lambda block: -block.height)[quorum - 1]
