# -*- test-case-name: tests.queue.test_contracts -*-
"""The limit on age: what has waited for its first attempt for too long ends, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import DeferredList

from openhqm.messages import Acceptance, Status, Submission
from openhqm.policy.limits import Limits
from openhqm.testing.bench import REQUESTS, Base

AGE = 30.0
SLACK = 4.0
"""A store looks every second or so, and ends what is too old a portion at a time."""
IN_ORDER = f"{REQUESTS}._0"


class Aging(Base):
    async def limit_age(self, requests: int | None = None) -> None:
        """Begin with an empty queue, in which a request may wait for `AGE` seconds."""
        self.bench.limits = Limits(requests, age_seconds=AGE)
        await self.bench.crash()

    async def is_expired(self, correlation_id: str) -> None:
        record = await self.do(self.bench.store.find(correlation_id))
        self.assertEqual(record.status, Status.FAILED)
        assert record.reply is not None
        self.assertEqual((record.reply.reason_class, record.reply.attempt), ("expired", 0))
        self.assertIn("first attempt", record.reply.error or "")

    async def taken(self, submission: Submission, follow_ups: Sequence[Submission] = ()) -> Acceptance:
        found: Acceptance = await self.do(self.bench.queue.accept(submission, None, follow_ups))
        return found

    async def test_too_old(self) -> None:
        """What has waited for longer than the limit ends as FAILED, and a program can tell why; nothing else ends."""
        await self.limit_age()
        old = await self.accept()
        await self.bench.pass_time(20)
        young = await self.accept()
        self.assertEqual(await self.status(old.correlation_id), Status.PENDING)
        await self.bench.pass_time(AGE - 20 + SLACK)
        await self.is_expired(old.correlation_id)
        self.assertEqual(await self.types(old.correlation_id), ["pending", "failed"])
        self.assertEqual(await self.status(young.correlation_id), Status.PENDING)
        self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])

    async def test_too_old_in_each_queue(self) -> None:
        """Wherever a request waits, it is found."""
        await self.limit_age()
        places = ((None, None), ("billing", None), (None, 0), (None, 0), ("billing", 1))
        accepted = [await self.accept(endpoint=endpoint, partition=partition) for endpoint, partition in places]
        await self.bench.pass_time(AGE + SLACK)
        for each in accepted:
            await self.is_expired(each.correlation_id)

    async def test_begun_before_it_is_too_old(self) -> None:
        """What has begun does not end by its age: neither while it is worked on, nor while it waits for a retry."""
        await self.limit_age()
        accepted = await self.accept()
        delivery = await self.receive_one()
        await self.bench.pass_time(AGE + SLACK)
        self.assertEqual(await self.status(accepted.correlation_id), Status.PROCESSING)
        await self.do(delivery.retry(0, "no luck"))
        await self.bench.pass_time(AGE + SLACK)
        self.assertEqual(await self.status(accepted.correlation_id), Status.PROCESSING)
        delivery = await self.receive_one()
        self.assertEqual(delivery.attempt, 2)
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_too_old_and_released(self) -> None:
        """A release takes the attempt back: the request waits for its first one since it was accepted."""
        await self.limit_age()
        accepted = await self.accept()
        await self.bench.pass_time(10)
        await self.do((await self.receive_one()).release())
        await self.bench.pass_time(AGE - 10 + SLACK)
        await self.is_expired(accepted.correlation_id)

    async def test_too_old_after_a_delay(self) -> None:
        """A delay is not waiting: the age counts from its end."""
        await self.limit_age()
        accepted = await self.accept(not_before=self.bench.now() + 50)
        await self.bench.pass_time(50 + AGE - SLACK)
        self.assertEqual(await self.status(accepted.correlation_id), Status.PENDING)
        await self.bench.pass_time(2 * SLACK)
        await self.is_expired(accepted.correlation_id)

    async def test_too_old_behind_another_one(self) -> None:
        """What waits behind another request of its partition ends, and the one before it goes on."""
        await self.limit_age()
        first, second = await self.accept(partition=0), await self.accept(partition=0)
        (delivery,) = await self.do(self.bench.queue.receive(IN_ORDER, 1, in_order=True))
        await self.bench.pass_time(AGE + SLACK)
        await self.is_expired(second.correlation_id)
        self.assertEqual(delivery.request.correlation_id, first.correlation_id)
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_too_old_with_a_follow_up(self) -> None:
        """It has its follow-ups, as every ending has, and a follow-up waits since then."""
        await self.limit_age()
        parent = await self.taken(Submission(b"1"), [Submission(b"2", endpoint="billing")])
        await self.bench.pass_time(AGE + SLACK)
        await self.is_expired(parent.correlation_id)
        self.assertEqual(await self.status(parent.follow_ups[0]), Status.PENDING)
        await self.bench.pass_time(AGE + SLACK)
        await self.is_expired(parent.follow_ups[0])

    async def test_not_too_old_while_held_back(self) -> None:
        """A follow-up does not wait before its parent has ended."""
        await self.limit_age()
        parent = await self.taken(Submission(b"1"), [Submission(b"2", endpoint="billing")])
        delivery = await self.receive_one()
        await self.bench.pass_time(AGE + SLACK)
        self.assertEqual(await self.status(parent.follow_ups[0]), Status.PENDING)
        await self.do(delivery.settle(self.reply(delivery)))

    async def test_too_old_since_it_was_redriven(self) -> None:
        """A dead letter does not age, and waits since it was redriven."""
        await self.limit_age()
        await self.accept()
        delivery = await self.receive_one()
        await self.do(delivery.dead_letter("rejected", self.reply(delivery, status=Status.FAILED)))
        await self.bench.pass_time(AGE + SLACK)
        ((number, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
        redriven = await self.do(self.bench.queue.redrive(number))
        await self.bench.pass_time(AGE - SLACK)
        self.assertEqual(await self.status(redriven.correlation_id), Status.PENDING)
        await self.bench.pass_time(2 * SLACK)
        await self.is_expired(redriven.correlation_id)

    async def test_too_old_in_portions(self) -> None:
        """However many are too old, all of them end, and make room."""
        await self.limit_age(requests=250)
        asked = [self.bench.queue.accept(Submission(b"1"), None) for _ in range(250)]
        outcomes = await self.do(DeferredList(asked, consumeErrors=True))
        accepted = [found.correlation_id for success, found in outcomes if success]
        await self.bench.pass_time(AGE + SLACK)
        for each in (accepted[0], accepted[len(accepted) // 2], accepted[-1]):
            await self.is_expired(each)
        self.assertEqual((await self.do(self.bench.queue.load())).requests, 0)

    async def test_too_old_across_a_crash(self) -> None:
        """The time goes on while no process runs."""
        await self.limit_age()
        accepted = await self.accept()
        released = await self.accept()
        await self.do((await self.receive_one()).release())
        await self.bench.pass_time(20)
        await self.bench.crash()
        if self.bench.queue.traits.durable:
            await self.bench.pass_time(AGE - 20 + SLACK)
            await self.is_expired(accepted.correlation_id)
            await self.is_expired(released.correlation_id)
