"""Whoever waits for an ending is woken by it, and never waits longer than asked."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.waiting import Waiting
from openhqm.errors import NotDurable, UnknownRequest
from openhqm.messages import Record, Status
from tests.workers.bench import Hand, Workshop


class Wait(SynchronousTestCase):
    def setUp(self) -> None:
        self.hand = Hand()
        self.shop = Workshop(self.hand)
        self.waiting = Waiting(self.shop.bench.store, self.shop.bench.clock)

    def test_woken(self) -> None:
        """The ending wakes who waits, at once."""
        waiting = self.waiting.ending(self.shop.submit(), 30)
        self.shop.pass_time(5)
        self.assertNoResult(waiting)
        self.hand.works[0].progress(percent=1)
        self.shop.bench.turn()
        self.assertNoResult(waiting)
        self.hand.answers[0].callback("x")
        self.shop.bench.turn()
        self.assertEqual(self.successResultOf(waiting).status, Status.COMPLETED)

    def test_over(self) -> None:
        """What has ended already is not waited for."""
        correlation_id = self.shop.submit()
        self.hand.answers[0].callback("x")
        self.shop.bench.turn()
        self.assertEqual(self.successResultOf(self.waiting.ending(correlation_id, 30)).status, Status.COMPLETED)

    def test_in_vain(self) -> None:
        """After its time the record comes as it stands."""
        waiting = self.waiting.ending(self.shop.submit(), 30)
        self.shop.pass_time(31)
        self.assertEqual(self.successResultOf(waiting).status, Status.PROCESSING)

    def test_unknown(self) -> None:
        """An unknown id is not waited for."""
        self.failureResultOf(self.waiting.ending("nobody", 30), UnknownRequest)

    def test_cancelled(self) -> None:
        """Who gives up leaves nothing behind."""
        waiting = self.waiting.ending(self.shop.submit(), 30)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertFalse(self.shop.bench.store._watchers)
        self.waiting.stop()

    def test_stop(self) -> None:
        """When the process stops, all who wait are told what is known."""
        waiting = self.waiting.ending(self.shop.submit(), 30)
        self.waiting.stop()
        self.assertEqual(self.successResultOf(waiting).status, Status.PROCESSING)
        # Whoever comes on a connection that is still open is not held any more.
        self.assertEqual(self.successResultOf(self.waiting.ending(self.shop.submit(), 30)).status, Status.PROCESSING)

    def test_stop_while_it_is_looked_up(self) -> None:
        """Who was woken by the ending, and still looks it up, does not keep the process from stopping."""
        looking: Deferred[Record] = Deferred()
        store = self.shop.bench.store
        waiting = self.waiting.ending(self.shop.submit(), 30)
        self.patch(store, "find", lambda correlation_id: looking)
        self.hand.answers[0].callback("x")
        self.shop.bench.turn()
        self.waiting.stop()
        self.assertNoResult(waiting)
        looking.errback(NotDurable("the store is closed"))
        self.failureResultOf(waiting, NotDurable)
