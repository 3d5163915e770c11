# -*- test-case-name: tests.http1.test_client,tests.http1.test_agent -*-
"""One call of a server: its connection, its request and what becomes of the response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer, IResponse

from openhqm.http1.failures import AnswerTooLong, CallFailed, NotConnected, connecting_failure, response_failure
from openhqm.http1.response import ClientRequest, Response
from openhqm.http1.rules import Refusal
from openhqm.http1.upstream import Upstream
from openhqm.http1.upstream_pool import UpstreamPool


class Fetched(msgspec.Struct, frozen=True):
    """A whole response. ``fields`` are its header fields as they came."""

    status: int
    fields: Sequence[tuple[bytes, bytes]]
    body: bytes

    def field(self, name: bytes) -> bytes | None:
        """The value of the field ``name`` (in lower case): the last one, where it is repeated."""
        return next((value for key, value in reversed(self.fields) if key.lower() == name), None)


class StreamedBody:
    """The body of a request, from a ``producer`` that announced ``length`` bytes (None: any number)."""

    def __init__(self, producer: IBodyProducer, length: int | None) -> None:
        self.producer = producer
        self._left = length
        self._call: Call | None = None
        self.chunked = length is None

    def start(self, call: Call) -> None:
        """The head of the request was sent."""
        self._call = call
        self.producer.startProducing(self).addCallbacks(self._produced, self._broken)

    def stop(self) -> None:
        """The call has ended: the rest of the body is not wanted."""
        if self._call is not None:
            self._call = None
            self.producer.stopProducing()

    def write(self, piece: bytes) -> None:
        """A piece of the body (`IConsumer`)."""
        call = self._call
        if call is None or not piece:
            return
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                call.break_off(ValueError("the body of the request is longer than it was announced"))
                return
        call.write(piece)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Not needed: the body's own producer is paused (`IConsumer`)."""

    def unregisterProducer(self) -> None:
        """See `registerProducer`."""

    def _produced(self, result: object) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        if self._left:
            call.break_off(ValueError("the body of the request is shorter than it was announced"))
        else:
            call.end()

    def _broken(self, failure: Failure) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.break_off(failure.value or CallFailed("the body of the request could not be read"))


class Call:
    """A call as a `ResponseSink`. ``done`` fires as the subclasses say.

    Cancelling it closes the connection. Before there is one, it fails with a `NotConnected` that was cancelled.
    """

    def __init__(self) -> None:
        self.done: Deferred[Any] = Deferred(self._cancelled)
        self._connecting: Deferred[Any] | None = None
        self._upstream: Upstream | None = None
        self._body: StreamedBody | None = None

    def start(self, pool: UpstreamPool, data: bytes, method: bytes, body: StreamedBody | None = None) -> None:
        """Send ``data``, the head of a request, and what follows in memory. Then a ``body`` in pieces, if any."""
        self._data, self._method, self._body = data, method, body
        upstream = pool.take_idle()
        if upstream is not None:
            self._send(upstream)
            return
        connecting = self._connecting = pool.acquire()
        connecting.addCallbacks(self._send, self._not_connected)

    def write(self, piece: bytes) -> None:
        """Send a piece of the request's body."""
        if self._upstream is not None:
            self._upstream.write(piece)

    def end(self) -> None:
        """The request's body is complete."""
        if self._upstream is not None:
            self._upstream.end()

    def break_off(self, error: BaseException) -> None:
        """End the call with ``error``, and close the connection."""
        upstream, self._upstream = self._upstream, None
        self._stop_body()
        if upstream is not None:
            upstream.abort()
            self._fail(Failure(error))

    def failed(self, refusal: Refusal) -> None:
        """The response will not be completed."""
        self._upstream = None
        self._stop_body()
        self._fail(response_failure(refusal))

    def _send(self, upstream: Upstream) -> None:
        self._connecting, self._upstream = None, upstream
        body = self._body
        if body is None:
            upstream.send(self._data, self._method, self)  # type: ignore[arg-type]
        else:
            upstream.begin(self._data, self._method, body.chunked, body.producer, self, None)  # type: ignore[arg-type]
            body.start(self)
        self._data = b""

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if not self.done.called:
            self._fail(connecting_failure(failure))

    def _cancelled(self, done: Deferred[Any]) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            done.errback(NotConnected(Failure(CancelledError())))
            connecting.cancel()
        upstream, self._upstream = self._upstream, None
        self._stop_body()
        if upstream is not None:
            upstream.abort()

    def _stop_body(self) -> None:
        if self._body is not None:
            self._body.stop()

    def _fail(self, failure: Failure) -> None:
        if not self.done.called:
            self.done.errback(failure)


class Fetch(Call):
    """``done`` fires with a `Fetched`, whose body has at most ``most`` bytes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._collected: bytes | bytearray = b""

    def responded(self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None) -> None:
        """The head of the response."""
        self._status, self._fields = status, fields

    def received(self, piece: bytes) -> None:
        """A piece of its body."""
        if len(self._collected) + len(piece) > self._most:
            if self._upstream is not None:
                self._collected = b""
                self.break_off(AnswerTooLong(f"the response is longer than {self._most} bytes"))
        elif not self._collected:
            self._collected = piece
        else:  # not a list of pieces: a chunk may be a byte, and costs forty of them there
            if not isinstance(self._collected, bytearray):
                self._collected = bytearray(self._collected)
            self._collected += piece

    def completed(self) -> None:
        """It is complete."""
        self._upstream = None
        if not self.done.called:
            self.done.callback(Fetched(self._status, self._fields, bytes(self._collected)))


class Streamed(Call):
    """``done`` fires with an `IResponse` once the head of the response was read."""

    done: Deferred[IResponse]

    def __init__(self, request: ClientRequest) -> None:
        super().__init__()
        self._request = request
        self._response: Response | None = None

    def responded(self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None) -> None:
        """The head of the response. Its body is not read before it is asked for."""
        bodiless = self._request.method == b"HEAD" or status in (204, 304)
        self._response = Response(self._request, status, reason, fields, 0 if bodiless else length, self)
        if not bodiless:
            self.pause()
        self.done.callback(self._response)

    def received(self, piece: bytes) -> None:
        """A piece of its body."""
        if self._response is not None:
            self._response.received(piece)

    def completed(self) -> None:
        """It is complete."""
        self._upstream = None
        self._stop_body()
        if self._response is not None:
            self._response.ended(None)

    # The producer of the response's body

    def pause(self) -> None:
        """Do not read more of the body."""
        if self._upstream is not None:
            self._upstream.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if self._upstream is not None:
            self._upstream.resumeProducing()

    def give_up(self) -> None:
        """The rest of the body is not wanted."""
        self.break_off(CancelledError())

    def _fail(self, failure: Failure) -> None:
        if self._response is None:
            super()._fail(failure)
        else:
            self._response.ended(failure)
