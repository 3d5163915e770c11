# -*- test-case-name: tests.policy.test_rate_limits -*-
"""How often each caller may ask: the generic cell rate algorithm (ITU-T I.371), one state for each caller."""

from __future__ import annotations

import math
from collections import OrderedDict

import attrs

MOST_CALLERS = 100_000


@attrs.frozen
class Taken:
    """What a caller got. ``wait``: refused, and so many seconds until it would not be; 0: allowed.

    ``remaining`` is how many more it may send now, and ``reset`` the seconds until it may send all again.
    """

    wait: float
    remaining: int
    reset: float


class RateLimits:
    """At most ``requests`` in ``per_seconds`` for each caller, and up to ``burst`` of them at once.

    Of more than ``most`` callers, those that have been quiet for longest are forgotten, which is in their favour.
    """

    def __init__(self, requests: int, per_seconds: float, burst: int | None = None, most: int = MOST_CALLERS) -> None:
        self.requests = requests
        self.per_seconds = per_seconds
        self._burst = burst or requests
        self._interval = per_seconds / requests
        self._most = most
        self._due: OrderedDict[bytes, float] = OrderedDict()
        """When each caller will have paid for what it has sent."""

    def take(self, caller: bytes, count: int, now: float) -> Taken:
        """Take ``count`` requests of ``caller``, all of them or none. More than the burst count as that."""
        whole = self._burst * self._interval
        before = max(self._due.get(caller, now), now)
        due = before + min(count, self._burst) * self._interval
        wait = due - now - whole
        if wait > 1e-9:
            self._due[caller] = before
            self._due.move_to_end(caller)  # one that is refused is not quiet
            return Taken(wait, self._left(before - now), before - now)
        self._due[caller] = due
        self._due.move_to_end(caller)
        if len(self._due) > self._most:
            self._due.popitem(last=False)
        return Taken(0.0, self._left(due - now), due - now)

    def wait(self, caller: bytes, now: float) -> float:
        """How many seconds ``caller`` has to wait until it may send one more; 0: none. Nothing is taken."""
        due = self._due.get(caller)
        wait = 0.0 if due is None else due + self._interval - now - self._burst * self._interval
        return wait if wait > 1e-9 else 0.0

    def _left(self, owed: float) -> int:
        return max(0, math.floor(self._burst - owed / self._interval + 1e-6))
