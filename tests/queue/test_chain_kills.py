"""The process is killed at any step of a chain: it ends once, and none of its steps is worked on a second time.

As in `tests.queue.test_follow_up_kills`, the process dies before or after each commit, script, or change of the broker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from openhqm.messages import Acceptance, Child, IdempotencyClaim, Reply, Status, Submission
from openhqm.testing import REQUESTS
from tests.benches import brokered_bench, sqlite_bench
from tests.queue.test_follow_up_kills import Life
from tests.redis.bench import brokered_redis_bench, redis_bench

STEPS = f"{REQUESTS}.billing"
CLAIM = IdempotencyClaim("key", b"print")
MOST_STEPS = 80


def step(payload: bytes, stage: int, joined: bool = False) -> Child:
    return Child(Submission(payload, endpoint="billing"), stage, "billing", joined)


CHAIN = (step(b"1", 1), step(b"2", 2, True), step(b"3", 2, True), step(b"4", 3))


class World:
    """What a caller and the handlers see, in both lives."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.told: Acceptance | None = None
        self.settled: list[str] = []

    async def do(self, deferred: Deferred[Any]) -> Any:
        return await self.bench.done(deferred)

    async def accept(self) -> None:
        parent = Submission(b"null", timeout=1000.0)
        self.told = await self.do(self.bench.queue.accept(parent, CLAIM, (), CHAIN))

    async def receive(self) -> Any:
        """A delivery, or None where there is none within a claim on an outbox entry and a lease."""
        waiting = self.bench.queue.receive(STEPS, 1)
        for _ in range(9):
            if waiting.called:
                return (await self.do(waiting))[0]
            await self.bench.pass_time(9)
        waiting.cancel()
        waiting.addErrback(lambda failure: None)
        return None

    async def work(self, most: int, last: Status = Status.COMPLETED) -> None:
        """Handlers that complete so many steps, but for the last one."""
        for count in range(1, most + 1):
            delivery = await self.receive()
            if delivery is None:
                return
            id, status = delivery.request.correlation_id, Status.COMPLETED if count < most else last
            reply = Reply(id, status, self.bench.now(), delivery.request.submission.payload, attempt=delivery.attempt)
            if await self.do(delivery.settle(reply)):
                self.settled.append(id)

    async def find(self) -> Any:
        assert self.told is not None
        return await self.do(self.bench.store.find(self.told.correlation_id))


async def worked_off(world: World) -> None:
    await world.work(4)


async def failing(world: World) -> None:
    await world.work(3, Status.FAILED)


async def cancelled(world: World) -> None:
    await world.work(2)
    assert world.told is not None
    await world.do(world.bench.store.cancel(world.told.correlation_id))


class KilledTests:
    """The promises, for one backend."""

    make: Callable[[Any], Any]

    async def every_step(self, end: Callable[[World], Awaitable[None]], status: Status) -> None:
        for last in range(1, MOST_STEPS):
            alive = [await self._one_life(end, status, last, after) for after in (False, True)]
            if all(alive):
                return
        raise AssertionError(f"there are more than {MOST_STEPS} steps")

    async def _one_life(self, end: Callable[[World], Awaitable[None]], status: Status, last: int, after: bool) -> bool:
        """Whether the process was done before its last step."""
        bench = await maybeDeferred(type(self).make, self)
        try:
            bench.step = 20.0  # each look at what has expired is a step, too
            world, life = World(bench), Life(bench, last, after)

            async def live() -> None:
                await world.accept()
                await end(world)

            done = await life.lived(live())
            try:
                await self._another_life(world, end, status)
            except Exception as error:
                raise AssertionError(f"killed {'after' if after else 'before'} {life.steps}: {error!r}") from error
            return done
        finally:
            await maybeDeferred(bench.close)

    async def _another_life(self, world: World, end: Callable[[World], Awaitable[None]], status: Status) -> None:
        case: Any = self
        before = world.told
        await world.accept()
        if before is not None:
            case.assertEqual(world.told and world.told.correlation_id, before.correlation_id)
        record = await world.find()
        if not record.status.ended:
            left = sum(not child.status.ended for child in record.children)
            if status is Status.COMPLETED:
                await world.work(left)
            elif status is Status.FAILED:
                await world.work(left - 1, Status.FAILED)
            elif not (await world.find()).status.ended:
                await world.do(world.bench.store.cancel(record.correlation_id))
        await world.bench.pass_time(9)
        record = await world.find()
        case.assertEqual(record.status, status)
        case.assertTrue(all(child.status.ended for child in record.children), record.children)
        case.assertEqual(len(set(world.settled)), len(world.settled), "a step was completed twice")
        if status is Status.COMPLETED:
            case.assertEqual(record.reply.result, b"4")
            case.assertEqual([child.status for child in record.children], [Status.COMPLETED] * 4)
        case.assertIsNone(await world.receive())

    async def test_worked_off(self) -> None:
        """All steps complete."""
        await self.every_step(worked_off, Status.COMPLETED)

    async def test_failing(self) -> None:
        """A step of a join fails."""
        await self.every_step(failing, Status.FAILED)

    async def test_cancelled(self) -> None:
        """Cancelled in the middle."""
        await self.every_step(cancelled, Status.CANCELLED)


class SqliteTests(KilledTests, TestCase):
    """The embedded queue."""

    make = staticmethod(sqlite_bench)


class BrokeredTests(KilledTests, TestCase):
    """A queue over a broker, with the ledger in the embedded file."""

    make = staticmethod(brokered_bench)


class RedisTests(KilledTests, TestCase):
    """The queue in Redis."""

    make = staticmethod(redis_bench)


class BrokeredRedisTests(KilledTests, TestCase):
    """A queue over a broker, with the ledger in Redis."""

    make = staticmethod(brokered_redis_bench)


del KilledTests
