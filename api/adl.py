"""The ADL quantile that positions are shown with, from a ranking built at most once a minute a market.   [L-6, W-10]"""

from __future__ import annotations

from engine import deleveraging
from engine.state import Market, State

MOST_RANKED = 5_000
"""Positions of a market that are ranked for people: everybody waits while it is done. Beyond, no quantile is told; ADL
itself ranks what it needs.   [L-11]"""

_MINUTE_US = 60_000_000


class Quantiles:
    """The quantiles of each market as they were when somebody last asked, for up to a minute of exchange time."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, dict[int, int]]] = {}

    def of(self, state: State, market: Market, subaccount_id: int, at_us: int) -> int | None:
        """1 (last in line) … 5 (first), None when it is not told: opened since the ranking, or too many to rank."""
        market_id = market.parameters.market_id
        built_us, found = self._known.get(market_id, (-_MINUTE_US, {}))
        if not built_us <= at_us < built_us + _MINUTE_US:
            is_small = len(market.holders) <= MOST_RANKED
            found = deleveraging.quantiles(state, market, at_us) if is_small else {}
            self._known[market_id] = at_us, found
        return found.get(subaccount_id)
