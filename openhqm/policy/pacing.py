# -*- test-case-name: tests.policy.test_pacing -*-
"""How fast, and how many at once, a target is called."""

from __future__ import annotations

CATCH_UP_SECONDS = 0.05
CATCH_UP_SHARE = 0.05


class Pace:
    """At most ``requests`` in ``per_seconds``, evenly spaced (the generic cell rate algorithm, ITU-T I.371).

    What a late timer lost may be caught up with, as far as 50 ms go and as long as no window of ``per_seconds`` sees
    more than a twentieth above ``requests``; nothing else is saved up, so that a target that was idle is not met by a
    burst.
    """

    def __init__(self, requests: float, per_seconds: float) -> None:
        self._interval = per_seconds / requests
        # In whole calls: a window sees one more for each that was begun, even in part.
        self._catch_up = min(CATCH_UP_SECONDS, int(requests * CATCH_UP_SHARE) * self._interval)
        self._next = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until the next call may begin: 0 for now."""
        return max(0.0, self._next - now)

    def begin(self, now: float) -> None:
        """A call begins."""
        self._next = max(self._next, now - self._catch_up) + self._interval


class AdaptiveLimit:
    """How many calls at once a target bears: one more after a round of successes, fewer at once after a failure.

    Additive increase, multiplicative decrease (Chiu and Jain, 1989; RFC 5681, section 3.1), between 1 and ``most``.
    """

    def __init__(self, most: int, decrease: float = 0.7, rest_seconds: float = 1.0) -> None:
        self._most = most
        self._decrease = decrease
        self._rest = rest_seconds
        self._limit = float(min(most, 4))
        self._decreased_at = float("-inf")

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return int(self._limit)

    def end(self, now: float, success: bool | None) -> None:
        """A call has ended; None: it says nothing about the target."""
        if success:
            self._limit = min(self._most, self._limit + 1 / int(self._limit))
        elif success is False and now - self._decreased_at >= self._rest:
            # What was under way together fails together, and is one sign and not many.
            self._decreased_at = now
            self._limit = max(1.0, self._limit * self._decrease)
