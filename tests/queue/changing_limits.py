"""Limits that change while the process runs, on every backend of this build: what waits and what comes follow the new
ones, and the count is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.trial.unittest import TestCase

from openhqm.errors import QueueFull
from openhqm.messages import Load, Status, Submission
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.testing.bench import Base


class Changing(Base):
    timeout = 120

    def change(self, limits: Limits) -> None:
        """What a SIGHUP does."""
        queue = self.bench.queue
        limit = getattr(queue, "limit", None) or queue._ledger.limit
        limit(limits)

    async def accept_many(self, count: int) -> list[str]:
        asked = [self.bench.queue.accept(Submission(b"1"), None) for _ in range(count)]
        outcomes = await self.do(DeferredList(asked, consumeErrors=True))
        self.assertTrue(all(success for success, _ in outcomes))
        return [found.correlation_id for _, found in outcomes]

    async def is_full(self) -> None:
        await self.refused(self.bench.queue.accept(Submission(b"1"), None), QueueFull)

    async def load(self) -> Load | None:
        found: Load | None = await self.do(self.bench.queue.load())
        return found

    async def test_lower(self) -> None:
        """With a lower limit than what is open, new requests are refused until enough have ended. None ends for it."""
        self.bench.limits = Limits(requests=10)
        await self.bench.crash()
        accepted = await self.accept_many(8)
        self.change(Limits(requests=6))
        await self.is_full()
        for id in accepted[:2]:
            await self.do(self.bench.store.cancel(id))
        await self.is_full()
        await self.do(self.bench.store.cancel(accepted[2]))
        await self.accept()
        await self.is_full()
        for id in accepted[3:]:
            self.assertEqual(await self.status(id), Status.PENDING)

    async def test_lower_and_drop(self) -> None:
        """Where the oldest are dropped, what is too much goes within a while, however much that is."""
        self.bench.limits = Limits(requests=1500, drop_oldest=True)
        await self.bench.crash()
        accepted = await self.accept_many(1400)
        await self.bench.pass_time(2)
        self.change(Limits(requests=5, drop_oldest=True))
        await self.bench.pass_time(15)
        await self.accept()
        self.assertEqual((await self.load()), Load(5, (await self.load() or Load(0, 0)).bytes))
        statuses = [await self.status(id) for id in accepted]
        self.assertEqual(statuses.count(Status.PENDING), 4)

    async def test_higher(self) -> None:
        """With a higher limit, and with none, requests are taken at once."""
        self.bench.limits = Limits(requests=2)
        await self.bench.crash()
        await self.accept_many(2)
        await self.is_full()
        self.change(Limits(requests=4))
        await self.accept_many(2)
        await self.is_full()
        self.change(NO_LIMITS)
        await self.accept_many(2)
        self.assertIsNone(await self.load())

    async def test_switched_on(self) -> None:
        """The first limits count what is open already, whatever was limited before."""
        await self.accept_many(3)
        for _ in range(2):
            self.change(Limits(requests=5))
            await self.bench.pass_time(2)
            if self.knows_what_waits:
                self.assertEqual((await self.load()), Load(3, (await self.load() or Load(0, 0)).bytes))
            count = (await self.load() or Load(0, 0)).requests
            await self.accept_many(5 - count)
            await self.is_full()
            for _ in range(5 - count):
                delivery = await self.receive_one()
                await self.do(delivery.settle(self.reply(delivery)))
            self.change(NO_LIMITS)
            # One is accepted and one ends where nothing is counted.
            await self.accept_many(1)
            delivery = await self.receive_one()
            await self.do(delivery.settle(self.reply(delivery)))

    async def test_age(self) -> None:
        """The limit on age holds from then on for what waits already, and ends nothing once it is gone."""
        (old,) = await self.accept_many(1)
        await self.bench.pass_time(20)
        self.change(Limits(age_seconds=10.0))
        await self.bench.pass_time(4)
        if self.knows_what_waits:
            self.assertEqual(await self.status(old), Status.FAILED)
        (newer,) = await self.accept_many(1)
        self.change(NO_LIMITS)
        await self.bench.pass_time(20)
        self.assertEqual(await self.status(newer), Status.PENDING)
        self.change(Limits(age_seconds=10.0))
        await self.bench.pass_time(4)
        self.assertEqual(await self.status(newer), Status.FAILED)

    knows_what_waits = True

    async def test_dead_letters(self) -> None:
        """Fewer dead letters are kept from then on."""
        for _ in range(4):
            await self.accept()
            delivery = await self.receive_one()
            await self.do(delivery.dead_letter("rejected", self.reply(delivery, status=Status.FAILED)))
        self.change(Limits(dead_letters=1))
        await self.bench.pass_time(4)
        self.assertEqual(len(await self.do(self.bench.queue.dead_letters(0, 10))), 1)


def suite(name: str, module: str, make: Callable[[TestCase], Any], **more: object) -> type[TestCase]:
    """The suite for what ``make`` makes."""

    def make_bench(self: TestCase) -> Deferred[Any]:
        made = make(self)
        return made if isinstance(made, Deferred) else succeed(made)

    return type(name, (Changing,), {"make_bench": make_bench, "__module__": module, **more})
