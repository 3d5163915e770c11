"""The log of endings in Redis keeps the promises of every other, for all processes on one Redis."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openhqm.messages import LogPage, Submission
from openhqm.testing import REQUESTS
from tests.queue.ending_log_contract import ending_log_contract
from tests.redis.bench import Instance, RedisBench, brokered_redis_bench, redis_bench
from tests.redis.real_server import RealRedisTestCase


class RedisEndingLogTests(ending_log_contract(redis_bench)):  # type: ignore[misc]
    """The Redis backend, which trims in portions."""

    timeout = 240
    bounds_roughly = True


class BrokeredRedisEndingLogTests(ending_log_contract(brokered_redis_bench)):  # type: ignore[misc]
    """Redis as the store beside a broker."""

    timeout = 240
    bounds_roughly = True


class SharedLogTests(RealRedisTestCase):
    """Two processes on one Redis"""

    async def end_one(self, instance: Instance, tags: Any = ()) -> str:
        accepted = await instance.queue.accept(Submission(b"1", metadata={"tags": list(tags)} if tags else {}), None)
        (delivery,) = await instance.queue.receive(REQUESTS, 1)
        await delivery.settle(self.reply(delivery))
        found: str = accepted.correlation_id
        return found

    async def page(self, instance: Instance, after: int = 0) -> LogPage:
        found: LogPage = await instance.store.log.read(after, 100)
        return found

    async def test_shared(self) -> None:
        """What ends in one process the other one reads, in the same order, and is told of."""
        server = await self.server()
        one, two = await self.instance(server.url), await self.instance(server.url)
        await one.store.log.keep()
        told: list[None] = []
        self.addCleanup(two.store.log.watch(lambda: told.append(None)))
        ids = [await self.end_one(each, ["t"]) for each in (one, two, one)]
        for each in (one, two):
            page = await self.page(each)
            self.assertEqual([ending.correlation_id for ending in page.endings], ids)
        await self.until(lambda: len(told) > len(ids), "the other process was not told")  # and once of the channel

    async def test_another_redis(self) -> None:
        """A Redis that was started again may have forgotten endings that were read: the log has another name."""
        server = await self.server(appendonly="yes")
        one = await self.instance(server.url)
        await one.store.log.keep()
        await self.end_one(one)
        before = await self.page(one)
        server.kill()
        server.start()
        await self.patiently(one.store.log.keep)
        after = await self.page(one)
        self.assertNotIn(after.name, ("", before.name))
        self.assertFalse(after.follows(before.name, before.last))

    async def test_expires(self) -> None:
        """Where no process asks again, nothing of the log stays in Redis for ever."""
        server = await self.server()
        one = await self.instance(server.url)
        await one.store.log.keep()
        await self.end_one(one)
        for key in ("t:log", "t:log:endings"):
            self.assertGreater(await one.redis.command("PTTL", key), 0, key)


class TrimmedTests(TestCase):
    """Endings that are too old, by the time of Redis"""

    timeout = 240

    async def test_trimmed_by_age(self) -> None:
        """The first one that is young enough is found, wherever it stands among many."""
        bench = RedisBench()
        await bench.open()
        self.addCleanup(bench.close)
        log, prefix = bench.store.log, bench.prefix
        redis = bench.instance.redis
        for count, old in ((1, 0), (1, 1), (10, 0), (10, 1), (10, 5), (10, 9), (10, 10), (257, 129)):
            await redis.command("DEL", f"{prefix}log", f"{prefix}log:endings")
            await self._done(bench, log.keep())
            for number in range(1, count + 1):
                at = bench.now() - (7200 if number <= old else 10)
                await redis.command(
                    *("XADD", f"{prefix}log:endings", f"{number}-0", "number", "1000000000001"),
                    *("status", "FAILED", "at", repr(at), "tags", "", "tenant", ""),
                )
            await redis.command("HSET", f"{prefix}log", "last", str(count))
            await self._done(bench, log.keep())
            page: Any = await self._done(bench, log.read(0, 1000))
            self.assertEqual((page.first, page.last, len(page.endings)), (old + 1, count, count - old), (count, old))

    def _done(self, bench: RedisBench, asked: Deferred[Any]) -> Deferred[Any]:
        return bench.done(asked)


del ending_log_contract, RealRedisTestCase
