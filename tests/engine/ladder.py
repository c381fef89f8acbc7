"""Accounts at the end of the liquidation ladder, one step at a time: what its tests stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from engine import margin
from engine.commands import FundCustody, FundInsurance
from engine.events import Outcome
from engine.state import ASSET_BITS, Liquidation, State, Subaccount
from ledger.chart import INSURANCE_FUND, AccountKind, kind_of
from ledger.invariants import RunningTotals
from ledger.journal import (
    GENESIS_HASH,
    JournalKind,
    JournalTransaction,
    decode_memo,
    encode_memo,
    residues,
    seal,
)
from tests.engine.perps import USDC, Member, Pit, cross
from tools.ladder_steps import OWNER, Again, Ladder, whole
from tools.parameters import Parameters

__all__ = ["Arena", "Member", "Pit", "cross", "entries", "is_whole", "parts", "recomputed"]


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


def recomputed(
    arena: Pit, alter: Callable[[int, list[Any]], None] = lambda _kind, _memo: None
) -> Iterator[tuple[int, Again | None]]:
    """(kind, what is computed again) of each step of the ladder, from the journal alone; `alter` tampers with it."""
    parameters = Parameters()
    parameters.assets = dict(arena.state.assets)
    parameters.markets = {number: each.parameters for number, each in arena.state.markets.items()}
    parameters.risk = arena.state.limits.risk
    ladder = Ladder(parameters)
    for outcome in arena.exchange.outcomes:
        said = []
        for entry in outcome.journal:
            if entry.kind in OWNER or entry.kind == JournalKind.LIQUIDATION_IMAGE:
                memo = whole(decode_memo(encode_memo(entry.memo)))
                alter(entry.kind, memo)
                said.append((entry.kind, memo))
        for place, (kind, memo) in enumerate(said):
            if kind == JournalKind.LIQUIDATION_IMAGE:
                ladder.note(memo)
            elif memo[OWNER[JournalKind(kind)]]:  # subaccount 0: what a fund does for itself
                yield kind, ladder.again(kind, memo, said[place + 1 :])


def is_whole(arena: Pit) -> bool:
    """Balances are what the journal adds up to, each transaction balances, every conservation check holds (Σ contracts,
    Σ cost and Σ unsettled are zero, pools and the liquidity fund agree), nobody's holding is below zero, and each step
    of the ladder can be computed again.   [A-1, A-13, L-10]
    """
    for kind, again in recomputed(arena):
        assert again is not None, f"a step of kind {JournalKind(kind).name} has no image"
        assert not again.differences_before + again.differences, (JournalKind(kind).name, again)
    state, totals = arena.state, RunningTotals()
    sums: dict[int, int] = {}
    sealed = []
    for outcome in arena.exchange.outcomes:
        for entry in outcome.journal:
            if residues(entry):
                return False
            postings = list(entry.postings)
            for batch in entry.batches:
                postings += batch.postings()
            for account, asset, atoms in postings:
                key = account << ASSET_BITS | asset
                sums[key] = sums.get(key, 0) + atoms
            sealed.append(seal(GENESIS_HASH, 1, 1, 1, entry))
    totals.add(sealed)
    if totals.violations():
        return False
    if {key: atoms for key, atoms in sums.items() if atoms} != {
        key: atoms for key, atoms in state.balances.items() if atoms
    }:
        return False
    holdings = (AccountKind.AVAILABLE, AccountKind.LENT)
    return not any(atoms > 0 for key, atoms in state.balances.items() if kind_of(key >> ASSET_BITS) in holdings)
