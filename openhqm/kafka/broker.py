# -*- test-case-name: tests.kafka.test_contract,tests.kafka.test_broker -*-
"""Kafka as an `IBroker`: a topic and a consumer group for each channel, every publish confirmed by all replicas."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import CannotStart, NotDurable
from openhqm.interfaces.broker import (
    Acks,
    BrokerTraits,
    ChannelMissing,
    DepthKind,
    IBroker,
    IReceiver,
    ISubscription,
    Message,
)
from openhqm.kafka.client import common
from openhqm.kafka.consuming import Member
from openhqm.kafka.errors import STOPPED, UNREACHABLE, describe, refuses
from openhqm.kafka.lag import Lag
from openhqm.kafka.producing import Producing
from openhqm.kafka.reaching import Files, Reachable
from openhqm.kafka.resets import Dropped
from openhqm.kafka.subscription import KafkaSubscription
from openhqm.kafka.topics import ANSWER_SECONDS, NO_TOPIC, Topic, Topics
from openhqm.kafka.watching import TopicWatch
from openhqm.runtime.deferreds import deferred, shielded
from openhqm.runtime.reconnecting import Reconnecting
from openhqm.runtime.threads import Threads

LARGEST_BATCH = 500
VISIBLE_SECONDS = 5.0
"""How long a topic that was made may take until the producer knows it."""


@implementer(IBroker)
class KafkaBroker:
    """The channels of one cluster. ``properties`` say how to reach it, in the names of librdkafka.

    ``group`` is what the names of our consumer groups begin with. ``seconds`` is how long a confirmation may take.
    Channels that are made have ``partitions`` partitions, each on ``replication`` brokers (-1: as the cluster says).
    ``ours``: the topics are those of our queue, so what of their settings breaks a promise is found. ``random`` is as
    `random.random`.
    """

    _log = Logger()

    def __init__(
        self,
        properties: Mapping[str, Any],
        reactor: Any,
        random: Callable[[], float],
        *,
        group: str,
        seconds: float,
        largest: int,
        partitions: int = 12,
        replication: int = -1,
        idempotent: bool = True,
        ours: bool = True,
        product: str = "Kafka",
    ) -> None:
        self.traits = BrokerTraits(
            acks=Acks.PREFIX,
            requeues=False,
            counts_redeliveries=False,
            native_partitions=True,
            largest_message=largest,
            largest_batch=LARGEST_BATCH,
            depth=DepthKind.APPROXIMATE,
        )
        self.on_connected: list[Callable[[], object]] = []
        self._reactor = reactor
        self._group = group
        self._partitions, self._replication, self._ours = partitions, replication, ours
        self._properties = common(properties)
        self._files = Files(self._properties)
        self._threads = Threads(reactor, "kafka", 4)
        self._topics = Topics(self._properties, reactor)
        self._watch = TopicWatch(self._topics, reactor, self._ids, self._made_again)
        self._lag = Lag(self._properties)
        producer = {**self._properties, "enable.idempotence": idempotent}
        self._producing = Producing(producer, reactor, seconds, largest, self._producer_erred)
        self._subscriptions: set[KafkaSubscription] = set()
        self._missing: dict[str, DeferredLock] = {}
        self._faults: dict[str, str] = {}
        self._warnings: dict[str, list[str]] = {}
        self._dropped = Dropped()
        self._refused: str | None = None
        self._attempt: Deferred[None] | None = None
        self._looking = False
        self._stopped = False
        self._link = Reconnecting(
            f"{product} at {properties['bootstrap.servers']}",
            reactor,
            random,
            connect=self._connect,
            up=self._up,
            down=lambda reason: None,
            describe=describe,
        )

    @property
    def unavailable_reason(self) -> str | None:
        return self._link.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        """What of a topic's own settings breaks a promise, and which topics cannot be read."""
        refused = [each.warning for each in self._subscriptions if each.warning is not None]
        found = [*self._faults.values(), *(each for found in self._warnings.values() for each in found)]
        return [*found, *self._dropped.warnings, *refused]

    def start(self) -> Deferred[None]:
        if self._producing.producer is None:
            self._threads.start()
            try:
                self._topics.start()
                self._producing.start()
            except Exception as error:  # of librdkafka: a file with certificates that cannot be read, say
                return fail(CannotStart(f"Kafka: {describe(error)}"))
            self._watch.start()
        self._link.start()
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return self._link.when_probed()

    @deferred
    async def stop(self) -> None:
        was_stopped, self._stopped = self._stopped, True
        self._watch.stop()
        closing = [each.close(STOPPED) for each in list(self._subscriptions)]
        await DeferredList(closing, consumeErrors=True)
        await self._link.stop()
        self._topics.stop()
        if not was_stopped:
            await self._producing.stop()
            await self._threads.run(self._lag.close)
            self._threads.stop()

    # Publishing

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Sequence[NotDurable | None]]:
        reason = self._faults.get(channel) or self.unavailable_reason
        if reason is not None or self._stopped:
            return succeed([NotDurable(reason or STOPPED)] * len(messages))
        largest = self.traits.largest_message
        assert largest is not None
        if any(len(message.body) > largest for message in messages):
            return self._publish_those_that_fit(channel, messages, largest)
        if channel in self._missing:
            return self._publish_if_it_is_there(channel, messages)
        return self._producing.publish(channel, messages).addCallback(self._published, channel)

    def _published(self, outcomes: Sequence[NotDurable | None], channel: str) -> Sequence[NotDurable | None]:
        if any(isinstance(outcome, ChannelMissing) for outcome in outcomes):
            self._missing.setdefault(channel, DeferredLock())
        return outcomes

    @deferred
    async def _publish_if_it_is_there(self, channel: str, messages: Sequence[Message]) -> Sequence[NotDurable | None]:
        """The producer remembers that a topic is missing: it is asked to look again. In the order of the calls."""
        lock = self._missing[channel]
        await lock.acquire()
        try:
            if channel in self._missing:
                if not await self._threads.run(lambda: self._producing.knows(channel, VISIBLE_SECONDS)):
                    return [ChannelMissing(channel)] * len(messages)
                del self._missing[channel]
            publishing = self._producing.publish(channel, messages).addCallback(self._published, channel)
        except Exception as error:
            return [NotDurable(f"Kafka: {describe(error)}")] * len(messages)
        finally:
            lock.release()
        return await publishing

    @deferred
    async def _publish_those_that_fit(
        self, channel: str, messages: Sequence[Message], largest: int
    ) -> Sequence[NotDurable | None]:
        published = self.publish(channel, [each for each in messages if len(each.body) <= largest])
        outcomes = iter(await published)
        too_large = f"Kafka takes no message of more than {largest} bytes"
        return [NotDurable(too_large) if len(each.body) > largest else next(outcomes) for each in messages]

    # Consuming

    def consume(self, channel: str, receiver: IReceiver, group: str | None = None) -> ISubscription:
        """As `IBroker.consume`; ``group`` is the consumer group, where it is not that of the channel."""
        subscription = KafkaSubscription(
            channel,
            group or self.group_of(channel),
            self._reactor,
            receiver,
            self._look_whether_there,
            self._erred,
            self._subscriptions.discard,
            self._dropped.note,
        )
        self._subscriptions.add(subscription)
        self._reactor.callLater(0, self._look_whether_there, subscription)
        return subscription

    def _look_whether_there(self, subscription: KafkaSubscription) -> None:
        shielded(self._join(subscription)).addErrback(self._not_told, subscription)

    async def _join(self, subscription: KafkaSubscription) -> None:
        channel = subscription.topic
        if subscription.stopped or self._stopped or self.unavailable_reason is not None:
            return  # `_up` looks again
        topic = await self._find(channel)
        if topic is None:
            subscription.lose(f"Kafka has no topic {channel}")
        elif channel in self._faults:
            subscription.lose(self._faults[channel])
        elif subscription.joined and subscription.topic_id != topic.id:
            subscription.lose(f"the topic {channel} was deleted and made again")
        elif not subscription.joined and not subscription.stopped:
            group = {**self._properties, "group.id": subscription.group}
            try:
                subscription.join(Member(group, channel, topic.id, self._reactor, subscription))
            except Exception as error:  # of librdkafka, which makes no consumer
                subscription.lose(f"Kafka: {describe(error)}")

    def _ids(self) -> Mapping[str, str]:
        """The ids of the topics that are read, by name, while the cluster can be asked."""
        if self.unavailable_reason is not None:
            return {}
        return {each.topic: each.topic_id for each in self._subscriptions if each.topic_id is not None}

    def _made_again(self, topic: str) -> None:
        for subscription in [each for each in self._subscriptions if each.topic == topic]:
            self._look_whether_there(subscription)

    def _not_told(self, failure: Any, subscription: KafkaSubscription) -> None:
        """It is looked again with the next connection, or in a while."""
        failure.trap(NotDurable)
        if not self._stopped:
            self._reactor.callLater(1.0, self._look_whether_there, subscription)

    def group_of(self, channel: str) -> str:
        """The consumer group of a channel."""
        return f"{self._group}.{channel}"

    # Channels

    @deferred
    async def ensure(self, channel: str) -> None:
        self._check_reachable()
        topic = await self._find(channel)
        if topic is None:
            await self._topics.make(channel, self._partitions, self._replication)
            await self._threads.run(lambda: self._wait_until_known(channel))
            await self._find(channel)
        if channel in self._faults:
            raise NotDurable(self._faults[channel])

    @deferred
    async def exists(self, channel: str) -> bool:
        self._check_reachable()
        return await self._find(channel) is not None

    @deferred
    async def depth(self, channel: str) -> int | None:
        self._check_reachable()
        topic = await self._topics.find(channel)
        return None if topic is None else await self._threads.run(self._lag.of(topic, self.group_of(channel)))

    def _check_reachable(self) -> None:
        if self._stopped or self.unavailable_reason is not None:
            raise NotDurable(self.unavailable_reason or STOPPED)

    async def _find(self, channel: str) -> Topic | None:
        """The topic; what its settings mean is looked at the first time."""
        topic = await self._topics.find(channel)
        if topic is None:
            self._warnings.pop(channel, None)
            self._faults.pop(channel, None)
        elif self._ours and channel not in self._warnings:
            fault, self._warnings[channel] = await self._topics.faults(topic)
            if fault is not None:
                self._faults[channel] = fault
        return topic

    def _wait_until_known(self, channel: str) -> None:
        """In a thread: the producer refuses what it has for a missing topic until it has asked again."""
        due = time.monotonic() + VISIBLE_SECONDS
        while time.monotonic() < due:
            if self._producing.knows(channel, VISIBLE_SECONDS):
                return
            time.sleep(0.02)
        raise NotDurable(f"Kafka has made the topic {channel}, and it has no leader yet")

    # Reaching the cluster

    @deferred
    async def _connect(self) -> Reachable:
        self._refused = None
        try:
            if self._files.have_changed():
                await self._begin_with_new_files()
            self._attempt = probing = self._topics.probe()
            await probing
            # The producer connects, too, and not with the first message: only it says when a connection is lost.
            self._topics.brokers = await self._threads.run(self._connect_producer)
        except (NotDurable, CancelledError) as error:
            if self._refused is None:
                raise
            raise NotDurable(self._refused) from error
        finally:
            self._attempt = None
        return Reachable()

    async def _begin_with_new_files(self) -> None:
        """Make all clients again: they would go on with the certificates that they have read. `NotDurable`."""
        old = self._producing
        try:
            self._topics.start()
            new = old.again()
            new.start()
        except Exception as error:
            self._files.forget()
            raise NotDurable(f"Kafka: {describe(error)}") from None
        self._log.info("Kafka: the files of TLS have changed, and were read again")
        self._producing = new
        for subscription in list(self._subscriptions):
            subscription.lose("the connection begins with other certificates")
        await old.stop()
        await self._threads.run(self._lag.close)

    def _connect_producer(self) -> int:
        """In a thread: how many brokers the cluster has that can be used."""
        try:
            brokers = len(self._producing.producer.list_topics(NO_TOPIC, ANSWER_SECONDS).brokers)
        except Exception as error:
            raise NotDurable(f"Kafka: {describe(error)}") from None
        if not brokers:
            raise NotDurable("Kafka: the cluster tells of no broker that can be used")
        return brokers

    async def _up(self, connection: Reachable) -> None:
        self._warnings.clear()
        self._faults.clear()
        self._reactor.callLater(0, self._connected)

    def _connected(self) -> None:
        if self._link.connection is not None and not self._stopped:
            for call in self.on_connected:
                call()
            for subscription in list(self._subscriptions):
                self._look_whether_there(subscription)

    def _producer_erred(self, error: Any) -> None:
        if error.fatal() and not self._stopped:
            self._begin_again(error)
        self._erred(error)

    def _erred(self, error: Any) -> None:
        """librdkafka connects again by itself, and says what it meets: it is looked whether the cluster answers."""
        if self._stopped:
            return
        name = error.name()
        if refuses(error):
            self._refused = describe(error)
            if self._attempt is not None:
                self._attempt.cancel()
        if name == "_TRANSPORT" and self._link.connection is not None and not self._looking:
            self._looking = True
            self._topics.probe().addBoth(self._looked, self._link.connection)
        if name not in UNREACHABLE:
            self._log.warn("Kafka: {reason}", reason=describe(error))
        if self._link.connection is not None and (error.fatal() or refuses(error) or name == "_ALL_BROKERS_DOWN"):
            self._link.connection.fail(describe(error))

    def _looked(self, result: Any, connection: Reachable) -> None:
        """A connection was lost. Others may be there, so the cluster was asked whether it answers."""
        self._looking = False
        if isinstance(result, Failure):
            connection.fail(describe(result.value))
        elif self._link.connection is connection:
            self._connected()

    def _begin_again(self, error: Any) -> None:
        """An idempotent producer that cannot keep its order any more takes nothing: another one does."""
        self._log.error("the Kafka producer begins again: {reason}", reason=describe(error))
        old = self._producing
        old.stop().addErrback(lambda failure: None)
        self._producing = old.again()
        self._producing.start()
