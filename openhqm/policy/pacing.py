# -*- test-case-name: tests.policy.test_pacing -*-
"""Limits of the rate and of the concurrency of calls to a target."""

from __future__ import annotations

CATCH_UP_SECONDS = 0.05
CATCH_UP_SHARE = 0.05


class Pace:
    """At most ``requests`` in ``per_seconds``, evenly spaced (the generic cell rate algorithm, ITU-T I.371).

    A call that a late timer delayed may be caught up with, by at most 50 ms, and as long as no window of
    ``per_seconds`` gets more than 5 % above ``requests``. Nothing else is saved up, so that an idle target gets no
    burst.
    """

    def __init__(self, requests: float, per_seconds: float) -> None:
        self._interval = per_seconds / requests
        # In whole calls, because a part of an interval saved up adds a whole call to a window.
        self._catch_up = min(CATCH_UP_SECONDS, int(requests * CATCH_UP_SHARE) * self._interval)
        self._next = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until the next call may begin: 0 for now."""
        return max(0.0, self._next - now)

    def begin(self, now: float) -> None:
        """A call begins."""
        self._next = max(self._next, now - self._catch_up) + self._interval


class AdaptiveLimit:
    """How many concurrent calls a target gets: slowly more with each success, fewer at once after a failure.

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
        """How many calls may be under way now."""
        return int(self._limit)

    def end(self, now: float, success: bool | None) -> None:
        """A call has ended with ``success``. None says nothing about the target."""
        if success:
            self._limit = min(self._most, self._limit + 1 / int(self._limit))
        elif success is False and now - self._decreased_at >= self._rest:
            # Concurrent calls fail together, which counts as one failure.
            self._decreased_at = now
            self._limit = max(1.0, self._limit * self._decrease)
