"""What an attacker tried on perpetuals, and what defeats it: money that is not his, an exchange that stops.

threat-model.md T-134 and after.
"""

from __future__ import annotations

from hashlib import sha256

from engine import snapshot
from engine.accounts import NUMBERS_AHEAD
from engine.commands import RegisterKey
from engine.rejections import RejectReason
from tests.engine.perps import Member, Pit, cross


def test_an_account_with_a_chosen_number_stops_neither_sweep_nor_tick() -> None:
    """T-134: columns over all subaccounts were as long as the next free number."""
    pit = Pit()
    anna, bert = pit.member("anna", 1_000), pit.member("bert", 1_000)
    key, number = sha256(b"far").digest(), 5_000
    pit.exchange.do(RegisterKey(key, 0, number))
    bert.subaccount, bert.key = number, key
    pit.exchange.deposit(number, "USDC", 10**9)
    cross(anna, bert, 100, 15_000)
    pit.price(151)
    pit.exchange.advance(20)
    assert (anna.position, bert.position) != (None, None)
    assert pit.book_market.settled == pit.book_market.mark_lot

    # Also after a restart.
    pit.exchange.state = snapshot.load(snapshot.dump(pit.state))
    pit.price(150)
    pit.exchange.advance(20)
    assert abs(_worth(anna) + _worth(bert) - 2 * 10**9) < 10**7


def test_a_chosen_number_is_not_far_beyond_the_others() -> None:
    """T-134: one number near 2³¹ would take gigabytes of columns."""
    pit = Pit()
    most = pit.state.next_subaccount_id + NUMBERS_AHEAD
    refused = pit.attempt(RegisterKey(bytes(32), 0, most + 1)).rejection
    assert refused is not None and refused.reason is RejectReason.INVALID_PARAMETERS
    assert pit.attempt(RegisterKey(bytes(32), 0, most)).rejection is None


def _worth(member: Member) -> int:
    return member.usdc
