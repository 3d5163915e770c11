"""The embedded file does little at a time: in look-ups while it commits, and in letting go what has expired."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Status, Submission
from openhqm.sqlite.results import MOST_IN_ONE_TURN, SWEEP_ROWS, SWEEP_SECONDS
from openhqm.sqlite.sql import fetch_one
from tests.benches import SqliteBench, one_turn

MANY = 3 * MOST_IN_ONE_TURN


class FindTests(SynchronousTestCase):
    """`SqliteResults.find`, many times at once"""

    def setUp(self) -> None:
        self.bench = SqliteBench()
        self.addCleanup(self.bench.close)
        accepted = self.bench.queue.accept(Submission(b"1"), None)
        self.bench.turn()
        self.known = self.successResultOf(accepted).correlation_id

    def ask(self) -> list[Status]:
        """The answers so far to many look-ups at once."""
        told: list[Status] = []
        for _ in range(MANY):
            self.bench.store.find(self.known).addCallback(lambda record: told.append(record.status))
        return told

    def commit(self) -> None:
        """Begin a commit that does not come to its end."""
        self.bench.stall = "before"
        self.bench.queue.accept(Submission(b"2"), None)
        one_turn(self.bench.clock)

    def test_at_once(self) -> None:
        """Without a commit under way all are answered at once."""
        self.assertEqual(self.ask(), [Status.PENDING] * MANY)

    def test_few_in_a_turn(self) -> None:
        """While a commit is under way a few are answered in a turn; all are, however long it takes."""
        self.commit()
        told = self.ask()
        for turns in (1, 2, 3):
            self.assertEqual(len(told), turns * MOST_IN_ONE_TURN)
            one_turn(self.bench.clock)
        self.assertEqual(told, [Status.PENDING] * MANY)

    def test_answered_later(self) -> None:
        """A look-up that had to wait answers with the record as it is then."""
        self.commit()
        told = self.ask()
        self.bench.file.connection.execute("COMMIT")
        with self.bench.file.connection as connection:
            key = self.bench.file.ids.number(self.known)
            connection.execute("INSERT INTO events VALUES (?, 2, 'processing', 1.0, '{}')", (key,))
        one_turn(self.bench.clock)
        self.assertEqual(told, [Status.PENDING] * MOST_IN_ONE_TURN + [Status.PROCESSING] * MOST_IN_ONE_TURN)


class ExpiryTests(SynchronousTestCase):
    """What has expired goes in small portions: no commit is held up by a million of them."""

    def setUp(self) -> None:
        self.bench = SqliteBench()
        self.addCleanup(self.bench.close)

    def test_claims(self) -> None:
        """Each commit lets go of so many claims at most, and the next one follows at once."""
        with self.bench.file.connection as connection:
            connection.executemany(
                "INSERT INTO claims VALUES (?, x'00', 1, 0.0, 1.0)",
                [(number.to_bytes(8, "big"),) for number in range(3 * SWEEP_ROWS + 1)],
            )
        deleted: list[int] = []
        run_commit = self.bench.run_commit

        def counting(commit: Callable[[], None]) -> Deferred[None]:
            before = self.claims()
            done = run_commit(commit)
            deleted.append(before - self.claims())
            return done

        self.bench.run_commit = counting  # type: ignore[method-assign]
        self.bench.pass_time(SWEEP_SECONDS + 5)
        self.assertEqual(self.claims(), 0)
        self.assertLessEqual(max(deleted), SWEEP_ROWS)

    def claims(self) -> int:
        count: int = fetch_one(self.bench.file.reader, "SELECT count(*) FROM claims")[0]
        return count
