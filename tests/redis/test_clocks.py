"""Clocks that differ: Redis's time decides, and the difference is a warning."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.messages import Reply, Status, Submission
from openhqm.policy.channels import Channels
from openhqm.redis.address import parse_address
from openhqm.redis.clocks import ClockDifference
from openhqm.redis.connection import Redis
from openhqm.redis.ledger import RedisLedger
from openhqm.redis.queue import RedisQueue
from openhqm.redis.results import RedisResults
from openhqm.runtime.deferreds import deferred
from openhqm.testing import FORMS, FakeBroker, FakeServer
from tests.redis.bench import shared_redis


class ClockDifferenceTests(SynchronousTestCase):
    """`ClockDifference`"""

    def test_tolerated(self) -> None:
        """A time between question and answer is no difference, however long that took; nor is one of a second."""
        clocks = ClockDifference()
        for told in (10.0, 13.0, 16.0, 9.2, 16.9):
            clocks.note(10.0, 16.0, told)
            self.assertEqual((clocks.seconds, clocks.warnings), (0.0, ()))

    def test_warned(self) -> None:
        """A larger one is a warning in both directions, and is over when the clocks agree."""
        clocks = ClockDifference()
        clocks.note(10.0, 11.0, 71.0)
        self.assertIn("60 s behind", clocks.warnings[0])
        self.assertEqual((clocks.to_ours(100.0), clocks.to_theirs(40.0)), (40.0, 100.0))
        clocks.note(1000.0, 1001.0, 400.0)
        self.assertIn("600 s ahead of", clocks.warnings[0])
        clocks.note(2000.0, 2000.1, 2000.2)
        self.assertEqual(clocks.warnings, ())


class Skewed:
    """The reactor, by a clock that is ``skew`` seconds ahead."""

    def __init__(self, skew: float) -> None:
        self._skew = skew
        self.callLater = reactor.callLater  # type: ignore[attr-defined]

    def seconds(self) -> float:
        return reactor.seconds() + self._skew  # type: ignore[attr-defined, no-any-return]


class SkewedTests(TestCase):
    """A worker and a listener whose clocks are wrong, on a real Redis"""

    timeout = 240

    @deferred
    async def started(self, prefix: str, skew: float) -> tuple[Redis, RedisQueue]:
        clock: Any = Skewed(skew)
        redis = Redis(parse_address(shared_redis().url), prefix, reactor, lambda: 0.5, seconds=5.0, clock=clock)
        queue = RedisQueue(redis, requests="requests", dead_letters="dead", ttl=60.0)
        store = RedisResults(redis, 60.0)
        await queue.start()
        self.addCleanup(queue.stop)
        store.start()
        self.addCleanup(store.stop)
        await redis.when_probed()
        return redis, queue

    @deferred
    async def test_deadline(self) -> None:
        """A worker whose clock is 10 minutes wrong has the whole time of a request's deadline."""
        for skew in (600.0, -600.0):
            prefix = f"test:{os.urandom(4).hex()}:"
            _, listener = await self.started(prefix, 0.0)
            redis, worker = await self.started(prefix, skew)
            self.assertEqual(len(worker.warnings), len(listener.warnings) + 1)
            await listener.accept(Submission(b"1", timeout=300.0), None)
            (delivery,) = await worker.receive("requests", 1)
            assert delivery.request.deadline is not None
            self.assertLess(abs(delivery.request.deadline - redis.clock.seconds() - 300.0), 3.0)
            await delivery.ack()

    @deferred
    async def over_a_broker(self, prefix: str, skew: float, server: FakeServer) -> BrokeredQueue:
        clock: Any = Skewed(skew)
        redis = Redis(parse_address(shared_redis().url), prefix, reactor, lambda: 0.5, seconds=5.0, clock=clock)
        ledger = RedisLedger(redis, channels=Channels("requests"), dead_letters="dead", ttl=60.0)
        broker = FakeBroker(server, clock, server.traits)
        queue = BrokeredQueue(broker, ledger, clock, channels=Channels("requests"), dead_letters="dead")
        store = RedisResults(redis, 60.0)
        await queue.start()
        self.addCleanup(queue.stop)
        store.start()
        self.addCleanup(store.stop)
        await redis.when_probed()
        return queue

    @deferred
    async def test_deadline_over_a_broker(self) -> None:
        """The same where the request comes through a broker: a minute is more than many a deadline has."""
        for skew in (60.0, -60.0):
            prefix = f"test:{os.urandom(4).hex()}:"
            server = FakeServer(FORMS["amqp"])
            listener = await self.over_a_broker(prefix, 0.0, server)
            worker = await self.over_a_broker(prefix, skew, server)
            await listener.accept(Submission(b"1", timeout=30.0), None)
            (delivery,) = await worker.receive("requests", 1)
            assert delivery.request.deadline is not None
            self.assertLess(abs(delivery.request.deadline - reactor.seconds() - skew - 30.0), 3.0)  # type: ignore[attr-defined]
            self.assertIn("that of Redis, whose time decides", " ".join(worker.warnings))
            await delivery.settle(Reply(delivery.request.correlation_id, Status.COMPLETED, 0.0))

    @deferred
    async def test_delay(self) -> None:
        """A request that a listener with a wrong clock delays by half a second is delivered then, not an hour later."""
        prefix = f"test:{os.urandom(4).hex()}:"
        redis, listener = await self.started(prefix, 3600.0)
        await listener.accept(Submission(b"1", not_before=redis.clock.seconds() + 0.5), None)
        (delivery,) = await listener.receive("requests", 1)
        await delivery.ack()
