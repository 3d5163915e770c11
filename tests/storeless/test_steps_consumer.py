"""The process that accepted the requests writes down what workers report, whatever happens to it or to the broker."""

from __future__ import annotations

from collections.abc import Callable

import apsw
from twisted.internet.defer import Deferred, fail

from openhqm.codec import encode_step
from openhqm.messages import DeadLetter, Status
from openhqm.policy.history import MOST_EVENTS
from openhqm.policy.steps import PROGRESS, Step
from openhqm.storeless.steps_consumer import MOST_STEPS, StepsConsumer
from openhqm.testing import FORMS, LEASE, REQUESTS
from tests.storeless.bench import REPLIES, StorelessCase


class ConsumingTests(StorelessCase):
    """Steps that come late, twice, or when they cannot be written"""

    def test_the_listener_is_away(self) -> None:
        """Workers go on while the listener is down; it knows of all of it once it is back."""
        ids = [self.accept() for _ in range(3)]
        self.bench.pass_time(2)
        self.stop_listener()
        for _ in ids:
            self.settle(self.receive_one())
        self.assertEqual(self.depth(), 6)
        self.start_listener()
        self.assertEqual([self.types(id) for id in ids], [["pending", "processing", "completed"]] * 3)
        self.nothing_is_left()

    def test_many(self) -> None:
        """More steps than are written at once are all written."""
        id = self.accept()
        delivery = self.receive_one()
        self.stop_listener()
        for step in range(3 * MOST_STEPS):
            self.do(delivery.progress({"step": step}))
        self.settle(delivery)
        self.start_listener()
        self.bench.pass_time(1)
        self.assertEqual(self.types(id).count("progress"), 3 * MOST_STEPS)
        self.nothing_is_left()

    def test_twice(self) -> None:
        """Each step may be delivered twice, and is in the history once."""
        id = self.accept()
        self.bench.broker.lose_connection()
        delivery = self.receive_one()
        self.do(delivery.progress({"step": 1}))
        self.do(delivery.retry(0, "no luck"))
        self.bench.server.duplicate(REPLIES)
        self.bench.broker.come_back()
        self.settle(self.receive_one())
        self.assertEqual(self.types(id), ["pending", "processing", "progress", "retrying", "processing", "completed"])
        self.assertEqual(self.endings, ["COMPLETED"])
        self.nothing_is_left()

    def test_connection_lost_while_it_is_written(self) -> None:
        """A step that the broker takes back while it is written is written once."""
        id = self.accept()
        delivery = self.receive_one()
        commit = self.bench.run_commit
        waiting: list[Callable[[], None]] = []
        stalled: Deferred[None] = Deferred()
        self.bench.run_commit = lambda call: (waiting.append(call), stalled)[1]  # type: ignore[method-assign]
        self.settle(delivery)
        self.bench.turn()
        self.bench.broker.lose_connection()
        del self.bench.run_commit
        commit(waiting.pop()).chainDeferred(stalled)
        self.bench.broker.come_back()
        self.bench.pass_time(40)  # it comes again when its lease is over
        self.assertEqual((self.depth(), self.types(id)), (0, ["pending", "processing", "completed"]))

    def test_disk_full(self) -> None:
        """While the file cannot be written no report is acknowledged; they are written once it can."""
        ids = [self.accept() for _ in range(3)]
        deliveries = [self.receive_one() for _ in ids]
        self.bench.run_commit = lambda commit: fail(apsw.FullError("full"))  # type: ignore[method-assign]
        for delivery in deliveries:
            self.settle(delivery)
        self.bench.pass_time(10)
        self.assertEqual(self.depth(), 3)
        del self.bench.run_commit
        self.bench.pass_time(5)
        self.assertEqual([self.record(id).status for id in ids], [Status.COMPLETED] * 3)
        self.nothing_is_left()

    def test_stopped(self) -> None:
        """A listener that is stopped writes what it is writing, and leaves the rest to its next start."""
        ids = [self.accept(), self.accept()]
        for delivery in [self.receive_one() for _ in ids]:
            self.assertTrue(self.successResultOf(delivery.settle(self.reply(delivery))))  # no turn: it is not written
        self.bench.store.stop()
        self.do(self.bench.queue.stop())
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])
        self.start_listener()
        self.assertEqual([self.record(id).status for id in ids], [Status.COMPLETED] * 2)
        self.bench.pass_time(40)
        self.assertEqual(self.depth(), 0)

    def test_unreadable(self) -> None:
        """A message that is no report is a dead letter with all its bytes, and what comes after it is read."""
        id = self.accept()
        delivery = self.receive_one()
        self.publish(b"junk")
        self.settle(delivery)
        (letter,) = self.letters()
        self.assertEqual(letter.request.submission.body, b"junk")
        self.assertIn(REPLIES, letter.reason)
        self.assertEqual(self.record(id).status, Status.COMPLETED)
        self.assertEqual(self.depth(), 0)

    def test_too_much_progress(self) -> None:
        """Progress for which the history has no room is left out, and what comes after it is written."""
        id = self.accept()
        delivery = self.receive_one()
        for number in range(MOST_EVENTS + 10):
            self.publish(encode_step(Step(id, f"a {number}", PROGRESS, self.bench.now())))
        self.settle(delivery)
        self.assertEqual(self.types(id).count("progress"), MOST_EVENTS - 2)
        self.assertEqual(self.types(id)[-1], "completed")
        self.nothing_is_left()


