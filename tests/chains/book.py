"""A small second implementation of `chains.exchange.Exchange`: balances in SQL beside the chain's own tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import sqlalchemy as sa

from chains.exchange import Attach, Refused, Token, Withdrawal

_meta = sa.MetaData()
balances = sa.Table(
    "book_balances", _meta, sa.Column("account", sa.Text, primary_key=True),
    sa.Column("asset_id", sa.Integer, primary_key=True), sa.Column("atoms", sa.BigInteger, nullable=False),
)  # fmt: skip
outpoints = sa.Table(
    "book_outpoints", _meta, sa.Column("outpoint", sa.Text, primary_key=True), sa.Column("wallet", sa.BigInteger),
    sa.Column("subaccount_id", sa.BigInteger), sa.Column("asset_id", sa.Integer), sa.Column("atoms", sa.BigInteger),
    sa.Column("state", sa.Text),
)  # fmt: skip
withdrawals = sa.Table(
    "book_withdrawals", _meta, sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("subaccount_id", sa.BigInteger), sa.Column("chain_id", sa.Integer), sa.Column("asset_id", sa.Integer),
    sa.Column("atoms", sa.BigInteger), sa.Column("address", sa.Text), sa.Column("state", sa.Text),
)  # fmt: skip
stopped = sa.Table("book_stopped", _meta, sa.Column("asset_id", sa.Integer, primary_key=True))


class Book:
    """Double entry on one table: every change is a list of (account, asset, atoms) that sums to zero per asset."""

    def __init__(self, engine: sa.Engine, tokens: list[Token]) -> None:
        self.engine = engine
        self._tokens = tokens
        self.frozen: set[int] = set()
        self.closed: set[int] = set()
        """Subaccounts that take no deposit: what the engine would refuse."""
        _meta.create_all(engine)

    def balance(self, account: str, asset_id: int) -> int:
        with self.engine.begin() as c:
            return c.scalar(sa.select(balances.c.atoms).filter_by(account=account, asset_id=asset_id)) or 0

    def request(self, subaccount_id: int, chain_id: int, asset_id: int, atoms: int, address: str) -> int:
        """A user's withdrawal: the hold is posted at once."""
        with self.engine.begin() as c:
            self._post(c, asset_id, atoms, f"user {subaccount_id}", "held")
            key = c.execute(sa.insert(withdrawals).values(
                subaccount_id=subaccount_id, chain_id=chain_id, asset_id=asset_id, atoms=atoms, address=address,
                state="requested")).inserted_primary_key  # fmt: skip
            assert key is not None
            return int(key[0])

    def withdrawal_state(self, withdrawal_id: int) -> str:
        with self.engine.begin() as c:
            return str(c.scalar(sa.select(withdrawals.c.state).filter_by(id=withdrawal_id)))

    def outpoint_states(self) -> dict[str, str]:
        with self.engine.begin() as c:
            return {row.outpoint: row.state for row in c.execute(sa.select(outpoints))}

    async def credit_deposit(
        self, *, chain_id: int, tx_id: str, index: int, wallet: int, subaccount_id: int, asset_id: int, atoms: int,
        height: int, block_hash: str, final: bool, attach: Attach,
    ) -> bool:  # fmt: skip
        def work(c: sa.Connection) -> bool:
            key = f"{chain_id}:{tx_id}:{index}"
            if c.execute(sa.select(outpoints).filter_by(outpoint=key)).first():
                return False
            if subaccount_id in self.closed:
                raise Refused(f"subaccount {subaccount_id} is closed")
            self._post(c, asset_id, atoms, f"custody {chain_id} {wallet}", f"user {subaccount_id}")
            c.execute(sa.insert(outpoints).values(
                outpoint=key, wallet=wallet, subaccount_id=subaccount_id, asset_id=asset_id, atoms=atoms,
                state="final" if final else "provisional"))  # fmt: skip
            attach(c)
            return True

        return await self._run(work)

    async def finalize_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        await self._outpoint(chain_id, tx_id, index, "provisional", "final", attach)

    async def orphan_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        row = await self._outpoint(chain_id, tx_id, index, "provisional", "orphaned", attach)
        self.frozen.add(row.subaccount_id)

    async def restore_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        row = await self._outpoint(chain_id, tx_id, index, "orphaned", "provisional", attach)
        self.frozen.discard(row.subaccount_id)

    async def reverse_deposit(self, *, chain_id: int, tx_id: str, index: int, attach: Attach) -> None:
        def take_back(c: sa.Connection) -> None:
            row = c.execute(sa.select(outpoints).filter_by(outpoint=f"{chain_id}:{tx_id}:{index}")).one()
            self._post(c, row.asset_id, row.atoms, f"user {row.subaccount_id}", f"custody {chain_id} {row.wallet}",
                       overdraft=True)  # fmt: skip
            attach(c)

        row = await self._outpoint(chain_id, tx_id, index, "orphaned", "reversed", take_back)
        self.frozen.discard(row.subaccount_id)

    def pending_withdrawals(self) -> list[Withdrawal]:
        with self.engine.begin() as c:
            rows = c.execute(sa.select(withdrawals).where(withdrawals.c.state.in_(["requested", "approved"]))).all()
        return [
            Withdrawal(r.id, r.subaccount_id, r.chain_id, r.asset_id, r.atoms, 0, r.address, 0, r.state) for r in rows
        ]

    def withdrawal(self, withdrawal_id: int) -> Withdrawal | None:
        return next((w for w in self.pending_withdrawals() if w.id == withdrawal_id), None)

    async def approve_withdrawal(self, *, withdrawal_id: int, attach: Attach) -> None:
        await self._run(lambda c: self._withdrawal(c, withdrawal_id, "requested", "approved", attach))

    async def reject_withdrawal(self, *, withdrawal_id: int, reason: str, attach: Attach) -> None:
        def work(c: sa.Connection) -> None:
            row = self._withdrawal(c, withdrawal_id, "requested", "rejected", attach)
            self._post(c, row.asset_id, row.atoms, "held", f"user {row.subaccount_id}")

        await self._run(work)

    async def settle_withdrawal(
        self, *, withdrawal_id: int, tx_id: str, network_fee_asset_id: int, network_fee_atoms: int, attach: Attach,
    ) -> None:  # fmt: skip
        def work(c: sa.Connection) -> None:
            row = self._withdrawal(c, withdrawal_id, "approved", "paid", attach)
            self._post(c, row.asset_id, row.atoms, "held", f"custody {row.chain_id} 0")
            self._post(c, network_fee_asset_id, network_fee_atoms, "fees", f"custody {row.chain_id} 0", overdraft=True)

        await self._run(work)

    async def release_withdrawal(
        self, *, withdrawal_id: int, tx_id: str, reason: str, network_fee_asset_id: int, network_fee_atoms: int,
        attach: Attach,
    ) -> None:  # fmt: skip
        def work(c: sa.Connection) -> None:
            row = self._withdrawal(c, withdrawal_id, "approved", "failed", attach)
            self._post(c, row.asset_id, row.atoms, "held", f"user {row.subaccount_id}")
            self._post(c, network_fee_asset_id, network_fee_atoms, "fees", f"custody {row.chain_id} 0", overdraft=True)

        await self._run(work)

    async def record_sweep(
        self, *, chain_id: int, from_wallet: int, to_wallet: int, asset_id: int, atoms: int,
        network_fee_asset_id: int, network_fee_atoms: int, fee_wallet: int, tx_id: str, attach: Attach,
    ) -> None:  # fmt: skip
        def work(c: sa.Connection) -> None:
            self._post(c, asset_id, atoms, f"custody {chain_id} {to_wallet}", f"custody {chain_id} {from_wallet}")
            self._post(c, network_fee_asset_id, network_fee_atoms, "fees", f"custody {chain_id} {fee_wallet}",
                       overdraft=True)  # fmt: skip
            attach(c)

        await self._run(work)

    async def fund_custody(
        self, *, chain_id: int, wallet: int, asset_id: int, atoms: int, tx_id: str, attach: Attach,
    ) -> None:  # fmt: skip
        def work(c: sa.Connection) -> None:
            self._post(c, asset_id, atoms, f"custody {chain_id} {wallet}", "capital")
            attach(c)

        await self._run(work)

    def token(self, chain_id: int, asset_id: int) -> Token | None:
        return next((t for t in self._tokens if (t.chain_id, t.asset_id) == (chain_id, asset_id)), None)

    def tokens(self, chain_id: int) -> list[Token]:
        return [t for t in self._tokens if t.chain_id == chain_id]

    def ledger_balance(self, chain_id: int, wallet: int, asset_id: int) -> int:
        return self.balance(f"custody {chain_id} {wallet}", asset_id)

    def is_credited(self, chain_id: int, tx_id: str, index: int) -> bool:
        return self.outpoint_states().get(f"{chain_id}:{tx_id}:{index}", "reversed") != "reversed"

    def asset_withdrawals_stopped(self, asset_id: int) -> bool:
        with self.engine.begin() as c:
            return c.execute(sa.select(stopped).filter_by(asset_id=asset_id)).first() is not None

    async def stop_withdrawals(self, asset_id: int, reason: str) -> None:
        if not self.asset_withdrawals_stopped(asset_id):
            await self._run(lambda c: c.execute(sa.insert(stopped).values(asset_id=asset_id)))

    def _withdrawal(self, c: sa.Connection, withdrawal_id: int, before: str, after: str, attach: Attach) -> sa.Row:
        row = c.execute(sa.select(withdrawals).filter_by(id=withdrawal_id)).one()
        assert row.state == before, f"withdrawal {withdrawal_id} is {row.state}, not {before}"
        c.execute(sa.update(withdrawals).filter_by(id=withdrawal_id).values(state=after))
        attach(c)
        return row

    async def _outpoint(
        self, chain_id: int, tx_id: str, index: int, before: str, after: str, attach: Attach
    ) -> sa.Row:
        def work(c: sa.Connection) -> sa.Row:
            row = c.execute(sa.select(outpoints).filter_by(outpoint=f"{chain_id}:{tx_id}:{index}")).one()
            assert row.state == before, f"{row.outpoint} is {row.state}, not {before}"
            c.execute(sa.update(outpoints).filter_by(outpoint=row.outpoint).values(state=after))
            attach(c)
            return row

        return await self._run(work)

    async def _run(self, work: Callable[[sa.Connection], object]) -> object:
        return await asyncio.to_thread(self._in_transaction, work)

    def _in_transaction(self, work: Callable[[sa.Connection], object]) -> object:
        with self.engine.begin() as c:
            return work(c)

    def _post(
        self, c: sa.Connection, asset_id: int, atoms: int, debit: str, credit: str, *, overdraft: bool = False
    ) -> None:
        """Custody, held and fees are counted up by a debit; what we owe users and capital by a credit."""
        for account, change in ((debit, atoms), (credit, -atoms)):
            sign = -1 if account.startswith("user") or account in ("held", "capital") else 1
            old = c.scalar(sa.select(balances.c.atoms).filter_by(account=account, asset_id=asset_id))
            new = (old or 0) + sign * change
            assert new >= 0 or overdraft, f"{account} would hold {new} of asset {asset_id}"
            if old is None:
                c.execute(sa.insert(balances).values(account=account, asset_id=asset_id, atoms=new))
            else:
                c.execute(sa.update(balances).filter_by(account=account, asset_id=asset_id).values(atoms=new))
