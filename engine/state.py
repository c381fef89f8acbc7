"""The state of the exchange: plain data that only `transition.apply` changes; how balances are read.

Iterate over dicts and lists only, never over sets: order is part of the result.   [A-6]
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.commands import ClockMode, OrderType, SelfTrade, Side, TimeInForce
from engine.events import (
    DepositView,
    ExpiryReason,
    LongView,
    OrderStatus,
    OrderTerms,
    OrderView,
    PositionView,
    WithdrawalView,
)
from engine.parameters import (
    DEC,
    MAX_DEC,
    AssetParameters,
    ChainParameters,
    FeeSchedule,
    Limits,
    MarketParameters,
    PoolParameters,
    TokenParameters,
)
from engine.remembered import Liquidation as Liquidation
from engine.remembered import Rfq as Rfq
from engine.remembered import ShareTime as ShareTime
from engine.remembered import Strategy as Strategy
from engine.remembered import WriteDown as WriteDown
from ledger.chart import AccountId, AssetId, available

ASSET_BITS = 24
"""A balance is keyed by `account << ASSET_BITS | asset`: one int, one dict, no tuple to build on the hot path."""


MARK_SAMPLES = 300
"""Seconds whose marks an asset remembers, for the means.   [P-12]"""

POST_ONLY, REDUCE_ONLY, AUTO_LEND, AUTO_LEND_REDEEM, AUTO_BORROW, AUTO_BORROW_REPAY = 1, 2, 4, 8, 16, 32
"""Flags of an order, in one int: a million of them rest."""
PLAIN_FLAGS = POST_ONLY | REDUCE_ONLY
SPENDS_AT_FILL = AUTO_LEND_REDEEM | AUTO_BORROW
"""An order with one of these locks nothing: what it pays is found when it fills.   [S-1, S-2]"""

_NEW = OrderStatus.NEW
_PARTIALLY_FILLED = OrderStatus.PARTIALLY_FILLED
_FILLED = OrderStatus.FILLED


def balance_key(account: AccountId, asset_id: AssetId) -> int:
    return account << ASSET_BITS | asset_id


class Order(msgspec.Struct, gc=False, eq=False):
    """A live order. Resting orders are links of their price level's queue.

    `flags` are POST_ONLY … AUTO_BORROW_REPAY. What an open order still locks follows from its fields
    (`formulas.spot.locked_atoms`), so it is not kept twice.
    The collector does not track orders, or it would walk a million of them again and again; `State.__del__` breaks
    their cycles.
    """

    order_id: int
    client_id: int | None
    market: Market
    subaccount: Subaccount
    order_type: OrderType
    side: Side
    time_in_force: TimeInForce
    price_ticks: int
    lots: int
    """What was asked for; 0 for a market order by quote quantity."""
    quote_atoms: int
    flags: int
    self_trade: SelfTrade
    created_at_us: int
    executed_lots: int = 0
    executed_quote_atoms: int = 0
    previous: Order | None = None
    next: Order | None = None
    terms: OrderTerms | None = None
    """Only what is not a plain order of a user has any."""

    def view(self, status: OrderStatus | None = None, expiry_reason: ExpiryReason | None = None) -> OrderView:
        """The order as it stands; `status` only for one that has ended, the others follow from the fills."""
        executed = self.executed_lots
        if status is None:
            status = _NEW if not executed else _FILLED if executed == self.lots else _PARTIALLY_FILLED
        subaccount = self.subaccount
        return OrderView(
            self.order_id,
            self.client_id,
            self.market.parameters.market_id,
            subaccount.subaccount_id,
            subaccount.user.user_id,
            self.order_type,
            self.side,
            self.price_ticks,
            self.lots,
            self.quote_atoms,
            executed,
            self.executed_quote_atoms,
            status,
            self.time_in_force,
            bool(self.flags & POST_ONLY),
            bool(self.flags & REDUCE_ONLY),
            self.self_trade,
            self.created_at_us,
            expiry_reason,
            self.terms,
        )

    def __repr__(self) -> str:
        side, price = self.side.name.lower(), self.price_ticks
        return f"<order {self.order_id}: {side} {self.lots} lots at {price}, {self.executed_lots} done>"


class User:
    """A person or firm: keys, fee tier, 30-day volume.   [U-1, F-2]"""

    __slots__ = (
        "futures_tier",
        "granted_futures_tier",
        "granted_spot_tier",
        "keys",
        "opened_at_us",
        "spot_tier",
        "subaccount_ids",
        "user_id",
        "volume_buckets",
        "volume_hour",
        "volume_total",
    )

    def __init__(self, user_id: int, opened_at_us: int) -> None:
        self.user_id = user_id
        self.opened_at_us = opened_at_us
        self.subaccount_ids: list[int] = []
        self.keys: dict[bytes, int] = {}
        """API key → subaccount."""
        self.spot_tier = 0
        self.futures_tier = 0
        self.granted_spot_tier = -1
        self.granted_futures_tier = -1
        self.volume_buckets: dict[int, int] = {}
        """Hour since 1970 → USD traded in it (1e-8), the newest 720 hours.   [F-2]"""
        self.volume_total = 0
        self.volume_hour = 0


class Loan:
    """What a subaccount lends to, or owes, one money market; the shares themselves are balances.   [B-4, B-12]"""

    __slots__ = ("flow_atoms", "opened_at_us", "position_id")

    def __init__(self, position_id: int, opened_at_us: int) -> None:
        self.position_id = position_id
        self.opened_at_us = opened_at_us
        self.flow_atoms = 0
        """What was lent (or borrowed) less what was redeemed (or repaid): the rest of the claim is interest."""


class Position:
    """A subaccount's position in one perpetual, and its open orders there.   [A-2, C-5, M-1]

    `lots` and `cost` are the ledger's own accounts (`contracts`, `cost` of the market): only `posting` changes them.
    With S the market's `settled` and M its mark, both in quote atoms per lot, what it has gained since it was last
    settled is lots × (M − S) + cost; C-5's cost is `cost` − lots × S.
    """

    __slots__ = (
        "buys",
        "closed_lots",
        "cost",
        "entry_atoms",
        "fees",
        "funding",
        "lots",
        "market",
        "opened_at_us",
        "position_id",
        "reducing",
        "sells",
        "subaccount",
        "traded",
    )

    def __init__(self, subaccount: Subaccount, market: Market) -> None:
        self.subaccount = subaccount
        self.market = market
        self.lots = 0
        """Above zero long, below short."""
        self.cost = 0
        """In quote atoms, above zero: gained. A fill at p adds (S − p) × signed lots; a settlement makes it 0."""
        self.buys = 0
        """Lots that open bids, reduce-only ones left out, would buy; they follow from the orders.   [M-1]"""
        self.sells = 0
        self.reducing = 0
        """How many reduce-only orders rest; they follow from the orders."""
        self.position_id = 0
        """A new one each time a position begins at nothing; 0 while there is none."""
        self.opened_at_us = 0
        self.entry_atoms = 0
        """What |lots| were entered for, in quote atoms: for display and the ADL ranking.   [C-5, L-6]"""
        self.traded = 0
        """Σ −price × signed lots since it opened."""
        self.fees = 0
        self.funding = 0
        """Funding received (above zero) or paid since it opened."""
        self.closed_lots = 0

    def view(self) -> PositionView:
        return PositionView(
            self.subaccount.subaccount_id,
            self.market.parameters.market_id,
            self.position_id,
            self.lots,
            self.entry_atoms,
            self.traded,
            self.cost,
            self.fees,
            self.funding,
            self.opened_at_us,
            self.closed_lots,
            self.market.settled,
            self.buys,
            self.sells,
        )


class Subaccount:
    """One cross-margined, multi-asset account; its balances live in `State.balances`.   [U-1, U-4]"""

    __slots__ = (
        "asset_ids",
        "auto_borrow_settlements",
        "auto_lend",
        "auto_realize_pnl",
        "auto_repay_borrows",
        "backstop_usd",
        "claims",
        "client_ids",
        "debts",
        "frozen_withdrawals",
        "lent",
        "leverage_limit",
        "margined",
        "opened_at_us",
        "orders",
        "positions",
        "promised",
        "provisional",
        "receivables",
        "reserved",
        "rfqs",
        "share_times",
        "strategies",
        "subaccount_id",
        "unsettled",
        "user",
        "waiting",
    )

    def __init__(self, subaccount_id: int, user: User, opened_at_us: int) -> None:
        self.subaccount_id = subaccount_id
        self.user = user
        self.opened_at_us = opened_at_us
        self.orders: dict[int, Order] = {}
        """Open orders by id, oldest first."""
        self.client_ids: dict[int, Order] = {}
        self.reserved: dict[AssetId, int] = {}
        """Atoms that open orders lock: an encumbrance on the available account, never more than it holds.   [S-1]"""
        self.promised: dict[AssetId, int] = {}
        """Atoms that open orders would pay away without having locked them: fees in the same asset included.   [M-1]"""
        self.asset_ids: dict[AssetId, None] = {}
        """Every asset that it ever held, lent, owed or promised: what a margin summary walks.   [C-1, M-1]"""
        self.lent: dict[AssetId, Loan] = {}
        self.debts: dict[AssetId, Loan] = {}
        self.share_times: dict[AssetId, ShareTime] = {}
        """What its share of extra yields is computed from, also after a loan has ended.   [Y-3]"""
        self.receivables: dict[AssetId, None] = {}
        """Assets of which it owes the exchange what a reversed deposit left unpaid.   [D-5]"""
        self.margined = False
        """Whether it owes or has promised anything: if not, it has no exposure, and its orders need no margin. [M-9]"""
        self.provisional: dict[AssetId, int] = {}
        """Atoms credited but not final on chain: neither withdrawn nor transferred.   [D-5]"""
        self.frozen_withdrawals = 0
        """How many orphaned deposits freeze withdrawals.   [D-5]"""
        self.auto_lend = False
        self.auto_repay_borrows = False
        self.auto_borrow_settlements = True
        self.auto_realize_pnl = True
        self.leverage_limit = 10 * 10**9
        self.positions: dict[int, Position] = {}
        """Market → its position or its open orders' share of exposure there; gone when there is neither.   [M-1]"""
        self.claims: dict[int, None] = {}
        """Markets in which the liquidity fund holds or owes something for it.   [V-1]"""
        self.unsettled = 0
        """USDC atoms of settled gains nobody has paid yet; below zero: losses it has not paid.   [S-13]"""
        self.waiting: dict[int, Order] = {}
        """Trigger orders that wait, by id.   [S-9]"""
        self.strategies: dict[int, Strategy] = {}
        self.rfqs: dict[int, Rfq] = {}
        """Its open requests for quotes.   [S-7]"""
        self.backstop_usd = 0
        """Notional (1e-8 USD) that it takes as a backstop liquidity provider.   [L-4]"""

    def judge_by_margin(self) -> None:
        """Set `margined` anew after a debt, a promise, a position, a receivable or a claim came or went."""
        self.margined = bool(
            self.debts or self.promised or self.positions or self.receivables or self.claims or self.unsettled
        )


