"""An HTTP server in memory for tests: bytes in, responses out, and the requests that reached the application."""

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

from openhqm.http1.messages import Answer, FullRequest
from openhqm.http1.site import HTTP1Site
from openhqm.ingress.fast_path import refused

MOST_BODY = 100_000
READ = 65536  # the most bytes that a transport delivers at once


class Transport(StringTransport):
    """A transport in memory that records how it was closed."""

    half_closed = aborted = False
    dataBuffer = b""  # bytes that the peer has not received

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
class SeenRequest:
    """A request as the application got it."""

    method: bytes
    target: bytes
    body: bytes
    headers: list[tuple[bytes, bytes]]


class Application(Resource):
    """Records its requests. A request for ``/hold`` waits for the test; all others are answered at once."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[SeenRequest] = []
        self.held: list[Any] = []
        self.lost: list[Any] = []

    def render(self, request: Any) -> Any:
        headers = [
            (name.lower(), value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values
        ]
        self.seen.append(SeenRequest(request.method, request.uri, request.content.read(), sorted(headers)))
        request.setHeader(b"content-type", b"text/plain")
        if request.uri.startswith(b"/hold"):
            self.held.append(request)
            request.notifyFinish().addErrback(lambda failure: self.lost.append(request))
            return NOT_DONE_YET
        return b"web:" + request.uri


class MemoryServer:
    """An `HTTP1Site` with one connection at a time.

    The fast path serves ``/fast``, and ``/slow`` once the test fires a Deferred in ``slow``. The rest is for the
    application.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.application = Application()
        self.slow: list[Deferred[Answer]] = []
        self.site = HTTP1Site(self.application, self.clock, self._fast_path, refused, MOST_BODY)
        self.site.startFactory()
        self.connect()

    def connect(self) -> None:
        """Open a new connection."""
        self.protocol = self.site.buildProtocol(None)
        self.transport = Transport(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        self.protocol.makeConnection(self.transport)

    def _fast_path(self, request: FullRequest) -> Any:
        if request.head.target == b"/fast":
            self._record(request)
            return self._now()
        if request.head.target == b"/slow":
            self._record(request)
            self.slow.append(Deferred())
            return self._wait(self.slow[-1])
        return None

    def _record(self, request: FullRequest) -> None:
        head = request.head
        self.application.seen.append(SeenRequest(head.method, head.target, request.body, sorted(head.headers)))

    async def _now(self) -> Answer:
        return Answer(200, b"fast")

    async def _wait(self, waiting: Deferred[Answer]) -> Answer:
        return await waiting

    @property
    def seen(self) -> list[SeenRequest]:
        """The requests that were served, by the application or on the fast path."""
        return self.application.seen

    def send(self, data: bytes) -> bytes:
        """Send ``data``, run what is due, and return the bytes that came back."""
        for start in range(0, len(data), READ):
            if not self.transport.closed:
                self.protocol.dataReceived(data[start : start + READ])
        return self.take()

    def take(self) -> bytes:
        """The bytes that came back since the last call."""
        for _ in range(50):
            self.clock.advance(0)
        answer = self.transport.value()
        self.transport.clear()
        return answer

    def statuses(self, answer: bytes) -> list[int]:
        """The status codes of the responses in ``answer``."""
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d\d\d) [A-Z]", answer)]

    def half_close(self) -> bytes:
        """The client closes its side and reads on. Returns the bytes that came back."""
        self.protocol.readConnectionLost()
        return self.take()

    def hang_up(self) -> None:
        """The connection is lost."""
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        self.protocol.connectionLost(Failure(ConnectionLost()))
