# -*- test-case-name: tests.queue.test_orphans -*-
"""Orphaned queues: they hold requests of an endpoint or a partition that the configuration has no workers for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Submission
from openhqm.policy.queue_names import holds_requests, parts_of, queue_of, without_share
from openhqm.runtime.deferreds import deferred

LOOK_SECONDS = 60.0
RETRY_SECONDS = 1.0
MOST_ORPHANS = 100


class Orphans:
    """Looks for orphaned queues, and warns of them in the log and in ``warnings``.

    ``requests`` is the name of the request queue, with which the names of all queues begin. ``worked`` are the names
    of the queues that have workers. ``adopt`` is called with a queue beside one of these, of a tenant that has no share
    in this configuration: the workers of that one work on it, too.
    """

    _log = Logger()

    def __init__(
        self,
        queue: IMessageQueue,
        requests: str,
        worked: Collection[str],
        clock: IReactorTime,
        adopt: Callable[[str], object] | None = None,
    ) -> None:
        self._adopt = adopt
        self.warnings: tuple[str, ...] = ()
        self._queue = queue
        self._requests = requests
        self._worked = frozenset(worked)
        self._clock = clock
        self._logged: set[str] = set()
        self._timer: Any = None
        self._running = self._look_again = False

    def start(self) -> None:
        """Look now and every `LOOK_SECONDS`, because other processes fill and empty queues.

        Each queue is logged once.
        """
        self._running = True
        self._look()

    def is_worked(self, submission: Submission) -> bool:
        """Whether the queue in which ``submission`` would wait has workers."""
        return self._is_worked(queue_of(self._requests, submission))

    def _is_worked(self, queue: str) -> bool:
        return queue in self._worked or without_share(queue)[0] in self._worked

    def stop(self) -> None:
        """Stop looking."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def exchange(self, worked: Collection[str]) -> None:
        """From now on ``worked`` are the names of the queues that have workers. Look at once."""
        self._worked = frozenset(worked)
        self._logged -= self._worked
        if self._timer is not None and self._timer.active():
            self._timer.reset(0)
        else:
            self._look_again = True  # a look is under way, which began with the names of before

    @deferred
    async def look(self) -> None:
        """Look once, and set ``warnings``. Fails with `NotDurable` where the queue cannot be asked."""
        found = []
        names = [name for name in await self._queue.queues() if holds_requests(self._requests, name)]
        for name in [name for name in names if name not in self._worked and self._is_worked(name)]:
            if self._adopt is not None:
                self._adopt(name)
        for name in [name for name in names if not self._is_worked(name)][:MOST_ORPHANS]:
            depth = await self._queue.depth(name)
            requests = depth.ready + depth.delayed + depth.in_flight
            if requests:
                found.append(self._describe(name, requests))
                if name not in self._logged:
                    self._logged.add(name)
                    self._log.warn("{text}", text=found[-1], queue=name, requests=requests)
        self.warnings = tuple(found)

    def _look(self) -> None:
        self.look().addCallbacks(lambda done: self._look_in(LOOK_SECONDS), self._look_failed)

    def _look_failed(self, failure: Failure) -> None:
        if not failure.check(NotDurable):
            self._log.failure("looking for queues without workers broke down", failure)
        self._look_in(RETRY_SECONDS if failure.check(NotDurable) else LOOK_SECONDS)

    def _look_in(self, seconds: float) -> None:
        if self._running:
            again, self._look_again = self._look_again, False
            self._timer = self._clock.callLater(0 if again else seconds, self._look)

    def _describe(self, name: str, requests: int) -> str:
        endpoint, partition = parts_of(self._requests, name)
        parts = [f"endpoint {endpoint}"] if endpoint is not None else []
        parts += [f"partition {partition}"] if partition is not None else []
        return (
            f"{requests} requests wait in {name}, and this configuration has no workers for {', '.join(parts)}: "
            "configure it again until the queue is empty, or cancel them"
        )
