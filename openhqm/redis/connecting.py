# -*- test-case-name: tests.redis.test_connecting,tests.redis.test_reconnecting -*-
"""One connection attempt: the master that Sentinel names, the socket, the TLS, the password and the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory

from openhqm.redis.address import Address
from openhqm.runtime.connecting import host_endpoint

Ask = Callable[..., Deferred[Any]]


class Unreachable(Exception):
    """No server can be used, and why."""


async def connect(address: Address, factory: Factory, plain: Factory, reactor: Any, seconds: float) -> Any:
    """A protocol that is connected, logged in and in its database. Every step fails within ``seconds``."""
    if address.sentinel:
        host, port = await _master(address, plain, reactor, seconds)
        protocol = await _open(address, host, port, factory, reactor, seconds)
    elif address.path is not None:
        protocol = await UNIXClientEndpoint(reactor, address.path, timeout=seconds).connect(factory)
    else:
        ((host, port),) = address.hosts
        protocol = await _open(address, host, port, factory, reactor, seconds)
    try:
        await _log_in(protocol, address.username, address.password, reactor, seconds)
        if address.database:
            await ask(protocol, reactor, seconds, "SELECT", address.database)
    except BaseException:
        protocol.transport.abortConnection()
        raise
    return protocol


def ask(protocol: Any, reactor: Any, seconds: float, *arguments: Any) -> Deferred[Any]:
    """One command on a connection that is not in use yet."""
    answer: Deferred[Any] = protocol.execute_command(*arguments)
    return answer.addTimeout(seconds, reactor)


async def _log_in(protocol: Any, username: str | None, password: str | None, reactor: Any, seconds: float) -> None:
    if password is not None:
        arguments = (username, password) if username else (password,)
        await ask(protocol, reactor, seconds, "AUTH", *arguments)


def _open(address: Address, host: str, port: int, factory: Factory, reactor: Any, seconds: float) -> Awaitable[Any]:
    endpoint: Any = host_endpoint(reactor, host, port, seconds)
    if address.tls:
        endpoint = wrapClientTLS(_tls(host, address.ca), endpoint)
    return endpoint.connect(factory)  # type: ignore[no-any-return]


def _tls(host: str, ca: str | None) -> Any:
    """Verified: the name, and a chain to the platform's authorities or to those in the file ``ca``."""
    from openhqm.runtime.tls import client_tls, read_authorities

    try:
        authority = None if ca is None else read_authorities(ca)
    except ValueError as error:
        raise Unreachable(f"the authority for TLS cannot be read: {error}") from None
    return client_tls(host, trust=authority)


async def _master(address: Address, plain: Factory, reactor: Any, seconds: float) -> tuple[str, int]:
    """The master that the first Sentinel which knows one names."""
    reasons: list[str] = []
    for host, port in address.hosts:
        try:
            found = await _ask_sentinel(address, host, port, plain, reactor, seconds)
        except (CancelledError, ConnectingCancelledError):
            raise
        except Exception as error:  # the next one may be up, and may know
            reasons.append(f"{host}:{port}: {error}")
        else:
            if found:
                return found[0].decode(), int(found[1])
            reasons.append(f"{host}:{port} knows no such name")
    raise Unreachable(f"no Sentinel names a master for {address.sentinel} ({'; '.join(reasons)})")


async def _ask_sentinel(address: Address, host: str, port: int, plain: Factory, reactor: Any, seconds: float) -> Any:
    protocol = await _open(address, host, port, plain, reactor, seconds)
    try:
        await _log_in(protocol, address.sentinel_username, address.sentinel_password, reactor, seconds)
        return await ask(protocol, reactor, seconds, "SENTINEL", "get-master-addr-by-name", address.sentinel)
    finally:
        protocol.transport.loseConnection()
