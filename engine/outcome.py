"""What one command came to: what the ledger, the public and whoever asked are handed.   [A-6]"""

from __future__ import annotations

from typing import Any

from engine.rejections import Rejection
from ledger.journal import JournalTransaction


class Outcome:
    """What one command did: events, journal transactions, the reply to whoever asked, or why not."""

    __slots__ = (
        "at_us",
        "events",
        "journal",
        "ranked",
        "ranked_entries",
        "rejection",
        "reply",
        "seq",
        "settled",
        "touched",
    )

    def __init__(self, seq: int, at_us: int) -> None:
        self.seq = seq
        self.at_us = at_us
        self.rejection: Rejection | None = None
        self.events: list[Any] = []
        self.journal: list[JournalTransaction] = []
        self.touched: dict[int, None] = {}
        """`subaccount << ASSET_BITS | asset` of each holding that changed, in order; gives BalanceChanged."""
        self.settled: Any = None
        """Ids of the subaccounts that a settlement tick moved by columns (ascending int64): they are not in `touched`
        and have no BalanceChanged.   [S-14]"""
        self.ranked: dict[int, tuple[int, int]] = {}
        """What the ADL ranking of this command knows of accounts: (notional, E).   [L-6]"""
        self.ranked_entries = 0
        """How many journal transactions that takes account of."""
        self.reply: Any = None
        """OrderView, list of OrderView | OrderRefused, WithdrawalView, KeyAdded …; None: nothing to say."""