class Liquidity(msgspec.Struct):
    """One asset's coins on one chain, in atoms.   [D-1]"""

    hot: int = 0
    unswept: int = 0
    """At deposit addresses, from each what is worth sweeping.   [D-10]"""
    provisional: int = 0
    """Deposits that are not final.   [D-5]"""
    paying: int = 0
    """Withdrawals under way, their fees included: these stay behind for the network's.   [D-8]"""

    @property
    def payable(self) -> int:
        """What a new withdrawal can count on: in the hot wallet or coming to it, and nobody else's.   [D-1]"""
        return self.hot + max(0, self.unswept - self.provisional) - self.paying


class Pool:
    """The money market of one asset; its atoms and shares are balances, this is what else it remembers.   [B-4, B-7]"""

    __slots__ = (
        "accrued_ms",
        "asset_id",
        "borrowers",
        "bound",
        "carry",
        "closes_ms",
        "fee_carry",
        "next_write_down",
        "open_at",
        "pending_yield",
        "period",
        "period_rates",
        "projected",
        "projected_ms",
        "rate_prefix",
        "residue",
        "share_ms",
        "share_since_ms",
        "staked",
        "write_downs",
    )

    def __init__(self, asset_id: AssetId, now_ms: int, bound: int) -> None:
        self.asset_id = asset_id
        self.accrued_ms = now_ms
        self.carry = 0
        self.fee_carry = 0
        self.bound = bound
        """throttleUtilizationBound, in 1e-9.   [B-7]"""
        self.projected_ms = -1
        self.projected: Any = None
        """The totals with interest up to `projected_ms`: a cache, dropped when the pool changes."""
        self.open_at = 0
        """The command that found the pool below its threshold: U is tested once a command. Not part of the snapshot."""
        self.staked = 0
        """Atoms of the asset that are staked, on all chains: what the STAKED accounts add up to.   [B-14, Y-1]"""
        self.period = -1
        """The yield period of `share_ms`: exchange time in ms ÷ the period's length; −1: nobody ever lent.   [Y-3]"""
        self.share_ms = 0
        """Σ of all lend shares × ms of that period, up to `share_since_ms`.   [Y-3]"""
        self.share_since_ms = now_ms
        self.pending_yield = 0
        """Atoms received and not shared out yet.   [Y-1, Y-2]"""
        self.residue = 0
        """What earlier periods' divisions left over, in 1e-27 atoms: shared out with the next yield.   [Y-3]"""
        self.closes_ms = 0
        """When the running period shares out what is pending; 0: nothing is due.   [Y-3]"""
        self.period_rates: dict[int, int] = {}
        """Closed period → ρ, 1e-27 atoms per share and ms; only periods with a yield.   [Y-3]"""
        self.rate_prefix = 0
        """Σ ρ × length of all closed periods: what a share earned that was always there.   [Y-3]"""
        self.borrowers: dict[int, None] = {}
        """Subaccounts that owe it; follows from the balances.   [L-8]"""
        self.write_downs: dict[int, WriteDown] = {}
        """Debts that were written down, by number from 0.   [L-7]"""
        self.next_write_down = 0


