# -*- test-case-name: tests.http1.test_upstream -*-
"""A connection to a server, and one request after the other on it.

Bodies go both ways without being collected: each side is paused while the other does not keep up. Nothing is sent
twice, nothing is followed, nothing is unpacked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.http1.exchange import ResponseReader, ResponseSink
from openhqm.http1.rules import Refusal


@implementer(IPushProducer)
class Upstream(Protocol):
    """One connection to a server. As a producer it makes the response that is coming."""

    transport: Any

    def __init__(self, clock: IReactorTime, done: Callable[[Upstream, bool], object]) -> None:
        self._clock = clock
        self._done = done  # with the connection, and whether it can be used again
        self._reader: ResponseReader | None = None
        self._taker: ResponseSink | None = None
        self._timeout = 0.0
        self._timer: IDelayedCall | None = None
        self._progress_at = 0.0
        self._chunked = self._sent = self._paused = self._busy = False
        self._body: Any = None

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)

    # A request

    def begin(self, head: bytes, method: bytes, chunked: bool, body: Any, taker: ResponseSink, timeout: float) -> None:
        """Send ``head``. The body follows by `write` and `end`; ``body`` is paused while the server does not read.

        ``timeout``: the longest silence of a server that has all it needs to go on. The head of its answer must be
        whole by then, counted from the last piece it took; each piece of the body has as long again.
        """
        self._reader, self._taker, self._body = ResponseReader(method, taker), taker, body
        self._chunked, self._timeout = chunked, timeout
        self._sent = self._busy = False
        self._progress_at = self._clock.seconds()
        self._timer = self._clock.callLater(timeout, self._look)
        self.transport.registerProducer(_Upload(self), True)
        self.transport.write(head)

    def write(self, piece: bytes) -> None:
        """A piece of the request's body."""
        if self._taker is not None:
            self._progress_at = self._clock.seconds()
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)

    def end(self) -> None:
        """The request's body is complete."""
        if self._taker is not None:
            self._sent = True
            self._progress_at = self._clock.seconds()
            if self._chunked:
                self.transport.write(b"0\r\n\r\n")

    def abort(self) -> None:
        """Nobody waits for the response any more."""
        self._give_up()

    # The response

    def dataReceived(self, data: bytes) -> None:
        reader, taker = self._reader, self._taker
        if reader is None or taker is None:
            self._done(self, False)
            self.transport.abortConnection()  # it speaks without having been asked
            return
        try:
            reader.feed(data)
        except Refusal as refusal:
            if self._taker is not None:
                self._give_up()
                taker.failed(refusal)
            return
        if reader.responded:
            self._progress_at = self._clock.seconds()
        if reader.complete and self._taker is not None:
            self._finish(reader.keep_alive and self._sent)
            taker.completed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        reader, taker = self._reader, self._taker
        self._finish(False, lost=True)
        if reader is None or taker is None:
            return
        reader.ended(reason.check(ConnectionDone) is not None)
        if reader.complete:
            taker.completed()
        elif reader.responded:
            taker.failed(Refusal(502, "the upstream server broke off in the middle of its answer"))
        else:
            taker.failed(Refusal(502, "the upstream server closed the connection before it had answered"))

    def pauseProducing(self) -> None:
        if self._taker is not None:
            self._paused = True
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self._taker is not None:
            self._paused = False
            self._progress_at = self._clock.seconds()
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self._give_up()

    # Its time and its end

    def upload_paused(self, paused: bool) -> None:
        """The server does not read the body as fast as it comes; or it does again."""
        self._busy = paused
        if not paused:
            self._progress_at = self._clock.seconds()
        if self._body is not None and not self._sent:
            self._body.pauseProducing() if paused else self._body.resumeProducing()

    def _look(self) -> None:
        now = self._clock.seconds()
        # It is not late while its answer is held back, or while the client is the one who has to send.
        waited_for = not self._paused and (self._sent or self._busy)
        left = self._progress_at + self._timeout - now if waited_for else self._timeout
        if left > 0:
            self._timer = self._clock.callLater(left, self._look)
            return
        self._timer = None
        taker = self._taker
        self._give_up()
        if taker is not None:
            taker.failed(Refusal(504, f"the upstream server did not answer within {self._timeout:g} s"))

    def _give_up(self) -> None:
        if self._taker is not None:
            self._finish(False)

    def _finish(self, reusable: bool, lost: bool = False) -> None:
        self._taker = self._reader = self._body = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if lost:
            self._done(self, False)
            return
        self.transport.unregisterProducer()
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()
        if not reusable:
            self.transport.abortConnection()
        self._done(self, reusable)


@implementer(IPushProducer)
class _Upload:
    """What the transport to a server tells to pause: whoever sends the body."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def pauseProducing(self) -> None:
        self._upstream.upload_paused(True)

    def resumeProducing(self) -> None:
        self._upstream.upload_paused(False)

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` says so."""
