"""Look-ups in the embedded file while it commits: each is answered, and the commit does not wait for them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Status, Submission
from openhqm.sqlite.results import MOST_IN_ONE_TURN
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
