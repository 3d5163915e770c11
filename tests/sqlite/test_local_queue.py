"""A queue in the embedded file whose disk, or whose process, does not go on as it should."""

from __future__ import annotations

from typing import Any

import apsw
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Reply, Status, Submission
from openhqm.policy.queue_names import MOST_WORKED_QUEUES, queue_name
from openhqm.queue.orphans import MOST_ORPHANS
from openhqm.testing import LEASE, REQUESTS
from tests.benches import SqliteBench


class ManyQueuesTests(SynchronousTestCase):
    """As many queues as a configuration may have"""

    def test_as_many_as_may_be_configured(self) -> None:
        """All queues that a configuration may have can be worked on, beside those that have lost their workers."""
        bench = SqliteBench()
        self.addCleanup(bench.close)
        for number in range(MOST_ORPHANS):
            self.successResultOf(bench.queue.depth(queue_name(REQUESTS, f"gone{number}")))
        last = MOST_WORKED_QUEUES - 2  # beside partition 0, and what is in none
        for partition in (None, *range(last)):
            self.assertNoResult(bench.queue.receive(queue_name(REQUESTS, None, partition), 1))
        receiving = bench.queue.receive(queue_name(REQUESTS, None, last), 1)
        bench.queue.accept(Submission(b"1", partition=last), None)
        bench.turn()
        self.assertEqual(len(self.successResultOf(receiving)), 1)


class DiskTests(SynchronousTestCase):
    """A delivery from the embedded file, when the disk refuses what is to be written"""

    def setUp(self) -> None:
        self.bench = SqliteBench()
        self.addCleanup(self.bench.close)
        self.bench.queue.accept(Submission(b"1"), None)
        (self.delivery,) = self.received()

    def received(self) -> list[Any]:
        """What is delivered at once."""
        found: list[Any] = []
        receiving = self.bench.queue.receive(REQUESTS, 1).addCallback(found.extend)
        self.bench.turn()
        receiving.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        return found

    def reply(self) -> Reply:
        return Reply(self.delivery.request.correlation_id, Status.COMPLETED, self.bench.now(), result=b"1")

    def test_cannot_be_written(self) -> None:
        """A reply that cannot be written leaves the delivery open: another one settles it."""
        settled = self.delivery.settle(replace(self.reply(), body="a text"))  # type: ignore[arg-type]
        self.bench.turn()
        self.failureResultOf(settled, TypeError)
        again = self.delivery.settle(self.reply())
        self.bench.turn()
        self.assertTrue(self.successResultOf(again))

    def test_lost_afterwards(self) -> None:
        """Where no other reply settles it, its lease ends like any other."""
        settled = self.delivery.settle(replace(self.reply(), body="a text"))  # type: ignore[arg-type]
        self.bench.turn()
        self.failureResultOf(settled, TypeError)
        self.bench.pass_time(LEASE + 2)
        (again,) = self.received()
        self.assertEqual(again.attempt, 2)

    def fill_the_disk(self) -> None:
        self.bench.run_commit = lambda commit: fail(apsw.FullError("the disk is full"))  # type: ignore[method-assign]

    def test_lost_while_the_disk_is_full(self) -> None:
        """A lost lease that the disk does not take is tried again until it does: the request is delivered then."""
        run_commit = self.bench.run_commit
        self.fill_the_disk()
        self.bench.pass_time(LEASE + 5)
        self.assertEqual(self.successResultOf(self.delivery.revoked), "lease lost")
        self.bench.run_commit = run_commit  # type: ignore[method-assign]
        self.bench.pass_time(2)
        (again,) = self.received()
        self.assertEqual(again.attempt, 2)

    def test_stopped_while_the_disk_is_full(self) -> None:
        """A queue that was stopped leaves nothing in the reactor, whatever the disk refused before."""
        self.fill_the_disk()
        self.bench.pass_time(LEASE + 5)
        self.bench.store.stop()
        stopped = self.bench.queue.stop()
        self.bench.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])
        self.bench.open()


class StoppingTests(SynchronousTestCase):
    """A stop of the queue"""

    def test_while_it_fetches(self) -> None:
        """A queue that is stopped while it fetches a request releases it: at once, and uncounted."""
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


class FetchTests(SynchronousTestCase):
    """What one fetch finds"""

    def setUp(self) -> None:
        self.bench = SqliteBench()
        self.addCleanup(self.bench.close)

    def test_histories(self) -> None:
        """Each request has its own history, also what came before its first attempt, and who watches it is told."""
        ids = []
        for number in range(4):
            accepted = self.bench.queue.accept(Submission(b"%d" % number), None)
            self.bench.turn()
            ids.append(self.successResultOf(accepted).correlation_id)
        self.bench.store.progress(ids[1], {"percent": 1})
        self.bench.store.cancel(ids[2])
        self.bench.turn()
        heard: list[tuple[str, int, str, object]] = []
        for id in ids:
            self.bench.store.watch(id, lambda event, id=id: heard.append((id, event.number, event.type, event.detail)))
        fetched = self.bench.queue.receive(REQUESTS, 4)
        self.bench.turn()
        deliveries = self.successResultOf(fetched)
        self.assertEqual([each.request.correlation_id for each in deliveries], [ids[0], ids[1], ids[3]])
        first = {"attempt": 1}
        self.assertEqual(
            heard,
            [(ids[0], 2, "processing", first), (ids[1], 3, "processing", first), (ids[3], 2, "processing", first)],
        )
        for number, id in enumerate(ids):
            events = self.successResultOf(self.bench.store.history(id, 0))
            self.assertEqual([each.number for each in events], list(range(1, len(events) + 1)))
            expected = [["processing"], ["progress", "processing"], ["cancelled"], ["processing"]][number]
            self.assertEqual([each.type for each in events], ["pending", *expected])
