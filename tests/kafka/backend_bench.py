"""The queue over Kafka on the bench of the backend contract, with the ledger in the embedded file or in Redis.

Kafka is a real server and answers in real time. What waits for its time waits in the outbox, by the bench's clock.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import IMessageQueue
from openhqm.kafka.broker import KafkaBroker
from openhqm.kafka.settings import LARGEST_MESSAGE
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


class ObservedBroker(Observed, KafkaBroker):
    """The adapter, and how many of its calls Kafka has not answered. ``name`` is that of the test."""

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

    @property
    def busy(self) -> bool:
        """Whether a call is not answered, or a subscription has no partition yet."""
        return super().busy or not all(each.reads for each in self._subscriptions if not each.stopped)

    @deferred
    async def read_by(self, queue: IMessageQueue, clock: Clock) -> None:
        """Let the queue begin to consume: a process that works has done that long ago, and every channel is there."""
        await self.when_probed()
        for channel in queue._channels.names(REQUESTS):  # type: ignore[attr-defined]
            await self.ensure(channel)
        waiting = queue.receive(REQUESTS, 5)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        while len(self._subscriptions) < 3:
            await pause(0.01)
            clock.advance(0)
        waiting.cancel()  # before anything can come: it would be the test's, and be lost
        while sum(each.reads for each in self._subscriptions) < 3:
            await pause(0.05)
            clock.advance(0.05)
        await self.quiet()


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
        await pause_for_deliveries(DELIVERED_SECONDS)
        return accepted


class SqliteAndKafka(SqliteBesideABroker):
    """One process, with the ledger in the embedded file."""

    def __init__(self, server: KafkaServer) -> None:
        self.server = server
        self.name = f"backend{next(_tests)}"
        super().__init__()

    def make_queue(self) -> IMessageQueue:
        self.broker = ObservedBroker(self.server, self.name)
        channels = Channels(REQUESTS, f"{self.name}.")
        ledger = SqliteLedger(self.file, self.store, self.clock, channels=channels, limits=self.limits)
        return Delivered(self.broker, ledger, self.clock, channels=channels, dead_letters=DEAD_LETTERS, lease=LEASE)

    @deferred
    async def crash(self) -> None:  # type: ignore[override]
        await super().crash()
        await self.broker.read_by(self.queue, self.clock)


class KafkaInstance(Instance):
    """What one process holds, with the ledger in Redis."""

    def __init__(self, server: KafkaServer, name: str, url: str, prefix: str, clock: Clock, limits: Limits) -> None:
        self.broker = ObservedBroker(server, name)
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

    def __init__(self, server: KafkaServer) -> None:
        self.kafka = server
        self.name = f"backend{next(_tests)}"
        super().__init__()
        self._turning = LoopingCall(lambda: self.clock.advance(0))
        self._turning.start(TURN_SECONDS, now=False)

    def make_instance(self) -> Instance:
        return KafkaInstance(self.kafka, self.name, self.server.url, self.prefix, self.clock, self.limits)

    @deferred
    async def pass_time(self, seconds: float) -> None:
        await pause_for_deliveries(DELIVERED_SECONDS)
        await super().pass_time(seconds)
        await pause_for_deliveries(DELIVERED_SECONDS)

    @deferred
    async def crash(self) -> None:
        instance = self.instance
        assert isinstance(instance, KafkaInstance)
        await pause(0)
        await instance.broker.stop()  # a process that is gone has no connections
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
