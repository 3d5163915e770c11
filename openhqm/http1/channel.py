# -*- test-case-name: tests.http1.test_channel -*-
"""HTTP/1.1 over llhttp: a Twisted protocol that bounds all memory and time that a client can make it spend.

A request is served in one of three ways: by the site's fast path (a coroutine for the hot routes), by a relay to
another server while it is still being read, or as a ``twisted.web`` request to any resource. One request is served at
a time. Pipelined requests behind it wait, within limits, and are answered in order.

Deadlines are absolute. The site checks them for all its connections, so that a client cannot gain time by sending a
byte now and then.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.http1.access import AccessRecorder
from openhqm.http1.admission import BUSY
from openhqm.http1.backpressure import ResponseConsumer
from openhqm.http1.closing import ClosingChannel
from openhqm.http1.messages import Answer, FullRequest, StreamedAnswer, render, render_head
from openhqm.http1.pass_through import Relay
from openhqm.http1.pipeline import Pipeline
from openhqm.http1.request_reader import HEAD_SECONDS, RequestReader
from openhqm.http1.response_writer import ChannelWriter
from openhqm.http1.rules import Refusal
from openhqm.http1.upgrading import Upgrade, render_upgrade
from openhqm.http1.web import WebRequest
from openhqm.runtime.deferreds import Running

IDLE_SECONDS = 75.0  # between two requests


@implementer(IPushProducer, IHalfCloseableProtocol)
class HTTP1Channel(ClosingChannel):
    """One connection of a client to an `HTTP1Site`."""

    _log = Logger()

    def __init__(self, site: Any) -> None:
        ResponseConsumer.__init__(self)
        self.factory = self.site = site  # the names that Twisted and twisted.web use
        self._queue = Pipeline()  # what was read behind the request being served
        self._buffered = 0  # its bytes, and those of the reader: this connection's part of `HTTP1Site.buffered`
        self._recorder = None if site.access_log is None else AccessRecorder(site.access_log, site.clock)
        self._reader = RequestReader(self, self._enqueue, self._send_continue, self._queue.full)
        self._serving: Any = None  # WebRequest, Relay, ChannelWriter, or FullRequest and then Running on the fast path
        self._persistent = True  # whether the connection stays open behind the response
        self._half_closed = False  # the client has closed its side, and may still read
        self._closing = False  # what the client still sends is dropped: no further request is served
        self._reading = True  # the transport is not paused
        self._read_on_scheduled = False
        self._receiver: Any = None  # of the bytes, where the connection is no longer one of HTTP

    # Called by the transport

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        if not self.isSecure():  # with TLS it would write past the encryption
            self._write_some = getattr(self.transport, "writeSomeData", None)
        self.transport.registerProducer(self, True)
        self._reader.due = self.factory.clock.seconds() + HEAD_SECONDS
        self.factory.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self._reader.feed(data)
        except Refusal as refusal:
            self._refuse(refusal)
        if self._queue:
            self._serve_next()
        else:
            if self._is_between_requests:
                self._start_idle_timer()  # the client sent an empty line
            self.update_reading()
        if self.site.buffered > self.site.most_buffered and self._buffered:
            self._refuse(Refusal(503, BUSY))
            self._serve_next()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)
        self._stop_stall_timer()
        self.site.buffered -= self._buffered
        self._queue.clear()
        serving, self._serving = self._serving, None
        self._closing = True
        if self._recorder is not None:
            self._recorder.lost()
        if isinstance(serving, Running):
            serving.cancel()
        elif isinstance(serving, WebRequest):
            serving.connectionLost(reason)
        elif isinstance(serving, Relay):
            serving.abandon()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def check_deadlines(self, now: float) -> None:
        """End the connection where its peer is stalled or late. The site calls this about once a second."""
        if self._has_stalled(now):
            self.cut_off()
        elif now > self._reader.due:
            if self._closing:
                if not self._backlog:  # a slow client has as long as it reads
                    self.transport.abortConnection()
            elif self._reader.began_at is None:
                self._close()
            else:
                self._refuse(Refusal(408, "the request was not received in time"))
                self._serve_next()

    def readConnectionLost(self) -> None:
        """The client has closed its side. Its complete requests are still answered.

        The client may as well be gone, which only writing to it would tell. A relayed request is therefore aborted: it
        would keep the upstream server busy.
        """
        if self._half_closed:
            return
        self._half_closed, self._reader.due = True, float("inf")
        if isinstance(self._serving, Relay):
            self.transport.abortConnection()
        elif self._receiver is not None:
            self._receiver.half_closed()
        elif self._closing:
            if self._serving is None and not self._queue:  # what was accepted is answered first
                self.transport.loseConnection()
        elif self._reader.began_at is not None or self._reader.unread:
            self._refuse(Refusal(400, "the connection ended before the request was complete"))
            self._serve_next()
        elif self._serving is None and not self._queue:
            self.transport.loseConnection()
        elif not self._queue:
            self._persistent = False

    def writeConnectionLost(self) -> None:
        """The last response was sent: see `_linger`."""

    @property
    def idle(self) -> bool:
        """Whether no request is being served or read, and no response waits for its client to read."""
        return self._is_between_requests and self._stalled_at is None

    def close_between_requests(self) -> None:
        """Close the connection behind what was written, unless a request is being served or read."""
        if self._is_between_requests and not self._closing:
            self._close()

    def cut(self) -> None:
        """End the connection now. Its client can tell that a response is incomplete."""
        if not self._closing:
            self.transport.abortConnection()

    def postpone(self, seconds: float) -> None:
        """This process did not run for so long: all deadlines are later."""
        self.postpone_stall(seconds)
        self._reader.postpone(seconds)

    def disable_keep_alive(self) -> None:
        """Close the connection behind the current response, which announces it with ``Connection: close``.

        Where the head of that response was sent already, one more request may follow.
        """
        if isinstance(self._serving, WebRequest | Relay):
            self._serving.disable_keep_alive()
        elif not isinstance(self._serving, ChannelWriter):
            self._persistent = False

    # Requests, served one after the other

    def _enqueue(self, request: FullRequest | Relay) -> None:
        self._queue.add(request, self._serving is not None or bool(self._queue))

    def _send_continue(self) -> None:
        """The client waits for ``100 Continue``, which must not precede the responses to earlier requests."""
        if self._serving is None and not self._queue:
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _serve_next(self) -> None:
        while self._queue and self._serving is None and self._stalled_at is None:
            request = self._queue.popleft()
            if type(request) is FullRequest:
                self._serve(request)
            elif isinstance(request, Relay):
                self._write_some = None
                self._serving = request
                if self._recorder is not None:
                    self._recorder.begin(request.head)
                request.persistent = request.persistent and not self.site.keep_alive_disabled
                request.begin()
            else:
                assert isinstance(request, Refusal)
                self._send_refusal(request)
                return
        self.update_reading()

    def update_reading(self) -> None:
        """Read from the client, or pause it where what it sends cannot be taken now."""
        if self._reading and not (self._buffered or self._queue) and self._stalled_at is None and self._reader.empty():
            return  # it goes on reading, as with most requests
        self._update_buffered()
        relay = self._reader.relay
        # A client that reads the response slowly does not slow down the relayed body, which goes elsewhere.
        ready = not self._queue.full() and (self._stalled_at is None if relay is None else relay.wants_body)
        if self._reader.unread:
            if ready and not self._read_on_scheduled:
                self._read_on_scheduled = True
                self.factory.clock.callLater(0, self._read_on)
            ready = False
        self._set_reading(ready)
        self._reader.resume() if self._reading else self._reader.pause()

    def _read_on(self) -> None:
        """Read what was received while the pipeline was full."""
        self._read_on_scheduled = False
        if not self._closing:
            self.dataReceived(self._reader.take_unread())

    def _set_reading(self, reading: bool) -> None:
        if reading != self._reading and not self._closing and not self._half_closed:
            self._reading = reading
            self.transport.resumeProducing() if reading else self.transport.pauseProducing()

    def _serve(self, request: FullRequest) -> None:
        last = self._half_closed and not self._queue
        self._persistent = request.keep_alive and not self.site.keep_alive_disabled and not last
        if self._recorder is not None:
            self._recorder.begin(request.head)
        coroutine = self.site.fast_path(request)
        if coroutine is None:
            self._write_some = None
            web_request = self._serving = WebRequest(self, request, self._persistent)
            web_request.requestReceived(request.head.method, request.head.target, request.head.version)
            return
        self._serving = request
        serving = Running(coroutine, partial(self._send_answer, request), self._serving_failed)
        if self._serving is request:  # the coroutine waits for something
            self._serving = serving

    def _send_answer(self, request: FullRequest, answer: Answer | StreamedAnswer) -> None:
        if self._serving is None:
            return  # the connection was lost in the meantime
        if isinstance(answer, Upgrade):
            self.upgrade(answer)
            return
        if isinstance(answer, StreamedAnswer):
            self._write_some = None
            writer = self._serving = ChannelWriter(self, request.head.version == b"HTTP/1.1")
            self.transport.write(render_head(answer, request.head.version, self._persistent))
            answer.begin(writer)
            return
        head_only = request.head.method == b"HEAD"
        if self._recorder is not None:
            size = 0 if head_only else len(answer.body)
            self._recorder.end(answer.status, size, dict(answer.fields).get(b"Location"))
        self._send(render(answer, request.head.version, self._persistent, head_only))
        self._end_request()

    def upgrade(self, answer: Upgrade) -> bool:
        """From now on the connection is that of another protocol, and closed at its end.

        Returns whether it is: a client that has sent something before the answer (RFC 6455, section 4.1) is cut off.
        """
        if self._queue or not self._reader.between or self._half_closed:
            self.transport.abortConnection()
            return False
        self._write_some, self._persistent = None, False
        writer = self._serving = ChannelWriter(self, False)
        self.transport.write(render_upgrade(answer))
        self._receiver = answer.begin(writer)
        for name, method in (("dataReceived", self._receive_upgraded), ("update_reading", self._read_upgraded)):
            setattr(self, name, method)  # a plain request pays nothing for this
        self.update_reading()
        return True

    def _read_upgraded(self) -> None:
        self._set_reading(self._stalled_at is None and self._receiver.takes_more)

    def _receive_upgraded(self, data: bytes) -> None:
        if self._closing:
            return
        self._receiver.received(data)
        more = self._receiver.held - self._buffered
        self._buffered += more
        self.site.buffered += more
        if self._buffered and self.site.buffered > self.site.most_buffered:
            self._receiver.overloaded()

    def _serving_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("unexpected error while serving a request; its connection is closed", failure)
            self.transport.abortConnection()

    def _end_request(self) -> None:
        self._serving = None
        self._count_waiting()
        if not self._persistent or self.factory.draining or (self._half_closed and not self._queue):
            self._close()
        elif self._queue:
            self.factory.clock.callLater(0, self._serve_next)
        else:
            if self._reader.between:
                self._start_idle_timer()
            if not self._reading:
                self.update_reading()

    def _start_idle_timer(self) -> None:
        self._reader.due = self.factory.clock.seconds() + IDLE_SECONDS

    # The producer of the transport: it pauses and resumes the producer of the response

    def pauseProducing(self) -> None:
        self._start_stall_timer()
        if self._producer is not None:
            self._producer.pauseProducing()
        self.update_reading()

    def resumeProducing(self) -> None:
        self._stop_stall_timer()
        if self._producer is not None:
            self._producer.resumeProducing()
        self._serve_next()

    def stopProducing(self) -> None:
        """The connection is lost: `connectionLost` is called, too."""

    # The end of a response

    def stream_finished(self, writer: ChannelWriter) -> None:
        """A streamed answer of the fast path is complete."""
        if writer is self._serving:
            if self._recorder is not None:
                self._recorder.end(200 if self._receiver is None else 101, writer.sent)
            self._end_request()

    def relay_finished(self, relay: Relay) -> None:
        """A relayed response is complete; the body of its request may not be."""
        if relay is not self._serving:
            return
        self._persistent = relay.persistent
        if self._recorder is not None:
            self._recorder.end(relay.status, relay.sent)
        if relay is self._reader.relay:
            self._reader.relay = self._serving = None
            self._linger()
        else:
            self._end_request()

    def requestDone(self, request: Any) -> None:
        """The response to a ``twisted.web`` request is complete."""
        if request is self._serving:
            self._persistent = self._persistent and not request.closes_connection
            if self._recorder is not None:
                location = request.responseHeaders.getRawHeaders(b"location", [None])[0]
                self._recorder.end(request.code, request.sentLength, location)
            self._end_request()
