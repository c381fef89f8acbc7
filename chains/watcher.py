"""The watcher: walks a chain by parent hash and turns real transfers into credits, each exactly once.

One step is: unwind to the common ancestor, ingest new blocks (block, deposit rows and cursor in one SQL
transaction), then decide every row that is deep enough. A block with anything unresolved in it is not passed.
[D-4, D-5, D-6, D-7, D-12]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
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
)
from chains.alarms import raise_alarm
from chains.amounts import credited, most_dust, read_dust, read_rounding, write_dust, write_rounding
from chains.deposits import State
from chains.exchange import Exchange, Refused, Token
from chains.justification import MOST_WALLETS
from chains.rows import Rows
from chains.schema import attempts, blocks, cursors, deposits, nonces
from chains.wallets import HOT_WALLET, Wallets

BATCH = 32
KEPT_BLOCKS = 512
UNTOLD = "its block is gone, the exchange does not know yet"
INCLUDED_AGAIN = "included again"
RELEASED = "released by "


@dataclass(slots=True)
class Step:
    """What one step of the watcher did; `waiting` says why it stopped early, "" when it did not."""

    height: int = 0
    ingested: int = 0
    unwound: int = 0
    credited: list[str] = field(default_factory=list)
    finalized: list[str] = field(default_factory=list)
    waiting: str = ""
    final_before: int = 0


@dataclass(frozen=True, slots=True)
class Depth:
    """How deep a deposit must be, beside the token's own confirmations.   [D-6]

    Deposits of at least `final_from_atoms` of an asset wait for finality. A credited deposit that was orphaned is
    reversed when the final block is `reverse_after` blocks past the height where it was.
    """

    final_from_atoms: Mapping[int, int] = field(default_factory=dict)
    reverse_after: int = 6


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
        self._depth = depth or Depth()
        self._blocked = blocked_senders
        self._no_minimum_from = no_minimum_from
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
        await self._decide(deep, await agreed_final(self._adapters, self._quorum), step)

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
        if await self._count_canonical(cursor.height, cursor.hash) > len(self._adapters) - self._quorum:
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

            if await self._count_canonical(row.height, row.block_hash) >= self._quorum:
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
        if self._own_purpose(connection, transfer.tx_id) not in (None, "withdrawal"):
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

    def _own_purpose(self, connection: sa.Connection, tx_id: str) -> str | None:
        joined = sa.select(nonces.c.purpose).join(
            attempts,
            sa.and_(
                attempts.c.chain_id == nonces.c.chain_id,
                attempts.c.wallet == nonces.c.wallet,
                attempts.c.nonce == nonces.c.nonce,
            ),
        )
        purpose: str | None = connection.scalar(joined.where(attempts.c.chain_id == self.chain_id,
                                                             attempts.c.tx_id == tx_id))
        return purpose

    # ---- decisions ----

    async def _decide(self, tip: BlockRef, final: BlockRef, step: Step) -> None:
        """Credit what is deep enough, finalize what is final, reverse what did not come back."""
        open_states = (*deposit.UNDECIDED, State.CREDITED, State.CREDITED_ORPHANED)
        pending = sa.select(deposits).where(
            deposits.c.chain_id == self.chain_id, deposits.c.state.in_(open_states)
        ).order_by(deposits.c.height, deposits.c.id)
        agreed: dict[int, bool] = {}
        for row in await self._rows.use(lambda c: c.execute(pending).all()):
            if row.height > step.height:
                continue
            try:
                await self._decide_one(row, tip, final, agreed, step)
            except Refused as refusal:
                await self._rows.alarm("exchange refused", str(row.id), f"deposit {row.id} ({row.state}): {refusal}")
        if step.height >= final.height > step.final_before and (
            await self._count_canonical(final.height, final.hash) >= self._quorum
        ):
            change = sa.update(cursors).filter_by(chain_id=self.chain_id).values(final_height=final.height)
            await self._rows.use(lambda c: c.execute(change))

    async def _decide_one(
        self, row: sa.Row[Any], tip: BlockRef, final: BlockRef, agreed: dict[int, bool], step: Step
    ) -> None:
        is_final = row.height <= final.height
        match row.state:
            case State.CREDITED_ORPHANED if row.reason == INCLUDED_AGAIN:
                if (is_final or self._is_deep(row, tip)) and await self._agreed(row, agreed):
                    await self._restore(row)
            case State.CREDITED_ORPHANED:
                if final.height >= row.height + self._depth.reverse_after:
                    await self._reverse(row)
            case State.CREDITED:
                if is_final and await self._agreed(row, agreed):
                    await self._finalize(row, step)
            case State.FUNDING:
                if is_final and await self._agreed(row, agreed):
                    await self._fund(row)
            case _:
                await self._confirm(row, tip, is_final, agreed, step)

    def _is_deep(self, row: sa.Row[Any], tip: BlockRef) -> bool:
        token = self._exchange.token(self.chain_id, row.asset_id)
        return token is not None and tip.height - row.height + 1 >= token.confirmations

    async def _confirm(
        self, row: sa.Row[Any], tip: BlockRef, is_final: bool, agreed: dict[int, bool], step: Step
    ) -> None:
        token = self._exchange.token(self.chain_id, row.asset_id)
        if token is None:
            return
        atoms = int(row.received) // token.base_per_atom
        minimum = 0 if row.sender in self._no_minimum_from else token.minimum_deposit_atoms
        threshold = self._depth.final_from_atoms.get(token.asset_id)
        needs_final = (threshold is not None and atoms >= threshold) or atoms < max(1, minimum)
        if not (is_final or (self._is_deep(row, tip) and not needs_final)):
            if row.state == State.SEEN:
                await self._rows.use(lambda c: deposit.move(c, row, State.CONFIRMING, self._clock_us()))
            return
        if not await self._agreed(row, agreed):
            return
        if row.state != State.SCREENING:
            await self._rows.use(lambda c: deposit.move(c, row, State.SCREENING, self._clock_us(), row.reason))
        if row.sender in self._blocked and not row.reason.startswith(RELEASED):
            await self._rows.use(lambda c: deposit.move(c, row, State.HELD, self._clock_us(), "sender is blocked"))
            return
        await self._credit(row, token, minimum, is_final, step)

    async def _credit(self, row: sa.Row[Any], token: Token, minimum: int, is_final: bool, step: Step) -> None:
        """The credit command, the deposit row, the dust and the cursor of decisions: one SQL transaction.   [D-4]"""
        before = await self._rows.use(lambda c: read_dust(c, self.chain_id, row.wallet, token.asset_id))
        if before >= most_dust(token) and not row.reason.startswith(RELEASED):
            await self._doubt(row, f"dust of {before} base units would have been credited before")
            return
        atoms, left = credited(int(row.received), before, token, minimum)

        def book(connection: sa.Connection) -> None:
            now_us = self._clock_us()
            present = read_dust(connection, self.chain_id, row.wallet, token.asset_id)
            assert present == before, f"dust of subaccount {row.wallet} changed from {before} to {present}"
            write_dust(connection, self.chain_id, row.wallet, token.asset_id, left)
            state = State.DUST if atoms == 0 else State.WITHDRAWABLE if is_final else State.CREDITED
            deposit.move(connection, row, state, now_us, atoms=atoms, final=is_final)
            connection.execute(
                sa.update(cursors)
                .where(cursors.c.chain_id == self.chain_id, cursors.c.decided_height < row.height)
                .values(decided_height=row.height)
            )

        if atoms == 0:
            await self._rows.use(book)
            return
        try:
            new = await self._exchange.credit_deposit(
                chain_id=self.chain_id, tx_id=row.tx_id, index=row.idx, wallet=row.wallet, subaccount_id=row.wallet,
                asset_id=token.asset_id, atoms=atoms, height=row.height, block_hash=row.block_hash, final=is_final,
                attach=book,
            )  # fmt: skip
        except Refused as refusal:
            words = f"the exchange refused: {refusal}"
            await self._rows.use(lambda c: deposit.move(c, row, State.HELD, self._clock_us(), words))
            raise
        if not new:
            await self._rows.alarm("double credit refused", str(row.id), f"{row.tx_id}:{row.idx} was credited before")
            await self._rows.use(lambda c: deposit.move(c, row, State.HELD, self._clock_us(), "was credited before"))
            return
        step.credited.append(row.tx_id)

    async def _finalize(self, row: sa.Row[Any], step: Step) -> None:
        await self._exchange.finalize_deposit(
            chain_id=self.chain_id, tx_id=row.tx_id, index=row.idx,
            attach=lambda c: deposit.move(c, row, State.WITHDRAWABLE, self._clock_us(), final=True),
        )  # fmt: skip
        step.finalized.append(row.tx_id)

    async def _restore(self, row: sa.Row[Any]) -> None:
        await self._exchange.restore_deposit(
            chain_id=self.chain_id, tx_id=row.tx_id, index=row.idx,
            attach=lambda c: deposit.move(c, row, State.CREDITED, self._clock_us(), "included again", final=False),
        )  # fmt: skip

    async def _reverse(self, row: sa.Row[Any]) -> None:
        """Take the credit back; the part of the deposit that went into dust leaves the dust, even below zero."""
        token = self._exchange.token(self.chain_id, row.asset_id)
        assert token is not None, f"asset {row.asset_id} was credited and is not listed on chain {self.chain_id}"
        if await self._is_there(row):
            words = f"{row.tx_id}:{row.idx} is on chain, not reversed"
            await self._rows.alarm("deposit is not gone", str(row.id), words)
            return

        def attach(connection: sa.Connection) -> None:
            now_us = self._clock_us()
            present = read_dust(connection, self.chain_id, row.wallet, token.asset_id)
            left = present - (int(row.received) - row.atoms * token.base_per_atom)
            write_dust(connection, self.chain_id, row.wallet, token.asset_id, left)
            deposit.move(connection, row, State.REVERSED, now_us, "its transaction did not come back")
            words = f"deposit {row.id}: {row.atoms} atoms were taken back from subaccount {row.wallet}"
            raise_alarm(connection, self.chain_id, "credit reversed", str(row.id), words, now_us)

        await self._exchange.reverse_deposit(chain_id=self.chain_id, tx_id=row.tx_id, index=row.idx, attach=attach)

    async def _is_there(self, row: sa.Row[Any]) -> bool:
        """Whether the transfer of a row is on the node's chain, in whichever block.   [D-5]"""
        mined = (await self._node.status(row.tx_id)).mined
        if mined is None:
            return False
        listed = {token.contract for token in self._exchange.tokens(self.chain_id)}
        found = await self._node.transfers(mined.block, {row.address}, listed)
        return any(deposit.is_same(row, transfer) for transfer in found)

    async def _fund(self, row: sa.Row[Any]) -> None:
        """The operator's own coins at the hot wallet, whole atoms of them; the remainder counts as rounding."""
        token = self._exchange.token(self.chain_id, row.asset_id)
        if token is None:
            return
        present = await self._rows.use(lambda c: read_rounding(c, self.chain_id, HOT_WALLET, token))
        atoms, left = credited(int(row.received), present, token, 0)

        def attach(connection: sa.Connection) -> None:
            write_rounding(connection, self.chain_id, HOT_WALLET, token.asset_id, left)
            deposit.move(connection, row, State.FUNDED, self._clock_us(), atoms=atoms, final=True)

        if atoms == 0:
            await self._rows.use(attach)
            return
        await self._exchange.fund_custody(
            chain_id=self.chain_id, wallet=HOT_WALLET, asset_id=token.asset_id, atoms=atoms, tx_id=row.tx_id,
            attach=attach,
        )  # fmt: skip

    async def _agreed(self, row: sa.Row[Any], seen: dict[int, bool]) -> bool:
        """Whether the quorum has this block and sees this very transfer in it, to a wallet of ours.   [D-7, D-12]

        A row is only a note of what to ask about. The first node is asked again too: what it does not confirm is held.
        """
        if row.id in seen:
            return seen[row.id]
        seen[row.id] = False
        words = self._misfit(row) or await self._rows.use(partial(self._own_move, row=row))
        if words:
            await self._doubt(row, words)
            return False
        count = 0
        for adapter in self._adapters:
            try:
                block = await adapter.block(row.height)
                if block is None or block.hash != row.block_hash:
                    continue
                listed = {token.contract for token in self._exchange.tokens(self.chain_id)}
                found = await adapter.transfers(block, {row.address}, listed)
            except ChainError:
                continue
            if any(deposit.is_same(row, transfer) for transfer in found):
                count += 1
            elif adapter is self._node:
                await self._doubt(row, f"block {row.height} has no {row.tx_id}:{row.idx} of {row.received}")
                return False
            else:
                await self._rows.alarm("nodes disagree", str(row.id), f"a node does not see {row.tx_id}:{row.idx}")
        seen[row.id] = count >= self._quorum
        return seen[row.id]

    def _misfit(self, row: sa.Row[Any]) -> str:
        """What about a row cannot be, before any node is asked: its address is its wallet's, its asset its coin's."""
        if not 0 <= row.wallet < MOST_WALLETS or self._wallets.derived(self.chain_id, row.wallet) != row.address:
            return f"{row.address} is not the address of wallet {row.wallet}"
        token = self._exchange.token(self.chain_id, row.asset_id)
        if token is None or token.contract != row.contract:
            return f"asset {row.asset_id} is not {row.contract or 'the native coin'}"
        return ""

    def _own_move(self, connection: sa.Connection, row: sa.Row[Any]) -> str:
        """Coins that come from ourselves are a deposit only as a payout: sweeps and gas money credit nobody."""
        if row.sender not in self._wallets.watched(self.chain_id):
            return ""
        purpose = self._own_purpose(connection, row.tx_id)
        return "" if purpose == "withdrawal" else f"our own wallet {row.sender} sent it, and not as a withdrawal"

    async def _doubt(self, row: sa.Row[Any], words: str) -> None:
        """A row that the chain does not confirm is held, with an alarm; a credit it has stays where it is."""
        await self._rows.alarm("deposit not on chain", str(row.id), f"deposit {row.id} ({row.state}): {words}")
        if row.state in deposit.UNDECIDED:
            await self._rows.use(lambda c: deposit.move(c, row, State.HELD, self._clock_us(), f"not on chain: {words}"))

    async def _count_canonical(self, height: int, block_hash: str) -> int:
        count = 0
        for adapter in self._adapters:
            try:
                block = await adapter.block(height)
            except ChainError:
                continue
            count += block is not None and block.hash == block_hash
        return count


def _insert_block(connection: sa.Connection, chain_id: int, block: BlockRef) -> None:
    connection.execute(
        sa.insert(blocks).values(
            chain_id=chain_id, height=block.height, hash=block.hash, parent=block.parent, time_us=block.time_us
        )
    )
