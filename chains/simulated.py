"""The simulated chain: blocks, mempool, fee market, nonces, reorgs, finality lag, hostile tokens, in one SQLite file.

It obeys the rules of geth where a test node is lax: a replacement bids ≥ 10 % more on both fees, and transactions
of orphaned blocks return to the mempool. Everything is signed with real Ed25519 keys and checked.   [D-2]
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from threading import Lock

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chains import base58
from chains.adapter import (
    INTERNAL_INDEX,
    BlockRef,
    Fee,
    Identity,
    Inclusion,
    Kind,
    Moved,
    Payment,
    Reply,
    Transfer,
    TxStatus,
    Unavailable,
    Verdict,
    confirmed,
)

PAY_GAS = 1
TOKEN_GAS = 3
RELAY_GAS = 5
BLOCK_GAS = 2_000
LEAST_BASE_FEE = 1_000
PRIORITY_FEE = 100
NATIVE = ""
_NONCE = "#nonce"


# ---- transactions ----------------------------------------------------------------------------------------------


class Pay(msgspec.Struct, frozen=True, tag="pay"):
    """Send native coin."""

    recipient: str
    amount: int


class TransferToken(msgspec.Struct, frozen=True, tag="token"):
    """Call a token contract's transfer."""

    contract: str
    recipient: str
    amount: int


class InnerCall(msgspec.Struct, frozen=True):
    """One payment made by a contract; when it reverts, the contract goes on and the transaction still succeeds."""

    recipient: str
    amount: int
    reverts: bool = False


class Relay(msgspec.Struct, frozen=True, tag="relay"):
    """Call a contract that pays others in inner calls; `reverts` fails the whole transaction."""

    calls: tuple[InnerCall, ...]
    reverts: bool = False


class SimulatedTransaction(msgspec.Struct, frozen=True):
    """An unsigned transaction. Its bytes are its JSON encoding, which has no limit to the size of a number."""

    network: str
    sender: str
    nonce: int
    max_fee: int
    priority_fee: int
    gas: int
    action: Pay | TransferToken | Relay


def encode(transaction: SimulatedTransaction) -> bytes:
    """The bytes that are signed."""
    return msgspec.json.encode(transaction)


def decode(payload: bytes) -> SimulatedTransaction:
    """An unsigned transaction from its bytes; raises `msgspec.DecodeError` when they are none."""
    return msgspec.json.decode(payload, type=SimulatedTransaction)


def sign(payload: bytes, key: Ed25519PrivateKey) -> tuple[str, bytes]:
    """(transaction id, signed bytes). The id is the signature, as on Solana."""
    signature = key.sign(payload)
    return base58.encode(signature), msgspec.msgpack.encode([payload, signature])


def opened(raw: bytes) -> tuple[bytes, str]:
    """(unsigned bytes, transaction id) of signed bytes whose signature is the sender's; an exception otherwise."""
    payload, signature = msgspec.msgpack.decode(raw, type=tuple[bytes, bytes])
    public_key = base58.decode(decode(payload).sender) or b""
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature, payload)
    return payload, base58.encode(signature)


def address_of(key: Ed25519PrivateKey) -> str:
    """The address of a key: its public key in base58."""
    return base58.encode(key.public_key().public_bytes_raw())


class Behaviour(StrEnum):
    """How a token's transfer behaves; all but the first are attacks that a deposit check must see through.   [D-7]"""

    HONEST = "honest"
    RETURNS_FALSE = "returns false"
    LIES = "logs without moving"
    KEEPS_FEE = "keeps a tenth, logs the whole"
    REVERTS = "reverts"


# ---- the chain -------------------------------------------------------------------------------------------------


