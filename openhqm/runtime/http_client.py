# -*- test-case-name: tests.test_http_client -*-
"""An HTTP client for a gateway: it follows, repeats, decodes and remembers nothing, and bounds what it takes in.

`treq.client.HTTPClient` un-gzips every answer and keeps a cookie jar, and both change what goes through; so what is
forwarded goes by Twisted's own Agent, which does neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IConsumer, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

CONNECT_SECONDS = 10.0
# Shorter than the keep-alive of common servers (uvicorn and Node close after 5 s): what is still open can be used.
KEPT_SECONDS = 4
MOST_HEAD = 128 * 1024
_END_OF_HEAD = b"\r\n\r\n"


class BodyTooLong(Exception):
    """An answer's body went past its limit; the connection was closed."""


@implementer(IPolicyForHTTPS)
@attrs.frozen
class TLSPolicy:
    """Certificates are verified, always. ``trust`` None: what this machine trusts; ``own`` is shown to who asks."""

    trust: Any = None
    own: Any = None

    @classmethod
    def from_files(cls, ca: str | None, cert: str | None, key: str | None) -> TLSPolicy:
        """From PEM files. `ValueError` in words where one cannot be used."""
        trust = own = None
        path = ca
        try:
            if ca is not None:
                pems = Path(ca).read_bytes().split(b"-----END CERTIFICATE-----")[:-1]
                trust = trustRootFromCertificates(
                    [Certificate.loadPEM(pem + b"-----END CERTIFICATE-----\n") for pem in pems]
                )
            if cert is not None:
                path = key or cert
                own = PrivateCertificate.loadPEM(Path(cert).read_bytes() + b"\n" + Path(path).read_bytes())
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
        except Exception as error:  # whatever OpenSSL has to say
            raise ValueError(f"{path} is not the PEM that was expected: {type(error).__name__}") from None
        return cls(trust, own)

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return optionsForClientTLS(
            hostname.decode("ascii"), trustRoot=self.trust or platformTrust(), clientCertificate=self.own
        )


def make_agent(reactor: Any, tls: TLSPolicy | None = None, *, kept: int = 64) -> IAgent:
    """An agent with a pool of its own, which keeps up to ``kept`` idle connections to each host."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = kept
    pool.cachedConnectionTimeout = KEPT_SECONDS
    pool.retryAutomatically = False  # who tries again, and counts it, is the gateway
    return Agent.usingEndpointFactory(reactor, _Endpoints(reactor, tls or TLSPolicy()), pool)  # type: ignore[no-any-return]


@implementer(IAgentEndpointFactory)
@attrs.frozen
class _Endpoints:
    _reactor: Any
    _tls: TLSPolicy

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: Any = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=CONNECT_SECONDS)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)
        return BoundedHeads(endpoint)


@implementer(IStreamClientEndpoint)
@attrs.frozen
class BoundedHeads:
    """Connections on which the head of an answer is bounded: Twisted's own parser would keep any number of lines."""

    _inner: Any

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        bounding: Any = WrappingFactory(factory)
        bounding.noisy = factory.noisy = False  # type: ignore[attr-defined]
        bounding.protocol = _BoundedHead
        connected: Deferred[Any] = self._inner.connect(bounding)
        return connected.addCallback(lambda wrapper: wrapper.wrappedProtocol)


class _BoundedHead(ProtocolWrapper):
    """Counts what comes in after each request until the empty line that ends a head."""

    _head: bytes | None = b""
    _size = 0

    def writeSequence(self, pieces: Any) -> None:
        if pieces[0].endswith(b" HTTP/1.1\r\n"):  # the head of a request, which Twisted writes in one go
            self._head, self._size = b"", 0
        super().writeSequence(pieces)

    def dataReceived(self, data: bytes) -> None:
        if self._head is not None:
            seen = self._head + data
            self._size += len(data)
            if _END_OF_HEAD in seen or b"\n\n" in seen:
                self._head = None
            elif self._size > MOST_HEAD:
                self.transport.abortConnection()  # type: ignore[union-attr]
                return
            else:
                self._head = seen[-3:]
        super().dataReceived(data)


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
    """The whole body. `BodyTooLong`; cancelling closes the connection."""
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
            self.done.errback(BodyTooLong(f"the answer is longer than {self._most} bytes"))
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
    error = _first_reason(error)
    words = str(error).strip()
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def was_cancelled(error: BaseException) -> bool:
    """Whether a request came to nothing because nobody wanted it any more."""
    return isinstance(_first_reason(error), CancelledError)


def _first_reason(error: BaseException) -> BaseException:
    """Twisted wraps what happened into what became of it."""
    reasons = getattr(error, "reasons", None)
    return _first_reason(reasons[0].value) if reasons else error
