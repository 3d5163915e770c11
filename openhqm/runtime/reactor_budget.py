# -*- test-case-name: tests.runtime.test_reactor_budget -*-
"""A limit of how much work begins in one iteration of the reactor, so that no iteration takes long."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class ReactorBudget:
    """Gives out ``most`` permits in each iteration of the reactor, in the order of asking."""

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._clock = clock
        self._most = self._left = most
        self._waiting: deque[Deferred[None]] = deque()
        self._counting = False

    def try_acquire(self) -> bool:
        """Take a permit of this iteration. False where none is left, or where others wait: then use `acquire`."""
        self._start_counting()
        if self._left and not self._waiting:
            self._left -= 1
            return True
        return False

    def acquire(self) -> Deferred[None]:
        """Fires with a permit, in one of the next iterations. Cancelling leaves the permit to the next in line."""
        self._start_counting()
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def _start_counting(self) -> None:
        if not self._counting:
            self._counting = True
            self._clock.callLater(0, self._refill)

    def _refill(self) -> None:
        self._counting = False
        self._left = self._most
        if self._waiting:
            self._start_counting()
        while self._left and self._waiting:
            self._left -= 1
            self._waiting.popleft().callback(None)
