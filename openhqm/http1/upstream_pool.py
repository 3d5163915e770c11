# -*- test-case-name: tests.http1.test_upstream -*-
"""A pool of connections to one upstream server: those in use, and idle ones kept for the next request."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory

from openhqm.http1.upstream import Upstream
from openhqm.runtime.connecting import host_endpoint

CONNECT_SECONDS = 5.0
# Shorter than the keep-alive timeout of common servers (2 s and more). A request is never sent a second time, so it
# must not go out on a connection that the server is closing.
IDLE_SECONDS = 1.5
MOST_IDLE = 64


def endpoint_for(url: str, reactor: Any) -> Any:
    """The client endpoint for an http or https URL. https without ``twisted[tls]`` raises `ImportError`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    endpoint = host_endpoint(reactor, host, parts.port or (443 if secure else 80), CONNECT_SECONDS)
    if not secure:
        return endpoint
    from openhqm.runtime.tls import client_tls  # needs pyOpenSSL, which http does not

    return wrapClientTLS(client_tls(host), endpoint)


class UpstreamPool:
    """Connections to one upstream server. At most `MOST_IDLE` are kept idle; the callers bound how many are in use."""

    def __init__(self, endpoint: Any, clock: IReactorTime) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._stopped = False
        self._open: set[Upstream] = set()
        self._idle: dict[Upstream, IDelayedCall] = {}
        self._factory = Factory.forProtocol(lambda: Upstream(clock, self._release))  # type: ignore[arg-type]
        self._factory.noisy = False

    def acquire(self) -> Deferred[Upstream]:
        """Fires with an idle connection (the last one used), or with a new one. Fails as connecting does.

        The connection returns to the pool by itself when its request has ended.
        """
        if self._idle:
            upstream, call = self._idle.popitem()
            call.cancel()
            return succeed(upstream)
        connecting: Deferred[Upstream] = self._endpoint.connect(self._factory)
        connecting.addTimeout(CONNECT_SECONDS, self._clock)
        connecting.addCallback(self._connected)
        return connecting

    def stop(self) -> None:
        """Close all connections. Requests that are under way fail."""
        self._stopped = True
        for upstream in [*self._open]:
            upstream.transport.abortConnection()

    def _connected(self, upstream: Upstream) -> Upstream:
        self._open.add(upstream)
        if self._stopped:
            upstream.transport.abortConnection()
        return upstream

    def _release(self, upstream: Upstream, reusable: bool) -> None:
        call = self._idle.pop(upstream, None)
        if call is not None:
            call.cancel()
        if not reusable:
            self._open.discard(upstream)
        elif len(self._idle) >= MOST_IDLE:
            upstream.transport.loseConnection()
        else:
            self._idle[upstream] = self._clock.callLater(IDLE_SECONDS, self._expired, upstream)

    def _expired(self, upstream: Upstream) -> None:
        del self._idle[upstream]
        upstream.transport.loseConnection()
