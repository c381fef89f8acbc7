"""Outgoing transactions of our own wallets: our nonces, bytes stored before broadcast, bumps, and which one won.

Every payment has one row in `chain_nonces`: the nonce is reserved for it in SQL before anything is signed, and every
attempt at it shares that nonce, so at most one can ever be mined. Signed bytes are stored before they are
broadcast; after a crash the same bytes are sent again. A row alone is no reason to sign: the exchange has to stand
behind it, and stored bytes are read again before they are believed.   [D-8, D-10]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import sqlalchemy as sa

from chains.adapter import (
    Adapter,
    BlockRef,
    ChainError,
    Fee,
    Inclusion,
    Payment,
    TxStatus,
    Unavailable,
    Verdict,
    WrongChain,
    agreed_final,
)
from chains.exchange import Exchange
from chains.justification import MOST_WALLETS, objection
from chains.rows import Rows
from chains.schema import attempts, cursors, nonces
from chains.signer import Meaning, Signer, SigningRefused, read_signed
from chains.wallets import Wallets

MOST_READ = 10_000


class Sending(StrEnum):
    """Where an outgoing payment stands. `final` waits for the ledger, `settled` is the end, `stuck` for a human."""

    RESERVED = "reserved"
    SIGNED = "signed"
    MINED = "mined"
    FINAL = "final"
    SETTLED = "settled"
    STUCK = "stuck"


class PaymentOutcome(StrEnum):
    """How a final payment ended. Cancelled means our own self-transfer took the nonce: provably not paid."""

    PAID = "paid"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """A payment to be made: `reference` names it for ever and makes asking twice harmless."""

    reference: str
    purpose: str
    wallet: int
    asset_id: int
    contract: str
    recipient: str
    amount: int
    recipient_wallet: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A stored transaction whose bytes were read again: they are ours, for this nonce, and pay this or nobody."""

    tx_id: str
    raw: bytes
    cancels: bool
    fee: Fee
    number: int
    signed_at_us: int


@dataclass(frozen=True, slots=True)
class Pace:
    """When a transaction that is not mined gets a higher bid, and the most it may ever bid per gas."""

    bump_after_us: int = 60_000_000
    most_max_fee: int = 10**15


