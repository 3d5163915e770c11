# -*- test-case-name: tests.runtime.test_timer_queue -*-
"""Many timers behind one delayed call of the reactor."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.interfaces import IReactorTime


class TimerQueue:
    """Calls functions at their due times, in order. A delayed call is pending only while there are entries."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._timer: Any = None
        self._stopped = False

    def at(self, due: float, call: Callable[[], None]) -> None:
        """Call ``call`` at ``due``, in seconds of the clock. ``call`` must not raise, and cannot be cancelled."""
        heapq.heappush(self._entries, (due, next(self._order), call))
        if self._entries[0][0] == due:
            self._schedule()

    def stop(self) -> None:
        """Drop all entries, and all that are added later."""
        self._stopped = True
        self._entries.clear()
        self._cancel()

    def _schedule(self) -> None:
        self._cancel()
        if self._entries and not self._stopped:
            delay = max(0.0, self._entries[0][0] - self._clock.seconds())
            self._timer = self._clock.callLater(delay, self._run_due)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _run_due(self) -> None:
        while self._entries and self._entries[0][0] <= self._clock.seconds():
            heapq.heappop(self._entries)[2]()
        self._schedule()
