"""Long polling: a caller is woken by the ending, and never waits longer than asked."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.long_polling import LongPolls
from openhqm.errors import NotDurable, UnknownRequest
from openhqm.messages import Record, Status
from tests.workers.bench import ManualHandler, WorkerBench


class LongPollsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.handler = ManualHandler()
        self.bench = WorkerBench(self.handler)
        self.polls = LongPolls(self.bench.backend.store, self.bench.backend.clock)

    def test_woken(self) -> None:
        """The ending wakes the caller at once; other events do not."""
        waiting = self.polls.wait_for_ending(self.bench.submit(), 30)
        self.bench.pass_time(5)
        self.assertNoResult(waiting)
        self.handler.works[0].progress(percent=1)
        self.bench.backend.turn()
        self.assertNoResult(waiting)
        self.handler.answers[0].callback("x")
        self.bench.backend.turn()
        self.assertEqual(self.successResultOf(waiting).status, Status.COMPLETED)

    def test_ended_before(self) -> None:
        """A caller does not wait for a request that has ended."""
        correlation_id = self.bench.submit()
        self.handler.answers[0].callback("x")
        self.bench.backend.turn()
        self.assertEqual(self.successResultOf(self.polls.wait_for_ending(correlation_id, 30)).status, Status.COMPLETED)

    def test_time_over(self) -> None:
        """After its time, the caller gets the record as it is."""
        waiting = self.polls.wait_for_ending(self.bench.submit(), 30)
        self.bench.pass_time(31)
        self.assertEqual(self.successResultOf(waiting).status, Status.PROCESSING)

    def test_until_none(self) -> None:
        """Waiting until no caller waits ends with the last one's wait, or after its time; at once where none does."""
        self.successResultOf(self.polls.wait_until_none(30))
        first = self.polls.wait_for_ending(self.bench.submit(), 30)
        self.polls.wait_for_ending(self.bench.submit(), 40)
        late, last = self.polls.wait_until_none(20), self.polls.wait_until_none(60)
        self.bench.pass_time(15)
        self.handler.answers[0].callback("x")
        self.bench.backend.turn()
        self.successResultOf(first)
        self.assertNoResult(late)
        self.bench.pass_time(6)
        self.successResultOf(late)
        self.assertNoResult(last)
        self.bench.pass_time(20)
        self.successResultOf(last)

    def test_unknown(self) -> None:
        """A caller does not wait for an unknown id."""
        self.failureResultOf(self.polls.wait_for_ending("unknown", 30), UnknownRequest)

    def test_cancelled(self) -> None:
        """A cancelled wait leaves no watcher."""
        waiting = self.polls.wait_for_ending(self.bench.submit(), 30)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertFalse(self.bench.backend.store._watchers)
        self.polls.stop()

    def test_stop(self) -> None:
        """Stopping ends all waits with the records as they are."""
        waiting = self.polls.wait_for_ending(self.bench.submit(), 30)
        self.polls.stop()
        self.assertEqual(self.successResultOf(waiting).status, Status.PROCESSING)
        # A caller on a connection that is still open does not wait any more.
        self.assertEqual(
            self.successResultOf(self.polls.wait_for_ending(self.bench.submit(), 30)).status, Status.PROCESSING
        )

    def test_stop_during_look_up(self) -> None:
        """A wait that was woken, and whose record is being looked up, does not disturb stopping."""
        looking: Deferred[Record] = Deferred()
        store = self.bench.backend.store
        waiting = self.polls.wait_for_ending(self.bench.submit(), 30)
        self.patch(store, "find", lambda correlation_id: looking)
        self.handler.answers[0].callback("x")
        self.bench.backend.turn()
        self.polls.stop()
        self.assertNoResult(waiting)
        looking.errback(NotDurable("the store is closed"))
        self.failureResultOf(waiting, NotDurable)
