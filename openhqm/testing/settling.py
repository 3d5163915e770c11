# -*- test-case-name: tests.queue.test_contracts -*-
"""Settling: how a loan ends, once."""

from __future__ import annotations

from openhqm.errors import (
    DeliveryClosed,
    UnknownRequest,
)
from openhqm.messages import (
    Priority,
    Status,
)
from openhqm.testing.bench import LEASE, REQUESTS, Base


class Settling(Base):
    async def test_settle(self) -> None:
        """A settled request has its reply, and is never lent again."""
        accepted = await self.accept()
        delivery = await self.one()
        reply = self.reply(delivery, b'{"big": 12345678901234567890123}')
        self.assertTrue(await self.do(delivery.settle(reply)))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((record.status, record.reply), (Status.COMPLETED, reply))
        await self.bench.pass_time(LEASE * 2)
        await self.nothing_is_lent()

    async def test_settled_once(self) -> None:
        """A loan is settled once; every other way out fails from then on."""
        await self.accept()
        delivery = await self.one()
        await self.do(delivery.settle(self.reply(delivery)))
        for step in (
            delivery.settle(self.reply(delivery)),
            delivery.ack(),
            delivery.retry(0, ""),
            delivery.release(),
            delivery.dead_letter("", self.reply(delivery)),
        ):
            await self.refused(step, DeliveryClosed)

    async def test_retry(self) -> None:
        """A retry is lent after its delay, as the next attempt, and the history says when."""
        accepted = await self.accept()
        delivery = await self.one()
        due = self.bench.now() + 10
        await self.do(delivery.retry(10, "no luck"))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((record.status, record.attempt), (Status.PROCESSING, 1))
        self.assertAlmostEqual(record.next_attempt_at or 0, due, delta=1)
        await self.nothing_is_lent()
        await self.bench.pass_time(11)
        self.assertEqual((await self.one()).attempt, 2)
        self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "retrying", "processing"])

    async def test_give_back(self) -> None:
        """What is given back is lent again at once, and the attempt was none."""
        await self.accept()
        await self.do((await self.one()).release())
        self.assertEqual((await self.one()).attempt, 1)

    async def test_lost_lease(self) -> None:
        """A loan that is not extended is lent anew; its late holder learns of it and settles nothing."""
        accepted = await self.accept()
        late = await self.one()
        await self.bench.pass_time(LEASE + 1)
        again = await self.one()
        self.assertEqual((again.request.correlation_id, again.attempt), (accepted.correlation_id, 2))
        self.assertEqual(await self.do(late.revoked), "lease lost")
        await self.refused(late.settle(self.reply(late, b'"late"')), DeliveryClosed)
        self.assertTrue(await self.do(again.settle(self.reply(again, b'"good"'))))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual(record.reply and record.reply.result, b'"good"')

    async def test_extend(self) -> None:
        """A loan that is extended in time stays."""
        await self.accept()
        delivery = await self.one()
        for _ in range(3):
            await self.bench.pass_time(LEASE * 0.7)
            delivery.extend()
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_dead_letter(self) -> None:
        """A dead letter keeps request, reason and last answer; its request has FAILED; it can be tried anew."""
        accepted = await self.accept(b'"hopeless"', metadata={"own": 1})
        delivery = await self.one()
        reply = self.reply(delivery, b'"last words"', Status.FAILED)
        self.assertTrue(await self.do(delivery.dead_letter("gave up", reply)))
        self.assertEqual(await self.status(accepted.correlation_id), Status.FAILED)
        await self.nothing_is_lent()
        ((number, letter),) = await self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual((letter.request, letter.reason, letter.reply), (delivery.request, "gave up", reply))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(number, 10)), [])

        redriven = await self.do(self.bench.queue.redrive(number))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])
        again = await self.one()
        self.assertEqual((again.request.correlation_id, again.attempt), (redriven.correlation_id, 1))
        self.assertEqual(again.request.submission.payload, b'"hopeless"')
        self.assertEqual(again.request.submission.metadata, {"own": 1, "redriven_from": accepted.correlation_id})
        self.assertEqual(await self.status(accepted.correlation_id), Status.FAILED)
        await self.refused(self.bench.queue.redrive(number), UnknownRequest)

    async def test_redriven_where_it_belongs(self) -> None:
        """What is tried anew waits where it waited before, in its priority."""
        await self.accept(endpoint="billing", priority=Priority.LOW)
        (delivery,) = await self.do(self.bench.queue.receive(f"{REQUESTS}.billing", 1))
        await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))
        ((number, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
        await self.do(self.bench.queue.redrive(number))
        await self.nothing_is_lent()
        (again,) = await self.do(self.bench.queue.receive(f"{REQUESTS}.billing", 1))
        self.assertEqual(again.request.submission.priority, Priority.LOW)

    async def test_first_ending_wins(self) -> None:
        """Of two endings the first stands; the second is told so and changes nothing."""
        accepted = await self.accept()
        delivery = await self.one()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertFalse(await self.do(delivery.settle(self.reply(delivery))))
        self.assertEqual(await self.status(accepted.correlation_id), Status.CANCELLED)
        self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "cancelled"])

    async def test_no_dead_letter_behind_an_ending(self) -> None:
        """A request that has ended otherwise leaves no dead letter."""
        accepted = await self.accept()
        delivery = await self.one()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertFalse(await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED))))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])
