# -*- test-case-name: tests.queue.test_orphans -*-
"""Queues whose requests nobody works on any more: their endpoint or their partition has left the configuration."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces import IMessageQueue
from openhqm.policy.queue_names import holds_requests, parts_of
from openhqm.runtime.deferreds import deferred

LOOK_SECONDS = 60.0
AGAIN_SECONDS = 1.0
MOST_ORPHANS = 100


class Orphans:
    """``requests`` is the request queue, after which all others are named; ``worked`` are those that have workers."""

    _log = Logger()

    def __init__(self, queue: IMessageQueue, requests: str, worked: Collection[str], clock: IReactorTime) -> None:
        self.warnings: tuple[str, ...] = ()
        self._queue = queue
        self._requests = requests
        self._worked = frozenset(worked)
        self._clock = clock
        self._told: set[str] = set()
        self._timer: Any = None
        self._running = False

    def start(self) -> None:
        """Look now, and now and then: others may fill or empty such a queue. Each is logged once."""
        self._running = True
        self._look()

    def stop(self) -> None:
        """Look no more."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    @deferred
    async def look(self) -> None:
        """Find out which there are now, for ``warnings``. `NotDurable` where nobody can tell."""
        found = []
        names = [name for name in await self._queue.queues() if holds_requests(self._requests, name)]
        for name in [name for name in names if name not in self._worked][:MOST_ORPHANS]:
            depth = await self._queue.depth(name)
            lying = depth.ready + depth.delayed + depth.in_flight
            if lying:
                found.append(self._words(name, lying))
                if name not in self._told:
                    self._told.add(name)
                    self._log.warn("{words}", words=found[-1], queue=name, requests=lying)
        self.warnings = tuple(found)

    def _look(self) -> None:
        self.look().addCallbacks(lambda done: self._look_in(LOOK_SECONDS), self._could_not_look)

    def _could_not_look(self, failure: Failure) -> None:
        if not failure.check(NotDurable):
            self._log.failure("looking for queues without workers broke down", failure)
        self._look_in(AGAIN_SECONDS if failure.check(NotDurable) else LOOK_SECONDS)

    def _look_in(self, seconds: float) -> None:
        if self._running:
            self._timer = self._clock.callLater(seconds, self._look)

    def _words(self, name: str, lying: int) -> str:
        endpoint, partition = parts_of(self._requests, name)
        what = [f"endpoint {endpoint}"] if endpoint is not None else []
        what += [f"partition {partition}"] if partition is not None else []
        return (
            f"{lying} requests lie in {name}, and this configuration has no workers for {', '.join(what)}: "
            "bring that back until the queue is empty, or cancel them"
        )
