# -*- test-case-name: tests.http1.test_pass_through -*-
"""Relays a request while its body is still being read, and the response to it while that is still coming.

Bodies are not collected. Pieces go on as they are read, and while their receiver is paused the peer is not read from.
At most the pieces of one read are held here; the rest waits in the buffers of the two transports, which say when they
are full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from openhqm.http1.messages import REASONS, Answer, http_date, render
from openhqm.http1.rules import Head
from openhqm.http1.upgrading import Upgrade


class RequestSink(Protocol):
    """Receives one relayed request. Nothing is called before `begin`, and nothing after `lost`."""

    def begin(self, relay: Relay) -> object:
        """The earlier requests of the connection were answered: the sink may send this one on.

        The sink answers ``relay`` once: with `Relay.answer`, or with `Relay.respond`, `Relay.write` and
        `Relay.finish`.
        """

    def write(self, piece: bytes) -> object:
        """A piece of the request's body."""

    def ended(self) -> object:
        """The request's body is complete. Called for a request without a body, too."""

    def lost(self) -> object:
        """The client is gone, or will not complete the body: stop, and send nothing more."""


SelectSink = Callable[[Head], RequestSink | None]
"""Chooses by the head of a request what relays it. None: the server collects the body and serves the request itself."""


class _Channel(Protocol):
    transport: Any

    def update_reading(self) -> object:
        """Read from the client, or pause it, as the relay wants by now."""

    def relay_finished(self, relay: Relay) -> object:
        """The response is complete."""

    def registerProducer(self, producer: Any, streaming: bool) -> object:
        """As `twisted.internet.interfaces.IConsumer` has it."""

    def unregisterProducer(self) -> object:
        """As `twisted.internet.interfaces.IConsumer` has it."""

    def getPeer(self) -> Any:
        """The address of the client."""

    def isSecure(self) -> bool:
        """Whether the connection is encrypted."""

    def upgrade(self, answer: Upgrade) -> bool:
        """Make the connection one of another protocol. Returns whether it is."""


