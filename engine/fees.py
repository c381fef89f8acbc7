"""Fee tiers: which rates a user pays now, from the 30-day volume and the operator's grant.   [F-1, F-2]"""

from __future__ import annotations

from engine.formulas.fees import VOLUME_HOURS, tier_for
from engine.parameters import FeeTier
from engine.state import State, User

HOUR_US = 3_600_000_000
USDC = "USDC"


def spot_rates(state: State, user: User, hour: int) -> FeeTier:
    """The user's spot tier; at the first trade of an hour the volume is summed and the tier changes.   [F-2]"""
    if user.volume_hour != hour:
        roll_volume(state, user, hour)
    return state.fees.spot[user.spot_tier]


def futures_rates(state: State, user: User, hour: int) -> FeeTier:
    """The user's futures tier, from the same volume.   [F-2, F-3]"""
    if user.volume_hour != hour:
        roll_volume(state, user, hour)
    return state.fees.futures[user.futures_tier]


def add_volume(user: User, hour: int, usd: int) -> None:
    """Count a fill of `usd` (1e-8) towards the user's volume; `spot_rates` has rolled the hour before.   [F-2]"""
    assert user.volume_hour == hour, f"user {user.user_id}: volume stands at hour {user.volume_hour}, not {hour}"
    buckets = user.volume_buckets
    buckets[hour] = buckets.get(hour, 0) + usd
    user.volume_total += usd


def roll_volume(state: State, user: User, hour: int) -> None:
    """Forget what is older than 720 hours, then set the tiers from the rest.   [F-2]"""
    assert hour > user.volume_hour, f"user {user.user_id}: hour {hour} after {user.volume_hour}"
    user.volume_hour = hour
    buckets = user.volume_buckets
    for old in [bucket for bucket in buckets if bucket < hour - VOLUME_HOURS]:
        user.volume_total -= buckets.pop(old)
    set_tiers(state, user)


def set_tiers(state: State, user: User) -> None:
    """Tier = the better of the 30-day volume's and the operator's grant.   [F-2]

    The running hour does not count: a change of fees or a grant in mid-hour must give what the hour's first trade gave.
    """
    volume = user.volume_total - user.volume_buckets.get(user.volume_hour, 0)
    fees = state.fees
    user.spot_tier = max(tier_for(volume, [tier.volume for tier in fees.spot]), user.granted_spot_tier)
    user.futures_tier = max(tier_for(volume, [tier.volume for tier in fees.futures]), user.granted_futures_tier)
