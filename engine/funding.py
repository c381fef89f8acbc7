"""Funding of perpetuals: what longs and shorts pay each other when an interval ends, and what it would be now.

Each holder's cost falls or rises at once; the settlement tick of the same instant makes it cash.   [P-20 … P-22, S-15]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.commands import ChargeFunding
from engine.events import FundingCharged, Outcome
from engine.formulas import funding as formulas
from engine.parameters import RATE_SCALE
from engine.posting import Columns, post_batch
from engine.rejections import Rejection, RejectReason
from engine.state import Market, State
from ledger.amounts import INT64_MAX, mul_div_half_even
from ledger.chart import ROUNDING, AccountKind, cost
from ledger.journal import JournalKind, Posting, exact_sum


def charge(state: State, command: ChargeFunding, outcome: Outcome) -> None:
    """An interval of these markets has ended: rate × mark per lot passes between longs and shorts.   [P-20, P-21]

    What each receives is rounded down (so a charge up); what is left over is posted on the rounding account.
    """
    end_us = state.funding_due_us
    due = _due(state)
    if not due or end_us > outcome.at_us or command.market_ids != due:
        raise Rejection(
            RejectReason.TICK_OUT_OF_ORDER,
            due_us=end_us,
            at_us=outcome.at_us,
            due_markets=len(due),
            markets=len(command.market_ids),
        )

    # From here the command succeeds.
    columns: list[Columns] = []
    residues: list[Posting] = []
    charged: list[tuple[int, int, int]] = []
    for market_id in due:
        market = state.markets[market_id]
        rate, premium = running_rate(market), mean_premium(market) or 0
        _charge_holders(market, rate, columns, residues)
        _begin_interval(market, rate)
        charged.append((market_id, rate, market.mark_lot))
        index = str(market.funding_index)
        outcome.events.append(FundingCharged(market_id, rate, end_us, market.mark, premium, index))
    state.funding_due_us = next_due_us(state)
    if columns:
        post_batch(state, outcome, JournalKind.FUNDING, (end_us, charged), residues, columns)


def start(state: State, market: Market, at_us: int) -> None:
    """The market has its first mark, or another interval: its next interval ends at the first boundary.   [P-20]"""
    perpetual = market.parameters.perpetual
    assert perpetual is not None, f"market {market.parameters.market_id} is no perpetual"
    market.next_funding_us = formulas.next_end_us(at_us, perpetual.funding_interval_ms)
    state.funding_due_us = next_due_us(state)


def next_due(state: State) -> ChargeFunding:
    """The command that is due at `state.funding_due_us`.   [S-15]"""
    return ChargeFunding(_due(state))


def next_due_us(state: State) -> int:
    """When the next interval of any market ends, 0 when none runs."""
    return min((market.next_funding_us for market in state.markets.values() if market.next_funding_us), default=0)


def running_rate(market: Market) -> int:
    """The rate (1e-9) at which the running interval would be charged if it ended now.   [P-20, P-22]"""
    perpetual = market.parameters.perpetual
    assert perpetual is not None, f"market {market.parameters.market_id} is no perpetual"
    return formulas.funding_rate(market.premium.total, market.premium.samples, perpetual)


def mean_premium(market: Market) -> int | None:
    """The running interval's mean premium in 1e-9, half-even; None before its first sample.   [P-20]"""
    premium = market.premium
    return mul_div_half_even(premium.total, 1, premium.samples) if premium.samples else None


def _due(state: State) -> tuple[int, ...]:
    """The markets whose interval ends next, by id."""
    end_us = state.funding_due_us
    if not end_us:
        return ()
    return tuple(number for number in sorted(state.markets) if state.markets[number].next_funding_us == end_us)


def _begin_interval(market: Market, rate: int) -> None:
    perpetual = market.parameters.perpetual
    assert perpetual is not None, f"market {market.parameters.market_id} is no perpetual"
    market.funding_rate = rate
    market.funding_index += formulas.index_step(rate, market.mark_lot)
    market.next_funding_us += perpetual.funding_interval_ms * 1_000
    market.premium.total = market.premium.samples = 0


def _charge_holders(market: Market, rate: int, columns: list[Columns], residues: list[Posting]) -> None:
    """Every holder's payment as one column, and the residue; the positions remember theirs.   [P-21, A-2]"""
    if not rate or not market.holders:
        return
    count = len(market.holders)
    owners = np.fromiter(market.holders.keys(), np.int64, count)
    order = np.argsort(owners, kind="stable")
    lots = np.fromiter((held.lots for held in market.holders.values()), np.int64, count)
    received = payments(rate, market.mark_lot, lots)
    if not np.any(received):
        return
    for held, atoms in zip(market.holders.values(), _ints(received), strict=True):
        held.funding += atoms

    asset = cost(market.parameters.market_id)
    if isinstance(received, np.ndarray):
        residue = exact_sum(received)
        column: Any = -received[order]
    else:
        residue = sum(received)
        column = [-received[place] for place in order.tolist()]
    if residue:
        residues.append((ROUNDING, asset, residue))
    columns.append((int(AccountKind.POSITION), asset, owners[order], column))


def payments(rate: int, mark_lot: int, lots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | list[int]:
    """`formulas.payment` of a column of lots; plain ints where the products could leave 64 bits.   [P-21, A-3]

    −rate × mark is split into whole atoms a lot and a rest below one, so that either product stays small.
    """
    whole, rest = divmod(-rate * mark_lot, RATE_SCALE)
    most = max(1, int(lots.max(initial=0)), -int(lots.min(initial=0)))
    if most * (abs(whole) + 1) > INT64_MAX or most * RATE_SCALE > INT64_MAX:
        return [formulas.payment(rate, mark_lot, each) for each in lots.tolist()]
    return lots * whole + lots * rest // RATE_SCALE


def _ints(column: npt.NDArray[np.int64] | Sequence[int]) -> Sequence[int]:
    return column.tolist() if isinstance(column, np.ndarray) else column
