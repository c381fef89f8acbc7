"""A money market in a few lines, for the tests of what follows it: rule B-4 with the engine's own formulas, and events.

Keeps every claim and debt itself, so that what the history says can be held against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.events import LendingEvent, LendingMoved, LendingSource, PoolAccrued
from engine.formulas import lending

RATE = lending.RATE_ONE // 10
"""10 % a year, whatever the utilization."""
FEE = 10**8
"""A tenth of the interest."""
HOUR_MS = 3_600_000


@dataclass
class Position:
    subaccount_id: int
    position_id: int
    is_debt: bool
    shares: int = 0
    flow: int = 0
    """Lent less redeemed, borrowed less repaid."""


@dataclass
class MoneyMarket:
    asset_id: int
    now_ms: int
    lent: int = 0
    borrowed: int = 0
    fees: int = 0
    lend_shares: int = 0
    debt_shares: int = 0
    next_position_id: int = 1
    positions: dict[int, Position] = field(default_factory=dict)
    """Every position that there ever was, by id."""
    _open: dict[tuple[int, bool], Position] = field(default_factory=dict)
    _carry: int = 0
    _fee_carry: int = 0

    def accrue(self, ms: int) -> None:
        accrued = lending.accrue(self.borrowed, RATE, ms, self._carry, FEE, self._fee_carry)
        self.borrowed += accrued.interest
        self.fees += accrued.fee
        self.lent += accrued.interest - accrued.fee
        self._carry, self._fee_carry = accrued.carry, accrued.fee_carry
        self.now_ms += ms

    def hour(self) -> PoolAccrued:
        assert self.now_ms % HOUR_MS == 0
        return PoolAccrued(
            self.asset_id, self.now_ms // HOUR_MS, self.lent, self.borrowed, self.fees,
            str(self.lend_shares), str(self.debt_shares), RATE, FEE,
        )

    def worth(self, position: Position) -> int:
        if position.is_debt:
            return lending.debt_atoms(position.shares, self.borrowed, self.debt_shares)
        return lending.claim_atoms(position.shares, self.lent, self.lend_shares)

    def lend(self, subaccount_id: int, atoms: int, source: LendingSource = LendingSource.MANUAL) -> LendingMoved:
        position = self._position(subaccount_id, is_debt=False)
        shares = lending.lend_mint(atoms, self.lent, self.lend_shares)
        self.lent, self.lend_shares = self.lent + atoms, self.lend_shares + shares
        return self._moved(position, LendingEvent.LEND, source, atoms, atoms, shares)

    def redeem(self, subaccount_id: int, atoms: int, source: LendingSource = LendingSource.MANUAL) -> LendingMoved:
        position = self._position(subaccount_id, is_debt=False)
        shares = lending.redeem_burn(atoms, self.lent, self.lend_shares)
        if atoms == self.worth(position):
            shares = position.shares
        self.lent, self.lend_shares = self.lent - atoms, self.lend_shares - shares
        return self._moved(position, LendingEvent.LEND_REDEEM, source, atoms, -atoms, -shares)

    def borrow(self, subaccount_id: int, atoms: int, source: LendingSource = LendingSource.MANUAL) -> LendingMoved:
        position = self._position(subaccount_id, is_debt=True)
        shares = lending.borrow_mint(atoms, self.borrowed, self.debt_shares)
        self.borrowed, self.debt_shares = self.borrowed + atoms, self.debt_shares + shares
        return self._moved(position, LendingEvent.BORROW, source, atoms, atoms, shares)

    def repay(self, subaccount_id: int, atoms: int, source: LendingSource = LendingSource.MANUAL) -> LendingMoved:
        position = self._position(subaccount_id, is_debt=True)
        shares = lending.repay_burn(atoms, self.borrowed, self.debt_shares)
        if atoms == self.worth(position):
            shares = position.shares
        self.borrowed, self.debt_shares = self.borrowed - atoms, self.debt_shares - shares
        return self._moved(position, LendingEvent.BORROW_REPAY, source, atoms, -atoms, -shares)

    def owned(self, subaccount_id: int, *, is_debt: bool) -> int:
        """What the subaccount's claim or debt is worth now."""
        position = self._open.get((subaccount_id, is_debt))
        return 0 if position is None else self.worth(position)

    def _position(self, subaccount_id: int, *, is_debt: bool) -> Position:
        position = self._open.get((subaccount_id, is_debt))
        if position is None:
            position = Position(subaccount_id, self.next_position_id, is_debt)
            self._open[subaccount_id, is_debt] = self.positions[self.next_position_id] = position
            self.next_position_id += 1
        return position

    def _moved(
        self, position: Position, event: LendingEvent, source: LendingSource, atoms: int, flow: int, shares: int
    ) -> LendingMoved:
        position.shares += shares
        position.flow += flow
        if not position.shares:
            del self._open[position.subaccount_id, position.is_debt]
        return LendingMoved(
            position.subaccount_id, self.asset_id, event, source, atoms, self.worth(position), position.position_id,
            0, str(position.shares),
        )
