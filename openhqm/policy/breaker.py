# -*- test-case-name: tests.policy.test_breaker -*-
"""The circuit breaker: after too many failures it stops calls to a target, and lets a single call probe it later."""

from __future__ import annotations

import enum
from collections import deque

import attrs

MOST_REMEMBERED = 10_000
UNREACHABLE_CALLS = 3
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0


class State(enum.Enum):
    """CLOSED: calls may begin. OPEN: none may. HALF_OPEN: one may, the probe, whose outcome decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@attrs.frozen
class BreakerPolicy:
    """Opens for ``open_seconds`` once ``failure_ratio`` of the calls in ``window_seconds`` failed, of at least
    ``minimum_calls``.

    Whatever these say, it opens once `UNREACHABLE_CALLS` calls in succession got no connection: first for `FIRST_PAUSE`
    seconds, and for twice as long each time that there is still none, up to `LONGEST_PAUSE` (or ``open_seconds``, where
    that is less).
    """

    failure_ratio: float = 0.5
    minimum_calls: int = 20
    window_seconds: float = 30.0
    open_seconds: float = 30.0


NEVER = BreakerPolicy(failure_ratio=float("inf"))
"""A policy that never opens, for targets that are not one server."""


class Breaker:
    """The breaker of one target. Times are arguments, in seconds.

    A call begins in a period and ends in it. The period changes whenever the breaker changes, so that a call begun
    before that neither closes it nor keeps it open.
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._calls: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False
        self._period = 0
        self._unreachable_calls = 0  # in succession
        self._pause = FIRST_PAUSE
        self.unreachable = False
        """Whether it is open because there was no connection."""
        self.opened_at: float | None = None
        """When it opened from closed. None while it is closed."""

    def state(self, now: float) -> State:
        """The state at ``now``."""
        if self._open_until is None:
            return State.CLOSED
        return State.OPEN if now < self._open_until else State.HALF_OPEN

    def wait(self, now: float) -> float | None:
        """Seconds until a call may begin: 0 for now, None while a probe is under way."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        return None if self._probing else 0.0

    def begin(self, now: float) -> int:
        """A call begins. Returns its period, for `end`. In state HALF_OPEN the call is the probe."""
        if self._open_until is not None and self.state(now) is State.HALF_OPEN:
            self._probing = True
        return self._period

    def end(self, now: float, period: int, success: bool | None, *, reached: bool = True) -> None:
        """A call of ``period`` has ended with ``success``. None says nothing about the target: another probe may
        follow. Not ``reached``: it failed for want of a connection.
        """
        if period != self._period:
            return
        if self._probing:
            self._probing = False
            if success:
                self._close()
            elif success is False:
                self._open(now, reached)
        elif success is not None:
            self._unreachable_calls = 0 if reached else self._unreachable_calls + 1
            self._count(now, success, reached)

    def _count(self, now: float, success: bool, reached: bool) -> None:
        policy, calls = self._policy, self._calls
        calls.append((now, success))
        self._failures += not success
        while calls[0][0] <= now - policy.window_seconds or len(calls) > MOST_REMEMBERED:
            self._failures -= not calls.popleft()[1]
        enough = len(calls) >= policy.minimum_calls
        if policy is NEVER or success:
            return
        if self._unreachable_calls >= UNREACHABLE_CALLS or (
            enough and self._failures >= policy.failure_ratio * len(calls)
        ):
            self._open(now, reached)

    def _open(self, now: float, reached: bool) -> None:
        self.unreachable = not reached
        self.opened_at = now if self.opened_at is None else self.opened_at
        if reached:
            self._pause = FIRST_PAUSE
            self._change(now + self._policy.open_seconds)
        else:
            self._change(now + min(self._pause, self._policy.open_seconds))
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _close(self) -> None:
        self.unreachable = False
        self.opened_at = None
        self._pause = FIRST_PAUSE
        self._change(None)

    def _change(self, open_until: float | None) -> None:
        self._open_until = open_until
        self._period += 1
        self._calls.clear()
        self._failures = self._unreachable_calls = 0
