# -*- test-case-name: tests.queue.test_contracts -*-
"""Limits: what a full queue does, and that it knows how full it is."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.internet.defer import DeferredList

from openhqm.codec import request_size
from openhqm.errors import MessageTooLarge, QueueFull
from openhqm.messages import Acceptance, IdempotencyClaim, Load, Priority, Status, Submission
from openhqm.policy.limits import Limits
from openhqm.testing.bench import LEASE, REQUESTS, Base

CLAIM = IdempotencyClaim("key", b"fingerprint")
PLAIN = Submission(b"1")


class Limiting(Base):
    async def limit(self, requests: int | None = None, bytes: int | None = None, drop_oldest: bool = False) -> None:
        """Begin with an empty queue that has limits."""
        self.bench.limits = Limits(requests, bytes, drop_oldest)
        await self.bench.crash()

    async def full(self, claim: IdempotencyClaim | None = None) -> QueueFull:
        found: QueueFull = await self.refused(self.bench.queue.accept(PLAIN, claim), QueueFull)
        return found

    async def load(self) -> Load:
        found = await self.do(self.bench.queue.load())
        assert isinstance(found, Load)
        return found

    async def only_these_are_delivered(self, ids: set[str]) -> None:
        """For workers that cannot know what has ended, this is where they work in vain."""
        self.assertEqual({(await self.receive_one()).request.correlation_id for _ in ids}, ids)
        await self.nothing_is_delivered()

    async def test_no_limits(self) -> None:
        """Without limits the load is not counted."""
        await self.accept()
        self.assertIsNone(await self.do(self.bench.queue.load()))

    async def test_full(self) -> None:
        """A full queue refuses, and says why and when to come again; it takes a request again once one has ended."""
        await self.limit(requests=2)
        await self.accept()
        other = await self.accept()
        error = await self.full()
        self.assertIn("queue.limits.requests", error.reason)
        self.assertGreater(error.retry_after, 0)
        await self.do(self.bench.store.cancel(other.correlation_id))
        await self.accept()
        await self.full()
        delivery = await self.receive_one()
        await self.full()  # one that is worked on has not ended
        await self.do(delivery.settle(self.reply(delivery)))
        await self.accept()
        await self.full()

    async def test_every_ending_makes_room(self) -> None:
        """Whatever ends a request makes room, once; a retry, a release and a lost lease do not."""
        await self.limit(requests=1)
        await self.accept(timeout=20.0)
        await self.bench.pass_time(21)
        await self.accept()
        delivery = await self.receive_one()
        await self.do(delivery.retry(0, "no luck"))
        await self.full()
        delivery = await self.receive_one()
        await self.do(delivery.release())
        await self.full()
        await self.receive_one()
        await self.bench.pass_time(LEASE + 1)
        await self.full()
        delivery = await self.receive_one()
        await self.do(delivery.dead_letter("rejected", self.reply(delivery, status=Status.FAILED)))
        self.assertEqual(await self.load(), Load(0, 0))
        await self.accept()
        await self.full()

    async def test_bytes(self) -> None:
        """The bytes of the envelopes count; a request that does not fit is refused, and a smaller one is taken."""
        small, large = Submission(b'"' + 100 * b"x" + b'"'), Submission(b'"' + 5000 * b"x" + b'"')
        await self.limit(bytes=2 * request_size(large))
        await self.do(self.bench.queue.accept(large, None))
        await self.do(self.bench.queue.accept(small, None))
        error = await self.refused(self.bench.queue.accept(large, None), QueueFull)
        self.assertIn("queue.limits.bytes", error.reason)
        await self.do(self.bench.queue.accept(small, None))
        load = await self.load()
        self.assertEqual(load.requests, 3)
        # An envelope in Redis has no id in it.
        self.assertLess(abs(load.bytes - request_size(large) - 2 * request_size(small)), 250)

    async def test_exact_in_one_batch(self) -> None:
        """Requests that come together are counted one by one: as many are taken as there is room for."""
        await self.limit(requests=7)
        asked = DeferredList([self.bench.queue.accept(PLAIN, None) for _ in range(20)], consumeErrors=True)
        outcomes = await self.do(asked)
        self.assertEqual([success for success, _ in outcomes].count(True), 7)
        self.assertEqual({type(found.value) for success, found in outcomes if not success}, {QueueFull})
        self.assertEqual((await self.load()).requests, 7)

    async def test_repeat_of_a_full_queue(self) -> None:
        """A repeat is answered however full the queue is, and a key whose request was refused is free."""
        await self.limit(requests=1)
        accepted = await self.accept(claim=CLAIM)
        again = await self.accept(claim=CLAIM)
        self.assertEqual((again.correlation_id, again.replayed), (accepted.correlation_id, True))
        other = IdempotencyClaim("other", b"fingerprint")
        await self.full(other)
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        self.assertFalse((await self.accept(claim=other)).replayed)

    async def test_repeats_only(self) -> None:
        """A claim for repeats only finds what its key stands for; a free key accepts nothing, and stays free."""
        accepted = await self.accept(claim=CLAIM)
        again = await self.accept(claim=replace(CLAIM, repeats_only=True))
        self.assertEqual((again.correlation_id, again.replayed), (accepted.correlation_id, True))
        other = IdempotencyClaim("other", b"fingerprint")
        await self.full(replace(other, repeats_only=True))
        self.assertFalse((await self.accept(claim=other)).replayed)
        await self.receive_one()
        await self.receive_one()
        await self.nothing_is_delivered()

    async def test_waiting_requests(self) -> None:
        """A queue knows how many requests wait for their first attempt, and since when, where it tells the oldest."""
        queue = self.bench.queue
        self.assertEqual(sum(each.count for each in (await self.do(queue.waiting(REQUESTS))).values()), 0)
        since = self.bench.now()
        for priority in (Priority.HIGH, Priority.LOW, Priority.LOW):
            await self.accept(priority=priority)
            await self.bench.pass_time(1)
        await self.accept(endpoint="billing")
        backlog = await self.do(queue.waiting(REQUESTS))
        self.assertEqual(sum(each.count for each in backlog.values()), 3)
        if queue.traits.tells_oldest:
            counts = [backlog[each].count for each in Priority]
            self.assertEqual(counts, [1, 0, 2])
            times = [backlog[each].since for each in Priority]
            self.assertIsNone(times[1])
            for found, expected in ((times[0], since), (times[2], since + 1)):
                assert found is not None
                self.assertLess(abs(found - expected), 1.0)
        delivery = await self.receive_one()
        self.assertEqual(sum(each.count for each in (await self.do(queue.waiting(REQUESTS))).values()), 2)
        if queue.traits.tells_oldest:  # what waits for a retry has begun
            await self.do(delivery.retry(0, "no luck"))
            self.assertEqual((await self.do(queue.waiting(REQUESTS)))[Priority.HIGH].since, None)

    async def test_follow_ups_are_exempt(self) -> None:
        """Follow-ups are taken with their parent, and count."""
        await self.limit(requests=2)
        follow_ups = [Submission(b"2", endpoint="billing")] * 3
        await self.do(self.bench.queue.accept(PLAIN, None, follow_ups))
        self.assertEqual((await self.load()).requests, 4)
        delivery = await self.receive_one()
        await self.do(delivery.settle(self.reply(delivery)))
        self.assertEqual((await self.load()).requests, 3)
        await self.full()

    async def test_redrive_of_a_full_queue(self) -> None:
        """A dead letter can be redriven however full the queue is."""
        await self.limit(requests=1)
        await self.accept()
        delivery = await self.receive_one()
        await self.do(delivery.dead_letter("rejected", self.reply(delivery, status=Status.FAILED)))
        await self.accept()
        ((number, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
        await self.do(self.bench.queue.redrive(number))
        self.assertEqual((await self.load()).requests, 2)

    async def test_counted_across_a_crash(self) -> None:
        """What is open is known after a crash."""
        await self.limit(requests=4)
        accepted = [await self.accept() for _ in range(3)]
        await self.do(self.bench.store.cancel(accepted[0].correlation_id))
        await self.bench.crash()
        if self.bench.queue.traits.durable:
            self.assertEqual((await self.load()).requests, 2)
            await self.accept()
            await self.accept()
            await self.full()

    async def test_drop_oldest(self) -> None:
        """A full queue may end what has waited longest: FAILED, and a program can tell why."""
        await self.limit(requests=3, drop_oldest=True)
        accepted: list[Acceptance] = []
        for _ in range(6):
            await self.bench.pass_time(1)
            accepted.append(await self.accept())
        for dropped in accepted[:3]:
            record = await self.do(self.bench.store.find(dropped.correlation_id))
            assert record.reply is not None
            self.assertEqual((record.status, record.reply.reason_class), (Status.FAILED, "overflow"))
            self.assertIn("full", record.reply.error or "")
            self.assertEqual(await self.types(dropped.correlation_id), ["pending", "failed"])
        self.assertEqual((await self.load()).requests, 3)
        await self.only_these_are_delivered({each.correlation_id for each in accepted[3:]})

    async def test_drop_oldest_in_one_batch(self) -> None:
        """However many come together, each of them is taken, and as many are open as the limit says."""
        await self.limit(requests=3, drop_oldest=True)
        await self.accept()  # a broker may refuse what comes together for a channel that it has just made
        asked = DeferredList([self.bench.queue.accept(PLAIN, None) for _ in range(60)], consumeErrors=True)
        outcomes = await self.do(asked)
        self.assertEqual([found.value for success, found in outcomes if not success], [])
        accepted = [found.correlation_id for _, found in outcomes]
        statuses = [await self.status(id) for id in accepted]
        self.assertEqual((statuses.count(Status.FAILED), statuses.count(Status.PENDING)), (57, 3))
        self.assertEqual((await self.load()).requests, 3)

    async def test_work_is_not_dropped(self) -> None:
        """What is worked on is never dropped: where nothing waits, the new one is refused."""
        await self.limit(requests=2, drop_oldest=True)
        first, second = await self.accept(), await self.accept()
        deliveries = [await self.receive_one(), await self.receive_one()]
        await self.full()
        for each in (first, second):
            self.assertEqual(await self.status(each.correlation_id), Status.PROCESSING)
        for delivery in deliveries:
            self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_dropped_for_bytes(self) -> None:
        """As many are dropped as a large one needs room for."""
        small, large = Submission(b'"' + 1000 * b"x" + b'"'), Submission(b'"' + 4500 * b"x" + b'"')
        await self.limit(bytes=5 * request_size(small), drop_oldest=True)
        accepted = [await self.do(self.bench.queue.accept(small, None)) for _ in range(4)]
        await self.do(self.bench.queue.accept(large, None))
        statuses = [await self.status(each.correlation_id) for each in accepted]
        self.assertEqual(statuses, [Status.FAILED] * 4)

    async def test_never_fits(self) -> None:
        """What would not fit into an empty queue is refused as too large, and nothing is dropped for it."""
        await self.limit(bytes=2000, drop_oldest=True)
        accepted = await self.accept()
        large = Submission(b'"' + 3000 * b"x" + b'"')
        await self.refused(self.bench.queue.accept(large, None), MessageTooLarge)
        self.assertEqual(await self.status(accepted.correlation_id), Status.PENDING)

    async def test_dropped_with_a_follow_up(self) -> None:
        """A request that is dropped has its follow-ups, as with every ending."""
        await self.limit(requests=2, drop_oldest=True)
        first = await self.do(self.bench.queue.accept(PLAIN, None, [Submission(b"2", endpoint="billing")]))
        await self.accept()
        record = await self.do(self.bench.store.find(first.correlation_id))
        self.assertEqual(record.status, Status.FAILED)
        self.assertEqual(await self.types(first.follow_ups[0]), ["pending"])
