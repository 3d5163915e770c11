"""The Redis backend on a bench: a real server, and a time that passes when it is told to.

What the scripts take for the time is the bench's clock. Answers come in real time: the bench waits for them by asking
until nothing is left to be answered, and nothing that was published is still on its way.
"""

from __future__ import annotations

import atexit
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import BrokerTraits, IMessageQueue
from openhqm.policy.channels import Channels
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.queue.ledger import window_of
from openhqm.redis.address import parse_address
from openhqm.redis.connection import Redis
from openhqm.redis.ledger import RedisLedger
from openhqm.redis.queue import RedisQueue
from openhqm.redis.results import RedisResults
from openhqm.runtime.deferreds import deferred
from openhqm.testing import DEAD_LETTERS, FORMS, LEASE, REQUESTS, TTL, FakeBroker, FakeServer
from tests.brokers import RedisServer

START = 1_000_000.0
CHANNELS = Channels(REQUESTS)
_prefixes = count(1)
_shared: list[RedisServer] = []


def shared_redis() -> RedisServer:
    """One server for all contracts of this run; each has keys of its own."""
    if not _shared:
        _shared.append(RedisServer().start())
        atexit.register(_shared[0].close)
    return _shared[0]


class Instance:
    """What one process holds: a queue and a store over connections of its own."""

    def __init__(
        self, url: str, prefix: str, clock: Clock | None, lease: float = LEASE, limits: Limits = NO_LIMITS
    ) -> None:
        from twisted.internet import reactor

        self.redis = Redis(
            parse_address(url),
            prefix,
            reactor,
            lambda: 0.5,
            # In real time, tests ask how soon a Redis is noticed that does not answer.
            seconds=1.5 if clock is None else 5.0,
            clock=clock,  # type: ignore[arg-type]
            own_time=clock is not None,
        )
        self._asking = 0
        self.limits = limits
        self.store = RedisResults(self.redis, TTL)
        self.queue = self.make_queue(lease)
        self.store.sweeps.extend(getattr(self, "ledger", self.queue).sweeps)

    def make_queue(self, lease: float) -> IMessageQueue:
        names = {"requests": REQUESTS, "dead_letters": DEAD_LETTERS}
        return RedisQueue(self.redis, ttl=TTL, lease=lease, limits=self.limits, **names)

    @deferred
    async def start(self) -> None:
        await self.queue.start()
        self.store.start()
        await self.redis.when_probed()
        await self.redis.listening.link.when_probed()

    @deferred
    async def stop(self) -> None:
        self.store.stop()
        await self.queue.stop()

    @property
    def waits(self) -> bool:
        """Whether something was asked and has no answer, beside the PINGs of those that wait for quiet."""
        return sum(link.unanswered for link in (self.redis.link, self.redis.listening.link)) > self._asking

    @deferred
    async def quiet(self) -> None:
        """Until everything that was asked is answered, and everything that was said is heard."""
        still = 0
        while still < 2:
            still = 0 if self.waits else still + 1
            for link in (self.redis.link, self.redis.listening.link):
                self._asking += 1
                try:
                    # In the order of asking: what went before has its answer when this has one.
                    await link.ask("PING")
                finally:
                    self._asking -= 1


