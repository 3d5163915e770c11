# -*- test-case-name: tests.http1.test_upstream -*-
"""A pool of connections to one upstream server: those in use, and idle ones kept for the next request."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from openhqm.http1.upstream import Upstream
from openhqm.runtime.connecting import host_endpoint

CONNECT_SECONDS = 5.0
HANDSHAKE_SECONDS = 10.0
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
    """Connections to one upstream server. At most ``most_idle`` are kept idle; the callers bound how many are in use.

    ``connect_seconds`` is the limit for connecting; None: the ``endpoint`` has its own. ``secure``: it speaks TLS. Then
    connecting ends with the handshake, which has `HANDSHAKE_SECONDS`.
    """

    def __init__(
        self,
        endpoint: Any,
        clock: IReactorTime,
        *,
        secure: bool = False,
        most_idle: int = MOST_IDLE,
        connect_seconds: float | None = CONNECT_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self.clock = clock
        self._secure = secure
        self._most_idle = most_idle
        self._connect_seconds = connect_seconds
        self._stopped = False
        self._open: set[Upstream] = set()
        self._idle: dict[Upstream, float] = {}  # since when; the longest idle connection is the first
        self._closing_idle: IDelayedCall | None = None
        self._factory = Factory.forProtocol(lambda: Upstream(clock, self._release, secure))  # type: ignore[arg-type]
        self._factory.noisy = False

    def take_idle(self) -> Upstream | None:
        """The idle connection that was used last, if there is one."""
        return self._idle.popitem()[0] if self._idle else None

    def acquire(self) -> Deferred[Upstream]:
        """Fires with an idle connection (the last one used), or with a new one. Fails as connecting does.

        The connection returns to the pool by itself when its request has ended.
        """
        idle = self.take_idle()
        if idle is not None:
            return succeed(idle)
        connecting: Deferred[Upstream] = self._endpoint.connect(self._factory)
        if self._connect_seconds is not None:
            connecting.addTimeout(self._connect_seconds, self.clock, self._timed_out)
        if self._secure:
            connecting.addCallback(self._handshake)
        return connecting.addCallback(self._connected)

    def put_back(self, upstream: Upstream) -> None:
        """Keep idle a connection that no request has used."""
        self._release(upstream, True)

    def close_idle(self) -> list[Deferred[None]]:
        """Close the idle connections. The Deferreds fire when they are closed."""
        idle, self._idle = self._idle, {}
        self._close_later()
        return [upstream.close() for upstream in idle]

    def retire(self) -> None:
        """Keep no connection any more. Requests that are under way go on."""
        self._most_idle = 0
        self.close_idle()

    def stop(self) -> None:
        """Close all connections. Requests that are under way fail."""
        self._stopped = True
        for upstream in [*self._open]:
            upstream.transport.abortConnection()

    def _handshake(self, upstream: Upstream) -> Any:
        assert upstream.secured is not None
        return upstream.secured.addTimeout(HANDSHAKE_SECONDS, self.clock, self._timed_out)

    def _timed_out(self, result: Any, seconds: float) -> Any:
        return Failure(TimeoutError(f"not connected within {seconds:g} s"))

    def _connected(self, upstream: Upstream) -> Upstream:
        self._open.add(upstream)
        if self._stopped:
            upstream.transport.abortConnection()
        return upstream

    def _release(self, upstream: Upstream, reusable: bool) -> None:
        self._idle.pop(upstream, None)
        if not reusable:
            self._open.discard(upstream)
            self._close_later()
        elif len(self._idle) >= self._most_idle:
            upstream.close()
        else:
            self._idle[upstream] = self.clock.seconds()
            self._close_later()

    def _close_later(self) -> None:
        """One timer for all: to set one for each request would cost more than the rest of the pool does."""
        if not self._idle:
            if self._closing_idle is not None:
                timer, self._closing_idle = self._closing_idle, None
                timer.cancel()
        elif self._closing_idle is None:
            seconds = next(iter(self._idle.values())) + IDLE_SECONDS - self.clock.seconds()
            self._closing_idle = self.clock.callLater(max(0.0, seconds), self._close_expired)

    def _close_expired(self) -> None:
        self._closing_idle = None
        now = self.clock.seconds()
        for upstream in [each for each, since in self._idle.items() if now - since >= IDLE_SECONDS]:
            del self._idle[upstream]
            upstream.close()
        self._close_later()
