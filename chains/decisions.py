"""What becomes of each deposit: credited when deep enough, final when final, reversed when it did not come back.

A row is only a note of what to ask about: nothing is credited before the quorum of nodes sees the very transfer.
[D-4, D-5, D-6, D-7, D-12]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import sqlalchemy as sa

from chains import deposits as deposit
from chains.adapter import Adapter, BlockRef, ChainError, count_canonical
from chains.alarms import raise_alarm
from chains.amounts import credited, most_dust, read_dust, read_rounding, write_dust, write_rounding
from chains.deposits import INCLUDED_AGAIN, RELEASED, State
from chains.exchange import Exchange, Refused, Token
from chains.justification import MOST_WALLETS
from chains.rows import Rows
from chains.schema import attempts, cursors, deposits, nonces
from chains.wallets import HOT_WALLET, Wallets


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


class Decisions:
    """Decides the deposits of one chain: `quorum` of the nodes must agree, the first is asked again in any case."""

    def __init__(
        self,
        rows: Rows,
        adapters: Sequence[Adapter],
        exchange: Exchange,
        wallets: Wallets,
        *,
        clock_us: Callable[[], int],
        quorum: int,
        depth: Depth,
        blocked_senders: Collection[str],
        no_minimum_from: Collection[str],
    ) -> None:
        self.chain_id = adapters[0].chain_id
        self._rows = rows
        self._adapters = adapters
        self._node = adapters[0]
        self._exchange = exchange
        self._wallets = wallets
        self._clock_us = clock_us
        self._quorum = quorum
        self._depth = depth
        self._blocked = blocked_senders
        self._no_minimum_from = no_minimum_from

    async def decide(self, tip: BlockRef, final: BlockRef, step: Step) -> None:
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
            await count_canonical(self._adapters, final.height, final.hash) >= self._quorum
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
        purpose = own_purpose(connection, self.chain_id, row.tx_id)
        return "" if purpose == "withdrawal" else f"our own wallet {row.sender} sent it, and not as a withdrawal"

    async def _doubt(self, row: sa.Row[Any], words: str) -> None:
        """A row that the chain does not confirm is held, with an alarm; a credit it has stays where it is."""
        await self._rows.alarm("deposit not on chain", str(row.id), f"deposit {row.id} ({row.state}): {words}")
        if row.state in deposit.UNDECIDED:
            await self._rows.use(lambda c: deposit.move(c, row, State.HELD, self._clock_us(), f"not on chain: {words}"))


def own_purpose(connection: sa.Connection, chain_id: int, tx_id: str) -> str | None:
    """What our own transaction was for; None for a stranger's."""
    joined = sa.select(nonces.c.purpose).join(
        attempts,
        sa.and_(
            attempts.c.chain_id == nonces.c.chain_id,
            attempts.c.wallet == nonces.c.wallet,
            attempts.c.nonce == nonces.c.nonce,
        ),
    )
    purpose: str | None = connection.scalar(joined.where(attempts.c.chain_id == chain_id,
                                                         attempts.c.tx_id == tx_id))
    return purpose
