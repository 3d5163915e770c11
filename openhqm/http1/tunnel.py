# -*- test-case-name: tests.ingress.test_sidecar_sockets -*-
"""Carries bytes between a client and an upstream server that have agreed on another protocol than HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from openhqm.http1.messages import ResponseWriter


class _Server(Protocol):
    transport: Any

    def close(self) -> Deferred[None]:
        """Send what was written, and close the connection."""


@implementer(IPushProducer)
class Tunnel:
    """One connection of a client and one to the ``server``, joined. Each side ends with the other.

    It keeps no bytes: while one side does not take more, the other is not read. Where no byte has come from either for
    ``idle`` seconds, both are closed. ``ended`` is called once the tunnel is closed.

    To the client it is a `openhqm.http1.upgrading.Receiver`, and the producer of what the client gets.
    """

    held = 0

    def __init__(self, server: _Server, clock: IReactorTime, idle: float, ended: Callable[[], object]) -> None:
        self.takes_more = True
        self._server = server
        self._clock = clock
        self._idle = idle
        self._on_end = ended
        self._writer: ResponseWriter | None = None
        self._used_at = clock.seconds()
        self._timer: IDelayedCall | None = None

    def begin(self, writer: ResponseWriter) -> Tunnel:
        """Carry bytes from now on."""
        self._writer = writer
        writer.registerProducer(self, True)
        self._timer = self._clock.callLater(self._idle, self._check_idle)
        return self

    # From the client

    def received(self, data: bytes) -> None:
        self._used_at = self._clock.seconds()
        self._server.transport.write(data)

    def half_closed(self) -> None:
        self._server.close()

    def overloaded(self) -> None:
        """It holds nothing."""

    # The producer of what the client gets

    def pauseProducing(self) -> None:
        self._server.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._server.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The client is gone."""
        self._writer = None
        self._server.close()

    # From the server

    def answered(self, data: bytes) -> None:
        """The server has sent some bytes."""
        self._used_at = self._clock.seconds()
        if self._writer is not None:
            self._writer.write(data)

    def server_full(self, full: bool) -> None:
        """The server does not keep up (``full``), or does again."""
        self.takes_more = not full
        if self._writer is not None:
            self._writer.update_reading()

    def server_lost(self) -> None:
        """The connection to the server is closed."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._on_end()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.unregisterProducer()
            writer.finish()

    def cut(self) -> None:
        """Close it now."""
        self._server.transport.abortConnection()

    def _check_idle(self) -> None:
        left = self._used_at + self._idle - self._clock.seconds()
        self._timer = self._clock.callLater(max(left, 1.0), self._check_idle)
        if left <= 0:
            self.cut()
