"""Conservation, checked at every block from running totals that the block's postings change.   [A-13]"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ledger.chart import CHART, OWNER_BITS, AccountKind, AssetId
from ledger.journal import SealedTransaction

_DEBIT_ONLY = frozenset({AccountKind.CUSTODY, AccountKind.RECEIVABLE, AccountKind.NETWORK_FEES})
"""Kinds whose total never goes below zero: there is no negative coin in a wallet."""

_CREDIT_ONLY = frozenset(
    {AccountKind.AVAILABLE, AccountKind.WITHDRAWING, AccountKind.DEPOSIT_DUST, AccountKind.UNATTRIBUTED}
)
"""Kinds whose total never goes above zero: the exchange owes, it is not owed, on a user's account."""


class ConservationError(Exception):
    """A conservation check failed: the sequencer stops rather than publish.   [A-13]"""


class RunningTotals:
    """Signed totals per (account kind, asset) over the whole journal."""

    def __init__(self, totals: Mapping[tuple[int, AssetId], int] | None = None) -> None:
        self.totals: dict[tuple[int, AssetId], int] = dict(totals or {})

    def add(self, journal: Iterable[SealedTransaction]) -> None:
        """Count these transactions in."""
        totals = self.totals
        for entry in journal:
            for account, asset, atoms in entry.postings:
                key = (account >> OWNER_BITS, asset)
                totals[key] = totals.get(key, 0) + atoms
            for batch in entry.batches:
                key = (batch.account_kind, batch.asset)
                totals[key] = totals.get(key, 0) + batch.total

    def violations(self) -> list[str]:
        """What does not hold, in words; empty when all does.   [A-13]"""
        found: list[str] = []
        by_asset: dict[AssetId, int] = {}
        for (kind, asset), atoms in self.totals.items():
            by_asset[asset] = by_asset.get(asset, 0) + atoms
            if kind not in CHART:
                found.append(f"asset {asset}: {atoms} atoms on accounts of unknown kind {kind}")
            elif (kind in _DEBIT_ONLY and atoms < 0) or (kind in _CREDIT_ONLY and atoms > 0):
                name = CHART[kind].name.format("*")
                found.append(f"asset {asset}: {name} is at {atoms} atoms, on the wrong side of zero")
        for asset, atoms in by_asset.items():
            if atoms:
                found.append(f"asset {asset}: postings sum to {atoms} atoms, expected 0")
        return found

    def require(self) -> None:
        """Raises ConservationError unless every check holds."""
        found = self.violations()
        if found:
            raise ConservationError("; ".join(found))
