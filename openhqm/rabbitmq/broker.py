# -*- test-case-name: tests.rabbitmq.test_contract,tests.rabbitmq.test_broker -*-
"""RabbitMQ as an `IBroker`: quorum queues, every publish confirmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import (
    BrokerTraits,
    IBroker,
    IReceiver,
    ISubscription,
    Message,
)
from openhqm.rabbitmq.address import Address
from openhqm.rabbitmq.connecting import connect
from openhqm.rabbitmq.connection import Connection, describe
from openhqm.rabbitmq.publishing import Answered, Publisher
from openhqm.rabbitmq.queues import Queues
from openhqm.rabbitmq.subscription import Subscription
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.reconnecting import Reconnecting

LARGEST_BATCH = 32
"""What is asked for together is answered together. In large batches this process waits while RabbitMQ writes, and the
other way round: batches of 256 took a fifth off what is accepted in a second.
"""
LARGEST_MESSAGE = {3: 128 * 1024 * 1024, 4: 16 * 1024 * 1024}
"""By the first number of the version: the default of ``max_message_size``."""


class _Subscriptions(set[Subscription]):
    """Those that consume over one connection."""

    connection: Connection | None = None

    def join(self, subscription: Subscription) -> None:
        self.add(subscription)
        if self.connection is not None:
            subscription.up(self.connection)

    def up(self, connection: Connection) -> None:
        self.connection = connection
        for subscription in list(self):
            subscription.up(connection)

    def down(self, reason: str) -> None:
        self.connection = None
        for subscription in list(self):
            subscription.down(reason)


@implementer(IBroker)
class RabbitMQBroker:
    """The queues of one virtual host.

    One connection publishes and another one consumes and asks: RabbitMQ reads nothing more from a connection that
    publishes when it runs out of memory or disk, and then deliveries must still be acknowledged. A third one is for
    queues that have no leader: RabbitMQ leaves who consumes from such a queue without an answer, and after 65 seconds
    it closes the whole connection over that. Once a queue was found to be one, it disturbs no other.

    ``seconds`` is how long a confirmation may take, and each step of connecting. ``consumer_timeout`` is what the
    server has as its ``consumer_timeout``, in seconds; None: it has none. ``random`` is as `random.random`.
    ``answered`` is called with each answer to what was published.
    """

    def __init__(
        self,
        address: Address,
        reactor: Any,
        random: Callable[[], float],
        *,
        seconds: float,
        consumer_timeout: float | None,
        answered: Answered | None = None,
    ) -> None:
        self.traits = BrokerTraits(
            longest_lease_seconds=consumer_timeout,
            largest_message=min(LARGEST_MESSAGE.values()),  # until the version of the server is known
            largest_batch=LARGEST_BATCH,
        )
        self.on_connected: list[Callable[[], object]] = []
        self._reactor = reactor
        self._queues = Queues(reactor, seconds)
        self._publisher = Publisher(reactor, random, seconds, self._queues.gone, answered)
        self._shared = _Subscriptions()
        self._apart = _Subscriptions()

        def link(
            purpose: str, up: Callable[[Connection], Any], down: Callable[[str], None]
        ) -> Reconnecting[Connection]:
            return Reconnecting(
                str(address),
                reactor,
                random,
                connect=lambda: connect(address, f"openhqm {purpose}", reactor, seconds),
                up=up,
                down=down,
                describe=describe,
            )

        self._publishing = link("publishes", self._publishing_up, self._publisher.down)
        self._consuming = link("consumes", self._consuming_up, self._consuming_down)
        self._leaderless = link("consumes from queues without a leader", self._leaderless_up, self._leaderless_down)

    @property
    def unavailable_reason(self) -> str | None:
        """Why a publish could not be confirmed now, or a channel not be made; None where both can be."""
        return (
            self._publishing.unavailable_reason
            or self._publisher.unavailable_reason
            or self._consuming.unavailable_reason
        )

    @property
    def warnings(self) -> Sequence[str]:
        """Which queues cannot be consumed from, and why."""
        return [each.warning for each in (*self._shared, *self._apart) if each.warning is not None]

    def start(self) -> Deferred[None]:
        self._publishing.start()
        self._consuming.start()
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        probed = gatherResults([self._publishing.when_probed(), self._consuming.when_probed()])
        return probed.addCallback(lambda _: None)

    @deferred
    async def stop(self) -> None:
        for subscription in (*self._shared, *self._apart):
            subscription.stop()
        links = (self._consuming, self._leaderless, self._publishing)
        await DeferredList([link.stop() for link in links], consumeErrors=True)

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Sequence[NotDurable | None]]:
        return self._publisher.publish(channel, messages, self.traits.largest_message)

    def consume(self, channel: str, receiver: IReceiver) -> ISubscription:
        subscription = Subscription(
            channel,
            receiver,
            self._reactor,
            ended=self._ended,
            deleted=self._deleted,
            no_leader=self._no_leader,
        )
        self._shared.join(subscription)
        return subscription

    def ensure(self, channel: str) -> Deferred[None]:
        return self._queues.ensure(channel)

    def exists(self, channel: str) -> Deferred[bool]:
        return self._queues.ready(channel).addCallback(lambda ready: ready is not None)

    def depth(self, channel: str) -> Deferred[int | None]:
        return self._queues.ready(channel)

    # Connections

    async def _publishing_up(self, connection: Connection) -> None:
        self.traits = attrs.evolve(self.traits, largest_message=LARGEST_MESSAGE[min(connection.version[0], 4)])
        # RabbitMQ cannot be asked what of a closed channel it has kept: the connection begins again.
        await self._publisher.up(connection, self._publishing.reconnect)
        self._say_connected(self._consuming)

    async def _consuming_up(self, connection: Connection) -> None:
        self._queues.connection = connection
        self._shared.up(connection)
        self._say_connected(self._publishing)

    def _consuming_down(self, reason: str) -> None:
        self._queues.connection = None
        self._shared.down(reason)

    def _say_connected(self, other: Reconnecting[Connection]) -> None:
        if other.connection is not None:
            self._reactor.callLater(0, self._connected)

    def _connected(self) -> None:
        for call in self.on_connected:
            call()

    # Subscriptions

    def _ended(self, subscription: Subscription) -> None:
        self._shared.discard(subscription)
        self._apart.discard(subscription)

    def _deleted(self, queue: str) -> None:
        self._queues.gone(queue)
        self._publisher.forget(queue)

    def _no_leader(self, subscription: Subscription) -> None:
        if subscription in self._shared:
            self._shared.discard(subscription)
            subscription.down("its queue has no leader")
            self._apart.join(subscription)
            self._leaderless.start()

    async def _leaderless_up(self, connection: Connection) -> None:
        self._apart.up(connection)

    def _leaderless_down(self, reason: str) -> None:
        self._apart.down(reason)
        for subscription in [each for each in self._apart if each.warning is None]:  # their queues have leaders again
            self._apart.discard(subscription)
            self._shared.join(subscription)
