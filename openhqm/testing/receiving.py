# -*- test-case-name: tests.queue.test_contracts -*-
"""Receiving: every request that was accepted is delivered, in order, to one receiver at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
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


class Receiving(Base):
    async def test_interfaces(self) -> None:
        """Queue, store and delivery provide the interfaces that they declare."""
        verifyObject(IMessageQueue, self.bench.queue)
        verifyObject(IResultStore, self.bench.store)
        await self.accept()
        verifyObject(IDelivery, await self.receive_one())

    async def test_intact(self) -> None:
        """A request is delivered as it was submitted, down to the byte."""
        payload = b'{"z": 1e400, "a": 12345678901234567890123,  "k": "\\u00e4 \xc3\xa4"}'
        metadata = {"own": [1, {"deep": None}], "priority": "high"}
        fields: dict[str, Any] = {"tenant": "acme", "tags": ("a", "\u00e4 b")}
        accepted = await self.accept(payload, headers={"X-A": "b"}, metadata=metadata, priority=Priority.HIGH, **fields)
        delivery = await self.receive_one()
        submission = Submission(payload, {"X-A": "b"}, metadata, Priority.HIGH, **fields)
        self.assertEqual(delivery.request, Request(accepted.correlation_id, accepted.submitted_at, submission))
        self.assertEqual(delivery.attempt, 1)

    async def test_oldest_first(self) -> None:
        """Within one priority, the oldest request is delivered first, where the traits say so."""
        accepted = [await self.accept() for _ in range(5)]
        received = [(await self.receive_one()).request.correlation_id for _ in range(5)]
        expected = [each.correlation_id for each in accepted]
        if not self.bench.queue.traits.ordered:
            received, expected = sorted(received), sorted(expected)
        self.assertEqual(received, expected)

    async def test_priority(self) -> None:
        """High is delivered before normal, and normal before low, in whatever order they were accepted."""
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.LOW, Priority.HIGH):
            await self.accept(priority=priority)
        received = [delivery.request.submission.priority.value for delivery in await self.receive(5)]
        self.assertEqual(received, ["high", "high", "normal", "low", "low"])

    async def test_saturated(self) -> None:
        """While more waits than can be worked on, what is high goes before what is low, however long that has waited.

        Of ten deliveries one is low, so that it does not starve.
        """
        await self.accept_many(10, Priority.LOW)
        await self.accept_many(30, Priority.HIGH)
        order: list[str] = []
        for _ in range(5):
            slots: list[IDelivery] = []
            while len(slots) < 5:
                slots += await self.receive(5 - len(slots))
            order += [each.request.submission.priority.value for each in slots]
            await self.do(gatherResults([each.settle(self.reply(each)) for each in slots]))
            await self.bench.pass_time(0.01)
        behind = order[5:]  # what a broker sends at first comes from one channel after the other
        self.assertEqual([behind[:10].count("low"), behind[10:].count("low")], [1, 1], order)

    async def accept_many(self, count: int, priority: Priority) -> None:
        one = Submission(b"1", priority=priority)
        await self.do(gatherResults([self.bench.queue.accept(one, None) for _ in range(count)]))

    async def test_most(self) -> None:
        """A receiver gets no more requests than it asked for."""
        for _ in range(5):
            await self.accept()
        self.assertEqual(len(await self.receive(3)), 3)
        self.assertEqual(len(await self.receive(3)), 2)

    async def test_waits(self) -> None:
        """A receiver of an empty queue waits, and gets the next request that is accepted."""
        waiting = self.bench.queue.receive(REQUESTS, 5)
        await self.bench.pass_time(1)
        self.assertNoResult(waiting)
        accepted = await self.accept()
        (delivery,) = await self.do(waiting)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)

    async def test_cancelled_receive(self) -> None:
        """A receiver that is cancelled loses no request and counts no attempt, at whatever moment it is cancelled."""
        waiting = self.bench.queue.receive(REQUESTS, 5)
        await self.bench.pass_time(1)
        accepting = self.bench.queue.accept(Submission(b"1"), None)
        waiting.cancel()  # the request may be on its way already, or delivered
        try:
            for delivery in await self.do(waiting):
                await self.do(delivery.release())
        except CancelledError:
            pass  # it was not
        accepted = await self.do(accepting)
        delivery = await self.receive_one()
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 1))

    async def test_cancelled_among_others(self) -> None:
        """A receiver that is cancelled does not keep a request from the next one in line."""
        first, second = (self.bench.queue.receive(REQUESTS, 5) for _ in range(2))
        await self.bench.pass_time(1)
        first.cancel()
        await self.refused(first, CancelledError)
        accepted = await self.accept()
        (delivery,) = await self.do(second)
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 1))

    async def test_cancelled_accept(self) -> None:
        """A caller that does not wait for its acceptance has submitted its request all the same."""
        accepting = self.bench.queue.accept(Submission(b'"quiet"'), None)
        accepting.addErrback(lambda failure: None)
        accepting.cancel()
        await self.bench.pass_time(0.01)
        self.assertEqual((await self.receive_one()).request.submission.payload, b'"quiet"')

    async def test_not_twice(self) -> None:
        """A request whose delivery is out is delivered to no other receiver."""
        await self.accept()
        await self.receive_one()
        await self.nothing_is_delivered()

    async def test_delay(self) -> None:
        """A request that is not to begin before its time is not delivered before it, and with its priority after."""
        await self.accept(not_before=self.bench.now() + 30, priority=Priority.HIGH)
        await self.nothing_is_delivered()
        await self.bench.pass_time(31)
        self.assertEqual((await self.receive_one()).request.submission.priority, Priority.HIGH)

    async def test_endpoints(self) -> None:
        """A request for an endpoint waits in that endpoint's own queue, and delays no other."""
        accepted = await self.accept(endpoint="billing")
        await self.nothing_is_delivered()
        (delivery,) = await self.do(self.bench.queue.receive(f"{REQUESTS}.billing", 5))
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
        self.assertEqual(delivery.request.submission.endpoint, "billing")
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))
        self.assertEqual(await self.status(accepted.correlation_id), Status.COMPLETED)

    async def test_endpoint_revoked(self) -> None:
        """The worker on a request for an endpoint is told that it was cancelled."""
        accepted = await self.accept(endpoint="billing")
        (delivery,) = await self.do(self.bench.queue.receive(f"{REQUESTS}.billing", 5))
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertEqual(await self.do(delivery.revoked), "CANCELLED")

    async def test_in_order(self) -> None:
        """In order: the next is delivered once the one before has ended, whatever its priority and its retries."""
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
        """In order: a request that waits for its retry and is cancelled blocks no other any more."""
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

    async def test_queues(self) -> None:
        """Every queue that a request was accepted into is named."""
        await self.accept()
        await self.accept(endpoint="billing")
        await self.accept(endpoint="billing", partition=3)
        names = await self.do(self.bench.queue.queues())
        self.assertLessEqual({REQUESTS, f"{REQUESTS}.billing", f"{REQUESTS}.billing._3"}, set(names))

    async def test_depth_of_repeats(self) -> None:
        """A repeat under an idempotency key adds nothing to the depth."""
        for _ in range(5):
            await self.accept(claim=IdempotencyClaim("key", b"print"))
        self.assertEqual((await self.depth(REQUESTS)).ready, 1)

    async def test_depth(self) -> None:
        """The depth counts ready, delayed and delivered requests, and tells since when the oldest waits."""
        first = await self.accept()
        await self.accept(not_before=self.bench.now() + 1000)
        await self.bench.pass_time(5)
        await self.accept()
        await self.accept()
        depth = await self.depth(REQUESTS)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (3, 1, 0))
        tells = self.bench.queue.traits.tells_oldest
        self.assertEqual(depth.oldest, first.submitted_at if tells else None)
        await self.receive_one()
        depth = await self.depth(REQUESTS)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (2, 1, 1))

    async def test_depth_of_a_partition(self) -> None:
        """Those behind another one are ready; one that is being worked on, or waits for its retry, is not."""
        queue = f"{REQUESTS}._3"
        for _ in range(3):
            await self.accept(partition=3)

        async def counts() -> tuple[int, int, int]:
            depth = await self.depth(queue)
            return depth.ready, depth.delayed, depth.in_flight

        self.assertEqual(await counts(), (3, 0, 0))
        (delivery,) = await self.in_order(3)
        self.assertEqual(await counts(), (2, 0, 1))
        await self.do(delivery.retry(1000, "no luck"))
        self.assertEqual(await counts(), (2, 1, 0))