class AssetPricing:
    """What one asset's mark is made of besides its index.   [P-1, P-2]"""

    __slots__ = (
        "deviation",
        "has_data",
        "live_until_us",
        "marks",
        "quotes",
        "sampled",
        "silent_seconds",
        "total",
    )

    def __init__(self) -> None:
        self.quotes: dict[str, Any] = {}
        """Source → its last Quote.   [P-1]"""
        self.deviation = 0
        """EWMA of mid − index, in PRICE_SCALE USD.   [P-2]"""
        self.silent_seconds = 0
        """Seconds since the last sample of `deviation`; after 60 the mark falls back to the index."""
        self.marks: list[int] = []
        """The mark of each of the last 300 seconds at second mod 300, 0 for none; empty before the first.   [P-12]"""
        self.sampled = 0
        """How many of `marks` are not 0, and their sum: what the mean is made of."""
        self.total = 0
        self.live_until_us = 0
        """The index is stale after this.   [P-1]"""
        self.has_data = False
        """Whether the mark was made of something when it was last due; if not, it stays.   [P-2]"""


class ApiKey(msgspec.Struct, frozen=True):
    user_id: int
    subaccount_id: int


class Market:
    """A market: parameters, its book, what the bands need, and of a perpetual its mark, funding and holders.

    [P-2, P-10, P-11, P-20]
    """

    __slots__ = (
        "book",
        "columns",
        "funding_index",
        "funding_rate",
        "holders",
        "last_price_ticks",
        "listed_at_us",
        "loss_index",
        "mark",
        "mark_lot",
        "moved",
        "next_funding_us",
        "next_trade_id",
        "open_interest",
        "parameters",
        "premium",
        "pricing",
        "settled",
        "traded",
    )

    def __init__(self, parameters: MarketParameters, book: Any, listed_at_us: int) -> None:
        self.parameters = parameters
        self.book = book
        self.last_price_ticks = 0
        self.next_trade_id = 1
        self.listed_at_us = listed_at_us
        # What follows is a perpetual's alone.
        self.mark = 0
        """In PRICE_SCALE, 0 without any.   [P-2]"""
        self.mark_lot = 0
        """The same in quote atoms per lot: whole, since the mark is on its grid.   [P-2, S-10]"""
        self.settled = 0
        """The mark of the last settlement tick, in quote atoms per lot; 0 before the first.   [S-10]"""
        self.pricing = AssetPricing()
        """What the mark is made of besides the index; the deviation and the means are of this book.   [P-2, P-12]"""
        self.premium = Premium()
        self.open_interest = 0
        """Lots that are long.   [P-22]"""
        self.holders: dict[int, Position] = {}
        """Subaccount → its position, of lots or cost that are not 0.   [S-10]"""
        self.traded: dict[int, Position] = {}
        """Holders whose cost is not 0: what a tick must touch even at an unchanged mark.   [S-14]"""
        self.next_funding_us = 0
        self.funding_index = 0
        """Σ rate × mark of one lot, in 1e-12 quote atoms.   [P-21]"""
        self.funding_rate = 0
        """The last interval's, in 1e-9."""
        self.loss_index = [0, 0]
        """[longs', shorts'] cumulative shared loss of one lot, in 1e-12 quote atoms.   [L-6]"""
        self.moved: dict[int, None] = {}
        """Subaccounts whose lots changed since `columns` were brought up to date. Not part of the snapshot."""
        self.columns: Any = None
        """Everybody's lots as arrays (`engine.tick`): a cache, not part of the snapshot."""


