# -*- test-case-name: tests.test_http1 -*-
"""HTTP/1.1 over llhttp: a Twisted protocol that bounds everything a stranger can make it hold or wait for.

It serves the short lane (a function for hot paths) itself, and for everything else makes ``twisted.web`` requests,
so that any resource can stand behind it. One request is served at a time; what is pipelined behind it waits,
within bounds, and is answered in order.

Deadlines are absolute, kept by one ticker for all connections: a byte now and then buys nothing.
"""

from __future__ import annotations

from collections import deque
from io import BytesIO
from typing import Any

import httptools
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers as WebHeaders
from twisted.web.server import Request
from zope.interface import implementer

from openhqm.runtime.http1_messages import Answer, Message, Streaming, render, render_head
from openhqm.runtime.http1_outlet import ChannelOutlet
from openhqm.runtime.http1_rules import MOST_HEAD, MOST_HEADERS, MOST_LINE, MOST_TARGET, Head, Refusal, check_head
from openhqm.runtime.pulling import Puller

HEAD_SECONDS = 10.0
IDLE_SECONDS = 75.0
STALL_SECONDS = 30.0
LINGER_SECONDS = 2.0
LEAST_BYTES_PER_SECOND = 1024
MOST_PIPELINED = 32
MOST_FRAMING = 64 * 1024


class WebRequest(Request):
    """A request of ``twisted.web`` that the channel below has read."""

    def __init__(self, channel: Any, message: Message) -> None:
        super().__init__(channel, False)
        self.requestHeaders = WebHeaders()
        for name, value in message.head.headers:
            self.requestHeaders.addRawHeader(name, value)
        self.content = BytesIO(message.body)
        if not message.keep_alive or channel.factory.draining:
            self.responseHeaders.setRawHeaders(b"connection", [b"close"])


