# -*- test-case-name: tests.runtime.test_steady_time -*-
"""Time that no step of the machine's clock moves, and how far the time of day is ahead of it.

The reactor of Twisted measures by the time of day. When that is set back by an hour, everything that waits does so for
an hour longer, and when it is set forward, every deadline passes. In our processes the reactor's time, which every
`IReactorTime` here is, begins with the time of day and goes on evenly. All that is due is due by that time. The time of
day is for what people see: times in documents, and those that callers name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

TOLERATED_SECONDS = 0.5
"""Clocks that are kept in step by small corrections never differ by so much."""


# The seconds since the machine was started. On Linux those count in which it was suspended.
_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


_elapsed = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)


class SteadyTime:
    """Seconds since the epoch: the time of day at first, and from then on by ``elapsed``.

    ``began`` is what it would have said when ``elapsed`` began: when the machine was started.
    """

    def __init__(self, time_of_day: Callable[[], float], elapsed: Callable[[], float] = _elapsed) -> None:
        self._time_of_day = time_of_day
        self._elapsed = elapsed
        self.began = time_of_day() - elapsed()

    def __call__(self) -> float:
        return self.began + self._elapsed()

    def ahead(self) -> float:
        """By how many seconds the time of day is ahead, where it was set since this began; else 0.0."""
        seconds = self._time_of_day() - self.began - self._elapsed()
        return seconds if abs(seconds) > TOLERATED_SECONDS else 0.0

    def set_back(self, reactor: Any, seconds: float) -> None:
        """Say ``seconds`` less from now on. What ``reactor``, which measures by it, has delayed is moved, too."""
        left = [(call, call.getTime() - self()) for call in reactor.getDelayedCalls()]
        self.began -= seconds
        for call, remaining in left:
            call.reset(max(0.0, remaining))


def keep_steady(reactor: Any) -> None:
    """Let ``reactor``, in which no call is delayed yet, measure by steady time, which is its ``steady_time``."""
    reactor.steady_time = SteadyTime(time.time)
    reactor.seconds = reactor.steady_time.__call__  # as a method: the interpreter calls it faster than an object


def ahead_of(clock: Any) -> Callable[[], float]:
    """What tells by how many seconds the time of day is ahead of ``clock``.

    A clock without a ``steady_time``, as in tests, shows the time of day.
    """
    steady: SteadyTime | None = getattr(clock, "steady_time", None)
    return never_ahead if steady is None else steady.ahead


def never_ahead() -> float:
    """For times that are the time of day already."""
    return 0.0