class Premium:
    """Samples of a perpetual's premium over its index.   [P-13, P-20]"""

    __slots__ = ("last300", "sampled", "samples", "total", "total300")

    def __init__(self) -> None:
        self.total = 0
        """Σ of the running funding interval's samples, 1e-9."""
        self.samples = 0
        self.last300: list[int | None] = []
        """The premium of each of the last 300 seconds at second mod 300, None for none; empty before the first."""
        self.total300 = 0
        self.sampled = 0


class AmmHolder:
    """A provider of liquidity; the units themselves are a balance.   [X-3]"""

    __slots__ = ("earned", "external_added", "native_added", "seen", "since_us", "units")

    def __init__(self, since_us: int, seen: tuple[int, int, int, int]) -> None:
        self.units = 0
        self.since_us = since_us
        self.native_added = 0
        """Atoms brought less those taken back."""
        self.external_added = 0
        self.earned = (0, 0, 0, 0)
        """Native fees, external fees, native interest, external interest that its units had a part in, in atoms."""
        self.seen = seen
        """The pool's `earned` when `earned` was last brought up to date."""


class AmmPosition:
    """A leveraged long in one liquidity pool.   [X-5 … X-11]"""

    __slots__ = (
        "collateral",
        "custody",
        "health",
        "is_native_collateral",
        "leverage",
        "opened_at_us",
        "owed",
        "paid",
        "paid_custody",
        "pool_id",
        "position_id",
        "subaccount_id",
        "unpaid",
    )

    def __init__(
        self,
        position_id: int,
        subaccount_id: int,
        pool_id: int,
        is_native_collateral: bool,
        collateral: int,
        leverage: int,
        health: int,
        opened_at_us: int,
    ) -> None:
        self.position_id = position_id
        self.subaccount_id = subaccount_id
        self.pool_id = pool_id
        self.is_native_collateral = is_native_collateral
        self.collateral = collateral
        self.leverage = leverage
        """In 1e-18."""
        self.owed = 0
        """Of the collateral's asset, interest left out."""
        self.custody = 0
        """Of the other asset."""
        self.health = health
        """In 1e-18, as it was last measured."""
        self.opened_at_us = opened_at_us
        self.unpaid = 0
        """Interest due and not paid, in the collateral's asset.   [X-9]"""
        self.paid = 0
        self.paid_custody = 0

    def view(self) -> LongView:
        return LongView(
            self.position_id,
            self.subaccount_id,
            self.pool_id,
            self.is_native_collateral,
            self.collateral,
            self.leverage,
            self.owed,
            self.unpaid,
            self.custody,
            self.paid,
            self.paid_custody,
            min(self.health, MAX_DEC),
            self.opened_at_us,
        )


