"""Sweeps: coins of deposit addresses go to the hot wallet when that is worth its fee.   [D-10]

Only what is final in the ledger is swept, in whole atoms: dust and unattributed coins stay where they are. A token
needs gas at its address; the top-up must be final, and booked, before the token's sweep is signed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from chains import deposits as deposit
from chains.adapter import Adapter, ChainError, Payment
from chains.amounts import fee_atoms, read_rounding, write_rounding
from chains.coverage import native_coin, shortfall
from chains.deposits import State
from chains.exchange import Exchange, Token
from chains.outbox import Outbox, PaymentOrder, PaymentOutcome
from chains.rows import Rows
from chains.schema import deposits, nonces
from chains.wallets import HOT_WALLET, Wallets
from ledger.amounts import mul_div_up

BUMP_ROOM = 2
"""Gas money is reserved for fees this many times the quote, so that a sweep can be bid up."""


@dataclass(frozen=True, slots=True)
class SweepRule:
    """Sweep an asset from an address from `threshold_atoms` up, if the fee may cost at most `most_fee_atoms` native."""

    threshold_atoms: int
    most_fee_atoms: int


@dataclass(slots=True)
class SweepStep:
    """What one step did, by reference; `waiting` says why it stopped early."""

    sent: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    waiting: str = ""


class Sweeper:
    """Sweeps the deposit addresses of one chain. Assets without a rule stay. Shares its outbox with the payouts."""

    def __init__(
        self,
        engine: sa.Engine,
        adapters: Sequence[Adapter],
        exchange: Exchange,
        wallets: Wallets,
        outbox: Outbox,
        *,
        clock_us: Callable[[], int],
        rules: Mapping[int, SweepRule],
    ) -> None:
        self.chain_id = adapters[0].chain_id
        self._rows = Rows(engine, self.chain_id, clock_us)
        self._node = adapters[0]
        self._exchange = exchange
        self._wallets = wallets
        self._outbox = outbox
        self._clock_us = clock_us
        self._rules = rules
        self._lock = asyncio.Lock()

    async def run(self, interval_seconds: float = 10.0) -> None:
        """Step for ever; a node's fault is an alarm and another try.   [D-12]"""
        while True:
            await self.step()
            await asyncio.sleep(interval_seconds)

    async def step(self) -> SweepStep:
        """Book what is final, then send what is worth sending."""
        async with self._lock:
            step = SweepStep()
            try:
                await self._outbox.advance()
                for purpose in ("topup", "sweep", "gap"):
                    for row in await self._outbox.finished(purpose):
                        await self._settle(row)
                        step.settled.append(row.reference)
                for wallet, asset_id in await self._rows.use(self._candidates):
                    await self._sweep(wallet, asset_id, step)
            except ChainError as error:
                step.waiting = f"{type(error).__name__}: {error}"
                await self._rows.alarm("sweeps", type(error).__name__, step.waiting)
            return step

    def _candidates(self, connection: sa.Connection) -> list[tuple[int, int]]:
        """(wallet, asset) of deposit addresses with final deposits that were not swept, none of them moving."""
        moving = {
            wallet
            for row in connection.execute(sa.select(nonces).where(
                nonces.c.chain_id == self.chain_id, nonces.c.state != "settled"))
            for wallet in (row.wallet, row.recipient_wallet)
        }  # fmt: skip
        rows = connection.execute(
            sa.select(deposits.c.wallet, deposits.c.asset_id)
            .where(
                deposits.c.chain_id == self.chain_id,
                deposits.c.state == State.WITHDRAWABLE,
                deposits.c.asset_id.in_(list(self._rules)),
            )
            .distinct()
            .order_by(deposits.c.wallet, deposits.c.asset_id)
        )
        return [(row.wallet, row.asset_id) for row in rows if row.wallet not in moving]

    async def _sweep(self, wallet: int, asset_id: int, step: SweepStep) -> None:
        """Send one address's coins, or first the gas they need."""
        token, rule = self._exchange.token(self.chain_id, asset_id), self._rules[asset_id]
        held = self._exchange.ledger_balance(self.chain_id, wallet, asset_id)
        if token is None or held < max(1, rule.threshold_atoms):
            return
        if wallet in {row.wallet for row in await self._outbox.unfinished()}:
            return
        native = native_coin(self._exchange, self.chain_id)
        source, hot = await self._address(wallet), await self._address(HOT_WALLET)
        free = await self._free_atoms(wallet, token)
        fee = (await self._node.quote(Payment(source, hot, token.contract, free * token.base_per_atom))).most
        room = mul_div_up(fee, BUMP_ROOM, native.base_per_atom)
        atoms = free - room if token.contract == "" else free
        if atoms < max(1, rule.threshold_atoms) or fee > rule.most_fee_atoms * native.base_per_atom:
            return

        if token.contract != "":
            gas_money = await self._free_atoms(wallet, native)
            if gas_money < room:
                await self._top_up(wallet, native, room - gas_money, step)
                return
        payment = Payment(source, hot, token.contract, atoms * token.base_per_atom)
        if await self._node.balance(source, token.contract, await self._node.final()) < payment.amount:
            return
        await self._send("sweep", wallet, wallet, token, payment, HOT_WALLET, step)

    async def _top_up(self, wallet: int, native: Token, atoms: int, step: SweepStep) -> None:
        """Gas money from the hot wallet to a deposit address; nothing is swept before it is final and booked."""
        payment = Payment(
            await self._address(HOT_WALLET), await self._address(wallet), "", atoms * native.base_per_atom
        )
        words = await shortfall(self._outbox, self._node, self._exchange, HOT_WALLET, payment)
        if words:
            await self._rows.alarm("hot wallet low", native.symbol, words)
            return
        await self._send("topup", wallet, HOT_WALLET, native, payment, wallet, step)

    async def _send(
        self, purpose: str, wallet: int, from_wallet: int, token: Token, payment: Payment, to_wallet: int,
        step: SweepStep,
    ) -> None:  # fmt: skip
        """Hand a move to the outbox under a reference of its own: how many there were before it."""
        earlier = sa.select(sa.func.count()).select_from(nonces).where(
            nonces.c.chain_id == self.chain_id, nonces.c.purpose == purpose, nonces.c.wallet == from_wallet,
            nonces.c.recipient_wallet == to_wallet,
        )  # fmt: skip
        count = await self._rows.use(lambda c: int(c.scalar(earlier) or 0))
        order = PaymentOrder(
            f"{purpose}:{wallet}:{count}", purpose, from_wallet, token.asset_id, token.contract, payment.recipient,
            payment.amount, to_wallet,
        )  # fmt: skip
        if await self._outbox.send(order):
            step.sent.append(order.reference)

    async def _settle(self, row: sa.Row[Any]) -> None:
        """Book a final move between our own wallets: the coins if they moved, the fee in any case."""
        native = native_coin(self._exchange, self.chain_id)
        before = await self._rows.use(lambda c: read_rounding(c, self.chain_id, row.wallet, native))
        fee, left = fee_atoms(int(row.fee), before, native)
        token = native if row.purpose == "gap" else self._exchange.token(self.chain_id, row.asset_id)
        assert token is not None, f"{row.reference}: asset {row.asset_id} is not listed on chain {self.chain_id}"
        moved = row.outcome == PaymentOutcome.PAID
        atoms, remainder = divmod(int(row.amount), token.base_per_atom)
        assert remainder == 0, f"{row.reference}: {row.amount} base units are no whole atoms of {token.symbol}"
        after = await self._free_atoms(row.wallet, token)
        after -= (atoms if moved else 0) + (fee if token.contract == "" else 0)

        def book(connection: sa.Connection) -> None:
            self._outbox.settle(connection, row)
            write_rounding(connection, self.chain_id, row.wallet, native.asset_id, left)
            rule = self._rules.get(token.asset_id)
            if row.purpose == "sweep" and moved and (rule is None or after < max(1, rule.threshold_atoms)):
                self._mark_swept(connection, row)

        await self._exchange.record_sweep(
            chain_id=self.chain_id, from_wallet=row.wallet, to_wallet=row.recipient_wallet, asset_id=token.asset_id,
            atoms=atoms if moved else 0, network_fee_asset_id=native.asset_id, network_fee_atoms=fee,
            fee_wallet=row.wallet, tx_id=row.tx_id, attach=book,
        )  # fmt: skip

    def _mark_swept(self, connection: sa.Connection, row: sa.Row[Any]) -> None:
        swept = sa.select(deposits).filter_by(
            chain_id=self.chain_id, wallet=row.wallet, asset_id=row.asset_id, state=State.WITHDRAWABLE
        )
        for found in connection.execute(swept).all():
            deposit.move(connection, found, State.SWEPT, self._clock_us(), f"by {row.tx_id}")

    async def _free_atoms(self, wallet: int, token: Token) -> int:
        """Atoms of a wallet in the ledger that no reorg can take back."""
        provisional = await self._rows.use(lambda c: c.scalar(
            sa.select(sa.func.coalesce(sa.func.sum(deposits.c.atoms), 0)).where(
                deposits.c.chain_id == self.chain_id,
                deposits.c.wallet == wallet,
                deposits.c.asset_id == token.asset_id,
                deposits.c.state.in_([State.CREDITED, State.CREDITED_ORPHANED]),
            )
        ))  # fmt: skip
        return self._exchange.ledger_balance(self.chain_id, wallet, token.asset_id) - int(provisional or 0)

    async def _address(self, wallet: int) -> str:
        return await asyncio.to_thread(self._wallets.address, self.chain_id, wallet)
