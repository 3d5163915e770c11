"""Requests that were accepted for later in the embedded file: one append each, and the outbox adopts them later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
from attrs import evolve
from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.brokered.outbox import MOST_AT_ONCE
from openhqm.errors import NotDurable
from openhqm.messages import Priority, Reply, Status, Submission
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.queue.ledger import window_of
from openhqm.sqlite.sql import fetch_one
from openhqm.testing import FORMS, REQUESTS
from tests.benches import BrokeredBench
from tests.brokered.test_journaled import Journaled
from tests.brokered.test_kills import MOST_STEPS, Life

KEEPS = 20


class AppendedTests(Journaled):
    """Requests that were accepted for later in the embedded file, and that the outbox has not adopted"""

    def setUp(self) -> None:
        super().setUp()
        self.prepare()

    def prepare(self) -> None:
        """From the second request of a kind on, a request is its record alone."""
        self.bench.server.go_away()
        for priority in (Priority.NORMAL, Priority.HIGH):
            self.accepted(priority=priority)
        self.bench.server.come_back()
        self.bench.pass_time(6)
        self.work_off()

    def rows(self, table: str) -> int:
        found: int = fetch_one(self.bench.file.reader, f"SELECT count(*) FROM {table}")[0]
        return found

    def away(self, count: int, **fields: Any) -> list[str]:
        """So many requests that are accepted while the broker is away."""
        self.bench.server.go_away()
        return [self.accepted(b"%d" % number, **fields).correlation_id for number in range(count)]

    def test_one_tree(self) -> None:
        """Such a request changes one table, as in the embedded queue, and nothing else."""
        connection = self.bench.file.connection
        self.bench.server.go_away()
        before = connection.total_changes()
        self.accepted()
        self.assertEqual(connection.total_changes() - before, 1)
        self.assertEqual(self.rows("outbox"), 0)

    def test_portions(self) -> None:
        """The outbox adopts them in portions, in order, and each is published once."""
        ids = self.away(3 * MOST_AT_ONCE + 7)
        self.assertEqual(self.rows("outbox"), 0)
        most: list[int] = []
        note = self.bench.ledger.outbox._claim

        def claim(connection: Any, entry: Any) -> Any:
            most.append(connection.execute("SELECT count(*) FROM outbox").fetchone()[0])
            return note(connection, entry)

        self.bench.ledger.outbox._claim = claim  # type: ignore[method-assign]
        self.bench.server.come_back()
        self.bench.clock.advance(5)
        self.assertLessEqual(most[0], MOST_AT_ONCE)
        self.bench.pass_time(6)
        self.assertEqual(self.published(), ids)
        self.assertEqual(self.work_off(), [(id, 1) for id in ids])

    def test_other_channels(self) -> None:
        """Each channel has its own, and they are known after a restart."""
        usual, high = self.away(3), self.away(2, priority=Priority.HIGH)
        self.bench.crash()
        self.assertEqual(self.do(self.bench.queue.depth(REQUESTS)).delayed, 5)
        self.assertEqual(self.rows("outbox"), 0)
        self.bench.server.come_back()
        self.bench.pass_time(6)
        self.assertEqual(self.published(), usual)
        channel = self.bench.server.messages(f"{REQUESTS}._high")
        self.assertEqual([message.body.split(b'"')[5].decode() for message in channel], high)
        self.assertEqual(self.do(self.bench.queue.depth(REQUESTS)).delayed, 0)

    def test_after_a_restart(self) -> None:
        """The process after it goes on with the same keys, and gives out no id twice."""
        ids = self.away(3)
        self.bench.crash()
        ids += self.away(3)
        self.bench.crash()
        ids += self.away(3)
        self.assertEqual(len(set(ids)), 9)
        self.bench.server.come_back()
        self.bench.pass_time(6)
        self.assertEqual(sorted(self.work_off()), sorted((id, 1) for id in ids))

    def test_cancelled(self) -> None:
        """What was cancelled in the meantime is never published, also where its record has expired."""
        ids = self.away(4)
        self.do(self.bench.store.cancel(ids[1]))
        self.bench.pass_time(2 * self.bench.ttl)
        self.assertEqual(self.do(self.bench.queue.depth(REQUESTS)).delayed, 3)
        self.do(self.bench.store.cancel(ids[2]))
        self.bench.server.come_back()
        self.bench.pass_time(6)
        self.assertEqual(self.published(), [ids[0], ids[3]])
        self.assertEqual(self.work_off(), [(ids[0], 1), (ids[3], 1)])
        self.assertEqual(self.do(self.bench.queue.depth(REQUESTS)).delayed, 0)

    def test_limited_at_a_restart(self) -> None:
        """A limit that is new at a restart counts them, and ends what has waited longest among them."""
        self._limited(lambda: self.bench.crash())

    def test_limited_in_between(self) -> None:
        """The same of one that comes with a SIGHUP."""
        self._limited(lambda: self.bench.ledger.limit(self.bench.limits))

    def _limited(self, change: Any) -> None:
        ids = self.away(4)
        self.bench.limits = Limits(requests=4, drop_oldest=True)
        change()
        self.bench.turn()
        self.assertEqual(self.do(self.bench.queue.load()).requests, 4)
        self.accepted()
        found = [self.do(self.bench.store.find(id)).status for id in ids]
        self.assertEqual(found, [Status.FAILED, *[Status.PENDING] * 3])

    def test_too_old(self) -> None:
        """A limit on their age ends them, although the broker is away."""
        ids = self.away(2)
        self.bench.limits = Limits(age_seconds=30.0)
        self.bench.ledger.limit(self.bench.limits)
        self.bench.pass_time(40)
        self.assertEqual([self.do(self.bench.store.find(id)).status for id in ids], [Status.FAILED] * 2)
        self.bench.limits = NO_LIMITS
        self.bench.ledger.limit(NO_LIMITS)
        self.bench.server.come_back()
        self.bench.pass_time(6)
        self.assertEqual(self.work_off(), [])

    def test_not_written(self) -> None:
        """Where the disk does not take them, callers are told so, and the outbox does not wait for them."""
        self.bench.server.go_away()
        self.bench.stall = "before"
        lost = self.bench.queue.accept(Submission(b"1"), None)
        self.bench.turn()
        self.bench.crash()
        self.assertNoResult(lost)
        ids = self.away(2)
        self.assertEqual(self.do(self.bench.queue.depth(REQUESTS)).delayed, 2)
        self.bench.server.come_back()
        self.bench.pass_time(6)
        self.assertEqual(self.work_off(), [(id, 1) for id in ids])
        self.assertFalse(self.bench.ledger._journal.holds)

    def test_full_disk(self) -> None:
        """On a full disk none is accepted and none is adopted; once there is room, each is published once."""
        fills = self._full_in_the_commit, self._full_in_a_statement
        ids = []
        self.bench.server.go_away()
        for fill in fills:
            with fill():
                for _ in range(2):
                    self.failureResultOf(self.bench.done(self.bench.queue.accept(Submission(b"1"), None)), NotDurable)
            self.bench.pass_time(6)
            ids.append(self.accepted().correlation_id)
        self.assertEqual(self.do(self.bench.queue.depth(REQUESTS)).delayed, 2)
        for fill in fills:
            with fill():
                self.bench.server.come_back()
                self.bench.pass_time(12)
            self.assertEqual(self.published(), [])
            self.bench.server.go_away()
            self.bench.pass_time(6)
        self.bench.server.come_back()
        self.bench.pass_time(12)
        self.assertEqual(self.work_off(), [(id, 1) for id in ids])
        self.assertEqual(self.do(self.bench.queue.depth(REQUESTS)).delayed, 0)

    @contextmanager
    def _full_in_the_commit(self) -> Iterator[None]:
        self.bench.run_commit = lambda commit: fail(apsw.FullError("the disk is full"))  # type: ignore[method-assign]
        yield
        del self.bench.run_commit  # type: ignore[method-assign]

    @contextmanager
    def _full_in_a_statement(self) -> Iterator[None]:
        def refuse(cursor: Any, statement: str, values: Any) -> bool:
            if statement.startswith(("INSERT", "UPDATE", "DELETE")):
                raise apsw.FullError("the disk is full")
            return True

        self.bench.file.connection.exec_trace = refuse
        yield
        self.bench.file.connection.exec_trace = None

    def test_killed_at_any_step(self) -> None:
        """Killed between any two steps from the acceptance to the ending: each ends once, and none is left."""
        for last in range(1, MOST_STEPS):
            over = [self._killed(last, after) for after in (False, True)]
            if all(over):
                return
        raise AssertionError(f"there are more than {MOST_STEPS} steps")

    def _killed(self, last: int, after: bool) -> bool:
        """Whether all was over before it was killed."""
        self.bench.close()
        bench = self.bench = BrokeredBench(FORMS["amqp"], journaled=True)
        self.prepare()
        life = Life(bench, last, after)
        told: list[str] = []
        endings: Counter[int] = Counter()

        def note(key: int, status: str) -> None:
            endings[key] += 1

        bench.store.on_ending.append(note)
        bench.server.go_away()
        for number in range(3):
            asked = bench.done(bench.queue.accept(Submission(b"%d" % number), None))
            asked.addCallbacks(lambda acceptance: told.append(acceptance.correlation_id), lambda failure: None)
        if told:
            bench.done(bench.store.cancel(told[0])).addErrback(lambda failure: None)
        bench.server.come_back()
        bench.pass_time(6)
        over = False
        if not life.dead:
            over = len(self._worked()) == 2 and not life.dead
        del bench.run_commit
        bench.crash()
        bench.store.on_ending.append(note)
        bench.pass_time(35)
        self._worked()
        bench.pass_time(35)
        self._worked()
        for id in told:
            self.assertIn(self.do(bench.store.find(id)).status, (Status.COMPLETED, Status.CANCELLED), life.steps)
        self.assertLessEqual(set(endings.values()), {1}, life.steps)
        self.assertEqual((self.rows("outbox"), self.rows("inflight")), (0, 0), life.steps)
        self.assertEqual(self.do(bench.queue.depth(REQUESTS)).delayed, 0)
        self.assertFalse(bench.ledger._journal.holds)
        return over

    def _worked(self) -> list[str]:
        """Complete what is delivered, as far as the process lives."""
        found: list[str] = []
        while True:
            waiting = self.bench.done(self.bench.queue.receive(REQUESTS, 1))
            self.bench.pass_time(1)
            deliveries: list[Any] = []
            waiting.addCallbacks(deliveries.extend, lambda failure: None)
            if not deliveries:
                waiting.cancel()
                return found
            id = deliveries[0].request.correlation_id
            reply = Reply(id, Status.COMPLETED, self.bench.now(), result=b"1", attempt=1)
            self.bench.done(deliveries[0].settle(reply)).addErrback(lambda failure: None)
            found.append(id)


class WindowedTests(SynchronousTestCase):
    """A broker that keeps little"""

    def test_window(self) -> None:
        """No more than the window is published of what was accepted for later; the rest waits, and none is lost."""
        bench = BrokeredBench(evolve(FORMS["mqtt"], keeps=KEEPS), journaled=True)
        self.addCleanup(bench.close)
        bench.server.go_away()
        ids = []
        for _ in range(3 * KEEPS):
            accepted = self.successResultOf(bench.done(bench.queue.accept(Submission(b"1"), None)))
            ids.append(accepted.correlation_id)
        bench.server.come_back()
        bench.pass_time(10)
        self.assertEqual(len(bench.server.messages(REQUESTS)), window_of(KEEPS))
        done: list[str] = []
        for _ in range(len(ids)):
            (delivery,) = self.successResultOf(bench.done(bench.queue.receive(REQUESTS, 1)))
            id = delivery.request.correlation_id
            bench.done(delivery.settle(Reply(id, Status.COMPLETED, bench.now(), result=b"1", attempt=1)))
            bench.pass_time(1)
            done.append(id)
        self.assertEqual(sorted(done), sorted(ids))
