# -*- test-case-name: tests.ingress.test_tls -*-
"""The listening sockets of the door, with what stands between a socket and HTTP."""

from __future__ import annotations

from typing import Any

from openhqm.config.model import Server
from openhqm.ingress.securing import with_tls
from openhqm.policy.proxying import TrustedProxies
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.forks import keep_from_forks
from openhqm.runtime.listening import InheritedPort, listen
from openhqm.runtime.proxy_protocol import ProxyProtocolFactory


class Sockets:
    """What ``server`` asks for, in front of ``site``. `ConfigurationError` where the files of TLS cannot be used."""

    def __init__(self, server: Server, site: Any, reactor: Any) -> None:
        self._server = server
        self._reactor = reactor
        self._factory = with_tls(server.tls, "server.tls", site, reactor)
        if server.proxy_protocol:  # it comes before TLS
            trusts = TrustedProxies(server.trusted_proxies)
            self._factory = ProxyProtocolFactory(self._factory, trusts, reactor)

    @deferred
    async def open(self, inherited: list[int] | None) -> list[Any]:
        """Listen, and fire with the ports. ``inherited`` are the descriptors that a parent has passed on, if any.

        `CannotStart` where a socket cannot be opened.
        """
        if inherited is None:
            server = self._server
            ports = await listen(self._reactor, self._factory, server.host, server.port, server.endpoints)
            keep_from_forks(port.fileno() for port in ports if hasattr(port, "fileno"))
            return ports
        shared = [InheritedPort(descriptor, self._factory, self._reactor) for descriptor in inherited]
        for each in shared:
            each.start()
        return list(shared)