class AmmPool:
    """A liquidity pool of the native asset and an external one: its two sides, in atoms.   [X-1 … X-14]

    A side is its balance (coins for swaps and providers), what positions owe it, and the custody it keeps for them.
    Depth is balance + owed. Balances, custody, debts and units are the ledger's too: `engine.pools` compares.
    """

    __slots__ = (
        "earned",
        "external_balance",
        "external_custody",
        "external_fund",
        "external_owed",
        "health",
        "holders",
        "mean_at_us",
        "mean_price",
        "native_balance",
        "native_custody",
        "native_fund",
        "native_owed",
        "next_epoch_us",
        "parameters",
        "positions",
        "rate",
        "units",
    )

    def __init__(self, parameters: PoolParameters) -> None:
        self.parameters = parameters
        self.native_balance = 0
        self.external_balance = 0
        self.native_custody = 0
        self.external_custody = 0
        self.native_owed = 0
        self.external_owed = 0
        self.native_fund = 0
        """What the fund has: its share of interest and of forced closes.   [X-9, X-11, X-12]"""
        self.external_fund = 0
        self.units = 0
        self.health = DEC
        """In 1e-18, as last measured: at opens and epochs.   [X-7]"""
        self.rate = 0
        """Of interest per epoch, in 1e-18.   [X-8]"""
        self.next_epoch_us = 0
        self.positions: dict[int, AmmPosition] = {}
        """By id, oldest first."""
        self.holders: dict[int, AmmHolder] = {}
        """Subaccount → what it provides."""
        self.earned = (0, 0, 0, 0)
        """Native fees, external fees, native interest, external interest per unit since it began, in 1e-18 atoms."""
        self.mean_price = 0
        """External atoms per native atom, in 1e-18, over about `price_mean_us`; 0 before there was one."""
        self.mean_at_us = 0


