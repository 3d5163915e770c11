"""Loans from the embedded file whose settling does not go as it should."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Reply, Status, Submission
from openhqm.policy.queue_names import MOST_WORKED_QUEUES, queue_name
from openhqm.queue.orphans import MOST_ORPHANS
from openhqm.testing import LEASE, REQUESTS
from tests.benches import SqliteBench


class Many(SynchronousTestCase):
    def test_as_many_as_may_be_configured(self) -> None:
        """All queues that a configuration may have can be worked on, beside those that nobody works on any more."""
        bench = SqliteBench()
        self.addCleanup(bench.close)
        for number in range(MOST_ORPHANS):
            self.successResultOf(bench.queue.depth(queue_name(REQUESTS, f"gone{number}")))
        last = MOST_WORKED_QUEUES - 2  # beside partition 0, and what is in none
        for partition in (None, *range(last)):
            self.assertNoResult(bench.queue.receive(queue_name(REQUESTS, None, partition), 1))
        lent = bench.queue.receive(queue_name(REQUESTS, None, last), 1)
        bench.queue.accept(Submission(b"1", partition=last), None)
        bench.turn()
        self.assertEqual(len(self.successResultOf(lent)), 1)


class Settling(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = SqliteBench()
        self.addCleanup(self.bench.close)
        self.bench.queue.accept(Submission(b"1"), None)
        self.loan = self.lent()

    def lent(self) -> Any:
        found: list[Any] = []
        self.bench.queue.receive(REQUESTS, 1).addCallback(found.extend)
        self.bench.turn()
        return found[0]

    def reply(self) -> Reply:
        return Reply(self.loan.request.correlation_id, Status.COMPLETED, self.bench.now(), result=b"1")

    def test_cannot_be_written(self) -> None:
        """A reply that cannot be written leaves the loan as it was: it can be settled, or else it is lent anew."""
        unwritable = evolve(self.reply(), body="a text")  # type: ignore[arg-type]
        settled = self.loan.settle(unwritable)
        self.bench.turn()
        self.failureResultOf(settled, TypeError)
        again = self.loan.settle(self.reply())
        self.bench.turn()
        self.assertTrue(self.successResultOf(again))

    def test_is_lent_anew(self) -> None:
        """Where nobody settles it better, its lease ends like any other."""
        settled = self.loan.settle(evolve(self.reply(), body="a text"))  # type: ignore[arg-type]
        self.bench.turn()
        self.failureResultOf(settled, TypeError)
        self.bench.pass_time(LEASE + 2)
        self.assertEqual(self.lent().attempt, 2)

    def test_slow_disk(self) -> None:
        """A lease that ends while the settling waits for the disk is looked at now and then, not all the time."""
        self.bench.stall = "after"
        self.loan.settle(self.reply())
        self.bench.pass_time(LEASE - 1)
        looks = []
        look = self.bench.queue._places[REQUESTS]._check_leases

        def counted() -> None:
            looks.append(1)
            if len(looks) > 100:
                raise AssertionError("it looks without a pause")
            look()

        self.bench.queue._places[REQUESTS]._check_leases = counted
        for call in self.bench.clock.getDelayedCalls():
            if call.func == look:
                call.func = counted
        self.bench.pass_time(10)
        self.assertTrue(0 < len(looks) <= 11, looks)


class Stopping(SynchronousTestCase):
    def test_while_it_is_lent(self) -> None:
        """Who is stopped in the moment in which a request is lent gives it back: at once, and uncounted."""
        bench = SqliteBench()
        self.addCleanup(bench.close)
        bench.queue.accept(Submission(b"1"), None)
        bench.turn()
        waiting = bench.queue.receive(REQUESTS, 1)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        bench.store.stop()
        stopped = bench.queue.stop()
        bench.turn()
        self.successResultOf(stopped)
        self.assertEqual(bench.clock.getDelayedCalls(), [])
        bench.open()
        waiting = bench.queue.receive(REQUESTS, 1)
        bench.turn()
        (delivery,) = self.successResultOf(waiting)
        self.assertEqual(delivery.attempt, 1)
