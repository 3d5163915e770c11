# -*- test-case-name: tests.test_rabbitmq -*-
"""One connection attempt: the nodes in turn, the TLS, and the first words of AMQP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError

from openhqm.config.rabbitmq_address import Address
from openhqm.rabbitmq.wire import connection_of, factory, words

GREETING_SECONDS = 5.0


class Unreachable(Exception):
    """No node can be used, with words about each."""


async def dial(address: Address, name: str, reactor: Any, seconds: float) -> Any:
    """A protocol of pika's that is ready, to the first node that can be used. Every step fails within its time."""
    reasons = []
    for host, port in address.hosts:
        try:
            return await _connect(address, host, port, name, reactor, seconds)
        except CancelledError:
            raise
        except Exception as error:  # the next one may be up
            reasons.append(f"{host}:{port}: {_words(error)}")
    raise Unreachable("; ".join(reasons))


async def _connect(address: Address, host: str, port: int, name: str, reactor: Any, seconds: float) -> Any:
    endpoint: Any = HostnameEndpoint(reactor, host, port, timeout=seconds)
    if address.tls:
        endpoint = wrapClientTLS(_tls(host, address.ca), endpoint)
    protocol: Any = await endpoint.connect(factory(address, name, reactor))
    why: list[BaseException] = []
    ready = protocol.ready
    if ready is None:
        raise Unreachable("it hangs up at once")
    # The adapter itself says no more than that it did not work.
    connection_of(protocol).add_on_open_error_callback(lambda _, error: why.append(error), remove_default=False)
    try:
        await ready.addTimeout(max(seconds, GREETING_SECONDS), reactor)
    except CancelledError:
        protocol.transport.abortConnection()
        raise
    except Exception as error:
        if protocol.transport is not None:
            protocol.transport.abortConnection()
        raise Unreachable(_words(why[0] if why else error)) from None
    return protocol


def _tls(host: str, ca: str | None) -> Any:
    """Verified: the name, and a chain to the platform's authorities or to the one in ``ca``."""
    from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

    try:
        authority = None if ca is None else trustRootFromCertificates([Certificate.loadPEM(Path(ca).read_bytes())])
    except OSError as error:
        raise Unreachable(f"the authority for TLS cannot be read: {error}") from None
    return optionsForClientTLS(host, trustRoot=authority)


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, ConnectError | Unreachable):
        return str(error)
    return words(error)
