"""Workers without a store tell the listener what they do, and every request still ends once."""

from __future__ import annotations

from typing import Any

import apsw
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openhqm.brokered.queue import BrokeredQueue
from openhqm.codec import decode_step, encode_request, encode_step
from openhqm.errors import NotDurable, UnreadableMessage
from openhqm.interfaces import IResultStore
from openhqm.messages import Priority, Reply, Request, Status, Submission
from openhqm.policy.history import MOST_EVENTS
from openhqm.policy.steps import ENDED, PROGRESS, Step
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.sqlite.sql import fetch_one
from openhqm.sqlite.steps import SqliteSteps
from openhqm.storeless.ledger import StorelessLedger
from openhqm.storeless.results import NullResultStore
from openhqm.storeless.steps_consumer import Following
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS
from tests.benches import BrokeredBench
from tests.brokered.memory_broker import MemoryBroker
from tests.brokered.test_kills import Life

RESPONSES = "answers"
IN_ORDER = f"{REQUESTS}._0"


class ListenerBench(BrokeredBench):
    """The process that has the file, and follows."""

    def make_queue(self) -> Any:
        self.broker = MemoryBroker(self.server, self.clock, self.traits)
        self.ledger = SqliteLedger(self.file, self.store, self.clock, requests=REQUESTS, dead_letters=DEAD_LETTERS)
        following = Following(self.broker, SqliteSteps(self.file, self.store, self.ledger), self.clock, RESPONSES)
        return BrokeredQueue(
            self.broker,
            self.ledger,
            self.clock,
            requests=REQUESTS,
            dead_letters=DEAD_LETTERS,
            lease=LEASE,
            following=following,
        )


class Worker:
    """A process that only works."""

    def __init__(self, bench: ListenerBench, name: str) -> None:
        self.bench = bench
        self.broker = MemoryBroker(bench.server, bench.clock, bench.traits)
        ledger = StorelessLedger(self.broker, bench.clock, requests=REQUESTS, responses=RESPONSES, name=name)
        self.queue = BrokeredQueue(
            self.broker, ledger, bench.clock, requests=REQUESTS, dead_letters=DEAD_LETTERS, lease=LEASE
        )
        self.queue.start()

    def kill(self) -> None:
        """kill -9: what it had on loan may be lent to others, and it says nothing more."""
        self.broker.step = lambda name, step: Deferred()
        self.broker.crash()
        self.bench.server.wake()


