# -*- test-case-name: tests.runtime.test_timer_queue -*-
"""Things to do at their time, behind one timer."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.interfaces import IReactorTime


class TimerQueue:
    """Calls what was put in once its time has come. A timer runs only while something is in it."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._timer: Any = None
        self._stopped = False

    def at(self, due: float, call: Callable[[], None]) -> None:
        """Call ``call`` at ``due``, in seconds of the clock. It must not raise."""
        heapq.heappush(self._entries, (due, next(self._order), call))
        if self._entries[0][0] == due:
            self._arm()

    def stop(self) -> None:
        """Forget everything."""
        self._stopped = True
        self._entries.clear()
        self._disarm()

    def _arm(self) -> None:
        self._disarm()
        if self._entries and not self._stopped:
            delay = max(0.0, self._entries[0][0] - self._clock.seconds())
            self._timer = self._clock.callLater(delay, self._ring)

    def _disarm(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _ring(self) -> None:
        while self._entries and self._entries[0][0] <= self._clock.seconds():
            heapq.heappop(self._entries)[2]()
        self._arm()
