"""`queue.accept: journaled`: a 202 needs the ledger alone, and what was accepted reaches the broker later, in order."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.brokered.outbox import MOST_AT_ONCE
from openhqm.brokered.queue import MOST_UNDER_WAY
from openhqm.messages import Acceptance, IdempotencyClaim, Reply, Status, Submission
from openhqm.sqlite.sql import fetch_all, fetch_one
from openhqm.testing import FORMS, REQUESTS, PublishResult
from tests.benches import BrokeredBench

CLAIM = IdempotencyClaim("key", b"print")
PARTITION = f"{REQUESTS}._0"


class Journaled(SynchronousTestCase):
    """A queue over a broker that goes away"""

    def setUp(self) -> None:
        self.bench = BrokeredBench(FORMS["amqp"], journaled=True)
        self.addCleanup(lambda: self.bench.close())

    def do(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(self.bench.done(deferred))

    def accepted(self, payload: bytes = b"1", claim: IdempotencyClaim | None = None, **fields: Any) -> Acceptance:
        found: Acceptance = self.do(self.bench.queue.accept(Submission(payload, **fields), claim))
        return found

    def published(self) -> list[str]:
        """The ids of the requests in the broker's usual channel, in its order."""
        return [message.body.split(b'"')[5].decode() for message in self.bench.server.messages(REQUESTS)]

    def work_off(self, queue: str = REQUESTS) -> list[tuple[str, int]]:
        """Complete everything: the id and the attempt of each delivery, in order."""
        found = []
        while True:
            waiting = self.bench.done(self.bench.queue.receive(queue, 1, in_order=queue == PARTITION))
            self.bench.pass_time(1)
            if not waiting.called:
                waiting.cancel()
                self.failureResultOf(waiting)
                return found
            (delivery,) = self.successResultOf(waiting)
            id = delivery.request.correlation_id
            found.append((id, delivery.attempt))
            self.do(delivery.settle(Reply(id, Status.COMPLETED, self.bench.now(), result=b"1", attempt=1)))


class JournaledTests(Journaled):
    """What is promised to callers"""

    def test_published(self) -> None:
        """With the broker there, a request is in it a turn after it was accepted."""
        accepted = self.accepted()
        self.assertEqual(self.published(), [accepted.correlation_id])
        self.assertEqual(self.bench.queue.warnings, ())

    def test_away(self) -> None:
        """While the broker is away, requests are accepted, and a person is told that they wait."""
        self.bench.server.go_away()
        ids = [self.accepted(b"%d" % number).correlation_id for number in range(5)]
        self.assertIsNone(self.bench.queue.unavailable_reason)
        self.assertIn("waits for the broker", " ".join(self.bench.queue.warnings))
        self.bench.pass_time(24 * 60)
        self.bench.crash()
        self.assertEqual([self.do(self.bench.store.find(id)).status for id in ids], [Status.PENDING] * 5)
        self.bench.server.come_back()
        self.bench.pass_time(6)
        self.assertEqual(self.published(), ids)
        self.assertEqual(self.work_off(), [(id, 1) for id in ids])
        self.assertEqual(self.bench.queue.warnings, ())

    def test_counted_while_away(self) -> None:
        """While the broker is away, the queue tells how many it has, and how many wait for it."""
        for number in range(2):
            self.accepted(b"%d" % number)
        self.bench.pass_time(2)
        self.bench.server.go_away()
        for number in range(5):
            self.accepted(b"%d" % number)
        depth = self.do(self.bench.queue.depth(REQUESTS))
        self.assertEqual((depth.ready, depth.delayed), (2, 5))

    def test_repeated_while_away(self) -> None:
        """A submission that is repeated while the broker is away is the same request."""
        self.bench.server.go_away()
        first, again = self.accepted(claim=CLAIM), self.accepted(claim=CLAIM)
        self.assertEqual((again.correlation_id, again.replayed), (first.correlation_id, True))
        self.bench.server.come_back()
        self.bench.pass_time(6)
        self.assertEqual(self.work_off(), [(first.correlation_id, 1)])

    def test_refused_by_the_broker(self) -> None:
        """What the broker refuses was accepted all the same, and is published once the claim on it is over."""
        self.bench.broker.publish_result = PublishResult.REFUSED
        accepted = self.accepted()
        self.bench.broker.publish_result = PublishResult.CONFIRMED
        self.bench.pass_time(40)
        self.assertEqual(self.work_off(), [(accepted.correlation_id, 1)])

    def test_in_order(self) -> None:
        """A partition keeps its order across an outage."""
        self.bench.server.go_away()
        ids = [self.accepted(b"%d" % number, partition=0).correlation_id for number in range(4)]
        self.bench.server.come_back()
        ids += [self.accepted(b"%d" % number, partition=0).correlation_id for number in range(4)]
        self.bench.pass_time(6)
        self.assertEqual(self.work_off(PARTITION), [(id, 1) for id in ids])

    def test_in_order_behind_a_backlog(self) -> None:
        """What a partition accepts when the broker is back goes behind its backlog, however long that is."""
        self.bench.server.go_away()
        for _ in range(3 * MOST_AT_ONCE):
            self.accepted()
        ids = [self.accepted(partition=0).correlation_id]
        self.bench.server.come_back()
        ids.append(self.accepted(partition=0).correlation_id)
        self.bench.pass_time(10)
        self.assertEqual([id for id in self.published() if id in ids], ids[:1])
        self.work_off()
        self.assertEqual(self.work_off(PARTITION), [(id, 1) for id in ids])

    def test_new_ones_do_not_wait(self) -> None:
        """A backlog is published in portions, and a new request does not wait behind it."""
        self.bench.server.go_away()
        backlog = [self.accepted().correlation_id for _ in range(3 * MOST_AT_ONCE)]
        sizes: list[int] = []
        take_due = self.bench.ledger.outbox.take_due

        def watched(connection: Any, most: int) -> Any:
            taken = take_due(connection, most)
            sizes.append(len(taken))
            return taken

        self.bench.ledger.outbox.take_due = watched  # type: ignore[method-assign]
        self.bench.server.come_back()
        new = self.accepted().correlation_id
        self.assertLess(self.published().index(new), MOST_AT_ONCE + 1)
        self.bench.pass_time(10)
        self.assertEqual([id for id in self.published() if id != new], backlog)
        self.assertLessEqual(max(sizes), MOST_AT_ONCE)

    def test_bounded(self) -> None:
        """Where the broker hangs, a bounded number of requests is held in memory, however many come at once."""
        hanging: list[Deferred[Any]] = []

        def hang(name: str, act: Any) -> Deferred[Any]:
            hanging.append(Deferred())
            return hanging[-1]

        self.bench.broker.step = hang
        self.bench.run_commit = lambda commit: Deferred() if commit() else _done()  # type: ignore[method-assign]
        for _ in range(MOST_UNDER_WAY + 500):
            self.bench.queue.accept(Submission(b"1"), None)
        self.bench.turn()
        for _ in range(50):
            self.accepted()
        (claimed,) = fetch_one(self.bench.file.reader, "SELECT count(*) FROM outbox WHERE claimed = 1")
        _, waiting = self.do(self.bench.ledger.count(REQUESTS))
        self.assertEqual(claimed + waiting, MOST_UNDER_WAY + 550)
        self.assertLessEqual(claimed, MOST_UNDER_WAY + MOST_AT_ONCE)


