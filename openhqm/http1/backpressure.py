# -*- test-case-name: tests.http1.test_channel -*-
"""The sending side of a channel: the producer of the response, and peers that have stopped to read it."""

from __future__ import annotations

from typing import Any

from openhqm.http1.send_backlog import send_backlog
from openhqm.runtime.pull_to_push import PullToPush

STALL_SECONDS = 30.0


class ResponseConsumer:
    """Mix-in for a channel: an `IConsumer` for the response, which notices a stalled peer.

    A peer is stalled when it receives nothing for `STALL_SECONDS` although bytes wait for it. The channel calls
    `_start_stall_timer` when its transport's buffer is full, and sets ``_stalled_at`` to None when it has room again.
    """

    transport: Any
    factory: Any

    def __init__(self) -> None:
        self._producer: Any = None
        self._write_some: Any = None  # `writeSomeData` of the transport; None: bytes may wait in the transport's buffer
        self._stalled_at: float | None = None  # since when the peer has received nothing, while bytes wait for it
        self._backlog: float = 0  # those bytes, when they were last counted

    def _send(self, data: bytes) -> None:
        """Write to the socket at once while nothing waits before it, which saves an iteration of the reactor."""
        if self._write_some is not None:
            sent = self._write_some(data)
            if sent == len(data):
                return
            self._write_some = None
            if isinstance(sent, int) and sent > 0:
                data = data[sent:]
        self.transport.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause and resume ``producer`` as the peer reads. Without ``streaming`` it is a pull producer."""
        if self._producer is not None:
            raise RuntimeError("a producer is registered with this connection already")
        self._producer = producer if streaming else PullToPush(producer, self.factory.clock)
        if self._stalled_at is not None:
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """The producer has produced everything."""
        producer, self._producer = self._producer, None
        if isinstance(producer, PullToPush):
            producer.stop()

    def _start_stall_timer(self) -> None:
        if self._stalled_at is None:
            self._stalled_at = self.factory.clock.seconds()
            self._backlog = float("inf")

    def _has_stalled(self, now: float) -> bool:
        if self._stalled_at is None:
            return False
        before, self._backlog = self._backlog, send_backlog(self.transport)
        if self._backlog < before:  # the peer is slow, but it reads
            self._stalled_at = now
        return now - self._stalled_at > STALL_SECONDS
