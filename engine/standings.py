"""Where an account in liquidation stands, and what that is made of: the part of its record that others recompute.

Memo of LIQUIDATION_IMAGE: subaccount, kind of the step of the ladder that it belongs to, moment, image. It is on record
where a step could not be worked out from the one before it: before each, after those that move shares, and when a mark
or E is frozen. What a step did to plain holdings, positions and unsettled equity its own memo says.   [L-10]
"""

from __future__ import annotations

from enum import IntEnum

from engine import lending, margin
from engine.events import Outcome
from engine.formulas.standing import HoldingImage, Image, PositionImage, Standing
from engine.posting import record
from engine.state import State, Subaccount
from ledger.journal import JournalKind


class Moment(IntEnum):
    """Of a step: numbers are part of the journal's memos."""

    BEFORE = 0
    AFTER = 1
    FROZEN = 2
    """When what the step reckons with was frozen: E and shares of ADL, the marks of debts.   [L-6, L-7]"""


def put(state: State, outcome: Outcome, subaccount: Subaccount, kind: JournalKind, moment: Moment) -> None:
    """Put on record what the account is made of before or after a step of this kind.   [L-10]"""
    found = image(state, subaccount, outcome.at_us)
    memo = (subaccount.subaccount_id, int(kind), int(moment), found)
    record(outcome, JournalKind.LIQUIDATION_IMAGE, memo)


def figures(state: State, subaccount: Subaccount, at_us: int) -> Standing:
    """Net equity, maintenance margin, exposure notional and E, in USD (1e-8).   [L-10]"""
    sums = margin.sums(state, subaccount, at_us)
    return Standing(sums.equity, sums.maintenance, sums.notional, margin.realizable(state, subaccount, at_us))


def image(state: State, subaccount: Subaccount, at_us: int) -> Image:
    """What these figures are made of, and the prices.   [L-10]"""
    positions = [
        PositionImage(market_id, held.lots, held.cost, held.market.mark_lot, held.market.settled)
        for market_id, held in sorted(subaccount.positions.items())
        if held.lots or held.cost
    ]
    sold = margin.sellable_assets(state)
    holdings = []
    for asset_id in sorted(margin.assets_of(state, subaccount)):
        quantity = state.held(subaccount.subaccount_id, asset_id) + lending.claim(state, subaccount, asset_id, at_us)
        owing = margin.owed_atoms(state, subaccount, asset_id, at_us)
        reversed_deposits = owing - lending.debt(state, subaccount, asset_id, at_us)
        earned = margin.uncollected_atoms(state, subaccount, asset_id)
        if quantity or owing or earned:
            mark = margin.line(state, asset_id)[0]
            is_sold = asset_id in sold
            holdings.append(HoldingImage(asset_id, quantity, owing, earned, mark, is_sold, reversed_deposits))
    claims = margin.claims_atoms(state, subaccount, at_us) if subaccount.claims else 0
    return Image(
        state.usdc,
        margin.line(state, state.usdc)[0],
        tuple(positions),
        tuple(holdings),
        claims,
        subaccount.unsettled,
        subaccount.auto_realize_pnl,
    )
