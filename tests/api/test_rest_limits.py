"""Rate limits: how many in a minute, for whom, and how little is remembered.   [W-5]"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import ApiError
from api.limits import Bucket, RateLimits


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_full_bucket_lets_a_minutes_worth_through_at_once_and_then_the_rate() -> None:
    """W-5"""
    clock = Clock()
    bucket = Bucket(2000, clock)

    assert sum(bucket.take(7) for _ in range(3000)) == 2000
    clock.now += 0.03
    assert [bucket.take(7), bucket.take(7)] == [True, False]
    clock.now += 60
    assert sum(bucket.take(7) for _ in range(3000)) == 2000


def test_keys_do_not_share_a_bucket() -> None:
    bucket = Bucket(1, Clock())

    assert [bucket.take("a"), bucket.take("a"), bucket.take("b")] == [True, False, True]


@given(st.lists(st.floats(0, 20), max_size=200), st.integers(1, 50))
def test_never_more_than_two_minutes_worth_in_any_minute(waits: list[float], rate: int) -> None:
    """A full bucket and what flows in while it empties: no minute sees more than twice the rate."""
    clock = Clock()
    bucket = Bucket(rate, clock)
    taken = []
    for wait in waits:
        clock.now += wait
        if bucket.take(1):
            taken.append(clock.now)

    for at in taken:
        assert sum(at - 60 < other <= at for other in taken) <= 2 * rate


def test_memory_is_bounded_and_the_busy_stay_refused() -> None:
    """A flood of addresses does not grow the table, nor does it free who is over the limit."""
    clock = Clock()
    bucket = Bucket(2, clock, capacity=100)
    assert [bucket.take("greedy") for _ in range(3)] == [True, True, False]

    for number in range(10_000):
        bucket.take(f"address {number}")

    assert len(bucket) <= 100
    assert not bucket.take("greedy")


def test_time_range_requests_have_a_limit_of_their_own() -> None:
    """W-5"""
    limits = RateLimits(clock=Clock())
    for _ in range(30):
        limits.admit_time_range("here")

    with pytest.raises(ApiError) as refused:
        limits.admit_time_range("here")
    assert (refused.value.status, refused.value.code) == (429, "TOO_MANY_REQUESTS")
    limits.admit_unsigned("here")
    limits.admit_time_range("elsewhere")
