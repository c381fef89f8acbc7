"""Reconciliation: per custody address and asset, ledger + explained = chain at one final block.   [D-11]

What explains a difference is counted, not guessed: transfers seen and not booked yet, booked above the block, dust,
fee rounding, and our own transactions that are mined and not settled. None of it on the word of an unsigned row: a
transfer has to be on chain, our own transaction in bytes we signed and for something the exchange asked for, a
remainder smaller than what is always booked. Works from a stopped node's data: it needs the database, a node, and the
ledger.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from chains import deposits as deposit
from chains.adapter import Adapter, BlockRef, Inclusion, Transfer, Unavailable, WrongChain
from chains.amounts import most_dust
from chains.deposits import INCLUDED_AGAIN, State
from chains.exchange import Exchange, Token, Withdrawal
from chains.justification import objection
from chains.outbox import PaymentOutcome, Sending, is_cancellation, outcome_of
from chains.schema import addresses, attempts, blocks, cursors, deposits, dust, nonces, reconciliations, rounding
from chains.signer import SigningRefused, read_signed


class Books(Protocol):
    """What the ledger says: the part of `Exchange` that a journal alone can answer as well."""

    def ledger_balance(self, chain_id: int, wallet: int, asset_id: int) -> int: ...

    def withdrawal(self, withdrawal_id: int) -> Withdrawal | None: ...

    def is_credited(self, chain_id: int, tx_id: str, index: int) -> bool: ...


Explained = dict[tuple[int, int], dict[str, int]]
"""(wallet, asset id) → what → base units the chain has beyond the ledger for that reason."""

Doubts = dict[tuple[int, int], list[str]]
"""(wallet, asset id) → what rows of the database claim and nothing else confirms."""


@dataclass(frozen=True, slots=True)
class Line:
    """One custody address and asset at a block, in base units. `since_us` is when a break was first seen.

    `doubts` are claims of the database that nothing confirms; they explain nothing and are a break by themselves.
    """

    wallet: int
    address: str
    asset_id: int
    symbol: str
    ledger_base: int
    explained: Mapping[str, int]
    chain_base: int
    since_us: int | None
    doubts: tuple[str, ...] = ()

    @property
    def difference(self) -> int:
        """What the chain has beyond the ledger and everything explained; anything but 0 is a break."""
        return self.chain_base - self.ledger_base - sum(self.explained.values())


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Every line of a chain at one block."""

    chain_id: int
    block: BlockRef
    at_us: int
    lines: Sequence[Line]

    @property
    def breaks(self) -> list[Line]:
        return [line for line in self.lines if line.difference != 0 or line.doubts]


async def reconcile(
    engine: sa.Engine,
    node: Adapter,
    tokens: Sequence[Token],
    books: Books,
    *,
    now_us: int,
    record: bool = True,
    tries: int = 3,
    derived: Callable[[int], str] | None = None,
) -> Reconciliation:
    """Compare the ledger with the chain. A break must show in `tries` comparisons running: on a live node a block
    may be booked between two reads. `record` writes the lines; without it nothing is written. `derived` gives the
    address of a wallet from its keys, where there are keys: without it the database's addresses are believed.   [D-11]
    """
    for last in range(tries - 1, -1, -1):
        result = await _compare(engine, node, tokens, books, now_us, derived)
        if not result.breaks or last == 0:
            break
        await asyncio.sleep(0.05)
    if record:
        await asyncio.to_thread(_record, engine, result)
    return result


async def stop_on_breaks(exchange: Exchange, result: Reconciliation, threshold_atoms: Mapping[int, int]) -> list[int]:
    """Stop withdrawals of each asset whose breaks add up to more than its threshold (0 when none is named).   [D-11]"""
    stopped = []
    for token in exchange.tokens(result.chain_id):
        base = sum(abs(line.difference) for line in result.breaks if line.asset_id == token.asset_id)
        limit = threshold_atoms.get(token.asset_id, 0) * token.base_per_atom
        if base > limit and not exchange.asset_withdrawals_stopped(token.asset_id):
            reason = f"chain {result.chain_id} block {result.block.height}: {token.symbol} is off by {base}, more"\
                     f" than {limit} base units"
            await exchange.stop_withdrawals(token.asset_id, reason)
            stopped.append(token.asset_id)
    return stopped


# ---- comparing ----