class RedisBench:
    """One instance with a clock, on a server that others use, too. ``kills``: a crash is one of Redis as well."""

    limits = NO_LIMITS
    step = 1.0
    """How far time goes at once, in seconds."""

    def __init__(self, kills: bool = False) -> None:
        self.server = shared_redis()
        self.kills = kills
        self.prefix = f"bench{next(_prefixes)}:"
        self.clock = Clock()
        self.clock.advance(START)
        self._instance: Instance | None = None

    @deferred
    async def open(self) -> None:
        self._instance = self.make_instance()
        await self._instance.start()

    def make_instance(self) -> Instance:
        return Instance(self.server.url, self.prefix, self.clock, limits=self.limits)

    @property
    def instance(self) -> Instance:
        assert self._instance is not None
        return self._instance

    @property
    def queue(self) -> Any:
        return self.instance.queue

    @property
    def store(self) -> Any:
        return self.instance.store

    def now(self) -> float:
        return self.clock.seconds()

    @deferred
    async def done(self, deferred: Deferred[Any]) -> Any:
        try:
            return await deferred
        finally:
            await self.instance.quiet()

    @deferred
    async def pass_time(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        await self.instance.quiet()
        while self.clock.seconds() < end:
            self.clock.advance(min(self.step, end - self.clock.seconds()))
            if self.instance.waits:  # most steps ask for nothing, and a day has many
                await self.instance.quiet()
        await self.instance.quiet()

    @deferred
    async def crash(self) -> None:
        # Nothing of the old process may act any more: its calls die with it, the time goes on.
        now = self.clock.seconds()
        old, self.clock = self.instance, Clock()
        self.clock.advance(now)
        await old.redis.stop()
        if self.kills:
            self.server.kill()
            self.server.start()
        await self.open()

    @deferred
    async def close(self) -> None:
        if self._instance is not None:
            await self._instance.stop()


class BrokeredInstance(Instance):
    """The same with a broker in memory for the queue."""

    def __init__(
        self,
        server: FakeServer,
        url: str,
        prefix: str,
        clock: Clock,
        lease: float = LEASE,
        *,
        journaled: bool = False,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self.broker = FakeBroker(server, clock, server.traits)
        self._journaled = journaled
        super().__init__(url, prefix, clock, lease, limits)

    @deferred
    async def quiet(self) -> None:
        for _ in range(3):
            await super().quiet()
            self.redis.clock.advance(0)  # type: ignore[attr-defined]
            if not self.waits:
                return
        await super().quiet()

    def make_queue(self, lease: float) -> IMessageQueue:
        self.ledger = RedisLedger(
            self.redis,
            channels=CHANNELS,
            dead_letters=DEAD_LETTERS,
            ttl=TTL,
            limits=self.limits,
            window=window_of(self.broker.traits.keeps),
        )
        clock = self.redis.clock
        return BrokeredQueue(
            self.broker,
            self.ledger,
            clock,
            channels=CHANNELS,
            dead_letters=DEAD_LETTERS,
            lease=lease,
            journaled=self._journaled,
        )


class BrokeredRedisBench(RedisBench):
    """Redis as the store, and a broker in memory that survives whatever becomes of the process."""

    def __init__(self, traits: BrokerTraits | None = None, *, journaled: bool = False) -> None:
        traits = traits or FORMS["amqp"]
        self.journaled = journaled
        self.messages = FakeServer(traits)
        if traits.lease_seconds is not None:
            self.step = min(1.0, traits.lease_seconds / 3)
        if not traits.makes_channels:
            for name in (REQUESTS, f"{REQUESTS}.billing"):
                for channel in CHANNELS.names(name):
                    self.messages.provide(channel)
        super().__init__()
        # What is published in one turn of the reactor is published together: the turns of the clock have to come.
        self._turning = LoopingCall(lambda: self.clock.advance(0))
        self._turning.start(0.001, now=False)

    @deferred
    async def close(self) -> None:
        await super().close()
        self._turning.stop()

    def make_instance(self) -> BrokeredInstance:
        return BrokeredInstance(
            self.messages, self.server.url, self.prefix, self.clock, journaled=self.journaled, limits=self.limits
        )

    @deferred
    async def crash(self) -> None:
        instance = self.instance
        assert isinstance(instance, BrokeredInstance)
        instance.broker.crash()
        await super().crash()


@deferred
async def brokered_redis_bench(
    case: TestCase | SynchronousTestCase, traits: BrokerTraits | None = None, *, journaled: bool = False
) -> BrokeredRedisBench:
    bench = BrokeredRedisBench(traits, journaled=journaled)
    await bench.open()
    return bench


@deferred
async def redis_bench(case: TestCase | SynchronousTestCase, kills: bool = False) -> RedisBench:
    bench = RedisBench(kills)
    await bench.open()
    return bench
