"""How often who may ask: token buckets in memory, one number per key, with a clock that is handed in.   [W-5]"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from api.errors import ApiError

MINUTE = 60.0


class Bucket:
    """`rate` requests a minute per key, as many at once. A key is one number: when its bucket will be full again.

    (The generic cell rate algorithm: a request moves that moment by one interval, and is refused when it would come to
    lie more than a minute ahead.) A key whose bucket is full again is forgotten, so memory holds only who asked lately.
    """

    def __init__(self, rate: int, clock: Callable[[], float], *, capacity: int = 100_000) -> None:
        assert rate > 0 and capacity > 0, f"a bucket of {rate} a minute for {capacity} keys"
        self.rate = rate
        self._interval = MINUTE / rate
        self._clock = clock
        self._capacity = capacity
        self._full_at: dict[Hashable, float] = {}

    def take(self, key: Hashable, cost: int = 1) -> bool:
        """Take `cost` tokens; False when there are not as many."""
        now = self._clock()
        full_at = max(self._full_at.get(key, now), now) + cost * self._interval
        if full_at > now + MINUTE + 1e-9:
            return False
        if key not in self._full_at and len(self._full_at) >= self._capacity:
            self._forget(now)
        self._full_at[key] = full_at
        return True

    def is_empty(self, key: Hashable) -> bool:
        """Whether `take` would refuse now."""
        now = self._clock()
        return max(self._full_at.get(key, now), now) + self._interval > now + MINUTE + 1e-9

    def __len__(self) -> int:
        return len(self._full_at)

    def _forget(self, now: float) -> None:
        """Drop the keys that are full again; if all are busy, the half that is fullest."""
        busy = {key: at for key, at in self._full_at.items() if at > now}
        if len(busy) >= self._capacity:
            fullest_last = sorted(busy.items(), key=lambda item: -item[1])
            busy = dict(fullest_last[: self._capacity // 2])
        self._full_at = busy


class RateLimits:
    """The edge's limits: signed requests per subaccount, everything else per address.

    `admit` takes a token or refuses, `require` refuses when none is left, `count` takes one without refusing.
    """

    def __init__(
        self,
        *,
        per_subaccount: int = 2_000,
        time_range: int = 30,
        unsigned: int = 6_000,
        unverified: int = 600,
        refused: int = 6_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_subaccount = Bucket(per_subaccount, clock)
        self.time_range = Bucket(time_range, clock)
        self.unsigned = Bucket(unsigned, clock)
        self.unverified = Bucket(unverified, clock)
        """Requests whose signature was wrong, per address: each has cost up to eight verifications."""
        self.refused = Bucket(refused, clock)
        """Requests refused before that, per address; apart from `unsigned`, so that who reads much can still trade."""

    def admit_unsigned(self, address: str) -> None:
        if not self.unsigned.take(address):
            raise too_many("requests", self.unsigned.rate)

    def admit_stray(self, address: str) -> None:
        """A request for what is not there."""
        if not self.refused.take(address):
            raise too_many("refused requests", self.refused.rate)

    def require_unrefused(self, address: str) -> None:
        """Before anything is read of a signed request: an address that keeps sending bad ones waits."""
        if self.refused.is_empty(address):
            raise too_many("refused requests", self.refused.rate)

    def count_refused(self, address: str) -> None:
        self.refused.take(address)

    def admit_time_range(self, address: str) -> None:
        if not self.time_range.take(address):
            raise too_many("time-range requests", self.time_range.rate)

    def admit_subaccount(self, subaccount_id: int, cost: int = 1) -> None:
        if not self.per_subaccount.take(subaccount_id, cost):
            raise too_many("requests", self.per_subaccount.rate)

    def require_subaccount(self, subaccount_id: int) -> None:
        """Before a verification. It takes nothing: only its owner's own requests use up a subaccount's limit."""
        if self.per_subaccount.is_empty(subaccount_id):
            raise too_many("requests", self.per_subaccount.rate)

    def require_unverified(self, address: str) -> None:
        """Before a verification: an address that keeps sending wrong signatures waits."""
        if self.unverified.is_empty(address):
            raise too_many("requests with a wrong signature", self.unverified.rate)

    def count_unverified(self, address: str) -> None:
        self.unverified.take(address)


def too_many(what: str, rate: int) -> ApiError:
    return ApiError(429, "TOO_MANY_REQUESTS", f"Too many {what}: at most {rate} a minute")
