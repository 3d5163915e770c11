# -*- test-case-name: tests.test_contracts -*-
"""Lending: what is accepted is lent, in order, to one at a time."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from openhqm.interfaces import IDelivery, IMessageQueue, IResultStore
from openhqm.messages import (
    IdempotencyClaim,
    Priority,
    Request,
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
                await self.do(delivery.give_back())
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

    async def test_other_queue(self) -> None:
        """A message published to another queue is lent from there, and gone once it is acknowledged."""
        message = Request("11111111-1111-4111-8111-111111111111", self.bench.now(), Submission(b'"x"'))
        await self.do(self.bench.queue.publish("other", message, priority=Priority.NORMAL, delay=0))
        await self.nothing_is_lent()
        (delivery,) = await self.do(self.bench.queue.receive("other", 1))
        self.assertEqual(delivery.request, message)
        await self.do(delivery.ack())
        depth = self.bench.queue.depth("other")
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (0, 0, 0))

    async def test_depth_of_repeats(self) -> None:
        """A repeat under a key adds nothing to the depth."""
        for _ in range(5):
            await self.accept(claim=IdempotencyClaim("key", b"print"))
        self.assertEqual(self.bench.queue.depth(REQUESTS).ready, 1)

    async def test_depth(self) -> None:
        """The depth tells what is ready, delayed and on loan, and how old the oldest is."""
        first = await self.accept()
        await self.accept(not_before=self.bench.now() + 1000)
        await self.bench.pass_time(5)
        await self.accept()
        await self.accept()
        depth = self.bench.queue.depth(REQUESTS)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (3, 1, 0))
        self.assertEqual(depth.oldest, first.submitted_at)
        await self.one()
        depth = self.bench.queue.depth(REQUESTS)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (2, 1, 1))
