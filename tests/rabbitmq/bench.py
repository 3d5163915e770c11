"""A queue in RabbitMQ on a bench, with the books in the embedded file or in Redis, on real servers.

Our own time is a clock that goes when it is told to. Each of its seconds takes a fiftieth of one in RabbitMQ, which
keeps delays by a time of its own; so that is how long passing a second takes.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, LoopingCall, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.config import rabbitmq_address
from openhqm.interfaces import IMessageQueue
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.redis.ledger import RedisLedger
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS, TTL
from tests.benches import SqliteBench
from tests.brokers import RabbitMQServer, shared_rabbitmq
from tests.redis.bench import Instance, RedisBench

SCALE = 0.02
SETTLE_SECONDS = 0.1
_prefixes = count(1)


def make_broker(server: RabbitMQServer, prefix: str, clock: Clock) -> RabbitMQBroker:
    from twisted.internet import reactor

    address = rabbitmq_address.parse_address(server.url)
    return RabbitMQBroker(address, reactor, lambda: 0.5, prefix=prefix, seconds=5.0, clock=clock, scale=SCALE)  # type: ignore[arg-type]


class SqliteAndRabbitMQ(SqliteBench):
    """One process: the embedded file, and RabbitMQ."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.server = shared_rabbitmq()
        self.prefix = f"bench{next(_prefixes)}."
        super().__init__()
        self.turning = LoopingCall(lambda: self.clock.advance(0))
        self.turning.start(0.002, now=False)

    def make_queue(self) -> IMessageQueue:
        self.broker = make_broker(self.server, self.prefix, self.clock)
        ledger = SqliteLedger(self.file, self.store, self.clock, requests=REQUESTS, dead_letters=DEAD_LETTERS)
        return BrokeredQueue(self.broker, ledger, self.clock, requests=REQUESTS, dead_letters=DEAD_LETTERS, lease=LEASE)

    @deferred
    async def done(self, deferred: Deferred[Any]) -> Any:  # type: ignore[override]
        return await deferred

    @deferred
    async def pass_time(self, seconds: float) -> None:  # type: ignore[override]
        end = self.clock.seconds() + seconds
        await deferLater(self.reactor, SETTLE_SECONDS)
        while self.clock.seconds() < end:
            step = min(1.0, end - self.clock.seconds())
            self.clock.advance(step)
            await deferLater(self.reactor, step * SCALE)
        await deferLater(self.reactor, SETTLE_SECONDS)

    @deferred
    async def crash(self) -> None:  # type: ignore[override]
        old = self.broker
        super().crash()
        await old.stop()  # a process that is gone has no connections
        await self.broker.when_probed()

    @deferred
    async def close(self) -> None:  # type: ignore[override]
        self.turning.stop()
        await self.broker.stop()
        super().close()


class RedisAndRabbitMQ(RedisBench):
    """Redis for the books, RabbitMQ for the messages."""

    def __init__(self) -> None:
        self.messages = shared_rabbitmq()
        super().__init__()

    def make_instance(self) -> Instance:
        return _Instance(self.messages, self.server.url, self.prefix, self.clock)

    @deferred
    async def pass_time(self, seconds: float) -> None:
        from twisted.internet import reactor

        end = self.clock.seconds() + seconds
        await deferLater(reactor, SETTLE_SECONDS)  # type: ignore[arg-type]
        while self.clock.seconds() < end:
            step = min(1.0, end - self.clock.seconds())
            self.clock.advance(step)
            await deferLater(reactor, step * SCALE)  # type: ignore[arg-type]
        await deferLater(reactor, SETTLE_SECONDS)  # type: ignore[arg-type]
        await self.instance.quiet()

    @deferred
    async def crash(self) -> None:
        old = self.instance
        assert isinstance(old, _Instance)
        await super().crash()
        await old.broker.stop()


class _Instance(Instance):
    def __init__(self, server: RabbitMQServer, url: str, prefix: str, clock: Clock) -> None:
        self.broker = make_broker(server, prefix, clock)
        super().__init__(url, prefix, clock, LEASE)

    def make_queue(self, lease: float) -> IMessageQueue:
        ledger = RedisLedger(self.redis, requests=REQUESTS, dead_letters=DEAD_LETTERS, ttl=TTL)
        clock = self.redis.clock
        return BrokeredQueue(self.broker, ledger, clock, requests=REQUESTS, dead_letters=DEAD_LETTERS, lease=lease)

    @deferred
    async def start(self) -> None:
        await super().start()
        await self.broker.when_probed()


@deferred
async def sqlite_and_rabbitmq(case: TestCase | SynchronousTestCase) -> SqliteAndRabbitMQ:
    bench = SqliteAndRabbitMQ()
    await bench.broker.when_probed()
    return bench


@deferred
async def redis_and_rabbitmq(case: TestCase | SynchronousTestCase) -> RedisAndRabbitMQ:
    bench = RedisAndRabbitMQ()
    await bench.open()
    return bench
