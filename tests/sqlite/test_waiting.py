"""What is written together is in one transaction of the embedded file."""

from __future__ import annotations

from typing import Any

import apsw
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import IdempotencyConflict, NotDurable
from openhqm.messages import IdempotencyClaim, Priority, Submission
from openhqm.sqlite.file import MOST_IN_ONE_COMMIT, MOST_WAITING
from openhqm.sqlite.waiting import Waiting
from openhqm.testing import REQUESTS
from tests.benches import SqliteBench

MANY = 3 * MOST_IN_ONE_COMMIT


def nothing(connection: apsw.Connection) -> None:
    """An operation."""


class WaitingTests(SynchronousTestCase):
    def sizes(self, waiting: Waiting, most: int) -> list[int]:
        found = []
        while waiting.size:
            found.append(len(waiting.take(most)))
        return found

    def add(self, waiting: Waiting, count: int) -> None:
        for _ in range(count):
            waiting.add(nothing, Deferred())

    def test_alone(self) -> None:
        """What was added by itself goes in portions."""
        waiting = Waiting()
        self.add(waiting, 10)
        self.assertEqual(self.sizes(waiting, 4), [4, 4, 2])

    def test_together(self) -> None:
        """What was added together is taken together, and what comes before and behind it is not held up for it."""
        for before, sizes in ((0, [9, 3]), (1, [10, 2]), (4, [4, 9, 2]), (5, [4, 10, 1]), (3, [12, 2])):
            waiting = Waiting()
            self.add(waiting, before)
            with waiting.together():
                self.add(waiting, 9)
            self.add(waiting, sum(sizes) - before - 9)
            with waiting.together():
                pass
            self.assertEqual(self.sizes(waiting, 4), sizes, before)

    def test_two(self) -> None:
        """Two that follow each other are two."""
        waiting = Waiting()
        for _ in range(2):
            with waiting.together():
                self.add(waiting, 6)
        self.assertEqual(self.sizes(waiting, 4), [6, 6])


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = SqliteBench()
        self.addCleanup(self.bench.close)
        self.bench.turn()
        self.file: Any = self.bench.queue._file
        self.commits: list[Any] = []
        commit = self.file._run_commit
        self.file._run_commit = lambda call: self.commits.append(call) or commit(call)

    def accept(self, count: int, claims: list[IdempotencyClaim] | None = None) -> list[Deferred[Any]]:
        with self.bench.queue.together():
            return [
                self.bench.queue.accept(Submission(b"%d" % number), claims[number] if claims else None)
                for number in range(count)
            ]

    def rows(self) -> int:
        ((count,),) = self.file.reader.execute("SELECT count(*) FROM messages").fetchall()
        return int(count)

    def test_one_commit(self) -> None:
        """However many they are, they are in one commit."""
        asked = self.accept(MANY)
        self.bench.turn()
        self.assertEqual((len(self.commits), self.rows()), (1, MANY))
        for each in asked:
            self.successResultOf(each)

    def test_two_commits(self) -> None:
        """Two that come at the same time are two commits: no transaction is longer than one of them needs."""
        asked = [self.accept(MANY), self.accept(MANY)]
        self.bench.turn()
        self.assertEqual((len(self.commits), self.rows()), (2, 2 * MANY))
        for each in asked[0] + asked[1]:
            self.successResultOf(each)

    def test_bound(self) -> None:
        """What waits for the disk is bounded, counted by requests. It is counted off when it has been written."""
        for _ in range(2):
            asked: list[Deferred[Any]] = []
            while len(asked) < MOST_WAITING:
                asked += self.accept(1000)
            late = self.accept(2)
            for each in late:
                self.failureResultOf(each, NotDurable)
            self.bench.turn()
            while self.file.waiting.size:
                self.bench.turn()
            for each in asked:
                self.successResultOf(each)

    def test_priorities(self) -> None:
        """Requests of different queues and priorities are counted each where it waits."""
        kinds = [(endpoint, priority) for endpoint in (None, "billing") for priority in Priority] * 3
        with self.bench.queue.together():
            asked = [
                self.bench.queue.accept(Submission(b"1", endpoint=name, priority=each), None) for name, each in kinds
            ]
        self.bench.turn()
        self.assertEqual(len({self.successResultOf(each).correlation_id for each in asked}), len(kinds))
        for name in (REQUESTS, f"{REQUESTS}.billing"):
            waiting = self.successResultOf(self.bench.queue.waiting(name))
            self.assertEqual({each: waiting[each].count for each in Priority}, dict.fromkeys(Priority, 3), name)

    def test_nothing(self) -> None:
        """Where that commit fails, none of them is accepted."""

        def full() -> None:
            raise apsw.FullError("disk full")

        self.file._commit = full
        asked = self.accept(MANY)
        self.bench.turn()
        for each in asked:
            self.failureResultOf(each, NotDurable)
        self.assertEqual(self.rows(), 0)

    def test_conflicts_cost_no_more(self) -> None:
        """A batch full of keys that were used for other requests is looked at once, and not once for each of them."""
        claims = [IdempotencyClaim(f"{number}", b"print") for number in range(MANY)]
        self.accept(MANY, claims)
        self.bench.turn()
        runs: list[int] = []
        add = self.file.waiting.add

        def counted(operation: Any, *others: Any) -> None:
            add(lambda connection: (runs.append(1), operation(connection))[1], *others)

        self.file.waiting.add = counted
        asked = self.accept(MANY, [IdempotencyClaim(each.key, b"other") for each in claims])
        self.bench.turn()
        for each in asked:
            self.failureResultOf(each, IdempotencyConflict)
        self.assertEqual((len(runs), self.rows()), (1, MANY))
