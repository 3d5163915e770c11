# -*- test-case-name: tests.delivery.test_streams,tests.delivery.test_ending_streams -*-
"""What every event stream has in common: it writes while its client reads, and ends once."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


class Sink(Protocol):
    """The HTTP response that a stream writes to."""

    def write(self, data: bytes) -> object:
        """Send ``data``."""

    def finish(self) -> object:
        """The stream is complete."""

    def registerProducer(self, producer: Any, streaming: bool) -> object:
        """Pause ``producer`` while the client does not keep up, and stop it once the client is gone."""

    def unregisterProducer(self) -> object:
        """Control the producer no more."""


@implementer(IPushProducer)
class Streaming:
    """A stream to one client, which reads what was written to ``sink``. Each kind writes in ways of its own."""

    __slots__ = ("__weakref__", "_closed", "_paused", "_sink")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._paused = self._closed = False

    def drain(self, farewell: bytes) -> None:
        """End the stream with ``farewell``, unless it has ended."""
        if not self._closed:
            self._sink.write(farewell)
            self.close()

    def close(self) -> None:
        """End the stream."""
        if self._end():
            self._sink.unregisterProducer()
            self._sink.finish()

    def lost(self) -> None:
        """The client is gone."""
        self._end()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._catch_up()

    def stopProducing(self) -> None:
        self._end()

    def _end(self) -> bool:
        """Whether it had not ended before."""
        if self._closed:
            return False
        self._closing()
        self._closed = True
        self._gone()
        return True

    def _catch_up(self) -> None:
        """Write what has happened while the client did not read."""

    def _closing(self) -> None:
        """It ends, and has not yet."""

    def _gone(self) -> None:
        """It has ended: let go of what tells it anything."""