@implementer(IPushProducer)
class HTTP1(Protocol):
    """One connection."""

    factory: Any  # the HTTP1Site
    transport: Any
    _log = Logger()

    def __init__(self) -> None:
        self._queue: deque[Message | Refusal] = deque()
        self._serving: Any = None  # a WebRequest, or the Deferred of a short lane
        self._persistent = True
        self._producer: Any = None
        self._deadline = float("inf")
        self._stalled_at: float | None = None
        self._broken = False  # nothing that follows can be understood, or will be answered
        self._reading = True
        self._new_parser()

    def _new_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._start_message()

    def _start_message(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._body: list[bytes] = []
        self._body_size = 0
        self._head_size = self._raw_size = 0
        self._began_at: float | None = None

    # The transport

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.site = self.factory
        self.transport.registerProducer(self, True)
        self._deadline = self.factory.clock.seconds() + HEAD_SECONDS
        self.factory.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self._broken:
            return
        if self._began_at is None and self._serving is None and not self._queue:
            self._begin_waiting()
        rest = b""
        try:
            self._parser.feed_data(data)
            self._raw_size += len(data)
            self._check_progress()
        except httptools.HttpParserUpgrade as upgrade:
            # No upgrade is offered here, so it is ignored (RFC 9110, section 7.8), and what follows is parsed anew.
            self._new_parser()
            rest = data[upgrade.args[0] :]
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            self._refuse(_refusal_in(error))
        except Refusal as refusal:
            self._refuse(refusal)
        if rest:
            self.dataReceived(rest)  # not within the handling above: it would hide what a callback raises
        else:
            self._go_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)
        self._queue.clear()
        serving, self._serving = self._serving, None
        self._broken = True
        if isinstance(serving, Deferred):
            serving.cancel()
        elif isinstance(serving, WebRequest):
            serving.connectionLost(reason)
        if self._producer is not None:
            producer, self._producer = self._producer, None
            producer.stopProducing()

    def tick(self, now: float) -> None:
        """Called every second: is it still worth keeping?"""
        if self._stalled_at is not None and now - self._stalled_at > STALL_SECONDS:
            self.transport.abortConnection()
        elif now > self._deadline:
            if self._broken:
                self.transport.abortConnection()
            elif self._began_at is None:
                self.transport.loseConnection()
            else:
                self._refuse(Refusal(408, "the request did not come in time"))
                self._go_on()

    def drain(self) -> None:
        """No further requests: close where none is being served."""
        if self._serving is None and not self._queue and self._began_at is None:
            self.transport.loseConnection()

    # The parser

    def on_message_begin(self) -> None:
        self._start_message()
        self._began_at = self.factory.clock.seconds()
        self._deadline = self._began_at + HEAD_SECONDS

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MOST_TARGET:
            raise Refusal(414, f"the target is longer than {MOST_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:
            return  # a trailer: read past, within the bounds of framing
        if len(name) + len(value) > MOST_LINE:
            raise Refusal(431, f"a header line is longer than {MOST_LINE} bytes")
        if len(self._headers) >= MOST_HEADERS:
            raise Refusal(431, f"there are more than {MOST_HEADERS} header lines")
        self._head_size += len(name) + len(value) + 4
        if self._head_size > MOST_HEAD:
            raise Refusal(431, f"the header is longer than {MOST_HEAD} bytes")
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        head = check_head(self._parser.get_method(), self._url, self._parser.get_http_version(), self._headers)
        self._head = head
        if head.length is not None and head.length > self.factory.most_body:
            raise Refusal(413, f"the body is longer than {self.factory.most_body} bytes")
        if head.length != 0:
            self._deadline = self._body_deadline()
            if head.expects_continue and self._serving is None and not self._queue:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size > self.factory.most_body:
            raise Refusal(413, f"the body is longer than {self.factory.most_body} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        head = self._head
        assert head is not None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._queue.append(Message(head, body, self._keep_alive(head), dict(head.headers).get))
        self._start_message()
        self._deadline = float("inf")

    def _keep_alive(self, head: Head) -> bool:
        # A peer that speaks HTTP/1.0 cannot tell the end of a stream but by the end of the connection.
        return bool(self._parser.should_keep_alive()) and head.version == b"HTTP/1.1"

    def _check_progress(self) -> None:
        """After each read: a line that never ends, a body that is all framing, a body that drips.

        What the parser has kept to itself can only be told from how much it was given.
        """
        if self._began_at is None:
            return
        if self._head is None:
            if self._raw_size > 2 * MOST_HEAD:
                raise Refusal(431, f"the header is longer than {MOST_HEAD} bytes")
        else:
            if self._raw_size > MOST_HEAD + MOST_FRAMING + 2 * self._body_size:
                raise Refusal(400, "the body is more framing than body")
            self._deadline = self._body_deadline()

    def _body_deadline(self) -> float:
        assert self._began_at is not None
        return self._began_at + HEAD_SECONDS + self._body_size / LEAST_BYTES_PER_SECOND

    # One request after the other

    def _go_on(self) -> None:
        while self._queue and self._serving is None and self._stalled_at is None:
            message = self._queue.popleft()
            if isinstance(message, Refusal):
                self._say(message)
                return
            self._serve(message)
        self._read_on(len(self._queue) < MOST_PIPELINED and self._stalled_at is None)

    def _read_on(self, reading: bool) -> None:
        if reading != self._reading and not self._broken:
            self._reading = reading
            self.transport.resumeProducing() if reading else self.transport.pauseProducing()

    def _serve(self, message: Message) -> None:
        self._persistent = message.keep_alive and not self.factory.draining
        coroutine = self.factory.short_lane(message)
        if coroutine is None:
            request = self._serving = WebRequest(self, message)
            request.requestReceived(message.head.method, message.head.target, message.head.version)
            return
        serving = Deferred.fromCoroutine(coroutine)
        self._serving = serving
        serving.addCallbacks(self._answered, self._unanswered, callbackArgs=(message,))

    def _answered(self, answer: Answer | Streaming, message: Message) -> None:
        if self._serving is None:
            return  # the connection was lost meanwhile
        if isinstance(answer, Streaming):
            outlet = self._serving = ChannelOutlet(self, message.head.version == b"HTTP/1.1")
            self.transport.write(render_head(answer, message.head.version, self._persistent))
            answer.begin(outlet)
            return
        self.transport.write(render(answer, message.head.version, self._persistent))
        self._done()

    def _unanswered(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("a request broke down", failure)
            self.transport.abortConnection()

    def _done(self) -> None:
        self._serving = None
        if not self._persistent or self.factory.draining:
            self._broken = True
            self._queue.clear()
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        elif self._queue:
            self.factory.clock.callLater(0, self._go_on)
        else:
            if self._began_at is None:
                self._begin_waiting()
            self._read_on(True)

    def _begin_waiting(self) -> None:
        self._deadline = self.factory.clock.seconds() + IDLE_SECONDS

    def _refuse(self, refusal: Refusal) -> None:
        """Nothing more can be read on this connection; what came before is still answered, and then this."""
        self._broken = True
        self._began_at = None
        self._deadline = float("inf")
        self._queue.append(refusal)

    def _say(self, refusal: Refusal) -> None:
        """Answer with what is wrong, and close so that the answer arrives: whoever still sends is not cut off."""
        self.transport.write(render(self.factory.problem(refusal), b"HTTP/1.1", False))
        self.transport.unregisterProducer()
        self._deadline = self.factory.clock.seconds() + LINGER_SECONDS
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    # Back-pressure: the transport tells the channel, the channel tells whoever produces

    def pauseProducing(self) -> None:
        self._stalled_at = self.factory.clock.seconds()
        if self._producer is not None:
            self._producer.pauseProducing()
        self._read_on(False)

    def resumeProducing(self) -> None:
        self._stalled_at = None
        if self._producer is not None:
            self._producer.resumeProducing()
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` says so."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("there is a producer already")
        self._producer = producer if streaming else Puller(producer, self.factory.clock)
        if self._stalled_at is not None:
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        producer, self._producer = self._producer, None
        if isinstance(producer, Puller):
            producer.stop()

    # What twisted.web's requests want of a channel

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: WebHeaders) -> None:
        lines = [version, b" ", code, b" ", reason, b"\r\n"]
        for name, values in headers.getAllRawHeaders():
            for value in values:
                lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        self.transport.write(b"".join(lines))

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.transport.write(b"".join(pieces))

    def streamed(self, outlet: ChannelOutlet) -> None:
        """A response of unknown length is complete."""
        if outlet is self._serving:
            self._done()

    def requestDone(self, request: Any) -> None:
        if request is self._serving:
            self._persistent = self._persistent and not _says_close(request)
            self._done()

    def loseConnection(self) -> None:
        self.transport.loseConnection()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def isSecure(self) -> bool:
        return hasattr(self.transport, "getPeerCertificate")


def _says_close(request: Any) -> bool:
    return any(value.lower() == b"close" for value in request.responseHeaders.getRawHeaders(b"connection", []))


def _refusal_in(error: Exception) -> Refusal:
    """The refusal that one of our callbacks raised within the parser, or what the parser found by itself."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(501, "this method is not known")
    return Refusal(400, "the request is malformed")