class Outbox:
    """The outgoing side of one chain. `chain_id`, nodes, signer and wallets are of the same chain."""

    def __init__(
        self,
        engine: sa.Engine,
        adapters: Sequence[Adapter],
        exchange: Exchange,
        signer: Signer,
        wallets: Wallets,
        *,
        clock_us: Callable[[], int],
        quorum: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.chain_id = adapters[0].chain_id
        self._rows = Rows(engine, self.chain_id, clock_us)
        self._adapters = adapters
        self._node = adapters[0]
        self._exchange = exchange
        self._signer = signer
        self._wallets = wallets
        self._clock_us = clock_us
        self._quorum = len(adapters) if quorum is None else quorum
        self._pace = pace or Pace()
        self._lock = asyncio.Lock()
        self._gaps_filled = False
        self._meanings: dict[bytes, tuple[str, Meaning]] = {}

    async def send(self, order: PaymentOrder) -> bool:
        """Reserve a nonce for a payment, sign, store, broadcast. False when the signer refuses: nothing was sent."""
        async with self._lock:
            return await self._send(order)

    async def _send(self, order: PaymentOrder) -> bool:
        row = await self._rows.use(lambda c: self._reserve(c, order, None))
        if row is None:
            # The first payment of this wallet that we know of: its nonce comes from the chain, once.
            source = await self._address(order.wallet)
            mined = await self._node.mined_nonces(source, await self._node.tip())
            row = await self._rows.use(lambda c: self._reserve(c, order, mined))
        assert row is not None
        words = _difference(row, order)
        if words:
            await self._rows.alarm("reference taken", order.reference, words)
            return False
        return row.state != Sending.RESERVED or await self._sign_first(row)

    async def advance(self) -> None:
        """Sign what a crash left unsigned, rebroadcast, bump, and find out what is mined and what is final."""
        async with self._lock:
            await self._advance()

    async def _advance(self) -> None:
        await self._require_network()
        if not self._gaps_filled:
            await self._fill_gaps()
            self._gaps_filled = True
        unfinished = sa.select(nonces).where(
            nonces.c.chain_id == self.chain_id, nonces.c.state.in_([Sending.RESERVED, Sending.SIGNED, Sending.MINED])
        )
        rows = await self._rows.use(lambda c: c.execute(unfinished.order_by(nonces.c.wallet, nonces.c.nonce)).all())
        if not rows:
            return
        final = await agreed_final(self._adapters, self._quorum)
        heads: set[int] = set()
        for row in rows:
            if not 0 <= row.wallet < MOST_WALLETS:
                await self._is_justified(row)  # Nothing of it is ours; an operator hears why.
                continue
            if row.state == Sending.RESERVED:
                await self._sign_first(row)
                continue
            # Only the lowest waiting nonce of a wallet is bumped: the later ones wait for it.
            await self._follow(row, final, head=row.wallet not in heads)
            heads.add(row.wallet)

    async def finished(self, purpose: str) -> list[sa.Row[Any]]:
        """Payments of a purpose that are final on chain and not settled in the ledger yet.

        The row's word is not enough: the chain is asked again, and what it does not confirm is followed again.
        """
        done = sa.select(nonces).filter_by(chain_id=self.chain_id, purpose=purpose, state=Sending.FINAL)
        rows = await self._rows.use(lambda c: c.execute(done.order_by(nonces.c.nonce)).all())
        return [row for row in rows if await self._is_finished(row)]

    async def _is_finished(self, row: sa.Row[Any]) -> bool:
        if not await self._is_justified(row):
            return False
        final = await agreed_final(self._adapters, self._quorum)
        for attempt in await self._attempts(row):
            mined = (await self._node.status(attempt.tx_id)).mined
            if mined is not None and (attempt.tx_id, mined.block.height, str(mined.fee)) == (
                row.tx_id, row.height, row.fee
            ):  # fmt: skip
                state, words = await self._standing(row, attempt, mined, final)
                if (state, words) == (Sending.FINAL, row.outcome):
                    return True
        words = f"the chain does not confirm {row.outcome} by {row.tx_id}"
        await self._rows.alarm("stored outcome", row.reference, words)
        await self._set(row, state=Sending.SIGNED, outcome="", tx_id="", height=0)
        return False

    async def unfinished(self, purpose: str | None = None) -> list[sa.Row[Any]]:
        """Payments that are not settled."""
        rows = sa.select(nonces).where(nonces.c.chain_id == self.chain_id, nonces.c.state != Sending.SETTLED)
        return list(await self._rows.use(lambda c: c.execute(
            rows if purpose is None else rows.where(nonces.c.purpose == purpose)).all()))

    async def cancel(self, reference: str) -> None:
        """Bid for the payment's nonce with an empty transfer to ourselves. Whichever is mined decides.   [D-8]"""
        row = await self._rows.use(
            lambda c: c.execute(sa.select(nonces).filter_by(chain_id=self.chain_id, reference=reference)).one()
        )
        async with self._lock:
            tried = await self._attempts(row)
            assert tried, f"{reference}: nothing was signed that could be cancelled"
            await self._bump(row, tried, cancels=True)

    def settle(self, connection: sa.Connection, row: sa.Row[Any]) -> None:
        """Mark a payment as settled; runs inside the ledger's transaction that books it."""
        changed = connection.execute(
            sa.update(nonces)
            .filter_by(chain_id=self.chain_id, wallet=row.wallet, nonce=row.nonce, state=Sending.FINAL)
            .values(state=Sending.SETTLED)
        ).rowcount
        assert changed == 1, f"chain {self.chain_id} {row.reference}: settled twice"

    # ---- reserve, sign, store, broadcast ----

    def _reserve(self, connection: sa.Connection, order: PaymentOrder, mined: int | None) -> sa.Row[Any] | None:
        """The payment's row, new or old. None when the wallet has no nonce of ours and `mined` is not known."""
        row = connection.execute(
            sa.select(nonces).filter_by(chain_id=self.chain_id, reference=order.reference)
        ).first()
        if row is not None:
            return row
        highest = connection.scalar(
            sa.select(sa.func.max(nonces.c.nonce)).filter_by(chain_id=self.chain_id, wallet=order.wallet)
        )
        if highest is None and mined is None:
            return None
        return self._insert(connection, order, mined if highest is None else highest + 1)

    def _insert(self, connection: sa.Connection, order: PaymentOrder, nonce: int | None) -> sa.Row[Any]:
        assert nonce is not None
        connection.execute(
            sa.insert(nonces).values(
                chain_id=self.chain_id, wallet=order.wallet, nonce=nonce, reference=order.reference,
                purpose=order.purpose, asset_id=order.asset_id, contract=order.contract, recipient=order.recipient,
                recipient_wallet=order.recipient_wallet, amount=str(order.amount), state=Sending.RESERVED,
                outcome="", tx_id="", height=0, fee="0", reserved_at_us=self._clock_us(),
            )
        )  # fmt: skip
        return connection.execute(
            sa.select(nonces).filter_by(chain_id=self.chain_id, wallet=order.wallet, nonce=nonce)
        ).one()

    async def _sign_first(self, row: sa.Row[Any]) -> bool:
        """Sign a reserved payment. A refusal gives the nonce back if it is the newest, else fills it.

        A row that nobody stands behind is removed, unsigned; a gap it leaves is filled.
        """
        if not await self._is_justified(row):
            await self._rows.use(lambda c: c.execute(sa.delete(nonces).filter_by(
                chain_id=self.chain_id, wallet=row.wallet, nonce=row.nonce, state=Sending.RESERVED)))
            self._gaps_filled = False
            return False
        payment = await self._payment(row)
        fee = await self._node.quote(payment)
        try:
            await self._sign(row, payment, self._capped(fee), attempt=0, cancels=False)
        except SigningRefused as refusal:
            await self._rows.alarm("signer refused", row.reference, str(refusal))
            if not await self._rows.use(lambda c: self._give_back(c, row)):
                await self._sign(row, await self._to_itself(row), self._capped(fee), attempt=0, cancels=True)
            return False
        return True

    def _give_back(self, connection: sa.Connection, row: sa.Row[Any]) -> bool:
        key = {"chain_id": self.chain_id, "wallet": row.wallet}
        highest = connection.scalar(sa.select(sa.func.max(nonces.c.nonce)).filter_by(**key))
        if highest != row.nonce:
            return False
        connection.execute(sa.delete(nonces).filter_by(**key, nonce=row.nonce))
        return True

    async def _sign(self, row: sa.Row[Any], payment: Payment, fee: Fee, *, attempt: int, cancels: bool) -> None:
        """Sign, store the bytes, and only then broadcast.   [D-8]"""
        unsigned = self._node.build(payment, row.nonce, fee)
        name = "" if cancels else row.reference
        signed = await asyncio.to_thread(self._signer.sign, self.chain_id, row.wallet, unsigned, name)

        def store(connection: sa.Connection) -> None:
            connection.execute(
                sa.insert(attempts).values(
                    chain_id=self.chain_id, tx_id=signed.tx_id, wallet=row.wallet, nonce=row.nonce, attempt=attempt,
                    cancels=cancels, raw=signed.raw, max_fee=str(fee.max_fee), priority_fee=str(fee.priority_fee),
                    gas=fee.gas, signed_at_us=self._clock_us(), reply="",
                )
            )  # fmt: skip
            connection.execute(
                sa.update(nonces)
                .filter_by(chain_id=self.chain_id, wallet=row.wallet, nonce=row.nonce)
                .values(state=Sending.SIGNED)
            )

        await self._rows.use(store)
        await self._broadcast(signed.tx_id, signed.raw)

    async def _broadcast(self, tx_id: str, raw: bytes) -> Verdict | None:
        """Send the stored bytes to every node. A lost reply means nothing: the bytes are sent again later."""
        best: Verdict | None = None
        for adapter in self._adapters:
            try:
                reply = await adapter.broadcast(raw)
            except Unavailable:
                continue
            if best is None or reply.verdict in (Verdict.ACCEPTED, Verdict.KNOWN):
                best = reply.verdict
                words = f"{reply.verdict}: {reply.words}"
                change = sa.update(attempts).filter_by(chain_id=self.chain_id, tx_id=tx_id).values(reply=words)
                await self._rows.use(partial(_execute, change))
        return best

    # ---- follow ----

    async def _follow(self, row: sa.Row[Any], final: BlockRef, *, head: bool) -> None:
        tried = await self._attempts(row)
        if not tried:
            await self._rows.alarm("signed without bytes", row.reference, f"wallet {row.wallet} nonce {row.nonce}")
            await self._set(row, state=Sending.STUCK)
            return
        statuses: list[TxStatus] = [await self._node.status(attempt.tx_id) for attempt in tried]
        for attempt, status in zip(tried, statuses, strict=True):
            if status.mined is not None:
                await self._mined(row, attempt, status.mined, final)
                return
        if row.state == Sending.MINED:
            # A reorg took it out of its block; what follows broadcasts it again.
            await self._set(row, state=Sending.SIGNED, tx_id="", height=0)
        address = await self._address(row.wallet)
        if await self._node.mined_nonces(address, final) > row.nonce:
            # The nonce is finally used and none of our attempts is found. That is no proof for paying again.
            await self._rows.alarm("nonce used by a stranger", row.reference, f"wallet {row.wallet} nonce {row.nonce}")
            await self._set(row, state=Sending.STUCK)
            return
        if not tried[-1].cancels and not await self._is_justified(row):
            return  # It stays followed: if it was sent before, it may still be mined.
        if head and self._clock_us() - tried[-1].signed_at_us >= self._pace.bump_after_us:
            await self._bump(row, tried, cancels=tried[-1].cancels)
            return
        if not any(status.pooled for status in statuses):
            await self._broadcast(tried[-1].tx_id, tried[-1].raw)

    async def _mined(self, row: sa.Row[Any], attempt: Attempt, mined: Inclusion, final: BlockRef) -> None:
        state, words = await self._standing(row, attempt, mined, final)
        if (row.state, row.tx_id) != (state, attempt.tx_id):
            await self._set(row, state=state, outcome=words, tx_id=attempt.tx_id, height=mined.block.height,
                            fee=str(mined.fee))

    async def _standing(
        self, row: sa.Row[Any], attempt: Attempt, mined: Inclusion, final: BlockRef
    ) -> tuple[Sending, str]:
        """An attempt is in a block. It is final when the chain says so and the quorum has the same block."""
        if mined.block.height <= final.height and await self._agreed(attempt.tx_id, mined):
            return Sending.FINAL, str(outcome_of(row, attempt.cancels, mined))
        return Sending.MINED, ""

    async def _agreed(self, tx_id: str, mined: Inclusion) -> bool:
        count = 0
        for adapter in self._adapters:
            try:
                status = await adapter.status(tx_id)
            except ChainError:
                continue
            count += status.mined is not None and status.mined == mined
        return count >= self._quorum

    async def _bump(self, row: sa.Row[Any], tried: Sequence[Attempt], *, cancels: bool) -> None:
        """A new attempt at the same nonce, ≥ 12.5 % dearer in both fees, up to the cap.   [D-8]"""
        payment = await self._to_itself(row) if cancels else await self._payment(row)
        last = tried[-1]
        before = last.fee
        fee = before.bumped(await self._node.quote(payment))
        if fee.max_fee > self._pace.most_max_fee:
            await self._rows.alarm("fee cap", row.reference, f"bid {before.max_fee}, next {fee.max_fee},"
                                                        f" at most {self._pace.most_max_fee}")
            await self._broadcast(last.tx_id, last.raw)
            return
        try:
            await self._sign(row, payment, fee, attempt=last.number + 1, cancels=cancels)
        except SigningRefused as refusal:
            await self._rows.alarm("signer refused a bump", row.reference, str(refusal))
            await self._broadcast(last.tx_id, last.raw)

    async def _fill_gaps(self) -> None:
        """At start: nonces below our newest that the chain waits for and we have no row for are filled.   [D-8]"""
        newest = sa.select(nonces.c.wallet, sa.func.max(nonces.c.nonce)).filter_by(chain_id=self.chain_id)
        for wallet, highest in await self._rows.use(lambda c: c.execute(newest.group_by(nonces.c.wallet)).all()):
            address = await self._address(wallet)
            mined = await self._node.mined_nonces(address, await self._node.tip())
            if mined > highest + 1:
                await self._rows.alarm("foreign nonce", address, f"chain has {mined} transactions of wallet {wallet},"
                                                            f" our newest is nonce {highest}")
            held = sa.select(nonces.c.nonce).filter_by(chain_id=self.chain_id, wallet=wallet)
            known = set(await self._rows.use(partial(_scalars, held)))
            for nonce in sorted(set(range(mined, highest)) - known):
                fill = PaymentOrder(f"gap:{wallet}:{nonce}", "gap", wallet, 0, "", address, 0, wallet)
                row = await self._rows.use(partial(self._insert, order=fill, nonce=nonce))
                await self._sign_first(row)

    # ---- small things ----

    async def _payment(self, row: sa.Row[Any]) -> Payment:
        return Payment(await self._address(row.wallet), row.recipient, row.contract, int(row.amount))

    async def _to_itself(self, row: sa.Row[Any]) -> Payment:
        address = await self._address(row.wallet)
        return Payment(address, address, "", 0)

    async def _address(self, wallet: int) -> str:
        return await asyncio.to_thread(self._wallets.address, self.chain_id, wallet)

    async def _is_justified(self, row: sa.Row[Any]) -> bool:
        """Whether the exchange stands behind a stored payment; an operator hears of one that it does not.   [D-8]"""
        words = objection(
            row,
            self._exchange.token(self.chain_id, row.asset_id),
            self._exchange.withdrawal,
            partial(self._wallets.derived, self.chain_id),
            self._node.normalize,
        )
        if words:
            await self._rows.alarm("unjustified payment", row.reference, f"wallet {row.wallet} nonce {row.nonce},"
                                                                    f" {row.amount} to {row.recipient}: {words}")
        return words == ""

    async def _attempts(self, row: sa.Row[Any]) -> list[Attempt]:
        """What was signed for a row, oldest first, as the bytes themselves say; others are left out with an alarm."""
        select = sa.select(attempts).filter_by(chain_id=self.chain_id, wallet=row.wallet, nonce=row.nonce)
        stored = await self._rows.use(lambda c: c.execute(select.order_by(attempts.c.attempt)).all())
        own, found = await self._address(row.wallet), []
        for each in stored:
            try:
                tx_id, meaning = self._read_signed(each.raw)
                cancels = is_cancellation(row, own, tx_id == each.tx_id, meaning)
            except SigningRefused as refusal:
                words = f"attempt {each.attempt}, {each.tx_id}: {refusal}"
                await self._rows.alarm("stored bytes", row.reference, words)
                continue
            fee = Fee(int(each.max_fee), int(each.priority_fee), each.gas)
            found.append(Attempt(tx_id, each.raw, cancels, fee, each.attempt, each.signed_at_us))
        return found

    def _read_signed(self, raw: bytes) -> tuple[str, Meaning]:
        """Reading costs a signature check; the same bytes are read at every step until they are mined."""
        if raw not in self._meanings:
            if len(self._meanings) >= MOST_READ:
                self._meanings.clear()
            self._meanings[raw] = read_signed(raw)
        return self._meanings[raw]

    def _capped(self, fee: Fee) -> Fee:
        most = self._pace.most_max_fee
        return Fee(min(fee.max_fee, most), min(fee.priority_fee, most), fee.gas)

    async def _require_network(self) -> None:
        """Nothing is sent before the watcher has met this network, and nothing to another one.   [D-12]"""
        identity = await self._node.identity()
        known = await self._rows.use(lambda c: c.execute(sa.select(cursors).filter_by(chain_id=self.chain_id)).first())
        if known is None or (known.network, known.genesis_hash) != (identity.network, identity.genesis_hash):
            raise WrongChain(f"chain {self.chain_id}: the node is on {identity.network}, we follow"
                             f" {'nothing yet' if known is None else known.network}")

    async def _set(self, row: sa.Row[Any], **values: Any) -> None:
        await self._rows.use(lambda c: c.execute(
            sa.update(nonces).filter_by(chain_id=self.chain_id, wallet=row.wallet, nonce=row.nonce).values(**values)))


def is_cancellation(row: sa.Row[Any], own: str, same_id: bool, meaning: Meaning) -> bool:
    """Whether signed bytes cancel a row's payment (or fill its nonce); False when they make it.

    Raises `SigningRefused` when they are for another transaction, wallet, nonce or payment than the row.   [D-8]
    """
    if not same_id or (meaning.sender, meaning.nonce) != (own, row.nonce):
        raise SigningRefused(f"bytes of {meaning.sender} nonce {meaning.nonce}, the row is {own} nonce {row.nonce}")
    pays = (meaning.contract, meaning.recipient, str(meaning.amount))
    if pays == (row.contract, row.recipient, row.amount):
        return False
    if pays == ("", own, "0"):
        return True
    raise SigningRefused(f"bytes pay {pays[2]} {pays[0]} to {pays[1]}, the row {row.amount} to {row.recipient}")


def _difference(row: sa.Row[Any], order: PaymentOrder) -> str:
    """What a row under an order's reference says differently; "" when it is the order's own."""
    stored = (row.purpose, row.wallet, row.asset_id, row.contract, row.recipient, row.amount, row.recipient_wallet)
    asked = (order.purpose, order.wallet, order.asset_id, order.contract, order.recipient, str(order.amount),
             order.recipient_wallet)  # fmt: skip
    return "" if stored == asked else f"stored {stored}, asked for {asked}"


def outcome_of(row: sa.Row[Any], cancels: bool, mined: Inclusion) -> PaymentOutcome:
    """How an included attempt ended. Paid only if it really made the transfer: a token may return false.   [D-7]"""
    if cancels:
        return PaymentOutcome.CANCELLED
    made = row.amount == "0" or any(
        (transfer.contract, transfer.recipient, transfer.amount) == (row.contract, row.recipient, int(row.amount))
        for transfer in mined.transfers
    )
    return PaymentOutcome.PAID if mined.ok and made else PaymentOutcome.FAILED


def _execute(statement: sa.Executable, connection: sa.Connection) -> None:
    connection.execute(statement)


def _scalars(statement: sa.Select[tuple[int]], connection: sa.Connection) -> Sequence[int]:
    return list(connection.scalars(statement))
