# -*- test-case-name: tests.redis.test_contract,tests.redis.test_recovery -*-
"""Deadlines, and requests that stand in no queue: every process that has the store looks after them.

Each look is bounded. Two processes may end the same request without harm: the first ending wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.messages import Reply
from openhqm.queue.endings import past_deadline
from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred

SWEEP_SECONDS = 1.0
SWEEP_ROWS = 100
ENDED_AT_ONCE = 25
"""So many endings are asked for together: Redis syncs once for them, and what comes in between waits for no more."""
REPAIR_ROWS = 250


class Deadlines:
    """``end`` ends a request by its number.

    Each of ``sweeps`` is called with each look, and fires with whether it has more to do.
    """

    _log = Logger()

    def __init__(self, redis: Redis, end: Any) -> None:
        self._redis = redis
        self._end = end
        self.sweeps: list[Callable[[], Deferred[bool]]] = []
        self._timer: Any = None
        self._running = False

    def start(self) -> None:
        """Begin to look."""
        self._running = True
        self._sweep()

    def stop(self) -> None:
        """Look no more."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _sweep(self) -> None:
        self._look().addCallbacks(self._look_again_in, self._could_not_look)

    def _could_not_look(self, failure: Failure) -> None:
        if not failure.check(NotDurable):
            self._log.failure("looking for deadlines broke down", failure)
        self._look_again_in(SWEEP_SECONDS)

    def _look_again_in(self, seconds: float) -> None:
        if self._running:
            jitter = 0.75 + self._redis.random() / 2  # processes that began together do not all ask together
            self._timer = self._redis.clock.callLater(min(seconds, SWEEP_SECONDS * jitter), self._sweep)

    @deferred
    async def _look(self) -> float:
        """End and repair up to a limit; fires with how many seconds to wait before the next look."""
        asked = self._redis.clock_now()
        overdue, next_one, told = await self._redis.run("overdue", SWEEP_ROWS)
        self._redis.clocks.note(asked, self._redis.clock_now(), float(told))
        for first in range(0, len(overdue), ENDED_AT_ONCE):
            some = overdue[first : first + ENDED_AT_ONCE]
            ending: list[Deferred[Any]] = [self._past_deadline(int(number), int(attempt)) for number, attempt in some]
            for ended, result in await DeferredList(ending, consumeErrors=True):
                if not ended:
                    result.raiseException()
        for number in await self._redis.run("repair", REPAIR_ROWS):
            self._log.critical(
                "request {id} stood in no queue: a stream was trimmed or deleted; it is delivered again",
                id=self._redis.ids.issue(int(number)),
            )
        more = [await sweep() for sweep in self.sweeps]
        if len(overdue) == SWEEP_ROWS or any(more):
            return 0.0
        return float(next_one) if next_one else SWEEP_SECONDS

    def _past_deadline(self, number: int, attempt: int) -> Deferred[bool]:
        reply: Reply = past_deadline(self._redis.ids.issue(number), self._redis.clock_now(), attempt)
        ending: Deferred[bool] = self._end(number, reply)
        return ending
