"""What is remembered of one loan, write-down, liquidation, strategy or request: rows that have dicts of their own.

Never compiled: a compiled class has one default for all its rows, and they would share what belongs to one.   [A-6]
"""

from __future__ import annotations

import msgspec

from engine.events import QuoteView, RfqView, StrategyView
from ledger.chart import AssetId


class ShareTime(msgspec.Struct):
    """For how long a subaccount has lent how much; outlives the loan until its periods are collected.   [Y-3]"""

    period: int
    """The yield period that `share_ms` belongs to."""
    since_ms: int
    prefix: int
    """The pool's `rate_prefix` when that period began."""
    share_ms: int = 0
    """Σ lend shares × ms of that period up to `since_ms`."""
    carry: int = 0
    """What it earned and is not an atom yet, in 1e-27 atoms."""
    seen: int = 0
    """How many of the pool's write-downs it has been counted in.   [L-7]"""
    recovering: dict[int, tuple[int, int]] = msgspec.field(default_factory=dict)
    """Write-down → the shares it had then, and the index it has collected up to; until that is fully paid.   [L-7]"""


class WriteDown(msgspec.Struct):
    """A debt that nobody could buy back, and what its pool's lenders are paid for it.   [L-7]"""

    at_us: int
    atoms: int
    """What was owed."""
    mark: int
    """Frozen, in PRICE_SCALE."""
    value: int
    """What that was worth, in USDC atoms; what `paid` and `filled` lack of it is the pool's hole."""
    shares: int
    """Lend shares that are paid: those that there were."""
    paid: int = 0
    index: int = 0
    """USDC per share so far, in 1e-27 atoms."""
    residue: int = 0
    """What dividing left over, in 1e-27 atoms."""
    filled: int = 0
    """What the pool's fees filled, in its own asset, as worth in USDC atoms at `mark`."""

    @property
    def hole(self) -> int:
        """USDC atoms that its lenders still lack.   [L-7, R-7]"""
        return self.value - self.paid - self.filled


class Liquidation(msgspec.Struct):
    """An account in liquidation, from its trigger to its end.   [L-1 … L-8]"""

    since_us: int
    next_second: int = 0
    """The exchange second of its next step; one step a second.   [L-3]"""
    step_atoms: dict[AssetId, int] = msgspec.field(default_factory=dict)
    """Item (`contracts` of a market in lots, an owed asset in atoms) → what one step takes: 10 % at trigger.   [L-3]"""
    unfilled_ticks: int = 0
    """Steps in a row without a fill: after three the backstop takes over.   [L-3]"""
    failed_buys: dict[AssetId, int] = msgspec.field(default_factory=dict)
    """Owed asset → steps that could not buy it back: after ten its lenders are paid in value.   [L-7]"""
    frozen: dict[AssetId, int] = msgspec.field(default_factory=dict)
    """Owed asset → its mark (PRICE_SCALE) from the block on that found it beyond buying back.   [L-7]"""
    sides: dict[int, int] = msgspec.field(default_factory=dict)
    """Market → 1 or −1: the side it was on, which a loss still left is charged against.   [L-5, L-6]"""


class Strategy(msgspec.Struct):
    """A scheduled strategy that runs.   [S-7]"""

    view: StrategyView
    next_us: int
    """When its next slice is due, or, after the last one, its end."""
    slices_left: int
    auto_lend: bool = False
    auto_lend_redeem: bool = False
    auto_borrow: bool = False
    auto_borrow_repay: bool = False
    order_id: int = 0
    """The last slice: it may still rest."""
    stopped_by: str = ""
    """Why the last slice did not fill whole."""


class Rfq(msgspec.Struct):
    """A request for quotes that is open, and its quotes.   [S-7]"""

    view: RfqView
    quotes: dict[int, QuoteView] = msgspec.field(default_factory=dict)
    flags: int = 0
    quote_flags: dict[int, int] = msgspec.field(default_factory=dict)
