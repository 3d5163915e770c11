"""The queue over RabbitMQ on the bench of the backend contract, with the ledger in the embedded file or in Redis.

RabbitMQ is a real server and answers in real time. What waits for its time waits in the outbox, by the bench's clock.
"""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

import pika
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import IMessageQueue
from openhqm.policy.channels import Channels
from openhqm.policy.limits import Limits
from openhqm.rabbitmq.address import parse_address
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.rabbitmq.connecting import check_installed
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
from tests.brokers import RabbitMQServer, shared_rabbitmq
from tests.redis.bench import Instance, RedisBench

_tests = count(1)


class Messages:
    """The queues of one test on a server that other tests share."""

    def __init__(self, server: RabbitMQServer) -> None:
        check_installed()
        self.server = server
        self.channels = Channels(REQUESTS, f"backend{next(_tests)}.")
        self.made: set[str] = set()

    def delete(self) -> None:
        """Delete every queue of the test."""
        connection = pika.BlockingConnection(pika.URLParameters(self.server.url))
        channel = connection.channel()
        for queue in self.made:
            channel.queue_delete(queue)
        connection.close()


class ObservedBroker(Observed, RabbitMQBroker):
    """The adapter, and how many of its calls RabbitMQ has not answered."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        address = parse_address(messages.server.url)
        super().__init__(address, reactor, random.random, seconds=10.0, consumer_timeout=None)

    def ensure(self, channel: str) -> Deferred[None]:
        self._messages.made.add(channel)
        return super().ensure(channel)


class SqliteAndRabbitMQ(SqliteBesideABroker):
    """One process, with the ledger in the embedded file."""

    def __init__(self, server: RabbitMQServer) -> None:
        self.messages = Messages(server)
        super().__init__()

    def make_queue(self) -> IMessageQueue:
        self.broker = ObservedBroker(self.messages)
        channels = self.messages.channels
        ledger = SqliteLedger(self.file, self.store, self.clock, channels=channels, limits=self.limits)
        return BrokeredQueue(self.broker, ledger, self.clock, channels=channels, dead_letters=DEAD_LETTERS, lease=LEASE)

    @deferred
    async def close(self) -> None:  # type: ignore[override]
        await super().close()
        self.messages.delete()


class RabbitMQInstance(Instance):
    """What one process holds, with the ledger in Redis."""

    def __init__(self, messages: Messages, url: str, prefix: str, clock: Clock, limits: Limits) -> None:
        self.messages = messages
        self.broker = ObservedBroker(messages)
        super().__init__(url, prefix, clock, LEASE, limits)

    def make_queue(self, lease: float) -> IMessageQueue:
        channels, clock = self.messages.channels, self.redis.clock
        ledger = self.ledger = RedisLedger(
            self.redis, channels=channels, dead_letters=DEAD_LETTERS, ttl=TTL, limits=self.limits
        )
        return BrokeredQueue(self.broker, ledger, clock, channels=channels, dead_letters=DEAD_LETTERS, lease=lease)

    @deferred
    async def start(self) -> None:
        await super().start()
        await self.broker.when_probed()

    @property
    def waits(self) -> bool:
        return super().waits or self.broker.busy

    @deferred
    async def quiet(self) -> None:
        await super().quiet()
        await self.broker.quiet()
        await super().quiet()


class RedisAndRabbitMQ(RedisBench):
    """One process, with the ledger in Redis."""

    def __init__(self, server: RabbitMQServer) -> None:
        self.messages = Messages(server)
        super().__init__()
        self._turning = LoopingCall(lambda: self.clock.advance(0))
        self._turning.start(TURN_SECONDS, now=False)

    def make_instance(self) -> Instance:
        return RabbitMQInstance(self.messages, self.server.url, self.prefix, self.clock, self.limits)

    @deferred
    async def pass_time(self, seconds: float) -> None:
        await pause_for_deliveries(DELIVERED_SECONDS)
        await super().pass_time(seconds)
        await pause_for_deliveries(DELIVERED_SECONDS)

    @deferred
    async def crash(self) -> None:
        instance = self.instance
        assert isinstance(instance, RabbitMQInstance)
        await pause(0)
        await instance.broker.stop()  # a process that is gone has no connections
        await super().crash()

    @deferred
    async def close(self) -> None:
        self._turning.stop()
        await super().close()
        self.messages.delete()


@deferred
async def sqlite_and_rabbitmq(case: TestCase | SynchronousTestCase, root: Path | None = None) -> SqliteAndRabbitMQ:
    """For `openhqm.testing.backend_contract`. ``root`` is where another RabbitMQ is installed."""
    bench = SqliteAndRabbitMQ(shared_rabbitmq(root))
    await bench.broker.when_probed()
    return bench


@deferred
async def redis_and_rabbitmq(case: TestCase | SynchronousTestCase, root: Path | None = None) -> RedisAndRabbitMQ:
    """The same, with the ledger in Redis."""
    bench = RedisAndRabbitMQ(shared_rabbitmq(root))
    await bench.open()
    return bench
