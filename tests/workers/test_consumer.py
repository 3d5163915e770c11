"""A consumer takes what it has hands for, and puts down what it cannot finish."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable, RetryLater
from openhqm.messages import Status
from openhqm.policy.breaker import Breaker, BreakerPolicy, State
from openhqm.policy.pacing import Pace
from openhqm.testing import REQUESTS
from openhqm.workers.consumer import Consumer
from openhqm.workers.gate import Gate
from tests.benches import SqliteBench
from tests.workers.bench import Hand, Workshop


class Permits(SynchronousTestCase):
    def test_no_more_than_count(self) -> None:
        """No more is on loan than there are hands, and a free hand takes the next at once."""
        hand = Hand()
        shop = Workshop(hand, count=3)
        for _ in range(10):
            shop.submit()
        self.assertEqual(len(hand.works), 3)
        self.assertEqual(self.successResultOf(shop.bench.queue.depth(REQUESTS)).in_flight, 3)
        hand.answers[1].callback(None)
        shop.bench.turn()
        self.assertEqual(len(hand.works), 4)

    def test_batch(self) -> None:
        """No more is asked for in one go than a batch."""
        hand = Hand()
        shop = Workshop(hand, count=10, batch=4)
        for _ in range(10):
            shop.submit()
        self.assertEqual(len(hand.works), 10)

    def test_failing_queue(self) -> None:
        """A queue that fails is asked again; after a minute of it the process says that it is not well."""
        shop = Workshop(Hand())
        working = shop.bench.queue.receive
        shop.consumer.stop(0)
        shop.bench.turn()
        shop.bench.queue.receive = lambda queue, most, in_order=False: fail(NotDurable("gone"))
        shop.start()
        shop.pass_time(59)
        self.assertIsNone(shop.consumer.unavailable_reason)
        shop.pass_time(5)
        self.assertIn("failed", shop.consumer.unavailable_reason or "")
        shop.bench.queue.receive = working
        correlation_id = shop.submit()
        shop.pass_time(2)
        self.assertIsNone(shop.consumer.unavailable_reason)
        self.assertEqual(shop.status(correlation_id), Status.PROCESSING)

    def test_nothing_to_lend(self) -> None:
        """A queue that failed, and has had nothing to lend since, is well; failing anew, it has another minute."""
        shop = Workshop(Hand())
        working = shop.bench.queue.receive
        shop.consumer.stop(0)
        shop.bench.turn()

        def failing(queue: str, most: int, in_order: bool = False) -> Deferred[Any]:
            return fail(NotDurable("gone"))

        shop.bench.queue.receive = failing
        shop.start()
        shop.pass_time(5)
        shop.bench.queue.receive = working
        for _ in range(20):
            shop.pass_time(10)
            self.assertIsNone(shop.consumer.unavailable_reason)
        shop.bench.queue.receive = failing
        shop.submit()
        shop.pass_time(59)
        self.assertIsNone(shop.consumer.unavailable_reason)
        shop.pass_time(5)
        self.assertIn("failed", shop.consumer.unavailable_reason or "")


class Drain(SynchronousTestCase):
    def stop(self, shop: Workshop, seconds: float) -> Deferred[None]:
        stopped = shop.consumer.stop(seconds)
        shop.bench.turn()
        return stopped

    def test_idle(self) -> None:
        """A consumer with nothing in hand stops at once."""
        self.successResultOf(self.stop(Workshop(Hand()), 30))

    def test_finishes(self) -> None:
        """What is in hand is finished, and nothing new is taken."""
        hand = Hand()
        shop = Workshop(hand, count=1)
        first, second = shop.submit(), shop.submit()
        stopped = self.stop(shop, 30)
        shop.pass_time(10)
        self.assertNoResult(stopped)
        hand.answers[0].callback(1)
        shop.bench.turn()
        self.successResultOf(stopped)
        self.assertEqual((shop.status(first), shop.status(second)), (Status.COMPLETED, Status.PENDING))

    def test_gives_back(self) -> None:
        """What does not finish in time is given back, and the attempt was none."""
        hand = Hand()
        shop = Workshop(hand, bench=SqliteBench())
        self.addCleanup(shop.bench.close)
        correlation_id = shop.submit()
        stopped = self.stop(shop, 30)
        shop.pass_time(31)
        self.successResultOf(stopped)
        self.assertEqual(hand.cancelled, 1)
        shop.start()
        self.assertEqual(hand.works[1].attempt, 1)
        hand.answers[1].callback(1)
        self.assertEqual(shop.record(correlation_id).attempt, 1)

    def test_gives_back_a_thread(self) -> None:
        """A thread that does not come back holds up neither the stopping nor the request."""
        shop = Workshop(lambda work: None, in_threads=True, bench=SqliteBench())
        self.addCleanup(shop.bench.close)
        correlation_id = shop.submit()
        stopped = self.stop(shop, 5)
        shop.pass_time(8)
        self.successResultOf(stopped)
        shop.crash()
        shop.threads[1].callback("again")
        self.assertEqual(shop.record(correlation_id).reply.result, b'"again"')
        self.assertEqual(shop.record(correlation_id).attempt, 1)


class Bugs(SynchronousTestCase):
    def test_broken_attempt(self) -> None:
        """A bug of ours in an attempt is logged, frees the slot, and the lease brings the request back."""

        class Odd(Exception):
            pass

        shop = Workshop(lambda work: 1)
        attempts: Any = shop.consumer._attempts
        policy = attempts.policy
        attempts.policy = None
        correlation_id = shop.submit()
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        attempts.policy = policy
        shop.pass_time(61)
        self.assertEqual((shop.status(correlation_id), shop.consumer.in_hand), (Status.COMPLETED, 0))

    def test_broken_queue(self) -> None:
        """A bug in the queue is logged, and reported after a minute; it is asked again, and what is in hand is kept."""

        def broken(queue: str, most: int, in_order: bool = False) -> Any:
            raise ValueError("no such queue")

        hand = Hand()
        shop = Workshop(hand, count=1)
        working = shop.bench.queue.receive
        first = shop.submit()
        shop.bench.queue.receive = broken
        second = shop.submit()
        hand.answers[0].callback(1)
        shop.pass_time(65)
        self.assertGreater(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertIn("failed", shop.consumer.unavailable_reason or "")
        shop.bench.queue.receive = working
        shop.pass_time(2)
        self.assertEqual((shop.status(first), shop.status(second)), (Status.COMPLETED, Status.PROCESSING))
        self.assertIsNone(shop.consumer.unavailable_reason)

    def test_broken_queue_at_the_end(self) -> None:
        """Stopping finishes what is in hand although the queue is broken."""
        hand = Hand()
        shop = Workshop(hand, count=3)
        shop.bench.queue.receive = lambda queue, most, in_order=False: fail(ValueError("no such queue"))
        first, second = shop.submit(), shop.submit()
        shop.pass_time(5)
        stopped = shop.consumer.stop(30)
        shop.pass_time(5)
        hand.answers[0].callback(1)
        shop.bench.turn()
        self.successResultOf(stopped)
        self.assertEqual((shop.status(first), shop.status(second)), (Status.COMPLETED, Status.PENDING))
        self.flushLoggedErrors(ValueError)


class Gated(SynchronousTestCase):
    """A consumer before a gate: what waits for a target waits in the queue."""

    def shop(self, hand: Hand, **settings: Any) -> tuple[Workshop, Gate]:
        shop = Workshop(hand, count=4)
        stopped = shop.consumer.stop(0)
        shop.bench.turn()
        self.successResultOf(stopped)
        policy = BreakerPolicy(minimum_calls=2, window_seconds=10, open_seconds=30)
        gate = Gate(shop.bench.clock, Breaker(policy), limit=4, **settings)
        attempts = attrs.evolve(shop.consumer._attempts, gate=gate)
        shop.consumer = Consumer(shop.bench.queue, REQUESTS, attempts, shop.bench.clock, count=4, batch=10)
        shop.consumer.start()
        shop.bench.turn()
        return shop, gate

    def test_open(self) -> None:
        """While the breaker is open nothing is taken and no attempt is burnt; one goes first, then all the others."""
        hand = Hand()
        shop, gate = self.shop(hand)
        for _ in range(2):
            shop.submit()
        for answer in list(hand.answers):
            answer.errback(RetryLater(1000))
        shop.bench.turn()
        self.assertIs(gate.state, State.OPEN)
        waiting = [shop.submit() for _ in range(6)]
        shop.pass_time(29)
        self.assertEqual(len(hand.works), 2)
        self.assertEqual(self.successResultOf(shop.bench.queue.depth(REQUESTS)).in_flight, 0)
        shop.pass_time(2)
        self.assertEqual(len(hand.works), 3)
        self.assertEqual(self.successResultOf(shop.bench.queue.depth(REQUESTS)).in_flight, 1)
        hand.answers[2].errback(RetryLater(1000))
        shop.pass_time(29)
        self.assertEqual(len(hand.works), 3)
        shop.pass_time(2)
        self.assertEqual(len(hand.works), 4)
        hand.answers[3].callback(1)
        shop.bench.turn()
        self.assertEqual(len(hand.works), 8)
        self.assertEqual({work.attempt for work in hand.works}, {1})
        for answer in hand.answers[4:]:
            answer.callback(1)
        shop.bench.turn()
        done = [shop.record(each) for each in waiting]
        self.assertEqual([(each.status, each.attempt) for each in done].count((Status.COMPLETED, 1)), 5)

    def test_turned_away(self) -> None:
        """What was taken before the breaker opened goes back, and the attempt was none."""
        hand = Hand()
        shop, _ = self.shop(hand, pace=Pace(2, 10))
        ids = [shop.submit() for _ in range(4)]
        shop.pass_time(5)
        self.assertEqual((len(hand.works), shop.consumer.in_hand), (2, 4))
        for answer in list(hand.answers):
            answer.errback(RetryLater(1000))
        shop.bench.turn()
        self.assertEqual(shop.consumer.in_hand, 0)
        shop.pass_time(31)
        hand.answers[2].callback(1)
        shop.pass_time(6)
        hand.answers[3].callback(1)
        self.assertEqual([shop.record(each).attempt for each in ids[2:]], [1, 1])

    def test_ends_before_the_gate(self) -> None:
        """A request that ends while it waits for its turn lets the others move up."""
        hand = Hand()
        shop, _ = self.shop(hand, pace=Pace(1, 10))
        ids = [shop.submit() for _ in range(3)]
        shop.bench.store.cancel(ids[1])
        shop.pass_time(11)
        self.assertEqual([work.correlation_id for work in hand.works], [ids[0], ids[2]])
        self.assertEqual((shop.status(ids[1]), shop.consumer.in_hand), (Status.CANCELLED, 2))

    def test_stops_before_the_gate(self) -> None:
        """Stopping gives back what waits there, and waits for nothing but what is under way."""
        hand = Hand()
        shop, _ = self.shop(hand, pace=Pace(1, 1000))
        ids = [shop.submit() for _ in range(2)]
        hand.answers[0].callback(1)
        shop.bench.turn()
        stopped = shop.consumer.stop(5)
        shop.pass_time(6)
        self.successResultOf(stopped)
        self.assertEqual((shop.record(ids[1]).status.ended, len(hand.works)), (False, 1))
        self.assertEqual(self.successResultOf(shop.bench.queue.depth(REQUESTS)).ready, 1)

    def test_stops_outside(self) -> None:
        """Nor does a breaker that is open hold up the stopping."""
        hand = Hand()
        shop, _ = self.shop(hand)
        for _ in range(2):
            shop.submit()
        for answer in list(hand.answers):
            answer.errback(RetryLater(1000))
        shop.bench.turn()
        stopped = shop.consumer.stop(5)
        shop.bench.turn()
        self.successResultOf(stopped)

    def test_whose_deadline(self) -> None:
        """A time-out by the target's limit speaks against it; one by the caller's own deadline says nothing."""
        for timeout, said in ((None, False), (5.0, None)):
            shop, gate = self.shop(Hand())
            shop.submit(timeout=timeout)
            shop.pass_time(51)
            self.assertEqual(gate.ended_calls, {True: 0, False: 0, None: 0, said: 1})
