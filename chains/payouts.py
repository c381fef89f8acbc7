"""Withdrawals: screened, approved within limits or queued for an operator, sent, and settled when final.   [D-8]

The exchange says what may be paid; this module decides when, and pays each withdrawal through the outbox under a
reference that exists once, so no restart can pay it twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import sqlalchemy as sa

from chains.adapter import Adapter, ChainError, Payment
from chains.amounts import fee_atoms, read_rounding, write_rounding
from chains.coverage import native_coin, shortfall
from chains.exchange import Attach, Exchange, Refused, Token, Withdrawal
from chains.outbox import Outbox, PaymentOrder, PaymentOutcome
from chains.rows import Rows
from chains.schema import payouts
from chains.wallets import HOT_WALLET, Wallets

DAY_US = 24 * 60 * 60 * 1_000_000


class Payout(StrEnum):
    """requested is the exchange's; here: manual (waits for an operator) → approved → sent → paid, failed, rejected."""

    MANUAL = "manual"
    APPROVED = "approved"
    REFUSED = "refused"
    SENT = "sent"
    PAID = "paid"
    FAILED = "failed"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Limits:
    """Ledger atoms per asset that are paid without an operator; an asset not named has no such limit.   [D-8]"""

    per_transaction: Mapping[int, int] = field(default_factory=dict)
    per_day_subaccount: Mapping[int, int] = field(default_factory=dict)
    per_day_asset: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class PayoutStep:
    """What one step did, by withdrawal id; `waiting` says why it stopped early."""

    approved: list[int] = field(default_factory=list)
    queued: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    paid: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    waiting: str = ""


