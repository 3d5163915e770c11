"""What waits for its first attempt over a broker: found by an index on the time, and kept only where a limit asks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Reply, Status, Submission
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.sqlite.sql import fetch_all
from openhqm.testing import FORMS, REQUESTS
from tests.benches import BrokeredBench, SqliteBench

OLDEST = Limits(requests=1_000_000, drop_oldest=True)
AGE = Limits(age_seconds=30.0)


def steps(bench: SqliteBench, call: Callable[[], object]) -> int:
    """How many steps SQLite makes for what ``call`` does."""
    counted = [0]

    def count() -> bool:
        counted[0] += 1
        return False

    bench.file.connection.set_progress_handler(count, 1)
    call()
    bench.file.connection.set_progress_handler(None)
    return counted[0]


class UnbegunTests(SynchronousTestCase):
    """`Unbegun`"""

    def bench(self, limits: Limits) -> BrokeredBench:
        bench = BrokeredBench(FORMS["amqp"])
        self.addCleanup(bench.close)
        bench.limits = limits
        bench.crash()
        return bench

    def do(self, bench: SqliteBench, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(bench.done(deferred))

    def rows(self, bench: BrokeredBench) -> list[Any]:
        return fetch_all(bench.file.reader, "SELECT key, since FROM unbegun ORDER BY key")

    def work(self, bench: BrokeredBench) -> None:
        """Some of everything: what waits, what is delayed, what was begun, retried, released and ended."""
        for number in range(8):
            self.do(bench, bench.queue.accept(Submission(b"%d" % number), None))
            bench.pass_time(1)
        self.do(bench, bench.queue.accept(Submission(b"8", not_before=bench.now() + 100), None))
        self.do(bench, bench.queue.accept(Submission(b"9"), None, [Submission(b"10", endpoint="billing")]))
        deliveries = self.do(bench, bench.queue.receive(REQUESTS, 4))
        self.do(bench, deliveries[0].retry(50, "no luck"))
        self.do(bench, deliveries[1].release())
        id = deliveries[2].request.correlation_id
        self.do(bench, deliveries[2].settle(Reply(id, Status.COMPLETED, bench.now(), b"1")))
        bench.pass_time(3)

    def test_oldest(self) -> None:
        """What has waited longest is found without a look at what is delayed, or was retried and waits again."""
        counts = []
        for many in (5, 2000):
            bench = self.bench(OLDEST)
            for _ in range(many):
                bench.queue.accept(Submission(b"1", not_before=bench.now() + 3600.0), None)
            for _ in range(many):
                bench.queue.accept(Submission(b"1"), None)
            bench.turn()
            bench.pass_time(2)
            for delivery in self.do(bench, bench.queue.receive(REQUESTS, many)):
                delivery.retry(0, "no luck")
            bench.pass_time(2)
            oldest = self.do(bench, bench.queue.accept(Submission(b"1"), None))
            self.do(bench, bench.queue.accept(Submission(b"1"), None))
            found = bench.ledger.unbegun.oldest(bench.file.connection)
            self.assertEqual(found, bench.file.ids.number(oldest.correlation_id))
            counts.append(steps(bench, partial(bench.ledger.unbegun.oldest, bench.file.connection)))
        self.assertLessEqual(counts[1], counts[0] + 40)

    def test_oldest_of_a_partition(self) -> None:
        """What waits behind another one of its partition can be dropped as well."""
        bench = self.bench(OLDEST)
        asked = [bench.queue.accept(Submission(b"1", partition=0), None) for _ in range(2)]
        bench.turn()
        self.do(bench, bench.queue.receive(f"{REQUESTS}._0", 1, in_order=True))
        ids = [self.successResultOf(each).correlation_id for each in asked]
        oldest = bench.ledger.unbegun.oldest(bench.file.connection)
        self.assertEqual(oldest, bench.file.ids.number(ids[1]))

    def test_not_wanted(self) -> None:
        """Without such a limit nothing is written."""
        for limits in (NO_LIMITS, Limits(requests=100)):
            bench = self.bench(limits)
            self.work(bench)
            self.assertEqual(self.rows(bench), [])

    def test_switched_on(self) -> None:
        """Where the limit is new, what waits already is found: as if it had been there from the beginning."""
        for limits in (OLDEST, AGE):
            with_it, without = self.bench(limits), self.bench(NO_LIMITS)
            for bench in (with_it, without):
                self.work(bench)
            kept = self.rows(with_it)
            self.assertEqual(len(kept), 7)
            without.limits = limits
            without.crash()
            filled = self.rows(without)
            self.assertEqual([key for key, _ in filled], [key for key, _ in kept])
            # A message says when it was published, which was a moment after the acceptance. It never says too early.
            for (_, since), (_, at) in zip(filled, kept, strict=True):
                self.assertGreaterEqual(since, at)

    def test_switched_off_and_on(self) -> None:
        """What went on in between is known."""
        bench = self.bench(AGE)
        self.work(bench)
        before = {key for key, _ in self.rows(bench)}
        bench.limits = NO_LIMITS
        bench.crash()
        self.assertEqual(self.rows(bench), [])
        for _ in range(2):
            self.do(bench, bench.queue.accept(Submission(b"1"), None))
        bench.limits = AGE
        bench.crash()
        self.assertEqual(len({key for key, _ in self.rows(bench)} - before), 2)


class QueueTests(SynchronousTestCase):
    """The embedded queue finds what is too old by keys, and by an index on what was delayed or released."""

    def test_what_waits_costs_nothing(self) -> None:
        """A look at a queue where nothing is too old costs as much with 3,000 requests as with five."""
        counts = []
        for many in (5, 3000):
            bench = SqliteBench()
            self.addCleanup(bench.close)
            bench.limits = AGE
            bench.crash()
            for number in range(many):
                bench.queue.accept(Submission(b"1"), None)
                bench.queue.accept(Submission(b"1", not_before=bench.now() + 5), None)
                if number % 100 == 0:
                    bench.turn()
            bench.turn()
            bench.pass_time(6)
            received = bench.done(bench.queue.receive(REQUESTS, many))
            for delivery in self.successResultOf(received):
                delivery.retry(0, "no luck")
            bench.pass_time(2)
            old = bench.now() - 30.0
            counts.append(steps(bench, partial(bench.queue._older, bench.file.connection, old, 200)))
        self.assertLessEqual(counts[1], counts[0] + 40)
