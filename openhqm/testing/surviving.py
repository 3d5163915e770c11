# -*- test-case-name: tests.queue.test_contracts -*-
"""Surviving: repeats under a key, and crashes."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from openhqm.errors import (
    ExpiredRequest,
    IdempotencyConflict,
    OpenHQMError,
)
from openhqm.messages import (
    Acceptance,
    IdempotencyClaim,
    Priority,
    Status,
    Submission,
)
from openhqm.testing.bench import DEAD_LETTERS, LEASE, REQUESTS, TTL, Base


class Claiming(Base):
    async def test_repeat(self) -> None:
        """The same claim again is the same request: one id, lent once."""
        claim = IdempotencyClaim("key", b"print")
        first = await self.accept(claim=claim)
        await self.bench.pass_time(5)
        again = await self.accept(claim=claim)
        self.assertEqual(again, Acceptance(first.correlation_id, first.submitted_at, replayed=True))
        await self.one()
        await self.nothing_is_lent()

    async def test_conflict(self) -> None:
        """The same key for another request is refused, and accepts nothing."""
        await self.accept(claim=IdempotencyClaim("key", b"print"))
        await self.refused(
            self.bench.queue.accept(Submission(b"2"), IdempotencyClaim("key", b"other")), IdempotencyConflict
        )
        await self.one()
        await self.nothing_is_lent()

    async def test_at_once(self) -> None:
        """A hundred repeats at the same time make one request."""
        claim = IdempotencyClaim("key", b"print")
        accepted = await self.do(gatherResults([self.bench.queue.accept(Submission(b"1"), claim) for _ in range(100)]))
        self.assertEqual(len({each.correlation_id for each in accepted}), 1)
        self.assertEqual([each.replayed for each in accepted].count(False), 1)
        await self.one()
        await self.nothing_is_lent()

    async def test_lifetime(self) -> None:
        """A key is free again once its time is over."""
        claim = IdempotencyClaim("key", b"print", lifetime=100.0)
        first = await self.accept(claim=claim)
        await self.bench.pass_time(101)
        again = await self.accept(claim=claim)
        self.assertNotEqual(first.correlation_id, again.correlation_id)


class Crashing(Base):
    """These need a backend that says it is durable; for one that is not, they show that it says so."""

    async def crash(self) -> bool:
        await self.bench.crash()
        return self.bench.queue.traits.durable

    async def test_crash_accepted(self) -> None:
        """What was accepted is there after a crash, intact."""
        accepted = await self.accept(b'{"a":  1}', metadata={"b": 2}, priority=Priority.LOW)
        if await self.crash():
            delivery = await self.one()
            self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
            self.assertEqual(delivery.request.submission, Submission(b'{"a":  1}', {}, {"b": 2}, Priority.LOW))
        else:
            await self.refused(self.bench.store.find(accepted.correlation_id), OpenHQMError)

    async def test_crash_queues(self) -> None:
        """The names of queues are kept across a crash, although nobody asked for their messages."""
        await self.accept(endpoint="billing")
        if await self.crash():
            self.assertIn(f"{REQUESTS}.billing", await self.do(self.bench.queue.queues()))

    async def test_crash_on_loan(self) -> None:
        """What was on loan is lent anew after a crash, at the end of its lease at the latest; the attempt was counted.

        At once where the queue has one process at a time; where it has many, nobody else knows that the holder is gone.
        """
        accepted = await self.accept()
        await self.one()
        if await self.crash():
            waiting = self.bench.queue.receive(REQUESTS, 1)
            await self.bench.pass_time(LEASE + 1)
            (delivery,) = await self.do(waiting)
            self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 2))

    async def test_crash_retry(self) -> None:
        """A retry keeps its time across a crash."""
        await self.accept()
        await self.do((await self.one()).retry(30, "no luck"))
        if await self.crash():
            await self.nothing_is_lent()
            await self.bench.pass_time(31)
            self.assertEqual((await self.one()).attempt, 2)

    async def test_crash_ended(self) -> None:
        """What had ended has the same ending after a crash, and its history; it is not lent."""
        accepted = await self.accept()
        delivery = await self.one()
        reply = self.reply(delivery)
        await self.do(delivery.settle(reply))
        if await self.crash():
            record = await self.do(self.bench.store.find(accepted.correlation_id))
            self.assertEqual(record.reply, reply)
            self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "completed"])
            await self.nothing_is_lent()

    async def test_crash_cancelled(self) -> None:
        """What was cancelled stays cancelled."""
        accepted = await self.accept()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        if await self.crash():
            self.assertEqual(await self.status(accepted.correlation_id), Status.CANCELLED)
            await self.nothing_is_lent()

    async def test_crash_deadline(self) -> None:
        """A deadline is kept across a crash."""
        accepted = await self.accept(timeout=30.0)
        if await self.crash():
            await self.bench.pass_time(31)
            self.assertEqual(await self.status(accepted.correlation_id), Status.TIMEOUT)

    async def test_crash_delay(self) -> None:
        """What was not to begin before its time begins then, after a crash as well."""
        await self.accept(not_before=self.bench.now() + 30)
        if await self.crash():
            await self.nothing_is_lent()
            await self.bench.pass_time(31)
            await self.one()

    async def test_crash_in_order(self) -> None:
        """What waits for its retry holds up what is behind it across a crash."""
        first = await self.accept(partition=0)
        await self.accept(partition=0)
        (delivery,) = await self.do(self.bench.queue.receive(f"{REQUESTS}._0", 1, in_order=True))
        await self.do(delivery.retry(30, "no luck"))
        if await self.crash():
            waiting = self.bench.queue.receive(f"{REQUESTS}._0", 1, in_order=True)
            await self.bench.pass_time(10)
            self.assertNoResult(waiting)
            await self.bench.pass_time(21)
            (delivery,) = await self.do(waiting)
            self.assertEqual((delivery.request.correlation_id, delivery.attempt), (first.correlation_id, 2))

    async def test_crash_claim(self) -> None:
        """A claim is kept across a crash."""
        claim = IdempotencyClaim("key", b"print")
        first = await self.accept(claim=claim)
        if await self.crash():
            self.assertEqual((await self.accept(claim=claim)).correlation_id, first.correlation_id)

    async def test_crash_dead_letter(self) -> None:
        """Dead letters are kept across a crash."""
        await self.accept()
        delivery = await self.one()
        await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))
        if await self.crash():
            ((_, letter),) = await self.do(self.bench.queue.dead_letters(0, 10))
            self.assertEqual(letter.reason, "gave up")

    async def test_crash_dead_letter_numbers(self) -> None:
        """The number of a dead letter that is gone is not given to another one, and the depth is right."""
        await self.accept()
        delivery = await self.one()
        await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))
        self.assertEqual((await self.depth(DEAD_LETTERS)).ready, 1)
        ((first, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
        await self.do(self.bench.queue.redrive(first))
        self.assertEqual((await self.depth(DEAD_LETTERS)).ready, 0)
        if await self.crash():
            self.assertEqual((await self.depth(DEAD_LETTERS)).ready, 0)
            delivery = await self.one()
            await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))
            ((second, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
            self.assertGreater(second, first)

    async def test_crash_no_id_twice(self) -> None:
        """No id is given out a second time, not even after everything has expired and the process was new."""
        accepted = await self.accept()
        delivery = await self.one()
        await self.do(delivery.settle(self.reply(delivery)))
        await self.bench.pass_time(TTL + 10)
        if await self.crash():
            await self.refused(self.bench.store.find(accepted.correlation_id), ExpiredRequest)
            self.assertNotEqual((await self.accept()).correlation_id, accepted.correlation_id)
