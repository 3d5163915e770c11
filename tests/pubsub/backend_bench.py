"""The queue over Pub/Sub on the bench of the backend contract, with the ledger in the embedded file or in Redis.

The server answers in real time. What waits for its time waits in the outbox, by the bench's clock.
"""

from __future__ import annotations

import atexit
import random
from collections.abc import Sequence
from itertools import count

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Acceptance, IdempotencyClaim, Submission
from openhqm.policy.channels import Channels
from openhqm.policy.limits import Limits
from openhqm.pubsub.broker import Address, PubSubBroker
from openhqm.pubsub.subscriptions import Wanted
from openhqm.redis.ledger import RedisLedger
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS, TTL
from tests.brokered_bench import TURN_SECONDS, Observed, SqliteBesideABroker, pause
from tests.pubsub.server import PROJECT, PubSubServer
from tests.redis.bench import Instance, RedisBench

SERVER_LEASE = 10.0
PRIORITIES = 3
PULLED_SECONDS = 0.03
"""A message that was published has been pulled by then, and delivered."""
_tests = count(1)
_shared: list[PubSubServer] = []


def shared_pubsub() -> PubSubServer:
    """One for all tests of this run: each has topics of its own in it."""
    if not _shared:
        _shared.append(PubSubServer().start())
        atexit.register(_shared[0].close)
    return _shared[0]


class ObservedBroker(Observed, PubSubBroker):
    """The adapter, and how many of its calls the server has not answered."""

    def __init__(self, server: PubSubServer) -> None:
        address = Address(PROJECT, f"http://{server.host}", emulator=True)
        super().__init__(address, reactor, random.random, Wanted(SERVER_LEASE, dead_letters="dead"), seconds=10.0)

    @deferred
    async def read_by(self, queue: IMessageQueue, clock: Clock) -> None:
        """Let the queue begin to consume: a process that works has done that long ago, and every channel is there."""
        await self.when_probed()
        waiting = queue.receive(REQUESTS, 5)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        while sum(each.asks or bool(each._out) for each in self._subscriptions) < PRIORITIES:
            await pause(0.005)
            clock.advance(0.05)
        await self.quiet()
        waiting.cancel()


class Delivered(BrokeredQueue):
    """It says that a request is accepted once its message was delivered: the tests look at what is there then."""

    @deferred
    async def accept(
        self, submission: Submission, claim: IdempotencyClaim | None, follow_ups: Sequence[Submission] = ()
    ) -> Acceptance:
        accepted = await super().accept(submission, claim, follow_ups)
        await pause(PULLED_SECONDS)
        return accepted


class SqliteAndPubSub(SqliteBesideABroker):
    """One process, with the ledger in the embedded file."""

    def __init__(self, server: PubSubServer) -> None:
        self.server = server
        self.channels = Channels(REQUESTS, f"backend{next(_tests)}.")
        super().__init__()

    def make_queue(self) -> IMessageQueue:
        self.broker = ObservedBroker(self.server)
        ledger = SqliteLedger(self.file, self.store, self.clock, channels=self.channels, limits=self.limits)
        return Delivered(
            self.broker, ledger, self.clock, channels=self.channels, dead_letters=DEAD_LETTERS, lease=LEASE
        )

    @deferred
    async def pass_time(self, seconds: float) -> None:  # type: ignore[override]
        end = self.clock.seconds() + seconds
        await pause(PULLED_SECONDS)
        while self.clock.seconds() < end:
            await self.broker.quiet()
            self.clock.advance(min(self.step, end - self.clock.seconds()))
        await pause(PULLED_SECONDS)

    @deferred
    async def crash(self) -> None:  # type: ignore[override]
        await super().crash()
        await self.broker.read_by(self.queue, self.clock)


class PubSubInstance(Instance):
    """What one process holds, with the ledger in Redis."""

    def __init__(
        self, server: PubSubServer, channels: Channels, url: str, prefix: str, clock: Clock, limits: Limits
    ) -> None:
        self.broker = ObservedBroker(server)
        self.channels = channels
        super().__init__(url, prefix, clock, LEASE, limits)

    def make_queue(self, lease: float) -> IMessageQueue:
        clock = self.redis.clock
        ledger = self.ledger = RedisLedger(
            self.redis, channels=self.channels, dead_letters=DEAD_LETTERS, ttl=TTL, limits=self.limits
        )
        return Delivered(self.broker, ledger, clock, channels=self.channels, dead_letters=DEAD_LETTERS, lease=lease)

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


class RedisAndPubSub(RedisBench):
    """One process, with the ledger in Redis."""

    def __init__(self, server: PubSubServer) -> None:
        self.pubsub = server
        self.channels = Channels(REQUESTS, f"backend{next(_tests)}.")
        super().__init__()
        self._turning = LoopingCall(lambda: self.clock.advance(0))
        self._turning.start(TURN_SECONDS, now=False)

    def make_instance(self) -> Instance:
        return PubSubInstance(self.pubsub, self.channels, self.server.url, self.prefix, self.clock, self.limits)

    @deferred
    async def pass_time(self, seconds: float) -> None:
        await pause(PULLED_SECONDS)
        await super().pass_time(seconds)
        await pause(PULLED_SECONDS)

    @deferred
    async def crash(self) -> None:
        instance = self.instance
        assert isinstance(instance, PubSubInstance)
        await pause(0)
        await instance.broker.stop()  # a process that is gone has no connections
        await super().crash()

    @deferred
    async def close(self) -> None:
        self._turning.stop()
        await super().close()


@deferred
async def sqlite_and_pubsub(case: TestCase | SynchronousTestCase) -> SqliteAndPubSub:
    """For `openhqm.testing.backend_contract`."""
    bench = SqliteAndPubSub(shared_pubsub())
    await bench.broker.read_by(bench.queue, bench.clock)
    return bench


@deferred
async def redis_and_pubsub(case: TestCase | SynchronousTestCase) -> RedisAndPubSub:
    """The same, with the ledger in Redis."""
    bench = RedisAndPubSub(shared_pubsub())
    await bench.open()
    return bench