class Payouts:
    """Pays the withdrawals of one chain from its hot wallet. Shares its outbox with the sweeper."""

    def __init__(
        self,
        engine: sa.Engine,
        adapters: Sequence[Adapter],
        exchange: Exchange,
        wallets: Wallets,
        outbox: Outbox,
        *,
        clock_us: Callable[[], int],
        limits: Limits | None = None,
    ) -> None:
        self.chain_id = adapters[0].chain_id
        self._rows = Rows(engine, self.chain_id, clock_us)
        self._node = adapters[0]
        self._exchange = exchange
        self._wallets = wallets
        self._outbox = outbox
        self._clock_us = clock_us
        self._limits = limits or Limits()
        self._lock = asyncio.Lock()

    async def run(self, interval_seconds: float = 1.0) -> None:
        """Step for ever; a node's fault is an alarm and another try.   [D-12]"""
        while True:
            await self.step()
            await asyncio.sleep(interval_seconds)

    async def step(self) -> PayoutStep:
        """Follow what was sent, settle what is final, approve what was requested, send what is approved."""
        async with self._lock:
            step = PayoutStep()
            try:
                await self._outbox.advance()
                await self._settle(step)
                await self._approve(step)
                await self._send(step)
                await self._outbox.advance()
            except ChainError as error:
                step.waiting = f"{type(error).__name__}: {error}"
                await self._rows.alarm("payouts", type(error).__name__, str(error))
            return step

    async def approve(self, withdrawal_id: int, operator: str) -> None:
        """An operator lets a queued withdrawal go, or retries one that the signer refused.   [D-8]"""
        row = await self._row(withdrawal_id)
        assert row is not None and row.state in (Payout.MANUAL, Payout.REFUSED), f"withdrawal {withdrawal_id}: {row}"
        if row.state == Payout.REFUSED:
            await self._rows.use(lambda c: self._put(c, withdrawal_id, state=Payout.APPROVED, approved_by=operator))
            return
        await self._exchange.approve_withdrawal(
            withdrawal_id=withdrawal_id,
            attach=lambda c: self._put(c, withdrawal_id, state=Payout.APPROVED, approved_by=operator,
                                       approved_at_us=self._clock_us(), reason=""),
        )  # fmt: skip

    async def reject(self, withdrawal_id: int, operator: str, reason: str) -> None:
        """An operator refuses a queued withdrawal; its hold is released."""
        row = await self._row(withdrawal_id)
        assert row is not None and row.state == Payout.MANUAL, f"withdrawal {withdrawal_id}: {row}"
        await self._exchange.reject_withdrawal(
            withdrawal_id=withdrawal_id, reason=reason,
            attach=lambda c: self._put(c, withdrawal_id, state=Payout.REJECTED, approved_by=operator, reason=reason),
        )  # fmt: skip

    async def cancel(self, withdrawal_id: int) -> None:
        """Try to take back a payout that is not mined. If the cancellation wins, the hold is released.   [D-8]"""
        await self._outbox.cancel(_reference(withdrawal_id))

    # ---- approve ----

    async def _approve(self, step: PayoutStep) -> None:
        for withdrawal in self._mine("requested"):
            if await self._row(withdrawal.id) is not None or self._exchange.asset_withdrawals_stopped(
                withdrawal.asset_id
            ):
                continue
            try:
                await self._decide(withdrawal, step)
            except Refused as refusal:
                await self._rows.alarm("exchange refused", str(withdrawal.id), str(refusal))

    async def _decide(self, withdrawal: Withdrawal, step: PayoutStep) -> None:
        """Reject what cannot be paid, queue what is over a limit, approve the rest."""
        reason = await self._screen(withdrawal)
        if reason:
            await self._exchange.reject_withdrawal(
                withdrawal_id=withdrawal.id, reason=reason, attach=self._new_row(withdrawal, Payout.REJECTED, reason)
            )
            return
        over = await self._rows.use(partial(self._over_limit, withdrawal=withdrawal))
        if over:
            await self._rows.use(self._new_row(withdrawal, Payout.MANUAL, over))
            await self._rows.alarm("manual approval", str(withdrawal.id), over)
            step.queued.append(withdrawal.id)
            return
        await self._exchange.approve_withdrawal(
            withdrawal_id=withdrawal.id, attach=self._new_row(withdrawal, Payout.APPROVED, "")
        )
        step.approved.append(withdrawal.id)

    async def _screen(self, withdrawal: Withdrawal) -> str:
        """Why a withdrawal cannot be paid at all; "" when it can."""
        token = self._exchange.token(self.chain_id, withdrawal.asset_id)
        if token is None:
            return f"asset {withdrawal.asset_id} is not on chain {self.chain_id}"
        if self._node.normalize(withdrawal.address) is None:
            return "not an address of this chain"
        if self._node.normalize(withdrawal.address) == await self._address(HOT_WALLET):
            return "the address is the exchange's own hot wallet"
        return ""

    def _over_limit(self, connection: sa.Connection, withdrawal: Withdrawal) -> str:
        """Which limit a withdrawal exceeds, with both numbers; "" when none.   [D-8]"""
        asset, atoms = withdrawal.asset_id, withdrawal.atoms
        recent = [
            payouts.c.asset_id == asset,
            payouts.c.approved_at_us > self._clock_us() - DAY_US,
            payouts.c.state.not_in([Payout.REJECTED, Payout.MANUAL]),
        ]
        total = sa.select(sa.func.coalesce(sa.func.sum(payouts.c.atoms), 0)).where(*recent)
        of_all = int(connection.scalar(total) or 0)
        of_subaccount = int(connection.scalar(total.where(payouts.c.subaccount_id == withdrawal.subaccount_id)) or 0)
        checks = (
            ("in one transaction", 0, self._limits.per_transaction),
            ("of this subaccount in 24 hours", of_subaccount, self._limits.per_day_subaccount),
            ("of this asset in 24 hours", of_all, self._limits.per_day_asset),
        )
        for name, before, limits in checks:
            limit = limits.get(asset)
            if limit is not None and before + atoms > limit:
                return f"{before + atoms} atoms {name}, at most {limit}"
        return ""

    # ---- send ----

    async def _send(self, step: PayoutStep) -> None:
        for withdrawal in self._mine("approved"):
            row = await self._approved_row(withdrawal)
            token = self._exchange.token(self.chain_id, withdrawal.asset_id)
            if row.state != Payout.APPROVED or self._exchange.asset_withdrawals_stopped(withdrawal.asset_id):
                continue
            assert token is not None, f"withdrawal {withdrawal.id}: asset {withdrawal.asset_id} is gone"
            if not await self._is_covered(withdrawal, token):
                continue
            address = self._node.normalize(withdrawal.address)
            assert address is not None
            sent = await self._outbox.send(
                PaymentOrder(
                    reference=_reference(withdrawal.id), purpose="withdrawal", wallet=HOT_WALLET,
                    asset_id=token.asset_id, contract=token.contract, recipient=address,
                    amount=withdrawal.atoms * token.base_per_atom,
                )
            )  # fmt: skip
            state = Payout.SENT if sent else Payout.REFUSED
            await self._rows.use(partial(self._put, withdrawal_id=withdrawal.id, state=state))
            if sent:
                step.sent.append(withdrawal.id)

    async def _approved_row(self, withdrawal: Withdrawal) -> sa.Row[Any]:
        """The payout of a withdrawal that the exchange calls approved.

        An operator's own command may have approved one that waits here for an operator, or one not seen here yet.
        """
        row = await self._row(withdrawal.id)
        if row is None:
            await self._rows.use(self._new_row(withdrawal, Payout.APPROVED, ""))
        elif row.state == Payout.MANUAL:
            approved = partial(self._put, withdrawal_id=withdrawal.id, state=Payout.APPROVED, reason="")
            await self._rows.use(partial(approved, approved_by="command", approved_at_us=self._clock_us()))
        else:
            return row
        row = await self._row(withdrawal.id)
        assert row is not None, f"withdrawal {withdrawal.id}: its payout row is gone"
        return row

    async def _is_covered(self, withdrawal: Withdrawal, token: Token) -> bool:
        """Whether the hot wallet can pay this and its fee; if not, an operator hears of it."""
        payment = Payment(
            await self._address(HOT_WALLET), withdrawal.address, token.contract, withdrawal.atoms * token.base_per_atom
        )
        words = await shortfall(self._outbox, self._node, self._exchange, HOT_WALLET, payment)
        if words:
            await self._rows.alarm("hot wallet low", token.symbol, words)
        return words == ""

    # ---- settle ----

    async def _settle(self, step: PayoutStep) -> None:
        native = native_coin(self._exchange, self.chain_id)
        for row in await self._outbox.finished("withdrawal"):
            withdrawal_id = int(row.reference.removeprefix("withdrawal:"))
            before = await self._rows.use(lambda c: read_rounding(c, self.chain_id, HOT_WALLET, native))
            fee, left = fee_atoms(int(row.fee), before, native)
            paid = row.outcome == PaymentOutcome.PAID

            def book(connection: sa.Connection, row: sa.Row[Any] = row, withdrawal_id: int = withdrawal_id,
                     left: int = left, paid: bool = paid) -> None:  # fmt: skip
                self._outbox.settle(connection, row)
                write_rounding(connection, self.chain_id, HOT_WALLET, native.asset_id, left)
                state = Payout.PAID if paid else Payout.FAILED
                self._put(connection, withdrawal_id, state=state, tx_id=row.tx_id, reason=row.outcome)

            if paid:
                await self._exchange.settle_withdrawal(
                    withdrawal_id=withdrawal_id, tx_id=row.tx_id, network_fee_asset_id=native.asset_id,
                    network_fee_atoms=fee, attach=book,
                )  # fmt: skip
                step.paid.append(withdrawal_id)
            else:
                await self._exchange.release_withdrawal(
                    withdrawal_id=withdrawal_id, tx_id=row.tx_id, reason=row.outcome,
                    network_fee_asset_id=native.asset_id, network_fee_atoms=fee, attach=book,
                )  # fmt: skip
                step.failed.append(withdrawal_id)
                await self._rows.alarm("payout failed", str(withdrawal_id), f"{row.outcome}: {row.tx_id}")

    # ---- small things ----

    def _mine(self, state: str) -> list[Withdrawal]:
        mine = [w for w in self._exchange.pending_withdrawals() if w.chain_id == self.chain_id and w.state == state]
        return sorted(mine, key=lambda w: w.id)

    def _new_row(self, withdrawal: Withdrawal, state: Payout, reason: str) -> Attach:
        def insert(connection: sa.Connection) -> None:
            now_us = self._clock_us()
            connection.execute(
                sa.insert(payouts).values(
                    withdrawal_id=withdrawal.id, chain_id=self.chain_id, subaccount_id=withdrawal.subaccount_id,
                    asset_id=withdrawal.asset_id, atoms=withdrawal.atoms, address=withdrawal.address, state=state,
                    reason=reason, approved_by="limits" if state == Payout.APPROVED else "",
                    approved_at_us=now_us if state == Payout.APPROVED else 0, tx_id="", updated_at_us=now_us,
                )
            )  # fmt: skip

        return insert

    def _put(self, connection: sa.Connection, withdrawal_id: int, **values: Any) -> None:
        values["updated_at_us"] = self._clock_us()
        connection.execute(sa.update(payouts).filter_by(withdrawal_id=withdrawal_id).values(**values))

    async def _row(self, withdrawal_id: int) -> sa.Row[Any] | None:
        select = sa.select(payouts).filter_by(withdrawal_id=withdrawal_id)
        return await self._rows.use(lambda c: c.execute(select).first())

    async def _address(self, wallet: int) -> str:
        return await asyncio.to_thread(self._wallets.address, self.chain_id, wallet)


def _reference(withdrawal_id: int) -> str:
    return f"withdrawal:{withdrawal_id}"
