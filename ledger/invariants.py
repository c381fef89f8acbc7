"""Conservation, checked at every block from running totals that the block's postings change.   [A-13]"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ledger.chart import CHART, OWNER_BITS, SHARE_BITS, AccountKind, AssetId, debt_share, lend_share
from ledger.journal import SealedTransaction

_DEBIT_ONLY = frozenset(
    {
        AccountKind.CUSTODY,
        AccountKind.RECEIVABLE,
        AccountKind.STAKED,
        AccountKind.POOL_BORROWED,
        AccountKind.BORROWED,
        AccountKind.NETWORK_FEES,
    }
)
"""Kinds whose total never goes below zero: there is no negative coin in a wallet, and no negative debt."""

_CREDIT_ONLY = frozenset(
    {
        AccountKind.AVAILABLE,
        AccountKind.WITHDRAWING,
        AccountKind.LENT,
        AccountKind.DEPOSIT_DUST,
        AccountKind.UNATTRIBUTED,
        AccountKind.POOL_LENT,
        AccountKind.POOL_YIELD,
        AccountKind.POOL_FEES,
    }
)
"""Kinds whose total never goes above zero: the exchange owes, it is not owed, on a user's account."""

_SHARE_KINDS: dict[int, tuple[AssetId, ...]] = {
    AccountKind.LENT: (lend_share(0),),
    AccountKind.BORROWED: (debt_share(0),),
    AccountKind.POOL_SHARES: (lend_share(0), debt_share(0)),
}
"""The shares that a kind of account holds; every other kind holds atoms.   [A-2]"""

_ATOMS = (0,)

_POOL_KINDS = (AccountKind.POOL_LENT, AccountKind.POOL_BORROWED, AccountKind.POOL_FEES, AccountKind.STAKED)


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
                continue
            share = asset >> SHARE_BITS << SHARE_BITS
            if atoms and share not in _SHARE_KINDS.get(kind, _ATOMS):
                name = CHART[kind].name.format("*")
                found.append(f"asset {asset}: {name} is at {atoms}, and is no account for that asset")
            elif (kind in _DEBIT_ONLY and atoms < 0) or (kind in _CREDIT_ONLY and atoms > 0):
                name = CHART[kind].name.format("*")
                found.append(f"asset {asset}: {name} is at {atoms} atoms, on the wrong side of zero")
        for asset, atoms in by_asset.items():
            if atoms:
                found.append(f"asset {asset}: postings sum to {atoms} atoms, expected 0")
        for asset in dict.fromkeys(asset for kind, asset in self.totals if kind in _POOL_KINDS):
            found += self._pool_violations(asset)
        return found

    def _pool_violations(self, asset: AssetId) -> list[str]:
        """What does not hold in the asset's money market.   [B-14]"""
        total = self.totals.get
        lent, fees = -total((AccountKind.POOL_LENT, asset), 0), -total((AccountKind.POOL_FEES, asset), 0)
        borrowed, staked = total((AccountKind.POOL_BORROWED, asset), 0), total((AccountKind.STAKED, asset), 0)
        lend_shares = -total((AccountKind.LENT, lend_share(asset)), 0)
        debt_shares = total((AccountKind.BORROWED, debt_share(asset)), 0)
        found = []
        if lent + fees - borrowed - staked < 0:
            found.append(
                f"asset {asset}: {lent} atoms lent and {fees} of fees do not cover {borrowed} borrowed, {staked} staked"
            )
        if lent and not lend_shares:
            found.append(f"asset {asset}: {lent} atoms are lent, and nobody has a share of them")
        if borrowed and not debt_shares:
            found.append(f"asset {asset}: {borrowed} atoms are borrowed, and nobody has a share of the debt")
        return found

    def require(self) -> None:
        """Raises ConservationError unless every check holds."""
        found = self.violations()
        if found:
            raise ConservationError("; ".join(found))
