"""The waiters of a queue: one fetch at a time, for the one that has waited longest, and no delivery is lost."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import LeaseLost, NotDurable
from openhqm.queue.waiters import NEVER, RETRY_SECONDS, Fetched, Waiters


class FakeDelivery:
    """All that `Waiters` uses of a delivery."""

    released: Deferred[None] | None = None

    def release(self) -> Deferred[None]:
        self.released = Deferred()
        return self.released


class WaitersTests(SynchronousTestCase):
    """`Waiters`, over fetches that end when the test says so"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.fetches: list[Deferred[Fetched]] = []
        self.asked: list[tuple[int, bool]] = []
        self.waiters = Waiters("a", self.clock, self.fetch)

    def fetch(self, most: int, in_order: bool) -> Deferred[Fetched]:
        self.asked.append((most, in_order))
        self.fetches.append(Deferred())
        return self.fetches[-1]

    def found(self, *deliveries: Any, more: bool = False, again: float = NEVER) -> None:
        self.fetches[-1].callback(Fetched(deliveries, more, again))

    def test_one_after_the_other(self) -> None:
        """The waiter that asked first is served first, with one fetch at a time."""
        first, second = self.waiters.receive(5, False), self.waiters.receive(1, True)
        self.assertEqual(self.asked, [(5, False)])
        delivery, other = FakeDelivery(), FakeDelivery()
        self.found(delivery, more=True)
        self.assertEqual(list(self.successResultOf(first)), [delivery])
        self.assertEqual(self.asked, [(5, False), (1, True)])
        self.assertTrue(self.waiters.in_order)
        self.found(other)
        self.assertEqual(list(self.successResultOf(second)), [other])
        self.assertFalse(self.waiters.in_order)

    def test_empty(self) -> None:
        """An empty queue is not fetched from again before there is a reason to: a wake, or the time."""
        waiting = self.waiters.receive(5, False)
        self.found(again=10.0)
        self.waiters.receive(5, False)
        self.clock.advance(9)
        self.assertEqual(len(self.fetches), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.fetches), 2)
        self.found()
        self.waiters.wake()
        self.assertEqual(len(self.fetches), 3)
        self.assertNoResult(waiting)

    def test_woken_during_a_fetch(self) -> None:
        """A request that is added while a fetch is under way is found by another one after it."""
        self.waiters.receive(5, False)
        self.waiters.wake()
        self.assertEqual(len(self.fetches), 1)
        self.found()
        self.assertEqual(len(self.fetches), 2)

    def test_soonest(self) -> None:
        """Of several times the soonest counts, and a later one does not put it off."""
        self.waiters.receive(5, False)
        self.found(again=10.0)
        self.waiters.wake_at(5.0)
        self.waiters.wake_at(20.0)
        self.clock.advance(5)
        self.assertEqual(len(self.fetches), 2)

    def test_cancelled(self) -> None:
        """A delivery that is fetched for a waiter that was cancelled is released."""
        waiting = self.waiters.receive(5, False)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        delivery = FakeDelivery()
        self.found(delivery)
        self.assertIsNotNone(delivery.released)

    def test_fails(self) -> None:
        """A fetch that fails is repeated after a while; a bug is logged besides, and ends nothing."""
        waiting = self.waiters.receive(5, False)
        self.fetches[-1].errback(NotDurable("away"))
        self.clock.advance(RETRY_SECONDS)
        self.fetches[-1].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual(len(self.fetches), 3)
        self.found(FakeDelivery())
        self.assertEqual(len(self.successResultOf(waiting)), 1)

    def test_stop(self) -> None:
        """A stop cancels each waiter, and leaves nothing that would fetch."""
        waiting = self.waiters.receive(5, False)
        self.found(again=10.0)
        self.successResultOf(self.waiters.stop())
        self.failureResultOf(waiting, CancelledError)
        self.waiters.wake()
        self.waiters.wake_at(1.0)
        self.assertEqual((len(self.fetches), self.clock.getDelayedCalls()), (1, []))

    def test_stop_during_a_fetch(self) -> None:
        """A stop is over once every delivery that a fetch still brings is released, or cannot be."""
        for outcome in (None, NotDurable("away"), LeaseLost("a")):
            waiters = Waiters("a", self.clock, self.fetch)
            waiting = waiters.receive(5, False)
            stopped = waiters.stop()
            self.failureResultOf(waiting, CancelledError)
            self.assertNoResult(stopped)
            first, second = FakeDelivery(), FakeDelivery()
            self.found(first, second)
            self.assertNoResult(stopped)
            assert first.released is not None and second.released is not None
            first.released.callback(None)
            self.assertNoResult(stopped)
            second.released.callback(None) if outcome is None else second.released.errback(outcome)
            self.successResultOf(stopped)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_before_a_fetch_fails(self) -> None:
        """A fetch that fails after the stop ends it, too; no other one follows."""
        waiting = self.waiters.receive(5, False)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        stopped = self.waiters.stop()
        self.fetches[-1].errback(NotDurable("away"))
        self.successResultOf(stopped)
        self.assertEqual((len(self.fetches), self.clock.getDelayedCalls()), (1, []))
