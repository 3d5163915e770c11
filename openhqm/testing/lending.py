# -*- test-case-name: tests.queue.test_contracts -*-
"""Lending: what is accepted is lent, in order, to one at a time."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from openhqm.interfaces import IDelivery, IMessageQueue, IResultStore
from openhqm.messages import (
    IdempotencyClaim,
    Priority,
    Request,
    Status,
    Submission,
)
from openhqm.testing.bench import REQUESTS, Base


class Lending(Base):
    async def test_interfaces(self) -> None:
        """What is made provides what it says."""
        verifyObject(IMessageQueue, self.bench.queue)
        verifyObject(IResultStore, self.bench.store)
        await self.accept()
        verifyObject(IDelivery, await self.one())

    async def test_intact(self) -> None:
        """What was submitted is lent as it came, down to the byte."""
        payload = b'{"z": 1e400, "a": 12345678901234567890123,  "k": "\\u00e4 \xc3\xa4"}'
        metadata = {"own": [1, {"deep": None}], "priority": "high"}
        accepted = await self.accept(payload, headers={"X-A": "b"}, metadata=metadata, priority=Priority.HIGH)
        delivery = await self.one()
        self.assertEqual(
            delivery.request,
            Request(
                accepted.correlation_id,
                accepted.submitted_at,
                Submission(payload, {"X-A": "b"}, metadata, Priority.HIGH),
            ),
        )
        self.assertEqual(delivery.attempt, 1)

    async def test_oldest_first(self) -> None:
        """Within one priority, the oldest is lent first."""
        accepted = [await self.accept() for _ in range(5)]
        lent = [(await self.one()).request.correlation_id for _ in range(5)]
        self.assertEqual(lent, [each.correlation_id for each in accepted])

    async def test_priority(self) -> None:
        """High is lent before normal, and normal before low, whenever they came."""
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.LOW, Priority.HIGH):
            await self.accept(priority=priority)
        lent = [delivery.request.submission.priority.value for delivery in await self.lent(5)]
        self.assertEqual(lent, ["high", "high", "normal", "low", "low"])

    async def test_most(self) -> None:
        """No more is lent than was asked for."""
        for _ in range(5):
            await self.accept()
        self.assertEqual(len(await self.lent(3)), 3)
        self.assertEqual(len(await self.lent(3)), 2)

    async def test_waits(self) -> None:
        """Whoever receives from an empty queue waits, and gets what comes."""
        waiting = self.bench.queue.receive(REQUESTS, 5)
        await self.bench.pass_time(1)
        self.assertNoResult(waiting)
        accepted = await self.accept()
        (delivery,) = await self.do(waiting)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)

    async def test_cancelled_receive(self) -> None:
        """Giving up waiting loses nothing and counts no attempt, at whatever moment it comes."""
        waiting = self.bench.queue.receive(REQUESTS, 5)
        await self.bench.pass_time(1)
        accepting = self.bench.queue.accept(Submission(b"1"), None)
        waiting.cancel()  # the lending may be on its way already, or done
        try:
            for delivery in await self.do(waiting):
                await self.do(delivery.release())
        except CancelledError:
            pass  # it came in time
        accepted = await self.do(accepting)
        delivery = await self.one()
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 1))

    async def test_accepted_in_silence(self) -> None:
        """Who gives up waiting for the acceptance has submitted all the same."""
        accepting = self.bench.queue.accept(Submission(b'"quiet"'), None)
        accepting.addErrback(lambda failure: None)
        accepting.cancel()
        await self.bench.pass_time(0.01)
        self.assertEqual((await self.one()).request.submission.payload, b'"quiet"')

    async def test_not_twice(self) -> None:
        """What is on loan is lent to nobody else."""
        await self.accept()
        await self.one()
        await self.nothing_is_lent()

    async def test_delay(self) -> None:
        """What is not to begin before its time is not lent before it, and in its priority after."""
        await self.accept(not_before=self.bench.now() + 30, priority=Priority.HIGH)
        await self.nothing_is_lent()
        await self.bench.pass_time(31)
        await self.accept()
        self.assertEqual((await self.one()).request.submission.priority, Priority.HIGH)

    async def test_endpoints(self) -> None:
        """A request for an endpoint waits in that endpoint's own queue, and holds up no other."""
        accepted = await self.accept(endpoint="billing")
        await self.nothing_is_lent()
        (delivery,) = await self.do(self.bench.queue.receive(f"{REQUESTS}.billing", 5))
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
        self.assertEqual(delivery.request.submission.endpoint, "billing")
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))
        self.assertEqual(await self.status(accepted.correlation_id), Status.COMPLETED)

    async def test_endpoint_revoked(self) -> None:
        """Whoever works on a request for an endpoint learns that it was cancelled."""
        accepted = await self.accept(endpoint="billing")
        (delivery,) = await self.do(self.bench.queue.receive(f"{REQUESTS}.billing", 5))
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertEqual(await self.do(delivery.revoked), "CANCELLED")

    async def test_in_order(self) -> None:
        """In order: the next is lent once the one before has ended, whatever its priority and its retries."""
        first = await self.accept(partition=3, priority=Priority.LOW)
        second = await self.accept(partition=3, priority=Priority.HIGH)
        third = await self.accept(partition=3)
        elsewhere = await self.accept(partition=4)
        (delivery,) = await self.in_order(3)
        self.assertEqual(delivery.request.correlation_id, first.correlation_id)
        (other,) = await self.in_order(4)
        self.assertEqual(other.request.correlation_id, elsewhere.correlation_id)
        waiting = self.in_order(3)
        await self.bench.pass_time(1)
        self.assertNoResult(waiting)
        await self.do(delivery.retry(10, "no luck"))
        await self.bench.pass_time(5)
        self.assertNoResult(waiting)
        await self.bench.pass_time(6)
        (delivery,) = await self.do(waiting)
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (first.correlation_id, 2))
        waiting = self.in_order(3)
        await self.bench.pass_time(1)
        await self.do(delivery.settle(self.reply(delivery)))
        (delivery,) = await self.do(waiting)
        self.assertEqual(delivery.request.correlation_id, second.correlation_id)
        await self.do(delivery.release())
        (delivery,) = await self.in_order(3)
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (second.correlation_id, 1))
        await self.do(delivery.settle(self.reply(delivery)))
        (delivery,) = await self.in_order(3)
        self.assertEqual(delivery.request.correlation_id, third.correlation_id)

    async def test_in_order_behind_a_cancelled_one(self) -> None:
        """In order: one that waits for its retry and is cancelled holds nobody up any more."""
        first = await self.accept(partition=3)
        second = await self.accept(partition=3)
        (delivery,) = await self.in_order(3)
        await self.do(delivery.retry(1000, "no luck"))
        waiting = self.in_order(3)
        await self.bench.pass_time(1)
        self.assertNoResult(waiting)
        await self.do(self.bench.store.cancel(first.correlation_id))
        (delivery,) = await self.do(waiting)
        self.assertEqual(delivery.request.correlation_id, second.correlation_id)

    def in_order(self, partition: int) -> Deferred[Sequence[IDelivery]]:
        return self.bench.done(self.bench.queue.receive(f"{REQUESTS}._{partition}", 5, in_order=True))

    async def test_other_queue(self) -> None:
        """A message published to another queue is lent from there, and gone once it is acknowledged."""
        message = Request("11111111-1111-4111-8111-111111111111", self.bench.now(), Submission(b'"x"'))
        await self.do(self.bench.queue.publish("other", message, priority=Priority.NORMAL, delay=0))
        await self.nothing_is_lent()
        (delivery,) = await self.do(self.bench.queue.receive("other", 1))
        self.assertEqual(delivery.request, message)
        await self.do(delivery.ack())
        depth = await self.depth("other")
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (0, 0, 0))

    async def test_queues(self) -> None:
        """Every queue that a request was accepted into is named."""
        await self.accept()
        await self.accept(endpoint="billing")
        await self.accept(endpoint="billing", partition=3)
        names = await self.do(self.bench.queue.queues())
        self.assertLessEqual({REQUESTS, f"{REQUESTS}.billing", f"{REQUESTS}.billing._3"}, set(names))

    async def test_depth_of_repeats(self) -> None:
        """A repeat under a key adds nothing to the depth."""
        for _ in range(5):
            await self.accept(claim=IdempotencyClaim("key", b"print"))
        self.assertEqual((await self.depth(REQUESTS)).ready, 1)

    async def test_depth(self) -> None:
        """The depth tells what is ready, delayed and on loan, and how old the oldest is."""
        first = await self.accept()
        await self.accept(not_before=self.bench.now() + 1000)
        await self.bench.pass_time(5)
        await self.accept()
        await self.accept()
        depth = await self.depth(REQUESTS)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (3, 1, 0))
        told = self.bench.queue.traits.tells_oldest
        self.assertEqual(depth.oldest, first.submitted_at if told else None)
        await self.one()
        depth = await self.depth(REQUESTS)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (2, 1, 1))