class Spare:
    """What an account can surely still take upon itself: see `engine.spare`.   [M-9]"""

    __slots__ = ("from_us", "last_move", "root", "until_us", "usd")

    def __init__(self, usd: int, from_us: int, until_us: int, last_move: int, root: int) -> None:
        self.usd = usd
        self.from_us = from_us
        self.until_us = until_us
        self.last_move = last_move
        self.root = root
        """√ of the most that one of its exposures can come to, in 1e-4 as all roots of USD."""


class Valuations:
    """What `margin` has computed from the marks and keeps while `State.marks_version` stays.   [M-9]"""

    __slots__ = ("bounds", "lines", "losing", "losing_usd", "moves", "perpetuals", "spare", "ticks", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.lines: dict[AssetId, Any] = {}
        """What values one asset: price, divisors, weight, fractions."""
        self.perpetuals: dict[int, Any] = {}
        """What values one perpetual."""
        self.bounds: dict[int, tuple[int, int]] = {}
        """Market → what takers are held between by the means, in ticks (`engine.bands`); dropped when a price comes, a
        second passes, or the market changes.   [P-12, P-13]"""
        self.ticks: dict[int, tuple[int, int]] = {}
        """Market → the highest bid and the lowest ask, in ticks, that lose nothing against the mark."""
        self.losing: dict[int, dict[int, int]] = {}
        """Subaccount → its open orders that would lose against the mark → by how much; those that were asked for."""
        self.losing_usd: dict[int, int] = {}
        """Subaccount → the sum of those: a thousand orders must not be added up for each fill."""
        self.spare: dict[int, Spare] = {}
        self.moves = 0
        """How often a pool has changed since."""


class State:
    """Everything `apply` knows. Mutated in place; the same commands give the same state, byte for byte.   [A-6]"""

    def __init__(self) -> None:
        self.exchange = ""
        self.devnet = False
        self.public_key = b""
        self.operator_keys: tuple[bytes, ...] = ()
        self.limits = Limits()
        self.fees = FeeSchedule((), (), 0)
        self.sequence = 0
        self.at_us = 0
        self.clock_mode = ClockMode.REAL
        self.clock_offset_us = 0
        self.wall_ms = 0
        """Highest wall-clock time that a signed request was received at; what replay protection runs on.   [A-11]"""
        self.assets: dict[AssetId, AssetParameters] = {}
        self.chains: dict[int, ChainParameters] = {}
        self.tokens: dict[tuple[int, AssetId], TokenParameters] = {}
        self.markets: dict[int, Market] = {}
        self.users: dict[int, User] = {}
        self.subaccounts: dict[int, Subaccount] = {}
        self.api_keys: dict[bytes, ApiKey] = {}
        self.balances: dict[int, int] = {}
        """`balance_key(account, asset)` → atoms, debits positive: a subaccount's holding is negative.   [A-1]"""
        self.orders: dict[int, Order] = {}
        self.next_order_id = 1
        self.next_user_id = 1
        self.next_subaccount_id = 1
        self.highest_subaccount_id = 0
        """Not part of the snapshot: it follows from `subaccounts`."""
        self.next_deposit_id = 1
        self.next_withdrawal_id = 1
        self.prices: dict[AssetId, int] = {}
        """Index price per whole unit in PRICE_SCALE USD.   [P-1]"""
        self.price_at_us: dict[AssetId, int] = {}
        self.marks: dict[AssetId, int] = {}
        """Mark price per whole unit in PRICE_SCALE USD; absent without any.   [P-2, P-3]"""
        self.marks_version = 0
        """Grows whenever a mark, or what an asset counts for, changes. Not part of the snapshot."""
        self.valuations = Valuations(-1)
        """A cache for this version of the marks, not part of the snapshot either."""
        self.pricing: dict[AssetId, AssetPricing] = {}
        self.sampled_second = 0
        """The exchange second up to which marks were sampled.   [P-2]"""
        self.pools: dict[AssetId, Pool] = {}
        self.next_position_id = 1
        self.last_interest_hour = 0
        self.throttled_second = 0
        """The exchange second of the last 10-second tick.   [B-7]"""
        self.automatic: dict[int, None] = {}
        """Subaccounts that lend or repay by themselves.   [B-5, B-10]"""
        self.yield_due_us = 0
        """When the next yield period closes, 0: none is due. Follows from the pools.   [Y-3]"""
        self.has_yields = False
        """Whether any yield was ever shared out: if not, nobody has one to collect. Follows from the pools.   [Y-3]"""
        self.has_recoveries = False
        """Whether any debt was ever written down: lenders may have to collect. Follows from the pools.   [L-7]"""
        self.small_debts: dict[tuple[int, AssetId], None] = {}
        """(subaccount, asset) of debts that a repayment left under one lot: judged at the hourly tick.   [S-3]"""
        self.deposits: dict[tuple[int, str, int], DepositView] = {}
        self.withdrawals: dict[int, WithdrawalView] = {}
        self.open_withdrawals: dict[int, WithdrawalView] = {}
        """Those neither settled, released nor rejected, oldest first: what payouts look at.   [D-8]"""
        self.liquidity: dict[tuple[int, AssetId], Liquidity] = {}
        """(chain, asset) → its coins there; follows from the rest (`engine.liquidity`).   [D-1]"""
        self.withdrawal_keys: dict[tuple[int, str], int] = {}
        """(subaccount, the client's own key) → withdrawal, for ever.   [A-11]"""
        self.stopped_withdrawals: dict[AssetId, str] = {}
        self.requests: dict[bytes, tuple[int, Any]] = {}
        """API key + signature → (wall ms it is remembered until, the first reply), oldest first.   [A-11]"""
        self.next_epoch = 1
        self.last_epoch_hour = 0
        self.usdc = 0
        """The asset that perpetuals settle in; follows from the assets."""
        self.funding_due_us = 0
        """When the next funding interval ends, 0: none is due. Follows from the markets.   [P-20]"""
        self.settled_second = 0
        """The exchange second of the last settlement tick.   [S-10]"""
        self.cash: Any = None
        """Everybody's USDC as arrays (`engine.cash`): a cache, not part of the snapshot."""
        self.cash_moved: dict[int, None] = {}
        """Subaccounts whose USDC, or what is locked of it, changed since. Not part of the snapshot."""
        self.unsettled: dict[int, None] = {}
        """Subaccounts whose unsettled equity is not 0; follows from them.   [S-13]"""
        self.virtual: dict[int, None] = {}
        """Subaccounts that settle through the liquidity fund, or have a claim on it; follows from them.   [V-1]"""
        self.unclaimed: dict[int, int] = {}
        """Subaccount → ticks in which it owed what it, or a virtual loser's claim, did not pay.   [S-13, V-4]"""
        self.liquidations: dict[int, Liquidation] = {}
        self.liquidation_due_us = 0
        """When the next step of liquidations is due, 0: nobody is in one. Follows from them.   [L-3]"""
        self.columns: Any = None
        """What the margin sweep works on (`engine.columns`): a cache, not part of the snapshot.   [L-11]"""
        self.backstops: dict[int, None] = {}
        """Registered backstop liquidity providers; follows from the subaccounts.   [L-4]"""
        self.holes: dict[AssetId, int] = {}
        """USDC that a money market's lenders still lack after a debt was written down.   [L-7, R-7]"""
        self.taken: dict[AssetId, int] = {}
        """What the insurance fund took in kind and has to sell.   [L-7]"""
        self.triggers: Any = None
        """Trigger orders by market, price, direction (`engine.triggers`); follows from `Subaccount.waiting`.   [S-9]"""
        self.triggered: dict[int, Order] = {}
        """Trigger orders whose price has come and that have not entered yet, in their order.   [S-9]"""
        self.strategies: dict[int, Strategy] = {}
        self.next_strategy_id = 1
        self.slice_due_us = 0
        """When the next slice of a strategy is due, 0: none is. Follows from the strategies.   [S-7]"""
        self.rfq_due_us = 0
        """When the next request for quotes ends, 0: none is open. Follows from the requests.   [S-7]"""
        self.rfqs: dict[int, Rfq] = {}
        """Open requests for quotes, the one that ends first first.   [S-7]"""
        self.next_rfq_id = 1
        self.next_quote_id = 1
        self.amm_pools: dict[int, AmmPool] = {}
        """Liquidity pools by their external asset.   [X-1]"""
        self.amm_positions: dict[int, AmmPosition] = {}
        """Leveraged longs of all pools by id, oldest first; follows from the pools.   [X-5]"""
        self.next_amm_position_id = 1
        self.has_pool_collateral = False
        """Whether units of any liquidity pool count as collateral; follows from the pools.   [C-3]"""
        self.amm_epoch_due_us = 0
        """When the next epoch of a liquidity pool ends, 0: there is none. Follows from the pools.   [X-8]"""

    def __del__(self) -> None:
        # Orders point at each other and their owner, and the collector does not see them.
        for order in self.orders.values():
            order.previous = order.next = None
            order.subaccount.orders.clear()
            order.subaccount.client_ids.clear()
        for subaccount in self.subaccounts.values():
            if subaccount.waiting:
                subaccount.waiting.clear()
                subaccount.client_ids.clear()

    @property
    def rows(self) -> int:
        """How long a column over subaccounts has to be: a chosen number may be beyond the next free one.   [W-9]"""
        return max(self.next_subaccount_id, self.highest_subaccount_id + 1)

    def held(self, subaccount_id: int, asset_id: AssetId) -> int:
        """Atoms the subaccount holds, those its orders lock included."""
        return -self.balances.get(available(subaccount_id) << ASSET_BITS | asset_id, 0)

    def free(self, subaccount_id: int, asset_id: AssetId) -> int:
        """Atoms the subaccount can spend now: held less reserved."""
        return self.held(subaccount_id, asset_id) - self.subaccounts[subaccount_id].reserved.get(asset_id, 0)

    def withdrawable(self, subaccount_id: int, asset_id: AssetId) -> int:
        """Atoms that can leave the subaccount: free less provisional, never below zero.   [D-5]"""
        provisional = self.subaccounts[subaccount_id].provisional.get(asset_id, 0)
        return max(0, self.free(subaccount_id, asset_id) - provisional)
