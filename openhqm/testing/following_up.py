# -*- test-case-name: tests.queue.test_contracts -*-
"""Follow-ups: a request that is held back until another one has ended, from whatever cause."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from openhqm.errors import AlreadyEnded
from openhqm.interfaces import IDelivery
from openhqm.messages import Acceptance, IdempotencyClaim, Priority, Status, Submission
from openhqm.testing.bench import REQUESTS, TTL, Base

FOLLOW_UPS = f"{REQUESTS}.billing"
CLAIM = IdempotencyClaim("key", b"fingerprint")
LATER = Submission(b'{"then":  1}', metadata={"a": 1}, endpoint="billing")


class FollowingUp(Base):
    async def followed(self, *follow_ups: Submission, claim: IdempotencyClaim | None = None) -> Acceptance:
        """The acceptance of a request with follow-ups, whose deadline is in 30 seconds."""
        submission = Submission(b"1", timeout=30.0)
        found: Acceptance = await self.do(self.bench.queue.accept(submission, claim, follow_ups))
        return found

    async def follow_up(self) -> IDelivery:
        return await self.receive_in_time(FOLLOW_UPS)

    async def no_follow_up(self) -> None:
        await self.nothing_is_delivered(FOLLOW_UPS)

    async def no_second_follow_up(self) -> None:
        """For a worker that cannot know what has ended, this is where it works in vain."""
        await self.no_follow_up()

    # The endings. Each is a promise of its own; a deadline is kept by the process that has the store.

    async def _settled(self, id: str) -> None:
        delivery = await self.receive_one()
        await self.do(delivery.settle(self.reply(delivery)))

    async def _failed(self, id: str) -> None:
        delivery = await self.receive_one()
        await self.do(delivery.settle(self.reply(delivery, status=Status.FAILED)))

    async def _dead_letter(self, id: str) -> None:
        delivery = await self.receive_one()
        await self.do(delivery.dead_letter("rejected", self.reply(delivery, status=Status.FAILED)))

    async def _retried(self, id: str) -> None:
        await self.do((await self.receive_one()).retry(0, "no luck"))
        await self._settled(id)

    async def _late(self, id: str) -> None:
        await self.bench.pass_time(31)

    async def _late_running(self, id: str) -> None:
        await self.receive_one()
        await self.bench.pass_time(31)

    async def _cancelled(self, id: str) -> None:
        await self.do(self.bench.store.cancel(id))

    async def _cancelled_running(self, id: str) -> None:
        await self.receive_one()
        await self.do(self.bench.store.cancel(id))

    async def ends(
        self,
        end: Callable[[str], Awaitable[None]],
        status: Status,
        crash_before: bool = False,
        crash_after: bool = False,
    ) -> None:
        """However the parent ends, and whatever crashes: there is one follow-up, and it has the reply."""
        accepted = await self.followed(LATER)
        (id,) = accepted.follow_ups
        await self.no_follow_up()
        self.assertEqual(await self.status(id), Status.PENDING)
        if crash_before:
            await self.bench.crash()
        await end(accepted.correlation_id)
        if crash_after:
            await self.bench.crash()
        delivery = await self.follow_up()
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (id, 1))
        submission, reply = delivery.request.submission, delivery.request.submission.parent_reply
        self.assertEqual((submission.payload, dict(submission.metadata)), (LATER.payload, {"a": 1}))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((reply, reply and reply.status), (record.reply, status))
        await self.do(delivery.settle(self.reply(delivery)))
        await self.bench.pass_time(1)
        await self.no_second_follow_up()
        self.assertEqual(await self.types(id), ["pending", "processing", "completed"])

    async def test_follow_up_of_a_plain_request(self) -> None:
        """A request without follow-ups has none."""
        self.assertEqual((await self.accept()).follow_ups, ())

    async def test_follow_up_repeated(self) -> None:
        """A submission that is repeated under its key has no second follow-up."""
        first = await self.followed(LATER, claim=CLAIM)
        again = await self.followed(LATER, claim=CLAIM)
        self.assertEqual((again.correlation_id, again.replayed), (first.correlation_id, True))
        await self._settled(first.correlation_id)
        self.assertEqual((await self.follow_up()).request.correlation_id, first.follow_ups[0])
        await self.no_follow_up()

    async def test_several_follow_ups(self) -> None:
        """Each of several follow-ups is delivered once; its priority holds as for any request."""
        low = Submission(b"2", endpoint="billing", priority=Priority.LOW)
        high = Submission(b"3", endpoint="billing", priority=Priority.HIGH)
        accepted = await self.followed(low, high)
        await self._settled(accepted.correlation_id)
        await self.bench.pass_time(1)
        found = [(await self.follow_up()).request for _ in range(2)]
        self.assertEqual({each.correlation_id for each in found}, set(accepted.follow_ups))
        self.assertEqual({each.submission.payload for each in found}, {b"2", b"3"})
        await self.no_follow_up()

    async def test_follow_up_cancelled(self) -> None:
        """A follow-up that is cancelled while it is held back is never delivered; the others are."""
        accepted = await self.followed(LATER, LATER)
        first, second = accepted.follow_ups
        before = await self.do(self.bench.store.cancel(first))
        self.assertEqual(before.status, Status.PENDING)
        await self._settled(accepted.correlation_id)
        self.assertEqual((await self.follow_up()).request.correlation_id, second)
        await self.no_follow_up()
        await self.refused(self.bench.store.cancel(first), AlreadyEnded)

    async def test_follow_up_deadline(self) -> None:
        """The deadline of a follow-up counts from the ending of its parent on."""
        accepted = await self.followed(Submission(b"2", endpoint="billing", timeout=40.0))
        await self.bench.pass_time(20)
        await self._settled(accepted.correlation_id)
        await self.bench.pass_time(35)
        self.assertEqual(await self.status(accepted.follow_ups[0]), Status.PENDING)
        await self.bench.pass_time(10)
        self.assertEqual(await self.status(accepted.follow_ups[0]), Status.TIMEOUT)
        await self.no_follow_up()

    async def test_follow_up_outlives_its_parent(self) -> None:
        """A follow-up that waits for longer than its parent's answer is kept still has the reply."""
        accepted = await self.followed(LATER)
        await self._settled(accepted.correlation_id)
        await self.bench.pass_time(TTL + 20)
        reply = (await self.follow_up()).request.submission.parent_reply
        self.assertEqual((reply and reply.status, reply and reply.result), (Status.COMPLETED, b"2"))

    async def test_follow_up_is_not_counted(self) -> None:
        """A follow-up that is held back is not ready, not delayed and not in flight."""
        accepted = await self.followed(LATER)
        depth = await self.depth(FOLLOW_UPS)
        self.assertEqual((depth.ready, depth.delayed, depth.in_flight), (0, 0, 0))
        await self._settled(accepted.correlation_id)
        await self.bench.pass_time(1)
        self.assertEqual((await self.depth(FOLLOW_UPS)).ready, 1)

    async def test_follow_up_redriven(self) -> None:
        """A follow-up that became a dead letter has the parent's reply when it is redriven, too."""
        accepted = await self.followed(LATER)
        await self._settled(accepted.correlation_id)
        delivery = await self.follow_up()
        reply = delivery.request.submission.parent_reply
        self.assertIsNotNone(reply)
        await self.do(delivery.dead_letter("refused", self.reply(delivery, status=Status.FAILED)))
        ((number, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
        await self.do(self.bench.queue.redrive(number))
        self.assertEqual((await self.follow_up()).request.submission.parent_reply, reply)


_ENDINGS: tuple[tuple[str, Callable[[FollowingUp, str], Awaitable[None]], Status], ...] = (
    ("settled", FollowingUp._settled, Status.COMPLETED),
    ("failed", FollowingUp._failed, Status.FAILED),
    ("dead_letter", FollowingUp._dead_letter, Status.FAILED),
    ("retried", FollowingUp._retried, Status.COMPLETED),
    ("deadline_waiting", FollowingUp._late, Status.TIMEOUT),
    ("deadline_processing", FollowingUp._late_running, Status.TIMEOUT),
    ("cancelled_waiting", FollowingUp._cancelled, Status.CANCELLED),
    ("cancelled_processing", FollowingUp._cancelled_running, Status.CANCELLED),
)


def _add_tests() -> None:
    """A test for each ending, and for a crash of the process before it and after it."""
    for name, end, status in _ENDINGS:
        for suffix, crashes in (
            ("", {}),
            ("_crash_before", {"crash_before": True}),
            ("_crash_after", {"crash_after": True}),
        ):

            async def test(
                self: FollowingUp,
                end: Callable[[FollowingUp, str], Awaitable[None]] = end,
                status: Status = status,
                crashes: dict[str, bool] = crashes,
            ) -> None:
                if crashes and not self.bench.queue.traits.durable:
                    return  # `Crashing` shows that nothing is left of it
                await self.ends(lambda id: end(self, id), status, **crashes)

            test.__doc__ = f"A follow-up is delivered once its parent has ended: {name}{suffix}.".replace("_", " ")
            test.__name__ = f"test_follow_up_{name}{suffix}"
            setattr(FollowingUp, test.__name__, test)


_add_tests()
