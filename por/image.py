"""What an epoch is built from: plain data that the caller takes from the ledger at one block.   [R-1]"""

from __future__ import annotations

from typing import Literal

import msgspec

HOUR_US = 3_600_000_000

ReserveKind = Literal["custody", "staked", "in_flight_deposit", "in_flight_withdrawal"]


class Account(msgspec.Struct, frozen=True):
    """One subaccount: `amounts` are unsigned integers in the order of `Image.columns`.   [R-2]

    `detail` is canonical JSON (see `por.canonical.canonical_json`) of the lines that cannot be added up, e.g. status.
    """

    subaccount_id: int
    user_id: int
    amounts: list[int]
    detail: str = "{}"


class Price(msgspec.Struct, frozen=True):
    """One asset's index price, an integer on the ledger's price scale, as the engine held it at `at_us`."""

    asset: str
    price: int
    at_us: int


class TrialLine(msgspec.Struct, frozen=True):
    """The trial balance's total of one type of user account in one asset, and the columns that show it.   [R-6]

    `atoms` is signed as in the ledger (debits positive), so what users are owed is negative here and
    Σ of `columns` must equal −atoms.
    """

    account_type: str
    asset: str
    columns: list[str]
    atoms: int


class ReserveLine(msgspec.Struct, frozen=True):
    """What the exchange holds of one asset in one place, in atoms; transfers in flight have own lines.   [R-12]"""

    asset: str
    kind: ReserveKind
    where: str
    atoms: int


class PoolLine(msgspec.Struct, frozen=True, kw_only=True):
    """One asset's money market: its totals in atoms as the ledger has them, its shares, how many hold some.   [B-14]

    The leaves' columns `ASSET.lent`, `ASSET.borrowed` and `ASSET.uncollected_yield` are shown by this line, not by the
    trial balance: each claim is rounded down and each debt up, so their sums differ from the totals by dust.   [B-4]
    """

    asset: str
    lent: int
    borrowed: int
    fees: int
    staked: int
    yields: int
    """Received for lenders and not collected by them.   [Y-3]"""
    lend_shares: int
    debt_shares: int
    lenders: int
    borrowers: int

    @property
    def idle(self) -> int:
        """What is there to redeem and to borrow.   [B-14]"""
        return self.lent + self.fees - self.borrowed - self.staked


class MarketLine(msgspec.Struct, frozen=True, kw_only=True):
    """One perpetual market: what its positions are valued by, and the ledger's totals over all users.   [R-6, V-5]

    The leaves' columns `MARKET.long` and `.short` (base atoms), `.cost_plus` and `_minus`, `.pnl_plus` and `_minus`,
    `.claim_plus` and `_minus` (quote atoms) are shown by this line.
    """

    market: str
    base: str
    quote: str
    lot: int
    """Base atoms of a lot; a position is a whole number of them."""
    mark: int
    """Quote atoms per lot; 0 while there is none."""
    settled: int
    """The mark of the last settlement tick, in quote atoms per lot.   [S-10]"""
    cost: int
    """Users' accounts of cost together, debits positive.   [A-2]"""
    claim_lend: int
    """Shares in the quote asset's pool that the liquidity fund holds for winners, `winners` of them.   [V-2]"""
    claim_debt: int
    winners: int
    losers: int


class AmmLine(msgspec.Struct, frozen=True, kw_only=True):
    """One liquidity pool of the native asset and an external one, in atoms of either: what the exchange reckons with.

    A side's coins are its balance and what is kept for positions (`custody`); `owed` is what positions owe it, interest
    left out, and no coin. Units are counted as the native asset is. The leaves' columns `EXTERNAL.amm_units`,
    `.amm_native_custody`, `.amm_external_custody`, `.amm_native_owed` and `.amm_external_owed` are shown by this line.
    [R-2, R-6, X-14]
    """

    pool: str
    """The external asset's symbol."""
    native: str
    native_balance: int
    external_balance: int
    native_custody: int
    external_custody: int
    native_owed: int
    external_owed: int
    units: int
    native_fund: int
    """The pool's own fund, which covers bad debts before the providers do: nobody is owed it.   [X-12]"""
    external_fund: int


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """The whole exchange at one ledger block.

    `hour` is the number of hours since 1970 for the epoch on the hour, None for one on demand. `columns` are named
    `ASSET.kind` (a quantity in atoms: the trial balance or the asset's pool shows each of them exactly once, so they
    must not overlap) or plain, without a dot (a valuation in quote atoms, e.g. `net_equity_minus`). `system` maps
    `ASSET.account_type` of every account that is not a user's to its signed total, debits positive. `opened` and
    `closed` count accounts since the last published epoch. `insurance_atoms` values the insurance fund in quote atoms.
    `unsettled` maps an asset to users' settled gains not yet paid less losses not yet collected, debits positive; its
    columns are `ASSET.unsettled_plus` and `_minus`, and `ASSET.recovery`, what lenders may collect for debts that were
    written down. `pool_holes` maps an asset to what its pool's lenders still lack of
    the value of a debt that was written down, in quote atoms. `amms` are the liquidity pools.   [S-13, L-7, R-7, X-14]
    """

    exchange: str
    hour: int | None
    at_us: int
    block_height: int
    block_hash: bytes
    journal_root: bytes
    columns: list[str]
    accounts: list[Account]
    opened: int
    closed: int
    prices: list[Price]
    price_max_age_us: int
    parameters: str
    code_version: str
    trial_balance: list[TrialLine]
    system: dict[str, int]
    reserves: list[ReserveLine]
    pools: list[PoolLine] = []
    markets: list[MarketLine] = []
    unsettled: dict[str, int] = {}
    pool_holes: dict[str, int] = {}
    amms: list[AmmLine] = []
    insurance_atoms: int = 0
    group_bits: int = 8
