# -*- test-case-name: tests.runtime.test_tunnels -*-
"""Connections through an HTTP proxy, which opens a tunnel to a host (CONNECT: RFC 9110, section 9.3.6)."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.runtime.connecting import host_endpoint
from openhqm.runtime.deferreds import deferred

OPEN_SECONDS = 10.0
MOST_BYTES = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


class TunnelRefused(ConnectError):
    """The proxy has not opened the tunnel. Nothing of a request was sent."""

    def __init__(self, text: str) -> None:
        super().__init__(string=text)
        self._text = text

    def __str__(self) -> str:
        return self._text


@attrs.frozen
class HTTPProxy:
    """A proxy at ``host`` and ``port``, and what it asks of its clients, or None: the value of Proxy-Authorization."""

    host: str
    port: int
    authorization: bytes | None = attrs.field(default=None, repr=False)

    @classmethod
    def with_password(cls, host: str, port: int, username: str, password: str) -> HTTPProxy:
        """A proxy that asks for name and password (RFC 7617)."""
        return cls(host, port, b"Basic " + b64encode(f"{username}:{password}".encode()))

    def endpoint(self, reactor: Any, host: bytes, port: int, seconds: float) -> Tunnel:
        """A client endpoint for ``host`` and ``port``. The proxy looks the host up, and is connected in ``seconds``."""
        return Tunnel(self, host_endpoint(reactor, self.host, self.port, seconds), host, port, reactor)


@implementer(IStreamClientEndpoint)
@attrs.frozen
class Tunnel:
    """A connection to ``host`` and ``port`` that begins with ``proxy``, which ``connector`` connects to."""

    proxy: HTTPProxy
    connector: Any
    host: bytes
    port: int
    clock: IReactorTime

    @deferred
    async def connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        """As `IStreamClientEndpoint` has it. Fails with `TunnelRefused`, too."""
        opening: _Opening = await self.connector.connect(Factory.forProtocol(lambda: _Opening(self._request())))
        try:
            rest = await opening.opened.addTimeout(OPEN_SECONDS, self.clock, _late)
        except TunnelRefused as refused:
            raise TunnelRefused(f"the egress proxy {self.proxy.host}:{self.proxy.port} {refused}") from None
        finally:
            if not opening.is_open:
                opening.transport.abortConnection()
        transport = opening.transport
        protocol: Any = protocolFactory.buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)
        found: IProtocol = protocol
        return found

    def _request(self) -> bytes:
        host = b"[%b]" % self.host if b":" in self.host else self.host
        lines = [b"CONNECT %b:%d HTTP/1.1" % (host, self.port), b"Host: %b:%d" % (host, self.port)]
        if self.proxy.authorization is not None:
            lines.append(b"Proxy-Authorization: " + self.proxy.authorization)
        return b"\r\n".join((*lines, b"", b""))


def _late(result: object, seconds: float) -> None:
    raise TunnelRefused(f"has not answered within {seconds:g} s")


class _Opening(Protocol):
    """A connection whose tunnel is not open yet. ``opened`` fires with what has come behind the proxy's answer."""

    transport: Any

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._data = b""
        self.is_open = False
        self.opened: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            if len(self._data) > MOST_BYTES:
                self._refuse(f"has answered with a head of more than {MOST_BYTES} bytes")
            return
        status = _STATUS.match(head + b"\r")
        if status is None:
            self._refuse("has not answered in HTTP")
        elif not status[1].startswith(b"2"):
            self._refuse(f"has answered {status[1].decode()} to CONNECT")
        elif not self.opened.called:
            self.is_open = True
            self.opened.callback(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._refuse("has closed the connection")

    def _refuse(self, text: str) -> None:
        if not self.opened.called:
            self.opened.errback(TunnelRefused(text))
