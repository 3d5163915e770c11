"""What has waited longest, and for too long, in Redis: found by its time, however much was begun or accepted before."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from openhqm.messages import Acceptance, Status, Submission
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.testing import REQUESTS
from tests.redis.bench import BrokeredRedisBench, RedisBench, shared_redis

MANY = 1100


class LimitsTests(TestCase):
    """`RedisLoad`"""

    timeout = 120

    async def bench(self, limits: Limits, kind: type[RedisBench] = RedisBench) -> RedisBench:
        bench = kind()
        bench.limits = limits
        await bench.open()
        self.addCleanup(bench.close)
        return bench

    async def accept(self, bench: RedisBench, count: int) -> list[Acceptance]:
        asked: list[Deferred[Any]] = [bench.queue.accept(Submission(b"1"), None) for _ in range(count)]
        found: list[Acceptance] = await bench.done(gatherResults(asked))
        return found

    async def test_beyond_its_memory(self) -> None:
        """A limit that is larger than what Redis holds is a warning with both numbers, also where it is changed."""
        shared_redis().command("CONFIG", "SET", "maxmemory", "1gb")
        self.addCleanup(lambda: shared_redis().command("CONFIG", "SET", "maxmemory", "0"))
        for kind in (RedisBench, BrokeredRedisBench):
            bench = await self.bench(Limits(bytes=(1 << 30) + 1), kind)
            (warning,) = bench.queue.warnings
            self.assertIn(f"queue.limits.bytes is {(1 << 30) + 1}, and Redis holds {1 << 30}", warning)
            limit = getattr(bench.queue, "limit", None) or bench.queue._ledger.limit
            limit(Limits(bytes=1 << 30))
            self.assertEqual(tuple(bench.queue.warnings), ())

    async def test_much_begun_before(self) -> None:
        """However many requests are worked on that were accepted before, the one that has waited longest is dropped."""
        for kind in (RedisBench, BrokeredRedisBench):
            bench = await self.bench(Limits(requests=MANY + 1, drop_oldest=True), kind)
            await self.accept(bench, MANY)
            begun = 0
            while begun < MANY:
                begun += len(await bench.done(bench.queue.receive(REQUESTS, MANY - begun)))
            await bench.pass_time(1)
            (oldest,) = await self.accept(bench, 1)
            await bench.pass_time(1)
            (newer,) = await self.accept(bench, 1)
            for each, status in ((oldest, Status.FAILED), (newer, Status.PENDING)):
                self.assertEqual((await bench.store.find(each.correlation_id)).status, status)

    async def test_accepted_before_the_limit(self) -> None:
        """What waited before there was a limit on age ends as well, and what is delayed does not."""
        bench = await self.bench(NO_LIMITS)
        accepted = await self.accept(bench, 600)
        delayed = await bench.done(bench.queue.accept(Submission(b"1", not_before=bench.now() + 60), None))
        bench.limits = Limits(age_seconds=30.0)
        await bench.crash()
        await bench.pass_time(10)
        (begun,) = await bench.done(bench.queue.receive(REQUESTS, 1))
        await bench.pass_time(25)
        for each in accepted:
            expected = Status.PROCESSING if each.correlation_id == begun.request.correlation_id else Status.FAILED
            self.assertEqual((await bench.store.find(each.correlation_id)).status, expected)
        self.assertEqual((await bench.store.find(delayed.correlation_id)).status, Status.PENDING)
        await bench.pass_time(60)
        self.assertEqual((await bench.store.find(delayed.correlation_id)).status, Status.FAILED)

    async def test_dropped_that_was_accepted_before(self) -> None:
        """Where the limits are new, what was accepted before them can be dropped."""
        bench = await self.bench(Limits(requests=5))
        accepted = await self.accept(bench, 5)
        bench.limits = Limits(requests=5, drop_oldest=True)
        await bench.crash()
        await self.accept(bench, 1)
        self.assertEqual((await bench.store.find(accepted[0].correlation_id)).status, Status.FAILED)

    async def test_nothing_is_left(self) -> None:
        """What has begun or ended is known no longer as something that waits, and without a limit nothing is."""
        for kind in (RedisBench, BrokeredRedisBench):
            for limits, left in ((Limits(age_seconds=30.0), 1), (NO_LIMITS, 0), (Limits(requests=10), 0)):
                bench = await self.bench(limits, kind)
                accepted = await self.accept(bench, 4)
                await bench.done(bench.queue.receive(REQUESTS, 2))
                await bench.done(bench.store.cancel(accepted[3].correlation_id))
                redis = bench.instance.redis
                self.assertEqual(await redis.command("ZCARD", f"{redis.prefix}unbegun"), left)
