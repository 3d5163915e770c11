# -*- test-case-name: tests.runtime.test_time_limits -*-
"""The time limits of many calls, nearly all of which end before, behind one delayed call of the reactor."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

Late = Callable[[], None]


class TimeLimits:
    """Calls a function when its time is over, unless it was removed before.

    A delayed call is pending only while there are limits. It is for the soonest of those that were there when it was
    made: to make one for each limit would cost more than the rest of most calls' bookkeeping.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due: dict[Late, float] = {}
        self._timer: IDelayedCall | None = None
        self._rings_at = 0.0

    def add(self, seconds: float, late: Late) -> None:
        """Call ``late`` in ``seconds``. It must not raise. It can be added once."""
        due = self._clock.seconds() + seconds
        self._due[late] = due
        if self._timer is None:
            self._rings_at = due
            self._timer = self._clock.callLater(seconds, self._ring)
        elif due < self._rings_at:
            self._rings_at = due
            self._timer.reset(seconds)

    def remove(self, late: Late) -> None:
        """Do not call it any more, if it was not called."""
        self._due.pop(late, None)
        if not self._due and self._timer is not None:
            timer, self._timer = self._timer, None
            timer.cancel()

    def _ring(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for late in [late for late, due in self._due.items() if due <= now]:
            if self._due.pop(late, None) is not None:  # the one before may have removed it
                late()
        if self._due:
            self._rings_at = min(self._due.values())
            delay = max(0.0, self._rings_at - now)
            if self._timer is None:
                self._timer = self._clock.callLater(delay, self._ring)
            else:  # for one that was added just now
                self._timer.reset(delay)
