# -*- test-case-name: tests.rabbitmq.test_connecting -*-
"""One attempt to connect: the nodes of the cluster in turn, TLS, the login, and the version of the server.

pika is imported when a RabbitMQ is configured, and not before.
"""

from __future__ import annotations

import logging
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from openhqm.errors import Complaint, ConfigurationError, NotDurable, how_to_install
from openhqm.rabbitmq.address import Address
from openhqm.rabbitmq.connection import Connection, describe
from openhqm.runtime.connecting import host_endpoint

GREETING_SECONDS = 5.0
HEARTBEAT_SECONDS = 10
"""RabbitMQ sends something at least twice as often; it closes what it has heard nothing of for twice as long."""
OLDEST_VERSION = (3, 10)
"""The oldest that is tested."""


class Unreachable(NotDurable):
    """No node can be used; the reason says why of each."""


def check_installed() -> None:
    """`ConfigurationError` where a package that RabbitMQ needs is not installed."""
    try:
        import pika  # noqa: F401
    except ImportError as error:
        reason = f"rabbitmq needs more than is installed ({error}): {how_to_install('rabbitmq')}"
        raise ConfigurationError([Complaint("queue.type", reason)]) from None
    # What pika would log is logged by the owner of the connection, in our words and without what a message holds.
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


async def connect(address: Address, name: str, reactor: Any, seconds: float) -> Connection:
    """A connection to the first node that can be used. Every step fails within ``seconds``. `Unreachable`.

    ``name`` is what the broker's own tools show for the connection.
    """
    reasons = []
    for host, port in address.hosts:
        try:
            return await _connect(address, host, port, name, reactor, seconds)
        except (CancelledError, ConnectingCancelledError):
            raise
        except Exception as error:  # the next one may be up
            reasons.append(f"{host}:{port}: {_describe(error, address)}")
    raise Unreachable("; ".join(reasons))


async def _connect(address: Address, host: str, port: int, name: str, reactor: Any, seconds: float) -> Connection:
    endpoint: Any = host_endpoint(reactor, host, port, seconds)
    if address.tls:
        endpoint = wrapClientTLS(_tls(host, address.ca), endpoint)
    protocol: Any = await endpoint.connect(_factory(address, name, reactor))
    try:
        if protocol.ready is not None:  # else the server has closed the connection at once
            await protocol.ready.addTimeout(max(seconds, GREETING_SECONDS), reactor)
        if protocol.closed is None:
            raise protocol.farewell or ConnectionDone()
        connection = Connection(protocol, reactor)
        if connection.version < OLDEST_VERSION:
            found = f"{connection.server_says('product')} {connection.server_says('version')}"
            raise Unreachable(f"it is {found}, and RabbitMQ 3.10 or newer is needed")
        return connection
    except BaseException as error:
        if protocol.transport is not None:
            protocol.transport.abortConnection()
        if isinstance(error, CancelledError | Unreachable):
            raise
        raise Unreachable(_describe(protocol.farewell or error, address)) from None


def _factory(address: Address, name: str, reactor: Any) -> Any:
    from pika import ConnectionParameters, PlainCredentials
    from pika.adapters.twisted_connection import TwistedProtocolConnection
    from pika.exceptions import ConnectionClosedByBroker
    from pika.spec import Connection as Spec

    parameters = ConnectionParameters(
        virtual_host=address.vhost,
        credentials=PlainCredentials(address.username, address.password),
        heartbeat=HEARTBEAT_SECONDS,
        client_properties={"connection_name": name, "product": "openhqm"},
    )

    class Protocol(TwistedProtocolConnection):  # type: ignore[misc]
        """pika's, which forgets over the end of a connection why it has ended. ``farewell`` is what RabbitMQ said."""

        farewell: BaseException | None = None

        def makeConnection(self, transport: Any) -> None:
            self._impl.callbacks.add(0, Spec.Close, self._closing, False)
            super().makeConnection(transport)

        def _closing(self, frame: Any) -> None:
            self.farewell = ConnectionClosedByBroker(frame.method.reply_code, frame.method.reply_text)

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            self.farewell = self.farewell or reason.value
            super().connectionLost(reason)

    made = Factory.forProtocol(lambda: Protocol(parameters, custom_reactor=reactor))
    made.noisy = False
    return made


def _tls(host: str, ca: str | None) -> Any:
    """Verified: the name, and a chain to the platform's authorities or to those in the file ``ca``."""
    from openhqm.runtime.tls import client_tls, read_authorities

    try:
        authority = None if ca is None else read_authorities(ca)
    except ValueError as error:
        raise Unreachable(f"the authority for TLS cannot be read: {error}") from None
    return client_tls(host, trust=authority)


def _describe(error: BaseException, address: Address) -> str:
    from pika.exceptions import AMQPConnectionError

    if getattr(error, "reply_code", None) == 403:
        return f"it refuses the password of user {address.username}, or knows no such user"
    if isinstance(error, ConnectError):
        return str(error)
    if address.tls and (about_tls := _describe_tls(error)):
        return about_tls
    if type(error) is AMQPConnectionError or isinstance(error, ConnectionDone | ConnectionLost):
        return "it closes the connection without a word: is that the port of AMQP?"
    return describe(error)


def _describe_tls(error: BaseException) -> str | None:
    from OpenSSL.SSL import Error
    from service_identity import VerificationError

    from openhqm.runtime.tls import describe_tls_error

    return describe_tls_error(error) if isinstance(error, Error | VerificationError) else None
