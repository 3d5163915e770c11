# -*- test-case-name: tests.runtime.test_reactor_budget -*-
"""A few in each turn of the reactor: what many ask for at once does not keep a turn from ending."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class ReactorBudget:
    """Lets ``most`` go on in each turn. Whoever comes later goes on in one of the next, in the order of asking."""

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._clock = clock
        self._most = self._left = most
        self._waiting: deque[Deferred[None]] = deque()
        self._counting = False

    def free(self) -> bool:
        """Whether one more may go on in this turn; it counts as one that does. Else: `wait`."""
        self._count()
        if self._left and not self._waiting:
            self._left -= 1
            return True
        return False

    def wait(self) -> Deferred[None]:
        """Fires in the turn in which whoever waits may go on. Cancelling gives the place up."""
        self._count()
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def _count(self) -> None:
        if not self._counting:
            self._counting = True
            self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._counting = False
        self._left = self._most
        if self._waiting:
            self._count()
        while self._left and self._waiting:
            self._left -= 1
            self._waiting.popleft().callback(None)
