# -*- test-case-name: tests.ingress.test_fast_path -*-
"""Answers and event streams over a ``twisted.web`` request."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from openhqm.http1.messages import REASONS, SERVER, Answer


def send(request: IRequest, answer: Answer) -> bytes:
    """Set status and header fields of ``answer`` on ``request``, and return the body."""
    request.setResponseCode(answer.status, REASONS.get(answer.status))
    headers = request.responseHeaders
    headers.setRawHeaders(b"server", [SERVER])
    if answer.status != 204:
        headers.setRawHeaders(b"content-type", [answer.content_type])
        headers.setRawHeaders(b"content-length", [b"%d" % len(answer.body)])
    headers.setRawHeaders(b"cache-control", [b"no-store"])
    if answer.status != 204:
        headers.setRawHeaders(b"x-content-type-options", [b"nosniff"])
    for name, value in answer.fields:
        headers.setRawHeaders(name, [value])
    return answer.body


class WebStreamSink:
    """A `delivery.streams.Sink` over a web request. ``finished`` fires when the stream is complete."""

    def __init__(self, request: Any, finished: Deferred[bytes]) -> None:
        self._finished = finished
        self.registerProducer = request.registerProducer
        self.unregisterProducer = request.unregisterProducer
        self.write = request.write

    def finish(self) -> None:
        """End the answer: the stream is complete."""
        if not self._finished.called:
            self._finished.callback(b"")
