"""Accounts at the end of the liquidation ladder, one step at a time: what its tests stand on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from engine import margin
from engine.commands import FundCustody, FundInsurance
from engine.events import Outcome
from engine.state import ASSET_BITS, Liquidation, State, Subaccount
from ledger.chart import INSURANCE_FUND, AccountKind, contracts, cost, kind_of
from ledger.journal import JournalTransaction
from tests.engine.perps import USDC, Member, Pit, cross

__all__ = ["Arena", "Member", "Pit", "cross", "entries", "is_whole", "parts"]


Result = TypeVar("Result")


class Arena(Pit):
    """A pit in which single steps of the ladder are taken; every step's journal is kept with the commands'."""

    def step(
        self, function: Callable[[State, Outcome, Subaccount], Result], member: Member
    ) -> tuple[Result, Outcome]:
        """Take one step for an account in liquidation, as the liquidation's command would."""
        exchange = self.exchange
        exchange.at_us += 1
        outcome = Outcome(exchange.state.sequence, exchange.at_us)
        exchange.state.liquidations.setdefault(member.subaccount, Liquidation(exchange.at_us))
        result = function(exchange.state, outcome, member.account)
        exchange.outcomes.append(outcome)
        return result, outcome

    def insure(self, dollars: int) -> None:
        """The operator gives the insurance fund USDC."""
        exchange = self.exchange
        tx_id = f"funds{len(exchange.outcomes)}"
        exchange.do(FundCustody(1, tx_id, 0, exchange.asset("USDC"), dollars * USDC))
        exchange.do(FundInsurance(dollars * USDC))

    @property
    def insurance(self) -> int:
        return -self.balance(INSURANCE_FUND, "USDC")

    def e(self, member: Member) -> int:
        """E in USD (1e-8)."""
        return margin.realizable(self.state, member.account, self.exchange.at_us)


def entries(outcome: Outcome, kind: int) -> list[JournalTransaction]:
    return [entry for entry in outcome.journal if entry.kind == kind]


def parts(outcome: Outcome, kind: type) -> list[Any]:
    return [event for event in outcome.events if isinstance(event, kind)]


def is_whole(arena: Pit) -> bool:
    """Balances are what the journal adds up to, each transaction balances; per market Σ contracts = Σ cost = 0, and
    positions are their accounts; Σ unsettled = 0; nobody's holding is below zero.   [A-1, A-2, A-13]
    """
    state = arena.state
    sums: dict[int, int] = {}
    for outcome in arena.exchange.outcomes:
        for entry in outcome.journal:
            per_asset: dict[int, int] = {}
            postings = list(entry.postings)
            for batch in entry.batches:
                postings += batch.postings()
            for account, asset, atoms in postings:
                per_asset[asset] = per_asset.get(asset, 0) + atoms
                key = account << ASSET_BITS | asset
                sums[key] = sums.get(key, 0) + atoms
            if any(per_asset.values()):
                return False
    if {key: atoms for key, atoms in sums.items() if atoms} != {
        key: atoms for key, atoms in state.balances.items() if atoms
    }:
        return False
    totals: dict[int, int] = {}
    unsettled = 0
    for key, atoms in state.balances.items():
        account, asset = key >> ASSET_BITS, key & ((1 << ASSET_BITS) - 1)
        totals[asset] = totals.get(asset, 0) + atoms
        kind = kind_of(account)
        if kind in (AccountKind.AVAILABLE, AccountKind.LENT) and atoms > 0:
            return False
        if kind in (AccountKind.UNSETTLED, AccountKind.INSURANCE_UNSETTLED, AccountKind.ROUNDING_UNSETTLED):
            unsettled += atoms
    of_markets = [totals.get(name(number), 0) for number in state.markets for name in (contracts, cost)]
    return not any(of_markets) and not unsettled
