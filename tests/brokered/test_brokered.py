"""A queue and a store in two places keep the same promises, whatever the broker does."""

from __future__ import annotations

from typing import Any

import apsw
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import encode_request
from openhqm.errors import DeliveryClosed, NotDurable
from openhqm.messages import Acceptance, IdempotencyClaim, Priority, Reply, Request, Status, Submission
from openhqm.sqlite.sql import fetch_one
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS, backend_contract
from tests.benches import BrokeredBench, brokered_bench
from tests.brokered.memory_broker import TRAITS

CLAIM = IdempotencyClaim("key", b"print")
IN_ORDER = f"{REQUESTS}._0"


class BrokeredContract(backend_contract(brokered_bench)):  # type: ignore[misc]
    """A broker in memory, and the books in the embedded file."""


del backend_contract


class Books(SynchronousTestCase):
    """A broker in memory, and the books in the embedded file."""

    def setUp(self) -> None:
        self.bench = BrokeredBench()
        self.addCleanup(lambda: self.bench.close())

    @property
    def broker(self) -> Any:
        return self.bench.broker

    def do(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(self.bench.done(deferred))

    def accept(self, claim: IdempotencyClaim | None = None, **fields: Any) -> Deferred[Acceptance]:
        return self.bench.done(self.bench.queue.accept(Submission(b"1", **fields), claim))

    def accepted(self, claim: IdempotencyClaim | None = None, **fields: Any) -> Acceptance:
        found: Acceptance = self.successResultOf(self.accept(claim, **fields))
        return found

    def receive(self, queue: str = REQUESTS, most: int = 5) -> Deferred[Any]:
        return self.bench.done(self.bench.queue.receive(queue, most, in_order=queue == IN_ORDER))

    def one(self, queue: str = REQUESTS) -> Any:
        (loan,) = self.successResultOf(self.receive(queue))
        return loan

    def reply(self, loan: Any) -> Reply:
        return Reply(loan.request.correlation_id, Status.COMPLETED, self.bench.now(), result=b"1", attempt=loan.attempt)

    def settle(self, loan: Any) -> bool:
        first: bool = self.do(loan.settle(self.reply(loan)))
        return first

    def status(self, accepted: Acceptance) -> Status:
        status: Status = self.do(self.bench.store.find(accepted.correlation_id)).status
        return status

    def left(self, queue: str = REQUESTS) -> int:
        return len(self.bench.server.queues.get(queue, []))

    def rows(self, table: str) -> int:
        count: int = fetch_one(self.bench.file.reader, f"SELECT count(*) FROM {table}")[0]
        return count

    def break_the_disk(self) -> None:
        self.bench.run_commit = lambda commit: fail(apsw.FullError("the disk is full"))  # type: ignore[method-assign]

    def mend_the_disk(self) -> None:
        del self.bench.run_commit


class Faults(Books):
    """A broker that is told what to do wrong."""

    def test_stopped_while_it_is_lent(self) -> None:
        """Who is stopped in the moment in which a request is lent gives it back, uncounted."""
        accepted = self.accepted()
        waiting = self.bench.queue.receive(REQUESTS, 1)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.bench.store.stop()
        self.successResultOf(self.bench.done(self.bench.queue.stop()))
        self.bench.open()
        loan = self.one()
        self.assertEqual((loan.request.correlation_id, loan.attempt), (accepted.correlation_id, 1))

    # Accepting

    def test_refused(self) -> None:
        """What the broker refuses is not accepted, and its key is free again."""
        self.broker.mood = "refuses"
        self.failureResultOf(self.accept(CLAIM), NotDurable)
        self.assertEqual((self.rows("messages"), self.rows("claims"), self.rows("unpublished")), (0, 0, 0))
        self.broker.mood = None
        accepted = self.accepted(CLAIM)
        self.assertFalse(accepted.replayed)
        self.assertEqual(self.one().request.correlation_id, accepted.correlation_id)

    def test_away(self) -> None:
        """While the broker is known to be away nothing is written for what it cannot have; a repeat is still known."""
        first = self.accepted(CLAIM)
        self.broker.away = True
        self.assertEqual(self.bench.queue.unavailable_reason, "the broker is away")
        rows = self.rows("messages")
        self.failureResultOf(self.accept(), NotDurable)
        self.assertEqual(self.rows("messages"), rows)
        self.assertEqual(self.accepted(CLAIM), evolve(first, replayed=True))

    def test_confirmation_lost(self) -> None:
        """A copy of what was taken back is passed over, and a repeat is a request of its own."""
        self.broker.mood = "deaf"
        self.failureResultOf(self.accept(CLAIM), NotDurable)
        self.broker.mood = None
        again = self.accepted(CLAIM)
        self.assertEqual(self.left(), 2)
        loan = self.one()
        self.assertEqual((loan.request.correlation_id, loan.attempt), (again.correlation_id, 1))
        self.assertEqual(self.left(), 1)

    def test_begun_before_it_is_taken_back(self) -> None:
        """Where somebody works on it already it was accepted, whatever the broker said."""
        waiting = self.receive()
        self.broker.mood = "deaf"
        accepted = self.accepted(CLAIM)
        (loan,) = self.successResultOf(waiting)
        self.assertEqual(loan.request.correlation_id, accepted.correlation_id)
        self.assertTrue(self.settle(loan))

    def test_cannot_be_taken_back(self) -> None:
        """Where taking back fails as well, it is published later, and a repeat under its key is answered for it."""
        self.broker.mood = "stalls"
        accepting = self.accept(CLAIM)
        self.assertNoResult(accepting)
        self.break_the_disk()
        self.broker.lose_connection()
        self.bench.turn()
        self.failureResultOf(accepting, NotDurable)
        self.mend_the_disk()
        self.broker.mood = None
        self.broker.come_back()
        self.bench.pass_time(3)
        again = self.accepted(CLAIM)
        self.assertTrue(again.replayed)
        self.assertEqual(self.left(), 0)
        self.bench.pass_time(40)
        self.assertEqual(self.one().request.correlation_id, again.correlation_id)

    def test_told_before_it_is_taken_back(self) -> None:
        """An id that a repeat was told is not taken back: both callers have it, and it is published later."""
        self.broker.mood = "stalls"
        accepting = self.accept(CLAIM)
        repeated = self.accepted(CLAIM)
        self.assertTrue(repeated.replayed)
        self.broker.lose_connection()
        self.broker.mood = None
        self.bench.turn()
        self.assertEqual(self.successResultOf(accepting), evolve(repeated, replayed=False))
        self.broker.come_back()
        self.bench.pass_time(40)
        loan = self.one()
        self.assertEqual(loan.request.correlation_id, repeated.correlation_id)
        self.assertTrue(self.settle(loan))
        self.bench.pass_time(40)
        self.assertEqual((self.left(), self.rows("unpublished")), (0, 0))

    def test_marks_are_taken_away_together(self) -> None:
        """Marks cost no commit of their own for each request, and none that somebody waits for."""
        self.bench.turn()
        commits: list[int] = []
        commit = self.bench.run_commit
        self.bench.run_commit = lambda call: (commits.append(1), commit(call))[1]  # type: ignore[method-assign]
        for _ in range(50):
            self.accepted()
        self.assertEqual(len(commits), 50)
        self.assertEqual(self.rows("unpublished"), 50)
        self.bench.pass_time(1.0)
        self.assertEqual(self.rows("unpublished"), 0)
        self.assertLess(len(commits), 55)

    def test_stop_in_order(self) -> None:
        """Whoever stops in order leaves no marks to be published once more."""
        self.accepted()
        self.assertEqual(self.rows("unpublished"), 1)
        self.do(self.bench.queue.stop())
        self.bench.open()
        self.assertEqual(self.rows("unpublished"), 0)
        self.bench.pass_time(1)
        self.assertEqual(self.broker.published, [])
        self.one()

    def test_stop_while_it_publishes(self) -> None:
        """Stopping waits for nothing that the broker will never say."""
        self.broker.mood = "refuses"
        self.accepted_and_retried()
        self.broker.mood = "stalls"
        self.bench.pass_time(40)
        self.assertEqual(len(self.broker._stalled), 1)
        self.do(self.bench.queue.stop())
        self.bench.open()
        self.bench.pass_time(1)
        self.assertEqual(self.left(), 1)

    def accepted_and_retried(self) -> None:
        """A request whose next copy the broker does not have."""
        self.broker.mood, mood = None, self.broker.mood
        self.accepted()
        loan = self.one()
        self.broker.mood = mood
        self.do(loan.retry(1, "no luck"))
        self.assertEqual(self.left(), 0)

    # Copies

    def test_duplicates(self) -> None:
        """A copy that comes twice is worked on once, as one attempt, and nothing of it is left."""
        accepted = self.accepted()
        self.bench.server.duplicate(REQUESTS)
        (loan,) = self.successResultOf(self.receive())
        self.assertEqual((loan.attempt, self.left()), (1, 1))
        self.bench.server.duplicate(REQUESTS)
        self.assertNoResult(self.receive())
        self.assertTrue(self.settle(loan))
        self.assertEqual((self.status(accepted), self.left()), (Status.COMPLETED, 0))

    def test_duplicate_of_what_is_held(self) -> None:
        """A copy too many of what waits for its retry in order does not stand in for it."""
        self.accepted(partition=0)
        loan = self.one(IN_ORDER)
        self.do(loan.retry(10, "no luck"))
        self.bench.server.duplicate(IN_ORDER)
        self.bench.pass_time(11)
        again = self.one(IN_ORDER)
        self.assertEqual(again.attempt, 2)
        self.assertTrue(self.settle(again))
        self.assertNoResult(self.receive(IN_ORDER))
        self.assertEqual(self.left(IN_ORDER), 0)

    def test_stale_copy(self) -> None:
        """A copy from before a retry is passed over when it comes again: the retry keeps its time and its number."""
        self.accepted()
        loan = self.one()
        self.broker.step = lambda name, step: fail(NotDurable("gone")) if name == "ack" else step()
        self.do(loan.retry(10, "no luck"))
        self.bench.pass_time(2)
        self.assertEqual(self.left(), 2)
        self.bench.crash()
        waiting = self.receive()
        self.bench.pass_time(7)
        self.assertNoResult(waiting)
        self.assertEqual(self.left(), 1)
        self.bench.pass_time(2)
        (again,) = self.successResultOf(waiting)
        self.assertEqual(again.attempt, 2)

    def test_retried_at_once(self) -> None:
        """The copy of a retry without delay is not taken for one too many, however quick it comes."""
        self.accepted()
        loan = self.one()
        waiting = self.receive()
        self.do(loan.retry(0, "no luck"))
        (again,) = self.successResultOf(waiting)
        self.assertEqual((again.attempt, self.left()), (2, 1))

    def test_longest_delay(self) -> None:
        """A delay beyond what the broker keeps is kept nevertheless."""
        self.bench.close()
        self.bench = BrokeredBench(evolve(TRAITS, longest_delay=10.0))
        self.assertIsNone(self.bench.queue.traits.longest_delay)
        self.accepted(not_before=self.bench.now() + 35)
        waiting = self.receive()
        self.bench.pass_time(34)
        self.assertNoResult(waiting)
        self.bench.pass_time(2)
        (loan,) = self.successResultOf(waiting)
        self.assertEqual((loan.attempt, self.left()), (1, 1))
        self.do(loan.retry(25, "no luck"))
        waiting = self.receive()
        self.bench.pass_time(24)
        self.assertNoResult(waiting)
        self.bench.pass_time(2)
        (loan,) = self.successResultOf(waiting)
        self.assertEqual((loan.attempt, self.left()), (2, 1))

    def test_unreadable(self) -> None:
        """Bytes that are no request become a dead letter, with all of them, and do not come again."""
        self.do(self.broker.publish(REQUESTS, b"\xff no", attempts=0, priority=Priority.NORMAL, delay=0))
        accepted = self.accepted()
        self.assertEqual(self.one().request.correlation_id, accepted.correlation_id)
        self.assertEqual(self.left(), 1)
        ((_, letter),) = self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual(letter.request.submission.body, b"\xff no")
        self.assertIn("not a request", letter.reason)

    def test_id_of_another_store(self) -> None:
        """A request that another store gave its id becomes a dead letter, and can be tried anew."""
        stranger = Request("11111111-1111-4111-8111-111111111111", 1.0, Submission(b'"x"'))
        body = encode_request(stranger)
        self.do(self.broker.publish(REQUESTS, body, attempts=0, priority=Priority.NORMAL, delay=0))
        waiting = self.receive()
        self.assertNoResult(waiting)
        self.assertEqual(self.left(), 0)
        ((number, letter),) = self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual(letter.request, stranger)
        redriven = self.do(self.bench.queue.redrive(number))
        (loan,) = self.successResultOf(waiting)
        self.assertEqual(loan.request.correlation_id, redriven.correlation_id)

    # Loans

    def test_connection_lost(self) -> None:
        """What the broker has taken back is revoked, settles nothing, and is lent anew."""
        accepted = self.accepted()
        late = self.one()
        self.broker.lose_connection()
        self.assertEqual(self.successResultOf(late.revoked), "lease lost")
        self.failureResultOf(self.bench.done(late.settle(self.reply(late))), DeliveryClosed)
        self.broker.come_back()
        again = self.one()
        self.assertEqual(again.attempt, 2)
        self.assertTrue(self.settle(again))
        self.assertEqual(self.status(accepted), Status.COMPLETED)

    def test_connection_lost_while_it_is_settled(self) -> None:
        """An ending that is in the books stands; the copy that comes again is passed over."""
        accepted = self.accepted()
        loan = self.one()
        settling = loan.settle(self.reply(loan))
        self.broker.lose_connection()
        self.assertTrue(self.do(settling))
        self.assertEqual((self.status(accepted), self.left()), (Status.COMPLETED, 1))
        self.broker.come_back()
        self.assertNoResult(self.receive())
        self.assertEqual(self.left(), 0)

    def test_connection_lost_and_disk_broken(self) -> None:
        """A settling that is nowhere, of a loan that is over, leaves the request to the next attempt."""
        self.accepted()
        loan = self.one()
        self.break_the_disk()
        settling = loan.settle(self.reply(loan))
        self.broker.lose_connection()
        self.failureResultOf(self.bench.done(settling), NotDurable)
        self.assertEqual(self.successResultOf(loan.revoked), "lease lost")
        self.failureResultOf(self.bench.done(loan.settle(self.reply(loan))), DeliveryClosed)
        self.mend_the_disk()
        self.broker.come_back()
        self.bench.pass_time(3)
        self.assertEqual(self.one().attempt, 2)

    def test_retry_while_the_broker_is_away(self) -> None:
        """A retry is kept by the books, and published once the broker is back, at its time."""
        self.accepted()
        loan = self.one()  # the mark of the acceptance was not taken away yet: that comes after the next one is set
        self.broker.mood = "refuses"
        self.do(loan.retry(50, "no luck"))
        self.bench.pass_time(5)
        self.assertEqual((self.rows("unpublished"), self.left()), (1, 0))
        self.broker.mood = None
        waiting = self.receive()
        self.bench.pass_time(44)
        self.assertNoResult(waiting)
        self.bench.pass_time(2)
        (again,) = self.successResultOf(waiting)
        self.assertEqual(again.attempt, 2)
        self.bench.pass_time(2)
        self.assertEqual(self.rows("unpublished"), 0)

    def test_redriven_while_the_broker_is_away(self) -> None:
        """What is redriven is kept by the books, too."""
        self.accepted()
        loan = self.one()
        self.do(loan.dead_letter("gave up", evolve(self.reply(loan), status=Status.FAILED)))
        self.broker.mood = "refuses"
        redriven = self.do(self.bench.queue.redrive(1))
        self.broker.mood = None
        self.bench.pass_time(40)
        self.assertEqual(self.one().request.correlation_id, redriven.correlation_id)

    def test_books_closed(self) -> None:
        """What cannot be counted is not lent: it goes back, and is looked at again in a while, not all the time."""
        self.accepted()
        self.bench.pass_time(2)
        self.break_the_disk()
        asked: list[int] = []
        receive = self.broker.receive
        self.broker.receive = lambda *names, **words: (asked.append(1), receive(*names, **words))[1]
        waiting = self.receive()
        self.bench.pass_time(10)
        self.assertNoResult(waiting)
        self.assertLess(len(asked), 15)
        self.mend_the_disk()
        self.bench.pass_time(3)
        (loan,) = self.successResultOf(waiting)
        self.assertEqual(loan.attempt, 1)

    def test_cancelled_while_it_is_lent(self) -> None:
        """A request that ends in the moment in which it is lent is revoked at once."""
        accepted = self.accepted()
        lending = self.bench.queue.receive(REQUESTS, 1)
        self.bench.store.cancel(accepted.correlation_id)
        (loan,) = self.successResultOf(self.bench.done(lending))
        self.assertEqual(self.successResultOf(loan.revoked), "CANCELLED")

    def test_cancelled_while_it_is_held(self) -> None:
        """One that is cancelled in the moment in which it begins to wait for its retry in order holds nobody up."""
        first = self.accepted(partition=0)
        second = self.accepted(partition=0)
        loan = self.one(IN_ORDER)
        retrying = loan.retry(1000, "no luck")
        self.bench.store.cancel(first.correlation_id)
        self.do(retrying)
        self.assertEqual(self.one(IN_ORDER).request.correlation_id, second.correlation_id)

    def test_connection_lost_while_it_is_held(self) -> None:
        """What is held and taken back is held again when it comes again, until it is due."""
        self.accepted(partition=0)
        self.do(self.one(IN_ORDER).retry(20, "no luck"))
        waiting = self.receive(IN_ORDER)
        self.broker.lose_connection()
        self.broker.come_back()
        self.bench.pass_time(19)
        self.assertNoResult(waiting)
        self.bench.pass_time(2)
        (again,) = self.successResultOf(waiting)
        self.assertEqual(again.attempt, 2)
        self.assertTrue(self.settle(again))
        self.assertEqual(self.left(IN_ORDER), 0)

    def lose_and_come_back(self) -> None:
        self.broker.lose_connection()
        self.broker.come_back()

    def test_connection_lost_while_it_is_given_back(self) -> None:
        """The copy that comes again stands in for the one that was taken back, and is not one too many."""
        self.accepted()
        loan = self.one()
        giving = loan.release()
        waiting = self.bench.queue.receive(REQUESTS, 1)
        self.lose_and_come_back()
        self.do(giving)
        (again,) = self.successResultOf(waiting)
        self.assertTrue(self.settle(again))
        self.assertEqual(self.left(), 0)

    def test_connection_lost_while_it_is_begun(self) -> None:
        """What is taken back while its attempt is counted is revoked, and comes again."""
        accepted = self.accepted()
        first, second = (self.bench.queue.receive(REQUESTS, 1) for _ in range(2))
        self.lose_and_come_back()
        self.bench.turn()
        (late,) = self.successResultOf(first)
        self.assertEqual(self.successResultOf(late.revoked), "lease lost")
        (again,) = self.successResultOf(second)
        self.assertEqual(again.attempt, 2)
        self.assertTrue(self.settle(again))
        self.assertEqual((self.status(accepted), self.left()), (Status.COMPLETED, 0))

    def test_connection_lost_while_it_is_to_be_held(self) -> None:
        """What is taken back in the moment in which it begins to wait is held as soon as it comes again."""
        self.accepted(partition=0)
        loan = self.one(IN_ORDER)
        retrying = loan.retry(10, "no luck")
        waiting = self.bench.queue.receive(IN_ORDER, 1, in_order=True)
        self.lose_and_come_back()
        self.do(retrying)
        self.bench.pass_time(9)
        self.assertNoResult(waiting)
        self.bench.pass_time(2)
        (again,) = self.successResultOf(waiting)
        self.assertTrue(self.settle(again))
        self.assertEqual(self.left(IN_ORDER), 0)

    def test_given_up_in_order(self) -> None:
        """What is held goes to whoever asks next, when whoever asked has given up."""
        self.accepted(partition=0)
        self.do(self.one(IN_ORDER).retry(10, "no luck"))
        waiting = self.receive(IN_ORDER)
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        self.bench.pass_time(11)
        self.assertEqual(self.one(IN_ORDER).attempt, 2)

    # Messages without a record

    def test_plain(self) -> None:
        """A message of another queue has the attempts that the broker tells, and no more than a broker's promises."""
        message = Request("11111111-1111-4111-8111-111111111111", 1.0, Submission(b'"x"'))
        self.do(self.bench.queue.publish("other", message, priority=Priority.NORMAL, delay=0))
        loan = self.one("other")
        self.do(loan.progress({"percent": 1}))
        self.do(loan.retry(10, "no luck"))
        waiting = self.receive("other")
        self.assertNoResult(waiting)
        self.bench.pass_time(11)
        (loan,) = self.successResultOf(waiting)
        self.assertEqual(loan.attempt, 2)
        self.do(loan.release())
        loan = self.one("other")
        self.bench.pass_time(LEASE + 1)
        self.assertEqual(self.successResultOf(loan.revoked), "lease lost")
        loan = self.one("other")
        self.assertTrue(self.do(loan.dead_letter("gave up", evolve(self.reply(loan), status=Status.FAILED))))
        self.assertEqual(self.left("other"), 0)
        self.assertEqual(self.do(self.bench.queue.depth(DEAD_LETTERS)).ready, 1)
