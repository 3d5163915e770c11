"""The books in Redis, which many processes write into, and a broker beside it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from openhqm.errors import DeliveryClosed, NotDurable
from openhqm.messages import Acceptance, IdempotencyClaim, Reply, Status, Submission
from openhqm.redis.ledger import MARK_SECONDS
from openhqm.testing import LEASE, REQUESTS, backend_contract
from tests.redis.bench import BrokeredInstance, brokered_redis_bench

CLAIM = IdempotencyClaim("key", b"print")
IN_ORDER = f"{REQUESTS}._0"


class BrokeredRedisContract(backend_contract(brokered_redis_bench)):  # type: ignore[misc]
    """A broker in memory, and the books in Redis."""

    timeout = 60


del backend_contract


class Shared(TestCase):
    """Two processes on one broker and one Redis."""

    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.bench = await brokered_redis_bench(self)
        self.addCleanup(self.bench.close)
        here = self.bench.instance
        assert isinstance(here, BrokeredInstance)
        self.here = here
        self.there = self.bench.make_instance()
        self.addCleanup(self.there.stop)
        await self.there.start()

    async def do(self, deferred: Deferred[Any]) -> Any:
        try:
            return await deferred
        finally:
            await self.quiet()

    async def quiet(self) -> None:
        await self.here.quiet()
        await self.there.quiet()
        await self.here.quiet()

    async def pass_time(self, seconds: float) -> None:
        await self.bench.pass_time(seconds)
        await self.quiet()

    async def accept(self, claim: IdempotencyClaim | None = None, **fields: Any) -> Acceptance:
        accepted: Acceptance = await self.do(self.here.queue.accept(Submission(b"1", **fields), claim))
        return accepted

    async def one(self, instance: BrokeredInstance, queue: str = REQUESTS) -> Any:
        (loan,) = await self.do(instance.queue.receive(queue, 1, in_order=queue == IN_ORDER))
        return loan

    def reply(self, loan: Any) -> Reply:
        now = self.bench.now()
        return Reply(loan.request.correlation_id, Status.COMPLETED, now, result=b"1", attempt=loan.attempt)

    def left(self, queue: str = REQUESTS) -> int:
        return len(self.bench.messages.queues.get(queue, []))

    def redis(self, *words: str) -> Any:
        name, *rest = words
        return self.bench.server.command(name, self.bench.prefix + rest[0], *rest[1:])


class TwoProcesses(Shared):
    """What each of them may do while the other is at it."""

    async def test_two_copies(self) -> None:
        """Of two copies in two processes the later attempt settles; the earlier one is told that it is over."""
        accepted = await self.accept()
        self.bench.messages.duplicate(REQUESTS)
        early, late = await self.one(self.here), await self.one(self.there)
        self.assertEqual((early.attempt, late.attempt), (1, 2))
        with self.assertRaises(DeliveryClosed):
            await self.do(early.settle(self.reply(early)))
        self.assertTrue(await self.do(late.settle(self.reply(late))))
        record = await self.do(self.here.store.find(accepted.correlation_id))
        self.assertEqual((record.status, record.attempt), (Status.COMPLETED, 2))
        self.assertEqual(self.left(), 1)
        waiting = self.there.queue.receive(REQUESTS, 1)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        await self.pass_time(LEASE + 1)
        self.assertEqual(self.left(), 0)
        self.assertFalse(waiting.called)

    async def test_ended_by_a_redis_that_is_gone(self) -> None:
        """An ending that the Redis of now knows nothing of takes no message away: it is done once more."""
        accepted = await self.accept()
        loan = await self.one(self.here)
        with self.assertRaises(DeliveryClosed):
            await self.do(loan.ack())
        await self.pass_time(LEASE + 1)
        again = await self.one(self.there)
        self.assertEqual((again.request.correlation_id, again.attempt), (accepted.correlation_id, 2))
        self.assertTrue(await self.do(again.settle(self.reply(again))))

    async def test_every_way_out_is_closed(self) -> None:
        """An earlier attempt can neither report, nor retry, nor give back, nor bury."""
        await self.accept()
        for step in (
            lambda loan: loan.progress({"percent": 1}),
            lambda loan: loan.retry(1, "no luck"),
            lambda loan: loan.release(),
            lambda loan: loan.dead_letter("gave up", self.reply(loan)),
            lambda loan: loan.ack(),
        ):
            self.bench.messages.duplicate(REQUESTS)
            early, late = await self.one(self.here), await self.one(self.there)
            with self.assertRaises(DeliveryClosed):
                await self.do(step(early))
            await self.do(late.retry(0, "once more"))
            await self.pass_time(LEASE + 1)

    async def test_ended_elsewhere(self) -> None:
        """Whoever works on a request learns that another process has ended it."""
        accepted = await self.accept()
        loan = await self.one(self.there)
        await self.do(self.here.store.cancel(accepted.correlation_id))
        self.assertEqual(await self.do(loan.revoked), "CANCELLED")
        self.assertFalse(await self.do(loan.settle(self.reply(loan))))
        self.assertEqual(self.redis("ZCARD", f"q:{REQUESTS}:loans"), 0)

    async def test_ended_unheard(self) -> None:
        """An ending that was told while nobody here could hear it is asked after."""
        accepted = await self.accept()
        loan = await self.one(self.there)
        self.there.redis.listening.link.close_anew("cut by the test")
        await self.here.store.cancel(accepted.correlation_id)
        self.assertEqual(await loan.revoked, "CANCELLED")

    async def test_held_and_ended_elsewhere(self) -> None:
        """What waits for its retry in order, and is cancelled through another process, holds nobody up."""
        first = await self.accept(partition=0)
        second = await self.accept(partition=0)
        loan = await self.one(self.there, IN_ORDER)
        await self.do(loan.retry(1000, "no luck"))
        waiting = self.there.queue.receive(IN_ORDER, 1, in_order=True)
        await self.pass_time(1)
        self.assertFalse(waiting.called)
        await self.do(self.here.store.cancel(first.correlation_id))
        (loan,) = await self.do(waiting)
        self.assertEqual(loan.request.correlation_id, second.correlation_id)

    async def test_published_by_another_process(self) -> None:
        """What a process that is gone has not published, one other publishes after a while, and only one."""
        self.here.broker.mood = "stalls"
        stalled = self.here.queue.accept(Submission(b"1"), CLAIM)
        stalled.addErrback(lambda failure: failure.trap(NotDurable))
        await self.quiet()
        self.here.broker.away = True
        third = self.bench.make_instance()
        self.addCleanup(third.stop)
        await third.start()
        repeated = await self.do(self.there.queue.accept(Submission(b"1"), CLAIM))
        self.assertTrue(repeated.replayed)
        await self.pass_time(MARK_SECONDS - 10)
        self.assertEqual(self.left(), 0)
        await self.pass_time(20)
        self.assertEqual(self.left(), 1)
        self.assertEqual((await self.one(self.there)).request.correlation_id, repeated.correlation_id)
        await self.pass_time(2 * MARK_SECONDS)
        self.assertEqual((self.left(), self.redis("ZCARD", "unpublished")), (1, 0))

    async def test_not_taken_back_once_it_was_told(self) -> None:
        """An id that a repeat was told in another process is not taken back, and is published later."""
        self.here.broker.mood = "stalls"
        accepting = self.here.queue.accept(Submission(b"1"), CLAIM)
        await self.quiet()
        repeated = await self.do(self.there.queue.accept(Submission(b"1"), CLAIM))
        self.here.broker.away = True
        self.here.broker.lose_connection()
        accepted = await self.do(accepting)
        self.assertEqual(accepted.correlation_id, repeated.correlation_id)
        await self.pass_time(MARK_SECONDS + 10)
        self.assertEqual((await self.one(self.there)).request.correlation_id, accepted.correlation_id)

    async def test_taken_back(self) -> None:
        """What could not be published leaves nothing behind, and its key is free again."""
        self.here.broker.mood = "refuses"
        with self.assertRaises(NotDurable):
            await self.accept(CLAIM, timeout=100.0)
        for name in ("unpublished", "deadlines"):
            self.assertEqual(self.redis("ZCARD", name), 0)
        self.here.broker.mood = None
        self.assertFalse((await self.accept(CLAIM)).replayed)

    async def test_bodies_are_kept_once(self) -> None:
        """Redis keeps the message of what the broker has for no longer than it takes to note that it has it."""
        accepted = await self.accept()
        key = f"r:{self.here.redis.ids.number(accepted.correlation_id)}"
        self.assertEqual(self.redis("HEXISTS", key, "body"), 1)
        await self.pass_time(2)
        self.assertEqual(self.redis("HEXISTS", key, "body"), 0)

    async def test_note_that_comes_late(self) -> None:
        """That a first copy was published says nothing of the copy of a retry: its mark stays until it is."""
        await self.accept()
        loan = await self.one(self.there)
        self.there.broker.mood = "refuses"
        await self.do(loan.retry(1, "no luck"))
        self.there.broker.mood = None
        await self.pass_time(5)
        self.assertEqual((self.redis("ZCARD", "unpublished"), self.left()), (1, 0))
        await self.pass_time(MARK_SECONDS + 5)
        self.assertEqual((await self.one(self.there)).attempt, 2)