class SimulatedChain:
    """A whole network in process. `path` None keeps it in memory; with a path a restart finds it again.

    Without `clock_us` the chain is deterministic from `seed`: block n is n seconds after the first.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        seed: str = "satchel devnet",
        finality_lag: int = 4,
        clock_us: Callable[[], int] | None = None,
    ) -> None:
        self.finality_lag = finality_lag
        self.network = "simulated:" + hashlib.sha256(seed.encode()).hexdigest()[:16]
        self._clock_us = clock_us
        self._faucet = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"faucet " + seed.encode()).digest())
        self.faucet_address = address_of(self._faucet)
        self._sql = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        # A node mines in a thread; SQLite must not be closed under its feet.
        self._mining = Lock()
        self._sql.execute("PRAGMA journal_mode=WAL")
        self._sql.execute("PRAGMA synchronous=NORMAL")
        self._sql.executescript(_SCHEMA)
        if self._one("SELECT 1 FROM chain_sim_blocks") is None:
            with self._transaction():
                self.set_base_fee(LEAST_BASE_FEE)
                self._insert_block(0, "0" * 64, [], LEAST_BASE_FEE, 0)
                self._set(self.faucet_address, NATIVE, 0, 10**30)

    def close(self) -> None:
        """Wait for the blocks that are being mined; afterwards mining raises sqlite3.ProgrammingError."""
        with self._mining:
            self._sql.close()

    # -- for whoever drives the chain

    def deploy(self, contract: str, *, decimals: int, behaviour: Behaviour = Behaviour.HONEST) -> str:
        """Create a token whose whole supply belongs to the faucet. Deploying the same contract again does nothing."""
        with self._transaction():
            if self._one("SELECT 1 FROM chain_sim_tokens WHERE contract = ?", contract) is None:
                self._sql.execute("INSERT INTO chain_sim_tokens VALUES (?, ?, ?)", (contract, decimals, behaviour))
                self._set(self.faucet_address, contract, 0, 10 ** (decimals + 30))
        return contract

    def turn(self, contract: str, behaviour: Behaviour) -> None:
        """Change how a token behaves from now on, as an upgradable contract may."""
        self._sql.execute("UPDATE chain_sim_tokens SET behaviour = ? WHERE contract = ?", (behaviour, contract))

    def faucet(self, recipient: str, contract: str, amount: int) -> str:
        """Send coins from the faucet account; mined like any other transaction. Returns the transaction id."""
        action = Pay(recipient, amount) if contract == NATIVE else TransferToken(contract, recipient, amount)
        return self.send(self._faucet, action)

    def send(
        self,
        key: Ed25519PrivateKey,
        action: Pay | TransferToken | Relay,
        *,
        nonce: int | None = None,
        max_fee: int | None = None,
        priority_fee: int = PRIORITY_FEE,
        gas: int | None = None,
    ) -> str:
        """Sign and broadcast an action of any account, with the next free nonce. Raises when it is refused."""
        sender = address_of(key)
        transaction = SimulatedTransaction(
            network=self.network,
            sender=sender,
            nonce=self.next_nonce(sender) if nonce is None else nonce,
            max_fee=2 * self.base_fee + priority_fee if max_fee is None else max_fee,
            priority_fee=priority_fee,
            gas=_gas(action) if gas is None else gas,
            action=action,
        )
        tx_id, raw = sign(encode(transaction), key)
        reply = self.accept(raw)
        if reply.verdict is not Verdict.ACCEPTED:
            raise ValueError(f"{tx_id}: {reply.verdict}: {reply.words}")
        return tx_id

    def next_nonce(self, address: str) -> int:
        """The first nonce that is neither mined nor in the mempool."""
        nonce = self._value(address, _NONCE, self.height)
        pooled = {row[0] for row in self._all("SELECT nonce FROM chain_sim_txs WHERE sender = ? AND height IS NULL",
                                              address)}
        while nonce in pooled:
            nonce += 1
        return nonce

    def mine(self, count: int = 1, *, empty: bool = False) -> BlockRef:
        """Mine blocks from the mempool, best paying first; `empty` leaves the mempool waiting."""
        with self._mining:
            for _ in range(count):
                with self._transaction():
                    self._mine_one(empty)
            return self.tip()

    def reorg(
        self, depth: int, *, drop: Collection[str] = (), reinclude: bool = True, extend: int = 1
    ) -> BlockRef:
        """Replace the newest `depth` blocks by `depth + extend` others.

        Transactions in `drop` vanish; the others return to the mempool and, if `reinclude`, to the new blocks.
        """
        ancestor = self.height - depth
        assert 0 < depth and ancestor >= 0, f"reorg of {depth} blocks at height {self.height}"
        with self._transaction():
            self._sql.execute("UPDATE chain_sim_info SET value = value + 1 WHERE key = 'fork'")
            self._sql.execute("DELETE FROM chain_sim_blocks WHERE height > ?", (ancestor,))
            self._sql.execute("DELETE FROM chain_sim_balances WHERE height > ?", (ancestor,))
            self._sql.execute("UPDATE chain_sim_txs SET height = NULL WHERE height > ?", (ancestor,))
            self.drop(drop)
        return self.mine(depth + extend, empty=not reinclude)

    def drop(self, tx_ids: Collection[str]) -> None:
        """Take transactions out of the mempool, as a node does that is short of memory."""
        for tx_id in tx_ids:
            self._sql.execute("DELETE FROM chain_sim_txs WHERE tx_id = ? AND height IS NULL", (tx_id,))

    def set_base_fee(self, base_fee: int) -> None:
        """Set the base fee of the next block: whoever bids less waits in the mempool."""
        self._sql.execute("UPDATE chain_sim_info SET value = ? WHERE key = 'base_fee'", (base_fee,))

    # -- what a node reads

    @property
    def height(self) -> int:
        return int(self._sql.execute("SELECT max(height) FROM chain_sim_blocks").fetchone()[0])

    @property
    def base_fee(self) -> int:
        """The base fee of the next block, per gas."""
        return int(self._sql.execute("SELECT value FROM chain_sim_info WHERE key = 'base_fee'").fetchone()[0])

    def tip(self) -> BlockRef:
        block = self.block(self.height)
        assert block is not None
        return block

    def block(self, height: int) -> BlockRef | None:
        row = self._one("SELECT height, hash, parent, time_us FROM chain_sim_blocks WHERE height = ?", height)
        return None if row is None else BlockRef(*row)

    def balance(self, address: str, contract: str = NATIVE, at: BlockRef | None = None) -> int:
        """Base units of an address after a block (the tip when none is named)."""
        self.require(at)
        return self._value(address, contract, self.height if at is None else at.height)

    def mined_nonces(self, address: str, at: BlockRef) -> int:
        self.require(at)
        return self._value(address, _NONCE, at.height)

    def require(self, block: BlockRef | None) -> None:
        """Raise `Moved` unless the block is on the chain."""
        if block is not None:
            row = self._one("SELECT hash FROM chain_sim_blocks WHERE height = ?", block.height)
            if row is None or row[0] != block.hash:
                raise Moved(f"block {block.height} {block.hash[:12]} is not on the chain")

    def transactions(self, block: BlockRef) -> list[MinedTransaction]:
        """Everything mined in a block, in order."""
        self.require(block)
        rows = self._all(_MINED + "height = ? ORDER BY position", block.height)
        return [_mined(row) for row in rows]

    def transaction(self, tx_id: str) -> MinedTransaction | None:
        """A transaction by id; `height` is None while it is in the mempool."""
        row = self._one(_MINED + "tx_id = ?", tx_id)
        return None if row is None else _mined(row)

    def accept(self, raw: bytes) -> Reply:
        """Admit a signed transaction to the mempool, by the rules of geth."""
        try:
            payload, signature = msgspec.msgpack.decode(raw, type=tuple[bytes, bytes])
            transaction = decode(payload)
            public = base58.decode(transaction.sender) or b""
            Ed25519PublicKey.from_public_bytes(public).verify(signature, payload)
        except (msgspec.MsgspecError, ValueError, InvalidSignature) as error:
            return Reply(Verdict.REFUSED, f"invalid transaction: {error}")

        tx_id = base58.encode(signature)
        if transaction.network != self.network:
            return Reply(Verdict.REFUSED, f"wrong network {transaction.network}, this is {self.network}")
        if self._one("SELECT 1 FROM chain_sim_txs WHERE tx_id = ?", tx_id) is not None:
            return Reply(Verdict.KNOWN, "already known")
        if min(transaction.nonce, transaction.max_fee, transaction.priority_fee, transaction.gas,
               *_amounts(transaction.action)) < 0:  # fmt: skip
            return Reply(Verdict.REFUSED, "invalid transaction: a number is below zero")
        mined = self._value(transaction.sender, _NONCE, self.height)
        if transaction.nonce < mined:
            return Reply(Verdict.NONCE_USED, f"nonce too low: next {mined}, got {transaction.nonce}")
        if transaction.max_fee < LEAST_BASE_FEE or transaction.priority_fee > transaction.max_fee:
            return Reply(Verdict.UNDERPRICED, f"transaction underpriced: {transaction.max_fee} < {LEAST_BASE_FEE}")
        cost = _native_value(transaction) + transaction.gas * transaction.max_fee
        if self._value(transaction.sender, NATIVE, self.height) < cost:
            return Reply(Verdict.REFUSED, f"insufficient funds for gas and value: {cost}")
        return self._admit(tx_id, raw, transaction)

    # -- inside

    def _admit(self, tx_id: str, raw: bytes, transaction: SimulatedTransaction) -> Reply:
        """Enter the mempool, replacing a transaction of the same nonce only for ≥ 10 % more on both fees."""
        old = self._one(
            "SELECT tx_id, raw FROM chain_sim_txs WHERE sender = ? AND nonce = ? AND height IS NULL",
            transaction.sender, transaction.nonce,
        )
        with self._transaction():
            if old is not None:
                before = _transaction(old[1])
                if (
                    10 * transaction.max_fee < 11 * before.max_fee
                    or 10 * transaction.priority_fee < 11 * before.priority_fee
                ):
                    return Reply(Verdict.UNDERPRICED, "replacement transaction underpriced")
                self.drop([old[0]])
            self._sql.execute(
                "INSERT INTO chain_sim_txs (tx_id, raw, sender, nonce) VALUES (?, ?, ?, ?)",
                (tx_id, raw, transaction.sender, transaction.nonce),
            )
        return Reply(Verdict.ACCEPTED)

    def _mine_one(self, empty: bool) -> None:
        parent, base_fee, height = self.tip(), self.base_fee, self.height + 1
        included: list[str] = []
        gas_used = 0
        while not empty and (candidate := self._best(base_fee, height, BLOCK_GAS - gas_used)) is not None:
            tx_id, transaction = candidate
            gas_used += self._execute(tx_id, transaction, base_fee, height, len(included))
            included.append(tx_id)
        self._insert_block(height, parent.hash, included, base_fee, gas_used)

    def _best(self, base_fee: int, height: int, room: int) -> tuple[str, SimulatedTransaction] | None:
        """The best paying transaction that can be executed now; None when none can."""
        best: tuple[int, str, SimulatedTransaction] | None = None
        for tx_id, raw in self._all("SELECT tx_id, raw FROM chain_sim_txs WHERE height IS NULL ORDER BY rowid"):
            transaction = _transaction(raw)
            tip = min(transaction.max_fee - base_fee, transaction.priority_fee)
            if (
                tip >= 0
                and transaction.gas <= room
                and transaction.nonce == self._value(transaction.sender, _NONCE, height)
                and self._value(transaction.sender, NATIVE, height)
                >= _native_value(transaction) + transaction.gas * transaction.max_fee
                and (best is None or tip > best[0])
            ):
                best = (tip, tx_id, transaction)
        return None if best is None else best[1:]

    def _execute(
        self, tx_id: str, transaction: SimulatedTransaction, base_fee: int, height: int, position: int
    ) -> int:
        """Apply one transaction to the state; returns its gas. A failing one pays its fee and moves nothing."""
        sender, action = transaction.sender, transaction.action
        needed = _gas(action)
        fee = min(needed, transaction.gas) * min(transaction.max_fee, base_fee + transaction.priority_fee)
        self._add(sender, NATIVE, height, -fee)
        self._add(sender, _NONCE, height, 1)

        ok = transaction.gas >= needed
        effects: list[Effect] = []
        match action:
            case Pay():
                if ok:
                    self._move(sender, action.recipient, NATIVE, action.amount, height)
            case TransferToken():
                ok = ok and self._transfer_token(sender, action, height, effects)
            case Relay():
                ok = ok and not action.reverts
                if ok:
                    self._relay(sender, action, height, effects)
        self._sql.execute(
            "UPDATE chain_sim_txs SET height = ?, position = ?, ok = ?, fee = ?, effects = ? WHERE tx_id = ?",
            (height, position, ok, str(fee), msgspec.json.encode(effects), tx_id),
        )
        return min(needed, transaction.gas)

    def _transfer_token(self, sender: str, action: TransferToken, height: int, effects: list[Effect]) -> bool:
        row = self._one("SELECT behaviour FROM chain_sim_tokens WHERE contract = ?", action.contract)
        if row is None:
            return True  # A call to an address without code succeeds and does nothing, as on Ethereum.
        behaviour = Behaviour(row[0])
        if behaviour is Behaviour.RETURNS_FALSE:
            return True
        if behaviour is Behaviour.REVERTS:
            return False
        if behaviour is not Behaviour.LIES:
            if self._value(sender, action.contract, height) < action.amount:
                return False
            kept = action.amount // 10 if behaviour is Behaviour.KEEPS_FEE else 0
            self._move(sender, action.recipient, action.contract, action.amount - kept, height)
            self._add(sender, action.contract, height, -kept)
        effects.append(Effect("log", action.contract, sender, action.recipient, action.amount, True))
        return True

    def _relay(self, sender: str, action: Relay, height: int, effects: list[Effect]) -> None:
        for call in action.calls:
            if not call.reverts:
                self._move(sender, call.recipient, NATIVE, call.amount, height)
            effects.append(Effect("call", NATIVE, sender, call.recipient, call.amount, not call.reverts))

    def _move(self, sender: str, recipient: str, contract: str, amount: int, height: int) -> None:
        self._add(sender, contract, height, -amount)
        self._add(recipient, contract, height, amount)

    def _add(self, address: str, contract: str, height: int, amount: int) -> None:
        value = self._value(address, contract, height) + amount
        assert value >= 0, f"{address} would hold {value} of {contract or 'native coin'}"
        self._set(address, contract, height, value)

    def _set(self, address: str, contract: str, height: int, value: int) -> None:
        self._sql.execute(
            "INSERT OR REPLACE INTO chain_sim_balances VALUES (?, ?, ?, ?)", (address, contract, height, str(value))
        )

    def _value(self, address: str, contract: str, height: int) -> int:
        row = self._one(
            "SELECT value FROM chain_sim_balances WHERE address = ? AND contract = ? AND height <= ?"
            " ORDER BY height DESC LIMIT 1",
            address, contract, height,
        )
        return 0 if row is None else int(row[0])

    def _insert_block(self, height: int, parent: str, tx_ids: list[str], base_fee: int, gas_used: int) -> None:
        fork = self._sql.execute("SELECT value FROM chain_sim_info WHERE key = 'fork'").fetchone()[0]
        time_us = height * 1_000_000 if self._clock_us is None else self._clock_us()
        header = json.dumps([self.network, height, parent, time_us, base_fee, fork, tx_ids]).encode()
        block = (height, hashlib.sha256(header).hexdigest(), parent, time_us)
        self._sql.execute("INSERT INTO chain_sim_blocks VALUES (?, ?, ?, ?)", block)
        # The fee market of EIP-1559: an eighth up when the block was full, an eighth down when it was empty.
        change = base_fee * (2 * gas_used - BLOCK_GAS) // (8 * BLOCK_GAS)
        self.set_base_fee(max(LEAST_BASE_FEE, base_fee + change))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._sql.in_transaction:
            yield
            return
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._sql.execute("ROLLBACK")
            raise
        self._sql.execute("COMMIT")

    def _one(self, sql: str, *values: object) -> tuple | None:  # type: ignore[type-arg]
        row: tuple | None = self._sql.execute(sql, values).fetchone()  # type: ignore[type-arg]
        return row

    def _all(self, sql: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        return self._sql.execute(sql, values).fetchall()


class Effect(msgspec.Struct, frozen=True, array_like=True):
    """What a transaction left behind: a token's log, or an inner call with its success."""

    kind: str
    contract: str
    sender: str
    recipient: str
    amount: int
    ok: bool


