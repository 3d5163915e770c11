# -*- test-case-name: tests.policy.test_breaker -*-
"""The circuit breaker: after too many failures a target is left alone, and then asked once whether it is back."""

from __future__ import annotations

import enum
from collections import deque

import attrs

MOST_REMEMBERED = 10_000


class State(enum.Enum):
    """CLOSED: calls go through. OPEN: none does. HALF_OPEN: one does, and decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@attrs.frozen
class BreakerPolicy:
    """Opens for ``open_seconds`` once ``failure_ratio`` of at least ``minimum_calls`` in ``window_seconds`` failed."""

    failure_ratio: float = 0.5
    minimum_calls: int = 20
    window_seconds: float = 30.0
    open_seconds: float = 30.0


NEVER = BreakerPolicy(failure_ratio=float("inf"))
"""For whom nobody can leave alone."""


class Breaker:
    """One target's breaker. Time comes in as an argument, in seconds.

    A call is begun under a period and ended under it. Periods change whenever the breaker does, so that a call from
    before it opened neither closes it nor keeps it open.
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._calls: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False
        self._period = 0

    def state(self, now: float) -> State:
        """Where it stands."""
        if self._open_until is None:
            return State.CLOSED
        return State.OPEN if now < self._open_until else State.HALF_OPEN

    def wait(self, now: float) -> float | None:
        """Seconds until a call may begin: 0 for now, None while a probe is on its way."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        return None if self._probing else 0.0

    def begin(self, now: float) -> int:
        """A call begins; the period it belongs to. While the breaker is half open this is the probe."""
        if self.state(now) is State.HALF_OPEN:
            self._probing = True
        return self._period

    def end(self, now: float, period: int, success: bool | None) -> None:
        """A call of ``period`` has ended. None: it says nothing about the target, and makes room for another probe."""
        if period != self._period:
            return
        if self._probing:
            self._probing = False
            if success:
                self._change(None)
            elif success is False:
                self._change(now + self._policy.open_seconds)
        elif success is not None:
            self._count(now, success)

    def _count(self, now: float, success: bool) -> None:
        policy, calls = self._policy, self._calls
        calls.append((now, success))
        self._failures += not success
        while calls[0][0] <= now - policy.window_seconds or len(calls) > MOST_REMEMBERED:
            self._failures -= not calls.popleft()[1]
        enough = len(calls) >= policy.minimum_calls
        if not success and enough and self._failures >= policy.failure_ratio * len(calls):
            self._change(now + policy.open_seconds)

    def _change(self, open_until: float | None) -> None:
        self._open_until = open_until
        self._period += 1
        self._calls.clear()
        self._failures = 0
