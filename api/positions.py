"""What a position is worth in the terms of the wire, from its view and a mark; for REST, streams and history alike.

Atoms of quote are USDC's; a quotient (an average price) is rounded half-even at 1e-12, everything else is exact.
[C-5, M-1 … M-3, W-3]
"""

from __future__ import annotations

from typing import NamedTuple

from engine import margin
from engine.events import PositionView
from engine.formulas.margin import leverage_fraction, line_fractions
from engine.parameters import MarketParameters
from engine.state import State
from ledger.amounts import mul_div_half_even


class Figures(NamedTuple):
    """A position at a mark: prices in PRICE_SCALE, PnL and costs in quote atoms, notional in USD (1e-8)."""

    entry_price: int
    break_even_price: int
    """Where its lifetime PnL would be nothing; 0 when it is at no price above that."""
    net_cost: int
    """What it was entered for, below zero when short."""
    unrealized: int
    """Since it was last settled.   [C-5]"""
    realized: int
    """The rest of its lifetime PnL: traded + lots × mark + funding − fees."""
    exposure: int
    """X of M-1, in lots."""
    notional: int
    imf: int
    """In 1e-15, as `mmf`.   [M-3]"""
    mmf: int


def figures(state: State, view: PositionView, mark: int) -> Figures:
    """The position at this mark (PRICE_SCALE); fractions by the account's leverage limit now.   [C-5, M-3]"""
    parameters = state.markets[view.market_id].parameters
    mark_lot = margin.lot_value(parameters, mark)
    lots = view.lots
    unrealized = lots * (mark_lot - view.settled) + view.cost_atoms
    lifetime = view.traded_atoms + lots * mark_lot + view.funding_atoms - view.fee_atoms
    exposure = max(abs(lots + view.buys), abs(lots - view.sells))
    notional, bare = (usd_of(state, each * mark_lot) for each in (exposure, abs(lots)))
    imf, mmf = _fractions(state, view, notional, bare)
    spent = view.fee_atoms - view.traded_atoms - view.funding_atoms
    break_even = price_of(parameters, spent, lots) if lots else 0
    return Figures(
        price_of(parameters, view.entry_atoms, abs(lots)) if lots else 0,
        max(0, break_even),
        view.entry_atoms if lots >= 0 else -view.entry_atoms,
        unrealized,
        lifetime - unrealized,
        exposure,
        notional,
        imf,
        mmf,
    )


def price_of(parameters: MarketParameters, atoms: int, lots: int) -> int:
    """`atoms` of quote for `lots` as a price per whole base unit in PRICE_SCALE, half-even; both may be negative."""
    if lots < 0:
        atoms, lots = -atoms, -lots
    return mul_div_half_even(atoms, parameters.tick_price, lots * parameters.tick_value_atoms)


def usd_of(state: State, atoms: int) -> int:
    """USDC atoms in USD (1e-8) at its mark, rounded up: exposures.   [M-1]"""
    price, _unit, in_usd, *_rest = margin.line(state, state.usdc)
    return -(-atoms * price // in_usd)


def _fractions(state: State, view: PositionView, notional: int, bare: int) -> tuple[int, int]:
    """(IMF of what is exposed with open orders, MMF of what is held), 1e-15.   [M-1 … M-3]"""
    subaccount = state.subaccounts[view.subaccount_id]
    found = margin.perpetual_line(state, view.market_id)
    functions = (found[2], found[3], found[4], found[5], leverage_fraction(subaccount.leverage_limit))
    return line_fractions(notional, *functions)[0], line_fractions(bare, *functions)[1]
