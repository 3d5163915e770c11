"""A consumer takes what it has hands for, and puts down what it cannot finish."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.messages import Status
from openhqm.testing import REQUESTS
from tests.benches import SqliteBench
from tests.workshop import Hand, Workshop


class Permits(SynchronousTestCase):
    def test_no_more_than_count(self) -> None:
        """No more is on loan than there are hands, and a free hand takes the next at once."""
        hand = Hand()
        shop = Workshop(hand, count=3)
        for _ in range(10):
            shop.submit()
        self.assertEqual(len(hand.works), 3)
        self.assertEqual(shop.bench.queue.depth(REQUESTS).in_flight, 3)
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
        shop.bench.queue.receive = lambda queue, most, in_order: fail(NotDurable("gone"))
        shop.start()
        shop.pass_time(59)
        self.assertIsNone(shop.consumer.trouble)
        shop.pass_time(5)
        self.assertIn("failed", shop.consumer.trouble or "")
        shop.bench.queue.receive = working
        correlation_id = shop.submit()
        shop.pass_time(2)
        self.assertIsNone(shop.consumer.trouble)
        self.assertEqual(shop.status(correlation_id), Status.PROCESSING)


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
