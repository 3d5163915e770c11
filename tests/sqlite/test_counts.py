"""How many requests wait in the embedded file: kept by what changes it, and found again after a start."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Priority, Submission
from openhqm.sqlite import queue_rows
from openhqm.sqlite.sql import fetch_one
from openhqm.testing import REQUESTS
from tests.benches import SqliteBench


class CountsTests(SynchronousTestCase):
    """`QueueRows.depth`"""

    def setUp(self) -> None:
        self.bench = SqliteBench(ttl=30.0)
        self.addCleanup(lambda: self.bench.close())
        self.patch(queue_rows, "MOST_COUNTED", 50)
        self.patch(queue_rows, "PORTION", 7)

    def do(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(self.bench.done(deferred))

    def accept(self, count: int, priority: Priority = Priority.NORMAL) -> list[str]:
        accepted = [self.bench.queue.accept(Submission(b"1", priority=priority), None) for _ in range(count)]
        return [self.do(each).correlation_id for each in accepted]

    def sweep(self) -> None:
        """Let all sweeps run that are due: each delays the next one by a hundredth of a second, or by a second."""
        for seconds in (1.0, *(60 * [0.02])):
            self.bench.pass_time(seconds)

    def ready(self) -> int:
        ready: int = self.do(self.bench.queue.depth(REQUESTS)).ready
        return ready

    def rows(self) -> int:
        """How many messages lie above the cursors, as the file itself has it."""
        rows = self.bench.queue._queue(REQUESTS).rows
        found = 0
        for rank in rows._fresh:
            channel = rows.channel(rank)
            (cursor,) = fetch_one(self.bench.file.reader, "SELECT cursor FROM channels WHERE channel = ?", (channel,))
            last = queue_rows.last_key(channel)
            query = "SELECT count(*) FROM messages WHERE key > ? AND key <= ?"
            found += fetch_one(self.bench.file.reader, query, (cursor, last))[0]
        return found

    def test_exact_after_a_start(self) -> None:
        """After a start with more than are counted at once, their keys tell the number, and soon it is exact again."""
        ids = self.accept(120)
        for id in ids[10:100]:
            self.do(self.bench.store.cancel(id))
        self.bench.pass_time(40)  # what was cancelled has expired, and left gaps
        self.assertEqual(self.ready(), 30)
        self.bench.crash()
        self.assertEqual(self.ready(), 120)
        self.sweep()
        self.assertEqual((self.ready(), self.rows()), (30, 30))

    def test_while_it_is_counted(self) -> None:
        """Requests that come, go and are cancelled between any two portions are counted once."""
        for steps in range(1, 24):
            ids = self.accept(60) + self.accept(55, Priority.HIGH)
            for id in ids[20:40]:
                self.do(self.bench.store.cancel(id))
            self.bench.pass_time(31)
            self.bench.crash()
            for step in range(steps):
                self.bench.clock.advance(1.0 if step == 0 else 0.01)
                most = 3 if step < steps - 1 else 45  # the last one passes what is counted and what is not
                together = [self.bench.queue.receive(REQUESTS, most), self.bench.queue.accept(Submission(b"2"), None)]
                for delivery in self.do(together[0]):
                    self.do(delivery.ack())
                self.do(together[1])
                self.do(self.bench.store.cancel(self.accept(1)[0]))
            self.sweep()
            self.assertEqual(self.ready(), self.rows(), f"after {steps} steps")
            while found := self.received():
                for delivery in found:
                    self.do(delivery.ack())
            self.assertEqual((self.ready(), self.rows()), (0, 0))

    def received(self) -> Any:
        asked = self.bench.queue.receive(REQUESTS, 50)
        found: list[Any] = []
        asked.addCallbacks(found.extend, lambda failure: None)
        self.bench.pass_time(0.1)
        if not asked.called:
            asked.cancel()
        return found
