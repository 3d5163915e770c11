# -*- test-case-name: tests.test_routes -*-
"""The HTTP server around the routes: what is refused before a route is asked, and how an answer is sent."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from openhqm.ingress.answers import Answer, problem

SERVER = b"OpenHQM"
IDLE_SECONDS = 75


class BoundedRequest(Request):
    """A request whose body is refused as soon as it is known to be too long."""

    most_body = 10 * 1024 * 1024
    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """Called once the header is complete: a length that is too long is refused before a byte of it."""
        if length is not None and length > self.most_body:
            self._refuse()
        else:
            super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        """Called with each piece of the body: one without a length is refused where it becomes too long."""
        if self._refused:
            return
        self._received += len(data)
        if self._received > self.most_body:
            self._refuse()
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Called with the whole request."""
        if not self._refused:
            super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        self._refused = True
        answer = problem(413, f"the body is longer than {self.most_body} bytes")
        transport: Any = self.channel.transport
        transport.write(
            b"HTTP/1.1 413 Content Too Large\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (answer.content_type, len(answer.body), answer.body)
        )
        self.channel.loseConnection()


class QuietSite(Site):
    """Accepting is counted by metrics; a line for each request would cost more than the request."""

    noisy = False
    displayTracebacks = False

    def log(self, request: Any) -> None:
        """Say nothing."""


def make_site(resource: IResource, most_body: int) -> Site:
    """A site that serves ``resource``, with bodies of at most ``most_body`` bytes."""

    class Bounded(BoundedRequest):
        pass

    Bounded.most_body = most_body
    # Parsing form bodies would read every body a second time, for a kind of content no route takes.
    return QuietSite(resource, requestFactory=Bounded, timeout=IDLE_SECONDS, parsePOSTFormSubmission=False)


def send(request: IRequest, answer: Answer) -> bytes:
    """Set everything but the body, and return the body."""
    request.setResponseCode(answer.status)
    headers = request.responseHeaders
    if answer.status != 204:
        headers.setRawHeaders(b"content-type", [answer.content_type])
    headers.setRawHeaders(b"content-length", [b"%d" % len(answer.body)])
    headers.setRawHeaders(b"cache-control", [b"no-store"])
    headers.setRawHeaders(b"server", [SERVER])
    for name, value in answer.fields:
        headers.setRawHeaders(name, [value])
    return answer.body


class RequestSink:
    """An event stream's way to a reader: a `delivery.streams.Sink` over a request."""

    def __init__(self, request: Any, finished: Deferred[bytes]) -> None:
        self._request = request
        self._finished = finished
        self.registerProducer = request.registerProducer
        self.unregisterProducer = request.unregisterProducer
        self.write = request.write

    def finish(self) -> None:
        """The stream is complete."""
        if not self._finished.called:
            self._finished.callback(b"")

    def abort(self) -> None:
        """Close without waiting for what the reader has not read."""
        self._request.channel.transport.abortConnection()
