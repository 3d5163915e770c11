# -*- test-case-name: tests.queue.test_contracts -*-
"""Requests that consist of steps: chains, whose steps follow each other, and joins, which are worked on together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError

from openhqm.errors import AlreadyEnded
from openhqm.interfaces import IDelivery
from openhqm.messages import Acceptance, Child, IdempotencyClaim, Record, Status, Submission
from openhqm.testing.bench import LEASE, REQUESTS, Base

STEPS = f"{REQUESTS}.billing"
CLAIM = IdempotencyClaim("key", b"fingerprint")
PARENT = Submission(b"null", timeout=30.0)
LATER = Submission(b"4", endpoint="billing")


def step(payload: bytes, stage: int, *, joined: bool = False, **fields: Any) -> Child:
    """A step for the queue `STEPS`."""
    transform = None if stage == 1 else "{{ payload }}"
    submission = Submission(payload, endpoint="billing", transform=transform, **fields)
    return Child(submission, stage, f"billing {payload.decode()}", joined)


CHAIN = (step(b"1", 1), step(b"2", 2), step(b"3", 3))
JOIN = tuple(step(payload, 1, joined=True) for payload in (b"1", b"2", b"3"))


class Chaining(Base):
    async def stepped(
        self,
        children: Sequence[Child] = CHAIN,
        submission: Submission = PARENT,
        claim: IdempotencyClaim | None = None,
        follow_ups: Sequence[Submission] = (),
    ) -> Acceptance:
        """The acceptance of a request that consists of ``children``, whose deadline is in 30 seconds."""
        found: Acceptance = await self.do(self.bench.queue.accept(submission, claim, follow_ups, children))
        return found

    async def next_one(self) -> IDelivery:
        """The step that is delivered next."""
        return await self.receive_in_time(STEPS)

    async def none_is_next(self) -> None:
        await self.nothing_is_delivered(STEPS, 1)

    async def none_is_delivered(self) -> None:
        """The request has ended. For a worker that cannot know that, this is where it works in vain."""
        await self.none_is_next()

    def assertTold(self, told: list[str]) -> None:
        """A worker was told that its step has ended. One that cannot know is not."""
        self.assertEqual(told, ["CANCELLED"])

    async def find(self, id: str) -> Record:
        record: Record = await self.do(self.bench.store.find(id))
        return record

    async def ended(self, id: str) -> Record:
        """The record once it has ended, which may take a moment where a step and its request are not one step."""
        for _ in range(20):
            record = await self.find(id)
            if record.status.ended:
                return record
            await self.bench.pass_time(1)
        raise self.failureException(f"it has not ended: {record}")

    async def states(self, id: str) -> list[Status]:
        return [child.status for child in (await self.find(id)).children]

    async def step_ended(self, id: str) -> Status:
        for _ in range(20):
            if (status := await self.status(id)).ended:
                break
            await self.bench.pass_time(1)
        return status

    async def test_chain(self) -> None:
        """The steps are delivered one by one, each with the reply before it. The last one's is the request's, too."""
        accepted = await self.stepped()
        ids = [child.correlation_id for child in (await self.find(accepted.correlation_id)).children]
        self.assertEqual(len({accepted.correlation_id, *ids}), 4)
        before = None
        for place, payload in enumerate((b"1", b"2", b"3")):
            delivery = await self.next_one()
            await self.none_is_next()
            request = delivery.request
            self.assertEqual((request.correlation_id, delivery.attempt), (ids[place], 1))
            self.assertEqual((request.submission.payload, request.submission.parent_reply), (payload, before))
            states = [Status.COMPLETED] * place + [Status.PROCESSING] + [Status.PENDING] * (2 - place)
            record = await self.find(accepted.correlation_id)
            self.assertEqual((record.status, [each.status for each in record.children]), (Status.PROCESSING, states))
            before = self.reply(delivery, b'[ "%b" ]' % payload)
            await self.do(delivery.settle(before))
        record = await self.ended(accepted.correlation_id)
        self.assertEqual([each.status for each in record.children], [Status.COMPLETED] * 3)
        reply = record.reply
        self.assertEqual(
            (reply and reply.correlation_id, record.status, reply and reply.result),
            (accepted.correlation_id, Status.COMPLETED, b'[ "3" ]'),
        )
        await self.none_is_next()
        self.assertEqual([await self.status(id) for id in ids], [Status.COMPLETED] * 3)

    async def test_chain_events(self) -> None:
        """The events of the request say which step begins, is repeated and ends, before the one ending."""
        accepted = await self.stepped(CHAIN[:2])
        id = accepted.correlation_id
        first, second = [child.correlation_id for child in (await self.find(id)).children]
        await self.do((await self.next_one()).retry(0, "no luck"))
        for _ in range(2):
            delivery = await self.next_one()
            await self.do(delivery.settle(self.reply(delivery)))
        await self.ended(id)
        events = await self.do(self.bench.store.history(id, 0))
        self.assertEqual([event.number for event in events], list(range(1, len(events) + 1)))
        found = [(each.type, each.detail.get("step"), each.detail.get("step_status")) for each in events]
        steps = [
            ("pending", None, None),
            ("processing", 1, None),
            ("retrying", 1, None),
            ("processing", 1, None),
            ("progress", 1, "COMPLETED"),
            ("processing", 2, None),
            ("progress", 2, "COMPLETED"),
            ("completed", None, None),
        ]
        self.assertEqual(found, steps)
        told = {(each.detail["step"], each.detail["step_id"]) for each in events if "step" in each.detail}
        self.assertEqual(told, {(1, first), (2, second)})
        self.assertEqual({each.detail["steps"] for each in events if "step" in each.detail}, {2})

    async def test_watched_chain(self) -> None:
        """A listener to the request is told of its steps."""
        accepted = await self.stepped(CHAIN[:1])
        heard: list[str] = []
        stop = self.bench.store.watch(accepted.correlation_id, lambda event: heard.append(event.type))
        self.addCleanup(stop)
        await self.bench.pass_time(1)
        delivery = await self.next_one()
        await self.do(delivery.settle(self.reply(delivery)))
        await self.ended(accepted.correlation_id)
        await self.bench.pass_time(1)
        self.assertEqual(heard, ["processing", "progress", "completed"])

    async def test_parent_is_not_delivered(self) -> None:
        """A request that consists of steps stands in no queue, and is counted in none."""
        await self.stepped()
        waiting = self.bench.queue.receive(REQUESTS, 1)
        await self.bench.pass_time(1)
        self.assertNoResult(waiting)
        waiting.cancel()
        await self.refused(waiting, CancelledError)
        self.assertEqual((await self.depth()).ready, 0)
        for _ in range(20):  # a broker that has confirmed a message may count it a moment later
            if (await self.depth(STEPS)).ready:
                break
            await self.bench.pass_time(0.5)
        self.assertEqual((await self.depth(STEPS)).ready, 1)

    async def test_join(self) -> None:
        """The steps of a join are delivered together; their results are a list in their order, whichever ends first."""
        accepted = await self.stepped(JOIN)
        deliveries = [await self.next_one() for _ in JOIN]
        self.assertEqual({each.request.submission.payload for each in deliveries}, {b"1", b"2", b"3"})
        for delivery in reversed(deliveries):
            self.assertFalse((await self.find(accepted.correlation_id)).status.ended)
            await self.do(delivery.settle(self.reply(delivery, b'{"of":  %b}' % delivery.request.submission.payload)))
        record = await self.ended(accepted.correlation_id)
        self.assertEqual(record.status, Status.COMPLETED)
        self.assertEqual(record.reply and record.reply.result, b'[{"of":  1},{"of":  2},{"of":  3}]')

    async def test_join_keeps_big_numbers(self) -> None:
        """The results in the list are byte for byte what the steps have answered; no answer is null."""
        accepted = await self.stepped(JOIN)
        results = {b"1": b"12345678901234567890.10", b"2": None, b"3": '"\\u00e9 ü"'.encode()}
        for _ in JOIN:
            delivery = await self.next_one()
            reply = self.reply(delivery)
            result = results[delivery.request.submission.payload]
            await self.do(delivery.settle(msgspec.structs.replace(reply, result=result)))
        record = await self.ended(accepted.correlation_id)
        self.assertEqual(
            record.reply and record.reply.result, b"[12345678901234567890.10,null," + '"\\u00e9 ü"]'.encode()
        )

    async def test_join_of_one(self) -> None:
        """A join of one step results in a list, too."""
        accepted = await self.stepped(JOIN[:1])
        delivery = await self.next_one()
        await self.do(delivery.settle(self.reply(delivery, b"7")))
        record = await self.ended(accepted.correlation_id)
        self.assertEqual(record.reply and record.reply.result, b"[7]")

    async def test_join_within_chain(self) -> None:
        """Behind a join the next step has the list of its results."""
        children = (step(b"1", 1), *(step(each, 2, joined=True) for each in (b"2", b"3")), step(b"4", 3))
        accepted = await self.stepped(children)
        first = await self.next_one()
        await self.do(first.settle(self.reply(first, b"11")))
        both = [await self.next_one() for _ in range(2)]
        for delivery in both:
            before = delivery.request.submission.parent_reply
            self.assertEqual(before and before.result, b"11")
            await self.do(delivery.settle(self.reply(delivery, b"1" + delivery.request.submission.payload)))
        last = await self.next_one()
        before = last.request.submission.parent_reply
        self.assertEqual(before and before.result, b"[12,13]")
        await self.do(last.settle(self.reply(last, b"14")))
        record = await self.ended(accepted.correlation_id)
        self.assertEqual(record.reply and record.reply.result, b"14")

    async def test_failure_names_its_step(self) -> None:
        """The first step that fails ends the request like it, and says which it was; no later one begins."""
        accepted = await self.stepped()
        first = await self.next_one()
        await self.do(first.settle(self.reply(first)))
        second = await self.next_one()
        failed = msgspec.structs.replace(self.reply(second, status=Status.FAILED), error="no stock", status_code=502)
        await self.do(second.dead_letter("rejected", failed))
        record = await self.ended(accepted.correlation_id)
        id = second.request.correlation_id
        reply = record.reply
        self.assertEqual((record.status, reply and reply.status_code), (Status.FAILED, 502))
        self.assertEqual(reply and reply.error, f"step 2 of 3 (billing 2, {id}): no stock")
        await self.none_is_delivered()
        last = record.children[2].correlation_id
        self.assertEqual(await self.step_ended(last), Status.CANCELLED)
        self.assertEqual(
            await self.states(accepted.correlation_id), [Status.COMPLETED, Status.FAILED, Status.CANCELLED]
        )
        ((_, letter),) = await self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual(letter.request.correlation_id, id)

    async def test_failure_in_join(self) -> None:
        """Where one step of a join fails, the others end with it: the workers that are at them are told."""
        accepted = await self.stepped(JOIN)
        first, second = await self.next_one(), await self.next_one()
        told: list[str] = []
        first.revoked.addCallback(told.append)
        await self.do(second.settle(self.reply(second, status=Status.FAILED)))
        self.assertEqual((await self.ended(accepted.correlation_id)).status, Status.FAILED)
        await self.bench.pass_time(1)
        await self.step_ended(first.request.correlation_id)
        self.assertTold(told)
        await self.none_is_delivered()
        self.assertCountEqual(
            await self.states(accepted.correlation_id), [Status.CANCELLED, Status.FAILED, Status.CANCELLED]
        )

    async def test_cancelled_chain(self) -> None:
        """Cancelling the request ends all its steps, also the one that is worked on."""
        accepted = await self.stepped()
        delivery = await self.next_one()
        told: list[str] = []
        delivery.revoked.addCallback(told.append)
        await self.do(self.bench.store.cancel(accepted.correlation_id))
        children = (await self.find(accepted.correlation_id)).children
        self.assertEqual([await self.step_ended(each.correlation_id) for each in children], [Status.CANCELLED] * 3)
        await self.bench.pass_time(1)
        self.assertTold(told)
        await self.none_is_delivered()
        self.assertEqual((await self.find(accepted.correlation_id)).status, Status.CANCELLED)
        await self.refused(self.bench.store.cancel(accepted.correlation_id), AlreadyEnded)

    async def test_cancelled_step(self) -> None:
        """Cancelling a step that has not begun ends the request, which says which step it was."""
        accepted = await self.stepped()
        children = (await self.find(accepted.correlation_id)).children
        await self.do(self.bench.store.cancel(children[1].correlation_id))
        record = await self.ended(accepted.correlation_id)
        self.assertEqual(record.status, Status.CANCELLED)
        self.assertIn(
            f"step 2 of 3 (billing 2, {children[1].correlation_id})", str(record.reply and record.reply.error)
        )
        self.assertEqual([await self.step_ended(each.correlation_id) for each in children], [Status.CANCELLED] * 3)
        await self.none_is_delivered()

    async def test_deadline_of_chain(self) -> None:
        """The deadline of the request ends it and all its steps."""
        accepted = await self.stepped()
        first = await self.next_one()
        await self.do(first.settle(self.reply(first)))
        await self.bench.pass_time(35)
        self.assertEqual((await self.ended(accepted.correlation_id)).status, Status.TIMEOUT)
        for child in (await self.find(accepted.correlation_id)).children[1:]:
            self.assertTrue((await self.step_ended(child.correlation_id)).ended)
        await self.none_is_delivered()

    async def test_deadline_bounds_steps(self) -> None:
        """Each step has what is left of the request's time; one that has less by itself keeps that."""
        children = (step(b"1", 1), step(b"2", 2), step(b"3", 3, timeout=5.0))
        accepted = await self.stepped(children)
        deadline = (await self.find(accepted.correlation_id)).submitted_at + 30
        left = []
        for _ in children:
            delivery = await self.next_one()
            left.append((delivery.request.deadline or 0) - deadline)
            await self.bench.pass_time(3)
            await self.do(delivery.settle(self.reply(delivery)))
        self.assertLess(max(map(abs, left[:2])), 0.5)
        self.assertLess(left[2], -5)

    async def test_steps_outlive_their_replies(self) -> None:
        """A join has the results also of steps that ended so long ago that their own replies are gone."""
        accepted = await self.stepped(JOIN[:2], msgspec.structs.replace(PARENT, timeout=None))
        first, second = await self.next_one(), await self.next_one()
        await self.do(first.settle(self.reply(first, b"1" + first.request.submission.payload)))
        for _ in range(12):
            second.extend()
            await self.bench.pass_time(LEASE - 5)
        await self.do(second.settle(self.reply(second, b"1" + second.request.submission.payload)))
        record = await self.ended(accepted.correlation_id)
        self.assertEqual(record.reply and record.reply.result, b"[11,12]")
        self.assertEqual([each.status for each in record.children], [Status.COMPLETED] * 2)

    async def test_repeated_chain(self) -> None:
        """A submission that is repeated under its key has no second steps."""
        first = await self.stepped(claim=CLAIM)
        again = await self.stepped(claim=CLAIM)
        self.assertEqual((again.correlation_id, again.replayed), (first.correlation_id, True))
        delivery = await self.next_one()
        await self.none_is_next()
        await self.do(delivery.settle(self.reply(delivery)))
        await self.next_one()
        await self.none_is_next()

    async def test_chain_with_follow_up(self) -> None:
        """What follows the request up has the request's reply, once it has ended."""
        accepted = await self.stepped(CHAIN[:2], follow_ups=[LATER])
        for _ in range(2):
            delivery = await self.next_one()
            await self.none_is_next()
            await self.do(delivery.settle(self.reply(delivery)))
        delivery = await self.next_one()
        self.assertEqual(delivery.request.correlation_id, accepted.follow_ups[0])
        record = await self.find(accepted.correlation_id)
        self.assertEqual(delivery.request.submission.parent_reply, record.reply)

    async def test_chain_not_before(self) -> None:
        """The first step waits for the time of the request."""
        submission = msgspec.structs.replace(PARENT, not_before=self.bench.now() + 10)
        accepted = await self.stepped(submission=submission)
        await self.bench.pass_time(5)
        await self.none_is_next()
        await self.bench.pass_time(5)
        delivery = await self.next_one()
        self.assertEqual(delivery.request.submission.payload, b"1")
        self.assertEqual(
            await self.states(accepted.correlation_id), [Status.PROCESSING, Status.PENDING, Status.PENDING]
        )

    async def test_tenant_of_chain(self) -> None:
        """A request and its steps belong to its tenant."""
        of_tenant = [msgspec.structs.replace(each.submission, tenant="a") for each in CHAIN]
        children = [msgspec.structs.replace(each, submission=mine) for each, mine in zip(CHAIN, of_tenant, strict=True)]
        accepted = await self.stepped(children, msgspec.structs.replace(PARENT, tenant="a"))
        record = await self.find(accepted.correlation_id)
        self.assertEqual(record.tenant, "a")
        for child in record.children:
            self.assertEqual((await self.find(child.correlation_id)).tenant, "a")
