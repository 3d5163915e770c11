# -*- test-case-name: tests.fleet.test_parts,tests.fleet.test_fleet -*-
"""Who stands where: a process in each place, and another one in its place when it dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import DeferredList
from twisted.logger import Logger

from openhqm.fleet.child import Child
from openhqm.fleet.counts import Counts
from openhqm.fleet.inheritance import Source
from openhqm.fleet.protocol import Everybody, Process, Question
from openhqm.policy.retry import RetryPolicy
from openhqm.runtime.deferreds import deferred

START_SECONDS = 60.0
YOUNG_SECONDS = 10.0
BACK_OFF = RetryPolicy(base_seconds=0.5, factor=2.0, max_seconds=30.0, jitter=0.2)
"""Before the next one, where one after the other dies before it is `YOUNG_SECONDS` old."""


@attrs.define(eq=False)
class Place:
    """Where one process stands after the other."""

    child: Child | None = None
    died_young: int = 0
    due: Any = None  # the call that puts a process here, where that is put off


class Supervisor:
    """``spawn`` starts a process under a configuration; `source` is what those run that are started for the dead."""

    _log = Logger()

    def __init__(
        self, source: Source, clock: Any, random: Callable[[], float], spawn: Callable[[Child, Source], object]
    ) -> None:
        self.source = source
        self.places: list[Place] = []
        self.living: set[Child] = set()
        self._clock = clock
        self._random = random
        self._spawn = spawn
        self._closed = False
        self._counts = Counts(lambda: self.living)

    def new_child(self, source: Source) -> Child:
        """A process that stands in no place yet: nobody takes its place when it ends."""
        child = Child(self._clock, source.settings.server.drain_seconds, self._answer, self._ended)
        self._spawn(child, source)
        self.living.add(child)
        return child

    @deferred
    async def fill(self, place: Place) -> bool:
        """Put a new process under `source` into ``place``; whether it serves."""
        place.due = None
        try:
            place.child = child = self.new_child(self.source)
        except OSError as error:  # no memory, or as many processes as may be
            self._log.error("no process can be started: {error}", error=error)
            self._put_off(place)
            return False
        if await child.started(START_SECONDS) and await child.serve(START_SECONDS):
            return True
        if not child.over and not child.leaving:
            self._log.error("process {pid} does not begin to serve, and is killed", pid=child.pid)
            child.kill()
        return False

    def put(self, child: Child, place: Place) -> Child | None:
        """``child`` stands in ``place`` from now on; whoever stood there, if anybody."""
        self._wait_no_more(place)
        if place not in self.places:
            self.places.append(place)
        before, place.child, place.died_young = place.child, child, 0
        return before

    def remove(self, place: Place) -> Child | None:
        """There is no such place any more; whoever stands there, if anybody."""
        self._wait_no_more(place)
        self.places.remove(place)
        return place.child

    def close(self) -> None:
        """Nobody is replaced any more."""
        self._closed = True
        for place in self.places:
            self._wait_no_more(place)

    @deferred
    async def stop(self) -> None:
        """End all processes."""
        self.close()
        await DeferredList([child.stop() for child in list(self.living)])

    def _wait_no_more(self, place: Place) -> None:
        if place.due is not None:
            place.due.cancel()
            place.due = None

    def _ended(self, child: Child) -> None:
        self.living.discard(child)
        self._counts.ended(child)
        place = next((place for place in self.places if place.child is child), None)
        if place is None:
            return
        place.child = None
        if self._closed:
            return
        self._log.error(
            "process {pid} ended {how} after {lived:.1f} s, without having been told to",
            pid=child.pid,
            how=child.how,
            lived=child.lived,
        )
        if child.lived >= YOUNG_SECONDS:
            place.died_young = 0
            self.fill(place)
        else:
            self._put_off(place)

    def _put_off(self, place: Place) -> None:
        place.died_young += 1
        delay = BACK_OFF.delay(place.died_young, self._random)
        self._log.info("the next one comes in {seconds:.1f} s", seconds=delay)
        place.due = self._clock.callLater(delay, self.fill, place)

    def _answer(self, question: Question) -> Everybody:
        processes = [Process(child.pid, child.state, child.standing) for child in self.living]
        missing = max(0, len(self.places) - sum(process.state != "leaving" for process in processes))
        return Everybody(question.number, processes, missing, self._counts.all() if question.figures else None)
