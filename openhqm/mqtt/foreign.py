# -*- test-case-name: tests.mqtt.test_foreign -*-
"""An MQTT broker that other programs use: their topics are received from and published to as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import Acks, ChannelMissing, IReceiver, ISubscription, Message, Properties
from openhqm.interfaces.foreign import IForeignBroker
from openhqm.mqtt.address import LARGEST_MESSAGE, ROOM, Address, topic_fault
from openhqm.mqtt.asking import Answers
from openhqm.mqtt.broker import CONNECT_SECONDS, MOST_THREADS
from openhqm.mqtt.client import Client
from openhqm.mqtt.connecting import describe
from openhqm.mqtt.publishing import Publisher
from openhqm.mqtt.received import Received
from openhqm.mqtt.topics import TopicSubscription
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.reconnecting import Reconnecting
from openhqm.runtime.threads import Threads

ONLINE, OFFLINE = b"online", b"offline"


class _EveryTopic:
    """Topics of other programs need no session of ours."""

    def there(self, channel: str) -> Deferred[bool]:
        return succeed(True)

    def clear(self, channel: str) -> Deferred[None]:
        return succeed(None)


@implementer(IForeignBroker)
class MQTTForeignBroker:
    """One connection publishes; its session ends with it. Each subscription has one of its own, whose session is kept.

    ``client_id`` is what the client id of the publishing connection begins with; a subscription's is its name.
    ``seconds`` is how long a PUBACK may take. ``random`` is as `random.random`. In ``status_topic`` the broker retains
    `ONLINE` while the publishing connection is there, and `OFFLINE` after it. ``largest`` is the most bytes that a
    message may have (MQTT 5): the broker drops what is longer.
    """

    acks = Acks.IN_ORDER
    _log = Logger()

    def __init__(
        self,
        address: Address,
        client_id: str,
        reactor: Any,
        random: Callable[[], float],
        *,
        seconds: float,
        status_topic: str | None = None,
        largest: int = LARGEST_MESSAGE,
    ) -> None:
        self._address = address
        self._client_id = client_id
        self._reactor = reactor
        self._random = random
        self._seconds = seconds
        self._status_topic = status_topic
        self._largest = largest + ROOM
        self._client: Client | None = None
        self._threads = Threads(reactor, "mqtt-foreign", MOST_THREADS)
        self._publisher = Publisher(reactor, seconds, _EveryTopic(), None)
        self._answers = Answers(reactor, f"{client_id}/answers/{int(random() * 2**53):x}")
        self._subscriptions: list[TopicSubscription] = []
        self._running = False
        self._link = Reconnecting(
            str(address),
            reactor,
            random,
            connect=self._connect,
            up=self._up,
            down=self._down,
            describe=describe,
        )

    @property
    def unavailable_reason(self) -> str | None:
        return self._link.unavailable_reason or self._publisher.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        return [warning for each in self._subscriptions if (warning := each.warning) is not None]

    def start(self) -> Deferred[None]:
        self._running = True
        self._threads.start()
        self._link.start()
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return self._link.when_probed()

    @deferred
    async def stop(self) -> None:
        running, self._running = self._running, False
        subscriptions, self._subscriptions = self._subscriptions, []
        await DeferredList([each.close() for each in subscriptions], consumeErrors=True)
        if self._client is not None and self._status_topic is not None:
            said = self._client.publish(self._status_topic, OFFLINE, retain=True)
            await DeferredList([said.addTimeout(self._seconds, self._reactor)], consumeErrors=True)
        await self._link.stop()
        if running:
            self._threads.stop()

    def subscribe(self, name: str, channels: Sequence[str], most: int, receiver: IReceiver) -> ISubscription:
        def connect(received: Callable[[Received], None]) -> Deferred[Client]:
            client = Client(
                self._address,
                name,
                self._reactor,
                received,
                session=True,
                receive_maximum=min(most, 65_535),
                largest=self._largest,
            )
            return client.connect(self._threads.run, CONNECT_SECONDS)

        made = TopicSubscription(name, channels, receiver, str(self._address), self._reactor, self._random, connect)
        self._subscriptions.append(made)
        made.start()
        return made

    def fault(self, channel: str) -> str | None:
        return topic_fault(channel)

    @deferred
    async def publish(self, channel: str, message: Message) -> None:
        (outcome,) = await self._publisher.publish(channel, [message])
        if isinstance(outcome, ChannelMissing):
            raise NotDurable(f"no client subscribes to {channel[:80]}")
        if outcome is not None:
            raise outcome

    @deferred
    async def ask(self, channel: str, message: Message, answers: str | None) -> Message:
        topic = self._answers.own if answers is None else answers
        about = message.properties or Properties()
        correlation = about.correlation or b""
        subscribed, answer = self._answers.expect(topic, correlation)
        try:
            await subscribed
            await self.publish(channel, replace(message, properties=replace(about, reply_to=topic)))
            return await answer
        finally:
            answer.addErrback(_is_given_up).cancel()

    def _connect(self) -> Deferred[Client]:
        name = f"{self._client_id}/{int(self._random() * 2**53):x}"
        will = None if self._status_topic is None else (self._status_topic, OFFLINE)
        client = Client(self._address, name, self._reactor, self._answers.received, will=will, largest=self._largest)
        return client.connect(self._threads.run, CONNECT_SECONDS)

    async def _up(self, client: Client) -> None:
        self._client = client
        if self._status_topic is not None:
            client.publish(self._status_topic, ONLINE, retain=True).addErrback(self._not_told)
        self._publisher.up(client)
        self._answers.up(client)

    def _not_told(self, failure: Failure) -> None:
        reason = failure.getErrorMessage()
        self._log.warn("the status cannot be published to {topic}: {reason}", topic=self._status_topic, reason=reason)

    def _down(self, reason: str) -> None:
        self._client = None
        self._publisher.down()
        self._answers.down()


def _is_given_up(failure: Failure) -> None:
    failure.trap(CancelledError)