class Log:
    """Where a step cannot be written for a reason that is a bug."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.letters: list[bytes | None] = []
        self.broken = True

    def note(self, step: Step) -> Deferred[None]:
        if step.name == "broken":
            raise RuntimeError("a bug")
        self.noted.append(step.name)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        if self.broken:
            raise RuntimeError("another bug")
        self.letters.append(letter.request.submission.body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done


class BugTests(StorelessCase):
    """A report that breaks whatever writes it"""

    def test_others_are_written(self) -> None:
        """It holds up no others, is not lost, and is a dead letter in the end."""
        self.stop_listener()
        log = Log()
        consumer = StepsConsumer(self.worker.broker, log, self.worker.clock, REPLIES)
        consumer.start(lambda channel: Deferred())
        steps = [Step("id", name, PROGRESS, 1.0) for name in ("a", "broken", "b")]
        for step in steps:
            self.publish(encode_step(step))
        self.bench.pass_time(3)
        self.publish(encode_step(Step("id", "c", PROGRESS, 1.0)))
        self.bench.pass_time(3)
        self.assertEqual((log.noted, self.depth()), (["a", "b", "c"], 1))
        log.broken = False
        self.bench.pass_time(2)
        self.assertEqual((log.letters, self.depth()), ([encode_step(steps[1])], 0))
        self.do(consumer.stop())
        self.assertTrue(self.flushLoggedErrors(RuntimeError))


class LossTests(StorelessCase):
    """The reply channel is deleted, with what was reported in it"""

    noticed = 120.0
    """After how many seconds it is noticed that a channel lacks a message, by the depth that the product tells."""

    def test_while_workers_work(self) -> None:
        """What is being worked on is published once more, and each request ends once, by whichever worker."""
        ids = [self.accept() for _ in range(3)]
        deliveries = [self.receive_one() for _ in ids]
        self.bench.pass_time(2)
        self.bench.server.delete(REPLIES)
        self.bench.pass_time(3)
        again = [self.receive_one(self.new_worker()) for _ in ids]
        for delivery in (deliveries[0], *again, *deliveries[1:]):
            self.settle(delivery)
        self.assertEqual([self.types(id).count("completed") for id in ids], [1] * 3)
        self.assertEqual(self.endings, ["COMPLETED"] * 3)
        self.assertIn(f"channel {REPLIES} was gone: 3 requests are published again", self.bench.queue.warnings)
        self.nothing_is_left()

    def test_with_endings_in_it(self) -> None:
        """The endings are lost with it, and the work is done once more."""
        ids = [self.accept() for _ in range(3)]
        deliveries = [self.receive_one() for _ in ids]
        self.bench.pass_time(2)
        self.stop_listener()
        for delivery in deliveries:
            self.settle(delivery)
        self.bench.server.delete(REPLIES)
        self.start_listener()
        self.bench.pass_time(3)
        for _ in ids:
            self.settle(self.receive_one())
        self.assertEqual([self.record(id).status for id in ids], [Status.COMPLETED] * 3)
        self.nothing_is_left()

    def test_with_beginnings_in_it(self) -> None:
        """Requests of which nothing was known are missed in their channel, once that is empty, and are worked on."""
        ids = [self.accept() for _ in range(3)]
        self.bench.pass_time(2)
        self.stop_listener()
        for _ in ids:
            self.settle(self.receive_one())
        self.bench.server.delete(REPLIES)
        self.start_listener()
        self.bench.pass_time(self.noticed)
        for _ in ids:
            self.settle(self.receive_one())
        self.assertEqual([self.record(id).status for id in ids], [Status.COMPLETED] * 3)
        self.nothing_is_left()

    def test_while_this_process_works(self) -> None:
        """What this process works on itself is in its file, and is not published again."""
        self.do(self.worker.queue.stop())
        id = self.accept()
        (delivery,) = self.do(self.bench.queue.receive(REQUESTS, 1))
        self.bench.server.delete(REPLIES)
        self.bench.pass_time(3)
        self.assertEqual(self.depth(REQUESTS), 1)
        self.settle(delivery)
        self.assertEqual(self.types(id), ["pending", "processing", "completed"])
        self.nothing_is_left()

    def test_worker_away(self) -> None:
        """A worker that finds the reply channel gone reports again until it is there, and loses nothing."""
        id = self.accept()
        delivery = self.receive_one()
        self.stop_listener()
        self.bench.server.delete(REPLIES)
        settling = self.bench.done(delivery.settle(self.reply(delivery)))
        self.assertIn(REPLIES, self.failureResultOf(settling).getErrorMessage())
        self.start_listener()
        self.settle(delivery)
        self.assertEqual(self.record(id).status, Status.COMPLETED)

    def test_a_restart_is_no_loss(self) -> None:
        """A listener that starts again does not take what workers work on for lost, however long they need."""
        id = self.accept()
        delivery = self.receive_one()
        self.bench.pass_time(2)
        self.restart_listener()
        for _ in range(20):
            self.bench.pass_time(LEASE / 2)
            delivery.extend()
        self.assertEqual(self.depth(REQUESTS), 1)
        self.assertEqual(list(self.bench.queue.warnings), [])
        self.settle(delivery)
        self.assertEqual(self.types(id), ["pending", "processing", "completed"])
        self.nothing_is_left()


class SqsConsumingTests(ConsumingTests):
    """The same where the broker leases each message"""

    traits = FORMS["sqs"]


class SqsLossTests(LossTests):
    """The same where the broker leases each message, and its depth is not exact"""

    traits = FORMS["sqs"]
    noticed = 400.0
