# -*- test-case-name: tests.queue.test_contracts -*-
"""Coalesce keys: of requests with the same key that have not begun, the newest is worked on."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from openhqm.messages import Acceptance, Coalescing, IdempotencyClaim, Reply, Status, Submission
from openhqm.testing.bench import REQUESTS, Base


class CoalescingRequests(Base):
    async def coalesced(
        self,
        payload: bytes = b"1",
        key: str = "key",
        *,
        scope: str = "",
        claim: IdempotencyClaim | None = None,
        follow_ups: tuple[Submission, ...] = (),
    ) -> Acceptance:
        """The acceptance of a request that begins 10 seconds later, and 25 after the first one, at the latest."""
        submission = Submission(payload, coalescing=Coalescing(key, 10.0, 25.0, scope))
        found: Acceptance = await self.do(self.bench.queue.accept(submission, claim, follow_ups))
        return found

    async def assert_superseded(self, earlier: Acceptance, by: Acceptance) -> None:
        reply: Reply = (await self.do(self.bench.store.find(earlier.correlation_id))).reply
        self.assertEqual((reply.status, reply.reason_class), (Status.CANCELLED, "superseded"))
        self.assertEqual((reply.correlation_id, reply.superseded_by), (earlier.correlation_id, by.correlation_id))
        self.assertEqual(await self.types(earlier.correlation_id), ["pending", "cancelled"])

    async def test_coalesce(self) -> None:
        """The newest is worked on, once; each earlier one ends as CANCELLED, and names the one that took its place."""
        first, second = await self.coalesced(b"1"), await self.coalesced(b"2")
        third = await self.coalesced(b"3")
        await self.assert_superseded(first, second)
        await self.assert_superseded(second, third)
        self.assertEqual(await self.status(third.correlation_id), Status.PENDING)
        await self.bench.pass_time(11)
        delivery = await self.receive_one()
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (third.correlation_id, 1))
        self.assertEqual(delivery.request.submission.payload, b"3")
        await self.nothing_is_delivered()
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))
        self.assertEqual(await self.status(third.correlation_id), Status.COMPLETED)
        await self.assert_superseded(first, second)

    async def test_coalesce_window(self) -> None:
        """It begins once the window behind the newest is over, and not before."""
        await self.coalesced()
        await self.bench.pass_time(8)
        newest = await self.coalesced()
        await self.bench.pass_time(8)
        await self.nothing_is_delivered()
        await self.bench.pass_time(3)
        self.assertEqual((await self.receive_one()).request.correlation_id, newest.correlation_id)

    async def test_coalesce_most_wait(self) -> None:
        """However often a newer one comes, one begins once the most wait behind the first is over."""
        for seconds in (9, 9, 6):
            newest = await self.coalesced()
            await self.bench.pass_time(seconds)
        await self.nothing_is_delivered()
        await self.bench.pass_time(2)
        self.assertEqual((await self.receive_one()).request.correlation_id, newest.correlation_id)

    async def test_coalesce_most_wait_without_workers(self) -> None:
        """What was not begun by the end of the most wait has its place for good: else none would ever be worked on."""
        first = await self.coalesced()
        await self.bench.pass_time(26)
        second = await self.coalesced()
        self.assertEqual((await self.receive_one()).request.correlation_id, first.correlation_id)
        await self.bench.pass_time(11)
        self.assertEqual((await self.receive_one()).request.correlation_id, second.correlation_id)

    async def test_coalesce_begun(self) -> None:
        """What has begun is not superseded, nor while it waits for its next attempt: both are worked on."""
        first = await self.coalesced()
        await self.bench.pass_time(11)
        delivery = await self.receive_one()
        second = await self.coalesced()
        await self.do(delivery.retry(1, "no luck"))
        third = await self.coalesced()
        await self.assert_superseded(second, third)
        await self.bench.pass_time(2)
        again = await self.receive_one()
        self.assertEqual((again.request.correlation_id, again.attempt), (first.correlation_id, 2))
        await self.do(again.settle(self.reply(again)))
        await self.bench.pass_time(10)
        last = await self.receive_one()
        self.assertEqual(last.request.correlation_id, third.correlation_id)
        await self.do(last.settle(self.reply(last)))
        self.assertEqual(await self.status(first.correlation_id), Status.COMPLETED)

    async def test_coalesce_ended(self) -> None:
        """What has ended is not superseded, and its place is that of a first one."""
        first = await self.coalesced()
        await self.do(self.bench.store.cancel(first.correlation_id))
        await self.coalesced()
        reply = (await self.do(self.bench.store.find(first.correlation_id))).reply
        self.assertIsNone(reply.superseded_by)
        self.assertEqual(await self.types(first.correlation_id), ["pending", "cancelled"])

    async def test_coalesce_keys(self) -> None:
        """Requests of other keys, of other scopes and of no key have nothing to do with it."""
        plain = await self.accept()
        ids = {(await self.coalesced(key=key, scope=scope)).correlation_id for key in "ab" for scope in "cd"}
        self.assertEqual((await self.receive_one()).request.correlation_id, plain.correlation_id)
        await self.bench.pass_time(11)
        found = [(await self.receive_one()).request.correlation_id for _ in ids]
        self.assertEqual(set(found), ids)

    async def test_coalesce_repeat(self) -> None:
        """A repeat under an idempotency key takes no place, and gets the id that it had, also once that has ended."""
        claim = IdempotencyClaim("key", b"print")
        first = await self.coalesced(claim=claim)
        second = await self.coalesced()
        again = await self.coalesced(claim=claim)
        self.assertEqual((again.correlation_id, again.replayed), (first.correlation_id, True))
        await self.bench.pass_time(11)
        self.assertEqual((await self.receive_one()).request.correlation_id, second.correlation_id)

    async def test_coalesce_at_once(self) -> None:
        """Of a hundred at the same time one is worked on, and 99 end as CANCELLED."""
        submission = Submission(b"1", coalescing=Coalescing("key", 10.0, 25.0))
        accepted = await self.do(gatherResults([self.bench.queue.accept(submission, None) for _ in range(100)]))
        ids = {each.correlation_id for each in accepted}
        self.assertEqual(len(ids), 100)
        await self.bench.pass_time(11)
        delivery = await self.receive_one()
        await self.nothing_is_delivered()
        others = ids - {delivery.request.correlation_id}
        self.assertEqual({await self.status(id) for id in others}, {Status.CANCELLED})

    async def test_coalesce_follow_ups(self) -> None:
        """The follow-ups of a superseded request are due with its reply; those of the newest are not."""
        follow_up = Submission(b'"after"', endpoint="billing")
        first = await self.coalesced(follow_ups=(follow_up,))
        second = await self.coalesced(follow_ups=(follow_up,))
        waiting = self.bench.queue.receive(f"{REQUESTS}.billing", 2)
        for _ in range(8):
            if not waiting.called:
                await self.bench.pass_time(1)
        (delivery,) = await self.do(waiting)
        reply = delivery.request.submission.parent_reply
        self.assertEqual((reply.correlation_id, reply.superseded_by), (first.correlation_id, second.correlation_id))

    async def test_coalesce_crash(self) -> None:
        """Places, endings and times survive a crash."""
        first, second = await self.coalesced(), await self.coalesced()
        await self.bench.crash()
        if not self.bench.queue.traits.durable:
            return
        await self.assert_superseded(first, second)
        third = await self.coalesced()
        await self.assert_superseded(second, third)
        await self.nothing_is_delivered()
        await self.bench.pass_time(11)
        self.assertEqual((await self.receive_one()).request.correlation_id, third.correlation_id)
        await self.nothing_is_delivered()
