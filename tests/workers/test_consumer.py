"""Consumers: they receive as many requests as they have free slots, and release those that they cannot finish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable, RetryLater
from openhqm.messages import Status
from openhqm.policy.breaker import Breaker, BreakerPolicy, State
from openhqm.policy.fair_shares import Name, Share
from openhqm.policy.pacing import Pace
from openhqm.testing import REQUESTS
from openhqm.workers.consumer import Consumer
from openhqm.workers.gate import Gate
from tests.benches import SqliteBench
from tests.workers.bench import ManualHandler, WorkerBench


class ReceivingTests(SynchronousTestCase):
    def test_no_more_than_count(self) -> None:
        """No more requests are in flight than there are slots, and a free slot receives the next at once."""
        handler = ManualHandler()
        bench = WorkerBench(handler, count=3)
        for _ in range(10):
            bench.submit()
        self.assertEqual(len(handler.works), 3)
        self.assertEqual(self.successResultOf(bench.backend.queue.depth(REQUESTS)).in_flight, 3)
        handler.answers[1].callback(None)
        bench.backend.turn()
        self.assertEqual(len(handler.works), 4)

    def test_batch(self) -> None:
        """One receive asks for at most a batch."""
        handler = ManualHandler()
        bench = WorkerBench(handler, count=10, batch=4)
        for _ in range(10):
            bench.submit()
        self.assertEqual(len(handler.works), 10)

    def test_freed_together(self) -> None:
        """Slots that become free in one turn of the reactor are filled by one receive, and by none once it stops."""
        handler = ManualHandler()
        bench = WorkerBench(handler, count=4)
        for _ in range(12):
            bench.submit()
        asked: list[int] = []
        receive = bench.backend.queue.receive
        bench.backend.queue.receive = lambda queue, most, **more: (asked.append(most), receive(queue, most, **more))[1]
        for number in (0, 1, 3):
            handler.answers[number].callback(None)
        bench.backend.turn()
        self.assertEqual((asked, len(handler.works)), ([3], 7))
        handler.answers[2].callback(None)
        bench.consumer.stop(0)
        bench.backend.turn()
        self.assertEqual((asked, len(handler.works)), ([3], 7))

    def test_failing_queue(self) -> None:
        """A failing queue is asked every second. After a minute of failures the consumer names the reason."""
        bench = WorkerBench(ManualHandler())
        working = bench.backend.queue.receive
        bench.consumer.stop(0)
        bench.backend.turn()
        bench.backend.queue.receive = lambda queue, most, in_order=False: fail(NotDurable("gone"))
        bench.start()
        bench.pass_time(59)
        self.assertIsNone(bench.consumer.unavailable_reason)
        bench.pass_time(5)
        self.assertIn("failed", bench.consumer.unavailable_reason or "")
        bench.backend.queue.receive = working
        correlation_id = bench.submit()
        bench.pass_time(2)
        self.assertIsNone(bench.consumer.unavailable_reason)
        self.assertEqual(bench.status(correlation_id), Status.PROCESSING)

    def test_no_deliveries(self) -> None:
        """A queue that failed and has no deliveries since is well. When it fails again, a new minute begins."""
        bench = WorkerBench(ManualHandler())
        working = bench.backend.queue.receive
        bench.consumer.stop(0)
        bench.backend.turn()

        def failing(queue: str, most: int, in_order: bool = False) -> Deferred[Any]:
            return fail(NotDurable("gone"))

        bench.backend.queue.receive = failing
        bench.start()
        bench.pass_time(5)
        bench.backend.queue.receive = working
        for _ in range(20):
            bench.pass_time(10)
            self.assertIsNone(bench.consumer.unavailable_reason)
        bench.backend.queue.receive = failing
        bench.submit()
        bench.pass_time(59)
        self.assertIsNone(bench.consumer.unavailable_reason)
        bench.pass_time(5)
        self.assertIn("failed", bench.consumer.unavailable_reason or "")


EQUAL = {"noisy": Share(), "quiet": Share()}


class SharingTests(SynchronousTestCase):
    """Requests of tenants that wait in shares"""

    def bench(self, shares: Mapping[Name, Share], **settings: Any) -> tuple[WorkerBench, ManualHandler]:
        handler = ManualHandler()
        return WorkerBench(handler, shares=shares, **settings), handler

    def submit(self, bench: WorkerBench, tenant: str, count: int = 1) -> list[str]:
        return [bench.submit(tenant=tenant, share=tenant) for _ in range(count)]

    def answer(self, bench: WorkerBench, handler: ManualHandler, number: int) -> None:
        handler.answers[number].callback(1)
        bench.backend.turn()

    def test_next(self) -> None:
        """One request of a tenant takes the first slot that gets free, however many of another wait."""
        bench, handler = self.bench(EQUAL, count=3)
        self.submit(bench, "noisy", 50)
        (quiet,) = self.submit(bench, "quiet")
        self.assertEqual(bench.status(quiet), Status.PENDING)
        self.answer(bench, handler, 0)
        self.assertEqual(bench.status(quiet), Status.PROCESSING)

    def test_weights(self) -> None:
        """Slots go to those that wait by their weights."""
        bench, handler = self.bench({"noisy": Share(3), "quiet": Share(1)}, count=1)
        noisy, quiet = self.submit(bench, "noisy", 40), self.submit(bench, "quiet", 40)
        for number in range(40):
            self.answer(bench, handler, number)
        done = [sum(bench.status(id) is Status.COMPLETED for id in ids) for ids in (noisy, quiet)]
        self.assertLessEqual(abs(done[0] - 30), 1, done)

    def test_reserved(self) -> None:
        """A slot that is reserved is free for its tenant at once, and is taken by no other, whatever is settled."""
        bench, handler = self.bench({"noisy": Share(), "quiet": Share(1, 0.34)}, count=3)
        self.submit(bench, "noisy", 20)
        self.assertEqual(len(handler.works), 2)
        for number in range(6):
            self.answer(bench, handler, number)
            self.assertEqual(len(handler.works), 3 + number)
        (quiet,) = self.submit(bench, "quiet")
        self.assertEqual(bench.status(quiet), Status.PROCESSING)

    def test_all_of_them(self) -> None:
        """Without anything reserved, one tenant alone has all slots; and what has no share is worked on, too."""
        bench, handler = self.bench(EQUAL, count=4)
        self.submit(bench, "noisy", 3)
        bench.submit(tenant="another")
        self.assertEqual(len(handler.works), 4)

    def test_exchanged(self) -> None:
        """Other shares count what is being worked on; what was received for those of before is not lost."""
        bench, handler = self.bench(EQUAL, count=2)
        noisy = self.submit(bench, "noisy", 5)
        context = bench.consumer._context
        bench.consumer.exchange(context, 2, {"noisy": Share(), "quiet": Share(1, 0.5)})
        bench.backend.turn()
        self.answer(bench, handler, 0)
        self.assertEqual(len(handler.works), 2, "the slot that was freed is reserved now")
        (quiet,) = self.submit(bench, "quiet")
        self.assertEqual(bench.status(quiet), Status.PROCESSING)
        bench.consumer.exchange(context, 2, EQUAL)
        bench.backend.turn()
        for number in range(1, 6):
            self.answer(bench, handler, number)
        self.assertEqual({bench.status(id) for id in (*noisy, quiet)}, {Status.COMPLETED})

    def test_adopted(self) -> None:
        """A tenant that has no share any more is served once its queue is found, also where nobody has one."""
        for shares in ({}, EQUAL):
            bench, handler = self.bench(shares)
            (left,) = self.submit(bench, "gone")
            self.assertEqual(bench.status(left), Status.PENDING)
            bench.consumer.adopt("gone")
            bench.backend.turn()
            self.assertEqual(bench.status(left), Status.PROCESSING)
            other = bench.submit()
            self.assertEqual(bench.status(other), Status.PROCESSING)
            for number in range(2):
                self.answer(bench, handler, number)


class StoppingTests(SynchronousTestCase):
    def stop(self, bench: WorkerBench, seconds: float) -> Deferred[None]:
        stopped = bench.consumer.stop(seconds)
        bench.backend.turn()
        return stopped

    def test_idle(self) -> None:
        """A consumer without attempts in progress stops at once."""
        self.successResultOf(self.stop(WorkerBench(ManualHandler()), 30))

    def test_finishes(self) -> None:
        """Attempts in progress are finished, and no other request is received."""
        handler = ManualHandler()
        bench = WorkerBench(handler, count=1)
        first, second = bench.submit(), bench.submit()
        stopped = self.stop(bench, 30)
        bench.pass_time(10)
        self.assertNoResult(stopped)
        handler.answers[0].callback(1)
        bench.backend.turn()
        self.successResultOf(stopped)
        self.assertEqual((bench.status(first), bench.status(second)), (Status.COMPLETED, Status.PENDING))

    def test_releases(self) -> None:
        """A request that is not finished in time is released, and its attempt is not counted."""
        handler = ManualHandler()
        bench = WorkerBench(handler, backend=SqliteBench())
        self.addCleanup(bench.backend.close)
        correlation_id = bench.submit()
        stopped = self.stop(bench, 30)
        bench.pass_time(31)
        self.successResultOf(stopped)
        self.assertEqual(handler.cancelled, 1)
        bench.start()
        self.assertEqual(handler.works[1].attempt, 1)
        handler.answers[1].callback(1)
        self.assertEqual(bench.record(correlation_id).attempt, 1)

    def test_releases_a_thread(self) -> None:
        """A thread that does not return delays neither the stopping nor another attempt at its request."""
        bench = WorkerBench(lambda work: None, in_threads=True, backend=SqliteBench())
        self.addCleanup(bench.backend.close)
        correlation_id = bench.submit()
        stopped = self.stop(bench, 5)
        bench.pass_time(8)
        self.successResultOf(stopped)
        bench.crash()
        bench.threads[1].callback("again")
        self.assertEqual(bench.record(correlation_id).reply.result, b'"again"')
        self.assertEqual(bench.record(correlation_id).attempt, 1)


class BugsTests(SynchronousTestCase):
    def test_broken_attempt(self) -> None:
        """A bug of which no outcome can be made is logged and frees the slot; the request is delivered again after its
        lease."""

        class Odd(Exception):
            pass

        bench = WorkerBench(lambda work: 1)
        attempts: Any = bench.consumer._context
        policy = attempts.policy
        attempts.policy = None
        correlation_id = bench.submit()
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 2)
        attempts.policy = policy
        bench.pass_time(61)
        self.assertEqual((bench.status(correlation_id), bench.consumer.in_progress), (Status.COMPLETED, 0))

    def test_broken_queue(self) -> None:
        """A bug in the queue is logged, and reported after a minute.

        The queue is asked again, and attempts in progress go on.
        """

        def broken(queue: str, most: int, in_order: bool = False) -> Any:
            raise ValueError("no such queue")

        handler = ManualHandler()
        bench = WorkerBench(handler, count=1)
        working = bench.backend.queue.receive
        first = bench.submit()
        bench.backend.queue.receive = broken
        second = bench.submit()
        handler.answers[0].callback(1)
        bench.pass_time(65)
        self.assertGreater(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertIn("failed", bench.consumer.unavailable_reason or "")
        bench.backend.queue.receive = working
        bench.pass_time(2)
        self.assertEqual((bench.status(first), bench.status(second)), (Status.COMPLETED, Status.PROCESSING))
        self.assertIsNone(bench.consumer.unavailable_reason)

    def test_broken_queue_at_the_end(self) -> None:
        """Stopping finishes the attempts in progress although the queue is broken."""
        handler = ManualHandler()
        bench = WorkerBench(handler, count=3)
        bench.backend.queue.receive = lambda queue, most, in_order=False: fail(ValueError("no such queue"))
        first, second = bench.submit(), bench.submit()
        bench.pass_time(5)
        stopped = bench.consumer.stop(30)
        bench.pass_time(5)
        handler.answers[0].callback(1)
        bench.backend.turn()
        self.successResultOf(stopped)
        self.assertEqual((bench.status(first), bench.status(second)), (Status.COMPLETED, Status.PENDING))
        self.flushLoggedErrors(ValueError)


class GateTests(SynchronousTestCase):
    """A consumer with a gate: requests for a target that cannot be called stay in the queue."""

    def bench(self, handler: ManualHandler, **settings: Any) -> tuple[WorkerBench, Gate]:
        bench = WorkerBench(handler, count=4)
        stopped = bench.consumer.stop(0)
        bench.backend.turn()
        self.successResultOf(stopped)
        policy = BreakerPolicy(minimum_calls=2, window_seconds=10, open_seconds=30)
        gate = Gate(bench.backend.clock, Breaker(policy), limit=4, **settings)
        attempts = attrs.evolve(bench.consumer._context, gate=gate)
        bench.consumer = Consumer(bench.backend.queue, REQUESTS, attempts, bench.backend.clock, count=4, batch=10)
        bench.consumer.start()
        bench.backend.turn()
        return bench, gate

    def test_open(self) -> None:
        """While the breaker is open no request is received and no attempt is counted. Then one probe goes first."""
        handler = ManualHandler()
        bench, gate = self.bench(handler)
        for _ in range(2):
            bench.submit()
        for answer in list(handler.answers):
            answer.errback(RetryLater(1000))
        bench.backend.turn()
        self.assertIs(gate.state, State.OPEN)
        waiting = [bench.submit() for _ in range(6)]
        bench.pass_time(29)
        self.assertEqual(len(handler.works), 2)
        self.assertEqual(self.successResultOf(bench.backend.queue.depth(REQUESTS)).in_flight, 0)
        bench.pass_time(2)
        self.assertEqual(len(handler.works), 3)
        self.assertEqual(self.successResultOf(bench.backend.queue.depth(REQUESTS)).in_flight, 1)
        handler.answers[2].errback(RetryLater(1000))
        bench.pass_time(29)
        self.assertEqual(len(handler.works), 3)
        bench.pass_time(2)
        self.assertEqual(len(handler.works), 4)
        handler.answers[3].callback(1)
        bench.backend.turn()
        self.assertEqual(len(handler.works), 8)
        self.assertEqual({work.attempt for work in handler.works}, {1})
        for answer in handler.answers[4:]:
            answer.callback(1)
        bench.backend.turn()
        done = [bench.record(each) for each in waiting]
        self.assertEqual([(each.status, each.attempt) for each in done].count((Status.COMPLETED, 1)), 5)

    def test_gate_closes(self) -> None:
        """A request that was received before the breaker opened is released, and its attempt is not counted."""
        handler = ManualHandler()
        bench, _ = self.bench(handler, pace=Pace(2, 10))
        ids = [bench.submit() for _ in range(4)]
        bench.pass_time(5)
        self.assertEqual((len(handler.works), bench.consumer.in_progress), (2, 4))
        for answer in list(handler.answers):
            answer.errback(RetryLater(1000))
        bench.backend.turn()
        self.assertEqual(bench.consumer.in_progress, 0)
        bench.pass_time(31)
        handler.answers[2].callback(1)
        bench.pass_time(6)
        handler.answers[3].callback(1)
        self.assertEqual([bench.record(each).attempt for each in ids[2:]], [1, 1])

    def test_cancelled_at_the_gate(self) -> None:
        """A request that is cancelled while it waits at the gate gives up its place to the next."""
        handler = ManualHandler()
        bench, _ = self.bench(handler, pace=Pace(1, 10))
        ids = [bench.submit() for _ in range(3)]
        bench.backend.store.cancel(ids[1])
        bench.pass_time(11)
        self.assertEqual([work.correlation_id for work in handler.works], [ids[0], ids[2]])
        self.assertEqual((bench.status(ids[1]), bench.consumer.in_progress), (Status.CANCELLED, 2))

    def test_stops_at_the_gate(self) -> None:
        """Stopping releases the requests that wait at the gate, and waits only for calls under way."""
        handler = ManualHandler()
        bench, _ = self.bench(handler, pace=Pace(1, 1000))
        ids = [bench.submit() for _ in range(2)]
        handler.answers[0].callback(1)
        bench.backend.turn()
        stopped = bench.consumer.stop(5)
        bench.pass_time(6)
        self.successResultOf(stopped)
        self.assertEqual((bench.record(ids[1]).status.ended, len(handler.works)), (False, 1))
        self.assertEqual(self.successResultOf(bench.backend.queue.depth(REQUESTS)).ready, 1)

    def test_stops_while_open(self) -> None:
        """An open breaker does not delay the stopping."""
        handler = ManualHandler()
        bench, _ = self.bench(handler)
        for _ in range(2):
            bench.submit()
        for answer in list(handler.answers):
            answer.errback(RetryLater(1000))
        bench.backend.turn()
        stopped = bench.consumer.stop(5)
        bench.backend.turn()
        self.successResultOf(stopped)

    def test_whose_deadline(self) -> None:
        """A time-out at the target's limit counts against the target; one at the caller's own deadline does not."""
        for timeout, said in ((None, False), (5.0, None)):
            bench, gate = self.bench(ManualHandler())
            bench.submit(timeout=timeout)
            bench.pass_time(51)
            self.assertEqual(gate.ended_calls, {True: 0, False: 0, None: 0, said: 1})
