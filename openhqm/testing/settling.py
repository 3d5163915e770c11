# -*- test-case-name: tests.queue.test_contracts -*-
"""Settling: how a delivery ends, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from openhqm.errors import AlreadySettled, LeaseLost, UnknownRequest
from openhqm.interfaces import IDelivery
from openhqm.messages import (
    Priority,
    Status,
)
from openhqm.testing.bench import LEASE, REQUESTS, Base


class Settling(Base):
    def ways_out(self, delivery: IDelivery) -> tuple[Callable[[], Deferred[Any]], ...]:
        """Everything that settles a delivery."""
        return (
            lambda: delivery.settle(self.reply(delivery)),
            lambda: delivery.ack(),
            lambda: delivery.retry(0, ""),
            lambda: delivery.release(),
            lambda: delivery.dead_letter("", self.reply(delivery)),
        )

    async def test_settle(self) -> None:
        """A settled request has its reply, and is never delivered again."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        reply = self.reply(delivery, b'{"big": 12345678901234567890123}')
        self.assertTrue(await self.do(delivery.settle(reply)))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((record.status, record.reply), (Status.COMPLETED, reply))
        await self.bench.pass_time(LEASE * 2)
        await self.nothing_is_delivered()

    async def test_reply_intact(self) -> None:
        """A reply is kept down to the byte, with the white space around its result, for readers and dead letters."""
        headers = {"X-Name": "Jos\xc3\xa9 \xe9", "Content-Type": "text/plain"}
        for result, body in (
            (b'{"a": 1}\n', None),
            (b" \r\n\t[1.10, 1e400]\t\r\n ", None),
            (b'"\\u00e4 \xc3\xa4"', None),
            (None, bytes(range(256))),
            (None, b""),
            (None, b' {"a": 1}\n'),
        ):
            for kept in (False, True):
                accepted = await self.accept()
                delivery = await self.receive_one()
                reply = replace(self.reply(delivery), result=result, body=body, headers=headers, status_code=207)
                if kept:
                    reply = replace(reply, status=Status.FAILED, error="why", reason_class="no")
                    await self.do(delivery.dead_letter("rejected", reply))
                    *_, (_, letter) = await self.do(self.bench.queue.dead_letters(0, 100))
                    self.assertEqual(letter.reply, reply)
                else:
                    await self.do(delivery.settle(reply))
                self.assertEqual((await self.do(self.bench.store.find(accepted.correlation_id))).reply, reply)
                *_, ending = await self.do(self.bench.store.history(accepted.correlation_id, 0))
                self.assertEqual(ending.reply, reply)

    async def test_settled_once(self) -> None:
        """A delivery is settled once: every other way out fails from then on, also while the first is under way."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        settling = delivery.settle(self.reply(delivery))
        for way_out in self.ways_out(delivery):
            await self.refused(way_out(), AlreadySettled)
        self.assertTrue(await self.do(settling))
        for way_out in self.ways_out(delivery):
            await self.refused(way_out(), AlreadySettled)
        self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "completed"])
        self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])

    async def test_retry(self) -> None:
        """A retried request is delivered after its delay, as the next attempt, and the history says when."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        due = self.bench.now() + 10
        await self.do(delivery.retry(10, "no luck"))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((record.status, record.attempt), (Status.PROCESSING, 1))
        self.assertAlmostEqual(record.next_attempt_at or 0, due, delta=1)
        await self.nothing_is_delivered()
        await self.bench.pass_time(11)
        self.assertEqual((await self.receive_one()).attempt, 2)
        self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "retrying", "processing"])

    async def test_release(self) -> None:
        """A released request is delivered again at once, and its attempt was none."""
        await self.accept()
        await self.do((await self.receive_one()).release())
        self.assertEqual((await self.receive_one()).attempt, 1)

    async def test_lost_lease(self) -> None:
        """A request whose delivery was not extended is delivered again; its late worker is told and settles nothing."""
        accepted = await self.accept()
        late = await self.receive_one()
        await self.bench.pass_time(LEASE + 1)
        again = await self.receive_one()
        self.assertEqual((again.request.correlation_id, again.attempt), (accepted.correlation_id, 2))
        self.assertEqual(await self.do(late.revoked), "lease lost")
        for way_out in self.ways_out(late):
            await self.refused(way_out(), LeaseLost)
        await self.refused(late.progress({"percent": 1}), LeaseLost)
        self.assertTrue(await self.do(again.settle(self.reply(again, b'"good"'))))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual(record.reply and record.reply.result, b'"good"')

    async def test_extend(self) -> None:
        """A delivery that is extended in time is not lost."""
        await self.accept()
        delivery = await self.receive_one()
        for _ in range(3):
            await self.bench.pass_time(LEASE * 0.7)
            delivery.extend()
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_dead_letter(self) -> None:
        """A dead letter keeps request, reason and last answer; its request has FAILED; it can be redriven, once."""
        accepted = await self.accept(b'"hopeless"', metadata={"own": 1})
        delivery = await self.receive_one()
        reply = self.reply(delivery, b'"last answer"', Status.FAILED)
        self.assertTrue(await self.do(delivery.dead_letter("gave up", reply)))
        self.assertEqual(await self.status(accepted.correlation_id), Status.FAILED)
        await self.nothing_is_delivered()
        ((number, letter),) = await self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual((letter.request, letter.reason, letter.reply), (delivery.request, "gave up", reply))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(number, 10)), [])

        redriven = await self.do(self.bench.queue.redrive(number))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])
        again = await self.receive_one()
        self.assertEqual((again.request.correlation_id, again.attempt), (redriven.correlation_id, 1))
        self.assertEqual(again.request.submission.payload, b'"hopeless"')
        self.assertEqual(again.request.submission.metadata, {"own": 1, "redriven_from": accepted.correlation_id})
        self.assertEqual(await self.status(accepted.correlation_id), Status.FAILED)
        for unknown in (number, number + 1, 0, -1, 2**70):
            await self.refused(self.bench.queue.redrive(unknown), UnknownRequest)

    async def test_redriven_into_its_queue(self) -> None:
        """A redriven request waits in the queue in which it waited before, in its priority."""
        await self.accept(endpoint="billing", priority=Priority.LOW)
        (delivery,) = await self.do(self.bench.queue.receive(f"{REQUESTS}.billing", 1))
        await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED)))
        ((number, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
        await self.do(self.bench.queue.redrive(number))
        await self.nothing_is_delivered()
        (again,) = await self.do(self.bench.queue.receive(f"{REQUESTS}.billing", 1))
        self.assertEqual(again.request.submission.priority, Priority.LOW)

    async def test_first_ending_wins(self) -> None:
        """Of two endings the first stands; the worker with the second is told so, and it changes nothing."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertFalse(await self.do(delivery.settle(self.reply(delivery))))
        self.assertEqual(await self.status(accepted.correlation_id), Status.CANCELLED)
        self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "cancelled"])

    async def test_no_dead_letter_after_an_ending(self) -> None:
        """A request that has ended otherwise leaves no dead letter."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertFalse(await self.do(delivery.dead_letter("gave up", self.reply(delivery, status=Status.FAILED))))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])

    async def test_no_attempt_after_an_ending(self) -> None:
        """A request that has ended is not delivered again, whether its worker retries or releases it."""
        for name in ("retry", "release"):
            accepted = await self.accept()
            delivery = await self.receive_one()
            await self.do(self.bench.store.cancel(accepted.correlation_id))
            await self.do(delivery.retry(0, "no luck") if name == "retry" else delivery.release())
            await self.nothing_is_delivered()
            self.assertEqual(await self.types(accepted.correlation_id), ["pending", "processing", "cancelled"])
            self.assertEqual((await self.depth()).in_flight, 0)