@dataclass(frozen=True, slots=True)
class MinedTransaction:
    """A transaction with its place and result; `height` is None in the mempool."""

    tx_id: str
    transaction: SimulatedTransaction
    height: int | None
    ok: bool
    fee: int
    effects: tuple[Effect, ...]


_MINED = "SELECT tx_id, raw, height, ok, fee, effects FROM chain_sim_txs WHERE "


def _mined(row: tuple) -> MinedTransaction:  # type: ignore[type-arg]
    tx_id, raw, height, ok, fee, effects = row
    decoded = msgspec.json.decode(effects or b"[]", type=tuple[Effect, ...])
    return MinedTransaction(tx_id, _transaction(raw), height, bool(ok), int(fee or 0), decoded)


def _transaction(raw: bytes) -> SimulatedTransaction:
    payload, _ = msgspec.msgpack.decode(raw, type=tuple[bytes, bytes])
    return decode(payload)


def _gas(action: Pay | TransferToken | Relay) -> int:
    match action:
        case Pay():
            return PAY_GAS
        case TransferToken():
            return TOKEN_GAS
        case Relay():
            return RELAY_GAS + len(action.calls)


def _amounts(action: Pay | TransferToken | Relay) -> list[int]:
    return [call.amount for call in action.calls] if isinstance(action, Relay) else [action.amount]


