"""Who waits for work: one look at a time, for whoever has waited longest, and nothing lent to nobody."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import DeliveryClosed, NotDurable
from openhqm.queue.waiters import NEVER, RETRY_SECONDS, Fetched, Waiters


class Loan:
    """All that is asked of a delivery here."""

    given_back: Deferred[None] | None = None

    def release(self) -> Deferred[None]:
        self.given_back = Deferred()
        return self.given_back


class LendingTests(SynchronousTestCase):
    """`Waiters`, over looks that end when the test says so"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.looks: list[Deferred[Fetched]] = []
        self.asked: list[tuple[int, bool]] = []
        self.lending = Waiters("a", self.clock, self.look)

    def look(self, most: int, in_order: bool) -> Deferred[Fetched]:
        self.asked.append((most, in_order))
        self.looks.append(Deferred())
        return self.looks[-1]

    def found(self, *loans: Any, more: bool = False, again: float = NEVER) -> None:
        self.looks[-1].callback(Fetched(loans, more, again))

    def test_one_after_the_other(self) -> None:
        """Whoever asked first is served first, with one look at a time."""
        first, second = self.lending.receive(5, False), self.lending.receive(1, True)
        self.assertEqual(self.asked, [(5, False)])
        loan, other = Loan(), Loan()
        self.found(loan, more=True)
        self.assertEqual(list(self.successResultOf(first)), [loan])
        self.assertEqual(self.asked, [(5, False), (1, True)])
        self.assertTrue(self.lending.in_order)
        self.found(other)
        self.assertEqual(list(self.successResultOf(second)), [other])
        self.assertFalse(self.lending.in_order)

    def test_empty(self) -> None:
        """An empty queue is not looked into again before there is a reason to: a word, or the time."""
        waiting = self.lending.receive(5, False)
        self.found(again=10.0)
        self.lending.receive(5, False)
        self.clock.advance(9)
        self.assertEqual(len(self.looks), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.looks), 2)
        self.found()
        self.lending.wake()
        self.assertEqual(len(self.looks), 3)
        self.assertNoResult(waiting)

    def test_word_during_a_look(self) -> None:
        """What is put there while a look is under way is found by another one behind it."""
        self.lending.receive(5, False)
        self.lending.wake()
        self.assertEqual(len(self.looks), 1)
        self.found()
        self.assertEqual(len(self.looks), 2)

    def test_soonest(self) -> None:
        """Of several times the soonest counts, and a later one does not put it off."""
        self.lending.receive(5, False)
        self.found(again=10.0)
        self.lending.wake_at(5.0)
        self.lending.wake_at(20.0)
        self.clock.advance(5)
        self.assertEqual(len(self.looks), 2)

    def test_given_up(self) -> None:
        """What is lent to somebody who has given up meanwhile is given back, uncounted."""
        waiting = self.lending.receive(5, False)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        loan = Loan()
        self.found(loan)
        self.assertIsNotNone(loan.given_back)

    def test_fails(self) -> None:
        """A look that fails is tried again after a while; a bug is logged besides, and ends nothing."""
        waiting = self.lending.receive(5, False)
        self.looks[-1].errback(NotDurable("away"))
        self.clock.advance(RETRY_SECONDS)
        self.looks[-1].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual(len(self.looks), 3)
        self.found(Loan())
        self.assertEqual(len(self.successResultOf(waiting)), 1)

    def test_stop(self) -> None:
        """Who waits is told, and nothing is left that would look."""
        waiting = self.lending.receive(5, False)
        self.found(again=10.0)
        self.successResultOf(self.lending.stop())
        self.failureResultOf(waiting, CancelledError)
        self.lending.wake()
        self.lending.wake_at(1.0)
        self.assertEqual((len(self.looks), self.clock.getDelayedCalls()), (1, []))

    def test_stop_during_a_look(self) -> None:
        """A stop is over once what was lent to nobody meanwhile is given back, or else cannot be."""
        for outcome in (None, NotDurable("away"), DeliveryClosed("a", "its lease was lost")):
            lending = Waiters("a", self.clock, self.look)
            waiting = lending.receive(5, False)
            stopped = lending.stop()
            self.failureResultOf(waiting, CancelledError)
            self.assertNoResult(stopped)
            first, second = Loan(), Loan()
            self.found(first, second)
            self.assertNoResult(stopped)
            assert first.given_back is not None and second.given_back is not None
            first.given_back.callback(None)
            self.assertNoResult(stopped)
            second.given_back.callback(None) if outcome is None else second.given_back.errback(outcome)
            self.successResultOf(stopped)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_before_a_look_fails(self) -> None:
        """A look that fails behind a stop ends it, too; there is no other one."""
        waiting = self.lending.receive(5, False)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        stopped = self.lending.stop()
        self.looks[-1].errback(NotDurable("away"))
        self.successResultOf(stopped)
        self.assertEqual((len(self.looks), self.clock.getDelayedCalls()), (1, []))
