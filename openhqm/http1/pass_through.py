# -*- test-case-name: tests.http1.test_pass_through -*-
"""A request let through while its body is still coming, and its response while that is still coming.

Nothing is collected: the body goes on piece by piece, and where nobody takes it the peer is not read from. At most
what one read had brought is held here; the rest is in the buffers of the two transports, which say when they are full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from openhqm.http1.messages import REASONS, Answer, http_date, render
from openhqm.http1.rules import Head


class RequestSink(Protocol):
    """Takes one request as it comes. It hears nothing before `begin`, and nothing more after `lost`."""

    def begin(self, passing: Relay) -> object:
        """All earlier requests of the connection were answered: this one may be sent on."""

    def write(self, piece: bytes) -> object:
        """A piece of the body."""

    def ended(self) -> object:
        """The body is complete; one of no length, too."""

    def lost(self) -> object:
        """The peer is gone, or its body will never be complete: stop, and send nothing more."""


Passage = Callable[[Head], RequestSink | None]
"""Who takes a request of which only the head is here, or None: it is collected, and then served as all others."""


class _Channel(Protocol):
    transport: Any

    def flow(self) -> object:
        """Read from the peer, or do not, as is now wanted."""

    def passed(self, passing: Relay) -> object:
        """The response is complete."""

    def registerProducer(self, producer: Any, streaming: bool) -> object:
        """As transports have it."""

    def unregisterProducer(self) -> object:
        """As transports have it."""

    def getPeer(self) -> Any:
        """Who is connected."""

    def isSecure(self) -> bool:
        """Whether the connection is encrypted."""


@implementer(IPushProducer)
class Relay:
    """One request on its way through. As a producer it makes the pieces of the body: paused, none.

    Whoever takes it answers once: with `answer`, or with `respond`, `write` and `finish`.
    """

    def __init__(self, channel: _Channel, head: Head, keep_alive: bool, through: RequestSink) -> None:
        self.head = head
        self.persistent = keep_alive
        self.responding = False
        """Whether the head of a response was sent: then nothing else can be said."""
        self.status = self.sent = 0
        self._channel = channel
        self._through = through
        self._pieces: deque[bytes] = deque()
        self._begun = self._paused = self._over = False
        self._whole = self._told = False  # all of the body has come; and was handed on
        self._asks = head.expects_continue
        self._left: int | None = None
        self._chunked = self._bodiless = False

    @property
    def peer(self) -> str | None:
        """The address of who is connected, or None where it has none."""
        return getattr(self._channel.getPeer(), "host", None)

    @property
    def secure(self) -> bool:
        """Whether it is connected by TLS."""
        return self._channel.isSecure()

    # The channel's side: its turn, its body, its end

    def say_close(self) -> None:
        """Its response ends the connection, unless its head is on the way already."""
        self.persistent = self.persistent and self.responding

    @property
    def wants_more(self) -> bool:
        """Whether there is anybody to take what would be read now."""
        return self._begun and not self._paused

    def begin(self) -> None:
        """Its turn has come."""
        self._begun = True
        self._through.begin(self)
        self._hand_on()

    def feed(self, piece: bytes) -> None:
        """A piece of the body was read."""
        self._asks = False  # whoever sends does not wait to be told
        if not self._over:
            self._pieces.append(piece)
            self._hand_on()

    def end(self) -> None:
        """The body was read to its end."""
        self._whole = True
        self._hand_on()

    def lose(self) -> None:
        """Nobody is there for the response, or nothing for the rest of the body."""
        if not self._over:
            self._forget()
            if self._begun:
                self._through.lost()

    def _hand_on(self) -> None:
        while self._pieces and self.wants_more:
            self._through.write(self._pieces.popleft())
        if self._over or not self.wants_more:
            return
        if self._whole:
            if not self._told:
                self._told = True
                self._through.ended()
        elif self._asks and not self.responding:
            self._asks = False
            self._channel.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _forget(self) -> None:
        self._over = True
        self._pieces.clear()

    # The body, as a producer

    def pauseProducing(self) -> None:
        if not self._paused:
            self._paused = True
            self._channel.flow()

    def resumeProducing(self) -> None:
        if self._paused:
            self._paused = False
            self._hand_on()
            self._channel.flow()

    def stopProducing(self) -> None:
        """Whoever takes the body takes no more of it. What comes is read past, until the response has ended."""
        self._pieces.clear()
        self.resumeProducing()

    # The response

    def answer(self, answer: Answer) -> None:
        """Answer with something whole."""
        if not self._over:
            self._close_behind_a_rest()
            self.responding = True
            self.status, self.sent = answer.status, 0 if self.head.method == b"HEAD" else len(answer.body)
            data = render(answer, self.head.version, self.persistent, self.head.method == b"HEAD")
            self._channel.transport.write(data)
            self._end()

    def respond(self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None) -> None:
        """Begin a response. ``fields`` say nothing of its length, which is None where it is not known.

        HEAD, 204 and 304 have no body (RFC 9110, section 6.4.1): ``length`` is that of the body they stand for.
        """
        if self._over:
            return
        self._close_behind_a_rest()
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
        if not dated:  # RFC 9110, section 6.6.1: whoever forwards must add it
            lines += (b"Date: ", http_date(), b"\r\n")
        if self._chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        elif length is not None and status != 204:  # RFC 9110, section 8.6
            lines.append(b"Content-Length: %d\r\n" % length)
        lines.append(b"\r\n")
        self._channel.transport.write(b"".join(lines))

    def write(self, piece: bytes) -> None:
        """A piece of the response's body."""
        if self._over or self._bodiless or not piece:
            return
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                self._break_off()
                return
        self.sent += len(piece)
        self._channel.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)

    def finish(self) -> None:
        """The response is complete. With less of it than was announced, the connection is cut off."""
        if self._over:
            return
        if self._left:
            self._break_off()
            return
        if self._chunked:
            self._channel.transport.write(b"0\r\n\r\n")
        self._end()

    def abort(self) -> None:
        """The response will not be complete, and the peer must be able to tell: the connection is cut off."""
        if not self._over:
            self._forget()
            self._channel.unregisterProducer()
            self._channel.transport.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Tell ``producer`` when the peer does not keep up with the response."""
        if not self._over:
            self._channel.registerProducer(producer, streaming)

    def _break_off(self) -> None:
        self.abort()
        self._through.lost()

    def _close_behind_a_rest(self) -> None:
        # Whether the peer will ever send the rest of a body that was answered already, nobody can tell.
        self.persistent = self.persistent and self._whole

    def _end(self) -> None:
        self._forget()
        self._channel.unregisterProducer()
        self._channel.passed(self)
