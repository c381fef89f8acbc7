"""Conservation, checked at every block from running totals that the block's postings change.   [A-13]"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ledger.chart import (
    CHART,
    OWNER_BITS,
    SHARE_BITS,
    AccountKind,
    AssetId,
    claim_debt,
    claim_lend,
    contracts,
    cost,
    debt_share,
    external_custody,
    external_owed,
    is_of_amm,
    is_of_market,
    lend_share,
    market_of,
    native_custody,
    native_owed,
    pool_of,
    pool_units,
)
from ledger.journal import SealedTransaction

_DEBIT_ONLY = frozenset(
    {
        AccountKind.CUSTODY,
        AccountKind.RECEIVABLE,
        AccountKind.STAKED,
        AccountKind.POOL_BORROWED,
        AccountKind.BORROWED,
        AccountKind.AMM_DEBT,
        AccountKind.NETWORK_FEES,
    }
)
"""Kinds whose total never goes below zero: there is no negative coin in a wallet, and no negative debt."""

_CREDIT_ONLY = frozenset(
    {
        AccountKind.AVAILABLE,
        AccountKind.WITHDRAWING,
        AccountKind.LENT,
        AccountKind.AMM_UNITS,
        AccountKind.AMM_CUSTODY,
        AccountKind.AMM_POOL,
        AccountKind.AMM_FUND,
        AccountKind.DEPOSIT_DUST,
        AccountKind.UNATTRIBUTED,
        AccountKind.POOL_LENT,
        AccountKind.POOL_YIELD,
        AccountKind.POOL_FEES,
        AccountKind.INSURANCE_FUND,
        AccountKind.BACKSTOP_FUND,
        AccountKind.INSURANCE_UNSETTLED,
    }
)
"""Kinds whose total never goes above zero: the exchange owes, it is not owed, on a user's account."""

_ATOMS, _LEND, _DEBT = 0, lend_share(0), debt_share(0)
_CONTRACTS, _COST, _CLAIM_LEND, _CLAIM_DEBT = contracts(0), cost(0), claim_lend(0), claim_debt(0)
_UNITS, _NATIVE_CUSTODY, _EXTERNAL_CUSTODY = pool_units(0), native_custody(0), external_custody(0)
_NATIVE_OWED, _EXTERNAL_OWED = native_owed(0), external_owed(0)

_CLASSES: dict[int, tuple[AssetId, ...]] = {
    AccountKind.LENT: (_LEND,),
    AccountKind.BORROWED: (_DEBT,),
    AccountKind.POOL_SHARES: (_LEND, _DEBT),
    AccountKind.POSITION: (_CONTRACTS, _COST),
    AccountKind.CLAIM: (_CLAIM_LEND, _CLAIM_DEBT),
    AccountKind.LIQUIDITY_FUND: (_LEND, _DEBT, _CLAIM_LEND, _CLAIM_DEBT),
    AccountKind.INSURANCE_FUND: (_ATOMS, _LEND),
    AccountKind.BACKSTOP_FUND: (_ATOMS, _LEND),
    AccountKind.ROUNDING: (_ATOMS, _COST),
    AccountKind.AMM_UNITS: (_UNITS,),
    AccountKind.AMM_CUSTODY: (_NATIVE_CUSTODY, _EXTERNAL_CUSTODY),
    AccountKind.AMM_DEBT: (_NATIVE_OWED, _EXTERNAL_OWED),
    AccountKind.AMM_BOOK: (_UNITS, _NATIVE_CUSTODY, _EXTERNAL_CUSTODY, _NATIVE_OWED, _EXTERNAL_OWED),
}
"""What a kind of account holds: shares, contracts, their cost, claims, units, custody, debts; every other kind holds
atoms alone.   [A-2]
"""

_SIDES: dict[tuple[int, AssetId], int] = {
    (AccountKind.CLAIM, _CLAIM_LEND): -1,
    (AccountKind.CLAIM, _CLAIM_DEBT): 1,
    (AccountKind.LIQUIDITY_FUND, _LEND): -1,
    (AccountKind.LIQUIDITY_FUND, _DEBT): 1,
    (AccountKind.LIQUIDITY_FUND, _CLAIM_LEND): 1,
    (AccountKind.LIQUIDITY_FUND, _CLAIM_DEBT): -1,
    (AccountKind.AMM_BOOK, _UNITS): 1,
    (AccountKind.AMM_BOOK, _NATIVE_CUSTODY): 1,
    (AccountKind.AMM_BOOK, _EXTERNAL_CUSTODY): 1,
    (AccountKind.AMM_BOOK, _NATIVE_OWED): -1,
    (AccountKind.AMM_BOOK, _EXTERNAL_OWED): -1,
}
"""Kinds whose side depends on what they hold: 1 debits, -1 credits. Winners are owed, losers owe; a liquidity pool's
book is the other side of its users'.   [V-1, V-2, X-14]
"""

_POOL_KINDS = frozenset(
    {AccountKind.POOL_LENT, AccountKind.POOL_BORROWED, AccountKind.POOL_FEES, AccountKind.STAKED}
)
_UNSETTLED_KINDS = (AccountKind.UNSETTLED, AccountKind.INSURANCE_UNSETTLED, AccountKind.ROUNDING_UNSETTLED)
_COST_KINDS = (AccountKind.POSITION, AccountKind.ROUNDING)
_FUND_KINDS = frozenset({AccountKind.LIQUIDITY_FUND, AccountKind.CLAIM})
_FUND_LENDS = (AccountKind.LIQUIDITY_FUND, _LEND >> SHARE_BITS), (AccountKind.CLAIM, _CLAIM_LEND >> SHARE_BITS)
_FUND_OWES = (AccountKind.LIQUIDITY_FUND, _DEBT >> SHARE_BITS), (AccountKind.CLAIM, _CLAIM_DEBT >> SHARE_BITS)
"""What must be equal: the fund's shares in the pool, and the shares of it that its users hold or owe.   [V-5]"""


