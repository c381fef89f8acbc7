"""What a spot order pays and what it locks: exact products, nothing is divided."""

from __future__ import annotations

from engine.parameters import RATE_SCALE


def locked_atoms(is_bid: bool, price_ticks: int, lots: int, tick_value_atoms: int, lot_atoms: int) -> int:
    """What `lots` of a resting order lock: a bid its quote at its limit, an ask its base. Fees are in what is received.

    [S-1, F-1]
    """
    return lots * price_ticks * tick_value_atoms if is_bid else lots * lot_atoms


def promised_atoms(
    is_bid: bool, price_ticks: int, lots: int, tick_value_atoms: int, lot_atoms: int, fee_rate: int
) -> int:
    """What `lots` of an order that locks nothing would pay away: a bid its quote with the fee, rounded up.   [M-1]"""
    if not is_bid:
        return lots * lot_atoms
    notional = lots * price_ticks * tick_value_atoms
    return notional - (-notional * fee_rate // RATE_SCALE)
