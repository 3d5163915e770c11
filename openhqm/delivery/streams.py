# -*- test-case-name: tests.delivery.test_streams -*-
"""Server-Sent Events: the history of a request, then its events as they happen, up to the ending.

A stream keeps the number of the last event it wrote, and no events. While its client does not read, nothing is buffered
here; when the client reads again, the missed events are read from the result store, piece by piece: all streams
together read `PIECES_AT_ONCE` in an iteration of the reactor, in turn. The framing is that of the HTML
standard, section 9.2.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.delivery.documents import event_document
from openhqm.delivery.streaming import Sink, Streaming
from openhqm.interfaces import IResultStore
from openhqm.messages import Event
from openhqm.policy.places import Places
from openhqm.runtime.reactor_budget import ReactorBudget
from openhqm.runtime.steady_time import never_ahead

KEEP_ALIVE_SECONDS = 15.0
PIECES_AT_ONCE = 4  # of a history, about 64 KiB each
RECONNECT = b"retry: 3000\n\n"
DRAIN_SECONDS = (1.0, 10.0)
"""When the clients of a process that stops come back: spread, so that they do not all come at once."""
KEEP_ALIVE = b": still here\n\n"


def frame(correlation_id: str, event: Event, ahead: float = 0.0) -> bytes:
    """The bytes of one event. JSON text has line breaks only where white space is allowed."""
    return b"id: %d\n%b" % (event.number, framed(event.type, event_document(correlation_id, event, ahead)))


def framed(type: str, data: bytes) -> bytes:
    """The bytes of an event without an id."""
    lines = b"".join(b"data: %b\n" % line for line in data.replace(b"\r", b"\n").split(b"\n"))
    return b"event: %b\n%b\n" % (type.encode(), lines)


def reconnect_later(random: Callable[[], float]) -> bytes:
    """What the client of a process that stops is told. ``random`` returns a number from 0 to 1."""
    low, high = DRAIN_SECONDS
    return b"retry: %d\n\n" % round(1000 * (low + (high - low) * random()))


class EventStreams:
    """All open streams of this process, with the comments that keep their connections open.

    ``on_count`` is called with the number of open streams when it changes. ``ahead`` says how far the time of day is
    ahead of the times in the store. Each stream takes one of the ``places`` of its tenant.
    """

    def __init__(
        self,
        store: IResultStore,
        clock: IReactorTime,
        on_count: Callable[[int], None],
        ahead: Callable[[], float] = never_ahead,
        random: Callable[[], float] = random,
        places: Places | None = None,
    ) -> None:
        self._places = places or Places("open event streams")
        self._random = random
        self.store = store
        self.ahead = ahead
        self.clock = clock
        self._on_count = on_count
        self.budget = ReactorBudget(clock, PIECES_AT_ONCE)
        self._open: dict[EventStream, str | None] = {}
        self._stopped = False
        self._keep_alive_loop = LoopingCall(self._keep_alive)
        self._keep_alive_loop.clock = clock

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self, correlation_id: str, after: int, history: list[Event], sink: Sink, tenant: str | None = None
    ) -> EventStream:
        """Open a stream: write the events in ``history`` behind number ``after``, and go on until the ending.

        ``history`` is the first piece, as the store returns it for ``after``.
        """
        stream = EventStream(self, correlation_id, after, sink)
        self._open[stream] = tenant
        self._places.enter(tenant)
        self._on_count(len(self._open))
        if not self._keep_alive_loop.running:
            self._keep_alive_loop.start(KEEP_ALIVE_SECONDS, now=False)
        stream.begin(history)
        if self._stopped:
            stream.drain(reconnect_later(self._random))
        return stream

    def closed(self, stream: EventStream) -> None:
        """A stream has ended."""
        if stream in self._open:
            self._places.leave(self._open.pop(stream))
        self._on_count(len(self._open))
        if not self._open and self._keep_alive_loop.running:
            self._keep_alive_loop.stop()

    def stop(self) -> None:
        """End all streams, and later ones after their history. Clients reconnect by themselves, to another process."""
        self._stopped = True
        for stream in list(self._open):
            stream.drain(reconnect_later(self._random))

    def _keep_alive(self) -> None:
        for stream in list(self._open):
            stream.keep_alive()


class EventStream(Streaming):
    """One client of the events of one request."""

    __slots__ = (
        "_again",
        "_id",
        "_last",
        "_reading",
        "_streams",
        "_unwatch",
    )
    _log = Logger()

    def __init__(self, streams: EventStreams, correlation_id: str, after: int, sink: Sink) -> None:
        super().__init__(sink)
        self._streams = streams
        self._id = correlation_id
        self._last = after
        self._reading = self._again = False
        self._unwatch = streams.store.watch(correlation_id, self._on_event)

    def begin(self, history: list[Event]) -> None:
        """Write the history, and then what has happened since it was read."""
        self._sink.write(RECONNECT)
        self._sink.registerProducer(self, True)
        self._write_all(history)
        self._catch_up()

    def _on_event(self, event: Event) -> None:
        if event.reply is not None and event.number <= self._last:
            # The store has forgotten events that were written here. Its ending ends the stream all the same.
            self._last = event.number - 1
        if self._reading:
            self._again = True  # the store may have been read before the event
        if self._paused or self._reading or event.number <= self._last:
            return  # the event is, or will be, read from the store
        if event.number == self._last + 1:
            self._write(event)
        else:
            self._catch_up()

    def _catch_up(self) -> None:
        if self._closed or self._reading or self._paused:
            return
        self._reading = True
        budget = self._streams.budget
        if budget.try_acquire():
            self._read()
        else:
            budget.acquire().addCallback(lambda _: self._read())

    def _read(self) -> None:
        if self._closed or self._paused:
            self._reading = self._again = False
            return
        reading: Deferred[Any] = self._streams.store.history(self._id, self._last)
        reading.addCallbacks(self._caught_up, self._cannot_read)

    def _caught_up(self, events: list[Event]) -> None:
        self._reading = False
        again, self._again = self._again, False
        self._write_all(events)
        if events or again:
            self._catch_up()  # events may have happened since the read began

    def _cannot_read(self, failure: Failure) -> None:
        self._reading = False
        self._log.warn(
            "an event stream ends early, and its client will reconnect: the result store failed: {reason}",
            reason=failure.getErrorMessage(),
            correlation_id=self._id,
        )
        self.close()

    def _write_all(self, events: list[Event]) -> None:
        for event in events:
            if self._closed or self._paused:
                return
            if event.number > self._last:
                self._write(event)

    def _write(self, event: Event) -> None:
        self._last = event.number
        self._sink.write(frame(self._id, event, self._streams.ahead()))
        if event.reply is not None:
            self.close()

    def keep_alive(self) -> None:
        """Write a comment, unless the client is stalled. How long it may stall is the connection's decision."""
        if not self._paused:
            self._sink.write(KEEP_ALIVE)

    def _gone(self) -> None:
        self._unwatch()
        self._streams.closed(self)
