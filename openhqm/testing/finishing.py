# -*- test-case-name: tests.queue.test_contracts -*-
"""Endings and progress from outside an attempt: what a target tells that finishes a request later."""

from __future__ import annotations

from openhqm.errors import AlreadyEnded, ExpiredRequest, UnknownRequest
from openhqm.messages import Acceptance, Reply, Status, Submission
from openhqm.policy.history import MOST_DETAIL_BYTES
from openhqm.testing.bench import REQUESTS, TTL, Base

UNKNOWN = "11111111-1111-4111-8111-111111111111"


class FinishingLater(Base):
    def ending(self, accepted: Acceptance, result: bytes = b'"late"') -> Reply:
        return Reply(accepted.correlation_id, Status.COMPLETED, self.bench.now(), result, attempt=1)

    async def parked(self) -> Acceptance:
        """A request that is put back for an hour behind its first attempt."""
        accepted = await self.accept()
        await self.do((await self.receive_one()).retry(3600, "the target has not finished it"))
        return accepted

    async def test_end_while_parked(self) -> None:
        """What waits for a later attempt can be ended, and is not delivered any more."""
        accepted = await self.parked()
        await self.bench.pass_time(100)
        await self.do(self.bench.store.end(accepted.correlation_id, self.ending(accepted)))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((record.status, record.reply.result), (Status.COMPLETED, b'"late"'))
        self.assertEqual((await self.types(accepted.correlation_id))[-1], "completed")
        await self.bench.pass_time(400)
        await self.nothing_is_delivered()

    async def test_end_while_delivered(self) -> None:
        """What a worker has can be ended; the worker's own ending comes too late."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        await self.do(self.bench.store.end(accepted.correlation_id, self.ending(accepted)))
        await self.do(delivery.retry(3600, "the target has not finished it"))
        record = await self.do(self.bench.store.find(accepted.correlation_id))
        self.assertEqual((record.status, record.reply.result), (Status.COMPLETED, b'"late"'))

    async def test_end_once(self) -> None:
        """A second ending is refused, and the first stays; so is that of an unknown request, and of an expired one."""
        accepted = await self.parked()
        store = self.bench.store
        await self.do(store.end(accepted.correlation_id, self.ending(accepted)))
        error = await self.refused(store.end(accepted.correlation_id, self.ending(accepted, b"2")), AlreadyEnded)
        self.assertEqual(error.status, "COMPLETED")
        self.assertEqual((await self.do(store.find(accepted.correlation_id))).reply.result, b'"late"')
        other = await self.parked()
        await self.do(store.cancel(other.correlation_id))
        await self.refused(store.end(other.correlation_id, self.ending(other)), AlreadyEnded)
        await self.refused(store.progress(other.correlation_id, {"percent": 1}), AlreadyEnded)
        self.assertEqual(await self.status(other.correlation_id), Status.CANCELLED)
        for unknown in (UNKNOWN, "x"):
            await self.refused(store.end(unknown, self.ending(accepted)), UnknownRequest)
            await self.refused(store.progress(unknown, {"percent": 1}), UnknownRequest)
        await self.bench.pass_time(TTL + 5)
        await self.refused(store.end(accepted.correlation_id, self.ending(accepted)), ExpiredRequest)
        await self.refused(store.progress(accepted.correlation_id, {"percent": 1}), ExpiredRequest)

    async def test_end_with_follow_ups(self) -> None:
        """The follow-ups of what is ended so are due with its reply."""
        accepted = await self.do(
            self.bench.queue.accept(Submission(b"1"), None, (Submission(b'"after"', endpoint="billing"),))
        )
        await self.do((await self.receive_one()).retry(3600, "the target has not finished it"))
        waiting = self.bench.queue.receive(f"{REQUESTS}.billing", 1)
        await self.do(self.bench.store.end(accepted.correlation_id, self.ending(accepted)))
        for _ in range(8):
            if not waiting.called:
                await self.bench.pass_time(1)
        (delivery,) = await self.do(waiting)
        self.assertEqual(delivery.request.submission.parent_reply.result, b'"late"')

    async def test_progress_from_outside(self) -> None:
        """Progress is an event while a worker has the request, and while it waits; a history's limits hold."""
        accepted = await self.accept()
        delivery = await self.receive_one()
        id, store = accepted.correlation_id, self.bench.store
        await self.do(store.progress(id, {"percent": 10, "attempt": 1}))
        await self.do(delivery.retry(3600, "the target has not finished it"))
        await self.do(store.progress(id, {"percent": 20}))
        self.assertEqual(await self.types(id), ["pending", "processing", "progress", "retrying", "progress"])
        events = await self.do(store.history(id, 4))
        self.assertEqual(events[0].detail, {"percent": 20})
        self.assertEqual(await self.status(id), Status.PROCESSING)
        await self.refused(store.progress(id, {"text": "x" * MOST_DETAIL_BYTES}), ValueError)

    async def test_completion_token(self) -> None:
        """Each request has a token of its own, whatever the case of its id, and any text has one that tells nothing."""
        first, second = await self.accept(), await self.accept()
        token_of = self.bench.store.completion_token
        tokens = [token_of(id) for id in (first.correlation_id, second.correlation_id, UNKNOWN, "x", "")]
        self.assertEqual(len(set(tokens)), len(tokens))
        self.assertEqual(token_of(first.correlation_id.upper()), tokens[0])
        self.assertTrue(all(token and len(token) == 32 and token.isascii() for token in tokens))

    async def test_finish_after_crash(self) -> None:
        """What is parked stays so over a crash, and the token that its target was given is good then."""
        accepted = await self.parked()
        token = self.bench.store.completion_token(accepted.correlation_id)
        await self.bench.crash()
        if not self.bench.queue.traits.durable:
            return
        await self.nothing_is_delivered()
        self.assertEqual(self.bench.store.completion_token(accepted.correlation_id), token)
        await self.do(self.bench.store.end(accepted.correlation_id, self.ending(accepted)))
        await self.bench.crash()
        self.assertEqual(await self.status(accepted.correlation_id), Status.COMPLETED)