def _native_value(transaction: SimulatedTransaction) -> int:
    match transaction.action:
        case Pay(amount=amount):
            return amount
        case Relay(calls=calls):
            return sum(call.amount for call in calls)
        case _:
            return 0


_SCHEMA = """
CREATE TABLE IF NOT EXISTS chain_sim_info (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO chain_sim_info VALUES ('fork', 0), ('base_fee', 1000);
CREATE TABLE IF NOT EXISTS chain_sim_blocks (
    height INTEGER PRIMARY KEY, hash TEXT NOT NULL, parent TEXT NOT NULL, time_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS chain_sim_txs (
    tx_id TEXT NOT NULL UNIQUE, raw BLOB NOT NULL, sender TEXT NOT NULL, nonce INTEGER NOT NULL,
    height INTEGER, position INTEGER, ok INTEGER, fee TEXT, effects BLOB);
CREATE INDEX IF NOT EXISTS chain_sim_txs_height ON chain_sim_txs (height);
CREATE INDEX IF NOT EXISTS chain_sim_txs_sender ON chain_sim_txs (sender, nonce);
CREATE TABLE IF NOT EXISTS chain_sim_balances (
    address TEXT NOT NULL, contract TEXT NOT NULL, height INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (address, contract, height)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chain_sim_tokens (
    contract TEXT PRIMARY KEY, decimals INTEGER NOT NULL, behaviour TEXT NOT NULL);
"""