@implementer(IPushProducer)
class Relay:
    """One relayed request, between the channel that reads it and the sink that sends it on.

    As a producer it produces the pieces of the request's body: while it is paused, the sink gets none.
    """

    def __init__(self, channel: _Channel, head: Head, keep_alive: bool, sink: RequestSink) -> None:
        self.head = head
        self.persistent = keep_alive
        """Whether the connection stays open behind the response."""
        self.responding = False
        """Whether the head of a response was sent: then no other response can be."""
        self.status = self.sent = 0
        self._channel = channel
        self._sink = sink
        self._pieces: deque[bytes] = deque()
        self._begun = self._paused = self._finished = False
        self._body_read = self._end_forwarded = False
        self._expects_continue = head.expects_continue
        self._left: int | None = None  # bytes of the response's body that are missing; None: not announced
        self._chunked = self._bodiless = False

    @property
    def peer(self) -> str | None:
        """The IP address of the client; None for a socket in the file system."""
        return getattr(self._channel.getPeer(), "host", None)

    @property
    def secure(self) -> bool:
        """Whether the client is connected by TLS."""
        return self._channel.isSecure()

    # Called by the channel

    def disable_keep_alive(self) -> None:
        """The response ends the connection, unless its head was sent already."""
        self.persistent = self.persistent and self.responding

    @property
    def wants_body(self) -> bool:
        """Whether the sink takes pieces of the body now."""
        return self._begun and not self._paused

    def begin(self) -> None:
        """The earlier requests of the connection were answered."""
        self._begun = True
        self._sink.begin(self)
        self._forward()

    def feed(self, piece: bytes) -> None:
        """A piece of the body was read."""
        self._expects_continue = False  # the client sends without waiting for 100 Continue
        if not self._finished:
            self._pieces.append(piece)
            self._forward()

    def end_body(self) -> None:
        """The body was read to its end."""
        self._body_read = True
        self._forward()

    def abandon(self) -> None:
        """The client is gone, or the rest of its body will not come: tell the sink, once."""
        if not self._finished:
            self._finish()
            if self._begun:
                self._sink.lost()

    def _forward(self) -> None:
        while self._pieces and self.wants_body:
            self._sink.write(self._pieces.popleft())
        if self._finished or not self.wants_body:
            return
        if self._body_read:
            if not self._end_forwarded:
                self._end_forwarded = True
                self._sink.ended()
        elif self._expects_continue and not self.responding:
            self._expects_continue = False
            self._channel.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _finish(self) -> None:
        self._finished = True
        self._pieces.clear()

    # The producer of the request's body

    def pauseProducing(self) -> None:
        if not self._paused:
            self._paused = True
            self._channel.update_reading()

    def resumeProducing(self) -> None:
        if self._paused:
            self._paused = False
            self._forward()
            self._channel.update_reading()

    def stopProducing(self) -> None:
        """The sink takes no more of the body. What the client still sends is read and dropped."""
        self._pieces.clear()
        self.resumeProducing()

    # The response, called by the sink. Once the client is gone, these do nothing.

    def answer(self, answer: Answer) -> None:
        """Send a complete response."""
        if not self._finished:
            self._close_behind_unread_body()
            self.responding = True
            self.status, self.sent = answer.status, 0 if self.head.method == b"HEAD" else len(answer.body)
            data = render(answer, self.head.version, self.persistent, self.head.method == b"HEAD")
            self._channel.transport.write(data)
            self._end()

    def respond(self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None) -> None:
        """Send the head of a response.

        ``length`` is that of the body in bytes, or None where it is unknown; ``fields`` must not contain
        ``Content-Length`` or ``Transfer-Encoding``. A response to HEAD and one with 204 or 304 has no body (RFC 9110,
        section 6.4.1): ``length`` is then the one to announce.
        """
        if self._finished:
            return
        self._close_behind_unread_body()
        self.responding = True
        self.status = status
        self._bodiless = self.head.method == b"HEAD" or status in (204, 304)
        self._left = 0 if self._bodiless else length
        self._chunked = self._left is None and self.head.version == b"HTTP/1.1"
        lines = [b"%b %d %b\r\n" % (self.head.version, status, reason or REASONS.get(status, b""))]
        if not self.persistent:
            lines.append(b"Connection: close\r\n")
        dated = False
        for name, value in fields:
            dated = dated or name.lower() == b"date"
            lines += (name, b": ", value, b"\r\n")
        if not dated:  # RFC 9110, section 6.6.1: who forwards a response without a Date must add one
            lines += (b"Date: ", http_date(), b"\r\n")
        if self._chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        elif length is not None and status != 204:  # RFC 9110, section 8.6
            lines.append(b"Content-Length: %d\r\n" % length)
        lines.append(b"\r\n")
        self._channel.transport.write(b"".join(lines))

    def switch(self, upgrade: Upgrade) -> bool:
        """Send 101 Switching Protocols: the connection belongs to the receiver that ``upgrade`` begins.

        Returns whether it does. A client that has sent something before this answer is cut off, and the sink is told
        so by `RequestSink.lost`.
        """
        if self._finished or not self._channel.upgrade(upgrade):
            return False
        self._finish()
        return True

    def write(self, piece: bytes) -> None:
        """Send a piece of the response's body. A body longer than announced cuts the connection."""
        if self._finished or self._bodiless or not piece:
            return
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                self._cut()
                return
        self.sent += len(piece)
        self._channel.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)

    def finish(self) -> None:
        """The response is complete. A body shorter than announced cuts the connection."""
        if self._finished:
            return
        if self._left:
            self._cut()
            return
        if self._chunked:
            self._channel.transport.write(b"0\r\n\r\n")
        self._end()

    def abort(self) -> None:
        """The response will not be complete: cut the connection, so that the client can tell."""
        if not self._finished:
            self._finish()
            self._channel.unregisterProducer()
            self._channel.transport.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause ``producer``, which produces the response's body, while the client does not keep up."""
        if not self._finished:
            self._channel.registerProducer(producer, streaming)

    def _cut(self) -> None:
        self.abort()
        self._sink.lost()

    def _close_behind_unread_body(self) -> None:
        # The client may never send the rest of a body that was answered before its end.
        self.persistent = self.persistent and self._body_read

    def _end(self) -> None:
        self._finish()
        self._channel.unregisterProducer()
        self._channel.relay_finished(self)