def _side(kind: int, family: AssetId) -> int:
    return _SIDES.get((kind, family)) or (1 if kind in _DEBIT_ONLY else -1 if kind in _CREDIT_ONLY else 0)


_RULES: dict[tuple[int, int], int] = {
    (int(kind), family >> SHARE_BITS): _side(kind, family) for kind in CHART for family in _CLASSES.get(kind, (_ATOMS,))
}
"""(Kind, class of what it holds) → the side that its total may be on, 0: either. What is not here may not be."""


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
        pools: dict[AssetId, None] = {}
        fund: dict[tuple[int, int], int] = {}
        for (kind, asset), atoms in self.totals.items():
            by_asset[asset] = by_asset.get(asset, 0) + atoms
            side = _RULES.get((kind, asset >> SHARE_BITS))
            if side is None:
                if kind not in CHART:
                    found.append(f"asset {asset}: {atoms} atoms on accounts of unknown kind {kind}")
                elif atoms:
                    name = CHART[kind].name.format("*")
                    found.append(f"asset {asset}: {name} is at {atoms}, and is no account for that asset")
            elif atoms * side < 0:
                name = CHART[kind].name.format("*")
                found.append(f"asset {asset}: {name} is at {atoms} atoms, on the wrong side of zero")
            if kind in _POOL_KINDS:
                pools[asset] = None
            elif kind in _FUND_KINDS:
                key = kind, asset >> SHARE_BITS
                fund[key] = fund.get(key, 0) + atoms
        for asset, atoms in by_asset.items():
            if atoms:
                found.append(f"asset {asset}: postings sum to {atoms} atoms, expected 0")
        for asset in pools:
            found += self._pool_violations(asset)
        for asset in by_asset:
            if asset >> SHARE_BITS == 0:
                found += self._unsettled_violations(asset)
            elif is_of_market(asset):
                found += self._market_violations(asset)
        found += self._amm_violations(by_asset)
        for (own, claims), does in ((_FUND_LENDS, "lends"), (_FUND_OWES, "owes")):
            held, claimed = fund.get(own, 0), fund.get(claims, 0)
            if held != claimed:
                found.append(f"the liquidity fund {does} {abs(held)} shares, its users' claims are {abs(claimed)}")
        return found

    def _pool_violations(self, asset: AssetId) -> list[str]:
        """What does not hold in the asset's money market.   [B-14]"""
        total = self.totals.get
        lent, fees = -total((AccountKind.POOL_LENT, asset), 0), -total((AccountKind.POOL_FEES, asset), 0)
        borrowed, staked = total((AccountKind.POOL_BORROWED, asset), 0), total((AccountKind.STAKED, asset), 0)
        # Users' shares, the liquidity fund's and the insurance fund's: all that the pool has given.
        lend_shares = total((AccountKind.POOL_SHARES, lend_share(asset)), 0)
        debt_shares = -total((AccountKind.POOL_SHARES, debt_share(asset)), 0)
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

    def _unsettled_violations(self, asset: AssetId) -> list[str]:
        """Σ unsettled equity = 0, what the insurance fund advanced and what roundings left included.   [A-13, S-13]"""
        waiting = sum([self.totals.get((kind, asset), 0) for kind in _UNSETTLED_KINDS])
        return [f"asset {asset}: unsettled equity sums to {waiting} atoms, expected 0"] if waiting else []

    def _market_violations(self, asset: AssetId) -> list[str]:
        """Σ quantity = 0 and Σ cost = 0 per perpetual market, what roundings left included.   [A-13, S-10]"""
        market = market_of(asset)
        if asset == contracts(market):
            quantity = self.totals.get((AccountKind.POSITION, asset), 0)
            if quantity:
                return [f"market {market}: positions sum to {quantity} atoms, longs are not shorts"]
        elif asset == cost(market):
            costs = sum([self.totals.get((kind, asset), 0) for kind in _COST_KINDS])
            if costs:
                return [f"market {market}: the costs of positions sum to {costs} atoms, expected 0"]
        return []

    def _amm_violations(self, asset_ids: Iterable[AssetId]) -> list[str]:
        """Liquidity pools have the coins that they keep for positions, of the native asset all pools together.   [X-14]

        That users' units, custody and debts are what the pools' books say is Σ postings = 0 of each. Pool by pool coins
        are compared by the engine, and by the epoch's recount.
        """
        total = self.totals.get
        pools = {pool_of(asset): None for asset in asset_ids if is_of_amm(asset)}
        found: list[str] = []
        if not pools:
            return found
        natives = kept_native = 0
        for kind, asset in self.totals:
            if kind == AccountKind.AMM_POOL and asset not in pools:
                natives -= self.totals[kind, asset]
        for pool in pools:
            kept_native -= total((AccountKind.AMM_CUSTODY, native_custody(pool)), 0)
            coins = -total((AccountKind.AMM_POOL, pool), 0)
            kept = -total((AccountKind.AMM_CUSTODY, external_custody(pool)), 0)
            if coins < kept:
                found.append(f"liquidity pool {pool}: {coins} atoms are there, {kept} are in custody for positions")
        if natives < kept_native:
            found.append(
                f"liquidity pools: {natives} native atoms are there, {kept_native} are in custody for positions"
            )
        return found

    def require(self) -> None:
        """Raises ConservationError unless every check holds."""
        found = self.violations()
        if found:
            raise ConservationError("; ".join(found))
