# -*- test-case-name: tests.queue.test_contracts -*-
"""The coalesce keys in memory: which request a newer one with the same key takes the place of."""

from __future__ import annotations

import attrs

from openhqm.memory.local_queue import Message
from openhqm.memory.results import MemoryResults
from openhqm.messages import Coalescing
from openhqm.queue.endings import superseded
from openhqm.runtime.timer_queue import TimerQueue


@attrs.define
class _Place:
    until: float
    message: Message | None


class CoalesceKeys:
    """The place of each key, until its most wait is over. ``timers`` are those of the queue."""

    def __init__(self, results: MemoryResults, timers: TimerQueue) -> None:
        self._results = results
        self._timers = timers
        self._places: dict[tuple[str, str], _Place] = {}

    def due(self, coalescing: Coalescing, now: float) -> float:
        """When a request of this key that is accepted now begins. `take` has to follow."""
        key = (coalescing.scope, coalescing.key)
        place = self._places.get(key)
        if place is None or place.until <= now or not self._waits(place):
            place = self._places[key] = _Place(now + coalescing.most, None)
            self._timers.at(place.until, lambda: self._forget(key, place))
        return min(now + coalescing.window, place.until)

    def take(self, coalescing: Coalescing, message: Message) -> None:
        """The request is accepted: the one that had the place ends."""
        place = self._places[coalescing.scope, coalescing.key]
        earlier, place.message = place.message, message
        if earlier is not None:
            reply = superseded(earlier.request.correlation_id, message.at, message.request.correlation_id)
            self._results.note_ending(earlier.key, reply)

    def _waits(self, place: _Place) -> bool:
        message = place.message
        return message is not None and message.attempt == 0 and not self._results.has_ended(message.key)

    def _forget(self, key: tuple[str, str], place: _Place) -> None:
        if self._places.get(key) is place:
            del self._places[key]
