# -*- test-case-name: tests.workers.test_gate -*-
"""The gate before a target: nobody goes to one that is down, too busy, or was called too often already."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from openhqm.policy.breaker import Breaker, State
from openhqm.policy.pacing import AdaptiveLimit, Pace


class GateClosed(Exception):
    """The breaker opened while this call waited for its turn."""


@attrs.frozen(eq=False)
class Call:
    """A call that was let in. `end` must follow, once."""

    _gate: Gate
    _period: int

    def end(self, success: bool | None) -> None:
        """It is over. None: it says nothing about the target."""
        self._gate.ended(self._period, success)


class Gate:
    """Lets calls begin, in the order of asking, as breaker, pace and limit allow.

    ``limit`` is the most that may be under way at once (None: as many as there are hands). ``ended_calls`` counts
    them by what they said about the target.
    """

    def __init__(
        self,
        clock: IReactorTime,
        breaker: Breaker,
        *,
        limit: int | None = None,
        pace: Pace | None = None,
        adaptive: AdaptiveLimit | None = None,
    ) -> None:
        self._clock = clock
        self._breaker = breaker
        self._limit = limit
        self._pace = pace
        self._adaptive = adaptive
        self._under_way = 0
        self.ended_calls: dict[bool | None, int] = {True: 0, False: 0, None: 0}
        self._waiting: deque[Deferred[Call]] = deque()
        self._outside: deque[Deferred[None]] = deque()
        self._timer: Any = None
        self._looking = self._look_once_more = False

    @property
    def state(self) -> State:
        """Where the breaker stands."""
        return self._breaker.state(self._clock.seconds())

    @property
    def under_way(self) -> int:
        """How many calls have begun and not ended."""
        return self._under_way

    def passable(self) -> Deferred[None]:
        """Fires once the breaker would let a call through: before that there is no point in taking one from a queue.

        Cancelling gives up the waiting.
        """
        if self._breaker.wait(self._clock.seconds()) == 0.0:
            return succeed(None)
        waiter: Deferred[None] = Deferred(lambda waiter: self._forget(self._outside, waiter))
        self._outside.append(waiter)
        self._look_again()
        return waiter

    def enter(self) -> Deferred[Call]:
        """Fires with a call that has begun. `GateClosed`: it cannot, for some time. Cancelling gives up the place."""
        if not self._waiting and self._wait() == 0.0:
            return succeed(self._begin())
        waiter: Deferred[Call] = Deferred(lambda waiter: self._forget(self._waiting, waiter))
        self._waiting.append(waiter)
        self._look_again()
        return waiter

    def ended(self, period: int, success: bool | None) -> None:
        """A call is over."""
        now = self._clock.seconds()
        self._under_way -= 1
        self.ended_calls[success] += 1
        self._breaker.end(now, period, success)
        if self._adaptive is not None:
            self._adaptive.end(now, success)
        self._look_again()

    def _begin(self) -> Call:
        now = self._clock.seconds()
        self._under_way += 1
        if self._pace is not None:
            self._pace.begin(now)
        return Call(self, self._breaker.begin(now))

    def _wait(self) -> float | None:
        """Seconds until a call may begin, or None: when another one has ended."""
        now = self._clock.seconds()
        limit = self._limit if self._adaptive is None else self._adaptive.limit
        closed = self._breaker.wait(now)
        if closed is None or (limit is not None and self._under_way >= limit):
            return None
        return max(closed, self._pace.wait(now) if self._pace is not None else 0.0)

    def _look_again(self) -> None:
        # Who is let in may end at once, and so come back here: then the one who looks already looks once more. Else
        # a long queue before a target that refuses at once would be a deep stack, with a timer on every level.
        self._look_once_more = True
        if self._looking:
            return
        self._looking = True
        try:
            while self._look_once_more:
                self._look_once_more = False
                self._let_in()
        finally:
            self._looking = False
        self._set_timer()

    def _let_in(self) -> None:
        if self.state is State.OPEN:
            self._turn_away()
        while self._waiting and self._wait() == 0.0:
            self._waiting.popleft().callback(self._begin())
        now = self._clock.seconds()
        while self._outside and self._breaker.wait(now) == 0.0:
            self._outside.popleft().callback(None)

    def _set_timer(self) -> None:
        if self._timer is not None:
            timer, self._timer = self._timer, None
            timer.cancel()
        now = self._clock.seconds()
        waits = [
            wait
            for wait, somebody in ((self._wait(), self._waiting), (self._breaker.wait(now), self._outside))
            if somebody and wait  # None: whoever ends next looks again
        ]
        if waits:
            self._timer = self._clock.callLater(min(waits), self._ring)

    def _turn_away(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            waiter.errback(GateClosed())

    def _ring(self) -> None:
        self._timer = None
        self._look_again()

    def _forget(self, waiting: deque[Any], waiter: Deferred[Any]) -> None:
        with suppress(ValueError):  # it is being turned away just now
            waiting.remove(waiter)
        self._look_again()  # where nobody waits, no timer runs
