# -*- test-case-name: tests.http1.test_client -*-
"""An HTTP client for a gateway: it follows no redirect, repeats no request, keeps no cookie and limits what it reads.

`treq.client.HTTPClient` decompresses responses and keeps a cookie jar, which would change what the gateway forwards.
This client is Twisted's own Agent, which does neither.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IConsumer, IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from openhqm.errors import OpenHQMError
from openhqm.http1.rules import request_target
from openhqm.runtime.connecting import host_endpoint

CONNECT_SECONDS = 10.0
# Shorter than the keep-alive timeout of common servers (5 s in uvicorn and Node), which would close a connection as a
# request is sent on it.
IDLE_SECONDS = 4
MOST_HEAD = 128 * 1024  # bytes of a response's head, with the interim responses before it
CLOSING_SECONDS = 5.0
_VISIBLE = re.compile(rb"[!-~]+")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_FINAL = re.compile(rb"HTTP/\d\.\d [2-9]\d\d[ \r\n]")


class AnswerTooLong(Exception):
    """A response is longer than its limit. The connection was closed."""


def make_agent(reactor: Any, tls: IPolicyForHTTPS | None = None, *, kept: int = 64) -> IAgent:
    """An agent with a connection pool of its own, which keeps up to ``kept`` idle connections to each host.

    ``tls`` is the policy for https (`runtime.tls.TLSPolicy`); without it, https URLs fail with `SchemeNotSupported`.
    """
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = kept
    pool.cachedConnectionTimeout = IDLE_SECONDS
    pool.retryAutomatically = False  # the gateway retries, and counts its attempts
    return ExactAgent.usingEndpointFactory(reactor, _Endpoints(reactor, tls), pool)  # type: ignore[no-any-return]


class ExactAgent(Agent):  # type: ignore[misc]
    """Twisted's Agent, with the target of a request byte for byte as it stands in the URL.

    Twisted takes URLs apart with urllib and joins them again. That loses an empty query and empty parameters, and on
    Python 3.13 changes a path that begins with two slashes.
    """

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[IResponse]:
        parsed = URI.fromBytes(uri)
        if _VISIBLE.fullmatch(uri) is None:
            return fail(ValueError("a URL must be visible ASCII"))
        try:
            endpoint = self._getEndpoint(parsed)
        except SchemeNotSupported as error:
            return fail(error)
        key, target = (parsed.scheme, parsed.host, parsed.port), request_target(method, uri)
        sent: Deferred[IResponse] = self._requestWithEndpoint(
            key, endpoint, method, parsed, headers, bodyProducer, target
        )
        return sent


def connections_of(agent: Any) -> HTTPConnectionPool:
    """The connections of an agent of `make_agent`. The reactor refers to them for as long as one of them is open."""
    pool: HTTPConnectionPool = agent._pool
    return pool


def close_idle(connections: HTTPConnectionPool) -> Deferred[None]:
    """Close those of the ``connections`` that no call uses. Fires when they are closed."""
    closed: Deferred[None] = connections.closeCachedConnections()
    return closed


@implementer(IAgentEndpointFactory)
@attrs.frozen
class _Endpoints:
    _reactor: Any
    _tls: IPolicyForHTTPS | None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: Any = host_endpoint(self._reactor, uri.host, uri.port, CONNECT_SECONDS)
        if uri.scheme == b"https":
            if self._tls is None:
                raise SchemeNotSupported("https needs a TLS policy")
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)
        return BoundedHeads(endpoint, self._reactor)


@implementer(IStreamClientEndpoint)
@attrs.frozen
class BoundedHeads:
    """Wraps an endpoint: on its connections the head of a response is limited to `MOST_HEAD` bytes.

    Twisted's own parser would keep any number of header lines in memory.
    """

    _inner: Any
    _clock: IReactorTime

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        bounding: Any = WrappingFactory(factory)
        bounding.noisy = factory.noisy = False  # type: ignore[attr-defined]
        bounding.clock = self._clock
        bounding.protocol = _BoundedHead
        connected: Deferred[Any] = self._inner.connect(bounding)
        return connected.addCallback(lambda wrapper: wrapper.wrappedProtocol)


class _BoundedHead(ProtocolWrapper):
    """Counts the bytes of each response's head, interim responses included, and aborts the connection beyond the limit.

    It also aborts a connection that is not closed `CLOSING_SECONDS` after it was asked to: a server may ignore the end
    of TLS.
    """

    _head: bytearray | None = None
    _size = 0
    _close_timer: Any = None
    _error: Exception | None = None

    def writeSequence(self, pieces: Any) -> None:
        if pieces[0].endswith(b" HTTP/1.1\r\n"):  # the head of a request, which Twisted writes in one call
            self._head, self._size = bytearray(), 0
        super().writeSequence(pieces)

    def dataReceived(self, data: bytes) -> None:
        if self._error is not None:
            return
        if self._head is not None and not self._head and not self._size:
            _keep_connection(self.wrappedProtocol._parser)  # type: ignore[attr-defined]
        if self._head is not None and not self._within_limit(self._head, data):
            self._error = AnswerTooLong(f"the head of the response is longer than {MOST_HEAD} bytes")
            self.transport.abortConnection()  # type: ignore[union-attr]
        else:
            super().dataReceived(data)

    def _within_limit(self, head: bytearray, data: bytes) -> bool:
        while True:
            start = max(0, len(head) - 2)
            head += data
            end = _END_OF_HEAD.search(head, start)
            if end is None:
                return self._size + len(head) <= MOST_HEAD
            self._size += end.end()
            if _FINAL.match(head) is not None or self._size > MOST_HEAD:
                self._head = None
                return self._size <= MOST_HEAD
            data = bytes(head[end.end() :])  # Any number of interim responses may precede the final one.
            head.clear()

    def stopProducing(self) -> None:
        """The rest of the response is not wanted."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def loseConnection(self) -> None:
        super().loseConnection()
        if self._close_timer is None and self.connected:
            self._close_timer = self.factory.clock.callLater(CLOSING_SECONDS, self.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._close_timer is not None and self._close_timer.active():
            self._close_timer.cancel()
        super().connectionLost(Failure(self._error) if self._error is not None else reason)


def _keep_connection(parser: Any) -> None:
    """Let ``parser`` put ``Connection`` among the fields of the response, where Twisted leaves it out.

    It names fields that end with this connection (RFC 9110, section 7.6.1), which a gateway must know.
    """
    receive = parser.headerReceived

    def receive_and_keep(name: bytes, value: bytes) -> None:
        receive(name, value)
        if name.lower() == b"connection":
            parser.headers.addRawHeader(name, value)

    parser.headerReceived = receive_and_keep


def content_producer(content: bytes) -> IBodyProducer:
    """A body producer for `IAgent.request` that sends ``content``."""
    return _Content(content)


@implementer(IBodyProducer)
class _Content:
    """Writes the whole content at once, because it is in memory anyway."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """The content was written already."""

    def resumeProducing(self) -> None:
        """The content was written already."""

    def stopProducing(self) -> None:
        """The content was written already."""


def read_body(response: IResponse, most: int) -> Deferred[bytes]:
    """Fires with the whole body of ``response``, of at most ``most`` bytes.

    Fails with `AnswerTooLong`, or as the connection fails. Cancelling closes the connection.
    """
    collector = _Collector(most)
    response.deliverBody(collector)
    return collector.done


class _Collector(Protocol):
    def __init__(self, most: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda done: self._stop())
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._most:
            self._pieces.append(data)
        elif not self.done.called:
            self._pieces.clear()
            self.done.errback(AnswerTooLong(f"the response is longer than {self._most} bytes"))
            self._stop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        # Without a length, the end of the connection ends the body (RFC 9112, section 6.3).
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _stop(self) -> None:
        if self.transport is not None:
            self.transport.stopProducing()  # type: ignore[attr-defined]


def describe_failure(error: BaseException) -> str:
    """A text for people about why a request failed."""
    error = root_cause(error)
    if isinstance(error, OpenHQMError | AnswerTooLong):
        return str(error)
    if type(error).__module__.partition(".")[0] in ("OpenSSL", "service_identity"):
        from openhqm.runtime.tls import describe_tls_error

        return describe_tls_error(error)
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def was_cancelled(error: BaseException) -> bool:
    """Whether a request failed because it was cancelled."""
    return isinstance(root_cause(error), CancelledError | ConnectingCancelledError)


def root_cause(error: BaseException) -> BaseException:
    """The error inside Twisted's `RequestNotSent`, `ResponseNeverReceived` and `ResponseFailed`; others as they are."""
    reasons = getattr(error, "reasons", None)
    return root_cause(reasons[0].value) if reasons else error
