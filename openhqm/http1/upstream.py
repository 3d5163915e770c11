# -*- test-case-name: tests.http1.test_upstream -*-
"""A connection to an upstream server, which carries one request after the other.

The bodies of requests and responses are not collected: each side is paused while the other does not keep up. No
request is repeated, no redirect followed and no body decompressed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.http1.response_reader import ResponseReader, ResponseSink
from openhqm.http1.rules import Refusal
from openhqm.http1.write_now import write_now

CLOSING_SECONDS = 5.0
NOT_RUN_SECONDS = (
    1.0  # a timer that is later than this shows that the process was stopped, which is not the server's fault
)


@implementer(IPushProducer, IHandshakeListener)
class Upstream(Protocol):
    """One connection to an upstream server. As a producer it produces the body of the response.

    ``released`` is called with the connection when its request has ended, or the connection was lost, and with whether
    it can carry another request. ``secure``: it is one with TLS.
    """

    transport: Any

    def __init__(self, clock: IReactorTime, released: Callable[[Upstream, bool], object], secure: bool = False) -> None:
        self._clock = clock
        self._released = released
        self._reader = ResponseReader()
        self._sink: ResponseSink | None = None
        self._timeout = 0.0
        self._timer: IDelayedCall | None = None
        self._progress_at = self._check_due = 0.0
        self._chunked = self._request_sent = self._paused = self._upload_paused = False
        self._registered = False
        self._body: Any = None
        self._tunnel: Any = None  # what the connection belongs to, where it is no longer one of HTTP
        self._closed: list[Deferred[None]] = []
        self._closing: IDelayedCall | None = None
        self.secured: Deferred[Upstream] | None = Deferred(self._not_wanted) if secure else None
        """With TLS: it fires with this connection when the handshake is done, or fails as that does."""

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:
        """The server was authenticated."""
        if self.secured is not None and not self.secured.called:
            self.secured.callback(self)

    def _not_wanted(self, secured: Deferred[Upstream]) -> None:
        self.transport.abortConnection()

    def close(self) -> Deferred[None]:
        """Close the connection, which no request uses, behind what was written. Fires when it is closed.

        After `CLOSING_SECONDS` it is cut: a server may ignore the end of TLS.
        """
        closed: Deferred[None] = Deferred()
        self._closed.append(closed)
        if self._closing is None:
            self._closing = self._clock.callLater(CLOSING_SECONDS, self._cut)
            self._unregister()
            self.transport.loseConnection()
        return closed

    def _cut(self) -> None:
        self._closing = None
        self.transport.abortConnection()

    # A request

    def send(self, request: bytes, method: bytes, sink: ResponseSink) -> None:
        """Send a whole ``request`` with ``method``. ``sink`` receives the response, without a timeout."""
        self._sink = sink
        self._reader.begin(method, sink)
        self._request_sent = True
        write_now(self.transport, request)

    def begin(
        self,
        head: bytes,
        method: bytes,
        chunked: bool,
        body: Any,
        sink: Any,
        timeout: float | None,
        protocol: bytes | None = None,
    ) -> None:
        """Send the ``head`` of a request with ``method``. ``sink`` receives the response.

        The request's body follows by `write` and `end`, in chunks where it is ``chunked``. ``body`` is its producer,
        which is paused while the server does not read. ``timeout`` is how many seconds the server may stay silent
        while it is its turn: until the head of its response is complete, counted from the last piece that was sent,
        and then for each piece of the body. None: for any time. ``protocol``: the one that the request asks for
        (RFC 9110, section 7.8). Where the server agrees, ``sink.switched(fields)`` is called with its header fields,
        and returns the `openhqm.http1.tunnel.Tunnel` that the connection belongs to from then on.
        """
        self._sink, self._body = sink, body
        self._reader.begin(method, sink, protocol)
        self._chunked = chunked
        self._request_sent = self._upload_paused = False
        if timeout is not None:
            self._timeout = timeout
            self._progress_at = self._clock.seconds()
            self._check_in(timeout)
        self._registered = True
        self.transport.registerProducer(_UploadProducer(self), True)
        self.transport.write(head)

    def write(self, piece: bytes) -> None:
        """A piece of the request's body."""
        if self._sink is not None:
            self._progress_at = self._clock.seconds()
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)

    def end(self) -> None:
        """The request's body is complete."""
        if self._sink is not None:
            self._request_sent = True
            self._progress_at = self._clock.seconds()
            if self._chunked:
                self.transport.write(b"0\r\n\r\n")

    def abort(self) -> None:
        """Give up the response: close the connection. The sink is not called any more."""
        self._abandon()

    # The response

    def dataReceived(self, data: bytes) -> None:
        reader, sink = self._reader, self._sink
        if sink is None:
            self._released(self, False)
            self.transport.abortConnection()  # the server sent something without a request
            return
        try:
            reader.feed(data)
        except Refusal as refusal:
            if self._sink is not None:
                self._abandon()
                sink.failed(refusal)
            return
        if reader.switched:
            self._switch(sink)
            return
        if reader.responded and self._timer is not None:
            self._progress_at = self._clock.seconds()
        if reader.complete and self._sink is not None:
            self._finish(reader.keep_alive and self._request_sent)
            sink.completed()

    def _switch(self, sink: Any) -> None:
        try:
            tunnel = sink.switched(self._reader.fields)
        except Refusal as refusal:
            self._abandon()
            sink.failed(refusal)
            return
        self._stop_timer()
        rest, self._reader = self._reader.rest, ResponseReader()
        self._sink, self._body, self._tunnel = None, None, tunnel
        setattr(self, "dataReceived", tunnel.answered)  # noqa: B010 (a plain response pays nothing for this)
        if rest:
            tunnel.answered(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self.secured is not None and not self.secured.called:
            self.secured.errback(reason)
            self.secured.addErrback(lambda failure: None)  # none waits where it was refused as it was made
        reader, sink = self._reader, self._sink
        self._finish(False, lost=True)
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.server_lost()
        if sink is None:
            return
        reader.ended(reason.check(ConnectionDone) is not None)
        if reader.complete:
            sink.completed()
            return
        where = "in the middle of its response" if reader.responded else "before it sent a response"
        refusal = Refusal(502, f"the upstream server closed the connection {where}")
        if not reason.check(ConnectionDone, ConnectionLost):
            refusal.__cause__ = reason.value  # of TLS, for example
        sink.failed(refusal)

    def pauseProducing(self) -> None:
        if self._sink is not None:
            self._paused = True
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self._sink is not None:
            self._paused = False
            self._progress_at = self._clock.seconds()
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self._abandon()

    # The timeout, and the end of the request

    def pause_upload(self, paused: bool) -> None:
        """The transport to the server is full (``paused``), or has room again."""
        self._upload_paused = paused
        if self._tunnel is not None:
            self._tunnel.server_full(paused)
        if not paused:
            self._progress_at = self._clock.seconds()
        if self._body is not None and not self._request_sent:
            self._body.pauseProducing() if paused else self._body.resumeProducing()

    def _check_in(self, seconds: float) -> None:
        self._check_due = self._clock.seconds() + seconds
        self._timer = self._clock.callLater(seconds, self._check_timeout)

    def _check_timeout(self) -> None:
        now = self._clock.seconds()
        if now - self._check_due > NOT_RUN_SECONDS:  # what the server has sent is not read yet
            self._progress_at += now - self._check_due + NOT_RUN_SECONDS
        # The server is not late while its response is paused, or while it waits for the client's body.
        its_turn = not self._paused and (self._request_sent or self._upload_paused)
        left = self._progress_at + self._timeout - now if its_turn else self._timeout
        if left > 0:
            self._check_in(left)
            return
        self._timer = None
        sink = self._sink
        self._abandon()
        if sink is not None:
            sink.failed(Refusal(504, f"the upstream server did not respond within {self._timeout:g} s"))

    def _abandon(self) -> None:
        if self._sink is not None:
            self._finish(False)

    def _finish(self, reusable: bool, lost: bool = False) -> None:
        self._sink = self._body = None
        self._reader.finish()
        self._stop_timer()
        if lost:
            self._released(self, False)
            closed, self._closed = self._closed, []
            for each in closed:
                each.callback(None)
            return
        self._unregister()
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()
        if not reusable:
            self.transport.abortConnection()
        self._released(self, reusable)

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self.transport.unregisterProducer()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


@implementer(IPushProducer)
class _UploadProducer:
    """The producer registered with the transport to the server: it pauses the request's body."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def pauseProducing(self) -> None:
        self._upstream.pause_upload(True)

    def resumeProducing(self) -> None:
        self._upstream.pause_upload(False)

    def stopProducing(self) -> None:
        """The connection is lost: `Upstream.connectionLost` is called, too."""
