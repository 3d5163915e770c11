"""What is open in the embedded file: counted once, written with what changes it, and gone where it is not limited."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import QueueFull
from openhqm.messages import Load, Reply, Status, Submission
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.sqlite.sql import fetch_all
from openhqm.testing import REQUESTS
from tests.benches import BrokeredBench, SqliteBench


class LoadTests(SynchronousTestCase):
    """`SqliteLoad`"""

    def setUp(self) -> None:
        self.bench = SqliteBench()
        self.addCleanup(lambda: self.bench.close())

    def do(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(self.bench.done(deferred))

    def again(self, limits: Limits) -> None:
        self.bench.limits = limits
        self.bench.crash()

    def rows(self) -> list[Any]:
        return fetch_all(self.bench.file.reader, "SELECT requests, bytes FROM load")

    def counted(self) -> tuple[int, int]:
        found: tuple[int, int] = fetch_all(
            self.bench.file.reader,
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM messages WHERE key NOT IN (SELECT key FROM endings)",
        )[0]
        return found

    def test_beyond_the_disk(self) -> None:
        """A limit that is larger than the disk is told at the start, with both numbers."""
        with capturedLogs() as events:
            self.again(Limits(bytes=1000))
            self.assertEqual(events, [])
            self.again(Limits(bytes=1 << 50))
        text = " ".join(filter(None, map(formatEvent, events)))
        self.assertIn(f"queue.limits.bytes is {1 << 50}", text)

    def test_beyond_the_disk_by_sighup(self) -> None:
        """The same where the limit is changed while the process runs, embedded and over a broker."""
        brokered = BrokeredBench()
        self.addCleanup(brokered.close)
        for limit in (self.bench.queue.limit, brokered.ledger.limit):
            with capturedLogs() as events:
                limit(Limits(bytes=1000))
                self.assertEqual(events, [])
                limit(Limits(bytes=1 << 50))
            self.assertIn("it is full before the queue is", " ".join(filter(None, map(formatEvent, events))))

    def test_nothing_dropped_in_vain(self) -> None:
        """Where dropping all that waits makes too little room, nothing is dropped, and the new request is refused."""
        small, large = Submission(b"1"), Submission(b'"' + 800 * b"x" + b'"')
        self.again(Limits(bytes=1200, drop_oldest=True))
        self.do(self.bench.queue.accept(large, None))
        (delivery,) = self.do(self.bench.queue.receive(REQUESTS, 1))
        waits = self.do(self.bench.queue.accept(small, None))
        self.failureResultOf(self.bench.done(self.bench.queue.accept(large, None)), QueueFull)
        self.assertEqual(self.do(self.bench.store.find(waits.correlation_id)).status, Status.PENDING)
        self.do(delivery.settle(Reply(delivery.request.correlation_id, Status.COMPLETED, self.bench.now(), b"1")))

    def test_switched_on_and_off(self) -> None:
        """There is a row only where something is limited; what was accepted without one is counted when it is back."""
        self.do(self.bench.queue.accept(Submission(b"1"), None))
        self.assertEqual(self.rows(), [])
        self.again(Limits(requests=10))
        self.assertEqual(self.rows(), [self.counted()])
        self.again(NO_LIMITS)
        self.assertEqual(self.rows(), [])
        self.do(self.bench.queue.accept(Submission(b"1"), None))
        self.again(Limits(bytes=10_000))
        self.assertEqual((self.rows(), self.counted()[0]), ([self.counted()], 2))

    def test_exact(self) -> None:
        """Whatever is accepted, held back, dropped or ended, the row says what is there."""
        self.again(Limits(requests=5, drop_oldest=True))
        for number in range(12):
            follow_ups = [Submission(b"2", endpoint="billing")] if number % 3 == 0 else []
            accepted = self.do(self.bench.queue.accept(Submission(b"%d" % number), None, follow_ups))
            if number % 4 == 3:
                self.do(self.bench.store.cancel(accepted.correlation_id))
            self.bench.pass_time(1)
            self.assertEqual(self.rows(), [self.counted()])

    def test_written_with_the_commit(self) -> None:
        """A commit that fails changes no count, and an operation that fails alone changes none."""
        self.again(Limits(requests=5))

        def breaks(connection: Any) -> None:
            self.bench.queue._load.add(connection, 7)
            raise ValueError

        broken = self.bench.file.write(breaks)
        accepted = self.bench.queue.accept(Submission(b"1"), None)
        self.bench.turn()
        self.failureResultOf(broken, ValueError)
        self.successResultOf(accepted)
        self.assertEqual(self.do(self.bench.queue.load()), Load(*self.counted()))
