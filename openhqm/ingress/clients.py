# -*- test-case-name: tests.ingress.test_clients -*-
"""Whose address a request counts for, where trusted proxies pass on those of others.

Only what a trusted proxy has written is believed: the last value of ``X-Forwarded-For``, and those before it as long as
each is of a trusted proxy itself.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from openhqm.http1.admission import Admit
from openhqm.http1.messages import FastPath, FullRequest
from openhqm.http1.rules import Head, Headers

MOST_PROXIES = 20
_FIELD = b"x-forwarded-for"


class Behind:
    """A ``connection`` as that of the client at ``peer_host``, who is behind a proxy."""

    counted_as: Any = None

    def __init__(self, connection: Any, peer_host: str) -> None:
        self._connection = connection
        self.peer_host = peer_host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class Clients:
    """``trusts`` says whether a peer is a trusted proxy. It is given None for a socket in the file system."""

    def __init__(self, trusts: Callable[[str | None], bool]) -> None:
        self._trusts = trusts

    def of(self, connection: Any, headers: Headers) -> Any:
        """The connection that stands for the client of a request: that of the peer, or one `Behind` it."""
        if not self._trusts(connection.peer_host or None):
            return connection
        values = [each for name, value in headers if name == _FIELD for each in value.split(b",")]
        found = None
        for value in reversed(values[-MOST_PROXIES:]):
            try:
                found = str(ip_address(_without_port(value.strip(b" \t").decode("ascii"))))
            except ValueError:  # it is no address: the proxy before it is the last that is known
                break
            if not self._trusts(found):
                break
        return connection if found is None else Behind(connection, found)

    def fast_path(self, inner: FastPath) -> FastPath:
        """``inner``, whose requests have the connections of their clients; so have those that it leaves."""

        def path(message: FullRequest) -> Any:
            message.connection = self.of(message.connection, message.head.headers)
            return inner(message)

        return path

    def admit(self, inner: Admit) -> Admit:
        """``inner``, which gets the connections of clients."""

        def admit(head: Head, connection: Any) -> Any:
            return inner(head, self.of(connection, head.headers))

        return admit


def _without_port(value: str) -> str:
    """The address in a value: some proxies write a port behind it, and brackets around IPv6."""
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.partition(":")[0] if value.count(":") == 1 else value
