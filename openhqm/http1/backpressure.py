# -*- test-case-name: tests.http1.test_channel -*-
"""The sending side of a channel: the producer of the response, and peers that have stopped to read it."""

from __future__ import annotations

from typing import Any

from openhqm.http1.send_backlog import send_backlog, waiting_bytes
from openhqm.runtime.pull_to_push import PullToPush

STALL_SECONDS = 30.0
LEAST_READ_PER_SECOND = 1024  # bytes; a peer that reads less is late after `STALL_SECONDS` at most
LATE_SECONDS = 5.0  # behind that rate: then a peer is cut off where its memory is needed for others


class ResponseConsumer:
    """Mix-in for a channel: an `IConsumer` for the response, which notices a peer that reads too slowly.

    While bytes wait for the peer, it has `STALL_SECONDS` to receive some. A second passes with each second, and each
    `LEAST_READ_PER_SECOND` bytes that it has received gain one, but never more than it began with: any progress at all
    is not enough. The channel calls `_start_stall_timer` when its transport's buffer is full, and `_stop_stall_timer`
    when it has room again.

    ``waiting`` is what this connection counts in the site's `SendBudget`.
    """

    transport: Any
    factory: Any

    def __init__(self) -> None:
        self.waiting = 0
        self._producer: Any = None
        self._write_some: Any = None  # `writeSomeData` of the transport; None: bytes may wait in the transport's buffer
        self._stalled_at: float | None = None  # when `_patience` was counted last; None: no bytes wait for the peer
        self._patience = STALL_SECONDS  # seconds left to the peer
        self._backlog = 0  # the bytes that wait for the peer, when they were last counted

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

    @property
    def late(self) -> float:
        """For how many seconds the peer is behind the rate at which it has to read."""
        return STALL_SECONDS - self._patience if self._stalled_at is not None else 0.0

    def _start_stall_timer(self) -> None:
        if self._stalled_at is None:
            self._stalled_at = self.factory.clock.seconds()
            self._patience = STALL_SECONDS
            self._backlog = send_backlog(self.transport)
        self._count_waiting()

    def _stop_stall_timer(self) -> None:
        self._stalled_at = None
        self.factory.send_budget.count(self, 0)

    def _count_waiting(self) -> None:
        """Count again how many bytes wait in this process, where the transport's buffer was full."""
        if self._stalled_at is not None:
            self.factory.send_budget.count(self, waiting_bytes(self.transport))

    def postpone_stall(self, seconds: float) -> None:
        """``seconds`` do not count for the peer."""
        if self._stalled_at is not None:
            self._stalled_at += seconds

    def cut_off(self) -> None:
        """End the connection now: its peer reads too slowly."""
        self.transport.abortConnection()

    def _has_stalled(self, now: float) -> bool:
        if self._stalled_at is None:
            return False
        self._count_waiting()
        before, self._backlog = self._backlog, send_backlog(self.transport)
        patience = self._patience + max(0, before - self._backlog) / LEAST_READ_PER_SECOND - (now - self._stalled_at)
        self._stalled_at = now
        self._patience = min(STALL_SECONDS, patience)
        return self._patience < 0
