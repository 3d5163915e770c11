# -*- test-case-name: tests.rabbitmq.test_rabbitmq,tests.rabbitmq.test_parts,tests.rabbitmq.test_ways -*-
"""One connection attempt: the nodes in turn, the TLS, and the first words of AMQP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError

from openhqm.config.rabbitmq_address import Address
from openhqm.rabbitmq.wire import factory, is_bad_login, is_hanging_up, words

GREETING_SECONDS = 5.0


class Unreachable(Exception):
    """No node can be used, with words about each."""


async def dial(address: Address, name: str, reactor: Any, seconds: float) -> Any:
    """A protocol of pika's that is ready, to the first node that can be used. Every step fails within its time."""
    reasons = []
    for host, port in address.hosts:
        try:
            return await _connect(address, host, port, name, reactor, seconds)
        except (CancelledError, ConnectingCancelledError):
            raise
        except Exception as error:  # the next one may be up
            reasons.append(f"{host}:{port}: {_words(error, address)}")
    raise Unreachable("; ".join(reasons))


async def _connect(address: Address, host: str, port: int, name: str, reactor: Any, seconds: float) -> Any:
    endpoint: Any = HostnameEndpoint(reactor, host, port, timeout=seconds)
    if address.tls:
        endpoint = wrapClientTLS(_tls(host, address.ca), endpoint)
    protocol: Any = await endpoint.connect(factory(address, name, reactor))
    if protocol.ready is None:
        raise Unreachable("it hangs up at once")
    try:
        await protocol.ready.addTimeout(max(seconds, GREETING_SECONDS), reactor)
    except CancelledError:
        protocol.transport.abortConnection()
        raise
    except Exception as error:
        if protocol.transport is not None:
            protocol.transport.abortConnection()
        raise Unreachable(_words(protocol.farewell or error, address)) from None
    return protocol


def _tls(host: str, ca: str | None) -> Any:
    """Verified: the name, and a chain to the platform's authorities or to the one in ``ca``."""
    from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

    try:
        authority = None if ca is None else trustRootFromCertificates([Certificate.loadPEM(Path(ca).read_bytes())])
    except OSError as error:
        raise Unreachable(f"the authority for TLS cannot be read: {error}") from None
    return optionsForClientTLS(host, trustRoot=authority)


def _words(error: BaseException, address: Address) -> str:
    if is_bad_login(error):
        return f"it refuses the password of user {address.username}, or knows no such user"
    if isinstance(error, ConnectError | Unreachable):
        return str(error)
    if address.tls and (about_tls := _words_about_tls(error)):
        return about_tls
    if is_hanging_up(error):
        return "it hangs up without a word: is that the port of AMQP?"
    return words(error)


def _words_about_tls(error: BaseException) -> str | None:
    from OpenSSL.SSL import Error
    from service_identity import VerificationError

    from openhqm.runtime.tls import words_of

    return words_of(error) if isinstance(error, Error | VerificationError) else None
