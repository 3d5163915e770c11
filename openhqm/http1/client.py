# -*- test-case-name: tests.http1.test_client -*-
"""An HTTP client for a gateway: it follows, repeats, decodes and remembers nothing, and bounds what it takes in.

`treq.client.HTTPClient` un-gzips every answer and keeps a cookie jar, and both change what goes through; so what is
forwarded goes by Twisted's own Agent, which does neither.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
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

CONNECT_SECONDS = 10.0
# Shorter than the keep-alive of common servers (uvicorn and Node close after 5 s): what is still open can be used.
KEPT_SECONDS = 4
MOST_HEAD = 128 * 1024
CLOSING_SECONDS = 5.0
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_FINAL = re.compile(rb"HTTP/\d\.\d [2-9]\d\d[ \r\n]")


class AnswerTooLong(Exception):
    """An answer went past its limit; the connection was closed."""


def make_agent(reactor: Any, tls: IPolicyForHTTPS | None = None, *, kept: int = 64) -> IAgent:
    """An agent with a pool of its own, which keeps up to ``kept`` idle connections to each host.

    ``tls`` is for https (`runtime.tls.TLSPolicy`); without it there is none.
    """
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = kept
    pool.cachedConnectionTimeout = KEPT_SECONDS
    pool.retryAutomatically = False  # who tries again, and counts it, is the gateway
    return Agent.usingEndpointFactory(reactor, _Endpoints(reactor, tls), pool)  # type: ignore[no-any-return]


def close_agent(agent: Any) -> Deferred[None]:
    """Close what an agent of `make_agent` keeps open."""
    closed: Deferred[None] = agent._pool.closeCachedConnections()
    return closed


@implementer(IAgentEndpointFactory)
@attrs.frozen
class _Endpoints:
    _reactor: Any
    _tls: IPolicyForHTTPS | None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: Any = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=CONNECT_SECONDS)
        if uri.scheme == b"https":
            if self._tls is None:
                raise SchemeNotSupported("https needs TLS")
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)
        return BoundedHeads(endpoint, self._reactor)


@implementer(IStreamClientEndpoint)
@attrs.frozen
class BoundedHeads:
    """Connections on which the head of an answer is bounded: Twisted's own parser would keep any number of lines."""

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
    """Counts what comes in after each request until the end of the head of its answer, interim answers and all.

    And it lets nobody keep a connection that is given up: a peer need not answer the end of TLS.
    """

    _head: bytearray | None = None
    _size = 0
    _late: Any = None
    _why: Exception | None = None

    def writeSequence(self, pieces: Any) -> None:
        if pieces[0].endswith(b" HTTP/1.1\r\n"):  # the head of a request, which Twisted writes in one go
            self._head, self._size = bytearray(), 0
        super().writeSequence(pieces)

    def dataReceived(self, data: bytes) -> None:
        if self._why is not None:
            return
        if self._head is not None and not self._bounded(self._head, data):
            self._why = AnswerTooLong(f"the head of the answer is longer than {MOST_HEAD} bytes")
            self.transport.abortConnection()  # type: ignore[union-attr]
        else:
            super().dataReceived(data)

    def _bounded(self, head: bytearray, data: bytes) -> bool:
        while True:
            behind = max(0, len(head) - 2)
            head += data
            end = _END_OF_HEAD.search(head, behind)
            if end is None:
                return self._size + len(head) <= MOST_HEAD
            self._size += end.end()
            if _FINAL.match(head) is not None or self._size > MOST_HEAD:
                self._head = None
                return self._size <= MOST_HEAD
            data = bytes(head[end.end() :])  # Any number of interim answers may stand before the final one.
            head.clear()

    def stopProducing(self) -> None:
        """Nobody wants the rest of the answer."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def loseConnection(self) -> None:
        super().loseConnection()
        if self._late is None and self.connected:
            self._late = self.factory.clock.callLater(CLOSING_SECONDS, self.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()
        super().connectionLost(Failure(self._why) if self._why is not None else reason)


def content_producer(content: bytes) -> IBodyProducer:
    """What `IAgent.request` sends."""
    return _Content(content)


@implementer(IBodyProducer)
class _Content:
    """Writes all of it at once: it is in memory anyway."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It has been written."""

    def resumeProducing(self) -> None:
        """It has been written."""

    def stopProducing(self) -> None:
        """It has been written."""


def read_body(response: IResponse, most: int) -> Deferred[bytes]:
    """The whole body. `AnswerTooLong`; cancelling closes the connection."""
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
            self.done.errback(AnswerTooLong(f"the answer is longer than {self._most} bytes"))
            self._stop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        # Without a length, the end of the connection is the end of the body (RFC 9112, section 6.3).
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _stop(self) -> None:
        if self.transport is not None:
            self.transport.stopProducing()  # type: ignore[attr-defined]


def reason_of(error: BaseException) -> str:
    """Why a request came to nothing, in words."""
    error = first_reason(error)
    if isinstance(error, OpenHQMError | AnswerTooLong):
        return str(error)
    if type(error).__module__.partition(".")[0] in ("OpenSSL", "service_identity"):
        from openhqm.runtime.tls import words_of

        return words_of(error)
    words = str(error).strip()
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def was_cancelled(error: BaseException) -> bool:
    """Whether a request came to nothing because nobody wanted it any more."""
    return isinstance(first_reason(error), CancelledError | ConnectingCancelledError)


def first_reason(error: BaseException) -> BaseException:
    """Twisted wraps what happened into what became of it."""
    reasons = getattr(error, "reasons", None)
    return first_reason(reasons[0].value) if reasons else error
