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

    ``owes``: what is taken may be more than is left, as long as anything is, and has to be waited for afterwards. So
    what is larger than a burst is paid for as a whole.
    """

    def __init__(
        self,
        requests: int,
        per_seconds: float,
        burst: int | None = None,
        most: int = MOST_CALLERS,
        *,
        owes: bool = False,
    ) -> None:
        self.requests = requests
        self.per_seconds = per_seconds
        self._owes = owes
        self._burst = burst or requests
        self._interval = per_seconds / requests
        self._most = most
        self._due: OrderedDict[bytes, float] = OrderedDict()
        """When each caller will have paid for what it has sent."""

    def take(self, caller: bytes, count: int, now: float) -> Taken:
        """Take ``count`` requests of ``caller``, all of them or none. More than the burst count as that."""
        if self.wait(caller, now, count):
            return self.look(caller, now, count)
        due = max(self._due.get(caller, now), now)
        due += (count if self._owes else min(count, self._burst)) * self._interval
        self._due[caller] = due
        self._due.move_to_end(caller)
        if len(self._due) > self._most:
            self._due.popitem(last=False)
        return Taken(0.0, self._left(due - now), due - now)

    def look(self, caller: bytes, now: float, count: int = 1) -> Taken:
        """What a caller gets that is refused ``count`` requests, here or elsewhere: nothing is taken."""
        due = max(self._due.get(caller, now), now)
        if caller in self._due:
            self._due.move_to_end(caller)  # it is not quiet
        return Taken(self.wait(caller, now, count), self._left(due - now), due - now)

    def wait(self, caller: bytes, now: float, count: int = 1) -> float:
        """How many seconds ``caller`` has to wait until it may send so many more; 0: none. Nothing is taken."""
        due = self._due.get(caller)
        if due is None:
            return 0.0
        wait = due - now + ((1 if self._owes else min(count, self._burst)) - self._burst) * self._interval
        return wait if wait > 1e-9 else 0.0

    def _left(self, owed: float) -> int:
        return max(0, math.floor(self._burst - owed / self._interval + 1e-6))
