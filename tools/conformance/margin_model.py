"""The original's margin module with its three quirks as switches: what proves that a difference is one of them.  [X-15]

With all of them on a step must give the vector's state from the vector's state; with all off, ours. What it does in
which order is the original's; the arithmetic is `engine.formulas.pools`, which the vectors of single functions pin.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from engine.formulas import pools
from engine.formulas.pools import Swapped
from engine.parameters import DEC
from tools.conformance import original
from tools.conformance.image import FUND, MODULE, Image, Side, Terms, order

Position = dict[str, Any]


class Quirks(NamedTuple):
    float_rate: bool
    """The interest rate goes through a float64."""
    unpaid_twice: bool
    """A payment adds unpaid interest to a due that has it already."""
    surcharge: bool
    """The rate's surcharge after the clamp."""


THEIRS = Quirks(True, True, True)
NONE = Quirks(False, False, False)


class Refused(Exception):
    """The original ends a message with an error."""


class Model:
    """One pool of the original from some state on; `image` is what became of it."""

    def __init__(self, image: Image, terms: Terms, quirks: Quirks, surcharge_from: int = 0) -> None:
        self.image = image.copy()
        self.terms = terms
        self.quirks = quirks
        self.surcharge_from = surcharge_from
        """The block since which the pool's health is at or below the removal threshold; 0: it is not."""

    def open(self, owner: str, native: bool, atoms: int, leverage: int, number: int) -> None:
        """OpenLong, in the original's order of checks. Raises Refused."""
        pool, terms = self.image.pool, self.terms
        side, other = _sides(native)
        _require(len(self.image.positions) < terms.max_positions, "max open positions")
        _require(pool["health"] > terms.open_threshold, "pool health too low")
        _require(not native or terms.takes_native_collateral, "rowan as collateral")
        leverage = min(leverage, terms.leverage_max)
        loan = pools.loan_for(atoms, leverage)
        _require(loan.size <= pool[f"{side}_asset_balance"], "borrowed amount is higher than pool depth")
        minimum = original.minimum_interest(self._rate(terms.rate_min), loan.liabilities)
        _require(minimum > 0, "borrowed amount is too low")
        self._quote(native, minimum)
        custody = self._quote(native, loan.size)
        _require(custody <= pool[f"{other}_asset_balance"], "custody is higher than pool depth")
        held = self.image.coins[owner]
        _require(atoms <= (held.native if native else held.external), "balance")
        health = pools.position_health(self._quote(not native, custody), loan.liabilities, 0)
        pool[f"{side}_asset_balance"] += atoms
        pool[f"{side}_liabilities"] += loan.liabilities
        self._measure()
        pool[f"{other}_asset_balance"] -= custody
        pool[f"{other}_custody"] += custody
        after = pools.position_health(self._quote(not native, custody), loan.liabilities, 0)
        _require(after > terms.safety_factor, "unhealthy")
        self._pay(owner, MODULE, native, atoms)
        self.image.positions.append(
            {
                "id": number, "owner": owner, "is_native": native, "collateral_amount": atoms,
                "liabilities": loan.liabilities, "custody_amount": custody, "leverage": leverage,
                "mtp_health": health, "interest_paid_collateral": 0, "interest_paid_custody": 0,
                "interest_unpaid_collateral": 0,
            }
        )  # fmt: skip
        self.image.positions.sort(key=order)

    def close(self, number: int, height: int) -> int:
        """CloseLong by its owner; gives the amount that custody was swapped back to. Raises Refused."""
        position = next((each for each in self.image.positions if each["id"] == number), None)
        if position is None:
            raise Refused("mtp not found")
        return self._close(position, height, is_forced=False)

    def begin_block(self, height: int, told_rate: int | None = None) -> list[int]:
        """An epoch, if one begins: rate, health, interest, forced closes; gives their ids.

        The surcharge is a float power: `told_rate` is taken for the rate where it is that within what a float is known.
        """
        if height % self.terms.epoch_length:
            return []
        pool, forced = self.image.pool, []
        pool["block_interest_native"] = pool["block_interest_external"] = 0
        self._move_rate(height, told_rate)
        self._measure()
        threshold = self.terms.removal_threshold
        self.surcharge_from = original.surcharge_begins(self.surcharge_from, pool["health"], threshold, height)
        for position in list(self.image.positions):
            try:
                self._update_health(position)
            except Refused:
                continue
            self._charge(position, self._due(position, 0))
            try:
                self._close(position, height, is_forced=True)
            except Refused:
                continue
            forced.append(position["id"])
        return forced

    def swap(self, from_native: bool, atoms: int) -> int:
        """SwapOne by somebody outside; gives what is received. Raises Refused."""
        received = self._swapped(from_native, atoms)
        paid, got = _sides(from_native)
        _require(received.received < self.image.pool[f"{got}_asset_balance"], "not enough received asset tokens")
        self.image.pool[f"{paid}_asset_balance"] += atoms
        self.image.pool[f"{got}_asset_balance"] -= received.received
        self._give(MODULE, from_native, atoms)
        self._give(MODULE, not from_native, -received.received)
        return received.received

    def _close(self, position: Position, height: int, is_forced: bool) -> int:
        native = position["is_native"]
        side, other = _sides(native)
        pool, before = self.image.pool, self.image.copy()
        place = height % self.terms.epoch_length
        try:
            if place:
                self._charge(position, self._due(position, place))
                self._update_health(position)
            _require(not is_forced or position["mtp_health"] <= self.terms.safety_factor, "healthy")
            pool[f"{other}_asset_balance"] += position["custody_amount"]
            pool[f"{other}_custody"] -= position["custody_amount"]
            proceeds = self._quote(not native, position["custody_amount"])
        except Refused:
            self.image.pool.update(before.pool)
            self.image.coins.update(before.coins)
            position.update(next(each for each in before.positions if each["id"] == position["id"]))
            raise
        owed, unpaid = position["liabilities"], position["interest_unpaid_collateral"]
        left = pools.repayment(proceeds, owed, unpaid)
        to_fund = pools.fund_share(left.returned, self.terms.close_fund_share) if is_forced else 0
        self._pay(MODULE, FUND, native, to_fund)
        self._pay(MODULE, position["owner"], native, left.returned - to_fund)
        pool[f"{side}_asset_balance"] -= left.returned
        pool[f"{side}_liabilities"] -= owed
        pool[f"unsettled_{side}_liabilities"] += left.principal_missing + left.interest_missing
        self.image.positions.remove(position)
        return proceeds

    def _charge(self, position: Position, due: int) -> None:
        """HandleInterestPayment: out of custody by a quote, or left unpaid; one that cannot be quoted is forgiven."""
        if not self.terms.pays_each_epoch:
            position["interest_unpaid_collateral"] = due
            return
        native = position["is_native"]
        _, other = _sides(native)
        payment = due + (position["interest_unpaid_collateral"] if self.quirks.unpaid_twice else 0)
        try:
            taken, unpaid = self._quote(native, payment), 0
            if taken > position["custody_amount"]:
                taken = position["custody_amount"]
                worth = self._quote(not native, taken)
                payment, unpaid = worth, max(0, payment - worth)
        except Refused:
            return
        to_fund = pools.fund_share(taken, self.terms.interest_fund_share)
        position["interest_unpaid_collateral"] = unpaid
        position["interest_paid_collateral"] += payment
        position["interest_paid_custody"] += taken
        position["custody_amount"] -= taken
        self._pay(MODULE, FUND, not native, to_fund)
        pool = self.image.pool
        pool[f"{other}_custody"] -= taken
        pool[f"{other}_asset_balance"] += taken - to_fund
        pool[f"block_interest_{other}"] += taken - to_fund

    def _due(self, position: Position, place: int) -> int:
        return original.interest_due(
            self._rate(self.image.pool["interest_rate"]), position["liabilities"],
            position["interest_unpaid_collateral"], place, self.terms.epoch_length,
        )  # fmt: skip

    def _move_rate(self, height: int, told_rate: int | None) -> None:
        pool, terms = self.image.pool, self.terms
        rate = pools.next_rate(
            terms.gain_factor, *self._balances(), pool["interest_rate"], terms.rate_increase, terms.rate_decrease,
            terms.rate_min, terms.rate_max,
        )  # fmt: skip
        if rate is None:
            raise Refused("an empty side halts the chain")
        if self.quirks.surcharge and self.surcharge_from:
            blocks = height - self.surcharge_from
            if told_rate is not None and original.is_surcharge(told_rate - rate, terms.rate_max, rate, blocks):
                rate = told_rate
            else:
                rate += original.surcharges(terms.rate_max, rate, blocks)[0]
        pool["interest_rate"] = rate

    def _update_health(self, position: Position) -> None:
        native = position["is_native"]
        owed, unpaid = position["liabilities"], position["interest_unpaid_collateral"]
        proceeds = self._quote(not native, position["custody_amount"]) if owed else 0
        position["mtp_health"] = pools.position_health(proceeds, owed, unpaid)

    def _measure(self) -> None:
        self.image.pool["health"] = pools.pool_health(*self._balances())

    def _balances(self) -> tuple[int, int, int, int]:
        pool = self.image.pool
        return (
            pool["native_asset_balance"], pool["external_asset_balance"],
            pool["native_liabilities"], pool["external_liabilities"],
        )  # fmt: skip

    def _rate(self, rate: int) -> Fraction:
        return original.float_rate(rate) if self.quirks.float_rate else Fraction(rate, DEC)

    def _quote(self, native_paid: bool, atoms: int) -> int:
        """CLPSwap: refused when it gives nothing or as much as there is."""
        received = self._swapped(native_paid, atoms).received
        _require(received < self.image.pool[f"{_sides(native_paid)[1]}_asset_balance"], "not enough received asset")
        _require(received > 0, "Tx amount is too low")
        return received

    def _swapped(self, native_paid: bool, atoms: int) -> Swapped:
        native, external, native_owed, external_owed = self._balances()
        into, out = native + native_owed, external + external_owed
        if not native_paid:
            into, out = out, into
        return pools.swap(into, out, atoms, self.terms.fee_rate, self.terms.running_rate, not native_paid)

    def _pay(self, payer: str, payee: str, native: bool, atoms: int) -> None:
        self._give(payer, native, -atoms)
        self._give(payee, native, atoms)

    def _give(self, name: str, native: bool, atoms: int) -> None:
        held = self.image.coins.get(name, Side(0, 0))
        moved = Side(held.native + atoms, held.external) if native else Side(held.native, held.external + atoms)
        self.image.coins[name] = moved


def _sides(native: bool) -> tuple[str, str]:
    return ("native", "external") if native else ("external", "native")


def _require(is_met: bool, error: str) -> None:
    if not is_met:
        raise Refused(error)
