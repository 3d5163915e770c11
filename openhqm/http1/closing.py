# -*- test-case-name: tests.http1.test_channel -*-
"""How a connection ends: at rest, behind a refusal, or while its client still sends."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol

from openhqm.http1.access import AccessRecorder
from openhqm.http1.backpressure import ResponseConsumer
from openhqm.http1.messages import render
from openhqm.http1.pass_through import Relay
from openhqm.http1.pipeline import Pipeline
from openhqm.http1.request_reader import RequestReader
from openhqm.http1.rules import Refusal
from openhqm.http1.web import WebChannel

LINGER_SECONDS = 2.0  # for the client to read the last response and close its side


class ClosingChannel(ResponseConsumer, WebChannel, Protocol):
    """The part of `HTTP1Channel` that ends its connection, and what it needs to know for that."""

    transport: Any
    site: Any
    _queue: Pipeline
    _reader: RequestReader
    _recorder: AccessRecorder | None
    _serving: Any
    _half_closed: bool
    _closing: bool
    _reading: bool
    _buffered: int

    @property
    def _is_between_requests(self) -> bool:
        return self._serving is None and not self._queue and self._reader.between

    def _update_buffered(self) -> None:
        more = self._queue.size + self._reader.collected + len(self._reader.unread) - self._buffered
        self._buffered += more
        self.site.buffered += more

    def _close(self) -> None:
        """Serve nothing more, and close the connection once what was written is sent."""
        if self._closing or not self._reading or not self._is_between_requests:
            self._linger()  # the client has sent more than is served
            return
        self._closing = True
        # With a paused producer, the transport would wait for it, and not close.
        self.transport.unregisterProducer()
        self._start_stall_timer()  # the transport no longer tells whether the client reads
        self.transport.loseConnection()

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more from this connection. Send the refusal behind the responses to earlier requests."""
        relay, self._reader.relay = self._reader.relay, None
        if relay is not None:
            self._abandon(relay)
        self._closing = True
        self._reader.discard()
        self._update_buffered()
        self._queue.append(refusal)

    def _abandon(self, relay: Relay) -> None:
        """The relay's body will not be complete. A refusal takes its place, unless its response has begun."""
        relay.abandon()
        if relay is not self._serving:
            self._queue.remove(relay)
        elif relay.responding:
            self.unregisterProducer()
            self.transport.abortConnection()
        else:
            self.unregisterProducer()
            self._serving = None

    def _send_refusal(self, refusal: Refusal) -> None:
        """Send the response to a refused request, and close the connection so that the response arrives."""
        if self._recorder is not None:
            self._recorder.refused(refusal.status)
        self._send(render(self.factory.answer_refusal(refusal), b"HTTP/1.1", False))
        self._linger()

    def _linger(self) -> None:
        """Close the sending side, and go on reading for a while (RFC 9112, section 9.6).

        A connection closed with unread bytes is reset, and the client may lose a response that it has not read.
        """
        self._closing = True
        self._queue.clear()
        self._reader.discard()
        self._update_buffered()
        if not self._reading and not self._half_closed:
            # A client that cannot send on may not look for a response.
            self._reading = True
            self.transport.resumeProducing()
        self.transport.unregisterProducer()
        self._reader.due = self.factory.clock.seconds() + LINGER_SECONDS
        self._start_stall_timer()
        if self.isSecure() or self._half_closed:
            self.transport.loseConnection()  # TLS ends in both directions, and waits for the client
        else:
            self.transport.loseWriteConnection()
