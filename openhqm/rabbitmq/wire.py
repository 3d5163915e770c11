# -*- test-case-name: tests.rabbitmq.test_rabbitmq,tests.rabbitmq.test_ways -*-
"""pika, imported when a RabbitMQ is configured, and not before."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from openhqm.config.rabbitmq_address import Address
from openhqm.errors import Complaint, ConfigurationError, NotDurable
from openhqm.runtime.deferreds import shielded

T = TypeVar("T")

HEARTBEAT_SECONDS = 10
"""RabbitMQ sends something at least twice as often; it hangs up on us when it has heard nothing for twice as long."""


def check_installed() -> None:
    """`ConfigurationError` where what RabbitMQ needs is not there."""
    try:
        import pika  # noqa: F401
    except ImportError as error:
        reason = f"rabbitmq needs more than is installed ({error}): pip install openhqm[rabbitmq]"
        raise ConfigurationError([Complaint("queue.type", reason)]) from None
    # What it would say is said by whoever holds the connection, in our words and without what a message holds.
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


def factory(address: Address, name: str, reactor: Any) -> Any:
    """Makes connections. ``name`` is what the broker's own tools show.

    ``farewell`` of each is an exception once it is over: what RabbitMQ said when it hung up, or how else it ended.
    """
    from pika import ConnectionParameters, PlainCredentials
    from pika.adapters.twisted_connection import TwistedProtocolConnection
    from pika.exceptions import ConnectionClosedByBroker
    from pika.spec import Connection

    parameters = ConnectionParameters(
        virtual_host=address.vhost,
        credentials=PlainCredentials(address.username, address.password),
        heartbeat=HEARTBEAT_SECONDS,
        client_properties={"connection_name": name, "product": "openhqm"},
    )

    class Told(TwistedProtocolConnection):  # type: ignore[misc]
        """The adapter forgets over the end of a connection why it has ended."""

        farewell: BaseException | None = None

        def makeConnection(self, transport: Any) -> None:
            self._impl.callbacks.add(0, Connection.Close, self._closing, False)
            super().makeConnection(transport)

        def _closing(self, frame: Any) -> None:
            self.farewell = ConnectionClosedByBroker(frame.method.reply_code, frame.method.reply_text)

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            self.farewell = self.farewell or reason.value
            super().connectionLost(reason)

    made = Factory.forProtocol(lambda: Told(parameters, custom_reactor=reactor))
    made.noisy = False
    return made


def connection_of(protocol: Any) -> Any:
    """pika's connection in its Twisted protocol, which tells of blocking, and why nothing could be opened."""
    return protocol._impl


def channel_of(channel: Any) -> Any:
    """pika's channel in its Twisted channel, whose own confirms cannot tell which message was returned."""
    return channel._channel


def within(answer: Deferred[T], seconds: float, reactor: Any) -> Deferred[T]:
    """What pika answers; `TimeoutError`. Cancelling gives up the waiting only.

    pika's own Deferreds must not be cancelled: it fires them again when the channel is closed, fails over that, and
    tells nobody any more that the channel is closed.
    """

    async def wait() -> T:
        return await answer

    return shielded(wait()).addTimeout(seconds, reactor)


def is_missing(error: BaseException | None) -> bool:
    """Whether there is no such queue."""
    from pika.exceptions import ChannelClosed

    return isinstance(error, ChannelClosed) and error.reply_code == 404


def is_locked(error: BaseException | None) -> bool:
    """Whether the queue is exclusive to another connection."""
    from pika.exceptions import ChannelClosed

    return isinstance(error, ChannelClosed) and error.reply_code == 405


def is_bad_login(error: BaseException | None) -> bool:
    """Whether the user or the password was refused."""
    from pika import exceptions as found

    return isinstance(error, found.ConnectionClosed) and error.reply_code == 403


def is_hanging_up(error: BaseException | None) -> bool:
    """Whether the connection ended before it was one."""
    from pika.exceptions import AMQPConnectionError

    return type(error) is AMQPConnectionError or isinstance(error, ConnectionDone | ConnectionLost)


def words(error: BaseException | None) -> str:
    """What is wrong, for whoever can do something about it."""
    from pika import exceptions as found

    if isinstance(error, found.ChannelClosed | found.ConnectionClosed):
        return f"{error.reply_text} ({error.reply_code})"
    if isinstance(error, NotDurable):
        return error.reason
    if isinstance(error, found.AMQPHeartbeatTimeout | TimeoutError):
        return "it does not answer"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