async def _compare(
    engine: sa.Engine,
    node: Adapter,
    tokens: Sequence[Token],
    books: Books,
    now_us: int,
    derived: Callable[[int], str] | None,
) -> Reconciliation:
    chain_id = node.chain_id
    block = await _common_block(engine, node)
    stored = await asyncio.to_thread(_read, engine, chain_id, block.height)
    explained, doubts = await _Explaining(node, stored, block, tokens, books, derived).all()
    by_asset = {token.asset_id: token for token in tokens}

    lines = []
    for wallet, address in sorted(stored.addresses.items()):
        for asset_id, token in sorted(by_asset.items()):
            ledger_base = books.ledger_balance(chain_id, wallet, asset_id) * token.base_per_atom
            reasons = {name: base for name, base in explained[wallet, asset_id].items() if base}
            words = tuple(doubts[wallet, asset_id])
            if wallet and not ledger_base and not words and (wallet, asset_id) not in stored.touched:
                continue
            chain_base = await node.balance(address, token.contract, block)
            line = Line(wallet, address, asset_id, token.symbol, ledger_base, reasons, chain_base, None, words)
            since = stored.since.get((wallet, asset_id)) or now_us
            lines.append(_with_age(line, since) if line.difference or words else line)
    return Reconciliation(chain_id, block, now_us, lines)