# ---- a node ----------------------------------------------------------------------------------------------------


@dataclass
class Faults:
    """What goes wrong between us and a node; every field counts down or stays until reset.   [D-12]"""

    timeouts: int = 0
    errors: int = 0
    lost_replies: int = 0
    behind: int = 0
    second_head: bool = False
    network: str | None = None


class SimulatedNode:
    """One node of a simulated chain as an adapter, with its own faults. It holds no key."""

    def __init__(self, chain: SimulatedChain, chain_id: int = 1, faults: Faults | None = None) -> None:
        self.chain_id = chain_id
        self.faults = faults or Faults()
        self._chain = chain
        self._answers = 0

    async def identity(self) -> Identity:
        await self._wire()
        genesis = self._chain.block(0)
        assert genesis is not None
        return Identity(self.faults.network or self._chain.network, genesis.hash)

    async def tip(self) -> BlockRef:
        await self._wire()
        return self._seen(max(0, self._chain.height - self.faults.behind))

    async def final(self) -> BlockRef:
        await self._wire()
        block = self._chain.block(max(0, self._chain.height - self.faults.behind - self._chain.finality_lag))
        assert block is not None
        return block

    async def block(self, height: int) -> BlockRef | None:
        await self._wire()
        return None if height > self._chain.height - self.faults.behind else self._seen(height)

    async def transfers(self, block: BlockRef, watched: Collection[str], contracts: Collection[str]) -> list[Transfer]:
        await self._wire()
        found = [
            transfer
            for mined in self._chain.transactions(block)
            if mined.ok
            for transfer in _transfers(mined)
            if transfer.recipient in watched and transfer.amount
        ]
        return await confirmed(found, contracts, partial(self._growth, block))

    async def balance(self, address: str, contract: str, at: BlockRef) -> int:
        await self._wire()
        return self._chain.balance(address, contract, at)

    async def mined_nonces(self, address: str, at: BlockRef) -> int:
        await self._wire()
        return self._chain.mined_nonces(address, at)

    def normalize(self, address: str) -> str | None:
        decoded = base58.decode(address)
        return address if decoded is not None and len(decoded) == 32 and base58.encode(decoded) == address else None

    async def quote(self, payment: Payment) -> Fee:
        await self._wire()
        gas = PAY_GAS if payment.contract == NATIVE else TOKEN_GAS
        return Fee(2 * self._chain.base_fee + PRIORITY_FEE, PRIORITY_FEE, gas)

    def build(self, payment: Payment, nonce: int, fee: Fee) -> bytes:
        native = payment.contract == NATIVE
        return encode(
            SimulatedTransaction(
                network=self._chain.network,
                sender=payment.source,
                nonce=nonce,
                max_fee=fee.max_fee,
                priority_fee=fee.priority_fee,
                gas=fee.gas,
                action=Pay(payment.recipient, payment.amount)
                if native
                else TransferToken(payment.contract, payment.recipient, payment.amount),
            )
        )

    async def broadcast(self, raw: bytes) -> Reply:
        await self._wire()
        reply = self._chain.accept(raw)
        if self.faults.lost_replies:
            self.faults.lost_replies -= 1
            raise Unavailable("the reply was lost")
        return reply

    async def status(self, tx_id: str) -> TxStatus:
        await self._wire()
        mined = self._chain.transaction(tx_id)
        if mined is None:
            return TxStatus()
        if mined.height is None or mined.height > self._chain.height - self.faults.behind:
            return TxStatus(pooled=True)
        block = self._chain.block(mined.height)
        assert block is not None
        transfers = tuple(_transfers(mined)) if mined.ok else ()
        return TxStatus(mined=Inclusion(block, mined.ok, mined.fee, transfers))

    async def _growth(self, block: BlockRef, address: str, contract: str) -> int:
        """How much a balance grew in a block, before what the address sent away itself."""
        parent = self._chain.block(block.height - 1)
        before = self._chain.balance(address, contract, parent) if parent else 0
        return self._chain.balance(address, contract, block) - before + self._spent(block, address, contract)

    def _spent(self, block: BlockRef, address: str, contract: str) -> int:
        """What an address itself sent away in a block, fees included."""
        spent = 0
        for mined in self._chain.transactions(block):
            if mined.transaction.sender == address:
                spent += mined.fee if contract == NATIVE else 0
                spent += sum(t.amount for t in _transfers(mined) if mined.ok and t.contract == contract)
        return spent

    def _seen(self, height: int) -> BlockRef:
        """The block at a height; with a second head every other answer comes from a fork of the newest block."""
        block = self._chain.block(height)
        assert block is not None
        self._answers += 1
        if self.faults.second_head and self._answers % 2 and height == self._chain.height:
            return BlockRef(height, "f0" + block.hash[2:], block.parent, block.time_us)
        return block

    async def _wire(self) -> None:
        """The way to the node: a real await, where calls time out and answers go bad."""
        await asyncio.sleep(0)
        if self.faults.timeouts:
            self.faults.timeouts -= 1
            raise Unavailable("timed out")
        if self.faults.errors:
            self.faults.errors -= 1
            raise Unavailable("HTTP 200 with an error body")


def _transfers(mined: MinedTransaction) -> Iterator[Transfer]:
    """Every transfer a successful transaction made or claims to have made; reverted inner calls are none."""
    transaction = mined.transaction
    if isinstance(transaction.action, Pay):
        pay = transaction.action
        yield Transfer(mined.tx_id, 0, Kind.NATIVE, NATIVE, transaction.sender, pay.recipient, pay.amount, 0)
    for position, effect in enumerate(mined.effects):
        log = effect.kind == "log"
        if effect.ok:
            yield Transfer(
                mined.tx_id, (1 if log else INTERNAL_INDEX) + position, Kind.TOKEN if log else Kind.INTERNAL,
                effect.contract, effect.sender, effect.recipient, effect.amount, 0,
            )  # fmt: skip
