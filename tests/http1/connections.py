"""A connection in memory: bytes in, answers out, and what the application saw."""

from __future__ import annotations

import re
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from openhqm.http1.messages import Answer, Message
from openhqm.http1.site import HTTP1Site
from openhqm.ingress.fast_path import refused

MOST_BODY = 100_000
READ = 65536  # a transport never has more at once


class Transport(StringTransport):
    """A transport that remembers how it was closed."""

    half_closed = aborted = False
    dataBuffer = b""  # what the peer has not taken

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    @property
    def closed(self) -> bool:
        """Whether the peer sees the end of the connection."""
        return bool(self.disconnecting or self.half_closed or self.aborted)


@attrs.define
class Seen:
    """One request as the application saw it."""

    method: bytes
    target: bytes
    body: bytes
    headers: list[tuple[bytes, bytes]]


class Application(Resource):
    """Remembers what it is asked. ``/hold`` waits for the test; everything else is answered at once."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self.held: list[Any] = []
        self.lost: list[Any] = []

    def render(self, request: Any) -> Any:
        headers = [
            (name.lower(), value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values
        ]
        self.seen.append(Seen(request.method, request.uri, request.content.read(), sorted(headers)))
        request.setHeader(b"content-type", b"text/plain")
        if request.uri.startswith(b"/hold"):
            self.held.append(request)
            request.notifyFinish().addErrback(lambda failure: self.lost.append(request))
            return NOT_DONE_YET
        return b"web:" + request.uri


class Wire:
    """A server in memory, with one connection to it at a time. ``/short`` and ``/slow`` are on the short lane."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.application = Application()
        self.slow: list[Deferred[Answer]] = []
        self.site = HTTP1Site(self.application, self.clock, self._fast_path, refused, MOST_BODY)
        self.site.startFactory()
        self.connect()

    def connect(self) -> None:
        """A new connection."""
        self.protocol = self.site.buildProtocol(None)
        self.transport = Transport(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        self.protocol.makeConnection(self.transport)

    def _fast_path(self, message: Message) -> Any:
        if message.head.target == b"/short":
            self._note(message)
            return self._now()
        if message.head.target == b"/slow":
            self._note(message)
            self.slow.append(Deferred())
            return self._wait(self.slow[-1])
        return None

    def _note(self, message: Message) -> None:
        head = message.head
        self.application.seen.append(Seen(head.method, head.target, message.body, sorted(head.headers)))

    async def _now(self) -> Answer:
        return Answer(200, b"short")

    async def _wait(self, waiting: Deferred[Answer]) -> Answer:
        return await waiting

    @property
    def seen(self) -> list[Seen]:
        """What reached the application."""
        return self.application.seen

    def send(self, data: bytes) -> bytes:
        """Send, let what is due happen, and take what came back."""
        for start in range(0, len(data), READ):
            if not self.transport.closed:
                self.protocol.dataReceived(data[start : start + READ])
        return self.take()

    def take(self) -> bytes:
        """What came back since the last time."""
        for _ in range(50):
            self.clock.advance(0)
        answer = self.transport.value()
        self.transport.clear()
        return answer

    def statuses(self, answer: bytes) -> list[int]:
        """The status codes in what came back."""
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d\d\d) [A-Z]", answer)]

    def half_close(self) -> bytes:
        """The peer sends no more, and reads on: what came back."""
        self.protocol.readConnectionLost()
        return self.take()

    def hang_up(self) -> None:
        """The peer is gone."""
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        self.protocol.connectionLost(Failure(ConnectionLost()))
