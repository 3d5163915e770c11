# -*- test-case-name: tests.queue.test_ending_logs -*-
"""The log of endings in memory."""

from __future__ import annotations

import os
from collections import deque
from itertools import islice

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.interfaces import IEndingLog
from openhqm.messages import LoggedEnding, LogPage, Status
from openhqm.policy.tags import KEPT_SECONDS, MOST_KEPT
from openhqm.queue.watchers import Nudges


@implementer(IEndingLog)
class MemoryEndingLog:
    """The newest endings. ``most`` is how many it has at most."""

    def __init__(self, clock: IReactorTime, most: int = MOST_KEPT) -> None:
        self._clock = clock
        self._name = ""
        self._until = 0.0
        self._last = 0
        self._endings: deque[LoggedEnding] = deque(maxlen=most)
        self._nudges = Nudges()
        self.watch = self._nudges.add

    def keep(self) -> Deferred[None]:
        now = self._clock.seconds()
        if now >= self._until:
            self._name, self._last = os.urandom(8).hex(), 0
            self._endings.clear()
        self._until = now + KEPT_SECONDS
        return succeed(None)

    def read(self, after: int, most: int) -> Deferred[LogPage]:
        self._trim()
        if not self._until:
            return succeed(LogPage("", 1, 0))
        first = self._last - len(self._endings) + 1
        skipped = max(0, after + 1 - first)
        return succeed(LogPage(self._name, first, self._last, tuple(islice(self._endings, skipped, skipped + most))))

    def note(self, correlation_id: str, status: Status, tags: tuple[str, ...] | None, tenant: str | None) -> None:
        """A request of ``tenant`` has ended. ``tags``: see `logged_tags`."""
        if not self._until or tags is None:
            return
        self._trim()
        if self._until:
            self._last += 1
            ending = LoggedEnding(self._last, correlation_id, status, self._clock.seconds(), tags, tenant)
            self._endings.append(ending)
            self._nudges.tell()

    def _trim(self) -> None:
        now = self._clock.seconds()
        if now >= self._until:
            self._until = 0.0
            self._endings.clear()
        while self._endings and self._endings[0].at <= now - KEPT_SECONDS:
            self._endings.popleft()
