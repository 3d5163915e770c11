# -*- test-case-name: tests.policy.test_limits -*-
"""How much a queue takes: how many requests that have not ended, and how many bytes of them."""

from __future__ import annotations

from math import ceil

import attrs

from openhqm.errors import DeadlineUnmet, QueueFull
from openhqm.messages import Load

WAITING, AGE, DEADLINE = "waiting", "age", "deadline"
LONGEST_PAUSE = 60.0
"""The most seconds that a caller is told to stay away for because of the age of a queue."""


@attrs.frozen
class Limits:
    """The most ``requests`` and ``bytes`` that a queue takes; None: as many as there is room for.

    ``drop_oldest``: where it is full, the oldest request that waits ends for a new one. Else the new one is refused.

    ``age_seconds`` is how long a request may wait for its first attempt; then it ends. None: for ever.

    ``dead_letters`` is how many of those are kept, the newest, and ``dead_letter_seconds`` for how long; None: all, for
    ever.

    ``shed_waiting`` is how many requests may wait in one queue for their first attempt, and ``shed_seconds`` how long
    the first of them may have waited, before no further one is taken into it.
    """

    requests: int | None = None
    bytes: int | None = None
    drop_oldest: bool = False
    dead_letters: int | None = None
    dead_letter_seconds: float | None = None
    age_seconds: float | None = None
    shed_waiting: int | None = None
    shed_seconds: float | None = None
    any: bool = attrs.field(init=False)
    """Whether it is limited how much is open, so that it has to be counted: each accept asks for it."""

    @any.default
    def _any(self) -> bool:
        return self.requests is not None or self.bytes is not None

    @property
    def ends_what_waits(self) -> bool:
        """Whether requests end that waited longest, or for too long, so that it has to be known which these are."""
        return self.drop_oldest or self.age_seconds is not None

    @property
    def sheds(self) -> bool:
        """Whether what waits in a queue keeps further requests out of it."""
        return self.shed_waiting is not None or self.shed_seconds is not None

    def shed(self, queue: str, ahead: int, waited: float, timeout: float | None) -> tuple[str, QueueFull] | None:
        """Why a request is not taken into ``queue`` behind ``ahead`` others, as a word for a metric and as an error.

        The first of those has waited for so many seconds, and this request has ``timeout`` seconds (None: for ever):
        what has not begun after that time shows that the next one would not begin in it either.
        """
        if self.shed_waiting is not None and ahead >= self.shed_waiting:
            return WAITING, QueueFull(f"queue.limits.shed_waiting: {self.shed_waiting} requests wait in {queue}")
        if self.shed_seconds is None:
            return None
        if waited > self.shed_seconds:
            pause = ceil(min(LONGEST_PAUSE, max(1.0, waited - self.shed_seconds)))
            reason = f"queue.limits.shed_seconds: a request has waited in {queue} for more than {self.shed_seconds:g} s"
            return AGE, QueueFull(reason, pause)
        if timeout is not None and waited >= timeout:
            return DEADLINE, DeadlineUnmet(queue, waited, timeout)
        return None

    @property
    def trims(self) -> bool:
        """Whether dead letters are removed."""
        return self.dead_letters is not None or self.dead_letter_seconds is not None

    def refusal(self, load: Load, size: int) -> QueueFull | None:
        """Why a request of ``size`` bytes is not taken beside ``load``, or None.

        The same limit has the same reason each time, because a log tells each reason once in a while.
        """
        if self.requests is not None and load.requests >= self.requests:
            return QueueFull(f"queue.limits.requests: {self.requests} requests have not ended")
        if self.bytes is not None and load.bytes + size > self.bytes:
            return QueueFull(f"queue.limits.bytes: the requests that have not ended take most of {self.bytes} bytes")
        return None

    def excess(self, load: Load, requests: int = 0, size: int = 0) -> int:
        """About how many requests have to end before so many more, of ``size`` bytes in all, are within the limits."""
        excess = 0 if self.requests is None else load.requests + requests - self.requests
        if self.bytes is not None and load.bytes:
            excess = max(excess, ceil((load.bytes + size - self.bytes) * load.requests / load.bytes))
        return max(0, excess)


NO_LIMITS = Limits()
