# -*- test-case-name: tests.policy.test_limits -*-
"""How much a queue takes: how many requests that have not ended, and how many bytes of them."""

from __future__ import annotations

from math import ceil

import attrs

from openhqm.errors import QueueFull
from openhqm.messages import Load


@attrs.frozen
class Limits:
    """The most ``requests`` and ``bytes`` that a queue takes; None: as many as there is room for.

    ``drop_oldest``: where it is full, the oldest request that waits ends for a new one. Else the new one is refused.

    ``age_seconds`` is how long a request may wait for its first attempt; then it ends. None: for ever.

    ``dead_letters`` is how many of those are kept, the newest, and ``dead_letter_seconds`` for how long; None: all, for
    ever.
    """

    requests: int | None = None
    bytes: int | None = None
    drop_oldest: bool = False
    dead_letters: int | None = None
    dead_letter_seconds: float | None = None
    age_seconds: float | None = None
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