async def _common_block(engine: sa.Engine, node: Adapter) -> BlockRef:
    """The newest block that is final for the node and scanned by the watcher, the same for both."""
    cursor, hashes = await asyncio.to_thread(_cursor, engine, node.chain_id)
    identity = await node.identity()
    if cursor is None or (cursor.network, cursor.genesis_hash) != (identity.network, identity.genesis_hash):
        raise WrongChain(f"chain {node.chain_id}: the node is on {identity.network}, this database follows"
                         f" {'nothing yet' if cursor is None else cursor.network}")
    height = min((await node.final()).height, cursor.height)
    block = await node.block(height)
    if block is None or hashes.get(height, block.hash) != block.hash:
        raise Unavailable(f"block {height}: the node and the watcher do not have the same")
    return block


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the database knows of a chain, read in one transaction."""

    addresses: dict[int, str]
    deposits: Sequence[sa.Row[Any]]
    nonces: Sequence[sa.Row[Any]]
    attempts: dict[tuple[int, int], list[sa.Row[Any]]]
    dust: Sequence[sa.Row[Any]]
    rounding: Sequence[sa.Row[Any]]
    reversals: dict[tuple[int, int], int]
    since: dict[tuple[int, int], int | None]
    touched: set[tuple[int, int]]


class _Explaining:
    """What makes a chain differ from the ledger at a block, each reason confirmed by something that is not a row."""

    def __init__(
        self,
        node: Adapter,
        stored: _Stored,
        block: BlockRef,
        tokens: Sequence[Token],
        books: Books,
        derived: Callable[[int], str] | None,
    ) -> None:
        self._node = node
        self._stored = stored
        self._block = block
        self._tokens = {token.asset_id: token for token in tokens}
        self._native = next((token.asset_id for token in tokens if token.contract == ""), None)
        self._books = books
        self._derived = derived
        self._transfers: dict[str, list[Transfer]] = {}
        self._explained: Explained = defaultdict(lambda: defaultdict(int))
        self._doubts: Doubts = defaultdict(list)

    async def all(self) -> tuple[Explained, Doubts]:
        for wallet, address in self._stored.addresses.items():
            if self._derived is not None and self._derived(wallet) != address:
                self._doubts[wallet, min(self._tokens)].append(f"{address} is not the address of wallet {wallet}")
        self._remainders()
        for row in self._stored.deposits:
            await self._deposit(row)
        for row in self._stored.nonces:
            await self._own_move(row)
        return self._explained, self._doubts

    def _remainders(self) -> None:
        """Dust and fee rounding, as far as our own arithmetic can leave them.   [D-5]"""
        for row in self._stored.rounding:
            token, base = self._tokens.get(row.asset_id), int(row.base)
            if token is not None and 0 <= base < token.base_per_atom:
                self._explained[row.wallet, row.asset_id]["fee rounding"] += base
            elif base:
                self._doubts[row.wallet, row.asset_id].append(f"a fee rounding of {base} base units is no rounding")
        for row in self._stored.dust:
            token, base = self._tokens.get(row.asset_id), int(row.base)
            taken_back = self._stored.reversals.get((row.subaccount_id, row.asset_id), 0)
            if token is not None and -taken_back * token.base_per_atom <= base < most_dust(token):
                self._explained[row.subaccount_id, row.asset_id]["dust"] += base
            elif base:
                self._doubts[row.subaccount_id, row.asset_id].append(f"a dust of {base} base units is no dust")

    async def _deposit(self, row: sa.Row[Any]) -> None:
        """How a deposit makes the chain at the block differ from the ledger, if the chain and the ledger confirm it."""
        received, key, words = int(row.received), (row.wallet, row.asset_id), self._explained[row.wallet, row.asset_id]
        if row.state in (*deposit.UNDECIDED, *deposit.PARKED):
            height = await self._height(row)
            if height is not None and height <= self._block.height:
                words[row.state if row.state in deposit.PARKED else "seen, not booked yet"] += received
            elif height is None and row.height <= self._block.height and row.state != State.HELD:
                self._doubts[key].append(f"deposit {row.id} of {received} ({row.state}) is not on chain")
        elif row.state in deposit.BOOKED and row.height > self._block.height:
            height = await self._height(row)
            if height is not None and height > self._block.height and self._is_booked(row):
                words["booked above the block"] -= received
            else:
                self._doubts[key].append(f"deposit {row.id} of {received} is not booked above the block")
        elif row.state == State.CREDITED_ORPHANED:
            height = await self._height(row)
            if height is None or height > self._block.height or row.reason != INCLUDED_AGAIN:
                if self._is_booked(row) and (height is None or height > self._block.height):
                    words["credited, its block is gone"] -= received
                elif height is None:
                    self._doubts[key].append(f"deposit {row.id} of {received} was not credited, and cannot be gone")

    def _is_booked(self, row: sa.Row[Any]) -> bool:
        in_ledger = row.state not in (State.FUNDED, State.DUST)
        return not in_ledger or self._books.is_credited(self._node.chain_id, row.tx_id, row.idx)

    async def _height(self, row: sa.Row[Any]) -> int | None:
        """The height at which the chain has the very transfer of a deposit row, to a wallet of ours; None: nowhere."""
        token = self._tokens.get(row.asset_id)
        if token is None or token.contract != row.contract or self._address(row.wallet) != row.address:
            return None
        mined = (await self._node.status(row.tx_id)).mined
        if mined is None:
            return None
        if mined.block.hash not in self._transfers:
            watched = set(self._stored.addresses.values())
            listed = {token.contract for token in self._tokens.values()}
            self._transfers[mined.block.hash] = await self._node.transfers(mined.block, watched, listed)
        there = any(deposit.is_same(row, transfer) for transfer in self._transfers[mined.block.hash])
        return mined.block.height if there else None

    async def _own_move(self, row: sa.Row[Any]) -> None:
        """One of our own transactions that the chain at the block and the ledger see differently."""
        found = await self._winner(row)
        if found is None:
            return
        cancels, mined = found
        above, settled = mined.block.height > self._block.height, row.state == Sending.SETTLED
        if above != settled:
            return  # Not mined yet and not booked, or booked and mined: both sides say the same.
        words = "" if settled else self._objection(row)
        if words:
            self._doubts[row.wallet, row.asset_id].append(f"{row.reference}, mined as {mined.block.height}: {words}")
            return
        sign = -1 if settled else 1
        reason = "our own transaction, above the block" if settled else "our own transaction, not booked yet"
        if self._native is not None:
            self._explained[row.wallet, self._native][reason] -= sign * mined.fee
        if outcome_of(row, cancels, mined) == PaymentOutcome.PAID and row.amount != "0":
            self._explained[row.wallet, row.asset_id][reason] -= sign * int(row.amount)
            if row.recipient_wallet is not None and self._address(row.recipient_wallet) == row.recipient:
                self._explained[row.recipient_wallet, row.asset_id][reason] += sign * int(row.amount)

    def _objection(self, row: sa.Row[Any]) -> str:
        token = self._tokens.get(row.asset_id)
        return objection(row, token, self._books.withdrawal, self._address, self._node.normalize)

    async def _winner(self, row: sa.Row[Any]) -> tuple[bool, Inclusion] | None:
        """(whether it cancels, its inclusion) of the attempt that is mined, read from bytes that our key signed."""
        for attempt in self._stored.attempts.get((row.wallet, row.nonce), []):
            try:
                tx_id, meaning = read_signed(attempt.raw)
                cancels = is_cancellation(row, self._address(row.wallet), tx_id == attempt.tx_id, meaning)
            except SigningRefused as refusal:
                self._doubts[row.wallet, row.asset_id].append(f"{row.reference}, {attempt.tx_id}: {refusal}")
                continue
            status = await self._node.status(tx_id)
            if status.mined is not None:
                return cancels, status.mined
        return None

    def _address(self, wallet: int) -> str:
        if self._derived is not None:
            return self._derived(wallet)
        return self._stored.addresses.get(wallet, "")


# ---- reading and writing ----


def _cursor(engine: sa.Engine, chain_id: int) -> tuple[sa.Row[Any] | None, dict[int, str]]:
    with engine.begin() as connection:
        cursor = connection.execute(sa.select(cursors).filter_by(chain_id=chain_id)).first()
        kept = connection.execute(sa.select(blocks.c.height, blocks.c.hash).filter_by(chain_id=chain_id))
        return cursor, {row.height: row.hash for row in kept}


def _read(engine: sa.Engine, chain_id: int, height: int) -> _Stored:
    """What can make ledger and chain differ at a height; what is booked and below it cannot, and is not read."""
    open_deposits = sa.or_(deposits.c.state.not_in(deposit.BOOKED), deposits.c.height > height)
    open_nonces = sa.or_(nonces.c.state != Sending.SETTLED, nonces.c.height > height)
    with engine.begin() as connection:
        owners = connection.execute(sa.select(addresses).filter_by(chain_id=chain_id)).all()
        found = connection.execute(
            sa.select(deposits).filter_by(chain_id=chain_id).where(open_deposits, deposits.c.asset_id.is_not(None))
        ).all()
        moves = connection.execute(sa.select(nonces).filter_by(chain_id=chain_id).where(open_nonces)).all()
        tried: dict[tuple[int, int], list[sa.Row[Any]]] = {
            (row.wallet, row.nonce): list(
                connection.execute(
                    sa.select(attempts).filter_by(chain_id=chain_id, wallet=row.wallet, nonce=row.nonce)
                )
            )
            for row in moves
        }
        dusts = connection.execute(sa.select(dust).filter_by(chain_id=chain_id)).all()
        roundings = connection.execute(sa.select(rounding).filter_by(chain_id=chain_id)).all()
        reversed_ = connection.execute(
            sa.select(deposits.c.wallet, deposits.c.asset_id, sa.func.count().label("reversals"))
            .filter_by(chain_id=chain_id, state=State.REVERSED)
            .group_by(deposits.c.wallet, deposits.c.asset_id)
        ).all()
        newest = (
            sa.select(sa.func.max(reconciliations.c.id))
            .filter_by(chain_id=chain_id)
            .group_by(reconciliations.c.wallet, reconciliations.c.asset_id)
        )
        last = connection.execute(sa.select(reconciliations).where(reconciliations.c.id.in_(newest))).all()
        pairs = sa.union(
            sa.select(deposits.c.wallet, deposits.c.asset_id).filter_by(chain_id=chain_id),
            sa.select(rounding.c.wallet, rounding.c.asset_id).filter_by(chain_id=chain_id),
        )
        touched = {(row.wallet, row.asset_id) for row in connection.execute(pairs)}
    return _Stored(
        {row.wallet: row.address for row in owners},
        found,
        moves,
        tried,
        dusts,
        roundings,
        {(row.wallet, row.asset_id): row.reversals for row in reversed_},
        {(row.wallet, row.asset_id): row.since_us for row in last},
        touched,
    )


def _record(engine: sa.Engine, result: Reconciliation) -> None:
    with engine.begin() as connection:
        for line in result.lines:
            connection.execute(
                sa.insert(reconciliations).values(
                    chain_id=result.chain_id, at_us=result.at_us, height=result.block.height,
                    block_hash=result.block.hash, wallet=line.wallet, asset_id=line.asset_id,
                    ledger_base=str(line.ledger_base), explained_base=str(sum(line.explained.values())),
                    chain_base=str(line.chain_base), difference_base=str(line.difference), since_us=line.since_us,
                )
            )  # fmt: skip


def _with_age(line: Line, since_us: int) -> Line:
    return Line(
        line.wallet, line.address, line.asset_id, line.symbol, line.ledger_base, line.explained, line.chain_base,
        since_us, line.doubts,
    )  # fmt: skip
