"""What is accepted in one turn of the reactor is one operation of the embedded file."""

from __future__ import annotations

from typing import Any

import apsw
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import IdempotencyConflict, NotDurable
from openhqm.messages import IdempotencyClaim, Submission
from openhqm.sqlite.file import MOST_IN_ONE_COMMIT
from openhqm.testing import REQUESTS
from tests.benches import SqliteBench, one_turn


class AppendsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = SqliteBench()
        self.addCleanup(self.bench.close)
        self.bench.turn()
        self.file: Any = self.bench.queue._file

    def accept(self, text: bytes, claim: IdempotencyClaim | None = None, **fields: Any) -> Deferred[Any]:
        accepted: Deferred[Any] = self.bench.queue.accept(Submission(text, **fields), claim)
        return accepted

    def deliveries(self) -> list[bytes]:
        """What is delivered now."""
        found: list[bytes] = []
        for _ in range(2):
            fetched = self.bench.queue.receive(REQUESTS, 1000)
            self.bench.turn()
            if fetched.called:
                found += [each.request.submission.payload for each in self.successResultOf(fetched)]
        return found

    def commits(self) -> list[int]:
        """How many messages each of the next transactions brings."""
        found, before = [], self.rows()
        while self.file.waiting.size:
            one_turn(self.bench.clock)
            found.append(self.rows() - before)
            before += found[-1]
        return found

    def rows(self) -> int:
        ((count,),) = self.file.reader.execute("SELECT count(*) FROM messages").fetchall()
        return int(count)

    def test_claims(self) -> None:
        """Of many with claims each has its own outcome, also where one of them has the key of another one of them."""
        old = self.accept(b"0", IdempotencyClaim("old", b"print"))
        short = self.accept(b"1", IdempotencyClaim("short", b"print", lifetime=1.0))
        self.bench.turn()
        first = self.successResultOf(old).correlation_id
        self.bench.clock.rightNow += 2  # nothing has been swept yet
        asked = [
            self.accept(b"2", IdempotencyClaim("new", b"print")),
            self.accept(b"3"),
            self.accept(b"0", IdempotencyClaim("old", b"print")),
            self.accept(b"4", IdempotencyClaim("old", b"other")),
            self.accept(b"2", IdempotencyClaim("new", b"print")),
            self.accept(b"5", IdempotencyClaim("new", b"other")),
            self.accept(b"6", IdempotencyClaim("short", b"other")),
        ]
        self.assertEqual(len(self.file.waiting._entries), 1)
        self.bench.turn()
        new, plain, repeat, conflict, again, other, later = asked
        made = self.successResultOf(new).correlation_id
        for each, id, replayed in (
            (plain, None, False),
            (repeat, first, True),
            (again, made, True),
            (later, None, False),
        ):
            acceptance = self.successResultOf(each)
            self.assertEqual(acceptance.replayed, replayed)
            self.assertIn(id, (None, acceptance.correlation_id))
        for each in (conflict, other):
            self.failureResultOf(each, IdempotencyConflict)
        self.assertNotEqual(self.successResultOf(later), self.successResultOf(short))
        self.assertEqual(self.deliveries(), [b"0", b"1", b"2", b"3", b"6"])

    def test_beside_others(self) -> None:
        """A fetch between them passes over none that needs an operation of its own."""
        asked = [self.accept(b"0"), self.accept(b"1")]
        fetched = self.bench.queue.receive(REQUESTS, 1000)
        asked += [self.accept(b"2", timeout=50.0), self.accept(b"3"), self.accept(b"4")]
        self.bench.turn()
        found = [each.request.submission.payload for each in self.successResultOf(fetched)]
        self.assertEqual(found + self.deliveries(), [b"%d" % number for number in range(5)])
        for each in asked:
            self.successResultOf(each)

    def test_portions(self) -> None:
        """No transaction grows longer because more is accepted in a turn."""
        asked = [self.accept(b"1") for _ in range(2 * MOST_IN_ONE_COMMIT + 10)]
        self.assertEqual(self.file.waiting.size, len(asked))
        self.assertEqual(self.commits(), [MOST_IN_ONE_COMMIT, MOST_IN_ONE_COMMIT, 10])
        for each in asked:
            self.successResultOf(each)

    def test_while_it_is_written(self) -> None:
        """What is accepted while a transaction is under way is in the next one."""
        before = self.accept(b"0")
        self.bench.stall = "after"
        one_turn(self.bench.clock)
        after = self.accept(b"1")
        self.bench.turn()
        self.assertNoResult(before)
        self.assertNoResult(after)
        self.assertEqual((self.rows(), self.file.waiting.size), (1, 1))

    def test_not_written(self) -> None:
        """Where the disk is full each of them is told so, and what is accepted afterwards is not among them."""
        commit = self.file._commit

        def full() -> None:
            raise apsw.FullError("disk full")

        self.file._commit = full
        asked = [self.accept(b"0"), self.accept(b"1", IdempotencyClaim("key", b"print"))]
        self.bench.turn()
        for each in asked:
            self.failureResultOf(each, NotDurable)
        self.file._commit = commit
        later = [self.accept(b"2"), self.accept(b"3", IdempotencyClaim("key", b"print"))]
        self.bench.turn()
        for each in later:
            self.assertFalse(self.successResultOf(each).replayed)
        self.assertEqual(self.deliveries(), [b"2", b"3"])

    def test_refused(self) -> None:
        """Where the file is closed each is told so, and once it takes some again, they are taken."""
        self.file._damage = "it is damaged"
        for each in (self.accept(b"0"), self.accept(b"1")):
            self.failureResultOf(each, NotDurable)
        self.file._damage = None
        later = [self.accept(b"2"), self.accept(b"3")]
        self.bench.turn()
        for each in later:
            self.successResultOf(each)

    def test_unreadable_claim(self) -> None:
        """One whose claim cannot be stored keeps no other out."""
        for first in (True, False):
            asked = [] if first else [self.accept(b"0")]
            self.assertRaises(UnicodeEncodeError, self.accept, b"1", IdempotencyClaim("\udc80", b"print"))
            asked += [self.accept(b"2"), self.accept(b"3")]
            self.bench.turn()
            for each in asked:
                self.successResultOf(each)
        self.assertEqual(self.deliveries(), [b"2", b"3", b"0", b"2", b"3"])

    def test_callers_gone(self) -> None:
        """A caller that does not wait any more keeps none of the others waiting."""
        gone, other = self.accept(b"0"), self.accept(b"1")
        gone.addErrback(lambda failure: None).cancel()
        self.bench.turn()
        self.successResultOf(other)
        self.assertEqual(self.deliveries(), [b"0", b"1"])