class CostTests(SynchronousTestCase):
    """What the outbox costs"""

    def steps(self, waiting: int) -> tuple[int, int]:
        """How many steps SQLite's machine takes to look at an outbox in which so much waits: nothing due, one due."""
        bench = BrokeredBench(FORMS["amqp"], journaled=True)
        try:
            later = bench.now() + 3600.0
            for _ in range(waiting):
                bench.queue.accept(Submission(b"1", not_before=later), None)
            bench.turn()
            found = []
            for _ in range(2):
                counted = [0]

                def count(counted: list[int] = counted) -> bool:
                    counted[0] += 1
                    return False

                bench.file.connection.set_progress_handler(count, 1)
                with bench.file.connection:
                    taken = bench.ledger.outbox.take_due(bench.file.connection, MOST_AT_ONCE)
                bench.file.connection.set_progress_handler(None)
                self.assertEqual(len(taken), len(found))
                found.append(counted[0])
                bench.file.connection.execute("UPDATE outbox SET due = 1 WHERE key = (SELECT min(key) FROM outbox)")
            return found[0], found[1]
        finally:
            bench.close()

    def test_what_waits_costs_nothing(self) -> None:
        """A look costs by what is due, and not by what waits: as much with 5,000 entries as with five."""
        for few, many in zip(self.steps(5), self.steps(5000), strict=True):
            self.assertLessEqual(many, few + 20)

    def test_by_index(self) -> None:
        """The next due time is read from an index."""
        bench = BrokeredBench(FORMS["amqp"])
        try:
            (plan,) = fetch_all(bench.file.reader, "EXPLAIN QUERY PLAN SELECT min(due) FROM outbox WHERE state = 0", ())
            self.assertIn("outbox_due", plan[3])
        finally:
            bench.close()


class PunctualTests(SynchronousTestCase):
    """When the outbox publishes"""

    def test_on_time(self) -> None:
        """What is due is published at most 100 ms late, in the order in which it is due, and never early."""
        bench = BrokeredBench(FORMS["amqp"])
        try:
            start = bench.now()
            delays = [30 * 86400.0, 0.001, 5.0, -60.0, 2.5, 0.05, 2.4999, 61.0]
            ids = {
                self.successResultOf(
                    bench.done(bench.queue.accept(Submission(b"1", not_before=start + delay), None))
                ).correlation_id: delay
                for delay in delays
            }
            seen: dict[str, float] = {}
            for step in [0.01] * 7000 + [3600.0] * (30 * 24 - 1) + [0.05] * 80000:
                if len(seen) == len(delays):
                    break
                bench.clock.advance(step)
                bench.turn()
                for message in bench.server.messages(REQUESTS):
                    seen.setdefault(message.body.split(b'"')[5].decode(), bench.now() - start)
            self.assertEqual([ids[id] for id in seen], sorted(delays))
            for id, at in seen.items():
                self.assertGreaterEqual(at, ids[id])
                self.assertLessEqual(at - max(ids[id], 0.0), 0.1)
        finally:
            bench.close()

    def test_many_at_the_same_time(self) -> None:
        """Thousands that are due in the same second are published in portions, each once."""
        bench = BrokeredBench(FORMS["amqp"])
        try:
            due = bench.now() + 10
            for _ in range(3000):
                bench.queue.accept(Submission(b"1", not_before=due), None)
            bench.turn()
            self.assertEqual(len(bench.server.messages(REQUESTS)), 0)
            bench.pass_time(12)
            for _ in range(20):
                bench.turn()
            bodies = [message.body for message in bench.server.messages(REQUESTS)]
            self.assertEqual((len(bodies), len(set(bodies))), (3000, 3000))
        finally:
            bench.close()


def _done() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done
