# -*- test-case-name: tests.http1.test_guarded -*-
"""An HTTP client that asks before it calls: the URL, every address of its name, and the peer once connected.

A name is resolved once, and the connection goes to an address that was looked at, not to the name again: who answers
for a name may answer otherwise the second time. The name remains in ``Host``, in SNI and in what the certificate is
checked against. Nothing is kept open for a later request, so that every attempt is looked at anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ISystemHandle,
)
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from openhqm.errors import DestinationRefused
from openhqm.http1.client import BoundedHeads
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.resolving import resolved

RESOLVE_SECONDS = 5.0
CONNECT_SECONDS = 10.0
MOST_TRIED = 4  # of the addresses of one name; all of them are looked at


class Checked(Protocol):
    """A URL that was found sound."""

    @property
    def url(self) -> str:
        """The URL as it was understood, which is the one to call."""


Check = Callable[[str], Checked]  # raises `DestinationRefused`
Permits = Callable[[str, str], bool]  # of an address, and of the host it was found for


def guarded_agent(
    reactor: Any,
    check: Check,
    permits: Permits,
    *,
    resolver: IHostnameResolver | None = None,
    tls: IPolicyForHTTPS | None = None,
    connect_seconds: float = CONNECT_SECONDS,
) -> IAgent:
    """An agent for URLs that somebody else chose: what is not allowed fails with `DestinationRefused`.

    So does a name that has no address, or none in time: nobody shall tell these apart. A redirect is an answer like
    any other, and followed by nobody. ``reactor`` provides TCP and time, and names where no ``resolver`` is given.
    """
    way = _Way(reactor, permits, resolver or reactor.nameResolver, connect_seconds)
    endpoints = _Endpoints(way, tls or BrowserLikePolicyForHTTPS())
    pool = HTTPConnectionPool(reactor, persistent=False)
    return _GuardedAgent(Agent.usingEndpointFactory(reactor, endpoints, pool), check)


@attrs.frozen
class _Way:
    """What every connection has in common."""

    reactor: Any
    permits: Permits
    resolver: IHostnameResolver
    seconds: float


@implementer(IAgent)
@attrs.frozen
class _GuardedAgent:
    _agent: IAgent
    _check: Check

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        try:
            url = self._check(uri.decode("latin-1")).url  # one character a byte: what is not ASCII stays visible
        except DestinationRefused as refused:
            return fail(refused)
        return maybeDeferred(self._agent.request, method, url.encode("ascii"), headers, bodyProducer)


@implementer(IAgentEndpointFactory)
@attrs.frozen
class _Endpoints:
    _way: _Way
    _tls: IPolicyForHTTPS

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint = _Endpoint(self._way, uri.host.decode("ascii"), uri.port)
        if uri.scheme != b"https":
            return BoundedHeads(endpoint, self._way.reactor)
        try:
            creator = self._tls.creatorForNetloc(uri.host, uri.port)
        except UnicodeError:  # an A-label that stands for nothing
            raise DestinationRefused("a name that no certificate could bear") from None
        return BoundedHeads(wrapClientTLS(creator, endpoint), self._way.reactor)


@implementer(IStreamClientEndpoint)
@attrs.frozen
class _Endpoint:
    """The plain connection; TLS is wrapped around it, and knows only the name."""

    _way: _Way
    _host: str
    _port: int

    @deferred
    async def connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        reactor = self._way.reactor
        addresses = (await self._addresses())[:MOST_TRIED]
        deadline = reactor.seconds() + self._way.seconds
        failures = []
        for tried, address in enumerate(addresses):
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            # An address where nobody answers leaves the others their share of the time.
            seconds = max(0.0, deadline - reactor.seconds()) / (len(addresses) - tried)
            try:
                protocol = await kind(reactor, address, self._port, seconds).connect(protocolFactory)
            except ConnectError as error:
                failures.append(error)
            else:
                self._look_again(protocol)
                return protocol
        raise failures[-1]

    async def _addresses(self) -> list[str]:
        if isIPAddress(self._host) or isIPv6Address(self._host):
            found = [self._host]
        else:
            found = await resolved(self._way.resolver, self._way.reactor, self._host, RESOLVE_SECONDS)
        for address in found:
            if not self._way.permits(address, self._host):
                raise DestinationRefused(f"the address {address}")
        return found

    def _look_again(self, protocol: Any) -> None:
        # What was written by now still lies in the transport, and is thrown away with it.
        for peer in _peers(protocol.transport):
            if not self._way.permits(peer, self._host):
                protocol.transport.abortConnection()
                raise DestinationRefused(f"connected to {peer}")


def _peers(transport: Any) -> list[str]:
    """Who is at the other end: Twisted repeats what it asked for, the kernel knows what became of it."""
    peers = [transport.getPeer().host]
    if ISystemHandle.providedBy(transport):
        connection: Any = transport.getHandle()
        try:
            peers.append(connection.getpeername()[0])
        except OSError:
            peers.append("nobody any more")
    return peers
