# -*- test-case-name: tests.queue.test_contracts -*-
"""Crashing: what a killed process leaves behind for the next one."""

from __future__ import annotations

from openhqm.errors import ExpiredRequest, OpenHQMError
from openhqm.messages import IdempotencyClaim, Priority, Status, Submission
from openhqm.testing.bench import DEAD_LETTERS, LEASE, REQUESTS, TTL, Base


class Crashing(Base):
    """These need a backend that declares itself durable. For any other they show that it does not."""

    async def crash(self) -> bool:
        await self.bench.crash()
        return self.bench.queue.traits.durable

    async def test_crash_accepted(self) -> None:
        """An accepted request is there after a crash, intact."""
        accepted = await self.accept(b'{"a":  1}', metadata={"b": 2}, priority=Priority.LOW)
        if await self.crash():
            delivery = await self.receive_one()
            self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
            self.assertEqual(delivery.request.submission, Submission(b'{"a":  1}', {}, {"b": 2}, Priority.LOW))
        else:
            await self.refused(self.bench.store.find(accepted.correlation_id), OpenHQMError)

    async def test_crash_queues(self) -> None:
        """The names of queues are kept across a crash, although no receiver asked for their requests."""
        await self.accept(endpoint="billing")
        if await self.crash():
            self.assertIn(f"{REQUESTS}.billing", await self.do(self.bench.queue.queues()))

    async def test_crash_delivered(self) -> None:
        """A crashed worker's request is delivered again, as the next attempt, at the end of its lease at the latest.

        At once where the queue has one process at a time. Where it has many, no other knows that the worker is gone.
        """
        accepted = await self.accept()
        await self.receive_one()
        if await self.crash():
            waiting = self.bench.queue.receive(REQUESTS, 1)
            await self.bench.pass_time(LEASE + 1)
            (delivery,) = await self.do(waiting)
            self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 2))

    async def test_crash_retry(self) -> None:
        """A retry keeps its time across a crash."""
        await self.accept()
        await self.do((await self.receive_one()).retry(30, "no luck"))
        if await self.crash():
            await self.nothing_is_delivered()
            await self.bench.pass_time(31)
            self.assertEqual((await self.receive_one()).attempt, 2)

    async def test_crash_ended(self) -> None:
        """A request that had ended has the same ending and history after a crash, and is not delivered."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        reply = self.reply(delivery)
        await self.do(delivery.settle(reply))
        if await self.crash():
            record = await self.do(self.bench.store.find(accepted.correlation_id))
            self.assertEqual(record.reply, reply)
            self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "completed"])
            await self.nothing_is_delivered()

    async def test_crash_cancelled(self) -> None:
        """A request that was cancelled stays cancelled."""
        accepted = await self.accept()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        if await self.crash():
            self.assertEqual(await self.status(accepted.correlation_id), Status.CANCELLED)
            await self.nothing_is_delivered()

    async def test_crash_deadline(self) -> None:
        """A deadline is kept across a crash."""
        accepted = await self.accept(timeout=30.0)
        if await self.crash():
            await self.bench.pass_time(31)
            self.assertEqual(await self.status(accepted.correlation_id), Status.TIMEOUT)

    async def test_crash_delay(self) -> None:
        """A request that was not to begin before its time begins then, after a crash as well."""
        await self.accept(not_before=self.bench.now() + 30)
        if await self.crash():
            await self.nothing_is_delivered()
            await self.bench.pass_time(31)
            await self.receive_one()

    async def test_crash_in_order(self) -> None:
        """In order: a request that waits for its retry blocks those behind it across a crash, too."""
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
        """An idempotency key is kept across a crash."""
        claim = IdempotencyClaim("key", b"print")
        first = await self.accept(claim=claim)
        if await self.crash():
            self.assertEqual((await self.accept(claim=claim)).correlation_id, first.correlation_id)

    async def test_crash_dead_letter(self) -> None:
        """Dead letters are kept across a crash."""
        await self.accept()
        delivery = await self.receive_one()
        await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))
        if await self.crash():
            ((_, letter),) = await self.do(self.bench.queue.dead_letters(0, 10))
            self.assertEqual(letter.reason, "gave up")

    async def test_crash_dead_letter_numbers(self) -> None:
        """The number of a dead letter that is gone is not given to another one, and the depth counts right."""
        await self.accept()
        delivery = await self.receive_one()
        await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))
        self.assertEqual((await self.depth(DEAD_LETTERS)).ready, 1)
        ((first, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
        await self.do(self.bench.queue.redrive(first))
        self.assertEqual((await self.depth(DEAD_LETTERS)).ready, 0)
        if await self.crash():
            self.assertEqual((await self.depth(DEAD_LETTERS)).ready, 0)
            await self.bench.pass_time(LEASE + 1)  # what the process before had received comes again by then
            delivery = await self.receive_one()
            await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))
            ((second, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
            self.assertGreater(second, first)

    async def test_crash_no_id_twice(self) -> None:
        """No id is given out a second time, not even after everything has expired and the process is another."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        await self.do(delivery.settle(self.reply(delivery)))
        await self.bench.pass_time(TTL + 10)
        if await self.crash():
            await self.refused(self.bench.store.find(accepted.correlation_id), ExpiredRequest)
            self.assertNotEqual((await self.accept()).correlation_id, accepted.correlation_id)
