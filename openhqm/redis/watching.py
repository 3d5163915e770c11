# -*- test-case-name: tests.redis.test_contract,tests.redis.test_several_processes -*-
"""Listening to a request whose events may happen in any process.

A message says only that there is a new event, and may get lost with its connection. The events are read from the store,
from the last one that was told: after a message, whenever the channel opens, and slowly while there are listeners. So
no event is told before it is durable, none twice, and none is missed for long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from openhqm.errors import OpenHQMError
from openhqm.messages import Event
from openhqm.redis.connection import Redis

SAFETY_SECONDS = 10.0
Listener = Callable[[Event], None]
Read = Callable[[str, int], Deferred[Sequence[Event]]]


class Watching:
    """Listeners by request. Nothing is kept for a request without a listener."""

    def __init__(self, redis: Redis, read: Read) -> None:
        self._redis = redis
        self._read = read
        self._watches: dict[str, _Watch] = {}
        self._safety: Any = None

    def add(self, correlation_id: str, number: int, listener: Listener) -> Callable[[], None]:
        """Tell ``listener`` of new events until the function returned is called."""
        watch = self._watches.get(correlation_id)
        if watch is None:
            watch = self._watches[correlation_id] = _Watch(self._redis, self._read, correlation_id, number)
        watch.listeners.append(listener)
        if self._safety is None:
            self._safety = self._redis.clock.callLater(SAFETY_SECONDS, self._look_again)

        def remove() -> None:
            if listener in watch.listeners:
                watch.listeners.remove(listener)
            if not watch.listeners and self._watches.get(correlation_id) is watch:
                del self._watches[correlation_id]
                watch.stop()

        return remove

    def stop(self) -> None:
        """Look no more."""
        if self._safety is not None:
            self._safety.cancel()
            self._safety = None

    def _look_again(self) -> None:
        self._safety = None
        if self._watches:
            self._safety = self._redis.clock.callLater(SAFETY_SECONDS, self._look_again)
        for watch in list(self._watches.values()):
            watch.look()


class _Watch:
    """The listeners of one request, and the last event that they were told."""

    def __init__(self, redis: Redis, read: Read, correlation_id: str, number: int) -> None:
        self.listeners: list[Listener] = []
        self._read = read
        self._id = correlation_id
        self._told = 1
        self._reading = False
        self._again = False
        self._based = False
        # Asked before the caller's next command, over the same connection: an event from before then the caller finds,
        # and a later one the listener is told.
        self._last: Callable[[], Deferred[Any]] = partial(redis.command, "HGET", f"{redis.prefix}r:{number}", "last")
        self._last().addCallbacks(self._begin_at, self._begin_anywhere)
        self.stop = redis.listen(f"{redis.prefix}e:{number}", lambda message: self.look(), self.look)

    def _begin_at(self, last: bytes | None) -> None:
        self._told = int(last or 1)
        self._based = True
        self.look()

    def _begin_anywhere(self, failure: Failure) -> None:
        """It cannot be read now: tell every event but the acceptance, rather too many than too few."""
        failure.trap(OpenHQMError)
        self._based = True

    def look(self) -> None:
        """Tell what is new."""
        if not self._based:
            return
        if self._reading:
            self._again = True
            return
        self._reading = True
        self._read(self._id, self._told).addCallbacks(self._tell, self._could_not_read)

    def _tell(self, events: Sequence[Event]) -> None:
        self._reading = False
        for event in events:
            if event.number > self._told:
                self._told = event.number
                for listener in tuple(self.listeners):
                    listener(event)
        if len(events) > 1:
            self._again = True  # they may be a piece of what is new
        elif not events and self._told > 1:
            self._last().addCallbacks(self._check, lambda failure: failure.trap(OpenHQMError))
        self._look_once_more()

    def _check(self, last: bytes | None) -> None:
        """Where a failover has forgotten events that were told, what happens next has numbers that were used."""
        if last is not None and int(last) < self._told and self.listeners:
            self._told = int(last) - 1
            self.look()

    def _could_not_read(self, failure: Failure) -> None:
        failure.trap(OpenHQMError)  # unknown, expired, or Redis is away: the next look will tell
        self._reading = False
        self._look_once_more()

    def _look_once_more(self) -> None:
        if self._again and self.listeners:
            self._again = False
            self.look()
