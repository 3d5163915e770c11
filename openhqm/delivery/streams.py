# -*- test-case-name: tests.delivery.test_streams -*-
"""Server-Sent Events: the whole history of a request, then what happens, then the end of the stream.

A stream keeps the number of the last event it wrote, and nothing else: while its reader stalls nothing is
buffered here, and when the reader comes back what it missed is read from the store. The framing is that of the
HTML standard, section 9.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.delivery.documents import event_document
from openhqm.interfaces import IResultStore
from openhqm.messages import Event

KEEP_ALIVE_SECONDS = 15.0
RECONNECT = b"retry: 3000\n\n"
KEEP_ALIVE = b": still here\n\n"


class Sink(Protocol):
    """Where a stream writes: an HTTP response."""

    def write(self, data: bytes) -> object:
        """Send this."""

    def finish(self) -> object:
        """The stream is complete."""

    def registerProducer(self, producer: Any, streaming: bool) -> object:
        """Tell ``producer`` when the buffer between us and the reader is full, and when it is not."""

    def unregisterProducer(self) -> object:
        """Tell it no more."""


def frame(correlation_id: str, event: Event) -> bytes:
    """One event as it goes over the wire. JSON text holds no line breaks outside of white space."""
    data = event_document(correlation_id, event)
    lines = b"".join(b"data: %b\n" % line for line in data.replace(b"\r", b"\n").split(b"\n"))
    return b"id: %d\nevent: %b\n%b\n" % (event.number, event.type.encode(), lines)


class Streams:
    """All open streams of this process, and the comment that keeps them open."""

    def __init__(self, store: IResultStore, clock: IReactorTime, counted: Callable[[int], None]) -> None:
        self.store = store
        self.clock = clock
        self._counted = counted
        self._open: set[Stream] = set()
        self._stopped = False
        self._keeping = LoopingCall(self._keep_alive)
        self._keeping.clock = clock

    def __len__(self) -> int:
        return len(self._open)

    def open(self, correlation_id: str, after: int, history: list[Event], sink: Sink) -> Stream:
        """Write what ``history`` has behind event ``after``, and go on until the ending."""
        stream = Stream(self, correlation_id, after, sink)
        self._open.add(stream)
        self._counted(len(self._open))
        if not self._keeping.running:
            self._keeping.start(KEEP_ALIVE_SECONDS, now=False)
        stream.begin(history)
        if self._stopped:
            stream.close()
        return stream

    def closed(self, stream: Stream) -> None:
        """A stream is over."""
        self._open.discard(stream)
        self._counted(len(self._open))
        if not self._open and self._keeping.running:
            self._keeping.stop()

    def stop(self) -> None:
        """End every stream, and those to come at once; readers come back by themselves, to whoever answers then."""
        self._stopped = True
        for stream in list(self._open):
            stream.close()

    def _keep_alive(self) -> None:
        for stream in list(self._open):
            stream.keep_alive()


@implementer(IPushProducer)
class Stream:
    """One reader of one request's events."""

    __slots__ = ("__weakref__", "_id", "_last", "_over", "_paused", "_reading", "_sink", "_streams", "_unwatch")
    _log = Logger()

    def __init__(self, streams: Streams, correlation_id: str, after: int, sink: Sink) -> None:
        self._streams = streams
        self._id = correlation_id
        self._last = after
        self._sink = sink
        self._paused = False
        self._reading = False
        self._over = False
        self._unwatch = streams.store.watch(correlation_id, self._happened)

    def begin(self, history: list[Event]) -> None:
        """Write the history. Nothing can have been missed: reading on closes any gap."""
        self._sink.write(RECONNECT)
        self._sink.registerProducer(self, True)
        self._write_all(history)
        self._catch_up()

    def _happened(self, event: Event) -> None:
        if self._paused or self._reading or event.number <= self._last:
            return  # paused: read from the store later; reading: part of what is being read
        if event.number == self._last + 1:
            self._write(event)
        else:
            self._catch_up()

    def _catch_up(self) -> None:
        if self._over or self._reading or self._paused:
            return
        self._reading = True
        reading: Deferred[Any] = self._streams.store.history(self._id, self._last)
        reading.addCallbacks(self._caught_up, self._could_not_read)

    def _caught_up(self, events: list[Event]) -> None:
        self._reading = False
        self._write_all(events)
        if events:
            self._catch_up()  # what came while we were reading, and for a reader that has just come back

    def _could_not_read(self, failure: Failure) -> None:
        self._reading = False
        self._log.warn("a stream ends early: {reason}", reason=failure.getErrorMessage(), correlation_id=self._id)
        self.close()

    def _write_all(self, events: list[Event]) -> None:
        for event in events:
            if self._over or self._paused:
                return
            if event.number > self._last:
                self._write(event)

    def _write(self, event: Event) -> None:
        self._last = event.number
        self._sink.write(frame(self._id, event))
        if event.reply is not None:
            self.close()

    def keep_alive(self) -> None:
        """Write a comment, unless the reader has stalled. For how long it may is up to whoever holds the connection."""
        if not self._paused:
            self._sink.write(KEEP_ALIVE)

    def close(self) -> None:
        """End the stream."""
        if self._forget():
            self._sink.unregisterProducer()
            self._sink.finish()

    def lost(self) -> None:
        """The reader has gone."""
        self._forget()

    def _forget(self) -> bool:
        if self._over:
            return False
        self._over = True
        self._unwatch()
        self._streams.closed(self)
        return True

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._catch_up()

    def stopProducing(self) -> None:
        self._forget()
