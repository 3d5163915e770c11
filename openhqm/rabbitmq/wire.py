# -*- test-case-name: tests.test_rabbitmq -*-
"""pika, imported when a RabbitMQ is configured, and not before."""

from __future__ import annotations

import logging
from typing import Any

from twisted.internet.protocol import Factory

from openhqm.config.rabbitmq_address import Address
from openhqm.errors import Complaint, ConfigurationError

HEARTBEAT_SECONDS = 6


def check_installed() -> None:
    """`ConfigurationError` where what RabbitMQ needs is not there."""
    try:
        import pika  # noqa: F401
    except ImportError as error:
        reason = f"rabbitmq needs more than is installed ({error}): pip install openhqm[rabbitmq]"
        raise ConfigurationError([Complaint("queue.type", reason)]) from None
    # What it would say is said by whoever holds the connection, in our words and without what a message holds.
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


def factory(address: Address, name: str, reactor: Any) -> Factory:
    """Makes connections. ``name`` is what the broker's own tools show."""
    from pika import ConnectionParameters, PlainCredentials
    from pika.adapters.twisted_connection import TwistedProtocolConnection

    parameters = ConnectionParameters(
        virtual_host=address.vhost,
        credentials=PlainCredentials(address.username, address.password),
        heartbeat=HEARTBEAT_SECONDS,
        client_properties={"connection_name": name, "product": "openhqm"},
    )
    made = Factory.forProtocol(lambda: TwistedProtocolConnection(parameters, custom_reactor=reactor))
    made.noisy = False
    return made


def connection_of(protocol: Any) -> Any:
    """pika's connection in its Twisted protocol, which tells of blocking, and why nothing could be opened."""
    return protocol._impl


def channel_of(channel: Any) -> Any:
    """pika's channel in its Twisted channel, whose own confirms cannot tell which message was returned."""
    return channel._channel


def words(error: BaseException | None) -> str:
    """What is wrong, for whoever can do something about it."""
    from pika import exceptions as found

    if isinstance(error, found.AuthenticationError | found.ProbableAuthenticationError):
        return "it refuses the user name or the password"
    if isinstance(error, found.ProbableAccessDeniedError):
        return "it refuses the virtual host: it does not exist, or the user may not use it"
    if isinstance(error, found.ChannelClosed | found.ConnectionClosed):
        return f"{error.reply_text} ({error.reply_code})"
    if isinstance(error, found.AMQPHeartbeatTimeout):
        return "it does not answer"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
