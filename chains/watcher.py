"""The watcher: walks a chain by parent hash and writes down each real transfer to us, exactly once.

One step is: unwind to the common ancestor, ingest new blocks (block, deposit rows and cursor in one SQL
transaction), then let `chains.decisions` decide every row that is deep enough. A block with anything unresolved in it
is not passed.   [D-4, D-5, D-7, D-12]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from chains import deposits as deposit
from chains.adapter import (
    Adapter,
    BlockRef,
    ChainError,
    Kind,
    Moved,
    Transfer,
    Unavailable,
    WrongChain,
    agreed_final,
    agreed_tip,
    count_canonical,
)
from chains.alarms import raise_alarm
from chains.decisions import Decisions, Depth, Step, own_purpose
from chains.deposits import INCLUDED_AGAIN, RELEASED, UNTOLD, State
from chains.exchange import Exchange, Token
from chains.rows import Rows
from chains.schema import blocks, cursors, deposits
from chains.wallets import HOT_WALLET, Wallets

BATCH = 32
KEPT_BLOCKS = 512


class Watcher:
    """Follows one chain through one or more nodes. The first adapter is read; `quorum` must agree before a credit.

    `blocked_senders` are held for an operator; senders in `no_minimum_from` (a devnet faucet) have no minimum.
    """

    def __init__(
        self,
        engine: sa.Engine,
        adapters: Sequence[Adapter],
        exchange: Exchange,
        wallets: Wallets,
        *,
        clock_us: Callable[[], int],
        quorum: int | None = None,
        start_height: int = 0,
        depth: Depth | None = None,
        blocked_senders: Collection[str] = (),
        no_minimum_from: Collection[str] = (),
    ) -> None:
        assert adapters, "a watcher needs at least one node"
        self.chain_id = adapters[0].chain_id
        self._rows = Rows(engine, self.chain_id, clock_us)
        self._adapters = adapters
        self._node = adapters[0]
        self._exchange = exchange
        self._wallets = wallets
        self._clock_us = clock_us
        self._quorum = len(adapters) if quorum is None else quorum
        self._start_height = start_height
        self._decisions = Decisions(
            self._rows,
            adapters,
            exchange,
            wallets,
            clock_us=clock_us,
            quorum=self._quorum,
            depth=depth or Depth(),
            blocked_senders=blocked_senders,
            no_minimum_from=no_minimum_from,
        )
        self._lock = asyncio.Lock()

    async def run(self, interval_seconds: float = 1.0) -> None:
        """Step for ever. A node's fault is an alarm and another try, never an end.   [D-12]"""
        while True:
            await self.step()
            await asyncio.sleep(interval_seconds)

    async def step(self) -> Step:
        """Look at the chain once and do everything that can be done now."""
        async with self._lock:
            step = Step()
            try:
                await self._advance(step)
            except ChainError as error:
                step.waiting = f"{type(error).__name__}: {error}"
                await self._rows.alarm("node", type(error).__name__, str(error))
            return step

    async def states_of(self, tx_id: str) -> set[State]:
        """The states of the deposits that a transaction made; empty while it is unknown."""
        states = sa.select(deposits.c.state).filter_by(chain_id=self.chain_id, tx_id=tx_id)
        return {State(state) for state in await self._rows.use(lambda c: list(c.scalars(states)))}

    async def release(self, deposit_id: int, operator: str) -> None:
        """An operator lets a held deposit through, or one that came by an inner call: it is credited next."""

        def let_go(connection: sa.Connection) -> None:
            row = connection.execute(sa.select(deposits).filter_by(chain_id=self.chain_id, id=deposit_id)).one()
            assert row.state in deposit.PARKED, f"deposit {deposit_id} is {row.state}"
            deposit.move(connection, row, State.SCREENING, self._clock_us(), RELEASED + operator)

        async with self._lock:
            await self._rows.use(let_go)

    async def _advance(self, step: Step) -> None:
        cursor = await self._cursor()
        if cursor.halted:
            step.waiting = cursor.halted
            return
        step.final_before = cursor.final_height
        tip = await self._node.tip()
        cursor = await self._unwind(cursor, tip, step)
        if step.waiting:
            return
        step.height = await self._ingest(cursor, tip, step)
        deep = tip if self._quorum == 1 else await agreed_tip(self._adapters, self._quorum)
        await self._decisions.decide(deep, await agreed_final(self._adapters, self._quorum), step)

    # ---- where we are ----

    async def _cursor(self) -> sa.Row[Any]:
        """Our place on the chain; on the first visit the chain's identity is written down, later it must match."""
        identity = await self._node.identity()
        row = await self._rows.use(lambda c: c.execute(sa.select(cursors).filter_by(chain_id=self.chain_id)).first())
        if row is None:
            start = await self._node.block(self._start_height)
            if start is None:
                raise Unavailable(f"no block {self._start_height} to start from")
            first = start

            def begin(connection: sa.Connection) -> None:
                connection.execute(
                    sa.insert(cursors).values(
                        chain_id=self.chain_id, network=identity.network, genesis_hash=identity.genesis_hash,
                        height=first.height, hash=first.hash, decided_height=first.height, final_height=0, halted="",
                    )
                )  # fmt: skip
                _insert_block(connection, self.chain_id, first)

            await self._rows.use(begin)
            return await self._cursor()
        if (row.network, row.genesis_hash) != (identity.network, identity.genesis_hash):
            raise WrongChain(f"this database follows {row.network} {row.genesis_hash[:12]}, the node is on"
                             f" {identity.network} {identity.genesis_hash[:12]}")
        return row

    async def _unwind(self, cursor: sa.Row[Any], tip: BlockRef, step: Step) -> sa.Row[Any]:
        """Go back to the newest stored block that the nodes still have; rows above it are orphaned."""
        height, stored = cursor.height, cursor.hash
        while True:
            if height > tip.height:
                height = tip.height
                stored = await self._stored_hash(height)
            present = await self._node.block(height)
            if present is not None and present.hash == stored:
                break
            height -= 1
            stored = await self._stored_hash(height)
        if height == cursor.height:
            return cursor
        if height == tip.height:
            step.waiting = f"the node is behind: its tip is {tip.height}, ours {cursor.height}"
            return cursor
        # One node on a fork is not a reorg: nobody whom we trust may still have our block.
        if await count_canonical(self._adapters, cursor.height, cursor.hash) > len(self._adapters) - self._quorum:
            step.waiting = f"the nodes disagree about block {cursor.height}"
            await self._rows.alarm("two heads", str(cursor.height), step.waiting)
            return cursor
        if height < cursor.final_height:
            halted = f"reorg to {height}, below block {cursor.final_height} that the chain had called final"
            await self._rows.use(lambda c: c.execute(
                sa.update(cursors).filter_by(chain_id=self.chain_id).values(halted=halted)))
            await self._rows.alarm("halted", str(height), halted)
            step.waiting = halted
            return cursor
        step.unwound = cursor.height - height
        await self._rows.use(lambda connection: self._unwind_rows(connection, height, stored))
        await self._orphan_credits()
        return await self._cursor()

    async def _stored_hash(self, height: int) -> str:
        found = await self._rows.use(
            lambda c: c.scalar(sa.select(blocks.c.hash).filter_by(chain_id=self.chain_id, height=height))
        )
        if found is None:
            raise WrongChain(f"no common ancestor down to block {height}")
        return str(found)

    def _unwind_rows(self, connection: sa.Connection, height: int, block_hash: str) -> None:
        """Everything above `height` is no longer on the chain. Credits are marked here and frozen next."""
        now_us = self._clock_us()
        above = sa.select(deposits).where(deposits.c.chain_id == self.chain_id, deposits.c.height > height)
        for row in connection.execute(above).all():
            if row.state in (State.CREDITED, State.WITHDRAWABLE, State.SWEPT):
                # The engine has to hear of it: this mark survives a crash before it does.
                deposit.move(connection, row, State.CREDITED_ORPHANED, now_us, UNTOLD)
            elif row.state in (*deposit.UNDECIDED, State.UNATTRIBUTED, State.HELD, State.REJECTED, State.UNSUPPORTED):
                deposit.move(connection, row, State.ORPHANED, now_us)
            elif row.state in (State.DUST, State.FUNDED):
                words = f"deposit {row.id} was final and is gone"
                raise_alarm(connection, self.chain_id, "final deposit orphaned", str(row.id), words, now_us)
        connection.execute(sa.delete(blocks).where(blocks.c.chain_id == self.chain_id, blocks.c.height > height))
        connection.execute(
            sa.update(cursors).filter_by(chain_id=self.chain_id).values(height=height, hash=block_hash)
        )

    async def _orphan_credits(self) -> None:
        """Freeze what was credited from blocks that are gone.   [D-5]"""
        marked = sa.select(deposits).where(
            deposits.c.chain_id == self.chain_id, deposits.c.reason == UNTOLD
        )
        for row in await self._rows.use(lambda c: c.execute(marked).all()):

            if await count_canonical(self._adapters, row.height, row.block_hash) >= self._quorum:
                words = f"block {row.height} {row.block_hash} is there"
                await self._rows.alarm("deposit is not gone", str(row.id), words)
                continue

            def attach(connection: sa.Connection, row: sa.Row[Any] = row) -> None:
                now_us = self._clock_us()
                deposit.move(connection, row, State.CREDITED_ORPHANED, now_us, "its block is gone")
                words = f"deposit {row.id} of {row.atoms} atoms to subaccount {row.wallet} was credited from block" \
                        f" {row.height}, which is gone"
                raise_alarm(connection, self.chain_id, "credit orphaned", str(row.id), words, now_us)

            await self._exchange.orphan_deposit(
                chain_id=self.chain_id, tx_id=row.tx_id, index=row.idx, attach=attach
            )

    # ---- new blocks ----

    async def _ingest(self, cursor: sa.Row[Any], tip: BlockRef, step: Step) -> int:
        """Take in the blocks up to the tip, each complete or not at all.   [D-4]"""
        await self._orphan_credits()  # A crash may have come between the unwinding and the freeze.
        height, last_hash = int(cursor.height), str(cursor.hash)
        while height < tip.height:
            batch: list[tuple[BlockRef, list[Transfer]]] = []
            watched = self._wallets.watched(self.chain_id)
            contracts = {token.contract: token for token in self._exchange.tokens(self.chain_id)}
            while len(batch) < BATCH and height < tip.height:
                block = await self._node.block(height + 1)
                if block is None or block.parent != last_hash:
                    tip = BlockRef(height, last_hash, "", 0)  # The chain moved: the next step unwinds.
                    step.waiting = f"block {height + 1} does not follow ours"
                    break
                try:
                    found = await self._node.transfers(block, watched, set(contracts))
                except Moved as moved:
                    tip = BlockRef(height, last_hash, "", 0)
                    step.waiting = str(moved)
                    break
                batch.append((block, found))
                height, last_hash = block.height, block.hash
            if batch:
                await self._rows.use(partial(self._ingest_rows, batch=batch, watched=watched, contracts=contracts))
                step.ingested += len(batch)
        return height

    def _ingest_rows(
        self,
        connection: sa.Connection,
        batch: list[tuple[BlockRef, list[Transfer]]],
        watched: Mapping[str, int],
        contracts: Mapping[str, Token],
    ) -> None:
        """Blocks, deposit rows and cursor: one SQL transaction.   [D-4]"""
        for block, transfers in batch:
            _insert_block(connection, self.chain_id, block)
            for transfer in transfers:
                self._ingest_transfer(connection, block, transfer, watched[transfer.recipient], contracts)
        last = batch[-1][0]
        connection.execute(
            sa.update(cursors).filter_by(chain_id=self.chain_id).values(height=last.height, hash=last.hash)
        )
        connection.execute(
            sa.delete(blocks).where(blocks.c.chain_id == self.chain_id, blocks.c.height < last.height - KEPT_BLOCKS)
        )

    def _ingest_transfer(
        self,
        connection: sa.Connection,
        block: BlockRef,
        transfer: Transfer,
        wallet: int,
        contracts: Mapping[str, Token],
    ) -> None:
        now_us = self._clock_us()
        token = contracts.get(transfer.contract)
        state, reason = self._first_state(connection, transfer, wallet, token)
        key = {"chain_id": self.chain_id, "tx_id": transfer.tx_id, "idx": transfer.index}
        content = {
            "kind": transfer.kind, "wallet": wallet, "address": transfer.recipient, "sender": transfer.sender,
            "contract": transfer.contract, "asset_id": token.asset_id if token else None,
            "amount": str(transfer.amount), "received": str(transfer.received),
        }  # fmt: skip
        place = {"height": block.height, "block_hash": block.hash}
        row = connection.execute(sa.select(deposits).filter_by(**key)).first()
        if row is None:
            inserted = connection.execute(
                sa.insert(deposits).values(
                    **key, **content, **place, atoms=0, state=state, final=False, reason=reason, seen_at_us=now_us
                )
            ).inserted_primary_key
            assert inserted is not None
            deposit.record(connection, inserted[0], state, block.height, block.hash, now_us, reason)
        elif row.state == State.ORPHANED:
            deposit.move(connection, row, state, now_us, reason or INCLUDED_AGAIN, **content, **place)
        elif row.state == State.CREDITED_ORPHANED and all(getattr(row, name) == content[name] for name in content):
            deposit.move(connection, row, State.CREDITED_ORPHANED, now_us, INCLUDED_AGAIN, **place)
        elif row.state in (State.CREDITED_ORPHANED, State.REVERSED):
            words = f"deposit {row.id} ({row.state}) is included again in block {block.height} with"\
                    f" {transfer.received} base units, before {row.received}: decide by hand"
            raise_alarm(connection, self.chain_id, "included again", str(row.id), words, now_us)
        elif (row.height, row.block_hash) != (block.height, block.hash):
            assert row.state in (State.INTERNAL, State.DUST, State.FUNDED), f"deposit {row.id} is {row.state}"
            connection.execute(sa.update(deposits).filter_by(id=row.id).values(**place))

    def _first_state(
        self, connection: sa.Connection, transfer: Transfer, wallet: int, token: Token | None
    ) -> tuple[State, str]:
        """Where a transfer starts: most are `seen`; our own moves, fakes and strangers are sorted out here.   [D-7]"""
        if token is None:
            return State.UNSUPPORTED, f"contract {transfer.contract} is not listed"
        if own_purpose(connection, self.chain_id, transfer.tx_id) not in (None, "withdrawal"):
            return State.INTERNAL, "our own sweep or gas top-up"
        if transfer.received == 0:
            return State.REJECTED, f"claims {transfer.amount}, the balance did not grow"
        if transfer.kind is Kind.INTERNAL:
            return State.UNATTRIBUTED, "paid by an inner call of a contract"
        if wallet == HOT_WALLET:
            return State.FUNDING, ""
        if transfer.received < transfer.amount:
            words = f"{token.symbol}: transfer {transfer.tx_id} claims {transfer.amount}, the balance grew by"\
                    f" {transfer.received}: the token takes a fee or lies"
            raise_alarm(connection, self.chain_id, "shortfall", token.contract, words, self._clock_us())
        return State.SEEN, ""

def _insert_block(connection: sa.Connection, chain_id: int, block: BlockRef) -> None:
    connection.execute(
        sa.insert(blocks).values(
            chain_id=chain_id, height=block.height, hash=block.hash, parent=block.parent, time_us=block.time_us
        )
    )
