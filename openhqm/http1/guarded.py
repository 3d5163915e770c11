# -*- test-case-name: tests.http1.test_guarded -*-
"""An HTTP client for URLs that callers choose: it prevents server-side request forgery.

It checks the URL at every request, every address that the host name resolves to, and the peer's address once it is
connected. The connection goes to one of the checked addresses: a second look-up could return another address (DNS
rebinding). The name remains in ``Host``, in SNI and in the check of the certificate. `openhqm.http1.checked_pool` says
when a connection is kept for another request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ISystemHandle,
)
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from openhqm.errors import DestinationRefused
from openhqm.http1.calls import Fetched
from openhqm.http1.checked_pool import CheckedHost, CheckedPool, Kept, Permits
from openhqm.http1.client import Client, Fields, Server
from openhqm.runtime.deferreds import deferred

CONNECT_SECONDS = 10.0
MOST_TRIED = 4  # of the addresses of one name; all of them are checked


class CheckedURL(Protocol):
    """A URL that passed the check."""

    @property
    def url(self) -> str:
        """The URL in its normal form, which is the one to call."""


CheckURL = Callable[[str], CheckedURL]
"""Checks a URL. Raises `DestinationRefused`."""


def guarded_client(
    reactor: Any,
    check: CheckURL,
    permits: Permits,
    *,
    resolver: IHostnameResolver | None = None,
    tls: IPolicyForHTTPS | None = None,
    connect_seconds: float = CONNECT_SECONDS,
    kept: int = 0,
) -> GuardedClient:
    """A client for URLs that callers choose. A request to a destination that is not allowed fails.

    It fails with `DestinationRefused`, as does one to a name without an address, so that a caller cannot tell the two
    apart. Redirects are not followed.

    Arguments:

    - ``reactor``: provides TCP and time, and resolves names where no ``resolver`` is given.
    - ``check``: checks a URL before its name is resolved.
    - ``permits``: checks each address before the connection is made, and the peer's address afterwards.
    - ``tls``: the policy for https; by default, certificates are verified as browsers do.
    - ``connect_seconds``: the time for connecting, over all addresses that are tried.
    - ``kept``: how many idle connections are kept, to all servers together; 0: each request has a new one.
    """
    resolver = resolver or reactor.nameResolver
    policy = tls or BrowserLikePolicyForHTTPS()
    idle = Kept(kept)

    def pool(server: Server) -> CheckedPool:
        host = CheckedHost(reactor, resolver, permits, server.host.decode("ascii"))
        endpoint: Any = _Endpoint(reactor, host, permits, server.port, connect_seconds)
        if server.secure:
            try:
                creator = policy.creatorForNetloc(server.host, server.port)
            except UnicodeError:  # an invalid A-label (RFC 5890)
                raise DestinationRefused("the host name cannot stand in a certificate") from None
            endpoint = wrapClientTLS(creator, endpoint)
        return CheckedPool(host, idle, endpoint, reactor, secure=server.secure, connect_seconds=None)

    return GuardedClient(Client(pool, kept=kept), check)


@implementer(IAgent)
@attrs.frozen(eq=False)
class GuardedClient:
    """The guard in front of a client, by both of its ways: each URL is checked, and called in its normal form."""

    _client: Client
    _check: CheckURL

    def fetch(self, method: bytes, url: bytes, fields: Fields, content: bytes | None, most: int) -> Deferred[Fetched]:
        """As `Client.fetch`; fails with `DestinationRefused`, too."""
        try:
            return self._client.fetch(method, self._checked(url), fields, content, most)
        except DestinationRefused as refused:
            return fail(refused)

    def connect(self, url: bytes) -> Deferred[None]:
        """As `Client.connect`; fails with `DestinationRefused`, too."""
        try:
            return self._client.connect(self._checked(url))
        except DestinationRefused as refused:
            return fail(refused)

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """As `IAgent` has it; fails with `DestinationRefused`, too."""
        try:
            return self._client.request(method, self._checked(uri), headers, bodyProducer)
        except DestinationRefused as refused:
            return fail(refused)

    def close_idle(self) -> Deferred[None]:
        """See `Client.close_idle`."""
        return self._client.close_idle()

    def _checked(self, url: bytes) -> bytes:
        return self._check(url.decode("latin-1")).url.encode("ascii")  # the check refuses what is beyond ASCII


@implementer(IStreamClientEndpoint)
@attrs.frozen
class _Endpoint:
    """The TCP connection to a checked address. TLS is wrapped around it, and knows the host name only."""

    _reactor: Any
    _host: CheckedHost
    _permits: Permits
    _port: int
    _seconds: float

    @deferred
    async def connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        reactor = self._reactor
        addresses = (await self._host.find())[:MOST_TRIED]
        deadline = reactor.seconds() + self._seconds
        failures = []
        for tried, address in enumerate(addresses):
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            # An address that does not answer must leave the other addresses their share of the time.
            seconds = max(0.0, deadline - reactor.seconds()) / (len(addresses) - tried)
            try:
                protocol = await kind(reactor, address, self._port, seconds).connect(protocolFactory)
            except ConnectError as error:
                failures.append(error)
            else:
                self._check_peer(protocol)
                return protocol
        raise failures[-1]

    def _check_peer(self, protocol: Any) -> None:
        # Bytes written so far are still in the transport's buffer, and are dropped with it.
        for peer in _peers(protocol.transport):
            if not self._permits(peer, self._host.name):
                protocol.transport.abortConnection()
                raise DestinationRefused(f"the connection leads to {peer}, which is not allowed")


def _peers(transport: Any) -> list[str]:
    """The peer's addresses: the one Twisted connected to, and the one the kernel reports."""
    peers = [transport.getPeer().host]
    if ISystemHandle.providedBy(transport):
        connection: Any = transport.getHandle()
        try:
            peers.append(connection.getpeername()[0])
        except OSError:
            peers.append("unknown")
    return peers
