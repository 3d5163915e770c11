# -*- test-case-name: tests.kafka.test_broker -*-
"""Noticing that a topic which is read was deleted and made again.

The offsets of a new topic begin with 0, and librdkafka goes on in it where it was in the old one of that name: what
lies before that would never be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed

from openhqm.errors import NotDurable
from openhqm.kafka.topics import Topics

WATCH_SECONDS = 5.0


class TopicWatch:
    """``reading`` returns the ids of the topics that are read, by name. ``made_again`` is called with such a name."""

    def __init__(
        self,
        topics: Topics,
        reactor: Any,
        reading: Callable[[], Mapping[str, str]],
        made_again: Callable[[str], object],
    ) -> None:
        self._topics = topics
        self._reactor = reactor
        self._reading = reading
        self._made_again = made_again
        self._timer: Any = None
        self._stopped = False

    def start(self) -> None:
        """Look every `WATCH_SECONDS`."""
        if not self._stopped:
            self._timer = self._reactor.callLater(WATCH_SECONDS, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _look(self) -> None:
        ids = self._reading()
        looking: Deferred[list[str]] = self._topics.made_again(ids) if ids else succeed([])
        looking.addCallbacks(self._found, lambda failure: failure.trap(NotDurable))
        looking.addBoth(lambda _: self.start())

    def _found(self, names: list[str]) -> None:
        for name in names:
            self._made_again(name)
