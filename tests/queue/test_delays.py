"""Delays of a month, of a millisecond, and into the past: never early, in order, and at most 100 ms late at rest."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from openhqm.messages import Reply, Status, Submission
from openhqm.testing import REQUESTS
from tests.benches import BrokeredBench, MemoryBench, SqliteBench
from tests.redis.bench import BrokeredRedisBench, RedisBench

MONTH = 30 * 86400.0
DELAYS = (MONTH, 0.001, 1.5, -60.0, 1.0, 0.05)
STEPS = (*[0.05] * 35, MONTH - 2.0, *[0.05] * 10)
LATE = 0.1


class Delays(TestCase):
    """The promises, for one backend"""

    bench: Any

    async def do(self, deferred: Deferred[Any]) -> Any:
        return await self.bench.done(deferred)

    async def delivered(self) -> list[str]:
        """The ids of the requests that are ready, each of which is settled."""
        found = []
        while True:
            waiting = self.bench.queue.receive(REQUESTS, 1)
            await self.bench.pass_time(0)
            if not waiting.called:
                waiting.addErrback(lambda failure: failure.trap(CancelledError))
                waiting.cancel()
                return found
            (delivery,) = await self.do(waiting)
            id = delivery.request.correlation_id
            await self.do(delivery.settle(Reply(id, Status.COMPLETED, self.bench.now(), b"1", attempt=1)))
            found.append(id)

    async def test_delays(self) -> None:
        """Each is delivered once, when its time has come."""
        self.addCleanup(self.bench.close)
        start, delays = self.bench.now(), {}
        for delay in DELAYS:
            accepted = await self.do(self.bench.queue.accept(Submission(b"1", not_before=start + delay), None))
            delays[accepted.correlation_id] = delay
        found = []
        for step in (0.0, *STEPS):
            self.bench.step = step
            await self.bench.pass_time(step)
            for id in await self.delivered():
                found.append(delays[id])
                late = self.bench.now() - start - max(0.0, delays[id])
                self.assertTrue(0.0 <= late <= LATE, (delays[id], late))
        self.assertEqual(found, sorted(DELAYS))


class MemoryTests(Delays):
    """In memory"""

    def setUp(self) -> None:
        self.bench = MemoryBench()


class SqliteTests(Delays):
    """The embedded file"""

    def setUp(self) -> None:
        self.bench = SqliteBench()


class BrokeredTests(Delays):
    """A broker, and the embedded file"""

    def setUp(self) -> None:
        self.bench = BrokeredBench()


class RedisTests(Delays):
    """Redis"""

    async def setUp(self) -> None:  # type: ignore[override]
        self.bench = RedisBench()
        await self.bench.open()


class BrokeredRedisTests(Delays):
    """A broker, and Redis"""

    async def setUp(self) -> None:  # type: ignore[override]
        self.bench = BrokeredRedisBench()
        await self.bench.open()


del Delays
