"""What a backend promises beyond the contract where its queue and its store are one product: brokers prefetch."""

from __future__ import annotations

from openhqm.errors import AlreadyEnded
from openhqm.messages import Child, Status, Submission
from openhqm.policy import children as policy
from openhqm.testing.bench import Base


class SingleProduct(Base):
    async def test_released_in_any_order(self) -> None:
        """Released requests stand in their old places, whichever was released first."""
        accepted = []
        for _ in range(4):
            accepted.append((await self.accept()).correlation_id)
            await self.bench.pass_time(1)
        for order in ((0, 1, 2), (2, 0, 1)):
            deliveries = await self.receive(3)
            self.assertEqual([each.request.correlation_id for each in deliveries], accepted[:3])
            for index in order:
                await self.do(deliveries[index].release())
                await self.bench.pass_time(1)
        deliveries = await self.receive(4)
        self.assertEqual([each.request.correlation_id for each in deliveries], accepted)
        self.assertEqual([each.attempt for each in deliveries], [1, 1, 1, 1])

    async def test_join_that_results_in_too_much(self) -> None:
        """A join ends as soon as its steps have resulted in more than is kept, and none of it is read for that."""
        self.patch(policy, "MOST_KEPT_BYTES", 2000)
        steps = [Child(Submission(b"%d" % number), 1, "", joined=True) for number in range(4)]
        accepted = await self.do(self.bench.queue.accept(Submission(b"null"), None, (), steps))
        self.patch(policy, "outcome", lambda *_: self.fail("it was read"))
        ended = 0
        while not (await self.status(accepted.correlation_id)).ended:
            delivery = await self.receive_one()
            await self.do(delivery.settle(self.reply(delivery, b'"%b"' % (b"x" * 1500))))
            ended += 1
            await self.bench.pass_time(1)
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((ended, record.reply.status, record.reply.reason_class), (2, Status.FAILED, "too_large"))
        left = [each.status for each in record.children]
        self.assertEqual(left, [Status.COMPLETED, Status.COMPLETED, Status.CANCELLED, Status.CANCELLED])

    async def test_step_that_is_finished_later(self) -> None:
        """A step that its target finishes is followed by the next one, and one whose request has ended is refused."""
        steps = [Child(Submission(b"%d" % number, transform=None), number, "") for number in (1, 2, 3)]
        accepted = await self.do(self.bench.queue.accept(Submission(b"null"), None, (), steps))
        ends: list[str] = []
        for result in (b'"first"', b'"second"'):
            delivery = await self.receive_one()
            await self.do(delivery.retry(3600, "the target has not finished it"))
            ends.append(delivery.request.correlation_id)
            await self.do(self.bench.store.end(ends[-1], self.reply(delivery, result)))
            await self.bench.pass_time(1)
        last = await self.receive_one()
        before = last.request.submission.parent_reply
        assert before is not None
        self.assertEqual(before.result, b'"second"')
        await self.do(last.retry(3600, "the target has not finished it"))
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        await self.bench.pass_time(1)
        await self.refused(self.bench.store.end(last.request.correlation_id, self.reply(last)), AlreadyEnded)
