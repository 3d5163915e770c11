# -*- test-case-name: tests.policy.test_rate_limits -*-
"""How often each caller may ask: the generic cell rate algorithm (ITU-T I.371), one state for each caller."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

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

    ``processes`` is how many processes keep the limit together. What is taken counts for that many: so each has its
    share until it is `told` what all have taken. ``on_taken``, where it is set, is called with each caller and the
    seconds of the limit that it took.
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
        self.processes = 1
        self.on_taken: Callable[[bytes, float], object] | None = None
        self._owes = owes
        self._burst = burst or requests
        self._interval = per_seconds / requests
        self._most = most
        self._due: OrderedDict[bytes, float] = OrderedDict()
        """When each caller will have paid for what it has sent."""

    def take(self, caller: bytes, count: int, now: float) -> Taken:
        """Take ``count`` requests of ``caller``, all of them or none. More than the burst count as that."""
        wait, owed = self.ask(caller, count, now)
        if not wait:
            owed = self.charge(caller, count, now, owed)
        return Taken(wait, self.left(owed), owed)

    def look(self, caller: bytes, now: float, count: int = 1) -> Taken:
        """What a caller gets that is refused ``count`` requests, here or elsewhere: nothing is taken."""
        wait, owed = self.ask(caller, count, now)
        return Taken(wait, self.left(owed), owed)

    def ask(self, caller: bytes, count: int, now: float) -> tuple[float, float]:
        """How many seconds ``caller`` has to wait until it may send so many more (0: none), and the seconds until it
        will have paid for what it has sent. Nothing is taken.
        """
        due = self._due.get(caller)
        if due is None:
            return 0.0, 0.0
        self._due.move_to_end(caller)  # it is not quiet
        owed = due - now
        if owed <= 0.0:
            return 0.0, 0.0
        # Written out, for each submission pays for it.
        need = 1 if self._owes else count if count < self._burst else self._burst
        wait = owed + (need - self._burst) * self._interval
        return (wait, owed) if wait > 1e-9 else (0.0, owed)

    def charge(self, caller: bytes, count: int, now: float, owed: float) -> float:
        """Take ``count`` requests of a ``caller`` to whom `ask` has told no wait, and so much ``owed``; what it owes
        now.
        """
        cost = (count if self._owes or count < self._burst else self._burst) * self._interval
        owed += cost * self.processes
        self._put(caller, now + owed)
        if self.on_taken is not None:
            self.on_taken(caller, cost)
        return owed

    def told(self, caller: bytes, owed: float, now: float) -> None:
        """All processes together have taken so much that ``caller`` owes ``owed`` seconds now."""
        if owed > 0.0:
            self._put(caller, now + owed)
        else:
            self._due.pop(caller, None)

    def left(self, owed: float) -> int:
        """How many requests a caller may send now that owes so many seconds."""
        return max(0, math.floor(self._burst - owed / self._interval + 1e-6))

    def _put(self, caller: bytes, due: float) -> None:
        due_by_caller = self._due
        if caller not in due_by_caller and len(due_by_caller) >= self._most:
            due_by_caller.popitem(last=False)
        due_by_caller[caller] = due