class Told(SynchronousTestCase):
    """One listener, and workers beside it."""

    def setUp(self) -> None:
        self.bench = ListenerBench()
        self.addCleanup(lambda: self.bench.close())
        self.endings: list[str] = []
        self.bench.store.on_ending.append(lambda number, status: self.endings.append(status))
        self.worker = Worker(self.bench, "a")

    def do(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(self.bench.done(deferred))

    def accepted(self, **fields: Any) -> str:
        correlation_id: str = self.do(self.bench.queue.accept(Submission(b"1", **fields), None)).correlation_id
        return correlation_id

    def one(self, worker: Worker | None = None, queue: str = REQUESTS) -> Any:
        (loan,) = self.do((worker or self.worker).queue.receive(queue, 1, in_order=queue == IN_ORDER))
        return loan

    def reply(self, loan: Any, status: Status = Status.COMPLETED, result: bytes = b"1") -> Reply:
        id = loan.request.correlation_id
        return Reply(id, status, self.bench.now(), result=result, attempt=loan.attempt)

    def settle(self, loan: Any, **fields: Any) -> None:
        self.assertTrue(self.do(loan.settle(self.reply(loan, **fields))))

    def record(self, correlation_id: str) -> Any:
        return self.do(self.bench.store.find(correlation_id))

    def types(self, correlation_id: str) -> list[str]:
        return [event.type for event in self.do(self.bench.store.history(correlation_id, 0))]

    def left(self, queue: str = RESPONSES) -> int:
        self.bench.turn()
        return len(self.bench.server.queues.get(queue, []))

    def letters(self) -> list[Any]:
        return [letter for _, letter in self.do(self.bench.queue.dead_letters(0, 10))]

    def tell(self, body: bytes) -> None:
        broker = self.worker.broker
        self.do(broker.publish(RESPONSES, body, attempts=0, priority=Priority.NORMAL, delay=0))

    def nothing_is_left(self) -> None:
        self.assertEqual([len(messages) for messages in self.bench.server.queues.values() if messages], [])
        for table in ("unpublished", "copies", "inflight", "told"):
            self.assertEqual(fetch_one(self.bench.file.reader, f"SELECT count(*) FROM {table}"), (0,), table)

    def test_straight(self) -> None:
        """Everything a worker does is in the history, in its order, and the answer is there."""
        id = self.accepted()
        loan = self.one()
        self.assertEqual(self.record(id).status, Status.PROCESSING)
        for step in (1, 2):
            self.do(loan.progress({"step": step}))
        self.settle(loan)
        self.assertEqual(self.types(id), ["pending", "processing", "progress", "progress", "completed"])
        self.assertEqual((self.record(id).reply.result, self.record(id).attempt), (b"1", 1))
        self.bench.pass_time(2)
        self.nothing_is_left()
        self.assertEqual(self.endings, ["COMPLETED"])

    def test_watched(self) -> None:
        """Who watches on the listener sees each step as it is told."""
        id = self.accepted()
        seen: list[str] = []
        self.bench.store.watch(id, lambda event: seen.append(event.type))
        loan = self.one()
        self.do(loan.progress({}))
        self.settle(loan)
        self.assertEqual(seen, ["processing", "progress", "completed"])

    def test_retry(self) -> None:
        """A retry waits in the broker, and the next attempt counts on, in whichever worker."""
        id = self.accepted()
        self.do(self.one().retry(10, "no luck"))
        self.assertEqual(self.record(id).next_attempt_at, self.bench.now() + 10)
        other = Worker(self.bench, "b")
        waiting = other.queue.receive(REQUESTS, 1)
        self.bench.pass_time(9)
        self.assertNoResult(waiting)
        self.bench.pass_time(1)
        (loan,) = self.do(waiting)
        self.assertEqual(loan.attempt, 2)
        self.settle(loan)
        self.assertEqual(self.types(id), ["pending", "processing", "retrying", "processing", "completed"])
        self.nothing_is_left()

    def test_retry_in_order(self) -> None:
        """In order the copy is kept, nothing overtakes it, and its attempts count on."""
        first, second = self.accepted(partition=0), self.accepted(partition=0)
        self.do(self.one(queue=IN_ORDER).retry(10, "no luck"))
        waiting = self.worker.queue.receive(IN_ORDER, 1, in_order=True)
        self.bench.pass_time(9)
        self.assertNoResult(waiting)
        self.bench.pass_time(2)
        (loan,) = self.do(waiting)
        self.assertEqual((loan.request.correlation_id, loan.attempt), (first, 2))
        self.settle(loan)
        loan = self.one(queue=IN_ORDER)
        self.assertEqual((loan.request.correlation_id, loan.attempt), (second, 1))

    def test_given_back(self) -> None:
        """What is given back was no attempt."""
        self.accepted()
        self.do(self.one().release())
        loan = self.one()
        self.assertEqual(loan.attempt, 1)
        self.settle(loan)
        self.nothing_is_left()

    def test_given_back_without_a_broker(self) -> None:
        """Where no copy can take its place it goes back as it is: nothing is lost, and the attempt counts."""
        self.accepted()
        loan = self.one()
        self.worker.broker.mood = "refuses"
        self.do(loan.release())
        self.worker.broker.mood = None
        self.assertEqual(self.one().attempt, 2)

    def test_dead_letter(self) -> None:
        """It rests with the listener, with the whole request."""
        id = self.accepted(headers={"X-Kind": "a"})
        loan = self.one()
        self.assertTrue(self.do(loan.dead_letter("gave up", self.reply(loan, Status.FAILED))))
        (letter,) = self.letters()
        self.assertEqual((letter.reason, letter.request), ("gave up", loan.request))
        self.assertEqual(self.record(id).status, Status.FAILED)
        again = self.do(self.bench.queue.redrive(1))
        loan = self.one()
        self.assertEqual((loan.request.correlation_id, loan.attempt), (again.correlation_id, 1))

    def test_no_request(self) -> None:
        """Bytes among the requests that are none rest with the listener, too."""
        self.do(self.worker.broker.publish(REQUESTS, b"junk", attempts=0, priority=Priority.NORMAL, delay=0))
        self.worker.queue.receive(REQUESTS, 1)
        self.bench.turn()
        self.assertEqual([letter.request.submission.body for letter in self.letters()], [b"junk"])
        self.assertEqual(self.left(REQUESTS), 0)

    def test_killed_worker(self) -> None:
        """What a killed worker had is lent to another, as the next attempt."""
        id = self.accepted()
        self.one()
        self.worker.kill()
        loan = self.one(Worker(self.bench, "b"))
        self.assertEqual(loan.attempt, 2)
        self.settle(loan)
        self.assertEqual(self.types(id), ["pending", "processing", "processing", "completed"])

    def test_deadline(self) -> None:
        """What comes past its deadline is not begun: it has ended."""
        id = self.accepted(timeout=10, not_before=self.bench.now() + 20)
        waiting = self.worker.queue.receive(REQUESTS, 1)
        self.bench.pass_time(21)
        self.assertNoResult(waiting)
        self.assertEqual(self.record(id).status, Status.TIMEOUT)
        self.assertEqual((self.left(REQUESTS), self.left()), (0, 0))

    def test_cancelled(self) -> None:
        """A worker is not told; what it says afterwards changes nothing, and leaves no dead letter."""
        id = self.accepted()
        loan = self.one()
        self.do(self.bench.store.cancel(id))
        self.do(loan.progress({}))
        self.do(loan.dead_letter("gave up", self.reply(loan, Status.FAILED)))
        self.assertEqual(self.types(id), ["pending", "processing", "cancelled"])
        self.assertEqual((self.letters(), self.endings), ([], ["CANCELLED"]))

    def test_first_ending(self) -> None:
        """Two attempts at once end it once; the first one told is the ending, whichever attempt it was."""
        id = self.accepted()
        first = self.one()
        self.bench.server.duplicate(REQUESTS)
        other = Worker(self.bench, "b")
        second = self.one(other)
        self.settle(second, result=b'"second"')
        self.settle(first, result=b'"first"')
        self.assertEqual((self.record(id).reply.result, self.endings), (b'"second"', ["COMPLETED"]))

    def test_told_twice(self) -> None:
        """Each step may come twice, and is there once."""
        id = self.accepted()
        self.bench.broker.lose_connection()  # the listener hears nothing for now
        loan = self.one()
        self.do(loan.progress({"step": 1}))
        self.do(loan.retry(0, "no luck"))
        loan = self.one()
        self.settle(loan)
        self.assertEqual(self.left(), 5)
        self.bench.server.duplicate(RESPONSES)
        self.bench.broker.come_back()
        self.assertEqual(self.left(), 0)
        self.assertEqual(self.types(id), ["pending", "processing", "progress", "retrying", "processing", "completed"])
        self.assertEqual(self.endings, ["COMPLETED"])

    def test_confirmation_lost(self) -> None:
        """A step whose confirmation got lost is told again, and is there once."""
        id = self.accepted()
        loan = self.one()
        self.worker.broker.mood = "deaf"
        self.failureResultOf(self.bench.done(loan.retry(10, "no luck")), NotDurable)
        self.worker.broker.mood = None
        self.do(loan.retry(10, "no luck"))
        self.assertEqual(self.types(id), ["pending", "processing", "retrying"])
        self.bench.pass_time(11)
        self.settle(self.one())
        self.assertEqual(self.endings, ["COMPLETED"])

    def test_nobody_can_be_told(self) -> None:
        """An ending that nobody has heard is none: the loan goes on until it is told."""
        id = self.accepted()
        loan = self.one()
        self.worker.broker.mood = "refuses"
        self.failureResultOf(self.bench.done(loan.settle(self.reply(loan))), NotDurable)
        self.assertEqual(self.left(REQUESTS), 1)
        self.worker.broker.mood = None
        self.settle(loan)
        self.assertEqual(self.record(id).status, Status.COMPLETED)
        self.nothing_is_left()

    def test_nobody_can_be_told_of_a_beginning(self) -> None:
        """What cannot be begun is no attempt, however long that lasts: it is begun as the first one in the end."""
        ids = [self.accepted(), self.accepted(partition=0)]
        self.worker.broker.mood = "refuses"
        waiting = [self.worker.queue.receive(queue, 1, in_order=queue == IN_ORDER) for queue in (REQUESTS, IN_ORDER)]
        self.bench.pass_time(10)
        self.worker.broker.mood = None
        self.bench.pass_time(1)
        loans = [self.do(each)[0] for each in waiting]
        self.assertEqual([(loan.request.correlation_id, loan.attempt) for loan in loans], [(id, 1) for id in ids])
        for loan in loans:
            self.settle(loan)
        self.nothing_is_left()

    def test_gave_up_while_nobody_could_be_told(self) -> None:
        """Whoever gives up meanwhile, or is stopped, leaves it to others."""
        self.accepted()
        other = Worker(self.bench, "b")
        self.worker.broker.mood = "refuses"
        waiting = self.worker.queue.receive(REQUESTS, 1)
        self.bench.pass_time(2)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        waiting.cancel()
        id = self.one(other).request.correlation_id
        other.kill()
        waiting = self.worker.queue.receive(REQUESTS, 1)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        self.bench.pass_time(2)
        self.worker.queue.stop()
        self.assertEqual(self.one(Worker(self.bench, "c")).request.correlation_id, id)

    def test_taken_back_while_nobody_could_be_told(self) -> None:
        """What the broker takes back meanwhile is another's; who has kept it takes what comes next."""
        first = self.accepted()
        self.worker.broker.mood = "refuses"
        waiting = self.worker.queue.receive(REQUESTS, 1)
        self.bench.pass_time(2)
        self.worker.broker.lose_connection()
        self.assertEqual(self.one(Worker(self.bench, "b")).request.correlation_id, first)
        self.worker.broker.come_back()
        self.worker.broker.mood = None
        self.bench.pass_time(2)
        second = self.accepted()
        (loan,) = self.do(waiting)
        self.assertEqual(loan.request.correlation_id, second)

    def test_some_cannot_be_told_of(self) -> None:
        """Whoever can be begun is not held up by those who cannot."""
        ids = [self.accepted(), self.accepted()]
        told: list[str] = []

        def only_the_first(name: str, act: Any) -> Deferred[Any]:
            told.append(name)
            return fail(NotDurable("no more")) if told[1:] and name == "publish" else act()

        self.worker.broker.step = only_the_first
        (loan,) = self.do(self.worker.queue.receive(REQUESTS, 2))
        self.assertEqual((loan.request.correlation_id, loan.attempt), (ids[0], 1))
        self.assertEqual(self.one(Worker(self.bench, "b")).request.correlation_id, ids[1])

    def test_listener_away(self) -> None:
        """Workers go on while the listener is down; it learns of everything when it is back."""
        ids = [self.accepted() for _ in range(3)]
        self.bench.forget()
        for _ in ids:
            self.settle(self.one())
        self.assertEqual(self.left(), 6)
        self.bench.open()
        self.assertEqual(self.left(), 0)
        self.assertEqual([self.types(id) for id in ids], [["pending", "processing", "completed"]] * 3)

    def test_killed_listener(self) -> None:
        """The listener dies at each of its steps, and what was told is in the books once."""
        for last in range(1, 12):
            for after in (False, True):
                self.killed_listener(last, after)

    def killed_listener(self, last: int, after: bool) -> None:
        self.bench.close()
        bench = self.bench = ListenerBench()
        id = self.accepted()
        self.bench.pass_time(2)
        life = Life(bench, last, after)
        self.worker = Worker(bench, "a")
        loan = self.one()
        self.do(loan.progress({}))
        self.do(loan.retry(5, "no luck"))
        bench.pass_time(5)
        loan = self.one()
        self.do(loan.dead_letter("gave up", self.reply(loan, Status.FAILED)))
        del bench.run_commit
        bench.crash()
        bench.pass_time(2)
        with_words = f"killed {'after' if after else 'before'} {life.steps}"
        steps = ["pending", "processing", "progress", "retrying", "processing", "failed"]
        self.assertEqual(self.types(id), steps, with_words)
        self.assertEqual([letter.request.correlation_id for letter in self.letters()], [id], with_words)
        self.nothing_is_left()

    def test_killed_worker_at_each_step(self) -> None:
        """The worker dies at each of its steps; another one goes on, and the request ends once."""
        for last in range(1, 10):
            for after in (False, True):
                self.killed_worker(last, after)

    def killed_worker(self, last: int, after: bool) -> None:
        self.endings.clear()
        id = self.accepted()
        worker = Worker(self.bench, f"{last}{after}")
        steps: list[str] = []

        def step(name: str, act: Any) -> Deferred[Any]:
            steps.append(name)
            if len(steps) < last:
                return act()  # type: ignore[no-any-return]
            if len(steps) == last and after:
                act()
            return Deferred()

        worker.broker.step = step

        async def story() -> None:
            (loan,) = await worker.queue.receive(REQUESTS, 1)
            await loan.progress({})
            await loan.retry(5, "no luck")
            (loan,) = await worker.queue.receive(REQUESTS, 1)
            await loan.settle(self.reply(loan))

        told = Deferred.fromCoroutine(story())
        self.bench.pass_time(6)
        worker.kill()
        other = Worker(self.bench, f"{last}{after}b")
        more = [other.queue.receive(REQUESTS, 1)]
        for _ in range(4):
            self.bench.pass_time(6)
            if more[-1].called:
                (loan,) = self.do(more[-1])
                self.settle(loan)
                more.append(other.queue.receive(REQUESTS, 1))
        other.queue.stop()
        more[-1].addErrback(lambda failure: None)
        self.bench.turn()
        with_words = f"killed {'after' if after else 'before'} {steps}"
        self.assertEqual((self.record(id).status, self.endings), (Status.COMPLETED, ["COMPLETED"]), with_words)
        self.assertEqual(len([each for each in self.types(id) if each == "completed"]), 1, with_words)
        self.nothing_is_left()
        told.addErrback(lambda failure: None)

    def test_disk_full(self) -> None:
        """While the books cannot be written, nothing that was told is let go of."""
        id = self.accepted()
        loan = self.one()
        self.bench.run_commit = lambda commit: fail(apsw.FullError("full"))  # type: ignore[method-assign]
        self.settle(loan)
        self.assertEqual(self.left(), 1)
        del self.bench.run_commit
        self.bench.pass_time(5)
        self.assertEqual((self.left(), self.record(id).status), (0, Status.COMPLETED))

    def test_unreadable(self) -> None:
        """What cannot be read is a dead letter with all its bytes, and what comes after it is read."""
        id = self.accepted()
        loan = self.one()
        self.tell(b"junk")
        self.settle(loan)
        (letter,) = self.letters()
        self.assertEqual(letter.request.submission.body, b"junk")
        self.assertIn(RESPONSES, letter.reason)
        self.assertEqual(self.record(id).status, Status.COMPLETED)
        self.assertEqual(self.left(), 0)

    def test_another_store(self) -> None:
        """The ending of a request that another store has accepted is a dead letter, with the answer in it."""
        submission = Submission(b"1")
        request = Request("00000000-0000-4000-8000-000000000000", self.bench.now(), submission)
        broker = self.worker.broker
        self.do(broker.publish(REQUESTS, encode_request(request), attempts=0, priority=Priority.NORMAL, delay=0))
        self.settle(self.one(), result=b'"answer"')
        (letter,) = self.letters()
        self.assertIn("was not given out by this store", letter.reason)
        self.assertIn(b'"answer"', letter.request.submission.body)

    def test_too_much_progress(self) -> None:
        """What is beyond the limits of a history is refused where it is said, or left out where it is written."""
        id = self.accepted()
        loan = self.one()
        self.failureResultOf(self.bench.done(loan.progress({"much": "x" * 100_000})), ValueError)
        for _ in range(MOST_EVENTS):
            self.bench.done(loan.progress({})).addErrback(lambda failure: failure.trap(ValueError))
        self.settle(loan)
        self.assertEqual(self.record(id).status, Status.COMPLETED)
        self.assertLessEqual(len(self.types(id)), MOST_EVENTS + 2)

    def test_accepts_nothing(self) -> None:
        """A process without a store says so to whoever asks it for more than work."""
        self.failureResultOf(self.worker.queue.accept(Submission(b"1"), None), NotDurable)
        for asked in (self.worker.queue.redrive(1), self.worker.queue.dead_letters(0, 1)):
            self.failureResultOf(asked, NotDurable)
        store = NullResultStore()
        self.assertTrue(verifyObject(IResultStore, store))
        for asked in (store.find("x"), store.history("x", 0), store.cancel("x")):
            self.failureResultOf(asked, NotDurable)


class Words(SynchronousTestCase):
    """What is told, as bytes."""

    def test_round_trip(self) -> None:
        """A step comes back as it was."""
        reply = Reply("id", Status.FAILED, 2.0, body=b"\xff", error="no luck", attempt=3)
        for step in (
            Step("id", "a 1", PROGRESS, 1.5, {"step": [1]}),
            Step("id", "a", ENDED, 2.0, {}, reply, "gave up"),
        ):
            self.assertEqual(decode_step(encode_step(step)), step)

    def test_unreadable(self) -> None:
        """What is no step is refused, with the reason."""
        step = encode_step(Step("id", "a", PROGRESS, 1.0))
        for body in (b"", b"{}", step.replace(b'"progress"', b'"magic"'), step.replace(b'"progress"', b'"ended"')):
            with self.assertRaises(UnreadableMessage):
                decode_step(body)
        reply = Reply("id", Status.FAILED, 2.0)
        with self.assertRaises(ValueError):
            Step("id", "a", ENDED, 1.0, reply=evolve(reply, correlation_id="another"))
