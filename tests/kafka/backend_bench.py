"""The queue over Kafka on the bench of the backend contract, with the ledger in the embedded file or in Redis.

Kafka is a real server and answers in real time. What waits for its time waits in the outbox, by the bench's clock.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.errors import NotDurable
from openhqm.interfaces import IMessageQueue, Message
from openhqm.interfaces.broker import IReceiver
from openhqm.kafka.broker import KafkaBroker
from openhqm.kafka.settings import LARGEST_MESSAGE
from openhqm.kafka.subscription import KafkaSubscription
from openhqm.messages import Acceptance, Child, IdempotencyClaim, Submission
from openhqm.policy.channels import Channels
from openhqm.policy.limits import Limits
from openhqm.redis.ledger import RedisLedger
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS, TTL
from tests.brokered_bench import (
    DELIVERED_SECONDS,
    TURN_SECONDS,
    Observed,
    SqliteBesideABroker,
    pause,
    pause_for_deliveries,
)
from tests.kafka.server import KafkaServer, shared_kafka
from tests.redis.bench import Instance, RedisBench

_tests = count(1)
_ends: Counter[str] = Counter()
"""How many messages were published into each channel, over all processes of its test."""


class Reading(Observed):
    """Beside an adapter for Kafka: how many of its calls are not answered, and whether it has read what is there."""

    _subscriptions: set[KafkaSubscription]

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Any]:
        def count(outcomes: Sequence[NotDurable | None]) -> Sequence[NotDurable | None]:
            if published := outcomes.count(None):  # else what the process before has published is not to be waited for
                self._own_ends[channel] = _ends[channel] = _ends[channel] + published
            return outcomes

        return super().publish(channel, messages).addCallback(count)

    def consume(self, channel: str, receiver: IReceiver, group: str | None = None) -> Any:
        subscription: Any = super().consume(channel, receiver, group)  # type: ignore[misc]
        read = subscription.read

        def note(records: Sequence[Any]) -> None:
            self._lasts[channel] = max(records[-1].offset(), self._lasts.get(channel, -1))
            read(records)

        subscription.read = note
        return subscription

    @cached_property
    def _own_ends(self) -> dict[str, int]:
        """Where each channel ends into which this process has published."""
        return {}

    @cached_property
    def _lasts(self) -> dict[str, int]:
        """The last record of each channel that this process has read, by whichever subscription."""
        return {}

    @property
    def busy(self) -> bool:
        """Whether a call is not answered, a subscription has no partition yet, or something is not read."""
        return super().busy or not all(each.reads and self._has_read(each.topic) for each in self._reading)

    @property
    def _reading(self) -> list[KafkaSubscription]:
        return [each for each in self._subscriptions if not each.stopped]

    def _has_read(self, channel: str) -> bool:
        """There is one partition, which the test alone publishes into: its records are numbered from 0."""
        return self._lasts.get(channel, -1) + 1 >= self._own_ends.get(channel, 0)

    @deferred
    async def delivered(self) -> None:
        """Until what may be delivered has come.

        What the process before has published may come again at any time, and so may what was read by a subscription
        before, until there is something from this one.
        """
        await self.quiet()
        again = (each for each in self._reading if _ends[each.topic] and not each._partitions)
        if any(again) or any(_ends[each.topic] > self._own_ends.get(each.topic, 0) for each in self._reading):
            await pause_for_deliveries(DELIVERED_SECONDS)

    @deferred
    async def read_by(self, queue: IMessageQueue, clock: Clock) -> None:
        """Let the queue begin to consume: a process that works has done that long ago, and every channel is there."""
        await self.when_probed()  # type: ignore[attr-defined]
        await gatherResults([self.ensure(name) for name in queue._channels.names(REQUESTS)])  # type: ignore[attr-defined]
        waiting = queue.receive(REQUESTS, 5)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        while len(self._subscriptions) < 3:
            await pause(0.01)
            clock.advance(0)
        waiting.cancel()  # before anything can come: it would be the test's, and be lost
        while sum(each.reads for each in self._subscriptions) < 3:
            await pause(0.005)
            clock.advance(0.005)
        await self.quiet()


class ObservedBroker(Reading, KafkaBroker):
    """The adapter. ``name`` is that of the test."""

    def __init__(self, server: KafkaServer, name: str) -> None:
        super().__init__(
            {"bootstrap.servers": server.bootstrap},
            reactor,
            random.random,
            group=name,
            seconds=10.0,
            largest=LARGEST_MESSAGE,
            partitions=1,
            replication=1,
        )


class Delivered(BrokeredQueue):
    """It says that a request is accepted once its message was delivered: the tests look at what is there then."""

    @deferred
    async def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Acceptance:
        accepted = await super().accept(submission, claim, follow_ups, children)
        await self._broker.delivered()  # type: ignore[attr-defined]
        return accepted


class SqliteAndKafka(SqliteBesideABroker):
    """One process, with the ledger in the embedded file."""

    adapter: Callable[[KafkaServer, str], Any] = ObservedBroker

    def __init__(self, server: KafkaServer) -> None:
        self.server = server
        self.name = f"backend{next(_tests)}"
        super().__init__()

    def make_queue(self) -> IMessageQueue:
        self.broker = type(self).adapter(self.server, self.name)
        channels = Channels(REQUESTS, f"{self.name}.")
        ledger = SqliteLedger(self.file, self.store, self.clock, channels=channels, limits=self.limits)
        return Delivered(self.broker, ledger, self.clock, channels=channels, dead_letters=DEAD_LETTERS, lease=LEASE)

    def delivered(self) -> Deferred[None]:
        found: Deferred[None] = self.broker.delivered()
        return found

    @deferred
    async def crash(self) -> None:  # type: ignore[override]
        await super().crash()
        await self.broker.read_by(self.queue, self.clock)


class KafkaInstance(Instance):
    """What one process holds, with the ledger in Redis."""

    def __init__(self, broker: Any, name: str, url: str, prefix: str, clock: Clock, limits: Limits) -> None:
        self.broker = broker
        self.name = name
        super().__init__(url, prefix, clock, LEASE, limits)

    def make_queue(self, lease: float) -> IMessageQueue:
        channels, clock = Channels(REQUESTS, f"{self.name}."), self.redis.clock
        ledger = self.ledger = RedisLedger(
            self.redis, channels=channels, dead_letters=DEAD_LETTERS, ttl=TTL, limits=self.limits
        )
        return Delivered(self.broker, ledger, clock, channels=channels, dead_letters=DEAD_LETTERS, lease=lease)

    @deferred
    async def start(self) -> None:
        await super().start()
        await self.broker.read_by(self.queue, self.redis.clock)

    @property
    def waits(self) -> bool:
        return super().waits or self.broker.busy

    @deferred
    async def quiet(self) -> None:
        await super().quiet()
        await self.broker.quiet()
        await super().quiet()


class RedisAndKafka(RedisBench):
    """One process, with the ledger in Redis."""

    adapter: Callable[[KafkaServer, str], Any] = ObservedBroker

    def __init__(self, server: KafkaServer) -> None:
        self.kafka = server
        self.name = f"backend{next(_tests)}"
        super().__init__()
        self._turning = LoopingCall(lambda: self.clock.advance(0))
        self._turning.start(TURN_SECONDS, now=False)

    def make_instance(self) -> Instance:
        broker = type(self).adapter(self.kafka, self.name)
        return KafkaInstance(broker, self.name, self.server.url, self.prefix, self.clock, self.limits)

    @property
    def kafka_instance(self) -> KafkaInstance:
        assert isinstance(self.instance, KafkaInstance)
        return self.instance

    @deferred
    async def pass_time(self, seconds: float) -> None:
        await self.kafka_instance.broker.delivered()
        await super().pass_time(seconds)
        await self.kafka_instance.broker.delivered()

    @deferred
    async def crash(self) -> None:
        await pause(0)
        await self.kafka_instance.broker.stop()  # a process that is gone has no connections
        await super().crash()

    @deferred
    async def close(self) -> None:
        self._turning.stop()
        await super().close()


@deferred
async def sqlite_and_kafka(case: TestCase | SynchronousTestCase) -> SqliteAndKafka:
    """For `openhqm.testing.backend_contract`."""
    bench = SqliteAndKafka(shared_kafka())
    await bench.broker.read_by(bench.queue, bench.clock)
    return bench


@deferred
async def redis_and_kafka(case: TestCase | SynchronousTestCase) -> RedisAndKafka:
    """For `openhqm.testing.backend_contract`."""
    bench = RedisAndKafka(shared_kafka())
    await bench.open()
    return bench
